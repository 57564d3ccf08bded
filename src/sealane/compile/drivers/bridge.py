"""Driver `bridge`: endpoints are ports of one bridge, whose gateway is the bridge itself.

To the routing code the network is one link with a prefix behind it, so the source guard in IP is the prefix; each port's
MAC, ARP, neighbour discovery and addresses are guarded in the bridge family.
"""

from collections.abc import Iterator

from sealane.compile import names
from sealane.compile.base import ICMPV6, IS_ARP, IS_IP6, SADDR
from sealane.compile.endpoint import HostEnd, Placed, common, each_address, in_family, link_local, veth
from sealane.compile.facts import Facts
from sealane.compile.network import (
    bridge_mac,
    chains,
    gateway_link,
    is_apart,
    network_deny,
    network_rule,
    proven_rules,
    served,
)
from sealane.kernel import nft
from sealane.kernel.nft import ACCEPT, Chain, Cmp, CmpPrefix, CmpRange, Element, Rule, TypeName, Verdict
from sealane.kernel.objects import GROUP_LIVE, Address, BridgePort, FdbEntry, Neighbour
from sealane.kernel.state import HOST, Object
from sealane.model import net
from sealane.model.endpoint import Endpoint
from sealane.model.net import Family, family_of, prefix_length
from sealane.model.network import Network, Subnet


def compile_network(network: Network, facts: Facts) -> Iterator[Object]:
    link = names.network_link(network)
    if not network.link_adopted:
        # An adopted one is another program's.
        yield from gateway_link(network, facts, ageing_off=False)
        yield FdbEntry(link=link, mac=bridge_mac(network), is_own=True)
    if is_apart(network):
        yield _apart(network)
    for subnet in network.subnets:
        if network.gateway_on_link and not network.link_adopted:
            yield Address(link=link, address=f"{subnet.gateway}/{prefix_length(subnet.prefix)}")
        yield from chains(network, subnet, facts, list(_pre(network, subnet, facts)))
    yield from served(network)


def _pre(network: Network, subnet: Subnet, facts: Facts) -> Iterator[Rule]:
    """Prerouting raw, from a workload: its source is of the network's prefix. (Which one it is has been checked at its
    port, by the guards.)"""
    family = family_of(subnet.gateway)
    saddr = SADDR[family]
    if family == 6:
        # Neighbour discovery; the port's own guard has checked which link-local address it is.
        yield network_rule(network, "link-local", CmpPrefix(saddr, "==", "fe80::/10"), ACCEPT)
        yield network_rule(network, "unspecified", Cmp(saddr, "==", bytes(16), "::"), ACCEPT)
    yield network_deny(network, "spoofed", CmpPrefix(saddr, "!=", subnet.prefix))
    yield from proven_rules(network, subnet, facts)


def _apart(network: Network) -> Chain:
    """At a port whose network keeps its endpoints from each other: frames for the host, ARP, and neighbour discovery.

    The second wall beside isolated ports, and the only one where br_netfilter is on (`compile.endpoint`).
    """
    done = Verdict("return")
    to_host = Cmp(nft.ETHER_DADDR, "==", nft.field("ether_addr", bridge_mac(network)), bridge_mac(network))
    discovery = CmpRange(nft.ICMPV6_TYPE, b"\x85", b"\x88", "133-136")
    rules = (
        network_rule(network, "to-host", to_host, done),
        network_rule(network, "arp", IS_ARP, done),
        network_rule(network, "discovery", IS_IP6, ICMPV6, discovery, done),
        network_deny(network, "icc"),
    )
    return Chain(family="bridge", name=names.network_chain(network.id, "apart"), rules=rules)


def compile_endpoint(endpoint: Endpoint, network: Network, facts: Facts) -> Iterator[Placed]:
    host_link = names.endpoint_link(endpoint.id)
    port = HostEnd(master=names.network_link(network), port=_port(network, facts), group=GROUP_LIVE)
    yield from veth(endpoint, network, facts, port)
    if is_apart(network):
        verdict = Verdict("jump", names.network_chain(network.id, "apart"))
        yield HOST, Element(family="bridge", set="apart", value=nft.field("ifname", host_link), data=verdict)
    yield HOST, FdbEntry(link=host_link, mac=endpoint.mac)
    for family, address in each_address(endpoint):
        yield from in_family(endpoint, network, family, address, facts)
        yield from _addressed(endpoint, network, family, address)
    yield from common(endpoint, network, facts)


def _port(network: Network, facts: Facts) -> BridgePort:
    """Where br_netfilter is on, a packet for a published port becomes a frame between two ports again: the port must
    let it, and the guards alone keep the network's endpoints from each other."""
    bridge_netfilter = facts.features.bridge_netfilter and not network.link_adopted
    return BridgePort(
        isolated=not network.icc and not bridge_netfilter,
        hairpin=facts.features.bridge_netfilter,
        forwarding=None if network.link_adopted else True,
    )


def _addressed(
    endpoint: Endpoint, network: Network, family: Family, address: net.Address
) -> Iterator[Placed]:
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


def _guards(endpoint: Endpoint, family: Family, address: str) -> Iterator[Element]:
    kinds: tuple[TypeName, ...] = ("ifname", "ether_addr", "ipv4_addr" if family == 4 else "ipv6_addr")
    value = nft.concat(kinds, (names.endpoint_link(endpoint.id), endpoint.mac, address))
    yield Element(family="bridge", set=f"sources{family}", value=value)
    if family == 6:
        # The same bytes: an address and its halves are packed alike.
        yield Element(family="bridge", set="nd_targets", value=value)
