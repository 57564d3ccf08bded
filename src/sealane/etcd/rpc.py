"""Calls of etcd's methods on the client's loop: metadata, tokens, deadlines, and retries of what is safe to repeat."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Generic, Protocol, TypeVar

import grpc
from google.protobuf.message import Message

from sealane.etcd import etcd_pb2 as pb
from sealane.etcd.errors import UnavailableError
from sealane.etcd.failures import is_stale_token, text_of, translate, was_never_applied

Request = TypeVar("Request", bound=Message)
Answer = TypeVar("Answer", bound=Message)
Sent_contra = TypeVar("Sent_contra", bound=Message, contravariant=True)
Received_co = TypeVar("Received_co", bound=Message, covariant=True)

ATTEMPT_S = 4.0
"""Of one try of a read: a member that stopped answering costs this much, then another is asked."""

PAUSE_MIN_S, PAUSE_MAX_S = 0.1, 1.0
"""Between tries; doubled each time, and jittered so that hosts do not return in step."""


class Method(Generic[Request, Answer]):
    """A method's path with its types."""

    def __init__(self, path: str, request: type[Request], answer: type[Answer]) -> None:
        self.path, self.request, self.answer = path, request, answer


RANGE = Method("/etcdserverpb.KV/Range", pb.RangeRequest, pb.RangeResponse)
TXN = Method("/etcdserverpb.KV/Txn", pb.TxnRequest, pb.TxnResponse)
COMPACT = Method("/etcdserverpb.KV/Compact", pb.CompactionRequest, pb.CompactionResponse)
WATCH = Method("/etcdserverpb.Watch/Watch", pb.WatchRequest, pb.WatchResponse)
GRANT = Method("/etcdserverpb.Lease/LeaseGrant", pb.LeaseGrantRequest, pb.LeaseGrantResponse)
REVOKE = Method("/etcdserverpb.Lease/LeaseRevoke", pb.LeaseRevokeRequest, pb.LeaseRevokeResponse)
KEEP_ALIVE = Method("/etcdserverpb.Lease/LeaseKeepAlive", pb.LeaseKeepAliveRequest, pb.LeaseKeepAliveResponse)
AUTHENTICATE = Method("/etcdserverpb.Auth/Authenticate", pb.AuthenticateRequest, pb.AuthenticateResponse)
STATUS = Method("/etcdserverpb.Maintenance/Status", pb.StatusRequest, pb.StatusResponse)


class Stream(Protocol[Sent_contra, Received_co]):
    """The part of grpc.aio's stream call that is used."""

    async def write(self, request: Sent_contra, /) -> None: ...

    async def read(self) -> Received_co | Any: ...

    def cancel(self) -> bool: ...


class Backoff:
    """Pauses between tries."""

    def __init__(self) -> None:
        self._next_s = PAUSE_MIN_S

    def next_s(self) -> float:
        pause_s = self._next_s
        self._next_s = min(PAUSE_MAX_S, pause_s * 2)
        return pause_s * (0.5 + secrets.randbelow(1000) / 2000)

    def reset(self) -> None:
        self._next_s = PAUSE_MIN_S


class Rpc:
    """Used on the client's loop only."""

    def __init__(self, channel: grpc.aio.Channel, user: str, password: str) -> None:
        self._channel, self._user, self._password = channel, user, password
        self._token = ""
        self._renewing = asyncio.Lock()
        self.authentications = 0

    async def read(self, method: Method[Request, Answer], request: Request, deadline_s: float) -> Answer:
        """Tried again until the deadline, at other members as gRPC finds them: for what may be repeated."""
        return await self._call(method, request, deadline_s, is_write=False)

    async def write(self, method: Method[Request, Answer], request: Request, deadline_s: float) -> Answer:
        """Tried again only where it is certain that nothing was proposed. UnknownOutcomeError otherwise."""
        return await self._call(method, request, deadline_s, is_write=True)

    async def _call(
        self, method: Method[Request, Answer], request: Request, deadline_s: float, *, is_write: bool
    ) -> Answer:
        loop = asyncio.get_running_loop()
        until, backoff, may_renew = loop.time() + deadline_s, Backoff(), True
        while True:
            left_s = until - loop.time()
            try:
                token = await self._current_token(left_s)
            except grpc.aio.AioRpcError as error:
                failure, is_safe = error, True
            else:
                attempt_s = left_s if is_write else min(left_s, ATTEMPT_S)
                try:
                    return await self._once(method, request, attempt_s, token)
                except grpc.aio.AioRpcError as error:
                    text = text_of(error)
                    if may_renew and token and is_stale_token(text):
                        may_renew = False
                        self._forget(token)
                        continue
                    failure, is_safe = error, not is_write or was_never_applied(text)
            outcome = translate(failure, is_write=not is_safe)
            pause_s = backoff.next_s()
            if not isinstance(outcome, UnavailableError) or loop.time() + pause_s >= until:
                raise outcome from failure
            await asyncio.sleep(pause_s)

    async def _once(
        self, method: Method[Request, Answer], request: Request, timeout_s: float, token: str
    ) -> Answer:
        call = self._channel.unary_unary(
            method.path,
            request_serializer=method.request.SerializeToString,
            response_deserializer=method.answer.FromString,
        )
        answer: Answer = await call(request, timeout=timeout_s, metadata=_metadata(token))
        return answer

    @asynccontextmanager
    async def stream(
        self, method: Method[Request, Answer], opening_s: float
    ) -> AsyncIterator[Stream[Request, Answer]]:
        """A stream that is cancelled at the end of the `with`. Failures inside are raised as errors of the client."""
        call = self._channel.stream_stream(
            method.path,
            request_serializer=method.request.SerializeToString,
            response_deserializer=method.answer.FromString,
        )
        token = ""
        try:
            token = await self._current_token(opening_s)
            opened = call(metadata=_metadata(token))
            try:
                yield opened
            finally:
                opened.cancel()
        except grpc.aio.AioRpcError as error:
            if is_stale_token(text_of(error)):
                self._forget(token)
                raise UnavailableError(f"the token expired ({text_of(error)})") from error
            raise translate(error, is_write=False) from error

    def forget_token(self) -> None:
        """The next call authenticates again."""
        self._forget(self._token)

    def has_user(self) -> bool:
        return bool(self._user)

    def _forget(self, token: str) -> None:
        """Unless another call has renewed it meanwhile."""
        if self._token == token:
            self._token = ""

    async def _current_token(self, timeout_s: float) -> str:
        """Kept until a member refuses it: one authentication takes etcd 200 ms of bcrypt."""
        if not self._user or self._token:
            return self._token
        async with self._renewing:
            if not self._token:
                request = pb.AuthenticateRequest(name=self._user, password=self._password)
                answer = await self._once(AUTHENTICATE, request, max(timeout_s, 0.0), "")
                self._token = answer.token
                self.authentications += 1
            return self._token


def _metadata(token: str) -> tuple[tuple[str, str], ...]:
    """`hasleader`: a member without quorum refuses and ends watches, instead of being silent."""
    return (("hasleader", "true"), ("token", token)) if token else (("hasleader", "true"),)
