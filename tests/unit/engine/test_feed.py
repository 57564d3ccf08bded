"""The change feed: numbered, resumed from a revision, and harmless to verbs and to other readers."""

import pytest

from harness.engines import Bench, subnets
from sealane.engine.feed import ChangeFeed, GapError
from sealane.limits import FEED_CHANGES_KEPT
from sealane.model.change import Put
from sealane.model.network import Network
from sealane.wire.requests import DetachRequest

A = "/run/netns/a"


@pytest.fixture
def bench() -> Bench:
    bench = Bench()
    bench.network("front", subnets=list(subnets("10.1.0.0/24")))
    return bench


def put(number: int) -> Put:
    return Put(Network(id=f"n{number}", name=f"n{number}"))  # type: ignore[arg-type]


class TestReaders:
    def test_a_reader_gets_what_came_since_it_last_read(self) -> None:
        feed = ChangeFeed(7)
        reader = feed.reader("names")
        assert reader.read() == []
        feed.append(8, [put(1)])
        feed.append(9, [put(2)])
        assert [(e.revision, e.changes) for e in reader.read()] == [(8, (put(1),)), (9, (put(2),))]
        assert reader.read() == []
        assert reader.revision == 9

    def test_readers_do_not_take_from_each_other(self) -> None:
        feed = ChangeFeed(0)
        one, other = feed.reader("one"), feed.reader("other")
        feed.append(1, [put(1)])
        assert one.read() == other.read() != []

    def test_it_is_resumed_from_a_revision(self) -> None:
        feed = ChangeFeed(0)
        for revision in (1, 2, 5):
            feed.append(revision, [put(revision)])
        assert [entry.revision for entry in feed.since(1)] == [2, 5]
        assert [entry.revision for entry in feed.since(3)] == [5]
        assert feed.since(5) == []

    def test_a_revision_before_the_feed_is_a_gap(self) -> None:
        feed = ChangeFeed(7)
        feed.append(8, [put(1)])
        with pytest.raises(GapError) as caught:
            feed.since(6)
        assert caught.value.oldest == 7

    def test_a_revision_that_is_not_yet_is_a_gap(self) -> None:
        """A follower of another database, or of one that was restored from an older copy."""
        with pytest.raises(GapError):
            ChangeFeed(7).since(8)

    def test_it_is_bounded_and_a_slow_reader_is_told_that_it_missed_some(self) -> None:
        feed = ChangeFeed(0)
        slow, reader = feed.reader("slow"), feed.reader("quick")
        for revision in range(1, FEED_CHANGES_KEPT + 1):
            feed.append(revision, [put(revision)])
            assert len(reader.read()) == 1
        assert len(feed.since(0)) == FEED_CHANGES_KEPT
        feed.append(FEED_CHANGES_KEPT + 1, [put(0)])
        with pytest.raises(GapError):
            slow.read()
        assert slow.read() == [], "after a gap it goes on from now, and lists the intent itself"
        assert len(feed.since(1)) == FEED_CHANGES_KEPT

    def test_one_entry_that_is_larger_than_the_bound_is_kept_until_the_next(self) -> None:
        feed = ChangeFeed(0)
        feed.append(1, [put(n) for n in range(FEED_CHANGES_KEPT + 5)])
        assert len(feed.since(0)) == 1
        feed.append(2, [put(1)])
        with pytest.raises(GapError):
            feed.since(0)
        assert len(feed.since(1)) == 1

    def test_a_closed_reader_is_woken_no_more(self) -> None:
        feed, woken = ChangeFeed(0), []
        reader = feed.reader("page", lambda: woken.append(1))
        feed.append(1, [put(1)])
        reader.close()
        reader.close()
        feed.append(2, [put(2)])
        assert woken == [1]


class TestVerbs:
    def test_a_reader_that_fails_harms_neither_the_verb_nor_the_others(self, bench: Bench) -> None:
        def broken() -> None:
            raise RuntimeError("a bug of a reader's")

        woken = []
        feed = bench.engine.feed
        feed.reader("broken", broken)
        feed.reader("other", lambda: woken.append(1))
        assert bench.attach(A).state == "up"
        assert woken == [1]
        failed = [e for e in bench.engine.events.since(0) if e.kind == "reader.failed"]
        assert [(e.subject, e.detail["error"]) for e in failed] == [
            ("broken", "RuntimeError: a bug of a reader's")
        ]

    def test_it_has_what_is_in_force_in_the_order_of_the_store(self, bench: Bench) -> None:
        since = bench.engine.revision
        bench.attach(A, name="a")
        bench.engine.detach([DetachRequest(sandbox=A)])
        entries = bench.engine.feed.since(since)
        assert [entry.revision for entry in entries] == [since + 1, since + 2]
        assert [type(c).__name__ for e in entries for c in e.changes] == ["Put", "Put", "Delete", "Delete"]

    def test_what_is_taken_back_is_not_in_it(self, bench: Bench) -> None:
        since = bench.engine.revision
        bench.kernel.raise_from("apply", OSError(24, "Too many open files"))
        with pytest.raises(Exception, match="Too many open files"):
            bench.attach(A)
        assert bench.engine.feed.since(since) == []
        bench.network("back")
        assert [e.revision for e in bench.engine.feed.since(since)] == [bench.engine.revision]

    def test_a_listener_of_events_that_fails_harms_nobody(self, bench: Bench) -> None:
        def broken(_event: object) -> None:
            raise RuntimeError("a bug of a listener's")

        seen = []
        bench.engine.events.listen(broken)
        bench.engine.events.listen(lambda event: seen.append(event.kind))
        bench.network("back")
        assert seen == ["network.created"]


class TestJournal:
    @pytest.mark.parametrize(
        ("kind", "level"),
        [
            ("network.created", "INFO"),
            ("drift.contested", "WARNING"),
            ("flows.delete_failed", "WARNING"),
            ("apply.failed", "WARNING"),
        ],
    )
    def test_each_event_is_one_line(self, bench: Bench, caplog, kind: str, level: str) -> None:
        with caplog.at_level("INFO", "sealane.events"):
            bench.engine.events.emit(kind, "front", id="abc", why="no space")
        assert [(r.levelname, r.getMessage()) for r in caplog.records] == [
            (level, f'{kind} front id=abc why="no space"')
        ]

    def test_text_that_others_wrote_cannot_break_the_line(self, bench: Bench, caplog) -> None:
        with caplog.at_level("INFO", "sealane.events"):
            bench.engine.events.emit("x.failed", "a\nERROR forged", why='\x1b[2J"', empty="")
        (record,) = caplog.records
        assert record.getMessage() == r'x.failed "a\nERROR forged" why="\u001b[2J\"" empty=""'
