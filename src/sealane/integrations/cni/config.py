"""From a CNI call to the engine's requests. Pure."""

import ipaddress
from collections.abc import Iterator, Mapping

from sealane.engine.errors import ExistsError, InvalidError
from sealane.engine.labels import check_labels
from sealane.engine.problems import parsed
from sealane.integrations.ports import parse_proto
from sealane.model.ids import NAME_MAX, POD_NAME_MAX, parse_name
from sealane.model.net import ParseError, address_part, family_of
from sealane.model.network import Network
from sealane.wire.cni import CniBandwidth, CniConfig, CniPort, CniRange, CniRequest, CniResult
from sealane.wire.requests import (
    AttachRequest,
    BandwidthRequest,
    NetworkRequest,
    PublishRequest,
    SubnetRequest,
)

CONTAINER, IFNAME = "sealane.cni.container", "sealane.cni.ifname"
"""Labels of an attachment: with its network they are what CNI knows it by."""
_LABELS = {
    "K8S_POD_NAME": "sealane.cni.pod",
    "K8S_POD_NAMESPACE": "sealane.cni.namespace",
    "K8S_POD_UID": "sealane.cni.uid",
}
CGROUP = "sealane.cni.cgroup"
SHORT_ID = 12
"""Characters of a container's id that name it where it has no other name."""
BURST_UNSTATED_BITS = (1 << 31) - 1
"""From here on a burst is a runtime's way to say none (containerd sends the highest 32-bit number): 268 MB at once
would let the first seconds pass unlimited (kubernetes#90838)."""

_DEFAULT_ROUTES = frozenset({"0.0.0.0/0", "::/0"})


def network_request(config: CniConfig, leased: CniResult | None) -> NetworkRequest:
    """What makes the network that the configuration describes. Raises InvalidError."""
    subnets = list(subnets_of(config, leased))
    stated = {
        "mtu": str(config.mtu) if config.mtu else "",
        "bridge": config.bridge,
        "masquerade": _flag(config.ip_masq),
        "icc": _flag(None if config.port_isolation is None else not config.port_isolation),
        "dns": _flag(bool(config.resolver)),
        "inhibit-gateway": _flag(None if config.is_gateway is None else not config.is_gateway),
    }
    return NetworkRequest(
        name=parsed(parse_name, config.name, "name"),
        driver=config.driver or "bridge",
        subnets=subnets,
        ipv4=not subnets or any("." in subnet.prefix for subnet in subnets),
        ipv6=any(":" in subnet.prefix for subnet in subnets),
        internal=bool(config.internal),
        options={name: value for name, value in stated.items() if value},
    )


def _flag(value: bool | None) -> str:
    return "" if value is None else str(value).lower()


def subnets_of(config: CniConfig, leased: CniResult | None) -> Iterator[SubnetRequest]:
    """Those of the addresses that an IPAM plugin gave, or those that the configuration names for us."""
    if leased is not None:
        _check_leased(leased)
        for ip in leased.ips:
            yield SubnetRequest(prefix=str(_interface(ip.address).network), gateway=ip.gateway)
        return
    key = "runtimeConfig.ipRanges" if config.runtime.ip_ranges else "ipam.ranges"
    for number, alternatives in enumerate(config.runtime.ip_ranges or config.ipam.ranges):
        field = f"{key}[{number}]"
        if len(alternatives) != 1:
            raise InvalidError(
                f"{len(alternatives)} ranges in one set",
                field=field,
                hint="one range a set, one set a family",
            )
        yield _subnet(alternatives[0], f"{field}[0]")


def _check_leased(leased: CniResult) -> None:
    if not leased.ips:
        raise InvalidError("the IPAM plugin gave no address", field="ipam")
    for route in leased.routes:
        if route.dst not in _DEFAULT_ROUTES:
            raise InvalidError(
                f"the route to {route.dst} is not supported", field="ipam.routes", hint="default routes alone"
            )


def _subnet(asked: CniRange, field: str) -> SubnetRequest:
    return SubnetRequest(prefix=asked.subnet, gateway=asked.gateway, ip_range=_block(asked, field))


def _block(asked: CniRange, field: str) -> str:
    """The prefix from range_start to range_end; empty: the whole subnet."""
    if not asked.range_start and not asked.range_end:
        return ""
    shown = f"{asked.range_start or '…'} to {asked.range_end or '…'}"
    try:
        first, last = ipaddress.ip_address(asked.range_start), ipaddress.ip_address(asked.range_end)
        blocks = list(ipaddress.summarize_address_range(first, last))
    except (ValueError, TypeError) as error:
        raise InvalidError(f"{shown}: {error}", field=field, hint="give both ends of the range") from error
    if len(blocks) != 1:
        raise InvalidError(f"{shown} is no block of addresses", field=field, hint="e.g. .128 to .255")
    return str(blocks[0])


def check_agreement(network: Network, config: CniConfig, leased: CniResult | None) -> None:
    """Raises ExistsError for the first thing that the configuration says and an existing network is not."""
    value: dict[str, tuple[object, object]] = {
        "driver": (config.driver or None, network.driver),
        "mtu": (config.mtu or None, network.mtu),
        "bridge": (config.bridge or None, network.link),
        "internal": (config.internal, network.internal),
        "isGateway": (config.is_gateway, network.gateway_on_link),
        "ipMasq": (config.ip_masq, network.masquerade),
        "portIsolation": (config.port_isolation, not network.icc),
        "resolver": (config.resolver, network.dns),
    }
    for subnet in subnets_of(config, leased):
        there = network.subnet(family_of(subnet.prefix))
        value |= {
            f"IPv{family_of(subnet.prefix)} subnet": (subnet.prefix, there.prefix if there else "none"),
            "gateway": (subnet.gateway or None, there.gateway if there else "none"),
            "range": (subnet.ip_range or None, (there.ip_range or "all") if there else "none"),
        }
        _differ(network, value)
    _differ(network, value)


