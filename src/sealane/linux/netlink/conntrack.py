"""Connection tracking entries that have become wrong, found and deleted (ctnetlink).

An entry remembers how its flow was translated when it began, and a UDP flow of an eager client never ends. So when a
port is published, unpublished or leads elsewhere, entries of the state before would go on as if nothing had happened.
They are found by what the client asked for, the *original* destination with the host's port, and by who answers, the
*reply* source, which is the endpoint. What an endpoint that has gone asked of others is found by its *original* source:
their answers would go to the address's next owner. The endpoint's own port is no criterion: another host port may lead to it, whose
flows are none of our business (moby#53384).

Be aware: a deletion without a tuple is taken by the kernel for a flush of everything, so `FlowMatch` refuses to match
every flow, and deletions are made from what was found, tuple, zone and id. (net/netfilter/nf_conntrack_netlink.c)
"""

import errno
import socket as sockets
import struct
from collections.abc import Iterator, Sequence
from typing import Literal

import msgspec

from sealane.linux.netlink import codec
from sealane.linux.netlink.codec import attr, be16, nested, u8, u32
from sealane.linux.netlink.socket import Socket
from sealane.model.net import PROTO_NUMBERS, Family, bounds, to_int

FILTERED_DUMPS_MAX = 16
"""Dumps that the kernel filters, each a walk through its table, before one of everything is cheaper."""

PORT_MAX = 65535

_SUBSYSTEM = 1 << 8
_GET, _DELETE = 1, 2
_NFGENMSG = struct.Struct(">BBH")
_NFGENMSG_BYTES = 4

_TUPLE_ORIG, _TUPLE_REPLY, _ID, _ZONE, _FILTER = 1, 2, 12, 18, 25
_TUPLE_IP, _TUPLE_PROTO = 1, 2
_PROTO_NUM, _PROTO_SRC_PORT, _PROTO_DST_PORT = 1, 2, 3
_IP_SRC: dict[Family, int] = {4: 1, 6: 3}
_IP_DST: dict[Family, int] = {4: 2, 6: 4}
_AF: dict[Family, int] = {4: sockets.AF_INET, 6: sockets.AF_INET6}

_FILTER_ORIG_FLAGS, _FILTER_REPLY_FLAGS = 1, 2
_F_IP_SRC, _F_IP_DST, _F_PROTO_NUM, _F_DST_PORT = 1, 2, 8, 32
"""CTA_FILTER_F_* (net/netfilter/nf_internals.h). Kernels before 5.8 do not filter; every answer is looked at here."""


class Flow(msgspec.Struct, frozen=True, kw_only=True):
    """An entry: where its first packet went, and where answers come from and go to. Ports are 0 where the protocol
    has none."""

    family: Family
    proto: int
    source: str
    source_port: int
    destination: str
    destination_port: int
    reply_source: str
    reply_source_port: int
    reply_destination: str
    reply_destination_port: int
    identity: bytes = b""
    """The attributes by which the kernel finds this very entry again: tuple, zone, id."""


class FlowMatch(msgspec.Struct, frozen=True, kw_only=True):
    """Which entries are meant: all that is set must hold. An address of the original destination, its ports from
    `first` to `last`, the address of who answers, the address of who asked. Refuses (ValueError) to mean every flow of a protocol."""

    family: Family
    proto: Literal["tcp", "udp", "sctp", ""] = "udp"
    """Empty: any."""
    destination: str = ""
    first: int = 0
    last: int = PORT_MAX
    reply_source: str = ""
    source: str = ""
    prefix: str = ""
    """Of who asked: what the kernel is not asked about, and is looked at here."""

    def __post_init__(self) -> None:
        if not (self.destination or self.reply_source or self.source or self.prefix or self._has_ports):
            raise ValueError("a match on flows needs an address or ports: it would delete all")
        if not 0 <= self.first <= self.last <= PORT_MAX:
            raise ValueError(f"ports {self.first}-{self.last}: not a range of ports")

    @property
    def _has_ports(self) -> bool:
        return (self.first, self.last) != (0, PORT_MAX)

    def matches(self, flow: Flow) -> bool:
        return (
            self.family == flow.family
            and (not self.proto or PROTO_NUMBERS[self.proto] == flow.proto)
            and self.first <= flow.destination_port <= self.last
            and self.destination in {"", flow.destination}
            and self.reply_source in {"", flow.reply_source}
            and self.source in {"", flow.source}
            and (not self.prefix or _is_within(flow.source, self.prefix))
        )

    def filter(self) -> bytes:
        """What the kernel can look at itself, as attributes of a dump; nothing for any protocol and address.

        It is not asked about IPv6 addresses, of which it returns all flows but those (6.18: ctnetlink_filter_match_tuple
        takes ipv6_addr_cmp, zero for equal, for its opposite).
        """
        orig, orig_flags = self._proto(), _F_PROTO_NUM if self.proto else 0
        if self.family == 4 and (self.destination or self.source):
            ip = b""
            if self.source:
                ip += attr(_IP_SRC[4], sockets.inet_aton(self.source))
                orig_flags |= _F_IP_SRC
            if self.destination:
                ip += attr(_IP_DST[4], sockets.inet_aton(self.destination))
                orig_flags |= _F_IP_DST
            orig = nested(_TUPLE_IP, ip) + orig
        if self.proto and self.first == self.last:
            orig_flags |= _F_DST_PORT
        found = [nested(_TUPLE_ORIG, orig)] if orig_flags else []
        reply_flags = _F_IP_SRC if self.reply_source and self.family == 4 else 0
        if reply_flags:
            source = attr(_IP_SRC[4], sockets.inet_aton(self.reply_source))
            found.append(nested(_TUPLE_REPLY, nested(_TUPLE_IP, source)))
        if not found:
            return b""
        flags = u32(_FILTER_ORIG_FLAGS, orig_flags) + u32(_FILTER_REPLY_FLAGS, reply_flags)
        return b"".join([*found, nested(_FILTER, flags)])

    def _proto(self) -> bytes:
        if not self.proto:
            return b""
        number = u8(_PROTO_NUM, PROTO_NUMBERS[self.proto])
        return nested(_TUPLE_PROTO, number, be16(_PROTO_DST_PORT, self.first))


