"""The plugin's socket and the process that keeps it (`stand_in`), as the daemon uses them.

    kept = KeptSocket("/run/docker/plugins/sealane.sock", "/run/sealane")
    kept.reserve()          # as early as may be
    sock = kept.open()      # that of the stand-in, with all who wait there, or a new one and a new stand-in
    …
    kept.close()            # the daemon ends, the stand-in stays

The stand-in knows that the daemon lives by their connection, which ends with the daemon however it dies; the daemon knows
it of the stand-in, and starts another.
"""

import array
import asyncio
import contextlib
import logging
import os
import socket
import sys
from collections.abc import Sequence

from sealane.http.listen import listen
from sealane.integrations.cnm import stand_in
from sealane.integrations.cnm.stand_in import QUIT

log = logging.getLogger("sealane.cnm")

CONTROL = "docker-stand-in.sock"
"""In the run directory."""
ANSWER_S = 2.0
"""For a stand-in to hand the socket over."""
AGAIN_S = 5.0
"""Until a stand-in is started anew that has died."""


class KeptSocket:
    def __init__(self, path: str, run_dir: str, python: str = sys.executable) -> None:
        self._path, self._python = path, python
        self._control = os.path.join(run_dir, CONTROL)
        self._socket: socket.socket | None = None
        self._life: socket.socket | None = None
        self._child = -1
        self._loop: asyncio.AbstractEventLoop | None = None

    def reserve(self) -> None:
        """Take the stand-in's socket over, if there is one, before it is served: who connects waits from now on, and is
        not answered by the stand-in. Idempotent."""
        if self._socket is None:
            self._socket = self._take_over()

    def open(self) -> socket.socket:
        """The socket to serve on, which listens. Raises InvalidError, ConflictError."""
        self.reserve()
        found = self._socket
        if found is None:
            found = listen(self._path)
            self._socket = found
            self._start()
        return found.dup()

    def follow(self, loop: asyncio.AbstractEventLoop) -> None:
        """From now on start another stand-in whenever there is none."""
        self._loop = loop
        if self._life is not None:
            loop.add_reader(self._life.fileno(), self._stand_in_died)

    def close(self) -> None:
        """Idempotent."""
        loop, self._loop = self._loop, None
        if self._life is not None:
            if loop is not None:
                loop.remove_reader(self._life.fileno())
            self._life.close()
            self._life = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _take_over(self) -> socket.socket | None:
        """The stand-in's socket, if it is that of our path; a stand-in of another is sent away."""
        life = connect(self._control)
        if life is None:
            return None
        found = _received(life)
        if found is not None and found.getsockname() == self._path:
            self._life = life
            return found
        if found is not None:
            found.close()
        send_away(life)
        return None

    def _start(self) -> None:
        """Without a stand-in Docker is served all the same."""
        assert self._socket is not None
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._control)
        mine, its = socket.socketpair()
        try:
            with its, listen(self._control) as control:
                self._child = _spawn(self._python, self._path, (self._socket, its, control))
        except Exception as error:
            mine.close()
            log.warning(
                "dockerd will wait long while sealane is away: no stand-in could be started: %s", error
            )
            return
        self._life = mine

    def _stand_in_died(self) -> None:
        assert self._life is not None
        assert self._loop is not None
        self._loop.remove_reader(self._life.fileno())
        self._life.close()
        self._life = None
        with contextlib.suppress(
            ChildProcessError
        ):  # One that an earlier daemon has started is no child of ours.
            os.waitpid(self._child, os.WNOHANG)
        self._loop.call_later(AGAIN_S, self._start_again)

    def _start_again(self) -> None:
        if self._loop is not None and self._life is None:
            self._start()
            self.follow(self._loop)


def _spawn(python: str, path: str, sockets: Sequence[socket.socket]) -> int:
    """Its pid. Not by `subprocess`, whose children are to be waited for: this one outlives us."""
    numbers = [os.dup(sock.fileno()) for sock in sockets]
    try:
        for number in numbers:
            os.set_inheritable(number, True)
        words = [python, "-I", "-S", stand_in.__file__, path, *map(str, numbers)]
        nowhere = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in range(3)]
        return os.posix_spawn(python, words, os.environ, file_actions=nowhere, setsid=True)
    finally:
        for number in numbers:
            os.close(number)


def dismiss(run_dir: str) -> None:
    """A daemon that has no socket for Docker, or one of the service manager's, has no use for a stand-in."""
    life = connect(os.path.join(run_dir, CONTROL))
    if life is not None:
        send_away(life)


def connect(control: str) -> socket.socket | None:
    life = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    life.settimeout(ANSWER_S)
    try:
        life.connect(control)
    except OSError:
        life.close()
        return None
    return life


def send_away(life: socket.socket) -> None:
    """Waits until it is gone, for ANSWER_S at most."""
    with contextlib.suppress(OSError), life:
        life.sendall(QUIT)
        while life.recv(1):
            pass


def _received(life: socket.socket) -> socket.socket | None:
    try:
        _, ancillary, _, _ = life.recvmsg(1, socket.CMSG_SPACE(array.array("i", [0]).itemsize))
    except OSError:
        return None
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            (number,) = array.array("i", data)
            sock = socket.socket(fileno=number)
            sock.set_inheritable(False)
            return sock
    return None
