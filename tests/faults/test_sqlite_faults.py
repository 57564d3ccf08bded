"""The SQLite store under real faults: processes killed, disks full and failing, files damaged."""

import contextlib
import os
import shutil
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faults import sqlite_workload as workload
from harness.patience import Watch
from sealane.model.change import Delete, Put
from sealane.store.base import Snapshot, StoreError
from sealane.store.sqlite import SqliteStore

STATES = workload.states()
LAST = len(STATES) - 1

needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")


def run(directory, *options, syscall):
    """The workload under strace; returns its lines and the number of calls about the store's files."""
    trace = f"{directory}.trace"
    argv = ["strace", "-f", "-qq", "-e", f"trace={syscall}", "-o", trace, *options]
    for path in ("", "/state.db", "/state.db-wal", "/state.lock", "/state.reserve"):
        argv += ["-P", f"{directory}{path}"]
    child = f"import sys; sys.path[:] = {sys.path!r}; from faults import sqlite_workload as w; w.main()"
    argv += [sys.executable, "-I", "-S", "-c", child, str(directory)]
    result = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert "Traceback" not in result.stderr, result.stderr
    with open(trace, encoding="ascii", errors="replace") as file:
        calls = sum(1 for line in file if f"{syscall}(" in line)
    return result.stdout.splitlines(), calls


def acknowledged(lines):
    return max((int(line.split()[1]) for line in lines if line.startswith("ack")), default=0)


def check(directory, acked):
    """The store opens, has every acknowledged commit and at most one more, wholly, and goes on."""
    with contextlib.closing(SqliteStore(str(directory), reserve_bytes=workload.RESERVE_BYTES)) as store:
        found = store.snapshot()
        assert found.revision in (acked, acked + 1)
        assert {record.id: record for record in found.records} == STATES[found.revision]
        revision = found.revision
        for batch in workload.batches()[revision:]:
            revision = store.commit(batch, revision)
        assert {record.id: record for record in store.snapshot().records} == STATES[LAST]
    assert not [
        name for name in os.listdir(directory) if name not in ("state.db", "state.lock", "state.reserve")
    ]


