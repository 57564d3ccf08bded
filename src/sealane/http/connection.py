"""One client's connection: bytes to calls and answers to bytes. h11 keeps the protocol, this module keeps the bounds.

A request is answered inside `data_received` if its verb is synchronous, which all verbs of the data plane are: no task,
no queue, no second turn of the loop. Only verbs that wait, and streams, get a task; reading goes on meanwhile so that
a client that leaves is noticed, and what it sends ahead is bounded.
"""

import asyncio
import logging
import math
import os
import socket
from collections.abc import AsyncGenerator, Awaitable
from typing import Any, Protocol, cast

import h11
import msgspec

from sealane.engine.errors import InvalidError
from sealane.http.call import AsyncVerb, Call, MethodError, Route, SyncVerb, Upgraded
from sealane.http.json import encode, error_document, failure
from sealane.http.listen import peer_of
from sealane.limits import CONNECTIONS_MAX, REQUEST_BYTES_MAX
from sealane.wire.base import ErrorBody

log = logging.getLogger("sealane.api")

HEADER_BYTES_MAX = 16 * 1024
EARLY_BYTES_MAX = 64 * 1024
"""What a client may send while its last request is still worked on."""
FIRST_LINE_S = 0.05
"""A stream whose first line takes longer gets its head first, so that its client knows that it is answered."""

Headers = list[tuple[bytes, bytes]]
_JSON: Headers = [(b"content-type", b"application/json")]
_FRAMING = frozenset({b"content-length", b"transfer-encoding"})
_LINES: Headers = [(b"content-type", b"application/x-ndjson")]


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    connections: int = CONNECTIONS_MAX
    body_bytes: int = REQUEST_BYTES_MAX
    request_s: float = 10.0
    """From the first byte of a request to its last."""
    idle_s: float = 300.0
    """Between requests."""
    write_s: float = 60.0
    """How long a client may leave its answer unread."""
    sweep_s: float = 1.0
    """How often the times above are looked at."""
    stop_s: float = 10.0
    """For verbs under way when the server stops."""


NOTICE = b"sealane-notice"


class Finder(Protocol):
    """The paths that are answered."""

    def find(self, method: str, target: str) -> tuple[Route, Call[bytes]]:
        """The route, and the call with its body still to come. Raises NotFoundError, MethodError, InvalidError."""
        ...

    def notice(self, method: str, target: str) -> str:
        """What goes with the answer, as a header: why it may not be taken as it is. Empty: nothing does."""
        ...


class Server(Protocol):
    """What a connection needs to know of the others."""

    @property
    def routes(self) -> Finder: ...

    @property
    def bounds(self) -> Bounds: ...

    def refusal(self, uid: int) -> tuple[int, str] | None:
        """Why a peer is turned away, as status and message; None if it is not."""
        ...

    def opened(self, connection: "Connection") -> None: ...

    def closed(self, connection: "Connection") -> None: ...


