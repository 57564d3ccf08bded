"""Guards at ports, the FDB, and what a port may do."""

import msgspec
import pytest

from sealane.compile.names import endpoint_link, network_link
from sealane.explain.packet import Arrives, Disposition, Packet, Trace
from sealane.explain.walk import walk
from sealane.kernel.objects import BridgePort, FdbEntry, Link
from sealane.kernel.state import HOST
from sealane.model.endpoint import PublishedPort
from unit.explain.worlds import BRIDGED, OUTSIDE, Town, steps, whys

WEB, API = "10.1.0.10", "10.1.0.11"


def frame(town: Town, to: str = "", **fields) -> Trace:
    """A frame that web makes itself, to a MAC or to the bridge."""
    bridge = town.world.namespace(HOST).link(network_link(town.front))
    assert bridge is not None
    packet = Packet(
        **{
            "source": WEB,
            "destination": OUTSIDE[4],
            "destination_port": 80,
            "mac_source": town.web.mac,
            "mac_destination": to or bridge.mac,
            **fields,
        }
    )
    return walk(town.world, packet, Arrives(HOST, endpoint_link(town.web.id)))


def port(town: Town, **fields) -> None:
    for item in (town.web, town.api):
        key = ("link", endpoint_link(item.id))
        link = town.compiled.desired[HOST][key]
        assert isinstance(link, Link)
        town.change(HOST, key, port=msgspec.structs.replace(link.port or BridgePort(), **fields))


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"source": API}, "spoofed-ip"),
        ({"source": "198.51.100.1"}, "spoofed-ip"),
        ({"mac_source": "02:00:00:00:00:99"}, "spoofed-ip"),
        ({"source": "fd00:1::11", "destination": "fd00:1::1"}, "spoofed-ip"),
        ({"proto": "udp", "source_port": 67}, "dhcp-server"),
        (
            {"proto": "udp", "source_port": 547, "source": "fd00:1::10", "destination": "fd00:1::1"},
            "dhcp-server",
        ),
        (
            {"proto": "icmp", "icmp_type": 134, "source": "fd00:1::10", "destination": "fd00:1::1"},
            "router-advert",
        ),
        ({"proto": "icmp", "icmp_type": 137, "source": "fd00:1::10", "destination": "fd00:1::1"}, "redirect"),
        (
            {
                "proto": "icmp",
                "icmp_type": 136,
                "source": "fd00:1::10",
                "destination": "fd00:1::11",
                "target": "fd00:1::11",
            },
            "spoofed-nd",
        ),
        ({"proto": "arp", "source": API, "destination": "10.1.0.1"}, "spoofed-arp"),
        ({"proto": "arp", "destination": API, "sender_mac": "02:00:00:00:00:99"}, "spoofed-arp"),
    ],
)
def test_the_guard_names_what_it_drops(fields: dict, why: str) -> None:
    trace = frame(Town(), **fields)
    assert trace.disposition in {Disposition.SPOOFED, Disposition.DENIED}
    assert whys(trace)[-1] == why
    assert trace.hint


def test_what_is_true_passes_the_guard() -> None:
    assert frame(Town()).disposition is Disposition.EXITS
    assert frame(Town(), source="fd00:1::10", destination=OUTSIDE[6]).disposition is Disposition.EXITS


def test_the_guard_stands_before_everything_else() -> None:
    """A stolen source is dropped by the first chain that it meets, with br_netfilter too."""
    trace = frame(Town(facts=BRIDGED), source=API)
    assert all(
        step.text.startswith("bridge ") for hop in trace.hops for step in hop.steps if step.kind == "rule"
    )


def test_a_frame_goes_to_the_port_that_has_its_mac() -> None:
    town = Town()
    trace = frame(town, town.api.mac, destination=API)
    assert (trace.disposition, trace.netns) == (Disposition.DELIVERED, "sandbox-api")
    assert f"{town.api.mac} is behind {endpoint_link(town.api.id)}" in steps(trace, "bridge")


def test_a_mac_that_nobody_has_goes_nowhere() -> None:
    trace = frame(Town(), "02:00:00:00:00:77", destination=API)
    assert trace.disposition is Disposition.LOST
    assert "02:00:00:00:00:77" in trace.reason


def test_where_unknown_frames_are_flooded_it_is_told() -> None:
    town = Town()
    port(town, flood=True)
    assert "flooded" in steps(frame(town, "02:00:00:00:00:77", destination=API), "bridge")[-1]


