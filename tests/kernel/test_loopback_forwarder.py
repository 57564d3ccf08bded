"""The userland forwarder on real sockets: the backend has an address of its own on this namespace's loopback device."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import struct
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from harness.netns import Netns
from sealane.linux import forwarder as base
from sealane.linux import loopback_forwarder
from sealane.linux.bpf.entry import LoopbackEntry
from sealane.linux.loopback_forwarder import LoopbackForwarder

pytestmark = pytest.mark.kernel

BACKEND = {4: "10.99.0.1", 6: "fd99::1"}
LOCAL = {4: "127.0.0.1", 6: "::1"}
both_families = pytest.mark.parametrize("family", [4, 6])
SECONDS = 10


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, timeout=100)


def packed(address: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)


def entry(
    family: int = 4, proto: str = "tcp", port: int = 8080, *, last: int = 0, to: int = 80, backend: int = 0
):
    return LoopbackEntry(family, proto, port, last or port, packed(BACKEND[backend or family]), to)


@pytest.fixture(scope="module", autouse=True)
def addresses():
    # With a default route it is no namespace made for tests.
    routes = [line.split() for line in Path("/proc/net/route").read_text().splitlines()]
    if any(route[1] == "00000000" for route in routes):
        pytest.skip("run inside `unshare -n -m --propagation private`")
    ip("link", "set", "lo", "up")
    for address in BACKEND.values():
        ip("addr", "add", address, "dev", "lo", *(["nodad"] if ":" in address else []))
    yield
    for address in BACKEND.values():
        ip("addr", "del", address, "dev", "lo")


@contextlib.asynccontextmanager
async def forwarder(*entries: LoopbackEntry):
    forwarder = LoopbackForwarder(asyncio.get_running_loop())
    try:
        forwarder.apply(entries)
        yield forwarder
    finally:
        forwarder.close()
        await until(lambda: not forwarder._relays)


@contextlib.asynccontextmanager
async def tcp_backend(handle, *, port: int = 80, family: int = 4):
    server = await asyncio.start_server(handle, BACKEND[family], port)
    async with server:
        yield server


class Echo(asyncio.DatagramProtocol):
    """Answers with the datagram and its own name."""

    def __init__(self, name: bytes) -> None:
        self.name = name
        self.clients: set[tuple] = set()

    def connection_made(self, transport) -> None:
        self.transport = transport

    def datagram_received(self, data, peer) -> None:
        self.clients.add(peer)
        self.transport.sendto(data + self.name, peer)


@contextlib.asynccontextmanager
async def udp_backend(name: bytes = b"", *, port: int = 80, family: int = 4):
    loop = asyncio.get_running_loop()
    transport, echo = await loop.create_datagram_endpoint(lambda: Echo(name), (BACKEND[family], port))
    try:
        yield echo
    finally:
        transport.close()


async def echo_until_end(reader, writer) -> None:
    """Answers only after the client's half is closed: half-close has to come through."""
    data = await reader.read(-1)
    writer.write(data[::-1])
    await writer.drain()
    writer.close()
    await writer.wait_closed()


async def ask(port: int, data: bytes, family: int = 4, host: str = "") -> bytes:
    reader, writer = await asyncio.open_connection(host or LOCAL[family], port)
    try:
        writer.write(data)
        writer.write_eof()
        return await reader.read(-1)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def ask_udp(sock: socket.socket, data: bytes, address) -> tuple[bytes, tuple]:
    loop = asyncio.get_running_loop()
    await loop.sock_sendto(sock, data, address)
    return await loop.sock_recvfrom(sock, 65_535)


def udp_client(family: int = 4) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if family == 6 else socket.AF_INET, socket.SOCK_DGRAM)
    sock.setblocking(False)
    return sock


async def until(condition) -> None:
    while not condition():  # noqa: ASYNC110 - what is awaited has no event, and the test has a time limit.
        await asyncio.sleep(0.005)


