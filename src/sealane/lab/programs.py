"""The programs of the nodes: a daemon on each host, etcd on each member. Each says when it is ready (sd_notify(3))."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress

from sealane.lab.folder import Folder
from sealane.lab.messages import NodeStatus, State
from sealane.lab.namespaces import Held
from sealane.lab.plan import NODE_DIR, Node

NOTIFY_BYTES = 4096
_PASSED_BY = frozenset({"NOTIFY_SOCKET", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "SEALANE_SOCKET"})
"""Variables that belong to whoever called `lab up`."""


class Program:
    """One node's program. The caller reaps, and says so with `ended`."""

    def __init__(self, node: Node, folder: Folder, held: Held) -> None:
        self.node, self.held = node, held
        self._log = folder.program_log(node.name)
        self.state: State = "stopped"
        self.code: int | None = None
        self._is_ready = False
        self._process: subprocess.Popen[bytes] | None = None
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        bind_below(self.notify, folder.node(node.name), "notify")

    @property
    def pid(self) -> int:
        return self._process.pid if self._process is not None else 0

    def start(self, environ: Mapping[str, str]) -> None:
        """Raises OSError if the program cannot be executed."""
        kept = {name: value for name, value in environ.items() if name not in _PASSED_BY}
        held = self.held

        def enter() -> None:
            held.enter()
            os.chdir("/")
            signal.pthread_sigmask(signal.SIG_SETMASK, ())

        with open(os.devnull, "rb") as stdin, open(self._log, "ab") as log:
            self._process = subprocess.Popen(
                [*command(self.node), *self.node.arguments],
                stdin=stdin,
                stdout=log,
                stderr=log,
                env=kept | {"NOTIFY_SOCKET": f"{NODE_DIR}/notify"},
                start_new_session=True,
                preexec_fn=enter,  # noqa: PLW1509 (the holder has one thread)
            )
        self.state, self.code, self._is_ready = "starting", None, False

    def heard(self) -> None:
        """Read what has arrived at `notify`."""
        with suppress(BlockingIOError):
            while True:
                text = self.notify.recv(NOTIFY_BYTES)
                if b"READY=1" in text.split(b"\n") and self._process is not None:
                    self._is_ready = True
                    if self.state == "starting":
                        self.state = "running"

    def send(self, number: int) -> None:
        """A signal. After SIGSTOP it is paused, after SIGCONT no longer."""
        if self._process is None:
            return
        os.kill(self._process.pid, number)
        if number == signal.SIGSTOP:
            self.state = "paused"
        elif number == signal.SIGCONT and self.state == "paused":
            self.state = "running" if self._is_ready else "starting"

    def ended(self, code: int) -> None:
        """It was reaped."""
        if self._process is not None:
            self._process.returncode = code
        self._process = None
        self.state, self.code = "exited", code

    def status(self) -> NodeStatus:
        return NodeStatus(
            name=self.node.name,
            kind=self.node.kind,
            state=self.state,
            code=self.code,
            pid=self.pid,
            log=self._log,
        )


def command(node: Node) -> list[str]:
    """This very sealane, by this very Python."""
    return ["etcd"] if node.kind == "etcd" else [sys.executable, "-m", "sealane"]


def missing_programs(nodes: tuple[Node, ...]) -> list[str]:
    """Debian packages of the programs that a lab needs and that are not in PATH."""
    needed = {"ip": "iproute2", "nft": "nftables"}
    if any(node.kind == "etcd" for node in nodes):
        needed["etcd"] = "etcd-server"
    return [package for program, package in needed.items() if shutil.which(program) is None]


def bind_below(sock: socket.socket, folder: str, name: str) -> None:
    """At a path of any length: a socket's address takes 107 bytes (unix(7))."""
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=descriptor)
        sock.bind(f"/proc/self/fd/{descriptor}/{name}")
    finally:
        os.close(descriptor)
