"""Manifests: what `plan` shows is what `apply` does, and `delete` goes as far as it can."""

import asyncio

import msgspec
import pytest

from docs.markdown import ROOT
from harness.engines import publish, subnets
from sealane.cli.load import load_manifest
from sealane.daemon.project import Projects
from sealane.daemon.workloads import Workloads
from sealane.engine.errors import (
    ConflictError,
    ExistsError,
    InUseError,
    InvalidError,
    ReadOnlyError,
    SealaneError,
)
from sealane.kernel.state import HOST
from sealane.kernel.text import lines, sets_of
from sealane.wire.requests import (
    Attachment,
    AttachRequest,
    ContainerRequest,
    Manifest,
    NetworkRequest,
    SandboxRequest,
)
from sealane.wire.views import ApplyView, PlanView
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
        if netns != HOST and netns not in intent.sandboxes:
            # Of one that has gone, namespace and all.
            continue
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


@pytest.mark.parametrize("condition", ["completed", "healthy"])
def test_of_one_whose_record_cannot_be_read_nobody_knows_how_it_ended(daemon: Daemon, condition: str) -> None:
    daemon.bench.network("front")
    asyncio.run(daemon.workloads.create(container("migrate", "front")))
    [identity] = daemon.engine.intent.containers
    daemon.runtime.told[identity] = {"status": "dead", "exit_code": None}
    with pytest.raises(ConflictError, match="exit code of container migrate"):
        asyncio.run(daemon.projects._wait_for("migrate", condition))


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
    assert refusal.value.message == "network b has 1 endpoint: stranger; networks that stayed: b, d"
    assert [n.name for n in daemon.engine.networks()] == ["b", "d"]
    assert not daemon.runtime.specs


def test_a_refusal_of_one_network_is_told_as_it_is(daemon: Daemon) -> None:
    manifest = Manifest(networks=[NetworkRequest(name="a"), NetworkRequest(name="b")])
    asyncio.run(daemon.projects.apply(manifest))
    asyncio.run(stranger(daemon, "a"))
    with pytest.raises(InUseError, match=r"network a has 1 endpoint: stranger$"):
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


# --- what is refused is refused before anything is changed ------------------------------------------------------------


def network(name: str, prefix: str = "") -> NetworkRequest:
    return NetworkRequest(name=name, subnets=subnets(prefix) if prefix else [])


def fixed(network_name: str, address: str) -> Attachment:
    return Attachment(network=network_name, addresses=[address])


BASE = [network("front", "10.1.0.0/24")]
REFUSED = {
    "networks[1].subnets[0].prefix": Manifest(networks=[*BASE, network("back", "10.1.0.0/16")]),
    "networks[1].name": Manifest(networks=[*BASE, network("../back")]),
    "containers[1].addresses[0]": Manifest(
        networks=BASE,
        containers=[container("a", "front"), container("b", fixed("front", "10.9.0.1"))],
    ),
    "containers[1].publish[0]": Manifest(
        networks=BASE,
        containers=[container(n, "front", publish=[publish(8080, 80)]) for n in ("a", "b")],
    ),
    "containers[1].network": Manifest(
        networks=BASE, containers=[container("a", "front"), container("b", "none")]
    ),
    "containers[1].spec.command": Manifest(
        networks=BASE,
        containers=[
            container("a", "front"),
            msgspec.structs.replace(container("b"), spec=msgspec.Raw(b"{}")),
        ],
    ),
    "containers[0].network_mode": Manifest(
        networks=BASE, containers=[container("a", network_mode="service:b")]
    ),
    "containers[0].depends_on": Manifest(
        networks=BASE, containers=[container("a", "front", depends_on={"nobody": "started"})]
    ),
    "containers[1].network_mode": Manifest(
        networks=BASE, containers=[container("a", "front"), container("b", network_mode="container:nobody")]
    ),
    "attachments[0].addresses[0]": Manifest(
        networks=BASE,
        attachments=[AttachRequest(sandbox="/run/netns/x", network="front", addresses=["10.2.0.1"])],
    ),
}


