"""Addresses of one subnet."""

import pytest

from sealane.ipam import allocate
from sealane.ipam.pool import host_bounds, pool_of
from sealane.ipam.problems import AddressProblem
from sealane.model.net import from_int, to_int
from sealane.model.network import Subnet

V4 = Subnet(prefix="10.1.0.0/29", gateway="10.1.0.1")
V6 = Subnet(prefix="fd00:1::/64", gateway="fd00:1::1")


def never(address):
    return False


def take_all(subnet):
    """Every address there is, in the order they come, and what is said then."""
    leases = []
    after = None
    while len(leases) < 1000:
        try:
            after = allocate.next_address(subnet, leases.__contains__, after)
        except AddressProblem as problem:
            return leases, problem
        leases.append(after)
    raise AssertionError(f"{subnet} never was full")


@pytest.mark.parametrize(
    ("prefix", "first", "last"),
    [
        ("10.1.0.0/24", "10.1.0.1", "10.1.0.254"),
        ("10.1.0.0/30", "10.1.0.1", "10.1.0.2"),
        ("10.1.0.0/31", "10.1.0.0", "10.1.0.1"),
        ("10.1.0.7/32", "10.1.0.7", "10.1.0.7"),
        ("fd00::/64", "fd00::1", "fd00::ffff:ffff:ffff:ffff"),
        ("fd00::/126", "fd00::1", "fd00::3"),
        ("fd00::/127", "fd00::", "fd00::1"),
        ("fd00::7/128", "fd00::7", "fd00::7"),
    ],
)
def test_hosts_have_every_address_but_those_with_a_meaning(prefix, first, last):
    family = 6 if ":" in prefix else 4
    assert [from_int(family, value) for value in host_bounds(prefix)] == [first, last]


@pytest.mark.parametrize(
    ("prefix", "gateway"),
    [
        ("10.1.0.0/24", "10.1.0.1"),
        ("10.1.0.0/31", "10.1.0.0"),
        ("fd00::/64", "fd00::1"),
        ("fd00::/127", "fd00::"),
    ],
)
def test_the_gateway_is_the_first_by_default(prefix, gateway):
    assert allocate.default_gateway(prefix) == gateway


@pytest.mark.parametrize(("prefix", "length"), [("10.1.0.7/32", 31), ("fd00::7/128", 127)])
def test_a_single_address_is_no_subnet(prefix, length):
    with pytest.raises(AddressProblem, match=f"{prefix} has a single address") as caught:
        allocate.default_gateway(prefix)
    assert caught.value.code == "invalid"
    assert caught.value.hint == f"a prefix of length {length} or shorter"


def test_addresses_come_in_order_and_never_the_gateway():
    leases, _ = take_all(V4)
    assert leases == ["10.1.0.2", "10.1.0.3", "10.1.0.4", "10.1.0.5", "10.1.0.6"]


def test_ipv6_begins_after_its_gateway():
    assert allocate.next_address(V6, never) == "fd00:1::2"
    assert allocate.next_address(V6, never, "fd00:1::2") == "fd00:1::3"


