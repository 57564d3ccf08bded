"""`sealane check`: what it asks, prints, and ends with."""

import json

import msgspec
import pytest

from sealane.wire.diagnosis import CheckFinding, CheckView

LOST = CheckFinding(
    source="web",
    target="db",
    probe="10.1.0.3:5432/tcp",
    predicted=True,
    reason="delivered to db as 10.1.0.2:40000 → 10.1.0.3:5432 tcp",
    observed=False,
    observation="no answer within 0.5 s",
    agrees=False,
)
SILENT = msgspec.structs.replace(
    LOST, probe="10.1.0.3:53/udp", predicted=None, reason="no such set", observed=None, agrees=None
)


def view(disagree=0, unknown=0, findings=(), columns=("db", "web")):
    return CheckView(
        rows=["host", "db", "web"],
        columns=list(columns),
        matrix=[
            "✓ ".ljust(len(columns)),
            " ·".ljust(len(columns)),
            ("!" if disagree else "✓").ljust(len(columns)),
        ],
        pairs=3,
        agree=3 - disagree,
        disagree=disagree,
        unknown=unknown,
        findings=list(findings),
    )


def test_the_question_goes_as_it_is_typed(cli, api):
    cli("check", "web", "db", "--proto", "udp", "--port", "53", "--timeout", "1.5")
    (request,) = api.services.checks
    assert (request.source, request.target, request.proto) == ("web", "db", "udp")
    assert (request.port, request.timeout) == (53, 1.5)


def test_without_names_everybody_is_meant(cli, api):
    assert cli("check").out == "0 pairs: 0 probes as predicted, 0 not\n"
    (request,) = api.services.checks
    assert (request.source, request.target, request.proto, request.port) == ("", "", "tcp", 0)
    assert request.timeout == 0.5


def test_the_matrix_has_a_row_for_each_sender(cli, api):
    api.services.checked = view()
    assert cli("check").out == (
        "FROM   db   web\n"
        "host   ✓\n"
        "db          ·\n"
        "web    ✓\n"
        "3 pairs: 3 probes as predicted, 0 not\n"
    )  # fmt: skip


def test_a_disagreement_is_told_with_the_predictions_reason(cli, api):
    api.services.checked = view(1, 1, [LOST, SILENT])
    assert cli("check").out == (
        "FROM   db   web\n"
        "host   ✓\n"
        "db          ·\n"
        "web    !\n"
        "! web → db 10.1.0.3:5432/tcp: predicted reached (delivered to db as 10.1.0.2:40000 → 10.1.0.3:5432 tcp); "
        "observed: no answer within 0.5 s\n"
        "? web → db 10.1.0.3:53/udp: predicted unknown (no such set); observed: no answer within 0.5 s\n"
        "3 pairs: 2 probes as predicted, 1 not, 1 cannot be said\n"
    )


def test_columns_that_do_not_fit_are_numbered(cli, api):
    names = [f"sandbox-{number}" for number in range(1, 8)]
    api.services.checked = view(columns=names)
    lines = cli("check").out.splitlines()
    assert lines[:2] == ["1 = sandbox-1", "2 = sandbox-2"]
    assert lines[7] == "FROM   1   2   3   4   5   6   7"


def test_what_is_left_out_is_counted(cli, api):
    api.services.checked = view(disagree=3, findings=[LOST])
    assert "… and 2 more\n" in cli("check").out


@pytest.mark.parametrize(("disagree", "unknown", "code"), [(0, 0, 0), (1, 0, 1), (0, 1, 2), (1, 1, 1)])
def test_the_exit_code_says_whether_all_is_as_predicted(cli, api, disagree, unknown, code):
    api.services.checked = view(disagree, unknown)
    assert cli("check").code == code


@pytest.mark.parametrize(("source", "code"), [("nobody", 2), ("broken", 1)])
def test_what_cannot_be_asked_is_no_disagreement(cli, source, code):
    ran = cli("check", source)
    assert (ran.code, ran.out) == (code, "")


def test_json_is_the_view(cli, api):
    api.services.checked = view(1, 0, [LOST])
    document = json.loads(cli("check", "--json").out)
    assert document["matrix"] == ["✓ ", " ·", "! "]
    assert document["findings"][0]["reason"].startswith("delivered to db")


def test_what_there_is_one_of_is_told_so(cli, api):
    api.services.checked = msgspec.structs.replace(api.services.checked, pairs=1, agree=1)
    assert cli("check").out.splitlines()[-1] == "1 pair: 1 probe as predicted, 0 not"
