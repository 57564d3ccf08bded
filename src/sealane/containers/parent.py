"""What a shim and an attendant are alike in: a process that leaves its starter and outlives the daemon, is the parent of what
the OCI runtime leaves behind, and does all its waiting in one place. Standard library only."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import time

from sealane.containers import codes, files
from sealane.containers.process import children

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

# The OCI runtime answers within 50 ms on an idle machine; only a stuck one takes this long.
LAUNCH_TIMEOUT_S = 60.0
HANDOVER_S = 10.0
PR_SET_NAME = 15
PR_SET_CHILD_SUBREAPER = 36


def leave_starter(name: str, *descriptors: int) -> bool:
    """Go on as a process of a session of its own, called `name`, that keeps `descriptors` to itself and is left the orphans
    of its children; False where the kernel does not leave them (PR_SET_CHILD_SUBREAPER)."""
    if os.fork():
        os._exit(0)
    os.setsid()
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_NAME, name.encode(), 0, 0, 0)
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    return bool(libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)


class Parent:
    """Waits in `until`. Those who are one say what else they wait for (`interests`, `moments`) and what is to be done."""

    def __init__(self, *signals: signal.Signals) -> None:
        """`signals`: what `signalled` is told of, besides ended children."""
        self._wake, writer = os.pipe()
        for end in (self._wake, writer):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, *signals):
            # The handler does nothing: its number arrives through the wake pipe.
            signal.signal(number, lambda _number, _frame: None)

    def until(self, done: Callable[[], bool], deadline: float | None = None) -> bool:
        """Work until `done` (True) or the deadline on the monotonic clock (False)."""
        while not done():
            now = time.monotonic()
            if deadline is not None and now >= deadline:
                return False
            self.tick(now)
            poll = select.poll()
            poll.register(self._wake, select.POLLIN)
            for descriptor, desired in self.interests().items():
                poll.register(descriptor, desired)
            moments = [*self.moments(), *([] if deadline is None else [deadline])]
            patience_ms = max(0, int((min(moments) - now) * 1000) + 1) if moments else None
            for descriptor, events in poll.poll(patience_ms):
                if descriptor == self._wake:
                    self._woken()
                else:
                    self.serve(descriptor, events)
        return True

    def is_handed(self, pid: int, exits: Collection[int]) -> bool:
        """Whether a process that the OCI runtime has made is our child, or was (`exits`). crun leaves before a process of its
        own does whose child it still is: that one, orphaned, is our child until then."""

        def is_ours() -> bool:
            return pid in exits or is_child(pid)

        self.until(lambda: is_ours() or not children(), time.monotonic() + HANDOVER_S)
        return is_ours()

    def _woken(self) -> None:
        numbers = os.read(self._wake, 512)
        for pid, exit_code in _reaped():
            self.ended(pid, exit_code)
        self.signalled(numbers)

    def interests(self) -> dict[int, int]:
        """What to poll for, by descriptor."""
        return {}

    def serve(self, descriptor: int, events: int) -> None:
        """One of the interests came up; it may have been closed since, in this round."""

    def moments(self) -> list[float]:
        """When to call `tick` at the latest, on the monotonic clock."""
        return []

    def tick(self, now: float) -> None:
        """Called in every round."""

    def ended(self, pid: int, exit_code: int) -> None:
        """A child has been reaped, or an orphan that was left to us. The exit code is as a shell gives it."""

    def signalled(self, numbers: bytes) -> None:
        """Signals came."""


def _reaped() -> Iterator[tuple[int, int]]:
    with contextlib.suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            code = os.waitstatus_to_exitcode(found[1])
            yield found[0], 128 - code if code < 0 else code


def spawn(command: list[str], stdin: int, stdout: int, stderr: int) -> int:
    """Start a program with these three descriptors, default signals and nothing else inherited; its pid."""
    return os.posix_spawn(
        command[0],
        command,
        os.environ,
        file_actions=[
            (os.POSIX_SPAWN_DUP2, stdin, 0),
            (os.POSIX_SPAWN_DUP2, stdout, 1),
            (os.POSIX_SPAWN_DUP2, stderr, 2),
        ],
        setsigmask=[],
        # Python ignores SIGPIPE; an ignored signal is inherited through exec, and runc hands it on to the container.
        setsigdef=[signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGCHLD],
    )


def is_child(pid: int) -> bool:
    """Whether a live or ended process is ours to reap."""
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except OSError:
        return False
    return True


def explain_failure(runtime_log: str, runtime_exit: int) -> tuple[str, int]:
    """What the OCI runtime logged, and the exit code that Docker gives for it (127, 126, else 125)."""
    message = ""
    for line in (files.read_bytes(runtime_log) or b"").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and entry.get("level") == "error":
            message = str(entry.get("msg", ""))
    if not message:
        return f"the OCI runtime failed with exit code {runtime_exit} and said nothing", codes.FAILED
    lowered = message.lower()
    if "executable file not found" in lowered or (
        "exec" in lowered and "no such file or directory" in lowered
    ):
        return message, codes.NOT_FOUND
    if "exec" in lowered and "permission denied" in lowered:
        return message, codes.NOT_EXECUTABLE
    return message, codes.FAILED
