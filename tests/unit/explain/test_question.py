"""Questions as people type them, and what they mean."""

import msgspec
import pytest

from sealane.explain.foreign_state import ForeignLink, ForeignState, foreign_state_of
from sealane.explain.packet import CLIENT_PORT, Arrives, Disposition, Packet, Sent, Start
from sealane.explain.question import (
    Question,
    QuestionError,
    explain,
    explain_both,
    parse_target,
    resolve,
)
from sealane.explain.world import World
from sealane.kernel.objects import Route
from sealane.kernel.state import HOST
from sealane.model.container import Container
from sealane.model.intent import Intent
from unit.explain.worlds import BRIDGED, HOST_ADDRESS, OUTSIDE, UPLINK, Town


def meaning(source: str, target: str, town: Town | None = None, **fields) -> tuple[Start, str, str, int]:
    """Start, source, destination and port."""
    town = town or Town()
    packet, start = resolve(Question(source=source, target=target, **fields), town.intent, town.world)
    return start, packet.source, packet.destination, packet.destination_port


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("db:5432", ("db", 5432)),
        ("db", ("db", 0)),
        (":8080", ("host", 8080)),
        ("10.1.0.2:80", ("10.1.0.2", 80)),
        ("[fd00::2]:80", ("fd00::2", 80)),
        ("fd00::2", ("fd00::2", 0)),
        ("db/back:5432", ("db/back", 5432)),
    ],
)
def test_a_target_is_a_name_and_a_port(text: str, expected: tuple[str, int]) -> None:
    assert parse_target(text) == expected


@pytest.mark.parametrize("text", ["db:0", "db:65536", "db:http", "db:", "db:٨٠", "db:1_0"])
def test_a_port_is_a_number_from_1_to_65535(text: str) -> None:
    with pytest.raises(QuestionError, match="port"):
        parse_target(text)


def test_names_are_sandboxes_endpoints_and_aliases() -> None:
    assert meaning("web", "api:80") == (Sent("sandbox-web"), "", "10.1.0.11", 80)
    assert meaning("web", "backend:80")[2] == "10.1.0.11"
    assert meaning("sandbox-web", "endpoint-db-back:80")[2] == "10.2.0.12"


def test_a_container_means_its_sandbox() -> None:
    town = Town()
    container = Container(id="c1", name="shop-db-1", sandbox=town.db.sandbox, spec=b"{}")  # type: ignore[arg-type]
    town.intent = Intent([*town.intent.records(), container])
    assert meaning("shop-db-1", "web:80", town)[0] == Sent("sandbox-db")


def test_a_name_on_several_networks_means_the_shared_one_as_in_dns() -> None:
    assert meaning("db", "api:80")[2] == "10.2.0.11"
    assert meaning("web", "api:80")[2] == "10.1.0.11"
    assert meaning("web", "api/back:80")[2] == "10.2.0.11"


def test_a_sender_may_be_bound_to_one_of_its_networks() -> None:
    assert meaning("api/back", "web:80")[:2] == (Sent("sandbox-api"), "10.2.0.11")


def test_ipv4_comes_first_where_both_have_it() -> None:
    assert meaning("web", "api:80", family=6)[2] == "fd00:1::11"
    four = Town().front.subnets[:1]
    assert meaning("db", "web:80", Town(front={"subnets": four}))[2] == "10.1.0.10"
    six = Town().front.subnets[1:]
    assert meaning("web", "api:80", Town(front={"subnets": six}))[2] == "fd00:1::11"


def test_an_address_outside_comes_in_by_the_link_towards_it() -> None:
    assert meaning(OUTSIDE[4], ":8080") == (Arrives(HOST, UPLINK), OUTSIDE[4], HOST_ADDRESS[4], 8080)
    assert meaning(OUTSIDE[6], ":8080") == (Arrives(HOST, UPLINK), OUTSIDE[6], HOST_ADDRESS[6], 8080)
    assert meaning("198.51.100.9", ":8080")[0] == Arrives(HOST, UPLINK)


def test_an_address_of_ours_is_its_owner() -> None:
    assert meaning("10.1.0.10", "api:80")[:2] == (Sent("sandbox-web"), "10.1.0.10")
    assert meaning(HOST_ADDRESS[4], "api:80")[:2] == (Sent(HOST), HOST_ADDRESS[4])


def test_an_address_of_a_network_that_nobody_has_is_somebody_outside_who_claims_it() -> None:
    start, source, _, _ = meaning("10.1.0.99", ":8080")
    assert (start, source) == (Arrives(HOST, UPLINK), "10.1.0.99")


def test_the_host_is_its_own_loopback_to_itself_and_its_address_to_others() -> None:
    assert meaning(HOST, ":8080")[2] == "127.0.0.1"
    assert meaning("web", ":8080")[2] == HOST_ADDRESS[4]
    assert meaning("web", ":8080", family=6)[2] == HOST_ADDRESS[6]


def test_without_known_addresses_the_host_is_the_senders_gateway() -> None:
    town = Town()
    town.foreign_state = ForeignState()
    assert meaning("web", ":8080", town)[2] == "10.1.0.1"


def test_an_address_of_the_host_that_is_not_known_must_be_named() -> None:
    town = Town()
    town.foreign_state = ForeignState(links=town.foreign_state.links)
    with pytest.raises(QuestionError, match="name one"):
        meaning(OUTSIDE[4], ":8080", town)


def test_a_host_without_an_uplink_has_no_outside() -> None:
    facts = msgspec.structs.replace(BRIDGED, uplink="")
    assert foreign_state_of(facts, ("192.0.2.7/24",)) == ForeignState(bridge_netfilter=True)


