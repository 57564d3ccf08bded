"""Keeping what is as it should be: at the start, after notifications, and on demand (`gc`, `audit`).

A start, a notification and a `gc` are one thing: read back, compare, put right. What differs is how much is read, and
whether what nobody explains may be deleted.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable

import msgspec

from sealane.engine.engine import Engine
from sealane.engine.errors import SealaneError
from sealane.engine.ports import NamespaceGoneError
from sealane.engine.reconciler import Report, describe, told
from sealane.kernel.state import HOST
from sealane.limits import REPAIR_BURST, REPAIR_PAUSE_S
from sealane.model.change import Change, Put
from sealane.model.endpoint import NetnsRef, Sandbox
from sealane.reconcile.diff import diff
from sealane.wire.views import AuditView, GcView

BOOT = "boot"
"""Meta key of the boot that the store's namespaces belong to."""


class Resyncer:
    def __init__(self, engine: Engine, clock: Callable[[], float] = time.monotonic) -> None:
        self.engine = engine
        self.repairs = 0
        self.last_repair_ms = 0.0
        self.unreadable: dict[str, str] = {}
        self.unverified: deque[str] = deque()
        """Sandboxes that were not looked at since the start: done in the background, a few at a time."""
        self._clock = clock
        self._heals: deque[float] = deque(maxlen=REPAIR_BURST)
        """When something was put right last."""

    def start(self) -> Report:
        """Make the host right; sandboxes follow in the background. Writes nothing if nothing has changed."""
        engine = self.engine
        boot = engine.kernel.boot_id()
        if engine.store.meta(BOOT) != boot:
            self._after_boot()
            engine.store.set_meta(BOOT, boot)
        self.unverified.extend(s.id for s in engine.intent.sandboxes.values() if s.netns is not None)
        report = self.resync({HOST})
        self.sweep()
        return report

    def _after_boot(self) -> None:
        """No namespace outlives a boot: what looks like one of before is another's (`/proc/812/ns/net`)."""
        foreign = [
            s.id
            for s in self.engine.intent.sandboxes.values()
            if s.awaited or (s.netns and s.netns.owner == "foreign")
        ]
        self.engine.release(foreign, "the host was rebooted")
        self.remake(
            [s.id for s in self.engine.intent.sandboxes.values() if s.netns and s.netns.owner == "sealane"]
        )

    @property
    def is_in_doubt(self) -> bool:
        """Whether what no record explains may be alive: a new store, or one that does not know live endpoints."""
        return self.engine.revision == 0 or bool(self.engine.reconciler.orphans)

    def sweep(self) -> list[str]:
        """Unpin namespaces that were made and never recorded; none while the records themselves may be lost."""
        if self.is_in_doubt:
            return []
        stray = self.engine.kernel.sweep_namespaces(self.engine.intent.sandboxes)
        for name in stray:
            self.engine.events.emit("namespace.swept", name)
        return stray

    def remake(self, sandboxes: Iterable[str]) -> None:
        """Make namespaces of our own again that are gone; their endpoints are plugged by the resync that follows."""
        engine = self.engine
        changes: list[Change] = []
        for identity in sandboxes:
            sandbox = engine.intent.sandboxes.get(identity)  # type: ignore[call-overload]
            if sandbox is None:
                continue
            ref = self._made_again(sandbox)
            if ref != sandbox.netns:
                changes.append(Put(with_netns(sandbox, ref), sandbox))
                engine.reconciler.forget_namespace(sandbox.id)
        if changes:
            engine.commit(changes)
            for change in changes:
                engine.intent.apply(change)
            engine.feed.append(engine.revision, changes)

    def _made_again(self, sandbox: Sandbox) -> NetnsRef:
        """With a user namespace, if it had one and one can still be had: without it the networks are there, and its container,
        which is to live in it, is refused."""
        had_userns = sandbox.netns is not None and bool(sandbox.netns.userns)
        try:
            return self.engine.kernel.create_namespace(sandbox.id, with_userns=had_userns)
        except OSError as error:
            if not had_userns:
                raise
            self.engine.events.emit("userns.lost", sandbox.name, id=sandbox.id, message=str(error))
            return self.engine.kernel.create_namespace(sandbox.id)

    def resync(self, names: set[str], *, confirmed: bool = False) -> Report:
        """Read namespaces back and put right what differs; release what is proven dead."""
        started = self._clock()
        engine = self.engine
        if engine.hold:
            return Report()
        self.unreadable = {
            n: w for n, w in self.unreadable.items() if n == HOST or n in engine.intent.sandboxes
        }
        report = engine.reconciler.resync(names, confirmed=confirmed)
        for name in names:
            self.unreadable.pop(name, None)
        self.unreadable.update(report.unreadable)
        if report.gone:
            self._release_dead(report.gone)
        if report.repaired:
            self.repairs += report.repaired
            self._heals.append(self._clock())
            self.last_repair_ms = (self._clock() - started) * 1000
            engine.events.emit(
                "drift.repaired", f"{report.repaired} objects", milliseconds=f"{self.last_repair_ms:.1f}"
            )
        for failure in report.failures:
            engine.events.emit("apply.failed", describe(failure))
        return report

    def _release_dead(self, gone: set[str]) -> None:
        engine = self.engine
        ours = [
            s.id
            for s in engine.intent.sandboxes.values()
            if s.id in gone and s.netns is not None and s.netns.owner == "sealane"
        ]
        try:
            engine.release(gone - set(ours), "its namespace is gone")
            self.remake(ours)
        except (SealaneError, OSError) as error:
            engine.events.emit("release.failed", str(error))
            return
        if ours:
            engine.reconciler.resync({HOST, *ours})

    def verify_some(self, count: int) -> bool:
        """Look at a few sandboxes that were not looked at since the start; whether any are left."""
        names = {self.unverified.popleft() for _ in range(min(count, len(self.unverified)))}
        if names:
            self.resync(names)
        return bool(self.unverified)

    def repair_delay(self) -> float:
        """0 if a heal may run at once, else the seconds to wait: somebody undoes what we do, as fast as we do it. A look
        that found nothing to repair does not count: dockerd moves its containers' links about, which are ours."""
        is_fight = len(self._heals) == REPAIR_BURST and self._clock() - self._heals[0] < REPAIR_PAUSE_S
        return REPAIR_PAUSE_S if is_fight else 0.0

    # --- on demand

    def gc(self, *, confirmed: bool = False) -> GcView:
        """Release dead sandboxes and delete unused kernel objects. `confirmed`: also what is alive but in no record."""
        engine = self.engine
        engine.check_may_change()
        before = set(engine.intent.sandboxes)
        names = {s.name for s in engine.intent.sandboxes.values()}
        self.unverified.clear()
        report = self.resync({HOST, *before}, confirmed=confirmed)
        left = {s.name for s in engine.intent.sandboxes.values()}
        removed = [f"sandbox {name}" for name in sorted(names - left)]
        removed += [f"namespace {name}" for name in self.sweep()]
        if report.repaired:
            removed.append(f"{report.repaired} kernel objects put right")
        return GcView(removed=removed, kept=[f"link {name}" for name in report.orphans])

    def audit(self) -> AuditView:
        """Compare what should be with what is, in every namespace, and change nothing."""
        engine = self.engine
        reconciler = engine.reconciler
        desired = reconciler.compiled.desired
        findings: list[str] = []
        objects = 0
        refs = reconciler.refs(engine.intent.sandboxes)
        for netns in [HOST, *refs]:
            where = engine.place(netns)
            try:
                there = engine.kernel.observe(netns, refs.get(netns), desired.get(netns, {}))
            except (NamespaceGoneError, OSError) as error:
                findings.append(f"{where}: {error or 'its namespace is gone'}")
                continue
            objects += len(there)
            findings += [f"{where}: {told(difference)}" for difference in diff(desired, {netns: there})]
        return AuditView(clean=not findings, findings=findings, objects=objects)


def with_netns(sandbox: Sandbox, ref: NetnsRef) -> Sandbox:
    return msgspec.structs.replace(sandbox, netns=ref)
