"""Containers made of images: layouts and archives, unpacked by skopeo and umoci, run as Docker would."""

import json
import os
import signal
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.audit import audit
from harness.bundles import has, rootfs
from harness.host import Host, Lan
from harness.netns import eventually
from harness.oci_images import archive, layer, layout

pytestmark = [pytest.mark.real, pytest.mark.kernel]

if not has("skopeo", "umoci", "runc", "busybox"):
    pytest.skip("needs skopeo, umoci, runc and busybox", allow_module_level=True)

NUMBER = 38
USER = "web:x:1000:1000::/home/web:/bin/sh\n"
SAY = ("/bin/sh", "-c", 'echo "$0 $* $GREETING $(pwd) $(id -u):$(id -g)"')


@pytest.fixture(scope="module")
def machine(lan: Lan) -> Iterator[Host]:
    with Host(lan, number=NUMBER).start() as host:
        host.sealane("network", "create", "--subnet", "10.94.0.0/24", "default")
        yield host
        assert audit(host) == []


@pytest.fixture(autouse=True)
def clean(machine: Host) -> Iterator[None]:
    yield
    if machine.daemon is None:
        machine.start()
    for container in machine.api.get("/containers?all=1"):
        machine.sealane("rm", "-f", container["name"])
    assert machine.sealane("image", "prune").returncode == 0
    assert os.listdir(images(machine)) == [".lock"]
    assert "sealane" not in machine.ns.sh("sh", "-c", "grep overlay /proc/mounts || true")


def images(machine: Host) -> Path:
    return Path(machine.state_dir) / "containers" / "images"


@pytest.fixture(scope="module")
def base(tmp_path_factory: Any) -> bytes:
    root = rootfs(tmp_path_factory.mktemp("base"))
    (root / "etc" / "passwd").write_text("root:x:0:0::/root:/bin/sh\n" + USER)
    (root / "etc" / "group").write_text("root:x:0:\nweb:x:1000:\n")
    (root / "srv").mkdir()
    (root / "tmp").chmod(0o1777)
    root.chmod(0o755)
    return layer(root)


@pytest.fixture
def image(base: bytes, tmp_path: Path) -> Path:
    return layout(
        tmp_path / "image",
        base,
        Entrypoint=[*SAY, "said"],
        Cmd=["by", "image"],
        Env=["GREETING=hello", "PATH=/bin"],
        WorkingDir="/srv",
        User="web",
        ExposedPorts={"80/tcp": {}},
    )


def run(machine: Host, image: Path, *words: str, kind: str = "oci") -> str:
    return machine.sealane("run", "--rm", "--rootfs", f"{kind}:{image}", *words).stdout.strip()


def test_what_the_image_says_is_run(machine: Host, image: Path) -> None:
    assert run(machine, image) == "said by image hello /srv 1000:1000"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("by", "me"), "said by me hello /srv 1000:1000"),
        (("-e", "GREETING=hi", "-w", "/tmp", "-u", "0:0"), "said by image hi /tmp 0:0"),
        (("--entrypoint", "/bin/echo", "x", "y"), "x y"),
        (("--entrypoint", "/bin/echo"), ""),
        (("--entrypoint", "", "/bin/echo", "z"), "z"),
    ],
)
def test_what_is_asked_for_goes_before_it(
    machine: Host, image: Path, words: tuple[str, ...], said: str
) -> None:
    assert run(machine, image, *words) == said


def test_an_archive_and_a_tag(machine: Host, base: bytes, image: Path, tmp_path: Path) -> None:
    layout(image, base, tag="other", Cmd=["/bin/echo", "other"])
    assert run(machine, Path(f"{image}:other")) == "other"
    file = archive(image, tmp_path / "image.tar")
    assert run(machine, Path(f"{file}:other"), kind="oci-archive") == "other"
    done = machine.sealane("run", "--rootfs", f"oci:{image}", check=False)
    assert done.returncode != 0, "which of two is not said"
    assert "more than one image" in done.stderr


