"""Sightings put together: all of one packet, in order, with the rules that it met."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from sealane.explain.traced.event import Pattern, RuleTraceEvent, TraceEvent

OPEN_MAX = 1024
"""Packets under way; beyond it the oldest is given up."""

ENDED_MAX = 8192
"""Packets to be told; beyond it the oldest are given up."""

RULES_MAX = 8192
SIGHTINGS_MAX = 256
"""Of one packet: it would be in a loop."""

_ENDS = frozenset({"drop", "consume"})


class ObservedPath(msgspec.Struct, frozen=True, kw_only=True):
    """One packet, from where it was first seen to where it was last."""

    trace_events: tuple[TraceEvent, ...]
    rules: tuple[RuleTraceEvent, ...] = ()

    @property
    def first(self) -> TraceEvent:
        return self.trace_events[0]

    @property
    def last(self) -> TraceEvent:
        return self.trace_events[-1]


class Collector:
    """Takes sightings as they come, of many packets at once, and gives journeys that have ended."""

    def __init__(self, patterns: Sequence[Pattern]) -> None:
        self._patterns = patterns
        self._open: dict[int, list[TraceEvent]] = {}
        self._ended: deque[list[TraceEvent]] = deque(maxlen=ENDED_MAX)
        self._rules: deque[RuleTraceEvent] = deque(maxlen=RULES_MAX)

    def add(self, trace_event: TraceEvent) -> None:
        known = self._open.get(trace_event.skb)
        if known is None or not _is_same(known[-1], trace_event):
            if known is not None:
                self._end(trace_event.skb)
            # An address that came back under a packet that nobody asked for.
            if trace_event.point == "consume" or not self._fits(trace_event):
                return
            known = self._open[trace_event.skb] = []
        known.append(trace_event)
        if trace_event.point in _ENDS or len(known) >= SIGHTINGS_MAX:
            self._end(trace_event.skb)
        elif len(self._open) > OPEN_MAX:
            self._end(next(iter(self._open)))

    def add_rules(self, rules: Iterable[RuleTraceEvent]) -> None:
        self._rules.extend(rules)

    def take(self, quiet_since_ns: int) -> Iterator[ObservedPath]:
        """Journeys that ended before a time, or of which nothing was seen since; a later packet after an earlier one.
        Of their rules those that are here by now."""
        for skb, known in list(self._open.items()):
            if known[-1].time_ns < quiet_since_ns:
                self._end(skb)
        waiting = deque(sorted(self._ended, key=_beginning), maxlen=ENDED_MAX)
        under_way = min(map(_beginning, self._open.values()), default=quiet_since_ns)
        rules, self._ended = self._rules_by_mark(), waiting
        while waiting and waiting[0][-1].time_ns < quiet_since_ns and _beginning(waiting[0]) <= under_way:
            ended = waiting.popleft()
            mark = ended[0].headers.mark
            # Without a mark (tracefs tells none) whatever has an end in common is taken for it.
            found = rules.get(mark, ()) if mark else self._rules
            yield ObservedPath(trace_events=tuple(ended), rules=tuple(_rules_of(ended, found)))

    def _rules_by_mark(self) -> dict[tuple[int, ...], list[RuleTraceEvent]]:
        found: dict[tuple[int, ...], list[RuleTraceEvent]] = {}
        for rule in self._rules:
            found.setdefault(rule.headers.mark, []).append(rule)
        return found

    def _end(self, skb: int) -> None:
        self._ended.append(self._open.pop(skb))

    def _fits(self, trace_event: TraceEvent) -> bool:
        return any(pattern.fits(trace_event.headers.flow) for pattern in self._patterns)


def _beginning(trace_events: Sequence[TraceEvent]) -> int:
    return trace_events[0].time_ns


def _rules_of(
    trace_events: Sequence[TraceEvent], rules: Iterable[RuleTraceEvent]
) -> Iterator[RuleTraceEvent]:
    """Of rules that saw the same mark. Between two translations a rule may see a packet as no device does: one end of
    it is enough."""
    flows = [trace_event.headers.flow for trace_event in trace_events]
    ends = {(flow.source, flow.source_port) for flow in flows}
    ends |= {(flow.destination, flow.destination_port) for flow in flows}
    for rule in rules:
        flow = rule.headers.flow
        if {(flow.source, flow.source_port), (flow.destination, flow.destination_port)} & ends:
            yield rule


def _is_same(before: TraceEvent, after: TraceEvent) -> bool:
    return before.headers.mark == after.headers.mark and before.headers.flow.proto == after.headers.flow.proto
