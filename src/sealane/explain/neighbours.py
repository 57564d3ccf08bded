"""Whose MAC has an address: permanent entries, or ARP and neighbour discovery asked and answered for real.

Question and answer are frames like others: they pass the same guards and the same bridge, and where they are dropped
nobody is reached. Nothing is remembered from one packet to the next: an explanation starts with empty caches.
"""

import socket
from collections.abc import Iterator

from sealane.explain import bridging
from sealane.explain.headers import ADVERT, SOLICIT
from sealane.explain.packet import Disposition, Packet, Protocol
from sealane.explain.path import Ended, Path, Skb
from sealane.explain.world import AnyLink, Namespace
from sealane.kernel.objects import Link
from sealane.model.net import address_part, family_of

BROADCAST = "ff:ff:ff:ff:ff:ff"
ND_BYTES = 72
"""IPv6 header, solicitation and the sender's link-layer address."""

ND_HOPS = 255
"""RFC 4861 §7.1: proof that it comes from this link."""

WAYS = {4: "ARP", 6: "neighbour discovery"}


def resolve(path: Path, where: Namespace, link: AnyLink, address: str, skb: Skb) -> str:
    """MAC of a next hop on a link, or `Ended`."""
    known = where.neighbour(link.name, address)
    if known is not None:
        path.resolved(where, link.name, address, known.mac)
        path.note("neighbour", f"{address} is at {known.mac} (permanent)", key=known.key)
        return known.mac
    way = WAYS[family_of(address)]
    why_not, hint = "nobody on this link has it", "see `sealane network inspect` for who has which address"
    with path.aside():
        try:
            mac, answered = _ask(path, where, link, address, skb)
        except Ended as ended:
            mac, answered = "", ""
            why_not, hint = ended.reason, ended.hint
    if not answered:
        reason = f"no answer to {way} for {address} on {link.name}: {why_not}"
        path.end(Disposition.NEIGHBOUR_UNREACHABLE, reason, hint)
    path.resolved(where, link.name, address, mac)
    path.note("neighbour", f"{address} is at {mac} ({way}, answered by {answered})")
    return mac


def _ask(path: Path, where: Namespace, link: AnyLink, address: str, skb: Skb) -> tuple[str, str]:
    """(MAC, who answered); both empty if nobody did."""
    question = _question(path, where, link, address, skb.packet)
    _arp(path, where, "output", question, link.name)
    if isinstance(link, Link) and not link.has_ports:
        return _ask_peer(path, where, link, address, question)
    for port in _candidates(path, where, link, address):
        other = path.world.peer(where, port)
        if other is None or bridging.refusal(None, port) or not _answers(*other, address):
            continue
        path.device(where, port.name, "out", Skb(question))
        _answered(path, *other, question, address)
        path.enter(where, port.name)
        answer = _answer(question, address, other[1].mac)
        path.device(where, port.name, "in", answer)
        bridging.come_in(path, where, port, answer)
        path.went_up(where, link)
        _arp(path, where, "input", answer.packet, link.name)
        return other[1].mac, other[0].name
    return "", ""


def _arp(path: Path, where: Namespace, hook: str, packet: Packet, link: str) -> None:
    """Foreign rules of the family arp, which sealane has none of (NF_ARP_IN, NF_ARP_OUT, NF_ARP_FORWARD)."""
    iif, oif = ("", link) if hook == "output" else (link, "")
    for table, chain in where.rules.at("arp", hook) if packet.proto == "arp" else ():
        path.foreign(where, table, chain, Skb(packet), iif, oif)


def _answered(path: Path, there: Namespace, link: AnyLink, question: Packet, address: str) -> None:
    """A question comes in at whoever has the address, and the answer leaves."""
    answer = _answer(question, address, link.mac)
    path.device(there, link.name, "in", Skb(question))
    _arp(path, there, "input", question, link.name)
    _arp(path, there, "output", answer.packet, link.name)
    path.device(there, link.name, "out", answer)


