"""Subnets for networks."""

import pytest

from sealane.compile.facts import Facts, ForeignRoute
from sealane.ipam import pools
from sealane.ipam.problems import AddressProblem
from sealane.model.net import contains, overlaps

INSTANCE = "abcdef"


def facts(*routes):
    return Facts(instance=INSTANCE, foreign_routes=tuple(ForeignRoute(*route) for route in routes))


def free4(*routes, taken=None):
    return pools.free_prefix(4, "n1", taken or {}, facts(*routes))


def test_the_first_network_has_the_first_subnet():
    assert free4() == "10.128.0.0/22"


def test_the_lowest_free_one_is_next():
    taken = {"a": ("10.128.0.0/22",), "b": ("10.128.8.0/22",), "c": ("fd00::/64", "10.128.4.0/30")}
    assert free4(taken=taken) == "10.128.12.0/22"


def test_neighbours_of_other_sizes_are_stepped_over():
    assert free4(taken={"a": ("10.128.0.0/16",), "b": ("10.129.3.128/25",)}) == "10.129.4.0/22"
    assert free4(taken={"a": ("10.0.0.0/8",)}) == "172.16.0.0/22"


@pytest.mark.parametrize(
    ("routes", "expected"),
    [
        ([("10.128.0.0/24", "route via eth0")], "10.128.4.0/22"),
        ([("10.128.1.7/32", "nameserver 10.128.1.7")], "10.128.4.0/22"),
        ([("10.128.0.0/9", "route via tun0")], "172.16.0.0/22"),
        ([("10.128.0.0/9", "route via tun0"), ("172.16.0.0/12", "route via eth1")], "192.168.0.0/24"),
        ([("fd00::/9", "route via eth0")], "10.128.0.0/22"),
    ],
)
def test_what_the_host_uses_is_avoided(routes, expected):
    assert free4(*routes) == expected


@pytest.mark.parametrize(
    ("routes", "expected"),
    [
        ([("0.0.0.0/0", "default")], "10.128.0.0/22"),
        ([("0.0.0.0/1", "route via tun0"), ("128.0.0.0/1", "route via tun0")], "10.128.0.0/22"),
        ([("10.0.0.0/8", "route via tun0")], "172.16.0.0/22"),
        ([("0.0.0.0/1", "route via tun0")], "172.16.0.0/22"),
        ([("0.0.0.0/1", "tun0"), ("128.0.0.0/1", "tun0"), ("10.128.0.0/22", "eth0")], "10.128.4.0/22"),
    ],
)
def test_default_like_routes_are_avoided_while_possible_and_block_nothing(routes, expected):
    assert free4(*routes) == expected


def test_the_length_at_which_a_route_begins_to_block():
    everywhere = [("10.128.0.0/9", "a"), ("172.16.0.0/12", "b"), ("192.168.0.0/16", "c")]
    with pytest.raises(AddressProblem):
        free4(*everywhere)
    assert free4(("10.0.0.0/8", "a"), *everywhere[1:]) == "10.128.0.0/22"


def test_exhaustion_names_what_is_in_the_way_of_each_pool():
    taken = {f"n{i}": (f"192.168.{i}.0/24",) for i in range(256)}
    with pytest.raises(AddressProblem) as caught:
        free4(("10.128.0.0/9", "route via tun0"), ("172.16.0.0/13", "x"), ("172.24.0.0/13", "y"), taken=taken)
    assert caught.value.code == "full"
    assert caught.value.message == (
        "no free subnet for a network: 10.128.0.0/9 is used by route via tun0 10.128.0.0/9; "
        "172.16.0.0/12 is used by x 172.16.0.0/13, y 172.24.0.0/13; "
        "192.168.0.0/16 is used by network n0 192.168.0.0/24, network n1 192.168.1.0/24, "
        "network n2 192.168.2.0/24 and 253 more"
    )
    assert caught.value.hint == "name a subnet, or remove networks"


def test_the_text_of_exhaustion_is_bounded():
    taken = {"n" * 63 + str(i): (f"10.{128 + i // 64}.{i % 64 * 4}.0/22",) for i in range(8192)}
    taken |= {"m" * 63 + str(i): (f"172.{16 + i // 64}.{i % 64 * 4}.0/22",) for i in range(1024)}
    taken |= {"k" * 63 + str(i): (f"192.168.{i}.0/24",) for i in range(256)}
    with pytest.raises(AddressProblem) as caught:
        free4(taken=taken)
    assert len(str(caught.value)) < 1500
    del taken["m" * 63 + "700"]
    assert free4(taken=taken) == "172.26.240.0/22"


def test_there_are_thousands_of_subnets():
    taken = {}
    for number in range(300):
        taken[f"n{number}"] = (free4(taken=taken),)
    assert len({prefix for (prefix,) in taken.values()}) == 300
    total = sum(2 ** (pool.length - int(pool.prefix.split("/")[1])) for pool in pools.IPV4_POOLS)
    assert total == 8192 + 1024 + 256


