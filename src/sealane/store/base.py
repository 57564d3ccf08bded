"""What a store is: a snapshot at a revision, and commits that are compare-and-swap.

SQLite, memory and (with several hosts) etcd pass one suite, tests/conformance/test_store.py.
"""

from collections.abc import Sequence
from typing import Literal, Protocol

import msgspec

from sealane.model.change import Change, Record


class Snapshot(msgspec.Struct, frozen=True):
    revision: int
    records: tuple[Record, ...]


class StoreError(Exception):
    """The store could not be read or written. Nothing was changed."""

    def __init__(
        self, reason: Literal["full", "unreadable", "corrupt", "locked", "schema"], message: str
    ) -> None:
        super().__init__(message)
        self.reason = reason


class RevisionConflictError(Exception):
    """The store is at another revision than the change was made for."""


class TakenError(Exception):
    """A name, an address or an id is somebody's already: `what` is `name web` or `address 10.1.0.2`."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} is taken")
        self.what = what


class Store(Protocol):
    def snapshot(self) -> Snapshot:
        """Everything, at one revision. Raises StoreError."""
        ...

    def commit(self, changes: Sequence[Change], revision: int) -> int:
        """Perform all changes or none; return the new revision.

        Raises RevisionConflictError if the store is not at `revision`, TakenError for a name (one network, sandbox
        or container a name), address (one a network) or id that is taken, StoreError when it cannot write.
        """
        ...

    def check_writable(self, revision: int, *, grows: bool) -> None:
        """Write without changing anything, and raise what `commit` would raise now: RevisionConflictError, StoreError.

        For deletions, which leave the kernel before the store: what the store is about to refuse must not have left.
        `grows`: the coming commit needs more space than the records that it replaces.
        """
        ...

    def meta(self, key: str) -> str | None:
        """A small text kept beside the records (`instance`)."""
        ...

    def set_meta(self, key: str, value: str) -> None: ...

    def close(self) -> None: ...
