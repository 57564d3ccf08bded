"""Checks across the parts of a project: names that refer, addresses and ports that two would share.

Each check runs over what could be read, so that a mistake in one service hides none in another.
"""

import ipaddress
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice

import msgspec

from sealane.compose.cursor import Cursor
from sealane.compose.networks import is_within, unusable
from sealane.compose.order import CycleError, waves
from sealane.compose.overlaps import Claim, distinct, find_clashes
from sealane.compose.ports import PortSpec, render_port_spec
from sealane.compose.problems import shown
from sealane.compose.schema import Attachment, ComposeNetwork, Service
from sealane.compose.services import ServiceDraft
from sealane.compose.values import Network
from sealane.model.traits import MODES

_LISTED = 8
"""Names that a hint lists."""


class Sections(msgspec.Struct, frozen=True, kw_only=True):
    root: Cursor
    networks: Mapping[str, ComposeNetwork]
    """By key, with `default` if it is used."""
    builder: tuple[ServiceDraft, ...]


class _Space(msgspec.Struct, frozen=True):
    """The addresses of one network."""

    network: ComposeNetwork
    prefixes: tuple[Network, ...]
    taken: Mapping[str, str]
    """Gateways and aux addresses, and what each is."""


def check_project(sections: Sections) -> None:
    _check_subnets(sections)
    spaces = {name: _space(network) for name, network in sections.networks.items()}
    for draft in sections.builder:
        _check_attachments(draft, spaces)
        _check_replicas(draft)
    _check_references(sections)
    _check_order(sections)
    _check_shared_addresses(sections)
    _check_container_names(sections)
    _check_ports(sections.builder)


def _check_subnets(sections: Sections) -> None:
    prefixes = [
        (ipaddress.ip_network(subnet.subnet), network.name)
        for network in sections.networks.values()
        for subnet in network.subnets
    ]
    # Prefixes nest or are apart, so that in this order each stands right behind what it could overlap.
    prefixes.sort(key=lambda pair: (pair[0].version, int(pair[0].network_address), pair[0].prefixlen))
    widest = prefixes[0] if prefixes else None
    for prefix, name in prefixes[1:]:
        if widest is not None and is_within(str(prefix), widest[0]):
            cursor = sections.root.at("networks", name, "ipam", "config")
            cursor.fail(
                f"{prefix} overlaps {widest[0]} of network {widest[1]}", "choose subnets that are apart"
            )
        else:
            widest = (prefix, name)


def _space(network: ComposeNetwork) -> _Space:
    taken: dict[str, str] = {}
    for subnet in network.subnets:
        taken |= {address: f"aux address {shown(key)}" for key, address in subnet.aux_addresses}
        if subnet.gateway is not None:
            taken[subnet.gateway] = "the gateway"
    prefixes = tuple(ipaddress.ip_network(subnet.subnet) for subnet in network.subnets)
    return _Space(network, prefixes, taken)


def _check_attachments(draft: ServiceDraft, spaces: Mapping[str, _Space]) -> None:
    alone = len(draft.service.attachments) == 1
    interfaces: dict[str, str] = {}
    for attachment in draft.service.attachments:
        cursor = draft.cursor.at("networks", attachment.network)
        space = spaces.get(attachment.network)
        if space is None:
            hint = f"define it under networks ({_listed(spaces)})"
            cursor.fail(f"network {shown(attachment.network)} is not defined", hint)
            continue
        if space.network.driver in MODES and not alone:
            cursor.fail(f"a {space.network.driver} network beside others", "attach to it alone")
        _check_static(attachment.ipv4_address, space, cursor.at("ipv4_address"))
        _check_static(attachment.ipv6_address, space, cursor.at("ipv6_address"))
        interface = attachment.interface_name
        if interface is not None:
            other = interfaces.setdefault(interface, attachment.network)
            if other != attachment.network:
                message = f"interface_name {shown(interface)} is that on {other} too"
                cursor.at("interface_name").fail(message, "choose another name")


def _check_static(address: str | None, space: _Space, cursor: Cursor) -> None:
    if address is None:
        return
    network = space.network
    version = ipaddress.ip_address(address).version
    if (network.enable_ipv4 if version == 4 else network.enable_ipv6) is False:
        cursor.fail(
            f"network {network.name} has no IPv{version}", f"remove it or set enable_ipv{version}: true"
        )
    if network.driver in MODES:
        cursor.fail(f"a {network.driver} network gives no addresses", "remove it")
    prefixes = [prefix for prefix in space.prefixes if prefix.version == version]
    inside = [prefix for prefix in prefixes if is_within(address, prefix)]
    if prefixes and not inside:
        listed = ", ".join(str(prefix) for prefix in prefixes)
        cursor.fail(f"{address} is in no subnet of network {network.name}", f"choose an address of {listed}")
    if address in space.taken:
        cursor.fail(
            f"{address} is {space.taken[address]} of network {network.name}", "choose another address"
        )
    for prefix in inside:
        if reason := unusable(address, prefix):
            cursor.fail(reason, f"choose another address of {prefix}")


