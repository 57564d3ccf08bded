"""Where the OCI runtime hands over a terminal."""

import contextlib
import os
import socket

import pytest

from sealane.containers.console import Console


@pytest.fixture
def console(tmp_path):
    folder = tmp_path / ("deep" * 40)
    folder.mkdir()
    with contextlib.closing(Console(str(folder))) as console:
        yield console
    assert os.listdir(folder) == []


def hand_over(console, *descriptors, data=b"/dev/ptmx"):
    with socket.socket(socket.AF_UNIX) as runtime:
        runtime.connect(console.path)
        socket.send_fds(runtime, [data], descriptors)


def test_a_terminal_is_taken(console):
    master, slave = os.openpty()
    hand_over(console, master)
    os.close(master)
    taken = console.take()
    assert (os.isatty(taken), os.get_blocking(taken), os.get_inheritable(taken)) == (True, False, False)
    os.write(slave, b"x")
    assert os.read(taken, 1) == b"x"
    for descriptor in (taken, slave):
        os.close(descriptor)


def test_none_may_have_come(console):
    assert console.take() == -1
    hand_over(console)
    assert console.take() == -1
    with socket.socket(socket.AF_UNIX) as runtime:
        runtime.connect(console.path)
    assert console.take() == -1


def test_one_of_a_process_that_was_killed_is_in_nobodys_way(tmp_path):
    first = Console(str(tmp_path))
    with contextlib.closing(Console(str(tmp_path))) as second:
        master, slave = os.openpty()
        hand_over(second, master)
        taken = second.take()
        assert taken >= 0
    for descriptor in (taken, master, slave):
        os.close(descriptor)
    with contextlib.suppress(OSError):
        first.close()
