"""Amounts: memory as `512m` (powers of 1024, as Docker counts) and processors as `0.5`."""

import re
from decimal import Decimal

from sealane.compose.problems import BadValue, shown

MAX_BYTES = 1 << 62
MAX_CPUS = 4096

_SIZE = re.compile(r"([0-9]{1,19}(?:\.[0-9]{1,9})?) ?(?:(b)|([kmgtp])(?:i?b)?)?", re.ASCII | re.IGNORECASE)
_CPUS = re.compile(r"[0-9]{1,4}(?:\.[0-9]{1,9})?|\.[0-9]{1,9}", re.ASCII)
_SHIFTS = {"k": 10, "m": 20, "g": 30, "t": 40, "p": 50}


def parse_size(text: str) -> int:
    """Bytes, from 1. `m`, `mb` and `mib` are all 2^20; no unit means bytes. Raises BadValue."""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise BadValue(f"{shown(text)} is not a size", "write it as 512m, 1.5g or a number of bytes")
    number, _, unit = match.groups()
    size = int(Decimal(number) * (1 << _SHIFTS[unit.lower()] if unit else 1))
    if not 1 <= size <= MAX_BYTES:
        raise BadValue(f"size {shown(text)} is out of range", "write 1 byte to 4 EiB")
    return size


def parse_cpus(text: str) -> float:
    """Processors, more than 0. Raises BadValue."""
    if not _CPUS.fullmatch(text) or not 0 < float(text) <= MAX_CPUS:
        raise BadValue(f"{shown(text)} is not a number of CPUs", "write it as 0.5 or 2")
    return float(text)
