"""Which process is meant: a pid is reused, a (boot, pid, start time) is not.

Standard library only; shared by the daemon and the shim. Start times are in clock ticks since boot, field 22 of
`/proc/PID/stat` (proc(5)); they repeat after a reboot, hence the boot id.
"""

from __future__ import annotations

import fcntl
import os
import signal
import struct

# struct flock of fcntl(2) on 64-bit Linux: type, whence, start, length, pid.
_FLOCK = "hhqqi4x"

ProcessIdentity = dict[str, "int | str"]


def boot_id() -> str:
    """The kernel's random id of this boot."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def start_time(pid: int) -> int | None:
    """Start time of a live process in ticks since boot; None if there is none or it is a zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The command name may hold spaces and parentheses; the last ')' ends it.
    fields = text[text.rindex(b")") + 2 :].split()
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def children() -> set[int]:
    """Of this process, also those that were left to it; none where the kernel does not tell (CONFIG_PROC_CHILDREN)."""
    found: set[int] = set()
    for thread in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{thread}/children", "rb") as file:
                found.update(map(int, file.read().split()))
        except FileNotFoundError:
            continue
    return found


def identify(pid: int) -> ProcessIdentity | None:
    """Identity to store for a live process, None if it is gone."""
    started = start_time(pid)
    return None if started is None else {"pid": pid, "start_time": started, "boot_id": boot_id()}


def open_same(identity: ProcessIdentity | None) -> int | None:
    """A pidfd of exactly that process, None if it is gone. The caller closes it.

    The pidfd is opened first and the start time compared after: whatever is at the number then, the descriptor stays
    with the process that was compared.
    """
    if not identity or identity.get("boot_id") != boot_id():
        return None
    pid = int(identity["pid"])
    try:
        pidfd = os.pidfd_open(pid)
    except (ProcessLookupError, OSError):
        return None
    if start_time(pid) == identity["start_time"]:
        return pidfd
    os.close(pidfd)
    return None


def is_alive(identity: ProcessIdentity | None) -> bool:
    pidfd = open_same(identity)
    if pidfd is None:
        return False
    os.close(pidfd)
    return True


def send_signal(identity: ProcessIdentity | None, number: int) -> bool:
    """Signal exactly that process; False if it is gone."""
    pidfd = open_same(identity)
    if pidfd is None:
        return False
    try:
        signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(pidfd)
    return True


def take_lock(path: str) -> int | None:
    """Hold a lock for as long as the returned descriptor is open in this process or a fork of it; None if taken.

    An open-file-description lock (Linux 3.15): other than flock(2) it can be asked about without being taken.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def is_locked(path: str) -> bool:
    """Whether somebody holds `take_lock(path)` now."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        question = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        answer = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, question)
    finally:
        os.close(descriptor)
    return bool(struct.unpack(_FLOCK, answer)[0] != fcntl.F_UNLCK)
