"""A further process in a container, and who talks with it: one attendant a session, which outlives the daemon. Standard
library only.

The daemon hands the client's connection over and has no part in it any more. The attendant is the process's parent, as a
shim is its container's: the OCI runtime starts it, detached, and leaves. (A runtime that stays copies the input itself,
and runc then hands on to the process the SIGPIPE that it gets for what the process no longer reads.)

The session ends with the process, its container, or its client.
"""

from __future__ import annotations

import _socket
import contextlib
import ctypes
import os
import select
import signal
import time

from sealane.containers import files
from sealane.containers.console import Console
from sealane.containers.frames import (
    ERRORS,
    OUTPUT,
    Peer,
    Session,
    exit_frame,
    frame,
    hold_open,
    size_in,
)  # fmt: skip
from sealane.containers.probe import spawn
from sealane.containers.process import children
from sealane.containers.streams import DRAIN_PAUSE_MS, DRAIN_READS, READ_BYTES
from sealane.containers.supervisor import (
    PR_SET_CHILD_SUBREAPER,
    PR_SET_NAME,
    explain_failure,
    is_child,
)  # fmt: skip

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

LAUNCH_TIMEOUT_S = 60.0
GRACE_S = 5.0


class Errand:
    """What the daemon tells an attendant, in a file beside which it has its others."""

    def __init__(
        self, *, container_id: str, runtime: list[str], process: dict[str, object], early: str
    ) -> None:
        self.container_id = container_id
        self.runtime = runtime
        """Program and global options of the OCI runtime, without `--log`."""
        self.process = process
        """OCI's `process`."""
        self.early = early
        """What has come on the connection already, in hexadecimal digits."""

    @classmethod
    def load(cls, path: str) -> Errand | None:
        fields = files.read_json(path)
        return None if fields is None else cls(**fields)

    def save(self, path: str) -> None:
        files.write_json(path, vars(self))

    @property
    def has_terminal(self) -> bool:
        return bool(self.process["terminal"])


def main(arguments: list[str]) -> None:
    """Detach from the starter and attend until the session has ended."""
    path, connection = arguments[0], int(arguments[1])
    if os.fork():
        os._exit(0)
    os.setsid()
    os.set_inheritable(connection, False)
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_NAME, b"sealane-exec", 0, 0, 0)
    errand = Errand.load(path)
    client = Peer(_socket.socket(fileno=connection), bytes.fromhex(errand.early) if errand else b"")
    if errand is None or libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        _say_end(client, 125, "the session's attendant could not begin")
        return
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    with contextlib.closing(Attendant(errand, path, client)) as attendant:
        try:
            attendant.attend()
        except Exception as problem:
            # The wall of this process: no process is left running without its attendant.
            attendant.kill()
            _say_end(client, 125, f"the session's attendant failed: {problem!r}")


def _say_end(client: Peer, exit_code: int, error: str) -> None:
    client.send(exit_frame(exit_code, error))
    client.finish()


