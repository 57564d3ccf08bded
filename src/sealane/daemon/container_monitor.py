"""Follows container state: emits events for starts, exits, restarts and health changes.

It is told as events, and an ended container's endpoints go dormant: they keep link and addresses, and lose their names
and published ports, which others may have meanwhile. All follows from comparing what is with what was known last, so a
look too many does nothing, and one that came late misses nothing but what was undone meanwhile.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial

from sealane.containers.changes import Changes
from sealane.containers.errors import NotFoundError
from sealane.containers.runtime import Runtime
from sealane.containers.store import ContainerState
from sealane.daemon.use_counts import UseCounts
from sealane.engine.engine import Engine
from sealane.engine.errors import SealaneError
from sealane.model.change import Put
from sealane.model.container import Container
from sealane.model.endpoint import Endpoint
from sealane.model.ids import SandboxId

RETRY_S = 5.0
"""Until endpoints that could not be put to rest, or woken, are tried again."""

LOOK_S = 60.0
PACE_S = 0.002
"""Between two of the containers that are looked at one after the other."""

log = logging.getLogger("sealane")

ALIVE = frozenset({"created", "running", "restarting"})
"""One that waits to be restarted keeps what it has: it will be back in a moment."""


class ContainerMonitor:
    def __init__(
        self,
        engine: Engine,
        runtime: Runtime,
        *,
        ended: Callable[[str], None],
        lost: Callable[[str], None],
    ) -> None:
        """`ended` is told of a container that has ended for good, `lost` of one whose supervisor is gone before."""
        self._engine = engine
        self._runtime = runtime
        self._ended, self._lost = ended, lost
        self._known: dict[str, ContainerState] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._starting = UseCounts()
        self._retrying = set[str]()
        """Whose endpoints are to be tried again."""

    def start(self, loop: asyncio.AbstractEventLoop) -> Callable[[], None]:
        """Learn of all containers, and look from now on at each whose shim says that something has changed, and at all from
        time to time. The result ends it."""
        self._loop = loop
        hints = ChangeFifo(loop, self._runtime.changes_path, self._told)
        for identity in self._engine.intent.containers:
            if (state := self._state(identity)) is not None:
                self._known[identity] = state
        self._changes = self._engine.feed.reader("containers", self._joined)
        timer = loop.call_later(LOOK_S, self._look_again, hints)

        def stop() -> None:
            self._loop = None
            self._changes.close()
            timer.cancel()
            hints.close()

        return stop

    def _look_again(self, hints: "ChangeFifo") -> None:
        """At all, from time to time: a hint may be lost, and who is killed gives none."""
        if self._loop is None:
            return
        self._loop.call_later(LOOK_S, self._look_again, hints)
        hints.repair()
        for number, identity in enumerate(self._engine.intent.containers):
            self._loop.call_later(number * PACE_S, self._look_closely, identity)

    def _look_closely(self, identity: str) -> None:
        if self._loop is None:
            return
        self.look(identity)
        state = self._known.get(identity)
        if state is not None and state.is_lost:
            self._lost(identity)

    def settle_all(self) -> None:
        """Once those are back that a policy brings back: what the others have is given up."""
        sandboxes = list(self._engine.intent.containers_by_sandbox)
        ended = [sandbox for sandbox in sandboxes if self._is_over(sandbox) is True]
        self._try(partial(self._engine.deactivate, ended), "ended containers", self.settle_all)
        for sandbox in set(sandboxes).difference(ended):
            self._settle(sandbox)
        for identity, state in self._known.items():
            if state.status == "exited":
                self._ended(identity)

    def starting(self, sandbox: SandboxId) -> AbstractContextManager[None]:
        """While active, leave the sandbox's endpoints unchanged: a process is starting."""
        return self._starting.of(sandbox)

    def gone(self, container: Container) -> None:
        """A container has been removed. Who shared its sandbox may be the last."""
        self._known.pop(container.id, None)
        self._settle(container.sandbox)

    def _told(self, told: list[str] | None) -> None:
        for identity in list(self._engine.intent.containers) if told is None else told:
            self.look(identity)

    def _joined(self) -> None:
        """An endpoint that comes to a container which has ended is dormant, as its others are."""
        if self._loop is None:
            return
        for change in self._changes.changes():
            if isinstance(change, Put) and isinstance(change.record, Endpoint) and change.before is None:
                # Behind whatever verb this is a part of.
                self._loop.call_soon(self._settle, change.record.sandbox)

    def look(self, identity: str) -> None:
        """Emit events for a container's changes since the last check."""
        container = self._engine.intent.containers.get(identity)
        state = self._state(identity)
        if container is None or state is None:
            self._known.pop(identity, None)
            return
        before = self._known.get(identity) or ContainerState(id=identity, name=container.name, status="")
        self._known[identity] = state
        if state.status != before.status or state.status not in ALIVE:
            self._settle(container.sandbox)
        self._tell(container.name, before, state)
        if state.status == "exited" != before.status:
            self._ended(identity)

    def _tell(self, name: str, before: ContainerState, now: ContainerState) -> None:
        events = self._engine.events
        if now.started_at > before.started_at:
            if now.restarts > before.restarts:
                events.emit("container.restarted", name, id=now.id, restarts=str(now.restarts))
            else:
                events.emit("container.started", name, id=now.id)
        if now.finished_at > before.finished_at:
            why = {"error": now.error} if now.error else {"oom_killed": "true"} if now.oom_killed else {}
            events.emit("container.exited", name, id=now.id, exit_code=str(now.exit_code), **why)
        if now.health == before.health:
            return
        if now.health == "healthy":
            events.emit("container.healthy", name, id=now.id)
        elif now.health == "unhealthy":
            last = now.health_log[-1] if now.health_log else {}
            details = {key: str(last[key]).strip() for key in ("exit_code", "output") if key in last}
            events.emit("container.unhealthy", name, id=now.id, **details)

    def _settle(self, sandbox: SandboxId | None) -> None:
        containers = self._engine.intent.containers_by_sandbox.get(sandbox) if sandbox is not None else None
        if sandbox is None or not containers or sandbox in self._starting:
            return
        match self._is_over(sandbox):
            case None:
                return
            case True:
                deed = partial(self._engine.deactivate, [sandbox])
            case False:
                deed = partial(self._engine.activate, sandbox)
        name = next(iter(containers.values())).name
        self._try(deed, f"container {name}", partial(self._settle, sandbox))

    def _is_over(self, sandbox: SandboxId) -> bool | None:
        """Whether all containers there have ended; None where it cannot be told."""
        states = [self._state(identity) for identity in self._engine.intent.containers_by_sandbox[sandbox]]
        if any(state is None or state.status in ALIVE for state in states):
            return False
        return None if any(state is not None and state.status == "dead" for state in states) else True

    def _try(self, deed: Callable[[], None], whose: str, again: Callable[[], None]) -> None:
        try:
            deed()
        except SealaneError as error:
            if whose in self._retrying:
                return
            log.error("endpoints of %s: %s", whose, error.message)
            if self._loop is not None:
                self._retrying.add(whose)
                self._loop.call_later(RETRY_S, self._retry, whose, again)

    def _retry(self, whose: str, again: Callable[[], None]) -> None:
        self._retrying.discard(whose)
        again()

    def _state(self, identity: str) -> ContainerState | None:
        """None for one that was never started; "dead" of one whose files cannot be read, of which nothing is concluded."""
        try:
            state = self._runtime.state(identity)
        except NotFoundError:
            return None
        except OSError as error:
            state = ContainerState(id=identity, name=identity, status="dead", error=str(error))
        if state.status == "dead" and self._known.get(identity) != state:
            log.error("container %s: %s", identity, state.error)
        return state


class ChangeFifo:
    """The FIFO and its place in the loop. Without one, and where it was taken away, there are no hints until it is mended:
    no reason not to start."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, path: str, told: Callable[[list[str] | None], None]
    ) -> None:
        self._loop = loop
        self._path = path
        self._told = told
        self._changes: Changes | None = None
        self.repair()

    def repair(self) -> None:
        if self._changes is not None and self._changes.is_at(self._path):
            return
        self.close()
        try:
            self._changes = Changes(self._path)
        except OSError as error:
            log.error("%s: %s", self._path, error.strerror)
            return
        self._loop.add_reader(self._changes.fileno(), self._read)

    def _read(self) -> None:
        assert self._changes is not None
        self._told(self._changes.read())

    def close(self) -> None:
        if self._changes is not None:
            self._loop.remove_reader(self._changes.fileno())
            self._changes.close()
            self._changes = None
