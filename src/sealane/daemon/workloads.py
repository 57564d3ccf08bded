"""Containers on networks: the engine's sandboxes and endpoints joined to the OCI runtime's processes.

A container is three things: a record in the store (what was asked for), a sandbox with endpoints (the engine's), and
a supervised process (the runtime's). They come in this order and go in the reverse, so whatever a crash leaves has
its record, and `recover` completes or removes it. What the runtime does blocks, so it is called on threads; the engine
never is, nor what only reads a container's few files.
"""

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar
from weakref import WeakValueDictionary

import msgspec

from sealane.containers.errors import NotFoundError as RuntimeNotFound
from sealane.containers.images import Images
from sealane.containers.runtime import Client, Runtime
from sealane.containers.spec import ContainerSpec, Dns
from sealane.containers.store import ContainerState
from sealane.daemon.container_monitor import ContainerMonitor
from sealane.daemon.etc_files import EtcFiles
from sealane.daemon.maintenance import ContainerMaintenance
from sealane.daemon.ports import Ports
from sealane.daemon.requests import hosts_of
from sealane.daemon.runtime_errors import translated
from sealane.daemon.sessions import introduce, told
from sealane.daemon.specs import command_of, network_mode, runtime_spec, wants_userns
from sealane.daemon.streams import Stream, exec_output, log_views
from sealane.daemon.threads import BlockingCalls
from sealane.dns.resolvconf import Resolver
from sealane.engine.attachments import attach_requests
from sealane.engine.builder import new_id
from sealane.engine.containers import check_guests, check_is_somewhere, departure, request_of
from sealane.engine.endpoints import sandbox_sysctls
from sealane.engine.engine import Engine
from sealane.engine.errors import (
    ExistsError,
    InvalidError,
    NotFoundError,
    ReadOnlyError,
    SealaneError,
)
from sealane.engine.labels import OWNED_BY
from sealane.http.call import Hijacker
from sealane.model.change import Change, Put
from sealane.model.container import Container
from sealane.model.endpoint import Endpoint, NetnsRef, Sandbox
from sealane.model.ids import SandboxId
from sealane.model.net import address_part
from sealane.wire.requests import ContainerRequest, ExecRequest
from sealane.wire.views import ContainerView, ExecView, HealthCheckView, LogView

T = TypeVar("T")
Changes = list[Change]
Prepared = tuple[str, tuple[str, ...]]
"""Of a container: its id, and what is to be said of it."""

LOST_LOOK_S = 0.2
"""Until one that has lost its supervisor is looked at again."""

SEE_CONTAINERS = "see `sealane ps --all`"


class _Parts(NamedTuple):
    """What there is only where containers can run."""

    runtime: Runtime
    etc: EtcFiles
    maintenance: ContainerMaintenance
    ports: Ports


