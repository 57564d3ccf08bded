"""The verbs on containers. Holds no state: every call reads the truth from files, locks and live processes.

So any number of daemons, one after the other, see the same containers, and one that is killed leaves nothing that the
next cannot read. All verbs block; all are idempotent.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress

import msgspec

from sealane.containers import cgroups, files, idmap, process
from sealane.containers.errors import (
    ConflictError,
    ContainerError,
    LimitsError,
    NotFoundError,
    NotRunningError,
    UnreadableError,
)
from sealane.containers.host import Host, find_host, run_quietly
from sealane.containers.imageconfig import Image
from sealane.containers.images import Images
from sealane.containers.launch import launch_attendant, launch_shim, prepare, resolve, streams_owner
from sealane.containers.layer import unmount_layer
from sealane.containers.logs import LogLine, follow_logs, read_logs
from sealane.containers.oci import build_process, confined, console_size, hosts_file, resolv_file
from sealane.containers.plan import ExecConfig
from sealane.containers.spec import (
    HOST_ROOTFS,
    ContainerSpec,
    Dns,
    check_command,
    check_dns,
    check_env,
    check_hosts,
    check_path,
    check_spec,
    parse_signal,
)  # fmt: skip
from sealane.containers.stage import strike_stage
from sealane.containers.store import LOST_EXIT_CODE, ContainerState, Store, Stored
from sealane.containers.warnings import ignored_limits, warnings
from sealane.linux import userns
from sealane.model.image import digest_of_root

# What a stop may take beyond its own timeout: the kill, the runtime's clean-up, the shim's last words.
STOP_MARGIN_S = 40.0
WAIT_PAUSE_S = 0.02


Client = tuple[socket.socket, bytes]
"""A connection in `containers.frames`, and what has come on it already. It stays the caller's: the shim gets an end of its
own."""


class Recovered(msgspec.Struct, frozen=True):
    """A container found without its shim. `restart`: its policy wants it started again (`Runtime.start`). `was_running`: when
    it lost its shim."""

    id: str
    restart: bool
    was_running: bool = True


class Runtime:
    """All containers of one instance on this host.

    `state_dir` outlives reboots (specs, logs, exit codes); `run_dir` should be a tmpfs. `hidden` are further folders and
    sockets of the engine's, which no container with the host's root is to see: SpecError where it would. With `degrade_limits` a spec's limits are ignored with a
    warning in its state where they cannot be set, instead of being refused.
    """

    def __init__(
        self,
        state_dir: str,
        run_dir: str,
        *,
        instance: str = "default",
        oci_runtime: str | None = None,
        python: str = sys.executable,
        hidden: tuple[str, ...] = (),
        degrade_limits: bool = False,
    ) -> None:
        self._store = Store(state_dir, run_dir)
        self._host: Host = find_host(
            instance=instance, runtime_root=self._store.runtime_root, runtime=oci_runtime
        )
        self.images = Images(
            os.path.join(os.path.abspath(state_dir), "images"), rootless=self._host.facts.in_user_namespace
        )
        self._python = python
        self._hidden = tuple(map(os.path.realpath, (state_dir, run_dir, *hidden)))
        self._degrade_limits = degrade_limits
        self._state_dir = os.path.abspath(state_dir)
        self._no_userns = userns.why_not()

    @property
    def changes_path(self) -> str:
        """The FIFO in which shims tell of changes: `containers.changes`."""
        return self._store.changes

    @property
    def limits_unavailable(self) -> str:
        """Why resource limits cannot be set here; "" if they can."""
        return self._host.no_limits

    @property
    def userns_unavailable(self) -> str:
        """Why no container can have a user namespace; "" if those can whose root can be shown to one."""
        return self._no_userns

    def no_userns(self, rootfs: str) -> str:
        """Why a container with this root cannot have a user namespace; "" if it can."""
        if self._no_userns or rootfs == HOST_ROOTFS:
            return self._no_userns
        is_image = digest_of_root(rootfs) is not None
        try:
            with userns.inhabited(network=False) as pid:
                return idmap.why_not(self._state_dir if is_image else rootfs, f"/proc/{pid}/ns/user")
        except OSError as error:
            return f"no user namespace can be made: {error.strerror}"

    # Starting

    def create_and_start(self, spec: ContainerSpec, client: Client | None = None) -> int:
        """Make and start a container; the pid of its first process. `client`: somebody at its input and output.

        The same spec again changes nothing and answers the present pid (0 once it has ended). Another spec under the
        same id is a ConflictError. After any error nothing is left of the container.
        """
        check_spec(spec)
        desired = Stored(spec, self.warned(spec))
        with self._store.locked(spec.id, create=True):
            try:
                present = self._store.stored(spec.id)
            except NotFoundError:
                self._store.save(desired)
            else:
                if present.spec != spec:
                    raise ConflictError(f"container {spec.id} exists with another configuration")
                state = self._settled(spec.id)
                if state.started_at:
                    return state.pid
            try:
                return self._start(spec, client)
            except (ContainerError, OSError):
                self._destroy(spec.id)
                raise

    def start(self, container_id: str) -> int:
        """Start a container that has ended, or answer the pid of a running one."""
        with self._store.locked(container_id):
            spec = self._store.stored(container_id).spec
            state = self._settled(container_id)
            if state.supervised:
                return state.pid
            return self._start(spec)

    def _start(self, spec: ContainerSpec, client: Client | None = None) -> int:
        paths = self._store.paths(spec.id)
        self._release_dead(spec.id, "")
        connection, early = client or (None, b"")
        prepare(spec, paths, self._host, self._hidden, self.images, early)
        return launch_shim(self._python, paths, connection)

    def _settled(self, container_id: str) -> ContainerState:
        """The state once a shim just starting or just ending has done so (its starter may have been killed)."""
        deadline = time.monotonic() + STOP_MARGIN_S
        while True:
            state = self._store.state(container_id)
            passing = state.supervised and state.status in {"created", "exited"}
            if not passing or time.monotonic() >= deadline:
                return state
            time.sleep(WAIT_PAUSE_S)

    def warned(self, spec: ContainerSpec) -> tuple[str, ...]:
        """What is to be said of a container: `warnings.py`. LimitsError for limits that cannot be set, unless they degrade."""
        limits = ignored_limits(spec, self._host)
        if limits and not self._degrade_limits:
            raise LimitsError(limits)
        return (*warnings(spec, self._host), *([f"limits-ignored: {limits}"] if limits else []))

    # Ending

    def stop(self, container_id: str, timeout: float | None = None) -> None:
        """Send the stop signal, kill after `timeout` seconds (default: the spec's), and wait for the end.

        The restart policy does not apply after it. What is not running or does not exist is stopped already.
        """
        try:
            spec = self._store.stored(container_id).spec
            state = self._store.state(container_id)
        except NotFoundError:
            return
        seconds = spec.stop_timeout_s if timeout is None else timeout
        if state.supervised:
            self._ask_to_stop(container_id, seconds)
        elif state.status == "running":
            with self._store.locked(container_id):
                self._release_dead(container_id, "stopped; its supervisor had been killed")

    def _ask_to_stop(self, container_id: str, seconds: float) -> None:
        self._desire(container_id, {"action": "stop", "timeout_s": seconds})
        if self._wait_for_shim(container_id, seconds + STOP_MARGIN_S):
            return
        with self._store.locked(container_id):
            self._release_dead(container_id, "its supervisor did not answer")

    def _desire(self, container_id: str, desired: dict[str, object]) -> None:
        files.write_json(self._store.paths(container_id).desired, desired)
        status = self._store.status_file(container_id)
        # A shim that has not written its status yet reads desired.json after it has.
        process.send_signal(status.shim if status else None, signal.SIGUSR1)

    def _wait_for_shim(self, container_id: str, seconds: float | None) -> bool:
        """True once no shim holds the container; False after `seconds`."""
        deadline = None if seconds is None else time.monotonic() + seconds
        lock = self._store.paths(container_id).lock
        while process.is_locked(lock):
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return False
            status = self._store.status_file(container_id)
            pidfd = process.open_same(status.shim if status else None)
            if pidfd is None:
                time.sleep(WAIT_PAUSE_S)
                continue
            poll = select.poll()
            poll.register(pidfd, select.POLLIN)
            poll.poll(None if left is None else left * 1000)
            os.close(pidfd)
        return True

    def kill(self, container_id: str, signal_name: str = "SIGKILL") -> None:
        """Send a signal to the container's first process. After one that is meant to end it, SIGKILL or its stop signal, the
        restart policy does not apply, as after Docker's `kill`."""
        number = parse_signal(signal_name, "signal")
        state = self.state(container_id)
        if state.status != "running":
            raise NotRunningError(container_id, state.status)
        is_last = number in {signal.SIGKILL, parse_signal(self.spec(container_id).stop_signal)}
        status = self._store.status_file(container_id)
        pidfd = process.open_same(status.init if status else None)
        if pidfd is None:
            raise NotRunningError(container_id, "ended")
        try:
            if is_last:
                self._desire(container_id, {"action": "kill"})
            signal.pidfd_send_signal(pidfd, number)
        except ProcessLookupError:
            raise NotRunningError(container_id, "ended") from None
        finally:
            os.close(pidfd)

    def remove(self, container_id: str, *, force: bool = False) -> None:
        """Delete a container and all its traces, logs included; a running one only with `force`."""
        try:
            state = self._store.state(container_id)
        except NotFoundError:
            self._remove_traces(container_id)
            return
        if state.status in {"running", "restarting"} and not force:
            hint = f"`sealane stop {container_id}` first, or `--force`"
            raise ConflictError(f"container {container_id} is {state.status}", hint=hint)
        if state.supervised:
            self._ask_to_stop(container_id, 0.0)
        self._remove_traces(container_id)

    def _remove_traces(self, container_id: str) -> None:
        if container_id in self._traces():
            with self._store.locked(container_id, create=True):
                self._destroy(container_id)

    def _destroy(self, container_id: str) -> None:
        self._release_dead(container_id, "removed")
        self._store.erase(container_id)
        if self._host.facts.cgroup_path and not self._store.ids():
            for group in (self._host.facts.cgroup_path, os.path.dirname(self._host.facts.cgroup_path)):
                cgroups.remove_empty(self._host.cgroups, group)

    def _release_dead(self, container_id: str, error: str) -> None:
        """End whatever is left of a container, a shim that does not answer included, and record it. Idempotent."""
        paths = self._store.paths(container_id)
        status = self._store.status_file(container_id)
        if process.is_locked(paths.lock) and process.send_signal(
            status.shim if status else None, signal.SIGKILL
        ):
            self._wait_for_shim(container_id, STOP_MARGIN_S)
        if status is not None and status.status != "exited":
            process.send_signal(status.init, signal.SIGKILL)
        if os.path.exists(os.path.join(self._store.runtime_root, container_id)):
            run_quietly([*self._host.runtime, "delete", "--force", container_id])
        unmount_layer(paths.rootfs)
        strike_stage(paths.run_folder)
        if self._host.facts.cgroup_path:
            cgroups.remove(self._host.cgroups, self._host.group_of(container_id))
        if status is not None and status.status != "exited":
            ended = msgspec.structs.replace(
                status,
                status="exited",
                pid=0,
                init=None,
                exit_code=LOST_EXIT_CODE,
                error=error,
                finished_at=time.time(),
            )
            files.write_atomic(paths.status, msgspec.json.encode(ended))

    # Looking

    def state(self, container_id: str) -> ContainerState:
        return self._store.state(container_id)

    def spec(self, container_id: str) -> ContainerSpec:
        return self._store.stored(container_id).spec

    def list(self) -> tuple[ContainerState, ...]:
        """All containers, by id."""
        states = []
        for container_id in self._store.ids():
            try:
                states.append(self._store.state(container_id))
            except NotFoundError:
                continue
        return tuple(states)

    def wait(self, container_id: str, timeout: float | None = None) -> ContainerState:
        """Block until the container has ended for good (restarts included) or the time is up; its state then."""
        self._wait_for_shim(container_id, timeout)
        return self.state(container_id)

    def logs(
        self,
        container_id: str,
        *,
        follow: bool = False,
        tail: int | None = None,
        since: float | None = None,
        stop: threading.Event | None = None,
    ) -> Iterator[LogLine]:
        """Lines of the log, oldest first; with `follow` until the container has ended for good, or `stop` is set."""
        paths = self._store.paths(container_id)
        self._store.stored(container_id)
        if not follow:
            return read_logs(paths.logs, tail=tail, since=since)
        return follow_logs(
            paths.logs, alive=lambda: process.is_locked(paths.lock), tail=tail, since=since, stop=stop
        )

    def prune_images(self, only: Collection[str] | None = None) -> tuple[Image, ...]:
        """Remove images that no container is made of; what was removed. `only`: of these digests."""
        return self.images.prune(self._images_used, only)

    def _images_used(self) -> set[str]:
        used = set()
        for container_id in self._store.ids():
            # One that is gone by now uses nothing, nor can one run that cannot be read.
            with suppress(NotFoundError, UnreadableError):
                used.add(digest_of_root(self.spec(container_id).rootfs))
        return {digest for digest in used if digest is not None}

    # Inside a running container

    def exec(
        self,
        container_id: str,
        command: tuple[str, ...],
        *,
        env: dict[str, str] | None = None,
        user: str = "",
        working_dir: str | None = None,
        has_terminal: bool = False,
    ) -> Callable[[socket.socket, bytes], None]:
        """A further process in a running container, with the container's environment, user and rights: what starts it, given
        the connection of whom it talks with (`containers.frames`), of which an end stays the caller's, and what has come on
        it. From then on that client hears what goes wrong."""
        check_command(command)
        check_env(env or {})
        if working_dir is not None:
            check_path("working_dir", working_dir)
        stored, state = self._store.stored(container_id), self.state(container_id)
        if state.status != "running":
            raise NotRunningError(container_id, state.status)
        spec = msgspec.structs.replace(stored.spec, user=user) if user else stored.spec
        paths = self._store.paths(container_id)
        found = resolve(spec, paths, self._host)
        description = build_process(
            confined(spec, self._host.facts),
            found,
            command=command,
            env=env,
            working_dir=working_dir,
            has_terminal=has_terminal,
        )

        def start(connection: socket.socket, early: bytes) -> None:
            exec_config = ExecConfig(
                container_id=container_id,
                runtime=list(self._host.runtime),
                process=description | console_size(description, early),
                early=early.hex(),
                streams_owner=streams_owner(spec, found),
            )
            launch_attendant(self._python, exec_config, paths, connection)

        return start

    def update_hosts(self, container_id: str, lines: tuple[str, ...]) -> None:
        """Replace the extra lines of /etc/hosts, seen at once by a running container."""
        check_hosts(lines)
        spec = self.spec(container_id)
        self._rewrite(container_id, "hosts", hosts_file(spec.effective_hostname, lines))

    def update_resolv(self, container_id: str, dns: Dns) -> None:
        """Replace /etc/resolv.conf, seen at once by a running container."""
        check_dns(dns)
        self.spec(container_id)
        self._rewrite(container_id, "resolv.conf", resolv_file(dns))

    def _rewrite(self, container_id: str, name: str, content: bytes) -> None:
        path = os.path.join(self._store.paths(container_id).etc, name)
        with self._store.locked(container_id):
            if os.path.exists(path):
                files.overwrite_in_place(path, content)

    # After a crash

    def recover(self) -> tuple[Recovered, ...]:
        """Put in order every container whose shim is gone although it should not be: killed, or the machine restarted.

        Their rests are ended and recorded. The caller starts again those with `restart`, once their networks exist.
        """
        found = []
        for state in self.list():
            if state.supervised or state.status in {"created", "dead"}:
                continue
            try:
                with self._store.locked(state.id):
                    recovered = self._recovered(state.id)
            except NotFoundError:
                continue
            if recovered is not None:
                found.append(recovered)
        # A port is his who had it, and not who was stopped before.
        return tuple(sorted(found, key=lambda each: not each.was_running))

    def _recovered(self, container_id: str) -> Recovered | None:
        """Under its lock: somebody may have started it before."""
        state, status = self._store.state(container_id), self._store.status_file(container_id)
        if state.supervised or state.status == "dead" or status is None:
            return None
        policy = self.spec(container_id).restart_policy[0]
        if state.is_lost:
            self._release_dead(container_id, "its supervisor was killed or the machine restarted")
            return Recovered(container_id, restart=policy != "no" and not status.stopped_by_user)
        if policy == "always" and status.shim and status.shim.get("boot_id") != process.boot_id():
            # Docker's: `always` comes back with the machine, even if somebody had stopped it.
            return Recovered(container_id, restart=True, was_running=False)
        return None

    def _traces(self) -> set[str]:
        traces = self._store.traces()
        if self._host.facts.cgroup_path:
            traces |= cgroups.children(self._host.cgroups, self._host.facts.cgroup_path)
        return traces

    def orphans(self, known: Iterable[str]) -> tuple[str, ...]:
        """Ids of all that is here in any form (files, runtime state, control groups) and not among `known`."""
        return tuple(sorted(self._traces() - set(known)))

    def sweep(self, known: Iterable[str]) -> tuple[str, ...]:
        """Remove all orphans, running or not; their ids."""
        removed = self.orphans(known)
        for container_id in removed:
            self.remove(container_id, force=True)
        return removed
