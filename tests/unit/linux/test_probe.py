"""How many probes are under way at once: bounded by sockets, and by the neighbours that they ask for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealane.explain.checking import Probe
from sealane.linux import probe
from sealane.linux.probe import _Volley
from sealane.model.net import family_of


def made(sender: int, target: int, *, family: int = 4, is_on_link: bool = True) -> Probe:
    address = f"10.0.{target // 250}.{target % 250}" if family == 4 else f"fd00::{target:x}"
    return Probe(
        row=sender, column=target, netns=f"s{sender}", target_netns=f"t{target}", proto="tcp", address=address,
        port=80, is_on_link=is_on_link,
    )  # fmt: skip


def rounds(probes: list[Probe]) -> list[list[Probe]]:
    volley = _Volley(probes, {}, 1.0)
    found = []
    while volley._waiting:
        found.append([probes[index] for index in volley._next_round()])
    volley._poll.close()
    return found


def test_neighbours_bound_a_round(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "NEIGHBOURS_MAX", 10)
    probes = [made(1, target) for target in range(21)]
    assert [len(one) for one in rounds(probes)] == [10, 10, 1]


def test_a_gateway_is_one_neighbour_however_many_are_behind_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "NEIGHBOURS_MAX", 2)
    probes = [made(sender, target, is_on_link=False) for sender in range(3) for target in range(50)]
    assert [len(one) for one in rounds(probes)] == [100, 50]


def test_families_have_a_table_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "NEIGHBOURS_MAX", 10)
    probes = [made(1, target, family=family) for target in range(10) for family in (4, 6)]
    assert [len(one) for one in rounds(probes)] == [20]


def test_sockets_bound_a_round(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "SOCKETS_MAX", 7)
    assert [len(one) for one in rounds([made(1, 2, is_on_link=False)] * 8)] == [7, 1]


@given(
    st.lists(
        st.builds(
            made,
            st.integers(0, 9),
            st.integers(0, 40),
            family=st.sampled_from([4, 6]),
            is_on_link=st.booleans(),
        ),
        max_size=200,
    )
)
def test_every_probe_has_its_round_and_no_round_asks_for_too_many(probes: list[Probe]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(probe, "NEIGHBOURS_MAX", 12)
        found = rounds(probes)
    assert sorted(map(str, (p for one in found for p in one))) == sorted(map(str, probes))
    for one in found:
        for family in (4, 6):
            mine = [p for p in one if family_of(p.address) == family]
            asked = {(p.netns, p.address if p.is_on_link else "") for p in mine}
            assert len(asked) <= 12
