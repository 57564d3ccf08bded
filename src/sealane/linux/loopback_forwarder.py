"""Published ports on 127.0.0.1 and ::1 where the kernel cannot redirect (`bpf.loopback.probe` says why).

A userland proxy with its costs, which `status` names: every byte passes through this process, the backend sees the
address of the host and not more, and publishes end with the daemon. It listens on 127.0.0.1 and ::1 alone; the other
addresses of the host, and the rest of 127.0.0.0/8, are not its business.

A port that an engine reserves (podman's conmon listens on it, and accepts nothing) is never bound here: podman would not
get it, or has it already. Its socket is shared with the monitor instead (`reserved_sockets`), which binds it only once
the container starts: it is looked for until it is there, and anew once the monitor has ended.

More than `MAX_LISTENERS` ports are refused; `forwarder` has the other bounds.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Final

from sealane.linux.forwarder import LOOPBACK, Forwarder, Port, Target, listen
from sealane.linux.reserved_sockets import Shared, Wanted, share
from sealane.model.endpoint import PublishedPort
from sealane.model.net import Address, is_loopback, is_wildcard

if TYPE_CHECKING:
    import asyncio
    import socket
    from collections.abc import Callable, Iterable

    from sealane.linux.bpf.entry import LoopbackEntry

MAX_LISTENERS: Final = 4096

SEARCH_SECONDS: Final = (0.1, 10.0)
"""Between looks for what reserves a port: at first, and at last; each time twice as long."""


class LoopbackForwarder(Forwarder):
    """The interface of `bpf.loopback.LoopbackPublisher`."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, netns_of: Callable[[PublishedPort], int] = lambda _: 0
    ) -> None:
        """`netns_of`: inode of the network namespace of who publishes a port; 0: not known."""
        super().__init__(loop, LOOPBACK, _asks_the_loopback)
        self._netns_of = netns_of
        self._reserved: dict[Port, Address] = {}
        """Ports that an engine reserves, and where it listens."""
        self._monitors: dict[Port, int] = {}
        """Of ports whose sockets are shared: a pidfd of whom with."""
        self._waiting: set[Port] = set()
        """Reserved ones without a socket yet."""
        self._search: asyncio.TimerHandle | None = None
        self._pause_s = 0.0
        self._entries: frozenset[LoopbackEntry] = frozenset()

    def entries(self) -> frozenset[LoopbackEntry]:
        return self._entries

    def repair(self) -> bool:
        """Nothing of it is anybody's to take."""
        return False

    def apply(self, add: Iterable[LoopbackEntry], remove: Iterable[LoopbackEntry] = ()) -> None:
        """Listen for `add` and no longer for `remove`; a port in both changes its backend without a gap.

        All or nothing. Idempotent; SCTP is ignored. ValueError if entries overlap or are too many, OSError (EADDRINUSE) if
        a port is taken. Connections that exist stay as they are.
        """
        entries = (self._entries - frozenset(remove)) | {entry for entry in add if entry.proto != "sctp"}
        targets, reserved = _targets(entries)
        self.serve(targets, apart=reserved)
        self._entries, self._reserved = entries, reserved
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
        super().close()

    def _stop(self, port: Port) -> None:
        super()._stop(port)
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
        desired = {port: self._wanted(port) for port in self._waiting}
        with contextlib.suppress(OSError):
            found = share(desired.values())
            for port, item in desired.items():
                if item in found:
                    self._share(port, found[item])
            for port in desired:
                if port in self._waiting and self._is_left(port):
                    self._listen(port)
        if self._waiting:
            self._search_later()

    def _wanted(self, port: Port) -> Wanted:
        at = self._reserved[port]
        publish = PublishedPort(
            proto=port.proto, host_address=at, host_first=port.number, host_last=port.number, port=port.number
        )
        return Wanted(port.proto, port.number, at, self._netns_of(publish))

    def _share(self, port: Port, shared: Shared) -> None:
        self._monitors[port] = shared.monitor
        self._loop.add_reader(shared.monitor, self._lose, port)
        self._begin(port, shared.socket)

    def _is_left(self, port: Port) -> bool:
        """Podman reserves a port of every address on IPv4 alone, all ports of a container at once: what it has not by
        then it never will."""
        ipv4 = Port(4, port.proto, port.number)
        return port.family == 6 and is_wildcard(self._reserved[port]) and ipv4 in self._monitors

    def _listen(self, port: Port) -> None:
        with contextlib.suppress(OSError):  # Somebody else's: looked at again.
            self._begin(port, listen(port, LOOPBACK[port.family]))

    def _begin(self, port: Port, listener: socket.socket) -> None:
        self._waiting.discard(port)
        super()._begin(port, listener)

    def _lose(self, port: Port) -> None:
        """Its monitor has ended: nobody reserves the port any more, so neither do we, nor what was left of it."""
        left = Port(6, port.proto, port.number)
        was_left = port.family == 4 and left in self._listeners and self._is_left(left)
        for lost in (port, left) if was_left else (port,):
            self._stop(lost)
            self._waiting.add(lost)
        self._search_soon()


def _asks_the_loopback(client: str, own: str) -> bool:
    """A reserving socket listens on every address; what comes there past our rules is not for us. Of a datagram to one only
    the client is known: who asks the loopback does so from there, and nobody else can."""
    return is_loopback(own or client)


def _targets(entries: frozenset[LoopbackEntry]) -> tuple[dict[Port, Target], dict[Port, Address]]:
    """And of those that are reserved, where."""
    count = sum(entry.last - entry.first + 1 for entry in entries)
    if count > MAX_LISTENERS:
        raise ValueError(f"first, last: {count} ports, and the forwarder listens on {MAX_LISTENERS} at most")
    targets: dict[Port, Target] = {}
    reserved: dict[Port, Address] = {}
    for entry in entries:
        for number in range(entry.first, entry.last + 1):
            port = Port(entry.family, entry.proto, number)
            if port in targets:
                raise ValueError(f"first, last: {entry} overlaps another entry at port {number}")
            targets[port] = Target(entry.address, entry.port + number - entry.first)
            if entry.reserved_at:
                reserved[port] = Address(entry.reserved_at)
    return targets, reserved
