"""The verbs, on a kernel in memory: what they answer, what they refuse, and what they leave behind."""

import msgspec
import pytest

from harness.engines import Bench, publish, subnets
from sealane.compile.names import network_link
from sealane.engine.errors import (
    ConflictError,
    ExhaustedError,
    ExistsError,
    InUseError,
    InvalidError,
    KernelError,
    NotFoundError,
    ReadOnlyError,
    StoreFailedError,
)
from sealane.kernel.state import HOST
from sealane.limits import RANGE_PORTS_MAX
from sealane.model.change import Put
from sealane.model.endpoint import Sandbox
from sealane.model.ids import NetworkId, SandboxId
from sealane.model.network import GatewayLink
from sealane.model.traits import BRIDGE_PORTS_MAX
from sealane.reconcile.ownership import is_deletable
from sealane.store.base import StoreError
from sealane.wire.requests import DetachRequest, NetworkRequest, SandboxRequest, SubnetRequest

A, B = "/run/netns/a", "/run/netns/b"


def held(bench: Bench) -> dict:
    """What the kernel holds of ours, sysctls and sandboxes' loopback links aside: those are set, never deleted."""
    return {
        (netns, key): item
        for netns, items in bench.kernel.snapshot().items()
        for key, item in items.items()
        if is_deletable(item)
    }


@pytest.fixture
def bench() -> Bench:
    bench = Bench()
    bench.network("front", subnets=list(subnets("10.1.0.0/24")))
    return bench


