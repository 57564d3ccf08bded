"""`trace`: which packets to follow and what should become of them, prepared at one instant; and what became of them."""

from collections.abc import Callable, Iterator, Mapping

import msgspec

from sealane.engine.engine import Engine
from sealane.engine.errors import InvalidError
from sealane.engine.explaining import drift_of
from sealane.explain.checking import Observation, Probe
from sealane.explain.packet import CLIENT_PORT, Packet, Sent, Start, Trace
from sealane.explain.question import PREDICTION_ERRORS, Question, QuestionError, resolve, world_of
from sealane.explain.traced.event import Pattern
from sealane.explain.traced.observed_path import ObservedPath
from sealane.explain.traced.render import detailed, minimal, summary
from sealane.explain.traced.result import TraceReporter, TraceResult
from sealane.explain.traced.signature import signature_of
from sealane.explain.walk import answer, walk
from sealane.kernel.state import HOST
from sealane.model.endpoint import NetnsRef
from sealane.model.intent import Intent
from sealane.wire.diagnosis import TraceRequest, TraceView

COUNT_MAX = 1000
TIMEOUT_MAX_S = 3600.0
PROBE_TIMEOUT_MAX_S = 5.0


class Tracing:
    """A snapshot, as `Check`: may be used by another thread."""

    def __init__(self, engine: Engine, request: TraceRequest, host_inode: int) -> None:
        """Raises InvalidError."""
        self.request = request
        self._check_bounds(request)
        intent = engine.intent
        self._world = world_of(intent, engine.reconciler.compiled, engine.kernel.foreign_state(), copied=True)
        try:
            start, self._predicted = self._predict(intent)
        except QuestionError as error:
            raise InvalidError(str(error), field=error.field) from error
        except PREDICTION_ERRORS as error:
            raise InvalidError(f"it cannot be said what should become of it: {error}") from error
        if request.mode == "inject" and not isinstance(start, Sent):
            raise InvalidError(
                f"no packet can be sent from {request.source}: it is not of this host",
                field="source",
                hint="wait for one with --live",
            )
        self.patterns = [_pattern(trace.sent) for trace in self._predicted]
        self.probe = self._probe(self._predicted[0], start.netns)
        refs: dict[str, NetnsRef] = {
            key: found.netns for key, found in intent.sandboxes.items() if found.netns is not None
        }
        self.probe_refs: Mapping[str, NetnsRef] = refs
        passed = dict.fromkeys(hop.netns for trace in self._predicted for hop in trace.hops)
        self.refs = {self._world.namespace(netns).name: refs[netns] for netns in passed if netns in refs}
        self._places = {host_inode: HOST, **{ref.inode: netns for netns, ref in refs.items()}}
        self._sender = next((inode for inode, netns in self._places.items() if netns == start.netns), 0)
        self.signature = None
        if self.probe is not None:
            self.signature = signature_of(self._world, self._predicted[0], self._places)

    def _predict(self, intent: Intent) -> tuple[Start, list[Trace]]:
        """Where it begins; what should become of it and, if that is asked for, of the answer. Raises PREDICTION_ERRORS."""
        request = self.request
        question = Question(
            source=request.source,
            target=request.target,
            proto=request.proto,
            family=request.family or None,
        )
        packet, start = resolve(question, intent, self._world)
        there = msgspec.structs.replace(walk(self._world, packet, start), question=str(question))
        if not (request.reverse and there.passes):
            return start, [there]
        back = walk(self._world, *answer(there), there.flows)
        return start, [there, msgspec.structs.replace(back, question=f"answer to {question}")]

    @staticmethod
    def _check_bounds(request: TraceRequest) -> None:
        if not 1 <= request.count <= COUNT_MAX:
            raise InvalidError(f"{request.count} is not between 1 and {COUNT_MAX}", field="count")
        most = PROBE_TIMEOUT_MAX_S if request.mode == "inject" else TIMEOUT_MAX_S
        if not 0 < request.timeout <= most:
            raise InvalidError(f"{request.timeout:g} is not between 0 and {most:g} s", field="timeout")

    def _probe(self, there: Trace, netns: str) -> Probe | None:
        if self.request.mode != "inject" or self.request.proto == "sctp":
            return None
        request = there.packet
        return Probe(
            row=0,
            column=0,
            netns=netns,
            target_netns=there.netns,
            source=request.source,
            proto=self.request.proto,
            address=request.destination,
            port=request.destination_port if self.request.proto != "icmp" else 0,
        )

    def view(self, observed_path: ObservedPath, symbol: Callable[[int], str]) -> TraceView | None:
        """None: it is not to be told. What vanishes does not count as dropped: under load that may be a trace event lost."""
        if self.request.mode == "dropped" and observed_path.last.point != "drop":
            return None
        if not self._is_ours(observed_path):
            return None
        flow = observed_path.first.headers.flow
        number = next((n for n, pattern in enumerate(self.patterns) if pattern.fits(flow)), 0)
        predicted = self._predicted[number]
        account = TraceReporter(self._world, self._places, symbol).account(observed_path, predicted)
        if self.request.mode == "dropped" and account.passes:
            return None
        return _view(account, predicted)

    def with_drift(self, engine: Engine, view: TraceView) -> TraceView:
        """The last view with what is not in the kernel as it should be on the way: where a packet was not seen, or went
        otherwise than predicted, that is the first suspect."""
        drift = [
            f"in the kernel now: {found}" for trace in self._predicted for found in drift_of(engine, trace)
        ]
        return msgspec.structs.replace(view, notes=[*view.notes, *dict.fromkeys(drift)])

    def _is_ours(self, observed_path: ObservedPath) -> bool:
        """Others on the machine may have the same addresses, and who has none is known by where it sends."""
        if not self._predicted[0].sent.source:
            return observed_path.first.netns in {0, self._sender}
        passed = {trace_event.netns for trace_event in observed_path.trace_events} - {0}
        return not passed or not passed.isdisjoint(self._places)

    def end(self, told: int, lost: int, blind: list[str], observed: Observation | None) -> TraceView:
        """The last of all: what was not seen, and what the sender heard."""
        notes = [f"not seen: {what}" for what in blind]
        if lost:
            notes.append(f"{lost} sightings were lost: there was more traffic than could be read")
        if observed is not None:
            # Without what it usually means: a refusal may be a rule's as well.
            heard = observed.text.partition(":")[0] if observed.reached else observed.text
            notes.append(f"sender's result: {heard}")
        if not told:
            what = "was dropped" if self.request.mode == "dropped" else "was seen"
            patterns = " or ".join(str(pattern) for pattern in self.patterns)
            notes.insert(0, f"no packet {what} that is {patterns}")
        predicted = self._predicted[0]
        if not told and not predicted.passes:
            notes.append(f"predicted: {predicted.reason}")
        return TraceView(kind="end", notes=notes)


def _pattern(sent: Packet) -> Pattern:
    """As it leaves its socket. The sender's port is not known yet; that of an answer is."""
    is_asker = sent.source_port == CLIENT_PORT
    answers = sent.destination_port == CLIENT_PORT
    return Pattern(
        proto=sent.proto,
        family=sent.family,
        source=sent.source,
        source_port=0 if is_asker else sent.source_port,
        destination=sent.destination,
        destination_port=0 if answers else sent.destination_port,
    )


def _view(account: TraceResult, predicted: Trace) -> TraceView:
    return TraceView(
        kind="path",
        passes=account.passes,
        agrees=account.agrees,
        outcome=str(account.outcome),
        minimal=minimal(account),
        summary=summary(account),
        detailed=detailed(account, predicted),
        observed=msgspec.Raw(msgspec.json.encode(account)),
        predicted=msgspec.Raw(msgspec.json.encode(predicted)),
    )


def views(
    tracing: Tracing, observed_paths: Iterator[ObservedPath], symbol: Callable[[int], str]
) -> Iterator[TraceView]:
    """Of those that are to be told."""
    return (
        view for observed_path in observed_paths if (view := tracing.view(observed_path, symbol)) is not None
    )
