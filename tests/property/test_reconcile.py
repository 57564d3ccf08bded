"""Laws of the difference and the plan (style.md §5.7, 2, 3, 5, 6 and 8), on a kernel that enforces references."""

from hypothesis import given, settings
from hypothesis import strategies as st

from harness.engines import FACTS, Bench
from property.strategies_intent import intents
from sealane.compile.host import compile_host
from sealane.kernel.nft import Chain, Element, Set, Table
from sealane.kernel.objects import Link, Route, Sysctl
from sealane.kernel.state import HOST, HostState
from sealane.linux.fake import FakeKernel
from sealane.model.endpoint import NetnsRef
from sealane.model.intent import Intent
from sealane.reconcile.diff import diff
from sealane.reconcile.order import PUBLISHING, first_veths, order
from sealane.reconcile.ownership import is_deletable

ROUNDS = 3
"""A link that is made anew takes one round to go and one to come; the third finds nothing."""


def refs(*intents: Intent) -> dict[str, NetnsRef]:
    return {s.id: s.netns for intent in intents for s in intent.sandboxes.values() if s.netns}


def desired(state: HostState):
    return {netns: dict(items) for netns, items in state.items() if items}


def observed(kernel: FakeKernel, names) -> dict:
    """Everything, sysctls included: nothing is ever said of ones that nobody wants."""
    result = {}
    for netns in names:
        there = kernel.state.get(netns, {})
        result[netns] = kernel.observe(netns, None, there)
    return result


def converge(kernel: FakeKernel, desired: HostState, found: dict[str, NetnsRef]) -> list:
    names = {HOST, *found}
    failures = []
    for _ in range(ROUNDS):
        differences = diff(desired, observed(kernel, names))
        if not differences:
            return failures
        failures = kernel.apply(order(differences), found)
        if failures:
            return failures
    assert not diff(desired, observed(kernel, names)), "the plan does not lead to what is desired"
    return failures


def in_force(kernel: FakeKernel, desired: HostState) -> None:
    for netns, items in desired.items():
        for key, item in items.items():
            assert kernel.state[netns][key] == item or isinstance(item, Link | Chain)
    for netns, items in kernel.state.items():
        extra = {k: v for k, v in items.items() if k not in desired.get(netns, {}) and is_deletable(v)}
        assert not extra


@given(intents())
def test_no_difference_is_no_plan(intent: Intent) -> None:
    desired = compile_host(intent, FACTS)
    assert diff(desired, desired) == []
    assert len(order([])) == 0


@given(intents(), intents())
def test_a_plan_leads_from_any_state_to_any_other(before: Intent, after: Intent) -> None:
    """Laws 2 and 3: every operation finds what it refers to, and what results is what is desired."""
    kernel, found = FakeKernel(FACTS), refs(before, after)
    assert converge(kernel, compile_host(before, FACTS), found) == []
    assert converge(kernel, compile_host(after, FACTS), found) == []
    in_force(kernel, compile_host(after, FACTS))
    assert order(diff(compile_host(after, FACTS), observed(kernel, {HOST, *found}))).stages == ()


@settings(max_examples=40)
@given(intents(), st.integers(1, 400), st.booleans())
def test_a_failing_operation_is_reported_and_the_next_round_converges(
    intent: Intent, number: int, forever: bool
) -> None:
    """Law 8."""
    kernel, found, desired = FakeKernel(FACTS), refs(intent), compile_host(intent, FACTS)
    kernel.fail_at(number, forever=forever)
    failures = kernel.apply(order(diff(desired, observed(kernel, {HOST, *found}))), found)
    done = {(o.netns, o.object.key) for o in kernel.performed}
    assert (
        {(f.operation.netns, f.operation.object.key) for f in failures if f.errno}
        or kernel.has_failed is False
        or done
    )
    kernel.heal()
    assert converge(kernel, desired, found) == []
    in_force(kernel, desired)


