"""A plan as jobs: what goes to the kernel at once, each in its turn.

Composing messages takes about as long as the kernel takes to make a link. So a job can be composed ahead, while the
kernel is busy with the one before (`Job.compose`), presuming that all goes well; where it does not (`Progress.surprises`)
it is composed anew in its turn, with what is known by then.
"""

import errno
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Final, NamedTuple, Protocol

from sealane.engine.ports import NamespaceGoneError
from sealane.kernel.nft import Chain, Element, ObservedChain, Set, Table
from sealane.kernel.objects import FastGate, FastTarget, ForwardRule, Link, LoopbackPort, Sysctl
from sealane.kernel.state import HOST, Object
from sealane.linux import forward_rules
from sealane.linux.bpf.entry import LoopbackEntry
from sealane.linux.namespaces import Namespaces
from sealane.linux.netlink.socket import Socket
from sealane.linux.nft import foresee_nft
from sealane.linux.nft_transaction import Transaction
from sealane.linux.progress import Progress, link_of
from sealane.linux.session import Results, Session, Work, errno_of, joins_ends
from sealane.model.net import packed
from sealane.reconcile.plan import Operation, Outcome, Plan, StageName

CREATES_AT_ONCE = 64
"""Links made by one datagram: each holds its sandbox's descriptor open, and the kernel's configuration lock is not
kept from others for long."""

ApplyNft = Callable[[Socket, Sequence[Operation], Transaction | None], list[Outcome]]


class LoopbackPublisher(Protocol):
    """Publishes on the host's own loopback addresses: `bpf.loopback.LoopbackPublisher`, or where the kernel cannot,
    `loopback_forwarder.LoopbackForwarder`."""

    def entries(self) -> frozenset[LoopbackEntry]:
        """What is published now. Raises OSError."""
        ...

    def apply(self, add: Iterable[LoopbackEntry], remove: Iterable[LoopbackEntry] = ()) -> None:
        """Publish `add` and take `remove` back. Idempotent. Raises OSError, ValueError."""
        ...

    def repair(self) -> bool:
        """Put back what others have taken from it; whether there was anything. What is published may have to be published
        again. Raises OSError."""
        ...


class HostSide(NamedTuple):
    """What plans are performed with on the host. `route` and `nft` are sockets of its namespace."""

    instance: str
    route: Socket
    nft: Socket
    apply_nft: ApplyNft
    loopback: LoopbackPublisher | None


class Tools:
    """What the jobs of one plan work with."""

    def __init__(self, host: HostSide, sandboxes: Namespaces, progress: Progress) -> None:
        self.host = host
        self.sandboxes = sandboxes
        self.progress = progress
        self._on_host = Session(HOST, None, host.route, sandboxes, progress)

    def session(self, netns: str) -> Session:
        """Raises NamespaceGoneError, OSError."""
        if netns == HOST:
            return self._on_host
        inside = self.sandboxes.open(netns)
        return Session(netns, inside.descriptor, inside.socket, self.sandboxes, self.progress)


class Job:
    """Operations that go to the kernel at once. Failures go to the plan's outcomes."""

    def __init__(self, stage: StageName, operations: Sequence[Operation], tools: Tools) -> None:
        self.stage = stage
        self.operations = operations
        self._tools = tools

    def compose(self) -> None:
        """Do of `perform` what can be done before its turn: nothing that is seen outside."""

    def perform(self) -> None:
        raise NotImplementedError


class Nft(Job):
    _transaction: Transaction | None = None

    def compose(self) -> None:
        with suppress(OSError):
            self._transaction = foresee_nft(self._tools.host.nft, self.operations)

    def perform(self) -> None:
        host = self._tools.host
        self._tools.progress.outcomes += host.apply_nft(host.nft, self.operations, self._transaction)


class Passages(Job):
    def perform(self) -> None:
        host = self._tools.host
        self._tools.progress.outcomes += forward_rules.apply(host.nft, self.operations, host.instance)


