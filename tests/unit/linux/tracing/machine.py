"""A machine for the tracing programs: the few instructions that they use, a made-up kernel memory, and the helpers.

Memory that is not there reads as zero, as it does for programs on tracepoints (PROBE_MEM).
"""

from __future__ import annotations

import struct

from sealane.linux.bpf.insn import Helper
from sealane.linux.tracing.programs import ANY, FOLLOWED, LOST, RING, Layout

MASK = (1 << 64) - 1
STACK, CONTEXT, SKB, DEVICE, NET, SOCKET, SOCKET_NET, HEAD, VALUE, FLAG = (n << 16 for n in range(1, 11))
MAPS = {FOLLOWED.name: 3, LOST.name: 4, RING: 5, ANY.name: 6}
LAYOUT = Layout(
    device=16, head=192, data=200, network_header=180, length=112, protocol=176, ifindex=224, name=304, net=280,
    inode=128, socket=24, socket_net=48,
)  # fmt: skip
STEPS_MAX = 4096


class Machine:
    def __init__(self, code):
        self.code = list(struct.iter_unpack("=BBhi", code))
        self.memory = {}
        self.followed, self.records, self.lost, self.is_full = set(), [], 0, False
        self.time = self.lookups = 0

    def poke(self, address, value, size=8):
        for at, byte in enumerate(value.to_bytes(size, "little") if isinstance(value, int) else value):
            self.memory[address + at] = byte

    def peek(self, address, size):
        return bytes(self.memory.get(address + at, 0) for at in range(size))

    def skb(
        self, packet, *, protocol, netns=77, ifindex=5, link=b"eth0", network_header=14, device=True, socket=0
    ):
        """One skb at SKB, its packet from the network header on."""
        self.memory.clear()
        self.poke(SKB + LAYOUT.head, HEAD)
        self.poke(SKB + LAYOUT.data, HEAD + network_header)
        self.poke(SKB + LAYOUT.network_header, network_header, 2)
        self.poke(SKB + LAYOUT.length, len(packet), 4)
        self.poke(SKB + LAYOUT.protocol, protocol.to_bytes(2, "big"))
        self.poke(HEAD + network_header, packet)
        if device:
            self.poke(SKB + LAYOUT.device, DEVICE)
            self.poke(DEVICE + LAYOUT.ifindex, ifindex, 4)
            self.poke(DEVICE + LAYOUT.name, link)
            self.poke(DEVICE + LAYOUT.net, NET)
            self.poke(NET + LAYOUT.inode, netns, 4)
        if socket:
            self.poke(SKB + LAYOUT.socket, SOCKET)
            self.poke(SOCKET + LAYOUT.socket_net, SOCKET_NET)
            self.poke(SOCKET_NET + LAYOUT.inode, socket, 4)

    def follow(self, skb):
        """As though it had been seen before."""
        self.followed.add(skb.to_bytes(8, "little"))

    def run(self, *arguments):
        """The tracepoint is passed with the skb and further arguments; what it returns."""
        if self.followed:
            self.poke(FLAG, 1)
        for number, value in enumerate((SKB, *arguments)):
            self.poke(CONTEXT + 8 * number, value)
        self.registers = [0] * 11
        self.registers[1], self.registers[10] = CONTEXT, STACK + 512
        position = 0
        for _ in range(STEPS_MAX):
            step = self._step(position)
            if step is None:
                return self.registers[0]
            position = step
        raise AssertionError("it does not end")

    def _step(self, position):
        opcode, pair, offset, immediate = self.code[position]
        to, source = pair & 15, pair >> 4
        r = self.registers
        size = {0x00: 4, 0x08: 2, 0x10: 1, 0x18: 8}[opcode & 0x18]
        kind = opcode & 7
        if opcode == 0x18:
            r[to] = immediate & 0xFFFFFFFF | (self.code[position + 1][3] & 0xFFFFFFFF) << 32
            return position + 2
        if kind == 1:
            r[to] = int.from_bytes(self.peek(r[source] + offset & MASK, size), "little")
        elif kind in (2, 3):
            value = r[source] if kind == 3 else immediate
            self._in_stack(r[to] + offset, size)
            self.poke(r[to] + offset, (value & MASK & (1 << 8 * size) - 1), size)
        elif kind == 7:
            value = r[source] if opcode & 8 else immediate
            r[to] = {0xB0: value, 0x00: r[to] + value}[opcode & 0xF0] & MASK
        elif opcode == 0x95:
            return None
        elif opcode == 0x85:
            r[0] = self._call(immediate) & MASK
            r[1:6] = [0xDEAD] * 5
        else:
            mask = MASK if kind == 5 else 0xFFFFFFFF
            value = r[source] if opcode & 8 else immediate
            is_equal = r[to] & mask == value & mask
            taken = {0x00: True, 0x10: is_equal, 0x50: not is_equal}[opcode & 0xF0]
            return position + 1 + (offset if taken else 0)
        return position + 1

    def _in_stack(self, address, size):
        inside = STACK <= address and address + size <= STACK + 512
        assert inside or address in {VALUE, FLAG}, "programs write to their stack, and to a map's value"
        if inside:
            assert address % size == 0, "the verifier takes aligned stores only"

    def _call(self, helper):
        one, two, three = self.registers[1:4]
        key = self.peek(two, 8)
        match helper:
            case Helper.KTIME_GET_NS:
                self.time += 1
                return self.time
            case Helper.PROBE_READ_KERNEL:
                self._in_stack(one, 1)
                self.poke(one, self.peek(three, two))
                return 0
            case Helper.RINGBUF_OUTPUT:
                assert one == MAPS[RING]
                if self.is_full:
                    return -11
                self.records.append(self.peek(two, three))
                return 0
            case Helper.MAP_LOOKUP_ELEM if one == MAPS[LOST.name]:
                self.poke(VALUE, self.lost)
                return VALUE
            case Helper.MAP_LOOKUP_ELEM if one == MAPS[ANY.name]:
                return FLAG
            case Helper.MAP_LOOKUP_ELEM:
                self.lookups += 1
                return VALUE if key in self.followed else 0
            case Helper.MAP_UPDATE_ELEM:
                self.followed.add(key)
                return 0
            case Helper.MAP_DELETE_ELEM:
                self.followed.discard(key)
                return 0
        raise AssertionError(helper)
