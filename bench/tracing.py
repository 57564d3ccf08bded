"""What a trace costs those who are not in it, and whether it misses anything when they are many.

Round trips of bystanders: on a host that never traced, on one whose trace has ended, and on one that follows packets of
another port. Then single packets are traced while bystanders' traffic runs as fast as it can.
"""

import json
import subprocess
import time
from collections.abc import Callable
from functools import partial

from bench.daemon import SEALANE
from bench.host import Host, HostError, in_sandbox
from bench.report import Goal, Row, interleave, median, paired
from bench.traffic import OursPath

ROUNDS = 12
TRACES = 20
OTHER_PORT = 9
LIVE_S = "300"
START_TIMEOUT_S = 10.0
STREAM_S = "60"
GOAL_ON, GOAL_OFF = Goal("at most", 1.25), Goal("at most", 1.03)
GOAL_LOST = Goal("at most", 0, "")


class TracedPath(OursPath):
    """Two sandboxes on a bridge, and traces of what goes from the second to the first."""

    def __init__(self) -> None:
        super().__init__("bridge")
        self.set_bridge_netfilter(1)
        self._trace: subprocess.Popen[str] | None = None
        names = self.client.request("GET", "/v1/endpoints")
        self._source = next(
            found["id"] for found in names if not found["addresses"][0].startswith(self.address)
        )
        self._question = [self._source, f"{self.address}:{OTHER_PORT}", "--json"]

    def quiet_trips(self) -> float:
        """Seconds of a round trip, its 5th percentile."""
        return self.trips()["p5"]

    def traced_trips(self) -> float:
        self._begin()
        try:
            return self.trips()["p5"]
        finally:
            self._end()

    def lost(self) -> tuple[int, float]:
        """Of TRACES single packets beside a stream: how many were not told whole; and the stream's Gbit/s."""
        first, second = (["nsenter", f"--net={path}"] for path in self.paths)
        server = subprocess.Popen([*first, "iperf3", "-s", "-1"], stdout=subprocess.DEVNULL)
        time.sleep(0.2)
        client = subprocess.Popen(
            [*second, "iperf3", "-c", self.address, "-t", STREAM_S, "-J"], stdout=subprocess.DEVNULL
        )
        try:
            before, started = self._received(), time.monotonic()
            failed = sum(not self._is_told_whole() for _ in range(TRACES))
            rate = (self._received() - before) * 8 / (time.monotonic() - started) / 1e9
        finally:
            for process in (client, server):
                process.kill()
                process.wait()
        return failed, rate

    def _is_told_whole(self) -> bool:
        out = subprocess.run(
            [*SEALANE, "trace", *self._question, "--proto", "udp"], stdout=subprocess.PIPE, check=False
        ).stdout
        *observed_paths, end = [json.loads(line) for line in out.splitlines()]
        hops = [
            len(observed_path["observed"]["hops"])
            for observed_path in observed_paths
            if observed_path["agrees"]
        ]
        return hops == [3] and not any("lost" in note for note in end["notes"])

    def _received(self) -> int:
        links = json.loads(in_sandbox(self.paths[0], "ip", "-j", "-s", "link", "show", "eth0"))
        return int(links[0]["stats64"]["rx"]["bytes"])

    def _begin(self) -> None:
        command = [*SEALANE, "trace", *self._question, "--live", "--timeout", LIVE_S]
        self._trace = subprocess.Popen(command, stdout=subprocess.DEVNULL, text=True)
        self._wait_for(lambda: self._is_on())

    def _end(self) -> None:
        assert self._trace is not None
        self._trace.kill()
        self._trace.wait()
        self._wait_for(lambda: not self._is_on())

    @staticmethod
    def _is_on() -> bool:
        tables = subprocess.run(
            ["nft", "list", "tables"], stdout=subprocess.PIPE, text=True, check=True
        ).stdout
        return "bridge sealane-trace-" in tables

    @staticmethod
    def _wait_for(condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not condition():
            if time.monotonic() > deadline:
                raise HostError("the trace does not begin, or does not end")
            time.sleep(0.01)


def bystanders() -> list[Row]:
    with Host(TracedPath) as never, Host(TracedPath) as ours:
        measured = interleave(
            ROUNDS,
            {
                "never": lambda _: float(never("quiet_trips")),
                "on": lambda _: float(ours("traced_trips")),
                "off": lambda _: float(ours("quiet_trips")),
            },
        )
        lost, rate = ours("lost")
    row = partial(Row, benchmark="trace: bystanders' round trip", unit="s")
    return [
        row(
            what="a trace that does not fit them", ours=median(measured["on"]), peer="it is off",
            theirs=median(measured["off"]), ratio=paired(measured["on"], measured["off"]), goal=GOAL_ON,
            note="5th percentiles, spinning",
        ),
        row(
            what="a trace has ended", ours=median(measured["off"]), peer="never traced",
            theirs=median(measured["never"]), ratio=paired(measured["off"], measured["never"]), goal=GOAL_OFF,
            note="two hosts",
        ),
        Row(
            benchmark="trace: packets not told whole", what=f"of {TRACES}, beside a stream", ours=lost, unit="",
            goal=GOAL_LOST, note=f"{rate:.1f} Gbit/s of others' traffic",
        ),
    ]  # fmt: skip
