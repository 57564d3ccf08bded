"""A subnet as the allocator sees it: an interval of integers, and what is withheld from it."""

from collections.abc import Iterable
from functools import lru_cache

import msgspec

from sealane.ipam.problems import AddressProblem
from sealane.model.net import (
    Address,
    Family,
    Prefix,
    bounds,
    contains,
    family_of,
    from_int,
    prefix_length,
    to_int,
)
from sealane.model.network import Subnet

POOLS_REMEMBERED = 4096
"""Subnets whose arithmetic is kept: a host's networks, two families each, without redoing it at every attach."""


class Pool(msgspec.Struct, frozen=True, kw_only=True):
    prefix: Prefix
    family: Family
    first: int
    """First and last address that an endpoint can have at all; asking by address may go this far."""
    last: int
    auto_first: int
    """First and last address handed out unasked. `auto_first > auto_last`: none is."""
    auto_last: int
    gateway: int
    reserved: frozenset[int]

    @property
    def auto_size(self) -> int:
        return max(0, self.auto_last - self.auto_first + 1)

    def free(self, leased: Iterable[int]) -> int:
        """How many addresses are left to be handed out unasked."""
        withheld = {self.gateway, *self.reserved, *leased}
        return self.auto_size - sum(self.auto_first <= value <= self.auto_last for value in withheld)


def host_bounds(prefix: Prefix) -> tuple[int, int]:
    """First and last address of a prefix that a host can have.

    IPv4 gives up the network and broadcast address, except in a /31 (RFC 3021) and a /32; IPv6 gives up the
    subnet-router anycast address (RFC 4291 §2.6.1), which Linux answers itself when it forwards, except in a /127
    (RFC 6164) and a /128.
    """
    first, last = bounds(prefix)
    if last - first <= 1:
        return first, last
    return first + 1, last - (1 if family_of(prefix) == 4 else 0)


@lru_cache(maxsize=POOLS_REMEMBERED)
def pool_of(subnet: Subnet) -> Pool:
    first, last = host_bounds(subnet.prefix)
    range_first, range_last = bounds(subnet.ip_range or subnet.prefix)
    return Pool(
        prefix=subnet.prefix,
        family=family_of(subnet.prefix),
        first=first,
        last=last,
        auto_first=max(first, range_first),
        auto_last=min(last, range_last),
        gateway=to_int(subnet.gateway),
        reserved=frozenset(to_int(address) for address in subnet.reserved),
    )


def default_gateway(prefix: Prefix) -> Address:
    """The first usable address. Raises AddressProblem for a /32 or /128: nothing would be left for an endpoint."""
    first, last = host_bounds(prefix)
    if first == last:
        raise AddressProblem(
            "invalid",
            f"{prefix} has a single address: none is left beside its gateway",
            f"a prefix of length {prefix_length(prefix) - 1} or shorter",
        )
    return _address(prefix, first)


def check_subnet(subnet: Subnet) -> None:
    """Raises AddressProblem for a gateway that no host can have, or a gateway, range or reserve outside the prefix."""
    default_gateway(subnet.prefix)
    for role, address in (("gateway", subnet.gateway), *(("reserved", a) for a in subnet.reserved)):
        if not contains(subnet.prefix, address):
            raise AddressProblem("invalid", f"{role} address {address} does not lie in {subnet.prefix}")
    check_host(subnet.prefix, subnet.gateway)
    if subnet.ip_range is not None:
        _check_range(subnet.prefix, subnet.ip_range)


def check_host(prefix: Prefix, address: Address) -> None:
    """Raises AddressProblem for an address outside the prefix, or one that no host in it can have."""
    if not contains(prefix, address):
        first, last = host_bounds(prefix)
        usable = f"one from {_address(prefix, first)} to {_address(prefix, last)}"
        raise AddressProblem("invalid", f"{address} does not lie in {prefix}", usable)
    first, last = host_bounds(prefix)
    value = to_int(address)
    if value < first:
        role = "network address" if family_of(prefix) == 4 else "subnet-router anycast address"
    elif value > last:
        role = "broadcast address"
    else:
        return
    raise AddressProblem("invalid", f"{address} is the {role} of {prefix}", "another address of it")


def _check_range(prefix: Prefix, ip_range: Prefix) -> None:
    if family_of(prefix) == family_of(ip_range):
        first, last = bounds(prefix)
        range_first, range_last = bounds(ip_range)
        if first <= range_first and range_last <= last:
            return
    raise AddressProblem("invalid", f"range {ip_range} does not lie in {prefix}", f"a part of {prefix}")


def _address(prefix: Prefix, value: int) -> Address:
    return from_int(family_of(prefix), value)
