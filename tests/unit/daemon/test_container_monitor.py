"""What becomes of containers by themselves: what is told of it, and what their endpoints lose and get back."""

import asyncio
import fcntl
import os
import threading
from collections.abc import Callable

import pytest

from harness.engines import publish, subnets
from sealane.containers.changes import PIPE_BYTES, Changes, tell
from sealane.containers.runtime import Recovered
from sealane.containers.store import ContainerState
from sealane.daemon import container_monitor, maintenance, workloads
from sealane.engine.errors import ConflictError, ExistsError
from sealane.engine.errors import NotFoundError as EngineNotFound
from sealane.kernel.state import HOST
from sealane.store.base import StoreError
from sealane.wire.requests import AttachRequest
from unit.daemon.recording import Daemon, container


@pytest.fixture
def daemon() -> Daemon:
    made = Daemon()
    made.bench.network("front", subnets=subnets("10.1.0.0/24"))
    return made


def create(daemon: Daemon, name: str, *, port: int = 0, **fields: object) -> str:
    """A container on `front`; its id."""
    ports = [publish(port, 80)] if port else []
    networks = [] if "network_mode" in fields else ["front"]
    asyncio.run(daemon.workloads.create(container(name, *networks, publish=ports, **fields)))
    found = daemon.engine.intent.container_named(name)
    assert found is not None
    return found.id


def look(daemon: Daemon, identity: str) -> None:
    assert daemon.workloads.container_monitor is not None
    daemon.workloads.container_monitor.look(identity)


def told(daemon: Daemon, name: str = "web") -> list[str]:
    """Events about a container, without their families' name."""
    events = (e for e in daemon.engine.events.since(0) if e.subject == name)
    return [e.kind.removeprefix("container.") for e in events if e.kind.startswith("container.")]


def states(daemon: Daemon) -> dict[str, str]:
    return {e.sandbox: e.state for e in daemon.engine.endpoints()}


def published(daemon: Daemon) -> set[str]:
    """Elements of the maps by which a port is published."""
    keys = daemon.bench.kernel.state[HOST]
    return {key[2] for key in keys if key[0] == "nft-element" and str(key[2]).startswith("publish")}


class TestWhatIsTold:
    def test_a_start_and_a_stop(self, daemon: Daemon) -> None:
        create(daemon, "web")
        asyncio.run(daemon.workloads.stop("web"))
        assert told(daemon) == ["started", "healthy", "exited", "stopped"]

    def test_an_end_of_its_own_with_its_exit_code(self, daemon: Daemon) -> None:
        identity = create(daemon, "web")
        daemon.runtime.end(identity, exit_code=3)
        look(daemon, identity)
        [event] = [e for e in daemon.engine.events.since(0) if e.kind == "container.exited"]
        assert event.detail == {"id": identity, "exit_code": "3"}

    def test_a_restart_by_its_policy(self, daemon: Daemon) -> None:
        identity = create(daemon, "web")
        daemon.runtime.end(identity)
        daemon.runtime.come_back(identity, restarts=1)
        look(daemon, identity)
        assert told(daemon) == ["started", "healthy", "restarted"]

    def test_health_as_it_changes(self, daemon: Daemon) -> None:
        identity = create(daemon, "web")
        for health in ("starting", "healthy", "healthy", "unhealthy", "healthy"):
            daemon.runtime.told[identity]["health"] = health
            look(daemon, identity)
        assert told(daemon) == ["started", "healthy", "healthy", "unhealthy", "healthy"]

    def test_nothing_twice_however_often_somebody_looks(self, daemon: Daemon) -> None:
        identity = create(daemon, "web")
        daemon.runtime.end(identity)
        for _ in range(3):
            look(daemon, identity)
        assert told(daemon) == ["started", "healthy", "exited"]

    def test_one_that_came_and_went_between_two_looks(self, daemon: Daemon) -> None:
        plain = daemon.runtime.start

        def start(identity: str) -> int:
            plain(identity)
            daemon.runtime.end(identity)
            return 0

        daemon.runtime.start = start  # type: ignore[method-assign]
        create(daemon, "web")
        assert told(daemon) == ["started", "exited"]

    def test_endpoints_of_one_that_is_removed_or_was_never_started_go(self, daemon: Daemon) -> None:
        create(daemon, "web")
        asyncio.run(daemon.workloads.remove("web", force=True))

        def refuse(identity: str) -> int:
            raise OSError(28, "No space left on device")

        daemon.runtime.start = refuse  # type: ignore[method-assign]
        with pytest.raises(Exception, match="No space"):
            create(daemon, "other")
        kinds = [e.kind for e in daemon.engine.events.since(0)]
        assert kinds.count("endpoint.attached") == kinds.count("endpoint.detached") == 2


