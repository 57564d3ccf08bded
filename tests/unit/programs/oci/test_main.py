"""The hook as a process: what it asks, what it says, what it exits with, and what it imports."""

import json
import os
import subprocess
import sys

import pytest

import sealane
from harness.stub_daemon import Daemon
from sealane.programs.oci.main import STATE_BYTES_MAX

SOURCE = os.path.dirname(os.path.dirname(sealane.__file__))
IMPORTS = {"__future__", "_json", "_socket", "posix", "sys"}
IMPORT = f"import sys; sys.path.insert(0, {SOURCE!r}); from sealane.programs.oci.main import main"
PROGRAM = f"{IMPORT}; sys.exit(main(sys.argv.pop(1)))"
STATE = {
    "ociVersion": "1.0.2",
    "id": "web",
    "status": "creating",
    "pid": 4711,
    "bundle": "/srv/web",
    "annotations": {"sealane.networks": "front", "org.example": "x"},
}


def answer(_):
    return 200, {"endpoints": []}


@pytest.fixture
def hook(tmp_path):
    def call(*words, state=STATE, **environ):
        stdin = state if isinstance(state, bytes) else json.dumps(state).encode()
        return subprocess.run(
            [sys.executable, "-I", "-S", "-c", PROGRAM, str(tmp_path / "s.sock"), *words],
            input=stdin,
            env=environ,
            capture_output=True,
            timeout=100,
            check=False,
        )

    return call


def said(done):
    """The one line; nothing else is printed."""
    assert (done.returncode, done.stdout) == (1, b"")
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith("sealane: ")
    return line.removeprefix("sealane: ")


def test_nothing_is_imported_but_c_modules():
    code = f"import sys; before = set(sys.modules); {IMPORT.partition('; ')[2]}; print(*(set(sys.modules) - before))"
    command = [sys.executable, "-I", "-S", "-c", code]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert "sealane.programs.oci.main" in found
    assert {name for name in found if not name.startswith("sealane")} <= IMPORTS
    assert {name for name in found if name.startswith("sealane.")} == {
        "sealane.programs",
        "sealane.programs.api",
        "sealane.programs.daemon",
        "sealane.programs.oci",
        "sealane.programs.oci.main",
        "sealane.programs.text",
    }


def test_create_runtime_asks_once_with_what_is_ours(daemon, hook):
    server = daemon(answer)
    done = hook("createRuntime")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    ours = {"sealane.networks": "front"}
    assert server.asked == [{"stage": "createRuntime", "id": "web", "pid": 4711, "annotations": ours}]


@pytest.mark.parametrize("pid", [{}, {"pid": 0}, {"pid": 4711}])
def test_poststop_has_no_process(daemon, hook, pid):
    server = daemon(answer)
    state = {**{key: value for key, value in STATE.items() if key != "pid"}, **pid, "status": "stopped"}
    assert hook("poststop", state=state).returncode == 0
    assert server.asked == [{"stage": "poststop", "id": "web", "annotations": {"sealane.networks": "front"}}]


@pytest.mark.parametrize(
    "annotations", [{}, {"annotations": None}, {"annotations": {"a.b": "c", "sealane": "x"}}]
)
@pytest.mark.parametrize("stage", ["createRuntime", "poststop"])
def test_a_container_that_is_none_of_ours_is_left_alone_without_a_daemon(hook, stage, annotations):
    state = {**{key: value for key, value in STATE.items() if key != "annotations"}, **annotations}
    done = hook(stage, state=state)
    assert (done.returncode, done.stderr) == (0, b"")


def test_an_annotation_that_is_misspelt_is_asked_about(daemon, hook):
    server = daemon(answer)
    hook("createRuntime", state={**STATE, "annotations": {"sealane.network": "front"}})
    assert server.asked[0]["annotations"] == {"sealane.network": "front"}


def test_a_refusal_is_one_line_with_field_and_hint(daemon, hook):
    error = {
        "code": "not_found",
        "message": "there is no network 'frnt'\nx",
        "field": "sealane.networks",
        "hint": "y",
    }
    daemon(lambda _: (404, {"error": error}))
    assert said(hook("createRuntime")) == "sealane.networks: there is no network 'frnt' x (y)"


def test_without_a_daemon_it_says_so_and_what_to_do(hook, tmp_path):
    line = said(hook("createRuntime"))
    assert f"no sealane daemon at {tmp_path}/s.sock" in line
    assert "`sealane daemon`" in line


def test_a_daemon_that_hangs_up_is_an_error(daemon, hook):
    daemon(lambda _: None)
    assert "hung up" in said(hook("createRuntime"))


def test_the_environment_names_another_socket(daemon, hook, tmp_path):
    server = Daemon(str(tmp_path / "other.sock"), lambda _: (200, {}))
    try:
        assert hook("createRuntime", SEALANE_SOCKET=str(tmp_path / "other.sock")).returncode == 0
        assert len(server.asked) == 1
    finally:
        server.close()


@pytest.mark.parametrize("words", [(), ("prestart",), ("createRuntime", "x")])
def test_a_stage_that_is_none_of_ours_is_refused(daemon, hook, words):
    server = daemon(answer)
    assert "createRuntime or poststop" in said(hook(*words))
    assert server.asked == []


@pytest.mark.parametrize(
    ("state", "what"),
    [
        (b"", "no JSON"),
        (b"[]", "no JSON object"),
        (b"{", "no JSON"),
        (b"\xff", "no JSON"),
        (b'{"annotations": []}', None),
        (b'{"annotations": ["x"]}', "annotations"),
        (b'"' + b"x" * (1 << 20) + b'"', "longer than"),
    ],
)
def test_a_state_that_is_none_is_one_line(hook, state, what):
    done = hook("createRuntime", state=state)
    if what is None:
        assert done.returncode == 0
    else:
        assert what in said(done)


def test_a_state_has_a_bound(daemon, hook):
    daemon(lambda _: (200, {"endpoints": []}))
    text = json.dumps(STATE).encode()
    assert hook("createRuntime", state=text.ljust(STATE_BYTES_MAX)).returncode == 0
    assert "longer than" in said(hook("createRuntime", state=text.ljust(STATE_BYTES_MAX + 1)))


def test_an_answer_that_is_none_is_one_line_too(daemon, hook):
    daemon(lambda _: (500, []))
    assert "AttributeError" in said(hook("createRuntime"))