ONLY_OF_A_DEED = {"containers[1].spec.command"}
"""A plan is of networks: its containers' images need not be there."""


@pytest.mark.parametrize("field", REFUSED)
def test_a_manifest_with_one_bad_object_changes_nothing(daemon: Daemon, field: str) -> None:
    asyncio.run(
        daemon.projects.apply(Manifest(project="shop", containers=[container("old", labels=PROJECT)]))
    )
    before = list(daemon.engine.intent.records())
    manifest = msgspec.structs.replace(REFUSED[field], project="shop")
    with pytest.raises(SealaneError) as refusal:
        asyncio.run(daemon.projects.apply(manifest))
    assert refusal.value.field == field
    assert list(daemon.engine.intent.records()) == before
    if field in ONLY_OF_A_DEED:
        daemon.projects.plan(manifest, delete=False)
        return
    with pytest.raises(SealaneError) as refusal:
        daemon.projects.plan(manifest, delete=False)
    assert refusal.value.field == field


def test_ports_may_be_exchanged(daemon: Daemon) -> None:
    """Who is changed gives up what it has before anybody takes it."""

    def manifest(first: int, second: int) -> Manifest:
        ports = {"a": first, "b": second}
        return Manifest(
            project="shop",
            networks=BASE,
            containers=[
                container(n, "front", publish=[publish(p, 80)], labels=PROJECT) for n, p in ports.items()
            ],
        )

    asyncio.run(daemon.projects.apply(manifest(8080, 8081)))
    plan = daemon.projects.plan(manifest(8081, 8080), delete=False)
    assert sorted(plan.create) == ["endpoint a", "endpoint b", "sandbox a", "sandbox b"]
    view = asyncio.run(daemon.projects.apply(manifest(8081, 8080)))
    assert sorted(view.changed) == ["container a", "container b"]
    assert daemon.workloads.view("a").ports == ["*:8081->80/tcp"]


async def applied_while_it_ends(daemon: Daemon, manifest: Manifest, name: str) -> ApplyView:
    work = asyncio.create_task(daemon.projects.apply(manifest))
    while (
        record := daemon.engine.intent.container_named(name)
    ) is None or record.id not in daemon.runtime.running:
        assert not work.done(), work.exception()
        await asyncio.sleep(0.01)
    daemon.runtime.end(record.id)
    return await work


def test_a_port_is_handed_on_from_one_that_runs_first_to_its_end(daemon: Daemon) -> None:
    def manifest(condition: str) -> Manifest:
        ports = [publish(8080, 80)]
        return Manifest(
            project="shop",
            networks=BASE,
            containers=[
                container("migrate", "front", publish=ports, labels=PROJECT),
                container("web", "front", publish=ports, labels=PROJECT, depends_on={"migrate": condition}),
            ],
        )

    with pytest.raises(ConflictError, match="endpoint migrate"):
        daemon.projects.plan(manifest("started"), delete=False)
    plan = daemon.projects.plan(manifest("completed"), delete=False)
    assert sum("publish { tcp . 8080" in line.text for line in plan.lines) == 1
    view = asyncio.run(applied_while_it_ends(daemon, manifest("completed"), "migrate"))
    assert "container web" in view.created
    assert daemon.workloads.view("web").ports == ["*:8080->80/tcp"]
    assert daemon.workloads.view("migrate").ports == []


def test_one_whose_network_others_use_hands_nothing_on(daemon: Daemon) -> None:
    manifest = Manifest(
        project="shop",
        networks=BASE,
        containers=[
            container("first", "front", publish=[publish(8080, 80)], labels=PROJECT),
            container("guest", network_mode="container:first", labels=PROJECT),
            container(
                "web", "front", publish=[publish(8080, 80)], labels=PROJECT, depends_on={"first": "completed"}
            ),
        ],
    )
    with pytest.raises(ConflictError, match="endpoint first"):
        daemon.projects.plan(manifest, delete=False)


