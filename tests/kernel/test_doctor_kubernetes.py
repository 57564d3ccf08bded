"""A node of Kubernetes on the real kernel: pods by name, a process called kube-proxy, its table."""

import subprocess
import sys
from collections.abc import Iterator

import pytest

from harness.doctored import Town, town
from harness.host import Lan, Workload
from harness.netns import Netns, eventually

pytestmark = pytest.mark.kernel

PROXY = """
import socket, time
with open("/proc/self/comm", "w") as comm:
    comm.write("kube-proxy")
server = socket.create_server(("127.0.0.1", 10256))
print("listens", flush=True)
time.sleep(600)
"""


@pytest.fixture(scope="module")
def node(lan: Lan) -> Iterator[Town]:
    with town(lan, 8) as built:
        yield built


@pytest.fixture
def pod(node: Town) -> Iterator[Workload]:
    pod = Workload(node.host, "web-0")
    pod.attach("front", namespace="shop", sandbox_name="web-0")
    yield pod
    pod.close()


@pytest.fixture
def proxy(node: Town) -> Iterator[None]:
    command = ["nsenter", f"--net={node.host.ns.path}", sys.executable, "-c", PROXY]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "listens\n"
        yield
        process.kill()


def conditions(node: Town) -> list[str]:
    return [
        each["message"] for each in node.host.api.status()["conditions"] if each["subject"] == "kubernetes"
    ]


def test_a_node_has_a_note_in_doctor_and_in_status(node: Town, pod: Workload) -> None:
    (note,) = node.found("network-policies")
    assert note["level"] == "note"
    assert node.ask()["found"] == 0
    policies, flush = conditions(node)
    assert "NetworkPolicies are not enforced" in policies
    assert "nft flush ruleset" in flush


def test_without_pods_it_is_no_node(node: Town) -> None:
    assert node.found("network-policies") == []
    assert conditions(node) == []


def test_a_pod_that_asks_the_clusters_server_is_healthy(node: Town, pod: Workload) -> None:
    """Its processes see the machine's /etc/resolv.conf, which is none of ours."""
    with Netns.enter("inside", pod.ns.path):
        assert node.found("wrong-resolver") == []


def test_kube_proxys_rules_are_gone_after_a_flush(node: Town, pod: Workload, proxy: None) -> None:
    ns = node.host.ns
    make = "table ip kube-proxy {\n chain services {\n }\n}\n"
    ns.sh("nft", "-f", "-", text=make)
    assert node.found("kube-proxy-rules") == []
    ns.sh("nft", "flush", "ruleset")
    with node.broken("kube-proxy-rules", lambda: ns.sh("nft", "-f", "-", text=make)) as (finding,):
        assert finding["level"] == "error"
        assert "kube-proxy (pid " in finding["message"]
    ns.sh("nft", "delete", "table", "ip", "kube-proxy")
    eventually(lambda: node.host.api.audit() == [], what="our own rules are back")
