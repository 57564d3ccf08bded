"""Asking again: for the same it is answered as before, for something else it is refused, and no field is overlooked."""

import msgspec
import pytest

from harness.engines import Bench, subnets
from sealane.engine import builder
from sealane.engine.errors import ConflictError, ExistsError
from sealane.model.endpoint import NetnsRef
from sealane.model.network import Network
from sealane.wire.requests import AttachRequest, PublishRequest, SandboxRequest

A = "/run/netns/a"


def publish(host_first: int, port: int, **others: object) -> PublishRequest:
    return PublishRequest(host_first=host_first, port=port, **others)  # type: ignore[arg-type]


@pytest.fixture
def bench() -> Bench:
    bench = Bench()
    bench.network("front", ipv6=True, subnets=list(subnets("10.1.0.0/24", "fd00:1::/64")))
    return bench


OTHERWISE = {
    "name": "other",
    "addresses": ["10.1.0.99"],
    "mac": "02:00:00:00:00:01",
    "ifname": "other0",
    "aliases": ["other"],
    "publish": [publish(8080, 81)],
    "gateway_priority": 1,
    "sysctls": {"net.ipv4.conf.IFNAME.forwarding": "1"},
    "labels": {"a": "b"},
    "ingress": {"rate": 1_000_000},
    "egress": {"rate": 1_000_000},
    "without_gateway": True,
    "dns_servers": ["192.0.2.53"],
    "fast_path": False,
}
"""A value for each field, other than that of a plain attach."""

PLACE = {"sandbox", "network", "sandbox_name", "namespace"}


def test_every_field_of_an_attach_is_looked_at(bench: Bench) -> None:
    assert {*OTHERWISE, *PLACE} == set(AttachRequest.__struct_fields__)
    bench.attach(A)
    for field, value in OTHERWISE.items():
        other = msgspec.convert({"sandbox": A, "network": "front", field: value}, AttachRequest)
        with pytest.raises(ConflictError) as caught:
            bench.engine.attach(other)
        assert caught.value.field == field


@pytest.mark.parametrize("field", OTHERWISE)
def test_an_attach_may_be_asked_for_again(bench: Bench, field: str) -> None:
    request = msgspec.convert({"sandbox": A, "network": "front", field: OTHERWISE[field]}, AttachRequest)
    assert bench.engine.attach(request) == bench.engine.attach(request)


@pytest.mark.parametrize(
    "options",
    [
        {"addresses": ["FD00:1:0::9"]},
        {"mac": "02-AB-00-00-00-01"},
        {"publish": [publish(8080, 80, host_address="FD00:1:0::7")]},
        {"publish": [publish(8000, 9000, host_last=8010)]},
        {"publish": [publish(8000, 9000, count=11)]},
        {"publish": [publish(8000, 80, host_last=8010, one_of=True)]},
        {"publish": [publish(0, 80)]},
        {"publish": [publish(8080, 80, host_address="0.0.0.0")]},
    ],
)
def test_however_it_is_spelt(bench: Bench, options: dict) -> None:
    assert bench.attach(A, **options) == bench.attach(A, **options)


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (publish(8000, 9000, count=11), publish(8000, 9000, count=2)),
        (publish(8000, 9000, host_last=8010), publish(8000, 9000, host_last=8001)),
        (publish(8000, 80), publish(8001, 81, host_last=8010, one_of=True)),
        (publish(8000, 80), publish(8001, 80, host_last=8010, one_of=True)),
        (publish(8000, 80), publish(8000, 80, proto="udp")),
        (publish(8000, 80), publish(8000, 80, host_address="192.0.2.1")),
    ],
)
def test_other_ports_are_not_the_same(bench: Bench, first: PublishRequest, then: PublishRequest) -> None:
    bench.attach(A, publish=[first])
    with pytest.raises(ConflictError) as caught:
        bench.attach(A, publish=[then])
    assert caught.value.field == "publish"


def test_ports_given_in_two_ways_may_be_one(bench: Bench) -> None:
    bench.attach(A, publish=[publish(8000, 9000, count=3)])
    bench.attach(A, publish=[publish(8000, 9000, host_last=8002)])


def test_every_field_of_a_network_is_compared() -> None:
    """But for what is chosen for it, compared by itself, or nothing that a request says."""
    assert builder.CHOSEN == {"id", "name", "subnets", "host_link", "owner"}
    assert set(Network.__struct_fields__) > builder.CHOSEN


def test_a_network_without_the_fast_path_is_another(bench: Bench) -> None:
    with pytest.raises(ExistsError) as caught:
        bench.network("front", ipv6=True, options={"fast-path": "false"})
    assert caught.value.field == "fast_path"


class TestSandboxes:
    def test_a_namespace_is_one_sandbox(self, bench: Bench) -> None:
        """By whatever name it came first: one that is joined without being asked about is one, too."""
        bench.attach(A)
        with pytest.raises(ConflictError, match="that namespace is sandbox") as refusal:
            bench.engine.create_sandbox(SandboxRequest(name="other", netns=A))
        assert refusal.value.field == "netns"
        assert len(bench.engine.intent.sandboxes) == 1
        [name] = bench.engine.intent.sandbox_ids
        assert bench.engine.create_sandbox(SandboxRequest(name=name, netns=A)).name == name

    def test_of_a_pid_may_be_asked_for_again(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        def resolve(where: str) -> NetnsRef:
            return NetnsRef(path=f"/proc/{where}/ns/net" if where.isdigit() else where, inode=7)

        monkeypatch.setattr(bench.kernel, "resolve_namespace", resolve)
        first = bench.engine.create_sandbox(SandboxRequest(name="a", netns="812"))
        assert bench.engine.create_sandbox(SandboxRequest(name="a", netns="812")) == first
        assert bench.engine.create_sandbox(SandboxRequest(name="a", netns="/run/netns/elsewhere")) == first

    def test_one_of_our_own_is_not_somebody_elses(self, bench: Bench) -> None:
        bench.engine.create_sandbox(SandboxRequest(name="a", netns=A))
        with pytest.raises(ExistsError):
            bench.engine.create_sandbox(SandboxRequest(name="a"))

    def test_of_another_namespace_is_another(self, bench: Bench) -> None:
        bench.engine.create_sandbox(SandboxRequest(name="a", netns=A))
        with pytest.raises(ExistsError):
            bench.engine.create_sandbox(SandboxRequest(name="a", netns="/run/netns/b"))
