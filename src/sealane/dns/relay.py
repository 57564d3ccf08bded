"""Questions to upstream servers and their replies as bytes, without I/O.

A reply is believed only if it repeats the id and the question letter for letter (we spell the name in random case), and
if it is sound throughout (``walk``). It is then handed on as it came, with the id, the question's spelling and the TTLs
rewritten in place; no record type is unknown to it.
"""

import enum
import struct

import dns.flags
import dns.rcode
import msgspec

from sealane.dns import walk, wire
from sealane.dns.limits import REPLY_BYTES, REPLY_CACHE_S, REPLY_RECORDS, UDP_ANSWER_BYTES
from sealane.dns.wire import HEADER_BYTES, Question

_QR, _TC, _RD, _RA = (int(flag) for flag in (dns.flags.QR, dns.flags.TC, dns.flags.RD, dns.flags.RA))
_CD = int(dns.flags.CD)
_QUERY_HEADER = struct.Struct("!HHHHHH")


class Subject(msgspec.Struct, frozen=True, gc=False):
    """What is asked of an upstream: askers with the same subject share one query and one reply."""

    name: bytes
    rrtype: int
    edns: bool
    dnssec_ok: bool
    checking_disabled: bool

    @classmethod
    def of(cls, question: Question) -> "Subject":
        checking_disabled = bool(question.flags & _CD)
        return cls(question.name, question.rrtype, question.edns, question.dnssec_ok, checking_disabled)


class Reply(msgspec.Struct, frozen=True):
    """A believed upstream reply, with no more than the header, the question and whole records in it."""

    message: bytes
    question_end: int
    rcode: int
    ttl_offsets: tuple[int, ...]
    lifetime_s: int
    """How long it may be remembered: the least TTL, bounded; 0 for failures and for answers without records."""


class Judgement(enum.Enum):
    JUNK = enum.auto()
    """Not an answer to this query: to be ignored, the real one may still come."""
    ASK_BY_STREAM = enum.auto()
    """Cut short, or with the question spelt differently: only TCP can tell."""


class Query(msgspec.Struct, frozen=True):
    message: bytes
    question_end: int


def query_about(subject: Subject, ident: int, case_bits: int) -> Query:
    """``case_bits``: at least 255 random bits, one a letter; they make a forger's guess harder (0x20)."""
    flags = _RD | (_CD if subject.checking_disabled else 0)
    name = bytearray(subject.name)
    for index, byte in enumerate(name):
        if 0x61 <= byte <= 0x7A and case_bits >> index & 1:
            name[index] = byte - 0x20
    request = bytes(name) + struct.pack("!HH", subject.rrtype, 1)
    opt = b""
    if subject.edns:
        opt = wire.opt_record(
            Question(request, subject.name, subject.rrtype, 0, True, subject.dnssec_ok, UDP_ANSWER_BYTES)
        )
    message = _QUERY_HEADER.pack(ident, flags, 1, 0, 0, 1 if opt else 0) + request + opt
    return Query(message, HEADER_BYTES + len(request))


def judge(query: Query, message: bytes, *, stream: bool = False) -> Reply | Judgement:
    """Whether ``message`` answers the query."""
    question_end = query.question_end
    if not question_end <= len(message) <= REPLY_BYTES or message[:2] != query.message[:2]:
        return Judgement.JUNK
    flags = int.from_bytes(message[2:4], "big")
    # QR is set, the opcode is QUERY, and there is one question.
    if flags & 0xF800 != _QR or message[4:6] != b"\x00\x01":
        return Judgement.JUNK
    question, repeated = query.message[HEADER_BYTES:question_end], message[HEADER_BYTES:question_end]
    if repeated != question:
        if repeated.lower() != question.lower():
            return Judgement.JUNK
        if not stream:
            return Judgement.ASK_BY_STREAM
    if flags & _TC and not stream:
        return Judgement.ASK_BY_STREAM
    return _read_reply(message, question_end, flags & 0xF)


def _read_reply(message: bytes, question_end: int, rcode: int) -> Reply | Judgement:
    answers, *others = struct.unpack_from("!HHH", message, 6)
    records = answers + sum(others)
    if records > REPLY_RECORDS:
        return Judgement.JUNK
    try:
        offsets = walk.ttl_offsets(message, question_end, records)
    except walk.MalformedError:
        return Judgement.JUNK
    ttls = [int.from_bytes(message[offset : offset + 4], "big") for offset in offsets]
    # A TTL with the top bit set counts as zero (RFC 2181 §8).
    least = min((0 if ttl >> 31 else ttl for ttl in ttls), default=0)
    may_remember = rcode == dns.rcode.NOERROR and answers and not message[2] << 8 & _TC
    return Reply(message, question_end, rcode, offsets, min(least, REPLY_CACHE_S) if may_remember else 0)


def answer_tail(question: Question, reply: Reply, age_s: int = 0, *, stream: bool = False) -> bytes:
    """The reply for one asker, without its two id bytes; too long for its datagram, only the question under TC."""
    flags = int.from_bytes(reply.message[2:4], "big") & ~(_RD | _CD) | question.flags & (_RD | _CD) | _RA
    if not stream and len(reply.message) > question.udp_bytes:
        opt = wire.opt_record(question) if question.edns else b""
        return struct.pack("!HHHHH", flags | _TC, 1, 0, 0, 1 if opt else 0) + question.asked + opt
    message = bytearray(reply.message)
    message[2:4] = flags.to_bytes(2, "big")
    message[HEADER_BYTES : reply.question_end] = question.asked
    if age_s:
        for offset in reply.ttl_offsets:
            ttl = int.from_bytes(message[offset : offset + 4], "big")
            message[offset : offset + 4] = max(ttl - age_s, 0).to_bytes(4, "big")
    return bytes(message[2:])
