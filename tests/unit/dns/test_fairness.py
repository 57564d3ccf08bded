"""Places are shared so that no holder keeps another out."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sealane.dns.fairness import Shares
from sealane.dns.limits import FORWARD_SHARE, FORWARDS


def take_all(shares: Shares, asker: str) -> int:
    taken = 0
    while shares.take(asker):
        taken += 1
    return taken


def test_one_greedy_asker_stops_at_its_share() -> None:
    shares = Shares(FORWARDS, FORWARD_SHARE)
    assert take_all(shares, "a") == FORWARDS // (FORWARD_SHARE + 1)
    assert not shares.take("a")


@pytest.mark.parametrize("greedy", [1, 10, 100])
def test_greedy_askers_never_keep_a_newcomer_out(greedy: int) -> None:
    shares = Shares(FORWARDS, FORWARD_SHARE)
    for _ in range(FORWARDS):
        for asker in range(greedy):
            shares.take(asker)
    assert shares.take("newcomer")


def test_a_place_given_back_can_be_taken_again() -> None:
    shares = Shares(3, 1)
    taken = take_all(shares, "a")
    shares.give_back("a")
    assert shares.take("a")
    assert not shares.take("a")
    assert taken == 2


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3)), max_size=200))
@settings(max_examples=100, deadline=None)
def test_no_place_is_lost_or_made(steps: list[tuple[bool, int]]) -> None:
    shares, held = Shares(10, 2), dict.fromkeys(range(4), 0)
    for is_taking, asker in steps:
        if is_taking:
            held[asker] += shares.take(asker)
        elif held[asker]:
            shares.give_back(asker)
            held[asker] -= 1
        assert shares.free == 10 - sum(held.values()) >= 0
