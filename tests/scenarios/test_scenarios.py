"""Each folder here is a scenario: steps, and the text of what every namespace then holds.

`pytest --update` rewrites the goldens and the pages in docs/rules/ that are made of them; the difference of these files
is what a reviewer reads. Each scenario runs in several ways that must not matter ("expanders", style.md §5.7).
"""

import itertools
import tomllib
from pathlib import Path

import msgspec
import pytest

from harness.engines import FACTS, Bench
from harness.state_text import state
from sealane.compile.facts import Features
from sealane.kernel.nft import Chain, Element, Set, Table
from sealane.kernel.state import HOST, namespace
from sealane.kernel.text import lines, sets_of
from sealane.reconcile.ownership import is_deletable
from sealane.wire.requests import AttachRequest, DetachRequest, NetworkRequest

HERE = Path(__file__).parent
DOCS = HERE.parent.parent / "docs" / "rules"
SCENARIOS = sorted(p.parent.name for p in HERE.glob("*/steps.toml"))
KINDS = "link address route rule neighbour fdb sysctl fast-port fast-target fast-gate loopback".split()
"""In the order in which they are shown; then nftables."""


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    """An engine whose ids count up, so that names made of them are the same each time."""
    numbers = itertools.count(1)
    monkeypatch.setattr("sealane.engine.builder.new_id", lambda: f"{next(numbers):032x}")
    return Bench()


def steps(name: str) -> list[dict]:
    return tomllib.loads((HERE / name / "steps.toml").read_text())["step"]


def perform(bench: Bench, step: dict) -> None:
    match step:
        case {"features": fields}:
            facts = msgspec.structs.replace(FACTS, features=msgspec.convert(fields, Features))
            bench.kernel._facts = facts
            bench.engine.reconciler.compiled.with_facts(bench.engine.intent, facts)
        case {"network": fields}:
            bench.engine.create_network(msgspec.convert(fields, NetworkRequest))
        case {"attach": fields}:
            bench.engine.attach(msgspec.convert(fields, AttachRequest))
        case {"detach": fields}:
            bench.engine.detach([msgspec.convert(fields, DetachRequest)])
        case _:
            raise ValueError(f"no such step: {step}")


def rendered(bench: Bench) -> dict[str, str]:
    """Namespace to text: links first, then what hangs on them, then tables with their chains and elements."""
    result = {}
    for netns, items in bench.kernel.snapshot().items():
        sets = sets_of(items.values())
        text: list[str] = []
        for item in sorted(items.values(), key=order):
            text += lines(item, sets)
        name = HOST if netns == HOST else bench.engine.intent.sandboxes[netns].name
        result[name] = "\n".join(text) + "\n"
    return result


def order(item) -> tuple:
    if isinstance(item, Table | Set | Chain | Element):
        kind = (Table, Set, Chain, Element).index(type(item))
        return (len(KINDS), ("ip", "ip6", "bridge").index(item.family), kind, repr(item.key))
    return (KINDS.index(item.key[0]), 0, 0, repr(item.key))


def goldens(name: str) -> dict[str, str]:
    return {p.stem: p.read_text() for p in (HERE / name / "expected").glob("*.txt")}


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_kernel_holds_what_is_expected(name: str, bench: Bench, request: pytest.FixtureRequest) -> None:
    for step in steps(name):
        perform(bench, step)
    found = rendered(bench)
    page = document(name, found)
    if request.config.getoption("--update"):
        folder = HERE / name / "expected"
        folder.mkdir(exist_ok=True)
        for stale in folder.glob("*.txt"):
            stale.unlink()
        for netns, text in found.items():
            (folder / f"{netns}.txt").write_text(text)
        DOCS.mkdir(parents=True, exist_ok=True)
        (DOCS / f"{name}.md").write_text(page)
    assert found == goldens(name)
    assert page == (DOCS / f"{name}.md").read_text(), "docs/rules is stale: run with --update"


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_golden_says_all_that_is_compiled(name: str, bench: Bench) -> None:
    """Law 7: what is read back from the goldens is what the intent compiles to, record by record."""
    for step in steps(name):
        perform(bench, step)
    names = {HOST: HOST} | {box.id: box.name for box in bench.engine.intent.sandboxes.values()}
    compiled = {
        names[netns]: dict(items) for netns, items in bench.engine.reconciler.compiled.desired.items()
    }
    read = {netns: namespace(state(text)) for netns, text in goldens(name).items()}
    assert read == compiled


def document(name: str, found: dict[str, str]) -> str:
    """The page in docs/rules: prose, steps, and what the kernel holds."""
    parts = [
        "<!-- Generated from tests/scenarios; `pytest tests/scenarios --update` rewrites it. -->\n",
        (HERE / name / "notes.md").read_text(),
        "## Steps\n\n```toml\n" + (HERE / name / "steps.toml").read_text() + "```\n",
    ]
    for netns in sorted(found, key=lambda n: (n != HOST, n)):
        title = "The host" if netns == HOST else f"Sandbox `{netns}`"
        parts.append(f"## {title}\n\n```\n{found[netns]}```\n")
    return "\n".join(parts)


@pytest.mark.parametrize("name", SCENARIOS)
def test_each_step_twice_is_each_step_once(name: str, bench: Bench) -> None:
    for step in steps(name):
        perform(bench, step)
        writes = bench.engine.reconciler.writes
        before = rendered(bench)
        perform(bench, step)
        assert (bench.engine.reconciler.writes, rendered(bench)) == (writes, before)


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_restart_between_any_two_steps_changes_nothing(name: str, bench: Bench) -> None:
    for step in steps(name):
        perform(bench, step)
        bench.restart()
        assert bench.engine.reconciler.writes == 0
    assert rendered(bench) == goldens(name)


@pytest.mark.parametrize("name", SCENARIOS)
def test_all_that_came_goes(name: str, bench: Bench) -> None:
    for step in steps(name):
        perform(bench, step)
    for network in list(bench.engine.intent.networks.values()):
        bench.engine.remove_network(network.id, force=True)
    left = [i for items in bench.kernel.snapshot().values() for i in items.values() if is_deletable(i)]
    assert left == []
    assert bench.is_clean()


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_kernel_that_lost_everything_is_made_the_same_again(name: str, bench: Bench) -> None:
    for step in steps(name):
        perform(bench, step)
    bench.kernel.state[HOST].clear()
    sandboxes = {s.id for s in bench.engine.intent.sandboxes.values()}
    for netns in sandboxes:
        bench.kernel.state[netns].clear()
    bench.resyncer.resync({HOST, *sandboxes})
    assert rendered(bench) == goldens(name)
