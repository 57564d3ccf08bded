"""One watch: a stream that is opened again whenever it breaks, from the revision after the last one delivered.

Only whole revisions are delivered: etcd may cut a revision into fragments, and a stream that breaks between two of
them would otherwise lose or repeat its rest. The position advances by the events' own revisions and nothing else: the
header of an answer may be ahead of events that are still to come (etcd#15220).
"""

import asyncio
import logging
from collections.abc import Callable, Sequence

from sealane.etcd import etcd_pb2 as pb
from sealane.etcd.errors import CompactedError, DeniedError, EtcdError, InvalidError, UnavailableError
from sealane.etcd.failures import is_denial, is_stale_token
from sealane.etcd.messages import events_of, watch_request
from sealane.etcd.records import Event
from sealane.etcd.rpc import WATCH, Backoff, Rpc, Stream

log = logging.getLogger(__name__)

OPEN_S = 10.0
"""From the request to etcd's `created`; then the stream is opened again."""

_WatchStream = Stream[pb.WatchRequest, pb.WatchResponse]


class Listener:
    """What a watch calls, on the client's thread. Calls must be short: meanwhile the client does nothing else."""

    def __init__(
        self,
        on_events: Callable[[Sequence[Event]], None],
        on_end: Callable[[Exception], None],
        on_broken: Callable[[EtcdError], None] | None = None,
        on_open: Callable[[int], None] | None = None,
    ) -> None:
        self.on_events, self.on_end = on_events, on_end
        self.on_broken = on_broken or (lambda _error: None)
        self.on_open = on_open or (lambda _revision: None)


class Position:
    """Events whole by revision, and where to go on. Pure."""

    def __init__(self, from_revision: int) -> None:
        self.next_revision = from_revision
        self._held: list[Event] = []

    def take(self, events: Sequence[Event], *, is_fragment: bool) -> list[Event]:
        """The events that can be delivered now. Of a fragment the last revision is held: more of it may follow."""
        held = self._held
        # An event from before the position was delivered already.
        held.extend(event for event in events if event.revision >= self.next_revision)
        ready = held
        if is_fragment and held:
            last = held[-1].revision
            count = next(index for index, event in enumerate(held) if event.revision == last)
            ready = held[:count]
            self._held = held[count:]
        else:
            self._held = []
        if ready:
            self.next_revision = ready[-1].revision + 1
        return ready

    def lose_stream(self) -> None:
        """The rest of a held revision will not come; it is read again whole."""
        self._held = []


class Watcher:
    """Runs on the client's loop until it is cancelled or ends."""

    def __init__(self, rpc: Rpc, prefix: bytes, from_revision: int, listener: Listener) -> None:
        self._rpc, self._prefix, self._listener = rpc, prefix, listener
        self._position = Position(from_revision)
        self._backoff = Backoff()
        self._has_renewed = False

    async def run(self) -> None:
        """Ends with exactly one `on_end`, unless it is cancelled."""
        while True:
            try:
                await self._follow()
            except UnavailableError as error:
                self._position.lose_stream()
                try:
                    self._listener.on_broken(error)
                except Exception as raised:
                    self._end(raised)
                    return
                await asyncio.sleep(self._backoff.next_s())
            except Exception as error:
                self._end(error)
                return

    def _end(self, error: Exception) -> None:
        if not isinstance(error, EtcdError):
            log.error("watch of %r ended by an error of its listener", self._prefix, exc_info=error)
        try:
            self._listener.on_end(error)
        except Exception:
            log.exception("on_end of the watch of %r failed", self._prefix)

    async def _follow(self) -> None:
        """One stream. Raises when it breaks or the watch ends."""
        async with self._rpc.stream(WATCH, OPEN_S) as stream:
            try:
                async with asyncio.timeout(OPEN_S):
                    await stream.write(watch_request(self._prefix, self._position.next_revision))
                    answer = await self._answer(stream)
            except TimeoutError as error:
                raise UnavailableError(f"etcd did not open the watch within {OPEN_S:.0f} s") from error
            if answer.canceled:
                raise self._cancelled(answer)
            self._backoff.reset()
            self._has_renewed = False
            self._listener.on_open(answer.header.revision)
            while True:
                answer = await self._answer(stream)
                if answer.canceled:
                    raise self._cancelled(answer)
                events = self._position.take(events_of(answer), is_fragment=answer.fragment)
                if events:
                    self._listener.on_events(events)

    async def _answer(self, stream: _WatchStream) -> pb.WatchResponse:
        answer = await stream.read()
        if not isinstance(answer, pb.WatchResponse):  # grpc.aio.EOF
            raise UnavailableError("etcd ended the watch's stream")
        return answer

    def _cancelled(self, answer: pb.WatchResponse) -> EtcdError:
        """etcd ends a watch by a message, not by a gRPC error. An expired token says "permission denied" as well, so
        with a user it is renewed and the watch tried once more."""
        reason = answer.cancel_reason or "no reason given"
        if answer.compact_revision:
            return CompactedError(
                f"revision {self._position.next_revision} is compacted up to {answer.compact_revision}",
                answer.compact_revision,
            )
        if is_stale_token(reason) or is_denial(reason):
            if self._rpc.has_user() and not self._has_renewed:
                self._has_renewed = True
                self._rpc.forget_token()
                return UnavailableError(f"etcd refused the watch ({reason}); authenticating again")
            return DeniedError(f"etcd refused the watch of {self._prefix!r} ({reason})")
        if "no leader" in reason or "server stopped" in reason:
            return UnavailableError(f"etcd ended the watch ({reason})")
        return InvalidError(f"etcd ended the watch of {self._prefix!r} ({reason})")
