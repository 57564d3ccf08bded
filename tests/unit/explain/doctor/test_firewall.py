"""Causes in other people's rules."""

import msgspec
import pytest

from sealane.compile.names import network_link
from sealane.explain.doctor.evidence import BaseChain, ForeignTable, Listener, Managers, PortRule
from sealane.model.endpoint import PublishedPort
from sealane.model.network import GatewayLink
from unit.explain.doctor.cases import API, DB, WEB, Patient, gate, table


def test_nothing_is_wrong_with_the_healthy() -> None:
    assert Patient().findings() == []


@pytest.mark.parametrize("hook", ["prerouting", "forward", "postrouting"])
def test_a_drop_on_the_way_is_found(hook: str) -> None:
    (finding,) = Patient().host(tables=(table(gate(hook)),)).findings("foreign-drop")
    assert (finding.subject, finding.level) == ("host", "error")
    assert f"chain gate of table inet stranger (hook {hook})" in finding.message
    assert "networks back, front" in finding.message


@pytest.mark.parametrize(
    ("chain", "level"),
    [
        (gate(rules=3), "warning"),
        (gate(drops="rule", rules=1), "error"),
        (gate(drops="rule", rules=2), "warning"),
    ],
)
def test_with_rules_of_its_own_it_depends_on_them(chain, level) -> None:
    assert Patient().host(tables=(table(chain),)).told("foreign-drop") == [("host", level)]


@pytest.mark.parametrize("chain", [gate(drops=""), gate("output"), gate("ingress")])
def test_what_does_not_drop_or_is_elsewhere_is_no_cause(chain) -> None:
    assert Patient().host(tables=(table(chain),)).findings() == []


def test_dropped_packets_are_told() -> None:
    (finding,) = Patient().host(tables=(table(gate(dropped=7)),)).findings("foreign-drop")
    assert "(packets so far: 7)" in finding.message


def test_a_family_that_no_network_has_is_no_concern() -> None:
    v4 = {"subnets": Patient().town.front.subnets[:1]}
    patient = Patient(front=v4, back={"subnets": Patient().town.back.subnets[:1]})
    patient.town.intent.endpoints.clear()
    assert patient.host(tables=(table(gate(), family="ip6"),)).told("foreign-drop") == []
    assert patient.host(tables=(table(gate(), family="ip"),)).told("foreign-drop") == [("host", "error")]


@pytest.mark.parametrize("lets", [("slb*",), ("10.1.0.0/24", "10.2.0.0/16"), ("*",)])
def test_a_table_that_lets_us_pass_is_passed_over(lets) -> None:
    assert Patient().host(tables=(table(gate(), lets=lets),)).findings() == []


def test_a_table_that_lets_one_network_pass_is_told_of_the_other() -> None:
    patient = Patient()
    lets = (network_link(patient.town.front),)
    (finding,) = patient.host(tables=(table(gate(), lets=lets),)).findings("foreign-drop")
    assert "network back" in finding.message
    assert network_link(patient.town.back) in finding.hint


@pytest.mark.parametrize("lets", [("eth0",), ("10.3.0.0/24",), ("10.1.0.9/32",), ("sl",)])
def test_what_others_are_let_does_not_help(lets) -> None:
    assert Patient().host(tables=(table(gate(), lets=lets),)).told("foreign-drop") == [("host", "error")]


def test_an_internal_network_is_not_forwarded() -> None:
    patient = Patient(front={"internal": True}, back={"internal": True})
    assert patient.host(tables=(table(gate()),)).told("foreign-drop") == []


def test_a_routed_network_is_forwarded_even_inside() -> None:
    patient = Patient(front={"internal": True, "driver": "routed"}, back={"internal": True})
    (finding,) = patient.host(tables=(table(gate()),)).findings("foreign-drop")
    assert ("network front" in finding.message, "'iifname \"sle*\" accept'" in finding.hint) == (True, True)


