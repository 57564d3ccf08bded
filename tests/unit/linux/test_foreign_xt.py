"""Matches and targets of xtables, from the bytes in which the kernel keeps them."""

import socket
import struct

import pytest

from sealane.explain.foreign.rules import (
    NOTHING,
    Decide,
    LocalDestination,
    Mark,
    Maybe,
    Opaque,
    Operation,
    Ports,
    SetMark,
    States,
    Translate,
)
from sealane.linux.foreign_xt import match, target

ANY = (0, 65535)


def conntrack(flags: int, states: int, inverse: int = 0) -> bytes:
    return bytes(146) + struct.pack("=HHHH", flags, inverse, states, 0) + bytes(8)


def nat(flags: int, address: str, port: int) -> bytes:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    packed = socket.inet_pton(family, address).ljust(16, b"\0")
    return struct.pack(
        "=I16s16s2s2s", flags, packed, packed, port.to_bytes(2, "big"), port.to_bytes(2, "big")
    )


@pytest.mark.parametrize(
    ("name", "revision", "info", "expected"),
    [
        ("comment", 0, b"a word", NOTHING),
        ("tcp", 0, struct.pack("=HHHHBBBB", *ANY, 80, 90, 0, 0, 0, 0), Ports(6, (ANY,), ((80, 90),))),
        ("tcp", 0, struct.pack("=HHHHBBBB", *ANY, 80, 80, 0, 0, 0, 2), Ports(6, (ANY,), ((80, 80),), negate_destination=True)),
        ("tcp", 0, struct.pack("=HHHHBBBB", *ANY, 80, 80, 0, 0x17, 2, 0), Maybe("tcp")),
        ("udp", 0, struct.pack("=HHHHB", 53, 53, *ANY, 1), Ports(17, ((53, 53),), (ANY,), negate_source=True)),
        ("addrtype", 1, struct.pack("=HHI", 0, 4, 0), LocalDestination()),
        ("addrtype", 1, struct.pack("=HHI", 0, 4, 2), LocalDestination(negate=True)),
        ("addrtype", 1, struct.pack("=HHI", 4, 0, 0), Maybe("addrtype")),
        ("addrtype", 1, struct.pack("=HHI", 0, 4, 4), Maybe("addrtype")),
        ("conntrack", 3, conntrack(1, 2 | 4), States(2 | 4)),
        ("conntrack", 3, conntrack(1, 2 | 4 | 128, 1), States(2 | 4, 32, negate=True)),
        ("conntrack", 3, conntrack(1, 64 | 256), States(64, 16)),
        ("conntrack", 3, conntrack(3, 2), Maybe("conntrack")),
        ("conntrack", 1, conntrack(1, 2), Maybe("conntrack")),
        ("mark", 1, struct.pack("=IIB", 0x4000, 0x4000, 1), Mark(0x4000, 0x4000, negate=True)),
        ("string", 1, bytes(300), Maybe("string")),
        ("tcp", 0, b"short", Maybe("tcp")),
    ],
)  # fmt: skip
def test_matches(name: str, revision: int, info: bytes, expected: Operation) -> None:
    assert match(name, revision, info) == expected


@pytest.mark.parametrize(
    ("name", "revision", "info", "expected"),
    [
        ("REJECT", 0, bytes(4), Decide("reject")),
        ("MARK", 2, struct.pack("=II", 0x4000, 0x4000), SetMark(0x4000, 0x4000)),
        ("DNAT", 2, nat(3, "10.1.0.2", 80), Translate("destination", "10.1.0.2", "80")),
        ("DNAT", 2, nat(1, "fd00::2", 0), Translate("destination", "fd00::2", "")),
        ("REDIRECT", 0, struct.pack("=II4s4s2s2s", 1, 2, bytes(4), bytes(4), b"\0\t", b"\0\t"), Translate("destination", "", "9")),
        ("SNAT", 2, nat(1, "10.1.0.9", 0), Translate("source", "10.1.0.9", "")),
        ("MASQUERADE", 0, bytes(24), Translate("source")),
        ("TPROXY", 1, bytes(40), Translate("socket")),
        ("LOG", 0, bytes(32), NOTHING),
        ("CONNMARK", 2, bytes(16), NOTHING),
        ("NFQUEUE", 3, bytes(8), Opaque("NFQUEUE")),
        ("TTL", 0, bytes(2), Opaque("TTL")),
        ("MARK", 2, b"", Opaque("MARK")),
    ],
)  # fmt: skip
def test_targets(name: str, revision: int, info: bytes, expected: Operation) -> None:
    assert target(name, revision, info) == expected
