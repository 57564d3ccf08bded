"""Crashes and faults (CP1, CP3, CP5, CP6, CP8, CP9, ST1 to ST4 of docs/reliability): after each of them a start puts
everything right, the caller's retry succeeds, and nothing is left over."""

import contextlib
import glob
import http.client
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from harness.api import ApiError
from harness.audit import audit, settle
from harness.crash import Point, Tracer, killed_at, points, spread
from harness.host import Host, Lan, Workload
from harness.netns import Netns, eventually
from harness.patience import pause

pytestmark = pytest.mark.kernel

QUICK_POINTS = 10
"""Of each sampled operation in the quick loop; `-m slow` takes all of all."""
SETTLED_S = 3.0


@contextlib.contextmanager
def unless_there() -> Iterator[None]:
    """A request whose first try was killed after its commit is told so at the second."""
    try:
        yield
    except ApiError as error:
        if error.code != "exists":
            raise


class Yard:
    """A host with one network of each driver, a steady neighbour, and an operation to be killed in."""

    def __init__(self, lan: Lan) -> None:
        self.host = Host(lan, number=10).start()
        for driver, prefixes in (
            ("bridge", ("10.90.0.0/24", "fd90::/64")),
            ("routed", ("10.91.0.0/24", "fd91::/64")),
        ):
            self.host.api.network(driver, *prefixes, driver=driver)
        self.steady, self.peer = Workload(self.host, "steady"), Workload(self.host, "peer")
        self.steady.attach("bridge", publish=[{"proto": "udp", "host_first": 8080, "port": 80}])
        self.peer.attach("bridge")
        self.server = self.steady.ns.listen("udp", "0.0.0.0", 80)
        self.subject = Netns("subject")

    def check(self) -> None:
        """The auditor is content, and the neighbours never noticed."""
        settle(self.host, SETTLED_S)
        assert self.peer.ns.reaches(self.server, self.steady.v4)
        assert self.peer.ns.reaches(self.server, self.host.address(4), 8080)

    def close(self) -> None:
        for ns in (self.steady.ns, self.peer.ns, self.subject):
            ns.close()
        self.host.close()

    # --- what is killed, and what undoes it ---------------------------------------------------------------------

    def attach(self, driver: str) -> None:
        publish = [
            {"proto": "tcp", "host_first": 8200, "port": 80},
            {"proto": "udp", "host_address": "127.0.0.1", "host_first": 8201, "port": 80},
        ]
        endpoint = self.host.api.attach(self.subject.path, driver, name="subject", publish=publish)
        address = endpoint["addresses"][0].partition("/")[0]
        server = self.subject.listen("tcp", "0.0.0.0", 80)
        # Whether the very first packet gets there is not asked here, with strace, deaths and starts at work.
        eventually(lambda: self.host.ns.reaches(server, address), what="the subject is reached")
        server.close()

    def detach(self, driver: str) -> None:
        self.host.api.detach(sandbox=self.subject.path, network=driver)
        links = [link["ifname"] for link in self.subject.json("ip", "link", "show") if link["ifname"] != "lo"]
        assert links == []

    def create(self, driver: str) -> None:
        with unless_there():
            self.host.api.network("fresh", "10.92.0.0/24", "fd92::/64", driver=driver)
        assert self.host.api.get("/networks/fresh")["driver"] == driver

    def remove(self, driver: str) -> None:
        with contextlib.suppress(ApiError):
            self.host.api.remove_network("fresh")
        with pytest.raises(ApiError) as gone:
            self.host.api.get("/networks/fresh")
        assert gone.value.code == "not_found"

    def make_sandbox(self, driver: str) -> None:
        with unless_there():
            self.host.api.post("/sandboxes", {"name": "made"})
        self.host.api.attach("made", driver)

    def remove_sandbox(self, driver: str) -> None:
        self.host.api.detach(sandbox="made")
        with contextlib.suppress(ApiError):
            self.host.api.delete("/sandboxes/made")
        with pytest.raises(ApiError) as gone:
            self.host.api.get("/sandboxes/made")
        assert gone.value.code == "not_found"

    def set_up(self, _: str) -> None:
        """As podman calls it: two networks that come with their first container, and a port."""
        status = self._netavark("setup")["status"]
        assert list(status) == ["front", "back"]
        mine = {e["network"]: e["ports"] for e in self.host.api.get("/endpoints") if e["name"] == "podded"}
        assert mine == {"front": ["*:8200->80/tcp"], "back": []}
        server = self.subject.listen("tcp", "0.0.0.0", 80)
        eventually(
            lambda: self.host.ns.reaches(server, self.host.address(4), 8200), what="its port is reached"
        )
        server.close()

    def tear_down(self, _: str) -> None:
        self._netavark("teardown")
        assert {n["name"] for n in self.host.api.get("/networks")} == {"bridge", "routed"}

    def _netavark(self, verb: str) -> dict[str, Any]:
        container = {
            "container_id": "c1",
            "container_name": "podded",
            "port_mappings": [{"container_port": 80, "host_port": 8200}],
            "networks": {
                name: {"interface_name": f"eth{number}", "static_ips": [f"10.9{3 + number}.0.2"]}
                for number, name in enumerate(("front", "back"))
            },
            "network_info": {
                name: {
                    "name": name,
                    "id": name,
                    "driver": "bridge",
                    "network_interface": f"podman{number}",
                    "subnets": [{"subnet": f"10.9{3 + number}.0.0/24", "gateway": f"10.9{3 + number}.0.1"}],
                    "dns_enabled": True,
                }
                for number, name in enumerate(("front", "back"))
            },
        }
        asked = {"verb": verb, "netns": self.subject.path, "container": container}
        answer: dict[str, Any] = self.host.api.post("/netavark", asked)
        return answer


