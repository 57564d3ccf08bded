"""What happened, for people and for the doors that follow: a bounded log with listeners."""

from collections import deque
from collections.abc import Callable, Iterator

from sealane.limits import EVENTS_KEPT
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
        event = EventView(number=self._number, time=self._now(), kind=kind, subject=subject, detail=detail)
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
