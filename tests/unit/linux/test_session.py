"""The order and the dependencies of operations, without a kernel."""

import errno

import pytest

from sealane.engine.ports import NamespaceGoneError
from sealane.kernel.links import Veth
from sealane.kernel.objects import Address, FdbEntry, Link, LoopbackPort, Neighbour, Qdisc, Route, Sysctl
from sealane.kernel.state import HOST
from sealane.linux import progress
from sealane.linux.facts import UnsupportedKernelError, check_release
from sealane.linux.jobs import by_namespace, entry_of
from sealane.linux.messages import setting4
from sealane.linux.namespaces import Namespaces
from sealane.linux.netlink.socket import NetlinkError
from sealane.linux.observe import loopback_port
from sealane.linux.session import Progress, errno_of, link_of
from sealane.reconcile.plan import Operation


def op(netns, name="x", verb="create"):
    return Operation(verb, netns, Address(link=name, address="10.0.0.1/24"))


def shape(operations):
    return [(group[0].netns, len(group)) for group in by_namespace(operations)]


def test_the_host_goes_before_and_after_its_sandboxes():
    operations = [op(HOST), op("a"), op("b"), op("a"), op(HOST), op("b"), op(HOST)]
    assert shape(operations) == [(HOST, 1), ("a", 2), ("b", 2), (HOST, 2)]
    assert shape([op("a"), op(HOST)]) == [("a", 1), (HOST, 1)]
    assert shape([op(HOST)]) == [(HOST, 1)]
    assert shape([]) == []


def test_operations_of_one_namespace_keep_their_order():
    operations = [op("a", "1"), op(HOST, "2"), op("a", "3"), op(HOST, "4")]
    assert [[o.object.link for o in group] for group in by_namespace(operations)] == [["1", "3"], ["2", "4"]]


@pytest.mark.parametrize(
    ("item", "name"),
    [
        (Link(name="a", kind=Veth()), "a"),
        (Address(link="a", address="10.0.0.1/24"), "a"),
        (Route(dst="10.0.0.0/8", link="a"), "a"),
        (Route(dst="10.0.0.0/8", type="unreachable"), ""),
        (Neighbour(link="a", address="10.0.0.1"), "a"),
        (FdbEntry(link="a", mac="02:00:00:00:00:01"), "a"),
        (Qdisc(link="a", rate=1, burst=1, limit=1), "a"),
        (Sysctl(path="net/ipv4/conf/a/forwarding", value="1"), "a"),
        (Sysctl(path="net/ipv6/neigh/a/retrans_time", value="1"), "a"),
        (Sysctl(path="net/ipv4/ip_forward", value="1"), ""),
        (Sysctl(path="net/ipv4/conf", value="1"), ""),
    ],
)
def test_the_link_that_an_object_is_or_belongs_to(item, name):
    assert link_of(item) == name


def test_a_failed_creation_takes_both_ends_away_from_what_follows():
    progress = Progress("abc")
    item = Link(name="h0", kind=Veth(peer=("box", "eth0")))
    progress.fail(Operation("create", HOST, item), errno.EEXIST, "there")
    assert progress.missing == {(HOST, "h0"), ("box", "eth0")}
    assert [(o.errno, o.message) for o in progress.outcomes] == [(errno.EEXIST, "there")]


def test_a_failed_setting_keeps_its_link_shut_but_there():
    progress = Progress("abc")
    progress.fail(op(HOST, "h0"), errno.EINVAL, "bad")
    assert (progress.missing, progress.faulty) == (set(), {(HOST, "h0")})


def test_a_failed_deletion_keeps_nothing_shut():
    progress = Progress("abc")
    progress.fail(op(HOST, "h0", "delete"), errno.EBUSY, "busy")
    assert (progress.missing, progress.faulty) == (set(), set())


def test_the_sandbox_side_is_known_from_its_own_operation():
    inside = Link(name="eth0", kind=Veth(), mac="02:00:00:00:00:01")
    gone = Link(name="eth1", kind=Veth())
    progress = Progress("abc")
    progress.expect([Operation("open", "box", inside), Operation("delete", "box", gone)])
    assert progress.links == {("box", "eth0"): inside}


