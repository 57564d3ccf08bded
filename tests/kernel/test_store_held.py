"""A real daemon whose store another process has: every tool says so, none answers from an empty engine."""

import contextlib
import os
import sqlite3
from collections.abc import Iterator

import pytest

from harness.host import Host, Lan

pytestmark = pytest.mark.kernel

NUMBER = 23
QUESTIONS = (
    "ps", "network ls", "sandbox ls", "inspect web", "network inspect front", "explain web 10.71.0.9:80",
    "explain web 10.71.0.9:80 --observed", "audit", "doctor", "check", "sockets",
)  # fmt: skip


@pytest.fixture(scope="module")
def host(lan: Lan) -> Iterator[Host]:
    with Host(lan, number=NUMBER).start() as host:
        host.api.network("front", "10.71.0.0/24")
        yield host


@contextlib.contextmanager
def locked(host: Host) -> Iterator[None]:
    """The store is in another process's hands when the daemon starts."""
    host.stop()
    with contextlib.closing(sqlite3.connect(os.path.join(host.path(host.state_dir), "state.db"))) as other:
        other.execute("BEGIN EXCLUSIVE")
        host.start()
        try:
            yield
        finally:
            other.rollback()
    host.restart()


def test_each_tool_says_that_the_store_cannot_be_used(host: Host) -> None:
    with locked(host):
        for words in QUESTIONS:
            done = host.sealane(*words.split(), check=False)
            assert done.returncode not in {0}, words
            assert "the store cannot be used" in done.stderr, f"{words}: {done.stdout}{done.stderr}"
            assert done.stdout in {"", "[]\n"}, words
        done = host.sealane("status", check=False)
        assert done.returncode == 1
        assert "hold" in done.stdout
    assert host.sealane("network", "ls").returncode == 0
