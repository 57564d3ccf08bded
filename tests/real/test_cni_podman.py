"""podman 4 with its CNI backend on our network: names, ports, addresses, several networks, and what `rm` leaves."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.audit import audit
from harness.cni import PLUGINS, CniRuntime
from harness.host import Host, Lan
from harness.netns import eventually

pytestmark = [pytest.mark.real, pytest.mark.kernel]

for program in ("podman", "runc", "busybox"):
    if not shutil.which(program, path="/usr/sbin:/usr/bin:/bin"):
        pytest.skip(f"needs {program}", allow_module_level=True)

NUMBER = 33
TIMEOUT_S = 60
# Limits as they are here: podman would raise them, which a container may not.
RUN = ("--runtime", "/usr/sbin/runc", "run", "--ulimit", "nofile=512:512", "--ulimit", "nproc=512:512")
SETTINGS = """[network]
network_backend = "cni"
cni_plugin_dirs = ["{bin_dir}", "{plugins}"]
network_config_dir = "{conf_dir}"
default_network = "pods"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
[containers]
log_driver = "k8s-file"
"""


def rootfs(directory: Path) -> Path:
    """A file system of busybox alone."""
    for name in ("bin", "etc", "proc", "sys", "dev", "tmp", "run", "var"):
        (directory / name).mkdir(parents=True, exist_ok=True)
    shutil.copy("/bin/busybox" if os.path.exists("/bin/busybox") else "/usr/bin/busybox", directory / "bin")
    for name in ("sh", "sleep", "nc", "ip", "cat", "nslookup", "ping", "httpd"):
        if not (directory / "bin" / name).exists():
            (directory / "bin" / name).symlink_to("busybox")
    return directory


class Podman:
    def __init__(self, host: Host, directory: Path) -> None:
        self.host, self.directory = host, directory
        self.runtime = CniRuntime(host, str(directory))
        self.image = str(rootfs(directory / "image"))
        (directory / "containers.conf").write_text(
            SETTINGS.format(bin_dir=self.runtime.bin_dir, plugins=PLUGINS, conf_dir=self.runtime.conf_dir)
        )

    def __call__(self, *words: str, check: bool = True) -> str:
        inside = ["nsenter", f"--net={self.host.ns.path}", f"--mount=/proc/{self.host.ns.pid}/ns/mnt", "--"]
        places = [
            f"--root={self.directory}/root",
            "--runroot=/run/podman-test",
            "--tmpdir=/run/podman-test/tmp",
            "--storage-driver=vfs",
        ]
        done = subprocess.run(
            [*inside, "podman", *places, *words],
            env={**os.environ, "CONTAINERS_CONF": str(self.directory / "containers.conf")},
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        assert not check or done.returncode == 0, f"podman {' '.join(words)}: {done.stderr}{done.stdout}"
        return done.stdout.strip()

    def run(self, name: str, *options: str, command: tuple[str, ...] = ("sleep", "300")) -> dict[str, Any]:
        """Its networks, as podman has them."""
        self(*RUN, "-d", "--name", name, *options, "--rootfs", self.image, *command)
        return dict(json.loads(self("inspect", name))[0]["NetworkSettings"]["Networks"])


@pytest.fixture(scope="module")
def machine(lan: Lan) -> Iterator[Host]:
    with Host(lan, number=NUMBER).start() as host:
        host.ns.sh("mount", "-t", "tmpfs", "tmpfs", "/var/lib/cni") if os.path.isdir("/var/lib/cni") else None
        yield host
        assert audit(host) == []


@pytest.fixture
def podman(machine: Host, tmp_path: Path) -> Iterator[Podman]:
    podman = Podman(machine, tmp_path)
    yield podman
    podman("rm", "-f", "-t", "0", "-a")
    status = machine.api.status()
    assert (status["endpoints"], status["sandboxes"]) == (0, 0), "podman's DEL has taken all of it away"
    for network in machine.api.get("/networks"):
        machine.api.remove_network(network["name"])


def test_a_container_has_its_address_its_name_and_its_port(lan: Lan, machine: Host, podman: Podman) -> None:
    networks = podman.run("web", "-p", "8080:80", command=("httpd", "-f", "-p", "80", "-h", "/etc"))
    (endpoint,) = machine.api.get("/endpoints")
    assert endpoint["name"] == "web"
    assert endpoint["ports"] == ["*:8080->80/tcp"]
    assert networks["pods"]["IPAddress"] == endpoint["addresses"][0].partition("/")[0]
    assert networks["pods"]["MacAddress"] == endpoint["mac"]
    url = f"http://{machine.address(4)}:8080/hostname"
    assert eventually(lambda: lan.ext.run("curl", "-s", "-m2", url), 5).stdout.strip()
    podman.run("client")
    assert endpoint["addresses"][0].partition("/")[0] in podman(
        "exec", "client", "nslookup", "web", endpoint["dns"][0]
    )
    podman("rm", "-f", "-t", "0", "web")
    assert [e["name"] for e in machine.api.get("/endpoints")] == ["client"]


def test_addresses_and_macs_asked_for_are_given(podman: Podman, machine: Host) -> None:
    machine.sealane("network", "create", "--subnet", "10.88.0.0/24", "pods")
    networks = podman.run("web", "--ip", "10.88.0.77", "--mac-address", "02:00:00:00:00:77")
    assert networks["pods"]["IPAddress"] == "10.88.0.77"
    assert networks["pods"]["MacAddress"] == "02:00:00:00:00:77"


def test_a_restart_is_a_new_namespace_and_one_attachment(podman: Podman, machine: Host) -> None:
    podman.run("web")
    first = machine.api.get("/endpoints")[0]
    podman("restart", "-t", "0", "web")
    (second,) = machine.api.get("/endpoints")
    assert second["netns"] != first["netns"]


def test_a_container_that_is_killed_is_released(podman: Podman, machine: Host) -> None:
    podman.run("web")
    podman("kill", "web")
    podman("rm", "-f", "web")
    assert machine.api.get("/endpoints") == []


def test_a_port_in_use_is_told_in_our_words_and_nothing_stays(podman: Podman, machine: Host) -> None:
    podman.run("web", "-p", "8080:80")
    with pytest.raises(AssertionError, match="held by endpoint web"):
        podman.run("other", "-p", "8080:80")
    assert [e["name"] for e in machine.api.get("/endpoints")] == ["web"]


def test_without_a_daemon_podman_says_what_to_start(podman: Podman, machine: Host) -> None:
    machine.stop()
    try:
        with pytest.raises(AssertionError, match="no sealane daemon at"):
            podman.run("web")
    finally:
        machine.start()
