"""The reader's half of a ring buffer, on memory that the test writes in the kernel's place."""

from __future__ import annotations

import mmap
import os
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealane.linux.bpf import ring as module
from sealane.linux.bpf.ring import Ring

PAGE = mmap.PAGESIZE
SIZE = PAGE
BUSY, DISCARDED = 1 << 31, 1 << 30


class Memory:
    """What the kernel maps twice in a row, and here is written twice."""

    def __init__(self):
        self.mine, self.theirs = mmap.mmap(-1, PAGE), mmap.mmap(-1, PAGE + 2 * SIZE)
        self.written = 0

    def write(self, data, flags=0):
        record = struct.pack("=II", len(data) | flags, 0) + data
        record += bytes(-len(record) % 8)
        for at, byte in enumerate(record):
            place = PAGE + (self.written + at) % SIZE
            self.theirs[place] = self.theirs[place + SIZE] = byte
        self.written += len(record)
        struct.pack_into("=Q", self.theirs, 0, self.written)
        return self.written - len(record)

    @property
    def read_to(self):
        return struct.unpack_from("=Q", self.mine)[0]


@pytest.fixture
def memory(monkeypatch):
    memory = Memory()
    monkeypatch.setattr(module, "map_create", lambda spec: os.eventfd(0))
    maps = iter([memory.mine, memory.theirs])
    monkeypatch.setattr(module.mmap, "mmap", lambda *_, **__: next(maps))
    return memory


@pytest.fixture
def ring(memory):
    with Ring("test", SIZE) as ring:
        yield ring


def test_records_come_in_order_and_the_writer_is_told(ring, memory):
    memory.write(b"one")
    memory.write(b"second")
    assert list(ring.read()) == [b"one", b"second"]
    assert memory.read_to == memory.written
    assert list(ring.read()) == []


def test_a_record_under_way_holds_up_those_behind_it(ring, memory):
    memory.write(b"one")
    at = memory.write(b"slow", BUSY)
    memory.write(b"three")
    assert list(ring.read()) == [b"one"]
    struct.pack_into("=I", memory.theirs, PAGE + at, 4)
    assert list(ring.read()) == [b"slow", b"three"]


def test_what_was_given_up_is_left_out(ring, memory):
    memory.write(b"gone", DISCARDED)
    memory.write(b"here")
    assert list(ring.read()) == [b"here"]
    assert memory.read_to == memory.written


def test_a_record_is_given_back_once_it_is_taken(ring, memory):
    memory.write(b"one")
    memory.write(b"two")
    records = ring.read()
    assert next(records) == b"one"
    assert memory.read_to == 0
    assert next(records) == b"two"
    assert memory.read_to == 16


def test_what_came_while_it_was_read_is_for_the_next_time(ring, memory):
    memory.write(b"one")
    records = ring.read()
    next(records)
    memory.write(b"two")
    assert list(records) == []
    assert list(ring.read()) == [b"two"]


def test_the_position_is_never_seen_half_written(ring, memory):
    """struct.pack_into zeroes what it writes to first, and a kernel that reads 0 refuses records."""
    assert ring._read_to.format == "Q"
    assert ring._read_to.obj is memory.mine


@given(st.lists(st.binary(max_size=500), max_size=60), st.integers(1, 7))
def test_nothing_is_lost_torn_or_repeated_around_the_end(records, burst):
    memory = Memory()
    maps = iter([memory.mine, memory.theirs])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "map_create", lambda spec: os.eventfd(0))
        patch.setattr(module.mmap, "mmap", lambda *_, **__: next(maps))
        with Ring("test", SIZE) as ring:
            seen = []
            for start in range(0, len(records), burst):
                for data in records[start : start + burst]:
                    memory.write(data)
                seen += ring.read()
            assert seen == records
            assert memory.read_to == memory.written


def test_waiting_ends(ring):
    assert ring.wait(0.01) is False
    os.eventfd_write(ring.fd, 1)
    assert ring.wait(1) is True


def test_nothing_stays_open_when_it_cannot_be_mapped(monkeypatch):
    made = []

    def create(spec):
        made.append(os.eventfd(0))
        return made[0]

    def refuse(*_, **__):
        raise PermissionError(1, "no")

    monkeypatch.setattr(module, "map_create", create)
    monkeypatch.setattr(module.mmap, "mmap", refuse)
    with pytest.raises(PermissionError):
        Ring("test", SIZE)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(made[0])
