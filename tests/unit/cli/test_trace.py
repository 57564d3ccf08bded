"""`sealane trace`: what it asks, prints, and ends with."""

import json

import msgspec
import pytest

from sealane.wire.diagnosis import TraceView

ARRIVED = TraceView(
    kind="path",
    passes=True,
    agrees=True,
    outcome="delivered",
    minimal="it arrived",
    summary="it arrived\n  by eth0\n",
    detailed="it arrived\n\neverything\n",
    observed=msgspec.Raw(b'{"where":"db"}'),
    predicted=msgspec.Raw(b'{"disposition":"delivered"}'),
)
DIED = msgspec.structs.replace(
    ARRIVED, passes=False, minimal="it died", summary="it died\n", detailed="it died\n"
)
END = TraceView(kind="end", notes=["sender's result: refused"])
NOTHING = TraceView(kind="end", notes=["no packet was seen"])


def test_the_question_goes_as_it_is_typed(cli, api):
    cli("trace", "web", "db:53", "--proto", "udp", "-6", "--live", "--count", "3", "--timeout", "7.5")
    (request,) = api.services.traces
    assert (request.source, request.target, request.proto, request.family) == ("web", "db:53", "udp", 6)
    assert (request.mode, request.count, request.timeout, request.reverse) == ("live", 3, 7.5, False)


@pytest.mark.parametrize(
    ("options", "mode", "count", "timeout"),
    [
        ((), "inject", 1, 1.0),
        (("--reverse",), "inject", 2, 1.0),
        (("--live",), "live", 1, 600.0),
        (("--dropped",), "dropped", 1, 600.0),
        (("--live", "--reverse"), "live", 2, 600.0),
        (("--reverse", "--count", "5"), "inject", 5, 1.0),
        (("--count", "0"), "inject", 0, 1.0),
        (("--timeout", "0"), "inject", 1, 0.0),
    ],
)
def test_what_is_not_typed_is_chosen_and_what_is_typed_is_not(cli, api, options, mode, count, timeout):
    cli("trace", "web", "db:80", *options)
    (request,) = api.services.traces
    assert (request.mode, request.count, request.timeout) == (mode, count, timeout)


@pytest.mark.parametrize(
    ("options", "printed"),
    [
        ((), "it arrived\n  by eth0\nsender's result: refused\n"),
        (("--minimal",), "it arrived\nsender's result: refused\n"),
        (("--detailed",), "it arrived\n\neverything\nsender's result: refused\n"),
    ],
)
def test_there_are_three_renderings(cli, api, options, printed):
    api.services.traced = [ARRIVED, END]
    assert cli("trace", "web", "db:80", *options).out == printed


@pytest.mark.parametrize(
    ("views", "code"),
    [
        ([ARRIVED, END], 0),
        ([ARRIVED, ARRIVED, END], 0),
        ([DIED, END], 1),
        ([ARRIVED, DIED, END], 1),
        ([NOTHING], 2),
        ([], 2),
    ],
)
def test_the_exit_code_tells_whether_all_arrived(cli, api, views, code):
    api.services.traced = views
    assert cli("trace", "web", "db:80").code == code


@pytest.mark.parametrize(("source", "code"), [("nobody", 2), ("broken", 1)])
def test_what_cannot_be_asked_and_what_cannot_be_done(cli, source, code):
    ran = cli("trace", source, "db:80")
    assert (ran.code, ran.out) == (code, "")
    assert ran.err.startswith("error: ")


@pytest.mark.parametrize(
    "words",
    [
        ("web", "db:80", "--timeout", "nan"),
        ("web", "db:80", "--timeout", "inf"),
        ("web", "db:80", "--timeout", "soon"),
        ("web", "db:80", "--count", "-1"),
        ("web", "db:80", "--count", "many"),
        ("web", "db:80", "--live", "--dropped"),
        ("web", "db:80", "--minimal", "--detailed"),
        ("web", "db:80", "-4", "-6"),
        ("web", "db:80", "--proto", "gre"),
        ("web",),
    ],
)
def test_what_makes_no_sense_is_not_sent(cli, api, words):
    assert cli("trace", *words).code == 2
    assert api.services.traces == []


def test_json_is_a_line_for_each(cli, api):
    api.services.traced = [ARRIVED, END]
    first, last = map(json.loads, cli("trace", "web", "db:80", "--json").out.splitlines())
    assert (first["kind"], first["observed"], first["predicted"]["disposition"]) == (
        "path",
        {"where": "db"},
        "delivered",
    )
    assert last == {**last, "kind": "end", "notes": ["sender's result: refused"]}
