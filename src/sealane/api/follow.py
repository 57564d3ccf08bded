"""Events for a client that follows: read from the engine's bounded log, so that a slow client costs no memory."""

import asyncio
from collections.abc import AsyncGenerator

from sealane.engine.events import EventLog
from sealane.wire.views import EventView

LOST = "events.lost"


async def events(log: EventLog, since: int | None, *, follow: bool) -> AsyncGenerator[EventView, None]:
    """Kept events with a number above `since` (None: all kept ones; with `follow`, only those to come).

    A client that is slower than the log is long gets one event of kind `events.lost` in place of those it missed.
    """
    news = asyncio.Event()
    stop_listening = log.listen(lambda _: news.set())
    try:
        newest = _newest(log)
        # A number above the newest is from before a restart, when counting began anew.
        last = min(since, newest) if since is not None else newest if follow else 0
        expects_all = since is not None or follow
        while True:
            news.clear()
            for event in log.since(last):
                if expects_all and event.number > last + 1:
                    yield _lost(event, event.number - last - 1)
                last = event.number
                expects_all = True
                yield event
            if not follow:
                return
            await news.wait()
    finally:
        stop_listening()


def _newest(log: EventLog) -> int:
    return max((event.number for event in log.since(0)), default=0)


def _lost(before: EventView, count: int) -> EventView:
    return EventView(
        number=before.number - 1,
        time=before.time,
        kind=LOST,
        subject=f"{count} events",
        detail={"why": "they are older than the log keeps"},
    )
