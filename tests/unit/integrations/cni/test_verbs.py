"""CNI SPEC 1.1.0 as a checklist, the daemon's half: each verb on a kernel in memory."""

import asyncio

import msgspec
import pytest

import harness.integration
from harness.engines import Bench
from sealane.engine.errors import (
    ConflictError,
    ExhaustedError,
    ExistsError,
    InvalidError,
    KernelError,
    NotFoundError,
    ReadOnlyError,
)
from sealane.engine.ports import Reserver
from sealane.integrations.cni.verbs import Cni
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


def ports(integration):
    return {e.network: e.ports for e in integration.endpoints()}


class Door(harness.integration.Door):
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
def integration():
    integration = Door()
    yield integration
    assert integration.bench.is_clean()


def gc(integration, *valid, **fields):
    return integration(
        "GC", **{"cni.dev/valid-attachments": [{"containerID": c, "ifname": i} for c, i in valid]}, **fields
    )


class TestAdd:
    def test_the_result_says_what_is_there(self, integration):
        result = integration("ADD")
        here, there = result.interfaces
        assert (there.name, there.sandbox, there.mtu) == ("eth0", A, 1400)
        assert here.sandbox == ""
        assert here.name == integration.endpoints()[0].host_link
        assert here.mac == integration.bench.kernel.state[HOST]["link", here.name].mac
        assert there.mac == integration.endpoints()[0].mac
        assert [(ip.address, ip.gateway, ip.interface) for ip in result.ips] == [
            ("10.88.0.2/24", "10.88.0.1", 1),
            ("fd00:88::2/64", "fd00:88::1", 1),
        ]
        assert [(route.dst, route.gw) for route in result.routes] == [
            ("0.0.0.0/0", "10.88.0.1"),
            ("::/0", "fd00:88::1"),
        ]

    def test_again_is_the_same_answer_and_changes_nothing(self, integration):
        first, revision = integration("ADD"), integration.engine.revision
        assert integration("ADD") == first
        integration.restart()
        assert integration("ADD") == first
        assert integration.engine.revision == revision

    def test_again_with_another_wish_is_refused(self, integration):
        integration("ADD")
        with pytest.raises(ConflictError) as caught:
            integration("ADD", runtimeConfig={"mac": "02:00:00:00:00:99"})
        assert caught.value.field == "mac"

    def test_the_network_is_made_once(self, integration):
        integration("ADD", mtu=1300, isGateway=False, ipMasq=False, portIsolation=True)
        integration("ADD", "c2", B, mtu=1300, isGateway=False, ipMasq=False, portIsolation=True)
        network = integration.engine.intent.network_named("pods")
        assert (network.mtu, network.gateway_on_link, network.masquerade, network.icc) == (
            1300,
            False,
            False,
            False,
        )
        assert len(integration.endpoints()) == 2

    def test_without_subnets_they_come_from_the_pools(self, integration):
        assert len(integration("ADD", subnets=[]).ips) == 1
        assert (
            integration("ADD", "c2", B, subnets=[]).ips[0].gateway == integration.endpoints()[0].gateways[0]
        )

    def test_a_network_that_is_there_is_used_as_it_is_where_nothing_is_said(self, integration):
        integration.bench.network("pods", options={"mtu": "1280", "masquerade": "false"})
        result = integration("ADD", subnets=[])
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
    def test_and_refused_where_it_differs_from_what_is_said(self, integration, said, field):
        integration("ADD")
        with pytest.raises(ExistsError) as caught:
            integration("ADD", "c2", B, **said)
        assert caught.value.field == field
        assert len(integration.endpoints()) == 1

    def test_a_network_that_was_made_for_an_add_that_failed_is_taken_away(self, integration):
        with pytest.raises(InvalidError):
            integration("ADD", runtimeConfig={"mac": "nonsense"})
        integration.bench.kernel.fail_at(20)
        with pytest.raises(KernelError):
            integration("ADD")
        integration.bench.kernel.heal()
        assert integration.engine.networks() == []
        assert integration.engine.sandboxes() == []

    def test_a_range_is_a_block(self, integration):
        block = {
            "subnet": "10.88.0.0/24",
            "rangeStart": "10.88.0.128",
            "rangeEnd": "10.88.0.255",
            "gateway": "10.88.0.3",
        }
        result = integration("ADD", ipam={"ranges": [[block]]})
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
    def test_a_range_that_cannot_be_is_refused(self, integration, asked):
        with pytest.raises(InvalidError):
            integration("ADD", ipam={"ranges": asked})
        assert integration.engine.networks() == []

    def test_a_namespace_that_is_no_path_is_refused(self, integration):
        with pytest.raises(InvalidError) as caught:
            integration("ADD", netns="a")
        assert caught.value.field == "netns"

    def test_a_namespace_that_is_not_there_is_refused(self, integration, monkeypatch):
        def gone(_):
            raise FileNotFoundError

        monkeypatch.setattr(integration.bench.kernel, "resolve_namespace", gone)
        with pytest.raises(NotFoundError) as caught:
            integration("ADD")
        assert caught.value.field == "netns"

    def test_a_container_that_comes_back_elsewhere_leaves_where_it_was(self, integration):
        first = integration("ADD")
        again = integration("ADD", netns=B)
        assert again.interfaces[1].sandbox == B
        assert len(integration.endpoints()) == 1
        assert again.interfaces[0].name != first.interfaces[0].name

    def test_the_first_network_is_the_way_out(self, integration):
        assert integration("ADD", name="zulu", subnets=["10.1.0.0/24"]).routes
        second = integration("ADD", name="alpha", subnets=["10.2.0.0/24"], ifname="net1")
        assert second.routes == []
        assert integration("ADD", name="zulu", subnets=["10.1.0.0/24"]).routes

    def test_an_internal_network_has_no_way_out(self, integration):
        result = integration("ADD", internal=True)
        assert result.routes == []
        assert {ip.gateway for ip in result.ips} == {""}

    def test_what_is_present_is_told_and_nothing_is_made(self, integration):
        assert integration("ADD", only_present=True) is None
        assert integration.engine.networks() == []
        first = integration("ADD")
        assert integration("ADD", only_present=True) == first
        assert integration("ADD", netns=B, only_present=True) is None
        assert len(integration.endpoints()) == 1

    def test_names_are_answered_only_where_that_is_asked_for(self, integration):
        """At the gateway's address, where a node's own DNS server may want to be."""
        integration("ADD")
        assert integration.engine.intent.network_named("pods").resolvers == ()
        integration("ADD", name="named", subnets=["10.77.0.0/24"], netns=B, resolver=True)
        assert integration.engine.intent.network_named("named").resolvers == ("10.77.0.1",)

    def test_dns_is_passed_on_and_the_runtimes_goes_before(self, integration):
        own = {"nameservers": ["10.0.0.1"], "domain": "x", "search": ["a"]}
        assert integration("ADD", dns=own).dns == own
        asked = {"servers": ["10.0.0.2"], "searches": ["b"], "options": ["ndots:5"]}
        assert integration("ADD", dns=own, runtimeConfig={"dns": asked}).dns == {
            "nameservers": ["10.0.0.2"],
            "domain": "x",
            "search": ["b"],
            "options": ["ndots:5"],
        }


