"""Host, container, cgroup and clients for the tests of publishing on loopback: all of them real.

The host is the network namespace that pytest runs in; a container is another one, joined by a veth. Programs are attached
to a cgroup of the test's own, into which pytest moves for the time of a test, so nothing else on the machine runs them.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from sealane.linux.bpf import loopback, mounts
from sealane.linux.bpf.loopback import LoopbackEntry, LoopbackPublisher

HOST4, HOST6 = "10.88.1.1", "fd88:1::1"
BACKEND4, BACKEND6 = "10.88.1.2", "fd88:1::2"
LOCAL = {4: "127.0.0.1", 6: "::1"}
HOST = {4: HOST4, 6: HOST6}
BACKEND = {4: BACKEND4, 6: BACKEND6}
FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}

# Answers every connection and datagram with "client's address, client's port, own port".
SERVER = """
import selectors, socket, sys
selector = selectors.DefaultSelector()
for family, host in ((socket.AF_INET, sys.argv[1]), (socket.AF_INET6, sys.argv[2])):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        for port in map(int, sys.argv[3:]):
            sock = socket.socket(family, kind)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind((host, port))
            if kind == socket.SOCK_STREAM:
                sock.listen(64)
            selector.register(sock, selectors.EVENT_READ)
print("ready", flush=True)
while True:
    for key, _ in selector.select():
        sock = key.fileobj
        if sock.type == socket.SOCK_STREAM:
            conn, peer = sock.accept()
            conn.sendall(f"{peer[0]} {peer[1]} {sock.getsockname()[1]}".encode())
            conn.close()
        else:
            data, peer = sock.recvfrom(2048)
            sock.sendto(f"{peer[0]} {peer[1]} {sock.getsockname()[1]}".encode(), peer)
"""


def run(*arguments: str) -> str:
    return subprocess.run(arguments, check=True, capture_output=True, text=True, timeout=100).stdout


class Processes:
    """Processes that end with the test."""

    def __init__(self) -> None:
        self._running: list[subprocess.Popen[str]] = []

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start and wait for its first line."""
        process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
        self._running.append(process)
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "ready"
        return process

    def stop(self) -> None:
        while self._running:
            process = self._running.pop()
            process.kill()
            process.communicate()


class Container:
    """A network namespace joined to the host by a veth."""

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        keeper = processes.start("unshare", "-n", "sh", "-c", "echo ready; exec sleep 600")
        self.enter = ("nsenter", f"--net=/proc/{keeper.pid}/ns/net")
        run("ip", "link", "set", "lo", "up")
        run("ip", "link", "add", "slh", "type", "veth", "peer", "name", "eth0", "netns", str(keeper.pid))
        run("ip", "addr", "add", f"{HOST4}/24", "dev", "slh")
        run("ip", "addr", "add", f"{HOST6}/64", "dev", "slh", "nodad")
        run("ip", "link", "set", "slh", "up")
        run(*self.enter, "ip", "link", "set", "lo", "up")
        run(*self.enter, "ip", "addr", "add", f"{BACKEND4}/24", "dev", "eth0")
        run(*self.enter, "ip", "addr", "add", f"{BACKEND6}/64", "dev", "eth0", "nodad")
        run(*self.enter, "ip", "link", "set", "eth0", "up")

    def serve(self, *ports: int, at: tuple[str, str] = ("0.0.0.0", "::")) -> None:
        self._processes.start(*self.enter, sys.executable, "-c", SERVER, *at, *map(str, ports))

    def run(self, code: str) -> str:
        return run(*self.enter, sys.executable, "-c", textwrap.dedent(code))


@pytest.fixture(scope="session")
def private_namespaces():
    # With a default route it is no namespace made for tests.
    routes = [line.split() for line in Path("/proc/net/route").read_text().splitlines()]
    if any(route[1] == "00000000" for route in routes):
        pytest.skip("run inside `unshare -n -m --propagation private`")
    reason = loopback.probe()
    if reason is not None:
        pytest.skip(f"loopback publishing: {reason}")


@pytest.fixture
def processes(private_namespaces):
    processes = Processes()
    yield processes
    processes.stop()


