"""Podman on a host: real containers of busybox, in stores of the test's own."""

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.host import Host
from harness.netns import Netns
from harness.patience import PATIENCE_S

TIMEOUT_S = 2 * PATIENCE_S
RUNTIME = "/usr/sbin/runc"
APPLETS = ("sh", "sleep", "nc", "ip", "cat", "nslookup", "ping", "httpd", "printf")
# Limits as they are here: podman would raise them, which it may not everywhere.
SETTINGS = """[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
[containers]
log_driver = "k8s-file"
default_ulimits = ["nofile=512:512", "nproc=512:512"]
"""


def rootfs(directory: Path) -> Path:
    """A file system of busybox alone."""
    for name in ("bin", "etc", "proc", "sys", "dev", "tmp", "run", "var"):
        (directory / name).mkdir(parents=True, exist_ok=True)
    shutil.copy("/bin/busybox" if os.path.exists("/bin/busybox") else "/usr/bin/busybox", directory / "bin")
    for name in APPLETS:
        if not (directory / "bin" / name).exists():
            (directory / "bin" / name).symlink_to("busybox")
    return directory


class PodmanFailed(AssertionError):
    pass


class Podman:
    """`environ` goes beside the test's own, `options` before each command."""

    def __init__(
        self,
        host: Host,
        directory: Path,
        environ: dict[str, str] | None = None,
        options: tuple[str, ...] = (),
    ) -> None:
        self.host, self.directory = host, directory
        self._options = options
        self.image = str(rootfs(directory / "image"))
        self._environ = {**os.environ, **(environ or {})}

    def __call__(self, *words: str, check: bool = True) -> str:
        inside = ["nsenter", f"--net={self.host.ns.path}", f"--mount=/proc/{self.host.ns.pid}/ns/mnt", "--"]
        places = [
            f"--root={self.directory}/root",
            "--runroot=/run/podman-test",
            "--tmpdir=/run/podman-test/tmp",
            "--storage-driver=vfs",
            f"--runtime={RUNTIME}",
            *self._options,
        ]
        done = subprocess.run(
            [*inside, "podman", *places, *words],
            env=self._environ,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        if check and done.returncode != 0:
            raise PodmanFailed(f"podman {' '.join(words)}: {done.stderr}{done.stdout}")
        return done.stdout.strip()

    def run(
        self, name: str, *options: str, command: tuple[str, ...] = ("sleep", "300")
    ) -> dict[str, dict[str, Any]]:
        """Its networks, as podman has them."""
        self("run", "-d", "--name", name, *options, "--rootfs", self.image, *command)
        return self.networks(name)

    def networks(self, name: str) -> dict[str, dict[str, Any]]:
        return dict(json.loads(self("inspect", name))[0]["NetworkSettings"]["Networks"])

    def inside(self, name: str) -> Netns:
        """The namespace of a container that runs."""
        return Netns.enter(name, f"/proc/{self('inspect', '--format', '{{.State.Pid}}', name)}/ns/net")

    def published(self, name: str) -> list[tuple[str, int, int]]:
        """Protocol, host port and own port, one by one, as podman has them."""
        told = json.loads(self("inspect", name))[0]["NetworkSettings"]["Ports"]
        places = [(*key.split("/"), int(at["HostPort"])) for key, found in told.items() for at in found or ()]
        return sorted((proto, number, int(own)) for own, proto, number in places)


def install(host: Host) -> None:
    """What a user types, and nothing else tells podman of sealane."""
    host.ns.sh("mount", "-t", "tmpfs", "tmpfs", "/etc/containers")
    # Podman makes the image of its pods' first containers itself, and asks this whether it may.
    policy = '{"default":[{"type":"insecureAcceptAnything"}]}'
    host.ns.sh("sh", "-c", f"printf '%s' '{policy}' >/etc/containers/policy.json")
    host.sealane("podman", "install", "--bin-dir", f"{host.dir}/bin")


@contextlib.contextmanager
def on_netavark(host: Host, directory: Path) -> Iterator[Podman]:
    """After `install`; at its end nothing is left."""
    config = f'{SETTINGS}[network]\nnetwork_config_dir = "{directory}/networks"\n'
    host.ns.sh("sh", "-c", f"printf '%s' '{config}' >/etc/containers/containers.conf")
    podman = Podman(host, directory)
    yield podman
    podman("pod", "rm", "-f", "-t", "0", "-a")
    podman("rm", "-f", "-t", "0", "-a")
    status = host.api.status()
    counts = (status["endpoints"], status["sandboxes"], status["networks"])
    assert counts == (0, 0, 0), "podman's teardown has taken all of it away"


def unanswered(podman: Podman, name: str, *addresses: str) -> list[tuple[str, str, int]]:
    """Of what a container publishes, where the host's own processes do not reach it."""
    found = []
    with podman.inside(name) as container:
        for proto, number, own in podman.published(name):
            servers = [container.listen(proto, wild, own) for wild in ("0.0.0.0", "::")]
            found += [
                (proto, address, number)
                for address in addresses
                if not any(podman.host.ns.reaches(server, address, number) for server in servers)
            ]
            for server in servers:
                server.close()
    return found
