"""From a request to attach to an endpoint's record: every field checked or chosen, nothing changed."""

import re
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress

from sealane.compile import names
from sealane.engine.addresses import Addresses
from sealane.engine.errors import ConflictError, ExhaustedError, InvalidError
from sealane.engine.ports import Reserver
from sealane.engine.problems import parsed
from sealane.engine.publishing import Publisher
from sealane.limits import ALIASES_PER_ENDPOINT
from sealane.model.endpoint import Bandwidth, Endpoint, PublishedPort, Sandbox
from sealane.model.ids import (
    SYSCTL_VALUE,
    EndpointId,
    NetworkId,
    name_in,
    parse_id,
    parse_link_name,
    parse_name,
)
from sealane.model.intent import Intent
from sealane.model.net import (
    Address,
    Family,
    Interface,
    Mac,
    ParseError,
    address_part,
    family_of,
    parse_address,
    parse_mac,
)
from sealane.model.network import Network
from sealane.model.traits import TRAITS
from sealane.wire.requests import (
    ENDPOINT_SYSCTLS,
    AttachRequest,
    BandwidthRequest,
    PublishRequest,
    StagedRequest,
)

_SYSCTL = re.compile(r"net\.(ipv4|ipv6|mpls)\.(conf|neigh)\.IFNAME\.([a-z0-9_]+)")
_SANDBOX_SYSCTL = re.compile(r"net(\.[a-z0-9_-]+)+")
_OF_A_LINK = re.compile(
    r"net\.(ip[a-z0-9]+\.(?:conf|neigh))\.(?!(?:all|default|lo)\.)([a-z0-9_-]+)\.([a-z0-9_]+)"
)
RATE_MIN, RATE_MAX = 8_000, 10**12
"""Bits per second: a kilobyte, and more than any link has."""
BURST_MAX = 8 * 0xFFFF_FFFF
"""Bits: tbf's bucket is a 32-bit number of bytes."""
BURSTS_A_SECOND = 100
"""A burst that is not stated is what passes in 10 ms: several ticks of the slowest timer, and no more than noise to what
is measured over a second."""
MANAGED_SYSCTLS = frozenset({"accept_ra"})
"""Set by the compiler as part of a guard."""


