"""Journeys told beside a prediction: each end, translations, where rules are put, and what differs."""

from __future__ import annotations

import msgspec
import pytest

from sealane.explain.packet import CLIENT_PORT, Tuple
from sealane.explain.traced.kernel_reasons import _REASONS, LISTENERLESS, told
from sealane.explain.traced.observed_path import ObservedPath
from sealane.explain.traced.render import detailed, minimal, summary
from sealane.explain.traced.result import Outcome, TraceReporter
from unit.explain.traced.packets import observed_path, ruled, seen
from unit.explain.worlds import UPLINK, Town

WEB, API, DB, HOST, STRANGER = 4001, 4002, 4003, 9, 77
PLACES = {WEB: "sandbox-web", API: "sandbox-api", DB: "sandbox-db", HOST: "host"}
SYMBOLS = {
    1: "nft_do_chain",
    2: "ip_rcv_core",
    3: "inet_frag_reasm_prepare",
    4: "ip_do_fragment",
    5: "tcp_v4_rcv",
}
FLOW = Tuple("tcp", "10.1.0.10", CLIENT_PORT, "10.1.0.11", 80)


@pytest.fixture(scope="module")
def town():
    return Town()


@pytest.fixture
def tell(town):
    """The account of a journey from web, held against what is predicted for one to api's address or another."""

    def tell(*trace_events, rules=(), to="10.1.0.11", origin="web", **fields):
        predicted = town.send(origin, to, **fields)
        teller = TraceReporter(town.world, PLACES, lambda address: SYMBOLS.get(address, ""))
        return teller.account(ObservedPath(trace_events=trace_events, rules=tuple(rules)), predicted)

    return tell


def names(town, netns):
    return town.world.namespace(netns).name


OUT = seen(0, "queue", WEB, flow=FLOW), seen(1, "transmit", WEB, flow=FLOW)
ACROSS = seen(10, "receive", HOST, "sle1", flow=FLOW), seen(20, "queue", HOST, "sle2", flow=FLOW)
IN = (seen(30, "receive", API, flow=FLOW),)


def texts(account, name=""):
    return [step.text for hop in account.hops for step in hop.steps if name in {"", hop.name}]


# --- the end ---------------------------------------------------------------------------------------------------------


def test_taken(tell):
    account = tell(*OUT, *ACROSS, *IN, seen(40, "consume", API, flow=FLOW, location=5))
    assert (account.outcome, account.where, account.reason) == (Outcome.DELIVERED, "api", "delivered to api")
    assert (account.passes, account.agrees, account.hint, account.microseconds) == (True, True, "", 40)
    assert account.hops[-1].steps[-1].detail == "tcp_v4_rcv"


def test_received_and_not_seen_again(tell):
    """A socket keeps it, or it is freed without a tracepoint."""
    account = tell(*OUT, *ACROSS, *IN)
    assert (account.outcome, account.reason, account.agrees) == (Outcome.DELIVERED, "delivered to api", True)


def test_taken_where_no_namespace_is_told(tell):
    """UDP and TCP take the device off (dev_scratch)."""
    account = tell(*OUT, *ACROSS, *IN, seen(40, "consume", 0, "", flow=FLOW))
    assert (account.where, account.agrees) == ("api", True)
    assert texts(account, "api") == ["in by eth0", "taken"]


@pytest.mark.parametrize("proto", ["tcp", "udp"])
def test_nobody_listens(tell, proto):
    flow = msgspec.structs.replace(FLOW, proto=proto)
    there = [
        msgspec.structs.replace(one, headers=msgspec.structs.replace(one.headers, flow=flow))
        for one in (*OUT, *ACROSS, *IN)
    ]
    account = tell(*there, seen(40, "drop", API, flow=flow, reason="NO_SOCKET"), proto=proto)
    assert (account.outcome, account.passes, account.agrees) == (Outcome.DELIVERED, True, True)
    assert account.reason == f"delivered to api: nobody listens on 80/{proto}"
    assert account.hint.startswith("start the service")


def test_a_kernel_that_answers_by_itself_is_no_lack(tell):
    """ping_rcv drops what nobody waits for: NO_SOCKET, and all is well."""
    flow = Tuple("icmp", "10.1.0.10", 1, "10.1.0.11", 1)
    account = tell(
        seen(0, "queue", WEB, flow=flow), seen(9, "drop", API, flow=flow, reason="NO_SOCKET"), proto="icmp"
    )
    assert (account.reason, account.hint) == ("delivered to api", "")


