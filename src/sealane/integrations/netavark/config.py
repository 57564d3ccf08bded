"""From podman's networks and containers to the engine's requests. Pure.

An option that cannot be kept is refused by name: a network that is not what podman's user asked for would be worse.
"""

import ipaddress
from collections.abc import Iterator, Mapping, Sequence

from sealane.engine.errors import ExistsError, InvalidError
from sealane.integrations.ports import parse_proto
from sealane.model.ids import parse_name
from sealane.model.net import ParseError, family_of
from sealane.model.network import Network
from sealane.wire.netavark import (
    NetavarkAttachment,
    NetavarkContainer,
    NetavarkNetwork,
    NetavarkPort,
    NetavarkRange,
    NetavarkSubnet,
)
from sealane.wire.requests import AttachRequest, NetworkRequest, PublishRequest, SubnetRequest

CONTAINER = "sealane.podman.container"
"""Label of an attachment: the container's id."""
NETWORK = "sealane.podman.network"
"""Label of a network that podman had made: its id there."""
SHORT_ID = 12

METRIC_DEFAULT = 100
"""Of a default route (netavark src/network/constants.rs). The lowest wins."""
METRIC_MAX = 0xFFFF_FFFF
HALVED_BITS_MIN = 3
"""Smaller subnets are not divided: half of them holds nobody."""
INTERFACES_MAX = 1000
"""Numbers of links that the order among networks of one metric can tell apart."""

IPAM_NONE = "none"
_IPAM = frozenset({"", "host-local", IPAM_NONE})
_UNSUPPORTED = {
    "vlan": "VLANs are not supported",
    "vrf": "VRFs are not supported",
    "bclim": "it is an option of macvlan",
}


def network_request(info: NetavarkNetwork) -> NetworkRequest:
    """What makes the network that podman describes. Raises InvalidError."""
    where = f"network_info.{info.name}"
    if not info.id:
        # It would be taken for one that others made, and stay.
        raise InvalidError("a network of podman's has an id", field=f"{where}.id")
    if info.driver != "bridge":
        raise InvalidError(
            f"networks of driver {info.driver!r} are not supported",
            field=f"{where}.driver",
            hint="use a network of driver `bridge`",
        )
    ipam = (info.ipam_options or {}).get("driver", "")
    if ipam not in _IPAM:
        raise InvalidError(
            f"addresses by {ipam!r} are not supported",
            field=f"{where}.ipam_options.driver",
            hint="`host-local`, or `none`: then sealane gives them",
        )
    if info.routes:
        raise InvalidError(
            "static routes are not supported: a container may send from its own addresses alone, so none but the"
            " gateway can be a router",
            field=f"{where}.routes",
        )
    subnets = [_subnet(s, f"{where}.subnets[{i}]") for i, s in enumerate(info.subnets or ())]
    return NetworkRequest(
        name=info.name,
        subnets=subnets,
        ipv4=not subnets or any("." in subnet.prefix for subnet in subnets),
        ipv6=info.ipv6_enabled or any(":" in subnet.prefix for subnet in subnets),
        internal=info.internal,
        options=_options(info, where),
        labels={**(info.labels or {}), NETWORK: info.id},
    )


def _subnet(asked: NetavarkSubnet, field: str) -> SubnetRequest:
    # An internal network without names has no gateway in podman's books; ours is then the first address, as its own is.
    return SubnetRequest(
        prefix=asked.subnet,
        gateway=asked.gateway or "",
        ip_range=_other_half(asked.subnet, asked.lease_range, field),
    )


def _other_half(subnet: str, lease: NetavarkRange | None, field: str) -> str:
    """Where others than podman get their addresses. Podman gives its own out itself, from the beginning of the subnet or of
    its range on, and knows of no others: so these come from the half that it reaches last."""
    try:
        whole = ipaddress.ip_network(subnet)
        first = ipaddress.ip_address(lease.start_ip) if lease is not None and lease.start_ip else whole[0]
    except ValueError as error:
        raise InvalidError(str(error), field=field) from error
    if whole.max_prefixlen - whole.prefixlen < HALVED_BITS_MIN:
        return ""
    lower, upper = whole.subnets()
    return str(lower if first in upper else upper)


def _options(info: NetavarkNetwork, where: str) -> dict[str, str]:
    options = {"bridge": info.network_interface or "", "dns": str(info.dns_enabled).lower()}
    options["dns-servers"] = ",".join(dns_servers(info))
    for name, value in (info.options or {}).items():
        field = f"{where}.options.{name}"
        match name:
            case "mtu" | "com.docker.network.driver.mtu":
                options["mtu"] = value
            case "com.docker.network.bridge.name":
                options["bridge"] = value
            case "outbound_addr4":
                options["source-address"] = value
            case "outbound_addr6":
                options["source-address6"] = value
            case "isolate":
                _check_isolation(value, field)
            case "mode":
                options |= _mode(value, field)
            case "metric":
                metric_of(info)
            case "no_default_route":
                has_default_route(info)
            case _:
                why = _UNSUPPORTED.get(name, "there is no such option of a bridge network")
                raise InvalidError(why, field=field)
    return {name: value for name, value in options.items() if value}


def dns_servers(info: NetavarkNetwork) -> list[str]:
    return [server for server in info.network_dns_servers or () if server]


def _check_isolation(value: str, field: str) -> None:
    """Networks are always kept from each other, as netavark 2.0 has it unless told otherwise."""
    if value not in {"true", "1", "strict"}:
        raise InvalidError(
            f"{value!r}: networks cannot be joined",
            field=field,
            hint="leave the option out, and put containers that are to meet on one network",
        )


