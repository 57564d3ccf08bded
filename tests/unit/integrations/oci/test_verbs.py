"""The OCI hook's two stages, the daemon's half, on a kernel in memory."""

import asyncio

import msgspec
import pytest

import harness.integration
from harness.engines import FACTS, Bench
from sealane.engine.errors import (
    ConflictError,
    ExhaustedError,
    InvalidError,
    KernelError,
    NotFoundError,
    ReadOnlyError,
)
from sealane.integrations.oci import verbs
from sealane.integrations.oci.annotations import NETWORKS_MAX
from sealane.integrations.oci.verbs import Oci
from sealane.kernel.objects import Route
from sealane.linux.fake import FakeKernel
from sealane.wire.oci import OciRequest

LONG_ID = "ab12cd34ef56" + "0" * 52


class Kernel(FakeKernel):
    """Processes by number: those in `absent` have ended, those in `homes` live in another's namespace."""

    def __init__(self):
        super().__init__(FACTS)
        self.homes = {}
        self.own = set()

    def resolve_namespace(self, where):
        if where in self.own:
            raise ValueError(f"/proc/{where}/ns/net is the host's own network namespace")
        if where in self.absent:
            return super().resolve_namespace(where)
        return super().resolve_namespace(self.homes.get(where, where))


class Door(harness.integration.Door):
    def __init__(self):
        self.kernel = Kernel()
        super().__init__(lambda bench, detach: Oci(bench.engine, detach), Bench(self.kernel))
        self.bench.network("front")
        self.bench.network("back")

    def request(self, stage, id="web", pid=100, annotations=None, **said):
        said = {"networks": "front", **said}
        own = {f"sealane.{key.replace('__', '.').replace('_', '-')}": value for key, value in said.items()}
        document = {"stage": stage, "id": id, "annotations": own if annotations is None else annotations}
        if stage == "createRuntime":
            document["pid"] = pid
        return msgspec.json.decode(msgspec.json.encode(document), type=OciRequest)

    def create(self, *args, **said):
        return asyncio.run(self.verbs.call(self.request("createRuntime", *args, **said))).endpoints

    def poststop(self, id="web", **said):
        return asyncio.run(self.verbs.call(self.request("poststop", id, **said))).endpoints

    def dies(self, pid=100):
        self.kernel.absent.add(str(pid))

    def way_out(self, endpoint):
        """The link that the default route is through."""
        routes = [o for o in self.kernel.state[endpoint.sandbox_id].values() if isinstance(o, Route)]
        return next(route.link for route in routes if route.dst == "0.0.0.0/0" and route.table == 254)


@pytest.fixture
def integration(monkeypatch):
    monkeypatch.setattr(verbs, "DEATH_S", 0.05)
    integration = Door()
    yield integration
    assert integration.bench.is_clean()


