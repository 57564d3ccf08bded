"""Published ports asked in a family that the workload lacks: `-p 8080:80` on a network of IPv4 alone answers at ::1 and at
the host's IPv6 addresses, as Docker's docker-proxy does; and the other way round."""

from collections.abc import Iterator
from typing import Any

import pytest

from harness.audit import audit
from harness.explained import Explained
from harness.host import EXT4, EXT6, Host, Lan, Workload
from harness.netns import Netns, eventually
from harness.scene import ANY
from sealane.explain.packet import Packet
from sealane.kernel.state import HOST

pytestmark = pytest.mark.kernel

NUMBER = 14
WEB = 80
LAN = {4: "192.0.2.24", 6: "2001:db8::24"}
EXT = {4: EXT4, 6: EXT6}
LOOPBACK = {4: "127.0.0.1", 6: "::1"}
PREFIX = {4: "10.83.0.0/24", 6: "fd83::/64"}
GATEWAY = {4: "10.83.0.1", 6: "fd83::1"}
DUAL = {4: "10.84.0.1", 6: "fd84::1"}
VAULT = {4: "10.85.0.1", 6: "fd85::1"}
PUBLISH: list[dict[str, Any]] = [
    {"proto": "tcp", "host_first": 8080, "port": WEB},
    {"proto": "udp", "host_first": 8080, "port": WEB},
    {"proto": "tcp", "host_address": "0.0.0.0", "host_first": 8081, "port": WEB},
    {"proto": "tcp", "host_address": "::", "host_first": 8082, "port": WEB},
    {"proto": "tcp", "host_first": 9000, "port": WEB - 1, "count": 2},
]


class Stage:
    """`web` has one family; `dual` and `vault` have both."""

    def __init__(self, lan: Lan, driver: str, own: int) -> None:
        self.lan, self.own, self.other = lan, own, 6 if own == 4 else 4
        self.machine = Host(lan, number=NUMBER).start()
        api = self.machine.api
        api.network("one", PREFIX[own], driver=driver)
        api.network("dual", "10.84.0.0/24", "fd84::/64")
        api.network("vault", "10.85.0.0/24", "fd85::/64", internal=True)
        self.web = Workload(self.machine, "web")
        loopback = {"proto": "tcp", "host_address": LOOPBACK[6], "host_first": 8083, "port": WEB}
        self.web.attach("one", publish=[*PUBLISH, loopback])
        self.clients = {name: Workload(self.machine, f"by-{name}") for name in ("dual", "vault")}
        for name, client in self.clients.items():
            client.attach(name)
        self.servers = {proto: self.web.ns.listen(proto, ANY[own], WEB) for proto in ("tcp", "udp")}

    def vantage(self, name: str) -> Netns:
        places = {"ext": self.lan.ext, "host": self.machine.ns, "self": self.web.ns}
        return places.get(name) or self.clients[name].ns

    def asked(self, origin: str, proto: str, address: str, port: int = 8080) -> str:
        """The address that the server sees; empty: there is no answer from where it was asked."""
        answer = self.vantage(origin).probe(proto, address, port, timeout=1.0).get("answer", "")
        words = str(answer).split()
        return words[1] if words and words[0] == self.servers[proto].token else ""

    def close(self) -> None:
        for workload in (self.web, *self.clients.values()):
            workload.close()
        for network in ("one", "dual", "vault"):
            self.machine.api.remove_network(network)
        findings = audit(self.machine)
        self.machine.close()
        assert findings == []


@pytest.fixture(
    scope="module", params=[("bridge", 4), ("routed", 4), ("bridge", 6)], ids=["v4", "v4-routed", "v6"]
)
def stage(request: pytest.FixtureRequest, lan: Lan) -> Iterator[Stage]:
    made = Stage(lan, *request.param)
    yield made
    made.close()


@pytest.mark.parametrize("proto", ["tcp", "udp"])
def test_it_is_answered_in_the_other_family(stage: Stage, proto: str) -> None:
    """From outside, from the host, from another network. Who asks does not come through: the host's address does."""
    for origin in ("ext", "host", "dual"):
        assert stage.asked(origin, proto, LAN[stage.other]) == GATEWAY[stage.own], origin


@pytest.mark.parametrize("proto", ["tcp", "udp"])
def test_and_on_the_hosts_own_loopback(stage: Stage, proto: str) -> None:
    assert stage.asked("host", proto, LOOPBACK[stage.other]) == GATEWAY[stage.own]
    assert stage.asked("host", proto, LOOPBACK[stage.own]) == GATEWAY[stage.own]


@pytest.mark.parametrize("proto", ["tcp", "udp"])
def test_in_its_own_family_it_is_as_ever(stage: Stage, proto: str) -> None:
    assert stage.asked("ext", proto, LAN[stage.own]) == EXT[stage.own]
    assert stage.asked("dual", proto, LAN[stage.own]) == stage.clients["dual"].address(stage.own)


def test_one_family_is_not_both(stage: Stage) -> None:
    for family, port in ((4, 8081), (6, 8082)):
        assert stage.asked("ext", "tcp", LAN[family], port), family
        assert not stage.asked("ext", "tcp", LAN[6 if family == 4 else 4], port), family


