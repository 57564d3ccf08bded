"""The kernel's own time for an attach: what the engine said to the kernel, said again.

How, and why it is honest: while the engine attaches an endpoint (once more, with nobody timing it), its sockets are
tapped and every datagram to the kernel is kept as it is. The endpoint is detached; then the same bytes go to the kernel
again, over sockets that are open already, and make the very same objects (`EngineHost.is_same_state` looks). Only that is
timed: `sendmsg` and one `recv` for its answer, sysctls, and the map updates of the socket program and the fast path. Left
out is all that is not an object made: questions (dumps, gets), checks, opening namespaces and sockets, the store. So the
floor has the same objects in the same number of system calls, and no Python to speak of: encoding is done, answers are
looked at afterwards.

What it does not hold: how few datagrams would do. A floor of one datagram a socket would be lower; here the price of the
engine's own order (a link's address only after the kernel has confirmed the link) is part of both sides.
"""

import os
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Any, Literal, Self

import msgspec

from bench.host import HostError
from sealane.linux import netns, sysctl
from sealane.linux.bpf import syscall
from sealane.linux.kernel import LinuxKernel
from sealane.linux.netlink.background import Background
from sealane.linux.netlink.socket import NETLINK_ROUTE, Socket

Where = Literal["route", "nft", "inside", "map", "sysctl", "sysctl inside"]

AF_NETLINK = 16
_HEADER = struct.Struct("=IHHII")
_RECEIVE_BYTES = 64 << 10
_NLM_F_DUMP = 0x300
_NLMSG_ERROR = 2

_NEW_KINDS = {16, 20, 24, 28, 32}
"""RTM_NEWLINK, _NEWADDR, _NEWROUTE, _NEWNEIGH, _NEWRULE."""

_DELETE_KINDS = {17, 21, 25, 29, 33}
_QUESTIONS = {18, 22, 26, 30, 34}
"""RTM_GET*."""

_NFNL_BATCH = {16, 17}
_SUBSYSTEM_NFTABLES = 10
_NFT_GETS = {1, 4, 7, 10, 13, 16}


class Call(msgspec.Struct, frozen=True):
    where: Where
    data: bytes
    """A datagram; of a map's element the key, of a sysctl the path."""
    value: bytes | None = None
    """Of a map's element, or a sysctl. None: the element is deleted."""
    fd: int = -1


class Tape:
    """Keeps what goes to the kernel while it runs."""

    def __init__(self, kernel: LinuxKernel) -> None:
        self.calls: list[Call] = []
        self.descriptor = -1
        """Under which the sandbox's namespace was open: datagrams name it."""
        self._kernel = kernel

    def __enter__(self) -> Self:
        self._plain = (
            netns.open_socket,
            netns.enter,
            netns.visit,
            syscall.map_update,
            syscall.map_delete,
            sysctl.write,
        )
        self._home = netns.own_inode()
        for where, tapped in (("route", self._kernel._route), ("nft", self._kernel._nft)):
            tapped._socket = _Tap(tapped._socket, where, self.calls)  # type: ignore[assignment, arg-type]
        route = self._kernel._route
        self._background = route._background
        if self._background is not None:
            route._background = _BackgroundTap(self._background, self.calls)  # type: ignore[assignment]
        netns.open_socket = self._open_socket
        netns.enter = self._enter
        netns.visit = self._visit
        syscall.map_update = self._map_update
        syscall.map_delete = self._map_delete
        sysctl.write = self._write_sysctl
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        (
            netns.open_socket,
            netns.enter,
            netns.visit,
            syscall.map_update,
            syscall.map_delete,
            sysctl.write,
        ) = self._plain
        for tapped in (self._kernel._route, self._kernel._nft):
            tapped._socket = tapped._socket.plain  # type: ignore[attr-defined]
        self._kernel._route._background = self._background
        self.calls = [call for call in self.calls if not _is_question(call)]

    def _open_socket(self, descriptor: int | None, family: int) -> Socket:
        opened = self._plain[0](descriptor, family)
        opened._socket = _Tap(opened._socket, "inside", self.calls)  # type: ignore[assignment]
        return opened

    def _enter(self, ref: Any) -> tuple[int, Socket]:
        self.descriptor, opened = self._plain[1](ref)
        return self.descriptor, opened

    def _visit(self, where: str) -> tuple[Any, int, Socket]:
        ref, self.descriptor, opened = self._plain[2](where)
        opened._socket = _Tap(opened._socket, "inside", self.calls)  # type: ignore[assignment]
        return ref, self.descriptor, opened

    def _map_update(self, fd: int, key: bytes, value: bytes) -> None:
        self.calls.append(Call("map", key, value, fd))
        self._plain[3](fd, key, value)

    def _map_delete(self, fd: int, key: bytes) -> bool:
        self.calls.append(Call("map", key, None, fd))
        return self._plain[4](fd, key)

    def _write_sysctl(self, path: str, value: str) -> None:
        where: Where = "sysctl" if netns.own_inode() == self._home else "sysctl inside"
        self.calls.append(Call(where, path.encode(), value.encode()))
        self._plain[5](path, value)


