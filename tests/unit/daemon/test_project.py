"""Manifests: what `plan` shows is what `apply` does, and `delete` goes as far as it can."""

import asyncio

import pytest

from docs.markdown import ROOT
from harness.engines import publish
from sealane.cli.load import load_manifest
from sealane.engine.errors import InUseError, InvalidError
from sealane.kernel.state import HOST
from sealane.kernel.text import lines, sets_of
from sealane.wire.requests import Attachment, Manifest, NetworkRequest, SandboxRequest
from sealane.wire.views import PlanView
from unit.daemon.recording import Daemon, container

PROJECT = {"sealane.project": "shop"}


@pytest.fixture
def daemon() -> Daemon:
    return Daemon()


def shop() -> Manifest:
    return load_manifest(str(ROOT / "examples" / "shop" / "compose.yaml"), None)[0]


def addressed(daemon: Daemon) -> set[tuple[str, str]]:
    """What the kernel holds that has addresses in it and no ids: addresses, routes, published ports."""
    intent = daemon.engine.intent
    found = set()
    for netns, items in daemon.bench.kernel.snapshot().items():
        where = HOST if netns == HOST else intent.sandboxes[netns].name  # type: ignore[index]
        sets = sets_of(items.values())
        found |= {(where, text) for item in items.values() for text in lines(item, sets)}
    return {(where, text) for where, text in found if is_addressed(where, text)}


def is_addressed(where: str, text: str) -> bool:
    return (where != HOST and text.startswith(("addr", "route"))) or " sealane publish" in text


def planned(view: PlanView) -> set[tuple[str, str]]:
    return {(line.where, line.text) for line in view.lines if is_addressed(line.where, line.text)}


def test_a_plan_of_the_shop_has_the_addresses_and_ports_of_the_deed(daemon: Daemon) -> None:
    """Containers get their addresses in the order in which they start, which is not the file's."""
    plan = planned(daemon.projects.plan(shop(), delete=False))
    asyncio.run(daemon.projects.apply(shop()))
    assert plan == addressed(daemon)
    assert {where for where, _ in plan} == {HOST, "shop-web-1", "shop-api-1", "shop-db-1"}
    assert any("10.128.0.3" in text for where, text in plan if where == "shop-web-1")


def test_a_plan_changes_nothing(daemon: Daemon) -> None:
    daemon.projects.plan(shop(), delete=False)
    assert not list(daemon.engine.intent.records())
    assert not daemon.runtime.specs


def test_a_plan_names_peers_by_their_sandbox(daemon: Daemon) -> None:
    texts = [line.text for line in daemon.projects.plan(shop(), delete=False).lines]
    assert any("netns shop-web-1" in text for text in texts)
    assert not any("preview-" in text for text in texts)


@pytest.mark.parametrize("inner_first", [True, False])
def test_ports_are_published_where_the_default_route_is(daemon: Daemon, inner_first: bool) -> None:
    """Whatever the order of attachments; on an internal network alone it would be an error."""
    networks = [NetworkRequest(name="attic", internal=True), NetworkRequest(name="front")]
    places = ["attic", "front"] if inner_first else ["front", "attic"]
    web = container("web", *places, publish=[publish(8080, 80)])
    manifest = Manifest(networks=networks, containers=[web])
    plan = planned(daemon.projects.plan(manifest, delete=False))
    asyncio.run(daemon.projects.apply(manifest))
    assert plan == addressed(daemon)
    assert {e.network: e.ports != [] for e in daemon.engine.endpoints()} == {"front": True, "attic": False}


def test_of_several_ways_out_ports_are_on_the_preferred_one(daemon: Daemon) -> None:
    networks = [NetworkRequest(name="a"), NetworkRequest(name="b")]
    web = container("web", "a", Attachment(network="b", gateway_priority=5), publish=[publish(8080, 80)])
    asyncio.run(daemon.projects.apply(Manifest(networks=networks, containers=[web])))
    assert {e.network: e.ports != [] for e in daemon.engine.endpoints()} == {"a": False, "b": True}


def test_a_plan_takes_away_what_the_project_has_no_more(daemon: Daemon) -> None:
    """Its containers with their sandboxes, then networks that nobody is on."""
    front, back = (NetworkRequest(name=n, labels=PROJECT) for n in ("front", "back"))
    web, db = container("web", "front", labels=PROJECT), container("db", "back", labels=PROJECT)
    asyncio.run(daemon.projects.apply(Manifest(project="shop", networks=[front, back], containers=[web, db])))
    less = Manifest(project="shop", networks=[front], containers=[web])
    view = daemon.projects.plan(less, delete=False)
    assert sorted(view.remove) == ["container db", "endpoint db", "network back", "sandbox db"]
    asyncio.run(daemon.projects.apply(less))
    assert not daemon.projects.plan(less, delete=False).lines


def test_a_circle_of_containers_is_refused_by_plan_and_apply_alike(daemon: Daemon) -> None:
    circle = Manifest(
        containers=[
            container("a", depends_on={"b": "started"}),
            container("b", depends_on={"a": "started"}),
        ]
    )
    with pytest.raises(InvalidError, match="in a circle: a, b"):
        daemon.projects.plan(circle, delete=False)
    with pytest.raises(InvalidError, match="in a circle: a, b"):
        asyncio.run(daemon.projects.apply(circle))


def test_networks_that_strangers_are_on_stay_and_the_others_go(daemon: Daemon) -> None:
    networks = [NetworkRequest(name=n, labels=PROJECT) for n in ("a", "b", "c", "d")]
    manifest = Manifest(project="shop", networks=networks, containers=[container("web", "a", labels=PROJECT)])
    asyncio.run(daemon.projects.apply(manifest))
    asyncio.run(stranger(daemon, "b", "d"))
    with pytest.raises(InUseError) as refusal:
        asyncio.run(daemon.projects.delete(manifest))
    assert refusal.value.message == "network b has 1 endpoints: stranger; networks that stayed: b, d"
    assert [n.name for n in daemon.engine.networks()] == ["b", "d"]
    assert not daemon.runtime.specs


def test_a_refusal_of_one_network_is_told_as_it_is(daemon: Daemon) -> None:
    manifest = Manifest(networks=[NetworkRequest(name="a"), NetworkRequest(name="b")])
    asyncio.run(daemon.projects.apply(manifest))
    asyncio.run(stranger(daemon, "a"))
    with pytest.raises(InUseError, match=r"network a has 1 endpoints: stranger$"):
        asyncio.run(daemon.projects.delete(manifest))
    assert [n.name for n in daemon.engine.networks()] == ["a"]


def test_delete_takes_the_networks_that_the_file_no_longer_has(daemon: Daemon) -> None:
    front, back = (NetworkRequest(name=n, labels=PROJECT) for n in ("front", "back"))
    asyncio.run(daemon.projects.apply(Manifest(project="shop", networks=[front, back])))
    view = asyncio.run(daemon.projects.delete(Manifest(project="shop", networks=[front])))
    assert view.removed == ["network front", "network back"]
    assert asyncio.run(daemon.projects.delete(Manifest(project="shop", networks=[front]))).removed == []


async def stranger(daemon: Daemon, *networks: str) -> None:
    """A sandbox of somebody else's on a project's networks."""
    daemon.engine.create_sandbox(SandboxRequest(name="stranger"))
    for network in networks:
        daemon.bench.attach("stranger", network)
