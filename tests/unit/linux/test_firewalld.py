"""A system bus that misbehaves: every call ends in time, with a reason."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from sealane.linux import firewalld
from sealane.linux.firewalld import Bus, BusError

Client = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        await reader.read()
    writer.close()


async def closing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)
    writer.close()


async def refusing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(100)
    writer.write(b"REJECTED EXTERNAL\r\n")
    await silent(reader, writer)


async def babbling(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """It takes the client in, and answers what is no message."""
    for answer in (b"OK 0123456789abcdef0123456789abcdef\r\n", b"AGREE_UNIX_FD\r\n"):
        await reader.read(100)
        writer.write(answer)
    writer.write(b"\xff" * 4096)
    await silent(reader, writer)


@pytest.mark.parametrize("client", [silent, closing, refusing, babbling])
def test_a_bus_that_is_none(client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(firewalld, "CALL_S", 0.2)

    async def scenario() -> None:
        place = str(tmp_path / "bus")
        server = await asyncio.start_unix_server(client, place)
        with pytest.raises(BusError):
            await Bus.open(place)
        server.close()
        assert not [task for task in asyncio.all_tasks() if "Bus" in str(task)], (
            "nothing goes on that was begun"
        )

    asyncio.run(asyncio.wait_for(scenario(), 20))


def test_no_bus_at_all(tmp_path: Path) -> None:
    with pytest.raises(BusError, match="cannot be used"):
        asyncio.run(Bus.open(str(tmp_path / "bus")))
