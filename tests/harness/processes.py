"""Processes of the whole machine, from which those of one test host are picked: numbers are shared by all."""

import contextlib
import os
import signal
from collections.abc import Iterable


def that_share_mounts_with(pid: int) -> list[int]:
    """Others in the same mount namespace."""
    desired = os.stat(f"/proc/{pid}/ns/mnt").st_ino
    found = []
    for other in _all():
        with contextlib.suppress(OSError):  # It has ended meanwhile.
            if other != pid and os.stat(f"/proc/{other}/ns/mnt").st_ino == desired:
                found.append(other)
    return found


def parent_of(pid: int) -> int:
    """OSError if it has ended."""
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
        return int(file.read().rpartition(")")[2].split()[1])


def command_of(pid: int) -> list[str]:
    """OSError if it has ended."""
    with open(f"/proc/{pid}/cmdline", encoding="utf-8", errors="replace") as file:
        return file.read().rstrip("\0").split("\0")


def end_with_descendants(pids: Iterable[int]) -> None:
    """Parents first: a shim would start its container anew."""
    parents = {}
    for pid in _all():
        with contextlib.suppress(OSError):
            parents[pid] = parent_of(pid)
    ending = list(pids)
    for pid in ending:  # Grows meanwhile.
        ending += [child for child, parent in parents.items() if parent == pid and child not in ending]
    for pid in ending:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _all() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]
