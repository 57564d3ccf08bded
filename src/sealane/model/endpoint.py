"""Sandboxes, the endpoints that join them to networks, and the ports those publish."""

from typing import Literal

import msgspec

from sealane.model.ids import EndpointId, NetworkId, SandboxId
from sealane.model.net import Address, Family, Interface, Mac, Proto, address_part, family_of, is_wildcard


class NetnsRef(msgspec.Struct, frozen=True, kw_only=True):
    """Where a sandbox's namespace is found, and how to know that it is still the same one."""

    path: str
    """An nsfs file: `/proc/PID/ns/net`, a bind mount, or one that sealane pinned itself."""
    inode: int
    """Of the nsfs file. The kernel gives the number of a dead namespace to the next one that is made."""
    cookie: int = 0
    """SO_NETNS_COOKIE (Linux 5.14): never given twice in one boot. 0: not known, the inode has to do."""
    owner: Literal["sealane", "foreign"] = "foreign"
    """`sealane`: made and pinned by us, and deleted with the sandbox."""
    userns: str = ""
    """Where the user namespace is pinned that owns it, if it has one of its own; empty: the daemon's owns it."""

    @property
    def identity(self) -> tuple[int, int]:
        return self.inode, self.cookie


class Sandbox(msgspec.Struct, frozen=True, kw_only=True):
    """One network namespace that endpoints live in. `netns` is None on the host's own network."""

    id: SandboxId
    name: str
    netns: NetnsRef | None
    implicit: bool = False
    """Made by attaching to a namespace: goes with its last endpoint."""
    awaited: str = ""
    """Path at which its namespace appears once its endpoints have joined (Docker's SandboxKey): somebody else makes
    it. `netns` is None until it was found there. Empty: nothing is awaited."""
    sysctls: tuple[tuple[str, str], ...] = ()
    """(`net/ipv4/ip_unprivileged_port_start`, value)."""
    labels: dict[str, str] = {}


class PublishedPort(msgspec.Struct, frozen=True, kw_only=True):
    """Host ports that lead to an endpoint: `host_first`…`host_last` to as many ports from `port` on."""

    proto: Proto = "tcp"
    host_address: Address | None = None
    """None: every address of the host, in each family in which the endpoint has an address; `0.0.0.0` or `::`: every one
    of one family."""
    host_first: int
    host_last: int
    port: int
    is_ephemeral: bool = False
    """Nobody asked for the host's number: any other will do."""
    came_along: bool = False
    """It is a container's own, and came here from another of its networks: nobody asked for it on this one."""
    is_reserved: bool = False
    """The container's engine listens on it as well (podman's monitor does), only so that no other program takes it."""

    def __str__(self) -> str:
        host = self.host_address or "*"
        shown = f"[{host}]" if ":" in host else host
        ports = (
            f"{self.host_first}"
            if self.host_first == self.host_last
            else f"{self.host_first}-{self.host_last}"
        )
        last = self.port + self.host_last - self.host_first
        inner = f"{self.port}" if last == self.port else f"{self.port}-{last}"
        return f"{shown}:{ports}->{inner}/{self.proto}"

    @property
    def only_at(self) -> Address | None:
        """The one address of the host that it is at; None: every address of the families that it concerns."""
        return None if self.host_address is None or is_wildcard(self.host_address) else self.host_address

    def concerns(self, family: Family) -> bool:
        """Whether host addresses of a family lead to it."""
        return self.host_address is None or family_of(self.host_address) == family

    def conflicts(self, other: "PublishedPort") -> bool:
        """Whether both claim one (protocol, address, port) of the host."""
        return (
            self.proto == other.proto
            and _meet(self.host_address, other.host_address)
            and self.host_first <= other.host_last
            and other.host_first <= self.host_last
        )

    def covers(self, other: "PublishedPort") -> bool:
        """Whether whatever the other leads somewhere, this leads there as well: an address and port of the host to a port."""
        return (
            self.proto == other.proto
            and self.host_first <= other.host_first
            and other.host_last <= self.host_last
            and self.port - self.host_first == other.port - other.host_first
            and _holds(self.host_address, other.host_address)
        )


def _holds(one: Address | None, other: Address | None) -> bool:
    """Whether the first names every address of the host that the second does."""
    if one is None or one == other:
        return True
    return other is not None and is_wildcard(one) and family_of(one) == family_of(other)


def _meet(one: Address | None, other: Address | None) -> bool:
    """Whether two publishes share an address of the host."""
    if one is None or other is None:
        return True
    return family_of(one) == family_of(other) and (one == other or is_wildcard(one) or is_wildcard(other))


class Bandwidth(msgspec.Struct, frozen=True, kw_only=True):
    """What passes in one direction."""

    rate: int
    """Bits per second."""
    burst: int
    """Bits that may pass at once, after a pause."""


PUBLISHED_ELSEWHERE = "published-elsewhere"
"""Label of an endpoint: what another engine publishes for its sandbox, for people to read."""


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """The attachment of one sandbox to one network. Without a sandbox it holds its addresses and nothing else."""

    id: EndpointId
    name: str
    network: NetworkId
    sandbox: SandboxId | None
    ifname: str
    """Name of the link inside the sandbox."""
    mac: Mac
    addresses: tuple[Interface, ...]
    """At most one a family, with the subnet's length."""
    aliases: tuple[str, ...] = ()
    ports: tuple[PublishedPort, ...] = ()
    gateway_priority: int = 0
    """The endpoint with the highest, on a network with a way out, gives the sandbox its default route
    (`network.preference`)."""
    sysctls: tuple[tuple[str, str], ...] = ()
    """(`net/ipv4/conf/IFNAME/x`, value), IFNAME standing for the link."""
    handover: bool = False
    """The sandbox's end is left on the host for somebody else (dockerd) to move in, name and configure: inside the
    sandbox nothing is ours. `ifname` is then what we expect it to be called."""
    labels: dict[str, str] = {}
    ingress: Bandwidth | None = None
    """Towards the sandbox; None: not limited."""
    egress: Bandwidth | None = None
    without_gateway: bool = False
    """The sandbox's default route never leads through it. With `handover`: who takes it over was given no gateway, so
    the sandbox leaves by a way that is not ours, if it leaves at all."""
    dns_servers: tuple[Address, ...] = ()
    """The sandbox's own: names that are none of ours are asked here instead of at the network's."""
    fast_path: bool = True
    """As the network's, for this endpoint alone."""
    is_lease: bool = False
    """Nothing but addresses, held between the moment somebody was given them and the endpoint that is made of them."""
    dormant: bool = False
    """Nothing runs in its sandbox: it keeps link and addresses, and has neither names nor published ports meanwhile."""

    @property
    def published(self) -> tuple[PublishedPort, ...]:
        """The ports that lead to it now."""
        return () if self.dormant else self.ports

    def address(self, family: Family) -> Address | None:
        for interface in self.addresses:
            if family_of(interface) == family:
                return address_part(interface)
        return None
