"""Published ports: every form, from every vantage point; conflicts; and flows that outlive what they were made for."""

from collections.abc import Iterator
from typing import Any

import pytest

from harness import frames
from harness.api import ApiError
from harness.audit import audit
from harness.host import EXT4, EXT6, Host, Lan, Workload
from harness.netns import Netns, eventually
from harness.patience import pause
from harness.scene import ANY, BareScene

pytestmark = pytest.mark.kernel

EXT = {4: EXT4, 6: EXT6}
LOOPBACK = {4: "127.0.0.1", 6: "::1"}
NUMBER = 5
LAN4, LAN6 = "192.0.2.15", "2001:db8::15"

WEB, RANGE = 80, range(9000, 9005)
PUBLISH: list[dict[str, Any]] = [
    {"proto": "tcp", "host_first": 8080, "port": WEB},
    {"proto": "udp", "host_first": 8080, "port": WEB},
    {"proto": "tcp", "host_first": 9000, "port": 9000, "count": 5},
    {"proto": "udp", "host_first": 9000, "port": 9000, "count": 5},
    {"proto": "tcp", "host_first": 9100, "host_last": 9104, "port": 9000},
    {"proto": "tcp", "host_address": LAN4, "host_first": 8090, "port": WEB},
    {"proto": "tcp", "host_address": LAN6, "host_first": 8091, "port": WEB},
    {"proto": "tcp", "host_address": "127.0.0.1", "host_first": 8092, "port": WEB},
    {"proto": "udp", "host_address": "127.0.0.1", "host_first": 8092, "port": WEB},
    {"proto": "tcp", "host_address": "::1", "host_first": 8093, "port": WEB},
    {"proto": "sctp", "host_first": 8094, "port": WEB},
    {"proto": "tcp", "port": WEB},
    {"proto": "tcp", "host_first": 9200, "host_last": 9209, "one_of": True, "port": WEB},
]


class Stage:
    def __init__(self, lan: Lan, driver: str) -> None:
        self.lan = lan
        self.machine = Host(lan, number=NUMBER).start()
        api = self.machine.api
        api.network("pub", "10.72.0.0/24", "fd72::/64", driver=driver)
        api.network("other", "10.73.0.0/24", "fd73::/64")
        self.web = Workload(self.machine, "web")
        self.endpoint = self.web.attach("pub", publish=PUBLISH)
        self.sibling, self.stranger = Workload(self.machine, "sibling"), Workload(self.machine, "stranger")
        self.sibling.attach("pub")
        self.stranger.attach("other")
        self.servers = {
            (proto, family, port): self.web.ns.listen(proto, ANY[family], port)
            for proto in ("tcp", "udp")
            for family in (4, 6)
            for port in (WEB, *RANGE)
        }

    def vantage(self, name: str) -> Netns:
        places = {"ext": self.lan.ext, "host": self.machine.ns}
        return (
            places.get(name)
            or {"sibling": self.sibling, "stranger": self.stranger, "self": self.web}[name].ns
        )

    def reach(self, origin: str, proto: str, address: str, port: int, inner: int = WEB) -> bool:
        family = 6 if ":" in address else 4
        return self.vantage(origin).reaches(self.servers[proto, family, inner], address, port)

    def close(self) -> None:
        for workload in (self.web, self.sibling, self.stranger):
            workload.close()
        for network in ("pub", "other"):
            self.machine.api.remove_network(network)
        findings = audit(self.machine)
        self.machine.close()
        assert findings == []


@pytest.fixture(scope="module", params=["bridge", "routed"])
def stage(request: pytest.FixtureRequest, lan: Lan) -> Iterator[Stage]:
    made = Stage(lan, request.param)
    yield made
    made.close()


def lan_address(family: int) -> str:
    return LAN4 if family == 4 else LAN6


@pytest.mark.parametrize("proto", ["tcp", "udp"])
def test_a_port_is_reached_from_everywhere(stage: Stage, proto: str, family: int) -> None:
    """From outside, from the host, from its own network, from another one, from itself."""
    for origin in ("ext", "host", "sibling", "stranger", "self"):
        assert stage.reach(origin, proto, lan_address(family), 8080), origin


