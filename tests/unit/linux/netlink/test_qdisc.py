"""A token bucket's messages, byte by byte, and its size there and back."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealane.kernel.objects import Qdisc
from sealane.linux.netlink import codec, qdisc
from sealane.linux.netlink.qdisc import RawQdisc

ITEM = Qdisc(link="sle0", rate=1_000_000, burst=20_000, limit=70_000)


def body(message):
    ((kind, flags, _, payload),) = codec.messages(memoryview(message))
    return kind, flags, payload


def test_put_is_a_replaceable_root_of_our_handle():
    kind, flags, payload = body(qdisc.put(ITEM, 7))
    assert kind == 36
    assert flags & codec.NLM_F_REPLACE
    assert flags & codec.NLM_F_CREATE
    assert struct.unpack_from("=BxxxiIII", payload) == (0, 7, 0x5EA10000, 0xFFFFFFFF, 0)
    found = codec.attrs(payload[20:])
    assert codec.text(found[1]) == "tbf"
    options = codec.attrs(found[2])
    assert struct.unpack_from("=I", options[6])[0] == 20_000
    assert struct.unpack_from("=BBHhHI", options[1]) == (0, 1, 0, 0, 0, 1_000_000)
    assert struct.unpack_from("=III", options[1], 24) == (70_000, 0, 0)
    assert 4 not in options


def test_a_rate_that_32_bits_do_not_hold_goes_beside():
    fast = Qdisc(link="sle0", rate=5 << 32, burst=1, limit=1)
    options = codec.attrs(codec.attrs(body(qdisc.put(fast, 7))[2][20:])[2])
    assert struct.unpack_from("=Q", options[4])[0] == 5 << 32
    assert struct.unpack_from("=BBHhHI", options[1])[5] == 0xFFFFFFFF
    assert qdisc.parse(body(qdisc.put(fast, 7))[2]).rate == 5 << 32


def test_delete_names_our_handle():
    kind, _, payload = body(qdisc.delete(7))
    assert (kind, qdisc.parse_head(payload)) == (37, (7, 0x5EA10000))


def test_another_kind_is_read_without_its_options():
    head = struct.pack("=BxxxiIII", 0, 3, 0x10000, 0xFFFFFFFF, 2)
    payload = memoryview(head + codec.string(1, "htb") + codec.attr(2, b"\1" * 40))
    assert qdisc.parse(payload) == RawQdisc(3, 0x10000, "htb", 0, 0, 0)


@given(st.integers(1000, 10**11), st.integers(1_500, 1 << 32))
def test_a_bucket_is_the_wanted_one_after_the_kernels_rounding(rate, burst):
    ticks = burst * 10**9 // rate // 64
    found = RawQdisc(1, qdisc.HANDLE, "tbf", rate, 0, ticks)
    assert qdisc.burst_of(found, burst) == burst


@pytest.mark.parametrize("desired", [0, 10_000, 30_000])
def test_a_bucket_of_another_size_is_another(desired):
    found = RawQdisc(1, qdisc.HANDLE, "tbf", 1_000_000, 0, 20_000 * 1000 // 64)
    assert qdisc.burst_of(found, desired) == 20_000
