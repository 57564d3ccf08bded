"""Images on disk, unpacked once each: fetched by skopeo, unpacked by umoci.

    STATE/images/DIGEST/    rootfs/  image.json     never written to again; containers have a layer of their own over it
    STATE/images/.new-*     what is being unpacked, or what a killed one has left
    STATE/images/.look-*    an archive whose digest is looked for
    STATE/images/.lock      held by who unpacks, and by the programs that it started: a successor waits for them all

What is unpacked is renamed into its place whole, so an image that is there is complete. Paths and links in an image
that lead out of it are umoci's to refuse, which resolves every path inside the root.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Generator, Iterator
from contextlib import contextmanager

import msgspec

from sealane.containers import files
from sealane.containers.errors import ConflictError, ImageError
from sealane.containers.host import SYSTEM_FOLDERS
from sealane.containers.imageconfig import Image, read_config
from sealane.model.image import ImageRef

UNPACK_TIMEOUT_S = 1800.0
LOCK_TIMEOUT_S = 1800.0
POLL_S = 0.05
TELL_S = 1.0
"""Between two words about work that goes on."""
MANIFEST_BYTES_MAX = 4 * 1024 * 1024
"""As registries have it (distribution-spec, "Pushing Manifests")."""
ERROR_CHARS_MAX = 2000
_FETCHED = "image"
_LOOKING = ".look-"
_IMAGE = msgspec.json.Decoder(Image)
_CURE = "install skopeo and umoci, or unpack it yourself and name the folder"


class Images:
    """`rootless`: this process lives in a user namespace, in which not every owner can be given."""

    def __init__(self, folder: str, *, rootless: bool) -> None:
        self._folder = folder
        self._rootless = rootless

    # --- what is there

    def get(self, digest: str) -> Image | None:
        data = files.read_bytes(os.path.join(self._folder, digest, "image.json"))
        return None if data is None else _IMAGE.decode(data)

    def rootfs(self, digest: str) -> str:
        return os.path.join(self._folder, digest, "rootfs")

    def listed(self) -> tuple[Image, ...]:
        """By reference."""
        found = (self.get(digest) for digest in self._digests())
        return tuple(sorted((i for i in found if i is not None), key=lambda i: (i.reference, i.digest)))

    def _digests(self) -> list[str]:
        try:
            return [name for name in os.listdir(self._folder) if not name.startswith(".")]
        except FileNotFoundError:
            return []

    def prune(
        self, used: Callable[[], Collection[str]], only: Collection[str] | None = None
    ) -> tuple[Image, ...]:
        """Remove all but those that are used once it is this one's turn; what was removed. `only`: of these digests."""
        if not os.path.isdir(self._folder):
            return ()
        with self._locked(threading.Event()):
            kept = used()
            unused = [image for image in self.listed() if image.digest not in kept]
            removed = [image for image in unused if only is None or image.digest in only]
            for image in removed:
                # Out of sight first: half an image must not be taken for one. What a sweep could not remove has a name.
                gone = tempfile.mkdtemp(prefix=".new-", dir=self._folder)
                os.rename(os.path.join(self._folder, image.digest), os.path.join(gone, "image"))
            self._sweep()
        return tuple(removed)

    # --- what comes

    def look(self, reference: ImageRef, stop: threading.Event) -> Image | None:
        """What is unpacked of it already. Raises ImageError; `stop` ends it."""
        skopeo = _find("skopeo")
        os.makedirs(self._folder, mode=0o700, exist_ok=True)
        return self.get(_digest(skopeo, reference, self._folder, stop))

    def fetch(self, reference: ImageRef, stop: threading.Event) -> Iterator[str | Image]:
        """Words about the work, and at the end the image. Raises ImageError; `stop` ends it and leaves nothing."""
        skopeo, umoci = _find("skopeo"), _find("umoci")
        os.makedirs(self._folder, mode=0o700, exist_ok=True)
        digest = _digest(skopeo, reference, self._folder, stop)
        present = self.get(digest)
        if present is None:
            if self._is_busy():
                yield f"waiting for another image at {self._folder}"
            with self._locked(stop) as lock:
                self._sweep()
                present = self.get(digest)
                if present is None:
                    present = yield from self._unpack(skopeo, umoci, digest, reference, stop, lock)
        yield present

    def _unpack(
        self, skopeo: str, umoci: str, digest: str, reference: ImageRef, stop: threading.Event, lock: int
    ) -> Generator[str, None, Image]:
        work = tempfile.mkdtemp(prefix=".new-", dir=self._folder)
        try:
            layout, place = os.path.join(work, "layout"), os.path.join(work, "image")
            os.mkdir(place, 0o700)
            run = _Work(work, lock, stop)
            # Its blobs are proven by their digests; whose they are is for whoever laid them there to say.
            copy = [
                skopeo,
                "--insecure-policy",
                "copy",
                "--quiet",
                str(reference),
                f"oci:{layout}:{_FETCHED}",
            ]
            yield from run(copy, f"reading {reference}")
            image = read_config(digest, str(reference), _config(layout))
            unpack = [umoci, "raw", "unpack", *(["--rootless"] if self._rootless else [])]
            unpack += ["--image", f"{layout}:{_FETCHED}", os.path.join(place, "rootfs")]
            yield from run(unpack, f"unpacking {reference}")
            files.write_atomic(os.path.join(place, "image.json"), msgspec.json.encode(image))
            # What is in its place is taken for whole, after a power cut too.
            yield from run(["sync", "--file-system", place], f"writing {reference}")
            os.rename(place, os.path.join(self._folder, digest))
        except OSError as error:
            raise ImageError(f"{reference} cannot be unpacked: {error.strerror}") from error
        finally:
            shutil.rmtree(work, ignore_errors=True)
        return image

    def _sweep(self) -> None:
        """Who looks into an archive does not hold the lock, but has a bound."""
        for name in os.listdir(self._folder):
            path = os.path.join(self._folder, name)
            is_old = name.startswith(_LOOKING) and _age_s(path) > 2 * UNPACK_TIMEOUT_S
            if name.startswith(".new-") or is_old:
                shutil.rmtree(path, ignore_errors=True)

    # --- one at a time

    def _is_busy(self) -> bool:
        with self._open_lock() as descriptor:
            return not files.try_lock(descriptor)

    @contextmanager
    def _locked(self, stop: threading.Event) -> Iterator[int]:
        deadline = time.monotonic() + LOCK_TIMEOUT_S
        with self._open_lock() as descriptor:
            while not files.try_lock(descriptor):
                if stop.wait(POLL_S):
                    raise ImageError("given up: nobody waits for it any more")
                if time.monotonic() > deadline:
                    raise ConflictError(f"another image has been unpacked for {LOCK_TIMEOUT_S:.0f} s")
            yield descriptor

    @contextmanager
    def _open_lock(self) -> Iterator[int]:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        descriptor = os.open(os.path.join(self._folder, ".lock"), flags, 0o600)
        try:
            yield descriptor
        finally:
            os.close(descriptor)


