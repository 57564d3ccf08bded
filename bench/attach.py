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


Key = tuple[str, int]
"""A driver, and how many endpoints are there."""

Samples = dict[str, list[float]]
"""What `EngineHost.round` tells, of all rounds."""


def inside() -> list[Row]:
    """Every size is a host of its own. First the smallest ones, with nothing else on the machine; then all at once, so
    that they are measured in turn. The kernel is slower among thousands of other namespaces, and so are we."""
    alone = _measured([(driver, sizes[0]) for driver, sizes in SIZES.items()])
    among = _measured([(driver, size) for driver, sizes in SIZES.items() for size in sizes])
    rows: list[Row] = []
    for driver, sizes in SIZES.items():
        few, many = sizes[0], sizes[-1]
        rows.append(_floor_row(driver, f"{few} endpoints, nothing else there", alone[driver, few]))
        rows += [_floor_row(driver, f"{size:,} endpoints there", among[driver, size]) for size in sizes]
        rows.append(_flat_row(driver, among[driver, few], among[driver, many], sizes))
    return rows


def _measured(keys: list[Key]) -> dict[Key, Samples]:
    """In rounds over hosts that are all there."""
    with ExitStack() as stack:
        hosts = {key: stack.enter_context(Host(EngineHost, *key)) for key in keys}
        for (driver, size), host in hosts.items():
            if not host("is_same_state"):
                raise HostError(f"{driver}, {size}: a replay does not make what the engine makes")
        measured: dict[Key, Samples] = {key: {} for key in hosts}
        for round_ in range(-2, ROUNDS):
            for key, host in hosts.items():
                for name, samples in host("round").items():
                    if round_ >= 0:
                        measured[key].setdefault(name, []).extend(samples)
    return measured


def _floor_row(driver: str, what: str, measured: Samples) -> Row:
    ours, floor = measured["ours"], measured["floor"]
    entered = [f + e for f, e in zip(floor, measured["entering"], strict=True)]
    return Row(
        benchmark="attach, inside",
        what=f"{driver}, {what}",
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


def _flat_row(driver: str, few: Samples, many: Samples, sizes: tuple[int, ...]) -> Row:
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
