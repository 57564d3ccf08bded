"""Which connections publishing on 127.0.0.1 and ::1 redirects, and which it leaves alone, on the real kernel."""

from __future__ import annotations

import contextlib
import errno
import socket
import sys
import textwrap
from pathlib import Path

import pytest

from kernel import loopback_harness as harness
from kernel.loopback_harness import (
    ASK,
    BACKEND,
    BACKEND4,
    FAMILY,
    HOST,
    HOST4,
    LOCAL,
    ask_tcp,
    both_families,
    entry,
    every_way,
    inside,
    open_socket,
    refused,
    run,
)
from sealane.linux.bpf import loopback, mounts

pytestmark = pytest.mark.kernel
# Assigned and not imported by name: the tests' parameters of these names are fixtures and no redefinitions.
private_namespaces, processes, container = harness.private_namespaces, harness.processes, harness.container
cgroup, publisher = harness.cgroup, harness.publisher

# --- reaching the container ------------------------------------------------------------------------------------------


@both_families
@every_way
def test_a_published_port_reaches_the_container(publisher, container, family, way):
    """The server sees the host's real address; the client sees the address that it asked for."""
    container.serve(80)
    publisher.apply([entry(family, way.split()[0])])
    (client, _port, server_port), peer = ASK[way](family, LOCAL[family], 8080)
    assert client == HOST[family]
    assert server_port == "80"
    assert peer == (LOCAL[family], 8080)


def test_the_whole_of_127_is_loopback(publisher, container):
    container.serve(80)
    publisher.apply([entry()])
    assert ask_tcp(4, "127.9.8.7", 8080)[1] == ("127.9.8.7", 8080)


@pytest.mark.parametrize(("family", "unspecified"), [(4, "0.0.0.0"), (6, "::")])
@every_way
def test_the_unspecified_address_means_loopback(publisher, container, family, unspecified, way):
    """Development servers print http://0.0.0.0:8080, and the kernel itself takes that for 127.0.0.1."""
    container.serve(80)
    publisher.apply([entry(family, way.split()[0])])
    answer, peer = ASK[way](family, unspecified, 8080)
    assert answer[0] == HOST[family]
    assert peer == (LOCAL[family], 8080)


@every_way
def test_an_ipv6_socket_reaches_an_ipv4_publish_by_the_mapped_address(publisher, container, way):
    container.serve(80)
    publisher.apply([entry(4, way.split()[0])])
    answer, peer = ASK[way](6, "::ffff:127.0.0.1", 8080)
    assert answer[0] == HOST4
    assert peer == ("::ffff:127.0.0.1", 8080)


def test_an_ipv6_datagram_socket_may_connect_to_an_ipv4_address(publisher, container):
    """The kernel runs connect4 for it; glibc's resolver works that way."""
    container.serve(80)
    publisher.apply([entry(4, "udp")])
    connect = """
        import ctypes, socket, struct
        sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        sock.settimeout(100)
        address = struct.pack("=H", socket.AF_INET) + struct.pack(">H", 8080) + bytes([127, 0, 0, 1]) + bytes(8)
        assert ctypes.CDLL(None).connect(sock.fileno(), address, len(address)) == 0
        sock.send(b"?")
        print(*sock.recvfrom(200)[1][:2])
    """
    assert run(sys.executable, "-c", textwrap.dedent(connect)).split() == ["::ffff:127.0.0.1", "8080"]


@pytest.mark.parametrize("way", ["tcp", "udp connected"])
def test_ipv6_loopback_reaches_an_ipv4_backend(publisher, container, way):
    container.serve(80)
    publisher.apply([entry(6, way.split()[0], backend=BACKEND4)])
    answer, peer = ASK[way](6, "::1", 8080)
    assert answer[0] == HOST4
    assert peer == ("::1", 8080)


