"""Random objects of the kernel's and random statements, with every field and every form that the records allow.

Wider than what the kernel takes (`strategies_nft` has that): text must not lose what no kernel would accept.
"""

from hypothesis import strategies as st

from property.strategies_nft import macs, ports, prefixes, values
from sealane.kernel.links import Bridge, Loopback, Macvlan, Veth
from sealane.kernel.nft import (
    ARP_HEAD,
    ARP_SENDER_IP,
    ARP_SENDER_MAC,
    CT_STATE,
    CT_STATUS,
    DPORT,
    ETHER_DADDR,
    ETHER_SADDR,
    ETHER_TYPE,
    FIB_LOCAL,
    ICMPV6_TYPE,
    IIFGROUP,
    IIFNAME,
    IP6_DADDR,
    IP6_SADDR,
    IP_DADDR,
    IP_SADDR,
    L4PROTO,
    ND_TARGET,
    OIFGROUP,
    OIFNAME,
    SPORT,
    TYPEOF,
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
    Meta,
    Notrack,
    ObservedChain,
    Rule,
    Set,
    Snat,
    Table,
    Verdict,
    VerdictMap,
    field,
)
from sealane.kernel.objects import (
    GROUP_LIVE,
    Address,
    BridgePort,
    FastGate,
    FastPort,
    FastTarget,
    FdbEntry,
    ForwardRule,
    Link,
    LoopbackPort,
    Neighbour,
    Qdisc,
    Route,
    RoutingRule,
    Sysctl,
)

OPS = st.sampled_from(["==", "!="])
FAMILIES = st.sampled_from(["ip", "ip6", "bridge"])
words = st.from_regex(r"[a-z][a-z0-9_-]{0,9}", fullmatch=True)
anything = st.one_of(
    st.sampled_from(["x up", "up", "a=1", 'a"b', "a\\x1b", "\x1b[2J", "a\nb", "\u2028", "é", "*", "none"]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=15),
)
"""What somebody may have called a link of ours since: the kernel forbids `/`, `:` and white space, no more."""
link_names = st.one_of(words, anything.filter(bool))
v4 = values("ipv4_addr").map(lambda value: ".".join(map(str, value)))
v6 = st.sampled_from(["::", "::1", "fd00::1", "fe80::ffff:0:1", "2001:db8::"])
addresses = st.one_of(v4, v6)
mac_texts = macs.map(lambda mac: mac.hex(":"))
halves = st.integers(0, 0xFFFF_FFFF_FFFF_FFFF)
numbers = st.one_of(st.sampled_from([0, 1, 254, 0xFFFFFFFF]), st.integers(0, 0xFFFFFFFF))