def _check_replicas(draft: ServiceDraft) -> None:
    service = draft.service
    if service.replicas <= 1:
        return
    copies = f"{service.replicas} replicas"
    if service.container_name is not None:
        cursor = draft.cursor.at("container_name")
        cursor.fail(f"{copies} cannot share one container_name", "remove it or set scale: 1")
    for attachment in service.attachments:
        for field in ("ipv4_address", "ipv6_address", "mac_address"):
            if getattr(attachment, field) is not None:
                cursor = draft.cursor.at("networks", attachment.network, field)
                cursor.fail(f"{copies} cannot share one {field}", "remove it or set scale: 1")
    for cursor, spec in draft.published:
        if spec.host_first is None or spec.host_last is None:
            continue
        if not spec.picks_one:
            cursor.fail(
                f"{copies} cannot all publish {_claimed(spec)}", "give a range of host ports, or no host port"
            )
        elif spec.host_last - spec.host_first + 1 < service.replicas:
            cursor.fail(f"{copies} share {_claimed(spec)}", f"give {service.replicas} host ports")


def _check_references(sections: Sections) -> None:
    services = {draft.service.name: draft.service for draft in sections.builder}
    for draft in sections.builder:
        for dependency in draft.service.depends_on:
            cursor = draft.cursor.at("depends_on", dependency.service)
            target = services.get(dependency.service)
            if target is None:
                _report_missing(cursor, dependency.service, services, required=dependency.required)
            elif dependency.condition == "service_healthy" and target.healthcheck is None:
                cursor.fail(
                    f"service {target.name} has no healthcheck", "give it one, or wait for service_started"
                )
        if draft.service.network_mode == "service":
            _check_sandbox_owner(draft, services)


def _report_missing(cursor: Cursor, name: str, services: Mapping[str, Service], *, required: bool) -> None:
    if required:
        cursor.fail(f"service {shown(name)} is not defined", f"define it ({_listed(services)})")
    else:
        cursor.warn(f"service {shown(name)} is not defined; nothing waits for it")


def _check_sandbox_owner(draft: ServiceDraft, services: Mapping[str, Service]) -> None:
    name = draft.service.network_mode_target or ""
    cursor = draft.cursor.at("network_mode")
    owner = services.get(name)
    if owner is None:
        _report_missing(cursor, name, services, required=True)
    elif owner.replicas != 1:
        cursor.fail(f"service {name} has {owner.replicas} sandboxes, not one", f"set scale: 1 on {name}")


def needs(service: Service) -> tuple[str, ...]:
    """The services that start before it: its dependencies, and the one whose sandbox it shares."""
    names = [dependency.service for dependency in service.depends_on]
    if service.network_mode == "service" and service.network_mode_target is not None:
        names.append(service.network_mode_target)
    return tuple(dict.fromkeys(names))


def _check_order(sections: Sections) -> None:
    builder = {draft.service.name: draft for draft in sections.builder}
    try:
        waves({name: needs(draft.service) for name, draft in builder.items()})
    except CycleError as error:
        first, second = error.cycle[0], (*error.cycle, error.cycle[0])[1]
        cursor = builder[first].cursor.at("depends_on", second)
        if cursor.path == builder[first].cursor.path:
            cursor = builder[first].cursor.at("network_mode")
        cursor.fail(f"services wait for each other: {error}", "remove one of these dependencies")


def _check_shared_addresses(sections: Sections) -> None:
    fields: tuple[tuple[str, Callable[[Attachment], str | None]], ...] = (
        ("ipv4_address", lambda attachment: attachment.ipv4_address),
        ("ipv6_address", lambda attachment: attachment.ipv6_address),
        ("mac_address", lambda attachment: attachment.mac_address),
    )
    owners: dict[tuple[str, str], str] = {}
    for draft in sections.builder:
        for attachment in draft.service.attachments:
            for field, read in fields:
                value = read(attachment)
                if value is None:
                    continue
                owner = owners.setdefault((attachment.network, value), draft.service.name)
                if owner != draft.service.name:
                    cursor = draft.cursor.at("networks", attachment.network, field)
                    message = (
                        f"services {owner} and {draft.service.name} both have {value} on {attachment.network}"
                    )
                    cursor.fail(message, "give one of them another")


def _check_container_names(sections: Sections) -> None:
    owners: dict[str, str] = {}
    for draft in sections.builder:
        name = draft.service.container_name
        if name is None:
            continue
        owner = owners.setdefault(name, draft.service.name)
        if owner != draft.service.name:
            message = f"services {owner} and {draft.service.name} have one container_name {shown(name)}"
            draft.cursor.at("container_name").fail(message, "choose another name")


def _check_ports(builder: Sequence[ServiceDraft]) -> None:
    published = [
        (draft.service.name, cursor, spec)
        for draft in builder
        for cursor, spec in distinct(draft.published, lambda item: item[1])
    ]
    claims = [Claim(owner, spec) for owner, (_, _, spec) in enumerate(published)]
    for later, earlier in find_clashes(claims):
        name, cursor, _ = published[later.owner]
        other, _, _ = published[earlier.owner]
        message = (
            f"service {name} publishes {_claimed(later.spec)}, and service {other} {_claimed(earlier.spec)}"
        )
        cursor.fail(message, "choose host ports or addresses that are apart")


def _claimed(spec: PortSpec) -> str:
    host = msgspec.structs.replace(spec, container_first=1, container_last=1, proto="tcp")
    return f"{render_port_spec(host).rpartition(':')[0]}/{spec.proto}"


def _listed(names: Iterable[str]) -> str:
    known = list(islice(names, _LISTED + 1))
    if not known:
        return "none is defined"
    return f"defined: {', '.join(known[:_LISTED])}" + (", ..." if len(known) > _LISTED else "")
