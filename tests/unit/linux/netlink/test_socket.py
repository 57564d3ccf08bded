"""The socket's rules on a feed of prepared datagrams: what is sent, and what is made of each answer."""

import errno
import struct

import pytest

from sealane.linux.netlink import codec
from sealane.linux.netlink import socket as module
from sealane.linux.netlink.socket import DUMP_ATTEMPTS, LostEventsError, NetlinkError, Socket

HEADER = struct.Struct("=IHHII")
DONE = struct.pack("=i", 0)


class Feed:
    """Stands for the kernel: a script of datagrams and errors for each send, in order."""

    def __init__(self, *scripts):
        self.scripts = [list(script) for script in scripts]
        self.waiting = []
        self.sent = []
        self.queue_bytes = self.queue_bytes_max = 2 * module.ANSWER_TRUESIZE

    def getsockopt(self, level, option):
        return self.queue_bytes

    def setsockopt(self, level, option, size):
        self.queue_bytes = min(size, self.queue_bytes_max)

    def send(self, data):
        self.sent.append(bytes(data))
        if self.scripts:
            self.waiting += self.scripts.pop(0)
        return len(data)

    def recv(self, size, flags=0):
        if not self.waiting:
            raise BlockingIOError
        item = self.waiting.pop(0)
        if isinstance(item, OSError):
            raise item
        assert len(item) <= size
        return item

    def requests(self):
        """(sequence, flags) of each message sent, a list for each datagram."""
        return [
            [(sequence, flags) for _, flags, sequence, _ in codec.messages(memoryview(data))]
            for data in self.sent
        ]


def a_socket(*scripts, window=1000):
    it = object.__new__(Socket)
    it._socket = Feed(*scripts)
    it._window = window
    it._sequence = 0
    it._flight = it._background = None
    return it


def request(size=8, kind=16):
    return codec.message(kind, codec.NLM_F_REQUEST | codec.NLM_F_ACK, 0, bytes(size))


def failure(sequence, number, text="", *, offset=0, capped=True, request_size=24):
    original = HEADER.pack(request_size, 16, 5, sequence, 0)
    payload = struct.pack("=i", -number) + original
    if not capped:
        payload += bytes(request_size - 16)
    attrs = (codec.string(1, text) if text else b"") + (codec.u32(2, offset) if offset else b"")
    flags = (0x200 if attrs else 0) | (0x100 if capped else 0)
    return codec.message(codec.NLMSG_ERROR, flags, sequence, payload + attrs)


def part(sequence, payload=b"\1\2\3\4", flags=codec.NLM_F_MULTI, kind=16):
    return codec.message(kind, flags, sequence, payload)


def done(sequence, flags=codec.NLM_F_MULTI, payload=DONE):
    return codec.message(codec.NLMSG_DONE, flags, sequence, payload)


LOST = OSError(errno.ENOBUFS, "lost")
DUMP = codec.message(18, codec.NLM_F_REQUEST | codec.NLM_F_DUMP, 0, bytes(16))


def test_requests_go_in_one_datagram_and_only_the_last_is_acknowledged():
    it = a_socket([failure(3, 0)])
    assert it.request([request()] * 3) == [None, None, None]
    assert it._socket.requests() == [[(1, 1), (2, 1), (3, 5)]]


def test_sequences_go_on_from_call_to_call():
    it = a_socket([failure(1, 0)], [failure(2, 0)])
    it.request([request()])
    it.request([request()])
    assert it._socket.requests() == [[(1, 5)], [(2, 5)]]


def test_sequences_wrap_around():
    it = a_socket([failure(0xFFFFFFFF, errno.EPERM, "first"), failure(0, errno.EPERM, "second")])
    it._sequence = 0xFFFFFFFE
    assert [error.strerror for error in it.request([request(), request()])] == ["first", "second"]


def test_failures_are_given_to_their_requests():
    it = a_socket([failure(2, errno.EEXIST, "taken", offset=40), failure(3, 0)])
    first, second, third = it.request([request()] * 3)
    assert (first, third) == (None, None)
    assert (second.errno, second.strerror, second.offset) == (errno.EEXIST, "taken", 40)


def test_text_is_found_behind_a_request_that_is_repeated_whole():
    it = a_socket([failure(1, errno.EINVAL, "why", capped=False, request_size=40)])
    assert it.request([request()])[0].strerror == "why"


def test_answers_to_somebody_else_are_passed_over():
    it = a_socket([failure(77, errno.EPERM, "not yours"), failure(1, 0)])
    assert it.request([request()]) == [None]


