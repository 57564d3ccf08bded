"""What `doctor` looks at, read: the host piece by piece, and sandboxes one after the other.

Only reads, but for one question to each of the host's nameservers. Sockets of its own, so that it can work in a thread
beside the daemon's; that thread must be in the host's namespace. What cannot be read is told of, and hinders nothing.
"""

import errno
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from typing import TypeVar

import msgspec

from sealane.engine.ports import NamespaceGoneError
from sealane.explain.doctor.evidence import (
    Evidence,
    ForeignTable,
    HostEvidence,
    HostLink,
    HostRoute,
    Listener,
    Managers,
    Occupancy,
    Request,
    SandboxEvidence,
    SandboxLink,
    Upstream,
)
from sealane.kernel.objects import RTPROT_SEALANE
from sealane.linux import managers, nameservers, netns, reservations, sysctl
from sealane.linux.firewalls import LEGACY
from sealane.linux.foreign_nft import foreign_tables
from sealane.linux.marks import alias_prefix
from sealane.linux.netlink import conntrack, inet, link, neigh, sock_diag
from sealane.linux.netlink.neighbour_table import neighbour_tables
from sealane.linux.netlink.socket import (
    NETLINK_NETFILTER,
    NETLINK_ROUTE,
    NETLINK_SOCK_DIAG,
    NetlinkError,
    Socket,
)
from sealane.model.endpoint import NetnsRef
from sealane.model.net import FAMILIES, PROTO_NUMBERS

T = TypeVar("T")

SANDBOXES_MAX = 4096
"""In one look, about a millisecond each."""

FLOWS_MAX = 1 << 16
"""Tracked connections that are gone through one by one, some 10 µs each."""

ROUTES_MAX = 4096
LINKS_MAX = 256
"""Foreign links whose settings are read."""

TEXT_BYTES = 64 << 10

_DEFAULTS = frozenset({"0.0.0.0/0", "::/0"})
_SYSCTLS = (
    "net/ipv4/ip_forward",
    "net/ipv6/conf/all/forwarding",
    "net/ipv4/conf/all/rp_filter",
    "net/bridge/bridge-nf-call-iptables",
    "net/bridge/bridge-nf-call-ip6tables",
)
_NETSTAT = "/proc/thread-self/net/netstat"
_REVERSE_PATH = "IPReversePathFilter"
_STRICT = "1"


def read_evidence(
    instance: str, request: Request, refs: Mapping[str, NetnsRef], should_stop: Callable[[], bool]
) -> Evidence:
    """Ends early, with what it has, when it should stop."""
    unseen: dict[str, str] = {}
    host = _Host(instance, request, unseen, should_stop).read()
    sandboxes: dict[str, SandboxEvidence] = {}
    processes = _processes() if refs else {}
    for sandbox, ref in refs.items():
        if len(sandboxes) >= SANDBOXES_MAX:
            unseen[sandbox] = f"more than {SANDBOXES_MAX} sandboxes are not looked at at once: name some"
        elif should_stop():
            unseen[sandbox] = "the daemon is ending"
        else:
            try:
                sandboxes[sandbox] = _sandbox(ref, processes.get(ref.inode))
            except (NamespaceGoneError, OSError) as error:
                unseen[sandbox] = str(error)
    return _named(Evidence(host=host, sandboxes=sandboxes, unseen=unseen), _monitored(refs))


class _Host:
    def __init__(
        self, instance: str, request: Request, unseen: dict[str, str], should_stop: Callable[[], bool]
    ) -> None:
        self._ours = alias_prefix(instance)
        self._request = request
        self._unseen = unseen
        self._should_stop = should_stop

    def read(self) -> HostEvidence:
        with Socket(NETLINK_ROUTE) as route:
            links = self._rows("links", lambda: _links(route, self._ours, self._request.bridges))
            names = {index: found.name for index, found in links}
            ours = {found.name for _, found in links if found.ours}
            routes = self._rows("routes", lambda: _routes(route, names, ours))
            neighbours = self._rows("neighbours", lambda: neighbour_tables(route))
        shown = [found for _, found in links if not found.ours or found.name in self._request.bridges]
        tracked = self._rows("conntrack", _occupancy)
        return HostEvidence(
            links=tuple(shown),
            routes=routes,
            sysctls=dict(self._rows("sysctls", lambda: self._sysctls(shown))),
            tables=self._rows("nftables", _tables),
            legacy_tables=tuple(_legacy_tables()),
            listeners=self._rows("sockets", _host_listeners),
            neighbours=neighbours,
            conntrack=tracked[0] if tracked else None,
            backends=self._rows("flows", lambda: _backends(tracked)),
            reverse_path_drops=_reverse_path_drops(),
            upstreams=self._rows("nameservers", self._upstreams),
            managers=next(iter(self._rows("files", lambda: [managers.read_managers()])), Managers()),
        )

    def _rows(self, name: str, read: Callable[[], Iterable[T]]) -> tuple[T, ...]:
        """A piece of the host; empty, and told of, if it cannot be read."""
        try:
            return tuple(read())
        except OSError as error:
            self._unseen[name] = error.strerror or str(error)
            return ()

    def _sysctls(self, links: Iterable[HostLink]) -> Iterator[tuple[str, str]]:
        paths = list(_SYSCTLS)
        foreign = [item.name for item in links if not item.ours and item.name != "lo"][:LINKS_MAX]
        paths += [f"net/ipv4/conf/{name}/{key}" for name in foreign for key in ("forwarding", "rp_filter")]
        paths += [f"net/ipv4/conf/{name}/forwarding" for name in self._request.bridges]
        return ((path, value) for path in paths if (value := sysctl.read(path)) is not None)

    def _upstreams(self) -> list[Upstream]:
        return nameservers.upstreams(self._should_stop) if self._request.upstreams else []


