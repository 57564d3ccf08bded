"""One canonical line an object."""

from types import SimpleNamespace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.links import flat
from sealane.kernel.links import Bridge, Loopback, Macvlan, Veth
from sealane.kernel.nft import (
    ACCEPT,
    DROP,
    IIFNAME,
    IP_SADDR,
    Chain,
    Cmp,
    CmpPrefix,
    Element,
    Hook,
    Lookup,
    ObservedChain,
    Rule,
    Set,
    Table,
    Verdict,
    concat,
    field,
)
from sealane.kernel.objects import (
    Address,
    BridgePort,
    FastGate,
    FastPort,
    FastTarget,
    FdbEntry,
    Link,
    LoopbackPort,
    Neighbour,
    Qdisc,
    Route,
    Sysctl,
)
from sealane.kernel.text import lines, operation_lines, ruleset, sets_of
from sealane.kernel.text_nft import statement

BRIDGE = Link(
    name="slb0123", kind=Bridge(ageing_off=True), mtu=1500, mac="02:00:00:00:00:01", alias="sealane:1"
)
VETH = Link(
    name="sle0123",
    kind=Veth(peer=("box", "eth0")),
    mtu=1500,
    master="slb0123",
    port=BridgePort(isolated=True),
    addr_gen_none=True,
)

LINES = [
    (Link(name="lo", kind=Loopback()), "link add lo type loopback up"),
    (Link(name="lo", kind=Loopback(), up=False), "link add lo type loopback down"),
    (
        BRIDGE,
        "link add slb0123 type bridge mtu 1500 address 02:00:00:00:00:01 alias sealane:1 ageing_time 0 up",
    ),
    (
        VETH,
        (
            "link add sle0123 type veth peer eth0 netns box mtu 1500 master slb0123 addrgenmode none"
            " isolated on learning off flood off guard on hairpin off up"
        ),
    ),
    (Address(link="slb0123", address="10.1.0.1/24"), "addr add 10.1.0.1/24 dev slb0123"),
    (Address(link="slb0123", address="fd00::1/64"), "addr add fd00::1/64 dev slb0123 nodad"),
    (
        Route(dst="0.0.0.0/0", link="eth0", gateway="10.1.0.1"),
        "route add default via 10.1.0.1 dev eth0 proto 94",
    ),
    (Route(dst="::/0", link="eth0", gateway="fd00::1"), "route add default via fd00::1 dev eth0 proto 94"),
    (Route(dst="::/0", link="eth0"), "route add ::/0 dev eth0 proto 94"),
    (
        Route(
            dst="10.9.0.0/16",
            link="eth0",
            gateway="10.1.0.1",
            src="10.1.0.2",
            metric=7,
            table=100,
            onlink=True,
        ),
        "route add 10.9.0.0/16 via 10.1.0.1 dev eth0 src 10.1.0.2 metric 7 table 100 onlink proto 94",
    ),
    (Route(dst="10.0.0.0/8", type="unreachable"), "route add unreachable 10.0.0.0/8 proto 94"),
    (
        Neighbour(link="eth0", address="10.1.0.2", mac="02:00:00:00:00:02"),
        "neigh add 10.1.0.2 lladdr 02:00:00:00:00:02 dev eth0 nud permanent",
    ),
    (Neighbour(link="eth0", address="10.1.0.2"), "neigh add proxy 10.1.0.2 dev eth0"),
    (
        FdbEntry(link="sle0123", mac="02:00:00:00:00:02"),
        "fdb add 02:00:00:00:00:02 dev sle0123 master static",
    ),
    (
        FdbEntry(link="slb0123", mac="02:00:00:00:00:02", is_own=True),
        "fdb add 02:00:00:00:00:02 dev slb0123 self permanent",
    ),
    (
        Qdisc(link="sle0123", rate=1_000_000, burst=20_000, limit=70_000),
        "qdisc add dev sle0123 root handle 5ea1: tbf rate 8000000bit burst 20000b limit 70000b",
    ),
    (
        FastPort(link="sle0123", driver="bridge"),
        "filter add dev sle0123 ingress pref 24225 bpf bridge",
    ),
    (
        FastPort(link="sle0123", driver=""),
        "filter add dev sle0123 ingress pref 24225 bpf unknown",
    ),
    (
        FastTarget(address="10.1.0.2", network=0x40000007, link="sle0123", mac="02:00:00:00:00:02", mtu=1500),
        "fast add 10.1.0.2 dev sle0123 group 0x40000007 lladdr 02:00:00:00:00:02 mtu 1500",
    ),
    (
        FastTarget(
            address="fd00::2",
            network=0x40000007,
            link="",
            mac="02:00:00:00:00:02",
            host_mac="02:00:00:00:00:03",
            mtu=1500,
            delivers=False,
        ),
        "fast add fd00::2 group 0x40000007 lladdr 02:00:00:00:00:02 from 02:00:00:00:00:03 mtu 1500 source only",
    ),
    (FastGate(driver="routed", family=6), "fast add gate routed ip6"),
    (Sysctl(path="net/ipv4/conf/sle0/forwarding", value="1"), "sysctl net/ipv4/conf/sle0/forwarding=1"),
    (
        LoopbackPort(family=4, proto="tcp", first=8080, last=8080, address="10.1.0.2", port=80),
        "loopback add tcp 127.0.0.0/8:8080 to 10.1.0.2:80",
    ),
    (
        LoopbackPort(family=6, proto="udp", first=8000, last=8009, address="fd00::2", port=9000),
        "loopback add udp [::1]:8000-8009 to [fd00::2]:9000",
    ),
    (
        LoopbackPort(
            family=4, proto="tcp", first=80, last=80, address="10.1.0.2", port=80, reserved="127.0.0.1"
        ),
        "loopback add tcp 127.0.0.0/8:80 to 10.1.0.2:80 reserved 127.0.0.1",
    ),
    (Table(family="bridge"), "add table bridge sealane"),
    (Set(family="ip", name="s", type=("ipv4_addr",)), "add set ip sealane s { type ipv4_addr; }"),
    (
        Set(family="ip", name="p", type=("inet_proto", "inet_service"), data=("verdict",), interval=True),
        "add map ip sealane p { type inet_proto . inet_service : verdict; flags interval; }",
    ),
    (Chain(family="ip6", name="c"), "add chain ip6 sealane c"),
    (
        Chain(family="ip", name="c", hook=Hook("nat", "postrouting", 100)),
        "add chain ip sealane c { type nat hook postrouting priority srcnat; policy accept; }",
    ),
]


