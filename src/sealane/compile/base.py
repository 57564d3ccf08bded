"""The static half of the ruleset: base chains, and the sets and maps that networks and endpoints fill.

Nothing here depends on how many networks, endpoints or ports there are; a packet meets a fixed number of rules, each
a hash lookup at most. Every base chain has policy accept, since a host's other traffic passes through it: what is
ours is picked out by a map of our links, and dropped explicitly where it must not pass.

The IPv4 and IPv6 tables come from one generator. What a packet meets (for `ip`; `ip6` is the same):

    prerouting raw -300     workload of a routed network, from its own address? → its network's `proven` chain: untracked within the network
                            workload (by the group of its link)? → its network's `pre` chain: source guard, then the same
                            a link of ours that no map knows → drop
                            from elsewhere, to a private subnet or under an address of any subnet of ours → drop   (before
                            DNAT: published ports are addressed to the host here, so nothing but unpublished access is
                            caught; no network spans hosts, so nobody else has our addresses)
    prerouting nat -100     to an address of the host's, and not to what it serves there itself → publish maps → DNAT
    output nat -100         the same for the host's own connections, 127.0.0.0/8 excepted (socket program)
    forward 0               from a workload → its network's `from` chain: own network, or internal, or on
                            to a workload   → its network's `to` chain: replies, published, or drop
                            neither, where it is our doing that the host forwards → drop
    postrouting nat 100     from a private subnet → its network's `post` chain: hairpin, masquerade
"""

from collections.abc import Iterable, Iterator

from sealane.compile.names import ENDPOINT_PREFIX, NFT_FAMILY
from sealane.kernel import nft
from sealane.kernel.nft import (
    ACCEPT,
    DPORT,
    DROP,
    ETHER_TYPE,
    ICMPV6_TYPE,
    IIFGROUP,
    IIFNAME,
    L4PROTO,
    OIFGROUP,
    OIFNAME,
    SPORT,
    BitTest,
    Chain,
    Cmp,
    CmpPrefix,
    Concat,
    Counter,
    Ct,
    DnatMap,
    Fib,
    Hook,
    Lookup,
    Meta,
    Payload,
    Rule,
    Set,
    Statement,
    Table,
    TypeName,
    Verdict,
    VerdictMap,
)
from sealane.kernel.state import Object
from sealane.model.net import PROTO_NUMBERS, Family

RAW = -300
"""Before connection tracking (-200) and DNAT (-100): NF_IP_PRI_RAW."""

BRIDGE_GUARD = -300
"""NF_BR_PRI_NAT_DST_BRIDGED: first of the bridge's own hooks, before br_netfilter (0) makes IP packets of frames."""

ADDRESS_TYPE: dict[Family, TypeName] = {4: "ipv4_addr", 6: "ipv6_addr"}
SADDR: dict[Family, Payload] = {4: nft.IP_SADDR, 6: nft.IP6_SADDR}
DADDR: dict[Family, Payload] = {4: nft.IP_DADDR, 6: nft.IP6_DADDR}
LOOPBACK: dict[Family, str] = {4: "127.0.0.0/8", 6: "::1/128"}

DNATTED = BitTest(Ct("status"), nft.CT_STATUS["dnat"], "dnat")
REPLY: tuple[Statement, ...] = (
    BitTest(Ct("state"), nft.CT_STATE["established"] | nft.CT_STATE["related"], "established,related"),
    # Only back: a flow that once got through while rules were gone is established too, and would stay for ever.
    Cmp(Ct("direction"), "==", b"\x01", "reply"),
)

OURS = Cmp(IIFNAME, "==", ENDPOINT_PREFIX.encode(), f'"{ENDPOINT_PREFIX}*"')
TO_OURS = Cmp(OIFNAME, "==", ENDPOINT_PREFIX.encode(), f'"{ENDPOINT_PREFIX}*"')


def goto(chain: str) -> Verdict:
    return Verdict("goto", chain)


def deny(*statements: Statement, why: str) -> Rule:
    """A named drop. `explain` and `trace` read the reason off the comment."""
    return Rule((*statements, Counter(), DROP), why)


