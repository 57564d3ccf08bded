"""A packet's way, network by network: who is reached, under which address, and why not."""

import msgspec
import pytest

from sealane.compile.names import endpoint_link, network_link
from sealane.explain.foreign_state import ForeignLink
from sealane.explain.packet import Arrives, Disposition, Flow, Packet, Sent, Trace
from sealane.explain.walk import answer, is_answered, walk
from sealane.explain.world import UnexplainedError, World
from sealane.kernel.links import OtherKind, Veth
from sealane.kernel.objects import Address, Link, Neighbour, Route, Sysctl
from sealane.kernel.state import HOST, namespace
from sealane.model.endpoint import PublishedPort
from unit.explain.worlds import BRIDGED, HOST_ADDRESS, OUTSIDE, UPLINK, Town, start_of, steps, whys

BOTH = pytest.mark.parametrize("family", [4, 6])
DRIVERS = pytest.mark.parametrize("driver", ["bridge", "routed"])
NETFILTER = pytest.mark.parametrize("facts", [None, BRIDGED], ids=["plain", "br_netfilter"])

WEB = {4: "10.1.0.10", 6: "fd00:1::10"}
API = {4: "10.1.0.11", 6: "fd00:1::11"}
DB = {4: "10.2.0.12", 6: "fd00:2::12"}


def town(driver: str = "bridge", facts=None, **options) -> Town:
    chosen = {"facts": facts} if facts else {}
    return Town(front={"driver": driver, **options}, **chosen)


def back(where: Town, there: Trace) -> Trace:
    return walk(where.world, *answer(there), there.flows)


# --- within a network -----------------------------------------------------------------------------------------------


@BOTH
@DRIVERS
@NETFILTER
def test_members_of_a_network_reach_each_other_and_the_answer_comes_back(
    family: int, driver: str, facts
) -> None:
    where = town(driver, facts)
    there = where.send("api", WEB[family])
    assert (there.disposition, there.netns) == (Disposition.DELIVERED, "sandbox-web")
    assert there.final.source == API[family]
    assert is_answered(there, back(where, there))


@BOTH
@NETFILTER
def test_without_icc_they_do_not_but_by_a_published_port(family: int, facts) -> None:
    where = town("bridge", facts, icc=False)
    direct = where.send("api", WEB[family])
    assert direct.disposition in {Disposition.NEIGHBOUR_UNREACHABLE, Disposition.DENIED}
    published = where.send("api", HOST_ADDRESS[family], 8080)
    assert (published.disposition, published.netns) == (Disposition.DELIVERED, "sandbox-web")
    assert is_answered(published, back(where, published))


@BOTH
def test_traffic_within_a_routed_network_is_not_tracked(family: int) -> None:
    trace = town("routed").send("api", WEB[family])
    assert trace.flows == ()
    assert "untracked" in steps(trace, "conntrack")


# --- between networks -----------------------------------------------------------------------------------------------


@BOTH
@DRIVERS
@NETFILTER
def test_networks_are_kept_apart(family: int, driver: str, facts) -> None:
    trace = town(driver, facts).send("web", DB[family])
    assert trace.disposition is Disposition.DENIED
    assert trace.reason.startswith("network back takes nothing from outside")
    assert whys(trace)[-1] == "isolation"


@BOTH
def test_who_is_on_both_reaches_both_each_by_its_own_link(family: int) -> None:
    where = Town()
    assert where.send("api", DB[family]).final.source == {4: "10.2.0.11", 6: "fd00:2::11"}[family]
    assert where.send("api", WEB[family]).final.source == API[family]


@BOTH
def test_what_is_published_is_reached_from_another_network_under_the_true_source(family: int) -> None:
    where = Town()
    there = where.send("db", HOST_ADDRESS[family], 8080)
    assert (there.netns, there.final.source, there.final.destination_port) == ("sandbox-web", DB[family], 80)
    assert is_answered(there, back(where, there))


@BOTH
@NETFILTER
def test_a_hairpin_comes_from_the_gateway(family: int, facts) -> None:
    """So that the answer goes back through the host, where it is translated."""
    where = town("bridge", facts)
    for origin in ("api", "web"):
        there = where.send(origin, HOST_ADDRESS[family], 8080)
        assert (there.netns, there.final.source) == ("sandbox-web", {4: "10.1.0.1", 6: "fd00:1::1"}[family])
        assert is_answered(there, back(where, there))


