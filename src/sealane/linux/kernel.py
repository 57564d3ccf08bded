"""The host's kernel, as the engine is given it: `engine.ports.Kernel` on the real thing."""

import errno
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import cast

import msgspec

from sealane.compile.facts import Facts
from sealane.engine.ports import Flow, NamespaceGoneError, Reserver, SocketPlace
from sealane.explain.doctor.evidence import Evidence, Request
from sealane.explain.foreign_state import ForeignState
from sealane.explain.observed.reading import NamespaceReading, Wanted
from sealane.kernel.links import word_of
from sealane.kernel.nft import Chain, ObservedChain
from sealane.kernel.objects import Sysctl
from sealane.kernel.state import HOST, NamespaceState, Object, namespace
from sealane.linux import facts, forward_rules, marks, observe, processes, reservations, sysctl
from sealane.linux import netns as namespaces
from sealane.linux.apply import Applier
from sealane.linux.borrowed import Borrowed
from sealane.linux.bpf.fast_path import FastPath
from sealane.linux.closeable import Closeable
from sealane.linux.evidence import read_evidence
from sealane.linux.firewalls import firewalls
from sealane.linux.foreign_rules import TranslatingRules
from sealane.linux.foreign_state import read_foreign_state
from sealane.linux.jobs import LoopbackPublisher
from sealane.linux.monitor import Ports
from sealane.linux.namespaces import OpenNamespaces
from sealane.linux.netlink import inet, link, sock_diag
from sealane.linux.netlink.conntrack import PORT_MAX, FlowMatch, delete_flows
from sealane.linux.netlink.socket import (
    NETLINK_NETFILTER,
    NETLINK_ROUTE,
    NETLINK_SOCK_DIAG,
    NETLINK_USERSOCK,
    NetlinkError,
    Socket,
)
from sealane.linux.nft import apply_nft, observe_nft
from sealane.linux.nft_observe import learn_contents
from sealane.linux.path_reading import read_path
from sealane.linux.rule_contents import ChainRef, RuleContents
from sealane.model.endpoint import NetnsRef, PublishedPort
from sealane.model.net import FAMILIES, Address, Proto, address_part, family_of, is_wildcard
from sealane.reconcile.plan import Operation, Outcome, Plan
from sealane.wire.diagnosis import SocketView

CLAIM_PORT = 0x5EA1A9E
"""Netlink port id by which a daemon claims its network namespace."""

EPHEMERAL_DEFAULT = (32768, 60999)
"""The kernel's own (net/ipv4/af_inet.c), should /proc not tell."""

_BOOT_ID = "/proc/sys/kernel/random/boot_id"


class TakenError(Exception):
    """Another daemon looks after this network namespace."""


def claim() -> Socket:
    """Claim the namespace that this thread is in, until the socket is closed or the process ends. Raises TakenError.

    Port ids are the namespace's own and go with their socket, so unlike a lock file's the claim can be neither missed
    through another path nor left behind, and unlike an abstract socket it is no integration.
    """
    try:
        return Socket(NETLINK_USERSOCK, port=CLAIM_PORT)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise TakenError("another sealane daemon runs in this network namespace") from error
        raise


def instances() -> set[str]:
    """Installations that have links in this namespace, by their marks."""
    with Socket(NETLINK_ROUTE) as socket:
        found = [link.parse(payload) for _, payload in socket.dump(link.dump())]
    return {instance for raw in found if (instance := marks.instance_of(raw.alias))}


