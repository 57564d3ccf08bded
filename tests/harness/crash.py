"""Killing the daemon at any system call it makes, from outside, with strace: no code of the engine takes part.

An operation is first recorded once, to learn which calls it makes; then it is run again for each of them, with a
SIGKILL at the entry of that very call. strace counts calls for each thread, so a point is (call, number).
"""

import contextlib
import http.client
import os
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable
from typing import Self

from harness.api import ApiError
from harness.host import Host
from harness.netns import eventually
from harness.patience import PATIENCE_S, Watch

Point = tuple[str, int]

CALLS = (
    "sendto",
    "sendmsg",
    "setns",
    "unshare",
    "mount",
    "umount2",
    "fsync",
    "fdatasync",
    "pwrite64",
    "write",
    "writev",
    "ftruncate",
    "openat",
    "rename",
    "renameat",
    "renameat2",
    "unlink",
    "unlinkat",
    "mkdir",
    "mkdirat",
    "bpf",
    "close",
)
"""Every call that changes something, or may be the last before one that does. Not `splice`: a thread waits in it, which
begins it anew when strace attaches, and would be killed there."""

LEAVE_S = 2.0


class Tracer:
    """strace on a running daemon, for as long as the context lasts."""

    def __init__(self, host: Host, *options: str) -> None:
        self._host, self._options = host, options
        self.calls: list[tuple[str, str]] = []
        """(thread, call) in order, once the context has ended."""
        self._log = tempfile.NamedTemporaryFile(prefix="sealane-strace-", suffix=".log")  # noqa: SIM115

    def __enter__(self) -> Self:
        self._pid = self._host.pid
        self._process = subprocess.Popen(
            ["strace", "-f", "-qq", "-s", "0", "-o", self._log.name, "-p", str(self._pid), *self._options],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        eventually(self._attached, what="strace attaches")
        return self

    def _attached(self) -> bool:
        folder = f"/proc/{self._host.pid}/task"
        for task in os.listdir(folder):
            with open(f"{folder}/{task}/status", encoding="ascii") as file:
                if "\nTracerPid:\t0\n" in file.read():
                    return False
        return True

    def _is_dead(self) -> bool:
        """The daemon's first thread, reaped or not."""
        with (
            contextlib.suppress(FileNotFoundError),
            open(f"/proc/{self._pid}/stat", encoding="ascii") as file,
        ):
            return file.read().rpartition(")")[2].split()[0] in "ZX"
        return True

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            # A recording must be whole.
            self._process.wait(LEAVE_S if self._is_dead() else PATIENCE_S)
        except subprocess.TimeoutExpired:
            # It waits for the first thread of a dead daemon by pid, and that one for the other threads, which nobody
            # reaps but strace.
            self._process.kill()
            self._process.wait()
        with self._log:
            text = self._log.read().decode(errors="replace")
        self.calls = re.findall(r"^(\d+)\s+(\w+)\(", text, re.MULTILINE)


def points(host: Host, operation: Callable[[], object]) -> list[Point]:
    """Run the operation once; return every point at which it can be killed, in order."""
    with Tracer(host, "-e", "trace=" + ",".join(CALLS)) as tracer:
        operation()
    counts: Counter[tuple[str, str]] = Counter()
    found: list[Point] = []
    for thread, call in tracer.calls:
        counts[thread, call] += 1
        point = (call, counts[thread, call])
        if point not in found:
            found.append(point)
    return found


def killed_at(host: Host, point: Point, operation: Callable[[], object]) -> bool:
    """Run the operation with the daemon killed at `point`; False if it never got there. The daemon is dead after it,
    or untouched."""
    call, number = point
    options = ("-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={number}")
    with Tracer(host, *options):
        with contextlib.suppress(OSError, http.client.HTTPException, ApiError):
            operation()
        is_dead = died(host)
    # While it was traced, even the question whether it lives may have been what reached the point.
    return is_dead or died(host)


def died(host: Host) -> bool:
    """A killed daemon may take a moment to end; a living one answers."""
    watch = Watch()
    while not watch.is_over(PATIENCE_S):
        if host.reap(0.0):
            return True
        with contextlib.suppress(OSError, http.client.HTTPException, ApiError):
            host.api.get("/version")
            return host.reap(0.05)
    raise AssertionError(f"{host.name}: the daemon neither answers nor ends\n{host.stderr()}")


def spread(found: list[Point], most: int) -> list[Point]:
    """At most so many of the points, evenly, first and last included."""
    if len(found) <= most:
        return found
    return [found[round(i * (len(found) - 1) / (most - 1))] for i in range(most)]
