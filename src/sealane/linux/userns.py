"""User namespaces that own a network namespace.

Who owns a network namespace decides whose CAP_NET_ADMIN counts in it, and a capability of a user namespace counts in none
above it (user_namespaces(7)). So what a container may do to its own network it may not do to the host's, which it can
name otherwise: the namespace of a veth's peer has an id in the other end's (IFLA_TARGET_NETNSID, rtnetlink(7)), and the
kernel has no way to take that away.

A process with threads may not enter a user namespace (EINVAL), so another one makes it: unshare(1) with cat(1), which answers
when it is there, and goes when it is told.
"""

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from sealane.model.idmap import ID_BASE, ID_COUNT

TRIAL_TIMEOUT_S = 10.0
_MAP = f"0 {ID_BASE} {ID_COUNT}"
_WHOLE = ["0", "0", str(2**32 - 1)]


def why_not() -> str:
    """Why containers can have none here; "" if one has been tried and had all that a container needs."""
    with open("/proc/self/uid_map", encoding="ascii") as file:
        if file.read().split() != _WHOLE:
            return "the daemon is in a user namespace itself"
    try:
        with open("/proc/sys/user/max_user_namespaces", encoding="ascii") as file:
            if int(file.read()) == 0:
                return "the sysctl user.max_user_namespaces is 0"
    except FileNotFoundError:
        return "the kernel has no user namespaces (CONFIG_USER_NS)"
    return _tried()


def _tried() -> str:
    """proc and sysfs may be mounted in a user namespace only where a whole one is seen already (fs/namespace.c,
    mount_too_revealing): not in a container whose engine has covered parts of them. A network namespace of its own is
    needed for sysfs."""
    kinds = ["--user", "--map-root-user", "--net", "--pid", "--fork", "--mount"]
    script = "mount -t proc proc /proc && mount -t sysfs sysfs /sys"
    try:
        tried = subprocess.run(
            ["unshare", *kinds, "--", "sh", "-c", script], check=False, capture_output=True, cwd="/",
            stdin=subprocess.DEVNULL, timeout=TRIAL_TIMEOUT_S,
        )  # fmt: skip
    except FileNotFoundError:
        return "unshare(1) of util-linux is not installed"
    except subprocess.TimeoutExpired:
        return f"unshare(1) has not answered within {TRIAL_TIMEOUT_S:.0f} s"
    said = " ".join(tried.stderr.decode("utf-8", "replace").split())
    return "" if tried.returncode == 0 else f"this host allows no container in one: {said[-200:]}"


@contextmanager
def inhabited(*, network: bool) -> Iterator[int]:
    """The pid of a process in a new user namespace, and with `network` in a new network namespace of its own. Both go with the
    last process and pin. Raises OSError."""
    kinds = ["--user", *(["--net"] if network else [])]
    try:
        inhabitant = subprocess.Popen(
            ["unshare", *kinds, "--", "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd="/",
        )  # fmt: skip
    except FileNotFoundError as error:
        raise OSError(errno.ENOENT, "unshare(1) of util-linux is not installed") from error
    with inhabitant:
        try:
            _await(inhabitant)
            for name in ("uid_map", "gid_map"):
                _write(f"/proc/{inhabitant.pid}/{name}", _MAP)
            yield inhabitant.pid
        finally:
            inhabitant.kill()


def _await(inhabitant: "subprocess.Popen[bytes]") -> None:
    """Until cat(1) gives back what it is given: it is there."""
    if inhabitant.stdin is None or inhabitant.stdout is None or inhabitant.stderr is None:
        return
    with suppress(BrokenPipeError):
        inhabitant.stdin.write(b"\n")
        inhabitant.stdin.flush()
    if inhabitant.stdout.read(1) != b"\n":
        raise OSError(errno.EPERM, inhabitant.stderr.read().decode("utf-8", "replace").strip())


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)
