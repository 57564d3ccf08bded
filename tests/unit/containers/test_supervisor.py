"""The shim's life cycle with a stand-in for the OCI runtime: a script that starts the command as a plain process.

What only a real runtime shows is in tests/real/test_containers.py. Here everything runs without any privilege.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from harness.patience import Watch
from sealane.containers import files, process, supervisor
from sealane.containers.errors import ConflictError, LaunchError
from sealane.containers.frames import ERRORS, EXIT, INPUT, OUTPUT, Peer, frame, signal_frame
from sealane.containers.launch import launch_shim
from sealane.containers.logs import read_logs
from sealane.containers.parent import explain_failure
from sealane.containers.plan import Paths, Plan
from sealane.containers.supervisor import count_oom_kills

# `run`: start $BUNDLE/command in the background and leave, as runc does. The command waits until its starter has left,
# because bash, other than runc, would reap it. `delete` and `exec` are logged.
RUNTIME = r"""#!/bin/bash
log=$2 verb=$3; shift 3
echo "$verb $*" >> "$0.calls"
case $verb in
run) bundle=$3 pid_file=$5
     [ -e "$bundle/refuse" ] && { cat "$bundle/refuse" >> "$log"; exit 1; }
     [ -e "$bundle/late" ] && { ( setsid bash "$bundle/command" <&0 & echo $! > "$pid_file"; sleep 0.5 ) <&0 &
                               until [ -s "$pid_file" ]; do :; done; exit; }
     parent=$$ setsid bash -c 'while [ "$(cut -d" " -f4 /proc/$$/stat)" = "$parent" ]; do :; done
                               exec bash "$0"' "$bundle/command" <&0 & echo $! > "$pid_file"
     if [ -e "$bundle/reap" ]; then kill $!; wait; fi ;;
