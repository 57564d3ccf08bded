"""Published ports on 127.0.0.1 and ::1 where the kernel cannot redirect (`bpf.loopback.probe` says why).

A userland proxy with its costs, which `status` names: every byte passes through this process, the backend sees the
address of the host and not more, and publishes end with the daemon. It listens on 127.0.0.1 and ::1 alone; the other
addresses of the host, and the rest of 127.0.0.0/8, are not its business.

Design: one asyncio loop, no threads. A TCP connection is two pumps; a pump reads no further while its writer is above the
high-water mark (back-pressure), hands on the end of its direction alone (half-close), and a reset of one side resets
the other. A UDP flow is a socket per client, so that answers find back; flows end when idle.

A port that an engine reserves (podman's conmon listens on it, and accepts nothing) is never bound here: podman would not
get it, or has it already. Its socket is shared with the monitor instead (`reserved_sockets`), which binds it only once
the container starts: it is looked for until it is there, and anew once the monitor has ended.

Bounds: at `MAX_CONNECTIONS` nothing more is accepted until one ends, and newcomers wait in the kernel's backlog; at
`MAX_FLOWS` the least recently used flow makes room; more than `MAX_LISTENERS` ports are refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import socket
import struct
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

import msgspec

from sealane.linux.bpf.entry import Family, LoopbackEntry, Protocol
from sealane.linux.reserved_sockets import Shared, Wanted, share
from sealane.model.endpoint import PublishedPort
from sealane.model.net import Address, is_loopback, is_wildcard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

MAX_LISTENERS: Final = 4096
MAX_CONNECTIONS: Final = 1024
MAX_FLOWS: Final = 1024
BACKLOG: Final = 128
CHUNK_BYTES: Final = 64 * 1024
DATAGRAM_BYTES: Final = 65_535
DATAGRAMS_PER_TURN: Final = 32
"""How many datagrams one socket may bring before the others have their turn."""
CONNECT_SECONDS: Final = 10.0
ACCEPT_PAUSE_SECONDS: Final = 1.0
FLOW_IDLE_SECONDS: Final = 60.0
SWEEP_SECONDS: Final = 10.0

SEARCH_SECONDS: Final = (0.1, 10.0)
"""Between looks for what reserves a port: at first, and at last; each time twice as long."""

_LISTEN_HOST: Final[dict[Family, str]] = {4: "127.0.0.1", 6: "::1"}
_RESET_ON_CLOSE: Final = struct.pack("=ii", 1, 0)

_FAMILY_BY_LENGTH: Final = {4: socket.AF_INET, 16: socket.AF_INET6}


class _Port(msgspec.Struct, frozen=True):
    """What one socket listens on."""

    family: Family
    proto: Protocol
    number: int


class _Target(msgspec.Struct, frozen=True):
    address: bytes
    port: int
    reserved: Address = Address("")

    def connect_to(self) -> tuple[socket.AddressFamily, tuple[str, int]]:
        family = _FAMILY_BY_LENGTH[len(self.address)]
        return family, (socket.inet_ntop(family, self.address), self.port)


class LoopbackForwarder:
    """The interface of `bpf.loopback.LoopbackPublisher`, to be used in one thread, the loop's."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, netns_of: Callable[[PublishedPort], int] = lambda _: 0
    ) -> None:
        """`netns_of`: inode of the network namespace of who publishes a port; 0: not known."""
        self._loop = loop
        self._netns_of = netns_of
        self._monitors: dict[_Port, int] = {}
        """Of ports whose sockets are shared: a pidfd of whom with."""
        self._waiting: set[_Port] = set()
        """Reserved ones without a socket yet."""
        self._search: asyncio.TimerHandle | None = None
        self._pause_s = 0.0
        self._entries: frozenset[LoopbackEntry] = frozenset()
        self._targets: dict[_Port, _Target] = {}
        self._listeners: dict[_Port, socket.socket] = {}
        self._relays: set[asyncio.Task[None]] = set()
        self._flows = _Flows(loop)
        self._accepting = True

    def entries(self) -> frozenset[LoopbackEntry]:
        return self._entries

    def mend(self) -> bool:
        """Nothing of it is anybody's to take."""
        return False

    def apply(self, add: Iterable[LoopbackEntry], remove: Iterable[LoopbackEntry] = ()) -> None:
        """Listen for `add` and no longer for `remove`; a port in both changes its backend without a gap.

        All or nothing. Idempotent; SCTP is ignored. ValueError if entries overlap or are too many, OSError (EADDRINUSE) if
        a port is taken. Connections that exist stay as they are.
        """
        entries = (self._entries - frozenset(remove)) | {entry for entry in add if entry.proto != "sctp"}
        targets = _targets(entries)
        opened: dict[_Port, socket.socket] = {}
        with contextlib.ExitStack() as undo:
            for port in (
                port for port in targets.keys() - self._listeners.keys() if not targets[port].reserved
            ):
                opened[port] = undo.enter_context(_listen(port))
            undo.pop_all()
        self._entries, self._targets = entries, targets
        for port in self._listeners.keys() - targets.keys():
            self._stop(port)
        for port, listener in opened.items():
            self._listeners[port] = listener
            self._watch(port)
        waiting = targets.keys() - self._listeners.keys()
        is_new = not waiting <= self._waiting
        self._waiting = waiting
        if is_new:
            self._search_soon()

    def close(self) -> None:
        """Stop listening and cut every connection and flow."""
        self.apply([], self._entries)
        if self._search is not None:
            self._search.cancel()
        self._flows.close()
        for relay in self._relays:
            relay.cancel()

    def _stop(self, port: _Port) -> None:
        listener = self._listeners.pop(port)
        self._loop.remove_reader(listener)
        self._flows.drop_all(listener)
        listener.close()
        monitor = self._monitors.pop(port, None)
        if monitor is not None:
            self._loop.remove_reader(monitor)
            os.close(monitor)

    # --- ports that an engine reserves

    def _search_soon(self) -> None:
        self._pause_s = SEARCH_SECONDS[0]
        self._search_later()

    def _search_later(self) -> None:
        if self._search is not None:
            self._search.cancel()
        self._search = self._loop.call_later(self._pause_s, self._look)
        self._pause_s = min(2 * self._pause_s, SEARCH_SECONDS[1])

    def _look(self) -> None:
        wanted = {port: self._wanted(port) for port in self._waiting}
        with contextlib.suppress(OSError):
            found = share(wanted.values())
            for port, item in wanted.items():
                if item in found:
                    self._share(port, found[item])
            for port in wanted:
                if port in self._waiting and self._is_left(port):
                    self._listen(port)
        if self._waiting:
            self._search_later()

    def _wanted(self, port: _Port) -> Wanted:
        at = self._targets[port].reserved
        publish = PublishedPort(
            proto=port.proto, host_address=at, host_first=port.number, host_last=port.number, port=port.number
        )
        return Wanted(port.proto, port.number, at, self._netns_of(publish))

    def _share(self, port: _Port, shared: Shared) -> None:
        self._monitors[port] = shared.monitor
        self._loop.add_reader(shared.monitor, self._lose, port)
        self._begin(port, shared.socket)

    def _is_left(self, port: _Port) -> bool:
        """Podman reserves a port of every address on IPv4 alone, all ports of a container at once: what it has not by
        then it never will."""
        ipv4 = _Port(4, port.proto, port.number)
        return port.family == 6 and is_wildcard(self._targets[port].reserved) and ipv4 in self._monitors

    def _listen(self, port: _Port) -> None:
        with contextlib.suppress(OSError):  # Somebody else's: looked at again.
            self._begin(port, _listen(port))

    def _begin(self, port: _Port, listener: socket.socket) -> None:
        self._waiting.discard(port)
        self._listeners[port] = listener
        self._watch(port)

    def _lose(self, port: _Port) -> None:
        """Its monitor has ended: nobody reserves the port any more, so neither do we, nor what was left of it."""
        left = _Port(6, port.proto, port.number)
        was_left = port.family == 4 and left in self._listeners and self._is_left(left)
        for lost in (port, left) if was_left else (port,):
            self._stop(lost)
            self._waiting.add(lost)
        self._search_soon()

    # --- connections and datagrams

    def _watch(self, port: _Port) -> None:
        listener = self._listeners[port]
        if port.proto == "udp":
            self._loop.add_reader(listener, self._receive, port)
        elif self._accepting:
            self._loop.add_reader(listener, self._accept, port)

    def _pause(self) -> None:
        self._accepting = False
        for port, listener in self._listeners.items():
            if port.proto == "tcp":
                self._loop.remove_reader(listener)

    def _resume(self) -> None:
        if self._accepting or len(self._relays) >= MAX_CONNECTIONS:
            return
        self._accepting = True
        for port in self._listeners:
            self._watch(port)

    def _accept(self, port: _Port) -> None:
        try:
            client, _address = self._listeners[port].accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError:
            # Out of descriptors or memory: the listener stays readable, so look away for a while.
            self._pause()
            self._loop.call_later(ACCEPT_PAUSE_SECONDS, self._resume)
            return
        client.setblocking(False)
        if not is_loopback(client.getsockname()[0]):
            # A reserving socket listens on every address; what comes there past our rules is not for us.
            _reset(client)
            return
        relay = self._loop.create_task(_relay(client, self._targets[port]))
        self._relays.add(relay)
        relay.add_done_callback(self._relay_ended)
        if len(self._relays) >= MAX_CONNECTIONS:
            self._pause()

    def _relay_ended(self, relay: asyncio.Task[None]) -> None:
        self._relays.discard(relay)
        self._resume()

    def _receive(self, port: _Port) -> None:
        listener = self._listeners[port]
        for _ in range(DATAGRAMS_PER_TURN):
            try:
                data, client = listener.recvfrom(DATAGRAM_BYTES)
            except OSError:
                return
            # Of a socket on every address: who asks the loopback does so from there, and nobody else can.
            if not is_wildcard(listener.getsockname()[0]) or is_loopback(client[0]):
                self._flows.send(listener, client[:2], self._targets[port], data)


