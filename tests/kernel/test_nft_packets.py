"""What the rules do to packets: a client, a host that routes and carries the rules, a server behind it.

client 10.1.0.2 ── cl 10.1.0.1  host  sv 10.2.0.1 ── 10.2.0.2 server       (fd01::, fd02:: likewise)
"""

import os

import pytest

from harness.netns import Netns, eventually, join
from kernel.nft_support import create, observed, operations, with_table
from sealane.kernel.nft import (
    ACCEPT,
    DPORT,
    DROP,
    FIB_LOCAL,
    IIFNAME,
    IP6_DADDR,
    IP6_SADDR,
    IP_DADDR,
    IP_SADDR,
    L4PROTO,
    OIFNAME,
    RETURN,
    SPORT,
    BitTest,
    Chain,
    Cmp,
    CmpPrefix,
    CmpRange,
    Concat,
    Counter,
    Ct,
    DnatMap,
    Element,
    Fib,
    Hook,
    Lookup,
    Masquerade,
    Notrack,
    Rule,
    Set,
    Snat,
    Table,
    Verdict,
    VerdictMap,
    concat,
    field,
)
from sealane.linux import netns
from sealane.linux.netlink.conntrack import FlowMatch, delete_flows, flows
from sealane.linux.netlink.socket import NETLINK_NETFILTER
from sealane.linux.nft import apply_nft

pytestmark = pytest.mark.kernel

NFT = {4: "ip", 6: "ip6"}
KIND = {4: "ipv4_addr", 6: "ipv6_addr"}
SADDR, DADDR = {4: IP_SADDR, 6: IP6_SADDR}, {4: IP_DADDR, 6: IP6_DADDR}
CLIENT = {4: "10.1.0.2", 6: "fd01::2"}
HOST = {4: "10.1.0.1", 6: "fd01::1"}
HOST_INSIDE = {4: "10.2.0.1", 6: "fd02::1"}
SERVER = {4: "10.2.0.2", 6: "fd02::2"}
LENGTH = {4: 24, 6: 64}
PORT = 7000
REFUSED_S = 0.15
DAD_S = 10.0
FORWARD = Hook("filter", "forward", 0)
PROTO_PORT = ("inet_proto", "inet_service")
TO_US = Cmp(Fib(), "==", FIB_LOCAL.to_bytes(4, "little"), "local")
FROM_CLIENT = Cmp(IIFNAME, "==", field("ifname", "cl"), '"cl"')
UDP = Cmp(L4PROTO, "==", b"\x11", "udp")


class Road:
    """The three namespaces, a UDP and a TCP server at `PORT`, and a socket to the host's nftables."""

    def __init__(self, client, host, server):
        self.client, self.host, self.server = client, host, server
        join(host, "cl", client, "eth0")
        join(host, "sv", server, "eth0")
        for family in (4, 6):
            self._address(family)
        host.sysctl("net/ipv4/ip_forward", "1")
        host.sysctl("net/ipv6/conf/all/forwarding", "1")
        self.listening = {
            (family, proto): server.listen(proto, SERVER[family], PORT)
            for family in (4, 6)
            for proto in ("udp", "tcp")
        }
        descriptor = os.open(host.path, os.O_RDONLY)
        self.socket = netns.open_socket(descriptor, NETLINK_NETFILTER)
        os.close(descriptor)

    def _address(self, family):
        nodad = ("nodad",) if family == 6 else ()
        for where, address, link in (
            (self.client, CLIENT, "eth0"),
            (self.host, HOST, "cl"),
            (self.host, HOST_INSIDE, "sv"),
            (self.server, SERVER, "eth0"),
        ):
            where.ip("addr", "add", f"{address[family]}/{LENGTH[family]}", "dev", link, *nodad)
        for where, gateway in ((self.client, HOST), (self.server, HOST_INSIDE)):
            where.ip("route", "add", "default", "via", gateway[family])
        if family == 6:
            # Who asks for neighbours from a link-local address that is tentative gets no answer, for two seconds.
            eventually(lambda: "tentative" not in self.host.ip("-6", "addr", "show"), DAD_S)

    def ask(self, family, proto="udp", port=PORT, *, to=SERVER, **options):
        """Whether the server, and no other, answers the client."""
        server = self.listening[family, proto]
        return self.client.reaches(server, to[family], port, timeout=REFUSED_S, **options)

    def peer(self, family, proto="udp"):
        """From which address the server saw the last client come."""
        return self.listening[family, proto].peers()[-1][0]

    def apply(self, objects):
        create(self.socket, objects)

    def clear(self):
        assert apply_nft(self.socket, operations("delete", [Table(family="ip"), Table(family="ip6")])) == []
        self.host.run("conntrack", "-F")


