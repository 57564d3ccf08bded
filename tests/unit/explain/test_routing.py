"""Where a destination leads, and under which source address."""

from sealane.explain.routing import Found, Routing, masked
from sealane.kernel.objects import Address, Route, RoutingRule

ADDRESSES = [
    Address(link="up0", address="192.0.2.7/24"),
    Address(link="up0", address="2001:db8::7/64"),
    Address(link="br0", address="10.1.0.1/24"),
    Address(link="br0", address="fd00:1::1/64"),
    Address(link="br0", address="fe80::1/64"),
]
ROUTES = [
    Route(dst="0.0.0.0/0", link="up0", gateway="192.0.2.1"),
    Route(dst="10.0.0.0/8", type="unreachable", metric=4096),
    Route(dst="10.1.0.9/32", link="sle9", src="10.1.0.1"),
    Route(dst="10.2.0.0/16", link="slow", metric=20),
    Route(dst="10.2.0.0/16", link="fast", metric=10),
]


def routing(*down: str, rules: tuple[RoutingRule, ...] = (), routes: list[Route] = ROUTES) -> Routing:
    return Routing(
        ADDRESSES,
        routes,
        rules,
        is_up=lambda name: name not in down,
        is_foreign=lambda name: name == "up0",
        has_loopback=lambda: "lo" not in down,
    )


def way(found: Found) -> tuple[str, str, str]:
    return found.kind, found.link, found.gateway


def test_the_longest_prefix_decides() -> None:
    table = routing()
    assert way(table.route("198.51.100.1")) == ("unicast", "up0", "192.0.2.1")
    assert way(table.route("10.9.9.9")) == ("unreachable", "", "")
    assert way(table.route("10.1.0.5")) == ("unicast", "br0", "")
    assert way(table.route("10.1.0.9")) == ("unicast", "sle9", "")


def test_of_equal_prefixes_the_lowest_metric_of_a_link_that_is_up() -> None:
    assert routing().route("10.2.3.4").link == "fast"
    assert routing("fast").route("10.2.3.4").link == "slow"
    assert routing("fast", "slow").route("10.2.3.4").kind == "unreachable"


def test_without_any_route_there_is_none() -> None:
    assert routing(routes=[]).route("198.51.100.1") == Found("none")
    assert routing().route("2001:db8:1::1") == Found("none")


def test_own_addresses_and_loopback_come_before_all_routes() -> None:
    table = routing()
    assert way(table.route("10.1.0.1"))[:2] == ("local", "br0")
    assert way(table.route("127.3.2.1"))[:2] == ("local", "lo")
    assert way(table.route("::1"))[:2] == ("local", "lo")
    assert routing("lo").route("::1").kind == "none"


def test_addresses_of_a_link_that_is_down() -> None:
    """Linux keeps the IPv4 ones and takes the IPv6 ones away."""
    table = routing("br0")
    assert table.is_local("10.1.0.1")
    assert not table.is_local("fd00:1::1")
    assert table.route("10.1.0.5").kind == "unreachable"


def test_a_connected_route_leads_to_its_address() -> None:
    assert routing().route("10.1.0.5").key == ("address", "br0", "10.1.0.1/24")


def test_a_rule_gives_a_source_its_own_table_and_what_it_lacks_comes_from_main() -> None:
    own = Route(dst="10.1.0.0/24", link="own0", table=1000)
    table = routing(rules=(RoutingRule(source="10.1.0.2", table=1000),), routes=[*ROUTES, own])
    assert table.route("10.1.0.5", "10.1.0.2").link == "own0"
    assert "table 1000" in table.route("10.1.0.5", "10.1.0.2").text
    assert table.route("10.1.0.5", "10.1.0.3").link == "br0"
    assert table.route("198.51.100.1", "10.1.0.2").link == "up0"


def test_rules_are_asked_by_priority() -> None:
    routes = [Route(dst="198.51.100.0/24", link=f"t{n}", table=n) for n in (1, 2)]
    rules = (
        RoutingRule(source="10.1.0.2", table=1, priority=20),
        RoutingRule(source="10.1.0.2", table=2, priority=10),
    )
    assert routing(rules=rules, routes=routes).route("198.51.100.1", "10.1.0.2").link == "t2"


def test_the_source_is_of_the_next_hops_subnet() -> None:
    table = routing()
    assert table.source_for(table.route("10.1.0.5"), "10.1.0.5") == "10.1.0.1"
    assert table.source_for(table.route("198.51.100.1"), "198.51.100.1") == "192.0.2.7"
    assert table.source_for(table.route("10.1.0.9"), "10.1.0.9") == "10.1.0.1"
    assert table.source_for(table.route("10.1.0.1"), "10.1.0.1") == "10.1.0.1"


def test_a_link_without_addresses_borrows_one() -> None:
    """IPv4: of the first link, foreign ones were there first. IPv6: a like one, private for private."""
    assert routing().source_on("sle9", 4, "10.1.0.9") == "192.0.2.7"
    assert routing("up0").source_on("sle9", 4, "10.1.0.9") == "10.1.0.1"
    assert routing().source_on("sle9", 6, "fd00:9::1") == "fd00:1::1"
    assert routing().source_on("sle9", 6, "2001:db8:9::1") == "2001:db8::7"


def test_a_link_local_address_is_no_source_for_the_rest_of_the_world() -> None:
    table = Routing(
        [Address(link="eth0", address="fe80::2/64")],
        [],
        [],
        is_up=lambda _: True,
        is_foreign=lambda _: False,
        has_loopback=lambda: True,
    )
    assert table.source_on("eth0", 6, "fd00::1") == ""


def test_prefixes_are_written_as_the_kernel_writes_them() -> None:
    assert masked("10.1.2.3", 20) == "10.1.0.0/20"
    assert masked("10.1.2.3", 0) == "0.0.0.0/0"
    assert masked("fd00:1::abcd", 64) == "fd00:1::/64"