def test_an_answer_opens_nothing_in_the_other_direction() -> None:
    """The flow of web to outside is established, and still nobody else gets in by it."""
    where = Town()
    there = where.send("web", OUTSIDE[4])
    answered = back(where, there)
    stranger = Packet(source=OUTSIDE[4], source_port=81, destination=WEB[4], destination_port=40000)
    assert walk(where.world, stranger, start_of("outside"), answered.flows).disposition is Disposition.DENIED


# --- in and out -----------------------------------------------------------------------------------------------------


@BOTH
@DRIVERS
def test_a_published_port_from_outside(family: int, driver: str) -> None:
    where = town(driver)
    there = where.send("outside", HOST_ADDRESS[family], 8080)
    assert (there.disposition, there.netns) == (Disposition.DELIVERED, "sandbox-web")
    assert (there.final.source, there.final.destination, there.final.destination_port) == (
        OUTSIDE[family],
        WEB[family],
        80,
    )
    answered = back(where, there)
    assert (answered.disposition, answered.link) == (Disposition.EXITS, UPLINK)
    assert is_answered(there, answered)


@BOTH
def test_what_is_not_published_is_the_hosts_own(family: int) -> None:
    there = Town().send("outside", HOST_ADDRESS[family], 8081)
    assert (there.disposition, there.netns) == (Disposition.DELIVERED, HOST)


@BOTH
@DRIVERS
def test_leaving_under_the_hosts_address(family: int, driver: str) -> None:
    where = town(driver)
    there = where.send("web", OUTSIDE[family])
    assert (there.disposition, there.final.source) == (Disposition.EXITS, HOST_ADDRESS[family])
    answered = back(where, there)
    assert (answered.disposition, answered.netns) == (Disposition.DELIVERED, "sandbox-web")
    assert is_answered(there, answered)


@BOTH
def test_leaving_under_the_own_address_without_masquerade(family: int) -> None:
    assert town(masquerade=False).send("web", OUTSIDE[family]).final.source == WEB[family]


@BOTH
def test_addresses_of_a_masqueraded_network_are_not_reached_from_outside(family: int) -> None:
    trace = Town().send("outside", WEB[family])
    assert (trace.disposition, whys(trace)[-1]) == (Disposition.DENIED, "direct")


@BOTH
def test_without_masquerade_published_ports_are_open_at_the_own_address_and_others_are_not(
    family: int,
) -> None:
    where = town(masquerade=False)
    assert where.send("outside", WEB[family], 80).netns == "sandbox-web"
    assert whys(where.send("outside", WEB[family], 81))[-1] == "isolation"


@BOTH
def test_private_sources_do_not_come_from_outside(family: int) -> None:
    trace = Town().send("outside", HOST_ADDRESS[family], 8080, source=API[family])
    assert trace.disposition is Disposition.SPOOFED


@BOTH
def test_an_internal_network_has_no_way_out(family: int) -> None:
    trace = Town(front={"internal": True}, ports=()).send("web", OUTSIDE[family])
    assert (trace.disposition, trace.netns) == (Disposition.NO_ROUTE, "sandbox-web")


def test_what_takes_a_way_out_of_an_internal_network_all_the_same_is_denied() -> None:
    where = Town(front={"internal": True}, ports=())
    route = Route(dst="0.0.0.0/0", link="eth0", gateway="10.1.0.1")
    where.compiled.desired["sandbox-web"][route.key] = route
    trace = where.send("web", OUTSIDE[4])
    assert (trace.disposition, whys(trace)[-1]) == (Disposition.DENIED, "internal")


@BOTH
@DRIVERS
def test_what_is_published_on_a_second_network_is_answered_by_it(family: int, driver: str) -> None:
    """The rule for its address has its own routes; without it the answer takes the default route, and a guard drops
    what is not that network's."""
    port = PublishedPort(host_first=9090, host_last=9090, port=80)
    where = Town(back={"driver": driver}, back_ports=(port,))
    there = where.send("outside", HOST_ADDRESS[family], 9090)
    assert there.link == "eth1"
    assert is_answered(there, back(where, there))
    for key in [k for k in where.compiled.desired["sandbox-api"] if k[0] == "rule"]:
        where.remove("sandbox-api", key)
    assert not back(where, there).passes


# --- the host -------------------------------------------------------------------------------------------------------


@BOTH
@DRIVERS
def test_the_host_reaches_its_workloads(family: int, driver: str) -> None:
    where = town(driver)
    there = where.send(HOST, WEB[family])
    assert (there.netns, there.final.source) == ("sandbox-web", {4: "10.1.0.1", 6: "fd00:1::1"}[family])
    assert is_answered(there, back(where, there))


