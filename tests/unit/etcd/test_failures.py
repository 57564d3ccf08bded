"""Each failure says whether a write may have been applied."""

import grpc
import pytest

from sealane.etcd.errors import (
    CompactedError,
    DeniedError,
    EtcdError,
    FullError,
    InvalidError,
    UnavailableError,
    UnknownOutcomeError,
)
from sealane.etcd.failures import is_stale_token, translate

Code = grpc.StatusCode


def failure(code: Code, text: str) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), text)


DEFINITE = [
    (Code.RESOURCE_EXHAUSTED, "etcdserver: mvcc: database space exceeded", FullError),
    (Code.OUT_OF_RANGE, "etcdserver: mvcc: required revision has been compacted", CompactedError),
    (Code.OUT_OF_RANGE, "etcdserver: mvcc: required revision is a future revision", InvalidError),
    (Code.PERMISSION_DENIED, "etcdserver: permission denied", DeniedError),
    (Code.UNAUTHENTICATED, "etcdserver: invalid auth token", DeniedError),
    (
        Code.INVALID_ARGUMENT,
        "etcdserver: authentication failed, invalid user ID or password",
        DeniedError,
    ),
    (Code.INVALID_ARGUMENT, "etcdserver: user name is empty", DeniedError),
    (Code.FAILED_PRECONDITION, "etcdserver: authentication is not enabled", DeniedError),
    (Code.INVALID_ARGUMENT, "etcdserver: duplicate key given in txn request", InvalidError),
    (Code.INVALID_ARGUMENT, "etcdserver: request is too large", InvalidError),
    (Code.NOT_FOUND, "etcdserver: requested lease not found", InvalidError),
    (Code.UNAVAILABLE, "etcdserver: no leader", UnavailableError),
    (Code.RESOURCE_EXHAUSTED, "etcdserver: too many requests", UnavailableError),
    (Code.UNAVAILABLE, "failed to connect to all addresses; last error: UNKNOWN: …", UnavailableError),
    (Code.UNAVAILABLE, "connections to all backends failing; last error: UNKNOWN: …", UnavailableError),
]
OPEN = [
    (Code.UNAVAILABLE, "Socket closed"),
    (Code.UNAVAILABLE, "ping timeout"),
    (Code.UNAVAILABLE, "GOAWAY received"),
    (Code.UNAVAILABLE, "etcdserver: request timed out"),
    (Code.UNAVAILABLE, "etcdserver: request timed out, possibly due to previous leader failure"),
    (Code.UNAVAILABLE, "etcdserver: leader changed"),
    (Code.UNAVAILABLE, "etcdserver: server stopped"),
    (Code.DEADLINE_EXCEEDED, "Deadline Exceeded"),
    (Code.UNKNOWN, "raft proposal dropped"),
    (Code.INTERNAL, ""),
    (Code.CANCELLED, "stream removed"),
    (Code.DATA_LOSS, "etcdserver: corrupt cluster"),
]


@pytest.mark.parametrize(("code", "text", "kind"), DEFINITE)
@pytest.mark.parametrize("is_write", [True, False])
def test_a_definite_answer_is_the_same_for_reads_and_writes(
    code: Code, text: str, kind: type[EtcdError], is_write: bool
) -> None:
    assert type(translate(failure(code, text), is_write=is_write)) is kind


@pytest.mark.parametrize(("code", "text"), OPEN)
def test_whatever_else_happens_to_a_write_leaves_its_outcome_open(code: Code, text: str) -> None:
    assert type(translate(failure(code, text), is_write=True)) is UnknownOutcomeError
    assert type(translate(failure(code, text), is_write=False)) is UnavailableError


def test_an_error_says_what_etcd_said() -> None:
    assert "Socket closed" in str(translate(failure(Code.UNAVAILABLE, "Socket closed"), is_write=True))
    assert "INTERNAL" in str(translate(failure(Code.INTERNAL, ""), is_write=False))


def test_both_texts_of_a_stale_token_are_known() -> None:
    assert is_stale_token("etcdserver: invalid auth token")
    assert is_stale_token("etcdserver: revision of auth store is old")
    assert not is_stale_token("etcdserver: permission denied")
