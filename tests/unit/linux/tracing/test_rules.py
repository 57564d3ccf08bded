"""What the kernel tells of rules, by hand: which packet, which rule, which verdict; and what is asked of it."""

from __future__ import annotations

from types import SimpleNamespace

import msgspec
import pytest

from sealane.explain.traced.event import Pattern
from sealane.linux.netlink import codec, nfnl
from sealane.linux.netlink.codec import be32, nested, string
from sealane.linux.netlink.socket import Event, LostEventsError
from sealane.linux.tracing import rules as module
from sealane.linux.tracing.rules import COMMENTS_MAX, KEPT_MAX, TABLE, RuleTrace
from unit.explain.traced.packets import ipv4, ipv6, ruled, tcp

TRACE, NETNS = 0x0A11, 77
POLICY, RETURN, RULE = 1, 2, 3
INET, IP, BRIDGE, IP6 = 1, 2, 7, 10


def be64(kind, value):
    return codec.attr(kind, value.to_bytes(8))


def verdict(code, chain=""):
    return nested(5, be32(1, code & 0xFFFFFFFF), string(2, chain) if chain else b"")


def trace(*attributes, identity=1, kind=RULE, handle=4, table="fw", chain="forward", family=IP):
    body = string(1, table) + string(2, chain) + be32(4, kind) + be32(6, identity)
    body += be64(3, handle) if handle else b""
    return Event(TRACE, 0, 0, memoryview(bytes((family, 0, 0, 0)) + body + b"".join(attributes)))


def packet(data=None, iif=2, oif=0, split=20):
    """Its headers, as they come with a chain's first rule."""
    data = data or ipv4(tcp())
    found = codec.attr(8, data[:split]) + codec.attr(9, data[split:])
    return found + (be32(10, iif) if iif else b"") + (be32(12, oif) if oif else b"")


class Netlink:
    """Stands for both sockets."""

    def __init__(self):
        self.port, self.events, self.sent, self.rules, self.dumps, self.errors = 4711, [], [], [], [], []
        self.is_closed = False

    def receive(self):
        events, self.events = self.events, []
        for event in events:
            if event is None:
                raise LostEventsError
            yield event

    def batch(self, messages):
        self.sent += messages
        return self.errors or [None] * len(messages)

    def dump(self, message):
        self.dumps.append(message)
        yield from ((0, memoryview(rule)) for rule in self.rules)

    def close(self):
        self.is_closed = True


@pytest.fixture
def netlink(monkeypatch):
    netlink = Netlink()
    monkeypatch.setattr(module, "_sockets", lambda descriptor: (netlink, netlink))
    return netlink


@pytest.fixture
def traced(netlink):
    with RuleTrace(NETNS, None, [Pattern(proto="tcp", family=4)]) as traced:
        yield traced


def read(traced, netlink, *events):
    netlink.events = list(events)
    return list(traced.read())


# --- what is told ----------------------------------------------------------------------------------------------------


def test_a_rule_with_its_packet(traced, netlink):
    (found,) = read(traced, netlink, trace(packet(iif=2, oif=3), verdict(1)))
    assert (found.netns, found.family, found.table, found.chain, found.handle) == (
        NETNS,
        "ip",
        "fw",
        "forward",
        4,
    )
    assert (found.iif, found.oif, found.verdict) == (2, 3, "accept")
    assert (found.headers.flow.source, found.headers.flow.destination_port) == ("10.1.0.2", 80)


def test_ipv6_is_put_together_from_both_headers(traced, netlink):
    (found,) = read(traced, netlink, trace(packet(ipv6(tcp()), split=40), verdict(0), family=IP6))
    assert (found.family, found.headers.flow.source, found.verdict) == ("ip6", "fd00::2", "drop")


def test_later_rules_are_of_the_packet_before(traced, netlink):
    found = read(
        traced,
        netlink,
        trace(packet(iif=2), verdict(-3, "later")),
        trace(verdict(0), handle=5, chain="later"),
    )
    assert [(one.handle, one.iif, one.headers.flow.destination_port) for one in found] == [
        (4, 2, 80),
        (5, 2, 80),
    ]


