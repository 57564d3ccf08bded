"""BTF by hand: what the format allows, what is torn, and this kernel's own."""

from __future__ import annotations

import os
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealane.linux.bpf import btf
from sealane.linux.bpf.btf import Btf, BtfError

INT, PTR, ARRAY, STRUCT, UNION, ENUM, TYPEDEF, VOLATILE, CONST, FUNC_PROTO, DATASEC, TAG, ENUM64 = (
    1, 2, 3, 4, 5, 6, 8, 9, 10, 13, 15, 18, 19,
)  # fmt: skip
KIND_FLAG = 1 << 31


class Blob:
    """Types in the order in which they are added; ids count from 1."""

    def __init__(self):
        self.text, self.types, self.count = b"\0", b"", 0

    def name(self, text):
        if not text:
            return 0
        at = len(self.text)
        self.text += text.encode() + b"\0"
        return at

    def add(self, kind, name="", value=0, *, count=0, flag=0, tail=b""):
        self.types += struct.pack("=III", self.name(name), kind << 24 | count | flag, value) + tail
        self.count += 1
        return self.count

    def number(self, name="u32", size=4):
        return self.add(INT, name, size, tail=struct.pack("=I", size * 8))

    def struct(self, name, *members, kind=STRUCT, flag=0):
        """Members: name, type, offset in bits."""
        tail = b"".join(struct.pack("=III", self.name(n), t, o) for n, t, o in members)
        return self.add(kind, name, 64, count=len(members), flag=flag, tail=tail)

    def enum(self, name, **values):
        tail = b"".join(struct.pack("=Ii", self.name(n), v) for n, v in values.items())
        return self.add(ENUM, name, 4, count=len(values), tail=tail)

    def tracepoint(self, name, arguments):
        tail = struct.pack("=II", 0, 0) * (arguments + 1)
        prototype = self.add(FUNC_PROTO, value=0, count=arguments + 1, tail=tail)
        return self.add(TYPEDEF, f"btf_trace_{name}", self.add(PTR, value=prototype))

    def bytes(self, magic=0xEB9F, version=1, header=24):
        head = struct.pack(
            "=HBBIIIII", magic, version, 0, header, 0, len(self.types), len(self.types), len(self.text)
        )
        return head + bytes(header - 24) + self.types + self.text

    @property
    def btf(self):
        return Btf(self.bytes())


@pytest.fixture
def blob():
    return Blob()


def test_a_field_is_where_its_struct_has_it(blob):
    number = blob.number()
    blob.struct("pair", ("one", number, 0), ("two", number, 32))
    assert blob.btf.offset("pair", "one") == 0
    assert blob.btf.offset("pair", "two") == 4


def test_offsets_add_up_along_a_path(blob):
    number = blob.number()
    inner = blob.struct("inner", ("a", number, 0), ("b", number, 64))
    blob.struct("outer", ("pad", number, 0), ("in", inner, 128))
    assert blob.btf.offset("outer", "in", "b") == 16 + 8


def test_fields_of_unnamed_structs_and_unions_are_their_owners(blob):
    """As `dev` of struct sk_buff: in a struct, in a union, in a struct."""
    number = blob.number()
    inner = blob.struct("", ("next", number, 0), ("dev", number, 128))
    union = blob.struct("", ("rbnode", number, 0), ("", inner, 0), kind=UNION)
    blob.struct("sk_buff", ("first", number, 0), ("", union, 64), ("last", number, 512))
    assert blob.btf.offset("sk_buff", "dev") == 8 + 16
    assert blob.btf.offset("sk_buff", "rbnode") == 8
    assert blob.btf.offset("sk_buff", "last") == 64


def test_a_named_field_hides_none_of_a_named_struct_within(blob):
    number = blob.number()
    inner = blob.struct("", ("hidden", number, 0))
    blob.struct("outer", ("named", inner, 0))
    with pytest.raises(BtfError, match="struct outer has no hidden"):
        blob.btf.offset("outer", "hidden")


def test_with_the_kind_flag_the_upper_byte_is_a_bit_fields_size(blob):
    number = blob.number()
    blob.struct("flags", ("bit", number, 3 << 24 | 40), ("plain", number, 64), flag=KIND_FLAG)
    assert blob.btf.offset("flags", "bit") == 5
    assert blob.btf.offset("flags", "plain") == 8


@pytest.mark.parametrize("modifier", [TYPEDEF, VOLATILE, CONST, TAG])
def test_modifiers_are_looked_through(blob, modifier):
    inner = blob.struct("inner", ("a", blob.number(), 96))
    wrapped = blob.add(CONST, value=blob.add(modifier, "alias" if modifier == TYPEDEF else "", inner))
    blob.struct("outer", ("in", wrapped, 32))
    assert blob.btf.offset("outer", "in", "a") == 4 + 12


def test_a_pointer_is_not_looked_through(blob):
    inner = blob.struct("inner", ("a", blob.number(), 0))
    blob.struct("outer", ("in", blob.add(PTR, value=inner), 0))
    with pytest.raises(BtfError, match=r"no in\.a"):
        blob.btf.offset("outer", "in", "a")


def test_names_of_an_enum(blob):
    blob.enum("reason", NO=0, YES=2, NEVER=-1)
    assert blob.btf.names("reason") == {0: "NO", 2: "YES", -1: "NEVER"}


@pytest.mark.parametrize("arguments", [1, 3, 5])
def test_a_tracepoint_is_its_type_and_how_many_arguments_it_has(blob, arguments):
    blob.number()
    found = blob.tracepoint("kfree_skb", arguments)
    assert blob.btf.tracepoint("kfree_skb") == (found, arguments)


