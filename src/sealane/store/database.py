"""Opening the SQLite file: whose it is, whether it is sound, which schema it has, and what SQLite's errors mean."""

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterator
from functools import cache
from importlib import resources
from typing import Final, Literal, TypeVar
from urllib.parse import quote

from sealane.store.base import StoreError

T = TypeVar("T")

Reason = Literal["full", "unreadable", "corrupt", "locked", "schema"]

APPLICATION_ID: Final = 0x736C616E
"""`slan`, in the database's header: nobody else's file is taken for ours."""

BUSY_TIMEOUT_S: Final = 0.1

CHECKPOINT_PAGES: Final = 4096
"""Pages of 4 KiB in the write-ahead log at which a commit moves it into the database: 16 MiB, about 600 commits. That
commit waits for the disk three times (12 ms where a flush takes 4); all others wait for nothing."""

LOG_BYTES_MAX: Final = 4 << 20
"""The log's file is cut to this at a checkpoint."""

_CAREFUL: Final = (
    "PRAGMA trusted_schema = OFF",
    "PRAGMA cell_size_check = ON",
    "PRAGMA temp_store = MEMORY",
)
_WRITER: Final = (
    # Before anything is read: the log's index is then kept in memory.
    "PRAGMA locking_mode = EXCLUSIVE",
    *_CAREFUL,
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = NORMAL",
    "PRAGMA foreign_keys = ON",
    # Debian builds SQLite to overwrite what is deleted, at the price of more pages a commit. No secrets are in here.
    "PRAGMA secure_delete = OFF",
    f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}",
    f"PRAGMA journal_size_limit = {LOG_BYTES_MAX}",
)

_REASONS: Final[dict[int, Reason]] = {
    sqlite3.SQLITE_FULL: "full",
    sqlite3.SQLITE_BUSY: "locked",
    sqlite3.SQLITE_LOCKED: "locked",
    sqlite3.SQLITE_PROTOCOL: "locked",
    sqlite3.SQLITE_CORRUPT: "corrupt",
    sqlite3.SQLITE_NOTADB: "corrupt",
    # A statement that does not fit the schema, which has been compared: the schema changed below us.
    sqlite3.SQLITE_ERROR: "corrupt",
    sqlite3.SQLITE_SCHEMA: "corrupt",
    sqlite3.SQLITE_IOERR_SHORT_READ: "corrupt",
    sqlite3.SQLITE_IOERR_SHMSIZE: "full",
}

_CURES: Final[dict[Reason, str]] = {
    "full": "no space is left for it; deletions still work",
    "unreadable": "the file system or its disk refuses",
    "corrupt": "it is left as it is; restore a copy, or move the directory away to begin from nothing",
    "locked": "another process uses it; one daemon a state directory",
    "schema": "it is left as it is; use the release that wrote it, or another directory",
}


def store_error(reason: Reason, path: str, what: str) -> StoreError:
    return StoreError(reason, f"{path}: {what} ({_CURES[reason]})")


@contextlib.contextmanager
def failures(path: str) -> Iterator[None]:
    """Turn what SQLite raises into StoreError. Broken constraints, and calls after `close`, are the caller's."""
    try:
        yield
    except (sqlite3.IntegrityError, sqlite3.ProgrammingError):
        raise
    except sqlite3.Error as error:
        raise store_error(_reason(error), path, f"{error}{_code_name(error)}") from error
    except UnicodeDecodeError as error:
        # SQLite's message quotes the damage, and the module cannot read that.
        raise store_error("corrupt", path, "the database's schema is damaged") from error


def _reason(error: sqlite3.Error) -> Reason:
    # Without a code: the module itself could not read a value, such as TEXT that is not UTF-8.
    code: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)
    return _REASONS.get(code) or _REASONS.get(code & 0xFF, "unreadable")


def _code_name(error: sqlite3.Error) -> str:
    name = getattr(error, "sqlite_errorname", "")
    return f", {name}" if name else ""


