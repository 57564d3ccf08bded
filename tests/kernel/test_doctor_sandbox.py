"""The known causes inside sandboxes: each fault is made by what a person could have typed or started, is named, and is
not named any more once it is mended."""

from collections.abc import Iterator
from functools import partial

import pytest

from harness.doctored import GATEWAY4, Town, resolve_by, town
from harness.host import Lan
from harness.netns import Netns
from sealane.linux.nameservers import of_process

pytestmark = pytest.mark.kernel

CROWDED = """
import builtins, socket
server = socket.create_server(("0.0.0.0", 7000), backlog=1)
clients = []
for _ in range(3):
    client = socket.socket()
    client.setblocking(False)
    client.connect_ex(("127.0.0.1", 7000))
    clients.append(client)
builtins.sealane_test_crowd = [server, *clients]
"""
DISPERSED = "import builtins; [item.close() for item in builtins.sealane_test_crowd]"
LISTEN = """
import builtins, socket
server = socket.socket(socket.{family}, socket.SOCK_STREAM)
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
server.bind(({address!r}, {port}))
server.listen()
builtins.sealane_test_lone = server
"""
CLOSE = "import builtins; builtins.sealane_test_lone.close()"


@pytest.fixture(scope="module")
def sick(lan: Lan) -> Iterator[Town]:
    with town(lan, 8) as built:
        yield built


def lone(ns: Netns, address: str, port: int) -> None:
    family = "AF_INET6" if ":" in address else "AF_INET"
    ns.python(LISTEN.format(family=family, address=address, port=port))


# --- routes ---------------------------------------------------------------------------------------------------------


def test_the_wrong_way_out_of_two_networks(sick: Town) -> None:
    """`back` is the first by name: somebody prefers the other one, and says so in the wrong place."""
    ns = sick.api.ns
    assert "via 10.76.0.1" in ns.ip("route", "show", "default")
    ns.ip("route", "replace", "default", "via", GATEWAY4)

    def back() -> None:
        ns.ip("route", "replace", "default", "via", "10.76.0.1", "dev", "eth1")

    with sick.broken("wrong-default-route", back) as (finding,):
        assert (finding["subject"], finding["level"]) == (sick.name(sick.api), "error")
        assert (
            "via 10.75.0.1 dev eth0, it should leave by 0.0.0.0/0 via 10.76.0.1 dev eth1"
            in finding["message"]
        )
        assert "--gw-priority" in finding["hint"]


def test_a_better_default_route_of_somebody_elses(sick: Town, family: int) -> None:
    """IPv6's own has a metric of 1024."""
    ns = sick.web.ns
    link, metric = ("veth9", "5") if family == 6 else ("veth9", "0")
    ns.batch(f"link add {link} type veth peer name peer9", f"link set {link} up", "link set peer9 up")
    if family == 6:
        ns.ip("-6", "route", "add", "default", "dev", link, "metric", metric)
    else:
        ns.ip("route", "replace", "default", "dev", link)

    def back() -> None:
        ns.ip("link", "del", link)
        if family == 4:
            ns.ip("route", "add", "default", "via", GATEWAY4)

    with sick.broken("wrong-default-route", back) as (finding,):
        assert finding["subject"] == sick.name(sick.web)
        assert f"dev {link}" in finding["message"]


def test_no_default_route(sick: Town) -> None:
    ns = sick.web.ns
    ns.ip("route", "del", "default")
    with sick.broken("wrong-default-route", lambda: ns.ip("route", "add", "default", "via", GATEWAY4)) as (
        finding,
    ):
        assert "it has no default route of IPv4" in finding["message"]


def test_a_link_larger_than_its_network(sick: Town) -> None:
    ns = sick.web.ns
    ns.ip("link", "set", "eth0", "mtu", "9000")
    with sick.broken("mtu-black-hole", lambda: ns.ip("link", "set", "eth0", "mtu", "1500")) as (finding,):
        assert (finding["subject"], finding["level"]) == ("web/front", "error")
        # It is a hole, and a black one.
        done = ns.run("ping", "-c1", "-W1", "-s", "4000", "-M", "do", sick.api.address(4, "front"))
        assert (done.returncode, "100% packet loss" in done.stdout) == (1, True)


def test_rp_filter_inside(sick: Town) -> None:
    """A route that leads back by another link than the one by which the gateway's packets come."""
    ns = sick.api.ns
    ns.sysctl("net/ipv4/conf/all/rp_filter", "1")
    try:
        assert sick.found("rp-filter") == []
        ns.ip("route", "add", "10.76.0.1/32", "via", GATEWAY4)
        sick.host.ns.run("ping", "-c1", "-W1", sick.api.address(4, "back"))
        (finding,) = sick.found("rp-filter")
        assert (finding["subject"], finding["level"]) == (sick.name(sick.api), "error")
        ns.ip("route", "del", "10.76.0.1/32")
    finally:
        ns.sysctl("net/ipv4/conf/all/rp_filter", "0")
    assert sick.found("rp-filter") == []


def test_a_firewall_inside(sick: Town) -> None:
    ns = sick.web.ns
    assert sick.found("sandbox-firewall") == []
    ns.sh("iptables", "-P", "INPUT", "DROP")
    with sick.broken("sandbox-firewall", lambda: ns.sh("iptables", "-P", "INPUT", "ACCEPT")) as (finding,):
        assert finding["subject"] == sick.name(sick.web)
        assert "chain INPUT of table ip filter" in finding["message"]


# --- services -------------------------------------------------------------------------------------------------------


@pytest.fixture
def shop(sick: Town) -> Iterator[Netns]:
    """A sandbox that publishes port 8090 → 90, at which nobody listens yet. IPv4 alone."""
    box = sick.box("shop")
    box.attach("back", publish=[{"proto": "tcp", "host_first": 8090, "port": 90}])
    yield box.ns
    box.close()


