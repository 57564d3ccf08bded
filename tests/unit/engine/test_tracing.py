"""`trace` as a verb: what is followed, what of it is told, and what is said at the end."""

from __future__ import annotations

import msgspec
import pytest

from harness.engines import Bench, publish, subnets
from sealane.engine import tracing as module
from sealane.engine.errors import InvalidError
from sealane.engine.staged import Staged
from sealane.engine.tracing import COUNT_MAX, PROBE_TIMEOUT_MAX_S, TIMEOUT_MAX_S, Tracing, views
from sealane.explain.checking import Observation
from sealane.explain.packet import Tuple
from sealane.wire.diagnosis import TraceRequest, TraceView
from sealane.wire.requests import NetworkRequest, StagedRequest
from unit.explain.traced.packets import observed_path, seen

HOST, STRANGER = 9, 77


@pytest.fixture
def bench():
    bench = Bench()
    bench.network("front", subnets=list(subnets("10.1.0.0/24", "fd01::/64")))
    bench.network("vault", subnets=list(subnets("10.2.0.0/24")), internal=True)
    bench.attach("/run/netns/web", publish=[publish(8080, 80)])
    bench.attach("/run/netns/api")
    bench.attach("/run/netns/db", "vault")
    return bench


@pytest.fixture
def prepare(bench):
    def prepare(source="web", target="api:80", **fields):
        request = TraceRequest(
            **{"source": source, "target": target, "mode": "live", "timeout": 1.0, **fields}
        )
        return Tracing(bench.engine, request, HOST)

    return prepare


def inode(bench, name):
    return bench.engine.builder.find_sandbox(name).netns.inode


def arrived(bench, source="web", target="api", flow=Tuple("tcp", "10.1.0.2", 1234, "10.1.0.3", 80)):
    return observed_path(
        seen(1, "queue", inode(bench, source), flow=flow), seen(2, "receive", HOST, "sle1", flow=flow),
        seen(3, "queue", HOST, "sle2", flow=flow), seen(4, "receive", inode(bench, target), flow=flow),
        seen(5, "consume", inode(bench, target), flow=flow),
    )  # fmt: skip


def dropped(bench, netns=HOST, flow=Tuple("tcp", "10.1.0.2", 1234, "10.1.0.3", 80), reason="OTHERHOST"):
    return observed_path(
        seen(1, "queue", inode(bench, "web"), flow=flow),
        seen(2, "drop", netns, "sle1", flow=flow, reason=reason),
    )


def no_symbol(_):
    return ""


# --- what is followed ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "target", "fields", "pattern"),
    [
        ("web", "api:80", {}, "10.1.0.2 → 10.1.0.3:80 tcp"),
        ("web", "api:53", {"proto": "udp", "family": 6}, "fd01::2 → [fd01::3]:53 udp"),
        ("web", "api", {"proto": "icmp"}, "10.1.0.2 → 10.1.0.3 icmp"),
        ("192.0.2.200", ":8080", {}, "192.0.2.200 → 192.0.2.10:8080 tcp"),
        ("host", "web:80", {}, "10.1.0.1 → 10.1.0.2:80 tcp"),
    ],
)
def test_packets_are_known_as_they_leave_their_socket(prepare, source, target, fields, pattern):
    """The sender's port is not known yet."""
    assert [str(one) for one in prepare(source, target, **fields).patterns] == [pattern]


def test_answers_are_known_by_where_they_come_from(prepare):
    found = prepare("192.0.2.200", ":8080", reverse=True).patterns
    assert [str(one) for one in found] == [
        "192.0.2.200 → 192.0.2.10:8080 tcp",
        "10.1.0.2:80 → 192.0.2.200 tcp",
    ]


def test_where_nothing_arrives_there_is_no_answer(prepare):
    assert len(prepare("web", "db:80", reverse=True).patterns) == 1


def test_rules_are_watched_along_the_way_only(prepare):
    assert sorted(prepare("web", "api:80").refs) == ["api", "web"]
    assert sorted(prepare("192.0.2.200", ":8080").refs) == ["web"]


def test_injected_is_one_probe(bench, prepare):
    probe = prepare(mode="inject").probe
    assert (probe.proto, probe.address, probe.port) == ("tcp", "10.1.0.3", 80)
    assert prepare(mode="live").probe is None


