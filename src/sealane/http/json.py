"""Records as JSON and errors as answers: what every route has in common.

Decoding is strict: a field that is not known, of another type or missing is an InvalidError that names its path.
"""

import logging
from typing import Generic, TypeVar

import msgspec

from sealane.engine.errors import InvalidError, SealaneError, StoreFailedError
from sealane.model.net import ParseError
from sealane.store.base import StoreError
from sealane.wire.base import ErrorBody
from sealane.wire.invalid import wrong

T = TypeVar("T")

log = logging.getLogger("sealane.api")

STATUS_BY_CODE = {
    "invalid": 400,
    "not_found": 404,
    "exists": 409,
    "conflict": 409,
    "in_use": 409,
    "full": 507,
    "unavailable": 503,
    "store": 503,
    "kernel": 500,
    "internal": 500,
}
STORE_FULL_STATUS = 507


class Body(Generic[T]):
    """Decoder of one kind of request."""

    def __init__(self, kind: type[T]) -> None:
        self._decoder = msgspec.json.Decoder(kind)
        self._kind = kind

    def decode(self, data: bytes) -> T:
        """Raises InvalidError."""
        if not data:
            raise InvalidError("the request has no body", hint="send it as JSON")
        try:
            return self._decoder.decode(data)
        except msgspec.ValidationError as error:
            message, field, hint = wrong(error, self._kind)
            raise InvalidError(message, field=field, hint=hint) from error
        except msgspec.DecodeError as error:
            raise InvalidError(f"the body is not JSON: {error}") from error
        except UnicodeDecodeError as error:
            raise InvalidError("the body is not UTF-8", hint="send JSON in UTF-8") from error
        except RecursionError as error:
            # CPython's own limit of depth stops the decoder; frames are unwound by now.
            raise InvalidError("the body is nested too deeply") from error


encode = msgspec.json.Encoder().encode


def failure(error: Exception) -> tuple[int, ErrorBody]:
    """The status and the body for an error. What nobody foresaw is logged, and the client learns nothing of it."""
    if isinstance(error, SealaneError):
        body = ErrorBody(code=error.code, message=error.message, field=error.field, hint=error.hint)
        return _status(error), body
    if isinstance(error, ParseError):
        return STATUS_BY_CODE["invalid"], ErrorBody(code="invalid", message=str(error))
    log.error("a verb failed without an answer", exc_info=error)
    return 500, ErrorBody(
        code="internal",
        message="internal error",
        hint="see its log, and report it",
    )


def _status(error: SealaneError) -> int:
    cause = error.__cause__
    if isinstance(error, StoreFailedError) and isinstance(cause, StoreError) and cause.reason == "full":
        return STORE_FULL_STATUS
    return STATUS_BY_CODE[error.code]


def error_document(body: ErrorBody) -> bytes:
    """Lone surrogates, which a message may quote from a file's name, have no UTF-8 and are shown escaped."""
    try:
        return encode({"error": body})
    except UnicodeEncodeError:
        plain = body.message.encode("ascii", "backslashreplace").decode()
        return encode({"error": ErrorBody(code=body.code, message=plain)})
