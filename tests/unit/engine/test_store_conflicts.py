"""The store beside the engine: what it refuses is refused before the kernel changes, and other writers are followed."""

from collections.abc import Sequence

import msgspec
import pytest

from harness.engines import Bench, publish, subnets
from sealane.engine.errors import ConflictError, StoreFailedError
from sealane.kernel.state import HOST
from sealane.model.change import Change, Delete, Put
from sealane.model.endpoint import PublishedPort
from sealane.model.network import Network
from sealane.store.base import StoreError
from sealane.store.memory import MemoryStore
from sealane.wire.requests import DetachRequest

A, B = "/run/netns/a", "/run/netns/b"
FULL = StoreError("full", "no space is left")


class StubbornStore(MemoryStore):
    """Cannot write while `refuses` is set."""

    refuses: StoreError | None = None

    def check_writable(self, revision: int, *, grows: bool) -> None:
        super().check_writable(revision, grows=grows)
        if self.refuses:
            raise self.refuses

    def commit(self, changes: Sequence[Change], revision: int) -> int:
        if self.refuses:
            raise self.refuses
        return super().commit(changes, revision)


@pytest.fixture
def bench() -> Bench:
    bench = Bench(store=StubbornStore())
    bench.network("front", subnets=list(subnets("10.1.0.0/24")))
    return bench


def written_by_another(bench: Bench, *changes: Change) -> None:
    """A commit that the engine does not make."""
    store = bench.store
    store.commit(changes, store.snapshot().revision)


def back(number: int = 1) -> Network:
    return Network(id=f"back{number}", name=f"back{number}", driver="none")  # type: ignore[arg-type]


class TestRefusals:
    @pytest.mark.parametrize(
        "verb",
        [
            lambda bench: bench.engine.detach([DetachRequest(sandbox=A)]),
            lambda bench: bench.engine.publish(next(iter(bench.engine.intent.endpoints.values())), ()),
            lambda bench: bench.engine.remove_sandbox("a", force=True),
            lambda bench: bench.engine.remove_network("front", force=True),
        ],
        ids=["detach", "unpublish", "remove sandbox", "remove network"],
    )
    def test_what_goes_stays_in_the_kernel_untouched_while_the_store_cannot_write(
        self, bench: Bench, verb
    ) -> None:
        bench.attach(A, name="a", publish=[publish(8080, 80)])
        bench.kernel.performed.clear()
        bench.store.refuses = FULL
        with pytest.raises(StoreFailedError, match="no space is left"):
            verb(bench)
        assert bench.kernel.performed == [], "a link that goes down and up again is an outage"
        bench.store.refuses = None
        assert bench.is_clean()
        verb(bench)
        assert bench.is_clean()


class TestAnotherWriter:
    def test_its_records_are_followed_and_the_verb_goes_on(self, bench: Bench) -> None:
        written_by_another(bench, Put(back()))
        assert bench.attach(A).state == "up"
        assert {n.name for n in bench.engine.networks()} == {"front", "back1"}
        assert bench.engine.revision == bench.store.snapshot().revision
        assert bench.engine.hold == ""
        assert bench.is_clean()

    def test_a_detach_goes_on_too(self, bench: Bench) -> None:
        view = bench.attach(A)
        written_by_another(bench, Put(back()))
        assert bench.engine.detach([DetachRequest(sandbox=A)]).detached == [view.id]
        assert bench.engine.intent.endpoints == {}
        assert bench.is_clean()

    def test_what_it_removed_leaves_the_kernel(self, bench: Bench) -> None:
        bench.attach(A)
        (endpoint,) = bench.engine.intent.endpoints.values()
        written_by_another(bench, Delete(endpoint))
        bench.network("other")
        assert bench.engine.intent.endpoints == {}
        assert not [key for key in bench.kernel.state[HOST] if key[0] == "link" and key[1].startswith("sle")]
        assert bench.is_clean()

    def test_the_feed_has_its_changes(self, bench: Bench) -> None:
        since = bench.engine.revision
        written_by_another(bench, Put(back()))
        bench.network("other")
        entries = bench.engine.feed.since(since)
        names = [change.record.name for entry in entries for change in entry.changes]
        assert names == ["back1", "other"]
        assert [entry.revision for entry in entries] == [since + 1, since + 2]

    def test_a_name_that_it_took_is_refused(self, bench: Bench) -> None:
        written_by_another(bench, Put(back()))
        with pytest.raises(ConflictError, match="back1"):
            bench.network("back1")
        assert bench.engine.hold == ""

    def test_a_record_that_it_changed_is_refused_and_kept(self, bench: Bench) -> None:
        (front,) = bench.engine.intent.networks.values()
        theirs = msgspec.structs.replace(front, labels={"by": "another"})
        written_by_another(bench, Put(theirs, front))
        with pytest.raises(ConflictError, match="front"):
            bench.engine.set_dns_servers(front, ["192.0.2.53"])
        assert bench.engine.intent.networks[front.id] == theirs
        assert bench.engine.set_dns_servers(theirs, ["192.0.2.53"]).labels == {"by": "another"}

    def test_a_port_that_it_published_is_refused(self, bench: Bench) -> None:
        """The store has no constraint for ports: the engine's own check is made again."""
        bench.attach(A)
        (endpoint,) = bench.engine.intent.endpoints.values()
        port = PublishedPort(host_first=8080, host_last=8080, port=80)
        written_by_another(bench, Put(msgspec.structs.replace(endpoint, ports=(port,)), endpoint))
        with pytest.raises(ConflictError, match="8080"):
            bench.attach(B, publish=[publish(8080, 80)])
        assert bench.is_clean()

    def test_one_that_never_stops_is_refused_after_some_tries(self, bench: Bench) -> None:
        count = iter(range(2, 100))
        store = bench.store
        commit = MemoryStore.commit

        def outrun(changes: Sequence[Change], revision: int) -> int:
            commit(store, [Put(back(next(count)))], store.snapshot().revision)
            return commit(store, changes, revision)

        store.commit = outrun  # type: ignore[method-assign]
        with pytest.raises(ConflictError, match="keeps changing"):
            bench.attach(A)
        del store.commit
        assert bench.attach(A).state == "up"
        assert bench.is_clean()