def in_loop(test):
    """Run the coroutine function in a loop of its own, within `SECONDS`."""

    def run(**fixtures):
        asyncio.run(asyncio.wait_for(test(**fixtures), SECONDS))

    import inspect

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    run.__signature__ = inspect.signature(test)
    run.pytestmark = getattr(test, "pytestmark", [])
    return run


@both_families
@in_loop
async def test_tcp_comes_through_and_half_close_with_it(family):
    data = bytes(range(256)) * 8192
    async with tcp_backend(echo_until_end, family=family), forwarder(entry(family)):
        assert await ask(8080, data, family) == data[::-1]


@in_loop
async def test_ipv6_loopback_reaches_an_ipv4_backend():
    async with (
        tcp_backend(echo_until_end),
        udp_backend() as _,
        forwarder(entry(6, backend=4), entry(6, "udp", backend=4)),
    ):
        assert await ask(8080, b"ab", 6) == b"ba"
        with udp_client(6) as sock:
            assert (await ask_udp(sock, b"?", ("::1", 8080)))[0] == b"?"


@in_loop
async def test_only_127_0_0_1_and_1_listen():
    async with tcp_backend(echo_until_end), forwarder(entry()):
        for host in ("10.99.0.1", "127.0.0.2", "::1"):
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection(host, 8080)


@in_loop
async def test_a_slow_reader_holds_back_the_sender():
    """Back-pressure: of an endless stream only what fits buffers leaves the backend until the client reads."""
    sent = 0

    async def pour(reader, writer):
        nonlocal sent
        with contextlib.suppress(OSError):
            while True:
                writer.write(bytes(65_536))
                await writer.drain()
                sent += 65_536

    async with tcp_backend(pour), forwarder(entry()):
        reader, writer = await asyncio.open_connection("127.0.0.1", 8080, limit=4096)
        before = -1
        while sent != before:
            before = sent
            await asyncio.sleep(0.2)
        stalled_at = sent
        assert stalled_at < 64 * 1024 * 1024, "bounded by socket buffers and not by memory"
        await reader.readexactly(stalled_at)
        await until(lambda: sent > stalled_at)
        writer.transport.abort()


@in_loop
async def test_a_reset_is_passed_on():
    reset = asyncio.Event()

    async def wait(reader, writer):
        try:
            await reader.read(-1)
        except ConnectionResetError:
            reset.set()
        writer.close()

    async with tcp_backend(wait), forwarder(entry()) as proxy:
        _reader, writer = await asyncio.open_connection("127.0.0.1", 8080)
        writer.write(b"x")
        await until(lambda: proxy._relays)
        writer.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("=ii", 1, 0)
        )
        writer.transport.abort()
        await reset.wait()
        await until(lambda: not proxy._relays)


@in_loop
async def test_clients_that_reset_at_once_leave_no_traceback():
    """A port scan: connect, reset. The socket may be gone before the relay has begun."""
    reported: list[dict] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))

    async def answer(reader, writer):
        with contextlib.suppress(OSError):
            await reader.read(-1)
        writer.close()

    async with tcp_backend(answer), forwarder(entry()) as proxy:
        for turns in range(100):
            with socket.create_connection((LOCAL[4], 8080), SECONDS) as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("=ii", 1, 0))
                for _ in range(turns % 10):
                    await asyncio.sleep(0)
            await asyncio.sleep(0)
        await until(lambda: not proxy._relays)
        gc.collect()
        await asyncio.sleep(0)
    assert reported == []


@in_loop
async def test_a_dead_backend_resets_the_client():
    async with forwarder(entry()):
        reader, writer = await asyncio.open_connection("127.0.0.1", 8080)
        with pytest.raises(ConnectionResetError):
            await reader.read(-1)
        writer.transport.abort()


