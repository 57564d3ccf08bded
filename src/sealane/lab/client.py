"""The verbs of `sealane lab`, as the command line calls them."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress

import msgspec

from sealane.lab.folder import Folder, LabError, labs, root_folder
from sealane.lab.messages import MAX_BYTES, REPLY, STARTED, NodeStatus, Reply, Request, Started
from sealane.lab.namespaces import Enterable, die_with_parent
from sealane.lab.plan import Plan

ANSWER_S = 30.0
"""For one answer of the holder, which never waits for anything."""
HANGS_S = 10.0
"""A holder that has not answered `down` by then never will."""
END_S = 20.0
POLL_S = 0.02
DEFAULT_NAME = "lab"
_FINISHED = frozenset({"running", "exited"})
_NAMESPACES = 5

Report = Callable[[NodeStatus], None]


def find_lab(environ: Mapping[str, str], name: str) -> Folder:
    """The lab of that name; without one, of $SEALANE_LAB, else the only one there is. Raises LabError."""
    root = root_folder(environ)
    there = labs(root)
    if wanted := name or environ.get("SEALANE_LAB", ""):
        if wanted not in there:
            raise LabError(f"lab {wanted} is not up", _others(there))
        return Folder(root, wanted)
    if not there:
        raise LabError("no lab is up", "sealane lab up cluster.yaml")
    if len(there) > 1:
        raise LabError(f"{len(there)} labs are up", f"--name with one of: {', '.join(there)}")
    return Folder(root, there[0])


def _others(there: list[str]) -> str:
    return f"use one of: {', '.join(there)}" if there else "sealane lab up cluster.yaml"


def is_alive(folder: Folder) -> bool:
    """Whether a process of the lab holds its lock."""
    with suppress(OSError):
        lock = folder.lock()
        if lock is None:
            return True
        os.close(lock)
    return False


# --- up


def up(folder: Folder, plan: Plan, report: Report, *, wait_s: float) -> None:
    """Lay out and start, or start what does not run of the same plan. Returns when all programs are ready.

    Raises LabError, with the lab left as it is if a program failed: its log is there to be read.
    """
    lock = folder.lock(make=True)
    if lock is None:
        _check_same(folder, plan)
        for node in call(folder, Request(verb="status")).nodes:
            if node.state == "exited":
                call(folder, Request(verb="start", node=node.name))
            elif node.state == "paused":
                call(folder, Request(verb="resume", node=node.name))
    else:
        try:
            _lay_out(folder, plan, lock)
        finally:
            os.close(lock)
    await_states(folder, [node.name for node in plan.nodes], _FINISHED, report, wait_s=wait_s)


def _check_same(folder: Folder, plan: Plan) -> None:
    """Raises LabError if the lab that is up has another plan."""
    try:
        same = folder.read_plan() == plan
    except (OSError, msgspec.MsgspecError):
        same = False
    if not same:
        raise LabError(f"lab {folder.name} is up with another plan", f"sealane lab down --name {folder.name}")


def _lay_out(folder: Folder, plan: Plan, lock: int) -> None:
    """Begin the two processes; they have the lock then. What a dead lab has left is removed first."""
    if os.path.exists(f"{folder.path}/token"):
        folder.remove_contents()
    folder.write_plan(plan)
    with open(folder.log, "ab") as log:
        warden = subprocess.Popen(
            [sys.executable, "-m", "sealane.lab.warden", folder.root, folder.name, str(lock)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            pass_fds=[lock],
            start_new_session=True,
        )
    assert warden.stdout is not None
    with warden.stdout as pipe:
        said = pipe.read()
    # It lives on: nobody waits for it, and nothing is to be said of that.
    warden.returncode = 0
    try:
        started = STARTED.decode(said)
    except msgspec.MsgspecError:
        end = folder.log_end(folder.log)
        started = Started(error=f"the lab's process ended at once: {end or 'it said nothing'}")
    if started.error:
        raise LabError(f"lab {folder.name}: {started.error}", started.hint)


# --- requests


def call(folder: Folder, request: Request) -> Reply:
    """Raises LabError: refused, or nobody is there."""
    return _call(folder, request, 0)[0]


def enter(folder: Folder, node: str) -> Enterable:
    """Raises LabError."""
    _, descriptors = _call(folder, Request(verb="enter", node=node), _NAMESPACES)
    if len(descriptors) != _NAMESPACES:
        raise LabError(f"lab {folder.name} gave no namespaces", "sealane lab down, then up")
    return Enterable(*descriptors)


def _call(
    folder: Folder, request: Request, descriptors: int, *, wait_s: float = ANSWER_S
) -> tuple[Reply, list[int]]:
    with _connected(folder) as connection:
        connection.settimeout(wait_s)
        try:
            connection.send(msgspec.json.encode(request))
            packet, received, _, _ = socket.recv_fds(connection, MAX_BYTES, descriptors)
        except TimeoutError as error:
            hint = f"sealane lab down --name {folder.name}"
            raise LabError(f"lab {folder.name} did not answer within {wait_s:.0f} s", hint) from error
        except OSError as error:
            raise LabError(f"lab {folder.name} ended: {error.strerror}") from error
    if not packet:
        raise LabError(f"lab {folder.name} ended", "sealane lab up")
    reply = REPLY.decode(packet)
    if reply.error:
        raise LabError(reply.error, reply.hint)
    return reply, received


def _connected(folder: Folder) -> socket.socket:
    """Raises LabError."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.settimeout(ANSWER_S)
    limit = time.monotonic() + ANSWER_S
    while True:
        try:
            descriptor = os.open(folder.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                connection.connect(f"/proc/self/fd/{descriptor}/holder.sock")
            finally:
                os.close(descriptor)
        except OSError as error:
            # Another `up` may be at it.
            if is_alive(folder) and time.monotonic() < limit:
                time.sleep(POLL_S)
                continue
            connection.close()
            hint = f"sealane lab up, or sealane lab down --name {folder.name} to clear up"
            raise LabError(f"lab {folder.name} is not running", hint) from error
        return connection


def await_states(
    folder: Folder, names: Iterable[str], wanted: Iterable[str], report: Report, *, wait_s: float
) -> None:
    """Until each of the nodes is in one of the states; each is reported once, in the order given.

    Raises LabError for time, and for one that has exited where it was to run.
    """
    pending, goal = list(names), frozenset(wanted)
    watched = frozenset(pending)
    limit = time.monotonic() + wait_s
    while True:
        nodes = {
            node.name: node for node in call(folder, Request(verb="status")).nodes if node.name in watched
        }
        while pending and nodes[pending[0]].state in goal:
            report(nodes[pending.pop(0)])
        failed = [node for node in nodes.values() if node.state == "exited" and "running" in goal]
        # Without a member nobody goes on; a daemon's failure is told when the others are there.
        if not pending or any(node.kind == "etcd" for node in failed):
            break
        if time.monotonic() > limit:
            raise LabError(
                f"not {' or '.join(sorted(goal - {'exited'}))} within {wait_s:.0f} s: {', '.join(pending)}",
                f"see {folder.program_log(pending[0])}",
            )
        time.sleep(POLL_S)
    if failed:
        log = folder.program_log(failed[0].name)
        said = folder.log_end(log) or "it said nothing"
        raise LabError(f"{failed[0].name} exited with {failed[0].code}: {said}", f"see {log}")


# --- down


def down(folder: Folder) -> None:
    """End the lab, or remove what one has left. Idempotent. Raises LabError if it does not end."""
    if _gone(folder):
        return
    try:
        _call(folder, Request(verb="down"), 0, wait_s=HANGS_S)
        ends = _ends_within(folder, END_S)
    except LabError:
        # It may have ended meanwhile, without an answer.
        ends = _ends_within(folder, POLL_S)
    if not ends:
        # It is stopped, or hangs: the kernel ends all of it with its first process, and the warden clears up.
        _kill_holder(folder)
        if not _ends_within(folder, END_S):
            raise LabError(f"lab {folder.name} does not end", f"see {folder.log}")


def _gone(folder: Folder) -> bool:
    """Whether nothing runs; then what is left is removed."""
    try:
        lock = folder.lock()
    except FileNotFoundError:
        return True
    if lock is None:
        return False
    try:
        folder.remove()
    finally:
        os.close(lock)
    return True


def _ends_within(folder: Folder, seconds: float) -> bool:
    limit = time.monotonic() + seconds
    while not _gone(folder):
        if time.monotonic() > limit:
            return False
        time.sleep(POLL_S)
    return True


def _kill_holder(folder: Folder) -> None:
    """By the socket's other end: no number in a file, which may be another process's by now."""
    with suppress(LabError, OSError), _connected(folder) as connection:
        packed = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        pid = int.from_bytes(packed[:4], sys.byteorder)
        if pid > 1:
            os.kill(pid, signal.SIGKILL)


# --- exec


def execute(namespaces: Enterable, command: list[str], environ: Mapping[str, str]) -> int:
    """Run a command inside, with this process's terminal and standard streams; its exit code, 128 and more for a signal,
    126 and 127 as a shell has them. It is killed if this process is."""
    directory = os.getcwd()
    namespaces.enter()
    pid = os.fork()
    if pid == 0:
        _become(command, environ, directory)
    for number in (signal.SIGINT, signal.SIGQUIT):
        # The terminal gives them to the command as well, and it decides.
        signal.signal(number, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda given, _frame: os.kill(pid, given))
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _become(command: list[str], environ: Mapping[str, str], directory: str) -> None:
    """Never returns."""
    code = 127
    try:
        die_with_parent(signal.SIGKILL)
        try:
            os.chdir(directory)
        except OSError:
            os.chdir("/")
        os.execvpe(command[0], command, dict(environ))  # noqa: S606
    except OSError as error:
        code = 127 if isinstance(error, FileNotFoundError) else 126
        os.write(2, f"error: {command[0]}: {error.strerror}\n".encode())
    finally:
        os._exit(code)
