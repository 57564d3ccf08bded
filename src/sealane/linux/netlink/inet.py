"""RTM_*ADDR and RTM_*ROUTE: addresses and routes of both families (linux/if_addr.h, linux/rtnetlink.h)."""

import ipaddress
import socket
import struct

import msgspec

from sealane.kernel.objects import RTPROT_SEALANE, Address, Route
from sealane.linux.netlink import codec
from sealane.model import net

RTM_NEWADDR = 20
RTM_DELADDR = 21
RTM_GETADDR = 22
RTM_NEWROUTE = 24
RTM_DELROUTE = 25
RTM_GETROUTE = 26

AF_INET = 2
AF_INET6 = 10

RTPROT_KERNEL = 2
RTN_UNICAST = 1
RTN_LOCAL = 2
RTN_UNREACHABLE = 7
RTM_F_CLONED = 0x200
TABLE_MAIN = 254
TABLE_LOCAL = 255
_IPV6_METRIC_KERNEL = 256
IPV6_METRIC_DEFAULT = 1024
"""What the kernel makes of the metric 0 (IP6_RT_PRIO_USER); read back as 0, so that both families read alike."""

_IFA_ADDRESS = 1
_IFA_LOCAL = 2
_IFA_FLAGS = 8
_IFA_F_NODAD = 2

_RTA_DST = 1
_RTA_OIF = 4
_RTA_GATEWAY = 5
_RTA_PRIORITY = 6
_RTA_PREFSRC = 7
_RTA_METRICS = 8
_RTA_MULTIPATH = 9
_RTA_TABLE = 15
_RTAX_MTU = 2
_RTNH_F_ONLINK = 4
_SCOPE_UNIVERSE = 0
_SCOPE_LINK = 253
_SCOPE_NOWHERE = 255

_IFADDR = struct.Struct("=BBBBI")
_RTMSG = struct.Struct("=BBBBBBBBI")
_RTNH = struct.Struct("=HBBi")
_U32 = struct.Struct("=I")
_ACKED = codec.NLM_F_REQUEST | codec.NLM_F_ACK
_NEW = _ACKED | codec.NLM_F_CREATE | codec.NLM_F_EXCL
_DUMP = codec.NLM_F_REQUEST | codec.NLM_F_DUMP


class RawAddress(msgspec.Struct, frozen=True):
    index: int
    address: str
    """With its prefix length."""


class RawRoute(msgspec.Struct, frozen=True, kw_only=True):
    dst: str
    table: int
    protocol: int
    type: int
    index: int = 0
    """Of the outgoing link, of the first one of several; 0: none."""
    gateway: str = ""
    src: str = ""
    metric: int = 0
    onlink: bool = False
    cloned: bool = False
    mtu: int = 0
    """Bytes, of the route itself; 0: the link's."""


def dump_addresses(family: int = 0) -> bytes:
    return codec.message(RTM_GETADDR, _DUMP, 0, _IFADDR.pack(family, 0, 0, 0, 0))


def create_address(item: Address, index: int) -> bytes:
    return _address(RTM_NEWADDR, _NEW, item, index)


def delete_address(item: Address, index: int) -> bytes:
    return _address(RTM_DELADDR, _ACKED, item, index)


def dump_routes(family: int, protocol: int = 0, table: int = 0) -> bytes:
    """Routes of every table and protocol, or of the one that is given (strict checking makes the kernel choose)."""
    return codec.message(RTM_GETROUTE, _DUMP, 0, _RTMSG.pack(family, 0, 0, 0, table, protocol, 0, 0, 0))


def create_prefix_route(address: str, index: int) -> bytes:
    """The route that the kernel makes by itself with an address, as it makes it (fib_frontend.c, fib_magic; addrconf.c,
    addrconf_prefix_route): with the address it goes again."""
    host, _, length = address.partition("/")
    family, packed = pack_address(host)
    scope = _SCOPE_LINK if family == AF_INET else _SCOPE_UNIVERSE
    header = _RTMSG.pack(family, int(length), 0, 0, TABLE_MAIN, RTPROT_KERNEL, scope, RTN_UNICAST, 0)
    parts = codec.attr(_RTA_DST, pack_address(prefix_of(address))[1]) + codec.u32(_RTA_OIF, index)
    parts += (
        codec.attr(_RTA_PREFSRC, packed)
        if family == AF_INET
        else codec.u32(_RTA_PRIORITY, _IPV6_METRIC_KERNEL)
    )
    return codec.message(RTM_NEWROUTE, _ACKED | codec.NLM_F_CREATE, 0, header + parts)


def prefix_of(address: str) -> str:
    """The first address of the prefix that an address is in, without its length."""
    host, _, length = address.partition("/")
    family, packed = pack_address(host)
    free = 8 * len(packed) - int(length)
    first = int.from_bytes(packed, "big") >> free << free
    return _text(family, memoryview(first.to_bytes(len(packed), "big")))


def create_route(item: Route, index: int) -> bytes:
    """Fails with EEXIST beside any route to the prefix with the metric, be it whose it may."""
    return _route(RTM_NEWROUTE, _NEW, item, index)


