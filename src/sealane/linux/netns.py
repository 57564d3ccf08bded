"""Network namespaces: found, proved, entered for an instant, made and pinned.

Rule 1: a path is trusted for nothing. It is opened, the descriptor is shown to be a network namespace, not the one
we live in, and the one whose inode was recorded; from there on only the descriptor is used. So a link or a file
swapped meanwhile leads to a refusal, never into the host's namespace (CVE-2015-3627, CVE-2025-52881 in runc).

Rule 2: nobody stays inside. A thread enters to open a socket or a file, and comes back in the same breath; if it
could not, the process ends at once, since a thread of the daemon in a tenant's namespace would hand out that
tenant's answers as the host's.

Rule 3: new namespaces are made by a thread that ends with them, so no thread can come back in the wrong one.
"""

import ctypes
import errno
import fcntl
import os
import socket
import stat
import struct
import sys
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple, TypeVar

from sealane.engine.ports import NamespaceGoneError
from sealane.linux import userns
from sealane.linux.netlink.socket import NETLINK_ROUTE, SO_NETNS_COOKIE, Socket
from sealane.model.endpoint import NetnsRef
from sealane.model.ids import parse_id

T = TypeVar("T")

CLONE_NEWNET = 0x40000000
PATH_MAX = 4095
PIDS_MAX = 1 << 22
"""The kernel's own highest pid (linux/threads.h)."""

_NS_GET_NSTYPE = 0xB703
_NSFS_MAGIC = 0x6E736673
_PROC_MAGIC = 0x9FA0
_OWN = "/proc/thread-self/ns/net"

_MS_BIND = 4096
_MS_PRIVATE = 1 << 18
_MNT_DETACH = 2
_UMOUNT_NOFOLLOW = 8

_USERNS = ".user"

_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ESRCH, errno.ELOOP})

_libc = ctypes.CDLL(None, use_errno=True)
_STATFS_BYTES = 256


class NamespaceError(ValueError):
    """A reference to something that cannot be a sandbox's network namespace. The message says what it is instead."""


def open_ref(ref: NetnsRef) -> int:
    """A descriptor of the very namespace that `ref` recorded, at its path or through a process that lives in it.

    The caller closes it: as long as it is open the namespace lives. Raises NamespaceGoneError when there is none, and
    OSError when it cannot be looked at, which proves nothing.
    """
    for path in _paths(ref):
        descriptor = _open_same(path, ref)
        if descriptor is not None:
            return descriptor
    raise NamespaceGoneError(f"the network namespace net:[{ref.inode}] ({ref.path}) does not exist any more")


def enter(ref: NetnsRef) -> tuple[int, Socket]:
    """A descriptor and an rtnetlink socket of the namespace that `ref` recorded. As `open_ref`, in one visit: the
    socket tells the cookie."""
    descriptor = _open_same(ref.path, ref, check_cookie=False)
    if descriptor is not None:
        try:
            socket = open_socket(descriptor, NETLINK_ROUTE)
            if not ref.cookie or socket.netns_cookie() == ref.cookie:
                return descriptor, socket
            socket.close()
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
    descriptor = open_ref(ref)
    try:
        return descriptor, open_socket(descriptor, NETLINK_ROUTE)
    except BaseException:
        os.close(descriptor)
        raise


def visit(where: str) -> tuple[NetnsRef, int, Socket]:
    """As `resolve` and then `enter`, in one visit."""
    path = _path_of(where)
    with _home() as home:
        descriptor, inode = _prove(path, home)
        try:
            with _inside(descriptor, home):
                socket = Socket(NETLINK_ROUTE)
            ref = NetnsRef(path=path, inode=inode, cookie=socket.netns_cookie())
        except BaseException:
            os.close(descriptor)
            raise
    return ref, descriptor, socket


def resolve(where: str) -> NetnsRef:
    """The namespace of a process (decimal digits) or at an absolute path.

    Raises NamespaceError for what is no other network namespace, OSError where there is nothing.
    """
    path = _path_of(where)
    descriptor = _open(path)
    try:
        return NetnsRef(path=path, inode=os.fstat(descriptor).st_ino, cookie=cookie(descriptor))
    finally:
        os.close(descriptor)


def _path_of(where: str) -> str:
    if not (where.isascii() and where.isdigit()):
        return where
    if len(where) > 7 or not 1 <= int(where) <= PIDS_MAX:
        raise NamespaceError(f"{where} is not a process id")
    return f"/proc/{int(where)}/ns/net"


def own_inode() -> int:
    """Of the namespace that the calling thread is in."""
    return os.stat(_OWN).st_ino


