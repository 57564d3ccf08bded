"""Forwarding, against real servers on loopback addresses."""

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import pytest

from harness.patience import Watch
from sealane.dns import limits, relay, upstream, wire
from sealane.dns.relay import Reply
from sealane.dns.resolvconf import ResolvConf
from sealane.dns.upstream import Forwarder
from sealane.dns.wire import Question
from unit.dns.upstream_rig import Upstream, answering, reply_to, silent, truncating


def question(name: str = "www.example.com.", rrtype: str = "A") -> Question:
    read = wire.read_question(dns.message.make_query(name, rrtype).to_wire())
    assert isinstance(read, Question)
    return read


def addresses(reply: Reply | None, asked: Question | None = None) -> set[str]:
    assert reply is not None
    answer = dns.message.from_wire(b"\0\0" + relay.answer_tail(asked or question(), reply, stream=True))
    return {data.to_text() for rrset in answer.answer for data in rrset}


@contextlib.asynccontextmanager
async def forwarding(port: int, *servers: str, conf: str = "/dev/null") -> AsyncIterator[Forwarder]:
    followed = ResolvConf(conf)
    followed.servers = servers
    forwarder = Forwarder(asyncio.get_running_loop(), followed, port=port)
    yield forwarder
    await forwarder.stop()
    await asyncio.sleep(0)


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 100))


def test_a_question_is_asked_and_its_answer_remembered() -> None:
    async def scenario() -> None:
        with Upstream("127.0.0.1") as server:
            async with forwarding(server.port, "127.0.0.1") as forwarder:
                assert forwarder.recall((), question()) is None
                assert addresses(await forwarder.ask("a", (), question())) == {"192.0.2.80"}
                held = forwarder.recall((), question("WWW.example.com."))
                assert held is not None
                assert addresses(held[0]) == {"192.0.2.80"}
                assert forwarder.recall(("192.0.2.1",), question()) is None
            assert server.seen == [("www.example.com.", "A", "udp")]

    run(scenario())


def test_failures_and_absent_names_are_not_remembered() -> None:
    async def scenario() -> None:
        for rcode in (dns.rcode.NXDOMAIN, dns.rcode.SERVFAIL, dns.rcode.REFUSED):
            with Upstream("127.0.0.1", behave=answering(rcode=rcode)) as server:
                async with forwarding(server.port, "127.0.0.1") as forwarder:
                    reply = await forwarder.ask("a", (), question())
                    assert reply is not None
                    assert reply.rcode == rcode
                    assert forwarder.recall((), question()) is None
                assert len(server.seen) == 1

    run(scenario())


def test_memory_ends_with_the_ttl(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        with Upstream("127.0.0.1", behave=answering("192.0.2.1", ttl=2)) as server:
            async with forwarding(server.port, "127.0.0.1") as forwarder:
                await forwarder.ask("a", (), question())
                now = time.monotonic()
                monkeypatch.setattr(upstream.time, "monotonic", lambda: now + 1.5)
                held = forwarder.recall((), question())
                assert held is not None
                assert held[1] == 1
                monkeypatch.setattr(upstream.time, "monotonic", lambda: now + 2.5)
                assert forwarder.recall((), question()) is None

    run(scenario())


def test_the_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream, "REPLY_CACHE_ENTRIES", 3)

    async def scenario() -> None:
        with Upstream("127.0.0.1") as server:
            async with forwarding(server.port, "127.0.0.1") as forwarder:
                for number in range(4):
                    await forwarder.ask("a", (), question(f"n{number}.example."))
                held = [
                    forwarder.recall((), question(f"n{number}.example.")) is not None for number in range(4)
                ]
                assert held == [False, True, True, True]

    run(scenario())


def test_each_query_has_its_own_port_id_and_spelling() -> None:
    """E4."""

    async def scenario() -> None:
        with Upstream("127.0.0.1", behave=answering("192.0.2.1", ttl=0)) as server:
            async with forwarding(server.port, "127.0.0.1") as forwarder:
                for _ in range(12):
                    await forwarder.ask("a", (), question("a-long-name-to-spell.example.com."))
            assert len({port for _, port in server.peers}) >= 11
            assert len(set(server.spellings)) >= 11

    run(scenario())


def test_identical_questions_become_one_query_and_all_get_the_answer() -> None:
    async def scenario() -> None:
        with Upstream("127.0.0.1") as server:
            async with forwarding(server.port, "127.0.0.1") as forwarder:
                spellings = [question("www.example.com."), question("WWW.EXAMPLE.COM.")] * 10
                replies = await asyncio.gather(
                    *(forwarder.ask(f"a{n}", (), q) for n, q in enumerate(spellings))
                )
                assert all(addresses(reply) == {"192.0.2.80"} for reply in replies)
            assert len(server.seen) == 1

    run(scenario())


