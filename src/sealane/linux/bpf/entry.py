"""What is published on loopback, and how a publish of any size becomes a few elements of one longest-prefix map.

The map's key is ``(family, protocol, port)`` and its value ``(backend address, port delta, first, last, whether the ports
are reserved, and at what address of the loopback)``. A port range is a union of aligned power-of-two blocks, and such a block is a prefix of the port's 16 bits: 1 port is 1 element,
1,000 ports are at most 15, and no range needs more than `MAX_ELEMENTS_PER_ENTRY`.

``first`` and ``last`` stand in the value so that reading back tells apart two neighbouring publishes with one target,
and a publish that a crash left half-written.
"""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING, Final, Literal

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Family = Literal[4, 6]
Protocol = Literal["tcp", "udp", "sctp"]

PORT_BITS: Final = 16
PORTS: Final = 1 << PORT_BITS

MAX_ELEMENTS_PER_ENTRY: Final = 2 * PORT_BITS - 2
"""The worst case, 1..65534: one block of each size below the largest, on both sides."""

KEY_BYTES: Final = 8
VALUE_BYTES: Final = 28
EXACT_PREFIX_BITS: Final = 32
"""family 8 bits, protocol 8 bits, port 16 bits."""

MAPPED_PREFIX: Final = bytes(10) + b"\xff\xff"
"""``::ffff:0:0/96``: an IPv4 address as the sixteen bytes that both families' programs work with."""

_LOOPBACK6: Final = bytes(15) + b"\x01"
_VALUE: Final = struct.Struct("=16s3HH4s")
"""Backend, delta, first, last, 1 if the ports are reserved, and the last four bytes of the address at which they are."""

_PROTOCOL_NUMBERS: Final[dict[Protocol, int]] = {"tcp": 6, "udp": 17}
_PROTOCOL_NAMES: Final[dict[int, Protocol]] = {number: name for name, number in _PROTOCOL_NUMBERS.items()}


class LoopbackEntry(msgspec.Struct, frozen=True, order=True):
    """Ports ``first..last`` of the host's 127.0.0.0/8 (family 4) or ::1 (family 6), sent to one backend.

    Construction raises ValueError naming the field that is wrong, so that an entry in hand is a good one.
    """

    family: Family
    proto: Protocol
    first: int
    last: int
    address: bytes
    """The backend, packed: four bytes or sixteen. An IPv4 backend has four bytes also under family 6."""
    port: int
    """The backend's port for `first`; the others keep their distance to it."""
    reserved: bytes = b""
    """The address, of `family`, at which another process listens on these ports only to reserve them; all zero: at every
    one; empty: none does."""

    def __post_init__(self) -> None:
        if self.family not in {4, 6}:
            raise ValueError(f"family: {self.family!r} is neither 4 nor 6")
        if self.proto not in {"tcp", "udp", "sctp"}:
            raise ValueError(f"proto: {self.proto!r} is none of tcp, udp, sctp")
        if not 1 <= self.first <= self.last < PORTS:
            raise ValueError(
                f"first, last: {self.first}-{self.last} is not a range of ports between 1 and 65535"
            )
        if not 1 <= self.port < PORTS or self.port + self.last - self.first >= PORTS:
            raise ValueError(f"port: {self.last - self.first + 1} ports from {self.port} on leave 1..65535")
        _check_address(self.family, self.address)
        _check_reserved(self.family, self.reserved)

    @property
    def reserved_at(self) -> str:
        """`reserved` as text."""
        family = socket.AF_INET if self.family == 4 else socket.AF_INET6
        return socket.inet_ntop(family, self.reserved) if self.reserved else ""


def _check_address(family: Family, address: bytes) -> None:
    if len(address) == 4:
        unusable = address[0] in {0, 127} or address[0] >= 224
    elif len(address) == 16:
        # ::/8 holds the unspecified, loopback and mapped addresses, fe80::/10 needs an interface, ff00::/8 is multicast.
        link_local = address[0] == 0xFE and address[1] & 0xC0 == 0x80
        unusable = address[0] in {0, 0xFF} or link_local
    else:
        raise ValueError(f"address: {len(address)} bytes, and not 4 or 16")
    if unusable:
        raise ValueError(f"address: {address.hex()} is not a routable unicast address")
    if family == 4 and len(address) == 16:
        raise ValueError("address: an IPv4 socket cannot reach an IPv6 backend")