@settings(max_examples=60)
@given(intents(), st.data())
def test_one_resync_repairs_any_object_that_is_deleted(intent: Intent, data: st.DataObject) -> None:
    """Law 6."""
    kernel, found, desired = FakeKernel(FACTS), refs(intent), compile_host(intent, FACTS)
    converge(kernel, desired, found)
    objects = sorted(
        ((n, k) for n, items in kernel.state.items() for k, v in items.items() if not isinstance(v, Sysctl)),
        key=repr,
    )
    if not objects:
        return
    netns, key = data.draw(st.sampled_from(objects))
    item = kernel.state[netns][key]
    if isinstance(item, Table):
        # `nft delete table`: with all that is in it.
        gone = [k for k, v in kernel.state[netns].items() if getattr(v, "family", None) == item.family]
    elif isinstance(item, Set):
        gone = [k for k, v in kernel.state[netns].items() if isinstance(v, Element) and v.set == item.name]
    elif isinstance(item, Link):
        kernel._drop_link(netns, item)
        gone = []
    else:
        gone = [key]
    for victim in gone:
        kernel.state[netns].pop(victim, None)
    assert converge(kernel, desired, found) == []
    in_force(kernel, desired)


@settings(max_examples=60)
@given(intents(), intents())
def test_a_port_comes_up_after_its_fence_and_goes_before_it(before: Intent, after: Intent) -> None:
    """In one plan: guards and verdicts are in force before a link opens, and a link goes before its verdicts do."""
    kernel, found = FakeKernel(FACTS), refs(before, after)
    converge(kernel, compile_host(before, FACTS), found)
    plan = order(diff(compile_host(after, FACTS), observed(kernel, {HOST, *found})))
    operations = [o for stage, group in plan.stages if stage != "publish" for o in group]
    at = {(o.verb, o.netns, o.object.key): place for place, o in enumerate(operations)}
    fences = [
        p
        for (verb, _, key), p in at.items()
        if verb in ("create", "change") and str(key[0]).startswith("nft")
    ]
    opens = [p for (verb, _, key), p in at.items() if verb == "open"]
    link_ends = [p for (verb, _, key), p in at.items() if verb == "delete" and key[0] == "link"]
    rule_ends = [
        p for (verb, _, key), p in at.items() if verb == "delete" and key[0] in ("nft-chain", "nft-set")
    ]
    assert not fences or not opens or max(fences) < min(opens)
    assert not link_ends or not rule_ends or max(link_ends) < min(rule_ends)


@settings(max_examples=60)
@given(intents(), intents())
def test_a_port_is_published_once_its_way_is_complete(before: Intent, after: Intent) -> None:
    """Translated before its route is there, a packet leaves by the default route (netavark#1482). A set that is made
    anew gets back in one transaction what it held."""
    kernel, found = FakeKernel(FACTS), refs(before, after)
    converge(kernel, compile_host(before, FACTS), found)
    operations = list(order(diff(compile_host(after, FACTS), observed(kernel, {HOST, *found}))))
    remade = {o.object.key for o in operations if isinstance(o.object, Set)}
    published = [
        place
        for place, o in enumerate(operations)
        if o.verb == "create"
        and isinstance(o.object, Element)
        and o.object.set in PUBLISHING
        and ("nft-set", o.object.family, o.object.set) not in remade
    ]
    ways = [p for p, o in enumerate(operations) if isinstance(o.object, Route | Link) and o.verb != "delete"]
    assert not published or not ways or max(ways) < min(published)


@settings(max_examples=60)
@given(intents(), intents())
def test_what_is_begun_before_the_plan_is_what_the_plan_begins_with(before: Intent, after: Intent) -> None:
    """Veths may be made while the plan is made: then nothing goes before them, and they are the first to be built."""
    kernel, found = FakeKernel(FACTS), refs(before, after)
    converge(kernel, compile_host(before, FACTS), found)
    differences = diff(compile_host(after, FACTS), observed(kernel, {HOST, *found}))
    veths = first_veths(differences)
    stages = dict(order(differences).stages)
    begun = [operation for operation in veths if operation.verb == "create"]
    if veths:
        assert begun
        assert not {"unpublish", "close", "sweep"} & stages.keys()
        assert list(stages["build"][: len(begun)]) == begun
        # Nothing of them is open, or found, before they are fenced.
        assert all(o.object not in [v.object for v in begun] for o in stages.get("fence", ()))
        ends = {(o.netns, o.object.name) for o in veths if isinstance(o.object, Link)}
        assert all(
            o.object.peer is None or o.object.peer in ends for o in begun if isinstance(o.object, Link)
        )


def test_an_attach_is_begun_before_its_plan() -> None:
    """The law above says nothing if nothing is ever begun."""
    begun: list[int] = []

    class Watching(FakeKernel):
        def begin(self, veths, refs):
            begun.append(len(veths))
            super().begin(veths, refs)

    bench = Bench(kernel=Watching(FACTS))
    bench.network()
    bench.attach("/run/netns/a")
    assert begun == [2]
