"""Where `explain` says that a packet may leave the long way."""

from typing import Any

import msgspec
import pytest

from harness.engines import FACTS
from sealane.compile.facts import Features
from sealane.compile.names import endpoint_link
from sealane.explain.packet import Disposition, Packet, Sent
from sealane.explain.walk import walk
from sealane.kernel.objects import Key
from sealane.kernel.state import HOST
from unit.explain.worlds import BRIDGED, Town, steps

FAST = FACTS
SLOW = msgspec.structs.replace(FACTS, features=Features())
BOTH = pytest.mark.parametrize("family", [4, 6])
API = {4: "10.1.0.11", 6: "fd00:1::b"}
ROUTED = {"driver": "routed"}


def api(town: Town, family: int) -> str:
    return str(town.api.address(family))


def is_fast(town: Town, family: int = 4, origin: str = "web", **fields: Any) -> bool:
    trace = town.send(origin, api(town, family), **fields)
    return bool(steps(trace, "fast path"))


@BOTH
@pytest.mark.parametrize("front", [{}, ROUTED])
def test_it_is_said_where_it_is_left_and_what_follows_is_told_all_the_same(
    family: int, front: dict[str, Any]
) -> None:
    town = Town(front, facts=FAST)
    trace = town.send("web", api(town, family))
    link = endpoint_link(town.api.id)
    assert steps(trace, "fast path") == [
        f"fast path straight to {link}; what follows is the long way, with the same end"
    ]
    assert (trace.disposition, trace.netns) == (Disposition.DELIVERED, "sandbox-api")
    plain = Town(front, facts=SLOW).send("web", api(town, family))
    assert [s for s in steps(trace) if s not in steps(trace, "fast path")] == steps(plain)


@pytest.mark.parametrize(
    "fields",
    [{"proto": "icmp"}, {"proto": "sctp"}, {"size": 3000}],
)
def test_what_is_not_plain_goes_the_long_way(fields: dict[str, Any]) -> None:
    assert is_fast(Town(facts=FAST))
    assert not is_fast(Town(facts=FAST), **fields)


def test_what_a_server_of_dhcp_sends_goes_the_long_way() -> None:
    town = Town(facts=FAST)
    assert is_fast(town, proto="udp")
    packet = Packet(proto="udp", destination=api(town, 4), source_port=67, destination_port=68)
    trace = walk(town.world, packet, Sent("sandbox-web"))
    assert steps(trace, "fast path") == []
    assert trace.disposition is Disposition.DENIED


REMOVALS: dict[str, Key] = {
    "port": ("fast-port", endpoint_link(Town().web.id)),
    "sender": ("fast-target", "10.1.0.10"),
    "target": ("fast-target", "10.1.0.11"),
    "gate": ("fast-gate", "bridge", 4),
}


@pytest.mark.parametrize("what", REMOVALS)
def test_each_part_of_it_is_needed(what: str) -> None:
    town = Town(facts=FAST)
    town.remove(HOST, REMOVALS[what])
    assert not is_fast(town)
    assert town.send("web", api(town, 4)).passes


@pytest.mark.parametrize(
    ("who", "fields"),
    [
        ("10.1.0.10", {"link": "slefoo"}),
        ("10.1.0.10", {"mac": "02:00:00:00:00:99"}),
        ("10.1.0.11", {"delivers": False}),
        ("10.1.0.11", {"network": 7}),
        ("10.1.0.11", {"mac": "02:00:00:00:00:99"}),
        ("10.1.0.11", {"mtu": 40}),
    ],
)
def test_what_is_known_must_agree(who: str, fields: dict[str, Any]) -> None:
    town = Town(facts=FAST)
    town.change(HOST, ("fast-target", who), **fields)
    assert not is_fast(town)


def test_a_router_takes_a_hop_and_a_bridge_does_not() -> None:
    assert is_fast(Town(facts=FAST), ttl=1)
    assert not is_fast(Town(ROUTED, facts=FAST), ttl=1)


@pytest.mark.parametrize("options", [{"icc": False}, {"fast_path": False}])
def test_networks_without(options: dict[str, Any]) -> None:
    assert not is_fast(Town(options, facts=FAST))


def test_between_networks_there_is_none() -> None:
    town = Town(facts=FAST)
    assert steps(town.send("web", str(town.db.address(4))), "fast path") == []


@BOTH
@pytest.mark.parametrize("front", [{}, ROUTED])
@pytest.mark.parametrize("hooks", [False, True])
@pytest.mark.parametrize("firewalls", [("ip",), ("ip6",), ("bridge",), ("ip", "ip6")])
def test_it_is_closed_where_others_have_rules(
    family: int, front: dict[str, Any], hooks: bool, firewalls: tuple[Any, ...]
) -> None:
    """At the hooks that a packet of this kind passes: with br_netfilter a bridge has those of IP, too."""
    features = Features(fast_path=True, bridge_netfilter=hooks, firewalls=firewalls)
    town = Town(front, facts=msgspec.structs.replace(BRIDGED, features=features))
    name = "ip" if family == 4 else "ip6"
    passed = {name} if front else {"bridge", *([name] if hooks else [])}
    assert is_fast(town, family) == passed.isdisjoint(firewalls)