def _check_reserved(family: Family, address: bytes) -> None:
    """Of IPv6's loopback and wildcard all but the last four bytes are zero, and they are kept alone."""
    if not address:
        return
    if len(address) != (4 if family == 4 else 16):
        raise ValueError(f"reserved: {len(address)} bytes are no IPv{family} address")
    if not any(address):
        return
    if (address[0] != 127) if family == 4 else (address != _LOOPBACK6):
        raise ValueError(f"reserved: {address.hex()} is neither a loopback nor the wildcard address")


def shortfall(entry: LoopbackEntry) -> str | None:
    """Say what of `entry` the eBPF programs do not do; None if all of it works."""
    if entry.proto == "sctp":
        return "SCTP is not published on loopback: the kernel runs no cgroup program when an SCTP socket connects"
    if entry.family == 6 and len(entry.address) == 4:
        return (
            "an IPv4 backend is reached through ::1 by TCP and connected UDP sockets without IPV6_V6ONLY;"
            " the kernel refuses to turn a single IPv6 datagram into an IPv4 one"
        )
    return None


class Element(msgspec.Struct, frozen=True):
    """One element of the map, as its bytes."""

    key: bytes
    value: bytes


def blocks(first: int, last: int) -> Iterator[tuple[int, int]]:
    """Split the range into the fewest aligned blocks, each as its first port and its number of leading fixed bits."""
    start = first
    while start <= last:
        # The largest block that starts here (by its trailing zeros) and does not pass the end.
        size = min(start & -start if start else PORTS, 1 << ((last - start + 1).bit_length() - 1))
        yield start, PORT_BITS - (size.bit_length() - 1)
        start += size


def encode(entry: LoopbackEntry) -> tuple[Element, ...]:
    """The elements of one entry; none for SCTP (see `shortfall`)."""
    number = _PROTOCOL_NUMBERS.get(entry.proto)
    if number is None:
        return ()
    address = entry.address if len(entry.address) == 16 else MAPPED_PREFIX + entry.address
    delta = (entry.port - entry.first) % PORTS
    reserved = (int(bool(entry.reserved)), entry.reserved[-4:])
    value = _VALUE.pack(address, delta, entry.first, entry.last, *reserved)
    return tuple(
        Element(key=_key(entry.family, number, port, bits), value=value)
        for port, bits in blocks(entry.first, entry.last)
    )


def _key(family: int, protocol: int, port: int, port_bits: int) -> bytes:
    fixed_bits = EXACT_PREFIX_BITS - PORT_BITS + port_bits
    # ``struct bpf_lpm_trie_key``: the length in host order, then the data from its most significant bit on.
    return struct.pack("=I", fixed_bits) + struct.pack(">BBH", family, protocol, port)


def same_target(value: bytes, other: bytes) -> bool:
    """Whether two values lead to the same backend; the range they were published by may differ."""
    return value[:18] == other[:18]


def decode(elements: Iterable[Element]) -> frozenset[LoopbackEntry]:
    """Rebuild the entries.

    Of an entry that misses an element (a crash between two updates), each element that is there becomes an entry of its
    own block, so that a diff adds the whole and removes the parts. Elements that no entry encodes to are left out: they
    are not ours.
    """
    groups: dict[LoopbackEntry, set[bytes]] = {}
    for element in elements:
        owner = _owner(element)
        if owner is not None:
            groups.setdefault(owner, set()).add(element.key)
    found: set[LoopbackEntry] = set()
    for owner, keys in groups.items():
        if keys == {element.key for element in encode(owner)}:
            found.add(owner)
        else:
            found.update(_part(owner, key) for key in keys)
    return frozenset(found)


def _owner(element: Element) -> LoopbackEntry | None:
    address, delta, first, last, is_reserved, word = _VALUE.unpack(element.value)
    family, protocol, port = struct.unpack(">BBH", element.key[4:])
    name = _PROTOCOL_NAMES.get(protocol)
    if name is None or not first <= port <= last:
        return None
    backend = address[12:] if address.startswith(MAPPED_PREFIX) else address
    try:
        reserved = (word if family == 4 else bytes(12) + word) if is_reserved else b""
        return LoopbackEntry(family, name, first, last, backend, (first + delta) % PORTS, reserved)
    except ValueError:
        return None


def _part(owner: LoopbackEntry, key: bytes) -> LoopbackEntry:
    (fixed_bits,) = struct.unpack("=I", key[:4])
    (first,) = struct.unpack(">H", key[6:])
    last = first + (1 << (EXACT_PREFIX_BITS - fixed_bits)) - 1
    return msgspec.structs.replace(owner, first=first, last=last, port=owner.port + first - owner.first)
