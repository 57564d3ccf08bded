"""Output of blocking readers as asynchronous streams, bounded, and ended when nobody reads any more."""

import asyncio
import contextlib
import json
import select
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any, Generic, TypeVar

from sealane.containers.frames import ERRORS, EXIT, INPUT, Peer, frame
from sealane.containers.logs import LogLine
from sealane.engine.errors import KernelError
from sealane.wire.views import ExecView, LogView

T = TypeVar("T")

QUEUE = 64
"""Pieces between the thread that reads and a client that is slow to take them."""

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


def exec_output(connection: socket.socket, stdin: bytes, stop: threading.Event) -> Iterator[ExecView]:
    """What a process that is given this input and no more says, as it comes, and its exit code at the end. Without its
    attendant it has no end: KernelError."""
    with contextlib.closing(Peer(connection)) as exec_shim:
        exec_shim.send((frame(INPUT, stdin) if stdin else b"") + frame(INPUT))
        poll = select.poll()
        while not stop.is_set() and exec_shim.is_open:
            poll.register(exec_shim.fileno(), exec_shim.events())
            if not poll.poll(POLL_S * 1000):
                continue
            exec_shim.flush()
            for kind, payload in exec_shim.receive():
                if kind == EXIT:
                    yield from _end_views(json.loads(payload))
                    return
                yield ExecView(stream="stderr" if kind == ERRORS else "stdout", data=payload)
    if not stop.is_set():
        raise KernelError("the process was lost: somebody killed its attendant")


def _end_views(end: dict[str, Any]) -> Iterator[ExecView]:
    if end["error"]:
        yield ExecView(stream="stderr", data=f"{end['error']}\n".encode())
    yield ExecView(stream="exit", exit_code=end["exit_code"])
