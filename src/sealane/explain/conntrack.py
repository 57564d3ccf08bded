"""Connection tracking and NAT, as net/netfilter/nf_conntrack_core.c and nf_nat_core.c do them.

A flow is two tuples: how the first packet looked when it came, and how an answer to it will look. Translation changes
the second; every later packet of either direction is made to look like the inverse of the opposite tuple. What is not
modelled: timeouts, clashes of tuples (a translated source port stays as it is), and protocols that open further flows.
"""

from collections.abc import Iterable

import msgspec

from sealane.explain.headers import icmp_type
from sealane.explain.packet import DNAT, SNAT, Flow, Packet, Tuple
from sealane.kernel.nft import CT_STATE

ORIGINAL, REPLY = 0, 1
"""enum ip_conntrack_dir."""

_UNTRACKED_ICMP6 = frozenset({130, 131, 132, 133, 134, 135, 136, 137, 143})
"""MLD and neighbour discovery: never tracked (icmpv6_error, net/netfilter/nf_conntrack_proto_icmpv6.c)."""


class Tracked:
    """What a packet's `nfct` says while it is in one namespace."""

    def __init__(self, flow: Flow, direction: int, state: str, *, confirmed: bool) -> None:
        self.flow = flow
        self.direction = direction
        self.state = state
        self.confirmed = confirmed
        """In the table. Until then a drop leaves no trace of the flow."""
        self.decided: set[int] = {SNAT, DNAT} if confirmed else set()
        """Manipulations whose chains have been asked. They are asked once a flow."""

    @property
    def state_bits(self) -> int:
        return CT_STATE[self.state]


def tuple_of(packet: Packet) -> Tuple:
    return Tuple(packet.proto, packet.source, packet.source_port, packet.destination, packet.destination_port)


class Table:
    """The flows of every namespace."""

    def __init__(self, flows: Iterable[Flow] = ()) -> None:
        self._flows: dict[tuple[str, Tuple], Flow] = {}
        self._directions: dict[tuple[str, Tuple], tuple[Tuple, int]] = {}
        for flow in flows:
            self._put(flow)

    def flows(self) -> tuple[Flow, ...]:
        return tuple(self._flows.values())

    def _put(self, flow: Flow) -> None:
        self._flows[flow.netns, flow.original] = flow
        # An untranslated flow to oneself from the same port: the original direction wins, as in the kernel's lookup.
        self._directions[flow.netns, flow.reply] = (flow.original, REPLY)
        self._directions[flow.netns, flow.original] = (flow.original, ORIGINAL)

    def track(self, netns: str, packet: Packet) -> Tracked | None:
        """nf_conntrack_in: None if the packet is of a kind that is not tracked."""
        if packet.proto == "icmp" and packet.family == 6 and icmp_type(packet) in _UNTRACKED_ICMP6:
            return None
        if packet.about is not None:
            return self._related(netns, packet.about)
        found = self._find(netns, tuple_of(packet))
        if found is None:
            original = tuple_of(packet)
            fresh = Flow(netns=netns, original=original, reply=original.inverse)
            return Tracked(fresh, ORIGINAL, "new", confirmed=False)
        flow, direction = found
        if direction == REPLY and not flow.replied:
            flow = msgspec.structs.replace(flow, replied=True)
            self._put(flow)
        return Tracked(flow, direction, "established" if flow.replied else "new", confirmed=True)

    def _find(self, netns: str, looks: Tuple) -> tuple[Flow, int] | None:
        known = self._directions.get((netns, looks))
        return None if known is None else (self._flows[netns, known[0]], known[1])

    def _related(self, netns: str, quoted: Packet) -> Tracked | None:
        """An ICMP error belongs to the flow of the packet that it quotes, and goes against it
        (nf_conntrack_inet_error). One about nothing known is `invalid`, which here is None."""
        found = self._find(netns, tuple_of(quoted).inverse)
        return None if found is None else Tracked(found[0], found[1], "related", confirmed=True)

    def confirm(self, tracked: Tracked) -> None:
        if not tracked.confirmed:
            tracked.confirmed = True
            self._put(tracked.flow)


def set_nat(tracked: Tracked, manip: int, address: str, port: int = 0) -> None:
    """nf_nat_setup_info: from now on the flow's answers come to, or from, `address` (port 0: unchanged)."""
    tracked.decided.add(manip)
    reply = tracked.flow.reply
    if manip == DNAT:
        reply = msgspec.structs.replace(reply, source=address, source_port=port or reply.source_port)
    else:
        reply = msgspec.structs.replace(
            reply, destination=address, destination_port=port or reply.destination_port
        )
    if reply != tracked.flow.reply:
        status = tracked.flow.status | manip
        tracked.flow = msgspec.structs.replace(tracked.flow, reply=reply, status=status)


def apply_nat(tracked: Tracked, manip: int, packet: Packet) -> Packet:
    """nf_nat_packet: in the reply's direction the flow's source translation changes the destination, and vice versa."""
    bit = manip if tracked.direction == ORIGINAL else manip ^ (SNAT | DNAT)
    if not tracked.flow.status & bit:
        return packet
    opposite = tracked.flow.reply if tracked.direction == ORIGINAL else tracked.flow.original
    target = opposite.inverse
    if manip == SNAT:
        return msgspec.structs.replace(packet, source=target.source, source_port=target.source_port)
    return msgspec.structs.replace(
        packet, destination=target.destination, destination_port=target.destination_port
    )
