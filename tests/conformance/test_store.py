"""What every store does. A new store is added to `store` and `STORES`, and nowhere else."""

import contextlib
import os
import tempfile

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from property.strategies_records import changes
from sealane.model.change import Change, Delete, Put, Record
from sealane.model.codec import CodecError
from sealane.model.container import Container
from sealane.model.endpoint import Endpoint, Sandbox
from sealane.model.kinds import kind_of
from sealane.model.net import address_part
from sealane.model.network import Network
from sealane.store.base import RevisionConflictError, Store, TakenError
from sealane.store.memory import MemoryStore
from sealane.store.sqlite import SqliteStore

NET = Network(id="n1", name="front")
BOX = Sandbox(id="s1", name="web", netns=None)
POINT = Endpoint(
    id="e1",
    name="web",
    network="n1",
    sandbox="s1",
    ifname="eth0",
    mac="02:42:0a:01:00:02",
    addresses=("10.0.0.2/24", "fd00::2/64"),
)
BOXED = Container(id="c1", name="web", sandbox="s1", spec=msgspec.Raw(b'{"image": "nginx"}'))
ALL = [Put(NET), Put(BOX), Put(POINT), Put(BOXED)]

STORES = ("memory", "sqlite")


@contextlib.contextmanager
def opened(kind):
    if kind == "memory":
        yield MemoryStore()
        return
    with (
        tempfile.TemporaryDirectory() as directory,
        contextlib.closing(SqliteStore(os.path.join(directory, "state"), reserve_bytes=4096)) as store,
    ):
        yield store


@pytest.fixture(params=STORES)
def store(request):
    with opened(request.param) as store:
        yield store


def replaced(record, **fields):
    return Put(msgspec.structs.replace(record, **fields), record)


def refuses(store: Store, changes: list[Change], error: type[Exception], what: str) -> None:
    before = store.snapshot()
    with pytest.raises(error, match=what):
        store.commit(changes, before.revision)
    assert store.snapshot() == before


def test_a_new_store_is_empty_at_revision_0(store):
    assert store.snapshot().revision == 0
    assert store.snapshot().records == ()


def test_records_come_back_equal_referents_first(store):
    revision = store.commit(list(reversed(ALL)), 0)
    assert revision == 1
    assert store.snapshot().revision == 1
    assert store.snapshot().records == (NET, BOX, POINT, BOXED)


def test_each_commit_raises_the_revision_by_one(store):
    revision = store.commit([Put(NET)], 0)
    assert store.commit([Delete(NET)], revision) == 2
    assert store.snapshot().records == ()


@pytest.mark.parametrize("stale", [-1, 0, 2, 1 << 40])
def test_another_revision_is_refused(store, stale):
    store.commit([Put(NET)], 0)
    with pytest.raises(RevisionConflictError, match="revision 1"):
        store.commit([Put(BOX)], stale)
    assert store.snapshot().records == (NET,)


def test_a_replacement_replaces(store):
    revision = store.commit(ALL, 0)
    wide = replaced(POINT, addresses=("10.0.0.9/24",), labels={"tier": "front"})
    store.commit([wide], revision)
    assert store.snapshot().records == (NET, BOX, wide.record, BOXED)


def test_addresses_are_free_again_after_replacement_and_deletion(store):
    store.commit(ALL, 0)
    store.commit([replaced(POINT, addresses=("10.0.0.9/24",))], 1)
    second = msgspec.structs.replace(POINT, id="e2")
    store.commit([Put(second)], 2)
    store.commit([Delete(second)], 3)
    store.commit([Put(second)], 4)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (Put(Network(id="n2", name="front")), "name front"),
        (Put(Sandbox(id="s2", name="web", netns=None)), "name web"),
        (Put(msgspec.structs.replace(BOXED, id="c2")), "name web"),
        (Put(msgspec.structs.replace(NET, name="other")), "id n1"),
        (Put(msgspec.structs.replace(BOX, name="other")), "id s1"),
        (Put(msgspec.structs.replace(POINT, addresses=())), "id e1"),
        (Put(msgspec.structs.replace(BOXED, name="other")), "id c1"),
        (Put(msgspec.structs.replace(POINT, id="e2", addresses=("10.0.0.2/16",))), "address 10.0.0.2"),
        (Put(msgspec.structs.replace(POINT, id="e2", addresses=("fd00::2/64",))), "address fd00::2"),
        (
            Put(msgspec.structs.replace(POINT, id="e2", addresses=("10.0.0.3/8", "10.0.0.3/24"))),
            "address 10.0.0.3",
        ),
    ],
)
def test_what_is_taken_is_named(store, change, what):
    store.commit(ALL, 0)
    refuses(store, [change], TakenError, f"^{what} is taken$")


def test_a_taken_name_in_the_middle_undoes_the_beginning(store):
    store.commit(ALL, 0)
    changes = [
        Delete(BOXED),
        replaced(POINT, addresses=()),
        Put(Network(id="n2", name="back")),
        Put(Network(id="n3", name="front")),
    ]
    refuses(store, changes, TakenError, "name front")


def test_a_name_may_pass_on_within_a_commit(store):
    store.commit(ALL, 0)
    store.commit([replaced(NET, name="old"), Put(Network(id="n2", name="front"))], 1)


def test_names_are_one_a_kind_and_endpoints_share_them(store):
    store.commit(ALL, 0)
    store.commit(
        [Put(msgspec.structs.replace(POINT, id="e2", addresses=())), Put(Network(id="n2", name="web"))], 1
    )


def test_networks_have_their_own_addresses(store):
    store.commit(ALL, 0)
    store.commit(
        [Put(Network(id="n2", name="back")), Put(msgspec.structs.replace(POINT, id="e2", network="n2"))], 1
    )


