"""Replies are walked once, soundly, whatever is in them."""

import random  # noqa: TID251  Seeded: the same mutations in every run.
import time

import dns.exception
import dns.message
import dns.rdatatype
import dns.rrset
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sealane.dns.walk import MalformedError, ttl_offsets

QUESTION = b"\x03www\x07example\x03com\x00\x00\x01\x00\x01"
START = 12 + len(QUESTION)
REST = b"\x00\x05\x00\x01\x00\x00\x00\x3c"
"""Type CNAME, class IN, a TTL of 60."""


def head(records: int) -> bytes:
    return b"\x12\x34\x81\x80\x00\x01" + records.to_bytes(2, "big") + bytes(4) + QUESTION


def record(owner: bytes, data: bytes, rrtype: int = 5) -> bytes:
    return owner + rrtype.to_bytes(2, "big") + REST[2:] + len(data).to_bytes(2, "big") + data


def walked(*records: bytes) -> tuple[int, ...]:
    return ttl_offsets(head(len(records)) + b"".join(records), START, len(records))


def pointer(place: int) -> bytes:
    return (0xC000 | place).to_bytes(2, "big")


rrsets = st.sampled_from(
    [
        ("example.com.", "A", "192.0.2.1", "192.0.2.2"),
        ("a.b.example.com.", "AAAA", "2001:db8::1"),
        ("www.example.com.", "CNAME", "web.example.com."),
        ("example.com.", "NS", "ns1.example.com.", "ns2.example.net."),
        ("example.com.", "MX", "10 mail.example.com."),
        ("_x._tcp.example.com.", "SRV", "0 5 80 web.example.com."),
        ("example.com.", "SOA", "ns1.example.com. me.example.com. 1 2 3 4 5"),
        ("example.com.", "TXT", '"some text" "more"'),
        ("example.com.", "CAA", '0 issue "ca.example"'),
        ("example.com.", "HTTPS", "1 . alpn=h2"),
        ("1.2.0.192.in-addr.arpa.", "PTR", "www.example.com."),
        ("example.com.", "NAPTR", '1 2 "u" "E2U+sip" "!x!y!" example.net.'),
        ("example.com.", "DS", "1 8 2 " + "ab" * 32),
    ]
)


@given(st.lists(st.tuples(rrsets, st.integers(0, 2**31 - 1), st.integers(0, 2)), max_size=12), st.booleans())
@settings(max_examples=200, deadline=None)
def test_the_ttls_of_what_dnspython_writes_are_found(contents: list, edns: bool) -> None:
    reply = dns.message.make_response(dns.message.make_query("www.example.com.", "A"))
    if edns:
        reply.use_edns(0, payload=1232)
    sections = (reply.answer, reply.authority, reply.additional)
    for (owner, rrtype, *data), ttl, section in contents:
        sections[section].append(dns.rrset.from_text(owner, ttl, "IN", rrtype, *data))
    message = reply.to_wire(max_size=65535)
    records = sum(int.from_bytes(message[place : place + 2], "big") for place in (6, 8, 10))
    found = [int.from_bytes(message[at : at + 4], "big") for at in ttl_offsets(message, START, records)]
    assert found == [rrset.ttl for section in sections for rrset in section for _ in rrset]


def test_pointers_lead_backwards_only() -> None:
    assert walked(record(pointer(12), pointer(24))) == (START + 6,)
    for owner in (pointer(START), pointer(START + 2), pointer(0x3FFF)):
        with pytest.raises(MalformedError):
            walked(record(owner, pointer(12)))
    with pytest.raises(MalformedError):  # The data points at itself.
        walked(record(pointer(12), pointer(START + 12)))


def test_two_names_that_point_at_each_other_are_malformed() -> None:
    with pytest.raises(MalformedError):
        walked(record(pointer(START + 12), pointer(START)))


def test_labels_behind_a_pointer_end_before_it() -> None:
    """A label whose length reaches over the pointer that led to it."""
    with pytest.raises(MalformedError):
        walked(record(b"\x00", b"\x3fab", 99), record(pointer(START + 11), pointer(12)))


