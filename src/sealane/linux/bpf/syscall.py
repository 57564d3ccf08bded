"""bpf(2) through ctypes: maps, programs, links and pins, and nothing above them.

Every function is one system call (`map_items` a few) and raises `BpfError` with the kernel's errno; a refused program's
error carries the verifier's log. File descriptors are plain ints, close-on-exec (the kernel makes them so), owned by the
caller. The layouts are ``union bpf_attr`` of ``linux/bpf.h``; the kernel accepts a shorter union and takes the rest
as zero.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform
import struct
from enum import IntEnum
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator

_NUMBERS: Final = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "s390x": 351, "ppc64le": 361}
_NUMBER: Final = _NUMBERS.get(platform.machine())
"""Of the system call."""

VERIFIER_LOG_BYTES: Final = 1 << 20
BATCH_ELEMENTS: Final = 512
_OBJECT_NAME_BYTES: Final = 16

# Only a licence that the kernel knows for compatible with the GPL opens all helpers to a program
# (license_is_gpl_compatible, include/linux/license.h); reading the kernel's memory is one of those.
_LICENSE: Final = b"Apache-2.0\0"
_TRACING_LICENSE: Final = b"Dual MIT/GPL\0"


class _Command(IntEnum):
    MAP_CREATE = 0
    MAP_LOOKUP_ELEM = 1
    MAP_UPDATE_ELEM = 2
    MAP_DELETE_ELEM = 3
    PROG_LOAD = 5
    OBJ_PIN = 6
    OBJ_GET = 7
    OBJ_GET_INFO_BY_FD = 15
    PROG_QUERY = 16
    RAW_TRACEPOINT_OPEN = 17
    MAP_LOOKUP_BATCH = 24
    LINK_CREATE = 28
    LINK_GET_FD_BY_ID = 30
    LINK_GET_NEXT_ID = 31
    LINK_DETACH = 34


_MAP_COMMANDS: Final = {
    _Command.MAP_LOOKUP_ELEM: "map lookup elem",
    _Command.MAP_UPDATE_ELEM: "map update elem",
    _Command.MAP_DELETE_ELEM: "map delete elem",
}


class MapType(IntEnum):
    """``enum bpf_map_type``."""

    HASH = 1
    ARRAY = 2
    LRU_HASH = 9
    LPM_TRIE = 11
    RINGBUF = 27


class ProgType(IntEnum):
    """``enum bpf_prog_type``."""

    SCHED_CLS = 3
    CGROUP_SOCK_ADDR = 18
    TRACING = 26


TRACE_RAW_TP: Final = 23
"""``enum bpf_attach_type``: of a TRACING program on a tracepoint, whose arguments the verifier knows by BTF."""


MAP_NO_PREALLOC: Final = 1
"""``BPF_F_NO_PREALLOC``: memory is taken element by element. An LPM trie insists on it."""


class MapSpec(msgspec.Struct, frozen=True):
    """What a map is created with; sizes in bytes."""

    name: str
    type: MapType
    key_size: int
    value_size: int
    max_entries: int
    flags: int = 0


class MapInfo(msgspec.Struct, frozen=True):
    """The head of ``struct bpf_map_info``. `id` is unique on the machine until it boots again."""

    type: int
    id: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int


class LinkInfo(msgspec.Struct, frozen=True):
    """``struct bpf_link_info`` of a cgroup link. `cgroup_id` is 0 once detached, by hand or with its cgroup."""

    id: int
    prog_id: int
    cgroup_id: int
    attach_type: int


class BpfError(OSError):
    """bpf(2) refused; `errno` is the kernel's and the text says which object, and why where the kernel told."""


_libc: Final = ctypes.CDLL(None, use_errno=True)
_syscall: Final = _libc.syscall
_syscall.restype = ctypes.c_long
_syscall.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)


def map_create(spec: MapSpec) -> int:
    """Return a new map's file descriptor."""
    name = spec.name.encode()[: _OBJECT_NAME_BYTES - 1]
    sizes = (spec.type, spec.key_size, spec.value_size, spec.max_entries, spec.flags)
    attr = struct.pack("=7I16s", *sizes, 0, 0, name)
    return _bpf(_Command.MAP_CREATE, attr, f"create map {spec.name}")


def map_lookup(fd: int, key: bytes, value_size: int) -> bytes | None:
    """Return the value that `key` finds (the longest match in an LPM trie), or None."""
    value = ctypes.create_string_buffer(value_size)
    try:
        _map_command(_Command.MAP_LOOKUP_ELEM, fd, key, ctypes.addressof(value))
    except BpfError as error:
        if error.errno == errno.ENOENT:
            return None
        raise
    return value.raw


def map_update(fd: int, key: bytes, value: bytes) -> None:
    """Insert or replace one element. ENOSPC: the map is full."""
    buffer = _copied(value)
    _map_command(_Command.MAP_UPDATE_ELEM, fd, key, ctypes.addressof(buffer))


