"""`sealane podman install` and `uninstall`: podman's own parser reads what is written, and nobody else's file is touched."""

import subprocess
import tomllib

import pytest

import sealane


@pytest.fixture
def places(tmp_path):
    return "--bin-dir", str(tmp_path / "bin"), "--conf-dir", str(tmp_path / "conf.d")


@pytest.fixture
def executable(tmp_path):
    return tmp_path / "bin" / "netavark"


@pytest.fixture
def config(tmp_path):
    return tmp_path / "conf.d" / "50-sealane.conf"


def test_installed_is_what_podman_can_call(run, places, executable, config):
    assert run("--socket", "/run/x.sock", "podman", "install", *places).code == 0
    told = subprocess.run(
        [executable, "--version"], env={}, capture_output=True, text=True, check=True
    ).stdout
    assert told == f"netavark 2.1.0 (sealane {sealane.__version__})\n"
    assert executable.stat().st_mode & 0o777 == 0o755
    assert "'/run/x.sock'" in executable.read_text()
    settings = tomllib.loads(config.read_text())
    assert settings["network"] == {"network_backend": "netavark"}
    assert settings["engine"]["helper_binaries_dir"][0] == str(executable.parent)
    assert "/usr/lib/podman" in settings["engine"]["helper_binaries_dir"], "podman has other helpers there"


def test_again_changes_nothing(run, places):
    run("podman", "install", *places)
    assert run("podman", "install", *places).out.count("unchanged") == 2


def test_what_is_somebody_elses_stays(run, places, executable, config):
    executable.parent.mkdir()
    executable.write_text("the real one")
    ran = run("podman", "install", *places)
    assert ran.code == 2
    assert "--bin-dir" in ran.err
    assert not config.exists()
    executable.unlink()
    config.parent.mkdir()
    config.write_text("[engine]\n")
    assert "--conf-dir" in run("podman", "install", *places).err
    assert not executable.exists()


def test_uninstall_takes_away_what_install_wrote(run, places, executable, config):
    run("podman", "install", *places)
    assert run("podman", "uninstall", *places).out.count("removed") == 2
    assert not executable.exists()
    assert not config.exists()
    assert run("podman", "uninstall", *places).out.count("not there") == 2
    executable.write_text("the real one")
    assert "kept" in run("podman", "uninstall", *places).out
    assert executable.exists()
