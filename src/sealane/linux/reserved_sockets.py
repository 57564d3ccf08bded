"""Sockets by which a container's monitor reserves its host ports, shared with it: what arrives there can be answered.

A port that is reserved cannot be bound once more. Its monitor (podman's conmon) never accepts, so who has a descriptor of
the same socket may (pidfd_getfd(2), Linux 5.6; it takes CAP_SYS_PTRACE). The port is free when both have closed it.
"""

import ctypes
import os
import socket
from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Final, NamedTuple

from sealane.linux import reservations
from sealane.linux.netlink import sock_diag
from sealane.linux.netlink.sock_diag import Bound
from sealane.model.net import Address, Proto

_SYS_PIDFD_GETFD: Final = 438
"""The same on every architecture (asm-generic/unistd.h)."""
_PORTS: Final = (1, 65535)

_libc = ctypes.CDLL(None, use_errno=True)


class Wanted(NamedTuple):
    proto: Proto
    number: int
    address: Address
    """At which the port is reserved, or the wildcard of its family."""
    netns: int
    """Inode of the container's network namespace."""


class Shared(NamedTuple):
    """Both are the caller's to close."""

    socket: socket.socket
    monitor: int
    """A pidfd, readable once the monitor has ended."""


def share(desired: Collection[Wanted]) -> dict[Wanted, Shared]:
    """Those that are reserved by now. Raises NetlinkError; what may not be looked at is not found."""
    monitors = reservations.monitors({item.netns for item in desired})
    if not monitors:
        return {}
    bound: dict[tuple[Proto, int], list[Bound]] = {}
    for proto in {item.proto for item in desired}:
        for found in sock_diag.bound(proto, *_PORTS):
            bound.setdefault((proto, found.port), []).append(found)
    open_in = {pid: dict(reservations.open_sockets(pid)) for there in monitors.values() for pid in there}
    result: dict[Wanted, Shared] = {}
    for item in desired:
        owners = {pid: open_in[pid] for pid in monitors.get(item.netns, ())}
        shared = _first(bound.get((item.proto, item.number), ()), item.address, owners)
        if shared is not None:
            result[item] = shared
    return result


def _first(
    candidates: Collection[Bound], address: Address, owners: Mapping[int, Mapping[int, int]]
) -> Shared | None:
    for found in candidates:
        # An IPv6 socket on every address has the port of IPv4 as well (IPV6_V6ONLY is off by default).
        if found.address != address and (found.address, address) != ("::", "0.0.0.0"):
            continue
        for pid, sockets in owners.items():
            if found.inode in sockets and (shared := _duplicate(pid, sockets[found.inode], found.inode)):
                return shared
    return None


def _duplicate(pid: int, descriptor: int, inode: int) -> Shared | None:
    """None if it is not that socket any more, or may not be had."""
    with suppress(OSError):
        monitor = os.pidfd_open(pid)
        try:
            copy = _pidfd_getfd(monitor, descriptor)
            if os.fstat(copy).st_ino == inode:
                sock = socket.socket(fileno=copy)
                sock.setblocking(False)
                return Shared(sock, os.dup(monitor))
            os.close(copy)
        finally:
            os.close(monitor)
    return None


def _pidfd_getfd(pidfd: int, descriptor: int) -> int:
    """Close-on-exec. Raises OSError."""
    found: int = _libc.syscall(_SYS_PIDFD_GETFD, pidfd, descriptor, 0)
    if found < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return found
