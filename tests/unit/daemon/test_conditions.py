"""What a host lacks is told, each by its subject."""

import pytest

from sealane.compile.facts import Features
from sealane.daemon import conditions
from sealane.model.endpoint import NetnsRef, Sandbox
from sealane.model.ids import SandboxId


@pytest.mark.parametrize(
    ("features", "subjects"),
    [
        ({}, []),
        ({"ipv6": False}, ["ipv6"]),
        ({"conntrack": False}, ["flows"]),
        ({"nft": False, "nft_bridge": False}, ["kernel", "kernel"]),
        ({"bridge_netfilter": True}, ["bridge netfilter"]),
        ({"fast_path_reason": "bpf(2) is refused"}, ["fast path"]),
        ({"fast_path": True, "firewalls": ("ip",)}, ["fast path"]),
    ],
)
def test_each_lack_has_its_condition(features: dict, subjects: list[str]) -> None:
    found = list(conditions.of_features(Features(**features)))
    assert [condition.subject for condition in found] == subjects
    assert {c.level for c in found} <= ({"error"} if "kernel" in subjects else {"note"})


def test_br_netfilter_is_not_to_be_switched_off_on_a_node_of_kubernetes() -> None:
    (on_node,) = conditions.of_features(Features(bridge_netfilter=True), is_node=True)
    (elsewhere,) = conditions.of_features(Features(bridge_netfilter=True))
    assert on_node.hint == "leave it: kubeadm and kube-proxy expect it on a node"
    assert "bridge-nf-call-iptables=0" in elsewhere.hint


def test_a_node_is_told_what_it_does_not_have_from_us() -> None:
    told = list(conditions.kubernetes_node())
    assert {(c.level, c.subject) for c in told} == {("note", "kubernetes")}
    assert "NetworkPolicies" in told[0].message
    assert "kube-proxy" in told[1].message


def test_limits_that_cannot_be_set_are_told_with_the_reason() -> None:
    told = conditions.no_limits("no cgroup is ours to write")
    assert (told.level, told.subject) == ("note", "limits")
    assert "no cgroup is ours to write" in told.message


def test_a_port_that_is_not_relayed_is_told_with_the_reason() -> None:
    (told,) = conditions.of_relays({"[::]:8080/tcp": "Address already in use"})
    assert (told.level, told.subject) == ("note", "relay")
    assert "[::]:8080/tcp" in told.message
    assert "Address already in use" in told.message


def test_that_containers_have_no_user_namespace_is_told_with_the_reason_and_the_remedy() -> None:
    told = conditions.no_userns("the sysctl user.max_user_namespaces is 0")
    assert (told.level, told.subject) == ("note", "user namespace")
    assert told.message.endswith("user.max_user_namespaces is 0")
    assert "NET_ADMIN" in told.hint


def sandbox(number: int, **netns: str) -> Sandbox:
    path = netns.pop("path", f"/run/netns/{number}")
    ref = NetnsRef(path=path, inode=number, **netns) if path else None  # type: ignore[arg-type]
    return Sandbox(id=SandboxId(f"{number:032x}"), name=f"s{number}", netns=ref)


def test_sandboxes_whose_net_admin_reaches_the_host_are_counted() -> None:
    on_the_host = sandbox(1, path="")
    owned = sandbox(2, userns="/run/netns/2.user")
    assert list(conditions.of_owners([on_the_host, owned])) == []
    [one] = conditions.of_owners([on_the_host, owned, sandbox(3)])
    assert (one.level, one.subject) == ("note", "NET_ADMIN")
    assert one.message.startswith("1 sandbox has no user namespace")
    [two] = conditions.of_owners([sandbox(3), sandbox(4)])
    assert two.message.startswith("2 sandboxes have no user namespace")
