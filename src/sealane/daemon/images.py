"""Images for containers: unpacked on threads of their own, never on the loop."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from typing import Any, TypeVar

import msgspec

from sealane.containers.errors import ContainerError, ImageError
from sealane.containers.imageconfig import Image, filled
from sealane.containers.images import Images
from sealane.containers.runtime import Runtime
from sealane.daemon.streams import Stream
from sealane.engine.containers import request_of
from sealane.engine.engine import Engine
from sealane.engine.errors import (
    ConflictError,
    InUseError,
    InvalidError,
    KernelError,
    NotFoundError,
    ReadOnlyError,
    SealaneError,
)
from sealane.engine.problems import parsed
from sealane.model.image import digest_of_root, is_image_ref, parse_image_ref, root_of_digest
from sealane.wire.requests import ContainerRequest, ImageRequest
from sealane.wire.views import ImageView, PruneView

T = TypeVar("T")

DIGEST_MIN = 4
"""Digits that a digest is known by, if it is the only one."""
SHOWN_DIGITS = 12


class ImageVerbs:
    def __init__(self, engine: Engine, runtime: Runtime | None, missing: str = "") -> None:
        """`missing`: why there is no runtime."""
        self._engine = engine
        self._found = runtime
        self._missing = missing

    @property
    def _runtime(self) -> Runtime:
        if self._found is None:
            raise ReadOnlyError(f"no containers here: {self._missing}", hint="install runc or crun")
        return self._found

    async def fetch(self, request: ImageRequest) -> AsyncGenerator[ImageView, None]:
        """Words about the work, and at the end the image, if it is one that is unpacked. A client that hangs up ends it."""
        reference = parsed(parse_image_ref, request.reference, "reference")
        if not reference.path.startswith("/"):
            raise InvalidError(f"{reference.path} is no absolute path", field="reference")
        images = self._runtime.images

        def run(stop: threading.Event) -> Iterator[str | Image]:
            try:
                if request.unpack:
                    yield from images.fetch(reference, stop)
                elif (image := images.look(reference, stop)) is not None:
                    yield image
            except ContainerError as error:
                raise _refused(error) from error

        async for value in Stream(run):
            # Not on the thread of the work: which containers there are is the loop's to read.
            yield ImageView(message=value) if isinstance(value, str) else self._view(value)

    async def list(self) -> Sequence[ImageView]:
        images = await self._call(self._runtime.images.listed)
        return [self._view(image) for image in images]

    async def prune(self) -> PruneView:
        """Those that no container is made of."""
        removed = await self._call(self._runtime.prune_images)
        return PruneView(removed=[image.reference for image in removed])

    async def remove(self, ref: str) -> ImageView:
        """By reference, digest, or the beginning of a digest. Raises NotFoundError, ConflictError, InUseError."""
        image = _named(await self._call(self._runtime.images.listed), ref)
        view = self._view(image)
        removed = await self._call(lambda: self._runtime.prune_images({image.digest}))
        if not removed:
            holders = ", ".join(view.containers) or "a container that has just been made"
            raise InUseError(
                f"{image.reference} is the root of {holders}",
                field="image",
                hint="remove its containers first",
            )
        return view

    async def _call(self, function: Callable[[], T]) -> T:
        try:
            return await asyncio.to_thread(function)
        except ContainerError as error:
            raise _refused(error) from error

    def _view(self, image: Image) -> ImageView:
        rootfs = root_of_digest(image.digest)
        return ImageView(
            rootfs=rootfs,
            reference=image.reference,
            entrypoint=list(image.entrypoint),
            command=list(image.cmd),
            user=image.user,
            working_dir=image.working_dir,
            exposed=list(image.exposed),
            containers=sorted(
                c.name for c in self._engine.intent.containers.values() if _rootfs_of(request_of(c)) == rootfs
            ),
        )


def _named(images: Sequence[Image], ref: str) -> Image:
    """Raises NotFoundError, ConflictError."""
    digest = (digest_of_root(ref) or ref).removeprefix("sha256:")
    found = [
        i for i in images if i.reference == ref or (len(digest) >= DIGEST_MIN and i.digest.startswith(digest))
    ]
    if not found:
        raise NotFoundError(f"there is no image {ref}", field="image", hint="see `sealane image ls`")
    if len(found) > 1:
        shown = ", ".join(i.digest[:SHOWN_DIGITS] for i in found)
        raise ConflictError(
            f"{ref} is {len(found)} images: {shown}", field="image", hint="name it by its digest"
        )
    return found[0]


def spec_of(request: ContainerRequest, images: Images | None) -> dict[str, Any]:
    """A request's spec with what its image says, if it has one. Raises InvalidError, NotFoundError."""
    try:
        given = msgspec.json.decode(request.spec)
    except msgspec.DecodeError as error:
        raise InvalidError(str(error), field="spec") from error
    if not isinstance(given, dict):
        raise InvalidError("an object is needed", field="spec")
    rootfs = given.get("rootfs", "")
    digest = digest_of_root(rootfs) if isinstance(rootfs, str) else None
    if digest is None:
        if isinstance(rootfs, str) and is_image_ref(rootfs):
            hint = "`sealane image load` it, and name what that prints"
            raise InvalidError(f"{rootfs} is not unpacked yet", field="spec.rootfs", hint=hint)
        return given
    image = images.get(digest) if images is not None else None
    if image is None:
        raise NotFoundError(
            f"there is no image {digest[:12]} here", field="spec.rootfs", hint="`sealane image load` it again"
        )
    try:
        return filled(given, image)
    except (TypeError, ValueError) as error:
        raise InvalidError(str(error), field="spec") from error


def _rootfs_of(request: ContainerRequest) -> str:
    spec = msgspec.json.decode(request.spec)
    return str(spec.get("rootfs", "")) if isinstance(spec, dict) else ""


def _refused(error: ContainerError) -> SealaneError:
    if not isinstance(error, ImageError):
        return KernelError(str(error))
    if error.lacks_tools:
        return ReadOnlyError(str(error), hint=error.hint)
    return InvalidError(str(error), field="reference", hint=error.hint)
