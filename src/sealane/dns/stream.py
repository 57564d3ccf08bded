"""Questions over TCP (RFC 7766): a task for each connection, every wait bounded, connections counted.

Scars: CVE-2024-8418 (aardvark-dns: one silent client stopped all), CVE-2026-35406 (aardvark-dns: half a query and a
reset spun for ever). tests/kernel/test_dns.py plays both.
"""

import asyncio
import socket
from collections import Counter
from collections.abc import Awaitable, Callable

from sealane.dns.limits import (
    QUERY_BYTES,
    STREAM_CLIENTS,
    STREAM_CLIENTS_EACH,
    STREAM_QUERIES,
    STREAM_TIMEOUT_S,
)
from sealane.dns.listen import Listener

Answer = Callable[[Listener, str, bytes], Awaitable[bytes | None]]


class StreamService:
    """Belongs to one event loop. ``answer`` gives the reply to a query, or None for a connection to be closed."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._clients: Counter[tuple[int, str]] = Counter()
        self._servers: dict[socket.socket, asyncio.Server] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.refused = 0

    @property
    def connections(self) -> int:
        return self._clients.total()

    async def open(self, listener: Listener, listening: socket.socket) -> None:
        """Serve a listening socket, unless ``close`` came first."""
        if listening.fileno() < 0:
            return

        def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.get_running_loop().create_task(self._serve(listener, reader, writer))
            self._tasks.add(task)

            def ended(_: asyncio.Task[None]) -> None:
                # Here and not in the task, which does not begin if it is cancelled first.
                self._tasks.discard(task)
                writer.transport.abort()

            task.add_done_callback(ended)

        # Not serving yet, it is made without a pause in which `close` would not find it.
        server = await asyncio.start_server(accepted, sock=listening, limit=QUERY_BYTES, start_serving=False)
        self._servers[listening] = server
        await server.start_serving()

    def close(self, listening: socket.socket) -> None:
        server = self._servers.pop(listening, None)
        if server is None:
            listening.close()
            return
        loop = server.get_loop()
        loop.remove_reader(listening)
        # A task of asyncio's that has accepted a connection and not begun yet fails if it finds the server closed, and
        # leaves the connection open (python/cpython#109564).
        loop.call_soon(server.close)

    async def stop(self) -> None:
        """Close everything but what asyncio has accepted and not told us of."""
        for listening in list(self._servers):
            self.close(listening)
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(
        self, listener: Listener, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        peer = writer.get_extra_info("peername")
        # None when the client reset the connection before it was accepted.
        source: str = peer[0] if peer else ""
        client = (id(listener), source)
        if not source or self._clients[client] >= STREAM_CLIENTS_EACH or self.connections >= STREAM_CLIENTS:
            self.refused += 1
            return
        self._clients[client] += 1
        try:
            for _ in range(STREAM_QUERIES):
                if not await self._serve_one(listener, source, reader, writer):
                    return
        except (OSError, EOFError):
            return  # Too slow, cut short or reset: nobody is there to be told.
        finally:
            self._clients[client] -= 1
            if not self._clients[client]:
                del self._clients[client]

    async def _serve_one(
        self, listener: Listener, source: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        async with asyncio.timeout(STREAM_TIMEOUT_S):
            length = int.from_bytes(await reader.readexactly(2), "big")
            if length > QUERY_BYTES:
                return False
            query = await reader.readexactly(length)
        answer = await self._answer(listener, source, query)
        if answer is None:
            return False
        writer.write(len(answer).to_bytes(2, "big") + answer)
        async with asyncio.timeout(STREAM_TIMEOUT_S):
            await writer.drain()
        return True
