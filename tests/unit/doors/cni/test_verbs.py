"""CNI SPEC 1.1.0 as a checklist, the daemon's half: each verb on a kernel in memory."""

import asyncio

import msgspec
import pytest

import harness.door
from harness.engines import Bench
from sealane.doors.cni.verbs import Cni
from sealane.engine.errors import (
    ConflictError,
    ExistsError,
    FullError,
    HoldError,
    InvalidError,
    KernelError,
    NotFoundError,
)
from sealane.engine.ports import Reserver
from sealane.kernel.objects import Qdisc
from sealane.kernel.state import HOST
from sealane.wire.cni import CniRequest

A, B = "/run/netns/a", "/run/netns/b"
SUBNETS = ["10.88.0.0/24", "fd00:88::/64"]


PLUGIN, RUNTIME = 41, 40
"""Pids."""
WEB = {"runtimeConfig": {"portMappings": [{"hostPort": 8080, "containerPort": 80}]}}
FRONT = {"name": "front", "subnets": ["10.1.0.0/24"], **WEB}
BACK = {"name": "back", "subnets": ["10.2.0.0/24"], "ifname": "eth1", **WEB}


def ports(door):
    return {e.network: e.ports for e in door.endpoints()}


class Door(harness.door.Door):
    def __init__(self):
        super().__init__(lambda bench, detach: Cni(bench.engine, detach))

    def __call__(
        self, verb, container="c1", netns=A, ifname="eth0", *, subnets=SUBNETS, leased=None, **fields
    ):
        top = {name: fields.pop(name) for name in ("args", "prev", "only_present") if name in fields}
        own = {"args": {"cni": fields.pop("own_args")}} if "own_args" in fields else {}
        config = {"name": fields.pop("name", "pods"), **own, **fields}
        if leased is None and subnets:
            config.setdefault("ipam", {"type": "sealane", "ranges": [[{"subnet": s}] for s in subnets]})
        document = {"verb": verb, "config": config, "leased": leased, **top}
        if verb in {"ADD", "DEL", "CHECK"}:
            document |= {"container_id": container, "ifname": ifname, "netns": netns}
        request = msgspec.json.decode(msgspec.json.encode(document), type=CniRequest)
        return asyncio.run(self.verbs.call(request, PLUGIN)).result

    def endpoints(self):
        return self.engine.endpoints()


@pytest.fixture
def door():
    door = Door()
    yield door
    assert door.bench.is_clean()


def gc(door, *valid, **fields):
    return door(
        "GC", **{"cni.dev/valid-attachments": [{"containerID": c, "ifname": i} for c, i in valid]}, **fields
    )