def test_out_by_a_link_that_is_not_ours(tell):
    flow = Tuple("tcp", "10.1.0.10", CLIENT_PORT, "192.0.2.200", 80)
    account = tell(
        seen(0, "queue", WEB, flow=flow), seen(1, "receive", HOST, "sle1", flow=flow),
        seen(2, "queue", HOST, UPLINK, flow=flow), to="192.0.2.200",
    )  # fmt: skip
    assert (account.outcome, account.reason, account.agrees) == (Outcome.EXITS, f"left by {UPLINK}", True)
    assert minimal(account).endswith(f": exits by {UPLINK}, as predicted")


def test_what_lies_before_and_behind_is_not_ours(tell):
    """On the same machine, in namespaces of somebody else's."""
    flow = Tuple("tcp", "10.1.0.10", CLIENT_PORT, "192.0.2.200", 80)
    account = tell(
        seen(0, "queue", WEB, flow=flow), seen(2, "queue", HOST, UPLINK, flow=flow),
        seen(3, "receive", STRANGER, flow=flow), seen(4, "drop", STRANGER, flow=flow, reason="NO_SOCKET"), to="192.0.2.200",
    )  # fmt: skip
    assert (account.outcome, [hop.name for hop in account.hops]) == (Outcome.EXITS, ["web", "host"])


def test_vanished_is_seen_and_then_no_more(tell):
    account = tell(*OUT, seen(10, "receive", HOST, "sle1", flow=FLOW))
    assert (account.outcome, account.passes, account.agrees) == (Outcome.VANISHED, False, False)
    assert account.reason == "last seen at host, come in by sle1; then no more"
    assert account.missing == ("api",)


def test_vanished_on_the_way_out(tell):
    account = tell(*OUT, *ACROSS)
    assert account.reason == "last seen at host, sent by sle2; then no more"


def test_dropped_for_a_reason_that_is_known(tell):
    account = tell(*OUT, seen(10, "drop", HOST, "sle1", flow=FLOW, reason="OTHERHOST", location=2))
    assert (account.outcome, account.where, account.agrees) == (Outcome.DROPPED, "host", False)
    assert account.reason == "the frame is for another MAC (OTHERHOST)"
    assert "ip neigh" in account.hint
    assert account.hops[-1].steps[-1].detail == "ip_rcv_core"


def test_dropped_before_it_had_a_device(tell):
    """In the sender's output: no link, and the namespace is its socket's."""
    account = tell(seen(0, "drop", WEB, "", flow=FLOW, reason="NETFILTER_DROP"))
    assert (account.outcome, account.where, account.missing) == (Outcome.DROPPED, "web", ("host", "api"))


def test_dropped_where_no_namespace_is_told(tell):
    account = tell(*OUT, *ACROSS, *IN, seen(40, "drop", 0, "", flow=FLOW, reason="SOCKET_BACKLOG"))
    assert (account.outcome, account.where) == (Outcome.DROPPED, "api")


def test_nothing_tells_a_namespace(tell):
    account = tell(seen(0, "drop", 0, "", flow=FLOW, reason="NETFILTER_DROP"))
    assert (account.outcome, account.where) == (Outcome.DROPPED, "net:[0]")


@pytest.mark.parametrize(
    ("location", "text"), [(3, "put together with its other fragments"), (4, "cut into fragments")]
)
def test_fragments_go_on_as_another_packet(tell, location, text):
    account = tell(*OUT, ACROSS[0], seen(11, "consume", HOST, "sle1", flow=FLOW, location=location))
    assert (account.outcome, account.passes, account.agrees) == (Outcome.CONTINUES, True, True)
    assert account.reason == f"{text} at host: it goes on as another packet"
    assert minimal(account).endswith("continues at host, as predicted")


def test_fragments_of_what_leaves_go_on_too(tell):
    """It ends in the same namespace, and is not delivered there."""
    account = tell(
        *OUT,
        seen(9, "receive", HOST, "sle1", flow=FLOW),
        seen(11, "consume", HOST, "sle1", flow=FLOW, location=3),
        to="192.0.2.200",
    )
    assert (account.outcome, account.agrees) == (Outcome.CONTINUES, True)


def test_fragments_put_together_where_they_were_going_have_arrived(tell):
    account = tell(*OUT, *ACROSS, *IN, seen(40, "consume", API, flow=FLOW, location=3))
    assert account.outcome == Outcome.DELIVERED


