"""Tables of nftables that are not ours, read whole: base chains, what they lead to, and the sets that their rules ask.

Expressions are decoded into `explain.foreign.rules` (include/uapi/linux/netfilter/nf_tables.h). What is not known becomes
`Opaque`, so that a newer kernel's rule is never taken for none. Past a bound a table's base chains are opaque.
"""

import errno
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal

import msgspec

from sealane.explain.foreign.judge import ONLY_NAT
from sealane.explain.foreign.rules import (
    NOTHING,
    Between,
    Compare,
    Constant,
    Decide,
    Family,
    ForeignChain,
    ForeignElement,
    ForeignHook,
    ForeignRule,
    ForeignRules,
    ForeignSet,
    ForeignTable,
    Load,
    Lookup,
    Mask,
    Maybe,
    Opaque,
    Operation,
    SetMark,
    Swap,
    Translate,
)
from sealane.kernel.nft import TABLE
from sealane.linux.foreign_xt import match, target
from sealane.linux.legacy_tables import legacy_tables
from sealane.linux.marks import TRACE_TABLES
from sealane.linux.netlink import codec, nfnl
from sealane.linux.netlink.socket import NetlinkError, Socket
from sealane.linux.nft_observe import generation

RULES_MAX = 20_000
ELEMENTS_MAX = 50_000
"""Of one table."""

READ_ATTEMPTS = 3

_FAMILIES: dict[int, Family] = {1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}
_OURS = frozenset({"ip", "ip6", "bridge"})
_HOOKS = ("prerouting", "input", "forward", "output", "postrouting", "ingress")
_NETDEV_HOOKS = ("ingress", "egress")
_ARP_HOOKS = ("input", "output", "forward")
_EMPTY = memoryview(b"")

_DYNAMIC_SETS = 0x10 | 0x20
"""NFT_SET_TIMEOUT, NFT_SET_EVAL: packets, or time, change what is in them."""

_OPS: tuple[Literal["==", "!=", "<", "<=", ">", ">="], ...] = ("==", "!=", "<", "<=", ">", ">=")
_VERDICTS: Mapping[int, Literal["continue", "break", "jump", "goto", "return", "drop", "accept"]] = {
    0xFFFFFFFF: "continue",
    0xFFFFFFFE: "break",
    0xFFFFFFFD: "jump",
    0xFFFFFFFC: "goto",
    0xFFFFFFFB: "return",
    0: "drop",
    1: "accept",
}
_DEVICE_PREFIX = 2
_META_MARK = 3
_CT_STATUS = 2
_FIB_TYPE, _FIB_DADDR = 3, 2
_DNAT = 1
_NAT_BITS = 0x30

Attrs = dict[int, memoryview]


def foreign_rules(socket: Socket, indexes: Mapping[str, int]) -> ForeignRules:
    """Of the namespace of `socket` and of this thread: nftables' tables and iptables-legacy's. `indexes` of its links.
    Raises OSError."""
    if not _has_tables(socket):
        return ForeignRules(tuple(legacy_tables()), indexes)
    for _ in range(READ_ATTEMPTS):
        try:
            return ForeignRules((*_tables(socket), *legacy_tables()), indexes)
        except NetlinkError as error:
            if error.errno != errno.ENOENT:  # What one dump named was gone at the next.
                raise
    raise NetlinkError(errno.EAGAIN, "nftables' tables changed during each reading")


class TranslatingRules:
    """The tables of one namespace that may translate, read anew only after a transaction in it: a host may have ten thousand
    services, and a question takes less than their reading."""

    def __init__(self) -> None:
        self._tables: tuple[ForeignTable, ...] = ()
        self._generation = b""

    def read(self, socket: Socket, indexes: Mapping[str, int]) -> ForeignRules:
        """As `foreign_rules`, without the chains that only filter."""
        now = generation(socket) if _has_tables(socket) else b""
        if not now or now != self._generation:
            found = foreign_rules(socket, indexes).translating().tables
            self._tables = tuple(table for table in found if not table.is_legacy)
            self._generation = now
        legacy = ForeignRules(tuple(legacy_tables())).translating().tables
        return ForeignRules((*self._tables, *legacy), indexes)


def _has_tables(socket: Socket) -> bool:
    """Whether the kernel has nf_tables: a question that asks for nothing is refused without."""
    try:
        generation(socket)
    except NetlinkError as error:
        if error.errno in {errno.EINVAL, errno.EOPNOTSUPP}:
            return False
        raise
    return True


