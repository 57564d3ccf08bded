"""What is known of a packet before it is sent: how to recognise it in traces without addresses."""

from collections.abc import Mapping
from typing import NamedTuple

from sealane.explain.conntrack import tuple_of
from sealane.explain.packet import Trace
from sealane.explain.traced.event import Headers
from sealane.explain.world import World
from sealane.kernel.objects import Link
from sealane.kernel.state import HOST
from sealane.model.net import Family

ETHERTYPES: dict[Family, int] = {4: 0x0800, 6: 0x86DD}

_IP_BYTES: dict[Family, int] = {4: 20, 6: 40}
_SYN_BYTES = (24, 28, 32, 40)
"""With options: MSS; window scaling; selective acknowledgements; timestamps."""

_SIZES = {"tcp": _SYN_BYTES, "udp": (8,), "icmp": (8,)}
"""Of a probe, behind the IP header: datagrams and echoes carry nothing."""

_SOLICITATION_BYTES = 72
"""Neighbour discovery goes before, over the same link (RFC 4861 §4.3)."""


class ProbeSignature(NamedTuple):
    headers: Headers
    """As they leave the sender, but for its port; without a mark."""
    ethertype: int
    sizes: frozenset[int]
    """Bytes of the IP packet."""
    link: str
    """Of the host's: the first that it comes or leaves by which is nobody else's name."""
    sender: int
    """Inode of the namespace that sends it."""
    host: int
    peers: Mapping[str, int]
    """Links of the host's → inode of the namespace at the other end; 0: a bridge, or out of our sight."""


def signature_of(world: World, predicted: Trace, places: Mapping[int, str]) -> ProbeSignature | None:
    """For a packet that we send ourselves. None: it does not come by the host."""
    inodes = {netns: inode for inode, netns in places.items()}
    sender = predicted.hops[0].netns if predicted.hops else ""
    links = [
        step.object for hop in predicted.hops for step in hop.steps if step.kind == "link" and step.object
    ]
    if not links or sender not in inodes or HOST not in inodes:
        return None
    name = str(links[0][1])
    if sender != HOST:
        near = world.namespace(HOST).peer_of(sender, name)
        if near is None or near[0] != HOST:
            return None
        name = near[1]
    sent = predicted.sent
    sizes = frozenset(_IP_BYTES[sent.family] + size for size in _SIZES[sent.proto]) - {_SOLICITATION_BYTES}
    return ProbeSignature(
        headers=Headers(flow=tuple_of(sent), ttl=sent.ttl, size=max(sizes), mark=()),
        ethertype=ETHERTYPES[sent.family],
        sizes=sizes,
        link=name,
        sender=inodes[sender],
        host=inodes[HOST],
        peers=_peers(world, inodes),
    )


def _peers(world: World, inodes: Mapping[str, int]) -> dict[str, int]:
    """A name that sandboxes use for theirs, `eth0`, tells nothing."""
    ours = [i for i in world.states.get(HOST, {}).values() if isinstance(i, Link) and i.kind.is_sealanes]
    used = {item.peer[1] for item in ours if item.peer}
    found = {link.name: 0 for link in world.foreign_state.links if link.name not in used}
    return found | {item.name: inodes.get(item.peer[0], 0) if item.peer else 0 for item in ours}
