"""Each bound of `sealane.limits`, at the bound and one beyond.

Those of the API are asked of a real server with bounds that a test can reach: `tests/unit/api/test_server.py`.
"""

import asyncio
import threading
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from harness.engines import FACTS, Bench, publish, subnets
from sealane import limits
from sealane.daemon.threads import BlockingCalls, workers
from sealane.daemon.watch import DriftWatcher
from sealane.engine.errors import ExhaustedError, InvalidError
from sealane.engine.events import EventLog
from sealane.engine.resyncer import Resyncer
from sealane.http.connection import Bounds
from sealane.kernel.objects import Sysctl
from sealane.kernel.state import HOST
from sealane.limits import (
    ALIASES_PER_ENDPOINT,
    COMMIT_TRIES,
    CONNECTIONS_MAX,
    EPHEMERAL_TRIES,
    EVENT_CHARS_MAX,
    EVENTS_KEPT,
    FEED_CHANGES_KEPT,
    FULL_LOOK_S,
    PUBLISHES_PER_ENDPOINT,
    RANGE_PORTS_MAX,
    RECONCILE_ROUNDS,
    REPAIR_BURST,
    REPAIR_PAUSE_S,
    REQUEST_BYTES_MAX,
    SUBNETS_PER_NETWORK,
    SYSCTL_POLL_S,
    WAITERS_MAX,
    WORKERS_MAX,
)
from sealane.linux.fake import FakeKernel
from sealane.wire.requests import PublishRequest
from unit.api import test_server
from unit.engine.test_feed import TestReaders
from unit.engine.test_store_conflicts import TestAnotherWriter

A, B = "/run/netns/a", "/run/netns/b"


@pytest.fixture
def bench() -> Bench:
    made = Bench()
    made.network("front", subnets=subnets("10.1.0.0/24"))
    return made


def test_no_bound_is_forgotten_here() -> None:
    bounds = {name for name in vars(limits) if name.isupper()}
    assert bounds == {name for name in bounds if name in globals()}
    assert len(bounds) > 10


# --- requests -------------------------------------------------------------------------------------------------------


def test_the_ports_of_a_shifted_range(bench: Bench) -> None:
    bench.attach(A, publish=[publish(20000, 10000, count=RANGE_PORTS_MAX)])
    with pytest.raises(InvalidError, match=f"at most {RANGE_PORTS_MAX} ports") as refusal:
        bench.attach(B, publish=[publish(30000, 10000, count=RANGE_PORTS_MAX + 1)])
    assert refusal.value.field == "publish[0]"
    bench.attach(B, publish=[publish(30000, 30000, count=RANGE_PORTS_MAX + 1)])


def test_the_publishes_of_an_endpoint(bench: Bench) -> None:
    ports = [publish(1000 + n, 80) for n in range(PUBLISHES_PER_ENDPOINT + 1)]
    with pytest.raises(InvalidError, match=f"at most {PUBLISHES_PER_ENDPOINT} publishes") as refusal:
        bench.attach(A, publish=ports)
    assert refusal.value.field == "publish"
    assert not bench.engine.endpoints()
    assert len(bench.attach(A, publish=ports[:-1]).ports) == PUBLISHES_PER_ENDPOINT


def test_the_aliases_of_an_endpoint(bench: Bench) -> None:
    """The same alias twice is one."""
    aliases = [f"a{n}" for n in range(ALIASES_PER_ENDPOINT + 1)]
    with pytest.raises(InvalidError, match=f"at most {ALIASES_PER_ENDPOINT} aliases") as refusal:
        bench.attach(A, aliases=aliases)
    assert refusal.value.field == "aliases"
    assert bench.attach(A, aliases=[*aliases[:-1], "a0"]).aliases == aliases[:-1]


def test_the_subnets_of_a_network(bench: Bench) -> None:
    asked = subnets("10.2.0.0/24", "fd02::/64", "10.3.0.0/24")
    with pytest.raises(InvalidError, match="at most one subnet a family") as refusal:
        bench.network("back", subnets=asked)
    assert refusal.value.field == "subnets"
    assert len(bench.network("back", subnets=asked[:-1]).subnets) == SUBNETS_PER_NETWORK


