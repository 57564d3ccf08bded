"""Laws of the allocator and of the pools, against sets that are filled and searched in the plainest way."""

import ipaddress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sealane.compile.facts import Facts, ForeignRoute
from sealane.ipam import allocate, pools
from sealane.ipam.problems import AddressProblem
from sealane.model.net import from_int
from sealane.model.network import Subnet


@st.composite
def subnets(draw):
    """Small ones of both families, so that they are full within a few steps."""
    family = draw(st.sampled_from([4, 6]))
    bits = 32 if family == 4 else 128
    length = bits - draw(st.integers(1, 5))
    network = ipaddress.ip_network(f"{'10.1.2.0' if family == 4 else 'fd00::1:0'}/{length}")
    every = [str(address) for address in network]
    gateway = draw(st.sampled_from(usable(network)))
    ip_range = None
    if draw(st.booleans()):
        first = draw(st.sampled_from(every))
        ip_range = str(ipaddress.ip_network(f"{first}/{draw(st.integers(length, bits))}", strict=False))
    reserved = draw(st.lists(st.sampled_from(every), max_size=3, unique=True))
    return Subnet(prefix=str(network), gateway=gateway, ip_range=ip_range, reserved=tuple(reserved))


def usable(network):
    every = [str(address) for address in network]
    if len(every) <= 2:
        return every
    return every[1:-1] if network.version == 4 else every[1:]


def automatic(subnet):
    """The addresses that may be handed out unasked, in order."""
    network = ipaddress.ip_network(subnet.prefix)
    inside = ipaddress.ip_network(subnet.ip_range or subnet.prefix)
    return [
        address
        for address in usable(network)
        if ipaddress.ip_address(address) in inside
        and address != subnet.gateway
        and address not in subnet.reserved
    ]


def expected_next(order, leases, after):
    """The first free one after `after`, going round."""
    later = [a for a in order if after is not None and ipaddress.ip_address(a) > ipaddress.ip_address(after)]
    return next((a for a in [*later, *order] if a not in leases), None)


def claimed(subnet, address, leases):
    """What is wrong with asking for the address."""
    try:
        allocate.claim(subnet, address, lambda a: "web" if a in leases else None)
    except AddressProblem as problem:
        return problem.code
    return ""


@given(subnets(), st.data())
@settings(max_examples=200, deadline=None)
def test_any_history_of_leases_is_that_of_a_plain_set(subnet, data):
    order = automatic(subnet)
    askable = set(usable(ipaddress.ip_network(subnet.prefix))) - {subnet.gateway}
    leases: set[str] = set()
    after = None
    for _ in range(data.draw(st.integers(1, 40))):
        step = data.draw(st.sampled_from(["next", "next", "next", "claim", "release"]))
        if step == "next":
            desired = expected_next(order, leases, after)
            if desired is None:
                with pytest.raises(AddressProblem) as caught:
                    allocate.next_address(subnet, leases.__contains__, after)
                assert caught.value.code == "full"
                assert f"{len(leases & set(order))} leased" in caught.value.message
                continue
            after = allocate.next_address(subnet, leases.__contains__, after)
            assert after == desired
            leases.add(after)
        elif step == "claim":
            number = data.draw(st.integers(-2, 40))
            network = ipaddress.ip_network(subnet.prefix)
            address = from_int(network.version, int(network.network_address) + number)
            code = claimed(subnet, address, leases)
            assert (code == "") == (address in askable - leases)
            assert (code == "conflict") == (address in leases or address == subnet.gateway)
            if not code:
                leases.add(address)
        elif leases:
            leases.remove(data.draw(st.sampled_from(sorted(leases))))


@given(subnets())
@settings(max_examples=100, deadline=None)
def test_every_automatic_address_is_given_once_and_then_it_is_full(subnet):
    given_out: list[str] = []
    after = None
    for _ in automatic(subnet):
        after = allocate.next_address(subnet, given_out.__contains__, after)
        given_out.append(after)
    assert sorted(given_out) == sorted(automatic(subnet))
    with pytest.raises(AddressProblem):
        allocate.next_address(subnet, given_out.__contains__, after)
    for freed in given_out:
        rest = set(given_out) - {freed}
        assert allocate.next_address(subnet, rest.__contains__, after) == freed


