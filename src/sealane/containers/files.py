"""Small state files, replaced whole. Standard library only; shared by the daemon and the shim."""

from __future__ import annotations

import _thread
import fcntl
import json
import os

# `typing` itself is 1 MiB of the shim's memory; type checkers take this constant as true.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Nothing here is ever larger: a spec is bounded by its validation, a status by the health log.
MAX_FILE_BYTES = 4 * 1024 * 1024


def write_atomic(path: str, data: bytes, mode: int = 0o600) -> None:
    """Replace a file so that a reader, or a crash at any instant, sees the old or the new content whole."""
    temporary = f"{path}.{os.getpid()}.{_thread.get_native_id()}.tmp"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        try:
            write_all(descriptor, data)
        finally:
            os.close(descriptor)
        os.rename(temporary, path)
    except OSError:
        remove(temporary)
        raise


def write_all(descriptor: int, data: bytes) -> None:
    """os.write may write less than it was given (pipes, full disks)."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def overwrite_in_place(path: str, data: bytes) -> None:
    """Rewrite a file keeping its inode, for files bind-mounted into a running container.

    New bytes are laid over the old ones before the tail is cut: a reader never finds the file empty.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        write_all(descriptor, data)
        os.ftruncate(descriptor, len(data))
    finally:
        os.close(descriptor)


def read_bytes(path: str) -> bytes | None:
    """The content, None if there is no such file."""
    try:
        with open(path, "rb") as file:
            return file.read(MAX_FILE_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        return None


def write_json(path: str, value: object) -> None:
    write_atomic(path, json.dumps(value, separators=(",", ":")).encode())


def read_json(path: str) -> dict[str, Any] | None:
    """The object in the file; None if there is no file or it holds no JSON object."""
    data = read_bytes(path)
    if data is None:
        return None
    try:
        value = json.loads(data)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def remove(path: str) -> None:
    """Delete a file that need not exist."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return


def try_lock(descriptor: int) -> bool:
    """Whether it is ours now; it goes with the descriptor (flock(2))."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
