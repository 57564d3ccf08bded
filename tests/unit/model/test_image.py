"""The grammar of images' names."""

import pytest

from sealane.model.image import (
    ImageRef,
    digest_of_root,
    is_image_ref,
    parse_image_ref,
    root_of_digest,
)
from sealane.model.net import ParseError

DIGEST = "ab" * 32


@pytest.mark.parametrize(
    ("text", "transport", "path", "tag"),
    [
        ("oci:build", "oci", "build", ""),
        ("oci:./build:latest", "oci", "./build", "latest"),
        ("oci:/srv/build:v1.2_3-x", "oci", "/srv/build", "v1.2_3-x"),
        ("oci-archive:web.tar", "oci-archive", "web.tar", ""),
        ("oci-archive:/srv/web.tar:1", "oci-archive", "/srv/web.tar", "1"),
    ],
)
def test_a_reference_is_read_and_written(text, transport, path, tag):
    reference = parse_image_ref(text)
    assert reference == ImageRef(transport=transport, path=path, tag=tag)
    assert str(reference) == text
    assert is_image_ref(text)


@pytest.mark.parametrize(
    "text",
    [
        "", "oci", "oci:", "oci::", "oci::tag", "oci:x:", "oci:x:a b", "oci:x:a@b", "oci:a:b:c", "oci:a:b/c", "docker:x",
        "oci:x\n", "oci:x\0", "busybox", "busybox:latest", "/srv/oci:x", f"oci:x:{'t' * 129}",
    ],
)  # fmt: skip
def test_what_is_none_is_refused(text):
    with pytest.raises(ParseError):
        parse_image_ref(text)


@pytest.mark.parametrize(
    "text", ["host", "/srv/oci:x", "./oci:x", "oci", "docker:x", f"image:sha256:{DIGEST}"]
)
def test_other_roots_are_no_references(text):
    assert not is_image_ref(text)


def test_an_unpacked_image_is_named_by_its_digest():
    assert digest_of_root(root_of_digest(DIGEST)) == DIGEST


@pytest.mark.parametrize(
    "text", ["", "host", "image:", f"image:sha256:{DIGEST[1:]}", f"image:sha256:{DIGEST}\n", f"image:sha256:{DIGEST}/..",
             f"image:sha256:{DIGEST.upper()}", "image:sha256:../../etc"]
)  # fmt: skip
def test_nothing_else_becomes_a_path(text):
    assert digest_of_root(text) is None
