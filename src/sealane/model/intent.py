"""The intent: everything people asked for, with the indexes that make a change cost what it changes.

The records are frozen; the intent around them is edited in place by `apply`, in constant time whatever the number of
records, since attaching the 4,000th endpoint must cost no more than the first. Law (tests/property/test_intent.py):
an intent edited step by step equals one built from its records, and `apply(inverse(c))` undoes `apply(c)`.
"""

from collections.abc import Collection, Iterable, Iterator
from typing import TypeVar

from sealane.model.change import Change, Delete, Put, Record
from sealane.model.container import Container
from sealane.model.endpoint import Endpoint, PublishedPort, Sandbox
from sealane.model.ids import EndpointId, NetworkId, SandboxId
from sealane.model.net import Address, address_part
from sealane.model.network import Network

Claim = tuple[PublishedPort, EndpointId]
Id = TypeVar("Id", bound=str)
T = TypeVar("T")


class Intent:
    def __init__(self, records: Iterable[Record] = ()) -> None:
        self.networks: dict[NetworkId, Network] = {}
        self.sandboxes: dict[SandboxId, Sandbox] = {}
        self.endpoints: dict[EndpointId, Endpoint] = {}
        self.containers: dict[str, Container] = {}
        self.network_ids: dict[str, NetworkId] = {}
        self.sandbox_ids: dict[str, SandboxId] = {}
        self.container_ids: dict[str, str] = {}
        self.sandbox_by_netns: dict[tuple[int, int], SandboxId] = {}
        self.sandbox_by_awaited: dict[str, SandboxId] = {}
        self.endpoints_by_network: dict[NetworkId, dict[EndpointId, Endpoint]] = {}
        self.endpoints_by_sandbox: dict[SandboxId, dict[EndpointId, Endpoint]] = {}
        self.containers_by_sandbox: dict[SandboxId, dict[str, Container]] = {}
        self.leases: dict[tuple[NetworkId, Address], EndpointId] = {}
        self._claims: dict[tuple[str, int], dict[PublishedPort, EndpointId]] = {}
        self._range_claims: dict[PublishedPort, EndpointId] = {}
        order = ("Network", "Sandbox", "Endpoint", "Container")
        for record in sorted(records, key=lambda r: order.index(type(r).__name__)):
            self.apply(Put(record))

    def records(self) -> Iterator[Record]:
        """All records, referents first."""
        yield from self.networks.values()
        yield from self.sandboxes.values()
        yield from self.endpoints.values()
        yield from self.containers.values()

    def apply(self, change: Change) -> None:
        match change:
            case Put(record, before):
                if before is not None:
                    self._remove(before)
                self._add(record)
            case Delete(record):
                self._remove(record)

    def _add(self, record: Record) -> None:
        match record:
            case Network():
                self.networks[record.id] = record
                self.network_ids[record.name] = record.id
                self.endpoints_by_network.setdefault(record.id, {})
            case Sandbox():
                self.sandboxes[record.id] = record
                self.sandbox_ids[record.name] = record.id
                if record.netns is not None:
                    self.sandbox_by_netns[record.netns.identity] = record.id
                if record.awaited:
                    self.sandbox_by_awaited[record.awaited] = record.id
                self.endpoints_by_sandbox.setdefault(record.id, {})
            case Endpoint():
                self._add_endpoint(record)
            case Container():
                self.containers[record.id] = record
                self.container_ids[record.name] = record.id
                self.containers_by_sandbox.setdefault(record.sandbox, {})[record.id] = record

    def _remove(self, record: Record) -> None:
        match record:
            case Network():
                del self.networks[record.id]
                del self.network_ids[record.name]
                if not self.endpoints_by_network[record.id]:
                    del self.endpoints_by_network[record.id]
            case Sandbox():
                del self.sandboxes[record.id]
                del self.sandbox_ids[record.name]
                if record.netns is not None and self.sandbox_by_netns.get(record.netns.identity) == record.id:
                    del self.sandbox_by_netns[record.netns.identity]
                if self.sandbox_by_awaited.get(record.awaited) == record.id:
                    del self.sandbox_by_awaited[record.awaited]
                if not self.endpoints_by_sandbox[record.id]:
                    del self.endpoints_by_sandbox[record.id]
            case Endpoint():
                self._remove_endpoint(record)
            case Container():
                del self.containers[record.id]
                del self.container_ids[record.name]
                there = self.containers_by_sandbox[record.sandbox]
                del there[record.id]
                if not there:
                    del self.containers_by_sandbox[record.sandbox]

    def _add_endpoint(self, endpoint: Endpoint) -> None:
        self.endpoints[endpoint.id] = endpoint
        self.endpoints_by_network.setdefault(endpoint.network, {})[endpoint.id] = endpoint
        if endpoint.sandbox is not None:
            self.endpoints_by_sandbox.setdefault(endpoint.sandbox, {})[endpoint.id] = endpoint
        for address in endpoint.addresses:
            self.leases[endpoint.network, address_part(address)] = endpoint.id
        for port in endpoint.published:
            self._claim_table(port)[port] = endpoint.id

    def _remove_endpoint(self, endpoint: Endpoint) -> None:
        del self.endpoints[endpoint.id]
        _take_out(self.endpoints_by_network, endpoint.network, endpoint.id, self.networks)
        if endpoint.sandbox is not None:
            _take_out(self.endpoints_by_sandbox, endpoint.sandbox, endpoint.id, self.sandboxes)
        for address in endpoint.addresses:
            del self.leases[endpoint.network, address_part(address)]
        for port in endpoint.published:
            del self._claim_table(port)[port]
            if port.host_first == port.host_last and not self._claims[port.proto, port.host_first]:
                del self._claims[port.proto, port.host_first]

    def _claim_table(self, port: PublishedPort) -> dict[PublishedPort, EndpointId]:
        if port.host_first == port.host_last:
            return self._claims.setdefault((port.proto, port.host_first), {})
        return self._range_claims

    def port_holder(self, wanted: PublishedPort) -> Claim | None:
        """Who holds a host port that `wanted` asks for: looks at the wanted ports and at all ranges, not at every
        publish."""
        for number in range(wanted.host_first, wanted.host_last + 1):
            for held, endpoint in self._claims.get((wanted.proto, number), {}).items():
                if held.conflicts(wanted):
                    return held, endpoint
        for held, endpoint in self._range_claims.items():
            if held.conflicts(wanted):
                return held, endpoint
        return None

    def network_named(self, reference: str) -> Network | None:
        """By name, by id, or by the beginning of an id that only one network has."""
        return _find(reference, self.networks, self.network_ids)

    def sandbox_named(self, reference: str) -> Sandbox | None:
        return _find(reference, self.sandboxes, self.sandbox_ids)

    def container_named(self, reference: str) -> Container | None:
        return _find(reference, self.containers, self.container_ids)

    def endpoint_of(self, sandbox: SandboxId, network: NetworkId) -> Endpoint | None:
        endpoints = self.endpoints_by_sandbox.get(sandbox, {}).values()
        return next((e for e in endpoints if e.network == network), None)


def _take_out(
    index: dict[Id, dict[EndpointId, Endpoint]], owner: Id, member: EndpointId, owners: Collection[Id]
) -> None:
    """Remove an endpoint from its owner's; the last one of an owner that is gone takes the entry with it."""
    del index[owner][member]
    if not index[owner] and owner not in owners:
        del index[owner]


def _find(reference: str, records: dict[Id, T], by_name: dict[str, Id]) -> T | None:
    if reference in by_name:
        return records[by_name[reference]]
    if "/" in reference:
        # A path: not worth going through all ids for.
        return None
    begins = (
        [record for key, record in records.items() if key.startswith(reference)]
        if len(reference) >= 4
        else []
    )
    return begins[0] if len(begins) == 1 else None