def _differ(network: Network, said: Mapping[str, tuple[object, object]]) -> None:
    for field, (desired, there) in said.items():
        if desired is not None and desired != there:
            raise ExistsError(
                f"network {network.name} exists with {field} {_shown(there)}, the configuration says {_shown(desired)}",
                field=field,
                hint=f"`sealane network rm {network.name}` once nobody is on it, or another name",
            )


def _shown(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value or "none")


def attach_request(request: CniRequest, gateway_priority: int) -> AttachRequest:
    """Raises InvalidError."""
    config = request.config
    runtime, own = config.runtime, config.args.cni
    if not request.netns.startswith("/"):
        raise InvalidError(f"{request.netns!r} is no absolute path", field="netns")
    ingress, egress = _bandwidth(config)
    return AttachRequest(
        sandbox=request.netns,
        network=config.name,
        sandbox_name=_name(request),
        name=_name(request),
        namespace=_namespace(request),
        # podman says on a reload what the user asked for, and beside it what the container had.
        addresses=list(dict.fromkeys(address_part(address) for address in _addresses(request))),
        mac=runtime.mac or own.mac or request.args.get("MAC", ""),
        ifname=request.ifname,
        aliases=_aliases(config),
        publish=[
            _publish(port, f"portMappings[{i}]")
            for i, port in enumerate(runtime.port_mappings)
            if port.host_port
        ],
        gateway_priority=gateway_priority,
        labels=_labels(request),
        ingress=ingress,
        egress=egress,
        fast_path=config.fast_path,
    )


def _name(request: CniRequest) -> str:
    """The pod's name, by which its siblings find it; else the beginning of the container's id, as Docker has it."""
    pod = request.args.get("K8S_POD_NAME", "")
    most = POD_NAME_MAX if _namespace(request) else NAME_MAX
    try:
        return parse_name(pod, most)
    except ParseError:
        return request.container_id[:SHORT_ID] if not pod else parse_name(pod[:most].rstrip(".-"), most)


def _namespace(request: CniRequest) -> str:
    """Kubernetes namespace of the pod; empty: it has none, or no name that could be in one."""
    namespace = request.args.get("K8S_POD_NAMESPACE", "")
    try:
        return parse_name(namespace) if request.args.get("K8S_POD_NAME") else ""
    except ParseError:
        return ""


def _addresses(request: CniRequest) -> list[str]:
    """Of an IPAM plugin, else those asked for: `runtimeConfig` before `args` before CNI_ARGS (CONVENTIONS.md)."""
    if request.leased is not None:
        return [ip.address for ip in request.leased.ips]
    config = request.config
    asked = config.runtime.ips or config.args.cni.ips
    return asked or [text for text in request.args.get("IP", "").split(",") if text]


def _aliases(config: CniConfig) -> list[str]:
    given = config.runtime.aliases
    return list(given) if isinstance(given, list) else list(given.get(config.name, ()))


def _publish(port: CniPort, field: str) -> PublishRequest:
    return PublishRequest(
        proto=parse_proto(port.protocol, f"{field}.protocol"),
        host_address=port.host_ip,
        host_first=port.host_port,
        port=port.container_port,
    )


def _bandwidth(config: CniConfig) -> tuple[BandwidthRequest | None, BandwidthRequest | None]:
    """The runtime's wishes before the configuration's."""
    given = config.runtime.bandwidth or CniBandwidth(
        ingress_rate=config.ingress_rate,
        ingress_burst=config.ingress_burst,
        egress_rate=config.egress_rate,
        egress_burst=config.egress_burst,
    )
    return (
        _limit(given.ingress_rate, given.ingress_burst, "bandwidth.ingress"),
        _limit(given.egress_rate, given.egress_burst, "bandwidth.egress"),
    )


def _limit(rate: int, burst: int, field: str) -> BandwidthRequest | None:
    if not rate:
        if burst and burst < BURST_UNSTATED_BITS:
            raise InvalidError(
                "a burst without a rate", field=f"{field}Burst", hint=f"give {field}Rate as well"
            )
        return None
    return BandwidthRequest(rate=rate, burst=burst if burst < BURST_UNSTATED_BITS else 0)


def _labels(request: CniRequest) -> dict[str, str]:
    own = {label.key: label.value for label in request.config.args.cni.labels}
    check_labels(own, "args.cni.labels")
    pod = {label: request.args[arg] for arg, label in _LABELS.items() if request.args.get(arg)}
    cgroup = {CGROUP: request.config.runtime.cgroup_path} if request.config.runtime.cgroup_path else {}
    return {**own, **pod, **cgroup, CONTAINER: request.container_id, IFNAME: request.ifname}


def _interface(text: str) -> ipaddress.IPv4Interface | ipaddress.IPv6Interface:
    if "/" not in text:
        raise InvalidError(f"{text!r} of the IPAM plugin has no prefix length", field="ipam")
    try:
        return ipaddress.ip_interface(text)
    except ValueError as error:
        raise InvalidError(str(error), field="ipam") from error