class LinuxKernel(Closeable):
    """One for each daemon, in one thread. The namespace of the thread that makes it is the host's."""

    def __init__(
        self,
        instance: str,
        runtime_dir: str,
        *,
        loopback: LoopbackPublisher | None = None,
        loopback_reason: str | None = None,
        fast_path: FastPath | None = None,
        fast_path_reason: str = "",
    ) -> None:
        """`instance`: six hex digits; namespaces of ours are pinned in `runtime_dir`/netns. `loopback_reason`: why
        the socket program does not work, None if it does; `fast_path_reason`: why there is none. Raises
        UnsupportedKernelError, OSError."""
        facts.check_release(os.uname().release)
        self._instance = instance
        self._netns_dir = f"{runtime_dir}/netns"
        self._loopback = loopback
        self._inode = namespaces.own_inode()
        if loopback is None and loopback_reason is None:
            loopback_reason = "nothing publishes on loopback here"
        self._fast_path = fast_path
        self._features = msgspec.structs.replace(
            facts.with_loopback(facts.probe_features(), loopback_reason),
            fast_path=fast_path is not None,
            fast_path_reason=fast_path_reason,
        )
        self._route = Socket(NETLINK_ROUTE, background=len(os.sched_getaffinity(0)) > 1)
        self._nft = Socket(NETLINK_NETFILTER)
        self._foreign = TranslatingRules()
        self._rules = RuleContents(f"{runtime_dir}/rules.json")
        self._borrowed = Borrowed(f"{runtime_dir}/borrowed.json", f"{self.boot_id()} {self._inode}")
        self._visits: OpenNamespaces | None = None
        self._applier = Applier(
            instance,
            self._route,
            self._nft,
            apply_nft,
            loopback,
            ipv6=self._features.ipv6,
            fast_path=fast_path,
            borrowed=self._borrowed,
        )

    def close(self) -> None:
        self._route.close()
        self._nft.close()

    def ports(self) -> Ports:
        """Of our sockets: what events say of who caused them."""
        return Ports(route=self._route.port, nft=self._nft.port)

    def facts(self) -> Facts:
        others = firewalls(self._nft)
        features = msgspec.structs.replace(
            self._features,
            bridge_netfilter=facts.bridge_netfilter(),
            forward_drops=forward_rules.dropping(self._nft),
            firewalls=others.judges if self._fast_path is not None else (),
            translators=others.translators,
        )
        return facts.read_facts(self._route, self._instance, features, borrowed=self._borrowed)

    def observe(self, netns: str, ref: NetnsRef | None, desired: NamespaceState) -> NamespaceState:
        self._check_home()
        if netns != HOST:
            if ref is None:
                raise NamespaceGoneError(f"the sandbox {netns} has no namespace")
            return namespace(self._observe_sandbox(ref, desired))
        found: list[Object] = list(
            observe.observe_host(self._route, self._instance, desired, self._fast_path)
        )
        found += observe.observe_borrowed(self._borrowed.loans, desired)
        found += observe_nft(self._nft, self._rules)
        found += forward_rules.observe(self._nft, self._instance)
        if self._loopback is not None:
            found += map(observe.loopback_port, self._loopback.entries())
        return namespace(found)

    def _observe_sandbox(self, ref: NetnsRef, desired: NamespaceState) -> list[Object]:
        descriptor = namespaces.open_ref(ref)
        try:
            with namespaces.open_socket(descriptor, NETLINK_ROUTE) as socket:
                found = list(observe.observe_sandbox(socket, self._instance, desired))
            if any(isinstance(item, Sysctl) for item in desired.values()):
                with namespaces.inside(descriptor):
                    found += observe.observe_sysctls(desired)
            return found
        finally:
            os.close(descriptor)

    def sysctls(self, desired: NamespaceState) -> NamespaceState:
        self._check_home()
        return namespace(observe.observe_sysctls(desired))

    def begin(self, veths: Sequence[Operation], refs: Mapping[str, NetnsRef]) -> None:
        self._check_home()
        self._applier.begin(veths, refs, self._visits)

    def apply(self, plan: Plan, refs: Mapping[str, NetnsRef]) -> list[Outcome]:
        self._check_home()
        outcomes = self._applier.apply(plan, refs, self._visits)
        written = _chains(operation.object for operation in plan)
        if written:
            # Read at once: what the next look finds may be somebody else's. What cannot be read now is written once more.
            with suppress(NetlinkError):
                learn_contents(
                    self._nft, self._rules, written - _chains(o.operation.object for o in outcomes)
                )
        return outcomes

    def renew(self) -> None:
        """What is believed only while somebody says it again and again: that the fast path is open. Raises OSError."""
        if self._fast_path is not None:
            self._fast_path.renew()

    def repair(self) -> bool:
        """Put back what others have taken from what publishes on loopback, of which nothing tells; whether there was
        anything. Raises OSError."""
        return self._loopback is not None and self._loopback.repair()

    @contextmanager
    def keep_open(self) -> Iterator[None]:
        with OpenNamespaces() as open_namespaces:
            self._visits = open_namespaces
            try:
                yield
            finally:
                self._visits = None

    def create_namespace(self, sandbox: str, *, with_userns: bool = False) -> NetnsRef:
        return namespaces.create(self._netns_dir, sandbox, with_userns=with_userns)

    def delete_namespace(self, ref: NetnsRef) -> None:
        namespaces.delete(self._netns_dir, ref)

    def sweep_namespaces(self, known: Collection[str]) -> list[str]:
        return namespaces.sweep(self._netns_dir, known)

    def resolve_namespace(self, where: str) -> NetnsRef:
        return namespaces.resolve(where) if self._visits is None else self._visits.resolve(where)

    def port_user(
        self, port: PublishedPort, beside: Collection[SocketPlace] = (), reserver: Reserver | None = None
    ) -> str | None:
        if port.host_first == port.host_last and sock_diag.is_free(port.proto, port.host_first):
            return None
        for found in sock_diag.bound(port.proto, port.host_first, port.host_last):
            if (found.address, found.port) in beside:
                continue
            if port.host_address is None or _overlap(found.address, port.host_address):
                if reserver is not None and reservations.is_reserved(found.inode, reserver):
                    continue
                process = sock_diag.holder(found.inode)
                if process is not None and process.pid == os.getpid() and is_wildcard(found.address):
                    # A relay: of two publishes at one place the intent has told before.
                    continue
                return str(process) if process else "a process that cannot be named"
        return None

    def starter(self, pid: int) -> tuple[int, str]:
        found = reservations.starter(pid)
        return (found, processes.command(found)) if found else (0, "")

    def has_address(self, address: Address) -> bool:
        if sock_diag.can_bind(address):
            return True
        family, _ = inet.pack_address(address)
        answers = self._route.dump(inet.dump_addresses(family))
        return any(address_part(inet.parse_address(p).address) == address for _, p in answers)

    def sockets(self, ref: NetnsRef | None, *, every_state: bool = False) -> list[SocketView]:
        self._check_home()
        if ref is None:
            with Socket(NETLINK_SOCK_DIAG) as diag:
                return sock_diag.sockets(diag, every_state=every_state)
        descriptor = namespaces.open_ref(ref)
        try:
            with namespaces.open_socket(descriptor, NETLINK_SOCK_DIAG) as diag:
                return sock_diag.sockets(diag, every_state=every_state)
        finally:
            os.close(descriptor)

    def socket_owners(self, inodes: Collection[int]) -> dict[int, tuple[int, str]]:
        return {inode: (found.pid, found.command) for inode, found in sock_diag.holders(inodes).items()}

    def foreign_link(self, name: str) -> str | None:
        try:
            found = link.parse(self._route.dump(link.get(name))[0][1])
        except NetlinkError as error:
            if error.errno == errno.ENODEV:
                return None
            raise
        return None if marks.is_ours(found, marks.alias_prefix(self._instance)) else word_of(found.kind)

    def ephemeral_range(self) -> tuple[int, int]:
        words = (sysctl.read("net/ipv4/ip_local_port_range") or "").split()
        if len(words) != 2 or not all(word.isascii() and word.isdigit() for word in words):
            return EPHEMERAL_DEFAULT
        return int(words[0]), int(words[1])

    def forget_flows(self, flows: Sequence[Flow]) -> int:
        return delete_flows(self._nft, [match for flow in flows for match in _matches(flow)])

    def foreign_state(self) -> ForeignState:
        self._check_home()
        return read_foreign_state(self._route, self._instance, self._nft, self._foreign)

    def read_path(
        self, desired: Mapping[str, Wanted], refs: Mapping[str, NetnsRef]
    ) -> Mapping[str, NamespaceReading]:
        self._check_home()
        return read_path(desired, refs)

    def evidence(
        self, request: Request, refs: Mapping[str, NetnsRef], should_stop: Callable[[], bool]
    ) -> Evidence:
        self._check_home()
        return read_evidence(self._instance, request, refs, should_stop)

    def boot_id(self) -> str:
        with open(_BOOT_ID, encoding="ascii") as file:
            return file.read(64).strip()

    def _check_home(self) -> None:
        """A thread that is somewhere else must not touch what it takes for the host."""
        if namespaces.own_inode() != self._inode:
            raise RuntimeError("this thread is not in the host's network namespace")


def _chains(objects: Iterable[Object]) -> set[ChainRef]:
    return {(item.family, item.name) for item in objects if isinstance(item, Chain | ObservedChain)}


def _overlap(held: str, desired: str) -> bool:
    """Whether a socket at `held` stands in the way of a publish at `desired`. `::` holds IPv4 ports too, unless
    IPV6_V6ONLY is set, which sock_diag tells only of TCP."""
    if held == "::":
        return True
    return family_of(held) == family_of(desired) and (is_wildcard(desired) or held in {desired, "0.0.0.0"})


def _matches(flow: Flow) -> Iterator[FlowMatch]:
    """A flow of either family, unless an address says which."""
    named = flow.address or flow.backend or flow.source or flow.prefix.partition("/")[0]
    for family in (family_of(named),) if named else FAMILIES:
        yield FlowMatch(
            family=family,
            proto=cast("Proto", flow.proto),
            destination=flow.address,
            first=flow.first,
            last=flow.last or PORT_MAX,
            reply_source=flow.backend,
            source=flow.source,
            prefix=flow.prefix,
        )
