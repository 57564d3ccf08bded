"""Every statement, as bytes in the kernel and as text: `nft list` says what our text says."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kernel.nft_divergences import as_listed
from kernel.nft_support import (
    as_observed,
    create,
    fresh_socket,
    listing,
    nft,
    normal,
    observed,
    rule_lines,
    with_table,
)
from property.strategies_nft import FAMILIES, tables
from sealane.kernel import text_nft
from sealane.kernel.nft import (
    ACCEPT,
    ARP_HEAD,
    ARP_SENDER_IP,
    ARP_SENDER_MAC,
    DPORT,
    DROP,
    ETHER_SADDR,
    ETHER_TYPE,
    FIB_LOCAL,
    ICMPV6_TYPE,
    IIFNAME,
    IP6_DADDR,
    IP6_SADDR,
    IP_DADDR,
    IP_SADDR,
    L4PROTO,
    ND_TARGET,
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
    Fib,
    Hook,
    Lookup,
    Masquerade,
    Meta,
    Notrack,
    Rule,
    Set,
    Snat,
    Verdict,
    VerdictMap,
    field,
)

pytestmark = pytest.mark.kernel

PROTO_PORT = Concat((L4PROTO, DPORT))
TCP = Cmp(L4PROTO, "==", b"\x06", "tcp")
ARP = Cmp(ETHER_TYPE, "==", b"\x08\x06", "arp")
MAC = bytes.fromhex("02420a010002")
HOST_ORDER_LOCAL = FIB_LOCAL.to_bytes(4, "little")


def sets(family):
    """One set or map for each making that a statement of `family` refers to."""
    address = "ipv6_addr" if family == "ip6" else "ipv4_addr"
    made = [
        ("names", ("ifname",), (), False),
        ("addresses", (address,), (), False),
        ("ranges", (address,), (), True),
        ("boxes", (address, "inet_proto", "inet_service"), (), True),
        ("guards", ("ifname", "ether_addr"), (), False),
        ("sources", ("ifname", address), (), False),
        ("dispatch", ("ifname",), ("verdict",), False),
        ("dispatch-ports", ("inet_proto", "inet_service"), ("verdict",), True),
        ("publish", ("inet_proto", "inet_service"), (address, "inet_service"), False),
        ("alias", (address,), (address,), False),
    ]
    return [
        Set(family=family, name=name, type=kinds, data=data, interval=interval)
        for name, kinds, data, interval in made
    ]


def cases(family, address, other, prefixes, saddr, daddr):
    """What both families of IP can say."""
    for prefix in prefixes:
        yield CmpPrefix(saddr, "==", prefix), ACCEPT
        yield CmpPrefix(daddr, "!=", prefix), DROP
    yield Lookup(saddr, "addresses"), ACCEPT
    yield Lookup(saddr, "ranges", negate=True), DROP
    yield Lookup(Concat((saddr, L4PROTO, DPORT)), "boxes"), ACCEPT
    yield Lookup(Concat((saddr, L4PROTO, DPORT)), "boxes", negate=True), DROP
    yield Lookup(Concat((IIFNAME, saddr)), "sources", negate=True), DROP
    yield (VerdictMap(PROTO_PORT, "dispatch-ports"),)
    yield BitTest(Ct("state"), 6, "established,related"), ACCEPT
    yield BitTest(Ct("state"), 1, "invalid"), DROP
    yield BitTest(Ct("state"), 8 | 64, "new,untracked"), ACCEPT
    yield BitTest(Ct("status"), 32, "dnat"), ACCEPT
    yield BitTest(Ct("status"), 16, "snat"), ACCEPT
    yield Cmp(Ct("direction"), "==", b"\x01", "reply"), ACCEPT
    yield Cmp(Fib(), "==", HOST_ORDER_LOCAL, "local"), ACCEPT
    yield Cmp(Fib(), "!=", HOST_ORDER_LOCAL, "local"), ACCEPT
    yield Cmp(Fib(of_source=True), "==", HOST_ORDER_LOCAL, "local"), DROP
    yield TCP, Cmp(DPORT, "==", b"\x00\x50", "80"), ACCEPT
    yield TCP, Cmp(SPORT, "!=", b"\xff\xff", "65535"), RETURN
    yield TCP, CmpRange(DPORT, b"\x00\x00", b"\x04\x00", "0-1024"), ACCEPT
    yield Cmp(saddr, "==", address, other), ACCEPT
    yield Cmp(L4PROTO, "!=", b"\x11", "udp"), ACCEPT


ANY = [
    (Cmp(IIFNAME, "==", field("ifname", "eth0"), '"eth0"'), ACCEPT),
    (Cmp(OIFNAME, "!=", field("ifname", "a23456789012345"), '"a23456789012345"'), DROP),
    (Cmp(IIFNAME, "==", b"sle", '"sle*"'), RETURN),
    (Cmp(OIFNAME, "!=", b"slb01", '"slb01*"'), Verdict("jump", "side")),
    (Lookup(IIFNAME, "names"), Verdict("goto", "side")),
    (Lookup(OIFNAME, "names", negate=True), ACCEPT),
    (VerdictMap(IIFNAME, "dispatch"),),
    (Counter(), DROP),
    (Counter(),),
]
IP4 = [
    *ANY,
    *cases(
        "ip",
        bytes([10, 0, 0, 1]),
        "10.0.0.1",
        ["10.1.0.0/24", "10.0.0.0/9", "10.1.0.5/32", "255.255.255.255/32", "128.0.0.0/1", "0.0.0.0/0"],
        IP_SADDR,
        IP_DADDR,
    ),
]
IP6 = [
    *ANY,
    *cases(
        "ip6",
        bytes.fromhex("fd000000000000000000000000000001"),
        "fd00::1",
        ["fd00::/64", "fd00:1::/33", "fe80::/10", "fd00::5/128", "8000::/1"],
        IP6_SADDR,
        IP6_DADDR,
    ),
    (Cmp(L4PROTO, "==", b"\x3a", "ipv6-icmp"), CmpRange(ICMPV6_TYPE, b"\x85", b"\x89", "133-137"), ACCEPT),
    (
        Cmp(L4PROTO, "==", b"\x3a", "ipv6-icmp"),
        Cmp(ND_TARGET[0], "!=", bytes.fromhex("fe80000000000000"), "0xfe80000000000000"),
        DROP,
    ),
]
BRIDGE = [
    *ANY,
    (Cmp(ETHER_SADDR, "!=", MAC, "02:42:0a:01:00:02"), DROP),
    (Lookup(Concat((IIFNAME, ETHER_SADDR)), "guards", negate=True), DROP),
    (ARP, Cmp(ARP_SENDER_MAC, "!=", MAC, "02:42:0a:01:00:02"), DROP),
    (ARP, Cmp(ARP_SENDER_IP, "==", bytes([10, 0, 0, 2]), "10.0.0.2"), ACCEPT),
    (ARP, Cmp(ARP_HEAD, "!=", bytes.fromhex("000108000604"), "0x000108000604"), DROP),
    (ARP, Cmp(ARP_HEAD, "==", bytes.fromhex("000108000604"), "0x000108000604"), ACCEPT),
    (Cmp(Meta("protocol"), "==", b"\x08\x00", "ip"), ACCEPT),
    (Cmp(ETHER_TYPE, "==", b"\x86\xdd", "ip6"), ACCEPT),
    (
        Cmp(ETHER_TYPE, "==", b"\x86\xdd", "ip6"),
        Cmp(L4PROTO, "==", b"\x3a", "ipv6-icmp"),
        CmpRange(ICMPV6_TYPE, b"\x85", b"\x89", "133-137"),
        DROP,
    ),
    (Cmp(ETHER_TYPE, "==", b"\x08\x00", "ip"), CmpPrefix(IP_SADDR, "!=", "10.1.0.0/24"), DROP),
]


def address_types(family):
    return (IP6_SADDR, IP6_DADDR) if family == "ip6" else (IP_SADDR, IP_DADDR)


@pytest.mark.parametrize(("family", "statements"), [("ip", IP4), ("ip6", IP6), ("bridge", BRIDGE)])
def test_nft_lists_every_statement_as_we_print_it(family, statements):
    rules = tuple(Rule(tuple(item), f"case:{number}") for number, item in enumerate(statements))
    chain = Chain(family=family, name="cases", rules=rules)
    with fresh_socket() as socket:
        create(socket, with_table(family, *sets(family), Chain(family=family, name="side"), chain))
        listed = rule_lines(family, "cases")
    assert listed == [as_listed(text_nft.rule(family, rule)) for rule in rules]


@pytest.mark.parametrize(
    ("family", "hook", "statements"),
    [
        (family, hook, statements)
        for family in ("ip", "ip6")
        for hook, statements in [
            (Hook("nat", "prerouting", -100), (DnatMap(address_types(family)[1], "alias", with_port=False),)),
            (
                Hook("nat", "output", -100),
                (Cmp(Fib(), "==", HOST_ORDER_LOCAL, "local"), DnatMap(PROTO_PORT, "publish", with_port=True)),
            ),
            (Hook("nat", "postrouting", 100), (Snat("fd00::9" if family == "ip6" else "10.0.0.9"),)),
            (Hook("nat", "postrouting", 100), (BitTest(Ct("status"), 32, "dnat"), Masquerade())),
            (Hook("filter", "prerouting", -300), (Cmp(IIFNAME, "==", b"sl", '"sl*"'), Notrack())),
        ]
    ],
)
def test_nft_lists_translations_as_we_print_them(family, hook, statements):
    chain = Chain(family=family, name="base", rules=(Rule(statements, "n:1"),), hook=hook)
    with fresh_socket() as socket:
        create(socket, with_table(family, *sets(family), chain))
        listed = rule_lines(family, "base")
    assert listed == [text_nft.rule(family, chain.rules[0])]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("hook", ["prerouting", "input", "forward", "output", "postrouting"])
def test_nft_says_priorities_as_we_do(family, hook):
    desired = [-400, -311, -310, -300, -290, -200, -155, -100, -99, 0, 5, 50, 100, 110, 111, 300, 301]
    chains = [
        Chain(family=family, name=f"at{number}", hook=Hook("filter", hook, priority))
        for number, priority in enumerate(desired)
    ]
    with fresh_socket() as socket:
        create(socket, with_table(family, *chains))
        listed = [
            line.strip() for line in listing("table", family, "sealane").splitlines() if "priority" in line
        ]
    assert listed == [text_nft.hook(family, chain.hook) for chain in chains]


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_table_is_read_back_and_its_text_makes_the_same_table(family, data):
    """The law `observe(apply(x)) == x`; and nft, given our text, makes what our bytes made."""
    objects = data.draw(tables(family))
    text = text_nft.ruleset(family, objects)
    with fresh_socket() as socket:
        create(socket, objects)
        assert observed(socket) == as_observed(objects)
        listed = listing()
        nft("flush", "ruleset")
        nft("-f", "-", text=text)
        assert normal(listing()) == normal(listed)
