"""Reading back: `observe(apply(x)) == x` for every kind of object, and nothing that is not ours."""

import warnings

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.links import changed
from kernel.rtnl_support import (
    BOX,
    BOX_MAC,
    BRIDGE,
    BRIDGE_MAC,
    INSTANCE,
    LOOPBACK,
    PORT,
    alias,
    bridge,
    endpoint,
    inner,
    ip,
    ip_json,
    port,
    rig,
    run,
    within,
)
from sealane.engine.ports import NamespaceGoneError
from sealane.kernel.links import Bridge
from sealane.kernel.objects import Address, BridgePort, FdbEntry, Link, Neighbour, Route, Sysctl
from sealane.kernel.state import HOST, namespace
from sealane.linux.netlink.socket import Socket
from sealane.model.endpoint import NetnsRef
from sealane.reconcile.diff import diff
from sealane.reconcile.order import order

pytestmark = pytest.mark.kernel

MACS = st.integers(1, 200).map(lambda n: f"02:00:00:00:01:{n:02x}")
HOSTS4 = st.integers(2, 250).map(lambda n: f"10.1.0.{n}")
HOSTS6 = st.integers(2, 250).map(lambda n: f"fd00::{n:x}")


@st.composite
def states(draw):
    """A bridge, some ports, and whatever can hang on them: desired objects by namespace."""
    # One for all: a bridge's MTU follows its smallest port's, until it is changed by hand (br_mtu_auto_adjust).
    size = draw(st.sampled_from([68, 1279, 1280, 1500, 9000]))
    host = [
        bridge(
            mtu=size,
            ageing_off=draw(st.booleans()),
            addr_gen_none=draw(st.booleans()),
            up=True,
        ),
        Address(link=BRIDGE, address="10.1.0.1/24"),
    ]
    if draw(st.booleans()):
        host.append(FdbEntry(link=BRIDGE, mac=BRIDGE_MAC, is_own=True))
    host += [FdbEntry(link=BRIDGE, mac=each, is_own=True) for each in draw(st.sets(MACS, max_size=2))]
    if size >= 1280:
        host.append(Address(link=BRIDGE, address="fd00::1/64"))
    inside = [LOOPBACK]
    for number in range(draw(st.integers(0, 3))):
        name = f"sle{number:012x}"
        mac = f"02:00:00:00:02:{number:02x}"
        host.append(
            port(
                name=name,
                mtu=size,
                mac=f"02:00:00:00:03:{number:02x}",
                alias=alias(f"e{number}"),
                peer=(BOX, f"eth{number}"),
                port=BridgePort(
                    isolated=draw(st.booleans()),
                    learning=draw(st.booleans()),
                    flood=draw(st.booleans()),
                    guard=draw(st.booleans()),
                ),
                up=draw(st.booleans()),
            )
        )
        inside.append(
            inner(
                name=f"eth{number}",
                mtu=size,
                mac=mac,
                alias=alias(f"e{number}"),
                peer=(HOST, name),
                addr_gen_none=draw(st.booleans()),
            )
        )
        inside.append(Address(link=f"eth{number}", address=f"10.{number + 2}.0.2/24"))
        if size >= 1280:
            inside.append(Address(link=f"eth{number}", address=f"fd0{number + 2}::2/64"))
        host += [FdbEntry(link=name, mac=each) for each in {mac, *draw(st.sets(MACS, max_size=2))}]
    host = _unique_fdb(host)
    for address in draw(st.sets(st.one_of(HOSTS4, HOSTS6), max_size=4)):
        host.append(Neighbour(link=BRIDGE, address=address, mac=draw(st.one_of(st.just(""), MACS))))
    host += draw(routes())
    if size < 1280:
        host = [i for i in host if not (isinstance(i, Neighbour | Route) and ":" in f"{i.key}")]
    host.append(Sysctl(path=f"net/ipv4/conf/{BRIDGE}/forwarding", value=draw(st.sampled_from("01"))))
    return {HOST: host, BOX: inside}


def _unique_fdb(items):
    """A MAC has one port."""
    seen = set()
    return [i for i in items if not isinstance(i, FdbEntry) or not (i.mac in seen or seen.add(i.mac))]


