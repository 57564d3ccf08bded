"""Exit codes, errors, and the speed of starting."""

import json
import os
import re
import socket
import subprocess
import sys

import pytest

import sealane
from sealane.cli.parser import build_parser
from sealane.cli.registry import COMMANDS, GROUPS

NO_OTHER_USER = 77
SOURCE = os.path.dirname(os.path.dirname(sealane.__file__))


def test_a_refusal_is_1_with_message_field_and_hint(cli):
    cli("network", "create", "front")
    ran = cli("network", "create", "-d", "routed", "front")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == (
        "error: network front exists with another driver\n"
        "field: --driver\n"
        "hint: `sealane network rm front` first, or choose another name\n"
    )


def test_a_refusal_as_json_is_the_error_body(cli):
    ran = cli("--json", "network", "create", "a/b")
    assert (ran.code, ran.out) == (1, "")
    assert json.loads(ran.err)["field"] == "NAME"


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("netwrok",),
        ("network",),
        ("network", "creat", "x"),
        ("network", "create"),
        ("network", "create", "--driver", "overlay", "x"),
        ("network", "create", "--sub", "10.0.0.0/8", "x"),
        ("network", "create", "--ipv6=maybe", "x"),
        ("events", "--since", "-1"),
        ("events", "--since", "١"),
        ("kill", "-s", "SIGNOTHING", "x"),
        ("logs", "--tail", "few", "x"),
        ("logs", "--since", "yesterday", "x"),
        ("completion", "tcsh"),
    ],
)
def test_a_wrong_command_line_is_2_and_asks_nothing(run, words):
    ran = run("--socket", "/nonexistent/s.sock", *words)
    assert ran.code == 2
    assert "usage:" in ran.err
    assert ran.out == ""


@pytest.mark.parametrize(
    ("words", "field", "what", "command"),
    [
        (("ps", "--bogus"), "--bogus", "unrecognized arguments: --bogus", "sealane ps"),
        (("network", "create"), "NAME", "the following arguments are required: NAME", "sealane network create"),
        (("network",), "COMMAND", "the following arguments are required: COMMAND", "sealane network"),
        (("kill", "-s", "NOPE", "x"), "--signal", "there is no signal 'NOPE'", "sealane kill"),
        (("stop", "-t", "soon", "x"), "--timeout", "'soon' is not a number of seconds", "sealane stop"),
        (("run", "--pids-limit", "x", "y"), "--pids-limit", "'x' is not a whole number", "sealane run"),
        (("attach", "w", "n", "--gw-priority", "x"), "--gw-priority", "'x' is not a whole number", "sealane attach"),
        (("explain", "a", "b", "-4", "-6"), "-6", "not allowed with argument -4", "sealane explain"),
    ],
)  # fmt: skip
def test_a_wrong_command_line_has_its_field_and_a_hint(run, words, field, what, command):
    ran = run(*words)
    assert f"\nerror: {what}\nfield: {field}\n" in ran.err
    assert ran.err.startswith(f"usage: {command} [-h]")
    assert ran.err.endswith(f"\nhint: see `{command} --help`\n")
    for asked in (("--json", *words), (*words, "--json")):
        ran = run(*asked)
        assert (ran.code, ran.out) == (125 if words[0] == "run" else 2, "")
        body = json.loads(ran.err)
        assert (body["code"], body["hint"]) == ("invalid", f"see `{command} --help`")
        assert (body["message"], body["field"]) == (what, field)


def test_what_a_containers_own_command_is_given_is_not_ours(run):
    assert run("run", "--pids-limit", "x", "--", "tool", "--json").err.startswith("usage:")


def test_no_daemon_is_3_with_a_way_out(run, tmp_path):
    ran = run("--socket", str(tmp_path / "none.sock"), "ps")
    assert ran.code == 3
    assert ran.err == (
        f"error: no daemon at {tmp_path}/none.sock: No such file or directory\n"
        "hint: start it with `sealane daemon`, or name its socket with --socket or SEALANE_SOCKET\n"
    )


def test_a_socket_in_a_place_that_is_not_there_says_so(run):
    assert "the socket's directory is missing" in run("--socket", "/nonexistent/x/s.sock", "ps").err


