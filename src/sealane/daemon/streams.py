"""Output of blocking readers as asynchronous streams, bounded, and ended when nobody reads any more."""

import asyncio
import os
import selectors
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Generic, TypeVar

from sealane.containers.execution import ExecSession
from sealane.containers.logs import LogLine
from sealane.wire.views import ExecView, LogView

T = TypeVar("T")

QUEUE = 64
"""Pieces between the thread that reads and a client that is slow to take them."""

PIECE = 32768
"""Bytes of output in one piece."""

POLL_S = 0.25
"""How long a reader waits before it looks whether anybody still wants its output."""


class Stream(Generic[T]):
    """Runs a blocking generator on a thread of its own. Closing it (a client that hung up) sets `stop`, which the
    generator looks at between pieces."""

    def __init__(self, produce: Callable[[threading.Event], Iterator[T]]) -> None:
        self._produce = produce

    async def __aiter__(self) -> AsyncIterator[T]:
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[T | BaseException | None] = asyncio.Queue(QUEUE)
        stop = threading.Event()

        def put(item: T | BaseException | None) -> None:
            # Nobody reads any more, and the loop itself may be gone.
            if stop.is_set():
                return
            future = asyncio.run_coroutine_threadsafe(queue.put(item), loop)
            while not stop.is_set():
                try:
                    future.result(POLL_S)
                except TimeoutError:
                    continue
                return
            future.cancel()

        def run() -> None:
            try:
                for item in self._produce(stop):
                    put(item)
                    if stop.is_set():
                        return
                put(None)
            except BaseException as error:
                put(error)

        threading.Thread(target=run, name="sealane-stream", daemon=True).start()
        try:
            while (item := await queue.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            stop.set()


def log_views(lines: Iterable[LogLine], stop: threading.Event) -> Iterator[LogView]:
    for line in lines:
        if stop.is_set():
            return
        text = line.text.decode(errors="replace")
        yield LogView(stream=line.stream, time=line.unix_time, text=text)  # type: ignore[arg-type]


def exec_output(session: ExecSession, stdin: bytes, stop: threading.Event) -> Iterator[ExecView]:
    """Feed a process its input, and yield its output as it comes and its exit code at the end."""
    feeder = threading.Thread(target=_feed, args=(session, stdin), daemon=True)
    feeder.start()
    has_said_why = False
    with selectors.DefaultSelector() as selector:
        selector.register(session.stdout, selectors.EVENT_READ, "stdout")
        selector.register(session.stderr, selectors.EVENT_READ, "stderr")
        while selector.get_map() and not stop.is_set():
            for key, _ in selector.select(POLL_S):
                data = os.read(key.fd, PIECE)
                if data:
                    has_said_why |= key.data == "stderr"
                    yield ExecView(stream=key.data, data=data)
                else:
                    selector.unregister(key.fileobj)
    if not stop.is_set():
        code = session.wait()
        if session.error and not has_said_why:
            yield ExecView(stream="stderr", data=session.error.encode() + b"\n")
        yield ExecView(stream="exit", exit_code=code)


def _feed(session: ExecSession, stdin: bytes) -> None:
    try:
        if stdin:
            session.stdin.write(stdin)
        session.stdin.close()
    except OSError:
        # The process ended without reading its input.
        return
