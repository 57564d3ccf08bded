"""Sockets by sock_diag (linux/inet_diag.h): who holds a port, and how connections fare. Their processes by /proc."""

import errno
import os
import socket
import struct
from collections.abc import Collection, Iterator
from contextlib import suppress
from typing import Literal

import msgspec

from sealane.explain.doctor.evidence import Listener
from sealane.linux.netlink import codec, tcp_info
from sealane.linux.netlink.socket import NETLINK_SOCK_DIAG, NetlinkError, Socket
from sealane.wire.diagnosis import SocketView

_SOCK_DIAG_BY_FAMILY = 20
_REQUEST = struct.Struct("=BBBBI")
_SOCKID_BYTES = 48
_ANSWER = struct.Struct(">4xHH16s16s")
_INODE_OFFSET = 68
_U32 = struct.Struct("=I")

_PROTOCOLS = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP, "sctp": socket.IPPROTO_SCTP}
_STATES = {"tcp": 1 << 10, "udp": 1 << 7, "sctp": 1 << 10}
"""TCP_LISTEN; for UDP TCP_CLOSE, as its sockets read until they are connected (net/tcp_states.h). A connected one has
its one peer, and is in nobody's way."""

_KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
_FAMILIES = (socket.AF_INET, socket.AF_INET6)
_COMMAND_BYTES = 64

SOCKETS_MAX = 1 << 16
"""Of one namespace in one answer: who can open sockets in a sandbox must not be able to fill the daemon's memory."""

DESCRIPTORS_MAX = 1 << 19
"""Looked at in one search for owners (about a microsecond each)."""

_SOCKET = struct.Struct("=BBxx48x4xIIII")
"""struct inet_diag_msg: family, state, …, the addresses, …, receive and send queue, uid, inode."""

_DIAG_INFO = 2
_DIAG_V6_ONLY = 11
_EXTENSIONS = 1 << (_DIAG_INFO - 1)
_ESTABLISHED, _CLOSE, _LISTEN = 1, 7, 10
_EVERY_STATE = 0x1FFE
"""Bits 1 to 12 (net/tcp_states.h)."""
_USUAL_STATES = {
    "tcp": 1 << _ESTABLISHED | 1 << _LISTEN,
    "udp": 1 << _ESTABLISHED | 1 << _CLOSE,
}
_STATE_NAMES = {
    1: "established",
    2: "syn-sent",
    3: "syn-recv",
    4: "fin-wait-1",
    5: "fin-wait-2",
    6: "time-wait",
    7: "closed",
    8: "close-wait",
    9: "last-ack",
    10: "listen",
    11: "closing",
    12: "syn-recv",
}


class Bound(msgspec.Struct, frozen=True):
    """A socket that has a local port to itself."""

    address: str
    """`0.0.0.0` or `::`: every one."""
    port: int
    inode: int


class Process(msgspec.Struct, frozen=True):
    pid: int
    command: str

    def __str__(self) -> str:
        return f"{self.command} (pid {self.pid})"


def is_free(proto: str, port: int) -> bool:
    """Whether no socket of the namespace we are in has the port, at any address of either family. False: one may.

    A tenth of the time of `bound`. The kernel refuses `::` to whoever would share it, IPv4's sockets included, so that
    one bind asks for all; it is also refused beside what is in nobody's way (a connection, one that has just ended), or
    where there is no IPv6: then only a look at the sockets tells.
    """
    kind = _KINDS.get(proto)
    if kind is None:
        return False
    try:
        with socket.socket(socket.AF_INET6, kind | socket.SOCK_CLOEXEC) as probe:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            probe.bind(("::", port))
    except OSError:
        return False
    return True


