"""The floor's tape: what counts as an object, what as a question, and what a refusal is."""

import errno
import os
import socket
import struct

import pytest
from bench.floor import Call, Tape, _check, _exchange, _is_question, _Tap, object_count
from bench.host import HostError

RTM_NEWLINK, RTM_GETLINK, RTM_NEWADDR = 16, 18, 20
NFT_NEWSETELEM, NFT_GETRULE = 0xA0C, 0xA07
BATCH_BEGIN, BATCH_END = 0x10, 0x11


def message(kind: int, payload: bytes = b"") -> bytes:
    return struct.pack("=IHHII", 16 + len(payload), kind, 5, 1, 0) + payload + bytes(-len(payload) & 3)


def answer(number: int) -> bytes:
    return message(2, struct.pack("=i", -number) + message(RTM_NEWLINK))


def tape(*calls: Call) -> Tape:
    result = Tape(None)
    result.calls = list(calls)
    return result


@pytest.mark.parametrize(
    ("call", "asks"),
    [
        (Call("route", message(RTM_NEWLINK)), False),
        (Call("route", message(RTM_GETLINK)), True),
        (Call("inside", message(RTM_GETLINK)), True),
        (Call("inside", message(RTM_NEWADDR)), False),
        (Call("nft", message(BATCH_BEGIN) + message(NFT_NEWSETELEM) + message(BATCH_END)), False),
        (Call("nft", message(NFT_GETRULE)), True),
        (Call("map", b"key", b"value"), False),
        (Call("sysctl", b"net/ipv4/ip_forward", b"1"), False),
    ],
)
def test_only_what_makes_something_is_sent_again(call: Call, asks: bool) -> None:
    assert _is_question(call) is asks


def test_every_message_is_an_object_and_a_transactions_frame_is_none() -> None:
    calls = [
        Call("nft", message(BATCH_BEGIN) + message(NFT_NEWSETELEM) * 3 + message(BATCH_END)),
        # RTM_NEWLINK has the number of NFNL_MSG_BATCH_BEGIN.
        Call("route", message(RTM_NEWLINK) + message(RTM_NEWADDR, b"12345")),
        Call("map", b"key", b"value"),
        Call("sysctl", b"net/ipv4/ip_forward", b"1"),
    ]
    assert object_count(tape(*calls)) == 3 + 2 + 1 + 1


def test_a_refusal_of_a_replayed_message_is_an_error() -> None:
    with pytest.raises(HostError, match=os.strerror(errno.EEXIST)):
        _check(message(2, struct.pack("=i", 0) + message(RTM_NEWLINK)) + answer(errno.EEXIST))


def test_acknowledgements_are_no_error() -> None:
    _check(answer(0) + answer(0))
    _check(b"")


def test_a_tapped_socket_sends_what_it_keeps() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    calls: list[Call] = []
    with ours, theirs:
        tapped = _Tap(ours, "nft", calls)
        assert tapped.send(bytearray(b"abc")) == 3
        assert theirs.recv(10) == b"abc"
        theirs.send(b"def")
        assert tapped.recv(10) == b"def"
    assert calls == [Call("nft", b"abc")]


def test_an_exchange_takes_silence_for_an_answer() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    answers: list[bytes] = []
    with ours, theirs:
        _exchange(ours.send, ours.recv, b"one", answers)
        theirs.send(b"yes")
        _exchange(ours.send, ours.recv, b"two", answers)
        assert [theirs.recv(10), theirs.recv(10)] == [b"one", b"two"]
    assert answers == [b"yes"]
