"""Namespaces: what may be entered, and that nobody ever stays."""

import errno
import faulthandler
import fcntl
import gc
import os
import subprocess
import sys
import threading
import time

import pytest

from kernel.rtnl_support import BOX, alive, fresh_host, ip_json, rig, run, within
from sealane.engine.ports import NamespaceGoneError
from sealane.kernel.links import Loopback
from sealane.kernel.objects import Link
from sealane.linux import namespaces, netns, userns
from sealane.linux.netlink.socket import NETLINK_ROUTE, Socket
from sealane.linux.netns import NamespaceError
from sealane.model.endpoint import NetnsRef
from sealane.model.net import ParseError
from sealane.reconcile.plan import Operation, Plan

pytestmark = pytest.mark.kernel


def test_a_pinned_namespace_is_a_network_namespace_of_its_own():
    with rig(BOX) as it:
        ref = it.refs[BOX]
        assert ref.owner == "sealane"
        assert ref.inode != netns.own_inode()
        assert [item["ifname"] for item in ip_json("link")] == ["lo"]
        assert within(ref, "readlink", "/proc/self/ns/net").strip() == f"net:[{ref.inode}]"


def open_descriptors():
    return sorted(os.listdir("/proc/self/fd"))


def test_a_namespace_that_is_visited_is_opened_once_and_closed_at_the_end(monkeypatch):
    with rig(BOX) as it:
        path, before = it.refs[BOX].path, open_descriptors()
        with it.kernel.keep_open():
            ref = it.kernel.resolve_namespace(path)
            assert len(open_descriptors()) == len(before) + 2
            monkeypatch.setattr(netns, "_open", lambda _: pytest.fail("it is opened again"))
            lo = Link(name="lo", kind=Loopback())
            plan = Plan((("open", (Operation("open", "visited", lo),)),))
            assert it.kernel.apply(plan, {"visited": ref}) == []
            assert open_descriptors() == before
        assert "UP" in within(it.refs[BOX], "ip", "link", "show", "lo")


@pytest.mark.parametrize("times", [1, 3])
def test_a_visit_that_led_to_nothing_leaves_nothing_open(times):
    with rig(BOX) as it:
        before = open_descriptors()
        with it.kernel.keep_open():
            for _ in range(times):
                it.kernel.resolve_namespace(it.refs[BOX].path)
            assert len(open_descriptors()) == len(before) + 2
        assert open_descriptors() == before

        def stray():
            with it.kernel.keep_open():
                it.kernel.resolve_namespace(it.refs[BOX].path)
                it.kernel.resolve_namespace("/etc/passwd")

        with pytest.raises(NamespaceError):
            stray()
        assert open_descriptors() == before
        assert it.kernel.resolve_namespace(it.refs[BOX].path).inode == it.refs[BOX].inode
        assert open_descriptors() == before


def test_visits_are_bounded(monkeypatch):
    monkeypatch.setattr(namespaces, "OPEN_MAX", 2)
    with rig("a", "b", "c") as it:
        before = open_descriptors()
        with it.kernel.keep_open():
            for name in "abc":
                it.kernel.resolve_namespace(it.refs[name].path)
            assert len(open_descriptors()) == len(before) + 4
        assert open_descriptors() == before


def test_what_is_visited_is_what_is_resolved():
    with rig(BOX) as it:
        alone = it.kernel.resolve_namespace(it.refs[BOX].path)
        with it.kernel.keep_open():
            assert it.kernel.resolve_namespace(it.refs[BOX].path) == alone
            for wrong in ("/proc/self/ns/net", "/proc/self/ns/mnt", "/etc/passwd", "relative"):
                with pytest.raises(NamespaceError):
                    it.kernel.resolve_namespace(wrong)


def test_creating_again_gives_the_same_and_deleting_again_succeeds():
    with rig() as it:
        one = it.kernel.create_namespace("one")
        assert it.kernel.create_namespace("one") == one
        assert alive(one)
        it.kernel.delete_namespace(one)
        it.kernel.delete_namespace(one)
        assert not os.path.exists(one.path)
        assert not alive(one)


def test_a_pin_that_a_reboot_left_without_its_mount_is_made_good():
    with rig() as it:
        one = it.kernel.create_namespace("one")
        run("umount", one.path)
        assert os.path.exists(one.path)
        again = it.kernel.create_namespace("one")
        assert alive(again)
        it.kernel.delete_namespace(again)


def owner_of(ref):
    """The inode of the user namespace that owns a network namespace (NS_GET_USERNS, ioctl_nsfs(2))."""
    with open(ref.path, "rb") as opened:
        owner = fcntl.ioctl(opened, 0xB701)
    try:
        return os.fstat(owner).st_ino
    finally:
        os.close(owner)


