"""Capability names and the set a container gets. Pure."""

from __future__ import annotations

from sealane.containers.errors import SpecError

# capabilities(7), up to Linux 6.18 (CAP_CHECKPOINT_RESTORE, 5.9, is still the last one).
ALL = frozenset(
    [
        "AUDIT_CONTROL",
        "AUDIT_READ",
        "AUDIT_WRITE",
        "BLOCK_SUSPEND",
        "BPF",
        "CHECKPOINT_RESTORE",
        "CHOWN",
        "DAC_OVERRIDE",
        "DAC_READ_SEARCH",
        "FOWNER",
        "FSETID",
        "IPC_LOCK",
        "IPC_OWNER",
        "KILL",
        "LEASE",
        "LINUX_IMMUTABLE",
        "MAC_ADMIN",
        "MAC_OVERRIDE",
        "MKNOD",
        "NET_ADMIN",
        "NET_BIND_SERVICE",
        "NET_BROADCAST",
        "NET_RAW",
        "PERFMON",
        "SETFCAP",
        "SETGID",
        "SETPCAP",
        "SETUID",
        "SYSLOG",
        "SYS_ADMIN",
        "SYS_BOOT",
        "SYS_CHROOT",
        "SYS_MODULE",
        "SYS_NICE",
        "SYS_PACCT",
        "SYS_PTRACE",
        "SYS_RAWIO",
        "SYS_RESOURCE",
        "SYS_TIME",
        "SYS_TTY_CONFIG",
        "WAKE_ALARM",
    ]
)

# What Docker gives (moby daemon/pkg/oci/caps/defaults.go).
DEFAULT = frozenset(
    [
        "AUDIT_WRITE",
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "KILL",
        "MKNOD",
        "NET_BIND_SERVICE",
        "NET_RAW",
        "SETFCAP",
        "SETGID",
        "SETPCAP",
        "SETUID",
        "SYS_CHROOT",
    ]
)


def parse_capability(name: str, field: str) -> str:
    """`NET_ADMIN` from `cap_net_admin`, `CAP_NET_ADMIN` or `NET_ADMIN`; "ALL" stays."""
    short = name.upper().removeprefix("CAP_")
    if short != "ALL" and short not in ALL:
        raise SpecError(field, f"there is no capability {name!r}")
    return short


def effective_capabilities(add: tuple[str, ...], drop: tuple[str, ...]) -> tuple[str, ...]:
    """The names with `CAP_`, sorted. Docker's order of work: drop ALL empties the defaults, then single names count."""
    added = {parse_capability(name, "cap_add") for name in add}
    dropped = {parse_capability(name, "cap_drop") for name in drop}
    base: frozenset[str] = frozenset() if "ALL" in dropped else DEFAULT
    desired = (ALL if "ALL" in added else base | added) - (dropped - {"ALL"})
    return tuple(sorted(f"CAP_{name}" for name in desired))
