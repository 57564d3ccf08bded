"""Veths that the kernel begins with while their plan is being made: the same comes of it, whatever goes wrong."""

import errno
import os
import threading

import msgspec
import pytest

from kernel.rtnl_support import (
    BOX,
    BRIDGE,
    LOOPBACK,
    PORT,
    PORT_MAC,
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
    within_json,
)
from sealane.engine.engine import Engine
from sealane.engine.errors import KernelError
from sealane.engine.events import EventLog
from sealane.engine.reconciler import Reconciler
from sealane.engine.resyncer import Resyncer
from sealane.kernel.nft import Element, Table
from sealane.kernel.objects import Address, FdbEntry, Link, Neighbour, Route, Sysctl
from sealane.kernel.state import HOST, namespace
from sealane.linux import jobs, namespaces, progress
from sealane.linux.session import Session
from sealane.model.endpoint import NetnsRef
from sealane.model.intent import Intent
from sealane.reconcile.diff import diff
from sealane.reconcile.order import first_veths, order
from sealane.reconcile.plan import Operation, Outcome, Plan
from sealane.store.memory import MemoryStore
from sealane.wire.requests import AttachRequest, DetachRequest, NetworkRequest, SubnetRequest

ROUTED_SETTINGS = [
    Sysctl(path=f"net/ipv4/conf/{PORT}/{name}", value="0") for name in ("accept_redirects", "route_localnet")
]


def bridged():
    """What an endpoint adds where its bridge is there already."""
    whole = endpoint()

    def is_bridges(item):
        return item == bridge() or (isinstance(item, Address | Sysctl) and BRIDGE in str(item.key))

    return {HOST: [item for item in whole[HOST] if not is_bridges(item)], BOX: whole[BOX]}


def routed():
    return {
        HOST: [
            port(master="", port=None, group=0x40000001),
            *ROUTED_SETTINGS,
            Sysctl(path=f"net/ipv6/conf/{PORT}/disable_ipv6", value="1"),
            Neighbour(link=PORT, address="10.2.0.2", mac=inner().mac),
            Route(dst="10.2.0.2/32", link=PORT),
        ],
        BOX: [
            LOOPBACK,
            inner(addr_gen_none=True),
            Address(link="eth0", address="10.2.0.2/32"),
            Neighbour(link="eth0", address="10.2.0.1", mac=PORT_MAC),
            Route(dst="0.0.0.0/0", link="eth0", gateway="10.2.0.1", onlink=True),
        ],
    }


ENDPOINTS = {"bridged": bridged, "routed": routed}


@pytest.fixture(params=ENDPOINTS)
def desired(request):
    return ENDPOINTS[request.param]()


@pytest.fixture
def host():
    with rig(BOX, "other") as it:
        it.make({HOST: [bridge()]})
        yield it


def differences(desired):
    want = {name: namespace(items) for name, items in desired.items()}
    return diff(want, {name: {} for name in want})


def apply(it, desired, *, begin=True, before=lambda: None):
    """As the reconciler does. `before`: what happens once it has begun."""
    found = differences(desired)
    if begin:
        veths = first_veths(found)
        assert veths
        it.kernel.begin(veths, it.refs)
    before()
    return it.kernel.apply(order(found), it.refs)


def land(it):
    """Wait for what has been begun."""
    it.kernel._applier._run._begun._begun()


def picture(it):
    """Everything that `ip` tells, without what differs from time to time."""
    told = [
        [without_carrier(item) for item in ip_json("link")],
        [without_carrier(item) for item in ip_json("address")],
        ip_json("route"),
        ip_json("neigh"),
        run("bridge", "fdb", "show", "br", BRIDGE),
        within_json(it.refs[BOX], "ip", "-d", "link"),
        within_json(it.refs[BOX], "ip", "address"),
        within_json(it.refs[BOX], "ip", "route"),
        within_json(it.refs[BOX], "ip", "neigh"),
        run("sysctl", "-n", f"net.ipv4.conf.{PORT}.accept_redirects", f"net.ipv6.conf.{PORT}.disable_ipv6"),
    ]
    return [without_time(part) for part in told]


