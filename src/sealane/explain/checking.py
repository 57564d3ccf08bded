"""`check`: which packets to send, what should become of each, and whether what was seen agrees.

A probe asks for an answer, so it is predicted to reach its target if both it and the answer pass. Pure: who sends is
`sealane.linux.probe`.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

import msgspec

from sealane.explain.packet import CLIENT_PORT, Packet, Sent, Trace
from sealane.explain.question import LOOPBACK, PREDICTION_ERRORS, QuestionError, about, meaning_of
from sealane.explain.walk import answer, is_answered, walk
from sealane.explain.world import World
from sealane.kernel.state import HOST
from sealane.model.endpoint import Endpoint, PublishedPort
from sealane.model.ids import NetworkId
from sealane.model.intent import Intent
from sealane.model.net import FAMILIES, address_part, family_of, is_wildcard

ProbeProto = Literal["tcp", "udp", "icmp"]

PAIRS_MAX = 10_000
PROBES_MAX = 4 * PAIRS_MAX
"""A pair has a probe for each address of the target."""

CLOSED_PORT = 9
"""Discard (RFC 863): hardly anybody listens, and a refusal is an answer too."""


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """One packet that asks for an answer. `row` and `column` are its pair's place in the matrix."""

    row: int
    column: int
    netns: str
    """Sandbox id, or HOST."""
    target_netns: str
    source: str = ""
    """Empty: the kernel chooses."""
    proto: ProbeProto
    address: str
    port: int = 0
    is_on_link: bool = True
    """The sender asks for the target's own MAC, and not for its gateway's."""

    @property
    def target(self) -> str:
        if self.proto == "icmp":
            return f"{self.address} icmp"
        shown = f"[{self.address}]" if ":" in self.address else self.address
        return f"{shown}:{self.port}/{self.proto}"


class Prediction(NamedTuple):
    reaches: bool | None
    """None: it cannot be said."""
    reason: str


class Observation(NamedTuple):
    reached: bool | None
    """None: it cannot be said. A datagram's silence is no proof: whoever listens need not answer."""
    text: str
    is_silence: bool = False
    """Nothing came back."""


class CheckPeer(NamedTuple):
    """A row or a column."""

    name: str
    netns: str
    endpoints: tuple[Endpoint, ...] = ()
    is_bound: bool = False
    """Named with its network: sends from that endpoint's addresses."""

    def source(self, address: str) -> str:
        return (self.endpoints[0].address(family_of(address)) or "") if self.is_bound else ""


class Schedule(NamedTuple):
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    probes: tuple[Probe, ...]


def schedule(intent: Intent, source: str, target: str, proto: ProbeProto, port: int) -> Schedule:
    """The probes between two parties; an empty word stands for everybody. `port` 0: one that the target publishes,
    else CLOSED_PORT. Raises QuestionError."""
    everybody = _everybody(intent) if not (source and target) else ()
    with about("source"):
        rows = (_party(source, intent),) if source else (CheckPeer(HOST, HOST), *everybody)
    with about("target"):
        if target == HOST:
            raise QuestionError(
                f"target {target!r}: what the host publishes is checked by `sealane check host`"
            )
        columns = (_party(target, intent),) if target else everybody
    pairs = [(r, c) for r, row in enumerate(rows) for c, column in enumerate(columns) if _differ(row, column)]
    on_links = [_on_link(row, intent) for row in rows]
    if len(pairs) > PAIRS_MAX:
        raise QuestionError(f"{len(pairs)} pairs are more than {PAIRS_MAX}: name a source or a target")
    probes = tuple(
        Probe(
            row=r,
            column=c,
            netns=rows[r].netns,
            target_netns=columns[c].netns,
            source=rows[r].source(address),
            proto=proto,
            address=address,
            port=number,
            is_on_link=network in on_links[r],
        )
        for r, c in pairs
        for network, address, number in _destinations(rows[r], columns[c], proto, port)
    )
    if len(probes) > PROBES_MAX:
        raise QuestionError(f"{len(probes)} probes are more than {PROBES_MAX}: name a source or a target")
    if source and target and not probes:
        raise QuestionError(f"there is nothing to send from {source!r} to {target!r} by {proto}")
    return Schedule(tuple(p.name for p in rows), tuple(p.name for p in columns), probes)


def _differ(row: CheckPeer, column: CheckPeer) -> bool:
    return row.netns != column.netns or row.is_bound or column.is_bound


def _everybody(intent: Intent) -> tuple[CheckPeer, ...]:
    """Sandboxes with a namespace of their own and an address, by name."""
    found = []
    for identity, endpoints in intent.endpoints_by_sandbox.items():
        sandbox = intent.sandboxes.get(identity)
        if sandbox is not None and sandbox.netns is not None and any(e.addresses for e in endpoints.values()):
            found.append(CheckPeer(sandbox.name, sandbox.id, tuple(endpoints.values())))
    return tuple(sorted(found, key=lambda party: party.name))