def filtering(family: str, chain: str, hook: str) -> ForeignTable:
    """As iptables-nft makes it."""
    base = BaseChain(name=chain, hook=hook, drops="policy")
    return ForeignTable(family=family, name="filter", chains=(base,))  # type: ignore[arg-type]


@pytest.mark.parametrize(("family", "tool"), [("ip", "iptables"), ("ip6", "ip6tables")])
def test_a_table_of_iptables_is_cured_by_iptables(family, tool) -> None:
    (finding,) = Patient().host(tables=(filtering(family, "FORWARD", "forward"),)).findings("foreign-drop")
    assert finding.hint == (f"{tool} -I FORWARD -i slb+ -j ACCEPT; {tool} -I FORWARD -o slb+ -j ACCEPT")
    (finding,) = Patient().host(tables=(filtering(family, "INPUT", "input"),)).findings("foreign-input")
    assert finding.hint.startswith(f"{tool} -I INPUT -i slb+ -p udp --dport 53 -j ACCEPT; ")


def test_a_link_with_a_name_of_its_own_is_named() -> None:
    patient = Patient(front={"host_link": GatewayLink(name="br0", adopted=True)})
    assert 'iifname "br0"' in patient.host(tables=(table(gate()),)).findings("foreign-drop")[0].hint


# --- frames of one bridge -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "sysctl", "found"),
    [
        ("ip", "iptables", 1),
        ("ip6", "ip6tables", 1),
        ("inet", "ip6tables", 1),
        ("ip", "ip6tables", 0),
        ("bridge", "", 1),
    ],
)
def test_bridged_frames_meet_what_br_netfilter_shows_them_to(family, sysctl, found) -> None:
    patient = Patient()
    sysctls = {**patient.evidence.host.sysctls, f"net/bridge/bridge-nf-call-{sysctl}": "1"}
    patient.host(tables=(table(gate(), family=family),), sysctls=sysctls)
    assert len(patient.findings("bridge-netfilter")) == found


def test_without_br_netfilter_bridged_frames_meet_nobody() -> None:
    assert Patient().host(tables=(table(gate()),)).findings("bridge-netfilter") == []


def test_a_bridge_tables_hint_speaks_of_ports() -> None:
    (finding,) = Patient().host(tables=(table(gate(), family="bridge"),)).findings()
    assert ('iifname "sle*" accept' in finding.hint, "sysctl" in finding.hint) == (True, False)
    assert Patient().host(tables=(table(gate(), family="bridge", lets=("sle*",)),)).findings() == []
    assert len(Patient().host(tables=(table(gate(), lets=("sle*",)),)).findings("foreign-drop")) == 1


# --- questions to the resolver --------------------------------------------------------------------------------------


def test_a_drop_of_input_hits_the_resolver() -> None:
    (finding,) = Patient().host(tables=(table(gate("input")),)).findings()
    assert (finding.cause, "dport 53 accept" in finding.hint) == ("foreign-input", True)


def test_without_a_resolver_input_is_nobodys_concern() -> None:
    assert Patient().host(tables=(table(gate("input")),), listeners=()).findings("foreign-input") == []


# --- others ---------------------------------------------------------------------------------------------------------


def test_a_firewall_inside_a_sandbox() -> None:
    patient = Patient().inside(DB, tables=(table(gate("input")),))
    assert patient.told("sandbox-firewall") == [("db", "warning")]
    assert Patient().inside(DB, tables=(table(gate("input", drops="")),)).findings() == []


def test_the_old_iptables_is_a_note() -> None:
    assert Patient().host(legacy_tables=("ip filter",)).told("legacy-iptables") == [("host", "note")]


def test_firewall_managers() -> None:
    known = Managers(firewalls=("ufw",), flushes=("/etc/nftables.conf",))
    assert Patient().host(managers=known).told("firewall-reload") == [("host", "warning"), ("host", "note")]
    firewalld = msgspec.structs.replace(table(), name="firewalld")
    assert Patient().host(tables=(firewalld,)).told("firewall-reload") == [("host", "note")]


