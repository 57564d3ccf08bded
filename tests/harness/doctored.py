"""A healthy town for `sealane doctor`: what a test breaks in it is all that there is to find.

front  10.75.0.0/24 fd75::/64   web (8080 → 80 and 8053 → 53/udp, both served), api
back   10.76.0.0/24             api
The host's nameserver is a server outside that answers, and sandboxes ask their gateway.
"""

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any

from harness.host import EXT4, Host, Lan, Workload
from harness.netns import Netns

NAMESERVER = f"""
import builtins, socket, threading
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(({EXT4!r}, 53))
def answer():
    while (received := server.recvfrom(512))[0]:
        query, peer = received
        server.sendto(query[:2] + bytes([query[2] | 0x80]) + query[3:], peer)
builtins.sealane_test_nameserver = server
threading.Thread(target=answer, daemon=True).start()
"""
SILENCE = """
import builtins, contextlib, socket
with contextlib.suppress(OSError):  # It is not connected; who waits for it wakes all the same.
    builtins.sealane_test_nameserver.shutdown(socket.SHUT_RDWR)
builtins.sealane_test_nameserver.close()
"""
GATEWAY4, GATEWAY6 = "10.75.0.1", "fd75::1"


class Town:
    def __init__(self, host: Host) -> None:
        self.host = host
        self.web, self.api = self.box("web"), self.box("api")
        host.api.network("front", "10.75.0.0/24", "fd75::/64")
        host.api.network("back", "10.76.0.0/24")
        self.web.attach(
            "front",
            publish=[
                {"proto": "tcp", "host_first": 8080, "port": 80},
                {"proto": "udp", "host_first": 8053, "port": 53},
            ],
        )
        self.api.attach("front")
        self.api.attach("back")
        self.servers = [
            self.web.ns.listen(proto, address, port)
            for proto, port in (("tcp", 80), ("udp", 53))
            for address in ("0.0.0.0", "::")
        ]

    def box(self, name: str) -> Workload:
        """It has an /etc/resolv.conf of its own."""
        box = Workload(self.host, name)
        box.ns.close()
        box.ns = Netns(name, mounts=True)
        resolve_by(box.ns, GATEWAY4)
        return box

    def web_heard(self, payload: str) -> bool:
        return any(payload == said for server in self.servers for _, _, said in server.peers())

    def name(self, box: Workload) -> str:
        """Of its sandbox."""
        return str(next(iter(box.endpoints.values()))["sandbox"])

    def ask(self, *subjects: str) -> dict[str, Any]:
        view: dict[str, Any] = self.host.api.post("/doctor", {"subjects": list(subjects)})
        return view

    def found(self, cause: str) -> list[dict[str, Any]]:
        view = self.ask()
        assert view["unseen"] == {}, view["unseen"]
        return [finding for finding in view["findings"] if finding["cause"] == cause]

    @contextlib.contextmanager
    def broken(self, cause: str, repair: Callable[[], object]) -> Iterator[list[dict[str, Any]]]:
        """What is found of a fault that was just made, and that it is not found any more once it is mended."""
        try:
            yield self.found(cause)
        finally:
            repair()
        assert self.found(cause) == []

    def close(self) -> None:
        self.web.close()
        self.api.close()


def write(ns: Netns, path: str, text: str) -> None:
    ns("write", path=path, text=text)


def resolve_by(ns: Netns, *servers: str) -> None:
    """The namespace must have mounts of its own. Idempotent."""
    is_first = ns.run("test", "-e", "/run/resolv.conf").returncode != 0
    write(ns, "/run/resolv.conf", "".join(f"nameserver {server}\n" for server in servers))
    if is_first:
        ns.sh("mount", "--bind", "/run/resolv.conf", "/etc/resolv.conf")


@contextlib.contextmanager
def town(lan: Lan, number: int) -> Iterator[Town]:
    lan.ext.python(NAMESERVER)
    with Host(lan, number=number) as machine:
        resolve_by(machine.ns, EXT4)
        machine.start()
        built = Town(machine)
        try:
            yield built
        finally:
            built.close()
            lan.ext.python(SILENCE)


def doctor(host: Host, *words: str) -> tuple[int, dict[str, Any]]:
    done = host.sealane("doctor", *words, "--json", check=False)
    return done.returncode, json.loads(done.stdout or done.stderr)


def port_taken(host: Host) -> list[dict[str, Any]]:
    """What is found of ports that are published and taken."""
    return [f for f in host.api.post("/doctor", {"subjects": []})["findings"] if f["cause"] == "port-taken"]
