"""What the daemon tells a shim: one JSON file, written once before the shim starts. Standard library only.

A plain class instead of the project's usual records, because the shim must stay small: `dataclasses` alone costs it
2 MiB, msgspec is not in the standard library.
"""

from __future__ import annotations

import os

from sealane.containers import files

TYPE_CHECKING = False  # `typing` itself is 1 MiB of the shim's memory.
if TYPE_CHECKING:
    from typing import Self


class HealthPlan:
    """When to check; all times in seconds."""

    def __init__(self, *, interval_s: float, timeout_s: float, retries: int, start_period_s: float) -> None:
        self.interval_s = interval_s
        self.timeout_s = timeout_s
        self.retries = retries
        self.start_period_s = start_period_s


class JsonFile:
    """Fields in a file, for a process that is about to be started."""

    @classmethod
    def load(cls, path: str) -> Self | None:
        fields = files.read_json(path)
        return None if fields is None else cls(**fields)

    def save(self, path: str) -> None:
        files.write_json(path, vars(self))


class ExecConfig(JsonFile):
    """What an attendant is to do, in a file beside which it has its others."""

    def __init__(
        self, *, container_id: str, runtime: list[str], process: dict[str, object], early: str,
        streams_owner: list[int] | None = None,
    ) -> None:  # fmt: skip
        self.container_id = container_id
        # Program and global options of the OCI runtime, without `--log`.
        self.runtime = runtime
        # As OCI describes it.
        self.process = process
        # What has come on the connection already, in hexadecimal digits.
        self.early = early
        # As in `Plan`.
        self.streams_owner = streams_owner


class Plan(JsonFile):
    """Everything a shim knows about its container."""

    def __init__(
        self, *, container_id: str, runtime: list[str], state_folder: str, run_folder: str,
        restart: str, max_restarts: int, stop_signal: int, stop_timeout_s: float,
        oom_file: str, health: dict[str, float] | None, has_terminal: bool = False, has_stdin: bool = False,
        early: str = "", streams_owner: list[int] | None = None,
    ) -> None:  # fmt: skip
        self.container_id = container_id
        # Program and global options of the OCI runtime, without `--log`.
        self.runtime = runtime
        self.state_folder = state_folder
        self.run_folder = run_folder
        self.restart = restart
        # 0 is without end; only read for "on-failure".
        self.max_restarts = max_restarts
        self.stop_signal = stop_signal
        self.stop_timeout_s = stop_timeout_s
        # Where the kernel counts OOM kills of the container's cgroup; "" if it has none of its own.
        self.oom_file = oom_file
        self.health = health
        self.has_terminal = has_terminal
        # Its input is open, though nobody may be there to give any. (A terminal is an input, too.)
        self.has_stdin = has_stdin
        # What a client that comes with the shim has sent already, in hexadecimal digits.
        self.early = early
        # Host ids of user and group whose the pipes are, so that the container may open /dev/stderr; None: whose they are.
        self.streams_owner = streams_owner

    @property
    def health_plan(self) -> HealthPlan | None:
        if self.health is None:
            return None
        return HealthPlan(
            interval_s=self.health["interval_s"],
            timeout_s=self.health["timeout_s"],
            retries=int(self.health["retries"]),
            start_period_s=self.health["start_period_s"],
        )


class Paths:
    """The files of one container: what survives a reboot, and what belongs to this boot."""

    def __init__(self, state_folder: str, run_folder: str) -> None:
        self.state_folder = state_folder
        self.spec = os.path.join(state_folder, "spec.json")
        self.status = os.path.join(state_folder, "status.json")
        self.logs = os.path.join(state_folder, "log")
        self.layer = os.path.join(state_folder, "layer")
        self.run_folder = run_folder
        self.changes = os.path.join(os.path.dirname(os.path.dirname(run_folder)), "changes")
        self.rootfs = os.path.join(run_folder, "rootfs")
        self.config = os.path.join(run_folder, "config.json")
        self.etc = os.path.join(run_folder, "etc")
        self.plan = os.path.join(run_folder, "plan.json")
        self.desired = os.path.join(run_folder, "desired.json")
        self.lock = os.path.join(run_folder, "shim.lock")
        self.pid_file = os.path.join(run_folder, "init.pid")
        self.runtime_log = os.path.join(run_folder, "runtime.log")
        self.probe_process = os.path.join(run_folder, "probe.json")
        self.probe_pid_file = os.path.join(run_folder, "probe.pid")
