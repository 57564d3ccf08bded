"""What only the SQLite store has: a file that outlives it, that others may have written, and errors of its own."""

import contextlib
import json
import os
import resource
import sqlite3
import subprocess
import sys
import threading
import zlib

import msgspec
import pytest

from sealane.model.change import Delete, Put
from sealane.model.codec import encode
from sealane.model.container import Container
from sealane.model.endpoint import Endpoint, Sandbox
from sealane.model.kinds import KINDS
from sealane.model.network import Network
from sealane.store import database, rows
from sealane.store.base import RevisionConflictError, StoreError
from sealane.store.sqlite import SqliteStore

NET = Network(id="n1", name="front")
BOX = Sandbox(id="s1", name="web", netns=None)
BOXED = Container(id="c1", name="web", sandbox="s1", spec=msgspec.Raw(b"{}"))


def endpoint(number=1, **fields):
    defaults = {
        "id": f"e{number}",
        "name": "web",
        "network": "n1",
        "sandbox": "s1",
        "ifname": "eth0",
        "mac": "02:42:0a:01:00:02",
        "addresses": (f"10.0.0.{number}/24",),
    }
    return Endpoint(**defaults | fields)


ALL = [Put(NET), Put(BOX), Put(endpoint()), Put(BOXED)]


@pytest.fixture
def directory(tmp_path):
    return str(tmp_path / "state")


@contextlib.contextmanager
def opened(directory):
    with contextlib.closing(SqliteStore(directory, reserve_bytes=4096)) as store:
        yield store


def refused(directory, reason, message):
    for _ in range(2):
        with pytest.raises(StoreError, match=message) as caught:
            SqliteStore(directory, reserve_bytes=4096)
        assert caught.value.reason == reason
        assert "state.db" in str(caught.value)


@contextlib.contextmanager
def raw(directory):
    """The database as anybody's SQLite sees it."""
    with contextlib.closing(sqlite3.connect(f"{directory}/state.db", isolation_level=None)) as db:
        db.execute("PRAGMA foreign_keys = OFF")
        yield db


@pytest.fixture
def filled(directory):
    with opened(directory) as store:
        store.commit(ALL, 0)
        store.set_meta("instance", "abcdef")
    return directory


def test_what_was_committed_is_there_after_a_restart(filled):
    for _ in range(2):
        with opened(filled) as store:
            assert store.snapshot().revision == 1
            assert store.snapshot().records == (NET, BOX, endpoint(), BOXED)
            assert store.meta("instance") == "abcdef"
            with pytest.raises(RevisionConflictError):
                store.commit([], 0)


def test_constraints_hold_after_a_restart(filled):
    with opened(filled) as store:
        store.commit([Delete(endpoint()), Put(endpoint(2, addresses=("10.0.0.1/24",)))], 1)


def test_a_closed_store_leaves_one_database_and_its_guards(filled):
    assert sorted(os.listdir(filled)) == ["state.db", "state.lock", "state.reserve"]


def test_close_twice_is_close(directory):
    store = SqliteStore(directory, reserve_bytes=4096)
    store.close()
    store.close()


@pytest.mark.parametrize("name", ["a b", "ä", "per%cent?x=1#y", "quo'te"])
def test_any_directory_name_will_do(tmp_path, name):
    with opened(str(tmp_path / name)) as store:
        store.commit(ALL, 0)
    with opened(str(tmp_path / name)) as store:
        assert len(store.snapshot().records) == 4
    assert os.listdir(tmp_path) == [name]


def test_another_thread_may_commit(directory):
    with opened(directory) as store:
        thread = threading.Thread(target=store.commit, args=(ALL, 0))
        thread.start()
        thread.join()
        assert len(store.snapshot().records) == 4


def test_a_second_store_on_the_directory_is_refused(filled):
    with opened(filled):
        with pytest.raises(StoreError, match=f"process {os.getpid()}") as caught:
            SqliteStore(filled)
        assert caught.value.reason == "locked"


