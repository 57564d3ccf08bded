"""What a sandbox holds that belongs to no single endpoint: its loopback link and its default routes."""

from collections.abc import Iterable, Iterator, Mapping

from sealane.compile.names import digest
from sealane.compile.network import has_data_plane
from sealane.kernel.links import Loopback
from sealane.kernel.objects import Link, Route, RoutingRule, Sysctl
from sealane.kernel.state import Object
from sealane.model.endpoint import Endpoint, Sandbox
from sealane.model.ids import NetworkId
from sealane.model.net import FAMILIES, Family
from sealane.model.network import Network, preference

MAIN_TABLE = 254
OWN_TABLES = 0x5EA1_0000
"""Numbers of routing tables from here on, one an endpoint, are ours inside sandboxes."""

DEFAULT_ROUTE: dict[Family, str] = {4: "0.0.0.0/0", 6: "::/0"}


def compile_sandbox(
    sandbox: Sandbox, endpoints: Iterable[Endpoint], networks: Mapping[NetworkId, Network]
) -> Iterator[Object]:
    if sandbox.netns is None:
        return
    present = [(e, networks[e.network]) for e in endpoints if has_data_plane(networks[e.network])]
    # Who set up an endpoint that was handed over has given the sandbox its default route, or none.
    is_shared = any(endpoint.handover for endpoint, _ in present)
    plugged = [(endpoint, network) for endpoint, network in present if not endpoint.handover]
    if plugged or sandbox.netns.owner == "sealane":
        yield Link(name="lo", kind=Loopback())
    yield from (Sysctl(path=path, value=value) for path, value in sandbox.sysctls)
    for family in FAMILIES:
        chosen = None if is_shared else gateway_endpoint(plugged, family)
        for endpoint, network in plugged:
            if chosen is not None and endpoint is chosen[0]:
                yield _default_route(endpoint, network, family)
            elif endpoint.address(family) is not None and not network.internal:
                yield from _own_way(endpoint, network, family)


def _default_route(endpoint: Endpoint, network: Network, family: Family, table: int = MAIN_TABLE) -> Route:
    subnet = network.subnet(family)
    assert subnet is not None
    return Route(
        dst=DEFAULT_ROUTE[family],
        link=endpoint.ifname,
        gateway=subnet.gateway,
        onlink=network.traits.host_prefixes,
        table=table,
    )


def _own_way(endpoint: Endpoint, network: Network, family: Family) -> Iterator[Object]:
    """What is answered from an address leaves by that address's link: a port published on a network that is not the
    default way out would otherwise be answered through another, whose guards rightly drop it."""
    address, subnet = endpoint.address(family), network.subnet(family)
    assert address is not None
    assert subnet is not None
    table = OWN_TABLES + int(digest(endpoint.id, 6), 16)
    yield RoutingRule(source=address, table=table)
    routed = network.traits.host_prefixes
    gateway = subnet.gateway if routed else ""
    yield Route(dst=subnet.prefix, link=endpoint.ifname, gateway=gateway, onlink=routed, table=table)
    yield _default_route(endpoint, network, family, table)


def gateway_endpoint(
    plugged: Iterable[tuple[Endpoint, Network]], family: Family
) -> tuple[Endpoint, Network] | None:
    """The endpoint through which a sandbox leaves: of those with a way out in this family the one with the highest
    priority, then the first by network name (Docker's order, moby sandbox.go `Endpoint.Less`)."""
    candidates = [
        (endpoint, network)
        for endpoint, network in plugged
        if endpoint.address(family) is not None and not network.internal and not endpoint.without_gateway
    ]
    return min(candidates, key=lambda pair: preference(pair[1], pair[0].gateway_priority), default=None)