# --- rules -----------------------------------------------------------------------------------------------------------


def ours(town, family="ip", base="forward"):
    """A rule of ours in the host: its chain and its comment as the kernel keeps it."""
    chain = next(
        item for key, item in town.compiled.desired["host"].items()
        if key[0] == "nft-chain" and key[1] == family and item.name == base and item.rules
    )  # fmt: skip
    return chain, chain.rules[0]


def dropping(town):
    for key, chain in town.compiled.desired["host"].items():
        if key[0] == "nft-chain" and key[1] == "ip":
            for rule in chain.rules:
                if rule.comment.endswith(":isolation"):
                    return chain, rule
    raise AssertionError("there is no such rule")


def test_a_rule_of_ours_tells_its_intent(town, tell):
    chain, rule = dropping(town)
    trace_event = ruled(
        "drop", netns=HOST, chain=chain.name, flow=FLOW, comment=f"{rule.tag()} {rule.comment}"
    )
    account = tell(
        *OUT, seen(10, "drop", HOST, "sle1", flow=FLOW, reason="NETFILTER_DROP"), rules=[trace_event]
    )
    step = next(step for step in account.hops[-1].steps if step.kind == "rule")
    assert step.text == f"ip {chain.name}: drop"
    assert step.origin_name.startswith("network ")
    assert (step.why, step.object) == (rule.comment, ("nft-chain", "ip", chain.name))
    assert account.reason == f"{step.origin_name} takes nothing from outside but answers and published ports"
    assert account.hint.startswith("publish the port")


def test_a_rule_in_our_table_that_is_none_of_ours(tell):
    rule = ruled("drop", netns=HOST, chain="gone", flow=FLOW, comment="0123456789abcdef n:x:isolation")
    account = tell(*OUT, seen(10, "drop", HOST, "sle1", flow=FLOW, reason="NETFILTER_DROP"), rules=[rule])
    assert account.reason.endswith(
        "of ip table sealane, chain gone, which sealane did not put there, drops it"
    )
    assert account.hint == "sealane audit"
    assert account.hops[-1].steps[0].detail == "rule 4"


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({}, "rule 4 of ip table fw, chain forward, which is not sealane's, drops it"),
        (
            {"comment": "no games"},
            "rule 4 (no games) of ip table fw, chain forward, which is not sealane's, drops it",
        ),
        ({"handle": 0}, "the policy of ip table fw, chain forward, which is not sealane's, drops it"),
        ({"family": "inet"}, "rule 4 of inet table fw, chain forward, which is not sealane's, drops it"),
    ],
)
def test_a_foreign_drop_is_named(tell, fields, text):
    rule = ruled("drop", **{"netns": HOST, "table": "fw", "flow": FLOW, **fields})
    account = tell(*OUT, seen(10, "drop", HOST, "sle1", flow=FLOW, reason="NETFILTER_DROP"), rules=[rule])
    assert account.reason == text
    assert account.hint == f"nft -a list chain {rule.family} fw forward"
    assert f"{rule.family} fw forward: drop" in texts(account, "host")[-2]


def test_a_drop_without_a_rule_is_told_all_the_same(tell):
    """iptables-legacy has no trace group."""
    account = tell(*OUT, seen(10, "drop", HOST, "sle1", flow=FLOW, reason="NETFILTER_DROP"))
    assert account.reason == "a rule drops it (NETFILTER_DROP)"


def test_a_rules_drop_is_no_reason_for_another_drop(tell):
    rule = ruled("drop", netns=HOST, table="fw", flow=FLOW)
    account = tell(*OUT, seen(10, "drop", HOST, "sle1", flow=FLOW, reason="OTHERHOST"), rules=[rule])
    assert account.reason.endswith("(OTHERHOST)")


def test_rules_stand_between_the_links_where_they_were_met(tell):
    rules = [
        ruled(netns=HOST, table="x", chain="prerouting", iif=11, flow=FLOW),
        ruled(netns=HOST, table="x", chain="forward", iif=11, oif=12, flow=FLOW),
        ruled(netns=API, table="x", chain="input", iif=2, flow=FLOW),
    ]
    account = tell(
        *OUT,
        seen(10, "receive", HOST, "sle1", flow=FLOW, ifindex=11), seen(20, "queue", HOST, "sle2", flow=FLOW, ifindex=12),
        seen(30, "receive", API, flow=FLOW, ifindex=2), rules=rules,
    )  # fmt: skip
    assert texts(account) == [
        "out by eth0", "in by sle1", "ip x prerouting: accept", "ip x forward: accept", "out by sle2",
        "in by eth0", "ip x input: accept",
    ]  # fmt: skip