class Connection(asyncio.Protocol):
    def __init__(self, server: Server) -> None:
        self._server = server
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=HEADER_BYTES_MAX)
        self._transport: asyncio.Transport = cast(
            "asyncio.Transport", None
        )  # connection_made is called first.
        self._loop = asyncio.get_running_loop()
        self._caller = 0
        self._request: h11.Request | None = None
        self._body = bytearray()
        self._begun = False
        """Bytes of a request have come that is not whole yet."""
        self._early = 0
        self._writable = asyncio.Event()
        self._writable.set()
        self.task: asyncio.Task[None] | None = None
        self._task_only_waits = False
        self._is_last = False
        self._notice: Headers = []
        self._is_lost = False
        self.deadline = 0.0
        self._set_deadline()

    @property
    def _is_busy(self) -> bool:
        """A client that does not read its answers gets no more of them."""
        return self.task is not None or not self._writable.is_set()

    # --- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._server.opened(self)
        peer = peer_of(transport.get_extra_info("socket"))
        self._caller = peer.pid
        refusal = self._server.refusal(peer.uid)
        if refusal is not None:
            self._refuse(*refusal)

    def data_received(self, data: bytes) -> None:
        if self._transport.is_closing():
            return
        if self._is_busy:
            self._early += len(data)
            if self._early > EARLY_BYTES_MAX:
                self._transport.pause_reading()
        elif not self._begun:
            self._begun = True
            self._set_deadline()
        self._http.receive_data(data)
        self._advance()

    def eof_received(self) -> None:
        """Closes the transport: a client that has hung up waits for no answer (a stream's could not tell otherwise)."""

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._is_lost = True
        self._writable.set()
        if self.task is not None and self._task_only_waits:
            self.task.cancel()
        self._server.closed(self)

    def pause_writing(self) -> None:
        self._writable.clear()
        self._set_deadline()

    def resume_writing(self) -> None:
        self._writable.set()
        if self.task is None:
            self._go_on()
        else:
            self._set_deadline()

    # --- from outside

    def expire(self) -> None:
        """The deadline is over."""
        if not self._writable.is_set():
            self._transport.abort()
        elif self._begun:
            self._refuse(408, "the request was not complete in time")
        else:
            self._transport.close()

    def stop(self) -> None:
        """Take no more requests; streams end now, verbs under way are answered."""
        self._is_last = True
        if self.task is None:
            self._transport.close()
        elif self._task_only_waits:
            self.task.cancel()

    def abort(self) -> None:
        self._transport.abort()

    # --- requests

    def _advance(self) -> None:
        """Take in what has come, up to the next request that needs to be waited for."""
        while not self._is_busy and not self._transport.is_closing():
            try:
                event = self._http.next_event()
            except h11.RemoteProtocolError as error:
                self._refuse(error.error_status_hint, f"this is not HTTP as it should be: {error}")
                return
            if event is h11.NEED_DATA:
                if self._http.they_are_waiting_for_100_continue:
                    self._send(h11.InformationalResponse(status_code=100, headers=[]))
                return
            if event is h11.PAUSED or isinstance(event, h11.ConnectionClosed):
                return
            self._take(event)

    def _take(self, event: object) -> None:
        if isinstance(event, h11.Request):
            self._request = event
            self._body.clear()
            refusal = _refusal(event, self._server.bounds)
            if refusal is not None:
                self._refuse(*refusal)
        elif isinstance(event, h11.Data):
            self._body += event.data
            if len(self._body) > self._server.bounds.body_bytes:
                self._refuse(*_too_long(self._server.bounds))
        elif isinstance(event, h11.EndOfMessage):
            self._begun = False
            self._answer(cast("h11.Request", self._request))

    def _answer(self, request: h11.Request) -> None:
        try:
            method, target = request.method.decode(), request.target.decode()
            notice = self._server.routes.notice(method, target).encode("ascii", "backslashreplace")
            self._notice = [(NOTICE, notice)] if notice else []
            route, call = self._server.routes.find(method, target)
            call = Call(call.ref, call.query, self._decoded(route), self._caller)
            if route.upgraded is not None and _asks_for(request, route.upgraded.protocol):
                self._start(self._upgrade(route.upgraded, call), only_waits=False)
            elif isinstance(route.verb, SyncVerb):
                self._respond(200, encode(route.verb.answer(call)))
            elif isinstance(route.verb, AsyncVerb):
                self._start(self._later(route.verb.answer(call)), only_waits=route.verb.only_waits)
            else:
                self._start(self._stream(route.verb.answer(call)), only_waits=True)
        except Exception as error:
            self._fail(error)

    def _decoded(self, route: Route) -> Any:
        if route.body is not None:
            return route.body.decode(bytes(self._body))
        if self._body:
            raise InvalidError("this path takes no body", hint="send the request without one")
        return None

    def _start(self, work: Any, *, only_waits: bool) -> None:
        self._task_only_waits = only_waits
        self.task = self._loop.create_task(work)
        self._set_deadline()
        self.task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self.task = None
        if not task.cancelled() and task.exception() is not None:
            log.error("an answer could not be given", exc_info=task.exception())
            self._transport.abort()
        if task.cancelled() or self._is_last or self._http.our_state is not h11.IDLE:
            self._transport.close()
        if self._is_lost:
            self._server.closed(self)
        elif not self._transport.is_closing():
            self._go_on()

    def _go_on(self) -> None:
        """To what was sent while this connection was busy."""
        if self._early > EARLY_BYTES_MAX:
            self._transport.resume_reading()
        self._begun, self._early = self._early > 0, 0
        self._set_deadline()
        self._advance()

    # --- answers

    async def _upgrade(self, verb: Upgraded, call: Call[Any]) -> None:
        try:
            # asyncio's own object is not for others to read from.
            connection = socket.socket(fileno=os.dup(self._transport.get_extra_info("socket").fileno()))
        except OSError as error:
            self._fail(error)
            return
        try:
            take = await verb.answer(call)
        except BaseException as error:
            connection.close()
            if not isinstance(error, Exception):
                raise
            self._fail(error)
            return
        await take(connection, self._switched(verb.protocol.encode(), connection))

    def _switched(self, protocol: bytes, connection: socket.socket) -> bytes:
        """What came after the request. If the client has left meanwhile, that is seen on the connection."""
        if self._transport.is_closing():
            return b""
        self._transport.pause_reading()
        headers = [(b"connection", b"upgrade"), (b"upgrade", protocol)]
        self._send(h11.InformationalResponse(status_code=101, headers=headers))
        if self._transport.get_write_buffer_size():
            # Of a client that has not taken what it asked for before. Two would write at once.
            connection.shutdown(socket.SHUT_RDWR)
        return self._http.trailing_data[0]

    async def _later(self, answer: Awaitable[object]) -> None:
        try:
            view = encode(await answer)
        except Exception as error:
            self._fail(error)
        else:
            self._respond(200, view)

    async def _stream(self, lines: AsyncGenerator[Any, None]) -> None:
        first = self._loop.create_task(_next(lines))
        try:
            await asyncio.wait({first}, timeout=FIRST_LINE_S)
            if first.done():
                first.result()  # Its error still has the choice of a status.
            self._send(h11.Response(status_code=200, headers=[*_LINES, *self._notice]))
            await self._pump(lines, await first)
        except Exception as error:
            self._fail(error)
        finally:
            first.cancel()
            await asyncio.wait({first})
            await lines.aclose()

    async def _pump(self, lines: AsyncGenerator[Any, None], line: object) -> None:
        while line is not None and not self._transport.is_closing():
            self._send(h11.Data(data=encode(line) + b"\n"))
            await self._writable.wait()
            line = await _next(lines)
        self._end()

    def _fail(self, error: Exception) -> None:
        if isinstance(error, MethodError):
            body = ErrorBody(code="invalid", message=str(error))
            self._respond(405, error_document(body), [*_JSON, (b"allow", error.allowed.encode())])
            return
        status, body = failure(error)
        if self._http.our_state is h11.SEND_BODY:
            # The status of a stream is sent already: its last line says what went wrong.
            self._send(h11.Data(data=error_document(body) + b"\n"))
            self._end()
        else:
            self._respond(status, error_document(body))

    def _refuse(self, status: int, why: str) -> None:
        """Answer what is not worth reading on, and hang up."""
        self._begun = False
        if self._http.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
            body = error_document(ErrorBody(code="unavailable" if status == 503 else "invalid", message=why))
            self._respond(status, body, [*_JSON, (b"connection", b"close")])
        self._transport.close()

    def _respond(self, status: int, body: bytes, headers: Headers = _JSON) -> None:
        if self._transport.is_closing():
            return
        head = h11.Response(
            status_code=status,
            headers=[*headers, *self._notice, (b"content-length", str(len(body)).encode())],
        )
        data = self._http.send(head) or b""
        if self._request is None or self._request.method != b"HEAD":
            data += self._http.send(h11.Data(data=body)) or b""
        self._transport.write(data + self._finished())
        self._cycle()

    def _finished(self) -> bytes:
        return self._http.send(h11.EndOfMessage()) or b""

    def _send(self, event: h11.Event) -> None:
        data = None if self._transport.is_closing() else self._http.send(event)
        if data:
            self._transport.write(data)

    def _end(self) -> None:
        if not self._transport.is_closing():
            self._transport.write(self._finished())
            self._cycle()

    def _cycle(self) -> None:
        """Ready for the next request, or closed if that was the last."""
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
            self._set_deadline()
        else:
            self._transport.close()

    def _set_deadline(self) -> None:
        bounds = self._server.bounds
        if not self._writable.is_set():
            seconds = bounds.write_s
        elif self.task is not None:
            seconds = math.inf
        else:
            seconds = bounds.request_s if self._begun else bounds.idle_s
        self.deadline = self._loop.time() + seconds


