"""What a packet shows to foreign rules. The bytes that depend on the sender (ports out of the ephemeral range, TTL, ids,
sums, options) are not known, and neither is the time, the socket or the processor."""

from sealane.explain import headers
from sealane.explain.conntrack import Tracked
from sealane.explain.foreign.judge import Sight
from sealane.explain.foreign.rules import Bits, Load
from sealane.explain.foreign_state import ForeignLink
from sealane.explain.packet import CLIENT_PORT, Packet
from sealane.explain.world import Namespace
from sealane.kernel.nft import FIB_LOCAL

_LINK, _NETWORK, _TRANSPORT = 0, 1, 2
_SYN = 0x02

_NOT_TOLD = {4: (1, 2, 3, 4, 5, 6, 8, 10, 11), 6: (0, 1, 2, 3, 4, 5, 7)}
"""Bytes of IP headers: class, length, id, flags, TTL or hop limit, checksum."""

_PROTOCOL, _IIF, _OIF, _IIFNAME, _OIFNAME = 1, 4, 5, 6, 7
_NFPROTO, _L4PROTO, _IBRIDGE, _OBRIDGE, _IIFGROUP, _OIFGROUP = 15, 16, 17, 18, 21, 22
"""NFT_META_*."""
_CT_STATE, _CT_DIRECTION, _CT_STATUS = 0, 1, 2
"""NFT_CT_*."""
_NFPROTO_OF = {4: 2, 6: 10}
_FIB_UNICAST = 1
_NAT_BITS = 0x30
"""IPS_SRC_NAT, IPS_DST_NAT; other bits depend on the moment."""


_NOT_IN_ARP = {"meta": (_L4PROTO,), "payload": (_TRANSPORT,)}


class PacketSight:
    """One packet at one hook of one namespace."""

    def __init__(self, where: Namespace, packet: Packet, iif: str, oif: str, tracked: Tracked | None) -> None:
        self._where, self._packet, self._iif, self._oif = where, packet, iif, oif
        self._tracked = tracked
        self._headers: dict[int, Bits] = {}

    def sight(self, mark: int | None) -> Sight:
        return Sight(self.load, mark)

    def load(self, load: Load) -> Bits | None:
        """What is not known is not given; None: a packet of this kind has no such thing (NFT_BREAK)."""
        if self._packet.proto == "arp" and load.of[:1] == _NOT_IN_ARP.get(load.kind):
            return None
        match load.kind, load.of:
            case "payload", (base, offset, size):
                return self._header(base)[offset : offset + size]
            case "meta", (key,):
                return self._meta(key)
            case "ct", (key, *rest):
                return self._ct(key, only_nat=bool(rest))
            case "fib", _:
                return self._fib()
        return ()

    def _header(self, base: int) -> Bits:
        found = self._headers.get(base)
        if found is None:
            found = self._headers[base] = self._bytes(base)
        return found

    def _bytes(self, base: int) -> Bits:
        packet = self._packet
        if base == _LINK:
            known = packet.mac_source and packet.mac_destination
            return tuple(headers.link_header(packet)) if known else ()
        if base == _NETWORK:
            hidden = _NOT_TOLD[packet.family] if packet.proto != "arp" else ()
            data = headers.network_header(packet)
            return tuple(None if at in hidden else octet for at, octet in enumerate(data))
        return self._transport() if base == _TRANSPORT and packet.proto != "arp" else ()

    def _transport(self) -> Bits:
        packet = self._packet
        if packet.proto == "icmp":
            return tuple(headers.transport_header(packet)[:2])
        ports: list[int | None] = []
        for port in (packet.source_port, packet.destination_port):
            ports += (None, None) if port == CLIENT_PORT else port.to_bytes(2, "big")
        if packet.proto != "tcp":
            return tuple(ports)
        is_first = self._tracked is not None and self._tracked.state == "new"
        return (*ports, *(None,) * 9, _SYN if is_first else None)

    def _meta(self, key: int) -> Bits:
        packet, is_ip = self._packet, self._packet.proto != "arp"
        link = self._iif if key in {_IIF, _IIFNAME, _IBRIDGE, _IIFGROUP} else self._oif
        if key == _PROTOCOL:
            return tuple(headers.ethertype(packet).to_bytes(2, "big"))
        if key == _NFPROTO:
            return (_NFPROTO_OF[packet.family],) if is_ip else ()
        if key == _L4PROTO:
            return (headers.protocol_number(packet),) if is_ip else ()
        if key in {_IIFNAME, _OIFNAME}:
            return _name(link)
        if key in {_IBRIDGE, _OBRIDGE}:
            return self._bridge(link)
        if key in {_IIF, _OIF}:
            index = self._where.rules.indexes.get(link)
            return () if index is None else tuple(index.to_bytes(4, "little"))
        return self._group(link) if key in {_IIFGROUP, _OIFGROUP} else ()

    def _bridge(self, name: str) -> Bits:
        link = self._where.link(name)
        master = getattr(link, "master", "")
        return _name(master) if master else ()

    def _group(self, name: str) -> Bits:
        link = self._where.link(name)
        if link is None or isinstance(link, ForeignLink):
            return ()
        return tuple(self._where.group(name).to_bytes(4, "little"))

    def _ct(self, key: int, *, only_nat: bool) -> Bits:
        if self._tracked is None:
            return ()
        if key == _CT_STATE:
            return tuple(self._tracked.state_bits.to_bytes(4, "little"))
        if key == _CT_DIRECTION:
            return (self._tracked.direction,)
        if key == _CT_STATUS and only_nat:
            return tuple((self._tracked.flow.status & _NAT_BITS).to_bytes(4, "little"))
        return ()

    def _fib(self) -> Bits:
        """`fib daddr type`."""
        kind = FIB_LOCAL if self._where.is_local(self._packet.destination) else _FIB_UNICAST
        return tuple(kind.to_bytes(4, "little"))


def _name(name: str) -> Bits:
    return tuple(name.encode().ljust(16, b"\0")) if name else ()