class TestDormantEndpoints:
    def test_an_ended_container_publishes_nothing_and_keeps_its_address(self, daemon: Daemon) -> None:
        identity = create(daemon, "web", port=8080)
        addresses = daemon.engine.endpoints()[0].addresses
        assert published(daemon)
        daemon.runtime.end(identity)
        look(daemon, identity)
        assert states(daemon) == {"web": "dormant"}
        assert not published(daemon)
        assert daemon.workloads.view("web").ports == []
        asyncio.run(daemon.workloads.start("web"))
        assert states(daemon) == {"web": "up"}
        assert published(daemon)
        assert daemon.engine.endpoints()[0].addresses == addresses

    def test_its_port_may_be_somebody_elses_meanwhile(self, daemon: Daemon) -> None:
        create(daemon, "web", port=8080)
        asyncio.run(daemon.workloads.stop("web"))
        create(daemon, "other", port=8080)
        with pytest.raises(ConflictError, match=r"8080.*endpoint other") as refusal:
            asyncio.run(daemon.workloads.start("web"))
        assert refusal.value.field == "publish"
        assert states(daemon) == {"web": "dormant", "other": "up"}
        assert daemon.workloads.view("web").status == "exited"
        asyncio.run(daemon.workloads.remove("other", force=True))
        asyncio.run(daemon.workloads.start("web"))
        assert states(daemon) == {"web": "up"}

    def test_one_that_waits_to_be_restarted_keeps_all(self, daemon: Daemon) -> None:
        identity = create(daemon, "web", port=8080)
        daemon.runtime.end(identity)
        daemon.runtime.told[identity]["status"] = "restarting"
        look(daemon, identity)
        assert states(daemon) == {"web": "up"}

    def test_who_shares_a_network_keeps_it_alive(self, daemon: Daemon) -> None:
        web = create(daemon, "web", port=8080)
        side = create(daemon, "side", network_mode="container:web")
        daemon.runtime.end(web)
        look(daemon, web)
        assert states(daemon) == {"web": "up"}
        daemon.runtime.end(side)
        look(daemon, side)
        assert states(daemon) == {"web": "dormant"}
        asyncio.run(daemon.workloads.start("side"))
        assert states(daemon) == {"web": "up"}

    def test_an_ephemeral_port_is_chosen_anew_where_somebody_has_taken_it(self, daemon: Daemon) -> None:
        ports = [publish(0, 80), publish(0, 81)]
        asyncio.run(daemon.workloads.create(container("web", "front", publish=ports)))
        before = daemon.workloads.view("web").ports
        asyncio.run(daemon.workloads.stop("web"))
        taken = int(before[0].removeprefix("*:").partition("-")[0])
        create(daemon, "other", port=taken)
        asyncio.run(daemon.workloads.start("web"))
        after = daemon.workloads.view("web").ports
        assert after[1] == before[1]
        assert after[0] != before[0]
        assert after[0].endswith("->80/tcp")
        assert states(daemon) == {"web": "up", "other": "up"}

    def test_ports_of_two_of_its_endpoints_do_not_meet(self, daemon: Daemon) -> None:
        """Free while it rests, one port may be published twice for it."""
        daemon.bench.network("back", subnets=subnets("10.2.0.0/24"))
        identity = create(daemon, "web", port=8080)
        asyncio.run(daemon.workloads.stop("web"))

        async def attach() -> None:
            daemon.engine.attach(AttachRequest(sandbox="web", network="back", publish=[publish(8080, 81)]))

        asyncio.run(attach())
        daemon.workloads.container_monitor._settle(daemon.engine.intent.containers[identity].sandbox)  # type: ignore[union-attr]
        before = list(daemon.engine.intent.records())
        with pytest.raises(ConflictError, match="8080"):
            asyncio.run(daemon.workloads.start("web"))
        assert list(daemon.engine.intent.records()) == before
        asyncio.run(daemon.workloads.remove("web", force=True))
        assert daemon.engine.endpoints() == []

    def test_the_last_of_those_that_share_takes_names_and_ports_along(self, daemon: Daemon) -> None:
        web = create(daemon, "web", port=8080)
        create(daemon, "side", network_mode="container:web")
        daemon.runtime.end(web)
        look(daemon, web)
        asyncio.run(daemon.workloads.remove("side", force=True))
        assert states(daemon) == {"web": "dormant"}

    def test_a_guest_wakes_them_and_is_refused_where_a_port_is_taken(self, daemon: Daemon) -> None:
        create(daemon, "web", port=8080)
        asyncio.run(daemon.workloads.stop("web"))
        create(daemon, "other", port=8080)
        with pytest.raises(ConflictError, match="endpoint other"):
            create(daemon, "side", network_mode="container:web")
        assert daemon.engine.intent.container_named("side") is None
        asyncio.run(daemon.workloads.remove("other", force=True))
        create(daemon, "side", network_mode="container:web")
        assert states(daemon) == {"web": "up"}

    def test_a_look_at_a_guest_does_not_put_to_rest_what_is_being_started(self, daemon: Daemon) -> None:
        create(daemon, "web", port=8080)
        side = create(daemon, "side", network_mode="container:web")
        for name in ("web", "side"):
            asyncio.run(daemon.workloads.stop(name))
        plain, seen = daemon.runtime.start, []

        def start(identity: str) -> int:
            look(daemon, side)
            seen.append(states(daemon)["web"])
            return plain(identity)

        daemon.runtime.start = start  # type: ignore[method-assign]
        asyncio.run(daemon.workloads.start("web"))
        assert seen == ["up"]
        assert states(daemon) == {"web": "up"}

    def test_what_died_with_its_supervisor_is_told_and_rests(self, daemon: Daemon) -> None:
        gone, back = create(daemon, "gone", port=8080), create(daemon, "back", port=8081)

        def recover() -> tuple[Recovered, ...]:
            for identity in (gone, back):
                daemon.runtime.end(identity, exit_code=137)
            return Recovered(gone, restart=False), Recovered(back, restart=True)

        daemon.runtime.recover = recover  # type: ignore[method-assign, assignment]
        asyncio.run(daemon.workloads.recover(sweep=False))
        assert told(daemon, "gone")[-1] == "exited"
        assert told(daemon, "back")[-2:] == ["started", "healthy"]
        assert states(daemon) == {"gone": "dormant", "back": "up"}

    def test_one_that_cannot_be_started_again_stays_so(self, daemon: Daemon) -> None:
        create(daemon, "web", port=8080)
        asyncio.run(daemon.workloads.stop("web"))

        def refuse(identity: str) -> int:
            raise OSError(28, "No space left on device")

        daemon.runtime.start = refuse  # type: ignore[method-assign]
        with pytest.raises(Exception, match="No space"):
            asyncio.run(daemon.workloads.start("web"))
        assert states(daemon) == {"web": "dormant"}

    def test_it_is_still_so_after_a_restart_of_the_daemon(self, daemon: Daemon) -> None:
        create(daemon, "web", port=8080)
        asyncio.run(daemon.workloads.stop("web"))
        again = daemon.bench.restart()
        assert [e.state for e in again.engine.endpoints()] == ["dormant"]
        assert (
            again.engine.intent.port_holder(next(iter(again.engine.intent.endpoints.values())).ports[0])
            is None
        )


