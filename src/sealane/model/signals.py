"""Signals as people write them."""

import re
import signal

_REALTIME = re.compile(r"SIGRT(?:MIN\+|MAX-)([0-9]{1,2})")
_REALTIME_FIRST, _LAST = 34, 64
"""As programs count them: 32 and 33 are the C library's own (nptl)."""


def signal_number(text: str) -> int | None:
    """15 of `15`, `TERM`, `SIGTERM` and `sigterm`; `SIGRTMIN+3` and `RTMAX-2` too. None: there is no such signal."""
    if text.isascii() and text.isdigit():
        number = int(text) if len(text) <= 2 else 0
        return number if 1 <= number <= _LAST and number not in {32, 33} else None
    name = text.upper() if text.upper().startswith("SIG") else f"SIG{text.upper()}"
    known = signal.Signals.__members__.get(name)
    if known is not None:
        return int(known)
    realtime = _REALTIME.fullmatch(name)
    if realtime is None:
        return None
    steps = int(realtime[1])
    number = _REALTIME_FIRST + steps if name.startswith("SIGRTMIN") else _LAST - steps
    return number if _REALTIME_FIRST <= number <= _LAST else None
