"""`run`, `exec`, `ps`, `logs`, `stop`, `start`, `kill`, `rm`, with Docker's flags and codes."""

import asyncio
import base64
import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time

import msgspec
import pytest

import sealane
from sealane.cli.commands.containers import status_text
from sealane.cli.follow import since_time, stamp
from sealane.cli.main import main
from sealane.cli.terminal import PASSED_ON
from sealane.containers.spec import ContainerSpec, check_spec
from unit.api.doubles import until

SOURCE = os.path.dirname(os.path.dirname(sealane.__file__))


def spec_of(request, **filled):
    """The runtime's record, as the daemon makes it of a request; proves that the fields and their types are right."""
    given = msgspec.json.decode(request.spec) | {"id": "c" * 32, "name": request.name} | filled
    spec = msgspec.convert(given, ContainerSpec)
    check_spec(spec)
    return spec


@pytest.fixture
def sent(api):
    return api.services.workloads.requests


def test_a_detached_run_prints_the_name_and_returns(cli, sent):
    ran = cli("run", "-d", "--name", "web", "--network", "front", "sleep", "-x", "9")
    assert (ran.code, ran.out) == (0, "web\n")
    assert spec_of(sent["web"]).command == ("sleep", "-x", "9")
    assert [a.network for a in sent["web"].attachments] == ["front"]


@pytest.mark.parametrize("mode", ["private", "host"])
def test_a_user_namespace_is_asked_for(cli, sent, mode):
    assert cli("run", "-d", "--name", "web", "--userns", mode, "--network", "front", "x").code == 0
    assert sent["web"].userns == mode
    assert cli("run", "-d", "--name", "db", "--network", "front", "x").code == 0
    assert sent["db"].userns == ""
    assert cli("run", "-d", "--userns", "keep-id", "--network", "front", "x").code != 0


def test_a_name_is_made_from_the_command(cli, sent):
    name = cli("run", "-d", "--network", "none", "/usr/sbin/nginx", "-g", "x").out.strip()
    assert name.startswith("nginx-")
    assert sent[name].network_mode == "none"


