"""The bytes of a packet's headers, as rules see them. A load beyond them fails, as it does in the kernel."""

import struct
from functools import lru_cache

from sealane.explain.packet import Packet
from sealane.model.net import Family, packed

NUMBERS: dict[tuple[str, Family], int] = {
    ("tcp", 4): 6,
    ("tcp", 6): 6,
    ("udp", 4): 17,
    ("udp", 6): 17,
    ("sctp", 4): 132,
    ("sctp", 6): 132,
    ("icmp", 4): 1,
    ("icmp", 6): 58,
}
ETHERTYPE_ARP, ETHERTYPE_IP, ETHERTYPE_IP6 = 0x0806, 0x0800, 0x86DD
ECHO_REQUEST: dict[Family, int] = {4: 8, 6: 128}
ECHO_REPLY: dict[Family, int] = {4: 0, 6: 129}
SOLICIT, ADVERT = 135, 136
"""Neighbour discovery (RFC 4861)."""
NO_MAC = bytes(6)
_CACHED = 4096
_DONT_FRAGMENT = 0x4000


@lru_cache(maxsize=_CACHED)
def ethertype(packet: Packet) -> int:
    if packet.proto == "arp":
        return ETHERTYPE_ARP
    return ETHERTYPE_IP if packet.family == 4 else ETHERTYPE_IP6


def protocol_number(packet: Packet) -> int:
    return NUMBERS[packet.proto, packet.family]


def icmp_type(packet: Packet) -> int:
    return packet.icmp_type or ECHO_REQUEST[packet.family]


def link_header(packet: Packet) -> bytes:
    return _mac(packet.mac_destination) + _mac(packet.mac_source) + ethertype(packet).to_bytes(2, "big")


def network_header(packet: Packet) -> bytes:
    if packet.proto == "arp":
        return _arp(packet)
    source, destination = packed(packet.source), packed(packet.destination)
    number = protocol_number(packet)
    if packet.family == 6:
        return struct.pack("!IHBB", 6 << 28, packet.size - 40, number, packet.ttl) + source + destination
    flags = _DONT_FRAGMENT if packet.dont_fragment else 0
    head = struct.pack("!BBHHHBBH", 0x45, 0, packet.size, 0, flags, packet.ttl, number, 0)
    return head + source + destination


def transport_header(packet: Packet) -> bytes:
    """As far as rules look: ports, or the type and body of ICMP."""
    if packet.proto == "icmp":
        head = struct.pack("!BBHHH", icmp_type(packet), 0, 0, packet.destination_port, 0)
        return head + (packed(packet.target) if packet.target else b"")
    return struct.pack("!HHI", packet.source_port, packet.destination_port, 0)


def _arp(packet: Packet) -> bytes:
    sender = _mac(packet.sender_mac or packet.mac_source)
    fixed = struct.pack("!HHBBH", 1, ETHERTYPE_IP, 6, 4, 1)
    return fixed + sender + packed(packet.source) + NO_MAC + packed(packet.destination)


def _mac(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", "")) if mac else NO_MAC
