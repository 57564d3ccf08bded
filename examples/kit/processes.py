"""Every process that a demo starts ends with it, those of containers too."""

import contextlib
import ctypes
import os
import signal
import time

PR_SET_CHILD_SUBREAPER = 36
ROUNDS_MAX = 50
ROUND_S = 0.02


def adopt_orphans() -> None:
    """From now on a descendant whose parent ends becomes our child (prctl(2), Linux 3.4): none is lost sight of."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def children() -> list[int]:
    """Our own, zombies included."""
    own = os.getpid()
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and _parent(name) == own]


def end_all() -> int:
    """Kill our children until no new ones are handed down to us; return how many there were that still ran.

    A child of ours stays ours until it is waited for, so its number cannot mean somebody else.
    """
    ended: set[int] = set()
    for _ in range(ROUNDS_MAX):
        left = children()
        if not left:
            break
        for pid in left:
            if is_alive(pid):
                ended.add(pid)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        time.sleep(ROUND_S)
    return len(ended)


def is_alive(pid: int) -> bool:
    return _state(pid) not in {"Z", "X", ""}


def _parent(name: str) -> int:
    fields = _stat(name)
    return int(fields[1]) if fields else 0


def _state(pid: int) -> str:
    fields = _stat(str(pid))
    return fields[0] if fields else ""


def _stat(name: str) -> list[str]:
    """Fields of /proc/PID/stat from the state on (proc(5)); none if it has ended."""
    try:
        with open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()
    except OSError:
        return []
