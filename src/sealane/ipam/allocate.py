"""Addresses of one subnet: the next free one, or one by name.

Leases live in the store; these functions read them through a predicate and change nothing. The next address is the
first free one after the last that was given, going round: an address just freed comes back as late as it can, when
neighbour caches, conntrack entries and clients have forgotten its former owner.

A search passes over leased addresses only, and goes once round the subnet for as many new leases as were free: while
at least half of a subnet is free, that is two addresses looked at a lease on average, whatever its size.
"""

from collections.abc import Callable

from sealane.ipam.pool import Pool, check_host, check_subnet, default_gateway, pool_of
from sealane.ipam.problems import AddressProblem
from sealane.model.net import Address, from_int, to_int
from sealane.model.network import Subnet

__all__ = ["check_subnet", "claim", "default_gateway", "next_address"]

SEARCH_MAX = 1 << 17
"""Addresses looked at in one search. More leases than that are not on one host; it bounds what a huge IPv6 subnet
costs if the predicate is wrong."""


def next_address(
    subnet: Subnet, is_leased: Callable[[Address], bool], after: Address | None = None
) -> Address:
    """A free address of the subnet's range; the one returned is the next call's `after`.

    Passes by the gateway and the reserved addresses. Raises AddressProblem `full`.
    """
    pool = pool_of(subnet)
    size = pool.auto_size
    start = _start(pool, after)
    leased = withheld = 0
    for step in range(min(size, SEARCH_MAX)):
        value = pool.auto_first + (start + step) % size
        if value == pool.gateway or value in pool.reserved:
            withheld += 1
            continue
        address = from_int(pool.family, value)
        if not is_leased(address):
            return address
        leased += 1
    raise _full(subnet, leased, withheld)


def claim(subnet: Subnet, address: Address, holder: Callable[[Address], str | None]) -> None:
    """Check an address that was asked for by name: `holder` says who leases it.

    Reserved addresses, and addresses outside the subnet's range, are given to who asks for them.
    Raises AddressProblem `invalid` or `conflict`.
    """
    check_host(subnet.prefix, address)
    if address == subnet.gateway:
        raise AddressProblem("conflict", f"{address} is the gateway of {subnet.prefix}", "another address")
    who = holder(address)
    if who is not None:
        raise AddressProblem(
            "conflict", f"{address} is leased to {who}", f"another address of {subnet.prefix}"
        )


def _start(pool: Pool, after: Address | None) -> int:
    """Offset in the range at which the search begins."""
    if after is None:
        return 0
    offset = to_int(after) + 1 - pool.auto_first
    return offset if 0 <= offset < pool.auto_size else 0


def _full(subnet: Subnet, leased: int, withheld: int) -> AddressProblem:
    where = f"range {subnet.ip_range} of {subnet.prefix}" if subnet.ip_range else f"{subnet.prefix}"
    return AddressProblem(
        "full",
        f"{where} is full: {leased} leased, {withheld} withheld (gateway, reserved)",
        "detach an endpoint, or use a network with a larger subnet",
    )
