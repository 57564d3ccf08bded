"""What becomes of a daemon whose store fails it at the start, or when it is tried again."""

from types import SimpleNamespace

import pytest

from sealane.daemon import service as module
from sealane.daemon.config import Config
from sealane.daemon.service import STORE_RETRY_S, Service
from sealane.engine.errors import KernelError, StoreFailedError
from sealane.store.base import StoreError
from sealane.store.memory import MemoryStore

FULL = StoreError("full", "state.db: database or disk is full")


class Clock:
    """A loop's, moved by hand."""

    def __init__(self) -> None:
        self.due: list[tuple[float, object]] = []

    def call_later(self, seconds: float, callback: object) -> None:
        self.due.append((seconds, callback))

    def run(self) -> None:
        due, self.due = self.due, []
        for seconds, callback in due:
            assert seconds == STORE_RETRY_S
            callback()


class Rig:
    def __init__(self, monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
        self.clock = Clock()
        self.opening: list[Exception | None] = []
        self.running: list[Exception | None] = []
        self.told: list[str] = []
        self.closed = 0
        config = Config(state_dir=str(tmp_path), run_dir=str(tmp_path / "run"))
        self.service = Service(config, self.clock)  # type: ignore[arg-type]
        self.service.rebuilt = lambda: self.told.append("rebuilt")
        monkeypatch.setattr(module, "claim", lambda: SimpleNamespace(close=lambda: None))
        monkeypatch.setattr(self.service, "_open_store", self.open)
        monkeypatch.setattr(self.service, "_run", self.run)
        monkeypatch.setattr(self.service, "_hold", self.hold)

    def open(self) -> MemoryStore:
        if (error := self.opening.pop(0)) is not None:
            raise error
        return MemoryStore()

    def run(self, _store: MemoryStore) -> None:
        self.service._closing.append(self.close)
        if (error := self.running.pop(0)) is not None:
            raise error
        self.told.append("runs")

    def hold(self, why: str) -> None:
        self.service.engine = SimpleNamespace(hold=why)  # type: ignore[assignment]
        self.told.append(f"holds: {why}")

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def rig(monkeypatch, tmp_path) -> Rig:
    return Rig(monkeypatch, tmp_path)


def test_a_store_that_is_well_is_run_at_once(rig: Rig) -> None:
    rig.opening, rig.running = [None], [None]
    rig.service.start()
    assert (rig.told, rig.clock.due) == (["runs"], [])


def test_one_that_cannot_be_read_is_tried_again(rig: Rig) -> None:
    rig.opening, rig.running = [FULL, FULL, None], [None]
    rig.service.start()
    rig.clock.run()
    rig.clock.run()
    assert rig.told == [f"holds: the store is full: {FULL}", "runs", "rebuilt"]
    assert rig.clock.due == []


@pytest.mark.parametrize("error", [FULL, StoreFailedError("the store could not be written: full")])
def test_one_that_cannot_be_written_at_the_start_is_let_go_and_tried_again(
    rig: Rig, error: Exception
) -> None:
    rig.opening, rig.running = [None, None], [error, None]
    rig.service.start()
    assert rig.told[0].startswith("holds: ")
    assert "full" in rig.told[0]
    assert rig.closed == 1, "what had been opened is closed"
    rig.clock.run()
    assert rig.told[1:] == ["runs", "rebuilt"]


@pytest.mark.parametrize("error", [FULL, KernelError("no"), OSError(24, "Too many open files")])
def test_who_fails_when_it_is_tried_again_holds_again(rig: Rig, error: Exception) -> None:
    rig.opening, rig.running = [FULL, None, None], [error, None]
    rig.service.start()
    rig.clock.run()
    assert rig.told[1].startswith("holds: ")
    assert rig.told[2] == "rebuilt", "the API serves the engine that holds"
    rig.clock.run()
    assert rig.told[3:] == ["runs", "rebuilt"]


def test_what_is_no_matter_of_the_store_ends_a_start(rig: Rig) -> None:
    rig.opening, rig.running = [None], [OSError(24, "Too many open files")]
    with pytest.raises(OSError, match="Too many"):
        rig.service.start()


def test_closing_what_cannot_be_closed_closes_the_rest(rig: Rig) -> None:
    rig.opening, rig.running = [None], [None]
    rig.service.start()

    def fail() -> None:
        raise RuntimeError

    rig.service._closing.append(fail)
    rig.service.stop()
    assert rig.closed == 1
