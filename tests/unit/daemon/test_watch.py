"""What the daemon does about notifications when something fails in between."""

import errno
from collections.abc import Callable

import pytest

from harness.engines import Bench
from sealane.daemon.watch import GATHER_S, LOOK_SHARE, RETRY_S, DriftWatcher
from sealane.engine.errors import StoreFailedError
from sealane.kernel.objects import Sysctl
from sealane.kernel.state import HOST
from sealane.linux.monitor import Dirty

INTERRUPTED = OSError(errno.EINTR, "the kernel's tables changed during each of 10 dumps")


class Timer:
    def __init__(self, loop: "Loop", due: tuple[float, Callable[[], None]]) -> None:
        self._loop, self._due = loop, due

    def cancel(self) -> None:
        if self._due in self._loop.waiting:
            self._loop.waiting.remove(self._due)


class Loop:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.waiting: list[tuple[float, Callable[[], None]]] = []
        self.now = 0.0

    def time(self) -> float:
        self.now += 0.001
        return self.now

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        due = (seconds, callback)
        self.waiting.append(due)
        return Timer(self, due)

    def names(self) -> list[str]:
        return [callback.__name__ for _, callback in self.waiting]

    def run(self) -> None:
        due, self.waiting = self.waiting, []
        for _, callback in due:
            callback()


class Monitor:
    def __init__(self) -> None:
        self.dirty = Dirty()
        self.ignored_families: tuple[str, ...] = ()

    def read(self, _: set[str]) -> Dirty:
        return self.dirty


@pytest.fixture
def bench() -> Bench:
    bench = Bench()
    bench.network("front")
    bench.attach("/run/netns/a")
    return bench


@pytest.fixture
def loop() -> Loop:
    return Loop()


@pytest.fixture
def watch(bench: Bench, loop: Loop) -> DriftWatcher:
    return DriftWatcher(bench.engine, bench.resyncer, bench.kernel, Monitor(), loop)  # type: ignore[arg-type]


def test_looks_that_find_nothing_take_a_tenth_of_the_time(
    bench: Bench, watch: DriftWatcher, loop: Loop
) -> None:
    watch._monitor.dirty = Dirty(host="link")
    watch._events()
    assert [seconds for seconds, _ in loop.waiting] == [GATHER_S], "the first is made at once"
    loop.run()
    watch._events()
    (pause,) = [seconds for seconds, _ in loop.waiting]
    assert pause > 0.001 * (LOOK_SHARE - 3), "one that took a millisecond"
    bench.kernel.state[HOST].clear()
    loop.run()
    loop.now += 1.0
    watch._events()
    assert [seconds for seconds, _ in loop.waiting] == [GATHER_S], "one that repairs is followed at once"


def test_what_is_dirty_is_healed_though_facts_cannot_be_read(
    bench: Bench, watch: DriftWatcher, loop: Loop
) -> None:
    watch._monitor.dirty = Dirty(host="link", facts="route")
    bench.kernel.state[HOST].clear()
    bench.kernel.raise_from("facts", INTERRUPTED)
    watch._events()
    assert loop.names() == ["_heal", "_refresh_facts"]
    loop.run()
    assert bench.is_clean()


def test_who_asks_again_and_again_has_one_timer_a_purpose(
    bench: Bench, watch: DriftWatcher, loop: Loop
) -> None:
    """Polls go on meanwhile, and each of them fails as well."""
    bench.kernel.raise_from("facts", INTERRUPTED)
    for _ in range(10):
        watch._poll()
    assert sorted(loop.names()) == ["_poll", "_refresh_facts"]
    watch._monitor.filenos = list  # type: ignore[attr-defined]
    watch.stop()
    assert loop.waiting == []


def test_facts_that_cannot_be_read_are_asked_for_again(bench: Bench, watch: DriftWatcher, loop: Loop) -> None:
    bench.kernel.raise_from("facts", INTERRUPTED)
    watch._refresh_facts()
    assert [(seconds, callback.__name__) for seconds, callback in loop.waiting] == [
        (RETRY_S, "_refresh_facts")
    ]
    loop.run()
    assert loop.waiting == []


@pytest.mark.parametrize("error", [INTERRUPTED, StoreFailedError("the store is full")])
def test_verifying_goes_on_after_a_failure(
    bench: Bench, watch: DriftWatcher, loop: Loop, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: int) -> bool:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(bench.resyncer, "verify_some", fail)
        watch._verify()
    assert loop.names() == ["_verify"]
    loop.run()
    assert loop.waiting == []


def test_a_sandbox_that_waits_to_be_looked_at_waits_once(bench: Bench, watch: DriftWatcher) -> None:
    for _ in range(3):
        watch._full_look()
    assert list(bench.resyncer.unverified) == list(bench.engine.intent.sandboxes)


@pytest.mark.parametrize("answer", [True, False, OSError(errno.EPERM, "Operation not permitted")])
def test_what_publishes_on_loopback_is_looked_at_and_the_host_after_it(
    bench: Bench, watch: DriftWatcher, monkeypatch: pytest.MonkeyPatch, answer: bool | OSError
) -> None:
    def repair() -> bool:
        if isinstance(answer, OSError):
            raise answer
        return answer

    monkeypatch.setattr(bench.kernel, "repair", repair)
    bench.kernel.state[HOST].clear()
    watch._full_look()
    assert bench.is_clean()


@pytest.mark.parametrize("failure", [None, OSError(errno.EPERM, "bpf")])
def test_a_poll_says_that_the_fast_path_is_open_and_goes_on_if_it_cannot(
    bench: Bench, watch: DriftWatcher, monkeypatch: pytest.MonkeyPatch, failure: OSError | None
) -> None:
    said = []

    def renew() -> None:
        said.append(True)
        if failure is not None:
            raise failure

    monkeypatch.setattr(bench.kernel, "renew", renew)
    key, setting = next((k, v) for k, v in bench.kernel.state[HOST].items() if isinstance(v, Sysctl))
    bench.kernel.state[HOST][key] = Sysctl(path=setting.path, value="7")
    watch._poll()
    assert said == [True]
    assert bench.kernel.state[HOST][key] == setting
