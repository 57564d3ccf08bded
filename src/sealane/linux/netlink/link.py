"""RTM_*LINK: links, the bridge's and a port's own settings (linux/if_link.h).

Two kernel facts shape these messages. A new link takes MAC, MTU, group and master with its creation, but its alias,
its IPv6 address generation and its settings as a bridge port only afterwards (rtnl_newlink_create ignores them), so a
link is made by `create` and finished by `settings`. And a port's settings go to the bridge that it is in when the
message begins, so a link that moves to another bridge takes two messages.
"""

import struct
import sys
from collections.abc import Mapping

import msgspec

from sealane.kernel.links import LinkKind, OtherKind, Veth
from sealane.kernel.objects import GROUP_DOOMED, GROUP_LIVE, BridgePort, Link
from sealane.linux.netlink import codec, kinds
from sealane.linux.netlink.kinds import IFLA_LINKINFO, can_change, link_info, veth
from sealane.model.net import IPV6_MTU_MIN

RTM_NEWLINK = 16
RTM_DELLINK = 17
RTM_GETLINK = 18
RTM_SETLINK = 19

IFF_UP = 1
IFF_NOARP = 0x80
IFF_RUNNING = 0x40
"""It carries, and the kernel has taken note of that."""
LOOPBACK_INDEX = 1
"""`lo`'s, in every namespace (LOOPBACK_IFINDEX, net/flow.h)."""

_IFLA_ADDRESS = 1
_IFLA_IFNAME = 3
_IFLA_MTU = 4
_IFLA_MASTER = 10
_IFLA_PROTINFO = 12
_IFLA_IFALIAS = 20
_IFLA_AF_SPEC = 26
_IFLA_GROUP = 27
_IFLA_NET_NS_FD = 28
_IFLA_EXT_MASK = 29

_IFLA_INFO_KIND = 1
_IFLA_INFO_DATA = 2
_IFLA_INFO_SLAVE_KIND = 4
_IFLA_INFO_SLAVE_DATA = 5

_IFLA_BRPORT_STATE = 1
_BR_STATE_FORWARDING = 3
_IFLA_BRPORT_MODE = 4
"""Hairpin."""
_IFLA_BRPORT_GUARD = 5
_IFLA_BRPORT_LEARNING = 8
_IFLA_BRPORT_UNICAST_FLOOD = 9
_IFLA_BRPORT_MCAST_FLOOD = 27
_IFLA_BRPORT_BCAST_FLOOD = 30
_IFLA_BRPORT_ISOLATED = 33

_AF_INET = 2
_AF_BRIDGE = 7
_AF_INET6 = 10
_IFLA_INET6_ADDR_GEN_MODE = 8
_EUI64, _NONE = 0, 1
_IFLA_INET_CONF = 1

SETTINGS4 = {
    "forwarding": 1,
    "accept_redirects": 4,
    "send_redirects": 6,
    "accept_source_route": 9,
    "route_localnet": 26,
}
"""What of /proc/sys/net/ipv4/conf/LINK a link's message sets as well, by its number (IPV4_DEVCONF_*, linux/ip.h).
inet_set_link_af does no more than write the number: where the sysctl did more (route_localnet forgets cached routes,
forwarding ends LRO), a message is for links that are new."""

_NONE4: Mapping[str, int] = {}

_RTEXT_FILTER_SKIP_STATS = 8
_GROUP_DEFAULT = 0
"""INIT_NETDEV_GROUP: of links that nobody has put anywhere."""

_SKIP_STATS = codec.u32(_IFLA_EXT_MASK, _RTEXT_FILTER_SKIP_STATS)

_IFINFO = struct.Struct("=BxHiII")
_U32 = struct.Struct("=I")
_ACKED = codec.NLM_F_REQUEST | codec.NLM_F_ACK
_NEW = _ACKED | codec.NLM_F_CREATE | codec.NLM_F_EXCL


class RawLink(msgspec.Struct, frozen=True, kw_only=True):
    """A link as the kernel tells of it."""

    index: int
    name: str
    flags: int = 0
    mtu: int = 0
    mac: str = ""
    alias: str = ""
    group: int = 0
    master: int = 0
    """Index; 0: none."""
    kind: LinkKind = OtherKind(name="")
    port: BridgePort | None = None
    addr_gen_none: bool | None = None
    """None: the link has no IPv6."""


