"""Which published ports claim the same host port, in n log n over ranges that are never expanded.

Two claims clash if they have the same protocol, addresses that overlap and ports in common. `None` overlaps every
address, `0.0.0.0` every IPv4 and `::` every IPv6 address. A claim that picks one port of a range clashes only with a
claim that holds all of it: whether one of the rest is free is known when the port is opened, not here.
"""

import bisect
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import TypeVar

import msgspec

from sealane.compose.ports import PortSpec
from sealane.model.net import WILDCARDS, family_of


class Claim(msgspec.Struct, frozen=True):
    owner: int
    """An index that the caller understands."""
    spec: PortSpec

    @property
    def first(self) -> int:
        return self.spec.host_first or 0

    @property
    def last(self) -> int:
        return self.spec.host_last or 0


_Item = TypeVar("_Item")


def distinct(items: Sequence[_Item], spec_of: Callable[[_Item], PortSpec]) -> list[_Item]:
    """Of one service: without what another of its publishes leads to the same port on a wider address, or on the same."""
    kept: list[_Item] = []
    addresses: dict[PortSpec, set[str | None]] = defaultdict(set)
    for item in items:
        addresses[msgspec.structs.replace(spec_of(item), host_ip=None)].add(spec_of(item).host_ip)
    value: set[PortSpec] = set()
    for item in items:
        spec = spec_of(item)
        if spec.host_first is not None and not spec.picks_one:
            known = addresses[msgspec.structs.replace(spec, host_ip=None)]
            if spec in value or any(
                wider != spec.host_ip and wider in known for wider in _wider(spec.host_ip)
            ):
                continue
            value.add(spec)
        kept.append(item)
    return kept


def find_clashes(claims: Sequence[Claim]) -> Iterator[tuple[Claim, Claim]]:
    """Pairs (later, earlier) of claims that clash, at most one for each later claim and wider address."""
    by_key: dict[tuple[str, str | None], list[Claim]] = defaultdict(list)
    for claim in claims:
        if claim.spec.host_first is not None:
            by_key[claim.spec.proto, claim.spec.host_ip].append(claim)
    for (proto, host_ip), own in by_key.items():
        for wider in _wider(host_ip):
            others = own if wider == host_ip else by_key.get((proto, wider), [])
            yield from _clashes(own, others)


def _wider(host_ip: str | None) -> tuple[str | None, ...]:
    if host_ip is None:
        return (None,)
    return tuple(dict.fromkeys((host_ip, WILDCARDS[family_of(host_ip)], None)))


def _clashes(own: list[Claim], others: list[Claim]) -> Iterator[tuple[Claim, Claim]]:
    fixed = sorted((claim for claim in others if not claim.spec.picks_one), key=lambda claim: claim.first)
    firsts = [claim.first for claim in fixed]
    # The claim that reaches furthest among those that begin at or before each one.
    furthest = list(accumulate(fixed, _further))
    for claim in own:
        if claim.spec.picks_one:
            index = bisect.bisect_right(firsts, claim.first)
            if index and furthest[index - 1].last >= claim.last:
                yield _in_order(claim, furthest[index - 1])
        elif own is not others:
            index = bisect.bisect_right(firsts, claim.last)
            if index and furthest[index - 1].last >= claim.first:
                yield _in_order(claim, furthest[index - 1])
    if own is others:
        for index in range(1, len(fixed)):
            if furthest[index - 1].last >= fixed[index].first:
                yield _in_order(fixed[index], furthest[index - 1])


def _further(one: Claim, other: Claim) -> Claim:
    return other if other.last > one.last else one


def _in_order(one: Claim, other: Claim) -> tuple[Claim, Claim]:
    return (one, other) if one.owner > other.owner else (other, one)
