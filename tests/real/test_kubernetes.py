"""A node of a real Kubernetes: what kubelet, containerd's CRI, go-cni and kube-proxy ask of us, and what pods get."""

import json
from collections.abc import Iterator

import pytest

from harness.kubernetes import NODE, Cluster, missing, pod
from harness.netns import eventually

pytestmark = [pytest.mark.real, pytest.mark.kernel, pytest.mark.timeout(600)]

if missing():
    pytest.skip(missing(), allow_module_level=True)

SUBNET = "10.244.0.0/29"
"""Five addresses for pods."""
SERVES = ("httpd", "-f", "-p", "80", "-h", "/bin")
PAGE = "/busybox"
PYTHON = ("/usr", "/lib", "/lib64")
"""What a pod needs of the node to run Python."""
NAME_SERVER = """
import socket
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.setsockopt(socket.IPPROTO_IP, 8, 1)  # IP_PKTINFO: the answer leaves from where the question came to.
server.bind(("0.0.0.0", 53))
while True:
    query, ancillary, _, peer = server.recvmsg(512, 64)
    question = query[12 : query.index(0, 12) + 5]
    answer = bytes([0xC0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 192, 0, 2, 7])
    header = query[:2] + bytes([0x84, 0, 0, 1, 0, 1, 0, 0, 0, 0])
    server.sendmsg([header, question, answer], ancillary, 0, peer)
"""
SHOP, BLOG = "shop/web-0", "blog/web-0"


@pytest.fixture(scope="module")
def node() -> Iterator[Cluster]:
    """With the plugin installed, two namespaces, and a pod of the same name in each."""
    with Cluster() as running:
        running.sealane("cni", "install", "--subnet", SUBNET)
        running.wait("condition=Ready", "node/node1")
        running.apply(
            *(
                {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
                for name in ("shop", "blog")
            ),
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": "web", "namespace": "shop"},
                "spec": {"selector": {"app": "web-0"}, "ports": [{"port": 8000, "targetPort": 80}]},
            },
            pod("web-0", "shop", *SERVES, host_port=8080),
            pod("web-0", "blog"),
        )
        for namespace in ("shop", "blog"):
            running.wait("condition=Ready", "pod/web-0", "-n", namespace)
        yield running


def test_two_pods_of_one_name_are_two(node: Cluster) -> None:
    found = node.endpoints()
    assert set(found) == {SHOP, BLOG}
    told = {
        f"{item['metadata']['namespace']}/{item['metadata']['name']}": item["status"]["podIP"]
        for item in node.get("pods", "-A")["items"]
    }
    assert {name: view["addresses"][0].partition("/")[0] for name, view in found.items()} == told
    header, *rows = node.sealane("endpoint", "ls").stdout.splitlines()
    assert header.split()[1:3] == ["NAMESPACE", "NAME"]
    assert {tuple(row.split()[1:3]) for row in rows} == {("shop", "web-0"), ("blog", "web-0")}


def test_explain_knows_them_by_namespace_and_refuses_what_may_mean_both(node: Cluster) -> None:
    assert "delivered to shop/web-0" in node.sealane("explain", BLOG, f"{SHOP}:80").stdout
    refused = node.sealane("explain", "web-0", f"{SHOP}:80", check=False)
    assert refused.returncode == 2
    assert BLOG in refused.stderr
    assert SHOP in refused.stderr


def test_check_probes_pods_by_namespace_and_name(node: Cluster) -> None:
    view = json.loads(node.sealane("--json", "check", BLOG, SHOP).stdout)
    assert (view["rows"], view["columns"], view["disagree"]) == ([BLOG], [SHOP], 0)


def test_a_pod_talks_to_itself_and_to_another(node: Cluster) -> None:
    assert node.in_pod(SHOP, "curl", "-sf", "-o", "/dev/null", f"http://127.0.0.1{PAGE}").returncode == 0
    address = node.endpoints()[SHOP]["addresses"][0].partition("/")[0]
    assert node.in_pod(BLOG, "curl", "-sf", "-o", "/dev/null", f"http://{address}{PAGE}").returncode == 0


@pytest.mark.parametrize("where", ["a neighbour", "the node", "the node's loopback"])
def test_a_host_port_is_answered(node: Cluster, where: str) -> None:
    url = f"http://{'127.0.0.1' if 'loopback' in where else NODE}:8080{PAGE}"
    ask = node.outside if where == "a neighbour" else node.node
    assert ask("curl", "-sf", "-m5", "-o", "/dev/null", url).returncode == 0