def _mode(value: str, field: str) -> dict[str, str]:
    match value:
        case "managed":
            return {}
        case "unmanaged":
            return {"inhibit-gateway": "true", "masquerade": "false"}
    raise InvalidError(f"{value!r} is neither managed nor unmanaged", field=field)


def is_unmanaged(info: NetavarkNetwork) -> bool:
    """The bridge is the host's own, and there before the network is."""
    return (info.options or {}).get("mode") == "unmanaged"


def metric_of(info: NetavarkNetwork) -> int:
    text = (info.options or {}).get("metric", str(METRIC_DEFAULT))
    is_number = text.isascii() and text.isdigit() and len(text) <= len(str(METRIC_MAX))
    if not (is_number and int(text) <= METRIC_MAX):
        raise InvalidError(
            f"{text!r} is no number up to {METRIC_MAX}", field=f"network_info.{info.name}.options.metric"
        )
    return int(text)


def has_default_route(info: NetavarkNetwork) -> bool:
    text = (info.options or {}).get("no_default_route", "false")
    if text not in {"true", "1", "false", "0"}:
        raise InvalidError(
            f"{text!r} is neither true nor false", field=f"network_info.{info.name}.options.no_default_route"
        )
    return text in {"false", "0"}


def check_agreement(network: Network, info: NetavarkNetwork) -> None:
    """Raises ExistsError for the first thing that podman says of a network and one that others made is not."""
    value: list[tuple[str, object, object]] = [("internal", info.internal, network.internal)]
    for asked in info.subnets or ():
        there = network.subnet(family_of(asked.subnet))
        value += [
            (f"IPv{family_of(asked.subnet)} subnet", asked.subnet, there.prefix if there else "none"),
            ("gateway", asked.gateway or (there and there.gateway), there.gateway if there else "none"),
        ]
    for field, desired, have in value:
        if desired != have:
            raise ExistsError(
                f"network {network.name} exists with {field} {have}, podman says {desired}".lower(),
                field=f"network_info.{info.name}",
                hint=f"`podman network create` it with the subnet and gateway of `sealane network inspect"
                f" {network.name}`, or with `--ipam-driver none`: then sealane gives addresses",
            )


def ordered(container: NetavarkContainer) -> list[tuple[NetavarkNetwork, NetavarkAttachment]]:
    """The container's networks, its first one first. Raises InvalidError for one that is not described."""
    if isinstance(container.networks, list):
        pairs = [(attachment.name, attachment) for attachment in container.networks]
    else:
        # Podman 4 writes a map, by name: the order that its user gave is that of the links.
        pairs = sorted(container.networks.items(), key=lambda pair: _link_number(pair[1].interface_name))
    for name, _ in pairs:
        if name not in container.network_info:
            raise InvalidError(f"network {name} is not described", field=f"network_info.{name}")
    return [(container.network_info[name], attachment) for name, attachment in pairs]


def _link_number(name: str) -> tuple[int, str]:
    digits = name[len(name.rstrip("0123456789")) :]
    return (int(digits) if 0 < len(digits) < len(str(INTERFACES_MAX)) else INTERFACES_MAX, name)


def attach_request(
    container: NetavarkContainer, info: NetavarkNetwork, asked: NetavarkAttachment, netns: str
) -> AttachRequest:
    """Without the ports, which one of a container's networks has. Raises InvalidError."""
    for name in asked.options or {}:
        raise InvalidError("there is no such option here", field=f"networks.{info.name}.options.{name}")
    return AttachRequest(
        sandbox=netns,
        network=info.name,
        sandbox_name=_name(container),
        name=_name(container),
        addresses=list(asked.static_ips or ()),
        mac=asked.static_mac or "",
        ifname=asked.interface_name,
        aliases=_names(asked.aliases or ()),
        gateway_priority=_priority(info, asked),
        labels={CONTAINER: container.container_id},
        without_gateway=not has_default_route(info),
        dns_servers=list(container.dns_servers or ()),
    )


def _priority(info: NetavarkNetwork, asked: NetavarkAttachment) -> int:
    """The lowest metric is the way out; among equals, the first link."""
    number = min(_link_number(asked.interface_name)[0], INTERFACES_MAX)
    return (METRIC_DEFAULT - metric_of(info)) * INTERFACES_MAX - number


def _name(container: NetavarkContainer) -> str:
    try:
        return parse_name(container.container_name)
    except ParseError:
        return container.container_id[:SHORT_ID]


def _names(aliases: Sequence[str]) -> list[str]:
    """Those that can be names: what cannot be asked for is left out, as aardvark-dns has it."""
    return [alias for alias in dict.fromkeys(aliases) if _is_name(alias)]


def _is_name(text: str) -> bool:
    try:
        parse_name(text)
    except ParseError:
        return False
    return True


def publish_requests(ports: Sequence[NetavarkPort]) -> list[PublishRequest]:
    return [request for i, port in enumerate(ports) for request in _publish(port, f"port_mappings[{i}]")]


def _publish(port: NetavarkPort, field: str) -> Iterator[PublishRequest]:
    for proto in (port.protocol or "tcp").split(","):
        yield PublishRequest(
            proto=parse_proto(proto, f"{field}.protocol"),
            host_address=port.host_ip,
            host_first=port.host_port,
            port=port.container_port,
            count=max(port.range, 1),
        )


def labelled(labels: Mapping[str, str]) -> str:
    """Podman's id of a network; empty: others made it."""
    return labels.get(NETWORK, "")
