"""`sealane trace` on each fault that this kernel can make: where it ends, for which reason, and what is predicted."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from harness.host import Host, Lan
from harness.netns import Netns
from kernel.trace_town import Town

pytestmark = pytest.mark.kernel

CHAIN = """
table {family} {table} {{
    chain {chain} {{
        type filter hook {hook} priority 10;
        {policy}
        {rule}
    }}
}}
"""

SENDER = """
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.IPPROTO_IP, {option}, {value})
try:
    s.sendto(b"x" * {size}, ("{address}", 9))
except OSError as error:
    print(error)
"""
IP_TTL, IP_MTU_DISCOVER = 2, 10

SPOOFER = """
import socket, struct
s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
head = struct.pack("!BBHHHBBH", 0x45, 0, 28, 7, 0, 64, 17, 0)
packet = head + socket.inet_aton("{source}") + socket.inet_aton("{address}") + struct.pack("!HHHH", 5, 9, 8, 0)
s.sendto(packet, ("{address}", 0))
"""


@pytest.fixture(scope="module")
def town(shared_host: Host, lan: Lan) -> Town:
    return Town(shared_host)


@contextmanager
def ruled(where: Netns, hook: str, rule: str = "", *, family: str = "ip", policy: str = "") -> Iterator[None]:
    """A foreign table, for as long as the context lasts."""
    text = CHAIN.format(family=family, table="mine", chain="ours", hook=hook, rule=rule, policy=policy)
    where.sh("nft", "-f", "-", text=text)
    try:
        yield
    finally:
        where.sh("nft", "delete", "table", family, "mine")


@contextmanager
def configured(where: Netns, do: str, undo: str) -> Iterator[None]:
    """Two command lines."""
    where.sh(*do.split())
    try:
        yield
    finally:
        where.sh(*undo.split())


def only(town: Town, *words: str) -> dict[str, Any]:
    """The one journey of a trace, which is not as predicted."""
    code, (observed_path,), _ = town.trace(*words)
    assert (code, observed_path["passes"]) == (1, False)
    assert observed_path["agrees"] is False
    return dict(observed_path["observed"])


# --- rules -----------------------------------------------------------------------------------------------------------


def test_the_senders_own_output(town: Town) -> None:
    """There is no device yet: the namespace is the socket's."""
    with ruled(town.boxes["web"].ns, "output", 'tcp dport 9 drop comment "no discard"'):
        observed = only(town, "web", "api:9")
    assert (observed["outcome"], observed["where"]) == ("dropped", town.names["web"])
    assert observed["reason"].endswith(
        "(no discard) of ip table mine, chain ours, which is not sealane's, drops it"
    )
    assert observed["hint"] == "nft -a list chain ip mine ours"
    assert observed["missing"] == ["host", town.names["api"]]


def test_the_receivers_own_input(town: Town) -> None:
    with ruled(town.boxes["api"].ns, "input", "tcp dport 9 drop", family="inet"):
        observed = only(town, "web", "api:9")
    assert (observed["where"], observed["missing"]) == (town.names["api"], [])
    assert "inet table mine, chain ours" in observed["reason"]


@pytest.mark.parametrize(("source", "target"), [("web", "192.0.2.1:9"), ("web", "api:9"), ("near", "far:9")])
def test_a_foreign_policy_in_the_host(town: Town, source: str, target: str) -> None:
    """Routed out, bridged (br_netfilter), and routed between two."""
    with ruled(town.host.ns, "forward", policy="policy drop;"):
        observed = only(town, source, target)
    assert (observed["outcome"], observed["where"]) == ("dropped", "host")
    assert observed["reason"] == "the policy of ip table mine, chain ours, which is not sealane's, drops it"


def test_a_reject_is_no_closed_port(town: Town) -> None:
    """The sender hears the same of both."""
    with ruled(town.host.ns, "forward", "tcp dport 9 reject"):
        code, (observed_path,), notes = town.trace("near", "far:9")
    assert (code, observed_path["outcome"], observed_path["observed"]["where"]) == (1, "dropped", "host")
    assert notes == ["sender's result: refused"]


