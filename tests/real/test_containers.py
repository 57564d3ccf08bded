"""Containers under a real OCI runtime, on the real kernel.

Run as root in private namespaces: `unshare -n -m --propagation private pytest tests/real/test_containers.py`. Control
groups are made below `sealane/test-PID` of the machine's hierarchies and are gone afterwards.
"""

import contextlib
import inspect
import os
import pathlib
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time

import msgspec
import pytest

from harness.cgroup_limits import read_limits
from harness.sessions import ran
from sealane.containers import cgroups, files, process
from sealane.containers.errors import (
    ConflictError,
    LaunchError,
    NotFoundError,
    NotRunningError,
    SpecError,
)
from sealane.containers.health import HealthCheck
from sealane.containers.runtime import Runtime
from sealane.containers.spec import Bind, ContainerSpec, Dns, Limits, Tmpfs

pytestmark = [pytest.mark.real, pytest.mark.kernel]

INSTANCE = f"test-{os.getpid()}"
SOURCE = str(pathlib.Path(__file__).parents[2] / "src")
SITE_PACKAGES = [path for path in sys.path if path.endswith("site-packages")]


def why_not() -> str:
    if os.geteuid() != 0:
        return "needs root in a private namespace"
    if not shutil.which("runc", path="/usr/sbin:/usr/bin:/usr/local/bin"):
        return "runc is not installed"
    return ""


if why_not():
    pytest.skip(why_not(), allow_module_level=True)


def spec(container_id="web", *command, **changes):
    return ContainerSpec(id=container_id, name=container_id, command=command or ("sleep", "60"), **changes)


def shell(script, container_id="web", **changes):
    return spec(container_id, "sh", "-c", script, **changes)


@pytest.fixture
def runtime(tmp_path):
    made = Runtime(str(tmp_path / "state"), str(tmp_path / "run"), instance=INSTANCE)
    yield made
    made.sweep(())
    assert made.orphans(()) == ()
    assert groups() == set()


def groups():
    return cgroups.children(cgroups.detect(), f"/{cgroups.ROOT_GROUP}/{INSTANCE}")


@pytest.fixture
def netns():
    """Path of a fresh network namespace, kept by a process."""
    with subprocess.Popen(
        ["unshare", "-n", "sh", "-c", "echo; exec sleep 300"], stdout=subprocess.PIPE
    ) as keeper:
        keeper.stdout.readline()
        yield f"/proc/{keeper.pid}/ns/net"
        keeper.kill()


def output(runtime, desired):
    """Run a container to its end; the text of its standard output."""
    runtime.create_and_start(desired)
    state = runtime.wait(desired.id, 20)
    assert state.status == "exited"
    lines = [line.text.decode() for line in runtime.logs(desired.id) if line.stream == "stdout"]
    runtime.remove(desired.id)
    return "\n".join(lines)


def until(condition, seconds=100.0):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


# What the container is


def test_the_first_process_runs_in_namespaces_of_its_own(runtime, netns):
    pid = runtime.create_and_start(spec(netns=netns))
    for kind in ("pid", "mnt", "uts", "ipc", "cgroup"):
        assert os.readlink(f"/proc/{pid}/ns/{kind}") != os.readlink(f"/proc/self/ns/{kind}")
    assert os.readlink(f"/proc/{pid}/ns/net") == os.readlink(netns)


def test_without_a_sandbox_the_network_is_the_hosts(runtime):
    pid = runtime.create_and_start(spec())
    assert os.readlink(f"/proc/{pid}/ns/net") == os.readlink("/proc/self/ns/net")


def test_the_process_has_dockers_rights_and_no_more(runtime):
    text = output(runtime, shell("cat /proc/self/status"))
    status = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0xA80425FB
    assert int(status["CapInh"], 16) == int(status["CapAmb"], 16) == 0
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"


def test_capabilities_can_be_added_and_dropped(runtime):
    dropped = output(
        runtime, shell("grep CapEff /proc/self/status", cap_drop=("ALL",), cap_add=("NET_ADMIN",))
    )
    assert int(dropped.split()[1], 16) == 1 << 12