class EndpointMaker:
    def __init__(self, intent: Intent, addresses: Addresses, publisher: Publisher) -> None:
        self._intent = intent
        self._addresses = addresses
        self._publisher = publisher

    def make(
        self,
        request: AttachRequest,
        network: Network,
        sandbox: Sandbox,
        identity: EndpointId,
        reserver: Reserver | None = None,
        *,
        skip: Iterable[str] = (),
    ) -> Endpoint:
        """Raises InvalidError, ConflictError or ExhaustedError with the field."""
        name = name_of(request) or sandbox.name
        _check_meeting(network, sandbox)
        self._check_place(network)
        plain = not network.traits.has_links
        addresses = () if plain else self._addresses.choose(network, request.addresses)
        if plain and (request.addresses or request.mac):
            raise InvalidError(f"network {network.name} gives no addresses", field="addresses")
        return Endpoint(
            id=identity,
            name=name,
            network=network.id,
            sandbox=sandbox.id,
            ifname=self._ifname(request, network, sandbox, skip),
            mac=self._mac(request.mac, network, addresses, identity),
            addresses=addresses,
            aliases=_aliases(request.aliases),
            ports=self._publisher.ports(
                request.publish, network, {family_of(a) for a in addresses}, reserver
            ),
            gateway_priority=request.gateway_priority,
            sysctls=_sysctls(request.sysctls),
            labels=dict(request.labels),
            ingress=_bandwidth(request.ingress, "ingress"),
            egress=_bandwidth(request.egress, "egress"),
            without_gateway=request.without_gateway,
            dns_servers=_dns_servers(request.dns_servers),
            fast_path=request.fast_path,
        )

    def stage(self, request: StagedRequest, network: Network, replaced: Collection[EndpointId]) -> Endpoint:
        """An endpoint that has no sandbox yet, and takes over the addresses of those that it replaces.

        Raises InvalidError, ConflictError or ExhaustedError with the field."""
        if not network.traits.can_hand_over:
            able = ", ".join(f"`{name}`" for name, traits in TRAITS.items() if traits.can_hand_over)
            raise InvalidError(
                f"an endpoint of a {network.driver} network cannot be handed over",
                field="network",
                hint=f"use a network of driver {able}",
            )
        self._check_place(network, leaving=len(replaced))
        addresses = self._addresses.choose(network, request.addresses, replaced=replaced)
        identity = EndpointId(parsed(parse_id, request.id, "id"))
        return Endpoint(
            id=identity,
            name=parsed(parse_name, request.name, "name"),
            network=network.id,
            sandbox=None,
            ifname=f"{network.link_prefix}0",
            mac=self._mac(request.mac, network, addresses, identity, replaced),
            addresses=addresses,
            aliases=_aliases(request.aliases),
            labels=dict(request.labels),
            handover=True,
        )

    def lease(self, network: Network, family: Family, address: str, name: str) -> Endpoint:
        """An address that is held for an endpoint to come. Raises as `stage`."""
        chosen = self._addresses.choose_one(network, family, address)
        return lease_of(network.id, chosen, parsed(parse_name, name, "name") if name else "lease")

    def link_name(self, network: Network, sandbox: Sandbox) -> str:
        """The lowest free one, which is what others choose too."""
        used = {e.ifname for e in self._intent.endpoints_by_sandbox.get(sandbox.id, {}).values()}
        return _lowest(network, used)

    def _mac(
        self,
        desired: str,
        network: Network,
        addresses: tuple[Interface, ...],
        identity: EndpointId,
        replaced: Collection[EndpointId] = (),
    ) -> Mac:
        """By default an address keeps its MAC, so that siblings that knew its last owner reach the next at once."""
        if desired:
            mac = parsed(parse_mac, desired, "mac")
            others = self._intent.endpoints_by_network.get(network.id, {}).values()
            holder = next((e for e in others if e.mac == mac and e.id not in {identity, *replaced}), None)
            if holder is not None and network.traits.has_bridge:
                raise ConflictError(
                    f"{mac} is that of endpoint {holder.name}: a bridge sends its frames to one of them",
                    field="mac",
                    hint="another MAC",
                )
            return mac
        return names.mac(f"{network.id} {addresses[0]}" if addresses else identity)

    def _check_place(self, network: Network, *, leaving: int = 0) -> None:
        most = network.traits.ports_max
        if most is None:
            return
        if len(self._intent.endpoints_by_network.get(network.id, ())) - leaving >= most:
            raise ExhaustedError(
                f"network {network.name} is full: a Linux bridge has {most} ports",
                field="network",
                hint="create the network with driver `routed`, which has no such limit",
            )

    def _ifname(self, request: AttachRequest, network: Network, sandbox: Sandbox, skip: Iterable[str]) -> str:
        """The name asked for, or the lowest free one; `skip`: names that the sandbox turned out to hold already."""
        used = {e.ifname for e in self._intent.endpoints_by_sandbox.get(sandbox.id, {}).values()}
        if request.ifname:
            name = parsed(parse_link_name, request.ifname, "ifname")
            if name in used or name == "lo":
                raise ConflictError(f"sandbox {sandbox.name} has a link {name} already", field="ifname")
            return name
        return _lowest(network, used | set(skip))


def lease_of(network: NetworkId, address: Interface, name: str) -> Endpoint:
    """The record that holds an address of a network, and nothing else."""
    return Endpoint(
        id=EndpointId(f"lease-{names.digest(f'{network} {address}', 32)}"),
        name=name,
        network=network,
        sandbox=None,
        ifname="",
        mac=names.mac(f"{network} {address}"),
        addresses=(address,),
        is_lease=True,
    )


def _check_meeting(network: Network, sandbox: Sandbox) -> None:
    """What lives on the host's own network is on it and on no other; what has a namespace never is."""
    is_on_host = sandbox.netns is None and not sandbox.awaited
    if network.traits.is_host and not is_on_host:
        raise InvalidError(
            f"sandbox {sandbox.name} has a namespace of its own, and {network.name} is the host's network",
            field="network",
            hint="`sealane run --network host` starts a container there",
        )
    if is_on_host and not network.traits.is_host:
        raise InvalidError(
            f"sandbox {sandbox.name} is on the host's own network, and can be on no other",
            field="sandbox",
            hint="start it without `--network host`",
        )