class TestNetworks:
    def test_a_network_is_on_the_host_once_it_is_answered(self, bench: Bench) -> None:
        view = bench.engine.network("front")
        assert ("link", view.link) in bench.kernel.state[HOST]
        assert view.mtu == 1400, "the uplink's"
        assert view.subnets[0].gateway == "10.1.0.1"

    def test_the_same_request_again_is_the_same_network(self, bench: Bench) -> None:
        before = bench.engine.revision
        again = bench.network("front", subnets=list(subnets("10.1.0.0/24")))
        assert again.id == bench.engine.network("front").id
        assert bench.engine.revision == before

    def test_a_different_one_of_the_same_name_is_refused_by_the_field(self, bench: Bench) -> None:
        with pytest.raises(ExistsError) as caught:
            bench.network("front", subnets=list(subnets("10.1.0.0/24")), internal=True)
        assert caught.value.field == "internal"

    def test_automatic_subnets_never_meet(self, bench: Bench) -> None:
        prefixes = {bench.network(f"net{i}", ipv6=True).subnets[0].prefix for i in range(50)}
        assert len(prefixes) == 50

    @pytest.mark.parametrize(
        ("request_fields", "field"),
        [
            ({"name": "-x"}, "name"),
            ({"name": "x", "driver": "overlay"}, "driver"),
            ({"name": "x", "subnets": [SubnetRequest(prefix="10.9.0.1/24")]}, "subnets[0].prefix"),
            (
                {"name": "x", "subnets": [SubnetRequest(prefix="10.9.0.0/24", gateway="10.8.0.1")]},
                "subnets[0]",
            ),
            (
                {"name": "x", "subnets": [SubnetRequest(prefix="10.9.0.0/24", ip_range="10.8.0.0/25")]},
                "subnets[0]",
            ),
            ({"name": "x", "subnets": [SubnetRequest(gateway="10.9.0.1")]}, "subnets[0].prefix"),
            ({"name": "x", "options": {"mtu": "20"}}, "options.mtu"),
            ({"name": "x", "options": {"mtu": "1_500"}}, "options.mtu"),
            ({"name": "x", "options": {"bridge": "slb0"}}, "options.bridge"),
            ({"name": "x", "options": {"bridge": "all"}}, "options.bridge"),
            ({"name": "x", "options": {"bridge": "default"}}, "options.bridge"),
            ({"name": "x", "options": {"bridge": "sle0123456789ab"}}, "options.bridge"),
            ({"name": "x", "options": {"com.docker.network.bridge.name": "slhx"}}, "options.com"),
            ({"name": "x", "options": {"mtu": "1" * 5000}}, "options.mtu"),
            ({"name": "x", "options": {"com.docker.network.bridge.enable_ic": "false"}}, "options."),
            ({"name": "x", "options": {"bridge": "a/b"}}, "options.bridge"),
            ({"name": "x", "ipv6": True, "options": {"mtu": "1000"}}, "options.mtu"),
            ({"name": "x", "ipv4": False}, "ipv4"),
            ({"name": "x", "driver": "host", "internal": True}, "internal"),
        ],
    )
    def test_a_bad_field_is_named_and_changes_nothing(self, bench: Bench, request_fields, field: str) -> None:
        before = bench.kernel.snapshot(), bench.engine.revision
        with pytest.raises(InvalidError) as caught:
            bench.engine.create_network(NetworkRequest(**request_fields))
        assert caught.value.field.startswith(field)
        assert (bench.kernel.snapshot(), bench.engine.revision) == before

    def test_an_object_that_another_makes_already_is_refused_and_not_kept(self, bench: Bench) -> None:
        """Names of links are 48 bits of a hash. Kept in the store, such a record would fail each start from then on."""
        (front,) = bench.engine.intent.networks.values()
        twin = msgspec.structs.replace(
            front,
            id=NetworkId("f" * 32),
            name="twin",
            host_link=GatewayLink(name=network_link(front)),
            subnets=(),
        )
        before = bench.kernel.snapshot()
        with pytest.raises(ConflictError, match="both make"):
            bench.engine.commit_then_apply([Put(twin)])
        assert bench.kernel.snapshot() == before
        assert list(bench.engine.intent.networks.values()) == [front]
        bench.restart()
        assert list(bench.engine.intent.networks.values()) == [front]
        assert bench.is_clean()

    def test_an_overlap_names_whose_it_is(self, bench: Bench) -> None:
        with pytest.raises(ConflictError, match="front"):
            bench.network("other", subnets=list(subnets("10.1.0.128/25")))
        with pytest.raises(ConflictError, match="uplink0"):
            bench.network("other", subnets=list(subnets("192.0.2.0/25")))

    def test_a_network_in_use_stays_unless_forced(self, bench: Bench) -> None:
        bench.attach(A)
        with pytest.raises(InUseError, match="1 endpoint: a"):
            bench.engine.remove_network("front")
        bench.engine.remove_network("front", force=True)
        assert held(bench) == {}

    def test_prune_takes_only_what_is_unused(self, bench: Bench) -> None:
        bench.network("idle")
        bench.attach(A)
        assert bench.engine.prune_networks().removed == ["idle"]

    def test_docker_options_are_understood(self, bench: Bench) -> None:
        docker = "com.docker.network."
        view = bench.network(
            "shaped",
            options={
                f"{docker}driver.mtu": "1300",
                f"{docker}bridge.enable_icc": "false",
                f"{docker}bridge.enable_ip_masquerade": "false",
                f"{docker}bridge.name": "br-shaped",
            },
        )
        assert (view.mtu, view.icc, view.masquerade, view.link) == (1300, False, False, "br-shaped")

    def test_a_bridge_that_is_there_is_used_and_left_alone(self, bench: Bench) -> None:
        bench.kernel.foreign_links |= {"br-lan": "bridge", "uplink0": "veth"}
        bench.network("lan", options={"bridge": "br-lan"})
        view = bench.attach(A, "lan")
        assert bench.kernel.state[HOST]["link", view.host_link].master == "br-lan"
        assert ("link", "br-lan") not in bench.kernel.state[HOST]
        bench.engine.remove_network("lan", force=True)
        assert not [o for o in bench.kernel.performed if o.object.key == ("link", "br-lan")]
        with pytest.raises(ConflictError, match="uplink0 is a veth link"):
            bench.network("lan", options={"bridge": "uplink0"})

    @pytest.mark.parametrize("gateway", ["10.9.0.0", "10.9.0.255"])
    def test_a_gateway_that_no_host_can_have_is_refused(self, bench: Bench, gateway: str) -> None:
        with pytest.raises(InvalidError, match=gateway):
            bench.network("x", subnets=[SubnetRequest(prefix="10.9.0.0/24", gateway=gateway)])


