"""/etc/hosts and /etc/resolv.conf of a running container follow the networks that it is on."""

import asyncio
import logging
from collections.abc import Callable

import pytest

from harness.engines import subnets
from sealane.containers.errors import ContainerError
from sealane.containers.spec import Dns
from sealane.daemon.requests import PATIENCE
from sealane.wire.requests import AttachRequest, DetachRequest
from unit.daemon.recording import Daemon, container

TRIES = 500


def resolvers(*servers: str) -> Dns:
    """What a request that says nothing of names gets."""
    return Dns(nameservers=servers, options=(*PATIENCE, "ndots:0"))


@pytest.fixture
def daemon() -> Daemon:
    made = Daemon()
    made.bench.network("front", subnets=subnets("10.1.0.0/24"))
    made.bench.network("back", subnets=subnets("10.2.0.0/24"))
    return made


async def until(is_so: Callable[[], bool]) -> None:
    for _ in range(TRIES):
        if is_so():
            return
        await asyncio.sleep(0.002)
    pytest.fail("it did not come to be")


def is_quiet() -> bool:
    """Whether nothing but the test itself is under way."""
    return len(asyncio.all_tasks()) == 1


def attach(daemon: Daemon, sandbox: str, network: str) -> None:
    daemon.engine.attach(AttachRequest(sandbox=sandbox, network=network))


def detach(daemon: Daemon, sandbox: str, network: str) -> None:
    daemon.engine.detach([DetachRequest(sandbox=sandbox, network=network)])


def resolv(daemon: Daemon, name: str) -> Dns | None:
    """As written last."""
    return dict(daemon.runtime.resolv).get(name)


def test_a_container_that_joins_and_leaves_a_network_is_told(daemon: Daemon) -> None:
    async def steps() -> None:
        await daemon.workloads.create(container("web", "front", hosts={"outer": "host-gateway"}))
        attach(daemon, "web", "back")
        await until(lambda: resolv(daemon, "web") == resolvers("10.2.0.1", "10.1.0.1"))
        assert daemon.runtime.hosts[-1] == ("web", ("10.1.0.2 web", "10.2.0.2 web", "10.1.0.1 outer"))
        detach(daemon, "web", "front")
        await until(lambda: resolv(daemon, "web") == resolvers("10.2.0.1"))
        assert daemon.runtime.hosts[-1] == ("web", ("10.2.0.2 web", "10.2.0.1 outer"))

    asyncio.run(steps())


def test_what_the_request_says_of_names_stays(daemon: Daemon) -> None:
    async def steps() -> None:
        request = container("web", "front", dns=["192.0.2.53"], dns_search=["lan"], dns_options=["ndots:2"])
        await daemon.workloads.create(request)
        detach(daemon, "web", "front")
        await until(lambda: daemon.runtime.resolv != [] and not _has_gateway(resolv(daemon, "web")))
        assert resolv(daemon, "web") == Dns(
            nameservers=("192.0.2.53",), search=("lan",), options=("ndots:2",)
        )

    asyncio.run(steps())


def _has_gateway(dns: Dns | None) -> bool:
    return dns is not None and "10.1.0.1" in dns.nameservers


def test_containers_that_share_a_sandbox_are_all_told(daemon: Daemon) -> None:
    async def steps() -> None:
        await daemon.workloads.create(container("web", "front"))
        await daemon.workloads.create(container("side", network_mode="container:web"))
        attach(daemon, "web", "back")
        both = resolvers("10.2.0.1", "10.1.0.1")
        await until(lambda: resolv(daemon, "web") == both and resolv(daemon, "side") == both)
        assert dict(daemon.runtime.hosts)["side"] == ("10.1.0.2 side", "10.2.0.2 side")

    asyncio.run(steps())


def test_a_burst_of_changes_ends_in_what_is_true_last(daemon: Daemon) -> None:
    async def steps() -> None:
        await daemon.workloads.create(container("web", "front"))
        for _ in range(5):
            attach(daemon, "web", "back")
            await asyncio.sleep(0)
            detach(daemon, "web", "back")
        attach(daemon, "web", "back")
        await until(lambda: resolv(daemon, "web") == resolvers("10.2.0.1", "10.1.0.1"))
        await until(is_quiet)
        assert resolv(daemon, "web") == resolvers("10.2.0.1", "10.1.0.1")

    asyncio.run(steps())


def test_a_container_started_again_gets_the_files_of_today(daemon: Daemon) -> None:
    """The runtime starts it with those of its first start."""

    async def steps() -> None:
        await daemon.workloads.create(container("web", "front"))
        await daemon.workloads.stop("web")
        attach(daemon, "web", "back")
        await until(lambda: resolv(daemon, "web") == resolvers("10.2.0.1", "10.1.0.1"))
        daemon.runtime.resolv.clear()
        await daemon.workloads.start("web")
        await until(lambda: resolv(daemon, "web") == resolvers("10.2.0.1", "10.1.0.1"))

    asyncio.run(steps())


def test_sandboxes_without_a_container_cost_nothing(daemon: Daemon) -> None:
    async def steps() -> None:
        await daemon.workloads.create(container("web", "front"))
        await until(is_quiet)
        daemon.runtime.hosts.clear()
        attach(daemon, "/run/netns/other", "back")
        await until(is_quiet)
        assert daemon.runtime.hosts == []

    asyncio.run(steps())


@pytest.mark.parametrize("failure", [ContainerError("no space"), OSError(28, "no space")])
def test_a_file_that_cannot_be_written_is_logged_and_the_attachment_stands(
    daemon: Daemon, caplog: pytest.LogCaptureFixture, failure: Exception
) -> None:
    async def steps() -> None:
        await daemon.workloads.create(container("web", "front"))
        await until(is_quiet)
        daemon.runtime.failure = failure
        attach(daemon, "web", "back")
        await until(lambda: "no space" in caplog.text)
        daemon.runtime.failure = None
        detach(daemon, "web", "front")
        await until(lambda: resolv(daemon, "web") == resolvers("10.2.0.1"))

    with caplog.at_level(logging.ERROR, logger="sealane"):
        asyncio.run(steps())
    assert "container web: /etc/hosts and /etc/resolv.conf are out of date" in caplog.text
    assert [e.network for e in daemon.engine.endpoints(sandbox="web")] == ["back"]
