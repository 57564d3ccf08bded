"""A container's own writable root over an image: an overlay where the kernel and the file system can, else a copy.

    STATE/containers/ID/layer/    upper/  work/      the overlay's: what the container has changed
                                  copy/              instead, whole
    RUN/containers/ID/rootfs                         the mount, of either; device files in it open nothing

What is written stays until the container is removed. The mount belongs to this boot and is made at each start. Which of
the two it is, is decided once: what has been written to one is not in the other.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from sealane.containers.errors import ContainerError
from sealane.containers.idmap import mount_idmapped

COPY_TIMEOUT_S = 600.0
_MS_NODEV, _MS_REMOUNT, _MS_BIND = 4, 32, 4096
_MNT_DETACH, _UMOUNT_NOFOLLOW = 2, 8

_NO_OVERLAY = frozenset({errno.ENODEV, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM})
"""No overlayfs here, or not over this file system (another overlay, NFS, an old kernel's namespace)."""

_libc = ctypes.CDLL(None, use_errno=True)


def mount_layer(
    lower: str, folder: str, target: str, *, in_user_namespace: bool, userns: str | None = None
) -> None:
    """Nothing is mounted at `target` before. Raises OSError, ContainerError; what the container has written is as it was.

    `in_user_namespace`: this process is. `userns`: the image is shown with the ids of that one, and what the container writes
    is its own (the overlay's upper layer), or root's on the disk (the copy).
    """
    os.makedirs(target, mode=0o755, exist_ok=True)
    copy, upper = os.path.join(folder, "copy"), os.path.join(folder, "upper")
    if not os.path.isdir(copy):
        try:
            with _shown(lower, f"{folder}/lower", userns) as shown:
                _mount_overlay(shown, folder, target, in_user_namespace=in_user_namespace)
        except OSError as error:
            if _holds_something(upper):
                raise ContainerError(
                    f"what the container has written is in {upper}, and the overlay cannot be mounted: {error.strerror}"
                ) from error
            if error.errno not in _NO_OVERLAY:
                raise
            _copy(lower, folder, copy)
        else:
            return
    if userns is None:
        _mount(copy, target, "none", _MS_BIND, "")
    else:
        mount_idmapped(copy, target, userns)
    _mount("none", target, "none", _MS_BIND | _MS_REMOUNT | _MS_NODEV, "")


@contextmanager
def _shown(lower: str, place: str, userns: str | None) -> Iterator[str]:
    """Where the image is with the container's ids, until the overlay has taken it (idmapped layers: Linux 5.19)."""
    if userns is None:
        yield lower
        return
    os.makedirs(place, mode=0o700, exist_ok=True)
    unmount_layer(place)
    mount_idmapped(lower, place, userns)
    try:
        yield place
    finally:
        unmount_layer(place)
        os.rmdir(place)


def unmount_layer(target: str) -> None:
    """Idempotent. What is still open in it goes when it is closed."""
    while _libc.umount2(os.fsencode(target), _MNT_DETACH | _UMOUNT_NOFOLLOW) == 0:
        pass


def _holds_something(upper: str) -> bool:
    try:
        with os.scandir(upper) as entries:
            return any(entries)
    except FileNotFoundError:
        return False


def _mount_overlay(lower: str, folder: str, target: str, *, in_user_namespace: bool) -> None:
    upper, work = os.path.join(folder, "upper"), os.path.join(folder, "work")
    if not os.path.isdir(upper):
        os.makedirs(upper)
        # The merged root has the upper's owner and mode.
        shape = os.stat(lower)
        os.chown(upper, shape.st_uid, shape.st_gid)
        os.chmod(upper, stat.S_IMODE(shape.st_mode))
    os.makedirs(work, exist_ok=True)
    places = {
        "lowerdir": _escaped(lower).replace(":", "\\:"),
        "upperdir": _escaped(upper),
        "workdir": _escaped(work),
    }
    options = ",".join(f"{key}={value}" for key, value in places.items())
    # Trusted attributes are not a user namespace's to write (Linux 5.11).
    _mount("sealane", target, "overlay", _MS_NODEV, options + (",userxattr" if in_user_namespace else ""))


def _escaped(path: str) -> str:
    return path.replace("\\", "\\\\").replace(",", "\\,")


def _copy(lower: str, folder: str, copy: str) -> None:
    """In its place whole or not at all; extents are shared where the file system can."""
    unfinished = os.path.join(folder, "copying")
    shutil.rmtree(unfinished, ignore_errors=True)
    os.makedirs(folder, mode=0o700, exist_ok=True)
    try:
        done = subprocess.run(
            ["cp", "-a", "--reflink=auto", "--", lower, unfinished], check=False, capture_output=True,
            stdin=subprocess.DEVNULL, timeout=COPY_TIMEOUT_S,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise ContainerError(f"the image was not copied after {COPY_TIMEOUT_S:.0f} s") from None
    if done.returncode != 0:
        raise ContainerError(
            f"the image cannot be copied: {done.stderr.decode('utf-8', 'replace').strip()[-500:]}"
        )
    os.rename(unfinished, copy)


def mount_bind(source: str, target: str) -> None:
    """Raises OSError."""
    _mount(source, target, "none", _MS_BIND, "")


def _mount(source: str, target: str, kind: str, flags: int, options: str) -> None:
    arguments = (
        os.fsencode(source),
        os.fsencode(target),
        kind.encode(),
        ctypes.c_ulong(flags),
        os.fsencode(options),
    )
    if _libc.mount(*arguments) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"mount {kind} at {target}: {os.strerror(code)}")
