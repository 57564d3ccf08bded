"""A show from curtain to curtain: what it needs is there, what it made is gone, and its exit code says how it went."""

import argparse
import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from examples.kit import processes
from examples.kit.probes import Here, Place
from examples.kit.sealane import Sealane
from examples.kit.screen import Screen, terminal
from examples.kit.trouble import DemoError
from examples.kit.visitor import outside

RUNTIMES = ("crun", "runc")
SYSTEM_PATH = "/usr/local/sbin:/usr/sbin:/sbin"
"""Where runc, ip and nft are; an ordinary user's PATH does not have it."""

FAILED, INTERRUPTED = 1, 130


class Stage:
    """What a demo plays on: the screen, the daemon, the host, and somebody outside it."""

    def __init__(self, screen: Screen, sealane: Sealane, visitor: Place, address: str) -> None:
        self.screen = screen
        self.sealane = sealane
        self.host: Place = Here("host")
        self.visitor = visitor
        self.address = address
        """The host's, as the visitor knows it."""

    @property
    def has_outside(self) -> bool:
        return self.visitor.name != self.host.name


def perform(play: Callable[[Stage], None], project: str, description: str, needs: Mapping[str, str]) -> int:
    """Play it; return the exit code. `needs`: program → Debian package, besides what every demo needs."""
    arguments = argparse.ArgumentParser(description=description)
    arguments.add_argument("--fast", action="store_true", help="no pauses, also on a terminal")
    screen = terminal(pauses=not arguments.parse_args().fast)
    os.environ["PATH"] = f"{os.environ.get('PATH', os.defpath)}:{SYSTEM_PATH}"
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    try:
        check(needs)
        with _stage(screen, project) as stage:
            play(stage)
    except KeyboardInterrupt:
        screen.gap()
        screen.verdict("interrupted; everything is cleaned up", good=False)
        return INTERRUPTED
    except (DemoError, OSError) as error:
        screen.gap()
        screen.verdict(str(error), good=False)
        if isinstance(error, DemoError) and error.cure:
            screen.say(error.cure)
        return FAILED
    return 0


def check(needs: Mapping[str, str]) -> None:
    """DemoError if this is no place for a demo, with the way to a better one."""
    if not _is_private():
        raise DemoError(
            "this would change the machine's own network",
            "Run it in namespaces of its own: scripts/in-namespaces .venv/bin/python -m …, or make demo.",
        )
    if not any(shutil.which(name) for name in RUNTIMES):
        raise DemoError(
            "no OCI runtime is installed, and containers need one: runc or crun",
            "On Debian, as root: apt-get install runc",
        )
    missing = {package for program, package in needs.items() if not shutil.which(program)}
    if missing:
        raise DemoError(
            f"not installed: {', '.join(sorted(missing))}",
            f"On Debian, as root: apt-get install {' '.join(sorted(missing))}",
        )


def _is_private() -> bool:
    """Whether network and mount namespace are not those of the machine's first process.

    If we may not even look at its, it belongs to another user namespace than ours, and so do its others.
    """
    for kind in ("net", "mnt"):
        with contextlib.suppress(PermissionError):
            if os.path.samefile(f"/proc/1/ns/{kind}", f"/proc/self/ns/{kind}"):
                return False
    return True


@contextlib.contextmanager
def _stage(screen: Screen, project: str) -> Iterator[Stage]:
    processes.adopt_orphans()
    # /run is a tmpfs of our namespace: should we be killed, what is in there goes with us.
    folder = tempfile.mkdtemp(prefix=f"{project}-", dir="/run")
    try:
        with outside() as (visitor, address), Sealane(screen, folder) as sealane, _cleared(sealane, project):
            yield Stage(screen, sealane, visitor, address)
    finally:
        processes.end_all()
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _cleared(sealane: Sealane, project: str) -> Iterator[None]:
    """Whatever happens, the project goes while there is a daemon to take it down."""
    try:
        yield
    finally:
        handlers: dict[signal.Signals, Any] = {}
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            handlers[number] = signal.signal(number, signal.SIG_IGN)
        sealane.quietly("down", "-p", project)
        for number, handler in handlers.items():
            signal.signal(number, handler)
