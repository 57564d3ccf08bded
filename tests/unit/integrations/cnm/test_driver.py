"""The driver as dockerd sees it, on a kernel in memory: what it answers, and what it makes of half a conversation."""

import json
from typing import Any

import msgspec
import pytest

from harness.cnm import PORTMAP, Dockerd, PluginError
from harness.engines import Bench
from sealane.compile.names import handover_link
from sealane.engine.errors import InUseError, NotFoundError
from sealane.http.call import MethodError
from sealane.integrations.cnm.routes import PluginRoutes
from sealane.kernel.objects import Link
from sealane.kernel.state import HOST
from sealane.model.endpoint import Endpoint
from sealane.model.ids import EndpointId
from sealane.wire.requests import DetachRequest

NETWORK, OTHER = "n" * 64, "m" * 64
WEB, DB = "e" * 64, "d" * 64
POOL, POOL6 = "10.50.0.0/24", "fd00:50::/64"
KEY = "/run/docker/netns/9e1d2437f0bf"
PORTS = {PORTMAP: [{"Proto": 6, "IP": "", "Port": 80, "HostIP": "", "HostPort": 8080, "HostPortEnd": 8080}]}


class Rig:
    def __init__(self) -> None:
        self.bench = Bench()
        # As Docker 20.10 has it: runc makes the namespace after Join.
        self.bench.kernel.absent.add(KEY)
        self.renew()
        self.docker = Dockerd(self.post)

    def renew(self) -> None:
        self.routes = PluginRoutes(self.bench.engine)

    def restart(self) -> None:
        """The plugin's process, over the same kernel and store."""
        self.bench.restart()
        self.renew()

    def post(self, path: str, body: bytes) -> Any:
        route, call = self.routes.find("POST", path)
        call.body = body
        answer = route.verb.answer(call)  # type: ignore[union-attr]
        return json.loads(msgspec.json.encode(answer))

    def network(self, **options: str) -> dict[str, Any]:
        pool = self.docker.pool(POOL)
        self.docker.create_network(NETWORK, pool, **options)
        return pool

    def endpoint(self, identity: str = WEB) -> Endpoint:
        return self.bench.engine.intent.endpoints[EndpointId(identity)]

    def addresses(self) -> set[str]:
        return {str(address) for _, address in self.bench.engine.intent.leases}

    def links(self) -> list[str]:
        items = self.bench.kernel.state[HOST].values()
        return [i.name for i in items if isinstance(i, Link) and i.kind.is_pair]

    def is_empty(self) -> bool:
        return not [*self.bench.engine.intent.records()] and not self.links()


@pytest.fixture
def rig() -> Rig:
    return Rig()


