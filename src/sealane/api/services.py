"""What the routes need: the verbs of the engine, of the containers and of the daemon. `daemon` provides it.

A stream is an async generator, so that it can be closed when its client leaves. Errors are `engine.errors`; anything
else that is raised becomes `internal` and is logged.
"""

from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

from sealane.engine.engine import Engine
from sealane.engine.resyncer import Resyncer
from sealane.http.call import Hijacker
from sealane.wire.diagnosis import CheckRequest, CheckView, DoctorRequest, DoctorView, TraceRequest, TraceView
from sealane.wire.requests import ContainerRequest, ExecRequest, ImageRequest, Manifest
from sealane.wire.views import (
    ApplyView,
    ContainerView,
    ExecView,
    ImageView,
    LogView,
    PlanView,
    PruneView,
    StatusView,
    VersionView,
)


class ContainerRecords(Protocol):
    async def create(self, request: ContainerRequest, *, is_new: bool = False) -> ContainerView:
        """Make, attach and start. Idempotent for an equal request; after an error nothing is left."""
        ...

    async def create_attended(self, request: ContainerRequest) -> Hijacker:
        """A new one, for the client at its input and output whose connection starts it."""
        ...

    async def list(self, *, stopped: bool) -> Sequence[ContainerView]:
        """By name; `stopped`: also those that do not run."""
        ...

    async def get(self, ref: str) -> ContainerView: ...

    async def request(self, ref: str) -> ContainerRequest:
        """What it was asked for with."""
        ...

    async def remove(self, ref: str, *, force: bool) -> ContainerView:
        """The view is of before. A running one needs `force`."""
        ...


class ContainerProcesses(Protocol):
    async def start(self, ref: str) -> ContainerView: ...

    async def stop(self, ref: str, timeout_s: float | None) -> ContainerView:
        """None: the container's own time; then it is killed."""
        ...

    async def kill(self, ref: str, signal: int) -> ContainerView: ...

    async def wait(self, ref: str) -> ContainerView:
        """Once it has ended for good. Cancelled when the client leaves."""
        ...


class ContainerStreams(Protocol):
    def exec(self, ref: str, request: ExecRequest) -> AsyncGenerator[ExecView, None]:
        """Output as it comes; the last is of stream `exit`. Closed when the client leaves."""
        ...

    async def exec_session(self, ref: str, request: ExecRequest) -> Hijacker:
        """What starts the process, for the client whose connection it is given."""
        ...

    def logs(
        self, ref: str, *, follow: bool, tail: int | None, since: float | None
    ) -> AsyncGenerator[LogView, None]:
        """Lines, oldest first; with `follow` until the container has ended for good. `since` is a Unix time."""
        ...


class Containers(ContainerRecords, ContainerProcesses, ContainerStreams, Protocol):
    """All verbs on containers. A `ref` is a name, an id, or the beginning of an id."""


class Images(Protocol):
    """Unpacked images, of which containers are made."""

    def fetch(self, request: ImageRequest) -> AsyncGenerator[ImageView, None]:
        """How far it is, and at last the image. Closed when the client leaves."""
        ...

    async def list(self) -> Sequence[ImageView]: ...

    async def prune(self) -> PruneView:
        """Those that no container is made of go."""
        ...

    async def remove(self, ref: str) -> ImageView:
        """By reference, digest, or the beginning of a digest; what it was."""
        ...


class Projects(Protocol):
    """Manifests as a whole."""

    async def apply(self, manifest: Manifest) -> ApplyView: ...

    async def delete(self, manifest: Manifest) -> ApplyView: ...

    def plan(self, manifest: Manifest, *, delete: bool) -> PlanView: ...


class Services(Protocol):
    @property
    def engine(self) -> Engine: ...

    @property
    def resyncer(self) -> Resyncer: ...

    @property
    def workloads(self) -> Containers: ...

    @property
    def images(self) -> Images: ...

    @property
    def project(self) -> Projects: ...

    async def check(self, request: CheckRequest) -> CheckView: ...

    def trace(self, request: TraceRequest) -> AsyncGenerator[TraceView, None]:
        """Packets as they end, and one last line. Closed when the client leaves."""
        ...

    async def doctor(self, request: DoctorRequest) -> DoctorView: ...

    def status(self) -> StatusView: ...

    def version(self) -> VersionView: ...
