"""A dockerd of its own on a test host: in the host's namespaces, with its own /run, data and execution roots.

Facts of dockerd 20.10.24 in such a place: it looks for plugins at /run/docker/plugins whatever its roots are; killed, it
leaves a containerd behind, and a `containerd.pid` that makes the next start fail should the number be taken by then.
"""

import contextlib
import io
import os
import shutil
import signal
import subprocess
import tarfile

from harness.host import Host
from harness.netns import eventually
from harness.patience import PATIENCE_S

PLUGIN_SOCKET = "/run/docker/plugins/sealane.sock"
START_TIMEOUT_S = STOP_TIMEOUT_S = 2 * PATIENCE_S
BUSYBOX = "/usr/bin/busybox"
APPLETS = ("sh", "sleep", "ping", "nc", "ip", "cat", "nslookup", "echo", "true")

DOCKERD = shutil.which("dockerd", path="/usr/sbin:/usr/bin")
DOCKER = "/usr/bin/docker"
"""Debian's CLI, of the daemon's own version."""

COMPOSE = shutil.which("docker-compose", path="/usr/bin")
"""Debian's, 1.29.2: the last in Python."""


class Docker:
    """`options` go to every start of the daemon."""

    def __init__(self, host: Host, *options: str) -> None:
        self.host = host
        self.root = os.path.join(host.dir, "docker")
        self.socket = os.path.join(host.dir, "docker.sock")
        self.options = options
        self.log = os.path.join(host.dir, "dockerd.log")
        self.daemon: subprocess.Popen[bytes] | None = None
        self._containerd = 0
        # The machine's own /etc/docker may say anything.
        os.makedirs("/etc/docker", exist_ok=True)
        host.ns.sh("mount", "-t", "tmpfs", "tmpfs", "/etc/docker")

    def start(self) -> "Docker":
        exec_root = f"{self.root}/exec"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{exec_root}/containerd/containerd.pid")
        assert DOCKERD is not None
        command = (
            DOCKERD,
            "--host",
            f"unix://{self.socket}",
            "--data-root",
            f"{self.root}/data",
            "--exec-root",
            exec_root,
            "--pidfile",
            f"{self.root}/docker.pid",
            "--storage-driver",
            "vfs",
            "--log-level",
            "warn",
            *self.options,
        )
        inside = ("nsenter", f"--net={self.host.ns.path}", f"--mount=/proc/{self.host.ns.pid}/ns/mnt", "--")
        os.makedirs(self.root, exist_ok=True)
        with open(self.log, "ab") as log:
            self.daemon = subprocess.Popen(
                [*inside, *command], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        eventually(self._is_ready, START_TIMEOUT_S, "dockerd answers")
        with contextlib.suppress(OSError, ValueError), open(f"{exec_root}/containerd/containerd.pid") as file:
            self._containerd = int(file.read())
        return self

    def _is_ready(self) -> bool:
        assert self.daemon is not None
        if self.daemon.poll() is not None:
            with open(self.log, encoding="utf-8", errors="replace") as log:
                raise AssertionError(f"dockerd ended at its start:\n{log.read()[-4000:]}")
        return self.run("version", "--format", "{{.Server.Version}}", check=False).returncode == 0

    def run(
        self, *argv: str, check: bool = True, timeout_s: float = 2 * PATIENCE_S
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [DOCKER, "--host", f"unix://{self.socket}", *argv],
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        if check and done.returncode != 0:
            raise AssertionError(
                f"docker {' '.join(argv)}: exit {done.returncode}: {done.stderr or done.stdout}"
            )
        return done

    def __call__(self, *argv: str) -> str:
        """Run a `docker` command that must succeed; its standard output."""
        return self.run(*argv).stdout.strip()

    def import_busybox(self) -> None:
        import_busybox(self.socket)

    def kill9(self) -> None:
        """dockerd alone, as an out-of-memory killer would; its containers and containerd live on."""
        assert self.daemon is not None
        self._child_kill(signal.SIGKILL)
        self.daemon.wait(STOP_TIMEOUT_S)
        self.daemon = None

    def stop(self) -> None:
        if self.daemon is None:
            return
        self._child_kill(signal.SIGTERM)
        self.daemon.wait(STOP_TIMEOUT_S)
        self.daemon = None

    def _child_kill(self, number: int) -> None:
        """nsenter has become dockerd: it enters no PID namespace, so it does not fork."""
        assert self.daemon is not None
        self.daemon.send_signal(number)

    def close(self) -> None:
        """Remove all containers and end everything that was started."""
        if self.daemon is None:
            self.start()
        identities = self("ps", "-aq").split()
        if identities:
            self.run("rm", "-f", *identities, check=False)
        self.stop()
        if self._containerd:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._containerd, signal.SIGTERM)


def import_busybox(socket: str) -> None:
    """The image `busybox`, of the machine's own static one."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.add(BUSYBOX, "bin/busybox")
        for applet in APPLETS:
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
        for directory in ("tmp", "etc", "proc", "sys", "dev"):
            entry = tarfile.TarInfo(directory)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777
            tar.addfile(entry)
    subprocess.run(
        [DOCKER, "--host", f"unix://{socket}", "import", "-", "busybox"],
        input=archive.getvalue(),
        capture_output=True,
        check=True,
        timeout=2 * PATIENCE_S,
    )