@contextmanager
def inside(descriptor: int) -> Iterator[None]:
    """The calling thread is in the namespace of `descriptor`, for opening sockets and sysctls and nothing else."""
    with _home() as home, _inside(descriptor, home):
        yield


class _Home(NamedTuple):
    """The namespace that the calling thread is in, and comes back to."""

    descriptor: int
    device: int
    """Of nsfs, of which there is one."""
    inode: int


@contextmanager
def _home() -> Iterator[_Home]:
    descriptor = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        yield _Home(descriptor, status.st_dev, status.st_ino)
    finally:
        os.close(descriptor)


@contextmanager
def _inside(descriptor: int, home: _Home) -> Iterator[None]:
    try:
        _setns(descriptor)
        yield
    finally:
        _return(home.descriptor, home.inode)


def open_socket(descriptor: int | None, family: int) -> Socket:
    """A netlink socket of a namespace; None: of the one we are in."""
    if descriptor is None:
        return Socket(family)
    with inside(descriptor):
        return Socket(family)


def create(directory: str, sandbox: str, *, with_userns: bool = False) -> NetnsRef:
    """Make a namespace and pin it by a bind mount at `directory`/`sandbox`. Idempotent: one that is there is returned.
    `with_userns`: it is owned by a new user namespace, which is pinned beside it."""
    path = f"{directory}/{parse_id(sandbox)}"
    with suppress(OSError, NamespaceError):
        return _pinned(path)
    os.makedirs(directory, mode=0o700, exist_ok=True)
    _make_private(directory)
    # Of one that died half-way.
    _unpin(path + _USERNS)
    try:
        if with_userns:
            with userns.inhabited(network=True) as pid:
                # First: a network namespace with its owner at hand, or none.
                _pin(f"/proc/{pid}/ns/user", path + _USERNS)
                _pin(f"/proc/{pid}/ns/net", path)
        else:
            in_new_namespace(lambda: _pin(_OWN, path))
        return _pinned(path)
    except BaseException:
        _unpin(path)
        _unpin(path + _USERNS)
        raise


def delete(directory: str, ref: NetnsRef) -> None:
    """Take the pin away; the namespace dies with its last process and socket. Idempotent, and harmless for a path at
    which another namespace has been pinned since."""
    name = os.path.basename(ref.path)
    if ref.owner != "sealane" or ref.path != f"{directory}/{parse_id(name)}":
        raise NamespaceError(f"{ref.path} is not a namespace that sealane made")
    with suppress(OSError):
        if _filesystem(ref.path) == _NSFS_MAGIC and os.stat(ref.path).st_ino != ref.inode:
            return
    _unpin(ref.path)
    _unpin(ref.path + _USERNS)


def sweep(directory: str, known: Collection[str]) -> list[str]:
    """Take away pins whose sandbox is not `known`: a daemon died between pinning and recording. Their names."""
    try:
        names = sorted(os.listdir(directory))
    except FileNotFoundError:
        return []
    stray = [name for name in names if name.removesuffix(_USERNS) not in known]
    for name in stray:
        _unpin(f"{directory}/{name}")
    return [name for name in stray if not name.endswith(_USERNS)]


def in_new_namespace(action: Callable[[], T]) -> T:
    """What `action` returns, called in a fresh namespace, by a thread that ends with the call."""
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            if _libc.unshare(CLONE_NEWNET) != 0:
                _fail("a new network namespace")
            results.append(action())
        except BaseException as error:  # Raised again in the caller's thread.
            errors.append(error)

    thread = threading.Thread(target=run, name="sealane-new-netns", daemon=True)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def _open(path: str) -> int:
    with _home() as home:
        return _prove(path, home)[0]


def _prove(path: str, home: _Home) -> tuple[int, int]:
    """Open what is at a path and prove it a network namespace other than ours: its descriptor and inode. The path's final
    component may be a symbolic link only in procfs, where the kernel makes them (`/proc/PID/ns/net`)."""
    if not path.startswith("/") or "\0" in path or len(path) > PATH_MAX:
        raise NamespaceError(f"{path!r}: an absolute path or a process id is needed")
    found = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        status = os.fstat(found)
        if stat.S_ISLNK(status.st_mode):
            if _filesystem(found) != _PROC_MAGIC:
                raise NamespaceError(f"{path} is a symbolic link: give the path that it leads to")
            followed = os.open(path, os.O_PATH | os.O_CLOEXEC)
            os.close(found)
            found = followed
            status = os.fstat(found)
        # Nothing but nsfs is ever really opened: a FIFO would block, a device would act.
        if status.st_dev != home.device:
            raise NamespaceError(f"{path} is not a namespace")
        if status.st_ino == home.inode:
            raise NamespaceError(f"{path} is the host's own network namespace")
        descriptor = os.open(f"/proc/self/fd/{found}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(found)
    if fcntl.ioctl(descriptor, _NS_GET_NSTYPE) != CLONE_NEWNET:
        os.close(descriptor)
        raise NamespaceError(f"{path} is a namespace of another kind, not a network namespace")
    return descriptor, status.st_ino


def cookie(descriptor: int) -> int:
    """The namespace's SO_NETNS_COOKIE: unlike its inode it is never given to another."""
    with inside(descriptor), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        value = probe.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8)
    return int.from_bytes(value, sys.byteorder)


