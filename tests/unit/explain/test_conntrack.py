"""Connection tracking: states, directions and translations, as nf_conntrack and nf_nat do them."""

import pytest

from sealane.explain.conntrack import ORIGINAL, REPLY, Table, apply_nat, set_nat, tuple_of
from sealane.explain.packet import DNAT, SNAT, Flow, Packet

OUT = Packet(source="10.1.0.2", source_port=40000, destination="192.0.2.200", destination_port=80)
BACK = Packet(source="192.0.2.200", source_port=80, destination="10.1.0.2", destination_port=40000)


def known(table: Table, packet: Packet) -> Flow:
    tracked = table.track("host", packet)
    assert tracked is not None
    table.confirm(tracked)
    return tracked.flow


def test_the_first_packet_is_new_and_so_is_its_repetition() -> None:
    table = Table()
    first = table.track("host", OUT)
    assert first is not None
    assert (first.state, first.direction, first.confirmed) == ("new", ORIGINAL, False)
    table.confirm(first)
    again = table.track("host", OUT)
    assert again is not None
    assert (again.state, again.confirmed) == ("new", True)


def test_an_answer_establishes_the_flow_for_both_directions() -> None:
    table = Table()
    known(table, OUT)
    answer = table.track("host", BACK)
    assert answer is not None
    assert (answer.state, answer.direction) == ("established", REPLY)
    more = table.track("host", OUT)
    assert more is not None
    assert (more.state, more.direction) == ("established", ORIGINAL)


def test_a_flow_that_was_dropped_leaves_nothing() -> None:
    table = Table()
    table.track("host", OUT)
    answer = table.track("host", BACK)
    assert table.flows() == ()
    assert answer is not None
    assert answer.state == "new"


def test_namespaces_know_nothing_of_each_other() -> None:
    table = Table()
    known(table, OUT)
    elsewhere = table.track("sandbox", BACK)
    assert elsewhere is not None
    assert elsewhere.state == "new"


def test_flows_outlive_the_table() -> None:
    """What a trace returns is what the walk of the answer starts from."""
    table = Table()
    known(table, OUT)
    table.track("host", BACK)
    again = Table(table.flows()).track("host", OUT)
    assert again is not None
    assert again.state == "established"


def test_a_published_port_is_translated_there_and_back() -> None:
    table = Table()
    asked = Packet(source="192.0.2.200", source_port=40000, destination="192.0.2.7", destination_port=8080)
    tracked = table.track("host", asked)
    assert tracked is not None
    set_nat(tracked, DNAT, "10.1.0.2", 80)
    inside = apply_nat(tracked, DNAT, asked)
    assert (inside.destination, inside.destination_port, inside.source) == ("10.1.0.2", 80, "192.0.2.200")
    table.confirm(tracked)
    answer = Packet(source="10.1.0.2", source_port=80, destination="192.0.2.200", destination_port=40000)
    back = table.track("host", answer)
    assert back is not None
    assert back.direction == REPLY
    outside = apply_nat(back, SNAT, apply_nat(back, DNAT, answer))
    assert tuple_of(outside) == tuple_of(asked).inverse


def test_masquerade_is_taken_back_before_routing() -> None:
    table = Table()
    tracked = table.track("host", OUT)
    assert tracked is not None
    set_nat(tracked, SNAT, "192.0.2.7")
    assert apply_nat(tracked, SNAT, OUT).source == "192.0.2.7"
    table.confirm(tracked)
    answer = Packet(source="192.0.2.200", source_port=80, destination="192.0.2.7", destination_port=40000)
    back = table.track("host", answer)
    assert back is not None
    assert apply_nat(back, DNAT, answer).destination == "10.1.0.2"
    assert apply_nat(back, SNAT, answer) == answer


def test_a_hairpin_is_translated_at_both_ends() -> None:
    table = Table()
    asked = Packet(source="10.1.0.3", source_port=40000, destination="192.0.2.7", destination_port=8080)
    tracked = table.track("host", asked)
    assert tracked is not None
    set_nat(tracked, DNAT, "10.1.0.2", 80)
    set_nat(tracked, SNAT, "10.1.0.1")
    inside = apply_nat(tracked, SNAT, apply_nat(tracked, DNAT, asked))
    assert (inside.source, inside.destination) == ("10.1.0.1", "10.1.0.2")
    table.confirm(tracked)
    answer = Packet(source="10.1.0.2", source_port=80, destination="10.1.0.1", destination_port=40000)
    back = table.track("host", answer)
    assert back is not None
    assert tuple_of(apply_nat(back, SNAT, apply_nat(back, DNAT, answer))) == tuple_of(asked).inverse


def test_a_translation_to_what_it_was_is_none() -> None:
    tracked = Table().track("host", OUT)
    assert tracked is not None
    set_nat(tracked, SNAT, "10.1.0.2")
    assert tracked.flow.status == 0
    assert SNAT in tracked.decided


@pytest.mark.parametrize("number", [133, 134, 135, 136, 143])
def test_neighbour_discovery_is_not_tracked(number: int) -> None:
    packet = Packet(proto="icmp", source="fe80::1", destination="fd00::1", icmp_type=number)
    assert Table().track("host", packet) is None


def test_an_icmp_error_is_related_to_the_flow_it_quotes_and_goes_against_it() -> None:
    table = Table()
    known(table, OUT)
    error = Packet(proto="icmp", source="192.0.2.1", destination="10.1.0.2", icmp_type=3, about=OUT)
    tracked = table.track("host", error)
    assert tracked is not None
    assert (tracked.state, tracked.direction) == ("related", REPLY)


def test_an_icmp_error_about_nothing_known_is_invalid() -> None:
    error = Packet(proto="icmp", source="192.0.2.1", destination="10.1.0.2", icmp_type=3, about=OUT)
    assert Table().track("host", error) is None
