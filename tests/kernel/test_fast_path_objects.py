"""The fast path's objects one by one on the real kernel: what is put is read back, changed, and gone again."""

import os
from collections.abc import Iterator

import pytest

from kernel.rtnl_support import BOX, PORT, Rig, endpoint, ip, ip_json, rig, run
from sealane.kernel.objects import FastGate, FastPort, FastTarget
from sealane.kernel.state import HOST
from sealane.linux.bpf import fast_path, mounts
from sealane.linux.bpf.fast_path import FastPath
from sealane.linux.bpf.fast_path_program import gate

pytestmark = pytest.mark.kernel

ENTRANCE = FastPort(link=PORT, driver="bridge")
TARGET = FastTarget(address="10.1.0.2", network=0x4000_0007, link=PORT, mac="02:00:00:00:00:03", mtu=1500)
TARGET6 = FastTarget(
    address="fd00::2",
    network=0xFFFF_FFFF,
    link=PORT,
    mac="02:00:00:00:00:03",
    host_mac="02:00:00:00:00:02",
    mtu=65535,
    delivers=False,
)
GATE = FastGate(driver="routed", family=6)
KINDS = (FastPort, FastTarget, FastGate)


@pytest.fixture
def pins(tmp_path: object) -> Iterator[str]:
    if fast_path.probe():
        pytest.skip(f"no fast path: {fast_path.probe()}")
    where = f"{tmp_path}/bpf"
    yield where
    mounts.remove_bpffs(where)


@pytest.fixture
def opened(pins: str) -> Iterator[FastPath]:
    found = FastPath(pins)
    found.open()
    found.release()
    yield found
    found.close()


@pytest.fixture
def made(opened: FastPath) -> Iterator[Rig]:
    with rig(BOX, fast_path=opened) as it:
        it.make(endpoint())
        yield it


def seen(it: Rig) -> list[object]:
    return [item for item in it.observed() if isinstance(item, KINDS)]


def test_what_is_put_is_read_back_and_gone_when_it_is_deleted(made: Rig) -> None:
    assert made.do(("create", HOST, ENTRANCE), stage="open") == []
    assert made.do(*(("create", HOST, item) for item in (TARGET, TARGET6, GATE)), stage="publish") == []
    assert set(seen(made)) == {ENTRANCE, TARGET, TARGET6, GATE}
    desired = endpoint()
    desired[HOST] = [*desired[HOST], ENTRANCE, TARGET, TARGET6, GATE]
    assert made.drift(desired) == []
    for _ in range(2):
        # Twice, since what is gone is no error.
        gone = [("delete", HOST, item, item) for item in (TARGET, TARGET6, GATE)]
        assert made.do(*gone, stage="unpublish") == []
        assert made.do(("delete", HOST, ENTRANCE, ENTRANCE), stage="close") == []
    assert seen(made) == []


def test_tc_says_the_same(made: Rig) -> None:
    made.do(("create", HOST, ENTRANCE), stage="open")
    shown = run("tc", "filter", "show", "dev", PORT, "ingress")
    assert "pref 24225 bpf" in shown
    assert "sealane-bridge direct-action" in shown


def test_each_is_changed_in_place(made: Rig) -> None:
    made.do(("create", HOST, ENTRANCE), stage="open")
    made.do(("create", HOST, TARGET), stage="publish")
    routed = FastPort(link=PORT, driver="routed")
    other = FastTarget(address=TARGET.address, network=1, link=PORT, mac="02:00:00:00:00:09", mtu=1400)
    assert made.do(("change", HOST, routed, ENTRANCE), stage="open") == []
    assert made.do(("change", HOST, other, TARGET), stage="publish") == []
    assert set(seen(made)) == {routed, other}


def test_with_its_link_a_filter_goes_and_a_target_has_none(made: Rig) -> None:
    made.do(("create", HOST, ENTRANCE), stage="open")
    made.do(("create", HOST, TARGET), stage="publish")
    ip("link", "del", PORT)
    (left,) = seen(made)
    assert isinstance(left, FastTarget)
    assert (left.address, left.link) == (TARGET.address, "")


