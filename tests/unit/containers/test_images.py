"""The unpacker with stand-ins for skopeo and umoci: order, failure, kills, and who waits for whom."""

import collections
import fcntl
import hashlib
import os
import subprocess
import sys
import threading
import time

import pytest

from harness.netns import eventually
from harness.oci_images import layout
from sealane.containers import images as module
from sealane.containers.errors import ConflictError, ImageError
from sealane.containers.imageconfig import Image
from sealane.containers.images import Images
from sealane.model.image import parse_image_ref

# Each notes that it was called, and does as a file beside it says.
SKOPEO = """#!/bin/sh
echo "skopeo $*" >>"{folder}/log"
case "$*" in
*inspect*) [ -e "{folder}/inspect.hangs" ] && {{ echo $$ >"{folder}/pid"; exec sleep 60; }}
    [ -e "{folder}/inspect.fails" ] && {{ echo 'time="x" level=fatal msg="no \\"such\\" thing"' >&2; exit 1; }}
    cat "{folder}/manifest"; exit ;;
esac
[ -e "{folder}/copy.fails" ] && {{ echo "disk full" >&2; exit 1; }}
for last; do :; done
last="${{last#oci:}}"
cp -r "{folder}/layout" "${{last%:image}}"
"""
UMOCI = """#!/bin/sh
echo "umoci $*" >>"{folder}/log"
for last; do :; done
mkdir "$last" && echo x >"$last/half"
[ -e "{folder}/unpack.hangs" ] && {{ echo $$ >"{folder}/pid"; exec sleep 60; }}
[ -e "{folder}/unpack.fails" ] && exit 1
echo x >"$last/whole"
"""


@pytest.fixture
def tools(tmp_path, monkeypatch):
    folder = tmp_path / "tools"
    folder.mkdir()
    for name, text in (("skopeo", SKOPEO), ("umoci", UMOCI)):
        (folder / name).write_text(text.format(folder=folder))
        (folder / name).chmod(0o755)
    layout(folder / "layout", b"", Cmd=["/bin/true"], Env=["A=1"])
    (folder / "manifest").write_text("a manifest")
    (folder / "log").touch()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


@pytest.fixture
def images(tmp_path):
    return Images(str(tmp_path / "images"), rootless=False)


@pytest.fixture
def reference(tools):
    return parse_image_ref(f"oci:{tools}/layout")


def fetch(images, reference, stop=None):
    *words, image = images.fetch(reference, stop or threading.Event())
    return words, image


def left(tmp_path):
    return sorted(name for name in os.listdir(tmp_path / "images") if name != ".lock")


DIGEST = hashlib.sha256(b"a manifest").hexdigest()


def test_an_image_is_copied_unpacked_and_put_in_its_place(images, reference, tools, tmp_path):
    words, image = fetch(images, reference)
    assert image == Image(digest=DIGEST, reference=str(reference), cmd=("/bin/true",), env={"A": "1"})
    assert [word.split()[0] for word in words] == ["reading", "unpacking", "writing"]
    assert sorted(os.listdir(images.rootfs(DIGEST))) == ["half", "whole"]
    assert left(tmp_path) == [DIGEST]
    assert images.get(DIGEST) == image
    assert images.listed() == (image,)


def test_what_is_there_is_not_unpacked_again(images, reference, tools):
    fetch(images, reference)
    (tools / "log").write_text("")
    words, image = fetch(images, reference)
    assert (words, image.digest) == ([], DIGEST)
    assert "copy" not in (tools / "log").read_text()
    assert "umoci" not in (tools / "log").read_text()


def test_who_gives_up_while_it_is_looked_at_ends_the_look(images, reference, tools, tmp_path):
    (tools / "inspect.hangs").touch()
    stop, ended = threading.Event(), []

    def run() -> None:
        with pytest.raises(ImageError, match="given up"):
            fetch(images, reference, stop)
        ended.append(True)

    thread = threading.Thread(target=run)
    thread.start()
    pid = int(eventually(lambda: (tools / "pid").exists() and (tools / "pid").read_text().strip()))
    stop.set()
    thread.join(100)
    assert ended == [True]
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert left(tmp_path) == []


