"""Statements as register programs, written out as `nft --debug=netlink` does."""

import struct

import pytest

from sealane.kernel.nft import (
    ACCEPT,
    DPORT,
    DROP,
    ETHER_SADDR,
    ICMPV6_TYPE,
    IIFNAME,
    IP6_DADDR,
    IP6_SADDR,
    IP_SADDR,
    L4PROTO,
    OIFNAME,
    RETURN,
    BitTest,
    Cmp,
    CmpPrefix,
    CmpRange,
    Concat,
    Counter,
    Ct,
    DnatMap,
    Fib,
    Lookup,
    Masquerade,
    Meta,
    Notrack,
    Payload,
    Rule,
    Snat,
    Verdict,
    VerdictMap,
    field,
)
from sealane.linux.netlink.nft_expr import expressions

# --- a reader of its own --------------------------------------------------------------------------------------------


def attrs(data):
    found = {}
    while data:
        size, kind = struct.unpack_from("=HH", data)
        assert 4 <= size <= len(data)
        found[kind & 0x3FFF] = data[4:size]
        data = data[(size + 3) & ~3 :]
    return found


def listed(data):
    while data:
        size, kind = struct.unpack_from("=HH", data)
        assert kind & 0x3FFF == 1
        yield attrs(data[4:size])
        data = data[(size + 3) & ~3 :]


def number(payload):
    return struct.unpack(">I", payload)[0]


def value(payload):
    found = attrs(payload)
    if 1 in found:
        return f"0x{found[1].hex()}"
    verdict = attrs(found[2])
    code = {0: "drop", 1: "accept", -3: "jump", -4: "goto", -5: "return"}[struct.unpack(">i", verdict[1])[0]]
    return f"{code} {verdict[2].rstrip(bytes(1)).decode()}" if 2 in verdict else code


def lookup(a):
    to = f" dreg {number(a[3])}" if 3 in a else ""
    flags = f" 0x{number(a[5]):x}" if 5 in a else ""
    return f"lookup reg {number(a[2])} set {a[1].rstrip(bytes(1)).decode()}{to}{flags}"


def nat(a):
    port = f" proto_min reg {number(a[5])}" if 5 in a else ""
    kind = ["snat", "dnat"][number(a[1])]
    return f"nat {kind} family {number(a[2])} addr_min reg {number(a[3])}{port}"


EXPRESSIONS = {
    "meta": lambda a: f"meta load {number(a[2])} => reg {number(a[1])}",
    "payload": lambda a: (
        f"payload load {number(a[4])}b @ {number(a[2])} + {number(a[3])} => reg {number(a[1])}"
    ),
    "ct": lambda a: f"ct load {number(a[2])} => reg {number(a[1])}",
    "fib": lambda a: f"fib flags {number(a[3])} result {number(a[2])} => reg {number(a[1])}",
    "cmp": lambda a: f"cmp {['eq', 'neq'][number(a[2])]} reg {number(a[1])} {value(a[3])}",
    "bitwise": lambda a: (
        f"bitwise reg {number(a[2])} = ({number(a[3])}b reg {number(a[1])} & {value(a[4])}) ^ {value(a[5])}"
    ),
    "range": lambda a: f"range {['eq', 'neq'][number(a[2])]} reg {number(a[1])} {value(a[3])} {value(a[4])}",
    "immediate": lambda a: f"immediate reg {number(a[1])} {value(a[2])}",
    "lookup": lookup,
    "nat": nat,
    "masq": lambda a: f"masq flags 0x{number(a[1]):x}",
    "counter": lambda a: "counter",
    "notrack": lambda a: "notrack",
}


def program(family, *statements):
    found = []
    for item in listed(expressions(family, Rule(statements))):
        name = item[1].rstrip(bytes(1)).decode()
        found.append(EXPRESSIONS[name](attrs(item[2])))
    return found


# --- the programs ---------------------------------------------------------------------------------------------------

ETH0 = field("ifname", "eth0")
PROTO_PORT = Concat((L4PROTO, DPORT))
ZERO_4, ZERO_16 = "0x" + 4 * "00", "0x" + 16 * "00"
LITTLE = struct.pack("=I", 1) == struct.pack("<I", 1)
ESTABLISHED_RELATED = "0x06000000" if LITTLE else "0x00000006"