@pytest.mark.parametrize("closed", ["s.sock", "."])
def test_a_socket_that_is_not_ours_says_who_may(tmp_path, closed):
    """Whether it is the socket or its directory that nobody else may use."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s.sock"))
        listening.listen()
        os.chmod(tmp_path / closed, 0)
        try:
            ran = as_nobody("--socket", str(tmp_path / "s.sock"), "ps")
        finally:
            os.chmod(tmp_path / closed, 0o700)
    if ran.returncode == NO_OTHER_USER:
        pytest.skip("there is no other user in this user namespace")
    assert (ran.returncode, ran.stderr) == (3, (
        f"error: no way to {tmp_path}/s.sock: Permission denied\n"
        "hint: become root, or the user that the daemon runs as: nobody else is answered\n"
    ))  # fmt: skip


def as_nobody(*words):
    """Root may everything: as another user, who is given none of its rights."""
    code = (
        "import os, sys; from sealane.cli.main import main; import sealane.cli.commands.containers\n"
        "try:\n if os.geteuid() == 0: os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        f"except OSError: sys.exit({NO_OTHER_USER})\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    return subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, env={"PYTHONPATH": SOURCE}
    )


def test_the_environment_names_the_socket_unless_the_flag_does(api, run, monkeypatch):
    monkeypatch.setenv("SEALANE_SOCKET", api.path)
    assert run("ps").code == 0
    assert run("ps", "--socket", "/nonexistent/s.sock").code == 3
    monkeypatch.setenv("SEALANE_SOCKET", "/nonexistent/s.sock")
    assert run("ps", "--socket", api.path).code == 0


def test_common_flags_stand_before_and_after_the_command(api, run):
    for words in (
        ("--json", "--socket", api.path, "network", "ls"),
        ("network", "ls", "--json", "--socket", api.path),
        ("--socket", api.path, "network", "ls", "--json"),
    ):
        assert run(*words).out == "[]\n"


def test_version_works_without_a_daemon_and_says_so(run, api):
    ran = run("--socket", "/nonexistent/s.sock", "version")
    assert (ran.code, ran.out) == (3, f"sealane {sealane.__version__}\n")
    assert run("--version").out == f"sealane {sealane.__version__}\n"
    ran = run("--socket", api.path, "version")
    assert ran.out.splitlines()[1] == "daemon  0.1.0 (API v1, instance default, Linux 6.18, Python 3.11.7)"
    assert json.loads(run("--socket", api.path, "--json", "version").out)["daemon"]["api"] == "v1"


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command.path))
def test_every_command_has_help_that_ends_well(run, command):
    ran = run(*command.path, "--help")
    assert ran.code == 0
    assert f"{command.summary}." in " ".join(ran.out.split())
    assert "--json" in ran.out


def test_the_help_names_every_command_and_every_exit_code(run):
    text = run("--help").out
    for command in COMMANDS:
        if len(command.path) == 1:
            assert f"\n    {command.path[0]} " in text
    for group in GROUPS:
        assert f"\n    {group} " in text
    for code in ("  0 ", "  1 ", "  2 ", "  3 ", "  130 ", "125, 126 and 127"):
        assert code in text


def test_every_flag_and_argument_of_more_than_a_name_is_explained():
    def parsers(parser):
        yield parser
        for action in parser._actions:
            if hasattr(action, "choices") and isinstance(action.choices, dict):
                for child in action.choices.values():
                    yield from parsers(child)

    orphans = [
        f"{parser.prog} {action.option_strings}"
        for parser in parsers(build_parser())
        for action in parser._actions
        if action.option_strings and not action.help
    ]
    assert orphans == []


def test_commands_are_loaded_only_when_they_are_asked_for():
    code = "import sys; from sealane.cli.main import main\ntry: main(['version'])\nexcept SystemExit: pass\nprint(*sys.modules)"
    environ = {"PYTHONPATH": SOURCE, "SEALANE_SOCKET": "/nonexistent/s"}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environ)
    modules = set(run.stdout.split())
    assert "sealane.cli.commands.daemon_state" in modules
    assert not modules & {
        "msgspec", "yaml", "asyncio", "sealane.wire", "sealane.compose", "sealane.cli.commands.run",
        "sealane.cli.commands.daemon", "http.client", "ipaddress", "tempfile",
    }  # fmt: skip


def test_a_reader_that_leaves_is_no_traceback(api):
    for number in range(3000):
        api.services.engine.events.emit("network.created", f"n{number}")
    command = f"{sys.executable} -m sealane --socket {api.path} events | head -1"
    environ = {"PYTHONPATH": SOURCE, "PATH": os.environ["PATH"]}
    run = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=environ)
    assert "n" in run.stdout
    assert run.stderr == ""


@pytest.mark.parametrize(
    "words",
    [
        ("ps", "-a"),
        ("ps", "-aq"),
        ("inspect", "web"),
        ("run", "--rm", "--network", "none", "-i", "x"),
        ("exec", "web", "x"),
        ("logs", "web"),
        ("--help",),
        ("version",),
    ],
)
@pytest.mark.parametrize("form", [(), ("--json",)])
def test_an_output_that_cannot_be_written_is_one_line(cli, api, words, form):
    assert cli("run", "-d", "--name", "web", "--network", "none", "sleep").code == 0
    command = [sys.executable, "-m", "sealane", "--socket", api.path, *form, *words]
    with open("/dev/full", "w") as full:
        ran = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=full, stderr=subprocess.PIPE, text=True,
            env={"PYTHONPATH": SOURCE},
        )  # fmt: skip
    *others, last = ran.stderr.splitlines()
    if form:
        body = json.loads(last)
        said = (body["message"], body["hint"])
    else:
        others, said = others[:-1], (others[-1].removeprefix("error: "), last.removeprefix("hint: "))
    assert said == (
        "the output cannot be written: No space left on device",
        "see where it leads, and make room there",
    )
    # What a container says of itself is no error of ours.
    code = 125 if words[0] in ("run", "exec") else 1
    assert (ran.returncode, set(others) - {"err"}) == (code, set())


@pytest.mark.parametrize(
    ("words", "code"), [(("version",), 0), (("rm", "nobody"), 1), (("run", "--bogus"), 125)]
)
def test_what_is_wrong_need_not_be_told_to_anybody(api, words, code):
    command = [sys.executable, "-m", "sealane", "--socket", api.path, *words]
    with open("/dev/full", "w") as full:
        ran = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=full, env={"PYTHONPATH": SOURCE})
    assert ran.returncode == code


def test_text_that_the_terminal_cannot_show_is_escaped(api):
    environ = {"PYTHONPATH": SOURCE, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}
    api.services.engine.events.emit("network.created", "tür")
    command = [sys.executable, "-m", "sealane", "--socket", api.path, "events"]
    run = subprocess.run(command, capture_output=True, text=True, env=environ)
    assert (run.returncode, "t\\xfcr" in run.stdout) == (0, True)


def test_a_parser_is_made_for_the_command_alone():
    """One for each would take as long as Python's own start."""
    (below,) = [a for a in build_parser(["attach", "x", "y"])._actions if hasattr(a, "choices") and a.choices]
    assert list(below.choices) == ["attach"]
    (below,) = [a for a in build_parser(["network", "ls"])._actions if hasattr(a, "choices") and a.choices]
    assert list(below.choices) == ["network"]


