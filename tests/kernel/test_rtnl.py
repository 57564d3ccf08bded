"""The netlink layer against the real kernel: sockets, batches, dumps, facts, port holders."""

import contextlib
import errno
import os
import socket as sockets
import subprocess
import sys

import pytest

from kernel.rtnl_support import (
    BOX,
    BRIDGE,
    INSTANCE,
    PORT,
    bridge,
    endpoint,
    fresh_host,
    ip,
    ip_json,
    rig,
    run,
    within,
)
from sealane.compile.facts import ForeignRoute
from sealane.engine.ports import Flow, Kernel
from sealane.kernel.links import Bridge, Loopback, word_of
from sealane.kernel.objects import Address, Link
from sealane.kernel.state import HOST
from sealane.linux import facts
from sealane.linux.kernel import LinuxKernel
from sealane.linux.netlink import codec, inet, link, neigh, sock_diag
from sealane.linux.netlink.socket import (
    NETLINK_ROUTE,
    SEND_BYTES,
    LostEventsError,
    NetlinkError,
    Socket,
)
from sealane.model.endpoint import PublishedPort

pytestmark = pytest.mark.kernel


@pytest.fixture
def route():
    with fresh_host(), Socket(NETLINK_ROUTE) as socket:
        yield socket


def make(name, index=0, **fields):
    return link.create(Link(name=name, kind=Bridge(), **fields), index, 0)


def test_each_request_has_its_own_result_in_order(route):
    results = route.request([make("b1"), make("b1"), make("x" * 20), make("b2"), link.delete(999)])
    assert [error and error.errno for error in results] == [
        None,
        errno.EEXIST,
        errno.ERANGE,
        None,
        errno.ENODEV,
    ]
    assert {item["ifname"] for item in ip_json("link")} == {"lo", "b1", "b2"}


def test_the_kernels_extended_acknowledgement_is_the_error_text(route):
    (error,) = route.request([make("x" * 20)])
    assert isinstance(error, NetlinkError)
    assert error.strerror == "Attribute failed policy validation"
    assert error.offset == 32


def test_an_error_without_text_has_the_systems_words(route):
    (error,) = route.request([link.delete(999)])
    assert error.strerror == os.strerror(errno.ENODEV)


def test_nothing_to_send_is_nothing_done(route):
    assert route.request([]) == []


def test_many_failures_lose_no_answer(route):
    """More answers than one window holds, and every one of them an error with text."""
    count = 20_000
    results = route.request([make("x" * 20)] * count)
    assert len(results) == count
    assert all(error is not None and error.errno == errno.ERANGE for error in results)


def test_requests_beyond_a_datagram_are_split(route):
    one = make("b1")
    count = SEND_BYTES // len(one) + 2
    results = route.request([one] * count)
    assert results[0] is None
    assert all(error is not None and error.errno == errno.EEXIST for error in results[1:])


def test_a_small_receive_queue_makes_smaller_windows(route, monkeypatch):
    monkeypatch.setattr("sealane.linux.netlink.socket.REQUEST_QUEUE_BYTES", 1)
    with Socket(NETLINK_ROUTE) as small:
        assert small._window < 512
        results = small.request([make("x" * 20)] * 3000)
        assert [error.errno for error in results if error] == [errno.ERANGE] * 3000


def test_a_dump_comes_whole_over_many_datagrams(route):
    names = [f"b{n}" for n in range(80)]
    assert not any(route.request([make(name) for name in names]))
    found = [link.parse(payload).name for _, payload in route.dump(link.dump())]
    assert sorted(found) == sorted(["lo", *names])


def test_a_single_get_is_answered(route):
    (found,) = (link.parse(payload) for _, payload in route.dump(link.get("lo")))
    assert (found.name, found.index, found.kind) == ("lo", 1, Loopback())
    with pytest.raises(NetlinkError) as error:
        route.dump(link.get("none"))
    assert error.value.errno == errno.ENODEV


def test_strict_checking_refuses_what_it_does_not_know(route):
    header = inet._RTMSG.pack(2, 0, 0, 0, 0, 0, 0, 0, 0)
    bad = codec.message(
        inet.RTM_GETROUTE, codec.NLM_F_REQUEST | codec.NLM_F_DUMP, 0, header + codec.u32(5, 1)
    )
    with pytest.raises(NetlinkError, match="Unsupported attribute in dump request"):
        route.dump(bad)