def compile_base(family: Family, *, adopted: bool, transit: Iterable[Rule] = ()) -> Iterator[Object]:
    """Table, base chains, sets and maps of one IP family. `adopted`: there are bridges that are not ours, whose group
    is not ours to set: they are found by name. `transit`: what becomes of what is neither from us nor to us; none: it passes
    (`compile.forwarding`)."""
    name = NFT_FAMILY[family]
    yield Table(family=name)
    yield from _sets(family, adopted=adopted)
    saddr, daddr = SADDR[family], DADDR[family]

    def base(chain: str, hook: Hook, *rules: Rule) -> Chain:
        return Chain(family=name, name=chain, hook=hook, rules=rules)

    raw = Hook("filter", "prerouting", RAW)
    yield base("prerouting_raw", raw, *_prerouting_raw(saddr, daddr, adopted=adopted))
    to_host = Cmp(Fib(), "==", nft.FIB_LOCAL.to_bytes(4, "little"), "local")
    yield base(
        "prerouting_nat",
        Hook("nat", "prerouting", -100),
        Rule((to_host, Verdict("jump", "publish")), "base:publish"),
    )
    yield base(
        "output_nat",
        Hook("nat", "output", -100),
        Rule((CmpPrefix(daddr, "==", LOOPBACK[family]), ACCEPT), "base:loopback"),
        Rule((to_host, Verdict("jump", "publish")), "base:publish"),
    )
    yield Chain(family=name, name="publish", rules=tuple(_publish(saddr, daddr)))
    yield base(
        "forward",
        Hook("filter", "forward", 0),
        *_by_link(IIFGROUP, IIFNAME, "from", "base:from", adopted=adopted),
        Rule((Verdict("jump", "into"),), "base:into"),
        *transit,
    )
    yield Chain(
        family=name,
        name="into",
        rules=(
            *_by_link(OIFGROUP, OIFNAME, "to", "base:to", adopted=adopted),
            deny(TO_OURS, why="base:unplugged"),
        ),
    )
    yield base(
        "postrouting_nat",
        Hook("nat", "postrouting", 100),
        Rule((VerdictMap(saddr, "leaving"),), "base:leaving"),
    )


def _prerouting_raw(saddr: Payload, daddr: Payload, *, adopted: bool) -> Iterator[Rule]:
    # Source guard and network in one lookup; what is not there has a group, and is refused, or no group yet.
    yield Rule((OURS, VerdictMap(Concat((IIFNAME, saddr)), "sources")), "base:source")
    yield from _by_link(IIFGROUP, IIFNAME, "workload", "base:workload", adopted=adopted)
    yield deny(OURS, why="base:unplugged")
    yield Rule((Cmp(IIFNAME, "==", b"lo".ljust(16, b"\0"), '"lo"'), ACCEPT), "base:host")
    yield deny(Lookup(daddr, "private"), why="base:direct")
    yield deny(Lookup(saddr, "subnets"), why="base:spoofed")


def _by_link(group: Meta, link: Meta, verdicts: str, why: str, *, adopted: bool) -> Iterator[Rule]:
    yield Rule((VerdictMap(group, verdicts),), why)
    if adopted:
        yield Rule((VerdictMap(link, f"{verdicts}_adopted"),), why)


def _publish(saddr: Payload, daddr: Payload) -> Iterator[Rule]:
    anywhere = Concat((L4PROTO, DPORT))
    at_address = Concat((daddr, L4PROTO, DPORT))
    by_source = Concat((saddr, daddr, L4PROTO, DPORT))
    yield Rule((Lookup(at_address, "served"), ACCEPT), "base:served")
    for name, number in PROTO_NUMBERS.items():
        # nft takes ports of a map with intervals only behind a match of one protocol.
        proto = Cmp(L4PROTO, "==", bytes([number]), name)
        yield Rule((proto, DnatMap(by_source, "publish_from", with_port=True)), "base:publish-from")
    yield Rule((DnatMap(by_source, "publish_from_ranges", with_port=False),), "base:publish-from-ranges")
    yield Rule((DnatMap(at_address, "publish_at", with_port=True),), "base:publish-at")
    yield Rule((DnatMap(anywhere, "publish", with_port=True),), "base:publish")
    yield Rule((DnatMap(at_address, "publish_ranges", with_port=False),), "base:publish-ranges")


