"""The front end: asks the API, and tells the visitor whom it sees. `/way` answers every hop, as JSON."""

import json
import signal
import socket
import sys
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Web(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        with urllib.request.urlopen("http://api:8000/", timeout=3) as answer:
            found = json.load(answer)
        visitor = self.client_address[0]
        if self.path == "/way":
            own, port = self.connection.getsockname()
            hop = {"service": "web", "address": own, "port": port, "asked_by": visitor}
            page = json.dumps([hop, *found["way"]])
        else:
            page = f"{found['row']} - served to {visitor} by {socket.gethostname()}\n"
        self.send_response(200)
        self.end_headers()
        self.wfile.write(page.encode())

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    request_queue_size = 128


# The first process of a container gets no default action for SIGTERM from the kernel.
signal.signal(signal.SIGTERM, lambda *_: sys.exit())
Server(("0.0.0.0", 80), Web).serve_forever()
