"""What networks of all drivers have in common whose packets pass the host's own rules: a link for the gateway, and
chains in both families. What a driver has for itself is in `compile.drivers`.
"""

from collections.abc import Iterable, Iterator

from sealane.compile import names
from sealane.compile.base import (
    ADDRESS_TYPE,
    DADDR,
    DNATTED,
    ICMP,
    ICMPV6,
    LOOPBACK,
    REPLY,
    SADDR,
    deny,
    goto,
)
from sealane.compile.facts import Facts
from sealane.compile.names import NFT_FAMILY
from sealane.kernel import nft
from sealane.kernel.links import Bridge
from sealane.kernel.nft import (
    ACCEPT,
    L4PROTO,
    OIFGROUP,
    OIFNAME,
    BitTest,
    Chain,
    Cmp,
    CmpPrefix,
    Concat,
    Ct,
    Element,
    Fib,
    Lookup,
    Masquerade,
    Notrack,
    Rule,
    Snat,
    Statement,
    Verdict,
)
from sealane.kernel.objects import Link, Sysctl
from sealane.kernel.state import Object
from sealane.model.net import (
    IPV6_MTU_MIN,
    PROTO_NUMBERS,
    Family,
    Mac,
    bounds,
    family_of,
    from_int,
)
from sealane.model.network import RESOLVER_PORT, RESOLVER_PROTOS, Network, Subnet

MTU_WITHOUT_UPLINK = 1500

RELATED = BitTest(Ct("state"), nft.CT_STATE["related"], "related")
UNPROVEN = BitTest(
    Ct("state"),
    nft.CT_STATE["invalid"] | nft.CT_STATE["new"] | nft.CT_STATE["untracked"],
    "invalid,new,untracked",
)
LOCAL = nft.FIB_LOCAL.to_bytes(4, "little")


def mtu(network: Network, facts: Facts) -> int:
    """A network with IPv6 keeps what IPv6 needs, however small the uplink: what is larger than that is fragmented, or
    answered by ICMP."""
    size = network.mtu or facts.uplink_mtu or MTU_WITHOUT_UPLINK
    return max(size, IPV6_MTU_MIN) if network.subnet(6) is not None else size


def knows_ipv6(network: Network, facts: Facts) -> bool:
    """Whether the kernel has settings of IPv6 for its links: below 1280 bytes they have none."""
    return facts.features.ipv6 and mtu(network, facts) >= IPV6_MTU_MIN


def is_tracked(network: Network, family: Family, facts: Facts) -> bool:
    """Whether the network's own traffic is tracked: where somebody else may translate a service's address to an endpoint
    (kube-proxy does), the answer to a neighbour is translated back on its way, and the client's address can stay as it is.

    On a bridge that way leads past connection tracking with br_netfilter only; without, answers have to be drawn to the
    host by its own address (`hairpin`).
    """
    passes_hooks = not network.traits.has_bridge or facts.features.bridge_netfilter
    return passes_hooks and NFT_FAMILY[family] in facts.features.translators


def has_data_plane(network: Network) -> bool:
    return network.traits.has_links


def served(network: Network) -> Iterator[Element]:
    """Where workloads ask for names, whatever is published on every address of the host."""
    for address in network.resolvers:
        family = family_of(address)
        kinds = (ADDRESS_TYPE[family], "inet_proto", "inet_service")
        for proto in RESOLVER_PROTOS:
            value = nft.concat(kinds, (address, PROTO_NUMBERS[proto], RESOLVER_PORT))
            yield Element(family=NFT_FAMILY[family], set="served", value=value)


def gateway_link(network: Network, facts: Facts, *, ageing_off: bool) -> Iterator[Object]:
    """The network's bridge: the link of its gateway's addresses."""
    name = names.network_link(network)
    yield Link(
        name=name,
        kind=Bridge(ageing_off=ageing_off),
        mtu=mtu(network, facts),
        mac=bridge_mac(network),
        alias=names.alias(facts.instance, "n", network.id),
        addr_gen_none=network.subnet(6) is None,
        group=names.network_group(network.id),
    )
    # What workloads send goes nowhere from an internal bridge. (Those of an internal routed network have links of their own.)
    yield from (
        s for s in link_settings(name, 4) if not (network.internal and s.path.endswith("/forwarding"))
    )
    if knows_ipv6(network, facts):
        yield from link_settings(name, 6)
        if network.subnet(6) is not None:
            # Whatever links have by default: where it is off, no address can be added.
            yield Sysctl(path=f"net/ipv6/conf/{name}/disable_ipv6", value="0")