@pytest.mark.parametrize(
    "call", ["unshare -m true", "unshare -U true", "mount -t tmpfs x /mnt", "mknod /tmp/d b 8 0"]
)
def test_dangerous_calls_fail(runtime, call):
    text = output(
        runtime,
        shell(f"{call} 2>&1; test -b /tmp/d && head -c1 /tmp/d; echo code $?", cap_add=("SYS_ADMIN",)[:0]),
    )
    assert "code 0" not in text
    assert "permitted" in text.lower() or "denied" in text.lower() or "code 1" in text


def test_kernel_state_is_masked_or_read_only(runtime):
    script = "cat /proc/kcore /proc/timer_list | head -c 9 | wc -c; ls /sys/firmware | wc -l; echo 1 > /proc/sys/kernel/panic; echo $?; touch /sys/x; echo $?"
    assert output(runtime, shell(f"({script}) 2>/dev/null")).split() == ["0", "0", "2", "1"]


def test_dev_is_minimal(runtime):
    names = set(output(runtime, shell("ls /dev")).split())
    assert names == {
        "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty", "urandom", "zero",
    }  # fmt: skip


def test_an_init_program_is_the_first_process(runtime, tmp_path, monkeypatch):
    tini = tmp_path / "tini"
    tini.write_text('#!/bin/sh\n[ "$1" = -- ] && shift\n"$@"\n')
    tini.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert output(runtime, shell("tr '\\0' ' ' < /proc/1/cmdline", init=True)).startswith(
        "/bin/sh /dev/init -- sh -c"
    )


def test_names_are_in_etc(runtime, netns):
    desired = shell(
        "cat /etc/hostname /etc/hosts /etc/resolv.conf; hostname", hostname="box", hosts=("10.0.0.9 db",),
        dns=Dns(nameservers=("127.0.0.11",), options=("ndots:0",)), netns=netns,
    )  # fmt: skip
    text = output(runtime, desired)
    assert text.startswith("box\n")
    assert text.endswith("box")
    assert "10.0.0.9 db\nnameserver 127.0.0.11\noptions ndots:0\n" in text


def test_names_change_in_a_running_container(runtime):
    runtime.create_and_start(shell("sleep 60", hosts=("10.0.0.9 db",)))
    runtime.update_hosts("web", ("10.0.0.10 db2",))
    runtime.update_resolv("web", Dns(nameservers=("10.0.0.1",)))
    _, out, _, _ = ran(runtime.exec("web", ("cat", "/etc/hosts", "/etc/resolv.conf")))
    assert b"10.0.0.10 db2\nnameserver 10.0.0.1\n" in out
    assert b"10.0.0.9" not in out
    with pytest.raises(SpecError, match=r"hosts\[0\]"):
        runtime.update_hosts("web", ("nonsense",))


def test_users_are_found_by_name(runtime):
    entry = pwd.getpwnam("nobody")
    desired = shell(
        "id -u; id -g; echo $HOME; echo to-stderr > /dev/stderr", user="nobody", working_dir="/tmp"
    )
    assert output(runtime, desired).split() == [str(entry.pw_uid), str(entry.pw_gid), entry.pw_dir]


# The host's root


def test_the_host_cannot_be_written_nor_its_private_places_seen(runtime, tmp_path):
    (tmp_path / "secret").touch()
    script = f"""
        for place in / /usr /etc /var /opt /srv; do touch $place/sealane-was-here 2>/dev/null && echo wrote $place; done
        for place in /tmp /run /root /home /var/tmp; do echo $place $(ls -A $place | wc -l); done
        cat /etc/shadow | wc -c; ls {tmp_path} 2>/dev/null
        echo mine > /tmp/x; cat /tmp/x
    """
    expected = "/tmp 0\n/run 0\n/root 0\n/home 0\n/var/tmp 0\n0\nmine"
    assert output(runtime, shell(script)) == expected
    assert not os.path.exists("/tmp/x")