def test_every_flag_reaches_the_request(cli, sent, tmp_path):
    (tmp_path / "e.env").write_text("A=file\nC='3'\n")
    ran = cli(
        "run", "-d", "--name", "web", "--network", "name=front,alias=a,alias=b,ip=10.1.0.7,ip6=fd00::7,gw-priority=9",
        "--network", "back", "--network-alias", "www", "-p", "8080:80", "-p", "127.0.0.1::53/udp",
        "-e", "A=flag", "-e", "HERE", "--env-file", str(tmp_path / "e.env"),
        "-v", f"{tmp_path}:/data:ro", "--tmpfs", "/scratch:size=1m,mode=700", "--rootfs", str(tmp_path),
        "--restart", "on-failure:3", "--memory", "256m", "--cpus", "1.5", "--pids-limit", "64",
        "--cap-add", "NET_ADMIN", "--cap-drop", "ALL", "--dns", "9.9.9.9", "--dns-search", "corp", "--dns-option", "ndots:2",
        "--add-host", "db:10.0.0.1", "--add-host", "host=host-gateway", "--add-host", "six:[fd00::1]",
        "--sysctl", "net.ipv4.ip_forward=1", "-w", "/data", "-u", "1000:1000", "--hostname", "box", "--read-only",
        "--init", "--label", "tier=web", "--health-cmd", "true", "--health-interval", "5s", "--health-timeout", "2s",
        "--health-retries", "4", "--health-start-period", "1m", "--stop-signal", "INT", "--stop-timeout", "0",
        "sleep", "9",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    request = sent["web"]
    front, back = request.attachments
    assert (front.network, front.aliases, front.addresses) == (
        "front",
        ["a", "b", "www"],
        ["10.1.0.7", "fd00::7"],
    )
    assert (front.gateway_priority, back.network, back.aliases) == (9, "back", ["www"])
    assert [(p.host_first, p.port, p.proto) for p in request.publish] == [(8080, 80, "tcp"), (0, 53, "udp")]
    assert (request.dns, request.dns_search, request.dns_options) == (["9.9.9.9"], ["corp"], ["ndots:2"])
    assert request.hosts == {"db": "10.0.0.1", "host": "host-gateway", "six": "fd00::1"}
    assert (request.sysctls, request.labels) == ({"net.ipv4.ip_forward": "1"}, {"tier": "web"})
    spec = spec_of(request, netns="/run/netns/x")
    assert spec.env == {"A": "flag", "C": "'3'"}
    assert [m.target for m in spec.mounts] == ["/data", "/scratch"]
    assert (spec.mounts[0].read_only, spec.mounts[1].size_bytes, spec.mounts[1].mode) == (
        True,
        1 << 20,
        0o700,
    )
    assert (spec.rootfs, spec.restart, spec.working_dir, spec.user) == (
        str(tmp_path),
        "on-failure:3",
        "/data",
        "1000:1000",
    )
    assert (spec.limits.memory_bytes, spec.limits.cpus, spec.limits.pids) == (256 << 20, 1.5, 64)
    assert (spec.cap_add, spec.cap_drop, spec.hostname) == (("NET_ADMIN",), ("ALL",), "box")
    assert (spec.read_only, spec.init, spec.stop_signal, spec.stop_timeout_s) == (True, True, "INT", 0.0)
    assert (spec.health.test, spec.health.interval_s, spec.health.retries) == (("CMD-SHELL", "true"), 5.0, 4)


TRUE, FALSE = ("1", "t", "T", "true", "True", "TRUE"), ("0", "f", "F", "false", "False", "FALSE")


@pytest.mark.parametrize(
    ("value", "spelling"), [(v, s) for v, all_ in ((True, TRUE), (False, FALSE)) for s in all_]
)
def test_a_switch_takes_every_spelling_of_true_and_false(cli, sent, value, spelling):
    flags = [f"{flag}={spelling}" for flag in ("--read-only", "--init", "-t", "--interactive", "--rm")]
    assert (
        cli("run", "--detach=true", "--name", "web", "--network", "none", *flags, "x", "--tty=false").code
        == 0
    )
    spec = spec_of(sent["web"])
    assert (spec.read_only, spec.init, spec.tty, spec.stdin_open) == (value,) * 4
    assert (sent["web"].auto_remove, spec.command) == (value, ("x", "--tty=false"))


def test_switches_of_other_commands_take_them_too(cli, sent, api):
    cli("run", "-d", "--name", "web", "--network", "none", "x")
    assert json.loads(cli("ps", "--json=true", "--all=false").out)[0]["name"] == "web"
    assert cli("ps", "-q=t", "-a=1").out == "web\n"
    assert cli("rm", "--force=false", "web").code == 1
    assert cli("rm", "--force=true", "web").code == 0


def test_of_two_switches_the_last_is_heard(cli, sent):
    assert cli("run", "-d", "--name", "a", "--network", "none", "--init", "--init=false", "x").code == 0
    assert not spec_of(sent["a"]).init


@pytest.mark.parametrize("verb", [("run",), ("exec",)])
@pytest.mark.parametrize("word", ["--tty=maybe", "--interactive=", "--tty=yes"])
def test_a_switch_that_is_neither_is_refused(run, verb, word):
    flag, _, value = word.partition("=")
    ran = run(*verb, word, "web", "x")
    assert (ran.code, f"\nerror: {value!r} is neither true nor false\nfield: {flag}\n" in ran.err) == (
        125,
        True,
    )


def test_exec_takes_switches_too(cli, api):
    cli("run", "-d", "--name", "web", "--network", "none", "x")
    assert cli("exec", "--tty=false", "-i=false", "web", "x").code == 0
    assert not api.services.workloads.exec_requests[-1].terminal


def test_an_env_file_is_taken_literally(cli, sent, tmp_path, monkeypatch):
    monkeypatch.setenv("HERE", "yes")
    monkeypatch.delenv("GONE", raising=False)
    (tmp_path / "e.env").write_bytes(
        b"\xef\xbb\xbfA=\"b c\" # d\n\n  # no=thing\nB='x'\r\nHERE\nGONE\n\tC= $A \nD=\nA.b-c=1=2\n"
    )
    cli("run", "-d", "--name", "web", "--network", "none", "--env-file", str(tmp_path / "e.env"), "x")
    assert spec_of(sent["web"]).env == {
        "A": '"b c" # d', "B": "'x'", "HERE": "yes", "C": " $A ", "D": "", "A.b-c": "1=2",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("line", "what"), [("export A=b", "'export A' has a space in it"), ("=b", "'' is empty")]
)
def test_an_env_file_that_is_wrong_names_the_line(cli, sent, tmp_path, line, what):
    (tmp_path / "e.env").write_text(f"A=b\n{line}\n")
    ran = cli("run", "--env-file", str(tmp_path / "e.env"), "x")
    assert ran.err.startswith(
        f"error: {tmp_path}/e.env line 2: the name {what}\nfield: --env-file\nhint: write NAME=value"
    )
    assert (ran.code, sent) == (125, {})


def test_no_limit_and_any_port_and_half_a_processor_are_written_as_for_docker(cli, sent):
    words = ("--pids-limit", "-1", "--cpus", ".5", "-p", "0:80")
    assert cli("run", "-d", "--name", "web", "--network", "n", *words, "x").code == 0
    limits = spec_of(sent["web"]).limits
    assert (limits.pids, limits.cpus, sent["web"].publish[0].host_first) == (None, 0.5, 0)


def test_a_variable_without_a_value_is_the_callers(cli, sent, monkeypatch):
    monkeypatch.setenv("HERE", "yes")
    monkeypatch.delenv("GONE", raising=False)
    cli("run", "-d", "--name", "web", "-e", "HERE", "-e", "GONE", "env")
    assert spec_of(sent["web"]).env == {"HERE": "yes"}


def test_without_a_network_the_default_one_is_made_once(cli, api, sent):
    cli("run", "-d", "--name", "a", "true")
    made = api.services.engine.nets["default"]
    cli("run", "-d", "--name", "b", "true")
    assert api.services.engine.nets["default"] is made
    assert [a.network for a in sent["b"].attachments] == ["default"]


def test_static_addresses_are_for_the_only_network(cli, sent):
    cli(
        "run",
        "-d",
        "--name",
        "a",
        "--network",
        "n",
        "--ip",
        "10.0.0.5",
        "--mac-address",
        "02:00:00:00:00:01",
        "true",
    )
    assert (sent["a"].attachments[0].addresses, sent["a"].attachments[0].mac) == (
        ["10.0.0.5"],
        "02:00:00:00:00:01",
    )


@pytest.mark.parametrize(
    ("words", "field"),
    [
        ((), "COMMAND"),
        (("--",), "COMMAND"),
        (("--rm", "--restart", "always", "true"), "--restart"),
        (("--network", "a", "--network", "a", "true"), "--network"),
        (("--network", "host", "--network", "a", "true"), "--network"),
        (("--network", "none", "--ip", "10.0.0.1", "true"), "--network"),
        (("--network", "a", "--network", "b", "--ip", "10.0.0.1", "true"), "--ip"),
        (("--network", "a", "--network", "b", "--ip6", "fd00::1", "true"), "--ip6"),
        (("--network", "name=a,color=red", "true"), "--network"),
        (("--network", "alias=a", "true"), "--network"),
        (("--network", "name=a,ip=10.0.0.1,ip=10.0.0.2", "true"), "--network"),
        (("--network", "name=a,gw-priority=high", "true"), "--network"),
        (("--network", "name=a,driver-opt=x=y", "true"), "--network"),
        (("-p", "80:80:80:80", "true"), "--publish"),
        (("-v", "named:/data", "true"), "--volume"),
        (("--tmpfs", "/x:ro", "true"), "--tmpfs"),
        (("--memory", "lots", "true"), "--memory"),
        (("--cpus", "0", "true"), "--cpus"),
        (("--env", "=x", "true"), "--env"),
        (("--env-file", "/nonexistent", "true"), "--env-file"),
        (("--add-host", "db", "true"), "--add-host"),
        (("--health-interval", "5s", "true"), "--health-cmd"),
        (("--health-cmd", "x", "--health-interval", "5", "true"), "--health-interval"),
        (("--sysctl", "a=1", "--sysctl", "a=2", "true"), "--sysctl"),
        (("--rootfs", "~nobody/x", "true"), "--rootfs"),
    ],
)
def test_a_flag_that_is_wrong_is_125_and_starts_nothing(cli, sent, words, field):
    ran = cli("run", *words)
    assert (ran.code, sent) == (125, {})
    assert f"field: {field}\n" in ran.err


def test_a_daemon_that_refuses_is_125_and_a_missing_command_127(cli, api):
    cli("run", "-d", "--name", "web", "true")
    assert cli("run", "-d", "--name", "unlaunchable", "nope").code == 127
    assert cli("exec", "none", "true").code == 125
    assert cli("exec", "web", "nope").code == 127
    assert cli("exec", "web").code == 125


def test_run_shows_its_output_as_it_came_and_has_its_code(cli, api):
    ran = cli("run", "--rm", "--name", "web", "-e", "CODE=42", "true")
    assert (ran.code, ran.out, ran.err) == (42, "out:", "err\n")
    assert "web" not in api.services.workloads.all


def test_one_that_is_removed_before_its_end_is_told_was_killed(api, cli, monkeypatch):
    workloads = api.services.workloads
    talk = workloads._talk

    async def talk_and_lose(*words):
        await talk(*words)
        del workloads.all["web"]

    monkeypatch.setattr(workloads, "_talk", talk_and_lose)
    ran = cli("run", "--name", "web", "-e", "LOST=1", "true")
    assert (ran.code, ran.out, ran.err) == (137, "out:", "err\n")


def running(api, *words, **streams):
    command = [
        sys.executable,
        "-m",
        "sealane",
        "--socket",
        api.path,
        "run",
        "--name",
        "web",
        "-e",
        "WAITS=1",
        *words,
    ]
    return subprocess.Popen(command, env={"PYTHONPATH": SOURCE}, stdout=subprocess.PIPE, **streams)


@pytest.mark.parametrize("number", sorted(PASSED_ON))
def test_a_signal_is_passed_on_to_the_container(api, number):
    with running(api, "true") as process:
        assert process.stdout.read(4) == b"out:"
        process.send_signal(number)
        process.communicate(timeout=100)
    assert process.returncode == 128 + number


def test_a_signal_is_passed_on_though_nobody_takes_the_output(api, monkeypatch):
    """As behind a pager."""
    data = b"x" * 300_000
    with stdin_of(data), running(api, "-i", "cat", stdin=0) as process:
        until(lambda: select.select([process.stdout], [], [], 0)[0])
        process.send_signal(signal.SIGTERM)
        # What it says to that comes behind what waits.
        out, _ = process.communicate(timeout=100)
    assert (process.returncode, len(out)) == (128 + signal.SIGTERM, len(data) + 4)


def test_a_signal_that_comes_before_anything_runs_is_passed_on(api, monkeypatch):
    workloads = api.services.workloads
    create, gate = workloads.create, threading.Event()

    async def slowly(request, **options):
        await asyncio.to_thread(gate.wait, 20)
        return await create(request, **options)

    monkeypatch.setattr(workloads, "create", slowly)
    with running(api, "true") as process:
        until(lambda: waits(process.pid))
        process.send_signal(signal.SIGINT)
        gate.set()
        process.communicate(timeout=100)
    assert process.returncode == 128 + signal.SIGINT


def test_what_was_ignored_from_the_start_stays_so(api):
    """By `nohup`, or as what a shell has in the background."""
    with running(api, "true", preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)) as process:
        assert process.stdout.read(4) == b"out:"
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=100)
    assert process.returncode == 128 + signal.SIGTERM


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("words", [("exec", "-i", "web", "cat"), ("run", "-i", "--name", "other", "cat")])
@pytest.mark.parametrize("form", [(), ("--json",)])
def test_a_pipe_that_takes_a_little_at_a_time_gets_all(cli, api, unbuffered, words, form):
    """One that somebody has made non-blocking: whoever has it open shares that."""
    cli("run", "-d", "--name", "web", "true")
    data = bytes(range(256)) * 1200
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    command = [sys.executable, "-m", "sealane", "--socket", api.path, *form, *words]
    environ = {"PYTHONPATH": SOURCE, "PYTHONUNBUFFERED": unbuffered}
    out = b""
    with (
        stdin_of(data),
        subprocess.Popen(command, stdin=0, stdout=writer, stderr=subprocess.PIPE, env=environ) as process,
    ):
        os.close(writer)
        time.sleep(0.5)
        while piece := os.read(reader, 5000):
            out += piece
        process.communicate(timeout=100)
    os.close(reader)
    if form:
        pieces = [json.loads(line) for line in out.splitlines()]
        out = b"".join(base64.b64decode(piece["data"]) for piece in pieces if piece["stream"] == "stdout")
    assert (process.returncode, out) == (0, b"out:" + data)


