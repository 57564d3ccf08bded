"""Questions and answers as bytes, with dnspython as the oracle."""

import ipaddress
import random  # noqa: TID251  Seeded: the same mutations in every run.

import dns.edns
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.reversename
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sealane.dns import wire
from sealane.dns.limits import LOCAL_TTL_S, UDP_ANSWER_BYTES
from sealane.dns.wire import Question

labels = st.binary(min_size=1, max_size=63)
names = st.lists(labels, max_size=4).map(lambda found: dns.name.Name([*found, b""]))
rrtypes = st.sampled_from(["A", "AAAA", "PTR", "MX", "TXT", "SRV", "HTTPS", "ANY", "NS"])
edns = st.one_of(
    st.none(),
    st.tuples(
        st.integers(0, 65535),
        st.booleans(),
        st.lists(st.tuples(st.integers(1000, 65535), st.binary(max_size=20)), max_size=3),
    ),
)


@st.composite
def queries(draw: st.DrawFn) -> bytes:
    extension = draw(edns)
    query = dns.message.make_query(draw(names), draw(rrtypes))
    if extension is not None:
        payload, dnssec_ok, options = extension
        query.use_edns(
            0,
            ednsflags=int(dns.flags.DO) if dnssec_ok else 0,
            payload=payload,
            options=[dns.edns.GenericOption(kind, data) for kind, data in options],
        )
    query.flags = dns.flags.Flag(draw(st.sampled_from([0, 0x0100, 0x0110, 0x0120, 0x0130])))
    return query.to_wire()


def question(name: str = "web.", rrtype: str = "A", **options: object) -> Question:
    read = wire.read_question(dns.message.make_query(name, rrtype, **options).to_wire())
    assert isinstance(read, Question)
    return read


def message(tail: bytes) -> dns.message.Message:
    return dns.message.from_wire(b"\x00\x07" + tail)


@given(queries())
@settings(max_examples=300, deadline=None)
def test_the_reader_sees_what_dnspython_sees(query: bytes) -> None:
    read = wire.read_question(query)
    oracle = dns.message.from_wire(query)
    assert isinstance(read, Question)
    asked = oracle.question[0]
    assert read.name == asked.name.canonicalize().to_wire()
    assert read.asked[:-4] == asked.name.to_wire()
    assert read.rrtype == asked.rdtype
    assert read.edns == (oracle.edns == 0)
    assert read.dnssec_ok == bool(oracle.ednsflags & dns.flags.DO)
    expected = min(max(oracle.payload, 512), UDP_ANSWER_BYTES) if oracle.edns == 0 else 512
    assert read.udp_bytes == expected


@given(queries(), st.data())
@settings(max_examples=300, deadline=None)
def test_whatever_is_damaged_is_read_refused_or_passed_over_but_never_raises(
    query: bytes, data: st.DataObject
) -> None:
    damaged = bytearray(query)
    for _ in range(data.draw(st.integers(1, 6))):
        position = data.draw(st.integers(0, len(damaged) - 1))
        damaged[position] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(damaged)))
    for candidate in (bytes(damaged), bytes(damaged[:cut]), bytes(damaged) + b"\x00"):
        read = wire.read_question(candidate)
        if isinstance(read, bytes):
            assert len(read) + 2 <= max(len(candidate), 12) + 11
            assert read[0] & 0x80


def test_five_thousand_mutations_agree_with_dnspython_where_both_accept() -> None:
    """The strict reader refuses more than dnspython, and never sees another question than it does."""
    chance = random.Random(5)
    seeds = [
        dns.message.make_query("web.net1.", "A", use_edns=0, payload=1232).to_wire(),
        dns.message.make_query("1.0.66.10.in-addr.arpa.", "PTR").to_wire(),
        dns.message.make_query("x" * 63 + "." + "y" * 63 + ".", "AAAA", use_edns=0).to_wire(),
    ]
    for _ in range(5000):
        mutated = bytearray(chance.choice(seeds))
        for _ in range(chance.randint(1, 4)):
            mutated[chance.randrange(len(mutated))] = chance.randrange(256)
        read = wire.read_question(bytes(mutated))
        if isinstance(read, Question):
            try:
                oracle = dns.message.from_wire(bytes(mutated)).question[0]
            except dns.exception.DNSException:
                continue  # dnspython also reads the data of known EDNS options, which do not concern us.
            assert (read.name, read.rrtype) == (oracle.name.canonicalize().to_wire(), oracle.rdtype)


def test_a_reply_is_not_answered() -> None:
    query = dns.message.make_query("web.", "A")
    assert wire.read_question(dns.message.make_response(query).to_wire()) is None


@pytest.mark.parametrize("length", range(12))
def test_less_than_a_header_is_not_answered(length: int) -> None:
    assert wire.read_question(dns.message.make_query("web.", "A").to_wire()[:length]) is None


