"""What publishing on loopback keeps in the kernel: the map, what outlives the daemon, repairs and refusals."""

from __future__ import annotations

import errno
import os
import signal
import sys
import textwrap
from pathlib import Path

import pytest

from kernel import loopback_harness as harness
from kernel.loopback_harness import (
    ASK,
    HOST4,
    LOCAL,
    ask_tcp,
    both_families,
    entry,
    inside,
    refused,
    remove_cgroup,
    run,
)
from sealane.linux.bpf import loopback, mounts, syscall
from sealane.linux.bpf.entry import MAX_ELEMENTS_PER_ENTRY
from sealane.linux.bpf.insn import Assembler, Reg
from sealane.linux.bpf.loopback import LoopbackPublisher
from sealane.linux.bpf.programs import HOOKS, MAX_TARGETS

pytestmark = pytest.mark.kernel
# Assigned and not imported by name: the tests' parameters of these names are fixtures and no redefinitions.
private_namespaces, processes, container = harness.private_namespaces, harness.processes, harness.container
cgroup, publisher = harness.cgroup, harness.publisher

# --- the map ---------------------------------------------------------------------------------------------------------


def test_what_cannot_be_mended_now_is_as_it_was(publisher, container, monkeypatch):
    container.serve(80)
    publisher.apply([entry(4, "tcp")])

    def refuse(*_):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    for module, name in ((mounts, "ensure_bpffs"), (syscall, "open_pinned")):
        with monkeypatch.context() as patched:
            patched.setattr(module, name, refuse)
            with pytest.raises(OSError, match="Too many open files"):
                publisher.repair()
        assert publisher.entries() == {entry(4, "tcp")}
        publisher.apply([entry(4, "udp")])
        publisher.apply([], [entry(4, "udp")])


@both_families
def test_a_range_is_a_few_elements_and_keeps_the_distance(publisher, container, family):
    container.serve(1, 500, 1000)
    published = entry(family, "tcp", 30_001, last=31_000, to=1)
    publisher.apply([published])
    fd = publisher._open_targets()
    assert len(list(syscall.map_items(fd, syscall.map_info(fd)))) <= MAX_ELEMENTS_PER_ENTRY
    assert publisher.entries() == {published}
    for port, backend in ((30_001, "1"), (30_500, "500"), (31_000, "1000")):
        assert ask_tcp(family, LOCAL[family], port)[0][2] == backend
    assert refused("tcp", family, LOCAL[family], 30_000)
    assert refused("tcp", family, LOCAL[family], 31_001)


def test_apply_twice_is_as_once_and_remove_takes_back(publisher, container):
    container.serve(80)
    entries = [entry(family, proto) for family in (4, 6) for proto in ("tcp", "udp")]
    publisher.apply(entries)
    publisher.apply(entries)
    assert publisher.entries() == set(entries)
    publisher.apply([], entries)
    publisher.apply([], entries)
    assert publisher.entries() == set()
    assert all(refused(way, family, LOCAL[family], 8080) for way in ASK for family in (4, 6))


def test_a_port_changes_its_backend_in_one_call(publisher, container):
    container.serve(80, 81)
    old, new = entry(to=80), entry(to=81)
    publisher.apply([old])
    publisher.apply([new], [old])
    assert publisher.entries() == {new}
    assert ask_tcp(4, "127.0.0.1", 8080)[0][2] == "81"
    publisher.apply([], [old])
    assert publisher.entries() == {new}, "removing what was replaced takes nothing away"


def test_a_range_shrinks_and_grows_in_one_call(publisher):
    small, large = entry(port=1000, last=1499, to=1), entry(port=1000, last=1999, to=1)
    publisher.apply([large])
    publisher.apply([small], [large])
    assert publisher.entries() == {small}
    publisher.apply([large], [small])
    assert publisher.entries() == {large}


