"""Looks at a network from where it runs: can I connect, what does this page say, how long was it away.

`Here` looks from this process, `Elsewhere` from a process that it started in another namespace: this file again, run
alone, so only the standard library is used. They talk in lines of JSON, and the process ends with its standard input.
"""

import http.client
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, Self

CONNECT_TIMEOUT_S = 0.8
PAGE_TIMEOUT_S = 10.0
PAGE_BYTES_MAX = 64 * 1024
KNOCKERS = 4
KNOCK_PAUSE_S = 0.012
BACK_S = 10.0
"""A port that is away when a watch ends may take so long to be back."""
PARALLEL_MAX = 16


class Place(Protocol):
    """Somewhere on a network. `name` says where."""

    name: str

    def ask(self, operation: str, *arguments: Any) -> Any:
        """One of OPERATIONS; OSError with its reason if it failed."""


# --- what can be asked ----------------------------------------------------------------------------------------------


def open_ports(targets: Sequence[str]) -> list[bool]:
    """Whether each HOST:PORT accepts connections, all tried at once."""
    with ThreadPoolExecutor(PARALLEL_MAX) as pool:
        return list(pool.map(is_open, targets))


def is_open(target: str) -> bool:
    host, _, port = target.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_TIMEOUT_S).close()
    except OSError:
        return False
    return True


def page(target: str, path: str = "/", form: str | None = None) -> dict[str, Any]:
    """GET it, or POST a form: status, text, own address as used, milliseconds."""
    host, _, port = target.rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=PAGE_TIMEOUT_S)
    begun = time.monotonic()
    try:
        connection.connect()
        source = connection.sock.getsockname()[0]
        if form is None:
            connection.request("GET", path)
        else:
            connection.request("POST", path, form, {"Content-Type": "application/x-www-form-urlencoded"})
        answer = connection.getresponse()
        text = answer.read(PAGE_BYTES_MAX).decode(errors="replace")
    except http.client.HTTPException as error:
        raise OSError(f"{target}: {error!r}") from error
    finally:
        connection.close()
    return {
        "status": answer.status,
        "text": text,
        "source": source,
        "milliseconds": (time.monotonic() - begun) * 1000,
    }


class Watch:
    """Knocks at one port, again and again, and remembers when that was in vain."""

    def __init__(self, target: str, path: str = "") -> None:
        """To connect is enough, unless there is a `path`: then the page must come."""
        self._target = target
        self._path = path
        self._end = threading.Event()
        self._tries: list[tuple[float, str]] = []
        """When it began, and why it was in vain."""
        # Several, because one that hears nothing waits: meanwhile the others see when the port is back.
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(KNOCKERS)]
        for thread in self._threads:
            thread.start()
            time.sleep(KNOCK_PAUSE_S / KNOCKERS)

    def _run(self) -> None:
        while not self._end.is_set():
            begun = time.monotonic()
            self._tries.append((begun, self._knock()))
            time.sleep(KNOCK_PAUSE_S)

    def _knock(self) -> str:
        if not self._path:
            return "" if is_open(self._target) else "no connection"
        try:
            answer = page(self._target, self._path)
        except OSError as error:
            return str(error)
        return "" if answer["status"] == http.client.OK else f"HTTP {answer['status']}: {answer['text']}"

    def stop(self, patience_s: float = 0.0) -> dict[str, Any]:
        """How many tries, how many in vain and why, how long from the first of these to the next good one, was there one
        within `patience_s`. (On a busy machine the last knock before the repair may be answered long after it.)"""
        deadline = time.monotonic() + patience_s
        while self._tries and self._tries[-1][1] and time.monotonic() < deadline:
            time.sleep(KNOCK_PAUSE_S)
        self._end.set()
        for thread in self._threads:
            thread.join()
        failed = sorted(begun for begun, why in self._tries if why)
        after = sorted(begun for begun, why in self._tries if not why and failed and begun > failed[-1])
        return {
            "tries": len(self._tries),
            "failed": len(failed),
            "why": sorted({why for _, why in self._tries if why}),
            "away_ms": (after[0] - failed[0]) * 1000 if after else 0.0,
            "back": bool(after) or not failed,
        }


class Operations:
    """By name, and the one watch that can be under way."""

    def __init__(self) -> None:
        self._watch: Watch | None = None

    def perform(self, operation: str, arguments: Sequence[Any]) -> Any:
        if operation == "open_ports":
            return open_ports(*arguments)
        if operation == "page":
            return page(*arguments)
        if operation == "watch":
            self._watch = Watch(*arguments)
            return None
        if operation == "unwatch" and self._watch is not None:
            watch, self._watch = self._watch, None
            return watch.stop(BACK_S)
        raise ValueError(f"no such operation: {operation}")


# --- where ----------------------------------------------------------------------------------------------------------


class Here:
    """The namespace of this process."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._operations = Operations()

    def ask(self, operation: str, *arguments: Any) -> Any:
        return self._operations.perform(operation, arguments)


class Elsewhere:
    """A namespace that `command` makes or enters (`unshare --net --`). It goes when this is closed."""

    def __init__(self, name: str, command: Sequence[str]) -> None:
        self.name = name
        self._process = subprocess.Popen(
            [*command, sys.executable, "-I", "-S", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.pid = int(self._read())

    def ask(self, operation: str, *arguments: Any) -> Any:
        if self._process.stdin is None:
            raise OSError(f"{self.name} is closed")
        self._process.stdin.write(json.dumps([operation, arguments]) + "\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> Any:
        line = self._process.stdout.readline() if self._process.stdout else ""
        if not line:
            raise OSError(f"{self.name} has ended (exit code {self._process.wait()})")
        answer = json.loads(line)
        if "error" in answer:
            raise OSError(f"{self.name}: {answer['error']}")
        return answer["result"]

    def close(self) -> None:
        """Idempotent."""
        # Both pipes are closed and the process is waited for.
        with self._process:
            pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def serve() -> None:
    """Until standard input ends: a line in, a line out."""
    operations = Operations()
    _answer({"result": os.getpid()})
    for line in sys.stdin:
        operation, arguments = json.loads(line)
        try:
            _answer({"result": operations.perform(operation, arguments)})
        except (OSError, ValueError) as error:
            _answer({"error": str(error) or repr(error)})


def _answer(document: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    serve()