class TestAttach:
    def test_attaching_twice_gives_the_same_answer(self, bench: Bench) -> None:
        first = bench.attach(A, publish=[publish(8080, 80)])
        before = bench.kernel.snapshot(), bench.engine.revision
        assert bench.attach(A, publish=[publish(8080, 80)]) == first
        assert (bench.kernel.snapshot(), bench.engine.revision) == before

    def test_attaching_otherwise_is_refused_by_the_field(self, bench: Bench) -> None:
        bench.attach(A)
        with pytest.raises(ConflictError) as caught:
            bench.attach(A, aliases=["db"])
        assert caught.value.field == "aliases"

    def test_attach_costs_the_kernel_the_same_at_any_size(self, bench: Bench) -> None:
        bench.attach("/run/netns/first", publish=[publish(1000, 80)])
        bench.kinds()
        bench.attach("/run/netns/second", publish=[publish(1001, 80)])
        small = bench.kinds()
        for number in range(40):
            bench.attach(f"/run/netns/more{number}")
        bench.kinds()
        bench.attach("/run/netns/last", publish=[publish(1002, 80)])
        assert bench.kinds() == small

    def test_detach_takes_everything_away_and_may_be_repeated(self, bench: Bench) -> None:
        before = held(bench)
        view = bench.attach(A, publish=[publish(8080, 80)])
        assert bench.engine.detach([DetachRequest(endpoint=view.id)]).detached == [view.id]
        assert bench.engine.detach([DetachRequest(endpoint=view.id)]).detached == []
        assert held(bench) == before
        assert not bench.engine.intent.sandboxes, "an implicit sandbox goes with its last endpoint"

    def test_two_networks_and_the_way_out_by_priority(self, bench: Bench) -> None:
        bench.network("back", subnets=list(subnets("10.2.0.0/24")))
        bench.attach(A, "front")
        second = bench.attach(A, "back", gateway_priority=1)
        assert second.ifname == "eth1"
        routes = [
            o
            for o in bench.kernel.state[second.sandbox_id].values()
            if getattr(o, "key", ())[:3] == ("route", 254, "0.0.0.0/0")
        ]
        assert [(r.link, r.gateway) for r in routes] == [("eth1", "10.2.0.1")]
        bench.engine.detach([DetachRequest(sandbox="a", network="back")])
        routes = [
            o
            for o in bench.kernel.state[second.sandbox_id].values()
            if getattr(o, "key", ())[:3] == ("route", 254, "0.0.0.0/0")
        ]
        assert [(r.link, r.gateway) for r in routes] == [("eth0", "10.1.0.1")]
        assert bench.is_clean()

    def test_an_internal_network_gives_no_way_out(self, bench: Bench) -> None:
        bench.network("vault", internal=True)
        view = bench.attach(A, "vault")
        assert view.gateways == []
        assert not [
            o for o in bench.kernel.state[view.sandbox_id].values() if getattr(o, "dst", "") == "0.0.0.0/0"
        ]

    @pytest.mark.parametrize(
        ("options", "field", "error"),
        [
            ({"addresses": ["10.1.0.1"]}, "addresses[0]", ConflictError),
            ({"addresses": ["10.2.0.9"]}, "addresses[0]", InvalidError),
            ({"addresses": ["fd00::9"]}, "addresses[0]", InvalidError),
            ({"addresses": ["10.1.0.8", "10.1.0.9"]}, "addresses[1]", InvalidError),
            ({"addresses": ["::ffff:10.1.0.9"]}, "addresses[0]", InvalidError),
            ({"mac": "01:00:00:00:00:01"}, "mac", InvalidError),
            ({"ifname": "a b"}, "ifname", InvalidError),
            ({"ifname": "lo"}, "ifname", ConflictError),
            ({"name": "x\n"}, "name", InvalidError),
            ({"aliases": ["ok", "no good"]}, "aliases[1]", InvalidError),
            ({"sysctls": {"net.ipv4.conf.IFNAME.accept_ra/../../x": "1"}}, "sysctls", InvalidError),
            ({"sysctls": {"net.ipv6.conf.IFNAME.accept_ra": "1"}}, "sysctls", InvalidError),
            ({"sysctls": {"net.ipv4.conf.IFNAME.rp_filter": "1\n2"}}, "sysctls", InvalidError),
            ({"publish": [publish(70000, 80)]}, "publish[0].host_first", InvalidError),
            ({"publish": [publish(80, 0)]}, "publish[0].port", InvalidError),
            ({"publish": [publish(80, 80, address="2001:db8::1")]}, "publish[0].host_address", InvalidError),
        ],
    )
    def test_a_bad_field_is_named_and_changes_nothing(self, bench: Bench, options, field: str, error) -> None:
        before = bench.kernel.snapshot(), bench.engine.revision
        with pytest.raises(error) as caught:
            bench.attach(A, **options)
        assert caught.value.field.startswith(field)
        assert (bench.kernel.snapshot(), bench.engine.revision) == before

    def test_the_hosts_network_and_others_do_not_meet(self, bench: Bench) -> None:
        bench.network("outside", driver="host")
        with pytest.raises(InvalidError, match="namespace of its own") as caught:
            bench.attach(A, "outside")
        assert caught.value.field == "network"
        on_host = Sandbox(id=SandboxId("f" * 32), name="onhost", netns=None)
        bench.engine.commit_then_apply([Put(on_host)])
        with pytest.raises(InvalidError, match="host's own network") as caught:
            bench.attach("onhost")
        assert caught.value.field == "sandbox"
        assert bench.attach("onhost", "outside").addresses == []

    def test_what_is_left_of_a_subnet_is_counted(self, bench: Bench) -> None:
        subnet = SubnetRequest(
            prefix="10.8.0.0/28",
            gateway="10.8.0.1",
            ip_range="10.8.0.8/29",
            reserved={"a": "10.8.0.9", "b": "10.8.0.2"},
        )
        bench.network("small", subnets=[subnet])
        for where, address in ((A, "10.8.0.3"), (B, "10.8.0.9")):
            bench.attach(where, "small", addresses=[address])
        [view] = bench.engine.network("small").subnets
        assert (view.in_use, view.reserved) == (2, ["10.8.0.9", "10.8.0.2"])
        for number in range(view.available):
            bench.attach(f"/run/netns/more{number}", "small")
        assert bench.engine.network("small").subnets[0].available == 0
        with pytest.raises(ExhaustedError):
            bench.attach("/run/netns/last", "small")

    def test_a_taken_address_names_its_holder(self, bench: Bench) -> None:
        bench.attach(A, addresses=["10.1.0.9"])
        with pytest.raises(ConflictError, match="endpoint a"):
            bench.attach(B, addresses=["10.1.0.9"])

    def test_a_full_subnet_says_so(self, bench: Bench) -> None:
        bench.network("tiny", subnets=list(subnets("10.3.0.0/30")))
        bench.attach(A, "tiny")
        with pytest.raises(ExhaustedError, match=r"10\.3\.0\.0/30 is full"):
            bench.attach(B, "tiny")

    def test_a_full_bridge_is_refused_before_the_kernel_hears_of_it(self, bench: Bench) -> None:
        bench.network("wide", subnets=list(subnets("10.16.0.0/20")))
        wide = bench.engine.builder.find_network("wide")
        there = bench.engine.intent.endpoints_by_network[wide.id]
        there.update({f"e{i}": None for i in range(BRIDGE_PORTS_MAX)})  # type: ignore[misc]
        bench.kinds()
        with pytest.raises(ExhaustedError) as caught:
            bench.attach(A, "wide")
        assert "routed" in caught.value.hint
        assert bench.kinds() == []

    def test_unknown_things_are_named_with_what_there_is(self, bench: Bench) -> None:
        with pytest.raises(NotFoundError, match="network 'frnot' not found") as caught:
            bench.attach(A, "frnot")
        assert "front" in caught.value.hint
        with pytest.raises(NotFoundError, match="no endpoint 'nobody'") as caught:
            bench.engine.endpoint("nobody")
        assert (caught.value.field, caught.value.hint) == ("endpoint", "see `sealane endpoint ls`")
        with pytest.raises(NotFoundError, match="no sandbox 'nobody'") as caught:
            bench.engine.sandbox("nobody")
        assert (caught.value.field, caught.value.hint) == ("sandbox", "see `sealane sandbox ls`")
        with pytest.raises(NotFoundError, match="no sandbox 'nobody'"):
            bench.attach("nobody")


