"""Images as people name them, and as they are known once unpacked. The grammar is skopeo's (containers-transports(5))."""

import re

import msgspec

from sealane.model.net import ParseError

TRANSPORTS = ("oci", "oci-archive")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")

UNPACKED = "image:"
_ROOT = re.compile(r"image:sha256:([0-9a-f]{64})")


class ImageRef(msgspec.Struct, frozen=True, kw_only=True):
    transport: str
    path: str
    """A layout's directory, or an archive's file."""
    tag: str = ""
    """Empty: the only image that is there."""

    def __str__(self) -> str:
        return f"{self.transport}:{self.path}" + (f":{self.tag}" if self.tag else "")


def is_image_ref(text: str) -> bool:
    """Whether it is meant as one; a directory of such a name is `./oci:…`."""
    return text.partition(":")[0] in TRANSPORTS and ":" in text


def parse_image_ref(text: str) -> ImageRef:
    transport, colon, rest = text.partition(":")
    if transport not in TRANSPORTS or not colon:
        raise ParseError(f"{text!r} is no image: oci:PATH[:TAG] or oci-archive:FILE[:TAG]")
    path, colon, tag = rest.rpartition(":")
    if not colon or "/" in tag:
        path, tag = rest, ""
    elif not _TAG.fullmatch(tag):
        raise ParseError(f"{text!r}: {tag!r} is no tag")
    # A colon would be read as the tag's by skopeo.
    if not path or ":" in path or "\0" in path or "\n" in path:
        raise ParseError(f"{text!r}: a path is needed, without a colon in it")
    return ImageRef(transport=transport, path=path, tag=tag)


def digest_of_root(rootfs: str) -> str | None:
    """Of `image:sha256:DIGEST`, a container's root that is an unpacked image: its hex digits; None for other roots."""
    match = _ROOT.fullmatch(rootfs)
    return match[1] if match else None


def root_of_digest(digest: str) -> str:
    return f"{UNPACKED}sha256:{digest}"