def test_submounts_of_the_host_are_read_only_too(runtime, tmp_path):
    source = "/usr/local/share"
    subprocess.run(["mount", "-t", "tmpfs", "t", source], check=True)
    try:
        shown = shell(
            f"touch {source}/x; touch /data/x", mounts=(Bind(source=source, target="/data", read_only=True),)
        )
        runtime.create_and_start(shown)
        assert runtime.wait("web", 10).exit_code == 1
        errors = [line.text for line in runtime.logs("web")]
        assert len(errors) == 2
        assert all(b"Read-only file system" in line for line in errors)
    finally:
        subprocess.run(["umount", source], check=True)


def test_binds_and_tmpfs_are_where_they_were_asked_for(runtime, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "file").write_text("content")
    mounts = (
        Bind(source=str(tmp_path / "data"), target="/data"),
        Bind(source=str(tmp_path / "file"), target="/etc/passwd", read_only=True),
        Tmpfs(target="/cache/deep", size_bytes=8192, mode=0o700),
    )
    script = "echo kept > /data/x; cat /etc/passwd; stat -c %a /cache/deep; head -c 20000 /dev/zero > /cache/deep/x"
    assert output(runtime, shell(f"{script} 2>/dev/null || echo full", mounts=mounts)) == "content700\nfull"
    assert (tmp_path / "data" / "x").read_text() == "kept\n"


# A folder as root


@pytest.fixture
def image(tmp_path):
    """A root folder that borrows the host's programs."""
    root = tmp_path / "image"
    for name in ("usr", "etc", "proc", "sys", "dev", "tmp"):
        (root / name).mkdir(parents=True)
    for name in ("bin", "lib", "lib64", "sbin"):
        if os.path.islink(f"/{name}"):
            (root / name).symlink_to(os.readlink(f"/{name}"))
    (root / "etc" / "passwd").write_text("app:x:7:8::/app:/bin/sh\n")
    return root


def with_image(image, script, **changes):
    mounts = (Bind(source="/usr", target="/usr", read_only=True),)
    return shell(script, rootfs=str(image), mounts=mounts, **changes)


def test_a_folder_is_written_through(runtime, image):
    assert output(
        runtime, with_image(image, "id -u; cat /etc/hostname; echo x > /tmp/new; ls /", user="app")
    ).startswith("7\n")
    runtime.create_and_start(with_image(image, "echo x > /new"))
    assert runtime.wait("web", 10).exit_code == 0
    assert (image / "new").read_text() == "x\n"


def test_a_read_only_folder_is_not(runtime, image):
    runtime.create_and_start(with_image(image, "echo x > /new", read_only=True))
    assert runtime.wait("web", 10).exit_code != 0
    assert not (image / "new").exists()


# Verbs


def test_the_same_spec_twice_is_one_container(runtime):
    pid = runtime.create_and_start(spec())
    assert runtime.create_and_start(spec()) == pid
    with pytest.raises(ConflictError, match="another configuration"):
        runtime.create_and_start(spec("web", "sleep", "61"))
    assert runtime.state("web").pid == pid
    assert [state.id for state in runtime.list()] == ["web"]


def test_the_same_spec_after_the_end_does_not_run_again(runtime, tmp_path):
    count = tmp_path / "count"
    count.touch()
    desired = shell("echo x >> /count", mounts=(Bind(source=str(count), target="/count"),))
    runtime.create_and_start(desired)
    runtime.wait("web", 10)
    assert runtime.create_and_start(desired) == 0
    assert count.read_text() == "x\n"
    runtime.start("web")
    runtime.wait("web", 10)
    assert count.read_text() == "x\nx\n"


@pytest.mark.parametrize(
    ("command", "code", "message"),
    [
        ("nosuch", 127, "executable file not found"),
        ("/nosuch", 127, "no such file"),
        ("/etc/passwd", 126, "permission denied"),
    ],
)
def test_a_command_that_cannot_run_leaves_nothing(runtime, command, code, message):
    with pytest.raises(LaunchError, match=message) as caught:
        runtime.create_and_start(spec("web", command, restart="always"))
    assert caught.value.exit_code == code
    assert runtime.orphans(()) == ()
    with pytest.raises(NotFoundError):
        runtime.state("web")