def test_rules_of_the_bridge_come_before_the_rules_of_its_device(tell):
    """A frame for the host comes in by the port, then by the bridge (br_pass_frame_up)."""
    rules = [
        ruled(netns=HOST, table="x", family="bridge", chain="prerouting", iif=11, flow=FLOW),
        ruled(netns=HOST, table="x", chain="prerouting", iif=12, flow=FLOW),
    ]
    account = tell(
        *OUT,
        seen(10, "receive", HOST, "sle1", flow=FLOW, ifindex=11), seen(11, "receive", HOST, "slb1", flow=FLOW, ifindex=12),
        rules=rules,
    )  # fmt: skip
    assert texts(account, "host") == [
        "in by sle1",
        "bridge x prerouting: accept",
        "in by slb1",
        "ip x prerouting: accept",
    ]


def test_of_the_hosts_own_packet_the_bridges_rules_come_behind_its_device(tell):
    flow = Tuple("tcp", "10.1.0.1", CLIENT_PORT, "10.1.0.11", 80)
    rules = [
        ruled(netns=HOST, table="x", chain="output", iif=0, oif=12, flow=flow),
        ruled(netns=HOST, table="x", family="bridge", chain="output", iif=0, oif=13, flow=flow),
    ]
    account = tell(
        seen(1, "queue", HOST, "slb1", flow=flow, ifindex=12), seen(2, "queue", HOST, "sle2", flow=flow, ifindex=13),
        seen(3, "receive", API, flow=flow, ifindex=2), rules=rules, origin="host",
    )  # fmt: skip
    assert texts(account, "host") == [
        "ip x output: accept",
        "out by slb1",
        "bridge x output: accept",
        "out by sle2",
    ]


def test_rules_that_fit_nowhere_are_told_at_the_end_of_their_namespace(tell):
    rules = [ruled(netns=HOST, table="x", chain="odd", iif=99, flow=FLOW)]
    account = tell(*OUT, seen(10, "receive", HOST, "sle1", flow=FLOW, ifindex=11), rules=rules)
    assert texts(account, "host") == ["in by sle1", "ip x odd: accept"]


# --- translations ----------------------------------------------------------------------------------------------------


def test_both_ends_may_be_translated(tell):
    asked, inside = (
        Tuple("tcp", "10.1.0.10", 1, "192.0.2.7", 8080),
        Tuple("tcp", "10.1.0.1", 2, "10.1.0.10", 80),
    )
    account = tell(
        seen(0, "queue", WEB, flow=asked), seen(1, "receive", HOST, "sle1", flow=asked),
        seen(2, "queue", HOST, "sle1", flow=inside), seen(3, "receive", WEB, flow=inside),
        to="192.0.2.7", port=8080,
    )  # fmt: skip
    assert texts(account, "host") == [
        "in by sle1",
        "destination translated: 10.1.0.1:2 → 10.1.0.10:80 tcp",
        "source translated: 10.1.0.1:2 → 10.1.0.10:80 tcp",
        "out by sle1",
    ]
    assert account.flow == asked
    assert [hop.name for hop in account.hops] == ["web", "host", "web"]
    assert account.agrees


def test_a_port_alone_may_be_translated(tell):
    before, after = (
        Tuple("tcp", "10.1.0.10", 1, "10.1.0.11", 80),
        Tuple("tcp", "10.1.0.10", 9, "10.1.0.11", 80),
    )
    account = tell(seen(0, "receive", HOST, "sle1", flow=before), seen(1, "queue", HOST, "sle2", flow=after))
    assert [text for text in texts(account) if "translated" in text] == [
        "source translated: 10.1.0.10:9 → 10.1.0.11:80 tcp"
    ]


def test_one_link_is_told_once_though_it_is_queued_and_sent(tell):
    account = tell(*OUT, *ACROSS, seen(21, "transmit", HOST, "sle2", flow=FLOW), *IN)
    assert texts(account, "host") == ["in by sle1", "out by sle2"]


# --- agreement -------------------------------------------------------------------------------------------------------


def test_a_detour_is_told_and_is_no_disagreement(tell):
    account = tell(
        *OUT, ACROSS[0], seen(15, "receive", DB, flow=FLOW), seen(16, "queue", HOST, "sle2", flow=FLOW), *IN
    )
    assert (account.agrees, account.unexpected, account.missing) == (True, ("db",), ())