CASES = [
    (Cmp(IIFNAME, "==", ETH0, ""), ["meta load 6 => reg 8", f"cmp eq reg 8 0x{ETH0.hex()}"]),
    (Cmp(OIFNAME, "!=", b"sle", ""), ["meta load 7 => reg 8", "cmp neq reg 8 0x736c65"]),
    (Cmp(L4PROTO, "==", b"\x06", ""), ["meta load 16 => reg 8", "cmp eq reg 8 0x06"]),
    (Cmp(Meta("protocol"), "==", b"\x08\x00", ""), ["meta load 1 => reg 8", "cmp eq reg 8 0x0800"]),
    (Cmp(DPORT, "==", b"\x00\x50", ""), ["payload load 2b @ 2 + 2 => reg 8", "cmp eq reg 8 0x0050"]),
    (
        Cmp(ETHER_SADDR, "!=", b"\2\3\4\5\6\7", ""),
        ["payload load 6b @ 0 + 6 => reg 8", "cmp neq reg 8 0x020304050607"],
    ),
    (Cmp(Fib(), "==", b"\2\0\0\0", ""), ["fib flags 2 result 3 => reg 8", "cmp eq reg 8 0x02000000"]),
    (
        Cmp(Fib(of_source=True), "==", b"\2\0\0\0", ""),
        ["fib flags 1 result 3 => reg 8", "cmp eq reg 8 0x02000000"],
    ),
    (
        CmpPrefix(IP_SADDR, "==", "10.1.0.0/24"),
        [
            "payload load 4b @ 1 + 12 => reg 8",
            f"bitwise reg 8 = (4b reg 8 & 0xffffff00) ^ {ZERO_4}",
            "cmp eq reg 8 0x0a010000",
        ],
    ),
    (
        CmpPrefix(IP_SADDR, "!=", "10.1.0.9/32"),
        ["payload load 4b @ 1 + 12 => reg 8", "cmp neq reg 8 0x0a010009"],
    ),
    (
        CmpPrefix(IP_SADDR, "==", "0.0.0.0/0"),
        [
            "payload load 4b @ 1 + 12 => reg 8",
            f"bitwise reg 8 = (4b reg 8 & {ZERO_4}) ^ {ZERO_4}",
            f"cmp eq reg 8 {ZERO_4}",
        ],
    ),
    (
        CmpPrefix(IP6_SADDR, "==", "fd00::/64"),
        ["payload load 8b @ 1 + 8 => reg 8", "cmp eq reg 8 0xfd00000000000000"],
    ),
    (
        CmpPrefix(IP6_DADDR, "==", "fe80::/10"),
        [
            "payload load 16b @ 1 + 24 => reg 8",
            f"bitwise reg 8 = (16b reg 8 & 0xffc0{14 * '00'}) ^ {ZERO_16}",
            f"cmp eq reg 8 0xfe80{14 * '00'}",
        ],
    ),
    (
        CmpPrefix(IP6_DADDR, "!=", "::/0"),
        [
            "payload load 16b @ 1 + 24 => reg 8",
            f"bitwise reg 8 = (16b reg 8 & {ZERO_16}) ^ {ZERO_16}",
            f"cmp neq reg 8 {ZERO_16}",
        ],
    ),
    (
        CmpRange(ICMPV6_TYPE, b"\x85", b"\x89", ""),
        ["payload load 1b @ 2 + 0 => reg 8", "range eq reg 8 0x85 0x89"],
    ),
    (
        BitTest(Ct("state"), 6, ""),
        [
            "ct load 0 => reg 8",
            f"bitwise reg 8 = (4b reg 8 & {ESTABLISHED_RELATED}) ^ {ZERO_4}",
            f"cmp neq reg 8 {ZERO_4}",
        ],
    ),
    (Lookup(IIFNAME, "names"), ["meta load 6 => reg 8", "lookup reg 8 set names"]),
    (Lookup(IIFNAME, "names", negate=True), ["meta load 6 => reg 8", "lookup reg 8 set names 0x1"]),
    (
        Lookup(Concat((IIFNAME, IP_SADDR)), "s"),
        ["meta load 6 => reg 8", "payload load 4b @ 1 + 12 => reg 12", "lookup reg 8 set s"],
    ),
    (
        Lookup(Concat((IP6_SADDR, L4PROTO, DPORT)), "s"),
        [
            "payload load 16b @ 1 + 8 => reg 8",
            "meta load 16 => reg 12",
            "payload load 2b @ 2 + 2 => reg 13",
            "lookup reg 8 set s",
        ],
    ),
    (
        Lookup(Concat((IIFNAME, ETHER_SADDR, IP_SADDR)), "s"),
        [
            "meta load 6 => reg 8",
            "payload load 6b @ 0 + 6 => reg 12",
            "payload load 4b @ 1 + 12 => reg 14",
            "lookup reg 8 set s",
        ],
    ),
    (VerdictMap(IIFNAME, "m"), ["meta load 6 => reg 8", "lookup reg 8 set m dreg 0"]),
    (ACCEPT, ["immediate reg 0 accept"]),
    (DROP, ["immediate reg 0 drop"]),
    (RETURN, ["immediate reg 0 return"]),
    (Verdict("jump", "c"), ["immediate reg 0 jump c"]),
    (Verdict("goto", "c"), ["immediate reg 0 goto c"]),
    (Counter(), ["counter"]),
    (Notrack(), ["notrack"]),
    (Masquerade(), ["masq flags 0x10"]),
]


