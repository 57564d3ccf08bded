"""Every statement that sealane emits, evaluated; what it does not emit, refused."""

import msgspec
import pytest

from sealane.explain.conntrack import ORIGINAL, REPLY, Tracked
from sealane.explain.foreign_state import ForeignState
from sealane.explain.netfilter import JUMPS_MAX, Evaluation, UnknownStatementError
from sealane.explain.packet import DNAT, SNAT, Flow, Packet, Tuple
from sealane.explain.world import IncompleteStateError, Namespace
from sealane.kernel import nft
from sealane.kernel.links import Bridge, Veth
from sealane.kernel.nft import (
    ACCEPT,
    DROP,
    RETURN,
    BitTest,
    Chain,
    Cmp,
    CmpPrefix,
    CmpRange,
    Concat,
    Counter,
    Ct,
    DnatMap,
    Element,
    Fib,
    Hook,
    Lookup,
    Masquerade,
    Meta,
    Notrack,
    Rule,
    Set,
    Snat,
    Statement,
    Verdict,
    VerdictMap,
)
from sealane.kernel.objects import Address, Link
from sealane.kernel.state import namespace

PACKET = Packet(source="10.1.0.2", source_port=40000, destination="192.0.2.7", destination_port=8080)
SIX = Packet(source="fd00::2", source_port=1, destination="fd00::1", destination_port=2)
ARP = Packet(proto="arp", source="10.1.0.2", destination="10.1.0.1", mac_source="02:00:00:00:00:02")
LINKS = (
    Link(name="br0", kind=Bridge(), mac="02:00:00:00:00:01", addr_gen_none=True, group=0x4000_0001),
    Link(name="out0", kind=Veth(), mac="02:00:00:00:00:09", addr_gen_none=True),
)
ADDRESSES = (Address(link="br0", address="10.1.0.1/24"), Address(link="out0", address="192.0.2.7/24"))


def chain(*rules: tuple[Statement, ...], name: str = "base", hooked: bool = True) -> Chain:
    hook = Hook("filter", "forward", 0) if hooked else None
    return Chain(family="ip", name=name, rules=tuple(Rule(r) for r in rules), hook=hook)


def tracked(direction: int = ORIGINAL, state: str = "new", status: int = 0) -> Tracked:
    original = Tuple("tcp", "10.1.0.2", 40000, "192.0.2.7", 8080)
    flow = Flow(netns="host", original=original, reply=original.inverse, status=status)
    return Tracked(flow, direction, state, confirmed=False)


def evaluate(
    base: Chain, *others: object, packet: Packet = PACKET, ct: Tracked | None = None, oif: str = "out0"
):
    state = namespace([base, *others, *LINKS, *ADDRESSES])  # type: ignore[list-item]
    where = Namespace("host", "host", state, ForeignState())
    evaluation = Evaluation(where, "ip", packet, "br0", oif, ct)
    return evaluation.run(base).code, evaluation


def matches(
    *statements: Statement, packet: Packet = PACKET, ct: Tracked | None = None, others: tuple = ()
) -> bool:
    """Whether a rule with these statements and a drop drops."""
    return evaluate(chain((*statements, DROP)), *others, packet=packet, ct=ct)[0] == "drop"


