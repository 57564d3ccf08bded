"""A further process in a container, and who talks with it: one attendant a session, which outlives the daemon. Standard
library only.

The daemon hands the client's connection over and has no part in it any more. The attendant is the process's parent, as a
shim is its container's: the OCI runtime starts it, detached, and leaves. (A runtime that stays copies the input itself,
and runc then hands on to the process the SIGPIPE that it gets for what the process no longer reads.)

The session ends with the process, its container, or its client.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time

from sealane.containers import codes, files
from sealane.containers.frames import Peer
from sealane.containers.parent import (
    LAUNCH_TIMEOUT_S,
    Parent,
    explain_failure,
    leave_starter,
    spawn,
)
from sealane.containers.plan import ExecConfig
from sealane.containers.process import children
from sealane.containers.streams import Streams

GRACE_S = 5.0
"""For the OCI runtime, once its client has gone."""


def main(arguments: list[str]) -> None:
    """Detach from the starter and attend until the session has ended."""
    path, connection = arguments[0], int(arguments[1])
    is_parent = leave_starter("sealane-exec", connection)
    exec_config = ExecConfig.load(path)
    if exec_config is None or not is_parent:
        # Its client hears that it hangs up.
        return
    with contextlib.closing(ExecShim(exec_config, path, connection)) as exec_shim:
        try:
            exit_code, error = exec_shim.attend()
        except Exception as problem:
            # The wall of this process: no process is left running without its attendant.
            exec_shim.kill()
            exit_code, error = codes.FAILED, f"the session's attendant failed: {problem!r}"
        exec_shim.streams.end(exit_code, error)


class ExecShim(Parent):
    """All waiting happens in `until`; `attend` reads from top to bottom."""

    def __init__(self, exec_config: ExecConfig, path: str, connection: int) -> None:
        super().__init__()
        self._errand = exec_config
        stem = path.removesuffix(".json")
        self._errand_file, self._process_file = path, f"{stem}.process"
        self._log, self._pid_file = f"{stem}.log", f"{stem}.pid"
        self.streams = Streams(
            os.path.dirname(path), terminal=bool(exec_config.process["terminal"]), stdin=True,
            client=Peer.at(connection, exec_config.early),
        )  # fmt: skip
        self.streams.belong_to(exec_config.streams_owner)
        self._exits: dict[int, int] = {}
        self._process = 0

    def attend(self) -> tuple[int, str]:
        """The process's exit code, and why it never ran."""
        files.write_json(self._process_file, self._errand.process)
        runtime = self._launch()
        if not self._has_ended(runtime, LAUNCH_TIMEOUT_S):
            os.kill(runtime, signal.SIGKILL)
            # What it has begun is left to us.
            self._has_ended(runtime, 1.0)
            self.kill()
            return codes.FAILED, f"the OCI runtime did not answer within {LAUNCH_TIMEOUT_S:.0f} s"
        if self._exits[runtime] != 0:
            error, code = explain_failure(self._log, self._exits[runtime])
            return code, error
        pid = self._pid()
        if not self.is_handed(pid, self._exits):
            self.kill()
            return codes.FAILED, "the OCI runtime did not hand over the process"
        self._process = pid
        self.streams.connect()
        self.until(lambda: pid in self._exits or not self.streams.has_client)
        if pid not in self._exits:
            self.kill()
            return codes.FAILED, "its client has gone"
        self.streams.drain()
        return self._exits[pid], ""

    def _launch(self) -> int:
        """The runtime's pid."""
        options, ends = self.streams.open()
        command = [
            *self._errand.runtime,
            "--log",
            self._log,
            "exec",
            "--detach",
            "--pid-file",
            self._pid_file,
        ]
        command += ["--process", self._process_file, *options, self._errand.container_id]
        return spawn(command, *ends)

    def _has_ended(self, runtime: int, seconds: float) -> bool:
        """In time. Until it has done its part there is nothing that could be ended: a client that has gone is no reason to
        leave, but to wait no longer than it usually takes."""
        deadline = time.monotonic() + seconds
        self.until(lambda: runtime in self._exits or not self.streams.has_client, deadline)
        return self.until(lambda: runtime in self._exits, min(deadline, time.monotonic() + GRACE_S))

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
        for path in (self._errand_file, self._process_file, self._log, self._pid_file):
            files.remove(path)

    def interests(self) -> dict[int, int]:
        return self.streams.interests()

    def serve(self, descriptor: int, events: int) -> None:
        self.streams.serve(descriptor, events)

    def ended(self, pid: int, exit_code: int) -> None:
        # Of the orphans that it leaves us meanwhile, nobody asks.
        if not self._process or pid == self._process:
            self._exits[pid] = exit_code
