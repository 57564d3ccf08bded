"""A host whose first process is systemd: the machine's own, with our units and none of the machine's.

It is process 1 of a PID namespace, has a control group of the machine's cgroup2 for its root, and sees /usr as it is.
What it could change of the machine is read-only or another: /proc/sys but for `net`, /run, /etc/systemd/system,
/etc/docker, /var/lib, /usr/local/bin. Units of Debian's that would (udev, sysctl, tmpfiles) are not on its path, nor are generators.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from harness.api import Api
from harness.host import ROOT, Host, Lan, Workload
from harness.netns import Netns, eventually
from harness.patience import PATIENCE_S

SYSTEMD = "/lib/systemd/systemd"
SHIPPED = Path(ROOT) / "packaging" / "systemd"
DEBIANS = Path("/lib/systemd/system")
TARGETS = (
    "sysinit",
    "basic",
    "sockets",
    "multi-user",
    "shutdown",
    "local-fs",
    "network-pre",
    "slices",
    "timers",
    "paths",
)
BOOT_TIMEOUT_S = 2 * PATIENCE_S
API = "/run/sealane/sealane.sock"
PLUGIN = "/run/docker/plugins/sealane.sock"

BOOT = """
set -e
mount -t sysfs sysfs /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t bpf -o mode=0700 bpf /sys/fs/bpf
for part in fs kernel vm; do mount --bind -o ro /proc/sys/$part /proc/sys/$part; done
if [ -d /etc/docker ]; then mount -t tmpfs tmpfs /etc/docker; fi
mount --bind "$0/boot_id" /proc/sys/kernel/random/boot_id
mount --bind "$0/etc" /etc/systemd/system
mount --bind "$0/lib" /var/lib
mount -t overlay -o lowerdir="$0/bin":/usr/local/bin overlay /usr/local/bin
export container=sealane-test SYSTEMD_UNIT_PATH="/etc/systemd/system:$0/targets" SYSTEMD_GENERATOR_PATH=/nonexistent
exec "$1" --system --unit=multi-user.target --log-target=console --log-level=info --show-status=no
"""
"""With the host's directory and systemd. In a container, as `container=` says, it leaves the hardware alone, and takes
no kernel command line for its own."""


def cgroup2() -> str:
    """Where the machine's cgroup2 is mounted; empty: nowhere."""
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        found = [line.split() for line in file if " - cgroup2 " in line]
    return next((fields[4] for fields in found if fields[3] == "/"), "")


def why_not() -> str:
    """Why systemd cannot be booted here; empty: it can."""
    if os.geteuid() != 0:
        return "needs root: systemd mounts a cgroup2 of its own"
    if not os.access(SYSTEMD, os.X_OK):
        return "needs systemd"
    return "" if cgroup2() else "needs a cgroup2 hierarchy"