links = st.builds(
    Link,
    name=link_names,
    kind=st.one_of(
        st.just(Loopback()),
        st.builds(Bridge, ageing_off=st.booleans(), stp=st.booleans(), snooping=st.booleans()),
        st.builds(Veth, peer=st.one_of(st.none(), st.tuples(words, link_names))),
        st.builds(Veth, handover=link_names),
        st.builds(
            Macvlan, parent=link_names, mode=st.sampled_from(["bridge", "private", "vepa", "passthru"])
        ),
    ),
    up=st.booleans(),
    mtu=st.sampled_from([0, 1500, 65535]),
    mac=st.one_of(st.just(""), mac_texts),
    alias=anything,
    master=st.one_of(st.just(""), link_names),
    port=st.one_of(
        st.none(), st.builds(BridgePort, **dict.fromkeys(BridgePort.__struct_fields__, st.booleans()))
    ),
    addr_gen_none=st.booleans(),
    arp=st.booleans(),
    group=st.one_of(st.just(GROUP_LIVE), numbers),
)
objects = st.one_of(
    links,
    st.builds(
        Address,
        link=link_names,
        address=st.builds(lambda address, length: f"{address}/{length}", addresses, st.integers(0, 32)),
    ),
    st.builds(
        Route,
        dst=st.one_of(st.sampled_from(["0.0.0.0/0", "::/0"]), prefixes(4), prefixes(6)),
        link=st.one_of(st.just(""), link_names),
        gateway=st.one_of(st.just(""), addresses),
        type=st.sampled_from(["unicast", "unreachable"]),
        src=st.one_of(st.just(""), addresses),
        metric=numbers,
        onlink=st.booleans(),
        table=numbers,
    ),
    st.builds(Qdisc, link=link_names, rate=numbers, burst=numbers, limit=numbers),
    st.builds(FastPort, link=link_names, driver=st.sampled_from(["bridge", "routed", ""])),
    st.builds(
        FastTarget,
        address=addresses,
        network=numbers,
        link=st.one_of(st.just(""), link_names),
        mac=mac_texts,
        host_mac=st.one_of(st.just(""), mac_texts),
        mtu=st.integers(0, 65535),
        delivers=st.booleans(),
    ),
    st.builds(FastGate, driver=st.sampled_from(["bridge", "routed"]), family=st.sampled_from([4, 6])),
    st.builds(ForwardRule, family=st.sampled_from(["ip", "ip6"]), link=link_names),
    st.builds(RoutingRule, source=addresses, table=numbers, priority=numbers),
    st.builds(Neighbour, link=link_names, address=addresses, mac=st.one_of(st.just(""), mac_texts)),
    st.builds(FdbEntry, link=link_names, mac=mac_texts, is_own=st.booleans()),
    st.builds(
        Sysctl,
        path=link_names.map(lambda name: f"net/ipv4/conf/{name}/forwarding"),
        value=st.one_of(st.sampled_from(["0", "1", "", "32768\t60999", "a=b"]), anything),
    ),
    st.builds(
        LoopbackPort,
        family=st.sampled_from([4, 6]),
        proto=st.sampled_from(["tcp", "udp", "sctp"]),
        first=ports,
        last=ports,
        address=addresses,
        port=ports,
        reserved=st.sampled_from(["", "127.0.0.1", "0.0.0.0", "::1", "::"]),
    ),
)

# --- rules ----------------------------------------------------------------------------------------------------------

_PORTS = (DPORT, SPORT)
_ADDRESSES = (IP_SADDR, IP_DADDR, ARP_SENDER_IP, IP6_SADDR, IP6_DADDR)
_MACS = (ETHER_SADDR, ETHER_DADDR, ARP_SENDER_MAC)
_NAMES = (IIFNAME, OIFNAME)
_GROUPS = (IIFGROUP, OIFGROUP)
_FRAMES = (ETHER_TYPE, Meta("protocol"))
_SINGLE = (
    *_PORTS,
    *_ADDRESSES,
    *ND_TARGET,
    *_MACS,
    *_NAMES,
    *_GROUPS,
    *_FRAMES,
    L4PROTO,
    ICMPV6_TYPE,
    ARP_HEAD,
)
_ICMPV6 = {"nd-router-solicit": 133, "nd-neighbor-advert": 136, "nd-redirect": 137, "1": 1, "255": 255}

loads = st.one_of(
    st.sampled_from(_SINGLE),
    st.lists(st.sampled_from(_SINGLE), min_size=2, max_size=4).map(lambda found: Concat(tuple(found))),
)


def _named(pairs):
    return st.sampled_from([(value, name) for name, value in pairs])


_frames = _named([("ip", b"\x08\x00"), ("arp", b"\x08\x06"), ("ip6", b"\x86\xdd")])
_protocols = _named(
    [("icmp", b"\1"), ("tcp", b"\6"), ("udp", b"\x11"), ("ipv6-icmp", b"\x3a"), ("sctp", b"\x84")]
)
_directions = _named([("original", b"\0"), ("reply", b"\1")])
_flags = st.sampled_from([("state", CT_STATE), ("status", CT_STATUS)]).flatmap(
    lambda kind: st.lists(st.sampled_from(sorted(kind[1])), min_size=1, unique=True).map(
        lambda names: BitTest(Ct(kind[0]), sum(kind[1][name] for name in names), ",".join(names))
    )
)


