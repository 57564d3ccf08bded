"""Sandboxes while they are worked in: descriptors and rtnetlink sockets, opened when first needed, closed at the end.

Nothing is kept longer than a plan, or the request that it is made for: an open descriptor or socket keeps a dead
sandbox's namespace alive.
"""

import errno
import os
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import msgspec

from sealane.engine.ports import NamespaceGoneError
from sealane.linux import netns
from sealane.linux.closeable import Closeable
from sealane.linux.netlink.socket import Socket
from sealane.model.endpoint import NetnsRef

OPEN_MAX = 128
"""Sandboxes open at once, two descriptors each (a process may have 1,024 by default)."""


class Open(msgspec.Struct):
    descriptor: int
    socket: Socket

    def close(self) -> None:
        self.socket.close()
        os.close(self.descriptor)


class OpenNamespaces(Closeable):
    """Namespaces that were resolved for one request, and stay open until its plan works in them: a path is opened and
    proven once."""

    def __init__(self) -> None:
        self._open: dict[tuple[int, int], Open] = {}
        """By the namespace's identity."""

    def resolve(self, where: str) -> NetnsRef:
        """As `netns.resolve`."""
        ref, descriptor, socket = netns.visit(where)
        self._close(ref.identity)
        self._open[ref.identity] = Open(descriptor, socket)
        if len(self._open) > OPEN_MAX:
            self._close(next(iter(self._open)))
        return ref

    def take(self, ref: NetnsRef) -> Open | None:
        """Who takes it closes it."""
        return self._open.pop(ref.identity, None)

    def close(self) -> None:
        while self._open:
            self._close(next(iter(self._open)))

    def _close(self, identity: tuple[int, int]) -> None:
        opened = self._open.pop(identity, None)
        if opened is not None:
            opened.close()


class Namespaces(Closeable):
    """The sandboxes of one plan."""

    def __init__(self, refs: Mapping[str, NetnsRef], open_namespaces: OpenNamespaces | None = None) -> None:
        self._refs = refs
        self._visits = open_namespaces
        self._open: OrderedDict[str, Open] = OrderedDict()
        self.evictions = 0
        """How often one was closed to make room for another: messages that name descriptors are wrong since."""
        self._is_kept = False

    def close(self) -> None:
        while self._open:
            self._close_oldest()

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Inside, what is open stays open: the kernel is at messages that name its descriptors."""
        self._is_kept = True
        try:
            yield
        finally:
            self._is_kept = False

    def descriptor(self, sandbox: str) -> int:
        """As `open`."""
        return self.open(sandbox).descriptor

    def open(self, sandbox: str) -> Open:
        """Good until `OPEN_MAX` others have been asked for. Raises NamespaceGoneError, OSError (EMFILE: `kept`, and as many
        are open)."""
        found = self._open.get(sandbox)
        if found is None:
            ref = self._refs.get(sandbox)
            if ref is None:
                raise NamespaceGoneError(f"the sandbox {sandbox} has no namespace")
            if len(self._open) >= OPEN_MAX:
                if self._is_kept:
                    raise OSError(errno.EMFILE, f"{OPEN_MAX} sandboxes are open")
                self._close_oldest()
                self.evictions += 1
            visited = self._visits.take(ref) if self._visits is not None else None
            found = self._open[sandbox] = visited or Open(*netns.enter(ref))
        self._open.move_to_end(sandbox)
        return found

    def _close_oldest(self) -> None:
        _, oldest = self._open.popitem(last=False)
        oldest.close()
