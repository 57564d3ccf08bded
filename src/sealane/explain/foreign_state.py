"""What is on the host and not ours, as far as packets meet it: links, addresses, routes, settings.

Desired state says nothing of foreign objects, and packets pass through them all the same. What is not said here is
taken to be as a fresh kernel has it.
"""

import msgspec

from sealane.compile.facts import Facts
from sealane.explain.foreign.rules import ForeignRules
from sealane.kernel.objects import Address, Route, Sysctl

DEFAULT_MTU = 1500


class ForeignLink(msgspec.Struct, frozen=True, kw_only=True):
    """A link of somebody else's. What leaves by it is out of our sight, unless it is a bridge that a network adopted."""

    name: str
    kind: str = ""
    """`bridge`, or anything else."""
    mtu: int = DEFAULT_MTU
    mac: str = ""
    up: bool = True

    @property
    def has_ports(self) -> bool:
        return self.kind == "bridge"


class ForeignState(msgspec.Struct, frozen=True, kw_only=True):
    links: tuple[ForeignLink, ...] = ()
    addresses: tuple[Address, ...] = ()
    routes: tuple[Route, ...] = ()
    """Connected routes follow from the addresses and need not be given."""
    sysctls: tuple[Sysctl, ...] = ()
    bridge_netfilter: bool = False
    """net.bridge.bridge-nf-call-iptables: bridged frames pass the IP hooks too."""
    rules: ForeignRules = ForeignRules()
    """Tables of others on the host, as far as they are heeded: without `--observed` those that may translate."""


def foreign_state_of(facts: Facts, addresses: tuple[str, ...] = ()) -> ForeignState:
    """As facts tell them: the uplink with these addresses (`192.0.2.7/24`), and default routes by it."""
    bridge_netfilter = facts.features.bridge_netfilter
    if not facts.uplink:
        return ForeignState(bridge_netfilter=bridge_netfilter)
    families = {":" in address for address in addresses}
    return ForeignState(
        links=(ForeignLink(name=facts.uplink, mtu=facts.uplink_mtu or DEFAULT_MTU),),
        addresses=tuple(Address(link=facts.uplink, address=address) for address in addresses),
        routes=tuple(
            Route(dst="::/0" if is_v6 else "0.0.0.0/0", link=facts.uplink) for is_v6 in sorted(families)
        ),
        bridge_netfilter=bridge_netfilter,
    )