exec) echo $$ > "$2"; exec bash "$4" ;;
esac
"""


class Container:
    """A shim with its files, for one test."""

    def __init__(self, folder: str) -> None:
        self.peers: list[Peer] = []
        self.paths = Paths(os.path.join(folder, "state"), os.path.join(folder, "run"))
        for path in (self.paths.logs, self.paths.run_folder):
            os.makedirs(path)
        self.runtime = os.path.join(folder, "runtime")
        with open(self.runtime, "w", encoding="ascii") as file:
            file.write(RUNTIME)
        os.chmod(self.runtime, 0o755)

    def start(self, command: str, *, client: socket.socket | None = None, **changes: object) -> int:
        with open(os.path.join(self.paths.run_folder, "command"), "w", encoding="ascii") as file:
            file.write(command)
        fields = {
            "container_id": "c1", "runtime": [self.runtime], "state_folder": self.paths.state_folder,
            "run_folder": self.paths.run_folder, "restart": "no", "max_restarts": 0, "stop_signal": signal.SIGTERM,
            "stop_timeout_s": 5.0, "oom_file": "", "health": None,
        }  # fmt: skip
        Plan(**(fields | changes)).save(self.paths.plan)
        return launch_shim(sys.executable, self.paths, client)

    @property
    def status(self) -> dict[str, object]:
        return files.read_json(self.paths.status) or {}

    def until(self, condition, seconds: float = 100.0) -> dict[str, object]:
        deadline = time.monotonic() + seconds
        while not condition(self.status):
            assert time.monotonic() < deadline, json.dumps(self.status)
            time.sleep(0.01)
        return self.status

    def ended(self, seconds: float = 100.0) -> dict[str, object]:
        """The last status, once the shim is gone."""
        deadline = time.monotonic() + seconds
        while process.is_locked(self.paths.lock):
            assert time.monotonic() < deadline, json.dumps(self.status)
            time.sleep(0.01)
        return self.status

    def stop(self, timeout: float) -> None:
        files.write_json(self.paths.desired, {"action": "stop", "timeout_s": timeout})
        process.send_signal(self.status["shim"], signal.SIGUSR1)

    def log(self) -> list[tuple[str, bytes]]:
        return [(line.stream, line.text) for line in read_logs(self.paths.logs)]

    def calls(self) -> list[str]:
        with open(f"{self.runtime}.calls", encoding="ascii") as file:
            return [line.split()[0] for line in file]


@pytest.fixture
def container(tmp_path):
    made = Container(str(tmp_path))
    yield made
    for peer in made.peers:
        peer.close()
    process.send_signal(made.status.get("shim"), signal.SIGKILL)
    if process.is_alive(made.status.get("init")):
        for send in (os.kill, os.killpg):
            # The stand-in makes it leader of a session, perhaps only in a moment.
            with contextlib.suppress(ProcessLookupError):
                send(made.status["init"]["pid"], signal.SIGKILL)


def test_output_and_exit_code_are_kept(container):
    pid = container.start("echo out; echo err >&2; printf end; exit 7")
    assert pid > 0
    status = container.ended()
    assert (status["status"], status["exit_code"], status["pid"], status["error"]) == ("exited", 7, 0, "")
    assert status["started_at"] <= status["finished_at"] <= time.time()
    assert sorted(container.log()) == [("stderr", b"err"), ("stdout", b"end"), ("stdout", b"out")]
    assert container.calls() == ["run", "delete"]


def test_a_running_container_is_described(container):
    pid = container.start("sleep 60")
    status = container.status
    assert (status["status"], status["pid"]) == ("running", pid)
    assert process.is_alive(status["init"])
    assert process.is_alive(status["shim"])
    assert status["init"]["pid"] == pid


def test_death_by_signal_is_128_plus_its_number(container):
    container.start("kill -SEGV $$")
    assert container.ended()["exit_code"] == 128 + signal.SIGSEGV


def test_the_shim_is_a_daemon_of_its_own(container):
    container.start("sleep 60")
    shim = container.status["shim"]["pid"]
    assert os.getsid(shim) != os.getsid(0)
    assert os.getpgid(shim) != os.getpgid(0)
    with open(f"/proc/{shim}/stat", encoding="ascii") as file:
        assert int(file.read().rsplit(")", 1)[1].split()[1]) != os.getpid()
    assert all(os.readlink(f"/proc/{shim}/fd/{number}") == "/dev/null" for number in (0, 1, 2))
    assert os.readlink(f"/proc/{shim}/cwd") == "/"


def test_the_shim_is_small(container):
    container.start("sleep 60")
    with open(f"/proc/{container.status['shim']['pid']}/status", encoding="ascii") as file:
        rss_kib = next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))
    assert rss_kib <= 12 * 1024


def test_a_second_shim_is_refused(container):
    container.start("sleep 60")
    first = container.status["shim"]
    with pytest.raises(ConflictError, match="already has a supervisor"):
        launch_shim(sys.executable, container.paths)
    assert process.is_alive(first)


def test_stop_sends_the_signal_and_waits(container):
    container.start("trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.02; done")
    container.until(lambda _status: container.log())
    container.stop(5.0)
    status = container.ended()
    assert (status["exit_code"], status["stopped_by_user"]) == (0, True)
    assert ("stdout", b"bye") in container.log()


def test_stop_uses_the_containers_own_signal(container):
    container.start("trap 'exit 3' USR2; echo up; while :; do sleep 0.02; done", stop_signal=signal.SIGUSR2)
    container.until(lambda _status: container.log())
    container.stop(5.0)
    assert container.ended()["exit_code"] == 3


def test_stop_kills_after_the_timeout(container):
    container.start("trap '' TERM; echo up; while :; do sleep 0.02; done")
    container.until(lambda _status: container.log())
    began = time.monotonic()
    container.stop(0.3)
    assert container.ended()["exit_code"] == 128 + signal.SIGKILL
    assert 0.25 < time.monotonic() - began < 20


def test_a_second_stop_shortens_the_wait(container):
    container.start("trap '' TERM; echo up; while :; do sleep 0.02; done")
    container.until(lambda _status: container.log())
    container.stop(3600.0)
    container.until(lambda status: status.get("stopped_by_user"))
    container.stop(0.0)
    assert container.ended()["exit_code"] == 128 + signal.SIGKILL


def ask_to_kill(container, number: int) -> None:
    """As `Runtime.kill` does."""
    files.write_json(container.paths.desired, {"action": "kill"})
    process.send_signal(container.status["shim"], signal.SIGUSR1)
    os.kill(container.status["init"]["pid"], number)


def test_a_kill_is_the_end_whatever_the_policy(container):
    container.start("exec sleep 60", restart="always")
    ask_to_kill(container, signal.SIGKILL)
    status = container.ended()
    assert (status["restarts"], status["exit_code"], status["stopped_by_user"]) == (0, 137, True)


def test_who_survives_a_kill_is_asked_again_by_a_stop(container):
    """And is not left to wait out its time to be killed."""
    container.start(
        "n=0; trap 'n=$((n+1)); echo $n; [ $n = 2 ] && exit 5' TERM; echo up; while :; do sleep 0.05; done"
    )
    container.until(lambda _status: container.log())
    ask_to_kill(container, signal.SIGTERM)
    container.until(lambda _status: len(container.log()) == 2)
    container.stop(5.0)
    assert container.ended()["exit_code"] == 5


def test_sigterm_to_the_shim_ends_the_container_but_is_nobodys_wish(container):
    container.start("exec sleep 60", restart="always")
    process.send_signal(container.status["shim"], signal.SIGTERM)
    status = container.ended()
    assert status["status"] == "exited"
    assert not status.get("stopped_by_user")


def test_restarts_on_failure_stop_at_the_maximum(container):
    container.start("echo run; exit 5", restart="on-failure", max_restarts=2)
    status = container.ended()
    assert (status["restarts"], status["exit_code"]) == (2, 5)
    assert container.log() == [("stdout", b"run")] * 3
    assert container.calls() == ["run", "delete"] * 3


def test_on_failure_does_not_restart_success(container):
    container.start("exit 0", restart="on-failure")
    assert container.ended()["restarts"] == 0


@pytest.mark.parametrize("policy", ["always", "unless-stopped"])
def test_restarts_back_off_and_end_with_a_stop(container, policy):
    container.start("date +%s.%N; exit 0", restart=policy)
    container.until(lambda _status: len(container.log()) >= 4)
    container.stop(1.0)
    status = container.ended()
    assert status["status"] == "exited"
    times = [float(text) for _stream, text in container.log()]
    pauses = [after - before for before, after in zip(times, times[1:], strict=False)]
    assert pauses[0] >= 0.1
    assert pauses[1] >= 0.2
    assert pauses[2] >= 0.4


def attended(container, command, early=b"", **changes):
    mine, theirs = socket.socketpair()
    peer = Peer(mine)
    container.peers.append(peer)
    peer.send(early)
    with theirs:
        container.start(command, client=theirs, **changes)
    return peer


def test_a_client_passes_signals_on(container):
    peer = attended(container, "trap 'exit 3' USR2; echo up; while :; do sleep 0.02; done")
    container.until(lambda _status: container.log())
    # What is no signal is none.
    peer.send(signal_frame(255) + signal_frame(signal.SIGUSR2))
    assert container.ended()["exit_code"] == 3


def test_what_was_passed_on_before_it_ran_is_not_lost(container):
    attended(container, "exec sleep 60", signal_frame(signal.SIGUSR1))
    assert container.ended()["exit_code"] == 128 + signal.SIGUSR1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_after_a_signal_that_stops_nothing_starts_again(container, number):
    peer = attended(container, "echo up; exec sleep 60", restart="always")
    container.until(lambda _status: container.log())
    peer.send(signal_frame(number))
    status = container.ended()
    assert (status["exit_code"], status["restarts"], status["stopped_by_user"]) == (128 + number, 0, True)


@pytest.mark.parametrize(
    ("launch_s", "run_s", "pauses"),
    [
        (60.0, None, [0.1, 0.2, 0.4, 0.8]),
        (0.1, 1.0, [0.1, 0.2, 0.4, 0.8]),
        (60.0, 1.0, [0.1, 0.2, 0.4, 0.8]),
        (0.1, supervisor.GOOD_RUN_S, [0.1, 0.1, 0.1, 0.1]),
    ],
)
def test_only_a_good_run_begins_the_back_off_anew(monkeypatch, launch_s, run_s, pauses):
    """And not an OCI runtime that takes long to fail."""
    now, seen = 0.0, []

    class Over(Exception):
        pass

    def take(seconds, answer):
        nonlocal now
        now += seconds
        return answer

    def until(_done, deadline):
        seen.append(round(deadline - now, 3))
        if len(seen) == len(pauses):
            raise Over
        return take(deadline - now, False)

    it = supervisor.Supervisor.__new__(supervisor.Supervisor)
    it._ready_fd, it._restarts, it._stopping, it._final, it._status = -1, 0, False, False, {}
    for name, stand_in in {
        "_launch": lambda: take(launch_s, ("stuck", 125) if run_s is None else ("", 0)),
        "_serve": lambda: take(run_s, 1),
        "_clean_up": lambda: take(30.0, None),
        "_publish": lambda **_: None,
        "_read_desired": lambda: None,
        "_restarts_after": lambda _: True,
        "until": until,
    }.items():
        setattr(it, name, stand_in)
    monkeypatch.setattr(supervisor.time, "monotonic", lambda: now)
    with pytest.raises(Over):
        it.supervise()
    assert seen == pauses


def test_a_stop_during_the_back_off_takes_effect_at_once(container):
    container.start("exit 1", restart="always")
    container.until(lambda status: status["restarts"] >= 5 and status["status"] == "restarting")
    watch = Watch()
    container.stop(60.0)
    assert container.ended()["status"] == "exited"
    assert watch.elapsed_s() < 2.5, "it would have waited 3.2 s"


def test_a_refusal_of_the_runtime_is_handed_on(container):
    message = 'exec: "nope": executable file not found in $PATH'
    with open(os.path.join(container.paths.run_folder, "refuse"), "w", encoding="ascii") as file:
        json.dump({"level": "error", "msg": message}, file)
    with pytest.raises(LaunchError, match="nope") as caught:
        container.start("true", restart="always")
    assert caught.value.exit_code == 127
    assert container.ended()["exit_code"] == 127


def test_a_first_process_that_is_not_handed_over_is_an_error_not_a_hang(container):
    with open(os.path.join(container.paths.run_folder, "reap"), "w", encoding="ascii"):
        pass
    with pytest.raises(LaunchError, match="did not hand over"):
        container.start("true")


def test_a_first_process_that_is_handed_over_late_is_waited_for(container):
    """crun leaves before a process of its own does that the first process is a child of."""
    with open(os.path.join(container.paths.run_folder, "late"), "w", encoding="ascii"):
        pid = container.start("exec sleep 60")
    assert container.status["pid"] == pid
    container.stop(5)
    assert container.ended()["exit_code"] == 128 + signal.SIGTERM


def test_a_missing_runtime_is_handed_on(container):
    with pytest.raises(LaunchError, match="cannot run /nonexistent/runc"):
        container.start("true", runtime=["/nonexistent/runc"])


def test_a_restart_that_fails_is_tried_again(container):
    container.start("exit 1", restart="always")
    refusal = os.path.join(container.paths.run_folder, "refuse")
    with open(refusal, "w", encoding="ascii") as file:
        json.dump({"level": "error", "msg": "network namespace is gone"}, file)
    status = container.until(lambda status: status.get("error"))
    assert "namespace is gone" in status["error"]
    os.unlink(refusal)
    container.until(lambda status: not status.get("error"))


def test_a_plan_that_cannot_be_read_is_an_answer_not_a_hang(container):
    with pytest.raises(LaunchError, match="cannot read"):
        launch_shim(sys.executable, container.paths)


def test_a_shim_that_dies_at_once_is_an_answer_with_its_last_words(container):
    with pytest.raises(LaunchError, match="gave no answer.*No module named|gave no answer"):
        launch_shim("/bin/false", container.paths)


def test_the_starter_may_die_before_the_answer(container):
    """The daemon is killed while the runtime works: the container comes up all the same."""
    reader, writer = os.pipe()
    with open(os.path.join(container.paths.run_folder, "command"), "w", encoding="ascii") as file:
        file.write("echo survived")
    os.close(reader)
    plan = {
        "container_id": "c1", "runtime": [container.runtime], "state_folder": container.paths.state_folder,
        "run_folder": container.paths.run_folder, "restart": "no", "max_restarts": 0, "stop_signal": 15,
        "stop_timeout_s": 5.0, "oom_file": "", "health": None,
    }  # fmt: skip
    Plan(**plan).save(container.paths.plan)
    shim = os.path.join(os.path.dirname(files.__file__), "shim.py")
    lock = process.take_lock(container.paths.lock)
    command = [sys.executable, "-I", "-S", shim, container.paths.plan, str(lock), str(writer), "-1"]
    subprocess.run(command, pass_fds=(lock, writer), check=True)
    os.close(writer)
    os.close(lock)
    assert process.is_locked(container.paths.lock)
    container.until(lambda status: status.get("status") == "exited")
    assert container.log() == [("stdout", b"survived")]


def test_a_flood_of_output_neither_blocks_nor_fills_the_disk(container):
    container.start("head -c 40000000 /dev/zero | tr '\\0' 'x' | fold -w 100; echo done >&2")
    assert container.ended(60)["exit_code"] == 0
    sizes = [entry.stat().st_size for entry in os.scandir(container.paths.logs)]
    assert len(sizes) == 3
    assert sum(sizes) < 33_000_000
    assert ("stderr", b"done") in container.log()[-2:]


def test_grandchildren_left_behind_are_reaped(container):
    container.start("(sleep 0.2 & exec setsid sleep 0.1) & exec sleep 60")
    shim = container.status["shim"]["pid"]
    deadline = time.monotonic() + 1.0
    while time.monotonic() < deadline:
        with (
            contextlib.suppress(FileNotFoundError),
            open(f"/proc/{shim}/task/{shim}/children", encoding="ascii") as file,
        ):
            children = file.read().split()
        time.sleep(0.05)
    assert all(process.start_time(int(child)) is not None for child in children)


def health(**changes: float) -> dict[str, float]:
    return {"interval_s": 0.05, "timeout_s": 2.0, "retries": 2, "start_period_s": 0.0} | changes


def check(container: Container, script: str) -> None:
    with open(container.paths.probe_process, "w", encoding="ascii") as file:
        file.write(script)


def test_health_goes_from_starting_over_healthy_to_unhealthy_and_back(container, tmp_path):
    flag = tmp_path / "flag"
    check(container, f"echo checked; test -e {flag}")
    flag.touch()
    container.start("sleep 60", health=health(interval_s=0.1))
    assert container.until(lambda status: status.get("health"))["health"]["status"] == "starting"
    report = container.until(lambda status: status["health"]["status"] == "healthy")["health"]
    assert report["log"][-1]["output"] == "checked\n"
    flag.unlink()
    report = container.until(lambda status: status["health"]["status"] == "unhealthy")["health"]
    assert report["failing_streak"] >= 2
    assert report["log"][-1]["exit_code"] == 1
    flag.touch()
    container.until(lambda status: status["health"]["status"] == "healthy")


def test_one_failure_is_not_enough(container, tmp_path):
    count = tmp_path / "count"
    check(container, f"echo x >> {count}; [ $(wc -l < {count}) -ne 2 ]")
    container.start("sleep 60", health=health())
    container.until(lambda _status: count.exists() and count.read_text().count("x") >= 4)
    assert container.status["health"]["status"] == "healthy"


def test_failures_in_the_start_period_do_not_count(container):
    check(container, "exit 1")
    container.start("sleep 60", health=health(start_period_s=0.6))
    report = container.until(lambda status: len(status.get("health", {}).get("log", ())) >= 2)["health"]
    assert (report["status"], report["failing_streak"]) == ("starting", 0)
    container.until(lambda status: status["health"]["status"] == "unhealthy")


def test_a_slow_check_is_killed_and_counts_as_failure(container, tmp_path):
    pid_file = tmp_path / "pid"
    check(container, f"echo $$ > {pid_file}; exec sleep 60")
    container.start("sleep 60", health=health(timeout_s=0.2, retries=1))
    report = container.until(lambda status: status.get("health", {}).get("status") == "unhealthy")["health"]
    assert "timeout" in report["log"][-1]["output"]
    first = int(pid_file.read_text())
    container.until(lambda _status: process.start_time(first) is None)


def test_a_talkative_check_is_cut_and_does_not_block(container):
    check(container, "head -c 1000000 /dev/zero | tr '\\0' y")
    container.start("sleep 60", health=health())
    report = container.until(lambda status: status.get("health", {}).get("status") == "healthy")["health"]
    assert len(report["log"][-1]["output"]) == 4096
    container.until(lambda status: len(status["health"]["log"]) == 5)


def test_the_container_may_end_during_a_check(container):
    check(container, "exec sleep 60")
    container.start("sleep 0.3; exit 4", health=health())
    assert container.ended()["exit_code"] == 4


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ('exec: "x": executable file not found in $PATH', 127),
        ('exec: "/x": stat /x: no such file or directory', 127),
        ("exec /x: no such file or directory", 127),
        ('exec: "/etc/passwd": permission denied', 126),
        ("error mounting proc: operation not permitted", 125),
    ],
)
def test_failures_get_the_exit_codes_of_a_shell(tmp_path, message, code):
    log = tmp_path / "log"
    log.write_text(
        'not json\n{"level":"warning","msg":"x"}\n' + json.dumps({"level": "error", "msg": message}) + "\n"
    )
    assert explain_failure(str(log), 1) == (message, code)


def test_a_silent_failure_says_so(tmp_path):
    text, code = explain_failure(str(tmp_path / "none"), 9)
    assert code == 125
    assert "exit code 9" in text


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n", 2),
        ("low 0\noom 1\noom_kill 1\noom_group_kill 0\n", 1),
        ("", 0),
    ],
)
def test_oom_kills_are_read_in_both_formats(tmp_path, text, count):
    (tmp_path / "f").write_text(text)
    assert count_oom_kills(str(tmp_path / "f")) == count
    assert count_oom_kills("") == 0


# A client that comes with the container


class Talk:
    """The client's end of a container's connection."""

    def __init__(self, container, command, **changes):
        mine, theirs = socket.socketpair()
        with theirs:
            container.start(command, client=theirs, has_stdin=True, **changes)
        self.peer = Peer(mine)
        container.peers.append(self.peer)
        mine.setblocking(True)
        self.frames = []

    def hear(self, done):
        while not done(self.frames):
            assert self.peer.is_open, self.frames
            self.frames += self.peer.receive()

    def text(self, kind=OUTPUT):
        return b"".join(payload for found, payload in self.frames if found == kind)

    def end(self):
        self.hear(lambda frames: EXIT in dict(frames))
        return json.loads(self.text(EXIT))


def test_a_client_hears_all_in_order_and_then_the_end(container):
    talk = Talk(container, "read word; echo got $word; echo err >&2; exit 7")
    talk.peer.send(frame(INPUT, b"one\n"))
    assert talk.end() == {"exit_code": 7, "error": ""}
    assert (talk.text(), talk.text(ERRORS)) == (b"got one\n", b"err\n")
    assert talk.frames[-1][0] == EXIT
    assert container.ended()["exit_code"] == 7
    assert sorted(container.log()) == [("stderr", b"err"), ("stdout", b"got one")]


def test_the_containers_input_ends_with_the_clients(container):
    talk = Talk(container, "cat; exit 3")
    talk.peer.send(frame(INPUT, b"all") + frame(INPUT))
    assert talk.end()["exit_code"] == 3
    assert talk.text() == b"all"


def test_what_came_with_the_request_is_read_first(container):
    talk = Talk(container, "cat", early=frame(INPUT, b"early ").hex())
    talk.peer.send(frame(INPUT, b"late") + frame(INPUT))
    talk.end()
    assert talk.text() == b"early late"


def test_a_client_stays_over_restarts(container):
    talk = Talk(
        container, "echo set; read word; echo got $word; exit 1", restart="on-failure", max_restarts=1
    )
    said = b""
    for word in (b"one", b"two"):
        said += b"set\n"
        # What goes to a process that is about to end goes with it.
        talk.hear(lambda _, said=said: talk.text() == said)
        talk.peer.send(frame(INPUT, word + b"\n"))
        said += b"got " + word + b"\n"
    assert talk.end()["exit_code"] == 1
    assert talk.text() == said


def test_a_client_that_hangs_up_ends_the_input_and_nothing_else(container):
    talk = Talk(container, "cat; echo on; exit 4")
    talk.peer.close()
    assert container.ended()["exit_code"] == 4
    assert container.log() == [("stdout", b"on")]


def test_a_client_that_takes_nothing_holds_the_container_up_and_loses_nothing(container):
    talk = Talk(container, "seq 300000; exit 5")
    time.sleep(1)
    assert container.status["status"] == "running"
    assert talk.end()["exit_code"] == 5
    assert talk.text().split()[-1] == b"300000"


def test_a_client_hears_nothing_of_a_container_that_does_not_start(container):
    """Who started it says it all."""
    with open(os.path.join(container.paths.run_folder, "refuse"), "w", encoding="ascii") as file:
        file.write('{"level": "error", "msg": "no"}\n')
    mine, theirs = socket.socketpair()
    with mine, theirs:
        with pytest.raises(LaunchError, match="no"):
            container.start("true", client=theirs, has_stdin=True)
        theirs.close()
        mine.settimeout(100)
        assert mine.recv(100) == b""


def test_input_is_open_though_nobody_is_there(container):
    container.start("cat; exit 6", has_stdin=True)
    time.sleep(0.2)
    assert container.status["status"] == "running"
    container.stop(0.1)
    container.ended()


def test_input_is_none_unless_it_is_asked_for(container):
    container.start("cat; exit 6")
    assert container.ended()["exit_code"] == 6