def test_answers_that_were_lost_are_no_success():
    it = a_socket([failure(1, errno.EEXIST, "taken"), LOST, failure(3, 0)])
    results = it.request([request()] * 3)
    assert [error.errno for error in results] == [errno.EEXIST, errno.ENOBUFS, errno.ENOBUFS]


def test_nothing_is_waited_for_after_the_last_answer():
    it = a_socket([failure(1, errno.EEXIST, "taken") + failure(2, 0), failure(77, 0)])
    it.request([request()] * 2)
    assert len(it._socket.waiting) == 1


def test_what_answers_a_question_among_requests_is_no_result():
    it = a_socket([part(2, b"link"), failure(2, errno.ENODEV), failure(3, 0)])
    assert [error and error.errno for error in it.request([request()] * 3)] == [None, errno.ENODEV, None]


def test_a_transaction_has_no_last_answer_and_is_read_to_its_end():
    it = a_socket([failure(3, errno.ENOENT), failure(1, errno.EPERM)])
    results = it.batch([request()] * 3)
    assert [error and error.errno for error in results] == [errno.EPERM, None, errno.ENOENT]
    assert it._socket.waiting == []


def test_no_requests_are_no_datagram():
    it = a_socket()
    assert it.request([]) == []
    assert it._socket.sent == []


def test_more_than_a_window_is_sent_in_several_datagrams():
    it = a_socket([failure(2, 0)], [failure(4, 0)], [failure(5, 0)], window=2)
    assert it.request([request()] * 5) == [None] * 5
    assert [len(datagram) for datagram in it._socket.requests()] == [2, 2, 1]


def test_the_receive_queue_grows_when_more_answers_are_to_come():
    it = a_socket([failure(5, 0)], [failure(6, 0)], window=2)
    it._socket.queue_bytes_max = 8 << 20
    assert it.request([request()] * 5) == [None] * 5
    assert it.request([request()]) == [None]
    assert [len(datagram) for datagram in it._socket.requests()] == [5, 1]
    assert it._socket.queue_bytes == module.REQUEST_QUEUE_BYTES


def test_the_receive_queue_grows_for_a_transactions_answers():
    it = a_socket([failure(2, errno.ENOENT), failure(5, errno.EEXIST)], window=2)
    it._socket.queue_bytes_max = 8 << 20
    errors = it.batch([request()] * 5)
    assert [error and error.errno for error in errors] == [None, errno.ENOENT, None, None, errno.EEXIST]
    assert it._socket.queue_bytes == module.REQUEST_QUEUE_BYTES


def test_no_datagram_is_longer_than_what_the_send_buffer_takes(monkeypatch):
    monkeypatch.setattr(module, "SEND_BYTES", 100)
    it = a_socket()
    it.request([request(24)] * 5 + [request(400)])
    assert [len(data) for data in it._socket.sent] == [80, 80, 40, 416]


def test_messages_are_padded_to_four_bytes():
    it = a_socket()
    it.request([request(5), request(8)])
    assert it._socket.requests() == [[(1, 1), (2, 5)]]


def test_a_dump_is_collected_from_many_datagrams():
    it = a_socket([part(1, b"aaaa") + part(1, b"bbbb"), part(1, b"cccc"), done(1)])
    assert [(kind, bytes(payload)) for kind, payload in it.dump(DUMP)] == [
        (16, b"aaaa"),
        (16, b"bbbb"),
        (16, b"cccc"),
    ]


INTERRUPTED = codec.NLM_F_MULTI | codec.NLM_F_DUMP_INTR


@pytest.mark.parametrize(
    "script",
    [
        [part(1, flags=INTERRUPTED), done(1)],
        [part(1), done(1, INTERRUPTED)],
        [part(1, flags=INTERRUPTED), part(1), done(1)],
        [part(1), done(1, payload=struct.pack("=i", -errno.EINTR))],
        [part(1), LOST, part(1), done(1)],
    ],
)
def test_an_interrupted_dump_is_begun_anew_and_nothing_of_it_is_kept(script):
    it = a_socket(script, [part(2, b"good"), done(2)])
    assert [bytes(payload) for _, payload in it.dump(DUMP)] == [b"good"]
    assert len(it._socket.sent) == 2


def test_dumps_that_are_always_interrupted_end_in_an_error():
    it = a_socket(*[[part(n, flags=INTERRUPTED), done(n)] for n in range(1, DUMP_ATTEMPTS + 5)])
    with pytest.raises(NetlinkError, match="changed during each of 10 dumps") as error:
        it.dump(DUMP)
    assert error.value.errno == errno.EINTR
    assert len(it._socket.sent) == DUMP_ATTEMPTS


