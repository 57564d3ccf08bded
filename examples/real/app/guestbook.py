"""A guestbook over HTTP: entries in PostgreSQL, through its own client `psql`; a counter of visits in redis.

    GET /         {"visits", "visitor", "entries", "database"}
    POST /        a form with `name` and `text`
    GET /health   200 if both stores answer

Settings come in the environment: PGHOST and its like (libpq), CACHE.
"""

import glob
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

PORT = 8000
TIMEOUT_S = 5
FORM_BYTES_MAX = 4096
# Not Debian's wrapper in /usr/bin, which starts perl first.
PSQL = sorted(glob.glob("/usr/lib/postgresql/*/bin/psql"))[-1:] or ["psql"]

READ = """
SELECT json_build_object('database', current_setting('server_version'),
                         'entries', coalesce(json_agg(entry ORDER BY id), '[]'))
FROM (SELECT * FROM entry ORDER BY id DESC LIMIT 20) AS entry;
"""
WRITE = "INSERT INTO entry (name, text) VALUES (:'name', :'text');"

Action = Callable[[], tuple[int, object]]

known: dict[str, str] = {}


def address(name: str) -> str:
    """Where a name is. It is looked up once, and again after a failure, as a pool of connections would do it."""
    if name not in known:
        known[name] = socket.gethostbyname(name)
    return known[name]


def query(statement: str, **values: str) -> str:
    """What it returns. Values go in by psql's own quoting (`:'name'`), never by ours."""
    environ = {**os.environ, "PGHOSTADDR": address(os.environ["PGHOST"])}
    variables = [word for name, value in values.items() for word in ("-v", f"{name}={value}")]
    done = subprocess.run(
        [*PSQL, "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", *variables, "-f", "-"],
        input=statement,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        env=environ,
        check=False,
    )
    if done.returncode != 0:
        raise OSError(done.stderr.strip())
    return done.stdout.strip()


def redis(*words: str) -> str:
    """One command in redis's own protocol (RESP), one simple or integer answer."""
    request = f"*{len(words)}\r\n" + "".join(f"${len(word.encode())}\r\n{word}\r\n" for word in words)
    with socket.create_connection((address(os.environ["CACHE"]), 6379), timeout=TIMEOUT_S) as cache:
        cache.sendall(request.encode())
        line = cache.makefile("r", encoding="utf-8").readline().strip()
    if not line.startswith((":", "+")):
        raise OSError(f"redis: {line}")
    return line[1:]


class Server(ThreadingHTTPServer):
    request_queue_size = 128


class Guestbook(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.answer(self.health if self.path == "/health" else self.read)

    def do_POST(self) -> None:
        self.answer(self.write)

    def answer(self, action: Action) -> None:
        try:
            status, document = action()
        except (OSError, subprocess.TimeoutExpired) as error:
            known.clear()
            status, document = 503, {"error": str(error)}
        body = f"{json.dumps(document)}\n".encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def health(self) -> tuple[int, object]:
        query("SELECT 1;")
        return 200, {"redis": redis("PING")}

    def read(self) -> tuple[int, object]:
        return 200, {
            "visits": int(redis("INCR", "visits")),
            "visitor": self.headers.get("X-Real-IP", self.client_address[0]),
            **json.loads(query(READ)),
        }

    def write(self) -> tuple[int, object]:
        length = int(self.headers.get("Content-Length", "0"))
        if length > FORM_BYTES_MAX:
            return 413, {"error": f"at most {FORM_BYTES_MAX} bytes"}
        form = parse_qs(self.rfile.read(length).decode(errors="replace"))
        if not {"name", "text"} <= form.keys():
            return 400, {"error": "a form with name and text is expected"}
        query(WRITE, name=form["name"][0], text=form["text"][0])
        return 201, {"written": form["name"][0]}

    def log_message(self, *_: object) -> None:
        pass


def check() -> None:
    """For the health check: the exit code says it."""
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{PORT}/health", timeout=TIMEOUT_S).close()
    except OSError as error:
        sys.exit(f"not healthy: {error}")


if "--check" in sys.argv:
    check()
else:
    # The first process of a container gets no default action for SIGTERM from the kernel.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    Server(("0.0.0.0", PORT), Guestbook).serve_forever()
