"""Looking up a value in an interval set without looking at every element."""

from bisect import bisect_right
from collections.abc import Iterable

from sealane.kernel.nft import TYPE_BYTES, Element, Set

_Row = tuple[tuple[bytes, ...], tuple[bytes, ...], Element]

EXACT, ANY, RANGE = "=", "*", "-"


class IntervalIndex:
    """Elements by shape: which of their fields are one value, any value, or a range.

    The elements of a set do not overlap, so those of one shape and equal exact fields, of which one field is a range,
    are disjoint in that field: a binary search finds the one candidate. Several ranges are tried one by one; sealane
    emits no such element but in `publish_from_ranges`: the ranges that a sandbox of several networks publishes.
    """

    def __init__(self, owner: Set, elements: Iterable[Element]) -> None:
        self._offsets = _offsets(owner)
        self._single: dict[bytes, Element] = {}
        self._shapes: dict[str, dict[tuple[bytes, ...], list[_Row]]] = {}
        for element in elements:
            if element.end in (b"", element.value):
                self._single[element.value] = element
            else:
                self._add(element)
        for shape, table in self._shapes.items():
            place = shape.find(RANGE)
            for rows in table.values():
                rows.sort(key=lambda row: row[0][place])

    def _add(self, element: Element) -> None:
        lows, highs = self._fields(element.value), self._fields(element.end)
        shape = "".join(map(_shape, lows, highs))
        exact = tuple(low for low, kind in zip(lows, shape, strict=True) if kind == EXACT)
        self._shapes.setdefault(shape, {}).setdefault(exact, []).append((lows, highs, element))

    def _fields(self, value: bytes) -> tuple[bytes, ...]:
        return tuple(value[begin:end] for begin, end in self._offsets)

    def find(self, value: bytes) -> Element | None:
        found = self._single.get(value)
        if found is not None:
            return found
        fields = self._fields(value)
        for shape, table in self._shapes.items():
            exact = tuple(part for part, kind in zip(fields, shape, strict=True) if kind == EXACT)
            rows = table.get(exact, [])
            if shape.count(RANGE) == 1:
                place = shape.index(RANGE)
                rows = rows[max(0, bisect_right(rows, fields[place], key=lambda row: row[0][place]) - 1) :][
                    :1
                ]
            for lows, highs, element in rows:
                if all(low <= part <= high for low, part, high in zip(lows, fields, highs, strict=True)):
                    return element
        return None


def _shape(low: bytes, high: bytes) -> str:
    if low == high:
        return EXACT
    return ANY if not any(low) and all(octet == 0xFF for octet in high) else RANGE


def _offsets(owner: Set) -> list[tuple[int, int]]:
    """Where the fields of a value are: each begins at a 32-bit register."""
    offsets, place = [], 0
    for kind in owner.type:
        size = TYPE_BYTES[kind]
        offsets.append((place, place + size))
        place += size + 3 & ~3
    return offsets
