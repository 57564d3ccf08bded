"""What others do to our tables is seen, and repaired by the operations that the difference asks for."""

import pytest

from kernel.nft_support import (
    FORWARD,
    IP,
    a_set,
    as_observed,
    create,
    element,
    fresh_socket,
    nft,
    observed,
    operations,
    rule,
    with_table,
)
from sealane.kernel.nft import (
    ACCEPT,
    DROP,
    IP_SADDR,
    Chain,
    Element,
    Lookup,
    ObservedChain,
)
from sealane.linux import nft_observe
from sealane.linux.netlink.socket import NetlinkError
from sealane.linux.nft import apply_nft, observe_nft
from sealane.linux.nft_observe import learn_contents
from sealane.linux.rule_contents import RuleContents

pytestmark = pytest.mark.kernel


@pytest.fixture
def socket():
    with fresh_socket() as found:
        yield found


# --- drift ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def drifting(socket):
    """A table with a base chain and a set of an element, all in order."""
    owner = a_set("ipv4_addr", name="allowed")
    chain = Chain(
        family=IP, name="base", rules=(rule(Lookup(IP_SADDR, "allowed"), ACCEPT), rule(DROP)), hook=FORWARD
    )
    objects = with_table(IP, owner, chain, element(owner, "10.0.0.1"))
    create(socket, objects)
    return objects


def repair(socket, objects):
    """What the reconciler does: whatever differs is created, changed or deleted."""
    wanted, found = as_observed(objects), observed(socket)
    desired = {item.key: item for item in objects}
    assert wanted != found
    todo = [op for key in found.keys() - wanted.keys() for op in operations("delete", [found[key]])]
    for key in wanted:
        if key not in found:
            todo += operations("create", [desired[key]])
        elif found[key] != wanted[key]:
            todo += operations("change", [desired[key]], before=found[key])
    assert apply_nft(socket, todo) == []
    assert observed(socket) == wanted


DRIFTS = {
    "a rule added": "add rule ip sealane base accept",
    "a rule with a comment put first": 'insert rule ip sealane base accept comment "hello"',
    "all rules gone": "flush chain ip sealane base",
    "another policy": "add chain ip sealane base { policy drop; }",
    "a table asleep": "add table ip sealane { flags dormant; }",
    "an element added": "add element ip sealane allowed { 10.0.0.2 }",
    "an element gone": "delete element ip sealane allowed { 10.0.0.1 }",
    "a set added": "add set ip sealane more { type ipv4_addr; elements = { 1.2.3.4 } }",
    "a set of a foreign type added": "add set ip sealane more { type mark; elements = { 7 } }",
    "a set of another making added": "add set ip sealane more { type ipv4_addr; timeout 1h; elements = { 1.2.3.4 } }",
    "a chain added": "add chain ip sealane more { type filter hook input priority 5; policy drop; }",
    "a chain of another type added": "add chain ip sealane more { type route hook output priority 5; }",
    "a rule with a set of its own": "add rule ip sealane base ip saddr { 10.0.0.7, 10.0.0.9 } accept",
    "the table gone": "delete table ip sealane",
    "everything gone": "flush ruleset",
}


@pytest.mark.parametrize("what", DRIFTS)
def test_drift_is_seen_and_repaired(socket, drifting, what):
    before = nft("list", "ruleset")
    nft("-f", "-", text=DRIFTS[what])
    repair(socket, drifting)
    assert nft("list", "ruleset") == before


def test_a_catchall_element_is_drift_that_can_be_repaired(socket, drifting):
    nft("add element ip sealane allowed { * }")
    assert Element(family=IP, set="allowed", value=b"") in observe_nft(socket)
    repair(socket, drifting)


def test_a_chain_at_the_wrong_hook_is_made_anew(socket, drifting):
    nft(
        "-f",
        "-",
        text="delete chain ip sealane base; add chain ip sealane base { type filter hook input priority 0; }",
    )
    repair(socket, drifting)


def test_a_rule_in_the_place_of_ours_is_seen_whatever_its_comment_says(socket, drifting):
    """An administrator who saves the ruleset, edits a rule of ours and loads it leaves our comment there."""
    contents = RuleContents()
    before = observe_nft(socket, contents)
    assert observe_nft(socket, contents) == before
    listed = nft("-a", "list", "chain", IP, "sealane", "base")
    text, _, handle = (
        next(line for line in listed.splitlines() if "drop " in line).strip().partition(" # handle ")
    )
    nft(f"replace rule {IP} sealane base handle {handle} {text.replace('drop', 'accept')}")
    assert observe_nft(socket) == before, "by its comment it is ours"
    (found,) = [item for item in observe_nft(socket, contents) if isinstance(item, ObservedChain)]
    assert found.tags[-1] == "?"
    (chain,) = [item for item in drifting if isinstance(item, Chain)]
    assert apply_nft(socket, operations("change", [chain], before=found)) == []
    learn_contents(socket, contents, [(IP, "base")])
    nft("flush", "chain", IP, "sealane", "base")
    assert [i.tags[-1:] for i in observe_nft(socket, contents) if isinstance(i, ObservedChain)] == [("?",)]
    assert apply_nft(socket, operations("change", [chain], before=found)) == []
    assert observe_nft(socket, contents) == before, "rules are what was learnt, though made anew"
    assert "drop " in nft("list", "chain", IP, "sealane", "base")


def test_a_set_of_another_shape_is_made_anew_with_the_chain_that_refers_to_it(socket):
    old, new = a_set("ipv4_addr"), a_set("ipv4_addr", interval=True)
    chain = Chain(family=IP, name="base", rules=(rule(Lookup(IP_SADDR, "s"), ACCEPT),), hook=FORWARD)
    create(socket, with_table(IP, old, chain, element(old, "10.0.0.1")))
    item = element(new, "10.0.0.1", ends=("10.0.0.9",))
    outcomes = apply_nft(
        socket,
        [
            *operations("change", [new], before=old),
            *operations("change", [chain]),
            *operations("delete", [element(old, "10.0.0.1")]),
            *operations("create", [item]),
        ],
    )
    assert outcomes == []
    assert observed(socket) == as_observed(with_table(IP, new, chain, item))


def test_reading_begins_anew_when_a_transaction_comes_between(socket, drifting, monkeypatch):
    """The set's element is read before, the chain after: without a second look this would be a state that never was."""
    real, calls = nft_observe.observe_sets, []

    def observe_sets(*args):
        found = real(*args)
        calls.append(found)
        if len(calls) == 1:
            nft("delete table ip sealane")
        return found

    monkeypatch.setattr(nft_observe, "observe_sets", observe_sets)
    assert observe_nft(socket) == []
    assert len(calls) == 1


def test_a_reading_that_is_always_disturbed_gives_up(socket, drifting, monkeypatch):
    numbers = iter(range(1000))
    monkeypatch.setattr(nft_observe, "generation", lambda _: str(next(numbers)).encode())
    with pytest.raises(NetlinkError, match="changed during each"):
        observe_nft(socket)
