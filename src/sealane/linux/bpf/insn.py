"""A tiny eBPF assembler: instructions with labels in, the bytes that ``BPF_PROG_LOAD`` takes out.

Only what sealane's programs use is here: 64-bit moves and arithmetic, loads and stores, compares with a forward or
backward jump, helper calls and references to maps. Encoding: the kernel's ``Documentation/bpf/standardization/
instruction-set.rst``; an instruction is ``opcode:8 dst:4 src:4 offset:16 imm:32`` in the machine's byte order.

A map is written by name and resolved by `Assembler.assemble`, so that one program can be hashed with stable map ids and
loaded with file descriptors.
"""

from __future__ import annotations

import struct
import sys
from enum import IntEnum
from typing import TYPE_CHECKING, Final, Literal

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

_CLASS_LD: Final = 0x00
_CLASS_LDX: Final = 0x01
_CLASS_ST: Final = 0x02
_CLASS_STX: Final = 0x03
_CLASS_ALU: Final = 0x04
_CLASS_JMP: Final = 0x05
_CLASS_JMP32: Final = 0x06
_CLASS_ALU64: Final = 0x07

_MODE_IMM: Final = 0x00
_MODE_MEM: Final = 0x60
_SOURCE_REGISTER: Final = 0x08
_PSEUDO_MAP_FD: Final = 1

_OP_ADD: Final = 0x00
_OP_OR: Final = 0x40
_OP_AND: Final = 0x50
_OP_MOV: Final = 0xB0
_OP_END: Final = 0xD0
_TO_BIG_ENDIAN: Final = 0x08

_JUMP_ALWAYS: Final = 0x00
_JUMP_CALL: Final = 0x80
_JUMP_EXIT: Final = 0x90

Compare = Literal["==", "!=", ">", ">=", "<="]
"""Of numbers without a sign."""
_COMPARE_OPS: Final[dict[Compare, int]] = {"==": 0x10, "!=": 0x50, ">": 0x20, ">=": 0x30, "<=": 0xB0}

_WORD_MAX: Final = 0xFFFF_FFFF
_LONG_MAX: Final = 0xFFFF_FFFF_FFFF_FFFF


class Reg(IntEnum):
    """The registers: R0 result, R1..R5 arguments (lost at a call), R6..R9 kept, R10 the frame's upper end."""

    R0 = 0
    R1 = 1
    R2 = 2
    R3 = 3
    R4 = 4
    R5 = 5
    R6 = 6
    R7 = 7
    R8 = 8
    R9 = 9
    R10 = 10


class Size(IntEnum):
    """The width of a memory access."""

    WORD = 0x00
    HALF = 0x08
    BYTE = 0x10
    LONG = 0x18


class Helper(IntEnum):
    """The kernel functions that sealane's programs call, by ``enum bpf_func_id`` of ``linux/bpf.h``."""

    MAP_LOOKUP_ELEM = 1
    MAP_UPDATE_ELEM = 2
    MAP_DELETE_ELEM = 3
    KTIME_GET_NS = 5
    SKB_STORE_BYTES = 9
    GET_SOCKET_COOKIE = 46
    SK_LOOKUP_TCP = 84
    SK_LOOKUP_UDP = 85
    SK_RELEASE = 86
    PROBE_READ_KERNEL = 113
    GET_NETNS_COOKIE = 122
    RINGBUF_OUTPUT = 130
    REDIRECT_PEER = 155
    KTIME_GET_COARSE_NS = 160


class AssemblyError(ValueError):
    """The program cannot be encoded: an unknown label or map, or a number that does not fit its field."""


class _Insn(msgspec.Struct, frozen=True):
    opcode: int
    dst: int = 0
    src: int = 0
    offset: int = 0
    imm: int = 0
    target: str = ""
    """The label that a jump goes to, or the empty string."""
    map_name: str = ""
    """The map whose number stands in `imm`, or the empty string."""


def pack_insn(opcode: int, dst: int, src: int, offset: int, imm: int) -> bytes:
    """Encode one instruction; `imm` may be given signed or as its unsigned 32-bit pattern."""
    if not -0x8000 <= offset <= 0x7FFF:
        raise AssemblyError(f"offset {offset} does not fit 16 bits")
    if not -0x8000_0000 <= imm <= _WORD_MAX:
        raise AssemblyError(f"immediate {imm} does not fit 32 bits")
    # The register fields are C bit fields, which a big-endian compiler lays out from the other end.
    registers = dst | src << 4 if sys.byteorder == "little" else dst << 4 | src
    return struct.pack("=BBhI", opcode, registers, offset, imm & _WORD_MAX)


