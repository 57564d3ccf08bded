"""`--filter KEY=VALUE` of lists, with Docker's keys and Docker's logic: one value of a key is enough, but of labels all
have to be there, and so has something of each key."""

import re
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

View = dict[str, Any]


class Filter(NamedTuple):
    """What a key asks of a view."""

    matches: Callable[[View, str], bool]
    values: tuple[str, ...] = ()
    """Those that there are; empty: any."""
    takes_all: bool = False
    """Of several values each has to match."""


Given = tuple[str, str]


def add_filter(parser: ArgumentParser, filters: Mapping[str, Filter]) -> None:
    def parsed(text: str) -> Given:
        return _parsed(text, filters)

    parser.add_argument(
        "-f",
        "--filter",
        metavar="KEY=VALUE",
        type=parsed,
        action="append",
        default=[],
        help=f"only those of which this is so; the keys are {', '.join(filters)}. Given several times: any of one key's "
        "values (of labels: all), and each of the keys",
    )


def _parsed(text: str, filters: Mapping[str, Filter]) -> Given:
    key, _, value = text.partition("=")
    if key not in filters:
        raise ArgumentTypeError(f"there is no filter {key!r}: the keys are {', '.join(filters)}")
    if not value:
        raise ArgumentTypeError(f"{text!r} has no value: write {key}=…")
    allowed = filters[key].values
    if allowed and value not in allowed:
        raise ArgumentTypeError(f"there is no {key} {value!r}: write one of {', '.join(allowed)}")
    if key == "name":
        try:
            re.compile(value)
        except re.error as error:
            raise ArgumentTypeError(f"{value!r} is no regular expression: {error}") from error
    return key, value


def chosen(views: Iterable[View], given: Iterable[Given], filters: Mapping[str, Filter]) -> list[View]:
    by_key: dict[str, list[str]] = {}
    for key, value in given:
        by_key.setdefault(key, []).append(value)
    return [view for view in views if all(_matches(filters[key], view, by_key[key]) for key in by_key)]


def _matches(one: Filter, view: View, values: Iterable[str]) -> bool:
    found = (one.matches(view, value) for value in values)
    return all(found) if one.takes_all else any(found)


def of_field(field: str, *values: str, empty: str = "") -> Filter:
    """The field says just that; `empty` stands for a field that says nothing."""
    return Filter(lambda view, value: value == (view[field] or empty), values)


def _has_label(view: View, text: str) -> bool:
    key, equals, value = text.partition("=")
    return key in view["labels"] and (not equals or view["labels"][key] == value)


NAME = Filter(lambda view, pattern: re.search(pattern, view["name"]) is not None)
"""A part of it, or a regular expression."""
LABEL = Filter(_has_label, takes_all=True)
"""KEY, or KEY=VALUE."""