def test_icmp_needs_no_port() -> None:
    packet, _ = resolve(Question(source="web", target="api", proto="icmp"), Town().intent, Town().world)
    assert (packet.source_port, packet.destination_port) == (0, 0)
    with pytest.raises(QuestionError, match="needs a port"):
        meaning("web", "api")


def test_what_the_packet_looks_like_can_be_said() -> None:
    question = Question(
        source="web", target="api:80", proto="udp", size=1400, dont_fragment=True, source_port=53
    )
    packet, _ = resolve(question, Town().intent, Town().world)
    assert packet == Packet(
        proto="udp",
        destination="10.1.0.11",
        destination_port=80,
        source_port=53,
        size=1400,
        dont_fragment=True,
    )
    assert Question(source="a", target="b:1").source_port == CLIENT_PORT


@pytest.mark.parametrize(
    ("source", "target", "options", "message"),
    [
        ("nobody", "web:80", {}, "'nobody' is no sandbox"),
        ("web", "nobody:80", {}, "'nobody' is no sandbox"),
        ("web", "db/front:80", {}, "'db/front' is no sandbox"),
        ("web", "db/nowhere:80", {}, "no network 'nowhere'"),
        ("web", "10.1.0.11:80", {"family": 6}, "not an IPv6 address"),
        (OUTSIDE[4], "[fd00:1::10]:80", {}, "the target is IPv6"),
    ],
)
def test_what_cannot_be_meant_is_named(source: str, target: str, options: dict, message: str) -> None:
    with pytest.raises(QuestionError, match=message.replace("[", r"\[")):
        meaning(source, target, **options)


def test_a_family_that_nobody_has_is_named() -> None:
    four = {"subnets": Town().front.subnets[:1]}
    with pytest.raises(QuestionError, match="no address of the family"):
        meaning("web", "web:80", Town(front=four), family=6)


@pytest.mark.parametrize("target", ["10.1.0.10:80", ":8080"])
def test_without_a_link_outside_nobody_comes_from_there(target: str) -> None:
    town = Town()
    town.foreign_state = ForeignState()
    with pytest.raises(QuestionError, match="no link") as caught:
        meaning(OUTSIDE[4], target, town)
    assert caught.value.field == "source"


def test_an_endpoint_without_a_sandbox_sends_nothing() -> None:
    town = Town()
    records = [r for r in town.intent.records() if r.id not in {town.web.id, "sandbox-web"}]
    town.intent = Intent([*records, msgspec.structs.replace(town.web, sandbox=None)])
    with pytest.raises(QuestionError, match="not attached"):
        meaning("endpoint-web-front", "api:80", town)


# --- the whole ------------------------------------------------------------------------------------------------------


def ask(source: str, target: str, town: Town | None = None, **fields):
    town = town or Town()
    return explain(
        Question(source=source, target=target, **fields), town.intent, town.compiled, town.foreign_state
    )


def test_an_explanation_names_the_intent_behind_each_step() -> None:
    trace = ask(OUTSIDE[4], ":8080")
    named = {step.origin_name for hop in trace.hops for step in hop.steps}
    assert {"sealane", "network front", "endpoint web/front"} <= named
    assert trace.question == f"{OUTSIDE[4]} -> :8080 tcp"
    assert [hop.name for hop in trace.hops] == ["host", "web"]


def test_reverse_is_the_way_of_the_answer() -> None:
    trace = ask(OUTSIDE[4], ":8080", reverse=True)
    assert (trace.disposition, trace.final.source_port) == (Disposition.EXITS, 8080)
    assert trace.question.startswith("answer to ")


def test_reverse_of_what_does_not_arrive_is_why_it_does_not() -> None:
    assert ask("web", "db:80", reverse=True).disposition is Disposition.DENIED


def test_there_is_no_way_back_from_nowhere() -> None:
    town = Town(facts=BRIDGED)
    _, back = explain_both(
        Question(source="web", target="db:80"), town.intent, town.compiled, town.foreign_state
    )
    assert back is None


def test_an_explanation_changes_nothing() -> None:
    town = Town()
    before = {n: dict(items) for n, items in town.compiled.desired.items()}
    assert ask("web", "api:80", town) == ask("web", "api:80", town)
    assert before == town.compiled.desired
    assert isinstance(town.world, World)


def test_an_answer_is_followed_into_the_guard_that_drops_it() -> None:
    """The question arrives; the guard of api's port has forgotten api's address."""
    town = Town()
    question = Question(source="host", target="api:80")
    assert explain(question, town.intent, town.compiled, town.foreign_state).passes
    address = bytes([10, 1, 0, 11])
    for key in [
        key
        for key in town.compiled.desired[HOST]
        if key[0] == "nft-element" and key[2] == "sources4" and address in key[3]
    ]:
        town.remove(HOST, key)
    trace = explain(question, town.intent, town.compiled, town.foreign_state)
    assert (trace.disposition, trace.passes) == (Disposition.UNANSWERED, False)
    assert "its answer is lost" in trace.reason
    assert trace.netns == "sandbox-api", "it was delivered"


def test_a_packet_from_outside_comes_in_by_the_link_whose_subnet_it_is_of() -> None:
    """Another route to it is for the way back."""
    town = Town()
    around = msgspec.structs.replace(
        town.foreign_state,
        links=(*town.foreign_state.links, ForeignLink(name="other0")),
        routes=(*town.foreign_state.routes, Route(dst=f"{OUTSIDE[4]}/32", link="other0")),
    )
    world = World(town.compiled.desired, around)
    _, start = resolve(Question(source=OUTSIDE[4], target=":8080"), town.intent, world)
    assert start == Arrives(HOST, UPLINK)
