"""What the host routes between links that are not ours: nothing that it did not route before we came (B16).

ext ─ eth0 [host] eth1 ─ far
"""

from collections.abc import Iterator
from typing import Any

import pytest

from harness.explained import Explained
from harness.host import Host, Lan
from harness.netns import Netns, Server, eventually, join
from harness.scene import ANY
from sealane.explain.packet import Disposition, Packet
from sealane.kernel.objects import Address
from sealane.kernel.state import HOST

pytestmark = pytest.mark.kernel

FAR = {4: "198.18.5.2", 6: "fd18:5::2"}
NEAR = {4: "198.18.5.1", 6: "fd18:5::1"}
BEHIND = {4: "198.18.5.0/24", 6: "fd18:5::/64"}
SWITCH = {4: "net/ipv4/ip_forward", 6: "net/ipv6/conf/all/forwarding"}
PORT = 7000
POLL_S = 20.0
"""Of what no notification tells: 5 s, on a machine that is busy."""

DRIVERS = pytest.mark.parametrize("driver", ["bridge", "routed"])


class Crossing:
    """A host between two wires, which routes nothing."""

    def __init__(self, lan: Lan) -> None:
        self.machine = Host(lan, number=8)
        self.ns, self.ext = self.machine.ns, lan.ext
        self.far = Netns("far")
        self.far.skip_dad()
        join(self.ns, "eth1", self.far, "eth0")
        self.ns.batch(f"addr add {NEAR[4]}/24 dev eth1", f"addr add {NEAR[6]}/64 dev eth1 nodad")
        self.far.batch(
            f"addr add {FAR[4]}/24 dev eth0",
            f"addr add {FAR[6]}/64 dev eth0 nodad",
            f"route add default via {NEAR[4]}",
            f"route add default via {NEAR[6]}",
        )
        for family in (4, 6):
            self.ext.ip("route", "add", BEHIND[family], "via", self.machine.address(family))
        self.servers: dict[int, Server] = {f: self.far.listen("udp", ANY[f], PORT) for f in (4, 6)}

    def crosses(self, family: int) -> bool:
        """Whether a stranger on one wire reaches who is on the other."""
        return self.ext.reaches(self.servers[family], FAR[family], timeout=0.3)

    def switches(self) -> dict[int, str]:
        return {family: self.ns.sysctl(path) for family, path in SWITCH.items()}

    def network(self, driver: str, **fields: Any) -> None:
        self.machine.api.network("mine", "10.77.0.0/24", "fd77::/64", driver=driver, **fields)

    def close(self) -> None:
        for family in (4, 6):
            self.ext.ip("route", "del", BEHIND[family])
        self.machine.close()
        self.far.close()


@pytest.fixture
def crossing(lan: Lan) -> Iterator[Crossing]:
    made = Crossing(lan)
    yield made
    made.close()


def on(crossing: Crossing) -> None:
    for path in SWITCH.values():
        crossing.ns.sysctl(path, "1")


@DRIVERS
def test_a_stranger_is_not_routed_from_one_link_of_the_host_to_another(
    crossing: Crossing, driver: str
) -> None:
    """Forwarding is on because we need it, and serves us alone: out of a network, into it, and back."""
    on(crossing)
    assert [crossing.crosses(f) for f in (4, 6)] == [True, True], "the attack fails even without guards"
    for path in SWITCH.values():
        crossing.ns.sysctl(path, "0")
    crossing.machine.start()
    crossing.network(driver)
    with crossing.machine.workload(
        "mine", "web", publish=[{"proto": "udp", "host_first": 9053, "port": PORT}]
    ) as web:
        assert crossing.switches() == {4: "1", 6: "1"}
        assert [crossing.crosses(f) for f in (4, 6)] == [False, False]
        for family in (4, 6):
            inside = web.ns.listen("udp", ANY[family], PORT)
            assert web.ns.reaches(crossing.servers[family], FAR[family])
            for client, address in (
                (crossing.far, NEAR[family]),
                (crossing.ext, crossing.machine.address(family)),
            ):
                assert client.reaches(inside, address, 9053)
            inside.close()
        explained_is_denied(crossing)
    crossing.machine.api.remove_network("mine")
    assert crossing.switches() == {4: "0", 6: "0"}
    assert [crossing.crosses(f) for f in (4, 6)] == [False, False]


