"""Control groups: which hierarchies this machine has, whether we may use them, and their tidy removal.

The OCI runtime makes and removes a container's own group. This module finds out what is there (v1, v2, or "hybrid":
v1 controllers with an empty v2 tree beside them), reads limits back, and removes what a crash left.
"""

from __future__ import annotations

import os
import signal
import time

import msgspec

MODE_NONE = "none"
ROOT_GROUP = "sealane"
LIMIT_CONTROLLERS = ("memory", "cpu", "pids")
KILL_ROUNDS = 100
KILL_PAUSE_S = 0.02


class Cgroups(msgspec.Struct, frozen=True):
    """The hierarchies seen from this mount namespace.

    `folders` maps a v1 controller (or "name=systemd") to its mount point; in v2 the single key is "".
    """

    mode: str
    folders: dict[str, str] = {}

    def group_folders(self, group: str) -> list[str]:
        """Every folder of a group such as /sealane/a/b, without repeats (v1 may mount cpu and cpuacct together)."""
        return sorted({folder + group for folder in self.folders.values()})

    def folder_of(self, controller: str, group: str) -> str | None:
        folder = self.folders.get("" if self.mode == "v2" else controller)
        return None if folder is None else folder + group


def parse_mounts(mountinfo: str) -> Cgroups:
    """From the text of /proc/self/mountinfo (proc(5)). The first mount of a hierarchy counts."""
    v1: dict[str, str] = {}
    v2: list[str] = []
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        place, kind = left.split(), right.split()
        if len(place) < 5 or len(kind) < 3:
            continue
        if kind[0] == "cgroup2":
            v2.append(place[4])
        elif kind[0] == "cgroup":
            for option in kind[2].split(","):
                if (
                    option not in ("rw", "ro", "xattr", "noprefix", "clone_children")
                    and "release_agent" not in option
                ):
                    v1.setdefault(option, place[4])
    if any(controller in v1 for controller in LIMIT_CONTROLLERS):
        return Cgroups("hybrid" if v2 else "v1", v1 | ({"unified": v2[0]} if v2 else {}))
    return Cgroups("v2", {"": v2[0]}) if v2 else Cgroups(MODE_NONE)


def detect() -> Cgroups:
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        return parse_mounts(file.read())


def why_unusable(cgroups: Cgroups) -> str:
    """The reason why this process cannot limit a container; "" if it can."""
    if cgroups.mode == MODE_NONE:
        return "no cgroup file system is mounted"
    for controller in LIMIT_CONTROLLERS:
        folder = cgroups.folder_of(controller, "")
        if folder is None:
            return f"the cgroup controller {controller} is not mounted"
        if not os.access(folder, os.W_OK):
            return f"no permission to make groups in {folder} (an unprivileged user, or a user namespace)"
    if cgroups.mode == "v2":
        with open(os.path.join(cgroups.folders[""], "cgroup.controllers"), encoding="ascii") as file:
            missing = set(LIMIT_CONTROLLERS) - set(file.read().split())
        if missing:
            return f"the cgroup controllers {', '.join(sorted(missing))} are not available"
    return ""


def has_swap_limit(cgroups: Cgroups) -> bool:
    """v2 always; v1 only with swap accounting, else writing memory and swap together is an error."""
    if cgroups.mode == "v2":
        return True
    folder = cgroups.folder_of("memory", "")
    return folder is not None and os.path.exists(os.path.join(folder, "memory.memsw.limit_in_bytes"))


def oom_file(cgroups: Cgroups, group: str) -> str:
    """Where the kernel counts this group's OOM kills; "" without a memory controller."""
    folder = cgroups.folder_of("memory", group)
    if folder is None:
        return ""
    return os.path.join(folder, "memory.events" if cgroups.mode == "v2" else "memory.oom_control")


def members(cgroups: Cgroups, group: str) -> set[int]:
    """The processes in a group, in any hierarchy."""
    found: set[int] = set()
    for folder in cgroups.group_folders(group):
        try:
            with open(os.path.join(folder, "cgroup.procs"), encoding="ascii") as file:
                found.update(int(line) for line in file)
        except OSError:
            continue
    return found


def remove(cgroups: Cgroups, group: str) -> bool:
    """Kill what is in a group and delete it everywhere; True if nothing of it is left. Idempotent.

    Only for a container's own group: whatever is in it belongs to the container.
    """
    for _round in range(KILL_ROUNDS):
        pids = members(cgroups, group)
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        if not pids and remove_empty(cgroups, group):
            return True
        # An exiting process stays in cgroup.procs until it is gone; nothing tells when.
        time.sleep(KILL_PAUSE_S)
    return False


def remove_empty(cgroups: Cgroups, group: str) -> bool:
    """Delete a group's folders; False if something is still in them."""
    emptied = True
    for folder in cgroups.group_folders(group):
        try:
            os.rmdir(folder)
        except FileNotFoundError:
            continue
        except OSError:
            emptied = False
    return emptied


def children(cgroups: Cgroups, group: str) -> set[str]:
    """Names of the groups below a group, in any hierarchy."""
    found: set[str] = set()
    for folder in cgroups.group_folders(group):
        try:
            found.update(entry.name for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False))
        except OSError:
            continue
    return found
