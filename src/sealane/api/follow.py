"""Events and changes for a client that follows: read from the engine's bounded logs, so that a slow client costs no memory."""

import asyncio
from collections.abc import AsyncGenerator, Iterable

import msgspec

from sealane.engine.engine import Engine
from sealane.engine.events import EventLog
from sealane.engine.feed import GapError
from sealane.model.change import Change, Put
from sealane.model.codec import encode
from sealane.model.kinds import kind_of
from sealane.wire.views import ChangesView, ChangeView, EventView

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


async def changes(engine: Engine, since: int | None, *, follow: bool) -> AsyncGenerator[ChangesView, None]:
    """The records of the intent as they change, one line for each revision after `since`.

    Without `since`, and wherever changes of a follower's revisions are gone, the first line has all records
    (`is_snapshot`): what it does not list is not there any more. With `follow` it goes on with what comes.
    """
    news = asyncio.Event()
    reader = engine.feed.reader("api", news.set)
    try:
        revision = since
        while True:
            news.clear()
            for view in _changes_after(engine, revision):
                revision = view.revision
                yield view
            if not follow:
                return
            await news.wait()
    finally:
        reader.close()


def _changes_after(engine: Engine, revision: int | None) -> list[ChangesView]:
    feed = engine.feed
    if revision is not None:
        try:
            return [ChangesView(revision=e.revision, changes=_views(e.changes)) for e in feed.since(revision)]
        except GapError:
            pass
    everything = _views(Put(record) for record in engine.intent.records())
    return [ChangesView(revision=feed.revision, is_snapshot=True, changes=everything)]


def _views(changes: Iterable[Change]) -> list[ChangeView]:
    return [
        ChangeView(
            verb="put" if isinstance(change, Put) else "delete",
            kind=kind_of(change.record).name,
            id=change.record.id,
            # As stored: a container's spec is kept as text.
            record=msgspec.json.decode(encode(change.record))["record"] if isinstance(change, Put) else None,
        )
        for change in changes
    ]