@in_loop
async def test_beyond_the_bound_newcomers_wait(monkeypatch):
    monkeypatch.setattr(base, "MAX_CONNECTIONS", 2)
    served = 0

    async def hold(reader, writer):
        nonlocal served
        served += 1
        await reader.read(-1)
        writer.close()

    async with tcp_backend(hold), forwarder(entry()) as proxy:
        writers = [(await asyncio.open_connection("127.0.0.1", 8080))[1] for _ in range(3)]
        await until(lambda: served == 2)
        await asyncio.sleep(0.1)
        assert (served, len(proxy._relays)) == (2, 2)
        writers[0].close()
        await until(lambda: served == 3)
        for writer in writers:
            writer.transport.abort()
        await until(lambda: not proxy._relays)


@in_loop
async def test_a_port_changes_its_backend_and_connections_stay():
    async def name(reader, writer):
        while data := await reader.read(100):
            writer.write(data + str(writer.get_extra_info("sockname")[1]).encode())
        writer.close()

    async with tcp_backend(name), tcp_backend(name, port=81), forwarder(entry()) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", 8080)
        writer.write(b"a")
        assert await reader.read(100) == b"a80"
        proxy.apply([entry(to=81)], [entry()])
        assert proxy.entries() == {entry(to=81)}
        writer.write(b"b")
        assert await reader.read(100) == b"b80"
        writer.close()
        assert await ask(8080, b"c") == b"c81"


@in_loop
async def test_apply_is_idempotent_and_remove_closes_the_port():
    async with forwarder() as proxy:
        for _ in range(2):
            proxy.apply([entry(last=8089), entry(6, "udp"), entry(4, "sctp")])
            assert proxy.entries() == {entry(last=8089), entry(6, "udp")}
        for _ in range(2):
            proxy.apply([], [entry(last=8089), entry(6, "udp")])
            assert proxy.entries() == set()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", 8085)


@in_loop
async def test_a_port_that_is_taken_changes_nothing():
    async with forwarder(entry(port=9000)) as proxy:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 8085))
            taken.listen()
            with pytest.raises(OSError, match="in use"):
                proxy.apply([entry(last=8089)], [entry(port=9000)])
        assert proxy.entries() == {entry(port=9000)}
        assert len(proxy._listeners) == 1
        proxy.apply([entry(last=8089)])


@in_loop
async def test_overlaps_and_too_many_ports_change_nothing(monkeypatch):
    monkeypatch.setattr(loopback_forwarder, "MAX_LISTENERS", 10)
    async with forwarder(entry(last=8089)) as proxy:
        with pytest.raises(ValueError, match="11 ports"):
            proxy.apply([entry(port=9000)])
        with pytest.raises(ValueError, match="overlaps another entry at port 8085"):
            proxy.apply([entry(port=8085, last=8088), entry(port=8080, last=8085)], [entry(last=8089)])
        assert proxy.entries() == {entry(last=8089)}


@both_families
@in_loop
async def test_datagrams_find_back_to_their_clients(family):
    async with udp_backend(family=family) as echo, forwarder(entry(family, "udp")):
        with udp_client(family) as one, udp_client(family) as two:
            for text in (b"1", b"2"):
                for sock in (one, two):
                    data, peer = await ask_udp(sock, text, (LOCAL[family], 8080))
                    assert data == text
                    assert peer[:2] == (LOCAL[family], 8080)
        assert len(echo.clients) == 2, "one flow a client"


@in_loop
async def test_a_flow_follows_its_port_to_another_backend():
    async with udp_backend(b"-80"), udp_backend(b"-81", port=81), forwarder(entry(4, "udp")) as proxy:
        with udp_client() as sock:
            assert (await ask_udp(sock, b"a", ("127.0.0.1", 8080)))[0] == b"a-80"
            proxy.apply([entry(4, "udp", to=81)], [entry(4, "udp")])
            assert (await ask_udp(sock, b"b", ("127.0.0.1", 8080)))[0] == b"b-81"
        assert len(proxy._flows) == 1


@in_loop
async def test_the_least_recently_used_flow_makes_room(monkeypatch):
    monkeypatch.setattr(base, "MAX_FLOWS", 2)
    async with udp_backend() as echo, forwarder(entry(4, "udp")) as proxy:
        with udp_client() as one, udp_client() as two, udp_client() as three:
            for sock in (one, two, one, three, one):
                await ask_udp(sock, b"?", ("127.0.0.1", 8080))
                assert len(proxy._flows) <= 2
        assert len(echo.clients) == 3, "one stayed, since two was older"