def is_apart(network: Network) -> bool:
    """Whether its endpoints are kept from each other by the guards. (An adopted bridge's MAC is not ours to know: its
    ports are isolated and nothing else. Those of a routed network have no port.)"""
    return network.traits.has_bridge and not network.icc and not network.link_adopted


def bridge_mac(network: Network) -> Mac:
    return names.mac(f"bridge {network.id}")


def link_settings(link: str, family: Family) -> Iterator[Sysctl]:
    """What a link that workloads speak to the host through must do, and must not.

    It forwards, whatever new links do by default (IPv6 has one setting for all links). A workload's redirect,
    source-routed packet or router advertisement would change the host's routing (CVE-2020-10749), a redirect of the host's
    would lead workloads past it, and `route_localnet` would open 127.0.0.1 (CVE-2020-8558).
    """
    settings = {
        4: {
            "accept_redirects": "0",
            "accept_source_route": "0",
            "forwarding": "1",
            "route_localnet": "0",
            "send_redirects": "0",
        },
        6: {"accept_ra": "0", "accept_redirects": "0"},
    }
    for setting, value in settings[family].items():
        yield Sysctl(path=f"net/ipv{family}/conf/{link}/{setting}", value=value)


def chains(
    network: Network, subnet: Subnet, facts: Facts, pre: Iterable[Rule], proven: Iterable[Rule] = ()
) -> Iterator[Object]:
    """The network's chains in one family. `pre` proves the sources of its workloads, and what has been proven by a map
    goes to `proven`."""
    family = family_of(subnet.gateway)
    tracked = is_tracked(network, family, facts)
    name = NFT_FAMILY[family]
    address = ADDRESS_TYPE[family]

    def chain(purpose: str) -> str:
        return names.network_chain(network.id, purpose)

    yield from _link_elements(network, family)
    own = _towards_own(network)
    yield Chain(family=name, name=chain("pre"), rules=tuple(pre))
    if proven:
        yield Chain(family=name, name=chain("proven"), rules=tuple(proven))
    yield Chain(family=name, name=chain("from"), rules=tuple(_from(network, own)))
    yield Chain(family=name, name=chain("to"), rules=tuple(_to(network, family)))
    yield Chain(family=name, name=chain("post"), rules=tuple(_post(network, subnet, tracked=tracked)))
    first, last = (nft.field(address, from_int(family, value)) for value in bounds(subnet.prefix))
    yield Element(
        family=name,
        set="leaving",
        value=first,
        end=last,
        data=Verdict("goto", names.network_chain(network.id, "post")),
    )
    if not network.traits.spans_hosts:
        yield Element(family=name, set="subnets", value=first, end=last)
    if network.masquerade or network.internal:
        yield Element(family=name, set="private", value=first, end=last)


def _link_elements(network: Network, family: Family) -> Iterator[Element]:
    """The links behind which workloads of the network are: all that are in its group, however many."""
    adopted = network.link_adopted
    value = (
        nft.field("ifname", network.link)
        if adopted
        else nft.field("devgroup", names.network_group(network.id))
    )
    for table_map, purpose in (("workload", "pre"), ("from", "from"), ("to", "to")):
        where = f"{table_map}_adopted" if adopted else table_map
        verdict = goto(names.network_chain(network.id, purpose))
        yield Element(family=NFT_FAMILY[family], set=where, value=value, data=verdict)


def _towards_own(network: Network) -> Statement:
    """Out by a link behind which workloads of the network are."""
    if network.link_adopted:
        return Cmp(OIFNAME, "==", nft.field("ifname", network.link), f'"{network.link}"')
    group = names.network_group(network.id)
    return Cmp(OIFGROUP, "==", nft.field("devgroup", group), f"0x{group:08x}")