def test_ipv6_too(town: Town) -> None:
    with ruled(town.boxes["api"].ns, "input", "udp dport 9 drop", family="ip6"):
        observed = only(town, "web", "api:9", "-6", "--proto", "udp")
    assert observed["where"] == town.names["api"]
    assert observed["flow"]["destination"] == town.boxes["api"].v6


# --- routes ----------------------------------------------------------------------------------------------------------


def test_no_forwarding(town: Town) -> None:
    host = town.host.ns
    with configured(host, "sysctl -qw net.ipv4.ip_forward=0", "sysctl -qw net.ipv4.ip_forward=1"):
        observed = only(town, "near", "far:9")
    assert observed["reason"] == "this namespace does not forward, or takes no such address (IP_INADDRERRORS)"
    assert "ip_forward=1" in observed["hint"]


@pytest.mark.parametrize("kind", ["unreachable", "blackhole", "prohibit"])
def test_a_route_that_refuses(town: Town, kind: str) -> None:
    add, delete = (f"ip route {verb} {kind} 10.200.0.0/16" for verb in ("add", "del"))
    with configured(town.host.ns, add, delete):
        observed = only(town, "near", "10.200.0.1:9")
    assert observed["where"] == "host"
    assert "ip route get" in observed["hint"]


def test_no_route_in_the_host(town: Town) -> None:
    host = town.host.ns
    gateway = host.sh("ip", "-4", "route", "show", "default").split()[2]
    with configured(host, "ip route del default", f"ip route add default via {gateway}"):
        code, (observed_path,), _ = town.trace("near", "10.200.0.1:9")
    assert (code, observed_path["outcome"], observed_path["observed"]["where"]) == (1, "dropped", "host")
    assert observed_path["observed"]["reason"] == "there is no route to the destination (IP_INNOROUTES)"


def test_a_link_that_is_too_narrow(town: Town, live: "Live") -> None:
    add, delete = (f"ip route {verb} 192.0.2.1/32 dev eth0 mtu 1400" for verb in ("add", "del"))
    with configured(town.host.ns, add, delete):
        send = SENDER.format(option=IP_MTU_DISCOVER, value=2, size=1450, address="192.0.2.1")
        code, (observed_path,), _ = live(
            town, "web", "192.0.2.1:9", "--proto", "udp", act=lambda: python(town, "web", send)
        )
    assert (code, observed_path["outcome"]) == (1, "dropped")
    assert observed_path["observed"]["reason"].endswith("(PKT_TOO_BIG)")


def test_a_ttl_that_is_used_up(town: Town, live: "Live") -> None:
    send = SENDER.format(option=IP_TTL, value=1, size=1, address="192.0.2.1")
    code, (observed_path,), _ = live(
        town, "web", "192.0.2.1:9", "--proto", "udp", act=lambda: python(town, "web", send)
    )
    assert (code, observed_path["observed"]["reason"]) == (
        1,
        "its TTL is used up, or its header is wrong (IP_INHDR)",
    )


def test_rp_filter(town: Town, lan: Lan, live: "Live") -> None:
    host, address = town.host.ns, town.host.address(4)
    spoof = SPOOFER.format(source="198.51.100.1", address=address)
    way, back = "ip route add 198.51.100.0/24 dev stray0", "ip link del stray0"
    host.sh(*"ip link add stray0 type veth peer name stray1".split())
    host.sh(*"ip link set stray0 up".split())
    host.sh(*"ip link set stray1 up".split())
    with configured(host, way, back):
        host.sysctl("net/ipv4/conf/eth0/rp_filter", "1")
        code, (observed_path,), _ = live(
            town, "198.51.100.1", ":9", "--proto", "udp", act=lambda: lan.ext.sh("python3", "-c", spoof)
        )
        host.sysctl("net/ipv4/conf/eth0/rp_filter", "0")
    assert (code, observed_path["outcome"], observed_path["observed"]["where"]) == (1, "dropped", "host")
    assert observed_path["observed"]["reason"].startswith("rp_filter")


# --- links and neighbours --------------------------------------------------------------------------------------------


def known(town: Town, mac: str) -> Any:
    """web knows api by a MAC."""
    address = town.boxes["api"].v4
    return configured(
        town.boxes["web"].ns,
        f"ip neigh replace {address} lladdr {mac} dev eth0 nud permanent",
        f"ip neigh del {address} dev eth0",
    )


