"""`sealane trace` on a real host: one packet followed through the kernel, and told beside what was predicted."""

import pytest

from harness.host import Host, Lan
from kernel.trace_town import Town

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def town(shared_host: Host, lan: Lan) -> Town:
    return Town(shared_host)


def test_a_packet_is_followed_to_where_nobody_listens(town: Town) -> None:
    code, (observed_path,), notes = town.trace("web", "api:9")
    assert (code, observed_path["passes"], observed_path["agrees"]) == (0, True, True)
    observed = observed_path["observed"]
    assert [hop["name"] for hop in observed["hops"]] == [town.names["web"], "host", town.names["api"]]
    assert observed["reason"] == f"delivered to {town.names['api']}: nobody listens on 9/tcp"
    assert notes == ["sender's result: refused"]


def test_a_drop_names_the_rule_and_its_intent(town: Town) -> None:
    code, (observed_path,), notes = town.trace("web", "db:5432")
    assert (code, observed_path["passes"], observed_path["agrees"], observed_path["outcome"]) == (
        1,
        False,
        True,
        "dropped",
    )
    assert (
        observed_path["observed"]["reason"]
        == "network back takes nothing from outside but answers and published ports"
    )
    rules = [step for step in observed_path["observed"]["hops"][-1]["steps"] if step["kind"] == "rule"]
    assert rules[-1]["text"].endswith("_to: drop")
    assert rules[-1]["origin_name"] == "network back"
    assert notes == ["sender's result: no answer within 1 s"]


def test_answers_are_followed_on_their_way_back(town: Town) -> None:
    code, observed_paths, _ = town.trace("web", "api", "--proto", "icmp", "--reverse")
    ways = [[hop["name"] for hop in observed_path["observed"]["hops"]] for observed_path in observed_paths]
    web, api = town.names["web"], town.names["api"]
    assert (code, ways) == (0, [[web, "host", api], [api, "host", web]])


@pytest.mark.parametrize(("source", "target", "end"), [("near", "far:9", "far"), ("host", ":8080", "web")])
def test_other_ways(town: Town, source: str, target: str, end: str) -> None:
    code, (observed_path,), _ = town.trace(source, target)
    assert (code, observed_path["agrees"], observed_path["observed"]["where"]) == (0, True, town.names[end])


def test_translation_is_seen_and_what_lies_outside_is_not_ours(town: Town) -> None:
    code, (observed_path,), _ = town.trace("web", "192.0.2.1:9")
    texts = [step["text"] for hop in observed_path["observed"]["hops"] for step in hop["steps"]]
    assert (code, observed_path["outcome"]) == (0, "exits")
    assert any(text.startswith("source translated: 192.0.2.") for text in texts)
    assert [hop["name"] for hop in observed_path["observed"]["hops"]] == [town.names["web"], "host"]
