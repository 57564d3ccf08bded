"""packaging/systemd under a real systemd: process 1 of its own namespaces, with the units as they are shipped."""

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Self

import pytest

from harness.audit import audit
from harness.cnm import Dockerd, PluginSocket
from harness.host import Lan
from harness.netns import eventually
from harness.systemd import API, PLUGIN, SHIPPED, Machine, NamedWorkload, why_not

pytestmark = [pytest.mark.real, pytest.mark.kernel]

if why_not():
    pytest.skip(why_not(), allow_module_level=True)

HOST_NUMBER = 36
SERVICE = "sealane.service"
SOCKETS = ("sealane.socket", "sealane-docker.socket")
UNITS = (SERVICE, *SOCKETS)


@pytest.fixture(scope="module")
def booted(lan: Lan) -> Iterator[Machine]:
    with Machine(lan, HOST_NUMBER) as machine:
        yield machine


@pytest.fixture
def machine(booted: Machine) -> Iterator[Machine]:
    """The sockets listen, nobody has asked for the daemon yet."""
    booted.systemctl("start", *SOCKETS)
    assert booted.show(SERVICE, "ActiveState") == "inactive"
    yield booted
    for network in booted.api.get("/networks"):
        booted.api.remove_network(network["name"], force=True)
    assert audit(booted) == []
    assert booted.api.audit() == []
    booted.systemctl("stop", *SOCKETS, SERVICE)
    booted.run("systemctl", "disable", *UNITS, check=False)
    booted.run("systemctl", "reset-failed", check=False)


@pytest.fixture
def pair(machine: Machine) -> Iterator[tuple[NamedWorkload, NamedWorkload]]:
    """Two workloads on one network."""
    machine.api.network("front", "10.50.0.0/24")
    with closing(NamedWorkload(machine, "web")) as web, closing(NamedWorkload(machine, "db")) as db:
        web.attach("front", publish=[{"host_first": 8080, "port": 80}])
        db.attach("front")
        yield web, db


def state(machine: Machine) -> list[Any]:
    """What the kernel has, of which nothing may change when the daemon only comes and goes."""
    links = [(i["ifindex"], i["ifname"], i["flags"], i.get("master")) for i in machine.ns.json("ip", "link")]
    return [links, machine.ns.sh("nft", "-s", "list", "ruleset"), machine.ns.json("ip", "route")]


def inode(machine: Machine, path: str) -> int:
    return os.stat(machine.path(path)).st_ino