class TestPublish:
    def test_a_conflict_names_the_endpoint_or_the_process(self, bench: Bench) -> None:
        bench.attach(A, publish=[publish(8080, 80)])
        bench.kernel.port_users["tcp", 9090] = "nginx (pid 812)"
        with pytest.raises(ConflictError, match=r"held by endpoint a \(\*:8080->80/tcp\)"):
            bench.attach(B, publish=[publish(8080, 81)])
        with pytest.raises(ConflictError, match="nginx"):
            bench.attach(B, publish=[publish(9090, 81)])
        with pytest.raises(ConflictError, match="same request"):
            bench.attach(B, publish=[publish(7000, 81), publish(7000, 82)])
        bench.attach(B, publish=[publish(8080, 80, proto="udp")])

    @pytest.mark.parametrize("where", ["", "0.0.0.0"])
    @pytest.mark.parametrize(("first", "count"), [(53, 1), (50, 5)])
    def test_where_names_are_answered_is_in_nobodys_way(self, bench: Bench, where, first, count) -> None:
        gateway = bench.engine.network("front").subnets[0].gateway
        desired = publish(first, first, proto="udp", count=count, address=where)
        bench.kernel.port_users["udp", 53] = "systemd-resolved (pid 7)"
        bench.kernel.port_places[53] = ("127.0.0.53", 53)
        with pytest.raises(ConflictError, match="systemd-resolved"):
            bench.attach(A, publish=[desired])
        bench.kernel.port_places[53] = (gateway, 53)
        assert bench.attach(A, publish=[desired]).ports

    def test_another_port_of_who_answers_names_is_held(self, bench: Bench) -> None:
        gateway = bench.engine.network("front").subnets[0].gateway
        bench.kernel.port_users["tcp", 54] = "nginx (pid 7)"
        bench.kernel.port_places[54] = (gateway, 54)
        with pytest.raises(ConflictError, match="nginx"):
            bench.attach(A, publish=[publish(50, 50, count=8)])

    @pytest.mark.parametrize(("first", "count"), [(53, 1), (50, 5)])
    @pytest.mark.parametrize("proto", ["tcp", "udp"])
    def test_nobody_takes_a_resolvers_place(self, bench: Bench, first, count, proto) -> None:
        gateway = bench.engine.network("front").subnets[0].gateway
        desired = publish(first, first, proto=proto, count=count, address=gateway)
        with pytest.raises(ConflictError, match="held by the resolver of network front"):
            bench.attach(A, publish=[desired])
        bench.attach(A, publish=[publish(54, 54, proto=proto, address=gateway)])

    def test_nothing_is_published_at_somebody_elses_address(self, bench: Bench) -> None:
        bench.kernel.foreign_addresses |= {"192.0.2.7", "10.1.0.1", "10.1.0.9"}
        with pytest.raises(InvalidError, match=r"192\.0\.2\.7 is no address of this host") as caught:
            bench.attach(A, publish=[publish(80, 80), publish(81, 81, address="192.0.2.7")])
        assert caught.value.field == "publish[1].host_address"
        assert "net.ipv4.ip_nonlocal_bind=1" in caught.value.hint
        with pytest.raises(InvalidError):
            bench.attach(A, publish=[publish(80, 80, address="10.1.0.9")])
        gateway = bench.engine.network("front").subnets[0].gateway
        bench.kernel.foreign_addresses.add(gateway)
        bench.attach(A, publish=[publish(80, 80, address=gateway)])

    def test_nor_at_its_networks_own_choice(self, bench: Bench) -> None:
        bench.network("pinned", options={"publish-address": "192.0.2.7"})
        bench.kernel.foreign_addresses.add("192.0.2.7")
        with pytest.raises(InvalidError, match="no address of this host") as caught:
            bench.attach(A, "pinned", publish=[publish(80, 80)])
        assert caught.value.field == "publish[0]"
        bench.attach(A, "pinned")

    def test_a_range_is_one_element(self, bench: Bench) -> None:
        bench.kinds()
        bench.attach(A, publish=[publish(20000, 20000, count=1000)])
        assert bench.kinds().count("create nft-element") == len(["guard", "range"])

    def test_a_shifted_range_is_bounded(self, bench: Bench) -> None:
        with pytest.raises(InvalidError, match=f"at most {RANGE_PORTS_MAX}"):
            bench.attach(A, publish=[publish(20000, 10000, count=RANGE_PORTS_MAX + 1)])
        bench.attach(A, publish=[publish(20000, 10000, count=100)])

    def test_ephemeral_ports_are_free_ones_in_turn_and_run_out(self, bench: Bench) -> None:
        bench.kernel.port_users["tcp", 32769] = "sshd (pid 1)"
        seen = [bench.attach(f"/run/netns/e{i}", publish=[publish(0, 80)]).ports[0] for i in range(9)]
        assert len(set(seen)) == 9
        assert "*:32769->80/tcp" not in seen
        with pytest.raises(ExhaustedError):
            bench.attach(B, publish=[publish(0, 80)])

    def test_nothing_is_published_on_an_internal_network(self, bench: Bench) -> None:
        bench.network("vault", internal=True)
        with pytest.raises(InvalidError) as caught:
            bench.attach(A, "vault", publish=[publish(80, 80)])
        assert caught.value.field == "publish"

    def test_udp_flows_are_forgotten_by_host_port_on_publish_and_unpublish(self, bench: Bench) -> None:
        """moby#53384: the filter was the container's port."""
        view = bench.attach(A, publish=[publish(5300, 53, proto="udp")])
        assert [(f.first, f.backend) for f in bench.kernel.forgotten] == [(5300, ""), (0, "10.1.0.2")]
        bench.kernel.forgotten.clear()
        bench.engine.detach([DetachRequest(endpoint=view.id)])
        assert [(f.first, f.backend) for f in bench.kernel.forgotten] == [(5300, ""), (0, "10.1.0.2")]

    def test_what_it_asked_outside_is_forgotten_before_an_address_has_its_next_owner(
        self, bench: Bench
    ) -> None:
        """The answers would go to that one."""
        bench.attach(A, addresses=["10.1.0.9"])
        bench.engine.detach([DetachRequest(sandbox=A)])
        bench.attach(B, addresses=["10.1.0.8"])
        assert bench.kernel.forgotten == []
        bench.attach("/run/netns/heir", addresses=["10.1.0.9"])
        assert [(f.proto, f.source) for f in bench.kernel.forgotten] == [("udp", "10.1.0.9")]

    def test_of_many_that_went_it_is_forgotten_at_once(self, bench: Bench) -> None:
        for name in "abc":
            bench.attach(f"/run/netns/{name}")
        for name in "abc":
            bench.engine.detach([DetachRequest(sandbox=f"/run/netns/{name}")])
        bench.engine.flows.forget_departed()
        assert sorted(f.source for f in bench.kernel.forgotten) == ["10.1.0.2", "10.1.0.3", "10.1.0.4"]
        bench.engine.flows.forget_departed()
        assert len(bench.kernel.forgotten) == 3

    def test_ports_that_come_later_forget_the_udp_flows_that_missed_them(self, bench: Bench) -> None:
        """A client that asks again and again keeps the flow alive by which nobody answers."""
        view = bench.attach(A)
        bench.kernel.forgotten.clear()
        bench.engine.publish(bench.engine.intent.endpoints[view.id], [publish(5300, 53, proto="udp")])  # type: ignore[index]
        assert [(f.first, f.backend) for f in bench.kernel.forgotten] == [(5300, ""), (0, "10.1.0.2")]

    def test_other_ports_that_are_refused_leave_those_that_were(self, bench: Bench) -> None:
        bench.attach(A, publish=[publish(8080, 80)])
        view = bench.attach(B, publish=[publish(8081, 80)])
        before = held(bench)
        endpoint = bench.engine.intent.endpoints[view.id]  # type: ignore[index]
        with pytest.raises(ConflictError) as caught:
            bench.engine.publish(endpoint, [publish(8081, 81), publish(8080, 80)])
        assert caught.value.field == "publish[1]"
        assert bench.engine.endpoint(view.id).ports == ["*:8081->80/tcp"]
        assert held(bench) == before
        assert bench.is_clean()

    def test_other_ports_that_the_kernel_refuses_leave_those_that_were(self, bench: Bench) -> None:
        view = bench.attach(A, publish=[publish(8080, 80)])
        before, refused = held(bench), 0
        for number in range(1, 9):
            bench.kernel.fail_at(number)
            try:
                bench.engine.publish(bench.engine.builder.find_endpoint(view.id), [publish(8081, 80)])
            except KernelError:
                refused += 1
            bench.kernel.heal()
            bench.resyncer.resync({HOST})
            if bench.engine.endpoint(view.id).ports != ["*:8080->80/tcp"]:
                assert bench.engine.endpoint(view.id).ports == ["*:8081->80/tcp"], f"after {number}"
                bench.engine.publish(bench.engine.builder.find_endpoint(view.id), [publish(8080, 80)])
            assert held(bench) == before
        assert refused
        assert bench.is_clean()


