"""Attacks by IP addresses that are not the sender's, from inside a workload (A6, A8, A11, B3 of docs/reliability)."""

import pytest

from harness import frames
from harness.host import EXT4, Host
from harness.netns import Netns
from harness.patience import pause
from harness.scene import ANY, GATEWAY, Bites, GuardedScene, Scene, guarded

pytestmark = pytest.mark.kernel

VOID = "the attack fails even without guards: this test proves nothing"
MARK = "sent-under-a-false-name"

FALSE_SOURCES = {
    4: [
        "10.66.0.1 10.66.0.11 10.66.0.12 10.66.0.13 10.66.0.200 10.66.0.0 10.66.0.255 10.66.1.10 10.67.0.10",
        "192.0.2.1 192.0.2.13 192.0.2.99 192.0.2.200 192.0.2.255 127.0.0.1 127.0.0.53 127.255.255.255 0.0.0.0 0.0.0.1",
        "255.255.255.255 224.0.0.1 224.0.0.251 239.255.255.250 169.254.169.254 169.254.0.1 172.17.0.1 172.17.0.2",
        "10.0.0.1 10.255.255.255 100.64.0.1 8.8.8.8 1.1.1.1 198.51.100.1 203.0.113.7 240.0.0.1 192.168.0.1 192.168.1.1",
        "172.31.255.255 192.88.99.1 11.0.0.1 9.255.255.255",
    ],
    6: [
        "fd66::1 fd66::b fd66::c fd66::d fd66:: fd66::ffff fd66:0:0:1::a fd67::a fd00::1 fdff::1",
        "2001:db8::1 2001:db8::d 2001:db8::99 2001:db8::200 ::1 :: ::ffff:127.0.0.1 ::ffff:10.66.0.11 ::10.66.0.11",
        "fe80::1 fe80::b fe80::ffff:ffff:ffff:ffff febf::1 fec0::1 ff02::1 ff02::2 ff05::2 ff0e::1 64:ff9b::808:808",
        "2002:a42:b::1 2001::1 2606:4700:4700::1111 2001:4860:4860::8888 100::1 2001:db8:ffff::1 3fff::1 4000::1",
        "fd66:0:0:0:8000::1 fd66::10 fd66::a:0 fd65:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
    ],
}


def false_sources(family: int) -> list[str]:
    return " ".join(FALSE_SOURCES[family]).split()


def spoof(scene: Scene, family: int) -> str:
    """A6: UDP, TCP and ping from forty addresses, straight to `b` and by way of the gateway."""
    b = scene.b
    macs = [b.mac, scene.gateway_mac(family)]
    with b.ns.sniff(b.ifname) as arrived:
        for source in false_sources(family):
            for to_mac in macs:
                scene.a.inject(
                    frames.udp(scene.a.mac, to_mac, source, b.address(family), 7000, MARK, sport=4242),
                    frames.syn(scene.a.mac, to_mac, source, b.address(family), 7000, sport=4242),
                    frames.ping(scene.a.mac, to_mac, source, b.address(family), MARK),
                )
    seen = [f for f in arrived if MARK.encode() in f or (4242).to_bytes(2, "big") in f[34:58]]
    return f"{len(seen)} packets arrived" if seen else ""


def spoof_host(scene: Scene, family: int) -> str:
    """A6: the same towards the host itself, which might believe a packet from its neighbour or its own network."""
    server = scene.host.listen("udp", ANY[family], 7007)
    mac = scene.gateway_mac(family)
    for source in false_sources(family):
        frame = frames.udp(scene.a.mac, mac, source, GATEWAY[family], 7007, MARK, sport=4242)
        scene.a.inject(frame)
    pause(0.05)
    seen = sorted({peer for peer, _, _ in server.peers(clear=True)})
    server.close()
    return f"the host heard {seen}" if seen else ""


def source_route(scene: Scene, family: int) -> str:
    """A11: "pass this on to the neighbour, please": loose source routing through the host, which allows it on `all`."""
    scene.host.sysctl("net/ipv4/conf/all/accept_source_route", "1")
    with scene.ext.sniff("eth0") as arrived:
        to_mac = scene.gateway_mac(4)
        frame = frames.source_routed(scene.a.mac, to_mac, scene.a.v4, GATEWAY[4], EXT4, 7000, MARK)
        scene.a.inject(*[frame] * 3)
        pause(0.05)
    seen = [f for f in arrived if MARK.encode() in f]
    return f"{len(seen)} packets arrived" if seen else ""


def reach_loopback(scene: Scene, family: int) -> str:
    """B3: services of the host that listen on 127.0.0.1, addressed from a workload and from the LAN."""
    server = scene.host.listen("udp", "127.0.0.1", 7008)
    scene.host.sysctl("net/ipv4/conf/all/rp_filter", "0")
    if scene.name == "bare":
        # What Docker without its proxy, and kube-proxy, used to set (CVE-2020-8558).
        scene.host.sysctl("net/ipv4/conf/all/route_localnet", "1")
    scene.a.inject(frames.udp(scene.a.mac, scene.gateway_mac(4), scene.a.v4, "127.0.0.1", 7008, MARK))
    neighbour = frames.udp(scene.ext_mac(), scene.host_mac(), EXT4, "127.0.0.1", 7008, MARK)
    scene.ext("frames", ifname="eth0", raw=[neighbour])
    pause(0.05)
    seen = [peer for peer, _, _ in server.peers(clear=True)]
    server.close()
    return f"the host's loopback heard {seen}" if seen else ""