def test_a_name_that_another_begins_or_ends_with_is_another(blob):
    number = blob.number()
    blob.struct("my_net_device", ("a", number, 32))
    blob.struct("net_device_ops", ("a", number, 64))
    blob.struct("net_device", ("a", number, 96))
    assert blob.btf.offset("net_device", "a") == 12


def test_of_one_name_the_kind_decides(blob):
    """`struct net` and a typedef of the same name; and the offset of the name among other numbers."""
    number = blob.number()
    at = len(blob.text)
    blob.add(TYPEDEF, "net", number)
    blob.struct("other", ("x", number, at), ("y", at, 0))
    tail = struct.pack("=III", blob.name("inum"), number, 256)
    blob.types += struct.pack("=III", at, STRUCT << 24 | 1, 64) + tail
    blob.count += 1
    assert blob.btf.offset("net", "inum") == 32


def test_types_of_every_length_are_stepped_over(blob):
    number = blob.number()
    blob.add(ARRAY, tail=struct.pack("=III", number, number, 4))
    blob.add(DATASEC, ".data", 8, count=2, tail=bytes(24))
    blob.add(ENUM64, "wide", 8, count=1, tail=bytes(12))
    blob.add(14, "variable", number, tail=bytes(4))
    blob.add(17, "tagged", number, tail=bytes(4))
    blob.add(12, "function", number)
    blob.add(16, "double", 8)
    blob.struct("last", ("field", number, 8))
    assert blob.btf.offset("last", "field") == 1


def test_a_longer_header_is_taken(blob):
    blob.struct("one", ("a", blob.number(), 8))
    assert Btf(blob.bytes(header=32)).offset("one", "a") == 1


def test_no_types_at_all(blob):
    with pytest.raises(BtfError, match="has no type sk_buff"):
        blob.btf.offset("sk_buff", "dev")


@pytest.mark.parametrize(
    ("ask", "what"),
    [
        (lambda b: b.offset("pair", "three"), "struct pair has no three"),
        (lambda b: b.offset("couple", "one"), "no type couple"),
        (lambda b: b.names("pair"), "no type pair"),
        (lambda b: b.tracepoint("pair"), "no type btf_trace_pair"),
    ],
)
def test_what_there_is_not(blob, ask, what):
    blob.struct("pair", ("one", blob.number(), 0))
    with pytest.raises(BtfError, match=what):
        ask(blob.btf)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda b: b"", "too short"),
        (lambda b: b.bytes()[:23], "too short"),
        (lambda b: b.bytes(magic=0x9FEB), "magic 0x9feb"),
        (lambda b: b.bytes(version=2), "version 2"),
    ],
)
def test_what_is_no_btf(blob, change, what):
    blob.number()
    with pytest.raises(BtfError, match=what):
        Btf(change(blob))


@given(st.integers(24, 400))
def test_what_is_cut_off_is_an_error_of_ours(length):
    """Anywhere behind the header: there is no IndexError and no struct.error to stumble over."""
    blob = Blob()
    number = blob.number()
    blob.struct("pair", ("one", number, 0), ("two", number, 32))
    blob.enum("reason", NO=0, YES=2)
    blob.tracepoint("kfree_skb", 3)
    whole = blob.bytes()
    cut = whole[: min(length, len(whole))]
    for ask in (
        lambda b: b.offset("pair", "two"),
        lambda b: b.names("reason"),
        lambda b: b.tracepoint("kfree_skb"),
    ):
        if len(cut) == len(whole):
            ask(Btf(cut))
        else:
            with pytest.raises(BtfError):
                ask(Btf(cut))


@given(st.binary(max_size=300))
def test_noise_is_an_error_of_ours_or_nothing(noise):
    head = struct.pack("=HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(noise) // 2, len(noise) // 2, len(noise))
    try:
        found = Btf(head + noise)
        found.offset("a", "b")
    except BtfError:
        pass


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 1 << 20)), min_size=1, max_size=12))
def test_every_field_is_found_where_it_was_put(fields):
    """However deep in unnamed structs."""
    blob = Blob()
    number = blob.number()
    members, expected = [], {}
    for index, (depth, offset) in enumerate(fields):
        kind, name, total = number, f"f{index}", offset * 8
        for level in range(depth):
            kind, name = blob.struct("", (name, kind, 8 * level)), ""
            total += 8 * level
        members.append((name, kind, offset * 8))
        expected[f"f{index}"] = total // 8
    blob.struct("owner", *members)
    assert {name: blob.btf.offset("owner", name) for name in expected} == expected


def test_no_file_is_told():
    with pytest.raises(BtfError, match="/nowhere/btf: No such file"):
        btf.read("/nowhere/btf")


@pytest.fixture(scope="module")
def types():
    if not os.access(btf.PATH, os.R_OK):
        pytest.skip("this kernel has no BTF")
    return btf.read()


class TestThisKernel:
    def test_what_sealane_reads_is_there_and_plausible(self, types):
        assert types.offset("sk_buff", "dev") == 16, "next and prev come first"
        assert types.offset("sk_buff", "head") + 8 == types.offset("sk_buff", "data")
        assert 0 < types.offset("net", "ns", "inum") < 1 << 14
        assert types.offset("sock", "__sk_common", "skc_net", "net") == types.offset(
            "sock", "__sk_common"
        ) + types.offset("sock_common", "skc_net")

    def test_reasons_begin_as_they_always_did(self, types):
        names = types.names("skb_drop_reason")
        assert "SKB_DROP_REASON_NOT_SPECIFIED" in names.values()
        assert "SKB_DROP_REASON_NETFILTER_DROP" in names.values()

    def test_arguments_of_tracepoints(self, types):
        assert types.tracepoint("netif_receive_skb")[1] == 1
        assert types.tracepoint("net_dev_start_xmit")[1] == 2
        assert types.tracepoint("kfree_skb")[1] >= 3
