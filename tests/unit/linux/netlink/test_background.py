"""The thread that sends while Python goes on, between two sockets of our own."""

import errno
import os
import socket
import threading
from collections.abc import Iterator

import pytest

from sealane.linux.netlink import background as module
from sealane.linux.netlink import codec
from sealane.linux.netlink.background import DATAGRAM_BYTES_MAX, Background
from sealane.linux.netlink.socket import NETLINK_ROUTE, Socket

NOOP = codec.message(1, codec.NLM_F_REQUEST | codec.NLM_F_ACK, 0, b"")
"""NLMSG_NOOP: the kernel acknowledges it, and does nothing."""

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, theirs:
        theirs.settimeout(100)
        yield ours, theirs


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "sealane-netlink"]


def test_a_datagram_arrives_whole_and_alone(pair: Pair) -> None:
    ours, theirs = pair
    with Background(ours.fileno()) as background:
        for size in (1, 20, DATAGRAM_BYTES_MAX, 7):
            background.send(os.urandom(size - 1) + b"!")
            data = theirs.recv(1 << 16)
            assert (len(data), data[-1:]) == (size, b"!")


def test_an_answer_is_waited_for(pair: Pair) -> None:
    ours, theirs = pair
    with Background(ours.fileno()) as background:
        background.send(b"question")
        answer = threading.Timer(0.05, theirs.send, [b"answer"])
        answer.start()
        assert background.wait()
        assert ours.recv(100) == b"answer"


def test_what_cannot_be_sent_is_told_and_does_not_stand_before_the_next(pair: Pair) -> None:
    _, theirs = pair
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ours, Background(ours.fileno()) as background:
        for _ in range(2):
            background.send(b"to nobody")
            assert not background.wait()
        theirs.close()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as there:
            there.bind("\0sealane-test-" + os.urandom(8).hex())
            ours.connect(there.getsockname())
            there.settimeout(100)
            background.send(b"to somebody")
            assert there.recv(100) == b"to somebody"


def test_closing_ends_the_thread_and_sends_what_was_given(pair: Pair) -> None:
    ours, theirs = pair
    before = len(os.listdir("/proc/self/fd"))
    background = Background(ours.fileno())
    assert len(threads()) == 1
    background.send(b"last")
    background.close()
    background.close()
    assert theirs.recv(100) == b"last"
    assert threads() == []
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.fixture
def kernel() -> Iterator[Socket]:
    with Socket(NETLINK_ROUTE, background=True) as it:
        yield it


@pytest.mark.parametrize("count", [0, 1, 3, 200, 300])
def test_results_are_those_of_requests(kernel: Socket, count: int) -> None:
    """300 are more than one datagram of the pipe's."""
    assert kernel.begin([NOOP] * count)() == [None] * count == kernel.request([NOOP] * count)


def test_refusals_are_told_at_their_place(kernel: Socket) -> None:
    """RTM_GETLINK of no link, in the midst of what succeeds: asking is harmless on whatever host this runs."""
    bad = codec.message(
        18, codec.NLM_F_REQUEST | codec.NLM_F_ACK, 0, bytes(4) + b"\xff\xff\xff\x7f" + bytes(8)
    )
    for messages in ([NOOP, bad, NOOP], [bad], [NOOP, bad], [bad, bad, NOOP]):
        found = [error and error.errno for error in kernel.begin(messages)()]
        assert found == [errno.ENODEV if message is bad else None for message in messages]


def test_what_is_asked_meanwhile_waits_and_loses_no_answer(kernel: Socket) -> None:
    bad = codec.message(
        18, codec.NLM_F_REQUEST | codec.NLM_F_ACK, 0, bytes(4) + b"\xff\xff\xff\x7f" + bytes(8)
    )
    begun = kernel.begin([NOOP, bad])
    again = kernel.begin([bad])
    assert kernel.request([NOOP]) == [None]
    assert len(kernel.dump(codec.message(18, codec.NLM_F_REQUEST | codec.NLM_F_DUMP, 0, bytes(16)))) >= 1
    for _ in range(2):
        assert [error and error.errno for error in begun()] == [None, errno.ENODEV]
        assert [error and error.errno for error in again()] == [errno.ENODEV]


def test_without_a_thread_it_is_the_same() -> None:
    with Socket(NETLINK_ROUTE) as plain:
        assert threads() == []
        assert plain.begin([NOOP])() == [None]


def test_a_thread_that_gets_no_processor_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    class Starved:
        def __init__(self, **_: object) -> None:
            pass

        def start(self) -> None:
            pass

        def join(self) -> None:
            pass

    monkeypatch.setattr(module.threading, "Thread", Starved)
    with Socket(NETLINK_ROUTE, background=True) as socket:
        for count in (1, 3):
            assert socket.begin([NOOP] * count)() == [None] * count


def test_where_the_kernel_does_not_splice_it_is_sent_in_the_usual_way(
    kernel: Socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: int, target: int, count: int, flags: int = 0) -> int:
        if not flags:
            # It waits for the datagram, as the kernel does.
            module.select.select([source], [], [])
        raise OSError(errno.EINVAL, "no splice here")

    assert kernel.begin([NOOP])() == [None]
    monkeypatch.setattr(module.os, "splice", refuse)
    # The thread is in the real one still.
    assert kernel.begin([NOOP])() == [None]
    for _ in range(3):
        assert kernel.begin([NOOP, NOOP])() == [None, None]
    monkeypatch.undo()
    assert kernel.begin([NOOP])() == [None]
