"""The one exception tree of the verbs. An integration renders it; nothing else is for a user's eyes.

SealaneError
├── InvalidError       a field of the request is wrong
├── NotFoundError      the thing named is not there
├── ExistsError        the name is taken by something else
├── ConflictError      what is asked collides with what is (a port, an address, another shape of the same object)
├── InUseError         it cannot go, others depend on it
├── ExhaustedError          no address, port or place is left
├── ReadOnlyError          the engine holds: it keeps what is and changes nothing, and says why
├── StoreFailedError   the store could not be written
└── KernelError        the kernel refused; what was begun has been taken back
"""

from typing import ClassVar

from sealane.wire.base import Code


class SealaneError(Exception):
    code: ClassVar[Code] = "internal"

    def __init__(self, message: str, *, field: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.hint = hint


class InvalidError(SealaneError):
    code = "invalid"


class NotFoundError(SealaneError):
    code = "not_found"


class ExistsError(SealaneError):
    code = "exists"


class ConflictError(SealaneError):
    code = "conflict"


class InUseError(SealaneError):
    code = "in_use"


class ExhaustedError(SealaneError):
    code = "full"


class ReadOnlyError(SealaneError):
    code = "unavailable"


class StoreFailedError(SealaneError):
    code = "store"


class KernelError(SealaneError):
    code = "kernel"
    name_in_use = False
    """A link of that name is there already, and it is not ours."""
