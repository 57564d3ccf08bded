"""What may happen in a foreign base chain: each way through it, and nothing that is not known taken for harmless."""

import pytest

from sealane.explain.foreign import judge as module
from sealane.explain.foreign.judge import Judgement, Sight, judge
from sealane.explain.foreign.rules import (
    Between,
    Compare,
    Constant,
    Decide,
    ForeignChain,
    ForeignElement,
    ForeignHook,
    ForeignRule,
    ForeignRules,
    ForeignSet,
    ForeignTable,
    Load,
    LocalDestination,
    Lookup,
    Mark,
    Mask,
    Maybe,
    Opaque,
    Operation,
    Ports,
    SetMark,
    States,
    Swap,
    Translate,
)

HOOK = ForeignHook("filter", "forward", 0)
DPORT, PROTO = Load(0, 2, "payload", (2, 2, 2)), Load(0, 1, "meta", (16,))
STRANGE = Load(0, 2)
KNOWN: dict[tuple[str, tuple[int, ...]], tuple[int, ...]] = {
    ("payload", (2, 0, 2)): (),
    ("payload", (2, 2, 2)): (0, 80),
    ("meta", (16,)): (6,),
    ("ct", (0,)): (8, 0, 0, 0),
    ("ct", (2, 1)): (0, 0, 0, 0),
    ("fib", ()): (2, 0, 0, 0),
}
ACCEPT, DROP = Decide("accept"), Decide("drop")


def run(
    *rules: tuple[Operation, ...], policy: str = "accept", mark: int | None = 0, **more: object
) -> Judgement:
    """Chains and sets by name beside the base chain `f`."""
    chains = {"f": chain("f", *rules, hook=HOOK, policy=policy)}
    sets = {}
    for name, item in more.items():
        if isinstance(item, ForeignSet):
            sets[name] = item
        else:
            chains[name] = chain(name, *item)  # type: ignore[misc]
    table = ForeignTable(family="ip", name="fw", chains=chains, sets=sets)
    return judge(table, chains["f"], Sight(lambda load: KNOWN.get((load.kind, load.of), ()), mark))


def chain(name: str, *rules: tuple[Operation, ...], **fields: object) -> ForeignChain:
    numbered = tuple(ForeignRule(rule, number) for number, rule in enumerate(rules, 1))
    return ForeignChain(name=name, rules=numbered, **fields)  # type: ignore[arg-type]


def told(found: Judgement) -> str:
    if found.is_certain_drop:
        return "drops"
    if found.translations:
        return "translates"
    return "doubt" if found.doubts else "accepts"


def at_port(port: int) -> tuple[Operation, ...]:
    return (DPORT, Compare(0, "==", port.to_bytes(2, "big")))


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ([], "accepts"),
        ([(DROP,)], "drops"),
        ([(Decide("reject"),)], "drops"),
        ([(*at_port(80), DROP)], "drops"),
        ([(*at_port(81), DROP)], "accepts"),
        ([(*at_port(80), ACCEPT), (DROP,)], "accepts"),
        ([(DPORT, Compare(0, "!=", b"\0\x50"), DROP)], "accepts"),
        ([(DPORT, Compare(0, "<", b"\0\x51"), DROP)], "drops"),
        ([(DPORT, Compare(0, ">=", b"\0\x51"), DROP)], "accepts"),
        ([(DPORT, Between(0, b"\0\x50", b"\0\x5a"), DROP)], "drops"),
        ([(DPORT, Between(0, b"\0\x50", b"\0\x5a", negate=True), DROP)], "accepts"),
        ([(DPORT, Swap(0, 0, 2, 2), Compare(0, "==", b"\x50\0"), DROP)], "drops"),
        ([(DPORT, Mask(0, 0, b"\0\x40", b"\0\0"), Compare(0, "==", b"\0\x40"), DROP)], "drops"),
        ([(Constant(0, b"\0\x50"), Compare(0, "==", b"\0\x50"), DROP)], "drops"),
        # What is not known goes both ways.
        ([(STRANGE, Compare(0, "==", b"\0\1"), DROP)], "doubt"),
        ([(STRANGE, Compare(0, "==", b"\0\1"), ACCEPT)], "accepts"),
        ([(STRANGE, Compare(0, "==", b"\0\1"), ACCEPT), (DROP,)], "doubt"),
        ([(STRANGE, Compare(0, "<", b"\0\1"), DROP)], "doubt"),
        ([(Maybe("limit"), DROP)], "doubt"),
        ([(Maybe("limit"), DROP), (DROP,)], "drops"),
        ([(Opaque("queue"),)], "doubt"),
        ([(*at_port(81), Opaque("queue"))], "accepts"),
        ([(Load(40, 2), Compare(0, "==", b"\0\0"), DROP)], "doubt"),
        # But a mask that leaves nothing of it is known.
        ([(STRANGE, Mask(0, 0, b"\0\0", b"\0\1"), Compare(0, "==", b"\0\1"), DROP)], "drops"),
        # xtables.
        ([(Ports(6, destination=((80, 80),)), DROP)], "drops"),
        ([(Ports(17, destination=((80, 80),)), DROP)], "accepts"),
        ([(Ports(6, destination=((80, 80),), negate_destination=True), DROP)], "accepts"),
        ([(Ports(6, source=((1, 1024),)), DROP)], "doubt"),
        ([(Ports(6, source=((0, 65535),)), DROP)], "drops"),
        ([(LocalDestination(), DROP)], "drops"),
        ([(LocalDestination(negate=True), DROP)], "accepts"),
        ([(States(8), DROP)], "drops"),
        ([(States(2 | 4), DROP)], "accepts"),
        ([(States(0, 32, negate=True), DROP)], "drops"),
        # Marks.
        ([(Mark(1, 1), DROP)], "accepts"),
        ([(SetMark(1),), (Mark(1, 1), DROP)], "drops"),
        ([(SetMark(4, 4),), (Load(0, 4, "mark"), Compare(0, "==", b"\4\0\0\0"), DROP)], "drops"),
        ([(Maybe("limit"), SetMark(1)), (Mark(1, 1), DROP)], "doubt"),
        ([(STRANGE, SetMark(source=0)), (Mark(1, 1), DROP)], "doubt"),
        # Translations.
        ([(Constant(0, bytes([10, 1, 0, 2])), Translate("destination", 0))], "translates"),
        ([(*at_port(81), Translate("destination"))], "accepts"),
        ([(STRANGE, Compare(0, "==", b"\0\1"), Translate("destination"))], "translates"),
    ],
)  # fmt: skip
def test_what_may_become_of_a_packet(rules: list, expected: str) -> None:
    assert told(run(*rules)) == expected


