"""Opening the SQLite file: whose it is, whether it is sound, which schema it has, and what SQLite's errors mean."""

import contextlib
import sqlite3
from collections.abc import Iterator
from functools import cache
from importlib import resources
from typing import Final, Literal

from sealane.store.base import StoreError

Reason = Literal["full", "unreadable", "corrupt", "locked", "schema"]

APPLICATION_ID: Final = 0x736C616E
"""`slan`, in the database's header: nobody else's file is taken for ours."""

BUSY_TIMEOUT_S: Final = 0.1

CHECKPOINT_PAGES: Final = 4096
"""Pages of 4 KiB in the write-ahead log at which a commit moves it into the database: 16 MiB, about 600 commits. That
commit waits for the disk three times (12 ms where a flush takes 4); all others wait for nothing."""

LOG_BYTES_MAX: Final = 4 << 20
"""The log's file is cut to this at a checkpoint."""

_PRAGMAS: Final = (
    # In this order: a connection that is exclusive before it first reads the log keeps the index in memory.
    "PRAGMA locking_mode = EXCLUSIVE",
    "PRAGMA trusted_schema = OFF",
    "PRAGMA cell_size_check = ON",
    "PRAGMA foreign_keys = ON",
    "PRAGMA synchronous = NORMAL",
    # Debian builds SQLite to overwrite what is deleted, at the price of more pages a commit. No secrets are in here.
    "PRAGMA secure_delete = OFF",
    "PRAGMA temp_store = MEMORY",
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
    """Turn what SQLite raises into StoreError; constraint errors, which are the caller's, pass through."""
    try:
        yield
    except sqlite3.IntegrityError:
        raise
    except sqlite3.Error as error:
        raise store_error(_reason(error), path, f"{error}{_code_name(error)}") from error
    except UnicodeDecodeError as error:
        # SQLite's message quotes the damage, and the module cannot read that.
        raise store_error("corrupt", path, "the database's schema is damaged") from error


def _reason(error: sqlite3.Error) -> Reason:
    # Without a code: the module itself could not read a value, such as TEXT that is not UTF-8.
    code: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)
    if code == sqlite3.SQLITE_IOERR_SHORT_READ:
        return "corrupt"
    return _REASONS.get(code & 0xFF, "unreadable")


def _code_name(error: sqlite3.Error) -> str:
    name = getattr(error, "sqlite_errorname", "")
    return f", {name}" if name else ""


def open_database(path: str, *, expect_empty: bool) -> sqlite3.Connection:
    """Open, check and migrate. `expect_empty`: no revision of it is known, so that an empty file is a new database.

    Raises StoreError; then nothing was changed.
    """
    with failures(path):
        db = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    try:
        with failures(path):
            for pragma in _PRAGMAS:
                db.execute(pragma)
            _identify(db, path, expect_empty=expect_empty)
            _migrate(db)
            _check_schema(db, path)
    except BaseException:
        db.close()
        raise
    return db


def _identify(db: sqlite3.Connection, path: str, *, expect_empty: bool) -> None:
    version = _pragma(db, "PRAGMA user_version")
    application = _pragma(db, "PRAGMA application_id")
    empty = db.execute("SELECT count(*) FROM sqlite_schema").fetchone() == (0,)
    if empty and version == application == 0:
        if not expect_empty:
            raise store_error("corrupt", path, "the database is empty, and it was not")
        db.execute("PRAGMA journal_mode = WAL")
        return
    if application != APPLICATION_ID:
        raise store_error("schema", path, "the database is not one of sealane")
    if not 1 <= version <= len(_migrations()):
        what = f"the database has schema version {version}; this release knows up to {len(_migrations())}"
        raise store_error("schema", path, what)
    found = db.execute("PRAGMA integrity_check(1)").fetchone()[0]
    if found != "ok":
        raise store_error("corrupt", path, found.replace("\n", " "))
    db.execute("PRAGMA journal_mode = WAL")


def _pragma(db: sqlite3.Connection, statement: str) -> int:
    value = db.execute(statement).fetchone()[0]
    return int(value)


@cache
def _migrations() -> tuple[str, ...]:
    """Scripts in order; each takes the schema from the version before it to its own, in one transaction."""
    folder = resources.files("sealane.store") / "migrations"
    scripts = sorted((f for f in folder.iterdir() if f.name.endswith(".sql")), key=lambda f: f.name)
    return tuple(script.read_text(encoding="utf-8") for script in scripts)


def _migrate(db: sqlite3.Connection) -> None:
    for script in _migrations()[_pragma(db, "PRAGMA user_version") :]:
        try:
            db.executescript(script)
        except sqlite3.Error:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise


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


def _check_schema(db: sqlite3.Connection, path: str) -> None:
    if _schema(db) != _expected_schema():
        raise store_error("corrupt", path, "its tables are not those that its schema version has")
