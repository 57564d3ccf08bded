"""A container's published ports are its own, whatever network they are reached by. Where it leaves that network they go to
the next one with a way in, and where it comes to the first one with a way in, they are there."""

import asyncio
import logging
from collections.abc import Sequence

from sealane.engine.attachments import way_in
from sealane.engine.containers import owns_sandbox, request_of
from sealane.engine.engine import Engine
from sealane.engine.errors import SealaneError
from sealane.model.change import Change, Delete
from sealane.model.endpoint import Endpoint
from sealane.model.ids import SandboxId

log = logging.getLogger("sealane")


class Ports:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        engine.listeners.append(self._changed)

    def _changed(self, changes: Sequence[Change]) -> None:
        for change in changes:
            record = change.record
            comes_or_goes = isinstance(change, Delete) or change.before is None
            if isinstance(record, Endpoint) and record.sandbox is not None and comes_or_goes:
                # Behind whatever verb this is a part of.
                asyncio.get_running_loop().call_soon(self._follow, record.sandbox)

    def _follow(self, sandbox: SandboxId) -> None:
        intent = self._engine.intent
        containers = intent.containers_by_sandbox.get(sandbox, {}).values()
        owner = next((c for c in containers if owns_sandbox(c, intent)), None)
        endpoints = list(intent.endpoints_by_sandbox.get(sandbox, {}).values())
        if owner is None or any(endpoint.ports for endpoint in endpoints):
            return
        ports, target = request_of(owner).publish, way_in(endpoints, intent)
        if not ports or target is None:
            return
        try:
            self._engine.publish(target, ports)
        except SealaneError as error:
            # Of another family, or somebody else's by now.
            log.warning("ports of container %s: %s", owner.name, error.message)
            self._engine.events.emit("container.failed", owner.name, id=owner.id, error=error.message)
        else:
            self._engine.tell_of("endpoint.published", target)
