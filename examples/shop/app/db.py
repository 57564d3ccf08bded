"""A database-like back end, one line in, one line out: `GET key`, `SET key value`, `PEER` for the asker's address."""

import signal
import socketserver
import sys

ROWS = {"greeting": "three crates of oranges in stock"}


class Session(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        for line in self.rfile:
            verb, _, rest = line.decode().strip().partition(" ")
            key, _, value = rest.partition(" ")
            if verb == "SET":
                ROWS[key] = value
            answer = self.client_address[0] if verb == "PEER" else ROWS.get(key, "")
            self.wfile.write(f"{answer}\n".encode())


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128


# The first process of a container gets no default action for SIGTERM from the kernel.
signal.signal(signal.SIGTERM, lambda *_: sys.exit())
Server(("0.0.0.0", 5432), Session).serve_forever()
