"""A small engine in memory behind the real API server, for the tests of the integrations.

It keeps names and answers views; it allocates nothing, checks little and has no kernel. Errors are the engine's own.
"""

import asyncio
import contextlib
import threading
import time
from types import SimpleNamespace

import msgspec

from sealane.api import ApiServer
from sealane.containers.frames import ERRORS, INPUT, OUTPUT, SIGNAL, Peer, exit_frame, frame
from sealane.daemon.sessions import introduce, told
from sealane.engine.errors import (
    ConflictError,
    ExistsError,
    InUseError,
    InvalidError,
    KernelError,
    NotFoundError,
    StoreFailedError,
)
from sealane.engine.events import EventLog
from sealane.engine.feed import ChangeFeed
from sealane.http.connection import Bounds
from sealane.wire.diagnosis import CheckView, DoctorView, TraceView
from sealane.wire.views import (
    ApplyView,
    AuditView,
    Condition,
    ContainerView,
    DetachView,
    EndpointView,
    ExecView,
    GcView,
    LogView,
    NetworkView,
    PlanLine,
    PlanView,
    PruneView,
    SandboxView,
    StatusView,
    SubnetView,
    VersionView,
)
from unit.api.double_images import DoubleImages

NOW = 1_700_000_000.0


class DoubleEngine:
    def __init__(self, now=lambda: NOW):
        self.events = EventLog(now)
        self.nets = {}
        self.boxes = {}
        self.ends = {}
        self.detach_calls = []
        self.feed = ChangeFeed(0)
        self.intent = SimpleNamespace(endpoints={})
        self.builder = SimpleNamespace(detach=self._find_detached)
        self.hold, self.is_blind = "", False
        self.reconciler = SimpleNamespace(orphans=[])

    def create_network(self, request):
        if request.name == "boom":
            raise RuntimeError("secret of the daemon")
        if "/" in request.name:
            raise InvalidError(f"{request.name!r} is not a name", field="name", hint="use letters and digits")
        present = self.nets.get(request.name)
        if present is not None:
            if present.driver != request.driver:
                raise ExistsError(
                    f"network {request.name} exists with another driver",
                    field="driver",
                    hint=f"`sealane network rm {request.name}` first, or choose another name",
                )
            return present
        number = len(self.nets)
        prefix = request.subnets[0].prefix if request.subnets else f"10.9.{number}.0/24"
        view = NetworkView(
            id=f"{number:032x}",
            name=request.name,
            driver=request.driver,
            link=f"sl-{number}",
            mtu=1500,
            internal=request.internal,
            icc=True,
            masquerade=not request.internal,
            subnets=[
                SubnetView(
                    prefix=prefix,
                    gateway=f"10.9.{number}.1",
                    ip_range="",
                    reserved=[],
                    in_use=1,
                    available=253,
                )
            ],
            endpoints=[],
            options=request.options,
            labels=request.labels,
        )
        self.nets[request.name] = view
        self.events.emit("network.created", view.name, id=view.id)
        return view

    def network(self, ref):
        if ref not in self.nets:
            raise NotFoundError(
                f"there is no network {ref!r}", field="network", hint="networks are: none yet"
            )
        return self.nets[ref]

    def networks(self):
        return [self.nets[name] for name in sorted(self.nets)]

    def remove_network(self, ref, *, force=False):
        view = self.network(ref)
        users = [e for e in self.ends.values() if e.network == ref]
        if users and not force:
            raise InUseError(
                f"network {ref} has {len(users)} endpoints", hint="detach them first, or `--force`"
            )
        del self.nets[ref]
        self.events.emit("network.removed", ref, id=view.id)
        return view

    def prune_networks(self):
        unused = [n for n in self.nets if not any(e.network == n for e in self.ends.values())]
        for name in unused:
            self.remove_network(name)
        return PruneView(removed=sorted(unused))

    def create_sandbox(self, request):
        view = SandboxView(
            id=f"{len(self.boxes) + 256:032x}",
            name=request.name,
            netns=request.netns or f"/run/sealane/netns/{request.name}",
            owner="foreign" if request.netns else "sealane",
            endpoints=[],
            labels=request.labels,
        )
        return self.boxes.setdefault(request.name, view)

    def sandbox(self, ref):
        if ref not in self.boxes:
            raise NotFoundError(f"there is no sandbox {ref!r}", field="sandbox")
        return self.boxes[ref]

    def sandboxes(self):
        return [self.boxes[name] for name in sorted(self.boxes)]

    def remove_sandbox(self, ref, *, force=False):
        view = self.sandbox(ref)
        del self.boxes[ref]
        return view

    def attach(self, request):
        network = self.network(request.network)
        key = f"{request.sandbox}/{network.name}"
        if key in self.ends:
            return self.ends[key]
        if request.publish and request.publish[0].host_first == 80:
            raise ConflictError("port 80/tcp is published by endpoint web", field="publish[0]")
        number = len(self.ends)
        view = EndpointView(
            id=f"{number + 4096:032x}",
            name=request.name or request.sandbox,
            network=network.name,
            network_id=network.id,
            sandbox=request.sandbox,
            sandbox_id="s" * 32,
            netns=f"/run/netns/{request.sandbox}",
            ifname=request.ifname or "eth0",
            host_link=f"slp{number}",
            mac=request.mac or "02:42:0a:09:00:02",
            addresses=request.addresses or [f"10.9.0.{number + 2}/24"],
            gateways=["10.9.0.1"],
            aliases=request.aliases,
            ports=[f"*:{p.host_first}->{p.port}/{p.proto}" for p in request.publish],
            dns=["10.9.0.1"],
            state="up",
            labels=request.labels,
        )
        self.ends[key] = view
        self.events.emit("endpoint.attached", view.name, id=view.id)
        return view

    def _wanted(self, request):
        if request.endpoint == "ambiguous":
            raise ConflictError("2 endpoints go by 'ambiguous'")
        return [
            e
            for key, e in self.ends.items()
            if request.endpoint in (e.id, key)
            or (request.sandbox == e.sandbox and request.network in ("", e.network))
        ]

    def _find_detached(self, requests):
        return [e for request in requests for e in self._wanted(request)], []

    def detach(self, requests):
        self.detach_calls.append(list(requests))
        found = self._find_detached(requests)[0]
        gone = {e.id for e in found}
        self.ends = {key: e for key, e in self.ends.items() if e.id not in gone}
        return DetachView(detached=[e.id for e in found])

    def endpoints(self, network="", sandbox=""):
        if network:
            self.network(network)
        return [e for e in self.ends.values() if network in ("", e.network) and sandbox in ("", e.sandbox)]

    def endpoint(self, ref):
        for key, view in self.ends.items():
            if ref in (key, view.id, view.name):
                return view
        raise NotFoundError(f"there is no endpoint {ref!r}")


