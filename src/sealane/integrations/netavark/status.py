"""From an endpoint's record to what podman keeps of it."""

from sealane.model.endpoint import Endpoint
from sealane.model.net import family_of
from sealane.model.network import Network
from sealane.wire.netavark import NetavarkAddress, NetavarkInterface, NetavarkStatus

SEARCH = "dns.podman"
"""The domain that podman's users know names under (netavark src/dns/aardvark.rs)."""


def status_of(endpoint: Endpoint, network: Network) -> NetavarkStatus:
    subnets = []
    for address in endpoint.addresses:
        subnet = network.subnet(family_of(address))
        gateway = "" if subnet is None or network.internal else subnet.gateway
        subnets.append(NetavarkAddress(ipnet=address, gateway=gateway))
    return NetavarkStatus(
        dns_search_domains=[SEARCH] if network.resolvers else [],
        dns_server_ips=list(network.resolvers),
        interfaces={endpoint.ifname: NetavarkInterface(mac_address=endpoint.mac, subnets=subnets)},
    )
