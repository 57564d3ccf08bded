"""Hosts to measure on: processes in network and mount namespaces of their own.

Each contender gets a host for itself, so that no one's rules are in the other's way, and all of them are asked in turn
within one run, so that what else the machine does meanwhile hits them alike.
"""

import ctypes
import multiprocessing
import multiprocessing.connection
import os
import socket
import subprocess
import threading
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

T = TypeVar("T")

ANSWER_TIMEOUT_S = 240.0
"""No single call takes as long."""

CLOSE_TIMEOUT_S = 20.0
SANDBOX_DIR = "/run/netns"

CLONE_NEWNS = 0x00020000
CLONE_NEWNET = 0x40000000
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18

_libc = ctypes.CDLL(None, use_errno=True)
_fork = multiprocessing.get_context("fork")


class HostError(Exception):
    """What a call raised on the host, with its traceback as text."""


class Host(Generic[T]):
    """A process in fresh namespaces that makes one object there and calls its methods for us:

        with Host(Netavark) as host:
            seconds = host("attach", 7)

    In it /run is an empty tmpfs, `lo` is up, and a bpffs of its own is at /sys/fs/bpf where the kernel allows.
    """

    def __init__(self, make: Callable[..., T], *arguments: object) -> None:
        self._pipe, far_end = _fork.Pipe()
        self._process = _fork.Process(target=_serve, args=(far_end, self._pipe, make, arguments))
        self._process.start()
        far_end.close()
        self._answer("start")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __call__(self, method: str, *arguments: object) -> Any:
        """Call a method there. Raises HostError."""
        self._pipe.send((method, arguments))
        return self._answer(method)

    def _answer(self, what: str) -> Any:
        if not self._pipe.poll(ANSWER_TIMEOUT_S):
            raise HostError(f"{what}: no answer within {ANSWER_TIMEOUT_S:.0f} s")
        try:
            result, failure = self._pipe.recv()
        except EOFError as error:
            raise HostError(f"{what}: the host has ended") from error
        if failure:
            raise HostError(f"{what}: {failure}")
        return result

    def close(self) -> None:
        """End the process; its `close` method, if it has one, is called first. Idempotent."""
        self._pipe.close()
        self._process.join(CLOSE_TIMEOUT_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def _serve(
    pipe: multiprocessing.connection.Connection,
    parents_end: multiprocessing.connection.Connection,
    make: Callable[..., object],
    arguments: tuple[object, ...],
) -> None:
    # Held open here, it would never tell that the parent has hung up.
    parents_end.close()
    try:
        enter()
        subject = make(*arguments)
        pipe.send((None, ""))
    except BaseException:
        pipe.send((None, traceback.format_exc()))
        return
    try:
        while True:
            method, given = pipe.recv()
            try:
                pipe.send((getattr(subject, method)(*given), ""))
            except Exception:
                pipe.send((None, traceback.format_exc()))
    except EOFError:
        pass
    finally:
        close = getattr(subject, "close", None)
        if close is not None:
            close()


def enter() -> None:
    """Move this process to namespaces of its own."""
    check(_libc.unshare(CLONE_NEWNET | CLONE_NEWNS), "unshare")
    mount("none", "/", flags=MS_REC | MS_PRIVATE)
    mount("tmpfs", "/run", "tmpfs")
    os.makedirs(SANDBOX_DIR)
    if _libc.mount(b"bpf", b"/sys/fs/bpf", b"bpf", ctypes.c_ulong(0), None) != 0 and os.geteuid() != 0:
        raise PermissionError("the benchmarks need root, or scripts/in-namespaces")
    run("ip", "link", "set", "lo", "up")


def mount(source: str, target: str, kind: str | None = None, *, flags: int = 0) -> None:
    fstype = kind.encode() if kind else None
    check(_libc.mount(source.encode(), target.encode(), fstype, ctypes.c_ulong(flags), None), target)


def check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)


def run(*argv: str, text: str = "") -> str:
    """Run a command that must succeed; return its standard output."""
    done = subprocess.run(argv, input=text, capture_output=True, text=True, check=False, timeout=60)
    if done.returncode != 0:
        raise HostError(f"{' '.join(argv)}: {done.stderr or done.stdout}")
    return done.stdout


def make_sandboxes(count: int, *, start: int = 0) -> list[str]:
    """Fresh network namespaces, pinned as container engines pin them; the paths of all of them."""
    paths = [f"{SANDBOX_DIR}/s{number}" for number in range(start, start + count)]
    failures: list[BaseException] = []

    def make() -> None:
        # The thread ends in the last namespace that it made; nobody else ever was in any.
        try:
            for path in paths:
                check(_libc.unshare(CLONE_NEWNET), "unshare")
                os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o400))
                mount("/proc/thread-self/ns/net", path, flags=MS_BIND)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return paths


def in_sandbox(path: str, *argv: str, text: str = "") -> str:
    return run("nsenter", f"--net={path}", *argv, text=text)


def socket_in(path: str, kind: socket.SocketKind) -> socket.socket:
    """An IPv4 socket of a sandbox, made by a thread that ends with the call."""
    made: list[socket.socket] = []

    def make() -> None:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            check(_libc.setns(descriptor, CLONE_NEWNET), path)
            made.append(socket.socket(socket.AF_INET, kind))
        finally:
            os.close(descriptor)

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    return made[0]
