"""A trace for people: minimal (the verdict), summary (a paragraph a namespace), detailed (every rule and entry)."""

from collections.abc import Iterator

from sealane.explain.bridging import UP
from sealane.explain.packet import Disposition, Hop, Step, Trace

_PASSING = ("goto", "jump", "continue", "return")
"""Outcomes of rules that only lead on to the next."""

WIDTH = 110
"""Columns of a summary; what is longer in itself stays whole."""

_INDENT = 15

_MARK = {True: "✓", False: "✗"}


def verdict(trace: Trace) -> str:
    """`delivered to db`, `denied by network back (isolation)`."""
    match trace.disposition:
        case Disposition.DELIVERED:
            return f"delivered to {trace.hops[-1].name}"
        case Disposition.EXITS:
            return f"exits by {trace.link}"
        case Disposition.UNANSWERED:
            return f"reaches {trace.hops[-1].name}, and its answer is {trace.answer}"
        case Disposition.TRANSLATED:
            return f"{trace.disposition} at {trace.hops[-1].name}: use trace"
        case Disposition.DENIED | Disposition.SPOOFED:
            last = trace.hops[-1].steps[-1] if trace.hops[-1].steps else None
            if last is not None and last.why:
                return f"denied by {_author(last)} ({last.why.rpartition(':')[2]})"
            return f"denied at {trace.hops[-1].name}"
        case _:
            return f"{trace.disposition} at {trace.hops[-1].name}"


def _author(step: Step) -> str:
    if step.why.startswith("guard:"):
        return "the port guard"
    return step.origin_name or "sealane"


def minimal(trace: Trace) -> str:
    """One line: `web -> db:5432 tcp: delivered to db`."""
    return f"{trace.question or trace.packet}: {verdict(trace)}"


def summary(trace: Trace) -> str:
    """The verdict, a paragraph a hop, the reason and the hint."""
    return "\n".join([minimal(trace), *(paragraph(hop) for hop in trace.hops), *_ending(trace)]) + "\n"


def paragraph(hop: Hop) -> str:
    """Steps side by side, as many as a line of WIDTH takes."""
    lines, line = [], f"  {hop.name:12} "
    for number, text in enumerate(step.text for step in hop.steps if not is_passing(step)):
        separator = " · " if number else ""
        if number and len(line) + len(separator) + len(text) > WIDTH:
            lines.append(line)
            line, separator = " " * _INDENT, ""
        line += separator + text
    return "\n".join([*lines, line.rstrip()])


def is_passing(step: Step) -> bool:
    outcome = step.text.partition(": ")[2]
    leads_on = step.kind == "rule" and (outcome.startswith(_PASSING) or outcome == "accept")
    return leads_on or step.text.startswith(UP)


def detailed(trace: Trace) -> str:
    """Every step, with the rule or entry that decided and the intent behind it."""
    lines = [minimal(trace), f"  {trace.packet}"]
    for number, hop in enumerate(trace.hops, 1):
        lines += ["", f"{number}. {hop.name}"]
        for step in hop.steps:
            lines += step_lines(step)
    return "\n".join([*lines, "", *_ending(trace)]) + "\n"


def step_lines(step: Step) -> Iterator[str]:
    behind = f"   [{step.origin_name}]" if step.origin_name else ""
    yield f"   {step.kind:10} {step.text}{behind}"
    if step.detail:
        yield f"   {'':10}   {step.detail}"


def _ending(trace: Trace) -> Iterator[str]:
    yield f"  {_MARK[trace.passes]} {trace.reason}"
    if trace.hint:
        yield f"  → {trace.hint}"
