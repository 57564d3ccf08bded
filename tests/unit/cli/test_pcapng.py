"""The pcapng encoder, read back by a reader that knows the format's rules alone. (tests/kernel/test_capture.py has
tcpdump read it.)"""

import struct

from hypothesis import given
from hypothesis import strategies as st

from sealane.cli import pcapng


def blocks(data: bytes) -> list[tuple[int, bytes]]:
    """(type, body) of each block; both of its lengths must agree and be a multiple of four."""
    found = []
    while data:
        kind, length = struct.unpack_from("=II", data)
        assert length % 4 == 0
        assert struct.unpack_from("=I", data, length - 4) == (length,)
        found.append((kind, data[8 : length - 4]))
        data = data[length:]
    return found


def options(data: bytes) -> dict[int, bytes]:
    found = {}
    while data:
        code, length = struct.unpack_from("=HH", data)
        if code == 0:
            assert data == bytes(4), "nothing comes after the end of options"
            return found
        found[code] = data[4 : 4 + length]
        data = data[4 + length + -length % 4 :]
    raise AssertionError("no end of options")


@given(st.text(max_size=40))
def test_a_section_names_its_byte_order_and_its_maker(application):
    ((kind, body),) = blocks(pcapng.section(application))
    assert kind == 0x0A0D0D0A
    assert struct.unpack_from("=IHHq", body) == (0x1A2B3C4D, 1, 0, -1)
    assert options(body[16:])[4].decode() == application


@given(st.text(max_size=40), st.text(max_size=40), st.integers(1, 1 << 18))
def test_an_interface_has_its_name_and_counts_nanoseconds(name, description, snaplen):
    ((kind, body),) = blocks(pcapng.interface(name, description, snaplen))
    assert kind == 1
    assert struct.unpack_from("=HHI", body) == (pcapng.LINKTYPE_ETHERNET, 0, snaplen)
    assert options(body[8:]) == {2: name.encode(), 3: description.encode(), 9: b"\x09"}


@given(
    st.integers(0, 63),
    st.integers(0, (1 << 64) - 1),
    st.binary(max_size=200),
    st.integers(0, 1000),
    st.sampled_from([pcapng.INBOUND, pcapng.OUTBOUND]),
)
def test_a_packet_is_kept_with_its_length_time_and_direction(number, time_ns, data, cut, direction):
    block = pcapng.packet(number, time_ns, data, len(data) + cut, direction)
    ((kind, body),) = blocks(block)
    assert kind == 6
    interface, high, low, kept, length = struct.unpack_from("=IIIII", body)
    assert (interface, (high << 32) + low, length) == (number, time_ns, len(data) + cut)
    assert body[20 : 20 + kept] == data
    assert options(body[20 + kept + -kept % 4 :]) == {2: struct.pack("=I", direction)}


@given(st.integers(0, 63), st.integers(0, (1 << 64) - 1), st.integers(0, 1 << 40), st.integers(0, 1 << 40))
def test_statistics_tell_what_was_lost(number, time_ns, received, dropped):
    ((kind, body),) = blocks(pcapng.statistics(number, time_ns, received, dropped))
    assert kind == 5
    interface, high, low = struct.unpack_from("=III", body)
    assert (interface, (high << 32) + low) == (number, time_ns)
    assert options(body[12:]) == {4: struct.pack("=Q", received), 5: struct.pack("=Q", dropped)}