class Workloads:
    def __init__(
        self,
        engine: Engine,
        runtime: Runtime | None,
        missing: str = "",
        resolver: Callable[[], Resolver] = Resolver,
    ) -> None:
        """`missing`: why there is no runtime. `resolver`: the host's."""
        self._engine = engine
        self._missing = missing
        self._found: _Parts | None = None
        if runtime is not None:
            etc = EtcFiles(engine, runtime, resolver)
            self._found = _Parts(runtime, etc, ContainerMaintenance(engine, runtime, self), Ports(engine))
        self._waiters = BlockingCalls()
        self._locks = WeakValueDictionary[str, asyncio.Lock]()
        """By a container's name, for as long as somebody holds or awaits one."""

    @property
    def container_monitor(self) -> ContainerMonitor | None:
        return self._found.maintenance.container_monitor if self._found is not None else None

    @property
    def _parts(self) -> _Parts:
        if self._found is None:
            raise ReadOnlyError(f"no containers here: {self._missing}", hint="install runc or crun")
        return self._found

    @property
    def _runtime(self) -> Runtime:
        return self._parts.runtime

    @property
    def _images(self) -> Images | None:
        return self._found.runtime.images if self._found is not None else None

    # --- coming

    async def create(self, request: ContainerRequest, *, is_new: bool = False) -> ContainerView:
        """Make a container, join it to its networks and start it. Idempotent: the same request again answers the same
        container, started if it had not been; unless it `is_new`, when one of that name is an ExistsError."""
        async with self._lock(request.name):
            present = await self._present(request.name)
            if present is not None:
                return await self._again(present, request, is_new=is_new)
            container = self._prepare(request)
            try:
                await self._start_new(container, request)
            except BaseException:
                await asyncio.shield(self._undo(container))
                raise
            return self._view(container)

    async def create_attended(self, request: ContainerRequest) -> Hijacker:
        """As `create`, of a new one, with somebody at its input and output. What can be refused before it is started is; what
        comes after is for its client to hear."""
        prepared: asyncio.Future[Prepared] = asyncio.get_running_loop().create_future()
        client: asyncio.Future[Client] = asyncio.get_running_loop().create_future()
        work = asyncio.create_task(self._create_attended(request, prepared, client))
        either: set[asyncio.Future[Any]] = {prepared, work}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not prepared.done():
            # This raises why.
            await work

        def take(connection: socket.socket, early: bytes) -> Awaitable[None]:
            introduce(connection, *prepared.result())
            client.set_result((connection, early))
            return told(connection, work)

        return take

    async def _create_attended(
        self,
        request: ContainerRequest,
        prepared: "asyncio.Future[Prepared]",
        client: "asyncio.Future[Client]",
    ) -> None:
        async with self._lock(request.name):
            present = await self._present(request.name)
            if present is not None:
                await self._again(present, request, is_new=True)
            container = self._prepare(request)
            try:
                prepared.set_result((container.id, self._runtime.warned(self._spec(container, request))))
                await self._start_new(container, request, await client)
            except BaseException:
                await asyncio.shield(self._undo(container))
                raise

    async def _present(self, name: str) -> Container | None:
        """The container of a name; one that was only there until somebody needs its name goes."""
        present = self._engine.intent.containers.get(self._engine.intent.container_ids.get(name, ""))
        if present is not None and self._parts.maintenance.is_spent(present):
            await self._remove(present)
            return None
        return present

    async def _again(self, present: Container, request: ContainerRequest, *, is_new: bool) -> ContainerView:
        if is_new or request_of(present) != request:
            raise ExistsError(
                f"container {request.name} exists" + ("" if is_new else " and is another"),
                field="name",
                hint=f"`sealane rm {request.name}` first, or choose another name",
            )
        if await self._call(self._state, present) is None:
            await self._start_new(present, request)
        return self._view(present)

    def check(self, request: ContainerRequest) -> None:
        """What can be told to be wrong with a request by itself. Raises InvalidError, NotFoundError for an image that is not
        there, ReadOnlyError without a runtime."""
        hosts = hosts_of(request, (), self._engine.intent)
        runtime_spec(request, new_id(), self._runtime.images, netns=None, dns=Dns(), hosts=hosts)
        wants_userns(request, lambda _: "")
        sandbox_sysctls(request.sysctls)

    def _prepare(self, request: ContainerRequest) -> Container:
        """Record, sandbox and endpoints."""
        self._engine.check_may_change()
        self.check(request)
        identity = new_id()
        sandbox, mine = self._sandbox(request, identity)
        container = Container(
            id=identity,
            name=request.name,
            sandbox=sandbox.id,
            spec=msgspec.Raw(msgspec.json.encode(request)),
            labels=dict(request.labels),
        )
        changes: Changes = [Put(sandbox), Put(container)] if mine else [Put(container)]
        try:
            self._engine.commit_then_apply(changes)
        except BaseException:
            if mine:
                self._engine.drop_namespaces([sandbox])
            raise
        try:
            self._attach(request, sandbox)
        except BaseException:
            self._remove_records(container)
            raise
        return container

    def _sandbox(self, request: ContainerRequest, identity: str) -> tuple[Sandbox, bool]:
        """The sandbox to run in, and whether it is made for this container (and not committed yet)."""
        mode, other = network_mode(request)
        if other:
            peer = self._engine.intent.container_named(other)
            if peer is None:
                raise NotFoundError(
                    f"there is no container {other!r}", field="network_mode", hint=SEE_CONTAINERS
                )
            return self._engine.intent.sandboxes[peer.sandbox], False
        if request.name in self._engine.intent.sandbox_ids:
            raise ExistsError(f"sandbox {request.name} exists", field="name")
        sysctls = sandbox_sysctls(request.sysctls)
        sandbox_id = SandboxId(identity)
        netns = None if mode == "host" else self._make_namespace(sandbox_id, request)
        return (
            Sandbox(
                id=sandbox_id,
                name=request.name,
                netns=netns,
                sysctls=sysctls if netns else (),
                labels={OWNED_BY: identity},
            ),
            True,
        )

    def _make_namespace(self, identity: SandboxId, request: ContainerRequest) -> NetnsRef:
        with_userns = wants_userns(request, self._runtime.no_userns)
        return self._engine.kernel.create_namespace(identity, with_userns=with_userns)

    def _attach(self, request: ContainerRequest, sandbox: Sandbox) -> None:
        for each in attach_requests(request, self._engine.intent):
            self._engine.attach(msgspec.structs.replace(each, sandbox=sandbox.name))

    async def _start_new(
        self, container: Container, request: ContainerRequest, client: Client | None = None
    ) -> None:
        spec = self._spec(container, request)
        await self._begin(container, lambda: self._runtime.create_and_start(spec, client))

    def _spec(self, container: Container, request: ContainerRequest) -> ContainerSpec:
        sandbox = self._engine.intent.sandboxes[container.sandbox]
        hosts, dns = self._parts.etc.contents(request, sandbox.id)
        return runtime_spec(request, container.id, self._images, netns=sandbox.netns, dns=dns, hosts=hosts)

    async def _begin(self, container: Container, start: Callable[[], object]) -> None:
        """Its endpoints are awake before it runs: a port of its own that somebody else has come to hold is a reason not to."""
        container_monitor = self._parts.maintenance.container_monitor
        try:
            with container_monitor.starting(container.sandbox):
                self._engine.activate(container.sandbox)
                await self._call(start)
        finally:
            container_monitor.look(container.id)

    async def _undo(self, container: Container) -> None:
        with contextlib.suppress(SealaneError):
            await self._wait_for(lambda: self._runtime.remove(container.id, force=True))
        self._remove_records(container)

    # --- going

    async def remove(self, reference: str, *, force: bool = False) -> ContainerView:
        async with self._locked(reference) as container:
            view = self._view(container)
            await self._remove(container, force=force)
            return view

    async def _remove(self, container: Container, *, force: bool = False) -> None:
        check_guests(container, self._engine.intent)
        await self._wait_for(lambda: self._runtime.remove(container.id, force=force))
        self._remove_records(container)
        self._engine.events.emit("container.removed", container.name, id=container.id)

    def _remove_records(self, container: Container) -> None:
        """Of what there is of them."""
        engine = self._engine
        changes = departure(container, engine.intent) if container.id in engine.intent.containers else []
        engine.apply_then_commit(changes)
        gone = [change.record for change in changes]
        engine.drop_namespaces(record for record in gone if isinstance(record, Sandbox))
        for record in gone:
            if isinstance(record, Endpoint):
                engine.tell_of("endpoint.detached", record)
        if self._found is not None:
            self._found.maintenance.container_monitor.gone(container)

    async def stop(self, reference: str, timeout_s: float | None = None) -> ContainerView:
        container = self.find(reference)
        await self._wait_for(lambda: self._runtime.stop(container.id, timeout_s))
        self._parts.maintenance.container_monitor.look(container.id)
        self._engine.events.emit("container.stopped", container.name, id=container.id)
        return self._view(container)

    async def start(self, reference: str) -> ContainerView:
        async with self._locked(reference) as container:
            check_is_somewhere(container, self._engine.intent)
            self._parts.ports.restore(container)
            if await self._call(self._state, container) is None:
                await self._start_new(container, request_of(container))
            else:
                await self._begin(container, lambda: self._runtime.start(container.id))
                # It starts with the files of its first start; its networks may be others by now.
                self._parts.etc.refresh(container.sandbox)
            return self._view(container)

    async def kill(self, reference: str, signal: int) -> ContainerView:
        container = self.find(reference)
        await self._call(self._runtime.kill, container.id, str(signal))
        return self._view(container)

    async def wait(self, reference: str) -> ContainerView:
        """Its view as it ended, though it may have been removed since. NotFoundError if that was before anybody looked."""
        container, state = self.find(reference), None
        with self._parts.maintenance.use_counts.of(container.id), translated(self._engine.intent):
            async for state in Stream(lambda stop: self._until_ended(container.id, stop)):
                if state.is_lost:
                    self._parts.maintenance.lost(container.id)
        return self._view(container, state)

    def _until_ended(self, identity: str, stop: threading.Event) -> Iterator[ContainerState]:
        while not stop.is_set():
            state = self._runtime.wait(identity, 1.0)
            yield state
            if not state.supervised and not state.is_lost:
                return
            if state.is_lost:
                stop.wait(LOST_LOOK_S)

    # --- looking

    def find(self, reference: str) -> Container:
        container = self._engine.intent.container_named(reference)
        if container is None:
            raise NotFoundError(
                f"there is no container {reference!r}", field="container", hint=SEE_CONTAINERS
            )
        return container

    async def get(self, reference: str) -> ContainerView:
        return self.view(reference)

    async def request(self, reference: str) -> ContainerRequest:
        return request_of(self.find(reference))

    def view(self, reference: str) -> ContainerView:
        return self._view(self.find(reference))

    def settle(self, reference: str) -> None:
        """Conclude what follows from what a container's state is now: of one that has ended, that its ports are free."""
        self._parts.maintenance.container_monitor.look(self.find(reference).id)

    async def list(self, *, stopped: bool) -> Sequence[ContainerView]:
        views = [self._view(c) for c in sorted(self._engine.intent.containers.values(), key=lambda c: c.name)]
        return [v for v in views if stopped or v.status in ("running", "restarting")]

    def _state(self, container: Container) -> ContainerState | None:
        try:
            return self._runtime.state(container.id)
        except RuntimeNotFound:
            return None

    def _view(self, container: Container, state: ContainerState | None = None) -> ContainerView:
        """`state`: as it was seen, else as it is."""
        intent = self._engine.intent
        state = state or self._state(container)
        state = state or ContainerState(id=container.id, name=container.name, status="created")
        request = request_of(container)
        endpoints = intent.endpoints_by_sandbox.get(container.sandbox, {}).values()
        sandbox = intent.sandboxes.get(container.sandbox)
        return ContainerView(
            id=container.id,
            name=container.name,
            sandbox=sandbox.name if sandbox else "",
            status=state.status,  # type: ignore[arg-type]
            pid=state.pid,
            exit_code=state.exit_code if state.status == "exited" else None,
            started_at=state.started_at,
            finished_at=state.finished_at,
            restarts=state.restarts,
            error=state.error,
            warnings=list(state.warnings),
            oom_killed=state.oom_killed,
            health=state.health or "",
            health_log=msgspec.convert(state.health_log, list[HealthCheckView]),
            command=command_of(request, self._images),
            addresses={
                intent.networks[e.network].name: [address_part(a) for a in e.addresses] for e in endpoints
            },
            ports=[str(p) for e in endpoints for p in e.published],
            labels=dict(container.labels),
        )

    async def exec_session(self, reference: str, request: ExecRequest) -> Hijacker:
        if request.stdin:
            raise InvalidError("a session's input comes as frames", field="stdin", hint="leave it out")
        start = await self._further(reference, request)
        return lambda connection, early: told(connection, self._call(start, connection, early))

    async def exec(self, reference: str, request: ExecRequest) -> AsyncGenerator[ExecView, None]:
        if request.terminal:
            raise InvalidError(
                "a terminal is of a session alone", field="terminal", hint="`Upgrade: sealane-frames`"
            )
        start = await self._further(reference, request)
        mine, theirs = socket.socketpair()
        with mine:
            with theirs:
                await self._call(start, theirs, b"")
            async for view in Stream(lambda stop: exec_output(mine.dup(), request.stdin, stop)):
                yield view

    async def _further(self, reference: str, request: ExecRequest) -> Callable[[socket.socket, bytes], None]:
        """What starts a further process."""
        container = self.find(reference)
        return await self._call(
            lambda: self._runtime.exec(
                container.id,
                tuple(request.command),
                env=dict(request.env),
                user=request.user,
                working_dir=request.working_dir or None,
                has_terminal=request.terminal,
            )
        )

    async def logs(
        self,
        reference: str,
        *,
        follow: bool,
        tail: int | None,
        since: float | None,
    ) -> AsyncGenerator[LogView, None]:
        container = self.find(reference)
        ended = threading.Event()
        lines = await self._call(
            lambda: self._runtime.logs(container.id, follow=follow, tail=tail, since=since, stop=ended)
        )

        with self._parts.maintenance.use_counts.of(container.id) if follow else contextlib.nullcontext():
            try:
                async for view in Stream(lambda stop: log_views(lines, stop)):
                    yield view
            finally:
                # Who waits for a silent container's next line would wait on.
                ended.set()

    async def recover(self, *, sweep: bool) -> Sequence[str]:
        """After a start of the daemon: what was done, a line each."""
        return await self._parts.maintenance.recover(sweep=sweep)

    # --- inside

    def _lock(self, name: str) -> asyncio.Lock:
        lock = self._locks.get(name)
        if lock is None:
            lock = self._locks[name] = asyncio.Lock()
        return lock

    @contextlib.asynccontextmanager
    async def _locked(self, reference: str) -> AsyncIterator[Container]:
        """The container, if it is there still when its turn comes. Raises NotFoundError."""
        async with self._lock(self.find(reference).name):
            yield self.find(reference)

    async def _call(self, function: Callable[..., T], *arguments: object) -> T:
        """Run a blocking call of the runtime's on a thread."""
        with translated(self._engine.intent):
            return await asyncio.to_thread(function, *arguments)

    async def _wait_for(self, function: Callable[[], T]) -> T:
        """The same, of one that waits for a container's end."""
        with translated(self._engine.intent):
            return await self._waiters.call(function)