def waits(pid):
    """Whether SIGUSR2, which Python leaves alone, is caught."""
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        [caught] = [line.split()[1] for line in file if line.startswith("SigCgt")]
    return bool(int(caught, 16) >> (signal.SIGUSR2 - 1) & 1)


@contextlib.contextmanager
def stdin_of(data):
    reader, writer = os.pipe()
    feeder = threading.Thread(target=lambda: (os.write(writer, data), os.close(writer)))
    feeder.start()
    saved = os.dup(0)
    os.dup2(reader, 0)
    try:
        yield
    finally:
        feeder.join()
        os.dup2(saved, 0)
        os.close(saved)
        os.close(reader)


def test_exec_passes_bytes_both_ways_and_the_code_on(cli, api, capfdbinary):
    cli("run", "-d", "--name", "web", "true")
    with stdin_of(b"\x00\xffin"):
        code = main(
            ["--socket", api.path, "exec", "-i", "-e", "CODE=7", "-u", "9", "-w", "/x", "web", "cat", "-n"]
        )
    captured = capfdbinary.readouterr()
    assert (code, captured.out, captured.err) == (7, b"out:\x00\xffin", b"err\n")
    (request,) = api.services.workloads.exec_requests
    assert (request.command, request.user, request.working_dir) == (["cat", "-n"], "9", "/x")
    assert not request.terminal


