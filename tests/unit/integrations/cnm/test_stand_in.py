"""The process that answers dockerd while our daemon is away, in a thread and as a process."""

import asyncio
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sealane.integrations.cnm import stand_in
from sealane.integrations.cnm.keeping import KeptSocket, connect, dismiss
from sealane.integrations.cnm.stand_in import ANSWER, CLIENTS_MAX, MESSAGE, QUIT, REQUEST_BYTES_MAX, StandIn

REQUEST = b"POST /NetworkDriver.Join HTTP/1.1\r\nHost: \r\nContent-Length: 4\r\n\r\n{}\r\n"


def until(condition: Callable[[], object], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


def listening(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.bind(str(path))
    sock.listen(128)
    return sock


class Place:
    def __init__(self, directory: Path) -> None:
        self.path, self.control = directory / "plugin.sock", directory / "control.sock"
        self.life, its = socket.socketpair()
        made = StandIn(str(self.path), listening(self.path), its, listening(self.control))
        self.thread = threading.Thread(target=made.run, daemon=True)
        self.thread.start()

    def client(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(20)
        sock.connect(str(self.path))
        return sock

    def ask(self, request: bytes = REQUEST) -> bytes:
        with self.client() as sock:
            sock.sendall(request)
            return whole(sock)


def whole(sock: socket.socket) -> bytes:
    """What comes until the end."""
    found = b""
    while data := sock.recv(4096):
        found += data
    return found


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.setattr(stand_in, "GRACE_S", 0.05)
    monkeypatch.setattr(stand_in, "LOOK_S", 0.05)
    made = Place(tmp_path)
    yield made
    made.path.unlink(missing_ok=True)
    made.life.close()
    made.thread.join(20)
    assert not made.thread.is_alive()


def test_while_the_daemon_lives_it_answers_nobody(place: Place) -> None:
    with place.client() as sock:
        sock.sendall(REQUEST)
        sock.settimeout(0.2)
        with pytest.raises(TimeoutError):
            sock.recv(1)
        place.life.close()
        sock.settimeout(20)
        assert whole(sock) == ANSWER, "who waited is answered then"
    assert MESSAGE.encode() in place.ask()


def test_requests_in_pieces_and_without_a_body(place: Place) -> None:
    place.life.close()
    assert place.ask(b"POST /Plugin.Activate HTTP/1.1\r\nHost: \r\n\r\n") == ANSWER
    with place.client() as sock:
        for byte in REQUEST:
            sock.sendall(bytes([byte]))
        assert whole(sock) == ANSWER
    chunked = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
    assert place.ask(chunked) == ANSWER


def test_clients_that_say_nothing_keep_nobody_out_for_long(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stand_in, "CLIENT_S", 0.2)
    place.life.close()
    silent = [place.client() for _ in range(CLIENTS_MAX)]
    assert place.ask() == ANSWER
    for sock in silent:
        assert sock.recv(1) == b""
        sock.close()


def test_a_request_without_an_end(place: Place) -> None:
    place.life.close()
    with place.client() as sock, pytest.raises(OSError, match=r"Broken pipe|reset"):
        sock.sendall(bytes(64 * REQUEST_BYTES_MAX))
    assert place.ask() == ANSWER


def test_the_next_daemon_is_given_the_socket_and_who_waits_there(place: Place) -> None:
    place.life.close()
    assert place.ask() == ANSWER
    life = connect(str(place.control))
    assert life is not None
    _, ancillary, _, _ = life.recvmsg(1, socket.CMSG_SPACE(4))
    ((_, _, data),) = ancillary
    given = socket.socket(fileno=int.from_bytes(data, "little"))
    with place.client() as sock:
        sock.sendall(REQUEST)
        given.setblocking(True)
        taken, _ = given.accept()
        assert taken.recv(4096) == REQUEST
        taken.close()
    life.close()
    assert place.ask() == ANSWER, "and when that ends it is there again"
    given.close()


@pytest.mark.parametrize("replaced", [False, True])
def test_it_ends_when_it_is_told_to(place: Place, replaced: bool) -> None:
    if replaced:
        place.path.unlink()
        listening(place.path).close()
    place.life.sendall(QUIT)
    place.thread.join(20)
    assert place.path.exists() == replaced, "a file that is another's is left alone"


@pytest.mark.parametrize("replaced", [False, True])
def test_it_ends_without_its_file(place: Place, replaced: bool) -> None:
    place.path.unlink()
    if replaced:
        listening(place.path).close()
    life = connect(str(place.control))
    assert life is not None
    assert life.recv(1) == b"", "nobody would find the socket: it is not handed over"
    life.close()
    place.life.close()
    place.thread.join(20)
    assert not place.thread.is_alive()


# --- as a process -----------------------------------------------------------------------------------------------------


def test_a_socket_is_kept_from_daemon_to_daemon(tmp_path: Path) -> None:
    path = tmp_path / "plugin.sock"
    inodes = []
    for _ in range(3):
        kept = KeptSocket(str(path), str(tmp_path))
        served = kept.open()
        assert served.getsockname() == str(path)
        inodes.append(path.stat().st_ino)
        served.close()
        kept.close()
    assert len(set(inodes)) == 1
    other = KeptSocket(str(tmp_path / "other.sock"), str(tmp_path))
    other.open().close()
    assert not path.exists(), "the stand-in of another path is sent away"
    other.close()
    dismiss(str(tmp_path))
    until(lambda: not (tmp_path / "other.sock").exists())
    dismiss(str(tmp_path))


def test_a_stand_in_that_cannot_be_started_is_no_reason_to_fail(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept = KeptSocket(str(tmp_path / "plugin.sock"), str(tmp_path), python="/nonexistent")
    kept.open().close()
    assert "no stand-in could be started" in caplog.text
    kept.close()


def test_a_stand_in_that_died_is_started_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sealane.integrations.cnm.keeping.AGAIN_S", 0.01)

    async def scenario() -> None:
        kept = KeptSocket(str(tmp_path / "plugin.sock"), str(tmp_path))
        kept.open().close()
        kept.follow(asyncio.get_running_loop())
        first = kept._child
        os.kill(first, 9)
        await asyncio.to_thread(until, lambda: kept._child != first and kept._life is not None)
        kept.close()

    asyncio.run(scenario())
    dismiss(str(tmp_path))
