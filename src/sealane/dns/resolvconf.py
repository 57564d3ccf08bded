"""The host's resolvers: /etc/resolv.conf, read (resolv.conf(5)) and followed."""

import contextlib
import ipaddress
import os
from typing import NamedTuple

from sealane.dns.limits import RESOLV_CONF_BYTES, UPSTREAMS

PATH = "/etc/resolv.conf"

_Identity = tuple[int, int, int, int, int]


def nameservers(text: str) -> tuple[str, ...]:
    """The first three servers; as glibc does, the local one if none is named. What is no address is passed over."""
    found = []
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver":
            with contextlib.suppress(ValueError):
                found.append(str(ipaddress.ip_address(words[1])))
    return tuple(dict.fromkeys(found))[:UPSTREAMS] or ("127.0.0.1",)


def searches(text: str) -> tuple[str, ...]:
    """The search domains: those of the last `search` or `domain`. `.`, the root, is none."""
    found: list[str] = []
    for line in text.splitlines():
        words = line.split()
        if words[:1] in (["search"], ["domain"]):
            found = [word for word in words[1:] if word != "."]
    return tuple(dict.fromkeys(found))


class Resolver(NamedTuple):
    """How a host resolves names."""

    servers: tuple[str, ...] = ()
    searches: tuple[str, ...] = ()
    serves: bool = True
    """Whether our own resolvers answer."""


def host_resolver(path: str = PATH, *, serves: bool = True) -> Resolver:
    """The host's, now; nothing if there is nothing to be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            text = file.read(RESOLV_CONF_BYTES)
    except OSError:
        return Resolver(serves=serves)
    return Resolver(nameservers(text), searches(text), serves)


class ResolvConf:
    """Follows the file by what stat says of the path, so that a replaced file, a swapped symbolic link and a file
    mounted over it are all seen; inotify watches inodes and would need a watch on each step of the path.
    """

    def __init__(self, path: str = PATH) -> None:
        self._path = path
        self._identity: _Identity | None = None
        self.servers: tuple[str, ...] = ()

    def refresh(self) -> bool:
        """Read the file if it changed; True if the servers did. A file that is missing or unreadable for the moment
        (editors and DHCP clients replace it) leaves the last known servers in force.
        """
        try:
            # Looked at before it is read: a change in between is then seen by the next refresh.
            identity = _identity(self._path)
            if identity == self._identity:
                return False
            with open(self._path, encoding="utf-8", errors="replace") as file:
                text = file.read(RESOLV_CONF_BYTES)
        except OSError:
            self._identity = None
            return False
        before, self.servers, self._identity = self.servers, nameservers(text), identity
        return before != self.servers


def _identity(path: str) -> _Identity:
    status = os.stat(path)
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
