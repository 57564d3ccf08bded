"""The hook's two stages, on the engine's verbs.

An attachment has the process that its namespace was found by as another label. A runtime may call a hook twice (it stands
in config.json and in hooks.d), or late, or for a container that has come back under its id. So what goes by is not the
stage alone, but whether the process is still in that namespace:

- createRuntime takes away what the id has of processes that are dead, and then attaches.
- poststop takes away that, and nothing else: what lives is the next container's.
- A second container of the same id (runtimes have roots of their own) is another process, and is left alone.
"""

import asyncio

from sealane.engine.engine import Engine
from sealane.engine.errors import InvalidError, SealaneError
from sealane.integrations.attachments import Attachments, Detach
from sealane.integrations.oci.annotations import CONTAINER, PID, annotation_of, desired
from sealane.model.endpoint import Endpoint, NetnsRef
from sealane.wire.oci import OciRequest, OciView
from sealane.wire.requests import AttachRequest
from sealane.wire.views import EndpointView

DEATH_S = 2.0
"""poststop: a process that was killed may need a moment until it is dead."""
LOOK_S = 0.02


class Oci:
    def __init__(self, engine: Engine, detach: Detach) -> None:
        self._engine = engine
        self._attachments = Attachments(engine, detach, CONTAINER)

    async def call(self, request: OciRequest) -> OciView:
        """Raises the engine's errors."""
        if not request.id:
            raise InvalidError("a container has an id", field="id")
        if request.stage == "poststop":
            return await self._detach(request)
        try:
            return await self._attach(request)
        except SealaneError as error:
            # crun does not show what its hooks say.
            self._engine.events.emit("container.refused", request.id, error=f"{error.field}: {error.message}")
            raise

    async def _attach(self, request: OciRequest) -> OciView:
        self._engine.check_may_change()
        self._namespace(request.pid)
        requests = desired(request, self._engine.intent)
        await self._attachments.settled(self._attachments.of(request.id))
        await self._attachments.remove(self._dead(request.id))
        try:
            return OciView(endpoints=[self._attach_one(each, request) for each in requests])
        except SealaneError:
            await self._attachments.remove(
                [e for e in self._attachments.of(request.id) if _pid(e) == request.pid]
            )
            raise

    def _attach_one(self, desired: AttachRequest, request: OciRequest) -> EndpointView:
        try:
            return self._engine.attach(desired)
        except SealaneError as error:
            field = annotation_of(error.field, desired.network, request.annotations)
            raise type(error)(error.message, field=field, hint=error.hint) from error

    async def _detach(self, request: OciRequest) -> OciView:
        waited_s = 0.0
        while len(self._attachments.of(request.id)) > len(self._dead(request.id)) and waited_s < DEATH_S:
            await asyncio.sleep(LOOK_S)
            waited_s += LOOK_S
        await self._attachments.settled(self._attachments.of(request.id))
        gone = self._dead(request.id)
        views = [self._engine.view_endpoint(endpoint) for endpoint in gone]
        await self._attachments.remove(gone)
        return OciView(endpoints=views)

    def _namespace(self, pid: int) -> NetnsRef:
        if pid <= 0:
            raise InvalidError(f"{pid} is no process", field="pid", hint="the hook is for createRuntime")
        try:
            return self._engine.builder.namespace(str(pid), "pid")
        except InvalidError as error:
            raise InvalidError(
                error.message,
                field=error.field,
                hint='give it one of its own: {"type": "network"} in linux.namespaces of its config.json',
            ) from error

    def _dead(self, identity: str) -> list[Endpoint]:
        return [endpoint for endpoint in self._attachments.of(identity) if not self._is_alive(endpoint)]

    def _is_alive(self, endpoint: Endpoint) -> bool:
        sandbox = self._attachments.sandbox(endpoint)
        if sandbox is None or sandbox.netns is None:
            return False
        try:
            found = self._engine.builder.namespace(str(_pid(endpoint)), "pid")
        except SealaneError:
            return False
        return found.identity == sandbox.netns.identity


def _pid(endpoint: Endpoint) -> int:
    """A label can be anybody's: 0 for what is no number, which no process has."""
    text = endpoint.labels.get(PID, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 10 else 0
