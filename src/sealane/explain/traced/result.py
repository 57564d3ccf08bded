"""A journey told in the words of a trace, and held against the trace that was predicted."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import cast

import msgspec

from sealane.compile.reads import Unit
from sealane.explain.packet import Disposition, Hop, Step, Trace, Tuple
from sealane.explain.reasons import DENIED, Reason, reason_of
from sealane.explain.traced.event import RuleTraceEvent, TraceEvent
from sealane.explain.traced.kernel_reasons import LISTENERLESS, told
from sealane.explain.traced.observed_path import ObservedPath
from sealane.explain.world import World
from sealane.kernel.nft import TABLE, Chain, NftFamily, Rule
from sealane.kernel.state import HOST
from sealane.kernel.text_nft import rule as rule_text

_REMADE = {
    "inet_frag_reasm_prepare": "put together with its other fragments",
    "ip_do_fragment": "cut into fragments",
    "ip6_fragment": "cut into fragments",
}
"""Where the kernel frees a packet that it has made another of."""


class Outcome(StrEnum):
    DELIVERED = "delivered"
    EXITS = "exits"
    """By a link that is not ours."""
    DROPPED = "dropped"
    CONTINUES = "continues"
    """As another packet: its fragments were put together, or it was cut into some."""
    VANISHED = "vanished"
    """It was seen somewhere, and then no more; no drop was told."""


_PASSING = frozenset({Outcome.DELIVERED, Outcome.EXITS, Outcome.CONTINUES})


class TraceResult(msgspec.Struct, frozen=True, kw_only=True):
    question: str
    flow: Tuple
    """As it was first seen."""
    hops: tuple[Hop, ...]
    outcome: Outcome
    where: str
    """The namespace where it ended, as people call it."""
    link: str
    """By which link it was last seen there."""
    reason: str
    hint: str = ""
    microseconds: float
    """From the first sighting to the last."""
    agrees: bool | None
    """Whether that is what was predicted; None: nothing was."""
    missing: tuple[str, ...] = ()
    """Namespaces that it should have come to and did not."""
    unexpected: tuple[str, ...] = ()
    """Namespaces that it should not have come to."""

    @property
    def passes(self) -> bool:
        return self.outcome in _PASSING


class TraceReporter:
    """`places` finds namespaces by inode; `symbol` names the kernel's code at an address, empty if it cannot."""

    def __init__(
        self,
        world: World,
        places: Mapping[int, str],
        symbol: Callable[[int], str] = lambda _: "",
    ) -> None:
        self._world, self._places, self._symbol = world, places, symbol

    def account(self, observed_path: ObservedPath, predicted: Trace) -> TraceResult:
        observed_path = self._within(observed_path)
        hops = tuple(self._hops(observed_path))
        netns = self._netns(observed_path.last)
        outcome, reason, hint = self._ending(observed_path, predicted)
        should, did = [hop.netns for hop in predicted.hops], [hop.netns for hop in hops]
        ends = should if outcome == Outcome.CONTINUES else should[-1:]
        agrees = None
        if not predicted.is_unknown:
            agrees = predicted.passes == (outcome in _PASSING) and netns in (ends or [netns])
        if agrees is False and not hint:
            hint = _SEE_DRIFT
        elif agrees and not hint:
            hint = predicted.hint
        return TraceResult(
            question=predicted.question or str(predicted.packet),
            flow=observed_path.first.headers.flow,
            hops=hops,
            outcome=outcome,
            where=self._name(netns),
            link=observed_path.last.link,
            reason=reason,
            hint=hint,
            microseconds=(observed_path.last.time_ns - observed_path.first.time_ns) / 1000,
            agrees=agrees,
            missing=tuple(self._name(n) for n in _left_out(should, did)),
            unexpected=tuple(self._name(n) for n in _left_out(did, should)) if agrees is not None else (),
        )

    def _within(self, observed_path: ObservedPath) -> ObservedPath:
        """Without what is before and behind our namespaces: somebody else's on the same machine."""
        trace_events = tuple(_placed(observed_path.trace_events))
        known = [n for n, trace_event in enumerate(trace_events) if trace_event.netns in self._places]
        if not known:
            return observed_path
        return msgspec.structs.replace(observed_path, trace_events=trace_events[known[0] : known[-1] + 1])

    # --- hops and steps ---------------------------------------------------------------------------------------------

    def _hops(self, observed_path: ObservedPath) -> Iterator[Hop]:
        rules = {netns: _Rules(found) for netns, found in _by_netns(observed_path.rules).items()}
        netns, steps, before = "", list[Step](), None
        for trace_event in observed_path.trace_events:
            here = self._netns(trace_event)
            if here != netns:
                if steps:
                    yield self._hop(netns, steps, before, rules)
                netns, steps = here, []
            steps += self._steps(trace_event, before, rules.get(trace_event.netns, _Rules(())))
            before = trace_event
        yield self._hop(netns, steps, before, rules)

    def _hop(
        self, netns: str, steps: Sequence[Step], last: TraceEvent | None, rules: "Mapping[int, _Rules]"
    ) -> Hop:
        left = rules.get(last.netns if last else 0, _Rules(()))
        rest = [self._rule_step(rule) for rule in left.rest()]
        return Hop(netns=netns, name=self._name(netns), steps=(*steps, *rest))

    def _steps(self, now: TraceEvent, before: TraceEvent | None, rules: "_Rules") -> Iterator[Step]:
        is_repeated = before is not None and now.point == "transmit" and before.point == "queue"
        if now.point == "receive":
            yield Step(kind="link", text=f"in by {now.link}", object=("link", now.link))
            yield from map(self._rule_step, rules.coming_in(now.ifindex))
            return
        if now.point in {"queue", "transmit"}:
            yield from map(self._rule_step, rules.going_out(now.ifindex))
        else:
            yield from map(self._rule_step, rules.rest())
        yield from _translation(before, now)
        if now.point == "drop":
            mark = "no socket" if now.reason in LISTENERLESS else f"✗ {now.reason}"
            yield Step(kind="end", text=mark, detail=self._symbol(now.location))
        elif now.point == "consume":
            yield Step(kind="end", text="taken", detail=self._symbol(now.location))
        elif not is_repeated or (before is not None and before.link != now.link):
            yield Step(kind="link", text=f"out by {now.link}", object=("link", now.link))

    def _rule_step(self, trace_event: RuleTraceEvent) -> Step:
        rule = self._our_rule(trace_event)
        origin = self._origin(trace_event)
        where = f"{trace_event.family} {trace_event.chain}"
        if trace_event.table != TABLE:
            where = f"{trace_event.family} {trace_event.table} {trace_event.chain}"
        said = "" if rule is not None or not trace_event.comment else f" ({trace_event.comment})"
        return Step(
            kind="rule",
            text=f"{where}: {trace_event.verdict}{said}",
            detail=_detail(trace_event, rule),
            why=rule.comment if rule is not None else "",
            object=("nft-chain", trace_event.family, trace_event.chain)
            if trace_event.table == TABLE
            else None,
            origin=origin,
            origin_name=self._world.title(origin) if origin else "",
        )

    def _our_rule(self, trace_event: RuleTraceEvent) -> Rule | None:
        if trace_event.table != TABLE or not trace_event.handle:
            return None
        state = self._world.states.get(self._places.get(trace_event.netns, ""), {})
        chain = state.get(("nft-chain", trace_event.family, trace_event.chain))
        tag = trace_event.comment.partition(" ")[0]
        rules = chain.rules if isinstance(chain, Chain) else ()
        return next((rule for rule in rules if rule.tag() == tag), None)

    def _origin(self, trace_event: RuleTraceEvent) -> Unit | None:
        if trace_event.table != TABLE:
            return None
        netns = self._places.get(trace_event.netns, "")
        return self._world.origin(netns, ("nft-chain", trace_event.family, trace_event.chain))

    # --- the end ----------------------------------------------------------------------------------------------------

    def _ending(self, observed_path: ObservedPath, predicted: Trace) -> tuple[Outcome, str, str]:
        last, flow = observed_path.last, observed_path.last.headers.flow
        netns = self._netns(last)
        where = self._name(netns)
        if last.point == "drop" and last.reason not in LISTENERLESS:
            return Outcome.DROPPED, *self._drop(observed_path)
        if last.point == "drop":
            nobody = (
                "" if flow.proto == "icmp" else f": nobody listens on {flow.destination_port}/{flow.proto}"
            )
            hint = "" if flow.proto == "icmp" else "start the service, or let it listen on 0.0.0.0 and ::"
            return Outcome.DELIVERED, f"delivered to {where}{nobody}", hint
        came_last = [s for s in observed_path.trace_events if s.point in {"receive", "queue", "transmit"}][
            -1:
        ]
        was_received = bool(came_last) and came_last[0].point == "receive"
        remade = _REMADE.get(self._symbol(last.location))
        is_there = predicted.disposition == Disposition.DELIVERED and netns == predicted.netns
        if last.point == "consume" and remade and not is_there:
            return Outcome.CONTINUES, f"{remade} at {where}: it goes on as another packet", ""
        if was_received and (last.point == "consume" or self._has(netns, flow.destination)):
            return Outcome.DELIVERED, f"delivered to {where}", ""
        if not was_received and netns == HOST and self._is_foreign(last.link):
            return Outcome.EXITS, f"left by {last.link}", ""
        return Outcome.VANISHED, f"last seen at {where}, {_point(last)}; then no more", ""

    def _has(self, netns: str, address: str) -> bool:
        """Whether it may wait there in a socket's queue, or was taken by a way that no tracepoint tells of."""
        return netns in self._world.states and self._world.namespace(netns).is_local(address)

    def _is_foreign(self, name: str) -> bool:
        host = self._world.namespace(HOST)
        link = host.link(name)
        return link is not None and host.is_foreign(link)

    def _drop(self, observed_path: ObservedPath) -> tuple[str, str]:
        last = observed_path.last
        rule = next((r for r in reversed(observed_path.rules) if r.verdict == "drop"), None)
        if rule is None or last.reason != "NETFILTER_DROP":
            text, hint = told(last.reason, self._symbol(last.location))
            return f"{text} ({last.reason})", hint
        ours = self._our_rule(rule)
        if ours is not None:
            reason = reason_of(ours)
            origin = self._origin(rule)
            return reason.text.format(where=self._world.title(origin) if origin else "sealane"), reason.hint
        foreign = _foreign(rule)
        return foreign.text, foreign.hint

    # --- names ------------------------------------------------------------------------------------------------------

    def _netns(self, trace_event: TraceEvent) -> str:
        return self._places.get(trace_event.netns, _unknown(trace_event.netns))

    def _name(self, netns: str) -> str:
        return netns if netns.startswith("net:[") else self._world.namespace(netns).name


