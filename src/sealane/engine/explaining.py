"""`explain`: what should become of a packet, from what is desired and what is around it. Asks, and changes nothing."""

import msgspec

from sealane.engine.engine import Engine
from sealane.engine.errors import InvalidError
from sealane.explain.netfilter import UnknownStatementError
from sealane.explain.packet import Trace
from sealane.explain.question import Question, QuestionError, explain
from sealane.explain.render import detailed, minimal, summary
from sealane.explain.walk import UnexplainedError
from sealane.explain.world import IncompleteStateError
from sealane.wire import ExplainRequest, ExplainView


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
        raise InvalidError(str(error), field="target") from error
    except (UnexplainedError, UnknownStatementError, IncompleteStateError) as error:
        raise InvalidError(f"it cannot be said: {error}") from error
    return _view(trace)


def _view(trace: Trace) -> ExplainView:
    return ExplainView(
        passes=trace.passes,
        disposition=str(trace.disposition),
        minimal=minimal(trace),
        summary=summary(trace),
        detailed=detailed(trace),
        trace=msgspec.Raw(msgspec.json.encode(trace)),
    )
