"""Positions of a watch, and what it does when its stream breaks: streams are scripts here, etcd's in tests/real."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealane.etcd import etcd_pb2 as pb
from sealane.etcd import rpc, watch
from sealane.etcd.errors import CompactedError, DeniedError, EtcdError, InvalidError, UnavailableError
from sealane.etcd.records import Event
from sealane.etcd.watch import Listener, Position, Watcher


def event(revision: int, key: bytes = b"k") -> Event:
    return Event(key, b"", revision)


def test_a_whole_answer_is_delivered_at_once() -> None:
    position = Position(5)
    events = [event(5), event(6)]
    assert position.take(events, is_fragment=False) == events
    assert position.next_revision == 7


def test_the_last_revision_of_a_fragment_waits_for_the_rest() -> None:
    position = Position(1)
    assert position.take([event(1), event(2, b"a")], is_fragment=True) == [event(1)]
    assert position.next_revision == 2
    assert position.take([event(2, b"b")], is_fragment=True) == []
    assert position.take([event(2, b"c"), event(3)], is_fragment=False) == [
        event(2, b"a"),
        event(2, b"b"),
        event(2, b"c"),
        event(3),
    ]
    assert position.next_revision == 4


def test_a_revision_cut_off_by_a_broken_stream_is_read_again_whole() -> None:
    position = Position(1)
    position.take([event(1), event(2, b"a")], is_fragment=True)
    position.lose_stream()
    assert position.next_revision == 2
    assert position.take([event(2, b"a"), event(2, b"b")], is_fragment=False) == [
        event(2, b"a"),
        event(2, b"b"),
    ]


def test_events_from_before_the_position_are_dropped() -> None:
    position = Position(5)
    assert position.take([event(3), event(4), event(5)], is_fragment=False) == [event(5)]
    assert position.take([event(5)], is_fragment=False) == []
    assert position.next_revision == 6


def test_an_answer_without_events_moves_nothing() -> None:
    position = Position(5)
    assert position.take([], is_fragment=False) == position.take([], is_fragment=True) == []
    assert position.next_revision == 5


@given(st.data())
def test_however_an_answer_is_cut_and_broken_every_event_comes_once_and_in_order(data: st.DataObject) -> None:
    sizes = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=6))
    history = [
        event(revision, b"%d" % number) for revision, size in enumerate(sizes, 1) for number in range(size)
    ]
    position, delivered = Position(1), []
    for _ in range(200):
        rest = [one for one in history if one.revision >= position.next_revision]
        if not rest:
            break
        while rest:
            if data.draw(st.integers(0, 4)) == 0:
                position.lose_stream()
                break
            count = data.draw(st.integers(1, len(rest)))
            part, rest = rest[:count], rest[count:]
            ready = position.take(part, is_fragment=bool(rest))
            if ready:
                revisions = {one.revision for one in ready}
                assert [one for one in history if one.revision in revisions] == ready, "not whole revisions"
            delivered += ready
    else:
        return  # Chance broke every stream; what came is still a beginning of the history.
    assert delivered == history


def answer(*revisions: int, header: int = 0, **fields: Any) -> pb.WatchResponse:
    events = [pb.Event(kv=pb.KeyValue(key=b"k", mod_revision=revision)) for revision in revisions]
    return pb.WatchResponse(header=pb.ResponseHeader(revision=header), events=events, **fields)


CREATED = answer(created=True, header=10)
HANG = object()


class ScriptedStream:
    def __init__(self, script: Sequence[object]) -> None:
        self._script = list(script)
        self.requests: list[pb.WatchRequest] = []

    async def write(self, request: pb.WatchRequest) -> None:
        self.requests.append(request)

    async def read(self) -> object:
        step = self._script.pop(0) if self._script else HANG
        if step is HANG:
            await asyncio.Event().wait()
        if isinstance(step, Exception):
            raise step
        return step


class ScriptedRpc:
    def __init__(self, *scripts: Sequence[object], user: bool = False) -> None:
        self.streams = [ScriptedStream(script) for script in scripts]
        self.opened = 0
        self.forgotten = 0
        self._user = user

    @asynccontextmanager
    async def stream(self, method: object, opening_s: float) -> AsyncIterator[ScriptedStream]:
        assert method is rpc.WATCH
        self.opened += 1
        yield self.streams[self.opened - 1]

    def has_user(self) -> bool:
        return self._user

    def forget_token(self) -> None:
        self.forgotten += 1

    def starts(self) -> list[int]:
        return [stream.requests[0].create_request.start_revision for stream in self.streams[: self.opened]]


class Seen:
    def __init__(self) -> None:
        self.events: list[int] = []
        self.ends: list[Exception] = []
        self.broken: list[EtcdError] = []
        self.opens: list[int] = []

    def listener(self) -> Listener:
        return Listener(
            lambda events: self.events.extend(event.revision for event in events),
            self.ends.append,
            self.broken.append,
            self.opens.append,
        )


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpc, "PAUSE_MIN_S", 0.0)
    monkeypatch.setattr(rpc, "PAUSE_MAX_S", 0.0)


def run(scripted: ScriptedRpc, from_revision: int = 5, listener: Listener | None = None) -> Seen:
    """Until `on_end`."""
    seen = Seen()
    asyncio.run(Watcher(scripted, b"/a/", from_revision, listener or seen.listener()).run())  # type: ignore[arg-type]
    return seen


COMPACTED = answer(canceled=True, compact_revision=99)
"""Ends each script."""


def test_a_broken_stream_is_opened_again_after_the_last_event() -> None:
    scripted = ScriptedRpc(
        [CREATED, answer(5), answer(7, header=50), UnavailableError("Socket closed")],
        [CREATED, grpc.aio.EOF],
        [CREATED, answer(9), COMPACTED],
    )
    seen = run(scripted)
    assert scripted.starts() == [5, 8, 8]
    assert seen.events == [5, 7, 9]
    assert [str(error) for error in seen.broken] == ["Socket closed", "etcd ended the watch's stream"]
    assert seen.opens == [10, 10, 10]


def test_the_header_of_an_answer_does_not_move_the_position() -> None:
    """A progress answer may overtake events that are still to come (etcd#15220)."""
    scripted = ScriptedRpc(
        [CREATED, answer(header=1000), UnavailableError("gone")], [CREATED, answer(6), COMPACTED]
    )
    assert run(scripted).events == [6]
    assert scripted.starts() == [5, 5]


def test_compaction_is_reported_with_the_oldest_revision_kept() -> None:
    """etcd sends `created`, then `canceled`: no gRPC error."""
    [error] = run(ScriptedRpc([CREATED, COMPACTED])).ends
    assert isinstance(error, CompactedError)
    assert error.revision == 99


def test_compaction_in_the_first_answer_is_reported_too() -> None:
    [error] = run(ScriptedRpc([COMPACTED])).ends
    assert isinstance(error, CompactedError)


REFUSED = answer(canceled=True, cancel_reason="rpc error: code = PermissionDenied desc = permission denied")


NAMELESS = answer(canceled=True, cancel_reason="rpc error: code = InvalidArgument desc = user name is empty")


@pytest.mark.parametrize("refusal", [REFUSED, NAMELESS])
def test_without_a_user_a_refused_watch_ends(refusal: pb.WatchResponse) -> None:
    scripted = ScriptedRpc([refusal])
    [error] = run(scripted).ends
    assert isinstance(error, DeniedError)
    assert scripted.forgotten == 0


def test_with_a_user_a_refused_watch_renews_the_token_once() -> None:
    scripted = ScriptedRpc([REFUSED], [REFUSED], user=True)
    [error] = run(scripted).ends
    assert isinstance(error, DeniedError)
    assert scripted.forgotten == 1


def test_a_watch_that_was_open_may_renew_its_token_again() -> None:
    scripted = ScriptedRpc([REFUSED], [CREATED, grpc.aio.EOF], [REFUSED], [CREATED, COMPACTED], user=True)
    [error] = run(scripted).ends
    assert isinstance(error, CompactedError)
    assert scripted.forgotten == 2


def test_a_member_without_a_leader_is_only_a_broken_stream() -> None:
    lost = answer(canceled=True, cancel_reason="etcdserver: no leader")
    seen = run(ScriptedRpc([CREATED, lost], [CREATED, answer(5), COMPACTED]))
    assert seen.events == [5]
    assert "no leader" in str(seen.broken[0])


def test_an_unknown_reason_ends_the_watch_with_it() -> None:
    [error] = run(
        ScriptedRpc([answer(canceled=True, cancel_reason="mvcc: watcher duplicate ID provided")])
    ).ends
    assert isinstance(error, InvalidError)
    assert "duplicate ID" in str(error)


def test_a_stream_that_is_never_opened_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "OPEN_S", 0.01)
    seen = run(ScriptedRpc([HANG], [CREATED, COMPACTED]))
    assert "did not open the watch" in str(seen.broken[0])
    assert len(seen.ends) == 1


@pytest.mark.parametrize("which", ["on_events", "on_broken", "on_open"])
def test_a_callback_that_raises_ends_the_watch_with_its_error(which: str) -> None:
    """Going on would lose the events that it did not take."""
    ends: list[Exception] = []

    def fail(_argument: object) -> None:
        raise KeyError("bug")

    calls: dict[str, Any] = {"on_events": lambda _: None, "on_end": ends.append, which: fail}
    scripted = ScriptedRpc([CREATED, answer(5), UnavailableError("x")], [CREATED, COMPACTED])
    run(scripted, listener=Listener(**calls))
    assert [type(error) for error in ends] == [KeyError]


def test_an_on_end_that_raises_is_only_logged(caplog: pytest.LogCaptureFixture) -> None:
    def fail(_error: Exception) -> None:
        raise KeyError("bug")

    run(ScriptedRpc([COMPACTED]), listener=Listener(lambda _: None, fail))
    assert "on_end of the watch" in caplog.text
