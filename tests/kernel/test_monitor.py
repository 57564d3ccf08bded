"""Notifications: each kind of foreign change is told of, our own doing and other people's business are not."""

import select
import socket as sockets

import pytest

from kernel.rtnl_support import (
    BOX,
    BOX_MAC,
    BRIDGE,
    INSTANCE,
    PORT,
    alias,
    bridge,
    endpoint,
    ip,
    port,
    rig,
    run,
    within,
)
from sealane.kernel.nft import ACCEPT, Chain, Element, Hook, Rule, Set, Table, field
from sealane.kernel.objects import Route
from sealane.kernel.state import HOST
from sealane.linux.monitor import LOST, Dirty, Monitor
from sealane.linux.progress import link_of

pytestmark = pytest.mark.kernel

NFT = [
    Table(family="ip"),
    Set(family="ip", name="private", type=("ipv4_addr",)),
    Chain(family="ip", name="forward", hook=Hook("filter", "forward", 0), rules=(Rule((ACCEPT,)),)),
    Element(family="ip", set="private", value=field("ipv4_addr", "10.1.0.9")),
]


def touched(plan):
    """Links of the host that a plan works on."""
    return {link_of(operation.object) for operation in plan if operation.netns == HOST} - {""}


class Watched:
    def __init__(self, it):
        self.it = it
        desired = endpoint()
        desired[HOST] += [Route(dst="10.5.0.0/24", link=BRIDGE), Route(dst="fd05::/64", link=BRIDGE), *NFT]
        it.make(desired)
        self.monitor = Monitor(INSTANCE, it.kernel.ports())

    def __enter__(self):
        return self.monitor

    def __exit__(self, *_):
        self.monitor.close()


def told(monitor):
    """What is told of within two seconds of a change."""
    readable, _, _ = select.select(monitor.filenos(), [], [], 2)
    assert readable, "no event came"
    return monitor.read()


FOREIGN = [
    (("ip", "link", "set", PORT, "down"), "the link"),
    (("ip", "link", "set", PORT, "mtu", "1300"), "the link"),
    (("ip", "link", "set", PORT, "nomaster"), "the"),
    (("ip", "link", "set", PORT, "address", "02:00:00:00:00:99"), "the link"),
    (("ip", "link", "set", PORT, "alias", "nobody"), "the link"),
    (("ip", "link", "set", PORT, "type", "bridge_slave", "isolated", "on"), "the link"),
    (("ip", "link", "del", PORT), "the"),
    (("ip", "link", "del", BRIDGE), "the"),
    (("ip", "address", "del", "10.1.0.1/24", "dev", BRIDGE), "an address"),
    (("ip", "address", "add", "10.66.0.1/24", "dev", BRIDGE), "an address"),
    (("ip", "address", "del", "fd00::1/64", "dev", BRIDGE), "an address"),
    (("ip", "route", "del", "10.5.0.0/24"), "the route"),
    (("ip", "route", "replace", "10.5.0.0/24", "dev", PORT), "the route"),
    (("ip", "-6", "route", "del", "fd05::/64"), "the route"),
    (("ip", "-6", "route", "replace", "unreachable", "fd05::/64"), "the route"),
    (("ip", "route", "flush", "proto", "94"), "the route"),
    (("ip", "route", "del", "10.1.0.0/24", "dev", BRIDGE), "the route"),
    (("ip", "-6", "route", "del", "fd00::/64", "dev", BRIDGE), "the route"),
    (("ip", "neigh", "del", "10.1.0.2", "dev", BRIDGE), "a neighbour"),
    (("ip", "neigh", "del", "fd00::2", "dev", BRIDGE), "a neighbour"),
    (("ip", "neigh", "replace", "10.1.0.2", "lladdr", "02:00:00:00:00:98", "dev", BRIDGE), "a neighbour"),
    (
        ("ip", "neigh", "replace", "10.1.0.2", "lladdr", BOX_MAC, "nud", "reachable", "dev", BRIDGE),
        "a neighbour",
    ),
    (("ip", "neigh", "flush", "nud", "permanent", "dev", BRIDGE), "a neighbour"),
    (("bridge", "fdb", "del", BOX_MAC, "dev", PORT, "master"), "the forwarding"),
    (("bridge", "fdb", "add", "02:00:00:00:00:97", "dev", PORT, "master", "static"), "the forwarding"),
    (("bridge", "fdb", "flush", "dev", BRIDGE), "the forwarding"),
    (("nft", "flush", "ruleset"), "nftables"),
    (("nft", "delete", "table", "ip", "sealane"), "nftables"),
    (("nft", "flush", "chain", "ip", "sealane", "forward"), "nftables"),
    (("nft", "add", "rule", "ip", "sealane", "forward", "drop"), "nftables"),
    (("nft", "add", "chain", "ip", "sealane", "extra"), "nftables"),
    (("nft", "add", "element", "ip", "sealane", "private", "{ 10.1.0.8 }"), "nftables"),
    (("nft", "delete", "element", "ip", "sealane", "private", "{ 10.1.0.9 }"), "nftables"),
    (("nft", "flush", "set", "ip", "sealane", "private"), "nftables"),
]


@pytest.mark.parametrize(("command", "reason"), FOREIGN)
def test_what_somebody_does_to_ours_is_told_of(command, reason):
    with rig(BOX) as it, Watched(it) as monitor:
        run(*command)
        assert told(monitor).host.startswith(reason)


NAMELESS = ("link", "fdb", "fd00::1/64")
"""Of what is done to links, to the bridge's forwarding database and to IPv6 addresses the kernel does not say who did it:
beside our own doing it waits for the next full look."""