class Asking:
    """Somebody who asks the API again and again meanwhile; the answers, and whoever was turned away."""

    def __init__(self, machine: Machine) -> None:
        self.answered = 0
        self.refused: list[str] = []
        self._machine, self._over = machine, threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def _ask(self) -> None:
        while not self._over.wait(0.005):
            try:
                self._machine.api.status()
                self.answered += 1
            except Exception as error:  # noqa: BLE001 whatever it is, a client would see it
                self.refused.append(repr(error))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def test_systemd_finds_nothing_wrong_with_the_units(booted: Machine) -> None:
    files = [f"/etc/systemd/system/{unit.name}" for unit in SHIPPED.iterdir()]
    assert sorted(map(os.path.basename, files)) == sorted(UNITS)
    done = subprocess.run(
        booted.command("systemd-analyze", "verify", *files), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_first_request_starts_the_daemon(machine: Machine) -> None:
    assert machine.show(SERVICE, "Type") == "notify"
    assert "0 networks" in machine.run("sealane", "status")
    assert (machine.show(SERVICE, "ActiveState"), machine.show(SERVICE, "SubState")) == ("active", "running")
    assert machine.api.status()["state"] == "ready"


def test_the_first_request_of_dockers_starts_the_daemon(machine: Machine) -> None:
    before = inode(machine, PLUGIN)
    with closing(PluginSocket(machine.path(PLUGIN))) as plugin:
        Dockerd(plugin).activate()
    assert machine.show(SERVICE, "ActiveState") == "active"
    assert machine.api.status()["state"] == "ready", "and it is on the other socket, too"
    assert inode(machine, PLUGIN) == before
    assert os.stat(machine.path(PLUGIN)).st_mode & 0o777 == 0o600
    assert os.stat(machine.path(os.path.dirname(API))).st_mode & 0o777 == 0o700


def test_it_is_active_when_it_answers_and_not_before(machine: Machine) -> None:
    """Type=notify: who is ordered after it, as Docker is, finds it ready."""
    machine.systemctl("start", SERVICE)
    assert machine.api.status()["state"] == "ready"
    assert "docker.service" in machine.show(SERVICE, "Before")
    assert "docker.service" in machine.show("sealane-docker.socket", "Before")


def test_attached_to_a_named_namespace_everything_works(
    machine: Machine, pair: tuple[NamedWorkload, NamedWorkload], lan: Lan
) -> None:
    """No option of the unit is in the way of namespaces, rules or eBPF."""
    web, db = pair
    server = web.ns.listen("tcp", "0.0.0.0", 80)
    assert db.ns.reaches(server, web.v4)
    assert lan.ext.reaches(server, machine.address(4), 8080)
    assert machine.api.status()["loopback"] == "program"
    assert machine.ns.reaches(server, "127.0.0.1", 8080), "the socket programs are loaded"
    pid = machine.main_pid()
    for kind in ("mnt", "net", "pid", "ipc", "uts", "cgroup"):
        assert os.readlink(f"/proc/{pid}/ns/{kind}") == os.readlink(f"/proc/{machine.init}/ns/{kind}")
    with open(f"/proc/{pid}/limits", encoding="ascii") as limits:
        files = next(line.split() for line in limits if line.startswith("Max open files"))
    assert files[3] == files[4], "it has taken all that it may have"


def test_what_it_pins_is_seen_by_others_and_outlives_it(machine: Machine) -> None:
    machine.api.network("front", "10.50.0.0/24")
    made = machine.api.call("POST", "/sandboxes", {"name": "own"})
    assert made["netns"].startswith("/run/sealane/netns/")
    assert machine.run("nsenter", f"--net={made['netns']}", "ip", "-o", "link").startswith("1: lo")
    machine.systemctl("stop", SERVICE)
    assert machine.run("nsenter", f"--net={made['netns']}", "ip", "-o", "link").startswith("1: lo")
    assert machine.api.get("/sandboxes")[0]["id"] == made["id"]
    machine.api.call("DELETE", f"/sandboxes/{made['id']}")
    assert os.listdir(machine.path("/run/sealane/netns")) == []


class Steady:
    """A thousand datagrams a second from one workload to another; at the end not one is missing."""

    def __init__(self, source: NamedWorkload, target: NamedWorkload) -> None:
        self._source, self._target = source, target
        self._server = target.ns.listen("udp", "0.0.0.0", 7000)

    def __enter__(self) -> None:
        self._source.ns("stream_start", name="steady", address=self._target.v4, port=7000, interval=0.001)

    def __exit__(self, kind: object, *_: object) -> None:
        sent = self._source.ns("stream_stop", name="steady")
        if kind is None:
            eventually(lambda: self._arrived() == set(range(1, sent + 1)), what="every datagram has arrived")

    def _arrived(self) -> set[int]:
        return {int(payload.split()[1]) for _, _, payload in self._server.peers()}


@pytest.mark.parametrize("how", ["restart", "kill"])
def test_another_daemon_takes_over_under_traffic(
    machine: Machine, pair: tuple[NamedWorkload, NamedWorkload], lan: Lan, how: str
) -> None:
    """With the same sockets: nobody's connect fails. And Restart= is what makes one of a killed daemon's place."""
    web, db = pair
    server = web.ns.listen("tcp", "0.0.0.0", 80)
    first, before, sockets = machine.main_pid(), state(machine), [inode(machine, p) for p in (API, PLUGIN)]
    with Steady(db, web), Asking(machine) as asking:
        eventually(lambda: asking.answered, what="it is asked")
        if how == "restart":
            machine.systemctl("restart", SERVICE)
        else:
            machine.systemctl("kill", "-s", "KILL", SERVICE)
        eventually(
            lambda: machine.show(SERVICE, "NRestarts") == ("0" if how == "restart" else "1"), what="NRestarts"
        )
        eventually(lambda: machine.show(SERVICE, "SubState") == "running", what="it is back")
        eventually(lambda count=asking.answered: asking.answered > count + 3, what="it answers")
    assert machine.main_pid() != first
    assert [inode(machine, p) for p in (API, PLUGIN)] == sockets
    assert state(machine) == before
    assert machine.api.status()["writes"] == 0
    assert lan.ext.reaches(server, machine.address(4), 8080)
    assert machine.ns.reaches(server, "127.0.0.1", 8080)
    turned_away = [r for r in asking.refused if "ConnectionRefused" in r or "FileNotFound" in r]
    assert turned_away == [], "a connect never fails"
    assert len(asking.refused) <= 1, "only who was being answered when it died is told so"


def test_systemd_does_not_give_up_on_it(machine: Machine) -> None:
    """By itself it would after five starts in ten seconds, and close the sockets, too."""
    assert machine.api.status()["state"] == "ready"
    for _ in range(7):
        machine.systemctl("restart", SERVICE)
    machine.systemctl("kill", "-s", "KILL", SERVICE)
    assert machine.api.status()["state"] == "ready"
    assert machine.show(SERVICE, "Result") == "success"
    assert [machine.show(unit, "ActiveState") for unit in UNITS] == ["active"] * 3


def test_containers_outlive_it(machine: Machine) -> None:
    """KillMode=process: their shims are in its control group. And what systemd tells the daemon is not told to them:
    runc would wait for a container that is to say READY=1 itself."""
    machine.api.network("front", "10.50.0.0/24")
    machine.run("sealane", "run", "-d", "--name", "box", "--network", "front", "--", "sleep", "600")
    (box,) = machine.api.get("/containers")
    address = box["addresses"]["front"][0].partition("/")[0]
    inside = machine.run("sealane", "exec", "box", "env")
    assert "NOTIFY_SOCKET" not in inside
    assert "LISTEN_" not in inside
    for verb in ("restart", "stop"):
        machine.systemctl(verb, SERVICE)
        assert machine.ns.run("ping", "-c", "1", "-W", "2", address).returncode == 0
        assert machine.show(SERVICE, "Result") == "success"
    (found,) = machine.api.get("/containers")
    assert (found["id"], found["pid"]) == (box["id"], box["pid"])
    machine.run("sealane", "rm", "-f", "box")


def test_one_that_cannot_start_is_tried_once_a_second_and_who_asks_waits(machine: Machine) -> None:
    """What is wrong is put right by somebody, and whoever has asked meanwhile is answered then."""
    folder = Path(machine.path(f"/etc/systemd/system/{SERVICE}.d"))
    folder.mkdir()
    (folder / "broken.conf").write_text("[Service]\nExecStart=\nExecStart=/bin/false\n", encoding="ascii")
    machine.systemctl("daemon-reload")
    with subprocess.Popen(
        machine.command("sealane", "network", "ls"), stdout=subprocess.PIPE, text=True
    ) as asker:
        try:
            eventually(lambda: int(machine.show(SERVICE, "NRestarts")) >= 2, 10, "it is tried again")
            begun, count = time.monotonic(), int(machine.show(SERVICE, "NRestarts"))
            eventually(lambda: int(machine.show(SERVICE, "NRestarts")) >= count + 3, 20, "and again")
            assert time.monotonic() - begun > 1.5, "it does not burn the processor"
            assert asker.poll() is None
        finally:
            shutil.rmtree(folder)
            machine.systemctl("daemon-reload")
        answered, _ = asker.communicate(timeout=100)
    assert asker.returncode == 0
    assert "NAME" in answered
    assert machine.show(SERVICE, "SubState") == "running"


def test_stopping_it_leaves_the_kernels_state(
    machine: Machine, pair: tuple[NamedWorkload, NamedWorkload], lan: Lan
) -> None:
    web, db = pair
    server = web.ns.listen("tcp", "0.0.0.0", 80)
    before = state(machine)
    machine.systemctl("stop", SERVICE)
    assert machine.show(SERVICE, "Result") == "success", "it has ended by itself, in time"
    assert machine.show(SERVICE, "ActiveState") == "inactive"
    assert state(machine) == before
    assert db.ns.reaches(server, web.v4)
    assert lan.ext.reaches(server, machine.address(4), 8080)
    assert machine.ns.reaches(server, "127.0.0.1", 8080)
    assert os.path.exists(machine.path(API)), "it waits for the next request"


def test_who_listens_to_it_for_ever_does_not_keep_it_from_stopping(machine: Machine) -> None:
    """systemd would wait 90 s and then kill it."""
    follow = machine.command("sealane", "events", "--follow", "--since", "0")
    trace = machine.command("sealane", "trace", "--dropped")
    plugin = PluginSocket(machine.path(PLUGIN))
    with subprocess.Popen(follow, stdout=subprocess.PIPE, text=True) as events, closing(plugin):
        Dockerd(plugin).activate()
        machine.api.network("front", "10.50.0.0/24")
        assert events.stdout is not None
        assert "network.created" in events.stdout.readline()
        with subprocess.Popen(trace, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
            begun = time.monotonic()
            machine.systemctl("restart", SERVICE)
            assert time.monotonic() - begun < 30
    assert machine.show(SERVICE, "Result") == "success"


def test_whoever_is_enabled_is_there_after_a_boot(lan: Lan) -> None:
    """docs/operating.md and docs/integrations/docker.md, as they say it."""
    with Machine(lan, HOST_NUMBER + 1) as machine:
        machine.systemctl("enable", "--now", "sealane.socket", SERVICE)
        machine.api.network("front", "10.50.0.0/24")
        # A service that runs takes no further socket.
        machine.run("systemctl", "enable", "sealane-docker.socket")
        machine.systemctl("stop", SERVICE)
        machine.systemctl("start", *SOCKETS, SERVICE)
        machine.reboot()
        assert [machine.show(unit, "ActiveState") for unit in UNITS] == ["active"] * 3
        assert machine.show(SERVICE, "NRestarts") == "0"
        assert [n["name"] for n in machine.api.get("/networks")] == ["front"]
        with closing(PluginSocket(machine.path(PLUGIN))) as plugin:
            Dockerd(plugin).activate()
        assert audit(machine) == []