class TestCreateRuntime:
    def test_the_container_is_on_its_networks_in_their_order_and_leaves_by_the_first(self, integration):
        front, back = integration.create(networks="front,back")
        assert (front.network, back.network) == ("front", "back")
        assert (front.ifname, back.ifname) == ("eth0", "eth1")
        assert integration.way_out(front) == "eth0"
        assert {front.name, back.name} == {"web"}
        assert front.labels["sealane.oci.container"] == "web"
        assert front.sandbox == "web"

    def test_the_first_is_the_way_out_whatever_their_names(self, integration):
        back, front = integration.create(networks="back, front")
        assert (back.network, integration.way_out(back)) == ("back", back.ifname)

    def test_all_flags_of_attach_have_their_annotation(self, integration):
        (endpoint,) = integration.create(
            name="api",
            aliases="db, cache",
            publish="8080:80/tcp,127.0.0.1:5353:53/udp",
            mac="02:00:00:00:00:07",
            ifname="lan0",
            labels="tier=web,team=a",
            sysctls="net.ipv4.conf.IFNAME.arp_announce=2",
        )
        assert endpoint.name == "api"
        assert endpoint.aliases == ["db", "cache", "web"]
        assert endpoint.ports == ["*:8080->80/tcp", "127.0.0.1:5353->53/udp"]
        assert (endpoint.mac, endpoint.ifname) == ("02:00:00:00:00:07", "lan0")
        assert endpoint.labels["tier"] == "web"
        record = next(iter(integration.engine.intent.endpoints.values()))
        assert record.sysctls == (("net/ipv4/conf/IFNAME/arp_announce", "2"),)

    def test_what_is_said_of_one_network_goes_before_what_is_said_of_all(self, integration):
        address = integration.engine.network("back").subnets[0].gateway.removesuffix(".1") + ".77"
        front, back = integration.create(
            networks="front,back",
            name="api",
            aliases="a",
            back__name="db",
            back__aliases="b,c",
            back__ip=address,
        )
        assert (front.name, front.aliases) == ("api", ["a", "web"])
        assert (back.name, back.aliases) == ("db", ["b", "c", "web"])
        assert back.addresses[0].partition("/")[0] == address

    def test_ports_are_published_where_the_way_out_is(self, integration):
        front, back = integration.create(networks="front,back", publish="8080:80", back__gw_priority="9")
        assert (front.ports, back.ports) == ([], ["*:8080->80/tcp"])
        assert integration.way_out(front) == back.ifname

    @pytest.mark.parametrize(
        "text", ["front,back", "front back", " front , back ", "front,\tback", "front\nback"]
    )
    def test_lists_have_commas_or_blanks(self, integration, text):
        assert [e.network for e in integration.create(networks=text)] == ["front", "back"]

    def test_a_network_with_dots_in_its_name_has_its_own_annotations(self, integration):
        integration.bench.network("a.b")
        (endpoint,) = integration.create(annotations={"sealane.networks": "a.b", "sealane.a.b.ifname": "x0"})
        assert endpoint.ifname == "x0"

    @pytest.mark.parametrize(
        ("identity", "name"),
        [("web", "web"), (LONG_ID, LONG_ID[:12]), ("x" * 63, "x" * 63), ("x" * 64, "x" * 12)],
    )
    def test_without_a_name_the_id_is_it(self, integration, identity, name):
        assert integration.create(identity)[0].name == name

    def test_an_id_that_is_no_name_needs_one(self, integration):
        with pytest.raises(InvalidError) as caught:
            integration.create("+x")
        assert "sealane.name" in caught.value.hint
        assert integration.create("+x", name="x")[0].aliases == []

    def test_again_is_the_same_answer_and_changes_nothing(self, integration):
        first, revision = (
            integration.create(networks="front,back", publish="8080:80"),
            integration.engine.revision,
        )
        assert integration.create(networks="front,back", publish="8080:80") == first
        integration.restart()
        assert integration.create(networks="front,back", publish="8080:80") == first
        assert integration.engine.revision == revision

    def test_one_killed_half_way_is_completed(self, integration):
        integration.create(networks="front")
        # As if the daemon had died between the two: the first has the label, the second is not there.
        assert [e.network for e in integration.create(networks="front,back")] == ["front", "back"]

    def test_a_container_that_comes_back_has_one_attachment(self, integration):
        before = integration.create()[0]
        integration.dies()
        after = integration.create(pid=200)[0]
        assert [e.id for e in integration.engine.endpoints()] == [after.id]
        assert after.id != before.id
        assert len(integration.engine.sandboxes()) == 1

    def test_one_that_comes_back_in_the_same_namespace_too(self, integration):
        integration.kernel.homes = {"100": "ns", "200": "ns"}
        integration.create()
        integration.dies()
        (after,) = integration.create(pid=200, ifname="lan0")
        assert after.ifname == "lan0"
        assert len(integration.engine.endpoints()) == 1

    def test_another_that_lives_under_the_same_id_is_left_alone(self, integration):
        """Of another runtime, or of another --root."""
        integration.create(pid=100)
        integration.create(pid=200)
        assert len(integration.engine.endpoints()) == 2
        integration.dies(200)
        assert len(integration.poststop()) == 1
        assert [e.labels["sealane.oci.pid"] for e in integration.engine.endpoints()] == ["100"]


