"""Matches and targets of xtables in rules of iptables-nft (net/netfilter/nft_compat.c), from their binary settings
(include/uapi/linux/netfilter/xt_*.h). A match that is not known is a condition that cannot be told; a target that is not
known may do anything."""

import socket
import struct
from collections.abc import Callable, Mapping

from sealane.explain.foreign.rules import (
    NOTHING,
    Decide,
    LocalDestination,
    Mark,
    Maybe,
    Opaque,
    Operation,
    Ports,
    SetMark,
    States,
    Translate,
)

_TCP, _UDP = 6, 17
_RTN_LOCAL_BIT = 1 << 2
_STATES = {1: 1, 2: 2, 4: 4, 8: 8, 256: 64}
"""XT_CONNTRACK_STATE_* → bits of nftables' `ct state`: invalid, established, related, new, untracked."""
_SNAT_STATE, _DNAT_STATE = 64, 128
_SNAT_STATUS, _DNAT_STATUS = 16, 32
_RANGE_MAP_IPS, _RANGE_PROTO = 1, 2


def match(name: str, revision: int, info: bytes) -> Operation:
    decode = _MATCHES.get((name, revision))
    try:
        found = decode(info) if decode is not None else None
    except (struct.error, IndexError):
        found = None
    return found if found is not None else Maybe(name)


def target(name: str, revision: int, info: bytes) -> Operation:
    if name in _HARMLESS:
        return NOTHING
    decode = _TARGETS.get((name, revision))
    try:
        found = decode(info) if decode is not None else None
    except (struct.error, ValueError):
        found = None
    return found if found is not None else Opaque(name)


def _tcp(info: bytes) -> Operation | None:
    """struct xt_tcp: ports, option, flags' mask and comparison, inversions."""
    *ports, option, mask, _, inverse = struct.unpack_from("=HHHHBBBB", info)
    return None if option or mask else _ports(_TCP, ports, inverse)


def _udp(info: bytes) -> Operation | None:
    """struct xt_udp."""
    *ports, inverse = struct.unpack_from("=HHHHB", info)
    return _ports(_UDP, ports, inverse)


def _ports(proto: int, ports: list[int], inverse: int) -> Operation:
    return Ports(
        proto,
        source=((ports[0], ports[1]),),
        destination=((ports[2], ports[3]),),
        negate_source=bool(inverse & 1),
        negate_destination=bool(inverse & 2),
    )


def _address_type(info: bytes) -> Operation | None:
    """struct xt_addrtype_info_v1."""
    source, destination, flags = struct.unpack_from("=HHI", info)
    if source or destination != _RTN_LOCAL_BIT or flags & ~2:
        return None
    return LocalDestination(negate=bool(flags & 2))


def _conntrack(info: bytes) -> Operation | None:
    """struct xt_conntrack_mtinfo3, if nothing but the state is asked for."""
    flags, inverse, states = struct.unpack_from("=HHH", info, 146)
    if flags != 1:
        return None
    bits = sum(ours for theirs, ours in _STATES.items() if states & theirs)
    status = _SNAT_STATUS if states & _SNAT_STATE else 0
    status |= _DNAT_STATUS if states & _DNAT_STATE else 0
    return States(bits, status, negate=bool(inverse & 1))


def _mark(info: bytes) -> Operation:
    """struct xt_mark_mtinfo1."""
    mark, mask, inverse = struct.unpack_from("=IIB", info)
    return Mark(mark, mask, negate=bool(inverse))


def _set_mark(info: bytes) -> Operation:
    """struct xt_mark_tginfo2."""
    mark, mask = struct.unpack_from("=II", info)
    return SetMark(mark, mask)


def _nat(kind: str, *, is_range1: bool) -> Callable[[bytes], Operation]:
    """struct nf_nat_range, or nf_nat_ipv4_multi_range_compat of revision 0."""

    def decode(info: bytes) -> Operation:
        if is_range1:
            _, flags, first, _, port, _ = struct.unpack_from("=II4s4s2s2s", info)
            address = socket.inet_ntop(socket.AF_INET, first)
        else:
            flags, first, _, port, _ = struct.unpack_from("=I16s16s2s2s", info)
            is_v4 = not any(first[4:])
            address = socket.inet_ntop(
                socket.AF_INET if is_v4 else socket.AF_INET6, first[:4] if is_v4 else first
            )
        return Translate(
            "destination" if kind == "destination" else "source",
            address if flags & _RANGE_MAP_IPS else "",
            str(int.from_bytes(port, "big")) if flags & _RANGE_PROTO else "",
        )

    return decode


_HARMLESS = frozenset(
    {"LOG", "NFLOG", "AUDIT", "TRACE", "RATEEST", "CHECKSUM", "CLASSIFY", "CONNMARK", "TCPMSS"}
)
_MATCHES: Mapping[tuple[str, int], Callable[[bytes], Operation | None]] = {
    ("comment", 0): lambda _: NOTHING,
    ("tcp", 0): _tcp,
    ("udp", 0): _udp,
    ("addrtype", 1): _address_type,
    ("conntrack", 2): _conntrack,
    ("conntrack", 3): _conntrack,
    ("mark", 1): _mark,
}
_TARGETS: Mapping[tuple[str, int], Callable[[bytes], Operation | None]] = {
    ("MARK", 2): _set_mark,
    ("REJECT", 0): lambda _: Decide("reject"),
    ("DNAT", 0): _nat("destination", is_range1=True),
    ("DNAT", 1): _nat("destination", is_range1=False),
    ("DNAT", 2): _nat("destination", is_range1=False),
    ("REDIRECT", 0): _nat("destination", is_range1=True),
    ("SNAT", 0): _nat("source", is_range1=True),
    ("SNAT", 1): _nat("source", is_range1=False),
    ("SNAT", 2): _nat("source", is_range1=False),
    ("MASQUERADE", 0): lambda _: Translate("source"),
    ("TPROXY", 0): lambda _: Translate("socket"),
    ("TPROXY", 1): lambda _: Translate("socket"),
}