# --- loads and comparisons ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        (Cmp(nft.IIFNAME, "==", b"br0".ljust(16, b"\0"), '"br0"'), True),
        (Cmp(nft.IIFNAME, "==", b"br", '"br*"'), True),
        (Cmp(nft.IIFNAME, "==", b"br".ljust(16, b"\0"), '"br"'), False),
        (Cmp(nft.OIFNAME, "!=", b"out0".ljust(16, b"\0"), '"out0"'), False),
        (Cmp(Meta("iifgroup"), "==", nft.field("devgroup", 0x4000_0001), "g"), True),
        (Cmp(Meta("oifgroup"), "==", nft.field("devgroup", 0x4000_0001), "g"), False),
        (Cmp(nft.L4PROTO, "==", b"\x06", "tcp"), True),
        (Cmp(Meta("protocol"), "==", b"\x08\x00", "ip"), True),
        (Cmp(nft.DPORT, "==", (8080).to_bytes(2, "big"), "8080"), True),
        (Cmp(nft.SPORT, "!=", (40000).to_bytes(2, "big"), "40000"), False),
        (CmpPrefix(nft.IP_SADDR, "==", "10.1.0.0/24"), True),
        (CmpPrefix(nft.IP_SADDR, "!=", "10.1.0.0/24"), False),
        (CmpPrefix(nft.IP_DADDR, "==", "10.1.0.0/24"), False),
        (CmpRange(nft.SPORT, (39999).to_bytes(2, "big"), (40000).to_bytes(2, "big"), "r"), True),
        (CmpRange(nft.SPORT, (1).to_bytes(2, "big"), (39999).to_bytes(2, "big"), "r"), False),
        (Cmp(Fib(), "==", nft.FIB_LOCAL.to_bytes(4, "little"), "local"), True),
        (Cmp(Fib(of_source=True), "==", nft.FIB_LOCAL.to_bytes(4, "little"), "local"), False),
        (Counter(), True),
    ],
)
def test_a_comparison(statement: Statement, expected: bool) -> None:
    assert matches(statement) is expected


def test_an_address_of_nobody_here_is_not_local() -> None:
    elsewhere = msgspec.structs.replace(PACKET, destination="192.0.2.8")
    assert not matches(Cmp(Fib(), "==", nft.FIB_LOCAL.to_bytes(4, "little"), "local"), packet=elsewhere)


def test_what_a_packet_does_not_have_ends_the_rule_also_if_it_is_negated() -> None:
    """NFT_BREAK: ARP has no ports and no protocol; a rule about them is passed over, whichever way it compares."""
    for op in ("==", "!="):
        assert not matches(Cmp(nft.DPORT, op, b"\0\x50", "80"), packet=ARP)
        assert not matches(Cmp(nft.L4PROTO, op, b"\x06", "tcp"), packet=ARP)
    assert not matches(Lookup(Concat((nft.L4PROTO, nft.DPORT)), "none", negate=True), packet=ARP)
    assert not matches(CmpPrefix(nft.IP6_DADDR, "!=", "fd00::/64"), packet=ARP)
    assert not matches(Cmp(nft.ND_TARGET[0], "!=", bytes(8), "0x0"), packet=SIX)
    assert not evaluate(chain((Cmp(Meta("oifgroup"), "!=", bytes(4), "0"), DROP)), oif="")[0] == "drop"


def test_the_senders_of_arp_are_read_from_its_body() -> None:
    assert matches(Cmp(nft.ARP_SENDER_IP, "==", nft.field("ipv4_addr", "10.1.0.2"), "10.1.0.2"), packet=ARP)
    assert matches(Cmp(nft.ARP_HEAD, "==", bytes.fromhex("000108000604"), "head"), packet=ARP)


# --- connection tracking --------------------------------------------------------------------------------------------

ESTABLISHED = BitTest(
    Ct("state"), nft.CT_STATE["established"] | nft.CT_STATE["related"], "established,related"
)


@pytest.mark.parametrize(("state", "expected"), [("new", False), ("established", True), ("related", True)])
def test_a_state_is_one_of_several(state: str, expected: bool) -> None:
    assert matches(ESTABLISHED, ct=tracked(state=state)) is expected


def test_direction_and_status() -> None:
    reply = Cmp(Ct("direction"), "==", b"\x01", "reply")
    assert matches(reply, ct=tracked(REPLY))
    assert not matches(reply, ct=tracked(ORIGINAL))
    assert matches(BitTest(Ct("status"), DNAT, "dnat"), ct=tracked(status=DNAT))
    assert not matches(BitTest(Ct("status"), DNAT, "dnat"), ct=tracked(status=SNAT))


def test_of_an_untracked_packet_only_the_state_can_be_asked() -> None:
    """nft_ct_get_eval breaks for every other key."""
    assert matches(BitTest(Ct("state"), nft.CT_STATE["invalid"], "invalid"))
    assert not matches(Cmp(Ct("direction"), "!=", b"\x01", "reply"))
    rules = chain((Notrack(),), (BitTest(Ct("state"), nft.CT_STATE["untracked"], "untracked"), DROP))
    verdict, evaluation = evaluate(rules)
    assert verdict == "drop"
    assert evaluation.is_untracked


