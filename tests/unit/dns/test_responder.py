"""The raw cache says what the decoding path says, and forgets what changed."""

import dns.flags
import dns.message
import dns.rcode
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sealane.dns import limits, responder, wire
from sealane.dns.records import ZoneMember, ZoneNetwork
from sealane.dns.responder import Forward, Responder, rotations
from sealane.dns.zone import View

NET = ZoneNetwork(
    id="n",
    name="net",
    listen=(),
    subnets=("10.1.0.0/16", "fd01::/64"),
    members=(
        ZoneMember("e1", "", ("web", "all"), ("10.1.0.2", "fd01::2")),
        ZoneMember("e2", "", ("db", "all"), ("10.1.0.3",)),
        ZoneMember("e3", "", ("cache", "all"), ("10.1.0.4",)),
        *(ZoneMember(f"c{n}", "", (f"c{n}", "crowd"), (f"10.1.1.{n}",)) for n in range(100)),
    ),
)


def serving(network: ZoneNetwork = NET) -> tuple[Responder, View]:
    found = Responder()
    found.update([network], [])
    return found, recognised(found, {})


def recognised(found: Responder, askers: dict[str, View], source: str = "10.1.0.2") -> View:
    view = found.recognise(askers, ("n",), source)
    assert view is not None
    return view


@st.composite
def local_queries(draw: st.DrawFn) -> bytes:
    name = draw(
        st.sampled_from(
            ["web.", "db.net.", "all.", "crowd.", "all.net.", "2.0.1.10.in-addr.arpa.", "c5.", "nobody."]
        )
    )
    spelt = "".join(letter.upper() if draw(st.booleans()) else letter for letter in name)
    query = dns.message.make_query(spelt, draw(st.sampled_from(["A", "AAAA", "PTR", "TXT", "ANY"])))
    if draw(st.booleans()):
        ednsflags = dns.flags.DO if draw(st.booleans()) else 0
        query.use_edns(0, ednsflags=int(ednsflags), payload=draw(st.integers(0, 5000)))
    query.flags = dns.flags.Flag(draw(st.sampled_from([0x0000, 0x0100, 0x0110, 0x0120])))
    query.id = draw(st.integers(0, 65535))
    return query.to_wire()


def turned(tail: bytes) -> dns.message.Message:
    """A message to compare with others of the same records in another order."""
    return dns.message.from_wire(b"\0\0" + tail)


@given(st.lists(local_queries(), min_size=1, max_size=8))
@settings(max_examples=120, deadline=None)
def test_the_raw_cache_gives_what_the_decoding_path_gives(queries: list[bytes]) -> None:
    """Whatever was asked before in other letters, flags or EDNS: the cached bytes are those of a fresh decoding."""
    warm, view = serving()
    for query in queries:
        warm.respond(view, query)
    for query in queries:
        fresh, fresh_view = serving()
        decoded = fresh.respond(fresh_view, query)
        assert isinstance(decoded, bytes)
        cached = view.cache.get(query[2:])
        if cached is None:
            assert turned(decoded).rcode() == dns.rcode.NXDOMAIN
            continue
        tails = {cached() for _ in range(limits.ROTATIONS)}
        assert decoded in tails
        if not turned(decoded).flags & dns.flags.TC:
            assert all(turned(tail) == turned(decoded) for tail in tails)


def test_names_of_several_addresses_are_handed_out_in_turn() -> None:
    found, view = serving()
    query = dns.message.make_query("all.", "A").to_wire()
    firsts = []
    for _ in range(6):
        tail = view.cache[query[2:]]() if query[2:] in view.cache else found.respond(view, query)
        assert isinstance(tail, bytes)
        firsts.append(turned(tail).answer[0][0].to_text())
    assert sorted(firsts[:3]) == sorted(firsts[3:]) == ["10.1.0.2", "10.1.0.3", "10.1.0.4"]


