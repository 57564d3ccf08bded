"""`runtimeConfig` in the spelling of CONVENTIONS.md, from that of any runtime.

go-cni (containerd) marshals structs without tags: `{"HostPort": 8080}`, `{"dns": {"Servers": …}}`, null for a list that
was never filled, and its `ipRanges` are one list. The reference plugins take all of it, since encoding/json compares
names without their letters' case. So a name is known in any case, null says nothing, and what is not known is left out.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_PORT = ("hostPort", "containerPort", "protocol", "hostIP")
_BANDWIDTH = ("ingressRate", "ingressBurst", "egressRate", "egressBurst")
_DNS = ("servers", "searches", "options")
_RANGE = ("subnet", "gateway", "rangeStart", "rangeEnd")


def read_capabilities(given: dict[str, Any]) -> dict[str, Any]:
    """What is known of it. Values of another kind than was expected stay as they are: who decodes them tells."""
    known = _named(given, tuple(_READERS))
    return {name: _READERS[name](value) for name, value in known.items()}


def _named(value: Any, names: tuple[str, ...]) -> Any:
    """An object's fields of these names; the exact name goes before the same one in other letters."""
    if not isinstance(value, dict):
        return value
    spelling = {name.lower(): name for name in names}
    found: dict[str, Any] = {}
    for key, item in value.items():
        name = spelling.get(key.lower())
        if name is not None and item is not None and (name == key or name not in value):
            found[name] = item
    return found


def _each(names: tuple[str, ...]) -> Callable[[Any], Any]:
    return lambda value: [_named(item, names) for item in value] if isinstance(value, list) else value


def _ranges(value: Any) -> Any:
    """Sets of ranges, or a list of ranges that are a set each."""
    if not isinstance(value, list):
        return value
    one = _each(_RANGE)
    return [one(item if isinstance(item, list) else [item]) for item in value]


def _same(value: Any) -> Any:
    return value


_READERS: dict[str, Callable[[Any], Any]] = {
    "portMappings": _each(_PORT),
    "bandwidth": lambda value: _named(value, _BANDWIDTH),
    "dns": lambda value: _named(value, _DNS),
    "ips": _same,
    "mac": _same,
    "aliases": _same,
    "cgroupPath": _same,
    "ipRanges": _ranges,
}
CAPABILITIES = frozenset(_READERS)
