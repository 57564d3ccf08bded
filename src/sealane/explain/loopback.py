"""The socket program: what a process of the host sends to a published port of its own loopback goes to the backend.

It works at `connect` and `sendmsg`, before there is a packet (linux/bpf/programs.py), so routing, rules and connection
tracking see the backend's address only. It does nothing in other namespaces.
"""

import msgspec

from sealane.explain.packet import Packet, socket_text
from sealane.explain.path import Path
from sealane.explain.world import Namespace
from sealane.kernel.objects import LoopbackPort
from sealane.model.net import is_loopback, is_wildcard


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


def is_loopback_only(where: Namespace, packet: Packet) -> bool:
    """Whether a packet that came as far as the host's own sockets asks for a port that is published on the loopback, and
    so not on the address that it asks."""
    return not is_loopback(packet.destination) and _published(where, packet) is not None


def _published(where: Namespace, packet: Packet) -> LoopbackPort | None:
    wanted = where.loopback_ports(packet.family, packet.proto)
    return next((item for item in wanted if item.first <= packet.destination_port <= item.last), None)
