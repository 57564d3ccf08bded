"""A journey told in the words of a trace, and held against the trace that was predicted."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import cast

import msgspec

from sealane.compile.reads import Unit
from sealane.explain.packet import Disposition, Hop, Step, Trace, Tuple
from sealane.explain.reasons import DENIED, Reason, reason_of
from sealane.explain.seen.journey import Journey
from sealane.explain.seen.kernel_reasons import LISTENERLESS, told
from sealane.explain.seen.sighting import RuleSighting, Sighting
from sealane.explain.world import World
from sealane.kernel.nft import TABLE, Chain, NftFamily, Rule
from sealane.kernel.state import HOST
from sealane.kernel.text_nft import rule as rule_text

_REMADE = {
    "inet_frag_reasm_prepare": "put together with its other fragments",
    "ip_do_fragment": "cut into fragments",
    "ip6_fragment": "cut into fragments",
}
"""Where the kernel frees a packet that it has made another of."""


class Outcome(StrEnum):
    DELIVERED = "delivered"
    EXITS = "exits"
    """By a link that is not ours."""
    DROPPED = "dropped"
    CONTINUES = "continues"
    """As another packet: its fragments were put together, or it was cut into some."""
    VANISHED = "vanished"
    """It was seen somewhere, and then no more; no drop was told."""


_PASSING = frozenset({Outcome.DELIVERED, Outcome.EXITS, Outcome.CONTINUES})


class Account(msgspec.Struct, frozen=True, kw_only=True):
    question: str
    flow: Tuple
    """As it was first seen."""
    hops: tuple[Hop, ...]
    outcome: Outcome
    where: str
    """The namespace where it ended, as people call it."""
    link: str
    """By which link it was last seen there."""
    reason: str
    cure: str = ""
    microseconds: float
    """From the first sighting to the last."""
    agrees: bool | None
    """Whether that is what was predicted; None: nothing was."""
    missing: tuple[str, ...] = ()
    """Namespaces that it should have come to and did not."""
    unexpected: tuple[str, ...] = ()
    """Namespaces that it should not have come to."""

    @property
    def passes(self) -> bool:
        return self.outcome in _PASSING


class Teller:
    """`places` finds namespaces by inode; `symbol` names the kernel's code at an address, empty if it cannot."""

    def __init__(
        self,
        world: World,
        places: Mapping[int, str],
        symbol: Callable[[int], str] = lambda _: "",
    ) -> None:
        self._world, self._places, self._symbol = world, places, symbol

    def account(self, journey: Journey, predicted: Trace) -> Account:
        journey = self._within(journey)
        hops = tuple(self._hops(journey))
        netns = self._netns(journey.last)
        outcome, reason, cure = self._ending(journey, predicted)
        should, did = [hop.netns for hop in predicted.hops], [hop.netns for hop in hops]
        ends = should if outcome == Outcome.CONTINUES else should[-1:]
        agrees = None
        if not predicted.is_unknown:
            agrees = predicted.passes == (outcome in _PASSING) and netns in (ends or [netns])
        if agrees is False and not cure:
            cure = _SEE_DRIFT
        elif agrees and not cure:
            cure = predicted.cure
        return Account(
            question=predicted.question or str(predicted.packet),
            flow=journey.first.headers.flow,
            hops=hops,
            outcome=outcome,
            where=self._name(netns),
            link=journey.last.link,
            reason=reason,
            cure=cure,
            microseconds=(journey.last.time_ns - journey.first.time_ns) / 1000,
            agrees=agrees,
            missing=tuple(self._name(n) for n in _left_out(should, did)),
            unexpected=tuple(self._name(n) for n in _left_out(did, should)) if agrees is not None else (),
        )

    def _within(self, journey: Journey) -> Journey:
        """Without what is before and behind our namespaces: somebody else's on the same machine."""
        sightings = tuple(_placed(journey.sightings))
        known = [n for n, sighting in enumerate(sightings) if sighting.netns in self._places]
        if not known:
            return journey
        return msgspec.structs.replace(journey, sightings=sightings[known[0] : known[-1] + 1])

    # --- hops and steps ---------------------------------------------------------------------------------------------

    def _hops(self, journey: Journey) -> Iterator[Hop]:
        rules = {netns: _Rules(found) for netns, found in _by_netns(journey.rules).items()}
        netns, steps, before = "", list[Step](), None
        for sighting in journey.sightings:
            here = self._netns(sighting)
            if here != netns:
                if steps:
                    yield self._hop(netns, steps, before, rules)
                netns, steps = here, []
            steps += self._steps(sighting, before, rules.get(sighting.netns, _Rules(())))
            before = sighting
        yield self._hop(netns, steps, before, rules)

    def _hop(
        self, netns: str, steps: Sequence[Step], last: Sighting | None, rules: "Mapping[int, _Rules]"
    ) -> Hop:
        left = rules.get(last.netns if last else 0, _Rules(()))
        rest = [self._rule_step(rule) for rule in left.rest()]
        return Hop(netns=netns, name=self._name(netns), steps=(*steps, *rest))

    def _steps(self, now: Sighting, before: Sighting | None, rules: "_Rules") -> Iterator[Step]:
        is_repeated = before is not None and now.point == "transmit" and before.point == "queue"
        if now.point == "receive":
            yield Step(kind="link", text=f"in by {now.link}", object=("link", now.link))
            yield from map(self._rule_step, rules.coming_in(now.ifindex))
            return
        if now.point in {"queue", "transmit"}:
            yield from map(self._rule_step, rules.going_out(now.ifindex))
        else:
            yield from map(self._rule_step, rules.rest())
        yield from _translation(before, now)
        if now.point == "drop":
            mark = "no socket" if now.reason in LISTENERLESS else f"✗ {now.reason}"
            yield Step(kind="end", text=mark, detail=self._symbol(now.location))
        elif now.point == "consume":
            yield Step(kind="end", text="taken", detail=self._symbol(now.location))
        elif not is_repeated or (before is not None and before.link != now.link):
            yield Step(kind="link", text=f"out by {now.link}", object=("link", now.link))

    def _rule_step(self, sighting: RuleSighting) -> Step:
        rule = self._our_rule(sighting)
        origin = self._origin(sighting)
        where = f"{sighting.family} {sighting.chain}"
        if sighting.table != TABLE:
            where = f"{sighting.family} {sighting.table} {sighting.chain}"
        said = "" if rule is not None or not sighting.comment else f" ({sighting.comment})"
        return Step(
            kind="rule",
            text=f"{where}: {sighting.verdict}{said}",
            detail=_detail(sighting, rule),
            why=rule.comment if rule is not None else "",
            object=("nft-chain", sighting.family, sighting.chain) if sighting.table == TABLE else None,
            origin=origin,
            origin_name=self._world.title(origin) if origin else "",
        )

    def _our_rule(self, sighting: RuleSighting) -> Rule | None:
        if sighting.table != TABLE or not sighting.handle:
            return None
        state = self._world.states.get(self._places.get(sighting.netns, ""), {})
        chain = state.get(("nft-chain", sighting.family, sighting.chain))
        tag = sighting.comment.partition(" ")[0]
        rules = chain.rules if isinstance(chain, Chain) else ()
        return next((rule for rule in rules if rule.tag() == tag), None)

    def _origin(self, sighting: RuleSighting) -> Unit | None:
        if sighting.table != TABLE:
            return None
        netns = self._places.get(sighting.netns, "")
        return self._world.origin(netns, ("nft-chain", sighting.family, sighting.chain))

    # --- the end ----------------------------------------------------------------------------------------------------

    def _ending(self, journey: Journey, predicted: Trace) -> tuple[Outcome, str, str]:
        last, flow = journey.last, journey.last.headers.flow
        netns = self._netns(last)
        where = self._name(netns)
        if last.point == "drop" and last.reason not in LISTENERLESS:
            return Outcome.DROPPED, *self._drop(journey)
        if last.point == "drop":
            nobody = (
                "" if flow.proto == "icmp" else f": nobody listens on {flow.destination_port}/{flow.proto}"
            )
            cure = "" if flow.proto == "icmp" else "start the service, or let it listen on 0.0.0.0 and ::"
            return Outcome.DELIVERED, f"delivered to {where}{nobody}", cure
        came_last = [s for s in journey.sightings if s.point in {"receive", "queue", "transmit"}][-1:]
        was_received = bool(came_last) and came_last[0].point == "receive"
        remade = _REMADE.get(self._symbol(last.location))
        is_there = predicted.disposition == Disposition.DELIVERED and netns == predicted.netns
        if last.point == "consume" and remade and not is_there:
            return Outcome.CONTINUES, f"{remade} at {where}: it goes on as another packet", ""
        if was_received and (last.point == "consume" or self._has(netns, flow.destination)):
            return Outcome.DELIVERED, f"delivered to {where}", ""
        if not was_received and netns == HOST and self._is_foreign(last.link):
            return Outcome.EXITS, f"left by {last.link}", ""
        return Outcome.VANISHED, f"last seen at {where}, {_point(last)}; then no more", ""

    def _has(self, netns: str, address: str) -> bool:
        """Whether it may wait there in a socket's queue, or was taken by a way that no tracepoint tells of."""
        return netns in self._world.states and self._world.namespace(netns).is_local(address)

    def _is_foreign(self, name: str) -> bool:
        host = self._world.namespace(HOST)
        link = host.link(name)
        return link is not None and host.is_foreign(link)

    def _drop(self, journey: Journey) -> tuple[str, str]:
        last = journey.last
        rule = next((r for r in reversed(journey.rules) if r.verdict == "drop"), None)
        if rule is None or last.reason != "NETFILTER_DROP":
            text, cure = told(last.reason, self._symbol(last.location))
            return f"{text} ({last.reason})", cure
        ours = self._our_rule(rule)
        if ours is not None:
            reason = reason_of(ours)
            origin = self._origin(rule)
            return reason.text.format(where=self._world.title(origin) if origin else "sealane"), reason.cure
        foreign = _foreign(rule)
        return foreign.text, foreign.cure

    # --- names ------------------------------------------------------------------------------------------------------

    def _netns(self, sighting: Sighting) -> str:
        return self._places.get(sighting.netns, _unknown(sighting.netns))

    def _name(self, netns: str) -> str:
        return netns if netns.startswith("net:[") else self._world.namespace(netns).name


