"""The drivers of networks, once, and their traits: questions that integrations, engine and explain ask of a network.

Code asks for a trait, never for a driver's name; what a driver puts into the kernel is in `compile`. A tuple and no
msgspec record: the command line reads this table at each start.
"""

from typing import Final, Literal, NamedTuple, get_args

Driver = Literal["bridge", "routed", "host", "none"]

DRIVERS: Final[tuple[Driver, ...]] = get_args(Driver)

Guard = Literal["mac", "arp", "nd", "source", "ra", "dhcp", "bpdu"]
"""Forgeries that a port stops: MAC and ARP senders, neighbour advertisements, IP sources, router advertisements, DHCP
answers, bridge protocol frames (docs/design/security.md)."""

BRIDGE_PORTS_MAX: Final = 1023
"""A Linux bridge takes 1023 ports (BR_PORT_BITS is 10, net/bridge/br_private.h); the next one fails `Exchange full`."""


class Traits(NamedTuple):
    summary: str
    """For `--help`."""
    has_links: bool = False
    """Its endpoints have links, which sealane makes, and addresses of its subnets."""
    follows_host_rules: bool = False
    """Packets pass the host's own stack: published ports, isolation and masquerade hold."""
    has_bridge: bool = False
    """Its endpoints are ports of one bridge of the host, and share its link layer."""
    host_prefixes: bool = False
    """Its endpoints have addresses of full length (/32, /128), and reach the rest of their subnet by the gateway."""
    ports_max: int | None = None
    """Endpoints of one network; None: no limit of its own."""
    can_hand_over: bool = False
    """An endpoint's link can be left to another engine, which moves and configures it (Docker)."""
    excludes_others: bool = False
    """A sandbox on it is on no other network."""
    is_host: bool = False
    """The host's own network: its sandboxes have no namespace."""
    guards: tuple[Guard, ...] = ()
    """Promised at every endpoint."""
    spans_hosts: bool = False


TRAITS: Final[dict[Driver, Traits]] = {
    "bridge": Traits(
        "one link layer, up to 1,023 endpoints",
        has_links=True,
        follows_host_rules=True,
        has_bridge=True,
        ports_max=BRIDGE_PORTS_MAX,
        can_hand_over=True,
        guards=get_args(Guard),
    ),
    "routed": Traits(
        "one route per endpoint, any number of endpoints",
        host_prefixes=True,
        has_links=True,
        follows_host_rules=True,
        guards=get_args(Guard),
    ),
    "host": Traits("the host's own network", excludes_others=True, is_host=True),
    "none": Traits("a loopback device only", excludes_others=True),
}

MODES: Final = tuple(driver for driver in DRIVERS if TRAITS[driver].excludes_others)
"""Words that can stand where a network's name does (`--network host`)."""
