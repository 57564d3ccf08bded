"""Three real members, and what happens to them: killed, paused, cut off, without quorum."""

import threading
from collections.abc import Iterator

import pytest

from harness.etcd import Cluster, Member, why_not
from harness.etcd_seen import Seen
from harness.netns import eventually
from sealane.etcd import rpc
from sealane.etcd.client import Client
from sealane.etcd.errors import EtcdError, UnavailableError, UnknownOutcomeError
from sealane.etcd.records import Applied, Delete, Put, Refused, is_absent

pytestmark = [pytest.mark.real, pytest.mark.kernel]

if why_not():
    pytest.skip(why_not(), allow_module_level=True)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("etcd"), 3) as cluster:
        yield cluster


@pytest.fixture
def cluster(running: Cluster) -> Iterator[Cluster]:
    """As new: every member runs and can be reached."""
    try:
        yield running
    finally:
        running.heal()
        for member in running.members:
            if member.process is None:
                member.start()
            member.resume()
        running.wait()


@pytest.fixture
def client(cluster: Cluster) -> Iterator[Client]:
    with Client(cluster.urls) as client:
        client.transact([], [Delete(b"/", is_prefix=True)], deadline_s=60).result()
        yield client


def put(client: Client, key: bytes, value: bytes) -> int:
    return client.transact([], [Put(key, value)], deadline_s=60).result().revision


class Writer:
    """Claims /w/1, /w/2, … one after the other, as the cluster does: after an unknown outcome it reads again, and
    takes its own record for success. `claimed` is how many are certain."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._stop = threading.Event()
        self.claimed = 0
        self.unknown = 0
        self.stolen = 0
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            key = b"/w/%d" % (self.claimed + 1)
            try:
                answer = self._client.transact(
                    [is_absent(key)], [Put(key, key)], otherwise=[key], deadline_s=2.0
                ).result()
            except UnknownOutcomeError:
                self.unknown += 1
            except UnavailableError:
                pass
            else:
                if isinstance(answer, Refused) and answer.records[0].value != key:
                    self.stolen += 1
                self.claimed += 1

    def claims_more(self, count: int = 20) -> None:
        wanted = self.claimed + count
        eventually(lambda: self.claimed >= wanted, what=f"{count} more claims")

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()


@pytest.fixture
def writer(client: Client) -> Iterator[Writer]:
    writer = Writer(client)
    try:
        yield writer
    finally:
        writer.stop()


def follows_all(client: Client, writer: Writer, seen: Seen) -> None:
    """The writer's every claim is at the watch, once and in order, and etcd has no other."""
    writer.stop()
    records = client.get_prefix(b"/w/", deadline_s=60).result().records
    assert {record.version for record in records} == {1}, "a claim was made twice"
    assert writer.stolen == 0
    count = len(records)
    assert writer.claimed <= count <= writer.claimed + 1  # The last outcome may be unknown.
    eventually(lambda: len(seen.events()) >= count, what="every claim at the watch")
    assert seen.values() == [b"/w/%d" % number for number in range(1, count + 1)]
    assert seen.ends == []


class TestOneMemberFails:
    """Claims go on, and a watch misses and repeats nothing."""

    @pytest.fixture
    def seen(self, client: Client) -> Seen:
        seen = Seen()
        client.watch(b"/w/", put(client, b"/x", b"") + 1, seen.listener())
        eventually(lambda: seen.opens, what="the watch is open")
        return seen

    def test_the_leader_is_killed(self, cluster: Cluster, client: Client, seen: Seen, writer: Writer) -> None:
        writer.claims_more()
        leader = cluster.leader()
        leader.kill()
        writer.claims_more()
        assert cluster.leader() is not leader
        follows_all(client, writer, seen)

    def test_each_member_is_restarted_in_turn(
        self, cluster: Cluster, client: Client, seen: Seen, writer: Writer
    ) -> None:
        for member in cluster.members:
            writer.claims_more()
            member.kill()
            writer.claims_more()
            member.start()
            cluster.wait()
        assert seen.broken, "the watch's member was never killed"
        follows_all(client, writer, seen)

    def test_each_member_is_paused_in_turn(
        self, cluster: Cluster, client: Client, seen: Seen, writer: Writer
    ) -> None:
        for member in cluster.members:
            writer.claims_more()
            member.pause()
            writer.claims_more(200)
            member.resume()
            cluster.wait()
        follows_all(client, writer, seen)

    def test_each_member_is_cut_off_in_turn(
        self, cluster: Cluster, client: Client, seen: Seen, writer: Writer
    ) -> None:
        for member in cluster.members:
            writer.claims_more()
            cluster.black_hole(member.address)
            writer.claims_more(200)
            cluster.heal()
        follows_all(client, writer, seen)