_SEE_DRIFT = "it went another way than it should: see `sealane audit` and `sealane doctor`"


class _Rules:
    """Rules of one namespace, oldest first, given out where they fit in between sightings."""

    def __init__(self, rules: Sequence[RuleSighting]) -> None:
        self._left = list(rules)

    def coming_in(self, ifindex: int) -> Iterator[RuleSighting]:
        while self._left and self._left[0].iif == ifindex:
            yield self._left.pop(0)

    def going_out(self, ifindex: int) -> Iterator[RuleSighting]:
        """All but those of a later device, through which a frame of the host's own leaves its bridge."""
        while self._left and not (self._left[0].iif == 0 and self._left[0].oif not in {0, ifindex}):
            yield self._left.pop(0)

    def rest(self) -> list[RuleSighting]:
        rest, self._left = self._left, []
        return rest


def _placed(sightings: Sequence[Sighting]) -> Iterator[Sighting]:
    """A sighting without a namespace is where the packet was before: TCP and UDP take the device off what they have
    received, and keep something else in its place (dev_scratch, rbnode: struct sk_buff)."""
    netns = 0
    for sighting in sightings:
        netns = sighting.netns or netns
        yield sighting if sighting.netns else msgspec.structs.replace(sighting, netns=netns)


def _by_netns(rules: Sequence[RuleSighting]) -> dict[int, list[RuleSighting]]:
    found: dict[int, list[RuleSighting]] = {}
    for rule in rules:
        found.setdefault(rule.netns, []).append(rule)
    return found