def test_exec_gives_no_input_unless_it_is_asked_to(cli, api, capfdbinary):
    cli("run", "-d", "--name", "web", "true")
    with stdin_of(b"never"):
        assert main(["--socket", api.path, "exec", "web", "cat"]) == 0
    assert capfdbinary.readouterr().out == b"out:"


def test_exec_prints_documents_too(cli):
    cli("run", "-d", "--name", "web", "true")
    ran = cli("--json", "exec", "-e", "CODE=3", "web", "cat")
    assert [json.loads(line) for line in ran.out.splitlines()] == [
        {"stream": "stdout", "data": "b3V0Og==", "exit_code": None},
        {"stream": "stderr", "data": "ZXJyCg==", "exit_code": None},
        {"stream": "exit", "data": "", "exit_code": 3},
    ]
    assert ran.code == 3


def test_a_terminal_is_asked_for_where_there_is_one(cli, api):
    cli("run", "-d", "--name", "web", "true")
    with stdin_of(b""):
        ran = cli("exec", "-it", "web", "sh")
    assert (ran.code, api.services.workloads.exec_requests) == (125, [])
    assert ran.err.startswith("error: the input device is not a TTY\nfield: --tty\n")
    assert cli("exec", "-t", "web", "sh").code == 0
    assert api.services.workloads.exec_requests[0].terminal


