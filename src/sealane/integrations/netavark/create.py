"""`create`: what podman's user left open about a network is chosen, and what was said is checked.

Nothing is made: podman writes the answer down, and setup brings it. Subnets that sealane's networks or the host use are
left out, whether podman knows of them or not.
"""

import ipaddress
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from sealane.compile.facts import Facts
from sealane.engine.errors import ConflictError, ExhaustedError, ExistsError, InvalidError, SealaneError
from sealane.engine.networks import network_record
from sealane.engine.problems import at_field, parsed
from sealane.integrations.netavark.config import IPAM_NONE, is_unmanaged, network_request
from sealane.ipam import pools
from sealane.limits import SUBNETS_PER_NETWORK
from sealane.model.ids import NetworkId, parse_link_name, parse_name
from sealane.model.intent import Intent
from sealane.model.net import Prefix, contains, parse_address, parse_prefix
from sealane.wire.netavark import NetavarkCreate, NetavarkNetwork, NetavarkPool, NetavarkSubnet

PREFIX = "podman"
LINKS_MAX = 1_000_000
ID_LENGTH = 64
POOLS = (NetavarkPool(base="10.89.0.0/16", size=24), NetavarkPool(base="10.90.0.0/15", size=24))
"""The first of podman's own (containers.conf(5), default_subnet_pools)."""


class Creator:
    """`kind_of` tells of the host's links that are not sealane's."""

    def __init__(self, intent: Intent, facts: Facts, kind_of: Callable[[str], str | None]) -> None:
        self._intent = intent
        self._facts = facts
        self._kind_of = kind_of

    def complete(self, request: NetavarkCreate, now: datetime) -> dict[str, Any]:
        """The network as podman is to write it down. Raises InvalidError, ExistsError, ConflictError, ExhaustedError."""
        network = _read(request.network)
        _check_identity(network, request.used.names or {})
        ipam = (network.ipam_options or {}).get("driver") or "host-local"
        options = dict(network.options or {})
        interface = options.pop("com.docker.network.bridge.name", "") or network.network_interface or ""
        if "com.docker.network.driver.mtu" in options:
            options["mtu"] = options.pop("com.docker.network.driver.mtu")
        chosen = msgspec.structs.replace(
            network,
            options=options or None,
            network_interface=self._interface(interface, network, request),
            subnets=self._subnets(network, ipam, request) or None,
            ipam_options={**(network.ipam_options or {}), "driver": ipam},
            dns_enabled=network.dns_enabled and ipam != IPAM_NONE,
        )
        if chosen.network_dns_servers and not chosen.dns_enabled:
            raise InvalidError(
                "there are no names on this network, so nothing asks its servers",
                field="network.network_dns_servers",
            )
        self._check(chosen)
        has_ipv6 = any(":" in subnet.subnet for subnet in chosen.subnets or ())
        chosen = msgspec.structs.replace(chosen, ipv6_enabled=network.ipv6_enabled or has_ipv6)
        made = _bare(msgspec.to_builtins(chosen))
        more = {
            key: value
            for key, value in request.network.items()
            if key not in NetavarkNetwork.__struct_fields__
        }
        return {**more, **made, "created": request.network.get("created") or now.isoformat()}

    def _check(self, network: NetavarkNetwork) -> None:
        """Whether it could be made, on a host without others: which of those are in its way depends on what is asked."""
        facts = msgspec.structs.replace(self._facts, foreign_routes=())
        request = network_request(network)
        try:
            network_record(request, NetworkId(network.id), Intent(), facts, self._kind_of)
        except SealaneError as error:
            raise type(error)(error.message, field=f"network.{error.field}", hint=error.hint) from error

    def _interface(self, asked: str, network: NetavarkNetwork, request: NetavarkCreate) -> str:
        used = {*(request.used.interfaces or ()), *(n.link for n in self._intent.networks.values())}
        if asked:
            name = parsed(parse_link_name, asked, "network.network_interface")
            if not is_unmanaged(network) and (name in used or self._kind_of(name) is not None):
                raise ConflictError(f"bridge name {name} already in use", field="network.network_interface")
            return name
        prefix = request.options.default_interface_name or PREFIX
        taken = {*used, *(request.used.names or {})}
        for number in range(1, LINKS_MAX):
            name = f"{prefix}{number}"
            if name not in taken and self._kind_of(name) is None:
                return parsed(parse_link_name, name, "options.default_interface_name")
        raise ExhaustedError(f"no name from {prefix}1 on is free", field="options.default_interface_name")

    def _subnets(self, network: NetavarkNetwork, ipam: str, request: NetavarkCreate) -> list[NetavarkSubnet]:
        if ipam == IPAM_NONE:
            if network.subnets:
                raise InvalidError("None ipam driver is set but subnets are given", field="network.subnets")
            return []
        if len(network.subnets or ()) > SUBNETS_PER_NETWORK:
            raise InvalidError("a network has at most one subnet a family", field="network.subnets")
        taken = _Taken(self._intent, self._facts, request, checked=_is_checked(network, request))
        # Its own network of the same name is the one that podman is to join, not in its way.
        joined = self._intent.network_ids.get(network.name)
        prefixes = {s.prefix for s in self._intent.networks[joined].subnets} if joined else set()
        subnets = [
            _checked(subnet, f"network.subnets[{i}]", taken, prefixes, needs_gateway=_needs_gateway(network))
            for i, subnet in enumerate(network.subnets or ())
        ]
        families = {_family(subnet.subnet) for subnet in subnets}
        if not subnets or (network.ipv6_enabled and 4 not in families):
            subnets.append(
                _with_gateway(taken.free(request.options.subnet_pools or POOLS), _needs_gateway(network))
            )
        if network.ipv6_enabled and 6 not in families:
            subnets.append(_with_gateway(taken.free_ipv6(network.id), _needs_gateway(network)))
        return subnets