def _translation(before: Sighting | None, now: Sighting) -> Iterator[Step]:
    if before is None:
        return
    old, new = before.headers.flow, now.headers.flow
    for kind, changed in (
        ("destination", (old.destination, old.destination_port) != (new.destination, new.destination_port)),
        ("source", (old.source, old.source_port) != (new.source, new.source_port)),
    ):
        if changed:
            yield Step(kind="nat", text=f"{kind} translated: {_text(new)}")


def _text(flow: Tuple) -> str:
    return f"{flow.source}:{flow.source_port} → {flow.destination}:{flow.destination_port} {flow.proto}"


def _detail(sighting: RuleSighting, rule: Rule | None) -> str:
    if rule is not None:
        return f"{sighting.family} {sighting.chain}: {rule_text(cast('NftFamily', sighting.family), rule)}"
    return f"rule {sighting.handle}" if sighting.handle else "policy"


def _foreign(rule: RuleSighting) -> Reason:
    which = f"rule {rule.handle}" if rule.handle else "the policy"
    said = f" ({rule.comment})" if rule.comment else ""
    where = f"{rule.family} table {rule.table}, chain {rule.chain}"
    if rule.table == TABLE:
        return Reason(
            DENIED, f"{which}{said} of {where}, which sealane did not put there, drops it", "sealane audit"
        )
    return Reason(
        DENIED,
        f"{which}{said} of {where}, which is not sealane's, drops it",
        f"nft -a list chain {rule.family} {rule.table} {rule.chain}",
    )


def _point(sighting: Sighting) -> str:
    return f"{'come in' if sighting.point == 'receive' else 'sent'} by {sighting.link}"


def _unknown(inode: int) -> str:
    return f"net:[{inode}]"


def _left_out(of: Sequence[str], seen: Sequence[str]) -> Iterator[str]:
    return (netns for netns in dict.fromkeys(of) if netns not in seen)
