"""`docker run` on our network and on Docker's own bridge, one dockerd for both, so that what both suffer is the same."""

import contextlib
import io
import os
import shutil
import signal
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Mapping, Sequence

from bench.daemon import DaemonHost
from bench.host import Host, HostError, mount, run
from bench.peers import PORT_FIRST
from bench.report import Goal, Row, interleave, median, paired

ROUNDS = 15
START_TIMEOUT_S = 40.0
STOP_TIMEOUT_S = 30.0
DOCKERD = "/usr/sbin/dockerd"
DOCKER = "/usr/bin/docker"
"""Debian's, of the daemon's own version."""
SOCKET = "/run/docker.sock"
PLUGIN_SOCKET = "/run/docker/plugins/sealane.sock"

NETWORKS = {
    "ours": ("-d", "sealane", "--ipam-driver", "sealane", "--subnet", "10.68.0.0/16"),
    "by docker": (
        "-d",
        "sealane",
        "--ipam-driver",
        "sealane",
        "--subnet",
        "10.69.0.0/16",
        "-o",
        "sealane.ports=docker",
    ),
    "theirs": ("-d", "bridge", "--subnet", "10.70.0.0/16"),
}


NONE = "none"
"""Docker's own name for no network at all: what everything else of a start takes."""

NOT_SLOWER = Goal("at least", 0.97)
"""Of two starts of some 400 ms a few per cent are chance."""


def asked(network: str, port: int) -> list[str]:
    """The words of `docker run` with one port published; without a network there is none to publish."""
    ports = [] if network == NONE else ["-p", f"{port}:80"]
    return ["run", "-d", "--network", network.replace(" ", "-"), *ports, "still", "/bin/sleep", "600"]


class DockerHost(DaemonHost):
    """Both daemons, a network of each kind, and an image of one static program."""

    def __init__(self) -> None:
        os.environ["SEALANE_DOCKER_PLUGIN_SOCKET"] = PLUGIN_SOCKET
        super().__init__(0, networks=())
        self._root = tempfile.mkdtemp(prefix="sealane-bench-docker-", dir="/var/tmp")
        self._dockerd: subprocess.Popen[bytes] | None = None
        self._port = PORT_FIRST
        try:
            self._start_docker()
            self._import_image()
            for name, options in NETWORKS.items():
                self._docker("network", "create", *options, name.replace(" ", "-"))
        except BaseException:
            self.close()
            raise

    def _start_docker(self) -> None:
        os.makedirs("/etc/docker", exist_ok=True)
        mount("tmpfs", "/etc/docker", "tmpfs")
        roots = ("--data-root", f"{self._root}/data", "--exec-root", f"{self._root}/exec")
        where = ("--host", f"unix://{SOCKET}", "--pidfile", f"{self._root}/pid", "--storage-driver", "vfs")
        with open(f"{self._root}/log", "wb") as log:
            self._dockerd = subprocess.Popen(
                [DOCKERD, *where, *roots, "--log-level", "error"], stdout=log, stderr=log
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                self._docker("version")
            except HostError:
                if self._dockerd.poll() is not None or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
            else:
                return

    def _docker(self, *argv: str) -> str:
        return run(DOCKER, "--host", f"unix://{SOCKET}", *argv)

    def _import_image(self) -> None:
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            tar.add("/usr/bin/busybox", "bin/sleep")
        importing = [DOCKER, "--host", f"unix://{SOCKET}", "import", "-", "still"]
        subprocess.run(importing, input=archive.getvalue(), stdout=subprocess.DEVNULL, check=True)

    def run_on(self, network: str) -> float:
        """Seconds of `docker run -d`. The container is gone afterwards."""
        self._port += 1
        words = asked(network, self._port)
        started = time.perf_counter()
        identity = self._docker(*words)
        took = time.perf_counter() - started
        self._docker("rm", "-f", identity.strip())
        return took

    def close(self) -> None:
        if self._dockerd is not None:
            self._dockerd.send_signal(signal.SIGTERM)
            try:
                self._dockerd.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._dockerd.kill()
                self._dockerd.wait()
        with contextlib.suppress(OSError):
            shutil.rmtree(self._root, ignore_errors=True)
        super().close()


def starts() -> list[Row]:
    """`docker run`; the time that Docker takes without any network is told beside it."""
    with Host(DockerHost) as host:
        took = interleave(
            ROUNDS,
            {name: lambda _, on=name: host("run_on", on) for name in (*NETWORKS, NONE)},  # type: ignore[misc]
        )
    return rows(took)


def rows(took: Mapping[str, Sequence[float]]) -> list[Row]:
    """By network, the seconds of each round."""
    without = median(took[NONE])
    return [
        Row(
            benchmark="docker run -d -p",
            what=what,
            ours=median(took[ours]),
            unit="s",
            peer="Docker's bridge",
            theirs=median(took["theirs"]),
            ratio=paired(took["theirs"], took[ours]),
            goal=NOT_SLOWER if ours == "ours" else None,
            note=f"`--network none` takes {without * 1000:.0f} ms",
        )
        for ours, what in (("ours", "published by sealane"), ("by docker", "published by Docker"))
    ]
