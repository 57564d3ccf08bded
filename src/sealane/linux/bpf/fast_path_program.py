"""The program at the entrance of a workload's link: what the guards would let through to a neighbour anyway goes straight
there, past bridge, routing code and nftables.

::

    sandbox A ── veth ──► [program] ── bpf_redirect_peer ──► veth ── sandbox B
                             │ anything that is not plain
                             ▼
                          bridge or routing code, with nftables

Rule 1: the program never drops. It delivers, or it lets the packet go on as if the program were not there, to the
guards that drop, count and explain.

Rule 2: it delivers what the guards accept and nothing else (`tests/kernel/test_fast_path.py` holds it against them,
`test_fast_path_program.py` against these words). That is: TCP or UDP, whole, without IP options, VLAN tag or extension headers; from the link's own MAC and address;
to an address of the same network, under the MAC that leads there; no larger than what is there takes. What a server of
DHCP would send is not plain, nor is ARP, neighbour discovery or anything else.

Rule 3: packets within a network are untracked (ADR 0009) and not translated, so nothing waits for them in the tables
that they pass by.

On a routed network the packet becomes what a router makes of it: another MAC at both ends, a hop less to live.

What it knows stands in maps: `gates`, one switch a kind of network and family, which is open for as long as somebody says
so again and again, and `targets4` and `targets6`, from an address
to what is there. (Prefixes of one host's networks do not overlap, so an address is in one network.)

Offsets: ``struct __sk_buff`` of ``linux/bpf.h``, and RFC 791, 8200, 768 behind an Ethernet header of 14 bytes.
"""

from __future__ import annotations

import struct
import sys
from typing import Final

from sealane.kernel.objects import FAST_DRIVERS, FastDriver
from sealane.linux.bpf.insn import Assembler, Helper, Reg, Size
from sealane.linux.bpf.syscall import MAP_NO_PREALLOC, MapSpec, MapType
from sealane.model.net import FAMILIES, Family

DRIVERS: Final = FAST_DRIVERS
"""In the order of their gates."""

MAX_TARGETS: Final = 65_536
"""Addresses of a family; memory is taken for what is there only."""

TARGET_KEY_BYTES: Final[dict[Family, int]] = {4: 4, 6: 16}
TARGET_VALUE_BYTES: Final = 24
"""ifindex 4, network 4, MAC 6, flags 2, MAC of the host's end 6, MTU 2."""
DELIVERS: Final = 1
"""Of a target's flags: packets may be delivered to it. Without it the entry only proves a sender."""

GATE_VALUE: Final = struct.Struct("=I4xQ")
"""State, and until when it is believed, in nanoseconds of CLOCK_MONOTONIC."""
GATES: Final = MapSpec("sl_gates", MapType.ARRAY, 4, GATE_VALUE.size, len(DRIVERS) * len(FAMILIES))
TARGETS: Final[dict[Family, MapSpec]] = {
    family: MapSpec(
        f"sl_targets{family}",
        MapType.HASH,
        TARGET_KEY_BYTES[family],
        TARGET_VALUE_BYTES,
        MAX_TARGETS,
        MAP_NO_PREALLOC,
    )
    for family in FAMILIES
}
GATE_OPEN: Final = 1
"""The only state of a gate under which packets pass; more bits are for who holds it closed."""

PASS: Final = -1
"""``TC_ACT_UNSPEC``: on to the next filter, and to the guards."""
REDIRECT: Final = 7
"""``TC_ACT_REDIRECT``."""

# struct __sk_buff
_LENGTH: Final = 0
_VLAN_PRESENT: Final = 20
_IFINDEX: Final = 40
_DATA: Final = 76
_DATA_END: Final = 80
_GSO_SIZE: Final = 176
# The frame
_ETHERNET: Final = 14
_ETHER_TYPE: Final = 12
_SOURCE_MAC: Final = 6
_TCP, _UDP = 6, 17
_TCP_HEADER: Final = 20
_UDP_HEADER: Final = 8
# A gate's value
_GATE_UNTIL: Final = 8
# A target's value
_VALUE_NETWORK: Final = 4
_VALUE_MAC: Final = 8
_VALUE_FLAGS: Final = 14
_VALUE_HOST_MAC: Final = 16
_VALUE_MTU: Final = 22

