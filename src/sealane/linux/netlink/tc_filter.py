"""RTM_*TFILTER: an eBPF program at the entrance of a link (linux/pkt_cls.h, net/sched/cls_bpf.c).

A filter hangs on a queueing discipline, at the entrance on `ingress`, which queues nothing. (tcx, which needs none, waits
for an RCU grace period at each attachment: 16 ms measured, against 0.04.) The program is direct-action: what it returns
is the verdict, and TC_ACT_UNSPEC goes on to the next filter.

Filters are tried in the order of their preference. Ours is a high one, so that others' come first.
"""

import socket
import struct

import msgspec

from sealane.linux.netlink import codec

RTM_NEWTFILTER = 44
RTM_DELTFILTER = 45
RTM_GETTFILTER = 46
_RTM_NEWQDISC = 36

PREFERENCE = 0x5EA1
"""24225, our mark: a filter of another preference is somebody else's."""
HANDLE = 1
INGRESS = 0xFFFF_0000
"""The handle that the kernel gives every `ingress` and `clsact`."""
PARENT = 0xFFFF_FFF2
"""Of filters at the entrance, on either."""

NAME_PREFIX = "sealane-"

_TC_H_INGRESS = 0xFFFF_FFF1
_ETH_P_ALL = 0x0003
_INFO = PREFERENCE << 16 | socket.htons(_ETH_P_ALL)
_TCA_KIND = 1
_TCA_OPTIONS = 2
_TCA_BPF_FD = 6
_TCA_BPF_NAME = 7
_TCA_BPF_FLAGS = 8
_TCA_BPF_ID = 11
_DIRECT_ACTION = 1

_TCMSG = struct.Struct("=BxxxiIII")
_U32 = struct.Struct("=I")
_ACKED = codec.NLM_F_REQUEST | codec.NLM_F_ACK
_KIND = codec.string(_TCA_KIND, "bpf")
_EMPTY = memoryview(b"")


class RawFilter(msgspec.Struct, frozen=True):
    name: str
    program: int
    """The kernel's number of the program (``bpf_prog_info.id``)."""


def put_ingress(index: int) -> bytes:
    """Have an `ingress` at the link. One that is there, or a `clsact`, stays as it is (the latter answers EINVAL)."""
    head = _TCMSG.pack(0, index, INGRESS, _TC_H_INGRESS, 0)
    return codec.message(
        _RTM_NEWQDISC, _ACKED | codec.NLM_F_CREATE, 0, head + codec.string(_TCA_KIND, "ingress")
    )


def put(index: int, program_fd: int, name: str) -> bytes:
    """Create our filter, or give it another program at once."""
    options = codec.nested(
        _TCA_OPTIONS,
        codec.u32(_TCA_BPF_FD, program_fd),
        codec.string(_TCA_BPF_NAME, NAME_PREFIX + name),
        codec.u32(_TCA_BPF_FLAGS, _DIRECT_ACTION),
    )
    flags = _ACKED | codec.NLM_F_CREATE | codec.NLM_F_REPLACE
    head = _TCMSG.pack(0, index, HANDLE, PARENT, _INFO)
    return codec.message(RTM_NEWTFILTER, flags, 0, head + _KIND + options)


def delete(index: int) -> bytes:
    """The `ingress` stays: others may have hung theirs on it by now, and an empty one does nothing."""
    return codec.message(RTM_DELTFILTER, _ACKED, 0, _TCMSG.pack(0, index, HANDLE, PARENT, _INFO) + _KIND)


def get(index: int) -> bytes:
    """All filters at a link's entrance."""
    flags = codec.NLM_F_REQUEST | codec.NLM_F_DUMP
    return codec.message(RTM_GETTFILTER, flags, 0, _TCMSG.pack(0, index, 0, PARENT, 0))


def parse(payload: memoryview) -> RawFilter | None:
    """Ours; None for others', and for the head that each preference has in a dump."""
    _, _, handle, _, info = _TCMSG.unpack_from(payload)
    if info >> 16 != PREFERENCE or handle != HANDLE:
        return None
    found = codec.attrs(payload[_TCMSG.size :])
    options = codec.attrs(found.get(_TCA_OPTIONS, _EMPTY))
    name = codec.text(options.get(_TCA_BPF_NAME, _EMPTY))
    if not name.startswith(NAME_PREFIX) or _TCA_BPF_ID not in options:
        return None
    return RawFilter(name.removeprefix(NAME_PREFIX), _U32.unpack_from(options[_TCA_BPF_ID])[0])


def parse_index(payload: memoryview) -> int:
    """The link of an event."""
    index: int = _TCMSG.unpack_from(payload)[1]
    return index
