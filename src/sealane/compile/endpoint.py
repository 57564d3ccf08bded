"""What an endpoint puts on the host and in its sandbox."""

import ipaddress
from collections.abc import Iterator

from sealane.compile import names
from sealane.compile.facts import Facts
from sealane.compile.fast_path import compile_fast_path
from sealane.compile.names import NFT_FAMILY
from sealane.compile.network import has_data_plane, is_apart, is_tracked, knows_ipv6, link_settings, mtu
from sealane.kernel import nft
from sealane.kernel.links import Veth
from sealane.kernel.nft import Element, TypeName, Verdict
from sealane.kernel.objects import (
    GROUP_LIVE,
    Address,
    BridgePort,
    FdbEntry,
    Link,
    Neighbour,
    Qdisc,
    Route,
    Sysctl,
)
from sealane.kernel.state import HOST, Object
from sealane.model import net
from sealane.model.endpoint import Bandwidth, Endpoint
from sealane.model.net import FAMILIES, Family, host_prefix
from sealane.model.network import Network

FRAME_HEADER = 18
"""Ethernet's, with a VLAN tag."""
WAIT_MS = 50
"""What may wait before a token bucket drops, at its rate: half of it made TCP stall (containernetworking/plugins#1025)."""
WAIT_FRAMES = 10
"""At least, however slow: less than a window of TCP's start would lose it."""
LIMIT_MAX = 0xFFFF_FFFF
BUCKET_S_MAX = 200
"""The kernel keeps a bucket as a time, in a 32-bit number of 64 ns; 275 s would be none at all."""

Placed = tuple[str, Object]
"""(namespace, object)."""


def compile_endpoint(endpoint: Endpoint, network: Network, facts: Facts) -> Iterator[Placed]:
    """Nothing for an endpoint without a sandbox: it holds its addresses until one comes."""
    if endpoint.sandbox is None or not has_data_plane(network):
        return
    placed = _everywhere(endpoint, network, facts)
    # What is handed over is set up by who takes it: the inside is none of ours.
    yield from (p for p in placed if p[0] == HOST) if endpoint.handover else placed


def _everywhere(endpoint: Endpoint, network: Network, facts: Facts) -> Iterator[Placed]:
    assert endpoint.sandbox is not None
    yield from _links(endpoint, network, facts)
    for family in FAMILIES:
        address = endpoint.address(family)
        if address is None:
            continue
        if family == 6:
            yield endpoint.sandbox, Sysctl(path=f"net/ipv6/conf/{endpoint.ifname}/accept_ra", value="0")
        if is_tracked(network, family, facts):
            yield HOST, _itself(family, address)
        yield from (_bridged if network.driver == "bridge" else _routed)(endpoint, network, family, address)
    yield from _rates(endpoint, network, facts)
    yield from ((HOST, item) for item in compile_fast_path(endpoint, network, facts))
    for path, value in endpoint.sysctls:
        yield endpoint.sandbox, Sysctl(path=path.replace("IFNAME", endpoint.ifname), value=value)


def _links(endpoint: Endpoint, network: Network, facts: Facts) -> Iterator[Placed]:
    assert endpoint.sandbox is not None
    bridged = network.driver == "bridge"
    host_link = names.endpoint_link(endpoint.id)
    alias = names.alias(facts.instance, "e", endpoint.id)
    size = mtu(network, facts)
    yield (
        HOST,
        Link(
            name=host_link,
            kind=Veth(handover=names.handover_link(endpoint.id))
            if endpoint.handover
            else Veth(peer=(endpoint.sandbox, endpoint.ifname)),
            mtu=size,
            mac=names.host_mac(endpoint.id),
            alias=alias,
            master=names.network_link(network) if bridged else "",
            port=_port(network, facts) if bridged else None,
            # A bridge port, or a routed IPv4 link, has no business with IPv6 of its own.
            addr_gen_none=True,
            group=GROUP_LIVE if bridged else names.network_group(network.id),
        ),
    )
    if not bridged and endpoint.address(6) is None and knows_ipv6(network, facts):
        # A link that is up is in the kernel's IPv6 tables, which are lists: bringing one up among 4,000 took ten times
        # as long as among none.
        yield HOST, Sysctl(path=f"net/ipv6/conf/{host_link}/disable_ipv6", value="1")
    yield (
        endpoint.sandbox,
        Link(
            name=endpoint.ifname,
            kind=Veth(peer=(HOST, host_link)),
            mtu=size,
            mac=endpoint.mac,
            alias=alias,
            # On a network without IPv6 the link has none, not even link-local (CVE-2024-32473).
            addr_gen_none=endpoint.address(6) is None,
        ),
    )
    if is_apart(network):
        verdict = Verdict("jump", names.network_chain(network.id, "apart"))
        yield HOST, Element(family="bridge", set="apart", value=nft.field("ifname", host_link), data=verdict)
    if bridged:
        yield HOST, FdbEntry(link=host_link, mac=endpoint.mac)


def _rates(endpoint: Endpoint, network: Network, facts: Facts) -> Iterator[Placed]:
    """Each direction is held at the end that sends: what leaves the host's end goes into the sandbox. (A sandbox with
    CAP_NET_ADMIN could lift its own; it is put back by the next look at it.)"""
    assert endpoint.sandbox is not None
    ends = (
        (HOST, names.endpoint_link(endpoint.id), endpoint.ingress),
        (endpoint.sandbox, endpoint.ifname, endpoint.egress),
    )
    for netns, link, bandwidth in ends:
        if bandwidth is not None:
            yield netns, rate_limit(link, bandwidth, mtu(network, facts))


