"""Random nftables objects that the kernel takes: addresses, sets of every making with elements, rules, chains."""

import ipaddress

from hypothesis import strategies as st

from sealane.kernel.nft import (
    ACCEPT,
    ARP_HEAD,
    ARP_SENDER_IP,
    ARP_SENDER_MAC,
    CT_STATE,
    DPORT,
    DROP,
    ETHER_SADDR,
    ETHER_TYPE,
    ICMPV6_TYPE,
    IIFNAME,
    IP6_DADDR,
    IP6_SADDR,
    IP_DADDR,
    IP_SADDR,
    L4PROTO,
    OIFNAME,
    RETURN,
    SPORT,
    TYPE_BYTES,
    BitTest,
    Chain,
    Cmp,
    CmpPrefix,
    CmpRange,
    Concat,
    Counter,
    Ct,
    Element,
    Hook,
    Lookup,
    Rule,
    Set,
    Table,
    Verdict,
    VerdictMap,
    field,
)

FAMILIES = ("ip", "ip6", "bridge")
OPS = st.sampled_from(["==", "!="])
SIDE_CHAIN = "side"
"""A regular chain that random verdicts jump to; `tables` makes it."""

names = st.from_regex(r"[a-z][a-z0-9]{0,9}", fullmatch=True).map(lambda name: f"s-{name}")
link_names = st.from_regex(r"[a-z][a-z0-9_.-]{0,14}", fullmatch=True)
macs = st.integers(0, (1 << 48) - 1).map(lambda n: n.to_bytes(6, "big"))
ports = st.one_of(st.sampled_from([0, 1, 80, 65534, 65535]), st.integers(0, 65535))

_EDGES = {"ipv4_addr": 32, "ipv6_addr": 128, "ether_addr": 48, "inet_service": 16}
protocols = st.sampled_from([b"\x06", b"\x11", b"\x84"])
"""tcp, udp, sctp: of others nft's name depends on the machine's /etc/protocols."""


def _numbers(bits):
    top = (1 << bits) - 1
    return st.one_of(st.sampled_from([0, 1, top - 1, top]), st.integers(0, top))


def values(kind):
    """Bytes of one field of a type; edges of its range more often than others."""
    if kind == "ifname":
        return link_names.map(lambda name: field("ifname", name))
    if kind == "inet_proto":
        return protocols
    return _numbers(_EDGES[kind]).map(lambda n: n.to_bytes(TYPE_BYTES[kind], "big"))


def spans(kind):
    """(first, last) of a type; names and protocols have no ranges but of one."""
    if kind in {"ifname", "inet_proto"}:
        return values(kind).map(lambda value: (value, value))
    return st.tuples(values(kind), values(kind)).map(lambda pair: (min(pair), max(pair)))


def padded(parts):
    return parts[0] if len(parts) == 1 else b"".join(part + bytes(-len(part) % 4) for part in parts)


TYPES = {
    "ip": [
        ("ipv4_addr",),
        ("inet_service",),
        ("ifname",),
        ("inet_proto", "inet_service"),
        ("ifname", "ipv4_addr"),
        ("ipv4_addr", "inet_proto", "inet_service"),
        ("ipv4_addr", "ipv4_addr", "inet_proto", "inet_service"),
    ],
    "ip6": [
        ("ipv6_addr",),
        ("inet_proto", "inet_service"),
        ("ifname", "ipv6_addr"),
        ("ipv6_addr", "inet_proto", "inet_service"),
    ],
    "bridge": [
        ("ifname",),
        ("ifname", "ether_addr"),
        ("ifname", "ipv4_addr"),
        ("ifname", "ipv6_addr"),
    ],
}
"""Of four fields 16 bytes long the last of `ip` is: as long as one IPv6 address."""

DATA = {
    "ip": [("ipv4_addr",), ("ipv4_addr", "inet_service"), ("verdict",)],
    "ip6": [("ipv6_addr",), ("ipv6_addr", "inet_service"), ("verdict",)],
    "bridge": [("verdict",)],
}

verdicts = st.sampled_from([ACCEPT, DROP, RETURN, Verdict("jump", SIDE_CHAIN), Verdict("goto", SIDE_CHAIN)])


def data(kinds):
    if kinds == ("verdict",):
        return verdicts
    return st.tuples(*(values(kind) for kind in kinds)).map(padded)