def _lowest(network: Network, used: set[str]) -> str:
    number = next(n for n in range(len(used) + 1) if f"{network.link_prefix}{n}" not in used)
    return f"{network.link_prefix}{number}"


def _aliases(aliases: Iterable[str]) -> tuple[str, ...]:
    result = tuple(
        dict.fromkeys(parsed(parse_name, alias, f"aliases[{i}]") for i, alias in enumerate(aliases))
    )
    if len(result) > ALIASES_PER_ENDPOINT:
        raise InvalidError(f"at most {ALIASES_PER_ENDPOINT} aliases an endpoint", field="aliases")
    return result


def _dns_servers(servers: Iterable[str]) -> tuple[Address, ...]:
    return tuple(parsed(parse_address, server, f"dns_servers[{i}]") for i, server in enumerate(servers))


def _bandwidth(asked: BandwidthRequest | None, field: str) -> Bandwidth | None:
    if asked is None:
        return None
    if not RATE_MIN <= asked.rate <= RATE_MAX:
        raise InvalidError(
            f"{asked.rate} bit/s is not a rate from {RATE_MIN} to {RATE_MAX}", field=f"{field}.rate"
        )
    if not 0 <= asked.burst <= BURST_MAX:
        raise InvalidError(f"{asked.burst} bits is not a burst up to {BURST_MAX}", field=f"{field}.burst")
    return Bandwidth(rate=asked.rate, burst=asked.burst or asked.rate // BURSTS_A_SECOND)


def _sysctls(sysctls: dict[str, str]) -> tuple[tuple[str, str], ...]:
    """A closed grammar: a key that left the link's own directory would set anything (CVE-2022-0811)."""
    result = []
    for key, value in sysctls.items():
        match = _SYSCTL.fullmatch(key)
        if match is None:
            raise InvalidError(
                f"{key!r} is not a link's sysctl",
                field=f"sysctls.{key}",
                hint="net.ipv4.conf.IFNAME.<setting>",
            )
        if match[3] in MANAGED_SYSCTLS:
            raise InvalidError(f"{match[3]} is part of the guards", field=f"sysctls.{key}")
        if not SYSCTL_VALUE.fullmatch(value):
            raise InvalidError(f"{value!r} is no sysctl value", field=f"sysctls.{key}")
        result.append((key.replace(".", "/"), value))
    return tuple(result)


def sandbox_sysctls(sysctls: dict[str, str]) -> tuple[tuple[str, str], ...]:
    """The sandbox's own settings: anything under `net.`, which is all that a network namespace has of its own."""
    for key, value in sysctls.items():
        if not _SANDBOX_SYSCTL.fullmatch(key):
            raise InvalidError(
                f"{key!r} is not a sysctl of a network namespace", field=f"sysctls.{key}", hint="net.*"
            )
        of_link = _OF_A_LINK.fullmatch(key)
        if of_link is not None:
            setting = f"net.{of_link[1]}.IFNAME.{of_link[3]}={value}"
            raise InvalidError(
                f"{of_link[2]} is not there yet when its sandbox is made",
                field=f"sysctls.{key}",
                hint=f"say it of the network: `--network name=…,driver-opt={ENDPOINT_SYSCTLS}={setting}`",
            )
        if not SYSCTL_VALUE.fullmatch(value):
            raise InvalidError(f"{value!r} is no sysctl value", field=f"sysctls.{key}")
    return tuple((key.replace(".", "/"), value) for key, value in sorted(sysctls.items()))


def name_of(request: AttachRequest) -> str:
    """The endpoint's name; empty: the sandbox's. Raises InvalidError."""
    if not request.name:
        return ""
    parsed(lambda namespace: name_in(namespace, "any"), request.namespace, "namespace")
    return parsed(lambda name: name_in(request.namespace, name), request.name, "name")


def repeats(endpoint: Endpoint, request: AttachRequest) -> str | None:
    """Whether the request asks for what the endpoint is already: None, or the field that differs.

    Fields that the request leaves open are as the first answer chose them.
    """
    own = {address_part(a) for a in endpoint.addresses}
    asked_for = [port for port in endpoint.ports if not port.came_along]
    checks = {
        "name": not request.name or name_of(request) == endpoint.name,
        "addresses": {_canonical(a) for a in request.addresses} <= own,
        "mac": not request.mac or request.mac.lower().replace("-", ":") == endpoint.mac,
        "ifname": not request.ifname or request.ifname == endpoint.ifname,
        "aliases": tuple(dict.fromkeys(request.aliases)) == endpoint.aliases,
        "publish": _are_answered(request.publish, asked_for),
        "gateway_priority": request.gateway_priority == endpoint.gateway_priority,
        "sysctls": dict(_sysctls(request.sysctls)) == dict(endpoint.sysctls),
        "labels": request.labels == endpoint.labels,
        "ingress": _bandwidth(request.ingress, "ingress") == endpoint.ingress,
        "egress": _bandwidth(request.egress, "egress") == endpoint.egress,
        "without_gateway": request.without_gateway == endpoint.without_gateway,
        "dns_servers": _dns_servers(request.dns_servers) == endpoint.dns_servers,
        "fast_path": request.fast_path == endpoint.fast_path,
    }
    return next((field for field, same in checks.items() if not same), None)


def repeated_ports(endpoint: Endpoint, requests: Sequence[PublishRequest]) -> bool:
    """Whether an endpoint publishes what is asked for, and nothing else."""
    own, others = _answered(requests, endpoint.ports)
    return not others and len(own) == len(endpoint.ports)


def _are_answered(requests: Sequence[PublishRequest], ports: Sequence[PublishedPort]) -> bool:
    """Each publish asked for is there."""
    own, others = _answered(requests, ports)
    return bool(requests) == bool(ports) and len(own) <= len(ports) and not others


def unanswered(requests: Sequence[PublishRequest], ports: Sequence[PublishedPort]) -> list[PublishRequest]:
    """Publishes asked for that no port is the answer to."""
    return _answered(requests, ports)[1]


def _answered(
    requests: Sequence[PublishRequest], ports: Sequence[PublishedPort]
) -> tuple[list[PublishRequest], list[PublishRequest]]:
    """Those with a port of their own, and those without one. One with another's, which covers it, is in neither."""
    own = [request for request in requests if any(is_answer(port, request) for port in ports)]
    answers = [port for port in ports if any(is_answer(port, request) for request in own)]
    others = [
        request
        for request in requests
        if request not in own
        and not any(port.covers(desired) for port in answers for desired in _fixed(request))
    ]
    # Said twice, a host's port is one; two that leave it open are two.
    return [r for i, r in enumerate(own) if not (_fixed(r) and r in own[:i])], others


def _fixed(request: PublishRequest) -> list[PublishedPort]:
    """What a request asks for that leaves nothing open but addresses; none if it does."""
    if request.host_first == 0 or request.one_of:
        return []
    port = PublishedPort(
        proto=request.proto,
        host_address=_canonical(request.host_address) or None,  # type: ignore[arg-type]
        host_first=request.host_first,
        host_last=request.host_last or request.host_first + request.count - 1,
        port=request.port,
    )
    return [port]


def is_answer(port: PublishedPort, request: PublishRequest) -> bool:
    """Where the request leaves a choice, of the host's port or its address, whatever was chosen is right."""
    last = request.host_last or request.host_first + request.count - 1
    if request.host_first == 0 or request.one_of:
        is_within = request.host_first == 0 or request.host_first <= port.host_first <= port.host_last <= last
        is_there = is_within and port.host_last - port.host_first + 1 == request.count
    else:
        is_there = (port.host_first, port.host_last) == (request.host_first, last)
    address = _canonical(request.host_address)
    is_addressed = address in {"", port.host_address}
    return is_there and is_addressed and (port.proto, port.port) == (request.proto, request.port)


def _canonical(address: str) -> str:
    """As addresses are recorded; what is none stays, and is equal to none."""
    with suppress(ParseError):
        return parse_address(address.partition("/")[0])
    return address