_SEE_DRIFT = "it went another way than it should: see `sealane audit` and `sealane doctor`"


class _Rules:
    """Rules of one namespace, oldest first, given out where they fit in between sightings."""

    def __init__(self, rules: Sequence[RuleTraceEvent]) -> None:
        self._left = list(rules)

    def coming_in(self, ifindex: int) -> Iterator[RuleTraceEvent]:
        while self._left and self._left[0].iif == ifindex:
            yield self._left.pop(0)

    def going_out(self, ifindex: int) -> Iterator[RuleTraceEvent]:
        """All but those of a later device, through which a frame of the host's own leaves its bridge."""
        while self._left and not (self._left[0].iif == 0 and self._left[0].oif not in {0, ifindex}):
            yield self._left.pop(0)

    def rest(self) -> list[RuleTraceEvent]:
        rest, self._left = self._left, []
        return rest


def _placed(trace_events: Sequence[TraceEvent]) -> Iterator[TraceEvent]:
    """A sighting without a namespace is where the packet was before: TCP and UDP take the device off what they have
    received, and keep something else in its place (dev_scratch, rbnode: struct sk_buff)."""
    netns = 0
    for trace_event in trace_events:
        netns = trace_event.netns or netns
        yield trace_event if trace_event.netns else msgspec.structs.replace(trace_event, netns=netns)


