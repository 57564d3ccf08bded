"""Evaluates chains of nftables: every statement of `kernel.nft`, as nf_tables_core.c does.

A statement that is not known here is an error and never a guess: a wrong explanation is worse than none. A load that
the packet cannot serve (ports of ARP, the direction of an untracked packet) ends its rule without a match (NFT_BREAK).
"""

import socket
from collections.abc import Callable
from typing import Any, NoReturn

from sealane.explain import headers
from sealane.explain.conntrack import Tracked, set_nat
from sealane.explain.packet import DNAT, SNAT, Packet
from sealane.explain.world import IncompleteStateError, Namespace
from sealane.kernel import nft, text_nft
from sealane.kernel.nft import (
    TYPE_BYTES,
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
    Load,
    Lookup,
    Masquerade,
    Meta,
    NftFamily,
    Notrack,
    Payload,
    Rule,
    Set,
    Snat,
    Verdict,
    VerdictMap,
)
from sealane.kernel.objects import Key
from sealane.model.net import bounds

JUMPS_MAX = 16
"""NFT_JUMP_STACK_SIZE."""

RTN_UNICAST = 1
IFNAMSIZ = 16

_ACCEPT, _DROP = nft.ACCEPT, nft.DROP


class UnknownStatementError(Exception):
    """A rule holds something that sealane does not emit: what it does cannot be said."""


class Hit:
    """A rule that decided something, with the element that it did so by."""

    def __init__(
        self, family: NftFamily, chain: Chain, rule: Rule, element: Element | None, outcome: str
    ) -> None:
        self.family, self.chain, self.rule, self.element, self.outcome = family, chain, rule, element, outcome

    @property
    def key(self) -> Key:
        return self.chain.key if self.element is None else self.element.key

    def text(self, where: Namespace) -> str:
        """The rule in nft's language, and the element."""
        statements = " ".join(text_nft.statement(self.family, item) for item in self.rule.statements)
        text = f"{self.family} {self.chain.name}: {statements}"
        if self.element is None:
            return text
        owner = where.state.get(("nft-set", self.family, self.element.set))
        return f"{text}   {{ {text_nft.element(self.element, owner if isinstance(owner, Set) else None)} }}"


