"""Foreign rules as data: register programs, as the kernel holds them, of every table that is not sealane's.

An expression that the reader (`sealane.linux.foreign_rules`) does not know becomes `Opaque`, never nothing: from there on
the rule may do anything.
"""

from collections.abc import Mapping
from typing import Literal

import msgspec

REGISTER_BYTES = 64
"""NFT_REG32_00 to NFT_REG32_15."""

Family = Literal["inet", "ip", "ip6", "arp", "bridge", "netdev"]
Bits = tuple[int | None, ...]
"""Bytes, each known or not."""


class Load(msgspec.Struct, frozen=True):
    """Put something of the packet into a register: `kind` is `payload`, `meta`, `ct`, `fib`, or `?` for what is not
    modelled, and `of` says which (base, offset and length; a key; …)."""

    register: int
    size: int
    kind: str = "?"
    of: tuple[int, ...] = ()


class Constant(msgspec.Struct, frozen=True):
    register: int
    value: bytes


class Mask(msgspec.Struct, frozen=True):
    """`(source & mask) ^ xor`."""

    source: int
    register: int
    mask: bytes
    xor: bytes


class Swap(msgspec.Struct, frozen=True):
    """Change the byte order of each group of `group` bytes."""

    source: int
    register: int
    size: int
    group: int


class Compare(msgspec.Struct, frozen=True):
    source: int
    op: Literal["==", "!=", "<", "<=", ">", ">="]
    value: bytes


class Between(msgspec.Struct, frozen=True):
    source: int
    low: bytes
    high: bytes
    negate: bool = False


class Lookup(msgspec.Struct, frozen=True):
    """In a set; in a map if `register` is one (0: the verdict's) and not None."""

    set: str
    source: int
    register: int | None = None
    negate: bool = False


class Ports(msgspec.Struct, frozen=True):
    """xtables' matches of ports: `ranges` of the source or the destination."""

    proto: int
    source: tuple[tuple[int, int], ...] = ()
    destination: tuple[tuple[int, int], ...] = ()
    either: tuple[tuple[int, int], ...] = ()
    negate_source: bool = False
    negate_destination: bool = False


class LocalDestination(msgspec.Struct, frozen=True):
    """xtables' `addrtype --dst-type LOCAL`."""

    negate: bool = False


class States(msgspec.Struct, frozen=True):
    """xtables' `conntrack --ctstate`, in the bits of nftables' `ct state`; `statuses` those of `ct status`."""

    states: int
    statuses: int = 0
    negate: bool = False


class Mark(msgspec.Struct, frozen=True):
    """xtables' `mark`."""

    mark: int
    mask: int
    negate: bool = False


class Maybe(msgspec.Struct, frozen=True):
    """A condition that cannot be told (a limit, a quota, chance): the rule goes on or ends. It has no other effect."""

    name: str


NOTHING = Maybe("")
"""What does nothing to a packet: left out by whoever reads rules."""


class SetMark(msgspec.Struct, frozen=True):
    """The packet's mark: `(mark & ~mask) ^ value`; from a register if there is one."""

    value: int = 0
    mask: int = 0xFFFF_FFFF
    source: int | None = None


class Decide(msgspec.Struct, frozen=True):
    """A verdict. `reject` is a drop that is told of."""

    verdict: Literal["accept", "drop", "reject", "continue", "break", "jump", "goto", "return"]
    chain: str = ""


class Translate(msgspec.Struct, frozen=True):
    """To an address and a port in registers, or given; empty: `redirect`, `masquerade`. `socket`: tproxy."""

    kind: Literal["destination", "source", "socket"]
    address: int | str = ""
    port: int | str = ""
    """A register's number, or text."""
    width: int = 4
    """Bytes of an address."""


class Opaque(msgspec.Struct, frozen=True):
    """Something that may do anything to the packet."""

    name: str


