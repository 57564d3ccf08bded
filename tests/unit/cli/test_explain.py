"""`sealane explain`: what it asks, prints, and ends with."""

import json

import msgspec
import pytest

from sealane.api import routes
from sealane.engine.errors import InvalidError, StoreFailedError
from sealane.wire.diagnosis import ExplainView

DRIFT = {"db:80": [], "db:81": ["host: missing: route 10.1.0.0/24"], "db:82": []}
UNREAD = {"db:82": ["host: XDP program on eth0"]}


def outcome_of(request):
    if request.source != "web":
        return "fails"
    is_doubted = request.observed and (DRIFT.get(request.target) or UNREAD.get(request.target))
    return "unknown" if is_doubted else "passes"


@pytest.fixture
def asked(monkeypatch):
    """Requests that reach the engine; the answer is a denial unless `passes` is asked for."""
    seen = []

    def explain_packet(engine, request):
        seen.append(request)
        match request.source:
            case "nobody":
                raise InvalidError("'nobody' is no sandbox", field="source")
            case "broken":
                raise StoreFailedError("the store is full")
        return ExplainView(
            passes=request.source == "web",
            outcome=outcome_of(request),
            disposition="denied",
            minimal="the verdict",
            summary="the verdict\n  hop\n",
            detailed="the verdict\n  every step\n",
            graph="<svg/>\n" if request.graph else "",
            drift=DRIFT.get(request.target) if request.observed else None,
            unread=UNREAD.get(request.target, []) if request.observed else None,
            trace=msgspec.Raw(b'{"hops":[]}'),
        )

    monkeypatch.setattr(routes, "explain_packet", explain_packet)
    return seen


def test_the_question_goes_as_it_is_typed(cli, asked):
    cli("explain", "web", "db:53", "--proto", "udp", "-6", "--reverse", "--size", "1400", "--dont-fragment")
    (request,) = asked
    assert (request.source, request.target, request.proto, request.family) == ("web", "db:53", "udp", 6)
    assert (request.reverse, request.size, request.dont_fragment) == (True, 1400, True)


@pytest.mark.parametrize(
    ("option", "printed"),
    [
        ((), "the verdict\n  hop\n"),
        (("--minimal",), "the verdict\n"),
        (("--detailed",), "the verdict\n  every step\n"),
        (("--graph", "svg"), "<svg/>\n"),
    ],
)
def test_there_are_three_renderings(cli, asked, option, printed):
    assert cli("explain", "web", "db:80", *option).out == printed


@pytest.mark.parametrize(("source", "code"), [("web", 0), ("db", 1), ("nobody", 2), ("broken", 1)])
def test_a_denial_and_a_question_that_cannot_be_answered_end_differently(cli, asked, source, code):
    assert cli("explain", source, "db:80").code == code


def test_what_cannot_be_said_is_said_on_stderr(cli, asked):
    ran = cli("explain", "nobody", "db:80")
    assert ran.out == ""
    assert ran.err.startswith("error: 'nobody' is no sandbox\nfield: FROM\n")


def test_json_has_the_trace(cli, asked):
    assert json.loads(cli("explain", "web", "db:80", "--json").out)["trace"] == {"hops": []}


def test_all_is_clear_only_where_the_kernel_was_read_and_agrees(cli, asked):
    clear = "No drift on this path, and nothing on it that sealane did not read.\n"
    assert "drift" not in cli("explain", "web", "db:81").out
    ran = cli("explain", "web", "db:80", "--observed")
    assert (ran.code, ran.out.endswith(clear)) == (0, True)
    ran = cli("explain", "web", "db:81", "--observed")
    assert (ran.code, clear in ran.out) == (2, False)
    assert ran.out.endswith("! in the kernel now: host: missing: route 10.1.0.0/24\n")


def test_what_was_not_read_is_named_with_the_tool_that_reads_it(cli, asked):
    ran = cli("explain", "web", "db:82", "--observed")
    assert ran.code == 2
    assert ran.out.endswith(
        "? not read: host: XDP program on eth0\n→ use `sealane trace`: it follows the real packet\n"
    )


def test_who_asks_may_be_named_by_a_flag(cli, asked):
    cli("explain", "--from", "192.0.2.7", ":8080")
    assert [(request.source, request.target) for request in asked] == [("192.0.2.7", ":8080")]


@pytest.mark.parametrize(
    ("words", "error"),
    [(("web",), "TO is missing"), (("--from", "web", "api", "db:80"), "FROM is given twice")],
)
def test_a_packet_has_two_ends(cli, asked, words, error):
    ran = cli("explain", *words)
    assert (ran.code, asked) == (2, [])
    assert ran.err.startswith(f"error: {error}\n")
