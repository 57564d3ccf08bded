"""Rules of others, skimmed: from the expressions that nft and iptables-nft send (nft --debug=netlink)."""

import struct

import pytest

from sealane.explain.doctor.evidence import PortRule
from sealane.linux.foreign_nft import Skimmed
from sealane.linux.netlink.codec import be32, nested, string

EQ, NEQ, LTE, GTE = 0, 1, 3, 5


def expression(name, *attributes):
    return nested(1, string(1, name), nested(2, *attributes))


def meta(key):
    return expression("meta", be32(1, 8), be32(2, key))


def payload(base, offset, length):
    return expression("payload", be32(1, 8), be32(2, base), be32(3, offset), be32(4, length))


def data(kind, value):
    return nested(kind, attr(1, value))


def attr(kind, value):
    return struct.pack("=HH", len(value) + 4, kind) + value + bytes(-len(value) % 4)


def cmp(value, op=EQ):
    return expression("cmp", be32(1, 8), be32(2, op), data(3, value))


def bitwise(mask):
    return expression("bitwise", be32(1, 8), be32(2, 8), be32(3, len(mask)), data(4, mask))


def between(first, last):
    return expression("range", be32(1, 8), be32(2, EQ), data(3, first), data(4, last))


def verdict(code):
    return expression("immediate", be32(1, 0), nested(2, nested(2, be32(1, code & 0xFFFFFFFF))))


def target(name):
    return expression("target", string(1, name))


def match(name, info):
    return expression("match", string(1, name), be32(2, 0), attr(3, info))


COUNTER = expression("counter")
ACCEPT, DROP = verdict(1), verdict(0)
DNAT = expression("nat", be32(1, 1))
SNAT = expression("nat", be32(1, 0))
TCP, UDP = meta(16) + cmp(b"\x06"), meta(16) + cmp(b"\x11")
DPORT = payload(2, 2, 2)


def port(number):
    return number.to_bytes(2, "big")


def skim(*expressions):
    return Skimmed(memoryview(b"".join(expressions)))


@pytest.mark.parametrize(
    ("expressions", "names"),
    [
        ([meta(6), cmp(b"slb0123\0"), ACCEPT], ["slb0123"]),
        ([meta(6), cmp(b"slb"), COUNTER, ACCEPT], ["slb*"]),
        ([meta(7), cmp(b"eth0" + bytes(12)), ACCEPT], ["eth0"]),
        ([meta(17), cmp(b"br0" + bytes(13)), ACCEPT], ["br0"]),
        ([payload(1, 12, 4), cmp(bytes([10, 1, 0, 5])), ACCEPT], ["10.1.0.5/32"]),
        ([payload(1, 16, 3), cmp(bytes([10, 1, 0])), ACCEPT], ["10.1.0.0/24"]),
        (
            [payload(1, 12, 4), bitwise(b"\xff\xf0\0\0"), cmp(bytes([10, 16, 0, 0])), ACCEPT],
            ["10.16.0.0/12"],
        ),
        ([payload(1, 8, 8), cmp(bytes.fromhex("fd00000100000000")), ACCEPT], ["fd00:1::/64"]),
        ([meta(6), cmp(b"slb", NEQ), ACCEPT], []),
        ([meta(4), cmp(b"\1\0\0\0"), ACCEPT], []),
        ([ACCEPT], []),
    ],
)
def test_who_is_let_through(expressions, names):
    rule = skim(*expressions)
    assert (rule.accepts, rule.names) == (True, names)


@pytest.mark.parametrize("expressions", [[DROP], [verdict(-3)], [target("REJECT")], [COUNTER]])
def test_what_accepts_nobody(expressions):
    assert not skim(*expressions).accepts


@pytest.mark.parametrize(
    ("expressions", "final"),
    [
        ([DROP], True),
        ([COUNTER, DROP], True),
        ([expression("log"), expression("reject")], True),
        ([COUNTER, target("REJECT")], True),
        ([TCP, DROP], False),
        ([expression("limit"), DROP], False),
        ([COUNTER, target("LOG")], False),
        ([ACCEPT], False),
        ([COUNTER], False),
    ],
)
def test_a_rule_that_drops_all_that_is_left(expressions, final):
    assert skim(*expressions).is_final_drop is final


