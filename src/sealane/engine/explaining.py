"""`explain`: what should become of a packet, from what is desired and what is around it. Asks, and changes nothing."""

import msgspec

from sealane.engine.engine import Engine
from sealane.engine.errors import InvalidError
from sealane.engine.ports import NamespaceGoneError
from sealane.engine.reconciler import told
from sealane.explain.drift import drift_on_path
from sealane.explain.graph import svg
from sealane.explain.packet import Trace
from sealane.explain.question import CANNOT_SAY, Question, QuestionError, explain
from sealane.explain.render import detailed, minimal, summary
from sealane.wire.diagnosis import ExplainRequest, ExplainView


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
    surroundings = engine.kernel.surroundings()
    try:
        trace = explain(question, engine.intent, engine.reconciler.compiled, surroundings)
    except QuestionError as error:
        raise InvalidError(str(error), field=error.field) from error
    except CANNOT_SAY as error:
        raise InvalidError(f"it cannot be said: {error}") from error
    drift = drift_of(engine, trace) if request.observed else None
    return _view(trace, drift, svg(trace) if request.graph else "")


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


def _view(trace: Trace, drift: list[str] | None, graph: str) -> ExplainView:
    return ExplainView(
        passes=trace.passes,
        outcome="passes" if trace.passes else "unknown" if trace.is_unknown else "fails",
        disposition=str(trace.disposition),
        minimal=minimal(trace),
        summary=summary(trace),
        detailed=detailed(trace),
        graph=graph,
        drift=drift,
        trace=msgspec.Raw(msgspec.json.encode(trace)),
    )
