"""Attacks on the link layer, from inside a workload with every capability over its own namespace (A1 to A5, A8 to A10
of docs/reliability). Each succeeds on a bare bridge; with the engine's guards nothing is found at the victim.
"""

import socket

import pytest

from harness import frames
from harness.patience import pause
from harness.scene import GATEWAY, NOBODY, Bites, GuardedScene, Scene

pytestmark = pytest.mark.kernel

VOID = "the attack fails even without guards: this test proves nothing"
FLOOD_FRAMES = 20_000
STOLEN_STREAM = 200
OVERHEARD_PACKETS = 300


def settle(scene: Scene) -> None:
    """Everyone has spoken with everyone, so that there are entries to poison."""
    for one in scene.members:
        for other in scene.members:
            for family in (4, 6):
                if one is not other:
                    one.ns.probe("udp", other.address(family), 7000, timeout=0.2)


# --- routers and redirects ------------------------------------------------------------------------------------------


def reroute_host(scene: Scene, family: int) -> str:
    """A1: router advertisements until the host has a default route, or an address, of the attacker's choice."""
    scene.a.inject(*[frames.router_advertisement(scene.a.mac)] * 3)
    pause(0.1)
    routes = scene.host.json("ip", "-6", "route", "show", "default")
    stolen = [r["gateway"] for r in routes if str(r.get("gateway", "")).startswith("fe80:")]
    bad = [line for line in scene.host.ip("-6", "-br", "addr").splitlines() if "2001:db8:bad:" in line]
    return f"{stolen} {bad}" if stolen or bad else ""


def reroute_sibling(scene: Scene, family: int) -> str:
    """A2: the same towards another workload."""
    with scene.b.ns.sniff(scene.b.ifname) as arrived:
        scene.a.inject(*[frames.router_advertisement(scene.a.mac)] * 3)
        # Under the gateway's own address too, with which a guard might mistake it for a true one.
        gateway_local = frames.link_local(scene.gateway_mac(6) or scene.a.mac)
        scene.a.inject(frames.router_advertisement(scene.a.mac, source=gateway_local))
    seen = [f for f in arrived if f[12:14] == b"\x86\xdd" and f[20] == 58 and f[54] == 134]
    routes = scene.b.ns.json("ip", "-6", "route", "show", "default")
    stolen = [r["gateway"] for r in routes if str(r.get("gateway", "")).startswith("fe80:")]
    return f"{len(seen)} arrived, routes {stolen}" if seen or stolen else ""


def redirect_sibling(scene: Scene, family: int) -> str:
    """A11: "I, the gateway, tell you that this address is better reached through the attacker"."""
    target, better = NOBODY[family], scene.a.address(family)
    if family == 6:
        # RFC 4861 §8.1: from the link-local address of the present gateway, about a destination on the link.
        router, better = frames.link_local(scene.gateway_mac(6)), frames.link_local(scene.a.mac)
    else:
        router = GATEWAY[4]
    with scene.b.ns.sniff(scene.b.ifname) as arrived:
        for to_mac in (scene.b.mac, scene.gateway_mac(family)):
            frame = frames.redirect(scene.a.mac, to_mac, router, scene.b.address(family), target, better)
            scene.a.inject(*[frame] * 3)
    if family == 6:
        seen = [f for f in arrived if f[12:14] == b"\x86\xdd" and f[20] == 58 and f[54] == 137]
    else:
        seen = [f for f in arrived if f[12:14] == b"\x08\x00" and f[23] == 1 and f[34] == 5]
    route = scene.b.ns.json("ip", f"-{family}", "route", "get", target)
    stolen = [r for r in route if r.get("gateway") == better]
    return f"{len(seen)} arrived, route {stolen}" if seen or stolen else ""


def misdirect_under_its_own_name(scene: Scene, family: int) -> str:
    """A11: redirects and router advertisements of IPv4, from the attacker's own address."""
    own = (scene.a.mac, scene.b.mac, scene.a.v4, scene.b.v4)
    with scene.b.ns.sniff(scene.b.ifname) as arrived:
        redirect = frames.redirect(*own, NOBODY[4], scene.a.v4)
        scene.a.inject(*[redirect, frames.router_advertisement4(*own)] * 3)
    kinds = {f[34] for f in arrived if f[12:14] == b"\x08\x00" and f[23] == 1} & {5, 9}
    return f"types {sorted(kinds)} arrived" if kinds else ""


def offer_addresses(scene: Scene, family: int) -> str:
    """A2, A7: a rogue DHCP server. Its offers would give a sibling another gateway and resolver."""
    if family == 4:
        offer, port = (
            frames.dhcp_offer(scene.a.mac, scene.b.mac, scene.a.v4, "10.66.0.99"),
            b"\x00\x43\x00\x44",
        )
    else:
        offer, port = frames.dhcp6_advertise(scene.a.mac), b"\x02\x23\x02\x22"
    with scene.b.ns.sniff(scene.b.ifname) as arrived:
        scene.a.inject(*[offer] * 3)
    seen = [f for f in arrived if port in f[34:58]]
    return f"{len(seen)} offers arrived" if seen else ""


