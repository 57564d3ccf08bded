"""Sockets by sock_diag (linux/inet_diag.h): who holds a port, and how connections fare. Their processes by /proc."""

import errno
import os
import socket
import struct
from collections.abc import Collection
from contextlib import suppress
from typing import Literal, NamedTuple

import msgspec

from sealane.explain.doctor.evidence import Listener
from sealane.linux.netlink import codec, tcp_info
from sealane.linux.netlink.socket import NETLINK_SOCK_DIAG, NetlinkError, Socket
from sealane.linux.processes import command, pids
from sealane.wire.diagnosis import SocketView

_SOCK_DIAG_BY_FAMILY = 20
_REQUEST = struct.Struct("=BBBBI")
_SOCKID_BYTES = 48
_ANSWER = struct.Struct(">4xHH16s16s")
_MAPPED = bytes(10) + b"\xff\xff"
"""What IPv4 addresses begin with on an IPv6 socket (RFC 4291 §2.5.5.2)."""

_PROTOCOLS = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP, "sctp": socket.IPPROTO_SCTP}
_STATES = {"tcp": 1 << 10, "udp": 1 << 7, "sctp": 1 << 10}
"""TCP_LISTEN; for UDP TCP_CLOSE, as its sockets read until they are connected (net/tcp_states.h). A connected one has
its one peer, and is in nobody's way."""

_KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
_FAMILIES = (socket.AF_INET, socket.AF_INET6)

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
    with Socket(NETLINK_SOCK_DIAG) as diag:
        return [
            Bound(raw.local, raw.port, raw.inode)
            for raw in _dump(diag, proto, _STATES[proto], may_be_lacking=True)
            if first <= raw.port <= last
        ]


def sockets(diag: Socket, *, every_state: bool = False) -> list[SocketView]:
    """TCP and UDP sockets of the namespace that `diag` was made in: those that listen and those that are connected, or
    in `every_state`. Raises NetlinkError, with EMSGSIZE for more than SOCKETS_MAX."""
    found: list[SocketView] = []
    protos: tuple[Literal["tcp", "udp"], ...] = ("tcp", "udp")
    for proto in protos:
        states = _EVERY_STATE if every_state else _USUAL_STATES[proto]
        found += (_view(proto, raw) for raw in _dump(diag, proto, states, most=SOCKETS_MAX - len(found)))
    return found


def listeners(diag: Socket) -> list[Listener]:
    """TCP sockets that listen and UDP sockets without a peer, of the namespace that `diag` was made in. Raises
    NetlinkError, with EMSGSIZE for more than SOCKETS_MAX."""
    found: list[Listener] = []
    protos: tuple[Literal["tcp", "udp"], ...] = ("tcp", "udp")
    for proto in protos:
        answers = _dump(diag, proto, _STATES[proto], most=SOCKETS_MAX - len(found))
        found += (_listener(proto, raw) for raw in answers)
    return found


class RawSocket(NamedTuple):
    """struct inet_diag_msg. An IPv4 address that an IPv6 socket has (::ffff:10.1.0.2) is told as what it is."""

    state: int
    local: str
    port: int
    remote: str
    remote_port: int
    receive_queue: int
    send_queue: int
    uid: int
    inode: int
    attributes: memoryview


def parse(payload: memoryview) -> RawSocket | None:
    """None for what is no answer about an IPv4 or IPv6 socket."""
    if len(payload) < _SOCKET.size or payload[0] not in _FAMILIES:
        return None
    family, state, receive_queue, send_queue, uid, inode = _SOCKET.unpack_from(payload)
    port, remote_port, local, remote = _ANSWER.unpack_from(payload)
    if family == socket.AF_INET6 and local.startswith(_MAPPED):
        family, local, remote = socket.AF_INET, local[12:], remote[12:]
    size = 16 if family == socket.AF_INET6 else 4
    return RawSocket(
        state,
        socket.inet_ntop(family, local[:size]),
        port,
        socket.inet_ntop(family, remote[:size]),
        remote_port,
        receive_queue,
        send_queue,
        uid,
        inode,
        payload[_SOCKET.size :],
    )


def _dump(
    diag: Socket, proto: str, states: int, *, most: int | None = None, may_be_lacking: bool = False
) -> list[RawSocket]:
    """Of both families. Of what the kernel has no module for none, if that `may_be_lacking`."""
    found: list[RawSocket] = []
    for family in _FAMILIES:
        header = _REQUEST.pack(family, _PROTOCOLS[proto], _EXTENSIONS, 0, states) + bytes(_SOCKID_BYTES)
        request = codec.message(_SOCK_DIAG_BY_FAMILY, codec.NLM_F_REQUEST | codec.NLM_F_DUMP, 0, header)
        try:
            answers = diag.dump(request)
        except NetlinkError as error:
            if may_be_lacking and error.errno in {errno.ENOENT, errno.EINVAL, errno.EOPNOTSUPP}:
                continue
            if error.errno == errno.ENOENT:
                raise NetlinkError(errno.ENOENT, f"the kernel lacks {proto}_diag") from error
            raise
        if most is not None and len(found) + len(answers) > most:
            raise NetlinkError(errno.EMSGSIZE, f"it has more than {SOCKETS_MAX} sockets")
        found += (raw for _, payload in answers if (raw := parse(payload)) is not None)
    return found


def _listener(proto: Literal["tcp", "udp"], raw: RawSocket) -> Listener:
    """A listening TCP socket's queues are its connections that wait and its backlog (tcp_diag_get_info,
    net/ipv4/tcp_diag.c)."""
    v6_only = codec.attrs(raw.attributes).get(_DIAG_V6_ONLY)
    return Listener(
        proto=proto,
        address=raw.local,
        port=raw.port,
        v6_only=bool(v6_only and v6_only[0]),
        waiting=raw.receive_queue if proto == "tcp" else 0,
        backlog=raw.send_queue if proto == "tcp" else 0,
        inode=raw.inode,
    )


def _view(proto: Literal["tcp", "udp"], raw: RawSocket) -> SocketView:
    info = None
    # A listening socket's tcp_info tells of its backlog, in the place of `unacked`.
    if proto == "tcp" and raw.state != _LISTEN:
        info = codec.attrs(raw.attributes).get(_DIAG_INFO)
    return SocketView(
        proto=proto,
        state="unconnected"
        if (proto, raw.state) == ("udp", _CLOSE)
        else _STATE_NAMES.get(raw.state, f"state-{raw.state}"),
        address=raw.local,
        port=raw.port,
        remote_address=raw.remote,
        remote_port=raw.remote_port,
        receive_queue=raw.receive_queue,
        send_queue=raw.send_queue,
        uid=raw.uid,
        inode=raw.inode,
        tcp=tcp_info.parse(info) if info is not None else None,
    )


def holder(inode: int) -> Process | None:
    """The process that has the socket open; None if it is the kernel's, or gone."""
    return holders({inode}).get(inode)


def holders(inodes: Collection[int]) -> dict[int, Process]:
    """A process for each socket that one has open: the first by pid. Ends early when all are found."""
    desired = {f"socket:[{inode}]": inode for inode in inodes}
    found: dict[int, Process] = {}
    looks = 0
    for pid in pids():
        with suppress(OSError), os.scandir(f"/proc/{pid}/fd") as entries:
            for entry in entries:
                looks += 1
                if not desired or looks > DESCRIPTORS_MAX:
                    return found
                with suppress(OSError):
                    inode = desired.pop(os.readlink(entry.path), None)
                    if inode is not None:
                        found[inode] = Process(pid, command(pid))
    return found
