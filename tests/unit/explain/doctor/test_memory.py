"""Causes in what is remembered and no longer true."""

import msgspec
import pytest

from sealane.explain.doctor.evidence import Listener, Upstream
from unit.explain.doctor.cases import API, DB, WEB, Patient


@pytest.mark.parametrize("backend", ["10.1.0.99", "fd00:1::99"])
def test_flows_to_nobody(backend) -> None:
    patient = Patient().host(backends=(backend, backend))
    (finding,) = patient.findings()
    assert (finding.cause, finding.subject, finding.level) == ("stale-flow", "front", "error")
    assert ("2 tracked UDP flows" in finding.message, f"--reply-src {backend}" in finding.hint) == (
        True,
        True,
    )


@pytest.mark.parametrize("backend", ["10.1.0.10", "10.1.0.1", "172.17.0.2"])
def test_flows_to_somebody_to_the_gateway_or_elsewhere(backend) -> None:
    assert Patient().host(backends=(backend,)).findings() == []


# --- names ----------------------------------------------------------------------------------------------------------


def asks(*servers: str, sandbox: str = WEB) -> Patient:
    return Patient().inside(sandbox, nameservers=servers)


def test_a_loopback_where_nobody_listens() -> None:
    (finding,) = asks("127.0.0.53").findings()
    assert (finding.cause, finding.subject, finding.level) == ("wrong-resolver", "web", "error")
    assert "`nameserver 10.1.0.1`" in finding.hint


def test_no_server_at_all_is_the_loopback() -> None:
    """As glibc takes it."""
    assert asks().told("wrong-resolver") == [("web", "error")]


def test_a_loopback_where_somebody_answers_is_a_note() -> None:
    own = Listener(proto="udp", address="127.0.0.53", port=53)
    patient = asks("127.0.0.53", sandbox=API).inside(API, listeners=(own,))
    assert patient.told("wrong-resolver") == [("api", "note")]


@pytest.mark.parametrize("port", [53, 41234])
def test_dockers_own_resolver_is_right_in_a_container_of_dockers(port) -> None:
    """Its port is any: rules inside lead to it."""
    own = Listener(proto="udp", address="127.0.0.11", port=port)
    patient = asks("127.0.0.11", sandbox=API).inside(API, listeners=(own,))
    assert patient.told("wrong-resolver") == [("api", "note")]
    assert patient.handed_over(API).findings() == []


@pytest.mark.parametrize(
    "other",
    [
        (),
        (Listener(proto="tcp", address="127.0.0.11", port=53),),
        (Listener(proto="udp", address="0.0.0.0", port=99),),
    ],
)
def test_dockers_own_resolver_is_gone(other) -> None:
    (finding,) = asks("127.0.0.11", sandbox=API).inside(API, listeners=other).handed_over(API).findings()
    assert (finding.cause, finding.level) == ("wrong-resolver", "error")
    assert finding.hint.startswith("start dockerd")


def test_servers_that_docker_was_told_of_are_none_of_ours_to_judge() -> None:
    assert asks("192.0.2.53", sandbox=API).handed_over(API).findings() == []


def test_the_resolver_of_a_network_that_it_is_not_on() -> None:
    (finding,) = asks("10.2.0.1").findings()
    assert (finding.level, "network back" in finding.message) == ("error", True)


@pytest.mark.parametrize("servers", [("10.1.0.1",), ("192.0.2.53", "fd00:1::1"), ("10.1.0.1", "127.0.0.1")])
def test_one_of_ours_is_enough(servers) -> None:
    assert asks(*servers).findings() == []


def test_another_resolver_is_a_note() -> None:
    assert asks("192.0.2.53").told("wrong-resolver") == [("web", "note")]


def test_where_no_resolver_of_ours_answers_nobody_is_sent_there() -> None:
    assert asks("127.0.0.53").host(listeners=()).findings() == []


def test_without_a_process_nothing_is_known() -> None:
    assert Patient().inside(DB, nameservers=None).findings() == []


@pytest.mark.parametrize(
    ("problems", "levels"),
    [(("", ""), []), (("silent for 1 s", ""), ["warning"]), (("refused", "refused"), ["error", "error"])],
)
def test_upstreams(problems, levels) -> None:
    servers = tuple(Upstream(address=f"192.0.2.{n}", problem=p) for n, p in enumerate(problems, 53))
    assert [f.level for f in Patient().host(upstreams=servers).findings("silent-upstream")] == levels


def test_findings_are_told_once_a_cause() -> None:
    found = asks("127.0.0.53").host(backends=("10.1.0.99",)).findings()
    assert [f.cause for f in found] == ["stale-flow", "wrong-resolver"]
    assert all(msgspec.structs.asdict(f)["hint"] for f in found)
