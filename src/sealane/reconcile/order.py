"""From differences to a plan: which stage, and which order within it. The reasons of the stages are in `plan`."""

from collections.abc import Callable, Iterable, Sequence
from operator import itemgetter
from typing import NamedTuple

import msgspec

from sealane.kernel.links import Veth
from sealane.kernel.nft import Chain, Element, ObservedChain, Set, Table
from sealane.kernel.objects import (
    Address,
    FastGate,
    FastPort,
    FastTarget,
    FdbEntry,
    ForwardRule,
    Key,
    Link,
    LoopbackPort,
    Neighbour,
    Qdisc,
    Route,
    RoutingRule,
    Sysctl,
)
from sealane.kernel.state import HOST, Object, hangs_on
from sealane.reconcile.diff import Difference
from sealane.reconcile.plan import STAGES, Operation, Plan, StageName, Verb

PUBLISHING = frozenset({"publish", "publish_at", "publish_ranges", "open"})
"""Maps and sets whose elements lead new packets to an endpoint."""


FENCE_ORDER = (Table, Set, Chain, Element)
"""Referents first: rules name sets, verdict elements name chains. (The nft adapter puts deletions before additions.)"""

BUILD_ORDER = (Route, Link, Sysctl, Address, Qdisc)
"""An unreachable route needs nothing, and catches what is meant for a link to come. A link's sysctls and addresses need
the link, and a rate is kept from the first packet on."""

OPEN_ORDER = (Address, FdbEntry, FastPort, Link, Neighbour, Route, RoutingRule)
"""The kernel takes a route or neighbour only on a link that is up (`Network is down` otherwise). A fast port finds nobody
until there are targets, and what is inside reaches nobody until the host's side is up: these stand here since their
messages then travel with the link's. The host's own addresses are built."""

SWEEP_ORDER = (Chain, ObservedChain, Set, Table)
"""Rules hold sets, the table holds all."""

CLOSE_ORDER = (RoutingRule, Route, Neighbour, FdbEntry, Qdisc, FastPort, Address, Sysctl)
"""Between the links that go first and the links that go last. What the host forwards ends before the rules that say what it
may forward are swept."""


def _ranks(kinds: Sequence[type]) -> dict[type, int]:
    return {kind: rank for rank, kind in enumerate(kinds)}


_FENCE, _BUILD, _OPEN = _ranks(FENCE_ORDER), _ranks(BUILD_ORDER), _ranks(OPEN_ORDER)
_CLOSE, _SWEEP = _ranks(CLOSE_ORDER), _ranks(SWEEP_ORDER)


def order(differences: Iterable[Difference]) -> Plan:
    """The plan that takes observed to desired.

    A link that has to be made anew (its kind changed, or the sandbox side of a veth is gone) is only deleted here;
    what hung on it goes with it, so the next round, which observes that, makes it all again.
    """
    differences = _without_far_sides(list(differences))
    doomed = _doomed_links([d for d in differences if isinstance(d.desired or d.observed, Link)])
    remade = {(d.netns, d.desired.key) for d in differences if isinstance(d.desired, Set)}
    context = _Context(doomed, remade)
    stages: dict[StageName, list[tuple[tuple[int, ...], Operation]]] = {name: [] for name in STAGES}
    for difference in differences:
        item = difference.desired if difference.desired is not None else difference.observed
        assert item is not None
        place = _PLACES.get(type(item), _on_link)
        for stage, rank, operation in place(difference, item, context):
            stages[stage].append((rank, operation))
    return Plan(
        tuple(
            (name, tuple([operation for _, operation in sorted(placed, key=itemgetter(0))]))
            for name, placed in stages.items()
            if placed
        )
    )


def first_veths(differences: Sequence[Difference]) -> list[Operation]:
    """The veths that their plan makes, and may make before it is made itself: where all that differs is missing, they
    come first but for their fence, and down, with nothing that knows them, they carry nothing. Ends inside sandboxes
    are opened by the same plan, and stand here as what they will be."""
    veths: list[Operation] = []
    made, ends = set[tuple[str, str]](), set[tuple[str, str]]()
    for d in differences:
        item = d.desired
        if item is None or d.observed is not None:
            return []
        if isinstance(item, Link) and item.kind.is_sealanes:
            if not item.kind.is_pair:
                return []
            made.add((d.netns, item.name))
            if item.peer is not None:
                ends.add(item.peer)
            veths.append(Operation("create" if d.netns == HOST else "open", d.netns, item))
    # Where one end is there, it goes before both are made.
    return veths if ends <= made else []


