"""Containers and further processes with somebody at their input and output."""

import asyncio
import contextlib
import json
import socket

import msgspec
import pytest

from harness.engines import publish
from sealane.containers.errors import LaunchError
from sealane.containers.frames import BEGUN, EXIT, Peer, frame
from sealane.engine.errors import ConflictError, ExistsError, InvalidError, NotFoundError
from sealane.wire.requests import ExecRequest
from unit.daemon.recording import Daemon, container


@pytest.fixture
def daemon():
    made = Daemon()
    made.bench.network("front")
    return made


@pytest.fixture
def ends():
    mine, theirs = socket.socketpair()
    yield mine, theirs
    mine.close()
    theirs.close()


def refusal(sock):
    sock.settimeout(100)
    with contextlib.closing(Peer(sock.dup(), sock.recv(65536))) as peer:
        *_, (kind, payload) = peer.received()
    assert kind == EXIT
    return json.loads(payload)


async def attended(daemon, request, connection, early=b""):
    take = await daemon.workloads.create_attended(request)
    await take(connection, early)


def test_a_container_starts_with_its_clients_connection(daemon, ends):
    mine, theirs = ends
    asyncio.run(attended(daemon, container("a", "front"), theirs, b"early"))
    record = daemon.engine.intent.container_named("a")
    connection, early = daemon.runtime.clients[record.id]
    with connection:
        connection.sendall(b"hello")
        introduced = frame(
            BEGUN, json.dumps({"id": record.id, "warnings": []}, separators=(",", ":")).encode()
        )
        assert (mine.recv(1000), early) == (introduced + b"hello", b"early")
    assert mine.recv(10) == b"", "the daemon has no end of it any more"
    assert daemon.workloads.view("a").status == "running"


def test_what_can_be_refused_before_it_starts_is(daemon):
    asyncio.run(daemon.workloads.create(container("a", "front", publish=[publish(8080, 80)])))
    for request, error in (
        (container("a", "front"), ExistsError),
        (container("b", "nowhere"), NotFoundError),
        (container("b", "front", publish=[publish(8080, 80)]), ConflictError),
        (container("b", "front", sysctls={"kernel.panic": "1"}), InvalidError),
    ):
        with pytest.raises(error):
            asyncio.run(daemon.workloads.create_attended(request))
    assert [c.name for c in daemon.engine.intent.containers.values()] == ["a"]
    assert len(daemon.bench.kernel.pinned) == 1


def test_what_cannot_be_started_is_told_and_gone(daemon, ends):
    mine, theirs = ends

    def fail(spec, client):
        raise LaunchError("no such program", 127)

    daemon.runtime.create_and_start = fail
    asyncio.run(attended(daemon, container("a", "front"), theirs))
    told = refusal(mine)
    assert (told["exit_code"], told["refusal"]["code"], told["refusal"]["field"]) == (
        125,
        "not_found",
        "spec.command",
    )
    assert mine.recv(10) == b""
    assert daemon.engine.intent.containers == {}
    assert daemon.bench.kernel.pinned == set()


def test_one_that_is_only_there_until_its_name_is_needed_goes(daemon, ends):
    _, theirs = ends
    request = msgspec.structs.replace(container("a", "front"), auto_remove=True)

    async def twice():
        await daemon.workloads.create(request)
        first = daemon.engine.intent.container_named("a").id
        daemon.runtime.end(first)
        await attended(daemon, container("a", "front"), theirs)
        assert daemon.engine.intent.container_named("a").id != first

    asyncio.run(twice())
    for connection, _ in daemon.runtime.clients.values():
        connection.close()


def test_a_name_is_held_from_the_first_word_on(daemon, ends):
    """Two who ask for one name at once: the second waits for what becomes of the first."""
    _, theirs = ends

    async def both():
        take = await daemon.workloads.create_attended(container("a", "front"))
        second = asyncio.create_task(daemon.workloads.create(container("a", "front"), is_new=True))
        await asyncio.sleep(0.05)
        assert not second.done()
        await take(theirs, b"")
        with pytest.raises(ExistsError):
            await second

    asyncio.run(both())
    for connection, _ in daemon.runtime.clients.values():
        connection.close()


def test_a_further_process_is_started_with_its_clients_connection(daemon, ends):
    mine, theirs = ends
    asyncio.run(daemon.workloads.create(container("a", "front")))
    seen = []

    def start_of(identity, command, **rest):
        return lambda connection, early: seen.append((command, rest, connection.fileno(), early))

    daemon.runtime.exec = start_of

    async def talk():
        request = ExecRequest(command=["sh"], user="9", terminal=True)
        take = await daemon.workloads.exec_session("a", request)
        await take(theirs, b"early")

    number = theirs.fileno()
    asyncio.run(talk())
    rest = {"env": {}, "user": "9", "working_dir": None, "has_terminal": True}
    assert seen == [(("sh",), rest, number, b"early")]
    assert mine.recv(10) == b"", "handed over"


def test_a_further_process_that_nobody_can_start_is_told(daemon, ends):
    mine, theirs = ends
    asyncio.run(daemon.workloads.create(container("a", "front")))

    def start(connection, early):
        raise OSError(12, "Cannot allocate memory")

    daemon.runtime.exec = lambda *_, **__: start

    async def talk():
        await (await daemon.workloads.exec_session("a", ExecRequest(command=["sh"])))(theirs, b"")

    asyncio.run(talk())
    assert "Cannot allocate memory" in refusal(mine)["refusal"]["message"]


def test_input_is_given_in_one_way(daemon):
    asyncio.run(daemon.workloads.create(container("a", "front")))
    with pytest.raises(InvalidError) as caught:
        asyncio.run(daemon.workloads.exec_session("a", ExecRequest(command=["sh"], stdin=b"x")))
    assert caught.value.field == "stdin"

    async def lines():
        async for _ in daemon.workloads.exec("a", ExecRequest(command=["sh"], terminal=True)):
            pass

    with pytest.raises(InvalidError) as caught:
        asyncio.run(lines())
    assert (caught.value.field, caught.value.hint) == ("terminal", "`Upgrade: sealane-frames`")
