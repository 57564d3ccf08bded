"""nf_tables as data: tables, chains, sets, elements, and the closed tree of statements that sealane uses.

The tree has two printers: `kernel.text` writes nft's own language for people and goldens, `linux.netlink.nft_expr`
writes the kernel's register programs. Nothing is ever parsed back: chains are compared by the tags of their rules
(a hash kept in each rule's user data), sets by their elements' keys and data, which are plain bytes here as they are
in the kernel, so the compiler, the diff and the kernel agree without conversion.

One transaction replaces a chain or changes elements; base chains are created once and never deleted, since at the
commit of a re-created base chain packets pass for a moment (docs/adr/0006).
"""

import hashlib
import socket
import sys
from collections.abc import Callable
from functools import cached_property
from typing import Any, Literal

import msgspec

from sealane.kernel.objects import Key

TABLE = "sealane"
"""The one table name of ours, in each family."""

NftFamily = Literal["ip", "ip6", "bridge"]
TypeName = Literal[
    "ifname",
    "devgroup",
    "ipv4_addr",
    "ipv6_addr",
    "ether_addr",
    "inet_proto",
    "inet_service",
    "integer",
    "verdict",
]

TYPE_BYTES: dict[str, int] = {
    "ifname": 16,
    "devgroup": 4,
    "ipv4_addr": 4,
    "ipv6_addr": 16,
    "ether_addr": 6,
    "inet_proto": 1,
    "inet_service": 2,
    "integer": 8,
}
"""nft's `integer` is a number of any size without a kind of its own; ours are halves of an address."""


def field(kind: str, value: str | int) -> bytes:
    """One value of a set's type in the kernel's byte order, unpadded."""
    if kind not in _PACKED:
        raise ValueError(f"no such type: {kind}")
    return _PACKED[kind](value)


_PACKED: dict[str, Callable[[Any], bytes]] = {
    "ifname": lambda name: name.encode("ascii").ljust(16, b"\0"),
    "devgroup": lambda number: int(number).to_bytes(4, sys.byteorder),
    "ipv4_addr": lambda address: socket.inet_pton(socket.AF_INET, address),
    "ipv6_addr": lambda address: socket.inet_pton(socket.AF_INET6, address),
    "ether_addr": lambda mac: bytes.fromhex(mac.replace(":", "")),
    "inet_proto": lambda number: int(number).to_bytes(1, "big"),
    "inet_service": lambda number: int(number).to_bytes(2, "big"),
    "integer": lambda number: int(number).to_bytes(8, "big"),
}


def concat(kinds: tuple[str, ...], values: tuple[str | int, ...]) -> bytes:
    """A key or datum: one field as it is, several each padded to a 32-bit register (nft's concatenation)."""
    part = packed = b""
    for kind, value in zip(kinds, values, strict=True):
        part = field(kind, value)
        packed += part + bytes(-len(part) % 4)
    return packed if len(kinds) > 1 else part


# --- loads: what a statement looks at -------------------------------------------------------------------------------


class Meta(msgspec.Struct, frozen=True, tag=True):
    key: Literal["iifname", "oifname", "iifgroup", "oifgroup", "l4proto", "protocol"]


class Payload(msgspec.Struct, frozen=True, tag=True):
    """Bytes of the packet, with nft's name for them."""

    name: str
    base: Literal["link", "network", "transport"]
    offset: int
    length: int


class Ct(msgspec.Struct, frozen=True, tag=True):
    """`direction` is one byte: 0 original, 1 reply (enum ip_conntrack_dir)."""

    key: Literal["state", "status", "direction"]


class Fib(msgspec.Struct, frozen=True, tag=True, omit_defaults=True):
    """`fib daddr type`: what the routing table thinks of the destination; or of the source."""

    of_source: bool = False


class Concat(msgspec.Struct, frozen=True, tag=True):
    loads: tuple["Meta | Payload", ...]


Load = Meta | Payload | Ct | Fib | Concat

IIFNAME = Meta("iifname")
OIFNAME = Meta("oifname")
IIFGROUP = Meta("iifgroup")
OIFGROUP = Meta("oifgroup")
L4PROTO = Meta("l4proto")
DPORT = Payload("th dport", "transport", 2, 2)
SPORT = Payload("th sport", "transport", 0, 2)
IP_SADDR = Payload("ip saddr", "network", 12, 4)
IP_DADDR = Payload("ip daddr", "network", 16, 4)
IP6_SADDR = Payload("ip6 saddr", "network", 8, 16)
IP6_DADDR = Payload("ip6 daddr", "network", 24, 16)
ICMP_TYPE = Payload("icmp type", "transport", 0, 1)
ICMPV6_TYPE = Payload("icmpv6 type", "transport", 0, 1)
ND_TARGET = (Payload("@th,64,64", "transport", 8, 8), Payload("@th,128,64", "transport", 16, 8))
"""The target of a neighbour solicitation or advertisement, in halves: only so is it written alike by every nft. As one
field (`icmpv6 taddr`) it is known since 1.0.9; before, nft prints raw bytes, which it does not take for an address."""
ETHER_DADDR = Payload("ether daddr", "link", 0, 6)
ETHER_SADDR = Payload("ether saddr", "link", 6, 6)
ETHER_TYPE = Payload("ether type", "link", 12, 2)
ARP_HEAD = Payload("@nh,0,48", "network", 0, 6)
ARP_SENDER_MAC = Payload("arp saddr ether", "network", 8, 6)
ARP_SENDER_IP = Payload("arp saddr ip", "network", 14, 4)