@pytest.mark.parametrize(("item", "line"), LINES, ids=[line for _, line in LINES])
def test_an_object_is_a_line(item, line):
    assert lines(item) == [line]


@pytest.mark.parametrize(
    ("item", "line"),
    [
        (Address(link="e up", address="10.0.0.1/8"), 'addr add 10.0.0.1/8 dev "e up"'),
        (FdbEntry(link="\x1b[2J", mac="m"), r'fdb add m dev "\u001b[2J" master static'),
        (FdbEntry(link="\x7f", mac="m"), r'fdb add m dev "\u007f" master static'),
        (Route(dst="10.0.0.0/8", link="é"), r'route add 10.0.0.0/8 dev "\u00e9" proto 94'),
        (Sysctl(path="net/a=1/x", value="0"), 'sysctl "net/a=1/x"=0'),
        (Sysctl(path="net/x", value="1 2"), 'sysctl net/x="1 2"'),
        (
            Link(name='a"b', kind=Veth(peer=("box", "e h")), alias="x down", master="m\n"),
            r'link add "a\"b" type veth peer "e h" netns box alias "x down" master "m\n" up',
        ),
    ],
)
def test_a_name_that_could_be_taken_for_something_else_is_quoted(item, line):
    """Whoever has a sandbox names the links in it, and what a plan says goes to a terminal."""
    assert lines(item) == [line]


def test_the_name_of_a_link_that_goes_is_quoted_as_well():
    link = Link(name="\x1b[2J", kind=Veth())
    assert operation_lines("delete", link) == [r'- link del "\u001b[2J"']
    assert operation_lines("open", link) == [r'^ link set "\u001b[2J" up']
    assert operation_lines("change", link, Link(name=link.name, kind=Veth(), mtu=1)) == [
        r'~ link set "\u001b[2J" nomtu'
    ]


def test_what_is_no_object_has_no_line():
    with pytest.raises(TypeError, match="SimpleNamespace has no line"):
        lines(SimpleNamespace())


# --- elements -------------------------------------------------------------------------------------------------------