def without_carrier(link):
    """The bridge has one when the kernel's linkwatch comes to it, which is up to a second later."""
    if link["ifname"] != BRIDGE:
        return link
    flags = sorted(set(link["flags"]) - {"LOWER_UP", "NO-CARRIER"})
    return {**link, "flags": flags, "operstate": ""}


def without_time(part):
    if isinstance(part, dict):
        passing = {
            "ifindex",
            "link_index",
            "link_netnsid",
            "valid_life_time",
            "preferred_life_time",
            "hello_timer",
        }
        return {
            key: without_time(value)
            for key, value in part.items()
            if key not in passing and "timer" not in key
        }
    return [without_time(item) for item in part] if isinstance(part, list) else part


def test_the_same_comes_of_it(desired):
    pictures = []
    for begin in (False, True):
        with rig(BOX) as it:
            it.make({HOST: [bridge()]})
            assert apply(it, desired, begin=begin) == []
            assert it.drift({**desired, HOST: [bridge(), *desired[HOST]]}) == []
            pictures.append(picture(it))
    assert pictures[0] == pictures[1]


def test_it_begins_before_the_plan(host, desired):
    """The bite of all the others: without a plan the link is there, down, and nobody's yet."""
    seen = []

    def look():
        land(host)
        seen.extend(item for item in ip_json("link") if item["ifname"] == PORT)

    apply(host, desired, before=look)
    (link,) = seen
    assert "UP" not in link["flags"]
    assert "ifalias" not in link


def test_on_one_processor_there_is_no_thread_and_the_same_comes_of_it(desired):
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        with rig(BOX) as it:
            assert all(thread.name != "sealane-netlink" for thread in threading.enumerate())
            it.make({HOST: [bridge()]})
            assert apply(it, desired) == []
            assert it.drift({**desired, HOST: [bridge(), *desired[HOST]]}) == []
    finally:
        os.sched_setaffinity(0, before)


def test_many_are_begun_as_one_datagram_and_the_rest_follows(monkeypatch):
    monkeypatch.setattr(jobs, "CREATES_AT_ONCE", 3)
    boxes = [f"box{n}" for n in range(8)]
    with rig(*boxes) as it:
        it.make({HOST: [bridge()]})
        desired = {HOST: []}
        for n, name in enumerate(boxes):
            link = port(
                name=f"sle{n:012x}", mac=f"02:00:00:00:02:0{n}", alias=alias(name), peer=(name, "eth0")
            )
            desired[HOST] += [link, FdbEntry(link=link.name, mac=f"02:00:00:00:03:0{n}")]
            desired[name] = [inner(mac=f"02:00:00:00:03:0{n}", alias=alias(name), peer=(HOST, link.name))]
        assert apply(it, desired) == []
        assert it.drift({**desired, HOST: [bridge(), *desired[HOST]]}) == []


def test_an_index_that_is_taken_is_nobody_elses_loss(host, desired, monkeypatch):
    """What was composed for the index that the link was to have would change who has it."""
    ip("link", "add", "taken", "index", "5000000", "type", "bridge")
    ip("link", "set", "taken", "alias", "mine")
    before = [item for item in ip_json("link") if item["ifname"] == "taken"]
    indexes = iter([5_000_000, 4_999_999, *range(6_000_000, 6_000_009)])
    monkeypatch.setattr(progress.indexes, "take", lambda: next(indexes))
    assert apply(host, desired) == []
    assert host.drift({**desired, HOST: [bridge(), *desired[HOST]]}) == []
    assert [item for item in ip_json("link") if item["ifname"] == "taken"] == before


