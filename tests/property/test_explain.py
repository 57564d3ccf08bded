"""Law 4 (style.md §5.7): no packet that both ends of a plan deny is let through by any state between them.

The plan from one random intent to another is performed one operation at a time (an nftables transaction is one) on
the kernel in memory, and after each of them packets are walked through what then is: by every endpoint's link, from
the host and from outside; to every address and published port; under true and under stolen addresses. `explain` is
the judge.
"""

from collections.abc import Iterator
from typing import TypeVar

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.engines import FACTS
from property.strategies_intent import HOST_ADDRESSES, intents, sandbox
from property.test_reconcile import ROUNDS, converge, observed, refs
from sealane.compile.facts import Facts, Features
from sealane.compile.host import compile_host
from sealane.compile.names import endpoint_link
from sealane.explain import render
from sealane.explain.foreign_state import ForeignState, foreign_state_of
from sealane.explain.packet import Arrives, Disposition, Packet, Sent, Start, Trace
from sealane.explain.walk import walk
from sealane.explain.world import World
from sealane.kernel.nft import Chain, Element, ObservedChain, Set, Table
from sealane.kernel.objects import FastTarget, Link
from sealane.kernel.state import HOST, HostState
from sealane.linux.fake import FakeKernel
from sealane.model.change import Record
from sealane.model.endpoint import Endpoint
from sealane.model.ids import EndpointId, NetworkId
from sealane.model.intent import Intent
from sealane.model.net import Address, Interface, Mac, Prefix, contains
from sealane.model.network import Network, Subnet
from sealane.reconcile.diff import diff
from sealane.reconcile.order import order
from sealane.reconcile.plan import Plan

BRIDGED = Facts(
    instance=FACTS.instance, uplink=FACTS.uplink, uplink_mtu=1400, features=Features(bridge_netfilter=True)
)
PLAIN = msgspec.structs.replace(FACTS, features=Features())
FAST_BRIDGED = msgspec.structs.replace(FACTS, features=Features(fast_path=True, bridge_netfilter=True))
OUTSIDE = {4: "192.0.2.200", 6: "2001:db8::200"}
INSIDE_PORT = 80
NFT = (Table, Chain, ObservedChain, Set, Element)
ONE_TRANSACTION = ("unpublish", "fence", "publish", "sweep")
PACKETS_MAX = 150

Question = tuple[Start, Packet]
Named = TypeVar("Named", Network, Endpoint)


def foreign_state(facts: Facts) -> ForeignState:
    return foreign_state_of(facts, (f"{HOST_ADDRESSES[4]}/24", f"{HOST_ADDRESSES[6]}/64"))


def successor(before: Intent, after: Intent) -> Intent:
    """`after` as the verbs could have led to it: networks and endpoints are made and removed, never changed, so what
    differs is another object, if in the place of the old one."""
    networks = {n.id: n if before.networks.get(n.id) == n else replaced(n) for n in after.networks.values()}
    records: list[Record] = [*networks.values(), *after.sandboxes.values()]
    for endpoint in after.endpoints.values():
        moved = msgspec.structs.replace(endpoint, network=networks[endpoint.network].id)
        records.append(moved if before.endpoints.get(endpoint.id) == moved else replaced(moved))
    return Intent(records)


def replaced(record: Named) -> Named:
    return msgspec.structs.replace(record, id=f"{record.id}-new", name=f"{record.name}-new")


def moments(plan: Plan) -> Iterator[Plan]:
    """The plan in the smallest pieces that the kernel knows: an operation, or a transaction."""
    for name, operations in plan.stages:
        fencing = tuple(o for o in operations if name in ONE_TRANSACTION and isinstance(o.object, NFT))
        if fencing:
            yield Plan(((name, fencing),))
        yield from (Plan(((name, (o,)),)) for o in operations if o not in fencing)


def passes(world: World, question: Question) -> bool:
    trace = walk(world, question[1], question[0])
    return trace.passes or bool(goes_straight(world, trace))


def goes(world: World, question: Question, orphans: list[Prefix]) -> str:
    """Where the packet comes out; empty if it does not, or where that is not ours to deny: at the host's own ports,
    once they are not published any more; outside, if it comes from there (a host that forwards sends a stranger's
    packet for nobody it knows back to its router) or goes to an orphaned prefix."""
    start, packet = question
    trace = walk(world, packet, start)
    straight = goes_straight(world, trace)
    if straight:
        return straight
    is_strangers = packet.source in OUTSIDE.values() or any(
        contains(p, trace.final.destination) for p in orphans
    )
    is_passing_by = trace.disposition is Disposition.EXITS and is_strangers
    is_hosts_own = trace.disposition is Disposition.DELIVERED and trace.netns == HOST
    is_ours = trace.passes and not is_passing_by and not is_hosts_own
    return f"{trace.disposition} {trace.netns}" if is_ours else ""


