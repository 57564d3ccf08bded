"""The OCI hook's program and the daemon together: calls at once, killed, and a daemon that dies in the middle."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from harness.audit import audit, settle
from harness.host import EXT4, Host, Lan
from harness.netns import Netns, eventually

pytestmark = pytest.mark.kernel

NUMBER = 37
ATONCE = 12
KILLS = 6


@pytest.fixture(scope="module")
def machine(lan: Lan) -> Iterator[Host]:
    with Host(lan, number=NUMBER).start() as host:
        host.sealane("network", "create", "--subnet", "10.92.0.0/24", "--subnet", "fd00:92::/64", "front")
        host.sealane("network", "create", "--subnet", "10.93.0.0/24", "back")
        yield host
        assert audit(host) == []


@pytest.fixture
def hook(machine: Host, tmp_path: Path) -> Iterator["Hook"]:
    hook = Hook(machine, tmp_path)
    yield hook
    hook.close()
    assert machine.api.status()["endpoints"] == machine.api.status()["sandboxes"] == 0
    assert audit(machine) == []


class Hook:
    """As a runtime calls it; a container is a namespace with an agent in it."""

    def __init__(self, machine: Host, directory: Path) -> None:
        self.machine, self.program = machine, str(directory / "oci-hook")
        self.containers: dict[str, Netns] = {}
        machine.sealane("oci", "install", "--bin", self.program, "--hooks-dir", str(directory / "hooks.d"))

    def container(self, name: str) -> Netns:
        self.containers[name] = Netns(name)
        return self.containers[name]

    def start(self, stage: str, name: str, pid: int = 0, /, **annotations: str) -> subprocess.Popen[str]:
        state = {
            "ociVersion": "1.0.2",
            "id": name,
            "status": "creating",
            "bundle": "/srv",
            "pid": pid or self.containers[name].pid,
            "annotations": {
                f"sealane.{key}": value for key, value in {"networks": "front", **annotations}.items()
            },
        }
        process = subprocess.Popen(
            [self.program, stage],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.machine._environment(),
        )
        assert process.stdin is not None
        process.stdin.write(json.dumps(state))
        process.stdin.close()
        process.stdin = None
        return process

    def __call__(self, stage: str, name: str, pid: int = 0, /, **annotations: str) -> str:
        """What it says; empty if all is well."""
        process = self.start(stage, name, pid, **annotations)
        _, said = process.communicate(timeout=60)
        assert bool(said) == (process.returncode != 0)
        return said

    def ends(self, name: str) -> None:
        self.containers.pop(name).close()

    def close(self) -> None:
        if self.machine.daemon is None:
            self.machine.start()
        for name in list(self.containers):
            pid = self.containers[name].pid
            self.ends(name)
            assert self("poststop", name, pid) == ""


def test_containers_reach_each_other_and_the_world_and_are_reached(
    lan: Lan, machine: Host, hook: Hook
) -> None:
    web, client = hook.container("web"), hook.container("client")
    assert hook("createRuntime", "web", name="www", publish="8080:80") == ""
    assert hook("createRuntime", "client", networks="back,front") == ""
    for server_address, address in (("0.0.0.0", "10.92.0.2"), ("::", "fd00:92::2")):
        server = web.listen("tcp", server_address, 80)
        assert client.reaches(server, address, 80)
        assert lan.ext.reaches(server, machine.address(6 if ":" in address else 4), 8080)
        server.close()
    for name in ("www", "web"):
        # Names come in force a moment after the hook has answered.
        eventually(
            lambda name=name: "10.92.0.2" in client.run("dig", "+short", name, "@10.92.0.1").stdout, what=name
        )
    assert client.run("ping", "-c1", "-W2", EXT4).returncode == 0
    assert "default via 10.93.0.1" in client.ip("route")


def test_a_container_that_ends_without_poststop_is_found_by_the_next_of_its_id(
    machine: Host, hook: Hook
) -> None:
    hook.container("web")
    hook("createRuntime", "web", ip="10.92.0.9", publish="8080:80")
    hook.ends("web")
    hook.container("web")
    assert hook("createRuntime", "web", ip="10.92.0.9", publish="8080:80") == ""
    assert hook("poststop", "web") == "", "late, and for the one before"
    assert [e["addresses"][0] for e in machine.api.get("/endpoints")] == ["10.92.0.9/24"]


def test_many_at_once(machine: Host, hook: Hook) -> None:
    names = [f"c{number}" for number in range(ATONCE)]
    for name in names:
        hook.container(name)
    with ThreadPoolExecutor(ATONCE) as pool:
        assert (
            list(pool.map(lambda n: hook("createRuntime", n, networks="front,back"), names)) == [""] * ATONCE
        )
        assert len(machine.api.get("/endpoints")) == 2 * ATONCE
        assert machine.api.audit() == []
        for name in names[::2]:
            hook.ends(name)
        assert list(pool.map(lambda n: hook("poststop", n, 1), names[::2])) == [""] * (ATONCE // 2)
    assert {e["name"] for e in machine.api.get("/endpoints")} == set(names[1::2])


def test_a_hook_that_is_killed_is_called_again(machine: Host, hook: Hook) -> None:
    hook.container("web")
    for number in range(KILLS):
        process = hook.start("createRuntime", "web", networks="front,back", publish="8080:80")
        _wait_cpu(process, number)
        process.kill()
        process.communicate()
        assert hook("createRuntime", "web", networks="front,back", publish="8080:80") == ""
        assert len(machine.api.get("/endpoints")) == 2
        pid = hook.containers["web"].pid
        hook.ends("web")
        assert hook("poststop", "web", pid) == ""
        hook.container("web")


def _wait_cpu(process: subprocess.Popen[str], number: int) -> None:
    """A moment that differs each time: when the kernel has run it for so many ticks, or it has ended."""

    def ran() -> bool:
        try:
            with open(f"/proc/{process.pid}/schedstat", encoding="ascii") as file:
                return int(file.read().split()[0]) >= number * 5_000_000
        except (OSError, IndexError):
            return True

    eventually(lambda: ran() or process.poll() is not None)


def test_a_daemon_that_dies_in_the_middle_leaves_what_a_retry_completes(machine: Host, hook: Hook) -> None:
    hook.container("web")
    process = hook.start("createRuntime", "web", networks="front,back", publish="8080:80")
    _wait_cpu(process, 3)
    os.kill(machine.pid, signal.SIGKILL)
    machine.reap(10)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 0 or "sealane daemon" in said
    assert "no sealane daemon at" in hook("createRuntime", "web")
    machine.start()
    assert hook("createRuntime", "web", networks="front,back", publish="8080:80") == ""
    assert len(machine.api.get("/endpoints")) == 2
    settle(machine, 10)


def test_the_hosts_own_namespace_is_refused(machine: Host, hook: Hook) -> None:
    hook.container("web")
    said = hook("createRuntime", "web", machine.ns.pid)
    assert "host's own network namespace" in said
    assert "linux.namespaces" in said
    assert machine.api.get("/endpoints") == []


def test_a_process_that_has_ended_is_told(hook: Hook) -> None:
    hook.container("web")
    done = subprocess.Popen(["true"])
    done.wait()
    assert "there is no process" in hook("createRuntime", "web", done.pid)


def test_what_the_container_has_already_is_stepped_over(machine: Host, hook: Hook) -> None:
    web = hook.container("web")
    web.ip("link", "add", "eth0", "type", "bridge")
    assert hook("createRuntime", "web") == ""
    assert [e["ifname"] for e in machine.api.get("/endpoints")] == ["eth1"]


def test_a_name_that_is_asked_for_and_taken_undoes_all(machine: Host, hook: Hook) -> None:
    web = hook.container("web")
    web.ip("link", "add", "lan0", "type", "bridge")
    said = hook("createRuntime", "web", networks="front,back", **{"back.ifname": "lan0"})
    assert "lan0" in said
    assert machine.api.get("/endpoints") == []
    assert "eth0" not in web.ip("link")


def test_any_answer_is_one_line(machine: Host, hook: Hook) -> None:
    hook.container("web")
    wrong: list[dict[str, Any]] = [
        {"networks": "a\nb"},
        {"x\ny": "z"},
        {"publish": "8080:80\n\n"},
        {"mac": "\x1b[31m"},
    ]
    for annotations in wrong:
        said = hook("createRuntime", "web", **annotations)
        assert len(said.splitlines()) <= 1
        assert said.rstrip("\n").isprintable()
