"""Law: what happens to a packet of which all is known is among what may happen to one of which less is known."""

from hypothesis import given
from hypothesis import strategies as st

from sealane.explain.foreign.judge import Judgement, Sight, judge
from sealane.explain.foreign.rules import (
    Between,
    Bits,
    Compare,
    Decide,
    ForeignChain,
    ForeignElement,
    ForeignHook,
    ForeignRule,
    ForeignSet,
    ForeignTable,
    Load,
    Lookup,
    Mask,
    Operation,
    Swap,
)

SIZE = 4
OCTET = st.integers(0, 3)
VALUE = st.binary(min_size=2, max_size=2).map(lambda raw: bytes(octet & 3 for octet in raw))
LOAD = st.builds(lambda at: Load(0, 2, "payload", (1, at, 2)), st.integers(0, SIZE - 2))
VERDICT = st.sampled_from(
    [Decide("accept"), Decide("drop"), Decide("continue"), Decide("return"), Decide("jump", "sub")]
)


def ordered(pair: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
    low, high = sorted(pair)
    return low, high


CONDITION = st.one_of(
    st.builds(Compare, st.just(0), st.sampled_from(["==", "!=", "<", "<=", ">", ">="]), VALUE),
    st.tuples(VALUE, VALUE)
    .map(ordered)
    .flatmap(lambda edges: st.booleans().map(lambda negate: Between(0, *edges, negate))),
    st.builds(Mask, st.just(0), st.just(0), VALUE, VALUE),
    st.builds(Swap, st.just(0), st.just(0), st.just(2), st.just(2)),
    st.booleans().map(lambda negate: Lookup("set", 0, None, negate)),
    st.just(Lookup("map", 0, 0)),
)
RULE = st.tuples(LOAD, st.lists(CONDITION, max_size=3), VERDICT).map(
    lambda parts: (parts[0], *parts[1], parts[2])
)
RULES = st.lists(RULE, max_size=4)


def element(value: bytes, data: Decide | bytes = b"") -> ForeignElement:
    return ForeignElement(value, value, data)


@st.composite
def tables(draw: st.DrawFn) -> ForeignTable:
    def chain(name: str, hook: ForeignHook | None) -> ForeignChain:
        rules = [_without_jumps(rule) if name == "sub" else rule for rule in draw(RULES)]
        return ForeignChain(
            name=name,
            rules=tuple(ForeignRule(tuple(rule), n) for n, rule in enumerate(rules, 1)),
            hook=hook,
            policy=draw(st.sampled_from(["accept", "drop"])),
        )

    members = draw(st.sets(VALUE, max_size=3))
    low, high = ordered((draw(VALUE), draw(VALUE)))
    verdicts = draw(st.dictionaries(VALUE, st.sampled_from([Decide("accept"), Decide("drop")]), max_size=3))
    return ForeignTable(
        family="ip",
        name="t",
        chains={"base": chain("base", ForeignHook("filter", "forward", 0)), "sub": chain("sub", None)},
        sets={
            "set": ForeignSet(
                name="set",
                size=2,
                exact={m: element(m) for m in members},
                ranges=(ForeignElement(low, high),),
            ),
            "map": ForeignSet(name="map", size=2, exact={v: element(v, d) for v, d in verdicts.items()}),
        },
    )


def _without_jumps(rule: tuple[Operation, ...]) -> tuple[Operation, ...]:
    return tuple(Decide("accept") if op == Decide("jump", "sub") else op for op in rule)


def run(table: ForeignTable, packet: Bits) -> Judgement:
    def load(asked: Load) -> Bits:
        _, offset, size = asked.of
        return packet[offset : offset + size]

    return judge(table, table.chains["base"], Sight(load, 0))


@given(
    tables(),
    st.lists(OCTET, min_size=SIZE, max_size=SIZE),
    st.lists(st.booleans(), min_size=SIZE, max_size=SIZE),
)
def test_what_is_not_known_only_adds_possibilities(
    table: ForeignTable, packet: list[int], hidden: list[bool]
) -> None:
    known = run(table, tuple(packet))
    assert known.accepts is not bool(known.drops), "of a packet that is known there is one outcome"
    partly = run(table, tuple(None if hide else octet for octet, hide in zip(packet, hidden, strict=True)))
    assert partly.accepts >= known.accepts
    assert set(partly.drops) >= set(known.drops)
    if not any(hidden):
        assert (partly.accepts, partly.drops) == (known.accepts, known.drops)
