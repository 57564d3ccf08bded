"""Containers in a user namespace of their own, under each OCI runtime: that what worked goes on working."""

import os
import pathlib
import stat
import subprocess

import pytest

from harness.sessions import ran
from real.test_attacks_containers import (
    INSTANCE,
    mounted,
    output,
    program,
    runtime,
    sandbox,
    start,
    unified_cgroups,
)
from sealane.containers import idmap, stage
from sealane.containers.errors import SpecError
from sealane.containers.health import HealthCheck
from sealane.containers.runtime import Runtime
from sealane.containers.spec import Bind, Tmpfs
from sealane.linux import userns
from sealane.model.idmap import ID_BASE, ID_COUNT

__all__ = ["program", "runtime", "sandbox", "unified_cgroups"]
pytestmark = [pytest.mark.real, pytest.mark.kernel]

if os.geteuid() != 0 or userns.why_not():
    pytest.skip("needs root, and user namespaces", allow_module_level=True)


def owners(path):
    found = os.stat(path)
    return found.st_uid, found.st_gid


def test_ids_inside_are_nobodys_outside(runtime, sandbox):
    start(runtime, "exec sleep 60", user="1000:1000", **sandbox)
    pid = runtime.state("web").pid
    assert owners(f"/proc/{pid}") == (ID_BASE + 1000, ID_BASE + 1000)
    assert os.readlink(f"/proc/{pid}/ns/user") == f"user:[{os.stat(sandbox['userns']).st_ino}]"
    assert os.readlink(f"/proc/{pid}/ns/net") == f"net:[{os.stat(sandbox['netns']).st_ino}]"


def test_ids_that_it_does_not_have_are_refused(runtime, sandbox):
    assert output(runtime, "id -u", user=str(ID_COUNT - 1), **sandbox) == str(ID_COUNT - 1)
    with pytest.raises(SpecError, match=f"user: uid {ID_COUNT} does not exist"):
        start(runtime, "true", user=str(ID_COUNT), **sandbox)


def test_its_own_root_is_roots_inside(runtime, sandbox):
    found = output(runtime, "stat -c '%u:%g %n' / /etc /etc/passwd /root /tmp /etc/hosts /var/lib", **sandbox)
    assert {line.split()[0] for line in found.splitlines()} == {"0:0"}
    assert "Read-only" in output(runtime, "touch /usr/x /etc/x 2>&1", **sandbox)


def test_a_folder_that_is_bound_has_its_owners_on_both_sides(runtime, sandbox, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "own").write_text("own")
    (tmp_path / "data" / "own").chmod(0o600)
    (tmp_path / "file").write_text("file")
    mounts = (
        Bind(source=str(tmp_path / "data"), target="/data"),
        Bind(source=str(tmp_path / "file"), target="/etc/made", read_only=True),
        Tmpfs(target="/cache"),
    )
    script = "cat /data/own /etc/made; touch /data/new /cache/x; chown 7:8 /data/new; stat -c ' %u:%g' /data/new /cache/x"
    assert output(runtime, script, mounts=mounts, **sandbox).split() == ["ownfile", "7:8", "0:0"]
    assert owners(tmp_path / "data" / "new") == (7, 8)


def test_a_folder_keeps_its_owners_though_what_is_mounted_in_it_cannot(runtime, sandbox, tmp_path):
    (tmp_path / "closed" / "proc").mkdir(parents=True)
    (tmp_path / "closed").chmod(0o700)
    (tmp_path / "closed" / "own").write_text("own")
    mounts = (Bind(source=str(tmp_path / "closed"), target="/closed"),)
    with mounted(str(tmp_path / "closed" / "proc"), "-t", "proc", "none"):
        assert output(runtime, "cat /closed/own; touch /closed/new", mounts=mounts, **sandbox) == "own"
    assert owners(tmp_path / "closed" / "new") == (0, 0)


def test_what_cannot_be_shown_with_other_ids_is_shown_as_it_is(runtime, sandbox):
    with open(sandbox["userns"], "rb"):
        assert "cannot be shown with other ids" in idmap.why_not("/proc", sandbox["userns"])
    mounts = (Bind(source="/proc/sys/kernel", target="/kernel", read_only=True),)
    assert output(runtime, "cat /kernel/ostype; stat -c %u /kernel/ostype", mounts=mounts, **sandbox).split() == [
        "Linux", "65534",
    ]  # fmt: skip


def test_files_are_shown_read_only_where_run_is_as_on_a_plain_host(program, sandbox):
    """runc 1.1 leaves out nosuid and nodev when it makes a file read-only, and they are locked in a user namespace."""
    os.makedirs("/run/plain", exist_ok=True)
    with mounted("/run/plain", "-t", "tmpfs", "-o", "nosuid,nodev,noexec", "none"):
        there = Runtime("/run/plain/state", "/run/plain/run", instance=INSTANCE, oci_runtime=program)
        data = pathlib.Path("/run/plain/data")
        data.mkdir()
        (data / "file").write_text("file")
        mounts = (
            Bind(source=str(data / "file"), target="/file", read_only=True),
            Bind(source=str(data), target="/data", read_only=True),
        )
        script = (
            "cat /etc/hostname /file /data/file; for at in /etc/hosts /file /data/x; do touch $at; done 2>&1"
        )
        said = output(there, script, hostname="box", mounts=mounts, **sandbox)
        there.sweep(())
    assert said.startswith("box\nfilefile")
    assert said.count("Read-only file system") == 3


