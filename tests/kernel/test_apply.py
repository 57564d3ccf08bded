"""Performing plans on a real kernel, with `ip` and `bridge` as witnesses."""

import errno
import os

import msgspec
import pytest

from harness.links import changed
from kernel.rtnl_support import (
    BOX,
    BOX_MAC,
    BRIDGE,
    LOOPBACK,
    PORT,
    PORT_MAC,
    alias,
    bridge,
    endpoint,
    fresh_host,
    inner,
    ip,
    ip_json,
    port,
    rig,
    run,
    within,
    within_json,
)
from sealane.kernel.links import Bridge, Veth
from sealane.kernel.nft import Table
from sealane.kernel.objects import (
    GROUP_LIVE,
    Address,
    BridgePort,
    FdbEntry,
    Link,
    LoopbackPort,
    Neighbour,
    Route,
    Sysctl,
)
from sealane.kernel.state import HOST
from sealane.linux import jobs, progress
from sealane.linux.apply import Applier
from sealane.linux.netlink.socket import NETLINK_NETFILTER, NETLINK_ROUTE, Socket
from sealane.model.endpoint import NetnsRef
from sealane.reconcile.plan import Operation, Outcome, Plan

pytestmark = pytest.mark.kernel


def test_an_endpoint_is_built_as_ip_and_bridge_see_it():
    with rig(BOX) as it:
        it.make(endpoint())
        (made,) = ip_json("link", "show", PORT)
        assert made["master"] == BRIDGE
        assert made["address"] == PORT_MAC
        assert made["mtu"] == 1500
        assert made["ifalias"] == alias("web")
        assert made["group"] == str(GROUP_LIVE)
        assert made["inet6_addr_gen_mode"] == "none"
        assert "UP" in made["flags"]
        slave = made["linkinfo"]["info_slave_data"]
        assert (slave["learning"], slave["flood"], slave["guard"], slave["isolated"]) == (
            False,
            False,
            True,
            False,
        )
        (above,) = ip_json("link", "show", BRIDGE)
        data = above["linkinfo"]["info_data"]
        assert (data["stp_state"], data["mcast_snooping"], data["ageing_time"]) == (0, 0, 30000)
        (inside,) = within_json(it.refs[BOX], "ip", "-d", "link", "show", "eth0")
        assert inside["address"] == BOX_MAC
        assert inside["ifalias"] == alias("web")
        assert "UP" in inside["flags"]
        fdb = [e for e in ip_fdb() if e["mac"] == BOX_MAC]
        assert [(e["ifname"], e["master"], e["state"]) for e in fdb] == [(PORT, BRIDGE, "static")]
        assert {(n["dst"], tuple(n["state"])) for n in ip_json("neigh", "show", "dev", BRIDGE)} == {
            ("10.1.0.2", ("PERMANENT",)),
            ("fd00::2", ("PERMANENT",)),
        }
        assert within(it.refs[BOX], "cat", "/proc/sys/net/ipv6/conf/eth0/accept_ra").strip() == "0"


def ip_fdb():
    import json

    return json.loads(run("bridge", "-j", "fdb", "show"))


def test_an_endpoint_carries_packets_of_both_families():
    with rig(BOX) as it:
        it.make(endpoint())
        for address in ("10.1.0.1", "fd00::1"):
            within(it.refs[BOX], "ping", "-c1", "-W2", address)


def test_what_is_observed_after_applying_is_what_was_desired():
    with rig(BOX) as it:
        it.make(endpoint())
        assert it.drift(endpoint()) == []


def test_applying_twice_changes_nothing_and_succeeds():
    with rig(BOX) as it:
        it.make(endpoint())
        before = ip_json("link"), ip_json("address"), ip_json("route")
        assert it.apply(endpoint()) == []
        assert [strip(part) for part in before] == [
            strip(part) for part in (ip_json("link"), ip_json("address"), ip_json("route"))
        ]
        assert it.drift(endpoint()) == []


def strip(part):
    """Counters and flags that move by themselves."""
    return [
        {k: v for k, v in item.items() if k not in {"flags", "operstate", "linkinfo", "addr_info"}}
        for item in part
    ]


