"""Relays as they follow an engine over a kernel in memory, with real sockets: what cannot be listened at, and bounds."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest

from harness.engines import Bench, publish, subnets
from sealane.daemon import relays
from sealane.daemon.relays import RelayFeed
from sealane.engine.engine import Engine

pytestmark = pytest.mark.kernel


@contextlib.asynccontextmanager
async def following(engine: Engine) -> AsyncIterator[RelayFeed]:
    feed = RelayFeed(engine, asyncio.get_running_loop())
    try:
        yield feed
    finally:
        feed.close()


@pytest.fixture
def bench() -> Bench:
    made = Bench()
    made.network("old", subnets=list(subnets("10.9.0.0/24")))
    return made


def is_listened_at(port: int) -> bool:
    with socket.socket(socket.AF_INET6) as probe:
        return probe.connect_ex(("::1", port)) == 0


def test_a_port_is_listened_at_from_the_verb_to_the_verb(bench: Bench) -> None:
    async def run() -> None:
        async with following(bench.engine) as feed:
            assert not is_listened_at(8500)
            view = bench.attach("/run/netns/a", "old", publish=[publish(8500, 80)])
            assert is_listened_at(8500)
            (endpoint,) = bench.engine.intent.endpoints.values()
            bench.engine.deactivate([endpoint.sandbox])
            assert not is_listened_at(8500)
            bench.engine.activate(endpoint.sandbox)
            assert is_listened_at(8500)
            bench.engine.remove_network(view.network, force=True)
            assert not is_listened_at(8500)
            assert feed.problems == {}

    asyncio.run(run())


def test_what_was_there_before_is_listened_at(bench: Bench) -> None:
    async def run() -> None:
        bench.attach("/run/netns/a", "old", publish=[publish(8500, 80)])
        async with following(bench.engine):
            assert is_listened_at(8500)
        assert not is_listened_at(8500)

    asyncio.run(run())


def test_a_port_that_somebody_has_is_left_to_him_until_he_goes(bench: Bench) -> None:
    async def run() -> None:
        with socket.socket(socket.AF_INET6) as holder:
            holder.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            holder.bind(("::", 8500))
            async with following(bench.engine) as feed:
                bench.attach("/run/netns/a", "old", publish=[publish(8500, 80), publish(8501, 80)])
                assert feed.problems == {"[::]:8500/tcp": "Address already in use"}
                assert is_listened_at(8501)
                holder.close()
                bench.attach("/run/netns/b", "old")
                assert feed.problems == {}
                assert is_listened_at(8500)

    asyncio.run(run())


@pytest.mark.parametrize("more", [0, 1])
def test_so_many_ports_and_no_more(bench: Bench, monkeypatch: pytest.MonkeyPatch, more: int) -> None:
    monkeypatch.setattr(relays, "PORTS_MAX", 3)

    async def run() -> None:
        async with following(bench.engine) as feed:
            bench.attach("/run/netns/a", "old", publish=[publish(8500, 80, count=3 + more)])
            assert [is_listened_at(8500 + n) for n in range(3 + more)] == [True] * 3 + [False] * more
            assert list(feed.problems) == ["others"] * more

    asyncio.run(run())