def _tables(socket: Socket) -> Iterator[ForeignTable]:
    chains: dict[tuple[int, str], list[Attrs]] = {}
    for number, chain in _dump(socket, nfnl.GETCHAIN):
        name = codec.text(chain[1])
        is_ours = name == TABLE and _FAMILIES.get(number) in _OURS
        if not is_ours and not name.startswith(TRACE_TABLES):
            chains.setdefault((number, name), []).append(chain)
    asleep = {
        (number, codec.text(table[1]))
        for number, table in (_dump(socket, nfnl.GETTABLE) if chains else ())
        if nfnl.number(table.get(2)) & 1
    }
    for (number, name), found in chains.items():
        if number in _FAMILIES and (number, name) not in asleep and any(4 in chain for chain in found):
            yield _Table(socket, number, name).read(found)


class _Table:
    def __init__(self, socket: Socket, number: int, name: str) -> None:
        self._socket, self._number, self._name = socket, number, name
        self._family = _FAMILIES[number]

    def read(self, chains: Sequence[Attrs]) -> ForeignTable:
        rules: dict[str, list[ForeignRule]] = {}
        count = 0
        for _, attrs in _dump(self._socket, nfnl.GETRULE, self._number, codec.string(1, self._name)):
            count += 1
            if count <= RULES_MAX:
                rules.setdefault(codec.text(attrs[2]), []).append(self._rule(attrs))
        decoded = {codec.text(chain[3]): self._chain(chain, rules) for chain in chains}
        if count > RULES_MAX:
            too_many = (ForeignRule((Opaque(f"{count} rules"),)),)
            decoded = {
                name: msgspec.structs.replace(chain, rules=too_many) for name, chain in decoded.items()
            }
        desired = {
            operation.set
            for chain in decoded.values()
            for rule in chain.rules
            for operation in rule.operations
            if isinstance(operation, Lookup)
        }
        return ForeignTable(
            family=self._family, name=self._name, chains=decoded, sets=self._sets(desired) if desired else {}
        )

    def _chain(self, attrs: Attrs, rules: Mapping[str, list[ForeignRule]]) -> ForeignChain:
        name = codec.text(attrs[3])
        return ForeignChain(
            name=name,
            rules=tuple(rules.get(name, ())),
            hook=self._hook(attrs) if 4 in attrs else None,
            policy="drop" if 5 in attrs and nfnl.number(attrs[5]) != nfnl.POLICY_ACCEPT else "accept",
        )

    def _hook(self, attrs: Attrs) -> ForeignHook:
        where = codec.attrs(attrs[4])
        number = nfnl.number(where[1])
        hooks = {"netdev": _NETDEV_HOOKS, "arp": _ARP_HOOKS}.get(self._family, _HOOKS)
        devices = [codec.text(where[3])] if 3 in where else []
        devices += [
            codec.text(name) + ("*" if kind == _DEVICE_PREFIX else "")
            for kind, name in codec.attr_list(where.get(4, _EMPTY))
        ]
        return ForeignHook(
            type=codec.text(attrs.get(7, _EMPTY)),
            hook=hooks[number] if number < len(hooks) else str(number),
            priority=int.from_bytes(where[2], "big", signed=True),
            devices=tuple(dict.fromkeys(devices)),
        )

    def _rule(self, attrs: Attrs) -> ForeignRule:
        operations: list[Operation] = []
        for _, payload in codec.attr_list(attrs.get(4, _EMPTY)):
            expression = codec.attrs(payload)
            name = codec.text(expression.get(1, _EMPTY))
            operations.append(_operation(name, codec.attrs(expression.get(2, _EMPTY))))
        return ForeignRule(
            tuple(_masked(operations)),
            nfnl.number(attrs.get(3)),
            nfnl.comment_of(attrs.get(7)),
        )

    def _sets(self, desired: set[str]) -> dict[str, ForeignSet]:
        found = {}
        left = ELEMENTS_MAX
        for _, attrs in _dump(self._socket, nfnl.GETSET, self._number, codec.string(1, self._name)):
            name = codec.text(attrs[2])
            if name in desired:
                found[name] = self._set(name, attrs, left)
                left -= len(found[name].exact) + len(found[name].ranges)
        return found

    def _set(self, name: str, attrs: Attrs, most: int) -> ForeignSet:
        flags, size = nfnl.number(attrs.get(3)), nfnl.number(attrs[5])
        bare = ForeignSet(name=name, size=size, is_known=False)
        if flags & _DYNAMIC_SETS:
            return bare
        of = codec.string(1, self._name) + codec.string(2, name)
        elements: list[Attrs] = []
        for _, answer in _dump(self._socket, nfnl.GETSETELEM, self._number, of):
            elements += [codec.attrs(item) for _, item in codec.attr_list(answer.get(3, _EMPTY))]
            if len(elements) > most:
                return bare
        if any(element.keys() & {4, 5} for element in elements):  # They end by time.
            return bare
        is_edges = bool(flags & nfnl.SET_INTERVAL) and not any(10 in element for element in elements)
        catchall = [e for e in elements if nfnl.number(e.get(3)) & nfnl.ELEM_CATCHALL]
        rest = [e for e in elements if not nfnl.number(e.get(3)) & nfnl.ELEM_CATCHALL]
        items = _ranges(rest) if is_edges else [_element(e) for e in rest]
        return ForeignSet(
            name=name,
            size=size,
            exact={item.low: item for item in items if item.low == item.high},
            ranges=tuple(item for item in items if item.low != item.high),
            fields=_fields(attrs),
            catchall=_element(catchall[0]) if catchall else None,
        )


