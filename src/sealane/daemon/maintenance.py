"""What is done about containers that nobody asks about: whose supervisor or machine died, and who are not to be kept."""

import asyncio
import contextlib
import logging
from collections.abc import Coroutine, Sequence
from typing import Any, Protocol

from sealane.containers.errors import NotFoundError as RuntimeNotFound
from sealane.containers.runtime import Runtime
from sealane.daemon.container_monitor import ContainerMonitor
from sealane.daemon.runtime_errors import by_name, translated
from sealane.daemon.use_counts import UseCounts
from sealane.engine.containers import dependents, request_of
from sealane.engine.engine import Engine
from sealane.engine.errors import NotFoundError, SealaneError
from sealane.engine.labels import OWNED_BY
from sealane.model.container import Container

log = logging.getLogger("sealane")

AUTO_REMOVE_S = 0.5
"""After its end, and after the last who attended it, of a container that is not to be kept: for who asks for its exit code
just then."""


class _Verbs(Protocol):
    """What others ask for, and is done here unasked."""

    async def start(self, reference: str) -> object: ...
    async def remove(self, reference: str) -> object: ...


class ContainerMaintenance:
    def __init__(self, engine: Engine, runtime: Runtime, verbs: _Verbs) -> None:
        self._engine, self._runtime, self._verbs = engine, runtime, verbs
        self.container_monitor = ContainerMonitor(engine, runtime, ended=self._ended, lost=self.lost)
        self.use_counts = UseCounts()
        self._reviving = self._has_lost = False
        self._tasks = set[asyncio.Task[None]]()

    # --- after a start of the daemon, and of the machine

    async def recover(self, *, sweep: bool) -> Sequence[str]:
        """Complete or remove what a crash left half-made; start again what its policy wants after a reboot."""
        engine = self._engine
        done = []
        for sandbox in list(engine.intent.sandboxes.values()):
            owner = sandbox.labels.get(OWNED_BY)
            if owner is not None and owner not in engine.intent.containers:
                with contextlib.suppress(SealaneError):
                    engine.remove_sandbox(sandbox.id, force=True)
                    done.append(f"sandbox {sandbox.name} removed: its container never was")
        known = [c.id for c in engine.intent.containers.values()]
        if sweep:
            with translated(engine.intent):
                swept = await asyncio.to_thread(self._runtime.sweep, known)
            done += [f"container {identity[:12]} removed: no record" for identity in swept]
        unstarted = [identity for identity in engine.intent.containers if not self._status(identity)]
        done += await self._restart_lost()
        done += [await self._restart(identity) for identity in unstarted]
        return [line for line in done if line]

    def _status(self, identity: str) -> str:
        """Empty for one that was never started, or is gone."""
        try:
            return self._runtime.state(identity).status
        except RuntimeNotFound:
            return ""

    async def _restart_lost(self) -> Sequence[str]:
        """Bury what has lost its supervisor, and start again what its policy wants."""
        with translated(self._engine.intent):
            found = await asyncio.to_thread(self._runtime.recover)
        for buried in found:
            self.container_monitor.look(buried.id)
        return [await self._restart(buried.id) for buried in found if buried.restart]

    async def _restart(self, identity: str) -> str:
        container = self._engine.intent.containers.get(identity)
        if container is None:
            return ""
        try:
            await self._verbs.start(container.id)
        except SealaneError as error:
            self._engine.events.emit("container.failed", container.name, error=error.message)
            return f"container {container.name} not started: {error.message}"
        return f"container {container.name} started again"

    # --- meanwhile

    def lost(self, identity: str) -> None:
        """Somebody killed a container's supervisor. All that have lost theirs are revived at once, by one at a time."""
        self._has_lost = True
        if self._reviving:
            return
        log.error("container %s has lost its supervisor", by_name(identity, self._engine.intent))

        async def restart_lost() -> None:
            try:
                # Again, if one was lost meanwhile: it may not have been among them yet.
                while self._has_lost:
                    self._has_lost = False
                    for line in await self._restart_lost():
                        log.info("%s", line)
            finally:
                self._reviving = False

        self._reviving = True
        self._begin(restart_lost())

    def _ended(self, identity: str) -> None:
        container = self._engine.intent.containers.get(identity)
        if container is not None and request_of(container).auto_remove:
            self._begin(self._remove_unattended(identity))

    async def _remove_unattended(self, identity: str) -> None:
        """Who waits for it reads its exit code and its last words, and removes it himself; guests of its sandbox keep it."""
        with contextlib.suppress(NotFoundError):
            while True:
                await self.use_counts.over(identity, AUTO_REMOVE_S)
                container = self._engine.intent.containers.get(identity)
                if container is None or self._status(identity) != "exited":
                    return
                if self.is_spent(container):
                    await self._verbs.remove(identity)

    def is_spent(self, container: Container) -> bool:
        """Whether it is there only until it is removed: its name is free for who asks."""
        return (
            request_of(container).auto_remove
            and container.id not in self.use_counts
            and self._status(container.id) == "exited"
            and not dependents(container, self._engine.intent)
        )

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        """What nobody waits for."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(_log_failure)


def _log_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("a container's upkeep failed", exc_info=error)
