"""nft reads what we print of whole hosts, and makes of it what our bytes make."""

import re
import subprocess
from functools import cache

import pytest
from hypothesis import HealthCheck, given, settings

from harness.engines import FACTS
from kernel.nft_support import create, fresh_socket, listing, nft, normal
from property.strategies_intent import intents
from sealane.compile.host import compile_host
from sealane.kernel.nft import Chain, Element, Set, Table
from sealane.kernel.state import HOST
from sealane.kernel.text import lines, ruleset, sets_of

pytestmark = pytest.mark.kernel

some_hosts = settings(max_examples=25, suppress_health_check=list(HealthCheck))
FAMILIES = ("ip", "ip6", "bridge")
KINDS = (Table, Set, Chain, Element)

FIELDS = {
    "@nh,64,48": "arp saddr ether",
    "@nh,112,32": "arp saddr ip",
    "@nh,96,32": "ip saddr",
    "@nh,64,128": "ip6 saddr",
}
"""Where one of these is part of a key in the bridge's table, nft, given a text, compares the type of the frame once more,
and only by that comparison does it know the field again when it lists the rule."""


@cache
def knows_targets():
    """`icmpv6 taddr` is a field since nft 1.0.9; before, no text can compare it with an address."""
    version = subprocess.run(
        ["nft", "--version"], capture_output=True, text=True, check=True, timeout=30
    ).stdout
    return tuple(map(int, re.search(r"v(\d+)\.(\d+)\.(\d+)", version).groups())) >= (1, 0, 9)


def readable(text):
    """Without the rules that this nft has no words for, neither ours nor its own."""
    kept = [line for line in text if knows_targets() or not re.search(r"icmpv6 taddr|@th,64,128", line)]
    return "\n".join(kept) + "\n"


def of_tables(intent):
    """The host's nftables objects, each behind those that it needs."""
    items = [item for item in compile_host(intent, FACTS).get(HOST, {}).values() if isinstance(item, KINDS)]
    return sorted(items, key=lambda item: (KINDS.index(type(item)), FAMILIES.index(item.family), item.key))


def listings(items):
    return "".join(ruleset(family, items) for family in FAMILIES)


def listed(items):
    """Of each family by itself: nft lists tables in the order of their making."""
    text = "".join(listing("table", item.family, "sealane") for item in items if isinstance(item, Table))
    for offset, name in FIELDS.items():
        text = text.replace(offset, name)
    return normal(readable(text.splitlines()))


@some_hosts
@given(intents())
def test_a_hosts_listing_makes_what_our_bytes_make(intent):
    items = of_tables(intent)
    text = readable(listings(items).splitlines())
    with fresh_socket() as socket:
        create(socket, items)
        made = listed(items)
        nft("flush", "ruleset")
        nft("-c", "-f", "-", text=text)
        assert listing() == "", "a check makes nothing"
        nft("-f", "-", text=text)
        assert listed(items) == made


@some_hosts
@given(intents())
def test_nft_takes_a_hosts_lines_as_commands(intent):
    """As they are in plans and goldens. Rules come after the chains they jump to; elements in a second file, since nft
    sends those of an interval map together with a map of the same file, before the chains that they name."""
    items = of_tables(intent)
    sets = sets_of(items)
    commands = [line for item in items for line in lines(item, sets)]
    elements = [line for line in commands if line.startswith("add element")]
    makers = [line for line in commands if line not in elements]
    with fresh_socket():
        nft("-f", "-", text=readable(sorted(makers, key=lambda line: line.startswith("add rule"))))
        nft("-c", "-f", "-", text=readable(elements))
