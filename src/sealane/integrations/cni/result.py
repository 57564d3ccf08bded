"""From an endpoint's record to the result of ADD, in version 1.1.0."""

from typing import Any

from sealane.compile import names
from sealane.compile.facts import Facts
from sealane.compile.network import mtu
from sealane.compile.sandbox import DEFAULT_ROUTE, gateway_endpoint
from sealane.model.endpoint import Endpoint
from sealane.model.intent import Intent
from sealane.model.net import FAMILIES, family_of
from sealane.wire.cni import CniAddress, CniConfig, CniInterface, CniResult, CniRoute


def result_of(endpoint: Endpoint, intent: Intent, facts: Facts, netns: str, config: CniConfig) -> CniResult:
    """`netns` as the runtime calls it: it compares the text."""
    network = intent.networks[endpoint.network]
    size = mtu(network, facts)
    there = CniInterface(name=endpoint.ifname, mac=endpoint.mac, mtu=size, sandbox=netns)
    here = CniInterface(name=names.endpoint_link(endpoint.id), mac=names.host_mac(endpoint.id), mtu=size)
    ips = []
    for address in endpoint.addresses:
        subnet = network.subnet(family_of(address))
        gateway = "" if subnet is None or network.internal else subnet.gateway
        ips.append(CniAddress(address=address, gateway=gateway, interface=1))
    return CniResult(interfaces=[here, there], ips=ips, routes=_routes(endpoint, intent), dns=_dns(config))


def _routes(endpoint: Endpoint, intent: Intent) -> list[CniRoute]:
    """The default routes, where they lead through this endpoint."""
    assert endpoint.sandbox is not None
    there = intent.endpoints_by_sandbox[endpoint.sandbox].values()
    plugged = [(e, intent.networks[e.network]) for e in there]
    routes = []
    for family in FAMILIES:
        chosen = gateway_endpoint(plugged, family)
        if chosen is not None and chosen[0].id == endpoint.id:
            subnet = chosen[1].subnet(family)
            assert subnet is not None
            routes.append(CniRoute(dst=DEFAULT_ROUTE[family], gw=subnet.gateway))
    return routes


def _dns(config: CniConfig) -> dict[str, Any]:
    """What the runtime asks for goes before the configuration's (CONVENTIONS.md, `dns`)."""
    asked, own = config.runtime.dns, config.dns
    dns: dict[str, Any] = {
        "nameservers": asked.servers if asked and asked.servers else own.nameservers,
        "domain": own.domain,
        "search": asked.searches if asked and asked.searches else own.search,
        "options": asked.options if asked and asked.options else own.options,
    }
    return {key: value for key, value in dns.items() if value}
