"""What a foreign base chain may do to a packet: every way through its rules, where a condition cannot be told both ways.

The answer is sound: what is not known counts as possible, so a chain is harmless only if each way through it is. The
kernel's side is nft_do_chain (net/netfilter/nf_tables_core.c); a state that was visited is not visited again, and the
number of rules tried has a bound.
"""

import socket
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

from sealane.explain.foreign.rules import (
    REGISTER_BYTES,
    Between,
    Bits,
    Compare,
    Constant,
    Decide,
    ForeignChain,
    ForeignElement,
    ForeignRule,
    ForeignSet,
    ForeignTable,
    Load,
    LocalDestination,
    Lookup,
    Mark,
    Mask,
    Opaque,
    Operation,
    Ports,
    SetMark,
    States,
    Swap,
    Translate,
)

RULES_TRIED_MAX = 50_000
Reader = Callable[[Load], Bits | None]
"""What the packet has for a load: bytes, each known or not, as many as there are; None: the kernel ends the rule."""

_UNKNOWN: Bits = (None,) * REGISTER_BYTES


class Sight(NamedTuple):
    """What a packet shows to rules."""

    load: Reader
    mark: int | None
    """None: not known."""


class Finding(NamedTuple):
    """Where something was decided."""

    where: str
    """`rule 4 (no web) of ip table fw, chain f`."""
    listing: str
    """A command that shows it."""
    what: str = ""
    """The address translated to, or the name of what could not be read."""


class Judgement:
    """All that may happen in one base chain."""

    def __init__(self) -> None:
        self.accepts = False
        self.drops: dict[Finding, None] = {}
        self.translations: dict[Finding, None] = {}
        self.is_of_source = True
        """Each translation, if there are any, is one of the source."""
        self.opaque: dict[Finding, None] = {}
        self.marks: set[int | None] = set()

    @property
    def is_certain_drop(self) -> bool:
        return bool(self.drops) and not (self.accepts or self.opaque or self.translations)

    @property
    def doubts(self) -> list[Finding]:
        """What may stop the packet, or change it in a way that is not known."""
        return [*self.opaque, *(self.drops if not self.is_certain_drop else ())]


class _Place(NamedTuple):
    chain: str
    rule: int
    returns: tuple[tuple[str, int], ...]
    mark: int | None


class _Way(NamedTuple):
    """A rule half executed."""

    at: int
    registers: Bits
    mark: int | None


class _End(NamedTuple):
    """How a rule ended; None: without a verdict."""

    verdict: Decide | None
    mark: int | None


def judge(table: ForeignTable, base: ForeignChain, sight: Sight) -> Judgement:
    return _Judge(table, sight).run(base)