def dump() -> bytes:
    header = _IFINFO.pack(0, 0, 0, 0, 0)
    return codec.message(RTM_GETLINK, codec.NLM_F_REQUEST | codec.NLM_F_DUMP, 0, header + _SKIP_STATS)


def get(name: str) -> bytes:
    desired = codec.string(_IFLA_IFNAME, name) + _SKIP_STATS
    return codec.message(RTM_GETLINK, _ACKED, 0, _IFINFO.pack(0, 0, 0, 0, 0) + desired)


def get_index(index: int) -> bytes:
    return codec.message(RTM_GETLINK, _ACKED, 0, _IFINFO.pack(0, 0, index, 0, 0) + _SKIP_STATS)


def create(link: Link, index: int, master: int) -> bytes:
    """A link of a kind that stands alone."""
    # A bridge without its MTU: see `settings`.
    bare = msgspec.structs.replace(link, mtu=0) if link.kind.has_ports else link
    enslaved = codec.u32(_IFLA_MASTER, master) if master else b""
    return codec.message(RTM_NEWLINK, _NEW, 0, _head(bare, index) + enslaved + link_info(link.kind))


def create_veth(link: Link, index: int, master: int, peer: Link, peer_index: int, peer_netns: int) -> bytes:
    """Both ends at once, the peer in the namespace of the descriptor `peer_netns`. Down, both of them."""
    where = codec.u32(_IFLA_NET_NS_FD, peer_netns)
    return _veth(link, index, master, _other_end(peer, peer_index, GROUP_LIVE) + where)


def create_loose_veth(link: Link, index: int, master: int) -> bytes:
    """Both ends on the host, the other one named `handover`, in no group of ours and of an index that the kernel
    chooses. Down, both of them."""
    assert isinstance(link.kind, Veth)
    other = Link(name=link.kind.handover, kind=Veth(), mtu=link.mtu)
    return _veth(link, index, master, _other_end(other, 0, _GROUP_DEFAULT))


def _other_end(peer: Link, index: int, group: int) -> bytes:
    return _IFINFO.pack(0, 0, index, 0, 0) + codec.string(_IFLA_IFNAME, peer.name) + _basics(peer, group)


def _veth(link: Link, index: int, master: int, other: bytes) -> bytes:
    enslaved = codec.u32(_IFLA_MASTER, master) if master else b""
    info = link_info(link.kind, veth.peer(other))
    return codec.message(RTM_NEWLINK, _NEW, 0, _head(link, index) + enslaved + info)


def settings(
    link: Link,
    index: int,
    *,
    ipv6: bool = True,
    up: bool | None = None,
    settings4: Mapping[str, int] = _NONE4,
) -> bytes | None:
    """What a fresh link did not take at its creation; None: there is nothing. `ipv6`: the kernel has it. `up` None:
    left. `settings4`: values of `SETTINGS4`; as many files would take ten times as long."""
    parts = b""
    if link.kind.has_ports and link.mtu:
        # A bridge keeps an MTU that it was changed to; one that it was made with goes with its last port
        # (br_mtu_auto_adjust, BROPT_MTU_SET_BY_USER).
        parts += codec.u32(_IFLA_MTU, link.mtu)
    if link.alias:
        parts += codec.string(_IFLA_IFALIAS, link.alias)
    if link.group != GROUP_LIVE:
        parts += codec.u32(_IFLA_GROUP, link.group)
    families = b""
    if settings4:
        values = [codec.u32(SETTINGS4[name], value) for name, value in settings4.items()]
        families += codec.nested(_AF_INET, codec.nested(_IFLA_INET_CONF, *values))
    if link.addr_gen_none and ipv6 and has_ipv6(link):
        families += _address_generation(link)
    if families:
        parts += codec.nested(_IFLA_AF_SPEC, families)
    if link.port is not None:
        parts += _port_info(link.port)
    return _on(index, parts, up=up) if parts else None


def widen(link: Link, index: int, messages: list[bytes], *, up: bool) -> list[bytes]:
    """Around the other messages of a link that was too small for IPv6: the MTU alone comes first, since in the message that
    widens it the link takes no setting for IPv6. Down, and down until it has been told to have no link-local address. (A
    message sets the MTU before it takes a link down, and IPv6's settings after it has brought it up.) `up`: it is to be."""
    first = [_on(index, b"", up=False), _on(index, codec.u32(_IFLA_MTU, link.mtu))]
    return [*first, *messages, *([set_up(index)] if up else [])]