def test_a_policy_drops_what_no_rule_accepts() -> None:
    found = run((*at_port(81), ACCEPT), policy="drop")
    assert found.is_certain_drop
    assert [finding.where for finding in found.drops] == ["the policy of ip table fw, chain f"]
    assert told(run((*at_port(80), ACCEPT), policy="drop")) == "accepts"


def test_chains_are_followed_and_come_back() -> None:
    jump, goto = (Decide("jump", "sub"),), (Decide("goto", "sub"),)
    assert told(run(jump, (DROP,), sub=[()])) == "drops"
    assert told(run(jump, sub=[(DROP,)])) == "drops"
    assert told(run(jump, (DROP,), sub=[(ACCEPT,)])) == "accepts"
    assert told(run(goto, (DROP,), sub=[()])) == "accepts"
    assert told(run(jump, (DROP,), sub=[(Decide("return"),), (ACCEPT,)])) == "drops"
    assert told(run(jump, (DROP,), sub=[(Decide("continue"),), (ACCEPT,)])) == "accepts"


def test_who_drops_is_named_with_a_command_that_shows_it() -> None:
    (finding,) = run((*at_port(80), DROP)).drops
    assert finding.where == "rule 1 of ip table fw, chain f"
    assert finding.listing == "nft -a list chain ip fw f"


PORTS = ForeignSet(name="ports", size=2, exact={b"\0\x50": ForeignElement(b"\0\x50", b"\0\x50")})
RANGES = ForeignSet(name="ranges", size=2, ranges=(ForeignElement(b"\0\x40", b"\0\x60"),))
VERDICTS = ForeignSet(
    name="verdicts",
    size=2,
    exact={
        b"\0\x50": ForeignElement(b"\0\x50", b"\0\x50", DROP),
        b"\0\x51": ForeignElement(b"\0\x51", b"\0\x51", ACCEPT),
    },
)
TARGETS = ForeignSet(
    name="targets",
    size=4,
    exact={bytes([n, 0, 0, 0]): ForeignElement(bytes([n, 0, 0, 0]), bytes([n, 0, 0, 0]), bytes([10, 1, 0, n, 0, 80, 0, 0])) for n in (2, 3)},
)  # fmt: skip