def test_run_is_at_a_new_containers_input_and_output(cli, api):
    with stdin_of(b"in"):
        ran = cli("run", "-i", "--rm", "--name", "web", "-e", "CODE=5", "cat")
    assert (ran.code, ran.out, ran.err) == (5, "out:in", "err\n")
    spec = msgspec.json.decode(api.services.workloads.requests["web"].spec)
    assert (spec["stdin_open"], "tty" in spec) == (True, False)
    assert "web" not in api.services.workloads.all


def test_what_run_is_refused_after_the_connection_is_another_takes_nothing_away(cli, api):
    with stdin_of(b""):
        ran = cli("run", "-i", "--rm", "--name", "unlaunchable", "nope")
    assert ran.code == 127
    assert ran.err.startswith("error: the runtime refused: nope: not found\nfield: COMMAND\n")
    assert api.services.workloads.removed == []
    cli("run", "-d", "--name", "web", "true")
    with stdin_of(b""):
        assert cli("run", "-i", "--rm", "--name", "web", "true").code == 125
    assert list(api.services.workloads.all) == ["web"]


def test_a_container_in_the_background_has_its_input_open(cli, api):
    cli("run", "-d", "-it", "--name", "web", "sh")
    spec = msgspec.json.decode(api.services.workloads.requests["web"].spec)
    assert (spec["stdin_open"], spec["tty"]) == (True, True)


