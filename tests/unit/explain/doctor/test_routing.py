"""Causes on the way."""

import msgspec
import pytest

from sealane.explain.doctor.causes import diagnose
from sealane.explain.doctor.evidence import HostLink, HostRoute, SandboxLink
from sealane.model.network import GatewayLink
from unit.explain.doctor.cases import API, DB, WEB, Patient, gate, table

DEFAULT = HostRoute(dst="0.0.0.0/0", link="uplink0", gateway="192.0.2.1")


@pytest.mark.parametrize("path", ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"])
def test_forwarding_that_is_off(path) -> None:
    patient = Patient()
    patient.host(sysctls={**patient.evidence.host.sysctls, path: "0"})
    (finding,) = patient.findings()
    assert (finding.cause, finding.level) == ("forwarding-off", "error")
    assert f"sysctl -w {path.replace('/', '.')}=1" in finding.hint


def test_forwarding_that_nobody_needs() -> None:
    """IPv6's, on networks of IPv4."""
    plain = Patient().town
    patient = Patient(front={"subnets": plain.front.subnets[:1]}, back={"internal": True})
    patient.host(sysctls={"net/ipv4/ip_forward": "1", "net/ipv6/conf/all/forwarding": "0"})
    assert patient.findings("forwarding-off") == []


def test_a_link_that_does_not_forward() -> None:
    patient = Patient()
    sysctls = {**patient.evidence.host.sysctls, "net/ipv4/conf/uplink0/forwarding": "0"}
    (finding,) = patient.host(sysctls=sysctls).findings()
    assert "arrive by uplink0" in finding.message
    internal = Patient(front={"internal": True}, back={"internal": True}).host(sysctls=sysctls)
    assert internal.findings("forwarding-off") == []


def test_a_setting_that_could_not_be_read_is_no_finding() -> None:
    assert Patient().host(sysctls={}).findings() == []


def test_a_host_without_a_way_out() -> None:
    assert Patient().host(routes=()).told("no-default-route") == [("host", "warning")]
    assert Patient().host(routes=()).unseen(routes="EMSGSIZE").findings() == []
    assert (
        Patient(front={"internal": True}, back={"internal": True}).host(routes=()).told("no-default-route")
        == []
    )


# --- default routes of sandboxes ------------------------------------------------------------------------------------


def other(patient: Patient, sandbox: str, *routes: HostRoute) -> Patient:
    """With these instead of the IPv4 default route."""
    kept = [r for r in patient.evidence.sandboxes[sandbox].defaults if ":" in r.dst]
    return patient.inside(sandbox, defaults=(*kept, *routes))


@pytest.mark.parametrize(
    ("routes", "said"),
    [
        ([], "it has no default route of IPv4, it should leave by 0.0.0.0/0 via 10.1.0.1 dev eth0"),
        (
            [HostRoute(dst="0.0.0.0/0", link="eth1", gateway="10.2.0.1")],
            "its default route is 0.0.0.0/0 via 10.2.0.1 dev eth1",
        ),
        ([HostRoute(dst="0.0.0.0/0", link="tun0")], "its default route is 0.0.0.0/0 dev tun0"),
    ],
)
def test_another_way_out_than_it_should_be(routes, said) -> None:
    (finding,) = other(Patient(), API, *routes).findings()
    assert (finding.cause, finding.subject) == ("wrong-default-route", "api")
    assert said in finding.message


def test_the_best_one_counts() -> None:
    right = HostRoute(dst="0.0.0.0/0", link="eth0", gateway="10.1.0.1", metric=100)
    worse = HostRoute(dst="0.0.0.0/0", link="tun0", metric=200)
    assert other(Patient(), API, right, worse).findings() == []
    better = msgspec.structs.replace(worse, metric=50)
    assert [f.subject for f in other(Patient(), API, right, better).findings()] == ["api"]


def test_a_sandbox_on_internal_networks_alone() -> None:
    patient = Patient(back={"internal": True})
    assert patient.findings() == []
    way = HostRoute(dst="0.0.0.0/0", link="eth0", gateway="10.2.0.1")
    (finding,) = patient.inside(DB, defaults=(way,)).findings()
    assert ("internal networks alone" in finding.message, finding.subject) == (True, "db")
    # By a link that is not ours it may leave as it likes.
    assert patient.inside(DB, defaults=(HostRoute(dst="0.0.0.0/0", link="tun0"),)).findings() == []


@pytest.mark.parametrize("gateway", ["10.1.0.1", "10.2.0.1"])
def test_docker_chooses_the_way_out_of_its_containers(gateway) -> None:
    route = HostRoute(dst="0.0.0.0/0", link="eth5", gateway=gateway)
    assert other(Patient(), API, route).handed_over(API).findings() == []


def test_a_container_of_dockers_without_a_way_out() -> None:
    patient = other(Patient(), API).handed_over(API)
    (finding,) = patient.findings()
    assert (finding.cause, finding.subject, finding.level) == ("wrong-default-route", "api", "error")
    assert ("back, front" in finding.message, "docker restart" in finding.hint) == (True, True)
    internal = Patient(front={"internal": True}, back={"internal": True})
    assert other(internal, API).handed_over(API).told("wrong-default-route") == []


def test_dockers_chosen_network_may_be_without_ipv6() -> None:
    """Docker's choice gives the routes of both families, and it is not known here which network that is."""
    patient = Patient().handed_over(API)
    kept = tuple(r for r in patient.evidence.sandboxes[API].defaults if ":" not in r.dst)
    case = patient.inside(API, defaults=kept).case
    (finding,) = diagnose(case)
    assert "no default route of IPv6" in finding.message
    front, back = case.endpoints[API]
    alone = msgspec.structs.replace(back, addresses=back.addresses[:1])
    endpoints = {**case.endpoints, API: (front, alone)}
    assert list(diagnose(msgspec.structs.replace(case, endpoints=endpoints))) == []


# --- sizes ----------------------------------------------------------------------------------------------------------


def test_a_link_larger_than_its_network() -> None:
    (finding,) = Patient().inside(WEB, links=(SandboxLink(name="eth0", mtu=1500),)).findings()
    assert (finding.cause, finding.subject, finding.level) == ("mtu-black-hole", "web/front", "error")
    assert "ip link set eth0 mtu 1400" in finding.hint
    assert Patient().inside(WEB, links=(SandboxLink(name="eth0", mtu=1280),)).findings() == []


def test_a_way_out_that_carries_less() -> None:
    narrow = msgspec.structs.replace(DEFAULT, mtu=1300)
    patient = Patient().host(routes=(narrow,))
    assert patient.told("mtu-black-hole") == [("back", "warning"), ("front", "warning")] or patient.told(
        "mtu-black-hole"
    ) == [("front", "warning"), ("back", "warning")]
    patient.host(tables=(table(gate("output")),))
    assert {level for _, level in patient.told("mtu-black-hole")} == {"error"}


def test_a_network_made_larger_than_the_uplink() -> None:
    patient = Patient(front={"mtu": 9000}).inside(WEB, links=()).inside(API, links=())
    (finding, again) = patient.findings("mtu-black-hole")
    assert (finding.subject, again.subject) == ("front", "front")
    assert "-o mtu=1400" in finding.hint
    internal = Patient(front={"mtu": 9000, "internal": True})
    assert internal.findings("mtu-black-hole") == []


def test_a_narrow_way_to_one_place_matters_only_if_nobody_says_so() -> None:
    """Path MTU discovery is for that."""
    vpn = HostRoute(dst="198.51.100.0/24", link="wg0", gateway="10.9.0.1")
    patient = Patient()
    host = patient.evidence.host
    patient.host(routes=(*host.routes, vpn), links=(*host.links, HostLink(name="wg0", mtu=1280)))
    assert patient.findings() == []
    patient.host(tables=(table(gate("output")),))
    assert {f.subject for f in patient.findings("mtu-black-hole")} == {"front", "back"}


# --- addresses ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dst", "level"),
    [
        ("10.1.0.0/25", "error"),
        ("10.1.0.0/24", "error"),
        ("10.1.0.0/16", "warning"),
        ("fd00:1::5/128", "error"),
        ("10.0.0.0/7", ""),
        ("10.3.0.0/24", ""),
        ("0.0.0.0/1", ""),
        ("fe80::/64", ""),
    ],
)
def test_routes_over_our_subnets(dst, level) -> None:
    patient = Patient()
    patient.host(routes=(*patient.evidence.host.routes, HostRoute(dst=dst, link="wg0", table=51820)))
    assert [(f.subject, f.level) for f in patient.findings("subnet-overlap")] == (
        [("front", level)] if level else []
    )


