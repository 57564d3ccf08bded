"""The links of a namespace as packets meet them: whether they carry, what a bridge does at them, and what others have put on
them. (linux/if_link.h, linux/rtnetlink.h, linux/pkt_sched.h)"""

import struct
import sys
from collections.abc import Collection, Iterator, Mapping

import msgspec

from sealane.explain.observed.reading import LinkReading
from sealane.linux.bpf.syscall import Attached, BpfError, prog_count
from sealane.linux.netlink import codec, link, qdisc, tc_filter
from sealane.linux.netlink.socket import NetlinkError, Socket

_IFINFO = struct.Struct("=BxHiII")
_IFF_MULTICAST, _IFF_LOWER_UP = 0x1000, 0x10000

_ADDRESS, _IFNAME, _MTU, _LINK, _MASTER, _OPERSTATE = 1, 3, 4, 5, 10, 16
_LINKINFO, _LINK_NETNSID, _PROTO_DOWN, _XDP = 18, 37, 39, 43
_INFO_KIND, _INFO_DATA, _INFO_SLAVE_KIND, _INFO_SLAVE_DATA = 1, 2, 4, 5
_XDP_ATTACHED = 2

_BRIDGE = {
    7: "vlan_filtering",
    36: "nf_call_iptables",
    37: "nf_call_ip6tables",
    38: "nf_call_arptables",
    49: "fdb_max_learned",
}
_PORT_STATE, _FORWARDING = 1, 3
_PORT = {
    10: "proxy_arp",
    12: "proxy_arp_wifi",
    29: "vlan_tunnel",
    32: "neigh_suppress",
    34: "backup_port",
    39: "locked",
    40: "mab",
    43: "neigh_vlan_suppress",
    44: "backup_nhid",
}
"""IFLA_BR_*, IFLA_BRPORT_*: settings that a walk through a bridge does not know, all 0 by default."""

_TCMSG = struct.Struct("=BxxxiIII")
_TCA_KIND, _TCA_INGRESS_BLOCK, _TCA_EGRESS_BLOCK = 1, 13, 14
_CLSACT = frozenset({"ingress", "clsact"})
_PLAIN = frozenset({"noqueue", "mq"})
_INGRESS, _EGRESS = 0xFFFF_FFF2, 0xFFFF_FFF3
_EMPTY = memoryview(b"")


def read_links(route: Socket) -> dict[str, LinkReading]:
    """All links, without `programs`. Raises NetlinkError."""
    found = [_parse(payload) for _, payload in route.dump(link.dump())]
    names = {raw.index: name for name, raw, _, _ in found}
    return {
        name: msgspec.structs.replace(raw, master=names.get(master, ""), below=names.get(below, ""))
        for name, raw, master, below in found
    }


def _parse(payload: memoryview) -> tuple[str, LinkReading, int, int]:
    """Name, link, and the indexes of its master and of the link below."""
    _, _, index, flags, _ = _IFINFO.unpack_from(payload)
    found = codec.attrs(payload[16:])
    info = codec.attrs(found.get(_LINKINFO, _EMPTY))
    kind = codec.text(info.get(_INFO_KIND, _EMPTY))
    is_port = codec.text(info.get(_INFO_SLAVE_KIND, _EMPTY)) == "bridge"
    xdp = codec.attrs(found.get(_XDP, _EMPTY))
    name = codec.text(found.get(_IFNAME, _EMPTY))
    reading = LinkReading(
        name=name,
        index=index,
        kind=kind,
        mac=found.get(_ADDRESS, _EMPTY).hex(":"),
        up=bool(flags & link.IFF_UP),
        carrier=bool(flags & _IFF_LOWER_UP),
        state=_number(found.get(_OPERSTATE)),
        multicast=bool(flags & _IFF_MULTICAST),
        mtu=_number(found.get(_MTU)),
        xdp=bool(_number(xdp.get(_XDP_ATTACHED))),
        protodown=bool(_number(found.get(_PROTO_DOWN))),
        bridge=_settings(info.get(_INFO_DATA, _EMPTY), _BRIDGE) if kind == "bridge" else {},
        port=_port(info.get(_INFO_SLAVE_DATA, _EMPTY)) if is_port else {},
    )
    below = 0 if _LINK_NETNSID in found else _number(found.get(_LINK))
    return name, reading, _number(found.get(_MASTER)), below


def _port(payload: memoryview) -> dict[str, int]:
    state = _number(codec.attrs(payload).get(_PORT_STATE))
    found = _settings(payload, _PORT)
    return found if state == _FORWARDING else {**found, "state": state}


def _settings(payload: memoryview, names: Mapping[int, str]) -> dict[str, int]:
    """Those that are not 0."""
    found = codec.attrs(payload)
    return {name: value for kind, name in names.items() if (value := _number(found.get(kind)))}


def _number(payload: memoryview | None) -> int:
    return 0 if payload is None or len(payload) > 4 else int.from_bytes(payload, sys.byteorder)


# --- what others have put on them -----------------------------------------------------------------------------------


def read_programs(route: Socket, links: Collection[LinkReading]) -> dict[str, tuple[str, ...]]:
    """By link. For the thread that is in the namespace of `route`. Raises OSError."""
    by_index = {item.index: item.name for item in links}
    found: dict[str, list[str]] = {item.name: [] for item in links}
    for _, payload in route.dump(qdisc.dump()):
        _, index, handle, _, _ = _TCMSG.unpack_from(payload)
        if index not in by_index:
            continue
        attrs = codec.attrs(payload[_TCMSG.size :])
        kind = codec.text(attrs.get(_TCA_KIND, _EMPTY))
        if kind in _CLSACT:
            found[by_index[index]] += _filters(route, index)
        elif handle not in {0, qdisc.HANDLE} and kind not in _PLAIN:
            # The kernel's own have no handle.
            found[by_index[index]].append(f"qdisc {kind}")
        if attrs.keys() & {_TCA_INGRESS_BLOCK, _TCA_EGRESS_BLOCK}:
            found[by_index[index]].append("shared block of tc filters")
    for item in links:
        found[item.name] += _tcx(item.index)
    return {name: tuple(dict.fromkeys(texts)) for name, texts in found.items()}


def _filters(route: Socket, index: int) -> Iterator[str]:
    for parent, where in ((_INGRESS, "ingress"), (_EGRESS, "egress")):
        try:
            answers = route.dump(_get_filters(index, parent))
        except NetlinkError:
            # `ingress` has no egress.
            continue
        for _, payload in answers:
            info = _TCMSG.unpack_from(payload)[4]
            kind = codec.text(codec.attrs(payload[_TCMSG.size :]).get(_TCA_KIND, _EMPTY))
            if info >> 16 != tc_filter.PREFERENCE:
                yield f"tc filter {kind} at {where}"


def _get_filters(index: int, parent: int) -> bytes:
    flags = codec.NLM_F_REQUEST | codec.NLM_F_DUMP
    return codec.message(tc_filter.RTM_GETTFILTER, flags, 0, _TCMSG.pack(0, index, 0, parent, 0))


def _tcx(index: int) -> Iterator[str]:
    for where, name in ((Attached.TCX_INGRESS, "ingress"), (Attached.TCX_EGRESS, "egress")):
        try:
            count = prog_count(index, where)
        except BpfError:
            # No bpf(2) here, or a kernel before 6.6: then there is no such place.
            continue
        if count:
            yield f"tcx program at {name}"
