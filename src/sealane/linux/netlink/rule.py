"""RTM_*RULE: which routing table a packet is looked up in, by its source (linux/fib_rules.h)."""

import socket
import struct

from sealane.kernel.objects import RTPROT_SEALANE, RoutingRule
from sealane.linux.netlink import codec
from sealane.linux.netlink.inet import AF_INET, AF_INET6

RTM_NEWRULE = 32
RTM_DELRULE = 33
RTM_GETRULE = 34

_FRA_SRC = 2
_FRA_PRIORITY = 6
_FRA_TABLE = 15
_FRA_PROTOCOL = 21
_FR_ACT_TO_TBL = 1
_TABLE_UNSPEC = 0
"""Tables above 255 are in FRA_TABLE alone."""

_HEADER = struct.Struct("=BBBBBBBBI")
_U32 = struct.Struct("=I")
_ACKED = codec.NLM_F_REQUEST | codec.NLM_F_ACK


def create(item: RoutingRule) -> bytes:
    return _rule(RTM_NEWRULE, _ACKED | codec.NLM_F_CREATE | codec.NLM_F_EXCL, item)


def delete(item: RoutingRule) -> bytes:
    """Only a rule of our protocol is deleted: the kernel compares it."""
    return _rule(RTM_DELRULE, _ACKED, item)


def dump(family: int) -> bytes:
    header = _HEADER.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)
    return codec.message(RTM_GETRULE, codec.NLM_F_REQUEST | codec.NLM_F_DUMP, 0, header)


def parse(payload: memoryview) -> RoutingRule | None:
    """None for a rule that is not ours: of another protocol, or of a shape that we do not make."""
    family, _, length, *_ = _HEADER.unpack_from(payload)
    found = codec.attrs(payload[_HEADER.size :])
    source, table, priority = found.get(_FRA_SRC), found.get(_FRA_TABLE), found.get(_FRA_PRIORITY)
    if bytes(found.get(_FRA_PROTOCOL, b"")) != bytes([RTPROT_SEALANE]) or None in (source, table, priority):
        return None
    assert source is not None
    assert table is not None
    assert priority is not None
    if len(source) * 8 != length:
        return None
    return RoutingRule(
        source=socket.inet_ntop(socket.AF_INET6 if family == AF_INET6 else socket.AF_INET, source),
        table=_U32.unpack(table)[0],
        priority=_U32.unpack(priority)[0],
    )


def _rule(kind: int, flags: int, item: RoutingRule) -> bytes:
    family = AF_INET6 if ":" in item.source else AF_INET
    source = socket.inet_pton(socket.AF_INET6 if family == AF_INET6 else socket.AF_INET, item.source)
    header = _HEADER.pack(family, 0, 8 * len(source), 0, _TABLE_UNSPEC, 0, 0, _FR_ACT_TO_TBL, 0)
    attributes = (
        codec.attr(_FRA_SRC, source)
        + codec.u32(_FRA_PRIORITY, item.priority)
        + codec.u32(_FRA_TABLE, item.table)
        + codec.u8(_FRA_PROTOCOL, RTPROT_SEALANE)
    )
    return codec.message(kind, flags, 0, header + attributes)
