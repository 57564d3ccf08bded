"""Sockets as sock_diag tells of them: recorded answers, shorter ones of older kernels, and lengths that lie."""

import contextlib
import os
import socket
import struct

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealane.linux.netlink import codec, sock_diag, tcp_info
from sealane.linux.netlink.socket import NetlinkError

RECORDED = bytes.fromhex(
    "010402000207aa0180730c00409c000000c40000180200000300000000000000030000000100000000000000fc000000"
    "000000008403000084030000ffff0000d7ff00001a0000000e000000ffffff7f01000000cbff00000300000000000000"
    "d7ff000002000000c4f3268307000000ffffffffffffffffb90b00000000000002000000000000000900000003000000"
    "000000000500000001000000060000000000255602000000a0bb0d000000000000000000000000000000000000000000"
    "0200000000000000b88b0200000000000000010000000000000000000000000000000000008801000000010002000000"
    "02000100ab0200000000000000000000000000000000000000000000000000000000000000000000"
)
"""TCP_INFO of a connection on loopback with 3 segments of 32,768 bytes in flight, on Linux 6.18."""

FIELDS = 104
"""Bytes of what every kernel has."""


def answer(family=socket.AF_INET, state=1, *attributes, local=b"\x0a\x01\0\2", remote=b"\x0a\x01\0\3"):
    head = struct.pack(">BBBBHH16s16s", family, state, 0, 0, 40000, 5432, local, remote) + bytes(12)
    return memoryview(head + struct.pack("=IIIII", 9, 11, 22, 1000, 4711) + b"".join(attributes))


def view(proto, payload):
    raw = sock_diag.parse(payload)
    return sock_diag._view(proto, raw) if raw is not None else None


INFO = codec.attr(sock_diag._DIAG_INFO, RECORDED)


def test_a_recorded_tcp_info_is_read():
    found = tcp_info.parse(memoryview(RECORDED))
    assert msgspec.structs.asdict(found) == {
        "rtt_ms": 0.026,
        "rttvar_ms": 0.014,
        "retransmits": 2,
        "cwnd": 1,
        "mss": 50176,
        "unacked": 3,
        "send_window": 100352,
    }


def test_what_a_newer_kernel_appends_is_left_alone():
    assert tcp_info.parse(memoryview(RECORDED + b"\xff" * 64)) == tcp_info.parse(memoryview(RECORDED))


@pytest.mark.parametrize("length", [FIELDS, 192, 228, 231])
def test_an_older_kernel_does_not_tell_the_peers_window(length):
    whole = tcp_info.parse(memoryview(RECORDED))
    assert tcp_info.parse(memoryview(RECORDED)[:length]) == msgspec.structs.replace(whole, send_window=None)


@pytest.mark.parametrize("length", [0, 1, FIELDS - 1])
def test_what_is_too_short_says_nothing(length):
    assert tcp_info.parse(memoryview(RECORDED)[:length]) is None


def test_a_connection_is_read():
    found = view("tcp", answer(socket.AF_INET, 1, INFO))
    assert (found.address, found.port, found.remote_address, found.remote_port) == (
        "10.1.0.2",
        40000,
        "10.1.0.3",
        5432,
    )
    assert (found.receive_queue, found.send_queue, found.uid, found.inode) == (11, 22, 1000, 4711)
    assert (found.state, found.tcp) == ("established", tcp_info.parse(memoryview(RECORDED)))


def test_ipv6_addresses_have_sixteen_bytes():
    local = socket.inet_pton(socket.AF_INET6, "fd00::1")
    found = view("tcp", answer(socket.AF_INET6, 1, local=local, remote=bytes(16)))
    assert (found.address, found.remote_address) == ("fd00::1", "::")


MAPPED = socket.inet_pton(socket.AF_INET6, "::ffff:10.1.0.2")


@pytest.mark.parametrize(("remote", "told"), [("::ffff:10.1.0.3", "10.1.0.3"), ("::", "0.0.0.0")])
def test_an_ipv4_address_of_an_ipv6_socket_is_one_of_ipv4(remote, told):
    """It holds the IPv4 port, and nobody's of IPv6."""
    payload = answer(socket.AF_INET6, 10, local=MAPPED, remote=socket.inet_pton(socket.AF_INET6, remote))
    found = view("tcp", payload)
    assert (found.address, found.remote_address) == ("10.1.0.2", told)
    assert sock_diag._listener("tcp", sock_diag.parse(payload)).families == (4,)


@pytest.mark.parametrize("address", ["::", "::1", "::2:ffff:0:0", "64:ff9b::a01:2"])
def test_other_addresses_of_ipv6_stay_what_they_are(address):
    payload = answer(socket.AF_INET6, 10, local=socket.inet_pton(socket.AF_INET6, address), remote=bytes(16))
    assert view("tcp", payload).address == address