@pytest.mark.parametrize(
    ("words", "others"),
    [
        (["netwrk"], ["network", "attach"]),
        (["netwrk", "attach"], ["network", "attach"]),
        (["network", "lst"], ["ls", "create"]),
        (["network"], []),
        (["--json", "nothing", "ps"], ["network", "attach"]),
    ],
)
def test_a_command_that_is_none_is_told_which_there_are(run, words, others):
    ran = run(*words)
    assert ran.code == 2
    # Python 3.11 quotes them, 3.13 does not.
    _, _, choices = ran.err.partition("choose from ")
    assert set(others) <= set(re.findall(r"[a-z-]+", choices))


def test_help_of_a_group_lists_its_commands(run):
    out = run("network", "--help").out
    assert "create" in out
    assert "prune" in out
    assert "attach" in run("--help", "network").out


@pytest.mark.parametrize(
    "words",
    [
        ("run", "--bogus", "ls"),
        ("--socket", "/nowhere", "exec", "--bogus", "web", "ls"),
        ("--json", "run", "--bogus", "ls"),
        ("run", "-p", "abc", "ls"),
    ],
)
def test_a_wrong_flag_is_not_taken_for_the_commands_own_code(run, words):
    assert run(*words).code == 125


def test_a_value_that_is_called_like_a_verb_is_none(run):
    assert run("--socket", "run", "ps", "--bogus").code == 2