class TestAdd:
    def test_the_result_says_what_is_there(self, door):
        result = door("ADD")
        here, there = result.interfaces
        assert (there.name, there.sandbox, there.mtu) == ("eth0", A, 1400)
        assert here.sandbox == ""
        assert here.name == door.endpoints()[0].host_link
        assert here.mac == door.bench.kernel.state[HOST]["link", here.name].mac
        assert there.mac == door.endpoints()[0].mac
        assert [(ip.address, ip.gateway, ip.interface) for ip in result.ips] == [
            ("10.88.0.2/24", "10.88.0.1", 1),
            ("fd00:88::2/64", "fd00:88::1", 1),
        ]
        assert [(route.dst, route.gw) for route in result.routes] == [
            ("0.0.0.0/0", "10.88.0.1"),
            ("::/0", "fd00:88::1"),
        ]

    def test_again_is_the_same_answer_and_changes_nothing(self, door):
        first, revision = door("ADD"), door.engine.revision
        assert door("ADD") == first
        door.restart()
        assert door("ADD") == first
        assert door.engine.revision == revision

    def test_again_with_another_wish_is_refused(self, door):
        door("ADD")
        with pytest.raises(ConflictError) as caught:
            door("ADD", runtimeConfig={"mac": "02:00:00:00:00:99"})
        assert caught.value.field == "mac"

    def test_the_network_is_made_once(self, door):
        door("ADD", mtu=1300, isGateway=False, ipMasq=False, portIsolation=True)
        door("ADD", "c2", B, mtu=1300, isGateway=False, ipMasq=False, portIsolation=True)
        network = door.engine.intent.network_named("pods")
        assert (network.mtu, network.gateway_on_link, network.masquerade, network.icc) == (
            1300,
            False,
            False,
            False,
        )
        assert len(door.endpoints()) == 2

    def test_without_subnets_they_come_from_the_pools(self, door):
        assert len(door("ADD", subnets=[]).ips) == 1
        assert door("ADD", "c2", B, subnets=[]).ips[0].gateway == door.endpoints()[0].gateways[0]

    def test_a_network_that_is_there_is_used_as_it_is_where_nothing_is_said(self, door):
        door.bench.network("pods", options={"mtu": "1280", "masquerade": "false"})
        result = door("ADD", subnets=[])
        assert result.interfaces[1].mtu == 1280

    @pytest.mark.parametrize(
        ("said", "field"),
        [
            ({"mtu": 1300}, "mtu"),
            ({"driver": "routed"}, "driver"),
            ({"bridge": "cni0"}, "bridge"),
            ({"internal": True}, "internal"),
            ({"isGateway": False}, "isGateway"),
            ({"ipMasq": False}, "ipMasq"),
            ({"portIsolation": True}, "portIsolation"),
            ({"resolver": True}, "resolver"),
            ({"subnets": ["10.99.0.0/24"]}, "IPv4 subnet"),
            ({"subnets": ["10.88.0.0/24", "fd00:99::/64"]}, "IPv6 subnet"),
            ({"ipam": {"ranges": [[{"subnet": "10.88.0.0/24", "gateway": "10.88.0.9"}]]}}, "gateway"),
            (
                {
                    "ipam": {
                        "ranges": [
                            [
                                {
                                    "subnet": "10.88.0.0/24",
                                    "rangeStart": "10.88.0.128",
                                    "rangeEnd": "10.88.0.255",
                                }
                            ]
                        ]
                    }
                },
                "range",
            ),
            ({"leased": {"ips": [{"address": "10.88.7.2/16"}]}}, "IPv4 subnet"),
        ],
    )
    def test_and_refused_where_it_differs_from_what_is_said(self, door, said, field):
        door("ADD")
        with pytest.raises(ExistsError) as caught:
            door("ADD", "c2", B, **said)
        assert caught.value.field == field
        assert len(door.endpoints()) == 1

    def test_a_network_that_was_made_for_an_add_that_failed_is_taken_away(self, door):
        with pytest.raises(InvalidError):
            door("ADD", runtimeConfig={"mac": "nonsense"})
        door.bench.kernel.fail_at(20)
        with pytest.raises(KernelError):
            door("ADD")
        door.bench.kernel.heal()
        assert door.engine.networks() == []
        assert door.engine.sandboxes() == []

    def test_a_range_is_a_block(self, door):
        block = {
            "subnet": "10.88.0.0/24",
            "rangeStart": "10.88.0.128",
            "rangeEnd": "10.88.0.255",
            "gateway": "10.88.0.3",
        }
        result = door("ADD", ipam={"ranges": [[block]]})
        assert (result.ips[0].address, result.ips[0].gateway) == ("10.88.0.128/24", "10.88.0.3")

    @pytest.mark.parametrize(
        "asked",
        [
            [[{"subnet": "10.88.0.0/24", "rangeStart": "10.88.0.10", "rangeEnd": "10.88.0.20"}]],
            [[{"subnet": "10.88.0.0/24", "rangeStart": "10.88.0.10"}]],
            [[{"subnet": "10.88.0.0/24", "rangeStart": "10.88.0.20", "rangeEnd": "10.88.0.10"}]],
            [[{"subnet": "10.88.0.0/24", "rangeStart": "x", "rangeEnd": "y"}]],
            [[{"subnet": "10.88.0.0/24"}, {"subnet": "10.89.0.0/24"}]],
            [[{"subnet": "10.88.0.0/24"}], [{"subnet": "10.89.0.0/24"}]],
            [[{"subnet": "10.88.0.1/24"}]],
            [[]],
        ],
    )
    def test_a_range_that_cannot_be_is_refused(self, door, asked):
        with pytest.raises(InvalidError):
            door("ADD", ipam={"ranges": asked})
        assert door.engine.networks() == []

    def test_a_namespace_that_is_no_path_is_refused(self, door):
        with pytest.raises(InvalidError) as caught:
            door("ADD", netns="a")
        assert caught.value.field == "netns"

    def test_a_namespace_that_is_not_there_is_refused(self, door, monkeypatch):
        def gone(_):
            raise FileNotFoundError

        monkeypatch.setattr(door.bench.kernel, "resolve_namespace", gone)
        with pytest.raises(NotFoundError) as caught:
            door("ADD")
        assert caught.value.field == "netns"

    def test_a_container_that_comes_back_elsewhere_leaves_where_it_was(self, door):
        first = door("ADD")
        again = door("ADD", netns=B)
        assert again.interfaces[1].sandbox == B
        assert len(door.endpoints()) == 1
        assert again.interfaces[0].name != first.interfaces[0].name

    def test_the_first_network_is_the_way_out(self, door):
        assert door("ADD", name="zulu", subnets=["10.1.0.0/24"]).routes
        second = door("ADD", name="alpha", subnets=["10.2.0.0/24"], ifname="net1")
        assert second.routes == []
        assert door("ADD", name="zulu", subnets=["10.1.0.0/24"]).routes

    def test_an_internal_network_has_no_way_out(self, door):
        result = door("ADD", internal=True)
        assert result.routes == []
        assert {ip.gateway for ip in result.ips} == {""}

    def test_what_is_present_is_told_and_nothing_is_made(self, door):
        assert door("ADD", only_present=True) is None
        assert door.engine.networks() == []
        first = door("ADD")
        assert door("ADD", only_present=True) == first
        assert door("ADD", netns=B, only_present=True) is None
        assert len(door.endpoints()) == 1

    def test_names_are_answered_only_where_that_is_asked_for(self, door):
        """At the gateway's address, where a node's own DNS server may want to be."""
        door("ADD")
        assert door.engine.intent.network_named("pods").resolvers == ()
        door("ADD", name="named", subnets=["10.77.0.0/24"], netns=B, resolver=True)
        assert door.engine.intent.network_named("named").resolvers == ("10.77.0.1",)

    def test_dns_is_passed_on_and_the_runtimes_goes_before(self, door):
        own = {"nameservers": ["10.0.0.1"], "domain": "x", "search": ["a"]}
        assert door("ADD", dns=own).dns == own
        asked = {"servers": ["10.0.0.2"], "searches": ["b"], "options": ["ndots:5"]}
        assert door("ADD", dns=own, runtimeConfig={"dns": asked}).dns == {
            "nameservers": ["10.0.0.2"],
            "domain": "x",
            "search": ["b"],
            "options": ["ndots:5"],
        }


