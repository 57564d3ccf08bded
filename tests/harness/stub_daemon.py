"""A daemon that says what a test tells it to: for the programs that ask one."""

import json
import socket
import threading


class Daemon(threading.Thread):
    """Answers each request by what `answer` makes of it: a status and a document, or None to hang up. So does `handed`
    with CNI calls that come as they were made; without it they are not known, as to a daemon of before."""

    def __init__(self, path, answer, handed=lambda _: (404, {"error": {"code": "not_found"}})):
        super().__init__(daemon=True)
        self.asked = []
        self._answer, self._handed = answer, handed
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen(8)
        self.start()

    def run(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                data = b""
                while b"\r\n\r\n" not in data:
                    data += connection.recv(65536)
                head, _, body = data.partition(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
                while len(body) < length:
                    body += connection.recv(65536)
                if head.startswith(b"POST /v1/cni/forwarded "):
                    answer = self._handed(body)
                else:
                    self.asked.append(json.loads(body))
                    answer = self._answer(self.asked[-1])
                if answer is not None:
                    status, document = answer
                    text = json.dumps(document).encode()
                    connection.sendall(
                        b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n" % (status, len(text)) + text
                    )

    def close(self):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.join(100)
