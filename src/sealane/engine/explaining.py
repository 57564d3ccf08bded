"""`explain`: what should become of a packet, from what is desired and what is around it. Asks, and changes nothing.

With `observed` the kernel is read where the packet and its answer pass, everybody's rules, routes, links and settings: the
verdict is then that of the desired state among them, and what contradicts it, or was not understood, is told beside it.
"""

from collections.abc import Sequence

import msgspec

from sealane.engine.engine import Engine
from sealane.engine.errors import InvalidError
from sealane.engine.ports import NamespaceGoneError
from sealane.engine.reconciler import told
from sealane.explain.drift import drift_on_path
from sealane.explain.graph import svg
from sealane.explain.observed.comparing import Comparison, desired
from sealane.explain.packet import Trace
from sealane.explain.question import (
    PREDICTION_ERRORS,
    Question,
    QuestionError,
    onward,
    resolve,
    there_and_back,
    verdict_of,
    world_of,
)
from sealane.explain.render import detailed, minimal, summary
from sealane.explain.world import World
from sealane.wire.diagnosis import ExplainRequest, ExplainView


class Observed(msgspec.Struct, frozen=True):
    """What the kernel has to say to a verdict."""

    drift: list[str]
    unread: list[str]


def explain_packet(engine: Engine, request: ExplainRequest) -> ExplainView:
    """Raises InvalidError for a question that names what there is not, or that cannot be answered."""
    question = Question(
        source=request.source,
        target=request.target,
        proto=request.proto,
        family=request.family or None,
        size=request.size,
        dont_fragment=request.dont_fragment,
        reverse=request.reverse,
    )
    foreign_state = engine.kernel.foreign_state()
    world = world_of(engine.intent, engine.reconciler.compiled, foreign_state)
    try:
        trace, legs = _answer(engine, question, world)
        observed = None
        if request.observed:
            trace, observed = _observe(engine, question, world, legs)
    except QuestionError as error:
        raise InvalidError(str(error), field=error.field) from error
    except PREDICTION_ERRORS as error:
        raise InvalidError(f"cannot predict: {error}") from error
    return _view(trace, observed, svg(trace) if request.graph else "")


def _answer(engine: Engine, question: Question, world: World) -> tuple[Trace, list[Trace]]:
    """The verdict, and the traces that it rests on: of the packet, of its answer, of the next packet."""
    packet, start = resolve(question, engine.intent, world)
    there, back = there_and_back(question, world, packet, start)
    legs = [there]
    if back is not None:
        legs.append(back)
        if back.passes:
            legs.append(onward(world, there, back, start))
    return verdict_of(question, *legs), legs


def _observe(
    engine: Engine, question: Question, world: World, legs: Sequence[Trace]
) -> tuple[Trace, Observed]:
    refs = engine.reconciler.refs(desired(legs))
    readings = engine.kernel.read_path(desired(legs), {n: ref for n, ref in refs.items() if ref is not None})
    rules = {netns: reading.rules for netns, reading in readings.items()}
    among = World(
        world.states,
        world.foreign_state,
        origins=world.origins,
        title=world.title,
        idle=world.idle,
        rules=rules,
    )
    trace, again = _answer(engine, question, among)
    comparison = Comparison(among, again, readings)
    drift = dict.fromkeys(text for leg in again for text in drift_of(engine, leg))
    return trace, Observed([*drift, *comparison.findings()], comparison.unread())


def drift_of(engine: Engine, trace: Trace) -> list[str]:
    """What on the packet's path is not as it should be. Reads the namespaces that it passes, and no others."""
    reconciler = engine.reconciler
    desired = reconciler.compiled.desired
    passed = dict.fromkeys(hop.netns for hop in trace.hops)
    refs = reconciler.refs(passed)
    observed, findings = {}, []
    for netns in passed:
        try:
            observed[netns] = engine.kernel.observe(netns, refs.get(netns), desired.get(netns, {}))
        except (NamespaceGoneError, OSError) as error:
            findings.append(f"{engine.place(netns)}: {error or 'its namespace is gone'}")
    findings += [
        f"{engine.place(difference.netns)}: {told(difference)}"
        for difference in drift_on_path(trace, desired, observed)
    ]
    return findings


def _view(trace: Trace, observed: Observed | None, graph: str) -> ExplainView:
    outcome = "passes" if trace.passes else "unknown" if trace.is_unknown else "fails"
    if trace.passes and observed and (observed.drift or observed.unread):
        outcome = "unknown"
    return ExplainView(
        passes=trace.passes,
        outcome=outcome,  # type: ignore[arg-type]
        disposition=str(trace.disposition),
        minimal=minimal(trace),
        summary=summary(trace),
        detailed=detailed(trace),
        graph=graph,
        drift=observed.drift if observed else None,
        unread=observed.unread if observed else None,
        trace=msgspec.Raw(msgspec.json.encode(trace)),
    )
