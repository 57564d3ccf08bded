"""The shim: one process a container, which outlives the daemon. Standard library only.

Why it exists: the daemon may be killed at any instant, and the container, its log, its restart policy and its health
checks go on. The shim is the container's parent (as child subreaper: the OCI runtime starts the container and leaves),
so it alone learns the exit status. It talks through files, one signal and one hint:

    status.json   shim -> all     replaced whole at every change; `store.py` documents its fields
    changes       shim -> daemon  a FIFO, that the status is another
    desired.json  all -> shim     {"action": "stop", "timeout_s": s}, or {"action": "kill"}: who writes it sends the last
                                  signal himself; read at SIGUSR1 and before the first start
    LOCK_FD       shim.lock, locked by the starter before it starts the shim and held for the shim's whole life:
                  whoever finds it free knows that there is no shim, not even one just starting
    READY_FD      one JSON line to the starter: {"pid": n} or {"error": text, "exit_code": n}
    CLIENT_FD     somebody at the container's input and output (`frames.py`), who may hang up at any time; -1: nobody

SIGTERM ends the container as `stop` does, but is not remembered as the user's wish (a machine shutting down sends it).
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import time

from sealane.containers import codes, files, process
from sealane.containers.changes import tell
from sealane.containers.frames import Peer
from sealane.containers.logwriter import LogWriter
from sealane.containers.parent import (
    LAUNCH_TIMEOUT_S,
    Parent,
    explain_failure,
    leave_starter,
    spawn,
)
from sealane.containers.plan import Paths, Plan
from sealane.containers.probe import Probe
from sealane.containers.streams import Streams

FIRST_DELAY_S = 0.1
MAX_DELAY_S = 60.0
# A run of this length counts as good: the next failure starts again at FIRST_DELAY_S.
GOOD_RUN_S = 10.0
PROGRAM_PATIENCE_S = 1.0
PROGRAM_POLL_S = 0.002
DELETE_TIMEOUT_S = 30.0


def main(arguments: list[str]) -> None:
    """Detach from the starter and supervise until the container has ended for good."""
    # A daemon that was started before this release was installed gives no CLIENT_FD.
    plan_path, (lock, ready_fd, client_fd, *_) = arguments[0], [*map(int, arguments[1:]), -1]
    descriptors = [descriptor for descriptor in (lock, ready_fd, client_fd) if descriptor >= 0]
    if not leave_starter("sealane-shim", *descriptors):
        answer(ready_fd, {"error": "the kernel refuses PR_SET_CHILD_SUBREAPER", "exit_code": codes.FAILED})
        return
    plan = Plan.load(plan_path)
    if plan is None:
        answer(ready_fd, {"error": f"cannot read {plan_path}", "exit_code": codes.FAILED})
        return
    supervisor = Supervisor(plan, ready_fd, client_fd)
    try:
        supervisor.supervise()
    except Exception as problem:
        # The wall of this process: whatever happens, no container is left running without its supervisor.
        supervisor.give_up(f"the supervisor failed: {problem!r}")


def answer(ready_fd: int, value: dict[str, object]) -> None:
    """Tell the starter how it went; it may be dead already."""
    try:
        files.write_all(ready_fd, json.dumps(value).encode() + b"\n")
    except BrokenPipeError:
        return
    finally:
        os.close(ready_fd)


class Supervisor(Parent):
    """Runs one container to its end, over all its restarts.

    All waiting happens in `until`, which meanwhile copies output, reaps children, keeps the stop deadline and runs
    health checks; so the life cycle in `supervise` reads from top to bottom.
    """

    def __init__(self, plan: Plan, ready_fd: int, client_fd: int = -1) -> None:
        super().__init__(signal.SIGUSR1, signal.SIGTERM, signal.SIGINT)
        self._plan = plan
        self._ready_fd = ready_fd
        self._paths = Paths(plan.state_folder, plan.run_folder)
        self._runtime = [*plan.runtime, "--log", self._paths.runtime_log]
        self._log = LogWriter(self._paths.logs)
        self._exits: dict[int, int] = {}
        self._init = 0
        self._probe: Probe | None = None
        self._restarts = 0
        self._stopping = False
        self._early: list[int] = []
        """Signals that its client has passed on before it ran."""
        self._final = False
        """This run is the last, however it ends."""
        self._kill_at: float | None = None
        self._killed = False
        self._status: dict[str, object] = {"shim": process.identify(os.getpid()), "restarts": 0}
        self._null = os.open(os.devnull, os.O_RDONLY)
        # Last: it hears what its client has sent already.
        self._streams = Streams(
            self._paths.run_folder, terminal=plan.has_terminal, stdin=plan.has_stdin,
            client=Peer.at(client_fd, plan.early), log=self._log, signalled=self._pass_on,
        )  # fmt: skip
        self._streams.belong_to(plan.streams_owner)

    # The life cycle

    def supervise(self) -> None:
        delay = FIRST_DELAY_S
        self._publish(status="created")
        self._read_desired()
        while True:
            error, exit_code = self._launch()
            began = time.monotonic()
            if not error:
                exit_code = self._serve()
            was_good = time.monotonic() - began >= GOOD_RUN_S
            self._clean_up()
            # A container that cannot even start once is its starter's to judge, not the restart policy's.
            if (error and self._ready_fd >= 0) or not self._restarts_after(exit_code):
                self._finish(exit_code, error)
                return
            delay = FIRST_DELAY_S if was_good else delay
            self._publish(
                status="restarting",
                pid=0,
                init=None,
                exit_code=exit_code,
                error=error,
                finished_at=time.time(),
            )
            if self.until(lambda: self._stopping or self._final, time.monotonic() + delay):
                # It ended when it ended, and not again.
                self._finish(exit_code, error, at=float(str(self._status["finished_at"])))
                return
            delay = min(delay * 2, MAX_DELAY_S)
            self._restarts += 1
            self._status["restarts"] = self._restarts

    def _launch(self) -> tuple[str, int]:
        """Start the container; ("", 0) or what went wrong and the exit code for it."""
        for path in (self._paths.pid_file, self._paths.runtime_log):
            files.remove(path)
        self._exits.clear()
        command = [*self._runtime, "run", "--detach", "--bundle", self._paths.run_folder]
        command += ["--pid-file", self._paths.pid_file]
        try:
            options, ends = self._streams.open()
            runtime = spawn([*command, *options, self._plan.container_id], *ends)
        except OSError as problem:
            return f"cannot run {command[0]}: {problem.strerror}", codes.FAILED
        if not self.until(lambda: runtime in self._exits, time.monotonic() + LAUNCH_TIMEOUT_S):
            os.kill(runtime, signal.SIGKILL)
            return f"the OCI runtime did not answer within {LAUNCH_TIMEOUT_S:.0f} s", codes.FAILED
        if self._exits[runtime] != 0:
            return explain_failure(self._paths.runtime_log, self._exits[runtime])
        init = int(files.read_bytes(self._paths.pid_file) or b"0")
        if not self.is_handed(init, self._exits):
            # Its end would never be reported to us.
            return "the OCI runtime did not hand over the container's first process", codes.FAILED
        if self._streams.has_client:
            self._wait_for_program(init)
        self._init = init
        self._streams.connect()
        self._publish(
            status="running", pid=self._init, init=process.identify(self._init), error="", exit_code=0,
            started_at=time.time(), finished_at=0.0, oom_killed=False,
        )  # fmt: skip
        return "", 0

    def _wait_for_program(self, init: int) -> None:
        """A signal that comes while the OCI runtime's own program is still in the container's first process is not the
        container's: runc's ends with 2 of it."""
        deadline = time.monotonic() + PROGRAM_PATIENCE_S
        while init not in self._exits and is_runtime(init) and time.monotonic() < deadline:
            self.until(lambda: init in self._exits, time.monotonic() + PROGRAM_POLL_S)

    def _serve(self) -> int:
        """Be there while the container runs; its exit code as a shell gives it."""
        if self._ready_fd >= 0:
            answer(self._ready_fd, {"pid": self._init})
            self._ready_fd = -1
        self._start_probe()
        early, self._early = self._early, []
        for number in early:
            self._pass_on(number)
        if self._stopping:
            # Asked to stop while the OCI runtime was at work.
            self._send(self._plan.stop_signal)
        self.until(lambda: self._init in self._exits)
        if self._probe:
            self._probe.abandon()
            self._probe = None
        return self._exits[self._init]

    def _restarts_after(self, exit_code: int) -> bool:
        policy = self._plan.restart
        if self._stopping or self._final or policy == "no":
            return False
        if policy == "on-failure":
            most = self._plan.max_restarts
            return exit_code != 0 and (most == 0 or self._restarts < most)
        return True

    def _clean_up(self) -> None:
        """Take the rest of the container's output and let the OCI runtime forget it."""
        self._status["oom_killed"] = count_oom_kills(self._plan.oom_file) > 0
        self._init = 0
        self._delete()
        self._streams.drain()

    def _delete(self) -> None:
        command = [*self._runtime, "delete", "--force", self._plan.container_id]
        try:
            delete = spawn(command, self._null, self._null, self._null)
        except OSError:
            # No OCI runtime any more. What it leaves behind is found by `Runtime.remove`.
            return
        if not self.until(lambda: delete in self._exits, time.monotonic() + DELETE_TIMEOUT_S):
            os.kill(delete, signal.SIGKILL)

    def give_up(self, error: str) -> None:
        """Kill the container and record why; for failures of the shim itself."""
        self._send(signal.SIGKILL)
        self._finish(codes.FAILED, error)

    def _finish(self, exit_code: int, error: str, at: float | None = None) -> None:
        self._log.close()
        finished = time.time() if at is None else at
        self._publish(
            status="exited", pid=0, init=None, exit_code=exit_code, error=error, finished_at=finished
        )
        if self._ready_fd >= 0:
            # Who started it tells its client, too.
            answer(self._ready_fd, {"error": error, "exit_code": exit_code})
        else:
            self._streams.end(exit_code, error)

    # Waiting

    def interests(self) -> dict[int, int]:
        interests = self._streams.interests()
        if self._probe and self._probe.output_fd >= 0:
            interests[self._probe.output_fd] = select.POLLIN
        return interests

    def serve(self, descriptor: int, events: int) -> None:
        if (
            not self._streams.serve(descriptor, events)
            and self._probe
            and descriptor == self._probe.output_fd
        ):
            self._probe.read_output()

    def tick(self, now: float) -> None:
        if self._kill_at is not None and now >= self._kill_at and self._init and not self._killed:
            self._killed = True
            self._send(signal.SIGKILL)
        if self._probe and self._init not in self._exits:
            self._probe.tick(now)

    def moments(self) -> list[float]:
        found = [self._probe.deadline] if self._probe else []
        if self._kill_at is not None and self._init and not self._killed:
            found.append(self._kill_at)
        return found

    def ended(self, pid: int, exit_code: int) -> None:
        if self._probe and pid == self._probe.pid:
            self._probe.exited(exit_code, time.monotonic())
            self._publish(health=self._probe.report)
        elif not self._init or pid == self._init:
            self._exits[pid] = exit_code

    def signalled(self, numbers: bytes) -> None:
        if signal.SIGUSR1 in numbers:
            self._read_desired()
        if signal.SIGTERM in numbers or signal.SIGINT in numbers:
            self._stop(self._plan.stop_timeout_s)

    # Stopping and checking

    def _read_desired(self) -> None:
        desired = files.read_json(self._paths.desired)
        if desired is None:
            return
        self._publish(stopped_by_user=True)
        self._final = True
        if desired["action"] == "stop":
            self._stop(float(desired["timeout_s"]))

    def _stop(self, timeout: float) -> None:
        """Ask the container to end, and kill it after the timeout. A second call may shorten the time."""
        kill_at = time.monotonic() + timeout
        self._kill_at = kill_at if self._kill_at is None else min(self._kill_at, kill_at)
        if not self._stopping:
            self._stopping = True
            self._send(self._plan.stop_signal)

    def _pass_on(self, number: int) -> None:
        """As `kill` does it: after one that is meant to end it, the restart policy does not apply."""
        if number in {signal.SIGKILL, self._plan.stop_signal}:
            self._final = True
            self._publish(stopped_by_user=True)
        if not self._init:
            if number not in self._early:
                self._early.append(number)
            return
        with contextlib.suppress(OSError):  # There may be no such signal.
            self._send(number)

    def _send(self, number: int) -> None:
        # Nobody but this process reaps the container's init, so its pid cannot have been reused.
        if self._init and self._init not in self._exits:
            os.kill(self._init, number)

    def _start_probe(self) -> None:
        health = self._plan.health_plan
        if health is None:
            return
        paths = self._paths
        # What the runtime says of a check goes to the check's output.
        command = [*self._plan.runtime, "--log", os.devnull, "exec", "--pid-file", paths.probe_pid_file]
        command += ["--process", paths.probe_process, self._plan.container_id]
        self._probe = Probe(health, command, paths.probe_pid_file, time.monotonic())
        self._publish(health=self._probe.report)

    def _publish(self, **changes: object) -> None:
        self._status.update(changes)
        # A full disk must not end the container. The next change tries again; the lock still tells who lives.
        with contextlib.suppress(OSError):
            files.write_json(self._paths.status, self._status)
        tell(self._paths.changes, self._plan.container_id)


def is_runtime(pid: int) -> bool:
    """Whether the OCI runtime is still at work in a process that it has made: it calls itself `runc:[2:INIT]`."""
    try:
        return (files.read_bytes(f"/proc/{pid}/comm") or b"").startswith(b"runc:[")
    except ProcessLookupError:
        return False


def count_oom_kills(path: str) -> int:
    """`oom_kill N` in memory.events (v2) or memory.oom_control (v1, since Linux 4.13); 0 if there is no such file."""
    for line in (files.read_bytes(path) or b"").splitlines() if path else []:
        words = line.split()
        if len(words) == 2 and words[0] == b"oom_kill":
            return int(words[1])
    return 0
