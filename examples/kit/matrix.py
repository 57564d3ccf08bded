"""Who reaches whom, tried for real: a connection from every place to every service, by every address it has."""

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from examples.kit.layout import Layout
from examples.kit.screen import Cell
from examples.kit.show import Stage
from examples.kit.trouble import DemoError

Matrix = dict[str, dict[str, bool]]
"""From a place (row) to a service (column)."""

PROBE = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "shop", "app", "probe.py")


class Reach:
    """What should be. `columns`: title → service and port, `host` for the published one.

    `allowed`: place → titles that it reaches, separated by `, `. Places are `visitor`, `host` and services.
    """

    def __init__(self, columns: Mapping[str, tuple[str, int]], allowed: Mapping[str, str]) -> None:
        self.columns = dict(columns)
        self.expected: Matrix = {
            place: {title: title in text.split(", ") for title in columns} for place, text in allowed.items()
        }

    def probe(self, stage: Stage, layout: Layout) -> Matrix:
        """Try all at once. DemoError if a container cannot be asked."""
        targets = {title: _targets(stage, layout, *where) for title, where in self.columns.items()}
        desired = [target for each in targets.values() for target in each]
        places = [place for place in self.expected if place != "visitor" or stage.has_outside]
        with ThreadPoolExecutor(len(places)) as pool:
            looks = list(pool.map(lambda place: _look(stage, layout, place, desired), places))
        found: Matrix = {}
        for place, look in zip(places, looks, strict=True):
            opened = dict(zip(desired, look, strict=True))
            found[place] = {title: any(opened[target] for target in each) for title, each in targets.items()}
        return found

    def mismatches(self, matrix: Matrix) -> list[str]:
        """A sentence for each that is not as expected."""
        return [
            f"{place} {'reaches' if is_open else 'does not reach'} {title}"
            for place, found in matrix.items()
            for title, is_open in found.items()
            if is_open != self.expected[place][title]
        ]

    def rows(self, matrix: Matrix) -> list[list[Cell]]:
        """For Screen.table; what is not as expected stands out."""
        return [
            [place, *(self._cell(place, title, found[title]) for title in self.columns)]
            for place, found in matrix.items()
        ]

    def _cell(self, place: str, title: str, is_open: bool) -> Cell:
        if is_open == self.expected[place][title]:
            return ("✓", "green") if is_open else ("·", "dim")
        return (f"{'✓' if is_open else '·'} ✗ wrong", "red")


def _targets(stage: Stage, layout: Layout, service: str, port: int) -> list[str]:
    addresses = [stage.address, *layout.gateways] if service == "host" else layout.addresses(service)
    return [f"{address}:{port}" for address in addresses]


def _look(stage: Stage, layout: Layout, name: str, desired: list[str]) -> list[bool]:
    for place in (stage.visitor, stage.host):
        if name == place.name:
            return list(place.ask("open_ports", desired))
    # Who looks is a process in the container; its program comes by standard input, so the container need not have it.
    with open(PROBE, encoding="utf-8") as file:
        program = file.read()
    container = f"{layout.project}-{name}-1"
    words = stage.sealane.inside(container, "python3", "-", *desired, text=program).split()
    if len(words) != len(desired):
        raise DemoError(f"{container} has not answered what it reaches: {' '.join(words)!r}")
    return [word == "yes" for word in words]
