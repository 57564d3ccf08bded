"""The change feed: one numbered stream of committed changes, for everything that follows the intent.

    reader = engine.feed.reader("names", wake)    # `wake` is called after each change in force
    ...
    for entry in reader.read(): ...               # in the reader's own time

Readers pull, so a slow or failing one delays no verb and no other reader. The feed keeps a bounded number of changes;
a reader that fell behind gets GapError once, lists the intent, and continues from there. A revision is that of the
store: a follower can stop, start again and resume from the last revision that it has seen.

Events for people are something else: `engine.events`.
"""

from collections import deque
from collections.abc import Callable, Sequence

import msgspec

from sealane.limits import FEED_CHANGES_KEPT
from sealane.model.change import Change


class Entry(msgspec.Struct, frozen=True):
    revision: int
    """Of the store, with these changes in it."""
    changes: tuple[Change, ...]


class GapError(Exception):
    """Entries after a revision are no longer kept, or the revision is not one of this store. Read everything anew."""

    def __init__(self, revision: int, oldest: int, newest: int) -> None:
        super().__init__(f"revision {revision} is not within {oldest} to {newest}")
        self.oldest = oldest
        self.newest = newest


class ChangeFeed:
    def __init__(self, revision: int, failed: Callable[[str, Exception], None] | None = None) -> None:
        """Starts empty at `revision`. `failed` is called with the name of a reader whose `wake` raised."""
        self._entries: deque[Entry] = deque()
        self._changes_kept = 0
        self._oldest = self.revision = revision
        self._readers: list[FeedReader] = []
        self._failed = failed

    def append(self, revision: int, changes: Sequence[Change]) -> None:
        """Add changes that are in force, and wake the readers. Without changes only the revision advances."""
        self.revision = revision
        if not changes:
            return
        self._entries.append(Entry(revision, tuple(changes)))
        self._changes_kept += len(changes)
        while self._changes_kept > FEED_CHANGES_KEPT and len(self._entries) > 1:
            dropped = self._entries.popleft()
            self._changes_kept -= len(dropped.changes)
            self._oldest = dropped.revision
        for reader in tuple(self._readers):
            try:
                reader.wake()
            except Exception as error:
                if self._failed is not None:
                    self._failed(reader.name, error)

    def since(self, revision: int) -> list[Entry]:
        """Entries after `revision`, oldest first. Raises GapError."""
        if not self._oldest <= revision <= self.revision:
            raise GapError(revision, self._oldest, self.revision)
        found: list[Entry] = []
        # From the newest back: a reader has read nearly all of them.
        for entry in reversed(self._entries):
            if entry.revision <= revision:
                break
            found.append(entry)
        return found[::-1]

    def reader(self, name: str, wake: Callable[[], None] = lambda: None) -> "FeedReader":
        """A reader of everything from now on."""
        reader = FeedReader(self, name, wake)
        self._readers.append(reader)
        return reader

    def remove(self, reader: "FeedReader") -> None:
        """Idempotent."""
        if reader in self._readers:
            self._readers.remove(reader)


class FeedReader:
    """One reader's position in the feed."""

    def __init__(self, feed: ChangeFeed, name: str, wake: Callable[[], None]) -> None:
        self._feed = feed
        self.name = name
        self.wake = wake
        self.revision = feed.revision
        """Up to which it has read."""

    def read(self) -> list[Entry]:
        """Entries since the last call. Raises GapError if some of them are gone; the next call continues from now."""
        last, self.revision = self.revision, self._feed.revision
        return self._feed.since(last) if last != self.revision else []

    def changes(self) -> list[Change]:
        """The changes since the last call, in order. Raises GapError."""
        return [change for entry in self.read() for change in entry.changes]

    def close(self) -> None:
        """Idempotent."""
        self._feed.remove(self)
