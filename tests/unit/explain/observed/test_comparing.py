"""A verdict held against what was read: contradictions are findings, and what was not understood is named."""

from typing import Any

import msgspec
import pytest

from sealane.explain.observed import settings
from sealane.explain.observed.comparing import LISTED_MAX, Comparison, desired
from sealane.explain.observed.reading import (
    LinkReading,
    NamespaceReading,
    NeighbourReading,
    RouteReading,
    RuleReading,
    Wanted,
)
from sealane.explain.packet import Trace
from sealane.explain.walk import answer, walk
from sealane.kernel.state import HOST
from unit.explain.worlds import HOST_ADDRESS, OUTSIDE, UPLINK, Town

API = {4: "10.1.0.11", 6: "fd00:1::11"}
BOX = "sandbox-web"


def legs(town: Town, origin: str, target: str, **fields: Any) -> list[Trace]:
    there = town.send(origin, target, **fields)
    assert there.passes, there.reason
    return [there, walk(town.world, *answer(there), there.flows)]


def untouched(what: Wanted) -> NamespaceReading:
    return NamespaceReading(
        links={name: LinkReading(name=name) for name in what.links},
        routes={ask: RouteReading(kind=ask.kind, link=ask.link, gateway=ask.gateway) for ask in what.lookups},
        own_macs=what.bridged,
    )


class Case:
    def __init__(self, origin: str = "web", target: str = API[4], **fields: Any) -> None:
        self.town = Town()
        self.legs = legs(self.town, origin, target, **fields)
        self.readings = {netns: untouched(what) for netns, what in desired(self.legs).items()}

    def change(self, netns: str, **fields: Any) -> None:
        self.readings[netns] = msgspec.structs.replace(self.readings[netns], **fields)

    def link(self, netns: str, name: str, **fields: Any) -> None:
        links = dict(self.readings[netns].links)
        links[name] = msgspec.structs.replace(links[name], **fields)
        self.change(netns, links=links)

    def routes(self, netns: str, answer_with: RouteReading) -> None:
        self.change(netns, routes=dict.fromkeys(self.readings[netns].routes, answer_with))

    @property
    def comparison(self) -> Comparison:
        return Comparison(self.town.world, self.legs, self.readings)

    @property
    def findings(self) -> list[str]:
        return self.comparison.findings()

    @property
    def unread(self) -> list[str]:
        return self.comparison.unread()


CASES = [
    ("web", API[4]),
    ("web", API[6]),
    ("web", OUTSIDE[4]),
    ("host", API[4]),
    ("outside", HOST_ADDRESS[4]),
]


@pytest.mark.parametrize(("origin", "target"), CASES)
def test_where_nothing_differs_nothing_is_said(origin: str, target: str) -> None:
    case = Case(origin, target, **({"port": 8080} if origin == "outside" else {}))
    assert (case.findings, case.unread) == ([], [])


@pytest.mark.parametrize(("origin", "target"), CASES)
def test_what_rests_on_the_kernel_is_asked_for_in_each_namespace(origin: str, target: str) -> None:
    case = Case(origin, target, **({"port": 8080} if origin == "outside" else {}))
    asked = desired(case.legs)
    assert set(asked) == {hop.netns for leg in case.legs for hop in leg.hops}
    for netns in {leg.hops[0].netns for leg in case.legs}:
        assert asked[netns].links
        assert asked[netns].lookups or netns == HOST


@pytest.mark.parametrize(
    ("reading", "words"),
    [
        (RouteReading(error="EHOSTUNREACH"), "is refused (EHOSTUNREACH)"),
        (RouteReading(kind="blackhole", table=77), "is blackhole (table 77)"),
        (RouteReading(kind="unicast", link="eth9", table=254), "goes by eth9 (table 254), and not by eth0"),
        (RouteReading(kind="unicast", link="eth0", gateway="10.1.0.77"), "goes via 10.1.0.77 by eth0"),
        (RouteReading(kind="unicast", link="eth0", encap=True), "is encapsulated"),
        (RouteReading(kind="unicast", link="eth0", mtu=100), "carries 100 bytes at most"),
    ],
)
def test_another_route_is_a_finding(reading: RouteReading, words: str) -> None:
    case = Case()
    case.routes(BOX, reading)
    assert any(words in text and text.startswith("web: the route to ") for text in case.findings), (
        case.findings
    )


