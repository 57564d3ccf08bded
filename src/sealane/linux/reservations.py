"""Sockets that an engine binds to a container's host ports so that no other program takes them.

podman 5 binds the ports before it calls its network plugin, podman 4 after that, and in both conmon, the container's
monitor, inherits the sockets and keeps them (podman libpod/oci_util.go, bindPorts; libpod/container_internal_linux.go).
Nobody ever accepts there. What a process calls itself proves nothing, so a reservation is known by its owner:

- the process that started the plugin, which asks us at this moment; or
- a monitor of the container: the parent, outside, of a process inside the container's network namespace. To put a process
  there takes CAP_SYS_ADMIN over that namespace.
"""

import os
from collections.abc import Iterator
from contextlib import suppress

from sealane.engine.ports import Reserver
from sealane.linux.processes import command, parent, pids

MONITORS = ("conmon",)
"""Of containers, by name: a parent that is another program (a shell with `nsenter`) reserves nothing."""

_INIT = 1


def starter(pid: int) -> int:
    """The process that started another one, which still waits for it; 0: none, or the one that adopts all orphans."""
    found = parent(pid) if pid > 0 else 0
    return 0 if found == _INIT else found


def is_reserved(inode: int, reserver: Reserver) -> bool:
    """Whether a socket is open in a process that reserves ports for the reserver's container."""
    if reserver.process and _has_open(reserver.process, inode):
        return True
    return any(_has_open(pid, inode) for pid in monitors({reserver.netns}).get(reserver.netns, ()))


def monitors(namespaces: set[int]) -> dict[int, set[int]]:
    """Inode of a network namespace → the processes outside that are monitors of containers inside."""
    found: dict[int, set[int]] = {}
    for pid in pids():
        inode = _network(pid)
        if inode in namespaces:
            above = parent(pid)
            if above and _network(above) != inode and command(above) in MONITORS:
                found.setdefault(inode, set()).add(above)
    return found


def open_sockets(pid: int) -> Iterator[tuple[int, int]]:
    """Inode and descriptor of each socket of a process; none of one that has ended, or that we may not look at."""
    with suppress(OSError), os.scandir(f"/proc/{pid}/fd") as entries:
        for entry in entries:
            with suppress(OSError):
                target = os.readlink(entry.path)
                if target.startswith("socket:["):
                    yield int(target[8:-1]), int(entry.name)


def _has_open(pid: int, inode: int) -> bool:
    return any(found == inode for found, _ in open_sockets(pid))


def _network(pid: int) -> int:
    """Inode of a process's network namespace; 0: it has ended."""
    with suppress(OSError, ValueError):
        return int(os.readlink(f"/proc/{pid}/ns/net")[5:-1])
    return 0