class TestComingBack:
    """A link that is made anew has the kernel's defaults, whatever one of its name had."""

    def test_a_bridge_of_the_same_name_is_guarded_at_once(self, bench: Bench) -> None:
        for _ in range(2):
            bench.network("back", options={"bridge": "podman1"})
            assert bench.is_clean()
            bench.engine.remove_network("back")

    def test_so_is_a_link_in_a_sandbox_that_stays(self, bench: Bench) -> None:
        bench.engine.create_sandbox(SandboxRequest(name="box", netns=A))
        for _ in range(2):
            view = bench.attach("box", sysctls={"net.ipv4.conf.IFNAME.arp_announce": "2"})
            assert bench.is_clean()
            bench.engine.detach([DetachRequest(endpoint=view.id)])


class TestFaults:
    def test_a_refusal_of_the_kernel_at_any_operation_takes_everything_back(self, bench: Bench) -> None:
        before, number = held(bench), 0
        while True:
            number += 1
            bench.kernel.fail_at(number)
            try:
                bench.attach(A, publish=[publish(8080, 80)])
            except KernelError:
                bench.kernel.heal()
                bench.resyncer.resync({HOST})
                assert held(bench) == before, f"after a failure at operation {number}"
                assert not bench.engine.intent.endpoints
                assert not bench.store.snapshot().records[1:]
            else:
                break
        assert number > 5
        bench.kernel.heal()
        assert bench.is_clean()

    def test_a_link_name_that_the_sandbox_holds_is_passed_over(self, bench: Bench) -> None:
        view = bench.engine.create_sandbox(SandboxRequest(name="box", netns=A))
        bench.kernel.state[view.id] = {("link", "eth0"): "somebody's"}  # type: ignore[dict-item]
        assert bench.attach("box").ifname == "eth1"

    def test_a_store_that_cannot_write_leaves_attach_undone_and_detach_undone(
        self, bench: Bench, monkeypatch
    ) -> None:
        view = bench.attach(A)
        before = held(bench)

        def full(changes, revision):
            raise StoreError("full", "no space left on device")

        monkeypatch.setattr(bench.store, "commit", full)
        with pytest.raises(StoreFailedError, match="full"):
            bench.attach(B)
        with pytest.raises(StoreFailedError):
            bench.engine.detach([DetachRequest(endpoint=view.id)])
        assert held(bench) == before
        assert bench.engine.endpoint(view.id) == view

    def test_a_holding_engine_changes_nothing(self, bench: Bench) -> None:
        bench.engine.hold = "the store is corrupt"
        before = bench.kernel.snapshot()
        for verb in (lambda: bench.attach(A), lambda: bench.network("x"), bench.resyncer.gc):
            with pytest.raises(ReadOnlyError, match="corrupt"):
                verb()
        assert bench.kernel.snapshot() == before


