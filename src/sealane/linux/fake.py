"""A kernel in memory, for tests: the same protocol, the same references enforced, faults on demand. Public API.

What it enforces is what makes an order of operations right or wrong: an address needs its link, a route a link that is
up, a port its bridge, an element its set, a jump its chain, and nothing that is referred to can be deleted. It knows
nothing of packets.

    kernel = FakeKernel()
    kernel.fail_at(3)                  # the third operation from now fails, once
    kernel.fail_at(3, forever=True)    # and all that are like it, until `heal`
    kernel.raise_from("apply", OSError(errno.EMFILE, "…"))    # the next call is cut short, whatever it has done
"""

import errno
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import msgspec

from sealane.compile.facts import Facts
from sealane.engine.ports import Flow, NamespaceGoneError, Reserver, SocketPlace
from sealane.explain.doctor.evidence import Evidence, Request
from sealane.explain.foreign_state import ForeignState, foreign_state_of
from sealane.explain.observed.reading import LinkReading, NamespaceReading, RouteReading, Wanted
from sealane.kernel.links import Veth
from sealane.kernel.nft import (
    Chain,
    DnatMap,
    Element,
    Lookup,
    ObservedChain,
    Set,
    Table,
    Verdict,
    VerdictMap,
)
from sealane.kernel.objects import FdbEntry, Key, Link, Route, Sysctl
from sealane.kernel.state import HOST, NamespaceState, Object, hangs_on
from sealane.model.endpoint import NetnsRef, PublishedPort
from sealane.model.net import Address
from sealane.reconcile.plan import Operation, Outcome, Plan
from sealane.wire.diagnosis import SocketView

_FENCES = ("unpublish", "fence", "publish", "sweep")
_NFT = (Table, Chain, ObservedChain, Set, Element)


class _RefusedError(Exception):
    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.number = number


def _untouched(desired: Wanted) -> NamespaceReading:
    return NamespaceReading(
        links={name: LinkReading(name=name) for name in desired.links},
        routes={
            asked: RouteReading(kind=asked.kind, link=asked.link, gateway=asked.gateway)
            for asked in desired.lookups
        },
        own_macs=desired.bridged,
    )


