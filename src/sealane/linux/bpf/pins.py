"""What is pinned in a bpffs, under names that say all that an object depends on: `KIND-TAG`."""

from __future__ import annotations

import hashlib
import os
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec

from sealane.linux.bpf import syscall

if TYPE_CHECKING:
    from collections.abc import Callable

    from sealane.linux.bpf.syscall import MapSpec

TAG_PATTERN: Final = "[0-9a-f]{12}"
_TAG_CHARACTERS: Final = 12


def tag(*parts: bytes) -> str:
    return hashlib.sha256(b"".join(parts)).hexdigest()[:_TAG_CHARACTERS]


def map_name(kind: str, spec: MapSpec) -> str:
    """The tag is of the layout."""
    return f"{kind}-{tag(msgspec.json.encode(spec))}"


def open_map(path: str, spec: MapSpec, made: list[str]) -> int:
    """A descriptor of the map that is pinned at `path`, or of one that is made there and noted in `made`. One of another
    layout, which somebody else has put there, is replaced. Raises BpfError, OSError."""
    fd = syscall.open_pinned(path)
    if fd is not None:
        info = syscall.map_info(fd)
        desired = (spec.type, spec.key_size, spec.value_size, spec.max_entries)
        if (info.type, info.key_size, info.value_size, info.max_entries) == desired:
            return fd
        os.close(fd)
        os.unlink(path)
    return _make(path, partial(syscall.map_create, spec), made)


def open_program(path: str, load: Callable[[], int], made: list[str]) -> int:
    """As `open_map`."""
    fd = syscall.open_pinned(path)
    return _make(path, load, made) if fd is None else fd


def _make(path: str, make: Callable[[], int], made: list[str]) -> int:
    fd = make()
    with ExitStack() as undo:
        undo.callback(os.close, fd)
        syscall.pin(fd, path)
        undo.pop_all()
    made.append(os.path.basename(path))
    return fd
