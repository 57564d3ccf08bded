"""`sealane check` on a real host: what real packets do, held against what should become of them."""

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from harness.host import Host, Lan, Workload
from harness.netns import join
from sealane.linux.netns import inside

pytestmark = pytest.mark.kernel

AGREES, DIFFERS, UNKNOWN = 0, 1, 2


class Street:
    """Networks front (dual-stack), vault (internal), lone (icc off), side (routed)."""

    def __init__(self, host: Host) -> None:
        self.host = host
        api = host.api
        api.network("front", "10.71.0.0/24", "fd71::/64")
        api.network("vault", "10.72.0.0/24", internal=True)
        api.network("lone", "10.73.0.0/24", options={"icc": "false"})
        api.network("side", "10.74.0.0/24", driver="routed")
        self.boxes: dict[str, Workload] = {}
        self.names: dict[str, str] = {}
        web = [{"proto": "tcp", "host_first": 8080, "port": 80}]
        for name, network, publish in [
            ("web", "front", web), ("api", "front", []), ("db", "vault", []), ("dump", "vault", []),
            ("one", "lone", []), ("two", "lone", []), ("far", "side", []),
        ]:  # fmt: skip
            box = Workload(host, name)
            view = box.attach(network, publish=publish)
            self.boxes[name], self.names[name] = box, view["sandbox"]

    def check(self, *words: str) -> tuple[int, dict[str, Any]]:
        """Names of boxes stand for their sandboxes."""
        done = self.host.sealane("check", *(self.names.get(w, w) for w in words), "--json", check=False)
        return done.returncode, json.loads(done.stdout or done.stderr)

    def cell(self, source: str, target: str, view: dict[str, Any]) -> str:
        row = view["rows"].index(self.names.get(source, source))
        return str(view["matrix"][row][view["columns"].index(self.names.get(target, target))])

    @contextlib.contextmanager
    def silent_listener(self, name: str, port: int) -> Iterator[None]:
        """Takes datagrams of both families, and never answers."""
        descriptor = os.open(self.boxes[name].ns.path, os.O_RDONLY)
        try:
            with inside(descriptor):
                listener = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        finally:
            os.close(descriptor)
        with listener:
            listener.bind(("::", port))
            yield

    def close(self) -> None:
        for box in self.boxes.values():
            box.close()


@pytest.fixture(scope="module")
def street(lan: Lan) -> Iterator[Street]:
    with Host(lan, number=5).start() as machine:
        street = Street(machine)
        yield street
        street.close()


@pytest.mark.parametrize("proto", ["tcp", "icmp"])
def test_everybody_to_everybody_is_as_predicted(street: Street, proto: str) -> None:
    code, view = street.check("--proto", proto)
    assert (code, view["findings"]) == (AGREES, [])
    marks = {
        ("web", "api"): "✓",
        ("api", "web"): "✓",
        ("db", "dump"): "✓",
        ("web", "db"): "·",
        ("db", "web"): "·",
        ("one", "two"): "·",
        ("web", "web"): " ",
        ("host", "web"): "✓" if proto == "tcp" else " ",
        ("host", "api"): " ",
    }
    assert {pair: street.cell(*pair, view) for pair in marks} == marks


def test_datagrams_are_answered_by_closed_ports(street: Street) -> None:
    code, view = street.check("web", "api", "--proto", "udp")
    assert (code, view["matrix"], view["agree"]) == (AGREES, ["✓"], 2)
    assert street.check("web", "db", "--proto", "udp")[:1] == (AGREES,)


def test_a_datagram_that_is_taken_in_silence_says_nothing(street: Street) -> None:
    with street.silent_listener("api", 7777):
        code, view = street.check("web", "api", "--proto", "udp", "--port", "7777")
    assert (code, view["matrix"]) == (UNKNOWN, ["?"])
    assert {finding["observation"] for finding in view["findings"]} == {"no answer within 0.5 s"}


def test_who_listens_is_reached_too(street: Street) -> None:
    server = street.boxes["web"].ns.listen("tcp", "::", 80)
    try:
        code, view = street.check("api", "web")
        assert (code, view["matrix"]) == (AGREES, ["✓"])
        code, view = street.check("host", "web")
        assert (code, view["matrix"]) == (AGREES, ["✓"])
    finally:
        server.close()


