"""RTM_*NEIGH: neighbours, proxies, and a bridge's forwarding database, which is one message (linux/neighbour.h)."""

import struct

import msgspec

from sealane.kernel.objects import FdbEntry, Neighbour
from sealane.linux.netlink import codec
from sealane.linux.netlink.inet import pack_address, unpack_address

RTM_NEWNEIGH = 28
RTM_DELNEIGH = 29
RTM_GETNEIGH = 30

AF_BRIDGE = 7

NUD_NOARP = 0x40
NUD_PERMANENT = 0x80
NTF_SELF = 2
"""On an FDB entry: of the link's own filter, not of the bridge that it is a port of."""
NTF_MASTER = 4
NTF_PROXY = 8

_NDA_DST = 1
_NDA_LLADDR = 2
_NDA_VLAN = 5

_NDMSG = struct.Struct("=BxxxiHBB")
_ACKED = codec.NLM_F_REQUEST | codec.NLM_F_ACK
_PUT = _ACKED | codec.NLM_F_CREATE | codec.NLM_F_REPLACE
_DUMP = codec.NLM_F_REQUEST | codec.NLM_F_DUMP


class RawNeighbour(msgspec.Struct, frozen=True):
    family: int
    index: int
    state: int
    flags: int
    address: str
    mac: str
    is_tagged: bool = False
    """An FDB entry for frames of one VLAN."""


def dump(family: int = 0, *, proxies: bool = False) -> bytes:
    """Family 0: IPv4 and IPv6; AF_BRIDGE: forwarding databases. Proxies are in a table of their own."""
    header = _NDMSG.pack(family, 0, 0, NTF_PROXY if proxies else 0, 0)
    return codec.message(RTM_GETNEIGH, _DUMP, 0, header)


def put(item: Neighbour, index: int) -> bytes:
    """Create, or replace by key."""
    return _neighbour(RTM_NEWNEIGH, _PUT, item, index)


def delete(item: Neighbour, index: int) -> bytes:
    return _neighbour(RTM_DELNEIGH, _ACKED, item, index)


def put_fdb(item: FdbEntry, index: int) -> bytes:
    """Create, or take the MAC over from another port of the bridge."""
    return _fdb(RTM_NEWNEIGH, _PUT, item, index)


def delete_fdb(item: FdbEntry, index: int) -> bytes:
    return _fdb(RTM_DELNEIGH, _ACKED, item, index)


def parse(payload: memoryview) -> RawNeighbour:
    family, index, state, flags, _ = _NDMSG.unpack_from(payload)
    found = codec.attrs(payload[12:])
    return RawNeighbour(
        family,
        index,
        state,
        flags,
        unpack_address(family, found.get(_NDA_DST, _EMPTY)),
        found.get(_NDA_LLADDR, _EMPTY).hex(":"),
        _NDA_VLAN in found,
    )


def parse_head(payload: memoryview) -> tuple[int, int, int]:
    """(index, state, flags) alone: most of a dump is of no interest."""
    _, index, state, flags, _ = _NDMSG.unpack_from(payload)
    return index, state, flags


_EMPTY = memoryview(b"")


def _neighbour(kind: int, flags: int, item: Neighbour, index: int) -> bytes:
    family, packed = pack_address(item.address)
    parts = codec.attr(_NDA_DST, packed)
    if item.mac:
        parts += codec.attr(_NDA_LLADDR, bytes.fromhex(item.mac.replace(":", "")))
        return codec.message(kind, flags, 0, _NDMSG.pack(family, index, NUD_PERMANENT, 0, 0) + parts)
    return codec.message(kind, flags, 0, _NDMSG.pack(family, index, 0, NTF_PROXY, 0) + parts)


def _fdb(kind: int, flags: int, item: FdbEntry, index: int) -> bytes:
    mac = codec.attr(_NDA_LLADDR, bytes.fromhex(item.mac.replace(":", "")))
    # A bridge is no port: it is asked itself (rtnl_fdb_add), and takes permanent entries only (fdb_add_entry).
    state, target = (NUD_PERMANENT, NTF_SELF) if item.is_own else (NUD_NOARP, NTF_MASTER)
    return codec.message(kind, flags, 0, _NDMSG.pack(AF_BRIDGE, index, state, target, 0) + mac)
