"""The five programs that follow packets, as pure functions from patterns and the kernel's own types to instructions.

::

    tracepoint            skb known, or does it fit a pattern?        map `followed`: skb → 1; `any`: is there one?
    netif_receive_skb ┐        │ yes                                  ring buffer: a record
    net_dev_queue     ├────────┤
    net_dev_start_xmit│        │ no
    kfree_skb         │        ▼
    consume_skb       ┘       end

A packet that fits a pattern anywhere is followed from there on by its skb's address, so translation does not hide it.
Once it is freed it is forgotten, but for paths that pass no tracepoint (napi recycling, deferred frees): such an address
may come back under another packet, which the reader tells by what it is (`explain.seen`).

Programs on tracepoints with BTF arguments read the kernel's structures by plain loads, and a bad pointer reads as zero
(``PROBE_MEM``, kernel/bpf/verifier.c); packet bytes take a helper. Patterns are compared with constants in the code.
"""

from __future__ import annotations

import ipaddress
import struct
import sys
from typing import TYPE_CHECKING, Final

import msgspec

from sealane.explain.traced.event import HEADER_BYTES, Pattern, Point
from sealane.linux.bpf.insn import Assembler, Helper, Reg, Size
from sealane.linux.bpf.syscall import MapSpec, MapType

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sealane.linux.bpf.btf import Btf

POINTS: Final[dict[Point, str]] = {
    # Ends first: no packet is followed before it can be forgotten.
    "consume": "consume_skb",
    "drop": "kfree_skb",
    "receive": "netif_receive_skb",
    "transmit": "net_dev_start_xmit",
    "queue": "net_dev_queue",
}
CODES: Final[dict[Point, int]] = {point: code for code, point in enumerate(POINTS, 1)}

FOLLOWED: Final = MapSpec("sl_followed", MapType.LRU_HASH, 8, 8, 4096)
LOST: Final = MapSpec("sl_lost", MapType.ARRAY, 4, 8, 1)
"""How many records found no room."""

ANY: Final = MapSpec("sl_any", MapType.ARRAY, 4, 8, 1)
"""Not 0 once a packet was followed. Until then nobody else's is looked up, which is most of what a trace costs them."""

RING: Final = "sl_seen"

RECORD: Final = struct.Struct(f"=QQQIIIII16s{HEADER_BYTES}s")
"""time, skb, location, code, reason, netns, ifindex, length, link, packet"""

_NAME_BYTES: Final = 16
_ETHERTYPE: Final = {4: 0x0800, 6: 0x86DD}
_ARGUMENT_BYTES: Final = 8

# Offsets of a record's fields.
_TIME, _SKB, _LOCATION, _CODE, _REASON, _NETNS, _IFINDEX, _LENGTH, _LINK, _PACKET = (
    0, 8, 16, 24, 28, 32, 36, 40, 44, 60,
)  # fmt: skip
# The frame, downwards from R10: the record at its lower end.
_RECORD_BYTES: Final = (RECORD.size + 7) & ~7
_KEY: Final = -8
_BASE: Final = _KEY - _RECORD_BYTES

_CONTEXT, _SKB_REG, _DEVICE, _KNOWN = Reg.R9, Reg.R6, Reg.R7, Reg.R8


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """Where this kernel keeps what is looked at; bytes."""

    device: int
    head: int
    data: int
    network_header: int
    length: int
    protocol: int
    ifindex: int
    name: int
    net: int
    inode: int
    socket: int
    socket_net: int


def layout_of(btf: Btf) -> Layout:
    """Raises BtfError."""
    return Layout(
        device=btf.offset("sk_buff", "dev"),
        head=btf.offset("sk_buff", "head"),
        data=btf.offset("sk_buff", "data"),
        network_header=btf.offset("sk_buff", "network_header"),
        length=btf.offset("sk_buff", "len"),
        protocol=btf.offset("sk_buff", "protocol"),
        ifindex=btf.offset("net_device", "ifindex"),
        name=btf.offset("net_device", "name"),
        net=btf.offset("net_device", "nd_net", "net"),
        inode=btf.offset("net", "ns", "inum"),
        socket=btf.offset("sk_buff", "sk"),
        socket_net=btf.offset("sock", "__sk_common", "skc_net", "net"),
    )


