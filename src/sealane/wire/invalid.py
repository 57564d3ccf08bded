"""Why a document is no record, in words for who wrote it: msgspec tells of types, and of no hint."""

import difflib
import re
from collections.abc import Iterator
from typing import NamedTuple

import msgspec
from msgspec import inspect

_AT = re.compile(r"(?P<what>.*) - at `(?:key in )?\$(?P<path>.*)`", re.DOTALL)
_NAMED = re.compile(r"Object (?P<how>contains unknown|missing required) field `(?P<name>.*)`", re.DOTALL)
_TYPED = re.compile(r"Expected `(?P<types>[^`]*)`.*", re.DOTALL)
_STEP = re.compile(r"\[[^\]]*\]|[^.\[\]]+")

_WORDS = {
    "str": "a text, in quotes if it looks like a number",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "array": "a list",
    "object": "keys and values",
}
_KEY_CHARS_MAX = 64
"""Longer keys are compared with none: that takes the product of the lengths."""


class Wrong(NamedTuple):
    message: str
    field: str
    """Its path, `networks[1].subnet`; empty: the document itself."""
    hint: str


def wrong(error: msgspec.DecodeError, kind: object, *, within: str = "") -> Wrong:
    """`kind` is the record that was to be, `within` the path that it has in what was sent."""
    at = _AT.fullmatch(str(error))
    what = at["what"] if at else str(error)
    below = at["path"].removeprefix(".") if at else ""
    place = f"{within}.{below}".strip(".")
    named = _NAMED.fullmatch(what)
    if named is None:
        return Wrong(what, place, _meant(what, kind, below))
    field = f"{place}.{named['name']}".removeprefix(".")
    if named["how"] == "missing required":
        return Wrong(f"{field} is missing", field, "add it")
    return Wrong(f"there is no field {named['name']!r}", field, _nearest(named["name"], kind, below))


def _meant(what: str, kind: object, path: str) -> str:
    typed = _TYPED.fullmatch(what)
    if typed is None:
        values = {str(v) for p in _places(kind, path) if isinstance(p, inspect.LiteralType) for v in p.values}
        return f"one of {', '.join(sorted(values))}" if values else ""
    types = typed["types"].split(" | ")
    words = " or ".join(_WORDS[name] for name in types if name in _WORDS)
    return f"write {words}{', or leave it out' if 'null' in types else ''}" if words else ""


def _nearest(key: str, kind: object, path: str) -> str:
    structs = [place for place in _places(kind, path) if isinstance(place, inspect.StructType)]
    known = sorted({field.encode_name for struct in structs for field in struct.fields})
    close = difflib.get_close_matches(key, known, n=1) if len(key) <= _KEY_CHARS_MAX else []
    return f"write {close[0]} if that is meant" if close else f"known are {', '.join(known)}"


def _places(kind: object, path: str) -> list[inspect.Type]:
    """The types that there may be at a path."""
    places = list(_plain(inspect.type_info(kind)))
    for step in _STEP.findall(path):
        places = [below for place in places for inner in _below(place, step) for below in _plain(inner)]
    return places


def _below(place: inspect.Type, step: str) -> list[inspect.Type]:
    if isinstance(place, inspect.StructType):
        return [field.type for field in place.fields if field.encode_name == step]
    if isinstance(place, inspect.ListType | inspect.VarTupleType):
        return [place.item_type]
    return [place.value_type] if isinstance(place, inspect.DictType) else []


def _plain(place: inspect.Type) -> Iterator[inspect.Type]:
    """Each type of a union."""
    yield from place.types if isinstance(place, inspect.UnionType) else (place,)
