"""What was read in the namespaces of one packet's path: records, and nothing else (read by `sealane.linux.path_reading`)."""

from collections.abc import Mapping
from typing import Literal

import msgspec

from sealane.explain.foreign.rules import ForeignRules
from sealane.explain.packet import Lookup

UNKNOWN_STATE, UP_STATE = 0, 6
"""IF_OPER_UNKNOWN, IF_OPER_UP."""


class Wanted(msgspec.Struct, frozen=True):
    """What is to be read in one namespace."""

    links: frozenset[str]
    """Of the path; everything else is read of the whole namespace."""
    lookups: tuple[Lookup, ...] = ()
    bridged: frozenset[tuple[str, str]] = frozenset()
    """(bridge, MAC): entries of FDBs that must be there, by which frames go up to the IP layer."""


class LinkReading(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    index: int = 0
    kind: str = ""
    mac: str = ""
    up: bool = True
    carrier: bool = True
    state: int = UP_STATE
    """IF_OPER_*."""
    multicast: bool = True
    mtu: int = 0
    master: str = ""
    below: str = ""
    """The link that it stands on (IFLA_LINK), if that is in this namespace and it takes frames from it."""
    xdp: bool = False
    protodown: bool = False
    bridge: Mapping[str, int] = {}
    """Settings of a bridge by name, those alone that are not as a fresh bridge has them."""
    port: Mapping[str, int] = {}
    """The same of a bridge port. `state` is there unless it is forwarding."""
    programs: tuple[str, ...] = ()
    """What frames meet on it: `qdisc netem`, `tc filter u32 at ingress`, `tcx program at egress`."""


class NeighbourReading(msgspec.Struct, frozen=True):
    link: str
    address: str
    mac: str
    is_fixed: bool
    """Permanent, or without ARP: put there by somebody."""
    is_silent: bool = False
    """The last question for it had no answer."""


class RouteReading(msgspec.Struct, frozen=True, kw_only=True):
    """The kernel's answer to a `Lookup`."""

    kind: str = ""
    """`unicast`, `local`, or a type that ends the packet; empty: refused."""
    link: str = ""
    gateway: str = ""
    table: int = 0
    mtu: int = 0
    """Of the route itself; 0: the link's."""
    encap: bool = False
    error: str = ""
    """`EHOSTUNREACH`, …"""


class RuleReading(msgspec.Struct, frozen=True):
    """A routing rule that is neither sealane's nor the kernel's own."""

    text: str
    family: Literal[4, 6]
    is_answered: bool
    """Its conditions are all in a `Lookup`, so that the kernel's answer has heeded it."""


class NamespaceReading(msgspec.Struct, frozen=True, kw_only=True):
    links: Mapping[str, LinkReading] = {}
    """All of the namespace; `programs` of the wanted ones alone."""
    routes: Mapping[Lookup, RouteReading] = {}
    policies: tuple[RuleReading, ...] = ()
    neighbours: tuple[NeighbourReading, ...] = ()
    own_macs: frozenset[tuple[str, str]] = frozenset()
    """All such entries as `Wanted.bridged`."""
    unready: tuple[str, ...] = ()
    """Addresses that are tentative, or were found to be somebody else's (IPv6)."""
    sysctls: Mapping[str, str] = {}
    rules: ForeignRules = ForeignRules()
    ipsec: int = 0
    """Policies of IPsec (XFRM), and defaults that are not to let through."""
    programs: tuple[str, ...] = ()
    """What sees packets and is neither a rule nor on a link: programs at cgroups and hooks, IPVS."""
    unread: tuple[str, ...] = ()
    """What could not be read, with the reason."""