def test_a_wrong_spec_changes_nothing(runtime):
    for wrong in (
        spec(netns="/nosuch"),
        spec(user="nosuch"),
        spec(mounts=(Bind(source="/nosuch", target="/x"),)),
    ):
        with pytest.raises(SpecError):
            runtime.create_and_start(wrong)
    assert runtime.orphans(()) == ()


def test_stop_and_remove_of_what_is_gone_succeed(runtime):
    runtime.stop("nosuch")
    runtime.remove("nosuch")
    runtime.remove("nosuch", force=True)
    runtime.create_and_start(shell("exit 3"))
    runtime.wait("web", 10)
    runtime.stop("web")
    runtime.stop("web")
    assert runtime.state("web").exit_code == 3
    runtime.remove("web")
    runtime.remove("web")


def test_stop_lets_the_container_say_goodbye(runtime):
    runtime.create_and_start(shell("trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.05; done"))
    until(lambda: list(runtime.logs("web")))
    runtime.stop("web", 5)
    state = runtime.state("web")
    assert (state.status, state.exit_code, state.stopped_by_user) == ("exited", 0, True)
    assert [line.text for line in runtime.logs("web")] == [b"up", b"bye"]


def test_a_running_container_is_removed_only_by_force(runtime):
    runtime.create_and_start(spec())
    with pytest.raises(ConflictError, match="running") as caught:
        runtime.remove("web")
    assert caught.value.hint == "`sealane stop web` first, or `--force`"
    runtime.remove("web", force=True)
    assert runtime.orphans(()) == ()


def test_kill_sends_the_named_signal(runtime):
    runtime.create_and_start(spec("web", "sleep", "60"))
    with pytest.raises(SpecError, match="signal"):
        runtime.kill("web", "SIGNOPE")
    runtime.kill("web", "KILL")
    assert runtime.wait("web", 10).exit_code == 137
    with pytest.raises(NotRunningError):
        runtime.kill("web", "KILL")


@pytest.mark.parametrize(("name", "comes_back"), [("KILL", False), ("TERM", False), ("USR1", True)])
def test_a_signal_that_is_meant_to_end_it_ends_it_for_good(runtime, name, comes_back):
    runtime.create_and_start(shell("trap 'exit 7' TERM USR1; echo up; sleep 60 & wait", restart="always"))
    next(runtime.logs("web", follow=True))
    runtime.kill("web", name)
    if comes_back:
        deadline = time.monotonic() + 100
        while runtime.state("web").restarts == 0 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert runtime.state("web").restarts == 1
    else:
        ended = runtime.wait("web", 10)
        assert (ended.status, ended.restarts, ended.stopped_by_user) == ("exited", 0, True)


def test_a_stopped_container_starts_again_with_the_same_names(runtime):
    runtime.create_and_start(spec(hosts=("10.0.0.9 db",)))
    runtime.update_hosts("web", ("10.0.0.10 db",))
    runtime.stop("web", 0)
    runtime.start("web")
    assert runtime.state("web").status == "running"
    assert b"10.0.0.10 db" in ran(runtime.exec("web", ("cat", "/etc/hosts")))[1]


def test_restarts_are_counted_and_end_with_stop(runtime):
    runtime.create_and_start(shell("echo run; exit 1", restart="always"))
    until(lambda: runtime.state("web").restarts >= 2)
    runtime.stop("web")
    assert runtime.state("web").status == "exited"
    assert [line.text for line in runtime.logs("web")] == [b"run"] * (runtime.state("web").restarts + 1)


def test_following_the_log_ends_with_the_container(runtime):
    runtime.create_and_start(shell("for n in 1 2 3; do echo $n; sleep 0.1; done"))
    assert [line.text for line in runtime.logs("web", follow=True)] == [b"1", b"2", b"3"]