def test_deleting_twice_succeeds_and_leaves_nothing():
    with rig(BOX) as it:
        it.make(endpoint())
        down = it.plan({HOST: [], BOX: []}, endpoint())
        assert it.kernel.apply(down, it.refs) == []
        assert it.kernel.apply(down, it.refs) == []
        assert [item["ifname"] for item in ip_json("link")] == ["lo"]
        assert it.observed() == []


@pytest.mark.parametrize(
    "item",
    [
        Address(link="gone", address="10.0.0.1/24"),
        Address(link="gone", address="fd00::1/64"),
        Route(dst="10.5.0.0/24", link="gone"),
        Route(dst="fd05::/64", link="gone"),
        Route(dst="10.5.0.0/24", type="unreachable"),
        Route(dst="fd05::/64", type="unreachable"),
        Neighbour(link="gone", address="10.0.0.2", mac=BOX_MAC),
        Neighbour(link="gone", address="fd00::2"),
        FdbEntry(link="gone", mac=BOX_MAC),
        Link(name="gone", kind=Veth()),
        Sysctl(path="net/ipv4/conf/gone/forwarding", value="1"),
    ],
)
def test_deleting_what_was_never_there_succeeds(item):
    with rig() as it:
        assert it.do(("delete", HOST, item), stage="close") == []


@pytest.mark.parametrize(
    "item",
    [
        Address(link=BRIDGE, address="10.9.0.1/24"),
        Address(link=BRIDGE, address="fd09::1/64"),
        Route(dst="10.5.0.0/24", link=BRIDGE),
        Route(dst="fd05::/64", link=BRIDGE),
        Neighbour(link=BRIDGE, address="10.1.0.9", mac=BOX_MAC),
        Neighbour(link=BRIDGE, address="fd00::9", mac=BOX_MAC),
        Neighbour(link=BRIDGE, address="10.1.0.9"),
        Neighbour(link=BRIDGE, address="fd00::9"),
        FdbEntry(link=PORT, mac="02:00:00:00:00:77"),
    ],
)
def test_deleting_an_object_that_is_gone_from_a_link_that_is_there_succeeds(item):
    with rig(BOX) as it:
        it.make(endpoint())
        assert it.do(("create", HOST, item), stage="open") == []
        assert item in it.observed()
        assert it.do(("create", HOST, item), stage="open") == []
        assert it.do(("delete", HOST, item), stage="close") == []
        assert item not in it.observed()
        assert it.do(("delete", HOST, item), stage="close") == []


def test_create_makes_links_down_and_open_puts_them_up():
    with rig(BOX) as it:
        assert it.do(("create", HOST, bridge()), ("create", HOST, port())) == []
        assert not any(item.up for item in it.observed() if isinstance(item, Link))
        assert it.do(("open", BOX, inner()), ("open", HOST, port()), stage="open") == []
        assert {item.name: item.up for item in it.observed() if isinstance(item, Link)} == {
            BRIDGE: False,
            PORT: True,
        }
        # Which MAC the sandbox side gets is said by its own operation, which the plan of the creation did not hold.
        anyone = inner(mac="")
        assert it.observed(BOX, [anyone]) == [changed(anyone, peer=None)]


def test_the_sandbox_side_without_ipv6_has_no_link_local_address_at_any_moment():
    with rig(BOX) as it:
        quiet = inner(addr_gen_none=True)
        it.make({HOST: [bridge(), port()], BOX: [LOOPBACK, quiet]})
        assert within(it.refs[BOX], "ip", "-6", "address", "show", "dev", "eth0") == ""


SETTINGS = [
    Sysctl(path=f"net/ipv4/conf/{PORT}/{name}", value="0")
    for name in ("accept_redirects", "send_redirects", "accept_source_route", "route_localnet", "rp_filter")
]


@pytest.fixture
def opposite():
    """Links come up with the opposite of what is wanted."""
    with rig(BOX) as it:
        for item in SETTINGS:
            run("sysctl", "-qw", item.path.replace(PORT, "default").replace("/", ".") + "=1")
        yield it


def test_a_new_links_settings_are_set_with_it(opposite):
    outcomes = opposite.apply({HOST: [bridge(), port(), *SETTINGS], BOX: [LOOPBACK, inner()]})
    assert outcomes == []
    assert set(opposite.observed(HOST, SETTINGS)) >= set(SETTINGS)
    assert within(opposite.refs[BOX], "sysctl", "-n", "net.ipv4.conf.eth0.accept_redirects") == "1\n"


