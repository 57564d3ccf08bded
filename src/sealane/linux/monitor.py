"""Drift, as soon as it happens: the kernel's notifications of the host's namespace.

An event carries no truth here, it only says that somebody should look. What is asked of it is whether it can concern
us at all, and whether it is our own doing: most of a busy host's events are other people's links, neighbours that
come and go, tables of other programs.

Be aware, so that these are found by the next full look alone: the kernel tells nothing of sysctls, of proxy
neighbours, and of a new alias or group of a link that is down (netdev_state_change). Of links it does not tell who
changed them; `read(own)` leaves out events of links that the caller has just worked on itself.
"""

from collections.abc import Collection
from typing import Self

import msgspec

from sealane.kernel.nft import TABLE, NftFamily
from sealane.kernel.objects import RTPROT_SEALANE
from sealane.linux import forward_rules
from sealane.linux.firewalls import may_add
from sealane.linux.marks import alias_prefix, is_ours
from sealane.linux.netlink import codec, inet, link, neigh, qdisc, tc_filter
from sealane.linux.netlink.socket import (
    NETLINK_NETFILTER,
    NETLINK_ROUTE,
    Event,
    LostEventsError,
    Socket,
)

_RTNLGRP_LINK, _RTNLGRP_NEIGH, _RTNLGRP_TC = 1, 3, 4
_RTNLGRP_IPV4_IFADDR, _RTNLGRP_IPV4_ROUTE = 5, 7
_RTNLGRP_IPV6_IFADDR, _RTNLGRP_IPV6_ROUTE = 9, 11
_GROUPS = (
    _RTNLGRP_LINK,
    _RTNLGRP_NEIGH,
    _RTNLGRP_TC,
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
    """The uplink, or its MTU; rules of others."""

    def __bool__(self) -> bool:
        return bool(self.host or self.facts)


class Monitor:
    """Sockets for an event loop: when one of `filenos` is readable, call `read`."""

    def __init__(self, instance: str, ports: Ports | None = None) -> None:
        self._prefix = alias_prefix(instance)
        self._ports = ports or Ports()
        self._route = Socket(NETLINK_ROUTE, _GROUPS)
        self._nft = Socket(NETLINK_NETFILTER, _NFNLGRP_NFTABLES)
        self._links: dict[int, link.RawLink] = {}
        self._ours: set[int] = set()
        """Indexes of links that bear our mark, or have borne it."""
        self._addresses: set[inet.RawAddress] = set()
        """On links of ours."""
        self.ignored_families: Collection[NftFamily] = ("ip", "ip6", "bridge")
        """Families in which more rules of others make no difference."""
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
        """Take the events that wait, without blocking; say the first reason there is. `own`: links of the host that
        the caller has worked on since it last read. Of what is done to a link itself nothing says who did it."""
        host = facts = ""
        try:
            for event in self._route.receive():
                dirty = self._route_event(event, own)
                host, facts = host or dirty.host, facts or dirty.facts
            for event in self._nft.receive():
                dirty = self._nft_event(event)
                host, facts = host or dirty.host, facts or dirty.facts
        except LostEventsError:
            self._learn()
            return Dirty(LOST, LOST)
        return Dirty(host, facts)

    def _learn(self) -> None:
        """Which links there are. On a socket of its own: answers and events do not mix."""
        with Socket(NETLINK_ROUTE) as socket:
            found = [_essence(link.parse(payload)) for _, payload in socket.dump(link.dump())]
            addresses = [inet.parse_address(payload) for _, payload in socket.dump(inet.dump_addresses())]
        self._links = {raw.index: raw for raw in found}
        self._ours = {i for i in self._ours if i in self._links} | {
            r.index for r in found if is_ours(r, self._prefix)
        }
        self._addresses = {item for item in addresses if item.index in self._ours}

    def _our_link(self, index: int, own: Collection[str]) -> str:
        known = self._links.get(index) if index in self._ours else None
        return known.name if known is not None and known.name not in own else ""

    def _route_event(self, event: Event, own: Collection[str]) -> Dirty:
        if event.kind in {link.RTM_NEWLINK, link.RTM_DELLINK}:
            return self._link_event(event, own)
        if event.kind in {inet.RTM_NEWADDR, inet.RTM_DELADDR}:
            return self._address_event(event, own)
        if self._is_own(event):
            return _CLEAN
        if event.port:
            # Somebody's request, and not ours: `own` is for what the kernel does of itself when a link changes.
            own = ()
        match event.kind:
            case inet.RTM_NEWROUTE | inet.RTM_DELROUTE:
                return self._route_change(event, own)
            case neigh.RTM_NEWNEIGH | neigh.RTM_DELNEIGH:
                return self._neigh_event(event, own)
            case qdisc.RTM_NEWQDISC | qdisc.RTM_DELQDISC:
                name = self._our_link(qdisc.parse_head(event.payload)[0], own)
                return Dirty(host=f"the queue of {name}" if name else "")
            case tc_filter.RTM_NEWTFILTER | tc_filter.RTM_DELTFILTER:
                name = self._our_link(tc_filter.parse_index(event.payload), own)
                return Dirty(host=f"a filter of {name}" if name else "")
        return _CLEAN

    def _is_own(self, event: Event) -> bool:
        return bool(event.port) and event.port == self._ports.route

    def _link_event(self, event: Event, own: Collection[str]) -> Dirty:
        """Links are remembered, only to tell a change from news of no weight: the kernel announces carrier, queues
        and a port's state in the same messages, some a second late."""
        raw = _essence(link.parse(event.payload))
        before = self._links.get(raw.index)
        after: link.RawLink | None = raw
        if event.payload[0] == neigh.AF_BRIDGE:
            # The bridge's own message, of which only the port's settings are complete. A port's end is told twice.
            if before is None or raw.port is None or event.kind == link.RTM_DELLINK:
                return _CLEAN
            after = msgspec.structs.replace(before, port=raw.port)
        elif event.kind == link.RTM_DELLINK:
            after = None
        if after is None:
            self._links.pop(raw.index, None)
        else:
            self._links[raw.index] = after
        if after is not None and is_ours(after, self._prefix):
            self._ours.add(raw.index)
        ours = raw.index in self._ours
        if after is None:
            self._ours.discard(raw.index)
            self._addresses = {item for item in self._addresses if item.index != raw.index}
        if before == after:
            return _CLEAN
        if ours:
            return Dirty(host="" if raw.name in own else f"the link {raw.name}")
        moved = before is not None and (after is None or after.mtu != before.mtu)
        return Dirty(facts=f"the link {raw.name}" if moved else "")

    def _address_event(self, event: Event, own: Collection[str]) -> Dirty:
        """IPv6 addresses are announced again whenever their state changes; the kernel's own link-local ones are no news
        at all."""
        found = inet.parse_address(event.payload)
        if found.index not in self._ours:
            return _CLEAN
        known = found in self._addresses
        if event.kind == inet.RTM_DELADDR:
            self._addresses.discard(found)
        else:
            self._addresses.add(found)
            if known or found.address.startswith("fe80:"):
                return _CLEAN
        if self._is_own(event):
            return _CLEAN
        name = self._our_link(found.index, () if event.port else own)
        return Dirty(host=f"an address of {name}" if name else "")

    def _route_change(self, event: Event, own: Collection[str]) -> Dirty:
        route = inet.parse_route(event.payload)
        if route.cloned:
            return _CLEAN
        default = route.dst in {"0.0.0.0/0", "::/0"} and route.table == inet.TABLE_MAIN
        # A route that takes the place of ours is told of alone, as somebody else's.
        ours = route.protocol == RTPROT_SEALANE or event.flags & codec.NLM_F_REPLACE
        # The kernel's own, which it takes away by itself (from port 0) only with its address or link.
        lost = event.kind == inet.RTM_DELROUTE and route.protocol == inet.RTPROT_KERNEL and event.port
        ours = ours or (lost and route.index in self._ours)
        known = self._links.get(route.index)
        if known is not None and known.name in own:
            ours = False
        return Dirty(
            host=f"the route to {route.dst}" if ours else "", facts="the default route" if default else ""
        )

    def _neigh_event(self, event: Event, own: Collection[str]) -> Dirty:
        index, state, flags = neigh.parse_head(event.payload)
        name = self._our_link(index, own)
        if not name or flags & neigh.NTF_SELF:
            return _CLEAN
        if event.payload[0] == neigh.AF_BRIDGE:
            return Dirty(host=f"the forwarding database at {name}")
        # What the kernel finds out and forgets by itself comes from port 0, and is never permanent.
        told = event.port or state & neigh.NUD_PERMANENT
        return Dirty(host=f"a neighbour at {name}" if told else "")

    def _nft_event(self, event: Event) -> Dirty:
        ours = event.port and event.port == self._ports.nft
        if ours or event.kind >> 8 != _NFT_SUBSYSTEM or event.kind & 0xFF == _NFT_MSG_NEWGEN:
            return _CLEAN
        table = codec.attrs(event.payload[4:]).get(_NFTA_TABLE)
        if table is not None and codec.text(table) == TABLE:
            return Dirty(host="nftables")
        if forward_rules.is_about(event.payload, event.kind & 0xFF):
            return Dirty(host="the chain FORWARD", facts="the chain FORWARD")
        if not set(may_add(event.payload, event.kind & 0xFF)).issubset(self.ignored_families):
            return Dirty(facts="rules of others")
        return _CLEAN


_CLEAN = Dirty()


def _essence(raw: link.RawLink) -> link.RawLink:
    """Without what moves by itself: of the flags, all but ours."""
    return msgspec.structs.replace(raw, flags=raw.flags & (link.IFF_UP | link.IFF_NOARP))
