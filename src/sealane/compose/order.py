"""The order in which services start: waves, each needing only what the waves before it hold."""

from collections.abc import Collection, Iterable, Mapping

from sealane.compose.problems import shown


class CycleError(ValueError):
    """Services that wait for each other. `cycle` has each once, in the order in which they need one another."""

    def __init__(self, cycle: tuple[str, ...]) -> None:
        self.cycle = cycle
        super().__init__(" -> ".join(shown(name)[1:-1] for name in (*cycle, cycle[0])))


def waves(needs: Mapping[str, Collection[str]]) -> tuple[tuple[str, ...], ...]:
    """Names grouped in starting order, and within a wave by name; stopping is the reverse.

    `needs` maps every name to the names that start before it; a needed name that is no key is taken as there.
    Raises CycleError. Depth of the graph costs no recursion.
    """
    missing = {name: {need for need in desired if need in needs} for name, desired in needs.items()}
    needed_by: dict[str, list[str]] = {name: [] for name in needs}
    for name, desired in missing.items():
        for need in desired:
            needed_by[need].append(name)
    ordered: list[tuple[str, ...]] = []
    ready = sorted(name for name, desired in missing.items() if not desired)
    while ready:
        ordered.append(tuple(ready))
        ready = sorted(_release(ready, missing, needed_by))
    stuck = {name: desired for name, desired in missing.items() if desired}
    if stuck:
        raise CycleError(_find_cycle(stuck))
    return tuple(ordered)


def _release(
    started: Iterable[str], missing: dict[str, set[str]], needed_by: Mapping[str, list[str]]
) -> list[str]:
    freed = []
    for name in started:
        for waiting in needed_by[name]:
            missing[waiting].discard(name)
            if not missing[waiting]:
                freed.append(waiting)
    return freed


def _find_cycle(stuck: Mapping[str, set[str]]) -> tuple[str, ...]:
    # Every name here still misses another that is here too, so that walking on must come back.
    seen: dict[str, int] = {}
    name = min(stuck)
    while name not in seen:
        seen[name] = len(seen)
        name = min(stuck[name])
    cycle = list(seen)[seen[name] :]
    start = cycle.index(min(cycle))
    return tuple(cycle[start:] + cycle[:start])
