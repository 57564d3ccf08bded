"""What is said of a container that lacks a guard."""

import msgspec
import pytest

from sealane.containers.cgroups import Cgroups
from sealane.containers.host import Host
from sealane.containers.oci import HostFacts, confined
from sealane.containers.spec import ContainerSpec, Limits
from sealane.containers.warnings import ignored_limits, warnings

REASON = "no cgroup file system is mounted"


def host(*, group="", in_user_namespace=False, seccomp=True):
    facts = HostFacts(
        in_user_namespace=in_user_namespace, cgroups="v2", cgroup_path=group, swap_limit=False, seccomp=seccomp,
        machine="x86_64",
    )  # fmt: skip
    return Host(
        runtime=("crun",), runtime_root="/run/x", facts=facts, cgroups=Cgroups("v2"), no_limits="" if group else REASON,
        uid_map=(), gid_map=(),
    )  # fmt: skip


def spec(**changes):
    return ContainerSpec(id="a", name="a", command=("x",), **changes)


def words(found):
    return [line.partition(":")[0] for line in found]


def test_a_plain_container_is_not_warned_of():
    assert warnings(spec(), host()) == warnings(spec(cap_add=("MKNOD",)), host(group="/sealane/a")) == ()


def test_missing_seccomp_is_said():
    assert words(warnings(spec(), host(seccomp=False))) == ["seccomp-missing"]


@pytest.mark.parametrize("name", ["MKNOD", "cap_mknod", "ALL"])
def test_who_asks_for_device_files_without_a_filter_is_told_what_that_is(name):
    [line] = warnings(spec(cap_add=(name,)), host())
    assert line.startswith("devices-open: ")
    assert line.endswith(REASON)
    assert confined(spec(cap_add=(name,)), host().facts) == spec(cap_add=(name,))


def test_in_a_user_namespace_device_files_open_nothing():
    assert warnings(spec(cap_add=("MKNOD",)), host(in_user_namespace=True)) == ()


@pytest.mark.parametrize(
    ("where", "dropped"), [(host(), True), (host(group="/g"), False), (host(in_user_namespace=True), False)]
)
def test_the_right_is_taken_where_nothing_else_stands_before_devices(where, dropped):
    assert ("MKNOD" in confined(spec(), where.facts).cap_drop) is dropped


def test_who_drops_it_himself_is_not_warned_of():
    assert warnings(spec(cap_add=("MKNOD",), cap_drop=("MKNOD",)), host()) == ()


@pytest.mark.parametrize(
    ("limits", "field"),
    [(Limits(pids=5), "pids"), (Limits(cpus=1.0), "cpus"), (Limits(memory_bytes=1 << 30), "memory_bytes")],
)
def test_the_limit_that_cannot_be_set_is_named(limits, field):
    desired = msgspec.structs.replace(spec(), limits=limits)
    assert ignored_limits(desired, host()) == f"limits.{field}: cannot be set here: {REASON}"
    assert ignored_limits(desired, host(group="/g")) == ignored_limits(spec(), host()) == ""