@BOTH
def test_a_published_port_of_its_own(family: int) -> None:
    where = Town()
    there = where.send(HOST, HOST_ADDRESS[family], 8080)
    assert (there.netns, there.final.destination_port) == ("sandbox-web", 80)
    assert is_answered(there, back(where, there))


@BOTH
def test_itself(family: int) -> None:
    where = Town()
    there = where.send(HOST, HOST_ADDRESS[family], 22)
    assert (there.disposition, there.netns, there.link) == (Disposition.DELIVERED, HOST, "lo")
    assert is_answered(there, back(where, there))


def test_a_sandboxs_own_loopback() -> None:
    assert Town().send("web", "127.0.0.1", 5000).netns == "sandbox-web"


# --- what the kernel itself refuses ---------------------------------------------------------------------------------


@BOTH
def test_a_host_that_does_not_forward(family: int) -> None:
    where = Town()
    path = "net/ipv4/ip_forward" if family == 4 else "net/ipv6/conf/all/forwarding"
    where.change(HOST, ("sysctl", path), value="0")
    trace = where.send("outside", HOST_ADDRESS[family], 8080)
    assert trace.disposition is Disposition.NOT_FORWARDED
    assert path.replace("/", ".") in trace.reason


def test_a_setting_of_the_foreign_state_counts_where_sealane_sets_none() -> None:
    strict = (Sysctl(path="net/ipv4/conf/all/rp_filter", value="1"),)
    where = Town(
        sysctls=strict,
        routes=(Route(dst="0.0.0.0/0", link="other0"),),
        links=(ForeignLink(name=UPLINK), ForeignLink(name="other0")),
    )
    far = Packet(source="198.51.100.1", destination=HOST_ADDRESS[4], destination_port=8080)
    trace = walk(where.world, far, Arrives(HOST, UPLINK))
    assert trace.disposition is Disposition.MARTIAN
    assert "rp_filter=1" in trace.reason
    assert "other0" in trace.reason
    loose = Town(
        sysctls=(msgspec.structs.replace(strict[0], value="2"),),
        routes=where.foreign_state.routes,
        links=where.foreign_state.links,
    )
    assert walk(loose.world, far, Arrives(HOST, UPLINK)).disposition is Disposition.DELIVERED


@pytest.mark.parametrize("source", ["127.0.0.1", HOST_ADDRESS[4]])
def test_martian_sources(source: str) -> None:
    assert Town().send("outside", HOST_ADDRESS[4], 22, source=source).disposition is Disposition.MARTIAN


@BOTH
def test_loopback_is_not_reached_from_outside(family: int) -> None:
    loopback = {4: "127.0.0.1", 6: "::1"}[family]
    assert Town().send("outside", loopback, 22).disposition is Disposition.MARTIAN


def test_a_port_that_is_published_everywhere_is_translated_before_ipv4_looks_for_loopback() -> None:
    """A neighbour may call it 127.0.0.1:8080 as well; what is published on 127.0.0.1 alone is in no map."""
    assert Town().send("outside", "127.0.0.1", 8080).netns == "sandbox-web"
    assert Town().send("outside", "::1", 8080).disposition is Disposition.MARTIAN
    private = Town(ports=(PublishedPort(host_address="127.0.0.1", host_first=8080, host_last=8080, port=80),))
    assert private.send("outside", "127.0.0.1", 8080).disposition is Disposition.MARTIAN


def test_a_ttl_that_is_used_up() -> None:
    trace = Town().send("outside", HOST_ADDRESS[4], 8080, ttl=1)
    assert trace.disposition is Disposition.LOOP
    assert "TTL" in trace.reason


@BOTH
def test_an_address_of_a_routed_network_that_nobody_has(family: int) -> None:
    free = {4: "10.1.0.99", 6: "fd00:1::99"}[family]
    trace = town("routed").send("api", free)
    assert (trace.disposition, trace.netns) == (Disposition.UNREACHABLE, HOST)


def test_a_family_that_the_sender_does_not_have() -> None:
    where = Town(front={"subnets": Town().front.subnets[:1]})
    assert where.send("web", OUTSIDE[6]).disposition is Disposition.NO_ROUTE


def test_a_route_without_an_address_to_send_from() -> None:
    where = Town(front={"subnets": Town().front.subnets[:1]})
    route = Route(dst="::/0", link="eth0", gateway="fe80::1")
    where.compiled.desired["sandbox-web"][route.key] = route
    assert where.send("web", OUTSIDE[6]).disposition is Disposition.NO_ADDRESS


