"""The daemon's parts put together, and what the API is served from.

The store may be unreadable at the start, or what a start has to write may not fit. Then the daemon holds: it serves
`status` and refuses changes, touches nothing in the kernel (traffic goes on as it was), and tries the store again.
"""

import asyncio
import logging
import os
import platform
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import nullcontext
from functools import partial

from sealane import __version__
from sealane.compile.facts import Facts
from sealane.containers.errors import ContainerError
from sealane.containers.runtime import Runtime
from sealane.daemon import conditions
from sealane.daemon.checks import Checks
from sealane.daemon.config import Config
from sealane.daemon.images import ImageVerbs
from sealane.daemon.names import NameFeed
from sealane.daemon.project import Projects
from sealane.daemon.relays import RelayFeed
from sealane.daemon.traces import Traces
from sealane.daemon.watch import DriftWatcher
from sealane.daemon.workloads import Workloads
from sealane.daemon.zones import Zones
from sealane.dns.resolvconf import host_resolver
from sealane.dns.server import DnsServer
from sealane.engine.engine import Engine
from sealane.engine.errors import SealaneError, StoreFailedError
from sealane.engine.events import EventLog
from sealane.engine.reconciler import Reconciler
from sealane.engine.resyncer import Resyncer
from sealane.integrations.netavark.status import SEARCH as NETAVARK_SEARCH
from sealane.linux.bpf import fast_path, loopback
from sealane.linux.kernel import LinuxKernel, claim, instances
from sealane.linux.loopback_forwarder import LoopbackForwarder
from sealane.linux.monitor import Monitor
from sealane.model.endpoint import PublishedPort
from sealane.model.intent import Intent
from sealane.store.base import Snapshot, Store, StoreError
from sealane.store.memory import MemoryStore
from sealane.store.sqlite import SqliteStore
from sealane.wire.diagnosis import CheckRequest, CheckView, DoctorRequest, DoctorView, TraceRequest, TraceView
from sealane.wire.views import Condition, StatusView, VersionView

log = logging.getLogger("sealane")

INSTANCE = "instance"
"""Meta key: six hex digits that mark this installation's objects."""

API_VERSION = "1"
STORE_RETRY_S = 5.0