def test_notrack_leaves_a_tracked_packet_alone() -> None:
    assert not evaluate(chain((Notrack(),)), ct=tracked())[1].is_untracked


# --- sets and maps --------------------------------------------------------------------------------------------------

NAMES = Set(family="ip", name="names", type=("ifname",))
BR0 = Element(family="ip", set="names", value=nft.field("ifname", "br0"))


def test_lookups() -> None:
    assert matches(Lookup(nft.IIFNAME, "names"), others=(NAMES, BR0))
    assert not matches(Lookup(nft.OIFNAME, "names"), others=(NAMES, BR0))
    assert matches(Lookup(nft.OIFNAME, "names", negate=True), others=(NAMES, BR0))


def test_the_parts_of_a_concatenation_stand_in_registers_of_their_own() -> None:
    kinds = ("ifname", "ipv4_addr", "inet_service")
    where = Set(family="ip", name="where", type=kinds)
    value = nft.concat(kinds, ("br0", "10.1.0.2", 8080))
    there = Element(family="ip", set="where", value=value)
    assert matches(Lookup(Concat((nft.IIFNAME, nft.IP_SADDR, nft.DPORT)), "where"), others=(where, there))


def test_a_verdict_map_without_the_key_goes_on_with_the_next_rule() -> None:
    verdicts = Set(family="ip", name="v", type=("ifname",), data=("verdict",))
    item = Element(family="ip", set="v", value=nft.field("ifname", "br0"), data=Verdict("goto", "mine"))
    mine = chain((DROP,), name="mine", hooked=False)
    assert evaluate(chain((VerdictMap(nft.IIFNAME, "v"),)), verdicts, item, mine)[0] == "drop"
    assert evaluate(chain((VerdictMap(nft.OIFNAME, "v"),), (ACCEPT,)), verdicts, item, mine)[0] == "accept"


def test_the_rule_and_the_element_that_decided_are_told() -> None:
    verdicts = Set(family="ip", name="v", type=("ifname",), data=("verdict",))
    item = Element(family="ip", set="v", value=nft.field("ifname", "br0"), data=DROP)
    _, evaluation = evaluate(chain((VerdictMap(nft.IIFNAME, "v"),)), verdicts, item)
    (hit,) = evaluation.hits
    assert (hit.key, hit.outcome) == (item.key, "drop")
    assert hit.text(evaluation.where) == 'ip base: iifname vmap @v   { "br0" : drop }'


# --- verdicts -------------------------------------------------------------------------------------------------------

SUB = chain((RETURN,), (DROP,), name="sub", hooked=False)


def test_jump_comes_back_and_goto_does_not() -> None:
    assert evaluate(chain((Verdict("jump", "sub"),), (DROP,)), SUB)[0] == "drop"
    assert evaluate(chain((Verdict("goto", "sub"),), (DROP,)), SUB)[0] == "accept"


def test_goto_in_a_chain_that_was_jumped_to_comes_back_to_the_jump() -> None:
    middle = chain((Verdict("goto", "sub"),), (DROP,), name="middle", hooked=False)
    assert evaluate(chain((Verdict("jump", "middle"),), (DROP,)), middle, SUB)[0] == "drop"
    assert evaluate(chain((Verdict("jump", "middle"),)), middle, SUB)[0] == "accept"


def test_return_and_the_end_of_a_base_chain_are_its_policy() -> None:
    assert evaluate(chain((RETURN,), (DROP,)))[0] == "accept"
    assert evaluate(chain())[0] == "accept"


def test_accept_ends_the_base_chain_from_any_depth() -> None:
    deep = chain((ACCEPT,), name="deep", hooked=False)
    assert evaluate(chain((Verdict("jump", "deep"),), (DROP,)), deep)[0] == "accept"


def test_endless_jumps_are_an_error() -> None:
    self_calling = chain((Verdict("jump", "base"),))
    with pytest.raises(IncompleteStateError, match=str(JUMPS_MAX)):
        evaluate(self_calling)


def test_a_chain_that_is_not_there_is_an_error() -> None:
    with pytest.raises(IncompleteStateError, match="nowhere"):
        evaluate(chain((Verdict("jump", "nowhere"),)))