def lose_quorum(cluster: Cluster) -> Member:
    """Two members are killed; returns the third."""
    left, *others = cluster.members
    for member in others:
        member.kill()
    return left


class TestQuorumIsLost:
    def test_a_watch_breaks_and_says_why_and_goes_on_when_quorum_is_back(
        self, cluster: Cluster, client: Client
    ) -> None:
        seen = Seen()
        with Client(cluster.urls[:1]) as near:
            near.watch(b"/w/", put(client, b"/w/a", b"1"), seen.listener())
            eventually(lambda: seen.has(b"1"), what="the first event")
            lose_quorum(cluster)
            eventually(lambda: any("no leader" in str(error) for error in seen.broken), what="no leader")
            for member in cluster.members[1:]:
                member.start()
            cluster.wait()
            put(client, b"/w/a", b"2")
            eventually(lambda: seen.has(b"2"), what="the second event")
        assert seen.values() == [b"1", b"2"]
        assert seen.ends == []

    def test_without_hasleader_the_watch_would_be_silent(
        self, cluster: Cluster, client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The control: beside it, ours breaks."""
        ours, theirs = Seen(), Seen()
        start = put(client, b"/w/a", b"1")
        with Client(cluster.urls[:1]) as near, Client(cluster.urls[:1]) as silent:
            near.watch(b"/w/", start, ours.listener())
            eventually(lambda: ours.has(b"1"), what="our first event")
            with monkeypatch.context() as patched:
                patched.setattr(rpc, "_metadata", lambda _token: ())
                silent.watch(b"/w/", start, theirs.listener())
                eventually(lambda: theirs.has(b"1"), what="the other's first event")
            lose_quorum(cluster)
            eventually(lambda: len(ours.broken) > 3, what="ours breaks")
            assert theirs.broken == theirs.ends == []

    def test_calls_fail_at_their_deadline_and_say_what_is_certain(
        self, cluster: Cluster, client: Client
    ) -> None:
        put(client, b"/a", b"1")
        lose_quorum(cluster)

        def is_known() -> bool:
            """The member has noticed, and refuses before it proposes."""
            error = client.transact([], [Put(b"/a", b"2")], deadline_s=2.0).exception()
            assert isinstance(error, UnavailableError | UnknownOutcomeError), error
            return isinstance(error, UnavailableError)

        eventually(is_known, what="a definite refusal")
        read: EtcdError | None = client.get([b"/a"], deadline_s=2.0).exception()  # type: ignore[assignment]
        assert isinstance(read, UnavailableError)

    def test_a_lease_outlives_an_outage_longer_than_its_ttl(self, cluster: Cluster, client: Client) -> None:
        """Leases have their whole TTL again under a new leader: time alone does not lose one."""
        lease = client.grant(3, deadline_s=60).result()
        client.transact([], [Put(b"/alive", b"", lease=lease.id)]).result()
        lost: list[Exception] = []
        client.keep_alive(lease, lost.append)
        seen = Seen()
        client.watch(b"/alive", 1, seen.listener())
        lose_quorum(cluster)
        with Client(cluster.urls) as other:
            for _ in range(3):
                other.get([b"/alive"], deadline_s=2.0).exception()
        for member in cluster.members[1:]:
            member.start()
        cluster.wait()
        put(client, b"/after", b"")
        assert client.get([b"/alive"], deadline_s=60).result().records
        assert lost == []


def test_all_members_away_and_back(cluster: Cluster, client: Client) -> None:
    """Nothing that waits is forgotten, and the way back takes a second, not a backoff of minutes."""
    seen = Seen()
    client.watch(b"/w/", put(client, b"/w/a", b"1"), seen.listener())
    eventually(lambda: seen.has(b"1"), what="the first event")
    for member in cluster.members:
        member.kill()
    eventually(lambda: len(seen.broken) > 20, what="many tries")
    error = client.transact([], [Put(b"/w/a", b"never")], deadline_s=2.0).exception()
    assert isinstance(error, UnavailableError), "nothing was connected, so nothing was sent"
    for member in cluster.members:
        member.start()
    cluster.wait()
    assert isinstance(client.transact([], [Put(b"/w/a", b"2")], deadline_s=60).result(), Applied)
    eventually(lambda: seen.has(b"2"), what="the second event")
    assert seen.values() == [b"1", b"2"]
