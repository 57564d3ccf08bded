"""Images that a command line or a file names, fetched before what is made of them is asked for."""

import os
from typing import Any

import msgspec

from sealane.cli.context import Context, UsageError
from sealane.client import path_of
from sealane.model.image import ImageRef, is_image_ref, parse_image_ref
from sealane.model.net import ParseError
from sealane.wire.requests import ContainerRequest, Manifest


def image_ref(text: str, field: str) -> ImageRef:
    """With an absolute path. Raises UsageError."""
    try:
        reference = parse_image_ref(text)
    except ParseError as error:
        raise UsageError(
            str(error), field=field, hint="write oci:PATH[:TAG] or oci-archive:FILE[:TAG]"
        ) from error
    return msgspec.structs.replace(reference, path=os.path.abspath(os.path.expanduser(reference.path)))


def fetch(context: Context, reference: ImageRef, *, unpack: bool = True) -> dict[str, Any]:
    """The image's view, once it is unpacked; how far that is goes to stderr. Without `unpack` empty, if it is not."""
    view: dict[str, Any] = {}
    request = {"reference": str(reference), "unpack": unpack}
    for view in context.client.stream("POST", path_of("images"), request):
        if view["message"]:
            context.output.note(view["message"])
    return view


def with_images(context: Context, manifest: Manifest, *, unpack: bool = True) -> Manifest:
    """The manifest with its images unpacked, and containers naming them so. Each is asked for once. Without `unpack` those
    that are not stay as they were named: what is made of them will be new."""
    found: dict[str, str] = {}
    containers = [_with_image(context, container, found, unpack) for container in manifest.containers]
    return msgspec.structs.replace(manifest, containers=containers)


def _with_image(
    context: Context, container: ContainerRequest, found: dict[str, str], unpack: bool
) -> ContainerRequest:
    spec = msgspec.json.decode(container.spec)
    rootfs = spec.get("rootfs") if isinstance(spec, dict) else None
    if not isinstance(rootfs, str) or not is_image_ref(rootfs):
        return container
    reference = image_ref(rootfs, f"{container.name}: image")
    if rootfs not in found:
        found[rootfs] = fetch(context, reference, unpack=unpack).get("rootfs", rootfs)
    raw = msgspec.Raw(msgspec.json.encode({**spec, "rootfs": found[rootfs]}))
    return msgspec.structs.replace(container, spec=raw)
