"""A packet under way: what it looks like now, what it has met, and the hooks that it passes.

`Path` is what the layers share: `bridging` and `neighbours` (frames), `walk` (IP). It ends by raising `Ended`, so that
a drop deep inside needs no thought on the way out.
"""

import contextlib
from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple, NoReturn

import msgspec

from sealane.explain.conntrack import Table, Tracked, apply_nat
from sealane.explain.foreign.judge import Judgement, judge
from sealane.explain.foreign.rules import ForeignChain, ForeignTable
from sealane.explain.foreign.sight import PacketSight
from sealane.explain.netfilter import Evaluation, Hit
from sealane.explain.packet import (
    DNAT,
    SNAT,
    Device,
    Disposition,
    Flow,
    Hop,
    Lookup,
    Met,
    Packet,
    Resolved,
    Step,
)
from sealane.explain.reasons import reason_of
from sealane.explain.routing import Found
from sealane.explain.world import AnyLink, Namespace, World
from sealane.kernel.nft import Chain, Masquerade, NftFamily, Notrack
from sealane.kernel.objects import Key

CONNTRACK_PRIORITY, CONFIRM_PRIORITY = -200, 1 << 31
"""NF_IP_PRI_CONNTRACK, NF_IP_PRI_CONNTRACK_CONFIRM (linux/netfilter_ipv4.h)."""

NAT_PRIORITY = {"prerouting": -100, "output": -100, "postrouting": 100, "input": 100}
MANIPS = {"prerouting": DNAT, "output": DNAT, "postrouting": SNAT, "input": SNAT}


TARGETS_SHOWN = 4
"""Of a translation by chance."""


class Ended(Exception):  # noqa: N818 - no error: the packet's last step.
    def __init__(self, disposition: Disposition, reason: str, hint: str) -> None:
        super().__init__(reason)
        self.disposition, self.reason, self.hint = disposition, reason, hint


class Skb:
    """The packet on its way. `tracked` and `is_untracked` are of the namespace that it is in."""

    def __init__(self, packet: Packet) -> None:
        self.packet = packet
        self.tracked: Tracked | None = None
        self.is_untracked = False
        self.mark: int | None = 0
        """None: foreign rules may have set it."""

    def change(self, **fields: object) -> None:
        self.packet = msgspec.structs.replace(self.packet, **fields)

    def scrub(self) -> None:
        """skb_scrub_packet: crossing into another namespace it loses what the old one knew of it."""
        self.tracked, self.is_untracked, self.mark = None, False, 0


class _Foreign(NamedTuple):
    table: ForeignTable
    chain: ForeignChain


class _Stage(NamedTuple):
    priority: int
    kind: str
    chain: Chain | _Foreign | None


