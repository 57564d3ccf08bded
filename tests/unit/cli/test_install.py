"""What all `install` verbs share: an executable for a program of ours, files in one step, nobody else's touched."""

import io
import os
import subprocess
import sys

import pytest

from sealane.cli import install
from sealane.cli.context import Context, UsageError
from sealane.cli.output import Output

MARK = "# a mark of ours"


@pytest.fixture
def out():
    return io.StringIO()


@pytest.fixture
def context(out):
    return Context(Output(out, out, as_json=False, environ={}), {}, "/run/x.sock")


def test_a_program_runs_alone_and_asks_where_it_is_told(tmp_path):
    text = install.program("cni", MARK, "/run/x.sock")
    lines = text.splitlines()
    assert lines[0].endswith(" -IS")
    assert lines[1] == MARK
    path = tmp_path / "p"
    install.replace(str(path), text, 0o755)
    (tmp_path / "sealane.py").write_text("raise SystemExit(7)")
    environ = {"CNI_COMMAND": "VERSION", "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([path], env=environ, cwd=tmp_path, input=b"{}", capture_output=True, check=False)
    assert (done.returncode, b"supportedVersions" in done.stdout) == (0, True)
    assert "main('/run/x.sock')" in text


def test_a_socket_by_a_relative_path_is_the_same_from_everywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert f"main('{tmp_path}/x.sock')" in install.program("cni", MARK, "x.sock")


def test_the_systems_own_python_runs_it_if_it_is_new_enough(tmp_path, monkeypatch):
    python = tmp_path / "python3"
    monkeypatch.setattr(install, "SYSTEM_PYTHON", str(python))
    monkeypatch.setattr(sys, "_base_executable", "/of/the/venv", raising=False)

    def first_line():
        return install.program("cni", MARK, "/run/x.sock").splitlines()[0]

    assert first_line() == "#!/of/the/venv -IS", "there is none"
    python.write_text("#!/bin/sh\nexit 1\n")
    python.chmod(0o755)
    assert first_line() == "#!/of/the/venv -IS", "it is too old"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    assert first_line() == f"#!{python} -IS"


@pytest.fixture
def no_system_python(monkeypatch):
    monkeypatch.setattr(install, "SYSTEM_PYTHON", "/nowhere/python3")


@pytest.mark.usefixtures("no_system_python")
@pytest.mark.parametrize("python", ["/with space/python", f"/{'x' * install.SHEBANG_MAX}"])
def test_an_interpreter_that_no_first_line_can_name_is_refused(monkeypatch, python):
    monkeypatch.setattr(sys, "_base_executable", python, raising=False)
    with pytest.raises(UsageError, match="first line"):
        install.program("cni", MARK, "/run/x.sock")


@pytest.mark.usefixtures("no_system_python")
def test_the_longest_interpreter_that_fits_is_taken(monkeypatch):
    python = "/" + "x" * (install.SHEBANG_MAX - len("#! -IS") - 1)
    monkeypatch.setattr(sys, "_base_executable", python, raising=False)
    first = install.program("cni", MARK, "/run/x.sock").splitlines()[0]
    assert len(first) == install.SHEBANG_MAX


def test_what_is_so_already_is_not_written_again(context, out, tmp_path):
    path = tmp_path / "new" / "file"
    for said in ("written", "unchanged"):
        install.write(context, str(path), "text", 0o640)
        assert out.getvalue().endswith(f"{path}: {said}\n")
    assert path.stat().st_mode & 0o777 == 0o640
    number = path.stat().st_ino
    install.write(context, str(path), "other", 0o640)
    assert (path.read_text(), path.stat().st_ino == number) == ("other", False)
    assert os.listdir(path.parent) == ["file"]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_text("old")

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UsageError, match="No space left"):
        install.replace(str(path), "new", 0o644)
    assert (path.read_text(), os.listdir(tmp_path)) == ("old", ["file"])


def test_only_what_has_the_mark_is_ours(tmp_path):
    path = tmp_path / "file"
    install.check_ours(str(path), MARK, "--bin")
    path.write_text(f"#!x\n{MARK}\n")
    install.check_ours(str(path), MARK, "--bin")
    path.write_text("#!x\n")
    with pytest.raises(UsageError) as caught:
        install.check_ours(str(path), MARK, "--bin")
    assert caught.value.body["field"] == "--bin"


def test_a_file_goes_only_if_it_is_as_it_was_written(context, out, tmp_path):
    path = tmp_path / "file"
    path.write_text("mine")
    install.remove(context, str(path), lambda text: text == "ours", "oci")
    assert "kept: it is not as `sealane oci install` wrote it" in out.getvalue()
    path.write_text("ours")
    install.remove(context, str(path), lambda text: text == "ours", "oci")
    install.remove(context, str(path), lambda text: text == "ours", "oci")
    assert out.getvalue().endswith(f"{path}: removed\n{path}: not there\n")


def test_what_cannot_be_read_is_named(tmp_path):
    with pytest.raises(UsageError, match="Is a directory"):
        install.read(str(tmp_path))
