"""Frames over a socket, and a client at a process's input."""

import contextlib
import fcntl
import json
import os
import select
import socket
import struct
import termios

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealane.containers.frames import (
    ERRORS,
    EXIT,
    INPUT,
    OUTPUT,
    PAYLOAD_BYTES_MAX,
    PENDING_BYTES_MAX,
    SIGNAL,
    SIZE,
    Peer,
    Session,
    exit_frame,
    frame,
    signal_frame,
    size_frame,
    size_in,
    size_of,
)


@contextlib.contextmanager
def connected(early=b""):
    """A peer, and the plain socket at its other end."""
    ours, theirs = socket.socketpair()
    with contextlib.closing(Peer(ours, early)) as peer, theirs:
        yield peer, theirs


def all_of(peer):
    frames = []
    while peer.is_open:
        frames += peer.receive()
    return frames


# --- frames

FRAMES = st.lists(st.tuples(st.sampled_from([INPUT, OUTPUT, ERRORS, SIZE, EXIT]), st.binary(max_size=200)))


@given(FRAMES, st.lists(st.integers(1, 50), max_size=40))
def test_what_is_sent_is_received_however_it_is_cut(frames, cuts):
    data = b"".join(frame(kind, payload) for kind, payload in frames)
    with connected() as (peer, other):
        found = []
        for cut in [*cuts, len(data)]:
            piece, data = data[:cut], data[cut:]
            other.sendall(piece)
            found += peer.receive()
        assert found == frames
        assert peer.is_open


@given(FRAMES, st.integers(0, 300))
def test_what_came_with_the_request_is_received_first(frames, cut):
    data = b"".join(frame(kind, payload) for kind, payload in frames)
    with connected(data[:cut]) as (peer, other):
        found = list(peer.received())
        other.sendall(data[cut:])
        other.close()
        assert found + all_of(peer) == frames