def explained_is_denied(crossing: Crossing) -> None:
    oracle = Explained(crossing.machine)
    there = oracle.compiled.desired[HOST]
    for family, length in ((4, 24), (6, 64)):
        # The second wire, by a link of ours so far as explain knows: all that matters is that a route leads on.
        item = Address(link="eth0", address=f"{NEAR[family]}/{length}")
        there[item.key] = item
        packet = Packet(
            proto="udp",
            source={4: "192.0.2.200", 6: "2001:db8::200"}[family],
            source_port=4000,
            destination=FAR[family],
            destination_port=PORT,
        )
        trace, _ = oracle.talk("ext", packet)
        whys = [step.why for hop in trace.hops for step in hop.steps if step.why]
        assert (trace.disposition, whys[-1]) == (Disposition.DENIED, "base:transit")


@DRIVERS
def test_an_internal_network_switches_nothing_on_that_it_does_not_need(
    crossing: Crossing, driver: str
) -> None:
    """IPv4 has a setting of each link; IPv6 has one for all, which a routed network needs."""
    crossing.machine.start()
    crossing.network(driver, internal=True)
    with (
        crossing.machine.workload("mine", "one") as one,
        crossing.machine.workload("mine", "two") as two,
    ):
        assert crossing.switches() == {4: "0", 6: "1" if driver == "routed" else "0"}
        for family in (4, 6):
            server = two.ns.listen("tcp", ANY[family], PORT)
            assert one.ns.reaches(server, two.address(family))
            assert not crossing.crosses(family)
    crossing.machine.api.remove_network("mine")
    assert crossing.switches() == {4: "0", 6: "0"}


@DRIVERS
def test_a_host_that_forwarded_before_goes_on(crossing: Crossing, driver: str) -> None:
    """A router, or who has other engines: its own traffic is none of our business, before, meanwhile and after."""
    on(crossing)
    crossing.machine.start()
    crossing.network(driver)
    assert [crossing.crosses(f) for f in (4, 6)] == [True, True]
    crossing.machine.kill9()
    crossing.machine.start()
    assert [crossing.crosses(f) for f in (4, 6)] == [True, True]
    crossing.machine.api.remove_network("mine")
    assert crossing.switches() == {4: "1", 6: "1"}
    assert [crossing.crosses(f) for f in (4, 6)] == [True, True]


@DRIVERS
def test_what_was_before_is_known_after_a_crash(crossing: Crossing, driver: str) -> None:
    """With what the kernel changes beside: the setting of each link, and whether redirects are believed."""
    settings = {
        "net/ipv4/conf/eth1/forwarding": "1",
        "net/ipv4/conf/eth0/forwarding": "0",
        "net/ipv4/conf/default/forwarding": "0",
        "net/ipv4/conf/all/accept_redirects": "0",
        "net/ipv6/conf/eth1/forwarding": "1",
        "net/ipv6/conf/eth0/forwarding": "0",
    }
    for path, value in settings.items():
        crossing.ns.sysctl(path, value)
    crossing.machine.start()
    crossing.network(driver)
    crossing.machine.kill9()
    # Somebody switches it off while nobody looks.
    crossing.ns.sysctl(SWITCH[4], "0")
    crossing.machine.start()
    assert crossing.switches() == {4: "1", 6: "1"}
    assert not crossing.crosses(4)
    crossing.machine.kill9()
    crossing.machine.start()
    crossing.machine.api.remove_network("mine")
    assert crossing.switches() == {4: "0", 6: "0"}
    assert {path: crossing.ns.sysctl(path) for path in settings} == settings


