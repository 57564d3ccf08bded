"""`check`: what is to be probed and what that must give, prepared at one instant; and the answer, once it was tried."""

from collections.abc import Iterator, Mapping, Sequence

from sealane.engine.engine import Engine
from sealane.engine.errors import InvalidError
from sealane.explain.checking import (
    Observation,
    Prediction,
    Probe,
    Schedule,
    agrees,
    matrix,
    predict,
    schedule,
)
from sealane.explain.question import QuestionError, world_of
from sealane.model.endpoint import NetnsRef
from sealane.wire.diagnosis import CheckFinding, CheckRequest, CheckView

FINDINGS_MAX = 1000
"""Told one by one; all are counted."""

TIMEOUT_MAX_S = 5.0
PORT_MAX = 65535


class Check:
    """A snapshot: what becomes of the engine meanwhile does not change it, so it may be used by another thread."""

    def __init__(self, engine: Engine, request: CheckRequest) -> None:
        """Raises InvalidError."""
        if not 0 < request.timeout <= TIMEOUT_MAX_S:
            raise InvalidError(
                f"{request.timeout:g} is not between 0 and {TIMEOUT_MAX_S:g} s", field="timeout"
            )
        if not 0 <= request.port <= PORT_MAX:
            raise InvalidError(f"{request.port} is not a port", field="port")
        intent = engine.intent
        try:
            self.schedule: Schedule = schedule(
                intent, request.source, request.target, request.proto, request.port
            )
        except QuestionError as error:
            raise InvalidError(str(error), field=error.field) from error
        self.timeout_s = request.timeout
        self.refs: Mapping[str, NetnsRef] = {
            key: sandbox.netns for key, sandbox in intent.sandboxes.items() if sandbox.netns is not None
        }
        self._world = world_of(intent, engine.reconciler.compiled, engine.kernel.foreign_state(), copied=True)

    def predictions(self) -> Iterator[Prediction]:
        return (predict(self._world, probe) for probe in self.schedule.probes)

    def view(self, predictions: Sequence[Prediction], observations: Sequence[Observation]) -> CheckView:
        plan = self.schedule
        tried = list(zip(plan.probes, predictions, observations, strict=True))
        verdicts = [agrees(predicted, observed) for _, predicted, observed in tried]
        worth_telling = [t for t, verdict in zip(tried, verdicts, strict=True) if verdict is False]
        worth_telling += [t for t, verdict in zip(tried, verdicts, strict=True) if verdict is None]
        return CheckView(
            rows=list(plan.rows),
            columns=list(plan.columns),
            matrix=matrix(plan, predictions, observations),
            pairs=len({(probe.row, probe.column) for probe in plan.probes}),
            agree=verdicts.count(True),
            disagree=verdicts.count(False),
            unknown=verdicts.count(None),
            findings=[_finding(plan, *one) for one in worth_telling[:FINDINGS_MAX]],
        )


def _finding(plan: Schedule, probe: Probe, predicted: Prediction, observed: Observation) -> CheckFinding:
    return CheckFinding(
        source=plan.rows[probe.row],
        target=plan.columns[probe.column],
        probe=probe.target,
        predicted=predicted.reaches,
        reason=predicted.reason,
        observed=observed.reached,
        observation=observed.text,
        agrees=agrees(predicted, observed),
    )
