"""Published ports: map elements and socket-program entries.

One publish is one element, whatever the length of its range, in one of three maps, and for each other network of its
sandbox one more in one of the last two:

- `publish`         protocol, port            → address, port     a single port on every address of the host
- `publish_at`      address, protocol, port   → address, port     a single port on one address
- `publish_ranges`  addresses, protocol, ports → address          a range; ports stay as they are
- `publish_from`    sources, addresses, protocol, port → address, port     asked from another network of the sandbox
- `publish_from_ranges`  the same of a range

Who asks from a network that the sandbox is on as well is led to its address there: the answer to a neighbour leaves by
the link to that network, and from another network's address its guard would drop it.

nftables cannot add a difference to a port, so a range that is shifted (8000-8099 to 9000-9099) takes an element a
port. The host's own 127.0.0.0/8 and ::1 are the socket program's (`LoopbackPort`), never a DNAT: that would need
`route_localnet`, which opens 127.0.0.1 to neighbours (CVE-2020-8558).
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping

from sealane.compile.base import ADDRESS_TYPE
from sealane.compile.facts import Facts
from sealane.compile.names import NFT_FAMILY
from sealane.compile.network import has_data_plane
from sealane.kernel import nft
from sealane.kernel.nft import Element
from sealane.kernel.objects import LoopbackPort
from sealane.kernel.state import Object
from sealane.model.endpoint import Endpoint, PublishedPort
from sealane.model.ids import NetworkId
from sealane.model.net import (
    FAMILIES,
    PROTO_NUMBERS,
    WILDCARDS,
    Address,
    Family,
    Prefix,
    Proto,
    bounds,
    family_of,
    from_int,
    is_loopback,
)
from sealane.model.network import Network

EVERY: dict[Family, tuple[str, str]] = {
    4: (WILDCARDS[4], "255.255.255.255"),
    6: (WILDCARDS[6], "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
}


def compile_publish(endpoint: Endpoint, network: Network, facts: Facts) -> Iterator[Object]:
    if endpoint.sandbox is None or network.internal:
        return
    for port in endpoint.published:
        yield from _across(port, endpoint, facts)
        for family in FAMILIES:
            address = endpoint.address(family)
            if address is None:
                continue
            if port.concerns(family):
                yield from _publish(port, family, address)
    if not network.masquerade:
        yield from _open(endpoint)


def compile_publish_from(
    endpoints: Iterable[Endpoint], networks: Mapping[NetworkId, Network]
) -> Iterator[Element]:
    """Of one sandbox: what is published on one of its networks, asked from another, or by the host from its gateway's
    address there."""
    open_ones = [(e, networks[e.network]) for e in endpoints if not networks[e.network].internal]
    present = [(endpoint, network) for endpoint, network in open_ones if has_data_plane(network)]
    for endpoint, _ in present:
        for neighbour, network in present:
            if neighbour is endpoint:
                continue
            for port, family in itertools.product(endpoint.published, FAMILIES):
                address, subnet = neighbour.address(family), network.subnet(family)
                if address is None or subnet is None or endpoint.address(family) is None:
                    continue
                if port.concerns(family) and not is_loopback(port.host_address or ""):
                    yield from _asked_from(subnet.prefix, port, address)


def _asked_from(prefix: Prefix, port: PublishedPort, address: Address) -> Iterator[Element]:
    family = family_of(address)
    kind, proto = ADDRESS_TYPE[family], PROTO_NUMBERS[port.proto]
    kinds = (kind, kind, "inet_proto", "inet_service")
    first, last = (from_int(family, value) for value in bounds(prefix))
    low, high = _span(port, family)

    def element(where: str, ports: tuple[int, int], data: bytes) -> Element:
        return Element(
            family=NFT_FAMILY[family],
            set=where,
            value=nft.concat(kinds, (first, low, proto, ports[0])),
            end=nft.concat(kinds, (last, high, proto, ports[1])),
            data=data,
        )

    if _is_range(port):
        yield element("publish_from_ranges", (port.host_first, port.host_last), nft.field(kind, address))
        return
    for offset in range(port.host_last - port.host_first + 1):
        number = port.host_first + offset
        data = nft.concat((kind, "inet_service"), (address, port.port + offset))
        yield element("publish_from", (number, number), data)


def _across(port: PublishedPort, endpoint: Endpoint, facts: Facts) -> Iterator[LoopbackPort]:
    """::1 to an endpoint without IPv6: a socket of IPv6 may speak IPv4, so that the socket program can lead it there.
    The forwarder's own socket at ::1 would be in the way of the relay's at every address (`compile.relay`)."""
    address = endpoint.address(4)
    if address is None or endpoint.address(6) is not None or port.proto == "sctp" or not port.concerns(6):
        return
    is_own = is_loopback(port.host_address or "")
    if is_own or (port.only_at is None and not facts.features.loopback_reason):
        yield _loopback(port, 6, address)


def _publish(port: PublishedPort, family: Family, address: Address) -> Iterator[Object]:
    # The host's own 127.0.0.1 has no SCTP: there is no hook at which a program could lead it elsewhere.
    if port.proto != "sctp" and (port.only_at is None or is_loopback(port.host_address or "")):
        yield _loopback(port, family, address)
    if port.host_address is not None and is_loopback(port.host_address):
        return
    if _is_range(port):
        yield _range(port, family, address)
    else:
        for offset in range(port.host_last - port.host_first + 1):
            yield _single(port, offset, family, address)


def _loopback(port: PublishedPort, family: Family, address: Address) -> LoopbackPort:
    return LoopbackPort(
        family=family,
        proto=port.proto,
        first=port.host_first,
        last=port.host_last,
        address=address,
        port=port.port,
        reserved=(port.only_at or WILDCARDS[family]) if port.is_reserved else "",
    )


def _is_range(port: PublishedPort) -> bool:
    """Whether it is one element though it is many ports."""
    return port.host_first != port.host_last and port.host_first == port.port


def _span(port: PublishedPort, family: Family) -> tuple[str, str]:
    """The first and last address of the host that it is at."""
    at = port.only_at
    return (at, at) if at else EVERY[family]


def _range(port: PublishedPort, family: Family, address: Address) -> Element:
    kind, proto = ADDRESS_TYPE[family], PROTO_NUMBERS[port.proto]
    low, high = _span(port, family)
    kinds = (kind, "inet_proto", "inet_service")
    return Element(
        family=NFT_FAMILY[family],
        set="publish_ranges",
        value=nft.concat(kinds, (low, proto, port.host_first)),
        end=nft.concat(kinds, (high, proto, port.host_last)),
        data=nft.field(kind, address),
    )


def _single(port: PublishedPort, offset: int, family: Family, address: Address) -> Element:
    kind, proto, number = ADDRESS_TYPE[family], PROTO_NUMBERS[port.proto], port.host_first + offset
    at = port.only_at
    if at is None:
        where, value = "publish", nft.concat(("inet_proto", "inet_service"), (proto, number))
    else:
        where = "publish_at"
        value = nft.concat((kind, "inet_proto", "inet_service"), (at, proto, number))
    data = nft.concat((kind, "inet_service"), (address, port.port + offset))
    return Element(family=NFT_FAMILY[family], set=where, value=value, data=data)


def _open(endpoint: Endpoint) -> Iterator[Element]:
    """Without masquerade the endpoint's own address is reached from outside too: at its published ports only. Several
    host ports may lead to one of them, and intervals of a set must not meet: they are merged."""
    for family in FAMILIES:
        address = endpoint.address(family)
        if address is None:
            continue
        kinds = (ADDRESS_TYPE[family], "inet_proto", "inet_service")
        # What is published on the host's loopback is for the host.
        public = (
            p for p in endpoint.published if p.concerns(family) and not is_loopback(p.host_address or "")
        )
        for proto, first, last in published_ranges(public):
            yield Element(
                family=NFT_FAMILY[family],
                set="open",
                value=nft.concat(kinds, (address, PROTO_NUMBERS[proto], first)),
                end=nft.concat(kinds, (address, PROTO_NUMBERS[proto], last)),
            )


def published_ranges(ports: Iterable[PublishedPort]) -> list[tuple[Proto, int, int]]:
    """The endpoint's own ports that are published, as ranges that neither meet nor overlap."""
    merged: list[tuple[Proto, int, int]] = []
    for proto, first, last in sorted((p.proto, p.port, p.port + p.host_last - p.host_first) for p in ports):
        if merged and merged[-1][0] == proto and first <= merged[-1][2] + 1:
            merged[-1] = (proto, merged[-1][1], max(last, merged[-1][2]))
        else:
            merged.append((proto, first, last))
    return merged