def test_a_second_store_is_refused_even_when_the_lock_file_was_deleted(filled):
    # In another process: SQLite's own locks are per process.
    script = f"from sealane.store.sqlite import SqliteStore; SqliteStore({filled!r})"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with opened(filled):
        os.unlink(f"{filled}/state.lock")
        result = subprocess.run(
            [sys.executable, "-c", script], env=env, capture_output=True, text=True, check=False
        )
    assert "StoreError" in result.stderr
    assert "another process uses it" in result.stderr


def test_the_connection_is_set_up_as_designed(directory):
    with opened(directory) as store:
        pragmas = (
            "journal_mode",
            "synchronous",
            "foreign_keys",
            "locking_mode",
            "trusted_schema",
            "secure_delete",
        )
        values = [store._db.execute(f"PRAGMA {name}").fetchone()[0] for name in pragmas]
        assert values == ["wal", 1, 1, "exclusive", 0, 0]
        tables = store._db.execute(
            "SELECT name, strict, wr FROM pragma_table_list WHERE schema = 'main'"
        ).fetchall()
        assert {name for name, strict, _ in tables if not strict} == {"sqlite_schema"}


def test_no_statement_of_a_commit_reads_a_whole_table(directory):
    """Deleting a record looks for its referrers: each of those searches needs its index."""
    with opened(directory) as store:
        for table in rows.TABLES.values():
            for statement in (table.insert, table.update, table.checksum, table.delete):
                plan = store._db.execute(
                    f"EXPLAIN QUERY PLAN {statement}", [None] * max(1, statement.count("?"))
                ).fetchall()
                assert not [row for row in plan if "SCAN" in row[3]], (statement, plan)
        for child, column in (
            ("endpoints", "network"),
            ("endpoints", "sandbox"),
            ("containers", "sandbox"),
            ("leases", "endpoint"),
        ):
            plan = store._db.execute(
                f"EXPLAIN QUERY PLAN SELECT 1 FROM {child} WHERE {column} = 'x'"
            ).fetchall()
            assert "SEARCH" in plan[0][3]


def test_work_does_not_grow_with_the_store(directory):
    """Counted in steps of SQLite's machine, which no other load on the computer disturbs."""

    def steps(store, revision, number):
        count = 0

        def tick():
            nonlocal count
            count += 1

        store._db.set_progress_handler(tick, 1)
        store.commit(
            [Put(endpoint(number, id=f"x{number}", addresses=(f"10.1.{number >> 8}.{number & 255}/8",)))],
            revision,
        )
        store.commit([Delete(endpoint(number, id=f"x{number}"))], revision + 1)
        store._db.set_progress_handler(None, 1)
        return count

    with opened(directory) as store:
        revision = store.commit(ALL, 0)
        few = steps(store, revision, 1)
        many = [Put(endpoint(n, id=f"y{n}", addresses=(f"10.2.{n >> 8}.{n & 255}/8",))) for n in range(3000)]
        revision = store.commit(many, revision + 2)
        assert steps(store, revision, 2) <= few + 5


def test_the_migrations_make_the_digest_of_nothing(directory):
    with opened(directory) as store:
        assert store._db.execute("SELECT * FROM revision").fetchall() == [(1, 0, 0, rows.revision_crc(0, 0))]


# Databases that are not ours, or not of this release


def test_somebody_elses_database_is_refused_and_kept(directory):
    os.mkdir(directory, 0o700)
    with raw(directory) as db:
        db.execute("CREATE TABLE precious (x)")
        db.execute("INSERT INTO precious VALUES (42)")
    refused(directory, "schema", "not one of sealane")
    with raw(directory) as db:
        assert db.execute("SELECT x FROM precious").fetchone() == (42,)


def test_a_database_of_ours_without_our_tables_is_refused(directory):
    os.mkdir(directory, 0o700)
    with raw(directory) as db:
        db.execute(f"PRAGMA application_id = {database.APPLICATION_ID}")
        db.execute("PRAGMA user_version = 1")
    refused(directory, "corrupt", "its tables are not those")