def comparisons(loads, pairs):
    """`Cmp` of one of the loads with (value, shown)."""
    return st.builds(lambda load, op, pair: Cmp(load, op, *pair), st.sampled_from(list(loads)), OPS, pairs)


matches = st.one_of(
    comparisons(_NAMES, words.map(lambda name: (field("ifname", name), f'"{name}"'))),
    comparisons(_NAMES, words.map(lambda name: (name.encode(), f'"{name}*"'))),
    comparisons(_GROUPS, numbers.map(lambda group: (field("devgroup", group), f"0x{group:08x}"))),
    comparisons([L4PROTO], _protocols),
    comparisons(_FRAMES, _frames),
    comparisons(_PORTS, ports.map(lambda port: (port.to_bytes(2), str(port)))),
    comparisons(
        [load for load in _ADDRESSES if load.length == 4], v4.map(lambda a: (field("ipv4_addr", a), a))
    ),
    comparisons(
        [load for load in _ADDRESSES if load.length == 16], v6.map(lambda a: (field("ipv6_addr", a), a))
    ),
    comparisons(ND_TARGET, halves.map(lambda half: (field("integer", half), f"0x{half:x}"))),
    comparisons(_MACS, macs.map(lambda mac: (mac, mac.hex(":")))),
    comparisons([ICMPV6_TYPE], st.sampled_from([(bytes([n]), name) for name, n in _ICMPV6.items()])),
    comparisons([ARP_HEAD], macs.map(lambda head: (head, f"0x{head.hex()}"))),
    comparisons([Ct("direction")], _directions),
    comparisons([Fib(), Fib(of_source=True)], st.just((field("devgroup", FIB_LOCAL), "local"))),
    st.builds(CmpPrefix, st.sampled_from([IP_SADDR, IP_DADDR]), OPS, prefixes(4)),
    st.builds(CmpPrefix, st.sampled_from([IP6_SADDR, IP6_DADDR]), OPS, prefixes(6)),
    st.builds(
        lambda load, low, high: CmpRange(load, low.to_bytes(2), high.to_bytes(2), f"{low}-{high}"),
        st.sampled_from(_PORTS),
        ports,
        ports,
    ),
    st.builds(
        lambda low, high: CmpRange(ICMPV6_TYPE, bytes([low]), bytes([high]), f"{low}-{high}"),
        st.integers(0, 255),
        st.integers(0, 255),
    ),
    _flags,
    st.builds(Lookup, loads, words, st.booleans()),
)
verdicts = st.one_of(
    st.sampled_from(["accept", "drop", "return"]).map(Verdict),
    st.builds(Verdict, st.sampled_from(["jump", "goto"]), words),
)
statements = st.one_of(
    matches,
    st.builds(VerdictMap, loads, words),
    verdicts,
    st.just(Counter()),
    st.just(Notrack()),
    st.builds(DnatMap, loads, words, st.booleans()),
    st.builds(Snat, addresses),
    st.just(Masquerade()),
)
comments = st.one_of(st.just(""), st.from_regex(r"[a-z0-9:]{1,12}", fullmatch=True))
rules = st.builds(Rule, st.lists(statements, max_size=5).map(tuple), comments)
hooks = st.builds(
    Hook,
    st.sampled_from(["filter", "nat"]),
    st.sampled_from(["prerouting", "input", "forward", "output", "postrouting"]),
    st.integers(-400, 400),
)
chains = st.builds(
    Chain,
    family=FAMILIES,
    name=words,
    rules=st.lists(rules, max_size=4).map(tuple),
    hook=st.one_of(st.none(), hooks),
)
tags = st.one_of(st.just("?"), st.from_regex(r"[0-9a-f]{16}", fullmatch=True))
observed_chains = st.builds(
    ObservedChain,
    family=FAMILIES,
    name=words,
    tags=st.lists(tags, min_size=1, max_size=4).map(tuple),
    hook=st.one_of(st.none(), hooks),
)

