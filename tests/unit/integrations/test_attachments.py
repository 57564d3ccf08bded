"""The index of what others attached says what a look at all endpoints would say, whatever has happened."""

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from harness.engines import Bench
from sealane.integrations.attachments import Attachments
from sealane.wire.requests import DetachRequest

LABEL = "sealane.test.container"
CONTAINERS, BOXES = ("c1", "c2", ""), ("one", "two", "three")


def opened(bench: Bench) -> Attachments:
    async def detach(requests):
        await asyncio.sleep(0)
        return bench.engine.detach(requests)

    return Attachments(bench.engine, detach, LABEL)


def seen(bench: Bench, container: str) -> set[str]:
    return {e.id for e in bench.engine.intent.endpoints.values() if e.labels.get(LABEL) == container}


STEPS = st.one_of(
    st.tuples(st.just("attach"), st.sampled_from(BOXES), st.sampled_from(CONTAINERS)),
    st.tuples(st.just("detach"), st.sampled_from(BOXES), st.just("")),
    st.tuples(st.just("remove"), st.just(""), st.sampled_from(CONTAINERS)),
    st.tuples(st.just("release"), st.sampled_from(BOXES), st.just("")),
    st.tuples(st.just("restart"), st.just(""), st.just("")),
)


@settings(deadline=None)
@given(st.lists(STEPS, max_size=12))
def test_the_index_is_what_a_look_at_all_would_find(steps):
    bench = Bench()
    bench.network("front")
    bench.network("back")
    attachments = opened(bench)
    for step, box, container in steps:
        if step == "attach":
            for network in ("front", "back"):
                if not any(e.network == network and e.sandbox == box for e in bench.engine.endpoints()):
                    labels = {LABEL: container} if container else {}
                    bench.attach(f"/run/netns/{box}", network, labels=labels, sandbox_name=box)
        elif step == "detach":
            bench.engine.detach([DetachRequest(sandbox=f"/run/netns/{box}")])
        elif step == "remove":
            asyncio.run(attachments.remove(attachments.of(container)))
            assert attachments.of(container) == []
        elif step == "release":
            bench.engine.release([s.id for s in bench.engine.sandboxes() if s.name == box], "it died")
        else:
            bench.restart()
            attachments = opened(bench)
        for each in CONTAINERS:
            assert {e.id for e in attachments.of(each)} == (seen(bench, each) if each else set())
        for network in ("front", "back"):
            marked = {e.id for e in bench.engine.intent.endpoints.values() if LABEL in e.labels}
            there = {e.id for e in bench.engine.endpoints(network=network)}
            assert {e.id for e in attachments.on(network)} == marked & there
    assert attachments.on("nowhere") == []


def test_who_comes_while_they_are_going_waits():
    bench = Bench()
    bench.network("front")
    bench.attach("/run/netns/one", labels={LABEL: "c1"})
    order = []

    async def scene():
        attachments = opened(bench)
        going = asyncio.ensure_future(attachments.remove(attachments.of("c1")))
        await asyncio.sleep(0)
        still = attachments.of("c1")
        await attachments.settled(still)
        order.append(attachments.of("c1"))
        await going

    asyncio.run(scene())
    assert order == [[]]


def test_a_removal_that_fails_is_its_callers_and_what_could_not_go_is_there():
    bench = Bench()
    bench.network("front")
    bench.attach("/run/netns/one", labels={LABEL: "c1"})

    async def refuse(_):
        await asyncio.sleep(0)
        raise RuntimeError("the disk is full")

    async def scene():
        attachments = Attachments(bench.engine, refuse, LABEL)
        going = asyncio.ensure_future(attachments.remove(attachments.of("c1")))
        await asyncio.sleep(0)
        await attachments.settled(attachments.of("c1"))
        assert len(attachments.of("c1")) == 1
        try:
            await going
        except RuntimeError as error:
            return str(error)
        return ""

    assert asyncio.run(scene()) == "the disk is full"