class TestWhatCannotBeDone:
    def test_a_store_that_is_full_for_a_while_is_tried_again(
        self, daemon: Daemon, tmp_path, monkeypatch
    ) -> None:
        monkeypatch.setattr(container_monitor, "RETRY_S", 0.01)
        identity = create(daemon, "web", port=8080)

        def full(*_: object) -> int:
            raise StoreError("full", "no space left on device")

        async def steps() -> None:
            assert daemon.workloads.container_monitor is not None
            daemon.runtime.changes_path = str(tmp_path / "changes")
            stop = daemon.workloads.container_monitor.start(asyncio.get_running_loop())
            commit, daemon.engine.store.commit = daemon.engine.store.commit, full
            daemon.runtime.end(identity)
            look(daemon, identity)
            assert states(daemon) == {"web": "up"}
            daemon.engine.store.commit = commit
            await asyncio.sleep(0.05)
            assert states(daemon) == {"web": "dormant"}
            stop()

        asyncio.run(steps())

    def test_one_whose_files_cannot_be_read_keeps_what_it_has(self, daemon: Daemon, tmp_path) -> None:
        create(daemon, "web", port=8080)

        def refuse(identity: str) -> None:
            raise OSError(5, "Input/output error")

        daemon.runtime.state = refuse  # type: ignore[method-assign, assignment]

        async def steps() -> None:
            assert daemon.workloads.container_monitor is not None
            daemon.runtime.changes_path = str(tmp_path / "changes")
            daemon.workloads.container_monitor.start(asyncio.get_running_loop())()

        asyncio.run(steps())
        assert states(daemon) == {"web": "up"}


