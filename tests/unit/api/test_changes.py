"""Followers of the change feed: what they hold equals the intent, whenever they come, stop and resume."""

import asyncio
from collections.abc import AsyncGenerator

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.engines import Bench, publish
from sealane.api.follow import changes
from sealane.limits import FEED_CHANGES_KEPT
from sealane.model.change import Put
from sealane.model.codec import encode
from sealane.model.container import Container
from sealane.model.endpoint import Sandbox
from sealane.model.kinds import kind_of
from sealane.model.network import Network
from sealane.wire.requests import DetachRequest
from sealane.wire.views import ChangesView


class Follower:
    """A client: its records by kind and id, and the revision to resume from."""

    def __init__(self) -> None:
        self.records: dict[tuple[str, str], dict] = {}
        self.revision: int | None = None
        self.snapshots = 0

    def take(self, view: ChangesView) -> None:
        if view.is_snapshot:
            self.records.clear()
            self.snapshots += 1
        for change in view.changes:
            key = (change.kind, change.id)
            if change.verb == "put":
                assert change.record is not None
                self.records[key] = change.record
            else:
                del self.records[key]
        assert self.revision is None or view.is_snapshot or view.revision > self.revision
        self.revision = view.revision

    async def read(self, bench: Bench) -> None:
        async for view in changes(bench.engine, self.revision, follow=False):
            # As it goes over the socket.
            self.take(msgspec.json.decode(msgspec.json.encode(view), type=ChangesView))


def intent_of(bench: Bench) -> dict[tuple[str, str], dict]:
    records = bench.engine.intent.records()
    return {(kind_of(r).name, r.id): msgspec.json.decode(encode(r))["record"] for r in records}


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(["attach", "detach", "network", "read", "new"]), max_size=25))
def test_a_follower_has_the_intent_whenever_it_has_read(steps: list[str]) -> None:
    bench = Bench()
    bench.network("front")
    followers = [Follower()]
    for number, step in enumerate(steps):
        match step:
            case "attach":
                bench.attach(f"/run/netns/{number % 3}", publish=[publish(8000 + number % 3, 80)])
            case "detach":
                bench.engine.detach([DetachRequest(sandbox=f"/run/netns/{number % 3}")])
            case "network":
                bench.network(f"net{number}")
            case "new":
                followers.append(Follower())
            case "read":
                asyncio.run(followers[-1].read(bench))
                assert followers[-1].records == intent_of(bench)
    for follower in followers:
        asyncio.run(follower.read(bench))
        assert follower.records == intent_of(bench)
        assert follower.snapshots == 1, "it resumes, and does not list anew"


def test_one_that_fell_behind_gets_everything_anew() -> None:
    bench = Bench()
    follower = Follower()
    bench.network("front")
    asyncio.run(follower.read(bench))
    records = [Put(Network(id=f"n{n}", name=f"n{n}", driver="none")) for n in range(FEED_CHANGES_KEPT)]
    bench.engine.commit_then_apply(records)
    bench.network("back")
    asyncio.run(follower.read(bench))
    assert follower.snapshots == 2
    assert follower.records == intent_of(bench)


def test_a_revision_of_another_store_gets_everything_anew() -> None:
    bench = Bench()
    bench.network("front")
    follower = Follower()
    follower.revision = 4711
    asyncio.run(follower.read(bench))
    assert follower.records == intent_of(bench)


def test_a_containers_spec_is_an_object() -> None:
    bench = Bench()
    container = Container(id="c1", name="web", sandbox="s1", spec=msgspec.Raw(b'{"image": "nginx"}'))
    bench.engine.commit_then_apply([Put(Sandbox(id="s1", name="web", netns=None)), Put(container)])
    follower = Follower()
    asyncio.run(follower.read(bench))
    assert follower.records["container", "c1"]["spec"] == {"image": "nginx"}


def test_one_that_follows_is_told_as_it_happens_and_leaves_nothing_behind() -> None:
    bench = Bench()
    seen: list[list[tuple[str, str]]] = []

    async def follow() -> None:
        stream: AsyncGenerator[ChangesView, None] = changes(bench.engine, None, follow=True)
        async with asyncio.timeout(60):
            async for view in stream:
                seen.append([(change.verb, change.kind) for change in view.changes])
                if len(seen) == 1:
                    asyncio.get_running_loop().call_soon(bench.network, "front")
                elif len(seen) == 2:
                    asyncio.get_running_loop().call_soon(bench.engine.remove_network, "front")
                else:
                    break
        await stream.aclose()

    asyncio.run(follow())
    assert seen == [[], [("put", "network")], [("delete", "network")]]
    assert bench.engine.feed._readers == []
