"""Who holds a port: sock_diag's listening and bound sockets (linux/inet_diag.h), and their processes by /proc."""

import errno
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress

import msgspec

from sealane.linux.netlink import codec
from sealane.linux.netlink.socket import NETLINK_SOCK_DIAG, NetlinkError, Socket

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

_FAMILIES = (socket.AF_INET, socket.AF_INET6)
_COMMAND_BYTES = 64


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


def holder(inode: int) -> Process | None:
    """The process that has the socket open; None if it is the kernel's, or gone."""
    wanted = f"socket:[{inode}]"
    for pid in _pids():
        with suppress(OSError), os.scandir(f"/proc/{pid}/fd") as entries:
            for entry in entries:
                with suppress(OSError):
                    if os.readlink(entry.path) == wanted:
                        return Process(pid, _command(pid))
    return None


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