@pytest.mark.parametrize(
    ("proto", "state", "name"),
    [
        ("tcp", 10, "listen"),
        ("tcp", 6, "time-wait"),
        ("tcp", 7, "closed"),
        ("udp", 7, "unconnected"),
        ("udp", 1, "established"),
        ("tcp", 99, "state-99"),
    ],
)
def test_states_have_their_names(proto, state, name):
    assert view(proto, answer(socket.AF_INET, state)).state == name


@pytest.mark.parametrize(("proto", "state"), [("tcp", 10), ("udp", 1)])
def test_only_connections_have_a_path(proto, state):
    """A listening socket's `unacked` is its backlog: shown as segments in flight it would mislead."""
    assert view(proto, answer(socket.AF_INET, state, INFO)).tcp is None


@pytest.mark.parametrize("length", [0, 1, 40, 71])
def test_a_torn_answer_is_no_socket(length):
    assert view("tcp", answer()[:length]) is None


@pytest.mark.parametrize("family", [socket.AF_UNIX, 255])
def test_another_family_is_no_socket(family):
    assert view("tcp", answer(family)) is None


@pytest.mark.parametrize("length", [0, 3, 5, 0xFFFF])
def test_an_attributes_length_that_lies_ends_the_reading(length):
    lying = struct.pack("=HH", length, sock_diag._DIAG_INFO) + RECORDED[:8]
    assert view("tcp", answer(socket.AF_INET, 1, lying)).tcp is None


@given(st.binary(max_size=400))
def test_no_answer_makes_it_raise(data):
    view("tcp", memoryview(data))
    view("tcp", memoryview(bytes(answer()) + data))
    tcp_info.parse(memoryview(data))


class Diag:
    """Answers each dump with `answers` sockets, or refuses it."""

    def __init__(self, answers=0, refusal=0):
        self.answers, self.refusal = answers, refusal
        self.requests = []

    def dump(self, request):
        self.requests.append(request[16:])
        if self.refusal:
            raise NetlinkError(self.refusal)
        return [(20, answer())] * self.answers


def test_every_family_of_both_protocols_is_asked_for():
    diag = Diag(answers=1)
    assert len(sock_diag.sockets(diag)) == 4
    asked = [struct.unpack_from("=BBBBI", request) for request in diag.requests]
    usual, bound = 1 << 1 | 1 << 10, 1 << 1 | 1 << 7
    assert asked == [(2, 6, 2, 0, usual), (10, 6, 2, 0, usual), (2, 17, 2, 0, bound), (10, 17, 2, 0, bound)]


def test_every_state_is_asked_for_if_wanted():
    diag = Diag()
    sock_diag.sockets(diag, every_state=True)
    assert {struct.unpack_from("=BBBBI", request)[4] for request in diag.requests} == {0x1FFE}


def test_more_sockets_than_the_bound_are_refused(monkeypatch):
    monkeypatch.setattr(sock_diag, "SOCKETS_MAX", 4)
    assert len(sock_diag.sockets(Diag(answers=1))) == 4
    monkeypatch.setattr(sock_diag, "SOCKETS_MAX", 3)
    with pytest.raises(NetlinkError, match="more than 3 sockets"):
        sock_diag.sockets(Diag(answers=1))


def test_a_kernel_without_the_module_is_no_namespace_without_sockets():
    with pytest.raises(NetlinkError, match="the kernel lacks tcp_diag"):
        sock_diag.sockets(Diag(refusal=2))


@pytest.mark.parametrize("refusal", [2, 22, 95])
def test_of_what_the_kernel_lacks_nobody_holds_a_port(monkeypatch, refusal):
    monkeypatch.setattr(sock_diag, "Socket", lambda _: contextlib.nullcontext(Diag(refusal=refusal)))
    assert sock_diag.bound("sctp", 1, 65535) == []


def test_any_other_refusal_is_told(monkeypatch):
    monkeypatch.setattr(sock_diag, "Socket", lambda _: contextlib.nullcontext(Diag(refusal=1)))
    with pytest.raises(NetlinkError):
        sock_diag.bound("tcp", 1, 65535)


def test_owners_are_found_for_many_sockets_in_one_search():
    with socket.socket() as one, socket.socket() as other:
        inodes = {os.fstat(s.fileno()).st_ino for s in (one, other)}
        found = sock_diag.holders({*inodes, 1})
    assert set(found) == inodes
    assert {process.pid for process in found.values()} == {os.getpid()}


def test_a_search_for_owners_is_bounded(monkeypatch):
    monkeypatch.setattr(sock_diag, "pids", lambda: iter([os.getpid()]))
    monkeypatch.setattr(sock_diag, "DESCRIPTORS_MAX", 0)
    with socket.socket() as one:
        assert sock_diag.holder(os.fstat(one.fileno()).st_ino) is None
