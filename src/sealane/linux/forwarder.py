"""Listening sockets whose connections and datagrams are carried to another address: what the kernel cannot translate.

A userland proxy with its costs: every byte passes through this process, the backend sees the address of the host and not
more, and what is served ends with the daemon.

Design: one asyncio loop, no threads. A TCP connection is two pumps; a pump reads no further while its writer is above the
high-water mark (back-pressure), hands on the end of its direction alone (half-close), and a reset of one side resets
the other. A UDP flow is a socket per client, so that answers find back; flows end when idle.

Bounds: at `MAX_CONNECTIONS` nothing more is accepted until one ends, and newcomers wait in the kernel's backlog; at
`MAX_FLOWS` the least recently used flow makes room. How many ports are listened at the caller says.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import struct
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

import msgspec

from sealane.linux.bpf.entry import Family, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

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

LOOPBACK: Final[dict[Family, str]] = {4: "127.0.0.1", 6: "::1"}

_IP_PKTINFO: Final = 8
"""``bits/in.h``; the socket module of Python 3.11 has no name for it."""
_PACKET_INFO: Final = {
    socket.AF_INET: (socket.IPPROTO_IP, _IP_PKTINFO),
    socket.AF_INET6: (socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO),
}
_PACKET_INFO_BYTES: Final = 64
_RESET_ON_CLOSE: Final = struct.pack("=ii", 1, 0)

_FAMILY_BY_LENGTH: Final = {4: socket.AF_INET, 16: socket.AF_INET6}


class Port(msgspec.Struct, frozen=True):
    """What one socket listens on."""

    family: Family
    proto: Protocol
    number: int


class Target(msgspec.Struct, frozen=True):
    address: bytes
    port: int

    def connect_to(self) -> tuple[socket.AddressFamily, tuple[str, int]]:
        family = _FAMILY_BY_LENGTH[len(self.address)]
        return family, (socket.inet_ntop(family, self.address), self.port)


class Forwarder:
    """Listens on one address a family, and relays. To be used in one thread, the loop's."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        hosts: Mapping[Family, str] = LOOPBACK,
        admits: Callable[[str, str], bool] = lambda _client, _own: True,
    ) -> None:
        """`hosts`: where to listen. `admits`: whether a client is served, by its address and the one that it asks (empty: not
        known); it is asked for each TCP connection and each datagram."""
        self._loop = loop
        self._hosts = hosts
        self._admits = admits
        self._targets: dict[Port, Target] = {}
        self._listeners: dict[Port, socket.socket] = {}
        self._relays: set[asyncio.Task[None]] = set()
        self._flows = _Flows(loop)
        self._accepting = True

    def serve(
        self, targets: Mapping[Port, Target], *, partly: bool = False, apart: Collection[Port] = ()
    ) -> dict[Port, OSError]:
        """Listen for these ports and no others; a port that stays changes its backend without a gap. Idempotent.

        All or nothing: raises OSError (EADDRINUSE) if a port is taken. `partly`: the others are served, and what failed is
        told. `apart`: for these sockets come by `_begin`. Connections that exist stay as they are.
        """
        opened: dict[Port, socket.socket] = {}
        failed: dict[Port, OSError] = {}
        with contextlib.ExitStack() as undo:
            for port in targets.keys() - self._listeners.keys() - set(apart):
                try:
                    opened[port] = undo.enter_context(listen(port, self._hosts[port.family]))
                except OSError as error:
                    if not partly:
                        raise
                    failed[port] = error
            undo.pop_all()
        self._targets = {port: target for port, target in targets.items() if port not in failed}
        for port in self._listeners.keys() - targets.keys():
            self._stop(port)
        for port, listener in opened.items():
            self._begin(port, listener)
        return failed

    def close(self) -> None:
        """Stop listening and cut every connection and flow."""
        self.serve({})
        self._flows.close()
        for relay in self._relays:
            relay.cancel()

    def _begin(self, port: Port, listener: socket.socket) -> None:
        self._listeners[port] = listener
        self._watch(port)

    def _stop(self, port: Port) -> None:
        listener = self._listeners.pop(port)
        self._loop.remove_reader(listener)
        self._flows.drop_all(listener)
        listener.close()

    def _watch(self, port: Port) -> None:
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

    def _accept(self, port: Port) -> None:
        try:
            client, address = self._listeners[port].accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError:
            # Out of descriptors or memory: the listener stays readable, so look away for a while.
            self._pause()
            self._loop.call_later(ACCEPT_PAUSE_SECONDS, self._resume)
            return
        if not self._admits(address[0], client.getsockname()[0]):
            _reset(client)
            return
        client.setblocking(False)
        relay = self._loop.create_task(_relay(client, self._targets[port]))
        self._relays.add(relay)
        relay.add_done_callback(self._relay_ended)
        if len(self._relays) >= MAX_CONNECTIONS:
            self._pause()

    def _relay_ended(self, relay: asyncio.Task[None]) -> None:
        self._relays.discard(relay)
        self._resume()

    def _receive(self, port: Port) -> None:
        listener = self._listeners[port]
        for _ in range(DATAGRAMS_PER_TURN):
            try:
                data, control, _flags, client = listener.recvmsg(DATAGRAM_BYTES, _PACKET_INFO_BYTES)
            except OSError:
                return
            request = _own_address(control)
            own = socket.inet_ntop(_FAMILY_BY_LENGTH[len(request)], request) if request else ""
            if self._admits(client[0], own):
                self._flows.send((listener, client[:2], request), self._targets[port], data)


def listen(port: Port, host: str) -> socket.socket:
    family = socket.AF_INET6 if port.family == 6 else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM if port.proto == "tcp" else socket.SOCK_DGRAM)
    try:
        listener.setblocking(False)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if port.proto == "tcp":
            # For TCP this reaches over TIME_WAIT only; two UDP sockets would share the port.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if port.proto == "udp":
            # An answer comes from the address that was asked, of whichever the host has.
            listener.setsockopt(*_PACKET_INFO[family], 1)
        listener.bind((host, port.number))
        if port.proto == "tcp":
            listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _own_address(control: list[tuple[int, int, bytes]]) -> bytes:
    """The address that a datagram was sent to, packed; empty if it is not told."""
    for level, _kind, info in control:
        # struct in6_pktinfo: address, link; in_pktinfo: link, the address to answer from, the destination.
        return info[:16] if level == socket.IPPROTO_IPV6 else info[4:8]
    return b""


def _answer_from(address: bytes) -> list[tuple[int, int, bytes]]:
    """Control messages by which a datagram is sent from an address; the link is left to routing."""
    if len(address) == 16:
        return [(socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, address + bytes(4))]
    return [(socket.IPPROTO_IP, _IP_PKTINFO, bytes(4) + address + bytes(4))] if address else []


def _reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    client.close()


async def _relay(client: socket.socket, target: Target) -> None:
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


async def _connect(target: Target) -> socket.socket:
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

    def __init__(self, target: Target, now: float) -> None:
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


_FlowKey = tuple[socket.socket, tuple[str, int], bytes]
"""The listener, its client, and the address that it asked, packed."""


class _Flows:
    """All UDP flows, the least recently used first."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._flows: OrderedDict[_FlowKey, _Flow] = OrderedDict()
        self._sweeper: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._flows)

    def send(self, key: _FlowKey, target: Target, data: bytes) -> None:
        """Pass one datagram on. It is lost if the backend cannot be reached or its queue is full, as on any path."""
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

    def _open(self, key: _FlowKey, target: Target) -> _Flow:
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
        listener, client, request = key
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
                listener.sendmsg([data], _answer_from(request), 0, client)
