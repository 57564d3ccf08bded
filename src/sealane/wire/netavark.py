"""What the netavark front end asks, and what it is answered: one request for each call of podman.

The records are netavark's own (src/network/types.rs, versions 1.4 to 2.1), in its spelling. Go and Rust both write null
for what is not set, so an optional field may be that. What podman adds in versions to come is none of ours until known.
"""

from typing import Any, Literal

import msgspec

from sealane.wire.base import Request, View


class NetavarkRange(View, frozen=True, kw_only=True):
    start_ip: str | None = None
    end_ip: str | None = None


class NetavarkSubnet(View, frozen=True, kw_only=True):
    subnet: str
    gateway: str | None = None
    lease_range: NetavarkRange | None = None


class NetavarkNetwork(View, frozen=True, kw_only=True):
    """As `podman network inspect` shows it."""

    name: str
    id: str
    driver: str
    network_interface: str | None = None
    """Of the bridge."""
    subnets: list[NetavarkSubnet] | None = None
    ipv6_enabled: bool = False
    internal: bool = False
    dns_enabled: bool = False
    options: dict[str, str] | None = None
    ipam_options: dict[str, str] | None = None
    routes: list[Any] | None = None
    network_dns_servers: list[str] | None = None
    labels: dict[str, str] | None = None


class NetavarkPort(View, frozen=True, kw_only=True):
    container_port: int
    host_port: int
    host_ip: str = ""
    protocol: str = "tcp"
    """Several may be given, by commas."""
    range: int = 1


class NetavarkAttachment(View, frozen=True, kw_only=True):
    """A container's place on one network."""

    interface_name: str
    name: str = ""
    """Of the network, where attachments are a list (2.0)."""
    static_ips: list[str] | None = None
    static_mac: str | None = None
    aliases: list[str] | None = None
    options: dict[str, str] | None = None


class NetavarkContainer(View, frozen=True, kw_only=True):
    container_id: str
    container_name: str
    networks: dict[str, NetavarkAttachment] | list[NetavarkAttachment]
    network_info: dict[str, NetavarkNetwork]
    port_mappings: list[NetavarkPort] | None = None
    dns_servers: list[str] | None = None


class NetavarkPool(View, frozen=True, kw_only=True):
    base: str
    size: int
    """Prefix length of the subnets that are cut from it."""


class NetavarkUsed(View, frozen=True, kw_only=True):
    """What podman knows to be in use."""

    interfaces: list[str] | None = None
    names: dict[str, str] | None = None
    subnets: list[str] | None = None


class NetavarkCreateOptions(View, frozen=True, kw_only=True):
    subnet_pools: list[NetavarkPool] | None = None
    default_interface_name: str | None = None
    check_used_subnets: bool = True


class NetavarkCreate(View, frozen=True, kw_only=True):
    """What podman 6 asks before it writes down a network (docs/netavark-create-input.md)."""

    network: dict[str, Any]
    """A NetavarkNetwork, and whatever else podman wants to find again in the answer."""
    used: NetavarkUsed = NetavarkUsed()
    options: NetavarkCreateOptions = NetavarkCreateOptions()


class NetavarkRequest(Request, frozen=True, kw_only=True):
    verb: Literal["setup", "teardown", "update", "firewall-reload", "create"]
    netns: str = ""
    container: NetavarkContainer | None = None
    """Of setup and teardown."""
    network: str = ""
    """Of update, with `dns_servers`."""
    dns_servers: list[str] = []
    create: NetavarkCreate | None = None


class NetavarkAddress(View, frozen=True, kw_only=True, omit_defaults=True):
    ipnet: str
    gateway: str = ""


class NetavarkInterface(View, frozen=True, kw_only=True):
    mac_address: str
    subnets: list[NetavarkAddress]


class NetavarkStatus(View, frozen=True, kw_only=True):
    """What setup made on one network."""

    dns_search_domains: list[str]
    dns_server_ips: list[str]
    interfaces: dict[str, NetavarkInterface]


class NetavarkView(View, frozen=True, kw_only=True):
    status: dict[str, NetavarkStatus] | None = None
    """By network. None for all but setup."""
    network: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET
    """Of create: the network, with what was left open."""
