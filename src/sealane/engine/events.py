"""What happened, for people and for the doors that follow: a bounded log with listeners."""

from collections import deque
from collections.abc import Callable, Iterator

from sealane.limits import EVENT_CHARS_MAX, EVENTS_KEPT
from sealane.wire.views import EventView

Listener = Callable[[EventView], None]


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
        for listener in tuple(self._listeners):
            listener(event)

    def since(self, number: int) -> Iterator[EventView]:
        """Kept events with a greater number."""
        return (event for event in tuple(self._kept) if event.number > number)

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Call `listener` for every event to come; the result takes it off again."""
        self._listeners.add(listener)
        return lambda: self._listeners.discard(listener)


def _clipped(text: str) -> str:
    return text if len(text) <= EVENT_CHARS_MAX else f"{text[: EVENT_CHARS_MAX - 1]}…"
