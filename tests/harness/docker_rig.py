"""A host with our daemon and a dockerd whose driver it is, and what tests do there with `docker`."""

import contextlib
from collections.abc import Iterator
from typing import Any

from harness.audit import audit
from harness.docker import PLUGIN_SOCKET, Docker
from harness.host import Host, Lan
from harness.netns import eventually

SERVE = "exec nc -ll -p {1} -e echo {0}"


class Rig:
    def __init__(self, host: Host, docker: Docker, options: tuple[str, ...]) -> None:
        self.host, self.docker = host, docker
        self._options = options

    def start(self) -> None:
        """Our daemon, as it was started first."""
        self.host.start(options=self._options)

    def network(self, name: str, *options: str, subnet: str = "10.50.0.0/24") -> None:
        driver = ("-d", "sealane", "--ipam-driver", "sealane", "--subnet", subnet)
        self.docker("network", "create", *driver, "-o", f"sealane.name={name}", *options, name)

    def run(self, name: str, network: str, *options: str, command: str = "exec sleep 600") -> None:
        self.docker(
            "run",
            "-d",
            "--init=false",
            "--name",
            name,
            "--network",
            network,
            *options,
            "busybox",
            "sh",
            "-c",
            command,
        )

    def serve(self, name: str, network: str, *options: str, port: int = 80) -> None:
        self.run(name, network, *options, command=SERVE.format(name, port))

    def get(self, where: str, address: str, port: int = 80) -> str:
        """What a container hears from an address or name; empty: nothing in time. (Not by `wget`: that of
        busybox 1.35 crashes on its time limit.)"""
        return self.docker.run("exec", where, "nc", "-w", "1", address, str(port), check=False).stdout.strip()

    def reaches(self, where: str, address: str, said: str, port: int = 80) -> None:
        eventually(
            lambda: self.get(where, address, port) == said, what=f"{where} reaches {said} at {address}"
        )

    def published(self, address: str, port: int, said: str, *, lan: Lan | None = None) -> None:
        where = lan.ext if lan else self.host.ns

        def answer() -> str:
            return str(where.probe("tcp", address, port).get("answer", "")).strip()

        eventually(lambda: answer() == said, what=f"{said} answers at {address}:{port}")

    def endpoints(self, network: str = "") -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.host.api.get(
            "/endpoints", **({"network": network} if network else {})
        )
        return found

    def address(self, container: str, network: str) -> str:
        return self.docker(
            "inspect", "-f", f'{{{{(index .NetworkSettings.Networks "{network}").IPAddress}}}}', container
        )

    def events(self, kind: str) -> str:
        lines = self.host.sealane("events").stdout.splitlines()
        return "\n".join(line for line in lines if kind in line)

    def links(self, prefix: str = "sl") -> list[str]:
        return sorted(i["ifname"] for i in self.host.ns.json("ip", "link") if i["ifname"].startswith(prefix))

    @contextlib.contextmanager
    def cleared(self) -> Iterator[None]:
        """Whatever is done meanwhile is undone, by Docker alone; then nothing of it is left anywhere."""
        yield
        if self.host.daemon is None:
            self.start()
        if self.docker.daemon is None:
            self.docker.start()
        self.clear()
        left = self.links(), self.host.api.get("/networks"), audit(self.host)
        for network in left[1]:
            self.host.api.remove_network(
                network["name"], force=True
            )  # The next test is not to suffer for it.
        assert left == ([], [], []), "nothing is left of it"

    def clear(self) -> None:
        containers = self.docker("ps", "-aq").split()
        if containers:
            self.docker("rm", "-f", *containers)
        for network in self.docker("network", "ls", "-q", "--filter", "driver=sealane").split():
            # Its containers are gone; under load dockerd still has their endpoints for a moment.
            eventually(
                lambda network=network: (
                    self.docker.run("network", "rm", network, check=False).returncode == 0
                ),
                what=f"network {network} goes",
            )


@contextlib.contextmanager
def running(lan: Lan, number: int, plugin_socket: str = PLUGIN_SOCKET) -> Iterator[Rig]:
    options = ("--docker-plugin-socket", plugin_socket)
    with Host(lan, number=number).start(options=options) as host:
        docker = Docker(host, "--live-restore")
        try:
            docker.start()
            docker.import_busybox()
            yield Rig(host, docker, options)
        finally:
            docker.close()