@pytest.mark.parametrize(("hook", "cause"), [("forward", "foreign-drop"), ("input", "foreign-input")])
def test_firewalld_is_told_by_its_own_words(hook, cause) -> None:
    """What others put into its table is gone with its next reload."""
    firewalld = msgspec.structs.replace(table(gate(hook, "rule", rules=9)), name="firewalld")
    (finding,) = Patient().host(tables=(firewalld,)).findings(cause)
    front, back = (network_link(network) for network in (Patient().town.front, Patient().town.back))
    assert finding.hint == (
        f"firewall-cmd --permanent --zone=trusted --change-interface={front}; "
        f"firewall-cmd --permanent --zone=trusted --change-interface={back}; firewall-cmd --reload"
    )


# --- ports ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("listener", "found"),
    [
        (Listener(proto="tcp", address="0.0.0.0", port=8080), 1),
        (Listener(proto="tcp", address="::", port=8080), 1),
        (Listener(proto="tcp", address="192.0.2.7", port=8080), 1),
        (Listener(proto="tcp", address="0.0.0.0", port=8080, ours=True), 0),
        (Listener(proto="udp", address="0.0.0.0", port=8080), 0),
        (Listener(proto="tcp", address="0.0.0.0", port=8081), 0),
    ],
)
def test_a_process_at_a_published_port(listener, found) -> None:
    assert len(Patient().host(listeners=(listener,)).findings("port-taken")) == found


@pytest.mark.parametrize(
    ("address", "found"), [("192.0.2.7", 1), ("192.0.2.8", 0), ("0.0.0.0", 1), ("::", 0)]
)
def test_a_publish_at_one_address_is_in_the_way_there_alone(address, found) -> None:
    """`::` with IPV6_V6ONLY."""
    port = PublishedPort(host_address="192.0.2.7", host_first=8080, host_last=8080, port=80)  # type: ignore[arg-type]
    patient = Patient(ports=(port,)).host(
        listeners=(Listener(proto="tcp", address=address, port=8080, v6_only=True),)
    )
    assert len(patient.findings("port-taken")) == found


@pytest.mark.parametrize(
    ("reserved", "reserves_for", "found"),
    [(True, (WEB,), 0), (True, (API,), 1), (True, (), 1), (False, (WEB,), 1)],
)
def test_a_monitor_that_reserves_the_port_for_its_container_takes_it_from_nobody(
    reserved, reserves_for, found
) -> None:
    """Another container's does, and one of a container whose engine reserves nothing."""
    port = PublishedPort(host_first=8080, host_last=8080, port=80, is_reserved=reserved)
    listener = Listener(proto="tcp", address="0.0.0.0", port=8080, reserves_for=reserves_for)
    patient = Patient(ports=(port,)).host(listeners=(listener,))
    assert len(patient.findings("port-taken")) == found


def rule(**fields: object) -> PortRule:
    return PortRule(**{"chain": "nat", "proto": "tcp", "first": 8080, "last": 8080, **fields})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("family", "port_rule", "found"),
    [
        ("inet", rule(), 1),
        ("ip", rule(proto=""), 1),
        ("ip6", rule(first=8000, last=9000), 1),
        ("ip", rule(address="192.0.2.9"), 1),
        ("bridge", rule(), 0),
        ("ip", rule(proto="udp"), 0),
        ("ip", rule(first=8081, last=8090), 0),
    ],
)
def test_a_rule_that_takes_a_published_port(family, port_rule, found) -> None:
    patient = Patient().host(tables=(table(family=family, translates=(port_rule,)),))
    assert patient.told("port-taken") == [("web/front", "error")] * found


def test_a_rule_for_another_address_of_the_hosts_is_no_concern() -> None:
    port = PublishedPort(host_address="192.0.2.7", host_first=8080, host_last=8080, port=80)  # type: ignore[arg-type]
    patient = Patient(ports=(port,))
    patient.host(tables=(table(translates=(rule(address="192.0.2.9"),)),))
    assert patient.findings("port-taken") == []