class _Taken:
    """What a subnet may not overlap: sealane's networks and the host's routes, and what podman says is used."""

    def __init__(self, intent: Intent, facts: Facts, request: NetavarkCreate, *, checked: bool) -> None:
        self._facts = facts
        used = [parsed(parse_prefix, text, "used.subnets") for text in request.used.subnets or ()]
        self.networks: dict[str, tuple[Prefix, ...]] = {
            network.name: tuple(s.prefix for s in network.subnets) for network in intent.networks.values()
        }
        if checked:
            self.networks["of podman or the host"] = tuple(used)

    def check(self, prefix: Prefix, field: str) -> None:
        with at_field(field):
            pools.check_prefix(prefix, self.networks, self._facts)
        self._take(prefix)

    def free(self, of: Sequence[NetavarkPool]) -> Prefix:
        for number, pool in enumerate(of):
            field = f"options.subnet_pools[{number}]"
            base = parsed(parse_prefix, pool.base, field)
            if ":" in base:
                continue
            whole = ipaddress.ip_network(base)
            if not whole.prefixlen <= pool.size <= whole.max_prefixlen:
                raise InvalidError(f"/{pool.size} is no part of {base}", field=f"{field}.size")
            found = pools.free_in(pools.AutoPool(base, pool.size), self.networks, self._facts)
            if found is not None:
                self._take(found)
                return found
        raise ExhaustedError("could not find free subnet from subnet pools", field="options.subnet_pools")

    def free_ipv6(self, identity: str) -> Prefix:
        with at_field("network.ipv6_enabled"):
            return pools.free_prefix(6, identity, self.networks, self._facts)

    def _take(self, prefix: Prefix) -> None:
        self.networks["this network itself"] = (*self.networks.get("this network itself", ()), prefix)


def _read(document: Mapping[str, Any]) -> NetavarkNetwork:
    try:
        return msgspec.convert(document, NetavarkNetwork)
    except msgspec.ValidationError as error:
        raise InvalidError(str(error), field="network") from error


def _check_identity(network: NetavarkNetwork, names: Mapping[str, str]) -> None:
    parsed(parse_name, network.name, "network.name")
    if network.name in names:
        raise ExistsError(f"network already exists {network.name}", field="network.name")
    if len(network.id) != ID_LENGTH or not all(c in "0123456789abcdefABCDEF" for c in network.id):
        raise InvalidError(f"{network.id!r} is not {ID_LENGTH} hexadecimal digits", field="network.id")


def _is_checked(network: NetavarkNetwork, request: NetavarkCreate) -> bool:
    return request.options.check_used_subnets and not is_unmanaged(network)


def _needs_gateway(network: NetavarkNetwork) -> bool:
    return not network.internal or network.dns_enabled


def _checked(
    asked: NetavarkSubnet, field: str, taken: _Taken, own: set[Prefix], *, needs_gateway: bool
) -> NetavarkSubnet:
    prefix = parsed(parse_prefix, asked.subnet, f"{field}.subnet")
    if prefix not in own:
        taken.check(prefix, f"{field}.subnet")
    lease = asked.lease_range
    for name, text in (
        ("gateway", asked.gateway),
        ("lease_range.start_ip", lease and lease.start_ip),
        ("lease_range.end_ip", lease and lease.end_ip),
    ):
        if text and not contains(prefix, parsed(parse_address, text, f"{field}.{name}")):
            raise InvalidError(f"{name} {text} not in subnet {prefix}", field=f"{field}.{name}")
    if asked.gateway:
        return msgspec.structs.replace(asked, subnet=prefix)
    return msgspec.structs.replace(_with_gateway(prefix, needs_gateway), lease_range=lease)


def _with_gateway(prefix: Prefix, needs_gateway: bool) -> NetavarkSubnet:
    whole = ipaddress.ip_network(prefix)
    if not needs_gateway:
        return NetavarkSubnet(subnet=prefix)
    if whole.num_addresses < 4:
        raise InvalidError(f"could not create gateway for subnet {prefix}", field="network.subnets")
    return NetavarkSubnet(subnet=prefix, gateway=str(whole[1]))


def _family(subnet: str) -> int:
    return 6 if ":" in subnet else 4


def _bare(value: Any) -> Any:
    """Without what is not set."""
    if isinstance(value, dict):
        return {key: _bare(item) for key, item in value.items() if item is not None}
    return [_bare(item) for item in value] if isinstance(value, list) else value
