"""Reads in one namespace what the verdict on a packet rests on. A piece that cannot be read is named, and hinders no other."""

import errno
import os
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from typing import TypeVar

import msgspec

from sealane.engine.ports import NamespaceGoneError
from sealane.explain.foreign.rules import ForeignRules
from sealane.explain.headers import NUMBERS
from sealane.explain.observed import settings
from sealane.explain.observed.reading import (
    LinkReading,
    NamespaceReading,
    NeighbourReading,
    RouteReading,
    RuleReading,
    Wanted,
)
from sealane.explain.packet import Lookup
from sealane.kernel.state import HOST
from sealane.linux import netns, sysctl
from sealane.linux.bpf.mounts import find_cgroup2
from sealane.linux.bpf.syscall import Attached, BpfError, netfilter_links, prog_count
from sealane.linux.foreign_rules import foreign_rules
from sealane.linux.netlink import codec, inet, neigh, rule
from sealane.linux.netlink.nfnl import HOOKS
from sealane.linux.netlink.socket import (
    NETLINK_NETFILTER,
    NETLINK_ROUTE,
    NETLINK_XFRM,
    NetlinkError,
    Socket,
)
from sealane.linux.path_links import read_links, read_programs
from sealane.model.endpoint import NetnsRef
from sealane.model.net import FAMILIES, family_of

T = TypeVar("T")

_RTMSG = struct.Struct("=BBBBBBBBI")
_RTA_DST, _RTA_SRC, _RTA_IIF, _RTA_MARK, _RTA_ENCAP = 1, 2, 3, 16, 22
_RTA_IP_PROTO, _RTA_SPORT, _RTA_DPORT = 27, 28, 29
_LOOKUP_TABLE = 0x1000
"""RTM_F_LOOKUP_TABLE: answer with the table that it was found in, as IPv6 does unasked (and refuses to be told)."""
_TYPES = {
    1: "unicast",
    2: "local",
    3: "broadcast",
    5: "multicast",
    6: "blackhole",
    7: "unreachable",
    8: "prohibit",
}
_ASKABLE = frozenset({"tcp", "udp", "icmp"})
"""rtm_getroute_parse_ip_proto (net/ipv4/ip_output.c) takes no others."""

_RULE = struct.Struct("=BBBBBBBBI")
_FRA_PRIORITY, _FRA_PROTOCOL = 6, 21
_FRA_NOT_ASKED = frozenset({12, 20, 23, 25, 26, 27, 28, 29})
"""FRA_TUN_ID, FRA_UID_RANGE, FRA_SPORT_RANGE, FRA_DSCP, FRA_FLOWLABEL and masks."""
_KERNELS_OWN, _OURS = 2, 94

_NUD_NONE, _NUD_INCOMPLETE, _NUD_FAILED = 0, 1, 0x20
_FIXED = neigh.NUD_PERMANENT | neigh.NUD_NOARP

_IFADDR = struct.Struct("=BBBBI")
_IFA_FLAGS, _UNREADY = 8, 0x40 | 0x08
"""IFA_F_TENTATIVE, IFA_F_DADFAILED."""

_XFRM_GETPOLICY, _XFRM_GETDEFAULT = 0x15, 0x28


def read_path(desired: Mapping[str, Wanted], refs: Mapping[str, NetnsRef]) -> dict[str, NamespaceReading]:
    """The namespaces of a path; one that is gone is left out. For a thread that is in the host's."""
    found = {}
    for where, what in desired.items():
        ref = refs.get(where)
        if where == HOST or ref is not None:
            with suppress(NamespaceGoneError, OSError):
                found[where] = _read(what, ref if where != HOST else None)
    return found


def _read(desired: Wanted, ref: NetnsRef | None) -> NamespaceReading:
    with ExitStack() as stack:
        descriptor = None
        if ref is not None:
            descriptor = netns.open_ref(ref)
            stack.callback(os.close, descriptor)
            stack.enter_context(netns.inside(descriptor))
        route = stack.enter_context(Socket(NETLINK_ROUTE))
        nft = stack.enter_context(Socket(NETLINK_NETFILTER))
        return _Reader(desired, route, nft).read(ref)


