"""What tracepoints and rules tell of a packet, one record each time that it is seen.

A packet is known by the address of its skb, which stays the same from a socket to the last namespace. Addresses are
used again, so what does not change on the way (`Headers.mark`) must be the same too.
"""

from ipaddress import ip_address
from typing import Literal

import msgspec

from sealane.explain.headers import NUMBERS
from sealane.explain.packet import Protocol, Tuple, socket_text

HEADER_BYTES = 64
"""What is kept of a packet, from its network header on: IPv6 and TCP without options."""

Point = Literal["queue", "transmit", "receive", "drop", "consume"]
"""net_dev_queue, net_dev_start_xmit, netif_receive_skb, kfree_skb, consume_skb."""

PROTOCOLS: dict[int, Protocol] = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmp", 132: "sctp"}
"""IANA's numbers."""


class Pattern(msgspec.Struct, frozen=True, kw_only=True):
    """Which packets to follow. Empty and 0 fit everything. Of ICMP the ports are not looked at."""

    proto: Protocol
    family: Literal[4, 6]
    source: str = ""
    source_port: int = 0
    destination: str = ""
    destination_port: int = 0

    @property
    def number(self) -> int:
        """The protocol's, as the IP header has it."""
        return NUMBERS[self.proto, self.family]

    def fits(self, flow: Tuple) -> bool:
        return (
            flow.proto == self.proto
            and self.source in {"", flow.source}
            and self.destination in {"", flow.destination}
            and (self.proto == "icmp" or self.source_port in {0, flow.source_port})
            and (self.proto == "icmp" or self.destination_port in {0, flow.destination_port})
        )

    def __str__(self) -> str:
        source = socket_text(self.source or "anybody", self.source_port)
        return f"{source} → {socket_text(self.destination or 'anybody', self.destination_port)} {self.proto}"


class Headers(msgspec.Struct, frozen=True, kw_only=True):
    """An IP packet's beginning."""

    flow: Tuple
    ttl: int
    size: int
    """Bytes of the IP packet."""
    mark: tuple[int, ...]
    """What neither routers nor translation change: IPv4's id, IPv6's flow label, TCP's sequence number, an echo's id and number."""


class TraceEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One look at one packet."""

    time_ns: int
    """CLOCK_MONOTONIC."""
    skb: int
    point: Point
    netns: int
    """Inode of the namespace of the device; 0: it has none (any more)."""
    ifindex: int
    link: str
    headers: Headers
    reason: str = ""
    """Of a drop, the kernel's word without its prefix: `NETFILTER_DROP`, `NO_SOCKET`, …"""
    location: int = 0
    """Of a drop, the address of the code that dropped it."""


class RuleTraceEvent(msgspec.Struct, frozen=True, kw_only=True):
    """A rule, or the policy of a base chain, that decided something about a packet (NFNLGRP_NFTRACE)."""

    netns: int
    family: str
    table: str
    chain: str
    handle: int
    """Of the rule in its chain; 0: the chain's policy, or its end."""
    verdict: str
    """`accept`, `drop`, `jump CHAIN`, …"""
    iif: int
    oif: int
    headers: Headers
    comment: str = ""
    """What the rule's maker noted: ours begin with a tag (`kernel.nft.Rule`)."""


def parse_headers(data: bytes) -> Headers | None:
    """From the network header on. None: no IP, or too short."""
    if len(data) < 20:
        return None
    version = data[0] >> 4
    if version == 4:
        length, number, source, destination = 4 * (data[0] & 0xF), data[9], data[12:16], data[16:20]
        size, ttl = int.from_bytes(data[2:4]), data[8]
        mark: tuple[int, ...] = (int.from_bytes(data[4:6]),)
    elif version == 6 and len(data) >= 40:
        length, number, source, destination = 40, data[6], data[8:24], data[24:40]
        size, ttl = 40 + int.from_bytes(data[4:6]), data[7]
        mark = (int.from_bytes(data[1:4]) & 0xFFFFF,)
    else:
        return None
    proto = PROTOCOLS.get(number)
    if proto is None:
        return None
    later = int.from_bytes(data[6:8]) & 0x1FFF if version == 4 else 0
    # Of a packet in fragments the first alone has ports.
    ports, more = ((0, 0), (later,)) if later else _transport(proto, data[length:])
    flow = Tuple(proto, _address(source), ports[0], _address(destination), ports[1])
    return Headers(flow=flow, ttl=ttl, size=size, mark=(*mark, *more))


def _transport(proto: str, data: bytes) -> tuple[tuple[int, int], tuple[int, ...]]:
    """Ports, and what does not change."""
    if proto == "icmp":
        identity = int.from_bytes(data[4:6])
        return (identity, identity), (int.from_bytes(data[:2]), int.from_bytes(data[6:8]))
    ports = int.from_bytes(data[:2]), int.from_bytes(data[2:4])
    if proto == "tcp":
        return ports, (int.from_bytes(data[4:8]),)
    return ports, (int.from_bytes(data[4:6]),) if proto == "udp" else ()


def _address(packed: bytes) -> str:
    return str(ip_address(packed))
