"""Values under /proc/sys/net, as the calling thread's network namespace sees them.

`net` shows each thread its own namespace, at the moment in which a file is looked up; so both functions are called
inside the namespace (`sealane.linux.netns.inside`). Only `net` is reached: the rest of /proc/sys is the whole
machine's (CVE-2022-0811 made a `core_pattern` of an unchecked one).
"""

import errno
import os
import re

_ROOT = "/proc/sys"
_PATH = re.compile(r"net(/(?!\.{1,2}(/|\Z))[\x21-\x2e\x30-\x7e]+){2,}")
_VALUE = re.compile(r"[\x20-\x7e]+(\t[\x20-\x7e]+)*")
_READ_BYTES = 4096
"""The longest that the kernel gives out at once."""

PATH_MAX = 255
VALUE_MAX = 1024


def check(path: str, value: str = "0") -> None:
    """Raises ValueError for what is no path below `net`, or no printable line of ASCII."""
    if len(path) > PATH_MAX or not _PATH.fullmatch(path):
        raise ValueError(f"sysctl {path!r}: a path such as net/ipv4/conf/eth0/forwarding is needed")
    if len(value) > VALUE_MAX or not _VALUE.fullmatch(value):
        raise ValueError(f"sysctl {path}: the value {value!r} is not one line of printable ASCII")


def read(path: str) -> str | None:
    """The value, its blanks made one space; None: there is none."""
    check(path)
    try:
        descriptor = os.open(f"{_ROOT}/{path}", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        data = os.read(descriptor, _READ_BYTES)
    finally:
        os.close(descriptor)
    return normal(data.decode("ascii", "backslashreplace"))


def write(path: str, value: str) -> None:
    """Raises OSError with the file's name and the reason."""
    check(path, value)
    descriptor = os.open(f"{_ROOT}/{path}", os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        data = f"{value}\n".encode("ascii")
        if os.write(descriptor, data) != len(data):
            raise OSError(errno.EIO, f"sysctl {path}: only a part of {value!r} was taken")
    finally:
        os.close(descriptor)


def normal(value: str) -> str:
    """Values compare equal if they differ in blanks alone."""
    return " ".join(value.split())
