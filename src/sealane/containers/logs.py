"""Reads what `logwriter.py` wrote, also while it writes and rotates."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import BinaryIO

import msgspec

from sealane.containers.logwriter import LOG_NAME, MAX_LOG_FILES

FOLLOW_PAUSE_S = 0.1
# A rename between two looks at a folder; more in a row means that files rotate faster than they can be opened.
OPEN_TRIES = 20


class LogLine(msgspec.Struct, frozen=True):
    """`text` has no line end. `partial`: the line goes on in the next entry of the same stream."""

    time: str
    stream: str
    partial: bool
    text: bytes

    @property
    def unix_time(self) -> float:
        """Seconds since the epoch, to the microsecond."""
        return datetime.strptime(self.time[:26], "%Y-%m-%dT%H:%M:%S.%f").replace(tzinfo=UTC).timestamp()


def parse_line(line: bytes) -> LogLine | None:
    """One line of a log file; None for anything else."""
    words = line.rstrip(b"\n").split(b" ", 3)
    if len(words) != 4 or words[2] not in (b"F", b"P") or len(words[0]) != 30:
        return None
    return LogLine(
        words[0].decode("ascii", "replace"), words[1].decode("ascii", "replace"), words[2] == b"P", words[3]
    )


def read_logs(folder: str, *, tail: int | None = None, since: float | None = None) -> Iterator[LogLine]:
    """What is in the files now, oldest first; the last `tail` lines; those from the Unix time `since` on."""
    opened = _open_all(folder)
    if tail is not None:
        lines = _last_lines(opened, tail, since)
        _close(opened)
        yield from lines
        return
    try:
        for file in opened:
            yield from (line for line in map(parse_line, file) if line and _is_recent(line, since))
    finally:
        _close(opened)


def follow_logs(
    folder: str,
    *,
    alive: Callable[[], bool],
    tail: int | None = None,
    since: float | None = None,
    stop: threading.Event | None = None,
) -> Iterator[LogLine]:
    """Lines as they come, until `alive` answers False and all is read, or `stop` is set. Blocks between lines.

    Lines rotated away faster than they are read are missed; the writer never waits for a reader.
    """
    stop = stop or threading.Event()
    opened = _open_all(folder)
    file: BinaryIO | None = None
    if opened:
        file = opened.pop(0 if tail is None else -1)
        lines = [] if tail is None else _last_lines([*opened, file], tail, since)
        _close(opened)
        yield from lines
    rest = b""
    try:
        while not stop.is_set():
            # Asked before reading: what is written before the end is then surely read.
            goes_on = alive()
            before = file
            file, rest, lines = _advance(folder, file, rest)
            yield from (line for line in lines if _is_recent(line, since))
            if not lines and file is before:
                if not goes_on:
                    break
                stop.wait(FOLLOW_PAUSE_S)
    finally:
        _close([file] if file else [])


def _last_lines(opened: list[BinaryIO], tail: int, since: float | None) -> list[LogLine]:
    """The last lines over all files, the newest left at the end of its last whole line. Parses no more than it needs."""
    kept: list[LogLine] = []
    for file in reversed(opened):
        desired = tail - len(kept)
        if desired <= 0 and file is not opened[-1]:
            break
        data = file.read()
        # Not splitlines: it would also cut at a carriage return, which is part of a line here.
        *whole, rest = data.split(b"\n")
        file.seek(len(data) - len(rest))
        lines = [line for line in map(parse_line, whole[-desired:] if desired > 0 else []) if line]
        kept = [line for line in lines if _is_recent(line, since)] + kept
    return kept


def _close(opened: list[BinaryIO]) -> None:
    for file in opened:
        file.close()


def _advance(folder: str, file: BinaryIO | None, rest: bytes) -> tuple[BinaryIO | None, bytes, list[LogLine]]:
    """Read on; at the end of a rotated file go to the next newer one."""
    if file is None:
        opened = _open_all(folder)
        _close(opened[1:])
        return (opened[0], b"", []) if opened else (None, b"", [])
    lines, rest = _read_new(file, rest)
    if lines or _is_current(folder, file):
        return file, rest, lines
    # Rotated. What was written between the last read and the rotation is read here.
    lines, rest = _read_new(file, rest)
    if lines:
        return file, rest, lines
    return _next_newer(folder, file), b"", []


def _next_newer(folder: str, file: BinaryIO) -> BinaryIO:
    """The file after this one; the oldest if this one is rotated away; itself while the next is not made yet."""
    opened = _open_all(folder)
    inodes = [os.fstat(each.fileno()).st_ino for each in opened]
    inode = os.fstat(file.fileno()).st_ino
    at = inodes.index(inode) + 1 if inode in inodes else 0
    for number, each in enumerate(opened):
        if number != at:
            each.close()
    if at >= len(opened):
        return file
    file.close()
    return opened[at]


def _read_new(file: BinaryIO, rest: bytes) -> tuple[list[LogLine], bytes]:
    data = rest + file.read(1024 * 1024)
    *whole, rest = data.split(b"\n")
    return [line for line in map(parse_line, whole) if line], rest


def _is_current(folder: str, file: BinaryIO) -> bool:
    try:
        return os.stat(os.path.join(folder, LOG_NAME)).st_ino == os.fstat(file.fileno()).st_ino
    except FileNotFoundError:
        return not os.path.isdir(folder)


def _is_recent(line: LogLine, since: float | None) -> bool:
    return since is None or line.unix_time >= since


def _open_all(folder: str) -> list[BinaryIO]:
    """All files, oldest first, each once although they may be renamed meanwhile."""
    current = os.path.join(folder, LOG_NAME)
    for _try in range(OPEN_TRIES):
        before = _inode(current)
        found: dict[int, BinaryIO] = {}
        for path in [*(f"{current}.{number}" for number in range(MAX_LOG_FILES - 1, 0, -1)), current]:
            try:
                file = open(path, "rb", buffering=65536)  # noqa: SIM115
            except FileNotFoundError:
                continue
            found.setdefault(os.fstat(file.fileno()).st_ino, file)
        if before == _inode(current):
            return list(found.values())
        _close(list(found.values()))
    return []


def _inode(path: str) -> int:
    try:
        return os.stat(path).st_ino
    except FileNotFoundError:
        return 0