@pytest.mark.parametrize("proto", ["tcp", "udp"])
def test_the_host_reaches_it_on_its_loopback(stage: Stage, proto: str, family: int) -> None:
    assert stage.reach("host", proto, LOOPBACK[family], 8080)
    assert stage.reach("host", proto, LOOPBACK[family], 9003, 9003)


def test_loopback_clients_do_not_appear_as_loopback(stage: Stage, family: int) -> None:
    """CVE-2021-20199: software inside takes 127.0.0.1 for itself."""
    answer = stage.machine.ns.probe("tcp", LOOPBACK[family], 8080)["answer"]
    peer = answer.split()[1]
    assert not peer.startswith("127."), answer
    assert peer != "::1", answer


@pytest.mark.parametrize("proto", ["tcp", "udp"])
def test_ranges_keep_their_order(stage: Stage, proto: str, family: int) -> None:
    for port in RANGE:
        assert stage.reach("ext", proto, lan_address(family), port, port), port
    assert not stage.reach("ext", proto, lan_address(family), RANGE[-1] + 1, RANGE[-1])


def test_shifted_ranges_keep_their_order(stage: Stage, family: int) -> None:
    for port in RANGE:
        assert stage.reach("ext", "tcp", lan_address(family), port + 100, port), port


def test_a_host_address_is_the_only_one(stage: Stage) -> None:
    assert stage.reach("ext", "tcp", LAN4, 8090)
    assert not stage.reach("ext", "tcp", LAN6, 8090)
    assert not stage.reach("host", "tcp", "127.0.0.1", 8090)
    assert stage.reach("ext", "tcp", LAN6, 8091)
    assert not stage.reach("ext", "tcp", LAN4, 8091)
    assert not stage.reach("host", "tcp", "::1", 8091)


def test_loopback_ports_are_the_hosts_alone(stage: Stage) -> None:
    """Published on 127.0.0.1 or ::1: reached there by the host, by nobody else and nowhere else."""
    assert stage.reach("host", "tcp", "127.0.0.1", 8092)
    assert stage.reach("host", "udp", "127.0.0.1", 8092)
    assert stage.reach("host", "tcp", "::1", 8093)
    assert not stage.reach("host", "tcp", "::1", 8092)
    for origin in ("ext", "sibling", "stranger", "host"):
        for address, port in ((LAN4, 8092), (LAN6, 8093)):
            assert not stage.reach(origin, "tcp", address, port), (origin, address)


def chosen(endpoint: dict[str, Any], low: int, high: int) -> list[int]:
    """Host ports that the engine chose, from `*:49153->80/tcp`."""
    ports = [int(text.rpartition("->")[0].rpartition(":")[2].partition("-")[0]) for text in endpoint["ports"]]
    return [port for port in ports if low <= port <= high]


def test_an_ephemeral_port_is_chosen_and_told(stage: Stage, family: int) -> None:
    ports = chosen(stage.endpoint, 32768, 60999)
    assert len(ports) == 1
    assert stage.reach("ext", "tcp", lan_address(family), ports[0])


def test_one_of_a_range_is_chosen(stage: Stage, family: int) -> None:
    ports = chosen(stage.endpoint, 9200, 9209)
    assert len(ports) == 1
    assert stage.reach("ext", "tcp", lan_address(family), ports[0])


def test_sctp_is_translated(stage: Stage, family: int) -> None:
    """An INIT arrives at the workload's port. (This kernel has no SCTP sockets that could answer.)"""
    machine_mac = str(stage.machine.ns.json("ip", "link", "show", "eth0")[0]["address"])
    ext_mac = str(stage.lan.ext.json("ip", "link", "show", "eth0")[0]["address"])
    init = frames.sctp_init(ext_mac, machine_mac, EXT[family], lan_address(family), 8094)
    with stage.web.ns.sniff(stage.web.ifname) as arrived:
        stage.lan.ext("frames", ifname="eth0", raw=[init])
        pause(0.05)
    offset, proto = (34, 23) if family == 4 else (54, 20)
    ports = [int.from_bytes(f[offset + 2 : offset + 4], "big") for f in arrived if f[proto] == 132]
    assert ports == [WEB]


