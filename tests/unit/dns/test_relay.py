"""Messages to and from upstreams, with dnspython as the oracle."""

import random  # noqa: TID251  Seeded: the same mutations in every run.
import time

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sealane.dns import relay, wire
from sealane.dns.limits import REPLY_BYTES, REPLY_CACHE_S, REPLY_RECORDS
from sealane.dns.relay import Judgement, Query, Reply, Subject
from sealane.dns.wire import Question
from unit.dns.upstream_rig import reply_to

ALL_BITS = (1 << 256) - 1


def question(
    name: str = "www.example.com.", rrtype: str = "A", flags: int = 0x0100, **options: object
) -> Question:
    query = dns.message.make_query(name, rrtype, **options)
    query.flags = dns.flags.Flag(flags)
    read = wire.read_question(query.to_wire())
    assert isinstance(read, Question)
    return read


def query_about(asked: Question, ident: int = 0x1234, case_bits: int = 0) -> Query:
    return relay.query_about(Subject.of(asked), ident, case_bits)


def good_reply(query: Query, *addresses: str, ttl: int = 60, rcode: int = 0) -> bytes:
    return reply_to(dns.message.from_wire(query.message), *addresses, ttl=ttl, rcode=rcode).to_wire()


def believed(query: Query, message: bytes, **options: bool) -> Reply:
    reply = relay.judge(query, message, **options)
    assert isinstance(reply, Reply)
    return reply


@given(st.integers(0, 65535), st.integers(0, ALL_BITS), st.booleans(), st.booleans(), st.booleans())
@settings(max_examples=100, deadline=None)
def test_a_query_carries_the_question_and_nothing_of_the_asker(
    ident: int, case_bits: int, edns: bool, dnssec_ok: bool, checking_disabled: bool
) -> None:
    options = {"use_edns": 0, "payload": 4096, "want_dnssec": dnssec_ok} if edns else {}
    asked = question(flags=0x0110 if checking_disabled else 0x0100, **options)
    query = query_about(asked, ident, case_bits)
    seen = dns.message.from_wire(query.message)
    assert seen.id == ident
    assert seen.question[0].name.canonicalize().to_text() == "www.example.com."
    assert bool(seen.flags & dns.flags.RD)
    assert bool(seen.flags & dns.flags.CD) == checking_disabled
    assert seen.edns == (0 if edns else -1)
    if edns:
        assert seen.payload == 1232
        assert bool(seen.ednsflags & dns.flags.DO) == dnssec_ok


def test_every_random_bit_decides_a_letter() -> None:
    spelt = (
        dns.message.from_wire(query_about(question(), case_bits=ALL_BITS).message).question[0].name.to_text()
    )
    assert spelt == "WWW.EXAMPLE.COM."


def test_askers_share_a_subject_whatever_their_spelling() -> None:
    assert Subject.of(question("WWW.Example.com.")) == Subject.of(question("www.eXample.com."))
    assert Subject.of(question(rrtype="AAAA")) != Subject.of(question(rrtype="A"))
    assert Subject.of(question(use_edns=0)) != Subject.of(question())


def test_the_right_reply_is_believed() -> None:
    query = query_about(question(), case_bits=0b1010101)
    assert believed(query, good_reply(query, "192.0.2.1")).lifetime_s == REPLY_CACHE_S


def forged(query: Query, **changes: object) -> bytes:
    reply = reply_to(dns.message.from_wire(query.message), "192.0.2.66")
    for field, value in changes.items():
        setattr(reply, field, value)
    return reply.to_wire()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda query: forged(query, id=0x1235),
        lambda query: forged(query, flags=dns.flags.RD),  # Not a reply.
        lambda query: forged(query, flags=dns.flags.QR | 0x2000),  # An answer to NOTIFY.
        lambda query: forged(query, question=[]),
        lambda query: good_reply(query_about(question("www.example.org.")), "192.0.2.66"),
        lambda query: good_reply(query_about(question(rrtype="AAAA")), "2001:db8::66"),
        lambda query: good_reply(query, "192.0.2.66")[:-1],
        lambda query: good_reply(query, "192.0.2.66") + b"\0",
        lambda query: good_reply(query)[:12],
        lambda query: b"",
        lambda query: good_reply(query)[:2] + bytes(40),
    ],
)
def test_what_is_not_the_answer_is_junk(spoil: object) -> None:
    """E4: junk is told from an answer, so the real one may still come."""
    query = query_about(question())
    assert relay.judge(query, spoil(query)) is Judgement.JUNK  # type: ignore[operator]