def test_every_member_of_a_crowd_is_handed_out_even_in_cut_answers() -> None:
    found, view = serving()
    query = dns.message.make_query("crowd.", "A").to_wire()
    found.respond(view, query)
    seen = set()
    for _ in range(limits.ROTATIONS):
        answer = turned(view.cache[query[2:]]())
        assert answer.flags & dns.flags.TC
        seen.update(data.to_text() for data in answer.answer[0])
    assert len(seen) == 100


@given(st.lists(st.binary(min_size=1, max_size=3), max_size=40, unique=True))
@settings(max_examples=50, deadline=None)
def test_rotations_are_whole_and_bounded(records: list[bytes]) -> None:
    turns = rotations(records)
    assert len(turns) == max(1, min(len(records), limits.ROTATIONS))
    assert all(sorted(turn) == sorted(records) for turn in turns)
    assert len({turn[0] for turn in turns if turn}) == (len(turns) if records else 0)


def test_names_that_do_not_exist_and_stream_answers_are_not_cached() -> None:
    found, view = serving()
    found.respond(view, dns.message.make_query("nobody.", "A").to_wire())
    found.respond(view, dns.message.make_query("crowd.", "A").to_wire(), stream=True)
    assert view.cache == {}


def test_a_change_takes_the_cache_with_it() -> None:
    found, view = serving()
    query = dns.message.make_query("web.", "A").to_wire()
    found.respond(view, query)
    found.update([ZoneNetwork("n", "net", (), ("10.1.0.0/16",))], [])
    assert recognised(found, {}).cache == {}


def test_names_of_others_are_forwarded_with_the_question() -> None:
    found, view = serving()
    response = found.respond(view, dns.message.make_query("Example.com.", "MX").to_wire())
    assert isinstance(response, Forward)
    assert response.question.name == b"\x07example\x03com\x00"


def test_recursion_is_offered_to_those_only_who_may_forward() -> None:
    for internal, name, rcode in [
        (False, "web.", 0),
        (True, "web.", 0),
        (True, "example.com.", dns.rcode.REFUSED),
    ]:
        members = NET.members
        found, view = serving(
            ZoneNetwork("n", "net", (), ("10.1.0.0/16",), internal=internal, members=members)
        )
        tail = found.respond(view, dns.message.make_query(name, "A").to_wire())
        assert isinstance(tail, bytes)
        assert turned(tail).rcode() == rcode
        assert bool(turned(tail).flags & dns.flags.RA) is not internal


def test_the_cache_of_a_view_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(responder, "VIEW_CACHE_ENTRIES", 4)
    found, view = serving()
    for number in range(5):
        found.respond(view, dns.message.make_query(f"c{number}.", "A").to_wire())
        assert len(view.cache) == (number + 1 if number < 4 else 1)


def test_the_caches_of_all_views_are_bounded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(responder, "CACHE_BYTES", 5000)
    found, view = serving()
    held = []
    for number in range(40):
        found.respond(view, dns.message.make_query(f"c{number}.", "A").to_wire())
        held.append(len(view.cache))
    assert max(held) < 16
    assert min(held[1:]) == 1


def test_askers_are_remembered_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(responder, "ASKERS", 3)
    found, askers = Responder(), {}
    found.update([NET], [])
    for number in range(4):
        recognised(found, askers, f"10.1.5.{number}")
    assert list(askers) == ["10.1.5.3"]
    assert found.recognise(askers, ("n",), "192.0.2.1") is None
    assert list(askers) == ["10.1.5.3"]


def test_a_reply_sent_as_a_question_is_passed_over() -> None:
    found, view = serving()
    assert (
        found.respond(view, dns.message.make_response(dns.message.make_query("web.", "A")).to_wire()) is None
    )
    assert found.respond(view, b"") is None


def test_an_unreadable_question_is_refused() -> None:
    found, view = serving()
    refusal = found.respond(view, b"\0\1\1\0\0\2" + bytes(6))
    assert isinstance(refusal, bytes)
    assert turned(refusal).rcode() == dns.rcode.FORMERR
    assert wire.read_question(b"\0\1\1\0\0\2" + bytes(6)) == refusal
