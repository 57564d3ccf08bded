"""The daemon's half of images: what becomes of a request's spec, and of the unpacker's words and failures."""

import asyncio

import msgspec
import pytest

from sealane.containers.errors import ConflictError, ImageError
from sealane.containers.imageconfig import Image
from sealane.daemon.images import ImageVerbs, spec_of
from sealane.engine import errors as engine_errors
from sealane.engine.errors import InvalidError, KernelError, NotFoundError, ReadOnlyError
from sealane.model.image import root_of_digest
from sealane.wire.requests import ContainerRequest, ImageRequest
from unit.daemon.recording import Daemon

DIGEST = "ab" * 32
IMAGE = Image(
    digest=DIGEST, reference="oci:/srv/web", entrypoint=("/web",), cmd=("serve",), exposed=("80/tcp",)
)


class Images:
    def __init__(self):
        self.there = {DIGEST: IMAGE}
        self.failure = None
        self.asked = []

    def get(self, digest):
        return self.there.get(digest)

    def listed(self):
        return tuple(self.there.values())

    def look(self, reference, stop):
        if self.failure:
            raise self.failure
        return IMAGE if str(reference) == IMAGE.reference else None

    def fetch(self, reference, stop):
        self.asked.append(str(reference))
        yield "reading"
        if self.failure:
            raise self.failure
        yield IMAGE


@pytest.fixture
def daemon():
    daemon = Daemon()
    daemon.runtime.images = Images()
    daemon.images = ImageVerbs(daemon.engine, daemon.runtime)
    return daemon


def request(document, name="web"):
    return ContainerRequest(name=name, spec=msgspec.Raw(msgspec.json.encode(document)))


def fetched(daemon, reference, *, unpack=True):
    async def run():
        request = ImageRequest(reference=reference, unpack=unpack)
        return [view async for view in daemon.images.fetch(request)]

    return asyncio.run(run())


def test_a_look_tells_what_is_unpacked_and_unpacks_nothing(daemon):
    [view] = fetched(daemon, "oci:/srv/web", unpack=False)
    assert view.rootfs == root_of_digest(DIGEST)
    assert fetched(daemon, "oci:/srv/other", unpack=False) == []
    assert daemon.runtime.images.asked == []
    daemon.runtime.images.failure = ImageError("there is no /srv/web")
    with pytest.raises(InvalidError, match="there is no /srv/web"):
        fetched(daemon, "oci:/srv/web", unpack=False)


class TestSpecs:
    def test_what_the_image_says_fills_what_is_open(self):
        spec = spec_of(request({"rootfs": root_of_digest(DIGEST), "user": "web"}), Images())
        assert (spec["command"], spec["user"]) == (["/web", "serve"], "web")

    @pytest.mark.parametrize("rootfs", ["host", "/srv/root"])
    def test_other_roots_are_as_they_are(self, rootfs):
        assert spec_of(request({"rootfs": rootfs, "command": ["x"]}), Images()) == {
            "rootfs": rootfs,
            "command": ["x"],
        }
        assert spec_of(request({"command": ["x"]}), None) == {"command": ["x"]}

    @pytest.mark.parametrize("images", [None, Images()])
    def test_one_that_is_not_here_is_told_with_the_hint(self, images):
        with pytest.raises(NotFoundError) as caught:
            spec_of(request({"rootfs": root_of_digest("cd" * 32)}), images)
        assert (caught.value.field, "image load" in caught.value.hint) == ("spec.rootfs", True)

    def test_one_that_is_not_unpacked_is_told_so(self):
        with pytest.raises(InvalidError) as caught:
            spec_of(request({"rootfs": "oci:/srv/web"}), Images())
        assert caught.value.field == "spec.rootfs"

    @pytest.mark.parametrize("document", [[], "x", {"rootfs": root_of_digest(DIGEST), "env": 3}])
    def test_what_is_no_spec_is_refused_and_no_fault(self, document):
        with pytest.raises(InvalidError) as caught:
            spec_of(request(document), Images())
        assert caught.value.field == "spec"

    def test_a_root_that_is_no_text_is_for_the_specs_own_check(self):
        assert spec_of(request({"rootfs": 3}), Images()) == {"rootfs": 3}