def test_a_service_is_reached_through_kube_proxy(node: Cluster) -> None:
    address = node.get("service", "web", "-n", "shop")["spec"]["clusterIP"]
    url = f"http://{address}:8000{PAGE}"
    for name in (BLOG, SHOP):
        eventually(
            lambda name=name: (
                node.in_pod(name, "curl", "-sf", "-m5", "-o", "/dev/null", url, check=False).returncode == 0
            ),
            what=f"{name} reaches the Service",
        )


def test_doctor_finds_nothing_and_says_what_is_missing(node: Cluster) -> None:
    done = node.sealane("--json", "doctor")
    view = json.loads(done.stdout)
    assert (done.returncode, view["found"], view["unseen"]) == (0, 0, {})
    assert [finding["cause"] for finding in view["findings"]] == ["network-policies"]
    status = node.sealane("status").stdout
    assert "NetworkPolicies are not enforced" in status
    assert "nft flush ruleset" in status


def test_a_dns_server_on_the_nodes_network_has_port_53(node: Cluster) -> None:
    """As a cluster's or node-local DNS does on every address: by a pod on the host's network."""
    gateway = node.endpoints()[BLOG]["gateways"][0]
    node.apply(pod("dns", "default", "/usr/bin/python3", "-c", NAME_SERVER, hostNetwork=True, files=PYTHON))
    node.wait("condition=Ready", "pod/dns")
    for server in (NODE, gateway):
        dig = ("dig", "+short", "+time=2", "+tries=1", "kube.test", f"@{server}")
        eventually(
            lambda dig=dig: node.in_pod(BLOG, *dig, check=False).stdout == "192.0.2.7\n",
            what=f"the server answers at {server}",
        )
    node.kubectl("delete", "pod", "dns")


def test_kube_proxys_rules_are_missed_after_a_flush(node: Cluster) -> None:
    """Ours come back by themselves; kube-proxy's do when it is started again, as the page and `status` say."""
    node.node("nft", "flush", "ruleset")
    eventually(lambda: node.sealane("audit", check=False).returncode == 0, what="our rules are back")
    view = json.loads(node.sealane("--json", "doctor", check=False).stdout)
    assert "kube-proxy-rules" in [finding["cause"] for finding in view["findings"]]
    node.restart("proxy")
    eventually(lambda: node.sealane("doctor", check=False).returncode == 0, what="its rules are back")


def test_a_full_subnet_fails_pods_and_not_the_node(node: Cluster) -> None:
    """containerd 2 makes a node NotReady whose plugin fails STATUS, so that is asked here too."""
    node.apply(*(pod(f"fill-{number}", "default") for number in range(5)))

    def refused() -> bool:
        events = node.get("events", "--field-selector", "reason=FailedCreatePodSandBox")["items"]
        return any("is full" in event["message"] for event in events)

    eventually(refused, 60, "a pod is refused since no address is free")
    assert len(node.endpoints()) == 5
    (config,) = json.loads(node.node("cat", "/etc/cni/net.d/10-sealane.conflist").stdout)["plugins"]
    asked = {**config, "cniVersion": "1.1.0", "name": "pods"}
    status = node.node(
        "env", "CNI_COMMAND=STATUS", "CNI_PATH=/opt/cni/bin", "/opt/cni/bin/sealane", text=json.dumps(asked)
    )
    assert status.stdout == ""
    conditions = node.get("node", "node1")["status"]["conditions"]
    assert [c["status"] for c in conditions if c["type"] == "Ready"] == ["True"]


def test_pods_that_are_deleted_leave_nothing(node: Cluster) -> None:
    for namespace in ("shop", "blog", "default"):
        node.kubectl("delete", "pods", "--all", "-n", namespace, "--timeout=60s")
    # A sandbox of one that was never ready is taken away by the kubelet a moment later.
    eventually(lambda: node.endpoints() == {}, 60, "no endpoint is left")
    assert json.loads(node.sealane("--json", "sandbox", "ls").stdout) == []
    links = json.loads(node.node("ip", "-j", "link", "show", "type", "veth").stdout)
    assert [link["ifname"] for link in links] == ["eth0"]
    assert node.sealane("audit").returncode == 0
    assert "8080" not in node.node("nft", "list", "table", "ip", "sealane").stdout
