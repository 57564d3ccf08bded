"""A process that has imported what a daemon imports, and forks: 20 ms instead of 200 for one more daemon.

Run by harness/forked.py as `warm_parent.py SOCKET-FD`. It imports nothing of the harness. A request is one datagram of
JSON, `{"argv", "environ", "net", "mount"}` (the last two: paths of namespaces), with four descriptors: the child's
standard input, output and errors, and a pipe that is told its exit status, `NUMBER\n`, once it is reaped. The answer is its
pid, with a pidfd. The child runs `python -m sealane` from there on: the module's own entry point, in a process with
one thread, those three descriptors, the namespaces and the environment. At the end of the socket everything that was
forked is killed.
"""

import contextlib
import ctypes
import json
import os
import select
import signal
import socket
import sys
from typing import Any

import sealane
import sealane.cli.commands.daemon
import sealane.cli.main
import sealane.daemon.main

CLONE_NEWNS, CLONE_NEWNET = 0x00020000, 0x40000000
REQUEST_MAX = 1 << 20
DESCRIPTORS = 4

LIBC = ctypes.CDLL(None, use_errno=True)


class Parent:
    def __init__(self, asked: socket.socket) -> None:
        self._asked = asked
        self._ends: dict[int, int] = {}
        """Of each child that lives: where its exit status is told."""
        self._woken, waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(waker)
        # Handlers, since what is ignored stays so in children. The terminal's Ctrl-C is for the test process.
        for number in (signal.SIGCHLD, signal.SIGINT):
            signal.signal(number, _woken)

    def serve(self) -> dict[str, Any] | None:
        """Returns in each child, with what it is to be; in the parent at the end, with None."""
        while True:
            ready, _, _ = select.select([self._asked, self._woken], [], [])
            if self._woken in ready:
                os.read(self._woken, 4096)
            self._reap()
            if self._asked in ready:
                text, descriptors, _, _ = socket.recv_fds(self._asked, REQUEST_MAX, DESCRIPTORS)
                if not text:
                    return None
                pid = os.fork()
                if pid == 0:
                    self._asked.detach()
                    become_new(descriptors[:3])
                    return dict(json.loads(text))
                *standard, self._ends[pid] = descriptors
                self._answer(pid)
                for descriptor in standard:
                    os.close(descriptor)

    def _answer(self, pid: int) -> None:
        pidfd = os.pidfd_open(pid)
        socket.send_fds(self._asked, [str(pid).encode()], [pidfd])
        os.close(pidfd)

    def _reap(self) -> None:
        for pid in list(self._ends):
            if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                _, status = os.waitpid(pid, 0)
                end = self._ends.pop(pid)
                with contextlib.suppress(BrokenPipeError):  # No test wants to know any more.
                    os.write(end, b"%d\n" % os.waitstatus_to_exitcode(status))
                os.close(end)

    def end(self) -> None:
        for pid in self._ends:
            os.kill(pid, signal.SIGKILL)


def become_new(standard: list[int]) -> None:
    """Of what the parent is, nothing is left but its modules."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, descriptor in enumerate(standard):
        os.dup2(descriptor, number)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))


def enter(path: str, kind: int) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    if LIBC.setns(descriptor, kind) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), path)
    os.close(descriptor)


def _woken(*_: object) -> None:
    pass


def main() -> None:
    parent = Parent(socket.socket(fileno=int(sys.argv[1])))
    desired = parent.serve()
    if desired is None:
        parent.end()
        return
    mount = os.open(desired["mount"], os.O_RDONLY | os.O_CLOEXEC)
    enter(desired["net"], CLONE_NEWNET)
    enter(f"/proc/self/fd/{mount}", CLONE_NEWNS)
    os.close(mount)
    os.chdir("/")
    os.environ.clear()
    os.environ.update(desired["environ"])
    sys.argv = [os.path.join(os.path.dirname(sealane.__file__), "__main__.py"), *desired["argv"]]
    sys.exit(sealane.cli.main.main())


if __name__ == "__main__":
    main()