class TestLeased:
    LEASE = {"ips": [{"address": "10.88.0.9/24", "gateway": "10.88.0.1"}], "routes": [{"dst": "0.0.0.0/0"}]}

    def test_a_plugins_addresses_are_taken_and_make_the_network(self, door):
        result = door("ADD", leased=self.LEASE)
        assert [ip.address for ip in result.ips] == ["10.88.0.9/24"]
        assert door.engine.network("pods").subnets[0].prefix == "10.88.0.0/24"

    @pytest.mark.parametrize(
        "lease",
        [
            {"ips": []},
            {"ips": [{"address": "10.88.0.9"}]},
            {"ips": [{"address": "10.88.0.900/24"}]},
            {"ips": [{"address": "10.88.0.9/24"}], "routes": [{"dst": "10.0.0.0/8"}]},
            {"ips": [{"address": "10.88.0.9/24"}, {"address": "10.88.0.10/24"}]},
        ],
    )
    def test_what_cannot_be_kept_is_refused(self, door, lease):
        with pytest.raises(InvalidError):
            door("ADD", leased=lease)
        assert door.engine.networks() == []


class TestCapabilities:
    def test_ports_are_published_and_port_0_is_none(self, door):
        ports = [
            {"hostPort": 8080, "containerPort": 80, "protocol": "TCP"},
            {"hostPort": 5353, "containerPort": 53, "protocol": "udp", "hostIP": "192.0.2.10"},
            {"hostPort": 0, "containerPort": 99},
            {"hostPort": 8081, "containerPort": 81, "hostIP": "0.0.0.0"},
        ]
        door("ADD", runtimeConfig={"portMappings": ports})
        assert door.endpoints()[0].ports == [
            "*:8080->80/tcp",
            "192.0.2.10:5353->53/udp",
            "0.0.0.0:8081->81/tcp",
        ]

    def test_a_port_in_use_is_told_with_its_holder(self, door):
        ports = [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]
        door("ADD", runtimeConfig={"portMappings": ports})
        with pytest.raises(ConflictError, match="held by endpoint c1"):
            door("ADD", "c2", B, runtimeConfig={"portMappings": ports})

    def test_a_protocol_that_is_none_is_refused(self, door):
        with pytest.raises(InvalidError) as caught:
            door(
                "ADD",
                runtimeConfig={"portMappings": [{"hostPort": 1, "containerPort": 1, "protocol": "icmp"}]},
            )
        assert caught.value.field == "portMappings[0].protocol"

    @pytest.mark.parametrize(
        ("wish", "address"),
        [
            ({"runtimeConfig": {"ips": ["10.88.0.50/24"]}}, "10.88.0.50/24"),
            ({"args": {"IP": "10.88.0.51"}}, "10.88.0.51/24"),
        ],
    )
    def test_addresses_asked_for_are_given(self, door, wish, address):
        assert door("ADD", **wish).ips[0].address == address

    def test_an_address_given_twice_is_one(self, door):
        """podman's `network reload` says what its user asked for and what the container had."""
        result = door("ADD", runtimeConfig={"ips": ["10.88.0.77", "10.88.0.77/24", "10.88.0.77"]})
        assert [ip.address for ip in result.ips][:1] == ["10.88.0.77/24"]

    def test_the_runtimes_wish_goes_before_args_and_these_before_cni_args(self, door):
        every = {"runtimeConfig": {"ips": ["10.88.0.50"]}, "args": {"IP": "10.88.0.52"}}
        assert door("ADD", **every).ips[0].address == "10.88.0.50/24"

    def test_a_mac_asked_for_is_given(self, door):
        assert (
            door("ADD", runtimeConfig={"mac": "02:00:00:00:00:07"}).interfaces[1].mac == "02:00:00:00:00:07"
        )
        assert (
            door("ADD", "c2", B, args={"MAC": "02:00:00:00:00:08"}).interfaces[1].mac == "02:00:00:00:00:08"
        )

    @pytest.mark.parametrize("aliases", [["db", "store"], {"pods": ["db", "store"], "other": ["x"]}])
    def test_aliases_are_names(self, door, aliases):
        door("ADD", runtimeConfig={"aliases": aliases})
        assert door.endpoints()[0].aliases == ["db", "store"]

    def test_ranges_of_the_runtime_go_before(self, door):
        result = door("ADD", runtimeConfig={"ipRanges": [[{"subnet": "10.77.0.0/24"}]]})
        assert result.ips[0].address == "10.77.0.2/24"

    def test_the_pods_names_are_its_name_and_labels(self, door):
        names = {"K8S_POD_NAME": "web-0", "K8S_POD_NAMESPACE": "shop", "K8S_POD_UID": "u-1"}
        door("ADD", args=names, runtimeConfig={"cgroupPath": "/kubepods/x"})
        endpoint = door.endpoints()[0]
        assert (endpoint.name, endpoint.sandbox) == ("shop/web-0", "shop/web-0")
        assert endpoint.labels == {
            "sealane.cni.container": "c1",
            "sealane.cni.ifname": "eth0",
            "sealane.cni.pod": "web-0",
            "sealane.cni.namespace": "shop",
            "sealane.cni.uid": "u-1",
            "sealane.cni.cgroup": "/kubepods/x",
        }

    def test_two_pods_of_one_name_are_two(self, door):
        for container, netns, namespace in (("c1", A, "shop"), ("c2", B, "blog")):
            door("ADD", container, netns, args={"K8S_POD_NAME": "web-0", "K8S_POD_NAMESPACE": namespace})
        assert {(e.name, e.sandbox) for e in door.endpoints()} == {
            ("shop/web-0", "shop/web-0"),
            ("blog/web-0", "blog/web-0"),
        }

    def test_a_pods_name_is_whole_however_long(self, door):
        """Those of one Deployment differ at their ends."""
        for container, netns, end in (("c1", A, "a"), ("c2", B, "b")):
            door("ADD", container, netns, args={"K8S_POD_NAME": "w" * 252 + end, "K8S_POD_NAMESPACE": "shop"})
        assert [e.name for e in door.endpoints()] == [f"shop/{'w' * 252}{end}" for end in "ab"]

    def test_a_pod_that_comes_before_its_predecessor_has_gone_is_another_sandbox(self, door):
        """Of a StatefulSet whose pod was deleted by force."""
        args = {"K8S_POD_NAME": "web-0", "K8S_POD_NAMESPACE": "shop"}
        door("ADD", "c1", A, args=args)
        door("ADD", "c2", B, args=args)
        assert [e.name for e in door.endpoints()] == ["shop/web-0", "shop/web-0"]
        assert len({e.sandbox for e in door.endpoints()}) == 2
        assert all(e.sandbox.startswith("shop/web-0") for e in door.endpoints())

    @pytest.mark.parametrize(
        ("args", "name"),
        [
            ({"K8S_POD_NAME": "web-0"}, "web-0"),
            ({"K8S_POD_NAMESPACE": "shop"}, "c1"),
            ({"K8S_POD_NAME": "web-0", "K8S_POD_NAMESPACE": "no/name"}, "web-0"),
        ],
    )
    def test_without_either_there_is_no_namespace(self, door, args, name):
        """podman's CNI sends the container's name alone."""
        door("ADD", args=args)
        assert door.endpoints()[0].name == name

    def test_labels_of_the_configuration_are_the_endpoints_but_for_those_by_which_doors_know_their_own(
        self, door
    ):
        door("ADD", own_args={"labels": [{"key": "tier", "value": "web"}]})
        assert door.endpoints()[0].labels["tier"] == "web"
        with pytest.raises(InvalidError) as caught:
            door("ADD", "c2", B, own_args={"labels": [{"key": "sealane.podman.container", "value": "x"}]})
        assert caught.value.field == "args.cni.labels"

    @pytest.mark.parametrize(
        ("container", "pod", "name"),
        [("0123456789abcdef" * 4, "", "0123456789ab"), ("c1", "p" * 100, "p" * 63)],
    )
    def test_a_name_that_is_too_long_is_shortened(self, door, container, pod, name):
        door("ADD", container, args={"K8S_POD_NAME": pod} if pod else {})
        assert door.endpoints()[0].name == name

    @pytest.mark.parametrize(("fields", "has"), [({}, False), ({"fastPath": True}, True)])
    def test_a_fast_path_is_there_for_the_asking(self, door, fields, has):
        result = door("ADD", **fields)
        assert (("fast-port", result.interfaces[0].name) in door.bench.kernel.state[HOST]) is has

    def test_bandwidth_is_a_bucket_at_each_sending_end(self, door):
        wish = {
            "ingressRate": 8_000_000,
            "ingressBurst": 160_000,
            "egressRate": 16_000_000,
            "egressBurst": 2**32 - 1,
        }
        result = door("ADD", runtimeConfig={"bandwidth": wish})
        here = door.bench.kernel.state[HOST]["qdisc", result.interfaces[0].name]
        inside = door.bench.kernel.state[door.endpoints()[0].sandbox_id]["qdisc", "eth0"]
        assert here == Qdisc(link=here.link, rate=1_000_000, burst=20_000, limit=70_000)
        assert (inside.rate, inside.burst) == (2_000_000, 20_000), "10 ms, for none was meant"

    def test_one_direction_alone_and_from_the_configuration(self, door):
        door("ADD", egressRate=16_000_000, egressBurst=160_000)
        kinds = [key[0] for key in door.bench.kernel.state[HOST]]
        assert "qdisc" not in kinds
        assert ("qdisc", "eth0") in door.bench.kernel.state[door.endpoints()[0].sandbox_id]

    def test_a_bucket_is_one_that_the_kernel_can_count(self, door):
        door("ADD", ingressRate=8_000, ingressBurst=2**31 - 2)
        qdisc = next(i for i in door.bench.kernel.state[HOST].values() if isinstance(i, Qdisc))
        assert qdisc.burst * 10**9 // qdisc.rate // 64 < 2**32

    def test_a_bucket_holds_a_frame(self, door):
        door("ADD", ingressRate=8_000, ingressBurst=8)
        qdisc = next(i for i in door.bench.kernel.state[HOST].values() if isinstance(i, Qdisc))
        assert qdisc.burst == 1400 + 18
        assert qdisc.limit >= 10 * 1400

    @pytest.mark.parametrize(
        ("wish", "field"),
        [
            ({"ingressRate": 1, "ingressBurst": 1}, "ingress.rate"),
            ({"egressRate": 10**13}, "egress.rate"),
            ({"egressRate": 10**7, "egressBurst": -1}, "egress.burst"),
            ({"ingressBurst": 100}, "bandwidth.ingressBurst"),
        ],
    )
    def test_a_rate_that_cannot_be_kept_is_refused(self, door, wish, field):
        with pytest.raises(InvalidError) as caught:
            door("ADD", runtimeConfig={"bandwidth": wish})
        assert caught.value.field == field


