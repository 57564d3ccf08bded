"""The assembler against encodings that clang and the kernel's own tests give."""

from __future__ import annotations

import sys

import pytest

from sealane.linux.bpf.insn import Assembler, AssemblyError, Helper, Reg, Size, pack_insn

little_endian = pytest.mark.skipif(sys.byteorder != "little", reason="the expected bytes are little-endian")


def assemble(*steps, maps=None) -> str:
    asm = Assembler()
    for name, *arguments in steps:
        getattr(asm, name)(*arguments)
    return asm.assemble(maps or {}).hex(" ", 8)


@little_endian
@pytest.mark.parametrize(
    ("step", "encoding"),
    [
        (("move", Reg.R0, 1), "b700000001000000"),
        (("move", Reg.R6, Reg.R1), "bf16000000000000"),
        (("move", Reg.R0, -1), "b7000000ffffffff"),
        (("add", Reg.R2, -8), "07020000f8ffffff"),
        (("add", Reg.R8, Reg.R1), "0f18000000000000"),
        (("bit_or", Reg.R1, Reg.R2), "4f21000000000000"),
        (("bit_and", Reg.R1, 0xF0), "57010000f0000000"),
        (("bit_and", Reg.R1, Reg.R2), "5f21000000000000"),
        (("big_endian16", Reg.R8), "dc08000010000000"),
        (("load", Size.WORD, Reg.R7, Reg.R6, 4), "6167040000000000"),
        (("load", Size.HALF, Reg.R1, Reg.R9, 16), "6991100000000000"),
        (("load", Size.BYTE, Reg.R1, Reg.R6, 4), "7161040000000000"),
        (("load", Size.LONG, Reg.R3, Reg.R6, 64), "7963400000000000"),
        (("store", Size.LONG, Reg.R10, -40, Reg.R0), "7b0ad8ff00000000"),
        (("store", Size.BYTE, Reg.R10, -3, Reg.R1), "731afdff00000000"),
        (("store_imm", Size.WORD, Reg.R10, -8, 32), "620af8ff20000000"),
        (("store_imm", Size.WORD, Reg.R10, -8, 0xFFFF0000), "620af8ff0000ffff"),
        (("call", Helper.GET_NETNS_COOKIE), "850000007a000000"),
        (("exit",), "9500000000000000"),
    ],
)
def test_one_instruction(step, encoding):
    assert assemble(step) == encoding


@little_endian
def test_a_64_bit_constant_takes_two_slots():
    assert assemble(("load_u64", Reg.R1, 0x1122334455667788)) == "1801000088776655 0000000044332211"


@little_endian
def test_a_map_is_resolved_by_name_and_marked_as_a_descriptor():
    assert assemble(("load_map", Reg.R1, "m"), maps={"m": 7}) == "1811000007000000 0000000000000000"


@little_endian
def test_jumps_count_from_the_next_slot_and_over_wide_instructions():
    code = assemble(
        ("label", "top"),
        ("jump_if", Reg.R0, "!=", Reg.R1, "end"),
        ("jump_if_word", Reg.R1, "==", 0xFFFF0000, "end"),
        ("load_u64", Reg.R1, 0),
        ("jump", "top"),
        ("label", "end"),
        ("exit",),
    )
    assert code.split() == [
        "5d10040000000000",
        "160103000000ffff",
        "1801000000000000",
        "0000000000000000",
        "0500fbff00000000",
        "9500000000000000",
    ]


def test_unknown_and_repeated_names_are_errors():
    with pytest.raises(AssemblyError, match="label 'nowhere' is not defined"):
        assemble(("jump", "nowhere"))
    with pytest.raises(AssemblyError, match="label 'a' is defined twice"):
        assemble(("label", "a"), ("label", "a"))
    with pytest.raises(AssemblyError, match="map 'm' is not given"):
        assemble(("load_map", Reg.R1, "m"))


@pytest.mark.parametrize("value", [-0x8000_0001, 0x1_0000_0000])
def test_an_immediate_that_does_not_fit_is_an_error(value):
    with pytest.raises(AssemblyError, match="32 bits"):
        assemble(("move", Reg.R0, value))


@pytest.mark.parametrize("offset", [-0x8001, 0x8000])
def test_an_offset_that_does_not_fit_is_an_error(offset):
    with pytest.raises(AssemblyError, match="16 bits"):
        pack_insn(0x61, 0, 0, offset, 0)


@pytest.mark.parametrize("value", [-1, 1 << 64])
def test_a_constant_that_does_not_fit_is_an_error(value):
    with pytest.raises(AssemblyError, match="64 bits"):
        assemble(("load_u64", Reg.R1, value))


def test_a_jump_too_far_is_an_error():
    asm = Assembler()
    asm.jump("end")
    for _ in range(0x8000):
        asm.move(Reg.R0, 0)
    asm.label("end")
    with pytest.raises(AssemblyError, match="16 bits"):
        asm.assemble({})