def test_a_failed_dump_leaves_the_socket_fit_for_the_next(route):
    for _ in range(3):
        with pytest.raises(NetlinkError):
            route.dump(link.get("none"))
        assert len(route.dump(link.dump())) == 1


def test_routes_are_dumped_by_protocol(route):
    route.request([make("b1")])
    ip("link", "set", "b1", "up")
    ip("route", "add", "10.1.0.0/24", "dev", "b1", "proto", "94")
    ip("route", "add", "10.2.0.0/24", "dev", "b1")
    found = [inet.parse_route(payload).dst for _, payload in route.dump(inet.dump_routes(inet.AF_INET, 94))]
    assert found == ["10.1.0.0/24"]


def test_events_arrive_and_overflow_is_told_apart():
    with fresh_host(), Socket(NETLINK_ROUTE, 1) as events:
        assert list(events.receive()) == []
        ip("link", "add", "b1", "type", "bridge")
        assert link.RTM_NEWLINK in {event.kind for event in events.receive()}
        queue = sockets.socket(fileno=os.dup(events.fileno()))
        queue.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 1)
        queue.close()
        for number in range(60):
            ip("link", "set", "b1", "mtu", str(1300 + number))
        with pytest.raises(LostEventsError):
            list(events.receive())


def test_interrupted_dumps_are_begun_anew_and_complete():
    """Links come and go in another process meanwhile; those that stay are in every dump, once."""
    stay = [f"b{n}" for n in range(80)]
    with fresh_host(), Socket(NETLINK_ROUTE) as socket:
        assert not any(socket.request([make(name) for name in stay]))
        churn = subprocess.Popen(
            ["sh", "-c", "for i in $(seq 40); do ip link add churn type bridge; ip link del churn; done"]
        )
        try:
            rounds, failures = 0, set()
            while churn.poll() is None or rounds == 0:
                try:
                    names = [link.parse(payload).name for _, payload in socket.dump(link.dump())]
                except NetlinkError as error:
                    failures.add(error.errno)
                    continue
                assert sorted(set(names) - {"churn", "lo"}) == sorted(stay)
                assert len(names) == len(set(names))
                rounds += 1
        finally:
            churn.wait(timeout=30)
        assert rounds
        assert failures <= {errno.EINTR}


def test_links_of_each_shape_read_as_ip_reads_them():
    with rig(BOX) as it:
        it.make(endpoint())
        with Socket(NETLINK_ROUTE) as socket:
            ours = {raw.name: raw for raw in (link.parse(p) for _, p in socket.dump(link.dump()))}
        for theirs in ip_json("link"):
            mine = ours[theirs["ifname"]]
            assert mine.index == theirs["ifindex"]
            assert mine.mtu == theirs["mtu"]
            assert mine.mac == theirs["address"]
            assert mine.alias == theirs.get("ifalias", "")
            assert bool(mine.flags & link.IFF_UP) == ("UP" in theirs["flags"])
            word = theirs.get("linkinfo", {}).get("info_kind", "")
            assert word_of(mine.kind) == (word or "loopback")


def test_addresses_routes_and_neighbours_read_as_ip_reads_them():
    with rig(BOX) as it:
        it.make(endpoint())
        with Socket(NETLINK_ROUTE) as socket:
            addresses = {inet.parse_address(p).address for _, p in socket.dump(inet.dump_addresses())}
            routes = {inet.parse_route(p).dst for _, p in socket.dump(inet.dump_routes(inet.AF_INET))}
            neighbours = {neigh.parse(p).address for _, p in socket.dump(neigh.dump())}
        theirs = {f"{a['local']}/{a['prefixlen']}" for item in ip_json("address") for a in item["addr_info"]}
        # The kernel's own link-local addresses come when they come.
        assert {a for a in addresses if a[:4] != "fe80"} == {a for a in theirs if a[:4] != "fe80"}
        shown = {
            r["dst"] if "/" in r["dst"] else r["dst"] + "/32"
            for r in ip_json("route", "show", "table", "all")
        }
        assert {dst for dst in routes} <= shown | {"0.0.0.0/0"}
        assert {n["dst"] for n in ip_json("neigh", "show", "nud", "permanent")} <= neighbours


