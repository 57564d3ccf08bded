"""Makes a container's bundle and starts its shim."""

from __future__ import annotations

import json
import os
import secrets
import select
import socket
import stat
import subprocess
import time
from contextlib import ExitStack, suppress

from sealane.containers import cgroups, codes, files, process
from sealane.containers.errors import ConflictError, LaunchError, SpecError
from sealane.containers.host import Host
from sealane.containers.images import Images
from sealane.containers.layer import mount_layer
from sealane.containers.oci import build_config, build_process, confined, hosts_file, resolv_file
from sealane.containers.parent import LAUNCH_TIMEOUT_S
from sealane.containers.plan import ExecConfig, Paths, Plan
from sealane.containers.rootfs import prepare_root
from sealane.containers.spec import HOST_ROOTFS, ContainerSpec, parse_signal
from sealane.containers.stage import make_stage, stage_of, staged
from sealane.containers.users import UidMap, User, is_mapped, resolve_user
from sealane.model.idmap import ID_BASE, ID_COUNT
from sealane.model.image import digest_of_root

SHIM = os.path.join(os.path.dirname(os.path.abspath(__file__)), "shim.py")
EXEC_SHIM = os.path.join(os.path.dirname(SHIM), "execshim.py")
ANSWER_TIMEOUT_S = LAUNCH_TIMEOUT_S + 10.0
MAX_ANSWER_BYTES = 65536
MAX_ACCOUNT_FILE_BYTES = 1024 * 1024


def prepare(
    spec: ContainerSpec, paths: Paths, host: Host, own: tuple[str, ...], images: Images, early: bytes = b""
) -> None:
    """Write all files a shim and the OCI runtime need. Repeatable; /etc files that exist are kept, they may be newer. `early`:
    what has come of its client already."""
    if spec.netns is not None and not os.path.exists(spec.netns):
        raise SpecError("netns", f"{spec.netns} does not exist")
    if spec.userns is not None and not os.path.exists(spec.userns):
        raise SpecError("userns", f"{spec.userns} does not exist: make the container anew")
    _forget_attendants(paths)
    for folder in (paths.logs, paths.run_folder, paths.etc):
        os.makedirs(folder, mode=0o700, exist_ok=True)
    spec = confined(spec, host.facts)
    for name, content in _etc_files(spec).items():
        path = os.path.join(paths.etc, name)
        if not os.path.exists(path):
            files.write_atomic(path, content, 0o644)
        if spec.userns is not None:
            # An image's own programs may write them.
            os.chown(path, ID_BASE, ID_BASE)
    _mount_image(spec, paths, host, images)
    user = resolve(spec, paths, host)
    root = staged(spec, paths, prepare_root(spec, _top(spec, paths), paths.etc, own))
    files.write_json(paths.config, build_config(spec, user, root, host.facts, early))
    check = spec.health.command if spec.health else ()
    if check:
        files.write_json(paths.probe_process, build_process(spec, user, command=check))
    plan = _plan(spec, paths, host, has_check=bool(check))
    plan.streams_owner = streams_owner(spec, user)
    plan.early = early.hex()
    plan.save(paths.plan)
    files.remove(paths.desired)


def _forget_attendants(paths: Paths) -> None:
    """Files of those that were killed. None is alive: they end with the container."""
    with suppress(FileNotFoundError):
        for name in os.listdir(paths.run_folder):
            if name.startswith(("exec-", "console-")):
                files.remove(os.path.join(paths.run_folder, name))


def _mount_image(spec: ContainerSpec, paths: Paths, host: Host, images: Images) -> None:
    digest = digest_of_root(spec.rootfs)
    if digest is None:
        return
    if images.get(digest) is None:
        raise SpecError("rootfs", f"there is no image {digest[:12]} here: `sealane image load` it again")
    target = paths.rootfs if spec.userns is None else make_stage(paths.run_folder)
    in_user_namespace = host.facts.in_user_namespace
    mount_layer(
        images.rootfs(digest), paths.layer, target, in_user_namespace=in_user_namespace, userns=spec.userns
    )


def _top(spec: ContainerSpec, paths: Paths) -> str:
    """Where the root is made, or an image is mounted."""
    is_image = digest_of_root(spec.rootfs) is not None
    return stage_of(paths.run_folder) if is_image and spec.userns is not None else paths.rootfs


def streams_owner(spec: ContainerSpec, user: User) -> list[int] | None:
    """Whose the pipes to a process are to be, in ids of the host."""
    return None if spec.userns is None else [ID_BASE + user.uid, ID_BASE + user.gid]


def resolve(spec: ContainerSpec, paths: Paths, host: Host) -> User:
    """The spec's user by the container's own account files; SpecError if it cannot exist here."""
    top = "/" if spec.rootfs == HOST_ROOTFS else spec.rootfs
    if digest_of_root(spec.rootfs) is not None:
        top = _top(spec, paths)
    user = resolve_user(spec.user, _account_file(top, "passwd"), _account_file(top, "group"))
    own = (UidMap(0, ID_COUNT),)
    uid_map, gid_map = (host.uid_map, host.gid_map) if spec.userns is None else (own, own)
    if not is_mapped(user.uid, uid_map):
        raise SpecError("user", f"uid {user.uid} does not exist in this user namespace")
    if not is_mapped(user.gid, gid_map):
        raise SpecError("user", f"gid {user.gid} does not exist in this user namespace")
    groups = tuple(gid for gid in user.groups if is_mapped(gid, gid_map))
    return User(user.uid, user.gid, groups, user.home)