class DoubleUpkeep:
    findings = []

    def gc(self, *, confirmed=False):
        return GcView(removed=["sandbox old"] if confirmed else [], kept=[] if confirmed else ["link slp9"])

    def audit(self):
        return AuditView(clean=not self.findings, findings=self.findings, objects=12)


class DoubleContainers:
    def __init__(self, events):
        self.events = events
        self.all = {}
        self.requests = {}
        self.lines = {}
        self.streams_closed = threading.Event()
        self.exited = {}
        self.waits_cancelled = threading.Event()
        self.signals = []
        self.exec_requests = []
        self.removed = []

    async def create(self, request, *, is_new=False):
        if is_new and request.name in self.all:
            raise ExistsError(f"container {request.name} exists", field="name", hint="choose another name")
        if request.name == "unlaunchable":
            raise NotFoundError("the runtime refused: nope: not found", field="spec.command")
        view = ContainerView(
            id=f"{len(self.all) + 65536:032x}",
            name=request.name,
            sandbox=request.name,
            status="running",
            pid=4000 + len(self.all),
            exit_code=None,
            started_at=NOW,
            finished_at=0.0,
            restarts=0,
            health="",
            command=["sleep", "1"],
            addresses={a.network: [f"10.9.0.{len(self.all) + 2}/24"] for a in request.attachments},
            ports=[f"*:{p.host_first}->{p.port}/{p.proto}" for p in request.publish],
            labels=request.labels,
        )
        self.all[request.name] = view
        self.requests[request.name] = request
        self.exited[request.name] = asyncio.Event()
        self.events.emit("container.started", request.name, id=view.id)
        return view

    def _get(self, ref):
        for view in self.all.values():
            if ref in (view.name, view.id):
                return view
        raise NotFoundError(
            f"there is no container {ref!r}", field="container", hint="see `sealane ps --all`"
        )

    def finish(self, ref, code):
        view = msgspec.structs.replace(self._get(ref), status="exited", exit_code=code, pid=0)
        self.all[view.name] = view
        self.exited[view.name].set()
        return view

    async def list(self, *, stopped):
        return [v for _, v in sorted(self.all.items()) if stopped or v.status == "running"]

    async def get(self, ref):
        return self._get(ref)

    async def request(self, ref):
        return self.requests[self._get(ref).name]

    async def remove(self, ref, *, force):
        self.removed.append(ref)
        view = self._get(ref)
        if view.status == "running" and not force:
            raise ConflictError(
                f"container {ref} is running", hint=f"`sealane stop {ref}` first, or `--force`"
            )
        del self.all[view.name]
        return view

    async def start(self, ref):
        view = msgspec.structs.replace(self._get(ref), status="running", exit_code=None)
        self.all[view.name] = view
        return view

    async def stop(self, ref, timeout_s):
        await asyncio.sleep(0)
        return self.finish(ref, 143 if timeout_s != 0 else 137)

    async def kill(self, ref, signal):
        self.signals.append((self._get(ref).name, signal))
        return self.finish(ref, 128 + signal)

    async def wait(self, ref):
        name = self._get(ref).name
        try:
            await self.exited[name].wait()
        except asyncio.CancelledError:
            self.waits_cancelled.set()
            raise
        return self._get(ref)

    async def exec(self, ref, request):
        self._get(ref)
        self.exec_requests.append(request)
        if request.command[0] == "nope":
            raise NotFoundError("nope: not found", field="command")
        yield ExecView(stream="stdout", data=b"out:" + request.stdin)
        yield ExecView(stream="stderr", data=b"err\n")
        if request.command[0] == "fail":
            raise RuntimeError("secret of the daemon")
        yield ExecView(stream="exit", exit_code=int(request.env.get("CODE", "0")))

    async def exec_session(self, ref, request):
        self._get(ref)
        self.exec_requests.append(request)
        if request.command[0] == "nope":
            raise NotFoundError("nope: not found", field="command")
        return lambda connection, early: self._talk(connection, early, request.command[0], request.env)

    async def create_attended(self, request):
        if request.name in self.all:
            raise ExistsError(f"container {request.name} exists", field="name", hint="choose another name")

        async def take(connection, early):
            mine = connection.dup()
            introduce(mine, f"{len(self.all) + 65536:032x}")
            await told(connection, self.create(request, is_new=True))
            if request.name in self.all:
                await self._talk(mine, early, "", msgspec.json.decode(request.spec).get("env", {}))
            mine.close()

        return take

    @staticmethod
    async def _talk(connection, early, word, env):
        """As a process that reads all of its input first."""
        with contextlib.closing(Peer(connection, early)) as peer:
            frames = list(peer.received())
            while (INPUT, b"") not in frames and peer.is_open:
                await asyncio.sleep(0.001)
                frames += peer.receive()
            given = b"".join(payload for kind, payload in frames if kind == INPUT)
            if word == "gone":
                peer.send(exit_frame(127, "gone: not found"))
                return
            peer.send(frame(OUTPUT, b"out:" + given) + frame(ERRORS, b"err\n"))
            if word == "fail" or "LOST" in env:
                return
            passed_on = b""
            while "WAITS" in env and not passed_on:
                await asyncio.sleep(0.001)
                frames += peer.receive()
                passed_on = b"".join(payload for kind, payload in frames if kind == SIGNAL)
            peer.send(exit_frame(128 + passed_on[0] if passed_on else int(env.get("CODE", "0"))))
            while peer.pending and peer.is_open:
                await asyncio.sleep(0.001)
                peer.flush()

    async def logs(self, ref, *, follow, tail, since):
        name = self._get(ref).name
        lines = [
            LogView(stream="stdout", time=NOW + n, text=f"line {n}") for n in range(self.lines.get(name, 3))
        ]
        lines = [line for line in lines if since is None or line.time >= since]
        try:
            for line in lines if tail is None else lines[-tail:] if tail else []:
                yield line
            if follow:
                await self.exited[name].wait()
                yield LogView(stream="stderr", time=NOW + 99, text="bye")
        finally:
            self.streams_closed.set()