class TestNetworks:
    def test_a_network_is_made_of_its_pool(self, rig: Rig) -> None:
        pool = rig.docker.pool(POOL, "10.50.0.128/25", "10.50.0.1", "10.50.0.5")
        rig.docker.create_network(
            NETWORK, pool, sealane__name="front", com__docker__network__driver__mtu="1300"
        )
        view = rig.bench.engine.network("front")
        assert (view.id, view.mtu, view.subnets[0].prefix) == (NETWORK, 1300, POOL)
        assert view.subnets[0].ip_range == "10.50.0.128/25", "Docker tells it to the IPAM driver alone"
        subnet = rig.bench.engine.intent.networks[NETWORK].subnets[0]  # type: ignore[index]
        assert subnet.reserved == ("10.50.0.5",)
        assert len(rig.bench.engine.intent.networks) == 1, "the pool has become the network"

    def test_both_families(self, rig: Rig) -> None:
        pools = rig.docker.pool(POOL), rig.docker.pool(POOL6)
        rig.docker.create_network(NETWORK, *pools)
        joined = rig.docker.start(NETWORK, WEB, KEY, POOL, POOL6)
        assert (joined["Gateway"], joined["GatewayIPv6"]) == ("10.50.0.1", "fd00:50::1")
        assert len(rig.endpoint().addresses) == 2
        rig.docker.stop(
            NETWORK,
            WEB,
            *((p, a.partition("/")[0]) for p, a in zip((POOL, POOL6), rig.endpoint().addresses, strict=True)),
        )
        rig.docker.remove_network(NETWORK, *pools)
        assert rig.is_empty()

    def test_without_a_name_it_is_called_by_its_id(self, rig: Rig) -> None:
        rig.network()
        assert rig.bench.engine.network(f"docker-{NETWORK[:12]}").id == NETWORK

    def test_dockers_own_ipam_does_too(self, rig: Rig) -> None:
        data = {"AddressSpace": "LocalDefault", "Gateway": "10.51.0.1/24", "Pool": "10.51.0.0/24"}
        rig.docker.create_network(NETWORK, data)
        where = {"NetworkID": NETWORK, "EndpointID": WEB}
        made = rig.docker.call(
            "/NetworkDriver.CreateEndpoint", **where, Interface={"Address": "10.51.0.7/24"}, Options={}
        )
        assert made["Interface"]["Address"] == "", "an address that was given must not be given back"
        assert made["Interface"]["MacAddress"] == rig.endpoint().mac
        rig.docker.call("/NetworkDriver.DeleteEndpoint", **where)
        assert rig.addresses() == set(), "nobody will drop a lease that nobody asked us for"

    def test_automatic_pools_differ_until_one_is_liked(self, rig: Rig) -> None:
        asked = [rig.docker.pool("")["Pool"] for _ in range(3)]
        assert len(set(asked)) == 3
        for pool in asked:
            rig.docker.call("/IpamDriver.ReleasePool", PoolID=pool)
        assert rig.is_empty()

    def test_a_subnet_in_use_is_refused_by_its_holder(self, rig: Rig) -> None:
        rig.network(sealane__name="front")
        with pytest.raises(PluginError, match=r"10\.50\.0\.0/24.*front"):
            rig.docker.pool(POOL)

    def test_misspelt_options_are_refused_by_name(self, rig: Rig) -> None:
        for option in ("sealane__nane", "enable_icc"):
            pool = rig.docker.pool(POOL)
            with pytest.raises(PluginError, match="option"):
                rig.docker.create_network(NETWORK, pool, **{option: "x"})
            rig.docker.call("/IpamDriver.ReleasePool", PoolID=POOL)
        with pytest.raises(PluginError, match="`sealane` or by `docker`"):
            rig.network(sealane__ports="both")

    def test_only_docker_removes_what_docker_keeps_in_its_books(self, rig: Rig) -> None:
        rig.network(sealane__name="front")
        assert rig.bench.engine.prune_networks().removed == []
        with pytest.raises(InUseError) as caught:
            rig.bench.engine.remove_network("front")
        assert "docker network rm" in caught.value.hint
        rig.bench.engine.remove_network("front", force=True)
        where = {"NetworkID": NETWORK, "EndpointID": WEB}
        with pytest.raises(PluginError, match="knows no network"):
            rig.docker.call("/NetworkDriver.CreateEndpoint", **where, Interface={}, Options={})

    def test_a_network_that_others_are_on_is_theirs_from_then_on(self, rig: Rig) -> None:
        """dockerd forgets it, whatever we answer."""
        pool = rig.network(sealane__name="front")
        rig.docker.call("/IpamDriver.RequestAddress", PoolID=POOL, Address="10.50.0.99", Options=None)
        lab = rig.bench.attach("/run/netns/lab", "front")
        rig.docker.remove_network(NETWORK, pool)
        assert rig.bench.engine.network("front").endpoints == ["lab 10.50.0.2/24"]
        assert rig.addresses() == {lab.addresses[0].partition("/")[0]}, "nothing of Docker's is left on it"
        rig.bench.engine.detach([DetachRequest(endpoint=lab.id)])
        rig.bench.engine.remove_network("front")
        rig.network(sealane__name="front")
        assert rig.bench.is_clean()

    def test_the_same_network_again_while_they_are_there_is_refused_by_its_name(self, rig: Rig) -> None:
        pool = rig.network(sealane__name="front")
        rig.bench.attach("/run/netns/lab", "front")
        rig.docker.remove_network(NETWORK, pool)
        with pytest.raises(PluginError, match="of network front"):
            rig.docker.pool(POOL)

    def test_the_routed_driver_is_not_for_hand_over(self, rig: Rig) -> None:
        """A link that somebody else configures would ask for its neighbours, whom nobody answers there."""
        where = {"NetworkID": rig.bench.network("r", driver="routed").id, "EndpointID": WEB}
        with pytest.raises(PluginError, match="cannot be handed over"):
            rig.docker.call("/NetworkDriver.CreateEndpoint", **where, Interface={}, Options={})