@pytest.mark.parametrize(
    ("subnet", "expected"),
    [
        (Subnet(prefix="10.1.0.0/31", gateway="10.1.0.0"), ["10.1.0.1"]),
        (Subnet(prefix="10.1.0.0/30", gateway="10.1.0.2"), ["10.1.0.1"]),
        (Subnet(prefix="fd00::/127", gateway="fd00::1"), ["fd00::"]),
        (Subnet(prefix="fd00::/126", gateway="fd00::1"), ["fd00::2", "fd00::3"]),
        (
            Subnet(prefix="10.1.0.0/29", gateway="10.1.0.1", reserved=("10.1.0.3", "10.1.0.6")),
            ["10.1.0.2", "10.1.0.4", "10.1.0.5"],
        ),
        (
            Subnet(prefix="10.1.0.0/29", gateway="10.1.0.1", ip_range="10.1.0.4/30"),
            ["10.1.0.4", "10.1.0.5", "10.1.0.6"],
        ),
        (Subnet(prefix="10.1.0.0/29", gateway="10.1.0.5", ip_range="10.1.0.4/30"), ["10.1.0.4", "10.1.0.6"]),
        (Subnet(prefix="10.1.0.0/29", gateway="10.1.0.1", ip_range="10.1.0.0/30"), ["10.1.0.2", "10.1.0.3"]),
        (
            Subnet(prefix="10.1.0.0/29", gateway="10.1.0.1", ip_range="10.1.0.0/29"),
            ["10.1.0.2", "10.1.0.3", "10.1.0.4", "10.1.0.5", "10.1.0.6"],
        ),
        (Subnet(prefix="10.1.0.0/29", gateway="10.1.0.1", ip_range="10.1.0.0/32"), []),
        (Subnet(prefix="10.1.0.0/29", gateway="10.1.0.1", ip_range="10.1.0.7/32"), []),
        (Subnet(prefix="10.1.0.0/29", gateway="10.1.0.1", ip_range="10.1.0.4/32"), ["10.1.0.4"]),
        (
            Subnet(prefix="fd00::/64", gateway="fd00::1", ip_range="fd00::ff00/126"),
            ["fd00::ff00", "fd00::ff01", "fd00::ff02", "fd00::ff03"],
        ),
    ],
)
def test_the_whole_range_is_used_and_nothing_else(subnet, expected):
    leases, problem = take_all(subnet)
    assert leases == expected
    assert problem.code == "full"


def test_a_freed_address_comes_back_last():
    leases = {"10.1.0.2", "10.1.0.3"}
    leases.remove("10.1.0.2")
    order = []
    after = "10.1.0.3"
    for _ in range(4):
        after = allocate.next_address(V4, leases.__contains__, after)
        leases.add(after)
        order.append(after)
    assert order == ["10.1.0.4", "10.1.0.5", "10.1.0.6", "10.1.0.2"]


@pytest.mark.parametrize("after", ["10.1.0.6", "10.1.0.7", "10.9.9.9", "10.0.0.0", "fd00::1", None])
def test_an_end_or_a_stranger_as_last_address_begins_anew(after):
    assert allocate.next_address(V4, never, after) == "10.1.0.2"


def test_full_is_said_with_counts():
    subnet = Subnet(prefix="10.1.0.0/29", gateway="10.1.0.1", reserved=("10.1.0.2",))
    _, problem = take_all(subnet)
    assert problem.message == "10.1.0.0/29 is full: 4 leased, 2 withheld (gateway, reserved)"
    assert str(problem) == f"{problem.message}; {problem.hint}"
    _, problem = take_all(Subnet(prefix="10.1.0.0/24", gateway="10.1.0.1", ip_range="10.1.0.8/31"))
    assert (
        problem.message
        == "range 10.1.0.8/31 of 10.1.0.0/24 is full: 2 leased, 0 withheld (gateway, reserved)"
    )


def test_a_search_looks_at_no_more_than_its_bound():
    first = to_int("fd00:1::")
    # The gateway is passed by and counts.
    within, beyond = (from_int(6, first + allocate.SEARCH_MAX + more) for more in (0, 1))
    assert allocate.next_address(V6, lambda address: address != within) == within
    with pytest.raises(AddressProblem, match=f"{allocate.SEARCH_MAX - 1} leased"):
        allocate.next_address(V6, lambda address: address != beyond)


