"""The harness: what the other kernel tests stand on does what it says, and leaves nothing."""

import importlib.util
import os
import re
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.bundles import has
from harness.forked import FORKS_ENV, Forked, WarmParent
from harness.host import ROOT, Host, Lan
from harness.netns import AgentError, Netns, eventually, join
from harness.plugin import REFUSAL, isolated
from harness.processes import command_of, end_with_descendants, parent_of

pytestmark = pytest.mark.kernel

SCRIPT = os.path.join(ROOT, "scripts", "in-namespaces")


def test_this_is_not_the_machines_network() -> None:
    assert isolated()


@pytest.mark.parametrize("number", [1, 2])
def test_a_harmless_test(number: int) -> None:
    """For the tests below, which read what it prints."""
    print("namespaces", *(os.readlink(f"/proc/self/ns/{kind}") for kind in ("net", "mnt")))
    said = subprocess.run(["cat", "/proc/self/status"], capture_output=True, text=True, check=True).stdout
    print(*(line for line in said.splitlines() if line.startswith(("SigBlk", "SigIgn", "Umask"))), sep="\n")


KILLED_ENV = "SEALANE_TESTS_KILLED"


def test_a_daemon_and_an_orphan(lan: Lan) -> None:
    """For the tests below, which have it killed here: `worker FILE` or `pytest FILE` in the environment."""
    with Host(lan, number=9).start() as host:
        sleeper = subprocess.run(
            ["sh", "-c", "setsid sleep 300 >/dev/null 2>&1 & echo $!"],
            capture_output=True,
            text=True,
            check=True,
        )
        pids = [host.pid, host.ns.pid, int(sleeper.stdout), os.getpid()]
        whom, path = os.environ.get(KILLED_ENV, "nobody -").split()
        # pytest-xdist runs the module of a crashed worker again.
        if whom != "nobody" and not os.path.exists(path):
            with open(f"{path}.new", "w", encoding="ascii") as file:
                file.write(" ".join(map(str, [host.dir, *pids, os.getppid()])))
            os.rename(f"{path}.new", path)
            os.kill(os.getpid() if whom == "worker" else controller(), signal.SIGKILL)
            signal.pause()
        os.kill(pids[2], signal.SIGKILL)


def controller() -> int:
    """The process that we are a worker of."""
    pid = os.getppid()
    while not command_of(pid)[1].endswith("/test-twice"):
        pid = parent_of(pid)
    return pid


