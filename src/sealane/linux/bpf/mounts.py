"""Where cgroups and pins live: finding the cgroup2 hierarchy, and having a bpffs at a directory of ours."""

from __future__ import annotations

import ctypes
import errno
import os
import re
from typing import Final

_BPF_FS_MAGIC: Final = 0xCAFE4A11
_MS_NOSUID: Final = 2
_MS_NODEV: Final = 4
_MS_NOEXEC: Final = 8
_STATFS_BYTES: Final = 256
"""More than ``struct statfs`` of any architecture (120 on x86-64)."""

_libc: Final = ctypes.CDLL(None, use_errno=True)


def find_cgroup2(mountinfo: str | None = None) -> str | None:
    """Return where the cgroup v2 hierarchy is mounted, or None; with a hybrid layout it is not ``/sys/fs/cgroup``.

    Reads ``/proc/self/mountinfo`` unless its text is given.
    """
    if mountinfo is None:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            mountinfo = file.read()
    # See proc(5): root and mount point are fields 4 and 5, the type is the first field after a lone hyphen.
    for line in mountinfo.splitlines():
        before, _hyphen, after = line.partition(" - ")
        fields = before.split(" ")
        if after.split(" ")[0] == "cgroup2" and len(fields) >= 5 and fields[3] == "/":
            return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), fields[4])
    return None


def on_bpffs(path: str) -> bool:
    """Whether `path`, which must exist, lies on a bpffs."""
    buffer = ctypes.create_string_buffer(_STATFS_BYTES)
    if _libc.statfs(os.fsencode(path), buffer) != 0:
        raise _error("statfs", path)
    # The first field is f_type, a long on every architecture we know the number of bpf(2) for, but s390x (an int).
    f_type = (
        ctypes.c_uint32.from_buffer(buffer)
        if ctypes.sizeof(ctypes.c_long) == 4
        else ctypes.c_long.from_buffer(buffer)
    )
    return f_type.value & 0xFFFF_FFFF == _BPF_FS_MAGIC


def ensure_bpffs(path: str) -> bool:
    """Make `path` a directory on a bpffs, by mounting one there if need be; True if it mounted.

    The mount belongs to this mount namespace, and pins live as long as it does. PermissionError without CAP_SYS_ADMIN.
    """
    os.makedirs(path, mode=0o700, exist_ok=True)
    if on_bpffs(path):
        return False
    flags = ctypes.c_ulong(_MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
    if _libc.mount(b"sealane", os.fsencode(path), b"bpf", flags, b"mode=0700") != 0:
        raise _error("mount bpffs", path)
    return True


def remove_bpffs(path: str) -> None:
    """Undo `ensure_bpffs`: unmount what is mounted at `path` itself, and remove the directory. Absent is no error."""
    try:
        if os.path.ismount(path) and on_bpffs(path) and _libc.umount2(os.fsencode(path), 0) != 0:
            raise _error("unmount bpffs", path)
        os.rmdir(path)
    except FileNotFoundError:
        return


def _error(action: str, path: str) -> OSError:
    code = ctypes.get_errno()
    return (
        OSError(code, f"{action} {path}: {os.strerror(code)}")
        if code
        else OSError(errno.EIO, f"{action} {path}")
    )