class Service:
    """Everything of one daemon. `engine`, `resyncer`, `workloads` and `project` are what the API's routes call."""

    def __init__(self, config: Config, loop: asyncio.AbstractEventLoop) -> None:
        self.config = config
        self.events = EventLog(time.time)
        self.started_at = time.time()
        self._loop = loop
        self._loopback_kind = ""
        self._loopback_reason: str | None = None
        self._loopback: loopback.LoopbackPublisher | LoopbackForwarder | None = None
        self._fast_path: fast_path.FastPath | None = None
        self._fast_path_reason = ""
        self._dns: DnsServer | None = None
        self._relays: RelayFeed | None = None
        self._watch: DriftWatcher | None = None
        self._zones: Zones | None = None
        self._runtime_missing = ""
        self._closing: list[Callable[[], object]] = []
        self.recovered: asyncio.Task[None] | None = None
        self.rebuilt: Callable[[], None] = lambda: None
        """Called when a store that could not be read can be: `engine` and all with it are others then."""

    # --- start and end

    def start(self) -> None:
        """Bring everything up; returns when the host is as it should be, or when the engine holds."""
        os.makedirs(self.config.run_dir, mode=0o700, exist_ok=True)
        self._claim = claim()
        try:
            self._run(self._open_store())
        except (StoreError, StoreFailedError) as error:
            self._wait_for_store(_why(error))

    def _open_store(self) -> Store:
        directory = self.config.store_directory()
        if directory is None:
            return MemoryStore()
        return SqliteStore(directory)

    def _wait_for_store(self, why: str) -> None:
        """Hold meanwhile."""
        log.error("holding: %s", why)
        self._close_parts()
        self._hold(why)
        self._loop.call_later(STORE_RETRY_S, self._retry)

    def _retry(self) -> None:
        try:
            store = self._open_store()
        except StoreError as error:
            self.engine.hold = _why(error)
            self._loop.call_later(STORE_RETRY_S, self._retry)
            return
        self._close_parts()
        try:
            self._run(store)
        except (StoreError, SealaneError, OSError) as error:
            self._wait_for_store(_why(error))
        else:
            log.info("store available again")
        self.rebuilt()

    def _hold(self, why: str) -> None:
        """An engine over nothing that refuses to change anything."""
        kernel = LinuxKernel("000000", self.config.run_dir, loopback_reason="the engine holds")
        self._closing.append(kernel.close)
        self._build(MemoryStore(), kernel, Snapshot(0, ()), Facts(instance="000000"))
        self.engine.hold = why
        self.engine.is_blind = True

    def _run(self, store: Store) -> None:
        self._closing.append(store.close)
        snapshot = store.snapshot()
        instance = self._instance(store)
        self._open_loopback()
        self._open_fast_path()
        kernel = LinuxKernel(
            instance,
            self.config.run_dir,
            loopback=self._loopback,
            loopback_reason=self._loopback_reason,
            fast_path=self._fast_path,
            fast_path_reason=self._fast_path_reason,
        )
        self._closing.append(kernel.close)
        self._build(store, kernel, snapshot, kernel.facts())
        self._start_resyncer(kernel, instance)
        self._start_names()
        self._start_zones()
        self._relays = RelayFeed(self.engine, self._loop)
        self._closing.append(self._relays.close)
        if self.workloads.container_monitor is not None:
            self._closing.append(self.workloads.container_monitor.start(self._loop))
        self.recovered = self._loop.create_task(self._recover())

    def _instance(self, store: Store) -> str:
        """Our mark on kernel objects. A new store beside marked objects takes over their mark: the store was lost, and
        what it knew is to be found, kept, and told of, not to be left behind under a mark that nobody has."""
        instance = store.meta(INSTANCE)
        if instance is None:
            found = instances()
            instance = min(found) if found else secrets.token_hex(3)
            if found:
                log.error("store is new, but kernel objects of instance %s exist", instance)
            store.set_meta(INSTANCE, instance)
        return instance

    def _open_loopback(self) -> None:
        self._loopback_reason = loopback.probe()
        if self._loopback_reason is None:
            publisher = loopback.LoopbackPublisher(os.path.join(self.config.run_dir, "bpf"))
            publisher.open()
            self._loopback, self._loopback_kind = publisher, "program"
            self._closing.append(publisher.close)
        else:
            forwarder = LoopbackForwarder(self._loop, self._netns_of)
            self._loopback, self._loopback_kind = forwarder, "forwarder"
            self._closing.append(forwarder.close)

    def _netns_of(self, port: PublishedPort) -> int:
        """Inode of the namespace of who publishes a port; 0 if nobody does, or in no namespace."""
        intent = self.engine.intent
        claim = intent.port_holder(port)
        sandbox = intent.endpoints[claim[1]].sandbox if claim is not None else None
        netns = intent.sandboxes[sandbox].netns if sandbox is not None else None
        return 0 if netns is None else netns.inode

    def _open_fast_path(self) -> None:
        self._fast_path, self._fast_path_reason = None, fast_path.probe()
        if self._fast_path_reason:
            return
        opened = fast_path.FastPath(os.path.join(self.config.run_dir, "bpf"))
        try:
            opened.open()
        except OSError as error:
            self._fast_path_reason = str(error)
            return
        self._fast_path = opened
        self._closing.append(opened.close)

    def _build(self, store: Store, kernel: LinuxKernel, snapshot: Snapshot, facts: Facts) -> None:
        reconciler = Reconciler(kernel, Intent(snapshot.records), facts, paranoid=self.config.paranoid)
        self.engine = Engine(store, kernel, reconciler, self.events, snapshot.revision)
        self.resyncer = Resyncer(self.engine)
        self._checks = Checks(self.engine)
        self._closing.append(self._checks.close)
        self._traces = Traces(self.engine, self._fast_path.held if self._fast_path else nullcontext)
        self._closing.append(self._traces.close)
        self._runtime = self._open_runtime(facts.instance)
        self.workloads = Workloads(
            self.engine, self._runtime, self._runtime_missing, partial(host_resolver, serves=self.config.dns)
        )
        self.images = ImageVerbs(self.engine, self._runtime, self._runtime_missing)
        self.project = Projects(self.engine, self.workloads)

    def _open_runtime(self, instance: str) -> Runtime | None:
        try:
            return Runtime(
                os.path.join(self.config.state_dir, "containers"),
                os.path.join(self.config.run_dir, "containers"),
                instance=instance,
                oci_runtime=self.config.oci_runtime or None,
                hidden=self.config.own_places(),
                degrade_limits=True,
            )
        except ContainerError as error:
            self._runtime_missing = str(error)
            return None

    def _start_resyncer(self, kernel: LinuxKernel, instance: str) -> None:
        monitor = Monitor(instance, kernel.ports())
        self._closing.append(monitor.close)
        report = self.resyncer.start()
        if self._fast_path is not None:
            self._fast_path.release()
        if report.orphans:
            log.error("%d live endpoints are in no record: nothing is deleted", len(report.orphans))
        self._watch = DriftWatcher(self.engine, self.resyncer, kernel, monitor, self._loop)
        self._watch.start()
        self._closing.append(self._watch.stop)

    def _start_names(self) -> None:
        if not self.config.dns:
            return
        self._dns = DnsServer(searches=[s for s in (self.config.dns_search, NETAVARK_SEARCH) if s])
        names = NameFeed(self.engine, self._dns, self._loop)
        names.flush()
        self._closing.append(names.close)
        self._dns.start()
        self._closing.append(self._dns.stop)

    def _start_zones(self) -> None:
        self._zones = Zones(self.engine, os.path.join(self.config.run_dir, "firewalld"))
        self._zones.start(self._loop)
        self._closing.append(self._zones.stop)

    async def _recover(self) -> None:
        if self._runtime is None:
            return
        try:
            for line in await self.workloads.recover(sweep=not self.resyncer.is_in_doubt):
                log.info("%s", line)
        except Exception:
            log.exception("containers could not be recovered")
        if self.workloads.container_monitor is not None:
            self.workloads.container_monitor.settle_all()

    def stop(self) -> None:
        """Close what is open. The kernel's state, and with it all traffic, stays."""
        if self.recovered is not None:
            self.recovered.cancel()
        self._close_parts()
        self._claim.close()

    def _close_parts(self) -> None:
        for close in reversed(self._closing):
            try:
                close()
            except Exception:
                log.exception("closing")
        self._closing.clear()
        self._fast_path = None
        self._dns = None
        self._watch = None
        self._zones = None

    # --- answers

    async def check(self, request: CheckRequest) -> CheckView:
        return await self._checks.check(request)

    def trace(self, request: TraceRequest) -> AsyncGenerator[TraceView, None]:
        return self._traces.trace(request)

    async def doctor(self, request: DoctorRequest) -> DoctorView:
        return await self._checks.doctor(request)

    def version(self) -> VersionView:
        return VersionView(
            version=__version__,
            api=API_VERSION,
            instance=self.engine.reconciler.compiled.facts.instance,
            kernel=os.uname().release,
            python=platform.python_version(),
        )

    def status(self) -> StatusView:
        intent, facts = self.engine.intent, self.engine.reconciler.compiled.facts
        found = list(self._conditions())
        worst = {c.level for c in found}
        state = "hold" if self.engine.hold else "degraded" if worst & {"warning", "error"} else "ready"
        return StatusView(
            version=__version__,
            instance=facts.instance,
            state=state,  # type: ignore[arg-type]
            revision=self.engine.revision,
            networks=len(intent.networks),
            sandboxes=len(intent.sandboxes),
            endpoints=len(intent.endpoints),
            containers=len(intent.containers),
            uplink=facts.uplink,
            mtu=facts.uplink_mtu,
            store=self.config.store_directory() or "memory",
            loopback=self._loopback_kind or "none",
            repairs=self.resyncer.repairs,
            last_repair_ms=self.resyncer.last_repair_ms,
            writes=self.engine.reconciler.writes,
            started_at=self.started_at,
            conditions=found,
        )

    def _conditions(self) -> Iterator[Condition]:
        reconciler = self.engine.reconciler
        if self.engine.hold:
            yield conditions.holding(self.engine.hold)
        elif self._loopback_reason:
            yield conditions.forwarder(self._loopback_reason)
        is_node = bool(self.engine.intent.sandboxes_by_bare_name)
        yield from conditions.of_features(reconciler.compiled.facts.features, is_node=is_node)
        if is_node:
            yield from conditions.kubernetes_node()
        if self._runtime_missing:
            yield conditions.no_runtime(self._runtime_missing)
        elif self._runtime is not None and self._runtime.limits_unavailable:
            yield conditions.no_limits(self._runtime.limits_unavailable)
        if self._runtime is not None and self._runtime.userns_unavailable:
            yield conditions.no_userns(self._runtime.userns_unavailable)
        yield from conditions.of_owners(self.engine.intent.sandboxes.values())
        if reconciler.orphans:
            yield conditions.orphans(len(reconciler.orphans))
        yield from conditions.of_units(reconciler.failures)
        yield from conditions.of_names(self._dns.problems() if self._dns is not None else ())
        if self._zones is not None:
            yield from conditions.of_zones(self._zones.problem, self._zones.elsewhere)
        yield from conditions.of_relays(self._relays.problems if self._relays is not None else {})
        yield from conditions.of_unreadable(self.resyncer.unreadable)


def _why(error: Exception) -> str:
    return f"the store is {error.reason}: {error}" if isinstance(error, StoreError) else str(error)
