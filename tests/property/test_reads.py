"""Laws of `compile.reads`: which units a changed field recompiles. Sound: no other unit's result changes. Sharp: every
listed reader can change by its field, so no unit is recompiled that never could."""

from collections.abc import Iterator

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.engines import FACTS, Bench
from property.strategies_intent import intents
from sealane.compile.host import Compiled, compile_unit, touched, units
from sealane.compile.reads import READERS
from sealane.model.change import Put, Record
from sealane.model.container import Container
from sealane.model.endpoint import Bandwidth, Endpoint, NetnsRef, PublishedPort, Sandbox
from sealane.model.intent import Intent
from sealane.model.network import GatewayLink, Network, Subnet
from sealane.wire.requests import SubnetRequest

OTHERS: dict[type[Record], dict[str, list[object]]] = {
    Network: {
        "name": ["zz", "aa"],
        "driver": ["routed", "none", "bridge"],
        "subnets": [(), (Subnet(prefix="10.77.0.0/24", gateway="10.77.0.1"),)],
        "mtu": [1280, 1400],
        "internal": [True, False],
        "icc": [True, False],
        "masquerade": [True, False],
        "source_addresses": [("192.0.2.1",), ()],
        "host_link": [
            None,
            GatewayLink(name="br-x"),
            GatewayLink(has_gateway=False),
            GatewayLink(name="br-x", adopted=True),
        ],
        "link_prefix": ["net"],
        "publish_addresses": [("192.0.2.1",)],
        "dns": [True, False],
        "dns_servers": [("192.0.2.53",)],
        "fast_path": [True, False],
        "labels": [{"a": "b"}],
        "owner": ["docker"],
    },
    Endpoint: {
        "name": ["other"],
        "sandbox": [None],
        "ifname": ["eth9"],
        "mac": ["02:00:00:00:99:99"],
        "addresses": [()],
        "aliases": [("alias",)],
        "ports": [(PublishedPort(host_first=9999, host_last=9999, port=9),), ()],
        "gateway_priority": [100, -100],
        "sysctls": [(("net/ipv4/conf/IFNAME/rp_filter", "1"),)],
        "handover": [True, False],
        "labels": [{"a": "b"}],
        "ingress": [Bandwidth(rate=10**6, burst=10**5), None],
        "egress": [Bandwidth(rate=10**6, burst=10**5), None],
        "without_gateway": [True, False],
        "dns_servers": [("192.0.2.53",)],
        "fast_path": [True, False],
        "is_lease": [True],
        "dormant": [True, False],
    },
    Sandbox: {
        "name": ["other"],
        "netns": [NetnsRef(path="/run/x", inode=9, owner="sealane"), None],
        "implicit": [True, False],
        "awaited": ["/run/x"],
        "sysctls": [(("net/ipv4/ip_forward", "1"),)],
        "labels": [{"a": "b"}],
    },
    Container: {},
}
"""Other values of each field; `id`, and the network of an endpoint, never change."""

NEVER_CHANGE = {Network: {"id"}, Endpoint: {"id", "network"}, Sandbox: {"id"}}


@pytest.mark.parametrize("kind", NEVER_CHANGE)
def test_every_field_is_tried(kind: type[Record]) -> None:
    assert set(OTHERS[kind]) == set(kind.__struct_fields__) - NEVER_CHANGE[kind]


HOST_FACTS = msgspec.structs.replace(
    FACTS, features=msgspec.structs.replace(FACTS.features, forward_drops=("ip",))
)


def results(intent: Intent) -> dict:
    return {
        unit: {(netns, item.key): item for netns, item in compile_unit(intent, HOST_FACTS, unit)}
        for unit in units(intent)
    }


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(intents(), st.data())
def test_no_unit_changes_that_is_not_said_to_read_the_field(intent: Intent, data: st.DataObject) -> None:
    records = list(intent.records())
    if not records:
        return
    record = data.draw(st.sampled_from(records))
    before = results(intent)
    for field, values in OTHERS[type(record)].items():
        value = data.draw(st.sampled_from(values))
        changed = msgspec.structs.replace(record, **{field: value})
        fields = intent.apply(Put(changed, record))
        assert fields == ({field} if getattr(record, field) != value else set())
        try:
            after = results(intent)
        except (AssertionError, StopIteration, RuntimeError):
            # A record that no verb makes: an address of a family that its network does not have.
            after = before
        said = touched(Put(changed, record), fields, intent)
        different = {unit for unit in after if after[unit] != before.get(unit)}
        intent.apply(Put(record, changed))
        assert different <= said, (type(record).__name__, field)


