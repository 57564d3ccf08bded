"""Who reaches whom: every network of every kind, both families, TCP and UDP, by every path."""

from collections.abc import Iterator
from typing import Any

import pytest

from harness.audit import audit
from harness.host import EXT4, EXT6, Host, Lan, Workload
from harness.netns import Netns, Server
from harness.patience import pause
from harness.scene import ANY

pytestmark = pytest.mark.kernel

PORT = 7000
EXT = {4: EXT4, 6: EXT6}
NO_ANSWER_S = 0.4

NETWORKS: dict[str, dict[str, Any]] = {
    "red": {},
    "blue": {},
    "green": {"driver": "routed"},
    "vault": {"internal": True},
    "vault-routed": {"internal": True, "driver": "routed"},
    "quiet": {"options": {"icc": "false"}},
    "quiet-routed": {"options": {"icc": "false"}, "driver": "routed"},
}
PUBLISHED = {"blue-1": 8200, "green-1": 8201, "quiet-1": 8202, "quiet-routed-1": 8203}


class City:
    """Two workloads on each network, a server in each, and one outside and on the host."""

    def __init__(self, lan: Lan) -> None:
        self.machine = Host(lan, number=6).start()
        self.workloads: dict[str, Workload] = {}
        for index, (network, fields) in enumerate(NETWORKS.items()):
            self.machine.api.network(network, f"10.70.{index}.0/24", f"fd70:{index:x}::/64", **fields)
            for number in (1, 2):
                self._add(network, f"{network}-{number}")
        self.machine.api.network("wide", "10.71.0.0/24", "fd71::/64")
        both = self._add("wide", "both")
        both.attach("red", name="both-red")
        self.servers: dict[tuple[str, str, int], Server] = {}
        for name, ns in self.places().items():
            for proto in ("tcp", "udp"):
                for family in (4, 6):
                    self.servers[name, proto, family] = ns.listen(proto, ANY[family], PORT)

    def _add(self, network: str, name: str) -> Workload:
        workload = Workload(self.machine, name)
        publish = [
            {"proto": p, "host_first": PUBLISHED[name], "port": PORT}
            for p in ("tcp", "udp")
            if name in PUBLISHED
        ]
        workload.attach(network, name=name, publish=publish)
        self.workloads[name] = workload
        return workload

    def places(self) -> dict[str, Netns]:
        found = {name: workload.ns for name, workload in self.workloads.items()}
        return {
            **found,
            "host": self.machine.ns,
            "ext": self.machine.lan.ext if self.machine.lan else self.machine.ns,
        }

    def reached(
        self, origin: str, proto: str, targets: dict[str, tuple[str, int]], owner: dict[str, str]
    ) -> set[str]:
        """Which targets answer, with the token of the server that should."""
        names = list(targets)
        desired = [
            {"proto": proto, "address": targets[n][0], "port": targets[n][1], "timeout": NO_ANSWER_S}
            for n in names
        ]
        results = self.places()[origin]("probes", desired=desired)
        found = set()
        for name, result in zip(names, results, strict=True):
            family = 6 if ":" in targets[name][0] else 4
            token = self.servers[owner[name], proto, family].token
            answer = result.get("answer", "")
            assert not answer or answer.startswith(token + " "), (
                f"{origin} → {name}: somebody else answers: {answer}"
            )
            if answer:
                found.add(name)
        return found

    def close(self) -> None:
        for workload in self.workloads.values():
            workload.close()
        for network in (*NETWORKS, "wide"):
            self.machine.api.remove_network(network)
        findings = audit(self.machine)
        self.machine.close()
        assert findings == []


@pytest.fixture(scope="module")
def city(lan: Lan) -> Iterator[City]:
    made = City(lan)
    yield made
    made.close()


