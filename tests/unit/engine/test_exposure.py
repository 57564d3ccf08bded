"""What is open is what was asked for: families, loopback, MACs, and what nobody on record knows."""

import msgspec
import pytest

from harness.engines import FACTS, Bench, subnets
from sealane.compile.facts import ForeignRoute
from sealane.compile.relay import RANGE_MAX, Relays
from sealane.daemon.watch import DriftWatcher
from sealane.engine.errors import ConflictError, InvalidError
from sealane.engine.ports import Reserver
from sealane.kernel.state import HOST
from sealane.model.net import Prefix
from sealane.wire.requests import DetachRequest, PublishRequest
from unit.daemon.test_watch import Monitor

A, B = "/run/netns/a", "/run/netns/b"


@pytest.fixture
def bench() -> Bench:
    bench = Bench()
    bench.network("front", ipv6=True, subnets=list(subnets("10.1.0.0/24", "fd00:1::/64")))
    return bench


def publish(host_first: int, port: int, **others: object) -> PublishRequest:
    return PublishRequest(host_first=host_first, port=port, **others)  # type: ignore[arg-type]


def published(bench: Bench) -> set[tuple[object, ...]]:
    """(family, set) of elements that lead to endpoints, and (family, proto) of the host's own loopback."""
    keys = bench.kernel.state[HOST]
    return {
        (item.family, item.set)
        for key, item in keys.items()
        if key[0] == "nft-element" and "publish" in item.set
    } | {(item.family, item.proto) for key, item in keys.items() if key[0] == "loopback"}


class TestFamilies:
    @pytest.mark.parametrize(
        ("address", "where"),
        [
            ("0.0.0.0", {("ip", "publish"), (4, "tcp")}),
            ("::", {("ip6", "publish"), (6, "tcp")}),
            ("", {("ip", "publish"), (4, "tcp"), ("ip6", "publish"), (6, "tcp")}),
        ],
    )
    def test_every_address_of_one_family_is_not_one_of_the_other(
        self, bench: Bench, address: str, where: set
    ) -> None:
        bench.attach(A, publish=[publish(8080, 80, host_address=address)])
        assert published(bench) == where

    def test_a_range_is_of_its_family_too(self, bench: Bench) -> None:
        bench.attach(A, publish=[publish(8000, 8000, host_last=8009, host_address="0.0.0.0")])
        assert published(bench) == {("ip", "publish_ranges"), (4, "tcp")}

    def test_the_two_families_are_apart(self, bench: Bench) -> None:
        view = bench.attach(
            A,
            publish=[publish(8080, 80, host_address="0.0.0.0"), publish(8080, 80, host_address="::")],
        )
        assert view.ports == ["0.0.0.0:8080->80/tcp", "[::]:8080->80/tcp"]
        with pytest.raises(ConflictError):
            bench.attach(B, publish=[publish(8080, 80)])

    @pytest.mark.parametrize("address", ["0.0.0.0", "192.0.2.1", ""])
    def test_within_a_family_every_address_is_one_of_them(self, bench: Bench, address: str) -> None:
        bench.attach(A, publish=[publish(8080, 80, host_address="0.0.0.0")])
        with pytest.raises(ConflictError, match="endpoint a"):
            bench.attach(B, publish=[publish(8080, 80, host_address=address)])

    @pytest.mark.parametrize("address", ["2001:db8::1", "fd00::7"])
    def test_an_address_of_a_family_that_the_network_lacks_is_refused(
        self, bench: Bench, address: str
    ) -> None:
        bench.network("old")
        with pytest.raises(InvalidError) as caught:
            bench.attach(A, "old", publish=[publish(8080, 80, host_address=address)])
        assert caught.value.field == "publish[0].host_address"

    @pytest.mark.parametrize(
        ("address", "loopback", "relayed"),
        [
            ("", {(4, "tcp"), (6, "tcp")}, [6]),
            ("::", {(6, "tcp")}, [6]),
            ("::1", {(6, "tcp")}, []),
            ("0.0.0.0", {(4, "tcp")}, []),
        ],
    )
    def test_every_address_of_it_is_led_across(
        self, bench: Bench, address: str, loopback: set, relayed: list[int]
    ) -> None:
        bench.network("old", subnets=list(subnets("10.9.0.0/24")))
        bench.attach(A, "old", publish=[publish(8080, 80, host_address=address)])
        assert {entry for entry in published(bench) if entry[0] in {4, 6}} == loopback
        assert [port.family for port in Relays(bench.engine.intent).ports] == relayed

    def test_nothing_leads_sctp_across(self, bench: Bench) -> None:
        bench.network("old")
        with pytest.raises(InvalidError) as caught:
            bench.attach(A, "old", publish=[publish(8080, 80, proto="sctp", host_address="::")])
        assert caught.value.field == "publish[0].host_address"

    def test_what_another_program_reserves_is_not_relayed(self, bench: Bench) -> None:
        """podman's conmon listens there itself; and `[::]` is no reason to refuse a container."""
        bench.network("old", subnets=list(subnets("10.9.0.0/24")))
        reserver = Reserver(process=40, netns=1, holds_all=True)
        view = bench.attach(A, "old", reserver, publish=both("", "::"))
        assert view.ports == ["*:8080->80/tcp"]
        assert Relays(bench.engine.intent).ports == ()

    def test_what_has_no_way_in_or_rests_is_not_relayed(self, bench: Bench) -> None:
        bench.network("old", subnets=list(subnets("10.9.0.0/24")))
        view = bench.attach(A, "old", publish=both(""))
        assert len(Relays(bench.engine.intent).ports) == 1
        bench.engine.deactivate([bench.engine.intent.endpoints[view.id].sandbox])
        assert Relays(bench.engine.intent).ports == ()

    def test_a_long_range_is_not_relayed(self, bench: Bench) -> None:
        bench.network("old", subnets=list(subnets("10.9.0.0/24")))
        bench.attach(
            A, "old", publish=[publish(8000, 8000, count=RANGE_MAX), publish(9000, 9000, count=RANGE_MAX + 1)]
        )
        assert [port.first for port in Relays(bench.engine.intent).ports] == [8000]

    def test_internal_networks_are_refused_by_relays(self, bench: Bench) -> None:
        bench.network("vault", subnets=list(subnets("10.8.0.0/24", "fd00:8::/64")), ipv6=True, internal=True)
        found = Relays(bench.engine.intent)
        for client in ("10.8.0.7", "fd00:8::7", "fe80::1"):
            assert not found.admits(client), client
        for client in ("10.7.0.7", "fd00:7::7", "2001:db8::1"):
            assert found.admits(client), client