@pytest.fixture
def container(processes):
    yield Container(processes)
    run("ip", "link", "del", "slh")


@contextlib.contextmanager
def inside(cgroup: Path):
    """Put this process, and so the sockets it makes, into `cgroup`."""
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    (home,) = (line.removeprefix("0::") for line in lines if line.startswith("0::"))
    (cgroup / "cgroup.procs").write_text(str(os.getpid()))
    try:
        yield
    finally:
        Path(f"{mounts.find_cgroup2()}{home}/cgroup.procs").write_text(str(os.getpid()))


def remove_cgroup(cgroup: Path) -> None:
    # A killed process may count as a member for a moment; the kernel says so by EBUSY and by events.
    events = cgroup / "cgroup.events"
    with events.open() as file:
        poll = select.poll()
        poll.register(file, select.POLLPRI)
        while "populated 1" in file.read():
            assert poll.poll(100_000), "the cgroup does not become empty"
            file.seek(0)
    cgroup.rmdir()


@pytest.fixture
def cgroup(processes):
    root = mounts.find_cgroup2()
    assert root is not None
    path = Path(root) / f"sealane-test-{os.getpid()}"
    path.mkdir()
    try:
        with inside(path):
            yield path
    finally:
        processes.stop()
        remove_cgroup(path)


@pytest.fixture
def publisher(tmp_path, cgroup):
    publisher = LoopbackPublisher(str(tmp_path / "pins"), cgroup=str(cgroup))
    publisher.open()
    yield publisher
    publisher.detach()


def entry(
    family: int = 4,
    proto: str = "tcp",
    port: int = 8080,
    *,
    last: int = 0,
    to: int = 80,
    backend: str = "",
    reserved: str = "",
):
    backend = backend or BACKEND[family]
    packed = socket.inet_pton(socket.AF_INET6 if ":" in backend else socket.AF_INET, backend)
    held = socket.inet_pton(FAMILY[family], reserved) if reserved else b""
    return LoopbackEntry(family, proto, port, last or port, packed, to, held)


def open_socket(family: int, kind: int) -> socket.socket:
    sock = socket.socket(FAMILY[family], kind)
    sock.settimeout(100)
    return sock


def ask_tcp(
    family: int, host: str, port: int, *, source: str | None = None
) -> tuple[list[str], tuple[str, int]]:
    """What the server says, and who the client thinks it talks to."""
    with open_socket(family, socket.SOCK_STREAM) as sock:
        if source is not None:
            sock.bind((source, 0))
        sock.connect((host, port))
        peer = sock.getpeername()[:2]
        return sock.recv(200).decode().split(), peer


def ask_udp_connected(family: int, host: str, port: int, *, source: str | None = None):
    with open_socket(family, socket.SOCK_DGRAM) as sock:
        if source is not None:
            sock.bind((source, 0))
        sock.connect((host, port))
        sock.send(b"?")
        data, peer = sock.recvfrom(200)
        assert sock.getpeername()[:2] == peer[:2]
        return data.decode().split(), peer[:2]


def ask_udp(family: int, host: str, port: int, *, source: str | None = None):
    with open_socket(family, socket.SOCK_DGRAM) as sock:
        # An ICMP error is told to an unconnected IPv4 socket only if it asks (IP_RECVERR 11, IPV6_RECVERR 25).
        sock.setsockopt(*((socket.IPPROTO_IPV6, 25) if family == 6 else (socket.IPPROTO_IP, 11)), 1)
        if source is not None:
            sock.bind((source, 0))
        sock.sendto(b"?", (host, port))
        data, peer = sock.recvfrom(200)
        return data.decode().split(), peer[:2]


ASK = {"tcp": ask_tcp, "udp connected": ask_udp_connected, "udp": ask_udp}
every_way = pytest.mark.parametrize("way", ASK)
both_families = pytest.mark.parametrize("family", [4, 6])


def refused(way: str, family: int, host: str, port: int, **options) -> bool:
    try:
        ASK[way](family, host, port, **options)
    except ConnectionRefusedError:
        return True
    return False
