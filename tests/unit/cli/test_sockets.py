"""`sealane sockets`: what it asks, and how it prints what it is told."""

import json

import pytest

from sealane.api import routes
from sealane.engine.errors import NotFoundError
from sealane.wire.diagnosis import SocketsView, SocketView, TcpView

PATH = TcpView(rtt_ms=0.25, rttvar_ms=0.1254, retransmits=3, cwnd=10, mss=1448, unacked=2, send_window=65536)
COMMON = {"receive_queue": 0, "send_queue": 7, "uid": 1000}
SOCKETS = [
    SocketView(
        sandbox="web",
        proto="tcp",
        state="listen",
        address="::",
        port=80,
        remote_address="::",
        remote_port=0,
        inode=5,
        pid=812,
        process="ngi\x1bnx",
        **COMMON,
    ),
    SocketView(
        sandbox="web",
        proto="udp",
        state="unconnected",
        address="0.0.0.0",
        port=53,
        remote_address="0.0.0.0",
        remote_port=0,
        inode=6,
        **COMMON,
    ),
    SocketView(
        sandbox="web",
        proto="tcp",
        state="established",
        address="fd00::2",
        port=80,
        remote_address="fd00::3",
        remote_port=40000,
        inode=7,
        tcp=PATH,
        **COMMON,
    ),
]


@pytest.fixture
def asked(monkeypatch):
    seen = []

    def list_sockets(engine, reference, *, every_state):
        seen.append((reference, every_state))
        if reference == "nobody":
            raise NotFoundError("there is no sandbox 'nobody'", field="sandbox")
        return SocketsView(sockets=SOCKETS, unseen={"db": "it is gone"})

    monkeypatch.setattr(routes, "list_sockets", list_sockets)
    return seen


@pytest.mark.parametrize(
    ("words", "request_"),
    [((), ("", False)), (("web",), ("web", False)), (("host", "--all"), ("host", True))],
)
def test_the_question_goes_as_it_is_typed(cli, asked, words, request_):
    assert cli("sockets", *words).code == 0
    assert asked == [request_]


def test_a_connection_is_printed_with_its_path(cli, asked):
    line = cli("sockets").out.splitlines()[3]
    assert line.split() == (
        "web tcp established [fd00::2]:80 [fd00::3]:40000 0 7 0.250/0.125 3 10 2 uid 1000".split()
    )


def test_a_process_is_named_and_moves_no_cursor(cli, asked):
    line = cli("sockets").out.splitlines()[1]
    assert line.endswith(r"ngi\x1bnx (pid 812)")
    assert "[::]:80   " in line


def test_only_what_waits_for_a_peer(cli, asked):
    lines = cli("sockets", "web", "--listening").out.splitlines()[1:]
    assert [line.split()[2] for line in lines] == ["listen", "unconnected"]


def test_what_could_not_be_seen_is_said_on_stderr(cli, asked):
    assert cli("sockets").err == "db: not seen: it is gone\n"


def test_json_has_everything(cli, asked):
    ran = cli("sockets", "--json", "--listening")
    view = json.loads(ran.out)
    assert [item["inode"] for item in view["sockets"]] == [5, 6]
    assert view["unseen"] == {"db": "it is gone"}
    assert json.loads(cli("sockets", "--json").out)["sockets"][2]["tcp"]["send_window"] == 65536


def test_an_unknown_sandbox_is_an_error(cli, asked):
    ran = cli("sockets", "nobody")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("error: there is no sandbox 'nobody'\n")


def test_all_and_listening_exclude_each_other(cli, asked):
    assert cli("sockets", "--all", "--listening").code == 2
    assert asked == []
