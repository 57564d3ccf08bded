"""Errors of the store as the verbs' errors."""

from collections.abc import Iterator
from contextlib import contextmanager

from sealane.engine.errors import ConflictError, StoreFailedError
from sealane.store.base import RevisionConflictError, StoreError, TakenError

_STORE_CURES = {
    "full": "make space on its disk; traffic goes on meanwhile, and detaching still works",
    "unreadable": "see the disk and the permissions of the state directory",
    "corrupt": "restore the database from a backup; the kernel's state is kept until then",
    "locked": "another process holds the database: `sealane status` of that one",
    "schema": "the database was written by another version of sealane",
}


class OutrunError(ConflictError):
    """Another writer was faster."""


@contextmanager
def store_errors() -> Iterator[None]:
    try:
        yield
    except TakenError as error:
        raise ConflictError(str(error)) from error
    except RevisionConflictError as error:
        raise OutrunError(f"the store was changed by another writer: {error}", hint="try again") from error
    except StoreError as error:
        raise StoreFailedError(
            f"the store is {error.reason}: {error}", hint=_STORE_CURES[error.reason]
        ) from error


def keeps_changing() -> ConflictError:
    return ConflictError("another writer keeps changing the store", hint="try again")