class TestDel:
    def test_everything_goes_and_again_is_no_error(self, door):
        door("ADD", runtimeConfig={"bandwidth": {"ingressRate": 10**6}})
        for _ in range(2):
            door("DEL")
        assert door.endpoints() == []
        assert door.engine.sandboxes() == []

    @pytest.mark.parametrize("netns", ["", "/run/netns/gone", B])
    def test_whatever_is_said_of_the_namespace(self, door, netns):
        door("ADD")
        door("DEL", netns=netns)
        assert door.endpoints() == []

    def test_a_network_that_is_gone_is_no_error(self, door):
        door("DEL")
        door("ADD")
        door.engine.remove_network("pods", force=True)
        door("DEL")

    def test_the_configuration_of_today_does_not_matter(self, door):
        door("ADD")
        door("DEL", mtu=1280, subnets=["10.99.0.0/24"])
        assert door.endpoints() == []

    def test_others_stay(self, door):
        door("ADD")
        door("ADD", "c2", B)
        door("DEL")
        assert [e.labels["sealane.cni.container"] for e in door.endpoints()] == ["c2"]

    def test_a_dead_namespace_is_released(self, door):
        door("ADD")
        sandbox = door.engine.intent.sandboxes[door.endpoints()[0].sandbox_id]
        door.bench.kernel.kill_namespace(sandbox.id, sandbox.netns)
        door("DEL")
        assert door.endpoints() == []