def _targets(entries: frozenset[LoopbackEntry]) -> dict[_Port, _Target]:
    count = sum(entry.last - entry.first + 1 for entry in entries)
    if count > MAX_LISTENERS:
        raise ValueError(f"first, last: {count} ports, and the forwarder listens on {MAX_LISTENERS} at most")
    targets: dict[_Port, _Target] = {}
    for entry in entries:
        for number in range(entry.first, entry.last + 1):
            port = _Port(entry.family, entry.proto, number)
            if port in targets:
                raise ValueError(f"first, last: {entry} overlaps another entry at port {number}")
            targets[port] = _Target(
                entry.address, entry.port + number - entry.first, Address(entry.reserved_at)
            )
    return targets


def _listen(port: _Port) -> socket.socket:
    family = socket.AF_INET6 if port.family == 6 else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM if port.proto == "tcp" else socket.SOCK_DGRAM)
    try:
        listener.setblocking(False)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if port.proto == "tcp":
            # For TCP this reaches over TIME_WAIT only; two UDP sockets would share the port.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((_LISTEN_HOST[port.family], port.number))
        if port.proto == "tcp":
            listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


async def _relay(client: socket.socket, target: _Target) -> None:
    """Carry one connection to its end. The client is reset if the backend does not take it."""
    try:
        backend = await _connect(target)
    except OSError:
        _reset(client)
        return
    except asyncio.CancelledError:
        client.close()
        raise
    from_client, to_client = await asyncio.open_connection(sock=client, limit=CHUNK_BYTES)
    from_backend, to_backend = await asyncio.open_connection(sock=backend, limit=CHUNK_BYTES)
    try:
        await _pump_both((from_client, to_backend), (from_backend, to_client))
    finally:
        # After a pump that ended well this is without effect.
        to_client.transport.abort()
        to_backend.transport.abort()


