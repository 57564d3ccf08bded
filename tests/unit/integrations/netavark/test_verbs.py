"""Netavark's verbs on a kernel in memory: what podman asks, in its own JSON, and what it is answered."""

import asyncio

import msgspec
import pytest

import harness.integration
from sealane.compile.sandbox import MAIN_TABLE
from sealane.engine.errors import (
    ConflictError,
    ExistsError,
    InvalidError,
    NotFoundError,
    ReadOnlyError,
    SealaneError,
)
from sealane.engine.ports import Reserver
from sealane.integrations.netavark.verbs import Netavark
from sealane.kernel.objects import Route
from sealane.kernel.state import HOST
from sealane.wire.netavark import NetavarkRequest
from sealane.wire.requests import AttachRequest, DetachRequest, NetworkRequest, SubnetRequest

A, B = "/run/netns/a", "/run/netns/b"
C1 = "6646c546d77b" + "0" * 52


def network(name="front", subnet="10.66.0.0/24", **fields):
    """As podman 4.3.1 writes it."""
    number = int(subnet.split(".")[2]) if subnet else 0
    given = {
        "name": name,
        "id": f"{name:0<64}".encode().hex()[:64],
        "driver": "bridge",
        "network_interface": f"podman{number + 1}",
        "created": "2026-11-26T20:00:00Z",
        "subnets": [{"subnet": subnet, "gateway": subnet.replace(".0/24", ".1")}] if subnet else None,
        "ipv6_enabled": False,
        "internal": False,
        "dns_enabled": True,
        "ipam_options": {"driver": "host-local"},
    }
    return given | fields


def place(address="10.66.0.9", ifname="eth0", **fields):
    return {
        "static_ips": [address] if address else None,
        "interface_name": ifname,
        "aliases": ["6646c546d77b"],
    } | fields


def port(host, inside, **fields):
    return {
        "host_ip": "",
        "container_port": inside,
        "host_port": host,
        "range": 1,
        "protocol": "tcp",
    } | fields


def container(places, networks, ports=(), identity=C1, name="web", **fields):
    return {
        "container_id": identity,
        "container_name": name,
        "port_mappings": list(ports) or None,
        "networks": places,
        "network_info": {n["name"]: n for n in networks},
    } | fields


WEB = container({"front": place()}, [network()], [port(8080, 80)])
BOTH = container(
    {"back": place("10.66.1.9", "eth1"), "front": place()},
    [network(), network("back", "10.66.1.0/24")],
    [port(8080, 80)],
)


FRONT_END, PODMAN = 41, 40
"""Pids."""


def reserver(integration, netns):
    return Reserver(PODMAN, integration.bench.kernel.resolve_namespace(netns).inode)


class Door(harness.integration.Door):
    def __init__(self):
        super().__init__(lambda bench, detach: Netavark(bench.engine, bench.resyncer, detach))
        self.bench.kernel.starters[FRONT_END] = (PODMAN, "podman")

    def __call__(self, verb, document=None, netns=A, **fields):
        asked = {"verb": verb, "netns": netns, "container": document, **fields}
        request = msgspec.json.decode(msgspec.json.encode(asked), type=NetavarkRequest)
        return asyncio.run(self.verbs.call(request, FRONT_END))

    def setup(self, document, netns=A):
        return msgspec.to_builtins(self("setup", document, netns).status)

    def teardown(self, document, netns=A):
        return self("teardown", document, netns)

    def endpoints(self):
        return {f"{e.name}/{e.network}": e for e in self.engine.endpoints()}

    def networks(self):
        return sorted(self.engine.intent.network_ids)


@pytest.fixture
def integration():
    integration = Door()
    yield integration
    assert integration.bench.is_clean()


def snapshot(integration):
    """The host, but for settings of links, which go with their links."""
    return {
        key: item
        for key, item in integration.bench.kernel.state[HOST].items()
        if key[0] != "sysctl" or item.borrowed
    }


def refusal(integration, document, kind=InvalidError, verb="setup"):
    before = snapshot(integration)
    with pytest.raises(kind) as caught:
        integration(verb, document)
    assert snapshot(integration) == before, "a refusal changes nothing"
    return caught.value


