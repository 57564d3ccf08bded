"""The kernel's neighbour entries that probing leaves behind, taken away again.

All namespaces share one table a family, and past `gc_thresh3` (1,024 by default) nobody on the machine resolves an
address any more: entries are safe from the collector for five seconds (net/core/neighbour.c, neigh_forced_gc). A
hundred sandboxes that ask for each other would make ten thousand.
"""

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress

from sealane.engine.ports import NamespaceGoneError
from sealane.kernel.objects import Neighbour
from sealane.linux.netlink import neigh
from sealane.linux.netlink.socket import NetlinkError, Socket
from sealane.linux.netns import enter
from sealane.model.endpoint import NetnsRef
from sealane.model.net import Address, Mac

_ANY_MAC = Mac("00:00:00:00:00:00")
"""RTM_DELNEIGH does not look at it."""

_Entry = tuple[int, str]
"""Index of the link, address."""


class NeighbourCache:
    """Of sandboxes: what was there before them is kept."""

    def __init__(self, refs: Mapping[str, NetnsRef]) -> None:
        self._refs = refs
        self._before: dict[str, frozenset[_Entry]] = {}

    def note(self, sandboxes: Iterable[str]) -> None:
        """What they know now is theirs; of a sandbox that has been noted, nothing changes."""
        for sandbox in sandboxes:
            if sandbox in self._refs and sandbox not in self._before:
                self._visit(sandbox, forget=False)

    def forget(self, sandboxes: Iterable[str]) -> None:
        """Take away what has come since. An entry that others use by now is resolved again."""
        for sandbox in sandboxes:
            if sandbox in self._before:
                self._visit(sandbox, forget=True)

    def _visit(self, sandbox: str, *, forget: bool) -> None:
        # A namespace that has died has no entries, and one that cannot be looked at is told of by its probes.
        with suppress(NamespaceGoneError, NetlinkError, OSError):
            descriptor, route = enter(self._refs[sandbox])
            try:
                found = _entries(route)
                if forget:
                    desired = sorted(found - self._before[sandbox])
                    route.request([_delete(index, address) for index, address in desired])
                else:
                    self._before[sandbox] = found
            finally:
                route.close()
                os.close(descriptor)


def _entries(route: Socket) -> frozenset[_Entry]:
    """That the kernel made by itself."""
    found = (neigh.parse(payload) for _, payload in route.dump(neigh.dump()))
    made = neigh.NUD_PERMANENT | neigh.NUD_NOARP
    return frozenset((item.index, item.address) for item in found if item.address and not item.state & made)


def _delete(index: int, address: str) -> bytes:
    return neigh.delete(Neighbour(link="", address=Address(address), mac=_ANY_MAC), index)
