"""Which packets `check` sends, what is predicted of them, and what counts as agreement."""

import msgspec
import pytest

from sealane.explain import checking
from sealane.explain.checking import Observation, Prediction, agrees, matrix, predict, schedule
from sealane.explain.question import QuestionError
from sealane.kernel.state import HOST
from sealane.model.endpoint import PublishedPort
from unit.explain.worlds import HOST_ADDRESS, Town

REACHED = Observation(reached=True, text="connected")
LOST = Observation(reached=False, text="no answer", is_silence=True)
SILENT = Observation(None, "no answer", is_silence=True)
FAILED = Observation(None, "too many open files")


def plan(source: str = "", target: str = "", proto: str = "tcp", port: int = 0, town: Town | None = None):
    return schedule((town or Town()).intent, source, target, proto, port)  # type: ignore[arg-type]


def targets(*words: object, **more: object) -> list[str]:
    return [probe.target for probe in plan(*words, **more).probes]  # type: ignore[arg-type]


def test_everybody_talks_to_everybody_and_the_host_to_what_is_published() -> None:
    found = plan()
    assert (found.rows, found.columns) == ((HOST, "api", "db", "web"), ("api", "db", "web"))
    pairs = {(found.rows[p.row], found.columns[p.column]) for p in found.probes}
    names = ("api", "db", "web")
    assert pairs == {(HOST, "web")} | {(a, b) for a in names for b in names if a != b}


def test_a_probe_goes_to_each_address_of_its_target() -> None:
    assert targets("web", "api") == [
        "10.1.0.11:9/tcp", "[fd00:1::11]:9/tcp", "10.2.0.11:9/tcp", "[fd00:2::11]:9/tcp",
    ]  # fmt: skip
    assert targets("web", "api/back", "icmp") == ["10.2.0.11 icmp", "fd00:2::11 icmp"]


def test_the_port_is_one_that_is_published_else_a_closed_one() -> None:
    assert targets("api", "web") == ["10.1.0.10:80/tcp", "[fd00:1::10]:80/tcp"]
    assert targets("api", "web", "udp") == ["10.1.0.10:9/udp", "[fd00:1::10]:9/udp"]
    assert targets("api", "web", "tcp", 443) == ["10.1.0.10:443/tcp", "[fd00:1::10]:443/tcp"]


def test_the_host_asks_by_published_ports() -> None:
    assert targets(HOST, "web") == ["127.0.0.1:8080/tcp", "[::1]:8080/tcp"]
    ranged = PublishedPort(host_first=9000, host_last=9009, port=100, host_address=HOST_ADDRESS[4])  # type: ignore[arg-type]
    town = Town(ports=(ranged,))
    assert targets(HOST, "web", "tcp", 107, town=town) == ["192.0.2.7:9007/tcp"]
    assert targets(HOST, "web", town=town) == ["192.0.2.7:9000/tcp"]


def test_a_bound_sender_sends_from_its_endpoint() -> None:
    assert [p.source for p in plan("api/back", "db").probes] == ["10.2.0.11", "fd00:2::11"]
    assert [p.source for p in plan("api", "db").probes] == ["", ""]


@pytest.mark.parametrize(
    "words", [("nobody", "web"), ("web", "nobody"), ("web", HOST), (HOST, "db"), (HOST, "web", "udp")]
)
def test_what_there_is_not_is_refused(words: tuple[str, ...]) -> None:
    with pytest.raises(QuestionError):
        plan(*words)


@pytest.mark.parametrize("bound", ["PAIRS_MAX", "PROBES_MAX"])
def test_the_number_of_probes_is_bounded(monkeypatch: pytest.MonkeyPatch, bound: str) -> None:
    count = {"PAIRS_MAX": 9, "PROBES_MAX": len(plan().probes)}[bound]
    monkeypatch.setattr(checking, bound, count)
    plan()
    monkeypatch.setattr(checking, bound, count - 1)
    with pytest.raises(QuestionError, match="name a source or a target"):
        plan()


def predicted(source: str, target: str, town: Town | None = None) -> set[bool | None]:
    town = town or Town()
    return {predict(town.world, probe).reaches for probe in plan(source, target, town=town).probes}


def test_a_prediction_is_what_explain_says() -> None:
    assert predicted("api", "web") == {True}
    assert predicted("db", "web") == {False}
    assert predicted(HOST, "web") == {True}
    assert predicted("api", "web", Town(front={"icc": False})) == {False}


def test_a_question_whose_answer_is_lost_is_not_answered() -> None:
    town = Town()
    probe = plan("api", "web", town=town).probes[0]
    town.change("sandbox-web", ("link", "eth0"), mac="02:00:00:00:00:99")
    found = predict(town.world, probe)
    assert found.reaches is False
    assert found.reason


def test_what_cannot_be_explained_is_no_prediction() -> None:
    probe = msgspec.structs.replace(plan("api", "web").probes[0], address="224.0.0.1")
    found = predict(Town().world, probe)
    assert found.reaches is None
    assert "multicast" in found.reason


@pytest.mark.parametrize(
    ("reaches", "observed", "expected"),
    [
        (True, REACHED, True),
        (True, LOST, False),
        (False, LOST, True),
        (False, REACHED, False),
        (True, SILENT, None),
        (False, SILENT, True),
        (False, FAILED, None),
        (True, FAILED, None),
        (None, REACHED, None),
    ],
)
def test_agreement(reaches: bool | None, observed: Observation, expected: bool | None) -> None:
    assert agrees(Prediction(reaches, ""), observed) is expected


@pytest.mark.parametrize(
    ("seen", "cell"),
    [
        ([REACHED, REACHED], "✓"),
        ([LOST, LOST], "·"),
        ([REACHED, LOST], "✓"),
        ([REACHED, FAILED], "?"),
    ],
)
def test_a_cell_tells_the_worst_of_its_probes_else_whether_any_address_was_reached(seen, cell) -> None:
    found = plan("api", "web")
    predictions = [Prediction(bool(observed.reached), "") for observed in seen]
    assert matrix(found, predictions, seen) == [cell]


def test_a_cell_with_a_disagreement_is_marked_whatever_else_is_in_it() -> None:
    predictions = [Prediction(None, ""), Prediction(True, "")]
    assert matrix(plan("api", "web"), predictions, [REACHED, LOST]) == ["!"]


def test_nothing_is_sent_from_a_sandbox_to_itself() -> None:
    found = plan()
    predictions = [Prediction(False, "")] * len(found.probes)
    lines = matrix(found, predictions, [LOST] * len(found.probes))
    assert lines == ["  ·", " ··", "· ·", "·· "]
