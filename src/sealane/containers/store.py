"""The containers on disk: where their files are, who holds them, what their status file means.

    STATE/containers/ID/    spec.json  status.json  log/          kept over a reboot
    RUN/containers/ID/      config.json  rootfs/  etc/  plan.json  desired.json  shim.lock  init.pid  ...
    RUN/changes             a FIFO: `containers.changes`
    RUN/oci/ID/             the OCI runtime's own

A container exists if it has a spec.json: it is written last of the first and removed first of all.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import msgspec

from sealane.containers import codes, files, process
from sealane.containers.errors import ConflictError, NotFoundError, UnreadableError
from sealane.containers.plan import Paths
from sealane.containers.spec import ContainerSpec, is_id

LOCK_TIMEOUT_S = 120.0
LOCK_PAUSE_S = 0.01

Status = dict[str, object]


class Stored(msgspec.Struct, frozen=True):
    """What spec.json holds. `warnings` name what of the spec this host could not give."""

    spec: ContainerSpec
    warnings: tuple[str, ...] = ()


class ContainerState(msgspec.Struct, frozen=True, kw_only=True):
    """A container as it is now. Times are Unix seconds, 0.0 is never.

    `status` is created, running, restarting, exited, or dead, of one whose record cannot be read. `exit_code` is the last
    run's, 128 + N if signal N ended it.
    `supervised` False on a running container: its shim was killed; `Runtime.recover` puts that right.
    """

    id: str
    name: str
    status: str
    pid: int = 0
    exit_code: int = 0
    error: str = ""
    started_at: float = 0.0
    finished_at: float = 0.0
    restarts: int = 0
    oom_killed: bool = False
    stopped_by_user: bool = False
    health: str | None = None
    health_log: tuple[dict[str, object], ...] = ()
    supervised: bool = False
    warnings: tuple[str, ...] = ()
    is_lost: bool = False
    """Its supervisor is gone, and had not recorded its end."""


LOST_EXIT_CODE = codes.KILLED
"""Of one whose end nobody saw."""


class _Health(msgspec.Struct):
    status: str
    failing_streak: int
    log: tuple[dict[str, object], ...]


class StatusFile(msgspec.Struct):
    """status.json, as the shim writes it."""

    status: str
    shim: dict[str, int | str] | None = None
    init: dict[str, int | str] | None = None
    pid: int = 0
    exit_code: int = 0
    error: str = ""
    started_at: float = 0.0
    finished_at: float = 0.0
    restarts: int = 0
    oom_killed: bool = False
    stopped_by_user: bool = False
    health: _Health | None = None


# Made here and not on first use: msgspec builds what it knows of a type then, and another thread that decodes the same
# type meanwhile finds it half built, which is a segmentation fault (tests/unit/containers/test_store.py).
_STORED = msgspec.json.Decoder(Stored)
_STATUS = msgspec.json.Decoder(StatusFile)


class Store:
    """Files of all containers below two folders, both made if missing (mode 0700)."""

    def __init__(self, state_dir: str, run_dir: str) -> None:
        self._state = os.path.join(os.path.abspath(state_dir), "containers")
        self._run = os.path.join(os.path.abspath(run_dir), "containers")
        self.runtime_root = os.path.join(os.path.abspath(run_dir), "oci")
        self.changes = os.path.join(os.path.abspath(run_dir), "changes")
        for folder in (self._state, self._run, self.runtime_root):
            os.makedirs(folder, mode=0o700, exist_ok=True)

    def paths(self, container_id: str) -> Paths:
        """NotFoundError for what cannot be an id: no user's text becomes a path unchecked."""
        if not is_id(container_id):
            raise NotFoundError(container_id)
        return Paths(os.path.join(self._state, container_id), os.path.join(self._run, container_id))

    def ids(self) -> list[str]:
        """All containers, sorted."""
        return [
            name
            for name in sorted(filter(is_id, os.listdir(self._state)))
            if os.path.exists(self.paths(name).spec)
        ]

    def traces(self) -> set[str]:
        """Ids of everything on disk, also of containers half made or half removed."""
        names = {
            name for folder in (self._state, self._run, self.runtime_root) for name in os.listdir(folder)
        }
        return set(filter(is_id, names))

    def stored(self, container_id: str) -> Stored:
        data = files.read_bytes(self.paths(container_id).spec)
        if data is None:
            raise NotFoundError(container_id)
        try:
            return _STORED.decode(data)
        except msgspec.MsgspecError as error:
            raise UnreadableError(container_id, str(error)) from error

    def save(self, stored: Stored) -> None:
        files.write_atomic(self.paths(stored.spec.id).spec, msgspec.json.encode(stored))

    def status_file(self, container_id: str) -> StatusFile | None:
        """What the shim last wrote; None if it never did."""
        data = files.read_bytes(self.paths(container_id).status)
        if data is None:
            return None
        try:
            return _STATUS.decode(data)
        except msgspec.DecodeError:
            return None

    def state(self, container_id: str) -> ContainerState:
        """NotFoundError if there is no such container. One that cannot be read is dead: it can be removed, and it hinders no
        other."""
        # Asked before the status is read: a shim writes its last status before it lets go of the lock.
        supervised = process.is_locked(self.paths(container_id).lock)
        try:
            stored = self.stored(container_id)
        except UnreadableError as damage:
            return ContainerState(
                id=container_id, name=container_id, status="dead", error=str(damage), supervised=supervised
            )
        status = self.status_file(container_id)
        known = ContainerState(
            id=container_id,
            name=stored.spec.name,
            status="created",
            supervised=supervised,
            warnings=stored.warnings,
        )
        if status is None:
            return known
        name, error, exit_code = status.status, status.error, status.exit_code
        is_lost = not supervised and name != "exited"
        if is_lost:
            alive = process.is_alive(status.init)
            name, exit_code = ("running", 0) if alive else ("exited", LOST_EXIT_CODE)
            error = (
                "its supervisor was killed" if alive else "its supervisor was killed or the machine restarted"
            )
        return msgspec.structs.replace(
            known,
            status=name,
            pid=status.pid if name == "running" else 0,
            exit_code=exit_code,
            is_lost=is_lost,
            error=error,
            started_at=status.started_at,
            finished_at=status.finished_at,
            restarts=status.restarts,
            oom_killed=status.oom_killed,
            stopped_by_user=status.stopped_by_user,
            health=status.health.status if status.health else None,
            health_log=status.health.log if status.health else (),
        )

    @contextmanager
    def locked(self, container_id: str, *, create: bool = False) -> Iterator[None]:
        """One verb at a time on one container, over all processes; the kernel lets go when the holder dies.

        NotFoundError if the container's folder is gone (unless `create`); ConflictError after LOCK_TIMEOUT_S.
        """
        folder = self.paths(container_id).state_folder
        deadline = time.monotonic() + LOCK_TIMEOUT_S
        while True:
            if create:
                # Not `exist_ok`: it looks again at what exists, and somebody may be removing it.
                with suppress(FileExistsError):
                    os.makedirs(folder, mode=0o700)
            try:
                descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except FileNotFoundError:
                if create:
                    continue
                raise NotFoundError(container_id) from None
            try:
                if files.try_lock(descriptor) and _is_same(descriptor, folder):
                    yield
                    return
            finally:
                os.close(descriptor)
            if time.monotonic() >= deadline:
                raise ConflictError(f"container {container_id} has been busy for {LOCK_TIMEOUT_S:.0f} s")
            time.sleep(LOCK_PAUSE_S)

    def erase(self, container_id: str) -> None:
        """Delete all files of a container that has no process any more. Idempotent."""
        paths = self.paths(container_id)
        files.remove(paths.spec)
        for folder in (paths.run_folder, os.path.join(self.runtime_root, container_id), paths.state_folder):
            shutil.rmtree(folder, ignore_errors=True)


def _is_same(descriptor: int, folder: str) -> bool:
    """Whether the locked folder is still the one at that place: it may have been removed and made anew."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(folder))
    except FileNotFoundError:
        return False