def test_it_is_unpacked_once_and_said_so(machine: Host, image: Path) -> None:
    first = machine.sealane("image", "load", f"oci:{image}")
    assert f"unpacking oci:{image}" in first.stderr
    place = images(machine) / first.stdout.strip().rpartition(":")[2] / "rootfs"
    inode = place.stat().st_ino
    second = machine.sealane("image", "load", f"oci:{image}:latest")
    assert (second.stdout, second.stderr) == (first.stdout, "")
    assert place.stat().st_ino == inode
    listed = machine.sealane("image", "ls").stdout
    assert "80/tcp" in listed
    assert "by image" in listed


def test_each_container_writes_for_itself_and_finds_it_again(machine: Host, image: Path) -> None:
    shell = ("--entrypoint", "/bin/sh", "-u", "0", "--")
    machine.sealane(
        "run", "-d", "--name", "a", "--rootfs", f"oci:{image}", *shell, "-c", "echo a >>/srv/x; sleep 99"
    )
    eventually(lambda: machine.sealane("exec", "a", "cat", "/srv/x", check=False).stdout == "a\n")
    assert run(machine, image, *shell, "-c", "ls /srv") == ""
    machine.sealane("stop", "-t", "0", "a")
    machine.sealane("start", "a")
    eventually(lambda: machine.sealane("exec", "a", "cat", "/srv/x").stdout == "a\na\n")
    assert machine.sealane("exec", "-u", "web", "a", "id", "-u").stdout == "1000\n"
    (unpacked,) = [entry for entry in images(machine).iterdir() if entry.name[0] != "."]
    assert os.listdir(unpacked / "rootfs" / "srv") == [], "the image is as it was"
    assert machine.sealane("image", "prune").stdout == "", "one that is used stays"
    machine.sealane("rm", "-f", "a")
    assert f"oci:{image}" in machine.sealane("image", "prune").stdout


def test_a_plan_of_what_runs_already_is_nothing_to_do(
    machine: Host, base: bytes, image: Path, tmp_path: Path
) -> None:
    """And of an image that is another by now, what `up` would do. Nothing is unpacked for it."""
    (tmp_path / "project").mkdir()
    file = tmp_path / "project" / "compose.yaml"
    file.write_text(
        f"services: {{a: {{image: 'oci:{image}', entrypoint: [/bin/sh, -c], command: ['sleep 99'], user: '0'}}}}\n"
    )
    before = machine.sealane("plan", "-f", file).stdout
    assert "new: network project_default, sandbox project-a-1" in before
    assert [name for name in os.listdir(images(machine)) if name[0] != "."] == []
    machine.sealane("up", "-f", file, "-d")
    assert machine.sealane("plan", "-f", file).stdout == "nothing to do\n"
    assert machine.sealane("apply", "-f", file).stdout.splitlines() == [
        "= network project_default",
        "= container project-a-1",
    ]
    (image / "index.json").unlink()
    layout(image, base, Entrypoint=["/bin/sh"], Env=["GREETING=another"])
    assert "gone: container project-a-1" in machine.sealane("plan", "-f", file).stdout
    machine.sealane("down", "-f", file)


def test_a_layer_survives_the_daemon(machine: Host, image: Path) -> None:
    words = ("--entrypoint", "/bin/sh", "-u", "0", "--", "-c", "echo x >>/srv/x; sleep 99")
    machine.sealane("run", "-d", "--name", "a", "--restart", "always", "--rootfs", f"oci:{image}", *words)
    eventually(lambda: machine.sealane("exec", "a", "cat", "/srv/x", check=False).stdout == "x\n")
    machine.kill9()
    machine.start()
    assert machine.sealane("exec", "a", "cat", "/srv/x").stdout == "x\n"


def test_a_mount_that_the_machine_has_lost_is_made_again(machine: Host, image: Path) -> None:
    """As after a reboot: the process is gone, and so is all below /run."""
    words = ("--entrypoint", "/bin/sh", "-u", "0", "--", "-c", "echo x >>/srv/x; sleep 99")
    machine.sealane("run", "-d", "--name", "a", "--rootfs", f"oci:{image}", *words)
    eventually(lambda: machine.sealane("exec", "a", "cat", "/srv/x", check=False).stdout == "x\n")
    machine.sealane("stop", "-t", "0", "a")
    machine.ns.sh("sh", "-c", "umount -l /run/sealane-roots/*")
    machine.restart()
    machine.sealane("start", "a")
    eventually(lambda: machine.sealane("exec", "a", "cat", "/srv/x", check=False).stdout == "x\nx\n")