_CONTEXT: Final = Reg.R6
_FRAME: Final = Reg.R7
_TARGET: Final = Reg.R8
"""What is known of the destination; before that, the frame's end."""
_SENDER: Final = Reg.R9
_GATE: Final = _SENDER
"""Before anything is known of the sender."""

# The stack, downwards from R10.
_KEY: Final = -16
_HEAD: Final = -48
"""A header as it leaves, on a routed network."""


class _Layout:
    """Where a family's header has what."""

    def __init__(
        self, family: Family, ether_type: int, protocol: int, hops: int, source: int, length: int, dhcp: int
    ) -> None:
        self.family: Family = family
        self.ether_type = _as_loaded(ether_type)
        self.protocol = _ETHERNET + protocol
        self.hops = _ETHERNET + hops
        self.source = _ETHERNET + source
        self.words = 1 if family == 4 else 4
        self.destination = self.source + 4 * self.words
        self.transport = _ETHERNET + length
        self.header = length
        self.dhcp_server = _as_loaded(dhcp)


def _as_loaded(number: int) -> int:
    """A 16-bit field of the network, as a load of two bytes reads it on this machine."""
    return int.from_bytes(number.to_bytes(2, "big"), sys.byteorder)


_LAYOUTS: Final[dict[Family, _Layout]] = {
    4: _Layout(4, 0x0800, protocol=9, hops=8, source=12, length=20, dhcp=67),
    6: _Layout(6, 0x86DD, protocol=6, hops=7, source=8, length=40, dhcp=547),
}


def build(driver: FastDriver) -> Assembler:
    """The program for links of networks of one driver."""
    asm = Assembler()
    asm.move(_CONTEXT, Reg.R1)
    # A tag is out of the frame by now, and what is left looks plain.
    asm.load(Size.WORD, Reg.R1, _CONTEXT, _VLAN_PRESENT)
    asm.jump_if(Reg.R1, "!=", 0, "pass")
    asm.load(Size.WORD, _FRAME, _CONTEXT, _DATA)
    asm.load(Size.WORD, _TARGET, _CONTEXT, _DATA_END)
    _pass_if_shorter(asm, _LAYOUTS[4].transport + _UDP_HEADER)
    asm.load(Size.HALF, Reg.R1, _FRAME, _ETHER_TYPE)
    asm.jump_if(Reg.R1, "==", _LAYOUTS[6].ether_type, "ip6")
    asm.jump_if(Reg.R1, "!=", _LAYOUTS[4].ether_type, "pass")
    _deliver(asm, driver, _LAYOUTS[4])
    asm.label("ip6")
    _pass_if_shorter(asm, _LAYOUTS[6].transport + _UDP_HEADER)
    _deliver(asm, driver, _LAYOUTS[6])
    asm.label("pass")
    asm.move(Reg.R0, PASS)
    asm.exit()
    return asm


def _pass_if_shorter(asm: Assembler, length: int) -> None:
    """Also if so much of the packet is not in one piece: then it is not read here."""
    asm.move(Reg.R1, _FRAME)
    asm.add(Reg.R1, length)
    asm.jump_if(Reg.R1, ">", _TARGET, "pass")


def _deliver(asm: Assembler, driver: FastDriver, at: _Layout) -> None:
    _pass_unless_plain(asm, at)
    _pass_unless_open(asm, driver, at.family)
    _pass_unless_own_source(asm, at)
    _pass_unless_known(asm, at)
    _pass_if_too_large(asm, at)
    if driver == "bridge":
        _pass_unless_mac(asm, 0, _TARGET, _VALUE_MAC)
    else:
        _pass_unless_mac(asm, 0, _SENDER, _VALUE_HOST_MAC)
        _forward(asm, at)
    asm.load(Size.WORD, Reg.R1, _TARGET, 0)
    asm.move(Reg.R2, 0)
    asm.call(Helper.REDIRECT_PEER)
    asm.exit()


