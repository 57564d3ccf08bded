"""What a cause looks at, and what it says: the intent and what should be on one side, what was read on the other."""

from collections.abc import Callable, Iterator, Mapping
from typing import Literal, NamedTuple

import msgspec

from sealane.compile.facts import Facts
from sealane.compile.network import has_data_plane, mtu
from sealane.explain.doctor.evidence import Evidence, HostEvidence, SandboxEvidence
from sealane.kernel.state import NamespaceState
from sealane.model.endpoint import Endpoint, PublishedPort, Sandbox
from sealane.model.ids import NetworkId, SandboxId
from sealane.model.net import FAMILIES, Family
from sealane.model.network import Network

Level = Literal["error", "warning", "note"]
"""`error`: something does not work now. `warning`: it may not, or soon will not. `note`: worth knowing."""

HOST_SUBJECT = "host"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    cause: str = ""
    """Filled in by whoever runs the causes."""
    subject: str
    """`host`, a network's, sandbox's or endpoint's name."""
    message: str
    hint: str
    level: Level


class Publish(NamedTuple):
    sandbox: Sandbox
    endpoint: Endpoint
    port: PublishedPort


class DiagnosisInput(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot: what becomes of the engine meanwhile does not change it."""

    networks: Mapping[NetworkId, Network]
    """All of them."""
    sandboxes: tuple[Sandbox, ...]
    """Those that are looked at."""
    endpoints: Mapping[SandboxId, tuple[Endpoint, ...]]
    """Theirs."""
    in_scope: frozenset[NetworkId]
    """Networks that are asked about."""
    leases: frozenset[str]
    """Every address that an endpoint has."""
    desired: Mapping[str, NamespaceState]
    """Of the host and of the sandboxes that are looked at."""
    permanent: Mapping[Family, int]
    """Permanent neighbour entries that are ours, of all namespaces."""
    facts: Facts
    is_node: bool = False
    """Pods of Kubernetes run on this host."""
    evidence: Evidence

    @property
    def host(self) -> HostEvidence:
        return self.evidence.host

    @property
    def planes(self) -> list[Network]:
        """Networks that are asked about and carry packets."""
        return [n for n in self.networks.values() if n.id in self.in_scope and has_data_plane(n)]

    def forwarded(self, family: Family) -> list[Network]:
        """Networks whose packets the host forwards: out of the network, or between the links of a routed one."""
        return [
            n
            for n in self.planes
            if n.subnet(family) is not None and (not n.internal or n.driver == "routed")
        ]

    def seen(self) -> Iterator[tuple[Sandbox, SandboxEvidence]]:
        """Sandboxes that could be looked at."""
        for sandbox in self.sandboxes:
            found = self.evidence.sandboxes.get(sandbox.id)
            if found is not None:
                yield sandbox, found

    def endpoints_of(self, sandbox: Sandbox) -> tuple[Endpoint, ...]:
        return self.endpoints.get(sandbox.id, ())

    def handed_over(self, sandbox: Sandbox) -> tuple[Endpoint, ...]:
        """Endpoints of the sandbox that Docker set up inside: links, routes and names there are Docker's."""
        return tuple(endpoint for endpoint in self.endpoints_of(sandbox) if endpoint.handover)

    def publishes(self) -> Iterator[Publish]:
        for sandbox in self.sandboxes:
            for endpoint in self.endpoints_of(sandbox):
                yield from (Publish(sandbox, endpoint, port) for port in endpoint.published)

    def mtu_of(self, network: Network) -> int:
        return mtu(network, self.facts)

    def name_of(self, endpoint: Endpoint) -> str:
        return f"{endpoint.name}/{self.networks[endpoint.network].name}"


Check = Callable[[DiagnosisInput], Iterator[Finding]]


def families_of(endpoint: Endpoint) -> tuple[Family, ...]:
    return tuple(family for family in FAMILIES if endpoint.address(family) is not None)