class TestSetup:
    def test_the_status_says_what_is_there(self, integration):
        assert integration.setup(WEB) == {
            "front": {
                "dns_search_domains": ["dns.podman"],
                "dns_server_ips": ["10.66.0.1"],
                "interfaces": {
                    "eth0": {
                        "mac_address": integration.endpoints()["web/front"].mac,
                        "subnets": [{"ipnet": "10.66.0.9/24", "gateway": "10.66.0.1"}],
                    }
                },
            }
        }

    def test_the_bridge_is_called_as_podman_says(self, integration):
        integration.setup(WEB)
        assert ("link", "podman1") in integration.bench.kernel.state[HOST]

    def test_names_are_the_containers_and_its_aliases(self, integration):
        integration.setup(container({"front": place(aliases=["shop", "not a name", "shop"])}, [network()]))
        endpoint = integration.endpoints()["web/front"]
        assert endpoint.aliases == ["shop"]

    def test_a_name_that_is_none_of_ours_becomes_the_beginning_of_the_id(self, integration):
        integration.setup(container({"front": place()}, [network()], name="x" * 80))
        assert list(integration.endpoints()) == ["6646c546d77b/front"]

    def test_again_is_the_same_answer_and_changes_nothing(self, integration):
        first, revision = integration.setup(BOTH), integration.engine.revision
        assert integration.setup(BOTH) == first
        integration.restart()
        assert integration.setup(BOTH) == first
        assert integration.engine.revision == revision

    def test_dual_stack(self, integration):
        subnets = [
            {"subnet": "10.66.0.0/24", "gateway": "10.66.0.1"},
            {"subnet": "fd66::/64", "gateway": "fd66::1"},
        ]
        asked = container(
            {"front": place(static_ips=["10.66.0.9", "fd66::9"])},
            [network(subnets=subnets, ipv6_enabled=True)],
        )
        status = integration.setup(asked)["front"]
        assert [s["ipnet"] for s in status["interfaces"]["eth0"]["subnets"]] == ["10.66.0.9/24", "fd66::9/64"]
        assert status["dns_server_ips"] == ["10.66.0.1", "fd66::1"]

    def test_networks_may_be_a_list(self, integration):
        """Netavark 2.0."""
        places = [{"name": "front", **place(ifname="eth1")}, {"name": "back", **place("10.66.1.9", "eth0")}]
        assert list(integration.setup({**BOTH, "networks": places})) == ["front", "back"]

    def test_the_first_link_is_the_way_out(self, integration):
        integration.setup(BOTH)
        there = integration.engine.intent.endpoints.values()
        by_name = {integration.engine.intent.networks[e.network].name: e.gateway_priority for e in there}
        assert by_name["front"] > by_name["back"]

    def test_unless_another_has_a_lower_metric(self, integration):
        networks = [network(), network("back", "10.66.1.0/24", options={"metric": "50"})]
        integration.setup({**BOTH, "network_info": {n["name"]: n for n in networks}})
        there = integration.engine.intent.endpoints.values()
        by_name = {integration.engine.intent.networks[e.network].name: e.gateway_priority for e in there}
        assert by_name["back"] > by_name["front"]

    def test_no_default_route(self, integration):
        integration.setup(container({"front": place()}, [network(options={"no_default_route": "true"})]))
        sandbox = integration.engine.endpoints()[0].sandbox_id
        routes = [o for o in integration.bench.kernel.state[sandbox].values() if isinstance(o, Route)]
        # Answers of what is published find their way back by a table of their own.
        assert "0.0.0.0/0" not in {route.dst for route in routes if route.table == MAIN_TABLE}

    def test_an_internal_network_has_names_and_no_gateway(self, integration):
        status = integration.setup(container({"front": place()}, [network(internal=True)], [port(8080, 80)]))[
            "front"
        ]
        assert status["dns_server_ips"] == ["10.66.0.1"]
        assert status["interfaces"]["eth0"]["subnets"] == [{"ipnet": "10.66.0.9/24"}]
        assert integration.endpoints()["web/front"].ports == []

    def test_names_may_be_switched_off(self, integration):
        status = integration.setup(container({"front": place()}, [network(dns_enabled=False)]))["front"]
        assert (status["dns_server_ips"], status["dns_search_domains"]) == ([], [])

    def test_dns_servers_of_the_network_and_of_the_container(self, integration):
        integration.setup(
            container(
                {"front": place()}, [network(network_dns_servers=["192.0.2.53"])], dns_servers=["192.0.2.54"]
            )
        )
        (there,) = integration.engine.intent.networks.values()
        (endpoint,) = integration.engine.intent.endpoints.values()
        assert (there.dns_servers, endpoint.dns_servers) == (("192.0.2.53",), ("192.0.2.54",))

    def test_options_of_the_network(self, integration):
        options = {"mtu": "1300", "isolate": "strict", "outbound_addr4": "192.0.2.11", "mode": "managed"}
        integration.setup(container({"front": place()}, [network(options=options)]))
        (there,) = integration.engine.intent.networks.values()
        assert (there.mtu, there.source_addresses) == (1300, ("192.0.2.11",))

    def test_addresses_are_ours_where_podman_gives_none(self, integration):
        asked = container({"front": place("")}, [network(subnet="", ipam_options={"driver": "none"})])
        status = integration.setup(asked)["front"]
        assert status["interfaces"]["eth0"]["subnets"][0]["ipnet"].startswith("10.128.0.")

    def test_others_get_addresses_where_podman_gives_none_out(self, integration):
        """Podman gives out the lowest, and knows of nobody else's."""
        integration.setup(WEB)
        view = integration.engine.attach(AttachRequest(sandbox=B, network="front"))
        assert view.addresses == ["10.66.0.128/24"]
        integration.engine.detach([DetachRequest(endpoint=view.id)])

    def test_a_container_that_came_back_elsewhere_is_moved(self, integration):
        integration.setup(BOTH, A)
        integration.setup(BOTH, B)
        assert {e.netns for e in integration.engine.endpoints()} == {B}

    def test_ports(self, integration):
        ports = [
            port(8080, 80),
            port(9000, 9000, range=3, protocol="udp", host_ip="127.0.0.1"),
            port(5000, 5000, protocol="tcp,sctp"),
        ]
        integration.setup(container({"front": place()}, [network()], ports))
        assert integration.endpoints()["web/front"].ports == [
            "*:8080->80/tcp",
            "127.0.0.1:9000-9002->9000-9002/udp",
            "*:5000->5000/tcp",
            "*:5000->5000/sctp",
        ]

    def test_ports_are_on_one_network_alone(self, integration):
        integration.setup(BOTH)
        assert [e.ports for e in integration.engine.endpoints()] == [["*:8080->80/tcp"], []] or [
            e.ports for e in integration.engine.endpoints()
        ] == [[], ["*:8080->80/tcp"]]
        assert integration.endpoints()["web/front"].ports == ["*:8080->80/tcp"]

    def test_a_port_that_podman_reserves_for_the_container_is_free(self, integration):
        integration.bench.kernel.port_users["tcp", 8080] = "podman (pid 40)"
        integration.bench.kernel.reserved["tcp", 8080] = reserver(integration, A)
        integration.setup(WEB)
        assert integration.endpoints()["web/front"].ports == ["*:8080->80/tcp"]

    @pytest.mark.parametrize("holder", ["nginx", "conmon", "podman"])
    def test_a_port_that_another_program_holds_is_not(self, integration, holder):
        """Nor one that podman reserves for another container."""
        integration.bench.kernel.port_users["tcp", 8080] = f"{holder} (pid 7)"
        integration.bench.kernel.reserved["tcp", 8080] = reserver(integration, B)
        assert f"{holder} (pid 7)" in refusal(integration, WEB, ConflictError).message
        assert (integration.networks(), integration.engine.endpoints()) == ([], [])

    def test_a_port_is_known_to_be_reserved_before_it_is(self, integration):
        """Podman 4 reserves it after it has called us."""
        integration.setup(WEB)
        assert [p.is_reserved for e in integration.engine.intent.endpoints.values() for p in e.ports] == [
            True
        ]

    def test_all_networks_or_none(self, integration):
        taken = container(
            {"back": place("10.66.1.9")}, [network("back", "10.66.1.0/24")], identity="c2", name="db"
        )
        integration.setup(taken, B)
        error = refusal(integration, BOTH, ConflictError)
        assert "10.66.1.9" in error.message
        assert (integration.networks(), list(integration.endpoints())) == (["back"], ["db/back"])

    def test_nothing_while_the_engine_holds(self, integration):
        integration.engine.hold = "the store is full"
        refusal(integration, WEB, ReadOnlyError)
        refusal(integration, WEB, ReadOnlyError, "teardown")
        integration.engine.hold = ""


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"driver": "macvlan"}, "network_info.front.driver"),
        ({"ipam_options": {"driver": "dhcp"}}, "network_info.front.ipam_options.driver"),
        ({"routes": [{"destination": "10.0.0.0/8", "gateway": "10.66.0.3"}]}, "network_info.front.routes"),
        ({"options": {"vlan": "5"}}, "network_info.front.options.vlan"),
        ({"options": {"vrf": "red"}}, "network_info.front.options.vrf"),
        ({"options": {"isolate": "false"}}, "network_info.front.options.isolate"),
        ({"options": {"mode": "other"}}, "network_info.front.options.mode"),
        ({"options": {"metric": "-1"}}, "network_info.front.options.metric"),
        ({"options": {"metric": "9" * 5000}}, "network_info.front.options.metric"),
        ({"options": {"mtu": "9" * 5000}}, "options.mtu"),
        ({"id": ""}, "network_info.front.id"),
        ({"options": {"no_default_route": "x"}}, "network_info.front.options.no_default_route"),
        ({"options": {"mtu": "many"}}, "options.mtu"),
        ({"options": {"surprise": "1"}}, "network_info.front.options.surprise"),
        ({"subnets": [{"subnet": "10.66.0.0"}]}, "subnets[0].prefix"),
        ({"subnets": [{"subnet": "x/y"}]}, "network_info.front.subnets[0]"),
    ],
)
def test_what_cannot_be_kept_is_refused_by_name(integration, changed, field):
    assert refusal(integration, container({"front": place()}, [network(**changed)])).field == field


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"options": {"host_interface_name": "veth9"}}, "networks.front.options.host_interface_name"),
        ({"static_ips": ["10.67.0.9"]}, "addresses"),
        ({"static_mac": "x"}, "mac"),
        ({"interface_name": "a/b"}, "ifname"),
        ({"interface_name": "eth" + "9" * 5000}, "ifname"),
    ],
)
def test_so_is_what_a_container_cannot_have(integration, changed, field):
    error = refusal(integration, container({"front": place(**changed)}, [network()]))
    assert error.field.startswith(field)
    assert integration.networks() == [], "the network that came for it is gone, too"


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"protocol": "icmp"}, "port_mappings[0].protocol"),
        ({"host_ip": "x"}, "publish[0].host_address"),
        ({"container_port": 0}, "publish[0].port"),
        ({"host_port": 65535, "range": 3}, "publish[0]"),
    ],
)
def test_so_is_a_port_that_is_none(integration, changed, field):
    asked = container({"front": place()}, [network()], [port(8080, 80) | changed])
    assert refusal(integration, asked).field == field


