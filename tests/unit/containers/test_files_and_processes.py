"""State files replaced whole, processes told apart from their numbers, locks that die with their holder."""

import os
import signal
import subprocess
import sys
import textwrap

import pytest

from sealane.containers import files, process


def test_a_file_is_replaced_whole_and_leaves_no_temporary(tmp_path):
    path = str(tmp_path / "f")
    files.write_atomic(path, b"one", 0o600)
    first = os.stat(path)
    files.write_atomic(path, b"two")
    assert files.read_bytes(path) == b"two"
    assert os.stat(path).st_ino != first.st_ino
    assert first.st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["f"]


@pytest.mark.parametrize(
    ("before", "after"), [(b"a long old text", b"short"), (b"", b"x" * 9999), (b"same", b"")]
)
def test_a_bind_mounted_file_keeps_its_inode(tmp_path, before, after):
    path = tmp_path / "hosts"
    path.write_bytes(before)
    inode = os.stat(path).st_ino
    files.overwrite_in_place(str(path), after)
    assert path.read_bytes() == after
    assert os.stat(path).st_ino == inode


def test_what_is_not_there_is_none(tmp_path):
    assert files.read_bytes(str(tmp_path / "x")) is None
    assert files.read_bytes(str(tmp_path / "x" / "y")) is None
    assert files.read_json(str(tmp_path / "x")) is None
    files.remove(str(tmp_path / "x"))


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"null", b"\xff"])
def test_what_is_no_object_is_none(tmp_path, content):
    (tmp_path / "x").write_bytes(content)
    assert files.read_json(str(tmp_path / "x")) is None


def test_a_json_object_is_read_back(tmp_path):
    files.write_json(str(tmp_path / "x"), {"a": [1, "é"]})
    assert files.read_json(str(tmp_path / "x")) == {"a": [1, "é"]}


def test_write_all_writes_through_a_small_pipe():
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        files.write_all(writer, b"x" * 1_000_000)
        os._exit(0)
    os.close(writer)
    with open(reader, "rb") as file:
        assert len(file.read()) == 1_000_000
    os.waitpid(child, 0)


@pytest.fixture
def sleeper():
    child = subprocess.Popen(["sleep", "60"])
    yield child
    child.kill()
    child.wait()


def test_a_live_process_is_identified_and_signalled(sleeper):
    identity = process.identify(sleeper.pid)
    assert process.is_alive(identity)
    assert process.send_signal(identity, signal.SIGTERM)
    assert sleeper.wait() == -signal.SIGTERM
    assert not process.is_alive(identity)
    assert not process.send_signal(identity, signal.SIGTERM)


def test_a_reused_number_is_another_process(sleeper):
    identity = process.identify(sleeper.pid)
    other = identity | {"start_time": identity["start_time"] - 1}
    assert not process.is_alive(other)
    assert not process.send_signal(other, signal.SIGKILL)
    assert sleeper.poll() is None


def test_the_same_number_after_a_reboot_is_another_process(sleeper):
    identity = process.identify(sleeper.pid) | {"boot_id": "00000000-0000-0000-0000-000000000000"}
    assert not process.is_alive(identity)


def test_a_zombie_is_not_alive(sleeper):
    identity = process.identify(sleeper.pid)
    sleeper.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)
    assert process.start_time(sleeper.pid) is None
    assert not process.is_alive(identity)


def test_nobody_is_not_alive():
    assert not process.is_alive(None)
    assert process.identify(2**22 + 1) is None


def test_a_command_name_with_parentheses_does_not_confuse():
    script = "import ctypes,time; ctypes.CDLL(None).prctl(15, b'a) S 1 (x', 0,0,0); print(flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as child:
        child.stdout.readline()
        expected = process.start_time(os.getpid())
        assert process.start_time(child.pid) >= expected
        child.kill()


def test_a_lock_is_seen_without_being_taken_and_ends_with_its_holder(tmp_path):
    path = str(tmp_path / "lock")
    assert not process.is_locked(path)
    script = textwrap.dedent(f"""
        import os, time
        from sealane.containers import process
        assert process.take_lock({path!r}) is not None
        if os.fork():
            os._exit(0)
        print(flush=True)
        time.sleep(60)
    """)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    # The lock goes over to the fork: this is how the shim keeps it while it detaches.
    holder = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, env=environment, start_new_session=True
    )
    try:
        holder.stdout.readline()
        holder.wait()
        assert process.is_locked(path)
        assert process.take_lock(path) is None
        assert process.is_locked(path)
    finally:
        os.killpg(holder.pid, signal.SIGKILL)
        holder.stdout.read()
        holder.stdout.close()
    assert not process.is_locked(path)
    descriptor = process.take_lock(path)
    assert descriptor is not None
    os.close(descriptor)