def test_nobody_listens_at_a_published_port(sick: Town, shop: Netns) -> None:
    (finding,) = sick.found("nobody-listens")
    assert (finding["subject"], finding["level"]) == ("shop/back", "warning")
    lone(shop, "0.0.0.0", 90)
    assert sick.found("nobody-listens") == []
    shop.python(CLOSE)


def test_a_published_port_is_bound_to_loopback(sick: Town, shop: Netns) -> None:
    lone(shop, "127.0.0.1", 90)
    with sick.broken("bound-to-loopback", lambda: shop.python(CLOSE)) as (finding,):
        assert (finding["subject"], finding["level"]) == ("shop/back", "error")
        assert f"(pid {shop.pid})" in finding["message"]
        assert sick.found("nobody-listens") == []


def test_a_published_port_is_bound_to_another_address(sick: Town, shop: Netns) -> None:
    shop.ip("addr", "add", "10.99.0.1/32", "dev", "lo")
    lone(shop, "10.99.0.1", 90)
    (finding,) = sick.found("nobody-listens")
    assert "listens at 10.99.0.1, which is no address of the endpoint" in finding["message"]
    shop.python(CLOSE)


def test_a_service_of_one_family(sick: Town, family: int) -> None:
    """Port 7001 is not published: a note. Port 80 is: a warning, as soon as it is served over one family alone."""
    ns = sick.web.ns
    lone(ns, "::1" if family == 6 else "127.0.0.1", 7001)
    assert sick.found("wrong-family") == []
    ns.python(CLOSE)
    ns.python(
        "import builtins, socket\n"
        f"server = socket.socket(socket.{'AF_INET6' if family == 6 else 'AF_INET'})\n"
        + ("server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)\n" if family == 6 else "")
        + f"server.bind(({'::' if family == 6 else '0.0.0.0'!r}, 7001)); server.listen()\n"
        "builtins.sealane_test_lone = server\n"
    )
    with sick.broken("wrong-family", lambda: ns.python(CLOSE)) as (finding,):
        assert (finding["subject"], finding["level"]) == ("web/front", "note")
        assert f"over IPv{10 - family}" in finding["message"]
    only = next(s for s in sick.servers if s.proto == "tcp" and (":" in s.address) != (family == 6))
    only.close()
    (finding,) = sick.found("wrong-family")
    assert finding["level"] == "warning"
    sick.servers[sick.servers.index(only)] = ns.listen("tcp", only.address, 80)
    assert sick.found("wrong-family") == []


def test_a_socket_that_takes_both_families_is_fine(sick: Town) -> None:
    lone(sick.web.ns, "::", 7002)
    assert sick.found("wrong-family") == []
    sick.web.ns.python(CLOSE)


def test_connections_that_nobody_accepts(sick: Town) -> None:
    ns = sick.api.ns
    ns.python(CROWDED)
    with sick.broken("backlog-full", lambda: ns.python(DISPERSED)) as (finding,):
        assert (finding["subject"], finding["level"]) == (sick.name(sick.api), "error")
        assert "2 connections wait" in finding["message"]


# --- names ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("server", "level", "said"),
    [
        ("10.76.0.1", "error", "the resolver of network back, on which it is not"),
        ("192.0.2.200", "note", "names of other sandboxes are not known there"),
    ],
)
def test_a_resolv_conf_that_leads_elsewhere(sick: Town, server: str, level: str, said: str) -> None:
    resolve_by(sick.web.ns, server)
    with sick.broken("wrong-resolver", partial(resolve_by, sick.web.ns, GATEWAY4)) as (finding,):
        assert (finding["subject"], finding["level"]) == (sick.name(sick.web), level)
        assert said in finding["message"]


def test_a_resolv_conf_of_a_host_with_a_local_resolver(sick: Town) -> None:
    """As a plain process in a namespace has it where systemd-resolved runs."""
    resolve_by(sick.api.ns, "127.0.0.53")
    with sick.broken("wrong-resolver", partial(resolve_by, sick.api.ns, GATEWAY4)) as (finding,):
        assert (finding["subject"], finding["level"]) == (sick.name(sick.api), "error")
        assert "nobody listens in the sandbox" in finding["message"]


def test_a_resolver_of_its_own_is_no_dead_end(sick: Town) -> None:
    ns = sick.web.ns
    resolve_by(ns, "127.0.0.1")
    (finding,) = sick.found("wrong-resolver")
    # Somebody answers there: port 53 of every address is served.
    assert finding["level"] == "note"
    resolve_by(ns, GATEWAY4)


def test_a_resolv_conf_is_read_below_its_own_root(sick: Town) -> None:
    """A link that a sandbox's process has put there leads nowhere but into that process's own files."""
    with Netns("sly", mounts=True) as sly:
        sly.sh("mkdir", "-p", "/run/root/etc")
        sly.sh("ln", "-s", "/outside", "/run/root/etc/resolv.conf")
        sly.python(
            "import os, builtins\n"
            "pid = os.fork()\n"
            "if not pid:\n"
            "    os.chroot('/run/root'); os.chdir('/')\n"
            "    import time; time.sleep(60); os._exit(0)\n"
            "builtins.sealane_test_child = pid\n"
        )
        child = sly.python("import builtins; result = builtins.sealane_test_child")
        assert of_process(child) is None
        sly("write", path="/run/root/outside", text="nameserver 10.1.2.3\n")
        assert of_process(child) == ("10.1.2.3",)
        sly.sh("sh", "-c", "rm /run/root/outside; mkfifo /run/root/outside")
        assert of_process(child) is None
        sly.sh("kill", "-9", str(child))
