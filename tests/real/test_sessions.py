"""Processes in containers with somebody at their input, or at their terminal."""

import contextlib
import fcntl
import hashlib
import json
import os
import pathlib
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import termios
import time

import pytest

from harness.host import Host
from harness.netns import eventually
from harness.patience import PATIENCE_S, Watch
from harness.processes import command_of, parent_of
from sealane.cli.terminal import PASSED_ON

pytestmark = [pytest.mark.real, pytest.mark.kernel]

HOST_NUMBER = 17

if not any(shutil.which(name, path="/usr/sbin:/usr/bin:/usr/local/bin") for name in ("runc", "crun")):
    pytest.skip("needs runc or crun", allow_module_level=True)


@pytest.fixture(scope="module")
def machine(lan):
    with Host(lan, number=HOST_NUMBER).start() as host:
        host.sealane("network", "create", "--subnet", "10.74.0.0/24", "front")
        host.sealane("run", "-d", "--name", "web", "--network", "front", "sleep", "600")
        yield host
        host.sealane("rm", "-f", "web")


@pytest.fixture(autouse=True)
def clean(machine):
    """A test that fails leaves nothing to the next one."""
    yield
    if machine.daemon is None:
        machine.start()
    left = set(statuses(machine)) - {"web"}
    if left:
        machine.sealane("rm", "-f", *left)


