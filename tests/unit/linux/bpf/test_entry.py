"""Publishes as prefixes: exact, few, and read back as they were written."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealane.linux.bpf.entry import (
    KEY_BYTES,
    MAX_ELEMENTS_PER_ENTRY,
    PORT_BITS,
    VALUE_BYTES,
    Element,
    LoopbackEntry,
    blocks,
    decode,
    encode,
    same_target,
    shortfall,
)

V4 = bytes([10, 0, 0, 2])
V6 = bytes.fromhex("fd000000000000000000000000000002")
RESERVED4 = [b"", bytes(4), bytes([127, 0, 0, 1]), bytes([127, 1, 2, 253])]
RESERVED6 = [b"", bytes(16), bytes(15) + b"\1"]
ports = st.integers(1, 65_535)


@st.composite
def ranges(draw):
    return tuple(sorted((draw(ports), draw(ports))))


@st.composite
def entries(draw):
    first, last = draw(ranges())
    family = draw(st.sampled_from([4, 6]))
    address = V4 if family == 4 else draw(st.sampled_from([V4, V6]))
    port = draw(st.integers(1, 65_535 - (last - first)))
    reserved = draw(st.sampled_from(RESERVED4 if family == 4 else RESERVED6))
    return LoopbackEntry(family, draw(st.sampled_from(["tcp", "udp"])), first, last, address, port, reserved)


def fewest(first: int, last: int, start: int = 0, bits: int = 0) -> int:
    """The least number of prefixes for a range, by walking the binary tree: the independent answer."""
    end = start + (1 << (PORT_BITS - bits)) - 1
    if last < start or end < first:
        return 0
    if first <= start and end <= last:
        return 1
    middle = start + (1 << (PORT_BITS - bits - 1))
    return fewest(first, last, start, bits + 1) + fewest(first, last, middle, bits + 1)


@given(ranges())
def test_the_blocks_are_the_range_and_as_few_as_can_be(bounds):
    first, last = bounds
    position = first
    count = 0
    for start, bits in blocks(first, last):
        size = 1 << (PORT_BITS - bits)
        assert start == position, "no gap, no overlap"
        assert start % size == 0, "a block is a prefix"
        position += size
        count += 1
    assert position == last + 1
    assert count == fewest(first, last) <= MAX_ELEMENTS_PER_ENTRY


@pytest.mark.parametrize(
    ("first", "last", "count"),
    [
        (80, 80, 1),
        (80, 81, 1),
        (81, 82, 2),
        (1, 65_535, 16),
        (1, 65_534, 30),
        (32_768, 65_535, 1),
        (0, 65_535, 1),
    ],
)
def test_known_counts(first, last, count):
    assert len(list(blocks(first, last))) == count


def test_a_thousand_ports_take_at_most_fifteen_elements():
    assert max(len(list(blocks(first, first + 999))) for first in range(1, 65_536 - 999)) == 15


@given(entries())
def test_an_entry_reads_back_as_it_was_written(entry):
    elements = encode(entry)
    assert decode(elements) == {entry}
    assert all(len(element.key) == KEY_BYTES and len(element.value) == VALUE_BYTES for element in elements)


@given(entries(), st.data())
def test_of_a_half_written_entry_the_parts_read_back(entry, data):
    """Together they are what is there, and removing each removes it."""
    elements = encode(entry)
    kept = data.draw(st.sets(st.sampled_from(elements), max_size=len(elements) - 1))
    parts = decode(kept)
    assert entry not in parts
    assert {element.key for part in parts for element in encode(part)} == {element.key for element in kept}
    for part in parts:
        (element,) = encode(part)
        assert same_target(element.value, encode(entry)[0].value), "the part leads where the whole leads"


def test_the_bytes_of_one_element():
    (element,) = encode(LoopbackEntry(4, "tcp", 8080, 8080, V4, 80))
    assert element.key == struct.pack("=I", 32) + bytes([4, 6, 0x1F, 0x90])
    backend = bytes(10) + b"\xff\xff" + V4 + struct.pack("=3H", 80 - 8080 + 65_536, 8080, 8080)
    assert element.value == backend + struct.pack("=H4s", 0, bytes(4))
    (element,) = encode(LoopbackEntry(4, "tcp", 8080, 8080, V4, 80, bytes([127, 0, 0, 2])))
    assert element.value == backend + struct.pack("=H4s", 1, bytes([127, 0, 0, 2]))


def test_a_block_of_256_ports_is_a_prefix_of_24_bits():
    (element,) = encode(LoopbackEntry(6, "udp", 0x1000, 0x10FF, V6, 0x1000))
    assert element.key == struct.pack("=I", 24) + bytes([6, 17, 0x10, 0x00])
    assert element.value[:18] == V6 + bytes(2)


def test_neighbours_with_one_target_stay_two_entries():
    two = [LoopbackEntry(4, "tcp", 80, 80, V4, 80), LoopbackEntry(4, "tcp", 81, 81, V4, 81)]
    assert decode([*encode(two[0]), *encode(two[1])]) == set(two)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (
            struct.pack("=I", 32) + bytes([4, 132, 0, 80]),
            bytes(10) + b"\xff\xff" + V4 + struct.pack("=4H4x", 0, 80, 80, 0),
        ),
        (struct.pack("=I", 32) + bytes([4, 6, 0, 80]), bytes(28)),
        (struct.pack("=I", 32) + bytes([9, 6, 0, 80]), V6 + struct.pack("=4H4x", 0, 80, 80, 0)),
        (struct.pack("=I", 32) + bytes([6, 6, 0, 80]), V6 + struct.pack("=4H4x", 0, 90, 99, 0)),
    ],
    ids=["protocol", "address", "family", "range"],
)
def test_elements_that_no_entry_has_are_left_out(key, value):
    assert decode([Element(key, value)]) == set()


def test_sctp_has_no_elements_and_says_so():
    entry = LoopbackEntry(4, "sctp", 80, 80, V4, 80)
    assert encode(entry) == ()
    assert "SCTP" in str(shortfall(entry))


def test_an_ipv4_backend_under_ipv6_says_what_it_lacks():
    assert "datagram" in str(shortfall(LoopbackEntry(6, "udp", 80, 80, V4, 80)))
    assert shortfall(LoopbackEntry(6, "udp", 80, 80, V6, 80)) is None
    assert shortfall(LoopbackEntry(4, "tcp", 80, 80, V4, 80)) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"family": 5}, "family: 5"),
        ({"proto": "icmp"}, "proto: 'icmp'"),
        ({"first": 0}, "first, last: 0-80"),
        ({"last": 79}, "first, last: 80-79"),
        ({"last": 65_536}, "first, last"),
        ({"port": 0}, "port: 1 ports from 0"),
        ({"port": 65_536}, "port: 1 ports from 65536"),
        ({"last": 90, "port": 65_530}, "port: 11 ports from 65530"),
        ({"address": b"123"}, "address: 3 bytes"),
        ({"reserved": bytes(16)}, "reserved: 16 bytes are no IPv4 address"),
        ({"reserved": V4}, "reserved: 0a000002 is neither"),
        ({"family": 6, "reserved": bytes(4)}, "reserved: 4 bytes are no IPv6 address"),
        ({"family": 6, "reserved": V6}, "reserved: fd0{29}2 is neither"),
        ({"address": bytes([127, 0, 0, 1])}, "address: 7f000001 is not a routable"),
        ({"address": bytes(4)}, "not a routable"),
        ({"address": bytes([224, 0, 0, 1])}, "not a routable"),
        ({"address": V6}, "address: an IPv4 socket"),
        ({"family": 6, "address": bytes(15) + b"\1"}, "not a routable"),
        ({"family": 6, "address": bytes(10) + b"\xff\xff" + V4}, "not a routable"),
        ({"family": 6, "address": bytes.fromhex("fe80") + bytes(13) + b"\1"}, "not a routable"),
        ({"family": 6, "address": bytes.fromhex("ff02") + bytes(13) + b"\1"}, "not a routable"),
    ],
)
def test_a_bad_entry_names_the_field(change, message):
    good = {"family": 4, "proto": "tcp", "first": 80, "last": 80, "address": V4, "port": 80}
    with pytest.raises(ValueError, match=message):
        LoopbackEntry(**(good | change))
