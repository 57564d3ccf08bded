"""A port of a workload on several networks: who asks from one of them is answered, wherever the port is published."""

import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from harness.audit import audit
from harness.host import Host, Lan, Workload
from harness.netns import Netns, Server, eventually
from harness.scene import ANY

pytestmark = pytest.mark.kernel

NUMBER = 13
WEB, RANGE = 80, range(9000, 9003)
FRONT = {4: "10.76.0.1", 6: "fd76::1"}
BACK = {4: "10.77.0.1", 6: "fd77::1"}
OTHER = {4: "10.79.0.1", 6: "fd79::1"}
LAN4, LAN6 = "192.0.2.23", "2001:db8::23"
LAN = {4: LAN4, 6: LAN6}
PUBLISH: list[dict[str, Any]] = [
    {"proto": "tcp", "host_first": 8080, "port": WEB},
    {"proto": "udp", "host_first": 8080, "port": WEB},
    {"proto": "tcp", "host_first": 9000, "port": 9000, "count": 3},
    {"proto": "tcp", "host_first": 9100, "port": 9000, "count": 3},
    {"proto": "tcp", "host_address": LAN4, "host_first": 8090, "port": WEB},
    {"proto": "tcp", "host_address": LAN6, "host_first": 8090, "port": WEB},
    {"proto": "tcp", "host_address": BACK[4], "host_first": 8091, "port": WEB},
    {"proto": "tcp", "host_address": "127.0.0.1", "host_first": 8092, "port": WEB},
]


class Stage:
    """`web` is on `front`, by which it leaves, and on `back`; its ports are published on one of them."""

    def __init__(self, lan: Lan, driver: str, published_on: str) -> None:
        self.lan = lan
        self.machine = Host(lan, number=NUMBER).start()
        api = self.machine.api
        api.network("front", "10.76.0.0/24", "fd76::/64", driver=driver)
        api.network("back", "10.77.0.0/24", "fd77::/64", driver=driver)
        api.network("vault", "10.78.0.0/24", "fd78::/64", driver=driver, internal=True)
        api.network("other", "10.79.0.0/24", "fd79::/64")
        self.web = Workload(self.machine, "web")
        for name, priority in (("back", 0), ("front", 1), ("vault", 0)):
            publish = PUBLISH if name == published_on else []
            self.web.attach(name, name=f"web-{name}", publish=publish, gateway_priority=priority)
        self.clients = {
            name: Workload(self.machine, f"by-{name}") for name in ("front", "back", "vault", "other")
        }
        for name, client in self.clients.items():
            client.attach(name)
        self.servers = {
            (proto, family, port): self.web.ns.listen(proto, ANY[family], port)
            for proto in ("tcp", "udp")
            for family in (4, 6)
            for port in (WEB, *RANGE)
        }

    def vantage(self, name: str) -> Netns:
        places = {"ext": self.lan.ext, "host": self.machine.ns}
        return places.get(name) or self.clients[name].ns

    def asked(self, origin: str, proto: str, address: str, port: int, inner: int = WEB) -> str:
        """The address that the server sees; empty: there is no answer from where it was asked."""
        answer = self.vantage(origin).probe(proto, address, port, timeout=0.5).get("answer", "")
        words = str(answer).split()
        is_ours = bool(words) and words[0] == self.servers[proto, 6 if ":" in address else 4, inner].token
        return words[1] if is_ours else ""

    def close(self) -> None:
        for workload in (self.web, *self.clients.values()):
            workload.close()
        for network in ("front", "back", "vault", "other"):
            self.machine.api.remove_network(network)
        findings = audit(self.machine)
        self.machine.close()
        assert findings == []


@pytest.fixture(
    scope="module", params=itertools.product(["bridge", "routed"], ["front", "back"]), ids="-".join
)
def stage(request: pytest.FixtureRequest, lan: Lan) -> Iterator[Stage]:
    made = Stage(lan, *request.param)
    yield made
    made.close()


def test_the_state_is_as_stored(stage: Stage) -> None:
    assert audit(stage.machine) == []
    assert stage.machine.api.audit() == []


