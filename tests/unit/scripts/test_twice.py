"""`make test`'s second run: what is run again, what never is, and that nothing passes that did not."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
NAMED = "FAILED BESIDE OTHERS, PASSED ALONE: "

ONCE = """
import os
import pytest

def once(name):
    "Whether this is asked for the first time, in this run or an earlier one."
    try:
        os.mkdir(os.path.join(os.path.dirname(__file__), "seen-" + name))
    except FileExistsError:
        return False
    return True
"""
# Of what is installed the suites need only pytest-xdist, and are twice as fast.
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")},
    "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
}
PASSES = "def test_passes():\n    pass\n"
FAILS = "def test_fails():\n    assert False\n"
FAILS_ONCE = "def test_fails_once():\n    assert not once('it')\n"


class Suite:
    """A suite in a folder, and the script beside an `in-namespaces` that only notes its calls."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.calls = folder, folder / "calls"
        for name in ("test-twice", "no-survivors"):
            shutil.copy(ROOT / "scripts" / name, folder)
        self.script = folder / "test-twice"
        note = folder / "in-namespaces"
        note.write_text(f'#!/bin/sh\necho "$*" >>{self.calls}\nexec "$@"\n', encoding="ascii")
        note.chmod(0o755)
        (folder / "pytest.ini").write_text("[pytest]\nmarkers = slow\naddopts = -p xdist\n", encoding="ascii")

    def write(self, **modules: str) -> None:
        for name, text in modules.items():
            (self.folder / f"test_{name}.py").write_text(ONCE + text, encoding="utf-8")

    def run(self, *arguments: str, workers: str = "2") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(self.script), workers, *arguments],
            cwd=self.folder,
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            check=False,
            timeout=100,
        )

    def runs(self) -> int:
        return len(self.calls.read_text(encoding="utf-8").splitlines())


@pytest.fixture
def suite(tmp_path: Path) -> Suite:
    return Suite(tmp_path)


def named(done: subprocess.CompletedProcess[str]) -> list[str]:
    return [line.removeprefix(NAMED) for line in done.stdout.splitlines() if line.startswith(NAMED)]


def test_what_passes_runs_once(suite: Suite) -> None:
    suite.write(a=PASSES, b=PASSES)
    done = suite.run()
    assert (done.returncode, suite.runs(), named(done)) == (0, 1, [])


def test_what_fails_twice_fails(suite: Suite) -> None:
    suite.write(a=PASSES, b=FAILS)
    done = suite.run()
    assert (done.returncode, suite.runs(), named(done)) == (1, 2, [])


def test_what_fails_once_passes_and_is_named_before_the_closing_line(suite: Suite) -> None:
    suite.write(a=PASSES, b=FAILS_ONCE)
    done = suite.run()
    assert (done.returncode, suite.runs(), named(done)) == (0, 2, ["test_b.py::test_fails_once"])
    *_, named_last, closing = done.stdout.splitlines()
    assert named_last.startswith(NAMED)
    assert "1 passed" in closing


def test_the_second_run_is_alone_and_of_the_failed_tests_only(suite: Suite) -> None:
    where = "import os\ndef test_where():\n    print('worker', os.environ.get('PYTEST_XDIST_WORKER'))\n    assert {}\n"
    suite.write(a=PASSES, b=FAILS_ONCE + PASSES, c=where.format("not once('where')"))
    done = suite.run("-rP")
    first, second = suite.calls.read_text(encoding="utf-8").splitlines()
    assert " -n 2 " in first
    assert " -n 0 " in second
    assert done.returncode == 0
    *_, again = done.stdout.split("test-twice: once more, alone:")
    assert "worker None" in again
    assert "2 passed" in again.splitlines()[-1]


def test_one_that_fails_twice_beside_one_that_fails_once_fails(suite: Suite) -> None:
    suite.write(a=FAILS, b=FAILS_ONCE)
    done = suite.run()
    assert (done.returncode, suite.runs(), named(done)) == (1, 2, ["test_b.py::test_fails_once"])


@pytest.mark.parametrize(("count", "status", "runs"), [(8, 0, 2), (9, 1, 1)])
def test_more_than_eight_are_not_run_again(suite: Suite, count: int, status: int, runs: int) -> None:
    suite.write(
        a=f"@pytest.mark.parametrize('number', range({count}))\n"
        "def test_many(number):\n    assert not once(str(number))\n"
    )
    done = suite.run()
    assert (done.returncode, suite.runs(), len(named(done))) == (status, runs, count if status == 0 else 0)
    assert ("9 tests failed, more than 8" in done.stderr) is (count == 9)


def test_names_of_any_characters_are_found_again(suite: Suite) -> None:
    suite.write(
        a="class TestOf:\n"
        "    @pytest.mark.parametrize('text', ['a b', 'x::y', '[z]', 'é', '-q', \"it's\"])\n"
        "    def test_text(self, text):\n        assert not once(text)\n"
    )
    done = suite.run()
    assert (done.returncode, len(named(done))) == (0, 6), done.stdout