@pytest.mark.parametrize("whom", ["worker", "pytest"])
def test_what_a_killed_one_has_started_ends_with_it(whom: str, tmp_path: Path) -> None:
    path = tmp_path / "pids"
    done = subprocess.run(
        [sys.executable, f"{ROOT}/scripts/test-twice", "2", "-q", f"{__file__}::test_a_daemon_and_an_orphan"],
        cwd=ROOT,
        env={**os.environ, KILLED_ENV: f"{whom} {path}"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == {"worker": 1, "pytest": 137}[whom], done.stdout + done.stderr
    assert "once more" not in done.stdout
    folder, *words = path.read_text().split()
    shutil.rmtree(folder)
    pids = list(map(int, words))
    assert len(pids) == 5
    assert [pid for pid in pids if os.path.exists(f"/proc/{pid}")] == []


def pytest_run(*before: str, options: tuple[str, ...] = (), **given: Any) -> subprocess.CompletedProcess[str]:
    command = [*before, sys.executable, "-m", "pytest", "-q", "-rP", "-p", "no:cacheprovider", *options]
    return subprocess.run(
        [*command, f"{__file__}::test_a_harmless_test"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **given,
    )


def printed(done: subprocess.CompletedProcess[str], word: str) -> list[str]:
    assert done.returncode == 0, done.stdout + done.stderr
    return [line for line in done.stdout.splitlines() if line.startswith(word)]


def outermost_ancestor() -> int:
    """Of those whose namespaces we may look at. (A worker of pytest-xdist has ancestors in other private ones.)"""
    found, pid = 0, os.getppid()
    while pid:
        if os.access(f"/proc/{pid}/ns/net", os.R_OK):
            found = pid
        pid = parent_of(pid)
    return found


def test_kernel_tests_refuse_the_machines_own_namespaces() -> None:
    """The namespaces of our outermost ancestor, where a plain `pytest` would run."""
    done = pytest_run("nsenter", f"--target={outermost_ancestor()}", "--net", "--mount", "--")
    if "ermi" in done.stderr:
        pytest.skip(f"the namespaces outside cannot be entered from here: {done.stderr}")
    assert done.returncode == 1, done.stdout
    assert REFUSAL in done.stdout


def test_kernel_tests_run_inside_the_script() -> None:
    assert pytest_run(SCRIPT).returncode == 0


def test_each_worker_has_namespaces_of_its_own() -> None:
    one, other = printed(pytest_run(SCRIPT, options=("-n", "2", "--dist", "load")), "namespaces")
    assert set(one.split()[1:]).isdisjoint(other.split()[1:])


KEPT_BY_GLIBC = 0b11 << 31
"""Signals 32 and 33, which no program can set (nptl/descr.h, SIGCANCEL and SIGSETXID): they stay as they are inherited."""


@pytest.mark.parametrize("options", [(), ("-n", "2")], ids=["alone", "workers"])
def test_what_tests_start_hears_all_signals(options: tuple[str, ...]) -> None:
    """As under `nohup`, in a shell's background, and of a caller that has signals blocked."""

    def deaf() -> None:
        os.umask(0o077)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGCHLD):
            signal.signal(number, signal.SIG_IGN)

    done = pytest_run(SCRIPT, options=options, preexec_fn=deaf)
    masks = [line.split(":\t") for line in printed(done, "Sig")]
    assert {(name, int(mask, 16) & ~KEPT_BY_GLIBC) for name, mask in masks} == {("SigBlk", 0), ("SigIgn", 0)}
    assert set(printed(done, "Umask")) == {"Umask:\t0022"}


def test_what_is_started_finds_its_bytecode() -> None:
    for module in ("sealane.daemon.main", "sealane.cli.main", "harness.agent"):
        source = importlib.util.find_spec(module).origin
        assert os.path.exists(importlib.util.cache_from_source(source)), source


def test_the_script_gives_empty_namespaces() -> None:
    probe = "ip -o link; readlink /proc/self/ns/net; stat -f -c %T /run"
    done = subprocess.run([SCRIPT, "sh", "-c", probe], capture_output=True, text=True, check=True)
    links, net, filesystem = done.stdout.splitlines()
    assert "LOOPBACK,UP" in links
    assert net != os.readlink("/proc/self/ns/net")
    assert filesystem == "tmpfs"


def test_the_script_needs_no_root() -> None:
    """A user namespace makes up for it."""
    setpriv = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--")
    if subprocess.run([*setpriv, "unshare", "-Ur", "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("this system gives no user namespaces to users")
    probe = "id -u; ip -o link | wc -l"
    with open(SCRIPT, "rb") as script:
        # By its text: the repository may lie where that user cannot look.
        done = subprocess.run(
            [
                *setpriv,
                "sh",
                "-c",
                'f=$(mktemp); cat > "$f"; chmod +x "$f"; "$f" sh -c "$0"; s=$?; rm "$f"; exit $s',
                probe,
            ],
            stdin=script,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.stdout.split() == ["0", "1"], done.stderr


def test_the_script_passes_status_on() -> None:
    assert subprocess.run([SCRIPT, "sh", "-c", "exit 7"], check=False).returncode == 7
    assert subprocess.run([SCRIPT], capture_output=True, check=False).returncode == 64


def test_namespaces_end_with_their_agent() -> None:
    with Netns("other") as other:
        with Netns("short") as short:
            inode, pid = short.inode, short.pid
            assert inode != os.stat("/proc/self/ns/net").st_ino
            # Goes with the namespace of its peer. (Inodes do not tell: another worker's may have it next.)
            join(other, "witness", short, "eth0")
            with Netns.enter("same", short.path) as same:
                assert same.inode == inode
        eventually(lambda: not os.path.exists(f"/proc/{pid}"))
        eventually(lambda: other.run("ip", "link", "show", "witness").returncode != 0, what="its end")


def test_what_a_host_runs_ends_with_it(lan: Lan) -> None:
    with Host(lan) as host:
        assert host.processes() == []
        script = "sleep 600 & echo $! $$; exec sleep 600"
        enter = ("nsenter", f"--mount=/proc/{host.ns.pid}/ns/mnt", "--", "unshare", "--mount", "sh", "-c")
        with subprocess.Popen([*enter, script], stdout=subprocess.PIPE, text=True) as outside:
            assert outside.stdout is not None
            child, parent = map(int, outside.stdout.readline().split())
            try:
                # The shell has forked, and has yet to become the command.
                eventually(lambda: command_of(child) == ["sleep", "600"], what="the command")
                assert parent_of(child) == parent
                assert host.processes() == []
                end_with_descendants([parent])
                assert outside.wait(100) == -signal.SIGKILL
            finally:
                outside.kill()
        eventually(lambda: not os.path.exists(f"/proc/{child}"), what="the end of what it had started")


def test_an_agent_says_what_went_wrong() -> None:
    with Netns("a") as a:
        with pytest.raises(AgentError, match="exit 1"):
            a.ip("link", "del", "nothing")
        with pytest.raises(AgentError, match="ZeroDivisionError"):
            a.python("1 / 0")
        assert a.python("result = 1 + 1") == 2
        assert a.python("print('said')") == "said\n"


@pytest.mark.parametrize("proto", ["tcp", "udp"])
def test_probes_tell_answers_from_silence(proto: str, family: int) -> None:
    """Who answered, under which address the client was seen, and how it failed."""
    addresses = ("10.0.0.1", "10.0.0.2") if family == 4 else ("fd00::1", "fd00::2")
    with Netns("a") as a, Netns("b") as b:
        join(a, "x", b, "x")
        for ns, address in zip((a, b), addresses, strict=True):
            ns.ip(
                "addr",
                "add",
                f"{address}/{24 if family == 4 else 64}",
                "dev",
                "x",
                *(("nodad",) if family == 6 else ()),
            )
        server = b.listen(proto, addresses[1])
        eventually(lambda: a.reaches(server, addresses[1], timeout=0.1))
        answer = a.probe(proto, addresses[1], server.port)
        assert answer["answer"] == f"{server.token} {addresses[0]} {answer['local'][1]} {server.port}"
        assert (addresses[0], answer["local"][1]) in {(peer, port) for peer, port, _ in server.peers()}
        assert a.probe(proto, addresses[1], server.port + 1) == {"error": "ECONNREFUSED"}
        b.ip("link", "set", "x", "down")
        assert "error" in a.probe(proto, addresses[1], server.port, timeout=0.1)


def test_hosts_are_machines_of_their_own(lan: Lan) -> None:
    """Two on one LAN: own kernel state, own /run, own daemon, which the command line tool finds."""
    with Host(lan, number=12).start() as one, Host(lan, number=13).start() as two:
        assert one.api.get("/version")["instance"] != two.api.get("/version")["instance"]
        one.sealane("network", "create", "only-here")
        assert "only-here" in one.sealane("network", "ls").stdout
        assert "only-here" not in two.sealane("network", "ls").stdout
        server = two.ns.listen("udp", "0.0.0.0", 9)
        assert one.ns.reaches(server, two.address(4))
        one.ns.sh("touch", "/run/mark")
        assert os.path.exists(one.path("/run/mark"))
        assert not os.path.exists(two.path("/run/mark"))
        one.reboot()
        assert not os.path.exists(one.path("/run/mark"))
        assert one.ns.reaches(server, two.address(4))
        one.start()
        assert [n["name"] for n in one.api.get("/networks")] == ["only-here"]
        assert one.stop() == 0


def test_containers_that_a_test_leaves_end_with_their_host(lan: Lan) -> None:
    if not has("runc"):
        pytest.skip("needs runc")
    with Host(lan) as host:
        host.start().sealane("run", "-d", "--name", "web", "sleep", "600")
        (container,) = host.api.get("/containers")
        pidfd = os.pidfd_open(container["pid"])
        host.kill9()
    assert select.select([pidfd], [], [], 100)[0]
    os.close(pidfd)


# --- daemons from a warm parent -------------------------------------------------------------------------------------


def traits(host: Host) -> dict[str, object]:
    """Of a daemon's process: what it can notice, and what others do."""
    folder = f"/proc/{host.pid}"
    with open(f"{folder}/status", encoding="ascii") as file:
        status = dict(line.split(":", 1) for line in file)
    with open(f"{folder}/limits", encoding="ascii") as file:
        limits = file.read()
    held = [os.readlink(entry.path) for entry in os.scandir(f"{folder}/fd")]
    return {
        **{key: status[key] for key in ("SigBlk", "SigIgn", "SigCgt", "Umask", "Uid", "NoNewPrivs", "Name")},
        "limits": limits,
        "folder": os.readlink(f"{folder}/cwd"),
        "root": os.readlink(f"{folder}/root"),
        "is inside": all(
            os.readlink(f"{folder}/ns/{kind}") == os.readlink(f"/proc/{host.ns.pid}/ns/{kind}")
            for kind in ("net", "mnt")
        ),
        "descriptors": sorted(re.sub(r"\d+", "N", path.replace(host.dir, "DIR")) for path in held),
    }


def test_a_forked_daemon_is_like_one_that_was_started(lan: Lan, monkeypatch: pytest.MonkeyPatch) -> None:
    with Host(lan, 1) as one, Host(lan, 2) as other:
        for host, forks in ((one, "1"), (other, "0")):
            monkeypatch.setenv(FORKS_ENV, forks)
            host.start()
            host.api.network("front", "10.90.0.0/24")
            assert host.sealane("status").returncode == 0
        assert isinstance(one.daemon, Forked)
        assert not isinstance(other.daemon, Forked)
        # What it does in the background has descriptors for a moment.
        eventually(lambda: traits(one) == traits(other), what="both are alike")
        assert traits(one)["is inside"]
        assert one.stop() == other.stop() == 0


def test_a_forked_daemons_end_is_told(lan: Lan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FORKS_ENV, "1")
    with Host(lan).start() as host:
        daemon = host.daemon
        assert daemon is not None
        assert daemon.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            daemon.wait(0.01)
        daemon.kill()
        assert daemon.wait(100) == daemon.poll() == -signal.SIGKILL
        daemon.kill()
        host.daemon = None
        host.start(wait=False, options=("--no-such-option",))
        assert host.daemon is not None
        assert host.daemon.wait(100) == 2
        assert "no-such-option" in host.stderr()


def test_with_the_warm_parent_all_that_it_forked_ends(lan: Lan, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when the test process is killed: the parent's socket ends with it."""
    monkeypatch.setenv(FORKS_ENV, "1")
    with Host(lan).start() as host:
        pidfd = os.pidfd_open(host.pid)
        WarmParent.close()
        assert select.select([pidfd], [], [], 100)[0]
        os.close(pidfd)
        host.daemon = None