def test_facts_tell_the_uplink_and_the_prefixes_around(tmp_path):
    resolv = tmp_path / "resolv.conf"
    resolv.write_text(
        "# comment\nsearch x\nnameserver 192.0.2.53\nnameserver fe80::1%eth0\nnameserver junk\nnameserver\n"
    )
    with rig() as it:
        ip("link", "add", "up0", "type", "bridge")
        ip("link", "set", "up0", "mtu", "1400", "up")
        ip("link", "add", "up1", "type", "bridge")
        ip("link", "set", "up1", "up")
        ip("address", "add", "192.0.2.1/24", "dev", "up0")
        ip("address", "add", "198.51.100.1/24", "dev", "up1")
        ip("route", "add", "default", "via", "198.51.100.254", "metric", "200")
        ip("route", "add", "default", "via", "192.0.2.254", "metric", "100")
        ip("route", "add", "203.0.113.0/24", "via", "192.0.2.9")
        ip("route", "add", "unreachable", "10.250.0.0/16")
        ip("address", "add", "10.128.1.9/32", "dev", "lo")
        ip("address", "add", "fd00::9/128", "dev", "lo")
        ip("link", "set", "lo", "up")
        it.do(("create", HOST, bridge()), ("create", HOST, Address(link=BRIDGE, address="10.1.0.1/24")))
        it.do(("open", HOST, bridge()), stage="open")
        found = facts.read_facts(it.kernel._route, INSTANCE, it.kernel._features, str(resolv))
        assert (found.uplink, found.uplink_mtu) == ("up0", 1400)
        assert set(found.foreign_routes) == {
            ForeignRoute("192.0.2.0/24", "route via up0"),
            ForeignRoute("198.51.100.0/24", "route via up1"),
            ForeignRoute("203.0.113.0/24", "route via up0"),
            ForeignRoute("192.0.2.1/32", "address of up0"),
            ForeignRoute("198.51.100.1/32", "address of up1"),
            ForeignRoute("10.128.1.9/32", "address of lo"),
            ForeignRoute("fd00::9/128", "address of lo"),
            ForeignRoute("fd00::9/128", "route via lo"),
            ForeignRoute("192.0.2.53/32", "nameserver 192.0.2.53"),
            ForeignRoute("fe80::1/128", "nameserver fe80::1"),
        }
        assert found.features.nft_bridge
        assert found.features.conntrack