@pytest.mark.parametrize(
    ("command", "reason"), [(c, r) for c, r in FOREIGN if "nft" not in c and not {*NAMELESS} & {*c}]
)
def test_even_while_we_work_on_the_same_link(command, reason):
    """Their requests come from a socket that is none of ours, so they are not taken for echoes of what we do."""
    with rig(BOX) as it, Watched(it) as monitor:
        run(*command)
        readable, _, _ = select.select(monitor.filenos(), [], [], 2)
        assert readable, "no event came"
        assert monitor.read(own={BRIDGE, PORT}).host.startswith(reason)
        monitor.read()
        assert not monitor.read()


@pytest.mark.parametrize(
    "commands",
    [
        [
            ("ip", "link", "add", "foreign0", "type", "bridge"),
            ("ip", "address", "add", "10.99.0.1/24", "dev", "foreign0"),
        ],
        [
            ("ip", "link", "add", "fv0", "type", "veth", "peer", "name", "fv1"),
            ("ip", "link", "set", "fv0", "up"),
        ],
        [("nft", "add", "table", "ip", "foreign"), ("nft", "add", "chain", "ip", "foreign", "c")],
        [("ip", "route", "add", "unreachable", "10.98.0.0/24")],
        [("ip", "neigh", "add", "10.99.0.2", "lladdr", BOX_MAC, "dev", "lo")],
    ],
)
def test_other_peoples_business_is_not(commands):
    with rig(BOX) as it, Watched(it) as monitor:
        for command in commands:
            run(*command)
        assert monitor.read() == Dirty()


def test_neighbours_that_the_kernel_learns_by_itself_are_not():
    with rig(BOX) as it, Watched(it) as monitor:
        ip("neigh", "del", "10.1.0.2", "dev", BRIDGE)
        monitor.read()
        run("ping", "-c1", "-W2", "10.1.0.2")
        assert monitor.read() == Dirty()


def test_our_own_doing_is_not():
    with rig(BOX) as it:
        with Monitor(INSTANCE, it.kernel.ports()) as monitor:
            desired = endpoint()
            desired[HOST] += [Route(dst="10.5.0.0/24", link=BRIDGE), *NFT]
            plan = it.plan(desired)
            assert it.kernel.apply(plan, it.refs) == []
            assert monitor.read(touched(plan)) == Dirty()
            down = it.plan({HOST: [], BOX: []}, desired)
            assert it.kernel.apply(down, it.refs) == []
            assert monitor.read(touched(down)) == Dirty()


def test_what_somebody_does_meanwhile_to_another_link_is_told_of_all_the_same():
    with rig(BOX) as it, Watched(it) as monitor:
        second = port(name="sle000000000002", mac="02:00:00:00:00:12", alias=alias("two"), peer=(BOX, "eth1"))
        plan = it.plan({HOST: [second], BOX: []})
        it.do(("create", HOST, second))
        ip("link", "set", PORT, "down")
        assert monitor.read(touched(plan) | {"sle000000000002"}).host == f"the link {PORT}"


def test_a_port_that_has_lost_our_mark_stays_ours_to_look_after():
    with rig(BOX) as it, Watched(it) as monitor:
        ip("link", "set", PORT, "group", "0", "alias", "nobody")
        assert told(monitor).host == f"the link {PORT}"
        ip("link", "set", PORT, "down")
        assert told(monitor).host == f"the link {PORT}"


def test_the_uplink_and_the_default_route_are_facts():
    with rig() as it, Monitor(INSTANCE, it.kernel.ports()) as monitor:
        ip("link", "add", "up0", "type", "bridge")
        ip("link", "set", "up0", "up")
        ip("address", "add", "192.0.2.1/24", "dev", "up0")
        assert monitor.read() == Dirty()
        ip("route", "add", "default", "via", "192.0.2.254")
        assert monitor.read() == Dirty(facts="the default route")
        ip("link", "set", "up0", "mtu", "1400")
        assert monitor.read() == Dirty(facts="the link up0")
        ip("link", "del", "up0")
        assert monitor.read().facts


def queue_size(monitor, size):
    queue = sockets.socket(fileno=monitor.filenos()[0])
    try:
        queue.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, size)
    finally:
        queue.detach()


def test_lost_events_mean_that_anything_may_have_changed():
    with rig(BOX) as it, Watched(it) as monitor:
        queue_size(monitor, 1)
        for number in range(60):
            ip("link", "set", PORT, "mtu", str(1300 + number))
        assert monitor.read() == Dirty(LOST, LOST)
        queue_size(monitor, 1 << 20)
        while monitor.read():
            pass
        ip("link", "set", PORT, "down")
        assert told(monitor).host == f"the link {PORT}"


def test_a_sandbox_is_not_watched_and_not_kept_alive():
    with rig(BOX) as it, Watched(it) as monitor:
        within(it.refs[BOX], "ip", "address", "add", "10.77.0.1/24", "dev", "eth0")
        assert monitor.read() == Dirty()


def test_a_bridge_made_by_hand_with_our_mark_is_ours():
    with rig() as it, Monitor(INSTANCE) as monitor:
        ip("link", "add", BRIDGE, "type", "bridge")
        ip("link", "set", BRIDGE, "up")
        assert monitor.read().host == ""
        ip("link", "set", BRIDGE, "alias", alias("net", "n"))
        assert told(monitor).host == f"the link {BRIDGE}"
        ip("link", "set", BRIDGE, "mtu", "1300")
        assert told(monitor).host == f"the link {BRIDGE}"
        assert it.do(("delete", HOST, bridge()), stage="close") == []
        assert told(monitor).host