def test_a_mac_that_nobody_has(town: Town) -> None:
    with known(town, "02:de:ad:be:ef:01"):
        observed = only(town, "web", "api:9", "--proto", "udp")
    assert (observed["where"], observed["missing"]) == ("host", [town.names["api"]])
    assert observed["reason"] == "no port of the bridge leads there (NO_TX_TARGET)"


def test_a_limit_that_takes_no_such_packet(town: Town) -> None:
    limit = "tc qdisc add dev eth0 root tbf rate 8bit burst 60 limit 1000"
    with (
        known(town, town.boxes["api"].mac),
        configured(town.boxes["web"].ns, limit, "tc qdisc del dev eth0 root"),
    ):
        observed = only(town, "web", "api:9")
    assert (observed["where"], observed["reason"]) == (
        town.names["web"],
        "a queue is full, or a rate limit was reached (QDISC_DROP)",
    )


def test_a_queue_that_keeps_it(town: Town) -> None:
    """Nothing is told of a packet that waits: it is last seen on its way out."""
    web = town.boxes["web"]
    limit = "tc qdisc add dev eth0 root tbf rate 8bit burst 60 limit 1000"
    with known(town, town.boxes["api"].mac), configured(web.ns, limit, "tc qdisc del dev eth0 root"):
        for _ in range(2):
            web.ns.sh(
                "python3", "-c", SENDER.format(option=IP_TTL, value=64, size=1, address=town.boxes["api"].v4)
            )
        observed = only(town, "web", "api:9", "--proto", "udp")
    assert observed["outcome"] == "vanished"
    assert observed["reason"] == f"last seen at {town.names['web']}, sent by eth0; then no more"


def test_nobody_answers_for_the_address(town: Town) -> None:
    """ARP gives up after three seconds."""
    code, (observed_path,), notes = town.trace("web", "10.71.0.99:9", "--timeout", "5")
    assert (code, observed_path["agrees"]) == (1, True)
    assert observed_path["observed"]["reason"].endswith("(NEIGH_FAILED)")
    assert notes == ["sender's result: no route to host"]


@pytest.mark.parametrize("proto", ["tcp", "udp"])
def test_closed_ports(town: Town, proto: str, family: int) -> None:
    code, (observed_path,), notes = town.trace("web", "api:9", f"-{family}", "--proto", proto)
    assert (code, observed_path["agrees"], notes) == (0, True, ["sender's result: refused"])
    assert observed_path["observed"]["reason"].endswith(f"nobody listens on 9/{proto}")


def test_a_sender_whose_link_is_down(town: Town) -> None:
    """Nothing leaves."""
    with town.host.workload("side", "mute") as box:
        box.ns.sh("ip", "link", "set", "eth0", "down")
        code, observed_paths, notes = town.trace(box.endpoints["side"]["sandbox"], "far:9")
    assert (code, observed_paths) == (2, [])
    assert notes[0].startswith("no packet was seen that is 10.74.0.")
    assert notes[1] == "sender's result: network is unreachable: it has no route, or its link is down"
    assert notes[-1].endswith("differs: link eth0")


# --- what is made of a packet ----------------------------------------------------------------------------------------


def test_fragments_go_on_as_another_packet(town: Town, live: "Live") -> None:
    """Connection tracking puts them together in the host."""
    send = SENDER.format(option=IP_MTU_DISCOVER, value=0, size=4000, address="192.0.2.1")
    words = "web", "192.0.2.1:9", "--proto", "udp", "--count", "2"
    code, observed_paths, _ = live(town, *words, act=lambda: python(town, "web", send))
    assert (code, [observed_path["outcome"] for observed_path in observed_paths]) == (
        0,
        ["continues", "exits"],
    )
    assert all(observed_path["agrees"] for observed_path in observed_paths)


# --- tools -----------------------------------------------------------------------------------------------------------

Live = Callable[..., tuple[int, list[dict[str, Any]], list[str]]]


@pytest.fixture
def live() -> Live:
    def live(town: Town, *words: str, act: Callable[[], Any]) -> tuple[int, list[dict[str, Any]], list[str]]:
        with town.live(*words) as trace:
            act()
            return trace.result()

    return live


def python(town: Town, name: str, source: str) -> None:
    town.boxes[name].ns.sh("python3", "-c", source)
