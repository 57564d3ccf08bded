"""The one table of drivers: complete, and the only place that lists them."""

import re
from pathlib import Path

import pytest

from sealane.model.network import Network
from sealane.model.traits import DRIVERS, MODES, TRAITS

SOURCES = Path(__file__).parents[3] / "src" / "sealane"


def test_every_driver_has_traits_and_nothing_else_has() -> None:
    assert tuple(TRAITS) == DRIVERS


def test_the_drivers_are_listed_once() -> None:
    """A second list would be forgotten by the next driver."""
    several = re.compile(r'"(bridge|routed|host|none)",\s*"(bridge|routed|host|none)"')
    places = {str(p.relative_to(SOURCES)) for p in SOURCES.rglob("*.py") if several.search(p.read_text())}
    assert places == {
        "model/traits.py",
        "compose/schema.py",  # values of compose's `network_mode`
        "kernel/objects.py",  # programs of the fast path
        "explain/doctor/links.py",  # the kernel's kind and name of a link
        "wire/cni.py",  # what a CNI object may say
    }


def test_the_modes_are_the_drivers_beside_which_no_other_network_stands() -> None:
    assert MODES == ("host", "none")


@pytest.mark.parametrize("driver", DRIVERS)
def test_traits_do_not_contradict_each_other(driver) -> None:
    traits = TRAITS[driver]
    network = Network(id="n", name="n", driver=driver)
    assert network.traits is traits
    assert not (traits.has_links and traits.excludes_others)
    assert traits.has_links or not (traits.guards or traits.can_hand_over or traits.follows_host_rules)
    assert network.can_publish == traits.follows_host_rules
    assert network.has_way_out == traits.has_links


def test_internal_closes_both_ways() -> None:
    network = Network(id="n", name="n", internal=True)
    assert not network.can_publish
    assert not network.has_way_out
