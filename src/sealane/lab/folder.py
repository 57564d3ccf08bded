"""A lab's directory: its plan, its lock, its nodes' logs and state.

    ROOT/NAME/lock         held by the lab's two processes: free means that both have ended
              plan.json    the plan that is up
              token        name of the lab's control groups
              holder.sock  answers the verbs
              holder.log   errors of the two processes
              nodes/NODE/  program.log, notify (sd_notify(3)), hosts (its /etc/hosts), state (a daemon's),
                           run (its /run/sealane, with the daemon's socket)

ROOT is /run/sealane-lab, or $XDG_RUNTIME_DIR/sealane-lab of a user.
"""

import fcntl
import os
import secrets
import shutil
from collections.abc import Mapping
from contextlib import suppress

import msgspec

from sealane.containers import cgroups
from sealane.lab.plan import Plan

_PLAN = msgspec.json.Decoder(Plan)
GROUP_PREFIX = "/sealane-lab-"
GROUP_DEPTH_MAX = 16
"""Levels of control groups that are looked into for removal."""


class LabError(Exception):
    """A verb failed. `hint` says what to type."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


def root_folder(environ: Mapping[str, str]) -> str:
    """Raises LabError for a user without a run-time directory."""
    if os.geteuid() == 0:
        return "/run/sealane-lab"
    base = environ.get("XDG_RUNTIME_DIR", "")
    if not base.startswith("/"):
        raise LabError("XDG_RUNTIME_DIR is not set", "set it to a directory of yours, or become root")
    return f"{base}/sealane-lab"


class Folder:
    """Paths below ROOT/NAME. Nothing is opened or made before it is needed."""

    def __init__(self, root: str, name: str) -> None:
        self.root, self.name = root, name
        self.path = f"{root}/{name}"
        self.log = f"{self.path}/holder.log"

    def node(self, name: str) -> str:
        return f"{self.path}/nodes/{name}"

    def program_log(self, name: str) -> str:
        return f"{self.node(name)}/program.log"

    def socket(self, name: str) -> str:
        """Of the daemon of a host, as processes outside the lab reach it."""
        return f"{self.node(name)}/run/sealane.sock"

    # --- the lock

    def lock(self, *, make: bool = False) -> int | None:
        """A descriptor that holds the lock, for the caller to close; None: a lab's process holds it.

        Raises FileNotFoundError if there is no such lab, unless `make` says to begin one.
        """
        while True:
            if make:
                os.makedirs(self.path, mode=0o700, exist_ok=True)
            flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_CREAT
            try:
                descriptor = os.open(f"{self.path}/lock", flags, 0o600)
            except FileNotFoundError:
                if make:
                    continue
                raise
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                return None
            # Who held it may have removed it meanwhile: then another file has its name, or none.
            if self.is_locked_by(descriptor):
                return descriptor
            os.close(descriptor)
            if not make and not os.path.isdir(self.path):
                raise FileNotFoundError(self.path)

    def is_locked_by(self, descriptor: int) -> bool:
        """Whether the lock that a descriptor holds is still this lab's. A directory that was removed and made anew has
        another one: an inode that is open is given to no other file."""
        try:
            return os.path.samestat(os.stat(f"{self.path}/lock"), os.fstat(descriptor))
        except FileNotFoundError:
            return False

    # --- contents

    def write_plan(self, plan: Plan) -> None:
        self._write("token", secrets.token_hex(6))
        self._write("plan.json", msgspec.json.encode(plan).decode())

    def read_plan(self) -> Plan:
        """Raises OSError, or msgspec's errors for what another release has written."""
        with open(f"{self.path}/plan.json", "rb") as file:
            return _PLAN.decode(file.read())

    def group(self) -> str:
        """The lab's control group, below the root of every hierarchy; empty if it never got so far."""
        with suppress(OSError), open(f"{self.path}/token", encoding="ascii") as file:
            token = file.read()
            if len(token) == 12 and token.isascii() and token.isalnum():
                return GROUP_PREFIX + token
        return ""

    def _write(self, name: str, text: str) -> None:
        with open(f"{self.path}/{name}", "w", encoding="utf-8") as file:
            file.write(text)

    def log_end(self, path: str, lines: int = 5) -> str:
        """The last lines of a log, for an error."""
        try:
            with open(path, "rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - 4096))
                text = file.read().decode("utf-8", "replace")
        except OSError:
            return ""
        return " | ".join(line.strip() for line in text.splitlines()[-lines:] if line.strip())

    def remove(self) -> None:
        """What a lab leaves when its processes have ended: control groups and this directory. Idempotent.

        The caller holds the lock.
        """
        self.remove_contents()
        # Another `up` may begin as soon as the lock's name is gone, and is not to lose its files to this.
        aside = f"{self.root}/.{self.name}-{secrets.token_hex(6)}"
        with suppress(FileNotFoundError):
            os.rename(self.path, aside)
        shutil.rmtree(aside, ignore_errors=True)
        with suppress(OSError):
            os.rmdir(self.root)

    def remove_contents(self) -> None:
        """As `remove`, and the lock stays, for a lab that is about to begin."""
        if group := self.group():
            remove_group(cgroups.detect(), group)
        shutil.rmtree(f"{self.path}/nodes", ignore_errors=True)
        for name in ("holder.sock", "holder.log", "plan.json", "token"):
            with suppress(FileNotFoundError):
                os.unlink(f"{self.path}/{name}")


def labs(root: str) -> list[str]:
    """Names of the labs that are up or were left."""
    try:
        entries = [entry for entry in os.scandir(root) if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []
    return sorted(entry.name for entry in entries if not entry.name.startswith("."))


def remove_group(found: cgroups.Cgroups, group: str, depth: int = 0) -> None:
    """A control group with all below it, the processes in it killed."""
    if depth < GROUP_DEPTH_MAX:
        for child in cgroups.children(found, group):
            remove_group(found, f"{group}/{child}", depth + 1)
    cgroups.remove(found, group)
