"""Sightings put together: many packets at once, addresses used again, and every bound."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealane.explain.packet import Tuple
from sealane.explain.traced import observed_path as module
from sealane.explain.traced.event import Pattern
from sealane.explain.traced.observed_path import ENDED_MAX, OPEN_MAX, RULES_MAX, SIGHTINGS_MAX, Collector
from unit.explain.traced.packets import FLOW, ruled, seen

LATER = 10**9
PATTERN = Pattern(proto="tcp", family=4, source=FLOW.source, destination_port=80)
ANSWER = FLOW.inverse
OTHER = Tuple("tcp", "10.9.0.1", 1, "10.9.0.2", 2)


@pytest.fixture
def collector():
    return Collector([PATTERN])


def points(observed_paths):
    return [[trace_event.point for trace_event in one.trace_events] for one in observed_paths]


def add(collector, *trace_events):
    for trace_event in trace_events:
        collector.add(trace_event)


def test_a_packet_from_its_first_trace_event_to_its_end(collector):
    add(collector, seen(1, "queue"), seen(2, "transmit"), seen(3), seen(4, "consume"))
    (found,) = collector.take(LATER)
    assert points([found]) == [["queue", "transmit", "receive", "consume"]]
    assert (found.first.time_ns, found.last.point) == (1000, "consume")


def test_it_is_told_once(collector):
    add(collector, seen(1), seen(2, "drop"))
    assert len(list(collector.take(LATER))) == 1
    assert list(collector.take(LATER)) == []


def test_translation_does_not_hide_it(collector):
    translated = Tuple("tcp", "192.0.2.7", 1234, "10.1.0.11", 80)
    add(collector, seen(1), seen(2, "queue", flow=translated), seen(3, "consume", flow=translated))
    assert points(collector.take(LATER)) == [["receive", "queue", "consume"]]


def test_an_address_that_comes_back_under_another_packet_begins_another_observed_path(collector):
    add(collector, seen(1, "queue"), seen(2), seen(3, "queue", mark=(6, 8)), seen(4, "drop", mark=(6, 8)))
    assert points(collector.take(LATER)) == [["queue", "receive"], ["queue", "drop"]]


def test_an_address_that_comes_back_under_a_packet_that_nobody_asked_for(collector):
    add(
        collector,
        seen(1, "queue"),
        seen(2, "receive", flow=OTHER, mark=(6,)),
        seen(3, "drop", flow=OTHER, mark=(6,)),
    )
    assert points(collector.take(LATER)) == [["queue"]]


def test_another_protocol_is_another_packet(collector):
    collector.add(seen(1, "queue"))
    collector.add(seen(2, "drop", flow=Tuple("udp", FLOW.source, 1, FLOW.destination, 80)))
    assert points(collector.take(LATER)) == [["queue"]]


def test_a_drop_may_be_the_first_trace_event(collector):
    """In the sender's own output, where there is no device yet."""
    collector.add(seen(1, "drop", netns=1, link=""))
    (found,) = collector.take(LATER)
    assert found.last.point == "drop"
    assert found.first is found.last


def test_taking_cannot_be(collector):
    """consume_skb of an address that is not followed is of a packet that came and went before."""
    collector.add(seen(1, "consume"))
    assert list(collector.take(LATER)) == []


def test_packets_side_by_side(collector):
    for time in range(1, 9):
        for skb in (1, 2, 3):
            collector.add(seen(10 * time + skb, "consume" if time == 8 else "receive", skb=skb, mark=(skb,)))
    found = list(collector.take(LATER))
    assert [len(one.trace_events) for one in found] == [8, 8, 8]
    assert [{s.skb for s in one.trace_events} for one in found] == [{1}, {2}, {3}]


def test_what_was_seen_a_moment_ago_may_go_on(collector):
    collector.add(seen(50, "queue"))
    assert list(collector.take(50_000)) == []
    assert points(collector.take(50_001)) == [["queue"]]


def test_what_has_ended_waits_for_its_rules(collector):
    add(collector, seen(1), seen(50, "drop"))
    assert list(collector.take(50_000)) == []
    collector.add_rules([ruled("drop")])
    (found,) = collector.take(50_001)
    assert [rule.verdict for rule in found.rules] == ["drop"]


def test_an_answer_is_not_told_before_its_question(collector):
    """The question's packet is freed after the answer's: both lie around the same instant."""
    collector = Collector([PATTERN, Pattern(proto="tcp", family=4, source=ANSWER.source)])
    add(collector, seen(1, "queue"), seen(5, "queue", skb=0xB, flow=ANSWER))
    add(collector, seen(9, "consume", skb=0xB, flow=ANSWER), seen(10, "consume"))
    assert list(collector.take(9_500)) == []
    found = list(collector.take(LATER))
    assert [one.first.headers.flow for one in found] == [FLOW, ANSWER]


