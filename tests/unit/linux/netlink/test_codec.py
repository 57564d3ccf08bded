"""The wire format: what was packed is read, what is torn ends the walk, what is too long is refused."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealane.linux.netlink import codec

KINDS = st.integers(0, codec.NLA_TYPE_MASK)
PAYLOADS = st.binary(max_size=200)
ATTRS = st.lists(st.tuples(KINDS, PAYLOADS), max_size=20)


def plain(pairs):
    return [(kind, bytes(payload)) for kind, payload in pairs]


@given(ATTRS)
def test_attributes_come_back_in_order(items):
    data = b"".join(codec.attr(kind, payload) for kind, payload in items)
    assert len(data) % 4 == 0
    assert plain(codec.attr_list(memoryview(data))) == items
    assert {k: bytes(v) for k, v in codec.attrs(memoryview(data)).items()} == dict(items)


@given(ATTRS, KINDS)
def test_nested_attributes_come_back(items, outer):
    data = codec.nested(outer, *(codec.attr(kind, payload) for kind, payload in items))
    ((kind, payload),) = codec.attr_list(memoryview(data))
    assert kind == outer
    assert plain(codec.attr_list(payload)) == items


@given(st.binary(max_size=300))
def test_no_bytes_make_attributes_raise(data):
    for _, payload in codec.attr_list(memoryview(data)):
        assert len(payload) <= len(data)


@given(st.binary(max_size=300))
def test_no_bytes_make_messages_raise(data):
    for _, _, _, payload in codec.messages(memoryview(data)):
        assert len(payload) <= len(data)


@given(ATTRS, st.integers(0, 400))
def test_torn_attributes_are_the_whole_ones_before_the_tear(items, cut):
    data = b"".join(codec.attr(kind, payload) for kind, payload in items)
    found = plain(codec.attr_list(memoryview(data[:cut])))
    assert found == items[: len(found)]


@given(
    st.lists(
        st.tuples(st.integers(0, 0xFFFF), st.integers(0, 0xFFFF), st.integers(0, 2**32 - 1), ATTRS),
        max_size=6,
    ),
    st.integers(0, 100),
)
def test_messages_come_back_up_to_a_tear(items, torn):
    packed = [
        codec.message(kind, flags, sequence, b"".join(codec.attr(k, p) for k, p in body))
        for kind, flags, sequence, body in items
    ]
    data = b"".join(packed)
    found = [(k, f, s) for k, f, s, _ in codec.messages(memoryview(data))]
    assert found == [(kind, flags, sequence) for kind, flags, sequence, _ in items]
    shorter = memoryview(data)[: max(0, len(data) - torn)]
    assert len(list(codec.messages(shorter))) <= len(items)


@pytest.mark.parametrize("size", [codec.ATTR_PAYLOAD_MAX + 1, 70_000, 1 << 20])
def test_a_payload_beyond_sixteen_bits_is_refused(size):
    """F7, CVE-2021-43784: the length would wrap, and the payload be read as messages."""
    for pack in (
        codec.attr,
        lambda kind, data: codec.nested(kind, data),
        lambda k, d: codec.string(k, "x" * len(d)),
    ):
        with pytest.raises(ValueError, match=r"at most 65531 fit"):
            pack(1, bytes(size))


def test_the_longest_payload_fits():
    data = codec.attr(1, bytes(codec.ATTR_PAYLOAD_MAX))
    ((kind, payload),) = codec.attr_list(memoryview(data))
    assert (kind, len(payload)) == (1, codec.ATTR_PAYLOAD_MAX)


@pytest.mark.parametrize(
    ("data", "bytes_"),
    [
        (codec.u8(1, 7), struct.pack("=HHB3x", 5, 1, 7)),
        (codec.u32(1, 0x12345678), struct.pack("=HHI", 8, 1, 0x12345678)),
        (codec.be16(1, 0x1234), struct.pack("=HH", 6, 1) + b"\x12\x34\0\0"),
        (codec.be32(1, 0x12345678), struct.pack("=HH", 8, 1) + b"\x12\x34\x56\x78"),
        (codec.be64(1, 1), struct.pack("=HH", 12, 1) + bytes(7) + b"\x01"),
        (codec.flag(9), struct.pack("=HH", 4, 9)),
        (codec.string(3, "lo"), struct.pack("=HH", 7, 3) + b"lo\0\0"),
    ],
)
def test_numbers_and_texts_are_laid_out_as_the_kernel_reads_them(data, bytes_):
    assert data == bytes_


@given(st.binary(max_size=50))
def test_text_never_raises(data):
    assert isinstance(codec.text(memoryview(data)), str)


@given(st.text(max_size=50).filter(lambda s: "\0" not in s))
def test_text_comes_back(value):
    (payload,) = codec.attrs(memoryview(codec.string(1, value))).values()
    assert codec.text(payload) == value