def test_a_route_that_the_verdict_says_is_not_there_may_be_refused_in_any_way() -> None:
    town = Town()
    there = town.send("db", OUTSIDE[4], port=443)
    found = [there] if not there.passes else []
    for trace in found:
        (netns,) = desired([trace])
        (lookup,) = desired([trace])[netns].lookups
        reading = untouched(desired([trace])[netns])
        refused = msgspec.structs.replace(reading, routes={lookup: RouteReading(error="ENETUNREACH")})
        led = msgspec.structs.replace(reading, routes={lookup: RouteReading(kind="unicast", link="eth0")})
        assert Comparison(town.world, [trace], {netns: refused}).findings() == []
        assert Comparison(town.world, [trace], {netns: led}).findings()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"up": False}, "eth0 is down"),
        ({"carrier": False}, "eth0 does not carry"),
        ({"state": 5}, "eth0 does not carry (operational state 5)"),
        ({"protodown": True}, "eth0 does not carry"),
    ],
)
def test_a_link_that_does_not_carry_is_a_finding(fields: dict[str, Any], words: str) -> None:
    case = Case()
    case.link(BOX, "eth0", **fields)
    assert [text for text in case.findings if words in text]


def test_multicast_is_needed_for_ipv6_alone() -> None:
    four, six = Case(), Case(target=API[6])
    for case in (four, six):
        case.link(BOX, "eth0", multicast=False)
    assert four.findings == []
    assert "takes no multicast" in six.findings[0]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"xdp": True}, "XDP program on eth0"),
        ({"programs": ("qdisc htb",)}, "qdisc htb on eth0"),
        ({"port": {"locked": 1}}, "bridge port eth0: locked = 1"),
        ({"bridge": {"vlan_filtering": 1}}, "bridge eth0: vlan_filtering = 1"),
        ({"master": "vrf0"}, "eth0 is part of vrf0"),
    ],
)
def test_what_is_on_a_link_is_not_read(fields: dict[str, Any], words: str) -> None:
    case = Case()
    case.link(BOX, "eth0", **fields)
    assert case.unread == [f"web: {words}"]
    assert case.findings == []


def test_links_that_take_frames_away_are_not_read() -> None:
    case = Case()
    links = dict(case.readings[BOX].links)
    links["m0"] = LinkReading(name="m0", kind="macvlan", below="eth0")
    links["d0"] = LinkReading(name="d0", kind="vlan", below="eth0")
    case.change(BOX, links=links)
    assert case.unread == ["web: m0 (macvlan) takes frames from eth0"]


def test_a_stranger_on_our_bridge_is_not_read() -> None:
    case = Case("host", API[4])
    bridge = next(name for name in case.readings[HOST].links if name.startswith("slb"))
    links = {**case.readings[HOST].links, "x0": LinkReading(name="x0", master=bridge)}
    case.change(HOST, links=links)
    assert case.unread == [f"host: x0 is a port of {bridge}, and not sealane's"]


@pytest.mark.parametrize(
    ("item", "finding"),
    [
        (
            NeighbourReading("eth0", API[4], "02:00:00:00:00:99", is_fixed=True),
            "is taken to be at 02:00:00:00:00:99",
        ),
        (NeighbourReading("eth0", API[4], "02:00:00:00:01:0b", is_fixed=True), ""),
        (NeighbourReading("eth0", API[4], "", is_fixed=False, is_silent=True), ""),
        (NeighbourReading("eth0", "10.1.0.99", "02:00:00:00:00:99", is_fixed=True), ""),
    ],
)
def test_a_neighbour_with_another_mac_is_a_finding(item: NeighbourReading, finding: str) -> None:
    case = Case()
    case.change(BOX, neighbours=(item,))
    assert (bool(case.findings), bool(finding)) == (bool(finding),) * 2
    assert finding in "".join(case.findings)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"mac": "02:00:00:00:00:99", "is_fixed": True}, "is fixed at 02:00:00:00:00:99 on uplink0"),
        ({"mac": "", "is_fixed": False, "is_silent": True}, "has not answered on uplink0"),
        ({"mac": "02:00:00:00:00:99", "is_fixed": False}, ""),
    ],
)
def test_of_a_next_hop_outside_what_speaks_against_it_is_told(fields: dict[str, Any], words: str) -> None:
    case = Case(target=OUTSIDE[4])
    case.change(HOST, neighbours=(NeighbourReading(UPLINK, OUTSIDE[4], **fields),))
    assert case.findings == []
    assert words in "".join(case.unread)
    assert bool(case.unread) is bool(words)