def test_a_network_that_is_not_described(integration):
    assert refusal(integration, {**WEB, "network_info": {}}).field == "network_info.front"


def test_a_container_without_an_id(integration):
    assert refusal(integration, WEB | {"container_id": ""}).field == "container.container_id"


def test_a_server_that_is_none_is_left_out_each_time(integration):
    asked = container({"front": place()}, [network(network_dns_servers=["", "9.9.9.9"])])
    assert integration.setup(asked) == integration.setup(asked)
    assert integration.engine.intent.networks[integration.engine.intent.network_ids["front"]].dns_servers == (
        "9.9.9.9",
    )


def test_a_path_that_is_none(integration):
    with pytest.raises(InvalidError) as caught:
        integration("setup", WEB, netns="a")
    assert caught.value.field == "netns"


def test_a_call_without_its_container(integration):
    with pytest.raises(NotFoundError):
        integration("setup", None)


def test_a_bridge_of_somebody_elses_is_not_taken(integration):
    integration.bench.kernel.foreign_links["podman1"] = "bridge"
    error = refusal(integration, WEB, ConflictError)
    assert error.field == "network_info.front.network_interface"


def test_an_unmanaged_bridge_is_used_as_it_is(integration):
    integration.bench.kernel.foreign_links["podman1"] = "bridge"
    integration.setup(container({"front": place()}, [network(options={"mode": "unmanaged"})]))
    (there,) = integration.engine.intent.networks.values()
    assert (there.link_adopted, there.gateway_on_link, there.masquerade) == (True, False, False)


