"""Where a packet may leave the way that is told: the fast path, by what the kernel is to hold of it.

It has one end with the long way, which is therefore what is told (`compile.fast_path`); here is only said that it is there.
The program's own conditions that a packet of ours always fulfils (no options, no tag) are not asked for again.
"""

from sealane.explain.packet import Packet
from sealane.explain.world import Namespace
from sealane.kernel.objects import FastGate, FastPort, FastTarget, Link

_PROTOCOLS = frozenset({"tcp", "udp"})
_DHCP_SERVERS = frozenset({(4, 67), (6, 547)})


def straight_to(where: Namespace, link: Link, packet: Packet) -> str:
    """The link behind which a packet that has come in by `link` of the host ends at once; empty: it goes the long way."""
    port, sender, target = (
        where.state.get(("fast-port", link.name)),
        where.state.get(("fast-target", packet.source)),
        where.state.get(("fast-target", packet.destination)),
    )
    if not (isinstance(port, FastPort) and isinstance(sender, FastTarget) and isinstance(target, FastTarget)):
        return ""
    is_plain = (
        packet.proto in _PROTOCOLS
        and not packet.fragment
        and not (packet.proto == "udp" and (packet.family, packet.source_port) in _DHCP_SERVERS)
    )
    is_own = (sender.link, sender.mac) == (link.name, packet.mac_source)
    next_hop = target.mac if port.driver == "bridge" else sender.host_mac
    leads = target.delivers and target.network == sender.network and target is not sender
    fits = packet.size <= target.mtu and (port.driver == "bridge" or packet.ttl > 1)
    is_open = isinstance(where.state.get(("fast-gate", port.driver, packet.family)), FastGate)
    goes = is_plain and is_own and leads and fits and is_open and packet.mac_destination == next_hop
    return target.link if goes else ""
