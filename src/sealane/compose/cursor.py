"""Reading a tree as typed fields: a cursor knows its node, its path and where to report.

Every reader returns None (or the default) once it has reported, so that reading goes on. A `Fields` remembers which
keys were asked for. What is left over at the end is a key nobody understands, and is named: supporting a key and
knowing it are the same line of code.
"""

import difflib
from collections.abc import Callable, Collection, Iterator
from collections.abc import Mapping as Map
from typing import TypeVar

from sealane.compose.problems import BadValue, Path, Report, shown
from sealane.compose.yaml import Mapping, Node, Scalar, Sequence

T = TypeVar("T")
D = TypeVar("D")
Pairs = tuple[tuple[str, str], ...]
Reasons = Map[str, tuple[str, str]]
"""Keys that are known but not supported: why, and what to write instead."""

_MAX_SUGGESTED_KEY = 64
_YAML_1_1_BOOLEANS = frozenset({"yes", "no", "on", "off", "y", "n", "true", "false"})


class Cursor:
    __slots__ = ("_below", "line", "node", "path", "report")

    def __init__(self, node: Node, path: Path, report: Report, *, line: int | None = None) -> None:
        self.node = node
        self.path = path
        self.report = report
        # A block begins on the line after its key, but people look for the key.
        self.line = node.line if line is None else line
        self._below: dict[str | int, Cursor] | None = None

    @property
    def is_null(self) -> bool:
        return isinstance(self.node, Scalar) and self.node.is_null

    @property
    def is_sequence(self) -> bool:
        return isinstance(self.node, Sequence)

    @property
    def is_mapping(self) -> bool:
        return isinstance(self.node, Mapping)

    @property
    def key(self) -> str:
        return str(self.path[-1])

    def fail(self, message: str, hint: str) -> None:
        self.report.problem(self.path, self.line, message, hint)

    def warn(self, message: str) -> None:
        self.report.warn(self.path, self.line, message)

    def at(self, *parts: str | int) -> "Cursor":
        """The place below, or the nearest one above it that the file has: for problems found after reading.

        A key that is looked for in a list is the list's item of that text.
        """
        here = self
        for part in parts:
            below = here._children().get(part)
            if below is None:
                break
            here = below
        return here

    def _children(self) -> "dict[str | int, Cursor]":
        """By key or index, and the plain items of a list by their text as well."""
        if self._below is None:
            self._below = {}
            if isinstance(self.node, Mapping):
                for key, value in self.node.entries:
                    child = Cursor(value, (*self.path, key.text), self.report, line=key.line)
                    self._below[key.text] = child
            elif isinstance(self.node, Sequence):
                for index, item in enumerate(self.node.items):
                    child = self._below[index] = Cursor(item, (*self.path, index), self.report)
                    if isinstance(item, Scalar):
                        self._below.setdefault(item.text, child)
        return self._below

    def text(self) -> str | None:
        if not isinstance(self.node, Scalar):
            self._expected("a text")
            return None
        if self.node.reported:
            return None
        if "\0" in self.node.text:
            self.fail("a NUL character", "remove it")
            return None
        return self.node.text

    def parse(self, parser: Callable[[str], T]) -> T | None:
        """The text through a parser that raises BadValue."""
        text = self.text()
        return None if text is None else self.parsed(text, parser)

    def parse_key(self, parser: Callable[[str], T]) -> T | None:
        """The key that leads here, through a parser that raises BadValue."""
        return self.parsed(str(self.path[-1]), parser)

    def parsed(self, text: str, parser: Callable[[str], T]) -> T | None:
        """Another text than the value's, through a parser that raises BadValue; reported here."""
        try:
            return parser(text)
        except BadValue as error:
            self.fail(error.message, error.hint)
            return None

    def flag(self) -> bool | None:
        return self.parse(parse_flag)

    def whole(self, minimum: int, maximum: int) -> int | None:
        return self.parse(lambda text: parse_whole(text, minimum, maximum))

    def items(self) -> list["Cursor"]:
        if isinstance(self.node, Sequence):
            children = self._children()
            return [children[index] for index in range(len(self.node.items))]
        self._expected("a list")
        return []

    def entries(self) -> dict[str, "Cursor"]:
        if isinstance(self.node, Mapping):
            return {str(key): child for key, child in self._children().items()}
        self._expected("a mapping")
        return {}

    def each(self, reader: Callable[["Cursor"], T | None]) -> tuple[T, ...]:
        """A list, each item through `reader`; items that have been reported are left out."""
        values = (reader(item) for item in self.items())
        return tuple(value for value in values if value is not None)

    def each_text(self, parser: Callable[[str], T], *, or_one: bool = False) -> tuple[T, ...]:
        """A list; with `or_one` a lone text stands for a list of one. A value given twice is a problem."""
        cursors = [self] if or_one and isinstance(self.node, Scalar) else self.items()
        values: dict[T, None] = {}
        for cursor in cursors:
            value = cursor.parse(parser)
            if value is None:
                continue
            if value in values:
                cursor.fail(f"{shown(str(value))} is in the list twice", "remove one of them")
            values[value] = None
        return tuple(values)

    def _expected(self, what: str) -> None:
        found = {Scalar: "a text", Sequence: "a list", Mapping: "a mapping"}[type(self.node)]
        if isinstance(self.node, Scalar) and self.node.reported:
            return
        self.fail(f"{found} where {what} is expected", f"write {what}")


