"""How many traces there may be, how each ends, and what is said where packets cannot be followed."""

from __future__ import annotations

import asyncio
import threading
import time
from types import SimpleNamespace

import pytest

from sealane.daemon import traces as module
from sealane.daemon.traces import TRACES_MAX, Traces
from sealane.engine.errors import ExhaustedError, KernelError
from sealane.linux.tracing.tracer import TracingUnavailableError
from sealane.wire.diagnosis import TraceRequest, TraceView


class Follower:
    """Stands for the tracer: journeys are whatever is put into it."""

    open: list[Follower] = []

    def __init__(self, patterns, refs, signature=None):
        self.lost, self.blind = 0, []
        Follower.open.append(self)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        Follower.open.remove(self)

    def wait(self, timeout_s):
        time.sleep(0.005)

    def observed_paths(self, now_ns):
        return iter(range(Prepared.at_once))


class Prepared:
    patterns, refs, probe, probe_refs, signature = (), {}, None, {}, None
    at_once = 0
    agrees = True

    def __init__(self, engine, request, inode):
        self.request = request

    def view(self, observed_path, symbol):
        return TraceView(kind="path", minimal=str(observed_path), agrees=Prepared.agrees)

    def with_drift(self, engine, view):
        return TraceView(kind="end", notes=[*view.notes, "drift"])

    def end(self, told, lost, blind, observed):
        return TraceView(kind="end", notes=[f"{told} told"])


@pytest.fixture(autouse=True)
def doubles(monkeypatch):
    monkeypatch.setattr(module, "Tracing", Prepared)
    monkeypatch.setattr(module, "Tracer", Follower)
    monkeypatch.setattr(Prepared, "at_once", 0)
    Follower.open = []
    yield
    assert eventually(lambda: not Follower.open), "a follower is still on"


def eventually(condition, timeout_s=20.0):
    deadline = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    return condition()


def request(**fields):
    return TraceRequest(**{"source": "web", "target": "db:1", "mode": "live", "timeout": 60.0, **fields})


def collect(stream):
    async def run():
        return [view async for view in stream]

    return asyncio.run(run())


def test_it_ends_after_so_many(monkeypatch):
    """Also where more come at once."""
    monkeypatch.setattr(Prepared, "at_once", 5)
    views = collect(Traces(SimpleNamespace()).trace(request(count=3)))
    assert [view.minimal for view in views[:-1]] == ["0", "1", "2"]
    assert views[-1].notes == ["3 told"]


def test_it_ends_after_its_time():
    started = time.monotonic()
    (view,) = collect(Traces(SimpleNamespace()).trace(request(timeout=0.05)))
    assert view.notes == ["0 told", "drift"]
    assert time.monotonic() - started < 20


def test_so_many_at_once_and_no_more():
    async def run():
        traces = Traces(SimpleNamespace())
        streams = [traces.trace(request()) for _ in range(TRACES_MAX)]
        waiting = [asyncio.create_task(anext(stream)) for stream in streams]
        await asyncio.to_thread(eventually, lambda: len(Follower.open) == TRACES_MAX)
        with pytest.raises(ExhaustedError, match=f"{TRACES_MAX} traces are running"):
            await anext(traces.trace(request()))
        # One that ends makes room for one.
        waiting[0].cancel()
        await asyncio.gather(waiting[0], return_exceptions=True)
        await streams[0].aclose()
        again = [view async for view in traces.trace(request(timeout=0.02))]
        assert again[-1].kind == "end"
        traces.close()
        for task in waiting[1:]:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        for stream in streams:
            await stream.aclose()

    asyncio.run(run())


def test_a_client_that_leaves_ends_it():
    async def run():
        stream = Traces(SimpleNamespace()).trace(request())
        task = asyncio.create_task(anext(stream))
        await asyncio.to_thread(eventually, lambda: Follower.open)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await stream.aclose()

    asyncio.run(run())
    assert eventually(lambda: not Follower.open)


def test_where_packets_cannot_be_followed_it_is_said_and_costs_no_place(monkeypatch):
    def refuse(*_):
        raise TracingUnavailableError("packets cannot be followed: create map: Operation not permitted")

    monkeypatch.setattr(module, "Tracer", refuse)
    traces = Traces(SimpleNamespace())
    for _ in range(TRACES_MAX + 1):
        with pytest.raises(KernelError, match="Operation not permitted"):
            collect(traces.trace(request()))


def test_what_cannot_be_asked_costs_no_place(monkeypatch):
    def refuse(*_):
        raise ValueError("no")

    monkeypatch.setattr(module, "Tracing", refuse)
    traces = Traces(SimpleNamespace())
    for _ in range(TRACES_MAX + 1):
        with pytest.raises(ValueError, match="no"):
            collect(traces.trace(request()))


def test_followers_run_beside_the_loop(monkeypatch):
    """Each on a thread of its own, so that the daemon answers meanwhile."""
    names = []

    class Named(Follower):
        def wait(self, timeout_s):
            names.append(threading.current_thread().name)
            super().wait(timeout_s)

    monkeypatch.setattr(module, "Tracer", Named)
    collect(Traces(SimpleNamespace()).trace(request(timeout=0.02)))
    assert set(names) == {"sealane-stream"}


@pytest.mark.parametrize(
    ("at_once", "agrees", "tells"), [(0, True, True), (1, False, True), (1, True, False)]
)
def test_drift_is_looked_for_unless_all_went_as_predicted(monkeypatch, at_once, agrees, tells):
    monkeypatch.setattr(Prepared, "at_once", at_once)
    monkeypatch.setattr(Prepared, "agrees", agrees)
    views = collect(Traces(SimpleNamespace()).trace(request(timeout=0.02)))
    assert ("drift" in views[-1].notes) is tells
