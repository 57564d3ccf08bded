"""Whose MAC has an address: permanent entries, or ARP and neighbour discovery asked and answered for real.

Question and answer are frames like others: they pass the same guards and the same bridge, and where they are dropped
nobody is reached. Nothing is remembered from one packet to the next: an explanation starts with empty caches.
"""

import socket
from collections.abc import Iterator

from sealane.compile.endpoint import link_local
from sealane.explain import bridging
from sealane.explain.headers import ADVERT, SOLICIT
from sealane.explain.packet import Disposition, Packet
from sealane.explain.path import Ended, Path, Skb
from sealane.explain.world import AnyLink, Namespace
from sealane.kernel.objects import Link
from sealane.model.net import address_part, family_of

BROADCAST = "ff:ff:ff:ff:ff:ff"
ND_BYTES = 72
"""IPv6 header, solicitation and the sender's link-layer address."""

WAYS = {4: "ARP", 6: "neighbour discovery"}


def resolve(path: Path, where: Namespace, link: AnyLink, address: str, skb: Skb) -> str:
    """MAC of a next hop on a link, or `Ended`."""
    known = where.neighbour(link.name, address)
    if known is not None:
        path.note("neighbour", f"{address} is at {known.mac} (permanent)", key=known.key)
        return known.mac
    way = WAYS[family_of(address)]
    with path.aside():
        try:
            mac, answered = _ask(path, where, link, address, skb)
            why_not = "nobody on this link has it"
        except Ended as ended:
            mac, answered = "", ""
            why_not = ended.reason
    if not answered:
        path.end(
            Disposition.NEIGHBOUR_UNREACHABLE,
            f"no answer to {way} for {address} on {link.name}: {why_not}",
            "see whether the address is in use on this network: `sealane network inspect`",
        )
    path.note("neighbour", f"{address} is at {mac} ({way}, answered by {answered})")
    return mac


def _ask(path: Path, where: Namespace, link: AnyLink, address: str, skb: Skb) -> tuple[str, str]:
    """(MAC, who answered); both empty if nobody did."""
    if isinstance(link, Link) and link.kind != "bridge":
        return _ask_peer(path, where, link, address, skb)
    for port in _candidates(path, where, link, address):
        if not bridging.refusal(None, port):
            other = path.world.peer(where, port)
            if other is not None and _answers(*other, address):
                answer = _answer(where, link, address, other[1].mac, link.mac, skb)
                path.enter(where, port.name)
                bridging.come_in(path, where, port, answer)
                return other[1].mac, other[0].name
    return "", ""


def _ask_peer(path: Path, where: Namespace, link: Link, address: str, skb: Skb) -> tuple[str, str]:
    other = path.world.peer(where, link)
    if other is None or not other[1].up:
        path.end(Disposition.LINK_DOWN, f"the other end of {link.name} is down")
    there, peer = other
    path.enter(there, peer.name)
    if not peer.master:
        return (peer.mac, there.name) if _answers(there, peer, address) else ("", "")
    question = Skb(_question(where, link, address, skb.packet))
    bridge = bridging.come_in(path, there, peer, question).bridge
    if _answers(there, bridge, address):
        return bridge.mac, there.name
    for port in _candidates(path, there, bridge, address):
        other = path.world.peer(there, port)
        if port.name == peer.name or other is None or not _answers(*other, address):
            continue
        bridging.forward(path, there, bridge, peer, port, question)
        answer = _answer(where, link, address, other[1].mac, link.mac, skb)
        path.enter(there, port.name)
        bridging.come_in(path, there, port, answer)
        back = bridging.out_port(path, there, bridge, answer)
        bridging.forward(path, there, bridge, port, back, answer)
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


def _question(where: Namespace, link: AnyLink, address: str, packet: Packet) -> Packet:
    if family_of(address) == 4:
        # arp_announce=0: under the packet's own source, even one of another link (arp_solicit).
        source = (
            packet.source if where.is_local(packet.source) else where.routing.source_on(link.name, 4, address)
        )
        return Packet(
            proto="arp",
            source=source or "0.0.0.0",
            destination=address,
            mac_source=link.mac,
            mac_destination=BROADCAST,
        )
    owner = where.routing.owner(packet.source)
    # ndisc_solicit: the packet's source if this link has it, else the link's own.
    own = packet.source if owner is not None and owner.link == link.name else _own_address(where, link)
    return Packet(
        proto="icmp",
        icmp_type=SOLICIT,
        source=own,
        destination=_solicited_node(address),
        target=address,
        mac_source=link.mac,
        mac_destination=BROADCAST,
        size=ND_BYTES,
        ttl=255,
    )


def _own_address(where: Namespace, link: AnyLink) -> str:
    addresses = where.routing.addresses(link.name, 6)
    return address_part(addresses[-1]) if addresses else link_local(link.mac)


def _answer(where: Namespace, link: AnyLink, address: str, from_mac: str, to_mac: str, skb: Skb) -> Skb:
    asker = _question(where, link, address, skb.packet).source
    if family_of(address) == 4:
        return Skb(
            Packet(
                proto="arp", source=address, destination=asker, mac_source=from_mac, mac_destination=to_mac
            )
        )
    return Skb(
        Packet(
            proto="icmp",
            icmp_type=ADVERT,
            source=address,
            destination=asker,
            target=address,
            mac_source=from_mac,
            mac_destination=to_mac,
            size=ND_BYTES,
            ttl=255,
        )
    )


def _solicited_node(address: str) -> str:
    """RFC 4291 §2.7.1."""
    packed = socket.inet_pton(socket.AF_INET6, address)
    return socket.inet_ntop(socket.AF_INET6, b"\xff\x02" + bytes(9) + b"\x01\xff" + packed[-3:])
