"""nftables' own trace of packets, in one namespace: which rule decided what (NFNLGRP_NFTRACE).

A rule of ours marks the packets (`meta nftrace set 1`), in a table that the kernel takes away with the socket that made
it (NFT_TABLE_F_OWNER, 5.12), so that nothing stays on however we end. The mark stays on a packet until it leaves the
namespace: one rule where packets come in, one where they are sent.

The kernel shows a packet's headers once for each base chain, with the first rule; the id of the later messages is the
same, though packets of one flow share it: it is good for what comes right behind, and for nothing else.
(net/netfilter/nf_tables_trace.c; include/uapi/linux/netfilter/nf_tables.h)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from sealane.explain.traced.event import Headers, Pattern, RuleTraceEvent, parse_headers
from sealane.kernel.nft import (
    DPORT,
    IP6_DADDR,
    IP6_SADDR,
    IP_DADDR,
    IP_SADDR,
    L4PROTO,
    SPORT,
    Cmp,
    CmpPrefix,
    Meta,
    NftFamily,
    Rule,
)
from sealane.linux.closeable import Closeable
from sealane.linux.marks import TRACE_TABLES
from sealane.linux.netlink import codec, nfnl
from sealane.linux.netlink.codec import be32, nested, string
from sealane.linux.netlink.nft_expr import expressions, mark_for_tracing
from sealane.linux.netlink.socket import NETLINK_NETFILTER, LostEventsError, Socket
from sealane.linux.netns import inside

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

TABLE: Final = TRACE_TABLES
"""And the port of the socket that owns it: traces do not share a table, since the kernel lets nobody but its owner in."""

PRIORITY: Final = -500
"""Before everything else, ours and anybody's."""

TRACE_GROUP: Final = 9
"""NFNLGRP_NFTRACE."""

KEPT_MAX: Final = 1024
"""Packets whose headers are kept for the rules to come."""

COMMENTS_MAX: Final = 4096
"""Rules whose comments are kept."""

_TRACE: Final = nfnl.SUBSYSTEM | 17
_OWNER: Final = 2
"""NFT_TABLE_F_OWNER."""

_POLICY, _RULE = 1, 3
_VERDICTS: Final = {
    0: "drop",
    1: "accept",
    2: "stolen",
    3: "queue",
    -1: "continue",
    -2: "break",
    -5: "return",
}
_JUMPS: Final = {-3: "jump", -4: "goto"}
_FAMILIES: Final = {1: "inet", 2: "ip", 5: "netdev", 7: "bridge", 10: "ip6"}
_FAMILY_NUMBERS: Final = {name: number for number, name in _FAMILIES.items()}
_PROTOCOL: Final = {4: bytes.fromhex("0800"), 6: bytes.fromhex("86dd")}


_Where = tuple[str, str, str, int]
"""Family, table, chain and handle of a rule."""


class _First(NamedTuple):
    """What the kernel tells with a chain's first rule only."""

    headers: Headers
    iif: int
    oif: int


class RuleTrace(Closeable):
    """Marks packets that fit `patterns`, and tells what became of them in this namespace. Raises OSError."""

    def __init__(self, netns: int, descriptor: int | None, patterns: Sequence[Pattern]) -> None:
        """`netns` is the namespace's inode, `descriptor` one of it; None: the one we are in."""
        self._netns = netns
        self._owner, self._events = _sockets(descriptor)
        self._first: dict[int, _First] = {}
        self._comments: dict[_Where, str] = {}
        self.lost = 0
        """How often rules were missed."""
        try:
            self._mark(patterns)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._owner.close()
        self._events.close()

    def _mark(self, patterns: Sequence[Pattern]) -> None:
        messages = [nfnl.BEGIN]
        families: list[NftFamily] = sorted({_family(pattern) for pattern in patterns})
        for family in (*families, "bridge"):
            messages += _table(f"{TABLE}{self._owner.port}", family, patterns)
        messages.append(nfnl.END)
        for error in self._owner.batch(messages):
            if error is not None:
                raise error

    def read(self) -> Iterator[RuleTraceEvent]:
        try:
            for event in self._events.receive():
                if event.kind == _TRACE:
                    found = self._parse(codec.attrs(event.payload[nfnl.HEADER_BYTES :]), event.payload[0])
                    if found is not None:
                        yield found
        except LostEventsError:
            self.lost += 1

    def _parse(self, attrs: dict[int, memoryview], family: int) -> RuleTraceEvent | None:
        identity, kind, handle = (
            nfnl.number(attrs.get(6)),
            nfnl.number(attrs.get(4)),
            nfnl.number(attrs.get(3)),
        )
        headers = parse_headers(bytes(attrs.get(8, b"")) + bytes(attrs.get(9, b"")))
        if headers is not None:
            self._first[identity] = _First(headers, nfnl.number(attrs.get(10)), nfnl.number(attrs.get(12)))
            while len(self._first) > KEPT_MAX:
                del self._first[next(iter(self._first))]
        first, table = self._first.get(identity), codec.text(attrs[1])
        if first is None or table.startswith(TABLE) or not (kind == _POLICY or (kind == _RULE and handle)):
            return None
        return RuleTraceEvent(
            netns=self._netns,
            family=_FAMILIES.get(family, str(family)),
            table=table,
            chain=codec.text(attrs.get(2, memoryview(b""))),
            handle=handle,
            verdict=_verdict(attrs, kind),
            iif=first.iif,
            oif=first.oif,
            headers=first.headers,
        )

    def named(self, trace_events: Sequence[RuleTraceEvent]) -> list[RuleTraceEvent]:
        """With the comments of their rules. A handle is given once in a table's life, so rules are asked for only when
        one is seen that is not known."""
        unknown = {_where(one) for one in trace_events if one.handle} - self._comments.keys()
        if len(self._comments) + len(unknown) > COMMENTS_MAX:
            self._comments.clear()
        # A rule that is gone already has no comment, and is not asked for again.
        self._comments.update(dict.fromkeys(unknown, ""))
        for family in sorted({where[0] for where in unknown}):
            for _, payload in self._owner.dump(nfnl.dump_every(nfnl.GETRULE, _FAMILY_NUMBERS[family])):
                rule = codec.attrs(payload[nfnl.HEADER_BYTES :])
                found = (family, codec.text(rule[1]), codec.text(rule[2]), nfnl.number(rule.get(3)))
                if found in unknown:
                    self._comments[found] = nfnl.comment_of(rule.get(7))
        return [
            msgspec.structs.replace(one, comment=self._comments.get(_where(one), "")) for one in trace_events
        ]