def _links(route: Socket, ours: str, bridges: Collection[str]) -> Iterator[tuple[int, HostLink]]:
    raw = [link.parse(payload) for _, payload in route.dump(link.dump())]
    own = _own_entries(route)
    ports: dict[int, int] = {}
    for item in raw:
        ports[item.master] = ports.get(item.master, 0) + 1
    for item in raw:
        yield (
            item.index,
            HostLink(
                name=item.name,
                mtu=item.mtu,
                ours=item.alias.startswith(ours),
                ports=ports.get(item.index, 0) if item.kind.has_ports else 0,
                is_deaf=item.kind.has_ports and item.name in bridges and (item.index, item.mac) not in own,
                mac=item.mac,
            ),
        )


def _own_entries(route: Socket) -> set[tuple[int, str]]:
    """(bridge, MAC) of what goes up from bridges to the host."""
    found = set()
    for _, payload in route.dump(neigh.dump(neigh.AF_BRIDGE)):
        _, state, flags = neigh.parse_head(payload)
        if state & neigh.NUD_PERMANENT and not flags & neigh.NTF_SELF:
            entry = neigh.parse(payload)
            if not entry.is_tagged:
                found.add((entry.index, entry.mac))
    return found


def _routes(route: Socket, names: Mapping[int, str], ours: set[str]) -> Iterator[HostRoute]:
    count = 0
    for raw in _raw_routes(route):
        name = names.get(raw.index, "")
        if raw.protocol == RTPROT_SEALANE or name in ours or name == "lo":
            continue
        if count >= ROUTES_MAX:
            raise NetlinkError(errno.EMSGSIZE, f"there are more than {ROUTES_MAX} routes")
        count += 1
        yield _host_route(raw, name)


def _raw_routes(route: Socket) -> Iterator[inet.RawRoute]:
    for family in (inet.AF_INET, inet.AF_INET6):
        for _, payload in route.dump(inet.dump_routes(family)):
            raw = inet.parse_route(payload)
            if raw.type == inet.RTN_UNICAST and raw.table != inet.TABLE_LOCAL and not raw.cloned:
                yield raw


def _host_route(raw: inet.RawRoute, name: str) -> HostRoute:
    """With the metric that the kernel compares: `parse_route` reads IPv6's default as 0."""
    metric = raw.metric or (inet.IPV6_METRIC_DEFAULT if ":" in raw.dst else 0)
    return HostRoute(dst=raw.dst, link=name, gateway=raw.gateway, metric=metric, table=raw.table, mtu=raw.mtu)


def _tables() -> list[ForeignTable]:
    with Socket(NETLINK_NETFILTER) as nft:
        return foreign_tables(nft)


def _host_listeners() -> list[Listener]:
    own = _own_sockets()
    with Socket(NETLINK_SOCK_DIAG) as diag:
        found = sock_diag.listeners(diag)
    return [msgspec.structs.replace(item, ours=item.inode in own) for item in found]


def _own_sockets() -> set[int]:
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            target = os.readlink(f"/proc/self/fd/{name}")
            if target.startswith("socket:["):
                found.add(int(target[8:-1]))
    return found


def _occupancy() -> Iterator[Occupancy]:
    """None on a kernel that tracks nothing."""
    entries, limit = (sysctl.read(f"net/netfilter/nf_conntrack_{name}") for name in ("count", "max"))
    if entries is not None and limit is not None:
        yield Occupancy(int(entries), int(limit))


def _backends(tracked: Sequence[Occupancy]) -> Iterator[str]:
    """Where UDP flows lead whose destination was translated."""
    if not tracked:
        return
    if tracked[0].entries > FLOWS_MAX:
        raise NetlinkError(errno.EMSGSIZE, f"more than {FLOWS_MAX} connections are tracked")
    with Socket(NETLINK_NETFILTER) as socket:
        found = [flow for family in FAMILIES for flow in conntrack.flows(socket, family)]
    for flow in found:
        if flow.proto == PROTO_NUMBERS["udp"] and flow.reply_source != flow.destination:
            yield flow.reply_source


