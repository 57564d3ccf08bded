"""Hosts to measure on, and the floor's replay, on the real kernel."""

import os
import socket

import pytest
from bench.engine import IN_A_ROW, EngineHost
from bench.host import Host, HostError, in_sandbox, make_sandboxes, run, socket_in

pytestmark = pytest.mark.kernel


class Place:
    """Something to call on a host."""

    def __init__(self, count: int = 0) -> None:
        self.paths = make_sandboxes(count)

    def links(self) -> list[str]:
        return sorted(name for _, name in socket.if_nameindex())

    def inodes(self) -> tuple[int, list[int]]:
        return os.stat("/proc/self/ns/net").st_ino, [os.stat(path).st_ino for path in self.paths]

    def run_entries(self) -> list[str]:
        return os.listdir("/run")

    def divide(self, by: int) -> float:
        return 1 / by

    def reach(self) -> bytes:
        """From one sandbox to another, over a veth that is made for it."""
        first, second = self.paths
        text = "link add left type veth peer name right netns /run/netns/s1\naddr add 10.9.0.1/24 dev left\nlink set left up\n"
        in_sandbox(first, "ip", "-batch", "-", text=text)
        in_sandbox(second, "ip", "-batch", "-", text="addr add 10.9.0.2/24 dev right\nlink set right up\n")
        with socket_in(second, socket.SOCK_DGRAM) as server, socket_in(first, socket.SOCK_DGRAM) as client:
            server.bind(("", 99))
            server.settimeout(100)
            client.sendto(b"hello", ("10.9.0.2", 99))
            return server.recv(10)


def test_a_host_has_a_network_and_a_run_directory_of_its_own() -> None:
    with Host(Place) as host:
        assert host("links") == ["lo"]
        assert host("inodes")[0] != os.stat("/proc/self/ns/net").st_ino
        assert host("run_entries") == ["netns"]


def test_sandboxes_are_namespaces_of_their_own_and_the_host_stays_where_it_is() -> None:
    with Host(Place, 3) as host:
        own, inodes = host("inodes")
        assert len({own, *inodes}) == 4


def test_a_socket_in_a_sandbox_reaches_what_the_sandbox_reaches() -> None:
    with Host(Place, 2) as host:
        assert host("reach") == b"hello"


def test_what_a_call_raises_is_told_and_the_host_goes_on() -> None:
    with Host(Place) as host:
        with pytest.raises(HostError, match=r"divide: (?s:.)*ZeroDivisionError"):
            host("divide", 0)
        assert host("divide", 2) == 0.5


def test_a_host_that_cannot_be_made_is_an_error() -> None:
    with pytest.raises(HostError, match="TypeError"):
        Host(Place, "many")


def test_a_command_that_fails_says_what_it_said() -> None:
    with pytest.raises(HostError, match="no/such/file"):
        run("cat", "no/such/file")


@pytest.mark.parametrize("driver", ["bridge", "routed"])
def test_a_replay_makes_what_the_engine_made(driver: str) -> None:
    with Host(EngineHost, driver, 2) as host:
        assert host("is_same_state")
        measured = host("round")
        assert len(measured["ours"]) == len(measured["floor"]) == len(measured["entering"]) == IN_A_ROW
        assert min(measured["floor"]) > 0
        assert measured["objects"] >= measured["calls"] > [5]
        # The round left nothing behind that would be in the way of the next.
        assert host("is_same_state")


@pytest.mark.parametrize("what", ["nft", "inside", "map", "sysctl"])
def test_a_replay_that_leaves_something_out_is_seen(what: str) -> None:
    with Host(EngineHost, "routed", 2) as host:
        assert host("is_same_state")
        assert not host("is_same_state", what)
