"""The fault corpus: broken set-ups, each made by commands that a person could have typed, and the true cause named."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from harness.host import EXT4, EXT6, Host, Lan, Workload, host_address
from harness.netns import Netns, eventually
from kernel.fault_corpus import FAULTS, Fault

pytestmark = pytest.mark.kernel

NUMBER = 7
CONNECT_AFTER_S, CONNECTS, CONNECT_EVERY_S = 0.7, 8, 0.3
NETWORKS: dict[str, dict[str, Any]] = {
    "front": {"subnets": ("10.71.0.0/24", "fd71::/64")},
    "back": {"subnets": ("10.72.0.0/24",)},
    "vault": {"subnets": ("10.73.0.0/24",), "internal": True},
    "lone": {"subnets": ("10.74.0.0/24",), "options": {"icc": "false"}},
    "side": {"subnets": ("10.75.0.0/24",), "driver": "routed"},
}
PUBLISHED = [
    {"proto": "tcp", "host_first": 8080, "port": 80},
    {"proto": "tcp", "host_first": 8081, "port": 80, "host_address": "127.0.0.1"},
]
MEMBERS = {"web": "front", "api": "front", "db": "back", "safe": "vault", "one": "lone", "two": "lone",
           "near": "side", "far": "side", "hub": "front"}  # fmt: skip


class Town:
    def __init__(self, lan: Lan, host: Host) -> None:
        self.lan, self.host = lan, host
        for name, fields in NETWORKS.items():
            rest = {key: value for key, value in fields.items() if key != "subnets"}
            host.api.network(name, *fields["subnets"], **rest)
        self.boxes = {name: Workload(host, name) for name in MEMBERS}
        for name, network in MEMBERS.items():
            self.boxes[name].attach(network, name=name, publish=PUBLISHED if name == "web" else [])
        self.boxes["hub"].attach("back", name="hub")
        for where in (*(box.ns for box in self.boxes.values()), lan.ext):
            for proto in ("tcp", "udp"):
                for address in ("0.0.0.0", "::"):
                    where.listen(proto, address, 80)
        web, api = self.boxes["web"], self.boxes["api"]
        gateway = "10.71.0.1"
        self.words = {
            "ext": EXT4, "ext6": EXT6, "host4": host_address(NUMBER, 4), "host6": host_address(NUMBER, 6),
            "web4": web.address(4), "api4": api.address(4), "api6": api.address(6), "webmac": web.mac, "gateway": gateway,
            "bridge": host.ns.json("ip", "route", "get", web.address(4))[0]["dev"],
        }  # fmt: skip

    def place(self, name: str) -> Netns:
        return {"host": self.host.ns, "ext": self.lan.ext}.get(name) or self.boxes[name].ns

    def type(self, lines: tuple[tuple[str, str], ...]) -> None:
        for where, line in lines:
            if line == "reattach":
                self.reattach(self.boxes[where])
                continue
            self.place(where).sh("sh", "-c", line.format(**self.words))

    def reattach(self, box: Workload) -> None:
        network = MEMBERS[box.name]
        fields = {
            "name": box.name,
            "addresses": [a.partition("/")[0] for a in box.endpoints[network]["addresses"]],
        }
        box.detach(network)
        box.attach(network, publish=PUBLISHED if box.name == "web" else [], **fields)

    def ask(self, fault: Fault) -> str:
        """What is printed, while that goes on in the background which the question is about."""
        thread = None
        if fault.background is not None and fault.background[1].startswith("connect"):
            thread = threading.Timer(CONNECT_AFTER_S, self.meanwhile, fault.background)
            thread.start()
        elif fault.background is not None:
            self.meanwhile(*fault.background)
        done = self.host.sealane(*fault.ask.format(**self.words).split(), check=False)
        if thread is not None:
            thread.join()
        return done.stdout + done.stderr

    def meanwhile(self, where: str, line: str) -> None:
        """`listen PROTO ADDRESS PORT`, or `connect ADDRESS PORT` a few times from a moment on."""
        verb, *words = line.format(**self.words).split()
        ns = self.place(where)
        if verb == "listen":
            self.server = ns.listen(words[0], words[1], int(words[2]))
            return
        for _ in range(CONNECTS):
            ns.probe("tcp", words[0], int(words[1]), timeout=CONNECT_EVERY_S)

    def is_well(self) -> bool:
        web, ext = self.boxes["web"].ns, self.lan.ext
        asked = [(web, self.words["api4"], 80), (web, EXT4, 80), (ext, self.words["host4"], 8080)]
        return all("answer" in ns.probe("tcp", address, port, timeout=0.5) for ns, address, port in asked)


@pytest.fixture(scope="module")
def town(lan: Lan) -> Iterator[Town]:
    with Host(lan, number=NUMBER).start() as host:
        town = Town(lan, host)
        assert town.is_well()
        yield town
        for box in town.boxes.values():
            box.close()


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_the_true_cause_is_named(town: Town, fault: Fault) -> None:
    answer = fault.answer.format(**town.words)
    if not fault.is_design:
        assert answer not in town.ask(fault), "it is said of a town that is well"
    town.type(fault.make)
    try:
        told = town.ask(fault)
    finally:
        town.type(fault.undo)
    print(told)
    assert answer in told
    if not fault.is_design:
        eventually(town.is_well, 10.0, f"all is well again after: {fault.name}")