def test_a_read_only_root_stays_as_it_is(machine: Host, image: Path) -> None:
    words = (
        "--read-only",
        "--entrypoint",
        "/bin/sh",
        "-u",
        "0",
        "--",
        "-c",
        "echo x >/srv/x || echo refused; cat /etc/hostname",
    )
    out = run(machine, image, "--name", "ro", *words)
    assert out.splitlines() == ["refused", "ro"]


def test_names_and_ports_are_as_of_any_container(lan: Lan, machine: Host, image: Path) -> None:
    words = ("--entrypoint", "/bin/httpd", "-u", "0", "--", "-f", "-p", "80", "-h", "/etc")
    machine.sealane("run", "-d", "--name", "web", "-p", "8080:80", "--rootfs", f"oci:{image}", *words)
    url = f"http://{machine.address(4)}:8080/passwd"
    assert "web:x:1000" in eventually(lambda: lan.ext.run("curl", "-s", "-m2", url).stdout)
    assert "web:x:1000" in run(machine, image, "--entrypoint", "/bin/wget", "--", "-qO-", "http://web/passwd")


def test_a_project_names_images(machine: Host, base: bytes, image: Path, tmp_path: Path) -> None:
    file = tmp_path / "compose.yaml"
    file.write_text(
        "name: shop\nservices:\n"
        "  plain: {image: 'oci:./image'}\n"
        "  args: {image: 'oci:./image', command: [by, file], environment: {GREETING: hi}}\n"
        "  own: {image: 'oci:./image:latest', entrypoint: [/bin/echo], command: [own]}\n"
    )
    up = machine.sealane("up", "-d", "-f", str(file))
    assert up.stderr.count("unpacking") == 1
    for service, said in (
        ("plain", "said by image hello /srv 1000:1000"),
        ("args", "said by file hi /srv 1000:1000"),
        ("own", "own"),
    ):
        name = f"shop-{service}-1"
        assert eventually(lambda n=name: machine.sealane("logs", n).stdout.strip(), 10) == said
    assert machine.sealane("plan", "-f", str(file)).returncode == 0
    again = machine.sealane("up", "-d", "-f", str(file))
    assert "unpacking" not in again.stderr
    machine.sealane("down", "-f", str(file))


def test_device_files_of_an_image_open_nothing(machine: Host, base: bytes, tmp_path: Path) -> None:
    null = tarfile.TarInfo("srv/null")
    null.type, null.mode, null.devmajor, null.devminor = tarfile.CHRTYPE, 0o666, 1, 3
    made = layout(tmp_path / "image", base, layer(tmp_path, null), Cmd=["/bin/sh", "-c", "echo x >/srv/null"])
    done = machine.sealane("run", "--rm", "--rootfs", f"oci:{made}", check=False)
    assert done.returncode != 0
    assert "Permission denied" in done.stderr + done.stdout


def test_an_image_cannot_write_outside_of_its_root(machine: Host, base: bytes, tmp_path: Path) -> None:
    """umoci resolves within the root; whatever it makes of these, the host has none of it."""
    target = tmp_path / "victim"
    target.mkdir()
    link, through, dots = (
        tarfile.TarInfo("out"),
        tarfile.TarInfo("out/owned"),
        tarfile.TarInfo(f"../../../..{target}/dots"),
    )
    link.type, link.linkname = tarfile.SYMTYPE, str(target)
    (tmp_path / "empty").mkdir()
    made = layout(tmp_path / "image", base, layer(tmp_path / "empty", link, through, dots), Cmd=["/bin/true"])
    machine.sealane("run", "--rm", "--rootfs", f"oci:{made}", check=False)
    assert os.listdir(target) == []


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (lambda place: (place / "index.json").write_text("{}"), "image"),
        (lambda place: (place / "index.json").write_text("no"), "invalid character"),
        (lambda place: next(iter((place / "blobs" / "sha256").iterdir())).write_bytes(b"x"), ""),
        (lambda place: (place / "index.json").unlink(), "no such file"),
    ],
)
def test_a_damaged_image_is_told_and_leaves_nothing(
    machine: Host, image: Path, damage: Any, what: str
) -> None:
    damage(image)
    done = machine.sealane("run", "--rootfs", f"oci:{image}", check=False)
    assert done.returncode != 0
    assert what in done.stderr
    assert machine.api.get("/containers?all=1") == []
    assert [name for name in os.listdir(images(machine)) if name != ".lock"] == []