def goes_straight(world: World, trace: Trace) -> str:
    """Where the fast path delivers the packet, whatever is on the long way; empty if it does not take it."""
    for step in (step for hop in trace.hops for step in hop.steps if step.kind == "fast path"):
        assert step.object is not None
        target = world.states[HOST][step.object]
        assert isinstance(target, FastTarget)
        link = world.states[HOST].get(("link", target.link))
        return f"delivered {link.peer[0]}" if isinstance(link, Link) and link.peer else ""
    return ""


def questions(*given_intents: Intent) -> list[Question]:
    """What anybody may try. A sandbox's own routes are no fence: software inside sends any frame by any of its links,
    under its own address and others', to the host's MAC and straight to the target's."""
    endpoints = {e.id: e for intent in given_intents for e in intent.endpoints.values() if e.sandbox}
    addresses = {a.partition("/")[0]: e for e in endpoints.values() for a in e.addresses}
    ports = {(p.proto, p.host_first) for e in endpoints.values() for p in e.ports}
    result: list[Question] = []
    targets = [("tcp", a, INSIDE_PORT) for a in [*addresses, *OUTSIDE.values()]]
    targets += [(proto, a, port) for proto, port in ports for a in HOST_ADDRESSES.values()]
    for proto, destination, port in targets:
        family = 6 if ":" in destination else 4

        def packet(source: str, mac: str = "", to_mac: str = "") -> Packet:
            return Packet(
                proto=proto,
                source=source,
                source_port=40000,
                destination=destination,
                destination_port=port,
                mac_source=mac,
                mac_destination=to_mac,
            )

        result.append((Sent(HOST), packet("")))
        result.append((Arrives(HOST, FACTS.uplink), packet(OUTSIDE[family])))
        for endpoint in endpoints.values():
            own = endpoint.address(family)
            stolen = [a for a, e in addresses.items() if e is not endpoint and (":" in a) == (family == 6)][
                :1
            ]
            for source in [*([own] if own else []), *stolen]:
                target = addresses.get(destination)
                for mac in ["host", *([target.mac] if target else [])]:
                    frame = packet(source, endpoint.mac, mac)
                    result.append((Arrives(HOST, endpoint_link(endpoint.id)), frame))
    return result


def as_sent(state: HostState, question: Question) -> Question:
    """A frame to the host goes to the MAC that the host has there now."""
    start, packet = question
    if packet.mac_destination != "host" or not isinstance(start, Arrives):
        return question
    link = state.get(HOST, {}).get(("link", start.link))
    above = state.get(HOST, {}).get(("link", link.master)) if isinstance(link, Link) and link.master else link
    mac = above.mac if isinstance(above, Link) else ""
    return start, msgspec.structs.replace(packet, mac_destination=mac)


def snapshot(kernel: FakeKernel) -> dict[str, dict]:
    return {netns: dict(items) for netns, items in kernel.state.items()}


def history(before: Intent, after: Intent, facts: Facts) -> list[tuple[str, HostState]]:
    """Every state on the way, each with what led to it: the first is the one before, the last the one after."""
    kernel, found = FakeKernel(facts), refs(before, after)
    converge(kernel, compile_host(before, facts), found)
    states: list[tuple[str, HostState]] = [("", snapshot(kernel))]
    desired = compile_host(after, facts)
    for _ in range(ROUNDS):
        for moment in moments(order(diff(desired, observed(kernel, {HOST, *found})))):
            kernel.apply(moment, found)
            stage, operations = moment.stages[0]
            states.append((f"{stage}: {operations[0].verb} {operations[0].object.key}", snapshot(kernel)))
    assert not diff(desired, observed(kernel, {HOST, *found}))
    return states


def leaks(
    states: list[tuple[str, HostState]], around: ForeignState, chosen: list[Question], orphans: list[Prefix]
) -> list[str]:
    """What the first state that lets something through lets through."""
    ends = [(World(state, around), state) for state in (states[0][1], states[-1][1])]
    denied = [q for q in chosen if not any(passes(world, as_sent(state, q)) for world, state in ends)]
    for operation, now in states[1:-1]:
        world = World(now, around)
        wrong = [(q, where) for q in denied if (where := goes(world, as_sent(now, q), orphans))]
        if wrong:
            return [f"{where} after {operation}\n{told(ends, now, around, q)}" for q, where in wrong[:3]]
    return []


def orphaned(before: Intent, after: Intent) -> list[Prefix]:
    """Prefixes whose network goes: from then on their addresses are the outside's, until another network takes them.
    (Two networks with one prefix in one plan are two changes, between which that is so.)"""
    gone = [n for n in before.networks.values() if n.id not in after.networks]
    return [subnet.prefix for n in gone for subnet in n.subnets]


