"""Laws of `model.intent`: its indexes are what its records say, however it came to be."""

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from property.strategies_records import containers, endpoints, networks, published_ports, sandboxes
from sealane.model.change import Change, Delete, Put, Record, inverse
from sealane.model.container import Container
from sealane.model.endpoint import Endpoint, Sandbox
from sealane.model.intent import Intent
from sealane.model.kinds import kind_of
from sealane.model.net import address_part
from sealane.model.network import Network

STRATEGIES = {Network: networks, Sandbox: sandboxes, Endpoint: endpoints, Container: containers}


def key(record):
    return kind_of(record).name, record.id


def fits(record: Record, others: list[Record]) -> bool:
    """Whether a store and the engine's checks would let the record stand beside the others."""
    keys = {key(other) for other in others}
    if not isinstance(record, Endpoint):
        if any(kind_of(o).name == kind_of(record).name and o.name == record.name for o in others):
            return False
        if isinstance(record, Sandbox) and record.netns is not None:
            # The engine takes a namespace that it knows for the sandbox that it has.
            return not any(
                isinstance(o, Sandbox) and o.netns and o.netns.inode == record.netns.inode for o in others
            )
        return not isinstance(record, Container) or ("sandbox", record.sandbox) in keys
    if ("network", record.network) not in keys:
        return False
    if record.sandbox is not None and ("sandbox", record.sandbox) not in keys:
        return False
    theirs = [o for o in others if isinstance(o, Endpoint)]
    mine = [address_part(a) for a in record.addresses]
    held = {address_part(a) for o in theirs if o.network == record.network for a in o.addresses}
    ports = [p for o in theirs for p in o.ports]
    conflict = any(p.conflicts(q) for p in record.ports for q in ports)
    conflict |= any(p.conflicts(q) for i, p in enumerate(record.ports) for q in record.ports[:i])
    return len(set(mine)) == len(mine) and not held & set(mine) and not conflict


def is_referred_to(record: Record, others: list[Record]) -> bool:
    if isinstance(record, Network):
        return any(isinstance(o, Endpoint) and o.network == record.id for o in others)
    if isinstance(record, Sandbox):
        return any(isinstance(o, Endpoint | Container) and o.sandbox == record.id for o in others)
    return False


@st.composite
def a_record(draw: st.DrawFn, kind: type[Record]) -> Record:
    record = draw(STRATEGIES[kind])
    if isinstance(record, Endpoint):
        record = msgspec.structs.replace(record, ports=tuple(draw(st.lists(published_ports(), max_size=3))))
    return record


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[Change], list[Record]]:
    """Changes that a store would accept one by one, and the records that are left."""
    there: list[Record] = []
    changes: list[Change] = []
    for _ in range(draw(st.integers(0, 25))):
        old = draw(st.sampled_from(there)) if there and draw(st.booleans()) else None
        if old is not None and draw(st.booleans()):
            if is_referred_to(old, there):
                continue
            there.remove(old)
            changes.append(Delete(old))
            continue
        kind = type(old) if old is not None else draw(st.sampled_from(list(STRATEGIES)))
        new = draw(a_record(kind))
        if old is not None:
            new = msgspec.structs.replace(new, id=old.id)
        others = [o for o in there if o is not old]
        if any(key(o) == key(new) for o in others) or not fits(new, others):
            continue
        there = [*others, new]
        changes.append(Put(new, old))
    return changes, there


def image(intent: Intent) -> dict[str, object]:
    """Everything that it holds."""
    return dict(vars(intent))


@given(histories())
@settings(max_examples=150, deadline=None)
def test_step_by_step_equals_built_from_the_records(history):
    changes, records = history
    intent = Intent()
    for change in changes:
        intent.apply(change)
    assert image(intent) == image(Intent(records))
    assert image(intent) == image(Intent(reversed(records)))
    assert {key(r): r for r in intent.records()} == {key(r): r for r in records}


@given(histories())
@settings(max_examples=150, deadline=None)
def test_the_inverse_undoes_each_change(history):
    changes, _ = history
    intent = Intent()
    images = []
    for change in changes:
        images.append(msgspec.msgpack.encode(frozen(intent)))
        intent.apply(change)
    for change in reversed(changes):
        assert inverse(inverse(change)) == change
        intent.apply(inverse(change))
        assert msgspec.msgpack.encode(frozen(intent)) == images.pop()
    assert image(intent) == image(Intent())


def frozen(intent: Intent) -> object:
    """A copy of everything, in which the order of dictionaries does not count."""

    def walk(value):
        if isinstance(value, dict):
            return sorted((repr(k), walk(v)) for k, v in value.items())
        if isinstance(value, tuple):
            return [walk(v) for v in value]
        return repr(value)

    return walk(image(intent))


@given(histories())
@settings(max_examples=100, deadline=None)
def test_nothing_is_left_when_everything_has_been_deleted(history):
    changes, _ = history
    intent = Intent()
    for change in changes:
        intent.apply(change)
    for record in reversed(list(intent.records())):
        intent.apply(Delete(record))
    assert image(intent) == image(Intent())


@given(histories(), published_ports())
@settings(max_examples=300, deadline=None)
def test_the_holder_of_a_port_is_one_that_conflicts(history, desired):
    _, records = history
    found = Intent(records).port_holder(desired)
    claims = [(port, r.id) for r in records if isinstance(r, Endpoint) for port in r.ports]
    conflicting = [claim for claim in claims if claim[0].conflicts(desired)]
    assert (found in conflicting) if conflicting else (found is None)


@given(histories())
@settings(max_examples=100, deadline=None)
def test_every_index_says_what_the_records_say(history):
    _, records = history
    intent = Intent(records)
    points = [r for r in records if isinstance(r, Endpoint)]
    assert intent.leases == {(p.network, address_part(a)): p.id for p in points for a in p.addresses}
    for network in intent.networks:
        assert intent.endpoints_by_network[network] == {p.id: p for p in points if p.network == network}
    for sandbox in intent.sandboxes:
        mine = {p.id: p for p in points if p.sandbox == sandbox}
        assert intent.endpoints_by_sandbox[sandbox] == mine
        for network in intent.networks:
            assert intent.endpoint_of(sandbox, network) in [
                p for p in mine.values() if p.network == network
            ] or [None]
    boxes = {r.id for r in records if isinstance(r, Sandbox) and r.name.endswith("/box")}
    assert {box.id for box in intent.sandboxes_named("box")} == boxes
    for record in records:
        if isinstance(record, Network):
            assert intent.network_named(record.name) is record
        elif isinstance(record, Sandbox):
            assert intent.sandbox_named(record.name) is record
        elif isinstance(record, Container):
            assert intent.container_named(record.name) is record


def test_a_record_is_found_by_name_id_and_the_beginning_of_an_id_that_only_one_has():
    one = Network(id="abcdef01", name="front")
    other = Network(id="abcdef02", name="abcd")
    intent = Intent([one, other])
    assert intent.network_named("front") is one
    assert intent.network_named("abcdef01") is one
    assert intent.network_named("abcd") is other
    assert intent.network_named("abcde") is None
    assert intent.network_named("abcdef02") is other
    assert intent.network_named("abc") is None
    assert intent.network_named("") is None
    assert Intent([one]).network_named("abcd") is one
    assert Intent([one]).network_named("abc") is None
