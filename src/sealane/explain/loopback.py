"""The socket program: what a process of the host sends to a published port of its own loopback goes to the backend.

It works at `connect` and `sendmsg`, before there is a packet (linux/bpf/programs.py), so routing, rules and connection
tracking see the backend's address only. It does nothing in other namespaces.
"""

import msgspec

from sealane.explain.packet import Packet, socket_text
from sealane.explain.path import Path
from sealane.explain.world import Namespace, World
from sealane.kernel.objects import LoopbackPort
from sealane.model.net import family_of, is_loopback, is_wildcard


def redirect(path: Path, where: Namespace, packet: Packet) -> Packet:
    """The packet as the socket sends it after the program has run. A socket bound to loopback is left alone (Rule 3)."""
    to_loopback = is_loopback(packet.destination) or is_wildcard(packet.destination)
    if not to_loopback or (packet.source and is_loopback(packet.source)):
        return packet
    found = _published(where, packet)
    if found is None:
        return packet
    port = found.port + packet.destination_port - found.first
    path.note(
        "socket",
        f"the socket program sends it to {socket_text(found.address, port)}",
        detail=f"loopback {found.proto} {found.first}-{found.last} to {socket_text(found.address, found.port)}",
        key=found.key,
    )
    # The source is chosen anew, for the backend.
    return msgspec.structs.replace(packet, source="", destination=found.address, destination_port=port)


def at_host(world: World, where: Namespace, packet: Packet) -> tuple[str, str]:
    """What a port that is published means for a packet that came as far as the host's own sockets, and a hint."""
    relay = world.relays.find(packet.family, packet.proto, packet.destination_port)
    if relay is not None:
        if not world.relays.admits(packet.source):
            return (
                ", whose relay refuses workloads of internal networks",
                "attach it to a network that leads out",
            )
        return (
            f", whose relay takes it on to {socket_text(relay.address, relay.target(packet.destination_port))}",
            "",
        )
    found = _published(where, packet)
    if found is None or is_loopback(packet.destination):
        return "", ""
    port = f"{packet.destination_port}/{packet.proto}"
    hint = "publish it on this address, or on all"
    if family_of(found.address) != packet.family:
        hint = f"give the network a subnet of IPv{packet.family}"
    return f", and not to whom it is published for: {port} is published on the loopback only", hint


def _published(where: Namespace, packet: Packet) -> LoopbackPort | None:
    desired = where.loopback_ports(packet.family, packet.proto)
    return next((item for item in desired if item.first <= packet.destination_port <= item.last), None)