def test_packets_under_false_addresses_end_at_the_port(
    bites: Bites, scene: GuardedScene, family: int
) -> None:
    """Forty sources, three protocols, two ways: `b` sees none, while the sender's own address works (the scene's
    check before and after)."""
    assert len(false_sources(family)) >= 34
    assert bites(spoof, family, forwarding=True), VOID
    assert spoof(scene, family) == ""


def test_the_host_hears_nobody_under_a_false_address(bites: Bites, scene: GuardedScene, family: int) -> None:
    assert bites(spoof_host, family), VOID
    assert spoof_host(scene, family) == ""


def test_source_routes_are_not_followed(bites: Bites, scene: GuardedScene) -> None:
    assert bites(source_route, 4, forwarding=True), VOID
    assert source_route(scene, 4) == ""


def test_the_hosts_loopback_is_out_of_reach(bites: Bites, scene: GuardedScene) -> None:
    assert bites(reach_loopback, 4), VOID
    assert reach_loopback(scene, 4) == ""


def test_route_localnet_is_never_set(scene: GuardedScene) -> None:
    """B3: on no link, whatever was done so far."""
    links = [link["ifname"] for link in scene.host.json("ip", "link", "show")]
    values = {
        name: scene.host.sysctl(f"net/ipv4/conf/{name}/route_localnet") for name in [*links, "all", "default"]
    }
    assert {name for name, value in values.items() if value != "0"} == set()


def speak_link_local(scene: Scene, family: int) -> str:
    """A8: IPv6 where there should be none. `a` and (as an accomplice) `b` switch it on and give themselves addresses."""
    source, target = "fe80::a:1", "fe80::b:1"
    for member, address in ((scene.a, source), (scene.b, target)):
        member.ns.sysctl(f"net/ipv6/conf/{member.ifname}/disable_ipv6", "0")
        member.ns.run("ip", "addr", "add", f"{address}/64", "dev", member.ifname, "nodad")
    with scene.b.ns.sniff(scene.b.ifname) as arrived:
        scene.a.inject(frames.ping(scene.a.mac, scene.b.mac, source, target, "over the back fence"))
        scene.a.inject(frames.ping(scene.a.mac, scene.gateway_mac(4), source, target, "over the back fence"))
        scene.a.ns.run("ping", "-6", "-c", "1", "-W", "1", f"{target}%{scene.a.ifname}")
    for member in (scene.a, scene.b):
        member.ns.run("ip", "-6", "addr", "flush", "dev", member.ifname)
    seen = [f for f in arrived if f[12:14] == b"\x86\xdd"]
    return f"{len(seen)} IPv6 frames arrived" if seen else ""


class FourOnly(GuardedScene):
    PREFIXES = ("10.66.0.0/24",)
    FAMILIES = (4,)


@pytest.fixture(params=["bridge", "routed"])
def four_only(request: pytest.FixtureRequest, host: Host):
    """A network without IPv6."""
    yield from guarded(host, request.param, kind=FourOnly)


def advertise_to_host(scene: Scene, family: int) -> str:
    scene.a.inject(*[frames.router_advertisement(scene.a.mac)] * 3)
    pause(0.1)
    routes = scene.host.json("ip", "-6", "route", "show", "default")
    return str([r for r in routes if str(r.get("gateway", "")).startswith("fe80:")] or "")


def test_ipv6_is_dead_on_a_network_without_it(bites: Bites, four_only: FourOnly) -> None:
    """CVE-2024-32473: no link-local address, no way for one that the workload gives itself, no host rerouted."""
    for member in four_only.members:
        assert member.ns.ip("-6", "addr", "show", "dev", member.ifname) == ""
    assert four_only.host.sysctl("net/ipv6/conf/all/forwarding") == "0"
    assert bites(speak_link_local, 6), VOID
    assert speak_link_local(four_only, 6) == ""
    assert bites(advertise_to_host, 6), VOID
    assert advertise_to_host(four_only, 6) == ""


def test_a_guard_holds_while_the_daemon_is_dead(host: Host) -> None:
    """Moment (iv): kill -9, attack, start again, attack."""
    for scene in guarded(host, "bridge"):
        host.kill9()
        assert spoof(scene, 4) == spoof(scene, 6) == ""
        host.start()
        assert spoof(scene, 4) == spoof(scene, 6) == ""


def test_a_workload_is_guarded_from_its_first_instruction(host: Host) -> None:
    """Moment (ii): a process that spoofs without pause from before it is attached until after: nothing ever arrives."""
    for scene in guarded(host, "bridge"):
        frame = frames.udp("02:00:00:00:00:99", scene.b.mac, EXT4, scene.b.v4, 7000, MARK)
        with Netns("early") as early, scene.b.ns.sniff(scene.b.ifname) as arrived:
            early.python(BLAST.format(frame=frame))
            host.api.attach(early.path, scene.network, name="early")
            sent = early.python(
                "import threading, time\ntime.sleep(0.1)\nthreading.blast[0] = False\nresult = threading.blast[1]"
            )
            host.api.detach(sandbox=early.path)
        assert sent > 0
        assert [f for f in arrived if MARK.encode() in f] == []


BLAST = """
import socket, threading, time
frame = bytes.fromhex("{frame}")
threading.blast = [True, 0]

def run():
    link = None
    while threading.blast[0]:
        try:
            if link is None:
                link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
                link.bind(("eth0", 0))
            link.send(frame)
            threading.blast[1] += 1
        except OSError:
            if link is not None:
                link.close()
            link = None
            time.sleep(0)

threading.Thread(target=run, daemon=True).start()
"""