@pytest.fixture(scope="module")
def whole_road():
    with Netns("client") as client, Netns("host") as host, Netns("server") as server:
        road = Road(client, host, server)
        yield road
        road.socket.close()


@pytest.fixture
def road(whole_road):
    yield whole_road
    whole_road.clear()


@pytest.fixture(params=[4, 6])
def family(request):
    return request.param


def base(family, hook, *rules, name="base"):
    return Chain(
        family=NFT[family], name=name, hook=hook, rules=tuple(Rule(statements) for statements in rules)
    )


def a_set(family, *kinds, name="s", data=(), interval=False):
    return Set(family=NFT[family], name=name, type=kinds, data=data, interval=interval)


def element(owner, *values, ends=(), data=b""):
    end = concat(owner.type, ends) if ends else b""
    return Element(family=owner.family, set=owner.name, value=concat(owner.type, values), end=end, data=data)


# --- matches --------------------------------------------------------------------------------------------------------


def matches(family):
    """Statement → whether the client's UDP datagram to the server is meant by it."""
    v6 = family == 6
    near, far = ("fd01::/16", "fd00::/17") if v6 else ("10.0.0.0/9", "10.128.0.0/9")
    yield FROM_CLIENT, True
    yield Cmp(IIFNAME, "==", field("ifname", "c"), '"c"'), False
    yield Cmp(IIFNAME, "==", b"c", '"c*"'), True
    yield Cmp(OIFNAME, "==", b"sx", '"sx*"'), False
    yield Cmp(OIFNAME, "!=", field("ifname", "sv"), '"sv"'), False
    yield (
        CmpPrefix(SADDR[family], "==", f"{CLIENT[family].rstrip('2')}{'' if v6 else '0'}/{LENGTH[family]}"),
        True,
    )
    yield (
        CmpPrefix(DADDR[family], "==", f"{CLIENT[family].rstrip('2')}{'' if v6 else '0'}/{LENGTH[family]}"),
        False,
    )
    yield CmpPrefix(SADDR[family], "==", near), True
    yield CmpPrefix(SADDR[family], "==", far), False
    yield CmpPrefix(SADDR[family], "!=", near), False
    yield CmpPrefix(DADDR[family], "==", f"{SERVER[family]}/{128 if v6 else 32}"), True
    yield CmpPrefix(DADDR[family], "==", f"{HOST[family]}/{128 if v6 else 32}"), False
    yield CmpPrefix(DADDR[family], "==", "::/0" if v6 else "0.0.0.0/0"), True
    yield CmpPrefix(DADDR[family], "!=", "::/0" if v6 else "0.0.0.0/0"), False
    yield Cmp(DPORT, "==", PORT.to_bytes(2, "big"), str(PORT)), True
    yield Cmp(SPORT, "==", PORT.to_bytes(2, "big"), str(PORT)), False
    yield CmpRange(DPORT, PORT.to_bytes(2, "big"), b"\xff\xff", f"{PORT}-65535"), True
    yield CmpRange(DPORT, b"\0\0", (PORT - 1).to_bytes(2, "big"), f"0-{PORT - 1}"), False
    yield UDP, True
    yield Cmp(L4PROTO, "!=", b"\x06", "tcp"), True
    yield BitTest(Ct("state"), 8, "new"), True
    yield BitTest(Ct("state"), 2 | 4, "established,related"), False
    yield BitTest(Ct("status"), 32, "dnat"), False
    yield Lookup(DADDR[family], "hash"), True
    yield Lookup(DADDR[family], "hash", negate=True), False
    yield Lookup(SADDR[family], "hash"), False
    yield Lookup(DADDR[family], "ranges"), True
    yield Lookup(SADDR[family], "ranges"), False
    yield Lookup(Concat((IIFNAME, SADDR[family])), "guard"), True
    yield Lookup(Concat((OIFNAME, SADDR[family])), "guard"), False
    yield Lookup(Concat((SADDR[family], L4PROTO, DPORT)), "boxes"), True
    yield Lookup(Concat((DADDR[family], L4PROTO, DPORT)), "boxes"), False
    yield Lookup(Concat((SADDR[family], L4PROTO, SPORT)), "boxes"), False