# --- conflicts ------------------------------------------------------------------------------------------------------


def unchanged(stage: Stage) -> tuple[Any, ...]:
    status = stage.machine.api.status()
    return status["revision"], status["writes"], status["endpoints"], status["sandboxes"]


@pytest.mark.parametrize(
    "desired",
    [
        {"proto": "tcp", "host_first": 8080, "port": 1},
        {"proto": "tcp", "host_address": LAN4, "host_first": 8080, "port": 1},
        {"proto": "tcp", "host_address": "127.0.0.1", "host_first": 8080, "port": 1},
        {"proto": "tcp", "host_first": 8090, "port": 1},
        {"proto": "udp", "host_first": 8998, "port": 1, "count": 3},
        {"proto": "tcp", "host_first": 9102, "port": 1},
    ],
)
def test_a_port_that_is_taken_is_refused_by_name(stage: Stage, desired: dict[str, Any]) -> None:
    """Before anything changes: the error names the holder."""
    before = unchanged(stage)
    with Netns("late") as late, pytest.raises(ApiError) as refusal:
        stage.machine.api.attach(late.path, "other", name="late", publish=[desired])
    assert refusal.value.code in {"conflict", "in_use"}
    assert "web" in refusal.value.message, refusal.value.message
    assert unchanged(stage) == before
    assert audit(stage.machine) == []


@pytest.mark.parametrize("proto", ["tcp", "udp"])
def test_a_port_of_a_process_on_the_host_is_refused(stage: Stage, proto: str) -> None:
    before = unchanged(stage)
    server = stage.machine.ns.listen(proto, "0.0.0.0", 8300)
    try:
        publish = [{"proto": proto, "host_first": 8300, "port": 1}]
        with Netns("late") as late, pytest.raises(ApiError) as refusal:
            stage.machine.api.attach(late.path, "other", name="late", publish=publish)
    finally:
        server.close()
    assert refusal.value.code in {"conflict", "in_use"}
    assert "8300" in refusal.value.message
    assert unchanged(stage) == before


@pytest.mark.parametrize("address", ["192.0.2.200", "2001:db8::200", "10.72.0.77"])
def test_an_address_that_is_not_the_hosts_is_refused(stage: Stage, address: str) -> None:
    publish = [{"proto": "tcp", "host_address": address, "host_first": 8400, "port": WEB}]
    with Netns("late") as late:
        with pytest.raises(ApiError) as refusal:
            stage.machine.api.attach(late.path, "other", name="late", publish=publish)
        assert (refusal.value.code, refusal.value.field) == ("invalid", "publish[0].host_address")
        assert f"{address} is no address of this host" in refusal.value.message


@pytest.mark.parametrize("address", ["192.0.2.215", "2001:db8::215"])
def test_an_address_that_has_only_just_come_is_the_hosts(stage: Stage, address: str) -> None:
    """One of IPv6 cannot be listened at for a second, until nobody else has claimed it."""
    link = stage.machine.ns.json("ip", "route", "get", "192.0.2.1")[0]["dev"]
    prefix = f"{address}/{64 if ':' in address else 24}"
    stage.machine.ns.ip("address", "add", prefix, "dev", link)
    try:
        publish = [{"proto": "tcp", "host_address": address, "host_first": 8400, "port": WEB}]
        with stage.machine.workload("pub", "late", publish=publish) as late:
            server = late.ns.listen("tcp", ANY[6 if ":" in address else 4], WEB)
            eventually(lambda: stage.lan.ext.reaches(server, address, 8400), 10, what="the new address")
    finally:
        stage.machine.ns.ip("address", "del", prefix, "dev", link)


