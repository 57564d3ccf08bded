"""What a process inherits from who started it, made alike for every run, so that no test depends on it.

An ignored signal stays ignored over exec (signal(7)): under `nohup` or in a shell's background all that the tests start
would be deaf to SIGHUP, SIGINT or SIGQUIT. A handler does not: here it goes on being ignored, as was wanted, and
whatever is started from here hears it.
"""

import os
import signal

PYTHONS_OWN = (signal.SIGPIPE, signal.SIGXFSZ)
"""Ignored by Python itself, and given back to its children by `subprocess`."""

VARIABLES = (
    "COLUMNS",
    "CLICOLOR_FORCE",
    "FORCE_COLOR",
    "LINES",
    "LISTEN_FDNAMES",
    "LISTEN_FDS",
    "LISTEN_PID",
    "NO_COLOR",
    "NOTIFY_SOCKET",
    "SEALANE_SOCKET",
    "TZ",
)
"""Of the environment, what changes an output or a way."""


def inherit_nothing() -> None:
    """Idempotent; of the main thread, before it starts anything."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for number in signal.valid_signals() - set(PYTHONS_OWN):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, _unheeded)
    os.umask(0o022)
    for name in VARIABLES:
        os.environ.pop(name, None)


def _unheeded(*_: object) -> None:
    pass
