"""Which compile units read which field of a record: a change recompiles the units that read what it changed.

Laws (tests/property/test_reads.py): recompiling these units equals a full compilation, and every reader that is listed
here can change by its field. A field that is not listed is read by no unit (labels, names, DNS servers).
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Final, Literal

from sealane.model.change import Record
from sealane.model.container import Container
from sealane.model.endpoint import Endpoint, Sandbox
from sealane.model.ids import EndpointId, NetworkId, SandboxId
from sealane.model.intent import Intent
from sealane.model.network import Network

Unit = tuple[Literal["host", "network", "endpoint", "sandbox"], str]
"""An intent object as the compiler's unit of work: also the origin of the kernel objects that come of it."""

HOST_UNIT: Unit = ("host", "")

Reader = Literal["host", "network", "endpoint", "sandbox"]
"""Of a network: the host, itself, each of its endpoints, each of their sandboxes. Of an endpoint: itself, its sandbox."""

READERS: Final[Mapping[type[Record], Mapping[str, tuple[Reader, ...]]]] = {
    Network: {
        "driver": ("host", "network", "endpoint", "sandbox"),
        "name": ("sandbox",),
        "subnets": ("host", "network", "endpoint", "sandbox"),
        "mtu": ("network", "endpoint"),
        "internal": ("host", "network", "endpoint", "sandbox"),
        "icc": ("host", "network", "endpoint"),
        "masquerade": ("network", "endpoint"),
        "source_addresses": ("network",),
        "host_link": ("host", "network", "endpoint"),
        "dns": ("network",),
        "fast_path": ("host", "endpoint"),
    },
    Endpoint: {
        "network": ("endpoint", "sandbox"),
        "sandbox": ("endpoint", "sandbox"),
        "ifname": ("endpoint", "sandbox"),
        "mac": ("endpoint",),
        "addresses": ("endpoint", "sandbox"),
        "ports": ("endpoint", "sandbox"),
        "gateway_priority": ("sandbox",),
        "sysctls": ("endpoint",),
        "handover": ("endpoint", "sandbox"),
        "ingress": ("endpoint",),
        "egress": ("endpoint",),
        "without_gateway": ("sandbox",),
        "fast_path": ("endpoint",),
        "dormant": ("endpoint", "sandbox"),
    },
    Sandbox: {"netns": ("sandbox",), "sysctls": ("sandbox",)},
    Container: {},
}


def readers(record: Record, fields: Collection[str]) -> set[Reader]:
    """Of any of the fields."""
    table = READERS[type(record)]
    return {reader for field in fields for reader in table.get(field, ())}


def units_of(record: Record, which: Collection[Reader], intent: Intent) -> Iterator[Unit]:
    """The units behind readers of a record, as the intent has it."""
    match record:
        case Network():
            if "host" in which:
                yield HOST_UNIT
            if "network" in which:
                yield "network", record.id
            if "endpoint" in which or "sandbox" in which:
                yield from _members(record.id, which, intent)
        case Endpoint():
            if "endpoint" in which:
                yield "endpoint", record.id
            if "sandbox" in which and record.sandbox is not None:
                yield "sandbox", record.sandbox
        case Sandbox():
            if "sandbox" in which:
                yield "sandbox", record.id


def _members(network: NetworkId, which: Collection[Reader], intent: Intent) -> Iterator[Unit]:
    members: Mapping[EndpointId, Endpoint] = intent.endpoints_by_network.get(network, {})
    if "endpoint" in which:
        yield from (("endpoint", endpoint) for endpoint in members)
    if "sandbox" in which:
        sandboxes: set[SandboxId] = {e.sandbox for e in members.values() if e.sandbox is not None}
        yield from (("sandbox", sandbox) for sandbox in sandboxes)
