"""Nameservers: those of the host, and whether they answer; those that a sandbox's processes see.

A process's files are its own to arrange, so its resolv.conf is found by openat2(2) below its root, proved a regular
file before it is really opened, and read up to a bound.
"""

import ctypes
import os
import select
import socket
import stat
import struct
import time
from collections.abc import Callable, Collection
from contextlib import suppress

from sealane.explain.doctor.evidence import Upstream
from sealane.linux.facts import RESOLV_CONF, RESOLV_CONF_BYTES
from sealane.model.net import ParseError, parse_address
from sealane.model.network import RESOLVER_PORT

NAMESERVERS_MAX = 3
"""As many as glibc asks (resolv.conf(5))."""

ANSWER_S = 1.0
AGAIN_S = 0.5
"""Until the question is asked once more: a datagram may be lost."""

REPLY_BYTES = 512
_POLL_S = 0.05
_QUESTION = struct.Struct(">HHHHHHBHH")
"""Header with one question, recursion desired: `.` NS IN (RFC 1035 §4)."""

_SYS_OPENAT2 = 437
"""The same on every architecture (Linux 5.6)."""
_RESOLVE_NO_MAGICLINKS, _RESOLVE_IN_ROOT = 0x02, 0x10
_libc = ctypes.CDLL(None, use_errno=True)


def upstreams(should_stop: Callable[[], bool]) -> list[Upstream]:
    """The host's nameservers, each asked one question, side by side. Waits at most ANSWER_S. Raises OSError if the file
    cannot be read."""
    with open(RESOLV_CONF, encoding="utf-8", errors="replace") as file:
        servers = parse(file.read(RESOLV_CONF_BYTES))[:NAMESERVERS_MAX] or ["127.0.0.1"]
    return [
        Upstream(address=server, problem=problem) for server, problem in ask(servers, should_stop).items()
    ]


def parse(text: str) -> list[str]:
    found = []
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver":
            with suppress(ParseError):
                found.append(str(parse_address(words[1].partition("%")[0])))
    return list(dict.fromkeys(found))


def ask(servers: Collection[str], should_stop: Callable[[], bool]) -> dict[str, str]:
    """Server → what is wrong with it; empty: it answered."""
    problems = dict.fromkeys(servers, f"silent for {ANSWER_S:g} s")
    open_sockets: dict[socket.socket, str] = {}
    poll = select.poll()
    try:
        for server in servers:
            family = socket.AF_INET6 if ":" in server else socket.AF_INET
            asking = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            open_sockets[asking] = server
            poll.register(asking, select.POLLIN)
            _send(asking, server, problems)
        _collect(poll, open_sockets, problems, should_stop)
    finally:
        for asking in open_sockets:
            asking.close()
    return problems


def _send(asking: socket.socket, server: str, problems: dict[str, str]) -> None:
    identity = int.from_bytes(os.urandom(2), "big")
    try:
        asking.connect((server, RESOLVER_PORT))
        asking.send(_QUESTION.pack(identity, 0x0100, 1, 0, 0, 0, 0, 2, 1))
    except OSError as error:
        problems[server] = error.strerror or str(error)


def _collect(
    poll: "select.poll",
    asked: dict[socket.socket, str],
    problems: dict[str, str],
    should_stop: Callable[[], bool],
) -> None:
    started = time.monotonic()
    by_number = {asking.fileno(): asking for asking in asked}
    repeated = False
    while by_number and (waited := time.monotonic() - started) < ANSWER_S and not should_stop():
        if waited > AGAIN_S and not repeated:
            repeated = True
            for asking in by_number.values():
                _send(asking, asked[asking], problems)
        for number, _ in poll.poll(int(_POLL_S * 1000)):
            asking = by_number.pop(number)
            poll.unregister(number)
            try:
                asking.recv(REPLY_BYTES)
                problems[asked[asking]] = ""
            except OSError as error:
                problems[asked[asking]] = error.strerror or str(error)


def of_process(pid: int) -> tuple[str, ...] | None:
    """The nameservers that a process sees; None if it is gone, or its file is none or cannot be read."""
    try:
        root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return _read_below(root)
    except OSError:
        return None
    finally:
        os.close(root)


def _read_below(root: int) -> tuple[str, ...] | None:
    found = _open_below(root, RESOLV_CONF)
    try:
        if not stat.S_ISREG(os.fstat(found).st_mode):
            return None
        with open(f"/proc/self/fd/{found}", encoding="utf-8", errors="replace") as file:
            return tuple(parse(file.read(RESOLV_CONF_BYTES)))
    finally:
        os.close(found)


def _open_below(root: int, path: str) -> int:
    """An O_PATH descriptor; links lead nowhere but below `root`, however they are written."""
    how = struct.pack("=QQQ", os.O_PATH | os.O_CLOEXEC, 0, _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS)
    found: int = _libc.syscall(_SYS_OPENAT2, root, os.fsencode(path), how, len(how))
    if found < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
    return found
