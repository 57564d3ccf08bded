"""What the kernel holds a container to, read back."""

import os

from sealane.containers.cgroups import Cgroups


def read_limits(cgroups: Cgroups, group: str) -> dict[str, int | float | None]:
    """The limits in force, as the kernel gives them: memory_bytes, cpus, pids; None is no limit."""
    if cgroups.mode == "v2":
        quota, period = _words(cgroups, "cpu", group, "cpu.max", "max 100000")
        memory = _words(cgroups, "memory", group, "memory.max", "max")[0]
    else:
        quota = _words(cgroups, "cpu", group, "cpu.cfs_quota_us", "-1")[0]
        period = _words(cgroups, "cpu", group, "cpu.cfs_period_us", "100000")[0]
        memory = _words(cgroups, "memory", group, "memory.limit_in_bytes", "max")[0]
    pids = _words(cgroups, "pids", group, "pids.max", "max")[0]
    return {
        "memory_bytes": _number(memory),
        "cpus": None if quota in ("max", "-1") else int(quota) / int(period),
        "pids": _number(pids),
    }


def _words(cgroups: Cgroups, controller: str, group: str, file: str, default: str) -> list[str]:
    folder = cgroups.folder_of(controller, group)
    if folder is None:
        return default.split()
    try:
        with open(os.path.join(folder, file), encoding="ascii") as opened:
            return opened.read().split()
    except FileNotFoundError:
        return default.split()


def _number(text: str) -> int | None:
    # v1 has no word for "no limit": it answers the largest page-aligned long.
    return None if text == "max" or int(text) >= 2**62 else int(text)
