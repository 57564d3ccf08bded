"""From requests for published ports to host ports: chosen where they are to be chosen, checked against every holder
before anything changes."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from sealane.engine.errors import ConflictError, ExhaustedError, InvalidError
from sealane.engine.ports import Kernel, Reserver, SocketPlace
from sealane.engine.problems import parsed
from sealane.limits import EPHEMERAL_TRIES, PUBLISHES_PER_ENDPOINT, RANGE_PORTS_MAX
from sealane.model.endpoint import Endpoint, PublishedPort
from sealane.model.intent import Intent
from sealane.model.net import Address, Family, family_of, is_loopback, is_wildcard, parse_address
from sealane.model.network import RESOLVER_PORT, RESOLVER_PROTOS, Network
from sealane.wire.requests import PublishRequest


class _Beside(NamedTuple):
    """What a port is chosen beside, records and listeners of the host apart."""

    chosen: list[PublishedPort]
    """Of the same request."""
    reserver: Reserver | None = None
    """Whose listeners are in nobody's way."""


class Publisher:
    """Chooses and checks host ports. Ephemeral ones are taken in turn, so that a port just given up is reused last."""

    def __init__(self, intent: Intent, kernel: Kernel, like: "Publisher | None" = None) -> None:
        """`like`: go on from where that is."""
        self._intent = intent
        self._kernel = kernel
        self._next: int = like._next if like is not None else 0

    def ports(
        self,
        requests: Sequence[PublishRequest],
        network: Network,
        families: set[Family],
        reserver: Reserver | None = None,
    ) -> tuple[PublishedPort, ...]:
        """Publishes that agree are one: what a wider one leads to the same ports is left out (`-p 8080:80 -p [::]:8080:80`).
        Ports that `reserver` holds for its container are free. Raises InvalidError, ConflictError (naming the holder) or
        ExhaustedError, each with the field."""
        if requests and network.traits.is_host:
            raise InvalidError(
                "on the host's network a port is published by listening on it", field="publish"
            )
        if requests and not network.can_publish:
            why = "it is internal" if network.internal else f"driver {network.driver} cannot"
            raise InvalidError(
                f"cannot publish on network {network.name}: {why}",
                field="publish",
                hint="attach the sandbox to a network that is not internal as well, and publish there",
            )
        if len(requests) > PUBLISHES_PER_ENDPOINT:
            raise InvalidError(f"at most {PUBLISHES_PER_ENDPOINT} publishes an endpoint", field="publish")
        chosen: list[PublishedPort] = []
        is_reserved = reserver is not None and reserver.holds_all
        for index, request in enumerate(requests):
            field = f"publish[{index}]"
            for address in self._addresses(request, network, families, field):
                port = self._port(request, address, _Beside(chosen, reserver), field)
                chosen = _agreed(chosen, msgspec.structs.replace(port, is_reserved=is_reserved))
        return tuple(chosen)

    def again(self, endpoints: Iterable[Endpoint]) -> list[Endpoint]:
        """Endpoints that rested, with ports to publish again: theirs, but for ephemeral ones that somebody has come to hold,
        which are chosen anew. Raises ConflictError, naming the holder; ExhaustedError."""
        seen: list[PublishedPort] = []
        result = []
        for endpoint in endpoints:
            ports = tuple(self._again(endpoint, port, seen) for port in endpoint.ports)
            result.append(msgspec.structs.replace(endpoint, ports=ports))
        return result

    def _again(self, endpoint: Endpoint, port: PublishedPort, seen: list[PublishedPort]) -> PublishedPort:
        holder = self._holder(port, _Beside(seen))
        if holder is not None:
            if not port.is_ephemeral:
                raise ConflictError(
                    f"host port {port} of endpoint {endpoint.name} is held by {holder} now",
                    field="publish",
                    hint="end or detach that first",
                )
            count = port.host_last - port.host_first + 1
            desired = PublishRequest(proto=port.proto, port=port.port, count=count)
            port = self._ephemeral(desired, port.host_address, _Beside(seen), "publish")
        seen.append(port)
        return port

    def _ephemeral(
        self, request: PublishRequest, address: Address | None, beside: "_Beside", field: str
    ) -> PublishedPort:
        found = self._free(request, address, beside, field, *self._kernel.ephemeral_range())
        return msgspec.structs.replace(found, is_ephemeral=True)

    def _addresses(
        self, request: PublishRequest, network: Network, families: set[Family], field: str
    ) -> Iterator[Address | None]:
        if request.host_address == "":
            for address in network.publish_addresses:
                if family_of(address) in families:
                    self._check_is_ours(address, field)
                    yield address
            if not network.publish_addresses:
                yield None
            return
        address = parsed(parse_address, request.host_address, f"{field}.host_address")
        if family_of(address) not in families and not _is_led_across(request, address):
            raise InvalidError(
                f"{address} is IPv{family_of(address)}, which the endpoint does not have on {network.name}",
                field=f"{field}.host_address",
            )
        if request.proto == "sctp" and is_loopback(address):
            raise InvalidError(
                "SCTP cannot be published on the host's own loopback",
                field=f"{field}.host_address",
                hint="publish it on another address of the host",
            )
        self._check_is_ours(address, f"{field}.host_address")
        yield address

    def _check_is_ours(self, address: Address, field: str) -> None:
        """What is published at somebody else's address nobody would ever reach. A gateway may be about to come."""
        if is_wildcard(address) or is_loopback(address) or self._kernel.has_address(address):
            return
        if not any(address == s.gateway for n in self._intent.networks.values() for s in n.subnets):
            raise InvalidError(
                f"{address} is no address of this host",
                field=field,
                hint=f"publish at one that is, or, if it comes later, allow it: `sysctl net.ipv{family_of(address)}.ip_nonlocal_bind=1`",
            )

    def _port(
        self, request: PublishRequest, address: Address | None, beside: "_Beside", field: str
    ) -> PublishedPort:
        _check_numbers(request, field)
        if request.host_first == 0:
            return self._ephemeral(request, address, beside, field)
        if request.one_of:
            return self._free(request, address, beside, field, request.host_first, request.host_last)
        last = request.host_last or request.host_first + request.count - 1
        port = PublishedPort(
            proto=request.proto,
            host_address=address,
            host_first=request.host_first,
            host_last=last,
            port=request.port,
        )
        if any(other.covers(port) for other in beside.chosen):
            return port
        narrower = [other for other in beside.chosen if not port.covers(other)]
        holder = self._holder(port, beside._replace(chosen=narrower))
        if holder is not None:
            raise ConflictError(f"host port {port} is held by {holder}", field=field, hint=_elsewhere(port))
        return port

    def _free(
        self,
        request: PublishRequest,
        address: Address | None,
        beside: "_Beside",
        field: str,
        first: int,
        last: int,
    ) -> PublishedPort:
        """A free run of `count` ports in a range: looks on from where the last search ended."""
        places = last - first + 1 - (request.count - 1)
        for _ in range(min(places, EPHEMERAL_TRIES)):
            number = first + self._next % places
            self._next += request.count
            port = PublishedPort(
                proto=request.proto,
                host_address=address,
                host_first=number,
                host_last=number + request.count - 1,
                port=request.port,
            )
            if self._holder(port, beside) is None:
                return port
        raise ExhaustedError(f"no free host port from {first} to {last}", field=field)

    def _holder(self, port: PublishedPort, beside: "_Beside") -> str | None:
        if any(other.conflicts(port) for other in beside.chosen):
            return "another publish of the same request"
        claim = self._intent.port_holder(port)
        if claim is not None:
            held, endpoint = claim
            return f"endpoint {self._intent.endpoints[endpoint].name} ({held})"
        served = self._served(port)
        if port.host_address is not None and (port.host_address, RESOLVER_PORT) in served:
            return f"the resolver of network {served[port.host_address, RESOLVER_PORT]}"
        return self._kernel.port_user(port, served.keys(), beside.reserver)

    def _served(self, port: PublishedPort) -> dict[SocketPlace, str]:
        """Where workloads ask for names, and of which network: what is published on every address is not published there
        (`compile.base`). Of a range that those ports are not in, nothing."""
        if port.proto not in RESOLVER_PROTOS or not port.host_first <= RESOLVER_PORT <= port.host_last:
            return {}
        return {
            (address, RESOLVER_PORT): network.name
            for network in self._intent.networks.values()
            for address in network.resolvers
        }


