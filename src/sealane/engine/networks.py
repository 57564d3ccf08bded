"""From a request for a network to its record: defaults filled in, every field checked, nothing changed."""

from collections.abc import Callable, Mapping

import msgspec

from sealane.compile.facts import Facts
from sealane.engine.errors import ConflictError, InvalidError
from sealane.engine.options import parse_options
from sealane.engine.problems import at_field, parsed
from sealane.ipam import allocate, pools
from sealane.limits import SUBNETS_PER_NETWORK
from sealane.model.ids import NetworkId, parse_name
from sealane.model.intent import Intent
from sealane.model.net import (
    FAMILIES,
    IPV6_MTU_MIN,
    Address,
    Family,
    Prefix,
    contains,
    family_of,
    parse_address,
    parse_prefix,
    prefix_length,
)
from sealane.model.network import GatewayLink, Network, Subnet
from sealane.model.traits import DRIVERS, MODES, TRAITS, Traits
from sealane.wire.requests import NetworkRequest, SubnetRequest


def network_record(
    request: NetworkRequest,
    identity: NetworkId,
    intent: Intent,
    facts: Facts,
    kind_of: Callable[[str], str | None],
) -> Network:
    """The record of a new network. `kind_of` tells of foreign links. Raises InvalidError, ConflictError, ExhaustedError."""
    name = parsed(parse_name, request.name, "name")
    if name in MODES:
        raise InvalidError(
            f"{name!r} is a reserved network name",
            field="name",
            hint="choose another name",
        )
    if request.driver not in DRIVERS:
        raise InvalidError(
            f"there is no driver {request.driver!r}", field="driver", hint=f"one of {', '.join(DRIVERS)}"
        )
    options = parse_options(request.options)
    if request.driver in MODES:
        _refuse_settings(request, options)
        return Network(id=identity, name=name, driver=request.driver, labels=dict(request.labels))
    adopted = _is_adopted(options, TRAITS[request.driver], kind_of)
    if adopted:
        # The bridge's own prefix may be in use already: by the bridge.
        own = {f"{what} {options['link']}" for what in ("route via", "address of")}
        routes = tuple(r for r in facts.foreign_routes if r.owner not in own)
        facts = msgspec.structs.replace(facts, foreign_routes=routes)
    subnets = _subnets(request, identity, intent, facts)
    network = Network(
        id=identity,
        name=name,
        driver=request.driver,
        subnets=subnets,
        internal=request.internal,
        host_link=_host_link(options, adopted=adopted),
        labels=dict(request.labels),
        **options,  # type: ignore[arg-type]
    )
    _check(network, intent)
    return network


def _host_link(options: dict[str, object], *, adopted: bool) -> GatewayLink | None:
    """Takes what it is made of out of the options. None: as by default, so that equal requests make equal records."""
    value = {field: options.pop(option) for option, field in _OF_HOST_LINK.items() if option in options}
    link = msgspec.structs.replace(GatewayLink(adopted=adopted), **value)
    return link if link != GatewayLink() else None


_OF_HOST_LINK = {"link": "name", "gateway_on_link": "has_gateway"}
"""Option → field of GatewayLink."""


def _is_adopted(options: Mapping[str, object], traits: Traits, kind_of: Callable[[str], str | None]) -> bool:
    """Whether the bridge asked for is there already: then it is used as it is, as Docker has it."""
    name = options.get("link")
    kind = kind_of(str(name)) if name else None
    if kind is None:
        return False
    if kind != "bridge" or not traits.has_bridge:
        what = f"a {kind} link" if kind else "a link that is no bridge"
        raise ConflictError(
            f"{name} is {what} of this host", field="options.bridge", hint="choose another name"
        )
    return True


def _refuse_settings(request: NetworkRequest, options: Mapping[str, object]) -> None:
    for field, value in (("subnets", request.subnets), ("internal", request.internal), ("options", options)):
        if value:
            raise InvalidError(f"a network of driver {request.driver!r} has no {field}", field=field)


