"""RTM_GETNEIGHTBL: the neighbour tables themselves, one a family for the whole machine (linux/neighbour.h)."""

import struct

from sealane.explain.doctor.evidence import NeighbourTable
from sealane.linux.netlink import codec
from sealane.linux.netlink.socket import Socket
from sealane.model.net import Family

_RTM_GETNEIGHTBL = 66
_NAME, _THRESH3, _CONFIG, _STATS = 1, 4, 5, 7
_NDTMSG_BYTES = 4
_CONFIG_HEAD = struct.Struct("=HHI")
"""struct ndt_config: key length, entry size, entries of all namespaces, …"""
_FULLS = struct.Struct("=80xQ")
"""struct ndt_stats: table_fulls is its eleventh number."""
_FAMILIES: dict[str, Family] = {"arp_cache": 4, "ndisc_cache": 6}


def neighbour_tables(socket: Socket) -> list[NeighbourTable]:
    """What any namespace may ask. The file gc_thresh3 is there in the initial namespace alone."""
    request = codec.message(_RTM_GETNEIGHTBL, codec.NLM_F_REQUEST | codec.NLM_F_DUMP, 0, bytes(_NDTMSG_BYTES))
    found = []
    for _, payload in socket.dump(request):
        item = parse(payload)
        if item is not None:
            found.append(item)
    return found


def parse(payload: memoryview) -> NeighbourTable | None:
    """None: it tells of one link's parameters, or of a table of another kind."""
    found = codec.attrs(payload[_NDTMSG_BYTES:])
    family = _FAMILIES.get(codec.text(found.get(_NAME, memoryview(b""))))
    if family is None or _CONFIG not in found or _THRESH3 not in found:
        return None
    stats = found.get(_STATS, memoryview(b""))
    return NeighbourTable(
        family=family,
        entries=_CONFIG_HEAD.unpack_from(found[_CONFIG])[2],
        limit=struct.unpack_from("=I", found[_THRESH3])[0],
        overflows=_FULLS.unpack_from(stats)[0] if len(stats) >= _FULLS.size else 0,
    )
