"""The files beside a database."""

import contextlib
import os
import stat
import subprocess
import sys

import pytest

from sealane.store.base import StoreError
from sealane.store.guard import RESERVE_BYTES, Guard

SMALL = 4096


@pytest.fixture
def directory(tmp_path):
    return str(tmp_path / "state")


@contextlib.contextmanager
def guard(directory, reserve_bytes=SMALL):
    with contextlib.closing(Guard(directory, reserve_bytes)) as guard:
        yield guard


def mode(path):
    return stat.S_IMODE(os.stat(path).st_mode)


def lock_line(directory):
    with open(f"{directory}/state.lock", "rb") as file:
        return file.read()


def write_lock_line(directory, line):
    with open(f"{directory}/state.lock", "wb") as file:
        file.write(line)


def test_directory_and_files_are_for_their_owner_alone(directory):
    old = os.umask(0)
    try:
        with guard(directory) as held:
            held.create_database("state.db")
            held.fill_reserve()
    finally:
        os.umask(old)
    assert mode(directory) == 0o700
    assert {name: mode(f"{directory}/{name}") for name in os.listdir(directory)} == {
        "state.lock": 0o600,
        "state.reserve": 0o600,
        "state.db": 0o600,
    }


def test_a_directory_that_others_could_read_is_closed_to_them(directory):
    os.mkdir(directory)
    os.chmod(directory, 0o755)
    with guard(directory):
        assert mode(directory) == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_somebody_elses_directory_is_refused(directory):
    os.mkdir(directory)
    os.chown(directory, 12345, 12345)
    with pytest.raises(StoreError, match="belongs to user 12345") as caught:
        Guard(directory)
    assert caught.value.reason == "unreadable"
    assert os.listdir(directory) == []


def test_a_file_in_place_of_the_directory_is_refused(tmp_path):
    (tmp_path / "state").write_text("")
    with pytest.raises(StoreError, match="state") as caught:
        Guard(str(tmp_path / "state"))
    assert caught.value.reason == "unreadable"


def test_a_link_in_place_of_the_lock_is_not_followed(directory, tmp_path):
    os.mkdir(directory)
    (tmp_path / "victim").write_text("precious")
    os.symlink(tmp_path / "victim", f"{directory}/state.lock")
    with pytest.raises(StoreError):
        Guard(directory)
    assert (tmp_path / "victim").read_text() == "precious"


def test_the_second_in_the_same_process_is_refused(directory):
    with guard(directory), pytest.raises(StoreError, match=f"in use by process {os.getpid()}") as caught:
        Guard(directory)
    assert caught.value.reason == "locked"


def test_another_process_is_refused_and_names_the_holder(directory):
    script = f"from sealane.store.guard import Guard; Guard({directory!r}, 4096); print('held', flush=True); input()"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env
    ) as holder:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(StoreError, match=f"in use by process {holder.pid};"):
            Guard(directory, SMALL)
        holder.kill()
        holder.wait()
    with guard(directory):
        pass


def test_the_lock_is_free_after_close_and_after_a_refusal(directory):
    for _ in range(2):
        with guard(directory):
            pass


def test_a_promise_is_remembered_on_the_same_boot(directory):
    with guard(directory) as held:
        assert (held.noted_revision, held.promised_revision) == (0, 0)
        held.promise(57)
        held.promise(58)
    with guard(directory) as held:
        assert (held.noted_revision, held.promised_revision) == (58, 58)


def test_opening_alone_neither_renews_nor_forgets_a_promise(directory, monkeypatch):
    with guard(directory) as held:
        held.promise(57)
    monkeypatch.setattr("sealane.store.guard._boot_id", lambda: "0" * 36)
    for _ in range(2):
        with guard(directory) as held:
            assert (held.noted_revision, held.promised_revision) == (57, 0)
    monkeypatch.undo()
    with guard(directory) as held:
        assert held.promised_revision == 57


def test_without_a_boot_id_nothing_counts_as_promised(directory, monkeypatch):
    monkeypatch.setattr("sealane.store.guard._BOOT_ID", "/nonexistent")
    with guard(directory) as held:
        held.promise(57)
    with guard(directory) as held:
        assert (held.noted_revision, held.promised_revision) == (57, 0)


def test_a_damaged_line_says_nothing(directory):
    with guard(directory) as held:
        held.promise(1234)
    good = lock_line(directory)
    for position in range(len(good)):
        write_lock_line(directory, good[:position] + bytes([good[position] ^ 1]) + good[position + 1 :])
        with guard(directory) as held:
            assert held.noted_revision in (0, 1234)
    for line in (b"", b"\n", good[:-1], good + good, b"x" * 500):
        write_lock_line(directory, line)
        with guard(directory) as held:
            assert held.noted_revision == 0


def test_the_greatest_revision_fits(directory):
    with guard(directory) as held:
        held.promise((1 << 63) - 1)
    with guard(directory) as held:
        assert held.promised_revision == (1 << 63) - 1


def test_the_reserve_takes_its_space_at_once(directory):
    with guard(directory, RESERVE_BYTES) as held:
        assert not held.has_reserve
        assert held.fill_reserve()
        assert held.has_reserve
        found = os.stat(f"{directory}/state.reserve")
        assert found.st_size == RESERVE_BYTES
        assert found.st_blocks * 512 >= RESERVE_BYTES
    with guard(directory, RESERVE_BYTES) as held:
        assert held.has_reserve


def test_the_reserve_can_be_given_up_and_made_again(directory):
    with guard(directory) as held:
        for _ in range(2):
            held.release_reserve()
            assert not held.has_reserve
            assert "state.reserve" not in os.listdir(directory)
        for _ in range(2):
            assert held.fill_reserve()
            assert held.has_reserve
            assert os.path.getsize(f"{directory}/state.reserve") == SMALL


def test_a_reserve_that_does_not_fit_is_not_made_by_half(directory):
    with guard(directory, 1 << 60) as held:
        assert not held.fill_reserve()
        assert not held.has_reserve
        assert "state.reserve" not in os.listdir(directory)


@pytest.mark.parametrize(
    ("damage", "what"), [(os.unlink, "gone"), (lambda path: os.truncate(path, 0), "empty")]
)
def test_a_database_that_was_there_is_not_made_again(directory, damage, what):
    with guard(directory) as held:
        held.create_database("state.db")
        held.create_database("state.db")
        held.promise(3)
    with open(f"{directory}/state.db", "wb") as file:
        file.write(b"content")
    with guard(directory) as held:
        held.create_database("state.db")
    damage(f"{directory}/state.db")
    before = os.listdir(directory)
    with guard(directory) as held:
        with pytest.raises(StoreError, match=rf"state\.db is {what}, it was at revision 3") as caught:
            held.create_database("state.db")
        assert caught.value.reason == "corrupt"
        assert os.listdir(directory) == before
