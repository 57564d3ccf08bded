"""Conntrack entries are deleted by original destination, host port and reply source, and no others are."""

import errno
import subprocess

import pytest

from kernel.nft_support import fresh_namespace
from sealane.linux.netlink.conntrack import FILTERED_DUMPS_MAX, FlowMatch, delete_flows, flows
from sealane.linux.netlink.socket import NETLINK_NETFILTER, NetlinkError, Socket

pytestmark = pytest.mark.kernel

HOST = {4: "192.0.2.1", 6: "2001:db8::1"}
OTHER_HOST = {4: "192.0.2.2", 6: "2001:db8::2"}
CLIENT = {4: "198.51.100.7", 6: "2001:db8:1::7"}
BACKEND = {4: "10.1.0.2", 6: "fd00::2"}
OTHER = {4: "10.1.0.3", 6: "fd00::3"}


@pytest.fixture(params=[4, 6])
def family(request):
    return request.param


@pytest.fixture
def socket():
    with fresh_namespace(), Socket(NETLINK_NETFILTER) as found:
        yield found


def conntrack(*argv):
    done = subprocess.run(["conntrack", *argv], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr


def insert(family, port, backend="", backend_port=0, *, proto="udp", to=HOST, client_port=40000):
    """An entry of a client's flow to a port of the host's, translated to a backend or not."""
    answers = backend or to[family]
    conntrack(
        "-I",
        *("-p", proto, "-t", "600"),
        *("-s", CLIENT[family], "-d", to[family], "--sport", str(client_port), "--dport", str(port)),
        *("-r", answers, "-q", CLIENT[family]),
        *("--reply-port-src", str(backend_port or port), "--reply-port-dst", str(client_port)),
        *(("--state", "ESTABLISHED") if proto == "tcp" else ()),
    )


def left(socket, family):
    """(protocol, host port, who answers) of what is there."""
    return sorted((flow.proto, flow.destination_port, flow.reply_source) for flow in flows(socket, family))


def test_an_entry_is_read_in_both_directions(socket, family):
    insert(family, 8080, BACKEND[family], 80)
    [flow] = flows(socket, family)
    assert (flow.proto, flow.source, flow.source_port) == (17, CLIENT[family], 40000)
    assert (flow.destination, flow.destination_port) == (HOST[family], 8080)
    assert (flow.reply_source, flow.reply_source_port) == (BACKEND[family], 80)
    assert (flow.reply_destination, flow.reply_destination_port) == (CLIENT[family], 40000)


def test_the_host_port_counts_and_not_the_containers(socket, family):
    """Two host ports lead to one container port (moby#53384): unpublishing one leaves flows of the other alone."""
    insert(family, 8080, BACKEND[family], 80)
    insert(family, 9090, BACKEND[family], 80, client_port=40001)
    insert(family, 80, OTHER[family], 8080)
    match = FlowMatch(family=family, first=8080, last=8080, reply_source=BACKEND[family])
    assert delete_flows(socket, [match]) == 1
    assert left(socket, family) == [(17, 80, OTHER[family]), (17, 9090, BACKEND[family])]


def test_flows_that_no_rule_translated_are_found_when_a_port_is_published(socket, family):
    insert(family, 8080)
    insert(family, 8080, to=OTHER_HOST)
    insert(family, 8081)
    assert (
        delete_flows(socket, [FlowMatch(family=family, destination=HOST[family], first=8080, last=8080)]) == 1
    )
    assert left(socket, family) == [(17, 8080, OTHER_HOST[family]), (17, 8081, HOST[family])]


@pytest.mark.parametrize(("first", "last"), [(8000, 8009), (8003, 8003), (0, 8000), (8009, 65535)])
def test_ranges_hold_both_their_ends(socket, family, first, last):
    ports = [0, 7999, 8000, 8003, 8009, 8010, 65535]
    for port in ports:
        insert(family, port)
    gone = delete_flows(socket, [FlowMatch(family=family, first=first, last=last)])
    assert [port for _, port, _ in left(socket, family)] == [
        port for port in ports if not first <= port <= last
    ]
    assert gone == len([port for port in ports if first <= port <= last])


def test_protocols_are_told_apart(socket, family):
    for proto in ("udp", "tcp"):
        insert(family, 53, BACKEND[family], proto=proto)
    assert delete_flows(socket, [FlowMatch(family=family, proto="tcp", first=53, last=53)]) == 1
    assert left(socket, family) == [(17, 53, BACKEND[family])]


def test_an_endpoint_that_went_takes_all_its_flows_with_it(socket, family):
    for number, proto in enumerate(("udp", "tcp")):
        insert(family, 1000 + number, BACKEND[family], proto=proto)
    insert(family, 1000, OTHER[family], client_port=40001)
    assert delete_flows(socket, [FlowMatch(family=family, proto="", reply_source=BACKEND[family])]) == 2
    assert left(socket, family) == [(17, 1000, OTHER[family])]


def test_what_an_endpoint_asked_goes_with_it(socket, family):
    """Its answers would come to the address's next owner."""
    insert(family, 53, OTHER[family])
    (flow,) = flows(socket, family)
    assert delete_flows(socket, [FlowMatch(family=family, proto="udp", source=BACKEND[family])]) == 0
    assert delete_flows(socket, [FlowMatch(family=family, proto="udp", source=flow.source)]) == 1
    assert left(socket, family) == []


def test_one_family_does_not_touch_the_other(socket):
    for number in (4, 6):
        insert(number, 53)
    assert delete_flows(socket, [FlowMatch(family=6, first=53, last=53)]) == 1
    assert left(socket, 4)
    assert left(socket, 6) == []


def test_deleting_again_deletes_nothing(socket, family):
    insert(family, 53)
    match = FlowMatch(family=family, destination=HOST[family])
    assert [delete_flows(socket, [match]) for _ in range(2)] == [1, 0]


def test_an_entry_that_two_matches_mean_is_deleted_once(socket, family):
    insert(family, 53, BACKEND[family])
    matches = [
        FlowMatch(family=family, destination=HOST[family]),
        FlowMatch(family=family, reply_source=BACKEND[family]),
    ]
    assert delete_flows(socket, matches) == 1


@pytest.mark.parametrize("count", [FILTERED_DUMPS_MAX, FILTERED_DUMPS_MAX + 1])
def test_many_matches_are_as_good_as_one_by_one(socket, family, count):
    for port in range(1000, 1000 + count + 2):
        insert(family, port)
    matches = [FlowMatch(family=family, first=port, last=port) for port in range(1000, 1000 + count)]
    assert delete_flows(socket, matches) == count
    assert [port for _, port, _ in left(socket, family)] == [1000 + count, 1001 + count]


def test_errors_of_the_kernel_are_raised(socket, family, monkeypatch):
    insert(family, 53)
    monkeypatch.setattr(socket, "request", lambda messages: [NetlinkError(errno.EPERM) for _ in messages])
    with pytest.raises(NetlinkError):
        delete_flows(socket, [FlowMatch(family=family, first=53, last=53)])


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"proto": "tcp"},
        {"proto": ""},
        {"first": 0, "last": 65535},
        {"first": 9, "last": 8},
        {"first": -1, "last": 8},
        {"last": 65536},
    ],
)
def test_a_match_on_everything_or_nothing_is_refused(fields):
    """To the kernel a deletion without a tuple means all."""
    with pytest.raises(ValueError, match=r"delete all|not a range"):
        FlowMatch(family=4, **fields)
