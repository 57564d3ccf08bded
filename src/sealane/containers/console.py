"""Where the OCI runtime hands over a terminal that it has made. Standard library only.

It connects to a unix socket and sends the terminal's descriptor (`--console-socket`; runc, docs/terminals.md). The socket's
path may be longer than a unix socket's can be, so it is named by a descriptor of its folder.
"""

from __future__ import annotations

import _socket
import os
import struct
from contextlib import suppress

_DESCRIPTOR = struct.Struct("i")


class Console:
    """A socket for one terminal. What the runtime has sent waits there when it has left."""

    def __init__(self, folder: str) -> None:
        self._folder = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self.path = f"/proc/{os.getpid()}/fd/{self._folder}/console-{os.getpid()}"
        """For whoever runs beside this process."""
        self._forget()
        self._listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        self._listener.bind(self.path)
        self._listener.listen(1)
        self._listener.setblocking(False)

    def take(self) -> int:
        """The descriptor; -1 if none came."""
        try:
            accepted, _ = self._listener._accept()  # type: ignore[attr-defined]
        except BlockingIOError:
            return -1
        connection = _socket.socket(fileno=accepted)
        connection.settimeout(1.0)
        try:
            _, messages, _, _ = connection.recvmsg(4096, _socket.CMSG_SPACE(_DESCRIPTOR.size))
        except OSError:
            return -1
        finally:
            connection.close()
        found = [
            data
            for level, kind, data in messages
            if (level, kind) == (_socket.SOL_SOCKET, _socket.SCM_RIGHTS)
        ]
        if not found or len(found[0]) < _DESCRIPTOR.size:
            return -1
        terminal = int(_DESCRIPTOR.unpack_from(found[0])[0])
        os.set_inheritable(terminal, False)
        os.set_blocking(terminal, False)
        return terminal

    def close(self) -> None:
        self._listener.close()
        self._forget()
        os.close(self._folder)

    def _forget(self) -> None:
        with suppress(FileNotFoundError):
            os.unlink(self.path)
