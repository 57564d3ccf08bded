"""Copies of mounts that show files under the ids of a user namespace: what is root's in the folder is its root's there
(mount_setattr(2), Linux 5.12). Nothing is changed on the disk, and what its root writes is root's on it.

ext4, xfs, btrfs and tmpfs (6.3) can be shown so, and overlay, proc, NFS and FUSE cannot (EINVAL).
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager

_OPEN_TREE, _MOVE_MOUNT, _MOUNT_SETATTR = 428, 429, 442
"""The numbers of calls that came after Linux 5.1 are those of every architecture."""
_AT_FDCWD = -100
_AT_EMPTY_PATH, _AT_RECURSIVE = 0x1000, 0x8000
_OPEN_TREE_CLONE, _OPEN_TREE_CLOEXEC = 1, os.O_CLOEXEC
_MOVE_MOUNT_F_EMPTY_PATH = 4
_MOUNT_ATTR_RDONLY, _MOUNT_ATTR_NODEV, _MOUNT_ATTR_IDMAP = 1, 4, 0x100000
_MS_PRIVATE = 1 << 18
_ATTRIBUTES = struct.Struct("=QQQQ")

_libc = ctypes.CDLL(None, use_errno=True)


def mount_idmapped(source: str, target: str, userns: str, *, read_only: bool = False) -> None:
    """Show `source`, with what is mounted in it, at `target`, which is there, with the ids of a user namespace. Where one of
    the file systems that are mounted in it cannot be shown so, they are all shown as they are. Raises OSError: EINVAL
    where the folder's own cannot. Device files in a folder open nothing: by their owner they could be the container's."""
    flags = _flags(source, read_only=read_only)
    with _opened(userns) as namespace:
        try:
            _show(source, target, ((flags | _MOUNT_ATTR_IDMAP, namespace, _AT_RECURSIVE),))
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            _show(source, target, ((_MOUNT_ATTR_IDMAP, namespace, 0), (flags, 0, _AT_RECURSIVE)))


def mount_plain(source: str, target: str, *, read_only: bool) -> None:
    """As `mount_idmapped`, with the ids that there are."""
    _show(source, target, ((_flags(source, read_only=read_only), 0, _AT_RECURSIVE),))


def _flags(source: str, *, read_only: bool) -> int:
    return (_MOUNT_ATTR_RDONLY if read_only else 0) | (_MOUNT_ATTR_NODEV if os.path.isdir(source) else 0)


def _show(source: str, target: str, changes: tuple[tuple[int, int, int], ...]) -> None:
    """`changes`: attributes to set, a user namespace's descriptor, and how far."""
    with _tree(source) as tree:
        for attributes, namespace, depth in changes:
            desired = _ATTRIBUTES.pack(attributes, 0, _MS_PRIVATE, namespace)
            _call(source, _MOUNT_SETATTR, tree, b"", _AT_EMPTY_PATH | depth, desired, len(desired))
        _call(target, _MOVE_MOUNT, tree, b"", _AT_FDCWD, os.fsencode(target), _MOVE_MOUNT_F_EMPTY_PATH)


def why_not(folder: str, userns: str) -> str:
    """Why a folder cannot be shown so; "" if it can. Nothing is left of the attempt."""
    try:
        with _tree(folder) as tree, _opened(userns) as namespace:
            attributes = _ATTRIBUTES.pack(_MOUNT_ATTR_IDMAP, 0, _MS_PRIVATE, namespace)
            _call(folder, _MOUNT_SETATTR, tree, b"", _AT_EMPTY_PATH, attributes, len(attributes))
    except OSError as error:
        return (
            f"the file system of {folder} cannot be shown with other ids (idmapped mount): {error.strerror}"
        )
    return ""


@contextmanager
def _tree(source: str) -> Iterator[int]:
    """A copy of a mount that is nowhere yet."""
    flags = _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC | _AT_RECURSIVE
    tree = _call(source, _OPEN_TREE, _AT_FDCWD, os.fsencode(source), flags)
    try:
        yield tree
    finally:
        os.close(tree)


@contextmanager
def _opened(path: str) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _call(what: str, number: int, *arguments: int | bytes) -> int:
    longs = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    result = int(_libc.syscall(ctypes.c_long(number), *longs))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), what)
    return result
