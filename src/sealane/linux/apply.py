"""Performing plans: each stage's nftables operations as one transaction, its loopback publishes, and everything
rtnetlink by namespace, as few datagrams as its order allows."""

import errno
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Protocol

from sealane.engine.ports import NamespaceGoneError
from sealane.kernel.nft import Chain, Element, ObservedChain, Set, Table
from sealane.kernel.objects import FastGate, FastTarget, Link, LoopbackPort, Passage
from sealane.kernel.state import HOST, Object
from sealane.linux import passages
from sealane.linux.bpf.entry import LoopbackEntry
from sealane.linux.bpf.fast_path import FastPath
from sealane.linux.namespaces import Namespaces, Visits
from sealane.linux.netlink.inet import pack_address
from sealane.linux.netlink.socket import Socket
from sealane.linux.progress import Progress
from sealane.linux.session import Session, errno_of
from sealane.model.endpoint import NetnsRef
from sealane.reconcile.plan import Operation, Outcome, Plan

NFT = (Table, Chain, ObservedChain, Set, Element)


class LoopbackPublisher(Protocol):
    """Publishes on the host's own loopback addresses: `bpf.loopback.LoopbackPublisher`, or where the kernel cannot,
    `loopback_forwarder.LoopbackForwarder`."""

    def entries(self) -> frozenset[LoopbackEntry]:
        """What is published now. Raises OSError."""
        ...

    def apply(self, add: Iterable[LoopbackEntry], remove: Iterable[LoopbackEntry] = ()) -> None:
        """Publish `add` and take `remove` back. Idempotent. Raises OSError, ValueError."""
        ...


class Applier:
    """`route` and `nft` are sockets of the host's namespace."""

    def __init__(
        self,
        instance: str,
        route: Socket,
        nft: Socket,
        apply_nft: Callable[[Socket, Sequence[Operation]], list[Outcome]],
        loopback: LoopbackPublisher | None,
        *,
        ipv6: bool = True,
        fast_path: FastPath | None = None,
    ) -> None:
        self._instance = instance
        self._route = route
        self._nft = nft
        self._apply_nft = apply_nft
        self._loopback = loopback
        self._ipv6 = ipv6
        self._fast_path = fast_path

    def apply(self, plan: Plan, refs: Mapping[str, NetnsRef], visits: Visits | None = None) -> list[Outcome]:
        progress = Progress(self._instance, plan, ipv6=self._ipv6, fast_path=self._fast_path)
        fenced = True
        with Namespaces(refs, visits) as sandboxes:
            for name, operations in plan.stages:
                if not fenced:
                    progress.outcomes += [Outcome(op, 0, "not tried: the fence failed") for op in operations]
                    continue
                before = len(progress.outcomes)
                self._stage(operations, sandboxes, progress)
                if name == "open":
                    self._settle_carriers(operations, sandboxes, progress)
                fenced = name != "fence" or len(progress.outcomes) == before
        return progress.outcomes

    def _stage(self, operations: Sequence[Operation], sandboxes: Namespaces, progress: Progress) -> None:
        nft: list[Operation] = []
        loopback: list[Operation] = []
        fast: list[Operation] = []
        foreign: list[Operation] = []
        rest: list[Operation] = []
        for operation in operations:
            item = operation.object
            if isinstance(item, NFT):
                nft.append(operation)
            elif isinstance(item, LoopbackPort):
                loopback.append(operation)
            elif isinstance(item, FastTarget | FastGate):
                fast.append(operation)
            elif isinstance(item, Passage):
                foreign.append(operation)
            else:
                rest.append(operation)
        if nft:
            progress.outcomes += self._apply_nft(self._nft, nft)
        if foreign:
            progress.outcomes += passages.apply(self._nft, foreign, self._instance)
        for netns, group in by_namespace(rest):
            self._namespace(netns, group, sandboxes, progress)
        if loopback:
            progress.outcomes += self._publish(loopback)
        host = Session(HOST, None, self._route, sandboxes, progress)
        for operation in fast:
            try:
                self._lead(operation, operation.object, host)
            except OSError as error:
                progress.outcomes.append(Outcome(operation, *errno_of(error)))

    def _settle_carriers(
        self, operations: Sequence[Operation], sandboxes: Namespaces, progress: Progress
    ) -> None:
        for operation in operations:
            item = operation.object
            if operation.verb != "open" or not isinstance(item, Link) or item.peer is None:
                continue
            if operation.netns == HOST:
                netns, name = item.peer
                with suppress(NamespaceGoneError, OSError):
                    socket, descriptor = sandboxes.socket(netns), sandboxes.descriptor(netns)
                    Session(netns, descriptor, socket, sandboxes, progress).settle_carrier(name)

    def _namespace(
        self, netns: str, operations: list[Operation], sandboxes: Namespaces, progress: Progress
    ) -> None:
        if netns == HOST:
            Session(HOST, None, self._route, sandboxes, progress).run(operations)
            return
        try:
            socket, descriptor = sandboxes.socket(netns), sandboxes.descriptor(netns)
        except (NamespaceGoneError, OSError) as error:
            number, message = errno_of(error)
            for operation in operations:
                if operation.verb != "delete" or not isinstance(error, NamespaceGoneError):
                    progress.fail(operation, number, message)
            return
        Session(netns, descriptor, socket, sandboxes, progress).run(operations)

    def _lead(self, operation: Operation, item: Object, host: Session) -> None:
        """One element of the fast path's maps. Raises OSError."""
        if self._fast_path is None:
            raise OSError(errno.EOPNOTSUPP, "there is no fast path here")
        gone = operation.verb == "delete"
        if isinstance(item, FastGate):
            (self._fast_path.close_gate if gone else self._fast_path.open_gate)(item)
        elif isinstance(item, FastTarget):
            if gone:
                self._fast_path.delete(item)
            else:
                self._fast_path.put(item, host.own_index(item.link))

    def _publish(self, operations: Sequence[Operation]) -> list[Outcome]:
        """Added and removed in one call, so that a port that changes its backend has no gap."""
        if self._loopback is None:
            return [
                Outcome(operation, errno.EOPNOTSUPP, "nothing publishes on loopback here")
                for operation in operations
                if operation.verb != "delete"
            ]
        outcomes = []
        add: list[LoopbackEntry] = []
        remove: list[LoopbackEntry] = []
        for operation in operations:
            try:
                for item in (operation.before, operation.object):
                    if isinstance(item, LoopbackPort):
                        leaves = operation.verb == "delete" or item is not operation.object
                        (remove if leaves else add).append(entry_of(item))
            except (ValueError, OSError) as error:
                outcomes.append(Outcome(operation, errno.EINVAL, str(error)))
        try:
            self._loopback.apply(add, remove)
        except (ValueError, OSError) as error:
            number, message = errno_of(error)
            return [Outcome(operation, number, message) for operation in operations]
        return outcomes


def by_namespace(operations: Sequence[Operation]) -> Iterator[tuple[str, list[Operation]]]:
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
        yield HOST, leading
    yield from sandboxes.items()
    if trailing:
        yield HOST, trailing


def entry_of(item: LoopbackPort) -> LoopbackEntry:
    """Raises ValueError for what cannot be published."""
    _, packed = pack_address(item.address)
    return LoopbackEntry(item.family, item.proto, item.first, item.last, packed, item.port)
