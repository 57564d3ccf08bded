"""The plugin's socket, and what dockerd does not tell: when a sandbox's namespace is there.

    integration = Integration(engine, loop)
    await integration.start("/run/docker/plugins/sealane.sock")    # or sockets that the service manager made
    ...
    await integration.stop()

Docker 20.10 asks to join a sandbox whose namespace runc has yet to make. Once it is there it is noted, and from then
on the engine knows by its own means when the sandbox is dead, whoever forgot to say so.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from socket import socket

from sealane.engine.engine import Engine
from sealane.engine.errors import SealaneError
from sealane.http.connection import Bounds
from sealane.http.server import HttpServer
from sealane.integrations.cnm.routes import PluginRoutes
from sealane.model.endpoint import Sandbox

log = logging.getLogger("sealane.cnm")

PLUGIN_SOCKET = "/run/docker/plugins/sealane.sock"
"""Where dockerd looks for a driver of this name (moby pkg/plugins/discovery_unix.go); the file's name is the driver's."""

IDLE_S = 86_400.0
"""dockerd keeps connections open between requests, and one that breaks under a request costs it the request's body
(`routes`): so we are not the one to close them."""

LOOK_FIRST_S = 0.1
LOOK_LAST_S = 5.0
"""Pauses between looks for namespaces that are awaited: doubled from the one to the other."""
GIVE_UP_S = 300.0
"""A namespace that has not come in this time never will: runc takes milliseconds."""
GIVE_UP_OLD_S = 20.0
"""The same of one that was awaited before this daemon began: its container may have been stopped meanwhile, and may be
started again with the same addresses and ports as soon as they are free."""


class Integration:
    def __init__(
        self, engine: Engine, loop: asyncio.AbstractEventLoop, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._loop = loop
        self._clock = clock
        self._awaited: dict[str, float] = {}
        """Sandbox → when it was first seen without its namespace."""
        self._old: frozenset[str] = frozenset()
        """Sandboxes that were awaited before."""
        self._pause = LOOK_FIRST_S
        self._timer: asyncio.TimerHandle | None = None
        self._open(engine)
        self._server = HttpServer(self._routes, bounds=Bounds(idle_s=IDLE_S))

    def _open(self, engine: Engine) -> None:
        self._routes = PluginRoutes(engine)
        self._old = frozenset(sandbox.id for sandbox in self._routes.staged.awaited())
        self._changes = engine.feed.reader("docker", self._read)
        self._look_soon()

    def serve(self, engine: Engine) -> None:
        """Another engine from now on: the store could not be read before."""
        self._open(engine)
        self._server.routes = self._routes

    async def start(self, where: str | Sequence[socket]) -> None:
        """Raises InvalidError, ConflictError."""
        await self._server.start(where)

    async def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        await self._server.stop()

    def _read(self) -> None:
        changes = self._changes.changes()
        if any(
            isinstance(c.record, Sandbox) and c.record.awaited and c.record.netns is None for c in changes
        ):
            self._look_soon()

    def _look_soon(self) -> None:
        self._pause = LOOK_FIRST_S
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(self._pause, self._look)

    def _look(self) -> None:
        self._timer = None
        try:
            waiting = [s for s in self._routes.staged.awaited() if not self._is_found(s)]
        except SealaneError as error:
            log.warning("looking for sandboxes: %s", error.message)
            waiting = self._routes.staged.awaited()
        self._awaited = {s.id: self._awaited.get(s.id, self._clock()) for s in waiting}
        if waiting:
            self._pause = min(LOOK_LAST_S, self._pause * 2)
            self._timer = self._loop.call_later(self._pause, self._look)

    def _is_found(self, sandbox: Sandbox) -> bool:
        staged = self._routes.staged
        if staged.look_for(sandbox):
            return True
        patience = GIVE_UP_OLD_S if sandbox.id in self._old else GIVE_UP_S
        if self._clock() - self._awaited.get(sandbox.id, self._clock()) < patience:
            return False
        staged.give_up(sandbox)
        return True
