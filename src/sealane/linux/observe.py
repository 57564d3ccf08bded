"""Reading back what is ours in a namespace, as the records that describe it: `observe(apply(x)) == x`.

A few dumps show a namespace whole, however many objects it has. What a record leaves to the kernel (`mac` or `mtu`
empty, IPv6 settings of a link too small for IPv6) reads as it is wanted; a veth's `peer` reads None, since the
kernel knows it by an index in another namespace.
"""

from collections.abc import Callable, Collection, Iterator

import msgspec

from sealane.kernel.links import Loopback
from sealane.kernel.objects import (
    GROUP_DOOMED,
    GROUP_LIVE,
    RTPROT_SEALANE,
    Address,
    BridgePort,
    FastPort,
    FdbEntry,
    Link,
    LoopbackPort,
    Neighbour,
    Qdisc,
    Route,
    RoutingRule,
    Sysctl,
)
from sealane.kernel.state import NamespaceState, Object
from sealane.linux import sysctl
from sealane.linux.bpf.entry import LoopbackEntry
from sealane.linux.bpf.fast_path import FastPath
from sealane.linux.marks import GROUPS, alias_prefix, is_ours
from sealane.linux.netlink import inet, link, neigh, qdisc, rule, tc_filter
from sealane.linux.netlink.socket import Socket
from sealane.linux.prefix_routes import has_prefix_route, without_prefix_route

DOOMED = " (doomed)"
"""Ends the alias of a link that a crash has left in the doomed group. It still reads as ours, and differs from
everything wanted, so it is deleted, or taken out of the group before the group is deleted."""


class _Links(msgspec.Struct):
    names: dict[int, str]
    ours: dict[int, Link]


def observe_host(
    socket: Socket, instance: str, desired: NamespaceState, fast_path: FastPath | None = None
) -> Iterator[Object]:
    """All of ours in the host's namespace that rtnetlink and sysctls know. Raises OSError."""
    links = _host_links(socket, alias_prefix(instance), desired)
    yield from links.ours.values()
    for address in _addresses(socket, links):
        # Link-local addresses come from the kernel by themselves, unless the link is told otherwise.
        if address.key in desired or not address.address.startswith("fe80:"):
            yield address
    yield from _routes(socket, links)
    yield from _neighbours(socket, links)
    yield from _fdb(socket, links, desired)
    queues = _queues(socket, links)
    yield from _qdiscs(queues, links, desired)
    yield from _fast_ports(socket, queues, links, fast_path)
    if fast_path is not None:
        yield from fast_path.gates()
        yield from fast_path.targets(links.names)
    yield from _sysctls(desired)


def observe_sandbox(socket: Socket, instance: str, desired: NamespaceState) -> Iterator[Object]:
    """Of what is in a sandbox, the wanted keys, and all routes of ours. Sysctls are read by `observe_sysctls`, since
    that needs the thread to be inside."""
    links = _sandbox_links(socket, alias_prefix(instance), desired)
    yield from links.ours.values()
    kinds = {type(item) for item in desired.values()}
    if Address in kinds:
        yield from (item for item in _addresses(socket, links) if item.key in desired)
    yield from _routes(socket, links)
    yield from _rules(socket)
    if Neighbour in kinds:
        yield from (item for item in _neighbours(socket, links) if item.key in desired)
    if FdbEntry in kinds:
        yield from (item for item in _fdb(socket, links, desired) if item.key in desired)
    if Qdisc in kinds:
        yield from _qdiscs(_queues(socket, links), links, desired)


def observe_borrowed(paths: Collection[str], desired: NamespaceState) -> Iterator[Object]:
    """Settings of the host's that we have changed, and nothing needs any more. Of links that are gone there are none."""
    for path in paths:
        value = sysctl.read(path)
        if value is not None and ("sysctl", path) not in desired:
            yield Sysctl(path=path, value=value, borrowed=True)


def observe_sysctls(desired: NamespaceState) -> list[Object]:
    """The wanted sysctls that exist, of the namespace that the thread is in."""
    return list(_sysctls(desired))


