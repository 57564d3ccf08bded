"""Services: somebody else translates a service's address to a workload, as kube-proxy does, and the workload sees who asks.

The rules are shaped as kube-proxy makes them (pkg/proxy/nftables, pkg/proxy/iptables of Kubernetes 1.33) and stand in
tables of their own: a chain a service, a chain an endpoint, a mark and a masquerade for who is sent back to itself.
"""

from collections.abc import Iterator
from typing import Any

import pytest

from harness.audit import audit
from harness.host import EXT4, EXT6, Host, Lan, Workload
from harness.netns import eventually
from harness.scene import ANY

pytestmark = pytest.mark.kernel

NUMBER = 12
WEB = 80
SERVICE_PORT, NODE_PORT = 8000, 30080
SERVICE = {4: "10.96.0.10", 6: "fd96::10"}
GATEWAY = {4: "10.74.0.1", 6: "fd74::1"}
EXT = {4: EXT4, 6: EXT6}
MASQUERADE = "0x4000"
HEED_S = 12.0
"""Rules of others are heeded at once, a setting of br_netfilter with the poll."""

NFT_MODE = """
table {table} kube-proxy {{
    chain nat-prerouting {{ type nat hook prerouting priority dstnat; jump services; }}
    chain nat-output {{ type nat hook output priority -100; jump services; }}
    chain nat-postrouting {{
        type nat hook postrouting priority srcnat;
        meta mark & {mark} != 0 meta mark set meta mark ^ {mark} masquerade fully-random;
    }}
    chain services {{
        {table} daddr . meta l4proto . th dport vmap {{
            {service} . tcp . {port} : goto service, {service} . udp . {port} : goto service }};
        fib daddr type local meta l4proto . th dport vmap {{
            tcp . {node_port} : goto service, udp . {node_port} : goto service }};
    }}
    chain service {{ numgen random mod 1 vmap {{ 0 : goto endpoint }}; }}
    chain endpoint {{
        {table} saddr {backend} meta mark set meta mark | {mark};
        meta l4proto tcp dnat to {target};
        meta l4proto udp dnat to {target};
    }}
}}
"""

IPTABLES_MODE = """
*nat
:KUBE-SERVICES - [0:0]
:KUBE-SVC - [0:0]
:KUBE-SEP - [0:0]
:KUBE-POSTROUTING - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A POSTROUTING -j KUBE-POSTROUTING
-A KUBE-SERVICES -d {service} -p tcp -m tcp --dport {port} -j KUBE-SVC
-A KUBE-SERVICES -d {service} -p udp -m udp --dport {port} -j KUBE-SVC
-A KUBE-SERVICES -m addrtype --dst-type LOCAL -p tcp -m tcp --dport {node_port} -j KUBE-SVC
-A KUBE-SERVICES -m addrtype --dst-type LOCAL -p udp -m udp --dport {node_port} -j KUBE-SVC
-A KUBE-SVC -j KUBE-SEP
-A KUBE-SEP -s {backend} -j MARK --or-mark {mark}
-A KUBE-SEP -p tcp -m tcp -j DNAT --to-destination {target}
-A KUBE-SEP -p udp -m udp -j DNAT --to-destination {target}
-A KUBE-POSTROUTING -m mark ! --mark {mark}/{mark} -j RETURN
-A KUBE-POSTROUTING -j MARK --xor-mark {mark}
-A KUBE-POSTROUTING -j MASQUERADE --random-fully
COMMIT
"""


