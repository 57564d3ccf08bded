"""A further process's output as lines of the API's, for who wants no session."""

import socket
import threading

import pytest

from sealane.containers.frames import ERRORS, INPUT, OUTPUT, Peer, exit_frame, frame
from sealane.daemon.streams import exec_output
from sealane.engine.errors import KernelError
from sealane.wire.views import ExecView


@pytest.fixture
def ends():
    mine, theirs = socket.socketpair()
    yield mine, theirs
    theirs.close()


def views(mine, stdin=b"", stop=None):
    return list(exec_output(mine, stdin, stop or threading.Event()))


def test_it_comes_as_it_is_written_and_ends_with_the_code(ends):
    mine, theirs = ends
    theirs.sendall(frame(OUTPUT, b"a") + frame(ERRORS, b"b") + frame(OUTPUT, b"c") + exit_frame(3))
    assert views(mine) == [
        ExecView(stream="stdout", data=b"a"),
        ExecView(stream="stderr", data=b"b"),
        ExecView(stream="stdout", data=b"c"),
        ExecView(stream="exit", exit_code=3),
    ]


def test_what_never_ran_says_why(ends):
    mine, theirs = ends
    theirs.sendall(exit_frame(127, "nope: not found"))
    assert views(mine) == [
        ExecView(stream="stderr", data=b"nope: not found\n"),
        ExecView(stream="exit", exit_code=127),
    ]


@pytest.mark.parametrize("stdin", [b"", b"in", b"x" * (1 << 20)])
def test_its_input_is_all_of_it(ends, stdin):
    mine, theirs = ends
    taken = []

    def attend():
        peer = Peer(theirs)
        theirs.setblocking(True)
        while (INPUT, b"") not in taken:
            taken.extend(peer.receive())
        peer.send(exit_frame(0))

    exec_shim = threading.Thread(target=attend)
    exec_shim.start()
    assert [view.stream for view in views(mine, stdin)] == ["exit"]
    exec_shim.join()
    assert b"".join(payload for _, payload in taken) == stdin


def test_one_that_is_lost_is_told(ends):
    mine, theirs = ends
    theirs.sendall(frame(OUTPUT, b"a"))
    theirs.close()
    with pytest.raises(KernelError, match="killed its attendant"):
        views(mine)


def test_who_wants_no_more_hangs_up(ends):
    mine, theirs = ends
    stop = threading.Event()
    theirs.sendall(frame(OUTPUT, b"a"))
    found = exec_output(mine, b"", stop)
    assert next(found).data == b"a"
    stop.set()
    assert list(found) == []
    peer = Peer(theirs)
    list(peer.receive())
    list(peer.receive())
    assert not peer.is_open
