"""While the store is locked or lost: reads are refused where nothing is known, and come with a notice where not all is."""

import pytest

from sealane.api.routes import Routes
from sealane.cli.main import main
from sealane.client import ApiError, Client
from sealane.engine.errors import ReadOnlyError
from sealane.engine.notices import notice
from unit.api.doubles import DoubleServices, ServerThread

LOCKED = "the store is locked: another process has it"


@pytest.fixture
def served(tmp_path):
    with ServerThread(tmp_path / "s.sock") as server:
        yield server


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/v1/networks"), ("GET", "/v1/sandboxes"), ("GET", "/v1/networks/front"), ("GET", "/v1/audit"),
     ("POST", "/v1/explain"), ("POST", "/v1/doctor"), ("GET", "/v1/endpoints"), ("GET", "/v1/containers")],
)  # fmt: skip
def test_a_blind_daemon_says_so_and_nothing_else(method: str, path: str) -> None:
    services = DoubleServices()
    services.engine.is_blind, services.engine.hold = True, LOCKED
    with pytest.raises(ReadOnlyError, match=LOCKED) as refused:
        Routes(services).find(method, path)
    assert "sealane status" in refused.value.hint
    assert "keep running" in refused.value.hint


@pytest.mark.parametrize("path", ["/v1/status", "/v1/version", "/v1/events?follow=1"])
def test_of_itself_it_speaks(path: str) -> None:
    services = DoubleServices()
    services.engine.is_blind = True
    Routes(services).find("GET", path)


def test_a_notice_goes_with_each_answer_to_a_question(served) -> None:
    served.services.engine.reconciler.orphans = ["a", "b", "c"]
    with Client(served.path) as client:
        heard = []
        client.on_notice = heard.append
        client.request("GET", "/v1/networks")
        client.request("GET", "/v1/networks")
        assert (heard, client.notice) == (["the store is incomplete: it lacks 3 live endpoints"],) * 1 + (
            heard[0],
        )


def test_what_changes_something_has_none(served) -> None:
    served.services.engine.reconciler.orphans = ["a"]
    with Client(served.path) as client:
        client.request("POST", "/v1/networks", {"name": "front"})
        assert client.notice == ""


def test_a_refusal_has_it_too(served) -> None:
    served.services.engine.reconciler.orphans = ["a"]
    with Client(served.path) as client:
        with pytest.raises(ApiError):
            client.request("GET", "/v1/networks/nothing")


def test_the_command_line_says_it_first_and_does_not_end_with_0(served, capsys) -> None:
    served.services.engine.reconciler.orphans = ["a", "b", "c"]
    code = main(["--socket", served.path, "network", "ls"])
    heard = capsys.readouterr()
    assert code == 1
    assert heard.err == "warning: the store is incomplete: it lacks 3 live endpoints; see `sealane status`\n"


def test_without_one_nothing_is_said(served, capsys) -> None:
    assert main(["--socket", served.path, "network", "ls"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("hold", "missing", "expected"),
    [
        ("", [], ""),
        (LOCKED, [], f"the daemon is read-only: {LOCKED}"),
        ("", ["sle1", "sle2"], "the store is incomplete: it lacks 2 live endpoints"),
    ],
)
def test_what_there_is_to_say(hold: str, missing: list[str], expected: str) -> None:
    engine = DoubleServices().engine
    engine.hold, engine.reconciler.orphans = hold, missing
    assert notice(engine) == expected