def test_health_is_checked_inside_the_container(runtime):
    check = HealthCheck(test=("CMD-SHELL", "echo looked; test -e /tmp/well"), interval_s=0.1, retries=1)
    runtime.create_and_start(spec(health=check))
    until(lambda: runtime.state("web").health == "unhealthy")
    ran(runtime.exec("web", ("touch", "/tmp/well")))
    until(lambda: runtime.state("web").health == "healthy")
    assert runtime.state("web").health_log[-1]["output"] == "looked\n"


# Exec


def test_exec_has_streams_and_an_exit_code(runtime):
    runtime.create_and_start(spec(env={"A": "1"}))
    start = runtime.exec(
        "web", ("sh", "-c", "cat; echo $A $B >&2; pwd >&2; exit 5"), env={"B": "2"}, working_dir="/usr"
    )
    assert ran(start, b"in") == (5, b"in", b"1 2\n/usr\n", "")


@pytest.mark.parametrize(("command", "code"), [("nosuch", 127), ("/nosuch", 127), ("/etc/passwd", 126)])
def test_exec_of_what_cannot_run(runtime, command, code):
    runtime.create_and_start(spec())
    found, out, err, error = ran(runtime.exec("web", (command,)))
    assert (found, out, err) == (code, b"", b"")
    assert command in error


def test_exec_runs_as_another_user(runtime):
    runtime.create_and_start(spec())
    assert ran(runtime.exec("web", ("id", "-u"), user="1:1"))[1] == b"1\n"
    with pytest.raises(SpecError, match="user"):
        runtime.exec("web", ("id",), user="nosuch")


def test_a_killed_exec_leaves_no_process(runtime):
    runtime.create_and_start(spec())
    mine, theirs = socket.socketpair()
    with mine, theirs:
        runtime.exec("web", ("sh", "-c", "echo up; sleep 50 & sleep 51"))(theirs, b"")
        theirs.close()
        assert mine.recv(100).endswith(b"up\n")

    def running():
        return ran(runtime.exec("web", ("sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '")))[1]

    assert b"sleep 60" in running()
    until(lambda: b"sleep 5" not in running())


def test_exec_needs_a_running_container(runtime):
    runtime.create_and_start(shell("exit 0"))
    runtime.wait("web", 10)
    with pytest.raises(NotRunningError):
        runtime.exec("web", ("true",))
    with pytest.raises(NotFoundError):
        runtime.exec("nosuch", ("true",))


# Limits

needs_limits = pytest.mark.skipif(
    bool(cgroups.why_unusable(cgroups.detect())),
    reason=f"control groups: {cgroups.why_unusable(cgroups.detect())}",
)


@needs_limits
def test_limits_are_in_force_and_gone_afterwards(runtime):
    runtime.create_and_start(spec(limits=Limits(memory_bytes=64 << 20, cpus=0.5, pids=20)))
    read = read_limits(cgroups.detect(), f"/{cgroups.ROOT_GROUP}/{INSTANCE}/web")
    assert read == {"memory_bytes": 64 << 20, "cpus": 0.5, "pids": 20}
    assert groups() == {"web"}
    runtime.remove("web", force=True)
    seen = cgroups.detect()
    assert not any(
        os.path.exists(folder) for folder in seen.group_folders(f"/{cgroups.ROOT_GROUP}/{INSTANCE}")
    )


@needs_limits
def test_without_limits_nothing_is_limited(runtime):
    runtime.create_and_start(spec())
    read = read_limits(cgroups.detect(), f"/{cgroups.ROOT_GROUP}/{INSTANCE}/web")
    assert read == {"memory_bytes": None, "cpus": None, "pids": None}


@needs_limits
def test_a_fork_bomb_is_bounded(runtime):
    bomb = "for n in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 3 & done; wait"
    runtime.create_and_start(shell(bomb, limits=Limits(pids=6)))
    until(lambda: any(b"fork" in line.text for line in runtime.logs("web")))
    assert len(cgroups.members(cgroups.detect(), f"/{cgroups.ROOT_GROUP}/{INSTANCE}/web")) <= 6


