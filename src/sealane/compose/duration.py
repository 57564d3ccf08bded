"""Durations as Go and Compose write them: `1h30m`, `10s`, `1.5s`, `500ms`, `20us`."""

import re
from decimal import Decimal

from sealane.compose.problems import BadValue, shown

MAX_SECONDS = 366 * 24 * 3600

_PART = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,12})?)(h|ms|m|s|us|ns)", re.ASCII)
_WHOLE = re.compile(rf"(?:{_PART.pattern})+", re.ASCII)
_SECONDS = {
    "h": Decimal(3600),
    "m": Decimal(60),
    "s": Decimal(1),
    "ms": Decimal("1e-3"),
    "us": Decimal("1e-6"),
    "ns": Decimal("1e-9"),
}
_MAX_CHARS = 64


def parse_duration(text: str) -> float:
    """Seconds, from 0 to a year. Raises BadValue; a number without a unit is refused, for its unit is a guess."""
    if text == "0":
        return 0.0
    if text.isascii() and text.isdigit():
        raise BadValue(f"duration {shown(text)} has no unit", f"write {shown(text)[1:-1]}s for seconds")
    if len(text) > _MAX_CHARS or not _WHOLE.fullmatch(text):
        raise BadValue(f"{shown(text)} is not a duration", "write it as 10s, 1m30s or 500ms")
    seconds = sum((Decimal(number) * _SECONDS[unit] for number, unit in _PART.findall(text)), Decimal(0))
    if seconds > MAX_SECONDS:
        raise BadValue(f"duration {shown(text)} is longer than a year", "write a shorter one")
    return float(seconds)
