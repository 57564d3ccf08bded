"""The system calls a container may not make. Pure.

runc ships no profile, and Docker's allow list (about 350 names, with conditions by capability and version) is compiled
into dockerd. This is the complement that matters: a deny list of the calls Docker's documentation names as blocked by
default ("Seccomp security profiles for Docker", significant syscalls). A call that a given capability is meant for is
allowed with the capability. Names unknown to the machine's libseccomp are ignored by runc.

Weaker than an allow list: a new dangerous system call is allowed until it is named here.
"""

from __future__ import annotations

EPERM = 1
ENOSYS = 38

_ALWAYS = (
    "add_key", "keyctl", "request_key", "create_module", "get_kernel_syms", "query_module", "nfsservctl", "uselib",
    "ustat", "sysfs", "_sysctl", "userfaultfd", "vm86", "vm86old", "io_uring_setup", "io_uring_enter",
    "io_uring_register",
)  # fmt: skip

_WITH_CAPABILITY = {
    "CAP_SYS_ADMIN": (
        "bpf", "fanotify_init", "fsconfig", "fsmount", "fsopen", "fspick", "lookup_dcookie", "mount", "mount_setattr",
        "move_mount", "open_tree", "perf_event_open", "pivot_root", "quotactl", "quotactl_fd", "setdomainname",
        "sethostname", "setns", "swapoff", "swapon", "umount", "umount2", "unshare",
    ),
    "CAP_SYS_MODULE": ("delete_module", "finit_module", "init_module"),
    "CAP_SYS_BOOT": ("kexec_file_load", "kexec_load", "reboot"),
    "CAP_SYS_RAWIO": ("ioperm", "iopl"),
    "CAP_SYS_TIME": ("clock_settime", "clock_settime64", "settimeofday", "stime"),
    "CAP_SYS_PACCT": ("acct",),
    "CAP_SYS_NICE": ("get_mempolicy", "mbind", "move_pages", "set_mempolicy", "set_mempolicy_home_node"),
    "CAP_SYS_PTRACE": ("kcmp", "process_madvise", "process_vm_readv", "process_vm_writev"),
    "CAP_DAC_READ_SEARCH": ("open_by_handle_at",),
    "CAP_SYSLOG": ("syslog",),
}  # fmt: skip

# CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET: clone(2) may make processes, not namespaces.
_CLONE_NAMESPACES = (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000)

_ARCHITECTURES = {
    "x86_64": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
    "aarch64": ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
}


def seccomp_profile(capabilities: tuple[str, ...], machine: str) -> dict[str, object] | None:
    """The `linux.seccomp` object; None for a machine whose architectures are not listed here."""
    if machine not in _ARCHITECTURES:
        return None
    denied = list(_ALWAYS)
    for capability, names in _WITH_CAPABILITY.items():
        if capability not in capabilities:
            denied += names
    rules: list[dict[str, object]] = [
        {"names": sorted(denied), "action": "SCMP_ACT_ERRNO", "errnoRet": EPERM},
    ]
    if "CAP_SYS_ADMIN" not in capabilities:
        rules += [_clone_rule(flag) for flag in _CLONE_NAMESPACES]
        # Its flags are behind a pointer, which a filter cannot read. ENOSYS makes libc fall back to clone(2).
        rules.append({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS})
    return {"defaultAction": "SCMP_ACT_ALLOW", "architectures": _ARCHITECTURES[machine], "syscalls": rules}


def _clone_rule(flag: int) -> dict[str, object]:
    masked = {"index": 0, "value": flag, "valueTwo": flag, "op": "SCMP_CMP_MASKED_EQ"}
    return {"names": ["clone"], "action": "SCMP_ACT_ERRNO", "errnoRet": EPERM, "args": [masked]}
