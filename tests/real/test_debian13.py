"""podman 5.4 and Python 3.13, in a root of Debian 13: what guards podman's published ports, run there too.

`make test-debian13` runs all tests of the engines' integrations in it. The root is made before, by `make debian13`: here there is
no network.
"""

import subprocess
from pathlib import Path

import pytest

pytestmark = [pytest.mark.real, pytest.mark.kernel]

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "test-debian13"
GUARDS = {
    "tests/real/test_podman.py": (
        "test_a_container_has_its_address_its_name_and_its_port",
        "test_what_is_published_on_the_hosts_loopback_is_answered",
        "test_a_port_that_another_program_holds_is_refused_whatever_it_calls_itself",
        "test_reload_and_restart_keep_what_was_asked_for",
    ),
    "tests/real/test_podman_forwarder.py": ("test_ports_on_every_address_are_answered_on_the_loopback_too",),
    "tests/kernel/test_reservations.py": (),
}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([SCRIPT, *arguments], capture_output=True, text=True, check=False)


def test_podman_5_publishes_what_it_reserves() -> None:
    ready = run("--ready")
    if ready.returncode == 69:
        pytest.skip(ready.stderr.strip())
    desired = [f"{file}::{test}" for file, tests in GUARDS.items() for test in tests]
    desired += [file for file, tests in GUARDS.items() if not tests]
    done = run("-q", "-n0", *desired)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    assert " passed" in done.stdout
    assert " skipped" not in done.stdout, f"{done.stdout}: each can run there"
