"""The API: asks the store, by name, over the internal network. It answers the row, and the way it came."""

import json
import signal
import socket
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Api(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        with socket.create_connection(("storage", 5432), timeout=3) as store:
            store.sendall(b"GET greeting\nPEER\n")
            lines = store.makefile("r", encoding="utf-8")
            row, peer = lines.readline().strip(), lines.readline().strip()
            address, port = store.getpeername()
        own, own_port = self.connection.getsockname()
        way = [
            {"service": "api", "address": own, "port": own_port, "asked_by": self.client_address[0]},
            {"service": "db", "address": address, "port": port, "asked_by": peer},
        ]
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"row": row, "way": way}).encode())

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    request_queue_size = 128


# The first process of a container gets no default action for SIGTERM from the kernel.
signal.signal(signal.SIGTERM, lambda *_: sys.exit())
Server(("0.0.0.0", 8000), Api).serve_forever()
