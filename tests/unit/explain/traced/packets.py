"""Packets by hand: bytes of headers, sightings, and journeys made of them."""

from __future__ import annotations

import socket
import struct

from sealane.explain.packet import Tuple
from sealane.explain.traced.event import Headers, RuleTraceEvent, TraceEvent
from sealane.explain.traced.observed_path import ObservedPath

NUMBERS = {
    4: {"icmp": 1, "tcp": 6, "udp": 17, "sctp": 132},
    6: {"icmp": 58, "tcp": 6, "udp": 17, "sctp": 132},
}


def tcp(source=40000, destination=80, sequence=7):
    return struct.pack("!HHIIHHHH", source, destination, sequence, 0, 0x5002, 64240, 0, 0)


def udp(source=40000, destination=53, length=8):
    return struct.pack("!HHHH", source, destination, length, 0)


def echo(identity=9, number=1, kind=8):
    return struct.pack("!BBHHH", kind, 0, 0, identity, number)


def ipv4(
    payload,
    source="10.1.0.2",
    destination="10.1.0.3",
    *,
    proto="tcp",
    identity=5,
    ttl=64,
    offset=0,
    options=b"",
    size=0,
):
    words = 5 + len(options) // 4
    size = size or 4 * words + len(payload)
    head = struct.pack(
        "!BBHHHBBH", 0x40 | words, 0, size, identity, offset, ttl, NUMBERS[4].get(proto, proto), 0
    )
    return head + socket.inet_aton(source) + socket.inet_aton(destination) + options + payload


def ipv6(payload, source="fd00::2", destination="fd00::3", *, proto="tcp", label=5, ttl=64):
    head = struct.pack("!IHBB", 6 << 28 | label, len(payload), NUMBERS[6].get(proto, proto), ttl)
    return (
        head
        + socket.inet_pton(socket.AF_INET6, source)
        + socket.inet_pton(socket.AF_INET6, destination)
        + payload
    )


FLOW = Tuple("tcp", "10.1.0.10", 40000, "10.1.0.11", 80)


def headers(flow=FLOW, mark=(5, 7)):
    return Headers(flow=flow, ttl=64, size=60, mark=mark)


def seen(
    time,
    point="receive",
    netns=1,
    link="eth0",
    *,
    skb=0xA,
    flow=FLOW,
    mark=(5, 7),
    ifindex=2,
    reason="",
    location=0,
):
    """`time` in microseconds."""
    return TraceEvent(
        time_ns=time * 1000, skb=skb, point=point, netns=netns, ifindex=ifindex, link=link,
        headers=headers(flow, mark), reason=reason, location=location,
    )  # fmt: skip


def ruled(
    verdict="accept",
    *,
    netns=1,
    table="sealane",
    family="ip",
    chain="forward",
    handle=4,
    iif=2,
    oif=0,
    flow=FLOW,
    mark=(5, 7),
    comment="",
):
    return RuleTraceEvent(
        netns=netns, family=family, table=table, chain=chain, handle=handle, verdict=verdict, iif=iif, oif=oif,
        headers=headers(flow, mark), comment=comment,
    )  # fmt: skip


def observed_path(*trace_events, rules=()):
    return ObservedPath(trace_events=tuple(trace_events), rules=tuple(rules))
