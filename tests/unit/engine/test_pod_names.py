"""Names of pods, NAMESPACE/POD, beside NAME/NETWORK: what may mean several is refused, with the choices."""

from collections.abc import Callable

import pytest

from harness.engines import Bench, subnets
from sealane.daemon.names import dns_name
from sealane.engine.diagnosing import Diagnosis
from sealane.engine.errors import ConflictError, InvalidError, NotFoundError
from sealane.engine.explaining import explain_packet
from sealane.wire.diagnosis import DoctorRequest, ExplainRequest
from sealane.wire.requests import DetachRequest

SHOP, BLOG, PLAIN = "/run/netns/a", "/run/netns/b", "/run/netns/c"


@pytest.fixture
def bench() -> Bench:
    bench = Bench()
    bench.network("pods", subnets=list(subnets("10.1.0.0/24")))
    bench.network("back", subnets=list(subnets("10.2.0.0/24")))
    return bench


def pod(bench: Bench, where: str, namespace: str, name: str = "web-0", network: str = "pods") -> str:
    return bench.attach(where, network, name=name, sandbox_name=name, namespace=namespace).id


@pytest.fixture
def pods(bench: Bench) -> tuple[str, str]:
    return pod(bench, SHOP, "shop"), pod(bench, BLOG, "blog")


def explained(bench: Bench, source: str, target: str) -> str:
    return explain_packet(bench.engine, ExplainRequest(source=source, target=target)).minimal


@pytest.mark.parametrize("reference", ["shop/web-0", "shop/web-0/pods"])
def test_a_pod_is_known_by_namespace_and_name(bench: Bench, pods: tuple[str, str], reference: str) -> None:
    assert bench.engine.endpoint(reference).id == pods[0]
    assert explained(bench, reference, "blog/web-0:80").endswith(": delivered to blog/web-0")


def test_its_sandbox_too(bench: Bench, pods: tuple[str, str]) -> None:
    assert [e.id for e in bench.engine.endpoints(sandbox="shop/web-0")] == [pods[0]]
    bench.attach("shop/web-0", "back")
    assert len(bench.engine.endpoints(sandbox="shop/web-0")) == 2
    assert bench.engine.detach([DetachRequest(sandbox="shop/web-0")]).detached
    assert [e.id for e in bench.engine.endpoints()] == [pods[1]]


@pytest.mark.parametrize("reference", ["web-0", "web-0/pods"])
def test_without_its_namespace_while_no_other_has_its_name(bench: Bench, reference: str) -> None:
    one = pod(bench, SHOP, "shop")
    assert bench.engine.endpoint(reference).id == one
    assert bench.engine.sandbox("web-0").name == "shop/web-0"
    assert explained(bench, reference, "10.1.0.1:80")
    pod(bench, BLOG, "blog")
    with pytest.raises(ConflictError) as caught:
        bench.engine.endpoint(reference)
    assert caught.value.hint == "one of blog/web-0/pods, shop/web-0/pods"


REFUSED: dict[str, Callable[[Bench], object]] = {
    "sandbox": lambda bench: bench.engine.sandbox("web-0"),
    "attach": lambda bench: bench.attach("web-0", "back"),
    "detach": lambda bench: bench.engine.detach([DetachRequest(sandbox="web-0")]),
    "detach endpoint": lambda bench: bench.engine.detach([DetachRequest(endpoint="web-0")]),
    "remove": lambda bench: bench.engine.remove_sandbox("web-0", force=True),
    "explain from": lambda bench: explained(bench, "web-0", "10.1.0.1:80"),
    "explain to": lambda bench: explained(bench, "host", "web-0:80"),
    "doctor": lambda bench: Diagnosis(bench.engine, DoctorRequest(subjects=["web-0"])),
}