def _agreed(chosen: list[PublishedPort], port: PublishedPort) -> list[PublishedPort]:
    """With one more, without those that another covers."""
    if any(other.covers(port) for other in chosen):
        return chosen
    return [*(other for other in chosen if not port.covers(other)), port]


def _is_led_across(request: PublishRequest, address: Address) -> bool:
    """Whether an endpoint without the address's family is asked there all the same: by a relay (`compile.relay`), or from
    ::1 by a socket of IPv6, which may speak IPv4."""
    return request.proto != "sctp" and (is_wildcard(address) or address == "::1")


def _elsewhere(port: PublishedPort) -> str:
    one = f"ADDRESS:{port.host_first}:{port.port}/{port.proto}"
    return "choose another host port" + (
        "" if port.host_address else f", or one address of the host's: {one}"
    )


def _check_numbers(request: PublishRequest, field: str) -> None:
    first, last = request.host_first, request.host_last
    for name, value, low in (("port", request.port, 1), ("host_first", first, 0), ("host_last", last, 0)):
        if not low <= value <= 65535:
            raise InvalidError(f"{value} is not a port from {low or 1} to 65535", field=f"{field}.{name}")
    if request.count < 1 or request.port + request.count - 1 > 65535:
        raise InvalidError(f"{request.count} ports from {request.port} on pass 65535", field=f"{field}.count")
    if last and last < first:
        raise InvalidError(f"the range {first}-{last} runs backwards", field=f"{field}.host_last")
    length = last - first + 1 if last else request.count
    if first and not request.one_of:
        if request.count not in (length, 1):
            raise InvalidError(
                f"{length} host ports for {request.count} ports",
                field=field,
                hint="give ranges of one length",
            )
        if first + length - 1 > 65535 or request.port + length - 1 > 65535:
            raise InvalidError("the range passes 65535", field=field)
        if first != request.port and length > RANGE_PORTS_MAX:
            raise InvalidError(
                f"a range that is shifted has at most {RANGE_PORTS_MAX} ports",
                field=field,
                hint="publish the same numbers on the host and inside",
            )
