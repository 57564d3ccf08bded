"""Between dockerd and our plugin socket: passes requests on one by one, and may be told to meddle.

An answer that it loses is what dockerd sees of a plugin that dies while it works: it asks again, with an empty body,
since the first try has drained its buffer (moby pkg/plugins/client.go, unchanged in master).
"""

import os
import socketserver
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import Any

from harness.cnm import PluginSocket


class Relay(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True

    def __init__(self, place: str, target: str) -> None:
        os.makedirs(os.path.dirname(place), exist_ok=True)
        super().__init__(place, _Exchange)
        self.target = target
        self.seen: list[tuple[str, bytes]] = []
        """(path, body), in order of arrival."""
        self.after: Callable[[str], object] = lambda path: None
        """Called when a request is answered, and dockerd does not know yet."""
        self.lose = ""
        """The answer to the next request of this path is lost."""
        self.away = False
        """Connections are closed at once, as by a plugin that dies again and again."""
        self._one = threading.Lock()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def pass_on(self, path: str, body: bytes) -> tuple[int, str] | None:
        with self._one:
            if self.away:
                return None
            self.seen.append((path, body))
            plugin = PluginSocket(self.target)
            answer = plugin.post(path, body)
            plugin.close()
            self.after(path)
            if path == self.lose:
                self.lose = ""
                return None
            return answer

    def close(self) -> None:
        self.shutdown()
        self.server_close()


class _Exchange(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Relay

    def do_POST(self) -> None:  # noqa: N802 the library's name
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        answer = self.server.pass_on(self.path, body)
        if answer is None:
            self.close_connection = True
            return
        status, text = answer
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 the library's name
        """Nothing: requests are in `seen`."""