# --- translations ---------------------------------------------------------------------------------------------------


def test_a_map_of_addresses_and_ports_translates_the_destination() -> None:
    kinds = ("inet_proto", "inet_service")
    ports = Set(family="ip", name="publish", type=kinds, data=("ipv4_addr", "inet_service"))
    data = nft.concat(("ipv4_addr", "inet_service"), ("10.1.0.2", 80))
    item = Element(family="ip", set="publish", value=nft.concat(kinds, (6, 8080)), data=data)
    flow = tracked()
    rule = (DnatMap(Concat((nft.L4PROTO, nft.DPORT)), "publish", with_port=True),)
    assert evaluate(chain(rule, (DROP,)), ports, item, ct=flow)[0] == "accept"
    assert (flow.flow.reply.source, flow.flow.reply.source_port, flow.flow.status) == ("10.1.0.2", 80, DNAT)


def test_a_map_of_addresses_leaves_the_port() -> None:
    ports = Set(family="ip", name="ranges", type=("inet_service",), data=("ipv4_addr",), interval=True)
    item = Element(
        family="ip",
        set="ranges",
        value=nft.field("inet_service", 8000),
        end=nft.field("inet_service", 8100),
        data=nft.field("ipv4_addr", "10.1.0.2"),
    )
    flow = tracked()
    evaluate(chain((DnatMap(nft.DPORT, "ranges", with_port=False),)), ports, item, ct=flow)
    assert (flow.flow.reply.source, flow.flow.reply.source_port) == ("10.1.0.2", 8080)


def test_an_unpublished_port_goes_on_with_the_next_rule() -> None:
    ports = Set(family="ip", name="publish", type=("inet_service",), data=("ipv4_addr",))
    assert (
        evaluate(chain((DnatMap(nft.DPORT, "publish", with_port=False),), (DROP,)), ports, ct=tracked())[0]
        == "drop"
    )


def test_snat_and_masquerade() -> None:
    flow = tracked()
    evaluate(chain((Snat("192.0.2.99"),)), ct=flow)
    assert flow.flow.reply.destination == "192.0.2.99"
    flow = tracked()
    evaluate(chain((Masquerade(),)), ct=flow)
    assert flow.flow.reply.destination == "192.0.2.7"


# --- what is not known ----------------------------------------------------------------------------------------------


class Queue(msgspec.Struct, frozen=True, tag=True):
    """A statement of nftables that sealane does not emit."""


def test_an_unknown_statement_is_an_error_and_not_a_guess() -> None:
    with pytest.raises(UnknownStatementError, match="Queue"):
        evaluate(chain((Queue(),)))  # type: ignore[arg-type]


@pytest.mark.parametrize("load", [Meta("mark"), Ct("mark"), Queue()])  # type: ignore[arg-type]
def test_an_unknown_load_is_an_error(load) -> None:
    with pytest.raises(UnknownStatementError):
        evaluate(chain((Cmp(load, "==", b"\0", "0"), DROP)), ct=tracked())


def test_elements_that_do_not_fit_their_map_are_an_error() -> None:
    verdicts = Set(family="ip", name="v", type=("ifname",), data=("verdict",))
    bare = Element(family="ip", set="v", value=nft.field("ifname", "br0"), data=b"\0")
    with pytest.raises(IncompleteStateError, match="no verdict"):
        evaluate(chain((VerdictMap(nft.IIFNAME, "v"),)), verdicts, bare)
    orphan = Element(family="ip", set="nat", value=nft.field("ifname", "br0"), data=bytes(4))
    with pytest.raises(IncompleteStateError, match="no address"):
        evaluate(chain((DnatMap(nft.IIFNAME, "nat", with_port=False),)), orphan, ct=tracked())
    ranged = Element(family="ip", set="lost", value=nft.field("ifname", "br0"), end=b"\xff" * 16)
    with pytest.raises(IncompleteStateError, match="no such set"):
        evaluate(chain((Lookup(nft.IIFNAME, "lost"), DROP)), ranged)


def test_a_translation_of_what_is_not_tracked_is_an_error() -> None:
    with pytest.raises(IncompleteStateError, match="outside connection tracking"):
        evaluate(chain((Snat("192.0.2.99"),)))