@pytest.mark.parametrize("verb", REFUSED)
def test_a_name_of_two_pods_is_refused_with_the_choices(
    bench: Bench, pods: tuple[str, str], verb: str
) -> None:
    with pytest.raises((ConflictError, InvalidError)) as caught:
        REFUSED[verb](bench)
    told = f"{caught.value} {caught.value.hint}"
    assert "blog/web-0" in told
    assert "shop/web-0" in told
    assert len(bench.engine.intent.endpoints) == 2


def test_who_has_just_that_name_is_meant_by_it(bench: Bench, pods: tuple[str, str]) -> None:
    plain = bench.attach(PLAIN, name="web-0", sandbox_name="web-0", network="pods").id
    assert bench.engine.endpoint("web-0").id == plain
    assert bench.engine.sandbox("web-0").name == "web-0"
    assert explained(bench, "web-0", "shop/web-0:80").endswith("delivered to shop/web-0")


class TestANetworkOfThePodsName:
    """`shop/web-0`: the pod, or the sandbox shop on the network web-0."""

    def test_only_one_is_there(self, bench: Bench) -> None:
        bench.network("web-0", subnets=list(subnets("10.3.0.0/24")))
        on_network = bench.attach(PLAIN, "web-0", name="shop", sandbox_name="shop").id
        assert bench.engine.endpoint("shop/web-0").id == on_network
        assert explained(bench, "shop/web-0", "10.3.0.1:80")
        bench.engine.detach([DetachRequest(endpoint=on_network)])
        one = pod(bench, SHOP, "shop")
        assert bench.engine.endpoint("shop/web-0").id == one

    def test_both_are_there(self, bench: Bench, pods: tuple[str, str]) -> None:
        bench.network("web-0", subnets=list(subnets("10.3.0.0/24")))
        on_network = bench.attach(PLAIN, "web-0", name="shop", sandbox_name="shop").id
        with pytest.raises(ConflictError) as caught:
            bench.engine.endpoint("shop/web-0")
        assert caught.value.hint == f"one of {on_network[:12]} (sandbox shop), shop/web-0/pods"
        with pytest.raises(InvalidError) as refusal:
            explained(bench, "shop/web-0", "10.3.0.1:80")
        assert "shop/web-0/pods" in str(refusal.value)
        # Each of the choices is understood.
        for choice, meant in (("shop/web-0/pods", pods[0]), (on_network[:12], on_network)):
            assert bench.engine.endpoint(choice).id == meant
            assert explained(bench, choice, "10.3.0.1:80")

    def test_the_pod_on_a_network_of_its_name(self, bench: Bench) -> None:
        bench.network("web-0", subnets=list(subnets("10.3.0.0/24")))
        one = pod(bench, SHOP, "shop", network="web-0")
        for reference in ("shop/web-0", "shop/web-0/web-0", "web-0/web-0", "web-0"):
            assert bench.engine.endpoint(reference).id == one


def test_a_pod_that_there_is_not(bench: Bench, pods: tuple[str, str]) -> None:
    with pytest.raises(InvalidError, match="no pod's NAMESPACE/POD, and there is no network 'web-1'"):
        explained(bench, "shop/web-1", "10.1.0.1:80")
    for reference in ("shop/web-1", "shop/web-0/back", "none/web-0"):
        with pytest.raises(NotFoundError):
            bench.engine.endpoint(reference)


@pytest.mark.parametrize("names", [("sh/op", "web"), ("shop", "w/eb"), ("", "shop/web"), ("-", "web")])
def test_neither_name_has_a_slash_of_its_own(bench: Bench, names: tuple[str, str]) -> None:
    with pytest.raises(InvalidError):
        bench.attach(SHOP, "pods", name=names[1], namespace=names[0])


def test_in_dns_the_namespace_comes_after() -> None:
    assert dns_name("shop/web-0") == "web-0.shop"
    assert dns_name("web") == "web"


def test_the_store_keeps_it(bench: Bench, pods: tuple[str, str]) -> None:
    bench.restart()
    assert bench.engine.endpoint("shop/web-0").id == pods[0]
    with pytest.raises(ConflictError):
        bench.engine.sandbox("web-0")
