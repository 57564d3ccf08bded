"""bpf(2) through ctypes, on the real kernel: maps, pins and what they say when something is wrong."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from contextlib import ExitStack
from pathlib import Path

import pytest

from sealane.linux.bpf import loopback, mounts, syscall
from sealane.linux.bpf.syscall import BATCH_ELEMENTS, MAP_NO_PREALLOC, BpfError, MapSpec, MapType

pytestmark = pytest.mark.kernel

TRIE = MapSpec("slt_trie", MapType.LPM_TRIE, 8, 4, 4 * BATCH_ELEMENTS, MAP_NO_PREALLOC)
HASH = MapSpec("slt_a_name_that_is_too_long", MapType.LRU_HASH, 4, 12, 16)


@pytest.fixture(autouse=True)
def usable():
    # With a default route it is no namespace made for tests, and the mounts with it are the machine's.
    routes = [line.split() for line in Path("/proc/net/route").read_text().splitlines()]
    if any(route[1] == "00000000" for route in routes):
        pytest.skip("run inside `unshare -n -m --propagation private`")
    reason = loopback.probe()
    if reason is not None:
        pytest.skip(f"eBPF: {reason}")


@pytest.fixture
def new_map():
    with ExitStack() as stack:

        def new_map(spec: MapSpec) -> int:
            fd = syscall.map_create(spec)
            stack.callback(os.close, fd)
            return fd

        yield new_map


def trie_key(number: int, bits: int = 32) -> bytes:
    return struct.pack("=I", bits) + struct.pack(">I", number)


def test_a_map_is_what_was_asked_for_and_not_inherited(new_map):
    for spec in (TRIE, HASH):
        fd = new_map(spec)
        info = syscall.map_info(fd)
        assert (info.type, info.key_size, info.value_size) == (spec.type, spec.key_size, spec.value_size)
        assert (info.max_entries, info.flags) == (spec.max_entries, spec.flags)
        assert fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC


def test_elements_are_written_replaced_found_and_deleted(new_map):
    fd = new_map(HASH)
    assert syscall.map_lookup(fd, b"key1", 12) is None
    syscall.map_update(fd, b"key1", b"first value.")
    syscall.map_update(fd, b"key1", b"with\0 zeroes")
    assert syscall.map_lookup(fd, b"key1", 12) == b"with\0 zeroes"
    assert syscall.map_delete(fd, b"key1")
    assert not syscall.map_delete(fd, b"key1")


def test_a_trie_finds_the_longest_match(new_map):
    fd = new_map(TRIE)
    syscall.map_update(fd, trie_key(0x0A00_0000, 8), b"wide")
    syscall.map_update(fd, trie_key(0x0A01_0000, 16), b"near")
    assert syscall.map_lookup(fd, trie_key(0x0A01_0203), 4) == b"near"
    assert syscall.map_lookup(fd, trie_key(0x0A02_0203), 4) == b"wide"
    assert syscall.map_lookup(fd, trie_key(0x0B00_0000), 4) is None
    assert not syscall.map_delete(fd, trie_key(0x0A01_0203)), "deleting is exact"


@pytest.mark.parametrize(
    "count", [0, 1, BATCH_ELEMENTS - 1, BATCH_ELEMENTS, BATCH_ELEMENTS + 1, 3 * BATCH_ELEMENTS]
)
def test_the_whole_map_is_read_at_every_size_of_the_last_batch(new_map, count):
    fd = new_map(TRIE)
    written = {trie_key(number): struct.pack("=I", number) for number in range(count)}
    for key, value in written.items():
        syscall.map_update(fd, key, value)
    items = list(syscall.map_items(fd, syscall.map_info(fd)))
    assert len(items) == count
    assert dict(items) == written


def test_a_pin_keeps_the_map_and_its_name_is_given_once(new_map, tmp_path):
    pins = str(tmp_path / "pins")
    try:
        assert mounts.ensure_bpffs(pins)
    except PermissionError as error:
        pytest.skip(f"mounting a bpffs: {error}")
    try:
        assert not mounts.ensure_bpffs(pins), "it is one already"
        assert mounts.on_bpffs(pins)
        fd = new_map(HASH)
        assert syscall.open_pinned(f"{pins}/map") is None
        syscall.pin(fd, f"{pins}/map")
        again = syscall.open_pinned(f"{pins}/map")
        assert again is not None
        assert syscall.map_info(again).id == syscall.map_info(fd).id
        os.close(again)
        with pytest.raises(BpfError, match=f"pin {pins}/map: File exists"):
            syscall.pin(fd, f"{pins}/map")
        os.unlink(f"{pins}/map")
    finally:
        mounts.remove_bpffs(pins)
    assert not os.path.exists(pins)


def test_errors_say_what_failed_on_which_object(new_map):
    with pytest.raises(BpfError, match="create map slt_trie: Invalid argument") as error:
        syscall.map_create(MapSpec("slt_trie", MapType.LPM_TRIE, 8, 4, 16))
    assert error.value.errno == errno.EINVAL, "an LPM trie insists on BPF_F_NO_PREALLOC"
    with pytest.raises(BpfError, match="describe map: (Bad file descriptor|File descriptor in bad state)"):
        syscall.map_info(1_000_000)
    with pytest.raises(BpfError, match="map update elem: Invalid argument"):
        syscall.map_update(new_map(TRIE), trie_key(0, 33), b"long")
