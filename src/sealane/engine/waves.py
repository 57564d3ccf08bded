"""The order in which a manifest's containers come: waves, each needing only what the waves before it hold. Pure."""

from collections.abc import Iterable

from sealane.engine.containers import host_of
from sealane.engine.errors import InvalidError
from sealane.wire.requests import ContainerRequest


def waves(containers: Iterable[ContainerRequest]) -> list[list[ContainerRequest]]:
    """Containers in groups, each after the groups that it depends on. Raises InvalidError on a circle."""
    rest = {c.name: c for c in containers}
    result: list[list[ContainerRequest]] = []
    while rest:
        ready = [c for c in rest.values() if not any(name in rest for name in _needs(c))]
        if not ready:
            raise InvalidError(
                f"containers depend on each other in a circle: {', '.join(rest)}", field="containers"
            )
        result.append(ready)
        for container in ready:
            del rest[container.name]
    return result


def completed_before(wave: Iterable[ContainerRequest]) -> set[str]:
    """Names of containers that have run to their end when this wave comes."""
    return {
        name
        for container in wave
        for name, condition in container.depends_on.items()
        if condition == "completed"
    }


def _needs(container: ContainerRequest) -> list[str]:
    return [*container.depends_on, *(name for _, name in host_of(container))]
