"""Which control groups a machine has, read from the text of /proc/self/mountinfo; groups as plain folders."""

import os

import pytest

from harness.cgroup_limits import read_limits
from sealane.containers.cgroups import (
    Cgroups,
    children,
    has_swap_limit,
    oom_file,
    parse_mounts,
    remove_empty,
    why_unusable,
)

V1 = """31 24 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid - cgroup cgroup rw,cpu,cpuacct
32 24 0:28 / /sys/fs/cgroup/memory rw,nosuid shared:9 master:2 - cgroup cgroup rw,memory
33 24 0:29 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
34 24 0:30 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,release_agent=/lib/x,name=systemd
"""
V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
UNIFIED = "35 24 0:31 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
OTHER = "22 1 8:1 / / rw - ext4 /dev/sda1 rw\nbroken\n"


def test_v1_lists_every_controller_also_those_mounted_together():
    seen = parse_mounts(OTHER + V1)
    assert seen.mode == "v1"
    assert set(seen.folders) == {"cpu", "cpuacct", "memory", "pids", "name=systemd"}
    assert seen.folders["cpu"] == seen.folders["cpuacct"]


def test_v1_beside_an_empty_v2_tree_is_hybrid():
    seen = parse_mounts(V1 + UNIFIED)
    assert seen.mode == "hybrid"
    assert "/sys/fs/cgroup/unified/sealane/x" in seen.group_folders("/sealane/x")


def test_only_systemds_own_v1_tree_beside_v2_is_v2():
    systemd = V1.splitlines()[3] + "\n"
    assert parse_mounts(systemd + V2).mode == "v2"


def test_v2_is_one_folder_for_all_controllers():
    seen = parse_mounts(V2)
    assert seen.mode == "v2"
    assert seen.folder_of("memory", "/g") == seen.folder_of("pids", "/g") == "/sys/fs/cgroup/g"


def test_none_is_none():
    seen = parse_mounts(OTHER)
    assert seen.mode == "none"
    assert why_unusable(seen) == "no cgroup file system is mounted"
    assert oom_file(seen, "/g") == ""


def test_folders_are_listed_once_although_controllers_share_them():
    folders = parse_mounts(V1).group_folders("/g")
    assert len(folders) == len(set(folders)) == 4


def test_a_missing_controller_is_named(tmp_path):
    assert (
        why_unusable(Cgroups("v1", {"memory": str(tmp_path)})) == "the cgroup controller cpu is not mounted"
    )


def test_v2_without_the_controllers_is_named(tmp_path):
    (tmp_path / "cgroup.controllers").write_text("cpu io\n")
    assert (
        why_unusable(Cgroups("v2", {"": str(tmp_path)}))
        == "the cgroup controllers memory, pids are not available"
    )
    (tmp_path / "cgroup.controllers").write_text("cpu io memory pids\n")
    assert why_unusable(Cgroups("v2", {"": str(tmp_path)})) == ""


def test_limits_are_read_back_in_v2(tmp_path):
    (tmp_path / "g").mkdir()
    (tmp_path / "g" / "cpu.max").write_text("50000 100000\n")
    (tmp_path / "g" / "memory.max").write_text("67108864\n")
    (tmp_path / "g" / "pids.max").write_text("max\n")
    limits = read_limits(Cgroups("v2", {"": str(tmp_path)}), "/g")
    assert limits == {"memory_bytes": 67108864, "cpus": 0.5, "pids": None}


def test_limits_are_read_back_in_v1(tmp_path):
    (tmp_path / "g").mkdir()
    (tmp_path / "g" / "cpu.cfs_quota_us").write_text("-1\n")
    (tmp_path / "g" / "cpu.cfs_period_us").write_text("100000\n")
    (tmp_path / "g" / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    (tmp_path / "g" / "pids.max").write_text("20\n")
    seen = Cgroups("v1", dict.fromkeys(("cpu", "memory", "pids"), str(tmp_path)))
    assert read_limits(seen, "/g") == {"memory_bytes": None, "cpus": None, "pids": 20}


def test_a_group_that_is_gone_has_no_limits(tmp_path):
    seen = Cgroups("v2", {"": str(tmp_path)})
    assert read_limits(seen, "/gone") == {"memory_bytes": None, "cpus": None, "pids": None}


def test_swap_can_be_limited_if_the_kernel_accounts_for_it(tmp_path):
    seen = Cgroups("v1", {"memory": str(tmp_path)})
    assert not has_swap_limit(seen)
    (tmp_path / "memory.memsw.limit_in_bytes").touch()
    assert has_swap_limit(seen)


@pytest.mark.parametrize(
    ("mode", "key", "name"), [("v1", "memory", "memory.oom_control"), ("v2", "", "memory.events")]
)
def test_oom_kills_are_counted_in_this_file(mode, key, name):
    assert oom_file(Cgroups(mode, {key: "/c"}), "/g") == f"/c/g/{name}"


def test_groups_are_removed_in_every_hierarchy_and_twice_is_fine(tmp_path):
    seen = Cgroups("v1", {"a": str(tmp_path / "a"), "b": str(tmp_path / "b")})
    os.makedirs(tmp_path / "a" / "g" / "c1")
    os.makedirs(tmp_path / "b" / "g" / "c2")
    assert children(seen, "/g") == {"c1", "c2"}
    assert not remove_empty(seen, "/g")
    assert remove_empty(seen, "/g/c1")
    assert remove_empty(seen, "/g/c2")
    assert remove_empty(seen, "/g")
    assert remove_empty(seen, "/g")
    assert children(seen, "/g") == set()
