"""Whose a link, route or address is, on a real kernel: ours is finished and repaired, anybody else's left as it is."""

import errno
import os

import pytest

from harness.links import changed
from kernel.rtnl_support import (
    BOX,
    BRIDGE,
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
    within_json,
)
from sealane.kernel.objects import GROUP_DOOMED, GROUP_LIVE, Address, Link, Route, Sysctl
from sealane.kernel.state import HOST
from sealane.linux import progress
from sealane.reconcile.order import order

pytestmark = pytest.mark.kernel


def test_a_link_left_in_the_doomed_group_is_seen_as_different_and_taken_out_of_it():
    with rig(BOX) as it:
        it.make(endpoint())
        ip("link", "set", PORT, "group", str(GROUP_DOOMED))
        (difference,) = it.drift(endpoint())
        assert difference.observed.name == PORT
        assert it.do(("change", HOST, port(), difference.observed)) == []
        assert it.drift(endpoint()) == []
        assert ip_json("link", "show", PORT)[0]["group"] == str(GROUP_LIVE)


def test_a_link_that_a_crash_left_unnamed_is_ours_and_finished():
    with rig(BOX) as it:
        it.do(("create", HOST, bridge()))
        peer = ("peer", "name", "eth0", "netns", it.refs[BOX].path.rpartition("/")[2])
        with netns_name(it.refs[BOX]) as name:
            ip("link", "add", PORT, "group", str(GROUP_LIVE), "type", "veth", *peer[:3], "netns", name)
        assert PORT in {item.name for item in it.observed() if isinstance(item, Link)}
        assert it.do(("create", HOST, port())) == []
        assert it.do(("open", HOST, port()), stage="open") == []
        assert next(i for i in it.observed() if getattr(i, "name", "") == PORT) == changed(port(), peer=None)


class netns_name:
    """`ip` knows namespaces by name only below /run/netns."""

    def __init__(self, ref):
        self.ref = ref

    def __enter__(self):
        os.makedirs("/run/netns", exist_ok=True)
        self.name = f"test-{os.getpid()}"
        run("touch", f"/run/netns/{self.name}")
        run("mount", "--bind", self.ref.path, f"/run/netns/{self.name}")
        return self.name

    def __exit__(self, *_):
        run("umount", f"/run/netns/{self.name}")
        run("rm", f"/run/netns/{self.name}")


def test_a_foreign_link_of_the_same_name_is_refused_and_stays_as_it_is():
    with rig(BOX) as it:
        it.do(("create", HOST, bridge()))
        ip("link", "add", PORT, "type", "bridge")
        before = ip_json("link", "show", PORT)
        (outcome,) = it.do(("create", HOST, port()))
        assert outcome.errno == errno.EEXIST
        assert "not ours" in outcome.message
        assert ip_json("link", "show", PORT) == before


def test_a_link_in_the_sandbox_of_the_same_name_is_refused_and_leaves_nothing_on_the_host():
    with rig(BOX) as it:
        within(it.refs[BOX], "ip", "link", "add", "eth0", "type", "bridge")
        it.do(("create", HOST, bridge()))
        (outcome,) = it.do(("create", HOST, port()))
        assert outcome.errno == errno.EEXIST
        assert "eth0" in outcome.message
        assert PORT not in {item["ifname"] for item in ip_json("link")}


def test_settings_of_a_foreign_link_that_has_the_name_stay_as_they_are():
    guards = [
        Sysctl(path="net/ipv6/conf/eth0/accept_ra", value="0"),
        Sysctl(path="net/ipv4/conf/eth0/accept_redirects", value="0"),
    ]
    with rig(BOX) as it:
        within(it.refs[BOX], "ip", "link", "add", "eth0", "type", "bridge")
        it.do(("create", HOST, bridge()))
        refused, *untried = it.do(("create", HOST, port()), *(("create", BOX, guard) for guard in guards))
        assert refused.errno == errno.EEXIST
        assert [(o.errno, o.message) for o in untried] == [(0, "not tried: eth0 is not there")] * 2
        for guard in guards:
            assert within(it.refs[BOX], "cat", f"/proc/sys/{guard.path}").strip() == "1"


def test_the_hosts_own_settings_are_no_links():
    """The kernel refuses a link called `all` (net/ipv4/devinet.c, sysctl_dev_name_is_allowed)."""
    with rig(BOX) as it:
        before = within(it.refs[BOX], "cat", "/proc/sys/net/ipv4/conf/all/accept_redirects")
        taken = port(peer=(BOX, "all"))
        it.do(("create", HOST, bridge()))
        it.do(
            ("create", HOST, taken),
            ("create", BOX, Sysctl(path="net/ipv4/conf/all/accept_redirects", value="0")),
        )
        assert within(it.refs[BOX], "cat", "/proc/sys/net/ipv4/conf/all/accept_redirects") == before