def rate_limit(link: str, bandwidth: Bandwidth, mtu_bytes: int) -> Qdisc:
    """In bytes. A bucket smaller than a frame would pass nothing at all (tbf_enqueue drops what exceeds it)."""
    rate = max(1, bandwidth.rate // 8)
    burst = min(max(bandwidth.burst // 8, mtu_bytes + FRAME_HEADER), rate * BUCKET_S_MAX)
    waiting = max(rate * WAIT_MS // 1000, WAIT_FRAMES * (mtu_bytes + FRAME_HEADER))
    return Qdisc(link=link, rate=rate, burst=burst, limit=min(burst + waiting, LIMIT_MAX))


def _port(network: Network, facts: Facts) -> BridgePort:
    """Where br_netfilter is on, a packet for a published port becomes a frame between two ports again: the port must
    let it, and the guards alone keep the network's endpoints from each other."""
    bridge_netfilter = facts.features.bridge_netfilter and not network.link_adopted
    return BridgePort(
        isolated=not network.icc and not bridge_netfilter,
        hairpin=facts.features.bridge_netfilter,
        forwarding=None if network.link_adopted else True,
    )


def _bridged(endpoint: Endpoint, network: Network, family: Family, address: net.Address) -> Iterator[Placed]:
    sandbox = endpoint.sandbox
    assert sandbox is not None
    interface = next(a for a in endpoint.addresses if a.startswith(f"{address}/"))
    yield sandbox, Address(link=endpoint.ifname, address=interface)
    if not network.link_adopted:
        # The host never asks, so nobody can answer falsely; and permanent entries do not count towards gc_thresh3.
        yield HOST, Neighbour(link=names.network_link(network), address=address, mac=endpoint.mac)
    sources = [address] if family == 4 else [address, link_local(endpoint.mac)]
    for source in sources:
        yield from ((HOST, element) for element in _guards(endpoint, family, source))


def _itself(family: Family, address: net.Address) -> Element:
    """What is sent under this address and translated to it: it would be nobody's answer, and the kernel takes none such."""
    kind: TypeName = "ipv4_addr" if family == 4 else "ipv6_addr"
    return Element(
        family=NFT_FAMILY[family], set="itself", value=nft.concat((kind, kind), (address, address))
    )


def _guards(endpoint: Endpoint, family: Family, address: str) -> Iterator[Element]:
    kinds: tuple[TypeName, ...] = ("ifname", "ether_addr", "ipv4_addr" if family == 4 else "ipv6_addr")
    value = nft.concat(kinds, (names.endpoint_link(endpoint.id), endpoint.mac, address))
    yield Element(family="bridge", set=f"sources{family}", value=value)
    if family == 6:
        # The same bytes: an address and its halves are packed alike.
        yield Element(family="bridge", set="nd_targets", value=value)


def _routed(endpoint: Endpoint, network: Network, family: Family, address: net.Address) -> Iterator[Placed]:
    """Both ends know each other by permanent neighbour entries: nothing is asked, nothing can be spoofed."""
    sandbox, subnet = endpoint.sandbox, network.subnet(family)
    assert sandbox is not None
    assert subnet is not None
    host_link, table = names.endpoint_link(endpoint.id), NFT_FAMILY[family]
    host_mac = names.host_mac(endpoint.id)
    yield from ((HOST, setting) for setting in link_settings(host_link, family))
    yield sandbox, Address(link=endpoint.ifname, address=host_prefix(address))
    yield sandbox, Neighbour(link=endpoint.ifname, address=subnet.gateway, mac=host_mac)
    yield sandbox, Route(dst=subnet.prefix, link=endpoint.ifname, gateway=subnet.gateway, onlink=True)
    yield HOST, Neighbour(link=host_link, address=address, mac=endpoint.mac)
    yield HOST, Route(dst=host_prefix(address), link=host_link, src=subnet.gateway)
    kind: TypeName = "ipv4_addr" if family == 4 else "ipv6_addr"
    source = nft.concat(("ifname", kind), (host_link, address))
    proven = Verdict("goto", names.network_chain(network.id, "proven"))
    yield HOST, Element(family=table, set="sources", value=source, data=proven)
    if family == 6:
        # The kernel answers ARP for any address of its own on any link, but ND only for that link's (RFC 4861).
        yield HOST, Sysctl(path=f"net/ipv6/conf/{host_link}/disable_ipv6", value="0")
        yield HOST, Neighbour(link=host_link, address=subnet.gateway)
        yield HOST, Sysctl(path=f"net/ipv6/conf/{host_link}/proxy_ndp", value="1")


def link_local(mac: str) -> str:
    """The EUI-64 link-local address that the kernel gives a link with this MAC (RFC 4291 appendix A)."""
    octets = bytes.fromhex(mac.replace(":", ""))
    packed = b"\xfe\x80" + bytes(6) + bytes([octets[0] ^ 2]) + octets[1:3] + b"\xff\xfe" + octets[3:]
    return str(ipaddress.IPv6Address(packed))
