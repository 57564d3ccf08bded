"""Intent in an SQLite database: one host, nothing to install.

Durability: write-ahead log with `synchronous=NORMAL`. A commit is in the kernel's hands when it returns, so a killed
process loses nothing. A power cut may take the last commits back, and takes the containers, their namespaces and the
kernel's whole network state as well; waiting for the disk at each commit would cost milliseconds to keep records of
what is gone.

Damage: every record has a checksum, their sum is kept with the revision, the tables are compared with the schema and
with each other. A store that does not add up is refused with `StoreError("corrupt")` and left as it is: what the
kernel holds is then worth more than what the file says.

One process: the directory is locked (`store.guard`), and the database itself too (`locking_mode=EXCLUSIVE`), for
somebody may delete a lock file. The latter also keeps the log's index in memory instead of in a mapped file, where a
full or failing disk would be a SIGBUS.
"""

import contextlib
import sqlite3
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeVar

import msgspec

from sealane.model.change import Change, Delete, Put
from sealane.model.codec import encode
from sealane.model.kinds import KIND_BY_NAME, kind_of
from sealane.store.base import RevisionConflictError, Snapshot, StoreError, TakenError
from sealane.store.database import failures, inspect, open_database, store_error
from sealane.store.guard import RESERVE_BYTES, Guard
from sealane.store.rows import TABLES, Lease, columns, leases, meta_crc, read_all, read_revision, revision_crc

DATABASE: Final = "state.db"

CHECKED: Final = "checked"
"""Meta key: the monotonic time, in ns, at which the store was last found to be writable (`check_writable`)."""

T = TypeVar("T")


