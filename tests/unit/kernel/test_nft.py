"""Bytes of keys, tags of rules, keys of objects."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealane.kernel.nft import (
    ACCEPT,
    DROP,
    IIFNAME,
    IP_DADDR,
    IP_SADDR,
    TYPE_BYTES,
    Chain,
    Cmp,
    Element,
    Lookup,
    Rule,
    Set,
    Table,
    Verdict,
    concat,
    field,
)
from sealane.kernel.state import namespace


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("ifname", "eth0", b"eth0" + bytes(12)),
        ("ifname", "a23456789012345", b"a23456789012345\0"),
        ("ipv4_addr", "10.1.0.2", b"\x0a\1\0\2"),
        ("ipv6_addr", "fd00::2", b"\xfd" + bytes(14) + b"\2"),
        ("ether_addr", "02:42:0a:01:00:02", b"\2\x42\x0a\1\0\2"),
        ("inet_proto", 6, b"\6"),
        ("inet_service", 8080, b"\x1f\x90"),
        ("inet_service", 65535, b"\xff\xff"),
    ],
)
def test_a_field_is_the_kernels_bytes(kind, value, expected):
    assert field(kind, value) == expected
    assert len(expected) == TYPE_BYTES[kind]


@pytest.mark.parametrize(("kind", "value"), [("verdict", "x"), ("mark", 1)])
def test_other_types_are_refused(kind, value):
    with pytest.raises(ValueError, match=kind):
        field(kind, value)


@pytest.mark.parametrize(
    ("kind", "value"),
    [("inet_service", 65536), ("inet_proto", 256), ("inet_service", -1), ("ipv4_addr", "fd00::1")],
)
def test_values_out_of_range_are_refused(kind, value):
    with pytest.raises((ValueError, OverflowError, OSError)):
        field(kind, value)


def test_a_concatenation_pads_each_field_to_a_register():
    assert concat(("inet_proto", "inet_service"), (6, 80)) == b"\6\0\0\0\0\x50\0\0"
    assert (
        concat(("ether_addr", "ipv4_addr"), ("02:00:00:00:00:01", "1.2.3.4")) == b"\2\0\0\0\0\1\0\0\1\2\3\4"
    )
    assert concat(("inet_service",), (80,)) == b"\0\x50"
    with pytest.raises(ValueError, match="zip"):
        concat(("inet_service",), (80, 81))


RULES = [
    Rule((DROP,)),
    Rule((ACCEPT,)),
    Rule((DROP,), "n:1"),
    Rule((Verdict("jump", "a"),)),
    Rule((Verdict("goto", "a"),)),
    Rule((Verdict("jump", "b"),)),
    Rule((Lookup(IP_SADDR, "s"), DROP)),
    Rule((Lookup(IP_SADDR, "s", negate=True), DROP)),
    Rule((Lookup(IP_DADDR, "s"), DROP)),
    Rule((Lookup(IP_SADDR, "t"), DROP)),
    Rule((Cmp(IIFNAME, "==", b"sl", '"sl*"'), DROP)),
    Rule((Cmp(IIFNAME, "!=", b"sl", '"sl*"'), DROP)),
    Rule((DROP, Lookup(IP_SADDR, "s"))),
]


def test_rules_have_equal_tags_when_they_are_equal():
    assert len({rule.tag() for rule in RULES}) == len(RULES)
    assert [rule.tag() for rule in RULES] == [Rule(rule.statements, rule.comment).tag() for rule in RULES]


def test_a_tag_is_the_same_in_every_process():
    """It is compared with what an earlier process, perhaps of an earlier version, has left in the kernel."""
    assert Rule((Lookup(IP_SADDR, "s"), DROP), "n:1").tag() == "4720df5765587cc2"


def test_a_chains_tags_are_its_rules_in_order():
    chain = Chain(family="ip", name="c", rules=tuple(RULES))
    assert chain.tags == tuple(rule.tag() for rule in RULES)


def test_keys_tell_objects_apart_that_the_kernel_holds_apart():
    objects = [
        Table(family="ip"),
        Table(family="ip6"),
        Chain(family="ip", name="a"),
        Chain(family="ip6", name="a"),
        Set(family="ip", name="a", type=("ipv4_addr",)),
        Element(family="ip", set="a", value=b"\0"),
        Element(family="ip", set="a", value=b"\0", end=b"\1"),
        Element(family="ip", set="b", value=b"\0"),
    ]
    assert len(namespace(objects)) == len(objects)


@given(st.sampled_from(["ip", "ip6"]))
def test_two_states_of_one_object_are_a_compilers_bug(family):
    item = Set(family=family, name="a", type=("ipv4_addr",))
    assert len(namespace([item, item])) == 1
    with pytest.raises(ValueError, match="two objects with the key"):
        namespace([item, Set(family=family, name="a", type=("ipv4_addr",), interval=True)])
