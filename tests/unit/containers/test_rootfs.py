"""The container's root: what of the host is shown, what is hidden, which mount targets can be made."""

import os

import pytest

from sealane.containers import rootfs
from sealane.containers.errors import SpecError
from sealane.containers.rootfs import prepare_root
from sealane.containers.spec import Bind, ContainerSpec, Tmpfs


def prepare(tmp_path, *mounts, rootfs="host", hidden=(), init=False, **more):
    spec = ContainerSpec(
        id="a", name="a", command=("x",), rootfs=str(rootfs), mounts=mounts, init=init, **more
    )  # fmt: skip
    return prepare_root(spec, str(tmp_path / "root"), str(tmp_path / "etc"), hidden)


def targets(root, kind):
    return {mount["destination"] for mount in root.mounts if mount["type"] == kind}


def test_the_hosts_folders_are_shown_read_only_with_their_submounts(tmp_path):
    root = prepare(tmp_path)
    assert {"/usr", "/etc", "/var"} <= targets(root, "bind")
    assert all("rro" in mount["options"] for mount in root.mounts if mount["type"] == "bind")
    assert root.read_only


def test_private_and_kernel_folders_of_the_host_are_not_shown(tmp_path):
    root = prepare(tmp_path)
    assert not {"/tmp", "/run", "/root", "/home", "/proc", "/sys", "/dev", "/mnt", "/boot"} & targets(
        root, "bind"
    )
    assert {"/tmp", "/run", "/root", "/home", "/var/tmp", "/var/log"} <= targets(root, "tmpfs")


def test_links_at_the_top_are_copied_as_links(tmp_path):
    prepare(tmp_path)
    links = [entry for entry in os.scandir("/") if entry.is_symlink()]
    assert {"bin", "lib", "sbin"} <= {link.name for link in links}
    for link in links:
        assert os.readlink(tmp_path / "root" / link.name) == os.readlink(link.path)


def test_preparing_twice_is_fine(tmp_path):
    mounts = (Tmpfs(target="/made-up/x"), Bind(source="/etc/passwd", target="/made-up/file"))
    assert prepare(tmp_path, *mounts) == prepare(tmp_path, *mounts)


def test_secrets_and_the_engines_own_folders_are_masked(tmp_path):
    (tmp_path / "own").mkdir()
    root = prepare(tmp_path, hidden=(str(tmp_path / "own"), str(tmp_path / "none")))
    assert "/etc/shadow" in root.masked
    assert str(tmp_path / "own") in root.masked
    assert str(tmp_path / "none") not in root.masked


def test_new_targets_are_made_in_the_containers_root_never_on_the_host(tmp_path):
    (tmp_path / "file").touch()
    root = prepare(
        tmp_path, Bind(source=str(tmp_path / "file"), target="/made-up/file"), Tmpfs(target="/mnt/deep/x")
    )
    assert root.files == {"/made-up/file"}
    assert os.path.isfile(tmp_path / "root" / "made-up" / "file")
    assert os.path.isdir(tmp_path / "root" / "mnt" / "deep" / "x")
    assert not os.path.exists("/made-up")


def test_a_target_in_a_read_only_folder_has_to_exist(tmp_path):
    prepare(tmp_path, Bind(source="/etc/passwd", target="/etc/passwd"))
    with pytest.raises(SpecError, match=r"mounts\[0\]\.target: /usr/made-up does not exist on the host"):
        prepare(tmp_path, Tmpfs(target="/usr/made-up"))


def test_targets_in_private_folders_are_made_by_the_runtime(tmp_path):
    prepare(tmp_path, Tmpfs(target="/tmp/made-up"), Tmpfs(target="/run/made-up"))
    assert not os.path.exists(tmp_path / "root" / "tmp" / "made-up")
    assert not os.path.exists(tmp_path / "root" / "run" / "made-up")
    assert not os.path.exists("/tmp/made-up")


def test_a_missing_source_is_named(tmp_path):
    with pytest.raises(SpecError, match=r"mounts\[1\]\.source: /made-up does not exist"):
        prepare(tmp_path, Tmpfs(target="/a"), Bind(source="/made-up", target="/b"))


def test_a_folder_is_used_as_it_is(tmp_path):
    (tmp_path / "image").mkdir()
    root = prepare(tmp_path, rootfs=tmp_path / "image", read_only=True)
    assert (root.path, root.read_only, root.mounts, root.masked) == (str(tmp_path / "image"), True, (), ())
    assert set(root.etc) == {"/etc/hosts", "/etc/resolv.conf", "/etc/hostname"}


def test_a_root_that_is_no_folder_is_named(tmp_path):
    with pytest.raises(SpecError, match="rootfs: "):
        prepare(tmp_path, rootfs=tmp_path / "none")


def test_a_missing_init_program_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SpecError, match="init: none of tini"):
        prepare(tmp_path, init=True)


def test_an_init_program_is_found(tmp_path, monkeypatch):
    tini = tmp_path / "tini"
    tini.write_text("#!/bin/sh\n")
    tini.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert prepare(tmp_path, init=True).init == str(tini)


def test_top_level_folders_of_the_host_are_all_accounted_for():
    assert not set(rootfs._PRIVATE) & set(rootfs._LEFT_EMPTY)


def test_private_folders_have_their_usual_modes(tmp_path):
    prepare(tmp_path, Tmpfs(target="/made-up", mode=0o700))
    modes = {
        name: os.stat(tmp_path / "root" / name).st_mode & 0o7777 for name in ("tmp", "root", "usr", "made-up")
    }
    assert modes == {"tmp": 0o1777, "root": 0o700, "usr": 0o755, "made-up": 0o700}