class TestPortsOfAContainerOnTwoNetworks:
    def test_are_on_the_first_to_come(self, door):
        for _ in range(2):
            door("ADD", **FRONT)
            door("ADD", **BACK)
            assert ports(door) == {"front": ["*:8080->80/tcp"], "back": []}

    def test_move_to_the_next_and_stay_there(self, door):
        door("ADD", **FRONT)
        door("ADD", **BACK)
        door("DEL", **FRONT)
        assert ports(door) == {"back": ["*:8080->80/tcp"]}
        door("ADD", **BACK)
        door("ADD", **FRONT)
        assert ports(door) == {"front": [], "back": ["*:8080->80/tcp"]}
        door("DEL", **FRONT)
        assert ports(door) == {"back": ["*:8080->80/tcp"]}
        door("DEL", **BACK)
        assert ports(door) == {}

    def test_do_not_move_to_a_network_without_a_way_in(self, door):
        door("ADD", **FRONT)
        door("ADD", **{**BACK, "internal": True, "runtimeConfig": {}})
        door("DEL", **FRONT)
        assert ports(door) == {"back": []}

    def test_that_somebody_has_come_to_hold_do_not_fail_a_del(self, door, caplog):
        door("ADD", **FRONT)
        door("ADD", **BACK)
        door.bench.kernel.port_users["tcp", 8080] = "nginx (pid 7)"
        door("DEL", **FRONT)
        assert ports(door) == {"back": []}
        assert "host port *:8080->80/tcp is held by nginx (pid 7)" in caplog.text

    def test_are_another_containers_business(self, door):
        door("ADD", **FRONT)
        with pytest.raises(ConflictError, match="held by endpoint c1"):
            door("ADD", "c2", B, **BACK)


