"""Subnets for networks: a free one out of the automatic pools, or a check of one that was asked for.

What is in the way: the subnets of our networks, and the prefixes around this host (routes, resolvers), which
`Facts.foreign_routes` lists with their owners. A very wide route (`is_defaultish`) says where packets go that
nobody else claims, not that the addresses are in use: a VPN's 0.0.0.0/1 and 128.0.0.0/1 would else leave no address
for anybody. Automatic subnets stay clear of such routes while they can, and subnets asked for may lie in them.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache

import msgspec

from sealane.compile.facts import Facts
from sealane.ipam.problems import AddressProblem
from sealane.model.net import (
    Family,
    Prefix,
    bounds,
    family_of,
    from_int,
    is_defaultish,
    overlaps,
)

BLOCKERS_NAMED = 3
"""Names in the error of an exhausted pool; the others are counted."""

BOUNDS_REMEMBERED = 16384
"""Prefixes whose bounds are kept parsed: as many as networks and routes of one busy host."""

Taken = Mapping[str, tuple[Prefix, ...]]
"""The subnets of each network, by its name."""

_cached_bounds = lru_cache(maxsize=BOUNDS_REMEMBERED)(bounds)


class AutoPool(msgspec.Struct, frozen=True):
    """A prefix that is cut into subnets of one length."""

    prefix: Prefix
    length: int


IPV4_POOLS = (
    # A /22 has 1021 addresses for endpoints, and a bridge 1023 ports: neither runs out long before the other.
    # The upper half of 10/8 first: clouds, clusters and VPNs count from its beginning, Docker uses 172.17/16 on.
    AutoPool(Prefix("10.128.0.0/9"), 22),
    AutoPool(Prefix("172.16.0.0/12"), 22),
    AutoPool(Prefix("192.168.0.0/16"), 24),
)

_UNUSABLE: tuple[tuple[Prefix, str], ...] = (
    (Prefix("0.0.0.0/8"), "this host on this network, RFC 1122"),
    (Prefix("127.0.0.0/8"), "loopback"),
    (Prefix("224.0.0.0/4"), "multicast"),
    (Prefix("255.255.255.255/32"), "broadcast"),
    (Prefix("::/127"), "unspecified and loopback"),
    (Prefix("::ffff:0:0/96"), "IPv4-mapped"),
    (Prefix("fe80::/10"), "link-local: every link has it"),
    (Prefix("ff00::/8"), "multicast"),
)


class _Blocker(msgspec.Struct, frozen=True):
    first: int
    last: int
    what: str
    prefix: Prefix

    def __str__(self) -> str:
        return f"{self.what} {self.prefix}"


def ula_pool(instance: str) -> AutoPool:
    """The installation's own /48 of unique local addresses (RFC 4193), for 65,536 subnets.

    §3.2.2 asks for a pseudo-random global id, so that two sites that are joined one day do not collide: a hash of
    the instance id is one, and gives the same /48 after the store was lost.
    """
    global_id = int.from_bytes(hashlib.sha256(instance.encode()).digest()[:5], "big")
    return AutoPool(Prefix(f"{from_int(6, 0xFD << 120 | global_id << 80)}/48"), 64)


def free_prefix(family: Family, identity: str, taken: Taken, facts: Facts) -> Prefix:
    """A subnet for a new network: out of the first pool that has a free one.

    The lowest free one for IPv4, which people read and type. For IPv6 the search begins at a place hashed from the
    network's `identity`, so that a network made after another was deleted does not meet its neighbours' memories.
    Raises AddressProblem `full`, which names what is in the way in each pool.
    """
    pools = IPV4_POOLS if family == 4 else (ula_pool(facts.instance),)
    seed = 0 if family == 4 else int.from_bytes(hashlib.sha256(identity.encode()).digest()[:8], "big")
    networks = [
        _blocker(f"network {name}", p) for name, ps in taken.items() for p in ps if family_of(p) == family
    ]
    routes = [_blocker(r.owner, r.prefix) for r in facts.foreign_routes if family_of(r.prefix) == family]
    narrow = [route for route in routes if not is_defaultish(route.prefix)]
    for blockers in (networks + routes, networks + narrow):
        for pool in pools:
            first = _free_in(pool, seed, blockers)
            if first is not None:
                return Prefix(f"{from_int(family, first)}/{pool.length}")
    raise _exhausted(pools, networks + narrow)


def free_in(pool: AutoPool, taken: Taken, facts: Facts) -> Prefix | None:
    """The lowest free subnet of one pool; None if there is none."""
    family = family_of(pool.prefix)
    blockers = [_blocker(name, p) for name, ps in taken.items() for p in ps if family_of(p) == family]
    blockers += [
        _blocker(r.owner, r.prefix)
        for r in facts.foreign_routes
        if family_of(r.prefix) == family and not is_defaultish(r.prefix)
    ]
    first = _free_in(pool, 0, blockers)
    return None if first is None else Prefix(f"{from_int(family, first)}/{pool.length}")


def check_prefix(prefix: Prefix, taken: Taken, facts: Facts) -> None:
    """Raises AddressProblem for a subnet asked for that cannot be used (`invalid`) or is in use (`conflict`)."""
    for unusable, why in _UNUSABLE:
        if overlaps(prefix, unusable):
            raise AddressProblem(
                "invalid", f"{prefix} cannot be a subnet: {unusable} is {why}", "another prefix"
            )
    for name, prefixes in taken.items():
        for other in prefixes:
            if _overlap(prefix, other):
                raise AddressProblem(
                    "conflict", f"{prefix} overlaps {other} of network {name}", "change or omit it"
                )
    for route in facts.foreign_routes:
        if not is_defaultish(route.prefix) and _overlap(prefix, route.prefix):
            raise AddressProblem(
                "conflict",
                f"{prefix} overlaps {route.prefix}, which this host uses ({route.owner})",
                "change or omit it",
            )


def _overlap(one: Prefix, other: Prefix) -> bool:
    if family_of(one) != family_of(other):
        return False
    first, last = _cached_bounds(one)
    other_first, other_last = _cached_bounds(other)
    return first <= other_last and other_first <= last


def _blocker(what: str, prefix: Prefix) -> _Blocker:
    first, last = _cached_bounds(prefix)
    return _Blocker(first, last, what, prefix)


def _free_in(pool: AutoPool, seed: int, blockers: Iterable[_Blocker]) -> int | None:
    """First address of a free block of the pool: the first at or after the seed's block, going round."""
    first, last = _cached_bounds(pool.prefix)
    size = 1 << ((32 if family_of(pool.prefix) == 4 else 128) - pool.length)
    start = first + seed % ((last - first + 1) // size) * size
    ordered = sorted((b.first, b.last) for b in blockers if b.first <= last and first <= b.last)
    free = _sweep(start, last, size, ordered)
    return free if free is not None else _sweep(first, start - 1, size, ordered)


def _sweep(start: int, last: int, size: int, ordered: list[tuple[int, int]]) -> int | None:
    """First aligned block in start…last that no interval touches; the intervals are in order of their beginnings."""
    block = start
    for blocked_first, blocked_last in ordered:
        if block + size <= blocked_first:
            break
        if blocked_last >= block:
            block = (blocked_last // size + 1) * size
    return block if block + size - 1 <= last else None


def _exhausted(pools: Iterable[AutoPool], blockers: list[_Blocker]) -> AddressProblem:
    return AddressProblem(
        "full",
        "no free subnet for a network: " + "; ".join(_describe(pool, blockers) for pool in pools),
        "name a subnet, or remove networks",
    )


def _describe(pool: AutoPool, blockers: list[_Blocker]) -> str:
    inside = list(_inside(pool, blockers))
    # The widest first: they are what explains the pool.
    inside.sort(key=lambda b: b.first - b.last)
    named = ", ".join(str(b) for b in inside[:BLOCKERS_NAMED])
    more = f" and {len(inside) - BLOCKERS_NAMED} more" if len(inside) > BLOCKERS_NAMED else ""
    return f"{pool.prefix} is used by {named}{more}"


def _inside(pool: AutoPool, blockers: list[_Blocker]) -> Iterator[_Blocker]:
    first, last = _cached_bounds(pool.prefix)
    return (b for b in blockers if b.first <= last and first <= b.last)