def test_a_half_written_range_is_seen_in_parts_and_repaired_by_the_diff(publisher):
    whole = entry(port=1001, last=1999, to=1)
    publisher.apply([whole])
    fd = publisher._open_targets()
    elements = list(syscall.map_items(fd, syscall.map_info(fd)))
    assert syscall.map_delete(fd, elements[len(elements) // 2][0])
    parts = publisher.entries()
    assert whole not in parts
    assert len(parts) == len(elements) - 1
    publisher.apply({whole} - parts, parts - {whole})
    assert publisher.entries() == {whole}


def test_sctp_is_ignored_and_announced(publisher):
    published = entry(4, "sctp")
    publisher.apply([published])
    publisher.apply([], [published])
    assert publisher.entries() == set()
    assert "SCTP" in str(loopback.shortfall(published))


def test_overlapping_entries_change_nothing(publisher):
    with pytest.raises(ValueError, match="overlaps"):
        publisher.apply([entry(port=1000, last=1999, to=1), entry(port=1999, to=80)])
    assert publisher.entries() == set()


def test_one_element_more_than_the_map_holds_is_refused(publisher):
    full = [entry(4, "tcp", port, to=port) for port in range(1, 65_536)]
    full.append(entry(4, "udp", 1, to=1))
    assert len(full) == MAX_TARGETS
    publisher.apply(full)
    assert len(publisher.entries()) == MAX_TARGETS
    with pytest.raises(loopback.BpfError) as error:
        publisher.apply([entry(6, "udp", 1, to=1)])
    assert error.value.errno == errno.ENOSPC
    publisher.apply([], full[:10])
    publisher.apply([entry(6, "udp", 1, to=1)])


# --- outliving the daemon --------------------------------------------------------------------------------------------


def pins_in(directory: Path | str) -> set[str]:
    """The kernel puts files of its own, with a dot in their names, into a new bpffs (CONFIG_BPF_PRELOAD)."""
    return {name for name in os.listdir(directory) if "." not in name}


def link_ids(directory: str) -> dict[str, int]:
    ids = {}
    for name in pins_in(directory):
        if not name.startswith(("targets-", "peers-")):
            fd = syscall.open_pinned(f"{directory}/{name}")
            assert fd is not None
            ids[name] = syscall.link_info(fd).id
            os.close(fd)
    return ids


def test_publishes_survive_kill_9_and_a_restart_changes_nothing(tmp_path, container, cgroup, processes):
    container.serve(80)
    pins = str(tmp_path / "pins")
    # The mount has to be in a namespace that outlives the daemon, as the host's does.
    daemon = processes.start(
        sys.executable,
        "-c",
        textwrap.dedent(f"""
            import sys, time
            sys.path[:0] = {sys.path!r}
            from sealane.linux.bpf.loopback import LoopbackEntry, LoopbackPublisher
            publisher = LoopbackPublisher({pins!r}, cgroup={str(cgroup)!r})
            publisher.open()
            publisher.apply([LoopbackEntry(4, "tcp", 8080, 8089, bytes([10, 88, 1, 2]), 80)])
            print("ready", flush=True)
            time.sleep(600)
        """),
    )
    daemon.send_signal(signal.SIGKILL)
    daemon.wait()
    assert ask_tcp(4, "127.0.0.1", 8080)[0][0] == HOST4
    before = link_ids(pins)
    assert len(before) == len(HOOKS)
    publisher = LoopbackPublisher(pins, cgroup=str(cgroup))
    try:
        assert publisher.open() == ()
        assert publisher.entries() == {entry(port=8080, last=8089)}
        assert link_ids(pins) == before
    finally:
        publisher.detach()


@pytest.mark.parametrize("lost", [*(hook.name for hook in HOOKS), "peers", "targets"])
def test_open_repairs_a_lost_pin(publisher, container, tmp_path, lost):
    """Also what a crash between pinning the maps and pinning the links leaves."""
    container.serve(80)
    published = [entry(4, "tcp"), entry(4, "udp")]
    publisher.apply(published)
    (pin,) = (tmp_path / "pins").glob(f"{lost}-*")
    pin.unlink()
    made = publisher.open()
    using = [hook.name for hook in HOOKS if lost == "peers" or (lost == "targets" and not hook.reverse)]
    assert [name.partition("-")[0] for name in made] == [lost, *using], "programs are renewed with their map"
    # Where the map itself is gone, the old programs serve until it is filled.
    assert ask_tcp(4, "127.0.0.1", 8080)[0][0] == HOST4
    publisher.apply(published)
    assert publisher.open() == ()
    assert len(pins_in(tmp_path / "pins")) == 2 + len(HOOKS)
    for way in ASK:
        assert ASK[way](4, "127.0.0.1", 8080)[1] == ("127.0.0.1", 8080)


def test_open_repairs_a_link_detached_by_hand(publisher, container, tmp_path):
    container.serve(80)
    publisher.apply([entry()])
    (pin,) = (tmp_path / "pins").glob("connect4-*")
    fd = syscall.open_pinned(str(pin))
    assert fd is not None
    syscall.link_detach(fd)
    os.close(fd)
    assert refused("tcp", 4, "127.0.0.1", 8080)
    assert publisher.open() == (pin.name,)
    assert not refused("tcp", 4, "127.0.0.1", 8080)


def test_open_follows_a_cgroup_made_anew(tmp_path, container, cgroup):
    container.serve(80)
    inner = cgroup / "inner"
    inner.mkdir()
    publisher = LoopbackPublisher(str(tmp_path / "pins"), cgroup=str(inner))
    publisher.open()
    try:
        publisher.apply([entry()])
        inner.rmdir()
        inner.mkdir()
        assert len(publisher.open()) == len(HOOKS)
        assert len(pins_in(tmp_path / "pins")) == 2 + len(HOOKS)
        with inside(inner):
            assert not refused("tcp", 4, "127.0.0.1", 8080)
    finally:
        publisher.detach()
        remove_cgroup(inner)


def test_an_upgrade_replaces_the_programs_and_keeps_the_map(tmp_path, container, cgroup):
    """Programs of another version have other tags (here: another namespace's); all go, entries stay."""
    container.serve(80)
    pins = str(tmp_path / "pins")
    old = LoopbackPublisher(pins, cgroup=str(cgroup), cookie=12345)
    new = LoopbackPublisher(pins, cgroup=str(cgroup))
    old.open()
    try:
        old.apply([entry()])
        assert refused("tcp", 4, "127.0.0.1", 8080)
        before = pins_in(pins)
        made = new.open()
        assert len(made) == len(HOOKS)
        assert len(pins_in(pins) & before) == 2, "the maps alone"
        assert new.entries() == {entry()}
        assert not refused("tcp", 4, "127.0.0.1", 8080)
    finally:
        old.close()
        new.detach()


def test_instances_do_not_disturb_each_other(publisher, container, tmp_path, cgroup):
    """Another namespace's instance publishes the same port on the same cgroup, and goes again."""
    container.serve(80, 81)
    publisher.apply([entry(to=80)])
    other = LoopbackPublisher(
        str(tmp_path / "other"), cgroup=str(cgroup), cookie=loopback.netns_cookie() + 1_000_000
    )
    other.open()
    other.apply([entry(to=81)])
    assert ask_tcp(4, "127.0.0.1", 8080)[0][2] == "80"
    assert publisher.open() == ()
    other.detach()
    assert publisher.open() == ()
    assert ask_tcp(4, "127.0.0.1", 8080)[0][2] == "80"


def test_detach_restores(publisher, container, tmp_path):
    container.serve(80)
    publisher.apply([entry(4, way) for way in ("tcp", "udp")])
    assert not refused("tcp", 4, "127.0.0.1", 8080)
    publisher.detach()
    assert all(refused(way, 4, "127.0.0.1", 8080) for way in ASK)
    assert not (tmp_path / "pins").exists()
    publisher.detach()


def test_a_directory_on_a_bpffs_of_others_is_used_as_it_is(tmp_path, cgroup):
    mounts.ensure_bpffs(str(tmp_path / "bpf"))
    foreign = tmp_path / "bpf" / "foreign"
    foreign.mkdir()
    publisher = LoopbackPublisher(str(tmp_path / "bpf" / "sealane"), cgroup=str(cgroup))
    publisher.open()
    assert not os.path.ismount(tmp_path / "bpf" / "sealane")
    publisher.detach()
    assert pins_in(tmp_path / "bpf") == {"foreign"}
    foreign.rmdir()
    mounts.remove_bpffs(str(tmp_path / "bpf"))


def test_pins_of_others_in_the_directory_are_not_touched(publisher, tmp_path):
    (tmp_path / "pins" / "connect4-theirs").mkdir()
    assert publisher.open() == ()
    assert (tmp_path / "pins" / "connect4-theirs").exists()
    (tmp_path / "pins" / "connect4-theirs").rmdir()


# --- refusals --------------------------------------------------------------------------------------------------------


def test_probe_says_that_a_user_namespace_is_not_enough():
    code = f"import sys; sys.path[:0] = {sys.path!r}; from sealane.linux.bpf import loopback; print(loopback.probe())"
    assert "first user namespace" in run("unshare", "-U", "-r", sys.executable, "-c", code)


def test_probe_says_that_the_cgroup_hierarchy_is_missing():
    code = f"import sys; sys.path[:0] = {sys.path!r}; from sealane.linux.bpf import loopback; print(loopback.probe())"
    root = mounts.find_cgroup2()
    assert root is not None
    said = run("unshare", "-m", "sh", "-c", f'umount -l {root}; exec "$0" "$@"', sys.executable, "-c", code)
    assert "no cgroup v2 hierarchy is mounted" in said


def test_a_refused_program_shows_the_verifiers_log():
    asm = Assembler()
    asm.move(Reg.R0, Reg.R7)
    asm.exit()
    with pytest.raises(syscall.BpfError, match="R7 !read_ok") as error:
        syscall.prog_load(syscall.ProgType.CGROUP_SOCK_ADDR, 10, "bad", asm.assemble({}))
    assert error.value.errno == errno.EACCES


def test_a_closed_publisher_says_so(publisher):
    publisher.close()
    with pytest.raises(ValueError, match="not open"):
        publisher.entries()


def test_mending_tells_whether_anything_was_taken(publisher):
    assert publisher.repair() is False
    lost = next(name for name in pins_in(publisher._pin_dir) if name.startswith("connect4"))
    os.unlink(os.path.join(publisher._pin_dir, lost))
    assert publisher.repair() is True
    assert publisher.repair() is False
