"""The order in which services start."""

import pytest

from sealane.compose.order import CycleError, waves


@pytest.mark.parametrize(
    ("needs", "expected"),
    [
        ({}, ()),
        ({"b": (), "a": ()}, (("a", "b"),)),
        ({"web": ("db", "cache"), "db": (), "cache": ("db",)}, (("db",), ("cache",), ("web",))),
        ({"a": ("elsewhere",)}, (("a",),)),
        ({"a": ("c", "c"), "b": ("c",), "c": ()}, (("c",), ("a", "b"))),
    ],
)
def test_services_start_in_waves(needs, expected):
    assert waves(needs) == expected


@pytest.mark.parametrize(
    ("needs", "cycle"),
    [
        ({"a": ("a",)}, ("a",)),
        ({"a": ("b",), "b": ("a",)}, ("a", "b")),
        ({"z": ("b",), "b": ("c",), "c": ("d",), "d": ("b",), "ok": ()}, ("b", "c", "d")),
        ({"a": ("x", "b"), "x": (), "b": ("a",)}, ("a", "b")),
    ],
)
def test_a_cycle_is_named_without_what_only_leads_to_it(needs, cycle):
    with pytest.raises(CycleError) as caught:
        waves(needs)
    assert caught.value.cycle == cycle
    assert str(caught.value) == " -> ".join((*cycle, cycle[0]))


def test_a_long_chain_costs_no_recursion():
    count = 5000
    needs = {f"s{i:05}": (f"s{i + 1:05}",) for i in range(count)}
    assert waves(needs)[0] == (f"s{count - 1:05}",)
    needs[f"s{count - 1:05}"] = ("s00000",)
    with pytest.raises(CycleError) as caught:
        waves(needs)
    assert len(caught.value.cycle) == count
