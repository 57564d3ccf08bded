"""A client of the HTTP API over a unix socket, on http.client alone."""

import http.client
import json
import socket
import time
from typing import Any
from urllib.parse import quote, urlencode

from harness.patience import PATIENCE_S

TIMEOUT_S = 2 * PATIENCE_S


class ApiError(Exception):
    """The daemon refused: `status` and the error body's fields."""

    def __init__(self, method: str, path: str, status: int, body: dict[str, Any]) -> None:
        super().__init__(f"{method} {path}: {status} {body.get('code')}: {body.get('message')}")
        self.status = status
        self.body = body
        self.code = body.get("code", "")
        self.message = body.get("message", "")
        self.field = body.get("field", "")


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Api:
    """Each call is a connection of its own, as from a command line."""

    def __init__(self, socket_path: str, timeout_s: float = TIMEOUT_S) -> None:
        self.socket_path = socket_path
        self.timeout_s = timeout_s

    def call(self, method: str, path: str, body: Any = None, **query: str) -> Any:
        """Return the answer; ApiError for a refusal, OSError or http.client.HTTPException when nobody answers."""
        if query:
            path = f"{path}?{urlencode(query)}"
        connection = _UnixConnection(self.socket_path, self.timeout_s)
        try:
            text = None if body is None else json.dumps(body)
            connection.request(
                method, f"/v1{path}", text, {"Content-Type": "application/json"} if text else {}
            )
            response = connection.getresponse()
            payload = response.read()
        finally:
            connection.close()
        answer = json.loads(payload) if payload.strip() else None
        if response.status >= 400:
            error = answer.get("error", {}) if isinstance(answer, dict) else {}
            raise ApiError(method, path, response.status, error)
        return answer

    def get(self, path: str, **query: str) -> Any:
        return self.call("GET", path, **query)

    def post(self, path: str, body: Any = None, **query: str) -> Any:
        return self.call("POST", path, body, **query)

    def delete(self, path: str, **query: str) -> Any:
        return self.call("DELETE", path, **query)

    # --- the verbs that tests use most -----------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        return dict(self.get("/status"))

    def network(self, name: str, *prefixes: str, driver: str = "bridge", **fields: Any) -> dict[str, Any]:
        """Create a network with these subnets (none: from the pools)."""
        body = {"name": name, "driver": driver, "subnets": [{"prefix": p} for p in prefixes], **fields}
        if prefixes:
            body.setdefault("ipv4", any("." in p for p in prefixes))
            body.setdefault("ipv6", any(":" in p for p in prefixes))
        return dict(self.post("/networks", body))

    def remove_network(self, name: str, *, force: bool = False) -> None:
        self.delete(f"/networks/{quote(name)}", **({"force": "1"} if force else {}))

    def attach(self, sandbox: str, network: str, **fields: Any) -> dict[str, Any]:
        return dict(self.post("/attach", {"sandbox": sandbox, "network": network, **fields}))

    def detach(self, *endpoints: str, **fields: str) -> list[str]:
        desired = [{"endpoint": e} for e in endpoints] + ([fields] if fields else [])
        return list(self.post("/detach", desired)["detached"])

    def audit(self) -> list[str]:
        return list(self.get("/audit")["findings"])

    def wait_ready(self, timeout_s: float) -> float:
        """Wait until GET /v1/version is answered; return the seconds it took. TimeoutError if it never is."""
        begun = time.monotonic()
        while True:
            try:
                self.get("/version")
            except (OSError, http.client.HTTPException, ApiError):
                if time.monotonic() - begun > timeout_s:
                    raise TimeoutError(f"no daemon answers at {self.socket_path}") from None
                time.sleep(0.005)
            else:
                return time.monotonic() - begun
