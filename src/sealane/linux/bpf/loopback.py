"""Published ports on the host's own 127.0.0.1 and ::1, by eBPF programs on the sockets of the host.

No route_localnet, no userland proxy, no process of ours in the path: programs on a cgroup v2 rewrite the destination
when a socket connects (`programs` says how), from a map with one element a published port (`entry` says which).

Limits (`shortfall` tells those that an entry shows):

- SCTP has no such hook.
- A client that binds itself to 127.0.0.1 or ::1 before it connects is not redirected.
- A process of the host that listens on exactly the address and port asked for keeps its clients, unless that address is
  where the publish is reserved (`LoopbackEntry.reserved`).
- ::1 to an IPv4 backend works for TCP and connected UDP only.
- The client's process must be in the cgroup (every process is in the root one) and its socket in this network namespace;
  a socket keeps the cgroup it was created in.

What outlives the daemon is pinned in a bpffs, in a directory of this instance:

    targets-TAG   the map of published ports; TAG is a hash of its layout
    peers-TAG     the map of original destinations, for getpeername and recvmsg
    HOOK-TAG      one attachment a hook; TAG is a hash of program, namespace, cgroup and the ids of both maps

So a name says all that its object depends on. An upgrade, another namespace, a re-created cgroup or a lost map give other
names; `LoopbackPublisher.open` creates what is missing and then retires what is left over. Programs of other instances
and other software on the same cgroup are not in the directory and never touched; the kernel runs all of them.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import re
import socket
import struct
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

import msgspec

from sealane.linux.bpf import mounts, pins, syscall
from sealane.linux.bpf.entry import Element, LoopbackEntry, decode, encode, same_target, shortfall
from sealane.linux.bpf.programs import HOOKS, PEERS, TARGETS, Hook, build
from sealane.linux.bpf.refusal import why
from sealane.linux.bpf.syscall import BpfError, MapSpec, ProgType

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["BpfError", "LoopbackEntry", "LoopbackPublisher", "netns_cookie", "probe", "shortfall"]

_SO_NETNS_COOKIE: Final = 71
"""``asm-generic/socket.h``, Linux 5.14; the socket module has no name for it."""

_PIN_NAME: Final = re.compile(
    "(?:targets|peers|" + "|".join(hook.name for hook in HOOKS) + f")-{pins.TAG_PATTERN}"
)


def netns_cookie() -> int:
    """Return the number of this process's network namespace, never used again until the machine boots. Linux 5.14."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe_socket:
        packed = probe_socket.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8)
    (cookie,) = struct.unpack("=Q", packed)
    return int(cookie)


def probe(cgroup: str | None = None) -> str | None:
    """Return None if this process can publish on loopback here, else the reason it cannot.

    Loads maps and programs and lets go of them; attaches nothing, pins nothing.
    """
    try:
        _cgroup_path(cgroup)
        with ExitStack() as stack:
            cookie = netns_cookie()
            maps = {spec.name: _closed_by(stack, syscall.map_create(spec)) for spec in (TARGETS, PEERS)}
            for hook in HOOKS:
                _closed_by(stack, _load(hook, build(hook, cookie).assemble(maps)))
    except OSError as error:
        return why(error)
    return None