class TestEndpoints:
    def test_one_is_there_before_its_sandbox(self, rig: Rig) -> None:
        rig.network()
        where = {"NetworkID": NETWORK, "EndpointID": WEB}
        rig.docker.call(
            "/NetworkDriver.CreateEndpoint", **where, Interface={"Address": "10.50.0.9/24"}, Options={}
        )
        assert rig.endpoint().sandbox is None
        assert rig.links() == [], "and holds its address, and nothing else"
        assert rig.addresses() == {"10.50.0.9"}

    def test_joined_it_leaves_a_link_on_the_host_to_be_taken(self, rig: Rig) -> None:
        rig.network()
        joined = rig.docker.start(NETWORK, WEB, KEY, POOL, options=PORTS)
        assert joined["InterfaceName"] == {"SrcName": handover_link(EndpointId(WEB)), "DstPrefix": "eth"}
        (link,) = [i for i in rig.bench.kernel.state[HOST].values() if isinstance(i, Link) and i.kind.is_pair]
        assert link.kind.handover == joined["InterfaceName"]["SrcName"]
        assert [str(p) for p in rig.endpoint().ports] == ["*:8080->80/tcp"]
        assert rig.bench.engine.endpoint(WEB).ports == ["*:8080->80/tcp"]
        assert rig.bench.is_clean()

    def test_each_request_again_gives_the_same_answer_and_changes_nothing(self, rig: Rig) -> None:
        """A request whose answer was lost is sent again where the body is still known."""
        answers: dict[str, tuple[bytes, Any]] = {}
        plain = rig.post

        def twice(path: str, body: bytes) -> Any:
            first = plain(path, body)
            revision = rig.bench.engine.revision
            free = path == "/IpamDriver.RequestAddress" and b'"Address": ""' in body
            if not free and path not in ("/Plugin.Activate",):
                assert plain(path, body) == first, path
                assert rig.bench.engine.revision == revision, path
            answers[path] = (body, first)
            return first

        rig.docker = Dockerd(twice)
        pool = rig.docker.pool(POOL)
        rig.docker.create_network(NETWORK, pool)
        rig.docker.start(NETWORK, WEB, KEY, POOL, address="10.50.0.9", options=PORTS)
        rig.docker.stop(NETWORK, WEB, (POOL, "10.50.0.9"))
        rig.docker.remove_network(NETWORK, pool)
        assert len(answers) > 10
        assert rig.is_empty()

    def test_an_address_is_nobody_elses_until_docker_gives_it_up(self, rig: Rig) -> None:
        """Given to another between DeleteEndpoint and ReleaseAddress, the latter would take it from that one."""
        pool = rig.docker.pool("10.50.0.0/30")
        rig.docker.create_network(NETWORK, pool)
        rig.docker.start(NETWORK, WEB, KEY, "10.50.0.0/30")
        where = {"NetworkID": NETWORK, "EndpointID": WEB}
        rig.docker.call("/NetworkDriver.Leave", **where)
        rig.docker.call("/NetworkDriver.DeleteEndpoint", **where)
        with pytest.raises(PluginError, match="full"):
            rig.docker.call("/IpamDriver.RequestAddress", PoolID="10.50.0.0/30", Address="", Options=None)
        rig.docker.call("/IpamDriver.ReleaseAddress", PoolID="10.50.0.0/30", Address="10.50.0.2")
        rig.docker.start(NETWORK, DB, KEY, "10.50.0.0/30")
        assert rig.endpoint(DB).addresses == ("10.50.0.2/30",)

    def test_releasing_takes_no_address_from_a_living_endpoint(self, rig: Rig) -> None:
        rig.network()
        rig.docker.start(NETWORK, WEB, KEY, POOL, address="10.50.0.9")
        rig.docker.call("/IpamDriver.ReleaseAddress", PoolID=POOL, Address="10.50.0.9")
        assert rig.endpoint().addresses == ("10.50.0.9/24",)

    def test_an_address_that_is_in_use_is_refused_by_its_holder(self, rig: Rig) -> None:
        rig.network(sealane__name="front")
        rig.bench.attach("/run/netns/lab", "front", addresses=["10.50.0.9"])
        with pytest.raises(PluginError, match="leased to endpoint lab"):
            rig.docker.start(NETWORK, WEB, KEY, POOL, address="10.50.0.9")

    def test_the_users_mac_is_taken_and_not_given_back(self, rig: Rig) -> None:
        rig.network()
        options = {"com.docker.network.endpoint.macaddress": "AkKqu8zd"}
        where = {"NetworkID": NETWORK, "EndpointID": WEB}
        interface = {"Address": "10.50.0.9/24", "MacAddress": "02:42:aa:bb:cc:dd"}
        made = rig.docker.call("/NetworkDriver.CreateEndpoint", **where, Interface=interface, Options=options)
        assert made["Interface"]["MacAddress"] == ""
        assert rig.endpoint().mac == "02:42:aa:bb:cc:dd"

    def test_a_mac_follows_its_address(self, rig: Rig) -> None:
        """Siblings that knew the last owner reach the next at once: Docker 20.10 announces nothing."""
        rig.network()
        macs = set()
        for identity in (WEB, DB):
            rig.docker.start(NETWORK, identity, KEY, POOL, address="10.50.0.9")
            macs.add(rig.endpoint(identity).mac)
            rig.docker.stop(NETWORK, identity, (POOL, "10.50.0.9"))
        assert len(macs) == 1

    def test_names_come_by_option_or_with_the_address(self, rig: Rig) -> None:
        rig.network()
        rig.docker.start(
            NETWORK, WEB, KEY, POOL, options={"sealane.name": "web", "sealane.aliases": "www,shop"}
        )
        assert (rig.endpoint().name, rig.endpoint().aliases) == ("web", ("www", "shop"))
        named = {"com.docker.network.endpoint.name": "db"}
        got = rig.docker.call("/IpamDriver.RequestAddress", PoolID=POOL, Address="", Options=named)
        where = {"NetworkID": NETWORK, "EndpointID": DB}
        rig.docker.call(
            "/NetworkDriver.CreateEndpoint", **where, Interface={"Address": got["Address"]}, Options={}
        )
        assert rig.endpoint(DB).name == "db"

    def test_an_internal_network_has_no_way_out(self, rig: Rig) -> None:
        rig.docker.create_network(NETWORK, rig.docker.pool(POOL), internal=True)
        joined = rig.docker.start(NETWORK, WEB, KEY, POOL)
        assert (joined["Gateway"], joined["GatewayIPv6"]) == ("", "")

    def test_docker_publishes_where_it_is_to(self, rig: Rig) -> None:
        rig.network(sealane__ports="docker")
        joined = rig.docker.start(NETWORK, WEB, KEY, POOL, options=PORTS)
        assert joined["Gateway"] == "", "so Docker adds its own way out, and publishes on it"
        assert rig.endpoint().ports == ()
        assert rig.bench.engine.endpoint(WEB).ports == ["*:8080->80/tcp by docker"]

    @pytest.mark.parametrize(
        ("sent", "shown"),
        [
            ([("127.0.0.1", 80, 8080, 8080)], "127.0.0.1:8080->80/tcp"),
            ([("::1", 80, 8080, 8080)], "[::1]:8080->80/tcp"),
            ([("", 9000 + i, 8000 + i, 8000 + i) for i in range(3)], "*:8000-8002->9000-9002/tcp"),
            ([("", 80, 8000, 8009)], "*:8000-8009->80/tcp"),
            ([("", 80, 0, 0)], "*:?->80/tcp"),
        ],
    )
    def test_what_docker_publishes_is_shown_as_ours_is(
        self, rig: Rig, sent: list[tuple[str, int, int, int]], shown: str
    ) -> None:
        rig.network(sealane__ports="docker")
        keys = ("HostIP", "Port", "HostPort", "HostPortEnd")
        bindings = [{"Proto": 6, "IP": "", **dict(zip(keys, one, strict=True))} for one in sent]
        rig.docker.start(NETWORK, WEB, KEY, POOL, options={PORTMAP: bindings})
        assert rig.bench.engine.endpoint(WEB).ports == [f"{shown} by docker"]

    def test_a_port_in_use_fails_the_start_and_leaves_nothing(self, rig: Rig) -> None:
        rig.network()
        rig.bench.kernel.port_users["tcp", 8080] = "nginx (pid 812)"
        with pytest.raises(PluginError, match="nginx"):
            rig.docker.start(NETWORK, WEB, KEY, POOL, address="10.50.0.9", options=PORTS)
        # As dockerd does then: no Revoke.
        where = {"NetworkID": NETWORK, "EndpointID": WEB}
        rig.docker.call("/NetworkDriver.Leave", **where)
        rig.docker.call("/NetworkDriver.DeleteEndpoint", **where)
        rig.docker.call("/IpamDriver.ReleaseAddress", PoolID=POOL, Address="10.50.0.9")
        assert rig.links() == []
        assert rig.addresses() == set()

    def test_leaving_takes_the_ports_along(self, rig: Rig) -> None:
        rig.network()
        rig.docker.start(NETWORK, WEB, KEY, POOL, options=PORTS)
        rig.docker.call("/NetworkDriver.Leave", NetworkID=NETWORK, EndpointID=WEB)
        assert rig.endpoint().ports == ()
        assert rig.bench.is_clean()

    def test_a_kernel_that_refuses_the_join_leaves_nothing_to_be_undone(self, rig: Rig) -> None:
        """After a failed Join dockerd sends DeleteEndpoint, and no Leave."""
        rig.network()
        rig.bench.kernel.fail_at(3)
        with pytest.raises(PluginError, match="kernel refused"):
            rig.docker.start(NETWORK, WEB, KEY, POOL, address="10.50.0.9")
        assert rig.links() == []
        assert rig.endpoint().sandbox is None
        rig.docker.call("/NetworkDriver.DeleteEndpoint", NetworkID=NETWORK, EndpointID=WEB)
        rig.docker.call("/IpamDriver.ReleaseAddress", PoolID=POOL, Address="10.50.0.9")
        assert rig.addresses() == set()

    def test_two_networks_are_one_sandbox(self, rig: Rig) -> None:
        rig.network()
        rig.docker.create_network(OTHER, rig.docker.pool("10.51.0.0/24"))
        rig.docker.start(NETWORK, WEB, KEY, POOL)
        rig.docker.start(OTHER, DB, KEY, "10.51.0.0/24")
        assert rig.endpoint(WEB).sandbox == rig.endpoint(DB).sandbox
        assert (rig.endpoint(WEB).ifname, rig.endpoint(DB).ifname) == ("eth0", "eth1")
        rig.docker.stop(NETWORK, WEB)
        assert len(rig.bench.engine.intent.sandboxes) == 1
        rig.docker.stop(OTHER, DB)
        assert len(rig.bench.engine.intent.sandboxes) == 0, "the record goes with its last endpoint"


