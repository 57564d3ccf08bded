"""The API: asks the store, by name, over the internal network."""

import signal
import socket
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Api(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        with socket.create_connection(("storage", 5432), timeout=3) as store:
            store.sendall(b"GET greeting\n")
            row = store.makefile("rb").readline()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(row)

    def log_message(self, *_: object) -> None:
        pass


# The first process of a container gets no default action for SIGTERM from the kernel.
signal.signal(signal.SIGTERM, lambda *_: sys.exit())
ThreadingHTTPServer(("0.0.0.0", 8000), Api).serve_forever()
