"""Traces as people read them."""

import re

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from sealane.compile.names import endpoint_link, network_link
from sealane.explain.packet import Arrives, Packet, Trace
from sealane.explain.question import Question, explain
from sealane.explain.render import WIDTH, detailed, minimal, summary, verdict
from sealane.explain.walk import walk
from unit.explain.worlds import OUTSIDE, Town


def ask(source: str, target: str, town: Town | None = None, **fields) -> Trace:
    town = town or Town()
    return explain(
        Question(source=source, target=target, **fields), town.intent, town.compiled, town.foreign_state
    )


def test_the_verdict_says_where_or_by_whom() -> None:
    assert minimal(ask("web", "api:80")) == "web -> api:80 tcp: delivered to api"
    assert minimal(ask("web", f"{OUTSIDE[4]}:80")) == f"web -> {OUTSIDE[4]}:80 tcp: exits by uplink0"
    assert minimal(ask("web", "db:80")) == "web -> db:80 tcp: denied by network back (isolation)"
    assert minimal(ask("10.1.0.99", ":8080")) == "10.1.0.99 -> :8080 tcp: denied by network front (spoofed)"
    assert minimal(ask("web", "10.1.0.99:80")) == "web -> 10.1.0.99:80 tcp: neighbour unreachable at web"


def test_the_port_guard_is_named() -> None:
    town = Town()
    bridge = town.world.namespace("host").link(network_link(town.front))
    assert bridge is not None
    frame = Packet(
        source="10.1.0.11",
        destination=OUTSIDE[4],
        mac_source=town.web.mac,
        mac_destination=bridge.mac,
    )
    trace = walk(town.world, frame, Arrives("host", endpoint_link(town.web.id)))
    assert verdict(trace) == "denied by the port guard (spoofed-ip)"


def test_a_trace_without_a_question_shows_its_packet() -> None:
    trace = Town().send("web", "10.1.0.11", 80)
    assert minimal(trace).startswith(":40000 → 10.1.0.11:80 tcp: ")


def test_the_summary_is_a_paragraph_a_hop_the_reason_and_the_hint() -> None:
    lines = summary(ask("web", "db:80")).splitlines()
    assert lines[0] == "web -> db:80 tcp: denied by network back (isolation)"
    assert lines[1].split()[0] == "web"
    assert [line.split()[0] for line in lines if re.match(r"  \S", line)] == ["web", "host", "✗", "→"]
    assert lines[-2] == "  ✗ network back takes nothing from outside but answers and published ports"
    assert lines[-1].startswith("  → publish the port")


@given(
    st.lists(st.from_regex(r"[a-f:]([a-f :]{0,148}[a-f:])?", fullmatch=True), max_size=12),
    st.sampled_from(["web", "x" * 64]),
)
def test_a_paragraph_has_every_step_in_order_and_breaks_between_steps(texts: list[str], name: str) -> None:
    trace = ask("web", "db:80")
    steps = tuple(msgspec.structs.replace(trace.hops[0].steps[0], kind="link", text=text) for text in texts)
    hop = msgspec.structs.replace(trace.hops[0], name=name, steps=steps)
    paragraph = summary(msgspec.structs.replace(trace, hops=(hop, *trace.hops[1:])))
    first, *lines = paragraph[: paragraph.index("\n  host ")].split("\n")[1:]
    assert first.startswith(f"  {name:12} ".rstrip())
    assert all(line.startswith(" " * 15) for line in lines)
    rest = [first[len(f"  {name:12} ") :], *(line[15:] for line in lines)]
    assert " · ".join(rest).rstrip() == " · ".join(texts).rstrip()
    widths = [len(line) for line in (first, *lines) if " · " in line]
    assert max(widths, default=0) <= WIDTH


def test_a_summary_leaves_out_rules_that_only_lead_on() -> None:
    text = summary(ask(OUTSIDE[4], ":8080"))
    assert "goto" not in text
    assert "destination translated: 192.0.2.200:40000 → 10.1.0.10:80 tcp" in text
    assert text.splitlines()[-1] == "  ✓ delivered to web as 192.0.2.200:40000 → 10.1.0.10:80 tcp"


def test_the_details_have_every_rule_with_its_element_and_origin() -> None:
    text = detailed(ask(OUTSIDE[4], ":8080"))
    assert (
        "ip publish: dnat ip to meta l4proto . th dport map @publish   { tcp . 8080 : 10.1.0.10 . 80 }"
        in text
    )
    assert "[endpoint web/front]" in text
    assert "ct status dnat accept" in text
    assert text.index("1. host") < text.index("2. web")


def test_packets_are_written_as_sockets() -> None:
    assert str(Packet(source="10.0.0.1", source_port=1, destination="10.0.0.2", destination_port=2)) == (
        "10.0.0.1:1 → 10.0.0.2:2 tcp"
    )
    assert "[fd00::1]:1" in str(Packet(source="fd00::1", source_port=1, destination="fd00::2"))
    assert str(Packet(proto="icmp", source="10.0.0.1", destination="10.0.0.2")) == "10.0.0.1 → 10.0.0.2 icmp"


def test_a_trace_travels_as_json() -> None:
    trace = ask("web", "db:80")
    sent = msgspec.json.decode(msgspec.json.encode(trace))
    assert sent["disposition"] == "denied"
    assert sent["hops"][-1]["steps"][-1]["origin_name"] == "network back"


def test_a_denial_without_a_rule_says_where() -> None:
    """Isolated ports: the bridge just does not forward."""
    town = Town(front={"icc": False})
    frame = Packet(
        source="10.1.0.10",
        destination="10.1.0.11",
        mac_source=town.web.mac,
        mac_destination=town.api.mac,
    )
    for key in [k for k in town.compiled.desired["host"] if k[:3] == ("nft-element", "bridge", "apart")]:
        town.remove("host", key)
    trace = walk(town.world, frame, Arrives("host", endpoint_link(town.web.id)))
    assert verdict(trace) == "denied at host"
    assert "isolated ports" in trace.reason
