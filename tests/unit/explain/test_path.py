"""Hooks in the order of their priorities, and what is written down on the way."""

import pytest

from sealane.explain.packet import Disposition, Packet
from sealane.explain.path import Ended, Path, Skb
from sealane.explain.walk import walk
from sealane.kernel.nft import ACCEPT, DROP, Chain, Counter, Hook, Rule
from sealane.kernel.state import HOST
from unit.explain.worlds import HOST_ADDRESS, OUTSIDE, Town, start_of, steps


def added(town: Town, hook: Hook, *rules: Rule, name: str = "extra") -> Chain:
    chain = Chain(family="ip", name=name, hook=hook, rules=rules)
    town.compiled.desired[HOST][chain.key] = chain
    return chain


def test_hooks_are_passed_by_priority() -> None:
    """raw, connection tracking, filter before NAT, NAT, filter after."""
    town = Town()
    for priority in (-150, -50, -250):
        added(town, Hook("filter", "prerouting", priority), Rule((ACCEPT,)), name=f"at{priority}")
    trace = town.send("outside", HOST_ADDRESS[4], 8080)
    kinds = [s for s in steps(trace) if "at-" in s or s.startswith(("new", "destination translated"))]
    assert kinds == [
        "ip at-250: accept",
        "new, original direction",
        "ip at-150: accept",
        "destination translated: 192.0.2.200:40000 → 10.1.0.10:80 tcp",
        "ip at-50: accept",
    ]


def test_accept_in_one_chain_does_not_keep_the_next_from_dropping() -> None:
    town = Town()
    added(town, Hook("filter", "input", 0), Rule((ACCEPT,)), name="first")
    added(town, Hook("filter", "input", 10), Rule((Counter(), DROP), "foreign:policy"), name="second")
    trace = town.send("outside", HOST_ADDRESS[4], 22)
    assert trace.disposition is Disposition.DENIED
    assert trace.reason == "a rule drops it"


def test_a_drop_among_translations_is_a_drop() -> None:
    town = Town()
    added(town, Hook("nat", "prerouting", -110), Rule((DROP,), "foreign:nat"))
    assert town.send("outside", HOST_ADDRESS[4], 8080).disposition is Disposition.DENIED


def test_a_dropped_packet_leaves_no_flow() -> None:
    trace = Town().send("web", "10.2.0.12")
    assert trace.disposition is Disposition.DENIED
    assert trace.flows == ()


def test_a_flow_is_of_the_namespace_that_tracks_it() -> None:
    (flow,) = Town().send("web", OUTSIDE[4]).flows
    assert flow.netns == HOST
    assert (flow.original.source, flow.reply.destination) == ("10.1.0.10", HOST_ADDRESS[4])


def test_what_is_looked_up_aside_is_not_written_down() -> None:
    path = Path(Town().world)
    path.enter(path.world.namespace(HOST), "lo")
    with path.aside():
        path.enter(path.world.namespace("sandbox-web"), "eth0")
        path.note("local", "never seen")
    assert (path.netns, path.link) == (HOST, "lo")
    assert [hop.steps for hop in path.hops()] == [()]


def test_steps_name_the_object_and_the_intent() -> None:
    trace = Town().send("outside", HOST_ADDRESS[4], 8080)
    step = next(s for hop in trace.hops for s in hop.steps if s.why == "base:publish")
    assert step.origin == ("endpoint", "endpoint-web-front") or step.origin == ("host", "")
    by_element = next(s for hop in trace.hops for s in hop.steps if "@publish " in s.detail)
    assert by_element.origin == ("endpoint", "endpoint-web-front")
    assert by_element.object is not None
    assert by_element.object[:3] == ("nft-element", "ip", "publish")


def test_an_end_has_a_reason() -> None:
    with pytest.raises(Ended) as ended:
        Path(Town().world).end(Disposition.LOST, "so", "thus")
    assert (ended.value.disposition, ended.value.reason, ended.value.hint) == (Disposition.LOST, "so", "thus")


def test_crossing_namespaces_a_packet_forgets_what_was_known_of_it() -> None:
    skb = Skb(Packet(destination="10.0.0.1"))
    skb.is_untracked = True
    skb.scrub()
    assert (skb.tracked, skb.is_untracked) == (None, False)


def test_every_trace_ends_in_one_disposition_with_a_reason_and_a_hint_if_it_failed() -> None:
    town = Town()
    for destination in ("10.1.0.11", "10.2.0.12", "10.1.0.99", OUTSIDE[4], HOST_ADDRESS[4], "127.0.0.1"):
        for origin in ("web", "db", "outside", HOST):
            packet = Packet(
                source=OUTSIDE[4] if origin == "outside" else "",
                source_port=1,
                destination=destination,
                destination_port=80,
            )
            trace = walk(town.world, packet, start_of(origin))
            assert trace.reason
            assert trace.passes != bool(trace.hint)
