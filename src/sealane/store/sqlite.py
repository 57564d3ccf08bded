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
import zlib
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from sealane.model.change import Change, Delete, Put, Record
from sealane.model.codec import CodecError, decode, encode, kind_of
from sealane.model.container import Container
from sealane.model.endpoint import Endpoint
from sealane.model.net import address_part
from sealane.store.base import RevisionConflictError, Snapshot, StoreError, TakenError
from sealane.store.database import failures, open_database, store_error
from sealane.store.guard import RESERVE_BYTES, Guard

DATABASE: Final = "state.db"

Lease = tuple[str, str, str]
"""(network, address, endpoint)."""


class _Table(msgspec.Struct, frozen=True):
    """The statements of one kind of record. The columns are those of `_columns`, then record and crc32."""

    select: str
    insert: str
    update: str
    checksum: str
    delete: str


_TABLES: Final = {
    "network": _Table(
        "SELECT id, name, record, crc32 FROM networks",
        "INSERT INTO networks (id, name, record, crc32) VALUES (?1, ?2, ?3, ?4)",
        "UPDATE networks SET name = ?2, record = ?3, crc32 = ?4 WHERE id = ?1",
        "SELECT crc32 FROM networks WHERE id = ?",
        "DELETE FROM networks WHERE id = ?",
    ),
    "sandbox": _Table(
        "SELECT id, name, record, crc32 FROM sandboxes",
        "INSERT INTO sandboxes (id, name, record, crc32) VALUES (?1, ?2, ?3, ?4)",
        "UPDATE sandboxes SET name = ?2, record = ?3, crc32 = ?4 WHERE id = ?1",
        "SELECT crc32 FROM sandboxes WHERE id = ?",
        "DELETE FROM sandboxes WHERE id = ?",
    ),
    "endpoint": _Table(
        "SELECT id, network, sandbox, record, crc32 FROM endpoints",
        "INSERT INTO endpoints (id, network, sandbox, record, crc32) VALUES (?1, ?2, ?3, ?4, ?5)",
        "UPDATE endpoints SET network = ?2, sandbox = ?3, record = ?4, crc32 = ?5 WHERE id = ?1",
        "SELECT crc32 FROM endpoints WHERE id = ?",
        "DELETE FROM endpoints WHERE id = ?",
    ),
    "container": _Table(
        "SELECT id, name, sandbox, record, crc32 FROM containers",
        "INSERT INTO containers (id, name, sandbox, record, crc32) VALUES (?1, ?2, ?3, ?4, ?5)",
        "UPDATE containers SET name = ?2, sandbox = ?3, record = ?4, crc32 = ?5 WHERE id = ?1",
        "SELECT crc32 FROM containers WHERE id = ?",
        "DELETE FROM containers WHERE id = ?",
    ),
}


