"""A packet's way through namespaces, as the kernel's IP layer takes it (net/ipv4, net/ipv6).

    socket ─► output ─► route ─► postrouting ─► link ─► other namespace ─┬─► prerouting ─► route ─┬─► input: delivered
                          ▲                                              │ (bridge: `bridging`)   │
                          └──────────────────── forward ◄────────────────┴────────────────────────┘

What a namespace does with a packet depends on its state and on the packet alone, so a packet that comes to one place
twice, looking the same, will do so for ever: a loop.

Not modelled: policy routing but by source, multicast and broadcast other than for neighbours, redirects,
queues and rate limits, and whether anybody listens where a packet is delivered.
"""

from collections.abc import Iterable
from typing import NoReturn

from sealane.compile.names import NFT_FAMILY
from sealane.explain import bridging, neighbours
from sealane.explain.conntrack import tuple_of
from sealane.explain.fast_path import straight_to
from sealane.explain.headers import ECHO_REPLY
from sealane.explain.loopback import at_host, redirect
from sealane.explain.packet import Arrives, Disposition, Flow, Packet, Sent, Start, Trace, Tuple
from sealane.explain.path import Ended, Path, Skb
from sealane.explain.routing import Found
from sealane.explain.world import AnyLink, Namespace, UnexplainedError, World
from sealane.kernel.objects import Link
from sealane.kernel.state import HOST
from sealane.model.net import is_loopback

HOPS_MAX = 64
"""Forwarding namespaces, as many as a TTL allows."""

_SEE_STATUS = "see `sealane status`"


def walk(world: World, packet: Packet, start: Start, flows: Iterable[Flow] = ()) -> Trace:
    """What happens to a packet. `flows` is what connection tracking holds already: those of an earlier trace for its
    answer. Raises UnexplainedError, UnknownStatementError and IncompleteStateError, when it cannot be said."""
    if _is_multicast(packet.destination):
        raise UnexplainedError(f"{packet.destination}: multicast and broadcast are not explained")
    observed_path = _Journey(Path(world, flows), packet)
    ended = observed_path.run(start)
    path = observed_path.path
    return Trace(
        packet=packet,
        hops=path.hops(),
        disposition=ended.disposition,
        reason=ended.reason,
        hint=ended.hint,
        sent=observed_path.sent,
        final=observed_path.skb.packet,
        netns=path.netns,
        link=path.link,
        flows=path.table.flows(),
        met=path.met(),
    )


def answer(trace: Trace) -> tuple[Packet, Start]:
    """The first packet back, and where it begins: at the socket that the trace delivered to, or outside."""
    final = trace.final
    packet = Packet(
        proto=final.proto,
        source=final.destination,
        source_port=final.destination_port,
        destination=final.source,
        destination_port=final.source_port,
        size=trace.packet.size,
        dont_fragment=final.dont_fragment,
        icmp_type=ECHO_REPLY[final.family] if final.proto == "icmp" else 0,
    )
    start = Arrives(trace.netns, trace.link) if trace.disposition is Disposition.EXITS else Sent(trace.netns)
    return packet, start


def is_answered(there: Trace, back: Trace) -> bool:
    """Whether the asker's socket takes what comes back for its answer: it must come from where the question went."""
    if not (there.passes and back.passes):
        return False
    request = tuple_of(there.sent)
    return tuple_of(back.final) == request.inverse