def can_bind(address: str) -> bool:
    """Whether a socket of the namespace we are in can be bound to an address; one of IPv6 not before it is known to be
    nobody else's. True, too, if it cannot be told."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as probe:
        try:
            probe.bind((address, 0))
        except OSError as error:
            return error.errno != errno.EADDRNOTAVAIL
    return True


def bound(proto: str, first: int, last: int) -> list[Bound]:
    """Sockets of the namespace we are in that hold one of the ports. Empty for a protocol that the kernel lacks."""
    found: list[Bound] = []
    with Socket(NETLINK_SOCK_DIAG) as diag:
        for family in _FAMILIES:
            header = _REQUEST.pack(family, _PROTOCOLS[proto], 0, 0, _STATES[proto]) + bytes(_SOCKID_BYTES)
            request = codec.message(_SOCK_DIAG_BY_FAMILY, codec.NLM_F_REQUEST | codec.NLM_F_DUMP, 0, header)
            try:
                answers = diag.dump(request)
            except NetlinkError as error:
                if error.errno in {errno.ENOENT, errno.EINVAL, errno.EOPNOTSUPP}:
                    continue
                raise
            found += [item for _, payload in answers if first <= (item := _parse(payload)).port <= last]
    return found


def sockets(diag: Socket, *, every_state: bool = False) -> list[SocketView]:
    """TCP and UDP sockets of the namespace that `diag` was made in: those that listen and those that are connected, or
    in `every_state`. Raises NetlinkError, with EMSGSIZE for more than SOCKETS_MAX."""
    found: list[SocketView] = []
    protos: tuple[Literal["tcp", "udp"], ...] = ("tcp", "udp")
    for proto in protos:
        states = _EVERY_STATE if every_state else _USUAL_STATES[proto]
        for family in _FAMILIES:
            header = _REQUEST.pack(family, _PROTOCOLS[proto], _EXTENSIONS, 0, states) + bytes(_SOCKID_BYTES)
            request = codec.message(_SOCK_DIAG_BY_FAMILY, codec.NLM_F_REQUEST | codec.NLM_F_DUMP, 0, header)
            try:
                answers = diag.dump(request)
            except NetlinkError as error:
                if error.errno == errno.ENOENT:
                    raise NetlinkError(errno.ENOENT, f"the kernel lacks {proto}_diag") from error
                raise
            if len(found) + len(answers) > SOCKETS_MAX:
                raise NetlinkError(errno.EMSGSIZE, f"it has more than {SOCKETS_MAX} sockets")
            found += [item for _, payload in answers if (item := parse_socket(proto, payload))]
    return found


def listeners(diag: Socket) -> list[Listener]:
    """TCP sockets that listen and UDP sockets without a peer, of the namespace that `diag` was made in. Raises
    NetlinkError, with EMSGSIZE for more than SOCKETS_MAX."""
    found: list[Listener] = []
    protos: tuple[Literal["tcp", "udp"], ...] = ("tcp", "udp")
    for proto in protos:
        for family in _FAMILIES:
            header = _REQUEST.pack(family, _PROTOCOLS[proto], 0, 0, _STATES[proto]) + bytes(_SOCKID_BYTES)
            request = codec.message(_SOCK_DIAG_BY_FAMILY, codec.NLM_F_REQUEST | codec.NLM_F_DUMP, 0, header)
            answers = diag.dump(request)
            if len(found) + len(answers) > SOCKETS_MAX:
                raise NetlinkError(errno.EMSGSIZE, f"it has more than {SOCKETS_MAX} sockets")
            found += [item for _, payload in answers if (item := parse_listener(proto, payload))]
    return found


def parse_listener(proto: Literal["tcp", "udp"], payload: memoryview) -> Listener | None:
    """None for what is no answer about an IPv4 or IPv6 socket. A listening TCP socket's queues are its connections that
    wait and its backlog (tcp_diag_get_info, net/ipv4/tcp_diag.c)."""
    if len(payload) < _SOCKET.size or payload[0] not in _FAMILIES:
        return None
    family, _, receive_queue, send_queue, _, inode = _SOCKET.unpack_from(payload)
    port, _, local, _ = _ANSWER.unpack_from(payload)
    v6_only = codec.attrs(payload[_SOCKET.size :]).get(_DIAG_V6_ONLY)
    return Listener(
        proto=proto,
        address=socket.inet_ntop(family, local[: 16 if family == socket.AF_INET6 else 4]),
        port=port,
        v6_only=bool(v6_only and v6_only[0]),
        waiting=receive_queue if proto == "tcp" else 0,
        backlog=send_queue if proto == "tcp" else 0,
        inode=inode,
    )


def parse_socket(proto: Literal["tcp", "udp"], payload: memoryview) -> SocketView | None:
    """None for what is no answer about an IPv4 or IPv6 socket."""
    if len(payload) < _SOCKET.size or payload[0] not in _FAMILIES:
        return None
    family, state, receive_queue, send_queue, uid, inode = _SOCKET.unpack_from(payload)
    port, remote_port, local, remote = _ANSWER.unpack_from(payload)
    size = 16 if family == socket.AF_INET6 else 4
    info = None
    # A listening socket's tcp_info tells of its backlog, in the place of `unacked`.
    if proto == "tcp" and state != _LISTEN:
        info = codec.attrs(payload[_SOCKET.size :]).get(_DIAG_INFO)
    return SocketView(
        proto=proto,
        state="unconnected"
        if (proto, state) == ("udp", _CLOSE)
        else _STATE_NAMES.get(state, f"state-{state}"),
        address=socket.inet_ntop(family, local[:size]),
        port=port,
        remote_address=socket.inet_ntop(family, remote[:size]),
        remote_port=remote_port,
        receive_queue=receive_queue,
        send_queue=send_queue,
        uid=uid,
        inode=inode,
        tcp=tcp_info.parse(info) if info is not None else None,
    )


def holder(inode: int) -> Process | None:
    """The process that has the socket open; None if it is the kernel's, or gone."""
    return holders({inode}).get(inode)


def holders(inodes: Collection[int]) -> dict[int, Process]:
    """A process for each socket that one has open: the first by pid. Ends early when all are found."""
    wanted = {f"socket:[{inode}]": inode for inode in inodes}
    found: dict[int, Process] = {}
    looks = 0
    for pid in _pids():
        with suppress(OSError), os.scandir(f"/proc/{pid}/fd") as entries:
            for entry in entries:
                looks += 1
                if not wanted or looks > DESCRIPTORS_MAX:
                    return found
                with suppress(OSError):
                    inode = wanted.pop(os.readlink(entry.path), None)
                    if inode is not None:
                        found[inode] = Process(pid, _command(pid))
    return found


def _parse(payload: memoryview) -> Bound:
    family: int = payload[0]
    port, _, source, _ = _ANSWER.unpack_from(payload)
    text = socket.inet_ntop(family, source[: 16 if family == socket.AF_INET6 else 4])
    return Bound(text, port, _U32.unpack_from(payload, _INODE_OFFSET)[0])


def _pids() -> Iterator[int]:
    with os.scandir("/proc") as entries:
        for entry in entries:
            if entry.name.isascii() and entry.name.isdigit():
                yield int(entry.name)


def _command(pid: int) -> str:
    """Printable whatever the process calls itself."""
    try:
        with open(f"/proc/{pid}/comm", "rb") as file:
            name = file.read(_COMMAND_BYTES).decode(errors="replace").strip()
    except OSError:
        return "?"
    return "".join(c if c.isprintable() else "?" for c in name) or "?"