def test_a_port_that_somebody_took_from_an_ended_container_is_found_first(daemon: Daemon) -> None:
    manifest = Manifest(
        project="shop", networks=BASE, containers=[container("a", "front", publish=[publish(8080, 80)])]
    )
    asyncio.run(daemon.projects.apply(manifest))
    asyncio.run(daemon.workloads.stop("a"))
    asyncio.run(daemon.workloads.create(container("other", "front", publish=[publish(8080, 80)])))
    more = msgspec.structs.replace(manifest, networks=[*BASE, network("back", "10.2.0.0/24")])
    with pytest.raises(ConflictError, match="endpoint other") as refusal:
        asyncio.run(daemon.projects.apply(more))
    assert refusal.value.field == "containers[0].publish"
    assert daemon.engine.intent.network_named("back") is None


@pytest.mark.parametrize(
    ("manifest", "field", "hint"),
    [
        (Manifest(networks=[NetworkRequest(name="a"), NetworkRequest(name="b", driver="x")]), "networks[1].driver", "one of"),
        (Manifest(containers=[container("a"), container("b", "gone")]), "containers[1].network", "networks are"),
        (
            Manifest(containers=[ContainerRequest(name="a", spec=msgspec.Raw(b'{"comand": ["x"]}'))]),
            "containers[0].spec.comand",
            "write command if that is meant",
        ),
        (Manifest(attachments=[AttachRequest(sandbox="/x", network="gone")]), "attachments[0].network", "networks are"),
    ],
)  # fmt: skip
def test_what_is_refused_is_told_with_its_place(
    daemon: Daemon, manifest: Manifest, field: str, hint: str
) -> None:
    with pytest.raises(SealaneError) as caught:
        asyncio.run(daemon.projects.apply(manifest))
    assert caught.value.field == field
    assert caught.value.hint.startswith(hint)


# --- containers that share a network ----------------------------------------------------------------------------------


def sharing(port: int, *more: str) -> Manifest:
    """`b`, and who else is named, live in `a`'s sandbox."""
    guests = [container(n, network_mode="container:a", labels=PROJECT) for n in ("b", *more)]
    host = container("a", "front", publish=[publish(port, 80)], labels=PROJECT)
    return Manifest(project="shop", networks=BASE, containers=[host, *guests])


def test_guests_of_a_changed_container_come_again(daemon: Daemon) -> None:
    asyncio.run(daemon.projects.apply(sharing(8080)))
    plan = daemon.projects.plan(sharing(8081), delete=False)
    assert "container b" in plan.remove
    view = asyncio.run(daemon.projects.apply(sharing(8081)))
    assert sorted(view.changed) == ["container a", "container b"]
    intent = daemon.engine.intent
    assert len({c.sandbox for c in intent.containers.values()}) == len(intent.sandboxes) == 1


def test_a_changed_guest_alone_leaves_its_host(daemon: Daemon) -> None:
    asyncio.run(daemon.projects.apply(sharing(8080)))
    changed = sharing(8080)
    changed.containers[1] = msgspec.structs.replace(changed.containers[1], hosts={"x": "10.0.0.1"})
    assert daemon.projects.plan(changed, delete=False).lines == []
    assert asyncio.run(daemon.projects.apply(changed)).changed == ["container b"]


def test_leftovers_that_share_go_together_or_alone(daemon: Daemon) -> None:
    asyncio.run(daemon.projects.apply(sharing(8080, "c")))
    plan = daemon.projects.plan(sharing(8080), delete=False)
    assert (plan.lines, plan.remove) == ([], ["container c"])
    assert asyncio.run(daemon.projects.apply(sharing(8080))).removed == ["container c"]
    nothing = Manifest(project="shop", networks=BASE)
    assert sorted(daemon.projects.plan(nothing, delete=False).remove)[:2] == ["container a", "container b"]
    assert sorted(asyncio.run(daemon.projects.apply(nothing)).removed) == ["container a", "container b"]
    assert not daemon.engine.intent.sandboxes