class _Work:
    """Runs programs in `work`, with the lock, if there is one, in their hands: they may outlive us."""

    def __init__(self, work: str, lock: int | None, stop: threading.Event) -> None:
        self._work, self._stop = work, stop
        self._kept = () if lock is None else (lock,)

    def __call__(self, command: list[str], what: str, answer: int = subprocess.DEVNULL) -> Iterator[str]:
        """`answer`: where its output goes. Raises ImageError with the program's last words."""
        yield what
        begun = told = time.monotonic()
        with tempfile.TemporaryFile(dir=self._work) as said:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=answer, stderr=said, cwd="/",
                env=_environment(self._work), pass_fds=self._kept, start_new_session=True,
            )  # fmt: skip
            try:
                while process.poll() is None:
                    now = time.monotonic()
                    if self._stop.wait(POLL_S):
                        raise ImageError("given up: nobody waits for it any more")
                    if now - begun > UNPACK_TIMEOUT_S:
                        raise ImageError(f"{what}: not done after {UNPACK_TIMEOUT_S:.0f} s")
                    if now - told > TELL_S:
                        told = now
                        yield f"{what}, {now - begun:.0f} s"
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
            if process.returncode != 0:
                said.seek(0)
                raise ImageError(f"{what}: {_last_words(said.read())}")


def _find(program: str) -> str:
    found = shutil.which(program, path=f"{os.environ.get('PATH', '')}:{SYSTEM_FOLDERS}")
    if found is None:
        raise ImageError(f"images need {program}, which is not installed", hint=_CURE, lacks_tools=True)
    return found


def _age_s(path: str) -> float:
    try:
        return time.time() - os.stat(path).st_mtime
    except FileNotFoundError:
        return 0.0


def _digest(skopeo: str, reference: ImageRef, folder: str, stop: threading.Event) -> str:
    """Of the manifest, as bytes: what is unpacked already need not be read."""
    if not os.path.exists(reference.path):
        raise ImageError(f"there is no {reference.path}")
    # skopeo takes an archive apart for it, which /tmp may be too small for.
    with (
        tempfile.TemporaryDirectory(prefix=_LOOKING, dir=folder) as work,
        tempfile.TemporaryFile(dir=work) as answer,
    ):
        command = [skopeo, "--insecure-policy", "inspect", "--raw", str(reference)]
        for _ in _Work(work, None, stop)(command, f"looking at {reference}", answer.fileno()):
            pass
        answer.seek(0)
        manifest = answer.read(MANIFEST_BYTES_MAX + 1)
    if len(manifest) > MANIFEST_BYTES_MAX:
        raise ImageError(f"{reference}: its manifest is longer than {MANIFEST_BYTES_MAX} bytes")
    return hashlib.sha256(manifest).hexdigest()


def _environment(work: str) -> dict[str, str]:
    return {"PATH": SYSTEM_FOLDERS, "HOME": work, "TMPDIR": work}


def _config(layout: str) -> bytes:
    """The configuration of the only image of a layout."""
    index = _blob(os.path.join(layout, "index.json"))
    manifest = _blob(_path_of(layout, msgspec.json.decode(index)["manifests"][0]["digest"]))
    return _blob(_path_of(layout, msgspec.json.decode(manifest)["config"]["digest"]))


def _path_of(layout: str, digest: str) -> str:
    algorithm, _, name = digest.partition(":")
    if not (algorithm.isalnum() and name.isalnum()):
        raise ImageError(f"{digest!r} is no digest")
    return os.path.join(layout, "blobs", algorithm, name)


def _blob(path: str) -> bytes:
    data = files.read_bytes(path)
    if data is None:
        raise ImageError(f"a blob is missing: {os.path.basename(path)}")
    return data


def _last_words(said: bytes) -> str:
    """skopeo and umoci end with a line of logrus: `time="…" level=fatal msg="…"`."""
    lines = said.decode("utf-8", "replace").strip().splitlines()
    line = lines[-1] if lines else "it failed and said nothing"
    _, found, message = line.partition(' msg="')
    return (message.removesuffix('"').replace('\\"', '"') if found else line)[:ERROR_CHARS_MAX]