@pytest.mark.parametrize(
    ("owner", "lookup", "expected"),
    [
        (PORTS, Lookup("s", 0), "drops"),
        (PORTS, Lookup("s", 0, negate=True), "accepts"),
        (RANGES, Lookup("s", 0), "drops"),
        (ForeignSet(name="s", size=2), Lookup("s", 0), "accepts"),
        (ForeignSet(name="s", size=2), Lookup("s", 0, negate=True), "drops"),
        (ForeignSet(name="s", size=2, is_known=False), Lookup("s", 0), "doubt"),
        (ForeignSet(name="s", size=2, is_known=False), Lookup("s", 0, negate=True), "doubt"),
        (ForeignSet(name="s", size=2, catchall=ForeignElement(b"", b"")), Lookup("s", 0), "drops"),
    ],
)
def test_sets(owner: ForeignSet, lookup: Lookup, expected: str) -> None:
    assert told(run((DPORT, lookup, DROP), s=owner)) == expected


def test_a_set_that_was_not_read_is_in_doubt() -> None:
    assert told(run((DPORT, Lookup("elsewhere", 0), DROP))) == "doubt"


def test_verdict_maps() -> None:
    assert told(run((DPORT, Lookup("v", 0, 0)), v=VERDICTS)) == "drops"
    assert told(run((STRANGE, Lookup("v", 0, 0)), v=VERDICTS)) == "doubt"
    unknown = ForeignSet(name="v", size=2, is_known=False)
    assert told(run((DPORT, Lookup("v", 0, 0)), v=unknown)) == "doubt"


def test_a_concatenation_of_ranges_is_compared_field_by_field() -> None:
    """Whole, (1, 200) would be between (0, 100) and (2, 101)."""
    box = ForeignElement(bytes([0, 0, 0, 0, 0, 100, 0, 0]), bytes([2, 0, 0, 0, 0, 101, 0, 0]), b"")
    owner = ForeignSet(name="s", size=8, ranges=(box,), fields=(1, 2))
    inside = (Constant(0, b"\1"), Constant(4, b"\0\x64"), Lookup("s", 0), DROP)
    beside = (Constant(0, b"\1"), Constant(4, b"\0\xc8"), Lookup("s", 0), DROP)
    assert told(run(inside, s=owner)) == "drops"
    assert told(run(beside, s=owner)) == "accepts"


def test_each_target_of_a_choice_by_chance_is_told() -> None:
    rule = (Load(0, 4), Lookup("t", 0, 16), Translate("destination", 16, 20))
    found = run(rule, t=TARGETS)
    assert sorted(finding.what for finding in found.translations) == ["10.1.0.2:80", "10.1.0.3:80"]
    assert not found.is_of_source
    assert run((Translate("source"),)).is_of_source


def test_a_mark_is_known_afterwards_if_it_is_one() -> None:
    assert run((SetMark(7),)).marks == {7}
    assert run((Maybe("limit"), SetMark(7))).marks == {0, 7}


def test_ways_without_end_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RULES_TRIED_MAX", 3)
    assert told(run((), (), ())) == "doubt"
    assert told(run((), ())) == "accepts"


def test_a_loop_of_chains_ends() -> None:
    """The kernel refuses one, but a reading between two transactions may find it."""
    assert (
        told(run((Decide("goto", "a"),), a=[(Decide("goto", "b"),)], b=[(Decide("goto", "a"),)])) == "accepts"
    )


# --- which chains a packet meets ------------------------------------------------------------------------------------


def table(family: str, hook: ForeignHook, *rules: tuple[Operation, ...]) -> ForeignTable:
    return ForeignTable(family=family, name="t", chains={"c": chain("c", *rules, hook=hook)})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("family", "asked", "device", "expected"),
    [
        ("ip", "ip", "", True), ("ip", "ip6", "", False), ("inet", "ip", "", True), ("inet", "ip6", "", True),
        ("inet", "bridge", "", False), ("bridge", "bridge", "", True), ("arp", "arp", "", True), ("inet", "arp", "", False),
    ],
)  # fmt: skip
def test_families(family: str, asked: str, device: str, expected: bool) -> None:
    rules = ForeignRules((table(family, HOOK),))
    assert bool(rules.at(asked, "forward", device)) is expected
    assert not rules.at(asked, "input", device)


def test_chains_of_a_device_are_met_there_alone() -> None:
    hook = ForeignHook("filter", "ingress", 0, ("eth0", "veth*"))
    for family in ("netdev", "inet"):
        rules = ForeignRules((table(family, hook),))
        assert rules.at("netdev", "ingress", "eth0")
        assert rules.at("netdev", "ingress", "veth7")
        assert not rules.at("netdev", "ingress", "eth1")


def test_of_translating_rules_only_those_that_may_translate_remain() -> None:
    nat = table("ip", ForeignHook("nat", "prerouting", -100))
    plain, redirecting = table("ip", HOOK, (DROP,)), table("ip", HOOK, (Translate("socket"),))
    assert ForeignRules((plain,)).translating().tables == ()
    assert ForeignRules((nat, plain, redirecting)).translating().tables == (nat, redirecting)