class Path:
    def __init__(self, world: World, flows: Iterable[Flow] = ()) -> None:
        self.world = world
        self.table = Table(flows)
        self.netns = ""
        self.link = ""
        self._hops: list[tuple[str, list[Step]]] = []
        self._lookups: dict[Lookup, None] = {}
        self._devices: dict[Device, None] = {}
        self._neighbours: dict[Resolved, None] = {}
        self._bridged: dict[tuple[str, str, str], None] = {}
        self._doubts: dict[str, None] = {}
        self._stages: dict[tuple[str, str, str], list[_Stage]] = {}

    # --- what is written down ---------------------------------------------------------------------------------------

    def enter(self, where: Namespace, link: str) -> None:
        self.netns, self.link = where.netns, link
        if not self._hops or self._hops[-1][0] != where.netns:
            self._hops.append((where.netns, []))

    def note(self, kind: str, text: str, *, detail: str = "", why: str = "", key: Key | None = None) -> None:
        origin = self.world.origin(self.netns, key)
        name = self.world.title(origin) if origin else ""
        step = Step(
            kind=kind,  # type: ignore[arg-type]
            text=text,
            detail=detail,
            why=why,
            object=key,
            origin=origin,
            origin_name=name,
        )
        self._hops[-1][1].append(step)

    def hops(self) -> tuple[Hop, ...]:
        return tuple(
            Hop(netns=netns, name=self.world.namespace(netns).name, steps=tuple(steps))
            for netns, steps in self._hops
        )

    def end(self, disposition: Disposition, reason: str, hint: str = "") -> NoReturn:
        raise Ended(disposition, reason, hint)

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """What is noted meanwhile is forgotten: the question and answer of a neighbour are one step."""
        hops, netns, link = self._hops, self.netns, self.link
        self._hops = [(netns, [])]
        try:
            yield
        finally:
            self._hops, self.netns, self.link = hops, netns, link

    # --- what it rests on -------------------------------------------------------------------------------------------

    def met(self) -> Met:
        return Met(
            lookups=tuple(self._lookups),
            devices=tuple(self._devices),
            neighbours=tuple(self._neighbours),
            bridged=tuple(self._bridged),
            doubts=tuple(self._doubts),
        )

    def route(self, where: Namespace, skb: Skb, iif: str = "") -> Found:
        """Where the packet's destination leads."""
        packet = skb.packet
        found = where.route(packet.destination, packet.source)
        if iif == "lo":
            # It brings its route along (skb_dst_set in ip_queue_xmit): nothing is looked up.
            return found
        lookup = Lookup(
            netns=where.netns,
            proto=packet.proto,
            source=packet.source,
            source_port=packet.source_port,
            destination=packet.destination,
            destination_port=packet.destination_port,
            iif=iif,
            mark=skb.mark,
            size=packet.wire_size,
            kind=found.kind,
            link=found.link,
            gateway=found.gateway,
        )
        self._lookups[lookup] = None
        return found

    def resolved(self, where: Namespace, link: str, address: str, mac: str) -> None:
        self._neighbours[Resolved(where.netns, link, address, mac)] = None

    def went_up(self, where: Namespace, bridge: AnyLink) -> None:
        """A frame left a bridge for the IP layer."""
        self._bridged[where.netns, bridge.name, bridge.mac] = None

    def device(self, where: Namespace, link: str, way: Literal["in", "out"], skb: Skb) -> None:
        """A frame passes a link, and what others have put at its ends. Raises `Ended` where a rule of theirs drops it."""
        self._devices[Device(where.netns, link, way)] = None
        hook, iif, oif = ("ingress", link, "") if way == "in" else ("egress", "", link)
        for table, chain in where.rules.at("netdev", hook, link):
            self.foreign(where, table, chain, skb, iif, oif)

    # --- hooks ------------------------------------------------------------------------------------------------------

    def hook(
        self, where: Namespace, family: NftFamily, hook: str, skb: Skb, *, iif: str = "", oif: str = ""
    ) -> None:
        """All that stands at a hook, in the order of priorities. Raises `Ended` on a drop."""
        stages = self._stages.get((where.netns, family, hook))
        if stages is None:
            stages = self._stages[where.netns, family, hook] = _stages(where, family, hook)
        for stage in stages:
            match stage.kind:
                case "filter" if isinstance(stage.chain, Chain):
                    self._filter(where, family, stage.chain, skb, iif, oif)
                case "foreign" if isinstance(stage.chain, _Foreign):
                    self.foreign(where, *stage.chain, skb, iif, oif)
                case "track":
                    self._track(where, skb)
                case "nat":
                    self._nat(where, family, hook, skb, iif, oif)
                case "confirm":
                    if skb.tracked is not None:
                        self.table.confirm(skb.tracked)

    def _filter(
        self, where: Namespace, family: NftFamily, chain: Chain, skb: Skb, iif: str, oif: str
    ) -> None:
        evaluation = Evaluation(where, family, skb.packet, iif, oif, skb.tracked)
        evaluation.is_untracked = skb.is_untracked
        verdict = evaluation.run(chain)
        skb.is_untracked = evaluation.is_untracked
        self._note_hits(where, evaluation.hits)
        if verdict.code == "drop":
            self._denied(evaluation.hits[-1])

    def _note_hits(self, where: Namespace, hits: list[Hit]) -> None:
        for hit in hits:
            outcome = "untracked, accept" if Notrack() in hit.rule.statements else hit.outcome
            self.note(
                "rule",
                f"{hit.family} {hit.chain.name}: {outcome}",
                detail=hit.text(where),
                why=hit.rule.comment,
                key=hit.key,
            )

    def _denied(self, hit: Hit) -> NoReturn:
        reason = reason_of(hit.rule)
        origin = self.world.origin(self.netns, hit.chain.key)
        where = self.world.title(origin) if origin else "sealane"
        self.end(reason.disposition, reason.text.format(where=where), reason.hint)

    def _track(self, where: Namespace, skb: Skb) -> None:
        if skb.is_untracked:
            self.note("conntrack", "untracked")
            return
        if skb.tracked is not None:  # Come back by `lo`.
            return
        skb.tracked = self.table.track(where.netns, skb.packet)
        if skb.tracked is None:
            skb.is_untracked = skb.packet.about is None
            return
        direction = "reply" if skb.tracked.direction else "original"
        self.note("conntrack", f"{skb.tracked.state}, {direction} direction")

    def _nat(self, where: Namespace, family: NftFamily, hook: str, skb: Skb, iif: str, oif: str) -> None:
        """nf_nat_inet_fn: the chains decide once a flow and kind of translation; then every packet is made to fit."""
        tracked, manip = skb.tracked, MANIPS[hook]
        if tracked is None:
            return
        if manip not in tracked.decided and tracked.state in {"new", "related"}:
            for chain in _translators(where, family, hook):
                if manip in tracked.decided:
                    continue
                if isinstance(chain, _Foreign):
                    self.foreign(where, *chain, skb, iif, oif)
                    continue
                evaluation = Evaluation(where, family, skb.packet, iif, oif, tracked)
                verdict = evaluation.run(chain)
                self._note_hits(where, evaluation.hits)
                if verdict.code == "drop":
                    self._not_translated(evaluation.hits[-1], oif)
            tracked.decided.add(manip)
        before = skb.packet
        skb.packet = apply_nat(tracked, manip, before)
        if skb.packet != before:
            kind = "destination" if manip == DNAT else "source"
            self.note("nat", f"{kind} translated: {skb.packet}")

    # --- rules of others --------------------------------------------------------------------------------------------

    def foreign(
        self,
        where: Namespace,
        table: ForeignTable,
        chain: ForeignChain,
        skb: Skb,
        iif: str,
        oif: str,
    ) -> None:
        """A base chain that is not ours. Raises `Ended` where it drops for certain, or may translate the destination."""
        sight = PacketSight(where, skb.packet, iif, oif, skb.tracked).sight(skb.mark)
        found = judge(table, chain, sight)
        if found.is_certain_drop:
            finding = next(iter(found.drops))
            self.note("rule", f"{table.family} {table.name} {chain.name}: drop")
            self.end(
                Disposition.DENIED, f"{finding.where}, which is not sealane's, drops it", finding.listing
            )
        self._doubt(where, found)
        self._translated(where, found)
        skb.mark = next(iter(found.marks)) if len(found.marks) == 1 else None

    def _doubt(self, where: Namespace, found: Judgement) -> None:
        for finding in found.doubts:
            what = f" ({finding.what})" if finding.what else ""
            self._doubts[f"{where.name}: {finding.where}{what}"] = None

    def _translated(self, where: Namespace, found: Judgement) -> None:
        if not found.translations:
            return
        first = next(iter(found.translations))
        targets = [finding.what for finding in found.translations if finding.what]
        shown = ", ".join(dict.fromkeys(targets[:TARGETS_SHOWN])) + (
            ", …" if len(targets) > TARGETS_SHOWN else ""
        )
        if found.is_of_source:
            self.note("nat", f"its source may be translated by {first.where}")
            self._doubts[f"{where.name}: {first.where} (source translation)"] = None
            return
        may = "may be translated" if found.accepts or found.drops else "is translated"
        to = f" to {shown}" if shown else ""
        self.note("nat", f"its destination {may}{to} by {first.where}")
        reason = f"its destination {may}{to} by {first.where}, which sealane does not follow"
        self.end(Disposition.TRANSLATED, reason, "use `sealane trace`: it follows the real packet")

    def _not_translated(self, hit: Hit, oif: str) -> NoReturn:
        if Masquerade() not in hit.rule.statements:
            self._denied(hit)
        reason = f"{oif} has no address to masquerade under"
        self.end(Disposition.DENIED, reason, f"give {oif} an address of this family")