@given(st.binary(max_size=3 * PAYLOAD_BYTES_MAX))
def test_a_long_payload_is_several_frames(payload):
    with connected(frame(OUTPUT, payload)) as (peer, _):
        found = list(peer.received())
    assert b"".join(part for _, part in found) == payload
    assert all(kind == OUTPUT and len(part) <= PAYLOAD_BYTES_MAX for kind, part in found)
    assert len(found) == max(1, -(-len(payload) // PAYLOAD_BYTES_MAX))


def test_a_session_tells_of_signals_in_their_order():
    heard = []
    with connected() as (peer, other):
        other.sendall(signal_frame(15) + frame(INPUT, b"a") + signal_frame(2))
        session = Session(peer, heard.append)
        session.serve(peer.fileno(), select.POLLIN)
        assert heard == [15, 2]


@pytest.mark.parametrize(
    "data", [struct.pack(">BI", SIGNAL + 1, 0), struct.pack(">BI", INPUT, PAYLOAD_BYTES_MAX + 1)]
)
def test_what_is_no_frame_ends_it(data):
    with connected() as (peer, other):
        other.sendall(frame(INPUT, b"a") + data)
        assert list(peer.receive()) == [(INPUT, b"a")]
        assert not peer.is_open


@given(st.integers(0, 0xFFFF), st.integers(0, 0xFFFF))
def test_a_size_is_two_numbers(rows, columns):
    with connected(size_frame(rows, columns)) as (peer, _):
        [(kind, payload)] = peer.received()
    assert (kind, size_of(payload)) == (SIZE, (rows, columns))


@given(FRAMES, st.integers(0, 100))
def test_a_size_that_came_with_the_request_is_found(frames, cut):
    before = b"".join(frame(kind, payload) for kind, payload in frames if kind != SIZE)
    assert size_in(before) is None
    assert size_in(before + size_frame(30, 100) + size_frame(1, 1)) == (30, 100)
    assert size_in((before + size_frame(30, 100))[:-cut] if cut else before) is None


@pytest.mark.parametrize("payload", [b"", b"\0\0\0", b"\0" * 5])
def test_anything_else_is_no_size(payload):
    with pytest.raises(ValueError, match="two numbers"):
        size_of(payload)


def test_an_end_says_why_in_bounded_words():
    with connected(exit_frame(127, "x" * 100_000)) as (peer, _):
        [(kind, payload)] = peer.received()
    assert kind == EXIT
    assert json.loads(payload) == {"exit_code": 127, "error": "x" * 8192}


# --- a peer


def test_what_does_not_go_out_at_once_waits_and_is_told():
    with connected() as (peer, other):
        sent = b"".join(frame(OUTPUT, bytes([number % 256]) * 1000) for number in range(2000))
        peer.send(sent)
        assert peer.is_full
        assert peer.pending > PENDING_BYTES_MAX
        assert peer.events(reads=False) == select.POLLOUT
        found = bytearray()
        while peer.pending:
            found += other.recv(1 << 20)
            peer.flush()
        other.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            found += other.recv(1 << 20)
        assert bytes(found) == sent
        assert peer.events() == select.POLLIN


def test_the_last_words_of_one_who_hangs_up_are_heard_though_nothing_can_be_said_to_him():
    with connected() as (peer, other):
        peer.send(frame(INPUT, b"never read"))
        other.sendall(exit_frame(3))
        other.close()
        peer.send(frame(INPUT, b"more"))
        assert (peer.is_open, peer.pending) == (True, 0)
        assert [kind for kind, _ in all_of(peer)] == [EXIT]


def test_the_end_is_waited_for_as_long_as_somebody_takes_it():
    with connected() as (peer, other):
        peer.send(frame(OUTPUT, b"x" * (4 << 20)))
        peer.finish(0.01)
        assert peer.pending, "nobody took it"
        other.close()
        peer.finish(5)
        assert not peer.pending


# --- a session


@contextlib.contextmanager
def session_of(early=b""):
    with connected(early) as (peer, other):
        session = Session(peer)
        yield session, other
        session.disconnect()


def pipe():
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    os.set_blocking(reader, False)
    return reader, writer


def serve(session, times=50):
    """Whatever is ready."""
    for _ in range(times):
        poll = select.poll()
        for descriptor, events in session.interests().items():
            poll.register(descriptor, events)
        ready = poll.poll(0)
        if not ready:
            return
        for descriptor, events in ready:
            session.serve(descriptor, events)


def test_input_goes_to_the_process_and_ends():
    with session_of(frame(INPUT, b"early ")) as (session, other):
        reader, writer = pipe()
        session.connect(writer)
        other.sendall(frame(INPUT, b"late") + frame(INPUT))
        serve(session)
        assert os.read(reader, 100) == b"early late"
        assert os.read(reader, 100) == b"", "it has an end"
        os.close(reader)


def test_input_that_is_over_before_the_process_begins_is_all_of_it():
    with session_of(frame(INPUT, b"all") + frame(INPUT)) as (session, _):
        reader, writer = pipe()
        session.connect(writer)
        assert (os.read(reader, 100), os.read(reader, 100)) == (b"all", b"")
        os.close(reader)


def test_no_more_is_read_than_the_process_takes():
    with session_of() as (session, other):
        reader, writer = pipe()
        session.connect(writer)
        other.setblocking(False)
        sent = 0
        with contextlib.suppress(BlockingIOError):
            while sent < 8 << 20:
                sent += other.send(frame(INPUT, b"x" * 4091))
                serve(session)
        assert sent < 2 << 20
        assert not session.interests()[session.client.fileno()] & select.POLLIN
        taken = 0
        while taken < 200_000:
            taken += len(os.read(reader, 65536))
            serve(session)
        assert session.interests()[session.client.fileno()] & select.POLLIN
        os.close(reader)


def test_a_process_that_reads_no_more_is_no_reason_to_stop_taking():
    with session_of() as (session, other):
        reader, writer = pipe()
        session.connect(writer)
        os.close(reader)
        for _ in range(300):
            other.sendall(frame(INPUT, b"x" * 10_000))
            serve(session)
        assert not session.has_ended
        other.sendall(frame(INPUT))
        serve(session)
        assert list(session.interests()) == [session.client.fileno()]


def test_the_next_process_gets_what_the_last_one_did_not_read():
    with session_of() as (session, other):
        first, writer = pipe()
        session.connect(writer)
        session.disconnect()
        assert os.read(first, 1) == b""
        other.sendall(frame(INPUT, b"word\n"))
        serve(session)
        second, writer = pipe()
        session.connect(writer)
        assert os.read(second, 100) == b"word\n"
        os.close(first)
        os.close(second)


def test_a_terminal_has_its_size_whenever_it_comes():
    with session_of(size_frame(30, 100)) as (session, other):
        master, slave = os.openpty()
        os.set_blocking(master, False)
        session.connect(terminal=master)
        assert size(slave) == (30, 100)
        other.sendall(size_frame(40, 120))
        serve(session)
        assert size(slave) == (40, 120)
        other.sendall(frame(INPUT, b"keys\n") + frame(INPUT))
        serve(session)
        assert os.read(slave, 100) == b"keys\n"
        session.disconnect()
        os.close(slave)
        assert size(master) == (40, 120), "it is the caller's to close"
        os.close(master)


def size(terminal):
    rows, columns, _, _ = struct.unpack("HHHH", fcntl.ioctl(terminal, termios.TIOCGWINSZ, bytes(8)))
    return rows, columns


@pytest.mark.parametrize("how", ["close", "nonsense", "size"])
def test_a_client_that_hangs_up_is_gone(how):
    with session_of() as (session, other):
        if how == "close":
            other.close()
        else:
            other.sendall(b"\xff" * 10 if how == "nonsense" else frame(SIZE, b"1"))
        serve(session)
        assert session.has_ended
        assert session.interests() == {}


def test_a_client_that_hangs_up_is_gone_though_nothing_is_read_from_it():
    with session_of(frame(INPUT, b"x" * PAYLOAD_BYTES_MAX)) as (session, other):
        assert session.interests() == {session.client.fileno(): 0}
        other.close()
        serve(session)
        assert session.has_ended