Placed = tuple[StageName, tuple[int, ...], Operation]


class _Context(NamedTuple):
    """What the place of an operation depends on beside its own difference."""

    doomed: set[tuple[str, str]]
    """(namespace, name) of links that go."""
    remade: set[tuple[str, Key]]
    """(namespace, key) of sets that are made, or made anew."""


def _doomed_links(differences: list[Difference]) -> set[tuple[str, str]]:
    """(namespace, name) of links that go, given what differs in links: a veth's two sides go together."""
    doomed: set[tuple[str, str]] = set()
    created = {
        (d.netns, d.desired.name) for d in differences if isinstance(d.desired, Link) and d.observed is None
    }
    for d in differences:
        if isinstance(d.observed, Link) and (d.desired is None or _is_remade(d)):
            doomed.add((d.netns, d.observed.name))
            if isinstance(d.desired, Link) and d.desired.peer:
                doomed.add(d.desired.peer)
        elif (
            isinstance(d.desired, Link)
            and d.desired.peer
            and d.observed is None
            and d.desired.peer not in created
        ):
            # One side is there and the other is not: the pair is made anew.
            doomed |= {d.desired.peer, (d.netns, d.desired.name)}
    return doomed


def _without_far_sides(differences: list[Difference]) -> list[Difference]:
    """Leave out what goes by itself: deleting the host side of a veth deletes the sandbox side, which carries the same
    alias, and whatever hangs on it."""
    gone = {
        d.observed.alias
        for d in differences
        if d.desired is None and d.netns == HOST and isinstance(d.observed, Link) and d.observed.kind.is_pair
    }
    if not gone:
        return differences
    far = {
        (d.netns, d.observed.name)
        for d in differences
        if d.netns != HOST and isinstance(d.observed, Link) and d.desired is None and d.observed.alias in gone
    }

    def stays(d: Difference) -> bool:
        if d.desired is not None or d.observed is None or d.netns == HOST:
            return True
        name = d.observed.name if isinstance(d.observed, Link) else hangs_on(d.observed)
        return (d.netns, name) not in far

    return [d for d in differences if stays(d)]


def _is_remade(difference: Difference) -> bool:
    """Another kind under the name; or, in a sandbox, the end of another veth (an alias is set once, so an empty one
    may be ours half-made)."""
    want, have = difference.desired, difference.observed
    if not isinstance(want, Link) or not isinstance(have, Link):
        return False
    is_other_end = difference.netns != HOST and want.kind.is_pair and have.alias not in {"", want.alias}
    return type(want.kind) is not type(have.kind) or is_other_end


def _on_link(difference: Difference, item: Object, context: _Context) -> Iterable[Placed]:
    want, have, netns = difference.desired, difference.observed, difference.netns
    if context.doomed and (netns, hangs_on(item)) in context.doomed:
        return ()
    if want is None:
        return (("close", (_close_rank(item), netns == HOST), Operation("delete", netns, item, have)),)
    operation = Operation("create" if have is None else "change", netns, want, have)
    rank = _OPEN.get(type(want))
    is_hosts_own = netns == HOST and isinstance(want, Address)
    if rank is None or is_hosts_own or (isinstance(want, Route) and want.type == "unreachable"):
        # A router forgets what it has learnt by router advertisements, but of links that are told to go on (accept_ra 2).
        is_switch = isinstance(want, Sysctl) and want.path == "net/ipv6/conf/all/forwarding"
        return (("build", (_BUILD[type(want)], int(is_switch)), operation),)
    return (("open", (_side(netns, want), rank, _route_rank(want)), operation),)


def _nft(difference: Difference, item: Object, context: _Context) -> Iterable[Placed]:
    want, have, netns = difference.desired, difference.observed, difference.netns
    if want is None:
        operation = Operation("delete", netns, item, have)
        if isinstance(item, Element):
            stage: StageName = "unpublish" if item.set in PUBLISHING else "fence"
            return ((stage, (len(FENCE_ORDER),), operation),)
        return (("sweep", (_SWEEP[type(item)],), operation),)
    verb: Verb = "create" if have is None else "change"
    if isinstance(want, Element) and want.set in PUBLISHING and have is None:
        # A set that is made anew, as after somebody's flush, gets back at once what it held.
        is_in_place = (netns, ("nft-set", want.family, want.set)) not in context.remade
        if is_in_place:
            return (("publish", (0,), Operation(verb, netns, want)),)
    return (("fence", (_FENCE[type(want)],), Operation(verb, netns, want, have)),)


