"""The verbs. Each: a request in, changes of intent, store, kernel, an answer or one of `errors`.

Order, and why (architecture.md §5.5):

- What comes is committed before the kernel hears of it, so that whatever a crash leaves in the kernel has an owner in
  the store: the next start completes it, and the caller's retry finds it. If the kernel refuses, it is taken back.
- What goes is taken from the kernel first and from the store last: a crash in between puts it back, and the caller's
  retry takes it away. Nothing is ever in the kernel that the store has forgotten.

Everything here is synchronous and runs on one thread; an answer means that it is done.
"""

import errno
from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec

from sealane.compile.facts import Facts
from sealane.compile.host import DuplicateObjectError, touched
from sealane.compile.reads import Unit
from sealane.engine.builder import ChangeBuilder
from sealane.engine.endpoints import repeated_ports
from sealane.engine.errors import (
    ConflictError,
    InUseError,
    KernelError,
    ReadOnlyError,
    SealaneError,
)
from sealane.engine.events import EventLog
from sealane.engine.feed import ChangeFeed
from sealane.engine.flows import Flows
from sealane.engine.ports import Kernel, Reserver
from sealane.engine.problems import parsed
from sealane.engine.reconciler import Reconciler, describe
from sealane.engine.storing import OutrunError, keeps_changing, store_errors
from sealane.engine.views import endpoint_view, network_view, sandbox_view
from sealane.kernel.objects import Link
from sealane.kernel.state import HOST
from sealane.limits import COMMIT_TRIES
from sealane.model.change import Change, Delete, Put, inverse
from sealane.model.endpoint import Endpoint, PublishedPort, Sandbox
from sealane.model.ids import SandboxId
from sealane.model.intent import Intent, differences
from sealane.model.net import Address, address_part, parse_address
from sealane.model.network import Network
from sealane.reconcile.plan import Outcome
from sealane.store.base import Store
from sealane.wire.requests import AttachRequest, DetachRequest, NetworkRequest, PublishRequest, SandboxRequest
from sealane.wire.views import DetachView, EndpointView, NetworkView, PruneView, SandboxView

LINK_NAME_TRIES = 16
"""Automatic link names tried against what a sandbox holds already."""


