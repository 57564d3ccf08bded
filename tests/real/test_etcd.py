"""Our client and one real etcd: gets, transactions, watches, leases, compaction, and a full database."""

import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path

import pytest

from harness.etcd import Cluster, why_not
from harness.etcd_seen import Seen
from harness.netns import eventually
from harness.patience import pause
from sealane.etcd import messages
from sealane.etcd.client import Client
from sealane.etcd.errors import (
    CompactedError,
    FullError,
    InvalidError,
    UnavailableError,
    UnknownOutcomeError,
)
from sealane.etcd.records import (
    Applied,
    Compare,
    Delete,
    Field,
    Put,
    Refused,
    Relation,
    is_absent,
    is_unchanged,
)

pytestmark = [pytest.mark.real, pytest.mark.kernel]

if why_not():
    pytest.skip(why_not(), allow_module_level=True)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("etcd")) as cluster:
        yield cluster


@pytest.fixture
def client(cluster: Cluster) -> Iterator[Client]:
    with Client(cluster.urls) as client:
        client.transact([], [Delete(b"/", is_prefix=True)]).result()
        yield client


@pytest.fixture
def other(cluster: Cluster) -> Iterator[Client]:
    with Client(cluster.urls) as client:
        yield client


def put(client: Client, key: bytes, value: bytes) -> int:
    return client.transact([], [Put(key, value)]).result().revision


