"""From a request for a container to the runtime's spec, and what can be told to be wrong with it by itself."""

from collections.abc import Callable

import msgspec

from sealane.containers.errors import SpecError
from sealane.containers.images import Images
from sealane.containers.spec import HOST_ROOTFS, ContainerSpec, Dns, check_spec
from sealane.daemon.images import spec_of
from sealane.engine.containers import SHARED
from sealane.engine.errors import InvalidError, SealaneError
from sealane.model.endpoint import NetnsRef
from sealane.model.traits import MODES
from sealane.wire.invalid import wrong
from sealane.wire.requests import ContainerRequest

FILLED_IN = frozenset({"id", "name", "netns", "userns", "dns", "hosts"})
"""Fields of a spec that a request does not set."""


def network_mode(request: ContainerRequest) -> tuple[str, str]:
    """Mode (empty: networks of its own), and the container whose network it shares. Raises InvalidError."""
    mode, _, other = request.network_mode.partition(":")
    if request.network_mode and request.attachments:
        raise InvalidError("`network_mode` and attachments exclude each other", field="network_mode")
    is_shared = mode == SHARED
    if mode not in ("", *MODES) and not (is_shared and other):
        raise InvalidError(
            f"{request.network_mode!r} is no network mode",
            field="network_mode",
            hint="host, none, container:NAME",
        )
    if request.publish and is_shared:
        raise InvalidError(f"publish on container {other}, whose network it is", field="publish")
    if request.publish and not request.attachments:
        raise InvalidError("nothing can be published without a network", field="publish")
    return mode, other


def wants_userns(request: ContainerRequest, no_userns: Callable[[str], str]) -> bool:
    """Whether its sandbox is to be owned by a user namespace. `no_userns`: why one with a root cannot be had. Raises
    InvalidError."""
    mode, _ = network_mode(request)
    if mode and mode != "none":
        if request.userns == "private":
            where = (
                "the host's network belongs" if mode == "host" else "the network of another container belongs"
            )
            raise InvalidError(
                f"{where} to another user namespace",
                field="userns",
                hint="leave it out, or choose another network",
            )
        return False
    if request.userns == "host":
        return False
    rootfs = msgspec.json.decode(request.spec).get("rootfs", HOST_ROOTFS)
    missing = no_userns(rootfs)
    if missing and request.userns == "private":
        raise InvalidError(f"there is no user namespace to be had: {missing}", field="userns", hint="host")
    return not missing


def runtime_spec(
    request: ContainerRequest,
    identity: str,
    images: Images | None,
    *,
    netns: NetnsRef | None,
    dns: Dns,
    hosts: tuple[str, ...],
) -> ContainerSpec:
    """The runtime's record: the request's spec with what the daemon knows filled in."""
    try:
        given = spec_of(request, images)
        for name in sorted(FILLED_IN & set(given)):
            raise InvalidError(f"`{name}` is filled in by the daemon", field=f"spec.{name}")
        given |= {"id": identity, "name": request.name, "hosts": hosts}
        given |= {"netns": netns.path, "userns": netns.userns or None} if netns else {"netns": None}
        given["hostname"] = given.get("hostname") or request.name
        spec = msgspec.convert(given, ContainerSpec)
        spec = msgspec.structs.replace(spec, dns=dns)
        check_spec(spec)
    except msgspec.DecodeError as error:
        message, field, hint = wrong(error, ContainerSpec, within="spec")
        raise InvalidError(message, field=field, hint=hint) from error
    except SpecError as error:
        raise InvalidError(str(error), field=f"spec.{error.field}") from error
    return spec


def command_of(request: ContainerRequest, images: Images | None) -> list[str]:
    try:
        spec = spec_of(request, images)
    except SealaneError:
        # Of an image that is gone. The container is to be shown all the same.
        spec = msgspec.json.decode(request.spec)
    return [str(word) for word in spec.get("command", [])]
