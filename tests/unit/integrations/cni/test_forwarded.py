"""Calls that come as their runtime made them, on a kernel in memory."""

import asyncio
import json

import pytest

import harness.integration
from sealane.engine.errors import ExistsError, InvalidError
from sealane.integrations.cni import forwarded
from sealane.integrations.cni.verbs import Cni
from sealane.programs.cni import VERSIONS

RANGES = {"type": "sealane", "ranges": [[{"subnet": "10.88.0.0/24"}]]}
LEASE = {"cniVersion": "1.1.0", "ips": [{"address": "10.88.0.9/24", "gateway": "10.88.0.1"}]}


class Door(harness.integration.Door):
    def __init__(self):
        super().__init__(lambda bench, detach: Cni(bench.engine, detach))

    def __call__(self, verb, lease=None, **config):
        environ = {
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": "c1",
            "CNI_IFNAME": "eth0",
            "CNI_NETNS": "/run/netns/a",
            "CNI_PATH": "/opt/cni/bin",
            "CNI_ARGS": "K8S_POD_NAME=web",
        }
        entries = "".join(f"{name}={value}\0" for name, value in environ.items())
        document = {"cniVersion": "1.1.0", "name": "pods", "type": "sealane", "ipam": RANGES, **config}
        body = f"{entries}\0{json.dumps(document)}" + ("" if lease is None else f"\0{json.dumps(lease)}")
        call = forwarded.ForwardedBody().decode(body.encode())
        return asyncio.run(forwarded.answer(self.verbs, call))

    def names(self):
        return [endpoint.name for endpoint in self.engine.endpoints()]


@pytest.fixture
def integration():
    integration = Door()
    yield integration
    assert integration.bench.is_clean()


@pytest.mark.parametrize("version", VERSIONS)
def test_an_add_is_answered_with_what_is_to_be_printed(integration, version):
    result = integration("ADD", cniVersion=version)
    assert result["cniVersion"] == version
    assert "10.88.0.2/24" in json.dumps(result)
    assert integration.names() == ["web"]


def test_a_del_has_no_answer(integration):
    integration("ADD")
    assert integration("DEL") is None
    assert integration.names() == []
    assert integration("DEL") is None


def test_what_came_before_in_the_chain_stays_before(integration):
    before = {"cniVersion": "1.1.0", "interfaces": [{"name": "lo"}]}
    names = [i["name"] for i in integration("ADD", prevResult=before)["interfaces"]]
    assert (names[0], names[-1], len(names)) == ("lo", "eth0", 3)


class TestIpamOfSomebodyElse:
    IPAM = {"type": "host-local", "subnet": "10.88.0.0/24"}  # noqa: RUF012

    def test_it_is_asked_before_anything_is_done(self, integration):
        assert integration("ADD", ipam=self.IPAM) == "host-local"
        assert integration.names() == []
        assert integration.engine.networks() == []

    def test_its_addresses_are_taken(self, integration):
        assert integration("ADD", LEASE, ipam=self.IPAM)["ips"][0]["address"] == "10.88.0.9/24"

    def test_on_del_it_comes_last(self, integration):
        integration("ADD", LEASE, ipam=self.IPAM)
        assert integration("DEL", ipam=self.IPAM) == "host-local"
        assert integration.names() == []

    @pytest.mark.parametrize("lease", ["", {"cniVersion": "9"}, {"ips": []}])
    def test_an_answer_that_is_none_attaches_nothing(self, integration, lease):
        with pytest.raises(InvalidError):
            integration("ADD", lease, ipam=self.IPAM)
        assert integration.names() == []

    def test_a_name_that_json_would_quote_is_not_sent(self, integration):
        with pytest.raises(InvalidError):
            integration("ADD", ipam={"type": 'a"b'})


@pytest.mark.parametrize(
    "config",
    [
        {"cniVersion": "9.9.9"},
        {"name": "no/name"},
        {"ipMask": True},
        {"mtu": "many"},
        {"ipam": 3},
        {"prevResult": {"cniVersion": "9"}},
        {"runtimeConfig": {"portMappings": [{"hostPort": "x"}]}},
    ],
    ids=lambda config: next(iter(config)),
)
def test_what_is_wrong_with_a_call_changes_nothing(integration, config):
    with pytest.raises(InvalidError):
        integration("ADD", **config)
    assert integration.engine.networks() == []


def test_what_the_engine_refuses_is_refused(integration):
    integration("ADD")
    with pytest.raises(ExistsError):
        integration("ADD", mtu=1234)


@pytest.mark.parametrize("verb", ["CHECK", "GC", "STATUS", "VERSION", ""])
def test_other_verbs_are_not_handed_over(integration, verb):
    with pytest.raises(InvalidError):
        integration(verb)


@pytest.mark.parametrize("data", [b"", b"CNI_COMMAND=ADD", b"CNI_COMMAND=ADD\0{}", b"\0", b"\xff\0\0"])
def test_a_body_that_is_none_is_refused(integration, data):
    with pytest.raises(InvalidError):
        asyncio.run(forwarded.answer(integration.verbs, forwarded.ForwardedBody().decode(data)))


def test_values_may_hold_anything_but_a_zero_byte():
    call = forwarded.ForwardedBody().decode(b"CNI_ARGS=a=b;c=d\0CNI_PATH=/\xff\0\0{}\0")
    assert call.environ == {"CNI_ARGS": "a=b;c=d", "CNI_PATH": "/\udcff"}
    assert (call.stdin, call.leased) == (b"{}", b"")
