"""Containers' verbs when something fails or comes between."""

import asyncio
import errno

import msgspec
import pytest

from sealane.containers.errors import ConflictError as RuntimeConflict
from sealane.containers.errors import NotRunningError
from sealane.containers.logs import LogLine
from sealane.engine.errors import ConflictError, ExistsError, InvalidError, KernelError, NotFoundError
from sealane.wire.requests import AttachRequest, DetachRequest
from sealane.wire.views import ContainerView
from unit.daemon.recording import Daemon, container

FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def daemon() -> Daemon:
    daemon = Daemon()
    daemon.bench.network("front")
    return daemon


def started(daemon: Daemon) -> list[str]:
    return [event.subject for event in daemon.engine.events.since(0) if event.kind == "container.started"]


class TestRecovery:
    def test_goes_on_past_one_that_cannot_be_started(self, daemon: Daemon) -> None:
        for name in "abc":
            asyncio.run(daemon.workloads.create(container(name, "front")))
        first = daemon.engine.intent.container_named("a")
        assert first is not None
        daemon.runtime.specs.clear()
        plain = daemon.runtime.create_and_start

        def start(spec, client):
            if spec.name == "a":
                raise FULL
            return plain(spec, client)

        daemon.runtime.create_and_start = start
        told = asyncio.run(daemon.workloads.recover(sweep=False))
        assert told == [
            "container a not started: [Errno 28] No space left on device",
            "container b started again",
            "container c started again",
        ]

    def test_goes_on_past_a_sandbox_that_cannot_be_removed(self, daemon: Daemon, monkeypatch) -> None:
        asyncio.run(daemon.workloads.create(container("a", "front")))
        asyncio.run(daemon.workloads.create(container("b", network_mode="container:a")))
        monkeypatch.delitem(daemon.engine.intent.containers, daemon.engine.intent.container_named("a").id)
        asyncio.run(daemon.workloads.recover(sweep=False))
        assert daemon.engine.intent.container_named("b") is not None


class TestOneThatIsThere:
    def test_is_the_answer_to_the_same_request_unless_it_has_to_be_new(self, daemon: Daemon) -> None:
        """A program may ask again; a person who types `run` twice wants it to run twice, or to hear why not."""
        asyncio.run(daemon.workloads.create(container("a", "front")))
        assert asyncio.run(daemon.workloads.create(container("a", "front"))).name == "a"
        with pytest.raises(ExistsError, match="container a exists") as refusal:
            asyncio.run(daemon.workloads.create(container("a", "front"), is_new=True))
        assert refusal.value.field == "name"
        assert len(daemon.engine.intent.containers) == 1


class TestARefusedContainer:
    def test_leaves_no_namespace(self, daemon: Daemon) -> None:
        with pytest.raises(InvalidError):
            asyncio.run(daemon.workloads.create(container("a", "front", sysctls={"kernel.panic": "1"})))
        assert daemon.bench.kernel.pinned == set()
        assert daemon.engine.intent.sandboxes == {}

    def test_that_cannot_be_started_is_gone_whatever_the_runtime_says_to_its_removal(
        self, daemon: Daemon
    ) -> None:
        def fail(*_: object, **__: object) -> None:
            raise FULL

        def refuse(*_: object, **__: object) -> None:
            raise RuntimeConflict("it is busy")

        daemon.runtime.create_and_start = fail
        daemon.runtime.remove = refuse
        with pytest.raises(KernelError, match="No space left"):
            asyncio.run(daemon.workloads.create(container("a", "front")))
        assert daemon.engine.intent.containers == {}
        assert daemon.engine.endpoints() == []
        assert daemon.bench.kernel.pinned == set()

    def test_leaves_no_lock(self, daemon: Daemon) -> None:
        for number in range(3):
            with pytest.raises(NotFoundError):
                asyncio.run(daemon.workloads.create(container(f"c{number}", "nowhere")))
        assert dict(daemon.workloads._locks) == {}


class TestAContainerThatGoesMeanwhile:
    @pytest.mark.parametrize("second", ["start", "remove"])
    def test_is_not_found(self, daemon: Daemon, second: str) -> None:
        asyncio.run(daemon.workloads.create(container("a", "front")))

        async def both() -> list[object]:
            verbs = [daemon.workloads.remove("a", force=True), getattr(daemon.workloads, second)("a")]
            return await asyncio.gather(*verbs, return_exceptions=True)

        _, answer = asyncio.run(both())
        assert isinstance(answer, NotFoundError)
        removed = [e for e in daemon.engine.events.since(0) if e.kind == "container.removed"]
        assert len(removed) == 1


