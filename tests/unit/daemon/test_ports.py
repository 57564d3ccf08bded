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
