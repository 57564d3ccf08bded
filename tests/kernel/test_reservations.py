"""Which sockets only reserve a container's host ports: by who has them open, and never by what that calls itself."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from harness.netns import Netns, eventually
from sealane.engine.ports import Reserver
from sealane.linux import processes, reservations

pytestmark = pytest.mark.kernel

HOLD = """
import ctypes, socket, subprocess, sys
name, *command = sys.argv[1:]
ctypes.CDLL(None).prctl(15, name.encode())
held = socket.create_server(("127.0.0.1", 0))
child = subprocess.Popen(command) if command else None
print(held.getsockname()[1], child.pid if child else 0, flush=True)
sys.stdin.read()
if child:
    child.kill()
    child.wait()
"""
"""A program by a name of its choice that holds a port, and starts another one."""


class Holder:
    def __init__(self, name: str, *command: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", HOLD, name, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._process.stdout is not None
        port, child = map(int, self._process.stdout.readline().split())
        self.pid, self.port, self.child = self._process.pid, port, child
        assert processes.command(self.pid) == name

    @property
    def inode(self) -> int:
        found = (os.readlink(f"/proc/{self.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{self.pid}/fd"))
        (inode,) = (int(text[8:-1]) for text in found if text.startswith("socket:["))
        return inode

    def close(self) -> None:
        self._process.communicate()


@contextlib.contextmanager
def holding(name: str, *command: str) -> Iterator[Holder]:
    holder = Holder(name, *command)
    try:
        yield holder
    finally:
        holder.close()


@pytest.fixture(scope="module")
def container() -> Iterator[Netns]:
    with Netns("container") as there:
        yield there


def inside(container: Netns, holder: Holder) -> None:
    eventually(
        lambda: os.readlink(f"/proc/{holder.child}/ns/net") == f"net:[{container.inode}]",
        what="the child is in the namespace",
    )


@pytest.fixture
def enter(container: Netns) -> tuple[str, ...]:
    return ("nsenter", f"--net={container.path}", "sleep", "600")


def test_what_started_the_plugin_reserves(container: Netns) -> None:
    """podman 5, whatever it calls itself."""
    with holding("anything", "sleep", "600") as holder:
        assert reservations.starter(holder.child) == holder.pid
        assert reservations.is_reserved(holder.inode, Reserver(holder.pid, container.inode))


def test_what_started_that_does_not(container: Netns) -> None:
    """A program that holds the port and starts podman holds it for itself."""
    runs = "import subprocess; subprocess.run(['sleep', '600'])"
    with holding("podman", sys.executable, "-c", runs) as holder:
        plugin = eventually(
            lambda: next((p for p in processes.pids() if processes.parent(p) == holder.child), 0)
        )
        assert reservations.starter(plugin) == holder.child
        assert not reservations.is_reserved(holder.inode, Reserver(holder.child, container.inode))
        os.kill(plugin, signal.SIGKILL)


@pytest.mark.parametrize("name", ["podman", "conmon", "netavark"])
def test_a_name_proves_nothing(container: Netns, name: str) -> None:
    with holding(name) as holder, holding("podman", "sleep", "600") as podman:
        assert not reservations.is_reserved(holder.inode, Reserver(podman.pid, container.inode))
        assert not reservations.is_reserved(holder.inode, Reserver(0, container.inode))


def test_the_containers_monitor_reserves(container: Netns, enter: tuple[str, ...]) -> None:
    with holding("conmon", *enter) as monitor:
        inside(container, monitor)
        assert reservations.is_reserved(monitor.inode, Reserver(0, container.inode))
        assert reservations.monitors({container.inode}) == {container.inode: {monitor.pid}}


def test_the_monitor_of_another_container_does_not(container: Netns, enter: tuple[str, ...]) -> None:
    with Netns("other") as other, holding("conmon", *enter) as monitor:
        inside(container, monitor)
        assert not reservations.is_reserved(monitor.inode, Reserver(0, other.inode))


def test_another_program_with_a_process_in_the_container_does_not(
    container: Netns, enter: tuple[str, ...]
) -> None:
    """A shell from which somebody looks around inside."""
    with holding("bash", *enter) as holder:
        inside(container, holder)
        assert not reservations.is_reserved(holder.inode, Reserver(0, container.inode))


def test_a_program_inside_is_no_monitor(container: Netns) -> None:
    """A container must not reserve the host's ports by the name of its programs."""
    with Netns.enter("inside", container.path) as there:
        there.python("import ctypes; ctypes.CDLL(None).prctl(15, b'conmon')")
        assert reservations.monitors({container.inode}) == {}


def test_who_has_no_parent_to_speak_of_was_started_by_nobody() -> None:
    assert reservations.starter(0) == 0
    assert reservations.starter(1) == 0
    assert reservations.starter(1 << 30) == 0
    left = subprocess.run(
        ["sh", "-c", "sleep 600 >/dev/null 2>&1 & echo $!"], stdout=subprocess.PIPE, check=True
    )
    orphan = int(left.stdout)
    try:
        adopter = eventually(lambda: processes.parent(orphan))
        assert reservations.starter(orphan) == (0 if adopter == 1 else adopter)
    finally:
        os.kill(orphan, signal.SIGKILL)


def test_open_sockets_are_found() -> None:
    with socket.socket() as one, socket.socket(fileno=os.dup(one.fileno())) as two:
        inode = os.fstat(one.fileno()).st_ino
        found = list(reservations.open_sockets(os.getpid()))
        assert {fd for number, fd in found if number == inode} == {one.fileno(), two.fileno()}
        assert list(reservations.open_sockets(1 << 30)) == []