def test_an_index_that_is_taken_inside_as_well(host, desired, monkeypatch):
    within(host.refs[BOX], "ip", "link", "add", "taken", "index", "5000000", "type", "bridge")
    indexes = iter([4_000_000, 5_000_000, *range(6_000_000, 6_000_009)])
    monkeypatch.setattr(progress.indexes, "take", lambda: next(indexes))
    assert apply(host, desired) == []
    assert host.drift({**desired, HOST: [bridge(), *desired[HOST]]}) == []


def test_a_link_that_is_there_already_is_adopted(host, desired):
    """After a crash between its creation and the rest."""
    host.kernel.begin(first_veths(differences(desired)), host.refs)
    land(host)
    host.kernel._applier._run.close()
    host.kernel._applier._run = None
    assert apply(host, desired) == []
    assert host.drift({**desired, HOST: [bridge(), *desired[HOST]]}) == []


def test_somebody_elses_link_of_that_name_stops_all_that_needs_ours(host, desired):
    ip("link", "add", PORT, "type", "bridge")
    before = [item for item in ip_json("link") if item["ifname"] == PORT]
    outcomes = apply(host, desired)
    failed = {(o.operation.verb, o.operation.object.key): o for o in outcomes}
    needing = [o for o in order(differences(desired)) if o.object != LOOPBACK and BRIDGE not in o.object.key]
    assert len(failed) == len(outcomes) == len(needing)
    refused = failed.pop(("create", ("link", PORT)))
    assert (refused.errno, "not ours" in refused.message) == (errno.EEXIST, True)
    assert all("not tried" in outcome.message for outcome in failed.values())
    assert [item for item in ip_json("link") if item["ifname"] == PORT] == before
    assert [item["ifname"] for item in within_json(host.refs[BOX], "ip", "link")] == ["lo"]


def test_a_sandbox_that_has_died_fails_once(host, desired):
    host.refs[BOX] = NetnsRef(path="/proc/4194303/ns/net", inode=1)
    outcomes = apply(host, desired)
    keys = [
        (outcome.operation.verb, outcome.operation.netns, outcome.operation.object.key)
        for outcome in outcomes
    ]
    assert len(set(keys)) == len(keys)
    assert ("create", HOST, ("link", PORT)) in keys
    assert [item["ifname"] for item in ip_json("link")] == ["lo", BRIDGE]
    del host.refs[BOX]


def test_a_fence_that_fails_leaves_it_down(host, desired):
    """And said to be there, so that taking it back takes it away."""
    fence = Operation("create", HOST, Table(family="ip"))
    found = differences(desired)
    applier = host.kernel._applier
    applier._host = applier._host._replace(
        apply_nft=lambda socket, operations, _: [refused(op) for op in operations]
    )
    host.kernel.begin(first_veths(found), host.refs)
    stages = order(found).stages
    outcomes = host.kernel.apply(Plan((("fence", (fence,)), *stages)), host.refs)
    made = {o.operation.object.key for o in outcomes if o.operation.verb == "create"}
    assert ("link", PORT) not in made
    assert len(outcomes) == 1 + sum(len(operations) for _, operations in stages) - 1
    (link,) = [item for item in ip_json("link") if item["ifname"] == PORT]
    assert "UP" not in link["flags"]
    assert link["ifalias"] == alias("web")


def refused(operation):
    return Outcome(operation, errno.EINVAL, "refused")


def an_engine(host, driver):
    """With one network, and its upkeep."""
    reconciler = Reconciler(host.kernel, Intent(), host.kernel.facts())
    engine = Engine(MemoryStore(), host.kernel, reconciler, EventLog(lambda: 0.0), 0)
    resyncer = Resyncer(engine)
    resyncer.start()
    engine.create_network(
        NetworkRequest(name="net", driver=driver, subnets=[SubnetRequest(prefix="10.7.0.0/24")])
    )
    return engine, resyncer


