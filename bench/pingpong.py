"""Round trips over one TCP connection, in two ways: both ends spinning, so that no scheduler's wake-up is measured and
the path stands out as it never does in life; and both ends waiting, as programs do.

`python -m bench.pingpong serve PORT MODE` answers until the other hangs up; `… ask ADDRESS PORT MODE SECONDS` prints the
5th percentile and the median of a round trip in seconds, as JSON. MODE: spin, wait.
"""

import json
import socket
import sys
import time

from bench.report import quantile

MESSAGE = b"x" * 64
PATIENCE_S = 10.0
RECEIVE_BYTES = 256
WARM_UP = 10
"""One part in so many of the round trips is not counted: the first ones."""


def serve(port: int, mode: str) -> None:
    with socket.create_server(("", port)) as listener:
        listener.settimeout(PATIENCE_S)
        connection, _ = listener.accept()
    with connection:
        _prepare(connection, mode)
        receive, send = connection.recv, connection.send
        last = time.monotonic()
        while True:
            try:
                data = receive(RECEIVE_BYTES)
            except BlockingIOError:
                if time.monotonic() - last > PATIENCE_S:
                    return
                continue
            if not data:
                return
            send(data)
            last = time.monotonic()


def ask(address: str, port: int, mode: str, seconds: float) -> dict[str, float]:
    connection = _connected(address, port)
    _prepare(connection, mode)
    receive, send, clock = connection.recv, connection.send, time.perf_counter
    samples: list[float] = []
    end = clock() + seconds
    started = 0.0
    while started < end:
        started = clock()
        send(MESSAGE)
        while True:
            try:
                receive(RECEIVE_BYTES)
                break
            except BlockingIOError:
                if clock() - started > PATIENCE_S:
                    raise
        samples.append(clock() - started)
    connection.close()
    counted = samples[len(samples) // WARM_UP :]
    return {"p5": quantile(counted, 0.05), "median": quantile(counted, 0.5), "count": float(len(counted))}


def _prepare(connection: socket.socket, mode: str) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # Without a timeout the socket itself blocks; with one every receive would be a poll and a receive.
    connection.settimeout(0 if mode == "spin" else None)


def _connected(address: str, port: int) -> socket.socket:
    """The server may be starting still."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return socket.create_connection((address, port), timeout=PATIENCE_S)
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.005)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(int(sys.argv[2]), sys.argv[3])
    else:
        print(json.dumps(ask(sys.argv[2], int(sys.argv[3]), sys.argv[4], float(sys.argv[5]))))
