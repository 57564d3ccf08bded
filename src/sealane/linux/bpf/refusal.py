"""Why bpf(2) does not do what it is asked for, in words."""

from __future__ import annotations

import errno
from typing import Final

_FULL_UID_MAP: Final = ["0", "0", "4294967295"]


def why(error: OSError) -> str:
    """For people, of an error of maps and programs that were tried."""
    if error.errno == errno.EPERM and _in_user_namespace():
        return "bpf(2) needs privileges in the machine's first user namespace, and this process is in another one"
    if error.errno == errno.EPERM:
        return (
            f"{error.strerror}: bpf(2) needs CAP_BPF and CAP_NET_ADMIN, and a kernel that is not locked down"
        )
    if error.errno == errno.ENOPROTOOPT:
        return "the kernel has no SO_NETNS_COOKIE (Linux 5.14)"
    if error.errno == errno.ENOSYS:
        return "the kernel has no bpf(2)"
    return _shortened(error.strerror or str(error))


def _shortened(text: str) -> str:
    """Of a verifier's log, which may be long, the line that says what is wrong: the last one before its statistics."""
    said, _, detail = text.partition("; verifier: ")
    lines = [line for line in detail.splitlines() if line.strip() and not line.startswith("processed ")]
    return f"{said}: {lines[-1].strip()}" if lines else said


def _in_user_namespace() -> bool:
    with open("/proc/self/uid_map", encoding="ascii") as file:
        return file.read().split() != _FULL_UID_MAP
