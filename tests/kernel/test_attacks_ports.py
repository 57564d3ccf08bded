"""Attacks on published ports and on what is not published, mostly from the LAN (B1, B2, B5, B7, B8, B10, B15, E10)."""

from collections.abc import Iterator

import pytest

from harness import frames
from harness.audit import audit
from harness.host import EXT4, EXT6, Host, Lan
from harness.netns import Netns
from harness.patience import pause
from harness.scene import ANY, GATEWAY, Bites, GuardedScene, Scene, guarded

pytestmark = pytest.mark.kernel

VOID = "the attack fails even without guards: this test proves nothing"
MARK = "not-meant-for-you"

INNER, PUBLIC, LOCAL, HOST_ONLY, FOUR_ONLY, HOSTS_OWN = 7000, 9053, 8081, 8082, 8083, 7777
EXT = {4: EXT4, 6: EXT6}


class Published(GuardedScene):
    """`b` publishes 9053 on every address, 8081 on 127.0.0.1, and 8083 on IPv4 only; `c` publishes nothing."""

    PUBLISH = {
        "b": [
            {"proto": proto, "host_address": address, "host_first": port, "port": INNER}
            for proto in ("tcp", "udp")
            for address, port in (("", PUBLIC), ("127.0.0.1", LOCAL), ("192.0.2.14", FOUR_ONLY))
        ]
    }


NAIVE = """
table inet naive {
  chain here {
    type nat hook prerouting priority -100
    meta nfproto ipv4 meta l4proto { tcp, udp } th dport { 9053, 8083 } dnat ip to 10.66.0.11:7000
    meta nfproto ipv6 meta l4proto { tcp, udp } th dport { 9053, 8083 } dnat ip6 to [fd66::b]:7000
    ip daddr 127.0.0.1 meta l4proto { tcp, udp } th dport 8081 dnat ip to 10.66.0.11:7000
  }
  chain own {
    type nat hook output priority -100
    meta nfproto ipv4 meta l4proto { tcp, udp } th dport 9053 dnat ip to 10.66.0.11:7000
    meta nfproto ipv6 meta l4proto { tcp, udp } th dport 9053 dnat ip6 to [fd66::b]:7000
  }
  chain leave {
    type nat hook postrouting priority 100
    %s
  }
}
"""


def naive(scene: Scene) -> None:
    """Port translation as first written by everybody."""
    scene.host.sh("nft", "-f", "-", text=NAIVE % "")
    # So that 127.0.0.1 can be translated at all (Docker with its proxy switched off).
    scene.host.sysctl("net/ipv4/conf/all/route_localnet", "1")


def naive_masquerade(scene: Scene) -> None:
    scene.host.sh("nft", "-f", "-", text=NAIVE % "masquerade")


@pytest.fixture(scope="module", params=["bridge", "routed"])
def scene(request: pytest.FixtureRequest, lan: Lan) -> Iterator[Published]:
    with Host(lan, number=4).start() as machine:
        yield from guarded(machine, request.param, kind=Published)
        assert audit(machine) == []


def heard(member: Netns, seen: list[bytes]) -> str:
    arrived = [f for f in seen if MARK.encode() in f]
    return f"{member.name} got {len(arrived)} packets" if arrived else ""


# --- from the LAN ---------------------------------------------------------------------------------------------------


def enter_by_loopback(scene: Scene, family: int) -> str:
    """B1: a frame to the host's MAC with 127.0.0.1 as its IP destination. UDP, since no answer is needed."""
    with scene.b.ns.sniff(scene.b.ifname) as seen:
        frame = frames.udp(scene.ext_mac(), scene.host_mac(), EXT4, "127.0.0.1", LOCAL, MARK)
        scene.ext("frames", ifname="eth0", raw=[frame] * 3)
        # A workload is a neighbour too.
        inner = frames.udp(scene.a.mac, scene.gateway_mac(4), scene.a.v4, "127.0.0.1", LOCAL, MARK)
        scene.a.inject(*[inner] * 3)
        pause(0.05)
    return heard(scene.b.ns, seen)


def enter_by_route(scene: Scene, family: int) -> str:
    """B2: a neighbour routes the workloads' subnet through the host, and asks them at ports never published."""
    subnet = "10.66.0.0/24" if family == 4 else "fd66::/64"
    scene.ext.ip("route", "add", subnet, "via", scene.host_address(family), "dev", "eth0")
    try:
        with scene.b.ns.sniff(scene.b.ifname) as at_b, scene.c.ns.sniff(scene.c.ifname) as at_c:
            for port in (22, 53, 80, INNER, PUBLIC, *range(30000, 30100)):
                scene.ext("send", address=scene.b.address(family), port=port, payloads=[MARK])
                scene.ext("send", address=scene.c.address(family), port=port, payloads=[MARK])
            scene.ext.probe("tcp", scene.b.address(family), INNER, timeout=0.1)
            pause(0.05)
    finally:
        scene.ext.ip("route", "del", subnet)
    return heard(scene.b.ns, at_b) or heard(scene.c.ns, at_c)


