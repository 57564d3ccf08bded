"""Figures as rows, and rows as a table."""

import msgspec
import pytest
from bench.report import Goal, Report, Row, interleave, median, number, paired, quantile, table


def row(**fields: object) -> Row:
    return Row(**{"benchmark": "b", "what": "w", "ours": 1.0, "unit": "s", **fields})


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        (2.0, "s", "2 s"),
        (0.01234, "s", "12.3 ms"),
        (0.00178, "s", "1.78 ms"),
        (0.0000119, "s", "11.9 µs"),
        (0.15, "s", "150 ms"),
        (64000.0, "/s", "64,000 /s"),
        (52.13, "MiB", "52.1 MiB"),
        (1.5, "×", "1.50 ×"),
        (137.2, "×", "137 ×"),
        (0.0, "", "0"),
    ],
)
def test_a_number_has_three_digits_and_a_unit_that_fits(value: float, unit: str, shown: str) -> None:
    assert number(value, unit) == shown


def test_a_goal_of_at_most_is_met_up_to_and_with_its_value() -> None:
    goal = Goal("at most", 2.0)
    assert [goal.is_met(figure) for figure in (1.9, 2.0, 2.1)] == [True, True, False]


def test_a_goal_of_at_least_is_met_from_its_value_on() -> None:
    goal = Goal("at least", 0.97)
    assert [goal.is_met(figure) for figure in (0.96, 0.97, 1.2)] == [False, True, True]


def test_a_goal_without_a_peer_is_held_against_the_value_itself() -> None:
    assert row(ours=0.4, goal=Goal("at most", 0.5, "s")).is_met is True
    assert row(ours=0.6, goal=Goal("at most", 0.5, "s")).is_met is False


def test_a_goal_with_a_peer_is_held_against_the_ratio() -> None:
    assert row(ours=9.0, ratio=1.5, goal=Goal("at most", 2.0)).is_met is True
    assert row(ours=0.1, ratio=2.5, goal=Goal("at most", 2.0)).is_met is False


def test_a_row_without_a_goal_is_neither_met_nor_missed() -> None:
    assert row().is_met is None
    assert row(goal=Goal("at most", 2.0)).is_met is None


def test_a_quantile_is_the_sample_below_which_that_part_lies() -> None:
    samples = [float(n) for n in range(100, 0, -1)]
    assert quantile(samples, 0.05) == 6.0
    assert quantile(samples, 0.5) == 51.0
    assert quantile([7.0], 0.99) == 7.0


def test_paired_ratios_cancel_what_both_suffered_in_a_round() -> None:
    ours, theirs = [2.0, 20.0, 2.0], [1.0, 10.0, 1.0]
    assert paired(ours, theirs) == 2.0
    # A ratio of medians would hide that the second round was slow for one of them only.
    assert paired([2.0, 20.0, 4.0], [1.0, 10.0, 1.0]) == 2.0


def test_rounds_of_different_length_cannot_be_paired() -> None:
    with pytest.raises(ValueError, match="zip"):
        paired([1.0], [1.0, 2.0])


def test_contenders_take_turns_and_warm_up_is_not_counted() -> None:
    calls: list[tuple[str, int]] = []

    def contender(name: str):
        def act(round_: int) -> float:
            calls.append((name, round_))
            return float(round_)

        return act

    measured = interleave(2, {"a": contender("a"), "b": contender("b")}, warm_up=1)
    assert calls == [("a", 0), ("b", 0), ("a", 1), ("b", 1), ("a", 2), ("b", 2)]
    assert measured == {"a": [1.0, 2.0], "b": [1.0, 2.0]}


def test_a_table_lines_up_and_says_what_was_missed() -> None:
    report = Report(
        {"kernel": "6.18"},
        [
            row(peer="CNI", theirs=0.05, ours=0.002, ratio=25.0, goal=Goal("at least", 10.0), note="why"),
            row(what="another", ratio=3.0, goal=Goal("at most", 2.0)),
        ],
    )
    lines = table(report).splitlines()
    rows = lines[:4]
    assert len({len(line) for line in rows}) == 1, "all rows have one width"
    assert set(rows[1]) == {"|", "-"}
    assert "25 ×" in rows[2]
    assert "≥ 10 ×" in rows[2]
    assert rows[2].rstrip(" |").endswith("met")
    assert rows[3].rstrip(" |").endswith("MISSED")
    assert "kernel: 6.18" in lines
    assert "b, w: why" in lines


def test_a_report_survives_json() -> None:
    report = Report({"kernel": "6.18"}, [row(ratio=3.0, goal=Goal("at most", 2.0))])
    assert msgspec.json.decode(msgspec.json.encode(report), type=Report) == report


def test_median_of_an_even_number_lies_between() -> None:
    assert median([1.0, 2.0, 10.0, 20.0]) == 6.0