def network_rule(network: Network, why: str, *statements: Statement) -> Rule:
    return Rule(statements, f"n:{names.digest(network.id)}:{why}")


def network_deny(network: Network, why: str, *statements: Statement) -> Rule:
    return deny(*statements, why=f"n:{names.digest(network.id)}:{why}")


def proven_rules(network: Network, subnet: Subnet, facts: Facts) -> Iterator[Rule]:
    """From a workload's own address: keep the network's own traffic out of connection tracking, which costs a tenth of
    a round trip and has nothing to say there, unless somebody else translates. What comes back to the gateway address is
    the reply to a hairpin and stays tracked."""
    family = family_of(subnet.gateway)
    daddr = DADDR[family]
    if family == 4:
        # The kernel refuses these as well, unless somebody has set `all.route_localnet`, as kube-proxy does; ::1 always.
        yield network_deny(network, "loopback", CmpPrefix(daddr, "==", LOOPBACK[4]))
    gateway = Cmp(daddr, "!=", nft.field(ADDRESS_TYPE[family], subnet.gateway), subnet.gateway)
    own = CmpPrefix(daddr, "==", subnet.prefix)
    if network.icc and not is_tracked(network, family, facts):
        yield network_rule(network, "own", gateway, own, Notrack(), ACCEPT)
    yield network_rule(network, "workload", ACCEPT)


def _from(network: Network, own: Statement) -> Iterator[Rule]:
    """Forward, from a workload."""
    if network.icc:
        yield network_rule(network, "own", own, ACCEPT)
    else:
        yield network_rule(network, "published", own, DNATTED, ACCEPT)
        yield network_rule(network, "published", own, *REPLY, ACCEPT)
        yield network_deny(network, "icc", own)
    if network.internal:
        yield network_deny(network, "internal")
    else:
        yield network_rule(network, "out", goto("into"))


def _to(network: Network, family: Family) -> Iterator[Rule]:
    """Forward, to a workload from outside its network: this is what keeps networks apart."""
    if network.internal:
        yield network_deny(network, "internal")
        return
    yield network_rule(network, "reply", *REPLY, ACCEPT)
    # What the host sends itself is not forwarded. Of IPv6 the kernel does not look (IPv4: unless `accept_local` is set).
    yield network_deny(network, "host-source", UNPROVEN, Cmp(Fib(of_source=True), "==", LOCAL, "local"))
    yield network_rule(network, "published", DNATTED, ACCEPT)
    if not network.masquerade:
        open_ports = Concat((DADDR[family], L4PROTO, nft.DPORT))
        yield network_rule(network, "published", Lookup(open_ports, "open"), ACCEPT)
        # An error about what was let in (`fragmentation needed` above all) has no port, and is no reply.
        yield network_rule(network, "error", RELATED, ICMP if family == 4 else ICMPV6, ACCEPT)
    yield network_deny(network, "isolation")


def _post(network: Network, subnet: Subnet, *, tracked: bool) -> Iterator[Rule]:
    """Postrouting, from a workload (or from the host under the gateway address)."""
    family = family_of(subnet.gateway)
    own = CmpPrefix(DADDR[family], "==", subnet.prefix)
    by_host: Statement = Snat(subnet.gateway) if network.gateway_on_link else Masquerade()
    if tracked:
        # Nobody takes a packet from his own address; of a neighbour's the answer comes by connection tracking.
        itself = Lookup(Concat((SADDR[family], DADDR[family])), "itself")
        yield network_rule(network, "hairpin", DNATTED, itself, by_host)
        yield network_rule(network, "own-network", own, ACCEPT)
    else:
        # Without it the answer would go straight back inside the network, past the translation.
        yield network_rule(network, "hairpin", DNATTED, own, by_host)
    if network.internal or not network.masquerade:
        return
    # Published ports of other networks see the true source.
    yield network_rule(network, "own-side", Lookup(DADDR[family], "private"), ACCEPT)
    fixed = next((a for a in network.source_addresses if family_of(a) == family), None)
    yield network_rule(network, "masquerade", Snat(fixed) if fixed else Masquerade())
