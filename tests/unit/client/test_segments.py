"""Answers are understood however they arrive."""

import socket
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sealane.client import Client

PLAIN = b'HTTP/1.1 200 OK\r\nContent-Length: 8\r\nX-Other: y\r\n\r\n{"a": 1}'
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b'5\r\n{"n":\r\n3\r\n1}\n\r\na\r\n{"n":2}\n{"\r\n6\r\nn":3}\n\r\n0\r\n\r\n'
)


def serve(path, pieces, requests=1):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()

    def run():
        peer, _ = listener.accept()
        with listener, peer:
            for _ in range(requests):
                peer.recv(65536)
                for piece in pieces:
                    peer.sendall(piece)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def cut(data, cuts):
    edges = [0, *sorted({c % len(data) for c in cuts}), len(data)]
    return [data[start:end] for start, end in zip(edges, edges[1:]) if end > start]


@pytest.fixture
def paths(tmp_path):
    counter = iter(range(10_000))
    return lambda: str(tmp_path / f"s{next(counter)}")


COMMON = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@COMMON
@given(cuts=st.lists(st.integers(0, 10_000), max_size=12))
def test_an_answer_in_pieces_is_one_answer(paths, cuts):
    path = paths()
    thread = serve(path, cut(PLAIN, cuts), requests=2)
    with Client(path) as client:
        assert client.request("GET", "/") == {"a": 1}
        assert client.request("GET", "/") == {"a": 1}
    thread.join(100)


@COMMON
@given(cuts=st.lists(st.integers(0, 10_000), max_size=12))
def test_lines_do_not_depend_on_chunks_or_packets(paths, cuts):
    path = paths()
    thread = serve(path, cut(CHUNKED, cuts))
    with Client(path) as client:
        assert [line["n"] for line in client.stream("GET", "/")] == [1, 2, 3]
    thread.join(100)


def test_a_chunked_answer_to_a_call_is_put_together(paths):
    path = paths()
    thread = serve(path, [CHUNKED.replace(b'{"n":2}\n{"', b"          ").replace(b'n":3}\n', b"      ")])
    with Client(path) as client:
        assert client.request("GET", "/") == {"n": 1}
    thread.join(100)


def test_a_call_that_was_interrupted_leaves_nothing_for_the_next(api, monkeypatch):
    with Client(api.path) as client:
        original = Client._receive

        def interrupted(self):
            original(self)
            raise KeyboardInterrupt

        monkeypatch.setattr(Client, "_receive", interrupted)
        with pytest.raises(KeyboardInterrupt):
            client.request("GET", "/v1/networks")
        monkeypatch.setattr(Client, "_receive", original)
        assert client.request("GET", "/v1/version")["api"] == "v1"