class TestReservedPorts:
    def reserve(self, door, name, netns):
        kernel = door.bench.kernel
        kernel.starters[PLUGIN] = (RUNTIME, name)
        kernel.port_users["tcp", 8080] = f"{name} (pid 40)"
        kernel.reserved["tcp", 8080] = Reserver(RUNTIME, kernel.resolve_namespace(netns).inode)

    @pytest.mark.parametrize(("name", "always"), [("podman", True), ("containerd", False)])
    def test_what_the_runtime_holds_for_the_container_is_free(self, door, name, always):
        """That podman reserves its ports the forwarder must know before it does."""
        self.reserve(door, name, A)
        door("ADD", **FRONT)
        assert [p.is_reserved for e in door.engine.intent.endpoints.values() for p in e.ports] == [always]
        door("ADD", **BACK)
        door("DEL", **FRONT)
        assert ports(door) == {"back": ["*:8080->80/tcp"]}

    def test_and_what_it_holds_for_another_is_not(self, door):
        self.reserve(door, "podman", B)
        with pytest.raises(ConflictError, match=r"held by podman \(pid 40\)"):
            door("ADD", **FRONT)


class TestCheck:
    def test_what_add_made_passes(self, door):
        prev = msgspec.to_builtins(door("ADD"))
        door("CHECK")
        door("CHECK", prev=prev)

    def test_without_an_attachment_it_fails(self, door):
        with pytest.raises(ConflictError, match="no such attachment"):
            door("CHECK")

    def test_in_another_namespace_it_fails(self, door):
        door("ADD")
        with pytest.raises(ConflictError, match="another namespace"):
            door("CHECK", netns=B)

    def test_an_address_that_prev_result_lacks_fails(self, door):
        door("ADD")
        with pytest.raises(ConflictError, match="prevResult"):
            door("CHECK", prev={"ips": [{"address": "10.88.0.77/24"}]})

    def test_what_later_plugins_added_to_it_passes(self, door):
        prev = msgspec.to_builtins(door("ADD"))
        prev["ips"].append({"address": "10.99.0.2/24"})
        prev["interfaces"].append({"name": "ifb0"})
        door("CHECK", prev=prev)

    @pytest.mark.parametrize("kind", ["link", "address", "route", "qdisc"])
    def test_what_is_missing_inside_is_named(self, door, kind):
        door("ADD", egressRate=10**6)
        inside = door.bench.kernel.state[door.endpoints()[0].sandbox_id]
        lost = {key: item for key, item in inside.items() if key[0] == kind and key != ("link", "lo")}
        for key in lost:
            del inside[key]
        with pytest.raises(ConflictError, match=f"missing: {kind}"):
            door("CHECK", egressRate=10**6)
        inside.update(lost)

    def test_what_could_not_be_put_right_outside_is_told(self, door):
        """What is lost on the host's side is repaired when it is heard of; if it cannot be, CHECK has to know."""
        door("ADD")
        host = door.bench.kernel.state[HOST]
        (link,) = (key for key in host if key[0] == "link" and key[1].startswith("sle"))
        del host[link]
        door.bench.kernel.fail_at(1, forever=True)
        door.bench.upkeep.resync({HOST})
        with pytest.raises(ConflictError, match="c1, eth0 on network pods"):
            door("CHECK")
        door.bench.kernel.heal()
        door.bench.upkeep.resync({HOST})
        door("CHECK")

    def test_a_link_that_is_down_fails_and_one_of_another_mtu_does_not(self, door):
        door("ADD")
        inside = door.bench.kernel.state[door.endpoints()[0].sandbox_id]
        link = inside["link", "eth0"]
        inside["link", "eth0"] = msgspec.structs.replace(link, mtu=1300)
        door("CHECK")
        inside["link", "eth0"] = msgspec.structs.replace(link, up=False)
        with pytest.raises(ConflictError, match="differs"):
            door("CHECK")
        inside["link", "eth0"] = link


