"""The sandboxes of one plan: descriptors and rtnetlink sockets, opened when first needed, closed at its end.

Nothing is kept longer: an open descriptor or socket keeps a dead sandbox's namespace alive.
"""

import os
from collections import OrderedDict
from collections.abc import Mapping
from types import TracebackType
from typing import Self

import msgspec

from sealane.engine.ports import NamespaceGoneError
from sealane.linux import netns
from sealane.linux.netlink.socket import Socket
from sealane.model.endpoint import NetnsRef

OPEN_MAX = 128
"""Sandboxes open at once, two descriptors each (a process may have 1,024 by default)."""


class _Open(msgspec.Struct):
    descriptor: int
    socket: Socket


class Namespaces:
    def __init__(self, refs: Mapping[str, NetnsRef]) -> None:
        self._refs = refs
        self._open: OrderedDict[str, _Open] = OrderedDict()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._open:
            self._close_oldest()

    def descriptor(self, sandbox: str) -> int:
        """Good until `OPEN_MAX` others have been asked for. Raises NamespaceGoneError."""
        return self._get(sandbox).descriptor

    def socket(self, sandbox: str) -> Socket:
        """As `descriptor`."""
        return self._get(sandbox).socket

    def _get(self, sandbox: str) -> _Open:
        found = self._open.get(sandbox)
        if found is None:
            ref = self._refs.get(sandbox)
            if ref is None:
                raise NamespaceGoneError(f"the sandbox {sandbox} has no namespace")
            if len(self._open) >= OPEN_MAX:
                self._close_oldest()
            found = self._open[sandbox] = _Open(*netns.enter(ref))
        self._open.move_to_end(sandbox)
        return found

    def _close_oldest(self) -> None:
        _, oldest = self._open.popitem(last=False)
        oldest.socket.close()
        os.close(oldest.descriptor)