def test_junk_before_the_answer_is_ignored() -> None:
    """E4 (TuDoor): junk neither ends the wait nor becomes the answer."""

    def junk_first(query: dns.message.Message, _: bool) -> list[bytes]:
        forged = [reply_to(query, "192.0.2.66") for _ in range(3)]
        forged[0].id ^= 1
        forged[1].question = dns.message.make_query("other.example.", "A").question
        forged[2].flags = 0
        return [
            b"",
            b"\xff",
            *[message.to_wire() for message in forged] * 50,
            reply_to(query, "192.0.2.1").to_wire(),
        ]

    async def scenario() -> None:
        with Upstream("127.0.0.1", behave=junk_first) as server:
            async with forwarding(server.port, "127.0.0.1") as forwarder:
                assert addresses(await forwarder.ask("a", (), question())) == {"192.0.2.1"}

    run(scenario())


def test_forgeries_from_elsewhere_do_not_reach_the_socket() -> None:
    """E4: an off-path sender floods every port it can while the true server takes its time."""

    async def scenario() -> None:
        stopping = threading.Event()

        def flood() -> None:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as forger:
                forger.bind(("127.0.0.66", 0))
                forgery = reply_to(
                    dns.message.make_query("www.example.com.", "A", id=1), "192.0.2.66"
                ).to_wire()
                for port in range(32768, 61000, 1):
                    if stopping.is_set():
                        return
                    with contextlib.suppress(OSError):
                        forger.sendto(forgery, ("127.0.0.1", port))

        def slow(query: dns.message.Message, _: bool) -> list[bytes]:
            time.sleep(0.2)
            return [reply_to(query, "192.0.2.1").to_wire()]

        thread = threading.Thread(target=flood)
        with Upstream("127.0.0.1", behave=slow) as server:
            async with forwarding(server.port, "127.0.0.1") as forwarder:
                thread.start()
                assert addresses(await forwarder.ask("a", (), question())) == {"192.0.2.1"}
        stopping.set()
        thread.join()

    run(scenario())


def test_another_spelling_is_checked_over_tcp() -> None:
    def lower(query: dns.message.Message, _: bool) -> list[bytes]:
        query.question[0].name = query.question[0].name.canonicalize()
        return [reply_to(query, "192.0.2.1").to_wire()]

    async def scenario() -> None:
        with Upstream("127.0.0.1", behave=lower) as server:
            async with forwarding(server.port, "127.0.0.1") as forwarder:
                assert addresses(await forwarder.ask("a", (), question())) == {"192.0.2.1"}
            assert [protocol for _, _, protocol in server.seen] == ["udp", "tcp"]

    run(scenario())


def test_a_cut_answer_is_fetched_over_tcp() -> None:
    async def scenario() -> None:
        many = [f"192.0.2.{n}" for n in range(1, 100)]
        with Upstream("127.0.0.1", behave=truncating(*many)) as server:
            async with forwarding(server.port, "127.0.0.1") as forwarder:
                assert addresses(await forwarder.ask("a", (), question())) == set(many)

    run(scenario())


def test_a_dead_first_server_costs_a_moment_once() -> None:
    async def scenario() -> None:
        with Upstream("127.0.0.1") as live, Upstream("127.0.0.2", live.port, silent) as dead:
            async with forwarding(live.port, "127.0.0.2", "127.0.0.1") as forwarder:
                watch = Watch()
                await forwarder.ask("a", (), question())
                assert limits.HEDGE_S * 0.9 < watch.wall_s()
                assert watch.elapsed_s() < limits.FORWARD_DEADLINE_S
                await forwarder.ask("a", (), question("second.example.com."))
            assert len(dead.seen) == 1, "the second question went to the live one at once"

    run(scenario())


@pytest.mark.parametrize("rcode", [dns.rcode.SERVFAIL, dns.rcode.REFUSED])
def test_a_server_that_fails_is_passed_over_at_once(monkeypatch: pytest.MonkeyPatch, rcode: int) -> None:
    monkeypatch.setattr(upstream, "HEDGE_S", 600)
    monkeypatch.setattr(upstream, "FORWARD_DEADLINE_S", 600)

    async def scenario() -> None:
        with Upstream("127.0.0.1") as good, Upstream("127.0.0.2", good.port, answering(rcode=rcode)):
            async with forwarding(good.port, "127.0.0.2", "127.0.0.1") as forwarder:
                answer = await asyncio.wait_for(forwarder.ask("a", (), question()), 100)
                assert addresses(answer) == {"192.0.2.80"}

    run(scenario())


def test_a_lone_dead_server_is_asked_twice_and_given_up_in_time() -> None:
    """E6: at most two packets a question, whatever it runs into."""

    async def scenario() -> None:
        with Upstream("127.0.0.1", behave=silent) as dead:
            async with forwarding(dead.port, "127.0.0.1") as forwarder:
                assert await asyncio.wait_for(forwarder.ask("a", (), question()), 100) is None
                assert (forwarder.asked, forwarder.failed) == (1, 1)
            assert len(dead.seen) == 2

    run(scenario())


