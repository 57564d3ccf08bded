"""nf_tables messages: what of them the kernel does not check for us."""

import struct

import pytest

from sealane.kernel.nft import DROP, TYPE_BYTES, Chain, Element, Rule, Set, Verdict
from sealane.linux.netlink import codec, nfnl


def body(message):
    """Attributes behind the netlink and the netfilter header."""
    return codec.attrs(memoryview(message)[20:])


def userdata(rule):
    return body(nfnl.new_rule(Chain(family="ip", name="c"), rule))[7]


def test_messages_name_their_subsystem_family_and_length():
    message = nfnl.delete_table("bridge", destroy=True)
    length, kind, flags, _, port = struct.unpack_from("=IHHII", message)
    assert (length, kind, flags, port) == (len(message), 0x0A1A, 1, 0)
    assert message[16:20] == bytes((7, 0, 0, 0))


@pytest.mark.parametrize(
    ("deletion", "plain"),
    [
        (nfnl.delete_table, nfnl.DELTABLE),
        (lambda *a, **k: nfnl.delete_chain(*a, "c", **k), nfnl.DELCHAIN),
        (lambda *a, **k: nfnl.flush_chain(*a, "c", **k), nfnl.DELRULE),
        (lambda *a, **k: nfnl.delete_set(*a, "s", **k), nfnl.DELSET),
    ],
)
def test_deletions_come_in_two_kinds_that_are_else_the_same(deletion, plain):
    old, new = deletion("ip", destroy=False), deletion("ip", destroy=True)
    assert struct.unpack_from("=H", old, 4)[0] == 0x0A00 | plain
    assert (nfnl.is_destroy(old), nfnl.is_destroy(new)) == (False, True)
    assert old[6:] == new[6:]


def test_begin_and_end_are_no_deletions():
    assert not nfnl.is_destroy(nfnl.BEGIN)
    assert not nfnl.is_destroy(nfnl.END)


def test_a_rule_keeps_its_tag_and_comment_as_nft_keeps_comments():
    rule = Rule((DROP,), "n:1")
    text = f"{rule.tag()} n:1".encode() + b"\0"
    assert bytes(userdata(rule)) == bytes((0, len(text))) + text
    assert nfnl.rule_tag(userdata(rule)) == rule.tag()
    assert nfnl.rule_tag(userdata(Rule((DROP,)))) == Rule((DROP,)).tag()


@pytest.mark.parametrize("data", [None, b"", b"\0", b"\0\6hello\0", b"\1" + 30 * b"a", bytes(17)])
def test_user_data_that_is_not_ours_has_no_tag(data):
    assert nfnl.rule_tag(None if data is None else memoryview(data)) == "?"


@pytest.mark.parametrize("comment", ['a"b', "a\nb", "ü", "a\0b", "x" * 111])
def test_a_comment_that_is_no_id_is_refused(comment):
    with pytest.raises(ValueError, match="short id"):
        userdata(Rule((DROP,), comment))


def test_the_longest_comment_fits():
    """nft shows 128 bytes with the NUL: a tag, a blank, 110 more."""
    assert len(userdata(Rule((DROP,), "x" * 110))) == 2 + 128


@pytest.mark.parametrize(
    ("kinds", "number"),
    [
        (("ipv4_addr",), 7),
        (("ipv6_addr",), 8),
        (("ether_addr",), 9),
        (("inet_proto",), 12),
        (("inet_service",), 13),
        (("ifname",), 41),
        (("inet_proto", "inet_service"), 12 << 6 | 13),
        (("ifname", "ipv4_addr"), 41 << 6 | 7),
        (("ipv4_addr", "inet_proto", "inet_service"), (7 << 6 | 12) << 6 | 13),
    ],
)
def test_types_have_nfts_numbers(kinds, number):
    assert nfnl.type_id(kinds) == number
    assert nfnl.types_of(number) == kinds


@pytest.mark.parametrize("number", [0, 1, 63, 19, 7 << 6, 19 << 6 | 7, 1 << 31])
def test_numbers_of_foreign_types_have_none(number):
    assert nfnl.types_of(number) == ()


def test_verdicts_are_no_key():
    with pytest.raises(ValueError, match="verdict"):
        nfnl.new_set(Set(family="ip", name="s", type=("verdict",)), 1)


@pytest.mark.parametrize("kind", TYPE_BYTES)
def test_one_field_has_its_length_and_several_have_registers(kind):
    assert nfnl.type_bytes((kind,)) == TYPE_BYTES[kind]
    assert nfnl.type_bytes((kind, "inet_proto")) % 4 == 0
    assert nfnl.type_bytes(()) == 0


def element(value, end=b"", data=b""):
    return Element(family="ip", set="s", value=value, end=end, data=data)


def parts(message):
    return [codec.attrs(payload) for _, payload in codec.attr_list(memoryview(message))]


def keys(item):
    return [(bytes(codec.attrs(part[1])[1]), 3 in part) for part in parts(nfnl.range_element(item))]


@pytest.mark.parametrize(
    ("value", "end", "beyond"),
    [
        (b"\x0a\0\0\0", b"\x0a\0\0\xff", b"\x0a\0\1\0"),
        (b"\0\0\0\0", b"\0\0\0\0", b"\0\0\0\1"),
        (b"\0\0", b"\xff\xfe", b"\xff\xff"),
        (bytes(16), bytes(15) + b"\xff", bytes(14) + b"\1\0"),
    ],
)
def test_a_range_is_its_start_and_what_follows_its_end(value, end, beyond):
    assert keys(element(value, end)) == [(value, False), (beyond, True)]


@pytest.mark.parametrize("size", [1, 2, 4, 6, 16])
def test_nothing_follows_the_last_value(size):
    assert keys(element(bytes(size), b"\xff" * size)) == [(bytes(size), False)]


def test_only_the_start_of_a_range_has_data():
    start, end = parts(nfnl.range_element(element(b"\0\0", b"\0\1", data=DROP)))
    assert (2 in start, 2 in end) == (True, False)


def test_a_box_has_both_corners():
    [part] = parts(nfnl.box_element(element(bytes(8), b"\1" * 8, data=b"\7\7\7\7")))
    assert bytes(codec.attrs(part[1])[1]) == bytes(8)
    assert bytes(codec.attrs(part[10])[1]) == b"\1" * 8
    assert bytes(codec.attrs(part[2])[1]) == b"\7\7\7\7"


def test_the_element_of_no_value_matches_everything():
    [part] = parts(nfnl.element(element(b"", data=Verdict("jump", "c"))))
    assert part.keys() == {2, 3}
    assert bytes(part[3]) == b"\0\0\0\2"


def test_elements_start_where_they_are_said_to():
    one = nfnl.element(element(b"\1\2\3\4"))
    for name in ("s", "sets", "a-set-of-many-letters"):
        message = nfnl.elements(nfnl.NEWSETELEM, "ip", name, [one])
        assert message[nfnl.elements_start(name) :] == one


def noted(text, before=b""):
    data = text.encode() + b"\0"
    return before + bytes((0, len(data))) + data


@pytest.mark.parametrize(
    ("userdata", "comment"),
    [
        (b"", ""),
        (noted("plain"), "plain"),
        (noted("behind", before=bytes((1, 2, 9, 9))), "behind"),
        (bytes((1, 2, 9, 9)), ""),
        (bytes((0,)), ""),
        (bytes((0, 200)) + b"cut off", "cut off"),
        (noted("grüße"), "grüße"),
    ],
)
def test_what_a_rules_maker_noted(userdata, comment):
    assert nfnl.comment_of(memoryview(userdata) if userdata else None) == comment