def _sets(family: Family, *, adopted: bool) -> Iterator[Set]:
    name, address = NFT_FAMILY[family], ADDRESS_TYPE[family]
    where: tuple[TypeName, ...] = (address, "inet_proto", "inet_service")
    for verdict_map in ("workload", "from", "to"):
        yield Set(family=name, name=verdict_map, type=("devgroup",), data=("verdict",))
        if adopted:
            yield Set(family=name, name=f"{verdict_map}_adopted", type=("ifname",), data=("verdict",))
    yield Set(family=name, name="leaving", type=(address,), data=("verdict",), interval=True)
    yield Set(family=name, name="private", type=(address,), interval=True)
    yield Set(family=name, name="subnets", type=(address,), interval=True)
    yield Set(family=name, name="sources", type=("ifname", address), data=("verdict",))
    yield Set(family=name, name="itself", type=(address, address))
    yield Set(family=name, name="open", type=where, interval=True)
    yield Set(family=name, name="served", type=where)
    yield Set(
        family=name, name="publish", type=("inet_proto", "inet_service"), data=(address, "inet_service")
    )
    request: tuple[TypeName, ...] = (address, *where)
    yield Set(family=name, name="publish_from", type=request, data=(address, "inet_service"), interval=True)
    yield Set(family=name, name="publish_from_ranges", type=request, data=(address,), interval=True)
    yield Set(family=name, name="publish_at", type=where, data=(address, "inet_service"))
    yield Set(family=name, name="publish_ranges", type=where, data=(address,), interval=True)


# --- the guards at bridge ports -------------------------------------------------------------------------------------

# Said in every rule that looks up a field of the network header, though nothing comes there but of this type: nft knows
# such a field again only behind it, and what it lists otherwise it does not read back (`nft list ruleset`, `nft -f`).
IS_IP = Cmp(ETHER_TYPE, "==", b"\x08\x00", "ip")
IS_ARP = Cmp(ETHER_TYPE, "==", b"\x08\x06", "arp")
IS_IP6 = Cmp(ETHER_TYPE, "==", b"\x86\xdd", "ip6")
UDP = Cmp(L4PROTO, "==", b"\x11", "udp")
ICMP = Cmp(L4PROTO, "==", b"\x01", "icmp")
ICMPV6 = Cmp(L4PROTO, "==", b"\x3a", "ipv6-icmp")


def _sender(*claimed: Payload, mac: Payload = nft.ETHER_SADDR) -> Concat:
    return Concat((IIFNAME, mac, *claimed))


def _type(load: Payload, value: int, shown: str) -> Cmp:
    return Cmp(load, "==", value.to_bytes(load.length, "big"), shown)