@st.composite
def routes(draw):
    found = {}
    for number in draw(st.sets(st.integers(0, 20), max_size=4)):
        metric = draw(st.sampled_from([0, 5, 4_000_000_000]))
        table = draw(st.sampled_from([254, 100, 70_000]))
        if number % 2:
            dst, gateway, src = f"10.77.{number}.0/24", "10.1.0.9", "10.1.0.1"
        else:
            dst, gateway, src = f"fd77:{number + 1:x}::/64", "fd00::9", "fd00::1"
        kind = draw(st.sampled_from(["unreachable", "gateway", "onlink", "link", "source"]))
        item = {
            "unreachable": Route(dst=dst, type="unreachable", metric=metric, table=table),
            "gateway": Route(dst=dst, link=BRIDGE, gateway=gateway, metric=metric, table=table),
            "onlink": Route(dst=dst, link=BRIDGE, gateway=gateway, onlink=True, metric=metric, table=table),
            "link": Route(dst=dst, link=BRIDGE, metric=metric, table=table),
            "source": Route(dst=dst, link=BRIDGE, src=src, metric=metric, table=table),
        }[kind]
        found[item.key] = item
    return list(found.values())


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(states())
def test_what_was_applied_is_observed(desired):
    with rig(BOX) as it:
        it.make(desired)
        assert it.drift(desired) == []
        assert it.apply(desired) == []
        assert it.drift(desired) == []


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(states(), states())
def test_from_any_state_to_any_other_in_few_rounds(one, other):
    with rig(BOX) as it:
        it.make(one)
        want = {name: namespace(items) for name, items in other.items()}
        for _ in range(4):
            have = {name: it.kernel.observe(name, it.refs.get(name), items) for name, items in want.items()}
            differences = diff(want, have)
            if not differences:
                break
            outcomes = it.kernel.apply(order(differences), it.refs)
        assert differences == [], outcomes


@pytest.mark.parametrize(
    ("spoil", "key"),
    [
        (("link", "set", PORT, "mtu", "1300"), ("link", PORT)),
        (("link", "set", PORT, "down"), ("link", PORT)),
        (("link", "set", PORT, "nomaster"), ("link", PORT)),
        (("link", "set", PORT, "type", "bridge_slave", "isolated", "on"), ("link", PORT)),
        (("link", "set", PORT, "type", "bridge_slave", "learning", "on"), ("link", PORT)),
        (("link", "set", PORT, "type", "bridge_slave", "flood", "on"), ("link", PORT)),
        (("link", "set", PORT, "type", "bridge_slave", "guard", "off"), ("link", PORT)),
        (("link", "set", PORT, "address", "02:00:00:00:00:99"), ("link", PORT)),
        (("link", "set", PORT, "addrgenmode", "eui64"), ("link", PORT)),
        (("link", "set", BRIDGE, "type", "bridge", "ageing_time", "0"), ("link", BRIDGE)),
        (("address", "del", "10.1.0.1/24", "dev", BRIDGE), ("address", BRIDGE, "10.1.0.1/24")),
        (("address", "add", "10.66.0.1/24", "dev", BRIDGE), ("address", BRIDGE, "10.66.0.1/24")),
        (("address", "add", "fd66::1/64", "dev", BRIDGE), ("address", BRIDGE, "fd66::1/64")),
        (("neigh", "del", "10.1.0.2", "dev", BRIDGE), ("neighbour", BRIDGE, "10.1.0.2", False)),
        (
            ("neigh", "add", "10.1.0.66", "lladdr", BOX_MAC, "dev", BRIDGE),
            ("neighbour", BRIDGE, "10.1.0.66", False),
        ),
        (("neigh", "add", "proxy", "10.1.0.66", "dev", BRIDGE), ("neighbour", BRIDGE, "10.1.0.66", True)),
        (
            ("route", "add", "10.66.0.0/24", "dev", BRIDGE, "proto", "94"),
            ("route", 254, "10.66.0.0/24", 0, BRIDGE),
        ),
        (
            ("-6", "route", "add", "fd66::/64", "dev", BRIDGE, "proto", "94"),
            ("route", 254, "fd66::/64", 0, BRIDGE),
        ),
    ],
)
def test_each_thing_that_somebody_spoils_is_seen_and_repaired(spoil, key):
    with rig(BOX) as it:
        it.make(endpoint())
        ip(*spoil)
        found = it.drift(endpoint())
        assert key in {(d.desired or d.observed).key for d in found}
        for _ in range(3):
            assert it.kernel.apply(order(found), it.refs) == []
            found = it.drift(endpoint())
        assert found == []


def test_a_deleted_link_is_missing_and_what_hung_on_it_with_it():
    with rig(BOX) as it:
        it.make(endpoint())
        ip("link", "del", PORT)
        assert {d.desired.key[0] for d in it.drift(endpoint())} >= {"link", "fdb"}


