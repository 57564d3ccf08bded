"""When the integration looks for namespaces that are awaited, and when it stops."""

from collections.abc import Callable
from typing import Any

import pytest

from harness.engines import Bench
from sealane.integrations.cnm.integration import (
    GIVE_UP_OLD_S,
    GIVE_UP_S,
    LOOK_FIRST_S,
    LOOK_LAST_S,
    Integration,
)
from sealane.wire.requests import NetworkRequest, StagedRequest, SubnetRequest

KEY = "/run/docker/netns/1"


class Loop:
    """Timers that a test fires."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[tuple[float, Callable[[], None]]] = []

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Any:
        entry = (seconds, callback)
        self.timers.append(entry)

        class Handle:
            @staticmethod
            def cancel() -> None:
                if entry in self.timers:
                    self.timers.remove(entry)

        return Handle()

    def fire(self) -> float:
        """Let the one timer run out; how long it was."""
        ((seconds, callback),) = self.timers
        self.timers.clear()
        self.now += seconds
        callback()
        return seconds


class Rig:
    def __init__(self) -> None:
        self.bench, self.loop = Bench(), Loop()
        self.bench.kernel.absent.add(KEY)
        self.integration = Integration(self.bench.engine, self.loop, lambda: self.loop.now)  # type: ignore[arg-type]
        self.staged = self.integration._routes.staged
        self.staged.create_network(
            NetworkRequest(name="front", subnets=[SubnetRequest(prefix="10.1.0.0/24")]), "network"
        )
        self.loop.fire()

    def join(self) -> None:
        self.staged.create(StagedRequest(id="web", network="front", name="web"))
        self.staged.join("web", KEY, "docker-1", {}, without_gateway=False)


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_with_nothing_awaited_it_does_not_look(rig: Rig) -> None:
    assert rig.loop.timers == []


def test_a_namespace_is_found_when_it_comes(rig: Rig) -> None:
    rig.join()
    assert rig.loop.fire() == LOOK_FIRST_S
    assert rig.loop.fire() == 2 * LOOK_FIRST_S, "and it looks less and less often"
    rig.bench.kernel.absent.clear()
    rig.loop.fire()
    assert rig.loop.timers == []
    (sandbox,) = rig.bench.engine.intent.sandboxes.values()
    assert sandbox.netns is not None


def test_one_that_never_comes_is_given_up(rig: Rig) -> None:
    rig.join()
    pauses = []
    while rig.loop.timers:
        pauses.append(rig.loop.fire())
    assert max(pauses) == LOOK_LAST_S
    assert GIVE_UP_S <= rig.loop.now <= GIVE_UP_S + 2 * LOOK_LAST_S
    assert not rig.bench.engine.intent.sandboxes
    assert "web" not in rig.bench.engine.intent.endpoints


def test_one_that_was_awaited_before_the_daemon_began_is_given_up_sooner(rig: Rig) -> None:
    """Its container may have been stopped while nobody was told, and wants its address again."""
    rig.join()
    rig.bench.restart()
    begun = rig.loop.now
    rig.integration.serve(rig.bench.engine)
    while rig.loop.timers:
        rig.loop.fire()
    assert GIVE_UP_OLD_S <= rig.loop.now - begun <= GIVE_UP_OLD_S + 2 * LOOK_LAST_S
    assert "web" not in rig.bench.engine.intent.endpoints


def test_another_engine_is_served_when_the_store_is_back(rig: Rig) -> None:
    rig.join()
    rig.bench.restart()
    rig.integration.serve(rig.bench.engine)
    rig.bench.kernel.absent.clear()
    rig.loop.fire()
    assert next(iter(rig.bench.engine.intent.sandboxes.values())).netns is not None


def test_an_engine_that_holds_is_asked_again(rig: Rig) -> None:
    rig.join()
    rig.bench.kernel.absent.clear()
    rig.bench.engine.hold = "the store is full"
    rig.loop.fire()
    rig.bench.engine.hold = ""
    rig.loop.fire()
    assert rig.staged.awaited() == []
