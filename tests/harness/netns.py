"""Namespaces and the agents that live in them."""

import contextlib
import json
import os
import select
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Self, TypeVar

from harness.patience import PATIENCE_S, Watch

AGENT = os.path.join(os.path.dirname(__file__), "agent.py")
REPLY_TIMEOUT_S = 3 * PATIENCE_S

T = TypeVar("T")


class AgentError(Exception):
    """The agent could not do what it was told."""


def eventually(condition: Callable[[], T], timeout_s: float = PATIENCE_S, what: str = "") -> T:
    """Ask again until the answer is true; return it. AssertionError with the last answer after `timeout_s`, in which
    what others took of the processors does not count."""
    watch = Watch()
    pause_s = 0.002
    while True:
        value = condition()
        if value:
            return value
        if watch.is_over(timeout_s):
            raise AssertionError(f"not within {timeout_s} s: {what or condition}; last answer: {value!r}")
        time.sleep(pause_s)
        pause_s = min(pause_s * 1.5, 0.1)


class Netns:
    """A network namespace with an agent in it; it lives as long as the agent. A context manager.

    `Netns("web")` makes a new one, `Netns.enter("web", path)` joins the one behind an nsfs file. Both see the mounts
    of the test process, except with `mounts=True`: then there is a mount namespace of its own with an empty /run and
    a bpffs of its own, as on a machine that has just booted.
    """

    alive: ClassVar[set["Netns"]] = set()
    """All that are not closed: a test that fails half-way must not leave them to the garbage collector."""

    def __init__(
        self, name: str, command: tuple[str, ...] = ("unshare", "--net"), *, mounts: bool = False
    ) -> None:
        self.name = name
        if mounts:
            command = (*command, "--mount", "--propagation", "private")
        self._process = subprocess.Popen(
            [*command, "--", sys.executable, "-I", "-S", AGENT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        self.alive.add(self)
        self.pid = int(self._reply("start"))
        # Another process's /proc/PID/ns/net is a path that anyone can open, whatever their own namespaces.
        self.path = f"/proc/{self.pid}/ns/net"
        if mounts:
            self.sh("mount", "-t", "tmpfs", "-o", "mode=0755", "tmpfs", "/run")
            self.run("mount", "-t", "bpf", "-o", "mode=0700", "bpf", "/sys/fs/bpf")
        if command[0] == "unshare":
            self.sh("ip", "link", "set", "lo", "up")

    @classmethod
    def enter(cls, name: str, path: str) -> Self:
        return cls(name, ("nsenter", f"--net={path}"))

    @property
    def inode(self) -> int:
        return os.stat(self.path).st_ino

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the agent. Idempotent."""
        self.alive.discard(self)
        process = self._process
        if process.stdin is None or process.stdin.closed:
            return
        with contextlib.suppress(OSError):
            process.stdin.close()
        try:
            process.wait(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert process.stdout is not None
        process.stdout.close()

    def __call__(self, op: str, **arguments: Any) -> Any:
        """Have the agent do something; AgentError if it could not."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"op": op, **arguments}) + "\n")
        self._process.stdin.flush()
        return self._reply(op)

    def _reply(self, op: str) -> Any:
        out = self._process.stdout
        assert out is not None
        ready, _, _ = select.select([out], [], [], REPLY_TIMEOUT_S)
        line = out.readline() if ready else ""
        if not line:
            raise AgentError(f"{self.name}: no answer to {op} (exit status {self._process.poll()})")
        reply = json.loads(line)
        if "error" in reply:
            raise AgentError(f"{self.name}: {op}: {reply['error']}")
        return reply["result"]

    # --- commands ---------------------------------------------------------------------------------------------------

    def run(
        self, *argv: str, text: str = "", timeout_s: float = PATIENCE_S
    ) -> subprocess.CompletedProcess[str]:
        code, out, err = self("run", argv=argv, text=text, timeout=timeout_s)
        return subprocess.CompletedProcess(argv, code, out, err)

    def sh(self, *argv: str, text: str = "") -> str:
        """Run a command that must succeed; return its standard output."""
        done = self.run(*argv, text=text)
        if done.returncode != 0:
            raise AgentError(
                f"{self.name}: {' '.join(argv)}: exit {done.returncode}: {done.stderr or done.stdout}"
            )
        return str(done.stdout)

    def ip(self, *argv: str) -> str:
        return self.sh("ip", *argv)

    def batch(self, *lines: str) -> None:
        """Many `ip` commands in one process."""
        self.sh("ip", "-batch", "-", text="\n".join(lines) + "\n")

    def json(self, *argv: str) -> Any:
        """Output of `ip -j …`, `bridge -j …` or `nft -j …` as data."""
        out = self.sh(argv[0], "-j", *argv[1:])
        return json.loads(out) if out.strip() else []

    def python(self, source: str) -> Any:
        return self("python", source=source)

    def sysctl(self, path: str, value: str | None = None) -> str:
        """Read, or set first, /proc/sys/PATH."""
        full = f"/proc/sys/{path}"
        if value is not None:
            self("write", path=full, text=value)
        return str(self("read", path=full)).strip()

    def skip_dad(self) -> None:
        """IPv6 addresses of links made from now on are usable at once, link-local ones included."""
        self.sysctl("net/ipv6/conf/default/accept_dad", "0")

    # --- probes -----------------------------------------------------------------------------------------------------

    def listen(self, proto: str, address: str, port: int = 0, token: str = "") -> "Server":
        token = token or f"{self.name}-{uuid.uuid4().hex[:8]}"
        number = self("listen", proto=proto, address=address, port=port, token=token)
        return Server(self, proto, address, number, token)

    def probe(self, proto: str, address: str, port: int, **options: Any) -> dict[str, Any]:
        """Connect or send, and wait for an answer: {"answer", "local"} or {"error"}."""
        result: dict[str, Any] = self("probe", proto=proto, address=address, port=port, **options)
        return result

    def reaches(self, server: "Server", address: str, port: int = 0, **options: Any) -> bool:
        """Whether `server` itself, by its token, answers at an address."""
        result = self.probe(server.proto, address, port or server.port, **options)
        return str(result.get("answer", "")).startswith(server.token + " ")

    @contextlib.contextmanager
    def sniff(self, ifname: str) -> Iterator[list[bytes]]:
        """Collect what arrives at a link meanwhile: the list is filled at the end."""
        arrived: list[bytes] = []
        self("sniff_start", ifname=ifname)
        try:
            yield arrived
        finally:
            arrived.extend(bytes.fromhex(frame) for frame in self("sniff_stop", ifname=ifname))


class Server:
    """A listener in a namespace that answers `TOKEN PEER-ADDRESS PEER-PORT OWN-PORT`."""

    def __init__(self, where: Netns, proto: str, address: str, port: int, token: str) -> None:
        self.where, self.proto, self.address, self.port, self.token = where, proto, address, port, token

    def peers(self, *, clear: bool = False) -> list[tuple[str, int, str]]:
        """(address, port, payload) of everyone who came, in order."""
        seen = self.where("got", proto=self.proto, address=self.address, port=self.port, clear=clear)
        return [(peer, port, payload) for peer, port, payload in seen]

    def close(self) -> None:
        self.where("unlisten", proto=self.proto, address=self.address, port=self.port)


def join(one: Netns, one_link: str, other: Netns, other_link: str, other_mac: str = "") -> None:
    """A veth between two namespaces, both ends up."""
    mac = ("address", other_mac) if other_mac else ()
    peer = ("peer", "name", other_link, *mac, "netns", str(other.pid))
    one.ip("link", "add", one_link, "type", "veth", *peer)
    one.ip("link", "set", one_link, "up")
    other.ip("link", "set", other_link, "up")