def strided(count, most):
    """Every call, or as many as the quick loop affords, the first and last among them."""
    return sorted({1 + index * (count - 1) // max(1, most - 1) for index in range(min(most, count))})


# A process that is killed


@needs_strace
@pytest.mark.parametrize(
    "syscall", ["pwrite64", "fdatasync", "fsync", "ftruncate", "unlink", "fallocate", "flock"]
)
def test_a_process_killed_at_any_write_loses_nothing_acknowledged(tmp_path, syscall):
    _, count = run(tmp_path / "counted", syscall=syscall)
    assert count > 0
    check(tmp_path / "counted", LAST)
    survived = 0
    for number in strided(count, 24):
        directory = tmp_path / str(number)
        lines, _ = run(directory, "-e", f"inject={syscall}:signal=KILL:when={number}", syscall=syscall)
        survived += "closed" in lines
        check(directory, acknowledged(lines))
    assert survived == 0


@pytest.mark.slow
@needs_strace
@pytest.mark.timeout(1200)
def test_a_process_killed_at_each_single_write_loses_nothing_acknowledged(tmp_path):
    _, count = run(tmp_path / "counted", syscall="pwrite64")
    for number in range(1, count + 1):
        directory = tmp_path / str(number)
        lines, _ = run(directory, "-e", f"inject=pwrite64:signal=KILL:when={number}", syscall="pwrite64")
        check(directory, acknowledged(lines))


# A disk that fails


@needs_strace
@pytest.mark.parametrize(
    ("syscall", "error", "reasons"),
    [
        ("pwrite64", "EIO", {"unreadable"}),
        ("pwrite64", "ENOSPC", {"full"}),
        ("pwrite64", "EROFS", {"unreadable"}),
        ("fdatasync", "EIO", {"unreadable"}),
        ("pread64", "EIO", {"unreadable", "corrupt"}),
    ],
)
@pytest.mark.parametrize("lasts", [False, True], ids=["once", "from then on"])
def test_a_failing_disk_refuses_commits_and_changes_nothing(tmp_path, syscall, error, reasons, lasts):
    _, count = run(tmp_path / "counted", syscall=syscall)
    seen = set()
    for number in strided(count, 12):
        directory = tmp_path / str(number)
        when = f"{number}+" if lasts else number
        lines, _ = run(directory, "-e", f"inject={syscall}:error={error}:when={when}", syscall=syscall)
        # Every way out is a StoreError: the daemon stays and says so.
        assert lines[-1] in ("closed", *(f"refused {reason}" for reason in reasons))
        nacks = {line.split()[1] for line in lines if line.startswith("nack")}
        assert nacks <= reasons
        seen |= nacks
        check(directory, acknowledged(lines))
    if syscall == "pwrite64" and lasts:
        assert seen, "no commit met the fault"


# A disk that is full


@pytest.fixture
def disk(tmp_path):
    """A file system of 1 MiB."""
    path = tmp_path / "disk"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", path], check=True)
    yield path
    subprocess.run(["umount", "--lazy", path], check=True)


def fill(path):
    """Take all space that is left."""
    with contextlib.suppress(OSError), open(path, "wb", buffering=0) as file:
        for size in (4096, 512, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(b"\0" * size)


def until_full(store, revision, number):
    """Attach until it fails; returns the revision and the endpoints."""
    attached = []
    while True:
        watch = Watch()
        reason = ""
        try:
            revision = store.commit(
                [Put(workload.sandbox(number)), Put(workload.endpoint(number, text="x" * 3000))], revision
            )
        except StoreError as error:
            reason = error.reason
        if reason:
            assert reason == "full"
            assert watch.elapsed_s() < 1.0
            return revision, attached
        attached.append(number)
        number += 1
        assert number < 10_000, "the disk never filled"


def detach(store, revision, number):
    point = workload.endpoint(number, text="x" * 3000)
    return store.commit([Delete(point), Delete(workload.sandbox(number))], revision)


@pytest.mark.kernel
def test_on_a_full_disk_attach_is_refused_and_detach_goes_on(disk):
    with contextlib.closing(SqliteStore(str(disk / "state"), reserve_bytes=256 << 10)) as store:
        revision = store.commit([Put(workload.NET)], 0)
        revision, attached = until_full(store, revision, 1)
        assert len(attached) > 10
        fill(disk / "filler")
        assert len(store.snapshot().records) == 1 + 2 * len(attached)
        refused, none = until_full(store, revision, 5000)
        assert (refused, none) == (revision, [])
        for number in attached[5:]:
            revision = detach(store, revision, number)
        assert len(store.snapshot().records) == 11
        # What deletions freed inside the database does not let an attach eat the space of the next deletions.
        os.unlink(disk / "filler")
        revision, more = until_full(store, revision, 6000)
        assert len(more) > 5
        assert os.path.getsize(disk / "state" / "state.reserve") == 256 << 10
        for number in [*attached[:5], *more]:
            revision = detach(store, revision, number)
        assert store.snapshot().records == (workload.NET,)
    with contextlib.closing(SqliteStore(str(disk / "state"), reserve_bytes=256 << 10)) as store:
        assert store.snapshot().revision == revision


@pytest.mark.kernel
def test_while_there_is_no_room_for_the_reserve_nothing_is_added(disk):
    with contextlib.closing(SqliteStore(str(disk / "state"), reserve_bytes=64 << 10)) as store:
        revision = store.commit([Put(workload.NET), Put(workload.sandbox(1)), Put(workload.endpoint(1))], 0)
        store._guard.release_reserve()
        fill(disk / "filler")
        with pytest.raises(StoreError, match="reserve") as caught:
            store.commit([Put(workload.sandbox(2))], revision)
        assert caught.value.reason == "full"
        os.unlink(disk / "filler")
        assert store.commit([Put(workload.sandbox(2))], revision) == revision + 1


@pytest.mark.kernel
def test_a_full_disk_opens(disk):
    directory = str(disk / "state")
    with contextlib.closing(SqliteStore(directory, reserve_bytes=64 << 10)) as store:
        revision = store.commit([Put(workload.NET), Put(workload.sandbox(1)), Put(workload.endpoint(1))], 0)
    fill(disk / "filler")
    with contextlib.closing(SqliteStore(directory, reserve_bytes=64 << 10)) as store:
        assert len(store.snapshot().records) == 3
        revision = store.commit([Delete(workload.endpoint(1))], revision)
        assert len(store.snapshot().records) == 2


@pytest.mark.kernel
def test_a_read_only_file_system_is_unreadable(disk):
    directory = str(disk / "state")
    SqliteStore(directory, reserve_bytes=4096).close()
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    with pytest.raises(StoreError, match="Read-only file system") as caught:
        SqliteStore(directory, reserve_bytes=4096)
    assert caught.value.reason == "unreadable"


# Files that are damaged


class Original:
    """A directory as a store left it, the file of it to damage, what it says, and what it said at each revision."""

    def __init__(self, directory, target, history):
        self.directory, self.target, self.history = directory, target, history
        self.snapshot = Snapshot(len(history) - 1, history[-1])


@pytest.fixture(scope="module", params=["closed", "killed"])
def original(request, tmp_path_factory):
    """Tidied up, or with everything in the write-ahead log."""
    directory = str(tmp_path_factory.mktemp("original") / "state")
    batches = [[Put(workload.NET)]]
    batches += [[Put(workload.sandbox(n)), Put(workload.endpoint(n))] for n in range(30)]
    batches += [[Delete(workload.endpoint(n))] for n in range(5)]
    store = SqliteStore(directory, reserve_bytes=4096)
    store.set_meta("instance", "abcdef")
    history = [()]
    for batch in batches:
        store.commit(batch, len(history) - 1)
        history.append(store.snapshot().records)
    target = "state.db"
    if request.param == "killed":
        shutil.copytree(directory, f"{directory}.copy")
        directory, target = f"{directory}.copy", "state.db-wal"
    store.close()
    return Original(directory, target, history)


def raises_or_tells_the_truth(directory, snapshot):
    try:
        store = SqliteStore(directory, reserve_bytes=4096)
    except StoreError as error:
        return error.reason
    with contextlib.closing(store):
        # Not compared by the assertion: its message would be the whole store.
        same = store.snapshot() == snapshot
        assert same
        assert store.meta("instance") == "abcdef"
    return "sound"


def content(path):
    with open(path, "rb") as file:
        return file.read()


def copied(original, damage):
    """A copy of the directory with one file damaged; returns the outcome of opening it, and that it was not touched."""
    directory, target, snapshot = original.directory, original.target, original.snapshot
    copy = f"{directory}.damaged"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(directory, copy)
    with open(f"{copy}/{target}", "r+b") as file:
        data = bytearray(file.read())
        damage(data)
        file.seek(0)
        file.write(data)
        file.truncate()
    outcome = raises_or_tells_the_truth(copy, snapshot)
    assert outcome in ("sound", "corrupt", "schema")
    if outcome != "sound":
        for name in os.listdir(directory):
            same = content(f"{copy}/{name}") == (data if name == target else content(f"{directory}/{name}"))
            assert same, f"{name} has been written to, though the store was refused"
    return outcome


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_flipped_bits_are_noticed_or_change_nothing(original, data):
    def flip(content):
        for _ in range(data.draw(st.integers(1, 4))):
            # Half of them in the first page, which holds the header and the schema.
            end = data.draw(st.sampled_from([min(4096, len(content)), len(content)]))
            content[data.draw(st.integers(0, end - 1))] ^= 1 << data.draw(st.integers(0, 7))

    copied(original, flip)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_zeroed_pages_are_noticed_or_change_nothing(original, data):
    def zero(content):
        page = data.draw(st.integers(0, len(content) // 4096 - 1))
        content[page * 4096 : page * 4096 + 4096] = bytes(4096)

    copied(original, zero)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_a_truncated_file_is_noticed(original, data):
    """Unless zeros are all that is missing of the last page: SQLite reads a short page as if they followed."""
    lost = bytearray()

    def cut(content):
        length = data.draw(st.integers(0, len(content) - 1))
        lost[:] = content[length:]
        del content[length:]

    outcome = copied(original, cut)
    assert outcome == "corrupt" or (not any(lost) and len(lost) < 4096)


def test_an_older_database_of_the_same_boot_is_noticed(tmp_path):
    directory = str(tmp_path / "state")
    store = SqliteStore(directory, reserve_bytes=4096)
    revision = store.commit([Put(workload.NET)], 0)
    shutil.copytree(directory, f"{directory}.old")
    store.commit([Put(workload.sandbox(1))], revision)
    store.close()
    for name in ("state.db", "state.db-wal"):
        shutil.copyfile(f"{directory}.old/{name}", f"{directory}/{name}")
    for _ in range(2):
        with pytest.raises(
            StoreError, match=r"at revision 1, and 2 was written.*remove state\.lock"
        ) as caught:
            SqliteStore(directory, reserve_bytes=4096)
        assert caught.value.reason == "corrupt"
    os.unlink(f"{directory}/state.lock")
    with contextlib.closing(SqliteStore(directory, reserve_bytes=4096)) as store:
        assert store.snapshot().records == (workload.NET,)


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_a_power_cut_takes_back_whole_commits_and_the_store_goes_on(original, data):
    """What the disk has then is the log up to some point, and garbage or nothing after it."""
    copy = f"{original.directory}.cut"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(original.directory, copy)
    log = f"{copy}/state.db-wal"
    if os.path.exists(log):
        size = os.path.getsize(log)
        os.truncate(log, data.draw(st.integers(0, size)))
        os.truncate(log, data.draw(st.sampled_from([os.path.getsize(log), size])))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sealane.store.guard._boot_id", lambda: "0" * 36)
        with contextlib.closing(SqliteStore(copy, reserve_bytes=4096)) as store:
            found = store.snapshot()
            assert found.records == original.history[found.revision]
            store.commit([Put(workload.sandbox(99))], found.revision)
    if not os.path.exists(f"{original.directory}/state.db-wal"):
        assert found == original.snapshot


def test_the_log_of_another_database_is_noticed(original, tmp_path):
    other = str(tmp_path / "other")
    store = SqliteStore(other, reserve_bytes=4096)
    for number in range(5):
        store.commit([Put(workload.sandbox(number))], number)
    copy = str(tmp_path / "state")
    shutil.copytree(original.directory, copy)
    shutil.copyfile(f"{other}/state.db-wal", f"{copy}/state.db-wal")
    store.close()
    assert raises_or_tells_the_truth(copy, original.snapshot) == "corrupt"