def test_fdb_entries_are_seen_with_bridges_of_others_around():
    with rig(BOX) as it:
        it.make(endpoint())
        ip("link", "add", "foreign0", "type", "bridge")
        ip("link", "add", "fv0", "type", "veth", "peer", "name", "fv1")
        ip("link", "set", "fv0", "master", "foreign0", "up")
        run("bridge", "fdb", "add", "02:00:00:00:00:55", "dev", "fv0", "master", "static")
        run("bridge", "fdb", "add", "02:00:00:00:00:56", "dev", PORT, "master", "static")
        run("bridge", "fdb", "add", "02:00:00:00:00:57", "dev", PORT, "self", "static", check=False)
        entries = {item.mac for item in it.observed() if isinstance(item, FdbEntry)}
        assert entries == {BOX_MAC, "02:00:00:00:00:56"}


def test_a_bridges_own_fdb_entry_is_missed_where_it_is_needed():
    """A flush takes it, and the kernel makes no other (br_fdb_delete_bulk)."""
    with rig(BOX) as it:
        it.make(endpoint())
        own = FdbEntry(link=BRIDGE, mac=BRIDGE_MAC, is_own=True)
        assert own in it.observed(desired=[own])
        assert own not in it.observed(), "the kernel gives one to every bridge"
        run("bridge", "fdb", "flush", "dev", BRIDGE)
        assert {d.key for d in it.drift(endpoint())} == {own.key, ("fdb", PORT, BOX_MAC)}


def test_another_mac_that_a_bridge_takes_for_its_own_is_seen():
    with rig(BOX) as it:
        it.make(endpoint())
        run("bridge", "fdb", "replace", BOX_MAC, "dev", BRIDGE, "self", "permanent")
        stolen, lost = FdbEntry(link=BRIDGE, mac=BOX_MAC, is_own=True), FdbEntry(link=PORT, mac=BOX_MAC)
        differences = it.drift(endpoint())
        assert {(d.desired, d.observed) for d in differences} == {(None, stolen), (lost, None)}


def test_nothing_of_others_is_ever_observed():
    with rig(BOX) as it:
        ip("link", "add", "foreign0", "type", "bridge")
        ip("link", "set", "foreign0", "alias", "sealane/ffffff/n/other", "up")
        ip("address", "add", "10.99.0.1/24", "dev", "foreign0")
        ip("neigh", "add", "10.99.0.2", "lladdr", BOX_MAC, "dev", "foreign0")
        ip("neigh", "add", "proxy", "10.99.0.3", "dev", "foreign0")
        ip("route", "add", "10.98.0.0/24", "via", "10.99.0.2")
        assert it.observed() == []
        it.make(endpoint())
        assert it.drift(endpoint()) == []


def test_in_a_sandbox_only_the_wanted_keys_and_our_routes_are_observed():
    with rig(BOX) as it:
        it.make(endpoint())
        ref = it.refs[BOX]
        within(ref, "ip", "address", "add", "10.66.0.1/24", "dev", "eth0")
        within(ref, "ip", "link", "add", "mine", "type", "bridge")
        within(ref, "ip", "neigh", "add", "10.1.0.77", "lladdr", BOX_MAC, "dev", "eth0")
        within(ref, "ip", "route", "add", "10.67.0.0/24", "dev", "eth0", "proto", "94")
        within(ref, "ip", "route", "add", "10.68.0.0/24", "dev", "eth0")
        wanted = endpoint()[BOX]
        found = it.kernel.observe(BOX, ref, namespace(wanted))
        assert set(found) - {item.key for item in wanted} == {("route", 254, "10.67.0.0/24", 0, "eth0")}


def test_link_local_addresses_of_the_kernel_are_left_out_unless_wanted():
    with rig(BOX) as it:
        it.make(endpoint())
        own = next(
            a["local"] for a in ip_json("address", "show", BRIDGE)[0]["addr_info"] if a["scope"] == "link"
        )
        item = Address(link=BRIDGE, address=f"{own}/64")
        assert item not in it.observed()
        assert item in it.observed(desired=[item])


def test_sysctls_are_read_as_wanted_whatever_their_blanks():
    with rig(BOX) as it:
        item = Sysctl(path="net/ipv4/ip_local_port_range", value="20000 30000")
        assert it.do(("create", HOST, item)) == []
        assert it.observed(desired=[item]) == [item]
        with open("/proc/sys/net/ipv4/ip_local_port_range", "w") as file:
            file.write("20001 30000")
        assert it.observed(desired=[item]) == [Sysctl(path=item.path, value="20001 30000")]
        assert it.observed(desired=[Sysctl(path="net/ipv4/conf/none/forwarding", value="1")]) == []


def test_sysctls_of_a_sandbox_are_its_own():
    with rig(BOX) as it:
        item = Sysctl(path="net/ipv4/ip_forward", value="1")
        before = it.observed(desired=[item])
        it.make({BOX: [item]})
        assert it.observed(BOX, [item]) == [item]
        assert it.observed(desired=[item]) == before