def test_it_can_be_owned_by_a_user_namespace_of_its_own(tmp_path):
    folder, sandbox = str(tmp_path / "netns"), "ab" * 16
    ref = netns.create(folder, sandbox, with_userns=True)
    assert ref.userns == f"{folder}/{sandbox}.user"
    assert owner_of(ref) == os.stat(ref.userns).st_ino != os.stat("/proc/self/ns/user").st_ino
    assert netns.create(folder, sandbox, with_userns=True) == ref
    with open("/proc/self/mountinfo", encoding="ascii") as file:
        assert sum(f"{sandbox}.user" in line for line in file) == 1
    # It is ours to enter and to plug all the same.
    descriptor, opened = netns.enter(ref)
    opened.close()
    os.close(descriptor)
    other = netns.create(folder, "cd" * 16, with_userns=True)
    assert owner_of(other) != owner_of(ref)
    plain = netns.create(folder, "ef" * 16)
    assert (plain.userns, owner_of(plain)) == ("", os.stat("/proc/self/ns/user").st_ino)
    assert netns.sweep(folder, {sandbox}) == ["cd" * 16, "ef" * 16]
    assert sorted(os.listdir(folder)) == [sandbox, f"{sandbox}.user"]
    netns.delete(folder, ref)
    assert os.listdir(folder) == []
    subprocess.run(["umount", folder], check=True)


def test_an_owner_that_was_left_without_its_network_namespace_is_none(tmp_path):
    folder, sandbox = tmp_path / "netns", "ab" * 16
    folder.mkdir()
    (folder / f"{sandbox}.user").touch()
    assert netns.create(str(folder), sandbox).userns == ""
    assert os.listdir(folder) == [sandbox]
    assert netns.sweep(str(folder), ()) == [sandbox]
    subprocess.run(["umount", str(folder)], check=True)