class Attendant:
    """All waiting happens in `_until`; `attend` reads from top to bottom."""

    def __init__(self, errand: Errand, path: str, client: Peer) -> None:
        self._errand = errand
        stem = path.removesuffix(".json")
        self._errand_file, self._process_file = path, f"{stem}.process"
        self._log, self._pid_file = f"{stem}.log", f"{stem}.pid"
        self._session = Session(client)
        self._exits: dict[int, int] = {}
        self._outputs: dict[int, int] = {}
        """Descriptors, and the kind of frame that what comes there is."""
        self._console: Console | None = None
        self._stdin = self._held = -1
        self._pipes: dict[int, int] = {}
        """Outputs of a process without a terminal, until it runs."""
        self._wake, writer = os.pipe()
        for end in (self._wake, writer):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)

    def attend(self) -> None:
        process = dict(self._errand.process)
        if (size := size_in(bytes.fromhex(self._errand.early))) is not None:
            process["consoleSize"] = {"height": size[0], "width": size[1]}
        files.write_json(self._process_file, process)
        runtime = self._launch()
        if not self._is_launched(runtime):
            os.kill(runtime, signal.SIGKILL)
            # What it has begun is left to us.
            self._until(lambda: runtime in self._exits, time.monotonic() + 1.0, attended=False)
            self.kill()
            self._end(125, f"the OCI runtime did not answer within {LAUNCH_TIMEOUT_S:.0f} s")
            return
        if self._exits[runtime] != 0:
            error, code = explain_failure(self._log, self._exits[runtime])
            self._end(code, error)
            return
        pid = self._pid()
        if pid not in self._exits and not is_child(pid):
            self.kill()
            self._end(125, "the OCI runtime did not hand over the process")
            return
        # Not read before: what the runtime says itself is in its log.
        self._connect()
        if not self._until(lambda: pid in self._exits):
            self.kill()
            return
        self._drain()
        self._end(self._exits[pid], "")

    def _is_launched(self, runtime: int) -> bool:
        """Whether the runtime has done its part in time. Before that there is nothing that could be ended: a client that has
        hung up is waited for, too, for a while."""
        done = lambda: runtime in self._exits  # noqa: E731
        return self._until(done, time.monotonic() + LAUNCH_TIMEOUT_S) or self._until(
            done, time.monotonic() + GRACE_S, attended=False
        )

    def _end(self, exit_code: int, error: str) -> None:
        _say_end(self._session.client, exit_code, error)

    def _launch(self) -> int:
        """The runtime's pid."""
        errand = self._errand
        command = [*errand.runtime, "--log", self._log, "exec", "--detach", "--pid-file", self._pid_file]
        command += ["--process", self._process_file]
        self._console = Console(os.path.dirname(self._errand_file)) if errand.has_terminal else None
        if self._console is not None:
            # All three are the terminal's: the runtime speaks to its log.
            return spawn([*command, "--console-socket", self._console.path, errand.container_id], 0, 1, 2)
        stdin, self._stdin = os.pipe()
        os.set_blocking(self._stdin, False)
        theirs = [stdin]
        for kind in (OUTPUT, ERRORS):
            reader, writer = os.pipe()
            os.set_blocking(reader, False)
            self._pipes[reader] = kind
            theirs.append(writer)
        runtime = spawn([*command, errand.container_id], *theirs)
        for descriptor in theirs:
            os.close(descriptor)
        return runtime

    def _connect(self) -> None:
        if self._console is None:
            self._outputs = self._pipes
            self._session.connect(self._stdin)
            return
        terminal = self._console.take()
        if terminal >= 0:
            self._outputs = {terminal: OUTPUT}
            self._held = hold_open(terminal)
        self._session.connect(terminal=terminal)

    def _pid(self) -> int:
        return int(files.read_bytes(self._pid_file) or b"0")

    def kill(self) -> None:
        """End the process and its group, and whatever else is our child. Idempotent."""
        for pid in {self._pid(), *children()} - self._exits.keys() - {0}:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ProcessLookupError):
                # The OCI runtime makes the process leader of a session of its own.
                os.killpg(pid, signal.SIGKILL)

    def close(self) -> None:
        self._session.client.close()
        if self._console is not None:
            self._console.close()
        for path in (self._errand_file, self._process_file, self._log, self._pid_file):
            files.remove(path)

    # --- waiting

    def _until(
        self, done: Callable[[], bool], deadline: float | None = None, *, attended: bool = True
    ) -> bool:
        """Work until `done` (True), or until the time has come (False), or (`attended`) the client has gone."""
        while not done():
            if attended and self._session.has_ended:
                return False
            poll = select.poll()
            poll.register(self._wake, select.POLLIN)
            interests = self._session.interests()
            if not self._session.client.is_full:
                for descriptor in self._outputs:
                    interests[descriptor] = interests.get(descriptor, 0) | select.POLLIN
            for descriptor, events in interests.items():
                poll.register(descriptor, events)
            left = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
            ready = poll.poll(left)
            if not ready:
                return False
            for descriptor, events in ready:
                self._serve(descriptor, events)
        return True

    def _serve(self, descriptor: int, events: int) -> None:
        if descriptor == self._wake:
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake, 512)
            self._reap()
            return
        if descriptor in self._outputs and events & (select.POLLIN | select.POLLHUP | select.POLLERR):
            self._copy(descriptor)
        self._session.serve(descriptor, events)

    def _copy(self, output: int) -> bool:
        """Pass one piece of output on; False if there is none now."""
        try:
            data = os.read(output, READ_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            # EIO: nobody has the terminal open any more.
            data = b""
        if data:
            self._session.client.send(frame(self._outputs[output], data))
        else:
            del self._outputs[output]
        return bool(data)

    def _drain(self) -> None:
        """The process has ended, and what it wrote is there, or (of a terminal) will be in a moment. What others write whom
        it left behind, nobody waits for."""
        if self._held >= 0:
            os.close(self._held)
            self._held = -1
        for _ in range(DRAIN_READS):
            poll = select.poll()
            for output in self._outputs:
                poll.register(output, select.POLLIN)
            ready = poll.poll(DRAIN_PAUSE_MS) if self._outputs else []
            if not ready:
                return
            for output, _ in ready:
                self._copy(output)

    def _reap(self) -> None:
        """Collect every ended child, also orphans that the process left to us."""
        with contextlib.suppress(ChildProcessError):
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                code = os.waitstatus_to_exitcode(found[1])
                self._exits[found[0]] = 128 - code if code < 0 else code
