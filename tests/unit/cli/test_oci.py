"""`sealane oci install`, `uninstall` and `hooks`."""

import json
import os
import re
import subprocess

import pytest

STATE = b'{"id": "x", "annotations": {}}'


@pytest.fixture
def places(tmp_path):
    return "--bin", str(tmp_path / "libexec" / "oci-hook"), "--hooks-dir", str(tmp_path / "hooks.d")


@pytest.fixture
def executable(tmp_path):
    return tmp_path / "libexec" / "oci-hook"


@pytest.fixture
def hook(tmp_path):
    return lambda stage: tmp_path / "hooks.d" / f"50-sealane-{stage}.json"


def test_installed_is_what_a_runtime_can_call(run, places, executable, hook):
    assert run("--socket", "/run/x.sock", "oci", "install", *places).code == 0
    assert executable.stat().st_mode & 0o777 == 0o755
    assert "'/run/x.sock'" in executable.read_text()
    for stage in ("createRuntime", "poststop"):
        document = json.loads(hook(stage).read_text())
        assert document["stages"] == [stage]
        command = [document["hook"]["path"], *document["hook"]["args"][1:]]
        assert subprocess.run(command, input=STATE, env={}, check=False).returncode == 0


def test_it_is_for_containers_with_an_annotation_of_ours(run, places, hook):
    run("oci", "install", *places)
    (pattern,) = json.loads(hook("poststop").read_text())["when"]["annotations"]
    assert re.search(pattern, "sealane.networks")
    assert re.search(pattern, "sealane.network"), "a misspelt one is refused, not ignored"
    assert not re.search(pattern, "org.sealane.networks")
    assert not re.search(pattern, "sealanes")


def test_again_changes_nothing(run, places, executable, hook):
    run("oci", "install", *places)
    files = (executable, hook("createRuntime"), hook("poststop"))
    before = [path.stat().st_ino for path in files]
    assert run("oci", "install", *places).out.count("unchanged") == 3
    assert before == [path.stat().st_ino for path in files]
    assert len(os.listdir(executable.parent)) == 1


def test_an_executable_of_somebody_else_is_left_alone(run, places, executable, hook):
    executable.parent.mkdir()
    executable.write_text("#!/bin/sh\n")
    ran = run("oci", "install", *places)
    assert (ran.code, "--bin" in ran.err) == (2, True)
    assert not hook("poststop").exists()
    run("oci", "uninstall", *places)
    assert executable.read_text() == "#!/bin/sh\n"


def test_a_hook_that_was_changed_is_not_written_over(run, places, executable, hook):
    run("oci", "install", *places)
    executable.unlink()
    hook("poststop").write_text("{}")
    ran = run("oci", "install", *places)
    assert (ran.code, "--hooks-dir" in ran.err) == (2, True)
    assert hook("poststop").read_text() == "{}"
    assert not executable.exists(), "nothing was written"


def test_uninstall_takes_all_away_and_again_is_no_error(run, places, executable, hook):
    run("oci", "install", *places)
    assert run("oci", "uninstall", *places).out.count("removed") == 3
    assert not executable.exists()
    assert not hook("createRuntime").exists()
    assert run("oci", "uninstall", *places).out.count("not there") == 3


def test_a_hook_that_was_changed_stays_and_so_does_what_it_calls(run, places, executable, hook):
    run("oci", "install", *places)
    document = json.loads(hook("poststop").read_text())
    document["hook"]["timeout"] = 5
    hook("poststop").write_text(json.dumps(document))
    out = run("oci", "uninstall", *places).out
    assert out.count("kept") == 2
    assert executable.exists(), "a hook that names nothing would fail every container"
    assert not hook("createRuntime").exists()


def test_hooks_prints_what_a_config_needs(run, executable):
    document = json.loads(run("oci", "hooks", "--bin", str(executable)).out)
    assert document == {
        stage: [{"path": str(executable), "args": ["oci-hook", stage], "timeout": 60}]
        for stage in ("createRuntime", "poststop")
    }
    assert not executable.exists()


def test_a_relative_path_is_made_absolute_for_runtimes_take_no_other(run, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    document = json.loads(run("oci", "hooks", "--bin", "hook").out)
    assert document["poststop"][0]["path"] == str(tmp_path / "hook")


def test_json_says_the_same(run, places):
    assert run("--json", "oci", "install", *places).out.count('"written"') == 3