def test_an_echo_has_no_port(prepare):
    assert prepare("web", "api", mode="inject", proto="icmp").probe.port == 0


# --- what cannot be asked --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"count": 0}, "count"), ({"count": -1}, "count"), ({"count": COUNT_MAX + 1}, "count"),
        ({"timeout": 0.0}, "timeout"), ({"timeout": -1.0}, "timeout"), ({"timeout": TIMEOUT_MAX_S + 1}, "timeout"),
        ({"timeout": float("nan")}, "timeout"), ({"timeout": PROBE_TIMEOUT_MAX_S + 1, "mode": "inject"}, "timeout"),
        ({"source": "nobody"}, "source"), ({"target": "nobody:80"}, "target"), ({"target": "api"}, "target"),
        ({"source": "192.0.2.200", "target": ":8080", "mode": "inject"}, "source"),
    ],
)  # fmt: skip
def test_the_field_at_fault_is_named(prepare, fields, field):
    with pytest.raises(InvalidError) as refusal:
        prepare(**fields)
    assert refusal.value.field == field


@pytest.mark.parametrize(
    "fields",
    [{"count": COUNT_MAX}, {"timeout": TIMEOUT_MAX_S}, {"timeout": PROBE_TIMEOUT_MAX_S, "mode": "inject"}],
)
def test_bounds_are_within(prepare, fields):
    prepare(**fields)


def test_who_is_not_here_can_be_waited_for(prepare):
    with pytest.raises(InvalidError) as refusal:
        prepare("192.0.2.200", ":8080", mode="inject")
    assert "--live" in refusal.value.hint


# --- what is told ----------------------------------------------------------------------------------------------------


def test_a_observed_path_in_all_its_renderings(bench, prepare):
    view = prepare().view(arrived(bench), no_symbol)
    assert (view.kind, view.passes, view.agrees, view.outcome) == ("path", True, True, "delivered")
    assert view.minimal == "web -> api:80 tcp: delivered to api, as predicted"
    assert view.summary.startswith(view.minimal)
    assert view.detailed.startswith(view.minimal)
    assert msgspec.json.decode(view.observed)["where"] == "api"
    assert msgspec.json.decode(view.predicted)["disposition"] == "delivered"


def test_with_dropped_only_what_dies_is_told(bench, prepare):
    tracing = prepare(mode="dropped")
    assert tracing.view(arrived(bench), no_symbol) is None
    assert tracing.view(dropped(bench), no_symbol).outcome == "dropped"


def test_nobody_listening_is_no_death(bench, prepare):
    assert (
        prepare(mode="dropped").view(dropped(bench, inode(bench, "api"), reason="NO_SOCKET"), no_symbol)
        is None
    )


def test_an_answer_is_held_against_the_answers_way(bench, prepare):
    flow = Tuple("tcp", "10.1.0.3", 80, "10.1.0.2", 1234)
    view = prepare(reverse=True).view(arrived(bench, "api", "web", flow), no_symbol)
    assert view.minimal == "answer to web -> api:80 tcp: delivered to web, as predicted"


def test_the_same_addresses_in_other_hands_are_not_told(bench, prepare):
    """Another engine on the machine, with namespaces of its own."""
    flow = Tuple("tcp", "10.1.0.2", 1234, "10.1.0.3", 80)
    theirs = observed_path(seen(1, "queue", STRANGER, flow=flow), seen(2, "consume", 0, flow=flow))
    assert prepare().view(theirs, no_symbol) is None


def test_a_drop_that_tells_no_namespace_is_told(bench, prepare):
    flow = Tuple("tcp", "10.1.0.2", 1234, "10.1.0.3", 80)
    assert (
        prepare().view(observed_path(seen(1, "drop", 0, flow=flow, reason="NETFILTER_DROP")), no_symbol)
        is not None
    )


def test_who_has_no_address_is_known_by_where_it_sends(bench, prepare):
    """The pattern fits everybody who sends there."""
    tracing = prepare("db", "198.51.100.9:443")
    assert str(tracing.patterns[0]) == "anybody → 198.51.100.9:443 tcp"
    for sender, is_told in (("db", True), ("web", False)):
        flow = Tuple("tcp", "10.9.9.9", 1, "198.51.100.9", 443)
        view = tracing.view(observed_path(seen(1, "queue", inode(bench, sender), flow=flow)), no_symbol)
        assert (view is not None) is is_told