def test_what_the_kernel_refuses_between_families_fails_in_a_known_way(publisher, container):
    """A single datagram is left alone (refused on ::1), a V6ONLY socket told ENETUNREACH; `shortfall` announces it."""
    container.serve(80)
    entries = [entry(6, "tcp", backend=BACKEND4), entry(6, "udp", backend=BACKEND4)]
    publisher.apply(entries)
    assert refused("udp", 6, "::1", 8080)
    with open_socket(6, socket.SOCK_STREAM) as sock:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        with pytest.raises(OSError) as error:
            sock.connect(("::1", 8080))
    assert error.value.errno == errno.ENETUNREACH
    assert all("IPV6_V6ONLY" in str(loopback.shortfall(one)) for one in entries)


def test_one_socket_talks_to_two_publishes(publisher, container):
    """Each answer comes from the port that was asked, also if both lead to one backend in turn."""
    container.serve(53, 80)
    publisher.apply(
        [entry(4, "udp", 5353, to=53), entry(4, "udp", 8080, to=80), entry(4, "udp", 8081, to=80)]
    )
    with open_socket(4, socket.SOCK_DGRAM) as sock:
        for port, backend in ((5353, "53"), (8080, "80"), (8081, "80"), (5353, "53"), (8080, "80")):
            sock.sendto(b"?", ("127.0.0.1", port))
            data, peer = sock.recvfrom(200)
            assert peer == ("127.0.0.1", port)
            assert data.decode().split()[2] == backend


def test_multipath_tcp_is_published_with_tcp(publisher, container):
    container.serve(80)
    publisher.apply([entry()])
    try:
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)
    except OSError as error:
        pytest.skip(f"this kernel has no MPTCP: {error}")
    with sock:
        sock.settimeout(100)
        sock.connect(("127.0.0.1", 8080))
        assert sock.recv(200).decode().split()[0] == HOST4


# --- leaving alone ---------------------------------------------------------------------------------------------------


@both_families
@every_way
def test_other_ports_protocols_and_families_are_left_alone(publisher, container, family, way):
    container.serve(80, 8080, 8081)
    other_family = 10 - family
    other_proto = {"tcp": "udp", "udp": "tcp"}[way.split()[0]]
    publisher.apply([entry(family, other_proto), entry(other_family, way.split()[0])])
    assert refused(way, family, LOCAL[family], 8080)
    assert refused(way, family, LOCAL[family], 8081)


@both_families
@every_way
def test_other_addresses_are_left_alone(publisher, container, family, way):
    """The host's own address is not loopback, and the container keeps its own port of the same number."""
    container.serve(80, 8080)
    publisher.apply([entry(family, way.split()[0])])
    assert refused(way, family, HOST[family], 8080)
    answer, peer = ASK[way](family, BACKEND[family], 8080)
    assert answer[2] == "8080"
    assert peer == (BACKEND[family], 8080)


@both_families
def test_a_containers_own_loopback_is_left_alone(publisher, container, family):
    """A process in the same cgroup and another network namespace reaches itself, for all protocols."""
    container.serve(8080, at=("127.0.0.1", "::1"))
    publisher.apply([entry(family, "tcp"), entry(family, "udp")])
    seen = container.run(f"""
        import socket
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            sock = socket.socket({int(FAMILY[family])}, kind)
            sock.settimeout(100)
            sock.connect(("{LOCAL[family]}", 8080))
            if kind == socket.SOCK_DGRAM:
                sock.send(b"?")
            print(sock.recv(200).decode().split()[0])
    """)
    assert seen.split() == [LOCAL[family]] * 2


def test_processes_outside_the_cgroup_are_left_alone(publisher, container):
    container.serve(80)
    publisher.apply([entry()])
    root = mounts.find_cgroup2()
    assert root is not None
    with inside(Path(root)):
        assert refused("tcp", 4, "127.0.0.1", 8080)
    assert not refused("tcp", 4, "127.0.0.1", 8080)


@contextlib.contextmanager
def host_listener(family: int, way: str, host: str, port: int):
    with open_socket(family, socket.SOCK_STREAM if way == "tcp" else socket.SOCK_DGRAM) as sock:
        if way == "tcp":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        if way == "tcp":
            sock.listen()
        yield sock