class SqliteStore:
    """The store of one state directory. Any thread may call it, one at a time."""

    def __init__(self, directory: str, *, reserve_bytes: int = RESERVE_BYTES) -> None:
        """Open or create, and read everything once to know that it can be. Raises StoreError; nothing is open then."""
        self._path = f"{directory}/{DATABASE}"
        self._guard = Guard(directory, reserve_bytes)
        try:
            self._guard.create_database(DATABASE)
            self._db = open_database(self._path, expect_empty=not self._guard.noted_revision)
        except BaseException:
            self._guard.close()
            raise
        try:
            self._check_promise(self.snapshot().revision)
            self._check_meta()
        except BaseException:
            self.close()
            raise

    def snapshot(self) -> Snapshot:
        with failures(self._path), self._transaction("BEGIN"):
            revision, digest = self._revision()
            records: list[Record] = []
            leases: set[Lease] = set()
            for kind, table in _TABLES.items():
                for row in self._db.execute(table.select):
                    digest -= row[-1]
                    record = self._decode(kind, row)
                    records.append(record)
                    leases.update(_leases(record))
            kept = self._db.execute("SELECT network, address, endpoint FROM leases").fetchall()
        if digest != 0:
            raise store_error("corrupt", self._path, "records are missing, or are back from the past")
        if len(kept) != len(leases) or set(kept) != leases:
            raise store_error("corrupt", self._path, "the leases are not those of the endpoints")
        return Snapshot(revision, tuple(records))

    def commit(self, changes: Sequence[Change], revision: int) -> int:
        steps = [_step(change) for change in changes]
        grows = _grows(changes)
        if grows:
            self._require_reserve()
        try:
            return self._transact(steps, revision)
        except StoreError as error:
            if error.reason != "full":
                raise
        return self._transact_on_full_disk(steps, revision, use_reserve=not grows)

    def meta(self, key: str) -> str | None:
        with failures(self._path):
            row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def set_meta(self, key: str, value: str) -> None:
        crc32 = zlib.crc32(f"{key}={value}".encode())
        with failures(self._path):
            self._db.execute(
                "INSERT OR REPLACE INTO meta (key, value, crc32) VALUES (?, ?, ?)", (key, value, crc32)
            )

    def close(self) -> None:
        """Idempotent. The log is merged into the database if the disk allows."""
        self._db.close()
        self._guard.close()

    def _transact(self, steps: Sequence["_Step"], revision: int) -> int:
        with failures(self._path):
            try:
                with self._transaction("BEGIN IMMEDIATE"):
                    found, digest = self._revision()
                    if found != revision:
                        raise RevisionConflictError(f"the store is at revision {found}, not {revision}")
                    for step in steps:
                        digest += self._perform(step)
                    self._db.execute(
                        "UPDATE revision SET revision = ?, digest = ?, crc32 = ?",
                        (revision + 1, digest, _revision_crc(revision + 1, digest)),
                    )
            except sqlite3.IntegrityError as error:
                # Deferred references are checked by COMMIT, which does not say which one it was.
                raise ValueError(
                    f"a record refers to a network or sandbox that would not be there: {error}"
                ) from error
        self._guard.promise(revision + 1)
        return revision + 1

    def _perform(self, step: "_Step") -> int:
        """Perform one change; return by how much it changes the digest."""
        table = _TABLES[step.kind]
        digest = 0
        if step.replaces:
            old = self._db.execute(table.checksum, (step.id,)).fetchone()
            if old is None:
                raise RevisionConflictError(f"{step.kind} {step.id} is not in the store")
            digest -= old[0]
        if not step.row:
            self._db.execute(table.delete, (step.id,))
            return digest
        if step.replaces and step.kind == "endpoint":
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

    def _transact_on_full_disk(self, steps: Sequence["_Step"], revision: int, *, use_reserve: bool) -> int:
        if use_reserve:
            self._guard.release_reserve()
        self._empty_log()
        result = self._transact(steps, revision)
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

    def _revision(self) -> tuple[int, int]:
        row = self._db.execute("SELECT revision, digest, crc32 FROM revision").fetchone()
        if row is None or row[2] != _revision_crc(row[0], row[1]):
            raise store_error("corrupt", self._path, "its revision is damaged")
        return int(row[0]), int(row[1])

    def _decode(self, kind: str, row: tuple[object, ...]) -> Record:
        *columns, data, crc32 = row
        where = f"{kind} {columns[0]!a}"
        if not isinstance(data, bytes) or zlib.crc32(data) != crc32:
            raise store_error("corrupt", self._path, f"{where} is damaged")
        try:
            record = decode(data)
        except CodecError as error:
            # Its bytes are those that were written, by a release that spelt them otherwise.
            raise store_error("schema", self._path, str(error)) from error
        if kind_of(record) != kind or _columns(record) != tuple(columns):
            raise store_error("corrupt", self._path, f"{where} does not match its row")
        return record

    def _check_promise(self, revision: int) -> None:
        promised = self._guard.promised_revision
        if revision < promised:
            what = (
                f"it is at revision {revision}, and {promised} was written since this machine started; "
                "if it is a copy that you restored, remove state.lock"
            )
            raise store_error("corrupt", self._path, what)
        self._guard.promise(revision)

    def _check_meta(self) -> None:
        with failures(self._path):
            for key, value, crc32 in self._db.execute("SELECT key, value, crc32 FROM meta"):
                if zlib.crc32(f"{key}={value}".encode()) != crc32:
                    raise store_error("corrupt", self._path, f"meta {key!a} is damaged")


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
    kind = kind_of(record)
    if isinstance(change, Delete):
        return _Step(kind, record.id, record.name, True)
    if change.before is not None and (kind_of(change.before), change.before.id) != (kind, record.id):
        raise ValueError(
            f"{kind_of(change.before)} {change.before.id} cannot be replaced by {kind} {record.id}"
        )
    data = encode(record)
    crc32 = zlib.crc32(data)
    row = (*_columns(record), data, crc32)
    return _Step(kind, record.id, record.name, change.before is not None, row, crc32, _leases(record))


def _grows(changes: Sequence[Change]) -> bool:
    """Whether the store needs more space after the changes than before."""
    growth = 0
    for change in changes:
        if isinstance(change, Put):
            if change.before is None:
                return True
            growth += len(encode(change.record)) - len(encode(change.before))
    return growth > 0


def _columns(record: Record) -> tuple[str | None, ...]:
    if isinstance(record, Endpoint):
        return record.id, record.network, record.sandbox
    if isinstance(record, Container):
        return record.id, record.name, record.sandbox
    return record.id, record.name


def _leases(record: Record) -> tuple[Lease, ...]:
    if not isinstance(record, Endpoint):
        return ()
    return tuple((record.network, address_part(address), record.id) for address in record.addresses)


def _revision_crc(revision: int, digest: int) -> int:
    return zlib.crc32(f"{revision} {digest}".encode())