class Seat:
    """A terminal that a command line is at, and somebody who types."""

    def __init__(self, host, *words, rows=30, columns=100):
        self._keys, slave = os.openpty()
        self.resize(rows, columns)
        self.before = termios.tcgetattr(slave)
        self._slave = slave
        self.screen = ""
        self.process = host.sealane_process(
            *words,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            text=False,
            preexec_fn=lambda: os.login_tty(slave),
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        os.close(self._keys)
        os.close(self._slave)

    def resize(self, rows, columns):
        fcntl.ioctl(self._keys, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text):
        os.write(self._keys, text.encode())

    def sees(self, pattern):
        """Wait for it; what comes after it is looked at next."""
        deadline = time.monotonic() + PATIENCE_S
        while (found := re.search(pattern, self.screen)) is None:
            left = deadline - time.monotonic()
            assert left > 0, f"{pattern!r} is not in {self.screen!r}"
            if select.select([self._keys], [], [], left)[0]:
                self.screen += os.read(self._keys, 4096).decode()
        self.screen = self.screen[found.end() :]
        return found.group()

    def ends(self):
        """Its exit code, once it has ended and its terminal is as it was."""
        code = self.process.wait(PATIENCE_S)
        assert termios.tcgetattr(self._slave) == self.before
        return code


def inside(host, name="web"):
    """Command lines of what runs in a container."""
    return host.sealane("exec", name, "sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '").stdout


# --- exec


def test_a_shell_at_a_terminal(machine):
    with Seat(machine, "exec", "-it", "web", "sh") as seat:
        seat.type("echo $TERM; stty size; tty\n")
        seat.sees("xterm\r\n30 100\r\n/dev/pts/[0-9]+")
        seat.resize(40, 120)
        seat.type("until [ \"$(stty size)\" = '40 120' ]; do sleep 0.1; done; echo gr''own\n")
        seat.sees("grown")
        seat.type("exit 3\n")
        assert seat.ends() == 3


def test_a_key_that_interrupts_interrupts_what_runs_inside(machine):
    with Seat(
        machine, "exec", "-it", "web", "sh", "-c", "trap 'echo caught; exit 7' INT; echo set; sleep 77"
    ) as seat:
        seat.sees("set")
        # A shell that is just forking for it may lose the signal.
        eventually(lambda: inside(machine).count("sleep 77") == 2, what="what it runs")
        seat.type("\x03")
        seat.sees("caught")
        assert seat.ends() == 7


def test_end_of_input_is_the_shells_to_understand(machine):
    with Seat(machine, "exec", "-it", "web", "cat") as seat:
        seat.type("one\n")
        seat.sees("one\r\none\r\n")
        seat.type("\x04")
        assert seat.ends() == 0


def test_more_than_a_screenful_comes_whole_and_in_order(machine):
    with Seat(machine, "exec", "-it", "web", "seq", "20000") as seat:
        for number in (1, 9999, 20000):
            seat.sees(f"(^|\n){number}\r\n")
        assert seat.ends() == 0


def test_a_terminal_that_goes_takes_its_process_along(machine):
    with Seat(machine, "exec", "-it", "web", "sh", "-c", "trap '' HUP; echo set; sleep 78") as seat:
        seat.sees("set")
        assert "sleep 78" in inside(machine)
    eventually(lambda: "sleep 78" not in inside(machine), what="its end")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_terminal_is_as_it_was_though_its_command_is_ended(machine, number):
    with Seat(machine, "exec", "-it", "web", "sh", "-c", "echo set; sleep 79") as seat:
        seat.sees("set")
        seat.process.send_signal(number)
        assert seat.ends() == 128 + number
    eventually(lambda: "sleep 79" not in inside(machine), what="its end")


def test_what_cannot_run_at_a_terminal_says_so(machine):
    with Seat(machine, "exec", "-it", "web", "nosuch") as seat:
        seat.sees("nosuch")
        assert seat.ends() == 127


def test_a_terminal_without_input(machine):
    """As in a script that wants colours."""
    ran = machine.sealane("exec", "-t", "web", "sh", "-c", "tty; echo err >&2")
    assert re.fullmatch("/dev/pts/[0-9]+\r?\nerr\r?\n", ran.stdout)


def test_a_terminal_needs_one_here(machine):
    ran = machine.sealane("exec", "-it", "web", "sh", check=False)
    assert (ran.returncode, ran.stdout) == (125, "")
    assert ran.stderr.startswith("error: the input device is not a TTY\nfield: --tty\n")


def test_input_of_any_length_goes_in_and_comes_out(machine):
    data = os.urandom(8 << 20)
    with machine.sealane_process("exec", "-i", "web", "cat", stdin=subprocess.PIPE, text=False) as process:
        out, err = process.communicate(data, timeout=60)
    assert (process.returncode, err) == (0, b"")
    assert hashlib.sha256(out).digest() == hashlib.sha256(data).digest()


def test_input_goes_in_as_it_comes(machine):
    with machine.sealane_process(
        "exec", "-i", "web", "sed", "-u", "s/^/got /", stdin=subprocess.PIPE
    ) as process:
        for word in ("one", "two"):
            process.stdin.write(f"{word}\n")
            process.stdin.flush()
            assert process.stdout.readline() == f"got {word}\n"
        process.stdin.close()
        assert process.wait(PATIENCE_S) == 0


@pytest.mark.parametrize(("command", "said"), [(("head", "-c", "3"), b"xxx"), (("true",), b"")])
def test_input_that_nobody_reads_keeps_nothing_from_ending(machine, command, said):
    words = ("exec", "-i", "web", *command)
    with machine.sealane_process(*words, stdin=subprocess.PIPE, text=False) as process:
        out, err = process.communicate(b"x" * (2 << 20), timeout=60)
    assert (process.returncode, out, err) == (0, said, b"")


def test_streams_are_apart_and_there_is_no_input_unless_it_is_given(machine):
    ran = machine.sealane(
        "exec", "web", "sh", "-c", "cat; echo out; echo err >&2; exit 4", text="never\n", check=False
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (4, "out\n", "err\n")


def test_who_interrupts_the_command_ends_the_process(machine):
    with machine.sealane_process("exec", "web", "sh", "-c", "echo set; sleep 76") as process:
        assert process.stdout.readline() == "set\n"
        process.send_signal(signal.SIGINT)
        process.wait(PATIENCE_S)
    eventually(lambda: "sleep 76" not in inside(machine), what="its end")


@pytest.mark.parametrize("terminal", [False, True])
def test_sessions_outlive_the_daemon(machine, terminal):
    """Its end, however sudden, is nothing to who talks with a process."""
    script = "echo set; read word; echo got $word; sleep 0.5; exit 6"
    with (
        Seat(machine, "exec", "-it", "web", "sh", "-c", script)
        if terminal
        else Pipes(machine, "exec", "-i", "web", "sh", "-c", script) as seat
    ):
        seat.sees("set")
        machine.kill9()
        seat.type("one\n")
        seat.sees("got one")
        machine.start()
        assert seat.ends() == 6


class Pipes:
    """What `Seat` is, without a terminal."""

    def __init__(self, host, *words):
        self.process = host.sealane_process(*words, stdin=subprocess.PIPE)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            with contextlib.suppress(BrokenPipeError):
                stream.close()

    def type(self, text):
        self.process.stdin.write(text)
        self.process.stdin.flush()

    def sees(self, line):
        assert self.process.stdout.readline() == f"{line}\n"

    def ends(self):
        return self.process.wait(PATIENCE_S)


def test_a_session_ends_with_its_container(machine):
    machine.sealane("run", "-d", "--name", "box", "sleep", "600")
    with Seat(machine, "exec", "-it", "box", "sh", "-c", "echo set; sleep 74") as seat:
        seat.sees("set")
        machine.sealane("rm", "-f", "box")
        assert seat.ends() == 137


def test_what_a_process_leaves_behind_keeps_nobody(machine):
    ran = machine.sealane("exec", "web", "sh", "-c", "seq 3; sleep 73 & exit 0")
    assert ran.stdout == "1\n2\n3\n"
    with Seat(machine, "exec", "-it", "web", "sh", "-c", "seq 2000; trap '' HUP; sleep 72 & exit 5") as seat:
        seat.sees("\n2000\r\n")
        assert seat.ends() == 5


# --- run


def statuses(host):
    """`running`, or the exit code, of each container."""
    views = json.loads(host.sealane("ps", "--all", "--json").stdout)
    return {v["name"]: v["status"] if v["exit_code"] is None else v["exit_code"] for v in views}


def test_a_container_with_a_shell_at_a_terminal(machine):
    with Seat(machine, "run", "-it", "--rm", "--name", "box", "--network", "front", "sh") as seat:
        seat.type("echo $TERM; stty size; getent ahostsv4 web | head -1\n")
        seat.sees("xterm\r\n30 100\r\n10.74.0.2 ")
        seat.resize(40, 120)
        seat.type("until [ \"$(stty size)\" = '40 120' ]; do sleep 0.1; done; echo gr''own\n")
        seat.sees("grown")
        seat.type("sleep 71\n")
        eventually(lambda: "sleep 71" in inside(machine, "box"), what="its beginning")
        seat.type("\x03")
        seat.type("exit 9\n")
        assert seat.ends() == 9
    assert "box" not in statuses(machine)


def test_what_a_container_says_at_once_is_seen_and_logged(machine):
    with Seat(machine, "run", "-it", "--name", "box", "sh", "-c", "seq 5000; exit 2") as seat:
        seat.sees("^1\r\n2\r\n")
        seat.sees("\n5000\r\n")
        assert seat.ends() == 2
    logged = machine.sealane("logs", "box").stdout.split()
    assert logged == [str(number) for number in range(1, 5001)]
    machine.sealane("rm", "box")


def test_a_container_takes_input_of_any_length(machine):
    data = os.urandom(4 << 20)
    words = ("run", "-i", "--rm", "--name", "box", "sha256sum")
    with machine.sealane_process(*words, stdin=subprocess.PIPE, text=False) as process:
        out, err = process.communicate(data, timeout=60)
    assert (process.returncode, err) == (0, b"")
    assert out.split()[0].decode() == hashlib.sha256(data).hexdigest()
    assert "box" not in statuses(machine)


@pytest.mark.parametrize("command", ["echo out; echo err >&2; exit 3", "exec head -c 3 >/dev/null; exit 3"])
def test_a_containers_streams_are_apart(machine, command):
    words = ("run", "-i", "--rm", "--name", "box", "sh", "-c", f"({command}); exit 3")
    with machine.sealane_process(*words, stdin=subprocess.PIPE) as process:
        out, err = process.communicate("x" * (1 << 20), timeout=60)
    assert (process.returncode, out, err) == (3, *(("out\n", "err\n") if "out" in command else ("", "")))


def test_signals_are_passed_on_to_a_container_that_reads(machine):
    script = "trap 'echo caught; exit 4' INT; echo set; while :; do sleep 0.1; done"
    with Pipes(machine, "run", "-i", "--rm", "--name", "box", "sh", "-c", script) as seat:
        seat.sees("set")
        seat.process.send_signal(signal.SIGINT)
        seat.sees("caught")
        assert seat.ends() == 4


@pytest.mark.parametrize("flags", [(), ("-i",)])
def test_output_is_what_was_written_byte_by_byte(machine, tmp_path, flags):
    """No line is cut, none ended that was not, and nothing is taken for text: `run … tar c | tar x`."""
    data = os.urandom(300_000) + b"a" * 40_000 + b"\r\n\xff\x80no newline"
    path = pathlib.Path(machine.path("/tmp/data"))
    path.write_bytes(data)
    words = ("run", *flags, "--rm", "--name", "box", "-v", "/tmp/data:/data:ro", "cat", "/data")
    with machine.sealane_process(*words, stdin=subprocess.DEVNULL, text=False) as process:
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, b"")
    assert out == data


@pytest.mark.parametrize("number", sorted(PASSED_ON))
def test_signals_are_passed_on_to_a_container(machine, number):
    name = signal.Signals(number).name.removeprefix("SIG")
    script = f"trap 'echo caught; exit 4' {name}; echo set; while :; do sleep 0.1; done"
    with Pipes(machine, "run", "--rm", "--name", "box", "sh", "-c", script) as seat:
        seat.sees("set")
        seat.process.send_signal(number)
        seat.sees("caught")
        assert seat.ends() == 4


def test_a_container_in_the_foreground_is_heard_and_signalled_without_the_daemon(machine):
    script = "trap 'echo caught; exit 6' INT; echo set; while :; do sleep 0.1; done"
    with Pipes(machine, "run", "--name", "box", "sh", "-c", script) as seat:
        seat.sees("set")
        machine.kill9()
        seat.process.send_signal(signal.SIGINT)
        seat.sees("caught")
        assert seat.ends() == 6
    machine.start()
    assert statuses(machine)["box"] == 6
    machine.sealane("rm", "box")


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_a_signal_is_passed_on_though_a_terminal_takes_no_more(machine, tmp_path, form):
    """^S, or a connection that hangs."""
    # A shell would not be interrupted in its `echo`.
    script = (
        "import os, signal; made = lambda name: os.close(os.open(f'/kept/{name}', os.O_CREAT)); "
        "signal.signal(2, lambda *_: (made('caught'), os._exit(9))); made('set'); "
        "[os.write(1, b'0123456789\\n') for _ in iter(int, 1)]"
    )
    outer, inner = os.openpty()
    words = (
        *form,
        "run",
        "--rm",
        "--name",
        "box",
        "-v",
        f"{tmp_path}:/kept",
        "/usr/bin/python3",
        "-c",
        script,
    )
    with machine.sealane_process(*words, stdin=subprocess.DEVNULL, stdout=inner) as process:
        os.close(inner)
        eventually(lambda: (tmp_path / "set").exists(), what="it runs")
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        eventually(lambda: (tmp_path / "caught").exists(), what="it hears of it")
        with contextlib.suppress(OSError):  # The terminal's end.
            while os.read(outer, 65536):
                pass
        assert process.wait(PATIENCE_S) == 9
    os.close(outer)


def test_a_signal_that_comes_while_it_is_made_is_its_own(machine):
    """And not the OCI runtime's, which ends with 2 of it."""
    for pause_s in (0.05, 0.1, 0.15, 0.2, 0.25) * 3:
        words = ("run", "--rm", "--name", "box", "sh", "-c", "sleep 0.3; exit 5")
        with machine.sealane_process(*words, stdin=subprocess.DEVNULL) as process:
            time.sleep(pause_s)
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGUSR1)
            code = process.wait(PATIENCE_S)
        # Before this command hears of signals it ends by them.
        assert code in {5, -signal.SIGUSR1}
        machine.sealane("rm", "-f", "box", check=False)