class Fields:
    """The keys of a mapping, each read once. `finish` names those that nobody read."""

    def __init__(self, cursor: Cursor) -> None:
        self.cursor = cursor
        self._entries = cursor.entries()
        self._asked: set[str] = set()

    def find(self, key: str) -> Cursor | None:
        """The value's place; None if the key is missing or its value is null."""
        self._asked.add(key)
        child = self._entries.get(key)
        return None if child is None or child.is_null else child

    def read(self, key: str, reader: Callable[[Cursor], T | None], default: D) -> T | D:
        child = self.find(key)
        value = None if child is None else reader(child)
        return default if value is None else value

    def parse(self, key: str, parser: Callable[[str], T], default: D) -> T | D:
        return self.read(key, lambda cursor: cursor.parse(parser), default)

    def flag(self, key: str, default: D) -> bool | D:
        return self.read(key, Cursor.flag, default)

    def finish(self, reasons: Reasons | None = None) -> None:
        """`x-` keys are the user's own, except `x-sealane` where it is not read."""
        for key, child in self._entries.items():
            if key in self._asked or (key.startswith("x-") and key != "x-sealane"):
                continue
            reason = (reasons or {}).get(key)
            if key == "x-sealane":
                child.fail("x-sealane means nothing here", "write it in a service")
            elif reason is not None:
                child.fail(f"{key} is not supported: {reason[0]}", reason[1])
            else:
                child.fail(f"unknown key {shown(key)}", self._suggestion(key))

    def _suggestion(self, key: str) -> str:
        otherwise = "remove it; keys of your own begin with x-"
        return otherwise if self.cursor.report.is_full else closest(key, self._asked, otherwise)


def closest(key: str, known: Collection[str], otherwise: str, *, likeness: float = 0.6) -> str:
    """A hint that names the known key most like `key`."""
    close = (
        difflib.get_close_matches(key, sorted(known), n=1, cutoff=likeness)
        if len(key) <= _MAX_SUGGESTED_KEY
        else []
    )
    return f"write {close[0]} if that is meant" if close else otherwise


def parse_flag(text: str) -> bool:
    lowered = text.lower()
    if text in {"true", "True", "TRUE", "false", "False", "FALSE"}:
        return lowered == "true"
    if lowered in _YAML_1_1_BOOLEANS:
        meant = "true" if lowered in {"yes", "on", "y"} else "false"
        raise BadValue(f"{shown(text)} is a boolean in YAML 1.1 only", f"write {meant}")
    raise BadValue(f"{shown(text)} is not a boolean", "write true or false")


def parse_whole(text: str, minimum: int, maximum: int) -> int:
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= len(str(maximum)) + 1):
        raise BadValue(f"{shown(text)} is not a whole number", f"write a number from {minimum} to {maximum}")
    number = int(text)
    if not minimum <= number <= maximum:
        raise BadValue(f"{number} is out of range", f"write a number from {minimum} to {maximum}")
    return number


def read_pairs(cursor: Cursor, *, check_key: Callable[[str], str]) -> Pairs:
    """A mapping, or a list of `key=value`; both forms are in the specification for every such field.

    A null value is an empty text. A key given twice is a problem.
    """
    pairs: dict[str, str] = {}
    for key, value, place in _raw_pairs(cursor):
        name = place.parsed(key, check_key)
        if name is None:
            continue
        if name in pairs:
            place.fail(f"{shown(name)} is given twice", "remove one of them")
        pairs[name] = value or ""
    return tuple(pairs.items())


def read_optional_pairs(
    cursor: Cursor, *, check_key: Callable[[str], str]
) -> tuple[tuple[str, str | None], ...]:
    """As `read_pairs`, but a key without a value stays distinct, and a later entry of a list wins."""
    pairs: dict[str, str | None] = {}
    for key, value, place in _raw_pairs(cursor):
        name = place.parsed(key, check_key)
        if name is not None:
            pairs[name] = value
    return tuple(pairs.items())


def _raw_pairs(cursor: Cursor) -> Iterator[tuple[str, str | None, Cursor]]:
    if cursor.is_mapping:
        for key, child in cursor.entries().items():
            text = None if child.is_null else child.text()
            if text is None and not child.is_null:
                continue
            _warn_of_boolean(child)
            yield key, text, child
        return
    for item in cursor.items():
        text = item.text()
        if text is not None:
            key, equals, value = text.partition("=")
            yield key, value if equals else None, item


def _warn_of_boolean(cursor: Cursor) -> None:
    node = cursor.node
    if not (isinstance(node, Scalar) and node.plain and node.text.lower() in _YAML_1_1_BOOLEANS):
        return
    if node.text not in {"true", "false"}:
        cursor.warn(
            f"unquoted {node.text} is taken as a text; quote it, other readers of YAML make it a boolean"
        )
