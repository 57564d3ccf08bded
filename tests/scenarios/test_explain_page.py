"""docs/explain.md: each of its examples is what `sealane explain` prints in the scenario that is named above it.

A console block after `<!-- scenario: NAME -->` holds one command and its output; `pytest --update` writes the outputs.
"""

import re
import shlex

import pytest

from docs.markdown import ROOT
from harness.engines import Bench
from scenarios.test_scenarios import SCENARIOS, bench, perform, steps
from scenarios.test_traces import HOST_ADDRESSES
from sealane.cli.options import ends_of
from sealane.cli.parser import build_parser
from sealane.explain import render
from sealane.explain.foreign_state import foreign_state_of
from sealane.explain.question import Question, explain

__all__ = ["bench"]

PAGE = ROOT / "docs" / "explain.md"
BLOCK = re.compile(
    r"<!-- scenario: (?P<scenario>\S+) -->\n```console\n\$ sealane (?P<command>.*)\n(?P<output>(?s:.*?))```\n"
)


def printed(bench: Bench, scenario: str, command: str) -> str:
    for step in steps(scenario):
        perform(bench, step)
    words = shlex.split(command)
    arguments = build_parser(words).parse_args(words)
    source, target = ends_of(arguments)
    question = Question(
        source=source,
        target=target,
        proto=arguments.proto,
        family=arguments.family or None,
        size=arguments.size,
        dont_fragment=arguments.dont_fragment,
        reverse=arguments.reverse,
    )
    compiled = bench.engine.reconciler.compiled
    around = foreign_state_of(compiled.facts, HOST_ADDRESSES)
    trace = explain(question, bench.engine.intent, compiled, around)
    told = render.detailed if arguments.detailed else render.minimal if arguments.minimal else render.summary
    return told(trace).rstrip("\n") + "\n"


EXAMPLES = list(BLOCK.finditer(PAGE.read_text(encoding="utf-8")))


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_an_example_is_what_is_printed(number: int, bench: Bench, request: pytest.FixtureRequest) -> None:
    example = EXAMPLES[number]
    output = printed(bench, example["scenario"], example["command"])
    if request.config.getoption("--update"):
        text = PAGE.read_text(encoding="utf-8")
        block = list(BLOCK.finditer(text))[number]
        PAGE.write_text(
            text[: block.start("output")] + output + text[block.end("output") :], encoding="utf-8"
        )
    else:
        assert example["output"] == output


def test_no_block_is_overlooked() -> None:
    text = PAGE.read_text(encoding="utf-8")
    # Those of `trace` take a kernel (tests/kernel/test_trace_page.py), and one takes kube-proxy's rules.
    elsewhere = text.count("<!-- trace: ") + text.count("<!-- kube-proxy: ")
    assert len(EXAMPLES) == text.count("```console") - elsewhere >= 8
    assert {example["scenario"] for example in EXAMPLES} <= set(SCENARIOS)