def _legacy_tables() -> Iterator[str]:
    """A file that is not there means that the old iptables is not loaded, one that cannot be read that we may not know."""
    for family, path in LEGACY.items():
        with suppress(OSError), open(path, encoding="ascii", errors="replace") as file:
            yield from (f"{family} {name}" for name in file.read(TEXT_BYTES).split())


def _reverse_path_drops() -> int:
    """Of the namespace that this thread is in. The file has names and numbers in pairs of lines."""
    with suppress(OSError, ValueError), open(_NETSTAT, encoding="ascii") as file:
        lines = file.read(TEXT_BYTES).splitlines()
        for names, numbers in zip(lines[::2], lines[1::2], strict=False):
            if _REVERSE_PATH in names:
                return int(numbers.split()[names.split().index(_REVERSE_PATH)])
    return 0


# --- sandboxes ------------------------------------------------------------------------------------------------------


def _processes() -> dict[int, int]:
    """Inode of a network namespace → the first process by pid that lives in it."""
    found: dict[int, int] = {}
    for pid in sorted(int(name) for name in os.listdir("/proc") if name.isascii() and name.isdigit()):
        with suppress(OSError, ValueError):
            found.setdefault(int(os.readlink(f"/proc/{pid}/ns/net")[5:-1]), pid)
    return found


def _sandbox(ref: NetnsRef, pid: int | None) -> SandboxEvidence:
    with ExitStack() as stack:
        descriptor, route = netns.enter(ref)
        stack.callback(os.close, descriptor)
        stack.enter_context(route)
        raw = [link.parse(payload) for _, payload in route.dump(link.dump())]
        names = {item.index: item.name for item in raw}
        defaults = [r for r in _raw_routes(route) if r.dst in _DEFAULTS and r.table == inet.TABLE_MAIN]
        with netns.inside(descriptor):
            diag = stack.enter_context(Socket(NETLINK_SOCK_DIAG))
            nft = stack.enter_context(Socket(NETLINK_NETFILTER))
            strict, drops = _strict(names.values()), _reverse_path_drops()
        return SandboxEvidence(
            links=tuple(SandboxLink(name=item.name, mtu=item.mtu) for item in raw),
            defaults=tuple(_host_route(item, names.get(item.index, "")) for item in defaults),
            listeners=tuple(sock_diag.listeners(diag)),
            tables=tuple(foreign_tables(nft)),
            strict=tuple(strict),
            reverse_path_drops=drops,
            nameservers=nameservers.of_process(pid) if pid is not None else None,
        )


def _strict(names: Iterable[str]) -> list[str]:
    """The higher one of `all` and a link's own is in force (ip-sysctl.rst)."""
    every = sysctl.read("net/ipv4/conf/all/rp_filter") or "0"
    found = []
    for name in list(names)[:LINKS_MAX]:
        own = sysctl.read(f"net/ipv4/conf/{name}/rp_filter") or "0"
        if name != "lo" and max(every, own) == _STRICT:
            found.append(name)
    return found


# --- processes ------------------------------------------------------------------------------------------------------


def _monitored(refs: Mapping[str, NetnsRef]) -> dict[int, tuple[str, ...]]:
    """Pid of a container's monitor → the sandboxes of its containers."""
    found: dict[int, tuple[str, ...]] = {}
    if not refs:
        return found
    by_namespace = reservations.monitors({ref.inode for ref in refs.values()})
    for sandbox, ref in refs.items():
        for pid in by_namespace.get(ref.inode, ()):
            found[pid] = (*found.get(pid, ()), sandbox)
    return found


def _named(evidence: Evidence, monitored: Mapping[int, tuple[str, ...]]) -> Evidence:
    """With the processes of the sockets: one look at all processes for all namespaces."""
    host, sandboxes = evidence.host, evidence.sandboxes
    every = [*host.listeners, *(item for seen in sandboxes.values() for item in seen.listeners)]
    owners = sock_diag.holders({item.inode for item in every if item.inode})

    def named(items: Iterable[Listener]) -> tuple[Listener, ...]:
        return tuple(_owned(item, owners.get(item.inode), monitored) for item in items)

    replace = msgspec.structs.replace
    return replace(
        evidence,
        host=replace(host, listeners=named(host.listeners)),
        sandboxes={key: replace(seen, listeners=named(seen.listeners)) for key, seen in sandboxes.items()},
    )


def _owned(
    item: Listener, owner: sock_diag.Process | None, monitored: Mapping[int, tuple[str, ...]]
) -> Listener:
    if owner is None:
        return item
    return msgspec.structs.replace(item, process=str(owner), reserves_for=monitored.get(owner.pid, ()))
