"""dockerd and sealane as services of a real systemd: who starts whom, restarts of either, and the machine's."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from harness.audit import audit
from harness.docker import DOCKER, DOCKERD, import_busybox
from harness.host import Lan
from harness.netns import eventually
from harness.systemd import Machine, NamedWorkload, why_not

pytestmark = [pytest.mark.real, pytest.mark.kernel]

if why_not() or DOCKERD is None:
    pytest.skip(why_not() or "needs dockerd (docker.io)", allow_module_level=True)

HOST_NUMBER = 38
SERVICE = "sealane.service"
SOCKETS = ("sealane.socket", "sealane-docker.socket")

# Debian's docker.service, but for what starts its containerd, and for places of its own.
UNIT = """
[Unit]
After=network-pre.target

[Service]
Type=notify
ExecStart={dockerd} --host unix://{dir}/docker.sock --data-root {dir}/docker --exec-root /run/docker-test \
 --pidfile /run/docker-test.pid --storage-driver vfs --log-level warn
StandardError=append:{log}
Restart=always
RestartSec=100ms
TimeoutStopSec=20s
Delegate=yes
KillMode=process
LimitNOFILE=65536

[Install]
WantedBy=multi-user.target
"""


class DockerMachine(Machine):
    def install_docker(self) -> None:
        unit = UNIT.format(dockerd=DOCKERD, dir=self.dir, log=f"{self.dir}/dockerd.log")
        Path(self.dir, "etc", "docker.service").write_text(unit, encoding="utf-8")
        self.systemctl("daemon-reload")
        self.systemctl("enable", "--now", *SOCKETS)
        self.systemctl("enable", SERVICE)
        self.systemctl("enable", "--now", "docker.service")
        import_busybox(f"{self.dir}/docker.sock")

    def docker(self, *argv: str) -> str:
        return self.run(DOCKER, "--host", f"unix://{self.dir}/docker.sock", *argv)

    def hears(self, address: str, port: int) -> str:
        return str(self.ns.probe("tcp", address, port).get("answer", "")).strip()


@pytest.fixture(scope="module")
def machine(lan: Lan) -> Iterator[DockerMachine]:
    Path("/etc/docker").mkdir(exist_ok=True)
    with DockerMachine(lan, HOST_NUMBER) as booted:
        booted.install_docker()
        yield booted


def serve(machine: DockerMachine, name: str, *options: str) -> None:
    command = ("sh", "-c", f"exec nc -ll -p 80 -e echo {name}")
    machine.docker(
        "run", "-d", "--init=false", "--name", name, "--network", "front", *options, "busybox", *command
    )


def test_docker_starts_sealane_and_both_survive_each_other_and_the_machine(
    machine: DockerMachine, lan: Lan
) -> None:
    """One story, since each step is about what the one before has left."""
    assert machine.show(SERVICE, "ActiveState") == "inactive"
    driver = ("-d", "sealane", "--ipam-driver", "sealane", "-o", "sealane.name=front")
    machine.docker("network", "create", *driver, "--subnet", "10.50.0.0/24", "front")
    assert machine.show(SERVICE, "ActiveState") == "active", "started by Docker's first request"
    serve(machine, "web", "--restart", "always", "--ip", "10.50.0.40", "-p", "8080:80")
    assert machine.hears("127.0.0.1", 8080) == "web"

    # sealane goes and comes back; dockerd, whose connections break, sees nothing of it.
    for number in range(3):
        machine.systemctl("restart", SERVICE)
        machine.docker("run", "--rm", "--network", "front", "busybox", "true")
        machine.systemctl("kill", "-s", "KILL", SERVICE)
        serve(machine, f"extra{number}")
        assert machine.hears("127.0.0.1", 8080) == "web"
    machine.docker("rm", "-f", *(f"extra{number}" for number in range(3)))
    assert audit(machine) == []

    # Stopped, it is started again by whatever Docker wants of it.
    machine.systemctl("stop", SERVICE)
    assert machine.hears("127.0.0.1", 8080) == "web", "and its containers are reached meanwhile"
    machine.docker("restart", "-t", "0", "web")
    eventually(lambda: machine.hears("127.0.0.1", 8080) == "web", what="it is published again")

    # dockerd is restarted, and not by live-restore: it stops its containers and starts them anew.
    machine.systemctl("restart", "docker.service")
    eventually(lambda: machine.hears("127.0.0.1", 8080) == "web", 20, "its restart policy brings it back")
    with closing(NamedWorkload(machine, "lab")) as lab:
        lab.attach("front")
        assert lab.ns.probe("tcp", "10.50.0.40", 80)["answer"].strip() == "web"

    machine.reboot()
    assert machine.show("docker.service", "NRestarts") == "0", "it never waited for a driver in vain"
    eventually(lambda: machine.hears("127.0.0.1", 8080) == "web", 20, "all is as before")
    assert lan.ext.probe("tcp", machine.address(4), 8080)["answer"].strip() == "web"
    assert len(machine.api.get("/endpoints")) == 1, "nothing stays of the container that was"
    assert audit(machine) == []

    machine.docker("rm", "-f", "web")
    machine.docker("network", "rm", "front")
    assert machine.api.get("/networks") == machine.api.get("/sandboxes") == []
    assert audit(machine) == []


def test_a_swarm_is_no_hindrance_and_takes_no_network_of_ours(machine: DockerMachine) -> None:
    """It tells each driver of its nodes, and of drivers with a socket takes none. (Not with live-restore.)"""
    create = ("network", "create", "-d", "sealane", "--ipam-driver", "sealane", "-o", "sealane.name=front")
    machine.docker(*create, "--subnet", "10.50.0.0/24", "front")
    machine.docker("swarm", "init", "--advertise-addr", machine.address(4))
    try:
        serve(machine, "web")
        said = machine.docker("run", "--rm", "--network", "front", "busybox", "nc", "-w", "2", "web", "80")
        assert said == "web"
        with pytest.raises(AssertionError, match="legacy plugin sealane"):
            machine.docker("network", "create", "-d", "sealane", "--scope", "swarm", "refused")
    finally:
        machine.docker("swarm", "leave", "--force")
    assert len(machine.api.get("/endpoints")) == 1
    machine.docker("rm", "-f", "web")
    machine.docker("network", "rm", "front")
    assert machine.api.get("/networks") == []
    assert audit(machine) == []