def _is_within(address: str, prefix: str) -> bool:
    first, last = bounds(prefix)
    return first <= to_int(address) <= last


def delete_flows(socket: Socket, matches: Sequence[FlowMatch]) -> int:
    """Delete the entries that any of `matches` means; how many there were. Idempotent. Raises NetlinkError.

    The flow's next packet is tracked anew, by the rules of then: change these first.
    """
    found: dict[bytes, Flow] = {}
    for family in _AF:
        desired = [match for match in matches if match.family == family]
        filters = {match.filter() for match in desired}
        for attrs in filters if len(filters) <= FILTERED_DUMPS_MAX else {b""}:
            for flow in _dump(socket, family, attrs):
                if any(match.matches(flow) for match in desired):
                    found[flow.identity] = flow
    requests = [_message(_DELETE, flow.family, codec.NLM_F_ACK, flow.identity) for flow in found.values()]
    errors = [error for error in socket.request(requests) if error is not None]
    for error in errors:
        if error.errno != errno.ENOENT:
            raise error
    return len(requests) - len(errors)


def flows(socket: Socket, family: Family) -> list[Flow]:
    """Every entry of a family. Raises NetlinkError."""
    return list(_dump(socket, family, b""))


def _message(kind: int, family: Family, flags: int, attrs: bytes) -> bytes:
    header = _NFGENMSG.pack(_AF[family], 0, 0)
    return codec.message(_SUBSYSTEM | kind, flags | codec.NLM_F_REQUEST, 0, header + attrs)


def _dump(socket: Socket, family: Family, attrs: bytes) -> Iterator[Flow]:
    for _, payload in socket.dump(_message(_GET, family, codec.NLM_F_DUMP, attrs)):
        found = codec.attrs(payload[_NFGENMSG_BYTES:])
        if _TUPLE_ORIG in found and _TUPLE_REPLY in found:
            yield _flow(family, found)


def _flow(family: Family, found: dict[int, memoryview]) -> Flow:
    source, destination, proto, source_port, destination_port = _tuple(family, found[_TUPLE_ORIG])
    reply_source, reply_destination, _, reply_source_port, reply_destination_port = _tuple(
        family, found[_TUPLE_REPLY]
    )
    identity = [nested(_TUPLE_ORIG, bytes(found[_TUPLE_ORIG]))]
    identity += [attr(kind, bytes(found[kind])) for kind in (_ZONE, _ID) if kind in found]
    return Flow(
        family=family,
        proto=proto,
        source=source,
        source_port=source_port,
        destination=destination,
        destination_port=destination_port,
        reply_source=reply_source,
        reply_source_port=reply_source_port,
        reply_destination=reply_destination,
        reply_destination_port=reply_destination_port,
        identity=b"".join(identity),
    )


def _tuple(family: Family, payload: memoryview) -> tuple[str, str, int, int, int]:
    """(source, destination, protocol, source port, destination port) of one direction."""
    parts = codec.attrs(payload)
    ip, proto = codec.attrs(parts[_TUPLE_IP]), codec.attrs(parts[_TUPLE_PROTO])
    source, destination = (sockets.inet_ntop(_AF[family], ip[kind[family]]) for kind in (_IP_SRC, _IP_DST))
    ports = [int.from_bytes(proto.get(kind, b""), "big") for kind in (_PROTO_SRC_PORT, _PROTO_DST_PORT)]
    return source, destination, proto[_PROTO_NUM][0], ports[0], ports[1]