class TestGc:
    def test_what_is_not_valid_goes_and_only_that(self, door):
        door("ADD")
        door("ADD", "c2", B)
        door("ADD", "c1", A, "net1", name="other", subnets=["10.2.0.0/24"])
        door.bench.attach("/run/netns/c", "pods")
        gc(door, ("c2", "eth0"), ("unknown", "eth0"))
        left = {(e.network, e.labels.get("sealane.cni.container")) for e in door.endpoints()}
        assert left == {("pods", "c2"), ("other", "c1"), ("pods", None)}

    def test_another_link_of_the_same_container_is_another_attachment(self, door):
        door("ADD")
        gc(door, ("c1", "net1"))
        assert door.endpoints() == []

    def test_an_empty_list_is_none_valid_and_null_is_empty(self, door):
        door("ADD")
        door("GC", **{"cni.dev/valid-attachments": None})
        assert door.endpoints() == []

    def test_the_misspelt_list_is_read_too(self, door):
        door("ADD")
        door("GC", **{"cni.dev/attachments": [{"containerID": "c1", "ifname": "eth0"}]})
        assert len(door.endpoints()) == 1

    def test_without_a_list_nothing_goes(self, door):
        door("ADD")
        with pytest.raises(InvalidError):
            door("GC")
        assert len(door.endpoints()) == 1

    def test_a_network_that_is_not_there_has_nothing(self, door):
        gc(door)