def _party(text: str, intent: Intent) -> CheckPeer:
    if text == HOST:
        return CheckPeer(HOST, HOST)
    found, is_bound = meaning_of(text, intent)
    sandbox = found[0].sandbox
    if sandbox is None or intent.sandboxes[sandbox].netns is None:
        raise QuestionError(f"{text!r} has no network namespace of its own")
    mine = tuple(endpoint for endpoint in found if endpoint.sandbox == sandbox)
    return CheckPeer(text, sandbox, mine, is_bound=is_bound)


def _on_link(party: CheckPeer, intent: Intent) -> frozenset[NetworkId]:
    """Networks whose members it asks for by ARP and ND."""
    networks = {endpoint.network for endpoint in party.endpoints}
    return frozenset(network for network in networks if intent.networks[network].traits.has_bridge)


def _destinations(
    row: CheckPeer, column: CheckPeer, proto: ProbeProto, port: int
) -> Iterator[tuple[NetworkId, str, int]]:
    for endpoint in column.endpoints:
        if row.netns == HOST:
            found = list(_published(endpoint, proto, port))
        else:
            number = 0 if proto == "icmp" else port or _usual_port(endpoint, proto)
            found = [(address_part(address), number) for address in endpoint.addresses]
        yield from ((endpoint.network, address, number) for address, number in found)


def _usual_port(endpoint: Endpoint, proto: ProbeProto) -> int:
    # A datagram that is taken says nothing; only a closed port answers by itself.
    return next((p.port for p in endpoint.published if p.proto == proto == "tcp"), CLOSED_PORT)


def _published(endpoint: Endpoint, proto: ProbeProto, port: int) -> Iterator[tuple[str, int]]:
    """Where the host's own processes find what is published: the first port of a range stands for it."""
    for published in endpoint.published:
        last = published.port + published.host_last - published.host_first
        if published.proto != proto or (port and not published.port <= port <= last):
            continue
        number = published.host_first + (port - published.port if port else 0)
        yield from ((address, number) for address in _host_addresses(endpoint, published))


def _host_addresses(endpoint: Endpoint, published: PublishedPort) -> Iterable[str]:
    if published.host_address is not None:
        is_one = not is_wildcard(published.host_address)
        return (published.host_address if is_one else LOOPBACK[family_of(published.host_address)],)
    return [LOOPBACK[family] for family in FAMILIES if endpoint.address(family)]


# --- prediction -----------------------------------------------------------------------------------------------------


def predict(world: World, probe: Probe) -> Prediction:
    packet = Packet(
        proto=probe.proto,
        source=probe.source,
        source_port=CLIENT_PORT,
        destination=probe.address,
        destination_port=probe.port or CLIENT_PORT,
    )
    try:
        there = walk(world, packet, Sent(probe.netns))
        if there.is_unknown:
            return Prediction(None, there.reason)
        if not there.passes:
            return Prediction(reaches=False, reason=_because(there))
        back = walk(world, *answer(there), there.flows)
    except PREDICTION_ERRORS as error:
        return Prediction(None, str(error))
    if back.is_unknown:
        return Prediction(None, back.reason)
    if not back.passes:
        return Prediction(reaches=False, reason=f"the answer is lost: {_because(back)}")
    if not is_answered(there, back):
        return Prediction(reaches=False, reason=f"the answer comes from elsewhere: {back.final}")
    return Prediction(reaches=True, reason=there.reason)


def _because(trace: Trace) -> str:
    return f"{trace.disposition}: {trace.reason}"


# --- judgement ------------------------------------------------------------------------------------------------------


def agrees(prediction: Prediction, observation: Observation) -> bool | None:
    """None: it cannot be said."""
    if prediction.reaches is None:
        return None
    if observation.reached is None:
        return True if observation.is_silence and not prediction.reaches else None
    return prediction.reaches is observation.reached


def matrix(
    plan: Schedule, predictions: Sequence[Prediction], observations: Sequence[Observation]
) -> list[str]:
    """A line a row, a character a column: `!` where a probe differs from its prediction, `?` where one says nothing,
    `✓` where an address was reached, `·` where none was, a space where nothing was sent."""
    cells = [[" "] * len(plan.columns) for _ in plan.rows]
    for probe, predicted, observed in zip(plan.probes, predictions, observations, strict=True):
        line = cells[probe.row]
        line[probe.column] = max(line[probe.column], _mark(predicted, observed), key=_RANK.index)
    return ["".join(line) for line in cells]


_RANK = " ·✓?!"


def _mark(predicted: Prediction, observed: Observation) -> str:
    match agrees(predicted, observed):
        case None:
            return "?"
        case False:
            return "!"
        case True:
            return "✓" if observed.reached else "·"
