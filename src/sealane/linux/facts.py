"""What is true of this host: its uplink, the prefixes in use around it, what its kernel can do."""

import os
import re
import struct
from collections.abc import Iterable, Iterator
from contextlib import suppress

import msgspec

from sealane.compile.facts import Facts, Features, ForeignRoute
from sealane.kernel.links import Bridge, word_of
from sealane.kernel.objects import RTPROT_SEALANE
from sealane.linux import netns, sysctl
from sealane.linux.borrowed import FORWARDING, Borrowed
from sealane.linux.marks import alias_prefix
from sealane.linux.netlink import codec, inet, link
from sealane.linux.netlink.socket import NETLINK_NETFILTER, Socket
from sealane.model.net import (
    FAMILIES,
    Family,
    ParseError,
    Prefix,
    bounds,
    family_of,
    from_int,
    host_prefix,
    parse_address,
    parse_prefix,
    prefix_length,
)

RESOLV_CONF = "/etc/resolv.conf"
RESOLV_CONF_BYTES = 64 << 10
ROUTES_MAX = 4096
"""Foreign prefixes kept, and as many addresses."""

_WIDENED = {4: 24, 6: 64}
"""Length of the prefixes that stand for longer ones within them, where there are too many."""

KERNEL_MIN = (5, 15)
DEFAULT_ROUTES = ("0.0.0.0/0", "::/0")
_EVERYWHERE = ("fe80:", "127.", "::1/")
"""What each host has."""

_RELEASE = re.compile(r"([0-9]{1,4})\.([0-9]{1,4})(\D.*)?", re.ASCII | re.DOTALL)
_NFPROTO_IPV4, _NFPROTO_BRIDGE = 2, 7
_NFT = 10 << 8
_VIRTUAL = frozenset({"veth", "tun"})
"""Kinds of links whose other end is a container or a machine on this host. (Those of cards have none.)"""
_RTPROT_RA = 9
"""linux/rtnetlink.h."""
_CTNETLINK_GET_STATS = 1 << 8 | 5


class UnsupportedKernelError(Exception):
    """This kernel is older than what sealane is tested on."""


def check_release(release: str) -> None:
    found = _RELEASE.fullmatch(release)
    if found is None or (int(found[1]), int(found[2])) < KERNEL_MIN:
        raise UnsupportedKernelError(
            f"Linux {release}: sealane needs {KERNEL_MIN[0]}.{KERNEL_MIN[1]} or later"
        )


def read_facts(
    socket: Socket,
    instance: str,
    features: Features,
    resolv_conf: str = RESOLV_CONF,
    *,
    borrowed: Borrowed | None = None,
) -> Facts:
    """`socket` is an rtnetlink one of the host's. Raises OSError."""
    links = {raw.index: raw for raw in (link.parse(payload) for _, payload in socket.dump(link.dump()))}
    every = [
        route
        for family in (inet.AF_INET, inet.AF_INET6)
        for route in (inet.parse_route(payload) for _, payload in socket.dump(inet.dump_routes(family)))
        if not route.cloned and route.protocol != RTPROT_SEALANE
    ]
    routes = [route for route in every if route.type == inet.RTN_UNICAST]
    addresses = [route for route in every if route.type == inet.RTN_LOCAL]
    uplink = _uplink(routes, links)
    ours = alias_prefix(instance)
    borrowed = borrowed or Borrowed("", "")
    lent = tuple(family for family in FAMILIES if FORWARDING[family] in borrowed.loans)
    foreign = [
        *_bounded(_foreign(routes, links, ours, "route via")),
        *_bounded(_foreign(addresses, links, ours, "address of")),
        *_nameservers(resolv_conf),
    ]
    return Facts(
        instance=instance,
        uplink=uplink.name if uplink else "",
        uplink_mtu=uplink.mtu if uplink else 0,
        foreign_routes=tuple(dict.fromkeys(foreign)),
        # Where we have said so ourselves it stays so, whether a route is there just now or not.
        ra_links=tuple(sorted(_learning(routes, links).union(borrowed.links("accept_ra")))),
        forwards=tuple(
            f for f in FAMILIES if f not in lent and sysctl.read(FORWARDING[f]) not in {None, "0"}
        ),
        lent=lent,
        newcomers=tuple(_newcomers(links, routes, ours, borrowed)),
        bridges=_bridges(links, ours) if features.bridge_netfilter else (),
        features=features,
    )


def probe_features() -> Features:
    """Try what a kernel may lack, in a namespace of its own. The loopback program is not asked about here."""
    ip_works, bridge_works, conntrack = netns.in_new_namespace(_probe)
    return Features(
        nft=ip_works,
        nft_bridge=bridge_works,
        ipv6=os.path.exists("/proc/net/if_inet6"),
        conntrack=conntrack,
        bridge_netfilter=bridge_netfilter(),
    )


def bridge_netfilter() -> bool:
    """Read anew each time: the module may be loaded, and the sysctl set, at any moment."""
    for name in ("iptables", "ip6tables"):
        with suppress(OSError), open(f"/proc/sys/net/bridge/bridge-nf-call-{name}", encoding="ascii") as file:
            if file.read(8).strip() == "1":
                return True
    return False


def _uplink(routes: list[inet.RawRoute], links: dict[int, link.RawLink]) -> link.RawLink | None:
    """The link of the best default route, IPv4's before IPv6's."""
    for default in DEFAULT_ROUTES:
        found = [r for r in routes if r.dst == default and r.table == inet.TABLE_MAIN and r.index in links]
        if found:
            return links[min(found, key=lambda route: route.metric).index]
    return None


