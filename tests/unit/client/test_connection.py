"""The client against the real server, and against peers that are not one."""

import os
import socket
import subprocess
import sys
import threading

import pytest

import sealane
from sealane.client import ApiError, Client, UnreachableError, default_socket, path_of
from sealane.http.connection import Bounds
from unit.api.doubles import DoubleServices, ServerThread, until

SOURCE = os.path.dirname(os.path.dirname(sealane.__file__))


@pytest.fixture
def client(api):
    with Client(api.path) as client:
        yield client


class Scripted:
    """A peer that answers every request with the same bytes and hangs up."""

    def __init__(self, path, answer):
        self.path = str(path)
        self._answer = answer
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(self.path)
        self._socket.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._socket.close()
        self._thread.join(100)

    def _serve(self):
        peer, _ = self._socket.accept()
        with peer:
            peer.recv(65536)
            peer.sendall(self._answer)


def test_a_call_gives_the_decoded_answer(client):
    made = client.request("POST", "/v1/networks", {"name": "front"})
    assert client.request("GET", path_of("networks", "front")) == made
    assert client.request("GET", "/v1/networks") == [made]


def test_one_connection_is_used_for_all_calls(api, client):
    for _ in range(5):
        client.request("GET", "/v1/version")
    assert len(api.server._connections) == 1


def test_the_daemons_error_comes_with_its_parts(client):
    with pytest.raises(ApiError) as caught:
        client.request("POST", "/v1/networks", {"name": "a/b"})
    error = caught.value
    assert (error.status, error.code, error.field) == (400, "invalid", "name")
    assert error.hint == "use letters and digits"
    assert error.body["message"] == str(error)
    assert client.request("GET", "/v1/version")["api"] == "v1"


@pytest.mark.parametrize("name", ["a b", "ä", "a/b?c#d%", "\udcff"])
def test_a_path_is_quoted_so_that_a_name_stays_one_segment(client, name):
    with pytest.raises(ApiError) as caught:
        client.request("GET", path_of("networks", name))
    assert caught.value.status == (404 if name != "\udcff" else 400)


def test_path_of_leaves_out_what_is_none():
    assert path_of("containers", "a/b", "stop", timeout=None, x="1 2") == "/v1/containers/a%2Fb/stop?x=1%202"
    assert path_of("networks") == "/v1/networks"


def test_without_a_daemon_nothing_was_sent(tmp_path):
    with pytest.raises(UnreachableError, match="no daemon at .*none.sock: No such file") as caught:
        Client(str(tmp_path / "none.sock")).request("GET", "/v1/version")
    assert not caught.value.is_sent


def test_the_socket_comes_from_the_environment():
    assert default_socket({}) == "/run/sealane/sealane.sock"
    assert default_socket({"SEALANE_SOCKET": ""}) == "/run/sealane/sealane.sock"
    assert default_socket({"SEALANE_SOCKET": "/x"}) == "/x"


def test_a_connection_that_the_daemon_closed_is_replaced_before_anything_is_sent(tmp_path):
    path = tmp_path / "s.sock"
    with Client(str(path)) as client:
        with ServerThread(path):
            client.request("GET", "/v1/version")
        with ServerThread(path):
            assert client.request("GET", "/v1/version")["api"] == "v1"


def test_a_request_that_is_too_long_gets_its_error_and_not_a_broken_pipe(client):
    with pytest.raises(ApiError) as caught:
        client.request("POST", "/v1/networks", {"name": "x" * (1 << 21)})
    assert caught.value.status == 413
    assert client.request("GET", "/v1/version")["api"] == "v1"


def test_being_turned_away_is_an_error_of_the_daemon(tmp_path):
    with ServerThread(tmp_path / "s.sock", bounds=Bounds(connections=1)) as server:
        with Client(server.path) as first, Client(server.path) as second:
            first.request("GET", "/v1/version")
            with pytest.raises(ApiError) as caught:
                second.request("GET", "/v1/version")
    assert caught.value.code == "unavailable"


def test_an_answer_that_does_not_come_in_time_is_an_error(api):
    with Client(api.path) as client:
        client.request("POST", "/v1/containers", {"name": "web", "spec": {}})
        with pytest.raises(UnreachableError, match="in time") as caught:
            client.request("POST", "/v1/containers/web/wait", timeout_s=0.05)
        assert caught.value.is_sent
        assert client.request("GET", "/v1/version")["api"] == "v1"