class TestAllOrNone:
    def test_a_network_that_is_not_there(self, integration):
        with pytest.raises(NotFoundError) as caught:
            integration.create(networks="front,nowhere")
        assert caught.value.field == "sealane.networks"
        assert integration.engine.endpoints() == integration.engine.sandboxes() == []

    def test_a_port_that_is_taken(self, integration):
        integration.create("first", publish="8080:80")
        with pytest.raises(ConflictError) as caught:
            integration.create("second", pid=200, networks="back,front", publish="8080:80")
        assert caught.value.field.startswith("sealane.publish")
        assert "first" in caught.value.message
        assert {e.name for e in integration.engine.endpoints()} == {"first"}

    def test_a_network_that_is_full(self, integration):
        from sealane.wire.requests import SubnetRequest

        integration.bench.network("tiny", subnets=[SubnetRequest(prefix="10.9.0.0/30")])
        integration.create("first", networks="tiny")
        with pytest.raises(ExhaustedError):
            integration.create("second", pid=200, networks="front,tiny")
        assert [e.name for e in integration.engine.endpoints()] == ["first"]

    def test_a_kernel_that_refuses_in_the_middle(self, integration):
        steps = len(integration.kernel.performed)
        integration.create(networks="front")
        one = len(integration.kernel.performed) - steps
        integration.dies()
        integration.poststop()
        integration.kernel.fail_at(one + 3)
        with pytest.raises(KernelError):
            integration.create(pid=200, networks="front,back")
        integration.kernel.heal()
        assert integration.engine.endpoints() == integration.engine.sandboxes() == []

    def test_a_retry_that_is_refused_takes_all_away(self, integration):
        """The runtime takes the container away then, too."""
        integration.create(networks="front")
        with pytest.raises(ConflictError):
            integration.create(networks="back,front", front__mac="02:00:00:00:00:09")
        assert integration.engine.endpoints() == []

    def test_a_refusal_is_an_event_for_crun_does_not_show_it(self, integration):
        with pytest.raises(NotFoundError):
            integration.create(networks="nowhere")
        event = list(integration.engine.events.since(0))[-1]
        assert (event.kind, event.subject) == ("container.refused", "web")
        assert "nowhere" in event.detail["error"]


class TestRefused:
    @pytest.mark.parametrize(
        ("annotations", "field"),
        [
            ({"sealane.network": "front"}, "sealane.networks"),
            ({"sealane.ip": "10.1.0.1"}, "sealane.networks"),
            ({"sealane.networks": ""}, "sealane.networks"),
            ({"sealane.networks": "front,,back"}, "sealane.networks"),
            ({"sealane.networks": ",front"}, "sealane.networks"),
            ({"sealane.networks": "front, "}, "sealane.networks"),
            ({"sealane.networks": " "}, "sealane.networks"),
            ({"sealane.networks": "front,front"}, "sealane.networks"),
            ({"sealane.networks": "front", "sealane.ipp": "x"}, "sealane.ipp"),
            ({"sealane.networks": "front", "sealane.": "x"}, "sealane."),
            ({"sealane.networks": "front", "sealane.gw-priority": "1"}, "sealane.gw-priority"),
            ({"sealane.networks": "front", "sealane.front.publish": "80"}, "sealane.front.publish"),
            ({"sealane.networks": "front", "sealane.back.ip": "10.1.0.1"}, "sealane.back.ip"),
            ({"sealane.networks": "front,back", "sealane.ip": "10.1.0.1"}, "sealane.ip"),
            ({"sealane.networks": "front,back", "sealane.mac": "02:00:00:00:00:01"}, "sealane.mac"),
            ({"sealane.networks": "front,back", "sealane.ifname": "x0"}, "sealane.ifname"),
            ({"sealane.networks": "front", "sealane.ip": "10.1"}, "sealane.ip[0]"),
            ({"sealane.networks": "front", "sealane.mac": "nonsense"}, "sealane.mac"),
            ({"sealane.networks": "front", "sealane.front.mac": "nonsense"}, "sealane.front.mac"),
            ({"sealane.networks": "front", "sealane.ifname": "a/b"}, "sealane.ifname"),
            ({"sealane.networks": "front", "sealane.name": "a b"}, "sealane.name"),
            ({"sealane.networks": "front", "sealane.aliases": "a,b/c"}, "sealane.aliases[1]"),
            ({"sealane.networks": "front", "sealane.publish": "8080:http"}, "sealane.publish"),
            ({"sealane.networks": "front", "sealane.labels": "=x"}, "sealane.labels"),
            ({"sealane.networks": "front", "sealane.labels": "a=1,a=2"}, "sealane.labels"),
            ({"sealane.networks": "front", "sealane.labels": "sealane.podman.container=x"}, "sealane.labels"),
            ({"sealane.networks": "front", "sealane.labels": "sealane.oci.pid=1"}, "sealane.labels"),
            ({"sealane.networks": "front", "sealane.sysctls": "kernel.x=1"}, "sealane.sysctls.kernel.x"),
            ({"sealane.networks": "front", "sealane.front.gw-priority": "high"}, "sealane.front.gw-priority"),
        ],
    )
    def test_an_annotation_is_named_and_nothing_is_done(self, integration, annotations, field):
        with pytest.raises((InvalidError, NotFoundError)) as caught:
            integration.create(annotations=annotations)
        assert caught.value.field == field
        assert integration.engine.endpoints() == integration.engine.sandboxes() == []

    def test_the_hosts_own_namespace(self, integration):
        integration.kernel.own.add("100")
        with pytest.raises(InvalidError) as caught:
            integration.create()
        assert "host's own" in caught.value.message
        assert "linux.namespaces" in caught.value.hint

    def test_a_process_that_is_gone_or_none(self, integration):
        integration.dies()
        with pytest.raises(NotFoundError):
            integration.create()
        with pytest.raises(InvalidError):
            integration.create(pid=0)

    def test_an_id_that_is_empty(self, integration):
        for stage in ("createRuntime", "poststop"):
            with pytest.raises(InvalidError):
                asyncio.run(integration.verbs.call(integration.request(stage, "")))

    def test_while_the_engine_holds(self, integration):
        integration.engine.hold = "the disk is full"
        with pytest.raises(ReadOnlyError):
            integration.create()
        with pytest.raises(ReadOnlyError):  # What an unreadable store holds is not known.
            integration.poststop()
        integration.engine.hold = ""