class TestARefusal:
    """Is in words of who asked: the runtime knows containers by their ids, people by their names."""

    def test_names_the_container_that_is_not_there(self, daemon: Daemon) -> None:
        with pytest.raises(NotFoundError, match="there is no container 'web'") as caught:
            daemon.workloads.find("web")
        assert (caught.value.field, caught.value.hint) == ("container", "see `sealane ps --all`")

    def test_to_remove_what_runs_names_it_and_the_hint(self, daemon: Daemon) -> None:
        identity = asyncio.run(daemon.workloads.create(container("web", "front"))).id

        def refuse(*_: object, **__: object) -> None:
            hint = f"`sealane stop {identity}` first, or `--force`"
            raise RuntimeConflict(f"container {identity} is running", hint=hint)

        daemon.runtime.remove = refuse
        with pytest.raises(ConflictError) as caught:
            asyncio.run(daemon.workloads.remove("web"))
        assert caught.value.message == "container web is running"
        assert caught.value.hint == "`sealane stop web` first, or `--force`"

    def test_of_what_does_not_run_names_it_and_the_hint(self, daemon: Daemon) -> None:
        asyncio.run(daemon.workloads.create(container("web", "front")))

        def refuse(identity: str, _: str) -> None:
            raise NotRunningError(identity, "exited")

        daemon.runtime.kill = refuse
        with pytest.raises(ConflictError) as caught:
            asyncio.run(daemon.workloads.kill("web", 9))
        assert caught.value.message == "container web is not running (it is exited)"
        assert "`sealane start web`" in caught.value.hint


def test_logs_that_nobody_reads_any_more_are_not_waited_for(daemon: Daemon) -> None:
    asyncio.run(daemon.workloads.create(container("a", "front")))
    stops = []

    def logs(_, *, follow, tail, since, stop):
        stops.append(stop)
        yield LogLine("2026-11-28T00:00:00.000000000Z", "stdout", False, b"1")
        stop.wait(30)

    daemon.runtime.logs = logs

    async def read_one() -> None:
        lines = daemon.workloads.logs("a", follow=True, tail=None, since=None)
        assert (await anext(lines)).text == "1"
        await lines.aclose()

    asyncio.run(asyncio.wait_for(read_one(), 100))
    assert stops[0].is_set()


def test_one_that_has_moved_to_another_network_starts_there(daemon: Daemon) -> None:
    """Where it is counts, and not where it was when it was made."""
    daemon.bench.network("back")

    async def move() -> ContainerView:
        await daemon.workloads.create(container("a", "front"))
        daemon.engine.attach(AttachRequest(sandbox="a", network="back"))
        daemon.engine.detach([DetachRequest(sandbox="a", network="front")])
        daemon.engine.remove_network("front")
        await daemon.workloads.stop("a")
        return await daemon.workloads.start("a")

    view = asyncio.run(move())
    assert (view.status, list(view.addresses)) == ("running", ["back"])


def test_one_whose_network_is_gone_is_not_started_without_it(daemon: Daemon) -> None:
    asyncio.run(daemon.workloads.create(container("a", "front")))
    asyncio.run(daemon.workloads.stop("a"))

    async def remove() -> None:
        daemon.engine.remove_network("front", force=True)

    asyncio.run(remove())
    with pytest.raises(NotFoundError, match="'front' any more") as refusal:
        asyncio.run(daemon.workloads.start("a"))
    assert refusal.value.field == "network"
    assert daemon.workloads.view("a").status == "exited"


class TestWhatIsKnownOfItsEnd:
    def test_is_in_its_view(self, daemon: Daemon) -> None:
        asyncio.run(daemon.workloads.create(container("a", "front")))
        [identity] = daemon.engine.intent.containers
        check = {"started_at": 1.0, "finished_at": 2.0, "exit_code": 9, "output": "no db\n"}
        daemon.runtime.told[identity] = {
            "status": "exited",
            "exit_code": 137,
            "oom_killed": True,
            "error": "why",
            "health": "unhealthy",
            "health_log": (check,),
        }
        view = daemon.workloads.view("a")
        assert (view.exit_code, view.oom_killed, view.error) == (137, True, "why")
        assert [msgspec.structs.asdict(found) for found in view.health_log] == [check]

    def test_is_told_with_it(self, daemon: Daemon) -> None:
        asyncio.run(daemon.workloads.create(container("a", "front")))
        [identity] = daemon.engine.intent.containers
        container_monitor = daemon.workloads.container_monitor
        assert container_monitor is not None
        check = {"started_at": 1.0, "finished_at": 2.0, "exit_code": 9, "output": "no db\n"}
        daemon.runtime.told[identity] = {"health": "unhealthy", "health_log": (check,)}
        container_monitor.look(identity)
        daemon.runtime.end(identity, exit_code=137)
        daemon.runtime.told[identity]["oom_killed"] = True
        container_monitor.look(identity)
        ill, ended = (event.detail for event in list(daemon.engine.events.since(0))[-2:])
        assert (ill["exit_code"], ill["output"]) == ("9", "no db")
        assert (ended["exit_code"], ended["oom_killed"]) == ("137", "true")


def test_a_line_of_hosts_that_is_none_is_refused_before_anything_is_made(daemon: Daemon, caplog) -> None:
    with pytest.raises(InvalidError, match="'b' is not an IP address") as refusal:
        asyncio.run(daemon.workloads.create(container("web", "front", hosts={"a": "b"})))
    assert refusal.value.field == "spec.hosts[0]"
    assert list(daemon.engine.events.since(0))[-1].kind == "network.created"
    assert caplog.text == ""
