"""Podman: `netavark setup` and `teardown` as podman calls them, our front end against netavark, among many containers."""

from typing import Any

from bench.daemon import SEALANE, DaemonHost
from bench.host import Host, HostError, run
from bench.peers import Netavark, call, netavark_options
from bench.report import Goal, Row, interleave, median, paired

ROUNDS = 12
CONTAINERS = 400
"""There already, each with a port."""
BIN_DIR, CONF_DIR = "/run/podman/bin", "/run/podman/conf"
FASTER = Goal("at least", 6.0)


class PodmanDaemon(DaemonHost):
    """A daemon, and the front end as `sealane podman install` writes it."""

    def __init__(self, sandboxes: int) -> None:
        super().__init__(sandboxes, networks=())
        run(*SEALANE, "podman", "install", "--bin-dir", BIN_DIR, "--conf-dir", CONF_DIR)

    def attach(self, number: int) -> float:
        took, answer = self._call("setup", number)
        if "eth0" not in answer["bench"]["interfaces"]:
            raise HostError(f"sealane: {answer}")
        return took

    def detach(self, number: int) -> float:
        return self._call("teardown", number)[0]

    def _call(self, verb: str, number: int) -> tuple[float, Any]:
        argv = [f"{BIN_DIR}/netavark", "--config", "/run/containers/networks", "--rootless=false"]
        return call([*argv, verb, self.paths[number]], netavark_options(number))


def setups() -> list[Row]:
    sandboxes = CONTAINERS + ROUNDS + 1
    with Host(PodmanDaemon, sandboxes) as ours, Host(Netavark, sandboxes) as peer:
        for number in range(CONTAINERS):
            ours("attach", number)
            peer("attach", number)
        took = interleave(
            ROUNDS,
            {
                "setup": lambda n: ours("attach", CONTAINERS + n),
                "peer setup": lambda n: peer("attach", CONTAINERS + n),
            },
        )
        took |= interleave(
            ROUNDS,
            {
                "teardown": lambda n: ours("detach", CONTAINERS + n),
                "peer teardown": lambda n: peer("detach", CONTAINERS + n),
            },
        )
    return [row(what, took) for what in ("setup", "teardown")]


def row(what: str, took: dict[str, list[float]]) -> Row:
    ours, theirs = took[what], took[f"peer {what}"]
    return Row(
        benchmark="podman, a process a call",
        what=f"{what}, one port, {CONTAINERS} containers there",
        ours=median(ours),
        unit="s",
        peer="netavark",
        theirs=median(theirs),
        ratio=paired(theirs, ours),
        goal=FASTER if what == "setup" else None,
    )