@st.composite
def sets(draw, family):
    """A set or map of some making and its elements; ranges do not touch each other's values."""
    kinds = draw(st.sampled_from(TYPES[family]))
    datum = draw(st.one_of(st.just(()), st.sampled_from(DATA[family])))
    interval = draw(st.booleans()) and kinds != ("ifname",)
    owner = Set(family=family, name=draw(names), type=kinds, data=datum, interval=interval)
    boxes = draw(st.lists(st.tuples(*(spans(kind) for kind in kinds)), max_size=6))
    elements = []
    taken = []
    for box in boxes:
        lows = tuple(low for low, _ in box)
        highs = tuple(high if interval else low for low, high in box)
        if any(_overlap(lows, highs, *other) for other in taken):
            continue
        taken.append((lows, highs))
        elements.append(
            Element(
                family=family,
                set=owner.name,
                value=padded(lows),
                end=padded(highs) if interval else b"",
                data=draw(data(datum)) if datum else b"",
            )
        )
    return owner, elements


def _overlap(lows, highs, other_lows, other_highs):
    return all(
        low <= other_high and other_low <= high
        for low, high, other_low, other_high in zip(lows, highs, other_lows, other_highs, strict=True)
    )


@st.composite
def prefixes(draw, version):
    bits = 32 if version == 4 else 128
    number, length = draw(_numbers(bits)), draw(st.integers(1, bits))
    network = ipaddress.ip_network((number, bits), strict=False).supernet(new_prefix=length)
    return str(network)


def _prefix_match(load, version):
    return st.builds(CmpPrefix, st.just(load), OPS, prefixes(version))


_name_match = st.builds(
    lambda load, op, name: Cmp(load, op, field("ifname", name), f'"{name}"'),
    st.sampled_from([IIFNAME, OIFNAME]),
    OPS,
    link_names,
)
_name_prefix_match = st.builds(
    lambda load, op, name: Cmp(load, op, name.encode(), f'"{name}*"'),
    st.sampled_from([IIFNAME, OIFNAME]),
    OPS,
    st.from_regex(r"sl[a-z0-9]{0,12}", fullmatch=True),
)
_states = st.lists(
    st.sampled_from([n for n in ("invalid", "established", "related", "new", "untracked")]),
    min_size=1,
    unique=True,
)


def _state_match(chosen):
    order = [name for name in ("invalid", "established", "related", "new", "untracked") if name in chosen]
    return BitTest(Ct("state"), sum(CT_STATE[name] for name in order), ",".join(order))


_ports_match = st.builds(
    lambda proto, load, op, port: (
        Cmp(L4PROTO, "==", bytes([proto[0]]), proto[1]),
        Cmp(load, op, port.to_bytes(2, "big"), str(port)),
    ),
    st.sampled_from([(6, "tcp"), (17, "udp"), (132, "sctp")]),
    st.sampled_from([DPORT, SPORT]),
    OPS,
    ports,
)
_icmpv6_match = st.builds(
    lambda low, more: (
        Cmp(L4PROTO, "==", b"\x3a", "ipv6-icmp"),
        CmpRange(ICMPV6_TYPE, bytes([low]), bytes([low + more]), f"{low}-{low + more}"),
    ),
    st.integers(150, 200),
    st.integers(1, 50),
)
_mac_match = st.builds(lambda op, mac: Cmp(ETHER_SADDR, op, mac, mac.hex(":")), OPS, macs)
_arp_match = st.builds(
    lambda mac, address: (
        Cmp(ETHER_TYPE, "==", b"\x08\x06", "arp"),
        Cmp(ARP_SENDER_MAC, "!=", mac, mac.hex(":")),
        Cmp(ARP_SENDER_IP, "!=", address, str(ipaddress.IPv4Address(address))),
    ),
    macs,
    values("ipv4_addr"),
)
_arp_head_match = st.just(
    (
        Cmp(ETHER_TYPE, "==", b"\x08\x06", "arp"),
        Cmp(ARP_HEAD, "!=", bytes.fromhex("000108000604"), "0x000108000604"),
    )
)


def _one(strategy):
    return strategy.map(lambda item: (item,))


