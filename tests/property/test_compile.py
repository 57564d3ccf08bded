"""Laws of the compiler (style.md §5.7, 1 and 12) and of its increments."""

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.engines import FACTS
from property.strategies_intent import intents, networks
from sealane.compile.facts import Facts, Features, reach
from sealane.compile.host import Compiled, compile_host, touched, units
from sealane.compile.reads import HOST_UNIT
from sealane.compile.relay import Relays
from sealane.kernel.nft import Chain, Element, Set
from sealane.kernel.objects import Address, Link, Sysctl
from sealane.kernel.state import HOST
from sealane.model.change import Delete, Put
from sealane.model.intent import Intent
from sealane.model.net import FAMILIES


def non_empty(state):
    return {netns: dict(items) for netns, items in state.items() if items}


@given(intents(), st.data())
def test_the_result_does_not_depend_on_the_order_of_the_intent(intent: Intent, data: st.DataObject) -> None:
    records = data.draw(st.permutations(list(intent.records())))
    assert non_empty(compile_host(Intent(records), FACTS)) == non_empty(compile_host(intent, FACTS))


@given(intents(), intents())
def test_an_increment_equals_a_full_compilation(before: Intent, after: Intent) -> None:
    """From any intent to any other, record by record, in the only orders that keep referents: the memoised result is
    the full one at every step, and the keys it calls different are exactly those that are."""
    current = Intent(before.records())
    compiled = Compiled(current, FACTS)
    for change in edits(before, after):
        old = {(n, k): v for n, items in compiled.desired.items() for k, v in items.items()}
        fields = current.apply(change)
        different = compiled.refresh(current, touched(change, fields, current))
        full = non_empty(compile_host(current, FACTS))
        assert non_empty(compiled.desired) == full
        new = {(n, k): v for n, items in full.items() for k, v in items.items()}
        assert different == {key for key in old.keys() | new.keys() if old.get(key) != new.get(key)}
    assert non_empty(compiled.desired) == non_empty(compile_host(after, FACTS))


def edits(before: Intent, after: Intent):
    """Changes from one intent to the other: endpoints go first and come last."""
    old = {(type(r).__name__, r.id): r for r in before.records()}
    new = {(type(r).__name__, r.id): r for r in after.records()}
    yield from (Delete(r) for (kind, _), r in old.items() if kind == "Endpoint")
    for kind in ("Network", "Sandbox"):
        for key in [k for k in old if k[0] == kind and k not in new]:
            yield Delete(old[key])
        for key in [k for k in new if k[0] == kind]:
            if old.get(key) != new[key]:
                yield Put(new[key], old.get(key))
    yield from (Put(r) for (kind, _), r in new.items() if kind == "Endpoint")


some_facts = st.builds(
    Facts,
    instance=st.just(FACTS.instance),
    uplink=st.sampled_from(["", "up0"]),
    uplink_mtu=st.sampled_from([0, 1280, 9000]),
    foreign_routes=st.sampled_from([(), FACTS.foreign_routes]),
    ra_links=st.sampled_from([(), ("up0",), ("up0", "up1")]),
    forwards=st.sampled_from([(), (4,), (4, 6)]),
    lent=st.sampled_from([(), (6,), (4, 6)]),
    newcomers=st.sampled_from([(), ((6, "docker0"),), ((4, "docker0"), (4, "virbr0"))]),
    bridges=st.sampled_from([(), ("docker0",)]),
    features=st.builds(
        Features,
        ipv6=st.booleans(),
        fast_path=st.booleans(),
        firewalls=st.sampled_from([(), ("ip",), ("ip", "bridge")]),
        translators=st.sampled_from([(), ("ip",), ("ip", "ip6")]),
        forward_drops=st.sampled_from([(), ("ip",)]),
        bridge_netfilter=st.booleans(),
    ),
)


@settings(max_examples=200)
@given(intents(), some_facts, some_facts)
def test_facts_reach_no_further_than_is_said(intent: Intent, before: Facts, after: Facts) -> None:
    old, new = Compiled(intent, before), Compiled(intent, after)
    different = {
        unit
        for unit in units(intent)
        if {w: old.desired[w[0]][w[1]] for w in old.of_unit(unit)}
        != {w: new.desired[w[0]][w[1]] for w in new.of_unit(unit)}
    }
    match reach(before, after):
        case "nothing":
            assert different == set()
        case "host":
            assert different <= {HOST_UNIT}