def test_the_wrong_end_is_a_disagreement(tell):
    account = tell(*OUT, seen(10, "receive", DB, flow=FLOW), seen(11, "consume", DB, flow=FLOW))
    assert (account.passes, account.agrees) == (True, False)
    assert (account.missing, account.unexpected) == (("host", "api"), ("db",))
    assert "sealane doctor" in account.hint


def test_a_drop_that_was_predicted_has_the_predictions_hint(town, tell):
    account = tell(*OUT, seen(10, "drop", HOST, "sle1", flow=FLOW, reason="SOMETHING_NEW"), to="10.2.0.12")
    predicted = town.send("web", "10.2.0.12")
    assert not predicted.passes
    assert (account.agrees, account.hint) == (True, predicted.hint)
    assert account.reason == "the kernel drops it (SOMETHING_NEW)"


def test_a_drop_that_was_predicted_somewhere_else_is_a_disagreement(tell):
    account = tell(seen(0, "drop", WEB, flow=FLOW, reason="SOMETHING_NEW"), to="10.2.0.12")
    assert account.agrees is False


def test_a_delivery_that_should_not_be_is_a_disagreement(tell):
    flow = Tuple("tcp", "10.1.0.10", CLIENT_PORT, "10.2.0.12", 80)
    account = tell(
        seen(0, "queue", WEB, flow=flow),
        seen(1, "receive", DB, flow=flow),
        seen(2, "consume", DB, flow=flow),
        to="10.2.0.12",
    )
    assert (account.passes, account.agrees) == (True, False)


# --- for people ------------------------------------------------------------------------------------------------------


def test_a_summary(tell):
    text = summary(tell(*OUT, *ACROSS, *IN, seen(40, "consume", API, flow=FLOW)))
    assert text.splitlines() == [
        f"10.1.0.10:{CLIENT_PORT} → 10.1.0.11:80 tcp: delivered to api, as predicted".replace(
            "10.1.0.10", ""
        ),
        "  web          out by eth0",
        "  host         in by sle1 · out by sle2",
        "  api          in by eth0 · taken",
        "  ✓ delivered to api, after 40 µs",
    ]


def test_a_summary_of_what_differs(tell):
    lines = summary(tell(*OUT, seen(10, "drop", HOST, "sle1", flow=FLOW, reason="OTHERHOST"))).splitlines()
    assert lines[0].endswith(": dropped at host, NOT as predicted")
    assert "  · expected and not seen: api" in lines
    assert lines[-2] == "  ✗ the frame is for another MAC (OTHERHOST), after 10 µs"
    assert lines[-1].startswith("  → ")


def test_in_full_both_are_side_by_side(town, tell):
    predicted = town.send("web", "10.1.0.11")
    account = tell(*OUT, ACROSS[0], seen(15, "receive", DB, flow=FLOW))
    text = detailed(account, predicted)
    heads = [
        line
        for line in text.splitlines()[1:]
        if line.endswith(("observed", "predicted", "did not come there"))
    ]
    assert heads == [
        "web: observed", "web: predicted", "host: observed", "host: predicted", "db: observed",
        "api: predicted, and it did not come there",
    ]  # fmt: skip
    assert "  · not expected: db" in text


# --- the kernel's reasons --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", sorted(_REASONS))
def test_each_reason_has_a_text_and_a_hint(reason):
    text, hint = told(reason, "")
    assert text
    assert hint
    assert not text.endswith(".")


def test_a_reason_that_is_not_known_says_where():
    assert told("BRAND_NEW", "some_function") == ("the kernel drops it in some_function", "")
    assert told("BRAND_NEW", "") == ("the kernel drops it", "")


def test_no_reason_may_have_a_hint_by_where_it_is():
    text, hint = told("NOT_SPECIFIED", "br_dev_queue_push_xmit")
    assert text == "it is too big for the bridge's port"
    assert "MTU" in hint
    assert "route" in told("NOT_SPECIFIED", "ip_error")[1]
    assert told("NOT_SPECIFIED", "anywhere") == ("the kernel drops it in anywhere and does not say why", "")


def test_no_listener_is_no_reason_for_a_drop():
    assert LISTENERLESS.isdisjoint(_REASONS)


def test_a_observed_path_has_ends():
    found = observed_path(seen(1), seen(2, "drop"))
    assert (found.first.time_ns, found.last.time_ns) == (1000, 2000)
