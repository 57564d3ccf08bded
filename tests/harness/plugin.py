"""pytest fixtures of the kernel tests, and the refusal to run them anywhere but in private namespaces."""

import os
from collections.abc import Iterator
from typing import Any

import pytest

from harness.audit import audit
from harness.bytecode import compile_sources
from harness.foreign import changes, foreign
from harness.forked import WarmParent
from harness.host import Host, Lan
from harness.inherited import inherit_nothing
from harness.lab import labs_of_a_module
from harness.netns import Netns
from harness.scene import Bites, GuardedScene, guarded
from harness.workers import long_ones_first, put_into_namespaces

REFUSAL = "kernel tests change the network around them: run `scripts/in-namespaces pytest …` (or `make test`)"


SAID = pytest.StashKey[dict[Host, int]]()
"""Size of each daemon's log when a test began."""


def isolated() -> bool:
    """Whether network and mount namespaces are other ones than those of our outermost ancestor, which lives on the
    machine itself. (Not those of process 1: in a VM or container even root may be refused a look at it.)"""
    return all(_outermost(kind) != os.stat(f"/proc/self/ns/{kind}").st_ino for kind in ("net", "mnt"))


def _outermost(kind: str) -> int:
    inode, pid = 0, os.getppid()
    while pid:
        try:
            inode = os.stat(f"/proc/{pid}/ns/{kind}").st_ino
        except PermissionError:
            if _in_user_namespace():
                return 0  # Those outside of it cannot be looked at, so the namespaces cannot be theirs.
        except FileNotFoundError:
            break
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            pid = int(file.read().rpartition(")")[2].split()[1])
    return inode


def _in_user_namespace() -> bool:
    with open("/proc/self/uid_map", encoding="ascii") as file:
        return file.read().split() != ["0", "0", "4294967295"]


def pytest_sessionstart(session: pytest.Session) -> None:
    inherit_nothing()
    if not _is_worker(session.config):
        compile_sources()


def pytest_sessionfinish() -> None:
    WarmParent.close()


def _is_worker(config: pytest.Config) -> bool:
    """Of pytest-xdist."""
    return hasattr(config, "workerinput")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(specs: list[Any]) -> None:
    # Who started us outside, for tests that need no namespaces, may not be allowed any.
    if isolated():
        put_into_namespaces(specs)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if _is_worker(config):
        long_ones_first(items)


def pytest_runtest_setup(item: pytest.Item) -> None:
    Host.last_words.clear()
    if item.get_closest_marker("kernel") and not isolated():
        pytest.fail(REFUSAL, pytrace=False)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """With a failure, show what the daemons have said meanwhile."""
    if call.when == "setup":
        item.stash[SAID] = {host: host.stderr_size() for host in Host.alive}
    outcome: Any = yield
    report = outcome.get_result()
    if not report.failed:
        return
    said = [(host.name, host.stderr(item.stash[SAID].get(host, 0))) for host in Host.alive]
    report.sections += [(f"daemon of {name}", text) for name, text in Host.last_words + said if text]


@pytest.fixture(scope="session")
def lan() -> Iterator[Lan]:
    wire = Lan()
    yield wire
    wire.close()
    # What tests that failed half-way have left.
    for host in tuple(Host.alive):
        host.close()
    for ns in tuple(Netns.alive):
        ns.close()


@pytest.fixture
def host(lan: Lan) -> Iterator[Host]:
    """A fresh host with a running daemon. Whatever the test leaves is audited, and foreign objects are unchanged."""
    with Host(lan).start() as fresh:
        before = foreign(fresh.ns)
        yield fresh
        if fresh.daemon is not None:
            assert audit(fresh) == []
            assert changes(before, foreign(fresh.ns)) == []


@pytest.fixture(scope="module")
def shared_host(lan: Lan) -> Iterator[Host]:
    """One host for a whole module, audited at its end."""
    with Host(lan, number=2).start() as fresh:
        yield fresh
        assert audit(fresh) == []


@pytest.fixture(params=[4, 6], ids=["ipv4", "ipv6"])
def family(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture(scope="session")
def bites(lan: Lan) -> Bites:
    """Whether an attack succeeds where nothing guards."""
    return Bites(lan)


@pytest.fixture(scope="module", params=["bridge", "routed"])
def scene(request: pytest.FixtureRequest, lan: Lan) -> Iterator[GuardedScene]:
    """Three workloads on a dual-stack network of each driver."""
    with Host(lan, number=3).start() as machine:
        yield from guarded(machine, request.param)
        assert audit(machine) == []


@pytest.fixture(scope="module")
def lab() -> Iterator[Any]:
    """Brings real labs up: `lab(hosts=3, etcd=1, underlay="segment")`; they go down with the module."""
    with labs_of_a_module() as bring:
        yield bring
