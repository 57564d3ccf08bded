"""`check` of a hundred sandboxes with a hundred: all reached, none reached, and both families."""

import time
from typing import Any

from bench.daemon import DaemonHost
from bench.host import Host, HostError
from bench.report import Goal, Row, median

SANDBOXES = 100
ROUNDS = 3
NETWORKS_APART = 10
PAIRS = SANDBOXES * (SANDBOXES - 1)
GOAL = Goal("at most", 10.0, "s")


class CheckHost(DaemonHost):
    def __init__(self) -> None:
        super().__init__(SANDBOXES, networks=())

    def town(self, networks: int, dual: bool) -> None:
        """All sandboxes, on so many networks in turn, in place of what was there."""
        self.client.request("POST", "/v1/detach", [{"sandbox": path} for path in self.paths])
        self.client.request("POST", "/v1/networks/prune")
        for number in range(networks):
            subnets = [{"prefix": f"10.66.{number}.0/24"}]
            subnets += [{"prefix": f"fd66:{number}::/64"}] if dual else []
            request = {"name": f"n{number}", "subnets": subnets, "ipv6": dual}
            self.client.request("POST", "/v1/networks", request)
        for number, path in enumerate(self.paths):
            body = {"sandbox": path, "network": f"n{number % networks}"}
            self.client.request("POST", "/v1/attach", body)

    def check(self) -> dict[str, Any]:
        """Seconds, and how many pairs were tried."""
        started = time.perf_counter()
        view = self.client.request("POST", "/v1/check", {"target": "", "source": ""}, timeout_s=None)
        took = time.perf_counter() - started
        if view["disagree"]:
            raise HostError(f"check disagrees with explain: {view['findings'][0]}")
        return {"took": took, "pairs": view["pairs"]}


def hundred() -> list[Row]:
    rows = []
    with Host(CheckHost) as host:
        for what, networks, dual in (
            ("one network", 1, False),
            (f"{NETWORKS_APART} networks apart", NETWORKS_APART, False),
            ("one network, both families", 1, True),
        ):
            host("town", networks, dual)
            took = [host("check")["took"] for _ in range(ROUNDS)]
            rows.append(
                Row(
                    benchmark=f"check of {SANDBOXES} × {SANDBOXES}",
                    what=what,
                    ours=median(took),
                    unit="s",
                    # Each pair has two probes there: the goal is for one.
                    goal=None if dual else GOAL,
                    note=f"{PAIRS * (2 if dual else 1):,} probes",
                )
            )
    return rows
