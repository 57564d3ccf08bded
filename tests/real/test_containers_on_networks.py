"""Containers of the daemon's on networks that come and go while they run."""

import shutil

import pytest

from harness.host import Host
from harness.netns import eventually

pytestmark = [pytest.mark.real, pytest.mark.kernel]

HOST_NUMBER = 16

if not any(shutil.which(name, path="/usr/sbin:/usr/bin:/usr/local/bin") for name in ("runc", "crun")):
    pytest.skip("needs runc or crun", allow_module_level=True)


@pytest.fixture
def machine(lan):
    with Host(lan, number=HOST_NUMBER).start() as host:
        host.sealane("network", "create", "--subnet", "10.71.0.0/24", "front")
        host.sealane("network", "create", "--subnet", "10.72.0.0/24", "back")
        yield host
        host.sealane("rm", "-f", "web", "db", check=False)


def run(host, name, network):
    host.sealane("run", "-d", "--name", name, "--network", network, "sleep", "60")


def read(host, path):
    return host.sealane("exec", "web", "cat", path).stdout


def test_a_running_container_finds_the_names_of_a_network_that_it_joins(machine):
    """Its files are rewritten in place: the process that runs in it sees them without being started again."""
    run(machine, "web", "front")
    run(machine, "db", "back")
    assert "10.72.0.1" not in read(machine, "/etc/resolv.conf")
    machine.sealane("detach", "web", "front")
    machine.sealane("attach", "web", "back")
    eventually(lambda: "10.72.0.1" in read(machine, "/etc/resolv.conf"), what="the resolver of back")
    eventually(lambda: "10.72.0.3 web" in read(machine, "/etc/hosts").replace("\t", " "), what="its own name")
    assert "10.71.0." not in read(machine, "/etc/resolv.conf") + read(machine, "/etc/hosts")
    assert "10.72.0.2" in machine.sealane("exec", "web", "getent", "hosts", "db").stdout
