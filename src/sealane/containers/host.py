"""What this process finds on this host: the OCI runtime, its features, control groups, user namespace."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess

import msgspec

from sealane.containers import cgroups, codes
from sealane.containers.errors import ContainerError
from sealane.containers.oci import HostFacts
from sealane.containers.users import UidMap, parse_id_map

RUNTIMES = ("runc", "crun")
# Not always in a service's PATH.
SYSTEM_FOLDERS = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"
COMMAND_TIMEOUT_S = 30.0
WHOLE_ID_RANGE = 2**32 - 1


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """Found once at start; nothing of it changes while a daemon runs."""

    runtime: tuple[str, ...]
    """The OCI runtime with its global options, without `--log`."""
    runtime_root: str
    facts: HostFacts
    cgroups: cgroups.Cgroups
    no_limits: str
    """Why limits cannot be set; "" if they can."""
    uid_map: tuple[UidMap, ...]
    gid_map: tuple[UidMap, ...]

    def group_of(self, container_id: str) -> str:
        return f"{self.facts.cgroup_path}/{container_id}"


def find_host(*, instance: str, runtime_root: str, runtime: str | None) -> Host:
    """Look at the host. ContainerError if there is no OCI runtime."""
    program = _find_runtime(runtime)
    seen = cgroups.detect()
    if os.path.basename(program) == "crun" and seen.mode == "hybrid":
        raise ContainerError(
            "crun refuses machines with control groups v1 and v2 side by side (hybrid): install runc"
        )
    no_limits = cgroups.why_unusable(seen)
    uid_map = parse_id_map(_read("/proc/self/uid_map"))
    facts = HostFacts(
        in_user_namespace=uid_map != (UidMap(0, WHOLE_ID_RANGE),),
        cgroups=seen.mode if os.path.exists("/proc/self/ns/cgroup") else cgroups.MODE_NONE,
        cgroup_path="" if no_limits else f"/{cgroups.ROOT_GROUP}/{instance}",
        swap_limit=cgroups.has_swap_limit(seen),
        seccomp="Seccomp_filters:" in _read("/proc/self/status") and _has_seccomp(program),
        machine=platform.machine(),
    )
    options = ["--root", runtime_root, "--log-format", "json"]
    if no_limits and os.path.basename(program) == "crun":
        # runc finds out by itself that it may not make groups; crun 1.8 has to be told.
        options.append("--cgroup-manager=disabled")
    return Host(
        runtime=(program, *options),
        runtime_root=runtime_root,
        facts=facts,
        cgroups=seen,
        no_limits=no_limits,
        uid_map=uid_map,
        gid_map=parse_id_map(_read("/proc/self/gid_map")),
    )


def run_quietly(command: list[str]) -> int:
    """Run an OCI runtime command whose output nobody needs; its exit code."""
    try:
        return subprocess.run(
            command, check=False, timeout=COMMAND_TIMEOUT_S,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        ).returncode  # fmt: skip
    except subprocess.TimeoutExpired:
        return codes.FAILED


def _find_runtime(desired: str | None) -> str:
    path = f"{os.environ.get('PATH', '')}:{SYSTEM_FOLDERS}"
    for name in (desired,) if desired else RUNTIMES:
        found = shutil.which(name, path=path)
        if found:
            return os.path.realpath(found)
    raise ContainerError(
        f"no OCI runtime: install runc or crun (looked for {desired or ', '.join(RUNTIMES)})"
    )


def _has_seccomp(program: str) -> bool:
    """Both name what they were built with: runc "libseccomp: 2.5.4", crun "+SECCOMP"."""
    try:
        answer = subprocess.run(
            [program, "--version"], check=False, capture_output=True, timeout=COMMAND_TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        return False
    return b"libseccomp:" in answer.stdout or b"+SECCOMP" in answer.stdout


def _read(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()