@pytest.mark.parametrize(("rungs", "is_sound"), [(10, True), (11, False)])
def test_a_name_takes_a_bounded_number_of_pointers(rungs: int, is_sound: bool) -> None:
    owners, place = [], 12
    for number in range(rungs):
        owners.append(record(b"\x01a" + pointer(place), pointer(12)))
        place = START + 16 * number
    if is_sound:
        assert len(walked(*owners)) == rungs
    else:
        with pytest.raises(MalformedError):
            walked(*owners)


@pytest.mark.parametrize(("last", "is_sound"), [(61, True), (62, False)])
def test_a_name_has_at_most_255_octets_however_it_is_pieced_together(last: int, is_sound: bool) -> None:
    most = (b"\x3f" + b"a" * 63) * 3
    first = record(most + b"\x00", b"", 99)
    joined = record(bytes([last]) + b"b" * last + pointer(START), b"", 99)
    if is_sound:
        assert len(walked(first, joined)) == 2
    else:
        with pytest.raises(MalformedError):
            walked(first, joined)


@pytest.mark.parametrize(
    ("rrtype", "data"),
    [(1, b"\1\2\3"), (1, b"\1\2\3\4\5"), (28, bytes(15)), (5, b""), (5, b"\x01a"), (5, pointer(12) + b"x"), (15, b"\0"),
     (6, pointer(12) * 2 + bytes(19)), (33, bytes(5)), (2, b"\x40" + b"a" * 64 + b"\0"), (2, b"\x80\x0c")],
)  # fmt: skip
def test_data_that_does_not_fit_its_type_is_malformed(rrtype: int, data: bytes) -> None:
    with pytest.raises(MalformedError):
        walked(record(pointer(12), data, rrtype))


@pytest.mark.parametrize("cut", range(1, 16))
def test_a_record_cut_anywhere_is_malformed(cut: int) -> None:
    message = head(1) + record(pointer(12), bytes(4), 1)
    with pytest.raises(MalformedError):
        ttl_offsets(message[:-cut], START, 1)
    with pytest.raises(MalformedError):
        ttl_offsets(message + bytes(cut), START, 1)


def test_five_thousand_mutations_raise_nothing_else_and_what_is_sound_dnspython_reads_too() -> None:
    chance = random.Random(7)
    reply = dns.message.make_response(dns.message.make_query("www.example.com.", "A"))
    reply.answer = [dns.rrset.from_text("www.example.com.", 60, "IN", "CNAME", "web.example.com.")]
    reply.answer += [dns.rrset.from_text("web.example.com.", 60, "IN", "A", "192.0.2.1", "192.0.2.2")]
    reply.authority = [
        dns.rrset.from_text("example.com.", 60, "IN", "SOA", "ns1.example.com. me.example.com. 1 2 3 4 5")
    ]
    reply.additional = [dns.rrset.from_text("ns1.example.com.", 60, "IN", "AAAA", "2001:db8::1")]
    seed, sound, unread = reply.to_wire(), 0, 0
    for _ in range(5000):
        mutated = bytearray(seed)
        for _ in range(chance.randint(1, 3)):
            mutated[chance.randrange(START, len(mutated))] = chance.randrange(256)
        try:
            ttl_offsets(bytes(mutated), START, 5)
        except MalformedError:
            continue
        sound += 1
        try:
            dns.message.from_wire(bytes(mutated))
        except dns.exception.DNSException:
            unread += 1  # A type that was changed to one whose data only dnspython reads.
    assert sound > 500
    assert unread < sound * 0.2


def test_the_costliest_reply_takes_no_time() -> None:
    """E3: 512 records, each with two pointers to a name of as many labels as there can be."""
    rest = record(pointer(START), pointer(START))
    records = [record(b"\x01a" * 126 + b"\x00", pointer(12))] + [rest] * 511
    began = time.thread_time()
    assert len(walked(*records)) == 512
    assert time.thread_time() - began < 0.2
