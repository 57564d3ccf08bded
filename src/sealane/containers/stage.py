"""Where the root of a container with a user namespace is mounted.

The OCI runtime enters the user namespace first, and finds the root's path as its root then, whom the host's 0700 folders
stop (runc 1.1, crun 1.8). So the mount has a place of its own, which only the host's root and the ids of user
namespaces may pass through: a program in an image with the bit setuid is nobody else's to start (CVE-2021-41103).
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import suppress

import msgspec

from sealane.containers.errors import SpecError
from sealane.containers.idmap import mount_idmapped, mount_plain
from sealane.containers.layer import mount_bind, unmount_layer
from sealane.containers.oci import INIT_TARGET, Root, etc_is_read_only
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
    for number, (source, target, read_only, userns) in enumerate(_sources(spec, root)):
        sources[target] = os.path.join(paths.run_folder, "shown", str(number))
        _show(source, sources[target], read_only=read_only, userns=userns)
    return msgspec.structs.replace(root, path=stage, sources=sources)


def _sources(spec: ContainerSpec, root: Root) -> Iterator[tuple[str, str, bool, str | None]]:
    """What is bound: source, target, whether read-only, and the user namespace whose ids it is shown with."""
    if root.init:
        yield root.init, INIT_TARGET, True, None
    for target, source in root.etc.items():
        yield source, target, etc_is_read_only(spec), None
    for mount in spec.mounts:
        if isinstance(mount, Bind):
            yield mount.source, mount.target, mount.read_only, spec.userns


def _with_programs(root: Root, stage: str) -> Root:
    """What the host shows is mounted here: crun 1.8 leaves out what is mounted in it once it is in a user namespace."""
    for mount in root.mounts:
        if mount["type"] == "bind":
            mount_plain(str(mount["source"]), f"{stage}{mount['destination']}", read_only=True)
    own = tuple(mount for mount in root.mounts if mount["type"] != "bind")
    return msgspec.structs.replace(root, mounts=own)


def _give(folder: str) -> None:
    """All in it is its user namespace's root's."""
    os.lchown(folder, ID_BASE, ID_BASE)
    for place, folders, names in os.walk(folder):
        for name in (*folders, *names):
            os.lchown(os.path.join(place, name), ID_BASE, ID_BASE)


def _show(source: str, place: str, *, read_only: bool, userns: str | None) -> None:
    """Show a source at a place of ours, where the runtime takes it. Where its file system cannot be shown with the container's
    ids it is shown as it is: then what everybody may, the container may.

    It is read-only here already: in a user namespace runc 1.1 cannot make a file so that lies on a mount with nosuid or
    nodev, as /run mostly is (it leaves out those flags, and they are locked there).
    """
    os.makedirs(os.path.dirname(place), mode=0o700, exist_ok=True)
    unmount_layer(place)
    if os.path.isdir(source):
        os.makedirs(place, mode=0o700, exist_ok=True)
    else:
        os.close(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    if userns is not None:
        try:
            mount_idmapped(source, place, userns, read_only=read_only)
        except OSError as error:
            if error.errno not in _NO_VIEW:
                raise
        else:
            return
    mount_plain(source, place, read_only=read_only)