class Node:
    """A network with two pods, another with one, and rules that lead a service to the first."""

    def __init__(self, lan: Lan, driver: str, *, hooks: bool) -> None:
        self.lan, self.driver, self.hooks = lan, driver, hooks
        self.machine = Host(lan, number=NUMBER)
        for name in ("iptables", "ip6tables"):
            self.machine.ns.sysctl(f"net/bridge/bridge-nf-call-{name}", str(int(hooks)))
        self.machine.start()
        api = self.machine.api
        api.network("pods", "10.74.0.0/24", "fd74::/64", driver=driver)
        api.network("other", "10.75.0.0/24", "fd75::/64", driver=driver)
        self.server, self.sibling = Workload(self.machine, "server"), Workload(self.machine, "sibling")
        self.stranger = Workload(self.machine, "stranger")
        publish = [{"proto": proto, "host_first": 8080, "port": WEB} for proto in ("tcp", "udp")]
        self.server.attach("pods", publish=publish)
        self.sibling.attach("pods")
        self.stranger.attach("other")
        self.listeners = {
            (proto, family): self.server.ns.listen(proto, ANY[family], WEB)
            for proto in ("tcp", "udp")
            for family in (4, 6)
        }

    @property
    def keeps(self) -> bool:
        """Whether the answer to a neighbour passes connection tracking."""
        return self.driver == "routed" or self.hooks

    def rules(self, text: str, family: int) -> str:
        backend = self.server.address(family)
        return text.format(
            table="ip" if family == 4 else "ip6",
            service=SERVICE[family],
            port=SERVICE_PORT,
            node_port=NODE_PORT,
            backend=backend,
            target=f"{backend}:{WEB}" if family == 4 else f"[{backend}]:{WEB}",
            mark=MASQUERADE,
        )

    def translate(self, mode: str) -> None:
        for family in (4, 6):
            if mode == "nftables":
                self.machine.ns.sh("nft", "-f", "-", text=self.rules(NFT_MODE, family))
            else:
                command = "iptables-restore" if family == 4 else "ip6tables-restore"
                self.machine.ns.sh(command, "--noflush", text=self.rules(IPTABLES_MODE, family))
        self.heeded(translated=True)

    def heeded(self, *, translated: bool) -> None:
        """The ruleset has followed what others have made, or taken away."""
        desired = 3 if translated and self.keeps else 0
        for table in ("ip", "ip6"):
            eventually(
                lambda: self._selves(table) == desired, HEED_S, f"{desired} elements of {table} itself"
            )  # noqa: B023

    def _selves(self, table: str) -> int:
        (found,) = self.machine.ns.json("nft", "list", "set", table, "sealane", "itself")["nftables"][1:]
        return len(found["set"].get("elem", []))

    def asked(self, client: Workload, proto: str, address: str, port: int) -> str:
        """The address that the server sees; empty: there is no answer from where it was asked."""
        answer = client.ns.probe(proto, address, port, timeout=1.0).get("answer", "")
        family = 6 if ":" in address else 4
        words = str(answer).split()
        return words[1] if words and words[0] == self.listeners[proto, family].token else ""

    def close(self) -> None:
        for workload in (self.server, self.sibling, self.stranger):
            workload.close()
        for network in ("pods", "other"):
            self.machine.api.remove_network(network)
        findings = audit(self.machine)
        self.machine.close()
        assert findings == []


KINDS: list[Any] = [
    pytest.param(("bridge", True), id="bridge-with-hooks"),
    pytest.param(("bridge", False), id="bridge"),
    pytest.param(("routed", True), id="routed-with-hooks"),
    pytest.param(("routed", False), id="routed"),
]


@pytest.fixture(scope="module", params=KINDS)
def plain(request: pytest.FixtureRequest, lan: Lan) -> Iterator[Node]:
    """Nobody translates yet."""
    driver, hooks = request.param
    made = Node(lan, driver, hooks=hooks)
    yield made
    made.close()


@pytest.fixture(scope="module", params=["nftables", "iptables"])
def node(request: pytest.FixtureRequest, plain: Node) -> Iterator[Node]:
    plain.translate(request.param)
    yield plain
    plain.machine.ns.sh("nft", "flush", "ruleset")
    eventually(lambda: plain.machine.api.audit() == [], HEED_S, "the ruleset is back")
    plain.heeded(translated=False)


@pytest.fixture(params=["tcp", "udp"])
def proto(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_neighbour_keeps_its_address_on_the_way_to_a_service(node: Node, proto: str, family: int) -> None:
    seen = node.asked(node.sibling, proto, SERVICE[family], SERVICE_PORT)
    assert seen == (node.sibling.address(family) if node.keeps else GATEWAY[family])


def test_and_on_the_way_to_a_node_port(node: Node, proto: str, family: int) -> None:
    seen = node.asked(node.sibling, proto, node.machine.address(family), NODE_PORT)
    assert seen == (node.sibling.address(family) if node.keeps else GATEWAY[family])


def test_and_to_what_is_published_here(node: Node, proto: str, family: int) -> None:
    seen = node.asked(node.sibling, proto, node.machine.address(family), 8080)
    assert seen == (node.sibling.address(family) if node.keeps else GATEWAY[family])


def test_a_pod_of_another_network_keeps_its_address(node: Node, proto: str, family: int) -> None:
    seen = node.asked(node.stranger, proto, SERVICE[family], SERVICE_PORT)
    assert seen == node.stranger.address(family)


def test_a_pod_is_sent_back_to_itself(node: Node, proto: str, family: int) -> None:
    for address, port in (
        (SERVICE[family], SERVICE_PORT),
        (node.machine.address(family), 8080),
        (node.machine.address(family), NODE_PORT),
    ):
        # Whose rules are asked first, ours or those of the others, says by which address of the host.
        seen = node.asked(node.server, proto, address, port)
        assert seen in (GATEWAY[family], node.machine.address(family)), (address, port)


def test_outside_and_the_host_reach_it(node: Node, proto: str, family: int) -> None:
    listener = node.listeners[proto, family]
    host = node.machine.address(family)
    answer = node.lan.ext.probe(proto, host, NODE_PORT, timeout=1.0).get("answer", "")
    assert str(answer).split()[:2] == [listener.token, EXT[family]]
    assert node.machine.ns.reaches(listener, SERVICE[family], SERVICE_PORT)
    assert node.machine.ns.reaches(listener, host, 8080)


def test_neighbours_reach_each_other_as_before(node: Node, proto: str, family: int) -> None:
    assert node.asked(node.sibling, proto, node.server.address(family), WEB) == node.sibling.address(family)
