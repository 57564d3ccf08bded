"""From a query's bytes to what to do about it: the joint of ``zone`` and ``wire``, and the raw caches.

A question asked before in the very same bytes (letters' case, flags and EDNS included; the id apart) is answered from
its view's cache by the caller: ``data[:2] + view.cache[data[2:]]()``. Only local answers with a name behind them are
kept there. They are dropped with the view when a network of it changes, so nothing in the cache needs a clock.
"""

import itertools
import threading
from collections.abc import Iterable, Sequence

import dns.rcode
import msgspec

from sealane.dns import wire
from sealane.dns.limits import ASKERS, CACHE_BYTES, ROTATIONS, VIEW_CACHE_ENTRIES
from sealane.dns.records import ZoneNetwork
from sealane.dns.wire import Question
from sealane.dns.zone import Verdict, View, Zone

_ENTRY_OVERHEAD_BYTES = 300
"""Of one cache entry beside its bytes: the dictionary slot, the iterator, the objects' headers."""


class Forward(msgspec.Struct, frozen=True):
    """Not ours to answer: ask the view's upstreams."""

    question: Question


class Responder:
    """May be called from any thread; a lock orders changes of the zone and readings of it."""

    def __init__(self, searches: Iterable[str] = ()) -> None:
        self._zone = Zone(searches)
        self._lock = threading.Lock()
        self._cached_bytes = 0

    def update(self, changed: Iterable[ZoneNetwork], removed: Iterable[str]) -> None:
        with self._lock:
            self._zone.update(changed, removed)

    def recognise(self, askers: dict[str, View], arrival: Iterable[str], source: str) -> View | None:
        """The asker's view, remembered in ``askers``; None if it must not be answered.

        The memory is the caller's, who replaces it after each update. Filling it under the lock keeps an old view out
        of a new memory.
        """
        with self._lock:
            view = self._zone.view(arrival, source)
            if view is not None:
                if len(askers) >= ASKERS:
                    askers.clear()
                askers[source] = view
            return view

    def respond(self, view: View, query: bytes, *, stream: bool = False) -> bytes | Forward | None:
        """The answer without its id; or that it must be forwarded; or None for silence."""
        question = wire.read_question(query)
        if not isinstance(question, Question):
            return question
        with self._lock:
            finding = self._zone.find(view, question.name, question.rrtype)
            if finding.verdict is Verdict.FORWARD:
                return Forward(question)
            if finding.verdict is Verdict.ANSWER and not stream:
                return self._remember(view, query[2:], question, finding.records)
        rcode = _RCODES[finding.verdict]
        return wire.answer_tail(question, rcode, finding.records, stream=stream, recursion=view.forwards)

    def _remember(self, view: View, key: bytes, question: Question, records: Sequence[bytes]) -> bytes:
        tails = [wire.answer_tail(question, 0, turn, recursion=view.forwards) for turn in rotations(records)]
        weight = len(key) + sum(map(len, tails)) + _ENTRY_OVERHEAD_BYTES
        if self._cached_bytes + weight > CACHE_BYTES:
            self._forget_all()
        if len(view.cache) >= VIEW_CACHE_ENTRIES:
            view.cache.clear()
        # Counts all that was put in since the last emptying, dropped views too: an upper bound that needs no upkeep.
        self._cached_bytes += weight
        next_tail = view.cache[key] = itertools.cycle(tails).__next__
        return next_tail()

    def _forget_all(self) -> None:
        for view in self._zone.views():
            view.cache.clear()
        self._cached_bytes = 0


_RCODES = {
    Verdict.ANSWER: dns.rcode.NOERROR,
    Verdict.NO_SUCH_NAME: dns.rcode.NXDOMAIN,
    Verdict.REFUSE: dns.rcode.REFUSED,
}


def rotations(records: Sequence[bytes]) -> list[Sequence[bytes]]:
    """The orders in which one name's records are handed out in turn: each comes first equally often, up to a bound."""
    turns = max(1, min(len(records), ROTATIONS))
    starts = [turn * len(records) // turns for turn in range(turns)]
    return [(*records[start:], *records[:start]) for start in starts]