class _Judge:
    def __init__(self, table: ForeignTable, sight: Sight) -> None:
        self._table, self._sight = table, sight
        self._found = Judgement()
        self._chain, self._rule = "", ForeignRule(())

    def run(self, base: ForeignChain) -> Judgement:
        waiting = [_Place(base.name, 0, (), self._sight.mark)]
        seen = set(waiting)
        tried = 0
        while waiting:
            place = waiting.pop()
            tried += 1
            if tried > RULES_TRIED_MAX:
                self._found.opaque[self._finding("more ways through it than can be tried")] = None
                break
            for following in self._step(base, place):
                if following not in seen:
                    seen.add(following)
                    waiting.append(following)
        return self._found

    def _step(self, base: ForeignChain, place: _Place) -> Iterator[_Place]:
        chain = self._table.chains.get(place.chain)
        if chain is None or place.rule >= len(chain.rules):
            if place.returns:
                name, rule = place.returns[-1]
                yield _Place(name, rule, place.returns[:-1], place.mark)
            else:
                self._policy(base, place.mark)
            return
        self._chain, self._rule = chain.name, chain.rules[place.rule]
        after = place.rule + 1
        for verdict, mark in self._ends(self._rule, place.mark):
            match verdict.verdict if verdict else "continue":
                case "continue" | "break":
                    yield _Place(chain.name, after, place.returns, mark)
                case "accept":
                    self._accept(mark)
                case "drop" | "reject":
                    self._found.drops[self._finding()] = None
                case "jump" if verdict:
                    yield _Place(verdict.chain, 0, (*place.returns, (chain.name, after)), mark)
                case "goto" if verdict:
                    yield _Place(verdict.chain, 0, place.returns, mark)
                case _:
                    yield _Place(chain.name, len(chain.rules), place.returns, mark)

    def _policy(self, base: ForeignChain, mark: int | None) -> None:
        if base.policy == "accept":
            self._accept(mark)
        else:
            self._chain, self._rule = base.name, ForeignRule((), 0)
            self._found.drops[self._finding()] = None

    def _accept(self, mark: int | None) -> None:
        self._found.accepts = True
        self._found.marks.add(mark)

    def _finding(self, what: str = "") -> Finding:
        table, rule = self._table, self._rule
        which = f"rule {rule.handle}" if rule.handle else "the policy"
        said = f" ({rule.comment})" if rule.comment else ""
        if table.is_legacy:
            return Finding(
                str(table), f"{_SAVE.get(table.family, 'iptables')}-legacy-save -t {table.name}", what
            )
        where = f"{which}{said} of {table}, chain {self._chain}"
        return Finding(where, f"nft -a list chain {table.family} {table.name} {self._chain}", what)

    # --- one rule ---------------------------------------------------------------------------------------------------

    def _ends(self, rule: ForeignRule, mark: int | None) -> set[_End]:
        ends: set[_End] = set()
        ways = [_Way(0, _UNKNOWN, mark)]
        while ways:
            way = ways.pop()
            if way.at == len(rule.operations):
                ends.add(_End(None, way.mark))
                continue
            operation = rule.operations[way.at]
            for outcome in self._perform(operation, way):
                if isinstance(outcome, _Way):
                    ways.append(outcome._replace(at=way.at + 1))
                elif isinstance(outcome, Decide):
                    ends.add(_End(outcome, way.mark))
                elif outcome is not None:
                    ends.add(outcome)
        return ends

    def _perform(self, operation: Operation, way: _Way) -> "Iterator[_Way | Decide | _End | None]":
        """Ways to go on, or the rule's end; None: what was decided is written down already."""
        match operation:
            case Load():
                found = self._load(operation, way)
                if found is None:
                    yield _End(None, way.mark)
                else:
                    yield way._replace(registers=_put(way.registers, operation.register, found))
            case Constant():
                yield way._replace(registers=_put(way.registers, operation.register, tuple(operation.value)))
            case Mask() | Swap():
                yield way._replace(registers=_change(way.registers, operation))
            case Lookup():
                yield from self._lookup(operation, way)
            case SetMark():
                yield way._replace(mark=_marked(operation, way))
            case Decide():
                yield operation
            case Translate():
                self._found.translations[self._finding(_target(operation, way.registers))] = None
                self._found.is_of_source &= operation.kind == "source"
                yield None
            case Opaque():
                self._found.opaque[self._finding(operation.name)] = None
                yield None
            case _:
                holds = self._holds(operation, way)
                if holds is not False:
                    yield way
                if holds is not True:
                    yield _End(None, way.mark)

    def _load(self, load: Load, way: _Way) -> Bits | None:
        if load.kind == "mark":
            return (None,) * 4 if way.mark is None else tuple(way.mark.to_bytes(4, "little"))
        found = self._sight.load(load)
        return None if found is None else (*found[: load.size], *(None,) * (load.size - len(found)))

    def _known(self, load: Load) -> Bits:
        return self._sight.load(load) or ()

    def _holds(self, operation: Operation, way: _Way) -> bool | None:
        match operation:
            case Compare():
                return _compare(operation, way.registers)
            case Between():
                found = _between(_get(way.registers, operation.source, len(operation.low)), operation)
                return found if found is None else found is not operation.negate
            case Ports():
                return self._ports(operation)
            case LocalDestination():
                found = _equals(self._known(Load(0, 4, "fib", ())), _RTN_LOCAL)
                return found if found is None else found is not operation.negate
            case States():
                return self._states(operation)
            case Mark():
                if way.mark is None:
                    return None
                return (way.mark & operation.mask == operation.mark) is not operation.negate
            case _:
                return None

    def _ports(self, match: Ports) -> bool | None:
        proto = _number(self._known(Load(0, 1, "meta", (_META_L4PROTO,))))
        if proto is not None and proto != match.proto:
            return False
        ports = [_number(self._known(Load(0, 2, "payload", (2, offset, 2)))) for offset in (0, 2)]
        answers = [
            _in_ranges(ports[0], match.source, match.negate_source),
            _in_ranges(ports[1], match.destination, match.negate_destination),
        ]
        if match.either:
            sides = [_in_ranges(port, match.either, False) for port in ports]
            answers.append(True if True in sides else None if None in sides else False)
        if proto is None:
            answers.append(None)
        return False if False in answers else None if None in answers else True

    def _states(self, match: States) -> bool | None:
        state = _number(self._known(Load(0, 4, "ct", (_CT_STATE,))), "little")
        status = (
            _number(self._known(Load(0, 4, "ct", (_CT_STATUS, ONLY_NAT))), "little") if match.statuses else 0
        )
        if state is None or status is None:
            return None
        return bool(state & match.states or status & match.statuses) is not match.negate

    # --- sets -------------------------------------------------------------------------------------------------------

    def _lookup(self, lookup: Lookup, way: _Way) -> "Iterator[_Way | Decide | _End | None]":
        owner = self._table.sets.get(lookup.set)
        if owner is None:
            self._found.opaque[self._finding(f"set {lookup.set}")] = None
            return
        hits, may_miss = _find(owner, way.registers, lookup.source)
        if lookup.register is None:
            if may_miss if lookup.negate else hits:
                yield way
            if hits if lookup.negate else may_miss:
                yield _End(None, way.mark)
            return
        if may_miss:
            yield _End(None, way.mark)
        for hit in hits:
            if isinstance(hit.data, Decide):
                yield hit.data
            else:
                yield way._replace(registers=_put(way.registers, lookup.register, tuple(hit.data)))
        if not owner.is_known:
            # Any value, any verdict.
            self._found.opaque[self._finding(f"map {lookup.set}")] = None


