"""Completion scripts are made from the grammar and work in the shells that are here."""

import shutil
import subprocess

import pytest

from sealane.cli.completion import SCRIPTS, grammar_of
from sealane.cli.parser import build_parser
from sealane.cli.registry import COMMANDS

FAKE = """
sealane() {
    case "$*" in
        "network ls -q") printf 'front\\nback\\n' ;;
        "ps -aq") printf 'web\\ndb\\n' ;;
        *) return 1 ;;
    esac
}
"""


@pytest.fixture(scope="module")
def places():
    return grammar_of(build_parser())


def test_every_command_and_flag_is_in_the_grammar(places):
    by_path = {place.path: place for place in places}
    for command in COMMANDS:
        assert "--json" in dict(by_path[" ".join(command.path)].flags)
    assert "--subnet" in dict(by_path["network create"].values)
    assert dict(by_path["network create"].values)["--driver"] == "bridge routed host none"
    assert "--internal" not in dict(by_path["network create"].values)
    assert by_path["network rm"].kind == "NETWORK"
    assert by_path["stop"].kind == "CONTAINER"
    assert dict(by_path["up"].values)["--file"] == "FILE"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_command_prints_the_script(run, places, shell):
    ran = run("completion", shell)
    assert (ran.code, ran.out) == (0, SCRIPTS[shell](places))


def complete(script, *words):
    quoted = " ".join(f"'{word}'" for word in ("sealane", *words))
    program = (
        f"{FAKE}\n{script}\ncompopt() {{ :; }}\n"
        f"COMP_WORDS=({quoted}); COMP_CWORD={len(words)}; _sealane\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"\n"
    )
    run = subprocess.run(["bash", "-u", "-c", program], capture_output=True, text=True)
    assert run.stderr == ""
    return run.stdout.split()


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("net",), ["network"]),
        (("network", ""), ["create", "ls", "inspect", "rm", "prune"]),
        (("network", "rm", ""), ["front", "back"]),
        (("network", "rm", "-f", "f"), ["front"]),
        (("network", "create", "--driver", "r"), ["routed"]),
        (("network", "create", "--int"), ["--internal"]),
        (("--json", "stop", ""), ["web", "db"]),
        (("logs", "w"), ["web"]),
        (("attach", "x", ""), []),
        (("endpoint", "ls", "--network", "b"), ["back"]),
        (("completion", ""), ["bash", "zsh", "fish"]),
        (("events", "--f"), ["--follow"]),
        (("sandbox", "rm", ""), []),
    ],
)
def test_bash_offers_what_fits(places, words, offered):
    assert complete(SCRIPTS["bash"](places), *words) == offered


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_offers_files_where_a_file_is_meant(places, tmp_path, monkeypatch):
    (tmp_path / "compose.yaml").touch()
    monkeypatch.chdir(tmp_path)
    assert complete(SCRIPTS["bash"](places), "up", "-f", "comp") == ["compose.yaml"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shell_itself_finds_no_fault(places, shell, tmp_path):
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    (tmp_path / "script").write_text(SCRIPTS[shell](places))
    run = subprocess.run([shell, "-n", str(tmp_path / "script")], capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")


def test_help_with_quotes_is_quoted_for_fish(places):
    assert "\\'" in SCRIPTS["fish"](places)
