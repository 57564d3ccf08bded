"""Debian's firewalld on a test host: with a bus of its own in the host's /run, and a copy of its configuration.

The bus has no service files, so nothing is started by a message (polkit would be); firewalld asks nobody about root.
"""

import contextlib
import os
import shutil
import subprocess

from harness.host import Host
from harness.netns import eventually

FIREWALLD = shutil.which("firewalld", path="/usr/sbin:/usr/bin")
DBUS_DAEMON = shutil.which("dbus-daemon", path="/usr/bin")
START_TIMEOUT_S = 40.0
BUS = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path=/run/dbus/system_bus_socket</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    <allow own="*"/>
    {denied}
  </policy>
</busconfig>
"""
DENIED = """<deny send_destination="org.fedoraproject.FirewallD1"
 send_interface="org.fedoraproject.FirewallD1.zone" send_member="addInterface"/>"""


def why_not() -> str:
    """Why firewalld cannot run here; empty: it can."""
    return "" if FIREWALLD and DBUS_DAEMON else "needs firewalld and dbus"


class Firewalld:
    """`denied`: the bus keeps anybody from adding links to a zone, as a policy of the administrator's would."""

    def __init__(self, host: Host, *, denied: bool = False) -> None:
        self.host = host
        self.log = os.path.join(host.dir, "firewalld.log")
        self._bus: subprocess.Popen[bytes] | None = None
        self._firewalld: subprocess.Popen[bytes] | None = None
        host.ns.sh("mkdir", "-p", "/run/dbus", "/run/firewalld-configuration")
        host.ns.sh("cp", "-a", "/etc/firewalld/.", "/run/firewalld-configuration")
        host.ns.sh("mount", "--bind", "/run/firewalld-configuration", "/etc/firewalld")
        self._bus_configuration = os.path.join(host.dir, "bus.conf")
        with open(self._bus_configuration, "w", encoding="utf-8") as file:
            file.write(BUS.format(denied=DENIED if denied else ""))

    def _popen(self, *command: str) -> subprocess.Popen[bytes]:
        inside = ("nsenter", f"--net={self.host.ns.path}", f"--mount=/proc/{self.host.ns.pid}/ns/mnt", "--")
        with open(self.log, "ab") as log:
            return subprocess.Popen([*inside, *command], stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def start_bus(self) -> None:
        assert DBUS_DAEMON is not None
        self._bus = self._popen(
            DBUS_DAEMON, f"--config-file={self._bus_configuration}", "--nofork", "--nopidfile"
        )
        eventually(self._has_bus, what="the bus is there")

    def _has_bus(self) -> bool:
        self._check(self._bus)
        return os.path.exists(self.host.path("/run/dbus/system_bus_socket"))

    def _check(self, process: "subprocess.Popen[bytes] | None") -> None:
        assert process is not None
        if process.poll() is not None:
            with open(self.log, encoding="utf-8", errors="replace") as file:
                raise AssertionError(f"it ended at its start:\n{file.read()[-4000:]}")

    def start(self) -> "Firewalld":
        if self._bus is None:
            self.start_bus()
        assert FIREWALLD is not None
        self._firewalld = self._popen(FIREWALLD, "--nofork", "--nopid", "--log-target", "console")
        eventually(self._is_ready, START_TIMEOUT_S, "firewalld runs")
        return self

    def _is_ready(self) -> bool:
        self._check(self._firewalld)
        return self.host.ns.run("firewall-cmd", "--state").returncode == 0

    def __call__(self, *options: str) -> str:
        """Run a `firewall-cmd` that must succeed; its standard output."""
        return self.host.ns.sh("firewall-cmd", *options).strip()

    def trusted(self) -> list[str]:
        return self("--zone=trusted", "--list-interfaces").split()

    def is_rejecting(self) -> bool:
        """Whether its rules are in force."""
        return "reject with icmpx" in self.host.ns.run("nft", "list", "table", "inet", "firewalld").stdout

    def stop(self) -> None:
        """Its rules go with it."""
        if self._firewalld is not None:
            self._firewalld.terminate()
            self._firewalld.wait(20)
            self._firewalld = None

    def kill9(self) -> None:
        """Its rules stay."""
        assert self._firewalld is not None
        self._firewalld.kill()
        self._firewalld.wait(20)
        self._firewalld = None

    def restart(self) -> None:
        self.stop()
        self.start()

    def close(self) -> None:
        for process in (self._firewalld, self._bus):
            if process is not None:
                process.kill()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(20)