@pytest.mark.parametrize(
    ("subnet", "address", "code", "message"),
    [
        (V4, "10.1.0.8", "invalid", "10.1.0.8 does not lie in 10.1.0.0/29"),
        (V4, "fd00::2", "invalid", "fd00::2 does not lie in 10.1.0.0/29"),
        (V6, "10.1.0.2", "invalid", "10.1.0.2 does not lie in fd00:1::/64"),
        (V4, "10.1.0.0", "invalid", "10.1.0.0 is the network address of 10.1.0.0/29"),
        (V4, "10.1.0.7", "invalid", "10.1.0.7 is the broadcast address of 10.1.0.0/29"),
        (V6, "fd00:1::", "invalid", "fd00:1:: is the subnet-router anycast address of fd00:1::/64"),
        (V4, "10.1.0.1", "conflict", "10.1.0.1 is the gateway of 10.1.0.0/29"),
        (V6, "fd00:1::1", "conflict", "fd00:1::1 is the gateway of fd00:1::/64"),
        (V4, "10.1.0.5", "conflict", "10.1.0.5 is leased to web"),
    ],
)
def test_what_is_wrong_with_an_address_is_said(subnet, address, code, message):
    with pytest.raises(AddressProblem) as caught:
        allocate.claim(subnet, address, lambda a: "web" if a == "10.1.0.5" else None)
    assert (caught.value.code, caught.value.message) == (code, message)
    assert caught.value.hint


def test_an_address_outside_says_which_would_do():
    with pytest.raises(AddressProblem, match=r"one from 10\.1\.0\.1 to 10\.1\.0\.6"):
        allocate.claim(V4, "10.1.1.1", lambda a: None)


@pytest.mark.parametrize("address", ["10.1.0.2", "10.1.0.3", "10.1.0.6"])
def test_reserved_and_out_of_range_addresses_are_for_who_asks(address):
    subnet = Subnet(prefix="10.1.0.0/29", gateway="10.1.0.1", ip_range="10.1.0.4/31", reserved=("10.1.0.3",))
    allocate.claim(subnet, address, lambda a: None)


@pytest.mark.parametrize(
    ("subnet", "message"),
    [
        (Subnet(prefix="10.1.0.0/24", gateway="10.2.0.1"), "gateway address 10.2.0.1 does not lie in"),
        (Subnet(prefix="10.1.0.0/24", gateway="fd00::1"), "gateway address fd00::1 does not lie in"),
        (Subnet(prefix="10.1.0.0/24", gateway="10.1.0.0"), "10.1.0.0 is the network address"),
        (Subnet(prefix="10.1.0.0/24", gateway="10.1.0.255"), "10.1.0.255 is the broadcast address"),
        (Subnet(prefix="fd00::/64", gateway="fd00::"), "fd00:: is the subnet-router anycast"),
        (
            Subnet(prefix="10.1.0.0/24", gateway="10.1.0.1", reserved=("10.1.1.1",)),
            "reserved address 10.1.1.1",
        ),
        (
            Subnet(prefix="10.1.0.0/24", gateway="10.1.0.1", ip_range="10.1.0.0/23"),
            "range 10.1.0.0/23 does not lie",
        ),
        (
            Subnet(prefix="10.1.0.0/24", gateway="10.1.0.1", ip_range="10.2.0.0/28"),
            "range 10.2.0.0/28 does not lie",
        ),
        (
            Subnet(prefix="10.1.0.0/24", gateway="10.1.0.1", ip_range="fd00::/120"),
            "range fd00::/120 does not lie",
        ),
        (Subnet(prefix="10.1.0.1/32", gateway="10.1.0.1"), "has a single address"),
    ],
)
def test_a_subnet_that_contradicts_itself_is_refused(subnet, message):
    with pytest.raises(AddressProblem, match=message) as caught:
        allocate.check_subnet(subnet)
    assert caught.value.code == "invalid"


@pytest.mark.parametrize(
    "subnet",
    [
        V4,
        V6,
        Subnet(prefix="10.1.0.0/31", gateway="10.1.0.1"),
        Subnet(
            prefix="10.1.0.0/24",
            gateway="10.1.0.254",
            ip_range="10.1.0.0/24",
            reserved=("10.1.0.1", "10.1.0.255"),
        ),
    ],
)
def test_a_sound_subnet_passes(subnet):
    allocate.check_subnet(subnet)


def test_the_range_of_a_pool_may_be_empty():
    assert pool_of(Subnet(prefix="10.1.0.0/29", gateway="10.1.0.1", ip_range="10.1.0.0/32")).auto_size == 0