def test_settings_of_a_link_that_was_there_before_are_set_as_well(opposite):
    desired = {HOST: [bridge(), port()], BOX: [LOOPBACK, inner()]}
    opposite.make(desired)
    # Everything is asked for again, as after a crash: the link is found and adopted.
    outcomes = opposite.apply({**desired, HOST: [*desired[HOST], *SETTINGS]})
    assert outcomes == []
    assert set(opposite.observed(HOST, SETTINGS)) >= set(SETTINGS)


def test_settings_come_after_a_taken_index_as_well(opposite, monkeypatch):
    ip("link", "add", "taken", "index", "5000000", "type", "bridge")
    indexes = iter([4_000_000, 5_000_000, 4_999_999, *range(6_000_000, 6_000_009)])
    monkeypatch.setattr(progress.indexes, "take", lambda: next(indexes))
    outcomes = opposite.apply({HOST: [bridge(), port(), *SETTINGS], BOX: [LOOPBACK, inner()]})
    assert outcomes == []
    assert set(opposite.observed(HOST, SETTINGS)) >= set(SETTINGS)
    assert run("sysctl", "-n", "net.ipv4.conf.taken.accept_redirects") == "1\n"


def test_change_sets_every_field_that_differs():
    with rig(BOX) as it:
        it.make(endpoint())
        ip(
            "link",
            "set",
            PORT,
            "mtu",
            "1300",
            "address",
            "02:00:00:00:00:44",
            "alias",
            "nobody's",
            "addrgenmode",
            "eui64",
        )
        ip("link", "set", PORT, "nomaster")
        ip("link", "set", BRIDGE, "type", "bridge", "ageing_time", "0")
        before = next(item for item in it.observed(desired=[port()]) if getattr(item, "name", "") == BRIDGE)
        assert before.kind.ageing_off
        wrong = msgspec.structs.replace(
            port(), mtu=1300, mac="02:00:00:00:00:44", master="", port=None, alias=""
        )
        assert it.do(("change", HOST, port(), wrong), ("change", HOST, bridge(), before)) == []
        it.do(("create", HOST, FdbEntry(link=PORT, mac=BOX_MAC)))
        assert it.drift(endpoint()) == []


def test_a_port_that_moves_to_another_bridge_is_up_again_with_its_settings():
    other = "slb000000000002"
    with rig(BOX) as it:
        it.make(endpoint())
        second = bridge(name=other, mac="02:00:00:00:00:09", alias=alias("other", "n"))
        moved = port(master=other, port=BridgePort(isolated=True))
        assert it.do(("create", HOST, second)) == []
        assert it.do(("open", HOST, second), stage="open") == []
        assert it.do(("change", HOST, moved, port())) == []
        found = next(item for item in it.observed() if getattr(item, "name", "") == PORT)
        assert found == changed(moved, peer=None)


def test_change_takes_a_link_down_that_should_be():
    with rig(BOX) as it:
        it.make(endpoint())
        assert it.do(("change", HOST, port(up=False), port())) == []
        assert not next(item for item in it.observed() if getattr(item, "name", "") == PORT).up


def test_links_that_go_together_go_by_group_and_no_other_goes_with_them():
    names = [f"sle00000000010{n}" for n in range(4)]
    with rig(BOX) as it:
        ip("link", "add", "foreign0", "type", "bridge")
        ports = [
            port(name=name, mac=f"02:00:00:00:01:0{n}", alias=alias(name), peer=(BOX, f"eth{n}"))
            for n, name in enumerate(names)
        ]
        assert it.do(("create", HOST, bridge()), *(("create", HOST, item) for item in ports)) == []
        gone = [("delete", HOST, item) for item in ports[:3]]
        assert it.do(*gone, stage="close") == []
        assert {item["ifname"] for item in ip_json("link")} == {"lo", "foreign0", BRIDGE, names[3]}
        assert it.do(*gone, stage="close") == []
        assert within_json(it.refs[BOX], "ip", "link", "show", "eth3")


