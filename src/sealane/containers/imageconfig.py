"""What an image says of the process to run, and what becomes of it beside what was asked for. Pure.

OCI image-spec 1.0, config.md; the rules of what goes before what are Docker's.
"""

from __future__ import annotations

import posixpath
from typing import Any

import msgspec

from sealane.containers.errors import ImageError


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """An unpacked image. `digest`: hex digits of its manifest's sha256, or of its index's."""

    digest: str
    reference: str
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    env: dict[str, str] = {}
    working_dir: str = "/"
    user: str = ""
    stop_signal: str = ""
    exposed: tuple[str, ...] = ()
    """For display: `80/tcp`."""


class _Process(msgspec.Struct):
    entrypoint: list[str] | None = msgspec.field(name="Entrypoint", default=None)
    cmd: list[str] | None = msgspec.field(name="Cmd", default=None)
    env: list[str] | None = msgspec.field(name="Env", default=None)
    working_dir: str | None = msgspec.field(name="WorkingDir", default=None)
    user: str | None = msgspec.field(name="User", default=None)
    stop_signal: str | None = msgspec.field(name="StopSignal", default=None)
    exposed: dict[str, Any] | None = msgspec.field(name="ExposedPorts", default=None)


class _Config(msgspec.Struct):
    config: _Process | None = None
    os: str = "linux"


_CONFIG = msgspec.json.Decoder(_Config)


def read_config(digest: str, reference: str, data: bytes) -> Image:
    """From the image's configuration. Raises ImageError."""
    try:
        document = _CONFIG.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ImageError(f"{reference}: its configuration is none: {error}") from error
    if document.os != "linux":
        raise ImageError(f"{reference} is an image for {document.os}")
    value = document.config or _Process()
    return Image(
        digest=digest,
        reference=reference,
        entrypoint=tuple(value.entrypoint or ()),
        cmd=tuple(value.cmd or ()),
        env=dict(_pair(word) for word in value.env or ()),
        working_dir=posixpath.normpath(posixpath.join("/", value.working_dir or "/")).replace("//", "/"),
        user=value.user or "",
        stop_signal=value.stop_signal or "",
        exposed=tuple(sorted(value.exposed or ())),
    )


def _pair(word: str) -> tuple[str, str]:
    name, _, value = word.partition("=")
    return name, value


def filled(given: dict[str, Any], image: Image) -> dict[str, Any]:
    """Fields of a ContainerSpec with what the image says where nothing was asked for.

    `entrypoint` of `given` is no field of a ContainerSpec: it takes the place of the image's, and the image's arguments
    go with that (moby daemon/commit.go, merge)."""
    said = dict(given)
    entrypoint = said.pop("entrypoint", None)
    command = list(said.get("command") or ())
    if entrypoint is None:
        said["command"] = [*image.entrypoint, *(command or image.cmd)]
    else:
        said["command"] = [*entrypoint, *command]
    said["env"] = {**image.env, **(said.get("env") or {})}
    for field in ("working_dir", "user", "stop_signal"):
        if not said.get(field) and getattr(image, field):
            said[field] = getattr(image, field)
    return said
