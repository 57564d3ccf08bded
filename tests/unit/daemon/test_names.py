"""When names come into force: gathered for longer the more work the last ones were, and never for what others did."""

import time
from collections.abc import Callable, Iterable

import pytest

from harness.engines import Bench
from sealane.daemon.names import GATHER_MAX_S, GATHER_MIN_S, NameFeed
from sealane.dns.records import ZoneNetwork


class Loop:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.waiting: list[tuple[float, Callable[[], None]]] = []

    def call_later(self, seconds: float, callback: Callable[[], None]) -> object:
        self.waiting.append((seconds, callback))
        return object()

    def run(self) -> float:
        """The one timer there is; return how long it was to wait."""
        ((seconds, callback),) = self.waiting
        self.waiting.clear()
        callback()
        return seconds


class Server:
    """Notes what it is given, and takes its time over it."""

    def __init__(self) -> None:
        self.names: dict[str, list[str]] = {}
        self.work: Callable[[], None] = lambda: None

    def update(self, changed: Iterable[ZoneNetwork], removed: Iterable[str]) -> None:
        self.work()
        for network in changed:
            self.names[network.name] = [name for member in network.members for name in member.names]


@pytest.fixture
def bench() -> Bench:
    bench = Bench()
    bench.network("front")
    return bench


@pytest.fixture
def loop() -> Loop:
    return Loop()


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture(autouse=True)
def feed(bench: Bench, server: Server, loop: Loop) -> NameFeed:
    return NameFeed(bench.engine, server, loop)  # type: ignore[arg-type]


def test_changes_of_one_moment_are_one_update(bench: Bench, server: Server, loop: Loop) -> None:
    bench.attach("/run/netns/a", name="a")
    bench.attach("/run/netns/b", name="b")
    assert server.names == {}
    assert loop.run() == GATHER_MIN_S
    assert sorted(server.names["front"]) == ["a", "b"]


def test_work_makes_the_next_ones_wait(bench: Bench, server: Server, loop: Loop) -> None:
    def compute() -> None:
        begun = time.thread_time()
        while time.thread_time() - begun < GATHER_MAX_S / 10:
            pass

    server.work = compute
    bench.attach("/run/netns/a")
    loop.run()
    bench.attach("/run/netns/b")
    assert loop.run() == GATHER_MAX_S


def test_what_others_do_meanwhile_makes_nobody_wait(bench: Bench, server: Server, loop: Loop) -> None:
    """On a busy machine an update is interrupted for tens of milliseconds, and a name came half a second late."""
    server.work = lambda: time.sleep(GATHER_MAX_S / 10)
    bench.attach("/run/netns/a")
    loop.run()
    bench.attach("/run/netns/b")
    assert loop.run() < GATHER_MAX_S / 2
