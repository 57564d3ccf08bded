"""Operations on the links, addresses, routes, neighbours and sysctls of one namespace.

Operations travel together: all that do not wait for one another go to the kernel in one datagram. What speaks for
this are two rules:

Rule 1: we choose the index of a new link, so that messages about it need not ask for it first, and can be composed while
the kernel is still at it. None of them is sent before the kernel has confirmed the link: had the index been taken, they
would change somebody else's.

Rule 2: a failure stops what depends on it and nothing else. On a link that could not be made nothing is tried; a
link that could not be finished is not opened.
"""

import errno
import socket
import struct
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext, suppress

import msgspec

from sealane.engine.ports import NamespaceGoneError
from sealane.kernel.links import Loopback, Veth, word_of
from sealane.kernel.objects import (
    RTPROT_SEALANE,
    Address,
    FastPort,
    Link,
    Qdisc,
    Route,
    Sysctl,
)
from sealane.kernel.state import HOST, Object
from sealane.linux import netns as namespaces
from sealane.linux.marks import is_ours
from sealane.linux.messages import message, setting4
from sealane.linux.namespaces import Namespaces
from sealane.linux.netlink import inet, link, tc_filter
from sealane.linux.netlink.socket import NetlinkError, Socket
from sealane.linux.prefix_routes import has_prefix_route, without_prefix_route
from sealane.linux.progress import Progress, indexes, link_of
from sealane.model.net import IPV6_MTU_MIN
from sealane.reconcile.plan import Operation

DOOMED_AT_ONCE = 512
INDEX_ATTEMPTS = 4

REFUSALS = (ValueError, struct.error, NamespaceGoneError, OSError)
"""Errors of one operation: an unencodable value, or a kernel refusal."""

Results = Callable[[], list[NetlinkError | None]]

_GONE = frozenset({errno.ENODEV, errno.ENXIO, errno.ESRCH, errno.ENOENT, errno.EADDRNOTAVAIL})


class Work(msgspec.Struct):
    """An operation on its way: messages that go one after the other, each when the one before has succeeded."""

    operation: Operation
    steps: list[bytes]
    makes: dict[tuple[str, str], int] = {}
    """Indexes that the first step gives to new links."""
    attempts: int = 0
    has_waited: bool = False
    configures: bool = False
    """The last step sets what is in `Progress.settings4`, too."""
    ignore_result: bool = False
    """Sent for a side effect; its result is ignored."""


