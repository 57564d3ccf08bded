"""Drift, as soon as it happens: the kernel's notifications of the host's namespace.

An event carries no truth here, it only says that somebody should look. What is asked of it is whether it can concern
us at all, and whether it is our own doing: most of a busy host's events are other people's links, neighbours that
come and go, tables of other programs.

Be aware, so that these are found by the next full look alone: the kernel tells nothing of sysctls and proxy
neighbours. Of links it does not tell who changed them; `read(own)` leaves out events of links that the caller has
just worked on itself.
"""

from collections.abc import Collection, Iterable
from typing import Self

import msgspec

from sealane.kernel.nft import TABLE
from sealane.kernel.objects import GROUP_DOOMED, GROUP_LIVE, RTPROT_SEALANE
from sealane.kernel.state import HOST
from sealane.linux.netlink import codec, inet, link, neigh
from sealane.linux.netlink.socket import (
    NETLINK_NETFILTER,
    NETLINK_ROUTE,
    Event,
    LostEventsError,
    Socket,
)
from sealane.linux.session import hangs_on
from sealane.reconcile.plan import Operation

_RTNLGRP_LINK, _RTNLGRP_NEIGH = 1, 3
_RTNLGRP_IPV4_IFADDR, _RTNLGRP_IPV4_ROUTE = 5, 7
_RTNLGRP_IPV6_IFADDR, _RTNLGRP_IPV6_ROUTE = 9, 11
_GROUPS = (
    _RTNLGRP_LINK,
    _RTNLGRP_NEIGH,
    _RTNLGRP_IPV4_IFADDR,
    _RTNLGRP_IPV4_ROUTE,
    _RTNLGRP_IPV6_IFADDR,
    _RTNLGRP_IPV6_ROUTE,
)
_NFNLGRP_NFTABLES = 7
_NFT_SUBSYSTEM = 10
_NFTA_TABLE = 1
"""The table's name: attribute 1 of every nf_tables message but the generation's."""
_NFT_MSG_NEWGEN = 15

LOST = "events were lost"


class Ports(msgspec.Struct, frozen=True):
    """Netlink port ids of the sockets whose requests are our own doing; 0: none."""

    route: int = 0
    nft: int = 0


class Dirty(msgspec.Struct, frozen=True):
    """What should be looked at, and why; empty: nothing needs to be."""

    host: str = ""
    """The objects of ours."""
    facts: str = ""
    """The uplink, or its MTU."""

    def __bool__(self) -> bool:
        return bool(self.host or self.facts)


class _Known(msgspec.Struct):
    name: str
    mtu: int
    ours: bool


