"""The listening socket: only its owner can reach it, and it never takes the place of a living daemon's."""

import errno
import os
import socket
import stat
import struct
from collections.abc import MutableMapping
from typing import NamedTuple

from sealane.engine.errors import ConflictError, InvalidError

BACKLOG = 128
FIRST_INHERITED = 3  # SD_LISTEN_FDS_START, sd_listen_fds(3).
INHERITED_MAX = 16
PATH_BYTES_MAX = 107
"""sun_path has 108 bytes with its closing NUL (unix(7))."""

_UCRED = struct.Struct("=3i")


def listen(path: str) -> socket.socket:
    """A socket of mode 0600 at `path`, in a directory that others cannot write; a missing one is made, 0700.

    Raises InvalidError for a path that cannot be used and ConflictError if another daemon listens there.
    """
    if not 0 < len(os.fsencode(path)) <= PATH_BYTES_MAX or "\0" in path:
        raise InvalidError(
            f"{path!r} is not a socket's path", field="socket", hint=f"use 1 to {PATH_BYTES_MAX} bytes"
        )
    _make_directory(os.path.dirname(os.path.abspath(path)))
    _remove_stale(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        # bind(2) gives the file the mode of the socket's own inode less the umask (net/unix/af_unix.c,
        # unix_bind_bsd): so it is never open to others, not even for a moment, whatever the umask.
        os.fchmod(sock.fileno(), 0o600)
        sock.bind(path)
        os.chmod(path, 0o600)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise _unusable(path, error) from error
    return sock


def _make_directory(directory: str) -> None:
    missing: list[str] = []
    present = directory
    while not os.path.isdir(present) and present != "/":
        missing.append(present)
        present = os.path.dirname(present)
    try:
        for each in reversed(missing):
            os.mkdir(each, 0o700)
            os.chmod(each, 0o700)  # The umask may have taken even our own rights.
        found = os.stat(directory)
    except OSError as error:
        raise _unusable(directory, error) from error
    others_write = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not found.st_mode & stat.S_ISVTX
    if found.st_uid not in {0, os.geteuid()} or others_write:
        raise InvalidError(
            f"others can replace what is in {directory}", field="socket", hint=f"chmod 0700 {directory}"
        )


def _remove_stale(path: str) -> None:
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise _unusable(path, error) from error
    if not stat.S_ISSOCK(mode):
        raise InvalidError(f"{path} is there and is no socket", field="socket", hint="choose another path")
    if _is_alive(path):
        raise ConflictError(
            f"another daemon listens on {path}", field="socket", hint="stop it, or choose another --socket"
        )
    os.unlink(path)


def _is_alive(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(path)
        except OSError as error:
            # EAGAIN: its backlog is full, so somebody has it.
            return error.errno == errno.EAGAIN
    return True


def _unusable(path: str, error: OSError) -> InvalidError:
    return InvalidError(f"{path}: {error.strerror}", field="socket", hint="choose another --socket")


def named_sockets(environ: MutableMapping[str, str], pid: int) -> list[tuple[str, socket.socket]]:
    """Sockets that the service manager has opened for this process (sd_listen_fds(3)), each with its name
    (FileDescriptorName= of its unit, systemd.socket(5); else empty). None is the usual case.

    Those that are meant for this process are taken out of `environ`, and no child of ours inherits them.
    """
    names = environ.get("LISTEN_FDNAMES", "").split(":")
    count = environ.get("LISTEN_FDS", "")
    if environ.get("LISTEN_PID") != str(pid) or not (count.isascii() and count.isdigit()):
        return []
    for name in ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"):
        environ.pop(name, None)
    descriptors = range(FIRST_INHERITED, FIRST_INHERITED + min(int(count[:4]), INHERITED_MAX))
    sockets = [socket.socket(fileno=descriptor) for descriptor in descriptors]
    for sock in sockets:
        sock.set_inheritable(False)
    names += [""] * (len(sockets) - len(names))
    return list(zip(names, sockets, strict=False))


class Peer(NamedTuple):
    pid: int
    """0: it is in a process namespace that ours does not see."""
    uid: int
    """65534: a user of another namespace."""


def peer_of(sock: socket.socket) -> Peer:
    """Who connected, as the kernel noted it then (unix(7), SO_PEERCRED)."""
    pid, uid, _ = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return Peer(pid, uid)