def test_a_restart_policy_ends_with_the_signal_that_stops(machine):
    script = "trap 'exit 5' TERM; echo set; while :; do sleep 0.1; done"
    with Pipes(machine, "run", "--restart", "always", "--name", "box", "sh", "-c", script) as seat:
        seat.sees("set")
        seat.process.send_signal(signal.SIGTERM)
        assert seat.ends() == 5
    assert statuses(machine)["box"] == 5
    machine.sealane("rm", "box")


def test_a_container_whose_terminal_goes_goes_on(machine):
    with Seat(machine, "run", "-it", "--name", "box", "sh", "-c", "echo set; read word; sleep 600") as seat:
        seat.sees("set")
    assert statuses(machine)["box"] == "running"
    machine.sealane("rm", "-f", "box")


def test_a_container_whose_input_goes_has_its_end(machine):
    with Pipes(machine, "run", "-i", "--name", "box", "sh", "-c", "echo set; cat; exit 8") as seat:
        seat.sees("set")
    eventually(lambda: statuses(machine)["box"] == 8, what="its end")
    machine.sealane("rm", "box")


@pytest.mark.parametrize("terminal", [False, True])
def test_a_conversation_outlives_the_daemon_and_restarts(machine, terminal):
    """Of whatever starts anew with the same shim."""
    flags = ("-it" if terminal else "-i", "--restart", "on-failure:1", "--name", "box")
    script = "echo set; read word; echo got $word; exit 5"
    place = Seat if terminal else Pipes
    with place(machine, "run", *flags, "sh", "-c", script) as seat:
        seat.sees("set")
        machine.kill9()
        seat.type("one\n")
        seat.sees("got one")
        machine.start()
        seat.sees("set")
        seat.type("two\n")
        seat.sees("got two")
        assert seat.ends() == 5
    machine.sealane("rm", "box")