def _check(network: Network, intent: Intent) -> None:
    if network.mtu and network.mtu < IPV6_MTU_MIN and network.subnet(6):
        raise InvalidError(f"IPv6 needs an MTU of at least {IPV6_MTU_MIN} bytes", field="options.mtu")
    if not network.traits.has_bridge and not network.gateway_on_link:
        raise InvalidError(
            f"a {network.driver} network needs its gateway address", field="options.inhibit-gateway"
        )
    for other in intent.networks.values():
        if network.link and network.link == other.link:
            raise ConflictError(
                f"bridge {network.link} belongs to network {other.name}", field="options.bridge"
            )


def _subnets(
    request: NetworkRequest, identity: NetworkId, intent: Intent, facts: Facts
) -> tuple[Subnet, ...]:
    if len(request.subnets) > SUBNETS_PER_NETWORK:
        raise InvalidError("a network has at most one subnet a family", field="subnets")
    taken = {network.name: tuple(s.prefix for s in network.subnets) for network in intent.networks.values()}
    result: dict[Family, Subnet] = {}
    for index, asked in enumerate(request.subnets):
        where = f"subnets[{index}]"
        if not asked.prefix:
            if asked.gateway or asked.ip_range:
                raise InvalidError("a gateway or range needs a prefix to lie in", field=f"{where}.prefix")
            continue
        subnet = _subnet(asked, where)
        family = family_of(subnet.prefix)
        if family in result:
            raise InvalidError(f"a second IPv{family} subnet", field=where, hint="one subnet a family")
        with at_field(f"{where}.prefix"):
            pools.check_prefix(subnet.prefix, taken, facts)
        result[family] = subnet
    desired: set[Family] = {family for family, asked in ((4, request.ipv4), (6, request.ipv6)) if asked}  # type: ignore[misc]
    if 6 in result and not request.ipv6:
        desired.add(6)
    # Beside an explicit IPv6 subnet an IPv4 one comes from the pools, as Docker has it, unless `ipv4` is off.
    if not desired:
        raise InvalidError(
            "a network without IPv4 and IPv6 has no addresses", field="ipv4", hint="enable one"
        )
    for family in FAMILIES:
        if family in desired and family not in result:
            with at_field("subnets"):
                prefix = pools.free_prefix(family, identity, taken, facts)
                result[family] = Subnet(prefix=prefix, gateway=allocate.default_gateway(prefix))
        elif family not in desired and family in result:
            raise InvalidError(f"an IPv{family} subnet on a network without IPv{family}", field="subnets")
    return tuple(result[family] for family in FAMILIES if family in result)


def _subnet(asked: SubnetRequest, where: str) -> Subnet:
    prefix = parsed(parse_prefix, asked.prefix, f"{where}.prefix")
    with at_field(f"{where}.prefix"):
        default = allocate.default_gateway(prefix)
    gateway = parsed(parse_address, asked.gateway, f"{where}.gateway") if asked.gateway else default
    ip_range: Prefix | None = None
    if asked.ip_range:
        ip_range = parsed(parse_prefix, asked.ip_range, f"{where}.ip_range")
        if not contains(prefix, ip_range.partition("/")[0]) or prefix_length(ip_range) < prefix_length(
            prefix
        ):
            raise InvalidError(f"{ip_range} does not lie in {prefix}", field=f"{where}.ip_range")
    reserved: list[Address] = []
    for name, text in asked.reserved.items():
        address = parsed(parse_address, text, f"{where}.reserved.{name}")
        if not contains(prefix, address):
            raise InvalidError(f"{address} does not lie in {prefix}", field=f"{where}.reserved.{name}")
        reserved.append(address)
    if not contains(prefix, gateway):
        raise InvalidError(f"{gateway} does not lie in {prefix}", field=f"{where}.gateway")
    subnet = Subnet(prefix=prefix, gateway=gateway, ip_range=ip_range, reserved=tuple(reserved))
    with at_field(where):
        allocate.check_subnet(subnet)
    return subnet