@pytest.mark.parametrize("opcode", range(1, 16))
def test_other_operations_are_not_implemented(opcode: int) -> None:
    query = bytearray(dns.message.make_query("web.", "A").to_wire())
    query[2] |= opcode << 3
    refusal = wire.read_question(bytes(query))
    assert isinstance(refusal, bytes)
    answer = message(refusal)
    assert (answer.rcode(), answer.opcode()) == (dns.rcode.NOTIMP, opcode)


@pytest.mark.parametrize(
    ("name", "rrtype", "rdclass"),
    [
        ("web.", "A", "CH"),
        ("version.bind.", "TXT", "CH"),
        ("web.", "A", "ANY"),
        ("web.", "AXFR", "IN"),
        ("web.", "IXFR", "IN"),
    ],
)
def test_other_classes_and_zone_transfers_are_not_implemented(name: str, rrtype: str, rdclass: str) -> None:
    query = dns.message.make_query(name, "A", rdclass)
    query.question[0].rdtype = dns.rdatatype.from_text(rrtype)
    refusal = wire.read_question(query.to_wire())
    assert isinstance(refusal, bytes)
    assert message(refusal).rcode() == dns.rcode.NOTIMP


@pytest.mark.parametrize(
    "tail",
    [
        b"\x00\x02\x00\x00\x00\x00\x00\x00" + b"\x01a\x00\x00\x01\x00\x01" * 2,  # Two questions.
        b"\x00\x00\x00\x00\x00\x00\x00\x00",  # None.
        b"\x00\x01\x00\x01\x00\x00\x00\x00\x01a\x00\x00\x01\x00\x01",  # An answer in a question.
        b"\x00\x01\x00\x00\x00\x00\x00\x00\xc0\x0c\x00\x01\x00\x01",  # A name that is a pointer to itself.
        b"\x00\x01\x00\x00\x00\x00\x00\x00\x40" + b"a" * 64 + b"\x00\x00\x01\x00\x01",  # A label of 64.
        b"\x00\x01\x00\x00\x00\x00\x00\x00\x03ab",  # Cut in the name.
        b"\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x00\x00\x01",  # Cut in the class.
        b"\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x00\x00\x01\x00\x01\x00",  # Something behind the end.
        b"\x00\x01\x00\x00\x00\x00\x00\x01\x01a\x00\x00\x01\x00\x01",  # The OPT record missing.
        b"\x00\x01\x00\x00\x00\x00\x00\x01\x01a\x00\x00\x01\x00\x01\x00\x00\x29\x04\xd0\x00\x00\x00\x00\x00\x09",
        b"\x00\x01\x00\x00\x00\x00\x00\x01\x01a\x00\x00\x01\x00\x01\x00\x00\x29\x04\xd0\x00\x00\x00\x00\x00\x03\x00\x0a\x00",
        b"\x00\x01\x00\x00\x00\x00\x00\x01\x01a\x00\x00\x01\x00\x01\x00\x00\x29\x04\xd0\x00\x00\x00\x00\x00\x04\x00\x0a\x00\x09",
        b"\x00\x01\x00\x00\x00\x00\x00\x01\x01a\x00\x00\x01\x00\x01\x00\x00\xfa\x04\xd0\x00\x00\x00\x00\x00\x00",  # TSIG.
    ],
)
def test_what_cannot_be_read_is_a_format_error_without_the_question(tail: bytes) -> None:
    refusal = wire.read_question(b"\x00\x07\x01\x00" + tail)
    assert isinstance(refusal, bytes)
    assert len(refusal) == 10
    assert message(refusal).rcode() == dns.rcode.FORMERR


@pytest.mark.parametrize(("labels_of_63", "last", "is_read"), [(3, 61, True), (3, 62, False), (4, 1, False)])
def test_a_name_has_at_most_255_octets(labels_of_63: int, last: int, is_read: bool) -> None:
    name = (b"\x3f" + b"a" * 63) * labels_of_63 + bytes([last]) + b"b" * last + b"\x00"
    query = b"\x00\x07\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00" + name + b"\x00\x01\x00\x01"
    assert isinstance(wire.read_question(query), Question) == is_read


def test_an_unknown_edns_version_is_told_ours() -> None:
    query = dns.message.make_query("web.", "A")
    query.use_edns(1)
    refusal = wire.read_question(query.to_wire())
    assert isinstance(refusal, bytes)
    answer = message(refusal)
    assert (answer.rcode(), answer.edns) == (dns.rcode.BADVERS, 0)


