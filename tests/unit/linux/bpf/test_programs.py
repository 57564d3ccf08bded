"""The programs' text: what must be true of all of them. What they do is tested in the kernel (tests/kernel)."""

from __future__ import annotations

import struct

import pytest

from sealane.linux.bpf.insn import Helper
from sealane.linux.bpf.programs import HOOKS, PEERS, TARGETS, build

MAPS = {TARGETS.name: 3, PEERS.name: 4}
COOKIE = 0x1122334455667788

OPCODE_EXIT = 0x95
OPCODE_CALL = 0x85
OPCODE_LOAD_64 = 0x18
every_hook = pytest.mark.parametrize("hook", HOOKS, ids=lambda hook: hook.name)


def instructions(hook, cookie=COOKIE, maps=MAPS):
    return list(struct.iter_unpack("=BBhi", build(hook, cookie).assemble(maps)))


@every_hook
def test_the_namespace_is_compared_before_anything_is_read(hook):
    """Rule 1: copy of the context, helper, cookie in two slots, compare."""
    text = instructions(hook)
    assert (text[1][0], text[1][3]) == (OPCODE_CALL, Helper.GET_NETNS_COOKIE)
    assert text[2][0] == OPCODE_LOAD_64
    assert (text[2][3] & 0xFFFF_FFFF) | text[3][3] << 32 == COOKIE
    jump = text[4]
    assert jump[0] == 0x5D
    assert text[4 + 1 + jump[2] :] == [(0xB7, 0, 0, 1), (OPCODE_EXIT, 0, 0, 0)], "it goes straight to the end"


@every_hook
def test_a_program_never_denies(hook):
    """Rule 5: one exit, and it returns 1."""
    text = instructions(hook)
    assert [index for index, insn in enumerate(text) if insn[0] == OPCODE_EXIT] == [len(text) - 1]
    assert text[-2] == (0xB7, 0, 0, 1)


@every_hook
def test_every_jump_goes_forward(hook):
    """Kernels before 5.3 take no loops, and these programs need none."""
    assert all(insn[2] >= 0 for insn in instructions(hook) if insn[0] & 7 in {5, 6})


@every_hook
def test_the_text_depends_on_namespace_and_maps_and_nothing_else(hook):
    text = instructions(hook)
    assert text == instructions(hook)
    assert text != instructions(hook, cookie=1)
    assert text != instructions(hook, maps=MAPS | {PEERS.name: 9})
    assert (text == instructions(hook, maps=MAPS | {TARGETS.name: 9})) == hook.reverse


def test_hooks_have_one_program_each():
    assert len({hook.name for hook in HOOKS}) == len({hook.attach_type for hook in HOOKS}) == len(HOOKS)


def test_answers_are_served_before_questions_are_taken():
    """The order of attaching; detaching is its reverse."""
    reverse = [hook.reverse for hook in HOOKS]
    assert reverse == sorted(reverse, reverse=True)
