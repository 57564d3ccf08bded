"""How records lie in the tables, and how what lies there is read and proved."""

import sqlite3
import zlib
from typing import Final

import msgspec

from sealane.model.change import Record
from sealane.model.codec import CodecError, decode
from sealane.model.kinds import KINDS, Kind, kind_of, leases_of
from sealane.store.base import Snapshot
from sealane.store.database import store_error

Lease = tuple[str, str, str]
"""(network, address, endpoint)."""


class Table(msgspec.Struct, frozen=True):
    """The statements of one kind of record."""

    select: str
    insert: str
    update: str
    checksum: str
    delete: str


def _table(kind: Kind) -> Table:
    """Names of tables and columns are those of `model.kinds`, never text from outside."""
    table, every = kind.table, (*kind.columns, "record", "crc32")
    values = ", ".join(f"?{number}" for number in range(1, len(every) + 1))
    assigned = ", ".join(f"{name} = ?{number}" for number, name in enumerate(every, start=1) if name != "id")
    return Table(
        f"SELECT {', '.join(every)} FROM {table}",  # noqa: S608
        f"INSERT INTO {table} ({', '.join(every)}) VALUES ({values})",  # noqa: S608
        f"UPDATE {table} SET {assigned} WHERE id = ?1",  # noqa: S608
        f"SELECT crc32 FROM {table} WHERE id = ?",  # noqa: S608
        f"DELETE FROM {table} WHERE id = ?",  # noqa: S608
    )


TABLES: Final = {kind.name: _table(kind) for kind in KINDS}


def columns(record: Record) -> tuple[str | None, ...]:
    """Values beside the record, under the constraints of its table."""
    return tuple(getattr(record, field) for field in kind_of(record).columns)


def leases(record: Record) -> tuple[Lease, ...]:
    return tuple((network, address, record.id) for network, address in leases_of(record))


def revision_crc(revision: int, digest: int) -> int:
    return zlib.crc32(f"{revision} {digest}".encode())


def meta_crc(key: str, value: str) -> int:
    return zlib.crc32(f"{key}={value}".encode())


def read_revision(db: sqlite3.Connection, path: str) -> tuple[int, int]:
    """(revision, digest). Raises StoreError."""
    row = db.execute("SELECT revision, digest, crc32 FROM revision").fetchone()
    if row is None or row[2] != revision_crc(row[0], row[1]):
        raise store_error("corrupt", path, "its revision is damaged")
    return int(row[0]), int(row[1])


def read_all(db: sqlite3.Connection, path: str) -> Snapshot:
    """Everything, with proof that it is what was written. Raises StoreError. To be called inside a transaction."""
    revision, digest = read_revision(db, path)
    records: list[Record] = []
    desired: set[Lease] = set()
    for kind, table in TABLES.items():
        for row in db.execute(table.select):
            record = _record(kind, row, path)
            digest -= row[-1]
            records.append(record)
            desired.update(leases(record))
    if digest != 0:
        raise store_error("corrupt", path, "records are missing, or are back from the past")
    kept = db.execute("SELECT network, address, endpoint FROM leases").fetchall()
    if len(kept) != len(desired) or set(kept) != desired:
        raise store_error("corrupt", path, "the leases are not those of the endpoints")
    for key, value, crc32 in db.execute("SELECT key, value, crc32 FROM meta"):
        if meta_crc(key, value) != crc32:
            raise store_error("corrupt", path, f"meta {key!a} is damaged")
    return Snapshot(revision, tuple(records))


def _record(kind: str, row: tuple[object, ...], path: str) -> Record:
    *beside, data, crc32 = row
    where = f"{kind} {beside[0]!a}"
    if not isinstance(data, bytes) or zlib.crc32(data) != crc32:
        raise store_error("corrupt", path, f"{where} is damaged")
    try:
        record = decode(data)
    except CodecError as error:
        # Its bytes are those that were written, by a release that spelt them otherwise.
        raise store_error("schema", path, str(error)) from error
    if kind_of(record).name != kind or columns(record) != tuple(beside):
        raise store_error("corrupt", path, f"{where} does not match its row")
    return record