@needs_limits
def test_a_memory_hog_is_killed_and_it_is_said(runtime):
    hog = "exec /usr/bin/python3 -I -S -c 'x = bytearray(200 << 20)'"
    runtime.create_and_start(shell(hog, limits=Limits(memory_bytes=32 << 20)))
    state = runtime.wait("web", 20)
    assert (state.exit_code, state.oom_killed) == (137, True)


# Crashes

DAEMON = """
import sys, time
sys.path[:0] = {paths!r}
from sealane.containers.runtime import Runtime
from sealane.containers.spec import ContainerSpec
runtime = Runtime({state!r}, {run!r}, instance={instance!r})
print("ready", flush=True)
runtime.create_and_start(ContainerSpec(id="web", name="web", command=("sh", "-c", {script!r}), restart={restart!r}))
print("started", flush=True)
time.sleep(60)
"""


@contextlib.contextmanager
def daemon(tmp_path, script, restart="no"):
    """A process that starts a container, as a daemon does; killed with SIGKILL at the end."""
    text = DAEMON.format(
        paths=[SOURCE, *SITE_PACKAGES], state=str(tmp_path / "state"), run=str(tmp_path / "run"), instance=INSTANCE,
        script=script, restart=restart,
    )  # fmt: skip
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(text)], stdout=subprocess.PIPE) as child:
        assert child.stdout.readline() == b"ready\n"
        yield child
        child.kill()


def test_everything_goes_on_when_the_daemon_is_killed(runtime, tmp_path):
    script = "n=0; while :; do n=$((n+1)); echo $n; sleep 0.05; [ $n = 10 ] && exit 1; done"
    with daemon(tmp_path, script, restart="always") as child:
        assert child.stdout.readline() == b"started\n"
    seen = len(list(runtime.logs("web")))
    until(lambda: len(list(runtime.logs("web"))) > seen + 3)
    until(lambda: runtime.state("web").restarts >= 1)
    assert runtime.state("web").supervised
    runtime.stop("web", 0.2)
    assert runtime.state("web").status == "exited"


@pytest.mark.parametrize("delay_ms", [0, 3, 8, 15, 22, 30, 40, 55])
def test_a_caller_killed_at_any_moment_leaves_nothing_a_sweep_does_not_find(runtime, tmp_path, delay_ms):
    with daemon(tmp_path, "sleep 60"):
        time.sleep(delay_ms / 1000)
    runtime.sweep(())
    assert runtime.orphans(()) == ()
    assert groups() == set()
    # The shim that may have been starting found its plan gone, or was stopped; nothing comes up later.
    time.sleep(0.1)
    assert runtime.orphans(()) == ()


@pytest.mark.parametrize("delay_ms", [0, 10, 25, 45])
def test_create_is_simply_repeated_after_a_crash(runtime, tmp_path, delay_ms):
    with daemon(tmp_path, "sleep 60"):
        time.sleep(delay_ms / 1000)
    pid = runtime.create_and_start(shell("sleep 60"))
    state = runtime.state("web")
    assert (state.status, state.pid, state.supervised) == ("running", pid, True)


def kill_shim(runtime):
    status = runtime._store.status_file("web")
    assert process.send_signal(status.shim, signal.SIGKILL)
    until(lambda: not runtime.state("web").supervised)


def test_a_killed_shim_is_seen_and_put_right(runtime):
    pid = runtime.create_and_start(spec(restart="always"))
    kill_shim(runtime)
    state = runtime.state("web")
    assert (state.status, state.pid) == ("running", pid)
    assert "supervisor was killed" in state.error
    (found,) = runtime.recover()
    assert (found.id, found.restart) == ("web", True)
    assert runtime.state("web").status == "exited"
    assert process.start_time(pid) is None
    assert groups() == set()
    assert runtime.recover() == ()
    assert runtime.start("web") != pid
    assert runtime.state("web").supervised


