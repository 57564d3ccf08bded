"""`create`, by the cases of netavark's own test/700-create.bats: what is left open is chosen, what is said is checked."""

from datetime import UTC, datetime

import msgspec
import pytest

from harness.engines import FACTS, Bench
from sealane.compile.facts import ForeignRoute
from sealane.engine.errors import ConflictError, ExhaustedError, ExistsError, InvalidError
from sealane.integrations.netavark.create import Creator
from sealane.wire.netavark import NetavarkCreate
from sealane.wire.requests import NetworkRequest, SubnetRequest

ID = "abc123def4567890123456789012345678901234567890123456789012345678"
NOW = datetime(2026, 11, 26, 20, 0, tzinfo=UTC)
BASIC = {
    "name": "testnet1",
    "id": ID,
    "driver": "bridge",
    "dns_enabled": False,
    "internal": False,
    "ipv6_enabled": False,
}
USED = {"interfaces": [], "names": {}, "subnets": []}
OPTIONS = {
    "subnet_pools": [{"base": "10.89.0.0/16", "size": 24}],
    "default_interface_name": "podman",
    "check_used_subnets": True,
}


@pytest.fixture
def bench():
    return Bench()


@pytest.fixture
def create(bench):
    def call(used=None, creation=None, facts=FACTS, **network):
        document = {
            "network": {**BASIC, **network},
            "used": {**USED, **(used or {})},
            "options": {**OPTIONS, **(creation or {})},
        }
        request = msgspec.convert(document, NetavarkCreate)
        creator = Creator(bench.engine.intent, facts, bench.kernel.foreign_link)
        made = creator.complete(request, NOW)
        msgspec.json.encode(made)
        return made

    return call


def test_what_is_left_open_is_chosen(create):
    assert create() == {
        **BASIC,
        "network_interface": "podman1",
        "subnets": [{"subnet": "10.89.0.0/24", "gateway": "10.89.0.1"}],
        "ipam_options": {"driver": "host-local"},
        "created": "2026-11-26T20:00:00+00:00",
    }


def test_what_podman_adds_comes_back(create):
    made = create(labels={"key1": "value1"}, surprise={"in": ["version", 7]})
    assert made["labels"] == {"key1": "value1"}
    assert made["surprise"] == {"in": ["version", 7]}


class TestNames:
    def test_one_that_is_taken(self, create):
        with pytest.raises(ExistsError, match="network already exists testnet1"):
            create(used={"names": {"testnet1": ID}})

    @pytest.mark.parametrize("name", ["", "badname!", "-x", "x" * 64])
    def test_one_that_is_none(self, create, name):
        with pytest.raises(InvalidError) as caught:
            create(name=name)
        assert caught.value.field == "network.name"

    @pytest.mark.parametrize("identity", ["", ID[1:], f"{ID}0", "x" * 64])
    def test_an_id_that_is_none(self, create, identity):
        with pytest.raises(InvalidError) as caught:
            create(id=identity)
        assert caught.value.field == "network.id"


class TestInterfaces:
    def test_the_first_that_nobody_has(self, create, bench):
        bench.kernel.foreign_links["podman2"] = "bridge"
        bench.network("other", options={"bridge": "podman3"})
        made = create(used={"interfaces": ["podman1"], "names": {"podman4": ID}})
        assert made["network_interface"] == "podman5"

    @pytest.mark.parametrize("options", [{}, {"com.docker.network.bridge.name": "br7"}])
    def test_one_asked_for(self, create, options):
        made = create(network_interface="br7", options=options)
        assert made["network_interface"] == "br7"
        assert "options" not in made or made["options"] in ({}, None)

    def test_one_in_use(self, create, bench):
        with pytest.raises(ConflictError, match="bridge name usedinterface already in use"):
            create(network_interface="usedinterface", used={"interfaces": ["usedinterface"]})
        bench.kernel.foreign_links["br7"] = "bridge"
        with pytest.raises(ConflictError, match="bridge name br7 already in use"):
            create(network_interface="br7")

    def test_but_an_unmanaged_one_has_to_be(self, create, bench):
        bench.kernel.foreign_links["br7"] = "bridge"
        made = create(network_interface="br7", options={"mode": "unmanaged"})
        assert made["network_interface"] == "br7"

    @pytest.mark.parametrize("name", ["a b", "a/b", "x" * 16])
    def test_one_that_is_none(self, create, name):
        with pytest.raises(InvalidError) as caught:
            create(network_interface=name)
        assert caught.value.field == "network.network_interface"


