"""Detaches that arrive together are one call of the engine, and each caller hears of its own."""

import asyncio

import pytest

from sealane.api.detach import Detacher
from sealane.engine.errors import ConflictError, StoreFailedError
from sealane.wire.requests import AttachRequest, DetachRequest, NetworkRequest
from unit.api.doubles import DoubleEngine


@pytest.fixture
def engine():
    engine = DoubleEngine()
    engine.create_network(NetworkRequest(name="n"))
    for name in ("a", "b", "c"):
        engine.attach(AttachRequest(sandbox=name, network="n"))
    return engine


def together(engine, *requests):
    async def run():
        detacher = Detacher(engine)
        answers = [detacher.submit([request]) for request in requests]
        return await asyncio.gather(*answers, return_exceptions=True)

    return asyncio.run(run())


def of(name):
    return DetachRequest(sandbox=name, network="n")


def test_one_turn_of_the_loop_is_one_call(engine):
    ids = {e.sandbox: e.id for e in engine.ends.values()}
    views = together(engine, of("a"), of("b"), of("gone"), of("c"))
    assert [view.detached for view in views] == [[ids["a"]], [ids["b"]], [], [ids["c"]]]
    assert len(engine.detach_calls) == 1
    assert not engine.ends


def test_the_same_endpoint_twice_is_detached_once_and_told_to_both(engine):
    first, second = together(engine, of("a"), of("a"))
    assert first == second
    assert len(engine.detach_calls[0]) == 1


def test_one_callers_mistake_is_not_the_others(engine):
    wrong, right = together(engine, DetachRequest(endpoint="ambiguous"), of("b"))
    assert isinstance(wrong, ConflictError)
    assert len(right.detached) == 1


def test_what_stops_the_engine_is_told_to_all(engine):
    def fail(_):
        raise StoreFailedError("disk")

    engine.detach = fail
    assert [type(e) for e in together(engine, of("a"), of("b"))] == [StoreFailedError] * 2


def test_a_caller_that_left_does_not_stop_the_others(engine):
    async def run():
        detacher = Detacher(engine)
        gone, there = detacher.submit([of("a")]), detacher.submit([of("b")])
        gone.cancel()
        return await there

    assert len(asyncio.run(run()).detached) == 1
    assert len(engine.ends) == 1


def test_later_turns_are_calls_of_their_own(engine):
    async def run():
        detacher = Detacher(engine)
        await detacher.submit([of("a")])
        await detacher.submit([of("b")])

    asyncio.run(run())
    assert len(engine.detach_calls) == 2
