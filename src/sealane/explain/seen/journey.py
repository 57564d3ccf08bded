"""Sightings put together: all of one packet, in order, with the rules that it met."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from sealane.explain.seen.sighting import Pattern, RuleSighting, Sighting

OPEN_MAX = 1024
"""Packets under way; beyond it the oldest is given up."""

ENDED_MAX = 8192
"""Packets to be told; beyond it the oldest are given up."""

RULES_MAX = 8192
SIGHTINGS_MAX = 256
"""Of one packet: it would be in a loop."""

_ENDS = frozenset({"drop", "consume"})


class Journey(msgspec.Struct, frozen=True, kw_only=True):
    """One packet, from where it was first seen to where it was last."""

    sightings: tuple[Sighting, ...]
    rules: tuple[RuleSighting, ...] = ()

    @property
    def first(self) -> Sighting:
        return self.sightings[0]

    @property
    def last(self) -> Sighting:
        return self.sightings[-1]


class Collector:
    """Takes sightings as they come, of many packets at once, and gives journeys that have ended."""

    def __init__(self, patterns: Sequence[Pattern]) -> None:
        self._patterns = patterns
        self._open: dict[int, list[Sighting]] = {}
        self._ended: deque[list[Sighting]] = deque(maxlen=ENDED_MAX)
        self._rules: deque[RuleSighting] = deque(maxlen=RULES_MAX)

    def add(self, sighting: Sighting) -> None:
        known = self._open.get(sighting.skb)
        if known is None or not _is_same(known[-1], sighting):
            if known is not None:
                self._end(sighting.skb)
            # An address that came back under a packet that nobody asked for.
            if sighting.point == "consume" or not self._fits(sighting):
                return
            known = self._open[sighting.skb] = []
        known.append(sighting)
        if sighting.point in _ENDS or len(known) >= SIGHTINGS_MAX:
            self._end(sighting.skb)
        elif len(self._open) > OPEN_MAX:
            self._end(next(iter(self._open)))

    def add_rules(self, rules: Iterable[RuleSighting]) -> None:
        self._rules.extend(rules)

    def take(self, quiet_since_ns: int) -> Iterator[Journey]:
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
            yield Journey(sightings=tuple(ended), rules=tuple(_rules_of(ended, found)))

    def _rules_by_mark(self) -> dict[tuple[int, ...], list[RuleSighting]]:
        found: dict[tuple[int, ...], list[RuleSighting]] = {}
        for rule in self._rules:
            found.setdefault(rule.headers.mark, []).append(rule)
        return found

    def _end(self, skb: int) -> None:
        self._ended.append(self._open.pop(skb))

    def _fits(self, sighting: Sighting) -> bool:
        return any(pattern.fits(sighting.headers.flow) for pattern in self._patterns)


def _beginning(sightings: Sequence[Sighting]) -> int:
    return sightings[0].time_ns


def _rules_of(sightings: Sequence[Sighting], rules: Iterable[RuleSighting]) -> Iterator[RuleSighting]:
    """Of rules that saw the same mark. Between two translations a rule may see a packet as no device does: one end of
    it is enough."""
    flows = [sighting.headers.flow for sighting in sightings]
    ends = {(flow.source, flow.source_port) for flow in flows}
    ends |= {(flow.destination, flow.destination_port) for flow in flows}
    for rule in rules:
        flow = rule.headers.flow
        if {(flow.source, flow.source_port), (flow.destination, flow.destination_port)} & ends:
            yield rule


def _is_same(before: Sighting, after: Sighting) -> bool:
    return before.headers.mark == after.headers.mark and before.headers.flow.proto == after.headers.flow.proto