def enter_under_false_name(scene: Scene, family: int) -> str:
    """B8: from the LAN to a published port, as if from a workload: the answer, and connection tracking, would go there."""
    with scene.b.ns.sniff(scene.b.ifname) as seen:
        for source in (scene.c.address(family), scene.b.address(family), GATEWAY[family]):
            to = (scene.ext_mac(), scene.host_mac(), source, scene.host_address(family), PUBLIC)
            raw = [frames.udp(*to, MARK), frames.syn(*to, sport=4242)]
            scene.ext("frames", ifname="eth0", raw=raw)
        pause(0.05)
    spoofed = [f for f in seen if MARK.encode() in f or (4242).to_bytes(2, "big") in f[34:58]]
    return f"b got {len(spoofed)} packets" if spoofed else ""


def find_open_ports(scene: Scene, family: int) -> str:
    """B15: ports open that were not asked for: 8083 was for one IPv4 address, 8081 for 127.0.0.1."""
    addresses = [scene.host_address(4), scene.host_address(6)]
    scene.server(scene.b, "tcp", 4), scene.server(scene.b, "tcp", 6)
    ports = [22, 53, 80, 443, 2375, INNER, PUBLIC, LOCAL, FOUR_ONLY, *range(8000, 8100), *range(9000, 9100)]
    desired = [
        {"proto": "tcp", "address": address, "port": port, "timeout": 0.3}
        for address in addresses
        for port in ports
    ]
    results = scene.ext("probes", desired=desired)
    found = {
        (w["address"], w["port"]) for w, result in zip(desired, results, strict=True) if "answer" in result
    }
    asked_for = {(address, PUBLIC) for address in addresses} | {(scene.host_address(4), FOUR_ONLY)}
    if scene.name != "bare":
        assert asked_for <= found, "what was asked for is not open"
    return f"open: {sorted(found - asked_for)}" if found - asked_for else ""


def use_as_resolver(scene: Scene, family: int) -> str:
    """E10: DNS questions from the LAN to every address of the host."""
    question = bytes.fromhex("123401000001000000000000") + b"\x01b\x00" + bytes.fromhex("00010001")
    if scene.name == "bare":
        scene.host.listen("udp", ANY[family], 53)
    source = f"""
import socket
s = socket.socket(socket.AF_INET{"6" if family == 6 else ""}, socket.SOCK_DGRAM)
s.settimeout(0.3)
try:
    s.connect(({scene.host_address(family)!r}, 53))
    s.send({question!r})
    result = s.recv(512).hex()
except OSError:
    result = ""
"""
    return str(scene.ext.python(source))


# --- from workloads and the host itself -----------------------------------------------------------------------------


def intercept_transit(scene: Scene, family: int) -> str:
    """B5: a published port catches what only passes through: questions of others to a server outside (CVE-2025-67499)."""
    outside = scene.ext.listen("udp", ANY[family], PUBLIC)
    masquerade_bare(scene)
    try:
        answers = {
            "workload": scene.c.ns.reaches(outside, EXT[family]),
            "host": scene.host.reaches(outside, EXT[family]),
        }
    finally:
        outside.close()
    return ", ".join(f"{who} gets no answer from outside" for who, right in answers.items() if not right)


def masquerade_bare(scene: Scene) -> None:
    """`ext` has no route back to a bare scene's workloads."""
    if scene.name == "bare":
        rules = 'type nat hook postrouting priority 100; oifname "eth0" masquerade;'
        scene.host.sh("nft", "-f", "-", text=f"table inet out {{ chain leave {{ {rules} }}; }}\n")


def reach_the_hosts_own(scene: Scene, family: int) -> str:
    """B3: from a workload to what listens on the host's 127.0.0.1, where somebody has set `all.route_localnet`."""
    server = scene.host.listen("udp", "127.0.0.1", HOSTS_OWN)
    scene.host.sysctl("net/ipv4/conf/all/route_localnet", "1")
    try:
        frame = frames.udp(scene.a.mac, scene.gateway_mac(4), scene.a.v4, "127.0.0.1", HOSTS_OWN, MARK)
        scene.a.inject(*[frame] * 3)
        pause(0.05)
        got = [payload for _, _, payload in server.peers() if MARK in payload]
    finally:
        scene.host.sysctl("net/ipv4/conf/all/route_localnet", "0")
        server.close()
    return f"the host's own got {len(got)} packets" if got else ""


