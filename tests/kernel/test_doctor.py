"""`sealane doctor` on a real host: silence where all is well, and the command line. Its causes: test_doctor_*.py."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from harness.doctored import Town, doctor, town
from harness.foreign import changes, foreign
from harness.host import Lan
from sealane.explain.doctor.causes import CAUSES

pytestmark = pytest.mark.kernel

FINE, FOUND, UNSEEN = 0, 1, 2


@pytest.fixture(scope="module")
def healthy(lan: Lan) -> Iterator[Town]:
    with town(lan, 6) as built:
        yield built


def test_nothing_is_found_where_all_is_well(healthy: Town) -> None:
    code, view = doctor(healthy.host)
    assert (code, view["findings"], view["unseen"]) == (FINE, [], {})
    assert [check["cause"] for check in view["checks"]] == [cause.name for cause in CAUSES]
    assert view["sandboxes"] == 2


def test_findings_come_first_and_each_with_its_hint(healthy: Town) -> None:
    ns = healthy.web.ns
    ns.ip("link", "set", "eth0", "mtu", "9000")
    healthy.servers.pop(0).close()
    try:
        done = healthy.host.sealane("doctor", "--all", check=False)
        lines = done.stdout.splitlines()
        assert done.returncode == FOUND
        assert lines[0].startswith("✗ mtu-black-hole: web/front: its link eth0 has an MTU of 9000")
        assert lines[1].startswith("  → ip link set eth0 mtu 1500 in the sandbox")
        assert lines[2].startswith("! wrong-family: web/front: its name has an A record")
        assert sum(line.startswith("✓ ") for line in lines) == len(CAUSES) - 2
        assert (
            lines[-1]
            == f"{len(CAUSES)} checks run on the host and in 2 sandboxes: {len(CAUSES) - 2} fine, 2 findings"
        )
        short = healthy.host.sealane("doctor", check=False).stdout.splitlines()
        assert short == [*lines[:4], lines[-1]]
    finally:
        ns.ip("link", "set", "eth0", "mtu", "1500")
        healthy.servers.append(ns.listen("tcp", "0.0.0.0", 80))


def test_subjects_narrow_the_look(healthy: Town) -> None:
    ns = healthy.web.ns
    ns.ip("link", "set", "eth0", "mtu", "9000")
    try:
        web, api = healthy.name(healthy.web), healthy.name(healthy.api)
        for subjects, sandboxes, found in [
            ((web,), 1, 1), ((api,), 1, 0), (("host",), 0, 0), (("front",), 2, 1), ((f"{api}/back", web), 2, 1),
        ]:  # fmt: skip
            code, view = doctor(healthy.host, *subjects)
            assert (subjects, view["sandboxes"], len(view["findings"])) == (subjects, sandboxes, found)
            assert code == (FOUND if found else FINE)
    finally:
        ns.ip("link", "set", "eth0", "mtu", "1500")


def test_a_subject_that_there_is_not(healthy: Town) -> None:
    code, error = doctor(healthy.host, "host", "nobody")
    assert (code, error["code"], error["field"]) == (UNSEEN, "invalid", "SUBJECT")


def test_what_cannot_be_looked_at_is_said(healthy: Town) -> None:
    """A firewall with more rules than are gone through."""
    ns = healthy.host.ns
    rules = "counter\n" * 20_001
    ns.sh("nft", "-f", "-", text=f"table ip vast {{\nchain every {{\n{rules}}}\n}}\n")
    try:
        code, view = doctor(healthy.host)
        assert (code, view["findings"]) == (UNSEEN, [])
        assert view["unseen"] == {"nftables": "table vast has more than 20000 rules"}
        (drop,) = [check for check in view["checks"] if check["cause"] == "foreign-drop"]
        assert drop["unseen"] == ["nftables"]
    finally:
        ns.sh("nft", "delete", "table", "ip", "vast")
    assert doctor(healthy.host)[0] == FINE


def test_a_sandbox_that_has_died_is_not_taken_for_healthy(healthy: Town) -> None:
    box = healthy.box("gone")
    box.attach("back")
    name = healthy.name(box)
    box.ns.close()
    code, view = doctor(healthy.host, name)
    # The daemon may have noticed already, and released it.
    assert code == UNSEEN
    assert "does not exist any more" in str(view) or "no sandbox" in str(view)


def test_the_daemon_answers_meanwhile(healthy: Town) -> None:
    def look() -> None:
        for _ in range(5):
            healthy.ask()

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(look)
        asked = 0
        while not running.done():
            healthy.host.api.status()
            asked += 1
        running.result()
    assert asked > 5


def test_looking_changes_nothing(healthy: Town) -> None:
    before = foreign(healthy.host.ns)
    writes = healthy.host.api.status()["writes"]
    healthy.ask()
    assert changes(before, foreign(healthy.host.ns)) == []
    assert healthy.host.api.status()["writes"] == writes
