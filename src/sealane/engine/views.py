"""Records as answers: what a person or an integration is shown."""

from collections.abc import Collection

from sealane.compile import names
from sealane.compile.facts import Facts
from sealane.compile.network import has_data_plane, mtu
from sealane.ipam.pool import pool_of
from sealane.model.endpoint import PUBLISHED_ELSEWHERE, Endpoint, Sandbox
from sealane.model.intent import Intent
from sealane.model.net import to_int
from sealane.model.network import Network, Subnet
from sealane.wire.views import EndpointState, EndpointView, NetworkView, SandboxView, SubnetView


def network_view(network: Network, intent: Intent, facts: Facts) -> NetworkView:
    endpoints = intent.endpoints_by_network.get(network.id, {}).values()
    return NetworkView(
        id=network.id,
        name=network.name,
        driver=network.driver,
        link=names.network_link(network) if has_data_plane(network) else "",
        mtu=mtu(network, facts) if has_data_plane(network) else 0,
        internal=network.internal,
        icc=network.icc,
        masquerade=network.masquerade,
        subnets=[_subnet_view(subnet, endpoints) for subnet in network.subnets],
        endpoints=sorted(f"{e.name} {' '.join(e.addresses)}".strip() for e in endpoints),
        options=_options(network),
        labels=dict(network.labels),
    )


def _subnet_view(subnet: Subnet, endpoints: Collection[Endpoint]) -> SubnetView:
    pool = pool_of(subnet)
    leased = [to_int(a) for e in endpoints if (a := e.address(pool.family)) is not None]
    return SubnetView(
        prefix=subnet.prefix,
        gateway=subnet.gateway,
        ip_range=subnet.ip_range or "",
        reserved=list(subnet.reserved),
        in_use=len(leased),
        available=pool.free(leased),
    )


def _options(network: Network) -> dict[str, str]:
    options = {}
    if network.mtu:
        options["mtu"] = str(network.mtu)
    if not network.gateway_on_link:
        options["inhibit-gateway"] = "true"
    if network.source_addresses:
        options["source-address"] = ",".join(network.source_addresses)
    if network.publish_addresses:
        options["publish-address"] = ",".join(network.publish_addresses)
    if network.link_prefix != "eth":
        options["link-prefix"] = network.link_prefix
    if not network.fast_path:
        options["fast-path"] = "false"
    if not network.dns:
        options["dns"] = "false"
    if network.dns_servers:
        options["dns-servers"] = ",".join(network.dns_servers)
    return options


def sandbox_view(sandbox: Sandbox, intent: Intent) -> SandboxView:
    endpoints = intent.endpoints_by_sandbox.get(sandbox.id, {}).values()
    return SandboxView(
        id=sandbox.id,
        name=sandbox.name,
        netns=sandbox.netns.path if sandbox.netns else sandbox.awaited,
        owner=sandbox.netns.owner if sandbox.netns else "foreign" if sandbox.awaited else "host",
        endpoints=sorted(
            f"{intent.networks[e.network].name} {e.ifname} {' '.join(e.addresses)}" for e in endpoints
        ),
        labels=dict(sandbox.labels),
    )


def _elsewhere(endpoint: Endpoint) -> list[str]:
    text = endpoint.labels.get(PUBLISHED_ELSEWHERE, "")
    return text.split(", ") if text else []


def _state(endpoint: Endpoint, error: str) -> EndpointState:
    if error:
        return "error"
    if endpoint.sandbox is None:
        return "pending"
    return "dormant" if endpoint.dormant else "up"


def endpoint_view(endpoint: Endpoint, intent: Intent, error: str = "") -> EndpointView:
    network = intent.networks[endpoint.network]
    sandbox = intent.sandboxes.get(endpoint.sandbox) if endpoint.sandbox else None
    plugged = has_data_plane(network) and sandbox is not None
    gateways = [s.gateway for s in network.subnets]
    return EndpointView(
        id=endpoint.id,
        name=endpoint.name,
        network=network.name,
        network_id=network.id,
        sandbox=sandbox.name if sandbox else "",
        sandbox_id=sandbox.id if sandbox else "",
        netns=(sandbox.netns.path if sandbox.netns else sandbox.awaited) if sandbox else "",
        ifname=endpoint.ifname if plugged else "",
        host_link=names.endpoint_link(endpoint.id) if plugged else "",
        mac=endpoint.mac if plugged else "",
        addresses=list(endpoint.addresses),
        gateways=[] if network.internal else list(gateways),
        aliases=list(endpoint.aliases),
        ports=[*map(str, endpoint.published), *_elsewhere(endpoint)],
        dns=list(network.resolvers),
        state=_state(endpoint, error),
        error=error,
        labels=dict(endpoint.labels),
    )
