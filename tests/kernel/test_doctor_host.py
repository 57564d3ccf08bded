"""The known causes on the host: each fault is made by commands that a person could have typed, is named, and is not
named any more once it is mended."""

import os
from collections.abc import Iterator
from functools import partial

import pytest

from harness.doctored import Town, resolve_by, town, write
from harness.host import EXT4, Lan
from harness.netns import Netns, eventually, join

pytestmark = pytest.mark.kernel


NFT_REDIRECT = (
    "nft 'add table ip stranger; add chain ip stranger nat { type nat hook prerouting priority -110; };"
    " add rule ip stranger nat udp dport 8000-8100 redirect to :53'"
)


@pytest.fixture(scope="module")
def sick(lan: Lan) -> Iterator[Town]:
    with town(lan, 7) as built:
        yield built


def nft(ns: Netns, *lines: str) -> None:
    ns.sh("nft", "-f", "-", text="\n".join(lines) + "\n")


def drop(ns: Netns, hook: str, *rules: str, family: str = "inet") -> None:
    chain = ("chain gate {", f"type filter hook {hook} priority 0; policy drop", *rules, "}")
    nft(ns, f"table {family} stranger {{", *chain, "}")


def repair(ns: Netns, family: str = "inet") -> None:
    ns.sh("nft", "delete", "table", family, "stranger")


# --- firewalls ------------------------------------------------------------------------------------------------------


def test_a_foreign_drop_on_forward(sick: Town) -> None:
    ns = sick.host.ns
    assert sick.found("foreign-drop") == []
    drop(ns, "forward")
    with sick.broken("foreign-drop", partial(repair, ns)) as (finding,):
        assert finding["level"] == "error"
        assert "chain gate of table inet stranger (hook forward)" in finding["message"]
        assert "networks back, front" in finding["message"]
        assert sick.api.ns.run("ping", "-c1", "-W1", EXT4).returncode != 0
        # What the hint says is what hints.
        ns.sh("sh", "-c", finding["hint"])
        assert sick.found("foreign-drop") == []
        assert sick.api.ns.run("ping", "-c1", "-W2", EXT4).returncode == 0


def test_dockers_forward_policy_is_answered_already(sick: Town) -> None:
    """The daemon puts two rules behind it (docs/adr/0015)."""
    ns = sick.host.ns
    ns.sh("iptables", "-P", "FORWARD", "DROP")
    try:
        eventually(lambda: sick.api.ns.run("ping", "-c1", "-W1", EXT4).returncode == 0, what="forward rules")
        assert sick.found("foreign-drop") == []
    finally:
        ns.sh("iptables", "-P", "FORWARD", "ACCEPT")


def test_a_rule_that_drops_all_that_is_forwarded(sick: Town) -> None:
    ns = sick.host.ns
    ns.sh("iptables", "-I", "FORWARD", "-j", "DROP")

    def accept() -> None:
        ns.sh("iptables", "-F", "FORWARD")

    with sick.broken("foreign-drop", accept) as (finding,):
        assert "chain FORWARD of table ip filter" in finding["message"]
        assert "iptables -I FORWARD -i slb+ -j ACCEPT" in finding["hint"]
        assert sick.api.ns.run("ping", "-c1", "-W1", EXT4).returncode != 0
        ns.sh("sh", "-c", finding["hint"])
        assert sick.found("foreign-drop") == []
        assert sick.api.ns.run("ping", "-c1", "-W2", EXT4).returncode == 0


def test_a_last_rule_that_rejects(sick: Town) -> None:
    """As firewalld's."""
    ns = sick.host.ns
    nft(
        ns,
        "table inet firewalld {",
        "chain filter_FORWARD {",
        "type filter hook forward priority 10; policy accept",
        "ct state established accept",
        "reject with icmpx admin-prohibited",
        "}",
        "}",
    )
    with sick.broken("foreign-drop", lambda: ns.sh("nft", "delete", "table", "inet", "firewalld")) as (
        finding,
    ):
        assert finding["level"] == "warning"
        assert [f["subject"] for f in sick.found("firewall-reload")] == ["host"]


def test_a_drop_in_another_direction_is_nobodys_concern(sick: Town) -> None:
    drop(sick.host.ns, "output")
    try:
        concerned = {f["cause"] for f in sick.ask()["findings"]}
        assert concerned.isdisjoint({"foreign-drop", "foreign-input", "bridge-netfilter"})
    finally:
        repair(sick.host.ns)


