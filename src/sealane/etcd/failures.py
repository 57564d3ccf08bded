"""gRPC failures as errors of the client. The question that matters: may a write have been applied all the same?

etcd's texts are those of its rpctypes/error.go (3.4 to 3.6).
"""

import grpc

from sealane.etcd.errors import (
    CompactedError,
    DeniedError,
    EtcdError,
    FullError,
    InvalidError,
    UnavailableError,
    UnknownOutcomeError,
)

NEVER_SENT = (
    "failed to connect to all addresses",
    "connections to all backends failing",
    "empty address list",
)
"""What gRPC says when a call met no connection. (An attempt that was sent ends otherwise: "Socket closed", "GOAWAY".)"""

REFUSED_AT_ONCE = ("etcdserver: no leader", "etcdserver: too many requests", "etcdserver: not capable")
"""What etcd says before it proposes a write. "request timed out" and "leader changed" come after."""

STALE_TOKENS = ("invalid auth token", "revision of auth store is old")

DENIALS = (
    "authentication failed",
    "authentication is not enabled",
    "user name is empty",
    "user name not found",
    "permission denied",
)

_DENIED_CODES = (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED)
_INVALID_CODES = (
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.OUT_OF_RANGE,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.ALREADY_EXISTS,
)


def is_stale_token(text: str) -> bool:
    return any(known in text for known in STALE_TOKENS)


def is_denial(text: str) -> bool:
    return any(known in text for known in DENIALS)


def was_never_applied(text: str) -> bool:
    """Proof that a write that failed as unavailable was not even proposed: it may be sent again."""
    return any(known in text for known in (*NEVER_SENT, *REFUSED_AT_ONCE))


def text_of(error: grpc.aio.AioRpcError) -> str:
    return error.details() or error.code().name


def translate(error: grpc.aio.AioRpcError, *, is_write: bool) -> EtcdError:
    code, text = error.code(), text_of(error)
    refusal = _refusal(code, text)
    if refusal is not None:
        return refusal
    if is_write and not was_never_applied(text):
        return UnknownOutcomeError(f"etcd did not confirm the write ({code.name}: {text})")
    return UnavailableError(f"etcd is not available ({code.name}: {text})")


def _refusal(code: grpc.StatusCode, text: str) -> EtcdError | None:
    """A definite answer: nothing was applied."""
    if "database space exceeded" in text:
        return FullError(f"etcd is full ({text}): compact, defragment, and disarm the alarm")
    if "has been compacted" in text:
        return CompactedError(text)
    if code in _DENIED_CODES or is_denial(text):
        return DeniedError(f"etcd refused access ({text})")
    if code in _INVALID_CODES:
        return InvalidError(f"etcd refused the request ({text})")
    return None
