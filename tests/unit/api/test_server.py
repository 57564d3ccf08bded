"""The socket and the connections: who is answered, and how much anybody can take (reliability.md F8, F9)."""

import asyncio
import contextlib
import json
import os
import resource
import socket
import stat
import subprocess
import sys
import time

import pytest

from sealane.engine.errors import ConflictError, InvalidError
from sealane.http.connection import Bounds
from sealane.http.listen import FIRST_INHERITED, INHERITED_MAX, listen, named_sockets
from unit.api.doubles import DoubleServices, ServerThread, until
from unit.api.raw import Raw, ask, get, post


@pytest.fixture
def brief(tmp_path):
    """A server whose patience and room are small."""
    bounds = Bounds(
        connections=4, body_bytes=2000, request_s=0.2, idle_s=0.4, write_s=0.3, sweep_s=0.05, stop_s=2.0
    )
    with ServerThread(tmp_path / "s.sock", bounds=bounds) as server:
        yield server


# --- the socket


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
def test_the_socket_is_its_owners_whatever_the_umask(tmp_path, umask):
    path = tmp_path / "run" / "sealane" / "s.sock"
    before = os.umask(umask)
    try:
        sock = listen(str(path))
    finally:
        os.umask(before)
    with sock:
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        assert stat.S_IMODE(os.stat(path.parent).st_mode) == 0o700
        assert stat.S_IMODE(os.stat(path.parent.parent).st_mode) == 0o700


def test_a_socket_that_nobody_listens_on_is_replaced(tmp_path):
    path = str(tmp_path / "s.sock")
    listen(path).close()
    with ServerThread(path):
        assert ask(path, get("/v1/version"))[0] == 200


def test_a_living_daemon_is_not_replaced(tmp_path):
    path = str(tmp_path / "s.sock")
    with ServerThread(path):
        with pytest.raises(ConflictError, match="another daemon"):
            listen(path)
        assert ask(path, get("/v1/version"))[0] == 200


def test_a_file_in_the_place_of_the_socket_stays(tmp_path):
    path = tmp_path / "s.sock"
    path.write_text("precious")
    with pytest.raises(InvalidError, match="no socket"):
        listen(str(path))
    assert path.read_text() == "precious"


def test_a_directory_that_others_can_write_is_refused(tmp_path):
    (tmp_path / "open").mkdir()
    os.chmod(tmp_path / "open", 0o777)
    with pytest.raises(InvalidError, match="others can replace"):
        listen(str(tmp_path / "open" / "s.sock"))


@pytest.mark.parametrize("path", ["", "x" * 108, "\0abstract"])
def test_a_path_that_no_socket_can_have_is_named(path):
    with pytest.raises(InvalidError) as caught:
        listen(path)
    assert caught.value.field == "socket"


def test_no_abstract_socket_is_opened(api):
    with open("/proc/net/unix") as file:
        assert not [line for line in file if "@" in line and "sealane" in line]


def test_stopping_removes_the_socket_but_not_a_successors(tmp_path):
    path = tmp_path / "s.sock"
    with ServerThread(path):
        assert path.exists()
    assert not path.exists()
    with ServerThread(path):
        os.unlink(path)
        successor = listen(str(path))
    assert path.exists()
    successor.close()


def test_a_socket_that_was_passed_in_is_served_and_left(tmp_path):
    path = str(tmp_path / "s.sock")
    with listen(path) as sock:
        with ServerThread(path, sockets=[sock.dup()]):
            assert ask(path, get("/v1/version"))[0] == 200
    assert os.path.exists(path)


def test_inherited_sockets_are_only_taken_if_meant_for_this_process():
    assert named_sockets({}, 7) == []
    assert named_sockets({"LISTEN_FDS": "1", "LISTEN_PID": "8"}, 7) == []
    assert named_sockets({"LISTEN_FDS": "x", "LISTEN_PID": "7"}, 7) == []
    assert named_sockets({"LISTEN_FDS": "0", "LISTEN_PID": "7"}, 7) == []


