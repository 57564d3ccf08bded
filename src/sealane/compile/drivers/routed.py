"""Driver `routed`: one route per endpoint, and no link layer between endpoints.

The endpoints' addresses are of full length (/32, /128); both ends know each other by permanent neighbour entries. The
source guard is a set of (link, address). The gateway's address is on a bridge without ports.
"""

from collections.abc import Iterator

from sealane.compile import names
from sealane.compile.endpoint import HostEnd, Placed, common, each_address, in_family, veth
from sealane.compile.facts import Facts
from sealane.compile.names import NFT_FAMILY
from sealane.compile.network import (
    chains,
    gateway_link,
    knows_ipv6,
    link_settings,
    network_deny,
    proven_rules,
    served,
)
from sealane.kernel import nft
from sealane.kernel.nft import Element, TypeName, Verdict
from sealane.kernel.objects import Address, Neighbour, Route, Sysctl
from sealane.kernel.state import HOST, Object
from sealane.model import net
from sealane.model.endpoint import Endpoint
from sealane.model.net import Family, host_prefix
from sealane.model.network import Network


def compile_network(network: Network, facts: Facts) -> Iterator[Object]:
    yield from gateway_link(network, facts, ageing_off=True)
    for subnet in network.subnets:
        yield Address(link=names.network_link(network), address=host_prefix(subnet.gateway))
        # Between an endpoint's end and its publish's, packets for it must not follow the default route out.
        yield Route(dst=subnet.prefix, type="unreachable", metric=4096)
        # Map `sources` has sent on to `proven` whatever has a source of its own.
        spoofed = network_deny(network, "spoofed")
        yield from chains(network, subnet, facts, [spoofed], list(proven_rules(network, subnet, facts)))
    yield from served(network)


def compile_endpoint(endpoint: Endpoint, network: Network, facts: Facts) -> Iterator[Placed]:
    yield from veth(endpoint, network, facts, HostEnd(group=names.network_group(network.id)))
    if endpoint.address(6) is None and knows_ipv6(network, facts):
        # A link that is up is in the kernel's IPv6 tables, which are lists: bringing one up among 4,000 took ten times
        # as long as among none.
        host_link = names.endpoint_link(endpoint.id)
        yield HOST, Sysctl(path=f"net/ipv6/conf/{host_link}/disable_ipv6", value="1")
    for family, address in each_address(endpoint):
        yield from in_family(endpoint, network, family, address, facts)
        yield from _addressed(endpoint, network, family, address)
    yield from common(endpoint, network, facts)


def _addressed(
    endpoint: Endpoint, network: Network, family: Family, address: net.Address
) -> Iterator[Placed]:
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
