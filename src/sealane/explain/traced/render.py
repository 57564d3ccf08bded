"""An account for people, as `explain` renders a trace: minimal, summary, detailed."""

from collections.abc import Iterator

from sealane.explain.packet import Hop, Trace
from sealane.explain.render import paragraph, step_lines
from sealane.explain.traced.result import Outcome, TraceResult

_MARK = {True: "✓", False: "✗"}


def minimal(account: TraceResult) -> str:
    how = "as predicted" if account.agrees else "NOT as predicted"
    if account.agrees is None:
        how = "where foreign rules translate it"
    match account.outcome:
        case Outcome.DELIVERED:
            where = f"to {account.where}"
        case Outcome.EXITS:
            where = f"by {account.link}"
        case _:
            where = f"at {account.where}"
    return f"{account.question}: {account.outcome} {where}, {how}"


def summary(account: TraceResult) -> str:
    """The verdict, a paragraph a hop, what did not come, the reason and the hint."""
    return "\n".join([minimal(account), *map(paragraph, account.hops), *_ending(account)]) + "\n"


def detailed(account: TraceResult, predicted: Trace) -> str:
    """Hop by hop what should have happened and what did."""
    lines = [minimal(account)]
    expected = list(predicted.hops)
    for hop in account.hops:
        lines += ["", f"{hop.name}: observed", *_steps(hop)]
        match = next((one for one in expected if one.netns == hop.netns), None)
        if match is not None:
            expected.remove(match)
            lines += [f"{hop.name}: predicted", *_steps(match)]
    for hop in expected:
        lines += ["", f"{hop.name}: predicted, and it did not come there", *_steps(hop)]
    return "\n".join([*lines, "", *_ending(account)]) + "\n"


def _steps(hop: Hop) -> Iterator[str]:
    for step in hop.steps:
        yield from step_lines(step)


def _ending(account: TraceResult) -> Iterator[str]:
    if account.missing:
        yield f"  · expected and not seen: {', '.join(account.missing)}"
    if account.unexpected:
        yield f"  · not expected: {', '.join(account.unexpected)}"
    yield f"  {_MARK[account.passes]} {account.reason}, after {account.microseconds:.0f} µs"
    if account.hint:
        yield f"  → {account.hint}"
