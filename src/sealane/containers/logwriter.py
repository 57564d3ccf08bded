"""The container's output on disk: bounded, time-stamped, never in the container's way. Standard library only.

Format: the CRI log format, one line a line, `TIME STREAM TAG TEXT`, for example

    2026-11-24T13:03:18.000000001Z stderr F could not connect

TAG is F for a whole line and P for a piece of one (lines are cut at MAX_LINE_BYTES). Bytes are kept as they came.

The three files rotate: `container.log`, then `.1`, then `.2` (the oldest). A full disk loses lines, is counted, and
is written down once there is room again; it never blocks or ends the container.
"""

from __future__ import annotations

import os
import time

from sealane.containers.files import write_all

LOG_NAME = "container.log"
MAX_LOG_BYTES = 10 * 1024 * 1024
MAX_LOG_FILES = 3
MAX_LINE_BYTES = 16 * 1024


def timestamp(now_ns: int) -> str:
    """RFC 3339 in UTC with nanoseconds."""
    seconds, nanoseconds = divmod(now_ns, 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{nanoseconds:09d}Z"


class LogWriter:
    """Appends the chunks of several streams to rotating files."""

    def __init__(self, folder: str, max_bytes: int = MAX_LOG_BYTES, max_files: int = MAX_LOG_FILES) -> None:
        self._path = os.path.join(folder, LOG_NAME)
        self._max_bytes = max_bytes
        self._max_files = max_files
        self._partial: dict[str, bytes] = {}
        self._lost = 0
        self._descriptor = -1
        self._size = 0

    def feed(self, stream: str, chunk: bytes, now_ns: int) -> None:
        """Take what was read from a stream; whole lines are written, the rest waits for its end."""
        lines = (self._partial.pop(stream, b"") + chunk).split(b"\n")
        rest = lines.pop()
        head = f"{timestamp(now_ns)} {stream} ".encode()
        entries: list[bytes] = []
        for line in lines:
            entries += _entries(head, line)
        while len(rest) >= MAX_LINE_BYTES:
            entries.append(head + b"P " + rest[:MAX_LINE_BYTES] + b"\n")
            rest = rest[MAX_LINE_BYTES:]
        if rest:
            self._partial[stream] = rest
        if entries:
            self._write(entries, head)

    def flush(self, now_ns: int) -> None:
        """Write what still waits for a line end: the container is gone and will not send it."""
        for stream in list(self._partial):
            self.feed(stream, b"\n", now_ns)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _write(self, entries: list[bytes], head: bytes) -> None:
        if self._lost:
            entries.insert(
                0, head + f"F [sealane] {self._lost} lines lost: the log could not be written\n".encode()
            )
        data = b"".join(entries)
        try:
            self._make_room()
            write_all(self._descriptor, data)
        except OSError:
            # Disk full, quota, a folder removed under us: the lines are lost, the container goes on.
            self._lost += len(entries) - (1 if self._lost else 0)
            self._cut_torn_line()
            self.close()
            return
        self._size += len(data)
        self._lost = 0

    def _make_room(self) -> None:
        self._open()
        if self._size >= self._max_bytes:
            self.close()
            self._rotate()
            self._open()

    def _open(self) -> None:
        if self._descriptor >= 0:
            return
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._descriptor = os.open(self._path, flags, 0o640)
        self._size = os.fstat(self._descriptor).st_size

    def _cut_torn_line(self) -> None:
        if self._descriptor < 0:
            return
        try:
            os.ftruncate(self._descriptor, self._size)
        except OSError:
            return

    def _rotate(self) -> None:
        for number in range(self._max_files - 1, 0, -1):
            older = f"{self._path}.{number}"
            newer = f"{self._path}.{number - 1}" if number > 1 else self._path
            try:
                os.rename(newer, older)
            except FileNotFoundError:
                continue


def _entries(head: bytes, line: bytes) -> list[bytes]:
    pieces = [line[at : at + MAX_LINE_BYTES] for at in range(0, len(line), MAX_LINE_BYTES)] or [b""]
    return [head + b"P " + piece + b"\n" for piece in pieces[:-1]] + [head + b"F " + pieces[-1] + b"\n"]