@pytest.fixture(params=["tcp", "udp"])
def proto(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def network_of(name: str) -> str:
    return name.rpartition("-")[0]


def test_only_one_networks_members_reach_each_other_directly(city: City, proto: str, family: int) -> None:
    """By their own addresses: within a network all do, except with icc off; between networks nobody does."""
    singles = {n: w for n, w in city.workloads.items() if n != "both"}
    targets = {name: (w.address(family), PORT) for name, w in singles.items()}
    for origin in singles:
        others = {name: target for name, target in targets.items() if name != origin}
        expected = {n for n in others if network_of(n) == network_of(origin) and not n.startswith("quiet")}
        assert city.reached(origin, proto, others, {n: n for n in others}) == expected, origin


def test_a_workload_on_two_networks_is_reached_on_each_and_joins_neither(
    city: City, proto: str, family: int
) -> None:
    both = city.workloads["both"]
    targets = {network: (both.address(family, network), PORT) for network in ("wide", "red")}
    owners = dict.fromkeys(targets, "both")
    assert city.reached("red-1", proto, targets, owners) == {"red"}
    assert city.reached("blue-1", proto, targets, owners) == set()
    assert city.reached(
        "both", proto, {"red-1": (city.workloads["red-1"].address(family), PORT)}, {"red-1": "red-1"}
    ) == {"red-1"}


def test_nobody_outside_reaches_a_workload_directly(city: City, proto: str, family: int) -> None:
    """Not even a neighbour with a route through the host."""
    targets = {name: (w.address(family), PORT) for name, w in city.workloads.items()}
    prefix, via = (
        ("10.64.0.0/10", city.machine.address(4)) if family == 4 else ("fd70::/12", city.machine.address(6))
    )
    ext = city.places()["ext"]
    ext.ip("route", "add", prefix, "via", via)
    try:
        assert city.reached("ext", proto, targets, {n: n for n in targets}) == set()
    finally:
        ext.ip("route", "del", prefix)


def test_the_host_reaches_its_workloads(city: City, proto: str, family: int) -> None:
    targets = {n: (w.address(family), PORT) for n, w in city.workloads.items() if not n.startswith("vault")}
    assert city.reached("host", proto, targets, {n: n for n in targets}) == set(targets)


def test_workloads_leave_except_from_internal_networks(city: City, proto: str, family: int) -> None:
    """Under the host's address."""
    target, owner = {"ext": (EXT[family], PORT)}, {"ext": "ext"}
    city.servers["ext", proto, family].peers(clear=True)
    for origin in city.workloads:
        expected = set() if origin.startswith("vault") else {"ext"}
        assert city.reached(origin, proto, target, owner) == expected, origin
    peers = {peer for peer, _, _ in city.servers["ext", proto, family].peers()}
    assert peers == {city.machine.address(family)}


def test_published_ports_are_reached_from_everywhere_but_internal_networks(
    city: City, proto: str, family: int
) -> None:
    """By the host's address: from outside, from the host, from other networks, from the same one (hairpin; with icc
    off too), from the publishing workload itself."""
    targets = {name: (city.machine.address(family), port) for name, port in PUBLISHED.items()}
    owners = {name: name for name in targets}
    origins = [*city.workloads, "host", "ext"]
    found = {origin: city.reached(origin, proto, targets, owners) for origin in origins}
    assert found == {origin: set() if origin.startswith("vault") else set(targets) for origin in origins}


def test_published_ports_are_not_reached_by_the_workloads_address_from_another_network(
    city: City, proto: str, family: int
) -> None:
    """Publishing opens a host port, not the endpoint's own."""
    targets = {name: (city.workloads[name].address(family), PORT) for name in PUBLISHED}
    assert city.reached("red-1", proto, targets, {n: n for n in targets}) == set()
    assert city.reached("ext", proto, targets, {n: n for n in targets}) == set()


def test_sources_are_kept(city: City, family: int) -> None:
    """B7: what a published port sees: the client outside, the workload on another network; of its own network, and of
    the host, an address of the host's, never 127.0.0.1."""
    blue = city.workloads["blue-1"]
    seen = {}
    for origin in ("ext", "red-1", "blue-2", "host"):
        answer = city.places()[origin].probe("tcp", city.machine.address(family), PUBLISHED["blue-1"])[
            "answer"
        ]
        seen[origin] = answer.split()[1]
    gateway = blue.endpoints["blue"]["gateways"][0 if family == 4 else -1]
    assert seen["ext"] == EXT[family]
    assert seen["red-1"] == city.workloads["red-1"].address(family)
    assert seen["blue-2"] == gateway
    assert seen["host"] in {gateway, city.machine.address(family)}


def test_established_connections_do_not_open_the_way_back(city: City, family: int) -> None:
    """A workload that has spoken to a published port of another network is still not reached from there."""
    red, blue = city.workloads["red-1"], city.workloads["blue-1"]
    source_port = 45000 + family
    answer = red.ns.probe("udp", city.machine.address(family), PUBLISHED["blue-1"], source_port=source_port)
    assert "answer" in answer
    spy = red.ns.listen("udp", ANY[family], source_port + 10)
    sent = blue.ns.probe(
        "udp", red.address(family), source_port + 10, source_port=PORT + 1, timeout=NO_ANSWER_S
    )
    assert "error" in sent
    assert spy.peers() == []


TOO_BIG = """
import socket, struct

def checksum(data):
    total = sum(struct.unpack(f"!{{len(data) // 2}}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF

asker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
asker.settimeout(1)
asker.connect(({address!r}, {port}))
asker.send(b"x")
asker.recv(100)
here, number = asker.getsockname()
ends = socket.inet_aton({about!r}) + socket.inet_aton(here)
about = struct.pack("!BBHHHBBH8s", 0x45, 0, 1400, 1, 0x4000, 64, 17, 0, ends) + struct.pack("!4H", {port}, number, 1380, 0)
for sum_ in (0, checksum(struct.pack("!BBHHH", 3, 4, 0, 0, 1300) + about)):
    error = struct.pack("!BBHHH", 3, 4, sum_, 0, 1300) + about
with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as wire:
    wire.sendto(error, ({address!r}, 0))
"""
"""Asks {address}, and then says that the answer was too big, or one of {about} was."""


@pytest.mark.parametrize("driver", ["bridge", "routed"])
def test_that_an_answer_was_too_big_is_heard_and_nothing_else_of_its_kind(lan: Lan, driver: str) -> None:
    """On a network without masquerade: an error has no port, and is no reply. Of a flow that nobody has it is dropped."""
    with Host(lan, number=27).start() as machine:
        options = {"masquerade": "false"}
        machine.api.network("open", "10.72.0.0/24", driver=driver, options=options)
        lan.ext.ip("route", "replace", "10.72.0.0/24", "via", machine.address(4))
        with machine.workload(
            "open", "own", publish=[{"proto": "udp", "host_first": 7100, "port": PORT}]
        ) as own:
            own.ns.listen("udp", "0.0.0.0", PORT)

            def errors(about: str) -> int:
                with own.ns.sniff(own.ifname) as arrived:
                    lan.ext.python(TOO_BIG.format(address=own.v4, port=PORT, about=about))
                    pause(0.05)
                return sum(f[12:14] == b"\x08\x00" and f[23] == 1 and f[34] == 3 for f in arrived)

            assert errors(own.v4) == 1
            assert errors("10.72.0.99") == 0
        lan.ext.ip("route", "del", "10.72.0.0/24")


MULTICAST = {4: "224.0.0.251", 6: "ff02::fb"}


@pytest.mark.parametrize("family", [4, 6])
def test_multicast_is_the_networks_own_and_needs_the_driver_bridge(city: City, family: int) -> None:
    """As mDNS needs it; where endpoints are kept apart, it is too. (With br_netfilter ports are hairpins, and send back.)"""
    name = f"multicast{family}"
    for workload in city.workloads.values():
        workload.ns("sniff_start", ifname=workload.ifname)
    for sender in ("red-1", "green-1", "quiet-1", "quiet-routed-1"):
        ifname = city.workloads[sender].ifname
        address = f"{MULTICAST[6]}%{ifname}" if family == 6 else MULTICAST[4]
        city.workloads[sender].ns("send", address=address, port=5353, payloads=[f"{name} of {sender}"])
    heard = {
        (sender, receiver)
        for receiver, workload in city.workloads.items()
        for frame in workload.ns("sniff_stop", ifname=workload.ifname)
        for sender in ("red-1", "green-1", "quiet-1", "quiet-routed-1")
        if sender != receiver and f"{name} of {sender}".encode().hex() in frame
    }
    assert heard == {("red-1", "red-2")}