def test_an_id_that_comes_back_is_the_new_packets(traced, netlink):
    read(traced, netlink, trace(packet(iif=2), verdict(1)))
    found = read(
        traced, netlink, trace(packet(ipv4(tcp(1, 99)), iif=3), verdict(1)), trace(verdict(1), handle=5)
    )
    assert [(one.iif, one.headers.flow.destination_port) for one in found] == [(3, 99), (3, 99)]


def test_a_rule_of_a_packet_that_is_not_known_is_left_out(traced, netlink):
    assert read(traced, netlink, trace(verdict(1), identity=99)) == []


def test_packets_that_are_kept_have_a_bound(traced, netlink):
    read(traced, netlink, *(trace(packet(), verdict(1), identity=n) for n in range(1, KEPT_MAX + 2)))
    assert read(traced, netlink, trace(verdict(1), identity=1)) == []
    assert len(read(traced, netlink, trace(verdict(1), identity=2))) == 1


@pytest.mark.parametrize(
    ("code", "chain", "text"),
    [
        (0, "", "drop"), (1, "", "accept"), (3, "", "queue"), (0x10003, "", "queue"), (-1, "", "continue"),
        (-5, "", "return"), (-3, "into", "jump into"), (-4, "into", "goto into"), (-3, "", "jump ?"), (-9, "", "-9"),
    ],
)  # fmt: skip
def test_verdicts(traced, netlink, code, chain, text):
    assert read(traced, netlink, trace(packet(), verdict(code, chain)))[0].verdict == text


@pytest.mark.parametrize(("code", "text"), [(0, "drop"), (1, "accept")])
def test_a_chains_policy_has_no_rule(traced, netlink, code, text):
    read(traced, netlink, trace(packet(), verdict(1)))
    (found,) = read(traced, netlink, trace(be32(16, code), kind=POLICY, handle=0))
    assert (found.handle, found.verdict) == (0, text)


def test_what_is_neither_rule_nor_policy_is_left_out(traced, netlink):
    assert (
        read(traced, netlink, trace(packet(), verdict(1), kind=RETURN), trace(packet(), kind=RULE, handle=0))
        == []
    )


@pytest.mark.parametrize("port", [4711, 9])
def test_our_own_marks_and_those_of_other_traces_are_not_told(traced, netlink, port):
    assert read(traced, netlink, trace(packet(), verdict(-1), table=f"{TABLE}{port}")) == []


def test_but_the_packet_is_known_from_them(traced, netlink):
    """The first rule that a packet meets is the one that marks it."""
    read(traced, netlink, trace(packet(iif=8), verdict(-1), table=f"{TABLE}4711"))
    assert read(traced, netlink, trace(verdict(1)))[0].iif == 8


@pytest.mark.parametrize(("number", "name"), [(INET, "inet"), (BRIDGE, "bridge"), (5, "netdev"), (3, "3")])
def test_families(traced, netlink, number, name):
    assert read(traced, netlink, trace(packet(), verdict(1), family=number))[0].family == name


def test_rules_that_were_missed_are_counted(traced, netlink):
    assert len(read(traced, netlink, trace(packet(), verdict(1)), None)) == 1
    assert traced.lost == 1


def test_other_messages_are_nothing(traced, netlink):
    assert read(traced, netlink, Event(0x0A00, 0, 0, memoryview(bytes(20)))) == []


# --- comments --------------------------------------------------------------------------------------------------------


def rule(handle, userdata=b"", table="fw", chain="forward"):
    body = string(1, table) + string(2, chain) + be64(3, handle)
    return bytes((IP, 0, 0, 0)) + body + (codec.attr(7, userdata) if userdata else b"")


def noted(text, before=b""):
    data = text.encode() + b"\0"
    return before + bytes((0, len(data))) + data


def test_rules_are_called_by_their_comments(traced, netlink):
    netlink.rules = [rule(4, noted("no games")), rule(5, noted("other"))]
    (found,) = traced.named([ruled(table="fw", chain="forward", handle=4)])
    assert found.comment == "no games"