def test_a_range_keeps_its_order(stage: Stage) -> None:
    assert stage.asked("ext", "tcp", LAN[stage.other], 9001)
    assert not stage.asked("ext", "tcp", LAN[stage.other], 9000), "nobody listens behind it"
    assert not stage.asked("ext", "tcp", LAN[stage.other], 9002)


def test_the_loopback_alone_is_the_hosts_alone(stage: Stage) -> None:
    assert stage.asked("host", "tcp", LOOPBACK[6], 8083)
    for origin in ("ext", "host", "dual"):
        assert not stage.asked(origin, "tcp", LAN[6], 8083), origin


@pytest.mark.parametrize("proto", ["tcp", "udp"])
def test_an_internal_networks_workload_does_not_get_out_by_it(stage: Stage, proto: str) -> None:
    """By no address of the host that it has a way to, not even a link-local one. (That who may leave is let in by the
    same kind of address is the control.)"""
    for family in (4, 6):
        assert not stage.asked("vault", proto, VAULT[family]), family
        assert stage.asked("dual", proto, DUAL[family]), family
    vault = stage.clients["vault"]
    assert not stage.asked("vault", proto, f"{link_local(stage, VAULT[6])}%{vault.ifname}")


def link_local(stage: Stage, gateway: str) -> str:
    """Of the link that has the gateway's address."""
    links = stage.machine.ns.json("ip", "-6", "addr", "show")
    (there,) = [link for link in links if gateway in {a.get("local") for a in link.get("addr_info", [])}]
    return next(str(a["local"]) for a in there["addr_info"] if a["scope"] == "link")


def test_an_answer_comes_from_the_address_that_was_asked(stage: Stage) -> None:
    """A datagram's, too, on a host with several."""
    second = {4: "192.0.2.124/24", 6: "2001:db8::124/64"}[stage.other]
    nodad = ("nodad",) if stage.other == 6 else ()
    stage.machine.ns.ip("addr", "add", second, "dev", "eth0", *nodad)
    try:
        for proto in ("tcp", "udp"):
            assert stage.asked("ext", proto, second.partition("/")[0]) == GATEWAY[stage.own]
    finally:
        stage.machine.ns.ip("addr", "del", second, "dev", "eth0")


@pytest.mark.parametrize("origin", ["ext", "host", "dual", "vault"])
def test_explain_says_so(stage: Stage, origin: str) -> None:
    oracle = Explained(stage.machine)
    start = oracle.sandbox(stage.vantage(origin).inode) if origin in stage.clients else origin
    addresses = {"host": [LAN[stage.other], LOOPBACK[stage.other]], "vault": [VAULT[stage.other]]}
    for address in addresses.get(origin, [LAN[stage.other]]):
        source = EXT[stage.other] if origin == "ext" else ""
        packet = Packet(source=source, source_port=40000, destination=address, destination_port=8080)
        there, _ = oracle.talk(start, packet)
        reached = oracle.reached(start, packet)
        seen = stage.asked(origin, "tcp", address)
        assert (reached[1].source if reached else "") == seen, there.reason
        if origin == "vault":
            assert "whose relay refuses workloads of internal networks" in there.reason
        elif there.netns == HOST:
            target = f"[{stage.web.v6}]:80" if stage.own == 6 else f"{stage.web.v4}:80"
            assert f"whose relay takes it on to {target}" in there.reason


def test_two_families_as_users_write_them_are_one_publish(stage: Stage) -> None:
    desired = [{"host_first": 8300, "port": WEB}, {"host_address": "::", "host_first": 8300, "port": WEB}]
    with stage.machine.workload("one", "late", publish=desired) as late:
        assert late.endpoints["one"]["ports"] == ["*:8300->80/tcp"]
        server = late.ns.listen("tcp", ANY[stage.own], WEB)
        for family in (4, 6):
            assert stage.lan.ext.reaches(server, LAN[family], 8300)
            assert stage.machine.ns.reaches(server, LOOPBACK[family], 8300)
    assert "refused" in refusal(stage, 8300)


def refusal(stage: Stage, port: int) -> str:
    return str(stage.lan.ext.probe("tcp", LAN[stage.other], port, timeout=1.0).get("error", "")).lower()


def test_the_next_may_have_the_port_and_its_other_half(stage: Stage) -> None:
    """What our own relay listens at is in nobody's way; what the intent holds is."""
    halves = {family: [{"host_address": ANY[family], "host_first": 8301, "port": WEB}] for family in (4, 6)}
    with (
        stage.machine.workload("one", "first", publish=halves[stage.other]) as first,
        stage.machine.workload("one", "second", publish=halves[stage.own]) as second,
    ):
        servers = {
            stage.other: first.ns.listen("tcp", ANY[stage.own], WEB),
            stage.own: second.ns.listen("tcp", ANY[stage.own], WEB),
        }
        for family, server in servers.items():
            assert stage.lan.ext.reaches(server, LAN[family], 8301), family
    with stage.machine.workload("one", "third", publish=halves[stage.other]) as third:
        server = third.ns.listen("tcp", ANY[stage.own], WEB)
        assert stage.lan.ext.reaches(server, LAN[stage.other], 8301)


def test_a_new_daemon_listens_again(stage: Stage) -> None:
    stage.machine.restart()
    eventually(lambda: stage.asked("ext", "tcp", LAN[stage.other]), 10.0, "the relay is back")
    assert stage.asked("ext", "udp", LAN[stage.other])
    assert stage.machine.api.audit() == []