@pytest.mark.parametrize(("extra", "is_refused"), [(0, False), (1, True)])
def test_a_manifest_has_a_longest_length(images, reference, tools, monkeypatch, extra, is_refused):
    monkeypatch.setattr(module, "MANIFEST_BYTES_MAX", 100)
    (tools / "manifest").write_text("x" * (100 + extra))
    if not is_refused:
        assert fetch(images, reference)[1].digest == hashlib.sha256(b"x" * 100).hexdigest()
        return
    with pytest.raises(ImageError, match="longer than 100 bytes"):
        fetch(images, reference)


def test_another_digest_is_another_image(images, reference, tools, tmp_path):
    fetch(images, reference)
    (tools / "manifest").write_text("another")
    fetch(images, reference)
    assert len(left(tmp_path)) == 2


@pytest.mark.parametrize(
    ("what", "said"), [("inspect", 'no "such" thing'), ("copy", "disk full"), ("unpack", "said nothing")]
)
def test_a_tool_that_fails_is_quoted_and_nothing_is_left(images, reference, tools, tmp_path, what, said):
    (tools / f"{what}.fails").touch()
    with pytest.raises(ImageError, match=said):
        fetch(images, reference)
    assert not (tmp_path / "images").exists() or left(tmp_path) == []
    (tools / f"{what}.fails").unlink()
    assert fetch(images, reference)[1].digest == DIGEST


@pytest.mark.parametrize("program", ["skopeo", "umoci"])
def test_a_tool_that_is_missing_is_named_with_the_hint(images, reference, tools, program, monkeypatch):
    (tools / program).unlink()
    monkeypatch.setenv("PATH", str(tools))
    monkeypatch.setattr(module, "SYSTEM_FOLDERS", str(tools))
    with pytest.raises(ImageError, match=program) as caught:
        fetch(images, reference)
    assert caught.value.lacks_tools
    assert "install skopeo and umoci" in caught.value.hint


def test_a_path_that_is_not_there(images, tools):
    with pytest.raises(ImageError, match="there is no /nowhere"):
        fetch(images, parse_image_ref("oci:/nowhere"))
    assert (tools / "log").read_text() == ""


def test_a_layout_without_its_blobs(images, reference, tools, tmp_path):
    for blob in (tools / "layout" / "blobs" / "sha256").iterdir():
        blob.unlink()
    with pytest.raises(ImageError, match="blob is missing"):
        fetch(images, reference)
    assert left(tmp_path) == []


def test_what_a_killed_one_has_left_is_swept(images, reference, tmp_path):
    (tmp_path / "images" / ".new-x" / "image" / "rootfs").mkdir(parents=True)
    fetch(images, reference)
    assert left(tmp_path) == [DIGEST]


def test_who_does_not_wait_any_more_ends_it(images, reference, tools, tmp_path):
    (tools / "unpack.hangs").touch()
    stop = threading.Event()
    failed = []

    def run():
        try:
            fetch(images, reference, stop)
        except ImageError as error:
            failed.append(str(error))

    thread = threading.Thread(target=run)
    thread.start()
    pid = int(eventually(lambda: (tools / "pid").exists() and (tools / "pid").read_text(), 10))
    stop.set()
    thread.join(100)
    assert "nobody waits" in failed[0]
    assert not os.path.exists(f"/proc/{pid}")
    assert left(tmp_path) == []


def test_a_successor_waits_for_the_programs_of_a_killed_one(images, reference, tools, tmp_path):
    """The lock is in their hands: as long as one of them writes, nobody sweeps under it."""
    (tools / "unpack.hangs").touch()
    code = (
        "import sys, threading\nfrom sealane.containers.images import Images\n"
        "from sealane.model.image import parse_image_ref\n"
        f"list(Images({str(tmp_path / 'images')!r}, rootless=False).fetch(parse_image_ref({str(reference)!r}), threading.Event()))"
    )
    first = subprocess.Popen([sys.executable, "-c", code])
    pid = int(eventually(lambda: (tools / "pid").exists() and (tools / "pid").read_text(), 10))
    first.kill()
    first.wait()
    (tools / "unpack.hangs").unlink()
    done = []
    thread = threading.Thread(target=lambda: done.append(fetch(images, reference)))
    thread.start()
    time.sleep(0.3)
    assert not done
    os.kill(pid, 9)
    thread.join(100)
    words, image = done[0]
    assert words[0].startswith("waiting for another")
    assert image.digest == DIGEST
    assert left(tmp_path) == [DIGEST]


