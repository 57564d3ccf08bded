"""`sealane sockets` on the real kernel: sockets of sandboxes and of the host, as `ss` tells of them."""

import json
import os
import re
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from harness.api import ApiError
from harness.host import Host, Workload
from harness.netns import Netns, eventually
from harness.scene import ANY

pytestmark = pytest.mark.kernel

PORT = 80
REACHED_S = 30.0
CONNECT = """
import socket
client = socket.create_connection(({address!r}, {port}), 5)
client.recv(200)
result = client.getsockname()[1]
"""
"""The agent keeps no name of one call for the next, so the socket is kept where modules are."""
KEEP = CONNECT + "import builtins; builtins.sealane_test_client = client\n"
SEND = "import builtins; result = builtins.sealane_test_client.send(bytes({size}))"
DEAF = """
table inet deaf {
    chain input { type filter hook input priority 0; tcp dport 80 drop; }
}
"""
CLOSE = "import builtins; builtins.sealane_test_client.close()"


@pytest.fixture(scope="module")
def pair(shared_host: Host) -> Iterator[tuple[Workload, Workload]]:
    shared_host.api.network("front", "10.74.0.0/24", "fd74::/64")
    with shared_host.workload("front", "web") as web, shared_host.workload("front", "cli") as cli:
        servers = {version: web.ns.listen("tcp", address, PORT) for version, address in ANY.items()}
        for version, server in servers.items():
            # Seen on a busy machine: the first ARP and SYN after an attach go unanswered for seconds.
            eventually(partial(cli.ns.reaches, server, web.address(version)), REACHED_S, "web is reached")
        yield web, cli
        for server in servers.values():
            server.close()
    shared_host.api.remove_network("front")


@pytest.fixture
def talk(pair: tuple[Workload, Workload], family: int) -> Iterator[int]:
    """A connection from cli to web; the client's port."""
    web, cli = pair
    yield cli.ns.python(KEEP.format(address=web.address(family), port=PORT))
    cli.ns.python(CLOSE)


def sandbox_of(workload: Workload) -> str:
    return str(next(iter(workload.endpoints.values()))["sandbox"])


def sockets(host: Host, sandbox: str = "", **query: str) -> list[dict[str, Any]]:
    if sandbox:
        query["sandbox"] = sandbox
    view = host.api.get("/sockets", **query)
    assert view["unseen"] == {}
    return list(view["sockets"])


def client_side(host: Host, cli: Workload, port: int) -> dict[str, Any]:
    (found,) = [item for item in sockets(host, sandbox_of(cli)) if item["port"] == port]
    return found


def number(ss: str, name: str) -> str:
    found = re.search(rf"\b{name}:(\S+)", ss)
    return str(found[1]) if found else "0"


def ss_of(ns: Netns, port: int) -> str:
    return ns.sh("ss", "-tniH", "sport", f"= :{port}")


def test_a_connection_is_what_ss_says(
    shared_host: Host, pair: tuple[Workload, Workload], talk: int, family: int
) -> None:
    web, cli = pair
    seen = client_side(shared_host, cli, talk)
    text = ss_of(cli.ns, talk)
    assert (seen["state"], seen["address"], seen["remote_address"], seen["remote_port"]) == (
        "established",
        cli.address(family),
        web.address(family),
        PORT,
    )
    tcp = seen["tcp"]
    rtt, rttvar = (float(part) for part in number(text, "rtt").split("/"))
    # `ss` rounds to six digits.
    assert (tcp["rtt_ms"], tcp["rttvar_ms"]) == pytest.approx((rtt, rttvar), abs=0.001)
    assert tcp["rtt_ms"] > 0
    assert (tcp["cwnd"], tcp["mss"]) == (int(number(text, "cwnd")), int(number(text, "mss")))
    assert tcp["retransmits"] == int(number(text, "retrans").rpartition("/")[2])
    assert (tcp["unacked"], seen["send_queue"]) == (0, 0)