def compile_guards(*, apart: bool) -> Iterator[Object]:
    """The bridge table: what a port of ours may send, before anything else looks at it. `apart`: there are networks
    whose endpoints are kept from each other.

    A port may send ARP, IPv4 and IPv6 under its own MAC and its own addresses. Everything else (BPDUs, LLDP, tagged
    frames, frames under other MACs) has no accept and falls to the drop at the end. The guard stands before every
    accept: CVE-2025-52890 (Incus) was an accept for ARP and established traffic above it.
    """
    yield Table(family="bridge")
    yield Set(family="bridge", name="sources4", type=("ifname", "ether_addr", "ipv4_addr"))
    yield Set(family="bridge", name="sources6", type=("ifname", "ether_addr", "ipv6_addr"))
    yield Set(family="bridge", name="nd_targets", type=("ifname", "ether_addr", "integer", "integer"))
    yield Set(family="bridge", name="apart", type=("ifname",), data=("verdict",))
    yield Chain(
        family="bridge",
        name="prerouting",
        hook=Hook("filter", "prerouting", BRIDGE_GUARD),
        rules=tuple(_entrance(apart=apart)),
    )
    yield Chain(
        family="bridge",
        name="guard",
        rules=(
            Rule((IS_IP, goto("guard_ip")), "guard:ip"),
            Rule((IS_ARP, goto("guard_arp")), "guard:arp"),
            Rule((IS_IP6, goto("guard_ip6")), "guard:ip6"),
            deny(why="guard:ethertype"),
        ),
    )
    yield Chain(
        family="bridge",
        name="guard_ip",
        rules=(
            deny(UDP, _type(SPORT, 67, "67"), why="guard:dhcp-server"),
            deny(ICMP, _type(nft.ICMP_TYPE, 5, "redirect"), why="guard:redirect"),
            deny(ICMP, _type(nft.ICMP_TYPE, 9, "router-advertisement"), why="guard:router-advert"),
            Rule((IS_IP, Lookup(_sender(nft.IP_SADDR), "sources4"), ACCEPT), "guard:source"),
            deny(why="guard:spoofed-ip"),
        ),
    )
    yield Chain(family="bridge", name="guard_arp", rules=tuple(_guard_arp()))
    yield Chain(family="bridge", name="guard_ip6", rules=tuple(_guard_ip6()))
    # Apart, so that an advertisement with a true target still needs a true source.
    yield Chain(
        family="bridge",
        name="guard_ip6_source",
        rules=(
            Rule((IS_IP6, Lookup(_sender(nft.IP6_SADDR), "sources6"), ACCEPT), "guard:source"),
            deny(why="guard:spoofed-ip"),
        ),
    )


def _entrance(*, apart: bool) -> Iterator[Rule]:
    """Most frames are TCP over IPv4 from where they should be, and are let through here, by the link's name, the MAC
    and the address in one lookup."""
    if apart:
        yield Rule((VerdictMap(IIFNAME, "apart"),), "guard:apart")
    tcp = Cmp(L4PROTO, "==", b"\x06", "tcp")
    yield Rule((IS_IP, tcp, Lookup(_sender(nft.IP_SADDR), "sources4"), ACCEPT), "guard:source")
    yield Rule((OURS, goto("guard")), "base:guard")


def _guard_arp() -> Iterator[Rule]:
    # Ethernet, IPv4, lengths 6 and 4: with other lengths the sender fields stand elsewhere.
    plain = Cmp(nft.ARP_HEAD, "==", bytes.fromhex("000108000604"), "0x000108000604")
    frame = Lookup(_sender(nft.ARP_SENDER_IP), "sources4")
    body = Lookup(_sender(nft.ARP_SENDER_IP, mac=nft.ARP_SENDER_MAC), "sources4")
    yield Rule((IS_ARP, plain, frame, body, ACCEPT), "guard:arp-sender")
    yield deny(why="guard:spoofed-arp")


def _guard_ip6() -> Iterator[Rule]:
    target = Lookup(_sender(*nft.ND_TARGET), "nd_targets")
    unspecified = Cmp(nft.IP6_SADDR, "==", bytes(16), "::")
    yield deny(UDP, _type(SPORT, 547, "547"), why="guard:dhcp-server")
    yield deny(ICMPV6, _type(ICMPV6_TYPE, 134, "nd-router-advert"), why="guard:router-advert")
    yield deny(ICMPV6, _type(ICMPV6_TYPE, 137, "nd-redirect"), why="guard:redirect")
    yield Rule(
        (IS_IP6, ICMPV6, _type(ICMPV6_TYPE, 135, "nd-neighbor-solicit"), unspecified, target, ACCEPT),
        "guard:duplicate-address-detection",
    )
    yield Rule(
        (ICMPV6, _type(ICMPV6_TYPE, 136, "nd-neighbor-advert"), target, goto("guard_ip6_source")),
        "guard:nd-target",
    )
    yield deny(ICMPV6, _type(ICMPV6_TYPE, 136, "nd-neighbor-advert"), why="guard:spoofed-nd")
    yield Rule((goto("guard_ip6_source"),), "guard:ip6")
