"""The resolver at work: one thread that answers datagrams, one event loop for all that waits.

    datagrams ──► serving thread: epoll, bursts, raw cache, zone ──► answers
                        │ names of others          ▲ update(), from any thread
                        ▼                          │
    TCP ──► patient loop: connections, upstreams, /etc/resolv.conf ──► answers

The serving thread waits for nothing but datagrams. A blocking loop of this kind answers some 170,000 questions a second
on a core, asyncio's datagram protocol 25,000. Whatever can take time lives in the patient loop.
"""

import asyncio
import contextlib
import logging
import os
import select
import socket
import sys
import threading
import time
from collections.abc import Iterable
from typing import Any

import dns.rcode
import msgspec

from sealane.dns import relay, wire
from sealane.dns.backlog import Backlog
from sealane.dns.limits import (
    BACKLOG,
    BURST,
    LISTENERS,
    PROMPT,
    QUERY_BYTES,
    SWITCH_INTERVAL_S,
    TICK_S,
    TURNS,
)
from sealane.dns.listen import Listener, Places
from sealane.dns.records import ZoneNetwork
from sealane.dns.relay import Reply
from sealane.dns.resolvconf import PATH, ResolvConf
from sealane.dns.responder import Forward, Responder
from sealane.dns.stream import StreamService
from sealane.dns.upstream import Forwarder
from sealane.dns.wire import Question
from sealane.dns.zone import View

_log = logging.getLogger(__name__)


class Stats(msgspec.Struct, frozen=True):
    """Counted since the start; ``connections`` is of this moment."""

    cached: int
    """Datagrams answered from their raw bytes."""
    computed: int
    """Datagrams that had to be read: answered, refused or forwarded."""
    silent: int
    """Datagrams not answered: from strangers, or no questions."""
    shed: int
    """Questions answered SERVFAIL because their asker had too many others unanswered."""
    dropped: int
    """Datagrams of askers that sent more than could be read."""
    unsent: int
    """Answers the kernel did not take."""
    faults: int
    """Questions on which our own code failed."""
    forwarded: int
    unanswered: int
    """Forwarded questions to which no upstream replied."""
    connections: int
    refused_connections: int


