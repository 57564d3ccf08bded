"""Output of containers as it comes: of one, or of many side by side with their names in front."""

import queue
import threading
import time
from argparse import ArgumentTypeError
from collections.abc import Iterable, Sequence
from typing import Any

from sealane.cli.context import Context
from sealane.cli.output import Output, safe
from sealane.client import ClientError, path_of

FOLLOWED_MAX = 64
"""Containers followed at once: each takes a connection of the daemon's."""
QUEUED_LINES_MAX = 1024
PALETTE = ("cyan", "yellow", "green", "magenta", "blue")
_AGO = {"s": 1, "m": 60, "h": 3600, "d": 86400}

Line = tuple[int, dict[str, Any] | None]
"""Which container, and its line; None at its end."""


def since_time(text: str) -> float:
    """argparse type: `10m` ago, a Unix time, or an ISO 8601 time."""
    unit = _AGO.get(text[-1:])
    if unit is not None and text[:-1].isascii() and text[:-1].isdigit() and len(text) <= 9:
        return time.time() - int(text[:-1]) * unit
    if text.isascii() and text.replace(".", "", 1).isdigit():
        return float(text)
    from datetime import datetime

    try:
        return datetime.fromisoformat(text).astimezone().timestamp()
    except ValueError:
        raise ArgumentTypeError(
            f"{text!r} is no time: write 10m, 1700000000 or 2026-01-31T12:00:00Z"
        ) from None


def stamp(seconds: float) -> str:
    """RFC 3339 in UTC, to the millisecond."""
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{whole}.{int(seconds * 1000) % 1000:03d}Z"


class Interleaved:
    """Follows the logs of several containers on threads; `lines` is what they say, in the order of arrival, and when each
    has nothing more to say."""

    def __init__(self, context: Context, names: Sequence[str], tail: int | None = None) -> None:
        self._names = names[:FOLLOWED_MAX]
        self._tail = tail
        self._queue: queue.Queue[Line] = queue.Queue(QUEUED_LINES_MAX)
        self._clients = [context.another_client() for _ in self._names]
        self._stopped = False
        for index in range(len(self._names)):
            threading.Thread(target=self._read, args=(index,), daemon=True).start()

    def lines(self) -> Iterable[Line]:
        """Until all have ended."""
        left = len(self._names)
        while left:
            index, line = self._queue.get()
            if line is None:
                left -= 1
            yield index, line

    def stop(self) -> None:
        self._stopped = True
        for client in self._clients:
            client.shutdown()

    def _read(self, index: int) -> None:
        path = path_of("containers", self._names[index], "logs", follow=1, tail=self._tail)
        try:
            for line in self._clients[index].stream("GET", path):
                self._put((index, line))
        except (ClientError, OSError):
            # It was removed, or the daemon is gone: either way there is nothing more to read.
            return
        finally:
            self._put((index, None))

    def _put(self, line: Line) -> None:
        while not self._stopped:
            try:
                self._queue.put(line, timeout=1.0)
            except queue.Full:
                continue
            return


def prefixes(output: Output, labels: Sequence[str]) -> list[str]:
    """`web-1  | `, aligned, each in a colour of its own."""
    shown = [safe(label) for label in labels]
    width = max(map(len, shown), default=0)
    return [
        output.styled(f"{label:<{width}} | ", PALETTE[index % len(PALETTE)])
        for index, label in enumerate(shown)
    ]
