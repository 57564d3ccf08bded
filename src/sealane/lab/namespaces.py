"""Namespaces of a lab: made by a process that ends, and held by descriptors alone.

A namespace lives as long as a process is in it, a descriptor of it is open, or it is mounted (namespaces(7)). The
lab's are mounted nowhere outside their own mount namespaces, so all of them end with the holder and with what it started.
"""

import ctypes
import errno
import os
import socket
from contextlib import suppress

import msgspec

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_BIND, _MS_REC, _MS_PRIVATE = 2, 4, 8, 4096, 16384, 1 << 18
_PR_SET_PDEATHSIG = 1
_KEPT = ("/sys/kernel/tracing", "/sys/kernel/debug")
"""Mounts below /sys that a fresh sysfs would cover, and that are the machine's own in every namespace."""

_libc = ctypes.CDLL(None, use_errno=True)


class Held(msgspec.Struct, frozen=True):
    """Descriptors of one node's namespaces."""

    net: int
    mount: int
    uts: int

    def enter(self) -> None:
        """The calling process, which has one thread, is in all of them. The mounts come last: /proc may change."""
        setns(self.net, CLONE_NEWNET)
        setns(self.uts, CLONE_NEWUTS)
        setns(self.mount, CLONE_NEWNS)


def unshare(flags: int) -> None:
    if _libc.unshare(flags) != 0:
        _fail("unshare")


def setns(descriptor: int, kind: int) -> None:
    if _libc.setns(descriptor, kind) != 0:
        _fail("setns")


def die_with_parent(number: int) -> None:
    """`number` is the signal (prctl(2), PR_SET_PDEATHSIG)."""
    if _libc.prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0) != 0:
        _fail("prctl")


def become_root_inside() -> None:
    """A user namespace with one id, the caller's, as its root (user_namespaces(7))."""
    user, group = os.geteuid(), os.getegid()
    unshare(CLONE_NEWUSER)
    _write("/proc/self/setgroups", "deny")
    _write("/proc/self/uid_map", f"0 {user} 1")
    _write("/proc/self/gid_map", f"0 {group} 1")


def isolate() -> None:
    """Namespaces of the calling process, process 1 of a new pid namespace: its network is the underlay's."""
    unshare(CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWUTS)
    socket.sethostname("underlay")
    _mount("none", "/", None, _MS_REC | _MS_PRIVATE)
    _mount("proc", "/proc", "proc", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)


def hold_own() -> Held:
    return Held(
        *(os.open(f"/proc/self/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC) for kind in ("net", "mnt", "uts"))
    )


def make_node(name: str, folder: str, groups: dict[str, str]) -> Held:
    """New namespaces for one node. `folder` is seen at /run/lab inside; `groups`: its control group's folder, by the
    mount point of each hierarchy. Raises OSError."""
    ready, tell = os.pipe2(os.O_CLOEXEC)
    wait, release = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        _child(name, folder, groups, (tell, wait, release))
    os.close(tell)
    os.close(wait)
    try:
        with os.fdopen(ready, "rb") as pipe:
            told = pipe.readline().decode("utf-8", "replace").strip()
            if told != "ready":
                raise OSError(errno.EPERM, f"namespaces of {name}: {told or 'no answer'}")
            return Held(
                *(
                    os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)
                    for kind in ("net", "mnt", "uts")
                )
            )
    finally:
        os.close(release)
        os.waitpid(pid, 0)


def _child(name: str, folder: str, groups: dict[str, str], pipes: tuple[int, int, int]) -> None:
    """Never returns: in the forked process nothing of the holder's may run on."""
    tell, wait, release = pipes
    try:
        os.close(release)
        unshare(CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWUTS)
        _furnish(name, folder, groups)
        os.write(tell, b"ready\n")
        os.read(wait, 1)
        os._exit(0)
    except BaseException as error:
        os.write(tell, f"{error}\n".encode())
        os._exit(1)


def _furnish(name: str, folder: str, groups: dict[str, str]) -> None:
    """The mounts of a node: an empty /run, a sysfs of its own network, its part of the control groups, a bpffs."""
    socket.sethostname(name)
    _mount("none", "/", None, _MS_REC | _MS_PRIVATE)
    own = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    _fresh_sysfs(groups)
    _mount("tmpfs", "/run", "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=0755")
    os.mkdir("/run/lab", 0o700)
    _mount(f"/proc/self/fd/{own}", "/run/lab", None, _MS_BIND)
    os.close(own)
    # Its daemon's socket is at its usual place inside, and can be reached from outside, too.
    os.makedirs("/run/lab/run", mode=0o700, exist_ok=True)
    os.mkdir("/run/sealane", 0o700)
    _mount("/run/lab/run", "/run/sealane", None, _MS_BIND)
    # Where /etc/hosts is missing there is nothing to mount on; names are a comfort.
    with suppress(OSError):
        _mount("/run/lab/hosts", "/etc/hosts", None, _MS_BIND)


def _fresh_sysfs(groups: dict[str, str]) -> None:
    """sysfs shows the network namespace of who mounted it. A user namespace may be refused one (mount_too_revealing): then
    the old one stays."""
    kept = {place: os.open(place, os.O_PATH) for place in _KEPT if os.path.ismount(place)}
    opened = {place: os.open(group, os.O_PATH | os.O_DIRECTORY) for place, group in groups.items()}
    above = sorted({os.path.dirname(place) for place in groups} - {"/sys/fs"})
    try:
        _mount("sysfs", "/sys", "sysfs", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
    except OSError:
        above = []
    for place in above:
        # Of version 1: the hierarchies are on a tmpfs.
        _mount("tmpfs", place, "tmpfs", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, "mode=0755")
        for hierarchy in opened:
            if os.path.dirname(hierarchy) == place:
                os.mkdir(hierarchy)
    for place, descriptor in (kept | opened).items():
        with suppress(OSError):
            _mount(f"/proc/self/fd/{descriptor}", place, None, _MS_BIND)
        os.close(descriptor)
    # A user namespace may mount none without a token (Linux 6.9).
    with suppress(OSError):
        _mount("bpf", "/sys/fs/bpf", "bpf", 0, "mode=0700")


def _mount(source: str, target: str, kind: str | None, flags: int, options: str = "") -> None:
    kind_bytes = None if kind is None else os.fsencode(kind)
    arguments = (os.fsencode(source), os.fsencode(target), kind_bytes, ctypes.c_ulong(flags))
    if _libc.mount(*arguments, os.fsencode(options) if options else None) != 0:
        _fail(target)


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def _fail(what: str) -> None:
    number = ctypes.get_errno()
    raise OSError(number, os.strerror(number), what)


class Enterable(msgspec.Struct, frozen=True):
    """Descriptors for `lab exec`, in the order in which the holder sends them."""

    user: int
    pid: int
    net: int
    uts: int
    mount: int

    def enter(self) -> None:
        """The calling process, which has one thread; its children are in the lab's pid namespace."""
        own = os.stat("/proc/self/ns/user").st_ino
        if os.fstat(self.user).st_ino != own:
            setns(self.user, CLONE_NEWUSER)
        setns(self.pid, CLONE_NEWPID)
        Held(self.net, self.mount, self.uts).enter()