@pytest.mark.parametrize("proto", ["tcp", "udp"])
def test_it_is_answered_from_each_network_at_each_address_of_the_host(
    stage: Stage, proto: str, family: int
) -> None:
    """The gateways' are addresses of the host as well. What an internal network keeps in is not let out for it."""
    for origin in ("front", "back", "other", "ext", "host"):
        addresses = [LAN[family]] if origin == "ext" else [LAN[family], FRONT[family], BACK[family]]
        for address in addresses:
            assert stage.asked(origin, proto, address, 8080), (origin, address)
    assert not stage.asked("vault", proto, LAN[family], 8080)


def test_who_asks_from_outside_and_from_another_network_is_seen(stage: Stage, family: int) -> None:
    assert stage.asked("other", "tcp", LAN[family], 8080) == stage.clients["other"].address(family)
    assert stage.asked("back", "tcp", LAN[family], 8080) == BACK[family]
    assert stage.asked("front", "tcp", LAN[family], 8080) == FRONT[family]


def test_ranges_are_answered_too(stage: Stage, family: int) -> None:
    for origin, port in itertools.product(("front", "back"), RANGE):
        assert stage.asked(origin, "tcp", LAN[family], port, port), (origin, port)
        assert stage.asked(origin, "tcp", LAN[family], port + 100, port), (origin, port)


def test_an_address_of_the_host_is_the_only_one(stage: Stage, family: int) -> None:
    for origin in ("front", "back"):
        assert stage.asked(origin, "tcp", LAN[family], 8090), origin
        assert not stage.asked(origin, "tcp", BACK[family], 8090), origin
        assert bool(stage.asked(origin, "tcp", BACK[family], 8091)) == (family == 4), origin
        assert not stage.asked(origin, "tcp", LAN[family], 8091), origin


def test_the_hosts_own_loopback_is_asked_by_nobody_else(stage: Stage) -> None:
    assert stage.asked("host", "tcp", "127.0.0.1", 8092)
    for origin, address in itertools.product(("front", "back"), (LAN4, BACK[4])):
        assert not stage.asked(origin, "tcp", address, 8092), (origin, address)


def test_it_follows_networks_that_come_and_go(stage: Stage, family: int) -> None:
    """A workload that joins a second network is answered for there, and no longer once it has left."""
    machine = stage.machine
    with machine.workload(
        "front", "late", publish=[{"proto": "tcp", "host_first": 8200, "port": WEB}]
    ) as late:
        server = late.ns.listen("tcp", ANY[family], WEB)
        assert stage.vantage("other").reaches(server, LAN[family], 8200)
        late.attach("other", name="late-other")
        assert audit(machine) == []
        for origin in ("other", "front", "back", "host", "ext"):
            assert stage.vantage(origin).reaches(server, LAN[family], 8200), origin
        late.detach("other")
        assert audit(machine) == []
        for origin in ("other", "front", "back", "host", "ext"):
            assert stage.vantage(origin).reaches(server, LAN[family], 8200), origin


def test_a_steady_sender_is_led_anew(stage: Stage, family: int) -> None:
    """Its flow was made before the workload came to its network: the answer would leave by another link from now on."""
    machine, sender = stage.machine, stage.vantage("other")
    publish = [{"proto": "udp", "host_first": 8201, "port": WEB}]
    with machine.workload("front", "late", publish=publish) as late:
        server = late.ns.listen("udp", ANY[family], WEB)
        sender("stream_start", name="steady", address=LAN[family], port=8201, interval=0.005)
        try:
            eventually(lambda: stage.clients["other"].address(family) in senders(server))
            late.attach("other", name="late-other")
            eventually(
                lambda: OTHER[family] in senders(server), what="by the address on the sender's network"
            )
            late.detach("other")
            server.peers(clear=True)
            eventually(lambda: stage.clients["other"].address(family) in senders(server))
        finally:
            sender("stream_stop", name="steady")


def senders(server: Server) -> set[str]:
    return {peer for peer, _, _ in server.peers()}