@pytest.mark.parametrize(
    ("path", "value", "setting"),
    [
        ("net/ipv4/conf/a/accept_redirects", "0", ("a", "accept_redirects", 0)),
        ("net/ipv4/conf/a/route_localnet", "1", ("a", "route_localnet", 1)),
        ("net/ipv4/conf/a/rp_filter", "1", None),
        ("net/ipv4/conf/a/accept_redirects", "2", None),
        ("net/ipv4/conf/a/accept_redirects", "01", None),
        ("net/ipv6/conf/a/accept_redirects", "0", None),
        ("net/ipv4/conf/accept_redirects", "0", None),
        ("net/ipv4/conf/a/b/accept_redirects", "0", None),
        ("net/ipv4/ip_forward", "1", None),
    ],
)
def test_what_a_links_message_sets_of_its_sysctls(path, value, setting):
    assert setting4(Sysctl(path=path, value=value)) == setting


def test_settings_are_known_by_link_and_namespace():
    paths = (
        "net/ipv4/conf/a/send_redirects",
        "net/ipv4/conf/a/accept_redirects",
        "net/ipv4/conf/a/rp_filter",
    )
    operations = [
        Operation("create", netns, Sysctl(path=path, value="0")) for netns in "xy" for path in paths
    ]
    desired = {"send_redirects": 0, "accept_redirects": 0}
    progress = Progress("abc")
    progress.expect(operations)
    assert progress.settings4 == {("x", "a"): desired, ("y", "a"): desired}


@pytest.mark.parametrize(
    ("error", "number", "text"),
    [
        (NetlinkError(errno.EEXIST, "taken"), errno.EEXIST, "taken"),
        (OSError(errno.ENOENT, "No such file", "/proc/x"), errno.ENOENT, "No such file (/proc/x)"),
        (OSError("bare"), errno.EINVAL, "bare"),
        (ValueError("field: bad"), errno.EINVAL, "field: bad"),
        (NamespaceGoneError("gone"), errno.ENOENT, "gone"),
    ],
)
def test_every_failure_has_a_number_and_words(error, number, text):
    assert errno_of(error) == (number, text)


def test_indexes_stay_above_the_kernels_and_below_its_last():
    indexes = progress.Indexes()
    indexes._next = progress.INDEX_LAST - 1
    assert [indexes.take() for _ in range(3)] == [
        progress.INDEX_LAST,
        progress.INDEX_FIRST,
        progress.INDEX_FIRST + 1,
    ]
    for _ in range(100):
        indexes.restart()
        assert progress.INDEX_FIRST < indexes.take() <= progress.INDEX_LAST


def test_a_sandbox_without_a_namespace_is_gone():
    with Namespaces({}) as sandboxes, pytest.raises(NamespaceGoneError, match="box has no namespace"):
        sandboxes.descriptor("box")


@pytest.mark.parametrize(
    "item",
    [
        LoopbackPort(family=4, proto="tcp", first=80, last=90, address="10.1.0.2", port=8080),
        LoopbackPort(family=6, proto="udp", first=53, last=53, address="fd00::2", port=53),
        LoopbackPort(family=6, proto="tcp", first=1, last=1, address="10.1.0.2", port=1),
        LoopbackPort(
            family=4, proto="tcp", first=1, last=1, address="10.1.0.2", port=1, reserved="127.0.0.1"
        ),
        LoopbackPort(family=6, proto="tcp", first=1, last=1, address="fd00::2", port=1, reserved="::"),
    ],
)
def test_loopback_publishes_come_back_as_they_went(item):
    assert loopback_port(entry_of(item)) == item


@pytest.mark.parametrize("release", ["5.15", "5.15.0-100-generic", "6.18.44-fc-v657", "10.0", "5.150.1"])
def test_kernels_from_5_15_on_are_taken(release):
    check_release(release)


@pytest.mark.parametrize("release", ["5.14.21", "4.19.0", "5.4", "", "six", "5", "v5.15"])
def test_older_or_unreadable_kernels_are_refused(release):
    with pytest.raises(UnsupportedKernelError, match=r"needs 5\.15"):
        check_release(release)