def test_what_the_runtime_cannot_start_is_an_error_as_any_other(cli):
    cli("run", "-d", "--name", "web", "true")
    ran = cli("exec", "web", "gone")
    assert (ran.code, ran.out) == (127, "")
    assert ran.err == "error: gone: not found\nfield: COMMAND\nhint: name a program that the container has\n"


def test_an_exec_that_the_daemon_breaks_off_is_125(cli):
    cli("run", "-d", "--name", "web", "true")
    ran = cli("exec", "web", "fail")
    assert (ran.code, ran.out) == (125, "out:")
    assert "the process was lost" in ran.err
    assert "secret" not in ran.err


def test_ps_lists_what_runs_and_with_all_what_has_ended(cli, api):
    cli("run", "-d", "--name", "web", "--network", "n", "-p", "8080:80", "sleep", "1")
    cli("run", "-d", "--name", "job", "--network", "n", "true")
    cli("stop", "job")
    header, row = cli("ps").out.splitlines()
    assert header.split() == ["NAME", "STATUS", "ADDRESSES", "PORTS", "COMMAND"]
    assert row.startswith("web    running ")
    assert "n 10.9.0.2/24   *:8080->80/tcp   sleep 1" in row
    assert len(cli("ps", "-a").out.splitlines()) == 3
    assert cli("ps", "-aq").out == "job\nweb\n"
    assert len(json.loads(cli("ps", "--json").out)) == 1


def test_a_status_is_words():
    view = {
        "status": "running",
        "started_at": 100.0,
        "finished_at": 0.0,
        "health": "healthy",
        "exit_code": None,
        "oom_killed": False,
    }
    assert status_text(view, 100.0 + 7300) == "running 2h (healthy)"
    died = view | {"status": "exited", "exit_code": 137, "finished_at": 100.0, "oom_killed": True}
    assert status_text(died, 100.0 + 7300) == "exited 137 (out of memory) 2h ago"
    assert status_text(view | {"health": ""}, 100.2) == "running 0s"
    ended = view | {"status": "exited", "exit_code": 137, "finished_at": 200.0}
    assert status_text(ended, 200.0 + 3 * 86400) == "exited 137 3d ago"
    assert status_text(view | {"status": "restarting", "health": ""}, 0.0) == "restarting"


def test_several_containers_are_stopped_killed_and_removed(cli, api):
    for name in ("a", "b"):
        cli("run", "-d", "--name", name, "true")
    assert cli("start", "a", "b").out == "a\nb\n"
    assert cli("kill", "-s", "usr1", "a").out == "a\n"
    assert cli("kill", "b").code == 0
    assert api.services.workloads.signals == [("a", 10), ("b", 9)]
    ran = cli("stop", "-t", "0", "a", "none")
    assert (ran.code, ran.out) == (1, "a\n")
    assert cli("rm", "a", "b").out == "a\nb\n"
    cli("run", "-d", "--name", "c", "true")
    assert (cli("rm", "c").code, cli("rm", "-f", "c").code) == (1, 0)


