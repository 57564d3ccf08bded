"""Where shims say that a container's status has changed: a FIFO, a line an id. Standard library only.

A hint and no record: the status file has the truth. So nobody waits for a reader, none need be there, and what does not
fit any more is not told: whoever reads a full pipe looks at all containers.
"""

from __future__ import annotations

import fcntl
import os
import stat

PIPE_BYTES = 65536
"""What a pipe holds at most, here (pipe(7)). Lines are shorter than PIPE_BUF, so they do not mix."""


def tell(path: str, container_id: str) -> None:
    """That this container is not what it was."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        # No FIFO, or no daemon: the next one looks at all containers when it starts.
        return
    try:
        if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            os.write(descriptor, container_id.encode() + b"\n")
    except OSError:
        # It is full, or the reader has gone: a hint is worth no container.
        return
    finally:
        os.close(descriptor)


def _is_fifo(path: str) -> bool:
    try:
        return stat.S_ISFIFO(os.lstat(path).st_mode)
    except FileNotFoundError:
        return False


class Changes:
    """The reading end."""

    def __init__(self, path: str) -> None:
        """Makes the FIFO, if it is not there, or something else is. Raises OSError."""
        if not _is_fifo(path):
            if os.path.lexists(path):
                os.unlink(path)
            os.mkfifo(path, 0o600)
        # For writing too: with no writer left a FIFO would be at its end for ever.
        self._descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        # 64 KiB; less for who has many pipes already, and is not root (pipe(7)).
        self._half = fcntl.fcntl(self._descriptor, fcntl.F_GETPIPE_SZ) // 2

    def is_at(self, path: str) -> bool:
        """Whether it is still what writers find there."""
        try:
            return os.path.samestat(os.lstat(path), os.fstat(self._descriptor))
        except FileNotFoundError:
            return False

    def fileno(self) -> int:
        return self._descriptor

    def read(self) -> list[str] | None:
        """Ids told since the last time, each once; None: so many that some may not have been told. (A pipe is full before
        all its bytes are used, and may have been full before it was read.)"""
        try:
            data = os.read(self._descriptor, PIPE_BYTES)
        except BlockingIOError:
            return []
        if len(data) > self._half:
            return None
        return list(dict.fromkeys(data.decode(errors="replace").split()))

    def close(self) -> None:
        os.close(self._descriptor)