class TestTeardown:
    def test_network_and_endpoint_go(self, integration):
        before = snapshot(integration)
        integration.setup(BOTH)
        integration.teardown(BOTH)
        assert (integration.networks(), integration.engine.endpoints()) == ([], [])
        assert snapshot(integration) == before

    def test_again_is_no_error_and_neither_is_what_was_never_there(self, integration):
        integration.teardown(WEB)
        integration.setup(WEB)
        integration.teardown(WEB)
        integration.teardown(WEB)
        assert (integration.networks(), integration.engine.endpoints()) == ([], [])

    def test_a_namespace_that_is_gone_is_no_hindrance(self, integration):
        integration.setup(WEB)
        (sandbox,) = integration.engine.intent.sandboxes.values()
        integration.bench.kernel.kill_namespace(sandbox.id, sandbox.netns)
        integration.teardown(WEB)
        assert integration.engine.endpoints() == []

    def test_a_network_stays_while_somebody_is_on_it(self, integration):
        other = container({"front": place("10.66.0.10")}, [network()], identity="c2", name="db")
        integration.setup(WEB)
        integration.setup(other, B)
        integration.teardown(WEB)
        assert (integration.networks(), list(integration.endpoints())) == (["front"], ["db/front"])
        integration.teardown(other, B)
        assert integration.networks() == []

    def test_disconnecting_takes_one_network_and_moves_the_ports(self, integration):
        integration.setup(BOTH)
        integration.teardown({**BOTH, "networks": {"front": place()}})
        assert {name: e.ports for name, e in integration.endpoints().items()} == {
            "web/back": ["*:8080->80/tcp"]
        }

    def test_connecting_publishes_nothing_twice(self, integration):
        integration.setup(WEB)
        integration.setup({**BOTH, "networks": {"back": place("10.66.1.9", "eth1")}})
        ports = {name: e.ports for name, e in integration.endpoints().items()}
        assert ports == {"web/front": ["*:8080->80/tcp"], "web/back": []}