def match_sets(family):
    kind = KIND[family]
    hash_set = a_set(family, kind, name="hash")
    ranges = a_set(family, kind, name="ranges", interval=True)
    guard = a_set(family, "ifname", kind, name="guard")
    boxes = a_set(family, kind, *PROTO_PORT, name="boxes", interval=True)
    return [
        hash_set,
        ranges,
        guard,
        boxes,
        element(hash_set, SERVER[family]),
        element(ranges, SERVER[family], ends=(SERVER[family],)),
        element(guard, "cl", CLIENT[family]),
        element(boxes, HOST[family], 17, PORT - 5, ends=(CLIENT[family], 17, PORT)),
    ]


@pytest.mark.parametrize("number", range(len(list(matches(4)))))
def test_a_match_means_what_it_says(road, family, number):
    statement, is_meant = list(matches(family))[number]
    chain = base(family, FORWARD, (FROM_CLIENT, statement, Counter(), DROP))
    road.apply(with_table(NFT[family], *match_sets(family), chain))
    assert road.ask(family) is not is_meant


def test_the_edges_of_a_range_are_in_it_and_their_neighbours_are_not(road, family):
    """One datagram each, told apart by source address; also where two ranges meet and what an end leaves open."""
    prefix = CLIENT[family][:-1]
    ranges = a_set(family, KIND[family], name="ranges", interval=True)
    items = [
        element(ranges, f"{prefix}{a}", ends=(f"{prefix}{b}",)) for a, b in ((20, 24), (25, 25), (28, 29))
    ]
    chain = base(family, FORWARD, (Lookup(SADDR[family], "ranges"), DROP))
    road.apply(with_table(NFT[family], ranges, *items, chain))
    through = []
    for last in range(18, 32):
        address = f"{prefix}{last}"
        nodad = ("nodad",) if family == 6 else ()
        road.client.ip("addr", "add", f"{address}/{LENGTH[family]}", "dev", "eth0", *nodad)
        if road.ask(family, source=address):
            through.append(last)
        road.client.ip("addr", "del", f"{address}/{LENGTH[family]}", "dev", "eth0")
    assert through == [18, 19, 26, 27, 30, 31]


# --- verdicts -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verdict", "passes"),
    [
        (ACCEPT, True),
        (DROP, False),
        (RETURN, True),  # The base chain's policy.
        (Verdict("jump", "deny"), False),
        (Verdict("goto", "empty"), True),
        (Verdict("jump", "empty"), False),  # Comes back to the drop below.
    ],
)
def test_a_verdict_map_goes_where_its_element_says(road, family, verdict, passes):
    owner = a_set(family, "ifname", data=("verdict",))
    chains = [base(family, None, (DROP,), name="deny"), base(family, None, name="empty")]
    dispatch = base(family, FORWARD, (VerdictMap(IIFNAME, "s"),), (FROM_CLIENT, DROP))
    road.apply(with_table(NFT[family], owner, *chains, dispatch, element(owner, "cl", data=verdict)))
    assert road.ask(family) is passes


def test_a_changed_verdict_holds_from_then_on(road, family):
    owner = a_set(family, *PROTO_PORT, data=("verdict",), interval=True)
    chain = base(family, FORWARD, (VerdictMap(Concat((L4PROTO, DPORT)), "s"),))

    def item(verdict):
        return element(owner, 17, PORT, ends=(17, PORT + 9), data=verdict)

    road.apply(with_table(NFT[family], owner, chain, item(DROP)))
    assert not road.ask(family)
    assert road.ask(family, "tcp")
    assert apply_nft(road.socket, operations("change", [item(ACCEPT)], before=item(DROP))) == []
    assert road.ask(family)


# --- translations ---------------------------------------------------------------------------------------------------


