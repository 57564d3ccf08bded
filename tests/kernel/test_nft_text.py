"""nft reads what we print of whole hosts, and makes of it what our bytes make."""

import pytest
from hypothesis import HealthCheck, given, settings

from harness.engines import FACTS
from kernel.nft_support import create, fresh_socket, listing, nft, normal
from property.strategies_intent import intents
from sealane.compile.host import compile_host
from sealane.kernel.nft import Chain, Element, Set, Table
from sealane.kernel.state import HOST
from sealane.kernel.text import lines, ruleset, sets_of
from sealane.linux.nft import observe_nft

pytestmark = pytest.mark.kernel

some_hosts = settings(max_examples=25, suppress_health_check=list(HealthCheck))
FAMILIES = ("ip", "ip6", "bridge")
KINDS = (Table, Set, Chain, Element)


def of_tables(intent):
    """The host's nftables objects, each behind those that it needs."""
    items = [item for item in compile_host(intent, FACTS).get(HOST, {}).values() if isinstance(item, KINDS)]
    return sorted(items, key=lambda item: (KINDS.index(type(item)), FAMILIES.index(item.family), item.key))


def listings(items):
    return "".join(ruleset(family, items) for family in FAMILIES)


def listed(items):
    """Of each family by itself: nft lists tables in the order of their making."""
    tables = [item for item in items if isinstance(item, Table)]
    return normal("".join(listing("table", item.family, "sealane") for item in tables))


def by_key(items):
    return {item.key: item for item in items}


@some_hosts
@given(intents())
def test_a_hosts_listing_makes_what_our_bytes_make(intent):
    items = of_tables(intent)
    text = listings(items)
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
def test_a_saved_ruleset_is_restored_whole(intent):
    """`nft list ruleset > FILE; nft -f FILE`, as an administrator keeps what is his across a boot: a rule of ours that
    nft prints, and does not read, takes his own tables along."""
    items = of_tables(intent)
    with fresh_socket() as socket:
        nft("add table inet his")
        create(socket, items)
        made, saved = by_key(observe_nft(socket)), listing()
        nft("flush", "ruleset")
        nft("-f", "-", text=saved)
        assert listing() == saved
        assert by_key(observe_nft(socket)) == made, "nothing is left to mend"


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
        nft("-f", "-", text="\n".join(sorted(makers, key=lambda line: line.startswith("add rule"))))
        nft("-c", "-f", "-", text="\n".join(elements))