def test_a_stream_yields_lines_and_leaves_the_connection_usable(api, client):
    client.request("POST", "/v1/containers", {"name": "web", "spec": {}})
    texts = [line["text"] for line in client.stream("GET", "/v1/containers/web/logs")]
    assert texts == ["line 0", "line 1", "line 2"]
    client.request("GET", "/v1/version")
    assert len(api.server._connections) == 1


def test_lines_larger_than_any_buffer_arrive_whole(api, client):
    client.request("POST", "/v1/containers", {"name": "web", "spec": {}})
    request = {"command": ["cat"], "stdin": "A" * 800_000}
    lines = list(client.stream("POST", "/v1/containers/web/exec", request))
    assert len(lines[0]["data"]) > 800_000


def test_leaving_a_stream_early_hangs_up(api, client):
    client.request("POST", "/v1/containers", {"name": "web", "spec": {}})
    stream = client.stream("GET", "/v1/containers/web/logs?follow=1")
    next(stream)
    stream.close()
    assert api.services.workloads.streams_closed.wait(100)
    assert client.request("GET", "/v1/version")["api"] == "v1"


def test_another_thread_can_end_a_stream(api, client):
    follower = Client(api.path)
    stream = follower.stream("GET", "/v1/events?follow=1")
    failure = []

    def read():
        try:
            list(stream)
        except UnreachableError as error:
            failure.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    until(lambda: any(c.task for c in api.server._connections))
    follower.shutdown()
    thread.join(100)
    assert failure


def test_a_client_that_was_shut_never_connects_again(api):
    client = Client(api.path)
    client.request("GET", "/v1/version")
    client.shutdown()
    with pytest.raises(UnreachableError, match="ended"):
        client.request("GET", "/v1/version")
    unused = Client(api.path)
    unused.shutdown()
    with pytest.raises(UnreachableError, match="ended"):
        next(unused.stream("GET", "/v1/events?follow=1"))
    client.close()


def test_an_error_in_mid_stream_is_raised_after_the_lines_before_it(client):
    client.request("POST", "/v1/containers", {"name": "web", "spec": {}})
    stream = client.stream("POST", "/v1/containers/web/exec", {"command": ["fail"]})
    assert [next(stream)["stream"], next(stream)["stream"]] == ["stdout", "stderr"]
    with pytest.raises(ApiError) as caught:
        next(stream)
    assert caught.value.code == "internal"
    client.close()


def test_an_error_instead_of_a_stream_is_raised(client):
    with pytest.raises(ApiError) as caught:
        list(client.stream("GET", "/v1/containers/none/logs"))
    assert caught.value.code == "not_found"


def test_a_daemon_that_stops_in_mid_stream_is_lost(tmp_path):
    with ServerThread(tmp_path / "s.sock", services=DoubleServices()) as server:
        client = Client(server.path)
        client.request("POST", "/v1/containers", {"name": "web", "spec": {}})
        stream = client.stream("GET", "/v1/containers/web/logs?follow=1")
        next(stream)
    with pytest.raises(UnreachableError, match="lost"):
        list(stream)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{}\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n+2\r\n{}\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffff\r\n{}",
        b"x" * 100_000,
    ],
)
def test_a_peer_that_is_no_daemon_is_an_error_and_no_hang(tmp_path, answer):
    with Scripted(tmp_path / "s.sock", answer) as peer, Client(peer.path, timeout_s=5) as client:
        with pytest.raises(UnreachableError):
            client.request("GET", "/v1/version")


def test_an_error_without_a_body_of_ours_still_has_its_status(tmp_path):
    answer = b"HTTP/1.1 502 Bad\r\nContent-Length: 2\r\n\r\n[]"
    with Scripted(tmp_path / "s.sock", answer) as peer, Client(peer.path) as client:
        with pytest.raises(ApiError, match="HTTP status 502"):
            client.request("GET", "/v1/version")


def test_it_imports_nothing_else_of_ours_and_nothing_slow():
    code = "import sys; import sealane.client; print(*sorted(sys.modules))"
    environ = {"PYTHONPATH": SOURCE}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environ)
    modules = set(run.stdout.split())
    ours = {m for m in modules if m.startswith("sealane")}
    assert ours == {"sealane", "sealane.client", "sealane.client.connection", "sealane.client.errors"}
    assert not modules & {
        "msgspec",
        "asyncio",
        "http.client",
        "urllib.parse",
        "typing",
        "dataclasses",
        "email",
    }