def test_two_at_once_unpack_it_once(images, reference, tools):
    found = []
    threads = [threading.Thread(target=lambda: found.append(fetch(images, reference)[1])) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)
    assert len({image.digest for image in found}) == 1
    assert len(found) == 4
    assert (tools / "log").read_text().count("umoci") == 1


def test_looking_has_a_bound(images, reference, tools, monkeypatch, tmp_path):
    monkeypatch.setattr(module, "UNPACK_TIMEOUT_S", 0.2)
    (tools / "skopeo").write_text("#!/bin/sh\nexec sleep 20\n")
    with pytest.raises(ImageError, match="not done after"):
        fetch(images, reference)
    assert left(tmp_path) == []


def test_what_a_killed_look_has_left_is_swept_when_nobody_can_be_looking(images, reference, tmp_path):
    for name, age_s in (("old", 2 * module.UNPACK_TIMEOUT_S + 60), ("new", 60)):
        folder = tmp_path / "images" / f".look-{name}"
        folder.mkdir(parents=True)
        os.utime(folder, (time.time() - age_s,) * 2)
    fetch(images, reference)
    assert left(tmp_path) == [".look-new", DIGEST]


def test_waiting_has_a_bound(images, reference, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LOCK_TIMEOUT_S", 0.1)
    (tmp_path / "images").mkdir()
    with open(tmp_path / "images" / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ConflictError):
            fetch(images, reference)


def test_work_has_a_bound(images, reference, tools, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "UNPACK_TIMEOUT_S", 0.5)
    (tools / "unpack.hangs").touch()
    with pytest.raises(ImageError, match="not done after"):
        fetch(images, reference)
    assert left(tmp_path) == []


def test_long_work_is_told_of(images, reference, tools, monkeypatch):
    monkeypatch.setattr(module, "TELL_S", 0.0)
    monkeypatch.setattr(module, "UNPACK_TIMEOUT_S", 1.0)
    (tools / "unpack.hangs").touch()
    words = []
    with pytest.raises(ImageError):
        collections.deque(map(words.append, images.fetch(reference, threading.Event())), maxlen=0)
    assert sum(word.endswith(" s") and word.startswith("unpacking") for word in words) >= 2


def test_a_manifest_has_a_bound(images, reference, tools, monkeypatch):
    monkeypatch.setattr(module, "MANIFEST_BYTES_MAX", len("a manifest"))
    assert fetch(images, reference)[1].digest == DIGEST
    (tools / "manifest").write_text("a manifest!")
    with pytest.raises(ImageError, match="longer than"):
        fetch(images, reference)


def test_prune_removes_what_is_not_used(images, reference, tools, tmp_path):
    assert images.prune(lambda: ()) == ()
    fetch(images, reference)
    assert images.prune(lambda: {DIGEST}) == ()
    (removed,) = images.prune(lambda: {"another"})
    assert removed.digest == DIGEST
    assert left(tmp_path) == []
    assert images.listed() == ()


def test_one_alone_is_removed_unless_it_is_used(images, reference, tools):
    fetch(images, reference)
    assert images.prune(lambda: (), only={"another"}) == ()
    assert images.prune(lambda: {DIGEST}, only={DIGEST}) == ()
    assert [image.digest for image in images.prune(lambda: (), only={DIGEST})] == [DIGEST]


def test_prune_waits_its_turn_and_keeps_what_has_come_into_use_meanwhile(images, reference, tools):
    fetch(images, reference)
    used, removed = set(), []
    pruning = threading.Thread(target=lambda: removed.append(images.prune(lambda: used)))
    with images._locked(threading.Event()):
        pruning.start()
        assert not removed
        used.add(DIGEST)
    pruning.join(100)
    assert removed == [()]
    assert [image.digest for image in images.listed()] == [DIGEST]


def test_what_an_earlier_prune_could_not_remove_is_in_nobodys_way(images, reference, tools, monkeypatch):
    monkeypatch.setattr(module.shutil, "rmtree", lambda *_args, **_kw: None)
    for _ in range(2):
        fetch(images, reference)
        assert [image.digest for image in images.prune(lambda: ())] == [DIGEST]
    assert images.listed() == ()


def test_in_a_user_namespace_owners_are_left_out(tmp_path, reference, tools):
    fetch(Images(str(tmp_path / "images"), rootless=True), reference)
    assert "raw unpack --rootless" in (tools / "log").read_text()