def test_one_that_is_removed_ends_its_conversation(machine):
    with Seat(machine, "run", "-it", "--name", "box", "sh", "-c", "echo set; sleep 600") as seat:
        seat.sees("set")
        machine.sealane("rm", "-f", "box")
        assert seat.ends() == 137


def test_one_whose_supervisor_is_killed_ends_its_conversation(machine):
    with Seat(machine, "run", "-it", "--name", "box", "sh", "-c", "echo set; sleep 600") as seat:
        seat.sees("set")
        [record] = [
            p
            for p in pathlib.Path(machine.state_dir).glob("**/status.json")
            if '"running"' in p.read_text() and '"box"' in (p.parent / "spec.json").read_text()
        ]
        os.kill(json.loads(record.read_bytes())["shim"]["pid"], signal.SIGKILL)
        assert seat.ends() == 137
    machine.sealane("rm", "-f", "box")


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (("nosuch",), 127, "nosuch"),
        (("/etc/passwd",), 126, "permission denied"),
        (("--network", "nowhere", "sh"), 125, "network 'nowhere' not found"),
        (("--name", "web", "sh"), 125, "container web exists"),
        (("-v", "/nonexistent:/x", "sh"), 125, "/nonexistent"),
    ],
)
def test_what_cannot_run_is_refused_as_without_a_terminal(machine, words, code, text):
    name = () if "--name" in words else ("--name", "box")
    plain = machine.sealane("run", *name, *words, check=False)
    asked = machine.sealane("run", "-i", "--rm", *name, *words, check=False)
    assert (asked.returncode, asked.stdout, asked.stderr) == (code, "", plain.stderr)
    assert text in asked.stderr
    assert statuses(machine) == {"web": "running"}