@in_loop
async def test_idle_flows_end(monkeypatch):
    monkeypatch.setattr(base, "FLOW_IDLE_SECONDS", 0.05)
    monkeypatch.setattr(base, "SWEEP_SECONDS", 0.02)
    async with udp_backend(), forwarder(entry(4, "udp")) as proxy:
        with udp_client() as sock:
            await ask_udp(sock, b"?", ("127.0.0.1", 8080))
        assert len(proxy._flows) == 1
        await until(lambda: not len(proxy._flows))
        assert proxy._flows._sweeper is None


@in_loop
async def test_a_dead_udp_backend_ends_the_flow():
    async with forwarder(entry(4, "udp")) as proxy:
        flows, ended = proxy._flows, asyncio.Event()
        drop = flows._drop
        flows._drop = lambda key: (drop(key), ended.set())
        with udp_client() as sock:
            await asyncio.get_running_loop().sock_sendto(sock, b"?", ("127.0.0.1", 8080))
            await ended.wait()
        assert len(flows) == 0


# --- ports that an engine reserves ------------------------------------------------------------------------------------

MONITOR = """
import ctypes, socket, subprocess, sys
netns, address, *numbers = sys.argv[1:]
ctypes.CDLL(None).prctl(15, b"conmon")
family = socket.AF_INET6 if ":" in address else socket.AF_INET
held = []
for number in map(int, numbers):
    held.append(socket.create_server((address, number), family=family))
    held.append(socket.socket(family, socket.SOCK_DGRAM))
    held[-1].bind((address, number))
inside = subprocess.Popen(["nsenter", f"--net={netns}", "sh", "-c", "echo ready; exec sleep 600"])
sys.stdin.read()
inside.kill()
"""
"""As podman's: it listens on a container's ports, accepts nothing, and is the parent of what runs inside."""


