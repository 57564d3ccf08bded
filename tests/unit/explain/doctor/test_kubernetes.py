"""A node of Kubernetes: a note, silence about what a kubelet arranges, and a kube-proxy whose rules are gone."""

import msgspec
import pytest

from sealane.explain.doctor.case import DiagnosisInput, Finding
from sealane.explain.doctor.causes import diagnose
from sealane.explain.doctor.evidence import BaseChain, ForeignTable, Listener
from unit.explain.doctor.cases import WEB, Patient

PROXY = Listener(proto="tcp", address="::", port=10256, process="kube-proxy (pid 163)")
TABLE = ForeignTable(family="ip", name="kube-proxy")


def node(patient: Patient) -> DiagnosisInput:
    """The same with `web` as a pod of namespace shop."""
    case = patient.case
    boxes = tuple(
        msgspec.structs.replace(box, name=f"shop/{box.name}") if box.id == WEB else box
        for box in case.sandboxes
    )
    return msgspec.structs.replace(case, sandboxes=boxes, is_node=True)


def findings(patient: Patient) -> list[Finding]:
    return list(diagnose(node(patient)))


def with_proxy(*tables: ForeignTable, **fields: object) -> Patient:
    patient = Patient()
    return patient.host(listeners=(*patient.evidence.host.listeners, PROXY), tables=tables, **fields)


def test_a_healthy_node_has_one_note_and_no_finding() -> None:
    (note,) = findings(with_proxy(TABLE))
    assert (note.cause, note.level, note.subject) == ("network-policies", "note", "host")
    assert "does not enforce NetworkPolicies" in note.message


def test_another_host_has_none() -> None:
    assert Patient().findings() == []


@pytest.mark.parametrize("servers", [("10.96.0.10",), ("127.0.0.1",), ()])
def test_a_pods_resolver_is_the_kubelets_matter(servers: tuple[str, ...]) -> None:
    assert [f.cause for f in findings(Patient().inside(WEB, nameservers=servers))] == ["network-policies"]
    assert Patient().inside(WEB, nameservers=servers).told("wrong-resolver") != [], "of any other sandbox"


def test_rules_of_a_running_kube_proxy_that_are_gone() -> None:
    (finding, _) = findings(with_proxy())
    assert (finding.cause, finding.level) == ("kube-proxy-rules", "error")
    assert "kube-proxy (pid 163)" in finding.message
    assert "restart" in finding.hint


@pytest.mark.parametrize(
    "patient",
    [
        with_proxy(ForeignTable(family="ip", name="nat")),
        with_proxy(legacy_tables=("ip nat",)),
        with_proxy().unseen(nftables="Operation not permitted"),
        Patient(),
    ],
    ids=["iptables", "legacy", "unread", "no kube-proxy"],
)
def test_rules_of_another_mode_or_unread_ones_are_no_finding(patient: Patient) -> None:
    assert "kube-proxy-rules" not in [f.cause for f in findings(patient)]


def test_br_netfilter_is_not_to_be_switched_off_on_a_node() -> None:
    """kubeadm and kube-proxy expect it."""
    gate = ForeignTable(
        family="inet", name="stranger", chains=(BaseChain(name="gate", hook="forward", drops="policy"),)
    )
    sysctls = {
        **Patient().evidence.host.sysctls,
        "net/bridge/bridge-nf-call-iptables": "1",
        "net/bridge/bridge-nf-call-ip6tables": "1",
    }
    patient = Patient().host(tables=(gate,), sysctls=sysctls)
    (here,) = [f for f in findings(patient) if f.cause == "bridge-netfilter"]
    (elsewhere,) = patient.findings("bridge-netfilter")
    assert "bridge-nf-call-iptables=0" in elsewhere.hint
    assert "bridge-nf-call" not in here.hint
    assert "nft insert rule" in here.hint
