"""A store that forgets: for tests, and for a host that keeps nothing on disk. Same rules as the others."""

from collections.abc import Hashable, Sequence
from typing import TypeVar

from sealane.model.change import Change, Delete, Put, Record
from sealane.model.codec import encode
from sealane.model.kinds import Lease, kind_of, leases_of, referents_first
from sealane.store.base import RevisionConflictError, Snapshot, TakenError

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

Key = tuple[str, str]
"""(kind, id)."""


class MemoryStore:
    def __init__(self) -> None:
        self._revision = 0
        self._records: dict[Key, Record] = {}
        self._names: dict[tuple[str, str], str] = {}
        self._leases: dict[Lease, str] = {}
        self._references: dict[Key, int] = {}
        """How many records refer to one."""
        self._meta: dict[str, str] = {}

    def snapshot(self) -> Snapshot:
        by_id = sorted(self._records.values(), key=lambda record: record.id)
        return Snapshot(self._revision, tuple(referents_first(by_id)))

    def check_writable(self, revision: int, *, grows: bool) -> None:  # noqa: ARG002 (memory is never full)
        if revision != self._revision:
            raise RevisionConflictError(f"the store is at revision {self._revision}, not {revision}")

    def commit(self, changes: Sequence[Change], revision: int) -> int:
        self.check_writable(revision, grows=False)
        transaction = _Transaction()
        try:
            for change in changes:
                self._perform(change, transaction)
            self._check_references(changes)
        except BaseException:
            transaction.undo()
            raise
        self._revision += 1
        return self._revision

    def meta(self, key: str) -> str | None:
        return self._meta.get(key)

    def set_meta(self, key: str, value: str) -> None:
        self._meta[key] = value

    def close(self) -> None:
        pass

    def _perform(self, change: Change, transaction: "_Transaction") -> None:
        match change:
            case Put(record, None):
                if _key(record) in self._records:
                    raise TakenError(f"id {record.id}")
            case Put(record, before) if before is not None:
                if _key(record) != _key(before):
                    raise ValueError(f"{_text(before)} cannot be replaced by {_text(record)}")
                self._remove(before, transaction)
            case Delete(record):
                self._remove(record, transaction)
                return
        encode(change.record)
        self._add(change.record, transaction)

    def _add(self, record: Record, transaction: "_Transaction") -> None:
        transaction.set(self._records, _key(record), record)
        for name in _names(record):
            if name in self._names:
                raise TakenError(f"name {record.name}")
            transaction.set(self._names, name, record.id)
        for lease in leases_of(record):
            if lease in self._leases:
                raise TakenError(f"address {lease[1]}")
            transaction.set(self._leases, lease, record.id)
        for key in _references(record):
            transaction.set(self._references, key, self._references.get(key, 0) + 1)

    def _remove(self, record: Record, transaction: "_Transaction") -> None:
        stored = self._records.get(_key(record))
        if stored is None:
            raise RevisionConflictError(f"{_text(record)} is not in the store")
        transaction.remove(self._records, _key(stored))
        for name in _names(stored):
            transaction.remove(self._names, name)
        for lease in leases_of(stored):
            transaction.remove(self._leases, lease)
        for key in _references(stored):
            transaction.set(self._references, key, self._references[key] - 1)

    def _check_references(self, changes: Sequence[Change]) -> None:
        for change in changes:
            for key in (_key(change.record), *_references(change.record)):
                if self._references.get(key) and key not in self._records:
                    raise ValueError(f"{_text(change.record)}: {' '.join(key)} is referred to and not there")


class _Transaction:
    """Edits of dictionaries that can be taken back: a commit costs what it changes, not what there is."""

    def __init__(self) -> None:
        self._edits: list[tuple[dict[Hashable, object], Hashable, object]] = []

    def set(self, table: dict[K, V], key: K, value: V) -> None:
        self._note(table, key)
        table[key] = value

    def remove(self, table: dict[K, V], key: K) -> None:
        self._note(table, key)
        del table[key]

    def undo(self) -> None:
        for table, key, value in reversed(self._edits):
            if value is _ABSENT:
                table.pop(key, None)
            else:
                table[key] = value

    def _note(self, table: dict[K, V], key: K) -> None:
        self._edits.append((table, key, table.get(key, _ABSENT)))  # type: ignore[arg-type]  # (any dict of ours)


_ABSENT = object()


def _key(record: Record) -> Key:
    return kind_of(record).name, record.id


def _text(record: Record) -> str:
    return f"{kind_of(record).name} {record.id}"


def _names(record: Record) -> list[tuple[str, str]]:
    """Names that only one record may have."""
    kind = kind_of(record)
    return [(kind.name, record.name)] if kind.is_named else []


def _references(record: Record) -> list[Key]:
    named = ((r.kind, getattr(record, r.field)) for r in kind_of(record).references)
    return [(kind, identity) for kind, identity in named if identity is not None]