# --- sets and elements ----------------------------------------------------------------------------------------------

_kinds = st.sampled_from(
    ["ifname", "devgroup", "ipv4_addr", "ipv6_addr", "ether_addr", "inet_proto", "inet_service"]
)
_key_types = st.lists(_kinds, min_size=1, max_size=4).map(tuple)
owners = st.one_of(
    st.builds(
        Set,
        family=FAMILIES,
        name=words,
        type=st.one_of(st.just(()), _key_types),
        data=st.one_of(st.just(()), st.just(("verdict",)), _key_types),
        interval=st.booleans(),
    ),
    st.builds(Set, family=FAMILIES, name=words, type=st.sampled_from(sorted(TYPEOF))),
)
_SIZES = {"ifname": 16, "devgroup": 4, "ipv4_addr": 4, "ipv6_addr": 16}
_SIZES |= {"ether_addr": 6, "inet_proto": 1, "inet_service": 2, "integer": 8}


def _field_values(kind):
    """Any bytes: a name may have come from another program."""
    size = _SIZES[kind]
    some = st.binary(min_size=size, max_size=size)
    if kind != "ifname":
        return some
    return st.one_of(
        some,
        st.sampled_from([b"eth0", b"a\\x1b", b'a"b', b" : ", b" . ", b"a-b", b"", b",", b"a\0b"]).map(
            lambda n: n.ljust(16, b"\0")
        ),
    )


def _joined(parts):
    return parts[0] if len(parts) == 1 else b"".join(part + bytes(-len(part) % 4) for part in parts)


@st.composite
def _spans(draw, kind):
    """Two values of a type, with networks and single values among them."""
    low = draw(_field_values(kind))
    how = draw(st.sampled_from(["one", "network", "any"]))
    if how == "network" and kind in {"ipv4_addr", "ipv6_addr"}:
        mask = (1 << draw(st.integers(0, len(low) * 8))) - 1
        number = int.from_bytes(low)
        return (number & ~mask).to_bytes(len(low)), (number | mask).to_bytes(len(low))
    return (low, draw(_field_values(kind))) if how == "any" else (low, low)


@st.composite
def elements(draw, owner):
    """An element as its set makes it; now and then one that does not fit it, as a stranger's netlink may write it."""
    misfit = not owner.type or draw(st.integers(0, 9)) == 0
    if misfit:
        value, end = draw(st.binary(max_size=40)), draw(st.binary(min_size=1, max_size=40))
        end = end if value and owner.interval else b""
    else:
        lows, highs = zip(*(draw(_spans(kind)) for kind in owner.type), strict=True)
        value, end = _joined(lows), _joined(highs) if owner.interval else b""
    data = b""
    if owner.data == ("verdict",):
        data = draw(verdicts)
    elif owner.data:
        data = _joined([draw(_field_values(kind)) for kind in owner.data])
        data = draw(st.binary(min_size=1, max_size=40)) if misfit else data
    return Element(family=owner.family, set=owner.name, value=value, end=end, data=data)


@st.composite
def tables(draw, family):
    """Sets with elements and chains under different names: any table's records, of use to no kernel."""
    found = draw(st.lists(owners, max_size=3, unique_by=lambda owner: owner.name))
    own_sets = [Set(family=family, name=o.name, type=o.type, data=o.data, interval=o.interval) for o in found]
    of_sets = [draw(st.lists(elements(owner), max_size=4, unique_by=lambda e: e.key)) for owner in own_sets]
    some = draw(st.lists(chains, max_size=3, unique_by=lambda chain: chain.name))
    own_chains = [Chain(family=family, name=c.name, rules=c.rules, hook=c.hook) for c in some]
    return [Table(family=family), *own_sets, *own_chains, *(e for found in of_sets for e in found)]
