"""Attacks by a stranger on the LAN who says that he is one of ours: a neighbour container, the gateway, the host (A6, B8).

The kernel refuses its own IPv4 addresses from outside, unless somebody has set `accept_local` (load balancers do); of IPv6 it
refuses none.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from harness import frames
from harness.audit import audit
from harness.host import EXT4, EXT6, Host, Lan
from harness.scene import GATEWAY, Bites, GuardedScene, Scene, guarded

pytestmark = pytest.mark.kernel

VOID = "the attack fails even without guards: this test proves nothing"
MARK = "not-from-whom-it-says"
INNER, PUBLIC = 7000, 9053
EXT = {4: EXT4, 6: EXT6}
SUBNET = {4: "10.66.0.0/24", 6: "fd66::/64"}

NAIVE = """
table inet naive { chain here {
  type nat hook prerouting priority -100
  meta nfproto ipv4 meta l4proto udp th dport 9053 dnat ip to 10.66.0.11:7000
  meta nfproto ipv6 meta l4proto udp th dport 9053 dnat ip6 to [fd66::b]:7000
}; }
"""


class Published(GuardedScene):
    """`b` publishes, so that what may come from the LAN comes."""

    PUBLISH = {"b": [{"proto": "udp", "host_first": PUBLIC, "port": INNER}]}


KINDS: dict[str, tuple[type[GuardedScene], dict[str, Any]]] = {
    "masquerade": (Published, {}),
    "no-masquerade": (Published, {"options": {"masquerade": "false"}}),
    "internal": (GuardedScene, {"internal": True}),
}


@pytest.fixture(scope="module", params=[(d, k) for k in KINDS for d in ("bridge", "routed")], ids="-".join)
def scene(request: pytest.FixtureRequest, lan: Lan) -> Iterator[GuardedScene]:
    driver, name = request.param
    kind, fields = KINDS[name]
    with Host(lan, number=4).start() as machine:
        yield from guarded(machine, driver, kind=kind, **fields)
        assert audit(machine) == []


def naive(scene: Scene) -> None:
    scene.host.sh("nft", "-f", "-", text=NAIVE)


def speak_as(scene: Scene, source: str) -> str:
    """A datagram for `b`'s own address and one for its published port, in packets that the stranger makes."""
    family = 6 if ":" in source else 4
    setting = "net/ipv4/conf/eth0/accept_local"
    scene.host.sysctl(setting, "1")
    try:
        with scene.b.ns.sniff(scene.b.ifname) as seen:
            for destination, port in ((scene.b.address(family), INNER), (scene.host_address(family), PUBLIC)):
                to = (scene.ext_mac(), scene.host_mac(), source, destination)
                # A connection, and what belongs to none.
                raw = [frames.udp(*to, port, MARK), frames.ping(*to, MARK)]
                scene.ext("frames", ifname="eth0", raw=raw * 3)
            time.sleep(0.05)
    finally:
        scene.host.sysctl(setting, "0")
    arrived = [frame for frame in seen if MARK.encode() in frame]
    return f"{scene.b.name} got {len(arrived)} packets from {source}" if arrived else ""


def speak_as_a_neighbour(scene: Scene, family: int) -> str:
    return speak_as(scene, scene.c.address(family))


def speak_as_the_gateway(scene: Scene, family: int) -> str:
    return speak_as(scene, GATEWAY[family])


def speak_as_the_host(scene: Scene, family: int) -> str:
    return speak_as(scene, scene.host_address(family))


@pytest.mark.parametrize("attack", [speak_as_a_neighbour, speak_as_the_gateway, speak_as_the_host])
def test_a_stranger_speaks_for_none_of_ours(
    bites: Bites, scene: GuardedScene, family: int, attack: Callable[[Scene, int], str]
) -> None:
    assert bites(attack, family, forwarding=True, prepare=naive), VOID
    assert attack(scene, family) == ""


def test_a_stranger_speaks_for_himself(scene: GuardedScene, family: int) -> None:
    """What is asked for goes on: published ports, at the host's address and without masquerade at the workload's own, and
    the way out under it."""
    server = scene.server(scene.b, "udp", family, INNER)
    is_published = isinstance(scene, Published)
    assert scene.ext.reaches(server, scene.host_address(family), PUBLIC) == is_published
    outside = scene.ext.listen("udp", "::" if family == 6 else "0.0.0.0", PUBLIC)
    scene.ext.ip("route", "add", SUBNET[family], "via", scene.host_address(family), "dev", "eth0")
    outside.peers(clear=True)
    try:
        is_open = scene_kind(scene) == "no-masquerade"
        assert scene.ext.reaches(server, scene.b.address(family), INNER) == is_open
        assert scene.b.ns.reaches(outside, EXT[family], PUBLIC) == is_published
        sources = {source for source, _, _ in outside.peers()}
        assert (scene.b.address(family) in sources) == is_open
    finally:
        scene.ext.ip("route", "del", SUBNET[family])
        outside.close()


def scene_kind(scene: GuardedScene) -> str:
    assert scene.machine is not None
    network = scene.machine.api.get(f"/networks/{scene.network}")
    return "internal" if network["internal"] else "masquerade" if network["masquerade"] else "no-masquerade"