def _sockets(descriptor: int | None) -> tuple[Socket, Socket]:
    """One that owns the table, one that hears the events: answers and events do not mix."""
    if descriptor is not None:
        with inside(descriptor):
            return _sockets(None)
    owner = Socket(NETLINK_NETFILTER)
    try:
        return owner, Socket(NETLINK_NETFILTER, TRACE_GROUP)
    except BaseException:
        owner.close()
        raise


def _where(trace_event: RuleTraceEvent) -> _Where:
    return trace_event.family, trace_event.table, trace_event.chain, trace_event.handle


def _family(pattern: Pattern) -> NftFamily:
    return "ip" if pattern.family == 4 else "ip6"


def _table(called: str, family: NftFamily, patterns: Sequence[Pattern]) -> Iterator[bytes]:
    name = string(1, called)
    yield nfnl.request(nfnl.NEWTABLE, family, name + be32(2, _OWNER), codec.NLM_F_CREATE)
    for hook in ("prerouting", "output"):
        where = nested(4, be32(1, nfnl.HOOKS.index(hook)), be32(2, PRIORITY & 0xFFFFFFFF))
        chain = name + string(3, hook) + where + string(7, "filter")
        yield nfnl.request(nfnl.NEWCHAIN, family, chain, codec.NLM_F_CREATE)
        for pattern in patterns:
            if family in {"bridge", _family(pattern)}:
                body = expressions(family, _rule(pattern)) + mark_for_tracing()
                attrs = name + string(2, hook) + nested(4, body)
                yield nfnl.request(nfnl.NEWRULE, family, attrs, codec.NLM_F_CREATE | codec.NLM_F_APPEND)


def _rule(pattern: Pattern) -> Rule:
    v4 = pattern.family == 4
    statements: list[Cmp | CmpPrefix] = [
        Cmp(Meta("protocol"), "==", _PROTOCOL[pattern.family], ""),
        Cmp(L4PROTO, "==", bytes([pattern.number]), ""),
    ]
    for address, load in (
        (pattern.source, IP_SADDR if v4 else IP6_SADDR),
        (pattern.destination, IP_DADDR if v4 else IP6_DADDR),
    ):
        if address:
            statements.append(CmpPrefix(load, "==", address))
    for port, load in ((pattern.source_port, SPORT), (pattern.destination_port, DPORT)):
        if port and pattern.proto != "icmp":
            statements.append(Cmp(load, "==", port.to_bytes(2), ""))
    return Rule(tuple(statements))


def _verdict(attrs: dict[int, memoryview], kind: int) -> str:
    if kind == _POLICY:
        return _VERDICTS.get(nfnl.number(attrs.get(16)), "?")
    found = codec.attrs(attrs[5]) if 5 in attrs else {}
    code = int.from_bytes(found[1], signed=True) if 1 in found else -1
    if code in _JUMPS:
        return f"{_JUMPS[code]} {codec.text(found[2]) if 2 in found else '?'}"
    return _VERDICTS.get(code & 0xFF if code >= 0 else code, str(code))