@given(subnets(), st.lists(st.integers(0, 30), max_size=40))
@settings(max_examples=100, deadline=None)
def test_an_address_comes_back_after_all_others_that_were_free_all_the_time(subnet, lifetimes):
    leases: dict[str, int] = {}
    last_given: dict[str, int] = {}
    free_since = dict.fromkeys(automatic(subnet), 0)
    after = None
    for now, lifetime in enumerate(lifetimes, start=1):
        for address in [a for a, end in leases.items() if end <= now]:
            del leases[address]
            free_since[address] = now
        if not free_since:
            continue
        after = allocate.next_address(subnet, leases.__contains__, after)
        # Whatever has been free since before this one was last given has been passed over: there must be none.
        given = last_given.get(after, 0)
        assert not [
            a
            for a, since in free_since.items()
            if a != after and since < given and last_given.get(a, 0) < given
        ]
        del free_since[after]
        last_given[after] = now
        leases[after] = now + 1 + lifetime


# Subnets


@st.composite
def prefixes(draw):
    """In and around the IPv4 pools, of every length."""
    pool = ipaddress.ip_network(draw(st.sampled_from([p.prefix for p in pools.IPV4_POOLS])))
    length = draw(st.integers(0, 32) | st.sampled_from([9, 10, 12, 13, 16, 17, 22, 24]))
    offset = draw(st.integers(0, pool.num_addresses - 1) | st.sampled_from([0, pool.num_addresses // 2]))
    return str(ipaddress.ip_network((int(pool.network_address) + offset, length), strict=False))


def interval(prefix):
    network = ipaddress.ip_network(prefix)
    return int(network.network_address), int(network.broadcast_address)


def first_free(intervals):
    """Every subnet of every pool, one after the other."""
    for pool in pools.IPV4_POOLS:
        first, last = interval(pool.prefix)
        size = 1 << (32 - pool.length)
        for block in range(first, last + 1, size):
            if not any(a <= block + size - 1 and block <= b for a, b in intervals):
                return f"{ipaddress.ip_address(block)}/{pool.length}"
    return None


@given(st.lists(prefixes(), max_size=6), st.lists(prefixes(), max_size=6))
@settings(max_examples=60, deadline=None)
def test_a_free_subnet_is_the_first_that_nothing_touches(networks, routes):
    taken = {f"n{number}": (prefix,) for number, prefix in enumerate(networks)}
    facts = Facts(instance="abcdef", foreign_routes=tuple(ForeignRoute(prefix, "eth0") for prefix in routes))
    mine = [interval(prefix) for prefix in networks]
    narrow = [prefix for prefix in routes if int(prefix.split("/")[1]) > 8]
    expected = first_free(mine + [interval(p) for p in routes]) or first_free(
        mine + [interval(p) for p in narrow]
    )
    if expected is None:
        with pytest.raises(AddressProblem) as caught:
            pools.free_prefix(4, "n", taken, facts)
        assert caught.value.code == "full"
        assert all(pool.prefix in caught.value.message for pool in pools.IPV4_POOLS)
        return
    assert pools.free_prefix(4, "n", taken, facts) == expected
    pools.check_prefix(expected, taken, facts)


@given(prefixes(), st.lists(prefixes(), max_size=4), st.lists(prefixes(), max_size=4))
@settings(max_examples=100, deadline=None)
def test_a_subnet_passes_if_and_only_if_nothing_is_in_its_way(prefix, networks, routes):
    taken = {f"n{number}": (prefix,) for number, prefix in enumerate(networks)}
    facts = Facts(instance="abcdef", foreign_routes=tuple(ForeignRoute(prefix, "eth0") for prefix in routes))
    desired = ipaddress.ip_network(prefix)
    blocked = any(desired.overlaps(ipaddress.ip_network(other)) for other in networks)
    blocked |= any(desired.overlaps(n) for n in map(ipaddress.ip_network, routes) if n.prefixlen > 8)
    special = ("0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/4", "255.255.255.255/32")
    blocked |= any(desired.overlaps(ipaddress.ip_network(other)) for other in special)
    try:
        pools.check_prefix(prefix, taken, facts)
    except AddressProblem:
        assert blocked
    else:
        assert not blocked


@given(st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=30, unique=True))
@settings(max_examples=50, deadline=None)
def test_ipv6_subnets_never_meet(identities):
    facts = Facts(instance="abcdef")
    taken: dict[str, tuple[str, ...]] = {}
    for identity in identities:
        prefix = pools.free_prefix(6, identity, taken, facts)
        pools.check_prefix(prefix, taken, facts)
        assert ipaddress.ip_network(prefix).subnet_of(ipaddress.ip_network(pools.ula_pool("abcdef").prefix))
        taken[identity] = (prefix,)


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**128 - 1))
@settings(max_examples=300)
def test_addresses_are_written_as_ipaddress_writes_them(four, six):
    assert from_int(4, four) == str(ipaddress.IPv4Address(four))
    assert from_int(6, six) == str(ipaddress.IPv6Address(six))
    for value in (0, 1, 2**32 - 1, 10 << 24):
        assert from_int(4, value) == str(ipaddress.IPv4Address(value))