def test_masquerade_where_there_is_no_address_to_take() -> None:
    where = Town(back={"subnets": Town().back.subnets[:1]}, addresses=())
    where.remove(HOST, ("address", network_link(where.front), "10.1.0.1/24"))
    where.remove(HOST, ("address", network_link(where.back), "10.2.0.1/24"))
    frame = Packet(
        source=WEB[4],
        destination="198.51.100.1",
        destination_port=80,
        mac_source=where.web.mac,
        mac_destination=where.world.namespace(HOST).link(network_link(where.front)).mac,
    )
    trace = walk(where.world, frame, Arrives(HOST, endpoint_link(where.web.id)))
    assert trace.disposition is Disposition.DENIED
    assert "no address to masquerade under" in trace.reason


@pytest.mark.parametrize("destination", ["224.0.0.1", "255.255.255.255", "ff02::1"])
def test_multicast_is_not_explained(destination: str) -> None:
    with pytest.raises(UnexplainedError, match=destination):
        Town().send("web", destination)


# --- size -----------------------------------------------------------------------------------------------------------


def test_a_packet_that_is_too_big_for_the_senders_own_link() -> None:
    where = Town()
    assert where.send("web", API[4], size=1401, dont_fragment=True).disposition is Disposition.TOO_BIG
    pieces = where.send("web", API[4], size=3000, proto="udp")
    assert (pieces.disposition, pieces.final.fragment) == (Disposition.DELIVERED, 1400)


@BOTH
def test_a_smaller_link_on_the_way(family: int) -> None:
    """Without DF an IPv4 packet is cut to pieces; else the sender is told."""
    where = Town(front={"mtu": 1300}, facts=msgspec.structs.replace(Town().compiled.facts, uplink_mtu=1500))
    whole = where.send("outside", HOST_ADDRESS[family], 8080, size=1400, dont_fragment=True)
    assert whole.disposition is Disposition.TOO_BIG
    assert "the sender is told" in whole.reason
    if family == 4:
        assert where.send("outside", HOST_ADDRESS[4], 8080, size=1400).final.fragment == 1300


def test_a_bridge_says_nothing_of_what_does_not_fit() -> None:
    where = Town()
    where.change(HOST, ("link", endpoint_link(where.web.id)), mtu=1000)
    trace = where.send("api", WEB[4], size=1400)
    assert trace.disposition is Disposition.TOO_BIG
    assert "says nothing" in trace.reason


# --- links that are down --------------------------------------------------------------------------------------------


def test_a_link_that_is_down_inside_has_no_routes() -> None:
    where = Town()
    where.change("sandbox-web", ("link", "eth0"), up=False)
    assert where.send("web", API[4]).disposition is Disposition.NO_ROUTE
    assert where.send("api", WEB[4]).disposition is Disposition.NEIGHBOUR_UNREACHABLE


def test_a_port_that_is_down() -> None:
    where = Town()
    where.change(HOST, ("link", endpoint_link(where.web.id)), up=False)
    assert where.send("web", API[4]).disposition is Disposition.NEIGHBOUR_UNREACHABLE
    assert where.send(HOST, WEB[4]).disposition is Disposition.LINK_DOWN


def test_a_routed_link_whose_family_is_switched_off() -> None:
    four = Town().front.subnets[:1]
    where = Town(front={"driver": "routed", "subnets": four})
    link = endpoint_link(where.web.id)
    where.compiled.desired[HOST]["sysctl", f"net/ipv6/conf/{link}/disable_ipv6"] = Sysctl(
        path=f"net/ipv6/conf/{link}/disable_ipv6", value="1"
    )
    frame = Packet(source=DB[6], destination=OUTSIDE[6], destination_port=80)
    trace = walk(where.world, frame, Arrives(HOST, link))
    assert trace.disposition is Disposition.NOT_FORWARDED
    assert "switched off" in trace.reason


# --- loops, flows, answers ------------------------------------------------------------------------------------------


def test_a_packet_that_comes_to_one_place_twice_is_in_a_loop() -> None:
    """Two namespaces that each take the other for the way to 198.51.100.0/24."""
    ends = {HOST: ("h0", "02:00:00:00:00:01", "10.9.0.1"), "there": ("t0", "02:00:00:00:00:02", "10.9.0.2")}
    states = {}
    for netns, other in ((HOST, "there"), ("there", HOST)):
        (link, mac, address), (far, far_mac, gateway) = ends[netns], ends[other]
        states[netns] = namespace(
            [
                Link(name=link, kind=Veth(peer=(other, far)), mac=mac),
                Address(link=link, address=f"{address}/24"),
                Neighbour(link=link, address=gateway, mac=far_mac),
                Route(dst="198.51.100.0/24", link=link, gateway=gateway),
                Sysctl(path="net/ipv4/ip_forward", value="1"),
            ]
        )
    packet = Packet(source="203.0.113.5", destination="198.51.100.1")
    trace = walk(World(states), packet, Arrives(HOST, "h0"))
    assert trace.disposition is Disposition.LOOP
    assert "a second time" in trace.reason
    assert [hop.netns for hop in trace.hops] == [HOST, "there", HOST]


