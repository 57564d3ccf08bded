"""The intent: everything people asked for, with the indexes that make a change cost what it changes.

The records are frozen; the intent around them is edited in place by `apply`, in constant time whatever the number of
records, since attaching the 4,000th endpoint must cost no more than the first. Law (tests/property/test_intent.py):
an intent edited step by step equals one built from its records, and `apply(inverse(c))` undoes `apply(c)`.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from sealane.model.change import Change, Delete, Put, Record
from sealane.model.container import Container
from sealane.model.endpoint import Endpoint, PublishedPort, Sandbox
from sealane.model.ids import EndpointId, NetworkId, SandboxId, bare_name
from sealane.model.indexes import Claim, Index, Members, PortClaims, Unique
from sealane.model.kinds import KINDS, kind_of, leases_of, referents_first
from sealane.model.net import Address
from sealane.model.network import Network

Id = TypeVar("Id", bound=str)
T = TypeVar("T")


class Intent:
    def __init__(self, records: Iterable[Record] = ()) -> None:
        self.networks: dict[NetworkId, Network] = {}
        self.sandboxes: dict[SandboxId, Sandbox] = {}
        self.endpoints: dict[EndpointId, Endpoint] = {}
        self.containers: dict[str, Container] = {}
        self._tables: dict[str, dict[str, Record]] = {
            "network": self.networks,  # type: ignore[dict-item]  # (a dict of one kind's ids and records)
            "sandbox": self.sandboxes,  # type: ignore[dict-item]
            "endpoint": self.endpoints,  # type: ignore[dict-item]
            "container": self.containers,  # type: ignore[dict-item]
        }
        self.network_ids: Unique[str, NetworkId] = Unique(lambda n: (n.name,))
        self.sandbox_ids: Unique[str, SandboxId] = Unique(lambda s: (s.name,))
        self.container_ids: Unique[str, str] = Unique(lambda c: (c.name,))
        self.sandboxes_by_bare_name: Members[str, SandboxId, Sandbox] = Members(_bare_name)
        """Those whose name has a Kubernetes namespace, by the rest of it."""
        self.sandbox_by_netns: Unique[tuple[int, int], SandboxId] = Unique(
            lambda s: (s.netns.identity,) if s.netns is not None else ()
        )
        self.sandbox_by_awaited: Unique[str, SandboxId] = Unique(lambda s: (s.awaited,) if s.awaited else ())
        self.leases: Unique[tuple[NetworkId, Address], EndpointId] = Unique(leases_of)
        self.endpoints_by_network: Members[NetworkId, EndpointId, Endpoint] = Members(
            lambda e: e.network, self.networks
        )
        self.endpoints_by_sandbox: Members[SandboxId, EndpointId, Endpoint] = Members(
            lambda e: e.sandbox, self.sandboxes
        )
        self.containers_by_sandbox: Members[SandboxId, str, Container] = Members(lambda c: c.sandbox)
        self._claims = PortClaims()
        self._indexes: dict[str, tuple[Index, ...]] = {
            "network": (self.network_ids,),
            "sandbox": (
                self.sandbox_ids,
                self.sandboxes_by_bare_name,
                self.sandbox_by_netns,
                self.sandbox_by_awaited,
            ),
            "endpoint": (self.endpoints_by_network, self.endpoints_by_sandbox, self.leases, self._claims),
            "container": (self.container_ids, self.containers_by_sandbox),
        }
        self._owned: dict[str, tuple[Members[Any, Any, Any], ...]] = {
            "network": (self.endpoints_by_network,),
            "sandbox": (self.endpoints_by_sandbox,),
            "endpoint": (),
            "container": (),
        }
        """Indexes with an entry for each record of a kind, with members or without."""
        for record in referents_first(records):
            self.apply(Put(record))

    def records(self) -> Iterator[Record]:
        """All records, referents first."""
        for kind in KINDS:
            yield from self._tables[kind.name].values()

    def record(self, kind: str, identity: str) -> Record | None:
        return self._tables[kind].get(identity)

    def apply(self, change: Change) -> frozenset[str]:
        """Perform a change; return the fields in which the record differs from before: all of one that comes or goes."""
        record = change.record
        if not isinstance(change, Put):
            self._remove(record)
            return frozenset(record.__struct_fields__)
        before = change.before
        if before is None:
            self._add(record)
            return frozenset(record.__struct_fields__)
        self._remove(before)
        self._add(record)
        return changed_fields(before, record)

    def _add(self, record: Record) -> None:
        kind = kind_of(record).name
        self._tables[kind][record.id] = record
        for index in self._indexes[kind]:
            index.add(record)
        for members in self._owned[kind]:
            members.add_owner(record.id)

    def _remove(self, record: Record) -> None:
        kind = kind_of(record).name
        del self._tables[kind][record.id]
        for index in self._indexes[kind]:
            index.remove(record)
        for members in self._owned[kind]:
            members.remove_owner(record.id)

    def port_holder(self, desired: PublishedPort) -> Claim | None:
        """Who holds a host port that `desired` asks for: looks at the wanted ports and at all ranges, not at every
        publish."""
        return self._claims.holder(desired)

    def network_named(self, reference: str) -> Network | None:
        """By name, by id, or by the beginning of an id that only one network has."""
        return _find(reference, self.networks, self.network_ids)

    def sandboxes_named(self, reference: str) -> list[Sandbox]:
        """What it may mean: the sandbox of that name; else those of that name in any Kubernetes namespace; else the one
        whose id begins so."""
        if reference not in self.sandbox_ids and reference in self.sandboxes_by_bare_name:
            return list(self.sandboxes_by_bare_name[reference].values())
        found = _find(reference, self.sandboxes, self.sandbox_ids)
        return [] if found is None else [found]

    def sandbox_named(self, reference: str) -> Sandbox | None:
        """None, too, where it may mean several."""
        found = self.sandboxes_named(reference)
        return found[0] if len(found) == 1 else None

    def container_named(self, reference: str) -> Container | None:
        return _find(reference, self.containers, self.container_ids)

    def endpoint_of(self, sandbox: SandboxId, network: NetworkId) -> Endpoint | None:
        endpoints = self.endpoints_by_sandbox.get(sandbox, {}).values()
        return next((e for e in endpoints if e.network == network), None)

    def objection(self, changes: Iterable[Change]) -> str:
        """Why changes that were made for an older intent cannot be made to this one; empty: they can.

        A store checks names, leases and references itself; what it does not know is checked here: that a record is
        still the one that was read, and that host ports and namespaces are free."""
        changes = list(changes)
        expected = [c.before if isinstance(c, Put) else c.record for c in changes]
        replaced = {_key(record) for record in expected if record is not None}
        comes = {_key(change.record) for change in changes if isinstance(change, Put)}
        for change, before in zip(changes, expected, strict=True):
            named = " ".join((_key(change.record)[0], change.record.name))
            if before is not None and self.record(*_key(before)) != before:
                return f"{named} was changed by another writer"
            if not isinstance(change, Put):
                continue
            objection = self._lacking(change.record, comes) or self._taken(change.record, replaced)
            if objection:
                return f"{named}: {objection}"
        return ""

    def _lacking(self, record: Record, comes: Collection[tuple[str, str]]) -> str:
        """A record that it refers to and that is not there."""
        for reference in kind_of(record).references:
            identity = getattr(record, reference.field)
            key = (reference.kind, identity)
            if identity is not None and key not in comes and self.record(*key) is None:
                return f"its {reference.kind} was removed by another writer"
        return ""

    def _taken(self, record: Record, replaced: Collection[tuple[str, str]]) -> str:
        """A port or namespace that it wants and a record that stays has."""
        match record:
            case Endpoint():
                for port in record.published:
                    held = self.port_holder(port)
                    if held is not None and ("endpoint", held[1]) not in replaced:
                        return f"host port {port} was published by another writer"
            case Sandbox(netns=netns) if netns is not None:
                holder = self.sandbox_by_netns.get(netns.identity)
                if holder is not None and holder != record.id and ("sandbox", holder) not in replaced:
                    return "its namespace was recorded by another writer"
        return ""


def _key(record: Record) -> tuple[str, str]:
    return kind_of(record).name, record.id


def _bare_name(sandbox: Sandbox) -> str | None:
    bare = bare_name(sandbox.name)
    return bare if bare != sandbox.name else None


def changed_fields(before: Record, after: Record) -> frozenset[str]:
    """Names of the fields in which two records of one type differ."""
    return frozenset(f for f in before.__struct_fields__ if getattr(before, f) != getattr(after, f))


def differences(intent: Intent, records: Iterable[Record]) -> list[Change]:
    """The changes from an intent to other records, in an order that keeps referents: referrers go first and come last."""
    there = {_key(record): record for record in records}
    mine = {_key(record): record for record in intent.records()}
    gone = [record for key, record in mine.items() if key not in there]
    comes = [record for key, record in there.items() if record != mine.get(key)]
    return [
        *(Delete(record) for record in reversed(referents_first(gone))),
        *(Put(record, mine.get(_key(record))) for record in referents_first(comes)),
    ]


def _find(reference: str, records: Mapping[Id, T], by_name: Mapping[str, Id]) -> T | None:
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
