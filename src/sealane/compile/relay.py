"""Ports that are published in a family that the endpoint lacks: who asks there is relayed, since nothing translates between
families. The daemon listens (`daemon.relays`), on every address of the family.

What is published at one address of the host is not relayed, but for the host's own loopback, which the socket program
leads across (`compile.publish`); nor is SCTP.
"""

from collections.abc import Iterable, Iterator
from typing import Literal

import msgspec

from sealane.compile.network import has_data_plane
from sealane.model.endpoint import Endpoint, PublishedPort
from sealane.model.intent import Intent
from sealane.model.net import (
    FAMILIES,
    WILDCARDS,
    Address,
    Family,
    Prefix,
    contains,
    is_link_local,
)
from sealane.model.network import Network

RANGE_MAX = 256
"""Ports of one publish. A longer range is not relayed: it would take a socket a port."""


class RelayedPort(msgspec.Struct, frozen=True, kw_only=True):
    """Ports `first`…`last` of every address that the host has in `family`, to one backend of the other."""

    family: Family
    """In which it is asked for."""
    proto: Literal["tcp", "udp", "sctp"]
    first: int
    last: int
    address: Address
    port: int
    """The backend's port for `first`; the others follow in step."""

    def target(self, number: int) -> int:
        return self.port + number - self.first


class Relays:
    """What a host's relays do, by its intent."""

    def __init__(self, intent: Intent) -> None:
        self._intent = intent

    @property
    def ports(self) -> tuple[RelayedPort, ...]:
        """All of them."""
        networks = self._intent.networks
        return tuple(
            port for e in self._intent.endpoints.values() for port in relayed_ports(e, networks[e.network])
        )

    def find(self, family: Family, proto: str, number: int) -> RelayedPort | None:
        """Of one port, without a look at every endpoint: who relays it holds it at every address of the family."""
        if proto not in ("tcp", "udp") or not number:
            return None
        everywhere = PublishedPort(
            proto=proto,  # type: ignore[arg-type]
            host_address=WILDCARDS[family],
            host_first=number,
            host_last=number,
            port=number,
        )
        claim = self._intent.port_holder(everywhere)
        if claim is None:
            return None
        endpoint = self._intent.endpoints[claim[1]]
        desired = relayed_ports(endpoint, self._intent.networks[endpoint.network])
        found = (item for item in desired if (item.family, item.proto) == (family, proto))
        return next((item for item in found if item.first <= number <= item.last), None)

    def admits(self, client: str) -> bool:
        return admits(client, internal_prefixes(self._intent.networks.values()))


def internal_prefixes(networks: Iterable[Network]) -> tuple[Prefix, ...]:
    return tuple(subnet.prefix for n in networks if n.internal for subnet in n.subnets)


def admits(client: str, internal: Iterable[Prefix]) -> bool:
    """Whether a relay serves a client: not a workload of an internal network, which asks nobody but its own, nor from a
    link-local address, which does not say from which network it comes."""
    return not is_link_local(client) and not any(contains(prefix, client) for prefix in internal)


def relayed_ports(endpoint: Endpoint, network: Network) -> Iterator[RelayedPort]:
    if endpoint.sandbox is None or network.internal or not has_data_plane(network):
        return
    for port in endpoint.published:
        for family in FAMILIES:
            if endpoint.address(family) is not None or not is_relayed(port, family):
                continue
            address = endpoint.address(_other(family))
            if address is not None:
                yield RelayedPort(
                    family=family,
                    proto=port.proto,
                    first=port.host_first,
                    last=port.host_last,
                    address=address,
                    port=port.port,
                )


def is_relayed(port: PublishedPort, family: Family) -> bool:
    """Whether it is published on every address of a family, by something that can be relayed."""
    is_everywhere = port.only_at is None and port.concerns(family)
    is_short = port.host_last - port.host_first < RANGE_MAX
    return is_everywhere and is_short and port.proto != "sctp" and not port.is_reserved


def _other(family: Family) -> Family:
    return 6 if family == 4 else 4