class TestTransactions:
    def test_a_claim_is_applied_once_and_then_refused_with_its_holder(
        self, client: Client, other: Client
    ) -> None:
        first = client.transact([is_absent(b"/a")], [Put(b"/a", b"mine")], otherwise=[b"/a"]).result()
        second = other.transact(
            [is_absent(b"/a")], [Put(b"/a", b"theirs")], otherwise=[b"/a", b"/b"]
        ).result()
        assert isinstance(first, Applied)
        assert isinstance(second, Refused)
        [holder] = second.records
        assert (holder.key, holder.value, holder.create_revision) == (b"/a", b"mine", first.revision)

    def test_all_changes_are_at_one_revision_or_none_is_made(self, client: Client) -> None:
        put(client, b"/gone/1", b"")
        put(client, b"/gone/2", b"")
        changes = [Put(b"/a", b"1"), Put(b"/b", b"2"), Delete(b"/gone/", is_prefix=True)]
        applied = client.transact([is_absent(b"/a")], changes).result()
        listing = client.get_prefix(b"/").result()
        assert {record.key: record.mod_revision for record in listing.records} == {
            b"/a": applied.revision,
            b"/b": applied.revision,
        }
        assert isinstance(client.transact([is_absent(b"/a")], [Put(b"/c", b"")]).result(), Refused)
        assert client.get([b"/c"]).result().records == ()

    @pytest.mark.parametrize(
        ("compare", "holds"),
        [
            (Compare(b"/a", Field.VALUE, b"v"), True),
            (Compare(b"/a", Field.VALUE, b"w"), False),
            (Compare(b"/a", Field.VALUE, b"w", Relation.NOT_EQUAL), True),
            (Compare(b"/a", Field.VERSION, 1), True),
            (Compare(b"/a", Field.VERSION, 1, Relation.GREATER), False),
            (Compare(b"/a", Field.VERSION, 2, Relation.LESS), True),
            (Compare(b"/none", Field.VERSION, 0), True),
            (Compare(b"/none", Field.MOD_REVISION, 0), True),
            (Compare(b"/none", Field.VALUE, b""), False),
        ],
    )
    def test_comparisons_mean_what_they_say(self, client: Client, compare: Compare, holds: bool) -> None:
        put(client, b"/a", b"v")
        assert isinstance(client.transact([compare], [Put(b"/x", b"")]).result(), Applied) == holds

    def test_a_record_that_changed_meanwhile_is_not_overwritten(self, client: Client, other: Client) -> None:
        put(client, b"/a", b"1")
        [record] = client.get([b"/a"]).result().records
        put(other, b"/a", b"2")
        assert isinstance(client.transact([is_unchanged(record)], [Put(b"/a", b"3")]).result(), Refused)

    def test_etcd_takes_what_our_limits_let_through(self, client: Client) -> None:
        many = [b"/many/%d" % number for number in range(messages.OPERATIONS_MAX)]
        changes = [Put(key, b"") for key in many]
        assert isinstance(
            client.transact([is_absent(key) for key in many], changes, otherwise=many).result(), Applied
        )
        assert len(client.get(many).result().records) == messages.OPERATIONS_MAX
        empty = messages.transaction_request([], [Put(b"/big", b"x" * 1_000_000)], []).ByteSize() - 1_000_000
        put(client, b"/big", b"x" * (messages.REQUEST_BYTES_MAX - empty))

    def test_beyond_our_limits_etcd_itself_refuses(
        self, client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Otherwise the limits would be ours alone, and too low."""
        monkeypatch.setattr(messages, "OPERATIONS_MAX", 129)
        with pytest.raises(InvalidError, match="too many operations"):
            client.transact([], [Put(b"/many/%d" % number, b"") for number in range(129)]).result()
        monkeypatch.setattr(messages, "REQUEST_BYTES_MAX", 1 << 22)
        with pytest.raises(InvalidError, match="too large"):
            client.transact([], [Put(b"/big", b"x" * (1536 * 1024))]).result()
        monkeypatch.setattr(messages, "_check_distinct", lambda _changes: None)
        with pytest.raises(InvalidError, match="duplicate key"):
            client.transact([], [Put(b"/a", b""), Put(b"/a", b"")]).result()

    def test_every_thread_can_call(self, client: Client) -> None:
        """Eight threads count up one key by compare-and-put: no step is lost or made twice."""
        put(client, b"/count", b"0")

        def count(times: int) -> None:
            while times:
                [record] = client.get([b"/count"]).result().records
                change = Put(b"/count", b"%d" % (int(record.value) + 1))
                times -= isinstance(client.transact([is_unchanged(record)], [change]).result(), Applied)

        threads = [threading.Thread(target=count, args=(10,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        [record] = client.get([b"/count"]).result().records
        assert record.value == b"80"


class TestListings:
    def fill(self, client: Client, count: int = 100) -> list[bytes]:
        keys = [b"/list/%03d" % number for number in range(count)]
        client.transact([], [Put(key, key) for key in keys]).result()
        return keys

    @pytest.mark.parametrize("page_records", [1, 7, 99, 100, 101])
    def test_pages_of_every_size_give_all_in_order(self, client: Client, page_records: int) -> None:
        keys = self.fill(client)
        put(client, b"/list", b"before")
        put(client, b"/list0", b"after")
        listing = client.get_prefix(b"/list/", page_records=page_records).result()
        assert [record.key for record in listing.records] == keys

    def test_all_pages_are_of_one_revision(
        self, client: Client, other: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Between two pages another host writes into both."""
        self.fill(client)
        read = client._rpc.read

        async def read_and_change(*words: object) -> object:
            answer = await read(*words)  # type: ignore[arg-type]
            other.transact([], [Put(b"/list/000", b"new"), Put(b"/list/099x", b"new")]).result()
            return answer

        monkeypatch.setattr(client._rpc, "read", read_and_change)
        listing = client.get_prefix(b"/list/", page_records=30).result()
        assert len(listing.records) == 100
        assert all(record.mod_revision <= listing.revision for record in listing.records)

    def test_a_listing_that_compaction_overtakes_starts_again(
        self, client: Client, other: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.fill(client)
        read, overtakes = client._rpc.read, 1

        async def read_and_compact(*words: object) -> object:
            nonlocal overtakes
            answer = await read(*words)  # type: ignore[arg-type]
            if overtakes:
                overtakes -= 1
                other.compact(put(other, b"/list/000", b"new")).result()
            return answer

        monkeypatch.setattr(client._rpc, "read", read_and_compact)
        listing = client.get_prefix(b"/list/", page_records=60).result()
        assert listing.records[0].value == b"new"
        assert len(listing.records) == 100
        overtakes = 1000
        with pytest.raises(CompactedError):
            client.get_prefix(b"/list/", page_records=60).result()

    def test_a_listing_and_a_watch_from_its_revision_miss_nothing(
        self, client: Client, other: Client
    ) -> None:
        stop = threading.Event()

        def write() -> None:
            number = 0
            while not stop.is_set():
                number += 1
                put(other, b"/list/n", b"%d" % number)
            put(other, b"/list/n", b"last")

        writer = threading.Thread(target=write)
        writer.start()
        try:
            eventually(lambda: client.get([b"/list/n"]).result().records, what="a first value")
            listing = client.get_prefix(b"/list/").result()
            seen = Seen()
            watch = client.watch(b"/list/", listing.revision + 1, seen.listener())
        finally:
            stop.set()
            writer.join()
        eventually(lambda: seen.has(b"last"), what="the last value")
        watch.close()
        values = [int(value) for value in seen.values()[:-1]]
        first = int(listing.records[0].value)
        assert values == list(range(first + 1, first + 1 + len(values)))


class TestWatches:
    def test_puts_and_deletions_arrive_by_revision(self, client: Client, other: Client) -> None:
        seen = Seen()
        from_revision = put(client, b"/before", b"") + 1
        watch = client.watch(b"/w/", from_revision, seen.listener())
        one = (
            other.transact([], [Put(b"/w/a", b"1"), Put(b"/w/b", b"2"), Put(b"/x", b"not ours")])
            .result()
            .revision
        )
        two = other.transact([], [Delete(b"/w/a")]).result().revision
        eventually(lambda: len(seen.events()) == 3, what="three events")
        watch.close()
        assert [(event.key, event.value, event.revision, event.is_delete) for event in seen.events()] == [
            (b"/w/a", b"1", one, False),
            (b"/w/b", b"2", one, False),
            (b"/w/a", b"", two, True),
        ]
        assert seen.ends == seen.broken == []

    def test_a_watch_from_the_past_catches_up(self, client: Client) -> None:
        first = put(client, b"/w/a", b"0")
        for number in range(1, 50):
            put(client, b"/w/a", b"%d" % number)
        seen = Seen()
        client.watch(b"/w/", first, seen.listener())
        eventually(lambda: seen.has(b"49"), what="all events")
        assert seen.values() == [b"%d" % number for number in range(50)]

    def test_a_closed_watch_tells_nothing_more(self, client: Client, other: Client) -> None:
        seen, control = Seen(), Seen()
        start = put(client, b"/w/a", b"1")
        watch = client.watch(b"/w/", start, seen.listener())
        client.watch(b"/w/", start, control.listener())
        eventually(lambda: seen.has(b"1"), what="the first event")
        watch.close()
        eventually(watch.is_over, what="the watch is over")
        put(other, b"/w/a", b"2")
        eventually(lambda: control.has(b"2"), what="the second event at the other watch")
        assert seen.values() == [b"1"]
        assert seen.ends == []

    def test_a_watch_below_the_compacted_revision_ends_with_it(self, client: Client) -> None:
        first = put(client, b"/w/a", b"1")
        put(client, b"/w/a", b"2")
        last = put(client, b"/w/a", b"3")
        client.compact(last).result()
        seen = Seen()
        watch = client.watch(b"/w/", first, seen.listener())
        eventually(lambda: seen.ends, what="the end")
        [error] = seen.ends
        assert isinstance(error, CompactedError)
        assert error.revision == last
        assert seen.events() == []
        eventually(watch.is_over, what="the watch is over")

    def test_compaction_while_a_watch_is_cut_off_ends_it(self, cluster: Cluster, client: Client) -> None:
        [member] = cluster.members
        seen = Seen()
        start = put(client, b"/w/a", b"1")
        with Client([member.side_url]) as far:
            far.watch(b"/w/", start, seen.listener())
            eventually(lambda: seen.has(b"1"), what="the first event")
            cluster.black_hole(member.side_address)
            try:
                eventually(lambda: seen.broken, what="the loss is noticed")
                put(client, b"/w/a", b"2")
                client.compact(put(client, b"/w/a", b"3")).result()
            finally:
                cluster.heal()
            eventually(lambda: seen.ends, what="the end")
        [error] = seen.ends
        assert isinstance(error, CompactedError)
        assert seen.values() == [b"1"]

    def test_tens_of_megabytes_behind_everything_arrives_once_and_whole(
        self, client: Client, other: Client
    ) -> None:
        """40 revisions of 100 keys and 1 MB each: etcd would send one answer."""
        revisions = [
            other.transact([], [Put(b"/w/%d" % number, bytes([step]) * 10_000) for number in range(100)])
            .result()
            .revision
            for step in range(40)
        ]
        seen = Seen()
        client.watch(b"/w/", revisions[0], seen.listener())
        eventually(
            lambda: seen.events() and seen.events()[-1].revision == revisions[-1], what="the last revision"
        )
        assert [event.revision for event in seen.events()] == [step for step in revisions for _ in range(100)]
        assert len(seen.batches) > 1, "came in one piece: fragments were not tested"
        for batch in seen.batches:
            assert len(batch) % 100 == 0, "a revision was cut"
        assert seen.broken == []

    def test_a_watch_goes_on_over_a_restart(self, cluster: Cluster, client: Client, other: Client) -> None:
        [member] = cluster.members
        seen = Seen()
        client.watch(b"/w/", put(client, b"/w/a", b"1"), seen.listener())
        eventually(lambda: seen.has(b"1"), what="the first event")
        member.kill()
        eventually(lambda: seen.broken, what="the loss is told")
        member.start()
        cluster.wait()
        eventually(lambda: isinstance(other.status().exception(), type(None)), what="etcd serves")
        put(other, b"/w/a", b"2")
        eventually(lambda: seen.has(b"2"), what="the second event")
        assert seen.values() == [b"1", b"2"]
        assert len(seen.opens) >= 2


class TestLeases:
    def test_keys_go_with_their_lease(self, client: Client) -> None:
        lease = client.grant(60).result()
        client.transact([], [Put(b"/alive", b"", lease=lease.id)]).result()
        assert client.get([b"/alive"]).result().records[0].lease == lease.id
        client.revoke(lease).result()
        assert client.get([b"/alive"]).result().records == ()
        client.revoke(lease).result()  # Again: nothing to do.

    def test_a_lease_lives_while_it_is_kept_alive_and_no_longer(self, client: Client) -> None:
        kept, left = client.grant(2).result(), client.grant(2).result()
        changes = [Put(b"/kept", b"", lease=kept.id), Put(b"/left", b"", lease=left.id)]
        client.transact([], changes).result()
        lost: list[Exception] = []
        keeping = client.keep_alive(kept, lost.append)
        eventually(lambda: not client.get([b"/left"]).result().records, what="the other lease expires")
        pause(kept.ttl_s)
        assert client.get([b"/kept"]).result().records
        assert lost == []
        keeping.close()
        eventually(lambda: not client.get([b"/kept"]).result().records, what="this one expires too")
        assert lost == []  # Closed: not told.

    def test_a_lease_that_is_gone_is_told_once(self, client: Client, other: Client) -> None:
        lease = client.grant(3).result()
        lost: list[Exception] = []
        keeping = client.keep_alive(lease, lost.append)
        other.revoke(lease).result()
        eventually(keeping.is_over, what="the keep-alive ends")
        [error] = lost
        assert "expired or was revoked" in str(error)

    def test_a_lease_outlives_a_restart_of_etcd(self, cluster: Cluster, client: Client) -> None:
        [member] = cluster.members
        lease = client.grant(5).result()
        client.transact([], [Put(b"/alive", b"", lease=lease.id)]).result()
        lost: list[Exception] = []
        client.keep_alive(lease, lost.append)
        member.kill()
        member.start()
        cluster.wait()
        pause(2 * lease.ttl_s)
        assert client.get([b"/alive"]).result().records
        assert lost == []

    def test_a_put_on_a_lease_that_is_gone_is_refused(self, client: Client) -> None:
        with pytest.raises(InvalidError, match="lease not found"):
            client.transact([], [Put(b"/alive", b"", lease=12345)]).result()

    def test_a_lease_of_no_time_is_refused(self, client: Client) -> None:
        with pytest.raises(InvalidError, match="at least 1 s"):
            client.grant(0).result()


class TestClients:
    def test_compaction_can_be_repeated_but_not_in_the_future(self, client: Client) -> None:
        revision = put(client, b"/a", b"")
        client.compact(revision).result()
        client.compact(revision).result()
        with pytest.raises(InvalidError, match="future revision"):
            client.compact(revision + 1000).result()

    def test_a_status_is_of_a_member(self, client: Client) -> None:
        revision = put(client, b"/a", b"")
        status = client.status().result()
        assert status.revision == revision
        assert status.leader == status.member_id != 0
        assert status.version.startswith("3.")
        assert status.size_bytes >= status.size_in_use_bytes > 0
        assert status.problems == ()

    def test_a_wrong_watch_is_refused_at_once(self, client: Client) -> None:
        with pytest.raises(InvalidError, match="revision \\+ 1"):
            client.watch(b"/", 0, Seen().listener())

    def test_who_waits_while_the_client_closes_gets_an_error(self, cluster: Cluster) -> None:
        [member] = cluster.members
        client, seen = Client(cluster.urls), Seen()
        start = put(client, b"/a", b"")
        client.watch(b"/", start, seen.listener())
        eventually(lambda: seen.opens, what="the watch is open")
        member.pause()
        try:
            write = client.transact([], [Put(b"/a", b"2")])
            read = client.get([b"/a"])
            client.close()
        finally:
            member.resume()
        assert isinstance(read.exception(), UnavailableError)
        assert isinstance(write.exception(), UnknownOutcomeError)
        assert seen.ends == []
        client.close()
        assert "closed" in str(client.get([b"/a"]).exception())
        with pytest.raises(UnavailableError, match="closed"):
            client.watch(b"/", start, seen.listener())

    def test_a_caller_can_cancel(self, cluster: Cluster, client: Client) -> None:
        [member] = cluster.members
        put(client, b"/a", b"")
        member.pause()
        try:
            read = client.get([b"/a"])
            assert read.cancel()
            with pytest.raises(CancelledError):
                read.result()
        finally:
            member.resume()
        assert client.get([b"/a"]).result().records

    def test_a_client_without_a_server_says_so_and_works_later(self, cluster: Cluster) -> None:
        [member] = cluster.members
        member.kill()
        try:
            with Client(cluster.urls) as client:
                for call in (
                    client.get([b"/a"], deadline_s=0.5),
                    client.transact([], [Put(b"/a", b"1")], deadline_s=0.5),
                    client.grant(5, deadline_s=0.5),
                ):
                    assert isinstance(call.exception(), UnavailableError), call.exception()
                waiting = client.get([b"/a"], deadline_s=60.0)
                member.start()
                assert waiting.result().records == client.get([b"/a"]).result().records
        finally:
            if member.process is None:
                member.start()
            cluster.wait()

    def test_a_write_that_etcd_did_not_answer_has_an_unknown_outcome(
        self, cluster: Cluster, client: Client
    ) -> None:
        """It reached the paused process's socket, and is applied when that goes on."""
        [member] = cluster.members
        put(client, b"/a", b"1")
        member.pause()
        try:
            error = client.transact([], [Put(b"/a", b"2")], deadline_s=1.0).exception()
            assert isinstance(error, UnknownOutcomeError)
            assert isinstance(client.get([b"/a"], deadline_s=1.0).exception(), UnavailableError)
        finally:
            member.resume()
        assert client.get([b"/a"]).result().records[0].value in {b"1", b"2"}


def test_a_full_database_refuses_puts_and_serves_the_rest(tmp_path: Path) -> None:
    with (
        Cluster(tmp_path, 1, "--quota-backend-bytes", str(4 << 20)) as cluster,
        Client(cluster.urls) as client,
    ):
        # etcd learns its size when it commits to disk, so some puts beyond the quota are taken.
        error = eventually(
            lambda: client.transact([], [Put(b"/0", b"x" * 500_000)]).exception(), what="a full database"
        )
        assert isinstance(error, FullError)
        assert client.get([b"/0"]).result().records
        assert isinstance(client.transact([], [Delete(b"/0")]).result(), Applied)
        assert isinstance(client.transact([], [Put(b"/a", b"")]).exception(), FullError)
        assert "NOSPACE" in "".join(client.status().result().problems)
