"""The container's root folder: a given folder, an image's under a layer, or a small read-only root of the host's programs.

For "host" a small folder is built. It holds what is listed here and nothing else: the folders of programs, as mounts, and
a copy of what everybody may read of /etc (`publicetc.py`). What the host replaces, moves or adds elsewhere does not appear
in it, and nothing has to be covered: a cover over a file falls off when another file is renamed over the covered one
(mount_namespaces(7): since Linux 3.18 a mount point may be removed from another mount namespace).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable

from sealane.containers.errors import SpecError
from sealane.containers.oci import Json, Root, bind, tmpfs
from sealane.containers.publicetc import copy_etc
from sealane.containers.spec import HOST_ROOTFS, Bind, ContainerSpec, Mount, Tmpfs
from sealane.model.image import digest_of_root

PRIVATE_BYTES = 256 * 1024 * 1024
SHOWN = (
    "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/gnu/store",
)  # fmt: skip
"""Folders of programs, with all that is mounted in them. A link is a link in the container, too."""
# Folders that the container has of its own, empty. The kernel's (/proc, /sys, /dev) are mounted by oci.py.
_PRIVATE = {
    "/tmp": 0o1777,  # noqa: S108
    "/run": 0o755,
    "/root": 0o700,
    "/home": 0o755,
    "/var/tmp": 0o1777,  # noqa: S108
    "/var/log": 0o755,
}
_EMPTY = (
    "/proc", "/sys", "/dev", "/boot", "/media", "/mnt", "/opt", "/srv", "/var/cache", "/var/lib", "/var/mail", "/var/spool",
)  # fmt: skip
_LINKS = {"/var/run": "/run", "/var/lock": "/run/lock"}
_ETC_OWN = ("hosts", "resolv.conf", "hostname")
_INIT_PROGRAMS = ("tini", "catatonit", "docker-init")


def prepare_root(spec: ContainerSpec, folder: str, etc_folder: str, own: tuple[str, ...]) -> Root:
    """Make the container's root in `folder` (empty before, or left by a crash; an image's layer is mounted there).
    SpecError names a wrong field.

    `own` are the engine's folders and sockets: the host's root shows none of them.
    """
    for number, mount in enumerate(spec.mounts):
        if isinstance(mount, Bind) and not os.path.exists(mount.source):
            raise SpecError(f"mounts[{number}].source", f"{mount.source} does not exist")
    binds = [mount for mount in spec.mounts if isinstance(mount, Bind)]
    files = frozenset(mount.target for mount in binds if not os.path.isdir(mount.source))
    init = _find_init() if spec.init else ""
    etc = {f"/etc/{name}": os.path.join(etc_folder, name) for name in _ETC_OWN}
    if spec.rootfs == HOST_ROOTFS:
        _check_hides(own)
        mounts = _host_root(spec.mounts, folder)
        return Root(path=folder, read_only=True, mounts=mounts, etc=etc, files=files, init=init)
    path = spec.rootfs if digest_of_root(spec.rootfs) is None else folder
    if not os.path.isdir(path):
        raise SpecError("rootfs", f"{path} is not a folder")
    return Root(path=path, read_only=spec.read_only, etc=etc, files=files, init=init)


def _check_hides(own: Iterable[str]) -> None:
    for path in own:
        for shown in SHOWN:
            if f"{os.path.realpath(path)}/".startswith(f"{os.path.realpath(shown)}/"):
                raise SpecError(
                    "rootfs",
                    f"the daemon keeps {path} in {shown}, which the host's root shows: keep it elsewhere",
                )


def _host_root(mounts: tuple[Mount, ...], folder: str) -> tuple[Json, ...]:
    """Build it; the mounts that belong to it."""
    shown = [place for place in SHOWN if _show(place, folder)]
    for place in (*_PRIVATE, *_EMPTY):
        os.makedirs(folder + place, exist_ok=True)
        # runc before 1.2 gives a tmpfs the mode of the folder it covers, whatever its own options say.
        os.chmod(folder + place, _PRIVATE.get(place, 0o755))
    for place, target in _LINKS.items():
        if not os.path.lexists(folder + place):
            os.symlink(target, folder + place)
    copy_etc("/etc", f"{folder}/etc", leaving_out=_ETC_OWN)
    for name in _ETC_OWN:
        _make_file(f"{folder}/etc/{name}")
    for number, mount in enumerate(mounts):
        _make_target(f"mounts[{number}].target", mount, folder)
    own = [tmpfs(target, PRIVATE_BYTES, mode) for target, mode in _PRIVATE.items()]
    return (*(bind(place, place, read_only=True) for place in shown), *own)


def _show(place: str, folder: str) -> bool:
    """Whether a folder of programs is there, and to be mounted; a link is copied."""
    inside = folder + place
    if os.path.islink(place):
        if not os.path.lexists(inside):
            os.makedirs(os.path.dirname(inside), mode=0o755, exist_ok=True)
            os.symlink(os.readlink(place), inside)
        return False
    if not os.path.isdir(place):
        return False
    os.makedirs(inside, mode=0o755, exist_ok=True)
    return True


def _make_target(field: str, mount: Mount, folder: str) -> None:
    """Make a mount target in the new root, or refuse one that would have to be made in the host's read-only folders."""
    target = mount.target
    if any(target.startswith(f"{place}/") for place in (*_PRIVATE, "/dev")):
        return
    for shown in SHOWN:
        if f"{target}/".startswith(f"{shown}/") and os.path.lexists(shown):
            if not os.path.exists(target):
                raise SpecError(
                    field, f"{target} does not exist on the host, whose {shown} is read-only in the container"
                )
            return
    _check_is_inside(field, target, folder)
    path = folder + target
    if isinstance(mount, Bind) and not os.path.isdir(mount.source):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        _make_file(path)
        return
    os.makedirs(path, exist_ok=True)
    if isinstance(mount, Tmpfs):
        os.chmod(path, mount.mode)


def _check_is_inside(field: str, target: str, folder: str) -> None:
    """Links in the new root point to where the container looks, and this process would look on the host."""
    parts = target.split("/")[1:]
    for depth in range(1, len(parts)):
        way = "/" + "/".join(parts[:depth])
        if os.path.islink(folder + way):
            raise SpecError(
                field, f"{way} is a link to {os.readlink(folder + way)} in the container: mount there"
            )


def _make_file(path: str) -> None:
    """An empty file to mount over; a link that was copied there goes."""
    if os.path.islink(path):
        os.unlink(path)
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644))


def _find_init() -> str:
    for name in _INIT_PROGRAMS:
        found = shutil.which(name)
        if found:
            return os.path.realpath(found)
    raise SpecError("init", f"none of {', '.join(_INIT_PROGRAMS)} is installed on this host")
