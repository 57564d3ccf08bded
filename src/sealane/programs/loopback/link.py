"""The loopback link of another network namespace: for a process of one call, which stays inside."""

from __future__ import annotations

import _socket
import fcntl
import posix
from errno import EADDRNOTAVAIL, EINVAL

from sealane.programs import read_all

LINK = b"lo"
CLONE_NEWNET = 0x40000000
SIOCGIFFLAGS, SIOCSIFFLAGS, SIOCGIFADDR = 0x8913, 0x8914, 0x8915
IFF_UP = 0x1
NAME_BYTES, REQUEST_BYTES = 16, 40
"""Of `struct ifreq` (linux/if.h): what is asked for follows the name."""
IF_INET6 = "/proc/self/net/if_inet6"
IF_INET6_BYTES_MAX = 1 << 16


def enter(netns: str) -> None:
    """Raises OSError: no such file, no network namespace, or the caller's own."""
    descriptor = posix.open(netns, posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        here, there = posix.stat("/proc/self/ns/net"), posix.fstat(descriptor)
        if (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino):
            raise OSError(EINVAL, "the host's own network namespace")
        _setns(descriptor)
    finally:
        posix.close(descriptor)


def set_up() -> None:
    """Raises OSError."""
    flags = int.from_bytes(_ask(SIOCGIFFLAGS)[:2], "little")
    if not flags & IFF_UP:
        _ask(SIOCSIFFLAGS, (flags | IFF_UP).to_bytes(2, "little"))


def is_up() -> bool:
    """Raises OSError."""
    return bool(int.from_bytes(_ask(SIOCGIFFLAGS)[:2], "little") & IFF_UP)


def addresses() -> list[str]:
    """Those that the kernel gives to it when it goes up, with their prefixes (inetdev_event in net/ipv4/devinet.c,
    init_loopback in net/ipv6/addrconf.c)."""
    found = []
    try:
        four = _ask(SIOCGIFADDR)
    except OSError as error:
        if error.errno != EADDRNOTAVAIL:
            raise
    else:
        if four[4:8] == b"\x7f\0\0\1":
            found.append("127.0.0.1/8")
    if _has_six():
        found.append("::1/128")
    return found


def _has_six() -> bool:
    """Without IPv6 in the kernel the file is not there, and where it is disabled it does not list the link."""
    try:
        descriptor = posix.open(IF_INET6, posix.O_RDONLY | posix.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        lines = read_all(descriptor, IF_INET6_BYTES_MAX).split(b"\n")
    finally:
        posix.close(descriptor)
    return any(line.startswith(b"%032x " % 1) for line in lines)


def _ask(request: int, value: bytes = b"") -> bytes:
    """What the kernel answers about the link, without its name. Raises OSError."""
    packed = (LINK.ljust(NAME_BYTES, b"\0") + value).ljust(REQUEST_BYTES, b"\0")
    sock = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    try:
        return fcntl.ioctl(sock.fileno(), request, packed)[NAME_BYTES:]
    finally:
        sock.close()


def _setns(descriptor: int) -> None:
    """Raises OSError."""
    if hasattr(posix, "setns"):  # Python 3.12.
        posix.setns(descriptor, CLONE_NEWNET)
        return
    # `import ctypes` would take as long as all the rest of a call; its C half does not.
    import _ctypes

    class Int(_ctypes._SimpleCData):  # type: ignore[type-arg]
        _type_ = "i"

    class Function(_ctypes.CFuncPtr):
        _flags_ = _ctypes.FUNCFLAG_CDECL | _ctypes.FUNCFLAG_USE_ERRNO
        _restype_ = Int

    # As ctypes.PyDLL(None): the program itself.
    program = _ctypes.dlopen(None, 0)  # type: ignore[arg-type]
    if Function(_ctypes.dlsym(program, "setns"))(descriptor, CLONE_NEWNET) != 0:
        raise OSError(_ctypes.get_errno(), "no network namespace")