def _fields(attrs: Attrs) -> tuple[int, ...]:
    """Bytes of each field of a concatenation (NFTA_SET_DESC_CONCAT)."""
    description = codec.attrs(attrs.get(9, _EMPTY))
    return tuple(
        nfnl.number(codec.attrs(field).get(1)) for _, field in codec.attr_list(description.get(2, _EMPTY))
    )


def _element(attrs: Attrs) -> ForeignElement:
    low = bytes(codec.attrs(attrs[1]).get(1, _EMPTY)) if 1 in attrs else b""
    high = bytes(codec.attrs(attrs[10]).get(1, _EMPTY)) if 10 in attrs else low
    return ForeignElement(low, high, _data(attrs.get(2)))


def _data(payload: memoryview | None) -> bytes | Decide:
    found = codec.attrs(payload) if payload is not None else {}
    if 2 in found:
        return _verdict(codec.attrs(found[2]))
    return bytes(found.get(1, _EMPTY))


def _ranges(elements: Sequence[Attrs]) -> list[ForeignElement]:
    """An interval set of one field is told by its edges: where a range begins, and what follows its last value."""
    edges = sorted(
        ((_element(e), not nfnl.number(e.get(3)) & nfnl.ELEM_INTERVAL_END) for e in elements),
        key=lambda edge: (edge[0].low, edge[1]),
    )
    found = []
    for index, (element, is_start) in enumerate(edges):
        if is_start:
            size = len(element.low)
            beyond = edges[index + 1][0].low if index + 1 < len(edges) else bytes(size)
            last = (int.from_bytes(beyond, "big") - 1) % (1 << 8 * size)
            found.append(ForeignElement(element.low, last.to_bytes(size, "big"), element.data))
    return found


# --- expressions ----------------------------------------------------------------------------------------------------


def _operation(name: str, data: Attrs) -> Operation:
    if name in _HARMLESS:
        return NOTHING
    if name in _CONDITIONS:
        return Maybe(name)
    decode = _DECODERS.get(name)
    try:
        found = decode(data) if decode is not None else None
    except (KeyError, IndexError, ValueError):
        found = None
    return found if found is not None else Opaque(name)


def _register(payload: memoryview) -> int:
    """Its place in the file of registers, in bytes: 1 to 4 are of 16 bytes, from 8 on of 4."""
    number = nfnl.number(payload)
    return (number - 8) * 4 if number >= 8 else (number - 1) * 16


def _value(payload: memoryview) -> bytes:
    return bytes(codec.attrs(payload)[1])


def _verdict(found: Attrs) -> Decide:
    chain = codec.text(found[2]) if 2 in found else ""
    return Decide(_VERDICTS[nfnl.number(found[1])], chain)


def _immediate(data: Attrs) -> Operation:
    value = codec.attrs(data[2])
    return _verdict(codec.attrs(value[2])) if 2 in value else Constant(_register(data[1]), bytes(value[1]))


def _meta(data: Attrs) -> Operation | None:
    key = nfnl.number(data[2])
    if 3 in data:
        if key != _META_MARK:
            # Priority, trace, class: nothing that a path depends on. A packet's type decides who takes it.
            return None if key == _META_PKTTYPE else NOTHING
        return SetMark(source=_register(data[3]))
    size = {6: 16, 7: 16, 17: 16, 18: 16, 1: 2, 9: 2, 8: 2, 15: 1, 16: 1, 19: 1}.get(key, 4)
    return Load(_register(data[1]), size, "mark" if key == _META_MARK else "meta", (key,))


def _payload(data: Attrs) -> Operation | None:
    if 1 not in data:
        return None  # It writes.
    where = (nfnl.number(data[2]), nfnl.number(data[3]), nfnl.number(data[4]))
    return Load(_register(data[1]), where[2], "payload", where)


def _ct(data: Attrs) -> Operation | None:
    if 1 not in data:
        # Its mark, label or event mask; a zone or a helper changes what becomes of it.
        return NOTHING if nfnl.number(data[2]) in _CT_NOTES else None
    key = nfnl.number(data[2])
    return Load(_register(data[1]), 16 if key in {8, 9} else 4 if key != 1 else 1, "ct", (key,))


