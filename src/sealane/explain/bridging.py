"""Frames through a Linux bridge: guards, br_netfilter, the FDB, and what a port may do (net/bridge).

    port ─► nft bridge prerouting ─► [IP prerouting] ─┬─► the bridge's own MAC: up to the IP layer
                                                      └─► FDB ─► nft bridge forward ─► [IP forward, postrouting] ─► port

What stands in brackets happens with br_netfilter only (net.bridge.bridge-nf-call-iptables): the IP hooks see the
frame as a packet that came in by the bridge. One that goes up has then passed prerouting already (ip_sabotage_in).
"""

from typing import NamedTuple

from sealane.compile.names import NFT_FAMILY
from sealane.explain.packet import Disposition
from sealane.explain.path import Path, Skb
from sealane.explain.world import AnyLink, Namespace
from sealane.kernel.objects import Link

UP = "up from "
"""Begins the step that leads from a bridge to the host: as ever, so it stands in no summary."""

VLAN_HEADER_BYTES = 4
"""is_skb_forwardable (net/core/dev.c) leaves room for a tag."""


def uses_netfilter(path: Path, skb: Skb) -> bool:
    return path.world.foreign_state.bridge_netfilter and skb.packet.proto != "arp"


class Entered(NamedTuple):
    bridge: AnyLink
    next_hop: str = ""
    """Not empty: translated on the bridge to an address behind it, whose MAC the frame now needs."""


def come_in(path: Path, where: Namespace, port: Link, skb: Skb) -> Entered:
    """A frame passes a port's guards. Whether it goes up or on, its MAC says."""
    bridge = where.link(port.master)
    if bridge is None or not bridge.up:
        path.end(Disposition.LINK_DOWN, f"the bridge {port.master} is not up", "see `sealane status`")
    path.hook(where, "bridge", "prerouting", skb, iif=port.name)
    if not uses_netfilter(path, skb):
        return Entered(bridge)
    before = skb.packet.destination
    path.hook(where, NFT_FAMILY[skb.packet.family], "prerouting", skb, iif=bridge.name)
    if skb.packet.destination == before:
        return Entered(bridge)
    # br_nf_pre_routing_finish: a translated destination decides anew where the frame goes.
    found = where.route(skb.packet.destination)
    # ip_route_input makes an error of it where IPv4 is not forwarded, and that goes up; ip6_route_input does not look.
    may_stay = skb.packet.family == 6 or where.forwards(4, bridge.name)
    if may_stay and found.kind == "unicast" and found.link == bridge.name:
        path.note("bridge", f"translated while on {bridge.name}, and stays there (br_netfilter)")
        return Entered(bridge, found.gateway or skb.packet.destination)
    skb.change(mac_destination=bridge.mac)
    return Entered(bridge)


def goes_up(path: Path, where: Namespace, bridge: AnyLink, skb: Skb) -> bool:
    """br_handle_frame_finish: what the FDB has as the bridge's own, whatever MAC its link has."""
    mac = skb.packet.mac_destination
    if not where.hears(bridge, mac):
        return False
    key = ("fdb", bridge.name, mac)
    path.note("bridge", f"{UP}{bridge.name}", key=key if key in where.state else None)
    return True


def out_port(path: Path, where: Namespace, bridge: AnyLink, skb: Skb) -> Link:
    """The port that a frame leaves by; `Ended` if there is none."""
    mac = skb.packet.mac_destination
    port = where.fdb_port(bridge.name, mac)
    if port is None and mac == bridge.mac:
        key = ("fdb", bridge.name, mac)
        path.note("bridge", f"{bridge.name} does not know its own MAC {mac} (its FDB was flushed)", key=key)
        hint = f"bridge fdb add {mac} dev {bridge.name} self permanent"
        path.end(Disposition.LOST, f"{bridge.name} takes nothing up to the host", hint)
    if port is None:
        flooded = [item.name for item in where.ports(bridge.name) if item.port is None or item.port.flood]
        if flooded:
            path.note("bridge", f"{mac} is not in the FDB of {bridge.name}: flooded to {', '.join(flooded)}")
        reason = f"no port of {bridge.name} has {mac}"
        path.end(Disposition.LOST, reason, "see `sealane status`: the endpoint's FDB entry")
    path.note("bridge", f"{mac} is behind {port.name}", key=("fdb", port.name, mac))
    return port


def refusal(came_by: Link | None, leaves_by: Link) -> str:
    """Why a frame may not leave by a port (should_deliver, net/bridge/br_forward.c); empty if it may."""
    if not leaves_by.up:
        return f"{leaves_by.name} is down"
    if came_by is None:
        return ""
    out, into = leaves_by.port, came_by.port
    if came_by.name == leaves_by.name and not (out and out.hairpin):
        return f"{leaves_by.name} takes no frame back that came by it (hairpin off)"
    if out and into and out.isolated and into.isolated:
        return f"{came_by.name} and {leaves_by.name} are isolated ports: the bridge forwards nothing between them"
    return ""


def forward(path: Path, where: Namespace, bridge: AnyLink, came_by: Link, leaves_by: Link, skb: Skb) -> None:
    """From port to port, up to the wire."""
    why_not = refusal(came_by, leaves_by)
    if why_not:
        disposition = Disposition.LINK_DOWN if not leaves_by.up else Disposition.DENIED
        path.end(
            disposition,
            why_not,
            "publish the port and use the host's address, or make the network with icc=true",
        )
    path.hook(where, "bridge", "forward", skb, iif=came_by.name, oif=leaves_by.name)
    if uses_netfilter(path, skb):
        path.hook(where, NFT_FAMILY[skb.packet.family], "forward", skb, iif=bridge.name, oif=bridge.name)
    _leave(path, where, came_by, leaves_by, skb)
    if uses_netfilter(path, skb):
        path.hook(where, NFT_FAMILY[skb.packet.family], "postrouting", skb, oif=bridge.name)


def send(path: Path, where: Namespace, bridge: AnyLink, skb: Skb) -> Link:
    """From the namespace's own IP layer into its bridge (br_dev_xmit). Return the port that the frame leaves by."""
    port = out_port(path, where, bridge, skb)
    why_not = refusal(None, port)
    if why_not:
        path.end(Disposition.LINK_DOWN, why_not, "see `sealane status`")
    path.hook(where, "bridge", "output", skb, oif=port.name)
    _leave(path, where, None, port, skb)
    return port


def _leave(path: Path, where: Namespace, came_by: Link | None, leaves_by: Link, skb: Skb) -> None:
    path.hook(where, "bridge", "postrouting", skb, oif=leaves_by.name)
    room = leaves_by.mtu + VLAN_HEADER_BYTES
    if leaves_by.mtu and came_by is not None and skb.packet.wire_size > room:
        # br_dev_queue_push_xmit drops it without a word: a black hole.
        path.end(
            Disposition.TOO_BIG,
            f"{skb.packet.wire_size} bytes do not fit {leaves_by.name} (MTU {leaves_by.mtu}), and a bridge says nothing",
            "give all endpoints of the network one MTU",
        )
