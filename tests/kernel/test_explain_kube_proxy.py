"""`explain` on a node of Kubernetes: what kube-proxy translates is never explained as if nobody did.

The rules are kube-proxy's own (1.36, both modes), recorded on a node of `shared/kubernetes` with Services whose endpoints
are this town's: `kube_proxy/services.yaml`. Only the node's address is another.
"""

import os
import sys
from collections.abc import Iterator

import pytest

from harness.host import EXT4, ROOT, Host, Lan, Workload, host_address

pytestmark = pytest.mark.kernel

NUMBER = 21
FOLDER = os.path.join(os.path.dirname(__file__), "kube_proxy")
NODE = "192.168.99.1"
"""The recorded node's."""
ACCOUNTS = ("ct_state_invalid_dropped_pkts", "localhost_nps_accepted_pkts")
"""Counters that kube-proxy's rules of iptables name (nfacct), which are no part of what iptables-save writes."""
ADD_ACCOUNTS = """
import sys
from sealane.linux.netlink import codec
from sealane.linux.netlink.socket import NETLINK_NETFILTER, Socket
with Socket(NETLINK_NETFILTER) as socket:
    for name in sys.argv[1:]:
        body = bytes(4) + codec.string(1, name) + codec.be64(2, 0) + codec.be64(3, 0)
        errors = socket.request([codec.message(7 << 8, 0x405, 0, body)])
        assert errors == [None], errors
"""
LOAD = {"nftables": ("nft", "-f", "-"), "iptables": ("iptables-nft-restore",)}
PASSES, FAILS, UNKNOWN = 0, 1, 2


class Node:
    def __init__(self, lan: Lan, mode: str) -> None:
        self.host = Host(lan, number=NUMBER).start()
        self.host.api.network("pods", "10.71.0.0/24")
        self.boxes = [Workload(self.host, name) for name in ("web", "api")]
        for box in self.boxes:
            box.attach("pods", name=box.name)
            box.ns.listen("tcp", "0.0.0.0", 80)
        with open(os.path.join(FOLDER, f"{mode}.rules"), encoding="utf-8") as file:
            rules = file.read().replace(NODE, host_address(NUMBER, 4))
        source = f"PYTHONPATH={os.path.join(ROOT, 'src')}"
        self.host.ns.sh("env", source, sys.executable, "-c", ADD_ACCOUNTS, *ACCOUNTS)
        self.host.ns.sh(*LOAD[mode], text=rules)

    def explain(self, *words: str) -> tuple[int, str]:
        done = self.host.sealane("explain", *words, check=False)
        return done.returncode, done.stdout + done.stderr

    def close(self) -> None:
        for box in self.boxes:
            box.close()
        self.host.close()


@pytest.fixture(scope="module", params=list(LOAD))
def node(request: pytest.FixtureRequest, lan: Lan) -> Iterator[Node]:
    node = Node(lan, request.param)
    yield node
    node.close()


def test_the_recorded_rules_work(node: Node) -> None:
    """The bite: a pod reaches the Service, whatever is said of it."""
    web, _ = node.boxes
    answers = [web.ns.probe("tcp", "10.96.10.1", 80, timeout=0.5) for _ in range(12)]
    assert any("answer" in answer for answer in answers)


@pytest.mark.parametrize(
    ("words", "targets"),
    [
        (("web", "10.96.10.1:80"), ("10.71.0.2:80", "10.71.0.3:80")),
        (("host", "10.96.10.1:80"), ("10.71.0.2:80", "10.71.0.3:80")),
        (("web", "10.96.10.2:80"), ("10.71.0.2:80", "10.71.0.3:80")),
        (("web", "10.96.0.10:53", "--proto", "udp"), ("10.71.0.3:53",)),
        (("--from", EXT4, ":30080"), ("10.71.0.2:80", "10.71.0.3:80")),
        (("web", f"{host_address(NUMBER, 4)}:30080"), ("10.71.0.2:80", "10.71.0.3:80")),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) and "10.71" not in value[0] else "",
)
def test_a_service_is_said_to_be_translated_and_by_whom(node: Node, words: tuple, targets: tuple) -> None:
    code, said = node.explain(*words)
    assert code == UNKNOWN, said
    assert "translated" in said
    assert "delivered" not in said
    assert "sealane trace" in said
    for target in targets:
        assert target in said


def test_the_json_tells_it_too(node: Node) -> None:
    code, said = node.explain("web", "10.96.10.1:80", "--json")
    assert (code, '"outcome": "unknown"' in said or '"outcome":"unknown"' in said) == (UNKNOWN, True)


@pytest.mark.parametrize(
    ("words", "verdict", "code"),
    [
        (("web", "api:80"), "delivered to pid", PASSES),
        (("host", "api:80"), "delivered to pid", PASSES),
        (("web", f"{EXT4}:443"), "exits by eth0", PASSES),
        (("web", f"{host_address(NUMBER, 4)}:22"), "delivered to host", PASSES),
    ],
)
def test_what_it_does_not_translate_is_explained_as_ever(
    node: Node, words: tuple, verdict: str, code: int
) -> None:
    found, said = node.explain(*words)
    assert verdict in said.splitlines()[0]
    assert found == code


def test_check_says_nothing_of_what_others_translate(node: Node) -> None:
    """`check` has addresses of endpoints alone: kube-proxy does not touch them."""
    done = node.host.sealane("check", "web", "api", "--port", "80", check=False)
    assert done.returncode == 0, done.stdout


def test_trace_follows_it_and_sends_nobody_back_to_explain(node: Node) -> None:
    done = node.host.sealane("trace", "web", "10.96.10.1:80", check=False)
    told = done.stdout
    assert "where foreign rules translate it" in told
    assert "explain" not in told
    assert "→ 10.71.0." in told