class FakeKernel:
    def __init__(self, facts: Facts | None = None) -> None:
        self.state: dict[str, dict[Key, Object]] = {HOST: {}}
        self.dead: set[int] = set()
        """Inodes of namespaces that have died."""
        self.performed: list[Operation] = []
        self.forgotten: list[Flow] = []
        self.pinned: set[str] = set()
        self.absent: set[str] = set()
        """Paths at which there is no namespace (yet)."""
        self.foreign_links: dict[str, str] = {}
        self.port_users: dict[tuple[str, int], str] = {}
        self.reserved: dict[tuple[str, int], Reserver] = {}
        """Which of them hold a port for whom."""
        self.starters: dict[int, tuple[int, str]] = {}
        self.port_places: dict[int, SocketPlace] = {}
        """Where who holds a port listens; without an entry at every address."""
        self.foreign_addresses: set[Address] = set()
        """Not the host's; all others are."""
        self.open_sockets: dict[int, list[SocketView]] = {}
        """By the namespace's inode; 0 is the host's."""
        self.processes: dict[int, tuple[int, str]] = {}
        """Owners by the socket's inode."""
        self.seen = Evidence()
        """What `evidence` answers, for the sandboxes that it is asked about."""
        self.readings: dict[str, dict[str, object]] = {}
        """By namespace: fields of a path's reading that are not as if nobody had touched anything."""
        self.evidence_asked: list[Request] = []
        self._facts = facts or Facts(instance="abcdef")
        self._begun: list[Operation] = []
        self._countdown = 0
        self._forever = False
        self._raising: dict[str, tuple[Exception, int]] = {}
        self._inodes = 1000
        self._boot = "boot-1"

    # --- what a test does to it

    def fail_at(self, number: int, *, forever: bool = False) -> None:
        """Let the `number`-th operation from now fail with EIO; `forever`: and every one after it."""
        self._countdown, self._forever = number, forever

    def raise_from(self, method: str, error: Exception, *, after: int = 0) -> None:
        """Let the next call of a method raise; of `apply`, `after` so many stages."""
        self._raising[method] = (error, after)

    def heal(self) -> None:
        self._countdown, self._forever = 0, False
        self._raising.clear()

    @property
    def has_failed(self) -> bool:
        """Whether the fault that was asked for has come."""
        return self._countdown <= 0

    def kill_namespace(self, netns: str, ref: NetnsRef) -> None:
        """The namespace dies; the other ends of its veths go with it."""
        self.dead.add(ref.inode)
        there = self.state.pop(netns, {})
        for item in list(self.state[HOST].values()):
            if isinstance(item, Link) and item.peer and item.peer[0] == netns:
                self._drop_link(HOST, item)
        there.clear()

    def reboot(self) -> None:
        self.state = {HOST: {}}
        self._boot = f"boot-{int(self._boot[5:]) + 1}"

    def snapshot(self) -> dict[str, dict[Key, Object]]:
        return {netns: dict(items) for netns, items in self.state.items() if items}

    # --- the protocol

    def facts(self) -> Facts:
        self._may_raise("facts")
        return self._facts

    def observe(self, netns: str, ref: NetnsRef | None, desired: NamespaceState) -> NamespaceState:
        if ref is not None and ref.inode in self.dead:
            raise NamespaceGoneError(netns)
        return {
            key: _as_seen(item)
            for key, item in self.state.get(netns, {}).items()
            if not isinstance(item, Sysctl) or key in desired or item.borrowed
        }

    def sysctls(self, desired: NamespaceState) -> NamespaceState:
        return {key: item for key, item in self.state[HOST].items() if key in desired}

    def begin(self, veths: Sequence[Operation], _: Mapping[str, NetnsRef]) -> None:
        """All is done by `apply`, which holds its plan to this."""
        self._begun = [operation for operation in veths if operation.verb == "create"]

    def apply(self, plan: Plan, refs: Mapping[str, NetnsRef]) -> list[Outcome]:
        begun, self._begun = self._begun, []
        stages = dict(plan.stages)
        if begun and (
            "unpublish" in stages or "close" in stages or [*stages["build"]][: len(begun)] != begun
        ):
            raise AssertionError(f"the plan does not begin with {begun}")
        failures: list[Outcome] = []
        for number, (name, operations) in enumerate(plan.stages):
            self._may_raise("apply", number)
            fencing = [o for o in operations if name in _FENCES and isinstance(o.object, _NFT)]
            outcome = self._transaction(fencing) if fencing else []
            failures += outcome
            if outcome and name == "fence":
                later = [o for _, operations in plan.stages[number + 1 :] for o in operations]
                return failures + [Outcome(o, 0, "not tried: the fence failed") for o in later]
            for operation in operations:
                if operation not in fencing:
                    failures += self._one(operation, refs)
        self._may_raise("apply", len(plan.stages))
        return failures

    def create_namespace(self, sandbox: str, *, with_userns: bool = False) -> NetnsRef:
        self._may_raise("create_namespace")
        self._inodes += 1
        self.pinned.add(sandbox)
        path = f"/run/fake/{sandbox}"
        owner = f"{path}.user" if with_userns else ""
        return NetnsRef(path=path, inode=self._inodes, owner="sealane", userns=owner)

    def delete_namespace(self, ref: NetnsRef) -> None:
        self.dead.add(ref.inode)
        self.pinned.discard(ref.path.rpartition("/")[2])

    def sweep_namespaces(self, known: Collection[str]) -> list[str]:
        stray = sorted(self.pinned - set(known))
        self.pinned -= set(stray)
        return stray

    def resolve_namespace(self, where: str) -> NetnsRef:
        if where in self.absent:
            raise FileNotFoundError(errno.ENOENT, "there is nothing", where)
        return NetnsRef(path=where, inode=zlib.crc32(where.encode()))

    def repair(self) -> bool:
        return False

    def renew(self) -> None:
        """There is no fast path."""

    def keep_open(self) -> AbstractContextManager[None]:
        return nullcontext()

    def port_user(
        self, port: PublishedPort, beside: Collection[SocketPlace] = (), reserver: Reserver | None = None
    ) -> str | None:
        numbers = (
            number
            for number in range(port.host_first, port.host_last + 1)
            if self.port_places.get(number) not in beside
            and not _is_same(self.reserved.get((port.proto, number)), reserver)
        )
        return next(
            (self.port_users[port.proto, n] for n in numbers if (port.proto, n) in self.port_users), None
        )

    def starter(self, pid: int) -> tuple[int, str]:
        return self.starters.get(pid, (0, ""))

    def has_address(self, address: Address) -> bool:
        return address not in self.foreign_addresses

    def sockets(self, ref: NetnsRef | None, *, every_state: bool = False) -> list[SocketView]:
        if ref is not None and ref.inode in self.dead:
            raise NamespaceGoneError(ref.path)
        usual = {"listen", "established", "unconnected"}
        return [
            s for s in self.open_sockets.get(ref.inode if ref else 0, []) if every_state or s.state in usual
        ]

    def socket_owners(self, inodes: Collection[int]) -> dict[int, tuple[int, str]]:
        return {inode: self.processes[inode] for inode in inodes if inode in self.processes}

    def foreign_link(self, name: str) -> str | None:
        return self.foreign_links.get(name)

    def ephemeral_range(self) -> tuple[int, int]:
        return 32768, 32777

    def forget_flows(self, flows: Sequence[Flow]) -> int:
        self._may_raise("forget_flows")
        self.forgotten += flows
        return len(flows)

    def foreign_state(self) -> ForeignState:
        return foreign_state_of(self._facts, ("192.0.2.10/24",))

    def read_path(
        self, desired: Mapping[str, Wanted], _: Mapping[str, NetnsRef]
    ) -> Mapping[str, NamespaceReading]:
        """As if nobody else had touched anything."""
        return {
            netns: msgspec.structs.replace(_untouched(what), **self.readings.get(netns, {}))
            for netns, what in desired.items()
        }

    def evidence(
        self, request: Request, refs: Mapping[str, NetnsRef], should_stop: Callable[[], bool]
    ) -> Evidence:
        self.evidence_asked.append(request)
        desired = {} if should_stop() else refs
        return msgspec.structs.replace(
            self.seen, sandboxes={key: seen for key, seen in self.seen.sandboxes.items() if key in desired}
        )

    def boot_id(self) -> str:
        return self._boot

    # --- inside

    def _may_raise(self, method: str, done: int = 0) -> None:
        error, after = self._raising.get(method, (None, 0))
        if error is not None and done >= after:
            del self._raising[method]
            raise error

    def _inject(self) -> None:
        if self._countdown <= 0 and not self._forever:
            return
        self._countdown -= 1
        if self._countdown == 0 or (self._forever and self._countdown < 0):
            raise _RefusedError(errno.EIO, "injected fault")

    def _one(self, operation: Operation, refs: Mapping[str, NetnsRef]) -> list[Outcome]:
        try:
            self._inject()
            ref = refs.get(operation.netns)
            if operation.netns != HOST and (ref is None or ref.inode in self.dead):
                if operation.verb == "delete":
                    return []
                raise _RefusedError(errno.ENOENT, "the namespace is gone")
            self._perform(operation)
        except _RefusedError as error:
            return [Outcome(operation, error.number, str(error))]
        self.performed.append(operation)
        return []

    def _transaction(self, operations: list[Operation]) -> list[Outcome]:
        """All or nothing, references checked at the end as the kernel's commit does."""
        before = dict(self.state[HOST])
        try:
            for operation in operations:
                self._inject()
                if operation.verb == "delete":
                    self.state[HOST].pop(operation.object.key, None)
                else:
                    self.state[HOST][operation.object.key] = operation.object
            self._check_nft()
        except _RefusedError as error:
            self.state[HOST] = before
            return [Outcome(o, error.number if o is operations[0] else 0, str(error)) for o in operations]
        self.performed += operations
        return []

    def _check_nft(self) -> None:
        for item in self.state[HOST].values():
            for kind, key in _nft_needs(item):
                if key not in self.state[HOST]:
                    raise _RefusedError(
                        errno.ENOENT, f"{item.key} refers to {kind} {key[1:]}, which is not there"
                    )

    def _perform(self, operation: Operation) -> None:
        there = self.state.setdefault(operation.netns, {})
        item = operation.object
        if operation.verb == "delete":
            if isinstance(item, Link):
                self._drop_link(operation.netns, item)
            else:
                there.pop(item.key, None)
        elif isinstance(item, Link):
            self._set_link(operation, item)
        else:
            self._check_link(there, item)
            there[item.key] = item

    def _set_link(self, operation: Operation, item: Link) -> None:
        there = self.state[operation.netns]
        if item.master and ("link", item.master) not in there and item.master not in self.foreign_links:
            raise _RefusedError(errno.ENODEV, f"{item.name}: its bridge {item.master} is not there")
        present = there.get(item.key)
        if operation.verb == "open":
            if item.kind.is_sealanes and not isinstance(present, Link):
                raise _RefusedError(errno.ENODEV, f"{item.name} is not there")
            there[item.key] = item
            return
        if operation.verb == "change":
            was_up = isinstance(present, Link) and present.up
            there[item.key] = msgspec.structs.replace(item, up=was_up)
            return
        if isinstance(present, Link) and present.alias != item.alias:
            raise _RefusedError(errno.EEXIST, f"a link {item.name} is there")
        if item.peer is not None:
            self._make_far_side(item, item.peer)
        there[item.key] = msgspec.structs.replace(item, up=False)

    def _make_far_side(self, item: Link, peer: tuple[str, str]) -> None:
        inside = self.state.setdefault(peer[0], {})
        if ("link", peer[1]) in inside:
            raise _RefusedError(errno.EEXIST, f"a link {peer[1]} is in the sandbox already")
        inside["link", peer[1]] = Link(name=peer[1], kind=Veth(), up=False, alias=item.alias)

    def _drop_link(self, netns: str, item: Link) -> None:
        there = self.state.get(netns, {})
        gone = there.pop(item.key, None)
        for key in [k for k, other in there.items() if hangs_on(other) == item.name]:
            del there[key]
        if isinstance(gone, Link) and gone.peer:
            far = self.state.get(gone.peer[0], {}).get(("link", gone.peer[1]))
            if isinstance(far, Link):
                self._drop_link(gone.peer[0], msgspec.structs.replace(far, kind=far.kind.as_read))

    def _check_link(self, there: dict[Key, Object], item: Object) -> None:
        name = hangs_on(item)
        if not name or name == "all" or name in self.foreign_links:
            return
        link = there.get(("link", name))
        if not isinstance(link, Link):
            raise _RefusedError(errno.ENODEV, f"{item.key}: no link {name}")
        if isinstance(item, Route) and not link.up:
            raise _RefusedError(errno.ENETDOWN, f"{item.key}: link {name} is down")
        if isinstance(item, FdbEntry) and not (link.kind.has_ports if item.is_own else link.master):
            raise _RefusedError(errno.EOPNOTSUPP, f"{name} is no bridge, or no port of one")