def _asks_for(request: h11.Request, protocol: str) -> bool:
    """Names of protocols are whatever their case, and may be several (RFC 9110 §7.8)."""
    asked = (token for name, value in request.headers if name == b"upgrade" for token in value.split(b","))
    return any(token.strip().lower() == protocol.encode() for token in asked)


def _refusal(request: h11.Request, bounds: Bounds) -> tuple[int, str] | None:
    """Why a request is not read on, judged by its head."""
    if not request.http_version.startswith(b"1."):
        return 505, "HTTP/1.1 is spoken here"
    size = len(request.target)
    framings = 0
    for name, value in request.headers:
        framings += name in _FRAMING
        size += len(name) + len(value) + 4
        if name == b"content-length" and int(value) > bounds.body_bytes:
            return _too_long(bounds)
        if name == b"origin":
            # Only browsers send it, and no page has any business here.
            return 403, "requests of web pages are not answered"
    if framings > 1:
        # Two lengths of one body are how requests are smuggled (RFC 9112 §6.1).
        return 400, "a body has one length"
    if size > HEADER_BYTES_MAX:
        # h11's own bound is for heads that come in pieces.
        return 431, f"the head is longer than {HEADER_BYTES_MAX} bytes"
    return None


def _too_long(bounds: Bounds) -> tuple[int, str]:
    return 413, f"the body is longer than {bounds.body_bytes} bytes"


async def _next(lines: AsyncGenerator[Any, None]) -> object:
    """The next line; None at the end."""
    return await anext(lines, None)