@pytest.mark.parametrize(
    ("dst", "old", "new"), [("10.7.0.0/24", "10.1.0.2", "10.1.0.3"), ("fd07::/64", "fd00::2", "fd00::3")]
)
def test_a_route_changes_in_place(dst, old, new):
    with rig(BOX) as it:
        it.make(endpoint())
        before, after = (Route(dst=dst, link=BRIDGE, gateway=gateway) for gateway in (old, new))
        assert it.do(("create", HOST, before), stage="open") == []
        assert it.do(("change", HOST, after, before), stage="open") == []
        assert [item for item in it.observed() if isinstance(item, Route)] == [after]


def test_the_failure_of_one_link_stops_what_hangs_on_it_and_nothing_else():
    with rig(BOX) as it:
        lost = port(name="sle00000000000f", peer=("nowhere", "eth0"), alias=alias("lost"))
        desired = endpoint()
        entry = FdbEntry(link=lost.name, mac="02:00:00:00:00:66")
        far = inner(peer=(HOST, lost.name), alias=alias("lost"))
        desired[HOST] += [lost, entry]
        desired["nowhere"] = [far]
        outcomes = it.apply(desired)
        assert [(o.operation.verb, o.operation.object, o.errno) for o in outcomes] == [
            ("create", lost, errno.ENOENT),
            ("open", far, errno.ENOENT),
            ("create", entry, 0),
            ("open", lost, 0),
        ]
        assert "no namespace" in outcomes[0].message
        assert it.drift(endpoint()) == []


def test_a_link_of_which_something_could_not_be_set_is_not_opened():
    with rig(BOX) as it:
        bad = Sysctl(path=f"net/ipv4/conf/{PORT}/no_such_thing", value="1")
        desired = {HOST: [bridge(), port(), bad], BOX: [inner()]}
        outcomes = it.apply(desired)
        assert [(o.operation.verb, o.operation.object.key[0]) for o in outcomes] == [
            ("create", "sysctl"),
            ("open", "link"),
        ]
        assert "DOWN" in run("ip", "link", "show", PORT)


def test_a_dead_namespace_fails_creates_clearly_and_lets_deletes_succeed():
    with rig(BOX) as it:
        dead = NetnsRef(path="/proc/4194303/ns/net", inode=1)
        it.refs["dead"] = dead
        item = Address(link="eth0", address="10.0.0.1/24")
        (outcome,) = it.do(("create", "dead", item))
        assert outcome.errno == errno.ENOENT
        assert "does not exist any more" in outcome.message
        assert it.do(("delete", "dead", item), stage="close") == []
        del it.refs["dead"]


def test_the_kernels_own_words_reach_the_outcome():
    with rig() as it:
        it.do(("create", HOST, bridge()))
        it.do(("open", HOST, bridge()), stage="open")
        (outcome,) = it.do(
            ("create", HOST, Route(dst="10.7.0.0/24", link=BRIDGE, gateway="192.0.2.1")), stage="open"
        )
        assert outcome.errno == errno.ENETUNREACH
        assert outcome.message == "Nexthop has invalid gateway"


def test_the_1024th_port_is_refused_in_plain_words(monkeypatch):
    with rig(BOX) as it:
        ports = [
            port(
                name=f"sle{n:012x}",
                mac=f"02:00:00:01:{n >> 8:02x}:{n & 255:02x}",
                peer=(BOX, f"e{n}"),
                addr_gen_none=False,
            )
            for n in range(1024)
        ]
        outcomes = it.do(("create", HOST, bridge()), *(("create", HOST, item) for item in ports))
        assert [(o.errno, o.operation.object.name) for o in outcomes] == [(errno.EXFULL, ports[-1].name)]
        assert "1023 ports" in outcomes[0].message