def replace_route(item: Route, index: int) -> bytes:
    """Takes the place of whatever has the prefix and the metric: for routes known to be ours."""
    return _route(RTM_NEWROUTE, _ACKED | codec.NLM_F_CREATE | codec.NLM_F_REPLACE, item, index)


def delete_route(item: Route, index: int) -> bytes:
    """Only a route of our protocol is deleted: the kernel compares it."""
    return _route(RTM_DELROUTE, _ACKED, item, index)


def parse_address(payload: memoryview) -> RawAddress:
    family, length, _, _, index = _IFADDR.unpack_from(payload)
    found = codec.attrs(payload[8:])
    # On a point-to-point IPv4 link IFA_ADDRESS is the other side's, and IFA_LOCAL ours; IPv6 has IFA_ADDRESS alone.
    value = found.get(_IFA_LOCAL, found.get(_IFA_ADDRESS, _EMPTY))
    return RawAddress(index, f"{_text(family, value)}/{length}")


def parse_route(payload: memoryview) -> RawRoute:
    family, length, _, _, table, protocol, _, kind, flags = _RTMSG.unpack_from(payload)
    found = codec.attrs(payload[12:])
    metric = _number(found.get(_RTA_PRIORITY))
    index = _number(found.get(_RTA_OIF))
    hops = found.get(_RTA_MULTIPATH, _EMPTY)
    if not index and len(hops) >= 8:
        index = _RTNH.unpack_from(hops)[3]
    wide = found.get(_RTA_TABLE)
    dst = found.get(_RTA_DST)
    zero = "::" if family == AF_INET6 else "0.0.0.0"
    return RawRoute(
        dst=f"{zero if dst is None else _text(family, dst)}/{length}",
        table=table if wide is None else _number(wide),
        protocol=protocol,
        type=kind,
        index=index,
        gateway=_text(family, found.get(_RTA_GATEWAY, _EMPTY)),
        src=_text(family, found.get(_RTA_PREFSRC, _EMPTY)),
        metric=0 if family == AF_INET6 and metric == IPV6_METRIC_DEFAULT else metric,
        onlink=bool(flags & _RTNH_F_ONLINK),
        cloned=bool(flags & RTM_F_CLONED),
        mtu=_number(codec.attrs(found[_RTA_METRICS]).get(_RTAX_MTU)) if _RTA_METRICS in found else 0,
    )


def pack_address(text: str) -> tuple[int, bytes]:
    """Family and bytes of an address. Raises ValueError."""
    return AF_INET6 if ":" in text else AF_INET, net.packed(text)


def unpack_address(family: int, payload: memoryview) -> str:
    """Canonical text; empty for what is no address of the family."""
    return _text(family, payload)


_EMPTY = memoryview(b"")


def _address(kind: int, flags: int, item: Address, index: int) -> bytes:
    host, _, length = item.address.partition("/")
    family, packed = pack_address(host)
    parts = codec.attr(_IFA_LOCAL, packed) + codec.attr(_IFA_ADDRESS, packed)
    if family == AF_INET6:
        parts += codec.u32(_IFA_FLAGS, _IFA_F_NODAD)
    return codec.message(kind, flags, 0, _IFADDR.pack(family, int(length), 0, 0, index) + parts)


def _route(kind: int, flags: int, item: Route, index: int) -> bytes:
    prefix, _, length = item.dst.partition("/")
    family, packed = pack_address(prefix)
    scope = _SCOPE_UNIVERSE if item.gateway or item.type == "unreachable" else _SCOPE_LINK
    header = _RTMSG.pack(
        family,
        int(length),
        0,
        0,
        item.table if item.table <= 255 else 0,
        RTPROT_SEALANE,
        _SCOPE_NOWHERE if kind == RTM_DELROUTE else scope,
        RTN_UNREACHABLE if item.type == "unreachable" else RTN_UNICAST,
        _RTNH_F_ONLINK if item.onlink else 0,
    )
    parts = codec.attr(_RTA_DST, packed) if length != "0" else b""
    if item.table > 255:
        parts += codec.u32(_RTA_TABLE, item.table)
    if index:
        parts += codec.u32(_RTA_OIF, index)
    if item.gateway:
        parts += codec.attr(_RTA_GATEWAY, pack_address(item.gateway)[1])
    if item.src:
        parts += codec.attr(_RTA_PREFSRC, pack_address(item.src)[1])
    metric = item.metric or (IPV6_METRIC_DEFAULT if family == AF_INET6 else 0)
    return codec.message(kind, flags, 0, header + parts + codec.u32(_RTA_PRIORITY, metric))


def _text(family: int, payload: memoryview) -> str:
    if len(payload) != (16 if family == AF_INET6 else 4):
        return ""
    text = socket.inet_ntop(family, payload)
    if family == AF_INET6 and "." in text:
        # glibc writes `::1.2.3.4`, Python's ipaddress, whose text is our canon, `::102:304`.
        return str(ipaddress.IPv6Address(bytes(payload)))
    return text


def _number(payload: memoryview | None) -> int:
    if payload is None or len(payload) != 4:
        return 0
    value: int = _U32.unpack_from(payload)[0]
    return value