class LinkJob(Job):
    """In one namespace."""

    @property
    def _netns(self) -> str:
        return self.operations[0].netns

    def _session(self) -> Session | None:
        """None: the namespace cannot be entered, and all that was to be in it has failed."""
        try:
            return self._tools.session(self._netns)
        except (NamespaceGoneError, OSError) as error:
            number, message = errno_of(error)
            for operation in self.operations:
                if operation.verb != "delete" or not isinstance(error, NamespaceGoneError):
                    self._tools.progress.fail(operation, number, message)
            return None


class Sysctls(LinkJob):
    def perform(self) -> None:
        if (session := self._session()) is not None:
            session.write_sysctls(self.operations)


class Deletions(LinkJob):
    def perform(self) -> None:
        if (session := self._session()) is not None:
            session.delete_links(self.operations)


class RtnetlinkJob(LinkJob):
    """One datagram, and what its messages draw after them."""

    _works: list[Work] | None = None
    _composed_at = (0, 0)
    """Surprises and evictions so far when these were composed."""
    _begun: Results | None = None

    def compose(self) -> None:
        with suppress(NamespaceGoneError, OSError):
            session = self._tools.session(self._netns)
            if self._begun is not None and self._works is not None:
                session.configure(self._works)
            else:
                self._works = session.compose_ahead(self.operations)
                self._composed_at = self._changes()

    def begin(self) -> None:
        """Of veths: the kernel may make them while others are performed. `compose` and `perform` follow."""
        self._works, self._begun = self._tools.session(self._netns).begin(self.operations)

    def perform(self) -> None:
        session = self._session()
        if session is None:
            return
        works = self._works
        if works is None or (self._begun is None and self._composed_at != self._changes()):
            works = session.compose(self.operations)
        session.send(works, self._begun)

    def _changes(self) -> tuple[int, int]:
        """What makes messages wrong that were composed before."""
        return self._tools.progress.surprises, self._tools.sandboxes.evictions


def first_of(veths: Sequence[Operation], tools: Tools) -> RtnetlinkJob:
    """The job that their plan begins its building with."""
    creations = [operation for operation in veths if operation.verb == "create"]
    return RtnetlinkJob("build", creations[:CREATES_AT_ONCE], tools)


class CarrierJob(Job):
    """Of veths that were opened on the host: what is inside carries from now on, too. Nobody asked for that by itself."""

    def __init__(self, stage: StageName, opened: Sequence[Operation], tools: Tools) -> None:
        super().__init__(stage, (), tools)
        self._opened = opened

    def perform(self) -> None:
        for operation in self._opened:
            item = operation.object
            if isinstance(item, Link) and item.peer is not None:
                netns, name = item.peer
                with suppress(NamespaceGoneError, OSError):
                    self._tools.session(netns).settle_carrier(name)


class LoopbackJob(Job):
    """Added and removed in one call, so that a port that changes its backend has no gap."""

    def perform(self) -> None:
        self._tools.progress.outcomes += self._publish()

    def _publish(self) -> list[Outcome]:
        if self._tools.host.loopback is None:
            return [
                Outcome(operation, errno.EOPNOTSUPP, "nothing publishes on loopback here")
                for operation in self.operations
                if operation.verb != "delete"
            ]
        outcomes = []
        add: list[LoopbackEntry] = []
        remove: list[LoopbackEntry] = []
        for operation in self.operations:
            try:
                for item in (operation.before, operation.object):
                    if isinstance(item, LoopbackPort):
                        leaves = operation.verb == "delete" or item is not operation.object
                        (remove if leaves else add).append(entry_of(item))
            except (ValueError, OSError) as error:
                outcomes.append(Outcome(operation, errno.EINVAL, str(error)))
        try:
            self._tools.host.loopback.apply(add, remove)
        except (ValueError, OSError) as error:
            number, message = errno_of(error)
            return [Outcome(operation, number, message) for operation in self.operations]
        return outcomes