def test_a_bridge_without_its_own_entry_is_a_finding() -> None:
    case = Case("host", API[4])
    case.change(HOST, own_macs=frozenset())
    assert "has no entry for its own MAC" in case.findings[0]


def test_an_address_that_is_not_usable_is_a_finding_if_it_is_one_of_the_packets() -> None:
    case = Case(target=API[6])
    case.change("sandbox-api", unready=(API[6],))
    case.change(BOX, unready=("fd00:9::9",))
    assert case.findings == [f"api: {API[6]} is not usable (tentative, or a duplicate)"]


@pytest.mark.parametrize(
    ("path", "good", "bad"),
    [
        ("net/ipv4/conf/eth0/arp_ignore", "0", "8"),
        ("net/ipv4/ip_default_ttl", "64", "1"),
        ("net/ipv4/neigh/eth0/mcast_solicit", "3", "0"),
        ("net/netfilter/nf_conntrack_udp_timeout", "30", "0"),
    ],
)
def test_settings_with_another_value_are_findings(path: str, good: str, bad: str) -> None:
    case = Case()
    case.change(BOX, sysctls={path: good})
    assert case.findings == []
    case.change(BOX, sysctls={path: bad})
    assert case.findings == [f"web: {path.replace('/', '.')} = {bad}"]


def test_settings_of_the_other_family_and_of_pings_matter_to_them_alone() -> None:
    assert "net/ipv6/conf/all/disable_ipv6" not in dict(settings.expected(4, frozenset(), "tcp"))
    assert "net/ipv4/icmp_echo_ignore_all" not in dict(settings.expected(4, frozenset(), "tcp"))
    assert "net/ipv4/icmp_echo_ignore_all" in dict(settings.expected(4, frozenset(), "icmp"))
    assert set(dict(settings.expected(6, frozenset({"eth0"}), "icmp"))) <= set(
        settings.paths(frozenset({"eth0"}))
    )


def test_a_full_table_of_flows_is_a_finding() -> None:
    case = Case()
    case.change(HOST, sysctls={settings.TRACKED_COUNT: "9", settings.TRACKED_MAX: "10"})
    assert case.findings == []
    case.change(HOST, sysctls={settings.TRACKED_COUNT: "10", settings.TRACKED_MAX: "10"})
    assert case.findings == ["host: the table of tracked connections is full (10 of 10)"]


def test_rules_that_the_kernel_has_heeded_say_nothing() -> None:
    case = Case()
    rules = (
        RuleReading("100 (`ip rule`)", 4, is_answered=True),
        RuleReading("101 (`ip rule`)", 6, is_answered=False),
        RuleReading("102 (`ip rule`)", 4, is_answered=False),
    )
    case.change(BOX, policies=rules)
    assert case.unread == ["web: routing rule: 102 (`ip rule`)"]


def test_a_namespace_that_was_not_read_is_named() -> None:
    case = Case()
    del case.readings["sandbox-api"]
    assert case.unread == ["api: its namespace cannot be read"]
    case.change(BOX, unread=("nftables (denied)",), ipsec=1, programs=("services of IPVS",))
    assert case.unread == [
        "web: nftables (denied)",
        "web: 1 IPsec policies (`ip xfrm policy`)",
        "web: services of IPVS",
        "api: its namespace cannot be read",
    ]


def test_doubts_about_foreign_rules_come_first() -> None:
    case = Case()
    met = msgspec.structs.replace(case.legs[0].met, doubts=("host: rule 4 of ip table fw, chain c",))
    case.legs[0] = msgspec.structs.replace(case.legs[0], met=met)
    case.change(BOX, ipsec=1)
    assert case.unread[0] == "host: rule 4 of ip table fw, chain c"


def test_no_more_is_listed_than_helps() -> None:
    case = Case()
    case.change(BOX, unread=tuple(f"piece {number}" for number in range(2 * LISTED_MAX)))
    assert len(case.unread) == LISTED_MAX
