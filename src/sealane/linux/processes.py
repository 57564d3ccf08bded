"""Processes of the machine, as /proc shows them. One that has ended meanwhile is no error."""

import os
from collections.abc import Iterator

_COMMAND_BYTES = 64


def pids() -> Iterator[int]:
    with os.scandir("/proc") as entries:
        for entry in entries:
            if entry.name.isascii() and entry.name.isdigit():
                yield int(entry.name)


def command(pid: int) -> str:
    """What a process calls itself, printable whatever that is; `?` if it has ended. It proves nothing."""
    try:
        with open(f"/proc/{pid}/comm", "rb") as file:
            name = file.read(_COMMAND_BYTES).decode(errors="replace").strip()
    except OSError:
        return "?"
    return "".join(c if c.isprintable() else "?" for c in name) or "?"


def parent(pid: int) -> int:
    """0: it has none, or has ended."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read()
    except OSError:
        return 0
    # The command name may hold spaces and parentheses; the last ')' ends it (proc_pid_stat(5)).
    return int(text[text.rindex(b")") + 2 :].split()[1])
