"""`sealane cni install` and `uninstall`: files, in one step each, and nobody else's."""

import json
import os
import subprocess
import sys

import pytest

from sealane.cli import install


@pytest.fixture
def places(tmp_path):
    return "--bin-dir", str(tmp_path / "bin"), "--conf-dir", str(tmp_path / "net.d")


@pytest.fixture
def executable(tmp_path):
    return tmp_path / "bin" / "sealane"


@pytest.fixture
def loopback(tmp_path):
    return tmp_path / "bin" / "loopback"


@pytest.fixture
def conflist(tmp_path):
    return tmp_path / "net.d" / "10-sealane.conflist"


def test_installed_is_what_a_runtime_can_call(run, places, executable, conflist):
    assert run("--socket", "/run/x.sock", "cni", "install", *places).code == 0
    done = subprocess.run(
        [executable], env={"CNI_COMMAND": "VERSION"}, input=b"{}", capture_output=True, check=True
    )
    assert "1.1.0" in json.loads(done.stdout)["supportedVersions"]
    assert executable.stat().st_mode & 0o777 == 0o755
    assert "-IS" in executable.read_text().split("\n", maxsplit=1)[0]
    assert "'/run/x.sock'" in executable.read_text()
    document = json.loads(conflist.read_text())
    assert (document["name"], document["cniVersion"]) == ("pods", "1.0.0")
    assert document["plugins"][0]["capabilities"]["portMappings"] is True
    assert conflist.stat().st_mode & 0o777 == 0o644


def test_the_environment_does_not_decide_what_runs(run, places, executable, tmp_path):
    run("cni", "install", *places)
    (tmp_path / "sealane").mkdir()
    (tmp_path / "sealane" / "__init__.py").write_text("raise SystemExit(7)")
    environ = {"CNI_COMMAND": "VERSION", "PYTHONPATH": str(tmp_path), "PYTHONHOME": "/nowhere"}
    assert (
        subprocess.run([executable], env=environ, cwd=tmp_path, capture_output=True, check=False).returncode
        == 0
    )


def test_again_changes_nothing(run, places, executable, conflist):
    run("cni", "install", *places)
    before = [(path.stat().st_ino, path.stat().st_mtime_ns) for path in (executable, conflist)]
    ran = run("cni", "install", *places)
    assert ran.code == 0
    assert ran.out.count("unchanged") == 3
    assert before == [(path.stat().st_ino, path.stat().st_mtime_ns) for path in (executable, conflist)]
    assert sorted(os.listdir(conflist.parent)) == ["10-sealane.conflist"]


def test_subnets_and_the_name_are_the_networks(run, places, conflist):
    run("cni", "install", "--name", "k8s", "--subnet", "10.88.0.0/16", "--subnet", "fd00:88::/64", *places)
    document = json.loads(conflist.read_text())
    assert document["name"] == "k8s"
    ranges = document["plugins"][0]["ipam"]["ranges"]
    assert ranges == [[{"subnet": "10.88.0.0/16"}], [{"subnet": "fd00:88::/64"}]]


def test_names_are_answered_only_if_that_is_asked_for(run, places, conflist):
    run("cni", "install", *places)
    assert "resolver" not in json.loads(conflist.read_text())["plugins"][0]
    run("cni", "install", "--replace", "--resolver", *places)
    assert json.loads(conflist.read_text())["plugins"][0]["resolver"] is True


def test_a_conflist_that_differs_is_kept_until_told_otherwise(run, places, conflist, executable):
    run("cni", "install", *places)
    conflist.write_text("{}")
    executable.unlink()
    ran = run("cni", "install", *places)
    assert (ran.code, conflist.read_text()) == (2, "{}")
    assert "--replace" in ran.err
    assert not executable.exists(), "refused before anything was written"
    assert run("cni", "install", "--replace", *places).code == 0
    assert "plugins" in conflist.read_text()


def test_an_executable_of_somebody_else_is_left_alone(run, places, executable, conflist):
    executable.parent.mkdir()
    executable.write_text("#!/bin/sh\n")
    assert run("cni", "install", *places).code == 2
    assert not conflist.exists()
    run("cni", "uninstall", *places)
    assert executable.exists()


def test_a_loopback_plugin_comes_along(run, places, loopback):
    """Containerd fails a pod without one."""
    assert run("cni", "install", *places).code == 0
    done = subprocess.run(
        [loopback], env={"CNI_COMMAND": "VERSION"}, input=b"{}", capture_output=True, check=True
    )
    assert "0.3.1" in json.loads(done.stdout)["supportedVersions"]
    assert loopback.stat().st_mode & 0o777 == 0o755


def test_a_loopback_plugin_of_somebody_else_is_kept_and_told_of(run, places, loopback, executable):
    """An ELF file, as Debian's containernetworking-plugins has it."""
    loopback.parent.mkdir()
    loopback.write_bytes(b"\x7fELF\x02\xff\xfe")
    ran = run("cni", "install", *places)
    assert (ran.code, executable.exists()) == (0, True)
    assert f"{loopback}: kept: somebody else's" in ran.out
    assert "kept" in run("cni", "uninstall", *places).out
    assert loopback.read_bytes() == b"\x7fELF\x02\xff\xfe"


def test_a_directory_that_cannot_be_written_is_named(run, tmp_path):
    (tmp_path / "file").write_text("")
    ran = run("cni", "install", "--bin-dir", str(tmp_path / "file"), "--conf-dir", str(tmp_path))
    assert ran.code == 2
    assert "file" in ran.err


@pytest.mark.parametrize("options", [(), ("--subnet", "10.88.0.0/16", "--name", "x"), ("--resolver",)])
def test_uninstall_takes_all_away_and_again_is_no_error(run, places, executable, loopback, conflist, options):
    run("cni", "install", *options, *places)
    assert run("cni", "uninstall", *places).out.count("removed") == 3
    assert not executable.exists()
    assert not loopback.exists()
    assert not conflist.exists()
    ran = run("cni", "uninstall", *places)
    assert ran.code == 0
    assert ran.out.count("not there") == 3


def test_a_conflist_that_was_changed_stays(run, places, executable, conflist):
    run("cni", "install", *places)
    document = json.loads(conflist.read_text())
    document["plugins"][0]["mtu"] = 1400
    conflist.write_text(json.dumps(document))
    assert "kept" in run("cni", "uninstall", *places).out
    assert conflist.exists()
    assert not executable.exists()


def test_json_says_the_same(run, places):
    out = run("--json", "cni", "install", *places).out
    assert '"written"' in out


def test_an_interpreter_that_no_first_line_can_name_is_refused(run, places, monkeypatch):
    monkeypatch.setattr(install, "SYSTEM_PYTHON", "/nowhere/python3")
    monkeypatch.setattr(sys, "_base_executable", "/with space/python", raising=False)
    assert run("cni", "install", *places).code == 2
