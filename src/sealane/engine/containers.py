"""Containers as the engine sees them: what was asked for, and what goes with one. Pure."""

from collections.abc import Collection, Iterable

import msgspec

from sealane.engine.errors import ConflictError, NotFoundError
from sealane.engine.labels import OWNED_BY
from sealane.model.change import Change, Delete
from sealane.model.container import Container
from sealane.model.intent import Intent
from sealane.wire.requests import ContainerRequest

SHARED = "container"
"""The mode of a network that is another container's."""

_REQUEST = msgspec.json.Decoder(ContainerRequest)


def request_of(container: Container) -> ContainerRequest:
    """What it was asked for with."""
    return _REQUEST.decode(container.spec)


def host_of(request: ContainerRequest) -> list[tuple[str, str]]:
    """The field and the name of the container whose network it shares, if it does."""
    mode, _, other = request.network_mode.partition(":")
    return [("network_mode", other)] if mode == SHARED and other else []


def owns_sandbox(container: Container, intent: Intent) -> bool:
    sandbox = intent.sandboxes.get(container.sandbox)
    return sandbox is not None and sandbox.labels.get(OWNED_BY) == container.id


def dependents(container: Container, intent: Intent) -> list[Container]:
    """Others that live in the sandbox that was made for this one, and cannot stay without it."""
    if not owns_sandbox(container, intent):
        return []
    return [c for c in intent.containers_by_sandbox[container.sandbox].values() if c.id != container.id]


def check_guests(container: Container, intent: Intent, going: Collection[str] = ()) -> None:
    """Raises ConflictError for those who live in its sandbox and are not among `going`, by name."""
    staying = sorted(c.name for c in dependents(container, intent) if c.name not in going)
    if staying:
        raise ConflictError(
            f"container {container.name} lends its network to {', '.join(staying)}",
            hint=f"`sealane rm --force {' '.join(staying)}` first",
        )


def check_is_somewhere(container: Container, intent: Intent) -> None:
    """Where it has been attached and detached since it was made, that counts. Raises NotFoundError for one whose networks
    were all taken away: it is not to come back without any."""
    if intent.endpoints_by_sandbox.get(container.sandbox):
        return
    for attachment in request_of(container).attachments:
        if intent.network_named(attachment.network) is None:
            raise NotFoundError(
                f"there is no network {attachment.network!r} any more, which container {container.name} was on",
                field="network",
                hint=f"make it, `sealane rm {container.name}`, and run it again",
            )


def departure(container: Container, intent: Intent) -> list[Change]:
    """A container's record, and with it the sandbox that was made for it, with all its endpoints."""
    changes: list[Change] = [Delete(container)]
    if owns_sandbox(container, intent):
        endpoints = intent.endpoints_by_sandbox[container.sandbox].values()
        changes += [*map(Delete, endpoints), Delete(intent.sandboxes[container.sandbox])]
    return changes


def changed_by(
    wave: Iterable[ContainerRequest], intent: Intent, manifest: Collection[str]
) -> list[Container]:
    """Containers that go before those of a wave come: what is asked for otherwise now, and before it those that live in its
    sandbox, which come again. `manifest`: names of all that come. Raises ConflictError for a guest who is none of them."""
    going: dict[str, Container] = {}
    for request in wave:
        identity = intent.container_ids.get(request.name)
        if identity is None or request_of(intent.containers[identity]) == request:
            continue
        container = intent.containers[identity]
        check_guests(container, intent, manifest)
        going |= {c.id: c for c in (*dependents(container, intent), container)}
    return dependents_first(going.values(), intent)


def dependents_first(containers: Iterable[Container], intent: Intent) -> list[Container]:
    """In an order in which they can go."""
    return sorted(containers, key=lambda c: owns_sandbox(c, intent))
