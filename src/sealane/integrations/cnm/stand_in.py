"""A process that holds the plugin's socket while our daemon is away, and answers dockerd in its place.

dockerd tries a plugin that it cannot connect to again after 1, 2, 4 and 8 seconds, in each call (moby
pkg/plugins/client.go, callWithRetry), and nothing that a dead daemon leaves behind changes that: dockerd has the
socket's path in its memory. Only an answer ends a call. So somebody has to listen who does not die with the daemon.

While the daemon lives (its end of a connection is open) this process waits. When that ends, connections stay in the
backlog for `GRACE_S`: a daemon that is restarted takes the same socket over, and answers them. After that each request
is answered at once, with the error that users should read. It is started by its path and imports nothing of ours.

    stand_in.py PATH LISTENING LIFE CONTROL     three descriptors: dockerd's socket, the daemon's, the next daemons'
"""

import array
import contextlib
import json
import os
import select
import socket
import sys
import time

GRACE_S = 5.0
"""From the end of a daemon to the beginning of the next: about one on an idle machine."""
LOOK_S = 2.0
"""Between looks whether the socket's file is still there, without a daemon: who deletes it wants no answers any more."""
CLIENTS_MAX = 64
CLIENT_S = 10.0
"""For one request, from its connection on."""
REQUEST_BYTES_MAX = 1 << 20

QUIT = b"q"
MESSAGE = "sealane is not running, and this needs it: start it (systemctl start sealane), and try again"
_BODY = json.dumps({"Err": MESSAGE}).encode()
ANSWER = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(_BODY), _BODY)
)
"""Not 200: then Plugin.Activate would be a plugin that can do nothing, and dockerd would keep it. Of any other status
dockerd shows `Err`, of a network driver and of an IPAM driver. Without `close` it would use the connection again just
when that ends, and send a request without its body."""


class Client:
    """One request, read to its end: dockerd takes a connection that is closed before for a broken one."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.deadline = time.monotonic() + CLIENT_S
        self._read = b""

    def is_done(self) -> bool:
        """Read what there is; whether the client was answered, or is gone."""
        try:
            data = self.sock.recv(65536)
            self._read += data
            if data and not self._is_whole():
                return len(self._read) > REQUEST_BYTES_MAX
            if data:
                self.sock.sendall(ANSWER)
        except BlockingIOError:
            return False
        except OSError:
            pass
        return True

    def _is_whole(self) -> bool:
        head, end, body = self._read.partition(b"\r\n\r\n")
        if not end:
            return False
        for line in head.lower().split(b"\r\n"):
            name, _, value = line.partition(b":")
            value = value.strip()
            if name == b"content-length" and value.isdigit():
                return len(body) >= int(value[:9])
            if name == b"transfer-encoding":
                return body.endswith(b"0\r\n\r\n")
        return True


class StandIn:
    def __init__(
        self, path: str, listening: socket.socket, life: socket.socket, control: socket.socket
    ) -> None:
        self._path, self._listening, self._control = path, listening, control
        self._life: socket.socket | None = life
        self._left_at = 0.0
        self._inode = inode(path)
        self._clients: dict[int, Client] = {}
        listening.setblocking(False)
        control.setblocking(False)

    def run(self) -> None:
        """Until the socket's file is another's, or a daemon says so."""
        try:
            self._serve_all()
        finally:
            for sock in (
                self._listening,
                self._control,
                self._life,
                *(c.sock for c in self._clients.values()),
            ):
                if sock is not None:
                    sock.close()

    def _serve_all(self) -> None:
        while self._life is not None or self._is_in_place():
            now = time.monotonic()
            is_away = self._life is None and now >= self._left_at + GRACE_S
            # The end of one daemon before the beginning of the next.
            desired: list[socket.socket] = [self._life] if self._life is not None else []
            desired += [self._control]
            desired += [self._listening] if is_away and len(self._clients) < CLIENTS_MAX else []
            desired += [client.sock for client in self._clients.values()]
            for ready in select.select(desired, [], [], self._pause(now))[0]:
                if ready is self._life:
                    if self._has_ended():
                        return
                elif ready is self._control:
                    self._hand_over()
                elif ready is self._listening:
                    self._accept()
                elif ready.fileno() in self._clients:
                    self._serve(ready.fileno())
            self._expire()

    def _pause(self, now: float) -> float | None:
        if self._life is not None and not self._clients:
            return None
        grace = self._left_at + GRACE_S - now
        return min(LOOK_S, grace) if grace > 0 else LOOK_S

    def _has_ended(self) -> bool:
        """What the daemon's connection has to say: that it wants us to end, or its own end."""
        assert self._life is not None
        value = b""
        with contextlib.suppress(OSError):
            value = self._life.recv(1)
        if value == QUIT:
            if self._is_in_place():
                os.unlink(self._path)
            return True
        self._life.close()
        self._life, self._left_at = None, time.monotonic()
        return False

    def _is_in_place(self) -> bool:
        """Whether who connects to the path comes to our socket."""
        return inode(self._path) == self._inode

    def _hand_over(self) -> None:
        """The next daemon: it is given the socket, and with it what waits there. Not while there is another, nor a socket
        that nobody finds any more."""
        try:
            life, _ = self._control.accept()
            if self._life is not None or not self._is_in_place():
                life.close()
                return
            life.settimeout(1.0)
            numbers = array.array("i", [self._listening.fileno()])
            life.sendmsg([b"s"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, numbers)])
        except OSError:
            return
        self._life = life

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            sock, _ = self._listening.accept()
            sock.setblocking(False)
            self._clients[sock.fileno()] = Client(sock)

    def _serve(self, number: int) -> None:
        if self._clients[number].is_done():
            self._clients.pop(number).sock.close()

    def _expire(self) -> None:
        now = time.monotonic()
        for number in [number for number, client in self._clients.items() if client.deadline < now]:
            self._clients.pop(number).sock.close()


def inode(path: str) -> tuple[int, int] | None:
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def main(words: list[str]) -> None:
    path, *numbers = words
    os.chdir("/")
    listening, life, control = (socket.socket(fileno=int(number)) for number in numbers)
    StandIn(path, listening, life, control).run()


if __name__ == "__main__":
    main(sys.argv[1:])