class _Reader:
    def __init__(self, desired: Wanted, route: Socket, nft: Socket) -> None:
        self._wanted, self._route, self._nft = desired, route, nft
        self._unread: list[str] = []

    def read(self, ref: NetnsRef | None) -> NamespaceReading:
        links = read_links(self._route)
        indexes = {name: item.index for name, item in links.items()}
        names = {index: name for name, index in indexes.items()}
        met = [item for name, item in links.items() if name in self._wanted.links]
        programs = self._piece("tc", lambda: read_programs(self._route, met), dict[str, tuple[str, ...]]())
        return NamespaceReading(
            links={
                name: msgspec.structs.replace(item, programs=programs.get(name, ()))
                for name, item in links.items()
            },
            routes={lookup: self._ask(lookup, indexes, names) for lookup in self._wanted.lookups},
            policies=self._piece("routing rules", lambda: tuple(_rules(self._route)), ()),
            neighbours=self._piece("neighbours", lambda: tuple(self._neighbours(names)), ()),
            own_macs=self._piece(
                "FDBs", lambda: frozenset(_own_macs(self._route, names, links)), frozenset()
            ),
            unready=self._piece("addresses", lambda: tuple(_unready(self._route)), ()),
            sysctls={
                path: value
                for path in settings.paths(self._wanted.links)
                if (value := sysctl.read(path)) is not None
            },
            rules=self._piece("nftables", lambda: foreign_rules(self._nft, indexes), ForeignRules()),
            ipsec=self._piece("IPsec", _policies, 0),
            programs=(*_cgroup_programs(ref), *_hook_programs(), *_services()),
            unread=tuple(self._unread),
        )

    def _piece(self, name: str, read: Callable[[], T], nothing: T) -> T:
        try:
            return read()
        except OSError as error:
            self._unread.append(f"{name} ({error.strerror or error})")
            return nothing

    def _ask(self, lookup: Lookup, indexes: Mapping[str, int], names: Mapping[int, str]) -> RouteReading:
        try:
            answers = self._route.dump(_question(lookup, indexes))
        except NetlinkError as error:
            return RouteReading(error=errno.errorcode.get(error.errno or 0, str(error.errno)))
        for _, payload in answers:
            raw = inet.parse_route(payload)
            return RouteReading(
                kind=_TYPES.get(raw.type, f"type {raw.type}"),
                link=names.get(raw.index, ""),
                gateway=raw.gateway,
                table=raw.table,
                mtu=raw.mtu,
                encap=_RTA_ENCAP in codec.attrs(payload[_RTMSG.size :]),
            )
        return RouteReading(error="no answer")

    def _neighbours(self, names: Mapping[int, str]) -> Iterator[NeighbourReading]:
        for _, payload in self._route.dump(neigh.dump()):
            found = neigh.parse(payload)
            name = names.get(found.index, "")
            if name in self._wanted.links and found.state != _NUD_NONE:
                silent = found.state in {_NUD_INCOMPLETE, _NUD_FAILED}
                mac = "" if silent else found.mac
                yield NeighbourReading(name, found.address, mac, bool(found.state & _FIXED), silent)


def _question(lookup: Lookup, indexes: Mapping[str, int]) -> bytes:
    """RTM_GETROUTE: what `ip route get … from … iif …` asks."""
    family, destination = inet.pack_address(lookup.destination)
    source = inet.pack_address(lookup.source)[1] if lookup.source else b""
    bits = 8 * len(destination)
    flags = _LOOKUP_TABLE if family == inet.AF_INET else 0
    head = _RTMSG.pack(family, bits, 8 * len(source), 0, 0, 0, 0, 0, flags)
    parts = codec.attr(_RTA_DST, destination)
    if source:
        parts += codec.attr(_RTA_SRC, source)
    if lookup.iif:
        parts += codec.u32(_RTA_IIF, indexes.get(lookup.iif, 0))
    if lookup.mark:
        parts += codec.u32(_RTA_MARK, lookup.mark)
    if lookup.proto in _ASKABLE:
        number = NUMBERS[lookup.proto, family_of(lookup.destination)]
        parts += codec.attr(_RTA_IP_PROTO, bytes([number]))
        if lookup.proto != "icmp":
            parts += codec.be16(_RTA_SPORT, lookup.source_port) + codec.be16(
                _RTA_DPORT, lookup.destination_port
            )
    return codec.message(inet.RTM_GETROUTE, codec.NLM_F_REQUEST | codec.NLM_F_ACK, 0, head + parts)


def _rules(route: Socket) -> Iterator[RuleReading]:
    for family in FAMILIES:
        for _, payload in route.dump(rule.dump(inet.AF_INET6 if family == 6 else inet.AF_INET)):
            found = codec.attrs(payload[_RULE.size :])
            protocol = bytes(found.get(_FRA_PROTOCOL, b"\0"))[0]
            if protocol in {_KERNELS_OWN, _OURS}:
                continue
            priority = int.from_bytes(found.get(_FRA_PRIORITY, b""), "little")
            tos = _RULE.unpack_from(payload)[3]
            yield RuleReading(f"{priority} (`ip rule`)", family, not (tos or found.keys() & _FRA_NOT_ASKED))