# --- neighbours and MACs --------------------------------------------------------------------------------------------


def steal_neighbour(scene: Scene, family: int) -> str:
    """A3, A4: say to everybody, and to `b` alone, that `c`'s address (then the gateway's) is at the attacker's MAC."""
    settle(scene)
    mac, victim = scene.a.mac, scene.b
    # For a second after an entry was confirmed the kernel believes nobody else; the attacker would wait, we need not.
    victim.ns.sysctl(f"net/ipv4/neigh/{victim.ifname}/locktime", "0")
    stolen = []
    for claimed in (scene.c.address(family), GATEWAY[family]):
        if family == 4:
            reply = frames.arp_reply(mac, victim.mac, claimed, victim.v4)
            attempt = [
                frames.gratuitous(mac, claimed),
                frames.raw(reply),
                frames.tagged(reply),
                frames.snap(reply),
            ]
            # A true sender in the frame, the lie in its body, and the other way round.
            attempt.append(
                frames.raw(frames.arp_reply(scene.c.mac, victim.mac, claimed, victim.v4, sender_mac=mac))
            )
        else:
            own = (scene.a.v6, frames.link_local(mac), claimed)
            attempt = [frames.advertisement(mac, claimed, victim.mac, victim.v6, source) for source in own]
            attempt += [frames.advertisement(mac, claimed, source=source) for source in own]
        scene.a.inject(*attempt * 5)
        pause(0.02)
        if victim.neighbour(claimed) == mac:
            stolen.append(claimed)
    return f"{victim.name} believes {stolen}" if stolen else ""


def deny_address(scene: Scene, family: int) -> str:
    """A4: claim `c`'s address in duplicate address detection, so that it may not have it when it starts."""
    with scene.c.ns.sniff(scene.c.ifname) as arrived:
        scene.a.inject(*[frames.duplicate_detection(scene.a.mac, scene.c.v6)] * 3)
        scene.a.inject(*[frames.advertisement(scene.a.mac, scene.c.v6, source=scene.a.v6)] * 3)
    target = socket.inet_pton(socket.AF_INET6, scene.c.v6)
    seen = [f for f in arrived if f[12:14] == b"\x86\xdd" and f[20] == 58 and f[54] in (135, 136)]
    lies = [f for f in seen if f[62:78] == target and f[6:12].hex(":") == scene.a.mac]
    return f"{len(lies)} claims arrived" if lies else ""