def _find(owner: ForeignSet, registers: Bits, source: int) -> tuple[list[ForeignElement], bool]:
    """Elements that may be found, and whether it may be none."""
    value = _get(registers, source, owner.size)
    if not owner.is_known:
        # Something may be in it by now that was not read, or what was read may have gone.
        return [*owner.exact.values(), *owner.ranges] or [ForeignElement(b"", b"")], True
    if None not in value:
        exact = owner.exact.get(bytes(octet or 0 for octet in value))
        if exact is not None:
            return [exact], False
    hits = (
        [] if None not in value else [e for e in owner.exact.values() if _equals(value, e.low) is not False]
    )
    for element in owner.ranges:
        found = _element(owner, element, value)
        if found:
            return [*hits, element], False
        if found is None:
            hits.append(element)
    return ([*hits, owner.catchall], False) if owner.catchall is not None else (hits, True)


def _element(owner: ForeignSet, element: ForeignElement, value: Bits) -> bool | None:
    answers: list[bool | None] = []
    offset = 0
    for size in owner.fields or (owner.size,):
        part = slice(offset, offset + size)
        answers.append(_in_order(value[part], element.low[part], element.high[part]))
        offset += size + 3 & ~3
    return False if False in answers else None if None in answers else True


# --- values that may not be known -----------------------------------------------------------------------------------


def _get(registers: Bits, offset: int, size: int) -> Bits:
    return registers[offset : offset + size]


