"""dockerd while our daemon is away: it is answered at once, however the daemon went, and what it did meanwhile is made
true when the daemon is back."""

import json
import os
import shutil
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.docker import DOCKERD, PLUGIN_SOCKET
from harness.docker_rig import Rig, running
from harness.host import Lan
from harness.netns import eventually
from sealane.integrations.cnm.stand_in import MESSAGE

pytestmark = [pytest.mark.real, pytest.mark.kernel]

if DOCKERD is None:
    pytest.skip("needs dockerd (docker.io)", allow_module_level=True)

HOST_NUMBER = 65
RETRYING = "retrying in"
"""What dockerd logs before it waits."""


@pytest.fixture(scope="module")
def shared(lan: Lan) -> Iterator[Rig]:
    with running(lan, HOST_NUMBER) as rig:
        yield rig


@pytest.fixture
def rig(shared: Rig) -> Iterator[Rig]:
    with shared.cleared():
        yield shared


def away(rig: Rig, how: str) -> None:
    """Until requests are answered by somebody else."""
    if how == "stopped":
        rig.host.stop()
    else:
        rig.host.kill9()
    eventually(lambda: MESSAGE in said(rig), what="somebody answers in its place")


def said(rig: Rig) -> str:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(rig.host.path(PLUGIN_SOCKET))
        sock.settimeout(20)
        sock.sendall(b"POST /Plugin.Activate HTTP/1.1\r\nHost: \r\nContent-Length: 2\r\n\r\n{}")
        return sock.recv(4096).decode()


class Log:
    """What dockerd logs from now on."""

    def __init__(self, rig: Rig) -> None:
        self._path = Path(rig.docker.log)
        self._begun = self._path.stat().st_size

    def waits(self) -> list[str]:
        text = self._path.read_text(encoding="utf-8", errors="replace")[self._begun :]
        return [line for line in text.splitlines() if RETRYING in line]


def works(rig: Rig) -> None:
    rig.published("127.0.0.1", 8080, "web")
    rig.reaches("db", "10.50.0.40", "web")
    assert rig.host.api.audit() == []


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_dockerd_is_answered_at_once_and_all_is_put_right(rig: Rig, how: str) -> None:
    rig.network("front")
    rig.serve("web", "front", "-p", "8080:80", "--ip", "10.50.0.40")
    rig.run("db", "front")
    rig.run("gone", "front")
    works(rig)
    away(rig, how)
    log = Log(rig)
    refused = rig.docker.run("run", "--rm", "--network", "front", "busybox", "true", check=False)
    assert refused.returncode
    assert MESSAGE in refused.stderr
    refused = rig.docker.run(
        "network",
        "create",
        "-d",
        "sealane",
        "--ipam-driver",
        "sealane",
        "--subnet",
        "10.51.0.0/24",
        "more",
        check=False,
    )
    assert MESSAGE in refused.stderr
    rig.published("127.0.0.1", 8080, "web")
    rig.docker("stop", "-t", "0", "web")
    rig.docker("rm", "-f", "gone")
    assert MESSAGE in rig.docker.run("start", "web", check=False).stderr
    assert log.waits() == [], "dockerd has waited for nothing"
    rig.start()
    rig.docker("start", "web")
    works(rig)
    # At once, or with the next look at all sandboxes if a process of the container was not quite gone yet.
    eventually(lambda: len(rig.endpoints()) == 2, 90, "what Docker has stopped meanwhile is gone")
    assert len(rig.links("sle")) == 2
    assert rig.links("slh") == []


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_a_restart_fails_no_call(rig: Rig, how: str) -> None:
    """What comes in between waits for the next daemon, as with a socket of systemd's. (A machine under load may take
    longer than the stand-in waits: not each time.)"""
    rig.network("front")
    log = Log(rig)

    def restarted() -> bool:
        (rig.host.stop if how == "stopped" else rig.host.kill9)()
        rig.host.start(options=("--docker-plugin-socket", PLUGIN_SOCKET), wait=False)
        done = rig.docker.run("run", "--rm", "--network", "front", "busybox", "true", check=False)
        rig.host.wait_ready()
        assert done.returncode == 0 or MESSAGE in done.stderr
        return done.returncode == 0

    assert any(restarted() for _ in range(5))
    assert len(rig.host.stand_ins()) == 1
    assert [line for line in log.waits() if "connection refused" in line or "no such file" in line] == []


def test_the_stand_in_dies_too(rig: Rig) -> None:
    (first,) = rig.host.stand_ins()
    os.kill(first, signal.SIGKILL)
    eventually(lambda: rig.host.stand_ins() not in ([], [first]), what="there is another")
    away(rig, "killed")
    rig.start()
    rig.network("front")
    rig.docker("run", "--rm", "--network", "front", "busybox", "true")


def test_both_die(rig: Rig) -> None:
    rig.host.kill9()
    for pid in rig.host.stand_ins():
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: rig.host.stand_ins() == [], what="both are gone")
    rig.start()
    rig.network("front")
    rig.docker("run", "--rm", "--network", "front", "busybox", "true")
    away(rig, "killed")
    rig.start()


def test_dockerd_is_started_while_we_are_away(rig: Rig) -> None:
    rig.network("front")
    rig.serve("web", "front", "-p", "8080:80", "--ip", "10.50.0.40")
    rig.run("db", "front")
    away(rig, "stopped")
    rig.docker.stop()
    log = Log(rig)
    rig.docker.start()
    assert log.waits() == []
    rig.published("127.0.0.1", 8080, "web")
    rig.start()
    works(rig)
    rig.docker("restart", "-t", "0", "web")
    works(rig)


def test_a_store_that_cannot_be_read(rig: Rig) -> None:
    """The daemon holds: it answers for itself."""
    rig.network("front")
    rig.run("web", "front")
    rig.host.stop()
    store = Path(rig.host.state_dir)
    kept = store.with_name("kept")
    store.rename(kept)
    shutil.copytree(kept, store)
    for file in store.glob("*.db"):
        file.write_bytes(b"no database at all" * 1000)
    rig.host.start(options=("--docker-plugin-socket", PLUGIN_SOCKET))
    assert rig.host.api.status()["state"] == "hold"
    log = Log(rig)
    refused = rig.docker.run("run", "--rm", "--network", "front", "busybox", "true", check=False)
    assert "sealane: " in refused.stderr
    rig.docker("stop", "-t", "0", "web")
    assert log.waits() == []
    rig.host.stop()
    shutil.rmtree(store)
    kept.rename(store)
    rig.start()
    rig.docker("start", "web")
    eventually(lambda: len(rig.endpoints()) == 1, 90, "what Docker has stopped meanwhile is gone")


def test_a_daemon_without_dockers_socket_sends_the_stand_in_away(rig: Rig) -> None:
    rig.host.stop()
    assert len(rig.host.stand_ins()) == 1
    rig.host.start()
    assert rig.host.stand_ins() == []
    assert not os.path.exists(rig.host.path(PLUGIN_SOCKET))
    rig.host.stop()
    rig.start()
    assert len(rig.host.stand_ins()) == 1


def test_who_deletes_the_socket_ends_the_stand_in(rig: Rig) -> None:
    away(rig, "stopped")
    os.unlink(rig.host.path(PLUGIN_SOCKET))
    eventually(lambda: rig.host.stand_ins() == [], what="it ends")
    rig.start()
    rig.network("front")
    rig.docker("run", "--rm", "--network", "front", "busybox", "true")
    view = json.loads(rig.docker("network", "inspect", "front"))
    assert view[0]["Driver"] == "sealane"
