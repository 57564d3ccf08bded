"""A show from curtain to curtain: what it needs is there, what it made is gone, and its exit code says how it went."""

import argparse
import contextlib
import glob
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping

from examples.kit import processes
from examples.kit.probes import Here, Place
from examples.kit.screen import Screen, terminal
from examples.kit.sealane import Sealane
from examples.kit.trouble import DemoError
from examples.kit.visitor import outside

RUNTIMES = ("crun", "runc")
SYSTEM_PATH = "/usr/local/sbin:/usr/sbin:/sbin"
"""Where runc, ip and nft are; an ordinary user's PATH does not have it."""

FALLBACK_TUNNELS = frozenset(
    {"tunl0", "gre0", "gretap0", "erspan0", "ip_vti0", "ip6_vti0", "sit0", "ip6tnl0", "ip6gre0"}
)
"""A new network namespace may have them from the start (net.core.fb_tunnels_only_for_init_net)."""

FAILED, INTERRUPTED = 1, 130
LINES_SHOWN = 8


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


def perform(
    play: Callable[[Stage], None],
    project: str,
    description: str,
    *,
    needs: Mapping[str, str] | None = None,
    several_users: bool = False,
) -> int:
    """Play it; return the exit code.

    `needs`: program, or a pattern of paths → Debian package, besides what every demo needs. `several_users`: there
    must be more users than root.
    """
    arguments = argparse.ArgumentParser(description=description)
    arguments.add_argument("--fast", action="store_true", help="no pauses, also on a terminal")
    screen = terminal(pauses=not arguments.parse_args().fast)
    os.environ["PATH"] = f"{os.environ.get('PATH', os.defpath)}:{SYSTEM_PATH}"
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    try:
        check(needs or {}, several_users=several_users)
        with _stage(screen, project) as stage:
            _play(play, stage)
    except BrokenPipeError:
        # Nobody looks any more. Python must not find that out once again when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except KeyboardInterrupt:
        screen.gap()
        screen.verdict("interrupted; everything is cleaned up", good=False)
        return INTERRUPTED
    except (DemoError, OSError) as error:
        screen.gap()
        screen.verdict(str(error), good=False)
        if isinstance(error, DemoError) and error.hint:
            screen.say(error.hint)
        return FAILED
    return 0


def _play(play: Callable[[Stage], None], stage: Stage) -> None:
    """Should it fail, what the daemon said last may say why."""
    try:
        play(stage)
    except BrokenPipeError:
        raise
    except (DemoError, OSError):
        stage.screen.gap()
        stage.screen.say("The daemon said last:")
        stage.screen.output("\n".join(stage.sealane.log().splitlines()[-LINES_SHOWN:]))
        raise


def check(needs: Mapping[str, str], *, several_users: bool) -> None:
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
    if several_users and not _has_users():
        raise DemoError(
            "there is no user but root in this user namespace, and some programs refuse to run as root",
            "Run it as root: sudo scripts/in-namespaces .venv/bin/python -m …",
        )
    missing = {
        package for program, package in needs.items() if not (glob.glob(program) or shutil.which(program))
    }
    if missing:
        raise DemoError(
            f"not installed: {', '.join(sorted(missing))}",
            f"On Debian, as root: apt-get install {' '.join(sorted(missing))}",
        )


def _is_private() -> bool:
    """Whether this is what scripts/in-namespaces makes: a network that is only `lo`, and a fresh /run (mount(8) notes there what it did).

    To compare with the namespaces of process 1 would be simpler, but it may be forbidden to look at them, to root too.
    """
    links = {name for _, name in socket.if_nameindex()} - FALLBACK_TUNNELS
    return links == {"lo"} and set(os.listdir("/run")) <= {"mount"}


def _has_users() -> bool:
    """Whether all of the usual 65,536 user ids mean somebody (user_namespaces(7))."""
    with open("/proc/self/uid_map", encoding="ascii") as file:
        return sum(int(line.split()[2]) for line in file) >= 1 << 16


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
        # From here to the end of the process, another Ctrl-C changes nothing: it would leave things behind.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        sealane.quietly("down", "-p", project)