def told(
    ends: list[tuple[World, HostState]], now: HostState, around: ForeignState, question: Question
) -> str:
    """A counterexample with what is said of it before, then, and after."""
    moments = [ends[0], (World(now, around), now), ends[1]]
    traces = [walk(world, *reversed(as_sent(state, question))) for world, state in moments]
    return "\n".join(
        f"{when}: {render.summary(t)}" for when, t in zip(("before", "then", "after"), traces, strict=True)
    )


@pytest.mark.parametrize(
    "facts", [PLAIN, BRIDGED, FACTS, FAST_BRIDGED], ids=["plain", "br_netfilter", "fast path", "both"]
)
@settings(max_examples=60, deadline=None)
@given(before=intents(), after=intents(), first=st.integers(0, 10_000))
def test_no_moment_of_a_plan_lets_through_what_both_ends_deny(
    facts: Facts, before: Intent, after: Intent, first: int
) -> None:
    after = successor(before, after)
    everything = questions(before, after)
    begin = first % max(1, len(everything))
    chosen = (everything[begin:] + everything[:begin])[:PACKETS_MAX]
    found = leaks(history(before, after, facts), foreign_state(facts), chosen, orphaned(before, after))
    assert not found, "\n".join(found)


@settings(max_examples=100, deadline=None)
@given(intent=intents(), facts=st.sampled_from([FACTS, FAST_BRIDGED]), first=st.integers(0, 10_000))
def test_the_fast_path_ends_where_the_long_way_ends(intent: Intent, facts: Facts, first: int) -> None:
    """Of whatever anybody may send, it takes nothing that the long way would not bring to the same sandbox."""
    everything = questions(intent)
    begin = first % max(1, len(everything))
    state = compile_host(intent, facts)
    world = World(state, foreign_state(facts))
    for question in (everything[begin:] + everything[:begin])[:PACKETS_MAX]:
        start, packet = as_sent(state, question)
        trace = walk(world, packet, start)
        straight = goes_straight(world, trace)
        assert not straight or straight == f"{trace.disposition} {trace.netns}", render.summary(trace)


@pytest.mark.parametrize("driver", ["bridge", "routed"])
def test_neighbours_take_it(driver: str) -> None:
    """The law above is about something: both families, both ways."""
    world = World(compile_host(neighbours(driver), FACTS), foreign_state(FACTS))
    for own, other in (("10.1.0.2", "10.1.0.3"), ("fd00:1::3", "fd00:1::2")):
        packet = Packet(source=own, source_port=40000, destination=other, destination_port=80)
        sender, receiver = ("sandbox-1", "sandbox-2") if own.endswith("2") else ("sandbox-2", "sandbox-1")
        trace = walk(world, packet, Sent(sender))
        assert goes_straight(world, trace) == f"{trace.disposition} {trace.netns}" == f"delivered {receiver}"


def neighbours(driver: str) -> Intent:
    """The sandboxes of `two_networks`, both on the first one."""
    town = two_networks()
    first = msgspec.structs.replace(town.networks[NetworkId("n1")], driver=driver)
    ends = [
        msgspec.structs.replace(
            endpoint,
            network=first.id,
            addresses=(Interface(f"10.1.0.{number}/24"), Interface(f"fd00:1::{number}/64")),
        )
        for number, endpoint in enumerate(town.endpoints.values(), 2)
    ]
    return Intent([first, *town.sandboxes.values(), *ends])


@pytest.mark.parametrize("family", ["ip", "ip6"])
def test_a_moment_without_a_fence_is_found(family: str) -> None:
    """The law can fail: without the chains that keep networks apart, for a moment, one reaches the other."""
    town = two_networks()
    whole = compile_host(town, FACTS)
    broken = {netns: dict(items) for netns, items in whole.items()}
    for key in [k for k in broken[HOST] if k[:3] == ("nft-element", family, "to")]:
        del broken[HOST][key]
    states = [("", whole), ("without", broken), ("", whole)]
    assert leaks(states, foreign_state(FACTS), questions(town), [])


def two_networks() -> Intent:
    """One sandbox on each of two dual-stack networks."""
    records: list[Record] = []
    for index in (1, 2):
        subnets = tuple(
            Subnet(prefix=Prefix(prefix), gateway=Address(gateway))
            for prefix, gateway in (
                (f"10.{index}.0.0/24", f"10.{index}.0.1"),
                (f"fd00:{index}::/64", f"fd00:{index}::1"),
            )
        )
        network = Network(id=NetworkId(f"n{index}"), name=f"net{index}", subnets=subnets)
        box = sandbox(index)
        addresses = (Interface(f"10.{index}.0.2/24"), Interface(f"fd00:{index}::2/64"))
        endpoint = Endpoint(
            id=EndpointId(f"e{index}"),
            name=f"end{index}",
            network=network.id,
            sandbox=box.id,
            ifname="eth0",
            mac=Mac(f"02:00:00:00:00:0{index}"),
            addresses=addresses,
        )
        records += [network, box, endpoint]
    return Intent(records)
