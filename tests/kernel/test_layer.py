"""A container's writable root over an image, on the real kernel: overlay or copy, and nothing mounted after it."""

import errno
import os
import stat
from pathlib import Path

import pytest

from sealane.containers import layer
from sealane.containers.errors import ContainerError

pytestmark = pytest.mark.kernel


@pytest.fixture(params=["plain", "with, comma", "co:lon", "back\\slash", 'qu"ote '])
def places(request, tmp_path):
    """Image, state and mount point, by names that mount's options would misread."""
    top = tmp_path / request.param
    lower = top / "image"
    (lower / "etc").mkdir(parents=True)
    (lower / "etc" / "file").write_text("image")
    (lower / "tmp").mkdir(mode=0o777)
    (lower / "tmp").chmod(0o1777)
    lower.chmod(0o711)
    target = top / "rootfs"
    yield lower, top / "layer", target
    layer.unmount_layer(str(target))


def mount(places):
    lower, folder, target = places
    layer.mount_layer(str(lower), str(folder), str(target), in_user_namespace=False)
    return target


def mounted(target: Path) -> list[str]:
    """Kinds and options of what is mounted there."""
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        lines = [line.split() for line in file]
    name = str(target).replace("\\", "\\134").replace(" ", "\\040")
    return [f"{fields[fields.index('-') + 1]} {fields[5]}" for fields in lines if fields[4] == name]


@pytest.fixture
def no_overlay(monkeypatch):
    def refuse(*_, **__):
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(layer, "_mount_overlay", refuse)


def write_and_find_again(places):
    lower, _folder, target = places
    mount(places)
    assert (target / "etc" / "file").read_text() == "image"
    (target / "etc" / "file").write_text("mine")
    (target / "new").write_text("new")
    (target / "tmp").rmdir()
    layer.unmount_layer(str(target))
    assert mounted(target) == []
    assert os.listdir(target) == []
    mount(places)
    assert ((target / "etc" / "file").read_text(), (target / "new").read_text()) == ("mine", "new")
    assert not (target / "tmp").exists()
    assert (lower / "etc" / "file").read_text() == "image"
    assert sorted(os.listdir(lower)) == ["etc", "tmp"]


def test_an_overlay_keeps_what_is_written_and_the_image_as_it_was(places):
    write_and_find_again(places)
    assert [kind.split()[0] for kind in mounted(places[2])] == ["overlay"]
    assert sorted(os.listdir(places[1])) == ["upper", "work"]


def test_a_copy_does_so_too(places, no_overlay):
    write_and_find_again(places)
    assert os.listdir(places[1]) == ["copy"]


@pytest.mark.parametrize("by_copy", [False, True])
def test_the_root_has_the_images_mode_and_device_files_open_nothing(places, by_copy, request):
    if by_copy:
        request.getfixturevalue("no_overlay")
    lower, _folder, _target = places
    os.mknod(lower / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    target = mount(places)
    assert stat.S_IMODE(target.stat().st_mode) == 0o711
    assert stat.S_IMODE((target / "tmp").stat().st_mode) == 0o1777
    assert "nodev" in mounted(target)[-1]
    with pytest.raises(PermissionError):
        (target / "null").read_bytes()


def test_what_began_as_a_copy_stays_one(places, monkeypatch):
    with monkeypatch.context() as patched:

        def refuse(*_, **__):
            raise OSError(22, "Invalid argument")

        patched.setattr(layer, "_mount_overlay", refuse)
        (mount(places) / "new").write_text("x")
    layer.unmount_layer(str(places[2]))
    assert (mount(places) / "new").read_text() == "x"


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENODEV, errno.ENOMEM])
def test_what_was_written_to_an_overlay_is_not_left_for_a_copy(places, monkeypatch, number):
    """As after a kernel without overlayfs, or whose memory was short for a moment."""
    (mount(places) / "new").write_text("precious")
    layer.unmount_layer(str(places[2]))

    def refuse(*_, **__):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        patched.setattr(layer, "_mount", refuse)
        with pytest.raises(ContainerError, match=f"what the container has written .*{os.strerror(number)}"):
            mount(places)
    assert sorted(os.listdir(places[1])) == ["upper", "work"]
    assert (mount(places) / "new").read_text() == "precious"


def test_what_passes_is_no_reason_to_copy(places, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    with monkeypatch.context() as patched:
        patched.setattr(layer, "_mount", refuse)
        with pytest.raises(OSError, match="Cannot allocate memory"):
            mount(places)
    mount(places)
    assert [kind.split()[0] for kind in mounted(places[2])] == ["overlay"]


def test_a_copy_that_was_killed_half_way_is_begun_anew(places, no_overlay):
    lower, folder, target = places
    (folder / "copying" / "etc").mkdir(parents=True)
    (folder / "copying" / "half").write_text("x")
    mount(places)
    assert sorted(os.listdir(target)) == sorted(os.listdir(lower))


def test_a_copy_that_fails_is_told_and_leaves_no_root(places, no_overlay, monkeypatch):
    lower, folder, target = places
    real = layer.subprocess.run
    monkeypatch.setattr(layer.subprocess, "run", lambda words, **more: real(["cp", "/nowhere", "/"], **more))
    with pytest.raises(ContainerError, match="cannot be copied"):
        mount(places)
    assert mounted(target) == []
    assert "copy" not in os.listdir(folder)


def test_unmounting_what_is_not_mounted_is_no_error(tmp_path):
    layer.unmount_layer(str(tmp_path))
    layer.unmount_layer(str(tmp_path / "none"))


def test_a_mount_that_is_in_use_goes_all_the_same(places):
    target = mount(places)
    with open(target / "etc" / "file", encoding="utf-8") as file:
        layer.unmount_layer(str(target))
        assert mounted(target) == []
        assert file.read() == "image"