def test_a_frame_by_a_link_that_is_not_there() -> None:
    trace = walk(Town().world, Packet(source="10.1.0.1", destination=WEB[4]), Arrives(HOST, "gone0"))
    assert trace.disposition is Disposition.LINK_DOWN


def test_the_other_end_of_a_veth_is_down() -> None:
    where = town("routed")
    where.change(HOST, ("link", endpoint_link(where.web.id)), up=False)
    assert where.send("web", API[4]).reason == "the other end of eth0 is down"


@pytest.mark.parametrize("driver", ["bridge", "routed"])
@pytest.mark.parametrize("is_inside", [False, True])
def test_of_a_link_of_an_unknown_kind_nothing_is_said(driver: str, is_inside: bool) -> None:
    """It has no other end that could be down: where it leads is not known."""
    where = town(driver)
    netns, name = ("sandbox-web", "eth0") if is_inside else (HOST, endpoint_link(where.web.id))
    where.change(netns, ("link", name), kind=OtherKind(name="tun"))
    with pytest.raises(UnexplainedError, match=f"{name} is of kind tun, which explain does not follow"):
        where.send("web" if is_inside else HOST, API[4] if is_inside else WEB[4])


def test_a_half_made_veth_knows_its_other_end_by_the_host() -> None:
    """The sandbox side is given its full record when it is opened."""
    where = Town()
    where.change("sandbox-web", ("link", "eth0"), peer=None)
    assert where.send("web", API[4]).disposition is Disposition.DELIVERED


def test_no_answer_is_none() -> None:
    where = Town()
    there = where.send("outside", HOST_ADDRESS[4], 8080)
    where.stop_forwarding()
    assert not is_answered(there, back(where, there))


def test_the_answer_of_an_icmp_echo_is_a_reply() -> None:
    where = Town()
    there = where.send("api", WEB[4], proto="icmp")
    packet, start = answer(there)
    assert (packet.icmp_type, start) == (0, Sent("sandbox-web"))
    assert is_answered(there, walk(where.world, packet, start))


def test_an_answer_from_elsewhere_is_none() -> None:
    where = Town()
    there = where.send("outside", HOST_ADDRESS[4], 8080)
    untranslated = walk(where.world, *answer(there), ())
    assert not is_answered(there, untranslated)


def test_an_error_about_a_flow_finds_back_to_its_sender() -> None:
    """A router outside says that a packet was too big: related, against the flow, translated."""
    where = Town()
    there = where.send("web", OUTSIDE[4])
    error = Packet(
        proto="icmp", icmp_type=3, source="192.0.2.1", destination=HOST_ADDRESS[4], about=there.final
    )
    trace = walk(where.world, error, start_of("outside"), there.flows)
    assert (trace.disposition, trace.netns) == (Disposition.DELIVERED, "sandbox-web")
    assert "related, reply direction" in steps(trace, "conntrack")


def test_a_stale_flow_leads_to_where_it_was_made_for() -> None:
    """Decided once a flow (moby#53384): why a publish that moves must forget its UDP flows."""
    old = Town()
    there = old.send("outside", HOST_ADDRESS[4], 8080, proto="udp")
    assert there.netns == HOST
    published = Town(ports=(PublishedPort(proto="udp", host_first=8080, host_last=8080, port=80),))
    again = walk(published.world, there.packet, start_of("outside"), there.flows)
    assert again.netns == HOST
    assert published.send("outside", HOST_ADDRESS[4], 8080, proto="udp").netns == "sandbox-web"
    assert all(isinstance(flow, Flow) for flow in there.flows)


def test_that_nothing_runs_there_is_said() -> None:
    where = Town()
    assert "nothing runs" not in where.send("web", API[4]).reason
    where.idle = {"sandbox-api"}
    trace = where.send("web", API[4])
    assert trace.disposition is Disposition.DELIVERED
    assert "nothing runs: its container has ended" in trace.reason
    assert trace.hint.startswith("`sealane start ")