def test_they_are_asked_for_once(traced, netlink):
    netlink.rules = [rule(4, noted("no games"))]
    for _ in range(3):
        traced.named([ruled(table="fw", handle=4), ruled(table="fw", handle=99)])
    assert len(netlink.dumps) == 1
    assert [one.comment for one in traced.named([ruled(table="fw", handle=4)])] == ["no games"]


def test_each_family_is_asked_for(traced, netlink):
    traced.named([ruled(family=family, table="fw") for family in ("ip", "inet", "bridge")])
    assert len(netlink.dumps) == 3


def test_policies_are_not_asked_for(traced, netlink):
    assert traced.named([ruled(table="fw", handle=0)])[0].comment == ""
    assert netlink.dumps == []


def test_comments_that_are_kept_have_a_bound(traced, netlink):
    traced.named([ruled(table="fw", handle=n) for n in range(1, COMMENTS_MAX + 1)])
    traced.named([ruled(table="fw", handle=COMMENTS_MAX + 1)])
    assert len(traced._comments) == 1


# --- what is asked ---------------------------------------------------------------------------------------------------


def messages(netlink):
    for data in netlink.sent:
        for kind, _, _, payload in codec.messages(memoryview(data)):
            yield kind & 0xFF, payload[0], codec.attrs(payload[4:]) if len(payload) > 4 else {}


def tables(netlink):
    return [
        (family, codec.text(attrs[1]), attrs.get(2))
        for kind, family, attrs in messages(netlink)
        if kind == nfnl.NEWTABLE & 0xFF
    ]


def test_the_table_goes_with_its_socket_and_is_called_by_it(traced, netlink):
    """NFT_TABLE_F_OWNER; a name of its own for each trace, since nobody else is let in."""
    found = tables(netlink)
    assert {(name, bytes(flags)) for _, name, flags in found} == {(f"{TABLE}4711", (2).to_bytes(4))}
    assert [family for family, _, _ in found] == [IP, BRIDGE]


def test_a_rule_is_where_packets_come_in_and_where_they_are_sent(netlink):
    patterns = [
        Pattern(proto="tcp", family=4),
        Pattern(proto="tcp", family=6),
        Pattern(proto="udp", family=6),
    ]
    with RuleTrace(NETNS, None, patterns):
        made = [
            (family, codec.text(attrs[2]))
            for kind, family, attrs in messages(netlink)
            if kind == nfnl.NEWRULE & 0xFF
        ]
    expected = {IP: 1, IP6: 2, BRIDGE: 3}
    for family, count in expected.items():
        assert made.count((family, "prerouting")) == made.count((family, "output")) == count


def test_a_refusal_is_raised_and_closes_both(netlink):
    netlink.errors = [PermissionError(1, "Operation not permitted")]
    with pytest.raises(PermissionError):
        RuleTrace(NETNS, None, [Pattern(proto="tcp", family=4)])
    assert netlink.is_closed


def test_an_owner_is_closed_when_nothing_can_be_heard(monkeypatch):
    made = []

    def socket(family, groups=()):
        if groups:
            raise OSError(24, "too many open files")
        made.append(SimpleNamespace(close=lambda: made.append("closed")))
        return made[0]

    monkeypatch.setattr(module, "Socket", socket)
    with pytest.raises(OSError, match="too many"):
        module._sockets(None)
    assert made[-1] == "closed"


@pytest.mark.parametrize(
    ("pattern", "statements"),
    [
        (Pattern(proto="tcp", family=4), 2),
        (Pattern(proto="tcp", family=4, source="10.1.0.2", destination="10.1.0.3", destination_port=80), 5),
        (Pattern(proto="icmp", family=6, source="fd00::2", source_port=9, destination_port=9), 3),
    ],
)
def test_a_rule_looks_at_what_the_pattern_names(pattern, statements):
    """Of ICMP the ports are its id, which is no port."""
    assert len(module._rule(pattern).statements) == statements


def test_a_named_trace_event_is_else_the_same(traced):
    before = ruled(table="fw", handle=4)
    (after,) = traced.named([before])
    assert msgspec.structs.replace(after, comment="") == before