def test_the_rest_of_an_old_dump_is_passed_over():
    it = a_socket([part(9, b"old."), done(9), part(1, b"new."), done(1)])
    assert [bytes(payload) for _, payload in it.dump(DUMP)] == [b"new."]


def test_a_failed_dump_raises_what_the_kernel_says():
    bad = struct.pack("=i", -errno.EINVAL) + codec.string(1, "no such filter")
    it = a_socket([done(1, codec.NLM_F_MULTI | 0x200, bad)])
    with pytest.raises(NetlinkError, match="no such filter"):
        it.dump(DUMP)
    it = a_socket([failure(1, errno.ENODEV)])
    with pytest.raises(NetlinkError) as error:
        it.dump(DUMP)
    assert error.value.errno == errno.ENODEV


def test_a_single_get_ends_with_its_acknowledgement():
    it = a_socket([part(1, b"here", flags=0), failure(1, 0)])
    assert [bytes(payload) for _, payload in it.dump(request())] == [b"here"]


def test_a_dump_beyond_its_bound_is_refused_and_drained(monkeypatch):
    monkeypatch.setattr(module, "DUMP_BYTES_MAX", 100_000)
    it = a_socket([part(1, bytes(60_000)), part(1, bytes(60_000)), part(1, bytes(8)), done(1)])
    with pytest.raises(NetlinkError) as error:
        it.dump(DUMP)
    assert error.value.errno == errno.EMSGSIZE
    assert it._socket.waiting == []


@pytest.mark.parametrize(
    "call", [lambda it: it.dump(DUMP), lambda it: it.request([request()]), lambda it: list(it.receive())]
)
def test_other_errors_of_the_socket_are_raised_as_they_are(call):
    it = a_socket()
    it._socket.waiting = [OSError(errno.EIO, "broken")]
    with pytest.raises(OSError, match="broken"):
        call(it)


def test_events_carry_who_caused_them():
    it = a_socket()
    it._socket.waiting = [HEADER.pack(20, 16, 0x100, 0, 4711) + b"abcd" + HEADER.pack(16, 17, 0, 0, 0)]
    first, second = it.receive()
    assert (first.kind, first.flags, first.port, bytes(first.payload)) == (16, 0x100, 4711, b"abcd")
    assert (second.kind, second.port, bytes(second.payload)) == (17, 0, b"")


def test_lost_events_are_told_apart_and_reading_goes_on_after_them():
    it = a_socket()
    it._socket.waiting = [LOST, part(0)]
    with pytest.raises(LostEventsError):
        list(it.receive())
    assert [event.kind for event in it.receive()] == [16]


def test_one_call_takes_a_bounded_number_of_datagrams(monkeypatch):
    monkeypatch.setattr(module, "EVENTS_PER_RECEIVE", 3)
    it = a_socket()
    it._socket.waiting = [part(0)] * 5
    assert len(list(it.receive())) == 3
    assert len(list(it.receive())) == 2


def test_torn_datagrams_are_read_up_to_the_tear():
    it = a_socket()
    it._socket.waiting = [part(0) + part(0)[:10], b"\1\2", HEADER.pack(5, 1, 0, 0, 0)]
    assert len(list(it.receive())) == 1


def test_a_transaction_is_one_datagram_with_all_its_flags():
    messages = [codec.message(0x10, 1, 0, bytes(4)), request(), codec.message(0x11, 1, 0, bytes(4))]
    it = a_socket([])
    assert it.batch(messages) == [None, None, None]
    assert it._socket.requests() == [[(1, 1), (2, 5), (3, 1)]]


def test_a_refused_transaction_names_the_message_at_fault():
    it = a_socket([failure(2, errno.ENOENT, "no such chain")])
    assert [error and error.strerror for error in it.batch([request()] * 3)] == [None, "no such chain", None]


def test_lost_answers_to_a_transaction_are_a_failure_of_it():
    it = a_socket([LOST])
    assert [error and error.errno for error in it.batch([request()] * 2)] == [errno.ENOBUFS, None]
    it = a_socket([failure(2, errno.EINVAL), LOST])
    assert [error and error.errno for error in it.batch([request()] * 2)] == [None, errno.EINVAL]


def test_a_transaction_beyond_its_bound_is_refused_unsent(monkeypatch):
    monkeypatch.setattr(module, "BATCH_BYTES_MAX", 100)
    it = a_socket()
    with pytest.raises(NetlinkError) as error:
        it.batch([request(200)])
    assert error.value.errno == errno.EMSGSIZE
    assert it._socket.sent == []