def test_bridged_frames_meet_a_foreign_drop(sick: Town) -> None:
    ns = sick.host.ns
    drop(ns, "forward", family="ip")
    try:
        ns.sysctl("net/bridge/bridge-nf-call-iptables", "0")
        assert sick.found("bridge-netfilter") == []
        ns.sysctl("net/bridge/bridge-nf-call-iptables", "1")
        with sick.broken(
            "bridge-netfilter", lambda: ns.sysctl("net/bridge/bridge-nf-call-iptables", "0")
        ) as (finding,):
            assert "bridge-nf-call-iptables=0" in finding["hint"]
    finally:
        repair(ns, "ip")


def test_a_drop_of_the_bridge_family(sick: Town) -> None:
    drop(sick.host.ns, "forward", family="bridge")
    with sick.broken("bridge-netfilter", partial(repair, sick.host.ns, "bridge")) as (finding,):
        assert "frames inside a bridge meet it" in finding["message"]
        ns = sick.host.ns
        assert ns.run("ping", "-c1", "-W2", sick.web.v4).returncode == 0, (
            "the host itself is not forwarded to"
        )
        assert sick.api.ns.run("ping", "-c1", "-W1", sick.web.v4).returncode != 0
        ns.sh("sh", "-c", finding["hint"])
        assert sick.found("bridge-netfilter") == []
        assert sick.api.ns.run("ping", "-c1", "-W2", sick.web.v4).returncode == 0


def test_questions_to_the_resolver_meet_a_drop(sick: Town) -> None:
    ns = sick.host.ns
    drop(ns, "input", "ct state established accept")
    with sick.broken("foreign-input", partial(repair, ns)) as (finding,):
        assert finding["level"] == "warning"
        assert "resolver" in finding["message"]
        ns.sh("sh", "-c", finding["hint"])
        assert sick.found("foreign-input") == []


def test_the_old_iptables_is_noted(sick: Town) -> None:
    ns = sick.host.ns
    if ns.run("iptables-legacy", "-L", "-n").returncode != 0:
        pytest.skip("this kernel has no legacy iptables")
    (finding,) = sick.found("legacy-iptables")
    assert (finding["level"], "ip filter" in finding["message"]) == ("note", True)
    assert sick.ask()["found"] == 0


def test_a_process_at_a_published_port(sick: Town) -> None:
    assert sick.found("port-taken") == []
    server = sick.host.ns.listen("tcp", "0.0.0.0", 8080)
    with sick.broken("port-taken", server.close) as (finding,):
        assert finding["subject"] == "web/front"
        assert f"(pid {sick.host.ns.pid})" in finding["message"]


def test_a_process_at_another_port_or_protocol(sick: Town) -> None:
    servers = [sick.host.ns.listen("udp", "0.0.0.0", 8080), sick.host.ns.listen("tcp", "0.0.0.0", 8081)]
    assert sick.found("port-taken") == []
    for server in servers:
        server.close()


@pytest.mark.parametrize(
    ("command", "undo"),
    [
        (
            "iptables -t nat -A PREROUTING -p tcp --dport 8080 -j DNAT --to-destination 192.0.2.200:80",
            "iptables -t nat -F PREROUTING",
        ),
        (
            NFT_REDIRECT,
            "nft delete table ip stranger",
        ),
    ],
    ids=["iptables", "nft"],
)
def test_a_rule_that_takes_a_published_port(sick: Town, command: str, undo: str) -> None:
    ns = sick.host.ns
    ns.sh("sh", "-c", command)
    with sick.broken("port-taken", lambda: ns.sh("sh", "-c", undo)) as (finding,):
        assert (finding["subject"], finding["level"]) == ("web/front", "error")


def test_a_rule_for_another_port_or_address_takes_none(sick: Town) -> None:
    ns = sick.host.ns
    ns.sh("iptables", "-t", "nat", "-A", "PREROUTING", "-p", "tcp", "--dport", "8081", "-j", "REDIRECT")
    ns.sh("iptables", "-t", "nat", "-A", "PREROUTING", "-p", "udp", "--dport", "8080", "-j", "REDIRECT")
    assert sick.found("port-taken") == []
    ns.sh("iptables", "-t", "nat", "-F", "PREROUTING")


# --- forwarding and routes ------------------------------------------------------------------------------------------


def test_a_link_that_does_not_forward(sick: Town) -> None:
    """The daemon looks after ip_forward alone: this one stays until somebody finds it."""
    ns = sick.host.ns
    path = "net/ipv4/conf/eth0/forwarding"
    ns.sysctl(path, "0")
    with sick.broken("forwarding-off", lambda: ns.sysctl(path, "1")) as (finding,):
        assert "arrive by eth0" in finding["message"]