def test_a_packet_under_way_holds_up_those_that_began_later(collector):
    add(
        collector,
        seen(1, "queue", skb=1),
        seen(2, "queue", skb=2, mark=(6,)),
        seen(3, "consume", skb=2, mark=(6,)),
    )
    collector.add(seen(900, "receive", skb=1))
    assert list(collector.take(500_000)) == []
    collector.add(seen(901, "consume", skb=1))
    assert [one.first.skb for one in collector.take(LATER)] == [1, 2]


def test_a_loop_is_cut(collector):
    for time in range(SIGHTINGS_MAX + 1):
        collector.add(seen(time, "receive"))
    assert [len(one.trace_events) for one in collector.take(LATER)] == [SIGHTINGS_MAX, 1]


def test_beyond_so_many_packets_the_oldest_is_given_up(collector):
    for skb in range(OPEN_MAX):
        collector.add(seen(skb, "queue", skb=skb, mark=(skb,)))
    collector.add(seen(OPEN_MAX, "receive", skb=0, mark=(0,)))
    assert len(list(collector.take(0))) == 0
    collector.add(seen(OPEN_MAX + 1, "queue", skb=OPEN_MAX, mark=(OPEN_MAX,)))
    collector.add(seen(OPEN_MAX + 2, "drop", skb=0, mark=(0,)))
    found = list(collector.take(10 * LATER))
    assert len(found) == OPEN_MAX + 2
    assert points(found)[0] == ["queue", "receive"], "the one that was given up is told as far as it was seen"
    assert points(found)[-1] == ["drop"]


def test_beyond_so_many_that_ended_the_oldest_is_forgotten(collector):
    for skb in range(ENDED_MAX + 1):
        collector.add(seen(skb, "drop", skb=skb, mark=(skb,)))
    found = list(collector.take(10 * LATER))
    assert [found[0].first.skb, len(found)] == [1, ENDED_MAX]


def test_beyond_so_many_rules_the_oldest_is_forgotten(collector):
    collector.add_rules([ruled(chain="first")])
    collector.add_rules([ruled(mark=(1, 1))] * RULES_MAX)
    add(collector, seen(1), seen(2, "consume"))
    (found,) = collector.take(LATER)
    assert found.rules == ()


def test_rules_are_of_the_packet_that_they_saw(collector):
    between = Tuple("tcp", FLOW.source, FLOW.source_port, "10.1.0.99", 8080)
    collector.add_rules([
        ruled(chain="mine"), ruled(chain="another packet", mark=(5, 8)),
        ruled(chain="another flow", flow=OTHER), ruled(chain="between two translations", flow=between),
    ])  # fmt: skip
    add(collector, seen(1), seen(2, "consume"))
    (found,) = collector.take(LATER)
    assert [rule.chain for rule in found.rules] == ["mine", "between two translations"]


def test_a_reader_that_stops_early_loses_nothing(collector):
    for skb in (1, 2, 3):
        collector.add(seen(skb, "drop", skb=skb, mark=(skb,)))
    assert next(iter(collector.take(LATER))).first.skb == 1
    assert [one.first.skb for one in collector.take(LATER)] == [2, 3]


steps = st.lists(st.sampled_from(["queue", "transmit", "receive"]), min_size=1, max_size=6)


@given(st.lists(steps, min_size=1, max_size=8), st.randoms())
def test_however_they_are_mixed_each_packet_is_told_whole_and_in_order(packets, random):
    """Each packet's own sightings come in order; all else may be interleaved."""
    collector = Collector([PATTERN])
    left = {skb: [*steps, "consume"] for skb, steps in enumerate(packets)}
    expected = {skb: list(steps) for skb, steps in left.items()}
    time = 0
    while left:
        time += 1
        skb = random.choice(sorted(left))
        collector.add(seen(time, left[skb].pop(0), skb=skb, mark=(skb,)))
        if not left[skb]:
            del left[skb]
    found = list(collector.take(LATER))
    assert {one.first.skb: points([one])[0] for one in found} == expected
    beginnings = [one.first.time_ns for one in found]
    assert beginnings == sorted(beginnings)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 3), st.integers(0, 3), st.sampled_from(["queue", "receive", "drop", "consume"])
        )
    )
)
def test_no_trace_event_is_told_twice_and_none_of_another_packet(events):
    """Addresses are used again at random."""
    collector = Collector([PATTERN])
    for time, (skb, mark, point) in enumerate(events):
        collector.add(seen(time, point, skb=skb, mark=(mark,)))
    found = list(collector.take(LATER))
    times = [trace_event.time_ns for one in found for trace_event in one.trace_events]
    assert len(times) == len(set(times))
    for one in found:
        assert len({(trace_event.skb, trace_event.headers.mark) for trace_event in one.trace_events}) == 1
        assert all(trace_event.point not in module._ENDS for trace_event in one.trace_events[:-1])
