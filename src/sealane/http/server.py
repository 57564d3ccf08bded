"""HTTP on unix sockets: who may connect, how many, and for how long.

    server = HttpServer(routes)
    await server.start("/run/sealane/sealane.sock")   # or sockets that are bound already
    ...
    await server.stop()

Nobody but root and the daemon's own user is answered: the file's mode says so, and the peer's credentials are checked
again, for a socket that a service manager made may have any mode.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import Collection, Sequence

from sealane.http.connection import Bounds, Connection, Finder
from sealane.http.listen import BACKLOG, listen

ACCEPT_TURNS = 4
"""Turns of the loop after which a connection that it had accepted is known here (asyncio takes three)."""


class HttpServer:
    """`uids` are the users that are answered; None: root and the daemon's own."""

    def __init__(
        self, routes: Finder, *, bounds: Bounds | None = None, uids: Collection[int] | None = None
    ) -> None:
        self.routes = routes
        self.bounds = bounds or Bounds()
        self._uids = frozenset({0, os.geteuid()} if uids is None else uids)
        self._connections: set[Connection] = set()
        self._listeners: list[asyncio.Server] = []
        self._sweeper: asyncio.TimerHandle | None = None
        self._path = ""
        self._inode: tuple[int, int] | None = None
        self._is_stopping = False
        self._empty = asyncio.Event()
        self._empty.set()

    async def start(self, where: str | Sequence[socket.socket]) -> None:
        """Listen on a path of ours, or on sockets that somebody else made. Raises InvalidError, ConflictError."""
        loop = asyncio.get_running_loop()
        sockets = where
        if isinstance(where, str):
            sockets = [listen(where)]
            self._path, self._inode = where, _inode(where)
        for sock in sockets:
            assert isinstance(sock, socket.socket)
            sock.setblocking(False)
            # Not create_unix_server: from 3.13 on it unlinks the path on closing, an inherited socket's too.
            server = await loop.create_server(lambda: Connection(self), sock=sock, backlog=BACKLOG)
            self._listeners.append(server)
        self._sweep()

    async def stop(self) -> None:
        """Stop listening, let verbs under way finish (for `stop_s`), end streams. Idempotent."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        if self._inode is not None and _inode(self._path) == self._inode:
            os.unlink(self._path)
        self._inode = None
        await self._stop_listening()
        for connection in tuple(self._connections):
            connection.stop()
        tasks = {c.task for c in self._connections if c.task is not None}
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=self.bounds.stop_s)
            for task in late:
                task.cancel()
            await asyncio.wait(tasks)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._empty.wait(), self.bounds.stop_s)
        for connection in tuple(self._connections):
            connection.abort()
        await self._empty.wait()
        self._listeners.clear()

    async def _stop_listening(self) -> None:
        """asyncio loses a connection that it has accepted and not yet made a transport for when its server is closed
        (Server._attach fails, and the socket stays open): so first no more are accepted, then those are waited for."""
        self._is_stopping = True
        loop = asyncio.get_running_loop()
        for server in self._listeners:
            for sock in server.sockets:
                loop.remove_reader(sock.fileno())
        for _ in range(ACCEPT_TURNS):
            await asyncio.sleep(0)
        for server in self._listeners:
            server.close()

    # --- for connections

    def refusal(self, uid: int) -> tuple[int, str] | None:
        if uid not in self._uids:
            return 403, "this user may not use the daemon"
        if self._is_stopping:
            return 503, "the daemon is stopping"
        if len(self._connections) > self.bounds.connections:
            return 503, f"{self.bounds.connections} connections are open, which is the most"
        return None

    def opened(self, connection: Connection) -> None:
        self._connections.add(connection)
        self._empty.clear()

    def closed(self, connection: Connection) -> None:
        """Called again by a connection that a verb outlived."""
        if connection.task is None:
            self._connections.discard(connection)
            if not self._connections:
                self._empty.set()

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for connection in tuple(self._connections):
            if connection.deadline < now:
                connection.expire()
        self._sweeper = loop.call_later(self.bounds.sweep_s, self._sweep)


def _inode(path: str) -> tuple[int, int] | None:
    with contextlib.suppress(OSError):
        found = os.lstat(path)
        return found.st_dev, found.st_ino
    return None