def test_views_leaves_out_what_is_not_told(bench, prepare):
    tracing = prepare(mode="dropped")
    found = list(views(tracing, iter([arrived(bench), dropped(bench), arrived(bench)]), no_symbol))
    assert [view.outcome for view in found] == ["dropped"]


def test_symbols_name_where_it_ended(bench, prepare):
    view = prepare().view(dropped(bench), lambda address: "ip_rcv_core")
    assert "ip_rcv_core" in view.detailed


# --- the end ---------------------------------------------------------------------------------------------------------

SILENCE = Observation(reached=False, text="no answer within 1 s", is_silence=True)


def test_all_is_well_and_nothing_is_noted(prepare):
    assert prepare().end(1, 0, [], None).notes == []


def test_what_was_not_seen_is_noted(prepare):
    notes = prepare().end(1, 3, ["rules of web: gone"], None).notes
    assert notes[0] == "not seen: rules of web: gone"
    assert notes[1].startswith("3 sightings were lost")


def test_what_the_sender_heard(prepare):
    assert prepare().end(1, 0, [], SILENCE).notes == ["sender's result: no answer within 1 s"]


def test_a_refusal_is_not_interpreted(prepare):
    """A rule's `reject` sounds like a closed port."""
    refused = Observation(reached=True, text="refused: delivered, and nobody listens")
    assert prepare().end(1, 0, [], refused).notes == ["sender's result: refused"]
    broken = Observation(None, "the sandbox: it is gone")
    assert prepare().end(1, 0, [], broken).notes == ["sender's result: the sandbox: it is gone"]


@pytest.mark.parametrize(
    ("mode", "text"), [("live", "was seen"), ("dropped", "was dropped"), ("inject", "was seen")]
)
def test_nothing_was_seen(prepare, mode, text):
    assert prepare(mode=mode).end(0, 0, [], None).notes == [
        f"no packet {text} that is 10.1.0.2 → 10.1.0.3:80 tcp"
    ]


def test_nothing_was_seen_both_ways(prepare):
    (note,) = prepare(reverse=True).end(0, 0, [], None).notes
    assert note.endswith("10.1.0.2 → 10.1.0.3:80 tcp or 10.1.0.3:80 → 10.1.0.2 tcp")


def test_nothing_was_seen_as_predicted(prepare):
    assert (
        prepare("db", "198.51.100.9:443")
        .end(0, 0, [], None)
        .notes[-1]
        .startswith("predicted: db has no route")
    )


def test_what_the_kernel_lacks_on_the_way_is_told_once(bench, prepare, monkeypatch):
    monkeypatch.setattr(module, "drift_of", lambda engine, trace: ["host: missing: route"])
    told = prepare(reverse=True).with_drift(bench.engine, TraceView(kind="end", notes=["first"]))
    assert told.notes == ["first", "in the kernel now: host: missing: route"]


def test_what_docker_was_told_to_make_is_presumed(bench, prepare):
    """Of an endpoint that was handed over nothing inside is desired: the packet is predicted all the same."""
    staged = Staged(bench.engine, "docker")
    staged.create_network(NetworkRequest(name="theirs", subnets=list(subnets("10.9.0.0/24"))), "a" * 32)
    staged.create(StagedRequest(id="b" * 32, network="theirs", name="box", addresses=["10.9.0.5"]))
    staged.join("b" * 32, "/run/netns/box", "box", {}, without_gateway=False)
    tracing = prepare(source="host", target="box:80")
    assert [trace.reason for trace in tracing._predicted] == [
        "delivered to box as 10.9.0.1:40000 → 10.9.0.5:80 tcp"
    ]


def test_what_vanishes_is_not_told_as_dropped(bench, prepare):
    flow = Tuple("tcp", "10.1.0.2", 1234, "10.1.0.3", 80)
    lost = observed_path(
        seen(1, "queue", inode(bench, "web"), flow=flow), seen(2, "receive", HOST, "sle1", flow=flow)
    )
    assert prepare(mode="dropped").view(lost, no_symbol) is None
    assert prepare().view(lost, no_symbol).outcome == "vanished"
