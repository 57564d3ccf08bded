"""Law 7 (style.md §5.7): what is printed loses nothing. `parse(render(x)) == x`, with a parser that shares no code with
the printer (`harness.nft_text`, `harness.state_text`); so no two records print alike.

What the text does not say, by intent:

* whether a chain without rules is a `Chain` or an `ObservedChain`: both are the same chain. It reads as a `Chain`.
* values of counters, which no record has either.

And what the records allow in their types, but their docstrings exclude, is not drawn: an interval set's element without
its end (or another's with one), a concatenation of one load, a comparison of `ct state` or a bit test of `ct direction`,
a comment or a name in a table that is not a word.
"""

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from harness import nft_text, state_text
from harness.engines import FACTS
from property import strategies_nft
from property.strategies_intent import intents
from property.strategies_state import (
    FAMILIES,
    chains,
    elements,
    hooks,
    links,
    objects,
    observed_chains,
    owners,
    rules,
    statements,
    tables,
)
from sealane.compile.host import compile_host
from sealane.kernel import text_nft
from sealane.kernel.nft import ACCEPT, Chain, Element, Rule, Set, Table
from sealane.kernel.state import HOST, namespace
from sealane.kernel.text import lines, operation_lines, ruleset, sets_of
from sealane.reconcile.diff import diff
from sealane.reconcile.ownership import is_deletable, is_same

# --- one object -----------------------------------------------------------------------------------------------------


@given(objects)
def test_an_object_is_read_back_from_its_line(item):
    [line] = lines(item)
    assert line.isprintable()
    assert state_text.state(line) == [item]


@given(FAMILIES, statements)
def test_a_statement_is_read_back(family, item):
    assert nft_text.statements(family, text_nft.statement(family, item)) == (item,)


@given(FAMILIES, rules)
def test_a_rule_is_read_back_and_its_tag_is_its_own(family, item):
    assert nft_text.rule(family, text_nft.rule(family, item)) == item


@given(FAMILIES, hooks)
def test_a_hook_is_read_back(family, item):
    assert nft_text.hook(family, text_nft.hook(family, item)) == item


@given(st.one_of(chains, observed_chains))
def test_a_chain_is_read_back_from_its_lines(item):
    assert state_text.state("\n".join(lines(item))) == [item]


@given(owners)
def test_a_set_is_read_back(item):
    assert state_text.state("\n".join(lines(item))) == [item]


@given(owners.flatmap(lambda owner: st.tuples(st.just(owner), elements(owner))))
def test_an_element_is_read_back_with_its_set(pair):
    owner, item = pair
    [line] = lines(item, sets_of([owner]))
    assert line.isprintable()
    assert state_text.state(line, [owner]) == [item]


@given(owners.flatmap(elements))
def test_an_element_is_read_back_without_its_set(item):
    assert state_text.state("\n".join(lines(item))) == [item]


# --- whole states ---------------------------------------------------------------------------------------------------


@given(FAMILIES.flatmap(tables))
def test_a_table_is_read_back_from_its_listing(items):
    assert namespace(nft_text.ruleset(ruleset(items[0].family, items))) == namespace(items)


@given(FAMILIES.flatmap(strategies_nft.tables))
def test_a_table_that_the_kernel_takes_is_read_back_from_its_listing(items):
    assert namespace(nft_text.ruleset(ruleset(items[0].family, items))) == namespace(items)


def printed(state):
    """A namespace as the goldens have it: sets before their elements."""
    sets = sets_of(state.values())
    ordered = sorted(state.values(), key=lambda item: isinstance(item, Element))
    return "".join(f"{line}\n" for item in ordered for line in lines(item, sets))


@given(intents())
def test_a_host_is_read_back_from_its_text(intent):
    for state in compile_host(intent, FACTS).values():
        assert namespace(state_text.state(printed(state))) == state


@given(intents())
def test_a_hosts_tables_are_read_back_from_their_listings(intent):
    state = compile_host(intent, FACTS).get(HOST, {})
    tables = {k: v for k, v in state.items() if isinstance(v, Table | Set | Chain | Element)}
    listings = [nft_text.ruleset(ruleset(family, state.values())) for family in ("ip", "ip6", "bridge")]
    assert namespace(item for found in listings for item in found) == tables


# --- plans ----------------------------------------------------------------------------------------------------------


def plan_lines(want, have):
    """A namespace's difference in the words of a plan, and the sets by which its elements are read."""
    sets = sets_of([*have.values(), *want.values()])
    for found in sorted(diff({HOST: want}, {HOST: have}), key=lambda d: isinstance(d.desired, Element)):
        item = found.observed if found.desired is None else found.desired
        verb = "create" if found.observed is None else "delete" if found.desired is None else "change"
        yield from operation_lines(verb, item, found.observed, sets)


@given(intents(), intents())
def test_a_plan_says_all_that_it_changes(before, after):
    """The old state and the plan's text give the new one. A sysctl is never deleted, so it stays; a veth's other end is
    no difference (`ownership.is_same`)."""
    old, new = (compile_host(intent, FACTS) for intent in (before, after))
    for netns in {*old, *new}:
        have, want = old.get(netns, {}), new.get(netns, {})
        sets = sets_of([*have.values(), *want.values()]).values()
        result = state_text.performed(have, plan_lines(want, have), sets)
        expected = {key: item for key, item in have.items() if not is_deletable(item)} | dict(want)
        assert result.keys() == expected.keys()
        assert all(is_same(item, result[key]) for key, item in expected.items())


@given(links, links)
def test_a_changed_link_says_all_that_changes(before, after):
    after = msgspec.structs.replace(after, name=before.name)
    assume(before != after)
    text = operation_lines("change", after, before)
    assert state_text.performed({before.key: before}, text) == {after.key: after}


_some_rules = st.lists(rules, min_size=1, max_size=6, unique_by=lambda rule: rule.tag())


@given(_some_rules.flatmap(lambda all_: st.tuples(*[st.lists(st.sampled_from(all_), max_size=8)] * 2)))
def test_a_changed_chain_says_where_its_rules_come_and_go(pair):
    """Also if they only change places, and if one stands there twice."""
    before, after = (Chain(family="ip", name="c", rules=tuple(found)) for found in pair)
    text = operation_lines("change", after, before)
    assert state_text.performed({before.key: before}, text) == {after.key: after}


# --- the parser -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "ip saddr",
        "ip saddr @",
        "ip caddr 10.0.0.1",
        "iifname eth0",
        "meta l4proto carp",
        "th dport 80-",
        "ct state old",
        "vmap @x",
        "masquerade",
        "log",
    ],
)
def test_what_is_no_statement_is_not_guessed(text):
    with pytest.raises(ValueError):
        nft_text.statements("ip", text)


def test_an_edited_rule_is_found_out():
    text = text_nft.rule("ip", Rule((ACCEPT,)))
    with pytest.raises(ValueError, match="another rule"):
        nft_text.rule("ip", text.replace("accept", "drop"))