def hosts() -> Iterator[Intent]:
    """Two networks with endpoints in one sandbox, and one network alone: enough for every field to matter."""
    bench = Bench()
    bench.network("front", ipv6=True)
    bench.network("back", ipv6=True)
    bench.attach("/run/netns/a", "front", name="a")
    bench.attach("/run/netns/a", "back", name="a")
    yield bench.engine.intent
    for ipv6 in (False, True):
        alone = Bench()
        alone.network("front", ipv6=ipv6, subnets=[SubnetRequest(prefix="10.1.0.0/24")])
        alone.attach("/run/netns/a", name="a")
        yield alone.engine.intent


def others(record: Record, field: str) -> list[object]:
    if not (isinstance(record, Network) and field == "subnets"):
        return OTHERS[type(record)][field]
    moved = tuple(msgspec.structs.replace(s, gateway=s.gateway + "9") for s in record.subnets)
    return [moved, (*record.subnets[:1], Subnet(prefix="fd00:77::/64", gateway="fd00:77::1"))]


@pytest.mark.parametrize(
    ("kind", "field"), [(kind, field) for kind, fields in READERS.items() for field in fields]
)
def test_each_reader_that_is_listed_can_change(kind: type[Record], field: str) -> None:
    if field in NEVER_CHANGE[kind]:
        return
    found: set[str] = set()
    for start in [variant for host in hosts() for variant in variants(host)]:
        for record in [r for r in start.records() if type(r) is kind]:
            before = results(start)
            for value in others(record, field):
                changed = msgspec.structs.replace(record, **{field: value})
                start.apply(Put(changed, record))
                try:
                    after = results(start)
                except (AssertionError, StopIteration, RuntimeError):
                    after = before
                start.apply(Put(record, changed))
                found |= {unit[0] for unit in after if after[unit] != before.get(unit)}
    assert found == set(READERS[kind][field])


def variants(intent: Intent):
    """The intent, and the same with its networks of other kinds."""
    yield intent
    for fields in (
        {"masquerade": False},
        {"driver": "routed"},
        {"icc": False},
        {"host_link": GatewayLink(has_gateway=False)},
    ):
        other = Intent(intent.records())
        for network in list(other.networks.values()):
            other.apply(Put(msgspec.structs.replace(network, **fields), network))
        ports = (PublishedPort(host_first=8080, host_last=8080, port=80),)
        for endpoint in list(other.endpoints.values())[:1]:
            other.apply(Put(msgspec.structs.replace(endpoint, ports=ports), endpoint))
        yield other


@pytest.mark.parametrize(
    ("change", "count"),
    [
        (lambda n: {"dns_servers": ("192.0.2.53",)}, 0),
        (lambda n: {"labels": {"a": "b"}}, 0),
        (lambda n: {"source_addresses": ("192.0.2.1",)}, 1),
        (lambda n: {"mtu": 1300}, 1 + 50),
    ],
    ids=["dns servers", "labels", "source addresses", "mtu"],
)
def test_a_change_of_a_network_recompiles_what_it_concerns(change, count: int) -> None:
    bench = Bench()
    view = bench.network("front")
    for number in range(50):
        bench.attach(f"/run/netns/{number}")
    intent = bench.engine.intent
    network = intent.networks[view.id]
    changed = msgspec.structs.replace(network, **change(network))
    compiled = Compiled(intent, FACTS)
    fields = intent.apply(Put(changed, network))
    recompiled = touched(Put(changed, network), fields, intent)
    assert len(recompiled) == count
    compiled.refresh(intent, recompiled)
    assert compiled.desired == Compiled(intent, FACTS).desired
