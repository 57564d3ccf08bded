"""`explain` as a verb: what it is asked, what it answers, and what it cannot say."""

import msgspec
import pytest

from harness.engines import Bench, publish, subnets
from sealane.engine.errors import InvalidError
from sealane.engine.explaining import explain_packet
from sealane.explain.observed.reading import RuleReading
from sealane.kernel.state import HOST
from sealane.wire.diagnosis import ExplainRequest, ExplainView


@pytest.fixture
def bench() -> Bench:
    bench = Bench()
    bench.network("front", subnets=list(subnets("10.1.0.0/24")))
    bench.network("vault", subnets=list(subnets("10.2.0.0/24")), internal=True)
    bench.attach("/run/netns/web", publish=[publish(8080, 80)])
    bench.attach("/run/netns/api")
    bench.attach("/run/netns/db", "vault")
    return bench


def ask(bench: Bench, source: str, target: str, **options: object) -> ExplainView:
    return explain_packet(bench.engine, ExplainRequest(source=source, target=target, **options))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("source", "target", "verdict"),
    [
        ("web", "api:80", "web -> api:80 tcp: delivered to api"),
        ("192.0.2.200", ":8080", "192.0.2.200 -> :8080 tcp: delivered to web"),
        ("192.0.2.200", "10.1.0.2:80", "denied by network front (direct)"),
        ("host", "127.0.0.1:8080", "delivered to web"),
        ("web", "db:5432", "denied by network vault (internal)"),
        ("db", "198.51.100.9:443", "no route at db"),
        ("web", "198.51.100.9:443", "exits by uplink0"),
    ],
)
def test_the_verdict_names_who_decided(bench: Bench, source: str, target: str, verdict: str) -> None:
    view = ask(bench, source, target)
    assert verdict in view.minimal
    assert view.passes is any(word in verdict for word in ("delivered", "exits"))
    assert view.minimal in view.summary
    assert view.minimal in view.detailed
    assert msgspec.json.decode(view.trace)["disposition"] == view.disposition


def test_the_way_back_is_that_of_the_answer(bench: Bench) -> None:
    view = ask(bench, "192.0.2.200", ":8080", reverse=True)
    assert view.minimal == "answer to 192.0.2.200 -> :8080 tcp: exits by uplink0"


@pytest.mark.parametrize(
    ("source", "target", "field"),
    [
        ("nobody", "web:80", "source"),
        ("web/vault", "api:80", "source"),
        ("web", "nobody:80", "target"),
        ("web", "api", "target"),
        ("web", "api:0", "target"),
    ],
)
def test_a_question_about_what_is_not_there_is_refused(
    bench: Bench, source: str, target: str, field: str
) -> None:
    with pytest.raises(InvalidError) as refusal:
        ask(bench, source, target)
    assert refusal.value.field == field


def test_drift_on_the_path_is_told_when_it_is_asked_for(bench: Bench) -> None:
    assert ask(bench, "web", "api:80").drift is None
    assert ask(bench, "web", "api:80", observed=True).drift == []
    (web,) = (e for e in bench.engine.intent.endpoints.values() if e.name == "web")
    met = next(key for key in bench.kernel.state[HOST] if key[0] == "fdb" and str(web.mac) in key)
    del bench.kernel.state[HOST][met]
    for source, target in (("api", "web:80"), ("web", "api:80")):
        told = ask(bench, source, target, observed=True)
        assert told.passes, "the verdict is about what should be"
        assert told.outcome == "unknown", "and gives no all-clear beside what is not so"
        assert [line[:13] for line in told.drift or ()] == ["host: missing"], "the answer needs it as well"
        assert str(web.mac) in (told.drift or [""])[0]
    assert ask(bench, "host", "api:80", observed=True).drift == [], "it does not meet that"


@pytest.mark.parametrize(
    ("netns", "field", "value", "kind", "words"),
    [
        (HOST, "sysctls", {"net/ipv4/ip_default_ttl": "1"}, "drift", "net.ipv4.ip_default_ttl = 1"),
        (HOST, "ipsec", 2, "unread", "host: 2 IPsec policies"),
        (HOST, "programs", ("services of IPVS",), "unread", "host: services of IPVS"),
        (HOST, "unread", ("nftables (denied)",), "unread", "host: nftables (denied)"),
        (HOST, "own_macs", frozenset(), "drift", "has no entry for its own MAC"),
        (HOST, "links", {}, "drift", "is not there"),
        (
            HOST,
            "policies",
            (RuleReading("100 (`ip rule`)", 4, is_answered=False),),
            "unread",
            "routing rule: 100",
        ),
    ],
)  # fmt: skip
def test_what_was_read_is_held_against_the_verdict(
    bench: Bench, netns: str, field: str, value: object, kind: str, words: str
) -> None:
    bench.kernel.readings[netns] = {field: value}
    view = ask(bench, "host", "api:80", observed=True)
    told = view.drift if kind == "drift" else view.unread
    assert any(words in text for text in told or ()), (view.drift, view.unread)
    assert (view.passes, view.outcome) == (True, "unknown")
    assert ask(bench, "host", "api:80").outcome == "passes", "unasked, the kernel is not read"


def test_a_rule_of_the_other_family_or_one_that_the_kernel_has_heeded_says_nothing(bench: Bench) -> None:
    policies = (RuleReading("100", 6, is_answered=False), RuleReading("101", 4, is_answered=True))
    bench.kernel.readings[HOST] = {"policies": policies}
    assert ask(bench, "host", "api:80", observed=True).outcome == "passes"


def test_a_namespace_that_cannot_be_looked_at_is_told(bench: Bench) -> None:
    sandbox = bench.engine.intent.sandbox_named("web")
    assert sandbox is not None
    assert sandbox.netns is not None
    bench.kernel.dead.add(sandbox.netns.inode)
    (told,) = ask(bench, "web", "api:80", observed=True).drift or ()
    assert told.startswith("sandbox web: ")


def test_asking_changes_nothing(bench: Bench) -> None:
    before = bench.kernel.snapshot(), bench.engine.revision
    ask(bench, "web", "db:5432")
    assert (bench.kernel.snapshot(), bench.engine.revision) == before
