"""A ring buffer that programs write records into and one reader reads (``kernel/bpf/ringbuf.c``).

Memory as the reader maps it: a page that it writes (how far it has read), then one that the kernel writes (how far it
has written), then the data, twice in a row, so that no record is ever torn at the end.
"""

from __future__ import annotations

import mmap
import os
import select
import struct
from typing import TYPE_CHECKING, Final

from sealane.linux.bpf.syscall import MapSpec, MapType, map_create
from sealane.linux.closeable import Closeable

if TYPE_CHECKING:
    from collections.abc import Iterator

_PAGE: Final = mmap.PAGESIZE
_HEADER: Final = struct.Struct("=II")
_BUSY, _DISCARDED = 1 << 31, 1 << 30


class Ring(Closeable):
    """Raises BpfError. What is not read in time is refused to its writer, who may count it."""

    def __init__(self, name: str, size: int) -> None:
        """`size` in bytes: pages, as many as a power of two."""
        self._size = size
        self.fd = map_create(MapSpec(name, MapType.RINGBUF, 0, 0, size))
        try:
            self._mine = mmap.mmap(self.fd, _PAGE)
            self._theirs = mmap.mmap(self.fd, _PAGE + 2 * size, prot=mmap.PROT_READ, offset=_PAGE)
            # One load and one store each: struct.pack_into zeroes first, and a kernel that reads 0 finds the ring full.
            self._read_to = memoryview(self._mine).cast("Q")
            self._written_to = memoryview(self._theirs).cast("Q")
            self._poll = select.epoll()
            self._poll.register(self.fd, select.EPOLLIN)
        except BaseException:
            os.close(self.fd)
            raise
        self._position = 0

    def close(self) -> None:
        self._poll.close()
        self._read_to.release()
        self._written_to.release()
        self._mine.close()
        self._theirs.close()
        os.close(self.fd)

    def wait(self, timeout_s: float) -> bool:
        """Whether there is something to read, at the latest after `timeout_s`."""
        return bool(self._poll.poll(timeout_s))

    def read(self) -> Iterator[bytes]:
        """Records that wait, oldest first."""
        end = self._written_to[0]
        while self._position < end:
            at = _PAGE + self._position % self._size
            length, _ = _HEADER.unpack_from(self._theirs, at)
            if length & _BUSY:
                return
            size = length & ~_DISCARDED
            if not length & _DISCARDED:
                yield self._theirs[at + _HEADER.size : at + _HEADER.size + size]
            self._position += _HEADER.size + size + 7 & ~7
            self._read_to[0] = self._position