BOX = ("ipv4_addr", "inet_proto", "inet_service")
ELEMENTS = [
    (("ipv4_addr",), (), ("10.0.0.1",), (), b"", "10.0.0.1"),
    (("ipv6_addr",), (), ("fd00::1",), (), b"", "fd00::1"),
    (("ifname",), (), ("eth0",), (), b"", '"eth0"'),
    (("ether_addr",), (), ("02:42:0a:01:00:02",), (), b"", "02:42:0a:01:00:02"),
    (("inet_proto",), (), (17,), (), b"", "udp"),
    (("inet_proto",), (), (132,), (), b"", "sctp"),
    (("inet_proto",), (), (200,), (), b"", "200"),
    (("inet_service",), (), (65535,), (), b"", "65535"),
    (("ipv4_addr",), (), ("10.0.0.0",), ("10.0.0.255",), b"", "10.0.0.0/24"),
    (("ipv4_addr",), (), ("10.0.0.0",), ("10.0.0.254",), b"", "10.0.0.0-10.0.0.254"),
    (("ipv4_addr",), (), ("10.0.0.1",), ("10.0.1.0",), b"", "10.0.0.1-10.0.1.0"),
    (("ipv4_addr",), (), ("10.0.0.1",), ("10.0.0.2",), b"", "10.0.0.1-10.0.0.2"),
    (("ipv4_addr",), (), ("10.0.0.2",), ("10.0.0.3",), b"", "10.0.0.2/31"),
    (("ipv4_addr",), (), ("10.0.0.1",), ("10.0.0.1",), b"", "10.0.0.1"),
    (("ipv4_addr",), (), ("0.0.0.0",), ("255.255.255.255",), b"", "0.0.0.0/0"),
    (("ipv6_addr",), (), ("fd00::",), ("fd00::ffff:ffff:ffff:ffff",), b"", "fd00::/64"),
    (("inet_service",), (), (0,), (65535,), b"", "0-65535"),
    (("inet_service",), (), (80,), (81,), b"", "80-81"),
    (BOX, (), ("10.0.0.0", 6, 1), ("10.255.255.255", 6, 9), b"", "10.0.0.0/8 . tcp . 1-9"),
    (("ifname", "ipv4_addr"), (), ("eth0", "10.0.0.1"), (), b"", '"eth0" . 10.0.0.1'),
    (
        ("inet_proto", "inet_service"),
        ("ipv4_addr", "inet_service"),
        (6, 8080),
        (),
        concat(("ipv4_addr", "inet_service"), ("10.1.0.2", 80)),
        "tcp . 8080 : 10.1.0.2 . 80",
    ),
    (("ifname",), ("verdict",), ("eth0",), (), Verdict("jump", "c"), '"eth0" : jump c'),
    (("ifname",), ("verdict",), ("eth0",), (), DROP, '"eth0" : drop'),
]


@pytest.mark.parametrize(("kinds", "data_kinds", "low", "high", "data", "shown"), ELEMENTS)
def test_an_element_is_said_by_its_sets_types(kinds, data_kinds, low, high, data, shown):
    owner = Set(family="ip", name="s", type=kinds, data=data_kinds, interval=bool(high))
    end = concat(kinds, high) if high else b""
    item = Element(family="ip", set="s", value=concat(kinds, low), end=end, data=data)
    sets = sets_of([owner, item])
    assert lines(item, sets) == [f"add element ip sealane s {{ {shown} }}"]
    assert operation_lines("delete", item, sets=sets) == [f"- delete element ip sealane s {{ {shown} }}"]


@pytest.mark.parametrize(
    ("owner", "item", "shown"),
    [
        (None, Element(family="ip", set="s", value=b"\x0a\0\0\1"), "0x0a000001"),
        (None, Element(family="ip", set="s", value=b"\0\1", end=b"\0\2", data=DROP), "0x0001-0x0002 : drop"),
        (None, Element(family="ip", set="s", value=b"\1", data=b"\2\3"), "0x01 : 0x0203"),
        (("ipv4_addr",), Element(family="ip", set="s", value=b"\1\2"), "0x0102"),
        (("ipv4_addr",), Element(family="ip", set="s", value=b"\1\2\3\4", data=b"\5"), "1.2.3.4 : 0x05"),
        ((), Element(family="ip", set="s", value=b"\1\2"), "0x0102"),
        (("ipv4_addr",), Element(family="ip", set="s", value=b""), "*"),
        (("ifname",), Element(family="ip", set="s", value=b"\xff" + bytes(15)), '"\\xff"'),
        (("ifname",), Element(family="ip", set="s", value=b"\\xff".ljust(16, b"\0")), '"\\x5cxff"'),
        (("ifname",), Element(family="ip", set="s", value=b'"\n\0a'.ljust(16, b"\0")), '"\\x22\\x0a\\x00a"'),
        (
            ("inet_proto", "inet_service"),
            Element(family="ip", set="s", value=b"\6\0\0\1\0\1\0\0"),
            "0x0600000100010000",
        ),
        (("inet_service",) * 2, Element(family="ip", set="s", value=b"\0\1\0\0"), "0x00010000"),
        (("ipv4_addr",), Element(family="ip", set="s", value=bytes(4), end=b"\1"), "0x00000000-0x01"),
    ],
)
def test_an_element_that_its_set_does_not_explain_is_shown_as_bytes(owner, item, shown):
    sets = {} if owner is None else {("ip", "s"): Set(family="ip", name="s", type=owner)}
    assert lines(item, sets) == [f"add element ip sealane s {{ {shown} }}"]