class TestLosses:
    """What either side forgets."""

    @pytest.mark.parametrize(
        "method",
        [
            *(f"/NetworkDriver.{name}" for name in ("CreateNetwork", "CreateEndpoint", "Join", "Leave")),
            *(f"/NetworkDriver.{name}" for name in ("DeleteEndpoint", "EndpointOperInfo", "DeleteNetwork")),
            *(f"/NetworkDriver.{p}ExternalConnectivity" for p in ("Program", "Revoke")),
            *(f"/IpamDriver.{v}{what}" for v in ("Request", "Release") for what in ("Pool", "Address")),
        ],
    )
    def test_a_retry_that_has_lost_its_body_is_refused_at_once(self, rig: Rig, method: str) -> None:
        key = "Error" if method.startswith("/Ipam") else "Err"
        assert "no body" in rig.post(method, b"")[key]
        assert "not understood" in rig.post(method, b"{broken")[key]
        assert rig.is_empty()

    def test_the_orphan_of_a_lost_answer_gives_way_to_who_gets_its_address(self, rig: Rig) -> None:
        """The first try made an endpoint, its retries came without bodies: dockerd never speaks of it again."""
        rig.network()
        lost = {"NetworkID": NETWORK, "EndpointID": WEB}
        interface = {"Address": "10.50.0.9/24"}
        rig.docker.call("/NetworkDriver.CreateEndpoint", **lost, Interface=interface, Options={})
        rig.docker.call(
            "/NetworkDriver.CreateEndpoint",
            NetworkID=NETWORK,
            EndpointID=DB,
            Interface=interface,
            Options={},
        )
        assert [e.id for e in rig.bench.engine.intent.endpoints.values()] == [DB]

    def test_a_network_whose_answer_was_lost_goes_with_its_pools(self, rig: Rig) -> None:
        """dockerd takes it for refused, gives its pools back, and never names it again."""
        pools = rig.docker.pool(POOL), rig.docker.pool(POOL6)
        rig.docker.create_network(OTHER, *pools, sealane__name="front")
        for pool in pools:
            rig.docker.call("/IpamDriver.ReleaseAddress", PoolID=pool["Pool"], Address=pool["Gateway"][:-3])
            rig.docker.call("/IpamDriver.ReleasePool", PoolID=pool["Pool"])
        assert rig.is_empty()
        rig.network(sealane__name="front")
        assert rig.bench.engine.network("front").id == NETWORK

    def test_a_pool_that_is_given_back_takes_nobody_along(self, rig: Rig) -> None:
        rig.network()
        rig.docker.start(NETWORK, WEB, KEY, POOL)
        rig.docker.call("/IpamDriver.ReleasePool", PoolID=POOL)
        assert rig.endpoint().sandbox, "what runs is left alone"
        rig.docker.call("/NetworkDriver.Leave", NetworkID=NETWORK, EndpointID=WEB)
        rig.docker.call("/NetworkDriver.DeleteEndpoint", NetworkID=NETWORK, EndpointID=WEB)
        rig.bench.attach("/run/netns/lab", NETWORK)
        rig.docker.call("/IpamDriver.ReleasePool", PoolID=POOL)
        assert [e for e in rig.bench.engine.network(NETWORK).endpoints if e.startswith("lab ")]

    def test_a_new_dockerd_has_forgotten_what_the_last_one_asked_for(self, rig: Rig) -> None:
        rig.network()
        rig.docker.start(NETWORK, WEB, KEY, POOL)
        rig.docker.call("/IpamDriver.RequestAddress", PoolID=POOL, Address="", Options=None)
        interface = {"Address": "10.50.0.99/24"}
        lost = {"NetworkID": NETWORK, "EndpointID": DB}
        rig.docker.call("/NetworkDriver.CreateEndpoint", **lost, Interface=interface, Options={})
        rig.docker.activate()
        assert [e.id for e in rig.bench.engine.intent.endpoints.values()] == [WEB], "what runs is left alone"

    def test_addresses_of_other_drivers_networks_outlive_a_dockerd(self, rig: Rig) -> None:
        """`-d bridge --ipam-driver sealane`: nobody tells us of its endpoints."""
        rig.docker.pool(POOL)
        got = rig.docker.call("/IpamDriver.RequestAddress", PoolID=POOL, Address="", Options=None)
        rig.docker.activate()
        rig.restart()
        assert got["Address"].partition("/")[0] in rig.addresses()
        rig.docker.call("/IpamDriver.ReleaseAddress", PoolID=POOL, Address=got["Address"].partition("/")[0])
        rig.docker.call("/IpamDriver.ReleasePool", PoolID=POOL)
        assert rig.is_empty()

    def test_the_plugin_may_be_restarted_after_any_request(self, rig: Rig) -> None:
        """Nothing is sent to it again, so all of it must be in the store."""
        steps = []

        def restart(path: str) -> None:
            steps.append(path)
            rig.restart()

        rig.docker.after = restart
        rig.docker.activate()
        pool = rig.docker.pool(POOL, "10.50.0.128/25", aux="10.50.0.5")
        rig.docker.create_network(NETWORK, pool)
        rig.docker.start(NETWORK, WEB, KEY, POOL, options=PORTS)
        assert rig.endpoint().addresses == ("10.50.0.128/24",)
        assert rig.bench.is_clean()
        rig.docker.stop(NETWORK, WEB, (POOL, "10.50.0.128"))
        rig.docker.remove_network(NETWORK, pool)
        assert len(steps) == 20
        assert rig.is_empty()

    def test_what_is_gone_is_given_up_with_success(self, rig: Rig) -> None:
        """dockerd takes an endpoint for gone whatever we say: after a reboot it names ones that nobody has."""
        rig.docker.stop(NETWORK, WEB, (POOL, "10.50.0.9"))
        rig.docker.remove_network(NETWORK, {"Pool": POOL, "Gateway": "10.50.0.1/24"})

    def test_a_dead_namespace_ends_what_docker_forgot_to_end(self, rig: Rig) -> None:
        """The plugin was away while the container stopped: dockerd does not tell it again."""
        rig.network()
        rig.docker.start(NETWORK, WEB, KEY, POOL, options=PORTS)
        (sandbox,) = rig.routes.staged.awaited()
        assert not rig.routes.staged.look_for(sandbox)
        rig.bench.kernel.absent.discard(KEY)
        assert rig.routes.staged.look_for(sandbox)
        assert rig.routes.staged.awaited() == []
        known = rig.bench.engine.intent.sandboxes[sandbox.id]
        assert known.netns is not None
        rig.bench.kernel.dead.add(known.netns.inode)
        for name in list(rig.links()):
            del rig.bench.kernel.state[HOST]["link", name]
        rig.bench.resyncer.resync({HOST})
        assert WEB not in rig.bench.engine.intent.endpoints
        assert rig.links() == [], "no link is made for the dead"
        rig.docker.stop(NETWORK, WEB, (POOL, "10.50.0.2"))

    def test_a_namespace_that_never_comes_is_given_up(self, rig: Rig) -> None:
        rig.network()
        rig.docker.start(NETWORK, WEB, KEY, POOL)
        (sandbox,) = rig.routes.staged.awaited()
        rig.routes.staged.give_up(sandbox)
        assert rig.links() == []
        assert rig.routes.staged.awaited() == []

    def test_who_attaches_to_the_namespace_first_finds_the_same_sandbox(self, rig: Rig) -> None:
        rig.network()
        rig.docker.start(NETWORK, WEB, KEY, POOL)
        rig.bench.kernel.absent.discard(KEY)
        rig.bench.network("back")
        view = rig.bench.attach(KEY, "back")
        assert view.sandbox_id == rig.endpoint().sandbox
        assert rig.routes.staged.awaited() == []
        assert rig.bench.is_clean()

    def test_a_link_that_was_taken_is_no_drift(self, rig: Rig) -> None:
        rig.network()
        rig.docker.start(NETWORK, WEB, KEY, POOL)
        rig.bench.kernel.performed.clear()
        rig.bench.resyncer.resync({HOST})
        rig.restart()
        assert rig.bench.kernel.performed == []

    def test_after_a_reboot_nothing_is_made_for_containers_that_were(self, rig: Rig) -> None:
        rig.network()
        rig.docker.start(NETWORK, WEB, KEY, POOL)
        rig.bench.kernel.reboot()
        rig.restart()
        assert rig.links() == []
        rig.docker.stop(NETWORK, WEB)

    def test_while_the_engine_holds_docker_is_told_why(self, rig: Rig) -> None:
        rig.network()
        rig.bench.engine.hold = "the store is full"
        with pytest.raises(PluginError, match="the store is full"):
            rig.docker.start(NETWORK, WEB, KEY, POOL)
        rig.docker.activate()