# --- statements -----------------------------------------------------------------------------------------------------

CT_STATE = {"established": 2, "related": 4, "new": 8, "invalid": 1, "untracked": 64}
CT_STATUS = {"dnat": 32, "snat": 16}
FIB_LOCAL = 2
"""RTN_LOCAL (linux/rtnetlink.h)."""


class Cmp(msgspec.Struct, frozen=True, tag=True):
    """`LOAD op VALUE`. `shown` is nft's spelling of the value. A value shorter than the load compares a prefix of it
    (nft's `iifname "sle*"`)."""

    load: "Meta | Payload | Fib | Ct"
    op: Literal["==", "!="]
    value: bytes
    shown: str


class CmpPrefix(msgspec.Struct, frozen=True, tag=True):
    """`ip saddr [!=] 10.1.0.0/24`: masked comparison."""

    load: Payload
    op: Literal["==", "!="]
    prefix: str


class CmpRange(msgspec.Struct, frozen=True, tag=True):
    """`icmpv6 type 133-137`."""

    load: Payload
    low: bytes
    high: bytes
    shown: str


class BitTest(msgspec.Struct, frozen=True, tag=True):
    """`ct state established,related`: any of the bits is set."""

    load: Ct
    bits: int
    shown: str


class Lookup(msgspec.Struct, frozen=True, tag=True):
    """`LOAD [!=] @set`."""

    load: Load
    set: str
    negate: bool = False


class VerdictMap(msgspec.Struct, frozen=True, tag=True):
    """`LOAD vmap @map`: goes on with the element's verdict, or with the next rule if there is none."""

    load: Load
    map: str


class Verdict(msgspec.Struct, frozen=True, tag=True):
    code: Literal["accept", "drop", "return", "jump", "goto"]
    chain: str = ""


class Counter(msgspec.Struct, frozen=True, tag=True):
    """Counts packets and bytes; its values are never compared."""


class Notrack(msgspec.Struct, frozen=True, tag=True):
    pass


class DnatMap(msgspec.Struct, frozen=True, tag=True):
    """`dnat to LOAD map @map`: data is an address, or address and port when `with_port`."""

    load: Load
    map: str
    with_port: bool


class Snat(msgspec.Struct, frozen=True, tag=True):
    address: str


class Masquerade(msgspec.Struct, frozen=True, tag=True):
    """Ports fully random, so that one tenant cannot foresee and occupy another's tuple (CVE-2021-3773)."""


Statement = (
    Cmp
    | CmpPrefix
    | CmpRange
    | BitTest
    | Lookup
    | VerdictMap
    | Verdict
    | Counter
    | Notrack
    | DnatMap
    | Snat
    | Masquerade
)

ACCEPT = Verdict("accept")
DROP = Verdict("drop")
RETURN = Verdict("return")


class Rule(msgspec.Struct, frozen=True):
    """`comment` is an id of ours, never user text: it says which intent the rule serves, e.g. `n:4f2a:isolation`."""

    statements: tuple[Statement, ...]
    comment: str = ""

    def tag(self) -> str:
        """Content hash kept in the rule's user data; equal tags mean equal rules."""
        return hashlib.sha256(msgspec.msgpack.encode(self)).hexdigest()[:16]


class Hook(msgspec.Struct, frozen=True):
    type: Literal["filter", "nat"]
    hook: Literal["prerouting", "input", "forward", "output", "postrouting"]
    priority: int


class Table(msgspec.Struct, frozen=True, kw_only=True):
    family: NftFamily

    @property
    def key(self) -> Key:
        return ("nft-table", self.family)


class Chain(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """A chain with its rules: one object, replaced whole. `hook` makes it a base chain (policy accept: what is not
    ours goes on untouched; where we deny we say `drop`)."""

    family: NftFamily
    name: str
    rules: tuple[Rule, ...] = ()
    hook: Hook | None = None

    @property
    def key(self) -> Key:
        return ("nft-chain", self.family, self.name)

    @cached_property
    def tags(self) -> tuple[str, ...]:
        return tuple(rule.tag() for rule in self.rules)


class ObservedChain(msgspec.Struct, frozen=True, kw_only=True):
    """A chain as read back: its rules' tags in place of its rules. A rule without a tag of ours reads `?`."""

    family: NftFamily
    name: str
    tags: tuple[str, ...] = ()
    hook: Hook | None = None

    @property
    def key(self) -> Key:
        return ("nft-chain", self.family, self.name)


class Set(msgspec.Struct, frozen=True, kw_only=True):
    """A set, or a map if it has `data`. `interval` sets hold ranges."""

    family: NftFamily
    name: str
    type: tuple[TypeName, ...]
    data: tuple[TypeName, ...] = ()
    interval: bool = False

    @property
    def key(self) -> Key:
        return ("nft-set", self.family, self.name)


TYPEOF: dict[tuple[TypeName, ...], tuple[Meta | Payload, ...]] = {
    ("ifname", "ether_addr", "integer", "integer"): (IIFNAME, ETHER_SADDR, *ND_TARGET)
}
"""Types that nft takes only by example (`typeof`): an integer's size is that of the field it is compared with."""


class Element(msgspec.Struct, frozen=True, kw_only=True):
    """One element. `value` and, in interval sets, `end` (the last value, inclusive, per field) are `concat` bytes;
    `data` is bytes, or a verdict in verdict maps."""

    family: NftFamily
    set: str
    value: bytes
    end: bytes = b""
    data: bytes | Verdict = b""

    @property
    def key(self) -> Key:
        return ("nft-element", self.family, self.set, self.value, self.end)