@pytest.fixture(scope="module")
def yard(lan: Lan) -> Iterator[Yard]:
    made = Yard(lan)
    yield made
    made.close()


OPERATIONS = {
    "attach": (Yard.attach, Yard.detach),
    "network": (Yard.create, Yard.remove),
    "sandbox": (Yard.make_sandbox, Yard.remove_sandbox),
    "podman": (Yard.set_up, Yard.tear_down),
}
SWEPT = [
    (name, driver)
    for name in OPERATIONS
    for driver in ("bridge", "routed")
    if (name, driver) != ("podman", "routed")
]
SAMPLED = [("podman", "bridge"), ("sandbox", "routed")]
"""Between them: both drivers, networks that come and go, namespaces of others and of ours, ports."""


def sweep(yard: Yard, name: str, driver: str, which: Callable[[list[Point]], list[Point]]) -> None:
    """Kill the daemon in the operation and in its undoing, at each chosen point; start it, audit, repeat the call."""
    forward, back = OPERATIONS[name]
    there = points(yard.host, lambda: forward(yard, driver))
    home = points(yard.host, lambda: back(yard, driver))
    assert there, "the operation makes no system call: the recorder is broken"
    kills = 0
    for operation, undo, found in ((forward, back, there), (back, forward, home)):
        if operation is back:
            forward(yard, driver)
        for point in which(found):
            if killed_at(yard.host, point, lambda: operation(yard, driver)):
                kills += 1
                yard.host.start()
                yard.check()
            operation(yard, driver)
            undo(yard, driver)
    back(yard, driver)
    yard.check()
    print(f"{name} on {driver}: {kills} kills, {len(there)} + {len(home)} points")
    assert kills >= len(which(there)) // 2, f"only {kills} kills struck"