def _pass_unless_plain(asm: Assembler, at: _Layout) -> None:
    """TCP, or UDP that is not from a server of DHCP, right behind a header without options; no fragment."""
    asm.load(Size.BYTE, Reg.R1, _FRAME, _ETHERNET)
    if at.family == 4:
        asm.jump_if(Reg.R1, "!=", 0x45, "pass")
        # More fragments, or not the first: of these the ports are elsewhere.
        asm.load(Size.HALF, Reg.R1, _FRAME, _ETHERNET + 6)
        asm.bit_and(Reg.R1, _as_loaded(0x3FFF))
        asm.jump_if(Reg.R1, "!=", 0, "pass")
    else:
        asm.bit_and(Reg.R1, 0xF0)
        asm.jump_if(Reg.R1, "!=", 0x60, "pass")
    asm.load(Size.BYTE, Reg.R1, _FRAME, at.protocol)
    asm.jump_if(Reg.R1, "==", _TCP, f"plain{at.family}")
    asm.jump_if(Reg.R1, "!=", _UDP, "pass")
    asm.load(Size.HALF, Reg.R1, _FRAME, at.transport)
    asm.jump_if(Reg.R1, "==", at.dhcp_server, "pass")
    asm.label(f"plain{at.family}")


def gate(driver: FastDriver, family: Family) -> int:
    """The number of a switch in the map `gates`."""
    return DRIVERS.index(driver) * len(FAMILIES) + FAMILIES.index(family)


def _pass_unless_open(asm: Assembler, driver: FastDriver, family: Family) -> None:
    asm.store_imm(Size.WORD, Reg.R10, _KEY, gate(driver, family))
    _find(asm, GATES.name)
    asm.move(_GATE, Reg.R0)
    asm.load(Size.WORD, Reg.R1, _GATE, 0)
    asm.jump_if(Reg.R1, "!=", GATE_OPEN, "pass")
    asm.call(Helper.KTIME_GET_COARSE_NS)
    asm.load(Size.LONG, Reg.R1, _GATE, _GATE_UNTIL)
    asm.jump_if(Reg.R0, ">", Reg.R1, "pass")


def _pass_unless_own_source(asm: Assembler, at: _Layout) -> None:
    """What is known to be at the sender's address is this link, under this MAC."""
    _look_up(asm, at, at.source)
    asm.move(_SENDER, Reg.R0)
    asm.load(Size.WORD, Reg.R1, _SENDER, 0)
    asm.load(Size.WORD, Reg.R2, _CONTEXT, _IFINDEX)
    asm.jump_if(Reg.R1, "!=", Reg.R2, "pass")
    _pass_unless_mac(asm, _SOURCE_MAC, _SENDER, _VALUE_MAC)


def _pass_unless_known(asm: Assembler, at: _Layout) -> None:
    """The destination is another link of the network, and packets may be delivered there."""
    _look_up(asm, at, at.destination)
    asm.move(_TARGET, Reg.R0)
    asm.load(Size.WORD, Reg.R1, _TARGET, _VALUE_NETWORK)
    asm.load(Size.WORD, Reg.R2, _SENDER, _VALUE_NETWORK)
    asm.jump_if(Reg.R1, "!=", Reg.R2, "pass")
    asm.load(Size.HALF, Reg.R1, _TARGET, _VALUE_FLAGS)
    asm.jump_if(Reg.R1, "!=", DELIVERS, "pass")
    asm.jump_if(_TARGET, "==", _SENDER, "pass")


def _pass_if_too_large(asm: Assembler, at: _Layout) -> None:
    """Of what will be cut into segments, each; their headers are at least so long."""
    asm.load(Size.WORD, Reg.R1, _CONTEXT, _GSO_SIZE)
    asm.jump_if(Reg.R1, "==", 0, f"whole{at.family}")
    asm.add(Reg.R1, at.header + _TCP_HEADER)
    asm.jump(f"sized{at.family}")
    asm.label(f"whole{at.family}")
    asm.load(Size.WORD, Reg.R1, _CONTEXT, _LENGTH)
    asm.add(Reg.R1, -_ETHERNET)
    asm.label(f"sized{at.family}")
    asm.load(Size.HALF, Reg.R2, _TARGET, _VALUE_MTU)
    asm.jump_if(Reg.R1, ">", Reg.R2, "pass")


