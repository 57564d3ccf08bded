"""Where the root of a container with a user namespace is mounted.

The OCI runtime enters the user namespace first, and finds the root's path as its root then, whom the host's 0700 folders
stop (runc 1.1, crun 1.8). So the mount has a place of its own, which only the host's root and the ids of user
namespaces may pass through: a program in an image with the bit setuid is nobody else's to start (CVE-2021-41103).
"""

from __future__ import annotations

import errno
import hashlib
import os
from contextlib import suppress

import msgspec

from sealane.containers.errors import SpecError
from sealane.containers.idmap import mount_idmapped, mount_read_only
from sealane.containers.layer import mount_bind, unmount_layer
from sealane.containers.oci import Root
from sealane.containers.plan import Paths
from sealane.containers.spec import HOST_ROOTFS, Bind, ContainerSpec
from sealane.model.idmap import ID_BASE

STAGES = "/run/sealane-roots"
_NO_VIEW = frozenset({errno.EINVAL, errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS})


def stage_of(run_folder: str) -> str:
    """The place for one container's root."""
    return os.path.join(STAGES, hashlib.sha256(os.fsencode(run_folder)).hexdigest()[:24])


def make_stage(run_folder: str) -> str:
    """Make the place; it is empty, and nothing is mounted on it."""
    strike_stage(run_folder)
    os.makedirs(STAGES, mode=0o710, exist_ok=True)
    os.chown(STAGES, 0, ID_BASE)
    os.chmod(STAGES, 0o710)  # noqa: S103
    stage = stage_of(run_folder)
    os.makedirs(stage, mode=0o700, exist_ok=True)
    return stage


def strike_stage(run_folder: str) -> None:
    """Idempotent."""
    stage = stage_of(run_folder)
    unmount_layer(stage)
    with suppress(FileNotFoundError):
        os.rmdir(stage)
    shown = os.path.join(run_folder, "shown")
    with suppress(FileNotFoundError):
        for name in os.listdir(shown):
            unmount_layer(os.path.join(shown, name))


def staged(spec: ContainerSpec, paths: Paths, root: Root) -> Root:
    """The root on its stage, and what it binds as its user namespace sees it. SpecError where it cannot be."""
    if spec.userns is None:
        return root
    stage = stage_of(paths.run_folder)
    if root.path != stage:
        make_stage(paths.run_folder)
        try:
            if spec.rootfs == HOST_ROOTFS:
                # Ours alone, so it needs no view (which tmpfs has since Linux 6.3 only).
                _give(root.path)
                mount_bind(root.path, stage)
                root = _with_programs(root, stage)
            else:
                mount_idmapped(root.path, stage, spec.userns)
        except OSError as error:
            raise SpecError(
                "rootfs",
                f"{root.path} cannot be shown to a user namespace ({error.strerror}): `--userns host` has none",
            ) from error
    sources = {}
    for number, mount in enumerate(spec.mounts):
        if isinstance(mount, Bind):
            place = os.path.join(paths.run_folder, "shown", str(number))
            if _show(mount, place, spec.userns):
                sources[mount.target] = place
    return msgspec.structs.replace(root, path=stage, sources=sources)


def _with_programs(root: Root, stage: str) -> Root:
    """What the host shows is mounted here: crun 1.8 leaves out what is mounted in it once it is in a user namespace."""
    for mount in root.mounts:
        if mount["type"] == "bind":
            mount_read_only(str(mount["source"]), f"{stage}{mount['destination']}")
    own = tuple(mount for mount in root.mounts if mount["type"] != "bind")
    return msgspec.structs.replace(root, mounts=own)


def _give(folder: str) -> None:
    """All in it is its user namespace's root's."""
    os.lchown(folder, ID_BASE, ID_BASE)
    for place, folders, names in os.walk(folder):
        for name in (*folders, *names):
            os.lchown(os.path.join(place, name), ID_BASE, ID_BASE)


def _show(mount: Bind, place: str, userns: str) -> bool:
    """Whether a source is shown with the container's ids. Where its file system has no such view it is shown as it is: then
    what everybody may, the container may."""
    os.makedirs(os.path.dirname(place), mode=0o700, exist_ok=True)
    unmount_layer(place)
    if os.path.isdir(mount.source):
        os.makedirs(place, mode=0o700, exist_ok=True)
    else:
        os.close(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    try:
        mount_idmapped(mount.source, place, userns)
    except OSError as error:
        if error.errno not in _NO_VIEW:
            raise
        return False
    return True