def test_a_server_that_refuses_the_port_is_given_up_at_once() -> None:
    async def scenario() -> None:
        with Upstream("127.0.0.1") as other:
            async with forwarding(other.port, "127.0.0.9") as forwarder:
                watch = Watch()
                assert await forwarder.ask("a", (), question()) is None
                assert watch.elapsed_s() < limits.FORWARD_DEADLINE_S

    run(scenario())


def test_own_addresses_are_never_asked() -> None:
    """E6 (moby #47744)."""

    async def scenario() -> None:
        with Upstream("127.0.0.1") as ourselves, Upstream("127.0.0.2", ourselves.port) as other:
            async with forwarding(ourselves.port, "127.0.0.1", "127.0.0.2") as forwarder:
                forwarder.own_addresses = frozenset({"127.0.0.1"})
                assert await forwarder.ask("a", (), question()) is not None
                forwarder.own_addresses = frozenset({"127.0.0.1", "127.0.0.2"})
                assert await forwarder.ask("a", (), question("x.example.")) is None
            assert (len(ourselves.seen), len(other.seen)) == (0, 1)

    run(scenario())


def test_no_more_than_three_servers_are_asked() -> None:
    async def scenario() -> None:
        with contextlib.ExitStack() as stack:
            first = stack.enter_context(Upstream("127.0.0.1", behave=answering(rcode=2)))
            rest = [
                stack.enter_context(Upstream(f"127.0.0.{n}", first.port, answering(rcode=2)))
                for n in range(2, 5)
            ]
            names = ("127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4")
            async with forwarding(first.port) as forwarder:
                await forwarder.ask("a", names, question())
            assert [len(server.seen) for server in (first, *rest)] == [1, 1, 1, 0]

    run(scenario())


def test_a_greedy_asker_is_turned_away_at_its_share_and_others_are_not() -> None:
    """E9."""

    async def scenario() -> None:
        with Upstream("127.0.0.1", behave=silent) as dead, Upstream("127.0.0.2", dead.port):
            async with forwarding(dead.port, "127.0.0.1") as forwarder:
                delivered: list[Reply | None] = []
                accepted = [
                    forwarder.submit("greedy", (), question(f"n{n}.example."), delivered.append)
                    for n in range(1000)
                ]
                assert accepted.count(True) == limits.FORWARDS // (limits.FORWARD_SHARE + 1)
                assert addresses(await forwarder.ask("other", ("127.0.0.2",), question())) == {"192.0.2.80"}
                await asyncio.sleep(0)
            assert delivered == [None] * accepted.count(True)
            assert forwarder.submit("greedy", (), question(), delivered.append)
            await forwarder.stop()

    run(scenario())


def test_sockets_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream, "FORWARD_SOCKETS", 2)

    async def scenario() -> None:
        with Upstream("127.0.0.1", behave=silent) as dead:
            async with forwarding(dead.port, "127.0.0.1") as forwarder:
                waiting = [
                    asyncio.ensure_future(forwarder.ask("a", (), question(f"n{n}.example.")))
                    for n in range(3)
                ]
                done, _ = await asyncio.wait(waiting, timeout=0.5)
                assert [task.result() for task in done] == [None]
                await forwarder.stop()
                await asyncio.wait(waiting)
            assert len(set(dead.names())) == 2

    run(scenario())


def test_changes_of_resolv_conf_are_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream, "TICK_S", 0.02)
    conf = tmp_path / "resolv.conf"
    conf.write_text("nameserver 127.0.0.1\n")

    async def scenario() -> None:
        with Upstream("127.0.0.1") as first, Upstream("127.0.0.2", first.port, answering("192.0.2.2")):
            async with forwarding(first.port, conf=str(conf)) as forwarder:
                following = asyncio.ensure_future(forwarder.follow_resolv_conf())
                await asyncio.sleep(0)
                assert addresses(await forwarder.ask("a", (), question())) == {"192.0.2.80"}
                conf.write_text("nameserver 127.0.0.2\n#\n")
                while forwarder.servers(()) != ("127.0.0.2",):  # noqa: ASYNC110  It has no event to wait for.
                    await asyncio.sleep(0.01)
                assert forwarder.recall((), question()) is None
                assert addresses(await forwarder.ask("a", (), question())) == {"192.0.2.2"}
                following.cancel()

    run(scenario())


def test_an_unreachable_or_odd_tcp_server_is_no_answer() -> None:
    def odd(query: dns.message.Message, stream: bool) -> list[bytes]:
        reply = reply_to(query)
        reply.flags |= dns.flags.TC
        return [] if stream else [reply.to_wire()]  # TCP: closed without a word.

    async def scenario() -> None:
        with Upstream("127.0.0.1", behave=odd) as server:
            async with forwarding(server.port, "127.0.0.1") as forwarder:
                assert await forwarder.ask("a", (), question()) is None
            assert [protocol for _, _, protocol in server.seen] == ["udp", "tcp"]

    run(scenario())