def _put(registers: Bits, offset: int, value: Bits) -> Bits:
    """Loads fill whole words of four bytes with zeros."""
    padded = (*value, *(0,) * (-len(value) % 4))
    return (*registers[:offset], *padded, *registers[offset + len(padded) :])[:REGISTER_BYTES]


def _change(registers: Bits, operation: Mask | Swap) -> Bits:
    if isinstance(operation, Swap):
        value = _get(registers, operation.source, operation.size)
        step = operation.group
        swapped = [octet for at in range(0, len(value), step) for octet in reversed(value[at : at + step])]
        return _put(registers, operation.register, tuple(swapped))
    value = _get(registers, operation.source, len(operation.mask))
    result = tuple(
        x if not m else None if v is None else v & m ^ x
        for v, m, x in zip(value, operation.mask, operation.xor, strict=True)
    )
    return _put(registers, operation.register, result)


def _marked(operation: SetMark, way: _Way) -> int | None:
    if operation.source is not None:
        return _number(_get(way.registers, operation.source, 4), "little")
    if operation.mask == 0xFFFF_FFFF:
        return operation.value
    return None if way.mark is None else way.mark & ~operation.mask ^ operation.value


def _number(value: Bits, order: Literal["big", "little"] = "big") -> int | None:
    if not value or None in value:
        return None
    return int.from_bytes(bytes(octet or 0 for octet in value), order)


def _compare(operation: Compare, registers: Bits) -> bool | None:
    value = _get(registers, operation.source, len(operation.value))
    if operation.op in {"==", "!="}:
        same = _equals(value, operation.value)
        return same if same is None else same is (operation.op == "==")
    found = _number(value)
    if found is None:
        return None
    bound = int.from_bytes(operation.value, "big")
    return {"<": found < bound, "<=": found <= bound, ">": found > bound, ">=": found >= bound}[operation.op]


def _equals(value: Bits, desired: bytes) -> bool | None:
    pairs = list(zip(value, desired, strict=False))
    if any(octet is not None and octet != other for octet, other in pairs):
        return False
    return None if len(pairs) < len(desired) or any(octet is None for octet, _ in pairs) else True


def _between(value: Bits, operation: Between) -> bool | None:
    return _in_order(value, operation.low, operation.high)


def _in_order(value: Bits, low: bytes, high: bytes) -> bool | None:
    if low == high:
        return _equals(value, low)
    if None not in value:
        found = bytes(octet or 0 for octet in value)
        return low <= found <= high
    # The first bytes may decide, as long as they are known.
    known = value[: value.index(None)]
    first = bytes(octet or 0 for octet in known)
    if not low[: len(first)] <= first <= high[: len(first)]:
        return False
    is_any = not any(low) and all(octet == 0xFF for octet in high)
    return True if is_any else None


def _in_ranges(port: int | None, ranges: tuple[tuple[int, int], ...], negate: bool) -> bool | None:
    if not ranges:
        return True
    if port is None:
        return True if any(r == (0, 0xFFFF) for r in ranges) and not negate else None
    return any(first <= port <= last for first, last in ranges) is not negate


def _target(operation: Translate, registers: Bits) -> str:
    """`10.1.0.2:80`; empty if it is not known."""
    address, port = operation.address, operation.port
    if isinstance(address, int):
        value = _get(registers, address, operation.width)
        family = socket.AF_INET if operation.width == 4 else socket.AF_INET6
        address = "" if None in value else socket.inet_ntop(family, bytes(octet or 0 for octet in value))
    if isinstance(port, int):
        number = _number(_get(registers, port, 2))
        port = "" if number is None else str(number)
    shown = f"[{address}]" if ":" in address and port else address
    return f"{shown}:{port}" if port else shown


_META_L4PROTO = 16
_CT_STATE, _CT_STATUS = 0, 2
ONLY_NAT = 1
"""Behind the key of `ct status`: other bits are masked out."""
_RTN_LOCAL = (2).to_bytes(4, "little")
_SAVE = {"ip": "iptables", "ip6": "ip6tables"}