@pytest.mark.parametrize("verb", ["stop", "remove", "start"])
def test_verbs_work_on_a_container_without_its_shim(runtime, verb):
    pid = runtime.create_and_start(spec())
    kill_shim(runtime)
    {"stop": runtime.stop, "start": runtime.start, "remove": lambda name: runtime.remove(name, force=True)}[
        verb
    ]("web")
    until(lambda: process.start_time(pid) is None)
    if verb == "start":
        assert runtime.state("web").supervised
    if verb == "stop":
        assert runtime.state("web").status == "exited"


def test_recover_spares_what_somebody_starts_meanwhile(runtime, monkeypatch):
    """It looked before, and takes the lock after."""
    runtime.create_and_start(spec())
    kill_shim(runtime)
    plain = runtime.list

    def look_and_be_late():
        seen = plain()
        runtime.start("web")
        return seen

    monkeypatch.setattr(runtime, "list", look_and_be_late)
    assert runtime.recover() == ()
    assert runtime.state("web").supervised


def test_a_damaged_record_keeps_nobody_else_from_recovery(runtime, tmp_path):
    runtime.create_and_start(spec("broken"))
    runtime.create_and_start(spec(restart="always"))
    (tmp_path / "state" / "containers" / "broken" / "spec.json").write_bytes(b"{")
    kill_shim(runtime)
    assert [found.id for found in runtime.recover()] == ["web"]
    assert runtime.state("broken").status == "dead"
    runtime.remove("broken", force=True)
    assert [state.id for state in runtime.list()] == ["web"]


def test_recover_leaves_the_living_alone(runtime):
    pid = runtime.create_and_start(spec())
    assert runtime.recover() == ()
    assert runtime.state("web").pid == pid


def test_recover_starts_nothing_that_a_user_stopped(runtime):
    runtime.create_and_start(spec(restart="unless-stopped"))
    runtime.stop("web", 0)
    assert runtime.recover() == ()


def power_off(runtime, name):
    status = runtime._store.status_file(name)
    for identity in (status.shim, status.init):
        process.send_signal(identity, signal.SIGKILL)
    until(lambda: not runtime.state(name).supervised and not process.is_alive(status.init))
    cgroups.remove(cgroups.detect(), f"/{cgroups.ROOT_GROUP}/{INSTANCE}/{name}")
    for identity in filter(None, (status.shim, status.init)):
        identity["boot_id"] = "the boot before"
    files.write_atomic(runtime._store.paths(name).status, msgspec.json.encode(status))


def reboot(runtime, tmp_path):
    """What a restarted machine leaves: no process, an empty run folder, the state folder as it was."""
    for name in runtime._store.ids():
        power_off(runtime, name)
    shutil.rmtree(tmp_path / "run")
    return Runtime(str(tmp_path / "state"), str(tmp_path / "run"), instance=INSTANCE)


@pytest.mark.parametrize(
    ("policy", "stopped", "comes_back"),
    [
        ("always", False, True),
        ("always", True, True),
        ("unless-stopped", False, True),
        ("unless-stopped", True, False),
        ("on-failure", False, True),
        ("no", False, False),
    ],
)
def test_after_a_reboot_the_policy_decides(runtime, tmp_path, policy, stopped, comes_back):
    runtime.create_and_start(shell("echo up; exec sleep 60", restart=policy))
    until(lambda: list(runtime.logs("web")))
    if stopped:
        runtime.stop("web", 0)
    after = reboot(runtime, tmp_path)
    assert after.state("web").status == "exited"
    assert [found.id for found in after.recover() if found.restart] == ["web"] * comes_back
    after.start("web")
    assert after.state("web").status == "running"
    until(lambda: len(list(after.logs("web"))) == 2)


def test_after_a_reboot_who_ran_comes_before_who_had_been_stopped(runtime, tmp_path):
    """They may want the same port, and the later container had it."""
    runtime.create_and_start(spec("a", restart="always"))
    runtime.stop("a", 0)
    runtime.create_and_start(spec("b", restart="always"))
    after = reboot(runtime, tmp_path)
    assert [found.id for found in after.recover() if found.restart] == ["b", "a"]