class TestLeased:
    LEASE = {"ips": [{"address": "10.88.0.9/24", "gateway": "10.88.0.1"}], "routes": [{"dst": "0.0.0.0/0"}]}

    def test_a_plugins_addresses_are_taken_and_make_the_network(self, integration):
        result = integration("ADD", leased=self.LEASE)
        assert [ip.address for ip in result.ips] == ["10.88.0.9/24"]
        assert integration.engine.network("pods").subnets[0].prefix == "10.88.0.0/24"

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
    def test_what_cannot_be_kept_is_refused(self, integration, lease):
        with pytest.raises(InvalidError):
            integration("ADD", leased=lease)
        assert integration.engine.networks() == []


class TestCapabilities:
    def test_ports_are_published_and_port_0_is_none(self, integration):
        ports = [
            {"hostPort": 8080, "containerPort": 80, "protocol": "TCP"},
            {"hostPort": 5353, "containerPort": 53, "protocol": "udp", "hostIP": "192.0.2.10"},
            {"hostPort": 0, "containerPort": 99},
            {"hostPort": 8081, "containerPort": 81, "hostIP": "0.0.0.0"},
        ]
        integration("ADD", runtimeConfig={"portMappings": ports})
        assert integration.endpoints()[0].ports == [
            "*:8080->80/tcp",
            "192.0.2.10:5353->53/udp",
            "0.0.0.0:8081->81/tcp",
        ]

    def test_a_port_in_use_is_told_with_its_holder(self, integration):
        ports = [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]
        integration("ADD", runtimeConfig={"portMappings": ports})
        with pytest.raises(ConflictError, match="held by endpoint c1"):
            integration("ADD", "c2", B, runtimeConfig={"portMappings": ports})

    def test_a_protocol_that_is_none_is_refused(self, integration):
        with pytest.raises(InvalidError) as caught:
            integration(
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
    def test_addresses_asked_for_are_given(self, integration, wish, address):
        assert integration("ADD", **wish).ips[0].address == address

    def test_an_address_given_twice_is_one(self, integration):
        """podman's `network reload` says what its user asked for and what the container had."""
        result = integration("ADD", runtimeConfig={"ips": ["10.88.0.77", "10.88.0.77/24", "10.88.0.77"]})
        assert [ip.address for ip in result.ips][:1] == ["10.88.0.77/24"]

    def test_the_runtimes_wish_goes_before_args_and_these_before_cni_args(self, integration):
        every = {"runtimeConfig": {"ips": ["10.88.0.50"]}, "args": {"IP": "10.88.0.52"}}
        assert integration("ADD", **every).ips[0].address == "10.88.0.50/24"

    def test_a_mac_asked_for_is_given(self, integration):
        assert (
            integration("ADD", runtimeConfig={"mac": "02:00:00:00:00:07"}).interfaces[1].mac
            == "02:00:00:00:00:07"
        )
        assert (
            integration("ADD", "c2", B, args={"MAC": "02:00:00:00:00:08"}).interfaces[1].mac
            == "02:00:00:00:00:08"
        )

    @pytest.mark.parametrize("aliases", [["db", "store"], {"pods": ["db", "store"], "other": ["x"]}])
    def test_aliases_are_names(self, integration, aliases):
        integration("ADD", runtimeConfig={"aliases": aliases})
        assert integration.endpoints()[0].aliases == ["db", "store"]

    def test_ranges_of_the_runtime_go_before(self, integration):
        result = integration("ADD", runtimeConfig={"ipRanges": [[{"subnet": "10.77.0.0/24"}]]})
        assert result.ips[0].address == "10.77.0.2/24"

    def test_the_pods_names_are_its_name_and_labels(self, integration):
        names = {"K8S_POD_NAME": "web-0", "K8S_POD_NAMESPACE": "shop", "K8S_POD_UID": "u-1"}
        integration("ADD", args=names, runtimeConfig={"cgroupPath": "/kubepods/x"})
        endpoint = integration.endpoints()[0]
        assert (endpoint.name, endpoint.sandbox) == ("shop/web-0", "shop/web-0")
        assert endpoint.labels == {
            "sealane.cni.container": "c1",
            "sealane.cni.ifname": "eth0",
            "sealane.cni.pod": "web-0",
            "sealane.cni.namespace": "shop",
            "sealane.cni.uid": "u-1",
            "sealane.cni.cgroup": "/kubepods/x",
        }

    def test_two_pods_of_one_name_are_two(self, integration):
        for container, netns, namespace in (("c1", A, "shop"), ("c2", B, "blog")):
            integration(
                "ADD", container, netns, args={"K8S_POD_NAME": "web-0", "K8S_POD_NAMESPACE": namespace}
            )
        assert {(e.name, e.sandbox) for e in integration.endpoints()} == {
            ("shop/web-0", "shop/web-0"),
            ("blog/web-0", "blog/web-0"),
        }

    def test_a_pods_name_is_whole_however_long(self, integration):
        """Those of one Deployment differ at their ends."""
        for container, netns, end in (("c1", A, "a"), ("c2", B, "b")):
            integration(
                "ADD", container, netns, args={"K8S_POD_NAME": "w" * 252 + end, "K8S_POD_NAMESPACE": "shop"}
            )
        assert [e.name for e in integration.endpoints()] == [f"shop/{'w' * 252}{end}" for end in "ab"]

    def test_a_pod_that_comes_before_its_predecessor_has_gone_is_another_sandbox(self, integration):
        """Of a StatefulSet whose pod was deleted by force."""
        args = {"K8S_POD_NAME": "web-0", "K8S_POD_NAMESPACE": "shop"}
        integration("ADD", "c1", A, args=args)
        integration("ADD", "c2", B, args=args)
        assert [e.name for e in integration.endpoints()] == ["shop/web-0", "shop/web-0"]
        assert len({e.sandbox for e in integration.endpoints()}) == 2
        assert all(e.sandbox.startswith("shop/web-0") for e in integration.endpoints())

    @pytest.mark.parametrize(
        ("args", "name"),
        [
            ({"K8S_POD_NAME": "web-0"}, "web-0"),
            ({"K8S_POD_NAMESPACE": "shop"}, "c1"),
            ({"K8S_POD_NAME": "web-0", "K8S_POD_NAMESPACE": "no/name"}, "web-0"),
        ],
    )
    def test_without_either_there_is_no_namespace(self, integration, args, name):
        """podman's CNI sends the container's name alone."""
        integration("ADD", args=args)
        assert integration.endpoints()[0].name == name

    def test_labels_of_the_configuration_are_the_endpoints_but_for_those_by_which_integrations_know_their_own(
        self, integration
    ):
        integration("ADD", own_args={"labels": [{"key": "tier", "value": "web"}]})
        assert integration.endpoints()[0].labels["tier"] == "web"
        with pytest.raises(InvalidError) as caught:
            integration(
                "ADD", "c2", B, own_args={"labels": [{"key": "sealane.podman.container", "value": "x"}]}
            )
        assert caught.value.field == "args.cni.labels"

    @pytest.mark.parametrize(
        ("container", "pod", "name"),
        [("0123456789abcdef" * 4, "", "0123456789ab"), ("c1", "p" * 100, "p" * 63)],
    )
    def test_a_name_that_is_too_long_is_shortened(self, integration, container, pod, name):
        integration("ADD", container, args={"K8S_POD_NAME": pod} if pod else {})
        assert integration.endpoints()[0].name == name

    @pytest.mark.parametrize(("fields", "has"), [({}, False), ({"fastPath": True}, True)])
    def test_a_fast_path_is_there_for_the_asking(self, integration, fields, has):
        result = integration("ADD", **fields)
        assert (("fast-port", result.interfaces[0].name) in integration.bench.kernel.state[HOST]) is has

    def test_bandwidth_is_a_bucket_at_each_sending_end(self, integration):
        wish = {
            "ingressRate": 8_000_000,
            "ingressBurst": 160_000,
            "egressRate": 16_000_000,
            "egressBurst": 2**32 - 1,
        }
        result = integration("ADD", runtimeConfig={"bandwidth": wish})
        here = integration.bench.kernel.state[HOST]["qdisc", result.interfaces[0].name]
        inside = integration.bench.kernel.state[integration.endpoints()[0].sandbox_id]["qdisc", "eth0"]
        assert here == Qdisc(link=here.link, rate=1_000_000, burst=20_000, limit=70_000)
        assert (inside.rate, inside.burst) == (2_000_000, 20_000), "10 ms, for none was meant"

    def test_one_direction_alone_and_from_the_configuration(self, integration):
        integration("ADD", egressRate=16_000_000, egressBurst=160_000)
        kinds = [key[0] for key in integration.bench.kernel.state[HOST]]
        assert "qdisc" not in kinds
        assert ("qdisc", "eth0") in integration.bench.kernel.state[integration.endpoints()[0].sandbox_id]

    def test_a_bucket_is_one_that_the_kernel_can_count(self, integration):
        integration("ADD", ingressRate=8_000, ingressBurst=2**31 - 2)
        qdisc = next(i for i in integration.bench.kernel.state[HOST].values() if isinstance(i, Qdisc))
        assert qdisc.burst * 10**9 // qdisc.rate // 64 < 2**32

    def test_a_bucket_holds_a_frame(self, integration):
        integration("ADD", ingressRate=8_000, ingressBurst=8)
        qdisc = next(i for i in integration.bench.kernel.state[HOST].values() if isinstance(i, Qdisc))
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
    def test_a_rate_that_cannot_be_kept_is_refused(self, integration, wish, field):
        with pytest.raises(InvalidError) as caught:
            integration("ADD", runtimeConfig={"bandwidth": wish})
        assert caught.value.field == field


class TestDel:
    def test_everything_goes_and_again_is_no_error(self, integration):
        integration("ADD", runtimeConfig={"bandwidth": {"ingressRate": 10**6}})
        for _ in range(2):
            integration("DEL")
        assert integration.endpoints() == []
        assert integration.engine.sandboxes() == []

    @pytest.mark.parametrize("netns", ["", "/run/netns/gone", B])
    def test_whatever_is_said_of_the_namespace(self, integration, netns):
        integration("ADD")
        integration("DEL", netns=netns)
        assert integration.endpoints() == []

    def test_a_network_that_is_gone_is_no_error(self, integration):
        integration("DEL")
        integration("ADD")
        integration.engine.remove_network("pods", force=True)
        integration("DEL")

    def test_the_configuration_of_today_does_not_matter(self, integration):
        integration("ADD")
        integration("DEL", mtu=1280, subnets=["10.99.0.0/24"])
        assert integration.endpoints() == []

    def test_others_stay(self, integration):
        integration("ADD")
        integration("ADD", "c2", B)
        integration("DEL")
        assert [e.labels["sealane.cni.container"] for e in integration.endpoints()] == ["c2"]

    def test_a_dead_namespace_is_released(self, integration):
        integration("ADD")
        sandbox = integration.engine.intent.sandboxes[integration.endpoints()[0].sandbox_id]
        integration.bench.kernel.kill_namespace(sandbox.id, sandbox.netns)
        integration("DEL")
        assert integration.endpoints() == []


class TestPortsOfAContainerOnTwoNetworks:
    def test_are_on_the_first_to_come(self, integration):
        for _ in range(2):
            integration("ADD", **FRONT)
            integration("ADD", **BACK)
            assert ports(integration) == {"front": ["*:8080->80/tcp"], "back": []}

    def test_move_to_the_next_and_stay_there(self, integration):
        integration("ADD", **FRONT)
        integration("ADD", **BACK)
        integration("DEL", **FRONT)
        assert ports(integration) == {"back": ["*:8080->80/tcp"]}
        integration("ADD", **BACK)
        integration("ADD", **FRONT)
        assert ports(integration) == {"front": [], "back": ["*:8080->80/tcp"]}
        integration("DEL", **FRONT)
        assert ports(integration) == {"back": ["*:8080->80/tcp"]}
        integration("DEL", **BACK)
        assert ports(integration) == {}

    def test_do_not_move_to_a_network_without_a_way_in(self, integration):
        integration("ADD", **FRONT)
        integration("ADD", **{**BACK, "internal": True, "runtimeConfig": {}})
        integration("DEL", **FRONT)
        assert ports(integration) == {"back": []}

    def test_that_somebody_has_come_to_hold_do_not_fail_a_del(self, integration, caplog):
        integration("ADD", **FRONT)
        integration("ADD", **BACK)
        integration.bench.kernel.port_users["tcp", 8080] = "nginx (pid 7)"
        integration("DEL", **FRONT)
        assert ports(integration) == {"back": []}
        assert "host port *:8080->80/tcp is held by nginx (pid 7)" in caplog.text

    def test_are_another_containers_business(self, integration):
        integration("ADD", **FRONT)
        with pytest.raises(ConflictError, match="held by endpoint c1"):
            integration("ADD", "c2", B, **BACK)


class TestReservedPorts:
    def reserve(self, integration, name, netns):
        kernel = integration.bench.kernel
        kernel.starters[PLUGIN] = (RUNTIME, name)
        kernel.port_users["tcp", 8080] = f"{name} (pid 40)"
        kernel.reserved["tcp", 8080] = Reserver(RUNTIME, kernel.resolve_namespace(netns).inode)

    @pytest.mark.parametrize(("name", "always"), [("podman", True), ("containerd", False)])
    def test_what_the_runtime_holds_for_the_container_is_free(self, integration, name, always):
        """That podman reserves its ports the forwarder must know before it does."""
        self.reserve(integration, name, A)
        integration("ADD", **FRONT)
        assert [p.is_reserved for e in integration.engine.intent.endpoints.values() for p in e.ports] == [
            always
        ]
        integration("ADD", **BACK)
        integration("DEL", **FRONT)
        assert ports(integration) == {"back": ["*:8080->80/tcp"]}

    def test_and_what_it_holds_for_another_is_not(self, integration):
        self.reserve(integration, "podman", B)
        with pytest.raises(ConflictError, match=r"held by podman \(pid 40\)"):
            integration("ADD", **FRONT)


class TestCheck:
    def test_what_add_made_passes(self, integration):
        prev = msgspec.to_builtins(integration("ADD"))
        integration("CHECK")
        integration("CHECK", prev=prev)

    def test_without_an_attachment_it_fails(self, integration):
        with pytest.raises(ConflictError, match="no such attachment"):
            integration("CHECK")

    def test_in_another_namespace_it_fails(self, integration):
        integration("ADD")
        with pytest.raises(ConflictError, match="another namespace"):
            integration("CHECK", netns=B)

    def test_an_address_that_prev_result_lacks_fails(self, integration):
        integration("ADD")
        with pytest.raises(ConflictError, match="prevResult"):
            integration("CHECK", prev={"ips": [{"address": "10.88.0.77/24"}]})

    def test_what_later_plugins_added_to_it_passes(self, integration):
        prev = msgspec.to_builtins(integration("ADD"))
        prev["ips"].append({"address": "10.99.0.2/24"})
        prev["interfaces"].append({"name": "ifb0"})
        integration("CHECK", prev=prev)

    @pytest.mark.parametrize("kind", ["link", "address", "route", "qdisc"])
    def test_what_is_missing_inside_is_named(self, integration, kind):
        integration("ADD", egressRate=10**6)
        inside = integration.bench.kernel.state[integration.endpoints()[0].sandbox_id]
        lost = {key: item for key, item in inside.items() if key[0] == kind and key != ("link", "lo")}
        for key in lost:
            del inside[key]
        with pytest.raises(ConflictError, match=f"missing: {kind}"):
            integration("CHECK", egressRate=10**6)
        inside.update(lost)

    def test_what_could_not_be_put_right_outside_is_told(self, integration):
        """What is lost on the host's side is repaired when it is heard of; if it cannot be, CHECK has to know."""
        integration("ADD")
        host = integration.bench.kernel.state[HOST]
        (link,) = (key for key in host if key[0] == "link" and key[1].startswith("sle"))
        del host[link]
        integration.bench.kernel.fail_at(1, forever=True)
        integration.bench.resyncer.resync({HOST})
        with pytest.raises(ConflictError, match="c1, eth0 on network pods"):
            integration("CHECK")
        integration.bench.kernel.heal()
        integration.bench.resyncer.resync({HOST})
        integration("CHECK")

    def test_a_link_that_is_down_fails_and_one_of_another_mtu_does_not(self, integration):
        integration("ADD")
        inside = integration.bench.kernel.state[integration.endpoints()[0].sandbox_id]
        link = inside["link", "eth0"]
        inside["link", "eth0"] = msgspec.structs.replace(link, mtu=1300)
        integration("CHECK")
        inside["link", "eth0"] = msgspec.structs.replace(link, up=False)
        with pytest.raises(ConflictError, match="differs"):
            integration("CHECK")
        inside["link", "eth0"] = link


class TestGc:
    def test_what_is_not_valid_goes_and_only_that(self, integration):
        integration("ADD")
        integration("ADD", "c2", B)
        integration("ADD", "c1", A, "net1", name="other", subnets=["10.2.0.0/24"])
        integration.bench.attach("/run/netns/c", "pods")
        gc(integration, ("c2", "eth0"), ("unknown", "eth0"))
        left = {(e.network, e.labels.get("sealane.cni.container")) for e in integration.endpoints()}
        assert left == {("pods", "c2"), ("other", "c1"), ("pods", None)}

    def test_another_link_of_the_same_container_is_another_attachment(self, integration):
        integration("ADD")
        gc(integration, ("c1", "net1"))
        assert integration.endpoints() == []

    def test_an_empty_list_is_none_valid_and_null_is_empty(self, integration):
        integration("ADD")
        integration("GC", **{"cni.dev/valid-attachments": None})
        assert integration.endpoints() == []

    def test_the_misspelt_list_is_read_too(self, integration):
        integration("ADD")
        integration("GC", **{"cni.dev/attachments": [{"containerID": "c1", "ifname": "eth0"}]})
        assert len(integration.endpoints()) == 1

    def test_without_a_list_nothing_goes(self, integration):
        integration("ADD")
        with pytest.raises(InvalidError):
            integration("GC")
        assert len(integration.endpoints()) == 1

    def test_a_network_that_is_not_there_has_nothing(self, integration):
        gc(integration)


class TestStatus:
    def test_ready_with_and_without_the_network(self, integration):
        integration("STATUS")
        integration("ADD")
        integration("STATUS")

    def test_an_engine_that_holds_is_not(self, integration):
        integration.engine.hold = "the disk is full"
        with pytest.raises(ReadOnlyError, match="the disk is full"):
            integration("STATUS")
        with pytest.raises(ReadOnlyError):  # What an unreadable store holds is not known.
            integration("DEL")
        integration.engine.hold = ""

    def test_a_network_that_is_full_is_no_failure_of_the_node(self, integration):
        """containerd 2 makes a node NotReady whose STATUS fails, and its pods are evicted; the next ADD fails by itself."""
        integration("ADD", subnets=["10.88.0.0/30"])
        integration("STATUS", subnets=["10.88.0.0/30"])
        with pytest.raises(ExhaustedError, match=r"10\.88\.0\.0/30"):
            integration("ADD", "c2", B, subnets=["10.88.0.0/30"])


@pytest.mark.parametrize(
    "order", ["ADD ADD DEL ADD", "DEL ADD DEL DEL ADD", "ADD GC ADD", "GC ADD CHECK ADD"]
)
def test_whatever_comes_in_whatever_order_ends_in_the_same(integration, order):
    for verb in order.split():
        gc(integration) if verb == "GC" else integration(verb)
        integration.restart()
    assert [e.ifname for e in integration.endpoints()] == ["eth0"]
    integration("DEL")
    assert integration.engine.intent.leases == {}


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
        raise ReadOnlyError("the disk is full")

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
        with pytest.raises(ReadOnlyError):
            await going
        assert await asyncio.wait_for(again, 100) == first

    asyncio.run(scene())
