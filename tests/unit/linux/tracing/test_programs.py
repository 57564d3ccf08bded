"""The programs, run on a machine of the test's: what they follow, what they record, and when they forget."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealane.explain.traced.event import HEADER_BYTES, Pattern, parse_headers
from sealane.linux.tracing.programs import CODES, POINTS, RECORD, program
from unit.explain.traced.packets import echo, ipv4, ipv6, tcp, udp
from unit.linux.tracing.machine import FLAG, LAYOUT, MAPS, SKB, STACK, VALUE, Machine

ETHERTYPE = {4: 0x0800, 6: 0x86DD}
PATTERN = Pattern(proto="tcp", family=4, source="10.1.0.2", destination="10.1.0.3", destination_port=80)
SIX = Pattern(proto="tcp", family=6, source="fd00::2", destination="fd00::3", destination_port=80)
FIELDS = "time skb location code reason netns ifindex length link packet".split()

every_point = pytest.mark.parametrize("point", POINTS)


def machine(point, *patterns, arguments=3):
    return Machine(program(point, patterns or (PATTERN,), LAYOUT, arguments).assemble(MAPS))


def record(on):
    (data,) = on.records
    return dict(zip(FIELDS, RECORD.unpack(data), strict=True))


def passes(on, packet, *, family=4, arguments=(0, 0), **fields):
    on.skb(packet, protocol=ETHERTYPE[family], **fields)
    assert on.run(*arguments) == 0
    return bool(on.records)


@pytest.mark.parametrize("point", ["queue", "transmit", "receive"])
def test_a_packet_that_fits_is_recorded_and_followed(point):
    on = machine(point)
    packet = ipv4(tcp())
    assert passes(on, packet)
    found = record(on)
    assert (found["skb"], found["netns"], found["ifindex"], found["length"]) == (SKB, 77, 5, len(packet))
    assert (found["code"], found["location"], found["reason"]) == (CODES[point], 0, 0)
    assert found["link"].rstrip(b"\0") == b"eth0"
    assert found["packet"] == packet.ljust(HEADER_BYTES, b"\0")
    assert on.followed == {SKB.to_bytes(8, "little")}


def test_a_drop_is_recorded_with_its_place_and_reason_and_is_not_followed():
    on = machine("drop")
    assert passes(on, ipv4(tcp()), arguments=(0xFFFF_8000_0000_1234, 67))
    assert (record(on)["location"], record(on)["reason"]) == (0xFFFF_8000_0000_1234, 67)
    assert on.followed == set()


def test_an_older_kernel_has_no_reason():
    on = machine("drop", arguments=2)
    assert passes(on, ipv4(tcp()), arguments=(0x1234, 67))
    assert (record(on)["location"], record(on)["reason"]) == (0x1234, 0)


def test_what_is_taken_is_told_only_if_it_was_followed():
    on = machine("consume")
    assert not passes(on, ipv4(tcp()))
    on.follow(SKB)
    assert passes(on, ipv4(tcp()))


@every_point
def test_what_is_followed_is_recorded_whatever_it_has_become(point):
    """Translated, or of another family in a tunnel."""
    on = machine(point)
    on.follow(SKB)
    assert passes(on, ipv6(udp(), proto="udp"), family=6)


@pytest.mark.parametrize(
    ("point", "stays"), [("drop", False), ("consume", False), ("queue", True), ("receive", True)]
)
def test_with_its_end_a_packet_is_forgotten(point, stays):
    on = machine(point)
    on.follow(SKB)
    passes(on, ipv4(tcp()))
    assert bool(on.followed) is stays


@every_point
def test_until_a_packet_was_followed_nobodys_is_looked_up(point):
    """It is most of what a trace costs those who are not in it."""
    on = machine(point)
    assert not passes(on, ipv4(tcp(1, 99)))
    assert on.lookups == 0
    on.follow(SKB + 1)
    assert not passes(on, ipv4(tcp(1, 99)))
    assert on.lookups == 1


def test_the_next_program_looks_for_a_packet_that_one_has_found():
    on = machine("queue")
    passes(on, ipv4(tcp()))
    assert int.from_bytes(on.peek(FLAG, 8), "little") == 1


@pytest.mark.parametrize("family", [0x0806, 0x8100, 0])
def test_what_is_no_ip_is_left_alone(family):
    on = machine("receive", PATTERN, SIX)
    on.skb(ipv4(tcp()), protocol=family)
    assert on.run() == 0
    assert (on.records, on.followed) == ([], set())


def test_where_a_frame_comes_in_its_data_is_the_packet():
    """The network header's offset is that of whoever had the skb before (__netif_receive_skb_core sets it later)."""
    for point, fits in (("receive", True), ("queue", False)):
        on = machine(point)
        on.skb(ipv4(tcp()), protocol=ETHERTYPE[4])
        on.poke(SKB + LAYOUT.network_header, 99, 2)
        on.run()
        assert bool(on.records) is fits