def test_a_hosts_own_network_is_known_among_the_routes_of_many_pods():
    count = facts.ROUTES_MAX + 104
    with rig() as it:
        for name in ("pods0", "lan0"):
            ip("link", "add", name, "type", "bridge")
            ip("link", "set", name, "up")
        routes = "".join(f"route add 10.200.{n >> 8}.{n & 255}/32 dev pods0\n" for n in range(count))
        subprocess.run(["ip", "-batch", "-"], input=routes, text=True, check=True)
        ip("address", "add", "192.168.1.20/24", "dev", "lan0")
        found = it.kernel.facts().foreign_routes
        assert {
            ForeignRoute("192.168.1.0/24", "route via lan0"),
            ForeignRoute("192.168.1.20/32", "address of lan0"),
        } <= set(found)
        assert {route.prefix for route in found if route.prefix.startswith("10.200.")} == {
            f"10.200.{n}.0/24" for n in range(-(-count // 256))
        }


def test_an_ipv6_default_route_gives_the_uplink_where_there_is_no_ipv4_one():
    with rig() as it:
        ip("link", "add", "up0", "type", "bridge")
        ip("link", "set", "up0", "up")
        ip("address", "add", "2001:db8::1/64", "dev", "up0", "nodad")
        ip("-6", "route", "add", "default", "via", "2001:db8::2")
        assert it.kernel.facts().uplink == "up0"


@pytest.mark.parametrize(
    ("accept_ra", "protocol", "found"),
    [("1", "ra", ("up0",)), ("2", "ra", ("up0",)), ("0", "ra", ()), ("1", "static", ())],
)
def test_a_link_that_learns_its_default_route_is_known(accept_ra, protocol, found):
    """Where a program hears the advertisements, the kernel's accept_ra is 0."""
    with rig() as it:
        ip("link", "add", "up0", "type", "bridge")
        ip("link", "set", "up0", "up")
        ip("address", "add", "2001:db8::1/64", "dev", "up0", "nodad")
        run("sysctl", "-qw", f"net.ipv6.conf.up0.accept_ra={accept_ra}")
        ip("-6", "route", "add", "default", "via", "2001:db8::2", "proto", protocol)
        assert it.kernel.facts().ra_links == found


def test_without_a_default_route_there_is_no_uplink():
    with rig() as it:
        assert (it.kernel.facts().uplink, it.kernel.facts().uplink_mtu) == ("", 0)


@pytest.mark.parametrize(
    ("family", "kind", "proto", "address", "asked", "taken"),
    [
        (sockets.AF_INET, sockets.SOCK_STREAM, "tcp", "0.0.0.0", None, True),
        (sockets.AF_INET, sockets.SOCK_STREAM, "tcp", "127.0.0.1", "127.0.0.1", True),
        (sockets.AF_INET, sockets.SOCK_STREAM, "tcp", "127.0.0.1", "192.0.2.1", False),
        (sockets.AF_INET, sockets.SOCK_STREAM, "tcp", "0.0.0.0", "192.0.2.1", True),
        (sockets.AF_INET6, sockets.SOCK_STREAM, "tcp", "::", "192.0.2.1", True),
        (sockets.AF_INET6, sockets.SOCK_STREAM, "tcp", "::1", "::1", True),
        (sockets.AF_INET6, sockets.SOCK_STREAM, "tcp", "::ffff:127.0.0.1", "127.0.0.1", True),
        (sockets.AF_INET6, sockets.SOCK_STREAM, "tcp", "::ffff:127.0.0.1", "0.0.0.0", True),
        (sockets.AF_INET6, sockets.SOCK_STREAM, "tcp", "::ffff:127.0.0.1", "::", False),
        (sockets.AF_INET6, sockets.SOCK_DGRAM, "udp", "::ffff:127.0.0.1", "127.0.0.1", True),
        (sockets.AF_INET, sockets.SOCK_DGRAM, "udp", "0.0.0.0", None, True),
        (sockets.AF_INET, sockets.SOCK_DGRAM, "tcp", "0.0.0.0", None, False),
    ],
)
def test_who_holds_a_port_is_named(family, kind, proto, address, asked, taken):
    with rig() as it, sockets.socket(family, kind) as holder:
        ip("link", "set", "lo", "up")
        if family == sockets.AF_INET6:
            holder.setsockopt(sockets.IPPROTO_IPV6, sockets.IPV6_V6ONLY, 0)
        holder.bind((address, 0))
        if kind == sockets.SOCK_STREAM:
            holder.listen()
        number = holder.getsockname()[1]
        with held_by_another(holder) as pid:
            check_holder(it, proto, address, asked, taken, number, pid)


@contextlib.contextmanager
def held_by_another(holder):
    """A socket that a process other than this one has open, by its pid: the daemon passes over its own relays."""
    with subprocess.Popen(["sleep", "600"], pass_fds=[holder.fileno()]) as process:
        holder.close()
        try:
            yield process.pid
        finally:
            process.kill()


def check_holder(it, proto, address, asked, taken, number, pid):
    port = PublishedPort(proto=proto, host_address=asked, host_first=number, host_last=number, port=80)
    assert it.kernel.port_user(port) == (f"sleep (pid {pid})" if taken else None)
    beside = PublishedPort(
        proto=proto, host_address=asked, host_first=number + 1, host_last=number + 1, port=80
    )
    assert it.kernel.port_user(beside) is None
    assert it.kernel.port_user(port, {(address.removeprefix("::ffff:"), number)}) is None
    others = {(address, number + 1), ("10.9.8.7", number)}
    assert (it.kernel.port_user(port, others) is not None) == taken


@pytest.mark.parametrize(
    ("family", "address", "asked", "taken"),
    [
        (sockets.AF_INET, "127.0.0.1", "127.0.0.1", True),
        (sockets.AF_INET6, "::", None, True),
        (sockets.AF_INET6, "::1", None, True),
    ],
)
def test_a_port_that_its_holder_would_share_is_held_all_the_same(family, address, asked, taken):
    with rig() as it, sockets.socket(family, sockets.SOCK_STREAM) as holder:
        ip("link", "set", "lo", "up")
        holder.setsockopt(sockets.SOL_SOCKET, sockets.SO_REUSEADDR, 1)
        holder.setsockopt(sockets.SOL_SOCKET, sockets.SO_REUSEPORT, 1)
        if family == sockets.AF_INET6:
            holder.setsockopt(sockets.IPPROTO_IPV6, sockets.IPV6_V6ONLY, 1)
        holder.bind((address, 0))
        holder.listen()
        number = holder.getsockname()[1]
        assert not sock_diag.is_free("tcp", number)
        port = PublishedPort(host_address=asked, host_first=number, host_last=number, port=80)
        with held_by_another(holder):
            assert (it.kernel.port_user(port) is not None) == taken


def test_a_connection_is_in_no_publishs_way_though_it_has_a_port():
    with rig() as it, sockets.socket() as listener, sockets.socket() as client:
        ip("link", "set", "lo", "up")
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        client.connect(listener.getsockname())
        number = client.getsockname()[1]
        assert it.kernel.port_user(PublishedPort(host_first=number, host_last=number, port=80)) is None


def test_asking_for_a_port_leaves_it_free():
    with rig() as it:
        ip("link", "set", "lo", "up")
        for proto, kind in (("tcp", sockets.SOCK_STREAM), ("udp", sockets.SOCK_DGRAM)):
            port = PublishedPort(proto=proto, host_first=8080, host_last=8080, port=80)
            assert it.kernel.port_user(port) is None
            with sockets.socket(sockets.AF_INET, kind) as other:
                other.bind(("0.0.0.0", 8080))


def test_where_there_is_no_ipv6_sockets_are_looked_at():
    with rig() as it, sockets.socket() as holder:
        run("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1")
        ip("link", "set", "lo", "up")
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        number = holder.getsockname()[1]
        for asked, taken in ((number, True), (number + 1, False)):
            port = PublishedPort(host_first=asked, host_last=asked, port=80)
            assert (it.kernel.port_user(port) is not None) == taken


def test_ports_held_in_a_sandbox_are_not_the_hosts():
    with rig(BOX) as it:
        within(it.refs[BOX], "ip", "link", "set", "lo", "up")
        code = "import socket,sys; s=socket.create_server(('127.0.0.1',8080)); print('up',flush=True); sys.stdin.read()"
        process = subprocess.Popen(
            ["nsenter", f"--net={it.refs[BOX].path}", sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert process.stdout.readline() == b"up\n"
        assert it.kernel.port_user(PublishedPort(host_first=8080, host_last=8080, port=80)) is None
        process.stdin.close()
        process.wait(timeout=100)
        process.stdout.close()


def test_a_protocol_that_the_kernel_lacks_holds_no_ports():
    with fresh_host():
        assert sock_diag.bound("sctp", 1, 65535) == []


def test_the_port_range_and_the_boot_are_read():
    with rig() as it:
        assert it.kernel.ephemeral_range() == (32768, 60999)
        with open("/proc/sys/net/ipv4/ip_local_port_range", "w") as file:
            file.write("40000 50000")
        assert it.kernel.ephemeral_range() == (40000, 50000)
        assert it.kernel.boot_id() == it.kernel.boot_id()
        assert len(it.kernel.boot_id()) == 36


def test_forgetting_flows_that_nobody_has_is_none():
    with rig() as it:
        flows = [Flow("udp", 53, 53), Flow("udp", 53, 60, "192.0.2.1"), Flow("udp", 0, 0, backend="fd00::2")]
        assert it.kernel.forget_flows(flows) == 0


def test_the_adapter_is_what_the_engine_asks_for(tmp_path):
    with fresh_host(), LinuxKernel(INSTANCE, str(tmp_path)) as kernel:
        asked: Kernel = kernel
        assert asked.observe(HOST, None, {}) == {}


def test_an_old_kernel_is_refused_by_name(monkeypatch, tmp_path):
    class Old:
        release = "5.14.21-generic"

    monkeypatch.setattr(os, "uname", lambda: Old)
    with pytest.raises(facts.UnsupportedKernelError, match=r"5\.14\.21-generic: sealane needs 5\.15"):
        LinuxKernel(INSTANCE, str(tmp_path))


def test_ping_reaches_the_sandbox_through_what_was_built():
    with rig(BOX) as it:
        it.make(endpoint())
        run("ping", "-c1", "-W2", "10.1.0.2")
        assert PORT in ip("-br", "link")
