"""The kinds of records, in one table: codec, intent and stores follow it, so a new kind is one new line here.

A kind's table in SQLite has the columns id, name (of a named kind), one for each reference, record and crc32, in this
order; it comes with a migration in `store/migrations`, and a test compares the two.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import msgspec

from sealane.model.change import Record
from sealane.model.container import Container
from sealane.model.endpoint import Endpoint, Sandbox
from sealane.model.net import Address, address_part
from sealane.model.network import GatewayLink, Network

Fields = dict[str, Any]

Lease = tuple[str, Address]
"""(network, address): one record may hold it."""


class Reference(msgspec.Struct, frozen=True):
    """A record is named by another, and cannot be deleted while it is."""

    field: str
    """Of the record that refers; None in it refers to nothing."""
    kind: str


class Kind(msgspec.Struct, frozen=True):
    """What is true of all records of one type. Every record has an `id` and a `name`."""

    name: str
    """In JSON and in messages."""
    type: type[Record]
    table: str
    is_named: bool = True
    """One record of the kind a name."""
    references: tuple[Reference, ...] = ()
    migrations: Mapping[int, Callable[[Fields], Fields]] = {}
    """Version → how a record of that version, as JSON, becomes one of the next; without an entry it is one already."""
    leases: Callable[[Record], Iterable[Lease]] | None = None
    """Addresses that a record holds on networks; None: records of this kind hold none."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Fields that stand beside the record in its table, under the table's constraints."""
        return "id", *(["name"] if self.is_named else []), *(r.field for r in self.references)


def _with_host_link(network: Fields) -> Fields:
    """Version 1 had the fields of a bridge beside those of every network."""
    names = {"link": "name", "link_adopted": "adopted", "gateway_on_link": "has_gateway"}
    said = {new: network.pop(old) for old, new in names.items() if old in network}
    own = {field: value for field, value in said.items() if value != getattr(GatewayLink(), field)}
    return {**network, "host_link": {"type": "gateway", **own}} if own else network


def _addresses(record: Record) -> Iterable[Lease]:
    assert isinstance(record, Endpoint)
    return [(record.network, address_part(address)) for address in record.addresses]


KINDS: Final = (
    Kind("network", Network, "networks", migrations={1: _with_host_link}),
    Kind("sandbox", Sandbox, "sandboxes"),
    Kind(
        "endpoint",
        Endpoint,
        "endpoints",
        # Endpoints are named by their sandboxes, and many may be `web`.
        is_named=False,
        references=(Reference("network", "network"), Reference("sandbox", "sandbox")),
        leases=_addresses,
    ),
    Kind("container", Container, "containers", references=(Reference("sandbox", "sandbox"),)),
)
"""In an order in which what is referred to comes first."""

KIND_BY_NAME: Final = {kind.name: kind for kind in KINDS}
_BY_TYPE: Final = {kind.type: kind for kind in KINDS}

ORDER: Final = {kind.type: number for number, kind in enumerate(KINDS)}


def kind_of(record: Record) -> Kind:
    return _BY_TYPE[type(record)]


def leases_of(record: Record) -> Iterable[Lease]:
    leases = kind_of(record).leases
    return leases(record) if leases is not None else ()


def referents_first(records: Iterable[Record]) -> list[Record]:
    return sorted(records, key=lambda record: ORDER[type(record)])