class DoubleProjects:
    def __init__(self, engine, containers):
        self.engine = engine
        self.containers = containers
        self.manifests = []
        self.slow = None

    async def apply(self, manifest):
        self.manifests.append(manifest)
        if self.slow is not None:
            await self.slow()
        created = [f"network {n.name}" for n in manifest.networks if n.name not in self.engine.nets]
        for network in manifest.networks:
            self.engine.create_network(network)
        unchanged = []
        for container in manifest.containers:
            if container.name in self.containers.all:
                unchanged.append(f"container {container.name}")
                continue
            await self.containers.create(container)
            created.append(f"container {container.name}")
        return ApplyView(created=created, unchanged=unchanged)

    async def delete(self, manifest):
        self.manifests.append(manifest)
        removed = []
        for container in manifest.containers:
            if self.containers.all.pop(container.name, None):
                self.engine.events.emit("container.removed", container.name)
                removed.append(f"container {container.name}")
        for network in manifest.networks:
            if network.name in self.engine.nets:
                self.engine.remove_network(network.name)
                removed.append(f"network {network.name}")
        return ApplyView(removed=removed)

    def plan(self, manifest, *, delete):
        self.planned = manifest
        sign = "-" if delete else "+"
        names = [f"network {n.name}" for n in manifest.networks]
        lines = [
            PlanLine(sign=sign, where="host", text=f"link sl-{n.name} bridge", origin=f"network {n.name}")
            for n in manifest.networks
        ]
        if not delete and lines:
            lines.append(
                PlanLine(sign="~", where="web", text="address 10.0.0.2/24 eth0", origin="endpoint web")
            )
        return PlanView(lines=lines, create=[] if delete else names, remove=names if delete else [])