@pytest.mark.parametrize("prefix", ["10.0.0.1/32", "10.0.0.0/24"])
def test_a_comparison_with_a_prefix_shows_its_length(prefix):
    """Of a prefix of one address, too: `ip saddr 10.0.0.1` compares with the address."""
    assert statement("ip", CmpPrefix(IP_SADDR, "==", prefix)) == f"ip saddr {prefix}"


# --- operations -----------------------------------------------------------------------------------------------------

RULES = tuple(
    Rule((Cmp(IIFNAME, "==", field("ifname", n), f'"{n}"'), DROP), f"n:{n}") for n in ("a", "b", "c")
)


def chain(*rules):
    return Chain(family="ip", name="base", rules=rules, hook=Hook("filter", "forward", 0))


HEAD = "add chain ip sealane base { type filter hook forward priority filter; policy accept; }"


def rule_line(rule):
    name = rule.comment.removeprefix("n:")
    return f'add rule ip sealane base iifname "{name}" drop comment "{rule.tag()} {rule.comment}"'


def inserted(rule, place):
    return (
        f"insert rule ip sealane base index {place}{rule_line(rule).removeprefix('add rule ip sealane base')}"
    )


def test_a_chain_is_a_line_and_one_for_each_rule():
    assert lines(chain(*RULES[:2])) == [HEAD, rule_line(RULES[0]), rule_line(RULES[1])]


def test_an_observed_chain_is_said_by_its_tags():
    observed = ObservedChain(family="ip", name="c", tags=("0123456789abcdef", "?"))
    assert lines(observed) == [
        "add chain ip sealane c",
        'add rule ip sealane c ... comment "0123456789abcdef"',
        'add rule ip sealane c ... comment "?"',
    ]


def test_a_changed_chain_says_which_rules_go_and_come():
    before = ObservedChain(
        family="ip",
        name="base",
        tags=(RULES[0].tag(), "?", RULES[1].tag()),
        hook=Hook("filter", "forward", 0),
    )
    assert operation_lines("change", chain(RULES[1], RULES[2]), before) == [
        f"~ {HEAD}",
        f'- delete rule ip sealane base comment "{RULES[0].tag()}"',
        '- delete rule ip sealane base comment "?"',
        f"+ {rule_line(RULES[2])}",
    ]


def test_a_changed_chain_says_where_a_rule_comes():
    """Before or behind a rule that stays is all the difference."""
    a, b, c = RULES
    assert operation_lines("change", chain(b, a), chain(a)) == [f"~ {HEAD}", f"+ {inserted(b, 0)}"]
    assert operation_lines("change", chain(a, b), chain(a)) == [f"~ {HEAD}", f"+ {rule_line(b)}"]
    assert operation_lines("change", chain(a, b, c), chain(a, c)) == [f"~ {HEAD}", f"+ {inserted(b, 1)}"]


def test_rules_that_change_places_go_and_come():
    a, b, _ = RULES
    assert operation_lines("change", chain(b, a), chain(a, b)) == [
        f"~ {HEAD}",
        f'- delete rule ip sealane base comment "{b.tag()}"',
        f"+ {inserted(b, 0)}",
    ]


def test_of_a_rule_that_stands_twice_both_go():
    a, b, _ = RULES
    assert operation_lines("change", chain(a, b), chain(a, b, a)) == [
        f"~ {HEAD}",
        f'- delete rule ip sealane base comment "{a.tag()}"',
        f"+ {inserted(a, 0)}",
    ]


def test_a_changed_chain_of_unknown_past_says_all_its_rules():
    assert operation_lines("change", chain(RULES[0])) == [f"~ {HEAD}", f"+ {rule_line(RULES[0])}"]


