"""The container's root folder: a given folder, an image's under a layer, or a careful read-only view of the host's own
root.

For "host" a small folder is built whose entries are the mount points of the host's top-level folders. So the host's
root itself never becomes the container's root: what is not listed is not there, and mount targets such as /data can be
made without touching the host.
"""

from __future__ import annotations

import glob
import os
import shutil

import msgspec

from sealane.containers.errors import SpecError
from sealane.containers.oci import Json, Root, bind, tmpfs
from sealane.containers.spec import HOST_ROOTFS, Bind, ContainerSpec, Mount, Tmpfs
from sealane.model.image import digest_of_root

PRIVATE_BYTES = 256 * 1024 * 1024
# Top-level folders that the container has of its own, empty. The kernel's (/proc, /sys, /dev) are mounted by oci.py.
_PRIVATE = {"/tmp": 0o1777, "/run": 0o755, "/root": 0o700, "/home": 0o755}  # noqa: S108
_PRIVATE_INSIDE = {"/var/tmp": 0o1777, "/var/log": 0o755}  # noqa: S108
_LEFT_EMPTY = ("/proc", "/sys", "/dev", "/mnt", "/media", "/boot", "/lost+found")
# Secrets and sockets of the host below the folders that are shown. Folders become empty, files become /dev/null.
_MASKED = (
    "/etc/shadow", "/etc/shadow-", "/etc/gshadow", "/etc/gshadow-", "/etc/sudoers", "/etc/sudoers.d", "/etc/security/opasswd",
    "/etc/ssl/private", "/etc/sealane", "/etc/docker", "/etc/containers", "/etc/kubernetes", "/etc/wireguard",
    "/etc/ssh/ssh_host_*_key", "/etc/NetworkManager/system-connections", "/etc/krb5.keytab",
    "/var/lib/sealane", "/var/lib/docker", "/var/lib/containerd", "/var/lib/containers", "/var/lib/kubelet",
    "/var/lib/etcd", "/var/lib/private", "/var/lib/systemd", "/var/spool", "/var/mail", "/var/backups", "/var/cache/private",
)  # fmt: skip
_INIT_PROGRAMS = ("tini", "catatonit", "docker-init")


def prepare_root(spec: ContainerSpec, folder: str, etc_folder: str, hidden: tuple[str, ...]) -> Root:
    """Make the container's root in `folder` (empty before, or left by a crash; an image's layer is mounted there).
    SpecError names a wrong field.

    `hidden` are the engine's own folders, never shown to a container.
    """
    for number, mount in enumerate(spec.mounts):
        if isinstance(mount, Bind) and not os.path.exists(mount.source):
            raise SpecError(f"mounts[{number}].source", f"{mount.source} does not exist")
    binds = [mount for mount in spec.mounts if isinstance(mount, Bind)]
    files = frozenset(mount.target for mount in binds if not os.path.isdir(mount.source))
    init = _find_init() if spec.init else ""
    if spec.rootfs == HOST_ROOTFS:
        root = _host_root(spec, folder, etc_folder, hidden)
        return msgspec.structs.replace(root, files=files, init=init)
    path = spec.rootfs if digest_of_root(spec.rootfs) is None else folder
    if not os.path.isdir(path):
        raise SpecError("rootfs", f"{path} is not a folder")
    etc = {f"/etc/{name}": os.path.join(etc_folder, name) for name in ("hosts", "resolv.conf", "hostname")}
    return Root(path=path, read_only=spec.read_only, etc=etc, files=files, init=init)


def _host_root(spec: ContainerSpec, folder: str, etc_folder: str, hidden: tuple[str, ...]) -> Root:
    os.makedirs(folder, mode=0o755, exist_ok=True)
    mounts: list[Json] = []
    for entry in sorted(os.scandir("/"), key=lambda each: each.name):
        mounts += _show(entry, folder)
    mounts += [tmpfs(target, PRIVATE_BYTES, mode) for target, mode in _PRIVATE.items()]
    mounts += [
        tmpfs(target, PRIVATE_BYTES, mode)
        for target, mode in _PRIVATE_INSIDE.items()
        if os.path.isdir(target)
    ]
    for number, mount in enumerate(spec.mounts):
        _make_target(f"mounts[{number}].target", mount, folder)
    # Only over files that the host has: the folder they would be made in is read-only.
    names = [name for name in ("hosts", "resolv.conf", "hostname") if os.path.lexists(f"/etc/{name}")]
    return Root(
        path=folder,
        read_only=True,
        mounts=tuple(mounts),
        masked=tuple(_masked(hidden)),
        etc={f"/etc/{name}": os.path.join(etc_folder, name) for name in names},
    )


def _show(entry: os.DirEntry[str], folder: str) -> list[Json]:
    """Make one top-level entry of the host in the new root; the mount it needs, if any."""
    inside = os.path.join(folder, entry.name)
    if entry.is_symlink():
        if not os.path.lexists(inside):
            os.symlink(os.readlink(entry.path), inside)
        return []
    if not entry.is_dir(follow_symlinks=False):
        return []
    os.makedirs(inside, exist_ok=True)
    # runc before 1.2 gives a tmpfs the mode of the folder it covers, whatever its own options say.
    os.chmod(inside, _PRIVATE.get(entry.path, 0o755))
    if entry.path in _PRIVATE or entry.path in _LEFT_EMPTY:
        return []
    return [bind(entry.path, entry.path, read_only=True)]


def _masked(hidden: tuple[str, ...]) -> list[str]:
    return [path for pattern in (*_MASKED, *map(glob.escape, hidden)) for path in glob.glob(pattern)]


def _make_target(field: str, mount: Mount, folder: str) -> None:
    """Make a mount target in the new root, or refuse one that would have to be made in the host's read-only folders."""
    target = mount.target
    top = "/" + target.split("/", 2)[1]
    if any(target.startswith(f"{place}/") for place in (*_PRIVATE, *_PRIVATE_INSIDE, "/dev")):
        return
    if top not in _LEFT_EMPTY and (os.path.isdir(top) or os.path.islink(top)):
        if os.path.exists(target):
            return
        raise SpecError(
            field, f"{target} does not exist on the host, whose {top} is read-only in the container"
        )
    path = folder + target
    if isinstance(mount, Bind) and not os.path.isdir(mount.source):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644))
        return
    os.makedirs(path, exist_ok=True)
    if isinstance(mount, Tmpfs):
        os.chmod(path, mount.mode)


def _find_init() -> str:
    for name in _INIT_PROGRAMS:
        found = shutil.which(name)
        if found:
            return os.path.realpath(found)
    raise SpecError("init", f"none of {', '.join(_INIT_PROGRAMS)} is installed on this host")
