"""Laws of failure: whatever raises below, and whenever, records and intent stay one, and an answer is true."""

import errno
from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

from harness.engines import Bench, publish
from sealane.engine.errors import SealaneError
from sealane.kernel.state import HOST
from sealane.wire.requests import DetachRequest

SANDBOXES = [f"/run/netns/{name}" for name in "abc"]
METHODS = ["apply", "forget_flows"]
ERRORS = [OSError(errno.EMFILE, "Too many open files"), RuntimeError("a bug")]

Fault = tuple[str, Exception, int]
Step = tuple[str, str, Fault | None]

faults = st.tuples(st.sampled_from(METHODS), st.sampled_from(ERRORS), st.integers(0, 7))
steps = st.tuples(
    st.sampled_from(["attach", "detach"]), st.sampled_from(SANDBOXES), st.one_of(st.none(), faults)
)


def do(bench: Bench, verb: str, sandbox: str) -> None:
    if verb == "attach":
        bench.attach(sandbox, publish=[publish(5300 + SANDBOXES.index(sandbox), 53, proto="udp")])
    else:
        bench.engine.detach([DetachRequest(sandbox=sandbox)])


def in_store(bench: Bench) -> set[str]:
    return {record.id for record in bench.store.snapshot().records}


def in_intent(bench: Bench) -> set[str]:
    intent = bench.engine.intent
    return {r.id for group in (intent.networks, intent.sandboxes, intent.endpoints) for r in group.values()}


def veths(bench: Bench) -> int:
    return sum(key[0] == "link" and item.kind.is_pair for key, item in bench.kernel.state[HOST].items())


@given(st.lists(steps, max_size=6))
def test_whatever_raises_records_and_intent_are_one_and_answers_are_true(done: list[Step]) -> None:
    bench = Bench()
    bench.network("front")
    for verb, sandbox, fault in done:
        if fault is not None:
            method, error, after = fault
            bench.kernel.raise_from(method, error, after=after)
        with suppress(SealaneError, RuntimeError):
            do(bench, verb, sandbox)
        bench.kernel.heal()
        assert in_store(bench) == in_intent(bench)
        compiled = bench.engine.reconciler.compiled
        assert all(compiled.places(unit) for unit in bench.engine.reconciler.failures)
        assert bench.resyncer.repairs >= 0
    bench.resyncer.resync({HOST, *bench.engine.intent.sandboxes})
    bench.resyncer.resync({HOST, *bench.engine.intent.sandboxes})
    assert bench.engine.reconciler.failures == {}
    assert veths(bench) == len(bench.engine.intent.endpoints)
    for sandbox in SANDBOXES:
        do(bench, "attach", sandbox)
    assert [endpoint.state for endpoint in bench.engine.endpoints()] == ["up"] * len(SANDBOXES)
    assert veths(bench) == len(SANDBOXES)
    assert bench.is_clean()
