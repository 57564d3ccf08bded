"""`sealane doctor`: what it asks, prints, and ends with."""

import json

import pytest

from sealane.wire.diagnosis import DoctorCheck, DoctorFinding, DoctorView

LOST = DoctorFinding(
    cause="mtu-black-hole", subject="web/front", message="its link is larger", hint="ip link set", level="error"
)  # fmt: skip
NOTE = DoctorFinding(
    cause="legacy-iptables", subject="host", message="it is in use", hint="move it", level="note"
)


def view(*findings, found=None, unseen=None, untold=0):
    names = ["mtu-black-hole", "legacy-iptables", "bridge-full"]
    return DoctorView(
        findings=list(findings),
        found=sum(f.level != "note" for f in findings) if found is None else found,
        checks=[
            DoctorCheck(
                cause=name,
                looks_at=f"what {name} looks at",
                findings=sum(f.cause == name for f in findings) + (untold if name == "bridge-full" else 0),
                unseen=["links"] if unseen and name == "bridge-full" else [],
            )
            for name in names
        ],
        unseen=unseen or {},
        sandboxes=1,
    )


def test_the_subjects_go_as_they_are_typed(cli, api):
    cli("doctor", "web", "host")
    assert [request.subjects for request in api.services.doctors] == [["web", "host"]]


def test_without_subjects_everything_is_meant(cli, api):
    cli("doctor")
    assert api.services.doctors[0].subjects == []


def test_findings_first_each_with_its_hint(cli, api):
    api.services.doctored = view(LOST, NOTE)
    assert cli("doctor").out == (
        "✗ mtu-black-hole: web/front: its link is larger\n"
        "  → ip link set\n"
        "· legacy-iptables: host: it is in use\n"
        "  → move it\n"
        "3 checks run on the host and in 1 sandbox: 1 fine, 1 finding, 1 note\n"
    )


def test_all_lists_what_was_fine_too(cli, api):
    api.services.doctored = view(LOST)
    assert cli("doctor", "--all").out.splitlines()[2:] == [
        "✓ legacy-iptables: what legacy-iptables looks at",
        "✓ bridge-full: what bridge-full looks at",
        "3 checks run on the host and in 1 sandbox: 2 fine, 1 finding",
    ]


def test_what_could_not_be_looked_at_is_not_fine(cli, api):
    api.services.doctored = view(unseen={"links": "no permission"})
    assert cli("doctor", "--all").out == (
        "? links: not checked: no permission\n"
        "✓ mtu-black-hole: what mtu-black-hole looks at\n"
        "✓ legacy-iptables: what legacy-iptables looks at\n"
        "? bridge-full: not all seen: links\n"
        "3 checks run on the host and in 1 sandbox: 2 fine, 0 findings\n"
    )


def test_what_is_left_out_is_counted(cli, api):
    api.services.doctored = view(LOST, found=4, untold=3)
    assert "… and 3 more\n" in cli("doctor").out


@pytest.mark.parametrize(
    ("findings", "unseen", "code"),
    [((), None, 0), ((NOTE,), None, 0), ((LOST,), None, 1), ((), {"x": "y"}, 2), ((LOST,), {"x": "y"}, 1)],
)
def test_the_exit_code_says_how_it_went(cli, api, findings, unseen, code):
    api.services.doctored = view(*findings, unseen=unseen)
    assert cli("doctor").code == code


def test_a_subject_that_there_is_not(cli):
    ran = cli("doctor", "nobody")
    assert (ran.code, ran.out) == (2, "")


def test_json_is_the_view(cli, api):
    api.services.doctored = view(LOST)
    assert json.loads(cli("doctor", "--json").out)["findings"][0]["hint"] == "ip link set"