def test_ipv6_is_a_64_of_the_installations_own_48():
    pool = pools.ula_pool(INSTANCE)
    assert pool == pools.ula_pool(INSTANCE)
    assert pool != pools.ula_pool("abcdee")
    assert pool.prefix.endswith("/48")
    assert contains("fd00::/8", pool.prefix.split("/")[0])
    prefix = pools.free_prefix(6, "n1", {}, facts())
    assert prefix.endswith("/64")
    assert overlaps(prefix, pool.prefix)


def test_ipv6_depends_on_the_network_and_steps_over_what_is_taken():
    first = pools.free_prefix(6, "n1", {}, facts())
    assert first == pools.free_prefix(6, "n1", {"x": ("10.0.0.0/8",)}, facts())
    assert first != pools.free_prefix(6, "n2", {}, facts())
    second = pools.free_prefix(6, "n1", {"x": (first,)}, facts())
    assert second != first
    assert pools.free_prefix(6, "n1", {"x": (first,)}, facts((second, "eth0"))) not in (first, second)


def test_ipv6_goes_round_at_the_end_of_its_48():
    pool = pools.ula_pool(INSTANCE).prefix
    head = pool.removesuffix("::/48")
    first = pools.free_prefix(6, "n1", {}, facts())
    number = int(first.removeprefix(f"{head}:").removesuffix("::/64"), 16)
    # Everything from the network's own place to the end is in the way, in aligned pieces.
    blocks, block = [], number
    while block < 1 << 16:
        size = block & -block or 1 << 15
        while block + size > 1 << 16:
            size //= 2
        blocks.append(f"{head}:{block:x}::/{64 - size.bit_length() + 1}")
        block += size
    assert pools.free_prefix(6, "n1", {"x": tuple(blocks)}, facts()) == pool.replace("/48", "/64")


def test_a_full_48_is_said():
    pool = pools.ula_pool(INSTANCE).prefix
    with pytest.raises(AddressProblem, match=f"{pool} is used by network x {pool}"):
        pools.free_prefix(6, "n1", {"x": (pool,)}, facts())


@pytest.mark.parametrize("route", ["2000::/3", "fc00::/7", "fd00::/8", "::/0"])
def test_default_like_ipv6_routes_block_nothing(route):
    assert pools.free_prefix(6, "n1", {}, facts((route, "eth0"))) == pools.free_prefix(6, "n1", {}, facts())


@pytest.mark.parametrize(
    ("prefix", "what"),
    [
        ("0.0.0.0/24", "this host on this network"),
        ("127.0.0.0/24", "loopback"),
        ("0.0.0.0/0", "this host"),
        ("224.1.0.0/16", "multicast"),
        ("255.255.255.255/32", "broadcast"),
        ("::/64", "unspecified"),
        ("::ffff:0:0/96", "IPv4-mapped"),
        ("fe80::/64", "link-local"),
        ("ff02::/64", "multicast"),
    ],
)
def test_prefixes_with_a_meaning_are_no_subnets(prefix, what):
    with pytest.raises(AddressProblem, match=f"{prefix} cannot be a subnet: .* is {what}") as caught:
        pools.check_prefix(prefix, {}, facts())
    assert caught.value.code == "invalid"


@pytest.mark.parametrize("prefix", ["10.1.0.0/24", "10.1.0.0/16", "10.0.0.0/7", "10.1.0.128/32"])
def test_an_overlap_with_a_network_names_it(prefix):
    with pytest.raises(AddressProblem) as caught:
        pools.check_prefix(prefix, {"other": ("fd00::/64",), "web": ("fd01::/64", "10.1.0.0/24")}, facts())
    assert caught.value.code == "conflict"
    assert caught.value.message == f"{prefix} overlaps 10.1.0.0/24 of network web"


def test_an_overlap_with_the_hosts_routes_names_their_owner():
    with pytest.raises(AddressProblem) as caught:
        pools.check_prefix("192.0.2.0/24", {}, facts(("192.0.2.53/32", "nameserver 192.0.2.53")))
    assert caught.value.code == "conflict"
    assert (
        caught.value.message
        == "192.0.2.0/24 overlaps 192.0.2.53/32, which this host uses (nameserver 192.0.2.53)"
    )


@pytest.mark.parametrize("route", ["0.0.0.0/0", "0.0.0.0/1", "10.0.0.0/8"])
def test_a_subnet_may_lie_in_a_default_like_route(route):
    pools.check_prefix("10.1.0.0/24", {"a": ("10.2.0.0/16", "fd00::/64")}, facts((route, "route via tun0")))


def test_a_route_one_bit_longer_blocks():
    with pytest.raises(AddressProblem, match="route via tun0"):
        pools.check_prefix("10.1.0.0/24", {}, facts(("10.0.0.0/9", "route via tun0")))