@pytest.mark.parametrize("driver", ["bridge", "routed"])
def test_an_attach_whose_fence_fails_is_taken_back_whole(host, driver):
    engine, resyncer = an_engine(host, driver)
    before = [link["ifname"] for link in ip_json("link")]
    applier, plain = host.kernel._applier, host.kernel._applier._host

    def refuse(socket, operations, foreseen):
        is_guard = any(o.verb == "create" and isinstance(o.object, Element) for o in operations)
        return list(map(refused, operations)) if is_guard else plain.apply_nft(socket, operations, foreseen)

    request = AttachRequest(sandbox=host.refs[BOX].path, network="net")
    applier._host = plain._replace(apply_nft=refuse)
    with pytest.raises(KernelError, match="refused"):
        engine.attach(request)
    assert [link["ifname"] for link in ip_json("link")] == before
    assert [link["ifname"] for link in within_json(host.refs[BOX], "ip", "link")] == ["lo"]
    assert engine.endpoints() == []
    applier._host = plain
    engine.attach(request)
    assert resyncer.audit().clean


def test_another_plan_than_was_begun_finds_the_link_and_goes_on(host, desired):
    """Nothing calls it so; should it happen, nothing is lost or doubled."""
    found = differences(desired)
    host.kernel.begin(first_veths(found), host.refs)
    assert host.do(("create", HOST, Address(link=BRIDGE, address="10.9.0.1/24"))) == []
    assert host.kernel._applier._run is None
    assert host.kernel.apply(order(found), host.refs) == []
    assert (
        host.drift({**desired, HOST: [bridge(), *desired[HOST], Address(link=BRIDGE, address="10.9.0.1/24")]})
        == []
    )


def test_what_cannot_be_said_is_told_and_opens_nothing(host, desired):
    """A setting that no message can hold: the link is there by then, and stays down."""
    links = [item for item in desired[HOST] if isinstance(item, Link)]
    bad = msgspec.structs.replace(links[0], alias="a" * 70000)
    outcomes = apply(host, {**desired, HOST: [bad, *(item for item in desired[HOST] if item not in links)]})
    assert "at most" in outcomes[0].message
    assert ("open", PORT) in {(o.operation.verb, getattr(o.operation.object, "name", "")) for o in outcomes}
    (made,) = [item for item in ip_json("link") if item["ifname"] == PORT]
    assert "UP" not in made["flags"]


def test_what_is_composed_ahead_is_what_would_be_composed_in_its_turn(host, desired, monkeypatch):
    compared = []
    plain = Session.send

    def send(self, works, begun=None):
        if begun is None:
            again = self.compose(dict.fromkeys(work.operation for work in works))
            compared.append([work.steps for work in again] == [work.steps for work in works])
        plain(self, works, begun)

    monkeypatch.setattr(Session, "send", send)
    assert apply(host, desired) == []
    assert len(compared) >= 2
    assert all(compared)


def test_all_of_it_is_composed_ahead(host, desired, monkeypatch):
    """What is not would be composed while the kernel has nothing to do."""
    in_turn = []
    plain = Session.compose

    def compose(self, operations):
        in_turn.append(operations)
        return plain(self, operations)

    monkeypatch.setattr(Session, "compose", compose)
    assert apply(host, desired) == []
    assert in_turn == []


MANY = 21


def many():
    """As many endpoints as boxes, each with an address that is its own."""
    found = {HOST: []}
    for number in range(MANY):
        name, box = f"sle{number:012}", f"box{number}"
        mark = alias(f"e{number}")
        mac = f"02:00:00:00:01:{number:02x}"
        found[HOST].append(port(name=name, mac=mac, alias=mark, peer=(box, "eth0")))
        inside = inner(alias=mark, mac=f"02:00:00:00:02:{number:02x}", peer=(HOST, name))
        found[box] = [LOOPBACK, inside, Address(link="eth0", address=f"10.1.0.{number + 2}/24")]
    return found