class TestVerbs:
    def test_a_container_of_an_image_runs_as_it_says_and_is_listed_with_it(self, daemon):
        view = asyncio.run(daemon.workloads.create(request({"rootfs": root_of_digest(DIGEST)})))
        assert view.command == ["/web", "serve"]
        (spec,) = daemon.runtime.specs.values()
        assert spec.command == ("/web", "serve")
        (shown,) = asyncio.run(daemon.images.list())
        assert (shown.containers, shown.exposed) == (["web"], ["80/tcp"])

    def test_it_is_shown_after_its_image_is_gone(self, daemon):
        asyncio.run(daemon.workloads.create(request({"rootfs": root_of_digest(DIGEST), "command": ["x"]})))
        daemon.runtime.images.there.clear()
        assert daemon.workloads.view("web").command == ["x"]

    def test_a_container_of_one_that_is_not_there_is_none(self, daemon):
        with pytest.raises(NotFoundError):
            asyncio.run(daemon.workloads.create(request({"rootfs": root_of_digest("cd" * 32)})))
        assert daemon.engine.sandboxes() == []

    def test_words_come_first_and_the_image_last(self, daemon):
        words, image = fetched(daemon, "oci:/srv/web:v1")
        assert (words.message, words.rootfs) == ("reading", "")
        assert (image.message, image.rootfs, image.command) == ("", root_of_digest(DIGEST), ["serve"])
        assert daemon.runtime.images.asked == ["oci:/srv/web:v1"]

    @pytest.mark.parametrize("reference", ["", "busybox", "oci:web", "oci:/a:b:c"])
    def test_a_reference_that_is_none_is_refused(self, daemon, reference):
        with pytest.raises(InvalidError) as caught:
            fetched(daemon, reference)
        assert caught.value.field == "reference"
        assert daemon.runtime.images.asked == []

    @pytest.mark.parametrize(
        ("failure", "kind"),
        [
            (ImageError("broken"), InvalidError),
            (ImageError("no umoci", hint="install it", lacks_tools=True), ReadOnlyError),
            (ConflictError("busy"), KernelError),
        ],
    )
    def test_failures_are_the_engines(self, daemon, failure, kind):
        daemon.runtime.images.failure = failure
        with pytest.raises(kind) as caught:
            fetched(daemon, "oci:/srv/web")
        assert str(failure) in caught.value.message

    def test_without_a_runtime_there_are_none(self, daemon):
        daemon.images = ImageVerbs(daemon.engine, None, "no OCI runtime")
        for verb in (daemon.images.list, daemon.images.prune):
            with pytest.raises(ReadOnlyError, match="no OCI runtime"):
                asyncio.run(verb())


class TestRemove:
    @pytest.mark.parametrize(
        "ref", ["oci:/srv/web", DIGEST, DIGEST[:4], f"sha256:{DIGEST}", root_of_digest(DIGEST)]
    )
    def test_an_image_goes_by_each_of_its_names(self, daemon, ref):
        assert asyncio.run(daemon.images.remove(ref)).reference == "oci:/srv/web"
        assert daemon.runtime.images.listed() == ()

    @pytest.mark.parametrize("ref", ["", "ab", "oci:/srv/we", "cdcd"])
    def test_one_that_is_not_there_is_told(self, daemon, ref):
        with pytest.raises(NotFoundError) as caught:
            asyncio.run(daemon.images.remove(ref))
        assert caught.value.field == "image"
        assert daemon.runtime.images.listed() == (IMAGE,)

    def test_what_two_are_called_is_neither(self, daemon):
        other = msgspec.structs.replace(IMAGE, digest="abab" + "cd" * 30)
        daemon.runtime.images.there[other.digest] = other
        for ref in ("abab", "oci:/srv/web"):
            with pytest.raises(engine_errors.ConflictError, match="2 images"):
                asyncio.run(daemon.images.remove(ref))
        assert asyncio.run(daemon.images.remove(other.digest)).rootfs == root_of_digest(other.digest)

    def test_one_that_is_used_stays_and_its_containers_are_named(self, daemon):
        asyncio.run(daemon.workloads.create(request({"rootfs": root_of_digest(DIGEST)})))
        with pytest.raises(engine_errors.InUseError, match="the root of web"):
            asyncio.run(daemon.images.remove(DIGEST))
        assert daemon.runtime.images.listed() == (IMAGE,)