@pytest.mark.parametrize("path", ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"])
def test_forwarding_is_off(sick: Town, path: str) -> None:
    """Somebody sets it again and again; in between the daemon puts it right."""
    ns = sick.host.ns

    def seen() -> list[dict[str, object]]:
        ns.sysctl(path, "0")
        return [f for f in sick.found("forwarding-off") if path.replace("/", ".") in f["message"]]

    (finding,) = eventually(seen, 10, "it is off when it is looked at")
    assert finding["level"] == "error"
    ns.sysctl(path, "1")
    assert sick.found("forwarding-off") == []


def test_a_host_without_a_way_out(sick: Town) -> None:
    ns = sick.host.ns
    ns.ip("route", "del", "default")
    back = lambda: ns.ip("route", "add", "default", "via", "192.0.2.1")
    with sick.broken("no-default-route", back) as (finding,):
        assert finding["level"] == "warning"


def test_a_path_that_carries_less(sick: Town) -> None:
    ns = sick.host.ns
    ns.ip("route", "replace", "default", "via", "192.0.2.1", "mtu", "1400")

    def back() -> None:
        ns.ip("route", "replace", "default", "via", "192.0.2.1")

    with sick.broken("mtu-black-hole", back) as findings:
        assert {(f["subject"], f["level"]) for f in findings} == {("front", "warning"), ("back", "warning")}
        assert "-o mtu=1400" in findings[0]["hint"]
        drop(ns, "output", "meta l4proto tcp accept")
        try:
            blind = sick.found("mtu-black-hole")
            assert {f["level"] for f in blind} == {"error"}
            assert "chain gate of table inet stranger drops the messages" in blind[0]["message"]
        finally:
            repair(ns)


def test_a_vpn_on_our_addresses(sick: Town) -> None:
    """In a table of its own, as VPNs have it."""
    ns = sick.host.ns
    ns.batch(
        "link add vpn0 type veth peer name vpn1",
        "link set vpn0 up",
        "link set vpn1 up",
        "route add 10.75.0.128/25 dev vpn0 table 51820",
    )
    with sick.broken("subnet-overlap", lambda: ns.ip("link", "del", "vpn0")) as (finding,):
        assert (finding["subject"], finding["level"]) == ("front", "error")
        assert "10.75.0.128/25 dev vpn0" in finding["message"]
        ns.ip("route", "replace", "10.0.0.0/8", "dev", "vpn0", "table", "51820")
        ns.ip("route", "del", "10.75.0.128/25", "dev", "vpn0", "table", "51820")
        assert {f["level"] for f in sick.found("subnet-overlap")} == {"warning"}
        ns.ip("route", "replace", "0.0.0.0/1", "dev", "vpn0", "table", "51820")
        ns.ip("route", "del", "10.0.0.0/8", "dev", "vpn0", "table", "51820")
        assert sick.found("subnet-overlap") == []


def test_a_second_way_out_that_is_checked_strictly(sick: Town) -> None:
    ns = sick.host.ns
    with Netns("isp") as isp:
        join(ns, "eth1", isp, "eth0")
        isp.batch("addr add 198.51.100.1/24 dev eth0", "addr add 203.0.113.9/32 dev lo")
        ns.batch("addr add 198.51.100.2/24 dev eth1", "route add default via 198.51.100.1 metric 500")
        assert sick.found("rp-filter") == []
        # The client's ARP would not be answered either.
        isp.sh("ping", "-c1", "-W5", "198.51.100.2")
        ns.sysctl("net/ipv4/conf/eth1/rp_filter", "1")
        with sick.broken("rp-filter", lambda: ns.sysctl("net/ipv4/conf/eth1/rp_filter", "2")) as (finding,):
            assert (finding["level"], "by eth1" in finding["message"]) == ("warning", True)
            isp("send", address="198.51.100.2", port=8053, payloads=["lost"], source="203.0.113.9")
            (proved,) = sick.found("rp-filter")
            assert (proved["level"], "(packets so far: 1)" in proved["message"]) == ("error", True)
        isp("send", address="198.51.100.2", port=8053, payloads=["heard"], source="203.0.113.9")
        eventually(lambda: sick.web_heard("heard"), 5, "a client from afar is heard")
        assert not sick.web_heard("lost")
        ns.ip("link", "del", "eth1")


# --- what is remembered ---------------------------------------------------------------------------------------------


def test_a_flow_that_leads_to_nobody(sick: Town) -> None:
    ns = sick.host.ns
    entry = (
        "-p udp -s 192.0.2.200 -d 192.0.2.17 --sport 4000 --dport 8053 "
        "--reply-src {backend} --reply-dst 192.0.2.200 --reply-port-src 53 --reply-port-dst 4000"
    )
    for backend in ("10.75.0.99", sick.web.v4):
        ns.sh("conntrack", "-I", *entry.format(backend=backend).split(), "-t", "100")
        if backend == sick.web.v4:
            assert sick.found("stale-flow") == []
            ns.sh("conntrack", "-D", "-p", "udp", "--orig-src", "192.0.2.200")
            continue
        (finding,) = sick.found("stale-flow")
        assert finding["subject"] == "front"
        ns.sh("sh", "-c", finding["hint"])
        assert sick.found("stale-flow") == []


def test_a_nameserver_that_is_silent(sick: Town) -> None:
    ns = sick.host.ns
    assert sick.found("silent-upstream") == []
    resolve_by(ns, EXT4, "192.0.2.99")
    with sick.broken("silent-upstream", partial(resolve_by, ns, EXT4)) as (finding,):
        assert finding["level"] == "warning"
        assert "192.0.2.99" in finding["message"]
        resolve_by(ns, "127.0.0.53")
        (alone,) = sick.found("silent-upstream")
        assert (alone["level"], "refused" in alone["message"]) == ("error", True)


# --- what fills up --------------------------------------------------------------------------------------------------


def test_a_neighbour_table_that_fills_up(sick: Town) -> None:
    """NOARP entries count, and are the first to go when anybody else on this machine needs one (neigh_forced_gc)."""
    with Netns("crowd") as crowd:
        crowd.batch("link add a0 type veth peer name a1", "link set a0 up", "link set a1 up")
        limit = int(crowd.sh("ip", "ntable", "show", "name", "arp_cache").partition("thresh3 ")[2].split()[0])
        lines = [
            f"neigh replace 10.{128 + n // 250}.0.{n % 250 + 1} lladdr 02:00:00:00:00:01 nud noarp dev a0"
            for n in range(limit)
        ]

        def seen() -> list[dict[str, object]]:
            crowd.run("ip", "-force", "-batch", "-", text="\n".join(lines[: int(limit * 0.95)]) + "\n")
            return [f for f in sick.found("neighbours-full") if "IPv4" in f["message"]]

        (finding,) = eventually(seen, 10, "the table is full")
        assert f"of {limit}" in finding["message"]
    eventually(lambda: sick.found("neighbours-full") == [], 10, "the entries went with their namespace")


def test_a_bridge_without_room(sick: Town) -> None:
    ns = sick.host.ns
    ns.ip("link", "add", "big0", "type", "bridge")
    ns.ip("link", "set", "big0", "up")
    sick.host.api.network("big", "10.77.0.0/24", options={"bridge": "big0"})
    assert sick.found("bridge-full") == []
    pairs = 461
    ns.batch(
        *(f"link add x{n} master big0 type veth peer name y{n}" for n in range(pairs)),
        *(f"link set y{n} master big0" for n in range(pairs)),
    )
    try:
        (finding,) = sick.found("bridge-full")
        assert (finding["subject"], finding["level"]) == ("big", "warning")
        assert f"has {2 * pairs} ports" in finding["message"]
    finally:
        sick.host.api.remove_network("big")
        # Together, by their group: each deletion alone waits for the kernel.
        ns.batch(*(f"link set x{n} group 99" for n in range(pairs)), "link del group 99", "link del big0")
    assert sick.found("bridge-full") == []


def test_a_bridge_that_does_not_know_its_own_mac(sick: Town) -> None:
    """Somebody else's, which a network has adopted: nothing of ours puts it right."""
    ns = sick.host.ns
    ns.ip("link", "add", "deaf0", "type", "bridge")
    ns.ip("link", "set", "deaf0", "address", "02:00:00:00:de:af", "up")
    sick.host.api.network("deaf", "10.78.0.0/24", options={"bridge": "deaf0"})
    try:
        assert sick.found("bridge-deaf") == []
        ns.sh("bridge", "fdb", "flush", "dev", "deaf0")
        (finding,) = sick.found("bridge-deaf")
        assert (finding["subject"], finding["level"]) == ("deaf", "error")
        ns.sh(*finding["hint"].split())
        assert sick.found("bridge-deaf") == []
    finally:
        sick.host.api.remove_network("deaf")
        ns.ip("link", "del", "deaf0")


def test_connections_that_fill_their_table(sick: Town, tmp_path: "os.PathLike[str]") -> None:
    """The bound is the machine's, so it is not changed: this host is shown a lower one, and its entries are real."""
    ns = sick.host.ns
    path = "/proc/sys/net/netfilter/nf_conntrack_max"
    assert sick.found("flows-full") == []
    client = ns.probe("udp", EXT4, 53)
    assert client
    count = int(ns.sh("conntrack", "-C"))
    assert count > 0
    write(ns, "/run/conntrack_max", f"{count}\n")
    ns.sh("mount", "--bind", "/run/conntrack_max", path)
    with sick.broken("flows-full", lambda: ns.sh("umount", path)) as (finding,):
        assert "connections are tracked" in finding["message"]


# --- who else configures this host ----------------------------------------------------------------------------------


@pytest.fixture
def etc(sick: Town) -> Iterator[Netns]:
    """A host whose /etc can be written to without anybody noticing."""
    ns = sick.host.ns
    ns.sh("mkdir", "-p", "/run/upper", "/run/work")
    ns.sh(
        "mount",
        "-t",
        "overlay",
        "overlay",
        "-o",
        "lowerdir=/etc,upperdir=/run/upper,workdir=/run/work",
        "/etc",
    )
    write(ns, "/etc/resolv.conf", f"nameserver {EXT4}\n")
    try:
        yield ns
    finally:
        ns.sh("umount", "/etc")
        ns.sh("rm", "-rf", "/run/upper", "/run/work")


def test_firewall_services(sick: Town, etc: Netns) -> None:
    assert sick.found("firewall-reload") == []
    etc.sh("mkdir", "-p", "/etc/ufw", "/etc/systemd/system/sysinit.target.wants")
    write(etc, "/etc/ufw/ufw.conf", "ENABLED=yes\n")
    (ufw,) = sick.found("firewall-reload")
    assert (ufw["level"], "ufw" in ufw["message"]) == ("note", True)
    write(etc, "/etc/ufw/ufw.conf", "ENABLED=no\n")
    write(etc, "/etc/nftables.conf", "#!/usr/sbin/nft -f\n\nflush ruleset\n")
    etc.sh("rm", "-f", "/etc/systemd/system/sysinit.target.wants/nftables.service")
    assert sick.found("firewall-reload") == []
    etc.sh("ln", "-s", "/lib/systemd/system/nftables.service", "/etc/systemd/system/sysinit.target.wants/")
    (flush,) = sick.found("firewall-reload")
    assert (flush["level"], "/etc/nftables.conf" in flush["message"]) == ("warning", True)
    write(etc, "/etc/nftables.conf", "table inet mine\ndelete table inet mine\n")
    assert sick.found("firewall-reload") == []


def test_links_that_networkd_would_take(sick: Town, etc: Netns) -> None:
    etc.sh("mkdir", "-p", "/etc/systemd/network")
    write(etc, "/etc/systemd/network/50-dhcp.network", "[Match]\nType=ether\n\n[Network]\nDHCP=yes\n")
    assert sick.found("link-grabbed") == []
    etc.sh("mkdir", "-p", "/run/systemd/netif")
    write(etc, "/run/systemd/netif/state", "OPER_STATE=routable\n")
    try:
        (finding,) = sick.found("link-grabbed")
        assert "/etc/systemd/network/50-dhcp.network matches them" in finding["message"]
        write(
            etc,
            "/etc/systemd/network/00-sealane.network",
            "[Match]\nName=sle* slb*\n\n[Link]\nUnmanaged=yes\n",
        )
        assert sick.found("link-grabbed") == []
    finally:
        etc.sh("rm", "-r", "/run/systemd")


def test_links_that_networkmanager_would_take(sick: Town, etc: Netns) -> None:
    etc.sh("mkdir", "-p", "/etc/NetworkManager/conf.d", "/run/NetworkManager")
    try:
        (finding,) = sick.found("link-grabbed")
        assert finding["level"] == "note"
        write(
            etc,
            "/etc/NetworkManager/conf.d/sealane.conf",
            "[keyfile]\nunmanaged-devices=interface-name:sle*;interface-name:slb*\n",
        )
        assert sick.found("link-grabbed") == []
    finally:
        etc.sh("rmdir", "/run/NetworkManager")
