"""Attaching: inside the engine against the kernel's floor, and over the API against netavark and CNI."""

from contextlib import ExitStack

from bench.daemon import DaemonHost
from bench.engine import EngineHost
from bench.host import Host, HostError
from bench.peers import Cni, Netavark
from bench.report import Goal, Row, interleave, median, paired

ROUNDS = 20
SIZES = {"routed": (10, 1000, 4000), "bridge": (10, 1000)}
FLOOR = Goal("at most", 2.0)
FLAT = Goal("at most", 1.5)


def inside() -> list[Row]:
    """Every size is a host of its own and all are there at once, so that they are measured in turn."""
    with ExitStack() as stack:
        hosts = {
            (driver, size): stack.enter_context(Host(EngineHost, driver, size))
            for driver, sizes in SIZES.items()
            for size in sizes
        }
        for (driver, size), host in hosts.items():
            if not host("is_same_state"):
                raise HostError(f"{driver}, {size}: a replay does not make what the engine makes")
        measured: dict[tuple[str, int], dict[str, list[float]]] = {key: {} for key in hosts}
        for round_ in range(-2, ROUNDS):
            for key, host in hosts.items():
                for name, samples in host("round").items():
                    if round_ >= 0:
                        measured[key].setdefault(name, []).extend(samples)
    rows: list[Row] = []
    for driver, sizes in SIZES.items():
        rows += [_floor_row(driver, size, measured[driver, size]) for size in sizes]
        rows.append(_flat_row(driver, measured[driver, sizes[0]], measured[driver, sizes[-1]], sizes))
    return rows


def _floor_row(driver: str, size: int, measured: dict[str, list[float]]) -> Row:
    ours, floor = measured["ours"], measured["floor"]
    entered = [f + e for f, e in zip(floor, measured["entering"], strict=True)]
    return Row(
        benchmark="attach, inside",
        what=f"{driver}, {size:,} endpoints there",
        ours=median(ours),
        unit="s",
        peer="kernel's floor",
        theirs=median(floor),
        ratio=paired(ours, floor),
        goal=FLOOR,
        note=(
            f"{measured['objects'][0]:.0f} objects in {measured['calls'][0]:.0f} calls; best {min(ours) * 1e3:.2f} ms, "
            f"floor {min(floor) * 1e3:.2f} ms; {paired(ours, entered):.2f} × if entering the sandbox's namespace "
            "counts as the kernel's too"
        ),
    )


def _flat_row(
    driver: str, few: dict[str, list[float]], many: dict[str, list[float]], sizes: tuple[int, ...]
) -> Row:
    return Row(
        benchmark="attach, inside",
        what=f"{driver}, {sizes[-1]:,} against {sizes[0]}",
        ours=median(many["ours"]),
        unit="s",
        peer=f"{sizes[0]} endpoints",
        theirs=median(few["ours"]),
        ratio=paired(many["ours"], few["ours"]),
        goal=FLAT,
        note=f"the kernel's floor alone: {paired(many['floor'], few['floor']):.2f} ×",
    )


PEER_ROUNDS = 12
TENFOLD = Goal("at least", 10.0)


def over_api() -> list[Row]:
    """A sandbox of its own each round, so that every contender's network grows alike."""
    sandboxes = PEER_ROUNDS + 2
    with (
        Host(DaemonHost, 3 * sandboxes) as daemon,
        Host(Netavark, sandboxes) as netavark,
        Host(Cni, sandboxes) as cni,
    ):
        took = interleave(
            PEER_ROUNDS,
            {
                "kept": lambda n: daemon("attach", n),
                "anew": lambda n: daemon("attach_anew", sandboxes + n),
                "process": lambda n: daemon("attach_by_cli", 2 * sandboxes + n),
                "netavark setup": lambda n: netavark("attach", n),
                "CNI bridge + portmap ADD": lambda n: cni("attach", n),
            },
        )
    return [
        Row(
            benchmark="attach, over the API",
            what=what,
            ours=median(took[ours]),
            unit="s",
            peer=peer,
            theirs=median(took[peer]),
            ratio=paired(took[peer], took[ours]),
            goal=goal,
        )
        for peer in ("netavark setup", "CNI bridge + portmap ADD")
        for ours, what, goal in (
            ("kept", "connection kept", TENFOLD),
            ("anew", "new connection", TENFOLD),
            ("process", "by `sealane attach`, a Python process", None),
        )
    ]
