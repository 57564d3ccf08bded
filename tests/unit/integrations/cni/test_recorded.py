"""Calls of containerd's CRI, as go-cni writes them: Go's field names, and null for lists that were never filled.

`calls/containerd-1.6.json` was recorded under a kubelet, `calls/containerd-2.json` is written after its source.
"""

import asyncio
import copy
import json
import pathlib

import pytest

import harness.integration
from sealane.engine.errors import InvalidError
from sealane.integrations.cni import forwarded
from sealane.integrations.cni.verbs import Cni
from sealane.programs.cni.errors import CniError
from sealane.programs.cni.spec import read_request

CALLS = pathlib.Path(__file__).parent / "calls"
NETNS = "/run/netns/a"


def calls_of(name, verb, ifname="eth0"):
    document = json.loads((CALLS / f"{name}.json").read_text())
    found = [
        call
        for call in document["calls"]
        if call["environ"]["CNI_COMMAND"] == verb and call["environ"].get("CNI_IFNAME", ifname) == ifname
    ]
    assert found
    return copy.deepcopy(found)


class Door(harness.integration.Door):
    def __init__(self):
        super().__init__(lambda bench, detach: Cni(bench.engine, detach))

    def __call__(self, call, netns=NETNS):
        environ = call["environ"] | {"CNI_NETNS": netns}
        entries = "".join(f"{name}={value}\0" for name, value in environ.items())
        body = forwarded.ForwardedBody().decode(f"{entries}\0{json.dumps(call['stdin'])}".encode())
        return asyncio.run(forwarded.answer(self.verbs, body))

    def whole(self, call):
        """As the executable asks for what it does not hand over."""
        request = read_request(call["environ"] | {"CNI_NETNS": NETNS}, json.dumps(call["stdin"]).encode())
        asyncio.run(self.verbs.call(forwarded.asked(request)))


@pytest.fixture
def integration():
    integration = Door()
    yield integration
    assert integration.bench.is_clean()


def test_a_pod_under_a_kubelet_is_attached_with_all_that_it_asks_for(integration):
    call = calls_of("containerd-1.6", "ADD")[0]
    result = integration(call)
    assert result["ips"][0]["address"] == "10.88.0.2/16"
    assert result["dns"] == {
        "nameservers": ["10.96.0.10"],
        "search": ["default.svc.cluster.local", "svc.cluster.local", "cluster.local"],
        "options": ["ndots:5"],
    }
    (endpoint,) = integration.engine.intent.endpoints.values()
    assert [str(port) for port in endpoint.ports] == ["*:8080->80/tcp"]
    assert endpoint.ingress.rate == 10_000_000
    # The highest 32-bit number is no burst that anybody asked for.
    assert (endpoint.egress.rate, endpoint.egress.burst) == (5_000_000, 50_000)


def test_lists_that_are_null_are_empty(integration):
    call = calls_of("containerd-1.6", "ADD")[1]
    assert call["stdin"]["runtimeConfig"]["dns"]["Searches"] is None
    assert integration(call)["dns"] == {"nameservers": ["10.96.0.10"]}


@pytest.mark.parametrize("name", ["containerd-1.6", "containerd-2"])
def test_each_pod_is_attached_and_leaves_nothing(integration, name):
    for add, delete in zip(calls_of(name, "ADD"), calls_of(name, "DEL"), strict=True):
        integration(add)
        assert len(integration.engine.endpoints()) == 1
        integration(delete | {"environ": add["environ"] | {"CNI_COMMAND": "DEL"}})
        assert integration.engine.endpoints() == []
        integration.engine.remove_network("pods")


def test_ranges_of_go_cni_are_one_list(integration):
    call = calls_of("containerd-2", "ADD")[0]
    assert integration(call)["ips"][0]["address"] == "10.77.0.128/24"
    (endpoint,) = integration.engine.intent.endpoints.values()
    assert [str(port) for port in endpoint.ports] == ["*:8080->80/tcp", "127.0.0.1:8053->53/udp"]
    assert endpoint.labels["sealane.cni.cgroup"].startswith("/kubepods/besteffort/")
    assert endpoint.ingress is None