def publish(family, host_port, to=SERVER, port=PORT, proto=17):
    owner = a_set(family, *PROTO_PORT, name="publish", data=(KIND[family], "inet_service"))
    return owner, element(owner, proto, host_port, data=concat(owner.data, (to[family], port)))


def publishing(family):
    rule = (TO_US, DnatMap(Concat((L4PROTO, DPORT)), "publish", with_port=True))
    return base(family, Hook("nat", "prerouting", -100), rule, name="publish")


@pytest.mark.parametrize(("proto", "number"), [("udp", 17), ("tcp", 6)])
def test_a_published_port_leads_to_the_backend_and_its_port(road, family, proto, number):
    owner, item = publish(family, 8080, proto=number)
    road.apply(with_table(NFT[family], owner, publishing(family), item))
    assert road.ask(family, proto, 8080, to=HOST)
    assert road.ask(family, proto, 8080, to=HOST_INSIDE)
    assert not road.ask(family, proto, 8081, to=HOST)
    assert not road.ask(family, "tcp" if proto == "udp" else "udp", 8080, to=HOST)
    assert not road.ask(family, proto, 8080, to=SERVER)  # Not local to the host.


def test_an_address_leads_to_another_with_the_port_as_it_was(road, family):
    owner = a_set(family, KIND[family], data=(KIND[family],))
    rule = (DnatMap(DADDR[family], "s", with_port=False),)
    chain = base(family, Hook("nat", "prerouting", -100), rule)
    road.apply(
        with_table(
            NFT[family], owner, chain, element(owner, HOST[family], data=field(KIND[family], SERVER[family]))
        )
    )
    assert road.ask(family, to=HOST)
    assert road.ask(family, "tcp", to=HOST)


def test_masquerade_shows_the_hosts_own_address(road, family):
    assert road.ask(family)
    assert road.peer(family) == CLIENT[family]
    rule = (Cmp(OIFNAME, "==", field("ifname", "sv"), '"sv"'), Masquerade())
    road.apply(with_table(NFT[family], base(family, Hook("nat", "postrouting", 100), rule)))
    assert road.ask(family)
    assert road.peer(family) == HOST_INSIDE[family]


def test_snat_shows_the_address_it_names(road, family):
    rule = (
        CmpPrefix(SADDR[family], "==", f"{CLIENT[family]}/{32 if family == 4 else 128}"),
        Snat(HOST[family]),
    )
    road.apply(with_table(NFT[family], base(family, Hook("nat", "postrouting", 100), rule)))
    assert road.ask(family)
    assert road.peer(family) == HOST[family]


def test_notrack_leaves_no_entry(road, family):
    tracked = base(family, FORWARD, (BitTest(Ct("state"), 64, "untracked"), Counter()), name="track")
    raw = base(family, Hook("filter", "prerouting", -300), (UDP, Notrack()), name="raw")
    road.apply(with_table(NFT[family], tracked))
    assert road.ask(family)
    assert [flow.destination for flow in flows(road.socket, family)] == [SERVER[family]]
    road.host.run("conntrack", "-F")
    road.apply([raw])
    assert road.ask(family)
    assert flows(road.socket, family) == []


def test_an_old_udp_flow_follows_the_new_rules_when_its_entry_is_gone(road, family):
    """Pain 33: it went to the host itself, then the port was published; and back, when it is unpublished."""
    owner, item = publish(family, 8080)
    accept_all = base(
        family, Hook("filter", "input", 0), (BitTest(Ct("state"), 2, "established"), ACCEPT), name="in"
    )
    road.apply(with_table(NFT[family], owner, publishing(family), accept_all))

    def again():
        return road.ask(family, port=8080, to=HOST, source_port=5555)

    assert not again()
    road.apply([item])
    assert not again()  # Its entry knows of no translation.
    assert delete_flows(road.socket, [FlowMatch(family=family, first=8080, last=8080)]) == 1
    assert again()
    assert apply_nft(road.socket, operations("delete", [item])) == []
    assert again()  # Its entry still translates.
    match = FlowMatch(family=family, first=8080, last=8080, reply_source=SERVER[family])
    assert delete_flows(road.socket, [match]) == 1
    assert not again()
    assert item.key not in observed(road.socket)