class SqliteStore:
    """The store of one state directory. Any thread may call it, one at a time."""

    def __init__(self, directory: str, *, reserve_bytes: int = RESERVE_BYTES) -> None:
        """Open or create, and read everything once to know that it can be. Raises StoreError; nothing is open then."""
        self._path = f"{directory}/{DATABASE}"
        self._guard = Guard(directory, reserve_bytes)
        try:
            self._db, found = self._open()
        except BaseException:
            self._guard.close()
            raise
        try:
            if found is None:
                found = self.snapshot()
            self._guard.promise(found.revision)
        except BaseException:
            self.close()
            raise

    def _open(self) -> tuple[sqlite3.Connection, Snapshot | None]:
        self._guard.create_database(DATABASE)
        try:
            found = self._inspect()
        except StoreError as error:
            if error.reason != "full":
                raise
            # A reader needs space for a map of the log.
            self._guard.release_reserve()
            found = self._inspect()
        db = open_database(self._path)
        self._guard.fill_reserve()
        return db, found

    def _inspect(self) -> Snapshot | None:
        return inspect(self._path, self._prove, may_be_empty=not self._guard.noted_revision)

    def _prove(self, db: sqlite3.Connection) -> Snapshot:
        found = read_all(db, self._path)
        promised = self._guard.promised_revision
        if found.revision < promised:
            what = (
                f"it is at revision {found.revision}, and {promised} was written since this machine started; "
                "if it is a copy that you restored, remove state.lock"
            )
            raise store_error("corrupt", self._path, what)
        return found

    def snapshot(self) -> Snapshot:
        with failures(self._path), self._transaction("BEGIN"):
            return read_all(self._db, self._path)

    def check_writable(self, revision: int, *, grows: bool) -> None:
        self._write(lambda: self._touch(revision), grows=grows)

    def commit(self, changes: Sequence[Change], revision: int) -> int:
        steps = [_step(change) for change in changes]
        self._write(lambda: self._transact(steps, revision), grows=_grows(changes))
        self._guard.promise(revision + 1)
        return revision + 1

    def _write(self, transact: Callable[[], None], *, grows: bool) -> None:
        if grows:
            self._require_reserve()
        try:
            transact()
        except StoreError as error:
            if error.reason != "full":
                raise
            self._on_full_disk(transact, use_reserve=not grows)

    def meta(self, key: str) -> str | None:
        with failures(self._path):
            row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def set_meta(self, key: str, value: str) -> None:
        try:
            self._write_meta(key, value)
        except StoreError as error:
            if error.reason != "full":
                raise
            # A few bytes, and the daemon cannot start without.
            self._on_full_disk(lambda: self._write_meta(key, value), use_reserve=True)

    def _touch(self, revision: int) -> None:
        """Write as a commit does. The value is another each time: SQLite leaves out a write of equal bytes."""
        with failures(self._path), self._transaction("BEGIN IMMEDIATE"):
            self._check_revision(revision)
            self._write_meta(CHECKED, str(time.monotonic_ns()))

    def _check_revision(self, revision: int) -> int:
        """Raises RevisionConflictError; return the digest."""
        found, digest = read_revision(self._db, self._path)
        if found != revision:
            raise RevisionConflictError(f"the store is at revision {found}, not {revision}")
        return digest

    def _write_meta(self, key: str, value: str) -> None:
        crc32 = meta_crc(key, value)
        with failures(self._path):
            self._db.execute(
                "INSERT OR REPLACE INTO meta (key, value, crc32) VALUES (?, ?, ?)", (key, value, crc32)
            )

    def close(self) -> None:
        """Idempotent. The log is merged into the database if the disk allows."""
        self._db.close()
        self._guard.close()

    def _transact(self, steps: Sequence["_Step"], revision: int) -> None:
        with failures(self._path):
            try:
                with self._transaction("BEGIN IMMEDIATE"):
                    digest = self._check_revision(revision)
                    for step in steps:
                        digest += self._perform(step)
                    self._db.execute(
                        "UPDATE revision SET revision = ?, digest = ?, crc32 = ?",
                        (revision + 1, digest, revision_crc(revision + 1, digest)),
                    )
            except sqlite3.IntegrityError as error:
                # Deferred references are checked by COMMIT, which does not say which one it was.
                raise ValueError(
                    f"a record refers to a network or sandbox that would not be there: {error}"
                ) from error

    def _perform(self, step: "_Step") -> int:
        """Perform one change; return by how much it changes the digest."""
        table = TABLES[step.kind]
        digest = 0
        if step.replaces:
            old = self._db.execute(table.checksum, (step.id,)).fetchone()
            if old is None:
                raise RevisionConflictError(f"{step.kind} {step.id} is not in the store")
            digest -= old[0]
        if not step.row:
            self._db.execute(table.delete, (step.id,))
            return digest
        if step.replaces and KIND_BY_NAME[step.kind].leases:
            self._db.execute("DELETE FROM leases WHERE endpoint = ?", (step.id,))
        try:
            self._db.execute(table.update if step.replaces else table.insert, step.row)
        except sqlite3.IntegrityError as error:
            # Of two broken constraints SQLite names either; the id says more: this very record was put before.
            by_id = not step.replaces and self._db.execute(table.checksum, (step.id,)).fetchone()
            raise TakenError(f"id {step.id}" if by_id else f"name {step.name}") from error
        for lease in step.leases:
            try:
                self._db.execute("INSERT INTO leases (network, address, endpoint) VALUES (?, ?, ?)", lease)
            except sqlite3.IntegrityError as error:
                raise TakenError(f"address {lease[1]}") from error
        return digest + step.crc32

    def _require_reserve(self) -> None:
        """Without the reserve only what shrinks the store may be written: the space it left is for deletions."""
        if not self._guard.has_reserve and not self._guard.fill_reserve():
            raise store_error(
                "full", self._path, "the file system has less free space than the reserve needs"
            )

    def _on_full_disk(self, write: Callable[[], T], *, use_reserve: bool) -> T:
        if use_reserve:
            self._guard.release_reserve()
        self._empty_log()
        result = write()
        if use_reserve:
            self._empty_log()
            self._guard.fill_reserve()
        return result

    def _empty_log(self) -> None:
        """Move the log into the database and give its space back. On a full disk it may fail, and stays as it is."""
        with contextlib.suppress(sqlite3.Error):
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    @contextlib.contextmanager
    def _transaction(self, begin: str) -> Iterator[None]:
        self._db.execute(begin)
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            # After some errors SQLite has rolled back by itself.
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise


class _Step(msgspec.Struct, frozen=True):
    """A change, encoded before the transaction begins."""

    kind: str
    id: str
    name: str
    replaces: bool
    """The record is there already, and is replaced or (without a row) deleted."""
    row: tuple[object, ...] = ()
    crc32: int = 0
    leases: tuple[Lease, ...] = ()


def _step(change: Change) -> _Step:
    record = change.record
    kind = kind_of(record).name
    if isinstance(change, Delete):
        return _Step(kind, record.id, record.name, True)
    if change.before is not None:
        replaced = kind_of(change.before).name, change.before.id
        if replaced != (kind, record.id):
            raise ValueError(f"{' '.join(replaced)} cannot be replaced by {kind} {record.id}")
    data = encode(record)
    crc32 = zlib.crc32(data)
    row = (*columns(record), data, crc32)
    return _Step(kind, record.id, record.name, change.before is not None, row, crc32, leases(record))


def _grows(changes: Sequence[Change]) -> bool:
    """Whether the store needs more space after the changes than before."""
    growth = 0
    for change in changes:
        if isinstance(change, Put):
            if change.before is None:
                return True
            growth += len(encode(change.record)) - len(encode(change.before))
    return growth > 0
