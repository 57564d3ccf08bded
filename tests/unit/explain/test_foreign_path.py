"""Foreign rules on a packet's path: where they drop, where they translate, and what stays in doubt."""

import msgspec
import pytest

from sealane.explain.foreign.rules import (
    Constant,
    Decide,
    ForeignChain,
    ForeignHook,
    ForeignRule,
    ForeignRules,
    ForeignTable,
    Maybe,
    Opaque,
    Operation,
    SetMark,
    Translate,
)
from sealane.explain.packet import Disposition, Trace
from sealane.explain.question import Question, explain
from unit.explain.worlds import HOST_ADDRESS, OUTSIDE, Town

API = "10.1.0.11"
ELSEWHERE = (Constant(0, bytes([10, 2, 0, 12])), Translate("destination", 0))


def rules(hook: str, kind: str, priority: int, *operations: Operation) -> ForeignRules:
    chain = ForeignChain(
        name="c", rules=(ForeignRule(operations, 4, "a word"),), hook=ForeignHook(kind, hook, priority)
    )
    return ForeignRules((ForeignTable(family="ip", name="theirs", chains={"c": chain}),))


def ask(found: ForeignRules, source: str, target: str, **fields: object) -> Trace:
    town = Town(rules=found)
    return explain(
        Question(source=source, target=target, **fields),  # type: ignore[arg-type]
        town.intent,
        town.compiled,
        town.foreign_state,
    )


@pytest.mark.parametrize(
    ("source", "target", "hook"),
    [
        ("web", "10.2.0.12:80", "prerouting"),
        (OUTSIDE[4], ":80", "prerouting"),
        ("host", f"{API}:80", "output"),
    ],
)
def test_a_destination_that_is_translated_has_no_verdict(source: str, target: str, hook: str) -> None:
    trace = ask(rules(hook, "nat", -100, *ELSEWHERE), source, target)
    assert (trace.disposition, trace.passes, trace.is_unknown) == (Disposition.TRANSLATED, False, True)
    assert (
        "its destination is translated to 10.2.0.12 by rule 4 (a word) of ip table theirs, chain c"
        in trace.reason
    )
    assert "sealane trace" in trace.hint


def test_one_that_may_be_translated_has_none_either() -> None:
    trace = ask(rules("prerouting", "nat", -100, Maybe("limit"), *ELSEWHERE), OUTSIDE[4], ":80")
    assert trace.disposition is Disposition.TRANSLATED
    assert "may be translated" in trace.reason


def test_what_was_published_is_translated_once() -> None:
    """The kernel asks no further chain once one has decided; with one priority, which comes first is not known."""
    later, same = (rules("prerouting", "nat", priority, *ELSEWHERE) for priority in (-50, -100))
    assert ask(later, OUTSIDE[4], ":8080").disposition is Disposition.DELIVERED
    assert ask(same, OUTSIDE[4], ":8080").disposition is Disposition.TRANSLATED


def test_an_answer_is_not_translated_anew() -> None:
    trace = ask(rules("prerouting", "nat", -100, *ELSEWHERE), "host", f"{API}:80")
    assert trace.disposition is Disposition.DELIVERED


def test_a_packet_on_a_bridge_does_not_meet_the_hosts_translations() -> None:
    assert ask(rules("prerouting", "nat", -100, *ELSEWHERE), "web", f"{API}:80").passes


def test_a_translated_source_leaves_the_verdict() -> None:
    trace = ask(rules("postrouting", "nat", 90, Translate("source")), "web", f"{OUTSIDE[4]}:80")
    assert trace.disposition is Disposition.EXITS
    assert any("its source may be translated" in step.text for hop in trace.hops for step in hop.steps)


def test_a_rule_that_drops_ends_it_and_is_named() -> None:
    trace = ask(rules("forward", "filter", 0, Decide("drop")), "web", f"{OUTSIDE[4]}:80")
    assert trace.disposition is Disposition.DENIED
    assert trace.reason == "rule 4 (a word) of ip table theirs, chain c, which is not sealane's, drops it"
    assert trace.hint == "nft -a list chain ip theirs c"


def test_an_answer_that_is_dropped_is_told_of_the_question() -> None:
    """New at `output`, established on the way back at `prerouting`: only the answer comes there."""
    trace = ask(rules("input", "filter", 0, Decide("drop")), "host", f"{API}:80")
    assert (trace.disposition, trace.passes) == (Disposition.UNANSWERED, False)
    assert "its answer is lost: rule 4 (a word) of ip table theirs" in trace.reason
    assert trace.question == f"host -> {API}:80 tcp"
    back = ask(rules("input", "filter", 0, Decide("drop")), "host", f"{API}:80", reverse=True)
    assert back.disposition is Disposition.DENIED


@pytest.mark.parametrize("operations", [(Opaque("queue"),), (Maybe("limit"), Decide("drop")), (SetMark(3),)])
def test_doubt_is_no_verdict(operations: tuple[Operation, ...]) -> None:
    trace = ask(rules("forward", "filter", 0, *operations), "web", f"{OUTSIDE[4]}:80")
    assert trace.disposition is Disposition.EXITS


def test_a_host_without_foreign_rules_is_explained_as_before() -> None:
    empty = ask(ForeignRules(), OUTSIDE[4], f"{HOST_ADDRESS[4]}:8080")
    assert msgspec.json.encode(empty) == msgspec.json.encode(
        ask(ForeignRules(()), OUTSIDE[4], f"{HOST_ADDRESS[4]}:8080")
    )
