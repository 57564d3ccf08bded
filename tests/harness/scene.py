"""Three workloads on one network, guarded by the engine or bare.

A bare scene is a bridge made with `ip`, and nothing else: there every attack must succeed, or its test says nothing
about the guarded one. Both have one shape, so an attack is one function that runs on either.
"""

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from harness.host import Host, Lan, Workload
from harness.netns import Netns, Server, join

PREFIX4, PREFIX6 = "10.66.0.0/24", "fd66::/64"
GATEWAY = {4: "10.66.0.1", 6: "fd66::1"}
NUMBERS = {"a": 10, "b": 11, "c": 12}
ANY = {4: "0.0.0.0", 6: "::"}
NOBODY = {4: "198.51.100.9", 6: "2001:db8:ffff::9"}


class Member:
    """A workload as an attack sees it."""

    def __init__(self, name: str, ns: Netns, ifname: str) -> None:
        self.name, self.ns, self.ifname = name, ns, ifname
        self.mac = str(ns.json("ip", "link", "show", ifname)[0]["address"])
        self.v4, self.v6 = f"10.66.0.{NUMBERS[name]}", f"fd66::{NUMBERS[name]:x}"

    def address(self, family: int) -> str:
        return self.v4 if family == 4 else self.v6

    def neighbour(self, address: str) -> str:
        """The MAC under which this member would send to an address of its network."""
        entries = self.ns.json("ip", "neigh", "show", address, "dev", self.ifname)
        return str(entries[0].get("lladdr", "")) if entries else ""

    def inject(self, *frames: str) -> None:
        self.ns("frames", ifname=self.ifname, raw=frames)


class Scene:
    FAMILIES: tuple[int, ...] = (4, 6)

    def __init__(
        self, name: str, lan: Lan, host: Netns, members: dict[str, Member], host_number: int
    ) -> None:
        self.name, self.lan, self.host = name, lan, host
        self.a, self.b, self.c = (members[n] for n in "abc")
        self.host_number = host_number
        self.servers: dict[tuple[str, str, int], Server] = {}
        self.machine: Host | None = None

    @property
    def members(self) -> tuple[Member, Member, Member]:
        return self.a, self.b, self.c

    @property
    def ext(self) -> Netns:
        return self.lan.ext

    def host_address(self, family: int) -> str:
        return f"192.0.2.{10 + self.host_number}" if family == 4 else f"2001:db8::{10 + self.host_number}"

    def host_mac(self) -> str:
        """Of the host's link on the LAN."""
        return str(self.host.json("ip", "link", "show", "eth0")[0]["address"])

    def ext_mac(self) -> str:
        return str(self.ext.json("ip", "link", "show", "eth0")[0]["address"])

    def gateway_mac(self, family: int = 4) -> str:
        self.a.ns.probe("udp", GATEWAY[family], 9, timeout=0.2)
        return self.a.neighbour(GATEWAY[family])

    def server(self, member: Member, proto: str, family: int, port: int = 7000) -> Server:
        key = (member.name, proto, family)
        if key not in self.servers:
            self.servers[key] = member.ns.listen(proto, ANY[family], port)
        return self.servers[key]

    def failures(self) -> list[str]:
        """Which members do not reach each other: all must, before an attack and after it."""
        wrong = []
        for one in self.members:
            for other in self.members:
                for family in self.FAMILIES:
                    server = self.server(other, "udp", family)
                    if one is not other and not one.ns.reaches(server, other.address(family)):
                        wrong.append(f"{one.name} does not reach {other.name} over IPv{family}")
        return wrong


class BareScene(Scene):
    """A bridge as anybody would make it by hand. `options`: `forwarding` lets the host route."""

    def __init__(self, lan: Lan, *, forwarding: bool = False) -> None:
        host = Netns("bare", mounts=True)
        lan.plug(host, "192.0.2.99", "2001:db8::99")
        host.batch("link add br0 type bridge", "link set br0 up")
        host.batch("addr add 10.66.0.1/24 dev br0", "addr add fd66::1/64 dev br0 nodad")
        if forwarding:
            host.sysctl("net/ipv4/ip_forward", "1")
            host.sysctl("net/ipv6/conf/all/forwarding", "1")
        members = {name: self._member(host, name, number) for name, number in NUMBERS.items()}
        super().__init__("bare", lan, host, members, 89)

    @staticmethod
    def _member(host: Netns, name: str, number: int) -> Member:
        ns = Netns(name)
        ns.skip_dad()
        join(host, f"v{name}", ns, "eth0")
        host.ip("link", "set", f"v{name}", "master", "br0")
        ns.batch(
            f"addr add 10.66.0.{number}/24 dev eth0",
            f"addr add fd66::{number:x}/64 dev eth0 nodad",
            "route add default via 10.66.0.1",
            "route add default via fd66::1",
        )
        return Member(name, ns, "eth0")

    def close(self) -> None:
        for member in self.members:
            member.ns.close()
        self.host.close()


class GuardedScene(Scene):
    """The same three, attached by the engine."""

    PREFIXES: tuple[str, ...] = (PREFIX4, PREFIX6)

    PUBLISH: dict[str, list[dict[str, Any]]] = {}
    """Member → what it publishes."""

    def __init__(self, host: Host, driver: str, network: str = "", **fields: Any) -> None:
        self.network = network or f"scene-{driver}"
        assert host.lan is not None
        host.api.network(self.network, *self.PREFIXES, driver=driver, **fields)
        self.workloads = {name: Workload(host, name) for name in NUMBERS}
        members = {}
        for name, number in NUMBERS.items():
            workload = self.workloads[name]
            addresses = [f"10.66.0.{number}", f"fd66::{number:x}"][: len(self.PREFIXES)]
            endpoint = workload.attach(
                self.network,
                name=f"{name}-{self.network}",
                addresses=addresses,
                publish=self.PUBLISH.get(name, []),
            )
            members[name] = Member(name, workload.ns, endpoint["ifname"])
        super().__init__(driver, host.lan, host.ns, members, host.number)
        self.machine = host

    def close(self) -> None:
        for workload in self.workloads.values():
            workload.close()
        assert self.machine is not None
        self.machine.api.remove_network(self.network)


Attack = Callable[[Scene, int], str]
"""What was achieved at the victim; empty: nothing."""


class Bites:
    """Whether an attack succeeds on a bare scene; each is tried until it does, a few times, once a session: an attack
    races with what its victims say on their own."""

    TRIES = 3

    def __init__(self, lan: Lan) -> None:
        self._lan = lan
        self._known: dict[tuple[str, int], str] = {}

    def __call__(
        self,
        attack: Attack,
        family: int,
        *,
        forwarding: bool = False,
        prepare: Callable[[Scene], None] | None = None,
    ) -> str:
        """`prepare` does to the host what careless software does (for instance translate ports)."""
        key = (attack.__name__, family)
        for _ in range(0 if key in self._known else self.TRIES):
            scene = BareScene(self._lan, forwarding=forwarding)
            try:
                if prepare is not None:
                    prepare(scene)
                assert scene.failures() == [], "the bare scene itself does not work"
                self._known[key] = attack(scene, family)
            finally:
                scene.close()
            if self._known[key]:
                break
        return self._known[key]


SceneT = TypeVar("SceneT", bound=GuardedScene)


def guarded(host: Host, driver: str, kind: type[SceneT] = GuardedScene, **fields: Any) -> Iterator[SceneT]:  # type: ignore[assignment]
    """For fixtures: the scene works before and after whatever is done to it."""
    scene = kind(host, driver, **fields)
    assert scene.failures() == []
    yield scene
    assert scene.failures() == []
    scene.close()
