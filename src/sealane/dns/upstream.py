"""Forwarding: every question on a socket of its own, connected, with a random port and id; hedged and coalesced.

It lives in one event loop, away from the thread that answers local names. A dead upstream costs an asker its share of
the places (``fairness``) and nobody anything else.
"""

import asyncio
import contextlib
import secrets
import socket
import time
from collections.abc import Callable, Hashable, Iterable

import dns.rcode
import msgspec

from sealane.dns import relay
from sealane.dns.fairness import Shares
from sealane.dns.limits import (
    FORWARD_DEADLINE_S,
    FORWARD_SHARE,
    FORWARD_SOCKETS,
    FORWARDS,
    HEDGE_S,
    REPLY_BYTES,
    REPLY_CACHE_ENTRIES,
    RESEND_S,
    TICK_S,
    UPSTREAM_DEMOTED_S,
    UPSTREAMS,
)
from sealane.dns.relay import Judgement, Query, Reply, Subject
from sealane.dns.resolvconf import ResolvConf
from sealane.dns.wire import Question

Servers = tuple[str, ...]
Deliver = Callable[[Reply | None], None]

_FINAL_RCODES = frozenset({int(dns.rcode.NOERROR), int(dns.rcode.NXDOMAIN)})
"""Other codes speak of the server rather than of the name: the next server is asked."""


class _Remembered(msgspec.Struct, frozen=True):
    reply: Reply
    since_s: float