class Monitored:
    def __init__(self) -> None:
        self.ns = Netns("container")
        self._running: list[subprocess.Popen[bytes]] = []

    def reserve(self, address: str, *numbers: int) -> subprocess.Popen[bytes]:
        monitor = subprocess.Popen(
            [sys.executable, "-c", MONITOR, self.ns.path, address, *map(str, numbers)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._running.append(monitor)
        assert monitor.stdout is not None
        assert monitor.stdout.readline() == b"ready\n"
        return monitor

    def netns_of(self, port) -> int:
        return self.ns.inode

    def close(self) -> None:
        for monitor in self._running:
            monitor.communicate()
        self.ns.close()


@pytest.fixture
def monitored():
    with contextlib.closing(Monitored()) as monitored:
        yield monitored


@contextlib.asynccontextmanager
async def reserved(monitored: Monitored, *entries: LoopbackEntry):
    forwarder = LoopbackForwarder(asyncio.get_running_loop(), monitored.netns_of)
    try:
        forwarder.apply(entries)
        yield forwarder
    finally:
        forwarder.close()
        await until(lambda: not forwarder._relays)


def reservation(family: int, at: str, proto: str = "tcp", **fields) -> LoopbackEntry:
    return msgspec.structs.replace(entry(family, proto, **fields), reserved=packed(at))


@pytest.mark.parametrize(("family", "at"), [(4, "127.0.0.1"), (4, "0.0.0.0"), (6, "::1"), (6, "::")])
@in_loop
async def test_a_reserved_port_is_bound_by_its_monitor_and_served_here(monitored, family, at):
    """The monitor comes later: it gets its ports."""
    publishes = [reservation(family, at, last=8081, to=80), reservation(family, at, "udp", to=80)]
    async with (
        tcp_backend(echo_until_end, family=family),
        udp_backend(b"!", family=family),
        reserved(monitored, *publishes) as proxy,
    ):
        assert proxy.entries() == set(publishes)
        assert not proxy._listeners
        monitored.reserve(at, 8080, 8081)
        await until(lambda: len(proxy._listeners) == 3)
        assert await ask(8080, b"abc", family) == b"cba"
        with udp_client(family) as client:
            assert (await ask_udp(client, b"abc", (LOCAL[family], 8080)))[0] == b"abc!"


@in_loop
async def test_what_is_reserved_on_ipv4_alone_is_served_on_ipv6_too(monitored):
    """`-p 8080:80`: podman binds 0.0.0.0, and the container is published on every address."""
    publishes = [reservation(4, "0.0.0.0"), reservation(6, "::")]
    async with tcp_backend(echo_until_end, family=6), reserved(monitored, *publishes) as proxy:
        monitor = monitored.reserve("0.0.0.0", 8080)
        await until(lambda: len(proxy._listeners) == 2)
        assert await ask(8080, b"abc", 6) == b"cba"
        monitor.communicate()
        await until(lambda: not proxy._listeners)
        with socket.create_server(("::", 8080), family=socket.AF_INET6, dualstack_ipv6=True):
            """The next to reserve it may do so on both."""


@in_loop
async def test_a_socket_on_every_address_is_served_on_the_loopback_alone(monitored):
    """Elsewhere rules decide who reaches the port, and here there are none."""
    publishes = [reservation(4, "0.0.0.0"), reservation(4, "0.0.0.0", "udp")]
    async with (
        tcp_backend(echo_until_end),
        udp_backend(b"!") as backend,
        reserved(monitored, *publishes) as proxy,
    ):
        monitored.reserve("0.0.0.0", 8080)
        await until(lambda: len(proxy._listeners) == 2)
        with pytest.raises(ConnectionResetError):
            await ask(8080, b"abc", host=BACKEND[4])
        with udp_client() as outside, udp_client() as client:
            outside.sendto(b"no", (BACKEND[4], 8080))
            assert (await ask_udp(client, b"abc", ("127.0.0.1", 8080)))[0] == b"abc!"
        assert len(backend.clients) == 1


@in_loop
async def test_the_end_of_the_monitor_frees_the_port_and_the_next_one_is_found(monitored):
    async with tcp_backend(echo_until_end), reserved(monitored, reservation(4, "127.0.0.1")) as proxy:
        for _ in range(2):
            monitor = monitored.reserve("127.0.0.1", 8080)
            await until(lambda: proxy._listeners)
            assert await ask(8080, b"abc") == b"cba"
            monitor.communicate()
            await until(lambda: not proxy._listeners)
        socket.create_server(("127.0.0.1", 8080)).close()
        assert proxy.entries() == {reservation(4, "127.0.0.1")}


@in_loop
async def test_a_port_that_is_taken_back_is_the_monitors_alone(monitored):
    async with reserved(monitored, reservation(4, "127.0.0.1")) as proxy:
        monitored.reserve("127.0.0.1", 8080)
        await until(lambda: proxy._listeners)
        proxy.apply([], [reservation(4, "127.0.0.1")])
        assert (proxy._listeners, proxy._monitors, proxy._waiting) == ({}, {}, set())
        with pytest.raises(OSError, match="in use"):
            socket.create_server(("127.0.0.1", 8080))


@in_loop
async def test_clients_of_another_program_stay_its_own(monitored, monkeypatch):
    """What listens there is no monitor of the container: nothing is taken from it."""
    monkeypatch.setattr(loopback_forwarder, "SEARCH_SECONDS", (0.01, 0.01))
    looks = []
    real = loopback_forwarder.share
    monkeypatch.setattr(loopback_forwarder, "share", lambda desired: looks.append(1) or real(desired))
    with socket.create_server(("127.0.0.1", 8080)):
        async with reserved(monitored, reservation(4, "127.0.0.1")) as proxy:
            monitored.reserve("127.0.0.1", 8079)
            await until(lambda: len(looks) > 5)
            assert not proxy._listeners