def both(*addresses: str, **others: object) -> list[PublishRequest]:
    return [publish(8080, 80, host_address=address, **others) for address in addresses]


class TestAgreement:
    """`-p 8080:80 -p [::]:8080:80`, as users write it: publishes of one request that agree are one."""

    @pytest.mark.parametrize(
        ("addresses", "ports"),
        [
            (("", "::"), ["*:8080->80/tcp"]),
            (("::", ""), ["*:8080->80/tcp"]),
            (("", "0.0.0.0", "::"), ["*:8080->80/tcp"]),
            (("", ""), ["*:8080->80/tcp"]),
            (("127.0.0.1", "0.0.0.0"), ["0.0.0.0:8080->80/tcp"]),
            (("::1", "127.0.0.1"), ["[::1]:8080->80/tcp", "127.0.0.1:8080->80/tcp"]),
        ],
    )
    def test_the_widest_stays(self, bench: Bench, addresses: tuple[str, ...], ports: list[str]) -> None:
        assert bench.attach(A, publish=both(*addresses)).ports == ports

    @pytest.mark.parametrize("addresses", [("", "::"), ("::", ""), ("", ""), ("127.0.0.1", "0.0.0.0")])
    def test_asking_again_is_answered(self, bench: Bench, addresses: tuple[str, ...]) -> None:
        first = bench.attach(A, publish=both(*addresses))
        assert bench.attach(A, publish=both(*addresses)) == first
        (endpoint,) = bench.engine.intent.endpoints.values()
        assert bench.engine.publish(endpoint, both(*addresses)) == endpoint

    def test_a_part_of_a_range_is_one_with_it(self, bench: Bench) -> None:
        desired = [
            publish(8000, 9000, host_last=8009),
            publish(8003, 9003),
            publish(8003, 9003, host_address="::"),
        ]
        assert bench.attach(A, publish=desired).ports == ["*:8000-8009->9000-9009/tcp"]

    @pytest.mark.parametrize(
        "other",
        [
            publish(8080, 81),
            publish(8080, 81, host_address="::"),
            publish(8079, 79, host_last=8080, host_address="127.0.0.1"),
            publish(8080, 80, host_last=8081, host_address="127.0.0.1"),
        ],
    )
    def test_what_does_not_agree_is_refused(self, bench: Bench, other: PublishRequest) -> None:
        with pytest.raises(ConflictError, match="another publish of the same request") as caught:
            bench.attach(A, publish=[publish(8080, 80), other])
        assert caught.value.field == "publish[1]"

    def test_nor_is_another_endpoints_left_out(self, bench: Bench) -> None:
        bench.attach(A, publish=[publish(8080, 80)])
        with pytest.raises(ConflictError, match="endpoint a"):
            bench.attach(B, publish=both("", "::"))

    def test_ports_that_are_left_open_are_as_many_as_asked_for(self, bench: Bench) -> None:
        desired = [publish(0, 80), publish(0, 80)]
        assert len(bench.attach(A, publish=desired).ports) == 2
        assert len(bench.attach(A, publish=desired).ports) == 2

    def test_another_request_is_not_the_same_for_being_covered(self, bench: Bench) -> None:
        """Who asks for the loopback alone is not told that it is so while everybody gets in."""
        bench.attach(A, publish=both(""))
        with pytest.raises(ConflictError):
            bench.attach(A, publish=both("127.0.0.1"))