class DoubleServices:
    def __init__(self):
        self.engine = DoubleEngine()
        self.resyncer = DoubleUpkeep()
        self.workloads = DoubleContainers(self.engine.events)
        self.images = DoubleImages()
        self.project = DoubleProjects(self.engine, self.workloads)
        self.checks = []
        self.traces = []
        self.traced = [TraceView(kind="end", notes=[])]
        self.checked = CheckView(
            rows=[], columns=[], matrix=[], pairs=0, agree=0, disagree=0, unknown=0, findings=[]
        )
        self.doctors = []
        self.doctored = DoctorView(findings=[], found=0, checks=[], unseen={}, sandboxes=0)
        self.conditions = [
            Condition(level="warning", subject="sctp", message="the module is missing", hint="modprobe sctp")
        ]

    async def check(self, request):
        self.checks.append(request)
        if request.source == "nobody":
            raise InvalidError("'nobody' is no sandbox", field="source")
        if request.source == "broken":
            raise StoreFailedError("the store is full")
        return self.checked

    async def doctor(self, request):
        self.doctors.append(request)
        if "nobody" in request.subjects:
            raise InvalidError("'nobody' is no sandbox", field="subjects[0]")
        return self.doctored

    async def trace(self, request):
        self.traces.append(request)
        if request.source == "nobody":
            raise InvalidError("'nobody' is no sandbox", field="source")
        if request.source == "broken":
            raise KernelError("packets cannot be followed: Operation not permitted")
        for view in self.traced:
            yield view

    def status(self):
        return StatusView(
            version="0.1.0",
            instance="default",
            state="ready",
            revision=7,
            networks=len(self.engine.nets),
            sandboxes=len(self.engine.boxes),
            endpoints=len(self.engine.ends),
            containers=len(self.workloads.all),
            uplink="eth0",
            mtu=1500,
            store="sqlite:///var/lib/sealane/state.db",
            loopback="program",
            repairs=0,
            last_repair_ms=0.0,
            writes=42,
            started_at=NOW,
            conditions=self.conditions,
        )

    def version(self):
        return VersionView(version="0.1.0", api="v1", instance="default", kernel="6.18", python="3.11.7")


class ServerThread:
    """The real server on a real socket, with its own event loop."""

    def __init__(self, path, *, services=None, bounds=None, sockets=None, uids=None):
        self.path = str(path)
        self.services = services or DoubleServices()
        self._bounds = bounds or Bounds()
        self._where = sockets or self.path
        self._uids = uids
        self._ready = threading.Event()
        self._failure = None
        self._thread = threading.Thread(target=self._main, daemon=True)

    def __enter__(self):
        self._thread.start()
        assert self._ready.wait(100)
        if self._failure is not None:
            self._thread.join()
            raise self._failure
        return self

    def __exit__(self, *_):
        if self._thread.is_alive():
            self.loop.call_soon_threadsafe(self._end.set)
        self._thread.join(100)
        assert not self._thread.is_alive(), "the server did not stop"

    def call(self, function, *arguments):
        """Run on the server's loop; the result."""
        future = asyncio.run_coroutine_threadsafe(_as_coroutine(function, arguments), self.loop)
        return future.result(10)

    def _main(self):
        asyncio.run(self._serve())

    async def _serve(self):
        self.loop = asyncio.get_running_loop()
        self._end = asyncio.Event()
        self.server = ApiServer(self.services, bounds=self._bounds, uids=self._uids)
        try:
            await self.server.start(self._where)
        except Exception as error:
            self._failure = error
            self._ready.set()
            return
        self._ready.set()
        await self._end.wait()
        await self.server.stop()


async def _as_coroutine(function, arguments):
    return function(*arguments)


def until(condition, seconds=100.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)