class TestSubnets:
    def test_explicit(self, create):
        made = create(subnets=[{"subnet": "10.100.0.0/24"}])
        assert made["subnets"] == [{"subnet": "10.100.0.0/24", "gateway": "10.100.0.1"}]

    def test_with_its_gateway_and_range(self, create):
        asked = {
            "subnet": "10.100.0.0/24",
            "gateway": "10.100.0.50",
            "lease_range": {"start_ip": "10.100.0.20", "end_ip": "10.100.0.60"},
        }
        assert create(subnets=[asked])["subnets"] == [asked]

    def test_a_range_with_a_beginning_alone(self, create):
        asked = {"subnet": "10.100.0.0/24", "lease_range": {"start_ip": "10.100.0.20"}}
        assert create(subnets=[asked])["subnets"][0]["lease_range"] == {"start_ip": "10.100.0.20"}

    def test_an_internal_one_without_names_has_no_gateway(self, create):
        assert create(internal=True)["subnets"] == [{"subnet": "10.89.0.0/24"}]
        assert create(internal=True, dns_enabled=True)["subnets"][0]["gateway"] == "10.89.0.1"

    def test_what_is_used_is_left_out(self, create, bench):
        bench.network("other", subnets=[SubnetRequest(prefix="10.89.1.0/24")])
        facts = msgspec.structs.replace(
            FACTS, foreign_routes=(ForeignRoute("10.89.2.0/24", "route via eth9"),)
        )
        made = create(used={"subnets": ["10.89.0.0/24"]}, facts=facts)
        assert made["subnets"][0]["subnet"] == "10.89.3.0/24"

    def test_podmans_word_counts_only_if_it_says_so(self, create):
        made = create(used={"subnets": ["10.89.0.0/24"]}, creation={"check_used_subnets": False})
        assert made["subnets"][0]["subnet"] == "10.89.0.0/24"

    def test_the_next_pool_when_one_is_full(self, create):
        pools = [
            {"base": "10.89.0.0/24", "size": 24},
            {"base": "fd00::/48", "size": 64},
            {"base": "10.91.0.0/23", "size": 24},
        ]
        made = create(used={"subnets": ["10.89.0.0/24"]}, creation={"subnet_pools": pools})
        assert made["subnets"][0]["subnet"] == "10.91.0.0/24"
        with pytest.raises(ExhaustedError, match="could not find free subnet"):
            create(used={"subnets": ["10.89.0.0/24"]}, creation={"subnet_pools": pools[:1]})

    def test_a_pool_that_is_none(self, create):
        with pytest.raises(InvalidError) as caught:
            create(creation={"subnet_pools": [{"base": "10.89.0.0/16", "size": 8}]})
        assert caught.value.field == "options.subnet_pools[0].size"

    @pytest.mark.parametrize(
        ("subnet", "field"),
        [
            ({"subnet": "10.100.0.0"}, "network.subnets[0].subnet"),
            ({"subnet": "10.100.0.0/24", "gateway": "10.200.0.1"}, "network.subnets[0].gateway"),
            (
                {"subnet": "10.100.0.0/24", "lease_range": {"start_ip": "10.200.0.20"}},
                "network.subnets[0].lease_range.start_ip",
            ),
            (
                {"subnet": "10.100.0.0/24", "lease_range": {"end_ip": "x"}},
                "network.subnets[0].lease_range.end_ip",
            ),
            ({"subnet": "10.100.0.0/31"}, "network.subnets"),
        ],
    )
    def test_what_is_wrong_is_named(self, create, subnet, field):
        with pytest.raises(InvalidError) as caught:
            create(subnets=[subnet])
        assert caught.value.field == field

    def test_overlaps(self, create):
        with pytest.raises(ConflictError):
            create(subnets=[{"subnet": "10.1.3.248/30"}], used={"subnets": ["10.1.3.0/24"]})
        with pytest.raises(ConflictError):
            create(subnets=[{"subnet": "10.1.3.0/24"}, {"subnet": "10.1.3.128/25"}])

    def test_sealanes_network_of_that_name_is_to_be_joined(self, create, bench):
        bench.engine.create_network(
            NetworkRequest(name="testnet1", subnets=[SubnetRequest(prefix="10.100.0.0/24")])
        )
        assert create(subnets=[{"subnet": "10.100.0.0/24"}])["subnets"][0]["gateway"] == "10.100.0.1"


