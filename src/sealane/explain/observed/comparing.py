"""What a verdict rests on against what was read: `findings` are facts that contradict it, `unread` is what may decide and
was not understood. Only where both are empty is there anything to be said for the verdict."""

from collections.abc import Iterator, Mapping, Sequence

from sealane.explain.observed import settings
from sealane.explain.observed.reading import (
    UNKNOWN_STATE,
    UP_STATE,
    LinkReading,
    NamespaceReading,
    NeighbourReading,
    RouteReading,
    Wanted,
)
from sealane.explain.packet import Lookup, Trace
from sealane.explain.world import Namespace, World

LISTED_MAX = 50
"""Findings, and what was not read: more help nobody."""


def desired(traces: Sequence[Trace]) -> dict[str, Wanted]:
    """What is to be read, by namespace."""
    links: dict[str, set[str]] = {hop.netns: set() for trace in traces for hop in trace.hops}
    lookups: dict[str, dict[Lookup, None]] = {}
    bridged = {up for trace in traces for up in trace.met.bridged}
    for trace in traces:
        for device in trace.met.devices:
            links.setdefault(device.netns, set()).add(device.link)
        for lookup in trace.met.lookups:
            links.setdefault(lookup.netns, set())
            lookups.setdefault(lookup.netns, {})[lookup] = None
    return {
        netns: Wanted(
            frozenset(names),
            tuple(lookups.get(netns, ())),
            frozenset((bridge, mac) for there, bridge, mac in bridged if there == netns),
        )
        for netns, names in links.items()
    }


class Comparison:
    def __init__(
        self, world: World, traces: Sequence[Trace], readings: Mapping[str, NamespaceReading]
    ) -> None:
        self._world, self._traces, self._readings = world, traces, readings
        self._wanted = desired(traces)
        packet = traces[0].sent
        self._family, self._proto = packet.family, packet.proto

    def findings(self) -> list[str]:
        found: dict[str, None] = {}
        for netns in self._wanted:
            where, reading = self._world.namespace(netns), self._readings.get(netns)
            for text in self._contradictions(where, reading) if reading is not None else ():
                found[f"{where.name}: {text}"] = None
        return list(found)[:LISTED_MAX]

    def unread(self) -> list[str]:
        found: dict[str, None] = dict.fromkeys(d for trace in self._traces for d in trace.met.doubts)
        for netns in self._wanted:
            where = self._world.namespace(netns)
            reading = self._readings.get(netns)
            if reading is None:
                found[f"{where.name}: its namespace cannot be read"] = None
                continue
            for text in self._mysteries(where, reading):
                found[f"{where.name}: {text}"] = None
        return list(found)[:LISTED_MAX]

    # --- what contradicts the verdict -------------------------------------------------------------------------------

    def _contradictions(self, where: Namespace, reading: NamespaceReading) -> Iterator[str]:
        for lookup in self._wanted[where.netns].lookups:
            yield from _route(lookup, reading.routes.get(lookup))
        for name in sorted(self._wanted[where.netns].links):
            yield from self._link(name, reading.links.get(name))
        yield from self._neighbours(where, reading)
        for bridge, mac in sorted(self._wanted[where.netns].bridged - reading.own_macs):
            if mac:
                yield f"the bridge {bridge} has no entry for its own MAC {mac}: `bridge fdb show br {bridge}`"
        own = {address for trace in self._traces for address in (trace.sent.source, trace.final.destination)}
        yield from (
            f"{address} is not usable (tentative, or a duplicate)"
            for address in reading.unready
            if address in own
        )
        yield from self._settings(where, reading)

    def _link(self, name: str, found: LinkReading | None) -> Iterator[str]:
        if found is None:
            yield f"{name} is not there"
            return
        if not found.up:
            yield f"{name} is down"
        elif not found.carrier or found.state not in {UNKNOWN_STATE, UP_STATE} or found.protodown:
            yield f"{name} does not carry (operational state {found.state})"
        if self._family == 6 and not found.multicast and name != "lo":
            yield f"{name} takes no multicast, which neighbour discovery needs"

    def _neighbours(self, where: Namespace, reading: NamespaceReading) -> Iterator[str]:
        known = {(item.link, item.address): item for item in reading.neighbours}
        for trace in self._traces:
            for needed in trace.met.neighbours:
                found = known.get((needed.link, needed.address))
                if needed.netns == where.netns and needed.mac and found and found.mac not in {"", needed.mac}:
                    yield (
                        f"{needed.address} is taken to be at {found.mac} on {needed.link}, and is at {needed.mac}"
                    )

    def _settings(self, where: Namespace, reading: NamespaceReading) -> Iterator[str]:
        links = self._wanted[where.netns].links
        for path, holds in settings.expected(self._family, links, self._proto):
            value = reading.sysctls.get(path)
            is_ours = ("sysctl", path) in where.state
            if value is not None and not is_ours and not holds(value):
                yield f"{path.replace('/', '.')} = {value}"
        count, most = (
            reading.sysctls.get(path, "") for path in (settings.TRACKED_COUNT, settings.TRACKED_MAX)
        )
        if count.isdigit() and most.isdigit() and int(count) >= int(most) > 0:
            yield f"the table of tracked connections is full ({count} of {most})"

    # --- what was not understood ------------------------------------------------------------------------------------

    def _mysteries(self, where: Namespace, reading: NamespaceReading) -> Iterator[str]:
        yield from reading.unread
        links = self._wanted[where.netns].links
        for name in sorted(links):
            found = reading.links.get(name)
            if found is not None:
                yield from _on_link(where, found)
        for link in reading.links.values():
            if link.below in links and link.kind in _TAKERS:
                yield f"{link.name} ({link.kind}) takes frames from {link.below}"
            if link.master in links and where.link(link.name) is None:
                yield f"{link.name} is a port of {link.master}, and not sealane's"
        for rule in reading.policies:
            if rule.family == self._family and not rule.is_answered:
                yield f"routing rule: {rule.text}"
        for trace in self._traces:
            for needed in trace.met.neighbours:
                if needed.netns == where.netns and not needed.mac:
                    yield from (
                        text
                        for item in reading.neighbours
                        if (item.link, item.address) == (needed.link, needed.address)
                        and (text := _outside(item))
                    )
        if any(lookup.mark is None for lookup in self._wanted[where.netns].lookups):
            yield "foreign rules set the packet's mark"
        if reading.ipsec:
            yield f"{reading.ipsec} IPsec policies (`ip xfrm policy`)"
        yield from reading.programs