@pytest.mark.parametrize("held", [EPHEMERAL_TRIES - 1, EPHEMERAL_TRIES])
def test_the_candidates_for_an_ephemeral_port(bench: Bench, held: int) -> None:
    """The last one that is tried is free, or the first one that is not."""
    first = 10000
    for number in range(first, first + held):
        bench.kernel.port_users["tcp", number] = "another (pid 1)"
    anywhere = PublishRequest(host_first=first, host_last=first + 2 * EPHEMERAL_TRIES, port=80, one_of=True)
    if held < EPHEMERAL_TRIES:
        assert bench.attach(A, publish=[anywhere]).ports == [f"*:{first + held}->80/tcp"]
        return
    with pytest.raises(ExhaustedError, match="no free host port") as refusal:
        bench.attach(A, publish=[anywhere])
    assert refusal.value.field == "publish[0]"


@pytest.mark.parametrize(
    ("value", "bound", "test"),
    [
        (
            Bounds().body_bytes,
            REQUEST_BYTES_MAX,
            test_server.test_a_body_of_the_greatest_length_is_read_and_one_more_is_not,
        ),
        (
            Bounds().connections,
            CONNECTIONS_MAX,
            test_server.test_one_connection_too_many_is_turned_away_and_the_others_live,
        ),
    ],
    ids=["body", "connections"],
)
def test_the_bounds_of_the_api_are_those_that_its_server_tests_reach(
    value: int, bound: int, test: Callable[..., None]
) -> None:
    assert value == bound
    assert callable(test)


# --- what is kept ---------------------------------------------------------------------------------------------------


def test_the_events_that_are_kept() -> None:
    log = EventLog(lambda: 0.0)
    for number in range(EVENTS_KEPT):
        log.emit("test", str(number))
    assert [e.number for e in log.since(0)] == list(range(1, EVENTS_KEPT + 1))
    log.emit("test", "one more")
    assert [e.number for e in log.since(0)] == list(range(2, EVENTS_KEPT + 2))


def test_the_changes_that_are_kept_and_the_tries_of_a_commit() -> None:
    """Reached by tests/unit/engine/test_feed.py and test_store_conflicts.py."""
    assert callable(TestReaders.test_it_is_bounded_and_a_slow_reader_is_told_that_it_missed_some)
    assert callable(TestAnotherWriter.test_one_that_never_stops_is_refused_after_some_tries)
    assert (FEED_CHANGES_KEPT, COMMIT_TRIES) == (16_384, 5)


def test_the_characters_of_an_event() -> None:
    log = EventLog(lambda: 0.0)
    whole, longer = "x" * EVENT_CHARS_MAX, "x" * (EVENT_CHARS_MAX + 1)
    log.emit("test", whole, error=whole, other="short")
    log.emit("test", longer, error=longer)
    kept, clipped = log.since(0)
    assert (kept.subject, kept.detail) == (whole, {"error": whole, "other": "short"})
    assert clipped.subject == clipped.detail["error"] == f"{'x' * (EVENT_CHARS_MAX - 1)}…"


# --- repair ---------------------------------------------------------------------------------------------------------


class Undone(FakeKernel):
    """Somebody takes one object away after each of the next `undoes` repairs."""

    undoes = 0
    rounds = 0

    def apply(self, plan, refs):  # type: ignore[no-untyped-def]
        failures = super().apply(plan, refs)
        self.rounds += 1
        if self.undoes:
            self.undoes -= 1
            self.take_one()
        return failures

    def take_one(self) -> None:
        take_one(self)


def take_one(kernel: FakeKernel) -> None:
    key = next(key for key in kernel.state[HOST] if key[0] == "address")
    del kernel.state[HOST][key]


@pytest.mark.parametrize("undoes", [RECONCILE_ROUNDS - 1, RECONCILE_ROUNDS])
def test_the_rounds_of_one_resync(undoes: int) -> None:
    """What is put right in the last round is right; what is undone after it is left to the next resync."""
    kernel = Undone(FACTS)
    bench = Bench(kernel)
    bench.network("front")
    kernel.take_one()
    kernel.rounds, kernel.undoes = 0, undoes
    bench.resyncer.resync({HOST})
    assert kernel.rounds == RECONCILE_ROUNDS
    assert bench.is_clean() == (undoes < RECONCILE_ROUNDS)
    bench.resyncer.resync({HOST})
    assert bench.is_clean()