def test_another_spelling_is_only_believed_over_tcp() -> None:
    query = query_about(question(), case_bits=ALL_BITS)
    message = good_reply(query_about(question()), "192.0.2.1")
    assert relay.judge(query, message) is Judgement.ASK_BY_STREAM
    assert isinstance(relay.judge(query, message, stream=True), Reply)


def test_a_cut_reply_is_asked_again_over_tcp() -> None:
    query = query_about(question())
    assert relay.judge(query, forged(query, flags=dns.flags.QR | dns.flags.TC)) is Judgement.ASK_BY_STREAM


@pytest.mark.parametrize(
    "records",
    [
        b"\xc0\x2d\x00\x05\x00\x01\x00\x00\x00\x3c\x00\x02\xc0\x21",  # Owner and data point at each other.
        b"\xc0\x21\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\x01\x02\x03\x04",  # The owner points at itself.
        b"\xc0\xff\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\x01\x02\x03\x04",  # Beyond the end.
        b"\x00\x00\x01\x00\x01\x00\x00\x00\x3c\xff\xff\x01\x02\x03\x04",  # More data than there is.
        b"\x00\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x03\x01\x02\x03",  # An address of three bytes.
        b"\x40\x00\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\x01\x02\x03\x04",  # A label type that does not exist.
    ],
)
def test_crafted_records_are_junk(records: bytes) -> None:
    """E3 (CVE-2025-23028 and compression loops)."""
    query = query_about(question())
    message = good_reply(query)[: query.question_end] + records
    message = message[:6] + b"\x00\x01" + message[8:]
    assert relay.judge(query, message) is Judgement.JUNK


@pytest.mark.parametrize(("records", "is_believed"), [(REPLY_RECORDS, True), (REPLY_RECORDS + 1, False)])
def test_a_reply_has_a_bounded_number_of_records(records: int, is_believed: bool) -> None:
    query = query_about(question())
    message = good_reply(query, *(f"192.0.{n // 250}.{n % 250}" for n in range(records)))
    assert isinstance(relay.judge(query, message, stream=True), Reply) == is_believed


@pytest.mark.parametrize(("size", "is_believed"), [(REPLY_BYTES, True), (REPLY_BYTES + 1, False)])
def test_a_reply_has_a_bounded_length(size: int, is_believed: bool) -> None:
    query = query_about(question(rrtype="TYPE65400"))
    head = good_reply(query)
    data = size - len(head) - 12
    message = head[:6] + b"\x00\x01" + head[8:] + b"\xc0\x0c\xff\x78\x00\x01" + bytes(4)
    message += data.to_bytes(2, "big") + bytes(data)
    assert len(message) == size
    assert isinstance(relay.judge(query, message, stream=True), Reply) == is_believed


def test_four_thousand_mutated_replies_raise_nothing_and_take_no_time() -> None:
    chance = random.Random(3)
    query = query_about(question(use_edns=0))
    reply = reply_to(dns.message.from_wire(query.message), "192.0.2.1", "192.0.2.2")
    reply.authority = [
        dns.rrset.from_text("example.com.", 60, "IN", "NS", "ns1.example.com.", "ns2.example.com.")
    ]
    reply.additional = [dns.rrset.from_text("ns1.example.com.", 60, "IN", "AAAA", "2001:db8::1")]
    seed, slowest = reply.to_wire(), 0.0
    for _ in range(4000):
        mutated = bytearray(seed)
        for _ in range(chance.randint(1, 6)):
            mutated[chance.randrange(query.question_end, len(mutated))] = chance.randrange(256)
        mutated[6:12] = bytes(chance.choice([0, 0, 0, 1, 2, 3]) if n % 2 else 0 for n in range(6))
        cut = bytes(mutated[: chance.choice([len(mutated), chance.randrange(len(mutated))])])
        began = time.thread_time()
        verdict = relay.judge(query, cut)
        slowest = max(slowest, time.thread_time() - began)
        if isinstance(verdict, Reply):
            assert len(relay.answer_tail(question(use_edns=0, payload=4096), verdict, 1)) == len(cut) - 2
    assert slowest < 0.2


