"""`sealane lab` where no lab is, and what is refused before anything begins."""

import os

import pytest

from sealane.cli.parser import build_parser
from sealane.lab import folder as lab_folder

VERBS = ("status", "kill", "start", "pause", "resume", "cut", "heal", "exec", "shell")


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    """No lab of the machine is seen."""
    path = str(tmp_path / "labs")
    monkeypatch.setattr(lab_folder, "root_folder", lambda environ: path)
    monkeypatch.setattr("sealane.lab.client.root_folder", lambda environ: path)
    monkeypatch.delenv("SEALANE_LAB", raising=False)
    return path


def words_of(verb):
    return {"status": [], "heal": ["--all"], "exec": ["h1", "--", "true"]}.get(verb, ["h1"])


@pytest.mark.parametrize("verb", VERBS)
def test_without_a_lab_a_verb_says_how_to_begin(run, verb):
    ran = run("lab", verb, *words_of(verb))
    assert ran.code == (125 if verb in {"exec", "shell"} else 1)
    assert ran.err == "error: no lab is up\nhint: sealane lab up cluster.yaml\n"


def test_the_lab_is_named_when_there_are_several(run, root):
    for name in ("a", "b"):
        os.makedirs(f"{root}/{name}")
    ran = run("lab", "status")
    assert (ran.code, ran.err) == (1, "error: 2 labs are up\nhint: --name with one of: a, b\n")
    ran = run("lab", "status", "--name", "c")
    assert (ran.code, ran.err) == (1, "error: lab c is not up\nhint: use one of: a, b\n")


def test_the_environment_names_a_lab(run, root, monkeypatch):
    os.makedirs(f"{root}/a")
    monkeypatch.setenv("SEALANE_LAB", "b")
    assert run("lab", "status").err.startswith("error: lab b is not up\n")


def test_down_without_a_lab_is_done(run):
    assert run("lab", "down") == (0, "", "no lab is up\n")
    assert run("lab", "down", "--name", "x") == (0, "", "lab x is not up\n")


def test_down_removes_what_a_dead_lab_has_left(run, root):
    os.makedirs(f"{root}/a/nodes/h1")
    assert run("lab", "ls", "-q").out == "a\n"
    assert "dead" in run("lab", "ls").out
    assert run("lab", "down") == (0, " - lab a  removed\n", "")
    assert not os.path.exists(root)


def test_no_labs_are_an_empty_list(run):
    assert run("lab", "ls", "-q") == (0, "", "")
    assert run("--json", "lab", "ls").out == "[]\n"


def test_a_wrong_file_is_told_with_lines_and_begins_nothing(run, root, tmp_path):
    (tmp_path / "cluster.yaml").write_text("hosts:\n  A:\nmtu: 3\n")
    ran = run("lab", "up", str(tmp_path / "cluster.yaml"))
    assert ran.code == 2
    assert "cluster.yaml: 2 problems" in ran.err
    assert "  line 2: hosts.A: 'A' is not a host's name" in ran.err
    assert "  line 3: mtu: unknown key 'mtu'" in ran.err
    assert not os.path.exists(root)


def test_a_file_that_is_not_there_is_named(run):
    ran = run("lab", "up", "/nonexistent.yaml")
    assert (ran.code, "field: FILE" in ran.err) == (2, True)


@pytest.mark.parametrize(
    ("words", "field"),
    [
        (("up", "FILE", "--name", "../x"), "--name"),
        (("up", "FILE", "--wait-timeout", "0"), "--wait-timeout"),
        (("heal",), "NODE"),
        (("heal", "h1", "--all"), "NODE"),
        (("kill", "h1", "--signal", "NONE"), "--signal"),
        (("exec", "h1"), "COMMAND"),
        (("cut",), "NODE"),
    ],
)
def test_wrong_words_are_a_usage_error(run, tmp_path, words, field):
    file = tmp_path / "cluster.yaml"
    file.write_text("hosts: 1")
    ran = run("lab", *(str(file) if word == "FILE" else word for word in words))
    assert (ran.code, f"field: {field}" in ran.err) == (2, True), ran.err


def test_the_command_of_exec_keeps_its_flags():
    words = ["lab", "exec", "-it", "h1", "--", "ls", "--json", "-l"]
    assert build_parser(words).parse_args(words).command_line == ["ls", "--json", "-l"]
