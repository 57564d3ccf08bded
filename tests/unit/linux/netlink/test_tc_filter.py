"""Filters at a link's entrance: the messages, against what `tc` (strace -x) sends for the same words."""

import struct
import sys

import pytest

from sealane.linux.netlink import codec, tc_filter
from sealane.linux.netlink.tc_filter import INGRESS, NAME_PREFIX, PARENT, PREFERENCE, RawFilter, parse

TCMSG = struct.Struct("=BxxxiIII")
HEADER = struct.Struct("=IHHII")
ETH_P_ALL = int.from_bytes(b"\x00\x03", sys.byteorder)
"""In the network's order, as the kernel keeps it."""


def parts(message: bytes) -> tuple[int, int, tuple[int, ...], dict[int, memoryview]]:
    length, kind, flags, _, _ = HEADER.unpack_from(message)
    assert length == len(message)
    return kind, flags, TCMSG.unpack_from(message, 16), codec.attrs(memoryview(message)[36:])


def test_a_filter_is_put_by_link_preference_and_handle() -> None:
    """tc filter replace dev X ingress pref 24225 handle 1 bpf da …"""
    kind, flags, head, found = parts(tc_filter.put(7, 5, "bridge"))
    assert (kind, flags) == (44, 0x505)
    assert head == (0, 7, 1, PARENT, PREFERENCE << 16 | ETH_P_ALL)
    options = codec.attrs(found[2])
    assert codec.text(found[1]) == "bpf"
    assert (bytes(options[6]), codec.text(options[7]), bytes(options[8])) == (
        struct.pack("=I", 5),
        "sealane-bridge",
        struct.pack("=I", 1),
    )


def test_it_is_deleted_by_the_same_and_nothing_else_goes() -> None:
    kind, flags, head, found = parts(tc_filter.delete(7))
    assert (kind, flags) == (45, 5)
    assert head == (0, 7, 1, PARENT, PREFERENCE << 16 | ETH_P_ALL)
    assert set(found) == {1}


def test_where_it_hangs_is_made_if_it_is_not_there() -> None:
    """tc qdisc add dev X ingress, without NLM_F_EXCL."""
    kind, flags, head, found = parts(tc_filter.put_ingress(7))
    assert (kind, flags) == (36, 0x405)
    assert head == (0, 7, INGRESS, 0xFFFF_FFF1, 0)
    assert codec.text(found[1]) == "ingress"


def answer(
    *,
    preference: int = PREFERENCE,
    handle: int = 1,
    name: str = f"{NAME_PREFIX}routed",
    program: int | None = 41,
) -> memoryview:
    options = codec.string(7, name) if name else b""
    if program is not None:
        options += codec.u32(11, program)
    head = TCMSG.pack(0, 9, handle, PARENT, preference << 16 | ETH_P_ALL)
    return memoryview(head + codec.string(1, "bpf") + codec.nested(2, options))


def test_ours_is_read_back() -> None:
    assert parse(answer()) == RawFilter("routed", 41)
    assert tc_filter.parse_index(answer()) == 9


@pytest.mark.parametrize(
    "changes", [{"preference": 1}, {"handle": 0}, {"name": "others"}, {"name": ""}, {"program": None}]
)
def test_others_and_heads_are_not_ours(changes: dict) -> None:
    """The kernel tells of each preference once without a handle, before its filters."""
    assert parse(answer(**changes)) is None


def test_another_kind_is_not_ours() -> None:
    head = TCMSG.pack(0, 9, 1, PARENT, PREFERENCE << 16 | ETH_P_ALL)
    assert parse(memoryview(head + codec.string(1, "u32"))) is None
