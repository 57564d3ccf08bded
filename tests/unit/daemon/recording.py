"""A container runtime in memory that notes what it is told, and a daemon's verbs over it and a kernel in memory."""

import threading
import time
from collections.abc import Iterable, Iterator

import msgspec

from harness.engines import Bench
from sealane.containers.errors import NotFoundError
from sealane.containers.logs import LogLine
from sealane.containers.runtime import Client
from sealane.containers.spec import ContainerSpec, Dns
from sealane.containers.store import ContainerState
from sealane.daemon.project import Projects
from sealane.daemon.workloads import Workloads
from sealane.model.image import root_of_digest
from sealane.wire.requests import Attachment, ContainerRequest


class RecordingRuntime:
    """Containers run, and are healthy, from their start until they are stopped or removed."""

    def __init__(self) -> None:
        self.images = None
        self.specs: dict[str, ContainerSpec] = {}
        self.running: set[str] = set()
        self.clients: dict[str, Client] = {}
        self.now = 0.0
        self.userns_missing = ""
        self.warnings: tuple[str, ...] = ()
        self.told: dict[str, dict[str, object]] = {}
        """Fields of a container's state that are otherwise than said above."""
        self.hosts: list[tuple[str, tuple[str, ...]]] = []
        self.resolv: list[tuple[str, Dns]] = []
        self.failure: Exception | None = None
        """What rewriting a file raises."""

    def no_userns(self, rootfs: str) -> str:
        return self.userns_missing

    def warned(self, spec: ContainerSpec) -> tuple[str, ...]:
        return self.warnings

    def prune_images(self, only=None):
        used = {spec.rootfs for spec in self.specs.values()}
        there = self.images.there
        unused = [d for d in there if root_of_digest(d) not in used and (only is None or d in only)]
        return tuple(there.pop(digest) for digest in unused)

    def create_and_start(self, spec: ContainerSpec, client: Client | None = None) -> int:
        self.specs[spec.id] = spec
        if client is not None:
            # As a shim, which says nothing before it has ended.
            self.clients[spec.id] = (client[0].dup(), client[1])
        return self.start(spec.id)

    def start(self, identity: str) -> int:
        if identity not in self.running:
            self.running.add(identity)
            self.now += 1
            self.told[identity] = {"started_at": self.now}
        return 1

    def stop(self, identity: str, timeout: float | None = None) -> None:
        self.end(identity)

    def end(self, identity: str, exit_code: int = 0) -> None:
        """As its process does by itself."""
        if identity in self.running:
            self.running.discard(identity)
            self.now += 1
            self.told[identity] |= {"finished_at": self.now, "exit_code": exit_code}

    def come_back(self, identity: str, restarts: int) -> None:
        """As its restart policy brings it back."""
        self.now += 1
        self.running.add(identity)
        self.told[identity] = {"started_at": self.now, "restarts": restarts}

    def remove(self, identity: str, *, force: bool = False) -> None:
        self.running.discard(identity)
        self.specs.pop(identity, None)

    def state(self, identity: str) -> ContainerState:
        if identity not in self.specs:
            raise NotFoundError(identity)
        running = identity in self.running
        fields: dict[str, object] = {
            "status": "running" if running else "exited",
            "health": "healthy" if running else None,
            "supervised": running,
        }
        fields |= self.told.get(identity, {})
        return ContainerState(id=identity, name=self.specs[identity].name, **fields)  # type: ignore[arg-type]

    def wait(self, identity: str, timeout: float | None = None) -> ContainerState:
        time.sleep(0.01)
        return self.state(identity)

    def logs(self, identity: str, *, follow: bool, stop: threading.Event, **_: object) -> Iterator[LogLine]:
        """A line, and what follows has no end."""
        yield LogLine("2026-11-28T20:00:00.000000000Z", "stdout", partial=False, text=b"hello")
        while follow and not stop.wait(0.01):
            pass

    def recover(self) -> tuple[()]:
        return ()

    def sweep(self, known: Iterable[str]) -> tuple[str, ...]:
        return tuple(set(self.specs) - set(known))

    def update_hosts(self, identity: str, lines: tuple[str, ...]) -> None:
        self._check(identity)
        self.hosts.append((self.specs[identity].name, lines))

    def update_resolv(self, identity: str, dns: Dns) -> None:
        self._check(identity)
        self.resolv.append((self.specs[identity].name, dns))

    def _check(self, identity: str) -> None:
        if identity not in self.specs:
            raise NotFoundError(identity)
        if self.failure is not None:
            raise self.failure


class Daemon:
    """What a daemon is made of, without its integrations."""

    def __init__(self) -> None:
        self.bench = Bench()
        self.engine = self.bench.engine
        self.runtime = RecordingRuntime()
        self.workloads = Workloads(self.engine, self.runtime)  # type: ignore[arg-type]
        self.projects = Projects(self.engine, self.workloads)


def container(name: str, *networks: str | Attachment, **fields: object) -> ContainerRequest:
    places = [n if isinstance(n, Attachment) else Attachment(network=n) for n in networks]
    spec = msgspec.Raw(b'{"command": ["/bin/true"]}')
    return ContainerRequest(name=name, spec=spec, attachments=places, **fields)  # type: ignore[arg-type]