HANDED = """
import json, os, socket, sys
from sealane.http.listen import named_sockets
sockets = [socket.socket(socket.AF_UNIX) for _ in range(40)]
for number in range(3, 3 + int(sys.argv[1])):
    os.dup2(sockets[-1].fileno(), number)
environ = {"LISTEN_PID": "7", "LISTEN_FDS": sys.argv[1], "LISTEN_FDNAMES": "api", "HOME": "/"}
handed = [sock for _, sock in named_sockets(environ, 7)]
print(json.dumps([[s.fileno() for s in handed], [s.get_inheritable() for s in handed], environ]), flush=True)
os._exit(0)
"""


@pytest.mark.parametrize(
    ("count", "taken"), [(1, 1), (INHERITED_MAX, INHERITED_MAX), (INHERITED_MAX + 1, INHERITED_MAX)]
)
def test_inherited_sockets_are_taken_once_up_to_a_bound_and_not_passed_on(count, taken):
    ran = subprocess.run(
        [sys.executable, "-c", HANDED, str(count)], capture_output=True, text=True, check=True
    )
    numbers, inheritable, environ = json.loads(ran.stdout)
    assert numbers == list(range(FIRST_INHERITED, FIRST_INHERITED + taken))
    assert not any(inheritable)
    assert environ == {"HOME": "/"}