def test_both_ends_are_listed_and_their_processes(
    shared_host: Host, pair: tuple[Workload, Workload], talk: int, family: int
) -> None:
    web, cli = pair
    found = sockets(shared_host)
    ends = [item for item in found if talk in (item["port"], item["remote_port"])]
    assert {(item["sandbox"], item["pid"]) for item in ends} == {
        (sandbox_of(web), web.ns.pid),
        (sandbox_of(cli), cli.ns.pid),
    }
    listeners = {item["address"]: item for item in found if item["state"] == "listen"}
    assert set(listeners) == set(ANY.values())
    listener = listeners[ANY[family]]
    assert (listener["port"], listener["uid"], listener["tcp"]) == (PORT, os.getuid(), None)


def test_what_is_in_flight_shows(
    shared_host: Host, pair: tuple[Workload, Workload], talk: int, family: int
) -> None:
    """The peer hears nothing: segments are sent, sent again, and never acknowledged."""
    web, cli = pair
    size = 3000
    web.ns.sh("nft", "-f", "-", text=DEAF)
    try:
        assert cli.ns.python(SEND.format(size=size)) == size

        def sent_again() -> dict[str, Any] | None:
            seen = client_side(shared_host, cli, talk)
            return seen if seen["tcp"]["retransmits"] else None

        seen = eventually(sent_again, 5, "a segment is sent again")
        assert seen is not None
        text = ss_of(cli.ns, talk)
        assert seen["send_queue"] == size == int(text.split()[2])
        assert seen["tcp"]["unacked"] == int(number(text, "unacked")) > 0
        assert number(text, "retrans") != "0"
    finally:
        web.ns.sh("nft", "delete", "table", "inet", "deaf")


def test_what_waits_to_be_read_shows(shared_host: Host, pair: tuple[Workload, Workload], family: int) -> None:
    web, cli = pair
    web.ns.python(
        "import builtins, socket\n"
        f"mute = socket.socket({'socket.AF_INET6' if family == 6 else 'socket.AF_INET'}, socket.SOCK_DGRAM)\n"
        f"mute.bind(({ANY[family]!r}, 5353))\n"
        "builtins.sealane_test_client = mute\n"
    )
    try:
        cli.ns("send", address=web.address(family), port=5353, payloads=["x" * 100])

        def waiting() -> dict[str, Any] | None:
            (seen,) = [item for item in sockets(shared_host, sandbox_of(web)) if item["proto"] == "udp"]
            return seen if seen["receive_queue"] >= 100 else None

        seen = eventually(waiting, 5, "the datagram waits")
        assert seen is not None
        assert (seen["state"], seen["port"], seen["pid"]) == ("unconnected", 5353, web.ns.pid)
    finally:
        web.ns.python(CLOSE)


def test_the_hosts_are_its_own(shared_host: Host, pair: tuple[Workload, Workload], family: int) -> None:
    server = shared_host.ns.listen("tcp", ANY[family], 2222)
    found = [item for item in sockets(shared_host, "host") if item["port"] == 2222]
    assert [(item["sandbox"], item["pid"]) for item in found] == [("host", shared_host.ns.pid)]
    assert 2222 not in {item["port"] for item in sockets(shared_host)}
    server.close()


def test_a_connection_that_ends_is_there_only_if_wanted(
    shared_host: Host, pair: tuple[Workload, Workload], family: int
) -> None:
    """Who closes first keeps TIME-WAIT for a minute."""
    web, cli = pair
    port = cli.ns.python(CONNECT.format(address=web.address(family), port=PORT) + "client.close()\n")

    def state() -> str:
        found = sockets(shared_host, sandbox_of(cli), all="1")
        return next((item["state"] for item in found if item["port"] == port), "")

    eventually(lambda: state() == "time-wait", 5, "the connection is in TIME-WAIT")
    assert port not in {item["port"] for item in sockets(shared_host, sandbox_of(cli))}


def test_an_unknown_sandbox_is_not_found(shared_host: Host) -> None:
    with pytest.raises(ApiError) as refused:
        sockets(shared_host, "nobody")
    assert (refused.value.status, refused.value.code) == (404, "not_found")


def test_the_command_prints_it(shared_host: Host, pair: tuple[Workload, Workload], talk: int) -> None:
    cli = sandbox_of(pair[1])
    lines = shared_host.sealane("sockets", cli).stdout.splitlines()
    assert any(f":{talk}" in line and "established" in line for line in lines), lines
    view = json.loads(shared_host.sealane("sockets", "--json").stdout)
    assert talk in {item["port"] for item in view["sockets"]}