def leave_a_network(integration, name="front"):
    """As a call does that is killed between a network and its first or last endpoint."""
    labels = {"sealane.podman.network": network(name)["id"]}
    subnets = [SubnetRequest(prefix="10.66.0.0/24", gateway="10.66.0.1")]
    integration.engine.create_network(NetworkRequest(name=name, labels=labels, subnets=subnets))


def test_a_network_that_a_killed_call_left_goes_with_the_next_teardown(integration):
    leave_a_network(integration)
    integration.teardown(WEB)
    assert integration.networks() == []


def test_it_is_not_in_the_way_of_another(integration):
    """Podman has removed it since, and given its subnet to a network of another name."""
    leave_a_network(integration, "old")
    integration.setup(WEB)
    assert integration.networks() == ["front"]


class TestNetworksOfOthers:
    @pytest.fixture
    def shared(self, integration):
        subnet = SubnetRequest(prefix="10.66.0.0/24", gateway="10.66.0.1")
        integration.engine.create_network(NetworkRequest(name="front", subnets=[subnet]))
        return integration

    def test_one_is_joined_and_stays(self, shared):
        shared.setup(WEB)
        shared.teardown(WEB)
        assert shared.networks() == ["front"]

    def test_its_names_are_answered_whatever_podman_thinks(self, shared):
        asked = network(subnet="", ipam_options={"driver": "none"}, dns_enabled=False)
        status = shared.setup(container({"front": place("")}, [asked]))["front"]
        assert status["dns_server_ips"] == ["10.66.0.1"]

    @pytest.mark.parametrize(
        "changed",
        [
            {"subnets": [{"subnet": "10.67.0.0/24", "gateway": "10.67.0.1"}]},
            {"subnets": [{"subnet": "10.66.0.0/24", "gateway": "10.66.0.254"}]},
            {"subnets": [{"subnet": "fd66::/64", "gateway": "fd66::1"}]},
            {"internal": True},
        ],
    )
    def test_one_that_is_otherwise_is_told(self, shared, changed):
        error = refusal(shared, container({"front": place()}, [network(**changed)]), ExistsError)
        assert "sealane network inspect front" in error.hint

    def test_its_servers_are_not_podmans_to_set(self, shared):
        """All who are on it would ask them."""
        with pytest.raises(ConflictError) as caught:
            shared("update", network="front", dns_servers=["192.0.2.53"])
        assert caught.value.field == "network"
        (there,) = shared.engine.intent.networks.values()
        assert there.dns_servers == ()


