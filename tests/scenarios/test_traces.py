"""Who reaches whom in each scenario: the lines of its traces.txt, as `explain` says them.

    web -> db:5432 tcp: denied by network back (isolation)

A line is a question and the verdict. Where the packet arrives and its answer does not come back, the answer's verdict
follows. `pytest --update` rewrites the verdicts; comments and order stay.
"""

import re
from pathlib import Path

import pytest

from harness.engines import Bench
from scenarios.test_scenarios import HERE, SCENARIOS, bench, perform, steps
from sealane.explain.foreign_state import foreign_state_of
from sealane.explain.question import Question, explain_both
from sealane.explain.render import minimal, verdict
from sealane.explain.walk import is_answered

__all__ = ["bench"]

HOST_ADDRESSES = ("192.0.2.7/24", "2001:db8::7/64")
LINE = re.compile(r"(\S+) -> (\S+) (tcp|udp|icmp)(?:: .*)?")


def told(bench: Bench, line: str) -> str:
    """The line with the verdict that holds now."""
    found = LINE.fullmatch(line)
    assert found is not None, f"no question: {line!r}"
    question = Question(source=found[1], target=found[2], proto=found[3])  # type: ignore[arg-type]
    compiled = bench.engine.reconciler.compiled
    around = foreign_state_of(compiled.facts, HOST_ADDRESSES)
    there, back = explain_both(question, bench.engine.intent, compiled, around)
    if back is None or is_answered(there, back):
        return minimal(there)
    return f"{minimal(there)}, and its answer is {verdict(back)}"


def is_question(line: str) -> bool:
    return bool(line) and not line.startswith("#")


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_verdicts_are_as_written(name: str, bench: Bench, request: pytest.FixtureRequest) -> None:
    for step in steps(name):
        perform(bench, step)
    path: Path = HERE / name / "traces.txt"
    lines = path.read_text().splitlines()
    found = [told(bench, line) if is_question(line) else line for line in lines]
    if request.config.getoption("--update"):
        path.write_text("\n".join(found) + "\n")
        lines = found
    assert found == lines
    assert sum(map(is_question, lines)) >= 5


def test_a_wrong_verdict_is_found(bench: Bench) -> None:
    for step in steps("bridge-published"):
        perform(bench, step)
    assert told(bench, "host -> web:80 tcp: denied") == "host -> web:80 tcp: delivered to web"