class TestBesideALoop:
    def test_shims_are_heard(self, daemon: Daemon, tmp_path) -> None:
        async def steps() -> None:
            assert daemon.workloads.container_monitor is not None
            daemon.runtime.changes_path = str(tmp_path / "changes")
            stop = daemon.workloads.container_monitor.start(asyncio.get_running_loop())
            await daemon.workloads.create(container("web", "front"))
            found = daemon.engine.intent.container_named("web")
            assert found is not None
            daemon.runtime.end(found.id)
            tell(daemon.runtime.changes_path, "0" * 32)
            tell(daemon.runtime.changes_path, found.id)
            await until(lambda: states(daemon) == {"web": "dormant"})
            # It joins another network meanwhile, where it does not run either.
            daemon.bench.network("back", subnets=subnets("10.2.0.0/24"))
            daemon.engine.attach(AttachRequest(sandbox="web", network="back"))
            await until(lambda: [e.state for e in daemon.engine.endpoints()] == ["dormant", "dormant"])
            stop()

        asyncio.run(steps())

    def test_what_was_there_at_the_start_is_no_news(self, daemon: Daemon, tmp_path) -> None:
        create(daemon, "web")
        ended = create(daemon, "ended")
        daemon.runtime.end(ended)
        daemon.workloads.container_monitor._known.clear()  # type: ignore[union-attr]
        before = told(daemon), told(daemon, "ended")

        async def steps() -> None:
            assert daemon.workloads.container_monitor is not None
            daemon.runtime.changes_path = str(tmp_path / "changes")
            stop = daemon.workloads.container_monitor.start(asyncio.get_running_loop())
            daemon.workloads.container_monitor.settle_all()
            stop()

        asyncio.run(steps())
        assert (told(daemon), told(daemon, "ended")) == before
        assert states(daemon) == {"web": "up", "ended": "dormant"}

    def test_a_hint_that_was_lost_is_made_up_for(self, daemon: Daemon, tmp_path, monkeypatch) -> None:
        """Somebody cleaned up /run, and the container's supervisor found no FIFO."""
        monkeypatch.setattr(container_monitor, "LOOK_S", 0.02)
        identity = create(daemon, "web", port=8080)

        async def steps() -> None:
            assert daemon.workloads.container_monitor is not None
            daemon.runtime.changes_path = str(tmp_path / "changes")
            stop = daemon.workloads.container_monitor.start(asyncio.get_running_loop())
            os.unlink(daemon.runtime.changes_path)
            daemon.runtime.end(identity)
            await until(lambda: states(daemon) == {"web": "dormant"})
            await until(lambda: os.path.exists(daemon.runtime.changes_path))
            await daemon.workloads.start("web")
            daemon.runtime.end(identity)
            tell(daemon.runtime.changes_path, identity)
            await until(lambda: states(daemon) == {"web": "dormant"})
            stop()

        asyncio.run(steps())

    def test_without_a_place_for_the_fifo_it_starts_all_the_same(
        self, daemon: Daemon, tmp_path, caplog
    ) -> None:
        async def steps() -> None:
            assert daemon.workloads.container_monitor is not None
            daemon.runtime.changes_path = str(tmp_path / "none" / "changes")
            daemon.workloads.container_monitor.start(asyncio.get_running_loop())()

        asyncio.run(steps())
        assert "No such file" in caplog.text

    def test_who_has_lost_his_supervisor_is_buried_and_comes_back_by_his_policy(
        self, daemon: Daemon, tmp_path, monkeypatch
    ) -> None:
        monkeypatch.setattr(container_monitor, "LOOK_S", 0.02)
        identity = create(daemon, "web", port=8080)
        found: list[Recovered] = []

        def recover() -> tuple[Recovered, ...]:
            daemon.runtime.end(identity, exit_code=137)
            found.append(Recovered(identity, restart=True))
            return (found[-1],)

        daemon.runtime.recover = recover  # type: ignore[method-assign, assignment]

        async def steps() -> None:
            assert daemon.workloads.container_monitor is not None
            daemon.runtime.changes_path = str(tmp_path / "changes")
            stop = daemon.workloads.container_monitor.start(asyncio.get_running_loop())
            daemon.runtime.told[identity]["is_lost"] = True
            await until(lambda: bool(found))
            await until(lambda: states(daemon) == {"web": "up"} and identity in daemon.runtime.running)
            stop()

        asyncio.run(steps())
        assert told(daemon) == ["started", "healthy", "exited", "started", "healthy"]

    def test_one_that_is_lost_while_others_are_revived_is_revived_as_well(self, daemon: Daemon) -> None:
        first, second = create(daemon, "a"), create(daemon, "b")
        aftercare_ = daemon.workloads._parts.maintenance
        looked, gate = threading.Event(), threading.Event()
        found: list[set[str]] = []
        lost = {first}

        def recover() -> tuple[Recovered, ...]:
            found.append(set(lost))
            looked.set()
            assert gate.wait(100)
            return ()

        daemon.runtime.recover = recover  # type: ignore[method-assign, assignment]

        async def steps() -> None:
            aftercare_.lost(first)
            assert await asyncio.to_thread(looked.wait, 20)
            lost.add(second)
            aftercare_.lost(second)
            gate.set()
            await until(lambda: len(found) == 2 and not aftercare_._reviving)

        asyncio.run(steps())
        assert found == [{first}, {first, second}]

    @pytest.mark.parametrize("kept", [True, False])
    def test_one_that_is_not_to_be_kept_goes_after_its_end(
        self, daemon: Daemon, tmp_path, monkeypatch, kept
    ) -> None:
        monkeypatch.setattr(maintenance, "AUTO_REMOVE_S", 0.01)
        identity = create(daemon, "web", port=8080, auto_remove=not kept)

        async def steps() -> None:
            assert daemon.workloads.container_monitor is not None
            daemon.runtime.changes_path = str(tmp_path / "changes")
            stop = daemon.workloads.container_monitor.start(asyncio.get_running_loop())
            daemon.runtime.end(identity)
            tell(daemon.runtime.changes_path, identity)
            await until(lambda: states(daemon) == ({"web": "dormant"} if kept else {}))
            await asyncio.sleep(0.05)
            stop()

        asyncio.run(steps())
        assert (daemon.engine.intent.container_named("web") is not None) == kept

    def test_one_that_is_not_to_be_kept_stays_while_somebody_attends_or_shares_it(
        self, daemon: Daemon, tmp_path, monkeypatch
    ) -> None:
        monkeypatch.setattr(maintenance, "AUTO_REMOVE_S", 0.01)
        identity = create(daemon, "web", auto_remove=True)
        create(daemon, "guest", network_mode="container:web")

        def is_there() -> bool:
            return daemon.engine.intent.container_named("web") is not None

        async def steps() -> None:
            assert daemon.workloads.container_monitor is not None
            daemon.runtime.changes_path = str(tmp_path / "changes")
            stop = daemon.workloads.container_monitor.start(asyncio.get_running_loop())
            reading = daemon.workloads.logs("web", follow=True, tail=None, since=None)
            assert (await anext(reading)).text == "hello"
            daemon.runtime.end(identity)
            tell(daemon.runtime.changes_path, identity)
            await daemon.workloads.remove("guest", force=True)
            await asyncio.sleep(0.05)
            assert is_there()
            await reading.aclose()
            await daemon.workloads.create(container("guest", network_mode="container:web"))
            await asyncio.sleep(0.05)
            assert is_there()
            await daemon.workloads.remove("guest", force=True)
            await until(lambda: not is_there())
            stop()

        asyncio.run(steps())

    def test_nothing_is_concluded_of_what_cannot_be_read(self, daemon: Daemon) -> None:
        identity = create(daemon, "web", port=8080)
        create(daemon, "other", port=8081)
        for before in ("up", "dormant"):
            daemon.runtime.told[identity]["status"] = "dead"
            look(daemon, identity)
            assert states(daemon)["web"] == before
            assert asyncio.run(daemon.workloads.get("web")).status == "dead"
            del daemon.runtime.told[identity]["status"]
            daemon.runtime.end(identity)
            look(daemon, identity)
        asyncio.run(daemon.workloads.remove("web"))
        assert states(daemon) == {"other": "up"}

    def test_one_at_a_time_is_tried_again_however_often_somebody_looks(
        self, daemon: Daemon, tmp_path, monkeypatch, caplog
    ) -> None:
        monkeypatch.setattr(container_monitor, "RETRY_S", 0.02)
        identity = create(daemon, "web", port=8080)

        def full(*_: object) -> None:
            raise StoreError("full", "no space left on device")

        async def steps() -> None:
            assert daemon.workloads.container_monitor is not None
            daemon.runtime.changes_path = str(tmp_path / "changes")
            stop = daemon.workloads.container_monitor.start(asyncio.get_running_loop())
            monkeypatch.setattr(daemon.engine.store, "commit", full)
            daemon.runtime.end(identity)
            for _ in range(20):
                look(daemon, identity)
            assert caplog.text.count("no space left") == 1
            monkeypatch.undo()
            await until(lambda: states(daemon) == {"web": "dormant"})
            stop()

        asyncio.run(steps())

    def test_the_name_of_one_that_is_not_to_be_kept_is_free_at_its_end(self, daemon: Daemon) -> None:
        first = create(daemon, "web", auto_remove=True)
        with pytest.raises(ExistsError):
            asyncio.run(daemon.workloads.create(container("web", "front"), is_new=True))
        daemon.runtime.end(first)
        asyncio.run(daemon.workloads.create(container("web", "front"), is_new=True))
        [present] = daemon.engine.intent.containers
        assert present != first

    def test_who_waits_for_one_that_loses_its_supervisor_learns_its_end(
        self, daemon: Daemon, monkeypatch
    ) -> None:
        monkeypatch.setattr(workloads, "LOST_LOOK_S", 0.01)
        identity = create(daemon, "web")

        def recover() -> tuple[Recovered, ...]:
            daemon.runtime.end(identity, exit_code=137)
            daemon.runtime.told[identity]["is_lost"] = False
            return (Recovered(identity, restart=False),)

        daemon.runtime.recover = recover  # type: ignore[method-assign, assignment]
        daemon.runtime.told[identity] |= {"is_lost": True, "supervised": False}
        view = asyncio.run(daemon.workloads.wait("web"))
        assert (view.status, view.exit_code) == ("exited", 137)

    def test_who_waits_learns_the_exit_code_though_it_is_removed_at_its_end(self, daemon: Daemon) -> None:
        identity = create(daemon, "web")
        look_at = daemon.runtime.wait

        def end_and_be_removed(identity: str, timeout: float | None = None) -> ContainerState:
            daemon.runtime.end(identity, exit_code=3)
            seen = look_at(identity, timeout)
            daemon.runtime.remove(identity)
            return seen

        daemon.runtime.wait = end_and_be_removed  # type: ignore[method-assign]
        view = asyncio.run(daemon.workloads.wait(identity))
        assert (view.status, view.exit_code) == ("exited", 3)

    def test_who_waits_for_one_that_is_removed_is_told_so(self, daemon: Daemon) -> None:
        create(daemon, "web")

        async def steps() -> None:
            waiting = asyncio.create_task(daemon.workloads.wait("web"))
            await asyncio.sleep(0.02)
            await daemon.workloads.remove("web", force=True)
            with pytest.raises(EngineNotFound):
                await waiting

        asyncio.run(steps())


