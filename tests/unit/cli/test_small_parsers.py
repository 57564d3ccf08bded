"""Values of flags: what is read, and what is refused with which words."""

import sys
from argparse import ArgumentTypeError

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealane.cli.commands.exec import command_words, failed_code
from sealane.cli.context import UsageError
from sealane.cli.follow import FOLLOWED_MAX, Interleaved, prefixes, since_time
from sealane.cli.load import _plain
from sealane.cli.options import pairs, parsed, signal_number, stated, whole
from sealane.cli.output import Output, safe
from sealane.cli.publish import publish_requests
from sealane.client import ApiError
from sealane.compose.sizes import parse_size
from sealane.compose.yaml import read_yaml


@pytest.mark.parametrize(
    ("text", "number"), [("9", 9), ("KILL", 9), ("sigkill", 9), ("USR1", 10), ("64", 64), ("1", 1)]
)
def test_signals_go_by_number_and_name(text, number):
    assert signal_number(text) == number


@pytest.mark.parametrize("text", ["0", "65", "-9", "٩", "", "SIG", "KILL\n", "9 ", "999"])
def test_what_is_no_signal_is_refused(text):
    with pytest.raises(ArgumentTypeError):
        signal_number(text)


@pytest.mark.parametrize("text", ["", "-1", "1.5", "١", "1\n", " 1", "1" * 13, "0x1"])
def test_what_is_no_whole_number_is_refused(text):
    with pytest.raises(ArgumentTypeError):
        whole(text)


@pytest.mark.parametrize("text", ["", "m", "-5m", "10y", "12:00", "٣m", "1.2.3", "2023-13-01"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(ArgumentTypeError):
        since_time(text)


def test_pairs_keep_everything_after_the_first_equals_sign():
    assert pairs(["a=b=c", "d", "e="], "--x") == {"a": "b=c", "d": "", "e": ""}


def test_a_compose_parsers_hint_is_the_hint():
    with pytest.raises(UsageError) as caught:
        parsed(parse_size, "lots", "--memory")
    assert (caught.value.body["field"], caught.value.body["hint"][:5]) == ("--memory", "write")


def test_zero_says_something_and_nothing_does_not():
    fields = {"a": 0, "b": 0.0, "c": None, "d": "", "e": False, "f": [], "g": True, "h": {"x": 1}}
    assert stated(fields) == {"a": 0, "b": 0.0, "g": True, "h": {"x": 1}}


@given(
    first=st.integers(1, 65000),
    count=st.integers(1, 50),
    port=st.integers(1, 65000),
    proto=st.sampled_from(["tcp", "udp", "sctp"]),
)
def test_a_range_of_ports_is_as_long_on_both_sides(first, count, port, proto):
    last, end = first + count - 1, port + count - 1
    (request,) = publish_requests([f"{first}-{last}:{port}-{end}/{proto}"])
    assert (request.host_first, request.host_last, request.port, request.count) == (first, last, port, count)
    assert (request.proto, request.one_of) == (proto, False)


@given(st.text(max_size=60))
def test_safe_text_is_printable_and_plain_text_is_untouched(text):
    shown = safe(text)
    assert shown.isprintable()
    if text.isprintable():
        assert shown == text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: 1", 1), ("a: '1'", "1"), ("a: true", True), ("a: yes", "yes"), ("a: null", None), ("a: ~", None),
        ("a: 0o17", "0o17"), ("a: 22:22", "22:22"), ("a: 1.5", 1.5), ("a: -7", -7), ("a: 007", "007"),
        ("a: [1, x]", [1, "x"]), ("a: {b: c}", {"b": "c"}), ("a: 1e400", "1e400"), ('a: "true"', "true"),
    ],
)  # fmt: skip
def test_yaml_means_what_its_core_schema_says(text, value):
    assert _plain(read_yaml(text)) == {"a": value}


def test_a_dash_dash_before_the_command_is_dropped_and_one_inside_is_kept():
    assert command_words(["--", "git", "--", "x"]) == ["git", "--", "x"]
    assert command_words(["git", "--", "x"]) == ["git", "--", "x"]


@pytest.mark.parametrize(
    ("code", "field", "exit_code"),
    [
        ("not_found", "spec.command", 127), ("not_found", "command", 127), ("kernel", "spec.command", 126),
        ("not_found", "network", 125), ("invalid", "", 125),
    ],
)  # fmt: skip
def test_dockers_exit_codes(code, field, exit_code):
    assert failed_code(ApiError(400, {"code": code, "field": field})) == exit_code


def test_labels_of_followed_containers_are_aligned_and_safe():
    output = Output(sys.stdout, sys.stderr, as_json=False, environ={"NO_COLOR": "1"})
    assert prefixes(output, ["web-1", "db\x1b"]) == ["web-1  | ", "db\\x1b | "]


def test_no_more_containers_are_followed_than_the_bound():
    class Counting:
        opened = 0

        def another_client(self):
            Counting.opened += 1
            return self

        def stream(self, *_):
            return iter(())

        def shutdown(self):
            pass

    followed = Interleaved(Counting(), [f"c{n}" for n in range(FOLLOWED_MAX + 1)])
    assert sorted(followed.lines()) == [(n, None) for n in range(FOLLOWED_MAX)]
    assert Counting.opened == FOLLOWED_MAX


def test_the_daemons_flags_are_its_configuration(run, monkeypatch):
    import sealane.daemon.main

    seen = []
    monkeypatch.setattr(sealane.daemon.main, "run", lambda config: seen.append(config) or 7)
    ran = run("daemon", "--state", "/s", "--run-dir", "/r", "--socket", "/x.sock", "--store", "memory://",
              "--log-level", "debug", "--paranoid", "--no-dns")  # fmt: skip
    assert ran.code == 7
    config = seen[0]
    assert (config.state_dir, config.run_dir, config.socket, config.store) == (
        "/s",
        "/r",
        "/x.sock",
        "memory://",
    )
    assert (config.log_level, config.paranoid, config.dns) == ("debug", True, False)


def test_the_daemons_defaults_are_those_of_its_configuration(run, monkeypatch):
    import sealane.daemon.main
    from sealane.daemon.config import Config

    monkeypatch.delenv("SEALANE_SOCKET", raising=False)
    seen = []
    monkeypatch.setattr(sealane.daemon.main, "run", lambda config: seen.append(config) or 0)
    run("daemon")
    assert seen == [Config()]


BOMBS = {
    "aliases": "a: &a [x,x,x,x,x,x,x,x,x]\n"
    + "".join(f"{c}: &{c} [{','.join(['*' + p] * 9)}]\n" for p, c in zip("abcdefgh", "bcdefghi")),
    "depth": "a: " + "[" * 5000,
    "tag": "a: !!python/object/apply:os.system ['id']",
    "duplicate": "networks: []\nnetworks: []\n",
    "size": "a: " + "x" * (2 << 20),
    "json depth": '{"a":' * 3000,
}


@pytest.mark.parametrize("name", BOMBS)
@pytest.mark.parametrize("verb", ["apply", "plan", "up"])
def test_bombs_are_refused_before_the_daemon_is_asked(run, tmp_path, name, verb):
    (tmp_path / "file.yaml").write_text(BOMBS[name])
    ran = run("--socket", "/nonexistent/s", verb, "-f", str(tmp_path / "file.yaml"))
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("error: ")
