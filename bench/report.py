"""Measurements as rows, and rows as a table for people or as JSON."""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

import msgspec

Sense = Literal["at most", "at least"]

_SCALES = {"s": ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))}


class Goal(msgspec.Struct, frozen=True):
    """What a ratio (or, where there is no peer, the value itself) has to be."""

    sense: Sense
    value: float
    unit: str = "×"
    """`×` for a ratio; else the unit of the value."""

    def is_met(self, figure: float) -> bool:
        return figure <= self.value if self.sense == "at most" else figure >= self.value

    def __str__(self) -> str:
        sign = "≤" if self.sense == "at most" else "≥"
        return f"{sign} {number(self.value, self.unit)}"


class Row(msgspec.Struct, frozen=True, kw_only=True):
    benchmark: str
    what: str
    ours: float
    unit: str
    """Of `ours` and `theirs`: `s`, `Gbit/s`, `/s`, `MiB`, or empty for a plain count."""
    peer: str = ""
    theirs: float | None = None
    ratio: float | None = None
    """How many times better we are than the peer, or as the goal says; a median of ratios where rounds are paired."""
    goal: Goal | None = None
    note: str = ""

    @property
    def is_met(self) -> bool | None:
        if self.goal is None:
            return None
        figure = self.ratio if self.goal.unit == "×" else self.ours
        return None if figure is None else self.goal.is_met(figure)


class Report(msgspec.Struct, frozen=True):
    machine: dict[str, str]
    rows: list[Row]


def median(samples: Iterable[float]) -> float:
    return statistics.median(samples)


def quantile(samples: Sequence[float], part: float) -> float:
    """The sample below which `part` (0 to 1) of them lie."""
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def interleave(
    rounds: int, contenders: Mapping[str, Callable[[int], float]], *, warm_up: int = 1
) -> dict[str, list[float]]:
    """Let every contender do the same in turn, `rounds` times: A B C, A B C, … Each is given the round's number and
    returns what it measured."""
    measured: dict[str, list[float]] = {name: [] for name in contenders}
    for number_ in range(-warm_up, rounds):
        for name, contender in contenders.items():
            value = contender(number_ + warm_up)
            if number_ >= 0:
                measured[name].append(value)
    return measured


def paired(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median over rounds of ours ÷ theirs: what both suffered in a round cancels out."""
    return median(a / b for a, b in zip(ours, theirs, strict=True))


def number(value: float, unit: str) -> str:
    """Three digits that say something, and a unit of fitting size."""
    for scale, name in _SCALES.get(unit, ()):
        if abs(value) >= scale:
            return f"{_digits(value / scale)} {name}"
    return f"{_digits(value)} {unit}".strip() if unit != "×" else f"{_digits(value)} ×"


def _digits(value: float) -> str:
    size = abs(value)
    if size == round(size) and size < 1000:
        return f"{value:.0f}"
    return f"{value:,.0f}" if size >= 100 else f"{value:.1f}" if size >= 10 else f"{value:.2f}"


_HEAD = ("benchmark", "what", "sealane", "peer", "", "ratio", "goal", "")


def table(report: Report) -> str:
    """Markdown that reads well in a terminal too."""
    lines = [_HEAD, *(_cells(row) for row in report.rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(_HEAD))]
    rendered = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
        for line in lines
    ]
    rendered.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    facts = [f"{name}: {value}" for name, value in report.machine.items()]
    notes = [f"{row.benchmark}, {row.what}: {row.note}" for row in report.rows if row.note]
    return "\n".join([*rendered, "", *facts, *([""] if notes else []), *notes])


def _cells(row: Row) -> tuple[str, ...]:
    verdict = {None: "", True: "met", False: "MISSED"}[row.is_met]
    return (
        row.benchmark,
        row.what,
        number(row.ours, row.unit),
        row.peer,
        "" if row.theirs is None else number(row.theirs, row.unit),
        "" if row.ratio is None else number(row.ratio, "×"),
        "" if row.goal is None else str(row.goal),
        verdict,
    )
