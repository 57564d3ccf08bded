"""A real daemon whose store another process has: every tool says so, none answers from an empty engine."""

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Iterator

import pytest

from harness.host import Host, Lan, Workload

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


def test_a_lost_store_is_said_before_each_answer(lan: Lan) -> None:
    """What runs is in no record: `network ls` has nothing to show, and that is not all there is."""
    with Host(lan, number=NUMBER + 1).start() as host:
        host.api.network("front", "10.72.0.0/24")
        box = Workload(host, "web")
        box.attach("front")
        host.stop()
        shutil.rmtree(host.path(host.state_dir))
        host.start()
        for words in ("network ls", "ps", "audit", "sandbox ls"):
            done = host.sealane(*words.split(), check=False)
            assert done.returncode == 1, words
            assert done.stderr.startswith("warning: the store is incomplete: it lacks 1 live endpoint;"), (
                words
            )
        status = host.sealane("status", check=False)
        assert (status.returncode, "orphans" in status.stdout) == (1, True)
        assert "restore the store" in status.stdout
        kept = host.sealane("gc", check=False)
        assert "kept: not in the store" in kept.stdout
        assert "--confirm" not in status.stdout + kept.stdout + kept.stderr
        host.sealane("gc", "--confirm")
        assert host.sealane("network", "ls").stderr == ""
        box.ns.close()