def test_dropped_before_it_had_a_device_its_sockets_namespace_counts():
    on = machine("drop")
    assert passes(on, ipv4(tcp()), device=False, socket=4711)
    assert (record(on)["netns"], record(on)["ifindex"], record(on)["link"].rstrip(b"\0")) == (4711, 0, b"")


def test_with_neither_there_is_no_namespace():
    on = machine("drop")
    assert passes(on, ipv4(tcp()), device=False)
    assert record(on)["netns"] == 0


def test_a_device_that_is_something_else_reads_as_nothing():
    """UDP keeps dev_scratch in its place."""
    on = machine("drop")
    on.skb(ipv4(tcp()), protocol=ETHERTYPE[4], device=False)
    on.poke(SKB + LAYOUT.device, 0x2C_0000_0300)
    on.run(0, 0)
    assert (record(on)["netns"], record(on)["link"].rstrip(b"\0")) == (0, b"")


def test_what_finds_no_room_is_counted():
    on = machine("receive")
    on.is_full = True
    passes(on, ipv4(tcp()))
    assert int.from_bytes(on.peek(VALUE, 8), "little") == 1


def test_one_of_several_patterns_is_enough():
    on = machine("receive", PATTERN, SIX, Pattern(proto="udp", family=4))
    for packet, family in ((ipv4(tcp()), 4), (ipv6(tcp()), 6), (ipv4(udp(), proto="udp"), 4)):
        on.records.clear()
        on.followed.clear()
        assert passes(on, packet, family=family)
    on.records.clear()
    on.followed.clear()
    assert not passes(on, ipv6(udp(), proto="udp"), family=6)


@every_point
@pytest.mark.parametrize("patterns", [1, 16])
def test_programs_fit_the_kernel(point, patterns):
    """4,096 instructions for the unprivileged, and jumps of 16 bits; one exit, which returns 0."""
    text = program(point, [SIX] * patterns, LAYOUT, 3).assemble(MAPS)
    assert len(text) // 8 < 4096
    assert Machine(text).code[-2:] == [(0xB7, 0, 0, 0), (0x95, 0, 0, 0)]
    assert STACK


small = st.integers(1, 3)
protocols = st.sampled_from(["tcp", "udp", "icmp", "sctp"])


@given(
    st.sampled_from([4, 6]), protocols, small, small, small, small,
    protocols, st.tuples(*[st.booleans()] * 4),
)  # fmt: skip
def test_a_program_and_a_pattern_agree(family, proto, source, destination, one, other, asked, given_fields):
    """Of packets without options the programs take those that `Pattern.fits` takes, and no others."""
    net, make = ("10.1.0.", ipv4) if family == 4 else ("fd00::", ipv6)
    payload = {"tcp": tcp(one, other), "udp": udp(one, other), "sctp": udp(one, other), "icmp": echo(one)}[
        proto
    ]
    packet = make(payload, f"{net}{source}", f"{net}{destination}", proto=proto)
    fields = dict(source=f"{net}1", destination=f"{net}2", source_port=1, destination_port=2)
    asked_for = {
        name: value for (name, value), desired in zip(fields.items(), given_fields, strict=True) if desired
    }
    pattern = Pattern(proto=asked, family=family, **asked_for)
    on = machine("queue", pattern)
    assert passes(on, packet, family=family) is pattern.fits(parse_headers(packet).flow)