class Engine:
    """`feed` has the changes of each verb once they are in force, for all that follows the intent."""

    def __init__(
        self, store: Store, kernel: Kernel, reconciler: Reconciler, events: EventLog, revision: int
    ) -> None:
        self.store = store
        self.kernel = kernel
        self.reconciler = reconciler
        self.events = events
        self.revision = revision
        self.hold = ""
        """Why nothing may change; empty: it may."""
        self.is_blind = False
        """The store could not be read: what is known is nothing, and not what there is."""
        self.feed = ChangeFeed(revision, self._reader_failed)
        self.intent: Intent = reconciler.intent
        self.builder = ChangeBuilder(self.intent, kernel, self._facts_now)
        self.flows = Flows(kernel, reconciler, events)

    def _reader_failed(self, name: str, error: Exception) -> None:
        self.events.emit("reader.failed", name, error=f"{type(error).__name__}: {error}")

    def _facts_now(self) -> Facts:
        """With the host's routes as they are: a pool that avoids those of a moment ago may be laid over a live one."""
        facts = self.reconciler.compiled.facts
        try:
            return msgspec.structs.replace(facts, foreign_routes=self.kernel.facts().foreign_routes)
        except OSError:
            return facts

    # --- networks

    def create_network(self, request: NetworkRequest) -> NetworkView:
        """Idempotent: the same request again gives the same network."""
        network, changes = self.builder.network(request)
        self.commit_then_apply(changes)
        if changes:
            self.events.emit("network.created", network.name, id=network.id, driver=network.driver)
        return self.view_network(network)

    def remove_network(self, reference: str, *, force: bool = False) -> NetworkView:
        network = self.builder.find_network(reference)
        view = self.view_network(network)
        self.apply_then_commit(self.builder.remove_network(network, force=force))
        self.events.emit("network.removed", network.name, id=network.id)
        return view

    def set_dns_servers(self, network: Network, servers: Sequence[str]) -> Network:
        """Where names that are none of ours are asked from now on; none: the host's resolvers. Idempotent."""
        chosen = tuple(parsed(parse_address, s, f"dns_servers[{i}]") for i, s in enumerate(servers))
        changed = msgspec.structs.replace(network, dns_servers=chosen)
        if changed != network:
            self.commit_then_apply([Put(changed, network)])
        return changed

    def prune_networks(self) -> PruneView:
        """Networks without endpoints go, but for those that another engine keeps in its books."""
        unused = [
            n
            for n in self.intent.networks.values()
            if not n.owner and not self.intent.endpoints_by_network.get(n.id)
        ]
        self.apply_then_commit([Delete(network) for network in unused])
        for network in unused:
            self.events.emit("network.removed", network.name, id=network.id)
        return PruneView(removed=sorted(n.name for n in unused))

    def networks(self) -> list[NetworkView]:
        return [self.view_network(n) for n in sorted(self.intent.networks.values(), key=lambda n: n.name)]

    def network(self, reference: str) -> NetworkView:
        return self.view_network(self.builder.find_network(reference))

    def view_network(self, network: Network) -> NetworkView:
        return network_view(network, self.intent, self.reconciler.compiled.facts)

    # --- sandboxes

    def create_sandbox(self, request: SandboxRequest) -> SandboxView:
        self.check_may_change()
        known = self.intent.sandbox_ids.get(request.name)
        present = self.intent.sandboxes[known] if known else None
        if present and self._is_of(present, request.netns) and present.labels == request.labels:
            return sandbox_view(present, self.intent)
        if request.netns:
            ref = self.builder.namespace(request.netns, "netns")
            sandbox, changes = self.builder.sandbox(request.name, ref, dict(request.labels))
        else:
            sandbox, changes = self.builder.sandbox(request.name, None, dict(request.labels))
            # Made before it is committed: a namespace that no record names is found by its file, and swept.
            ref = self.kernel.create_namespace(sandbox.id)
            sandbox = Sandbox(id=sandbox.id, name=sandbox.name, netns=ref, labels=sandbox.labels)
            changes = [Put(sandbox)]
        try:
            self.commit_then_apply(changes)
        except BaseException:
            if sandbox.id not in self.intent.sandboxes:
                self.drop_namespaces([sandbox])
            raise
        self.events.emit("sandbox.created", sandbox.name, id=sandbox.id)
        return sandbox_view(sandbox, self.intent)

    def _is_of(self, sandbox: Sandbox, where: str) -> bool:
        """Whether a sandbox's namespace is the one asked for: at a path, of a pid, or one of our own."""
        if sandbox.netns is None:
            return False
        if not where:
            return sandbox.netns.owner == "sealane"
        return self.builder.namespace(where, "netns").identity == sandbox.netns.identity

    def remove_sandbox(self, reference: str, *, force: bool = False) -> SandboxView:
        sandbox = self.builder.find_sandbox(reference)
        view = sandbox_view(sandbox, self.intent)
        endpoints = list(self.intent.endpoints_by_sandbox.get(sandbox.id, {}).values())
        if endpoints and not force:
            count = "1 network" if len(endpoints) == 1 else f"{len(endpoints)} networks"
            raise InUseError(
                f"sandbox {sandbox.name} is on {count}",
                hint="detach it first, or `--force`",
            )
        containers = sorted(c.name for c in self.intent.containers_by_sandbox.get(sandbox.id, {}).values())
        if containers:
            raise InUseError(
                f"sandbox {sandbox.name} is that of container {', '.join(containers)}",
                hint=f"`sealane rm {containers[0]}`",
            )
        changes = self.builder.remove_endpoints(endpoints)
        if Delete(sandbox) not in changes:
            changes.append(Delete(sandbox))
        self.apply_then_commit(changes)
        self.drop_namespaces([sandbox])
        self.events.emit("sandbox.removed", sandbox.name, id=sandbox.id)
        return view

    def drop_namespaces(self, sandboxes: Iterable[Sandbox]) -> None:
        for sandbox in sandboxes:
            if sandbox.netns is not None and sandbox.netns.owner == "sealane":
                self.kernel.delete_namespace(sandbox.netns)

    def sandboxes(self) -> list[SandboxView]:
        return [
            sandbox_view(s, self.intent) for s in sorted(self.intent.sandboxes.values(), key=lambda s: s.name)
        ]

    def sandbox(self, reference: str) -> SandboxView:
        return sandbox_view(self.builder.find_sandbox(reference), self.intent)

    # --- endpoints

    def attach(self, request: AttachRequest, reserver: Reserver | None = None) -> EndpointView:
        """Attach a sandbox to a network; return the endpoint. Idempotent. `reserver` may hold the host's ports already, for
        this container."""
        self.check_may_change()
        with self.kernel.keep_open():
            endpoint, is_new = self._attach(request, reserver)
        if is_new:
            self.flows.forget([endpoint])
            self.tell_of("endpoint.attached", endpoint)
        return self.view_endpoint(endpoint)

    def _attach(self, request: AttachRequest, reserver: Reserver | None) -> tuple[Endpoint, bool]:
        """The endpoint, and whether it was not there before."""
        in_use: list[str] = []
        while True:
            endpoint, changes = self.builder.attach(request, reserver, taken_names=in_use)
            try:
                self.commit_then_apply(changes)
            except KernelError as error:
                # The sandbox holds a link of that name which is not ours; with an automatic name the next will do.
                if request.ifname or not error.name_in_use or len(in_use) >= LINK_NAME_TRIES:
                    raise
                in_use.append(endpoint.ifname)
                continue
            return endpoint, bool(changes)

    def detach(self, requests: Sequence[DetachRequest]) -> DetachView:
        """Part sandboxes from networks, all at once. What is not there is no error."""
        endpoints, changes = self.builder.detach(requests)
        self.apply_then_commit(changes)
        for endpoint in endpoints:
            self.tell_of("endpoint.detached", endpoint)
        return DetachView(detached=[e.id for e in endpoints])

    def tell_of(self, kind: str, endpoint: Endpoint) -> None:
        network = self.intent.networks.get(endpoint.network)
        where = {"network": network.name} if network is not None else {}
        self.events.emit(kind, endpoint.name, id=endpoint.id, **where)

    def publish(
        self, endpoint: Endpoint, ports: Sequence[PublishRequest], reserver: Reserver | None = None
    ) -> Endpoint:
        """Publish exactly these ports; if they are refused, those from before. Idempotent. `reserver`: as for `attach`."""
        self.check_may_change()
        if repeated_ports(endpoint, ports):
            return endpoint
        if ports:
            self._check_nothing_is_unknown([Put(endpoint)])
        bare = msgspec.structs.replace(endpoint, ports=())
        if endpoint.ports:
            self.apply_then_commit([Put(bare, endpoint)])
        if not ports:
            return bare
        try:
            return self._with_ports(bare, self.builder.ports_of(bare, ports, reserver))
        except SealaneError:
            if endpoint.ports:
                self.commit_then_apply([Put(endpoint, bare)])
            raise

    def publish_more(self, endpoint: Endpoint, ports: Sequence[PublishedPort]) -> Endpoint:
        """Those, besides its own, as `ChangeBuilder.ports_of` has chosen them."""
        self._check_nothing_is_unknown([Put(endpoint)])
        return self._with_ports(endpoint, (*endpoint.ports, *ports))

    def _with_ports(self, endpoint: Endpoint, ports: Sequence[PublishedPort]) -> Endpoint:
        published = msgspec.structs.replace(endpoint, ports=tuple(ports))
        self.commit_then_apply([Put(published, endpoint)])
        self.flows.forget([published])
        return published

    def deactivate(self, sandboxes: Iterable[SandboxId]) -> None:
        """Nothing runs there any more: until `wake` their endpoints have no names and publish nothing. Idempotent."""
        endpoints = [e for s in sandboxes for e in self.intent.endpoints_by_sandbox.get(s, {}).values()]
        self.apply_then_commit(
            [Put(msgspec.structs.replace(e, dormant=True), e) for e in endpoints if not e.dormant]
        )

    def activate(self, sandbox: SandboxId) -> None:
        """Undo `rest`. Raises ConflictError where somebody has come to hold one of its ports. Idempotent."""
        changes = self.builder.activate(sandbox)
        self.commit_then_apply(changes)
        self.flows.forget(change.record for change in changes if isinstance(change.record, Endpoint))

    def endpoints(self, network: str = "", sandbox: str = "") -> list[EndpointView]:
        chosen = list(self.intent.endpoints.values())
        if network:
            chosen = list(
                self.intent.endpoints_by_network.get(self.builder.find_network(network).id, {}).values()
            )
        if sandbox:
            there = self.builder.find_sandbox(sandbox).id
            chosen = [e for e in chosen if e.sandbox == there]
        return [self.view_endpoint(e) for e in sorted(chosen, key=lambda e: (e.name, e.id))]

    def endpoint(self, reference: str) -> EndpointView:
        return self.view_endpoint(self.builder.find_endpoint(reference))

    def view_endpoint(self, endpoint: Endpoint) -> EndpointView:
        failures = self.reconciler.failures
        error = failures.get(("endpoint", endpoint.id), "")
        if endpoint.sandbox is not None:
            # Its routes are the sandbox's.
            error = error or failures.get(("sandbox", endpoint.sandbox), "")
        return endpoint_view(endpoint, self.intent, error)

    # --- intent, store, kernel

    def place(self, netns: str) -> str:
        """A namespace as people call it."""
        sandbox = self.intent.sandboxes.get(SandboxId(netns))
        return HOST if netns == HOST else f"sandbox {sandbox.name if sandbox else netns}"

    def check_may_change(self) -> None:
        if self.hold:
            raise ReadOnlyError(f"the daemon is read-only: {self.hold}", hint="see `sealane status`")

    def commit_then_apply(self, changes: Sequence[Change]) -> None:
        """Commit additions, then apply them; if the kernel refuses, roll back and raise KernelError. Raises
        ConflictError for what makes an object that another has already."""
        if not changes:
            return
        self.check_may_change()
        self._check_nothing_is_unknown(changes)
        self.flows.before(_addresses(changes))
        self.commit(changes)
        try:
            failures = self._settle(changes)
        except DuplicateObjectError as error:
            # It would fail every start.
            self._take_back(changes)
            raise ConflictError(str(error), hint="try again: names of links are made of new ids") from error
        except BaseException:
            self._take_back(changes)
            raise
        if failures:
            self._take_back(changes)
            raise _refused(failures)
        self.feed.append(self.revision, changes)

    def _check_nothing_is_unknown(self, changes: Sequence[Change]) -> None:
        """Which ports, addresses and subnets live endpoints have that are in no record, nobody can tell: what came now
        might get theirs."""
        orphans = self.reconciler.orphans
        if orphans and any(_claims(change) for change in changes):
            raise ConflictError(
                f"{len(orphans)} live endpoints are in no record ({orphans[0]}, …), and what is new might get their "
                "addresses or ports",
                hint="restore the store from a backup, then restart the daemon",
            )

    def apply_then_commit(self, changes: Sequence[Change]) -> None:
        """Apply deletions, then commit. If the store cannot write, nothing is changed; should it refuse all the same
        after the kernel has changed, they are restored. Raises ConflictError, StoreFailedError.

        Unlike `commit_then_apply` it is not stopped by the kernel's refusals: leftovers have no owner then, and the next resync
        deletes them.
        """
        if not changes:
            return
        self.check_may_change()
        self._check_writable(changes)
        endpoints = [e for c in changes for e in (c.record, c.before) if isinstance(e, Endpoint)]
        try:
            for failure in self._settle(changes):
                self.events.emit("apply.failed", describe(failure))
            self.flows.forget(endpoints)
            self._commit_once(changes)
        except BaseException:
            self._settle([inverse(change) for change in reversed(changes)])
            raise
        for change in changes:
            if isinstance(change.record, Sandbox):
                self.reconciler.forget_namespace(change.record.id)
            elif isinstance(change, Delete) and isinstance(change.record, Endpoint):
                self.flows.departed(change.record)
        self.feed.append(self.revision, changes)

    def commit(self, changes: Sequence[Change]) -> None:
        """Write changes to the store, and do nothing else about them. What another writer has written meanwhile is
        followed first. Raises ConflictError, StoreFailedError."""
        self._up_to_date(lambda: self._commit_once(changes), changes)

    def _check_writable(self, changes: Sequence[Change]) -> None:
        grows = any(isinstance(change, Put) and change.before is None for change in changes)
        self._up_to_date(lambda: self._check_once(grows=grows), changes)

    def _check_once(self, *, grows: bool) -> None:
        with store_errors():
            self.store.check_writable(self.revision, grows=grows)

    def _up_to_date(self, attempt: Callable[[], None], changes: Sequence[Change]) -> None:
        """Retry an attempt that another writer of the store outran, after each catch-up."""
        for _ in range(COMMIT_TRIES):
            try:
                attempt()
            except OutrunError:
                self._catch_up(changes)
            else:
                return
        raise keeps_changing()

    def _commit_once(self, changes: Sequence[Change]) -> None:
        with store_errors():
            self.revision = self.store.commit(changes, self.revision)

    def _catch_up(self, mine: Sequence[Change]) -> None:
        """Follow another writer of the store. Raises ConflictError if changes that were made before cannot be made now."""
        with store_errors():
            snapshot = self.store.snapshot()
        changes = differences(self.intent, snapshot.records)
        self.revision = snapshot.revision
        for failure in self._settle(changes):
            self.events.emit("apply.failed", describe(failure))
        self.feed.append(self.revision, changes)
        self.events.emit("store.followed", f"revision {self.revision}", changes=str(len(changes)))
        objection = self.intent.objection(mine)
        if objection:
            raise ConflictError(objection, hint="try again")

    def _settle(self, changes: Sequence[Change]) -> list[Outcome]:
        units: set[Unit] = set()
        for change in changes:
            units |= touched(change, self.intent.apply(change), self.intent)
        gone = [c.record for c in changes if isinstance(c, Delete) and isinstance(c.record, Sandbox)]
        return self.reconciler.settle(units, {s.id: s.netns for s in gone if s.netns is not None})

    def _take_back(self, changes: Sequence[Change]) -> None:
        undo = [inverse(change) for change in reversed(changes)]
        try:
            for failure in self._settle(undo):
                self.events.emit("apply.failed", describe(failure))
        finally:
            try:
                self._commit_once(undo)
            except SealaneError as error:
                # The record stays in the store, so it must stay in the intent: the next resync tries it again.
                self._settle(changes)
                self.feed.append(self.revision, changes)
                self.events.emit("store.failed", error.message)
            else:
                self.feed.append(self.revision, ())

    # --- the dead

    def release(self, sandboxes: Iterable[str], why: str) -> list[str]:
        """Take away what belonged to namespaces that are proven dead. Sandboxes of our own stay: `Resyncer`
        makes their namespaces again."""
        changes: list[Change] = []
        names: list[str] = []
        for identity in sandboxes:
            sandbox = self.intent.sandboxes.get(SandboxId(identity))
            if sandbox is None or (sandbox.netns is not None and sandbox.netns.owner == "sealane"):
                continue
            endpoints = list(self.intent.endpoints_by_sandbox.get(sandbox.id, {}).values())
            mine = self.builder.remove_endpoints(endpoints)
            changes += mine if Delete(sandbox) in mine else [*mine, Delete(sandbox)]
            names.append(sandbox.name)
        self.apply_then_commit(changes)
        for name in names:
            self.events.emit("sandbox.released", name, why=why)
        return names


def _addresses(changes: Sequence[Change]) -> Iterator[Address]:
    """Of endpoints that come."""
    for change in changes:
        if isinstance(change, Put) and isinstance(change.record, Endpoint):
            yield from (address_part(a) for a in change.record.addresses)


def _claims(change: Change) -> bool:
    """Whether something new comes that takes a subnet, an address or a port."""
    if not isinstance(change, Put):
        return False
    if isinstance(change.record, Endpoint):
        return not isinstance(change.before, Endpoint) or change.record.published != change.before.published
    return isinstance(change.record, Network) and change.before is None


def _refused(failures: list[Outcome]) -> KernelError:
    """The first real refusal: errno 0 marks what was not tried because of another."""
    first = next((f for f in failures if f.errno), failures[0])
    error = KernelError(f"the kernel refused: {describe(first)}", hint="nothing was changed")
    error.name_in_use = any(
        f.errno == errno.EEXIST and isinstance(f.operation.object, Link) for f in failures
    )
    return error