class _Journey:
    def __init__(self, path: Path, packet: Packet) -> None:
        self.path = path
        self.skb = Skb(packet)
        self.sent = packet
        self._seen: set[tuple[str, str, Tuple]] = set()

    def run(self, start: Start) -> Ended:
        where = self.path.world.namespace(start.netns)
        try:
            if isinstance(start, Sent):
                self.path.enter(where, "")
                self._output(where)
            else:
                self.path.enter(where, start.link)
                link = where.link(start.link)
                if link is None or not link.up:
                    self.path.end(Disposition.LINK_DOWN, f"{start.link} is not there or down", _SEE_STATUS)
                if not self.skb.packet.mac_destination:
                    self.skb.change(mac_destination=link.mac)
                self._arrive(where, link)
        except Ended as ended:
            return ended

    # --- sending ----------------------------------------------------------------------------------------------------

    def _output(self, where: Namespace) -> NoReturn:
        """A local process sends (ip_queue_xmit, ip6_xmit)."""
        skb = self.skb
        if where.netns == HOST:
            skb.packet = redirect(self.path, where, skb.packet)
        destination = skb.packet.destination
        found = self.path.route(where, skb)
        self._must_lead(where, found)
        if not skb.packet.source:
            self._choose_source(where, found)
            # ip_route_connect looks again, now that rules may ask for the source.
            found = self.path.route(where, skb)
        self.sent = skb.packet
        self.path.note("route", found.text, key=found.key)
        self.path.hook(where, NFT_FAMILY[skb.packet.family], "output", skb, oif=_device(found))
        if skb.packet.destination != destination:
            # ip_route_me_harder. The source stays that of the first choice.
            found = self.path.route(where, skb)
            self._must_lead(where, found)
            self.path.note("route", found.text, key=found.key)
        self._transmit(where, found)

    def _choose_source(self, where: Namespace, found: Found) -> None:
        packet = self.skb.packet
        source = where.routing.source_for(found, packet.destination)
        if not source:
            reason = f"{where.name} has no address to reach {packet.destination} from"
            self.path.end(Disposition.NO_ADDRESS, reason, "attach it to a network that has this family")
        self.skb.change(source=source)
        self.path.note("source", f"from {source}")

    def _must_lead(self, where: Namespace, found: Found) -> None:
        destination = self.skb.packet.destination
        if found.kind == "unreachable":
            self.path.note("route", found.text, key=found.key)
            reason = f"{where.name}: nobody has {destination}, though its prefix is one of sealane's"
            self.path.end(Disposition.UNREACHABLE, reason, "see whether the endpoint is attached")
        if found.kind == "none":
            reason = f"{where.name} has no route to {destination}"
            hint = (
                "give the host a default route"
                if where.netns == HOST
                else "attach it to a network that has this family and is not internal"
            )
            self.path.end(Disposition.NO_ROUTE, reason, hint)

    def _transmit(self, where: Namespace, found: Found, came_by: str = "") -> NoReturn:
        """From the routing decision to the wire (ip_output, ip6_output)."""
        skb, family = self.skb, self.skb.packet.family
        if found.kind == "local":
            self.path.hook(where, NFT_FAMILY[family], "postrouting", skb, oif="lo")
            self.path.enter(where, "lo")
            self.path.device(where, "lo", "out", skb)
            self.path.device(where, "lo", "in", skb)
            self._receive(where, "lo", passed_prerouting=False)
        link = where.link(found.link)
        assert link is not None
        if not came_by:
            self._fit_own(link)
        self.path.hook(where, NFT_FAMILY[family], "postrouting", skb, iif=came_by, oif=link.name)
        if where.is_foreign(link):
            self.path.enter(where, link.name)
            self.path.resolved(where, link.name, found.gateway or skb.packet.destination, "")
            self.path.device(where, link.name, "out", skb)
            self.path.end(Disposition.EXITS, f"leaves by {link.name} as {skb.packet}")
        mac = neighbours.resolve(self.path, where, link, found.gateway or skb.packet.destination, skb)
        skb.change(mac_source=link.mac, mac_destination=mac)
        if link.has_ports:
            self.path.device(where, link.name, "out", skb)
            self._cross(where, bridging.send(self.path, where, link, skb))
        else:
            assert isinstance(link, Link)
            self._cross(where, link)

    def _fit_own(self, link: AnyLink) -> None:
        """Too big for the sender's own link: in pieces, or an error at once (EMSGSIZE)."""
        packet = self.skb.packet
        if not link.mtu or packet.wire_size <= link.mtu:
            return
        if packet.dont_fragment:
            reason = (
                f"{packet.size} bytes do not fit {link.name} (MTU {link.mtu}), and it must not be fragmented"
            )
            self.path.end(Disposition.TOO_BIG, reason, f"send at most {link.mtu} bytes")
        self._fragment(link)

    def _fragment(self, link: AnyLink) -> None:
        self.path.note("mtu", f"sent in fragments of {link.mtu} bytes")
        self.skb.change(fragment=link.mtu)

    def _cross(self, where: Namespace, link: Link) -> NoReturn:
        """Through a veth into another namespace."""
        self.path.device(where, link.name, "out", self.skb)
        other = self.path.world.peer(where, link)
        if other is None or not other[1].up:
            self.path.end(Disposition.LINK_DOWN, f"the other end of {link.name} is down", _SEE_STATUS)
        there, peer = other
        self.path.note("link", f"{link.name} → {peer.name} of {there.name}", key=link.key)
        self.skb.scrub()
        self.path.enter(there, peer.name)
        target = straight_to(there, peer, self.skb.packet)
        if target:
            text = f"fast path straight to {target}; what follows is the long way, with the same end"
            self.path.note("fast path", text, key=("fast-target", self.skb.packet.destination))
        self._arrive(there, peer)

    # --- receiving --------------------------------------------------------------------------------------------------

    def _arrive(self, where: Namespace, link: AnyLink) -> NoReturn:
        here = (where.netns, link.name, tuple_of(self.skb.packet))
        if here in self._seen or len(self._seen) > 2 * HOPS_MAX:
            self.path.end(Disposition.LOOP, f"it comes to {link.name} a second time", _SEE_STATUS)
        self._seen.add(here)
        self.path.device(where, link.name, "in", self.skb)
        if isinstance(link, Link) and link.master:
            self._arrive_at_port(where, link)
        elif self.skb.packet.mac_destination != link.mac:
            reason = f"{link.name} is not {self.skb.packet.mac_destination}: the frame is for another"
            self.path.end(Disposition.LOST, reason, "stale neighbour entry: wait, or delete it")
        else:
            self._receive(where, link.name, passed_prerouting=False)

    def _arrive_at_port(self, where: Namespace, port: Link) -> NoReturn:
        skb = self.skb
        bridge, next_hop = bridging.come_in(self.path, where, port, skb)
        if next_hop:
            skb.change(mac_destination=neighbours.resolve(self.path, where, bridge, next_hop, skb))
        if bridging.goes_up(self.path, where, bridge, skb):
            self.path.link = bridge.name
            self.path.went_up(where, bridge)
            self.path.device(where, bridge.name, "in", skb)
            passed = bridging.uses_netfilter(self.path, skb)
            self._receive(where, bridge.name, passed_prerouting=passed)
        out = bridging.out_port(self.path, where, bridge, skb)
        bridging.forward(self.path, where, bridge, port, out, skb)
        self._cross(where, out)

    def _receive(self, where: Namespace, iif: str, *, passed_prerouting: bool) -> NoReturn:
        """ip_rcv, ip6_rcv: prerouting, then where to."""
        skb, family = self.skb, self.skb.packet.family
        if family == 6:
            # ipv6_rcv looks before the hooks; IPv4 looks after them (ip_route_input_slow), when a published port has
            # been translated already.
            self._check_loopback(iif)
        if family == 6 and where.sysctl(f"net/ipv6/conf/{iif}/disable_ipv6") == "1":
            reason = f"IPv6 is switched off on {iif}"
            self.path.end(Disposition.NOT_FORWARDED, reason, "attach to a network that has IPv6")
        if not passed_prerouting:
            self.path.hook(where, NFT_FAMILY[family], "prerouting", skb, iif=iif)
        found = self.path.route(where, skb, iif)
        self._check_loopback(iif)
        self._check_source(where, iif)
        if found.kind == "local":
            self.path.hook(where, NFT_FAMILY[family], "input", skb, iif=iif)
            self.path.note("local", f"{skb.packet.destination} is an address of {where.name}", key=found.key)
            self._deliver(where)
        self._forward(where, iif, found)

    def _deliver(self, where: Namespace) -> NoReturn:
        packet = self.skb.packet
        reason, hint = f"delivered to {where.name} as {packet}", ""
        if where.netns == HOST:
            further, hint = at_host(self.path.world, where, packet)
            reason += further
        if where.netns in self.path.world.idle:
            reason += ", where nothing runs: its container has ended"
            hint = f"`sealane start {where.name}`"
        self.path.end(Disposition.DELIVERED, reason, hint)

    def _check_loopback(self, iif: str) -> None:
        packet = self.skb.packet
        if iif != "lo" and (is_loopback(packet.destination) or is_loopback(packet.source)):
            reason = f"{packet} from outside: the kernel takes loopback addresses from `lo` only"
            self.path.end(Disposition.MARTIAN, reason, "use another address of the host")

    def _check_source(self, where: Namespace, iif: str) -> None:
        """fib_validate_source; IPv6 has none."""
        source = self.skb.packet.source
        if iif == "lo" or self.skb.packet.family == 6:
            return
        if where.is_local(source):
            reason = f"{source} is an address of {where.name} itself and comes in by {iif}"
            self.path.end(Disposition.MARTIAN, reason, "send from an address of your own")
        mode = max(int(where.sysctl(f"net/ipv4/conf/{name}/rp_filter")) for name in ("all", iif))
        back = where.route(source) if mode else None
        if back is None or (back.kind == "unicast" and (mode == 2 or back.link == iif)):
            return
        way = f"goes by {back.link}" if back.link else "does not exist"
        reason = f"rp_filter={mode} on {iif}: the way back to {source} {way}"
        self.path.end(Disposition.MARTIAN, reason, f"route {source} by {iif}, or set rp_filter to 2 or 0")

    # --- forwarding -------------------------------------------------------------------------------------------------

    def _forward(self, where: Namespace, iif: str, found: Found) -> NoReturn:
        """ip_forward, ip6_forward."""
        skb, family = self.skb, self.skb.packet.family
        if not where.forwards(family, iif):
            name = "net.ipv4.ip_forward" if family == 4 else "net.ipv6.conf.all.forwarding"
            reason = f"{where.name} does not forward IPv{family} ({name}=0), and {skb.packet.destination} is not its own"
            self.path.end(Disposition.NOT_FORWARDED, reason, f"set {name}=1" if where.netns == HOST else "")
        self._must_lead(where, found)
        self.path.note("route", found.text, key=found.key)
        if skb.packet.ttl <= 1:
            self.path.end(Disposition.LOOP, "its TTL is used up", "send with a higher TTL")
        link = where.link(found.link)
        assert link is not None
        self._fit_forwarded(link)
        skb.change(ttl=skb.packet.ttl - 1)
        self.path.hook(where, NFT_FAMILY[family], "forward", skb, iif=iif, oif=link.name)
        self._transmit(where, found, came_by=iif)

    def _fit_forwarded(self, link: AnyLink) -> None:
        packet = self.skb.packet
        if not link.mtu or packet.wire_size <= link.mtu:
            return
        if packet.family == 6 or packet.dont_fragment:
            what = "Packet Too Big" if packet.family == 6 else "fragmentation needed"
            reason = f"{packet.wire_size} bytes do not fit {link.name} (MTU {link.mtu}); the sender is told ({what})"
            self.path.end(
                Disposition.TOO_BIG, reason, f"send at most {link.mtu} bytes, or let the sender hear ICMP"
            )
        self._fragment(link)


def _device(found: Found) -> str:
    return "lo" if found.kind == "local" else found.link


def _is_multicast(address: str) -> bool:
    if ":" in address:
        return address.startswith("ff")
    return 224 <= int(address.partition(".")[0]) <= 255