def hide_source(scene: Scene, family: int) -> str:
    """B7: what a workload sees of a client outside is the client's own address."""
    server = scene.server(scene.b, "tcp", family)
    result = scene.ext.probe("tcp", scene.host_address(family), PUBLIC)
    seen = str(result.get("answer", "- nobody")).split()[1]
    assert str(result.get("answer", "")).startswith(server.token), f"{result}: not even reached"
    return f"b sees {seen}" if seen != EXT[family] else ""


def open_by_payload(scene: Scene, family: int) -> str:
    """B10: protocol helpers that read an FTP or SIP payload and open the port named in it ("NAT slipstreaming")."""
    outside = scene.ext.listen("tcp", ANY[family], 21)
    masquerade_bare(scene)
    try:
        scene.c.ns.python(
            SLIPSTREAM.format(v6="6" if family == 6 else "", address=EXT[family], inside=scene.c.v4)
        )
        expected = scene.host.run("conntrack", "-L", "expect").stdout.strip()
        # The same text whatever the tool's version: a helper's name stands in the entry of a connection that has one.
        helped = [line for line in scene.host.run("conntrack", "-L").stdout.splitlines() if "helper=" in line]
    finally:
        outside.close()
    return f"{expected} {helped}" if expected or helped else ""


SLIPSTREAM = """
import socket
s = socket.socket(socket.AF_INET{v6})
s.settimeout(1)
s.connect(({address!r}, 21))
s.sendall(b"PORT " + {inside!r}.replace(".", ",").encode() + b",31,64\\r\\nREGISTER sip:x SIP/2.0\\r\\nContact: <sip:x@{inside}:8000>\\r\\n\\r\\n")
s.recv(100)
s.close()
"""


def with_helpers(scene: Scene) -> None:
    """Connection tracking helpers as `nf_conntrack_helper=1` once attached them to everything."""
    rule = """table inet helpers {
      ct helper ftp { type "ftp" protocol tcp; }
      chain p { type filter hook prerouting priority 0; tcp dport 21 ct helper set "ftp"; }
    }"""
    done = scene.host.run("nft", "-f", "-", text=rule)
    if done.returncode != 0:
        pytest.skip(f"the kernel has no nf_conntrack_ftp for the control: {done.stderr.splitlines()[0]}")


# --- the tests ------------------------------------------------------------------------------------------------------


def test_ports_published_on_loopback_are_not_for_neighbours(bites: Bites, scene: Published) -> None:
    assert bites(enter_by_loopback, 4, forwarding=True, prepare=naive), VOID
    assert enter_by_loopback(scene, 4) == ""


def test_the_hosts_loopback_is_closed_whatever_is_set_for_all_links(bites: Bites, scene: Published) -> None:
    assert bites(reach_the_hosts_own, 4, forwarding=True), VOID
    assert reach_the_hosts_own(scene, 4) == ""


def test_workloads_are_not_reached_by_their_own_addresses(
    bites: Bites, scene: Published, family: int
) -> None:
    assert bites(enter_by_route, family, forwarding=True), VOID
    assert enter_by_route(scene, family) == ""


def test_internal_addresses_are_not_believed_from_outside(
    bites: Bites, scene: Published, family: int
) -> None:
    assert bites(enter_under_false_name, family, forwarding=True, prepare=naive), VOID
    assert enter_under_false_name(scene, family) == ""


def test_exactly_what_was_published_is_open(bites: Bites, scene: Published) -> None:
    assert bites(find_open_ports, 4, forwarding=True, prepare=naive), VOID
    assert find_open_ports(scene, 4) == ""


def test_the_host_is_no_open_resolver(bites: Bites, scene: Published, family: int) -> None:
    assert bites(use_as_resolver, family), VOID
    assert use_as_resolver(scene, family) == ""


def test_transit_traffic_is_left_alone(bites: Bites, scene: Published, family: int) -> None:
    assert bites(intercept_transit, family, forwarding=True, prepare=naive), VOID
    assert intercept_transit(scene, family) == ""


def test_workloads_see_who_calls(bites: Bites, scene: Published, family: int) -> None:
    assert bites(hide_source, family, forwarding=True, prepare=naive_masquerade), VOID
    assert hide_source(scene, family) == ""


def test_no_payload_opens_a_port(scene: Published, family: int) -> None:
    """Even without the control, which needs nf_conntrack_ftp: nothing expects a second connection."""
    assert open_by_payload(scene, family) == ""


def test_a_helper_would_have_been_seen(bites: Bites) -> None:
    """The control of the test above."""
    assert bites(open_by_payload, 4, forwarding=True, prepare=with_helpers), VOID