def _forward_rule(difference: Difference, item: Object, _: _Context) -> Iterable[Placed]:
    """Made before the links that need it come up, and taken away once they are gone; our own fence stands in both."""
    netns, have = difference.netns, difference.observed
    if difference.desired is None:
        return (("sweep", (len(SWEEP_ORDER),), Operation("delete", netns, item, have)),)
    verb: Verb = "create" if have is None else "change"
    return (("build", (len(BUILD_ORDER), 0), Operation(verb, netns, item, have)),)


def _leads(difference: Difference, item: Object, _: _Context) -> Iterable[Placed]:
    """What leads packets to an endpoint: the first to go, the last to come."""
    netns, have = difference.netns, difference.observed
    if difference.desired is None:
        return (("unpublish", (0,), Operation("delete", netns, item, have)),)
    rank = 1 if isinstance(item, LoopbackPort) else 2
    return (("publish", (rank,), Operation("create" if have is None else "change", netns, item, have)),)


def _link(difference: Difference, item: Object, context: _Context) -> Iterable[Placed]:
    want, have, netns = difference.desired, difference.observed, difference.netns
    assert isinstance(item, Link)
    if (netns, item.name) in context.doomed:
        yield from _doomed(difference, item)
        return
    assert isinstance(want, Link)
    # The host side of a veth makes both; bridges stand before the ports that name them.
    rank = (_BUILD[Link], not want.kind.has_ports)
    if have is None:
        if want.kind.is_sealanes and (netns == HOST or not want.kind.is_pair):
            yield "build", rank, Operation("create", netns, want)
    elif want.kind.is_sealanes:
        yield "build", rank, Operation("change", netns, want, have)
    if want.up and not (isinstance(have, Link) and have.up):
        yield "open", (_side(netns, want), _OPEN[Link]), Operation("open", netns, want, have)


def _doomed(difference: Difference, item: Link) -> Iterable[Placed]:
    """Deleting one side of a veth deletes the other: an unwanted link is deleted where it is, a wanted one of which
    one side is missing or another's is deleted on the host."""
    want, have, netns = difference.desired, difference.observed, difference.netns
    if netns == HOST or want is None or _is_remade(difference):
        yield (
            "close",
            (_close_rank(have or item), netns != HOST),
            Operation("delete", netns, have or item, have),
        )
    if netns == HOST and have is None and isinstance(want, Link) and want.peer is not None:
        # The host side is gone and the sandbox's lives: it was moved to another namespace.
        sandbox_side = msgspec.structs.replace(
            want, name=want.peer[1], kind=want.kind.as_read, master="", port=None
        )
        yield "close", (_close_rank(want), 1), Operation("delete", want.peer[0], sandbox_side, None)
    if netns != HOST and isinstance(want, Link) and want.peer is not None:
        host_side = msgspec.structs.replace(want, name=want.peer[1], kind=want.kind.as_read)
        yield "close", (_close_rank(want), 0), Operation("delete", HOST, host_side, None)


def _close_rank(item: Object) -> int:
    """Endpoints' links first: what cannot send needs no fence. Then what hangs on the links that are left, then these;
    the routes that catch what has lost its way go last."""
    match item:
        case Link(kind=Veth()):
            return 0
        case Route(type="unreachable"):
            return 9
        case Link():
            return 8
    return 1 + _CLOSE[type(item)]


def _side(netns: str, item: Object) -> int:
    """Inside first, the host side last: the port carries nothing before its sandbox is complete."""
    return int(netns == HOST and not (isinstance(item, Link) and item.kind.has_ports))


def _route_rank(item: Object) -> int:
    """A route through a gateway after the ones that make the gateway reachable."""
    return int(isinstance(item, Route) and bool(item.gateway))


_PLACES: dict[type, Callable[[Difference, Object, _Context], Iterable[Placed]]] = {
    Link: _link,
    **dict.fromkeys((Element, Chain, ObservedChain, Set, Table), _nft),
    **dict.fromkeys((LoopbackPort, FastTarget, FastGate), _leads),
    ForwardRule: _forward_rule,
}
"""The rest hangs on a link."""
