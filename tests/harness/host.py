"""Hosts: each a network and a mount namespace with a daemon of its own, joined by a bridge that stands for the LAN.

             ext .200 (hostile neighbour, and the way out)
              |
host1 .11 --[lan .1]-- host2 .12 …      192.0.2.0/24, 2001:db8::/64
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from typing import Any, ClassVar, Self

from harness.api import Api
from harness.forked import Forked, WarmParent, may_fork
from harness.netns import Netns, eventually, join
from harness.patience import PATIENCE_S
from harness.processes import end_with_descendants, that_share_mounts_with

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
READY_TIMEOUT_S = STOP_TIMEOUT_S = PATIENCE_S
SEALANE = (sys.executable, "-m", "sealane")
STDERR_SHOWN = 8000

EXT4, EXT6 = "192.0.2.200", "2001:db8::200"


def host_address(number: int, family: int) -> str:
    return f"192.0.2.{10 + number}" if family == 4 else f"2001:db8::{10 + number}"


class Lan:
    """The wire between hosts, and the neighbour on it."""

    def __init__(self) -> None:
        self.wire = Netns("lan")
        self.wire.skip_dad()
        self.wire.batch(
            "link add lan0 type bridge",
            "link set lan0 up",
            "addr add 192.0.2.1/24 dev lan0",
            "addr add 2001:db8::1/64 dev lan0 nodad",
        )
        self.ext = Netns("ext")
        self.plug(self.ext, EXT4, EXT6)

    def plug(self, where: Netns, address4: str, address6: str) -> None:
        """Give a namespace an `eth0` on the wire, with its default routes to .1."""
        where.skip_dad()
        # One address, one MAC, also for the next namespace that takes it: neighbours remember.
        mac = f"02:00:5e:00:53:{int(address4.rpartition('.')[2]):02x}"
        port = f"p{where.pid}"
        join(self.wire, port, where, "eth0", mac)
        self.wire.ip("link", "set", port, "master", "lan0")
        where.batch(
            f"addr add {address4}/24 dev eth0",
            f"addr add {address6}/64 dev eth0 nodad",
            "route add default via 192.0.2.1",
            "route add default via 2001:db8::1",
        )

    def unplug(self, where: Netns) -> None:
        """Pull the plug now: the kernel takes a namespace down later (cleanup_net), by seconds where there are many, and
        until then it would answer under the address and MAC of the next machine. Idempotent."""
        self.wire.run("ip", "link", "delete", f"p{where.pid}")

    def close(self) -> None:
        self.ext.close()
        self.wire.close()


class Host:
    """One machine. `ns` is what lives on it besides the daemon: commands, probes, host processes."""

    alive: ClassVar[set["Host"]] = set()
    """All that are not closed yet."""

    last_words: ClassVar[list[tuple[str, str]]] = []
    """What the daemons of closed ones have said."""

    def __init__(self, lan: Lan | None, number: int = 1, state_dir: str = "") -> None:
        self.lan, self.number = lan, number
        self.name = f"host{number}"
        self.dir = tempfile.mkdtemp(prefix=f"sealane-{self.name}-")
        self.state_dir = state_dir or os.path.join(self.dir, "state")
        self.socket_path = os.path.join(self.dir, "sealane.sock")
        self.stderr_path = os.path.join(self.dir, "daemon.stderr")
        self.api = Api(self.socket_path)
        self.daemon: subprocess.Popen[bytes] | Forked | None = None
        self.alive.add(self)
        self.boot()

    def boot(self) -> None:
        """A kernel that has nothing of ours: no links, no rules, an empty /run. The state directory is as it was."""
        self.ns = Netns(self.name, mounts=True)
        self.ns.ip("link", "set", "lo", "up")
        # `all` = 1 is what many distributions have; our links must be safe all the same.
        self.ns.sysctl("net/ipv4/conf/all/accept_source_route", "1")
        if self.lan is not None:
            self.lan.plug(self.ns, self.address(4), self.address(6))
        self._new_boot_id()

    def _new_boot_id(self) -> None:
        """By it the daemon knows that the machine has started anew. It reads a file, and here it is another one."""
        path = os.path.join(self.dir, "boot_id")
        with open(path, "w", encoding="ascii") as file:
            file.write(f"{uuid.uuid4()}\n")
        self.ns.sh("mount", "--bind", path, "/proc/sys/kernel/random/boot_id")
        # Where proc is covered in part, a user namespace may mount none unless a whole one is seen as well.
        self.ns.sh("mkdir", "-p", "/run/whole-proc")
        self.ns.sh("mount", "-t", "proc", "proc", "/run/whole-proc")

    def address(self, family: int) -> str:
        return host_address(self.number, family)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.alive.discard(self)
        self.power_off()
        self.last_words.append((self.name, self.stderr()))
        shutil.rmtree(self.dir, ignore_errors=True)

    # --- the daemon -------------------------------------------------------------------------------------------------

    def start(
        self, *, wait: bool = True, wrapper: tuple[str, ...] = (), options: tuple[str, ...] = ()
    ) -> "Host":
        """Start the daemon, if need be under another program (`strace …`), and wait until it answers."""
        assert self.daemon is None, "the daemon is running already"
        words = ["daemon", "--state", self.state_dir, "--socket", self.socket_path, *options]
        with open(os.devnull, "rb") as stdin, open(self.stderr_path, "ab") as stderr:
            begin = self._exec if wrapper or not may_fork() else self._fork
            self.daemon = begin([*wrapper], words, (stdin.fileno(), stderr.fileno(), stderr.fileno()))
        if wait:
            self.wait_ready()
        return self

    def _exec(
        self, wrapper: list[str], words: list[str], standard: tuple[int, int, int]
    ) -> subprocess.Popen[bytes]:
        inside = ["nsenter", f"--net={self.ns.path}", f"--mount=/proc/{self.ns.pid}/ns/mnt", "--"]
        stdin, stdout, stderr = standard
        return subprocess.Popen(
            [*inside, *wrapper, *SEALANE, *words],
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env=self._environment(),
        )

    def _fork(self, _: list[str], words: list[str], standard: tuple[int, int, int]) -> Forked:
        desired = {
            "argv": words,
            "environ": self._environment(),
            "net": self.ns.path,
            "mount": f"/proc/{self.ns.pid}/ns/mnt",
        }
        return WarmParent.of_this_process(self._environment()).fork(desired, standard)

    def wait_ready(self, timeout_s: float = READY_TIMEOUT_S) -> None:
        def answered() -> bool:
            if self.daemon is None or self.daemon.poll() is not None:
                raise AssertionError(f"{self.name}: the daemon ended at its start\n{self.stderr()}")
            with contextlib.suppress(TimeoutError):
                self.api.wait_ready(0.2)
                return True
            return False

        try:
            eventually(answered, timeout_s, f"{self.name}: the daemon answers")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.stderr()}") from None

    def _environment(self) -> dict[str, str]:
        source = os.path.join(ROOT, "src")
        return {
            **os.environ,
            "PYTHONPATH": source,
            "SEALANE_SOCKET": self.socket_path,
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    @property
    def pid(self) -> int:
        assert self.daemon is not None
        return self.daemon.pid

    def kill9(self) -> None:
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """Ask the daemon to end; return its exit status."""
        return self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> int:
        daemon, self.daemon = self.daemon, None
        if daemon is None:
            return 0
        if daemon.poll() is None:
            daemon.send_signal(number)
        try:
            return daemon.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()
            raise AssertionError(
                f"{self.name}: the daemon did not end on {number.name}\n{self.stderr()}"
            ) from None

    def reap(self, timeout_s: float) -> bool:
        """Whether the daemon ended by itself meanwhile."""
        assert self.daemon is not None
        try:
            self.daemon.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        self.daemon = None
        return True

    def restart(self) -> None:
        self.stop()
        self.start()

    def power_off(self) -> None:
        """The machine is gone from one instant to the next, and all its namespaces with it."""
        self.kill9()
        if self.has_containers():
            end_with_descendants(self.processes())
        self._end_stand_in()
        self._leave()

    def _leave(self) -> None:
        if self.lan is not None:
            self.lan.unplug(self.ns)
        self.ns.close()

    def has_containers(self) -> bool:
        """Whether our runtime knows any: they live on without the daemon, and without a test that has failed."""
        with contextlib.suppress(FileNotFoundError):
            return os.listdir(self.path(f"{self.state_dir}/containers/containers")) != []
        return False

    def processes(self) -> list[int]:
        """What runs on this host besides `ns` and outside of containers: daemons, shims, command lines."""
        return that_share_mounts_with(self.ns.pid)

    def stand_ins(self) -> list[int]:
        """Processes that hold Docker's socket while the daemon is away."""
        found = []
        for pid in filter(str.isdecimal, os.listdir("/proc")):
            with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:
                is_here = os.stat(f"/proc/{pid}/ns/net").st_ino == os.stat(self.ns.path).st_ino
                if b"/integrations/cnm/stand_in.py" in file.read() and is_here:
                    found.append(int(pid))
        return found

    def _end_stand_in(self) -> None:
        for pid in self.stand_ins():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def reboot(self) -> None:
        self.power_off()
        self.boot()

    def stderr(self, since: int = 0) -> str:
        with (
            contextlib.suppress(FileNotFoundError),
            open(self.stderr_path, encoding="utf-8", errors="replace") as file,
        ):
            file.seek(since)
            return file.read()[-STDERR_SHOWN:]
        return ""

    def stderr_size(self) -> int:
        return os.path.getsize(self.stderr_path) if os.path.exists(self.stderr_path) else 0

    # --- using it ---------------------------------------------------------------------------------------------------

    def sealane(self, *argv: str, check: bool = True, text: str = "") -> subprocess.CompletedProcess[str]:
        """Run the command line tool on this host."""
        process = self.sealane_process(*argv, stdin=subprocess.PIPE)
        try:
            out, err = process.communicate(text, timeout=2 * PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise
        done = subprocess.CompletedProcess(argv, process.returncode, out, err)
        if check and done.returncode != 0:
            raise AssertionError(
                f"sealane {' '.join(argv)}: exit {done.returncode}\n{done.stderr}{done.stdout}"
            )
        return done

    def sealane_process(self, *argv: str, **options: Any) -> subprocess.Popen[str]:
        """The command line tool, left running: `nsenter` becomes it, so signals reach it. Text, on pipes."""
        enter = ["nsenter", f"--net={self.ns.path}", f"--mount=/proc/{self.ns.pid}/ns/mnt", "--"]
        options = {"text": True, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        return subprocess.Popen(
            [*enter, sys.executable, "-m", "sealane", *argv],
            env=self._environment(),
            cwd=ROOT,
            **options,
        )

    def run_dirs(self) -> list[str]:
        """Where the daemon may keep what a reboot wipes."""
        return ["/run/sealane"]

    def path(self, inside: str) -> str:
        """A path on this host as the test process sees it."""
        return f"/proc/{self.ns.pid}/root{inside}"

    @contextlib.contextmanager
    def workload(self, network: str, name: str, **fields: Any) -> Iterator["Workload"]:
        """A plain process in its own namespace, attached; detached at the end."""
        workload = Workload(self, name)
        try:
            workload.attach(network, **fields)
            yield workload
        finally:
            workload.close()


class Workload:
    """A namespace that nobody of ours made, and its endpoints."""

    def __init__(self, host: Host, name: str) -> None:
        self.host, self.name = host, name
        self.ns = Netns(name)
        self.endpoints: dict[str, dict[str, Any]] = {}

    def attach(self, network: str, **fields: Any) -> dict[str, Any]:
        fields.setdefault("name", self.name)
        endpoint = self.host.api.attach(self.ns.path, network, **fields)
        self.endpoints[network] = endpoint
        return endpoint

    def detach(self, network: str) -> None:
        self.host.api.detach(self.endpoints.pop(network)["id"])

    def _first(self) -> dict[str, Any]:
        return next(iter(self.endpoints.values()))

    @property
    def endpoint(self) -> str:
        return str(self._first()["id"])

    @property
    def ifname(self) -> str:
        return str(self._first()["ifname"])

    @property
    def host_link(self) -> str:
        return str(self._first()["host_link"])

    @property
    def mac(self) -> str:
        return str(self._first()["mac"])

    def address(self, family: int, network: str = "") -> str:
        endpoint = self.endpoints[network] if network else self._first()
        found = [a.partition("/")[0] for a in endpoint["addresses"] if (":" in a) == (family == 6)]
        return str(found[0])

    @property
    def v4(self) -> str:
        return self.address(4)

    @property
    def v6(self) -> str:
        return self.address(6)

    def close(self) -> None:
        if self.host.daemon is not None and self.host.daemon.poll() is None:
            for network in list(self.endpoints):
                self.detach(network)
        self.ns.close()
