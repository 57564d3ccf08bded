"""Drift on a packet's path: what differs there, and nothing else."""

from sealane.compile.names import endpoint_link, network_link
from sealane.compile.network import bridge_mac
from sealane.explain.drift import drift_on_path
from sealane.explain.packet import Trace
from sealane.kernel.state import HOST
from unit.explain.worlds import HOST_ADDRESS, OUTSIDE, Town


def observed(town: Town, *missing: tuple) -> dict:
    state = {netns: dict(items) for netns, items in town.compiled.desired.items()}
    for netns, key in missing:
        del state[netns][key]
    return state


def published(town: Town) -> Trace:
    return town.send("outside", HOST_ADDRESS[4], 8080)


def test_nothing_differs() -> None:
    town = Town()
    assert drift_on_path(published(town), town.compiled.desired, observed(town)) == []


def test_an_object_that_is_missing_on_the_path_is_named() -> None:
    town = Town()
    entry = (HOST, ("fdb", endpoint_link(town.web.id), town.web.mac))
    (found,) = drift_on_path(published(town), town.compiled.desired, observed(town, entry))
    assert (found.netns, found.desired, found.observed) == (HOST, town.compiled.desired[HOST][entry[1]], None)


def test_an_element_that_decided_is_on_the_path() -> None:
    town = Town()
    element = next(k for k in town.compiled.desired[HOST] if k[:3] == ("nft-element", "ip", "publish"))
    (found,) = drift_on_path(published(town), town.compiled.desired, observed(town, (HOST, element)))
    assert found.desired is not None
    assert found.desired.key == element


def test_drift_elsewhere_is_not() -> None:
    town = Town()
    entry = (HOST, ("fdb", endpoint_link(town.db.id), town.db.mac))
    assert drift_on_path(published(town), town.compiled.desired, observed(town, entry)) == []


def test_a_namespace_that_was_not_looked_at_has_none() -> None:
    town = Town()
    assert drift_on_path(published(town), town.compiled.desired, {"sandbox-web": {}}) != []
    assert drift_on_path(published(town), town.compiled.desired, {}) == []


def test_a_bridges_own_entry_is_on_the_way_out() -> None:
    """`bridge fdb flush` took it, and all was called well."""
    town = Town()
    own = (HOST, ("fdb", network_link(town.front), bridge_mac(town.front)))
    out = town.send("web", OUTSIDE[4], 80)
    assert out.passes
    (found,) = drift_on_path(out, town.compiled.desired, observed(town, own))
    assert (found.key, found.observed) == (own[1], None)