def program(point: Point, patterns: Sequence[Pattern], layout: Layout, arguments: int) -> Assembler:
    """`arguments`: how many the tracepoint has in this kernel; a drop's location and reason are later ones."""
    code = Assembler()
    code.move(_CONTEXT, Reg.R1)
    code.load(Size.LONG, _SKB_REG, _CONTEXT, 0)
    _look_up(code)
    _leave_others(code, point, patterns, layout)
    _read_packet(code, point, layout)
    if point != "consume":
        _match(code, point, patterns, layout)
    code.label("known")
    _fill(code, point, layout, arguments)
    _emit(code)
    if point in {"drop", "consume"}:
        _call_with_key(code, Helper.MAP_DELETE_ELEM)
    code.label("end")
    code.move(Reg.R0, 0)
    code.exit()
    return code


def _call_with_key(code: Assembler, helper: Helper) -> None:
    code.load_map(Reg.R1, FOLLOWED.name)
    code.move(Reg.R2, Reg.R10)
    code.add(Reg.R2, _KEY)
    code.call(helper)


def _find_only(code: Assembler, spec: MapSpec) -> None:
    """R0: the one element of an array, which the JIT finds without a call. The record's beginning is lost."""
    code.store_imm(Size.WORD, Reg.R10, _BASE, 0)
    code.load_map(Reg.R1, spec.name)
    code.move(Reg.R2, Reg.R10)
    code.add(Reg.R2, _BASE)
    code.call(Helper.MAP_LOOKUP_ELEM)


def _look_up(code: Assembler) -> None:
    code.move(_KNOWN, 0)
    _find_only(code, ANY)
    code.jump_if(Reg.R0, "==", 0, "unknown")
    code.load(Size.LONG, Reg.R1, Reg.R0, 0)
    code.store(Size.LONG, Reg.R10, _KEY, _SKB_REG)
    code.jump_if(Reg.R1, "==", 0, "unknown")
    _call_with_key(code, Helper.MAP_LOOKUP_ELEM)
    code.jump_if(Reg.R0, "==", 0, "unknown")
    code.move(_KNOWN, 1)
    code.jump("read")
    code.label("unknown")


def _leave_others(code: Assembler, point: Point, patterns: Sequence[Pattern], layout: Layout) -> None:
    """Most packets end here: freed, or of another family."""
    if point == "consume":
        code.jump("end")
    else:
        code.load(Size.HALF, Reg.R1, _SKB_REG, layout.protocol)
        for family in sorted({pattern.family for pattern in patterns}):
            code.jump_if(Reg.R1, "==", _as_loaded(_ETHERTYPE[family], 2), "read")
        code.jump("end")
    code.label("read")


def _read_packet(code: Assembler, point: Point, layout: Layout) -> None:
    """HEADER_BYTES from the network header on. Where a frame comes in, that is where its data begins
    (eth_type_trans); __netif_receive_skb_core notes it after the tracepoint only."""
    code.move(Reg.R1, Reg.R10)
    code.add(Reg.R1, _BASE + _PACKET)
    code.move(Reg.R2, HEADER_BYTES)
    if point == "receive":
        code.load(Size.LONG, Reg.R3, _SKB_REG, layout.data)
    else:
        code.load(Size.LONG, Reg.R3, _SKB_REG, layout.head)
        code.load(Size.HALF, Reg.R4, _SKB_REG, layout.network_header)
        code.add(Reg.R3, Reg.R4)
    code.call(Helper.PROBE_READ_KERNEL)


def _match(code: Assembler, point: Point, patterns: Sequence[Pattern], layout: Layout) -> None:
    code.jump_if(_KNOWN, "==", 1, "known")
    for number, pattern in enumerate(patterns):
        other = f"not {number}"
        _compare(code, pattern, layout.protocol, other)
        if point != "drop":
            # Before there is one, so that who is given the packet next looks for it.
            _find_only(code, ANY)
            code.jump_if(Reg.R0, "==", 0, other)
            code.store_imm(Size.LONG, Reg.R0, 0, 1)
            code.store_imm(Size.LONG, Reg.R10, _BASE, 1)
            code.load_map(Reg.R1, FOLLOWED.name)
            code.move(Reg.R2, Reg.R10)
            code.add(Reg.R2, _KEY)
            code.move(Reg.R3, Reg.R10)
            code.add(Reg.R3, _BASE)
            code.move(Reg.R4, 0)
            code.call(Helper.MAP_UPDATE_ELEM)
        code.jump("known")
        code.label(other)
    code.jump("end")


