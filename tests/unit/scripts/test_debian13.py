"""One root of Debian 13 serves clones whose libraries differ."""

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
WEEK_S = 7 * 86400
MAKER = r"""#!/bin/sh
# Makes what is looked at: a root, and in `setup` what `python3 -m venv --clear PATH` leaves of PATH.
case $2 in
make) mkdir -p "$1/project" ;;
setup) path=$(echo "$3" | grep -o 'venv --clear [^ ]*' | cut -d' ' -f3); rm -rf "$1$path"; mkdir -p "$1$path" ;;
in) echo "$3" ;;
esac
"""


class Clones:
    """Beside a `shared` with a maker, and with a root of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.root = folder, folder / "root"
        maker = folder / "shared/debian13/debian13"
        maker.parent.mkdir(parents=True)
        maker.write_text(MAKER, encoding="ascii")
        maker.chmod(0o755)

    def clone(self, name: str) -> None:
        (self.folder / name / "scripts").mkdir(parents=True)
        shutil.copy(ROOT / "scripts/test-debian13", self.folder / name / "scripts")
        (self.folder / name / "pyproject.toml").write_text(f"# libraries of {name}", encoding="ascii")
        subprocess.run(["git", "init", "-q"], cwd=self.folder / name, check=True)

    def run(self, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["scripts/test-debian13", *arguments],
            cwd=self.folder / name,
            env={**os.environ, "SEALANE_DEBIAN13": str(self.root)},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def venvs(self) -> set[Path]:
        return set((self.root / "project/venvs").iterdir())


@pytest.fixture
def clones(tmp_path: Path) -> Clones:
    if os.geteuid() != 0:
        pytest.skip("a root file system is made and run by root alone")
    clones = Clones(tmp_path)
    for name in ("one", "other"):
        clones.clone(name)
    return clones


def test_what_another_clone_needs_takes_nothing_away(clones: Clones) -> None:
    assert clones.run("one", "--ready").returncode == 69
    for name in ("one", "other"):
        assert clones.run(name, "--prepare").returncode == 0
    assert len(clones.venvs()) == 2
    for name in ("one", "other"):
        assert clones.run(name, "--ready").returncode == 0, name


def test_each_runs_with_its_own(clones: Clones) -> None:
    used = []
    for name in ("one", "other"):
        said = clones.run(name, "tests/x.py").stdout
        (venv,) = [
            path
            for path in clones.venvs()
            if f":/project/venvs/{path.name}/bin:" in said.replace("/.bin", "")
        ]
        used.append(venv)
        assert "tests/x.py" in said
    assert used[0] != used[1]
    assert list((clones.root / "project").glob("run-*")) == []


def test_what_nobody_has_used_for_a_week_goes_when_another_is_made(clones: Clones) -> None:
    clones.run("one", "--prepare")
    (old,) = clones.venvs()
    long_ago = time.time() - WEEK_S - 2 * 86400
    os.utime(old, (long_ago, long_ago))
    clones.run("one", "--prepare")
    os.utime(old / "ready", (long_ago, long_ago))
    clones.clone("third")
    clones.run("third", "--prepare")
    assert old in clones.venvs(), "it was used today"
    os.utime(old, (long_ago, long_ago))
    clones.run("other", "--prepare")
    assert old not in clones.venvs()