class Assembler:
    """A program under construction; every method appends one instruction (`load_u64` and `load_map` two slots)."""

    def __init__(self) -> None:
        self._insns: list[_Insn] = []
        self._labels: dict[str, int] = {}

    def label(self, name: str) -> None:
        if name in self._labels:
            raise AssemblyError(f"label {name!r} is defined twice")
        self._labels[name] = len(self._insns)

    def move(self, dst: Reg, value: Reg | int) -> None:
        self._alu64(_OP_MOV, dst, value)

    def add(self, dst: Reg, value: Reg | int) -> None:
        self._alu64(_OP_ADD, dst, value)

    def bit_or(self, dst: Reg, value: Reg | int) -> None:
        self._alu64(_OP_OR, dst, value)

    def bit_and(self, dst: Reg, value: Reg | int) -> None:
        self._alu64(_OP_AND, dst, value)

    def big_endian16(self, dst: Reg) -> None:
        """Convert the low 16 bits between host and network order and clear the rest."""
        self._emit(_CLASS_ALU | _OP_END | _TO_BIG_ENDIAN, dst=dst, imm=16)

    def load(self, size: Size, dst: Reg, base: Reg, offset: int) -> None:
        self._emit(_CLASS_LDX | _MODE_MEM | size, dst=dst, src=base, offset=offset)

    def store(self, size: Size, base: Reg, offset: int, value: Reg) -> None:
        self._emit(_CLASS_STX | _MODE_MEM | size, dst=base, src=value, offset=offset)

    def store_imm(self, size: Size, base: Reg, offset: int, value: int) -> None:
        """Store a constant. Into the stack or a map value only: before 6.4 the verifier refuses it for a context."""
        self._emit(_CLASS_ST | _MODE_MEM | size, dst=base, offset=offset, imm=value)

    def load_u64(self, dst: Reg, value: int) -> None:
        if not 0 <= value <= _LONG_MAX:
            raise AssemblyError(f"constant {value} does not fit 64 bits")
        self._emit(_CLASS_LD | _MODE_IMM | Size.LONG, dst=dst, imm=value & _WORD_MAX)
        self._emit(0, imm=value >> 32)

    def load_map(self, dst: Reg, name: str) -> None:
        self._insns.append(
            _Insn(_CLASS_LD | _MODE_IMM | Size.LONG, dst=dst, src=_PSEUDO_MAP_FD, map_name=name)
        )
        self._emit(0)

    def jump(self, target: str) -> None:
        self._insns.append(_Insn(_CLASS_JMP | _JUMP_ALWAYS, target=target))

    def jump_if(self, left: Reg, compare: Compare, right: Reg | int, target: str) -> None:
        """Compare all 64 bits; a constant is sign-extended."""
        self._compare(_CLASS_JMP, left, compare, right, target)

    def jump_if_word(self, left: Reg, compare: Compare, right: Reg | int, target: str) -> None:
        """Compare the low 32 bits, so that a word with its top bit set equals its own bit pattern."""
        self._compare(_CLASS_JMP32, left, compare, right, target)

    def call(self, helper: Helper) -> None:
        self._emit(_CLASS_JMP | _JUMP_CALL, imm=helper)

    def exit(self) -> None:
        self._emit(_CLASS_JMP | _JUMP_EXIT)

    def assemble(self, maps: Mapping[str, int]) -> bytes:
        """Encode the program with each map name replaced by its number in `maps`."""
        return b"".join(self._encode(index, insn, maps) for index, insn in enumerate(self._insns))

    def _encode(self, index: int, insn: _Insn, maps: Mapping[str, int]) -> bytes:
        offset, imm = insn.offset, insn.imm
        if insn.target:
            if insn.target not in self._labels:
                raise AssemblyError(f"label {insn.target!r} is not defined")
            # Relative to the next instruction.
            offset = self._labels[insn.target] - index - 1
        if insn.map_name:
            if insn.map_name not in maps:
                raise AssemblyError(f"map {insn.map_name!r} is not given")
            imm = maps[insn.map_name]
        return pack_insn(insn.opcode, insn.dst, insn.src, offset, imm)

    def _emit(self, opcode: int, *, dst: int = 0, src: int = 0, offset: int = 0, imm: int = 0) -> None:
        self._insns.append(_Insn(opcode, dst, src, offset, imm))

    def _alu64(self, operation: int, dst: Reg, value: Reg | int) -> None:
        if isinstance(value, Reg):
            self._emit(_CLASS_ALU64 | operation | _SOURCE_REGISTER, dst=dst, src=value)
        else:
            self._emit(_CLASS_ALU64 | operation, dst=dst, imm=value)

    def _compare(self, jump_class: int, left: Reg, compare: Compare, right: Reg | int, target: str) -> None:
        opcode = jump_class | _COMPARE_OPS[compare]
        if isinstance(right, Reg):
            self._insns.append(_Insn(opcode | _SOURCE_REGISTER, dst=left, src=right, target=target))
        else:
            self._insns.append(_Insn(opcode, dst=left, imm=right, target=target))
