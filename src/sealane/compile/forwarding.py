"""The forwarding switches, and the rule that limits what they open.

The kernel has one switch per family for all links. Setting it makes the host route between all of them: a machine on one LAN
would reach the next. So while sealane holds the switch, `base:transit` drops packets that are neither from nor to our
networks. Exempt are replies, packets that other rules translated, and packets from bridges of engines that started later and
found the switch set. On a host that forwarded before, there is no such rule: routers, libvirt, Docker and Kubernetes go on
as before.

IPv4 has the switch of each link, too, which decides where a packet comes in (`ip_route_input_slow`). A routed network that is
internal needs no other.
"""

from collections.abc import Collection, Iterator

from sealane.compile.base import DNATTED, REPLY, deny
from sealane.compile.facts import Facts
from sealane.compile.names import NFT_FAMILY
from sealane.kernel import nft
from sealane.kernel.nft import ACCEPT, IIFNAME, OIFNAME, Concat, Element, Lookup, Rule, Set
from sealane.kernel.objects import Sysctl
from sealane.kernel.state import Object
from sealane.model.net import FAMILIES, Family
from sealane.model.network import Network

SWITCHES: dict[Family, str] = {4: "net/ipv4/ip_forward", 6: "net/ipv6/conf/all/forwarding"}


def forwarded(networks: Collection[Network], facts: Facts) -> set[Family]:
    """Families that the host must forward: for our networks, or for who has come to live by it since."""
    families = {family for family in FAMILIES if any(_needs(network, family) for network in networks)}
    families |= {family for family, _ in facts.newcomers if family in facts.lent}
    return families if facts.features.ipv6 else families - {6}


def _needs(network: Network, family: Family) -> bool:
    if network.subnet(family) is None or not network.traits.follows_host_rules:
        return False
    return not network.internal or (not network.traits.has_bridge and family == 6)


def switches(families: Collection[Family], facts: Facts) -> Iterator[Sysctl]:
    if 4 in families:
        yield Sysctl(path=SWITCHES[4], value="1", borrowed=True)
    if 6 in families:
        # A host that forwards hears no router advertisements any more, unless told to (2): its own way out would expire.
        for link in facts.ra_links:
            yield Sysctl(path=f"net/ipv6/conf/{link}/accept_ra", value="2", borrowed=True)
        yield Sysctl(path=SWITCHES[6], value="1", borrowed=True)


def transit_rules(facts: Facts) -> Iterator[Rule]:
    """At the end of `forward`, for what is neither from a network of ours nor to one."""
    yield Rule((*REPLY, ACCEPT), "base:reply")
    yield Rule((DNATTED, ACCEPT), "base:translated")
    yield Rule((Lookup(IIFNAME, "newcomers"), ACCEPT), "base:newcomer")
    if facts.features.bridge_netfilter:
        yield Rule((Lookup(Concat((IIFNAME, OIFNAME)), "bridged"), ACCEPT), "base:bridged")
    yield deny(why="base:transit")


def transit_sets(family: Family, facts: Facts) -> Iterator[Object]:
    table = NFT_FAMILY[family]
    yield Set(family=table, name="newcomers", type=("ifname",))
    for of_family, name in facts.newcomers:
        if of_family == family:
            yield Element(family=table, set="newcomers", value=nft.field("ifname", name))
    if facts.features.bridge_netfilter:
        # A frame between two ports of one bridge passes these hooks as well.
        yield Set(family=table, name="bridged", type=("ifname", "ifname"))
        for name in facts.bridges:
            value = nft.concat(("ifname", "ifname"), (name, name))
            yield Element(family=table, set="bridged", value=value)