class TestStatus:
    def test_ready_with_and_without_the_network(self, door):
        door("STATUS")
        door("ADD")
        door("STATUS")

    def test_an_engine_that_holds_is_not(self, door):
        door.engine.hold = "the disk is full"
        with pytest.raises(HoldError, match="the disk is full"):
            door("STATUS")
        with pytest.raises(HoldError):  # What an unreadable store holds is not known.
            door("DEL")
        door.engine.hold = ""

    def test_a_network_that_is_full_is_no_failure_of_the_node(self, door):
        """containerd 2 makes a node NotReady whose STATUS fails, and its pods are evicted; the next ADD fails by itself."""
        door("ADD", subnets=["10.88.0.0/30"])
        door("STATUS", subnets=["10.88.0.0/30"])
        with pytest.raises(FullError, match=r"10\.88\.0\.0/30"):
            door("ADD", "c2", B, subnets=["10.88.0.0/30"])


@pytest.mark.parametrize(
    "order", ["ADD ADD DEL ADD", "DEL ADD DEL DEL ADD", "ADD GC ADD", "GC ADD CHECK ADD"]
)
def test_whatever_comes_in_whatever_order_ends_in_the_same(door, order):
    for verb in order.split():
        gc(door) if verb == "GC" else door(verb)
        door.restart()
    assert [e.ifname for e in door.endpoints()] == ["eth0"]
    door("DEL")
    assert door.engine.intent.leases == {}


def test_an_add_that_meets_a_del_under_way_comes_after_it():
    """A runtime that was killed has asked for the DEL; its successor's ADD must not be answered by what is going."""
    bench = Bench()
    asked = asyncio.Queue()

    async def detach(requests):
        go_on = asyncio.Event()
        await asked.put(go_on)
        await go_on.wait()
        return bench.engine.detach(requests)

    cni = Cni(bench.engine, detach)

    def request(verb):
        fields = {
            "verb": verb,
            "container_id": "c1",
            "ifname": "eth0",
            "netns": A,
            "config": {"name": "pods"},
        }
        return msgspec.json.decode(msgspec.json.encode(fields), type=CniRequest)

    async def scene():
        await cni.call(request("ADD"))
        old = bench.engine.endpoints()[0].id
        delete = asyncio.create_task(cni.call(request("DEL")))
        go_on = await asked.get()
        add = asyncio.create_task(cni.call(request("ADD")))
        await asyncio.sleep(0)
        assert not add.done()
        go_on.set()
        await delete
        assert (await add).result is not None
        assert [e.id for e in bench.engine.endpoints()] != [old]
        assert len(bench.engine.endpoints()) == 1

    asyncio.run(scene())


def test_an_add_that_meets_a_del_that_fails_is_answered_by_what_is_there():
    bench = Bench()
    gate = asyncio.Event()

    async def detach(_):
        await gate.wait()
        raise HoldError("the disk is full")

    cni = Cni(bench.engine, detach)
    fields = {"container_id": "c1", "ifname": "eth0", "netns": A, "config": {"name": "pods"}}
    add, delete = (
        msgspec.json.decode(msgspec.json.encode({"verb": verb, **fields}), type=CniRequest)
        for verb in ("ADD", "DEL")
    )

    async def scene():
        first = await cni.call(add)
        going = asyncio.create_task(cni.call(delete))
        await asyncio.sleep(0)
        again = asyncio.create_task(cni.call(add))
        await asyncio.sleep(0)
        gate.set()
        with pytest.raises(HoldError):
            await going
        assert await asyncio.wait_for(again, 100) == first

    asyncio.run(scene())