def test_more_sandboxes_than_may_be_open_get_each_its_own_link(monkeypatch):
    """Descriptors are closed to make room, their numbers are used again, and messages name them."""
    monkeypatch.setattr(namespaces, "OPEN_MAX", 6)
    monkeypatch.setattr(jobs, "CREATES_AT_ONCE", 3)
    with rig(*(f"box{number}" for number in range(MANY))) as host:
        host.make({HOST: [bridge()]})
        assert apply(host, many()) == []
        for number in range(MANY):
            (link,) = within_json(host.refs[f"box{number}"], "ip", "link", "show", "eth0")
            assert link["ifalias"] == alias(f"e{number}")
        assert host.drift({**many(), HOST: [bridge(), *many()[HOST]]}) == []


def test_what_cannot_be_begun_is_made_in_its_turn(host, desired, monkeypatch):
    def refuse(_):
        raise OSError(errno.ENOBUFS, "No buffer space available")

    with monkeypatch.context() as patched:
        patched.setattr(host.kernel._route, "begin", refuse)
        assert apply(host, desired) == []
    assert host.drift({**desired, HOST: [bridge(), *desired[HOST]]}) == []


@pytest.mark.parametrize("done", [False, True])
@pytest.mark.parametrize(
    ("driver", "job"),
    [
        ("bridge", jobs.RtnetlinkJob),
        ("bridge", jobs.Nft),
        ("routed", jobs.RtnetlinkJob),
        ("routed", jobs.Nft),
        ("routed", jobs.Sysctls),
    ],
)
def test_an_attach_that_is_cut_short_is_taken_back_whole(host, driver, job, done, monkeypatch):
    """No more descriptors, for one, before a job or at its end."""
    engine, resyncer = an_engine(host, driver)
    before = [link["ifname"] for link in ip_json("link")]
    request = AttachRequest(sandbox=host.refs[BOX].path, network="net")
    plain, calls = job.perform, []

    def perform(self):
        calls.append(self)
        if done:
            plain(self)
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patched:
        patched.setattr(job, "perform", perform)
        with pytest.raises(KernelError, match="Too many open files"):
            engine.attach(request)
    assert calls
    assert engine.endpoints() == []
    resyncer.resync({HOST})
    assert [link["ifname"] for link in ip_json("link")] == before
    assert [link["ifname"] for link in within_json(host.refs[BOX], "ip", "link")] == ["lo"]
    assert engine.attach(request).state == "up"
    assert resyncer.audit().clean


def test_a_bridge_keeps_its_mtu_when_its_last_port_goes():
    """One that it is made with goes with the port (br_mtu_auto_adjust)."""
    with rig(BOX) as host:
        host.make({HOST: [bridge(mtu=1400)]})
        (made,) = [item for item in ip_json("link") if item["ifname"] == BRIDGE]
        assert made["mtu"] == 1400
        assert apply(host, {HOST: [port(mtu=1400)], BOX: [inner(mtu=1400)]}) == []
        assert host.do(("delete", HOST, port(mtu=1400)), stage="close") == []
        assert host.drift({HOST: [bridge(mtu=1400)]}) == []


def test_a_sandbox_that_leaves_several_networks_at_once_keeps_nothing_of_them(host):
    """Its record goes in the same change, and what hangs on no link has to be deleted inside."""
    engine, resyncer = an_engine(host, "bridge")
    engine.create_network(NetworkRequest(name="other", subnets=[SubnetRequest(prefix="10.8.0.0/24")]))
    for network in ("net", "other"):
        engine.attach(AttachRequest(sandbox=host.refs[BOX].path, network=network))
    assert "proto 94" in within(host.refs[BOX], "ip", "rule")
    engine.detach([DetachRequest(sandbox=host.refs[BOX].path)])
    assert "proto 94" not in within(host.refs[BOX], "ip", "rule")
    assert within(host.refs[BOX], "ip", "route", "show", "table", "all").count("proto 94") == 0
    assert resyncer.audit().clean
