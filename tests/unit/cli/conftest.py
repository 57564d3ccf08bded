from typing import NamedTuple

import pytest

from sealane.cli.main import main
from unit.api.doubles import ServerThread


class Ran(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def api(tmp_path, monkeypatch):
    monkeypatch.delenv("SEALANE_SOCKET", raising=False)
    with ServerThread(tmp_path / "s.sock") as server:
        yield server


@pytest.fixture
def run(capfdbinary, monkeypatch):
    """Runs a command line in this process; nothing of it reads the real stdin or environment's colours."""
    monkeypatch.setenv("TZ", "UTC")

    def run(*words):
        try:
            code = main(words)
        except SystemExit as error:
            code = error.code
        captured = capfdbinary.readouterr()
        return Ran(code, captured.out.decode(), captured.err.decode())

    return run


@pytest.fixture
def cli(api, run):
    """The same, with the daemon's double to talk to."""

    def cli(*words):
        return run("--socket", api.path, *words)

    return cli