def test_an_address_that_may_be_bound_before_it_comes_is_taken(stage: Stage) -> None:
    """As where a second machine has it until it fails."""
    name = "net/ipv4/ip_nonlocal_bind"
    before = stage.machine.ns.sysctl(name)
    stage.machine.ns.sysctl(name, "1")
    try:
        publish = [{"proto": "tcp", "host_address": "192.0.2.201", "host_first": 8400, "port": WEB}]
        with stage.machine.workload("other", "floating", publish=publish) as floating:
            assert floating.endpoints["other"]["ports"] == ["192.0.2.201:8400->80/tcp"]
    finally:
        stage.machine.ns.sysctl(name, before)


def test_the_same_number_of_another_protocol_or_address_is_free(stage: Stage) -> None:
    publish = [
        {"proto": "udp", "host_first": 8092, "host_address": LAN4, "port": WEB},
        {"proto": "udp", "host_first": 9104, "port": WEB},
    ]
    with stage.machine.workload("other", "second", publish=publish) as second:
        server = second.ns.listen("udp", "0.0.0.0", WEB)
        assert stage.lan.ext.reaches(server, LAN4, 8092)
        assert stage.lan.ext.reaches(server, LAN4, 9104)
        assert stage.reach("host", "udp", "127.0.0.1", 8092), (
            "the loopback publish of the same number is web's"
        )


@pytest.mark.parametrize(
    "numbers", [{"host_first": 53, "port": 53}, {"host_first": 50, "port": 50, "count": 9}]
)
def test_a_published_name_server_takes_nobodys_names_away(
    stage: Stage, numbers: dict[str, int], family: int
) -> None:
    """`-p 53:53`: at the host's addresses it answers, at the gateways' who knows the workloads' names."""
    publish = [{"proto": proto, **numbers} for proto in ("tcp", "udp")]
    with stage.machine.workload("other", "pihole", publish=publish) as pihole:
        assert audit(stage.machine) == []
        for proto in ("tcp", "udp"):
            server = pihole.ns.listen(proto, ANY[family], 53)
            for origin in ("ext", "host", "sibling", "stranger"):
                assert stage.vantage(origin).reaches(server, lan_address(family), 53), (origin, proto)
            for asker, gateway, name, address in (
                (stage.sibling, {4: "10.72.0.1", 6: "fd72::1"}, "web", stage.web),
                (stage.stranger, {4: "10.73.0.1", 6: "fd73::1"}, "pihole", pihole),
                (pihole, {4: "10.73.0.1", 6: "fd73::1"}, "stranger", stage.stranger),
            ):
                question = (asker, gateway[family], name, family)
                meant = [address.v4 if family == 4 else address.v6]
                eventually(
                    lambda q=question, tcp=proto == "tcp", meant=meant: asked(*q, tcp=tcp) == meant,
                    what=f"{name} over {proto}",
                )
            server.close()


def asked(asker: Workload, server: str, name: str, family: int, *, tcp: bool) -> list[str]:
    words = ["+tcp" if tcp else "+notcp", "+short", "+time=2", "+tries=2", f"@{server}"]
    return asker.ns.sh("dig", *words, name, "A" if family == 4 else "AAAA").split()


# --- flows that outlive their publish (B11) -------------------------------------------------------------------------

PINNED, INNER_ONE, INNER_TWO = 9300, 5300, 5400


def foreign_packets(server: Any) -> list[str]:
    return [payload for _, _, payload in server.peers() if payload.startswith("flow")]


