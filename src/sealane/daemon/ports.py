"""A container's published ports are its own, whatever network they are reached by. Where it leaves that network they go to
the next one with a way in, and where it comes to the first one with a way in, they are there. What somebody else has come to
hold is tried again when a port is given up, and a reason not to start."""

import asyncio
import logging
from collections.abc import Iterator, Sequence

import msgspec

from sealane.engine.attachments import way_in
from sealane.engine.containers import owns_sandbox, request_of
from sealane.engine.endpoints import is_answer, unanswered
from sealane.engine.engine import Engine
from sealane.engine.errors import SealaneError
from sealane.model.change import Delete
from sealane.model.container import Container
from sealane.model.endpoint import Endpoint, PublishedPort
from sealane.model.ids import SandboxId
from sealane.wire.requests import PublishRequest

log = logging.getLogger("sealane")


class Ports:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._left: dict[SandboxId, tuple[PublishedPort, ...]] = {}
        """Of the network that a container has left last: the host's ports that nobody asked for by number stay what they
        were."""
        self._lacking: set[SandboxId] = set()
        """Whose ports somebody else holds."""
        self._changes = engine.feed.reader("ports", self._read)

    def restore(self, container: Container) -> None:
        """Before it starts: publish what is not. Raises ConflictError if somebody else holds it."""
        if owns_sandbox(container, self._engine.intent):
            self._publish(container, self._missing(container))

    def _read(self) -> None:
        to_look_at: set[SandboxId] = set()
        for change in self._changes.changes():
            record = change.record
            if not isinstance(record, Endpoint) or record.sandbox is None:
                continue
            goes = isinstance(change, Delete)
            if record.sandbox in self._engine.intent.containers_by_sandbox:
                if goes and record.ports:
                    self._left[record.sandbox] = record.ports
                if goes or change.before is None:
                    to_look_at.add(record.sandbox)
            elif goes:
                self._forget(record.sandbox)
            if record.ports and (goes or record.dormant):
                to_look_at |= self._lacking
        # Behind whatever verb this is a part of.
        for sandbox in to_look_at:
            asyncio.get_running_loop().call_soon(self._follow, sandbox)

    def _follow(self, sandbox: SandboxId) -> None:
        intent = self._engine.intent
        containers = intent.containers_by_sandbox.get(sandbox, {}).values()
        owner = next((c for c in containers if owns_sandbox(c, intent)), None)
        if owner is None:
            self._forget(sandbox)
            return
        self._lacking.discard(sandbox)
        for request in self._missing(owner):
            try:
                self._publish(owner, [request])
            except SealaneError as error:
                # Of another family, or somebody else's by now.
                self._lacking.add(sandbox)
                log.warning("ports of container %s: %s", owner.name, error.message)
                self._engine.events.emit("container.failed", owner.name, id=owner.id, error=error.message)

    def _forget(self, sandbox: SandboxId) -> None:
        self._left.pop(sandbox, None)
        self._lacking.discard(sandbox)

    def _missing(self, container: Container) -> list[PublishRequest]:
        endpoints = self._engine.intent.endpoints_by_sandbox.get(container.sandbox, {}).values()
        there = [port for endpoint in endpoints for port in endpoint.ports]
        return unanswered(request_of(container).publish, there)

    def _publish(self, container: Container, requests: Sequence[PublishRequest]) -> None:
        """By what it is reached now, if by anything. Raises SealaneError."""
        intent = self._engine.intent
        endpoints = intent.endpoints_by_sandbox.get(container.sandbox, {}).values()
        target = way_in(endpoints, intent)
        if target is None or not requests:
            return
        chosen = [port for request in requests for port in self._chosen(target, request)]
        published = self._engine.publish_more(
            target, [msgspec.structs.replace(port, came_along=True) for port in chosen]
        )
        self._engine.tell_of("endpoint.published", published)

    def _chosen(self, target: Endpoint, request: PublishRequest) -> Iterator[PublishedPort]:
        """The host's port that it had before, if that was no matter of asking and is free."""
        assert target.sandbox is not None
        before = (port for port in self._left.get(target.sandbox, ()) if is_answer(port, request))
        if (had := next(before, None)) is not None and had.is_ephemeral:
            again = msgspec.structs.replace(request, host_first=had.host_first)
            try:
                chosen = self._engine.builder.ports_of(target, [again])
            except SealaneError:
                pass
            else:
                yield from (msgspec.structs.replace(port, is_ephemeral=True) for port in chosen)
                return
        yield from self._engine.builder.ports_of(target, [request])