def test_a_swarms_nodes_are_heard_of_and_not_needed(rig: Rig) -> None:
    """An error would fail `docker swarm init`, which tells even a driver that no swarm takes."""
    data = {"Address": "192.0.2.11", "BindAddress": "192.0.2.11", "Self": True}
    for verb in ("New", "Delete"):
        assert rig.docker.call(f"/NetworkDriver.Discover{verb}", DiscoveryType=1, DiscoveryData=data) == {}


def test_a_network_without_ipv4(rig: Rig) -> None:
    """Docker 28 has `--ipv4=false`, said by a key, and sends no IPv4 data then."""
    pool = rig.docker.pool(POOL6)
    rig.docker.call(
        "/NetworkDriver.CreateNetwork",
        NetworkID=NETWORK,
        Options={"com.docker.network.enable_ipv4": False, "com.docker.network.enable_ipv6": True},
        IPv4Data=[],
        IPv6Data=[pool],
    )
    where = {"NetworkID": NETWORK, "EndpointID": WEB}
    got = rig.docker.call("/IpamDriver.RequestAddress", PoolID=POOL6, Address="", Options=None)
    interface = {"Address": "", "AddressIPv6": got["Address"], "MacAddress": ""}
    rig.docker.call("/NetworkDriver.CreateEndpoint", **where, Interface=interface, Options={})
    joined = rig.docker.call("/NetworkDriver.Join", **where, SandboxKey=KEY, Options={})
    assert (joined["Gateway"], joined["GatewayIPv6"]) == ("", "fd00:50::1")
    assert rig.endpoint().addresses == (got["Address"],)


def test_unknown_methods_are_404_and_others_than_post_405() -> None:
    routes = PluginRoutes(Bench().engine)
    with pytest.raises(NotFoundError):
        routes.find("POST", "/NetworkDriver.GwAllocCheck")
    with pytest.raises(MethodError):
        routes.find("GET", "/NetworkDriver.Join")
