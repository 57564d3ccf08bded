"""The running kernel's own types: where fields lie, what a tracepoint is given, what its numbers are called.

``/sys/kernel/btf/vmlinux`` describes every struct of the kernel that it was built with, so a program made from it fits
this kernel and no header file is needed. Format: ``Documentation/bpf/btf.rst``. One pass over 130,000 types takes
about 0.2 s and finds where each begins; the rest is read when it is asked for.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

PATH: Final = "/sys/kernel/btf/vmlinux"
BYTES_MAX: Final = 64 << 20
"""Ten times what Linux 6.18 has."""

_MAGIC: Final = 0xEB9F
_HEADER: Final = struct.Struct("=HBBIIIII")
_TYPE: Final = struct.Struct("=III")
_MEMBER: Final = struct.Struct("=III")
_ENUMERATOR: Final = struct.Struct("=Ii")

_PTR, _ARRAY, _STRUCT, _UNION, _ENUM, _TYPEDEF, _FUNC_PROTO = 2, 3, 4, 5, 6, 8, 13
_MODIFIERS: Final = frozenset({_TYPEDEF, 9, 10, 11, 18})
"""typedef, volatile, const, restrict, type tag."""

_MODIFIERS_MAX: Final = 32
"""MAX_RESOLVE_DEPTH, kernel/bpf/btf.c."""

# Bytes behind a type's head: so many, and so many for each of its members (btf_kind_info, kernel/bpf/btf.c).
_FIXED: Final = {1: 4, _ARRAY: 12, 14: 4, 17: 4}
_EACH: Final = {_STRUCT: 12, _UNION: 12, _ENUM: 8, _FUNC_PROTO: 8, 15: 12, 19: 12}


class BtfError(ValueError):
    """The kernel tells nothing of its types, or not what was asked for."""


@contextmanager
def _whole() -> Iterator[None]:
    """References that lead nowhere are BtfErrors."""
    try:
        yield
    except BtfError:
        raise
    except (IndexError, ValueError, TypeError, struct.error, RecursionError) as error:
        raise BtfError(f"BTF is damaged: {error}") from error


class Btf:
    """Types by id, as the kernel numbers them; 0 is void. Everything raises BtfError for what there is not."""

    def __init__(self, data: bytes) -> None:
        if len(data) < _HEADER.size:
            raise BtfError("no BTF: too short")
        magic, version, _, header, type_offset, type_bytes, text_offset, text_bytes = _HEADER.unpack_from(
            data
        )
        if magic != _MAGIC or version != 1:
            raise BtfError(f"no BTF of version 1 (magic {magic:#x}, version {version})")
        self._data = data[header + type_offset : header + type_offset + type_bytes]
        self._text = data[header + text_offset : header + text_offset + text_bytes]
        if len(self._data) != type_bytes or len(self._text) != text_bytes:
            raise BtfError("BTF is cut off")
        with _whole():
            self._starts = _starts(self._data)

    def tracepoint(self, name: str) -> tuple[int, int]:
        """Type id of a tracepoint, by which a program is attached, and the number of its arguments."""
        with _whole():
            found = self._find(_TYPEDEF, f"btf_trace_{name}")
            prototype = self._strip(self._reference(found))
            # typedef void (*btf_trace_NAME)(void *data, ARGUMENTS): include/trace/bpf_probe.h.
            return found, self._count(self._reference(prototype)) - 1

    def offset(self, owner: str, *path: str) -> int:
        """Bytes from the beginning of a struct to a field of it; further names are of fields of that field."""
        with _whole():
            total, current = 0, self._find(_STRUCT, owner)
            for name in path:
                member = self._member(current, name)
                if member is None:
                    raise BtfError(f"struct {owner} has no {'.'.join(path)}")
                total, current = total + member[0], member[1]
            return total

    def names(self, enumeration: str) -> dict[int, str]:
        """What the numbers of an enum are called."""
        with _whole():
            start = self._starts[self._find(_ENUM, enumeration)]
            count = self._head(start)[1] & 0xFFFF
            pairs = _ENUMERATOR.iter_unpack(self._data[start + 12 : start + 12 + 8 * count])
            return {value: self._name(name) for name, value in pairs}

    def _find(self, kind: int, name: str) -> int:
        """By name, which no two types of a kind share in practice; the first is taken."""
        at = self._text.find(b"\0" + name.encode() + b"\0") + 1
        if at:
            pattern = struct.pack("=I", at)
            position = self._data.find(pattern)
            while position >= 0:
                number = bisect_left(self._starts, position, 1)
                is_start = number < len(self._starts) and self._starts[number] == position
                if is_start and self._kind(number) == kind:
                    return number
                position = self._data.find(pattern, position + 1)
        raise BtfError(f"the kernel has no type {name}")

    def _member(self, owner: int, name: str) -> tuple[int, int] | None:
        """Offset in bytes and type of a field, which may lie in an unnamed struct or union within."""
        for member, kind, offset in self._members(owner):
            label = self._name(member)
            if label == name:
                return offset, self._strip(kind)
            if not label:
                inner = self._member(self._strip(kind), name)
                if inner is not None:
                    return offset + inner[0], inner[1]
        return None

    def _members(self, owner: int) -> Iterator[tuple[int, int, int]]:
        if self._kind(owner) not in {_STRUCT, _UNION}:
            return
        start = self._starts[owner]
        info = self._head(start)[1]
        # With the kind flag an offset's upper byte is a bit field's size.
        mask = 0xFFFFFF if info >> 31 else 0xFFFFFFFF
        for name, kind, offset in _MEMBER.iter_unpack(
            self._data[start + 12 : start + 12 + 12 * (info & 0xFFFF)]
        ):
            yield name, kind, (offset & mask) // 8

    def _strip(self, number: int) -> int:
        for _ in range(_MODIFIERS_MAX):
            if self._kind(number) not in _MODIFIERS:
                return number
            number = self._reference(number)
        raise BtfError("BTF is damaged: modifiers without end")

    def _kind(self, number: int) -> int:
        return self._head(self._starts[number])[1] >> 24 & 0x1F if number else 0

    def _count(self, number: int) -> int:
        return self._head(self._starts[number])[1] & 0xFFFF

    def _reference(self, number: int) -> int:
        return self._head(self._starts[number])[2]

    def _head(self, start: int) -> tuple[int, int, int]:
        name, info, value = _TYPE.unpack_from(self._data, start)
        return name, info, value

    def _name(self, offset: int) -> str:
        return self._text[offset : self._text.index(b"\0", offset)].decode()


def read(path: str = PATH) -> Btf:
    """Raises BtfError where the kernel was built without (CONFIG_DEBUG_INFO_BTF)."""
    try:
        with open(path, "rb") as file:
            return Btf(file.read(BYTES_MAX))
    except OSError as error:
        raise BtfError(f"{path}: {error.strerror}") from error


def _starts(data: bytes) -> list[int]:
    """Where each type begins, by id; the first is void, which is not stored."""
    starts, offset, end = [0], 0, len(data)
    words = memoryview(data).cast("I")
    fixed = [_FIXED.get(kind, 0) + 12 for kind in range(32)]
    each = [_EACH.get(kind, 0) for kind in range(32)]
    append = starts.append
    while offset < end:
        append(offset)
        info = words[(offset >> 2) + 1]
        kind = info >> 24 & 0x1F
        offset += fixed[kind] + each[kind] * (info & 0xFFFF)
    if offset != end:
        raise BtfError("BTF is damaged: the last type is not whole")
    return starts