def _translators(where: Namespace, family: NftFamily, hook: str) -> "list[Chain | _Foreign]":
    """By priority. Of two that have one it is not known which comes first: the foreign one is asked, too."""
    ours: list[tuple[int, int, Chain | _Foreign]] = [
        (c.hook.priority, 1, c) for c in where.base_chains(family, hook) if c.hook and c.hook.type == "nat"
    ]
    foreign: list[tuple[int, int, Chain | _Foreign]] = [
        (c.hook.priority, 0, _Foreign(t, c))
        for t, c in where.rules.at(family, hook)
        if c.hook and c.hook.type == "nat"
    ]
    return [chain for _, _, chain in sorted([*ours, *foreign], key=lambda item: item[:2])]


def _stages(where: Namespace, family: NftFamily, hook: str) -> list[_Stage]:
    chains = where.base_chains(family, hook)
    stages = [_Stage(c.hook.priority, "filter", c) for c in chains if c.hook and c.hook.type == "filter"]
    stages += [
        _Stage(c.hook.priority, "foreign", _Foreign(t, c))
        for t, c in where.rules.at(family, hook)
        if c.hook and c.hook.type != "nat"
    ]
    if family != "bridge" and where.tracks(family):
        if hook in {"prerouting", "output"}:
            stages.append(_Stage(CONNTRACK_PRIORITY, "track", None))
        if hook in NAT_PRIORITY:
            stages.append(_Stage(NAT_PRIORITY[hook], "nat", None))
        if hook in {"postrouting", "input"}:
            stages.append(_Stage(CONFIRM_PRIORITY, "confirm", None))
    return sorted(stages, key=lambda stage: stage.priority)