class Forwarder:
    """``submit`` and ``recall`` may be called from any thread, the rest from the loop's."""

    def __init__(self, loop: asyncio.AbstractEventLoop, resolv_conf: ResolvConf, *, port: int = 53) -> None:
        self._loop = loop
        self._resolv_conf = resolv_conf
        self._port = port
        self._shares = Shares(FORWARDS, FORWARD_SHARE)
        self._waiting: dict[tuple[Servers, Subject], list[tuple[Hashable, Deliver]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._replies: dict[tuple[Servers, Subject], _Remembered] = {}
        self._demoted_until: dict[str, float] = {}
        self._sockets = 0
        self.own_addresses: frozenset[str] = frozenset()
        """Where we listen ourselves: never asked, or a question would go round for ever."""
        self.asked = 0
        self.failed = 0

    def servers(self, upstreams: Servers) -> Servers:
        chosen = upstreams or self._resolv_conf.servers
        return tuple(server for server in chosen if server not in self.own_addresses)[:UPSTREAMS]

    def recall(self, upstreams: Servers, question: Question) -> tuple[Reply, int] | None:
        """A remembered reply and its age in seconds."""
        held = self._replies.get((self.servers(upstreams), Subject.of(question)))
        if held is None:
            return None
        age_s = int(time.monotonic() - held.since_s)
        return (held.reply, age_s) if age_s < held.reply.lifetime_s else None

    def submit(self, asker: Hashable, upstreams: Servers, question: Question, deliver: Deliver) -> bool:
        """Ask, and call ``deliver`` in the loop's thread with the reply, or None if no server gave one in time.

        False at once if the asker holds its share of places already; then nothing is delivered.
        """
        if not self._shares.take(asker):
            return False
        self._loop.call_soon_threadsafe(
            self._begin, asker, self.servers(upstreams), Subject.of(question), deliver
        )
        return True

    async def ask(self, asker: Hashable, upstreams: Servers, question: Question) -> Reply | None:
        reply: asyncio.Future[Reply | None] = self._loop.create_future()

        def deliver(found: Reply | None) -> None:
            if not reply.done():
                reply.set_result(found)

        return await reply if self.submit(asker, upstreams, question, deliver) else None

    async def follow_resolv_conf(self) -> None:
        while True:
            self._resolv_conf.refresh()
            await asyncio.sleep(TICK_S)

    def _begin(self, asker: Hashable, servers: Servers, subject: Subject, deliver: Deliver) -> None:
        key = (servers, subject)
        waiting = self._waiting.get(key)
        if waiting is not None:
            waiting.append((asker, deliver))
            return
        self._waiting[key] = [(asker, deliver)]
        task = self._loop.create_task(self._settle(servers, subject))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _settle(self, servers: Servers, subject: Subject) -> None:
        reply = None
        try:
            reply = await self._resolve(servers, subject)
        finally:
            self.asked += 1
            self.failed += reply is None
            if reply is not None and reply.lifetime_s:
                self._remember((servers, subject), reply)
            for asker, deliver in self._waiting.pop((servers, subject)):
                self._shares.give_back(asker)
                # Each in a step of its own: one that fails (the loop logs it) must not keep the others waiting.
                self._loop.call_soon(deliver, reply)

    def _remember(self, key: tuple[Servers, Subject], reply: Reply) -> None:
        self._replies.pop(key, None)
        if len(self._replies) >= REPLY_CACHE_ENTRIES:
            del self._replies[next(iter(self._replies))]
        self._replies[key] = _Remembered(reply, time.monotonic())

    async def _resolve(self, servers: Servers, subject: Subject) -> Reply | None:
        """Ask one server after the other, without waiting long for the former; the first good reply wins."""
        plan = self._by_promise(servers) if len(servers) != 1 else [*servers, *servers]
        gap_s = HEDGE_S if len(servers) > 1 else RESEND_S
        deadline = self._loop.time() + FORWARD_DEADLINE_S
        running: dict[asyncio.Task[Reply | None], str] = {}
        fallback: Reply | None = None
        try:
            while (plan or running) and (left_s := deadline - self._loop.time()) > 0:
                if plan:
                    server = plan.pop(0)
                    running[self._loop.create_task(self._exchange(server, subject))] = server
                done, _ = await asyncio.wait(
                    running,
                    timeout=min(gap_s, left_s) if plan else left_s,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                for attempt in done:
                    server, reply = running.pop(attempt), attempt.result()
                    if reply is not None and reply.rcode in _FINAL_RCODES:
                        self._demoted_until.pop(server, None)
                        return reply
                    fallback = reply or fallback
                    # It has spoken, or cannot be reached: asking it again would tell nothing new.
                    plan = [later for later in plan if later != server]
        finally:
            self._demote(set(running.values()))
            for attempt in running:
                attempt.cancel()
        return fallback

    def _by_promise(self, servers: Servers) -> list[str]:
        now = self._loop.time()
        return sorted(servers, key=lambda server: self._demoted_until.get(server, 0.0) > now)

    def _demote(self, silent: Iterable[str]) -> None:
        now = self._loop.time()
        self._demoted_until = {server: until for server, until in self._demoted_until.items() if until > now}
        self._demoted_until.update(dict.fromkeys(silent, now + UPSTREAM_DEMOTED_S))

    async def _exchange(self, server: str, subject: Subject) -> Reply | None:
        """One server's reply; None if it cannot be reached. Waits for as long as it is let."""
        if self._sockets >= FORWARD_SOCKETS:
            return None
        random = secrets.randbits(16 + 256)
        query = relay.query_about(subject, random & 0xFFFF, random >> 16)
        self._sockets += 1
        try:
            judgement = await self._by_datagram(server, query)
            if judgement is Judgement.ASK_BY_STREAM:
                judgement = await self._by_stream(server, query)
        except (OSError, EOFError):
            return None
        finally:
            self._sockets -= 1
        return judgement if isinstance(judgement, Reply) else None

    async def _by_datagram(self, server: str, query: Query) -> Reply | Judgement:
        family = socket.AF_INET6 if ":" in server else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as datagrams:
            # Connected: the kernel drops what comes from elsewhere and chooses a random port (udp_lib_get_port).
            datagrams.connect((server, self._port))
            datagrams.send(query.message)
            while True:
                judgement = relay.judge(query, await self._loop.sock_recv(datagrams, REPLY_BYTES))
                if judgement is not Judgement.JUNK:
                    return judgement
                # sock_recv does not pause while something waits: a flood of forgeries must not hold the loop.
                await asyncio.sleep(0)

    async def _by_stream(self, server: str, query: Query) -> Reply | Judgement:
        reader, writer = await asyncio.open_connection(server, self._port, limit=REPLY_BYTES)
        try:
            writer.write(len(query.message).to_bytes(2, "big") + query.message)
            length = int.from_bytes(await reader.readexactly(2), "big")
            if length > REPLY_BYTES:
                return Judgement.JUNK
            return relay.judge(query, await reader.readexactly(length), stream=True)
        finally:
            writer.transport.abort()

    async def stop(self) -> None:
        """Give up all questions; their askers get None."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks, return_exceptions=True)
