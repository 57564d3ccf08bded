"""CNI calls as they should not come: of one container at once, out of order, killed at any system call they make."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.audit import audit
from harness.cni import CniFailed, CniRuntime, conflist, ranges
from harness.host import Host, Lan
from harness.netns import Netns, eventually

pytestmark = pytest.mark.kernel

NUMBER = 41
NETWORK = conflist(ipam=ranges("10.88.0.0/24", "fd00:88::/64"))
PORTS = [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]


@pytest.fixture(scope="module")
def machine(lan: Lan) -> Iterator[Host]:
    with Host(lan, number=NUMBER).start() as host:
        yield host


@pytest.fixture
def runtime(machine: Host, tmp_path: Path) -> Iterator[CniRuntime]:
    """Whatever a test leaves is taken away by one DEL, however it came about."""
    runtime = CniRuntime(machine, str(tmp_path))
    yield runtime
    runtime.delete(NETWORK, "c1")
    assert machine.api.status()["endpoints"] == machine.api.status()["sandboxes"] == 0
    for network in machine.api.get("/networks"):
        machine.api.remove_network(network["name"])
    assert machine.api.audit() == audit(machine) == []


@pytest.fixture
def pod() -> Iterator[Netns]:
    with Netns("pod") as pod:
        yield pod


def attached(machine: Host, pod: Netns) -> bool:
    """Wholly, or not at all."""
    inside = [link["ifname"] for link in pod.json("ip", "link") if link["ifname"] != "lo"]
    outside = [link for link in machine.ns.json("ip", "link") if link["ifname"].startswith("sle")]
    known = machine.api.get("/endpoints")
    assert len(inside) == len(outside) == len(known) <= 1
    assert machine.api.audit() == []
    return bool(known)


def test_fifty_calls_at_once_about_one_container(machine: Host, runtime: CniRuntime, pod: Netns) -> None:
    """No runtime may do so, and one that was restarted does. Each is answered as if it were alone: a DEL succeeds, an
    ADD succeeds; then it is there or it is not."""
    adds = [lambda: runtime.add(NETWORK, "c1", pod.path, portMappings=PORTS)] * 25
    deletes = [lambda: runtime.delete(NETWORK, "c1", pod.path, portMappings=PORTS)] * 25
    mixed: list[Callable[[], Any]] = [call for pair in zip(adds, deletes, strict=True) for call in pair]
    answers = runtime.together(*mixed)
    assert [a for a in answers if isinstance(a, CniFailed)] == []
    assert {a["ips"][0]["address"].partition("/")[2] for a in answers if a is not None} == {"24"}
    attached(machine, pod)
    result = runtime.add(NETWORK, "c1", pod.path, portMappings=PORTS)
    assert attached(machine, pod)
    runtime.check(NETWORK, "c1", pod.path, portMappings=PORTS)
    shown = {i["local"] for i in pod.json("ip", "addr", "show", "eth0")[0]["addr_info"]}
    assert {ip["address"].partition("/")[0] for ip in result["ips"]} <= shown


def test_a_del_comes_before_its_add(machine: Host, runtime: CniRuntime, pod: Netns) -> None:
    """Nothing is remembered of it: the ADD that follows is an ADD, and the DEL that follows that one takes it away."""
    runtime.delete(NETWORK, "c1", pod.path)
    assert machine.api.get("/networks") == [], "no network is made to take something away from it"
    first = runtime.add(NETWORK, "c1", pod.path)
    runtime.delete(NETWORK, "c1", "/run/netns/another")
    assert not attached(machine, pod)
    again = runtime.add(NETWORK, "c1", pod.path)
    assert [ip["gateway"] for ip in again["ips"]] == [ip["gateway"] for ip in first["ips"]]


def test_check_after_drift_and_after_its_repair(machine: Host, runtime: CniRuntime, pod: Netns) -> None:
    runtime.add(NETWORK, "c1", pod.path)
    for damage in (
        ("addr", "flush", "dev", "eth0"),
        ("link", "set", "eth0", "down"),
        ("route", "del", "default"),
        ("route", "flush", "table", "main"),
        ("-6", "route", "flush", "table", "main"),
    ):
        pod.ip(*damage)
        with pytest.raises(CniFailed, match="c1, eth0 on network pods") as caught:
            runtime.check(NETWORK, "c1", pod.path)
        assert caught.value.code == 100, damage
        machine.sealane("gc")
        runtime.check(NETWORK, "c1", pod.path)
    pod.ip("link", "del", "eth0")
    eventually(lambda: _passes(runtime, pod), what="the daemon has seen it by itself, and made it anew")
    machine.ns.sh("nft", "flush", "ruleset")
    eventually(lambda: machine.api.audit() == [], what="and so outside")
    runtime.check(NETWORK, "c1", pod.path)


def _passes(runtime: CniRuntime, pod: Netns) -> bool:
    try:
        runtime.check(NETWORK, "c1", pod.path)
    except CniFailed:
        return False
    return True


CALLS = "socket,connect,sendto,sendmsg,recvfrom,recvmsg,read,write,exit_group"
"""Where the executable touches what is outside of it."""

needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")


class Traced:
    """Calls of the executable under strace, which kills it at the entry of one of its system calls."""

    def __init__(self, runtime: CniRuntime, folder: Path, netns: str) -> None:
        self._runtime, self._log, self._netns = runtime, folder / "strace.log", netns

    def __call__(self, verb: str, options: tuple[str, ...]) -> int:
        host = self._runtime.host
        plugin = {**NETWORK["plugins"][0], "runtimeConfig": {"portMappings": PORTS}}
        config = {**plugin, "cniVersion": NETWORK["cniVersion"], "name": NETWORK["name"]}
        inside = ["nsenter", f"--net={host.ns.path}", f"--mount=/proc/{host.ns.pid}/ns/mnt", "--"]
        environ = {"CNI_COMMAND": verb, "CNI_PATH": self._runtime.path, "CNI_CONTAINERID": "c1"}
        done = subprocess.run(
            [*inside, "strace", "-qq", "-o", str(self._log), *options, f"{self._runtime.bin_dir}/sealane"],
            input=json.dumps(config),
            env={**environ, "CNI_IFNAME": "eth0", "CNI_NETNS": self._netns, "PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        return done.returncode

    def points(self, verb: str) -> list[tuple[str, int]]:
        """Each (call, number) that a whole one makes from its first look at its input on."""
        assert self(verb, ("-e", f"trace={CALLS}")) == 0
        counts: dict[str, int] = {}
        found: list[tuple[str, int]] = []
        for line in self._log.read_text(encoding="utf-8").splitlines():
            name = re.match(r"\w+", line)
            if name is None:
                continue
            counts[name[0]] = counts.get(name[0], 0) + 1
            if found or line.startswith("read(0,"):
                found.append((name[0], counts[name[0]]))
        return found

    def killed_at(self, verb: str, call: str, number: int) -> None:
        inject = f"inject={call}:signal=SIGKILL:when={number}"
        assert self(verb, ("-e", f"trace={call}", "-e", inject)) != 0


@needs_strace
@pytest.mark.parametrize("then", ["ADD", "DEL"])
def test_an_add_is_killed_at_each_call_that_it_makes(
    machine: Host, runtime: CniRuntime, pod: Netns, tmp_path: Path, then: str
) -> None:
    """Whatever the daemon has heard of it by then: an ADD gives the one answer, a DEL leaves nothing."""
    traced = Traced(runtime, tmp_path, pod.path)
    points = traced.points("ADD")
    assert len(points) >= 6, points
    whole = runtime.add(NETWORK, "c1", pod.path, portMappings=PORTS)
    for call, number in points:
        runtime.delete(NETWORK, "c1", pod.path)
        traced.killed_at("ADD", call, number)
        attached(machine, pod)
        if then == "ADD":
            result = runtime.add(NETWORK, "c1", pod.path, portMappings=PORTS)
            assert result["ips"][0]["gateway"] == whole["ips"][0]["gateway"]
            assert runtime.add(NETWORK, "c1", pod.path, portMappings=PORTS) == result
            assert attached(machine, pod)
        else:
            runtime.delete(NETWORK, "c1", pod.path)
            assert not attached(machine, pod), (call, number)


@needs_strace
@pytest.mark.parametrize("then", ["ADD", "DEL"])
def test_a_del_is_killed_at_each_call_that_it_makes(
    machine: Host, runtime: CniRuntime, pod: Netns, tmp_path: Path, then: str
) -> None:
    traced = Traced(runtime, tmp_path, pod.path)
    points = traced.points("DEL")
    assert len(points) >= 5, points
    for call, number in points:
        runtime.add(NETWORK, "c1", pod.path, portMappings=PORTS)
        traced.killed_at("DEL", call, number)
        if then == "ADD":
            runtime.add(NETWORK, "c1", pod.path, portMappings=PORTS)
            assert attached(machine, pod), (call, number)
        else:
            runtime.delete(NETWORK, "c1", pod.path)
            assert not attached(machine, pod), (call, number)


def test_a_status_and_a_gc_without_a_daemon(machine: Host, runtime: CniRuntime) -> None:
    machine.kill9()
    try:
        with pytest.raises(CniFailed) as caught:
            runtime.status(NETWORK)
        assert caught.value.code == 50
        assert "sealane daemon" in caught.value.document["details"], "with what to start"
        with pytest.raises(CniFailed) as caught:
            runtime.gc(NETWORK, [])
        assert caught.value.code == 11
    finally:
        machine.start()
    runtime.status(NETWORK)