def test_an_adopted_bridges_own_route_is_no_overlap() -> None:
    patient = Patient(front={"host_link": GatewayLink(name="br0", adopted=True)})
    patient.host(routes=(*patient.evidence.host.routes, HostRoute(dst="10.1.0.0/24", link="br0")))
    assert patient.findings("subnet-overlap") == []


# --- rp_filter ------------------------------------------------------------------------------------------------------


SECOND = HostRoute(dst="0.0.0.0/0", link="wan1", gateway="198.51.100.1", metric=500)


@pytest.mark.parametrize(
    ("every", "own", "found"), [("0", "1", 1), ("1", "0", 1), ("2", "1", 0), ("1", "2", 0), ("0", "0", 0)]
)
def test_a_strict_second_way_out(every, own, found) -> None:
    patient = Patient()
    sysctls = {
        **patient.evidence.host.sysctls,
        "net/ipv4/conf/all/rp_filter": every,
        "net/ipv4/conf/wan1/rp_filter": own,
        "net/ipv4/conf/uplink0/rp_filter": "1",
    }
    patient.host(routes=(SECOND, *patient.evidence.host.routes), sysctls=sysctls)
    assert patient.told("rp-filter") == [("host", "warning")] * found
    patient.host(reverse_path_drops=3)
    assert patient.told("rp-filter") == [("host", "error")] * found


def test_one_way_out_may_be_strict() -> None:
    patient = Patient()
    sysctls = {**patient.evidence.host.sysctls, "net/ipv4/conf/all/rp_filter": "1"}
    assert patient.host(sysctls=sysctls, reverse_path_drops=3).findings() == []


def test_rp_filter_in_a_sandbox_is_found_by_its_drops() -> None:
    assert Patient().inside(API, strict=("eth0",)).findings() == []
    assert Patient().inside(API, reverse_path_drops=2).findings() == []
    patient = Patient().inside(API, strict=("eth0", "eth1"), reverse_path_drops=2)
    assert patient.told("rp-filter") == [("api", "error")]
