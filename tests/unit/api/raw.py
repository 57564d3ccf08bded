"""A client that sends whatever bytes a test wants, and reads answers with h11."""

import json
import socket

import h11


class Raw:
    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(100)
        self.socket.connect(path)
        self._http = h11.Connection(h11.CLIENT)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, data):
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass  # It was refused before all was sent; the answer is read all the same.

    def answer(self, method="GET"):
        """Status, headers, body of one answer."""
        if self._http.our_state is h11.IDLE:
            self._http.send(h11.Request(method=method, target="/", headers=[("host", "")]))
            self._http.send(h11.EndOfMessage())
        body = b""
        response = None
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                self._http.receive_data(self._recv())
            elif isinstance(event, h11.Response):
                response = event
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                break
            elif isinstance(event, h11.ConnectionClosed):
                raise EOFError
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
        headers = {k.decode(): v.decode() for k, v in response.headers}
        return response.status_code, headers, body

    def _recv(self):
        try:
            return self.socket.recv(65536)
        except ConnectionResetError:
            return b""

    def is_closed(self):
        """Waits for the end; whatever else comes is dropped."""
        while True:
            data = self._recv()
            if not data:
                return True


def ask(path, data, method="GET"):
    with Raw(path) as raw:
        raw.send(data)
        status, headers, body = raw.answer(method)
        return status, json.loads(body) if body else None


def post(target, document, extra=""):
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    head = f"POST {target} HTTP/1.1\r\nHost: \r\n{extra}Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def get(target, method="GET", extra=""):
    return f"{method} {target} HTTP/1.1\r\nHost: \r\n{extra}\r\n".encode()
