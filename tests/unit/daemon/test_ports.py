"""A container's ports are its own, and follow it from network to network."""

import asyncio

import pytest

from harness.engines import publish, subnets
from sealane.engine.errors import ConflictError
from sealane.kernel.state import HOST
from sealane.wire.requests import Attachment, AttachRequest, DetachRequest
from unit.daemon.recording import Daemon, container


@pytest.fixture
def daemon() -> Daemon:
    daemon = Daemon()
    for number, name in enumerate("abc"):
        daemon.bench.network(name, subnets=subnets(f"10.{number + 1}.0.0/24"))
    daemon.bench.network("inner", internal=True)
    return daemon


def published(daemon: Daemon) -> dict[str, list[str]]:
    return {e.network: e.ports for e in daemon.engine.endpoints() if e.ports}


def elements(daemon: Daemon) -> set[str]:
    return {
        str(key)
        for key in daemon.bench.kernel.state[HOST]
        if key[0] == "nft-element" and str(key[2]).startswith("publish")
    }


def moving(daemon: Daemon, *steps: object) -> list[dict[str, list[str]]]:
    """After each step, and what it leads to: on which network the ports are."""
    seen = []

    async def move() -> None:
        for step in steps:
            if isinstance(step, AttachRequest):
                daemon.engine.attach(step)
            elif isinstance(step, DetachRequest):
                daemon.engine.detach([step])
            else:
                await step  # type: ignore[misc]
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            seen.append(published(daemon))

    asyncio.run(move())
    return seen


def web(daemon: Daemon, *networks: str | Attachment):
    return daemon.workloads.create(container("web", *networks, publish=[publish(8080, 80)]))


def to(network: str) -> AttachRequest:
    return AttachRequest(sandbox="web", network=network)


def off(network: str) -> DetachRequest:
    return DetachRequest(sandbox="web", network=network)


PORT = ["*:8080->80/tcp"]


def test_they_go_to_another_network_and_stay_there(daemon: Daemon) -> None:
    assert moving(daemon, web(daemon, "a", "b"), off("a"), to("a"), off("b"), off("a"), to("c")) == [
        {"a": PORT},
        {"b": PORT},
        {"b": PORT},
        {"a": PORT},
        {},
        {"c": PORT},
    ]
    assert daemon.bench.is_clean()


def test_of_several_they_go_to_the_one_that_it_leaves_by(daemon: Daemon) -> None:
    places = (Attachment(network="a", gateway_priority=9), "b", Attachment(network="c", gateway_priority=5))
    assert moving(daemon, web(daemon, *places), off("a")) == [{"a": PORT}, {"c": PORT}]


def test_internal_networks_have_no_way_in(daemon: Daemon) -> None:
    assert moving(daemon, web(daemon, "a", "inner"), off("a"), to("b")) == [{"a": PORT}, {}, {"b": PORT}]


def test_they_are_there_after_a_stop_and_a_start(daemon: Daemon) -> None:
    async def again() -> None:
        await daemon.workloads.stop("web")
        await daemon.workloads.start("web")

    assert moving(daemon, web(daemon, "a", "b"), off("a"), again())[-1] == {"b": PORT}
    assert elements(daemon)


def test_what_somebody_else_holds_by_now_is_told_and_not_taken(daemon: Daemon) -> None:
    other = container("other", "a", publish=[publish(8080, 80)])

    async def take_it() -> None:
        await daemon.workloads.create(other)

    seen = moving(daemon, web(daemon, "a"), off("a"), take_it(), to("b"))
    assert seen[-1] == {"a": PORT}
    [event] = [e for e in daemon.engine.events.since(0) if e.kind == "container.failed"]
    assert (event.subject, "8080" in event.detail["error"]) == ("web", True)


def test_what_was_published_apart_from_the_request_stays(daemon: Daemon) -> None:
    more = AttachRequest(sandbox="web", network="b", publish=[publish(9090, 90)])
    seen = moving(daemon, daemon.workloads.create(container("web", "a")), more, off("a"))
    assert seen[-1] == {"b": ["*:9090->90/tcp"]}


def test_a_network_that_is_taken_away_takes_no_ports_along(daemon: Daemon) -> None:
    async def remove() -> None:
        daemon.engine.remove_network("a", force=True)

    assert moving(daemon, web(daemon, "a", "b"), remove())[-1] == {"b": PORT}


