"""Names that have a Kubernetes namespace, in tables: it has a column of its own as soon as one name has one."""

from collections.abc import Sequence
from typing import TypeVar

from sealane.cli.output import Cell

HEADER = "NAMESPACE"
T = TypeVar("T")


def with_namespaces(
    headers: Sequence[str], rows: Sequence[Sequence[Cell]], name: int, *others: int
) -> tuple[Sequence[str], Sequence[Sequence[Cell]]]:
    """The table with that column before column `name`, which has bare names then. Columns `others` hold names of the same
    namespace, and are shortened where they do."""
    if not any("/" in _text(row[name]) for row in rows):
        return headers, rows
    return _put(headers, name, HEADER), [_split(row, name, others) for row in rows]


def _split(row: Sequence[Cell], name: int, others: Sequence[int]) -> Sequence[Cell]:
    namespace, slash, bare = _text(row[name]).rpartition("/")
    cells = list(row)
    cells[name] = bare
    for other in others:
        cells[other] = _text(row[other]).removeprefix(f"{namespace}{slash}")
    return _put(cells, name, namespace)


def _put(cells: Sequence[T], index: int, cell: T) -> list[T]:
    return [*cells[:index], cell, *cells[index:]]


def _text(cell: Cell) -> str:
    return cell if isinstance(cell, str) else cell[0]