def test_input_stays_open_for_one_that_nobody_talks_with(machine):
    machine.sealane("run", "-d", "-it", "--name", "box", "sh", "-c", "tty; cat; exit 1")
    eventually(lambda: "/dev/pts" in machine.sealane("logs", "box").stdout, what="its terminal")
    assert statuses(machine)["box"] == "running"
    machine.sealane("rm", "-f", "box")
    machine.sealane("run", "-d", "-i", "--name", "box", "sh", "-c", "cat; exit 1")
    machine.sealane("exec", "box", "true")
    machine.sealane("rm", "-f", "box")


# --- what a user's patience, a name and a terminal can do ---------------------------------------------------------


@pytest.mark.parametrize("words", [("run", "-i", "--rm", "--name", "box"), ("exec", "web")])
def test_whoever_reads_slowly_gets_all(machine, words):
    """`| less`, with time spent on the first page: longer than the process lives, and than the shim would have waited."""
    with machine.sealane_process(*words, "seq", "300000", stdin=subprocess.DEVNULL, text=False) as process:
        assert process.stdout.read(2) == b"1\n"
        if words[0] == "run":
            eventually(
                lambda: statuses(machine).get("box") == 0 or blocked(machine), what="all that it can write"
            )
        time.sleep(11)
        rest = process.stdout.read()
        assert process.wait(PATIENCE_S) == 0
    assert rest.split()[-1] == b"300000"
    assert len(rest.split()) == 299_999