class Monitor:
    """Sockets for an event loop: when one of `filenos` is readable, call `read`."""

    def __init__(self, instance: str, ports: Ports | None = None) -> None:
        self._prefix = f"sealane/{instance}/"
        self._ports = ports or Ports()
        self._route = Socket(NETLINK_ROUTE, _GROUPS)
        self._nft = Socket(NETLINK_NETFILTER, _NFNLGRP_NFTABLES)
        self._links: dict[int, _Known] = {}
        self._learn()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._route.close()
        self._nft.close()

    def filenos(self) -> tuple[int, int]:
        return self._route.fileno(), self._nft.fileno()

    def read(self, own: Collection[str] = ()) -> Dirty:
        """Take the events that wait, without blocking. `own`: links the caller has changed since it last read."""
        host = facts = ""
        try:
            for event in self._route.receive():
                host = self._route_event(event, own) or host
                facts = self._fact(event) or facts
                self._remember(event)
            for event in self._nft.receive():
                host = self._nft_event(event) or host
        except LostEventsError:
            self._learn()
            return Dirty(LOST, LOST)
        return Dirty(host, facts)

    def _learn(self) -> None:
        """Which links there are. On a socket of its own: answers and events do not mix."""
        with Socket(NETLINK_ROUTE) as socket:
            found = [link.parse(payload) for _, payload in socket.dump(link.dump())]
        self._links = {raw.index: _Known(raw.name, raw.mtu, self._is_ours(raw)) for raw in found}

    def _is_ours(self, raw: link.RawLink) -> bool:
        return raw.alias.startswith(self._prefix) or raw.group in {GROUP_LIVE, GROUP_DOOMED}

    def _remember(self, event: Event) -> None:
        if event.kind == link.RTM_DELLINK and event.payload[0] != neigh.AF_BRIDGE:
            self._links.pop(link.parse_name(event.payload)[0], None)
        elif event.kind == link.RTM_NEWLINK and event.payload[0] != neigh.AF_BRIDGE:
            raw = link.parse(event.payload)
            before = self._links.get(raw.index)
            # One that has lost our mark stays ours to look after.
            ours = self._is_ours(raw) or (before is not None and before.ours)
            self._links[raw.index] = _Known(raw.name, raw.mtu, ours)

    def _our_link(self, index: int, own: Collection[str]) -> str:
        known = self._links.get(index)
        return known.name if known is not None and known.ours and known.name not in own else ""

    def _route_event(self, event: Event, own: Collection[str]) -> str:
        """Why the host should be looked at."""
        if event.port and event.port == self._ports.route:
            return ""
        match event.kind:
            case link.RTM_NEWLINK | link.RTM_DELLINK:
                return self._link_event(event, own)
            case inet.RTM_NEWADDR | inet.RTM_DELADDR:
                name = self._our_link(inet.parse_address(event.payload).index, own)
                return f"an address of {name}" if name else ""
            case inet.RTM_NEWROUTE | inet.RTM_DELROUTE:
                route = inet.parse_route(event.payload)
                # A route that takes the place of ours is told of alone, as somebody else's.
                ours = route.protocol == RTPROT_SEALANE or event.flags & codec.NLM_F_REPLACE
                known = self._links.get(route.index)
                own_doing = known is not None and known.name in own
                return f"the route to {route.dst}" if ours and not own_doing else ""
            case neigh.RTM_NEWNEIGH | neigh.RTM_DELNEIGH:
                return self._neigh_event(event, own)
        return ""

    def _link_event(self, event: Event, own: Collection[str]) -> str:
        index, name = link.parse_name(event.payload)
        known = self._links.get(index)
        if known is None:
            known = _Known(name, 0, self._is_ours(link.parse(event.payload)))
        if not known.ours or known.name in own:
            return ""
        return f"the link {known.name}"

    def _neigh_event(self, event: Event, own: Collection[str]) -> str:
        index, state, flags = neigh.parse_head(event.payload)
        name = self._our_link(index, own)
        if not name or flags & neigh.NTF_SELF:
            return ""
        if event.payload[0] == neigh.AF_BRIDGE:
            return f"the forwarding database at {name}"
        # What the kernel finds out and forgets by itself comes from port 0, and is never permanent.
        return f"a neighbour at {name}" if event.port or state & neigh.NUD_PERMANENT else ""

    def _fact(self, event: Event) -> str:
        if event.kind in {inet.RTM_NEWROUTE, inet.RTM_DELROUTE}:
            route = inet.parse_route(event.payload)
            if route.dst in {"0.0.0.0/0", "::/0"} and route.table == inet.TABLE_MAIN and not route.cloned:
                return "the default route"
        elif event.kind in {link.RTM_NEWLINK, link.RTM_DELLINK} and event.payload[0] != neigh.AF_BRIDGE:
            raw = link.parse(event.payload)
            known = self._links.get(raw.index)
            gone = event.kind == link.RTM_DELLINK
            if known is not None and not known.ours and (gone or raw.mtu != known.mtu):
                return f"the link {known.name}"
        return ""

    def _nft_event(self, event: Event) -> str:
        ours = event.port and event.port == self._ports.nft
        if ours or event.kind >> 8 != _NFT_SUBSYSTEM or event.kind & 0xFF == _NFT_MSG_NEWGEN:
            return ""
        table = codec.attrs(event.payload[4:]).get(_NFTA_TABLE)
        return "nftables" if table is not None and codec.text(table) == TABLE else ""


def touched(operations: Iterable[Operation]) -> frozenset[str]:
    """Links of the host that a plan works on: what `Monitor.read` takes as its own."""
    return frozenset(hangs_on(operation.object) for operation in operations if operation.netns == HOST) - {""}