class TestUpkeep:
    def test_a_restart_with_nothing_changed_writes_nothing(self, bench: Bench) -> None:
        for number in range(5):
            bench.attach(f"/run/netns/{number}x", publish=[publish(8000 + number, 80)])
        bench.kinds()
        bench.restart()
        assert bench.kinds() == []
        assert bench.engine.reconciler.writes == 0

    def test_an_empty_store_beside_live_endpoints_deletes_nothing(self, bench: Bench) -> None:
        bench.attach(A)
        bench.kinds()
        fresh = Bench(kernel=bench.kernel)
        assert bench.kinds() == []
        assert len(fresh.engine.reconciler.orphans) == 1
        assert fresh.resyncer.gc().kept
        assert bench.kinds() == []
        fresh.resyncer.gc(confirmed=True)
        fresh.resyncer.gc(confirmed=True)
        assert held(bench) == {}

    def test_a_dead_namespace_is_released_with_its_addresses_and_ports(self, bench: Bench) -> None:
        view = bench.attach(A, publish=[publish(8080, 80)], addresses=["10.1.0.9"])
        bench.kernel.kill_namespace(view.sandbox_id, bench.engine.intent.sandboxes[view.sandbox_id].netns)
        bench.resyncer.resync({HOST})
        assert not bench.engine.intent.endpoints
        bench.attach(B, publish=[publish(8080, 80)], addresses=["10.1.0.9"])
        assert bench.is_clean()

    def test_a_reboot_releases_foreign_sandboxes_and_restores_our_own(self, bench: Bench) -> None:
        bench.attach(A)
        bench.engine.create_sandbox(SandboxRequest(name="mine"))
        kept = bench.attach("mine", addresses=["10.1.0.50"])
        bench.kernel.reboot()
        bench.restart()
        assert [e.name for e in bench.engine.endpoints()] == ["mine"]
        assert bench.engine.endpoint(kept.id).addresses == ["10.1.0.50/24"]
        bench.resyncer.resync({HOST, kept.sandbox_id})
        assert bench.is_clean()

    def test_drift_is_mended_and_told(self, bench: Bench) -> None:
        view = bench.attach(A, publish=[publish(8080, 80)])
        there = bench.kernel.state[HOST]
        for key in [k for k in there if str(k[0]).startswith("nft")]:
            del there[key]
        bench.kernel._drop_link(HOST, there["link", view.host_link])  # type: ignore[arg-type]
        bench.resyncer.resync({HOST})
        assert bench.is_clean()
        assert any(e.kind == "drift.repaired" for e in bench.engine.events.since(0))

    def test_a_host_side_that_was_moved_away_is_made_anew_with_its_other_end(self, bench: Bench) -> None:
        view = bench.attach(A)
        del bench.kernel.state[HOST]["link", view.host_link]
        report = bench.resyncer.resync({HOST})
        assert not report.failures
        assert bench.is_clean()

    def test_a_namespace_that_was_pinned_and_never_recorded_is_swept(self, bench: Bench) -> None:
        kept = bench.engine.create_sandbox(SandboxRequest(name="mine"))
        bench.kernel.create_namespace("stray")
        bench.restart()
        assert bench.kernel.pinned == {kept.id}

    def test_a_fight_is_slowed_down(self, bench: Bench) -> None:
        waits = []
        for name in ("front", *(f"front{i}" for i in range(24))):
            waits.append(bench.resyncer.repair_delay())
            key = bench.network(name).link
            del bench.kernel.state[HOST]["link", key]
            bench.resyncer.resync({HOST})
        waits.append(bench.resyncer.repair_delay())
        assert waits[0] == 0.0
        assert waits[-1] > 0.0


def test_the_same_resolver_in_other_letters_is_the_same_request() -> None:
    """Addresses have many spellings (RFC 5952): a retry of the same request is the same."""
    bench = Bench()
    bench.network()
    first = bench.attach("/run/netns/one", dns_servers=["2001:DB8::0:53"])
    assert bench.attach("/run/netns/one", dns_servers=["2001:DB8::0:53"]).id == first.id
    assert bench.attach("/run/netns/one", dns_servers=["2001:db8::53"]).id == first.id


@pytest.mark.parametrize("name", ["host", "none"])
def test_a_network_is_not_called_as_having_none_is(bench: Bench, name: str) -> None:
    """`run --network none` would never mean it."""
    with pytest.raises(InvalidError) as caught:
        bench.network(name)
    assert caught.value.field == "name"
