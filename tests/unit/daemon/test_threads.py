"""Who waits keeps nobody from working."""

import asyncio
import threading

import pytest

from sealane.daemon.threads import BlockingCalls, workers
from sealane.limits import WORKERS_MAX
from unit.daemon.recording import Daemon, container


def test_an_error_is_the_callers() -> None:
    with pytest.raises(ZeroDivisionError):
        asyncio.run(BlockingCalls().call(lambda: 1 // 0))


def test_who_gives_up_leaves_the_call_to_itself() -> None:
    gate = threading.Event()

    async def run() -> None:
        waiters = BlockingCalls(1)
        task = asyncio.create_task(waiters.call(gate.wait, 60))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await waiters.call(lambda: 7) == 7, "his place is free"
        gate.set()
        await asyncio.sleep(0.05)

    asyncio.run(run())


def test_a_loop_that_has_ended_is_told_nothing() -> None:
    gate = threading.Event()

    async def run() -> None:
        task = asyncio.create_task(BlockingCalls().call(gate.wait, 60))
        await asyncio.sleep(0.05)
        task.cancel()

    asyncio.run(run())
    before = threading.excepthook
    problems: list[object] = []
    threading.excepthook = problems.append
    try:
        gate.set()
        for thread in threading.enumerate():
            if thread.name == "sealane-waiter":
                thread.join(100)
    finally:
        threading.excepthook = before
    assert problems == []


def test_containers_that_take_their_time_to_stop_keep_nobody_from_a_kill() -> None:
    daemon = Daemon()
    daemon.bench.network("front")
    names = [f"c{number}" for number in range(WORKERS_MAX * 2)]
    ended = threading.Event()
    daemon.runtime.stop = lambda _identity, _timeout: ended.wait(60)
    daemon.runtime.kill = lambda _identity, _signal: ended.set()

    async def run() -> None:
        asyncio.get_running_loop().set_default_executor(workers())
        for name in names:
            await daemon.workloads.create(container(name, "front"))
        stops = [asyncio.create_task(daemon.workloads.stop(name)) for name in names]
        await asyncio.sleep(0.1)
        await asyncio.wait_for(daemon.workloads.kill(names[0], 9), 100)
        await asyncio.gather(*stops)

    asyncio.run(run())