@pytest.mark.parametrize("version", [0, 2, 99, -1])
def test_another_schema_version_is_refused(filled, version):
    with raw(filled) as db:
        db.execute(f"PRAGMA user_version = {version}")
    refused(filled, "schema", f"schema version {version}, this release knows up to 1")
    with raw(filled) as db:
        db.execute("PRAGMA user_version = 1")
    with opened(filled) as store:
        assert len(store.snapshot().records) == 4


def test_a_file_that_is_no_database_is_refused_and_kept(directory):
    os.mkdir(directory, 0o700)
    with open(f"{directory}/state.db", "wb") as file:
        file.write(b"precious" * 1000)
    refused(directory, "corrupt", "SQLITE_NOTADB")
    with open(f"{directory}/state.db", "rb") as file:
        assert file.read() == b"precious" * 1000


def test_an_empty_file_that_was_never_written_is_a_new_database(directory):
    os.mkdir(directory, 0o700)
    with open(f"{directory}/state.db", "wb"):
        pass
    with opened(directory) as store:
        assert store.snapshot().revision == 0


def test_a_deleted_database_is_not_made_again(filled):
    os.unlink(f"{filled}/state.db")
    refused(filled, "corrupt", "is gone, it was at revision 1")
    assert "state.db" not in os.listdir(filled)


def test_a_database_that_was_emptied_through_sqlite_is_refused(directory):
    with opened(directory) as store:
        store.commit(ALL, 0)
    os.unlink(f"{directory}/state.db")
    with raw(directory) as db:
        db.execute("CREATE TABLE x (y)")
        db.execute("DROP TABLE x")
    refused(directory, "corrupt", "is empty, and it was not")


def test_an_older_schema_is_brought_up_to_date(filled, monkeypatch):
    later = "BEGIN; CREATE TABLE extra (x TEXT) STRICT; PRAGMA user_version = 2; COMMIT;"
    scripts = (*database._migrations(), later)
    monkeypatch.setattr(database, "_migrations", lambda: scripts)
    database._expected_schema.cache_clear()
    for _ in range(2):
        with opened(filled) as store:
            assert store.snapshot().records == (NET, BOX, endpoint(), BOXED)
            assert store._db.execute("PRAGMA user_version").fetchone() == (2,)
    monkeypatch.undo()
    database._expected_schema.cache_clear()
    refused(filled, "schema", "schema version 2, this release knows up to 1")


def test_a_migration_that_fails_leaves_the_schema_before_it(filled, monkeypatch):
    bad = "BEGIN; CREATE TABLE extra (x TEXT) STRICT; CREATE TABLE networks (x); PRAGMA user_version = 2; COMMIT;"
    scripts = (*database._migrations(), bad)
    monkeypatch.setattr(database, "_migrations", lambda: scripts)
    refused(filled, "corrupt", "networks already exists")
    monkeypatch.undo()
    with opened(filled) as store:
        assert len(store.snapshot().records) == 4


# Rows that do not add up: what each proof of `read_all` is for


def crc(data):
    return zlib.crc32(data)


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        (
            "UPDATE networks SET record = CAST(replace(record, 'front', 'frond') AS BLOB)",
            "network 'n1' is damaged",
        ),
        ("UPDATE endpoints SET crc32 = crc32 + 1", "endpoint 'e1' is damaged"),
        ("UPDATE networks SET name = 'back'", "network 'n1' does not match its row"),
        ("UPDATE endpoints SET sandbox = NULL", "endpoint 'e1' does not match its row"),
        ("UPDATE endpoints SET id = 'e2'", "endpoint 'e2' does not match its row"),
        ("DELETE FROM containers", "records are missing"),
        ("DELETE FROM endpoints", "records are missing"),
        ("DELETE FROM leases", "the leases are not those"),
        ("UPDATE leases SET address = '10.0.0.9'", "the leases are not those"),
        ("INSERT INTO leases VALUES ('n1', '10.0.0.9', 'e1')", "the leases are not those"),
        ("UPDATE meta SET value = 'fedcba'", "meta 'instance' is damaged"),
        ("UPDATE revision SET revision = 2", "its revision is damaged"),
        ("UPDATE revision SET digest = digest + 1", "its revision is damaged"),
        ("DELETE FROM revision", "its revision is damaged"),
        ("DROP INDEX leases_by_endpoint", "its tables are not those"),
        ("CREATE TRIGGER t AFTER DELETE ON leases BEGIN SELECT 1; END", "its tables are not those"),
        ("ALTER TABLE meta ADD COLUMN x TEXT", "its tables are not those"),
    ],
)
def test_an_edit_by_other_hands_is_noticed(filled, statement, message):
    with raw(filled) as db:
        db.execute(statement)
    refused(filled, "corrupt", message)