def steal_mac(scene: Scene, family: int) -> str:
    """A5: after frames under `c`'s MAC, frames for `c` go to the attacker."""
    settle(scene)
    pairs = (scene.b, scene.c), (scene.c, scene.b)
    for one, other in pairs:
        # Neither asks for the other again: an answer of `c` would teach the bridge where it is.
        entry = (other.address(family), "lladdr", other.mac, "dev", one.ifname, "nud", "permanent")
        one.ns.run("ip", "neigh", "replace", *entry)
    server = scene.server(scene.c, "udp", family)
    server.peers(clear=True)
    spoofed = frames.udp(scene.c.mac, scene.b.mac, scene.a.address(family), scene.b.address(family), 9, "x")
    for number in range(STOLEN_STREAM // 20):
        scene.a.inject(spoofed)
        payloads = [f"kept {number} {i}" for i in range(20)]
        scene.b.ns("send", address=scene.c.address(family), port=server.port, payloads=payloads)
    pause(0.05)
    for one, other in pairs:
        one.ns.run("ip", "neigh", "del", other.address(family), "dev", one.ifname)
    kept = [payload for _, _, payload in server.peers() if payload.startswith("kept")]
    return f"{len(kept)} of {STOLEN_STREAM} reached c" if len(kept) < STOLEN_STREAM else ""


def flood_macs(scene: Scene, family: int) -> str:
    """A5: fill the bridge's table with random MACs, until it floods like a hub."""

    def known() -> int:
        return len(scene.host.json("bridge", "fdb", "show"))

    before = known()
    scene.a.ns("flood", ifname=scene.a.ifname, count=FLOOD_FRAMES, destination=scene.b.mac)
    grown = known() - before
    return f"{grown} entries more" if grown > 0 else ""


# --- overhearing, and talk that nobody should have ------------------------------------------------------------------


def overhear(scene: Scene, family: int) -> str:
    """A9: frames between `b` and `c`, after their table entries were forgotten, and frames for nobody known."""
    settle(scene)
    server = scene.server(scene.c, "udp", family)
    with scene.a.ns.sniff(scene.a.ifname) as arrived:
        scene.host.run("bridge", "fdb", "flush", "dev", bridge_of(scene))
        unknown = frames.udp(
            scene.b.mac, "02:00:00:00:77:77", scene.b.address(family), scene.c.address(family), 9, "e"
        )
        scene.b.inject(*[unknown] * 3)
        payloads = [f"private {i}" for i in range(OVERHEARD_PACKETS)]
        scene.b.ns("send", address=scene.c.address(family), port=server.port, payloads=payloads)
    theirs = [
        f
        for f in arrived
        if f[6:12].hex(":") == scene.b.mac and f[:6].hex(":") in (scene.c.mac, "02:00:00:00:77:77")
    ]
    return f"{len(theirs)} frames overheard" if theirs else ""


def bridge_of(scene: Scene) -> str:
    bridges = scene.host.json("ip", "link", "show", "type", "bridge")
    return str(bridges[0]["ifname"])


def speak_link_local(scene: Scene, family: int) -> str:
    """A8: IPv6 beside the engine's addresses. `a` gives itself and (as an accomplice) `b` link-local addresses."""
    source, target = "fe80::a:1", "fe80::b:1"
    for member, address in ((scene.a, source), (scene.b, target)):
        member.ns.sysctl(f"net/ipv6/conf/{member.ifname}/disable_ipv6", "0")
        member.ns.run("ip", "addr", "add", f"{address}/64", "dev", member.ifname, "nodad")
    with scene.b.ns.sniff(scene.b.ifname) as arrived:
        scene.a.inject(frames.ping(scene.a.mac, scene.b.mac, source, target, "over the back fence"))
        scene.a.ns.run("ping", "-6", "-c", "1", "-W", "1", f"{target}%{scene.a.ifname}")
    seen = [f for f in arrived if f[12:14] == b"\x86\xdd"]
    return f"{len(seen)} IPv6 frames arrived" if seen else ""


def speak_control(scene: Scene, family: int) -> str:
    """A10: what switches say to each other (STP, LACP, LLDP, …)."""

    def state() -> list[object]:
        links = scene.host.json("ip", "-d", "link", "show")
        bridges = [
            link["linkinfo"].get("info_data", {}).get("root_id") for link in links if "linkinfo" in link
        ]
        return [bridges, [link.get("linkinfo", {}).get("info_slave_data", {}).get("state") for link in links]]

    before = state()
    with scene.b.ns.sniff(scene.b.ifname) as at_b, scene.ext.sniff("eth0") as at_ext:
        scene.a.inject(*frames.control_frames(scene.a.mac).values())
    # `a` itself may ask for a neighbour meanwhile.
    own = {b"\x08\x00", b"\x08\x06", b"\x86\xdd"}
    seen = [f for f in at_b + at_ext if f[6:12].hex(":") == scene.a.mac and f[12:14] not in own]
    changed = before != state()
    return f"{len(seen)} frames arrived, state changed: {changed}" if seen or changed else ""


# --- the tests ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attack", [reroute_host, reroute_sibling, deny_address])
def test_ipv6_autoconfiguration_cannot_be_abused(attack, bites: Bites, scene: GuardedScene) -> None:
    """No advertisement of a router, and no claim to another's address, gets past the attacker's own port."""
    assert bites(attack, 6), VOID
    assert attack(scene, 6) == ""


@pytest.mark.parametrize("attack", [redirect_sibling, offer_addresses])
def test_nobody_but_the_engine_configures_a_workload(
    attack, bites: Bites, scene: GuardedScene, family: int
) -> None:
    """Redirects and DHCP offers of a neighbour do not arrive."""
    assert bites(attack, family), VOID
    assert attack(scene, family) == ""


def test_nobody_acts_as_a_router_under_its_own_name_either(bites: Bites, scene: GuardedScene) -> None:
    assert bites(misdirect_under_its_own_name, 4), VOID
    assert misdirect_under_its_own_name(scene, 4) == ""


@pytest.mark.parametrize("attack", [steal_neighbour, steal_mac])
def test_identities_cannot_be_stolen(attack, bites: Bites, scene: GuardedScene, family: int) -> None:
    """Neither an address nor a MAC of another is taken from it."""
    assert bites(attack, family), VOID
    assert attack(scene, family) == ""


def test_random_macs_do_not_fill_the_table(bites: Bites, scene: GuardedScene) -> None:
    """20,000 frames under as many MACs leave the forwarding table as it was."""
    assert bites(flood_macs, 4), VOID
    assert flood_macs(scene, 4) == ""


def test_a_workload_hears_nothing_of_others(bites: Bites, scene: GuardedScene, family: int) -> None:
    """Not even when the bridge has forgotten where its ports' MACs are."""
    assert bites(overhear, family), VOID
    assert overhear(scene, family) == ""


def test_control_frames_end_at_the_port(bites: Bites, scene: GuardedScene) -> None:
    """STP, LACP, LLDP, EAPOL, VLAN tags and their like neither arrive anywhere nor change the bridge."""
    assert bites(speak_control, 4), VOID
    assert speak_control(scene, 4) == ""
