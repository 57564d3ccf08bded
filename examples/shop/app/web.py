"""The front end: asks the API, and tells the visitor whom it sees."""

import signal
import socket
import sys
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Web(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        with urllib.request.urlopen("http://api:8000/", timeout=3) as answer:
            row = answer.read().decode().strip()
        page = f"{row} - served to {self.client_address[0]} by {socket.gethostname()}\n"
        self.send_response(200)
        self.end_headers()
        self.wfile.write(page.encode())

    def log_message(self, *_: object) -> None:
        pass


# The first process of a container gets no default action for SIGTERM from the kernel.
signal.signal(signal.SIGTERM, lambda *_: sys.exit())
ThreadingHTTPServer(("0.0.0.0", 80), Web).serve_forever()
