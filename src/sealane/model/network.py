"""Networks: groups of endpoints that can reach each other."""

import msgspec

from sealane.model.ids import NetworkId
from sealane.model.net import Address, Family, Prefix, Proto, family_of
from sealane.model.traits import TRAITS, Driver, Traits

RESOLVER_PORT = 53
RESOLVER_PROTOS: tuple[Proto, ...] = ("tcp", "udp")
"""Where names are asked for (RFC 1035 §4.2), at `Network.resolvers`."""


def preference(network: "Network", priority: int) -> tuple[bool, int, str]:
    """Sort key for the networks of one sandbox; the first carries its default route, published ports and name queries:
    one with a way out, then of the highest priority, then by name (Docker's order, moby sandbox.go `Endpoint.Less`)."""
    return not network.has_way_out, -priority, network.name


class Subnet(msgspec.Struct, frozen=True, kw_only=True):
    """A prefix of a network, its gateway, and what the allocator may hand out of it."""

    prefix: Prefix
    gateway: Address
    ip_range: Prefix | None = None
    """Automatic addresses come from here; None: the whole prefix."""
    reserved: tuple[Address, ...] = ()
    """Never handed out unless asked for by address (Docker: `--aux-address`)."""


class GatewayLink(msgspec.Struct, frozen=True, kw_only=True, tag="gateway"):
    """The network's own link on the host, a bridge, which has the gateway's addresses: drivers `bridge` and `routed`."""

    name: str = ""
    """Empty: derived from the network's id."""
    adopted: bool = False
    """The bridge existed before: it is used, never changed, never deleted."""
    has_gateway: bool = True
    """False: the gateway address is another host's and not put on the bridge (Docker: inhibit_ipv4)."""


_DEFAULT = GatewayLink()


class Network(msgspec.Struct, frozen=True, kw_only=True):
    """One network as asked for, with every default filled in at creation (the pools, the MTU excepted)."""

    id: NetworkId
    name: str
    driver: Driver = "bridge"
    subnets: tuple[Subnet, ...] = ()
    mtu: int = 0
    """Bytes; 0: that of the uplink, followed when it changes."""
    internal: bool = False
    """No way out and no way in: no default route, no publishing, no DNS forwarding."""
    icc: bool = True
    """Inter-container communication: False keeps the network's endpoints from each other, publishing excepted."""
    masquerade: bool = True
    """Endpoints leave under the host's address. False: their own addresses are routed, and routable from outside."""
    source_addresses: tuple[Address, ...] = ()
    """Leave under these host addresses (one a family) instead of the outgoing link's."""
    host_link: GatewayLink | None = None
    """How the network meets the host, which only its driver knows; None: the driver's default."""
    link_prefix: str = "eth"
    """Links inside sandboxes are named by this and the lowest free number."""
    publish_addresses: tuple[Address, ...] = ()
    """Host addresses of publishes that name none; empty: every address."""
    dns: bool = True
    """Names are answered at the gateway's address."""
    dns_servers: tuple[Address, ...] = ()
    """Names that are none of ours are asked here; empty: the host's resolvers."""
    fast_path: bool = True
    """Packets within it may go from link to link, past the bridge or the routing code (`compile.fast_path`)."""
    labels: dict[str, str] = {}
    owner: str = ""
    """The engine that made it through an integration and keeps it in its own books (`docker`): it alone removes it."""

    @property
    def _gateway_link(self) -> GatewayLink:
        return self.host_link if isinstance(self.host_link, GatewayLink) else _DEFAULT

    @property
    def link(self) -> str:
        """Name of the bridge; empty: derived from the id."""
        return self._gateway_link.name

    @property
    def link_adopted(self) -> bool:
        return self._gateway_link.adopted

    @property
    def gateway_on_link(self) -> bool:
        return self._gateway_link.has_gateway

    @property
    def traits(self) -> Traits:
        return TRAITS[self.driver]

    @property
    def has_way_out(self) -> bool:
        """Whether its endpoints can have a default route through it."""
        return self.traits.has_links and not self.internal

    @property
    def can_publish(self) -> bool:
        """Whether host ports can lead to its endpoints."""
        return self.traits.follows_host_rules and not self.internal

    @property
    def resolvers(self) -> tuple[Address, ...]:
        """Where the names of its members are answered."""
        return tuple(s.gateway for s in self.subnets) if self.dns and self.gateway_on_link else ()

    def subnet(self, family: Family) -> Subnet | None:
        for subnet in self.subnets:
            if family_of(subnet.prefix) == family:
                return subnet
        return None