def loopback_port(entry: LoopbackEntry) -> LoopbackPort:
    family = inet.AF_INET6 if len(entry.address) == 16 else inet.AF_INET
    address = inet.unpack_address(family, memoryview(entry.address))
    return LoopbackPort(
        family=entry.family,
        proto=entry.proto,
        first=entry.first,
        last=entry.last,
        address=address,
        port=entry.port,
        reserved=entry.reserved_at,
    )


def _host_links(socket: Socket, prefix: str, desired: NamespaceState) -> _Links:
    # Most links of a busy host may be foreign: looking for our marks anywhere is cheaper than parsing them all.
    # By their names those are found of which somebody took the alias.
    marks = (prefix.encode(), b"sle", b"slb", *(link.group(number) for number in GROUPS))
    loopback = ("link", "lo") in desired
    return _links(
        socket,
        () if loopback else marks,
        lambda found: is_ours(found, prefix) or (loopback and isinstance(found.kind, Loopback)),
        desired,
    )


def _sandbox_links(socket: Socket, prefix: str, desired: NamespaceState) -> _Links:
    return _links(
        socket,
        (),
        lambda found: (
            ("link", found.name) in desired and (isinstance(found.kind, Loopback) or is_ours(found, prefix))
        ),
        desired,
    )


def _links(
    socket: Socket, marks: tuple[bytes, ...], is_ours: Callable[[link.RawLink], bool], desired: NamespaceState
) -> _Links:
    """`marks`: a link without any of them in its bytes need not be parsed; none: all are."""
    names: dict[int, str] = {}
    candidates: list[link.RawLink] = []
    for _, payload in socket.dump(link.dump()):
        index, name = link.parse_name(payload)
        names[index] = name
        if marks:
            data = bytes(payload)
            if not any(mark in data for mark in marks):
                continue
        candidates.append(link.parse(payload))
    return _Links(
        names, {found.index: _link(found, names, desired) for found in candidates if is_ours(found)}
    )


def _link(found: link.RawLink, names: dict[int, str], desired: NamespaceState) -> Link:
    want = desired.get(("link", found.name))
    if not isinstance(want, Link):
        want = None
    up = bool(found.flags & link.IFF_UP)
    if isinstance(found.kind, Loopback):
        return Link(name=found.name, kind=Loopback(), up=up)
    return Link(
        name=found.name,
        kind=found.kind,
        up=up,
        mtu=0 if want and not want.mtu else found.mtu,
        mac="" if want and not want.mac else found.mac,
        alias=found.alias + DOOMED if found.group == GROUP_DOOMED else found.alias,
        master=names.get(found.master, ""),
        port=_port(found.port, want),
        addr_gen_none=bool(want and want.addr_gen_none)
        if found.addr_gen_none is None
        else found.addr_gen_none,
        arp=not found.flags & link.IFF_NOARP,
        group=GROUP_LIVE if found.group == GROUP_DOOMED else found.group,
    )


def _port(found: BridgePort | None, want: Link | None) -> BridgePort | None:
    """Without what is not ours to look at."""
    if found is None or want is None or want.port is None or want.port.forwarding is not None:
        return found
    return msgspec.structs.replace(found, forwarding=None)


def _addresses(socket: Socket, links: _Links) -> Iterator[Address]:
    """Those of our links. One that has lost the kernel's route to its prefix is passed over: it is as good as none, and
    made again it has its route (`Session`)."""
    if not links.ours:
        return
    found = [inet.parse_address(payload) for _, payload in socket.dump(inet.dump_addresses())]
    found = [raw for raw in found if raw.index in links.ours]
    wanting = [raw for raw in found if has_prefix_route(raw.address) and _carries(links.ours[raw.index])]
    lost = without_prefix_route(socket, wanting)
    for raw in found:
        if raw not in lost:
            yield Address(link=links.names[raw.index], address=raw.address)


def _carries(item: Link) -> bool:
    return item.up and not isinstance(item.kind, Loopback)


def _routes(socket: Socket, links: _Links) -> Iterator[Route]:
    for family in (inet.AF_INET, inet.AF_INET6):
        for _, payload in socket.dump(inet.dump_routes(family, RTPROT_SEALANE)):
            found = inet.parse_route(payload)
            # Before 4.20 the kernel does not choose; it also dumps what path discovery has learnt.
            if found.protocol == RTPROT_SEALANE and not found.cloned:
                unreachable = found.type == inet.RTN_UNREACHABLE
                yield Route(
                    dst=found.dst,
                    # An unreachable IPv6 route is at `lo`, an IPv4 one at nothing.
                    link="" if unreachable else links.names.get(found.index, ""),
                    gateway=found.gateway,
                    type="unreachable" if unreachable else "unicast",
                    src=found.src,
                    metric=found.metric,
                    onlink=found.onlink,
                    table=found.table,
                )