class Session:
    """One namespace's share of one plan."""

    def __init__(
        self, netns: str, descriptor: int | None, socket: Socket, sandboxes: Namespaces, progress: Progress
    ) -> None:
        self._netns = netns
        self._descriptor = descriptor
        self._socket = socket
        self._sandboxes = sandboxes
        self._progress = progress

    def compose(self, operations: Iterable[Operation]) -> list[Work]:
        """Operations as messages for one datagram; those that cannot be are failed."""
        return self._composed(operations, self._prepare)

    def compose_ahead(self, operations: Iterable[Operation]) -> list[Work] | None:
        """As `compose`, for operations that are to be sent later: presuming that until then everything succeeds, and
        failing nothing. None: it has to wait."""
        if self._progress.missing or self._progress.faulty:
            return None
        try:
            return self._composed(operations, self._work)
        except REFUSALS:
            return None

    def _composed(
        self, operations: Iterable[Operation], prepare: Callable[[Operation, str], Work | None]
    ) -> list[Work]:
        queue: list[Work] = []
        for operation in operations:
            item = operation.object
            name = link_of(item)
            work = prepare(operation, name)
            if work is not None and work.steps:
                if isinstance(item, FastPort) and operation.verb != "delete":
                    queue.append(
                        Work(operation, [tc_filter.put_ingress(self.index(name))], ignore_result=True)
                    )
                queue.append(work)
                if joins_ends(operation):
                    queue.append(Work(operation, [link.get_index(self.index(name))], ignore_result=True))
        return queue

    def begin(self, veths: Iterable[Operation]) -> tuple[list[Work], Results]:
        """Have the kernel make veths while something else is done; `send` waits for them."""
        works = []
        for operation in veths:
            try:
                works.append(self._create(operation))
            except REFUSALS as error:
                self._blame(operation, error)
        try:
            return works, self._socket.begin([work.steps[0] for work in works])
        except OSError:
            for work in works:
                self._progress.forget(work.makes)
            raise

    def configure(self, begun: Iterable[Work]) -> None:
        """What the links take once they are there goes after their creation."""
        for work in begun:
            try:
                self._configured(work)
            except REFUSALS as error:
                self._blame(work.operation, error)

    def send(self, works: list[Work], begun: Results | None = None) -> None:
        """Send all steps, each when the one before has succeeded, and note what becomes of the operations. `begun`:
        the first ones are on their way."""
        while works:
            results = begun() if begun else self._socket.request([work.steps[0] for work in works])
            begun = None
            going_on: list[Work] = []
            for work, error in zip(works, results, strict=True):
                if self._is_to_go_on(work, error, may_wait=bool(going_on)):
                    going_on.append(work)
            works = going_on

    def _is_to_go_on(self, work: Work, error: NetlinkError | None, *, may_wait: bool) -> bool:
        """Whether more of the operation is to be sent, which then stands in its steps. `may_wait`: what it needs may be
        on its way still, as the route that an address brings along."""
        if work.ignore_result:
            return False
        if error is None:
            work.makes = {}
            del work.steps[0]
            if work.configures and not work.steps:
                self._progress.configured.add((self._netns, link_of(work.operation.object)))
        else:
            self._progress.forget(work.makes)
            try:
                work.steps = self._recover(work, error)
            except OSError as failure:
                if may_wait and not work.has_waited and work.operation.verb == "create" and not work.makes:
                    work.has_waited = True
                    return True
                self._fail(work.operation, failure)
                return False
        return bool(work.steps)

    # --- from operations to messages --------------------------------------------------------------------------------

    def _is_there(self, operation: Operation) -> bool:
        """Whether the link that an operation is on could be made; if not, it has failed as well."""
        if not self._progress.missing:
            return True
        name = link_of(operation.object)
        if (self._netns, name) not in self._progress.missing:
            return True
        self._progress.fail(operation, 0, f"not tried: {name} is not there")
        return False

    def _prepare(self, operation: Operation, name: str) -> Work | None:
        """The messages of an operation on the link `name`, or what belongs to it; None: it is done, or has failed,
        already."""
        if operation.verb != "delete" and not self._is_there(operation):
            return None
        if operation.verb == "open" and (self._netns, name) in self._progress.faulty:
            self._progress.fail(operation, 0, f"not opened: {name} is not complete")
            return None
        try:
            return self._work(operation, name)
        except REFUSALS as error:
            self._blame(operation, error)
            return None

    def _blame(self, operation: Operation, error: Exception) -> None:
        if operation.verb != "delete" or not _is_gone(error):
            self._fail(operation, error)

    def _fail(self, operation: Operation, error: Exception) -> None:
        number, message = errno_of(error)
        self._progress.fail(operation, number, message)

    def _work(self, operation: Operation, name: str) -> Work:
        item = operation.object
        if isinstance(item, Link):
            if operation.verb == "create" and item.kind.is_sealanes:
                return self._configured(self._create(operation))
            if operation.verb == "change":
                return Work(operation, self._change(item, operation.before))
            return Work(operation, self._open(item))
        if isinstance(item, FastPort):
            return Work(operation, [self._fast_port(operation, item)])
        index = self.index(name) if name else 0
        return Work(operation, [message(operation.verb, item, index)])

    def _fast_port(self, operation: Operation, item: FastPort) -> bytes:
        index = self.own_index(item.link)
        if operation.verb == "delete":
            return tc_filter.delete(index)
        if self._progress.fast_path is None or not item.driver:
            raise OSError(errno.EOPNOTSUPP, "there is no fast path here")
        return tc_filter.put(index, self._progress.fast_path.program(item.driver), item.driver)

    def _create(self, operation: Operation) -> Work:
        item = operation.object
        assert isinstance(item, Link)
        index = indexes.take()
        makes = {(self._netns, item.name): index}
        master = self.index(item.master) if item.master else 0
        match item.kind:
            case Veth(handover=other) if other:
                first = link.create_loose_veth(item, index, master)
            case Veth(peer=(netns, name)) if self._netns == HOST:
                peer = self._progress.links.get((netns, name)) or Link(name=name, kind=Veth(), mtu=item.mtu)
                makes[netns, name] = peer_index = indexes.take()
                descriptor = self._sandboxes.descriptor(netns)
                first = link.create_veth(item, index, master, peer, peer_index, descriptor)
            case Veth():
                raise OSError(errno.ENODEV, f"{item.name} is made together with its other end, on the host")
            case _:
                first = link.create(item, index, master)
        self._progress.indexes.update(makes)
        return Work(operation, [first], makes)

    def _configured(self, work: Work) -> Work:
        item = work.operation.object
        assert isinstance(item, Link)
        where = (self._netns, item.name)
        settings4 = self._progress.settings4.get(where, {})
        second = link.settings(item, work.makes[where], ipv6=self._progress.ipv6, settings4=settings4)
        if second:
            work.steps.append(second)
        work.configures = bool(settings4)
        return work

    def _change(self, item: Link, before: Object | None, *, found: link.RawLink | None = None) -> list[bytes]:
        if isinstance(item.kind, Loopback):
            return [link.set_up(link.LOOPBACK_INDEX)] if item.up else []
        index = found.index if found else self.own_index(item.name)
        master = self.index(item.master) if item.master else 0
        moves = mac = True
        was_up, was_small = False, False
        if found is not None:
            moves, mac = found.master != master, found.mac != item.mac
            was_up, was_small = bool(found.flags & link.IFF_UP), found.mtu < IPV6_MTU_MIN
        elif isinstance(before, Link):
            moves, mac = before.master != item.master, before.mac != item.mac
            was_up, was_small = before.up, before.mtu < IPV6_MTU_MIN
        up = False if not item.up else (True if was_up and moves else None)
        messages = link.change(item, index, master, mac=mac, moves=moves, up=up, ipv6=self._progress.ipv6)
        if isinstance(before, Link) and before.port and before.port.forwarding is False and not moves:
            messages.append(link.forward(index))
        grows = was_small and item.mtu >= IPV6_MTU_MIN
        return link.widen(item, index, messages, up=was_up and item.up) if grows else messages

    def _open(self, item: Link) -> list[bytes]:
        """Inside a sandbox the link gets its name of ours here too: unnamed, it has never been open."""
        if isinstance(item.kind, Loopback):
            return [link.set_up(link.LOOPBACK_INDEX)]
        index = self.own_index(item.name)
        first = None
        if self._netns != HOST:
            # One message: until the host's side is open there is no carrier, and so no address of IPv6's own.
            first = link.settings(item, index, ipv6=self._progress.ipv6, up=True)
        return [first or link.set_up(index)]

    def settle_carrier(self, name: str) -> None:
        """Let a veth's end inside carry from now on, now that the host's is open, too.

        That its other end is up reaches a link through a work queue of the kernel's (linkwatch), and until then it
        drops what it is given to send. Since 6.8 asking for a link runs that work first (rtnl_getlink, commit
        facd15dfd691), so each end is asked for; on older kernels this does nothing, and the first packet may be lost.
        """
        with suppress(NetlinkError):
            self._socket.request([link.get_index(self.index(name))])

    def index(self, name: str) -> int:
        """Of a link by its name. Raises OSError."""
        where = (self._netns, name)
        index = self._progress.indexes.get(where)
        if index is None:
            index = self._progress.indexes[where] = self._look_up(name)
        return index

    def _look_up(self, name: str) -> int:
        if self._netns == HOST:
            # An ioctl, which takes a fifth of the time.
            with suppress(OSError):
                return socket.if_nametoindex(name)
        elif payload := self._get(name):
            return link.parse_name(payload)[0]
        raise NetlinkError(errno.ENODEV, f"there is no link {name}")

    def own_index(self, name: str) -> int:
        """Of a link that is to be worked on: somebody else's may have taken its name since it was looked at."""
        where = (self._netns, name)
        if where not in self._progress.indexes:
            payload = self._get(name)
            if payload is not None:
                found = link.parse(payload)
                if not is_ours(found, self._progress.alias_prefix):
                    raise NetlinkError(errno.EEXIST, f"the link {name} is not ours")
                self._progress.indexes[where] = found.index
        return self.index(name)

    def _get(self, name: str) -> memoryview | None:
        try:
            return self._socket.dump(link.get(name))[0][1]
        except NetlinkError as error:
            if error.errno == errno.ENODEV:
                return None
            raise

    # --- what the kernel refused ------------------------------------------------------------------------------------

    def _recover(self, work: Work, error: NetlinkError) -> list[bytes]:
        """Messages that bring a refused operation to its end; none if it has reached it already. Raises the error
        that stands."""
        verb, item = work.operation.verb, work.operation.object
        if verb == "delete" and (_is_gone(error) or _is_anothers_qdisc(item, error)):
            return []
        if verb == "create" and work.makes and isinstance(item, Link):
            return self._recover_link(work, item, error)
        if verb == "create" and error.errno == errno.EEXIST:
            if isinstance(item, Address):
                return self._recover_address(item, error)
            if isinstance(item, Route):
                return self._recover_route(item, error)
        raise error

    def _recover_link(self, work: Work, item: Link, error: NetlinkError) -> list[bytes]:
        if error.errno == errno.EXFULL:
            raise NetlinkError(errno.EXFULL, f"{item.master} is full: a bridge takes 1023 ports")
        if error.errno not in {errno.EEXIST, errno.EBUSY}:
            raise error
        there = self._get(item.name) if error.errno == errno.EEXIST else None
        if there is not None:
            return self._adopt(work, item, link.parse(there))
        # A taken index answers EEXIST on this side (rtnl_newlink), EBUSY on the other (register_netdevice).
        if work.attempts < INDEX_ATTEMPTS:
            indexes.restart()
            again = self._configured(self._create(work.operation))
            work.makes, work.attempts = again.makes, work.attempts + 1
            return again.steps
        where, name = item.peer or (self._netns, item.name)
        raise NetlinkError(errno.EEXIST, f"there is a link {name} in {where} already")

    def _adopt(self, work: Work, item: Link, found: link.RawLink) -> list[bytes]:
        """What is there already is brought to what is wanted, if it is the same link of ours."""
        prefix = self._progress.alias_prefix
        other = found.alias.startswith(prefix) and found.alias != item.alias
        if type(found.kind) is not type(item.kind) or other or not is_ours(found, prefix):
            whose = found.alias if other else "not ours"
            raise NetlinkError(
                errno.EEXIST,
                f"there is a link {item.name} already: {word_of(found.kind) or 'a device'}, {whose}",
            )
        self._progress.indexes[self._netns, item.name] = found.index
        work.makes, work.configures = {}, False
        return self._change(item, None, found=found)

    def _recover_address(self, item: Address, error: NetlinkError) -> list[bytes]:
        index = self.index(item.link)
        family, _ = inet.pack_address(item.address.partition("/")[0])
        for _, payload in self._socket.dump(inet.dump_addresses(family)):
            raw = inet.parse_address(payload)
            if raw == inet.RawAddress(index, item.address):
                return self._prefix_route(item, raw)
        raise NetlinkError(errno.EEXIST, f"{item.link} has the address with another prefix length") from error

    def _prefix_route(self, item: Address, raw: inet.RawAddress) -> list[bytes]:
        there = self._get(item.link)
        is_up = there is not None and link.parse(there).flags & link.IFF_UP
        if is_up and has_prefix_route(item.address) and without_prefix_route(self._socket, [raw]):
            return [inet.create_prefix_route(item.address, raw.index)]
        return []

    def _recover_route(self, item: Route, error: NetlinkError) -> list[bytes]:
        """Only a route of our own is replaced."""
        family, _ = inet.pack_address(item.dst.partition("/")[0])
        for _, payload in self._socket.dump(inet.dump_routes(family, RTPROT_SEALANE)):
            found = inet.parse_route(payload)
            if (found.table, found.dst, found.metric) == (item.table, item.dst, item.metric):
                return [inet.replace_route(item, self.index(item.link) if item.link else 0)]
        raise NetlinkError(
            errno.EEXIST, f"there is a route to {item.dst} already, and it is not ours"
        ) from error

    # --- what goes its own way --------------------------------------------------------------------------------------

    def delete_links(self, operations: Sequence[Operation]) -> None:
        """One by one each deletion would wait for an RCU grace period: 17 ms measured, against 0.4 by group."""
        doomed: list[tuple[Operation, int]] = []
        for operation in operations:
            try:
                payload = self._get(link_of(operation.object))
            except OSError as error:
                self._fail(operation, error)
                continue
            if payload is not None:
                found = link.parse(payload)
                # What bears the name by now and is not ours is not what was to go.
                if is_ours(found, self._progress.alias_prefix):
                    doomed.append((operation, found.index))
        if len(doomed) == 1:
            self.send([Work(doomed[0][0], [link.delete(doomed[0][1])])])
            return
        for start in range(0, len(doomed), DOOMED_AT_ONCE):
            self._delete_together(doomed[start : start + DOOMED_AT_ONCE])

    def _delete_together(self, doomed: Sequence[tuple[Operation, int]]) -> None:
        *results, deleted = self._socket.request(
            [*(link.doom(index) for _, index in doomed), link.delete_doomed()]
        )
        for (operation, _), refused in zip(doomed, results, strict=True):
            error = refused or deleted
            if error is not None and not _is_gone(error):
                self._fail(operation, error)

    def write_sysctls(self, operations: Sequence[Operation]) -> None:
        """There is nothing to be undone but of what is the host's own: a sysctl of a link goes with the link. Of one that
        could not be made the path leads to whoever has its name."""
        pending = [
            op for op in operations if op.verb == "delete" or (self._is_there(op) and not self._is_set(op))
        ]
        if not pending:
            return
        there = nullcontext() if self._descriptor is None else namespaces.inside(self._descriptor)
        failures: list[tuple[Operation, Exception]] = []
        with there:
            for operation in pending:
                item = operation.object
                assert isinstance(item, Sysctl)
                try:
                    self._progress.borrowed.perform(operation.verb, item, self._socket)
                except (ValueError, OSError) as error:
                    failures.append((operation, error))
        for operation, failure in failures:
            self._fail(operation, failure)

    def _is_set(self, operation: Operation) -> bool:
        """Whether the message that made its link has set it."""
        item = operation.object
        found = setting4(item) if isinstance(item, Sysctl) else None
        return found is not None and (self._netns, found[0]) in self._progress.configured


def joins_ends(operation: Operation) -> bool:
    """Whether both ends of a veth are open once this is done: the host's opens last."""
    item = operation.object
    return (
        operation.verb == "open"
        and operation.netns == HOST
        and isinstance(item, Link)
        and item.peer is not None
    )


def errno_of(error: Exception) -> tuple[int, str]:
    """(number, text) of anything that an operation fails with."""
    if isinstance(error, OSError):
        name = f" ({error.filename})" if error.filename else ""
        return error.errno or errno.EINVAL, f"{error.strerror or error}{name}"
    return errno.ENOENT if isinstance(error, NamespaceGoneError) else errno.EINVAL, str(error)


def _is_anothers_qdisc(item: Object, error: NetlinkError) -> bool:
    """The root has another handle by now (tc_get_qdisc: `Invalid handle`): ours is gone."""
    return isinstance(item, Qdisc) and error.errno == errno.EINVAL


def _is_gone(error: Exception) -> bool:
    return isinstance(error, NamespaceGoneError) or (isinstance(error, OSError) and error.errno in _GONE)
