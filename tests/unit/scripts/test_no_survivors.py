"""What a command has started ends with it, however it ends, and the command notices nothing."""

import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.netns import eventually

SCRIPT = (sys.executable, "-I", "-S", str(Path(__file__).parents[3] / "scripts/no-survivors"))

LEAVE = """
import os, subprocess, sys
def leave(depth):
    "A daemon, as of old: a session of its own, and an orphan; with `depth` more below it."
    code = 'import os,subprocess,sys,time; os.write(1, str(os.getpid()).encode() + bytes([10])); os.close(1); '
    if depth:
        code += f'subprocess.Popen([sys.executable, "-c", {leave(depth - 1)!r}], start_new_session=True, stdout=3); '
    return code + 'time.sleep(300)'
os.dup2(1, 3)
for number in range(2):
    subprocess.Popen(['sh', '-c', 'setsid "$@" &', 'sh', sys.executable, '-c', leave(1)], pass_fds=[3]).wait()
os.close(3)
"""
SURVIVORS = 4


STARTED: list[subprocess.Popen[str]] = []


@pytest.fixture(autouse=True)
def tidy() -> Iterator[None]:
    yield
    for process in STARTED:
        process.kill()
        process.communicate(timeout=60)
    STARTED.clear()


def start(script: str, *, before: Callable[[], None] | None = None) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [*SCRIPT, sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=before,
        start_new_session=True,
    )
    STARTED.append(process)
    return process


def lines(process: subprocess.Popen[str], count: int) -> list[int]:
    assert process.stdout is not None
    assert select.select([process.stdout], [], [], 60)[0]
    return [int(process.stdout.readline()) for _ in range(count)]


def is_alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def parent_of(pid: int) -> int:
    with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
        return int(file.read().rpartition(")")[2].split()[1])


@pytest.mark.parametrize("who", ["command", "outer", "group"])
def test_nothing_outlives_a_kill(who: str) -> None:
    process = start(
        f"{LEAVE}\nprint(os.getpid())\nsys.stdout.flush()\nos.close(1)\nimport time\ntime.sleep(300)"
    )
    pids = lines(process, SURVIVORS + 1)
    assert all(map(is_alive, pids)), "the control: without a kill they live"
    command = next(pid for pid in pids if os.getpgid(pid) == process.pid)
    inner = parent_of(command)
    if who == "group":
        os.killpg(process.pid, signal.SIGKILL)
    else:
        os.kill(command if who == "command" else process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode == (137 if who == "command" else -9)
    eventually(lambda: not any(map(is_alive, [*pids, inner])), what="nothing is left")


def test_nothing_outlives_a_kill_whose_caller_hears_no_more() -> None:
    process = start(f"{LEAVE}\nsys.stdin.read()")
    pids = lines(process, SURVIVORS)
    assert process.stderr is not None
    process.stderr.close()
    process.kill()
    eventually(lambda: not any(map(is_alive, pids)), what="nothing is left")


def test_nothing_outlives_an_ordinary_end_and_it_is_told() -> None:
    process = start(f"{LEAVE}\nsys.stdin.read()\nsys.exit(7)")
    pids = lines(process, SURVIVORS)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 7
    assert not any(map(is_alive, pids))
    assert sorted(int(line.split()[2].rstrip(":")) for line in said.splitlines()) == sorted(pids)
    assert all(line.startswith("no-survivors: killed ") for line in said.splitlines())


def test_a_survivor_that_starts_others_as_it_dies_gets_nowhere() -> None:
    """It is killed, and so are those whom it was starting."""
    swarm = (
        "import os, time\n"
        "end = time.monotonic() + 20\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    while time.monotonic() < end:\n"
        "        if os.fork():\n            os._exit(0)\n"
        "os._exit(0)"
    )
    process = start(swarm)
    process.communicate(timeout=60)
    assert process.returncode == 0
    left = [
        pid for pid in map(int, filter(str.isdecimal, os.listdir("/proc"))) if session_of(pid) == process.pid
    ]
    assert left == []


def session_of(pid: int) -> int:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return 0


@pytest.mark.parametrize(
    ("ends", "code"), [("sys.exit(0)", 0), ("sys.exit(5)", 5), ("os.kill(os.getpid(), 15)", 143)]
)
def test_the_status_is_the_commands(ends: str, code: int) -> None:
    process = start(f"import os, sys\n{ends}")
    assert process.communicate(timeout=60) == ("", "")
    assert process.returncode == code


def test_input_output_and_group_are_the_commands() -> None:
    process = start("import os, sys\nprint(sys.stdin.read().upper(), os.getpgrp())")
    out, _ = process.communicate("hello", timeout=60)
    assert out.split() == ["HELLO", str(process.pid)]


def test_pipes_end_when_the_command_closes_them() -> None:
    process = start("import os, sys, time\nos.close(1)\nsys.stdin.read()\n")
    assert process.stdout is not None
    assert select.select([process.stdout], [], [], 60)[0]
    assert process.stdout.read() == ""
    assert process.poll() is None
    process.communicate(timeout=60)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_signals_are_passed_on_once(number: signal.Signals) -> None:
    heard = (
        "import signal, sys, time\nheard = []\n"
        f"signal.signal({int(number)}, lambda n, _: heard.append(n))\n"
        "print(0, flush=True)\n"
        "while not heard:\n    time.sleep(0.01)\n"
        "time.sleep(0.2)\nsys.exit(len(heard))"
    )
    process = start(heard)
    lines(process, 1)
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == 1


def test_of_a_caller_that_ignores_its_childrens_ends_the_status_is_told_all_the_same() -> None:
    process = start(
        "import sys\nsys.exit(5)", before=lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN) and None
    )
    process.communicate(timeout=60)
    assert process.returncode == 5


def test_orphans_are_reaped_meanwhile() -> None:
    script = (
        "import os, subprocess, sys\n"
        "pid = int(subprocess.run(['sh', '-c', 'true & echo $!'], capture_output=True, text=True).stdout)\n"
        "print(pid, flush=True)\nsys.stdin.read()"
    )
    process = start(script)
    (pid,) = lines(process, 1)
    eventually(lambda: not os.path.exists(f"/proc/{pid}"), what="no zombie is left")
    process.communicate(timeout=60)


def test_wrong_use_is_explained() -> None:
    done = subprocess.run(SCRIPT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr[:6]) == (64, "usage:")
    done = subprocess.run([*SCRIPT, "/no/such"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (127, "no-survivors: /no/such: No such file or directory\n")