@given(intents())
def test_every_object_has_an_origin(intent: Intent) -> None:
    compiled = Compiled(intent, FACTS)
    everything = {(n, k) for n, items in compiled.desired.items() for k in items}
    assert set(compiled.origins) == everything
    assert set(compiled.origins.values()) <= set(units(intent))


@given(intents())
def test_no_user_text_reaches_the_kernel(intent: Intent) -> None:
    """Names of networks, sandboxes and endpoints appear in no object of the kernel's but the link names inside
    sandboxes, which are the user's own to choose."""
    compiled = compile_host(intent, FACTS)
    names = [r.name for r in intent.records()]
    for item in compiled[HOST].values():
        for name in names:
            assert name not in repr(item).replace("/network-", "").replace("/endpoint-", "")


FEATURES_OF_ONE_FAMILY = {"link-local", "unspecified", "loopback"}
"""Rules that only IPv6 has: its neighbour discovery is IP, where IPv4's ARP is not. And one that only IPv4 needs: no setting
lets `::1` come by a link."""


@given(st.integers(1, 200).flatmap(networks))
def test_ipv6_is_ipv4_with_the_family_exchanged(network) -> None:
    """Law 12, for the rules of a dual-stack network: same chains, same rules with the same reasons, same sets."""
    if network.subnet(4) is None or network.subnet(6) is None or network.source_addresses:
        return
    # An internal network needs the switch of all links over IPv6 alone: IPv4 has one of each link.
    facts = msgspec.structs.replace(FACTS, forwards=(4, 6)) if network.internal else FACTS
    state = compile_host(Intent([network]), facts)[HOST].values()

    def shape(family: str):
        chains = {
            c.name: [r.comment for r in c.rules if r.comment.rpartition(":")[2] not in FEATURES_OF_ONE_FAMILY]
            for c in state
            if isinstance(c, Chain) and c.family == family
        }
        sets = {s.name: len(s.type) for s in state if isinstance(s, Set) and s.family == family}
        elements = sorted(e.set for e in state if isinstance(e, Element) and e.family == family)
        return chains, sets, elements

    assert shape("ip") == shape("ip6")


@settings(max_examples=30)
@given(intents())
def test_a_host_without_networks_holds_nothing(intent: Intent) -> None:
    for record in [*intent.endpoints.values(), *intent.sandboxes.values(), *intent.networks.values()]:
        intent.apply(Delete(record))
    assert non_empty(compile_host(intent, FACTS)) == {}


@given(intents(), st.sampled_from([0, 576, 1279, 1280, 1500]))
def test_no_link_without_ipv6_has_a_setting_of_it(intent: Intent, uplink_mtu: int) -> None:
    """Below 1280 bytes the kernel has none, and a network with IPv6 is never so small."""
    facts = msgspec.structs.replace(FACTS, uplink_mtu=uplink_mtu)
    for items in compile_host(intent, facts).values():
        small = {i.name for i in items.values() if isinstance(i, Link) and 0 < i.mtu < 1280}
        about = {
            i.path.split("/")[3] for i in items.values() if isinstance(i, Sysctl) and "/ipv6/conf/" in i.path
        }
        addressed = {i.link for i in items.values() if isinstance(i, Address) and ":" in i.address}
        assert not small & (about | addressed)


@given(intents())
def test_a_relay_is_found_by_its_port(intent: Intent) -> None:
    """As by a look at every endpoint, and nothing is found that nobody relays."""
    relays = Relays(intent)
    led = {
        (port.family, port.proto, number): (port.address, port.target(number))
        for port in relays.ports
        for number in range(port.first, port.last + 1)
    }
    asked = {
        *led,
        *((f, p, n) for f in FAMILIES for p in ("tcp", "udp", "sctp") for n in (1, 80, 8080, 65535)),
    }
    for family, proto, number in asked:
        found = relays.find(family, proto, number)
        shown = None if found is None else (found.address, found.target(number))
        assert shown == led.get((family, proto, number))
