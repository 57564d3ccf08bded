"""Desired and observed state of the host, and the one way from the one to the other.

Two ways in, one way through. `settle` follows a change of intent: it recompiles what the change touches and applies
the difference to what was last observed, so its cost is that of the change. `resync` follows a notification, a timer
or a start: it reads a namespace back first. Both end in diff, order, apply.

`observed` is what the kernel said last, with our own successful operations written into it. It is a cache and only
that: notifications mark a namespace dirty, and the next resync reads it again.

Rule: what no intent explains is not deleted while it may be alive (docs/adr/0013). An empty or
restored store beside running containers looks just like many deletions, so a resync that finds live endpoints that
no record knows deletes nothing at all until told to (`confirmed`); everything that is missing is still put right.
"""

import errno
from collections.abc import Iterable, Mapping

import msgspec

from sealane.compile.facts import Facts
from sealane.compile.host import Compiled
from sealane.compile.names import alias
from sealane.compile.reads import HOST_UNIT, Unit
from sealane.engine.ports import Kernel, NamespaceGoneError
from sealane.kernel.objects import Key, Link, Sysctl
from sealane.kernel.state import HOST, Object, hangs_on
from sealane.limits import RECONCILE_ROUNDS
from sealane.model.endpoint import Endpoint, NetnsRef
from sealane.model.ids import EndpointId, SandboxId
from sealane.model.intent import Intent
from sealane.reconcile.diff import EMPTY, Difference, diff
from sealane.reconcile.order import first_veths, order
from sealane.reconcile.plan import Operation, Outcome

NONE_LEAVE: Mapping[str, NetnsRef] = {}


class Report(msgspec.Struct):
    """What a resync found and did."""

    repaired: int = 0
    """Objects put right."""
    failures: list[Outcome] = []
    gone: set[str] = set()
    """Sandboxes whose namespace has died: proof that their endpoints may be released."""
    orphans: list[str] = []
    """Links of live endpoints that no record knows; while there are any, nothing is deleted."""
    unreadable: dict[str, str] = {}
    """Namespaces that could not be read, and why."""