def test_a_record_moved_to_another_kind_is_noticed(filled):
    data = encode(BOX)
    with raw(filled) as db:
        db.execute("DELETE FROM sandboxes")
        db.execute("INSERT INTO networks VALUES ('s1', 'web', ?, ?)", (data, crc(data)))
    refused(filled, "corrupt", "network 's1' does not match its row")


def test_a_record_of_a_later_release_is_named(filled):
    envelope = json.loads(encode(NET)) | {"v": 3}
    data = json.dumps(envelope).encode()
    with raw(filled) as db:
        db.execute("UPDATE networks SET record = ?, crc32 = ?", (data, crc(data)))
    refused(filled, "schema", "network n1 is of version 3")


def test_text_that_is_no_utf8_is_corrupt(filled):
    with raw(filled) as db:
        db.execute("UPDATE meta SET value = CAST(x'ff' AS TEXT)")
    refused(filled, "corrupt", "Could not decode")


def test_damage_below_an_open_store_is_an_error_of_the_call(filled):
    with opened(filled) as store:
        store._db.execute("UPDATE revision SET crc32 = 0")
        with pytest.raises(StoreError) as caught:
            store.commit([Delete(endpoint())], 1)
        assert caught.value.reason == "corrupt"
        with pytest.raises(StoreError):
            store.snapshot()
        assert store.meta("instance") == "abcdef"


def test_a_commit_that_fails_leaves_no_transaction_behind(filled):
    with opened(filled) as store:
        for changes in ([Put(endpoint(2, network="n9"))], [Put(NET)], [Delete(BOX)]):
            with pytest.raises(Exception):
                store.commit(changes, 1)
            assert not store._db.in_transaction
        assert store.commit([Put(endpoint(2))], 1) == 2


@contextlib.contextmanager
def no_file_can_be_written():
    """Every write below the limit's offset fails with EFBIG (setrlimit(2)); Python ignores SIGXFSZ."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_check_for_writing_fails_where_a_commit_would(filled):
    with opened(filled) as store:
        found = store.snapshot()
        for _ in range(2):
            # Again and again: SQLite leaves out a write of equal bytes.
            store.check_writable(found.revision, grows=False)
            with no_file_can_be_written(), pytest.raises(StoreError):
                store.check_writable(found.revision, grows=False)
        with no_file_can_be_written(), pytest.raises(StoreError):
            store.commit([Delete(BOXED)], found.revision)
        assert store.snapshot() == found
        store.check_writable(found.revision, grows=False)
        assert store.commit([Delete(BOXED)], found.revision) == found.revision + 1


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_the_table_of_a_kind_is_as_the_kind_says(directory, kind):
    with opened(directory) as store:
        found = store._db.execute(f"PRAGMA table_info({kind.table})").fetchall()
        assert tuple(row[1] for row in found) == (*kind.columns, "record", "crc32")
        keys = store._db.execute(f"PRAGMA foreign_key_list({kind.table})").fetchall()
        tables = {k.name: k.table for k in KINDS}
        assert {(row[3], row[2]) for row in keys} == {(r.field, tables[r.kind]) for r in kind.references}
        indexes = [row[1] for row in store._db.execute(f"PRAGMA index_list({kind.table})").fetchall()]
        for reference in kind.references:
            assert f"{kind.table}_by_{reference.field}" in indexes