def launch_shim(python: str, paths: Paths, client: socket.socket | None = None) -> int:
    """Start the shim and wait for its answer: the container's pid. LaunchError if it did not start. `client`: a connection
    that the shim gets one end of, and the caller keeps one, too."""
    errors_path = os.path.join(paths.run_folder, "shim.err")
    lock = process.take_lock(paths.lock)
    if lock is None:
        raise ConflictError(f"container {os.path.basename(paths.run_folder)} already has a supervisor")
    with ExitStack() as opened:
        # These two belong to the shim alone once it runs; its death is seen as the end of the pipe.
        with ExitStack() as the_shims:
            the_shims.callback(os.close, lock)
            reader, writer = os.pipe()
            opened.callback(os.close, reader)
            the_shims.callback(os.close, writer)
            errors = the_shims.enter_context(open(errors_path, "wb"))
            shim = subprocess.Popen(
                # -I -S: nothing of the user's environment, no site-packages: small, fast, and not to be led astray.
                [python, "-I", "-S", SHIM, paths.plan, str(lock), str(writer), str(client.fileno() if client else -1)],
                pass_fds=(lock, writer, *([client.fileno()] if client else [])), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors,
                start_new_session=True, cwd="/",
            )  # fmt: skip
        answer = _read_answer(reader)
    # The started process forks the shim proper and ends at once.
    shim.wait()
    if answer is None:
        said = (files.read_bytes(errors_path) or b"").decode("utf-8", "replace").strip()
        raise LaunchError(f"the supervisor gave no answer: {said[-2000:] or 'it was killed'}", codes.FAILED)
    if "error" in answer:
        raise LaunchError(str(answer["error"]), int(str(answer["exit_code"])))
    return int(str(answer["pid"]))


def launch_attendant(python: str, exec_config: ExecConfig, paths: Paths, connection: socket.socket) -> None:
    """Start an attendant and hand it a client's connection. Raises OSError, LaunchError."""
    path = os.path.join(paths.run_folder, f"exec-{secrets.token_hex(8)}.json")
    exec_config.save(path)
    try:
        starter = subprocess.Popen(
            [python, "-I", "-S", EXEC_SHIM, path, str(connection.fileno())],
            pass_fds=(connection.fileno(),), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True, cwd="/",
        )  # fmt: skip
    except OSError:
        files.remove(path)
        raise
    # It forks the attendant proper, whose the file is then, and ends at once.
    if starter.wait() != 0:
        files.remove(path)
        raise LaunchError("the session's attendant could not be started", codes.FAILED)


def _read_answer(reader: int) -> dict[str, object] | None:
    """The shim's one line; None if it died or did not answer in time."""
    deadline = time.monotonic() + ANSWER_TIMEOUT_S
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    data = b""
    while not data.endswith(b"\n") and len(data) < MAX_ANSWER_BYTES:
        left = deadline - time.monotonic()
        if left <= 0 or not poll.poll(left * 1000):
            return None
        chunk = os.read(reader, MAX_ANSWER_BYTES)
        if not chunk:
            return None
        data += chunk
    answer = json.loads(data)
    return answer if isinstance(answer, dict) else None


def _plan(spec: ContainerSpec, paths: Paths, host: Host, *, has_check: bool) -> Plan:
    policy, most = spec.restart_policy
    health = None
    if spec.health is not None and has_check:
        health = {
            name: float(getattr(spec.health, name))
            for name in spec.health.__struct_fields__
            if name != "test"
        }
    return Plan(
        container_id=spec.id,
        runtime=list(host.runtime),
        state_folder=paths.state_folder,
        run_folder=paths.run_folder,
        restart=policy,
        max_restarts=most,
        stop_signal=parse_signal(spec.stop_signal),
        stop_timeout_s=spec.stop_timeout_s,
        oom_file=cgroups.oom_file(host.cgroups, host.group_of(spec.id)) if host.facts.cgroup_path else "",
        health=health,
        has_terminal=spec.tty,
        has_stdin=spec.stdin_open,
    )


def _etc_files(spec: ContainerSpec) -> dict[str, bytes]:
    return {
        "hosts": hosts_file(spec.effective_hostname, spec.hosts),
        "resolv.conf": resolv_file(spec.dns),
        "hostname": f"{spec.effective_hostname}\n".encode(),
    }


def _account_file(top: str, name: str) -> str:
    """The text of /etc/passwd or /etc/group; "" if there is none, or it is anything but a plain file.

    A root folder is foreign content: a FIFO there would block us, a link could lead out of it.
    """
    try:
        descriptor = os.open(
            os.path.join(top, "etc", name), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        )
    except OSError:
        return ""
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return ""
        return file.read(MAX_ACCOUNT_FILE_BYTES).decode("utf-8", "replace")
