"""What stands beside a database in its directory: one writer at a time, a memory of what was promised, a reserve.

- `state.lock` is locked for as long as the store is open. A second daemon on the directory is refused.
- It also holds the last revision that a commit returned. SQLite takes the damaged or truncated end of a write-ahead
  log for a commit that was never finished, and opens with an older state without a word; this number tells.
  Only a power cut may take revisions back (`synchronous=NORMAL`), so it counts for the boot it was written in.
- `state.reserve` is space that is given up when a deletion finds the disk full.
"""

import contextlib
import errno
import fcntl
import os
import re
import stat
import zlib
from collections.abc import Iterator

from sealane.store.base import StoreError

RESERVE_BYTES = 1 << 20
"""Of `state.reserve`. One deletion appends about 50 KiB to the write-ahead log, and that is emptied after each."""

_BOOT_ID = "/proc/sys/kernel/random/boot_id"
_LINE = re.compile(rb"( *([0-9]{1,10}) ([0-9a-f-]{36}| {36}) +([0-9]{1,20}) )([0-9a-f]{8})\n")


class Guard:
    """The files beside the database; each path is relative to the directory's descriptor."""

    def __init__(self, directory: str, reserve_bytes: int = RESERVE_BYTES) -> None:
        """Make the directory and take its lock. Raises StoreError."""
        self._reserve_bytes = reserve_bytes
        self._boot = _boot_id()
        self.path = directory
        with _reported(directory):
            self._directory = _open_directory(directory)
        try:
            with _reported(f"{directory}/state.lock"):
                self._lock = os.open(
                    "state.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600, dir_fd=self._directory
                )
        except StoreError:
            os.close(self._directory)
            raise
        try:
            with _reported(f"{directory}/state.lock"):
                self._take()
        except BaseException:
            self.close()
            raise
        self.has_reserve = os.path.exists(f"{directory}/state.reserve")

    def _take(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            pid, _, _ = self._read_line()
            holder = f"process {pid}" if pid else "another process"
            what = f"{self.path} is in use by {holder}; one daemon a state directory"
            raise StoreError("locked", what) from error
        _, boot, revision = self._read_line()
        self.noted_revision = revision
        """The last revision returned to a caller, on any boot; 0: none is known."""
        self.promised_revision = revision if boot and boot == self._boot else 0
        """The same, 0 if there was a boot since."""
        # The old boot stays in the line until the store has been found sound: see `promise`.
        self._write_line(boot, revision)

    def promise(self, revision: int) -> None:
        """Note the revision that is about to be returned to a caller."""
        # A note that could not be written makes the next start less watchful, and is no reason to fail a commit
        # that has succeeded.
        with contextlib.suppress(OSError):
            self._write_line(self._boot, revision)

    def _read_line(self) -> tuple[int, str, int]:
        return _parse_line(os.pread(self._lock, 128, 0))

    def _write_line(self, boot: str, revision: int) -> None:
        line = b"%10d %36s %20d " % (os.getpid(), boot.encode(), revision)
        os.pwrite(self._lock, b"%s%08x\n" % (line, zlib.crc32(line)), 0)

    def fill_reserve(self) -> bool:
        """Make the reserve, wholly or not at all. False: there is no room for it. Idempotent."""
        try:
            fd = os.open(
                "state.reserve", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600, dir_fd=self._directory
            )
            try:
                os.posix_fallocate(fd, 0, self._reserve_bytes)
            finally:
                os.close(fd)
        except OSError:
            self.release_reserve()
            return False
        self.has_reserve = True
        return True

    def release_reserve(self) -> None:
        """Give the space of the reserve back to the file system. Idempotent."""
        self.has_reserve = False
        with contextlib.suppress(OSError):
            os.unlink("state.reserve", dir_fd=self._directory)

    def create_database(self, name: str) -> None:
        """Make the database's file if there never was one, readable by us alone; SQLite's other files get its mode.

        Raises StoreError, also if there was one and it is gone or empty: opened, it would look like an intent to
        remove everything, and SQLite deletes the log that lies beside an empty file.
        """
        with _reported(f"{self.path}/{name}"):
            flags = os.O_RDWR | os.O_NOFOLLOW
            try:
                fd = os.open(name, flags, dir_fd=self._directory)
            except FileNotFoundError:
                self._check_unwritten(f"{name} is gone")
                fd = os.open(name, flags | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=self._directory)
                os.fsync(self._directory)
            empty = os.fstat(fd).st_size == 0
            os.close(fd)
        if empty:
            self._check_unwritten(f"{name} is empty")

    def _check_unwritten(self, what: str) -> None:
        if self.noted_revision:
            hint = "restore a copy, or move the directory away to begin from nothing"
            raise StoreError(
                "corrupt", f"{self.path}/{what}, it was at revision {self.noted_revision} ({hint})"
            )

    def close(self) -> None:
        """Give up the lock; the reserve stays. Idempotent."""
        for fd in (self._lock, self._directory):
            if fd >= 0:
                os.close(fd)
        self._lock = self._directory = -1


def _open_directory(path: str) -> int:
    os.makedirs(path, mode=0o700, exist_ok=True)
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _check_directory(fd, path)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _check_directory(fd: int, path: str) -> None:
    found = os.fstat(fd)
    if found.st_uid != os.geteuid():
        raise StoreError("unreadable", f"{path} belongs to user {found.st_uid}, not {os.geteuid()}")
    if stat.S_IMODE(found.st_mode) & 0o077:
        os.fchmod(fd, 0o700)


def _parse_line(line: bytes) -> tuple[int, str, int]:
    """(pid, boot, revision); zeros for a line that is new or damaged: it says nothing then."""
    match = _LINE.fullmatch(line)
    if match is None or zlib.crc32(match[1]) != int(match[5], 16):
        return 0, "", 0
    return int(match[2]), match[3].decode().strip(), int(match[4])


def _boot_id() -> str:
    try:
        with open(_BOOT_ID, encoding="ascii") as file:
            return file.read(36)
    except OSError:
        return ""


@contextlib.contextmanager
def _reported(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        raise StoreError("full" if full else "unreadable", f"{path}: {error.strerror}") from error