def test_a_link_of_somebody_else_is_neither_watched_nor_led_to(made: Rig) -> None:
    """It may have taken the name since it was looked at."""
    ip("link", "del", PORT)
    ip("link", "add", PORT, "type", "veth", "peer", "name", "other")
    (refused,) = made.do(("create", HOST, ENTRANCE), stage="open")
    assert "not ours" in refused.message
    (refused,) = made.do(("create", HOST, TARGET), stage="publish")
    assert "not ours" in refused.message
    assert seen(made) == []
    assert run("tc", "qdisc", "show", "dev", PORT, "ingress") == ""


def test_to_a_link_that_is_not_there_nothing_leads(made: Rig) -> None:
    nowhere = FastTarget(address="10.1.0.9", network=1, link="sle00000000dead", mac=TARGET.mac, mtu=1500)
    (refused,) = made.do(("create", HOST, nowhere), stage="publish")
    assert "no link" in refused.message
    assert seen(made) == []


def test_without_a_fast_path_what_is_left_of_one_is_seen_and_taken_away(made: Rig, pins: str) -> None:
    """The daemon may have lost what it takes; links must not go on by themselves."""
    made.do(("create", HOST, ENTRANCE), stage="open")
    kernel = made.kernel
    kernel._fast_path = kernel._applier._fast_path = None
    (left,) = seen(made)
    assert left == FastPort(link=PORT, driver="")
    assert made.do(("delete", HOST, left, left), stage="close") == []
    assert seen(made) == []
    (refused,) = made.do(("create", HOST, ENTRANCE), stage="open")
    assert "no fast path" in refused.message
    assert ip_json("link", "show", PORT)


# --- what is pinned -------------------------------------------------------------------------------------------------


def test_a_second_opening_finds_what_the_first_has_made(pins: str, opened: FastPath) -> None:
    opened.open_gate(GATE)
    programs = {driver: opened.program(driver) for driver in ("bridge", "routed")}  # type: ignore[arg-type]
    assert len(set(programs.values())) == 2
    again = FastPath(pins)
    assert again.open() == ()
    assert list(again.gates()) == [GATE]
    again.close()
    opened.open()


def test_pins_of_another_release_are_retired(pins: str, opened: FastPath) -> None:
    os.rename(*(f"{pins}/{name}" for name in (program_pin(pins), "fast-bridge-000000000000")))
    made = FastPath(pins)
    (name,) = made.open()
    assert name.startswith("fast-bridge-")
    assert sorted(os.listdir(pins)) == sorted({*os.listdir(pins)} - {"fast-bridge-000000000000"})
    made.close()
    opened.open()


def program_pin(pins: str) -> str:
    return next(name for name in os.listdir(pins) if name.startswith("fast-bridge-"))


def test_gates_read_as_they_should_be_while_they_are_held(opened: FastPath) -> None:
    opened.open_gate(GATE)
    other = FastGate(driver="bridge", family=4)
    with opened.held(), opened.held():
        assert raw_gates(opened) == {GATE: 3, other: 2}
        assert list(opened.gates()) == [GATE]
        opened.close_gate(GATE)
        opened.open_gate(other)
        assert raw_gates(opened) == {GATE: 2, other: 3}
    assert raw_gates(opened) == {GATE: 0, other: 1}


def test_it_is_held_from_its_end_to_the_next_release(pins: str, opened: FastPath) -> None:
    opened.open_gate(GATE)
    opened.close()
    opened.open()
    assert raw_gates(opened)[GATE] == 3
    opened.release()
    assert raw_gates(opened)[GATE] == 1


def test_a_trace_may_end_after_the_end(opened: FastPath) -> None:
    with opened.held():
        opened.close()
    opened.open()


def raw_gates(opened: FastPath) -> dict[FastGate, int]:

    items = (GATE, FastGate(driver="bridge", family=4))
    return {item: opened._gate(gate(item.driver, item.family)) for item in items}