class TestIpv6:
    def test_both_families_from_pools(self, create):
        made = create(ipv6_enabled=True)
        assert [":" in s["subnet"] for s in made["subnets"]] == [False, True]
        assert made["ipv6_enabled"] is True

    def test_beside_an_explicit_one(self, create):
        made = create(ipv6_enabled=True, subnets=[{"subnet": "10.100.0.0/24"}])
        assert [":" in s["subnet"] for s in made["subnets"]] == [False, True]
        made = create(ipv6_enabled=True, subnets=[{"subnet": "fdcc::/64"}])
        assert [":" in s["subnet"] for s in made["subnets"]] == [True, False]

    def test_a_subnet_switches_it_on(self, create):
        made = create(subnets=[{"subnet": "fdcc::/64"}])
        assert (made["ipv6_enabled"], len(made["subnets"])) == (True, 1)


class TestIpam:
    def test_none_has_no_subnets_and_no_names(self, create):
        made = create(ipam_options={"driver": "none"}, dns_enabled=True)
        assert "subnets" not in made
        assert made["dns_enabled"] is False

    def test_none_with_subnets(self, create):
        with pytest.raises(InvalidError, match="None ipam driver is set but subnets are given"):
            create(ipam_options={"driver": "none"}, subnets=[{"subnet": "10.100.0.0/24"}])

    def test_others_are_refused(self, create):
        with pytest.raises(InvalidError) as caught:
            create(ipam_options={"driver": "dhcp"})
        assert caught.value.field == "network_info.testnet1.ipam_options.driver"


class TestOptions:
    def test_dockers_name_of_the_mtu(self, create):
        assert create(options={"com.docker.network.driver.mtu": "1500"})["options"] == {"mtu": "1500"}

    @pytest.mark.parametrize("value", ["true", "strict"])
    def test_isolation(self, create, value):
        assert create(options={"isolate": value})["options"] == {"isolate": value}

    def test_dns_servers(self, create):
        made = create(dns_enabled=True, network_dns_servers=["8.8.8.8", "1.1.1.1"])
        assert made["network_dns_servers"] == ["8.8.8.8", "1.1.1.1"]
        with pytest.raises(InvalidError) as caught:
            create(network_dns_servers=["8.8.8.8"])
        assert caught.value.field == "network.network_dns_servers"

    @pytest.mark.parametrize(
        "options", [{"vlan": "100"}, {"mtu": "many"}, {"bad": "x"}, {"isolate": "false"}]
    )
    def test_what_cannot_be_kept_is_refused_before_podman_writes_it_down(self, create, options):
        with pytest.raises(InvalidError) as caught:
            create(options=options)
        assert next(iter(options)) in (caught.value.field or "")

    @pytest.mark.parametrize(
        ("network", "field"),
        [
            ({"subnets": [{"subnet": "10.5.0.0/24"}, {"subnet": "10.6.0.0/24"}]}, "network.subnets[1]"),
            ({"subnets": [{"subnet": "10.5.0.0/24", "gateway": "10.5.0.0"}]}, "network.subnets[0]"),
            ({"subnets": [{"subnet": "10.5.0.0/24", "gateway": "10.5.0.255"}]}, "network.subnets[0]"),
            ({"subnets": [{"subnet": "10.5.0.0/32"}], "internal": True}, "network.subnets[0].prefix"),
            ({"ipv6_enabled": True, "options": {"mtu": "1000"}}, "network.options.mtu"),
        ],
    )
    def test_and_so_is_all_that_its_first_container_would_be_refused_for(self, create, network, field):
        with pytest.raises(InvalidError) as caught:
            create(**network)
        assert caught.value.field == field

    def test_a_pool_that_nobody_can_use(self, create):
        with pytest.raises(InvalidError) as caught:
            create(creation={"subnet_pools": [{"base": "127.0.0.0/8", "size": 24}]})
        assert "loopback" in caught.value.message

    def test_as_many_subnets_as_a_request_holds_are_refused_at_once(self, create):
        subnets = [{"subnet": f"10.{i >> 8}.{i & 255}.0/30"} for i in range(8000)]
        with pytest.raises(InvalidError) as caught:
            create(subnets=subnets)
        assert caught.value.field == "network.subnets"

    def test_other_drivers_are_refused(self, create):
        with pytest.raises(InvalidError) as caught:
            create(driver="macvlan")
        assert caught.value.field == "network_info.testnet1.driver"

    def test_a_field_of_another_type_is_told(self, create):
        with pytest.raises(InvalidError) as caught:
            create(internal="yes")
        assert caught.value.field == "network"
        assert "internal" in caught.value.message