@pytest.mark.parametrize("when", ["setup", "teardown"])
def test_errors_around_a_test_count_as_its_failures(suite: Suite, when: str) -> None:
    before, after = ("assert not once('it')", "pass")[:: 1 if when == "setup" else -1]
    suite.write(
        a=f"@pytest.fixture\ndef thing():\n    {before}\n    yield\n    {after}\n"
        "def test_with(thing):\n    pass\n"
    )
    done = suite.run()
    assert (done.returncode, suite.runs(), named(done)) == (0, 2, ["test_a.py::test_with"])


def test_a_test_that_is_skipped_alone_has_not_passed(suite: Suite) -> None:
    suite.write(a="def test_shy():\n    if not once('it'):\n        pytest.skip('alone')\n    assert False\n")
    done = suite.run()
    assert (done.returncode, suite.runs(), named(done)) == (1, 2, [])
    assert "not each of the failed tests passed alone" in done.stderr


def test_a_test_that_is_not_there_alone_has_not_passed(suite: Suite) -> None:
    suite.write(
        a="if once('collection-0') or once('collection-1'):\n    def test_gone():\n        assert False\n"
    )
    done = suite.run()
    assert done.returncode != 0
    assert (suite.runs(), named(done)) == (2, [])


def test_a_crashed_worker_is_a_failure_straight_away(suite: Suite) -> None:
    suite.write(a=PASSES, b="def test_crashes_once():\n    if once('it'):\n        os._exit(3)\n")
    done = suite.run()
    assert (done.returncode, suite.runs()) == (1, 1)
    assert "crashed" in done.stderr


def test_an_error_of_collection_is_a_failure_straight_away(suite: Suite) -> None:
    suite.write(a=PASSES, b="assert not once('it')\n" + PASSES)
    done = suite.run()
    assert done.returncode != 0
    assert suite.runs() == 1


@pytest.mark.parametrize("option", ["-x", "--maxfail=1"])
def test_a_run_that_was_stopped_is_a_failure_straight_away(suite: Suite, option: str) -> None:
    suite.write(a=FAILS_ONCE, b=FAILS)
    done = suite.run(option)
    assert done.returncode != 0
    assert suite.runs() == 1


def test_a_run_that_was_stopped_without_workers_is_none_either(suite: Suite) -> None:
    """`ARGS='-n 0 -x'`: pytest's status is 1 then, and tests are left that nobody has run."""
    suite.write(a=FAILS_ONCE, b=FAILS)
    done = suite.run("-n", "0", "-x")
    assert (done.returncode, suite.runs()) == (1, 1)
    assert "the run was stopped" in done.stderr


def test_a_killed_pytest_is_a_failure_straight_away(suite: Suite) -> None:
    suite.write(
        a="import signal\ndef test_kills():\n    os.kill(os.getppid(), signal.SIGKILL)\n", b=FAILS_ONCE
    )
    done = suite.run()
    assert (done.returncode, suite.runs()) == (137, 1)


def test_a_failure_that_is_no_tests_own_is_one_straight_away(suite: Suite) -> None:
    suite.write(a=PASSES)
    text = "import pytest\n@pytest.hookimpl(tryfirst=True)\ndef pytest_sessionfinish(session):\n    session.exitstatus = 1\n"
    (suite.folder / "conftest.py").write_text(text, encoding="ascii")
    done = suite.run()
    assert (done.returncode, suite.runs()) == (1, 1)
    assert "no test failed, but pytest did" in done.stderr


@pytest.mark.parametrize(("arguments", "status"), [(("--no-such-option",), 4), (("-k", "nothing"), 5)])
def test_other_statuses_of_pytest_are_kept(suite: Suite, arguments: tuple[str, ...], status: int) -> None:
    suite.write(a=FAILS_ONCE)
    assert suite.run(*arguments).returncode == status
    assert suite.runs() == 1


def test_without_workers_there_is_no_second_run(suite: Suite) -> None:
    suite.write(a=FAILS_ONCE)
    done = suite.run(workers="0")
    assert (done.returncode, suite.runs(), named(done)) == (1, 1, [])


def test_what_is_selected_stays_selected(suite: Suite) -> None:
    suite.write(a=FAILS_ONCE + f"@pytest.mark.slow\n{FAILS}")
    done = suite.run("-m", "not slow", "test_a.py")
    assert (done.returncode, named(done)) == (0, ["test_a.py::test_fails_once"])


def test_failures_of_earlier_runs_are_not_run_again(suite: Suite) -> None:
    suite.write(a=FAILS, b=FAILS_ONCE)
    suite.run("test_a.py")
    done = suite.run("test_b.py")
    assert (done.returncode, named(done)) == (0, ["test_b.py::test_fails_once"])


@pytest.mark.parametrize("arguments", [(), ("many",), ("-1",)])
def test_wrong_use_is_explained(suite: Suite, arguments: tuple[str, ...]) -> None:
    done = subprocess.run(
        [sys.executable, str(suite.script), *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 64
    assert done.stderr.startswith("usage: ")