def test_a_foreign_link_that_has_taken_the_name_is_neither_deleted_nor_changed_nor_opened():
    with rig(BOX) as it:
        it.make(endpoint())
        ip("link", "del", PORT)
        ip("link", "add", PORT, "type", "bridge")
        before = ip_json("link", "show", PORT)
        assert it.do(("delete", HOST, port()), stage="close") == []
        assert it.do(("delete", HOST, port()), ("delete", HOST, bridge()), stage="close") == []
        for verb in ("change", "open"):
            (outcome,) = it.do((verb, HOST, port(master=""), port(master="")), stage="open")
            assert (outcome.errno, outcome.message) == (errno.EEXIST, f"the link {PORT} is not ours")
        assert ip_json("link", "show", PORT) == before


def test_a_link_of_the_sandboxs_owner_is_not_taken_over():
    with rig(BOX) as it:
        within(it.refs[BOX], "ip", "link", "add", "eth0", "type", "bridge")
        assert it.observed(BOX, [inner()]) == []
        (outcome,) = it.do(("open", BOX, inner()), stage="open")
        assert outcome.errno == errno.EEXIST
        assert it.do(("delete", BOX, inner()), stage="close") == []
        (left,) = within_json(it.refs[BOX], "ip", "link", "show", "eth0")
        assert "UP" not in left["flags"]
        assert "ifalias" not in left


def test_both_sides_of_a_veth_bear_our_group_from_the_start():
    with rig(BOX) as it:
        it.make(endpoint())
        (inside,) = within_json(it.refs[BOX], "ip", "link", "show", "eth0")
        assert inside["group"] == str(GROUP_LIVE)


def test_a_link_whose_alias_somebody_overwrote_is_still_ours_and_repaired():
    with rig(BOX) as it:
        it.make(endpoint())
        ip("link", "set", PORT, "alias", "mine now")
        (difference,) = it.drift(endpoint())
        assert (difference.desired.name, difference.observed.alias) == (PORT, "mine now")
        assert it.kernel.apply(order([difference]), it.refs) == []
        assert it.drift(endpoint()) == []


def test_a_link_of_another_installation_is_not_ours_in_spite_of_its_group():
    with rig(BOX) as it:
        it.make(endpoint())
        ip("link", "set", PORT, "alias", "sealane/ffffff/e/web")
        assert PORT not in {item.name for item in it.observed() if isinstance(item, Link)}
        assert it.do(("delete", HOST, port()), stage="close") == []
        assert ip_json("link", "show", PORT)


def test_a_foreign_route_is_not_replaced():
    with rig() as it:
        it.do(("create", HOST, bridge()))
        it.do(("open", HOST, bridge()), stage="open")
        ip("route", "add", "10.7.0.0/24", "dev", BRIDGE)
        (outcome,) = it.do(("create", HOST, Route(dst="10.7.0.0/24", type="unreachable")), stage="open")
        assert outcome.errno == errno.EEXIST
        assert "not ours" in outcome.message
        assert ip_json("route", "show", "10.7.0.0/24")[0]["dev"] == BRIDGE


def test_a_foreign_route_is_not_deleted():
    with rig() as it:
        it.do(("create", HOST, bridge()))
        it.do(("open", HOST, bridge()), stage="open")
        ip("route", "add", "10.7.0.0/24", "dev", BRIDGE)
        assert it.do(("delete", HOST, Route(dst="10.7.0.0/24", link=BRIDGE)), stage="close") == []
        assert ip_json("route", "show", "10.7.0.0/24")


def test_an_address_with_another_prefix_length_is_named():
    with rig() as it:
        it.do(("create", HOST, bridge()))
        ip("address", "add", "fd00::1/48", "dev", BRIDGE)
        (outcome,) = it.do(("create", HOST, Address(link=BRIDGE, address="fd00::1/64")))
        assert outcome.errno == errno.EEXIST
        assert "another prefix length" in outcome.message


def test_an_index_that_is_taken_is_replaced_by_another(monkeypatch):
    with rig(BOX) as it:
        it.do(("create", HOST, bridge()))
        taken = ip_json("link", "show", BRIDGE)[0]["ifindex"]
        monkeypatch.setattr(progress.indexes, "_next", taken - 1)
        before = ip_json("link", "show", BRIDGE)
        assert it.do(("create", HOST, port())) == []
        assert ip_json("link", "show", BRIDGE)[0]["ifalias"] == before[0]["ifalias"]
        assert ip_json("link", "show", PORT)[0]["ifalias"] == alias("web")
