"""Detaching a hundred endpoints: in one call, in a hundred calls at once, and a process each with the peers."""

from bench.daemon import DaemonHost
from bench.host import Host
from bench.peers import Cni, Netavark
from bench.report import Goal, Row, median

ENDPOINTS = 100
ROUNDS = 5
TENFOLD = Goal("at least", 10.0)


def hundred() -> list[Row]:
    """The peers do it once, as it takes them ten seconds; theirs is the sum of their calls one after the other."""
    with (
        Host(DaemonHost, ENDPOINTS) as daemon,
        Host(Netavark, ENDPOINTS) as netavark,
        Host(Cni, ENDPOINTS) as cni,
    ):
        once: list[float] = []
        together: list[float] = []
        for _ in range(ROUNDS):
            daemon("attach_many", ENDPOINTS, 10)
            once.append(daemon("detach_at_once", ENDPOINTS))
            daemon("attach_many", ENDPOINTS, 10)
            together.append(daemon("detach_many", ENDPOINTS, ENDPOINTS))
        peers = {"netavark teardown": _detach_all(netavark), "CNI portmap + bridge DEL": _detach_all(cni)}
    return [
        Row(
            benchmark=f"detach of {ENDPOINTS}",
            what=what,
            ours=median(ours),
            unit="s",
            peer=peer,
            theirs=theirs,
            ratio=theirs / median(ours),
            goal=TENFOLD,
        )
        for peer, theirs in peers.items()
        for what, ours in (("one call", once), (f"{ENDPOINTS} calls at once", together))
    ]


def _detach_all(host: Host[Netavark] | Host[Cni]) -> float:
    for number in range(ENDPOINTS):
        host("attach", number)
    return sum(float(host("detach", number)) for number in range(ENDPOINTS))