class LoopbackPublisher:
    """The published ports of one instance.

    Nothing is remembered between calls but descriptors: the maps are the truth. Not safe for two processes to open one
    directory at a time; the instance's lock is the daemon's.
    """

    def __init__(self, pin_dir: str, *, cgroup: str | None = None, cookie: int | None = None) -> None:
        """`pin_dir` is this instance's own; `cgroup` is the cgroup2 root, `cookie` this namespace's, unless given."""
        self._pin_dir = pin_dir
        self._cgroup = cgroup
        self._cookie = cookie
        self._targets: int | None = None
        self._leftovers: tuple[str, ...] = ()

    def open(self) -> tuple[str, ...]:
        """Open or make maps and attachments; return the names of the pins made, none if all was as it should be.

        Idempotent, also on an open publisher, where it repairs what others have detached or unpinned. Raises BpfError,
        OSError; what was there before is then still in force.
        """
        mounts.ensure_bpffs(self._pin_dir)
        made: list[str] = []
        with ExitStack() as stack:
            targets = _closed_by(stack, self._open_map("targets", TARGETS, made))
            peers = _closed_by(stack, self._open_map("peers", PEERS, made))
            names = [pins.map_name("targets", TARGETS), pins.map_name("peers", PEERS)]
            cgroup = _closed_by(stack, os.open(_cgroup_path(self._cgroup), os.O_RDONLY | os.O_DIRECTORY))
            for attachment in self._attachments(targets, peers, cgroup):
                names.append(attachment.name)
                if self._ensure_attached(attachment, cgroup):
                    made.append(attachment.name)
            opened = os.dup(targets)
        self.close()
        self._targets = opened
        self._leftovers = tuple(name for name in self._pins() if name not in names)
        # While the new map may still be empty, the old programs serve from the old one until `apply` has filled it.
        if names[0] not in made and not any(name.startswith("targets-") for name in self._leftovers):
            self._retire_leftovers()
        return tuple(made)

    def repair(self) -> bool:
        return bool(self.open())

    def entries(self) -> frozenset[LoopbackEntry]:
        """Return what is published. A half-written entry is returned in parts: see `entry.decode`."""
        fd = self._open_targets()
        items = syscall.map_items(fd, syscall.map_info(fd))
        return decode(Element(key=key, value=value) for key, value in items)

    def apply(self, add: Iterable[LoopbackEntry], remove: Iterable[LoopbackEntry] = ()) -> None:
        """Publish `add`, then take back `remove`; a port in both changes its backend at once, without a gap.

        An element in the kernel a call, each effective at once. Idempotent: what is there may be added, what is gone (or
        leads elsewhere by now) may be removed. Entries of `add` must not overlap: ValueError, and nothing is changed.
        BpfError (ENOSPC: too many) leaves what was done before it; the next call may go on from there. SCTP is ignored.
        Connections that exist stay as they are.
        """
        fd = self._open_targets()
        added = _elements_by_key(add)
        for element in added.values():
            syscall.map_update(fd, element.key, element.value)
        for entry in remove:
            for element in encode(entry):
                if element.key not in added:
                    _delete_if_same(fd, element)
        self._retire_leftovers()

    def close(self) -> None:
        """Let go of the descriptors; what is published stays published."""
        if self._targets is not None:
            os.close(self._targets)
            self._targets = None

    def detach(self) -> None:
        """Take everything back: detach the programs, drop the maps, unmount. Idempotent; needs no `open` before."""
        self.close()
        if not os.path.isdir(self._pin_dir):
            return
        if mounts.on_bpffs(self._pin_dir):
            for name in self._pins():
                self._unpin(name)
        mounts.remove_bpffs(self._pin_dir)

    def _open_targets(self) -> int:
        if self._targets is None:
            raise ValueError("the loopback publisher is not open")
        return self._targets

    def _open_map(self, kind: str, spec: MapSpec, made: list[str]) -> int:
        return pins.open_map(self._path(pins.map_name(kind, spec)), spec, made)

    def _attachments(self, targets: int, peers: int, cgroup: int) -> list[_Attachment]:
        cookie = netns_cookie() if self._cookie is None else self._cookie
        # On cgroup2 an inode's number is the id that the kernel tells of a link (64-bit machines).
        cgroup_id = os.fstat(cgroup).st_ino
        descriptors = {TARGETS.name: targets, PEERS.name: peers}
        ids = {name: syscall.map_info(fd).id for name, fd in descriptors.items()}
        attachments = []
        for hook in HOOKS:
            program = build(hook, cookie)
            tag = pins.tag(program.assemble(ids), struct.pack("=Q", cgroup_id))
            code = program.assemble(descriptors)
            attachments.append(
                _Attachment(name=f"{hook.name}-{tag}", hook=hook, code=code, cgroup_id=cgroup_id)
            )
        return attachments

    def _ensure_attached(self, attachment: _Attachment, cgroup: int) -> bool:
        path = self._path(attachment.name)
        pinned = syscall.open_pinned(path)
        if pinned is not None:
            with ExitStack() as stack:
                _closed_by(stack, pinned)
                # Someone may have detached it by hand (BPF_LINK_DETACH): the pin stays, the id becomes 0.
                if syscall.link_info(pinned).cgroup_id == attachment.cgroup_id:
                    return False
            os.unlink(path)
        with ExitStack() as stack:
            program = _closed_by(stack, _load(attachment.hook, attachment.code))
            link = _closed_by(stack, syscall.link_create(program, cgroup, attachment.hook.attach_type))
            syscall.pin(link, path)
        return True

    def _retire_leftovers(self) -> None:
        for name in self._leftovers:
            self._unpin(name)
        self._leftovers = ()

    def _pins(self) -> list[str]:
        """Our pins, those first that take connections in, so that the ones for answers outlive them."""
        order = {hook.name: -index for index, hook in enumerate(HOOKS)}
        names = [name for name in os.listdir(self._pin_dir) if _PIN_NAME.fullmatch(name)]
        return sorted(names, key=lambda name: order.get(name.partition("-")[0], 1))

    def _unpin(self, name: str) -> None:
        path = self._path(name)
        if not name.startswith(("targets-", "peers-")):
            link = syscall.open_pinned(path)
            if link is not None:
                with ExitStack() as stack:
                    syscall.link_detach(_closed_by(stack, link))
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)

    def _path(self, name: str) -> str:
        return os.path.join(self._pin_dir, name)


class _Attachment(msgspec.Struct, frozen=True):
    """One program as it has to be attached; `name` is its pin's."""

    name: str
    hook: Hook
    code: bytes
    cgroup_id: int


def _closed_by(stack: ExitStack, fd: int) -> int:
    stack.callback(os.close, fd)
    return fd


def _load(hook: Hook, code: bytes) -> int:
    return syscall.prog_load(ProgType.CGROUP_SOCK_ADDR, hook.attach_type, f"sl_{hook.name}", code)


def _cgroup_path(given: str | None) -> str:
    path = given or mounts.find_cgroup2()
    if path is None:
        raise FileNotFoundError(errno.ENOENT, "no cgroup v2 hierarchy is mounted")
    return path


def _elements_by_key(entries: Iterable[LoopbackEntry]) -> dict[bytes, Element]:
    ordered = sorted(set(entries))
    for entry, following in itertools.pairwise(ordered):
        same_ports = (entry.family, entry.proto) == (following.family, following.proto)
        if same_ports and entry.last >= following.first:
            raise ValueError(f"first, last: {following} overlaps {entry}")
    return {element.key: element for entry in ordered for element in encode(entry)}


def _delete_if_same(fd: int, element: Element) -> None:
    # The lookup may also find a wider block with the same target; then the deletion finds nothing, which is right.
    held = syscall.map_lookup(fd, element.key, len(element.value))
    if held is not None and same_target(held, element.value):
        syscall.map_delete(fd, element.key)