def _is_same(descriptor: int, ref: NetnsRef, *, check_cookie: bool) -> bool:
    if os.fstat(descriptor).st_ino != ref.inode:
        return False
    return not check_cookie or not ref.cookie or cookie(descriptor) == ref.cookie


def _open_same(path: str, ref: NetnsRef, *, check_cookie: bool = True) -> int | None:
    """None: what is there is no namespace, another one, or nothing."""
    try:
        descriptor = _open(path)
    except NamespaceError:
        return None
    except OSError as error:
        if error.errno in _ABSENT:
            return None
        raise
    try:
        if _is_same(descriptor, ref, check_cookie=check_cookie):
            return descriptor
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def _paths(ref: NetnsRef) -> Iterator[str]:
    """Where a namespace may be: at its path, and at every process that lives in it. A process that was seen may have ended
    before it is looked at, and one that it started since be missed: so it is looked twice."""
    yield ref.path
    for _ in range(2):
        yield from _inhabited(ref.inode)


def _inhabited(inode: int) -> Iterator[str]:
    """Paths of a namespace through the processes that live in it. One that root may not look at is of a user namespace
    above ours, where no sandbox of ours is."""
    desired = f"net:[{inode}]"
    with os.scandir("/proc") as entries:
        for entry in entries:
            if entry.name.isascii() and entry.name.isdigit():
                path = f"/proc/{entry.name}/ns/net"
                with suppress(OSError):
                    if os.readlink(path) == desired:
                        yield path


def _pin(namespace: str, path: str) -> None:
    os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o400))
    _mount(namespace, path, _MS_BIND)


def _pinned(path: str) -> NetnsRef:
    descriptor = _open(path)
    try:
        inode = os.fstat(descriptor).st_ino
        owner = path + _USERNS
        with suppress(OSError):
            if _filesystem(owner) == _NSFS_MAGIC:
                return NetnsRef(
                    path=path, inode=inode, cookie=cookie(descriptor), owner="sealane", userns=owner
                )
        return NetnsRef(path=path, inode=inode, cookie=cookie(descriptor), owner="sealane")
    finally:
        os.close(descriptor)


def _make_private(directory: str) -> None:
    """Pins do not spread to other mount namespaces, where they would keep namespaces alive. Only a mount point can be
    made private, so the directory becomes one."""
    with suppress(OSError):
        _mount("none", directory, _MS_PRIVATE)
        return
    _mount(directory, directory, _MS_BIND)
    _mount("none", directory, _MS_PRIVATE)


def _unpin(path: str) -> None:
    """Removing the file also takes the mount away from mount namespaces that copied it (Linux 3.18, __detach_mounts)."""
    while _libc.umount2(os.fsencode(path), _MNT_DETACH | _UMOUNT_NOFOLLOW) == 0:
        pass
    if ctypes.get_errno() not in {errno.EINVAL, errno.ENOENT}:
        _fail(path)
    with suppress(FileNotFoundError):
        os.unlink(path)


def _return(home: int, inode: int) -> None:
    try:
        _setns(home)
        if own_inode() == inode:
            return
    except BaseException:  # Whatever it was, we are not where we must be.
        os.abort()
    os.abort()


def _setns(descriptor: int) -> None:
    # os.setns came with Python 3.12.
    if _libc.setns(descriptor, CLONE_NEWNET) != 0:
        _fail("entering a network namespace")


def _mount(source: str, target: str, flags: int) -> None:
    if _libc.mount(os.fsencode(source), os.fsencode(target), None, ctypes.c_ulong(flags), None) != 0:
        _fail(target)


def _filesystem(where: int | str) -> int:
    """statfs's f_type, its first word (os.statvfs leaves it out)."""
    buffer = ctypes.create_string_buffer(_STATFS_BYTES)
    if isinstance(where, int):
        result = _libc.fstatfs(where, buffer)
    else:
        result = _libc.statfs(os.fsencode(where), buffer)
    if result != 0:
        _fail(str(where))
    kind: int = struct.unpack_from("@l", buffer)[0]
    return kind


def _fail(what: str) -> None:
    number = ctypes.get_errno()
    raise OSError(number, os.strerror(number), what)