def _ask_peer(path: Path, where: Namespace, link: Link, address: str, question: Packet) -> tuple[str, str]:
    """By a veth: who is at its other end, or behind the bridge that it is a port of."""
    other = path.world.peer(where, link)
    if other is None or not other[1].up:
        path.end(Disposition.LINK_DOWN, f"the other end of {link.name} is down")
    there, peer = other
    request = Skb(question)
    path.device(where, link.name, "out", request)
    path.enter(there, peer.name)
    if not peer.master:
        if not _answers(there, peer, address):
            return "", ""
        _answered(path, there, peer, question, address)
        _arp(path, where, "input", _answer(question, address, peer.mac).packet, link.name)
        return peer.mac, there.name
    path.device(there, peer.name, "in", request)
    bridge = bridging.come_in(path, there, peer, request).bridge
    if _answers(there, bridge, address):
        path.went_up(there, bridge)
        _answered(path, there, bridge, question, address)
        path.device(there, peer.name, "out", _answer(question, address, bridge.mac))
        _arp(path, where, "input", _answer(question, address, bridge.mac).packet, link.name)
        return bridge.mac, there.name
    for port in _candidates(path, there, bridge, address):
        other = path.world.peer(there, port)
        if port.name == peer.name or other is None or not _answers(*other, address):
            continue
        bridging.forward(path, there, bridge, peer, port, request)
        _arp(path, there, "forward", question, bridge.name)
        path.device(there, port.name, "out", request)
        _answered(path, *other, question, address)
        answer = _answer(question, address, other[1].mac)
        path.enter(there, port.name)
        path.device(there, port.name, "in", answer)
        bridging.come_in(path, there, port, answer)
        back = bridging.out_port(path, there, bridge, answer)
        bridging.forward(path, there, bridge, port, back, answer)
        path.device(there, back.name, "out", answer)
        _arp(path, where, "input", answer.packet, link.name)
        return other[1].mac, other[0].name
    return "", ""


def _candidates(path: Path, where: Namespace, bridge: AnyLink, address: str) -> Iterator[Link]:
    """Ports behind which the address may be. The host's permanent entry says which; without one, all are asked."""
    known = where.neighbour(bridge.name, address)
    port = where.fdb_port(bridge.name, known.mac) if known else None
    if port is not None:
        yield port
    else:
        yield from (item for item in where.ports(bridge.name) if path.world.may_have(item, address))


def _answers(where: Namespace, link: AnyLink, address: str) -> bool:
    """Linux answers ARP for any address of its own on any link (arp_ignore=0), ND for that link's and proxied ones."""
    if not link.up:
        return False
    if family_of(address) == 4:
        return where.is_local(address)
    owner = where.routing.owner(address)
    on_link = owner is not None and owner.link == link.name and where.is_local(address)
    return on_link or where.neighbour(link.name, address, proxy=True) is not None


def _question(path: Path, where: Namespace, link: AnyLink, address: str, packet: Packet) -> Packet:
    if family_of(address) == 4:
        # arp_announce=0: under the packet's own source, even one of another link (arp_solicit).
        known = where.is_local(packet.source)
        source = packet.source if known else where.routing.source_on(link.name, 4, address)
        return _frame("arp", source or "0.0.0.0", address, (link.mac, BROADCAST))
    owner = where.routing.owner(packet.source)
    own = where.routing.addresses(link.name, 6)
    if owner is not None and owner.link == link.name:
        source = packet.source
    elif own and own[-1].startswith("fe80:"):
        source = address_part(own[-1])
    else:
        # ndisc_send_ns gives up without a word.
        path.end(
            Disposition.NEIGHBOUR_UNREACHABLE,
            f"{link.name} has no link-local address to ask from",
            f"put back the permanent entry: `ip neigh add {address} lladdr MAC dev {link.name} nud permanent`",
        )
    return _frame("icmp", source, _solicited_node(address), (link.mac, BROADCAST), SOLICIT, address)


def _answer(question: Packet, address: str, mac: str) -> Skb:
    kind = ADVERT if question.proto == "icmp" else 0
    target = address if question.proto == "icmp" else ""
    return Skb(_frame(question.proto, address, question.source, (mac, question.mac_source), kind, target))


def _frame(
    proto: Protocol,
    source: str,
    destination: str,
    macs: tuple[str, str],
    icmp_type: int = 0,
    target: str = "",
) -> Packet:
    """`macs`: from and to."""
    return Packet(
        proto=proto,
        source=source,
        destination=destination,
        mac_source=macs[0],
        mac_destination=macs[1],
        icmp_type=icmp_type,
        target=target,
        size=ND_BYTES,
        ttl=ND_HOPS,
    )


def _solicited_node(address: str) -> str:
    """RFC 4291 §2.7.1."""
    packed = socket.inet_pton(socket.AF_INET6, address)
    return socket.inet_ntop(socket.AF_INET6, b"\xff\x02" + bytes(9) + b"\x01\xff" + packed[-3:])