def test_one_that_is_killed_half_way_is_begun_anew(machine: Host, base: bytes, tmp_path: Path) -> None:
    """Daemon and client are killed while umoci is at work: it goes on, and a successor waits until it has ended."""
    root = tmp_path / "many"
    for number in range(3000):
        (root / str(number // 100)).mkdir(parents=True, exist_ok=True)
        (root / str(number // 100) / str(number)).write_text("x")
    made = layout(tmp_path / "image", base, layer(root), Cmd=["/bin/cat", "/29/2999"])
    process = machine.sealane_process("image", "load", f"oci:{made}")
    eventually(lambda: list(images(machine).glob(".new-*/image/rootfs/2*")), 20, "umoci is at work")
    os.kill(machine.pid, signal.SIGKILL)
    machine.reap(10)
    process.communicate(timeout=100)
    assert process.returncode != 0
    machine.start()
    assert run(machine, made) == "x"
    assert list(images(machine).glob(".new-*")) == []


def test_a_client_that_hangs_up_ends_it(machine: Host, base: bytes, tmp_path: Path) -> None:
    root = tmp_path / "many"
    for number in range(3000):
        (root / str(number // 100)).mkdir(parents=True, exist_ok=True)
        (root / str(number // 100) / str(number)).write_text("x")
    made = layout(tmp_path / "image", base, layer(root))
    process = machine.sealane_process("image", "load", f"oci:{made}")
    eventually(lambda: list(images(machine).glob(".new-*/image/rootfs/*")), 20, "umoci is at work")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=100)
    eventually(lambda: os.listdir(images(machine)) == [".lock"], 20, "nothing is left of it")


def test_without_the_tools_it_is_said_what_to_install(machine: Host, image: Path, tmp_path: Path) -> None:
    machine.ns.sh("mount", "--bind", "/dev/null", "/usr/bin/umoci")
    try:
        done = machine.sealane("run", "--rootfs", f"oci:{image}", check=False)
    finally:
        machine.ns.sh("umount", "/usr/bin/umoci")
    assert done.returncode != 0
    assert "umoci, which is not installed" in done.stderr
    assert "install skopeo and umoci" in done.stderr


def test_a_copy_where_there_is_no_overlay(lan: Lan, image: Path) -> None:
    """Over an overlay none can be made: so the state is put on one."""
    with Host(lan, number=NUMBER + 1) as host:
        host.ns.sh("mkdir", "-p", "/run/o/l", "/run/o/u", "/run/o/w", host.state_dir)
        options = "lowerdir=/run/o/l,upperdir=/run/o/u,workdir=/run/o/w"
        host.ns.sh("mount", "-t", "overlay", "o", "-o", options, host.state_dir)
        host.start()
        words = ("--entrypoint", "/bin/sh", "-u", "0", "--", "-c", "echo a >>/srv/x; cat /srv/x; sleep 99")
        host.sealane("run", "-d", "--name", "a", "--rootfs", f"oci:{image}", *words)
        eventually(lambda: host.sealane("logs", "a").stdout == "a\n")
        host.sealane("stop", "-t", "0", "a")
        host.sealane("start", "a")
        eventually(lambda: host.sealane("logs", "a").stdout == "a\na\na\n")
        place = Path(host.path(host.state_dir)) / "containers" / "containers"
        assert len(list(place.glob("*/layer/copy"))) == 1
        host.sealane("rm", "-f", "a")
        assert f"oci:{image}" in host.sealane("image", "prune").stdout
        host.stop()


def test_an_answer_in_json_is_json_alone(machine: Host, image: Path) -> None:
    done = machine.sealane("--json", "image", "load", f"oci:{image}")
    assert json.loads(done.stdout)["exposed"] == ["80/tcp"]
