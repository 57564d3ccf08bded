"""How many of the prefixes around a host are kept, and which."""

import ipaddress

from hypothesis import given
from hypothesis import strategies as st

from sealane.compile.facts import ForeignRoute
from sealane.linux import facts
from sealane.model.net import Prefix

FEW = 8


def routes(*prefixes: str) -> list[ForeignRoute]:
    return [ForeignRoute(Prefix(prefix), "route via eth0") for prefix in prefixes]


@st.composite
def prefixes(draw) -> str:
    family = draw(st.sampled_from([4, 6]))
    bits = 32 if family == 4 else 128
    address = draw(st.integers(0, 2**bits - 1))
    kind = ipaddress.IPv4Network if family == 4 else ipaddress.IPv6Network
    return str(kind((address, draw(st.integers(1, bits))), strict=False))


@given(st.lists(prefixes(), max_size=40))
def test_what_is_kept_covers_what_is_there_or_is_the_widest(there: list[str]) -> None:
    most, facts.ROUTES_MAX = facts.ROUTES_MAX, FEW
    try:
        kept = facts._bounded(routes(*there))
    finally:
        facts.ROUTES_MAX = most
    assert len(kept) <= FEW
    networks = [ipaddress.ip_network(route.prefix) for route in kept]
    for prefix in map(ipaddress.ip_network, there):
        covered = any(prefix.version == net.version and prefix.subnet_of(net) for net in networks)
        assert covered or all(net.prefixlen <= prefix.prefixlen for net in networks)


def test_few_are_kept_as_they_are() -> None:
    there = routes("10.1.2.3/32", "10.1.2.4/32", "fd00::1/128")
    assert facts._bounded([*there, *there]) == there


def test_at_the_bound_and_one_past_it(monkeypatch) -> None:
    monkeypatch.setattr(facts, "ROUTES_MAX", 2)
    assert facts._bounded(routes("10.1.2.3/32", "10.1.2.4/32")) == routes("10.1.2.3/32", "10.1.2.4/32")
    assert facts._bounded(routes("10.1.2.3/32", "10.1.2.4/32", "fd00:0:0:7::1/128")) == routes(
        "10.1.2.0/24", "fd00:0:0:7::/64"
    )