def test_isolated_ports() -> None:
    town = Town()
    port(town, isolated=True)
    trace = frame(town, town.api.mac, destination=API)
    assert trace.disposition is Disposition.DENIED
    assert "isolated ports" in trace.reason


def test_a_frame_leaves_by_the_port_it_came_by_only_if_that_is_a_hairpin() -> None:
    town = Town()
    assert "hairpin off" in frame(town, town.web.mac, destination=WEB).reason
    port(town, hairpin=True)
    assert "hairpin" not in frame(town, town.web.mac, destination=WEB).reason


def test_a_bridge_that_is_down() -> None:
    town = Town()
    town.change(HOST, ("link", network_link(town.front)), up=False)
    assert frame(town).disposition is Disposition.LINK_DOWN


def test_a_frame_for_another_mac_is_not_taken() -> None:
    """After its neighbour's MAC has changed: who still sends to the old one reaches nobody."""
    town = Town(front={"driver": "routed"})
    trace = frame(town, "02:00:00:00:00:77")
    assert trace.disposition is Disposition.LOST


def test_br_netfilter_asks_the_ip_chains_about_bridged_frames() -> None:
    plain, bridged = Town(), Town(facts=BRIDGED)
    seen = [
        any("forward" in text for text in steps(frame(t, t.api.mac, destination=API), "rule"))
        for t in (plain, bridged)
    ]
    assert seen == [False, True]


def test_br_netfilter_does_not_ask_twice() -> None:
    """ip_sabotage_in: what has passed prerouting on the bridge does not pass it again on the way up."""
    rules = steps(frame(Town(facts=BRIDGED)), "rule")
    assert sum("prerouting_raw" in text for text in rules) == 1


def test_br_netfilter_keeps_a_translated_packet_on_its_bridge() -> None:
    trace = Town(facts=BRIDGED).send("api", "192.0.2.7", 8080)
    assert trace.netns == "sandbox-web"
    assert any("stays there" in text for text in steps(trace, "bridge"))


def test_br_netfilter_lets_a_packet_translated_to_elsewhere_go_up() -> None:
    """A port of another network: the frame becomes the host's, which routes it."""
    published = PublishedPort(host_first=9090, host_last=9090, port=80)
    trace = Town(facts=BRIDGED, db_ports=(published,)).send("web", "192.0.2.7", 9090)
    assert (trace.disposition, trace.netns, trace.link) == (Disposition.DELIVERED, "sandbox-db", "eth0")


@pytest.mark.parametrize(("destination", "stays"), [("192.0.2.7", False), ("2001:db8::7", True)])
def test_br_netfilter_needs_ipv4_forwarding_even_for_what_stays_on_the_bridge(
    destination: str, stays: bool
) -> None:
    """Found by the differential test: br_netfilter.c says that bridged DNAT needs none, but ip_route_input returns no
    error there, just a route that is one."""
    town = Town(facts=BRIDGED)
    town.stop_forwarding()
    trace = town.send("api", destination, 8080)
    assert trace.disposition is (Disposition.DELIVERED if stays else Disposition.NOT_FORWARDED)


def test_a_bridge_without_its_own_entry_takes_nothing_up() -> None:
    """`bridge fdb flush` takes it (br_handle_frame_finish: then the frame is one for a port nobody knows)."""
    town = Town()
    bridge = town.world.namespace(HOST).link(network_link(town.front))
    assert bridge is not None
    own = ("fdb", bridge.name, bridge.mac)
    assert frame(town).passes
    assert own in [step.object for hop in frame(town).hops for step in hop.steps]
    del town.compiled.desired[HOST][own]
    lost = frame(town)
    assert (lost.disposition, own in [s.object for h in lost.hops for s in h.steps]) == (
        Disposition.LOST,
        True,
    )
    assert lost.hint == f"bridge fdb add {bridge.mac} dev {bridge.name} self permanent"


def test_a_bridge_that_takes_a_ports_mac_for_its_own_takes_its_frames_up() -> None:
    town = Town()
    name = network_link(town.front)
    there = town.compiled.desired[HOST]
    there["fdb", name, town.api.mac] = FdbEntry(link=name, mac=town.api.mac, is_own=True)
    del there["fdb", endpoint_link(town.api.id), town.api.mac]
    found = frame(town, to=town.api.mac, destination=API)
    assert "up from" in " ".join(step.text for hop in found.hops for step in hop.steps)