_MATCHES = {
    "ip": [
        _one(_name_match),
        _one(_name_prefix_match),
        _one(_states.map(_state_match)),
        _one(_prefix_match(IP_SADDR, 4)),
        _one(_prefix_match(IP_DADDR, 4)),
        _ports_match,
    ],
    "ip6": [
        _one(_name_match),
        _one(_name_prefix_match),
        _one(_states.map(_state_match)),
        _one(_prefix_match(IP6_SADDR, 6)),
        _one(_prefix_match(IP6_DADDR, 6)),
        _ports_match,
        _icmpv6_match,
    ],
    "bridge": [_one(_name_match), _one(_name_prefix_match), _one(_mac_match), _arp_match, _arp_head_match],
}

_LOADS = {
    ("ipv4_addr",): IP_SADDR,
    ("ipv6_addr",): IP6_SADDR,
    ("inet_service",): DPORT,
    ("ifname",): IIFNAME,
    ("ether_addr",): ETHER_SADDR,
    ("inet_proto", "inet_service"): Concat((L4PROTO, DPORT)),
    ("ifname", "ipv4_addr"): Concat((IIFNAME, IP_SADDR)),
    ("ifname", "ipv6_addr"): Concat((IIFNAME, IP6_SADDR)),
    ("ifname", "ether_addr"): Concat((IIFNAME, ETHER_SADDR)),
    ("ipv4_addr", "inet_proto", "inet_service"): Concat((IP_SADDR, L4PROTO, DPORT)),
    ("ipv6_addr", "inet_proto", "inet_service"): Concat((IP6_SADDR, L4PROTO, DPORT)),
    ("ipv4_addr", "ipv4_addr", "inet_proto", "inet_service"): Concat((IP_SADDR, IP_DADDR, L4PROTO, DPORT)),
}


_FRAME_TYPES = {
    "ipv4_addr": Cmp(ETHER_TYPE, "==", b"\x08\x00", "ip"),
    "ipv6_addr": Cmp(ETHER_TYPE, "==", b"\x86\xdd", "ip6"),
}


def _lookup(family, owner, negate):
    """On a bridge an address is one only in frames of its type."""
    frame = [_FRAME_TYPES[kind] for kind in owner.type if family == "bridge" and kind in _FRAME_TYPES]
    load = _LOADS[owner.type]
    if owner.data == ("verdict",):
        return [*frame, VerdictMap(load, owner.name)]
    return [*frame, Lookup(load, owner.name, negate)]


@st.composite
def rules(draw, family, owners=()):
    """Perhaps a match, a counter, a lookup; and a verdict, which a verdict map is already.

    Not two matches: nft changes the order of some when it reads text, so that the text of a rule made from bytes may be
    taken for another rule.
    """
    usable = [owner for owner in owners if not owner.data or owner.data == ("verdict",)]
    found = []
    if usable and draw(st.booleans()):
        found = _lookup(family, draw(st.sampled_from(usable)), draw(st.booleans()))
    matches = _MATCHES[family][: 3 if len(found) > 1 else None]  # No ARP in a frame that is IP.
    statements = [s for group in draw(st.lists(st.one_of(matches), max_size=1)) for s in group]
    # With a match before it and a frame type after it nft 1.0.6 lists a counter before both.
    if draw(st.booleans()) and not (statements and len(found) > 1):
        statements.append(Counter())
    statements += found
    if not statements or not isinstance(statements[-1], VerdictMap):
        statements.append(draw(verdicts))
    return Rule(tuple(statements), draw(st.sampled_from(["", "n:4f2a:isolation", "e:0123:guard"])))


@st.composite
def tables(draw, family):
    """All objects of a table: sets with elements, the side chain, a base chain, and regular chains, all with rules."""
    found = draw(st.lists(sets(family), max_size=4, unique_by=lambda pair: pair[0].name))
    owners = [owner for owner, _ in found]
    body = st.lists(rules(family, owners), max_size=6).map(tuple)
    hook = draw(
        st.builds(
            Hook,
            st.just("filter"),
            st.sampled_from(["prerouting", "input", "forward", "output", "postrouting"]),
            st.one_of(st.sampled_from([-300, -200, -150, -100, 0, 50, 100, 300]), st.integers(-400, 400)),
        )
    )
    return [
        Table(family=family),
        *owners,
        Chain(family=family, name=SIDE_CHAIN),
        Chain(family=family, name="base", rules=draw(body), hook=hook),
        Chain(family=family, name="more", rules=draw(body)),
        *(element for _, elements in found for element in elements),
    ]
