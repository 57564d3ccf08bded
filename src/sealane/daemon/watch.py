"""Looks after the host while the daemon runs: on the kernel's notifications, and from time to time for what it does
not tell of."""

import asyncio
import logging

from sealane.compile.facts import reach
from sealane.compile.reads import HOST_UNIT
from sealane.engine.engine import Engine
from sealane.engine.errors import SealaneError
from sealane.engine.resyncer import Resyncer
from sealane.kernel.objects import Sysctl
from sealane.kernel.state import HOST
from sealane.limits import FULL_LOOK_S, SYSCTL_POLL_S
from sealane.linux.kernel import LinuxKernel
from sealane.linux.monitor import Monitor

log = logging.getLogger("sealane")

GATHER_S = 0.005
"""After the first notification, for the rest of the same change: a flush of a ruleset is thousands of messages."""

LOOK_SHARE = 10
"""Looks that find nothing to repair take at most one part in so many of the time, however much is told."""

RETRY_S = 1.0
"""Until what the kernel refused to tell is asked for again."""

VERIFY_AT_ONCE = 20
"""Sandboxes looked at in one turn of the loop after a start."""


class DriftWatcher:
    def __init__(
        self,
        engine: Engine,
        resyncer: Resyncer,
        kernel: LinuxKernel,
        monitor: Monitor,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._engine = engine
        self._resyncer = resyncer
        self._kernel = kernel
        self._monitor = monitor
        self._loop = loop
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._pending = False
        self._rests_until = 0.0

    def start(self) -> None:
        self._update_ignored()
        for fileno in self._monitor.filenos():
            self._loop.add_reader(fileno, self._events)
        self._later("poll", SYSCTL_POLL_S, self._poll)
        self._later("look", FULL_LOOK_S, self._full_look)
        self._later("verify", 0.0, self._verify)

    def stop(self) -> None:
        for fileno in self._monitor.filenos():
            self._loop.remove_reader(fileno)
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _later(self, name: str, seconds: float, callback: object) -> None:
        """In the place of what was to be done later under this name."""
        if (before := self._timers.get(name)) is not None:
            before.cancel()
        self._timers[name] = self._loop.call_later(seconds, callback)  # type: ignore[arg-type]

    def _events(self) -> None:
        own, self._engine.reconciler.own_links = self._engine.reconciler.own_links, set()
        dirty = self._monitor.read(own)
        if (dirty.host or self._engine.reconciler.dirty) and not self._pending:
            log.debug("looking at the host: %s", dirty.host)
            self._pending = True
            self._later("heal", max(GATHER_S, self._rests_until - self._loop.time()), self._heal)
        if dirty.facts:
            self._refresh_facts()

    def _heal(self) -> None:
        wait = self._resyncer.repair_delay()
        if wait:
            self._engine.events.emit("drift.contested", "host", pause=f"{wait:.0f} s")
            self._later("heal", wait, self._heal_now)
            return
        self._heal_now()

    def _heal_now(self) -> None:
        self._pending = False
        started = self._loop.time()
        if not self._resync({HOST, *self._engine.reconciler.dirty}):
            ended = self._loop.time()
            self._rests_until = ended + (ended - started) * (LOOK_SHARE - 1)

    def _resync(self, names: set[str]) -> int:
        """Return the number of repaired objects."""
        try:
            report = self._resyncer.resync(names)
        except (SealaneError, OSError):
            log.exception("resync")
            return 0
        return report.repaired

    def _refresh_facts(self) -> None:
        """The uplink, or its MTU, may have changed; networks with an automatic MTU follow."""
        try:
            facts = self._kernel.facts()
        except OSError:
            log.exception("facts")
            self._later("facts", RETRY_S, self._refresh_facts)
            return
        compiled = self._engine.reconciler.compiled
        match reach(compiled.facts, facts):
            case "nothing":
                compiled.facts = facts
            case "host":
                # At once: the sooner gates close the better.
                compiled.facts = facts
                self._update_ignored()
                self._engine.reconciler.settle({HOST_UNIT})
            case "everything":
                compiled.with_facts(self._engine.intent, facts)
                self._update_ignored()
                self._engine.events.emit(
                    "facts.changed", facts.uplink or "no uplink", mtu=str(facts.uplink_mtu)
                )
                self._resync({HOST, *self._engine.reconciler.refs(self._engine.intent.sandboxes)})

    def _update_ignored(self) -> None:
        """What is open or untracked must hear at once of rules that others make; that they are gone can wait for the poll."""
        features = self._engine.reconciler.compiled.facts.features
        # Of the family bridge nothing translates.
        translated = {"bridge", *features.translators}
        judged = features.firewalls if features.fast_path else translated
        self._monitor.ignored_families = translated.intersection(judged)

    def _poll(self) -> None:
        """What nothing tells of: settings of ours, and br_netfilter, which other engines switch on; rules of others that are
        gone, of which nobody asks to be told. And what can wait: flows of endpoints that went. And the gates of the fast path,
        which are open only while we are here."""
        self._later("poll", SYSCTL_POLL_S, self._poll)
        self._engine.flows.forget_departed()
        self._refresh_facts()
        try:
            self._kernel.renew()
        except OSError:
            log.exception("fast path")
        desired = {
            k: v for k, v in self._engine.reconciler.compiled.desired[HOST].items() if isinstance(v, Sysctl)
        }
        try:
            found = self._kernel.sysctls(desired)
        except OSError:
            log.exception("sysctls")
            return
        if any(found.get(key) not in (None, item) for key, item in desired.items()):
            self._resync({HOST})

    def _full_look(self) -> None:
        self._later("look", FULL_LOOK_S, self._full_look)
        try:
            if self._kernel.repair():
                log.warning("restored the removed 127.0.0.1 socket programs")
        except OSError:
            log.exception("loopback")
        self._resync({HOST})
        waiting = set(self._resyncer.unverified)
        known = self._engine.reconciler.refs(self._engine.intent.sandboxes)
        self._resyncer.unverified.extend(netns for netns in known if netns not in waiting)
        self._later("verify", 0.0, self._verify)

    def _verify(self) -> None:
        try:
            more = self._resyncer.verify_some(VERIFY_AT_ONCE)
        except (SealaneError, OSError):
            log.exception("verify")
            self._later("verify", RETRY_S, self._verify)
            return
        if more:
            self._later("verify", 0.0, self._verify)