def change(
    link: Link, index: int, master: int, *, mac: bool, moves: bool, up: bool | None, ipv6: bool = True
) -> list[bytes]:
    """Set every field of a link that exists. `mac`: that too, which is announced to neighbours. `moves`: to another
    bridge, for which it goes down, so that it never forwards with a port's default settings. `up` None: left."""
    parts = _basics(link if mac else msgspec.structs.replace(link, mac=""), link.group)
    if link.alias:
        parts += codec.string(_IFLA_IFALIAS, link.alias)
    if ipv6 and has_ipv6(link):
        parts += codec.nested(_IFLA_AF_SPEC, _address_generation(link))
    if can_change(link.kind):
        parts += link_info(link.kind)
    if not moves:
        if link.port is not None:
            parts += _port_info(link.port)
        return [_on(index, parts, up=up, arp=link.arp)]
    first = _on(index, parts + codec.u32(_IFLA_MASTER, master), up=False, arp=link.arp)
    return [first, _on(index, _port_info(link.port) if link.port else b"", up=up)]


def forward(index: int) -> bytes:
    """Switch a bridge port on. Refused (ENETDOWN) where the link does not carry: then the bridge does it by itself, later."""
    data = codec.nested(_IFLA_INFO_SLAVE_DATA, codec.u8(_IFLA_BRPORT_STATE, _BR_STATE_FORWARDING))
    info = codec.nested(IFLA_LINKINFO, codec.string(_IFLA_INFO_SLAVE_KIND, "bridge"), data)
    return _on(index, info)


def set_up(index: int) -> bytes:
    return _on(index, b"", up=True)


def doom(index: int) -> bytes:
    """Put a link into the group that `delete_doomed` deletes."""
    group = codec.u32(_IFLA_GROUP, GROUP_DOOMED)
    return codec.message(RTM_SETLINK, _ACKED, 0, _IFINFO.pack(0, 0, index, 0, 0) + group)


def delete_doomed() -> bytes:
    group = codec.u32(_IFLA_GROUP, GROUP_DOOMED)
    return codec.message(RTM_DELLINK, _ACKED, 0, _IFINFO.pack(0, 0, 0, 0, 0) + group)


def delete(index: int) -> bytes:
    return codec.message(RTM_DELLINK, _ACKED, 0, _IFINFO.pack(0, 0, index, 0, 0))


def group(number: int) -> bytes:
    """How a link's message says that it is in a group."""
    return codec.u32(_IFLA_GROUP, number)


def has_ipv6(link: Link) -> bool:
    return link.kind.is_sealanes and (not link.mtu or link.mtu >= IPV6_MTU_MIN)


def parse_name(payload: memoryview) -> tuple[int, str]:
    """Index and name alone. The kernel's first attribute is the name (rtnl_fill_ifinfo); another order is found too."""
    index: int = _IFINFO.unpack_from(payload)[2]
    for kind, value in codec.attr_list(payload[16:]):
        if kind == _IFLA_IFNAME:
            return index, codec.text(value)
    return index, ""


def parse(payload: memoryview) -> RawLink:
    """Of a link's message, or of the bridge's own about a port, which has little but the port's settings."""
    family, device, index, flags, _ = _IFINFO.unpack_from(payload)
    found = codec.attrs(payload[16:])
    info = codec.attrs(found.get(IFLA_LINKINFO, _EMPTY))
    word = codec.text(info.get(_IFLA_INFO_KIND, _EMPTY))
    slave = codec.text(info.get(_IFLA_INFO_SLAVE_KIND, _EMPTY))
    port = info.get(_IFLA_INFO_SLAVE_DATA) if slave == "bridge" else None
    if family == _AF_BRIDGE:
        port = found.get(_IFLA_PROTINFO)
    data = codec.attrs(info.get(_IFLA_INFO_DATA, _EMPTY))
    return RawLink(
        index=index,
        name=codec.text(found.get(_IFLA_IFNAME, _EMPTY)),
        flags=flags,
        mtu=_number(found.get(_IFLA_MTU)),
        mac=found.get(_IFLA_ADDRESS, _EMPTY).hex(":"),
        alias=codec.text(found.get(_IFLA_IFALIAS, _EMPTY)),
        group=_number(found.get(_IFLA_GROUP)),
        master=_number(found.get(_IFLA_MASTER)),
        kind=kinds.parse(word, data, is_loopback=device == _ARPHRD_LOOPBACK),
        port=None if port is None else _parse_port(port, flags),
        addr_gen_none=_parse_generation(found.get(_IFLA_AF_SPEC, _EMPTY)),
    )