@given(queries(), st.lists(st.ip_addresses(v=4), max_size=5, unique=True), st.booleans())
@settings(max_examples=200, deadline=None)
def test_an_answer_is_byte_for_byte_what_dnspython_would_write(
    query: bytes, addresses: list[ipaddress.IPv4Address], recursion: bool
) -> None:
    read = wire.read_question(query)
    assert isinstance(read, Question)
    records = [wire.record_owned_by_question(1, str(address)) for address in addresses]
    oracle_query = dns.message.from_wire(query)
    oracle = dns.message.make_response(
        oracle_query, recursion_available=recursion, our_payload=UDP_ANSWER_BYTES
    )
    oracle.flags |= dns.flags.AA | oracle_query.flags & dns.flags.CD
    if oracle_query.edns == 0:
        oracle.use_edns(0, oracle_query.ednsflags & dns.flags.DO, UDP_ANSWER_BYTES)
    if addresses:
        owner = oracle_query.question[0].name
        oracle.answer = [dns.rrset.from_text(owner, LOCAL_TTL_S, "IN", "A", *map(str, addresses))]
    tail = wire.answer_tail(read, 0, records, recursion=recursion, stream=True)
    root_owned = len(oracle_query.question[0].name) == 1
    if len(addresses) > 1 or (root_owned and addresses):
        # dnspython shuffles records, and writes the root as one byte where we point to the question.
        assert dns.message.from_wire(query[:2] + tail) == dns.message.from_wire(oracle.to_wire())
    else:
        assert query[:2] + tail == oracle.to_wire()


def test_an_answer_repeats_the_letters_as_asked() -> None:
    tail = wire.answer_tail(question("wEb.NeT."), 0, [wire.record_owned_by_question(1, "10.0.0.1")])
    assert message(tail).question[0].name.to_text() == "wEb.NeT."
    assert message(tail).answer[0].name.to_text() == "wEb.NeT."


@pytest.mark.parametrize(
    ("options", "most"),
    [
        ({}, (512 - 12 - 9) // 16),
        ({"use_edns": 0, "payload": 600}, (600 - 12 - 9 - 11) // 16),
        ({"use_edns": 0, "payload": 100}, (512 - 12 - 9 - 11) // 16),
        ({"use_edns": 0, "payload": 65535}, (UDP_ANSWER_BYTES - 12 - 9 - 11) // 16),
    ],
)
def test_a_datagram_holds_what_fits_and_says_that_it_is_cut(options: dict[str, int], most: int) -> None:
    records = [wire.record_owned_by_question(1, f"10.0.{n // 256}.{n % 256}") for n in range(300)]
    asked = question("abc.", **options)
    full = message(wire.answer_tail(asked, 0, records[:most]))
    assert not full.flags & dns.flags.TC
    assert len(full.answer[0]) == most
    cut = message(wire.answer_tail(asked, 0, records[: most + 1]))
    assert cut.flags & dns.flags.TC
    assert len(cut.answer[0]) == most
    assert not message(wire.answer_tail(asked, 0, records, stream=True)).flags & dns.flags.TC


@given(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)))
@settings(max_examples=100, deadline=None)
def test_reverse_names_are_read_back(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    assume(address.version == 4 or address.ipv4_mapped is None)  # Those dnspython puts under in-addr.arpa.
    name = dns.reversename.from_address(str(address)).to_wire()
    assert name is not None
    assert wire.reverse_address(name) == address


@pytest.mark.parametrize(
    "name",
    ["1.0.10.in-addr.arpa", "1.2.0.0.10.in-addr.arpa", "256.0.0.10.in-addr.arpa", "x.0.0.10.in-addr.arpa", "in-addr.arpa",
     "1.0.ip6.arpa", "g." + "0." * 31 + "ip6.arpa", "10." + "0." * 31 + "ip6.arpa", "1.0.0.10.in-addr.arpa.net", "web"],
)  # fmt: skip
def test_prefixes_and_nonsense_are_no_reverse_names(name: str) -> None:
    wired = wire.wire_name(name)
    assert wired is not None
    assert wire.reverse_address(wired) is None


@given(names)
@settings(max_examples=200, deadline=None)
def test_a_name_may_be_cut_at_its_labels_only(name: dns.name.Name) -> None:
    wired = name.to_wire()
    assert wired is not None
    cuts = [wired[cut:] for cut in wire.label_starts(wired)]
    assert cuts == [dns.name.Name(name.labels[start:]).to_wire() for start in range(1, len(name.labels) - 1)]
    assert wire.is_single_label(wired) == (len(name.labels) == 2)


@pytest.mark.parametrize("text", ["", ".", "a..b", "a" * 64, ".".join(["a" * 60] * 5), ".a"])
def test_what_dns_cannot_carry_has_no_wire_name(text: str) -> None:
    assert wire.wire_name(text) is None


@pytest.mark.parametrize("text", ["web.Net1", "WEB.net1.", "wEb.NET1"])
def test_spellings_share_one_wire_name(text: str) -> None:
    assert wire.wire_name(text) == b"\x03web\x04net1\x00"


def test_international_names_travel_as_punycode() -> None:
    assert wire.wire_name("bücher") == b"\x0dxn--bcher-kva\x00"