def test_a_death_after_the_operation_is_known_too(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until strace has left, anything that the daemon does may reach the point: another's request, or our own question
    whether it lives."""
    leave = Tracer.__exit__

    def asked_once_more(tracer: Tracer, *error: object) -> None:
        with contextlib.suppress(OSError, http.client.HTTPException):
            for _ in range(20):
                yard.host.api.status()
        leave(tracer, *error)

    monkeypatch.setattr(Tracer, "__exit__", asked_once_more)
    assert killed_at(yard.host, ("sendto", 8), lambda: None)
    assert yard.host.daemon is None
    yard.host.start()
    yard.check()


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("name", "driver"), SAMPLED)
def test_any_death_is_survived(yard: Yard, name: str, driver: str) -> None:
    """CP1, a sample of the points."""
    sweep(yard, name, driver, lambda found: spread(found, QUICK_POINTS))


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("name", "driver"), SWEPT)
def test_every_death_is_survived(yard: Yard, name: str, driver: str) -> None:
    """CP1, all points."""
    sweep(yard, name, driver, lambda found: found)


@pytest.mark.timeout(1200)
def test_a_death_during_recovery_is_survived(yard: Yard) -> None:
    """CP3: the daemon is killed in an attach, and again and again in the start that should repair it."""
    found = points(yard.host, lambda: yard.attach("bridge"))
    yard.detach("bridge")
    middle = found[len(found) // 2]
    assert killed_at(yard.host, middle, lambda: yard.attach("bridge"))
    for number in range(1, 60, 12):
        wrapper = ("strace", "-D", "-f", "-qq", "-o", "/dev/null")
        inject = (
            "-e",
            "trace=sendto,sendmsg,pwrite64",
            "-e",
            f"inject=sendto,sendmsg,pwrite64:signal=KILL:when={number}",
        )
        yard.host.start(wait=False, wrapper=(*wrapper, *inject))
        if not yard.host.reap(3.0):
            yard.host.kill9()
    yard.host.start()
    yard.check()
    yard.attach("bridge")
    yard.detach("bridge")
    yard.check()


def test_traffic_notices_nothing(yard: Yard) -> None:
    """CP10: a steady allowed stream and a steady denied one, through deaths, starts, and everything else that goes on
    on a host: not one packet of the first is lost, not one of the second arrives."""
    stranger = Workload(yard.host, "stranger")
    stranger.attach("routed")
    yard.server.peers(clear=True)
    yard.peer.ns("stream_start", name="allowed", address=yard.steady.v4, port=80, interval=0.001)
    stranger.ns("stream_start", name="denied", address=yard.steady.v4, port=80, interval=0.001)
    for number in range(5):
        yard.host.kill9() if number % 2 else yard.host.stop()
        yard.host.start()
        for driver in ("bridge", "routed"):
            yard.host.api.network("passing", "10.92.0.0/24", driver=driver)
            yard.attach(driver)
            yard.detach(driver)
            yard.host.api.remove_network("passing")
    sent = yard.peer.ns("stream_stop", name="allowed")
    blocked = stranger.ns("stream_stop", name="denied")
    arrived: set[tuple[str, int]] = set()

    def missing() -> set[tuple[str, int]]:
        arrived.update((p.split()[0], int(p.split()[1])) for _, _, p in yard.server.peers(clear=True))
        return {("allowed", number) for number in range(1, sent + 1)} - arrived

    eventually(lambda: not missing(), 5.0, f"all of {sent} arrive")
    pause(0.1)
    assert missing() == set()
    assert blocked > 500
    assert [name for name, _ in arrived if name == "denied"] == []
    stranger.close()


# --- callers that repeat themselves, and callers that are gone (CP5, CP8, CP9) --------------------------------------


def test_the_same_verb_twice_gives_the_same_answer(host: Host) -> None:
    host.api.network("front", "10.93.0.0/24")
    with Netns("w") as w:
        answers = [host.api.attach(w.path, "front", name="w") for _ in range(5)]
        assert all(a["id"] == answers[0]["id"] and a["addresses"] == answers[0]["addresses"] for a in answers)
        assert host.api.detach(answers[0]["id"]) != []
        for _ in range(5):
            assert host.api.detach(answers[0]["id"]) == []
    assert host.api.detach("no-such-endpoint") == []
    host.api.remove_network("front")
    assert host.api.get("/sandboxes") == []


def test_the_dead_are_swept(host: Host) -> None:
    """CP8: workloads end without a word. Their namespaces are the proof, and `gc` takes what they had."""
    host.api.network("front", "10.94.0.0/24", "fd94::/64")
    workloads = [Workload(host, f"w{n}") for n in range(5)]
    for number, workload in enumerate(workloads):
        workload.attach("front", publish=[{"host_first": 8500 + number, "port": 80}])
    for workload in workloads[1:]:
        workload.ns.close()
    host.api.post("/gc")
    left = host.api.get("/endpoints")
    assert [e["name"] for e in left] == ["w0"]
    assert audit(host) == []
    workloads[0].close()
    host.api.remove_network("front")


def test_stopping_takes_nothing_down(host: Host) -> None:
    """CP9: SIGTERM and SIGINT end the daemon with status 0; SIGHUP does not; networks and workloads stay as they are."""
    host.api.network("front", "10.95.0.0/24")
    with host.workload("front", "a") as a, host.workload("front", "b") as b:
        server = b.ns.listen("udp", "0.0.0.0", 80)
        for number in (signal.SIGTERM, signal.SIGINT):
            os.kill(host.pid, number)
            assert host.daemon is not None
            assert host.daemon.wait(100) == 0
            host.daemon = None
            assert a.ns.reaches(server, b.v4)
            assert audit(host) == []
            host.start()
        assert audit(host) == []


def test_clients_that_hang_up_leave_no_half(host: Host) -> None:
    """CP4: the request is cut at every eighth byte."""
    host.api.network("front", "10.96.0.0/24")
    with Netns("w") as w:
        body = f'{{"sandbox": "{w.path}", "network": "front", "name": "w"}}'
        request = f"POST /v1/attach HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}"
        for cut in range(0, len(request) + 8, 8):
            host.ns.python(HANG_UP.format(path=host.socket_path, text=request[:cut].encode()))
        endpoint = eventually(lambda: host.api.attach(w.path, "front", name="w"))
        assert endpoint["state"] == "up"
        assert len(host.api.get("/endpoints")) == 1
        host.api.detach(endpoint["id"])


HANG_UP = """
import socket
s = socket.socket(socket.AF_UNIX)
s.connect({path!r})
s.sendall({text!r})
s.close()
"""


# --- reboot (CP6) ---------------------------------------------------------------------------------------------------


def test_after_a_reboot_networks_are_back_and_the_dead_hold_nothing(host: Host) -> None:
    host.api.network("front", "10.97.0.0/30")
    host.api.network("back", "10.97.1.0/24", "fd97::/64", driver="routed")
    host.api.post("/sandboxes", {"name": "pinned"})
    host.api.attach("pinned", "back")
    workload = Workload(host, "w")
    workload.attach("front", publish=[{"host_first": 8080, "port": 80}])
    workload.attach("back")
    workload.ns.close()
    host.reboot()
    host.start()
    settle(host, 5.0)
    assert {n["name"] for n in host.api.get("/networks")} == {"front", "back"}
    # The only address of this network is free again, and the port too.
    with host.workload("front", "next", publish=[{"host_first": 8080, "port": 80}]) as after:
        assert after.v4.startswith("10.97.0.")
    for network in ("front", "back"):
        host.api.remove_network(network, force=True)
    host.api.delete("/sandboxes/pinned")


# --- the store (ST1 to ST4) -----------------------------------------------------------------------------------------


def test_a_full_disk_refuses_and_harms_nobody(lan: Lan) -> None:
    """ST1: an attach fails with a coded error and leaves nothing; a detach still works; with space all is well."""
    with Host(lan, number=11) as host:
        os.makedirs(host.state_dir)
        host.ns.sh("mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", host.state_dir)
        host.start()
        host.api.network("front", "10.98.0.0/24", "fd98::/64")
        first, second = Workload(host, "first"), Workload(host, "second")
        first.attach("front")
        server = first.ns.listen("udp", "0.0.0.0", 80)
        refusal = refused(host, second)
        assert refusal.code == "store", refusal
        assert host.ns.reaches(server, first.v4)
        assert audit(host) == []
        first.detach("front")
        assert audit(host) == []
        for ballast in glob.glob(host.path(f"{host.state_dir}/ballast*")):
            os.unlink(ballast)
        second.attach("front")
        assert audit(host) == []
        second.close()
        first.close()


NOTE_ANOTHER_BOOT = """
import sys
from sealane.engine.resyncer import BOOT
from sealane.store.sqlite import SqliteStore
store = SqliteStore(sys.argv[1])
store.set_meta(BOOT, "the boot before")
store.close()
"""


@pytest.mark.parametrize("has_reserve", [True, False])
def test_a_start_after_a_reboot_on_a_full_disk(lan: Lan, has_reserve: bool) -> None:
    """A start has to note which boot it is. The reserve is for that; without one the daemon holds until there is room."""
    with Host(lan, number=11) as host:
        os.makedirs(host.state_dir)
        host.ns.sh("mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", host.state_dir)
        host.start()
        host.api.network("front", "10.98.0.0/24", "fd98::/64")
        host.stop()
        folder = host.path(host.state_dir)
        host.ns.sh(sys.executable, "-c", NOTE_ANOTHER_BOOT, host.state_dir)
        if not has_reserve:
            os.unlink(f"{folder}/state.reserve")
        host.ns.run("dd", "if=/dev/zero", f"of={host.state_dir}/ballast", "bs=4k")
        host.ns.run("dd", "if=/dev/zero", f"of={host.state_dir}/sand", "bs=1")
        host.start(wait=False)
        eventually(lambda: os.path.exists(host.socket_path), what="it answers")
        if not has_reserve:
            status = host.api.status()
            assert status["state"] == "hold"
            assert "full" in status["conditions"][0]["message"]
            with pytest.raises(ApiError) as refusal:
                host.api.network("back", "10.97.0.0/24")
            assert refusal.value.code == "unavailable"
            os.unlink(f"{folder}/ballast")
        eventually(lambda: host.api.status()["state"] == "ready", what="all is well")
        assert [network["name"] for network in host.api.get("/networks")] == ["front"]
        assert audit(host) == []


def refused(host: Host, workload: Workload) -> ApiError:
    """Fill the disk until an attach is refused. (What the store frees in between is filled again.)"""
    for number in range(20):
        host.ns.run("dd", "if=/dev/zero", f"of={host.state_dir}/ballast{number}", "bs=4k")
        try:
            workload.attach("front")
        except ApiError as error:
            return error
        workload.detach("front")
    raise AssertionError("a full disk refuses nothing")


def kernel_state(host: Host) -> tuple[str, str, str]:
    """Rules without their counters, links, routes."""
    rules = re.sub(r"packets \d+ bytes \d+", "", host.ns.sh("nft", "list", "ruleset"))
    # nft lists sets of one table in no particular order.
    return "\n".join(sorted(rules.splitlines())), host.ns.ip("-br", "link"), host.ns.ip("route")


def damage_bits(folder: str) -> None:
    with open(f"{folder}/state.db", "r+b") as file:
        size = file.seek(0, os.SEEK_END)
        for offset in range(0, size, 512):
            file.seek(offset)
            file.write(b"\xa5" * 16)


def truncate(folder: str) -> None:
    os.truncate(f"{folder}/state.db", 5000)


def replace_by_folder(folder: str) -> None:
    os.unlink(f"{folder}/state.db")
    os.mkdir(f"{folder}/state.db")


def remove(folder: str) -> None:
    for path in glob.glob(f"{folder}/state.db*"):
        os.unlink(path)


def remove_everything(folder: str) -> None:
    shutil.rmtree(folder)
    os.mkdir(folder)


@pytest.mark.parametrize("damage", [damage_bits, truncate, replace_by_folder, remove, remove_everything])
def test_a_lost_store_never_costs_live_state(lan: Lan, damage: Callable[[str], None]) -> None:
    """ST3, ST4: whatever happened to the file, what lives goes on: links, rules, traffic. The daemon refuses to start,
    or starts holding still and says so; it never takes an empty store for an order to delete."""
    with Host(lan, number=11).start() as host:
        host.api.network("front", "10.99.0.0/24", "fd99::/64")
        a, b = Workload(host, "a"), Workload(host, "b")
        a.attach("front")
        b.attach("front", publish=[{"proto": "udp", "host_first": 8080, "port": 80}])
        server = b.ns.listen("udp", "0.0.0.0", 80)
        assert lan.ext.reaches(server, host.address(4), 8080)
        before = kernel_state(host)
        host.stop()
        damage(host.path(host.state_dir))
        host.start(wait=False)
        deadline = time.monotonic() + 100
        state = ""
        while (
            time.monotonic() < deadline
            and not state
            and host.daemon is not None
            and host.daemon.poll() is None
        ):
            with contextlib.suppress(OSError, http.client.HTTPException, ApiError):
                state = host.api.status()["state"]
        pause(0.3)
        # Checked first, since it is the worst that can happen.
        assert kernel_state(host) == before
        assert state != "ready", "it takes what is left for the truth"
        if state:
            conditions = " ".join(c["message"] + c["hint"] for c in host.api.status()["conditions"])
            assert "store" in conditions or "state.db" in conditions, conditions
            with Netns("c") as c, pytest.raises(ApiError) as refusal:
                host.api.attach(c.path, "front", name="c")
            # With a new store the network is not known any more.
            assert refusal.value.code in {"store", "unavailable", "not_found"}
        else:
            assert "state.db" in host.stderr()
        after = kernel_state(host)
        assert after == before
        assert a.ns.reaches(server, b.v4)
        assert lan.ext.reaches(server, host.address(4), 8080)
        a.ns.close()
        b.ns.close()
