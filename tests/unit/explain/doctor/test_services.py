"""Causes in the application."""

import pytest

from sealane.explain.doctor.evidence import Listener
from sealane.model.endpoint import PublishedPort
from unit.explain.doctor.cases import API, DB, SERVED, WEB, Patient


def listener(address: str, port: int = 80, proto: str = "tcp", **fields: object) -> Listener:
    return Listener(proto=proto, address=address, port=port, **fields)  # type: ignore[arg-type]


def served(*listeners: Listener, **options: object) -> Patient:
    return Patient(**options).inside(WEB, listeners=listeners)  # type: ignore[arg-type]


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.53", "::1"])
def test_a_published_port_bound_to_loopback(address) -> None:
    patient = served(listener(address, process="flask (pid 9)"))
    (finding,) = patient.findings()
    assert (finding.cause, finding.subject, finding.level) == ("bound-to-loopback", "web/front", "error")
    assert "flask (pid 9) listens at" in finding.message
    assert "10.1.0.10 and fd00:1::10 port 80" in finding.hint


def test_loopback_beside_a_real_address_is_fine() -> None:
    assert served(*SERVED, listener("127.0.0.1")).findings() == []


def test_nobody_listens() -> None:
    (finding,) = served().findings()
    assert (finding.cause, finding.level) == ("nobody-listens", "warning")
    assert "`sealane sockets web --listening`" in finding.hint


@pytest.mark.parametrize("other", [listener("0.0.0.0", 81), listener("0.0.0.0", proto="udp")])
def test_who_listens_elsewhere_is_nobody(other) -> None:
    assert [f.cause for f in served(other).findings() if f.level != "note"] == ["nobody-listens"]


def test_at_an_address_of_somebody_elses() -> None:
    (finding,) = served(listener("10.9.9.9")).findings("nobody-listens")
    assert (finding.level, "listens at 10.9.9.9" in finding.message) == ("error", True)


def test_at_its_own_address_is_fine() -> None:
    assert served(listener("10.1.0.10"), listener("fd00:1::10")).findings() == []


def test_of_a_range_one_is_enough() -> None:
    ports = (PublishedPort(host_first=8000, host_last=8009, port=9000),)
    assert served(ports=ports).told("nobody-listens") == [("web/front", "warning")]
    both = (listener("0.0.0.0", 9009), listener("::", 9009, v6_only=True))
    assert served(*both, ports=ports).findings() == []
    assert served(listener("::", 9010), ports=ports).told("nobody-listens") == [("web/front", "warning")]


def test_a_protocol_whose_sockets_are_not_seen_is_passed_over() -> None:
    assert served(ports=(PublishedPort(proto="sctp", host_first=80, host_last=80, port=80),)).findings() == []


def test_a_sandbox_that_was_not_seen_is_passed_over() -> None:
    patient = Patient()
    patient.evidence.sandboxes.clear()
    assert patient.findings() == []


@pytest.mark.parametrize(
    ("item", "family"),
    [(listener("0.0.0.0"), 6), (listener("::", v6_only=True), 4), (listener("10.1.0.10"), 6)],
)
def test_a_published_service_of_one_family(item, family) -> None:
    (finding,) = served(item).findings()
    assert (finding.cause, finding.subject, finding.level) == ("wrong-family", "web/front", "warning")
    assert f"over IPv{family}" in finding.message
    assert ("AAAA" in finding.message) is (family == 6)


def test_an_unpublished_service_of_one_family_is_a_note() -> None:
    patient = Patient().inside(API, listeners=(listener("0.0.0.0", 9000),))
    assert patient.told("wrong-family") == [("api/front", "note"), ("api/back", "note")]


def test_a_socket_for_both_families() -> None:
    assert served(listener("::")).findings() == []


@pytest.mark.parametrize("item", [listener("127.0.0.1", 9000), listener("0.0.0.0", 9000, proto="udp")])
def test_what_no_name_leads_to_is_of_no_family(item) -> None:
    assert Patient().inside(API, listeners=(item,)).findings() == []


def test_on_a_network_of_one_family_there_is_no_wrong_one() -> None:
    plain = Patient().town
    patient = Patient(back={"subnets": plain.back.subnets[:1]})
    assert patient.inside(DB, listeners=(listener("0.0.0.0", 5432),)).findings("wrong-family") == []


@pytest.mark.parametrize(("waiting", "found"), [(127, 0), (128, 0), (129, 1)])
def test_connections_that_wait(waiting, found) -> None:
    full = listener("::", 9000, waiting=waiting, backlog=128)
    assert Patient().inside(DB, listeners=(full,)).told("backlog-full") == [("db", "error")] * found