def blocked(machine):
    return statuses(machine).get("box") == "running"


def test_an_ended_container_is_removed_though_nobody_takes_its_output(machine):
    with machine.sealane_process(
        "run", "-i", "--name", "box", "seq", "60000", stdin=subprocess.DEVNULL
    ) as process:
        eventually(lambda: statuses(machine).get("box") == 0, what="its end")
        watch = Watch()
        machine.sealane("rm", "box")
        assert watch.elapsed_s() < 15
        out, _ = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, out.split()[-1]) == (0, "60000")


@pytest.mark.parametrize("rm", [(), ("--rm",)])
def test_a_name_that_is_somebody_elses_by_now_is_left_to_him(machine, rm):
    """A command that was stopped (^Z, a laptop asleep) meanwhile."""
    loop = "trap 'echo caught; exit 9' INT; while :; do sleep 0.1; done"
    with Pipes(machine, "run", "-i", *rm, "--name", "box", "sh", "-c", "echo set; sleep 600") as seat:
        seat.sees("set")
        seat.process.send_signal(signal.SIGSTOP)
        machine.sealane("rm", "-f", "box")
        machine.sealane("run", "-d", "--name", "box", "sh", "-c", loop)
        seat.process.send_signal(signal.SIGINT)
        seat.process.send_signal(signal.SIGCONT)
        assert seat.ends() == 137
    assert statuses(machine)["box"] == "running"
    assert "caught" not in machine.sealane("logs", "box").stdout
    machine.sealane("rm", "-f", "box")