def _outside(item: NeighbourReading) -> str:
    """Of a next hop on a link that is not ours; empty: nothing speaks against it."""
    if item.is_fixed:
        return f"{item.address} is fixed at {item.mac} on {item.link}, which may be wrong"
    return f"{item.address} has not answered on {item.link}" if item.is_silent else ""


_TAKERS = frozenset({"macvlan", "macvtap", "ipvlan", "ipvtap", "macsec"})


def _on_link(where: Namespace, found: LinkReading) -> Iterator[str]:
    if found.xdp:
        yield f"XDP program on {found.name}"
    yield from (f"{text} on {found.name}" for text in found.programs)
    yield from (f"bridge {found.name}: {name} = {value}" for name, value in found.bridge.items())
    yield from (f"bridge port {found.name}: {name} = {value}" for name, value in found.port.items())
    known = where.link(found.name)
    if found.master and found.master != getattr(known, "master", ""):
        yield f"{found.name} is part of {found.master}"


def _route(lookup: Lookup, found: RouteReading | None) -> Iterator[str]:
    way = f" from {lookup.source}" if lookup.source else ""
    way += f" that came in by {lookup.iif}" if lookup.iif else ""
    question = f"the route to {lookup.destination}{way}"
    if found is None:
        return
    if lookup.kind in {"none", "unreachable"}:
        # The verdict is that it ends here; another end is none.
        if found.kind in {"unicast", "local"}:
            yield f"{question} goes by {found.link} (table {found.table})"
        return
    if not found.kind:
        yield f"{question} is refused ({found.error})"
    elif found.kind != lookup.kind:
        yield f"{question} is {found.kind} (table {found.table})"
    elif lookup.kind == "unicast" and (found.link, found.gateway) != (lookup.link, lookup.gateway):
        via = f" via {found.gateway}" if found.gateway else ""
        yield f"{question} goes{via} by {found.link} (table {found.table}), and not by {lookup.link}"
    if found.encap:
        yield f"{question} is encapsulated"
    if found.mtu and found.mtu < max(lookup.size, _USUAL_BYTES):
        yield f"{question} carries {found.mtu} bytes at most"


_USUAL_BYTES = 1280
"""What every link must carry (RFC 8200, 5)."""
