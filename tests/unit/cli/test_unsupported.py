"""Docker's flags that are none here: taken where they ask for nothing, refused with a hint where they do."""

import json

import pytest

from sealane.cli.commands.exec import UNSUPPORTED as OF_EXEC
from sealane.cli.commands.up import DOWN_UNSUPPORTED, UP_UNSUPPORTED
from sealane.cli.completion import grammar_of
from sealane.cli.dockerflags import RUN
from sealane.cli.main import OTHERS_CODES
from sealane.cli.parser import build_parser
from sealane.compose.unsupported import SERVICE

COMPOSE = "services: {web: {command: nginx, networks: []}}"


@pytest.fixture
def project(tmp_path, monkeypatch):
    (tmp_path / "compose.yaml").write_text(COMPOSE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COMPOSE_FILE", raising=False)


@pytest.mark.parametrize(
    "words",
    [
        ("network", "prune", "-f"),
        ("network", "prune", "--force"),
        ("image", "prune", "-f"),
        ("image", "prune", "-af"),
        ("up", "-d", "--remove-orphans"),
        ("down", "-v"),
        ("down", "--volumes", "--remove-orphans"),
    ],
)
def test_a_flag_that_asks_for_what_happens_anyway_is_taken(cli, project, words):
    assert cli(*words).code == 0
    assert "ignored" in cli(words[0], *words[1:2], "--help").out


def all_of(verb, reasons, *words):
    return [(verb, words, name, why) for names, why in reasons.items() for name in names.split("/")]


@pytest.mark.parametrize(
    ("verb", "words", "name", "why"),
    [
        *all_of("up", UP_UNSUPPORTED, "-d"),
        *all_of("down", DOWN_UNSUPPORTED),
        *all_of("run", RUN, "-i", "--rm"),
        *all_of("exec", OF_EXEC, "-t"),
    ],
)
def test_a_flag_that_is_none_is_refused_with_a_reason_and_a_hint(run, verb, words, name, why):
    forms = [(name,), (name, "1"), (f"{name}=true",)] if name.startswith("--") else [(name, "1")]
    for form in forms if name.startswith("-") else [("web",), ("web", "db")]:
        ran = run(verb, *words, *form)
        code = 125 if verb in OTHERS_CODES else 2
        assert ran == (code, "", f"error: {name} is not supported: {why[0]}\nfield: {name}\nhint: {why[1]}\n")
    assert json.loads(run("--json", verb, *words, *forms[0]).err)["field"] == name


def test_what_is_refused_is_neither_in_the_help_nor_completed(run):
    assert "--force-recreate" not in run("up", "--help").out
    assert "SERVICE" not in run("up", "--help").out
    up = next(place for place in grammar_of(build_parser()) if place.path == "up")
    assert "--force-recreate" not in dict(up.flags)
    assert "--remove-orphans" in dict(up.flags)


def test_a_flag_that_nobody_has_is_still_unrecognized(run):
    ran = run("up", "--no-such-flag")
    assert (ran.code, "error: unrecognized arguments: --no-such-flag\n" in ran.err) == (2, True)


@pytest.mark.parametrize("flag", ["-itP", "-diP"])
def test_a_short_flag_among_others_is_refused_too(run, flag):
    assert "error: -P is not supported: every port is open" in run("run", flag, "nginx").err


@pytest.mark.parametrize(
    "flag", ["--mount", "-P", "--privileged", "--ulimit", "--device", "--shm-size", "--cidfile", "--expose", "--label-file",
             "--no-healthcheck", "--group-add", "--pull", "--platform", "--gpus", "--ipc", "--pid"],
)  # fmt: skip
def test_the_flags_of_run_that_docker_users_type_are_known(run, flag):
    ran = run("run", flag, "x", "alpine")
    assert (ran.code, ran.err.count("\n")) == (125, 3)
    assert f"error: {flag} is not supported: " in ran.err


def test_what_the_command_of_a_container_is_given_is_its_own(cli, api):
    assert cli("run", "-d", "--name", "web", "--network", "none", "tool", "--privileged", "-P").code == 0
    assert b'"--privileged"' in bytes(api.services.workloads.requests["web"].spec)


def test_the_words_are_those_of_compose_files(run):
    reason, _ = SERVICE["ulimits"]
    assert f"--ulimit is not supported: {reason}" in run("run", "--ulimit", "nofile=9", "x").err
