"""The neighbour tables as the kernel tells of them."""

import struct

import pytest

from sealane.explain.doctor.evidence import NeighbourTable
from sealane.linux.netlink import codec
from sealane.linux.netlink.neighbour_table import parse

CONFIG = struct.pack("=HHIIIIIII", 4, 400, 37, 0, 0, 0, 15, 0, 0)
STATS = struct.pack("=11Q", *range(100, 111))


def answer(name="arp_cache", config=CONFIG, stats=STATS, limit=1024):
    attributes = [codec.string(1, name)]
    attributes += [codec.u32(4, limit)] if limit else []
    attributes += [codec.attr(5, config)] if config else []
    attributes += [codec.attr(7, stats)] if stats else []
    return memoryview(bytes(4) + b"".join(attributes))


@pytest.mark.parametrize(("name", "family"), [("arp_cache", 4), ("ndisc_cache", 6)])
def test_a_table(name, family):
    assert parse(answer(name)) == NeighbourTable(family=family, entries=37, limit=1024, overflows=110)


def test_a_kernel_with_fewer_numbers():
    """table_fulls came with Linux 4.3."""
    found = parse(answer(stats=STATS[:80]))
    assert (found.entries, found.overflows) == (37, 0)


@pytest.mark.parametrize("other", [answer("dn_neigh"), answer(config=b""), answer(limit=0)])
def test_what_is_no_table_of_ours(other):
    """One link's parameters come without thresholds."""
    assert parse(other) is None
