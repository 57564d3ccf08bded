"""The fast path's elements as bytes, and its pins' names. What stands in the kernel is tested there."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealane.kernel.objects import FastTarget
from sealane.linux.bpf import fast_path
from sealane.linux.bpf.fast_path import decode, encode
from sealane.linux.bpf.fast_path_program import (
    DRIVERS,
    FAMILIES,
    GATES,
    PASS,
    TARGET_KEY_BYTES,
    TARGET_VALUE_BYTES,
    TARGETS,
    build,
    gate,
)

MAPS = {spec.name: number for number, spec in enumerate((GATES, *TARGETS.values()), 3)}
LINK = 4711
OPCODE_EXIT, OPCODE_MOVE = 0x95, 0xB7

macs = st.binary(min_size=6, max_size=6).filter(any).map(lambda mac: mac.hex(":"))
targets = st.builds(
    FastTarget,
    address=st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).map(str),
    network=st.integers(0, 0xFFFF_FFFF),
    link=st.just("sle0"),
    mac=macs,
    host_mac=st.one_of(st.just(""), macs),
    mtu=st.integers(0, 0xFFFF),
    delivers=st.booleans(),
)


@given(targets)
def test_what_is_encoded_is_read_back(target):
    key, value = encode(target, LINK)
    family = 6 if ":" in target.address else 4
    assert (len(key), len(value)) == (TARGET_KEY_BYTES[family], TARGET_VALUE_BYTES)
    assert decode(key, value, {LINK: "sle0"}) == target


def test_a_link_that_is_gone_has_no_name():
    target = FastTarget(address="10.1.0.2", network=7, link="sle0", mac="02:00:00:00:00:01", mtu=1500)
    assert decode(*encode(target, LINK), {LINK + 1: "sle0"}).link == ""


def test_every_gate_is_another():
    numbers = {gate(driver, family) for driver in DRIVERS for family in FAMILIES}
    assert numbers == set(range(GATES.max_entries))


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_program_never_drops(driver):
    """Rule 1: of its exits the last passes, and the others follow a redirection."""
    text = list(struct.iter_unpack("=BBhi", build(driver).assemble(MAPS)))
    exits = [index for index, insn in enumerate(text) if insn[0] == OPCODE_EXIT]
    assert text[exits[-1] - 1] == (OPCODE_MOVE, 0, 0, PASS)
    redirections = [text[index - 1] for index in exits[:-1]]
    assert redirections == [(0x85, 0, 0, 155)] * len(FAMILIES)


@pytest.mark.parametrize("driver", DRIVERS)
def test_every_jump_goes_forward(driver):
    text = struct.iter_unpack("=BBhi", build(driver).assemble(MAPS))
    assert all(insn[2] >= 0 for insn in text if insn[0] & 7 in {5, 6})


def test_pins_are_known_by_their_whole_names():
    for name in ("fast-gates-0123456789ab", "fast-targets6-0123456789ab", "fast-routed-0123456789ab"):
        assert fast_path._PIN_NAME.fullmatch(name)
    for name in (
        "fast-gates-0123",
        "fast-targets5-0123456789ab",
        "targets-0123456789ab",
        "fast-x-0123456789ab",
    ):
        assert not fast_path._PIN_NAME.fullmatch(name)


def test_the_name_of_a_map_follows_its_layout():
    names = {fast_path._map_name(spec) for spec in (GATES, *TARGETS.values())}
    assert len(names) == 3
    assert all(fast_path._PIN_NAME.fullmatch(name) for name in names)
