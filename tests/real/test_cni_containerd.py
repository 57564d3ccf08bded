"""containerd on our network: `ctr run --cni` as go-cni does it, from the directories that `sealane cni install` knows."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.audit import audit
from harness.host import Host, Lan
from harness.netns import eventually
from harness.podman import rootfs

pytestmark = [pytest.mark.real, pytest.mark.kernel]

for program in ("containerd", "ctr", "runc", "busybox"):
    if not shutil.which(program, path="/usr/sbin:/usr/bin:/bin"):
        pytest.skip(f"needs {program}", allow_module_level=True)

NUMBER = 34
TIMEOUT_S = 30
ADDRESS = "/run/containerd-test/containerd.sock"
SETTINGS = """version = 2
root = "{root}"
state = "/run/containerd-test/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = "{address}"
"""


class Containerd:
    """With its root, state and socket in the host's namespaces."""

    def __init__(self, host: Host, directory: Path) -> None:
        self.host = host
        self.inside = ["nsenter", f"--net={host.ns.path}", f"--mount=/proc/{host.ns.pid}/ns/mnt", "--"]
        settings = directory / "config.toml"
        settings.write_text(SETTINGS.format(root=directory / "root", address=ADDRESS))
        self._log = (directory / "log").open("wb")
        self._process = subprocess.Popen(
            [*self.inside, "containerd", "--config", str(settings)], stdout=self._log, stderr=self._log
        )
        eventually(lambda: self.ctr("version", check=False).returncode == 0, TIMEOUT_S, "containerd answers")

    def ctr(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        command = [*self.inside, "ctr", "--address", ADDRESS, *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
        assert not check or done.returncode == 0, f"{' '.join(words)}: {done.stderr}{done.stdout}"
        return done

    def run(self, image: Path, name: str, *command: str) -> subprocess.Popen[str]:
        """In the foreground, as `ctr` takes the network away when its container ends."""
        words = ("run", "--rm", "--cni", "--rootfs", str(image), name, *command)
        return subprocess.Popen(
            [*self.inside, "ctr", "--address", ADDRESS, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(TIMEOUT_S)
        self._log.close()


@pytest.fixture(scope="module")
def machine(lan: Lan) -> Iterator[Host]:
    with Host(lan, number=NUMBER).start() as host:
        for place in ("/opt", "/etc/cni"):
            if not os.path.isdir(place):
                pytest.skip(f"{place} is not there to be mounted over")
            host.ns.sh("mount", "-t", "tmpfs", "tmpfs", place)
        host.sealane("cni", "install", "--subnet", "10.88.0.0/24", "--subnet", "fd00:88::/64")
        yield host
        assert audit(host) == []


@pytest.fixture(scope="module")
def containerd(machine: Host, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Containerd]:
    made = Containerd(machine, tmp_path_factory.mktemp("containerd"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rootfs(tmp_path_factory.mktemp("image"))


def test_a_task_has_its_address_and_leaves_nothing(
    machine: Host, containerd: Containerd, image: Path
) -> None:
    process = containerd.run(image, "web", "/bin/sleep", "60")
    endpoint = eventually(lambda: machine.api.get("/endpoints"), 15, "web is attached")[0]
    try:
        assert endpoint["labels"]["sealane.cni.container"] == "default-web"
        assert endpoint["addresses"] == ["10.88.0.2/24", "fd00:88::2/64"]
        for address in ("10.88.0.2", "fd00:88::2"):
            assert machine.ns.run("ping", "-c1", "-W2", address).returncode == 0
    finally:
        containerd.ctr("task", "kill", "-s", "KILL", "web", check=False)
        process.communicate(timeout=TIMEOUT_S)
    assert machine.api.get("/endpoints") == []
    assert machine.api.get("/sandboxes") == []


def test_a_task_reaches_the_world(lan: Lan, machine: Host, containerd: Containerd, image: Path) -> None:
    process = containerd.run(image, "client", "/bin/sh", "-c", "/bin/sleep 1; /bin/ping -c1 -W2 192.0.2.200")
    out, _ = process.communicate(timeout=TIMEOUT_S)
    assert "1 packets received" in out
    assert machine.api.get("/endpoints") == []


def test_without_a_daemon_the_task_fails_with_our_words(
    machine: Host, containerd: Containerd, image: Path
) -> None:
    machine.stop()
    try:
        out, _ = containerd.run(image, "late", "/bin/sleep", "60").communicate(timeout=TIMEOUT_S)
        assert "no sealane daemon at" in out
    finally:
        machine.start()
        containerd.ctr("task", "kill", "-s", "KILL", "late", check=False)
        containerd.ctr("container", "rm", "late", check=False)
