"""Connections that are handed over to who attends a process: the daemon's part in them."""

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Sequence

import msgspec

from sealane.containers import codes
from sealane.containers.frames import BEGUN, EXIT, Peer, frame
from sealane.http.json import failure

FAREWELL_S = 10.0


def introduce(connection: socket.socket, identity: str, warnings: Sequence[str] = ()) -> None:
    """Tell a client which container is his: a name may be somebody else's by the time that he uses it."""
    with contextlib.suppress(OSError):
        connection.send(frame(BEGUN, msgspec.json.encode({"id": identity, "warnings": warnings})))


async def told(connection: socket.socket, work: Awaitable[object]) -> None:
    """Hand it over by `work`, which keeps an end of its own. If that fails, who is at the other end is told why."""
    with connection:
        try:
            await work
        except Exception as error:
            await asyncio.to_thread(_refuse, connection, error)


def _refuse(connection: socket.socket, error: Exception) -> None:
    """In the place of an exit code, what would have been the answer."""
    _, body = failure(error)
    end = {"exit_code": codes.FAILED, "error": "", "refusal": body}
    client = Peer(connection)
    client.send(frame(EXIT, msgspec.json.encode(end)))
    client.finish(FAREWELL_S)