def test_a_bare_translation_stays_pinned(lan: Lan) -> None:
    """The control: a steady UDP sender keeps the old backend for as long as it sends, whatever the rules say now."""
    scene = BareScene(lan, forwarding=True)
    rule = "table ip naive {{ chain here {{ type nat hook prerouting priority -100; udp dport 9300 dnat to {}:7000; }}; }}\n"
    old, new = scene.b.ns.listen("udp", "0.0.0.0", 7000), scene.c.ns.listen("udp", "0.0.0.0", 7000)
    try:
        scene.host.sh("nft", "-f", "-", text=rule.format(scene.b.v4))
        scene.ext("stream_start", name="flow", address=scene.host_address(4), port=PINNED, interval=0.002)
        eventually(lambda: foreign_packets(old))
        scene.host.sh("nft", "-f", "-", text="flush ruleset\n" + rule.format(scene.c.v4))
        pause(0.2)
        assert foreign_packets(new) == []
    finally:
        scene.ext("stream_stop", name="flow")
        scene.close()


def publish_pinned(inner: int) -> list[dict[str, Any]]:
    return [{"proto": "udp", "host_first": PINNED, "port": inner}]


@pytest.fixture
def flow(stage: Stage, family: int) -> Iterator[None]:
    """A one-way sender that never stops, from one port, which has already been refused: its flow is tracked."""
    stage.lan.ext("stream_start", name="flow", address=lan_address(family), port=PINNED, interval=0.001)
    pause(0.05)
    yield
    stage.lan.ext("stream_stop", name="flow")


@pytest.mark.usefixtures("flow")
def test_a_flow_from_before_the_publish_arrives(stage: Stage, family: int) -> None:
    with stage.machine.workload("pub", "one", publish=publish_pinned(INNER_ONE)) as one:
        server = one.ns.listen("udp", ANY[family], INNER_ONE)
        eventually(lambda: foreign_packets(server), what="the steady sender reaches the new publish")


@pytest.mark.usefixtures("flow")
def test_a_flow_follows_its_publish_to_the_next_endpoint(stage: Stage, family: int) -> None:
    """moby#53384: the host's port and the container's differ, and entries are known by the former only."""
    with stage.machine.workload("pub", "one", publish=publish_pinned(INNER_ONE)) as one:
        first = one.ns.listen("udp", ANY[family], INNER_ONE)
        eventually(lambda: foreign_packets(first))
        one.detach("pub")
        with stage.machine.workload("pub", "two", publish=publish_pinned(INNER_TWO)) as two:
            second = two.ns.listen("udp", ANY[family], INNER_TWO)
            eventually(lambda: foreign_packets(second), what="the sender reaches the second endpoint")
            count = len(foreign_packets(first))
            pause(0.1)
            assert len(foreign_packets(first)) == count


@pytest.mark.usefixtures("flow")
def test_an_address_is_inherited_without_its_flows(stage: Stage, family: int) -> None:
    """The next owner of the address, listening at the same port, publishes nothing and gets nothing."""
    with stage.machine.workload("pub", "one", publish=publish_pinned(INNER_ONE)) as one:
        first = one.ns.listen("udp", ANY[family], INNER_ONE)
        eventually(lambda: foreign_packets(first))
        addresses = [one.v4, one.v6]
        one.detach("pub")
        with stage.machine.workload("pub", "heir", addresses=addresses) as heir:
            second = heir.ns.listen("udp", ANY[family], INNER_ONE)
            eventually(lambda: stage.sibling.ns.reaches(second, heir.address(family), timeout=0.1), 4.0)
            pause(0.2)
            assert foreign_packets(second) == []
            assert audit(stage.machine) == []


def test_an_inherited_address_is_reached_at_once(stage: Stage, family: int) -> None:
    """By those, too, who had spoken with the previous owner and remember its MAC (kernels believe no change for a
    second after the last confirmation; without being told they would ask anew after five more and three probes)."""
    with stage.machine.workload("pub", "one") as one:
        first = one.ns.listen("udp", ANY[family], INNER_ONE)
        eventually(lambda: stage.sibling.ns.reaches(first, one.address(family), timeout=0.1))
        addresses = [one.v4, one.v6]
        one.detach("pub")
        with stage.machine.workload("pub", "heir", addresses=addresses) as heir:
            second = heir.ns.listen("udp", ANY[family], INNER_ONE)
            eventually(lambda: stage.sibling.ns.reaches(second, heir.address(family), timeout=0.1), 4.0)