@pytest.fixture
def folder(tmp_path):
    """A root folder with programs of the host's."""
    root = tmp_path / "root"
    for name in ("usr", "etc", "proc", "sys", "dev", "tmp"):
        (root / name).mkdir(parents=True)
    for name in ("bin", "lib", "lib64", "sbin"):
        if os.path.islink(f"/{name}"):
            (root / name).symlink_to(os.readlink(f"/{name}"))
    (root / "etc" / "passwd").write_text("app:x:7:8::/app:/bin/sh\n")
    return root


def test_a_folder_as_root_is_written_through_as_root(runtime, sandbox, folder):
    mounts = (Bind(source="/usr", target="/usr", read_only=True),)
    script = "echo 10.0.0.9 db >> /etc/hosts || echo closed; id -u app; touch /new; chown app /new; stat -c %u /etc/passwd"
    assert output(runtime, script, rootfs=str(folder), mounts=mounts, **sandbox).split() == ["7", "0"]
    assert owners(folder / "new") == (7, 0)


def test_device_files_in_a_folder_as_root_open_nothing(runtime, sandbox, folder):
    os.mknod(folder / "zero", 0o666 | stat.S_IFCHR, os.makedev(1, 5))
    with (folder / "zero").open("rb") as bites:
        assert bites.read(1) == b"\0"
    mounts = (Bind(source="/usr", target="/usr", read_only=True),)
    said = output(runtime, "head -c 1 /zero 2>&1", rootfs=str(folder), mounts=mounts, **sandbox)
    assert "Permission denied" in said


def test_a_folder_that_cannot_be_shown_with_other_ids_is_refused_with_the_hint(runtime, sandbox):
    with pytest.raises(
        SpecError, match=r"rootfs: /proc/sys cannot be shown to a user namespace .*--userns host"
    ):
        start(runtime, "true", rootfs="/proc/sys", **sandbox)
    assert runtime.orphans(()) == ()
    assert runtime.no_userns("/proc/sys") != runtime.no_userns("host") == ""


def test_it_opens_its_own_streams(runtime, sandbox):
    for user in ("", "nobody"):
        script = "echo out > /dev/stdout; echo err > /dev/stderr; echo null > /dev/null"
        assert sorted(output(runtime, script, user=user, **sandbox).split()) == ["err", "out"]


def test_a_further_process_is_in_it_and_has_streams_and_a_terminal(runtime, sandbox):
    start(runtime, "exec sleep 60", **sandbox)
    script = "cat > /dev/stdout; echo err > /dev/stderr; cut -c1-21 /proc/self/uid_map; exit 5"
    code, out, err, _ = ran(runtime.exec("web", ("sh", "-c", script)), b"in ")
    assert (code, out.split(), err) == (5, [b"in", b"0", b"1879048192"], b"err\n")
    code, out, _, _ = ran(runtime.exec("web", ("sh", "-c", "tty; id -u"), user="1:1", has_terminal=True))
    assert (code, out.split()) == (0, [b"/dev/pts/0", b"1"])


def test_health_and_restarts_go_on(runtime, sandbox):
    check = HealthCheck(test=("CMD-SHELL", "test -e /tmp/well"), interval_s=0.1, retries=1)
    start(runtime, "touch /tmp/well; exec sleep 0.3", restart="always", health=check, **sandbox)
    while runtime.state("web").restarts < 2 or runtime.state("web").health != "healthy":
        assert runtime.state("web").status != "exited"
    runtime.stop("web", 0)
    runtime.start("web")
    assert runtime.state("web").status == "running"


def test_nothing_is_left_of_its_root(runtime, sandbox, tmp_path):
    for _ in range(2):
        start(runtime, "exec sleep 60", mounts=(Bind(source=str(tmp_path), target="/data"),), **sandbox)
        [name] = os.listdir(stage.STAGES)
        assert os.path.exists(f"{stage.STAGES}/{name}/usr/bin/env")
        runtime.remove("web", force=True)
        assert os.listdir(stage.STAGES) == []
        mounts = pathlib.Path("/proc/self/mounts").read_text()
        assert stage.STAGES not in mounts
        assert "/shown/" not in mounts
    assert os.path.isdir(tmp_path)


def test_its_root_is_no_way_in_for_users_of_the_host(runtime, sandbox):
    """Else they would start what is setuid in an image (CVE-2021-41103)."""
    start(runtime, "exec sleep 60", **sandbox)
    [name] = os.listdir(stage.STAGES)
    looks = ["test", "-e", f"{stage.STAGES}/{name}/usr"]
    assert subprocess.run(looks, check=False).returncode == 0
    for user in ("65534", "1000"):
        stranger = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", *looks]
        assert subprocess.run(stranger, check=False).returncode == 1


def test_a_namespace_that_is_gone_is_named(runtime, sandbox):
    with pytest.raises(SpecError, match="userns: /nosuch does not exist"):
        start(runtime, "true", netns=sandbox["netns"], userns="/nosuch")


def test_without_a_network_of_its_own_it_has_none(runtime, sandbox):
    with pytest.raises(SpecError, match="userns: with the host's network"):
        start(runtime, "true", userns=sandbox["userns"])
