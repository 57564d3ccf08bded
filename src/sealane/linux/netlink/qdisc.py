"""RTM_*QDISC: a token bucket at the root of a link (linux/pkt_sched.h, net/sched/sch_tbf.c).

A rate above 2³² bytes per second goes in an attribute of its own. The bucket's size goes out in bytes (TCA_TBF_BURST)
and comes back as the time that it takes at that rate, in ticks of 64 ns: `burst_of` turns it into bytes again.
"""

import struct

import msgspec

from sealane.kernel.objects import Qdisc
from sealane.linux.netlink import codec

RTM_NEWQDISC = 36
RTM_DELQDISC = 37
RTM_GETQDISC = 38

HANDLE = 0x5EA1_0000
"""`5ea1:`, our mark: a qdisc of another handle is somebody else's."""

_TC_H_ROOT = 0xFFFF_FFFF
_TCA_KIND = 1
_TCA_OPTIONS = 2
_TCA_TBF_PARMS = 1
_TCA_TBF_RATE64 = 4
_TCA_TBF_BURST = 6
_TC_LINKLAYER_ETHERNET = 1
"""With it the kernel counts bytes as they are, and needs no table of ours (psched_ratecfg_precompute)."""
_TICK_NS = 64
_RATE32_MAX = 0xFFFF_FFFF

_TCMSG = struct.Struct("=BxxxiIII")
_RATESPEC = struct.Struct("=BBHhHI")
"""cell_log, linklayer, overhead, cell_align, mpu, rate in bytes per second."""
_TAIL = struct.Struct("=III")
"""limit in bytes, buffer in ticks, mtu (of the peak rate, which is not used)."""
_U64 = struct.Struct("=Q")

_ACKED = codec.NLM_F_REQUEST | codec.NLM_F_ACK


class RawQdisc(msgspec.Struct, frozen=True):
    index: int
    handle: int
    kind: str
    rate: int
    limit: int
    buffer_ticks: int


def put(item: Qdisc, index: int) -> bytes:
    """Create, or change the one that is there; another qdisc at the root is replaced."""
    narrow = min(item.rate, _RATE32_MAX)
    rate = _RATESPEC.pack(0, _TC_LINKLAYER_ETHERNET, 0, 0, 0, narrow)
    options = codec.attr(_TCA_TBF_PARMS, rate + bytes(_RATESPEC.size) + _TAIL.pack(item.limit, 0, 0))
    options += codec.u32(_TCA_TBF_BURST, item.burst)
    if item.rate > _RATE32_MAX:
        options += codec.attr(_TCA_TBF_RATE64, _U64.pack(item.rate))
    flags = _ACKED | codec.NLM_F_CREATE | codec.NLM_F_REPLACE
    head = _TCMSG.pack(0, index, HANDLE, _TC_H_ROOT, 0)
    return codec.message(
        RTM_NEWQDISC, flags, 0, head + codec.string(_TCA_KIND, "tbf") + codec.attr(_TCA_OPTIONS, options)
    )


def delete(index: int) -> bytes:
    """Only one of our handle: the kernel compares it."""
    return codec.message(RTM_DELQDISC, _ACKED, 0, _TCMSG.pack(0, index, HANDLE, _TC_H_ROOT, 0))


def dump() -> bytes:
    return codec.message(RTM_GETQDISC, codec.NLM_F_REQUEST | codec.NLM_F_DUMP, 0, _TCMSG.pack(0, 0, 0, 0, 0))


def parse_head(payload: memoryview) -> tuple[int, int]:
    """(index, handle) alone: most qdiscs of a host are of no interest."""
    _, index, handle, _, _ = _TCMSG.unpack_from(payload)
    return index, handle


def parse(payload: memoryview) -> RawQdisc:
    _, index, handle, _, _ = _TCMSG.unpack_from(payload)
    found = codec.attrs(payload[_TCMSG.size :])
    kind = codec.text(found.get(_TCA_KIND, _EMPTY))
    options = codec.attrs(found.get(_TCA_OPTIONS, _EMPTY)) if kind == "tbf" else {}
    parms = options.get(_TCA_TBF_PARMS)
    if parms is None:
        return RawQdisc(index, handle, kind, 0, 0, 0)
    rate = _RATESPEC.unpack_from(parms)[5]
    if _TCA_TBF_RATE64 in options:
        rate = _U64.unpack_from(options[_TCA_TBF_RATE64])[0]
    limit, buffer, _ = _TAIL.unpack_from(parms, 2 * _RATESPEC.size)
    return RawQdisc(index, handle, kind, rate, limit, buffer)


def burst_of(found: RawQdisc, desired: int) -> int:
    """The bucket in bytes: the wanted size if that is what the kernel made these ticks of, which rounds twice."""
    at_least = found.buffer_ticks * _TICK_NS * found.rate // 10**9
    slack = _TICK_NS * found.rate // 10**9 + at_least // 1000 + 2
    return desired if abs(at_least - desired) <= slack else at_least


_EMPTY = memoryview(b"")