class FastPathJob(Job):
    """Elements of the fast path's maps, one by one."""

    def perform(self) -> None:
        host = self._tools.session(HOST)
        for operation in self.operations:
            try:
                self._lead(operation, operation.object, host)
            except OSError as error:
                self._tools.progress.outcomes.append(Outcome(operation, *errno_of(error)))

    def _lead(self, operation: Operation, item: Object, host: Session) -> None:
        fast_path = self._tools.progress.fast_path
        if fast_path is None:
            raise OSError(errno.EOPNOTSUPP, "there is no fast path here")
        gone = operation.verb == "delete"
        if isinstance(item, FastGate):
            (fast_path.close_gate if gone else fast_path.open_gate)(item)
        elif isinstance(item, FastTarget):
            if gone:
                fast_path.delete(item)
            else:
                fast_path.put(item, host.own_index(item.link))


_KINDS: Final[dict[type, type[Job]]] = {
    Table: Nft,
    Chain: Nft,
    ObservedChain: Nft,
    Set: Nft,
    Element: Nft,
    ForwardRule: Passages,
    LoopbackPort: LoopbackJob,
    FastTarget: FastPathJob,
    FastGate: FastPathJob,
}
"""Of what is on no link; the rest is `LinkJob`."""

_ORDER: Final[tuple[type[Job], ...]] = (Nft, Passages, LinkJob, LoopbackJob, FastPathJob)
"""In a stage: rules, what stands behind them, what leads there."""


def jobs(plan: Plan, tools: Tools) -> Iterator[Job]:
    """In the order of the plan's stages."""
    for stage, operations in plan.stages:
        sorts: dict[type[Job], list[Operation]] = {}
        for operation in operations:
            sorts.setdefault(_KINDS.get(type(operation.object), LinkJob), []).append(operation)
        for kind in _ORDER:
            if kind is LinkJob:
                for group in by_namespace(sorts.get(LinkJob, ())):
                    yield from _on_links(stage, group, tools)
            elif kind in sorts:
                yield kind(stage, sorts[kind], tools)
        if stage == "open" and (opened := [op for op in operations if joins_ends(op)]):
            yield CarrierJob(stage, opened, tools)


def _on_links(stage: StageName, operations: Iterable[Operation], tools: Tools) -> Iterator[LinkJob]:
    """Of one namespace. What needs a link that is made, or that takes several steps, goes after it."""
    batch: list[Operation] = []
    kind: type[LinkJob] = RtnetlinkJob
    unfinished: set[str] = set()
    for operation in operations:
        its_kind = _kind(operation)
        if batch and (its_kind is not kind or (unfinished and _waits(operation.object, unfinished))):
            yield kind(stage, batch, tools)
            batch, unfinished = [], set()
        kind = its_kind
        batch.append(operation)
        if operation.verb != "open" and isinstance(operation.object, Link):
            unfinished.add(operation.object.name)
    if batch:
        yield kind(stage, batch, tools)


def _kind(operation: Operation) -> type[LinkJob]:
    kind = type(operation.object)
    if kind is Sysctl:
        return Sysctls
    return Deletions if kind is Link and operation.verb == "delete" else RtnetlinkJob


def _waits(item: Object, unfinished: Collection[str]) -> bool:
    return (
        len(unfinished) >= CREATES_AT_ONCE
        or link_of(item) in unfinished
        or (isinstance(item, Link) and item.master in unfinished)
    )


def by_namespace(operations: Iterable[Operation]) -> Iterator[list[Operation]]:
    """The host's operations up to a sandbox's first one, then sandbox by sandbox, then the rest of the host's: bridges
    and veths come before what is inside, and the host side of a link opens after what is inside is complete."""
    leading: list[Operation] = []
    trailing: list[Operation] = []
    sandboxes: dict[str, list[Operation]] = {}
    for operation in operations:
        if operation.netns != HOST:
            sandboxes.setdefault(operation.netns, []).append(operation)
        else:
            (trailing if sandboxes else leading).append(operation)
    if leading:
        yield leading
    yield from sandboxes.values()
    if trailing:
        yield trailing


def entry_of(item: LoopbackPort) -> LoopbackEntry:
    """Raises ValueError for what cannot be published."""
    reserved = packed(item.reserved) if item.reserved else b""
    address = packed(item.address)
    return LoopbackEntry(item.family, item.proto, item.first, item.last, address, item.port, reserved)