def test_a_container_that_goes_leaves_nothing(daemon: Daemon) -> None:
    seen = moving(daemon, web(daemon, "a", "b"), daemon.workloads.remove("web", force=True))
    assert seen[-1] == {}
    assert elements(daemon) == set()


def test_creating_one_that_is_refused_publishes_nothing_later(daemon: Daemon) -> None:
    async def both() -> None:
        await daemon.workloads.create(container("first", "a", publish=[publish(8080, 80)]))
        with pytest.raises(ConflictError):
            await web(daemon, "a", "b")

    assert moving(daemon, both())[-1] == {"a": PORT}
    assert daemon.engine.intent.container_named("web") is None


def test_its_own_are_there_besides_others(daemon: Daemon) -> None:
    more = AttachRequest(sandbox="web", network="b", publish=[publish(9090, 90)])
    assert moving(daemon, web(daemon, "a"), more, off("a"))[-1] == {"b": ["*:9090->90/tcp", *PORT]}


def test_a_call_that_is_repeated_is_the_same_call_though_ports_have_come_along(daemon: Daemon) -> None:
    seen = moving(daemon, web(daemon, "a"), to("b"), off("a"), to("b"), to("b"))
    assert seen[-1] == {"b": PORT}
    assert moving(daemon, to("a"), off("b"))[-1] == {"a": PORT}


def test_what_somebody_holds_is_had_as_soon_as_he_gives_it_up(daemon: Daemon) -> None:
    other = daemon.workloads.create(container("other", "a", publish=[publish(8080, 80)]))
    seen = moving(
        daemon, web(daemon, "a"), off("a"), other, to("b"), daemon.workloads.remove("other", force=True)
    )
    assert seen[-2:] == [{"a": PORT}, {"b": PORT}]


def test_one_whose_port_is_held_is_not_started_without_it(daemon: Daemon) -> None:
    other = daemon.workloads.create(container("other", "a", publish=[publish(8080, 80)]))
    moving(daemon, web(daemon, "a"), off("a"), other, to("b"), daemon.workloads.stop("web"))
    with pytest.raises(ConflictError, match="8080"):
        asyncio.run(daemon.workloads.start("web"))
    assert daemon.workloads.view("web").status == "exited"


def test_those_that_are_free_come_though_another_is_held(daemon: Daemon) -> None:
    two = container("web", "a", publish=[publish(8080, 80), publish(8090, 90)])
    other = daemon.workloads.create(container("other", "a", publish=[publish(8080, 80)]))
    seen = moving(daemon, daemon.workloads.create(two), off("a"), other, to("b"))
    assert seen[-1] == {"a": PORT, "b": ["*:8090->90/tcp"]}


def test_a_number_that_nobody_asked_for_stays(daemon: Daemon) -> None:
    any_port = daemon.workloads.create(container("web", "a", "b", publish=[publish(0, 80)]))
    seen = moving(daemon, any_port, off("a"), to("a"), off("b"))
    [[number]] = seen[0].values()
    assert seen[1:] == [{"b": [number]}, {"b": [number]}, {"a": [number]}]


def test_a_number_that_nobody_asked_for_is_another_if_somebody_took_it(daemon: Daemon) -> None:
    async def take_it() -> None:
        [endpoint] = [e for e in daemon.engine.intent.endpoints.values() if e.name == "web"] or [None]
        assert endpoint is None
        number = int(seen_number[0].partition("->")[0].rpartition(":")[2])
        await daemon.workloads.create(container("other", "a", publish=[publish(number, 80)]))

    any_port = daemon.workloads.create(container("web", "a", publish=[publish(0, 80)]))
    [first] = moving(daemon, any_port)
    seen_number = first["a"]
    seen = moving(daemon, off("a"), take_it(), to("b"))
    assert seen[-1]["b"] != seen_number
    assert len(seen[-1]["b"]) == 1


def test_nothing_is_remembered_of_what_is_gone(daemon: Daemon) -> None:
    ports = daemon.workloads._parts.ports
    other = daemon.workloads.create(container("other", "a", publish=[publish(8080, 80)]))
    moving(daemon, web(daemon, "a"), *[off("a"), to("a")] * 4, off("a"), other, to("b"))
    assert [len(left) for left in ports._left.values()] == [1]
    assert len(ports._lacking) == 1
    moving(daemon, daemon.workloads.remove("web", force=True), daemon.workloads.remove("other", force=True))
    assert (ports._left, ports._lacking) == ({}, set())