def map_delete(fd: int, key: bytes) -> bool:
    """Delete one element; False if there was none."""
    try:
        _map_command(_Command.MAP_DELETE_ELEM, fd, key, 0)
    except BpfError as error:
        if error.errno == errno.ENOENT:
            return False
        raise
    return True


def map_items(fd: int, info: MapInfo) -> Iterator[tuple[bytes, bytes]]:
    """Read the whole map, `BATCH_ELEMENTS` a system call. A concurrent writer may hide or repeat an element."""
    keys = ctypes.create_string_buffer(info.key_size * BATCH_ELEMENTS)
    values = ctypes.create_string_buffer(info.value_size * BATCH_ELEMENTS)
    position = ctypes.create_string_buffer(info.key_size)
    start, end = 0, False
    while not end:
        count, end = _lookup_batch(fd, start, ctypes.addressof(position), keys, values)
        start = ctypes.addressof(position)
        key_bytes, value_bytes = keys.raw, values.raw
        for index in range(count):
            key_at, value_at = index * info.key_size, index * info.value_size
            key = key_bytes[key_at : key_at + info.key_size]
            yield key, value_bytes[value_at : value_at + info.value_size]


def _lookup_batch(
    fd: int, start: int, position: int, keys: ctypes.Array[ctypes.c_char], values: ctypes.Array[ctypes.c_char]
) -> tuple[int, bool]:
    addresses = (start, position, ctypes.addressof(keys), ctypes.addressof(values))
    attr = bytearray(struct.pack("=4Q2I2Q", *addresses, BATCH_ELEMENTS, fd, 0, 0))
    end = False
    try:
        _bpf(_Command.MAP_LOOKUP_BATCH, attr, "read map")
    except BpfError as error:
        # The last batch, complete or short, ends so; its elements are counted all the same.
        if error.errno != errno.ENOENT:
            raise
        end = True
    (count,) = struct.unpack_from("=I", attr, 32)
    return count, end


def map_info(fd: int) -> MapInfo:
    """Describe a map. (The kernel describes whatever `fd` is; another kind of object gives numbers that do not fit.)"""
    return MapInfo(*struct.unpack("=6I", _info(fd, 24, "describe map")))


def prog_load(prog_type: ProgType, attach_type: int, name: str, code: bytes, *, btf_id: int = 0) -> int:
    """Verify and load a program; on refusal load once more with a log, and put its end into the error. `btf_id`: of
    what a TRACING program is attached to."""
    with contextlib.suppress(BpfError):
        return _prog_load(prog_type, attach_type, name, code, btf_id, None)
    log = ctypes.create_string_buffer(VERIFIER_LOG_BYTES)
    try:
        return _prog_load(prog_type, attach_type, name, code, btf_id, log)
    except BpfError as error:
        detail = log.value.decode(errors="replace").strip()
        if not detail:
            raise
        raise BpfError(error.errno, f"{error.strerror}; verifier: {detail[-4000:]}") from None


def _prog_load(
    prog_type: ProgType,
    attach_type: int,
    name: str,
    code: bytes,
    btf_id: int,
    log: ctypes.Array[ctypes.c_char] | None,
) -> int:
    insns = _copied(code)
    license_text = ctypes.create_string_buffer(_TRACING_LICENSE if btf_id else _LICENSE)
    log_fields = (1, len(log), ctypes.addressof(log)) if log is not None else (0, 0, 0)
    attr = struct.pack(
        "=2I2Q2IQ2I16s2I36xI",
        prog_type,
        len(code) // 8,
        ctypes.addressof(insns),
        ctypes.addressof(license_text),
        *log_fields,
        0,
        0,
        name.encode()[: _OBJECT_NAME_BYTES - 1],
        0,
        attach_type,
        btf_id,
    )
    return _bpf(_Command.PROG_LOAD, attr, f"load program {name}")


def prog_id(fd: int) -> int:
    """The kernel's number of a program, never used again until the machine boots."""
    _type, number = struct.unpack("=2I", _info(fd, 8, "describe program"))
    return int(number)


class Attached(IntEnum):
    """enum bpf_attach_type, of those that `prog_count` is asked for."""

    CGROUP_INET_INGRESS = 0
    CGROUP_INET_EGRESS = 1
    TCX_INGRESS = 46
    TCX_EGRESS = 47


def prog_count(target: int, where: Attached) -> int:
    """How many programs are attached there: `target` is a link's index (TCX) in this thread's namespace, or a descriptor
    of a cgroup, of which those of the cgroups above count too. Raises BpfError; EINVAL: the kernel has no such place."""
    flags = 0 if where in {Attached.TCX_INGRESS, Attached.TCX_EGRESS} else _QUERY_EFFECTIVE
    attr = bytearray(_QUERY.pack(target, where, flags, 0, 0, 0))
    _bpf(_Command.PROG_QUERY, attr, "count programs")
    return int(_QUERY.unpack_from(attr)[5])