@pytest.mark.parametrize(("statement", "expected"), CASES)
def test_a_statement_is_a_program_over_registers(statement, expected):
    assert program("ip", statement) == expected


@pytest.mark.parametrize(("family", "number", "port_register"), [("ip", 2, 9), ("ip6", 10, 12)])
def test_dnat_takes_address_and_port_from_where_the_map_left_them(family, number, port_register):
    load = ["meta load 16 => reg 8", "payload load 2b @ 2 + 2 => reg 9", "lookup reg 8 set m dreg 8"]
    assert program(family, DnatMap(PROTO_PORT, "m", with_port=True)) == [
        *load,
        f"nat dnat family {number} addr_min reg 8 proto_min reg {port_register}",
    ]
    assert program(family, DnatMap(PROTO_PORT, "m", with_port=False)) == [
        *load,
        f"nat dnat family {number} addr_min reg 8",
    ]


@pytest.mark.parametrize(
    ("family", "address", "expected"),
    [
        ("ip", "10.0.0.1", ["immediate reg 8 0x0a000001", "nat snat family 2 addr_min reg 8"]),
        ("ip6", "fd00::1", [f"immediate reg 8 0xfd00{13 * '00'}01", "nat snat family 10 addr_min reg 8"]),
    ],
)
def test_snat_brings_its_address_along(family, address, expected):
    assert program(family, Snat(address)) == expected


def test_statements_stand_in_order_and_start_afresh():
    both = [CASES[0], CASES[2], CASES[-5]]
    assert program("ip", *(case for case, _ in both)) == [line for _, lines in both for line in lines]


@pytest.mark.parametrize("statement", [Snat("10.0.0.1"), DnatMap(PROTO_PORT, "m", with_port=True)])
def test_a_bridge_translates_nothing(statement):
    with pytest.raises(ValueError, match="bridge"):
        program("bridge", statement)


@pytest.mark.parametrize(
    ("load", "prefix"), [(IP_SADDR, "fd00::/64"), (IP6_SADDR, "10.0.0.0/8"), (IP6_SADDR, "10.0.0.1/32")]
)
def test_a_prefix_of_the_other_family_is_refused(load, prefix):
    with pytest.raises(ValueError, match="another family"):
        program("ip", CmpPrefix(load, "==", prefix))


@pytest.mark.parametrize(
    ("family", "address"), [("ip", "fd00::1"), ("ip6", "10.0.0.1"), ("ip", "no address")]
)
def test_an_address_of_the_other_family_is_refused(family, address):
    with pytest.raises((ValueError, OSError)):
        program(family, Snat(address))


def test_sixteen_registers_are_all_there_are():
    four = Payload("x", "network", 0, 4)
    assert len(program("ip", Lookup(Concat((four,) * 16), "s"))) == 17
    with pytest.raises(ValueError, match="at most 64"):
        program("ip", Lookup(Concat((four,) * 17), "s"))
