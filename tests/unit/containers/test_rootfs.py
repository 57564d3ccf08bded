"""The container's root: what of the host is shown, what is hidden, which mount targets can be made."""

import os

import pytest

from sealane.containers import rootfs
from sealane.containers.errors import SpecError
from sealane.containers.publicetc import copy_etc
from sealane.containers.rootfs import prepare_root
from sealane.containers.spec import Bind, ContainerSpec, Tmpfs


def prepare(tmp_path, *mounts, rootfs="host", own=(), init=False, **more):
    spec = ContainerSpec(
        id="a", name="a", command=("x",), rootfs=str(rootfs), mounts=mounts, init=init, **more
    )  # fmt: skip
    return prepare_root(spec, str(tmp_path / "root"), str(tmp_path / "etc"), own)


def targets(root, kind):
    return {mount["destination"] for mount in root.mounts if mount["type"] == kind}


def test_programs_are_shown_read_only_with_their_submounts(tmp_path):
    root = prepare(tmp_path)
    assert "/usr" in targets(root, "bind") <= set(rootfs.SHOWN)
    assert all("rro" in mount["options"] for mount in root.mounts if mount["type"] == "bind")
    assert root.read_only


def test_only_what_is_listed_is_there(tmp_path):
    prepare(tmp_path)
    listed = {place.split("/")[1] for place in (*rootfs.SHOWN, *rootfs._PRIVATE, *rootfs._EMPTY, "/etc")}
    assert set(os.listdir(tmp_path / "root")) <= listed
    for place in rootfs._EMPTY:
        assert os.listdir(f"{tmp_path}/root{place}") == []


def test_private_folders_are_memory(tmp_path):
    root = prepare(tmp_path)
    assert targets(root, "tmpfs") == {"/tmp", "/run", "/root", "/home", "/var/tmp", "/var/log"}


def test_links_at_the_top_are_copied_as_links(tmp_path):
    prepare(tmp_path)
    links = [entry for entry in os.scandir("/") if entry.is_symlink() and entry.path in rootfs.SHOWN]
    assert {"bin", "lib", "sbin"} <= {link.name for link in links}
    for link in links:
        assert os.readlink(tmp_path / "root" / link.name) == os.readlink(link.path)


def test_preparing_twice_is_fine(tmp_path):
    mounts = (Tmpfs(target="/made-up/x"), Bind(source="/etc/passwd", target="/made-up/file"))
    assert prepare(tmp_path, *mounts) == prepare(tmp_path, *mounts)


@pytest.mark.parametrize("place", ["/usr/local/engine", "/usr/bin", "/bin/engine", "/usr"])
def test_the_engines_own_places_are_in_none_that_is_shown(tmp_path, place):
    with pytest.raises(SpecError, match=f"rootfs: the daemon keeps {place} in /"):
        prepare(tmp_path, own=("/var/lib/engine", place))
    (tmp_path / "image").mkdir()
    prepare(tmp_path, rootfs=tmp_path / "image", own=(place,))


@pytest.mark.parametrize("place", ["/usrlocal", "/var/lib/engine", "/"])
def test_elsewhere_they_are_not_seen(tmp_path, place):
    prepare(tmp_path, own=(place,))


def test_new_targets_are_made_in_the_containers_root_never_on_the_host(tmp_path):
    (tmp_path / "file").touch()
    root = prepare(
        tmp_path, Bind(source=str(tmp_path / "file"), target="/made-up/file"), Tmpfs(target="/mnt/deep/x")
    )
    assert root.files == {"/made-up/file"}
    assert os.path.isfile(tmp_path / "root" / "made-up" / "file")
    assert os.path.isdir(tmp_path / "root" / "mnt" / "deep" / "x")
    assert not os.path.exists("/made-up")


def test_a_target_in_a_folder_of_programs_has_to_exist(tmp_path):
    prepare(tmp_path, Bind(source="/etc/passwd", target="/usr/bin/env"))
    for target in ("/usr/made-up", "/bin/made-up"):
        with pytest.raises(SpecError, match=rf"mounts\[0\]\.target: {target} does not exist on the host"):
            prepare(tmp_path, Tmpfs(target=target))


def test_targets_in_etc_and_var_are_made(tmp_path):
    prepare(
        tmp_path, Bind(source="/etc/passwd", target="/etc/made-up/file"), Tmpfs(target="/var/lib/made-up")
    )
    assert os.path.isfile(tmp_path / "root" / "etc" / "made-up" / "file")
    assert os.path.isdir(tmp_path / "root" / "var" / "lib" / "made-up")
    assert not os.path.exists("/etc/made-up")


def test_a_link_in_the_new_root_leads_nothing_out_of_it(tmp_path, monkeypatch):
    """It is a path of the container's, and would be one of the host's to who makes the target."""
    outside = tmp_path / "outside"
    outside.mkdir()
    monkeypatch.setattr(rootfs, "_LINKS", {"/var/run": str(outside)})

    def copy_with_a_link(source, target, **more):
        copy_etc(source, target, **more)
        os.symlink(outside / "zone", f"{target}/zone")

    monkeypatch.setattr(rootfs, "copy_etc", copy_with_a_link)
    with pytest.raises(SpecError, match=r"mounts\[0\]\.target: /var/run is a link to .*/outside"):
        prepare(tmp_path, Tmpfs(target="/var/run/deep"))
    prepare(tmp_path, Bind(source="/etc/passwd", target="/etc/zone"))
    assert os.listdir(outside) == []
    assert not os.path.islink(tmp_path / "root" / "etc" / "zone")


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
    assert (root.path, root.read_only, root.mounts) == (str(tmp_path / "image"), True, ())
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


def test_private_folders_have_their_usual_modes(tmp_path):
    prepare(tmp_path, Tmpfs(target="/made-up", mode=0o700))
    modes = {
        name: os.stat(tmp_path / "root" / name).st_mode & 0o7777 for name in ("tmp", "root", "usr", "made-up")
    }
    assert modes == {"tmp": 0o1777, "root": 0o700, "usr": 0o755, "made-up": 0o700}