def as_another_user(test):
    # The child of the fork touches nothing that another thread may hold.
    quiet = pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
    return quiet(pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")(test))


def _as_user(uid, path):
    """The bytes that a process of another user gets from the socket; None if it cannot even connect."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        result = b"?"
        try:
            os.setgroups([])
            os.setuid(uid)
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(path)
                with contextlib.suppress(BrokenPipeError):  # It may be hung up on before it has asked.
                    sock.sendall(get("/v1/version"))
                result = sock.recv(4096)
        except PermissionError:
            result = b"EACCES"
        finally:
            os.write(writer, result)
            os._exit(0)
    os.waitpid(pid, 0)
    os.close(writer)
    with open(reader, "rb") as file:
        return file.read()


@as_another_user
def test_another_user_cannot_connect(api):
    assert _as_user(1000, api.path) == b"EACCES"


@as_another_user
def test_another_user_is_refused_even_on_a_socket_that_is_open_to_all(tmp_path):
    directory = f"/tmp/sealane-test-{os.getpid()}"
    os.mkdir(directory)
    os.chmod(directory, 0o755)
    path = f"{directory}/s.sock"
    try:
        with listen(path) as sock:
            os.chmod(path, 0o666)
            with ServerThread(path, sockets=[sock.dup()]):
                assert b" 403 " in _as_user(1000, path).split(b"\r\n")[0]
                assert b" 200 " in _as_user(0, path).split(b"\r\n")[0]
    finally:
        os.unlink(path)
        os.rmdir(directory)


# --- protocol


def test_a_connection_serves_many_requests_also_sent_ahead(api):
    with Raw(api.path) as raw:
        raw.send(get("/v1/version") * 20)
        assert [raw.answer()[0] for _ in range(20)] == [200] * 20


def test_requests_sent_ahead_of_a_slow_verb_are_answered_in_order(api):
    ask(api.path, post("/v1/containers", {"name": "web", "spec": {}}))
    with Raw(api.path) as raw:
        raw.send(get("/v1/containers/web/wait", "POST", "Content-Length: 0\r\n") + get("/v1/version"))
        api.call(api.services.workloads.finish, "web", 7)
        assert json.loads(raw.answer("POST")[2])["exit_code"] == 7
        assert json.loads(raw.answer()[2])["api"] == "v1"


def test_chunked_bodies_and_100_continue_are_understood(api):
    with Raw(api.path) as raw:
        raw.send(
            b"POST /v1/networks HTTP/1.1\r\nHost:\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n"
        )
        assert raw.socket.recv(100).startswith(b"HTTP/1.1 100")
        raw.send(b'7\r\n{"name"\r\n5\r\n: "n"\r\n1\r\n}\r\n0\r\n\r\n')
        assert json.loads(raw.answer("POST")[2])["name"] == "n"


def test_a_client_that_asks_to_close_is_closed(api):
    with Raw(api.path) as raw:
        raw.send(get("/v1/version", extra="Connection: close\r\n"))
        assert raw.answer()[0] == 200
        assert raw.is_closed()


def test_http_1_0_is_answered_and_closed(api):
    with Raw(api.path) as raw:
        raw.send(b"GET /v1/version HTTP/1.0\r\n\r\n")
        assert raw.answer()[0] == 200
        assert raw.is_closed()


def test_head_has_no_body_and_breaks_nothing(api):
    with Raw(api.path) as raw:
        raw.send(get("/v1/version", "HEAD"))
        assert raw.answer("HEAD")[0] == 405
        raw.send(get("/v1/version"))
        assert raw.answer()[0] == 200


def test_an_upgrade_is_not_taken(api):
    with Raw(api.path) as raw:
        raw.send(
            get("/v1/version", extra="Connection: upgrade\r\nUpgrade: websocket\r\n") + get("/v1/version")
        )
        assert [raw.answer()[0], raw.answer()[0]] == [200, 200]


def test_a_half_closed_client_still_gets_its_answer(api):
    with Raw(api.path) as raw:
        raw.send(get("/v1/version"))
        raw.socket.shutdown(socket.SHUT_WR)
        assert raw.answer()[0] == 200


# --- hostile input


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"GET / HTTP/9.9\r\nHost:\r\n\r\n", 505),
        (b"GET /v1/version HTTP/1.1\r\n\r\n", 400),
        (b"GET /v1/version HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"POST /v1/gc HTTP/1.1\r\nHost:\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"POST /v1/gc HTTP/1.1\r\nHost:\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST /v1/gc HTTP/1.1\r\nHost:\r\nContent-Length: 1e3\r\n\r\n", 400),
        (b"POST /v1/gc HTTP/1.1\r\nHost:\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (b"POST /v1/networks HTTP/1.1\r\nHost:\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"POST /v1/networks HTTP/1.1\r\nHost:\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabcd\r\n", 400),
        (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost:\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost:\r\n" + b"X: y\r\n" * 5_000 + b"\r\n", 431),
        (b"GET /v1/version HTTP/1.1\r\nHost:\r\nOrigin: http://evil\r\n\r\n", 403),
        (b"POST /v1/gc HTTP/1.1\r\nHost:\r\nContent-Length: 1048577\r\n\r\n", 413),
    ],
)
def test_what_is_not_http_as_it_should_be_is_refused_and_hung_up_on(api, data, status):
    with Raw(api.path) as raw:
        raw.send(data)
        answer, headers, body = raw.answer("POST")
        assert (answer, headers["connection"]) == (status, "close")
        assert json.loads(body)["error"]["code"] == "invalid"
        assert raw.is_closed()
    assert ask(api.path, get("/v1/version"))[0] == 200


def test_a_length_and_chunks_together_never_smuggle_a_second_request(api):
    with Raw(api.path) as raw:
        raw.send(
            b"POST /v1/gc HTTP/1.1\r\nHost:\r\nContent-Length: 60\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"0\r\n\r\nDELETE /v1/networks/n HTTP/1.1\r\nHost:\r\n\r\n"
        )
        assert raw.answer("POST")[0] == 400
        assert raw.is_closed()


def test_chunks_that_add_up_to_too_much_are_refused_on_the_way(brief):
    with Raw(brief.path) as raw:
        raw.send(b"POST /v1/networks HTTP/1.1\r\nHost:\r\nTransfer-Encoding: chunked\r\n\r\n")
        raw.send(b"190\r\n" + b"a" * 400 + b"\r\n")
        raw.send(b"7d0\r\n" + b"a" * 2000 + b"\r\n")
        assert raw.answer("POST")[0] == 413


def test_a_body_of_the_greatest_length_is_read_and_one_more_is_not(brief):
    text = b'{"name": "n", "labels": {"a": "' + b"x" * 1966 + b'"}}'
    assert len(text) == 2000
    assert ask(brief.path, post("/v1/networks", text))[0] == 200
    assert ask(brief.path, post("/v1/networks", text + b" "))[0] == 413


def test_a_body_where_none_belongs_is_refused(api):
    assert ask(api.path, post("/v1/gc", {"confirm": True}))[0] == 400


def test_a_missing_body_is_no_request(api):
    status, body = ask(api.path, get("/v1/attach", "POST", "Content-Length: 0\r\n"))
    assert (status, body["error"]["code"]) == (400, "invalid")


def test_a_request_that_drips_in_is_cut_off(brief):
    with Raw(brief.path) as raw:
        started = time.monotonic()
        raw.send(b"GET /v1/ver")
        raw.socket.settimeout(0.05)
        status = None
        while status is None:
            raw.send(b"x")
            try:
                data = raw.socket.recv(4096)
            except TimeoutError:
                continue
            status = data.split(b" ")[1]
        assert status == b"408"
        assert time.monotonic() - started < 20


def test_a_connection_without_requests_is_closed_after_a_while(brief):
    with Raw(brief.path) as raw:
        assert raw.is_closed()


def test_one_connection_too_many_is_turned_away_and_the_others_live(brief):
    held = [Raw(brief.path) for _ in range(4)]
    until(lambda: len(brief.server._connections) == 4)
    with Raw(brief.path) as late:
        assert late.answer()[0] == 503
    held[0].send(get("/v1/version"))
    assert held[0].answer()[0] == 200
    for raw in held:
        raw.socket.close()
    until(lambda: not brief.server._connections)
    assert ask(brief.path, get("/v1/version"))[0] == 200


def test_a_client_that_never_reads_is_dropped_and_costs_no_memory(brief):
    for number in range(200):
        brief.services.engine.create_network(type("R", (), {
            "name": f"n{number}", "driver": "bridge", "subnets": [], "internal": False,
            "options": {"x": "y" * 500}, "labels": {},
        }))  # fmt: skip
    with Raw(brief.path) as raw:
        until(lambda: brief.server._connections)
        connection = next(iter(brief.server._connections))
        raw.socket.setblocking(False)
        sent = 0
        try:
            while sent < 10_000:
                sent += raw.socket.send(get("/v1/networks") * 10) // len(get("/v1/networks"))
        except (BlockingIOError, BrokenPipeError, ConnectionResetError):
            pass
        until(lambda: not brief.server._connections)
        assert connection._transport.get_write_buffer_size() < 1 << 20


def test_thousands_of_unknown_paths_leave_nothing_behind(api):
    def ask_many(count, prefix):
        with Raw(api.path) as raw:
            for batch in range(count // 100):
                raw.send(b"".join(get(f"/v1/{prefix}{batch}-{n}/x?{n}=1") for n in range(100)))
                assert all(raw.answer()[0] == 404 for _ in range(100))

    ask_many(500, "warm")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ask_many(4_000, "cold")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before <= 10 * 1024


def test_an_error_nobody_foresaw_tells_nothing(api):
    status, body = ask(api.path, post("/v1/networks", {"name": "boom"}))
    assert (status, body["error"]["code"]) == (500, "internal")
    assert "secret" not in json.dumps(body)
    assert ask(api.path, get("/v1/version"))[0] == 200


def test_names_of_any_kind_are_refused_with_a_code(api):
    for name in [
        "../../boot",
        "a/b",
        "\x1b[31m/",
        "x" * 70_000 + "/",
        "\u0663/",
        "a\nb/",
        "\u202e/",
        "$(id)/",
    ]:
        status, body = ask(api.path, post("/v1/networks", {"name": name}))
        assert (status, body["error"]["code"]) == (400, "invalid")
    assert api.services.engine.nets == {}


# --- streams and stopping


def _followed(raw):
    raw.send(get("/v1/containers/web/logs?follow=1"))
    received = b""
    while b"line 2" not in received:
        received += raw.socket.recv(65536)


def test_a_client_that_leaves_ends_its_stream(api):
    ask(api.path, post("/v1/containers", {"name": "web", "spec": {}}))
    with Raw(api.path) as raw:
        _followed(raw)
        assert not api.services.workloads.streams_closed.is_set()
    assert api.services.workloads.streams_closed.wait(100)
    until(lambda: not api.server._connections)


def test_a_client_that_leaves_ends_its_waiting_but_not_a_verb(api):
    ask(api.path, post("/v1/containers", {"name": "web", "spec": {}}))
    with Raw(api.path) as raw:
        raw.send(get("/v1/containers/web/wait", "POST", "Content-Length: 0\r\n"))
        until(lambda: any(c.task for c in api.server._connections))
    assert api.services.workloads.waits_cancelled.wait(100)

    finished = []

    async def slow():
        await asyncio.sleep(0.1)
        finished.append(True)

    api.services.project.slow = slow
    with Raw(api.path) as raw:
        raw.send(post("/v1/apply", {"networks": [{"name": "n"}]}))
        until(lambda: any(c.task for c in api.server._connections))
    until(lambda: finished and not api.server._connections)
    assert "n" in api.services.engine.nets


def test_an_error_before_the_first_line_has_a_status_and_after_it_a_last_line(api):
    assert ask(api.path, get("/v1/containers/none/logs"))[0] == 404
    ask(api.path, post("/v1/containers", {"name": "web", "spec": {}}))
    assert ask(api.path, post("/v1/containers/web/exec", {"command": ["nope"]}))[0] == 404
    with Raw(api.path) as raw:
        raw.send(post("/v1/containers/web/exec", {"command": ["fail"]}))
        status, _, body = raw.answer("POST")
        last = json.loads(body.splitlines()[-1])
        assert (status, last["error"]["code"]) == (200, "internal")
        raw.send(get("/v1/version"))
        assert raw.answer()[0] == 200


def test_events_are_followed_from_a_number_on(api):
    ask(api.path, post("/v1/networks", {"name": "a"}))
    ask(api.path, post("/v1/networks", {"name": "b"}))
    with Raw(api.path) as raw:
        raw.send(get("/v1/events?follow=1&since=1"))
        received = b""
        while b'"b"' not in received:
            received += raw.socket.recv(65536)
        ask(api.path, post("/v1/networks", {"name": "c"}))
        while b'"c"' not in received:
            received += raw.socket.recv(65536)
    assert b'"a"' not in received


def test_a_follower_without_a_number_sees_only_what_is_to_come(api):
    ask(api.path, post("/v1/networks", {"name": "a"}))
    with Raw(api.path) as raw:
        raw.send(get("/v1/events?follow=1"))
        received = raw.socket.recv(65536)  # The head comes although there is no event.
        assert b" 200 " in received
        ask(api.path, post("/v1/networks", {"name": "b"}))
        while b'"b"' not in received:
            received += raw.socket.recv(65536)
    assert b'"a"' not in received


def test_events_that_are_gone_are_counted(api):
    for number in range(1030):
        api.services.engine.events.emit("x", str(number))
    with Raw(api.path) as raw:
        raw.send(get("/v1/events?since=0"))
        first = json.loads(raw.answer()[2].splitlines()[0])
    assert (first["kind"], first["subject"], first["number"]) == ("events.lost", "6 events", 6)


def test_stopping_ends_streams_and_answers_what_is_under_way(tmp_path):
    services = DoubleServices()

    async def slow():
        await asyncio.sleep(0.2)

    with ServerThread(tmp_path / "s.sock", services=services) as server:
        ask(server.path, post("/v1/containers", {"name": "web", "spec": {}}))
        services.project.slow = slow
        follower, applier, idle = Raw(server.path), Raw(server.path), Raw(server.path)
        _followed(follower)
        applier.send(post("/v1/apply", {"networks": [{"name": "n"}]}))
        until(lambda: sum(c.task is not None for c in server.server._connections) == 2)
    assert applier.answer("POST")[0] == 200
    assert all(raw.is_closed() for raw in (follower, applier, idle))
    for raw in (follower, applier, idle):
        raw.socket.close()


def test_connections_that_come_while_it_stops_are_closed(tmp_path):
    for number in range(20):
        with ServerThread(tmp_path / f"{number}.sock") as server:
            raws = [Raw(server.path) for _ in range(3)]
        for raw in raws:
            assert raw.is_closed()
            raw.socket.close()