class Machine(Host):
    """`host.start()` is not for it: whether our daemon runs is up to systemd."""

    def __init__(self, lan: Lan | None, number: int = 1) -> None:
        self._unshare: subprocess.Popen[bytes] | None = None
        self._group = ""
        super().__init__(lan, number)

    def boot(self) -> None:
        self._install()
        # A socket belongs to the control group that its process was in when it made it: loopback publishing asks.
        self._group = os.path.join(cgroup2(), f"sealane-test-{os.getpid()}-{self.number}")
        os.makedirs(f"{self._group}/people", exist_ok=True)
        super().boot()
        Path(self._group, "people", "cgroup.procs").write_text(f"{self.ns.pid}\n", encoding="ascii")
        inside = ("nsenter", f"--net={self.ns.path}", f"--mount=/proc/{self.ns.pid}/ns/mnt", "--")
        apart = (
            "unshare",
            "--mount",
            "--propagation",
            "private",
            "--pid",
            "--fork",
            "--uts",
            "--ipc",
            "--cgroup",
            "--mount-proc",
        )
        join = f'echo 0 >{self._group}/cgroup.procs; exec "$@"'
        with open(self.stderr_path, "ab") as log:
            self._unshare = subprocess.Popen(
                ["sh", "-c", join, "sh", *inside, *apart, "--", "bash", "-c", BOOT, self.dir, SYSTEMD],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        eventually(lambda: self._child() and self._child_is_systemd(), BOOT_TIMEOUT_S, "systemd is process 1")
        self.init = self._child()
        self.socket_path = API
        self.api = Api(self.path(API))
        eventually(self._is_up, BOOT_TIMEOUT_S, "systemd has booted")

    def _install(self) -> None:
        for name in ("etc", "lib", "bin", "targets"):
            os.makedirs(f"{self.dir}/{name}", exist_ok=True)
        self.state_dir = "/var/lib/sealane"
        for unit in SHIPPED.iterdir():
            if not os.path.exists(f"{self.dir}/etc/{unit.name}"):
                shutil.copy(unit, f"{self.dir}/etc")
        for target in TARGETS:
            shutil.copy(DEBIANS / f"{target}.target", f"{self.dir}/targets")
        program = Path(self.dir, "bin", "sealane")
        # The daemon's log would go to a journal, which does not run here.
        program.write_text(
            f'#!/bin/sh\nexec {sys.executable} -m sealane "$@" 2>>{self.stderr_path}\n', encoding="utf-8"
        )
        program.chmod(0o755)

    def _child(self) -> int:
        assert self._unshare is not None
        if self._unshare.poll() is not None:
            raise AssertionError(f"systemd did not start:\n{self.stderr()}")
        pid = self._unshare.pid
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
            return int((file.read().split() or ["0"])[0])

    def _child_is_systemd(self) -> bool:
        return os.path.realpath(f"/proc/{self._child()}/exe") == os.path.realpath(SYSTEMD)

    def _is_up(self) -> bool:
        return self.run("systemctl", "is-system-running", check=False) in ("running", "degraded")

    def path(self, inside: str) -> str:
        """Mounts that the daemon makes are seen by systemd, and not by the agent."""
        return f"/proc/{self.init}/root{inside}"

    def command(self, *argv: str) -> list[str]:
        kinds = ("net", "mnt", "pid", "cgroup", "uts", "ipc")
        where = [f"--{'mount' if kind == 'mnt' else kind}=/proc/{self.init}/ns/{kind}" for kind in kinds]
        return ["nsenter", *where, "--", *argv]

    def run(self, *argv: str, check: bool = True, timeout_s: float = 2 * PATIENCE_S) -> str:
        """A command beside systemd; its standard output."""
        done = subprocess.run(
            self.command(*argv),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            env={**os.environ, "SEALANE_SOCKET": API},
        )
        if check and done.returncode != 0:
            raise AssertionError(
                f"{' '.join(argv)}: exit {done.returncode}: {done.stderr}{done.stdout}\n{self.stderr()}"
            )
        return done.stdout.strip()

    def systemctl(self, *argv: str) -> str:
        return self.run("systemctl", *argv)

    def show(self, unit: str, name: str) -> str:
        return self.run("systemctl", "show", "--value", "--property", name, unit)

    def main_pid(self) -> int:
        """The daemon's, as the test process knows it."""
        inner = self.show("sealane.service", "MainPID")
        with open(f"{self._group}/system.slice/sealane.service/cgroup.procs", encoding="ascii") as file:
            for pid in file.read().split():
                with open(f"/proc/{pid}/status", encoding="utf-8") as status:
                    if next(line for line in status if line.startswith("NSpid:")).split()[-1] == inner:
                        return int(pid)
        raise AssertionError(f"no process of the unit is {inner}")

    def power_off(self) -> None:
        """All processes of a PID namespace go with its first."""
        if self._unshare is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.init, signal.SIGKILL)
            self._unshare.wait(100)
            self._unshare = None
        super().power_off()
        for folder, _, _ in os.walk(self._group, topdown=False):
            eventually(lambda where=folder: _is_removed(where), what=f"{folder} is empty")


def _is_removed(group: str) -> bool:
    """Of a process that has just died its control group knows a moment longer."""
    with contextlib.suppress(OSError):
        os.rmdir(group)
    return not os.path.exists(group)


class NamedWorkload(Workload):
    """Its namespace is what `ip netns add` makes: a file under /run/netns, where systemd's daemon sees it, too."""

    def __init__(self, machine: Machine, name: str) -> None:
        machine.run("ip", "netns", "add", name)
        self.machine, self.host, self.name = machine, machine, name
        self.inside = f"/run/netns/{name}"
        self.ns = Netns.enter(name, machine.path(self.inside))
        self.endpoints = {}

    def attach(self, network: str, **fields: Any) -> dict[str, Any]:
        fields.setdefault("name", self.name)
        self.endpoints[network] = self.host.api.attach(self.inside, network, **fields)
        return self.endpoints[network]

    def close(self) -> None:
        for network in list(self.endpoints):
            self.detach(network)
        self.ns.close()
        self.machine.run("ip", "netns", "del", self.name)