def _own_macs(
    route: Socket, names: Mapping[int, str], links: Mapping[str, LinkReading]
) -> Iterator[tuple[str, str]]:
    """Entries of FDBs that are the bridge's own, by the bridge or by the port whose MAC it is."""
    for _, payload in route.dump(neigh.dump(neigh.AF_BRIDGE)):
        found = neigh.parse(payload)
        item = links.get(names.get(found.index, ""))
        if item is not None and found.state & neigh.NUD_PERMANENT:
            yield (item.name if item.kind == "bridge" else item.master), found.mac


def _unready(route: Socket) -> Iterator[str]:
    for _, payload in route.dump(inet.dump_addresses(inet.AF_INET6)):
        flags = int.from_bytes(codec.attrs(payload[_IFADDR.size :]).get(_IFA_FLAGS, b""), "little")
        if flags & _UNREADY:
            yield inet.parse_address(payload).address.partition("/")[0]


def _policies() -> int:
    """IPsec policies, and defaults that block. Of this thread's namespace."""
    try:
        with Socket(NETLINK_XFRM) as xfrm:
            desired = codec.NLM_F_REQUEST | codec.NLM_F_DUMP
            count = len(xfrm.dump(codec.message(_XFRM_GETPOLICY, desired, 0, b"")))
            try:
                ask = codec.NLM_F_REQUEST | codec.NLM_F_ACK
                defaults = xfrm.dump(codec.message(_XFRM_GETDEFAULT, ask, 0, bytes(3)))
            except NetlinkError:  # Before 5.15.
                defaults = []
            return count + sum(_BLOCKS in bytes(payload[:3]) for _, payload in defaults)
    except OSError as error:
        if error.errno in {errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT, errno.EOPNOTSUPP}:
            return 0
        raise


_BLOCKS = 1
"""XFRM_USERPOLICY_BLOCK."""


# --- what is neither a rule nor on a link ---------------------------------------------------------------------------


def _hook_programs() -> Iterator[str]:
    with suppress(BpfError):
        for family, hook in dict.fromkeys(netfilter_links()):
            where = HOOKS[hook] if hook < len(HOOKS) else str(hook)
            yield f"eBPF program at {where} of {'IPv6' if family == inet.AF_INET6 else 'IPv4'}"


def _services() -> Iterator[str]:
    """Of IPVS, which translates by itself. The file's first lines are its head."""
    with suppress(OSError), open("/proc/thread-self/net/ip_vs", encoding="ascii", errors="replace") as file:
        if len(file.read(_TEXT_BYTES).splitlines()) > _IPVS_HEAD:
            yield "services of IPVS (`ipvsadm -L`)"


_TEXT_BYTES, _IPVS_HEAD = 4096, 3


# --- cgroups --------------------------------------------------------------------------------------------------------


def _cgroup_programs(ref: NetnsRef | None) -> Iterator[str]:
    """Programs that see the packets of a process in the namespace (BPF_CGROUP_INET_*)."""
    root = find_cgroup2()
    if root is None:
        return
    for path in _cgroups(ref):
        try:
            descriptor = os.open(f"{root}{path}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            places = ((Attached.CGROUP_INET_INGRESS, "ingress"), (Attached.CGROUP_INET_EGRESS, "egress"))
            for where, name in places:
                with suppress(BpfError):
                    if prog_count(descriptor, where):
                        yield f"eBPF program at {name} of cgroup {path or '/'}"
        finally:
            os.close(descriptor)


def _cgroups(ref: NetnsRef | None) -> list[str]:
    """Of the processes of a sandbox; of the host the root, since any process may be meant."""
    if ref is None:
        return ["/"]
    found = dict[str, None]()
    for pid in (name for name in os.listdir("/proc") if name.isascii() and name.isdigit()):
        with suppress(OSError):
            if os.stat(f"/proc/{pid}/ns/net").st_ino != ref.inode:
                continue
            with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="replace") as file:
                lines = file.read(4096).splitlines()
            found |= dict.fromkeys(line[3:] for line in lines if line.startswith("0::/") and ".." not in line)
    return list(found)[:_CGROUPS_MAX]


_CGROUPS_MAX = 64