class DnsServer:
    """Serves the networks it is told of, in the network namespace of the thread that calls ``start``.

    ``update``, ``problems`` and ``stats`` may be called from any thread, and before ``start``. While it runs, the
    interpreter's threads take turns of 0.5 ms.
    """

    def __init__(
        self,
        *,
        searches: Iterable[str] = (),
        port: int = 53,
        resolv_conf: str = PATH,
        upstream_port: int = 53,
    ) -> None:
        self._responder = Responder(searches)
        self._places = Places(port)
        self._places_lock = threading.Lock()
        self._by_fd: dict[int, Listener] = {}
        self._behind: set[Listener] = set()
        """Who has a backlog."""
        self._leaving: dict[socket.socket, str] = {}
        """Listening TCP sockets that the patient loop has yet to close → their addresses, which are taken until then."""
        self._epoll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._wake, select.EPOLLIN)
        self._loop = asyncio.new_event_loop()
        self._resolv_conf = ResolvConf(resolv_conf)
        self._forwarder = Forwarder(self._loop, self._resolv_conf, port=upstream_port)
        self._streams = StreamService(self._answer_query_of_stream)
        self._serving = threading.Thread(target=self._serve, name="sealane-dns", daemon=True)
        self._patient = threading.Thread(
            target=self._loop.run_forever, name="sealane-dns-patient", daemon=True
        )
        self._switch_interval_s = sys.getswitchinterval()
        self._is_stopping = False
        self._cached = self._computed = self._silent = self._shed = self._dropped = self._unsent = (
            self._faults
        ) = 0

    def start(self) -> None:
        """Returns when the sockets have been opened, or found not to open (``problems``)."""
        # The serving thread gives the interpreter's lock away with every datagram; a thread that computes keeps it for
        # this long. With Python's 5 ms one asker's p99 was 22 ms beside a busy thread, with this 2 ms (3.11).
        sys.setswitchinterval(min(self._switch_interval_s, SWITCH_INTERVAL_S))
        self._resolv_conf.refresh()
        self._tend_sockets()
        self._following = asyncio.run_coroutine_threadsafe(self._forwarder.follow_resolv_conf(), self._loop)
        self._patient.start()
        self._serving.start()

    def stop(self) -> None:
        """Close everything; waits for the two threads. Idempotent, and the end: a stopped server does not start again."""
        if self._loop.is_closed():
            return
        self._is_stopping = True
        if self._serving.ident is not None:
            self._stop_threads()
        self._loop.close()
        self._epoll.close()
        os.close(self._wake)
        sys.setswitchinterval(self._switch_interval_s)

    def _stop_threads(self) -> None:
        os.eventfd_write(self._wake, 1)
        self._serving.join()
        with self._places_lock:
            listeners = [*self._places.take_retired(), *self._places.listeners]
        for listener in listeners:
            self._close(listener)
        self._following.cancel()
        asyncio.run_coroutine_threadsafe(self._wind_up(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._patient.join()

    async def _wind_up(self) -> None:
        await self._streams.stop()
        await self._forwarder.stop()
        # A connection that was just accepted comes to a task of its own in a few turns of the loop.
        while asyncio.all_tasks() - {asyncio.current_task()}:
            await self._streams.stop()
            await asyncio.sleep(0)

    def update(self, changed: Iterable[ZoneNetwork], removed: Iterable[str] = ()) -> None:
        """Take over whole networks; answers are those of the new state as soon as this returns.

        Costs what changed: unchanged members are recognised by identity, other networks are not looked at. Sockets are
        opened and closed a moment later. Raises ZoneError, and then nothing has changed.
        """
        changed, removed = list(changed), list(removed)
        with self._places_lock:
            self._responder.update(changed, removed)
            self._places.assign(changed, removed)
            self._forwarder.own_addresses = self._places.addresses
        self._wake_up()

    def problems(self) -> list[str]:
        """A sentence for each network, address and protocol that cannot be served now."""
        with self._places_lock:
            return self._places.problems()

    def stats(self) -> Stats:
        return Stats(
            cached=self._cached,
            computed=self._computed,
            silent=self._silent,
            shed=self._shed,
            dropped=self._dropped,
            unsent=self._unsent,
            faults=self._faults,
            forwarded=self._forwarder.asked,
            unanswered=self._forwarder.failed,
            connections=self._streams.connections,
            refused_connections=self._streams.refused,
        )

    def _serve(self) -> None:
        next_tick = time.monotonic() + TICK_S
        while not self._is_stopping:
            is_due = False
            ready = [*self._behind]
            for fd, _ in self._epoll.poll(0 if ready else TICK_S):
                if fd == self._wake:
                    os.eventfd_read(self._wake)
                    is_due = True
                elif (listener := self._by_fd.get(fd)) and listener not in self._behind:
                    ready.append(listener)
            for listener in ready:
                self._serve_burst(listener)
            now = time.monotonic()
            if is_due or now >= next_tick:
                next_tick = now + TICK_S
                self._tend_sockets()

    def _serve_burst(self, listener: Listener) -> None:
        """Answer what waits at one socket, up to a bound that leaves the others their turn.

        Reading a question is ten times as cheap as answering one that is not cached. So all are read first, and who has
        asked more than a few has the rest answered when nobody else's waits: a flood delays itself, not its neighbours.
        """
        datagrams, backlog = listener.datagrams, listener.backlog
        assert datagrams is not None
        turns = TURNS if self._read_burst(listener, datagrams) else 1
        while backlog and turns:
            self._serve_uncached(listener, datagrams, *backlog.take())
            turns -= 1
        if backlog:
            self._behind.add(listener)
        else:
            self._behind.discard(listener)

    def _read_burst(self, listener: Listener, datagrams: socket.socket) -> bool:
        """Whether nothing is left to be read."""
        receive, send, askers, backlog = (
            datagrams.recvfrom,
            datagrams.sendto,
            listener.askers,
            listener.backlog,
        )
        uncached: dict[str, int] = {}
        cached, is_read = 0, False
        for _ in range(BURST):
            try:
                query, source = receive(QUERY_BYTES)
            except OSError:  # Nothing waits any more, or the kernel reports an error of an earlier answer.
                is_read = True
                break
            try:
                answer = query[:2] + askers[source[0]].cache[query[2:]]()
            except KeyError:
                turn = uncached[source[0]] = uncached.get(source[0], 0) + 1
                if turn <= PROMPT and source[0] not in backlog:
                    self._serve_uncached(listener, datagrams, query, source)
                elif not backlog.put(source[0], (query, source)):
                    self._dropped += 1
                continue
            try:
                send(answer, source)
                cached += 1
            except OSError:
                self._unsent += 1
        self._cached += cached
        return is_read

    def _serve_uncached(
        self, listener: Listener, datagrams: socket.socket, query: bytes, source: Any
    ) -> None:
        try:
            tail = self._tail_for_datagram(listener, datagrams, query, source)
        except Exception:  # The wall: no question may stop the thread that answers all others.
            self._faults += 1
            # The first, second, fourth, eighth...: whoever found a fault must not fill the log with it.
            if self._faults & (self._faults - 1) == 0:
                _log.exception(f"a question failed ({self._faults} so far)")
            return
        if tail is None:
            return
        self._computed += 1
        try:
            datagrams.sendto(query[:2] + tail, source)
        except OSError:
            self._unsent += 1

    def _tail_for_datagram(
        self, listener: Listener, datagrams: socket.socket, query: bytes, source: Any
    ) -> bytes | None:
        view = self._view(listener, source[0])
        response = self._responder.respond(view, query) if view else None
        if view is None or response is None:
            self._silent += 1
            return None
        if not isinstance(response, Forward):
            return response
        question = response.question
        if held := self._forwarder.recall(view.upstreams, question):
            return relay.answer_tail(question, *held)

        def deliver(reply: Reply | None) -> None:
            with contextlib.suppress(OSError):  # The socket may be closed, or full, by now.
                datagrams.sendto(query[:2] + _relayed_tail(question, reply), source)

        if self._forwarder.submit((listener.place, source[0]), view.upstreams, question, deliver):
            self._computed += 1
            return None
        self._shed += 1
        return _relayed_tail(question, None)

    def _view(self, listener: Listener, source: str) -> View | None:
        return listener.askers.get(source) or self._responder.recognise(
            listener.askers, listener.arrival, source
        )

    async def _answer_query_of_stream(self, listener: Listener, source: str, query: bytes) -> bytes | None:
        view = self._view(listener, source)
        response = self._responder.respond(view, query, stream=True) if view else None
        if view is None or response is None:
            return None
        if not isinstance(response, Forward):
            return query[:2] + response
        question = response.question
        if held := self._forwarder.recall(view.upstreams, question):
            return query[:2] + relay.answer_tail(question, *held, stream=True)
        reply = await self._forwarder.ask((listener.place, source), view.upstreams, question)
        return query[:2] + _relayed_tail(question, reply, stream=True)

    def _tend_sockets(self) -> None:
        """Close what is not wanted any more, open what is wanted and is not open."""
        with self._places_lock:
            retired, listeners = self._places.take_retired(), self._places.listeners
        for listener in retired:
            self._close(listener)
        for listener in listeners[LISTENERS:]:
            listener.decline()
        for listener in listeners[:LISTENERS]:
            if listener.is_stranded():
                self._close(listener)
            if listener.datagrams is None or listener.stream is None:
                self._open(listener)

    def _open(self, listener: Listener) -> None:
        before = listener.problem_texts()
        self._leaving = {sock: address for sock, address in self._leaving.items() if sock.fileno() >= 0}
        for opened in listener.open(self._leaving.values()):
            if opened is listener.datagrams:
                self._by_fd[opened.fileno()] = listener
                self._epoll.register(opened, select.EPOLLIN)
            else:
                asyncio.run_coroutine_threadsafe(self._streams.open(listener, opened), self._loop)
        for text in listener.problem_texts():
            if text not in before:
                _log.warning(text)

    def _close(self, listener: Listener) -> None:
        if listener.datagrams is not None:
            del self._by_fd[listener.datagrams.fileno()]
            listener.datagrams.close()  # Which takes it out of the epoll set.
            listener.datagrams = None
            listener.backlog = Backlog(BACKLOG)
            self._behind.discard(listener)
        if listener.stream is not None:
            self._leaving[listener.stream] = listener.place.address
            self._loop.call_soon_threadsafe(self._close_stream, listener.stream)
            listener.stream = None

    def _close_stream(self, listening: socket.socket) -> None:
        """In the patient loop; then whoever waits for the address is served."""
        self._streams.close(listening)
        # Behind what closes it, which is called soon, too.
        self._loop.call_soon(self._wake_up)

    def _wake_up(self) -> None:
        if not self._is_stopping:
            os.eventfd_write(self._wake, 1)


def _relayed_tail(question: Question, reply: Reply | None, *, stream: bool = False) -> bytes:
    if reply is None:
        return wire.answer_tail(question, dns.rcode.SERVFAIL, recursion=True, stream=stream)
    return relay.answer_tail(question, reply, stream=stream)