class TestBounds:
    """A pod's user writes annotations, and the daemon has one thread."""

    def networks(self, number):
        return ",".join(f"n{i}" for i in range(number))

    def test_as_many_networks_as_are_taken_are_looked_for(self, integration):
        with pytest.raises(NotFoundError):
            integration.create(networks=self.networks(NETWORKS_MAX))

    @pytest.mark.parametrize("number", [NETWORKS_MAX + 1, 100_000])
    def test_more_are_refused_by_their_number_before_any_is_looked_at(self, integration, number):
        with pytest.raises(InvalidError) as caught:
            integration.create(networks=self.networks(number))
        assert (caught.value.field, caught.value.message) == (
            "sealane.networks",
            f"{number} networks for one container",
        )
        assert caught.value.hint == f"at most {NETWORKS_MAX}"


class TestPoststop:
    def test_all_of_the_container_goes(self, integration):
        integration.create(networks="front,back")
        integration.create("other", pid=200)
        integration.dies()
        assert {e.network for e in integration.poststop()} == {"front", "back"}
        assert [e.name for e in integration.engine.endpoints()] == ["other"]
        assert len(integration.engine.sandboxes()) == 1

    def test_twice_late_or_for_nobody_is_no_error(self, integration):
        assert integration.poststop() == []
        integration.create()
        integration.dies()
        integration.poststop()
        assert integration.poststop() == []
        integration.restart()
        assert integration.poststop() == []

    def test_one_that_comes_late_spares_the_container_that_has_come_back(self, integration):
        integration.create()
        integration.dies()
        integration.create(pid=200)
        assert integration.poststop() == []
        assert len(integration.engine.endpoints()) == 1

    def test_it_waits_for_a_process_that_is_still_dying(self, integration, monkeypatch):
        monkeypatch.setattr(verbs, "DEATH_S", 5.0)
        integration.create()

        async def scene():
            going = asyncio.ensure_future(integration.verbs.call(integration.request("poststop")))
            await asyncio.sleep(verbs.LOOK_S * 2)
            assert not going.done()
            integration.dies()
            return await going

        assert len(asyncio.run(scene()).endpoints) == 1
        assert integration.engine.endpoints() == []

    def test_a_number_that_another_process_has_by_now_is_none_of_it(self, integration):
        integration.create()
        integration.kernel.homes["100"] = "another namespace"
        assert len(integration.poststop()) == 1

    def test_after_the_namespace_was_found_dead(self, integration):
        (endpoint,) = integration.create()
        integration.engine.release([endpoint.sandbox and integration.engine.sandboxes()[0].id], "gone")
        assert integration.poststop() == []

    def test_a_container_that_comes_back_while_its_last_is_going_waits_for_it(self, integration):
        integration.create(networks="front", publish="8080:80")
        integration.dies()

        async def scene():
            going = asyncio.ensure_future(integration.verbs.call(integration.request("poststop")))
            await asyncio.sleep(0)
            coming = await integration.verbs.call(
                integration.request("createRuntime", pid=200, publish="8080:80")
            )
            await going
            return coming

        (endpoint,) = asyncio.run(scene()).endpoints
        assert [e.id for e in integration.engine.endpoints()] == [endpoint.id]

    def test_labels_of_somebody_elses_making_hurt_nobody(self, integration):
        integration.bench.attach(
            "/run/netns/x", labels={"sealane.oci.container": "web", "sealane.oci.pid": "-1"}
        )
        assert len(integration.poststop()) == 1, "no process: what it is said to belong to is dead"