Operation = (
    Load
    | Constant
    | Mask
    | Swap
    | Compare
    | Between
    | Lookup
    | Ports
    | LocalDestination
    | States
    | Mark
    | Maybe
    | SetMark
    | Decide
    | Translate
    | Opaque
)


class ForeignRule(msgspec.Struct, frozen=True):
    operations: tuple[Operation, ...]
    handle: int = 0
    comment: str = ""


class ForeignElement(msgspec.Struct, frozen=True):
    """`low` to `high`, both included; equal for one value."""

    low: bytes
    high: bytes
    data: bytes | Decide = b""


class ForeignSet(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    size: int
    """Bytes of a key."""
    exact: Mapping[bytes, ForeignElement] = {}
    ranges: tuple[ForeignElement, ...] = ()
    fields: tuple[int, ...] = ()
    """Bytes of each field of a concatenation of ranges; empty: a key is compared whole."""
    catchall: ForeignElement | None = None
    is_known: bool = True
    """False: elements come and go by packets or by time, or there are more than can be read."""


class ForeignHook(msgspec.Struct, frozen=True):
    type: str
    """`filter`, `nat`, `route`."""
    hook: str
    """`prerouting`, …, `ingress`, `egress`."""
    priority: int
    devices: tuple[str, ...] = ()
    """Of ingress and egress."""


class ForeignChain(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    rules: tuple[ForeignRule, ...] = ()
    hook: ForeignHook | None = None
    policy: Literal["accept", "drop"] = "accept"


class ForeignTable(msgspec.Struct, frozen=True, kw_only=True):
    family: Family
    name: str
    chains: Mapping[str, ForeignChain] = {}
    sets: Mapping[str, ForeignSet] = {}
    is_legacy: bool = False
    """Of iptables-legacy, whose rules netlink does not show."""

    def bases(self) -> list[ForeignChain]:
        return [chain for chain in self.chains.values() if chain.hook is not None]

    def __str__(self) -> str:
        return (
            f"iptables-legacy {self.family} {self.name}"
            if self.is_legacy
            else f"{self.family} table {self.name}"
        )


class ForeignRules(msgspec.Struct, frozen=True):
    """Of one namespace."""

    tables: tuple[ForeignTable, ...] = ()
    indexes: Mapping[str, int] = {}
    """Links' indexes, which rules may compare."""

    def at(self, family: str, hook: str, device: str = "") -> list[tuple[ForeignTable, ForeignChain]]:
        """Base chains that a packet of the family passes at a hook, by priority."""
        found = [
            (table, chain)
            for table in self.tables
            for chain in table.bases()
            if _sees(table.family, family) and _is_at(chain, hook, device)
        ]
        return sorted(found, key=lambda pair: pair[1].hook.priority if pair[1].hook else 0)

    def translating(self) -> "ForeignRules":
        """With those base chains alone that may translate: of type nat, and of tables that redirect to sockets (tproxy)."""
        tables = [_translating(table) for table in self.tables]
        return ForeignRules(tuple(table for table in tables if table.bases()), self.indexes)


def _translating(table: ForeignTable) -> ForeignTable:
    redirects = any(
        isinstance(operation, Translate) and operation.kind == "socket"
        for chain in table.chains.values()
        for rule in chain.rules
        for operation in rule.operations
    )
    chains = {
        name: chain
        if chain.hook is None or chain.hook.type == "nat" or redirects
        else msgspec.structs.replace(chain, hook=None)
        for name, chain in table.chains.items()
    }
    return msgspec.structs.replace(table, chains=chains)


def _sees(owner: Family, family: str) -> bool:
    return owner == family or (owner == "inet" and family in {"ip", "ip6", "netdev"})


def _is_at(chain: ForeignChain, hook: str, device: str) -> bool:
    where = chain.hook
    if where is None or where.hook != hook:
        return False
    return not device or any(_is_named(pattern, device) for pattern in where.devices)


def _is_named(pattern: str, device: str) -> bool:
    return device.startswith(pattern[:-1]) if pattern.endswith("*") else device == pattern