@pytest.mark.parametrize(
    ("verb", "item", "line"),
    [
        ("create", Address(link="a", address="10.0.0.1/8"), "+ addr add 10.0.0.1/8 dev a"),
        ("delete", Address(link="a", address="10.0.0.1/8"), "- addr del 10.0.0.1/8 dev a"),
        ("delete", VETH, "- link del sle0123"),
        ("delete", Route(dst="::/0", link="a"), "- route del ::/0 dev a proto 94"),
        ("delete", chain(), "- delete chain ip sealane base"),
        ("delete", ObservedChain(family="ip", name="c"), "- delete chain ip sealane c"),
        ("delete", Set(family="ip", name="s", type=()), "- delete set ip sealane s"),
        ("delete", Set(family="ip", name="s", type=(), data=("verdict",)), "- delete map ip sealane s"),
        ("delete", Table(family="ip6"), "- delete table ip6 sealane"),
        ("open", VETH, "^ link set sle0123 up"),
        (
            "open",
            LoopbackPort(family=4, proto="tcp", first=1, last=1, address="10.1.0.2", port=2),
            "^ loopback add tcp 127.0.0.0/8:1 to 10.1.0.2:2",
        ),
        ("change", Sysctl(path="net/x", value="1"), "~ sysctl net/x=1"),
        ("change", VETH, f"~ {lines(VETH)[0]}"),
    ],
)
def test_an_operation_is_a_sign_and_a_line(verb, item, line):
    assert operation_lines(verb, item) == [line]


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ({"mtu": 1500}, {"mtu": 1400}, "mtu 1400"),
        ({"kind": "bridge"}, {}, "type veth"),
        ({"alias": "x"}, {"alias": "y up"}, 'alias "y up"'),
        ({"up": False}, {}, "up"),
        ({}, {"up": False}, "down"),
        ({"master": "a"}, {}, "nomaster"),
        ({"master": "a"}, {"master": "b", "mtu": 9000}, "mtu 9000 master b"),
        ({"port": BridgePort()}, {"port": BridgePort(isolated=True, guard=False)}, "isolated on guard off"),
    ],
)
def test_a_changed_link_says_only_what_changes(before, after, words):
    old, new = (flat(**{"name": "a", "kind": "veth", **fields}) for fields in (before, after))
    assert operation_lines("change", new, old) == [f"~ link set a {words}"]


# --- tables ---------------------------------------------------------------------------------------------------------


def test_a_table_is_printed_as_nft_lists_it():
    allowed = Set(family="ip", name="allowed", type=("ipv4_addr",), interval=True)
    dispatch = Set(family="ip", name="dispatch", type=("ifname",), data=("verdict",))
    rule = Rule((Lookup(IP_SADDR, "allowed"), ACCEPT), "n:1")
    objects = [
        Table(family="ip"),
        Table(family="ip6"),
        Set(family="ip6", name="other", type=("ipv6_addr",)),
        allowed,
        dispatch,
        Chain(family="ip", name="tenant"),
        Chain(family="ip", name="base", rules=(rule, Rule((DROP,))), hook=Hook("filter", "forward", -10)),
        Element(family="ip", set="allowed", value=b"\x0a\0\1\0", end=b"\x0a\0\1\xff"),
        Element(family="ip", set="allowed", value=b"\x0a\0\0\1", end=b"\x0a\0\0\1"),
        Element(family="ip", set="dispatch", value=field("ifname", "eth0"), data=Verdict("jump", "tenant")),
        Sysctl(path="net/x", value="1"),
    ]
    assert ruleset("ip", objects) == (
        "table ip sealane {\n"
        "\tset allowed {\n"
        "\t\ttype ipv4_addr\n"
        "\t\tflags interval\n"
        "\t\telements = { 10.0.0.1,\n"
        "\t\t\t     10.0.1.0/24 }\n"
        "\t}\n"
        "\n"
        "\tmap dispatch {\n"
        "\t\ttype ifname : verdict\n"
        '\t\telements = { "eth0" : jump tenant }\n'
        "\t}\n"
        "\n"
        "\tchain tenant {\n"
        "\t}\n"
        "\n"
        "\tchain base {\n"
        "\t\ttype filter hook forward priority filter - 10; policy accept;\n"
        f'\t\tip saddr @allowed accept comment "{rule.tag()} n:1"\n'
        f'\t\tdrop comment "{Rule((DROP,)).tag()}"\n'
        "\t}\n"
        "}\n"
    )