class TestSctp:
    def test_is_not_promised_on_the_hosts_own_loopback(self, bench: Bench) -> None:
        bench.attach(A, publish=[publish(5300, 53, proto="sctp")])
        assert published(bench) == {("ip", "publish"), ("ip6", "publish")}

    @pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
    def test_is_refused_there(self, bench: Bench, address: str) -> None:
        with pytest.raises(InvalidError, match="SCTP"):
            bench.attach(A, publish=[publish(5300, 53, proto="sctp", host_address=address)])


class TestMacs:
    def test_a_bridge_has_each_once(self, bench: Bench) -> None:
        bench.attach(A, mac="02:00:00:00:00:09")
        with pytest.raises(ConflictError, match="endpoint a") as caught:
            bench.attach(B, mac="02-00-00-00-00-09")
        assert caught.value.field == "mac"

    def test_two_bridges_may_have_the_same(self, bench: Bench) -> None:
        bench.network("back")
        bench.attach(A, mac="02:00:00:00:00:09")
        bench.attach(B, "back", mac="02:00:00:00:00:09")


def test_a_pool_avoids_a_route_that_has_just_come() -> None:
    bench = Bench()
    facts = bench.kernel._facts
    route = ForeignRoute(Prefix("10.128.0.0/22"), "route via vpn0")
    bench.kernel._facts = type(facts)(
        instance=facts.instance, features=FACTS.features, foreign_routes=(*facts.foreign_routes, route)
    )
    assert bench.network("front").subnets[0].prefix != "10.128.0.0/22"


class TestWhatNobodyKnows:
    @pytest.fixture
    def fresh(self, bench: Bench) -> Bench:
        """An empty store beside a live endpoint."""
        bench.attach(A, publish=[publish(8080, 80)])
        return Bench(kernel=bench.kernel)

    def test_its_rules_stay_when_the_last_known_network_goes(self, fresh: Bench) -> None:
        before = dict(fresh.kernel.state[HOST])
        fresh.engine.reconciler.orphans, known = [], fresh.engine.reconciler.orphans
        fresh.network("new", subnets=list(subnets("10.9.0.0/24")))
        fresh.engine.reconciler.orphans = known
        fresh.engine.remove_network("new")
        there = fresh.kernel.state[HOST]
        assert {key for key in before if key not in there} == set()

    def test_nothing_new_may_take_what_is_its_own(self, fresh: Bench) -> None:
        with pytest.raises(ConflictError, match="in no record"):
            fresh.network("new")
        assert fresh.engine.networks() == []
        fresh.resyncer.gc(confirmed=True)
        fresh.resyncer.gc(confirmed=True)
        fresh.network("new")
        fresh.attach(B, "new", publish=[publish(8080, 80)])
        assert fresh.is_clean()


def test_what_is_in_a_sandbox_and_on_no_link_goes_with_its_endpoints(bench: Bench) -> None:
    """Routing rules: the sandbox's record goes in the same change."""
    bench.network("back", subnets=list(subnets("10.2.0.0/24")))
    bench.attach(A)
    bench.attach(A, "back")
    (sandbox,) = bench.engine.intent.sandboxes
    assert any(key[0] == "rule" for key in bench.kernel.state[sandbox])
    bench.engine.detach([DetachRequest(sandbox=A)])
    assert not any(key[0] == "rule" for key in bench.kernel.state[sandbox])


class TestTheHostsOwnWayOut:
    def facts(self, bench: Bench, *links: str) -> None:
        bench.kernel._facts = msgspec.structs.replace(bench.kernel._facts, ra_links=links)
        bench.kernel.foreign_links |= dict.fromkeys(links, "")

    def accept_ra(self, bench: Bench) -> object:
        item = bench.kernel.state[HOST].get(("sysctl", "net/ipv6/conf/uplink0/accept_ra"))
        return item and item.value  # type: ignore[union-attr]

    @pytest.mark.parametrize(
        ("options", "value"),
        [({"ipv6": True}, "2"), ({"ipv6": True, "internal": True}, None), ({"ipv6": False}, None)],
    )
    def test_goes_on_being_learnt_when_the_host_begins_to_forward(
        self, options: dict, value: str | None
    ) -> None:
        bench = Bench()
        self.facts(bench, "uplink0")
        bench.restart()
        bench.network("new", **options)
        assert self.accept_ra(bench) == value

    def test_that_is_learnt_later_too(self, bench: Bench) -> None:
        assert self.accept_ra(bench) is None
        self.facts(bench, "uplink0")
        watch = DriftWatcher(bench.engine, bench.resyncer, bench.kernel, Monitor(), None)  # type: ignore[arg-type]
        watch._refresh_facts()
        assert self.accept_ra(bench) == "2"


def test_other_ports_are_not_lost_while_something_is_unknown(bench: Bench) -> None:
    view = bench.attach(A, publish=[publish(8080, 80)])
    bench.engine.reconciler.orphans = ["sle000000000000"]
    endpoint = next(iter(bench.engine.intent.endpoints.values()))
    with pytest.raises(ConflictError, match="in no record"):
        bench.engine.publish(endpoint, [publish(8081, 80)])
    assert bench.engine.endpoint(view.id).ports == view.ports
    assert bench.engine.publish(endpoint, []).ports == ()
