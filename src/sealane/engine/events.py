"""Events for people: a bounded log with listeners. What follows the intent reads `engine.feed` instead."""

import json
import logging
from collections import deque
from collections.abc import Callable, Iterator

from sealane.limits import EVENT_CHARS_MAX, EVENTS_KEPT
from sealane.wire.views import EventView

Listener = Callable[[EventView], None]

FAILURES = ("failed", "contested", "unhealthy", "refused")
"""Ends of kinds that are warnings in the log."""

log = logging.getLogger("sealane.events")


class EventLog:
    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._kept: deque[EventView] = deque(maxlen=EVENTS_KEPT)
        self._listeners: set[Listener] = set()
        self._number = 0

    def emit(self, kind: str, subject: str, **detail: str) -> None:
        self._number += 1
        event = EventView(
            number=self._number,
            time=self._now(),
            kind=kind,
            subject=_clipped(subject),
            detail={name: _clipped(text) for name, text in detail.items()},
        )
        self._kept.append(event)
        level = logging.WARNING if kind.endswith(FAILURES) else logging.INFO
        if log.isEnabledFor(level):
            log.log(level, "%s", line_of(event))
        for listener in tuple(self._listeners):
            try:
                listener(event)
            except Exception:
                log.exception("a listener of events failed at %s", kind)

    def since(self, number: int) -> Iterator[EventView]:
        """Kept events with a greater number."""
        return (event for event in tuple(self._kept) if event.number > number)

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Call `listener` for every event to come; the result takes it off again."""
        self._listeners.add(listener)
        return lambda: self._listeners.discard(listener)


def line_of(event: EventView) -> str:
    """An event as one line of a log: `drift.repaired host objects=69`. Text that others wrote cannot break the line."""
    details = (f"{name}={_word(text)}" for name, text in event.detail.items())
    return " ".join([event.kind, _word(event.subject), *details])


def _word(text: str) -> str:
    is_plain = text.isprintable() and not any(c in text for c in ' "=') and text != ""
    return text if is_plain else json.dumps(text)


def _clipped(text: str) -> str:
    return text if len(text) <= EVENT_CHARS_MAX else f"{text[: EVENT_CHARS_MAX - 1]}…"