def _reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    client.close()


async def _connect(target: _Target) -> socket.socket:
    family, address = target.connect_to()
    backend = socket.socket(family, socket.SOCK_STREAM)
    try:
        backend.setblocking(False)
        async with asyncio.timeout(CONNECT_SECONDS):
            await asyncio.get_running_loop().sock_connect(backend, address)
    except BaseException:
        backend.close()
        raise
    return backend


_Direction = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _pump_both(*directions: _Direction) -> None:
    writers = [writer for _reader, writer in directions]
    try:
        for writer in writers:
            # A peer that vanished holds its slot until the kernel's probes say so. (Of one that has reset already the
            # transport has closed the socket: EBADF.)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        async with asyncio.TaskGroup() as group:
            for reader, writer in directions:
                group.create_task(_pump(reader, writer))
        for writer in writers:
            # Sends what is still buffered; `abort` would drop it.
            writer.close()
            await writer.wait_closed()
    except* OSError:
        for writer in writers:
            with contextlib.suppress(OSError):
                writer.get_extra_info("socket").setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE
                )


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(CHUNK_BYTES):
        writer.write(data)
        await writer.drain()
    writer.write_eof()


class _Flow:
    """The backend's side of one client's datagrams."""

    __slots__ = ("socket", "target", "used")

    def __init__(self, target: _Target, now: float) -> None:
        family, address = target.connect_to()
        self.target = target
        self.used = now
        self.socket = socket.socket(family, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        try:
            self.socket.connect(address)
        except OSError:
            self.socket.close()
            raise


_FlowKey = tuple[socket.socket, tuple[str, int]]
"""The listener and its client."""


class _Flows:
    """All UDP flows, the least recently used first."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._flows: OrderedDict[_FlowKey, _Flow] = OrderedDict()
        self._sweeper: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._flows)

    def send(self, listener: socket.socket, client: tuple[str, int], target: _Target, data: bytes) -> None:
        """Pass one datagram on. It is lost if the backend cannot be reached or its queue is full, as on any path."""
        key = (listener, client)
        flow = self._flows.get(key)
        if flow is not None and flow.target != target:
            self._drop(key)
            flow = None
        with contextlib.suppress(OSError):
            if flow is None:
                flow = self._open(key, target)
            self._touch(key, flow)
            flow.socket.send(data)

    def drop_all(self, listener: socket.socket) -> None:
        for key in [key for key in self._flows if key[0] is listener]:
            self._drop(key)

    def close(self) -> None:
        for key in list(self._flows):
            self._drop(key)
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None

    def sweep(self) -> None:
        """End the flows that have been idle for `FLOW_IDLE_SECONDS`."""
        oldest = self._loop.time() - FLOW_IDLE_SECONDS
        for key in list(itertools.takewhile(lambda key: self._flows[key].used <= oldest, self._flows)):
            self._drop(key)
        self._sweeper = self._loop.call_later(SWEEP_SECONDS, self.sweep) if self._flows else None

    def _open(self, key: _FlowKey, target: _Target) -> _Flow:
        if len(self._flows) >= MAX_FLOWS:
            self._drop(next(iter(self._flows)))
        flow = self._flows[key] = _Flow(target, self._loop.time())
        self._loop.add_reader(flow.socket, self._answer, key)
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(SWEEP_SECONDS, self.sweep)
        return flow

    def _touch(self, key: _FlowKey, flow: _Flow) -> None:
        flow.used = self._loop.time()
        self._flows.move_to_end(key)

    def _drop(self, key: _FlowKey) -> None:
        flow = self._flows.pop(key)
        self._loop.remove_reader(flow.socket)
        flow.socket.close()

    def _answer(self, key: _FlowKey) -> None:
        flow = self._flows[key]
        listener, client = key
        for _ in range(DATAGRAMS_PER_TURN):
            try:
                data = flow.socket.recv(DATAGRAM_BYTES)
            except BlockingIOError:
                return
            except OSError:
                # ECONNREFUSED: nobody listens at the backend. There is no way to tell the client.
                self._drop(key)
                return
            self._touch(key, flow)
            with contextlib.suppress(OSError):
                listener.sendto(data, client)
