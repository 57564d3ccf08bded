"""The daemon's callers: requests as bytes, answers, and how many are under way at once."""

import asyncio
import json
import os
import tempfile

import bench.daemon as daemon_module
import pytest
from bench.daemon import _answer, _encoded, calls
from bench.host import HostError


def read(data: bytes) -> None:
    async def run() -> None:
        reader = asyncio.StreamReader()
        reader.feed_data(data)
        reader.feed_eof()
        await _answer(reader)

    asyncio.run(run())


def test_a_request_is_one_post_with_its_length() -> None:
    head, _, body = _encoded("/v1/attach", {"sandbox": "ä"}).partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0] == b"POST /v1/attach HTTP/1.1"
    assert f"Content-Length: {len(body)}".encode() in lines
    assert json.loads(body) == {"sandbox": "ä"}


def test_an_answer_is_read_to_its_end() -> None:
    read(b"HTTP/1.1 200 \r\ncontent-length: 2\r\n\r\n{}")


def test_an_answer_that_is_an_error_stops_the_benchmark() -> None:
    with pytest.raises(HostError, match="taken"):
        read(b"HTTP/1.1 409 \r\nContent-Length: 5\r\n\r\ntaken")


def test_an_answer_cut_short_stops_the_benchmark() -> None:
    with pytest.raises(asyncio.IncompleteReadError):
        read(b"HTTP/1.1 200 \r\nContent-Length: 5\r\n\r\n{}")


def test_every_body_is_sent_once_and_no_more_are_under_way_than_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[int] = []
    hung_up = asyncio.Semaphore(0)
    under_way = most = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal under_way, most
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                seen.append(json.loads(await reader.readexactly(length)))
                under_way += 1
                most = max(most, under_way)
                await asyncio.sleep(0.001)
                under_way -= 1
                writer.write(b"HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\n{}")
        except asyncio.IncompleteReadError:
            writer.close()
            await writer.wait_closed()
            hung_up.release()

    async def run(path: str) -> float:
        server = await asyncio.start_unix_server(serve, path)
        took = await calls("/v1/attach", list(range(40)), 8)
        for _ in range(8):
            await hung_up.acquire()
        server.close()
        await server.wait_closed()
        return took

    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "sock")
        monkeypatch.setattr(daemon_module, "SOCKET", path)
        assert asyncio.run(run(path)) > 0
    assert sorted(seen) == list(range(40))
    assert 2 <= most <= 8