@pytest.mark.parametrize("text", ["nan", "inf", "1e300", "-1", "soon"])
def test_seconds_that_are_none_are_refused(cli, text):
    cli("run", "-d", "--name", "web", "true")
    ran = cli("stop", "-t", text, "web")
    assert (ran.code, "field: --timeout\n" in ran.err) == (2, True)
    assert cli("run", "--stop-timeout", text, "true").code == 125


def test_logs_keep_their_streams_apart(cli, api):
    cli("run", "-d", "--name", "web", "true")
    assert cli("logs", "web").out == "line 0\nline 1\nline 2\n"
    assert cli("logs", "-n", "1", "-t", "web").out == "2023-11-14T22:13:22.000Z line 2\n"
    assert cli("logs", "--tail", "all", "web").out.count("\n") == 3
    assert cli("logs", "--since", "2023-11-14T22:13:22Z", "web").out == "line 2\n"
    assert [json.loads(line)["text"] for line in cli("logs", "--json", "web").out.splitlines()][0] == "line 0"
    api.call(api.services.workloads.finish, "web", 0)
    ran = cli("logs", "-f", "web")
    assert (ran.out.count("\n"), ran.err) == (3, "bye\n")
    assert cli("logs", "none").code == 1


def test_times_are_read_as_people_write_them():
    assert since_time("1700000000.5") == 1_700_000_000.5
    assert since_time("2023-11-14T22:13:20Z") == 1_700_000_000
    assert since_time("2023-11-14T23:13:20+01:00") == 1_700_000_000
    assert since_time("2h") < since_time("1h") < since_time("10s")
    assert stamp(1_700_000_000.25) == "2023-11-14T22:13:20.250Z"


def test_inspect_shows_what_was_asked_for(cli) -> None:
    cli("run", "-d", "--name", "web", "-e", "A=1", "-v", "/srv:/srv", "--restart", "always", "true")
    ran = cli("inspect", "web", "nope")
    assert ran.code == 1
    (found,) = json.loads(ran.out)
    assert (found["name"], found["status"]) == ("web", "running")
    spec = found["request"]["spec"]
    assert (spec["env"], spec["restart"], spec["mounts"][0]["target"]) == ({"A": "1"}, "always", "/srv")
    assert "'nope'" in ran.err


def test_restart_stops_and_starts(cli, api) -> None:
    cli("run", "-d", "--name", "web", "true")
    assert cli("restart", "-t", "0", "web").out == "web\n"
    assert json.loads(cli("ps", "--json").out)[0]["status"] == "running"
    assert api.services.workloads.exited["web"].is_set(), "it was stopped"


def test_a_name_that_is_taken_is_refused_and_nothing_runs(cli, api) -> None:
    cli("run", "-d", "--name", "web", "true")
    ran = cli("run", "--rm", "--name", "web", "true")
    assert ran.code == 125
    assert "container web exists" in ran.err
    assert list(api.services.workloads.all) == ["web"]


def test_guests_go_before_their_hosts(cli, api) -> None:
    for name in ("web", "side"):
        cli("run", "-d", "--name", name, "true")
    views = api.services.workloads.all
    views["side"] = msgspec.structs.replace(views["side"], sandbox="web")
    assert cli("rm", "-f", "web", "side").out == "side\nweb\n"


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("network", "connect", "a", "b"), "sealane attach CONTAINER NETWORK"),
        (("images",), "sealane image ls"),
        (("run", "--nonsense", "x"), "see `sealane run --help`"),
    ],
)
def test_dockers_words_are_told_where_to_go(cli, words, hint) -> None:
    ran = cli(*words)
    assert ran.code == (125 if words[0] == "run" else 2)
    assert hint in ran.err.splitlines()[-1]