@pytest.mark.parametrize(
    "item",
    [
        Address(link=BRIDGE, address="not an address/24"),
        Address(link=BRIDGE, address="10.0.0.1/999"),
        Route(dst="10.0.0.0/24", link=BRIDGE, gateway="x"),
        Neighbour(link=BRIDGE, address="10.0.0.2", mac="zz:zz"),
        Link(name="x" * 16, kind=Bridge()),
        Link(name="slb000000000003", kind=Bridge(), alias="a" * 70_000),
        Link(name="slb000000000003", kind=Bridge(), mtu=-1),
        Sysctl(path="net/ipv4/../../kernel/core_pattern", value="|/x"),
        Sysctl(path=f"net/ipv4/conf/{BRIDGE}/forwarding", value="1\n2"),
        Sysctl(path="kernel/core_pattern", value="x"),
    ],
)
def test_bad_input_is_an_outcome_and_changes_nothing(item):
    with rig() as it:
        it.do(("create", HOST, bridge()))
        before = picture()
        (outcome,) = it.do(("create", HOST, item))
        assert outcome.errno > 0
        assert outcome.message
        assert picture() == before


def picture():
    with open("/proc/sys/kernel/core_pattern") as file:
        return strip(ip_json("link")), strip(ip_json("address")), file.read()


def test_a_failed_fence_stops_everything_after_it():
    tried = []

    def refuse(socket, operations, foreseen):
        tried.extend(operations)
        return [Outcome(operation, errno.EINVAL, "refused") for operation in operations]

    with fresh_host(), Socket(NETLINK_ROUTE) as route, Socket(NETLINK_NETFILTER) as nft:
        applier = Applier("a1b2c3", route, nft, refuse, None)
        fence = Operation("create", HOST, Table(family="ip"))
        build = Operation("create", HOST, bridge())
        outcomes = applier.apply(Plan((("fence", (fence,)), ("build", (build,)))), {})
        assert tried == [fence]
        assert [(o.operation, o.errno) for o in outcomes] == [(fence, errno.EINVAL), (build, 0)]
        assert [item["ifname"] for item in ip_json("link")] == ["lo"]


class Publisher:
    """Remembers; the real ones have their own tests."""

    def __init__(self):
        self.now = frozenset()

    def entries(self):
        return self.now

    def apply(self, add, remove=()):
        self.now = (self.now - frozenset(remove)) | frozenset(add)


def test_loopback_publishes_go_to_the_publisher():
    publisher = Publisher()
    one = LoopbackPort(family=4, proto="tcp", first=80, last=80, address="10.1.0.2", port=8080)
    moved = msgspec.structs.replace(one, address="10.1.0.3")
    with fresh_host(), Socket(NETLINK_ROUTE) as route, Socket(NETLINK_NETFILTER) as nft:
        applier = Applier("a1b2c3", route, nft, lambda *_: [], publisher)

        def do(*operation):
            return applier.apply(Plan((("open", (Operation(*operation),)),)), {})

        assert do("create", HOST, one) == []
        assert [entry.address for entry in publisher.now] == [bytes((10, 1, 0, 2))]
        assert do("change", HOST, moved, one) == []
        assert [entry.address for entry in publisher.now] == [bytes((10, 1, 0, 3))]
        assert do("delete", HOST, moved, moved) == []
        assert publisher.now == frozenset()
        (outcome,) = do("create", HOST, msgspec.structs.replace(one, port=0))
        assert outcome.errno == errno.EINVAL


def test_without_a_publisher_a_loopback_publish_fails_and_its_removal_does_not():
    port80 = LoopbackPort(family=4, proto="tcp", first=80, last=80, address="10.1.0.2", port=8080)
    with rig() as it:
        assert it.do(("create", HOST, port80), stage="open")[0].errno == errno.EOPNOTSUPP
        assert it.do(("delete", HOST, port80), stage="unpublish") == []


def test_more_sandboxes_than_may_be_open_at_once_are_attached(monkeypatch):
    monkeypatch.setattr("sealane.linux.namespaces.OPEN_MAX", 3)
    monkeypatch.setattr(jobs, "CREATES_AT_ONCE", 2)
    boxes = [f"box{n}" for n in range(7)]
    with rig(*boxes) as it:
        desired = {HOST: [bridge()]}
        for n, name in enumerate(boxes):
            link = port(
                name=f"sle{n:012x}", mac=f"02:00:00:00:02:0{n}", alias=alias(name), peer=(name, "eth0")
            )
            desired[HOST].append(link)
            desired[name] = [inner(mac=f"02:00:00:00:03:0{n}", alias=alias(name), peer=(HOST, link.name))]
        it.make(desired)
        assert it.drift(desired) == []
        assert len(os.listdir("/proc/self/fd")) < 40
