"""Who asks much waits for himself alone."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sealane.dns.backlog import Backlog
from sealane.dns.limits import BACKLOG

QUESTIONS = st.lists(st.sampled_from("abc"), max_size=60)


def question(number: int, asker: str) -> tuple[bytes, object]:
    return b"%d" % number, (asker, 53)


def filled(askers: list[str], capacity: int = 1000) -> Backlog:
    backlog = Backlog(capacity)
    for number, asker in enumerate(askers):
        assert backlog.put(asker, question(number, asker))
    return backlog


def emptied(backlog: Backlog) -> list[tuple[bytes, object]]:
    found = []
    while backlog:
        found.append(backlog.take())
    return found


@given(QUESTIONS)
def test_nothing_is_lost_and_each_askers_stay_in_order(askers: list[str]) -> None:
    given_ = [question(number, asker) for number, asker in enumerate(askers)]
    found = emptied(filled(askers))
    for asker in "abc":
        mine = [item for item in given_ if item[1] == (asker, 53)]
        assert [item for item in found if item[1] == (asker, 53)] == mine
    assert len(found) == len(given_)


@given(QUESTIONS)
def test_nobody_has_two_turns_while_another_waits(askers: list[str]) -> None:
    order = [source[0] for _, source in emptied(filled(askers))]  # type: ignore[index]
    for place, asker in enumerate(order[:-1]):
        if order[place + 1] == asker:
            assert set(order[place + 1 :]) == {asker}


@given(st.lists(st.one_of(st.sampled_from("abc"), st.none()), max_size=100))
@settings(deadline=None)
def test_a_share_comes_back_with_its_turn(steps: list[str | None]) -> None:
    """Takes between puts: it is never fuller than it may be, and a newcomer is always let in."""
    backlog, held = Backlog(8), dict.fromkeys("abc", 0)
    for number, asker in enumerate(steps):
        if asker is not None:
            held[asker] += backlog.put(asker, question(number, asker))
        elif backlog:
            held[backlog.take()[1][0]] -= 1
        assert [asker in backlog for asker in "abc"] == [held[asker] > 0 for asker in "abc"]
        assert bool(backlog) == any(held.values())
        assert sum(held.values()) <= 8


def test_one_alone_has_half_and_no_more() -> None:
    backlog = filled(["a"] * (BACKLOG // 2), BACKLOG)
    assert not backlog.put("a", question(0, "a"))
    assert backlog.put("b", question(0, "b"))
    backlog.take()
    assert backlog.put("a", question(0, "a"))


def test_nothing_waits_at_first() -> None:
    assert not Backlog(1)
    with pytest.raises(StopIteration):
        Backlog(1).take()
