"""Runs a container's health check. Standard library only; lives in the shim, so checks go on without the daemon.

Docker's rules: a check every `interval` after the end of the last one; more than `timeout` is a failure; `retries`
failures in a row make the container unhealthy; failures during `start_period` do not count unless it has been healthy.
The exit code 0 is healthy, everything else is not.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack

from sealane.containers import files
from sealane.containers.parent import spawn
from sealane.containers.plan import HealthPlan

MAX_OUTPUT_BYTES = 4096
MAX_RESULTS = 5
TIMED_OUT = "the check took longer than its timeout"


class Probe:
    """One running container's check: due, under way, or done. Times are of the monotonic clock, in seconds."""

    def __init__(self, plan: HealthPlan, command: list[str], pid_file: str, started: float) -> None:
        self._plan = plan
        self._grace_ends = started + plan.start_period_s
        self._command = command
        self._pid_file = pid_file
        self._due = started + plan.interval_s
        self._timed_out = False
        self._began_at = 0.0
        self._results: list[dict[str, object]] = []
        self._streak = 0
        self._status = "starting"
        self._output = b""
        self.output_fd = -1
        self.pid = 0

    @property
    def deadline(self) -> float:
        """When `tick` has to be called next."""
        return self._due

    @property
    def report(self) -> dict[str, object]:
        return {"status": self._status, "failing_streak": self._streak, "log": self._results}

    def tick(self, now: float) -> None:
        """Start a check that is due, or end one that is late."""
        if now < self._due:
            return
        if self.pid:
            self._timed_out = True
            self._kill()
            self._due = now + self._plan.timeout_s
        else:
            self._begin(now)

    def exited(self, exit_code: int, now: float) -> None:
        """The check process was reaped: count its result."""
        self._close_output()
        self.pid = 0
        self._due = now + self._plan.interval_s
        if self._timed_out:
            exit_code, self._output = -1, TIMED_OUT.encode()
        self._results.append(
            {
                "started_at": self._began_at,
                "finished_at": time.time(),
                "exit_code": exit_code,
                "output": self._output.decode("utf-8", "replace"),
            }
        )
        del self._results[:-MAX_RESULTS]
        if exit_code == 0:
            self._status, self._streak = "healthy", 0
        elif self._status != "starting" or now >= self._grace_ends:
            self._streak += 1
            if self._streak >= self._plan.retries:
                self._status = "unhealthy"

    def abandon(self) -> None:
        """The container is gone: end a check under way. Its process is reaped by the caller as any other."""
        if self.pid:
            self._kill()
            self._close_output()
            self.pid = 0

    def read_output(self) -> None:
        """Keep the first MAX_OUTPUT_BYTES and swallow the rest, so that a talkative check does not block."""
        try:
            chunk = os.read(self.output_fd, 65536)
        except BlockingIOError:
            return
        if chunk:
            self._output = (self._output + chunk)[:MAX_OUTPUT_BYTES]
        else:
            os.close(self.output_fd)
            self.output_fd = -1

    def _begin(self, now: float) -> None:
        self._timed_out, self._began_at = False, time.time()
        try:
            self._spawn()
        except OSError as error:
            # The container can do nothing about it, and goes on.
            self._output = f"the check could not be started: {error}".encode()
            self.exited(-1, now)
        else:
            self._due = now + self._plan.timeout_s

    def _spawn(self) -> None:
        with ExitStack() as opened:
            reader, writer = os.pipe()
            opened.callback(os.close, writer)
            on_failure = opened.enter_context(ExitStack())
            on_failure.callback(os.close, reader)
            os.set_blocking(reader, False)
            files.remove(self._pid_file)
            null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
            opened.callback(os.close, null)
            self.pid = spawn(self._command, null, writer, writer)
            on_failure.pop_all()
        self.output_fd, self._output = reader, b""

    def _kill(self) -> None:
        """End the checking process in the container with its process group, then the runtime that waits for it.

        The OCI runtime makes the process a session leader (runc nsexec.c, crun setsid), so the group is all it forked.
        """
        inside = int(files.read_bytes(self._pid_file) or b"0")
        if inside:
            _end(os.killpg, inside)
        _end(os.kill, self.pid)

    def _close_output(self) -> None:
        if self.output_fd >= 0:
            self.read_output()
        if self.output_fd >= 0:
            os.close(self.output_fd)
            self.output_fd = -1


def _end(send: Callable[[int, int], None], pid: int) -> None:
    try:
        send(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
