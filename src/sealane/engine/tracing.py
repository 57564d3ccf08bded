"""`trace`: which packets to follow and what should become of them, prepared at one instant; and what became of them."""

from collections.abc import Callable, Iterator, Mapping

import msgspec

from sealane.engine.engine import Engine
from sealane.engine.errors import InvalidError
from sealane.engine.explaining import drift_of
from sealane.explain.checking import Observation, Probe
from sealane.explain.packet import CLIENT_PORT, Packet, Sent, Start, Trace
from sealane.explain.question import CANNOT_SAY, Question, QuestionError, resolve, world_of
from sealane.explain.seen.account import Account, Teller
from sealane.explain.seen.journey import Journey
from sealane.explain.seen.render import detailed, minimal, summary
from sealane.explain.seen.scout import scout_of
from sealane.explain.seen.sighting import Pattern
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
        self._world = world_of(intent, engine.reconciler.compiled, engine.kernel.surroundings(), copied=True)
        try:
            start, self._predicted = self._predict(intent)
        except QuestionError as error:
            raise InvalidError(str(error), field=error.field) from error
        except CANNOT_SAY as error:
            raise InvalidError(f"it cannot be said what should become of it: {error}") from error
        if request.mode == "inject" and not isinstance(start, Sent):
            raise InvalidError(
                f"no packet can be sent from {request.source}: it is not of this host",
                field="source",
                cure="wait for one with --live",
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
        self.scout = None
        if self.probe is not None:
            self.scout = scout_of(self._world, self._predicted[0], self._places)

    def _predict(self, intent: Intent) -> tuple[Start, list[Trace]]:
        """Where it begins; what should become of it and, if that is asked for, of the answer. Raises CANNOT_SAY."""
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
        asked = there.packet
        return Probe(
            row=0,
            column=0,
            netns=netns,
            target_netns=there.netns,
            source=asked.source,
            proto=self.request.proto,
            address=asked.destination,
            port=asked.destination_port if self.request.proto != "icmp" else 0,
        )

    def view(self, journey: Journey, symbol: Callable[[int], str]) -> TraceView | None:
        """None: it is not to be told. What vanishes does not count as dropped: under load that may be a sighting lost."""
        if self.request.mode == "dropped" and journey.last.point != "drop":
            return None
        if not self._is_ours(journey):
            return None
        flow = journey.first.headers.flow
        number = next((n for n, pattern in enumerate(self.patterns) if pattern.fits(flow)), 0)
        predicted = self._predicted[number]
        account = Teller(self._world, self._places, symbol).account(journey, predicted)
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

    def _is_ours(self, journey: Journey) -> bool:
        """Others on the machine may have the same addresses, and who has none is known by where it sends."""
        if not self._predicted[0].sent.source:
            return journey.first.netns in {0, self._sender}
        passed = {sighting.netns for sighting in journey.sightings} - {0}
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


def _view(account: Account, predicted: Trace) -> TraceView:
    return TraceView(
        kind="journey",
        passes=account.passes,
        agrees=account.agrees,
        outcome=str(account.outcome),
        minimal=minimal(account),
        summary=summary(account),
        detailed=detailed(account, predicted),
        observed=msgspec.Raw(msgspec.json.encode(account)),
        predicted=msgspec.Raw(msgspec.json.encode(predicted)),
    )


def views(tracing: Tracing, journeys: Iterator[Journey], symbol: Callable[[int], str]) -> Iterator[TraceView]:
    """Of those that are to be told."""
    return (view for journey in journeys if (view := tracing.view(journey, symbol)) is not None)