def test_a_drop_that_no_intent_asks_for_is_a_disagreement(street: Street) -> None:
    ns = street.host.ns
    ns.sh("nft", "add table bridge stranger")
    ns.sh("nft", "add chain bridge stranger forward { type filter hook forward priority 0; }")
    ns.sh("nft", "add rule bridge stranger forward tcp dport 80 drop")
    try:
        code, view = street.check("api", "web")
        assert (code, view["matrix"]) == (DIFFERS, ["!"])
        assert len(view["findings"]) == view["disagree"] == 2
        for finding in view["findings"]:
            assert (finding["predicted"], finding["observed"]) == (True, False)
            assert finding["observation"] == "no answer within 0.5 s"
        text = street.host.sealane("check", street.names["api"], street.names["web"], check=False)
        assert text.returncode == DIFFERS
        assert "predicted reached (delivered to" in text.stdout
        assert "no answer within 0.5 s" in text.stdout
    finally:
        ns.sh("nft", "delete table bridge stranger")
    assert street.check("api", "web")[0] == AGREES


def test_a_back_integration_is_a_disagreement(street: Street) -> None:
    """A link that somebody has put between two sandboxes which should not reach each other."""
    web, db = street.boxes["web"], street.boxes["db"]
    join(web.ns, "integration", db.ns, "integration")
    web.ns.batch("link set integration up", f"route add {db.v4} dev integration")
    db.ns.batch("link set integration up", f"route add {web.v4} dev integration")
    try:
        code, view = street.check("web", "db")
        assert (code, view["matrix"]) == (DIFFERS, ["!"])
        (finding,) = view["findings"]
        assert (finding["predicted"], finding["observed"]) == (False, True)
        assert finding["observation"] == "refused: delivered, and nobody listens"
    finally:
        web.ns.ip("link", "del", "integration")
    assert street.check("web", "db")[0] == AGREES


def test_a_sender_may_be_bound_to_its_endpoint(street: Street) -> None:
    code, view = street.check(f"{street.names['web']}/front", "api", "--port", "4711")
    assert (code, view["matrix"], view["agree"]) == (AGREES, ["✓"], 2)


def test_neighbours_are_as_they_were(street: Street) -> None:
    """Probing leaves no entries in the table that all namespaces share."""
    box = street.boxes["api"].ns
    box.ip("neigh", "flush", "all")
    assert street.check()[0] == AGREES
    # Multicast entries (NOARP) are collected as soon as there is need.
    left = [line for line in box.ip("neigh", "show", "nud", "all").splitlines() if "NOARP" not in line]
    assert left == []


@pytest.mark.parametrize(
    "words",
    [
        ("nobody",),
        ("web", "host"),
        ("web", "nobody"),
        ("host", "api"),
        ("web", "--timeout", "9"),
        ("--port", "70000"),
    ],
)
def test_what_cannot_be_asked_is_refused(street: Street, words: tuple[str, ...]) -> None:
    code, error = street.check(*words)
    assert (code, error["code"]) == (UNKNOWN, "invalid")


def test_a_sandbox_that_has_died_cannot_be_asked(street: Street) -> None:
    """Never a verdict from another namespace, the host's least of all."""
    box = Workload(street.host, "gone")
    name = box.attach("front")["sandbox"]
    box.ns.close()
    code, view = street.check(name, "api")
    # The daemon may have noticed already, and released it.
    assert code == UNKNOWN
    assert "does not exist any more" in str(view) or "no sandbox" in str(view)


def test_the_daemon_answers_meanwhile(street: Street) -> None:
    def check() -> None:
        street.host.api.post("/check", {"timeout": 3.0})

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(check)
        asked = 0
        while not running.done():
            street.host.api.status()
            asked += 1
        running.result()
    assert asked > 20


def test_a_server_that_takes_one_handshake_after_the_other_is_reached_at_every_port(host: Host) -> None:
    """Python's own `http.server` listens for five at once; probes of all its published ports come at once."""
    host.api.network("slow", "10.79.0.0/24")
    box = Workload(host, "slow")
    box.attach("slow", publish=[{"proto": "tcp", "host_first": 8300 + n, "port": 80} for n in range(24)])
    descriptor = os.open(box.ns.path, os.O_RDONLY)
    try:
        with inside(descriptor):
            listener = socket.create_server(("10.79.0.2", 80), backlog=2)
    finally:
        os.close(descriptor)
    listener.settimeout(0.1)
    ended = threading.Event()

    def serve() -> None:
        while not ended.is_set():
            with contextlib.suppress(TimeoutError):
                listener.accept()[0].close()
                time.sleep(0.02)

    server = threading.Thread(target=serve)
    server.start()
    try:
        done = host.sealane("check", "host", "slow", "--json", check=False)
        view = json.loads(done.stdout)
        assert (done.returncode, view["disagree"], view["agree"]) == (AGREES, 0, 24), view["findings"]
    finally:
        ended.set()
        server.join()
        listener.close()
        box.close()