class _Tap:
    """A socket that keeps what it sends."""

    def __init__(self, plain: socket.socket, where: Where, calls: list[Call]) -> None:
        self.plain, self._where, self._calls = plain, where, calls
        self.recv, self.setsockopt, self.getsockopt = plain.recv, plain.setsockopt, plain.getsockopt
        self.close, self.fileno, self.getsockname = plain.close, plain.fileno, plain.getsockname
        self._send = plain.send

    def send(self, data: bytes | bytearray) -> int:
        self._calls.append(Call(self._where, bytes(data)))
        return self._send(data)


class _BackgroundTap:
    """Keeps what is sent while Python goes on."""

    def __init__(self, plain: Background, calls: list[Call]) -> None:
        self.wait, self._send, self._calls = plain.wait, plain.send, calls

    def send(self, datagram: bytes | bytearray) -> None:
        self._calls.append(Call("route", bytes(datagram)))
        self._send(datagram)


class Replay:
    """A tape made ready: sockets open, the namespace under the descriptor that the bytes name."""

    def __init__(self, tape: Tape, path: str) -> None:
        self._calls = tape.calls
        self._path = path
        self._namespace = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._borrowed = -1
        if tape.descriptor >= 0 and tape.descriptor != self._namespace:
            if _is_open(tape.descriptor):
                raise HostError(f"descriptor {tape.descriptor} is in use: the bytes cannot be sent again")
            self._borrowed = os.dup2(self._namespace, tape.descriptor, inheritable=False)
        self._inside = netns.open_socket(self._namespace, NETLINK_ROUTE)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._inside.close()
        os.close(self._namespace)
        if self._borrowed >= 0:
            os.close(self._borrowed)

    def run(self, kernel: LinuxKernel) -> float:
        """Seconds. Raises HostError if the kernel refused anything."""
        sockets = {"route": kernel._route._socket, "nft": kernel._nft._socket, "inside": self._inside._socket}
        answers: list[bytes] = []
        steps = [self._step(call, sockets.get(call.where), answers) for call in self._calls]
        started = time.perf_counter()
        for step in steps:
            step()
        took = time.perf_counter() - started
        for answer in answers:
            _check(answer)
        return took

    def _step(self, call: Call, sock: socket.socket | None, answers: list[bytes]) -> Callable[[], object]:
        """A call with everything bound that it needs."""
        if sock is not None:
            return partial(_exchange, sock.send, sock.recv, call.data, answers)
        if call.where == "map" and call.value is None:
            return partial(syscall.map_delete, call.fd, call.data)
        assert call.value is not None
        if call.where == "map":
            return partial(syscall.map_update, call.fd, call.data, call.value)
        where = f"/proc/sys/{call.data.decode()}"
        write = partial(_write, where, call.value)
        return write if call.where == "sysctl" else partial(_inside, self._namespace, write)

    def time_entering(self) -> float:
        """Seconds for what stands between a path and a socket inside: open, enter, socket, return, close."""
        started = time.perf_counter()
        descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        netns._setns(descriptor)
        inside = socket.socket(AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_ROUTE)
        netns._setns(home)
        os.close(home)
        os.close(descriptor)
        inside.close()
        return time.perf_counter() - started


def _exchange(send: Any, receive: Any, data: bytes, answers: list[bytes]) -> None:
    send(data)
    # A transaction that succeeded has no answer.
    with suppress(BlockingIOError):
        answers.append(receive(_RECEIVE_BYTES, socket.MSG_DONTWAIT))


def _write(path: str, value: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY)
    os.write(descriptor, value)
    os.close(descriptor)


def _inside(namespace: int, action: Callable[[], object]) -> None:
    with netns.inside(namespace):
        action()


def object_count(tape: Tape) -> int:
    """Objects that a tape makes or changes: messages that are no questions, elements one by one."""
    return sum(
        1
        if call.where.startswith(("map", "sysctl"))
        else sum(not _is_frame(call.where, kind) for kind, _ in _kinds(call.data))
        for call in tape.calls
    )


def _is_frame(where: Where, kind: int) -> bool:
    return where == "nft" and kind in _NFNL_BATCH


def _is_question(call: Call) -> bool:
    if call.where.startswith(("map", "sysctl")):
        return False
    kind, _ = next(_kinds(call.data))
    if call.where == "nft":
        return kind >> 8 == _SUBSYSTEM_NFTABLES and kind & 0xFF in _NFT_GETS
    return kind in _QUESTIONS


def _kinds(data: bytes) -> Any:
    offset = 0
    while offset + 16 <= len(data):
        length, kind, flags, _, _ = _HEADER.unpack_from(data, offset)
        yield kind, flags
        offset += (length + 3) & ~3


def _check(answer: bytes) -> None:
    offset = 0
    while offset + 20 <= len(answer):
        length, kind, *_ = _HEADER.unpack_from(answer, offset)
        if kind == _NLMSG_ERROR:
            number = -struct.unpack_from("=i", answer, offset + 16)[0]
            if number > 0:
                raise HostError(f"the kernel refused a replayed message: {os.strerror(number)}")
        offset += (length + 3) & ~3


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True