def test_a_guest_of_somebody_elses_stops_it_before_anything_is_changed(daemon: Daemon) -> None:
    asyncio.run(daemon.projects.apply(sharing(8080)))
    asyncio.run(daemon.workloads.create(container("stranger", network_mode="container:a")))
    before = list(daemon.engine.intent.records())
    with pytest.raises(ConflictError, match="lends its network to stranger"):
        asyncio.run(daemon.projects.apply(sharing(8081)))
    assert list(daemon.engine.intent.records()) == before


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (container("a", network_mode="container:nope"), "containers[0].network_mode"),
        (container("a", network_mode="container:old"), "containers[0].network_mode"),
        (container("a", "back", depends_on={"old": "started"}), "containers[0].depends_on"),
        (container("taken", "back"), "containers[0].name"),
    ],
)
def test_names_are_looked_for_among_what_will_be_there(daemon: Daemon, request_, field: str) -> None:
    asyncio.run(
        daemon.projects.apply(Manifest(project="shop", containers=[container("old", labels=PROJECT)]))
    )
    daemon.engine.create_sandbox(SandboxRequest(name="taken"))
    before = list(daemon.engine.intent.records())
    manifest = Manifest(project="shop", networks=[network("back")], containers=[request_])
    with pytest.raises(SealaneError) as refusal:
        asyncio.run(daemon.projects.apply(manifest))
    assert refusal.value.field == field
    assert list(daemon.engine.intent.records()) == before


def test_without_a_runtime_nothing_is_begun(daemon: Daemon) -> None:
    projects = Projects(daemon.engine, Workloads(daemon.engine, None, "no runc"))
    with pytest.raises(ReadOnlyError, match="no runc"):
        asyncio.run(projects.apply(sharing(8080)))
    assert not list(daemon.engine.intent.records())


def test_a_plan_shows_what_an_ended_container_gets_back(daemon: Daemon) -> None:
    asyncio.run(daemon.projects.apply(sharing(8080)))
    for name in ("b", "a"):
        asyncio.run(daemon.workloads.stop(name))
    plan = daemon.projects.plan(sharing(8080), delete=False)
    assert any("publish" in line.text and line.sign == "+" for line in plan.lines)
    later = sharing(8080)
    later.containers.append(container("c", "front", publish=[publish(8080, 80)], labels=PROJECT))
    with pytest.raises(ConflictError) as refusal:
        daemon.projects.plan(later, delete=False)
    assert refusal.value.field == "containers[2].publish[0]"


# --- what is somebody else's ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", [{}, {"sealane.project": "other"}])
def test_a_container_of_somebody_elses_is_neither_replaced_nor_removed(daemon: Daemon, labels) -> None:
    """Docker: the name is in use. It may hold what nobody can make again."""
    daemon.engine.create_network(network("front", "10.1.0.0/24"))
    asyncio.run(daemon.workloads.create(container("db", "front", labels=labels)))
    before = list(daemon.engine.intent.records())
    labelled = msgspec.structs.replace(network("front", "10.1.0.0/24"), labels=PROJECT)
    manifest = Manifest(
        project="shop",
        networks=[network("back", "10.2.0.0/24"), labelled],
        containers=[container("a", "back", labels=PROJECT), container("db", "front", labels=PROJECT)],
    )
    for deed in (
        lambda: asyncio.run(daemon.projects.apply(manifest)),
        lambda: daemon.projects.plan(manifest, delete=False),
    ):
        with pytest.raises(ExistsError) as refusal:
            deed()
        assert refusal.value.field == "containers[1].name"
    view = asyncio.run(daemon.projects.delete(manifest))
    assert view.removed == []
    assert daemon.projects.plan(manifest, delete=True).remove == []
    assert list(daemon.engine.intent.records()) == before