def _compare(code: Assembler, pattern: Pattern, protocol: int, other: str) -> None:
    """Go on to `other` unless the packet fits. IPv4 options are not looked behind."""
    code.load(Size.HALF, Reg.R1, _SKB_REG, protocol)
    code.jump_if(Reg.R1, "!=", _as_loaded(_ETHERTYPE[pattern.family], 2), other)
    v4 = pattern.family == 4
    fields = [(9 if v4 else 6, bytes([pattern.number]))]
    for address, at in ((pattern.source, 12 if v4 else 8), (pattern.destination, 16 if v4 else 24)):
        if address:
            fields.append((at, ipaddress.ip_address(address).packed))
    transport = 20 if v4 else 40
    if pattern.proto != "icmp":
        ports = (pattern.source_port, 0), (pattern.destination_port, 2)
        fields += [(transport + at, port.to_bytes(2)) for port, at in ports if port]
    for at, value in fields:
        _compare_bytes(code, _BASE + _PACKET + at, value, other)


def _compare_bytes(code: Assembler, at: int, value: bytes, other: str) -> None:
    sizes = {1: Size.BYTE, 2: Size.HALF, 4: Size.WORD}
    step = min(len(value), 4)
    for start in range(0, len(value), step):
        code.load(sizes[step], Reg.R1, Reg.R10, at + start)
        code.jump_if_word(Reg.R1, "!=", int.from_bytes(value[start : start + step], sys.byteorder), other)


def _fill(code: Assembler, point: Point, layout: Layout, arguments: int) -> None:
    code.call(Helper.KTIME_GET_NS)
    code.store(Size.LONG, Reg.R10, _BASE + _TIME, Reg.R0)
    code.store(Size.LONG, Reg.R10, _BASE + _SKB, _SKB_REG)
    code.store_imm(Size.LONG, Reg.R10, _BASE + _LOCATION, 0)
    code.store_imm(Size.WORD, Reg.R10, _BASE + _REASON, 0)
    code.store_imm(Size.WORD, Reg.R10, _BASE + _CODE, CODES[point])
    if point in {"drop", "consume"}:
        # consume_skb has no location before 6.9; a reason kfree_skb has since 5.17.
        for number, size, at in ((1, Size.LONG, _LOCATION), (2, Size.WORD, _REASON)):
            if arguments > number:
                code.load(Size.LONG, Reg.R1, _CONTEXT, number * _ARGUMENT_BYTES)
                code.store(size, Reg.R10, _BASE + at, Reg.R1)
    code.load(Size.LONG, _DEVICE, _SKB_REG, layout.device)
    code.load(Size.WORD, Reg.R1, _SKB_REG, layout.length)
    code.store(Size.WORD, Reg.R10, _BASE + _LENGTH, Reg.R1)
    code.load(Size.WORD, Reg.R1, _DEVICE, layout.ifindex)
    code.store(Size.WORD, Reg.R10, _BASE + _IFINDEX, Reg.R1)
    # Dropped before it was given a device, as in `output`: the namespace is its socket's.
    code.load(Size.LONG, Reg.R1, _DEVICE, layout.net)
    code.jump_if(_DEVICE, "!=", 0, "has net")
    code.load(Size.LONG, Reg.R1, _SKB_REG, layout.socket)
    code.jump_if(Reg.R1, "==", 0, "no net")
    code.load(Size.LONG, Reg.R1, Reg.R1, layout.socket_net)
    code.label("has net")
    code.load(Size.WORD, Reg.R1, Reg.R1, layout.inode)
    code.label("no net")
    code.store(Size.WORD, Reg.R10, _BASE + _NETNS, Reg.R1)
    code.move(Reg.R1, Reg.R10)
    code.add(Reg.R1, _BASE + _LINK)
    code.move(Reg.R2, _NAME_BYTES)
    code.move(Reg.R3, _DEVICE)
    code.add(Reg.R3, layout.name)
    code.call(Helper.PROBE_READ_KERNEL)


def _emit(code: Assembler) -> None:
    code.load_map(Reg.R1, RING)
    code.move(Reg.R2, Reg.R10)
    code.add(Reg.R2, _BASE)
    code.move(Reg.R3, RECORD.size)
    code.move(Reg.R4, 0)
    code.call(Helper.RINGBUF_OUTPUT)
    code.jump_if(Reg.R0, "==", 0, "written")
    _find_only(code, LOST)
    code.jump_if(Reg.R0, "==", 0, "written")
    code.load(Size.LONG, Reg.R1, Reg.R0, 0)
    code.add(Reg.R1, 1)
    code.store(Size.LONG, Reg.R0, 0, Reg.R1)
    code.label("written")


def _as_loaded(value: int, size: int) -> int:
    """A number in network order as a load of the machine's reads it."""
    return int.from_bytes(value.to_bytes(size), sys.byteorder)
