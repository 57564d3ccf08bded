"""How records lie in the tables, and how what lies there is read and proved."""

import sqlite3
import zlib
from typing import Final

import msgspec

from sealane.model.change import Record
from sealane.model.codec import CodecError, decode, kind_of
from sealane.model.container import Container
from sealane.model.endpoint import Endpoint
from sealane.model.net import address_part
from sealane.store.base import Snapshot
from sealane.store.database import store_error

Lease = tuple[str, str, str]
"""(network, address, endpoint)."""


class Table(msgspec.Struct, frozen=True):
    """The statements of one kind of record. The columns are those of `columns`, then record and crc32."""

    select: str
    insert: str
    update: str
    checksum: str
    delete: str


TABLES: Final = {
    "network": Table(
        "SELECT id, name, record, crc32 FROM networks",
        "INSERT INTO networks (id, name, record, crc32) VALUES (?1, ?2, ?3, ?4)",
        "UPDATE networks SET name = ?2, record = ?3, crc32 = ?4 WHERE id = ?1",
        "SELECT crc32 FROM networks WHERE id = ?",
        "DELETE FROM networks WHERE id = ?",
    ),
    "sandbox": Table(
        "SELECT id, name, record, crc32 FROM sandboxes",
        "INSERT INTO sandboxes (id, name, record, crc32) VALUES (?1, ?2, ?3, ?4)",
        "UPDATE sandboxes SET name = ?2, record = ?3, crc32 = ?4 WHERE id = ?1",
        "SELECT crc32 FROM sandboxes WHERE id = ?",
        "DELETE FROM sandboxes WHERE id = ?",
    ),
    "endpoint": Table(
        "SELECT id, network, sandbox, record, crc32 FROM endpoints",
        "INSERT INTO endpoints (id, network, sandbox, record, crc32) VALUES (?1, ?2, ?3, ?4, ?5)",
        "UPDATE endpoints SET network = ?2, sandbox = ?3, record = ?4, crc32 = ?5 WHERE id = ?1",
        "SELECT crc32 FROM endpoints WHERE id = ?",
        "DELETE FROM endpoints WHERE id = ?",
    ),
    "container": Table(
        "SELECT id, name, sandbox, record, crc32 FROM containers",
        "INSERT INTO containers (id, name, sandbox, record, crc32) VALUES (?1, ?2, ?3, ?4, ?5)",
        "UPDATE containers SET name = ?2, sandbox = ?3, record = ?4, crc32 = ?5 WHERE id = ?1",
        "SELECT crc32 FROM containers WHERE id = ?",
        "DELETE FROM containers WHERE id = ?",
    ),
}


def columns(record: Record) -> tuple[str | None, ...]:
    """What stands beside the record, under the constraints of its table."""
    if isinstance(record, Endpoint):
        return record.id, record.network, record.sandbox
    if isinstance(record, Container):
        return record.id, record.name, record.sandbox
    return record.id, record.name


def leases(record: Record) -> tuple[Lease, ...]:
    if not isinstance(record, Endpoint):
        return ()
    return tuple((record.network, address_part(address), record.id) for address in record.addresses)


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
    wanted: set[Lease] = set()
    for kind, table in TABLES.items():
        for row in db.execute(table.select):
            record = _record(kind, row, path)
            digest -= row[-1]
            records.append(record)
            wanted.update(leases(record))
    if digest != 0:
        raise store_error("corrupt", path, "records are missing, or are back from the past")
    kept = db.execute("SELECT network, address, endpoint FROM leases").fetchall()
    if len(kept) != len(wanted) or set(kept) != wanted:
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
    if kind_of(record) != kind or columns(record) != tuple(beside):
        raise store_error("corrupt", path, f"{where} does not match its row")
    return record
