"""Connections that become another protocol's."""

import json

import pytest

from sealane.client import ApiError, Client, UnreachableError, path_of
from sealane.containers.frames import BEGUN, ERRORS, EXIT, INPUT, OUTPUT, PROTOCOL, Peer, frame
from unit.api.doubles import until
from unit.api.raw import Raw, ask, post

REQUEST = {"command": ["cat"], "env": {"CODE": "3"}}


@pytest.fixture
def client(api):
    ask(api.path, post("/v1/containers", {"name": "web", "spec": {"command": ["x"]}}))
    with Client(api.path) as client:
        yield client


def heard(connection, early=b""):
    """All frames until the process's end."""
    peer = Peer(connection, early)
    connection.setblocking(True)
    frames = list(peer.received())
    while peer.is_open and EXIT not in dict(frames):
        frames += peer.receive()
    peer.close()
    return frames


def upgraded(path, body, *, protocol=PROTOCOL, after=b""):
    """The head that answers, and what comes behind it."""
    request = post(path, body).replace(
        b"\r\n", f"\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n".encode(), 1
    )
    return request + after


def test_a_session_is_frames_both_ways(client):
    connection, early = client.upgrade(path_of("containers", "web", "exec"), PROTOCOL, REQUEST)
    connection.sendall(frame(INPUT, b"in") + frame(INPUT))
    frames = heard(connection, early)
    assert frames[:2] == [(OUTPUT, b"out:in"), (ERRORS, b"err\n")]
    assert json.loads(frames[2][1]) == {"exit_code": 3, "error": ""}


def test_the_client_goes_on_with_another_connection(client):
    connection, _ = client.upgrade(path_of("containers", "web", "exec"), PROTOCOL, REQUEST)
    assert client.request("GET", "/v1/containers")[0]["name"] == "web"
    connection.close()


def test_what_is_refused_is_refused_before(client):
    with pytest.raises(ApiError) as refusal:
        client.upgrade(path_of("containers", "web", "exec"), PROTOCOL, {"command": ["nope"]})
    assert (refusal.value.status, refusal.value.field) == (404, "command")
    with pytest.raises(ApiError) as refusal:
        client.upgrade(path_of("containers", "nobody", "exec"), PROTOCOL, REQUEST)
    assert refusal.value.code == "not_found"
    assert client.request("GET", "/v1/containers")[0]["name"] == "web"


def test_what_is_refused_after_that_comes_as_the_end(client):
    body = {"name": "unlaunchable", "spec": {"command": ["nope"]}}
    connection, early = client.upgrade(path_of("containers"), PROTOCOL, body)
    (begun, _), (kind, payload) = heard(connection, early)
    assert (begun, kind) == (BEGUN, EXIT)
    assert json.loads(payload)["refusal"] == {
        "code": "not_found",
        "message": "the runtime refused: nope: not found",
        "field": "spec.command",
        "hint": "",
        "problems": [],
    }


def test_a_path_that_speaks_nothing_else_answers_as_ever(client):
    with pytest.raises(UnreachableError, match="speaks no other protocol there"):
        client.upgrade(path_of("networks", "prune"), PROTOCOL, b"")


@pytest.mark.parametrize("protocol", ["Sealane-Frames", "h2c, sealane-frames", " SEALANE-FRAMES ,x"])
def test_its_name_is_read_as_http_reads_names(api, client, protocol):
    with Raw(api.path) as raw:
        raw.send(upgraded("/v1/containers/web/exec", REQUEST, protocol=protocol, after=frame(INPUT)))
        assert raw.socket.recv(12) == b"HTTP/1.1 101"


@pytest.mark.parametrize("protocol", ["websocket", "h2c", ""])
def test_who_asks_for_another_protocol_is_answered_as_ever(api, client, protocol):
    with Raw(api.path) as raw:
        raw.send(upgraded("/v1/containers/web/exec", REQUEST, protocol=protocol))
        status, _, body = raw.answer("POST")
    assert status == 200
    assert [json.loads(line)["stream"] for line in body.splitlines()] == ["stdout", "stderr", "exit"]


def test_frames_that_come_with_the_request_are_its_first(api, client):
    with Raw(api.path) as raw:
        raw.send(upgraded("/v1/containers/web/exec", REQUEST, after=frame(INPUT, b"early") + frame(INPUT)))
        data = b""
        while b"\r\n\r\n" not in data:
            data += raw.socket.recv(65536)
        head, _, early = data.partition(b"\r\n\r\n")
        assert head.split(b"\r\n")[0].startswith(b"HTTP/1.1 101")
        frames = heard(raw.socket.dup(), early)
    assert frames[0] == (OUTPUT, b"out:early")


def test_a_client_that_leaves_at_once_leaves_nothing(api, client):
    with Raw(api.path) as raw:
        raw.send(upgraded("/v1/containers/web/exec", REQUEST))
    until(lambda: len(api.services.workloads.exec_requests) == 1)
    assert client.request("GET", "/v1/containers")[0]["name"] == "web"


def test_no_browser_is_answered(api, client):
    with Raw(api.path) as raw:
        raw.send(
            upgraded("/v1/containers/web/exec", REQUEST).replace(b"\r\n", b"\r\nOrigin: http://x\r\n", 1)
        )
        assert raw.answer("POST")[0] == 403