def _pass_unless_mac(asm: Assembler, offset: int, base: Reg, base_offset: int) -> None:
    """The six bytes of the frame at `offset` are those at `base`."""
    for size, step in ((Size.WORD, 0), (Size.HALF, 4)):
        asm.load(size, Reg.R1, _FRAME, offset + step)
        asm.load(size, Reg.R2, base, base_offset + step)
        asm.jump_if(Reg.R1, "!=", Reg.R2, "pass")


def _forward(asm: Assembler, at: _Layout) -> None:
    """What `ip_forward` and the neighbour do: the header up to the hops left, and IPv4's checksum after them, is put
    together on the stack and stored by one call, which unshares no more of the packet than that."""
    asm.load(Size.BYTE, Reg.R1, _FRAME, at.hops)
    asm.jump_if(Reg.R1, "<=", 1, "pass")
    asm.add(Reg.R1, -1)
    asm.store(Size.BYTE, Reg.R10, _HEAD + at.hops, Reg.R1)
    # On the stack words stand at multiples of four: the second MAC begins with a half.
    macs = (
        (Size.WORD, 0, _VALUE_MAC),
        (Size.HALF, 4, _VALUE_MAC + 4),
        (Size.HALF, _SOURCE_MAC, _VALUE_HOST_MAC),
        (Size.WORD, _SOURCE_MAC + 2, _VALUE_HOST_MAC + 2),
    )
    for size, to, of in macs:
        asm.load(size, Reg.R1, _TARGET, of)
        asm.store(size, Reg.R10, _HEAD + to, Reg.R1)
    for size, offset in ((Size.WORD, 12), (Size.WORD, 16), (Size.BYTE, 20)):
        asm.load(size, Reg.R1, _FRAME, offset)
        asm.store(size, Reg.R10, _HEAD + offset, Reg.R1)
    length = at.hops + 1
    if at.family == 4:
        asm.load(Size.BYTE, Reg.R1, _FRAME, 21)
        asm.store(Size.BYTE, Reg.R10, _HEAD + 21, Reg.R1)
        asm.load(Size.BYTE, Reg.R1, _FRAME, at.protocol)
        asm.store(Size.BYTE, Reg.R10, _HEAD + at.protocol, Reg.R1)
        _less_a_hop(asm, at.protocol + 1)
        length = at.protocol + 3
    asm.move(Reg.R1, _CONTEXT)
    asm.move(Reg.R2, 0)
    asm.move(Reg.R3, Reg.R10)
    asm.add(Reg.R3, _HEAD)
    asm.move(Reg.R4, length)
    asm.move(Reg.R5, 0)
    asm.call(Helper.SKB_STORE_BYTES)
    asm.jump_if(Reg.R0, "!=", 0, "pass")


def _less_a_hop(asm: Assembler, checksum: int) -> None:
    """`ip_decrease_ttl` (include/net/ip.h): the sum's complement grows by what the sum has lost."""
    asm.load(Size.HALF, Reg.R1, _FRAME, checksum)
    asm.add(Reg.R1, _as_loaded(0x0100))
    asm.move(Reg.R2, Reg.R1)
    asm.jump_if(Reg.R1, "<=", 0xFFFE, "summed")
    asm.add(Reg.R2, 1)
    asm.label("summed")
    asm.store(Size.HALF, Reg.R10, _HEAD + checksum, Reg.R2)


def _look_up(asm: Assembler, at: _Layout, offset: int) -> None:
    """What is known of the address at `offset` of the frame, in R0; pass if there is nothing."""
    for step in range(0, 4 * at.words, 4):
        asm.load(Size.WORD, Reg.R1, _FRAME, offset + step)
        asm.store(Size.WORD, Reg.R10, _KEY + step, Reg.R1)
    _find(asm, TARGETS[at.family].name)


def _find(asm: Assembler, name: str) -> None:
    asm.load_map(Reg.R1, name)
    asm.move(Reg.R2, Reg.R10)
    asm.add(Reg.R2, _KEY)
    asm.call(Helper.MAP_LOOKUP_ELEM)
    asm.jump_if(Reg.R0, "==", 0, "pass")
