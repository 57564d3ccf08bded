"""The client: every call can be made from any thread and returns a `concurrent.futures.Future`; callbacks come on the
client's own thread. Promises and faults: docs/design/etcd.md."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from typing import Any, Self, TypeVar

import grpc

from sealane.etcd import etcd_pb2 as pb
from sealane.etcd import leases, messages
from sealane.etcd.channel import OPTIONS, Options, open_channel
from sealane.etcd.errors import CompactedError, InvalidError, UnavailableError, UnknownOutcomeError
from sealane.etcd.records import Applied, Compare, Delete, Lease, Listing, Put, Record, Refused, Status, Tls
from sealane.etcd.rpc import COMPACT, RANGE, STATUS, TXN, Rpc
from sealane.etcd.watch import Listener, Watcher

T = TypeVar("T")

DEADLINE_S = 8.0
"""Of a call, or of one page of a listing."""

PAGE_RECORDS = 10_000
"""etcd counts the whole range for each page, so small pages of a large range cost it more than they save."""

LISTING_TRIES = 3
"""A listing whose revision is compacted between two pages starts again, so often."""

CLOSE_S = 5.0


class Running:
    """A watch or a keep-alive. `close` is idempotent; a callback under way on the client's thread completes."""

    def __init__(self, future: Future[None]) -> None:
        self._future = future

    def close(self) -> None:
        self._future.cancel()

    def is_over(self) -> bool:
        return self._future.done()