def _by_netns(rules: Sequence[RuleTraceEvent]) -> dict[int, list[RuleTraceEvent]]:
    found: dict[int, list[RuleTraceEvent]] = {}
    for rule in rules:
        found.setdefault(rule.netns, []).append(rule)
    return found


def _translation(before: TraceEvent | None, now: TraceEvent) -> Iterator[Step]:
    if before is None:
        return
    old, new = before.headers.flow, now.headers.flow
    for kind, changed in (
        ("destination", (old.destination, old.destination_port) != (new.destination, new.destination_port)),
        ("source", (old.source, old.source_port) != (new.source, new.source_port)),
    ):
        if changed:
            yield Step(kind="nat", text=f"{kind} translated: {_text(new)}")


def _text(flow: Tuple) -> str:
    return f"{flow.source}:{flow.source_port} → {flow.destination}:{flow.destination_port} {flow.proto}"


def _detail(trace_event: RuleTraceEvent, rule: Rule | None) -> str:
    if rule is not None:
        return f"{trace_event.family} {trace_event.chain}: {rule_text(cast('NftFamily', trace_event.family), rule)}"
    return f"rule {trace_event.handle}" if trace_event.handle else "policy"


def _foreign(rule: RuleTraceEvent) -> Reason:
    which = f"rule {rule.handle}" if rule.handle else "the policy"
    said = f" ({rule.comment})" if rule.comment else ""
    where = f"{rule.family} table {rule.table}, chain {rule.chain}"
    if rule.table == TABLE:
        return Reason(
            DENIED, f"{which}{said} of {where}, which sealane did not put there, drops it", "sealane audit"
        )
    return Reason(
        DENIED,
        f"{which}{said} of {where}, which is not sealane's, drops it",
        f"nft -a list chain {rule.family} {rule.table} {rule.chain}",
    )


def _point(trace_event: TraceEvent) -> str:
    return f"{'come in' if trace_event.point == 'receive' else 'sent'} by {trace_event.link}"


def _unknown(inode: int) -> str:
    return f"net:[{inode}]"


def _left_out(of: Sequence[str], seen: Sequence[str]) -> Iterator[str]:
    return (netns for netns in dict.fromkeys(of) if netns not in seen)