@pytest.mark.parametrize(
    ("expressions", "found"),
    [
        ([TCP, DPORT, cmp(port(8080)), DNAT], ("tcp", 8080, 8080, "")),
        ([TCP, DPORT, cmp(port(8080)), COUNTER, target("DNAT")], ("tcp", 8080, 8080, "")),
        ([UDP, DPORT, between(port(80), port(90)), target("REDIRECT")], ("udp", 80, 90, "")),
        ([UDP, DPORT, cmp(port(80), GTE), cmp(port(90), LTE), expression("redir")], ("udp", 80, 90, "")),
        ([DPORT, cmp(port(53)), expression("redir")], ("", 53, 53, "")),
        ([payload(1, 9, 1), cmp(b"\x06"), DPORT, cmp(port(80)), DNAT], ("tcp", 80, 80, "")),
        (
            [payload(1, 16, 4), cmp(bytes([192, 0, 2, 7])), TCP, DPORT, cmp(port(80)), DNAT],
            ("tcp", 80, 80, "192.0.2.7"),
        ),
        ([match("tcp", struct.pack("=HHHH", 0, 65535, 80, 81)), target("DNAT")], ("tcp", 80, 81, "")),
    ],
)
def test_a_port_that_is_sent_elsewhere(expressions, found):
    proto, first, last, address = found
    assert skim(*expressions).port_rule("nat") == PortRule(
        chain="nat", proto=proto, first=first, last=last, address=address
    )


@pytest.mark.parametrize(
    "expressions",
    [
        [TCP, DPORT, cmp(port(80)), SNAT],
        [TCP, DPORT, cmp(port(80)), ACCEPT],
        [TCP, DPORT, cmp(port(80), NEQ), DNAT],
        [TCP, payload(2, 0, 2), cmp(port(80)), DNAT],
        [match("tcp", struct.pack("=HHHH", 0, 65535, 0, 65535)), target("DNAT")],
        [TCP, DNAT],
        [],
    ],
)
def test_rules_that_send_no_port_elsewhere(expressions):
    assert skim(*expressions).port_rule("nat") is None


def test_a_rule_that_lies_about_its_lengths_is_taken_for_a_condition():
    rule = skim(expression("cmp", be32(2, EQ)), expression("immediate"), payload(1, 12, 4), cmp(bytes(40)))
    assert (rule.accepts, rule.is_final_drop, rule.names) == (False, False, [])


def going(code, chain):
    return expression(
        "immediate", be32(1, 0), nested(2, nested(2, be32(1, code & 0xFFFFFFFF), string(2, chain)))
    )


@pytest.mark.parametrize("code", [-3, -4], ids=["jump", "goto"])
def test_a_rule_that_leads_elsewhere(code) -> None:
    rule = Skimmed(memoryview(meta(6) + cmp(b"slb1\0".ljust(16, b"\0")) + going(code, "filter_IN_trusted")))
    assert (rule.leads_to, rule.names, rule.accepts) == ("filter_IN_trusted", ["slb1"], False)


def test_an_accept_by_nothing_but_the_link_it_comes_by() -> None:
    name = cmp(b"slb1\0".ljust(16, b"\0"))
    assert Skimmed(memoryview(meta(6) + name + expression("counter") + verdict(1))).is_by_link
    assert not Skimmed(memoryview(meta(7) + name + verdict(1))).is_by_link
    assert not Skimmed(memoryview(meta(6) + name + meta(7) + name + verdict(1))).is_by_link
    assert not Skimmed(memoryview(meta(6) + name + payload(2, 2, 2) + cmp(b"\0\x16") + verdict(1))).is_by_link


def test_an_accept_without_a_condition_is_final() -> None:
    assert Skimmed(memoryview(expression("counter") + verdict(1))).is_final_accept
    assert not Skimmed(memoryview(meta(6) + cmp(b"slb1\0") + verdict(1))).is_final_accept
    assert not Skimmed(memoryview(verdict(0))).is_final_accept
