"""Questions and local answers as bytes (RFC 1035, RFC 6891), without I/O.

Questions are the one message that strangers send at line rate, so they have a reader of their own: one pass, no name
compression (allowed in a question by RFC 1035, sent by nobody), and whatever it does not know is refused. dnspython
takes 12 to 31 µs for the same message, this reader about 3: a container that floods unknown names is shed at that
price, which is what keeps its neighbours served. dnspython turns names and data into bytes here, and is the oracle
this module is tested against.

Names travel as lower-case wire form (``b"\\x02db\\x03net\\x00"``). There a dot inside a label, a trailing dot, an
escape or a letter's case cannot mislead, so all spellings of a name meet one decision.
"""

import ipaddress
import struct
from collections.abc import Iterator, Sequence

import dns.exception
import dns.flags
import dns.name
import dns.opcode
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import msgspec

from sealane.dns.limits import LOCAL_TTL_S, UDP_ANSWER_BYTES

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

HEADER_BYTES = 12
_MAX_NAME_BYTES = 255
_MAX_LABEL_BYTES = 63
_PLAIN_UDP_BYTES = 512
"""What an asker without EDNS accepts (RFC 1035 §4.2.1)."""

ANY = int(dns.rdatatype.ANY)
PTR = int(dns.rdatatype.PTR)
_OPT = int(dns.rdatatype.OPT)
_IN = int(dns.rdataclass.IN)

# Questions about the message itself or about whole zones, not about data a resolver holds (RFC 6895 §3.1).
_META_TYPES = frozenset({0, _OPT, *range(249, 255)})

_OPCODE_MASK = 0x7800
_COPIED_FLAGS = int(dns.flags.RD | dns.flags.CD)
_QR, _AA, _TC, _RA = (int(flag) for flag in (dns.flags.QR, dns.flags.AA, dns.flags.TC, dns.flags.RA))
_DO = int(dns.flags.DO)

_AUTHORITATIVE_RCODES = frozenset({int(dns.rcode.NOERROR), int(dns.rcode.NXDOMAIN)})

_COUNTS = struct.Struct("!HHHHH")
_QUESTION_END = struct.Struct("!HH")
_OPT_FIXED = struct.Struct("!BHHBBHH")
_OPTION = struct.Struct("!HH")
_RECORD = struct.Struct("!HHHIH")
_OWNER_IS_QUESTION = 0xC000 | HEADER_BYTES
"""A compression pointer to the question's name: every local record is owned by it."""


class Question(msgspec.Struct, frozen=True, gc=False):
    asked: bytes
    """The question section with letters as the asker wrote them: an answer must repeat them (0x20)."""
    name: bytes
    rrtype: int
    flags: int
    edns: bool
    dnssec_ok: bool
    udp_bytes: int
    """The longest datagram the asker takes, never more than we send."""


def read_question(query: bytes) -> Question | bytes | None:
    """The question; or the refusal to send (without its id); or None for what must not be answered at all."""
    if len(query) < HEADER_BYTES:
        return None
    flags, questions, answers, authorities, additionals = _COUNTS.unpack_from(query, 2)
    if flags & _QR:
        return None
    if flags & _OPCODE_MASK:
        return _bare_refusal(flags, dns.rcode.NOTIMP)
    if questions != 1 or answers or authorities or additionals > 1:
        return _bare_refusal(flags, dns.rcode.FORMERR)
    name_end = _name_end(query)
    end = name_end + _QUESTION_END.size
    if not name_end or end > len(query):
        return _bare_refusal(flags, dns.rcode.FORMERR)
    rrtype, rdclass = _QUESTION_END.unpack_from(query, name_end)
    if rdclass != _IN or rrtype in _META_TYPES:
        return _bare_refusal(flags, dns.rcode.NOTIMP)
    edns, dnssec_ok, udp_bytes, version = False, False, _PLAIN_UDP_BYTES, 0
    if additionals:
        opt = _read_opt(query, end)
        if opt is None:
            return _bare_refusal(flags, dns.rcode.FORMERR)
        edns = True
        version, dnssec_ok, udp_bytes = opt
    elif end != len(query):
        return _bare_refusal(flags, dns.rcode.FORMERR)
    question = Question(
        asked=query[HEADER_BYTES:end],
        # Label lengths are at most 63, below "A": lowering the bytes touches letters only.
        name=query[HEADER_BYTES:name_end].lower(),
        rrtype=rrtype,
        flags=flags,
        edns=edns,
        dnssec_ok=dnssec_ok,
        udp_bytes=min(max(udp_bytes, _PLAIN_UDP_BYTES), UDP_ANSWER_BYTES),
    )
    return answer_tail(question, dns.rcode.BADVERS) if version else question


def _name_end(query: bytes) -> int:
    """Where the question's name ends, or 0 for a name that is cut, too long or compressed."""
    position = HEADER_BYTES
    limit = min(len(query), HEADER_BYTES + _MAX_NAME_BYTES)
    while position < limit:
        length = query[position]
        position += length + 1
        if length == 0:
            return position
        if length > _MAX_LABEL_BYTES:
            return 0
    return 0