_EMPTY = memoryview(b"")
_ARPHRD_LOOPBACK = 772


def _head(link: Link, index: int) -> bytes:
    return _IFINFO.pack(0, 0, index, 0, 0) + codec.string(_IFLA_IFNAME, link.name) + _basics(link, GROUP_LIVE)


def _basics(link: Link, group: int) -> bytes:
    """`group`: a fresh link is in GROUP_LIVE, by which it is known as ours until it has its alias."""
    parts = codec.u32(_IFLA_GROUP, group)
    if link.mtu:
        parts += codec.u32(_IFLA_MTU, link.mtu)
    if link.mac:
        parts += codec.attr(_IFLA_ADDRESS, _mac(link.mac))
    return parts


def _on(index: int, parts: bytes, *, up: bool | None = None, arp: bool | None = None) -> bytes:
    """A change of the link `index`. RTM_NEWLINK without NLM_F_CREATE, since RTM_SETLINK ignores IFLA_LINKINFO."""
    flags = (IFF_UP if up else 0) | (IFF_NOARP if arp is False else 0)
    changed = (0 if up is None else IFF_UP) | (0 if arp is None else IFF_NOARP)
    header = _IFINFO.pack(0, 0, index, flags, changed)
    return codec.message(RTM_NEWLINK, _ACKED, 0, header + parts)


def _port_info(port: BridgePort) -> bytes:
    data = codec.nested(
        _IFLA_INFO_SLAVE_DATA,
        codec.u8(_IFLA_BRPORT_ISOLATED, port.isolated),
        codec.u8(_IFLA_BRPORT_LEARNING, port.learning),
        codec.u8(_IFLA_BRPORT_UNICAST_FLOOD, port.flood),
        codec.u8(_IFLA_BRPORT_GUARD, port.guard),
        codec.u8(_IFLA_BRPORT_MODE, port.hairpin),
        codec.u8(_IFLA_BRPORT_BCAST_FLOOD, port.broadcast),
        codec.u8(_IFLA_BRPORT_MCAST_FLOOD, port.broadcast),
    )
    return codec.nested(IFLA_LINKINFO, codec.string(_IFLA_INFO_SLAVE_KIND, "bridge"), data)


def _address_generation(link: Link) -> bytes:
    mode = codec.u8(_IFLA_INET6_ADDR_GEN_MODE, _NONE if link.addr_gen_none else _EUI64)
    return codec.nested(_AF_INET6, mode)


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def _number(payload: memoryview | None) -> int:
    """An unsigned number of the host's byte order, of one to four bytes; 0 if absent or torn."""
    if payload is None or len(payload) > 4:
        return 0
    return int.from_bytes(payload, sys.byteorder)


def _parse_port(payload: memoryview, flags: int) -> BridgePort:
    found = codec.attrs(payload)
    state = _number(found.get(_IFLA_BRPORT_STATE))
    return BridgePort(
        isolated=bool(_number(found.get(_IFLA_BRPORT_ISOLATED))),
        learning=bool(_number(found.get(_IFLA_BRPORT_LEARNING))),
        flood=bool(_number(found.get(_IFLA_BRPORT_UNICAST_FLOOD))),
        guard=bool(_number(found.get(_IFLA_BRPORT_GUARD))),
        hairpin=bool(_number(found.get(_IFLA_BRPORT_MODE))),
        broadcast=all(
            _number(found.get(kind)) for kind in (_IFLA_BRPORT_BCAST_FLOOD, _IFLA_BRPORT_MCAST_FLOOD)
        ),
        forwarding=not flags & IFF_RUNNING or state == _BR_STATE_FORWARDING,
    )


def _parse_generation(payload: memoryview) -> bool | None:
    for family, value in codec.attr_list(payload):
        if family == _AF_INET6:
            for kind, mode in codec.attr_list(value):
                if kind == _IFLA_INET6_ADDR_GEN_MODE:
                    return _number(mode) == _NONE
    return None
