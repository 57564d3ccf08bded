"""A thousand endpoints: coming and going, a restart over them, and their ruleset flushed."""

import time
from contextlib import suppress
from socket import SOCK_DGRAM, SOCK_STREAM, create_connection, socket
from subprocess import Popen

from bench.daemon import DaemonHost
from bench.host import Host, HostError, socket_in
from bench.peers import PORT_FIRST
from bench.report import Goal, Row, median

ENDPOINTS = 1000
AT_ONCE = 50
ROUNDS = 3
RESTARTS = 5
FLUSHES = 5

VERIFIED_S = 2.0
"""After a start, for what the daemon looks at in the background."""

HEAL_TIMEOUT_S = 10.0
QUIET_S = 0.1
"""Without a packet where none may pass: isolation is back."""

CONNECT_TIMEOUT_S = 0.05
WEB, SPY_PORT = 80, 9999
GATEWAY = "10.66.0.1"


class ScaleHost(DaemonHost):
    """As many endpoints on one network, and one on another, whose packets must not reach them."""

    def __init__(self) -> None:
        super().__init__(ENDPOINTS + 1, networks=("bench", "other"))
        self.client.request("POST", "/v1/attach", {"sandbox": self.paths[ENDPOINTS], "network": "other"})

    def restart(self) -> dict[str, float]:
        """Seconds from the new process to ready, and what it has written once it has looked at everything."""
        self.stop()
        took = self.start()
        time.sleep(VERIFIED_S)
        status = self.status()
        if status["endpoints"] != ENDPOINTS + 1:
            raise HostError(f"{status['endpoints']} endpoints after a restart")
        return {"took": took, "writes": float(status["writes"]), "repairs": float(status["repairs"])}

    def flush(self) -> dict[str, float]:
        """Flush every rule of the host, and knock until all is as before: seconds until the published port answers
        again, and until the last packet between the networks has passed, both from the first sign of the flush."""
        knockers = self._knockers()
        process = Popen(["nft", "flush", "ruleset"])
        try:
            return self._knock(*knockers)
        finally:
            process.wait()
            for knocker in knockers:
                knocker.close()
            if not self.client.request("GET", "/v1/audit")["clean"]:
                raise HostError("after the repair the audit is not clean")

    def _knockers(self) -> tuple[socket, socket, socket]:
        listener = socket_in(self.paths[0], SOCK_STREAM)
        listener.bind(("", WEB))
        listener.listen()
        listener.setblocking(False)
        spy = socket_in(self.paths[0], SOCK_DGRAM)
        spy.bind(("", SPY_PORT))
        spy.setblocking(False)
        endpoint = self.client.request("GET", f"/v1/endpoints?sandbox={self._sandbox_of(0)}")[0]
        sender = socket_in(self.paths[ENDPOINTS], SOCK_DGRAM)
        sender.connect((endpoint["addresses"][0].partition("/")[0], SPY_PORT))
        sender.setblocking(False)
        return listener, spy, sender

    def _sandbox_of(self, number: int) -> str:
        desired = self.paths[number]
        sandboxes = self.client.request("GET", "/v1/sandboxes")
        return next(str(s["name"]) for s in sandboxes if s["netns"] == desired)

    def _knock(self, listener: socket, spy: socket, sender: socket) -> dict[str, float]:
        first = back = leaked = 0.0
        deadline = time.perf_counter() + HEAL_TIMEOUT_S
        while (now := time.perf_counter()) < deadline:
            with suppress(OSError):
                sender.send(b"x")
            with suppress(BlockingIOError):
                while spy.recv(16):
                    leaked = time.perf_counter()
                    first = first or leaked
            answers = _answers()
            with suppress(BlockingIOError):
                listener.accept()[0].close()
            if not answers:
                first, back = first or now, 0.0
            elif first and not back:
                back = time.perf_counter()
            if back and now > max(back, leaked) + QUIET_S:
                return {"port": back - first, "isolation": max(0.0, leaked - first)}
        raise HostError(f"not healed within {HEAL_TIMEOUT_S:.0f} s (or the flush was never seen)")


def _answers() -> bool:
    try:
        create_connection((GATEWAY, PORT_FIRST), CONNECT_TIMEOUT_S).close()
    except OSError:
        return False
    return True


def thousand() -> list[Row]:
    with Host(ScaleHost) as host:
        coming, going = [], []
        for round_ in range(ROUNDS):
            coming.append(host("attach_many", ENDPOINTS, AT_ONCE))
            if round_ < ROUNDS - 1:
                going.append(host("detach_many", ENDPOINTS, AT_ONCE))
        memory = host("memory_mib")
        starts = [host("restart") for _ in range(RESTARTS)]
        flushes = [host("flush") for _ in range(FLUSHES)]
        memory_after = host("memory_mib")
        going.append(host("detach_many", ENDPOINTS, AT_ONCE))
    worst = max(max(f.values()) for f in flushes)
    return [
        _row(f"{ENDPOINTS:,} attaches", median(coming), "s", Goal("at most", 5.0, "s")),
        _row(f"{ENDPOINTS:,} detaches", median(going), "s", Goal("at most", 5.0, "s")),
        _row(
            "the daemon's memory",
            max(memory, memory_after),
            "MiB",
            Goal("at most", 150.0, "MiB"),
            note=f"after the attaches {memory:.0f}, after restart, flushes and repairs {memory_after:.0f}",
        ),
        _row("start to ready", median(s["took"] for s in starts), "s", Goal("at most", 2.0, "s")),
        _row("kernel writes at a start", max(s["writes"] for s in starts), "", Goal("at most", 0.0, "")),
        _row(
            "flush: published port back",
            median(f["port"] for f in flushes),
            "s",
            Goal("at most", 0.5, "s"),
            note=f"worst of {FLUSHES}: {worst * 1e3:.0f} ms",
        ),
        _row(
            "flush: isolation back", median(f["isolation"] for f in flushes), "s", Goal("at most", 0.5, "s")
        ),
    ]


def _row(what: str, value: float, unit: str, goal: Goal, note: str = "") -> Row:
    return Row(benchmark=f"{ENDPOINTS:,} endpoints", what=what, ours=value, unit=unit, goal=goal, note=note)
