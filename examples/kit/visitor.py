"""A neighbour on the wire: a namespace that is joined to ours by a veth, as another machine would be by a cable.

    visitor 192.0.2.200 eth0 ──── eth0 192.0.2.10 the host

Both are each other's default route, so that the visitor's packets to any address come to the host: what does not get
in, was refused.
"""

import contextlib
import shutil
import subprocess
from collections.abc import Iterator

from examples.kit.probes import Elsewhere, Here, Place
from examples.kit.trouble import DemoError

HOST, VISITOR = "192.0.2.10", "192.0.2.200"
PREFIX_LENGTH = 24


@contextlib.contextmanager
def outside() -> Iterator[tuple[Place, str]]:
    """A place outside the host, and the host's address as seen from there; without iproute2 the host itself."""
    if not shutil.which("ip"):
        yield Here("host"), "127.0.0.1"
        return
    with Elsewhere("visitor", ("unshare", "--net", "--")) as visitor:
        _wire(visitor.pid)
        yield visitor, HOST


def _wire(pid: int) -> None:
    inside = ("nsenter", f"--net=/proc/{pid}/ns/net", "--")
    _batch(
        (),
        f"link add eth0 type veth peer name eth0 netns {pid}",
        f"addr add {HOST}/{PREFIX_LENGTH} dev eth0",
        "link set eth0 up",
    )
    _batch(
        inside,
        f"addr add {VISITOR}/{PREFIX_LENGTH} dev eth0",
        "link set lo up",
        "link set eth0 up",
        f"route add default via {HOST}",
    )
    _batch((), f"route add default via {VISITOR}")


def _batch(inside: tuple[str, ...], *lines: str) -> None:
    text = "\n".join(lines) + "\n"
    done = subprocess.run(
        [*inside, "ip", "-batch", "-"], input=text, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise DemoError(f"the visitor's link cannot be made: {done.stderr.strip()}")
