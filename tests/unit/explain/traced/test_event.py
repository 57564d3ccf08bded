"""Headers as tracepoints see them: both families, cut off anywhere, and what is no IP."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealane.explain.packet import Tuple
from sealane.explain.traced.event import HEADER_BYTES, Pattern, parse_headers
from unit.explain.traced.packets import echo, ipv4, ipv6, tcp, udp


def test_ipv4_and_tcp():
    found = parse_headers(ipv4(tcp(40000, 80, 0x01020304), identity=0xBEEF, ttl=63))
    assert found.flow == Tuple("tcp", "10.1.0.2", 40000, "10.1.0.3", 80)
    assert (found.ttl, found.size, found.mark) == (63, 40, (0xBEEF, 0x01020304))


def test_ipv6_and_tcp():
    found = parse_headers(ipv6(tcp(40000, 80, 7), label=0xABCDE, ttl=63))
    assert found.flow == Tuple("tcp", "fd00::2", 40000, "fd00::3", 80)
    assert (found.ttl, found.size, found.mark) == (63, 60, (0xABCDE, 7))


def test_udp_is_told_apart_by_its_length():
    assert parse_headers(ipv4(udp(1, 2, 30), proto="udp")).mark == (5, 30)
    assert parse_headers(ipv6(udp(1, 2, 30), proto="udp")).mark == (5, 30)


def test_sctp_has_ports_and_nothing_else():
    found = parse_headers(ipv4(udp(5, 6), proto="sctp"))
    assert (found.flow.source_port, found.flow.destination_port, found.mark) == (5, 6, (5,))


@pytest.mark.parametrize("packet", [ipv4(echo(9, 3, 8), proto="icmp"), ipv6(echo(9, 3, 8), proto="icmp")])
def test_an_echos_ports_are_its_id(packet):
    found = parse_headers(packet)
    assert (found.flow.proto, found.flow.source_port, found.flow.destination_port) == ("icmp", 9, 9)
    assert found.mark == (5, 8 << 8, 3)


def test_an_answer_has_another_mark_than_its_question():
    assert (
        parse_headers(ipv4(echo(kind=8), proto="icmp")).mark
        != parse_headers(ipv4(echo(kind=0), proto="icmp")).mark
    )


def test_behind_options_there_are_ports():
    assert parse_headers(ipv4(tcp(1, 2), options=bytes(8))).flow.destination_port == 2


def test_a_later_fragment_has_no_ports():
    """What stands where they would be is the payload."""
    found = parse_headers(ipv4(tcp(1, 2, 3), offset=185))
    assert (found.flow.source_port, found.flow.destination_port, found.mark) == (0, 0, (5, 185))


@pytest.mark.parametrize("flags", [0x2000, 0x4000])
def test_a_first_fragment_and_a_whole_packet_have(flags):
    """More fragments; don't fragment."""
    assert parse_headers(ipv4(tcp(1, 2), offset=flags)).flow.destination_port == 2


@pytest.mark.parametrize("whole", [ipv4(tcp()), ipv6(tcp())], ids=["ipv4", "ipv6"])
def test_what_is_cut_off_has_no_header_or_a_shorter_one(whole):
    shortest = 20 if whole[0] >> 4 == 4 else 40
    for length in range(len(whole)):
        found = parse_headers(whole[:length])
        assert (found is None) == (length < shortest), length
        if found is not None:
            assert found.flow.proto == "tcp"


@pytest.mark.parametrize(
    "packet", [b"", bytes(64), ipv4(tcp(), proto=47), ipv6(tcp(), proto=43), b"\x50" + bytes(63)]
)
def test_what_is_no_packet_of_ours(packet):
    assert parse_headers(packet) is None


@given(st.binary(max_size=HEADER_BYTES))
def test_noise_raises_nothing(noise):
    parse_headers(noise)


addresses4 = st.ip_addresses(v=4).map(str)
addresses6 = st.ip_addresses(v=6).map(str)
ports = st.integers(0, 0xFFFF)


@given(addresses4, addresses4, ports, ports, st.integers(1, 255))
def test_neither_routers_nor_translation_change_the_mark(source, destination, one, other, ttl):
    sent = parse_headers(ipv4(tcp(sequence=11), identity=3))
    assert (
        parse_headers(ipv4(tcp(one, other, 11), source, destination, identity=3, ttl=ttl)).mark == sent.mark
    )


@given(addresses6, addresses6, ports, ports)
def test_a_pattern_of_a_packets_own_fits_it(source, destination, one, other):
    flow = parse_headers(ipv6(tcp(one, other), source, destination)).flow
    pattern = Pattern(
        proto="tcp",
        family=6,
        source=flow.source,
        source_port=one,
        destination=flow.destination,
        destination_port=other,
    )
    assert pattern.fits(flow)


FLOW = Tuple("tcp", "10.1.0.2", 40000, "10.1.0.3", 80)


@pytest.mark.parametrize(
    ("fields", "fits"),
    [
        ({}, True),
        ({"source": "10.1.0.2"}, True),
        ({"source": "10.1.0.3"}, False),
        ({"destination": "10.1.0.3", "destination_port": 80}, True),
        ({"destination": "10.1.0.3", "destination_port": 81}, False),
        ({"source_port": 40000}, True),
        ({"source_port": 1}, False),
        ({"proto": "udp"}, False),
    ],
)
def test_empty_and_0_fit_everything(fields, fits):
    assert Pattern(**{"proto": "tcp", "family": 4, **fields}).fits(FLOW) is fits


def test_of_icmp_the_ports_are_not_looked_at():
    flow = Tuple("icmp", "10.1.0.2", 9, "10.1.0.3", 9)
    assert Pattern(proto="icmp", family=4, source_port=1, destination_port=2).fits(flow)


@pytest.mark.parametrize(
    ("proto", "family", "number"),
    [("icmp", 4, 1), ("icmp", 6, 58), ("tcp", 4, 6), ("udp", 6, 17), ("sctp", 4, 132)],
)
def test_numbers_are_ianas(proto, family, number):
    assert Pattern(proto=proto, family=family).number == number


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        (
            {"source": "10.1.0.2", "destination": "10.1.0.3", "destination_port": 80},
            "10.1.0.2 → 10.1.0.3:80 tcp",
        ),
        ({"family": 6, "destination": "fd00::3", "destination_port": 80}, "anybody → [fd00::3]:80 tcp"),
        ({"source": "10.1.0.2", "source_port": 80}, "10.1.0.2:80 → anybody tcp"),
    ],
)
def test_a_pattern_in_words(fields, text):
    assert str(Pattern(**{"proto": "tcp", "family": 4, **fields})) == text