def test_a_network_made_anew_while_somebody_is_on_the_old_one_is_refused_and_changes_nothing(integration):
    integration.setup(WEB)
    anew = container(
        {"front": place("10.66.0.10")},
        [network(id="f" * 64, network_dns_servers=["192.0.2.53"])],
        identity="c2",
        name="db",
    )
    before = dict(integration.engine.intent.networks)
    error = refusal(integration, anew, ConflictError)
    assert error.field == "network_info.front.id"
    assert "web" in error.message
    assert integration.engine.intent.networks == before


def test_a_network_made_anew_under_its_name_takes_the_old_ones_place(integration):
    """`podman network rm` and `create` while we were told nothing: its last container died with the host."""
    integration.engine.create_network(
        NetworkRequest(
            name="front",
            labels={"sealane.podman.network": "old"},
            subnets=[SubnetRequest(prefix="10.9.0.0/24")],
        )
    )
    integration.setup(WEB)
    (there,) = integration.engine.intent.networks.values()
    assert there.subnets[0].prefix == "10.66.0.0/24"


def test_update_sets_the_networks_servers(integration):
    integration("update", network="front", dns_servers=["192.0.2.53"])
    integration.setup(WEB)
    integration("update", network="front", dns_servers=["192.0.2.53", "2001:db8::53"])
    (there,) = integration.engine.intent.networks.values()
    assert there.dns_servers == ("192.0.2.53", "2001:db8::53")
    integration("update", network="front", dns_servers=[""])
    (there,) = integration.engine.intent.networks.values()
    assert there.dns_servers == ()
    with pytest.raises(InvalidError) as caught:
        integration("update", network="front", dns_servers=["dns.example"])
    assert caught.value.field == "dns_servers[0]"


def test_a_reload_puts_back_what_was_lost(integration):
    integration.setup(WEB)
    state = integration.bench.kernel.state[HOST]
    lost = next(key for key in state if key == ("link", "podman1"))
    before = dict(state)
    del state[lost]
    integration("firewall-reload")
    assert integration.bench.kernel.state[HOST] == before


def test_the_engines_errors_are_what_is_raised(integration):
    with pytest.raises(SealaneError):
        integration("create")


def test_the_sandbox_is_called_as_the_container(integration):
    integration.setup(WEB)
    assert [s.name for s in integration.engine.sandboxes()] == ["web"]
    integration.setup(container({"front": place("10.66.0.10")}, [network()], identity="c2"), B)
    first, second = sorted(s.name for s in integration.engine.sandboxes())
    assert (first, second.partition("-")[0]) == ("web", "web"), "two may be called the same, for a while"