def _fib(data: Attrs) -> Operation:
    is_type = (nfnl.number(data[2]), nfnl.number(data[3])) == (_FIB_TYPE, _FIB_DADDR)
    return Load(_register(data[1]), 4, "fib" if is_type else "?")


def _bitwise(data: Attrs) -> Operation:
    if nfnl.number(data.get(6)) != 0:
        return Load(_register(data[2]), nfnl.number(data[3]))
    return Mask(_register(data[1]), _register(data[2]), _value(data[4]), _value(data[5]))


def _byteorder(data: Attrs) -> Operation:
    return Swap(_register(data[1]), _register(data[2]), nfnl.number(data[4]), nfnl.number(data[5]))


def _cmp(data: Attrs) -> Operation:
    return Compare(_register(data[1]), _OPS[nfnl.number(data[2])], _value(data[3]))


def _range(data: Attrs) -> Operation:
    return Between(_register(data[1]), _value(data[3]), _value(data[4]), nfnl.number(data[2]) == 1)


def _lookup(data: Attrs) -> Operation:
    register = None
    if 3 in data:
        register = 0 if nfnl.number(data[3]) == 0 else _register(data[3])
    return Lookup(codec.text(data[1]), _register(data[2]), register, bool(nfnl.number(data.get(5)) & 1))


def _nat(data: Attrs) -> Operation:
    return Translate(
        "destination" if nfnl.number(data[1]) == _DNAT else "source",
        _register(data[3]) if 3 in data else "",
        _register(data[5]) if 5 in data else "",
        16 if nfnl.number(data[2]) == 10 else 4,
    )


def _redirect(data: Attrs) -> Operation:
    return Translate("destination", "", _register(data[1]) if 1 in data else "")


def _unknown_load(place: int, size: int = 4) -> Callable[[Attrs], Operation]:
    return lambda data: Load(_register(data[place]), size)


def _object(data: Attrs) -> Operation | None:
    """A reference to a stateful object: a counter counts, a quota or a limit may end the rule."""
    kind = nfnl.number(data.get(1))
    return NOTHING if kind == 1 else Maybe("object") if kind in {2, 4, 5} else None


_META_PKTTYPE = 19
_CT_NOTES = frozenset({3, 4, 13, 18})
"""NFT_CT_MARK, SECMARK, LABELS, EVENTMASK."""
_HARMLESS = frozenset({"counter", "log", "last"})
_CONDITIONS = frozenset({"limit", "quota", "connlimit", "dynset"})
_DECODERS: Mapping[str, Callable[[Attrs], Operation | None]] = {
    "immediate": _immediate,
    "meta": _meta,
    "payload": _payload,
    "ct": _ct,
    "fib": _fib,
    "bitwise": _bitwise,
    "byteorder": _byteorder,
    "cmp": _cmp,
    "range": _range,
    "lookup": _lookup,
    "nat": _nat,
    "redir": _redirect,
    "masq": lambda _: Translate("source"),
    "tproxy": lambda _: Translate("socket"),
    "reject": lambda _: Decide("reject"),
    "numgen": _unknown_load(1),
    "hash": _unknown_load(2),
    "rt": _unknown_load(1, 16),
    "socket": _unknown_load(2, 16),
    "osf": _unknown_load(1, 16),
    "exthdr": lambda data: Load(_register(data[1]), nfnl.number(data[4])) if 1 in data else None,
    "objref": _object,
    "match": lambda data: match(codec.text(data[1]), nfnl.number(data[2]), bytes(data.get(3, _EMPTY))),
    "target": lambda data: target(codec.text(data[1]), nfnl.number(data[2]), bytes(data.get(3, _EMPTY))),
}


def _masked(operations: Sequence[Operation]) -> Iterator[Operation]:
    """`ct status` of which a mask leaves the translations alone: those are known."""
    for index, operation in enumerate(operations):
        after = operations[index + 1] if index + 1 < len(operations) else None
        if (
            isinstance(operation, Load)
            and (operation.kind, operation.of) == ("ct", (_CT_STATUS,))
            and isinstance(after, Mask)
            and not int.from_bytes(after.mask, "little") & ~_NAT_BITS
        ):
            yield msgspec.structs.replace(operation, of=(_CT_STATUS, ONLY_NAT))
        elif operation != NOTHING:
            yield operation


def _dump(socket: Socket, kind: int, family: int = 0, attrs: bytes = b"") -> Iterator[tuple[int, Attrs]]:
    """Family 0: all. Each answer's family and attributes."""
    for _, payload in socket.dump(nfnl.dump_every(kind, family, attrs)):
        yield payload[0], codec.attrs(payload[nfnl.HEADER_BYTES :])
