"""The kernel's own routes to our prefixes: seen when they are lost, and made again as the kernel makes them."""

import pytest

from kernel.rtnl_support import BOX, BRIDGE, bridge, endpoint, ip, rig, run, within
from sealane.kernel.objects import Address
from sealane.kernel.state import HOST
from sealane.linux.netlink import inet
from sealane.linux.netlink.socket import NETLINK_ROUTE, Socket
from sealane.linux.prefix_routes import has_prefix_route, without_prefix_route

pytestmark = pytest.mark.kernel

OLD, NEW = "10.1.0.0/24", "fd00::/64"


def routes(prefix: str, link: str, *inside: str) -> str:
    family = "-6" if ":" in prefix else "-4"
    return run(*inside, "ip", "-d", family, "route", "show", prefix, "dev", link)


def lost(it, name: str, desired) -> list[str]:
    return [d.desired.address for d in it.drift({name: desired}) if isinstance(d.desired, Address)]


@pytest.mark.parametrize("prefix", [OLD, NEW])
@pytest.mark.parametrize("name", [HOST, BOX])
def test_one_that_is_deleted_is_made_as_it_was(prefix: str, name: str) -> None:
    with rig(BOX) as it:
        desired = endpoint()
        it.make(desired)
        inside = () if name == HOST else ("nsenter", f"--net={it.refs[BOX].path}")
        link = BRIDGE if name == HOST else "eth0"
        before = routes(prefix, link, *inside)
        assert "proto kernel" in before
        assert lost(it, name, desired[name]) == []
        run(*inside, "ip", "route", "del", prefix, "dev", link)
        (address,) = lost(it, name, desired[name])
        assert address.rpartition("/")[2] == prefix.rpartition("/")[2]
        seen = {HOST: it.observed(HOST, desired[HOST]), BOX: it.observed(BOX, desired[BOX])}
        assert it.apply(desired, seen) == []
        assert routes(prefix, link, *inside) == before
        assert it.drift(desired) == []
        run(*inside, "ip", "address", "del", address, "dev", link)
        assert routes(prefix, link, *inside) == "", "it goes with its address, as the kernel's does"


def test_what_hangs_on_it_comes_back_too() -> None:
    """A default route is refused while its gateway is nowhere."""
    with rig(BOX) as it:
        desired = endpoint()
        it.make(desired)
        for family in ("-4", "-6"):
            within(it.refs[BOX], "ip", family, "route", "flush", "table", "main")
        seen = {HOST: it.observed(HOST, desired[HOST]), BOX: it.observed(BOX, desired[BOX])}
        assert it.apply(desired, seen) == []
        assert it.drift(desired) == []
        assert within(it.refs[BOX], "ip", "route", "get", "192.0.2.9").split()[2] == "10.1.0.1"


def test_a_route_of_somebody_elses_in_its_place_stays() -> None:
    with rig(BOX) as it:
        desired = endpoint()
        it.make(desired)
        ip("link", "add", "theirs", "type", "bridge")
        ip("link", "set", "theirs", "up")
        ip("route", "replace", OLD, "dev", "theirs", "metric", "5")
        ip("route", "del", OLD, "dev", BRIDGE)
        seen = {HOST: it.observed(HOST, desired[HOST])}
        assert it.apply({HOST: desired[HOST]}, seen) == []
        assert it.drift({HOST: desired[HOST]}) == []
        assert "metric 5" in routes(OLD, "theirs")


@pytest.mark.parametrize("state", ["down", "without carrier"])
def test_a_link_that_has_none_by_right_has_lost_none(state: str) -> None:
    """Else it would be repaired for ever."""
    with rig() as it:
        addresses = [
            Address(link=BRIDGE, address=a)
            for a in ("10.1.0.1/24", "fd00::1/64", "10.2.0.1/32", "fd01::1/128")
        ]
        desired = {HOST: [bridge(up=state != "down"), *addresses]}
        it.make(desired)
        assert it.drift(desired) == []
        ip("link", "set", BRIDGE, "down")
        if state != "down":
            ip("link", "set", BRIDGE, "up")
            # IPv6 addresses go with a link that is put down.
            seen = {HOST: it.observed(HOST, desired[HOST])}
            assert it.apply(desired, seen) == []
        assert [d for d in lost(it, HOST, desired[HOST]) if ":" not in d] == []


def test_an_address_that_a_crash_left_on_a_link_that_is_down_is_taken_over() -> None:
    """Nothing is made for it: the kernel will, when the link comes up."""
    with rig() as it:
        it.make({HOST: [bridge(up=False), Address(link=BRIDGE, address="10.1.0.1/24")]})
        assert it.do(("create", HOST, Address(link=BRIDGE, address="10.1.0.1/24"))) == []
        ip("link", "set", BRIDGE, "up")
        assert routes(OLD, BRIDGE).count("proto kernel") == 1


@pytest.mark.parametrize(
    ("address", "has"),
    [("10.1.0.1/24", True), ("10.1.0.1/31", True), ("10.1.0.1/32", False)]
    + [("fd00::1/64", True), ("fd00::1/128", False), ("fe80::1/64", False)],
)
def test_which_addresses_have_one(address: str, has: bool) -> None:
    assert has_prefix_route(address) is has


@pytest.mark.parametrize(
    ("address", "prefix"),
    [
        ("10.1.2.3/24", "10.1.2.0"),
        ("10.1.2.3/32", "10.1.2.3"),
        ("10.1.2.3/0", "0.0.0.0"),
        ("10.1.2.255/25", "10.1.2.128"),
        ("fd00::a:b/64", "fd00::"),
        ("fd00:0:0:7::b/127", "fd00:0:0:7::a"),
        ("::ffff:1.2.3.4/112", "::ffff:102:0"),
    ],
)
def test_the_prefix_of_an_address(address: str, prefix: str) -> None:
    assert inet.prefix_of(address) == prefix


def test_each_address_is_looked_up_at_its_own_link() -> None:
    with rig() as it:
        del it
        for name, address in (("one", "10.5.0.1/24"), ("two", "10.6.0.1/24")):
            ip("link", "add", name, "type", "bridge")
            ip("link", "set", name, "up")
            ip("address", "add", address, "dev", name)
        with Socket(NETLINK_ROUTE) as socket:
            found = [
                inet.parse_address(payload) for _, payload in socket.dump(inet.dump_addresses(inet.AF_INET))
            ]
            ours = [raw for raw in found if raw.address.startswith("10.")]
            assert without_prefix_route(socket, ours) == set()
            swapped = [inet.RawAddress(ours[0].index, ours[1].address)]
            assert without_prefix_route(socket, swapped) == set(swapped)
            assert without_prefix_route(socket, []) == set()