@pytest.mark.parametrize(
    ("ttls", "rcode", "lifetime_s"),
    [((60, 5), 0, 5), ((5000,), 0, REPLY_CACHE_S), ((0,), 0, 0), ((), 0, 0), ((), 3, 0), ((), 2, 0)],
)
def test_a_reply_lives_for_its_least_ttl(ttls: tuple[int, ...], rcode: int, lifetime_s: int) -> None:
    query = query_about(question())
    reply = reply_to(dns.message.from_wire(query.message), rcode=rcode)
    reply.answer = [dns.rrset.from_text(f"n{n}.", ttl, "IN", "A", "192.0.2.1") for n, ttl in enumerate(ttls)]
    assert believed(query, reply.to_wire()).lifetime_s == lifetime_s


def test_an_absurd_ttl_counts_as_none() -> None:
    """E5 (CVE-2025-58063): the top bit means zero, RFC 2181 section 8."""
    query = query_about(question())
    message = bytearray(good_reply(query, "192.0.2.1"))
    message[-10:-6] = b"\xff\xff\xff\xff"
    assert believed(query, bytes(message)).lifetime_s == 0


@given(st.integers(0, 100), st.booleans())
@settings(max_examples=60, deadline=None)
def test_a_relayed_answer_is_the_reply_with_asker_spelling_and_aged_ttls(age_s: int, edns: bool) -> None:
    options = {"use_edns": 0} if edns else {}
    asked = question("WwW.exAmple.com.", flags=0x0110, **options)
    query = query_about(asked, case_bits=0x5555)
    reply = believed(query, good_reply(query, "192.0.2.1", "192.0.2.2", ttl=50))
    tail = relay.answer_tail(asked, reply, age_s)
    answer = dns.message.from_wire(b"\xab\xcd" + tail)
    assert answer.id == 0xABCD
    assert answer.question[0].name.to_text() == "WwW.exAmple.com."
    assert {data.to_text() for data in answer.answer[0]} == {"192.0.2.1", "192.0.2.2"}
    assert answer.answer[0].ttl == max(50 - age_s, 0)
    assert (
        answer.flags & (dns.flags.RD | dns.flags.CD | dns.flags.RA)
        == dns.flags.RD | dns.flags.CD | dns.flags.RA
    )
    assert (answer.edns == 0) == edns


def test_an_answer_longer_than_the_asker_takes_is_cut_to_its_question() -> None:
    asked = question()
    query = query_about(asked)
    message = good_reply(query, *(f"192.0.2.{n}" for n in range(60)))
    reply = believed(query, message, stream=True)
    cut = dns.message.from_wire(b"\0\0" + relay.answer_tail(asked, reply))
    assert cut.flags & dns.flags.TC
    assert not cut.answer
    whole = dns.message.from_wire(b"\0\0" + relay.answer_tail(asked, reply, stream=True))
    assert len(whole.answer[0]) == 60


def test_the_opt_record_of_a_reply_is_not_aged() -> None:
    asked = question(use_edns=0, want_dnssec=True)
    query = query_about(asked)
    reply = reply_to(dns.message.from_wire(query.message), "192.0.2.1")
    reply.use_edns(0, dns.flags.DO, 1232)
    answer = dns.message.from_wire(b"\0\0" + relay.answer_tail(asked, believed(query, reply.to_wire()), 7))
    assert answer.ednsflags == dns.flags.DO
    assert answer.answer[0].ttl == 53
