"""What is on disk and what it means when nobody is alive any more."""

import os
import pathlib
import subprocess
import sys
import threading

import msgspec
import pytest

from sealane.containers import process, store
from sealane.containers.errors import ConflictError, NotFoundError, UnreadableError
from sealane.containers.spec import ContainerSpec
from sealane.containers.store import StatusFile, Store, Stored

SPEC = ContainerSpec(id="web1", name="web", command=("true",))


@pytest.fixture
def disk(tmp_path):
    return Store(str(tmp_path / "state"), str(tmp_path / "run"))


def save(disk, status=None, spec=SPEC):
    with disk.locked(spec.id, create=True):
        disk.save(Stored(spec, ("note",)))
        if status:
            with open(disk.paths(spec.id).status, "wb") as file:
                file.write(msgspec.json.encode(status))


def test_folders_are_private(disk, tmp_path):
    assert os.stat(tmp_path / "state" / "containers").st_mode & 0o777 == 0o700


def test_a_stored_spec_is_listed_and_read_back(disk):
    save(disk)
    assert disk.ids() == ["web1"]
    assert disk.stored("web1") == Stored(SPEC, ("note",))
    state = disk.state("web1")
    assert (state.status, state.name, state.warnings, state.supervised) == (
        "created",
        "web",
        ("note",),
        False,
    )


def test_half_made_containers_are_traces_but_not_listed(disk):
    os.makedirs(disk.paths("half").state_folder)
    os.makedirs(disk.paths("run-only").run_folder)
    os.makedirs(os.path.join(disk.runtime_root, "runtime-only"))
    assert disk.ids() == []
    assert disk.traces() == {"half", "run-only", "runtime-only"}


@pytest.mark.parametrize("text", ["", "..", "../x", "a/b", ".hidden", "nosuch"])
def test_what_is_no_container_is_not_found(disk, text):
    with pytest.raises(NotFoundError):
        disk.state(text)


def test_running_needs_a_live_first_process(disk):
    me = process.identify(os.getpid())
    save(disk, StatusFile(status="running", pid=os.getpid(), init=me, shim=me))
    state = disk.state("web1")
    assert (state.status, state.pid, state.supervised) == ("running", os.getpid(), False)
    assert state.is_lost
    assert "supervisor was killed" in state.error


@pytest.mark.parametrize("status", ["running", "restarting", "created"])
def test_without_shim_and_process_it_has_ended(disk, status):
    gone = {"pid": 1, "start_time": 1, "boot_id": "another boot"}
    save(disk, StatusFile(status=status, pid=1, init=gone, shim=gone))
    state = disk.state("web1")
    assert (state.status, state.pid, state.exit_code, state.is_lost) == ("exited", 0, 137, True)
    assert "machine restarted" in state.error


def test_a_held_lock_means_supervised(disk):
    save(disk, StatusFile(status="restarting", exit_code=3))
    os.makedirs(disk.paths("web1").run_folder)
    lock = process.take_lock(disk.paths("web1").lock)
    state = disk.state("web1")
    os.close(lock)
    assert (state.status, state.supervised, state.exit_code) == ("restarting", True, 3)


def test_a_torn_status_counts_as_none(disk):
    save(disk)
    with open(disk.paths("web1").status, "w", encoding="ascii") as file:
        file.write('{"status":')
    assert disk.status_file("web1") is None


def test_erase_leaves_nothing_and_may_be_repeated(disk):
    save(disk, StatusFile(status="exited"))
    os.makedirs(disk.paths("web1").run_folder)
    os.makedirs(os.path.join(disk.runtime_root, "web1"))
    disk.erase("web1")
    disk.erase("web1")
    assert disk.traces() == set()


def test_one_verb_at_a_time(disk, monkeypatch):
    save(disk)
    monkeypatch.setattr(store, "LOCK_TIMEOUT_S", 0.05)
    with disk.locked("web1"), pytest.raises(ConflictError, match="busy"), disk.locked("web1"):
        pass
    with disk.locked("web1"):
        pass


def test_a_waiter_gets_the_lock_of_the_new_folder(disk):
    """A verb that waited while the container was removed must not work on the removed folder."""
    save(disk)
    entered, order = threading.Event(), []

    def create_again() -> None:
        with disk.locked("web1", create=True):
            order.append("made")
            disk.save(Stored(SPEC))

    with disk.locked("web1"):
        thread = threading.Thread(target=create_again)
        thread.start()
        entered.wait(0.05)
        disk.erase("web1")
        order.append("erased")
    thread.join()
    assert order == ["erased", "made"]
    assert disk.ids() == ["web1"]


def test_a_folder_may_go_at_any_moment_of_its_being_made(disk, monkeypatch):
    """It is there to who makes it, and gone to who opens it."""
    save(disk)
    folder, open_, removals = disk.paths("web1").state_folder, os.open, iter([True, True])

    def late(path, *arguments, **options):
        if path == folder and next(removals, False):
            disk.erase("web1")
        return open_(path, *arguments, **options)

    monkeypatch.setattr(os, "open", late)
    with disk.locked("web1", create=True):
        assert os.path.isdir(folder)
    assert next(removals, None) is None


def test_what_was_there_and_is_gone_at_a_second_look_is_made(disk, monkeypatch):
    """As `makedirs` looks, where `mkdir` says that there is something."""
    save(disk)
    is_dir = os.path.isdir
    monkeypatch.setattr(
        os.path, "isdir", lambda path: path != disk.paths("web1").state_folder and is_dir(path)
    )
    with disk.locked("web1", create=True):
        pass


def test_locking_what_does_not_exist_makes_nothing(disk):
    with pytest.raises(NotFoundError), disk.locked("nosuch"):
        pass
    assert disk.traces() == set()


FIRST_USE = """
import sys, threading
import msgspec
from sealane.containers.spec import ContainerSpec
from sealane.containers.store import Store, Stored

disk = Store(sys.argv[1], sys.argv[2])
with disk.locked("web1", create=True):
    disk.save(Stored(ContainerSpec(id="web1", name="web", command=("true",))))
together = threading.Barrier(4)
sys.setswitchinterval(1e-6)

def ask():
    together.wait()
    disk.state("web1")

askers = [threading.Thread(target=ask) for _ in range(4)]
for asker in askers:
    asker.start()
for asker in askers:
    asker.join()
"""


def test_the_first_to_read_may_be_several_at_once(tmp_path):
    """A daemon that has just started reads its containers on a thread while a client lists them. With types that are
    learnt on first use a third of these processes died of SIGSEGV."""
    arguments = [sys.executable, "-c", FIRST_USE, str(tmp_path / "state"), str(tmp_path / "run")]
    assert [subprocess.run(arguments, check=False).returncode for _ in range(12)] == [0] * 12


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"spec": {"id": 1}}', b"\xff"])
def test_one_whose_record_is_damaged_is_dead_and_hinders_nobody(disk, damage):
    save(disk)
    pathlib.Path(disk.paths("web1").spec).write_bytes(damage)
    state = disk.state("web1")
    assert (state.status, state.pid, state.supervised) == ("dead", 0, False)
    assert "cannot be read" in state.error
    assert disk.ids() == ["web1"]
    with pytest.raises(UnreadableError, match="record of container web1"):
        disk.stored("web1")
    disk.erase("web1")
    assert disk.ids() == []