class Reconciler:
    def __init__(self, kernel: Kernel, intent: Intent, facts: Facts, *, paranoid: bool = False) -> None:
        self.kernel = kernel
        self.intent = intent
        self.compiled = Compiled(intent, facts)
        self.observed: dict[str, dict[Key, Object]] = {HOST: {}}
        self.failures: dict[Unit, str] = {}
        self.orphans: list[str] = []
        self.removed: set[EndpointId] = set()
        """Endpoints that went from the records while the kernel kept something of them: that is left over, and not alive."""
        self.dirty: set[str] = set()
        self.writes = 0
        self.own_links: set[str] = set()
        """Links of the host that we worked on since the monitor last looked: their events are our own doing."""
        self._paranoid = paranoid

    def refs(self, netns: Iterable[str]) -> dict[str, NetnsRef]:
        found = {}
        for name in netns:
            sandbox = self.intent.sandboxes.get(SandboxId(name))
            if sandbox is not None and sandbox.netns is not None:
                found[name] = sandbox.netns
        return found

    def settle(self, units: set[Unit], leaving: Mapping[str, NetnsRef] = NONE_LEAVE) -> list[Outcome]:
        """Make the kernel follow a change of intent; return what failed. `leaving`: namespaces of sandboxes whose records
        go with it, where what hangs on no link has to be deleted."""
        shared = self.compiled.of_unit(HOST_UNIT) if self.orphans and HOST_UNIT in units else frozenset()
        keys = self.compiled.refresh(self.intent, units)
        gone = {unit for unit in units if not self.compiled.has(unit)}
        for unit in gone:
            self.failures.pop(unit, None)
        if self._paranoid:
            self._check_against_full_compile()
        for netns, key in keys:
            # A namespace not seen before holds nothing of ours; creating is idempotent should that prove wrong.
            there = self.observed.setdefault(netns, {})
            had = there.get(key)
            is_sysctl = isinstance(had, Sysctl) and not had.borrowed
            if is_sysctl and key not in self.compiled.desired.get(netns, EMPTY):
                # Set and never deleted, but it may go with its link, and another of that name has the kernel's defaults.
                there.pop(key, None)
        differences = diff(self.compiled.desired, self.observed, keys)
        # Keep shared host objects: orphans still use them.
        failures = self._apply(
            [d for d in differences if d.desired is not None or (d.netns, d.key) not in shared], leaving
        )
        if failures:
            self.removed |= {EndpointId(identity) for kind, identity in gone if kind == "endpoint"}
        return failures

    def _check_against_full_compile(self) -> None:
        fresh = Compiled(self.intent, self.compiled.facts)
        if fresh.desired != self.compiled.desired:
            raise AssertionError("incremental compilation differs from a full one")

    def _apply(
        self, differences: list[Difference], leaving: Mapping[str, NetnsRef] = NONE_LEAVE
    ) -> list[Outcome]:
        if not differences:
            return []
        places = {d.netns for d in differences} | _peers(differences)
        refs = {**leaving, **self.refs(places)}
        if veths := first_veths(differences):
            self.kernel.begin(veths, refs)
        plan = order(differences)
        operations = list(plan)
        try:
            failures = self.kernel.apply(plan, refs)
        except Exception as error:
            # Possibly half applied: read it back.
            self._observe(places, Report())
            if not isinstance(error, OSError):
                raise
            failures = [
                Outcome(op, error.errno or errno.EIO, error.strerror or str(error)) for op in operations
            ]
            self._note_failures(failures)
            return failures
        self.writes += len(operations) - len(failures)
        self._record(differences, operations, failures)
        return failures

    def _record(
        self, differences: list[Difference], operations: list[Operation], failures: list[Outcome]
    ) -> None:
        """Write what was done into `observed`."""
        failed = {id(outcome.operation) for outcome in failures}
        named = set()
        for operation in operations:
            netns, item = operation.netns, operation.object
            key = item.key
            where = (netns, key)
            named.add(where)
            if netns == HOST:
                self.own_links.add(item.name if isinstance(item, Link) else hangs_on(item))
            if id(operation) in failed:
                continue
            there = self.observed.setdefault(netns, {})
            if operation.verb == "delete":
                there.pop(key, None)
                if key in self.compiled.desired.get(netns, EMPTY):
                    # Only gone to be made anew; what hung on it went unsaid.
                    self.dirty.add(netns)
            else:
                there[key] = item
                if self.failures and (unit := self.compiled.origins.get(where)) is not None:
                    self.failures.pop(unit, None)
        self._note_failures(failures)
        for difference in differences:
            if (difference.netns, difference.key) not in named:
                # It goes with a link that goes; if it is wanted the next round makes it with the new one.
                self.observed[difference.netns].pop(difference.key, None)

    def _note_failures(self, failures: list[Outcome]) -> None:
        """A failure leaves its namespace dirty, to be read again."""
        for outcome in failures:
            netns, item = outcome.operation.netns, outcome.operation.object
            self.dirty.add(netns)
            unit = self.compiled.origins.get((netns, item.key))
            if unit is not None:
                self.failures[unit] = describe(outcome)

    def forget_namespace(self, netns: str) -> None:
        """A sandbox is gone, and with it what it held."""
        self.observed.pop(netns, None)
        self.dirty.discard(netns)

    def resync(self, names: Iterable[str], *, confirmed: bool = False) -> Report:
        """Read namespaces back and put right what differs, in as many rounds as it takes.

        `confirmed`: delete what no record explains even if it looks alive.
        """
        report = Report()
        names = pending = set(names)
        for _ in range(RECONCILE_ROUNDS):
            looked_at = self._observe(pending, report)
            # A missing host side may mean that its sandbox has died: look before making it again.
            looked_at |= self._observe(self._sandboxes_of_missing() - looked_at - report.gone, report)
            self.dirty -= looked_at
            differences = self._differences(looked_at, report, confirmed=confirmed)
            self._forget_failures(looked_at, differences)
            if not differences:
                break
            report.failures = self._apply(differences)
            report.repaired += self._count_repaired(differences, report.failures)
            # A veth's ends, and a port's bridge, lie in different namespaces.
            peers = (
                netns for netns in _peers(differences) if netns == HOST or netns in self.compiled.desired
            )
            pending = {d.netns for d in differences}.union(peers)
        if HOST in names:
            self.orphans = report.orphans
        return report

    def _count_repaired(self, differences: list[Difference], failures: list[Outcome]) -> int:
        """What only went, to be made anew by the next round, is not yet."""
        failed = {(o.operation.netns, o.operation.object.key) for o in failures}
        return sum(
            (d.netns, d.key) not in failed and self.observed.get(d.netns, EMPTY).get(d.key) is d.desired
            for d in differences
        )

    def _forget_failures(self, looked_at: set[str], differences: list[Difference]) -> None:
        """Of units all of which was looked at and is as it should be, whoever put it right."""
        wrong = {self.compiled.origins.get((d.netns, d.key)) for d in differences}
        for unit in self.failures.keys() - wrong:
            if self.compiled.places(unit) <= looked_at:
                del self.failures[unit]

    def _sandboxes_of_missing(self) -> set[str]:
        there = self.observed[HOST]
        desired = self.compiled.desired[HOST]
        missing = (key for key in desired if key[0] == "link" and key not in there)
        endpoints = (self._endpoint_behind(HOST, key) for key in missing)
        return {endpoint.sandbox for endpoint in endpoints if endpoint and endpoint.sandbox}

    def _endpoint_behind(self, netns: str, key: Key) -> Endpoint | None:
        unit = self.compiled.origins.get((netns, key))
        return self.intent.endpoints.get(EndpointId(unit[1])) if unit and unit[0] == "endpoint" else None

    def _observe(self, names: set[str], report: Report) -> set[str]:
        seen = set()
        refs = self.refs(names)
        for netns in names:
            if netns != HOST and netns not in refs:
                self.forget_namespace(netns)
                continue
            desired = self.compiled.desired.get(netns, EMPTY)
            try:
                found = self.kernel.observe(netns, refs.get(netns), desired)
            except NamespaceGoneError:
                report.gone.add(netns)
                self.forget_namespace(netns)
                continue
            except OSError as error:
                report.unreadable[netns] = str(error)
                continue
            self.observed[netns] = dict(found)
            seen.add(netns)
        return seen

    def _differences(self, names: set[str], report: Report, *, confirmed: bool) -> list[Difference]:
        there = {netns: self.observed[netns] for netns in names}
        # What should be on the host for a sandbox that has died must not be made again: its veth has no other end.
        differences = [d for d in diff(self.compiled.desired, there) if not self._is_for_dead(d, report.gone)]
        report.orphans = self._unexplained(differences, names)
        if report.orphans and not confirmed:
            return [d for d in differences if d.desired is not None]
        return differences

    def _is_for_dead(self, difference: Difference, gone: set[str]) -> bool:
        if not gone or difference.desired is None:
            return False
        endpoint = self._endpoint_behind(difference.netns, difference.desired.key)
        return endpoint is not None and endpoint.sandbox in gone

    def _unexplained(self, differences: list[Difference], names: set[str]) -> list[str]:
        """Host-side links of endpoints that no record knows. (A veth whose other end has died is gone itself.)"""
        prefix = alias(self.compiled.facts.instance, "e", "")
        unknown = {
            EndpointId(d.observed.alias.removeprefix(prefix)): d.observed.name
            for d in differences
            if d.netns == HOST
            and d.desired is None
            and isinstance(d.observed, Link)
            and d.observed.alias.startswith(prefix)
        }
        if HOST in names:
            self.removed &= unknown.keys()
        return [
            name
            for endpoint, name in unknown.items()
            if endpoint not in self.intent.endpoints and endpoint not in self.removed
        ]


def _peers(differences: list[Difference]) -> set[str]:
    """Namespaces that the other ends of links belong in."""
    return {d.desired.peer[0] for d in differences if isinstance(d.desired, Link) and d.desired.peer}


def describe(outcome: Outcome) -> str:
    """An outcome in a person's words."""
    name = errno.errorcode.get(outcome.errno, "") if outcome.errno else ""
    item = outcome.operation.object
    return f"{outcome.operation.verb} {' '.join(map(shown, item.key))}: {outcome.message}" + (
        f" ({name})" if name else ""
    )


def told(difference: Difference) -> str:
    """`missing: route 10.1.0.0/24 …`"""
    item = difference.desired or difference.observed
    assert item is not None
    kind = (
        "missing" if difference.observed is None else "unwanted" if difference.desired is None else "differs"
    )
    return f"{kind}: {' '.join(map(shown, item.key))}"


def shown(part: object) -> str:
    return part.hex() if isinstance(part, bytes) else str(part)