def _read_opt(query: bytes, position: int) -> tuple[int, bool, int] | None:
    """(version, DO, datagram size) of the one additional record, or None unless it is a well-formed OPT to the end."""
    if len(query) < position + _OPT_FIXED.size:
        return None
    root, rrtype, udp_bytes, _, version, flags, length = _OPT_FIXED.unpack_from(query, position)
    position += _OPT_FIXED.size
    if root or rrtype != _OPT or position + length != len(query):
        return None
    while position < len(query):
        if position + _OPTION.size > len(query):
            return None
        position += _OPTION.size + _OPTION.unpack_from(query, position)[1]
    if position != len(query):
        return None
    return version, bool(flags & _DO), udp_bytes


def _bare_refusal(flags: int, rcode: int) -> bytes:
    """A header and nothing else: what cannot be read is not repeated, so a refusal never exceeds its question."""
    return _COUNTS.pack(_QR | (flags & (_OPCODE_MASK | _COPIED_FLAGS)) | rcode, 0, 0, 0, 0)


def answer_tail(
    question: Question,
    rcode: int = 0,
    records: Sequence[bytes] = (),
    *,
    stream: bool = False,
    recursion: bool = False,
) -> bytes:
    """A local answer without its two id bytes; records that do not fit a datagram are left out under TC.

    ``recursion`` says whether this asker may use forwarding (RA).
    """
    opt = opt_record(question, rcode) if question.edns else b""
    room = (0xFFFF if stream else question.udp_bytes) - HEADER_BYTES - len(question.asked) - len(opt)
    kept = _fitting(records, room)
    flags = _QR | (question.flags & _COPIED_FLAGS) | (rcode & 0xF)
    if rcode in _AUTHORITATIVE_RCODES:
        flags |= _AA
    if recursion:
        flags |= _RA
    if kept < len(records):
        flags |= _TC
    counts = _COUNTS.pack(flags, 1, kept, 0, 1 if opt else 0)
    return b"".join((counts, question.asked, *records[:kept], opt))


def _fitting(records: Sequence[bytes], room: int) -> int:
    for kept, record in enumerate(records):
        room -= len(record)
        if room < 0:
            return kept
    return len(records)


def opt_record(question: Question, rcode: int = 0) -> bytes:
    """Our OPT: version 0, DO repeated (RFC 3225 §3), the upper eight bits of an extended code."""
    flags = _DO if question.dnssec_ok else 0
    return _OPT_FIXED.pack(0, _OPT, UDP_ANSWER_BYTES, rcode >> 4, 0, flags, 0)


def record_owned_by_question(rrtype: int, text: str) -> bytes:
    """One record of a local answer, its owner a pointer to the question's name.

    Raises dns.exception.DNSException if the text is no data of the type.
    """
    data = dns.rdata.from_text(dns.rdataclass.IN, dns.rdatatype.RdataType(rrtype), text).to_wire()
    assert data is not None  # Only None when a file is given to write to.
    return _RECORD.pack(_OWNER_IS_QUESTION, rrtype, _IN, LOCAL_TTL_S, len(data)) + data


def wire_name(text: str) -> bytes | None:
    """The lower-case wire form, international names as punycode, or None for what DNS cannot carry."""
    try:
        name = dns.name.from_text(text)
    except (dns.exception.DNSException, UnicodeError):
        return None
    wire = name.canonicalize().to_wire()
    return wire if wire and len(wire) > 1 else None


def label_starts(name: bytes) -> Iterator[int]:
    """The offset of every label after the first, up to but without the root: the places where a name may be cut."""
    position = name[0] + 1
    while position < len(name) - 1:
        yield position
        position += name[position] + 1


def is_single_label(name: bytes) -> bool:
    return len(name) == name[0] + 2


def reverse_address(name: bytes) -> Address | None:
    """The address a reverse name stands for, or None if it stands for none (or for a whole prefix)."""
    if name.endswith(b"\x07in-addr\x04arpa\x00"):
        return _reverse_ipv4(_labels(name)[:-2])
    if name.endswith(b"\x03ip6\x04arpa\x00"):
        return _reverse_ipv6(_labels(name)[:-2])
    return None


def _labels(name: bytes) -> list[bytes]:
    labels, position = [], 0
    while length := name[position]:
        labels.append(name[position + 1 : position + 1 + length])
        position += length + 1
    return labels


def _reverse_ipv4(labels: list[bytes]) -> Address | None:
    if len(labels) != 4 or not all(label.isdigit() and len(label) <= 3 for label in labels):
        return None
    octets = [int(label) for label in reversed(labels)]
    return ipaddress.IPv4Address(bytes(octets)) if max(octets) <= 255 else None


def _reverse_ipv6(labels: list[bytes]) -> Address | None:
    if len(labels) != 32 or not all(len(label) == 1 and label in b"0123456789abcdef" for label in labels):
        return None
    return ipaddress.IPv6Address(int(b"".join(reversed(labels)), 16))