def test_what_was_made_without_a_project_is_known_by_its_name(daemon: Daemon) -> None:
    manifest = Manifest(networks=BASE, containers=[container("a", "front")])
    asyncio.run(daemon.projects.apply(manifest))
    view = asyncio.run(daemon.projects.delete(manifest))
    assert sorted(view.removed) == ["container a", "network front"]


# --- addresses and ports of one manifest ------------------------------------------------------------------------------


def addresses(daemon: Daemon) -> dict[str, list[str]]:
    return {e.name: [a.partition("/")[0] for a in e.addresses] for e in daemon.engine.endpoints()}


def pair(first: Attachment | str, second: Attachment | str, **fields) -> Manifest:
    made = [
        container("a", first, labels=PROJECT),
        msgspec.structs.replace(container("b", second, labels=PROJECT), **fields),
    ]
    return Manifest(project="shop", networks=BASE, containers=made)


def test_an_address_that_a_manifest_names_is_given_to_nobody_before(daemon: Daemon) -> None:
    manifest = pair("front", fixed("front", "10.1.0.2"))
    planned_addresses = planned(daemon.projects.plan(manifest, delete=False))
    asyncio.run(daemon.projects.apply(manifest))
    assert addresses(daemon) == {"a": ["10.1.0.3"], "b": ["10.1.0.2"]}
    assert planned_addresses == addressed(daemon)
    # And to whoever asks afterwards, it is an address as any other.
    asyncio.run(daemon.projects.delete(manifest))
    asyncio.run(daemon.projects.apply(Manifest(project="shop", networks=BASE)))

    async def fill() -> None:
        for number in range(252):
            daemon.bench.attach(f"/run/netns/{number}", "front")

    asyncio.run(fill())
    assert "10.1.0.2" in {a for found in addresses(daemon).values() for a in found}


def test_a_plan_gives_in_turn_what_the_deed_gives(daemon: Daemon) -> None:
    """After something was given back, too: freed addresses come back last."""
    daemon.engine.create_network(msgspec.structs.replace(BASE[0], labels=PROJECT))

    for _ in range(3):
        asyncio.run(daemon.workloads.create(container("x", "front")))
        asyncio.run(daemon.workloads.remove("x", force=True))
    manifest = msgspec.structs.replace(
        pair("front", fixed("front", "10.1.0.6")), networks=[msgspec.structs.replace(BASE[0], labels=PROJECT)]
    )
    manifest.containers.append(container("c", "front", publish=[publish(0, 80)], labels=PROJECT))
    before = addressed(daemon)
    plan = planned(daemon.projects.plan(manifest, delete=False))
    asyncio.run(daemon.projects.apply(manifest))
    assert plan == addressed(daemon) - before


@pytest.mark.parametrize("depends", [{}, {"depends_on": {"a": "started"}}])
def test_addresses_may_be_exchanged_also_by_who_starts_later(daemon: Daemon, depends) -> None:
    one, other = "10.1.0.8", "10.1.0.9"
    asyncio.run(daemon.projects.apply(pair(fixed("front", one), fixed("front", other), **depends)))
    daemon.projects.plan(pair(fixed("front", other), fixed("front", one), **depends), delete=False)
    view = asyncio.run(daemon.projects.apply(pair(fixed("front", other), fixed("front", one), **depends)))
    assert sorted(view.changed) == ["container a", "container b"]
    assert addresses(daemon) == {"a": [other], "b": [one]}