_QUERY: Final = struct.Struct("=IIIIQI36x")
"""All of `query` in union bpf_attr: the kernel writes its last field, `revision`, whatever length it was told."""
_QUERY_EFFECTIVE: Final = 1


def attach_to_tracepoint(prog_fd: int) -> int:
    """Run a TRACING program whenever its tracepoint is passed; it ends with the descriptor that is returned."""
    return _bpf(_Command.RAW_TRACEPOINT_OPEN, struct.pack("=QI", 0, prog_fd), "attach program to tracepoint")


def link_create(prog_fd: int, cgroup_fd: int, attach_type: int) -> int:
    """Attach to a cgroup, beside the programs of others; it stays until the last descriptor and pin are gone."""
    attr = struct.pack("=4I", prog_fd, cgroup_fd, attach_type, 0)
    return _bpf(_Command.LINK_CREATE, attr, f"attach program to cgroup (attach type {attach_type})")


def link_detach(link_fd: int) -> None:
    """Detach now. (Closing and unpinning detaches too, but from a worker, a moment later.) Detached is no error."""
    _bpf(_Command.LINK_DETACH, struct.pack("=I", link_fd), "detach link")


def link_info(fd: int) -> LinkInfo:
    """Describe a cgroup link."""
    _type, link_id, prog_id, _pad, cgroup_id, attach_type = struct.unpack(
        "=4IQI", _info(fd, 28, "describe link")
    )
    return LinkInfo(link_id, prog_id, cgroup_id, attach_type)


LINKS_MAX: Final = 4096


def netfilter_links() -> Iterator[tuple[int, int]]:
    """(protocol family, hook) of eBPF programs at hooks of netfilter (6.4), of all namespaces of the machine: the kernel
    does not tell which. Raises BpfError where links cannot be listed."""
    number = 0
    for _ in range(LINKS_MAX):
        following = bytearray(struct.pack("=3I", number, 0, 0))
        try:
            _bpf(_Command.LINK_GET_NEXT_ID, following, "list links")
        except BpfError as error:
            if error.errno == errno.ENOENT:
                return
            raise
        number = struct.unpack_from("=I", following, 4)[0]
        try:
            fd = _bpf(_Command.LINK_GET_FD_BY_ID, struct.pack("=3I", number, 0, 0), "open link")
        except BpfError:  # It has gone meanwhile.
            continue
        try:
            kind, _, _, _, family, hook = struct.unpack("=4I2I", _info(fd, 24, "describe link"))
        finally:
            os.close(fd)
        if kind == _LINK_NETFILTER:
            yield family, hook


_LINK_NETFILTER: Final = 10
"""BPF_LINK_TYPE_NETFILTER."""


def _info(fd: int, length: int, what: str) -> bytes:
    info = ctypes.create_string_buffer(length)
    _bpf(_Command.OBJ_GET_INFO_BY_FD, struct.pack("=2IQ", fd, length, ctypes.addressof(info)), what)
    return info.raw


def pin(fd: int, path: str) -> None:
    """Give the object a name in a bpffs, which keeps it alive. EEXIST if the name is taken."""
    _path_command(_Command.OBJ_PIN, path, fd, "pin")


def open_pinned(path: str) -> int | None:
    """Return a descriptor of what is pinned at `path`, or None."""
    try:
        return _path_command(_Command.OBJ_GET, path, 0, "open")
    except BpfError as error:
        if error.errno == errno.ENOENT:
            return None
        raise


def _path_command(command: _Command, path: str, fd: int, verb: str) -> int:
    name = ctypes.create_string_buffer(os.fsencode(path))
    return _bpf(command, struct.pack("=Q2I", ctypes.addressof(name), fd, 0), f"{verb} {path}")


_MAP_ATTR: Final = struct.Struct("=2I3Q")


def _map_command(command: _Command, fd: int, key: bytes, value_address: int) -> None:
    key_buffer = _copied(key)
    attr = _MAP_ATTR.pack(fd, 0, ctypes.addressof(key_buffer), value_address, 0)
    _bpf(command, attr, _MAP_COMMANDS[command])


def _copied(data: bytes | bytearray) -> ctypes.Array[ctypes.c_char]:
    """Where the kernel may read and write. (`create_string_buffer` does the same in four times the time.)"""
    return (ctypes.c_char * len(data)).from_buffer_copy(data)


def _bpf(command: _Command, attr: bytes | bytearray, what: str) -> int:
    if _NUMBER is None:
        raise BpfError(errno.ENOSYS, f"{what}: bpf(2) has no known number on {platform.machine()}")
    buffer = _copied(attr)
    result: int = _syscall(_NUMBER, command, buffer, len(attr))
    if isinstance(attr, bytearray):
        attr[:] = buffer.raw
    if result < 0:
        code = ctypes.get_errno()
        raise BpfError(code, f"{what}: {os.strerror(code)}")
    return result