def test_a_network_that_is_in_no_record_any_more_leaves_nothing_on(crossing: Crossing) -> None:
    """The switch is as much a part of the kernel's state as the bridge: whoever finds it unwanted puts it back."""
    crossing.machine.start()
    crossing.network("bridge")
    crossing.machine.stop()
    crossing.ns.sh("rm", "-r", crossing.machine.state_dir)
    crossing.machine.start()
    assert crossing.switches() == {4: "0", 6: "0"}


# --- beside other engines -------------------------------------------------------------------------------------------


def other_engine(crossing: Crossing, bridge: str, number: int) -> Netns:
    """A container of somebody else's, as Docker makes it: a bridge, a veth, and a rule that translates."""
    box = Netns(f"box{number}")
    crossing.ns.ip("link", "add", bridge, "type", "bridge")
    crossing.ns.ip("link", "set", bridge, "up")
    crossing.ns.ip("addr", "add", f"172.31.{number}.1/24", "dev", bridge)
    join(crossing.ns, f"v{bridge}", box, "eth0")
    crossing.ns.ip("link", "set", f"v{bridge}", "master", bridge)
    box.batch(f"addr add 172.31.{number}.2/24 dev eth0", f"route add default via 172.31.{number}.1")
    rule = f"type nat hook postrouting priority 100; ip saddr 172.31.{number}.0/24 masquerade;"
    crossing.ns.sh("nft", "-f", "-", text=f"table ip other{number} {{ chain leave {{ {rule} }}; }}\n")
    return box


@DRIVERS
def test_an_engine_that_comes_later_lives_by_what_is_on(crossing: Crossing, driver: str) -> None:
    """It found the host forwarding, so it changed nothing: its containers get out, and the host goes on when we go. Who was
    there before, and was not routed, is not."""
    before = other_engine(crossing, "lab0", 1)
    server = crossing.servers[4]
    crossing.machine.start()
    crossing.network(driver)
    later = other_engine(crossing, "docker0", 2)
    try:
        eventually(
            lambda: later.reaches(server, FAR[4], timeout=0.3),
            POLL_S,
            "the other engine's container gets out",
        )
        assert not before.reaches(server, FAR[4], timeout=0.3)
        assert not crossing.crosses(4)
        crossing.machine.api.remove_network("mine")
        assert later.reaches(server, FAR[4])
        assert (crossing.switches(), crossing.crosses(4)) == ({4: "1", 6: "1"}, False)
        crossing.ns.ip("link", "del", "docker0")
        eventually(lambda: crossing.switches() == {4: "0", 6: "0"}, POLL_S, "nobody lives by it any more")
    finally:
        before.close()
        later.close()


def test_what_others_translate_passes(crossing: Crossing) -> None:
    """A port that somebody has translated to elsewhere is asked for."""
    crossing.machine.start()
    crossing.network("bridge")
    rule = f"type nat hook prerouting priority -100; udp dport 9999 dnat ip to {FAR[4]}:{PORT};"
    crossing.ns.sh("nft", "-f", "-", text=f"table ip other {{ chain come {{ {rule} }}; }}\n")
    assert crossing.ext.reaches(crossing.servers[4], crossing.machine.address(4), 9999)
    assert not crossing.crosses(4)


def test_frames_within_a_bridge_of_others_are_left_alone(crossing: Crossing) -> None:
    """With br_netfilter they pass the hook that packets between links pass."""
    one, two = other_engine(crossing, "lab0", 1), Netns("two")
    join(crossing.ns, "vtwo", two, "eth0")
    crossing.ns.ip("link", "set", "vtwo", "master", "lab0")
    two.batch("addr add 172.31.1.3/24 dev eth0")
    crossing.ns.sysctl("net/bridge/bridge-nf-call-iptables", "1")
    crossing.machine.start()
    crossing.network("bridge")
    try:
        server = two.listen("udp", "0.0.0.0", PORT)
        assert one.reaches(server, "172.31.1.3")
        assert not crossing.crosses(4)
    finally:
        one.close()
        two.close()