class Evaluation:
    """One packet at one hook of one namespace."""

    def __init__(
        self, where: Namespace, family: NftFamily, packet: Packet, iif: str, oif: str, tracked: Tracked | None
    ) -> None:
        self.where, self.family, self.packet = where, family, packet
        self.iif, self.oif, self.tracked = iif, oif, tracked
        self.is_untracked = False
        """`notrack` was said, here or before."""
        self.hits: list[Hit] = []
        self._element: Element | None = None
        self._headers: dict[str, bytes] = {}

    def run(self, chain: Chain) -> Verdict:
        """`accept` or `drop` of a base chain."""
        returns: list[tuple[Chain, int]] = []
        place = 0
        while True:
            if place == len(chain.rules):
                if not returns:
                    return _ACCEPT
                chain, place = returns.pop()
                continue
            rule = chain.rules[place]
            place += 1
            verdict = self._rule(chain, rule)
            if verdict is None:
                continue
            match verdict.code:
                case "accept" | "drop":
                    return verdict
                case "return":
                    place = len(chain.rules)
                case "jump":
                    if len(returns) == JUMPS_MAX:
                        raise IncompleteStateError(f"{chain.name}: more than {JUMPS_MAX} jumps")
                    returns.append((chain, place))
                    chain, place = self._chain(verdict.chain), 0
                case "goto":
                    chain, place = self._chain(verdict.chain), 0

    def _chain(self, name: str) -> Chain:
        chain = self.where.state.get(("nft-chain", self.family, name))
        if not isinstance(chain, Chain):
            raise IncompleteStateError(
                f"{self.where.name}: no chain {self.family} {name} with its rules is known"
            )
        return chain

    def _rule(self, chain: Chain, rule: Rule) -> Verdict | None:
        """The verdict of a rule that matches and has one."""
        self._element = None
        for statement in rule.statements:
            handler = _STATEMENTS.get(type(statement))
            if handler is None:
                _unknown(statement)
            result = handler(self, statement)
            if result is False:
                return None
            if isinstance(result, Verdict):
                outcome = result.code if not result.chain else f"{result.code} {result.chain}"
                self.hits.append(Hit(self.family, chain, rule, self._element, outcome))
                return result
        if self._element is not None or Notrack() in rule.statements:
            self.hits.append(Hit(self.family, chain, rule, self._element, "continue"))
        return None

    # --- loads ------------------------------------------------------------------------------------------------------

    def read(self, load: Load) -> bytes | None:
        """The register's content; None if the kernel would break off."""
        reader = _LOADS.get(type(load))
        if reader is None:
            _unknown(load)
        return reader(self, load)

    def _meta(self, load: Meta) -> bytes | None:
        reader = _META.get(load.key)
        if reader is None:
            _unknown(load)
        return reader(self)

    def _group(self, link: str) -> bytes | None:
        """Without a link (the input one in postrouting) the kernel breaks off."""
        return nft.field("devgroup", self.where.group(link)) if link else None

    def _l4proto(self) -> bytes | None:
        return None if self.packet.proto == "arp" else bytes([headers.protocol_number(self.packet)])

    def _ct(self, load: Ct) -> bytes | None:
        value = self.ct(load)
        size = 1 if load.key == "direction" else 4
        return None if value is None else value.to_bytes(size, "little")

    def _fib(self, load: Fib) -> bytes:
        is_local = self.where.is_local(self.packet.source if load.of_source else self.packet.destination)
        return (nft.FIB_LOCAL if is_local else RTN_UNICAST).to_bytes(4, "little")

    def _payload(self, load: Payload) -> bytes | None:
        if load.base == "transport" and self.packet.proto == "arp":
            return None
        data = self._headers.get(load.base)
        if data is None:
            data = self._headers[load.base] = _HEADERS[load.base](self.packet)
        part = data[load.offset : load.offset + load.length]
        return part if len(part) == load.length else None

    def ct(self, load: Ct) -> int | None:
        """nft_ct_get_eval: only `state` has an answer for a packet that belongs to no flow."""
        if load.key == "state" and self.is_untracked:
            return nft.CT_STATE["untracked"]
        if load.key == "state" and self.tracked is None:
            return nft.CT_STATE["invalid"]
        reader = _CT.get(load.key)
        if reader is None:
            _unknown(load)
        return None if self.tracked is None else reader(self.tracked)

    def _concat(self, what: Concat) -> bytes | None:
        parts = []
        for load in what.loads:
            part = self.read(load)
            if part is None:
                return None
            parts.append(part + b"\0" * (-len(part) % 4))
        return b"".join(parts)

    # --- statements: False breaks the rule off, a verdict ends it, None goes on -------------------------------------

    def _cmp(self, what: Cmp) -> bool:
        value = self.read(what.load)
        return value is not None and (value[: len(what.value)] == what.value) == (what.op == "==")

    def _cmp_prefix(self, what: CmpPrefix) -> bool:
        value = self.read(what.load)
        if value is None:
            return False
        first, last = bounds(what.prefix)
        return (first <= int.from_bytes(value, "big") <= last) == (what.op == "==")

    def _cmp_range(self, what: CmpRange) -> bool:
        value = self.read(what.load)
        return value is not None and what.low <= value <= what.high

    def _bit_test(self, what: BitTest) -> bool:
        value = self.ct(what.load)
        return value is not None and bool(value & what.bits)

    def _find(self, load: Load, name: str) -> Element | bool | None:
        value = self.read(load)
        if value is None:
            return False
        return self.where.element(self.family, name, value)

    def _lookup(self, what: Lookup) -> bool:
        found = self._find(what.load, what.set)
        if found is False:
            return False
        if isinstance(found, Element):
            self._element = found
        return isinstance(found, Element) != what.negate

    def _verdict_map(self, what: VerdictMap) -> Verdict | bool:
        found = self._find(what.load, what.map)
        if not isinstance(found, Element):
            return False
        if not isinstance(found.data, Verdict):
            raise IncompleteStateError(f"map {what.map}: {found.key} has no verdict")
        self._element = found
        return found.data

    def _notrack(self, _: Notrack) -> None:
        # nft_notrack_eval leaves a packet that is tracked already as it is.
        if self.tracked is None:
            self.is_untracked = True

    def _dnat_map(self, what: DnatMap) -> Verdict | bool:
        found = self._find(what.load, what.map)
        if not isinstance(found, Element):
            return False
        self._element = found
        owner = self.where.state.get(("nft-set", self.family, what.map))
        if not isinstance(found.data, bytes) or not isinstance(owner, Set):
            raise IncompleteStateError(f"map {what.map}: {found.key} has no address")
        size = TYPE_BYTES[owner.data[0]]
        port = int.from_bytes(found.data[size : size + 2], "big") if what.with_port else 0
        return self._nat(DNAT, _address(found.data[:size]), port)

    def _snat(self, what: Snat) -> Verdict:
        return self._nat(SNAT, what.address)

    def _masquerade(self, _: Masquerade) -> Verdict:
        """nf_nat_masquerade_ipv4/6: the address of the link that it leaves by; without one the packet is dropped."""
        address = self.where.routing.source_on(self.oif, self.packet.family, self.packet.destination)
        return self._nat(SNAT, address) if address else _DROP

    def _nat(self, manip: int, address: str, port: int = 0) -> Verdict:
        # nft_nat_eval without a flow: nf_nat_setup_info would not have been reached, NAT chains see tracked packets only.
        if self.tracked is None:
            raise IncompleteStateError("a translation outside connection tracking")
        set_nat(self.tracked, manip, address, port)
        return _ACCEPT