def test_a_sweep_spares_what_is_known(runtime):
    runtime.create_and_start(spec("keep"))
    runtime.create_and_start(spec("lose"))
    assert runtime.sweep({"keep"}) == ("lose",)
    assert [state.id for state in runtime.list()] == ["keep"]


# Without privileges

ROOTLESS = """
import sys
sys.path[:0] = {paths!r}
from sealane.containers.errors import LimitsError, SpecError
from sealane.containers.runtime import Runtime
from sealane.containers.spec import *
import contextlib, json, socket
from sealane.containers.frames import ERRORS, EXIT, INPUT, OUTPUT, Peer, frame
{ran}
runtime = Runtime("/run/state", "/run/run")
spec = lambda *command, **more: ContainerSpec(id="web", name="web", command=command, **more)
def refused(kind, wanted):
    try:
        runtime.create_and_start(wanted)
    except kind as error:
        print(error)
refused(LimitsError, spec("true", limits=Limits(pids=5)))
refused(SpecError, spec("true", user="1:1"))
runtime.create_and_start(spec("sh", "-c", "id -u; touch /usr/x; test -c /dev/null && echo null; ls -A /tmp; exec sleep 60",
    hosts=("10.0.0.9 db",), restart="always", health=HealthCheck(test=("CMD", "true"), interval_s=0.1)))
import time
deadline = time.monotonic() + 100
while runtime.state("web").health != "healthy" or len(list(runtime.logs("web"))) < 3:
    assert time.monotonic() < deadline, runtime.state("web")
    time.sleep(0.02)
print(*(line.text.decode() for line in runtime.logs("web")), sep="\\n")
print(ran(runtime.exec("web", ("sh", "-c", "tail -1 /etc/hosts; exit 3"))))
print(ran(runtime.exec("web", ("nosuch",)))[0])
degraded = Runtime("/run/state2", "/run/run2", degrade_limits=True)
degraded.create_and_start(spec("true", limits=Limits(pids=5)))
print(degraded.wait("web", 10).warnings[-1])
for each in (runtime, degraded):
    each.sweep(())
    print(each.orphans(()))
"""


def test_an_unprivileged_user_runs_containers_in_a_user_namespace(tmp_path):
    """What `make demo` does: root of a private user namespace, mapped from an ordinary user."""
    entry = pwd.getpwnam("nobody")
    # The sources and the interpreter may lie where only root may look.
    copied = tempfile.mkdtemp(prefix="sealane-rootless-")
    os.chmod(copied, 0o755)
    shutil.copytree(SOURCE, copied, dirs_exist_ok=True)
    shutil.copytree(os.path.dirname(msgspec.__file__), f"{copied}/msgspec")
    script = ROOTLESS.format(paths=[copied], ran=inspect.getsource(ran))
    inner = ["sh", "-c", 'mount -t tmpfs run /run && exec "$@"', "sh", "/usr/bin/python3", "-c", script]
    try:
        done = subprocess.run(
            ["setpriv", f"--reuid={entry.pw_uid}", f"--regid={entry.pw_gid}", "--clear-groups",
             "unshare", "-Urnm", "--propagation", "private", *inner],
            check=False, capture_output=True, text=True, cwd="/", timeout=60,
        )  # fmt: skip
    finally:
        shutil.rmtree(copied)
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[0].startswith("limits.pids: cannot be set here: no permission to make groups")
    assert lines[1] == "user: uid 1 does not exist in this user namespace"
    assert sorted(lines[2:5]) == ["0", "null", "touch: cannot touch '/usr/x': Read-only file system"]
    assert lines[5:7] == ["(3, b'10.0.0.9 db\\n', b'', '')", "127"]
    assert lines[7].startswith("limits-ignored: limits.pids")
    assert lines[8:] == ["()", "()"]
