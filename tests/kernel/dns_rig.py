"""The namespaces of tests/kernel/test_dns.py: a host with two bridges, three workloads and a neighbour."""

import contextlib
import ctypes
import os
import subprocess
import time
from collections.abc import Callable, Iterator

CLONE_NEWNET = 0x40000000
UPSTREAM = "198.51.100.53"
HOST_UPLINK = "198.51.100.1"


def ip(*arguments: str, inside: "Namespace | None" = None) -> None:
    enter = ["nsenter", "-t", str(inside.pid), "-n"] if inside else []
    subprocess.run([*enter, "ip", *arguments], check=True, capture_output=True, text=True)


def set_namespace(descriptor: int) -> None:
    if ctypes.CDLL(None, use_errno=True).setns(descriptor, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


class Namespace:
    def __init__(self) -> None:
        self.process = subprocess.Popen(["unshare", "-n", "sleep", "600"])
        self.pid = self.process.pid
        ours = os.readlink("/proc/self/ns/net")
        until(lambda: os.readlink(f"/proc/{self.pid}/ns/net") != ours)
        ip("link", "set", "lo", "up", inside=self)

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """The calling thread is inside; what it opens, and threads it starts, stay there."""
        with open("/proc/thread-self/ns/net") as home, open(f"/proc/{self.pid}/ns/net") as there:
            set_namespace(there.fileno())
            try:
                yield
            finally:
                set_namespace(home.fileno())

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


def until(condition: Callable[[], object], seconds: float = 100.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


class Rig:
    def __init__(self) -> None:
        ip("link", "set", "lo", "up")
        self.a, self.b, self.c, self.ext = (Namespace() for _ in range(4))
        for number in (1, 2):
            self.add_bridge(number)
        self.plug(self.a, 1, 11)
        self.plug(self.b, 1, 12)
        self.plug(self.b, 2, 12)
        self.plug(self.c, 2, 13)
        ip("link", "add", "uplink", "type", "veth", "peer", "name", "eth0", "netns", str(self.ext.pid))
        ip("address", "add", f"{HOST_UPLINK}/24", "dev", "uplink")
        ip("link", "set", "uplink", "up")
        for address in ("198.51.100.2/24", f"{UPSTREAM}/24"):
            ip("address", "add", address, "dev", "eth0", inside=self.ext)
        ip("link", "set", "eth0", "up", inside=self.ext)
        ip("route", "add", "default", "via", HOST_UPLINK, inside=self.ext)

    def add_bridge(self, number: int) -> None:
        ip("link", "add", f"sl{number}", "type", "bridge")
        ip("address", "add", f"10.89.{number}.1/24", "dev", f"sl{number}")
        ip("address", "add", f"fd89:{number}::1/64", "dev", f"sl{number}", "nodad")
        ip("link", "set", f"sl{number}", "up")

    def plug(self, workload: Namespace, number: int, host: int) -> None:
        port, inside = f"p{number}x{host}", f"eth{number}"
        ip("link", "add", port, "type", "veth", "peer", "name", inside, "netns", str(workload.pid))
        ip("link", "set", port, "master", f"sl{number}", "up")
        ip("address", "add", f"10.89.{number}.{host}/24", "dev", inside, inside=workload)
        ip("address", "add", f"fd89:{number}::{host}/64", "dev", inside, "nodad", inside=workload)
        ip("link", "set", inside, "up", inside=workload)

    def close(self) -> None:
        for namespace in (self.a, self.b, self.c, self.ext):
            namespace.close()
        for link in ("uplink", "sl1", "sl2"):
            subprocess.run(["ip", "link", "delete", link], capture_output=True, check=False)