def inspect(path: str, read: Callable[[sqlite3.Connection], T], *, may_be_empty: bool) -> T | None:
    """What `read` makes of the database, once that has been found to be ours and sound.

    None: it is empty, or of an older schema; it can be read after `open_database`. A database that is refused stays
    as it was, byte for byte, and so does its log. (Opened for writing, SQLite would move what it can read of a
    damaged log into the database, and delete the log.) Raises StoreError.
    """
    with failures(path):
        db = sqlite3.connect(
            f"file:{quote(path)}?mode=ro", uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None
        )
        try:
            for pragma in _CAREFUL:
                db.execute(pragma)
            return read(db) if _is_sound(db, path, may_be_empty=may_be_empty) else None
        finally:
            db.close()
            # A reader's map of the log. The writer keeps its own in memory.
            with contextlib.suppress(OSError):
                os.unlink(f"{path}-shm")


def _is_sound(db: sqlite3.Connection, path: str, *, may_be_empty: bool) -> bool:
    """True: sound, and of our schema. False: sound, and not yet."""
    try:
        empty = _is_empty(db)
    except sqlite3.OperationalError as error:
        # A process was killed while it made the database: the one transaction that has a journal and no log.
        if error.sqlite_errorcode == sqlite3.SQLITE_READONLY_ROLLBACK and may_be_empty:
            return False
        raise
    if empty and may_be_empty:
        return False
    if empty:
        raise store_error("corrupt", path, "the database is empty, and it was not")
    version = _check_identity(db, path)
    found = db.execute("PRAGMA integrity_check(1)").fetchone()[0]
    if found != "ok":
        raise store_error("corrupt", path, found.replace("\n", " "))
    if version < len(_migrations()):
        return False
    if _schema(db) != _expected_schema():
        raise store_error("corrupt", path, "its tables are not those of its schema version")
    return True


def open_database(path: str) -> sqlite3.Connection:
    """Open for writing what has been inspected, and bring its schema up to date. Raises StoreError."""
    with failures(path):
        db = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
        try:
            for pragma in _WRITER:
                db.execute(pragma)
            if not _is_empty(db):
                _check_identity(db, path)
            _migrate(db)
        except BaseException:
            db.close()
            raise
    return db


def _is_empty(db: sqlite3.Connection) -> bool:
    tables = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    return not (tables or _pragma(db, "PRAGMA user_version") or _pragma(db, "PRAGMA application_id"))


def _check_identity(db: sqlite3.Connection, path: str) -> int:
    """The schema version."""
    version, known = _pragma(db, "PRAGMA user_version"), len(_migrations())
    if _pragma(db, "PRAGMA application_id") != APPLICATION_ID:
        raise store_error("schema", path, "the database is not one of sealane")
    if not 1 <= version <= known:
        what = f"the database has schema version {version}, this release knows up to {known}"
        raise store_error("schema", path, what)
    return version


def _pragma(db: sqlite3.Connection, statement: str) -> int:
    return int(db.execute(statement).fetchone()[0])


@cache
def _migrations() -> tuple[str, ...]:
    """Scripts in order; each takes the schema from the version before it to its own, in one transaction."""
    folder = resources.files("sealane.store") / "migrations"
    scripts = sorted((f for f in folder.iterdir() if f.name.endswith(".sql")), key=lambda f: f.name)
    return tuple(script.read_text(encoding="utf-8") for script in scripts)


def _migrate(db: sqlite3.Connection) -> None:
    scripts = _migrations()[_pragma(db, "PRAGMA user_version") :]
    for script in scripts:
        try:
            db.executescript(script)
        except sqlite3.Error:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
    if scripts:
        # On the disk for good: a power cut then takes commits back, but leaves a database that is ours.
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


@cache
def _expected_schema() -> list[tuple[str, str, str | None]]:
    db = sqlite3.connect(":memory:", isolation_level=None)
    try:
        _migrate(db)
        return _schema(db)
    finally:
        db.close()


def _schema(db: sqlite3.Connection) -> list[tuple[str, str, str | None]]:
    return db.execute("SELECT type, name, sql FROM sqlite_schema ORDER BY type, name").fetchall()
