"""Attacks of a container on the host that it runs on, under each OCI runtime. Each is made on what was there before, first,
where it has to succeed: its bite control.

The machine's own /etc and /usr are not touched: they are covered, in this mount namespace, by copies and memory.
"""

import contextlib
import os
import pathlib
import shutil
import socket
import struct
import subprocess
import threading

import pytest

from sealane.containers import cgroups
from sealane.containers.errors import SpecError
from sealane.containers.runtime import Runtime
from sealane.containers.spec import Bind, ContainerSpec
from sealane.linux import netns
from sealane.model.idmap import ID_BASE

pytestmark = [pytest.mark.real, pytest.mark.kernel]

INSTANCE = f"attacks-{os.getpid()}"
PROGRAMS = "/usr/sbin:/usr/bin:/usr/local/bin"
SECRET = "root:$y$j9T$the-hash-of-the-host"
NEW_SECRET = "root:$y$j9T$a-hash-of-today"

if os.geteuid() != 0:
    pytest.skip("needs root in a private namespace", allow_module_level=True)


@pytest.fixture(params=["runc", "crun"])
def program(request):
    if not shutil.which(request.param, path=PROGRAMS):
        pytest.skip(f"{request.param} is not installed")
    if request.param == "crun" and cgroups.detect().mode == "hybrid":
        request.getfixturevalue("unified_cgroups")
    return request.param


@pytest.fixture
def unified_cgroups():
    """crun refuses machines with control groups v1 and v2 side by side; in this mount namespace there is only v2, without
    controllers: nothing can be limited, and no device be denied."""
    found = [line.split() for line in pathlib.Path("/proc/self/mounts").read_text().splitlines()]
    found = [
        (place, kind, options) for _, place, kind, options, *_ in found if place.startswith("/sys/fs/cgroup")
    ]
    subprocess.run(["umount", "-l", "-R", "/sys/fs/cgroup"], check=True)
    try:
        with mounted("/sys/fs/cgroup", "-t", "cgroup2", "none"):
            yield
    finally:
        for place, kind, options in found:
            os.makedirs(place, exist_ok=True)
            subprocess.run(["mount", "-t", kind, "-o", options, "none", place], check=True)


@contextlib.contextmanager
def mounted(target, *arguments):
    subprocess.run(["mount", *arguments, target], check=True)
    try:
        yield target
    finally:
        subprocess.run(["umount", "-l", target], check=True)


@pytest.fixture
def etc(tmp_path):
    """The host's /etc, for this test only."""
    copy = tmp_path / "etc-of-the-host"
    subprocess.run(["cp", "-a", "/etc", str(copy)], check=True)
    with mounted("/etc", "--bind", str(copy)):
        replace("/etc/shadow", SECRET)
        yield pathlib.Path("/etc")


def replace(path, text, mode=0o600):
    """As passwd(1) and useradd(8) do it: a new file is renamed over the old one."""
    new = f"{path}+"
    pathlib.Path(new).write_text(text)
    os.chmod(new, mode)
    os.rename(new, path)


@pytest.fixture
def runtime(tmp_path, program):
    made = Runtime(str(tmp_path / "state"), str(tmp_path / "run"), instance=INSTANCE, oci_runtime=program)
    yield made
    made.sweep(())
    assert made.orphans(()) == ()


@pytest.fixture
def sandbox(tmp_path):
    """Where a container lives that has a user namespace: as the daemon makes it."""
    ref = netns.create(str(tmp_path / "netns"), "ab" * 16, with_userns=True)
    yield {"netns": ref.path, "userns": ref.userns}
    netns.delete(str(tmp_path / "netns"), ref)


@pytest.fixture
def open_sandbox(tmp_path):
    """A network namespace that the host owns, as all were."""
    ref = netns.create(str(tmp_path / "open"), "cd" * 16)
    yield {"netns": ref.path}
    netns.delete(str(tmp_path / "open"), ref)


def start(runtime, script, **changes):
    runtime.create_and_start(ContainerSpec(id="web", name="web", command=("sh", "-c", script), **changes))


def output(runtime, script, **changes):
    start(runtime, script, **changes)
    assert runtime.wait("web", 30).status == "exited"
    said = "\n".join(line.text.decode() for line in runtime.logs("web"))
    runtime.remove("web")
    return said


def waits(folder):
    """A line of a script that waits until the test goes on."""
    return "echo up; until test -e /go/go; do sleep 0.02; done; ", (Bind(source=str(folder), target="/go"),)


