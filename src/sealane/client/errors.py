"""What a call can end in instead of an answer.

ClientError
├── ApiError           the daemon answered that it could not
└── UnreachableError   no daemon, or not to the end of its answer
"""

from __future__ import annotations

TYPE_CHECKING = False  # See connection.py.
if TYPE_CHECKING:
    from typing import Any


class ClientError(Exception):
    """Base of all errors of this package."""


class ApiError(ClientError):
    """The daemon's own error: `sealane.wire.ErrorBody` as attributes, and `body` as it came."""

    def __init__(self, status: int, body: dict[str, Any]) -> None:
        self.status = status
        self.body = body
        self.code = str(body.get("code", "internal"))
        self.message = str(body.get("message", f"HTTP status {status}"))
        self.field = str(body.get("field", ""))
        self.hint = str(body.get("hint", ""))
        super().__init__(self.message)


class UnreachableError(ClientError):
    """`is_sent`: the request had gone out, so that it may have been carried out."""

    def __init__(self, message: str, *, is_sent: bool = False) -> None:
        super().__init__(message)
        self.is_sent = is_sent
