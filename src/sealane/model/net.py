"""Addresses, prefixes, MACs and ports: parsed once at the edge, carried as canonical text from there on.

Canonical text hashes, compares and prints fastest, survives JSON unchanged, and `socket.inet_pton` turns it into
the kernel's bytes in one call. A value of one of these types has passed its `parse_*` function, which refuses what
`ipaddress` lets through and a policy must not see: scope ids, IPv4-mapped IPv6, host bits in a prefix.
"""

import ipaddress
import re
import socket
from typing import Literal, NewType

Family = Literal[4, 6]
FAMILIES: tuple[Family, Family] = (4, 6)

Address = NewType("Address", str)
"""One IP address, e.g. `10.1.0.2` or `fd00::2`."""

Prefix = NewType("Prefix", str)
"""A network without host bits, e.g. `10.1.0.0/24`."""

Interface = NewType("Interface", str)
"""An address with the length of its subnet, e.g. `10.1.0.2/24`."""

Mac = NewType("Mac", str)
"""Six lower-case octets, e.g. `02:42:0a:01:00:02`."""

Proto = Literal["tcp", "udp", "sctp"]
PROTO_NUMBERS: dict[str, int] = {"tcp": 6, "udp": 17, "sctp": 132}

_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_PORT = re.compile(r"[0-9]{1,5}")


class ParseError(ValueError):
    """Text that is not what its field asks for. The message names the text and the hint."""


def parse_address(text: str) -> Address:
    if "%" in text:
        raise ParseError(f"{text!r}: an address without a scope id is needed")
    try:
        value = ipaddress.ip_address(text)
    except ValueError as error:
        raise ParseError(f"{text!r} is not an IP address") from error
    if isinstance(value, ipaddress.IPv6Address) and value.ipv4_mapped is not None:
        raise ParseError(f"{text!r}: write the IPv4 address {value.ipv4_mapped} itself")
    return Address(str(value))


def parse_prefix(text: str) -> Prefix:
    if "/" not in text:
        raise ParseError(f"{text!r} has no prefix length, e.g. /24")
    if "%" in text:
        raise ParseError(f"{text!r}: a prefix without a scope id is needed")
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError as error:
        raise ParseError(f"{text!r} is not a prefix such as 10.1.0.0/24") from error
    if ipaddress.ip_interface(text).ip != network.network_address:
        raise ParseError(f"{text!r} has host bits set; write {network}")
    return Prefix(str(network))


def parse_mac(text: str) -> Mac:
    lowered = text.lower().replace("-", ":")
    if not _MAC.fullmatch(lowered):
        raise ParseError(f"{text!r} is not a MAC address such as 02:42:0a:01:00:02")
    first = int(lowered[:2], 16)
    if first & 1:
        raise ParseError(f"{text!r} is a multicast MAC: the lowest bit of its first octet must be 0")
    if lowered == "00:00:00:00:00:00":
        raise ParseError("the all-zero MAC cannot be used")
    return Mac(lowered)


def parse_port(text: str) -> int:
    """A port from 1 to 65535, in ASCII digits (`int` alone would take `1_000` and Arabic digits)."""
    if not _PORT.fullmatch(text) or not text.isascii() or not 1 <= int(text) <= 65535:
        raise ParseError(f"{text!r} is not a port from 1 to 65535")
    return int(text)


def family_of(value: str) -> Family:
    return 6 if ":" in value else 4


WILDCARDS: dict[Family, Address] = {4: Address("0.0.0.0"), 6: Address("::")}
"""Every address of a family."""


def is_wildcard(address: str) -> bool:
    return address in WILDCARDS.values()


def is_loopback(address: str) -> bool:
    return address.startswith("127.") or address == "::1"


def is_link_local(address: str) -> bool:
    """Of IPv6 (RFC 4291): fe80::/10."""
    return address.startswith(("fe8", "fe9", "fea", "feb"))


def address_part(interface: str) -> Address:
    return Address(interface.partition("/")[0])


def prefix_length(value: str) -> int:
    return int(value.rpartition("/")[2])


DEFAULTISH_LENGTH = 8


def is_defaultish(prefix: str) -> bool:
    """Whether a route to it is a way out by another name (VPNs use 0.0.0.0/1 and 128.0.0.0/1), no claim on its addresses."""
    return prefix_length(prefix) <= DEFAULTISH_LENGTH


IPV6_MTU_MIN = 1280
"""Bytes. Below it a link has no IPv6 at all (RFC 8200 §5), nor any setting for it."""


def packed(address: str) -> bytes:
    """Its bytes, in the network's order. Raises ValueError for what is none."""
    try:
        return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)
    except OSError as error:
        raise ValueError(f"{address!r} is no address") from error


def to_int(address: str) -> int:
    return int.from_bytes(packed(address), "big")


def from_int(family: Family, value: int) -> Address:
    if family == 4:
        # As `ipaddress` writes it, in a fifth of the time; of IPv6 libc writes some addresses otherwise.
        return Address(socket.inet_ntoa(value.to_bytes(4, "big")))
    return Address(str(ipaddress.IPv6Address(value)))


def host_prefix(address: str) -> Prefix:
    """The /32 or /128 of one address."""
    return Prefix(f"{address}/{32 if family_of(address) == 4 else 128}")


def bounds(prefix: str) -> tuple[int, int]:
    """First and last address of a prefix, as integers."""
    network = ipaddress.ip_network(prefix)
    return int(network.network_address), int(network.broadcast_address)


def contains(prefix: str, address: str) -> bool:
    if family_of(prefix) != family_of(address):
        return False
    first, last = bounds(prefix)
    return first <= to_int(address) <= last


def overlaps(one: str, other: str) -> bool:
    if family_of(one) != family_of(other):
        return False
    first, last = bounds(one)
    other_first, other_last = bounds(other)
    return first <= other_last and other_first <= last