def meanwhile(runtime, folder, script, action, **changes):
    """What a container says that runs while `action` is done on the host, and looks afterwards."""
    folder.mkdir()
    waiting, mounts = waits(folder)
    start(runtime, waiting + script, mounts=mounts, **changes)
    next(runtime.logs("web", follow=True))
    action()
    (folder / "go").touch()
    assert runtime.wait("web", 30).status == "exited"
    said = [line.text.decode() for line in runtime.logs("web")][1:]
    runtime.remove("web")
    return "\n".join(said)


# --- the host's root --------------------------------------------------------------------------------------------------


def test_a_mask_over_a_file_falls_off_when_the_file_is_replaced(etc):
    """The bite control: a mount namespace with /dev/null over /etc/shadow, as containers had it."""
    script = "mount --bind /dev/null /etc/shadow; cat /etc/shadow; echo masked; read -r line; cat /etc/shadow"
    with subprocess.Popen(
        ["unshare", "-m", "--propagation", "private", "sh", "-c", script],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as masked:  # fmt: skip
        assert masked.stdout.readline() == "masked\n"
        replace("/etc/shadow", NEW_SECRET)
        assert masked.communicate("\n", timeout=30)[0] == NEW_SECRET


def test_a_secret_of_the_host_stays_hidden_while_it_is_replaced(runtime, etc, tmp_path):
    secrets = ("/etc/shadow", "/etc/shadow-", "/etc/gshadow", "/etc/sudoers", "/etc/app/new-secret")

    def password_is_changed():
        (etc / "app").mkdir()
        for path in secrets:
            replace(path, NEW_SECRET)

    found = meanwhile(
        runtime, tmp_path / "go", f"cat {' '.join(secrets)} 2>/dev/null; echo end", password_is_changed
    )
    assert found == "end"


def test_a_container_keeps_its_own_names_while_the_hosts_are_replaced(runtime, etc, tmp_path):
    def names_change():
        for name in ("hosts", "resolv.conf", "hostname"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(etc / name)
            replace(f"/etc/{name}", "10.9.9.9 of-the-host\n", 0o644)

    script = "cat /etc/hosts /etc/hostname /etc/resolv.conf"
    found = meanwhile(runtime, tmp_path / "go", script, names_change, hosts=("10.0.0.9 db",), hostname="box")
    assert "10.0.0.9 db\nbox" in found
    assert "of-the-host" not in found


@pytest.fixture
def opened(tmp_path):
    """A program of the host's that listens where everybody may come, in a folder of programs, and tells whom it sees."""
    with mounted("/usr/local/share", "-t", "tmpfs", "none"), socket.socket(socket.AF_UNIX) as listener:
        listener.bind("/usr/local/share/service.sock")
        os.chmod("/usr/local/share/service.sock", 0o666)
        listener.listen()
        seen = []

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection:
                        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
                        seen.append(struct.unpack("3i", credentials)[1])

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield seen
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(10)


PLACES = ("/srv", "/opt", "/var/lib", "/var/spool", "/home", "/root", "/mnt", "/boot")


def test_what_only_root_may_read_is_not_shown(runtime, tmp_path):
    with contextlib.ExitStack() as stack:
        for place in PLACES:
            stack.enter_context(mounted(place, "-t", "tmpfs", "none"))
            secret = pathlib.Path(place, "secret")
            secret.write_text(SECRET)
            secret.chmod(0o600)
            # It bites: root reads it.
            assert secret.read_text() == SECRET
        names = " ".join(f"{place}/secret" for place in PLACES)
        assert output(runtime, f"cat {names} 2>/dev/null; echo end") == "end"


@pytest.mark.parametrize("place", ["/srv", "/opt", "/var/lib"])
def test_the_engines_own_folders_are_in_none_that_is_shown(tmp_path, program, place):
    with mounted(place, "-t", "tmpfs", "none"):
        other = Runtime(f"{place}/state", f"{place}/run", instance=INSTANCE, oci_runtime=program)
        start(other, f"ls -A {place}; ls -A {place}/state {place}/run 2>/dev/null | wc -l")
        other.wait("web", 30)
        assert [line.text for line in other.logs("web")] == [b"0"]
        other.sweep(())


@pytest.mark.parametrize("part", ["state", "run", "socket"])
def test_where_they_would_be_seen_no_container_is_started(tmp_path, program, part):
    """Nothing that covers them would last: the socket is made anew by each daemon."""
    with mounted("/usr/local/share", "-t", "tmpfs", "none"):
        folders = {"state": str(tmp_path / "state"), "run": str(tmp_path / "run"), "socket": str(tmp_path)}
        folders[part] = f"/usr/local/share/{part}"
        other = Runtime(
            folders["state"],
            folders["run"],
            hidden=(folders["socket"],),
            instance=INSTANCE,
            oci_runtime=program,
        )
        with pytest.raises(SpecError, match=rf"rootfs: .*/usr/local/share/{part}.* /usr"):
            start(other, "true")
        assert other.orphans(()) == ()


def test_a_peer_is_nobody_of_the_host_and_enters_no_closed_door(runtime, opened, sandbox):
    """Programs of the host trust a peer whose uid is 0, and integrations that only root may open."""
    knock = "import socket; s = socket.socket(socket.AF_UNIX); s.connect('/usr/local/share/service.sock'); s.recv(1)"
    script = f'/usr/bin/python3 -I -S -c "{knock}" || echo refused'
    # It bites where the container's root is the host's.
    assert output(runtime, script) == ""
    assert opened == [0]
    assert output(runtime, script, **sandbox) == ""
    assert opened == [0, ID_BASE]
    os.chmod("/usr/local/share/service.sock", 0o600)
    assert "refused" in output(runtime, script, **sandbox)
    assert opened == [0, ID_BASE]


def test_roots_own_files_among_programs_are_not_read(runtime, sandbox):
    with mounted("/usr/local/share", "-t", "tmpfs", "none"):
        secret = pathlib.Path("/usr/local/share/secret")
        secret.write_text(SECRET)
        secret.chmod(0o600)
        assert SECRET in output(runtime, f"cat {secret}")
        assert SECRET not in output(runtime, f"cat {secret} 2>&1", **sandbox)


# --- devices ----------------------------------------------------------------------------------------------------------


def has_device_filter():
    return not cgroups.why_unusable(cgroups.detect())


def test_in_a_user_namespace_a_device_file_cannot_be_made(runtime, disk, sandbox):
    found = output(runtime, f"({stolen(disk)}) 2>&1", cap_add=("MKNOD",), **sandbox)
    assert SECRET not in found
    assert "not permitted" in found


@pytest.fixture
def disk(tmp_path):
    """A disk of the host's: a block device with a secret on it, which goes with the test."""
    image = tmp_path / "disk"
    image.write_bytes(SECRET.encode().ljust(4096, b"\0"))
    found = subprocess.run(
        ["losetup", "--show", "-f", str(image)], check=False, capture_output=True, text=True
    )
    if found.returncode != 0:
        pytest.skip(f"no loop device: {found.stderr.strip()}")
    device = found.stdout.strip()
    try:
        yield os.stat(device).st_rdev
    finally:
        subprocess.run(["losetup", "-d", device], check=True)


def stolen(device, where="/dev/disk"):
    return (
        f"mknod {where} b {os.major(device)} {os.minor(device)} && head -c 40 {where};"
        f"echo overwritten > {where}; echo; echo end"
    )


def test_the_hosts_disks_are_not_read(runtime, disk):
    for where in ("/dev/disk", "/tmp/disk", "/dev/shm/disk"):
        assert SECRET not in output(runtime, f"({stolen(disk, where)}) 2>&1")


def test_a_disk_is_read_where_it_may_be_made_and_nothing_denies_it(runtime, disk):
    """The bite control: the right that it is not given."""
    found = output(runtime, f"({stolen(disk)}) 2>&1", cap_add=("MKNOD",))
    assert (SECRET in found) is not has_device_filter()


def test_a_disk_that_lies_in_a_folder_that_is_shown_is_not_read(runtime, disk, tmp_path):
    folder = tmp_path / "folder"
    (folder / "deep").mkdir(parents=True)
    with mounted(str(folder / "deep"), "-t", "tmpfs", "none"):
        for place in (folder / "disk", folder / "deep" / "disk"):
            os.mknod(place, 0o666 | 0o060000, disk)
            # It bites: whoever may open it reads.
            assert place.read_bytes().startswith(SECRET.encode())
        for read_only in (False, True):
            mounts = (Bind(source=str(folder), target="/shown", read_only=read_only),)
            script = "(head -c 40 /shown/disk; head -c 40 /shown/deep/disk) 2>&1; echo end"
            assert SECRET not in output(runtime, script, mounts=mounts)


def test_that_a_container_may_make_the_hosts_devices_is_said(runtime):
    start(runtime, "true", cap_add=("MKNOD",))
    warned = [line for line in runtime.state("web").warnings if line.startswith("devices-open: ")]
    assert bool(warned) is not has_device_filter()


def test_without_a_device_filter_it_is_no_right_of_a_container(runtime):
    rights = int(output(runtime, "grep CapBnd /proc/self/status").split()[1], 16)
    assert bool(rights & 1 << 27) is has_device_filter()


# --- the host's links -------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def plugged(where):
    """A veth between the host and a sandbox, as networks make them."""
    subprocess.run(["ip", "link", "add", "hostend", "type", "veth", "peer", "name", "eth0"], check=True)
    try:
        enter = ["nsenter", f"--net={where['netns']}", "ip", "link"]
        subprocess.run(["ip", "link", "set", "eth0", "netns", where["netns"]], check=True)
        assert "eth0" in subprocess.run(enter, check=True, capture_output=True, text=True).stdout
        yield
    finally:
        subprocess.run(["ip", "link", "del", "hostend"], check=True)


# The id of the host's namespace is given out when the link is looked at. `ip` has no word for IFLA_TARGET_NETNSID of a new link,
# so it is asked for what is there, in the words of the kernel: RTM_GETLINK, RTM_NEWLINK, RTM_DELLINK.
THROUGH_THE_VETH = """
import socket, struct, subprocess
subprocess.run(["ip", "-d", "link"], check=True, stdout=subprocess.DEVNULL)
def attribute(kind, data):
    return struct.pack("HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)
def ask(kind, flags, *attributes):
    body = struct.pack("BxHiII", 0, 0, 0, 0, 0) + b"".join(attributes)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as s:
        s.bind((0, 0))
        s.send(struct.pack("IHHII", 16 + len(body), kind, 1 | flags, 1, 0) + body)
        found = b""
        while True:
            data = s.recv(65536)
            found += data
            if not flags & 0x300 or struct.unpack_from("IHH", data)[1] in (2, 3):
                return found
target = attribute(46, struct.pack("i", 0))
listed = ask(18, 0x300, target)
print("listed", b"hostend\\0" in listed)
kind = attribute(18, attribute(1, b"bridge"))
print("made", struct.unpack_from("i", ask(16, 4 | 0x600, target, attribute(3, b"stranger\\0"), kind), 16)[0])
print("gone", struct.unpack_from("i", ask(17, 4, target, attribute(3, b"hostvictim\\0")), 16)[0])
"""


def through_the_veth(runtime, tmp_path, where):
    """What a container with NET_ADMIN does to the host's links: its words, and which links of the attack there are now."""
    (tmp_path / "attack.py").write_text(THROUGH_THE_VETH)
    mounts = (Bind(source=str(tmp_path / "attack.py"), target="/attack.py", read_only=True),)
    subprocess.run(["ip", "link", "add", "hostvictim", "type", "bridge"], check=True)
    try:
        with plugged(where):
            command = "exec /usr/bin/python3 -I -S /attack.py 2>&1"
            said = output(runtime, command, cap_add=("NET_ADMIN",), mounts=mounts, **where)
        return said, {
            name for name in ("hostvictim", "stranger") if os.path.exists(f"/proc/sys/net/ipv4/conf/{name}")
        }
    finally:
        for name in ("hostvictim", "stranger"):
            subprocess.run(["ip", "link", "del", name], check=False, capture_output=True)


def test_net_admin_reaches_the_hosts_links_through_its_veth(runtime, tmp_path, open_sandbox):
    """The bite control: the sandbox's namespace is the host's to own."""
    said, links = through_the_veth(runtime, tmp_path, open_sandbox)
    assert said.splitlines() == ["listed True", "made 0", "gone 0"]
    assert links == {"stranger"}


def test_in_a_user_namespace_net_admin_ends_at_its_own_network(runtime, tmp_path, sandbox):
    said, links = through_the_veth(runtime, tmp_path, sandbox)
    assert said.splitlines()[0] == "listed False"
    assert links == {"hostvictim"}


def test_in_its_own_network_it_may_do_what_it_could(runtime, sandbox):
    """NET_ADMIN there, low ports, ping."""
    listen = "import socket; s = socket.socket(); s.bind(('127.0.0.1', 80)); print('low port')"
    script = (
        "ip link set lo up && ip link add mine type bridge && ip -o link show mine | grep -o mine | head -1;"
        f"/usr/bin/python3 -I -S -c \"{listen}\"; ping -c 1 -W 5 127.0.0.1 | grep -o '1 received'"
    )
    said = output(runtime, f"({script}) 2>&1", cap_add=("NET_ADMIN",), **sandbox).splitlines()
    assert said[:2] == ["mine", "low port"]
    assert said[2:] == ["1 received"] or not shutil.which("ping")


def test_that_net_admin_reaches_the_host_is_said(runtime, sandbox, open_sandbox):
    for where, expected in ((open_sandbox, 1), (sandbox, 0)):
        start(runtime, "true", cap_add=("NET_ADMIN",), **where)
        warned = [line for line in runtime.state("web").warnings if line.startswith("net-admin-outside: ")]
        assert len(warned) == expected
        runtime.wait("web", 30)
        runtime.remove("web")
