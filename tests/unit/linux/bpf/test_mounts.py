"""Finding the cgroup v2 hierarchy in mountinfo, and the directories of pins."""

from __future__ import annotations

import pytest

from sealane.linux.bpf import mounts

HYBRID = """\
24 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 24 0:26 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
31 30 0:27 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
40 30 0:36 / /sys/fs/cgroup/unified rw,relatime shared:9 master:3 - cgroup2 cgroup2 rw
"""
UNIFIED = "30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
SPACE = "30 24 0:26 / /mnt/a\\040b rw - cgroup2 none rw\n"
BOUND_CHILD = "30 24 0:26 /child /mnt/child rw - cgroup2 none rw\n"


@pytest.mark.parametrize(
    ("mountinfo", "path"),
    [
        (HYBRID, "/sys/fs/cgroup/unified"),
        (UNIFIED, "/sys/fs/cgroup"),
        (SPACE, "/mnt/a b"),
        (BOUND_CHILD + UNIFIED, "/sys/fs/cgroup"),
        (BOUND_CHILD, None),
        ("24 1 254:0 / /cgroup2 rw - ext4 cgroup2 rw\n", None),
        ("", None),
    ],
    ids=["hybrid", "unified", "escaped", "bound child first", "bound child", "named only", "empty"],
)
def test_the_root_of_the_hierarchy_is_found(mountinfo, path):
    assert mounts.find_cgroup2(mountinfo) == path


def test_an_ordinary_directory_is_not_on_a_bpffs(tmp_path):
    assert not mounts.on_bpffs(str(tmp_path))


def test_an_absent_directory_is_an_error_that_names_it(tmp_path):
    with pytest.raises(FileNotFoundError, match="gone"):
        mounts.on_bpffs(str(tmp_path / "gone"))


def test_removing_twice_is_no_error(tmp_path):
    path = tmp_path / "pins"
    path.mkdir()
    mounts.remove_bpffs(str(path))
    assert not path.exists()
    mounts.remove_bpffs(str(path))


def test_what_others_put_into_the_directory_is_not_removed(tmp_path):
    (tmp_path / "theirs").write_text("kept")
    with pytest.raises(OSError, match="not empty"):
        mounts.remove_bpffs(str(tmp_path))
    assert (tmp_path / "theirs").exists()
