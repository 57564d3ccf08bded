"""A transaction that fails changes nothing, and says which operation was at fault."""

import errno

import pytest

from kernel.nft_support import (
    BACKEND,
    BOX,
    FORWARD,
    IP,
    PORT,
    a_set,
    as_observed,
    chain_handle,
    create,
    delete,
    element,
    everything,
    faults,
    fresh_socket,
    nft,
    observed,
    operations,
    rule,
    rule_lines,
    with_table,
)
from sealane.kernel.nft import (
    DROP,
    IP_SADDR,
    Chain,
    CmpPrefix,
    Element,
    Lookup,
    ObservedChain,
    Snat,
    Table,
    Verdict,
    concat,
    field,
)
from sealane.linux.nft import UNDONE, apply_nft, observe_nft

pytestmark = pytest.mark.kernel


@pytest.fixture
def socket():
    with fresh_socket() as found:
        yield found


# --- failing --------------------------------------------------------------------------------------------------------


def bad_operations():
    publish = a_set(*PORT, name="publish", data=BACKEND)
    missing = a_set("ipv4_addr", name="missing")
    return {
        "an element of a set that is not there": (element(missing, "10.0.0.1"), errno.ENOENT),
        "a key of the wrong length": (Element(family=IP, set="names", value=b"\1\2"), errno.EINVAL),
        "a verdict to a chain that is not there": (
            Element(family=IP, set="names", value=field("ifname", "eth9"), data=Verdict("jump", "nowhere")),
            errno.ENOENT,
        ),
        "an element with other data": (
            element(publish, 6, 8080, data=concat(BACKEND, ("10.1.0.9", 9))),
            errno.EEXIST,
        ),
        "a set of another shape": (a_set("ipv4_addr", name="publish"), errno.EEXIST),
        "a rule about a set that is not there": (
            Chain(family=IP, name="new", rules=(rule(DROP), rule(Lookup(IP_SADDR, "missing"), DROP))),
            errno.ENOENT,
        ),
        "NAT outside a NAT chain": (
            Chain(family=IP, name="new", rules=(rule(Snat("10.0.0.1")),), hook=FORWARD),
            errno.EOPNOTSUPP,
        ),
        "a set of verdicts": (a_set("verdict", name="new"), errno.EINVAL),
        "an element of an interval set without its end": (
            a_set("ipv4_addr", name="new", interval=True),
            0,
        ),
        "a rule comment with a quote": (
            Chain(family=IP, name="new", rules=(rule(DROP, comment='a"b'),)),
            errno.EINVAL,
        ),
        "a rule comment with a newline": (
            Chain(family=IP, name="new", rules=(rule(DROP, comment="a\n"),)),
            errno.EINVAL,
        ),
        "a rule comment that is too long": (
            Chain(family=IP, name="new", rules=(rule(DROP, comment="x" * 111),)),
            errno.EINVAL,
        ),
        "an IPv6 prefix in IPv4": (
            Chain(family=IP, name="new", rules=(rule(CmpPrefix(IP_SADDR, "==", "fd00::/8")),)),
            errno.EINVAL,
        ),
    }


@pytest.mark.parametrize("what", bad_operations())
def test_one_bad_operation_leaves_everything_as_it_was(socket, what):
    create(socket, everything())
    before = nft("-a", "list", "ruleset")
    bad, number = bad_operations()[what]
    good = a_set("inet_service", name="good")
    batch = [good, Chain(family=IP, name="base", hook=FORWARD), bad, element(good, 80)]
    if not number:
        batch.append(element(bad, "10.0.0.1"))
        bad, number = batch[-1], errno.EINVAL
    outcomes = apply_nft(socket, operations("create", batch))
    assert faults(outcomes)[0] == (bad, number)
    assert len(outcomes) == len(batch)
    assert {outcome.message for outcome in outcomes if not outcome.errno} <= {UNDONE}
    assert nft("-a", "list", "ruleset") == before


def test_a_loop_is_the_fault_of_the_transaction(socket):
    """The kernel looks for loops when all is in place, and blames no message."""
    create(socket, everything())
    before = nft("-a", "list", "ruleset")
    loop = Chain(family=IP, name="tenant", rules=(rule(Verdict("jump", "tenant")),))
    [first, second] = apply_nft(socket, operations("create", [loop, a_set("inet_service", name="good")]))
    assert first.errno in {errno.ELOOP, errno.EMLINK}
    assert (second.errno, second.message) == (0, UNDONE)
    assert nft("-a", "list", "ruleset") == before


@pytest.mark.parametrize("at", [0, 1, 1999, 3998, 3999])
def test_the_bad_one_of_many_elements_is_named(socket, at):
    owner = a_set("ipv4_addr")
    items = [element(owner, f"10.0.{n // 256}.{n % 256}") for n in range(4000)]
    items[at] = Element(family=IP, set="s", value=b"\1\2\3")
    create(socket, with_table(IP, owner))
    outcomes = apply_nft(socket, operations("create", items))
    assert faults(outcomes) == [(items[at], errno.EINVAL)]
    assert observe_nft(socket) == with_table(IP, owner)


def test_all_bad_ones_are_named(socket):
    owners = [a_set("ipv4_addr", name=name) for name in ("a", "b")]
    items = [element(owner, "10.0.0.1") for owner in owners]
    create(socket, with_table(IP))
    assert faults(apply_nft(socket, operations("create", items))) == [(item, errno.ENOENT) for item in items]


def test_a_chain_in_use_is_not_deleted(socket):
    create(socket, everything())
    tenant = as_observed(everything())["nft-chain", IP, "tenant"]
    [outcome] = delete(socket, [tenant])
    assert (outcome.errno, outcome.operation.object) == (errno.EBUSY, tenant)
    assert observed(socket) == as_observed(everything())


def test_a_set_that_changes_under_a_chain_leaves_the_chain_as_it_was(socket):
    create(socket, everything())
    before = as_observed(everything())
    handle, rules = chain_handle("tenant"), rule_lines(IP, "tenant")
    desired = a_set(*BOX, name="boxes")
    items = [element(desired, "10.0.0.1", 6, 7)]
    assert apply_nft(socket, [*operations("change", [desired]), *operations("create", items)]) == []
    after = observed(socket)
    assert {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)} == {
        desired.key,
        items[0].key,
        next(key for key in before if key[:3] == ("nft-element", IP, "boxes")),
    }
    assert (chain_handle("tenant"), rule_lines(IP, "tenant")) == (handle, rules)


def test_a_set_whose_new_keys_a_chain_cannot_load_stays(socket):
    """The chain loads an address, a protocol and a port, in 12 bytes."""
    create(socket, everything())
    before = nft("-a", "list", "ruleset")
    desired = a_set("ipv4_addr", *BOX, name="boxes")
    [outcome] = apply_nft(socket, operations("change", [desired]))
    assert outcome.errno in {errno.EINVAL, errno.ENODATA}
    assert nft("-a", "list", "ruleset") == before


def test_what_is_not_nftables_is_refused(socket):
    [outcome] = apply_nft(socket, operations("open", [Table(family=IP)]))
    assert (outcome.errno, outcome.message) == (errno.EINVAL, "nothing of nftables is opened")
    observed_only = ObservedChain(family=IP, name="base")
    [outcome] = apply_nft(socket, operations("create", [observed_only]))
    assert outcome.errno == errno.EINVAL
    assert observe_nft(socket) == []