def _rules(socket: Socket) -> Iterator[RoutingRule]:
    for family in (inet.AF_INET, inet.AF_INET6):
        for _, payload in socket.dump(rule.dump(family)):
            found = rule.parse(payload)
            if found is not None:
                yield found


def _neighbours(socket: Socket, links: _Links) -> Iterator[Neighbour]:
    if not links.ours:
        return
    for proxies in (False, True):
        for _, payload in socket.dump(neigh.dump(proxies=proxies)):
            index, state, _ = neigh.parse_head(payload)
            if index in links.ours and (proxies or state & neigh.NUD_PERMANENT):
                found = neigh.parse(payload)
                if found.address:
                    yield Neighbour(
                        link=links.names[index], address=found.address, mac="" if proxies else found.mac
                    )


def _fdb(socket: Socket, links: _Links, desired: NamespaceState) -> Iterator[FdbEntry]:
    """Static entries at ports of ours, and permanent ones of bridges of ours, but for what the kernel gives a bridge that
    needs none. (Permanent ones of ports are their own MACs, which nothing is sent to.)"""
    if not any(item.master or item.kind.has_ports for item in links.ours.values()):
        return
    for _, payload in socket.dump(neigh.dump(neigh.AF_BRIDGE)):
        index, state, flags = neigh.parse_head(payload)
        if index not in links.ours or flags & neigh.NTF_SELF:
            continue
        item = links.ours[index]
        is_own = item.kind.has_ports
        if state & (neigh.NUD_PERMANENT if is_own else neigh.NUD_NOARP):
            raw = neigh.parse(payload)
            found = FdbEntry(link=item.name, mac=raw.mac, is_own=is_own)
            if found.key in desired:
                # Without VLANs the kernel looks for untagged entries alone: another is none of those that are needed.
                is_seen = not raw.is_tagged
            else:
                is_seen = not is_own or item.mac not in {"", raw.mac}
            if is_seen:
                yield found


_Queues = list[tuple[int, int, memoryview]]
"""(index of the link, handle, all that is told)."""


def _queues(socket: Socket, links: _Links) -> _Queues:
    """Queueing disciplines of our links."""
    if not links.ours:
        return []
    found = [(*qdisc.parse_head(payload), payload) for _, payload in socket.dump(qdisc.dump())]
    return [item for item in found if item[0] in links.ours]


def _qdiscs(queues: _Queues, links: _Links, desired: NamespaceState) -> Iterator[Qdisc]:
    for index, handle, payload in queues:
        if handle != qdisc.HANDLE:
            continue
        found, name = qdisc.parse(payload), links.names[index]
        want = desired.get(("qdisc", name))
        burst = qdisc.burst_of(found, want.burst if isinstance(want, Qdisc) else 0)
        yield Qdisc(link=name, rate=found.rate, burst=burst, limit=found.limit)


def _fast_ports(
    socket: Socket, queues: _Queues, links: _Links, fast_path: FastPath | None
) -> Iterator[FastPort]:
    """The kernel tells filters link by link only; there are some only where they have something to hang on. Without a fast
    path (any more) they are of no program that is known, and so unwanted."""
    for index, handle, _ in queues:
        if handle == tc_filter.INGRESS and links.ours[index].kind.is_pair:
            for _, answer in socket.dump(tc_filter.get(index)):
                found = tc_filter.parse(answer)
                if found is not None:
                    driver = fast_path.driver_of(found.program) if fast_path is not None else None
                    yield FastPort(link=links.names[index], driver=driver or "")


def _sysctls(desired: NamespaceState) -> Iterator[Object]:
    for item in desired.values():
        if isinstance(item, Sysctl):
            value = sysctl.read(item.path)
            if value is not None:
                same = value == sysctl.normal(item.value)
                yield item if same else Sysctl(path=item.path, value=value)