@pytest.mark.parametrize("change", [Delete(NET), replaced(NET, mtu=1400)])
def test_what_is_not_there_is_neither_deleted_nor_replaced(store, change):
    refuses(store, [change], RevisionConflictError, "network n1")


def test_a_record_is_not_replaced_by_another(store):
    store.commit(ALL, 0)
    for change in (Put(Network(id="n2", name="x"), NET), Put(Network(id="s1", name="x"), BOX)):
        refuses(store, [change], ValueError, "cannot be replaced")


@pytest.mark.parametrize(
    "changes",
    [
        [Put(msgspec.structs.replace(POINT, id="e2", network="n9", addresses=()))],
        [Put(msgspec.structs.replace(POINT, id="e2", sandbox="s9", addresses=()))],
        [Put(msgspec.structs.replace(BOXED, id="c2", name="x", sandbox="s9"))],
        [Delete(NET)],
        [Delete(BOX)],
        [Delete(BOX), Delete(BOXED)],
    ],
)
def test_nothing_refers_to_what_is_not_there(store, changes):
    store.commit(ALL, 0)
    refuses(store, changes, ValueError, "refer")


def test_referents_may_go_first_within_a_commit(store):
    store.commit(ALL, 0)
    store.commit([Delete(NET), Delete(BOX), Delete(BOXED), Delete(POINT)], 1)
    assert store.snapshot().records == ()


def test_a_record_that_could_not_be_read_back_is_refused(store):
    store.commit(ALL, 0)
    for spec in (b"{", b"", b"\xff"):
        bad = msgspec.structs.replace(BOXED, id="c2", name="x", spec=msgspec.Raw(spec))
        refuses(store, [Delete(POINT), Put(bad)], CodecError, "container 'c2'")


def test_meta_is_kept_beside_the_revision(store):
    assert store.meta("instance") is None
    store.set_meta("instance", "abcdef")
    store.set_meta("other", "")
    assert (store.meta("instance"), store.meta("other")) == ("abcdef", "")
    store.set_meta("instance", "012345")
    assert store.meta("instance") == "012345"
    assert store.snapshot().revision == 0


# The same rules once more, written down as slowly and simply as can be.


def wrong_with(records: list[Record], change: Change) -> set[str]:
    """Every reason for which `change` may be refused at once."""
    key = (kind_of(change.record).name, change.record.id)
    rest = [r for r in records if (kind_of(r).name, r.id) != key]
    there = len(rest) < len(records)
    if isinstance(change, Delete) or change.before is not None:
        if not there:
            return {"absent"}
        if isinstance(change, Delete):
            return set()
    record = change.record
    wrong = {f"id {record.id}"} if there and change.before is None else set()
    if not isinstance(record, Endpoint):
        wrong |= {f"name {r.name}" for r in rest if kind_of(r).name == key[0] and r.name == record.name}
    else:
        mine = [address_part(a) for a in record.addresses]
        theirs = {
            address_part(a)
            for r in rest
            if isinstance(r, Endpoint) and r.network == record.network
            for a in r.addresses
        }
        wrong |= {f"address {a}" for a in mine if a in theirs or mine.count(a) > 1}
    return wrong


def dangling(records: list[Record]) -> bool:
    keys = {(kind_of(r).name, r.id) for r in records}
    desired = [("network", r.network) for r in records if isinstance(r, Endpoint)]
    desired += [
        ("sandbox", r.sandbox)
        for r in records
        if isinstance(r, Endpoint | Container) and r.sandbox is not None
    ]
    return any(key not in keys for key in desired)


def after(records: list[Record], change: Change) -> list[Record]:
    key = (kind_of(change.record).name, change.record.id)
    rest = [r for r in records if (kind_of(r).name, r.id) != key]
    return rest if isinstance(change, Delete) else [*rest, change.record]


def sorted_by_id(records):
    return sorted(records, key=lambda r: (kind_of(r).name, r.id))


def attempt(store: Store, batch: list[Change], revision: int) -> str:
    try:
        store.commit(batch, revision)
    except TakenError as error:
        return error.what
    except RevisionConflictError:
        return "absent"
    except ValueError:
        return "dangling"
    return ""


@pytest.mark.parametrize("kind", STORES)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_any_history_is_that_of_the_simplest_model(kind, data):
    with opened(kind) as store:
        records: list[Record] = []
        revision = 0
        for _ in range(data.draw(st.integers(1, 12))):
            batch: list[Change] = []
            tried = records
            allowed: set[str] = set()
            for _ in range(data.draw(st.integers(1, 3))):
                batch.append(data.draw(changes(there=tried)))
                allowed = wrong_with(tried, batch[-1])
                if allowed:
                    break
                tried = after(tried, batch[-1])
            if not allowed and dangling(tried):
                allowed = {"dangling"}
            result = attempt(store, batch, revision)
            assert result in (allowed or {""})
            if not allowed:
                records, revision = tried, revision + 1
            snapshot = store.snapshot()
            assert snapshot.revision == revision
            assert sorted_by_id(snapshot.records) == sorted_by_id(records)


def test_a_check_for_writing_changes_nothing(store):
    revision = store.commit(ALL, 0)
    before = store.snapshot()
    for _ in range(3):
        store.check_writable(revision, grows=False)
        store.check_writable(revision, grows=True)
    assert store.snapshot() == before
    assert store.commit([Delete(BOXED)], revision) == revision + 1


def test_a_check_for_writing_at_another_revision_is_a_conflict(store):
    revision = store.commit(ALL, 0)
    for other in (revision - 1, revision + 1):
        with pytest.raises(RevisionConflictError, match=str(revision)):
            store.check_writable(other, grows=False)