def test_where_there_is_no_unshare_it_is_said_and_nothing_is_left(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(OSError, match="util-linux"):
        netns.create(str(tmp_path / "netns"), "ab" * 16, with_userns=True)
    assert os.listdir(tmp_path / "netns") == []
    assert "util-linux" in userns.why_not()
    subprocess.run(["/usr/bin/umount", str(tmp_path / "netns")], check=True)


def test_a_user_namespace_is_tried_before_it_is_promised():
    assert userns.why_not() == ""
    tried = subprocess.run(
        ["unshare", "--user", "--map-root-user", sys.executable, "-c", "from sealane.linux import userns; print(userns.why_not())"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert tried.stdout == "the daemon is in a user namespace itself\n"
    # As in a container whose engine has covered a part of proc, and all that is seen of it.
    script = """
        for proc in $(awk '$3 == "proc" { print $2 }' /proc/mounts); do mount --bind /dev/null $proc/uptime; done
        exec "$0" -c "from sealane.linux import userns; print(userns.why_not())"
    """
    covered = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, sys.executable],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert covered.stdout.startswith("this host allows no container in one: ")


def test_a_namespace_pinned_since_at_the_same_path_is_not_taken_away():
    with rig() as it:
        old = NetnsRef(path=f"{it.kernel._netns_dir}/one", inode=1, owner="sealane")
        new = it.kernel.create_namespace("one")
        it.kernel.delete_namespace(old)
        assert alive(new)
        it.kernel.delete_namespace(new)


@pytest.mark.parametrize("path", ["/tmp/x", "{dir}/../x", "{dir}/a/b", "{dir}/"])
def test_only_pins_of_ours_are_deleted(path):
    with rig() as it:
        ref = NetnsRef(path=path.format(dir=it.kernel._netns_dir), inode=1, owner="sealane")
        with pytest.raises((NamespaceError, ParseError)):
            it.kernel.delete_namespace(ref)
        with pytest.raises(NamespaceError):
            it.kernel.delete_namespace(NetnsRef(path=f"{it.kernel._netns_dir}/x", inode=1))


@pytest.mark.parametrize("sandbox", ["", "..", "a/b", "a\n", "../../etc/x", "a" * 129])
def test_a_sandbox_id_is_no_path(sandbox):
    with rig() as it, pytest.raises(ParseError):
        it.kernel.create_namespace(sandbox)


def test_deleting_unpins_also_in_mount_namespaces_that_copied_the_pin():
    with rig() as it:
        ref = it.kernel.create_namespace("one")
        reader = sleeper("unshare", "-m", "--propagation", "private")
        try:
            it.kernel.delete_namespace(ref)
            assert not alive(ref)
        finally:
            reader.close()


class sleeper:
    """A process that waits until closed."""

    def __init__(self, *prefix):
        import subprocess

        self.process = subprocess.Popen(
            [*prefix, "sh", "-c", "echo ready; read x"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self.process.stdout.readline() == b"ready\n"
        self.pid = self.process.pid

    def close(self):
        self.process.stdin.close()
        self.process.wait(timeout=100)
        self.process.stdout.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def test_a_process_is_resolved_by_pid_or_path_and_found_again_by_any_other_in_it():
    with rig() as it, sleeper("unshare", "-n") as first:
        ref = it.kernel.resolve_namespace(str(first.pid))
        assert ref == it.kernel.resolve_namespace(f"/proc/{first.pid}/ns/net")
        assert ref.owner == "foreign"
        with sleeper("nsenter", f"--net=/proc/{first.pid}/ns/net"):
            first.close()
            assert alive(ref)
            descriptor = netns.open_ref(ref)
            assert os.fstat(descriptor).st_ino == ref.inode
            os.close(descriptor)
        deadline = time.monotonic() + 100
        while alive(ref) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not alive(ref)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda d: str(os.getpid()), "host's own"),
        (lambda d: f"/proc/{os.getpid()}/ns/net", "host's own"),
        (lambda d: "/proc/thread-self/ns/net", "host's own"),
        (lambda d: f"/proc/{os.getpid()}/ns/pid", "another kind"),
        (lambda d: f"/proc/{os.getpid()}/ns/mnt", "another kind"),
        (lambda d: f"/proc/{os.getpid()}/root", "not a namespace"),
        (lambda d: f"/proc/{os.getpid()}/status", "not a namespace"),
        (lambda d: "/dev/zero", "not a namespace"),
        (lambda d: d, "not a namespace"),
        (lambda d: link_to(d, "/proc/1/ns/net"), "symbolic link"),
        (lambda d: fifo(d), "not a namespace"),
        (lambda d: "relative/path", "absolute path"),
        (lambda d: "", "absolute path"),
        (lambda d: "/proc/\0/x", "absolute path"),
        (lambda d: "/" + "x" * 5000, "absolute path"),
        (lambda d: "0", "not a process id"),
        (lambda d: "99999999", "not a process id"),
        (lambda d: "１２", "absolute path"),
    ],
)
def test_what_is_no_sandbox_is_refused_in_plain_words(tmp_path, make, message):
    with fresh_host(), pytest.raises(NamespaceError, match=message):
        netns.resolve(make(str(tmp_path)))


def link_to(directory, target):
    os.symlink(target, f"{directory}/link")
    return f"{directory}/link"


def fifo(directory):
    os.mkfifo(f"{directory}/fifo")
    return f"{directory}/fifo"


@pytest.mark.parametrize("where", ["4194303", "/no/such/file", "/proc/4194303/ns/net"])
def test_what_is_not_there_is_an_oserror(where):
    with fresh_host(), pytest.raises(OSError):
        netns.resolve(where)


def test_a_path_swapped_while_it_is_looked_at_never_leads_to_the_host(tmp_path):
    """F3: a racer swaps a sandbox's file for the host's namespace and back."""
    path = str(tmp_path / "ns")
    with rig(BOX) as it:
        box, own = it.refs[BOX].path, f"/proc/{os.getpid()}/task/{threading.get_native_id()}/ns/net"
        stop = threading.Event()

        def race():
            turn = 0
            while not stop.is_set():
                turn += 1
                os.symlink((box, own)[turn % 2], f"{path}.{turn}")
                os.rename(f"{path}.{turn}", path)

        os.symlink(box, path)
        racer = threading.Thread(target=race)
        racer.start()
        seen = set()
        try:
            for _ in range(1500):
                # Followed as an intermediate link the swap is of the directory; the descriptor decides either way.
                try:
                    descriptor = netns._open(path)
                except (NamespaceError, OSError) as error:
                    seen.add(type(error))
                else:
                    assert os.fstat(descriptor).st_ino == it.refs[BOX].inode
                    os.close(descriptor)
                for where in (box, own):
                    try:
                        descriptor = netns._open(where)
                    except NamespaceError:
                        assert where == own
                    else:
                        assert where == box
                        os.close(descriptor)
        finally:
            stop.set()
            racer.join()
        assert seen == {NamespaceError}


def test_a_reference_whose_path_leads_elsewhere_by_now_is_gone():
    with rig(BOX, "other") as it:
        moved = NetnsRef(path=it.refs["other"].path, inode=1)
        assert not alive(moved)
        with pytest.raises(NamespaceGoneError, match="does not exist"):
            netns.open_ref(moved)


def test_not_being_able_to_look_is_no_proof_of_death(monkeypatch):
    with rig(BOX) as it:

        def full(*_, **__):
            raise OSError(errno.EMFILE, "Too many open files")

        with monkeypatch.context() as patched:
            patched.setattr(os, "open", full)
            with pytest.raises(OSError, match="Too many open files"):
                alive(it.refs[BOX])
        assert alive(it.refs[BOX])


@pytest.fixture
def inhabited():
    """A namespace whose pin is gone, and the path of it through a process that lives there."""
    with rig(BOX) as it:
        ref = it.refs[BOX]
        process = subprocess.Popen(["nsenter", f"--net={ref.path}", "sleep", "60"])
        try:
            path = f"/proc/{process.pid}/ns/net"
            deadline = time.monotonic() + 100
            while os.stat(path).st_ino != ref.inode:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            it.kernel.delete_namespace(ref)
            yield ref, path
        finally:
            process.kill()
            process.wait()


def test_a_process_that_ends_while_it_is_looked_at_is_no_proof_of_death(inhabited, monkeypatch):
    ref, path = inhabited
    looks = iter([["/proc/4194303/ns/net", path], []])
    monkeypatch.setattr(netns, "_inhabited", lambda _: iter(next(looks)))
    os.close(netns.open_ref(ref))


def test_a_namespace_is_looked_for_twice_before_it_is_dead(inhabited, monkeypatch):
    ref, path = inhabited
    looks = iter([[], [path]])
    monkeypatch.setattr(netns, "_inhabited", lambda _: iter(next(looks)))
    os.close(netns.open_ref(ref))
    monkeypatch.setattr(netns, "_inhabited", lambda _: iter(()))
    with pytest.raises(NamespaceGoneError):
        netns.open_ref(ref)


def test_a_namespace_lives_as_long_as_a_process_is_in_it(inhabited):
    ref, _ = inhabited
    os.close(netns.open_ref(ref))


def test_what_cannot_be_compared_is_not_left_open(monkeypatch):
    with rig(BOX) as it:
        before = open_descriptors()

        def full(*_, **__):
            raise OSError(errno.EMFILE, "Too many open files")

        monkeypatch.setattr(netns, "_is_same", full)
        with pytest.raises(OSError, match="Too many"):
            netns.open_ref(it.refs[BOX])
        assert open_descriptors() == before


def test_inside_is_left_again_whatever_happens():
    with rig(BOX) as it:
        home = netns.own_inode()
        descriptor = netns.open_ref(it.refs[BOX])
        with netns.inside(descriptor):
            assert netns.own_inode() == it.refs[BOX].inode
        assert netns.own_inode() == home
        with pytest.raises(KeyboardInterrupt), netns.inside(descriptor):
            raise KeyboardInterrupt
        assert netns.own_inode() == home
        os.close(descriptor)
        with pytest.raises(OSError), netns.inside(descriptor):
            raise AssertionError("never inside")
        assert netns.own_inode() == home


def test_a_socket_made_inside_stays_inside():
    with rig(BOX) as it:
        descriptor = netns.open_ref(it.refs[BOX])
        with netns.open_socket(descriptor, NETLINK_ROUTE) as socket:
            os.close(descriptor)
            within(it.refs[BOX], "ip", "link", "add", "proof", "type", "bridge")
            from sealane.linux.netlink import link

            assert [link.parse(p).name for _, p in socket.dump(link.dump())] == ["lo", "proof"]


def test_a_thread_that_cannot_come_back_ends_its_process():
    with rig(BOX) as it:
        pid = os.fork()
        if not pid:
            try:
                faulthandler.disable()
                netns._setns = lambda descriptor: (
                    None
                )  # The way back is barred: it claims to go and does not.
                netns._return(os.open(netns._OWN, os.O_RDONLY), it.refs[BOX].inode)
            finally:
                os._exit(7)
        _, status = os.waitpid(pid, 0)
        assert os.WIFSIGNALED(status)
        assert os.WTERMSIG(status) == 6


def test_the_adapter_refuses_to_work_in_a_thread_that_is_elsewhere():
    from sealane.reconcile.plan import Plan

    with rig(BOX) as it:
        descriptor = netns.open_ref(it.refs[BOX])
        with netns.inside(descriptor), pytest.raises(RuntimeError, match="not in the host's"):
            it.kernel.apply(Plan(), {})
        os.close(descriptor)


def test_a_new_namespace_never_touches_the_callers_thread():
    with fresh_host():
        home = netns.own_inode()
        assert netns.in_new_namespace(netns.own_inode) != home
        with pytest.raises(ZeroDivisionError):
            netns.in_new_namespace(lambda: 1 // 0)
        assert netns.own_inode() == home


def test_no_descriptor_is_left_open():
    with rig(BOX) as it:
        gc.collect()
        before = len(os.listdir("/proc/self/fd"))
        for where in (it.refs[BOX].path, str(os.getpid()), "/dev/null", "/none"):
            try:
                netns.resolve(where)
            except (NamespaceError, OSError):
                pass
        alive(it.refs[BOX])
        alive(NetnsRef(path="/dev/null", inode=1))
        it.observed(BOX)
        with Socket(NETLINK_ROUTE):
            pass
        assert len(os.listdir("/proc/self/fd")) == before
