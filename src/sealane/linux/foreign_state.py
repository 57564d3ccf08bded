"""What is on the host and not ours, as `explain` needs it: read at the moment of the question."""

from sealane.explain.foreign.rules import ForeignRules
from sealane.explain.foreign_state import ForeignLink, ForeignState
from sealane.kernel.links import Loopback, word_of
from sealane.kernel.objects import RTPROT_SEALANE, Address, Route, Sysctl
from sealane.linux import facts, sysctl
from sealane.linux.foreign_rules import TranslatingRules
from sealane.linux.marks import alias_prefix, is_ours
from sealane.linux.netlink import inet, link
from sealane.linux.netlink.socket import Socket

SYSCTLS = ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding")
"""Settings of the host's that decide what becomes of packets."""


def read_foreign_state(
    socket: Socket, instance: str, nft: Socket | None = None, cache: TranslatingRules | None = None
) -> ForeignState:
    """`socket` is an rtnetlink one of the host's, `nft` one of netfilter's: without it no rules are read. Raises OSError."""
    raw = [link.parse(payload) for _, payload in socket.dump(link.dump())]
    prefix = alias_prefix(instance)
    foreign = {
        found.index: found
        for found in raw
        if not is_ours(found, prefix) and not isinstance(found.kind, Loopback)
    }
    names = {index: found.name for index, found in foreign.items()}
    indexes = {found.name: found.index for found in raw}
    return ForeignState(
        links=tuple(
            ForeignLink(
                name=found.name,
                kind=word_of(found.kind),
                mtu=found.mtu,
                mac=found.mac,
                up=bool(found.flags & link.IFF_UP),
            )
            for found in foreign.values()
        ),
        addresses=tuple(_addresses(socket, names)),
        routes=tuple(_routes(socket, names)),
        sysctls=tuple(Sysctl(path=path, value=value) for path in SYSCTLS if (value := sysctl.read(path))),
        bridge_netfilter=facts.bridge_netfilter(),
        rules=(cache or TranslatingRules()).read(nft, indexes) if nft else ForeignRules(),
    )


def _addresses(socket: Socket, names: dict[int, str]) -> list[Address]:
    found = [inet.parse_address(payload) for _, payload in socket.dump(inet.dump_addresses())]
    return [Address(link=names[a.index], address=a.address) for a in found if a.index in names]


def _routes(socket: Socket, names: dict[int, str]) -> list[Route]:
    """Unicast routes of the main table that lead through a gateway or past what the addresses say."""
    return [
        Route(dst=found.dst, link=names[found.index], gateway=found.gateway, metric=found.metric)
        for family in (inet.AF_INET, inet.AF_INET6)
        for found in (inet.parse_route(payload) for _, payload in socket.dump(inet.dump_routes(family)))
        if found.type == inet.RTN_UNICAST
        and found.table == inet.TABLE_MAIN
        and found.protocol != RTPROT_SEALANE
        and not found.cloned
        and found.index in names
    ]
