"""Docker's plain use leaves nothing in our log that asks for attention."""

import pytest

from harness.docker import DOCKERD
from harness.docker_rig import Rig, running
from harness.host import Lan

pytestmark = [pytest.mark.real, pytest.mark.kernel]

if DOCKERD is None:
    pytest.skip("needs dockerd (docker.io)", allow_module_level=True)

HOST_NUMBER = 62


def complaints(rig: Rig) -> list[str]:
    return [line for line in rig.host.stderr().splitlines() if not line.startswith(("INFO ", "DEBUG "))]


def test_plain_use_is_quiet(lan: Lan) -> None:
    with running(lan, HOST_NUMBER) as rig, rig.cleared():
        rig.network("front", "--ipv6", "--subnet", "fd00:50::/64")
        rig.serve("web", "front", "-p", "8080:80")
        rig.run("db", "front")
        rig.network("back", subnet="10.51.0.0/24")
        rig.network("side", subnet="10.52.0.0/24")
        rig.docker("network", "connect", "back", "web")
        rig.serve("other", "back")
        for number in range(6):
            rig.run(f"extra{number}", "front")
            rig.docker("network", "connect", "side", f"extra{number}")
        # One by one: dockerd 20.10 miscounts endpoints that it removes at once, and then keeps their network for ever.
        for number in range(6):
            rig.docker("rm", "-f", f"extra{number}")
        rig.reaches("db", "web", "web")
        rig.docker("restart", "-t", "0", "web")
        rig.docker("run", "--rm", "--network", "side", "busybox", "true")
        rig.docker("network", "rm", "side")
        rig.reaches("db", "web", "web")
        rig.published("127.0.0.1", 8080, "web")
        assert {c["level"] for c in rig.host.api.get("/status")["conditions"]} <= {"note"}
        assert complaints(rig) == []
        assert rig.events("drift.contested") == ""
