"""What endpoints of all drivers have in common whose link is a veth between the sandbox and the host."""

import ipaddress
from collections.abc import Iterator
from typing import NamedTuple

from sealane.compile import names
from sealane.compile.facts import Facts
from sealane.compile.fast_path import compile_fast_path
from sealane.compile.names import NFT_FAMILY
from sealane.compile.network import is_tracked, mtu
from sealane.kernel import nft
from sealane.kernel.links import Veth
from sealane.kernel.nft import Element, TypeName
from sealane.kernel.objects import (
    BridgePort,
    Link,
    Qdisc,
    Sysctl,
)
from sealane.kernel.state import HOST, Object
from sealane.model import net
from sealane.model.endpoint import Bandwidth, Endpoint
from sealane.model.net import FAMILIES, Family
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


class HostEnd(NamedTuple):
    """What drivers do differently at the host's end."""

    group: int
    master: str = ""
    port: BridgePort | None = None


def veth(endpoint: Endpoint, network: Network, facts: Facts, host: HostEnd) -> Iterator[Placed]:
    assert endpoint.sandbox is not None
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
            master=host.master,
            port=host.port,
            # A bridge port, or a routed IPv4 link, has no business with IPv6 of its own.
            addr_gen_none=True,
            group=host.group,
        ),
    )
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


def each_address(endpoint: Endpoint) -> Iterator[tuple[Family, net.Address]]:
    for family in FAMILIES:
        address = endpoint.address(family)
        if address is not None:
            yield family, address


def in_family(
    endpoint: Endpoint, network: Network, family: Family, address: net.Address, facts: Facts
) -> Iterator[Placed]:
    assert endpoint.sandbox is not None
    if family == 6:
        yield endpoint.sandbox, Sysctl(path=f"net/ipv6/conf/{endpoint.ifname}/accept_ra", value="0")
    if is_tracked(network, family, facts):
        yield HOST, _itself(family, address)


def common(endpoint: Endpoint, network: Network, facts: Facts) -> Iterator[Placed]:
    """Rates, the fast path, and settings that the endpoint's owner asks for."""
    assert endpoint.sandbox is not None
    yield from _rates(endpoint, network, facts)
    yield from ((HOST, item) for item in compile_fast_path(endpoint, network, facts))
    for path, value in endpoint.sysctls:
        yield endpoint.sandbox, Sysctl(path=path.replace("IFNAME", endpoint.ifname), value=value)


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


def _itself(family: Family, address: net.Address) -> Element:
    """What is sent under this address and translated to it: it would be nobody's answer, and the kernel takes none such."""
    kind: TypeName = "ipv4_addr" if family == 4 else "ipv6_addr"
    return Element(
        family=NFT_FAMILY[family], set="itself", value=nft.concat((kind, kind), (address, address))
    )


def link_local(mac: str) -> str:
    """The EUI-64 link-local address that the kernel gives a link with this MAC (RFC 4291 appendix A)."""
    octets = bytes.fromhex(mac.replace(":", ""))
    packed = b"\xfe\x80" + bytes(6) + bytes([octets[0] ^ 2]) + octets[1:3] + b"\xff\xfe" + octets[3:]
    return str(ipaddress.IPv6Address(packed))
