"""Keeps /etc/hosts and /etc/resolv.conf of containers in step with the networks that they are on."""

import asyncio
import logging
from collections.abc import Callable

from sealane.containers.errors import ContainerError, NotFoundError
from sealane.containers.runtime import Runtime
from sealane.containers.spec import Dns
from sealane.daemon.requests import dns_of, hosts_of
from sealane.dns.resolvconf import Resolver
from sealane.engine.containers import request_of
from sealane.engine.engine import Engine
from sealane.model.container import Container
from sealane.model.endpoint import Endpoint
from sealane.model.ids import SandboxId
from sealane.wire.requests import ContainerRequest

log = logging.getLogger("sealane")


class EtcFiles:
    """One task at a time writes, on a thread, so that what is written last is what was true last. A failure is logged:
    the attachment that led to it stands, and the files are as they were."""

    def __init__(self, engine: Engine, runtime: Runtime, resolver: Callable[[], Resolver]) -> None:
        """`resolver`: the host's."""
        self._engine = engine
        self._runtime = runtime
        self._resolver = resolver
        self._dirty: set[SandboxId] = set()
        self._task: asyncio.Task[None] | None = None
        self._changes = engine.feed.reader("etc files", self._read)

    def _read(self) -> None:
        for change in self._changes.changes():
            record, before = change.record, change.before
            if not isinstance(record, Endpoint) or record.sandbox is None:
                continue
            if not isinstance(before, Endpoint) or before.sandbox != record.sandbox:
                self.refresh(record.sandbox)

    def refresh(self, sandbox: SandboxId) -> None:
        """Write the files of the containers in a sandbox soon."""
        self._dirty.add(sandbox)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._write_dirty())

    def contents(self, request: ContainerRequest, sandbox: SandboxId) -> tuple[tuple[str, ...], Dns]:
        """Further lines of /etc/hosts, and what /etc/resolv.conf is made of."""
        intent = self._engine.intent
        endpoints = list(intent.endpoints_by_sandbox.get(sandbox, {}).values())
        return hosts_of(request, endpoints, intent), dns_of(request, endpoints, intent, self._resolver())

    async def _write_dirty(self) -> None:
        while self._dirty:
            sandboxes, self._dirty = self._dirty, set()
            containers = self._engine.intent.containers_by_sandbox
            for container in [c for s in sandboxes for c in containers.get(s, {}).values()]:
                await self._write(container)

    async def _write(self, container: Container) -> None:
        hosts, dns = self.contents(request_of(container), container.sandbox)
        try:
            await asyncio.to_thread(self._runtime.update_hosts, container.id, hosts)
            await asyncio.to_thread(self._runtime.update_resolv, container.id, dns)
        except NotFoundError:
            # Not started yet, and it will start with these very files; or removed meanwhile.
            return
        except (ContainerError, OSError) as error:
            log.error(
                "container %s: /etc/hosts and /etc/resolv.conf are out of date: %s", container.name, error
            )
