"""Causes in tables that fill up, each just below its bound and at it."""

import msgspec
import pytest

from sealane.compile.names import network_link
from sealane.explain.doctor.evidence import HostLink, NeighbourTable, Occupancy
from unit.explain.doctor.cases import Patient


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize(
    ("entries", "level"), [(921, ""), (922, "warning"), (1023, "warning"), (1024, "error")]
)
def test_neighbours(family, entries, level) -> None:
    patient = Patient()
    count = entries + patient.case.permanent[family]
    patient.host(neighbours=(NeighbourTable(family=family, entries=count, limit=1024),))
    assert patient.told("neighbours-full") == ([("host", level)] if level else [])


def test_permanent_neighbours_do_not_count() -> None:
    patient = Patient()
    patient.host(neighbours=(NeighbourTable(family=4, entries=922, limit=1024),))
    assert patient.findings() == []


def test_how_often_it_was_full_is_told() -> None:
    patient = Patient().host(neighbours=(NeighbourTable(family=4, entries=2000, limit=1024, overflows=9),))
    (finding,) = patient.findings()
    assert ("was full 9 times" in finding.message, "gc_thresh3=4096" in finding.hint) == (True, True)


@pytest.mark.parametrize(("entries", "level"), [(89, ""), (90, "warning"), (100, "error")])
def test_tracked_connections(entries, level) -> None:
    patient = Patient().host(conntrack=Occupancy(entries, 100))
    assert patient.told("flows-full") == ([("host", level)] if level else [])


def test_a_kernel_that_tracks_nothing() -> None:
    assert Patient().host(conntrack=None).findings() == []
    assert Patient().host(conntrack=Occupancy(5, 0)).findings() == []


@pytest.mark.parametrize(
    ("ports", "level"), [(920, ""), (921, "warning"), (1022, "warning"), (1023, "error")]
)
def test_bridge_ports(ports, level) -> None:
    patient = Patient()
    name = network_link(patient.town.back)
    links = [
        msgspec.structs.replace(link, ports=ports) if link.name == name else link
        for link in patient.evidence.host.links
    ]
    assert patient.host(links=tuple(links)).told("bridge-full") == ([("back", level)] if level else [])


def test_a_routed_network_has_no_such_bound() -> None:
    patient = Patient(back={"driver": "routed"})
    full = HostLink(name=network_link(patient.town.back), mtu=1400, ours=True, ports=1023)
    assert patient.host(links=(full,)).findings("bridge-full") == []