@pytest.mark.parametrize(
    ("objects", "text"),
    [([], ""), ([Table(family="ip6")], ""), ([Table(family="ip")], "table ip sealane {\n\n}\n")],
)
def test_a_family_without_objects_has_no_table(objects, text):
    assert ruleset("ip", objects) == text


# --- the law --------------------------------------------------------------------------------------------------------

_words = st.sampled_from(["a", "b"])
_addresses = st.sampled_from(["10.0.0.1", "fd00::1"])
_each = [
    st.builds(
        Link,
        name=_words,
        kind=st.one_of(
            st.builds(Bridge, ageing_off=st.booleans(), stp=st.booleans(), snooping=st.booleans()),
            st.builds(Veth, peer=st.one_of(st.none(), st.tuples(_words, _words))),
            st.builds(Macvlan, parent=_words, mode=st.sampled_from(["bridge", "private"])),
        ),
        up=st.booleans(),
        mtu=st.sampled_from([0, 1500]),
        mac=st.sampled_from(["", "02:00:00:00:00:01"]),
        alias=st.sampled_from(["", "x"]),
        master=st.sampled_from(["", "m"]),
        port=st.one_of(
            st.none(),
            st.builds(BridgePort, isolated=st.booleans(), flood=st.booleans(), broadcast=st.booleans()),
        ),
        addr_gen_none=st.booleans(),
        arp=st.booleans(),
    ),
    st.builds(Address, link=_words, address=_addresses.map(lambda a: f"{a}/8")),
    st.builds(
        Route,
        dst=st.sampled_from(["0.0.0.0/0", "::/0", "10.0.0.0/8"]),
        link=st.one_of(st.just(""), _words),
        gateway=st.one_of(st.just(""), _addresses),
        src=st.one_of(st.just(""), _addresses),
        type=st.sampled_from(["unicast", "unreachable"]),
        metric=st.integers(0, 1),
        onlink=st.booleans(),
        table=st.sampled_from([254, 7]),
    ),
    st.builds(Neighbour, link=_words, address=_addresses, mac=st.sampled_from(["", "02:00:00:00:00:01"])),
    st.builds(FdbEntry, link=_words, mac=_words, is_own=st.booleans()),
    st.builds(FastPort, link=_words, driver=st.sampled_from(["bridge", "routed"])),
    st.builds(
        FastTarget,
        address=_addresses,
        network=st.integers(1, 2),
        link=_words,
        mac=_words,
        host_mac=st.sampled_from(["", "02:00:00:00:00:01"]),
        mtu=st.integers(1, 2),
        delivers=st.booleans(),
    ),
    st.builds(FastGate, driver=st.sampled_from(["bridge", "routed"]), family=st.sampled_from([4, 6])),
    st.builds(Qdisc, link=_words, rate=st.integers(1, 2), burst=st.integers(1, 2), limit=st.integers(1, 2)),
    st.builds(Sysctl, path=_words, value=_words),
    st.builds(
        LoopbackPort,
        family=st.sampled_from([4, 6]),
        proto=st.sampled_from(["tcp", "udp"]),
        first=st.integers(1, 2),
        last=st.integers(2, 3),
        address=_addresses,
        port=st.integers(1, 2),
    ),
    st.builds(
        Set,
        family=st.sampled_from(["ip", "ip6"]),
        name=_words,
        type=st.sampled_from([("ipv4_addr",), ("ifname", "ipv4_addr")]),
        data=st.sampled_from([(), ("verdict",)]),
        interval=st.booleans(),
    ),
    st.builds(
        Element,
        family=st.sampled_from(["ip", "ip6"]),
        set=_words,
        value=st.sampled_from([b"", b"\0", b"\1"]),
        data=st.sampled_from([b"", b"\1", DROP]),
    ),
]
_two_of_a_kind = st.sampled_from(_each).flatmap(lambda one: st.tuples(one, one))


@given(one=st.one_of(_each), other=st.one_of(_each))
def test_lines_are_equal_when_objects_are(one, other):
    assert (lines(one) == lines(other)) is (one == other)


@given(pair=_two_of_a_kind, choice=st.data())
def test_no_single_field_is_left_unsaid(pair, choice):
    """Two objects that differ in one field only."""
    item, other = pair
    name = choice.draw(st.sampled_from(item.__struct_fields__))
    twin = msgspec.structs.replace(item, **{name: getattr(other, name)})
    assert (lines(item) == lines(twin)) is (item == twin)