def _foreign(
    routes: list[inet.RawRoute], links: dict[int, link.RawLink], ours: str, what: str
) -> Iterator[ForeignRoute]:
    """An address is one more route, in the table `local`: alone, if it has no prefix (10.1.0.9/32 of a load balancer's)."""
    for route in routes:
        via = links.get(route.index)
        if route.dst in DEFAULT_ROUTES or route.dst.startswith(_EVERYWHERE):
            continue
        if route.type == inet.RTN_UNICAST and route.table == inet.TABLE_LOCAL:
            continue
        if via is not None and via.alias.startswith(ours):
            continue
        with suppress(ParseError):
            yield ForeignRoute(parse_prefix(route.dst), f"{what} {via.name if via else 'no link'}")


def _bounded(routes: Iterable[ForeignRoute]) -> list[ForeignRoute]:
    """All of them, or too many as the prefixes around them: those of ten thousand pods are some forty. What is too much
    even so is a full routing table, which leaves nothing free: the widest of it."""
    found = list(dict.fromkeys(routes))
    if len(found) <= ROUTES_MAX:
        return found
    wide = dict.fromkeys(ForeignRoute(_widened(route.prefix), route.owner) for route in found)
    return sorted(wide, key=lambda route: prefix_length(route.prefix))[:ROUTES_MAX]


def _widened(prefix: Prefix) -> Prefix:
    length = _WIDENED[family_of(prefix)]
    if prefix_length(prefix) <= length:
        return prefix
    first, _ = bounds(prefix)
    host_bits = (32 if length == _WIDENED[4] else 128) - length
    return Prefix(f"{from_int(family_of(prefix), first >> host_bits << host_bits)}/{length}")


def _learning(routes: list[inet.RawRoute], links: dict[int, link.RawLink]) -> set[str]:
    """Links whose router advertisements the kernel heeds. (Where a program does it, their accept_ra is 0.)"""
    names = {
        links[route.index].name
        for route in routes
        if route.protocol == _RTPROT_RA and route.dst == "::/0" and route.index in links
    }
    return {name for name in names if sysctl.read(f"net/ipv6/conf/{name}/accept_ra") in {"1", "2"}}


def _bridges(links: dict[int, link.RawLink], ours: str) -> tuple[str, ...]:
    """Of others. What has a name that no rule can say is left out."""
    found = (
        raw.name for raw in links.values() if isinstance(raw.kind, Bridge) and not raw.alias.startswith(ours)
    )
    return tuple(sorted(name for name in found if name.isascii()))


def _newcomers(
    links: dict[int, link.RawLink], routes: list[inet.RawRoute], ours: str, borrowed: Borrowed
) -> Iterator[tuple[Family, str]]:
    """Bridges that lead to containers and machines of other engines: not one that a card of the host is a port of, or that a
    default route goes by."""
    outward = {raw.master for raw in links.values() if word_of(raw.kind) not in _VIRTUAL}
    outward |= {route.index for route in routes if route.dst in DEFAULT_ROUTES}
    names = {links[index].name for index in outward if index in links}
    for family in FAMILIES:
        loan = borrowed.loans.get(FORWARDING[family])
        if loan is not None:
            yield from (
                (family, name)
                for name in _bridges(links, ours)
                if name not in names and name not in loan.bridges
            )


def _nameservers(path: str) -> Iterator[ForeignRoute]:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = file.read(RESOLV_CONF_BYTES).splitlines()
    except OSError:
        return
    for line in lines:
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver":
            with suppress(ParseError):
                address = parse_address(words[1].partition("%")[0])
                yield ForeignRoute(host_prefix(address), f"nameserver {address}")


def _probe() -> tuple[bool, bool, bool]:
    with Socket(NETLINK_NETFILTER) as socket:
        conntrack = False
        with suppress(OSError):
            request = codec.NLM_F_REQUEST | codec.NLM_F_ACK
            socket.dump(codec.message(_CTNETLINK_GET_STATS, request, 0, _nfgenmsg(0)))
            conntrack = True
        return _chain_works(socket, _NFPROTO_IPV4), _chain_works(socket, _NFPROTO_BRIDGE), conntrack


def _chain_works(socket: Socket, family: int) -> bool:
    """A table with a base chain at prerouting: the table alone would be taken without support for the hooks."""
    new = codec.NLM_F_REQUEST | codec.NLM_F_CREATE
    hook = codec.nested(4, codec.be32(1, 0), codec.be32(2, 0))
    chain = codec.string(1, "probe") + codec.string(3, "probe") + hook + codec.string(7, "filter")
    messages = [
        codec.message(0x10, codec.NLM_F_REQUEST, 0, _nfgenmsg(0, 10)),
        codec.message(_NFT, new, 0, _nfgenmsg(family) + codec.string(1, "probe")),
        codec.message(_NFT | 3, new, 0, _nfgenmsg(family) + chain),
        codec.message(0x11, codec.NLM_F_REQUEST, 0, _nfgenmsg(0, 10)),
    ]
    try:
        return not any(socket.batch(messages))
    except OSError:
        return False


def _nfgenmsg(family: int, resource: int = 0) -> bytes:
    return struct.pack(">BBH", family, 0, resource)


def with_loopback(features: Features, reason: str | None) -> Features:
    """`reason` as `bpf.loopback.probe` gives it: None if the program works."""
    return msgspec.structs.replace(features, loopback_reason=reason or "")