async def until(is_so: Callable[[], bool]) -> None:
    for _ in range(1000):
        if is_so():
            return
        await asyncio.sleep(0.002)
    pytest.fail("it did not come to be")


class TestTheFifo:
    def test_tells_each_id_once(self, tmp_path) -> None:
        changes = Changes(str(tmp_path / "changes"))
        for name in ("a", "b", "a"):
            tell(str(tmp_path / "changes"), name * 32)
        assert changes.read() == ["a" * 32, "b" * 32]
        assert changes.read() == []
        changes.close()

    def test_nobody_waits_where_nobody_reads(self, tmp_path) -> None:
        tell(str(tmp_path / "none"), "a" * 32)
        Changes(str(tmp_path / "changes")).close()
        tell(str(tmp_path / "changes"), "a" * 32)

    @pytest.mark.parametrize("kind", ["file", "symlink", "gone"])
    def test_what_stands_in_its_place_is_no_fifo_and_harms_nobody(self, tmp_path, kind) -> None:
        path, other = tmp_path / "changes", tmp_path / "other"
        other.write_text("precious")
        if kind == "file":
            path.write_text("")
        elif kind == "symlink":
            path.symlink_to(other)
        tell(str(path), "a" * 32)
        assert other.read_text() == "precious"
        changes = Changes(str(path))
        tell(str(path), "a" * 32)
        assert changes.read() == ["a" * 32]
        assert other.read_text() == "precious"
        changes.close()

    @pytest.mark.parametrize("size", [4096, 65536])
    def test_a_full_one_means_that_anything_may_have_changed(self, tmp_path, monkeypatch, size) -> None:
        real = os.open
        monkeypatch.setattr(os, "open", lambda *args: _shrunk(real(*args), size))
        changes = Changes(str(tmp_path / "changes"))
        monkeypatch.undo()
        for _ in range(PIPE_BYTES // 33 + 10):
            tell(str(tmp_path / "changes"), "a" * 32)
        assert changes.read() is None
        assert changes.read() == []
        changes.close()


def _shrunk(descriptor: int, size: int) -> int:
    fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, size)
    return descriptor