class Client:
    """Nothing is sent before the first call. Endpoints: `http://ADDRESS:PORT`, or https with `tls`; several must be
    addresses of one family. InvalidError: an endpoint or a TLS file is wrong."""

    def __init__(
        self,
        endpoints: Sequence[str],
        *,
        tls: Tls | None = None,
        user: str = "",
        password: str = "",
        options: Options = OPTIONS,
    ) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="etcd", daemon=True)
        self._thread.start()
        self._is_closed = False
        self._lock = threading.Lock()
        try:
            opening = asyncio.run_coroutine_threadsafe(self._open(endpoints, tls, options), self._loop)
            self._channel = opening.result()
        except BaseException:
            self._stop()
            raise
        self._rpc = Rpc(self._channel, user, password)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_raised: object) -> None:
        self.close()

    def close(self) -> None:
        """Idempotent, from any thread but the client's own. Calls that wait raise; watches end without `on_end`."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
        closing = asyncio.run_coroutine_threadsafe(self._close(), self._loop)
        with contextlib.suppress(TimeoutError):
            closing.result(CLOSE_S)
        self._stop()

    def get(self, keys: Sequence[bytes], *, deadline_s: float = DEADLINE_S) -> Future[Listing]:
        """Those of up to 128 keys that exist, all at one revision. UnavailableError, DeniedError, InvalidError."""
        asked = tuple(keys)
        return self._submit(lambda: self._get(asked, deadline_s))

    def get_prefix(
        self, prefix: bytes, *, page_records: int = PAGE_RECORDS, deadline_s: float = DEADLINE_S
    ) -> Future[Listing]:
        """All records below a prefix at one revision, read in pages; `deadline_s` is that of one page.

        UnavailableError, DeniedError; CompactedError if compactions kept overtaking it.
        """
        return self._submit(lambda: self._get_prefix(prefix, page_records, deadline_s))

    def transact(
        self,
        compares: Sequence[Compare],
        changes: Sequence[Put | Delete],
        *,
        otherwise: Sequence[bytes] = (),
        deadline_s: float = DEADLINE_S,
    ) -> Future[Applied | Refused]:
        """All changes if every comparison holds; else nothing, and the records of the keys `otherwise`.

        UnknownOutcomeError: it may have been applied. UnavailableError, FullError, DeniedError, InvalidError: it was
        not. Limits (messages.py) are checked before anything is sent.
        """
        asked = tuple(compares), tuple(changes), tuple(otherwise)
        return self._submit(lambda: self._transact(*asked, deadline_s), is_write=bool(changes))

    def watch(self, prefix: bytes, from_revision: int, listener: Listener) -> Running:
        """Events below a prefix from a revision on, until closed or `on_end`; a broken stream is opened again.

        `on_events` gets whole revisions, in order, each once. `on_end` gets the reason: CompactedError (list again),
        DeniedError, or what a callback raised. `on_broken` and `on_open` tell of each loss and return of the stream;
        `on_open` gets the member's revision, before any event.
        """
        if from_revision < 1:
            raise InvalidError(f"watch from revision {from_revision}: write a listing's revision + 1")
        return Running(self._start(Watcher(self._rpc, prefix, from_revision, listener).run))

    def grant(self, ttl_s: int, *, deadline_s: float = DEADLINE_S) -> Future[Lease]:
        """UnavailableError: if it was granted all the same it expires by itself."""
        return self._submit(lambda: leases.grant(self._rpc, ttl_s, deadline_s))

    def keep_alive(self, lease: Lease, on_lost: Callable[[Exception], None]) -> Running:
        """Renews the lease three times per TTL until closed. `on_lost` comes once, when etcd says that it is gone."""
        return Running(self._start(lambda: leases.keep_alive(self._rpc, lease, on_lost)))

    def revoke(self, lease: Lease, *, deadline_s: float = DEADLINE_S) -> Future[None]:
        """With the lease go its keys. Idempotent."""
        return self._submit(lambda: leases.revoke(self._rpc, lease, deadline_s))

    def compact(self, revision: int, *, deadline_s: float = DEADLINE_S) -> Future[None]:
        """Forget what was before `revision`. Idempotent; InvalidError if the revision is in the future."""
        return self._submit(lambda: self._compact(revision, deadline_s))

    def status(self, *, deadline_s: float = DEADLINE_S) -> Future[Status]:
        """Of one member, as the next call would find it."""
        return self._submit(lambda: self._status(deadline_s))

    @property
    def authentications(self) -> int:
        """Tokens fetched so far; each costs etcd 200 ms of processor."""
        return self._rpc.authentications

    def _submit(self, work: Callable[[], Coroutine[Any, Any, T]], *, is_write: bool = False) -> Future[T]:
        try:
            return self._start(lambda: self._until_closed(work, is_write=is_write))
        except UnavailableError as error:
            refused: Future[T] = Future()
            refused.set_exception(error)
            return refused

    def _start(self, work: Callable[[], Coroutine[Any, Any, T]]) -> Future[T]:
        with self._lock:
            if self._is_closed:
                raise UnavailableError("the etcd client is closed")
            return asyncio.run_coroutine_threadsafe(work(), self._loop)

    async def _until_closed(self, work: Callable[[], Coroutine[Any, Any, T]], *, is_write: bool) -> T:
        """A caller that waits while the client is closed gets an error that says what is certain."""
        try:
            return await work()
        except asyncio.CancelledError:
            if not self._is_closed:
                raise
            error = UnknownOutcomeError if is_write else UnavailableError
            raise error("the etcd client was closed before etcd answered") from None

    async def _get(self, keys: tuple[bytes, ...], deadline_s: float) -> Listing:
        return messages.listing_of(await self._rpc.read(TXN, messages.gets_request(keys), deadline_s))

    async def _get_prefix(self, prefix: bytes, page_records: int, deadline_s: float) -> Listing:
        for _ in range(LISTING_TRIES - 1):
            with contextlib.suppress(CompactedError):
                return await self._list(prefix, page_records, deadline_s)
        return await self._list(prefix, page_records, deadline_s)

    async def _list(self, prefix: bytes, page_records: int, deadline_s: float) -> Listing:
        records: list[Record] = []
        start, revision = b"", 0
        while True:
            request = messages.range_request(prefix, start, page_records, revision)
            answer = await self._rpc.read(RANGE, request, deadline_s)
            records += messages.records_of(answer.kvs)
            revision = revision or answer.header.revision
            if not answer.more or not answer.kvs:
                return Listing(tuple(records), revision)
            start = records[-1].key + b"\0"

    async def _transact(
        self,
        compares: tuple[Compare, ...],
        changes: tuple[Put | Delete, ...],
        otherwise: tuple[bytes, ...],
        deadline_s: float,
    ) -> Applied | Refused:
        request = messages.transaction_request(compares, changes, otherwise)
        call = self._rpc.write if changes else self._rpc.read
        answer = await call(TXN, request, deadline_s)
        return Applied(answer.header.revision) if answer.succeeded else messages.refused_of(answer)

    async def _compact(self, revision: int, deadline_s: float) -> None:
        with contextlib.suppress(CompactedError):
            await self._rpc.read(COMPACT, pb.CompactionRequest(revision=revision), deadline_s)

    async def _status(self, deadline_s: float) -> Status:
        return messages.status_of(await self._rpc.read(STATUS, pb.StatusRequest(), deadline_s))

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    async def _open(self, endpoints: Sequence[str], tls: Tls | None, options: Options) -> grpc.aio.Channel:
        return open_channel(endpoints, tls, options)

    async def _close(self) -> None:
        current = asyncio.current_task()
        running = [task for task in asyncio.all_tasks() if task is not current]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await self._channel.close()

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