def test_the_repairs_in_a_row_and_the_pause_after_them(bench: Bench) -> None:
    now = 100.0
    resyncer = Resyncer(bench.engine, clock=lambda: now)
    bench.network("front")
    for _ in range(REPAIR_BURST):
        assert resyncer.repair_delay() == 0.0
        take_one(bench.kernel)
        resyncer.resync({HOST})
    assert resyncer.repair_delay() == REPAIR_PAUSE_S
    now += REPAIR_PAUSE_S - 0.001
    assert resyncer.repair_delay() == REPAIR_PAUSE_S
    now += 0.001
    assert resyncer.repair_delay() == 0.0


def test_looks_that_find_nothing_to_repair_are_no_fight(bench: Bench) -> None:
    resyncer = Resyncer(bench.engine, clock=lambda: 100.0)
    bench.network("front")
    for _ in range(2 * REPAIR_BURST):
        resyncer.resync({HOST})
    assert resyncer.repair_delay() == 0.0


# --- looks ----------------------------------------------------------------------------------------------------------


class Loop:
    """An event loop's clock, turned by hand."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[tuple[float, Callable[[], None]]] = []

    def call_later(self, seconds: float, callback: Callable[[], None]) -> SimpleNamespace:
        timer = self.now + seconds, callback
        self.timers.append(timer)
        return SimpleNamespace(cancel=lambda: timer in self.timers and self.timers.remove(timer))

    def turn_to(self, now: float) -> None:
        while due := [timer for timer in self.timers if timer[0] <= now]:
            timer = min(due, key=lambda t: t[0])
            self.timers.remove(timer)
            self.now = timer[0]
            timer[1]()
        self.now = now


class Silent:
    """A monitor that the kernel tells nothing."""

    def filenos(self) -> tuple[int, ...]:
        return ()


@pytest.fixture
def loop(bench: Bench) -> Loop:
    made = Loop()
    DriftWatcher(bench.engine, bench.resyncer, bench.kernel, Silent(), made).start()  # type: ignore[arg-type]
    return made


@pytest.mark.parametrize("period", [1, 2])
def test_sysctls_are_looked_at_once_a_period(bench: Bench, loop: Loop, period: int) -> None:
    key, setting = next((k, v) for k, v in bench.kernel.state[HOST].items() if isinstance(v, Sysctl))
    loop.turn_to((period - 0.5) * SYSCTL_POLL_S)
    bench.kernel.state[HOST][key] = Sysctl(path=setting.path, value="7")
    loop.turn_to(period * SYSCTL_POLL_S - 0.01)
    assert not bench.is_clean()
    loop.turn_to(period * SYSCTL_POLL_S)
    assert bench.is_clean()


@pytest.mark.parametrize("period", [1, 2])
def test_everything_is_looked_at_once_a_period(bench: Bench, loop: Loop, period: int) -> None:
    loop.turn_to((period - 0.5) * FULL_LOOK_S)
    key = next(key for key in bench.kernel.state[HOST] if key[0] == "address")
    del bench.kernel.state[HOST][key]
    loop.turn_to(period * FULL_LOOK_S - 0.01)
    assert not bench.is_clean()
    loop.turn_to(period * FULL_LOOK_S)
    assert bench.is_clean()


# --- threads --------------------------------------------------------------------------------------------------------


async def at_once(call, most: int) -> tuple[int, list[int]]:
    """How many of `most` + 1 blocking calls run together; and what all answer in the end."""
    gate, running = threading.Event(), threading.Semaphore(0)

    def block(number: int) -> int:
        running.release()
        assert gate.wait(60)
        return number

    tasks = [asyncio.create_task(call(block, number)) for number in range(most + 1)]
    begun = 0
    while await asyncio.to_thread(running.acquire, True, 5 if begun < most else 0.2):
        begun += 1
    gate.set()
    return begun, list(await asyncio.gather(*tasks))


@pytest.mark.parametrize("most", [1, 40, WAITERS_MAX])
def test_the_containers_whose_end_is_waited_for(most: int) -> None:
    begun, answers = asyncio.run(at_once(BlockingCalls(most).call, most))
    assert (begun, answers) == (most, list(range(most + 1)))


def test_the_blocking_calls_at_once() -> None:
    with workers() as pool:

        async def run() -> tuple[int, list[int]]:
            loop = asyncio.get_running_loop()

            async def call(*words):
                return await loop.run_in_executor(pool, *words)

            return await at_once(call, WORKERS_MAX)

        begun, answers = asyncio.run(run())
    assert (begun, answers) == (WORKERS_MAX, list(range(WORKERS_MAX + 1)))