def test_a_dead_namespace_is_told_as_such():
    with rig(BOX) as it, pytest.raises(NamespaceGoneError):
        it.kernel.observe("dead", NetnsRef(path="/proc/4194303/ns/net", inode=1), {})


def test_a_sandbox_side_that_is_gone_is_missing():
    with rig(BOX) as it:
        it.make(endpoint())
        within(it.refs[BOX], "ip", "link", "del", "eth0")
        keys = {d.desired.key for d in it.drift({BOX: endpoint()[BOX]})}
        assert ("link", "eth0") in keys
        assert ("route", 254, "0.0.0.0/0", 0, "eth0") in keys


def test_pyroute2_reads_the_same():
    with rig(BOX) as it:
        it.make(endpoint())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from pyroute2 import IPRoute

            with IPRoute() as reader:
                links = {m.get_attr("IFLA_IFNAME"): m for m in reader.get_links()}
                masters = {m["index"]: name for name, m in links.items()}
                theirs = links[PORT]
                ours = next(item for item in it.observed() if getattr(item, "name", "") == PORT)
                assert ours.mac == theirs.get_attr("IFLA_ADDRESS")
                assert ours.mtu == theirs.get_attr("IFLA_MTU")
                assert ours.alias == theirs.get_attr("IFLA_IFALIAS")
                assert ours.master == masters[theirs.get_attr("IFLA_MASTER")]
                slave = theirs.get_attr("IFLA_LINKINFO").get_attr("IFLA_INFO_SLAVE_DATA")
                assert ours.port == BridgePort(
                    isolated=bool(slave.get_attr("IFLA_BRPORT_ISOLATED")),
                    learning=bool(slave.get_attr("IFLA_BRPORT_LEARNING")),
                    flood=bool(slave.get_attr("IFLA_BRPORT_UNICAST_FLOOD")),
                    guard=bool(slave.get_attr("IFLA_BRPORT_GUARD")),
                )
                index = links[BRIDGE]["index"]
                addresses = {
                    f"{m.get_attr('IFA_ADDRESS')}/{m['prefixlen']}" for m in reader.get_addr(index=index)
                }
                assert {i.address for i in it.observed() if isinstance(i, Address)} <= addresses
                permanent = {
                    m.get_attr("NDA_DST")
                    for family in (2, 10)
                    for m in reader.get_neighbours(family=family, ifindex=index)
                    if m["state"] == 0x80
                }
                assert {i.address for i in it.observed() if isinstance(i, Neighbour)} == permanent


def test_a_host_with_a_thousand_ports_is_observed_with_a_few_dumps(monkeypatch):
    """How long that takes is `bench`'s to say."""
    count, asked = 1000, []
    with rig(BOX) as it:
        desired = {HOST: [bridge(), Address(link=BRIDGE, address="10.1.0.1/16")]}
        for n in range(count):
            mac = f"02:00:00:02:{n >> 8:02x}:{n & 255:02x}"
            name = f"sle{n:012x}"
            desired[HOST] += [
                port(
                    name=name,
                    mac=f"02:00:00:01:{n >> 8:02x}:{n & 255:02x}",
                    alias=alias(f"e{n}"),
                    peer=(BOX, f"e{n}"),
                ),
                FdbEntry(link=name, mac=mac),
                Neighbour(link=BRIDGE, address=f"10.1.{n >> 8}.{n & 255}", mac=mac)
                if n > 1
                else Sysctl(path=f"net/ipv4/conf/{name}/forwarding", value="0"),
            ]
            desired.setdefault(BOX, []).append(
                inner(name=f"e{n}", mac=mac, alias=alias(f"e{n}"), peer=(HOST, name), addr_gen_none=True)
            )
        it.make(desired)
        wanted = namespace(desired[HOST])
        for method in ("dump", "request", "batch"):
            plain = getattr(Socket, method)
            monkeypatch.setattr(
                Socket, method, lambda self, what, plain=plain: asked.append(what) or plain(self, what)
            )
        found = it.kernel.observe(HOST, None, wanted)
        assert diff({HOST: wanted}, {HOST: found}) == []
        assert 3 < len(asked) < 30


def test_the_instance_is_part_of_whose_it_is():
    with rig(BOX) as it:
        it.do(("create", HOST, bridge()))
        ip("link", "set", BRIDGE, "alias", f"sealane/{INSTANCE}x/n/net")
        assert it.observed() == []


def test_a_link_of_a_kind_that_we_never_make_differs_from_what_is_wanted():
    with rig(BOX) as it:
        ip("link", "add", PORT, "type", "bridge")
        ip("link", "set", PORT, "alias", alias("web"))
        (found,) = it.observed()
        assert isinstance(found, Link)
        assert isinstance(found.kind, Bridge)
        assert found != changed(port(), peer=None)