def reaches(listener: socket.socket, way: str, family: int, host: str, port: int) -> bool:
    """Whether a client of this address comes to `listener`."""
    with open_socket(family, listener.type) as client:
        if way == "udp":
            client.sendto(b"mine", (host, port))
        else:
            client.connect((host, port))
            client.send(b"mine")
        taker = listener.accept()[0] if way == "tcp" else contextlib.nullcontext(listener)
        with taker as sock:
            return sock.recv(100) == b"mine"


@pytest.mark.parametrize(("family", "host"), [(4, "127.0.0.1"), (4, "127.0.0.53"), (6, "::1")])
@every_way
def test_a_listener_of_the_host_on_that_very_address_keeps_its_clients(
    publisher, container, family, host, way
):
    """A name server in a container does not take over systemd-resolved's 127.0.0.53, nor its queries to it."""
    container.serve(53)
    publisher.apply([entry(family, way.split()[0], 53, to=53)])
    with host_listener(family, way, host, 53) as listener:
        assert reaches(listener, way, family, host, 53)
        if host == "127.0.0.53":
            assert ASK[way](4, "127.0.0.1", 53)[0][0] == HOST4
    assert ASK[way](family, host, 53)[0][0] == HOST[family]


@pytest.mark.parametrize(("family", "host"), [(4, "127.0.0.1"), (4, "127.9.8.200"), (6, "::1")])
@every_way
def test_a_listener_that_only_reserves_the_port_keeps_no_clients(publisher, container, family, host, way):
    """Podman's monitor listens on the very address at which the container publishes. On others who listens counts."""
    container.serve(80, 81)
    reserved = entry(family, way.split()[0], last=8082, reserved=host)
    publisher.apply([reserved])
    assert publisher.entries() == {reserved}
    with host_listener(family, way, host, 8081):
        assert ASK[way](family, host, 8081)[0][0] == HOST[family]
    if family == 4:
        with host_listener(4, way, "127.0.0.53", 8082) as listener:
            assert reaches(listener, way, 4, "127.0.0.53", 8082)


@every_way
def test_a_mapped_destination_finds_the_reserved_port_too(publisher, container, way):
    container.serve(80)
    publisher.apply([entry(4, way.split()[0], reserved="127.0.0.1")])
    with host_listener(4, way, "127.0.0.1", 8080):
        assert ASK[way](6, "::ffff:127.0.0.1", 8080)[0][0] == HOST4


@every_way
def test_a_mapped_destination_also_yields_to_the_hosts_listener(publisher, container, way):
    container.serve(53)
    publisher.apply([entry(4, way.split()[0], 53, to=53)])
    with host_listener(4, way, "127.0.0.1", 53) as listener:
        assert reaches(listener, way, 6, "::ffff:127.0.0.1", 53)


@both_families
@every_way
def test_a_listener_of_the_host_on_the_wildcard_address_does_not_count(publisher, container, family, way):
    container.serve(80)
    publisher.apply([entry(family, way.split()[0])])
    with host_listener(family, way, "::" if family == 6 else "0.0.0.0", 8080):
        assert ASK[way](family, LOCAL[family], 8080)[0][0] == HOST[family]


@both_families
@every_way
def test_a_socket_bound_to_loopback_is_left_alone(publisher, container, family, way):
    """It would get EINVAL; so it finds what it finds without sealane."""
    container.serve(80)
    publisher.apply([entry(family, way.split()[0])])
    assert refused(way, family, LOCAL[family], 8080, source=LOCAL[family])


@both_families
@every_way
def test_a_socket_bound_to_the_hosts_address_is_redirected(publisher, container, family, way):
    container.serve(80)
    publisher.apply([entry(family, way.split()[0])])
    answer, _peer = ASK[way](family, LOCAL[family], 8080, source=HOST[family])
    assert answer[0] == HOST[family]
