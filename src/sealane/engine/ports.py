"""What the engine is given: protocols for the kernel and the clock. (The store's is `sealane.store.base`.)"""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

import msgspec

from sealane.compile.facts import Facts
from sealane.explain.doctor.evidence import Evidence, Request
from sealane.explain.foreign_state import ForeignState
from sealane.explain.observed.reading import NamespaceReading, Wanted
from sealane.kernel.state import NamespaceState
from sealane.model.endpoint import NetnsRef, PublishedPort
from sealane.model.net import Address, Prefix
from sealane.reconcile.plan import Operation, Outcome, Plan
from sealane.wire.diagnosis import SocketView

SocketPlace = tuple[Address, int]
"""Address and port that a socket is bound to."""


class Reserver(msgspec.Struct, frozen=True):
    """An engine that binds a container's host ports itself, only so that no other program takes them: who it is."""

    process: int
    """Pid of what asks us; 0: not known."""
    netns: int
    """Inode of the container's network namespace: its monitor is the parent of what lives there."""
    holds_all: bool = False
    """It reserves all ports of a container, some perhaps not yet."""


class NamespaceGoneError(Exception):
    """The namespace behind a reference is not there any more: proof of its death, not a failure to look."""


class Flow(msgspec.Struct, frozen=True):
    """Connection tracking entries to forget: those first sent to these host ports, answered from `backend`, begun by
    `source` or from `prefix`, as far as it is said."""

    proto: str
    first: int
    last: int
    address: str = ""
    """Original destination; empty: any."""
    backend: str = ""
    """Source of the replies: an endpoint's address."""
    source: str = ""
    """Original source: an endpoint's address."""
    prefix: Prefix | str = ""
    """Of original sources: a network's."""


class Kernel(Protocol):
    """The host's kernel. `refs` finds the namespaces that plan and state call by sandbox id."""

    def facts(self) -> Facts:
        """Read what is true of the host now."""
        ...

    def observe(self, netns: str, ref: NetnsRef | None, desired: NamespaceState) -> NamespaceState:
        """Read back what is ours in a namespace (`ref` None: the host's).

        Ours are: links by alias; on the host, addresses, permanent neighbours and static FDB entries on our links,
        routes by protocol, the nftables tables; in a sandbox, of those just the keys in `desired`, and routes by
        protocol. Sysctls and the loopback link are read where `desired` names them. Raises NamespaceGoneError when
        the namespace has died, OSError when it could not be read.
        """
        ...

    def sysctls(self, desired: NamespaceState) -> NamespaceState:
        """The host's sysctls that `desired` names, as they are: a cheap look, since the kernel tells of no change."""
        ...

    def begin(self, veths: Sequence[Operation], refs: Mapping[str, NetnsRef]) -> None:
        """Begin with these veths of a plan (`reconcile.order.first_veths`), which `apply` is called with next, and with the
        same `refs`: the kernel may make them while the plan is made. What fails is told there."""
        ...

    def apply(self, plan: Plan, refs: Mapping[str, NetnsRef]) -> list[Outcome]:
        """Perform a plan; return what failed. Goes on past independent failures; a failed `fence` stops what follows.
        Raises OSError where it was cut short, and nobody can tell what was done."""
        ...

    def create_namespace(self, sandbox: str, *, with_userns: bool = False) -> NetnsRef:
        """Make and pin a namespace for a sandbox of ours. Idempotent. `with_userns`: a new user namespace owns it. Raises
        OSError."""
        ...

    def delete_namespace(self, ref: NetnsRef) -> None:
        """Unpin a namespace of ours; it dies with its last process. Idempotent."""
        ...

    def sweep_namespaces(self, known: Collection[str]) -> list[str]:
        """Unpin namespaces of ours that are no sandbox's of `known`; their names."""
        ...

    def resolve_namespace(self, where: str) -> NetnsRef:
        """The namespace at a path or of a pid. Refuses what is not a network namespace, and the host's own."""
        ...

    def keep_open(self) -> AbstractContextManager[None]:
        """Until its end a namespace that is resolved stays open, for `apply` to work in: one look instead of two."""
        ...

    def port_user(
        self, port: PublishedPort, beside: Collection[SocketPlace] = (), reserver: Reserver | None = None
    ) -> str | None:
        """The process that listens on a host port already, e.g. `nginx (pid 812)`; None if nobody does. `beside`: who listens
        there is in nobody's way, and neither is what `reserver` reserves by it."""
        ...

    def starter(self, pid: int) -> tuple[int, str]:
        """The process that started another one, and what it calls itself; 0 and `` where that cannot be told."""
        ...

    def has_address(self, address: Address) -> bool:
        """Whether it is one of the host's, or may be listened at as if it were (`ip_nonlocal_bind`)."""
        ...

    def sockets(self, ref: NetnsRef | None, *, every_state: bool = False) -> list[SocketView]:
        """TCP and UDP sockets of a namespace (`ref` None: the host's), without `sandbox` and owner: those that listen
        and those that are connected, or in `every_state`. Raises NamespaceGoneError, OSError."""
        ...

    def socket_owners(self, inodes: Collection[int]) -> dict[int, tuple[int, str]]:
        """Inode → pid and name of a process that has the socket open, where one is found. One look at all processes,
        so it is asked once for all namespaces: inodes of sockets are the whole machine's."""
        ...

    def foreign_link(self, name: str) -> str | None:
        """The kind of a link of that name that is not ours (`bridge`, `veth`, `` if the kernel names none); None if
        there is no such link."""
        ...

    def ephemeral_range(self) -> tuple[int, int]:
        """First and last port that the host gives out by itself (net.ipv4.ip_local_port_range)."""
        ...

    def forget_flows(self, flows: Sequence[Flow]) -> int:
        """Delete UDP connection tracking entries: a NAT decision outlives the mapping it was made by, and sends a
        talker to the dead endpoint, or to the next owner of its address (moby#53384). Returns how many went. Raises
        OSError."""
        ...

    def foreign_state(self) -> ForeignState:
        """What is on the host and not ours, for `explain`."""
        ...

    def read_path(
        self, desired: Mapping[str, Wanted], refs: Mapping[str, NetnsRef]
    ) -> Mapping[str, NamespaceReading]:
        """What the kernel holds where a packet passes, of everybody, for `explain --observed`. A namespace that cannot be
        read is left out."""
        ...

    def evidence(
        self, request: Request, refs: Mapping[str, NetnsRef], should_stop: Callable[[], bool]
    ) -> Evidence:
        """What `doctor` looks at, on the host and in the sandboxes of `refs`. For a thread of its own: it takes about a
        millisecond a sandbox, and up to a second where a nameserver is silent."""
        ...

    def boot_id(self) -> str:
        """Changes with each boot: namespaces known from another boot are gone."""
        ...