@pytest.mark.parametrize(
    "words",
    [
        ("exec", "web", "echo", "hi"),
        ("exec", "-i", "web", "cat"),
        ("run", "-i", "--rm", "cat"),
        ("run", "--rm", "echo", "hi"),
    ],
)
@pytest.mark.parametrize("closed", ["<&-", "<&- 2>&-"])
def test_an_input_that_is_closed_is_at_its_end(machine, words, closed):
    command = [sys.executable, "-m", "sealane", *words]
    enter = ["nsenter", f"--net={machine.ns.path}", f"--mount=/proc/{machine.ns.pid}/ns/mnt", "--"]
    ran = subprocess.run(
        [*enter, "sh", "-c", f'"$@" {closed}', "sh", *command],
        env=machine._environment(), capture_output=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    assert (ran.returncode, ran.stdout) == (0, b"hi\n" if "hi" in words else b"")


@pytest.mark.parametrize("words", [("exec", "web"), ("run", "--rm"), ("run", "-i", "--rm")])
def test_an_output_that_is_closed_is_no_reason_to_fail(machine, words):
    enter = ["nsenter", f"--net={machine.ns.path}", f"--mount=/proc/{machine.ns.pid}/ns/mnt", "--"]
    command = [sys.executable, "-m", "sealane", *words, "sh", "-c", "echo hi; exit 3"]
    ran = subprocess.run(
        [*enter, "sh", "-c", '"$@" >&-', "sh", *command], env=machine._environment(), capture_output=True,
        timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    assert (ran.returncode, ran.stderr) == (3, b"")


@pytest.mark.parametrize("words", [("run", "-it", "--rm", "--name", "box"), ("exec", "-it", "web")])
def test_a_terminal_that_everybody_closed_may_be_opened_again(machine, words):
    """As init systems and daemons do."""
    script = "T=$(tty); exec </dev/null >/dev/null 2>&1; sleep 0.5; seq 20000 >$T; exit 4"
    with Seat(machine, *words, "sh", "-c", script) as seat:
        seat.sees("(^|\n)1\r\n")
        seat.sees("\n20000\r\n")
        assert seat.ends() == 4


@pytest.mark.parametrize("words", [("run", "-it", "--rm", "--name", "box"), ("exec", "-it", "web")])
def test_a_terminal_has_its_size_from_the_first_instant(machine, words):
    for _ in range(8):
        with Seat(machine, *words, "stty", "size") as seat:
            seat.sees("^30 100\r\n")
            assert seat.ends() == 0


def test_a_name_that_is_only_kept_until_it_is_needed_is_free(machine):
    machine.sealane("run", "-d", "--rm", "--name", "box", "true")
    eventually(lambda: statuses(machine).get("box", 0) == 0, what="its end")
    with Pipes(machine, "run", "-i", "--rm", "--name", "box", "cat") as seat:
        seat.type("one\n")
        seat.sees("one")
        seat.process.stdin.close()
        assert seat.ends() == 0


@pytest.mark.parametrize("after_ms", range(20, 120, 4))
def test_whoever_leaves_at_any_instant_leaves_nothing_running(machine, after_ms):
    """Before, while and after the OCI runtime starts it."""
    path = machine.socket_path
    body = json.dumps({"command": ["sleep", "777"]}).encode()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
        head = f"POST /v1/containers/web/exec HTTP/1.1\r\nHost: \r\nContent-Length: {len(body)}\r\n"
        client.sendall(f"{head}Connection: Upgrade\r\nUpgrade: sealane-frames\r\n\r\n".encode() + body)
        time.sleep(after_ms / 1000)
    time.sleep(0.3)
    eventually(lambda: "sleep 777" not in inside(machine), what="its end")


def test_keys_that_leave_leave_it_running(machine):
    with Seat(
        machine, "run", "-it", "--rm", "--name", "box", "sh", "-c", "echo set; stty raw -echo; cat -v"
    ) as seat:
        seat.sees("set")
        time.sleep(0.5)
        seat.type("a\x10b\x10")
        seat.sees("a\\^Pb")
        seat.type("\x11")
        assert seat.ends() == 0
    assert statuses(machine)["box"] == "running"
    machine.sealane("rm", "-f", "box")


def test_a_window_that_closes_is_a_hangup(machine):
    with Seat(machine, "exec", "-it", "web", "sh", "-c", "echo set; sleep 70") as seat:
        seat.sees("set")
        os.close(seat._keys)
        seat._keys = os.open(os.devnull, os.O_RDONLY)
        assert seat.process.wait(PATIENCE_S) == 128 + signal.SIGHUP


def attendant_of(machine, word):
    """The parent of the shell whose command has this word."""
    attendants = set(machine.processes())
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            parent = parent_of(pid)
            if parent in attendants and command_of(pid)[:3] == ["sh", "-c", f"echo set; {word}"]:
                return parent
    raise AssertionError(f"nobody runs {word}")


def attendants(machine):
    found = []
    for pid in machine.processes():
        with contextlib.suppress(OSError):
            found.append(pathlib.Path(f"/proc/{pid}/comm").read_text().strip())
    return [name for name in found if name == "sealane-exec"]


def test_what_a_killed_attendant_leaves_goes_with_the_next_start(machine):
    machine.sealane("run", "-d", "--name", "box", "sleep", "600")
    with Seat(machine, "exec", "-it", "box", "sh", "-c", "echo set; sleep 69") as seat:
        seat.sees("set")
        os.kill(attendant_of(machine, "sleep 69"), signal.SIGKILL)
        assert seat.process.wait(PATIENCE_S) == 125
        seat.sees("the process was lost")
    machine.sealane("restart", "-t", "0", "box")
    assert "exec-" not in machine.ns.sh("sh", "-c", "ls /run/sealane/containers/containers/*/")
    machine.sealane("rm", "-f", "box")


def test_nothing_is_left_of_sessions(machine):
    machine.sealane("exec", "web", "true")
    machine.sealane("exec", "-t", "web", "true")
    machine.sealane("exec", "web", "nosuch", check=False)
    folders = machine.ns.sh("sh", "-c", "ls /run/sealane/containers/*/ 2>/dev/null || true")
    assert "exec-" not in folders
    assert "console-" not in folders
    eventually(lambda: attendants(machine) == [], what="the attendants' end")