def test_a_sandbox_without_a_network_may_be_attached_by_the_manifest(daemon: Daemon) -> None:
    manifest = Manifest(
        project="shop",
        networks=BASE,
        containers=[container("a", network_mode="none", labels=PROJECT)],
        attachments=[AttachRequest(sandbox="a", network="front")],
    )
    asyncio.run(daemon.projects.apply(manifest))
    assert addresses(daemon) == {"a": ["10.1.0.2"]}


def test_an_ended_guest_wants_its_hosts_ports_back(daemon: Daemon) -> None:
    asyncio.run(daemon.projects.apply(sharing(8080)))
    for name in ("b", "a"):
        asyncio.run(daemon.workloads.stop(name))
    asyncio.run(daemon.workloads.create(container("thief", "front", publish=[publish(8080, 80)])))
    with pytest.raises(ConflictError, match="endpoint thief"):
        daemon.projects.plan(sharing(8080), delete=False)


def test_a_leftover_that_lends_its_network_to_a_stranger_stops_it_first(daemon: Daemon) -> None:
    asyncio.run(daemon.projects.apply(sharing(8080)))
    asyncio.run(daemon.workloads.create(container("stranger", network_mode="container:a")))
    before = list(daemon.engine.intent.records())
    with pytest.raises(ConflictError, match="lends its network to stranger"):
        asyncio.run(daemon.projects.apply(Manifest(project="shop", networks=BASE)))
    assert list(daemon.engine.intent.records()) == before


def test_guests_of_a_host_that_is_renamed_come_again_in_the_new_ones(daemon: Daemon) -> None:
    asyncio.run(daemon.projects.apply(sharing(8080)))
    host = container("tunnel", "front", publish=[publish(8080, 80)], labels=PROJECT)
    guest = container("b", network_mode="container:tunnel", labels=PROJECT)
    renamed = Manifest(project="shop", networks=BASE, containers=[host, guest])
    assert "container a" in daemon.projects.plan(renamed, delete=False).remove
    view = asyncio.run(daemon.projects.apply(renamed))
    assert (view.created, view.changed, view.removed) == (
        ["container tunnel"],
        ["container b"],
        ["container a"],
    )
    assert len(daemon.engine.intent.sandboxes) == 1


def test_a_guest_may_get_a_network_of_its_own_when_its_host_goes(daemon: Daemon) -> None:
    asyncio.run(daemon.projects.apply(sharing(8080)))
    alone = Manifest(project="shop", networks=BASE, containers=[container("b", "front", labels=PROJECT)])
    view = asyncio.run(daemon.projects.apply(alone))
    assert (view.changed, view.removed) == (["container b"], ["container a"])
    assert addresses(daemon) == {"b": ["10.1.0.3"]}


def test_a_stranger_among_its_guests_keeps_a_project_whole(daemon: Daemon) -> None:
    asyncio.run(daemon.projects.apply(sharing(8080)))
    asyncio.run(daemon.workloads.create(container("stranger", network_mode="container:a")))
    before, running = list(daemon.engine.intent.records()), set(daemon.runtime.running)
    with pytest.raises(ConflictError, match="lends its network to stranger") as refusal:
        asyncio.run(daemon.projects.delete(sharing(8080)))
    assert refusal.value.hint == "`sealane rm --force stranger` first"
    assert (list(daemon.engine.intent.records()), daemon.runtime.running) == (before, running)


@pytest.mark.parametrize("labels", [{}, {"sealane.project": "other"}])
def test_a_network_of_somebody_elses_is_told_with_its_owner(daemon: Daemon, labels) -> None:
    daemon.engine.create_network(msgspec.structs.replace(network("front", "10.1.0.0/24"), labels=labels))
    labelled = msgspec.structs.replace(network("front", "10.1.0.0/24"), labels=PROJECT)
    with pytest.raises(ExistsError, match="project other's" if labels else "of no project") as refusal:
        asyncio.run(daemon.projects.apply(Manifest(project="shop", networks=[labelled])))
    assert refusal.value.field == "networks[0].name"
    assert "external: true" in refusal.value.hint
