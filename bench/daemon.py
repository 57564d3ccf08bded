"""The daemon as people run it, on a host of its own, and its callers."""

import asyncio
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any

from bench.host import HostError, make_sandboxes
from bench.peers import PORT_FIRST
from sealane.client import Client, UnreachableError

SEALANE = (sys.executable, "-m", "sealane")
SOCKET = "/run/sealane/sealane.sock"
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 15.0
READY_POLL_S = 0.001
SUBNETS = {"bench": "10.66.0.0/16", "other": "10.67.0.0/16"}


class DaemonHost:
    """A daemon, its networks and sandboxes to attach to them."""

    def __init__(
        self,
        sandboxes: int,
        driver: str = "bridge",
        networks: Sequence[str] = ("bench",),
        options: Mapping[str, str] | None = None,
    ) -> None:
        self.paths = make_sandboxes(sandboxes)
        self.state_dir = tempfile.mkdtemp(prefix="sealane-bench-", dir="/var/tmp")
        self._log = open(f"{self.state_dir}/log", "w", encoding="utf-8")  # noqa: SIM115  # Closed in `close`.
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self.start()
            for name in networks:
                request = {
                    "name": name,
                    "driver": driver,
                    "subnets": [{"prefix": SUBNETS[name]}],
                    "options": dict(options or {}),
                }
                self.client.request("POST", "/v1/networks", request)
        except BaseException:
            self.close()
            raise

    def start(self) -> float:
        """Seconds until it answers `status` as ready."""
        started = time.perf_counter()
        self._process = subprocess.Popen(
            [*SEALANE, "daemon", "--state", self.state_dir, "--log-level", "warning"],
            stdout=self._log,
            stderr=self._log,
        )
        self.client = Client(SOCKET)
        while not self._is_ready():
            if self._process.poll() is not None or time.perf_counter() - started > START_TIMEOUT_S:
                with open(f"{self.state_dir}/log", encoding="utf-8") as log:
                    raise HostError(f"the daemon did not start: {log.read()[-2000:]}")
            time.sleep(READY_POLL_S)
        return time.perf_counter() - started

    def _is_ready(self) -> bool:
        try:
            return bool(self.status()["state"] != "hold")
        except UnreachableError:
            return False

    def stop(self) -> None:
        """Idempotent."""
        self.client.close()
        if self._process is None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def close(self) -> None:
        self.stop()
        self._log.close()
        shutil.rmtree(self.state_dir)

    def status(self) -> Any:
        return self.client.request("GET", "/v1/status")

    def memory_mib(self) -> float:
        """Resident set of the daemon now."""
        assert self._process is not None
        with open(f"/proc/{self._process.pid}/status", encoding="ascii") as file:
            for line in file:
                if line.startswith("VmRSS:"):
                    return int(line.split()[1]) / 1024
        raise HostError("the daemon has no VmRSS")

    # --- one call

    def attach(self, number: int) -> float:
        """Over a connection that is kept."""
        return self._timed(self.client, "/v1/attach", self.attach_request(number))

    def attach_anew(self, number: int) -> float:
        """Connecting included."""
        with Client(SOCKET) as client:
            return self._timed(client, "/v1/attach", self.attach_request(number))

    def attach_by_cli(self, number: int) -> float:
        """A process, as the peers are."""
        argv = [*SEALANE, "attach", self.paths[number], "bench", "--publish", f"{PORT_FIRST + number}:80"]
        started = time.perf_counter()
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - started

    def detach(self, number: int) -> float:
        return self._timed(self.client, "/v1/detach", [{"sandbox": self.paths[number]}])

    @staticmethod
    def _timed(client: Client, path: str, body: object) -> float:
        started = time.perf_counter()
        client.request("POST", path, body)
        return time.perf_counter() - started

    def attach_request(self, number: int, network: str = "bench") -> dict[str, Any]:
        return {
            "sandbox": self.paths[number],
            "network": network,
            "publish": [{"host_first": PORT_FIRST + number, "port": 80}],
        }

    # --- many calls

    def attach_many(self, count: int, width: int, first: int = 0) -> float:
        """Seconds for `count` attaches, `width` under way at any time, each over a connection that is kept."""
        bodies = [self.attach_request(number) for number in range(first, first + count)]
        return asyncio.run(calls("/v1/attach", bodies, width))

    def detach_many(self, count: int, width: int, first: int = 0) -> float:
        bodies = [[{"sandbox": path}] for path in self.paths[first : first + count]]
        return asyncio.run(calls("/v1/detach", bodies, width))

    def detach_at_once(self, count: int) -> float:
        """All in one call."""
        return self._timed(self.client, "/v1/detach", [{"sandbox": path} for path in self.paths[:count]])


async def calls(path: str, bodies: Sequence[object], width: int) -> float:
    """Seconds for one POST a body. Connections are made before the time is taken."""
    requests = [_encoded(path, body) for body in reversed(bodies)]
    connections = [await asyncio.open_unix_connection(SOCKET) for _ in range(width)]

    async def work(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while requests:
            writer.write(requests.pop())
            await _answer(reader)

    started = time.perf_counter()
    await asyncio.gather(*(work(*connection) for connection in connections))
    took = time.perf_counter() - started
    for _, writer in connections:
        writer.close()
        await writer.wait_closed()
    return took


def _encoded(path: str, body: object) -> bytes:
    data = json.dumps(body).encode()
    return f"POST {path} HTTP/1.1\r\nHost: \r\nContent-Length: {len(data)}\r\n\r\n".encode() + data


async def _answer(reader: asyncio.StreamReader) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(
        int(line.partition(b":")[2])
        for line in head.split(b"\r\n")
        if line.lower().startswith(b"content-length")
    )
    body = await reader.readexactly(length)
    if not head.startswith(b"HTTP/1.1 200"):
        raise HostError(body.decode(errors="replace"))
