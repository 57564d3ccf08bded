"""Round trips over a real connection."""

import socket
import threading

import pytest
from bench import pingpong


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("mode", ["spin", "wait"])
def test_round_trips_are_counted_and_the_server_ends_with_its_client(mode: str) -> None:
    port = free_port()
    server = threading.Thread(target=pingpong.serve, args=(port, mode))
    server.start()
    found = pingpong.ask("127.0.0.1", port, mode, 0.05)
    server.join(100)
    assert not server.is_alive()
    assert found["count"] >= 1
    assert 0 < found["p5"] <= found["median"] < 1


def test_a_server_that_never_comes_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pingpong, "PATIENCE_S", 0.05)
    with pytest.raises(ConnectionRefusedError):
        pingpong.ask("127.0.0.1", free_port(), "spin", 0.01)