def test_check_status_and_gc_of_containerd_2(integration):
    add = calls_of("containerd-2", "ADD")[0]
    for call in calls_of("containerd-2", "STATUS"):
        integration.whole(call)
    answered = integration(add)
    check = calls_of("containerd-2", "CHECK")[0]
    check["stdin"]["prevResult"] = answered
    integration.whole(check)
    for call in calls_of("containerd-2", "GC"):
        integration.whole(call)
    assert integration.engine.endpoints() == []


WRONG = {
    "runtimeConfig": {"portMappings": [{"HostPort": "no number"}], "dns": 5, "bandwidth": []},
    "ipMsaq": True,
    "mtu": "many",
    "ipam": {"type": "sealane", "ranges": 7, "dataDir": "/x"},
    "args": {"cni": 3},
    "dns": [],
}
"""An object that somebody has spoiled between ADD and DEL."""


@pytest.mark.parametrize("key", WRONG)
def test_del_check_and_gc_do_not_judge_what_only_an_add_needs(integration, key):
    add = calls_of("containerd-2", "ADD")[0]
    answered = integration(add)
    spoiled = {key: WRONG[key]}
    with pytest.raises(InvalidError):
        integration({**add, "stdin": add["stdin"] | spoiled})
    check = calls_of("containerd-2", "CHECK")[0]
    integration.whole({**check, "stdin": check["stdin"] | {"prevResult": answered} | spoiled})
    valid = [{"containerID": check["environ"]["CNI_CONTAINERID"], "ifname": "eth0"}]
    for call in calls_of("containerd-2", "GC"):
        integration.whole({**call, "stdin": call["stdin"] | {"cni.dev/valid-attachments": valid} | spoiled})
    assert len(integration.engine.endpoints()) == 1
    delete = calls_of("containerd-2", "DEL")[0]
    integration({**delete, "stdin": delete["stdin"] | spoiled | {"prevResult": "spoiled too"}})
    assert integration.engine.endpoints() == []


def test_a_del_of_unknown_args_is_done(integration):
    add, delete = calls_of("containerd-2", "ADD")[0], calls_of("containerd-2", "DEL")[0]
    integration(add)
    delete["environ"]["CNI_ARGS"] = "FOO=1;BAR"
    integration(delete)
    assert integration.engine.endpoints() == []


def test_what_nobody_knows_of_a_capability_is_passed_over(integration):
    add = calls_of("containerd-2", "ADD")[1]
    add["stdin"]["runtimeConfig"] = {
        "dns": {"Servers": ["10.96.0.10"], "Timeout": 3},
        "portMappings": [{"HostPort": 80, "ContainerPort": 80, "Protocol": "TCP", "Name": "web"}],
        "somethingNew": {"A": None},
    }
    assert integration(add)["dns"] == {"nameservers": ["10.96.0.10"]}


def test_the_exact_name_goes_before_one_of_other_letters():
    """As encoding/json has it."""
    add = calls_of("containerd-2", "ADD")[1]
    add["stdin"]["runtimeConfig"] = {"dns": {"SERVERS": ["192.0.2.1"], "servers": ["192.0.2.2"]}}
    request = read_request(add["environ"], json.dumps(add["stdin"]).encode())
    assert request.document()["config"]["runtimeConfig"]["dns"] == {"servers": ["192.0.2.2"]}


@pytest.mark.parametrize("wrong", [{"portMappings": [{"HostPort": "x"}]}, {"dns": 3}, {"portMappings": {}}])
def test_a_value_of_another_kind_is_refused(integration, wrong):
    add = calls_of("containerd-2", "ADD")[1]
    add["stdin"]["runtimeConfig"] = wrong
    with pytest.raises((InvalidError, CniError)):
        integration(add)