def _is_same(held: Reserver | None, asking: Reserver | None) -> bool:
    """Whether a port is held by who asks, for the same container."""
    if held is None or asking is None:
        return False
    return (held.process, held.netns) == (asking.process, asking.netns)


def _as_seen(item: Object) -> Object:
    if isinstance(item, Chain):
        return ObservedChain(family=item.family, name=item.name, tags=item.tags, hook=item.hook)
    if isinstance(item, Link) and item.kind.unread:
        return msgspec.structs.replace(item, kind=item.kind.as_read)
    return item


def _nft_needs(item: Object) -> Iterator[tuple[str, Key]]:
    """What an object of nftables refers to."""
    if isinstance(item, Set | Chain):
        yield "table", ("nft-table", item.family)
    if isinstance(item, Element):
        yield "set", ("nft-set", item.family, item.set)
        if isinstance(item.data, Verdict) and item.data.chain:
            yield "chain", ("nft-chain", item.family, item.data.chain)
    if isinstance(item, Chain):
        for rule in item.rules:
            for statement in rule.statements:
                if isinstance(statement, Verdict) and statement.chain:
                    yield "chain", ("nft-chain", item.family, statement.chain)
                elif isinstance(statement, Lookup):
                    yield "set", ("nft-set", item.family, statement.set)
                elif isinstance(statement, VerdictMap | DnatMap):
                    yield "map", ("nft-set", item.family, statement.map)
