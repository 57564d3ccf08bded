"""Daemons that are forked from a warm parent: like `subprocess.Popen` of `python -m sealane`, and ten times faster."""

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
from typing import Any, ClassVar

SCRIPT = os.path.join(os.path.dirname(__file__), "warm_parent.py")
FORKS_ENV = "SEALANE_TESTS_FORK"
"""`0`: each daemon is started by exec, as `make test-long` has it."""


def may_fork() -> bool:
    return os.environ.get(FORKS_ENV) != "0"


class WarmParent:
    """One for each test process; started when it is needed first."""

    _only: ClassVar["WarmParent | None"] = None

    def __init__(self, environ: dict[str, str]) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", SCRIPT, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env=environ,
            )

    @classmethod
    def of_this_process(cls, environ: dict[str, str]) -> "WarmParent":
        """`environ` has the way to the sources."""
        if cls._only is None:
            cls._only = cls(environ)
        return cls._only

    @classmethod
    def close(cls) -> None:
        """And what it has forked. Idempotent."""
        parent, cls._only = cls._only, None
        if parent is not None:
            parent._socket.close()
            parent._process.wait()

    def fork(self, desired: dict[str, Any], standard: tuple[int, int, int]) -> "Forked":
        """`standard`: what are to be its input, output and errors."""
        ended, end = os.pipe2(os.O_CLOEXEC)
        try:
            socket.send_fds(self._socket, [json.dumps(desired).encode()], [*standard, end])
        finally:
            os.close(end)
        pid, descriptors, _, _ = socket.recv_fds(self._socket, 64, 1)
        if not descriptors:
            raise AssertionError(f"the warm parent has ended with {self._process.wait()}")
        return Forked(desired["argv"], int(pid), descriptors[0], ended)


class Forked:
    """What tests use of `subprocess.Popen`. It is our grandchild: its parent reaps it, and tells."""

    def __init__(self, args: list[str], pid: int, pidfd: int, ended: int) -> None:
        self.args, self.pid = args, pid
        self.returncode: int | None = None
        self._pidfd, self._ended = pidfd, ended

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.wait(0)
        return None

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._ended], [], [], timeout)[0]:
                assert timeout is not None
                raise subprocess.TimeoutExpired(self.args, timeout)
            self.returncode = int(os.read(self._ended, 64))
            self._forget()
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _forget(self) -> None:
        os.close(self._pidfd)
        os.close(self._ended)
