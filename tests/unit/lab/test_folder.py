"""A lab's directory and its lock."""

import os

import pytest

from sealane.containers.cgroups import Cgroups
from sealane.lab.folder import Folder, LabError, labs, remove_group, root_folder
from sealane.lab.plan import plan_lab
from sealane.lab.read import read_lab


@pytest.fixture
def folder(tmp_path):
    return Folder(str(tmp_path / "root"), "demo")


def test_the_lock_is_held_by_one(folder):
    first = folder.lock(make=True)
    assert first is not None
    assert folder.lock() is None
    os.close(first)
    second = folder.lock()
    assert second is not None
    os.close(second)


def test_a_lab_that_never_was_has_no_lock(folder):
    with pytest.raises(FileNotFoundError):
        folder.lock()
    assert not os.path.exists(folder.path)


def test_the_lock_of_a_removed_lab_is_not_that_of_the_next(folder):
    old = folder.lock(make=True)
    folder.remove()
    new = folder.lock(make=True)
    assert new is not None
    assert (folder.is_locked_by(old), folder.is_locked_by(new)) == (False, True)
    os.close(old)
    os.close(new)


def test_removal_leaves_nothing_and_may_be_repeated(folder):
    lock = folder.lock(make=True)
    folder.write_plan(plan_lab(read_lab("hosts: 1"), "demo"))
    os.makedirs(f"{folder.node('h1')}/state")
    folder.remove()
    assert not os.path.exists(folder.root)
    folder.remove()
    os.close(lock)


def test_removal_spares_other_labs(folder):
    other = Folder(folder.root, "other")
    locks = [folder.lock(make=True), other.lock(make=True)]
    folder.remove()
    assert labs(folder.root) == ["other"]
    for lock in locks:
        os.close(lock)


def test_a_plan_is_read_as_it_was_written(folder):
    os.close(folder.lock(make=True))
    plan = plan_lab(read_lab("hosts: 2\netcd: {members: 1}"), "demo")
    folder.write_plan(plan)
    assert folder.read_plan() == plan


@pytest.mark.parametrize("token", ["", "../../sealane", "0123456789a", "0123456789abc", "0123/56789ab"])
def test_a_token_that_is_none_names_no_control_group(folder, token):
    os.close(folder.lock(make=True))
    with open(f"{folder.path}/token", "w", encoding="ascii") as file:
        file.write(token)
    assert folder.group() == ""


def test_a_control_group_goes_with_all_below_it(tmp_path):
    for hierarchy in ("memory", "pids"):
        os.makedirs(tmp_path / hierarchy / "sealane-lab-x" / "h1" / "sealane" / "c")
        os.makedirs(tmp_path / hierarchy / "sealane" / "mine")
    found = Cgroups("v1", {name: str(tmp_path / name) for name in ("memory", "pids")})
    remove_group(found, "/sealane-lab-x")
    for hierarchy in ("memory", "pids"):
        assert os.listdir(tmp_path / hierarchy) == ["sealane"]
        assert os.listdir(tmp_path / hierarchy / "sealane") == ["mine"]


def test_the_end_of_a_log_is_one_line(folder):
    os.close(folder.lock(make=True))
    with open(folder.log, "w", encoding="utf-8") as file:
        file.write("".join(f"line {number}\n" for number in range(9)))
    assert folder.log_end(folder.log, 2) == "line 7 | line 8"
    assert folder.log_end("/nonexistent") == ""


def test_names_of_labs_leave_out_what_is_being_removed(tmp_path):
    for name in ("b", "a", ".a-123"):
        (tmp_path / name).mkdir()
    (tmp_path / "file").touch()
    assert labs(str(tmp_path)) == ["a", "b"]
    assert labs(str(tmp_path / "none")) == []


def test_a_user_has_a_directory_of_his_own(monkeypatch):
    assert root_folder({}) == "/run/sealane-lab"
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert root_folder({"XDG_RUNTIME_DIR": "/run/user/1000"}) == "/run/user/1000/sealane-lab"
    for environ in ({}, {"XDG_RUNTIME_DIR": ""}, {"XDG_RUNTIME_DIR": "relative"}):
        with pytest.raises(LabError):
            root_folder(environ)