def _verdict(_: Evaluation, what: Verdict) -> Verdict:
    return what


def _goes_on(_: Evaluation, __: Counter) -> None:
    return None


def _address(packed: bytes) -> str:
    return socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed)


def _unknown(what: object) -> NoReturn:
    raise UnknownStatementError(f"{type(what).__name__} is not a statement of sealane's: {what!r}")


_HEADERS: dict[str, Callable[[Packet], bytes]] = {
    "link": headers.link_header,
    "network": headers.network_header,
    "transport": headers.transport_header,
}

_META: dict[str, Callable[[Evaluation], bytes | None]] = {
    "iifname": lambda here: here.iif.encode().ljust(IFNAMSIZ, b"\0"),
    "oifname": lambda here: here.oif.encode().ljust(IFNAMSIZ, b"\0"),
    "iifgroup": lambda here: here._group(here.iif),
    "oifgroup": lambda here: here._group(here.oif),
    "l4proto": Evaluation._l4proto,
    "protocol": lambda here: headers.ethertype(here.packet).to_bytes(2, "big"),
}

_CT: dict[str, Callable[[Tracked], int]] = {
    "state": lambda tracked: tracked.state_bits,
    "status": lambda tracked: tracked.flow.status,
    "direction": lambda tracked: tracked.direction,
}

_LOADS: dict[type, Callable[[Evaluation, Any], bytes | None]] = {
    Meta: Evaluation._meta,
    Payload: Evaluation._payload,
    Ct: Evaluation._ct,
    Fib: Evaluation._fib,
    Concat: Evaluation._concat,
}

_STATEMENTS: dict[type, Callable[[Evaluation, Any], Verdict | bool | None]] = {
    Cmp: Evaluation._cmp,
    CmpPrefix: Evaluation._cmp_prefix,
    CmpRange: Evaluation._cmp_range,
    BitTest: Evaluation._bit_test,
    Lookup: Evaluation._lookup,
    VerdictMap: Evaluation._verdict_map,
    Verdict: _verdict,
    Counter: _goes_on,
    Notrack: Evaluation._notrack,
    DnatMap: Evaluation._dnat_map,
    Snat: Evaluation._snat,
    Masquerade: Evaluation._masquerade,
}
