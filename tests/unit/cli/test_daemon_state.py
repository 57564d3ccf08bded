"""`status`, `events`, `gc`, `audit`."""

import json

import msgspec
import pytest

from sealane.compile.network import MTU_WITHOUT_UPLINK
from sealane.wire.views import AuditView
from unit.api.doubles import DoubleServices, DoubleUpkeep


def test_status_says_what_is_wrong_and_how_to_mend_it(cli):
    assert cli("status").out == (
        "sealane 0.1.0  ready\n"
        "  instance   default\n"
        "  objects    0 networks, 0 sandboxes, 0 endpoints, 0 containers\n"
        "  uplink     eth0, MTU 1500\n"
        "  store      sqlite:///var/lib/sealane/state.db, revision 7\n"
        "  loopback   program\n"
        "  repairs    0 objects put right\n"
        "  writes     42 kernel objects\n"
        "  since      2023-11-14 22:13:20\n"
        "  warning    sctp: the module is missing\n"
        "             hint: modprobe sctp\n"
    )
    assert json.loads(cli("status", "--json").out)["conditions"][0]["subject"] == "sctp"


def shown(cli, monkeypatch, **fields):
    """The lines of `status` by their label, of a daemon that answers these fields."""
    usual = DoubleServices.status
    monkeypatch.setattr(DoubleServices, "status", lambda self: msgspec.structs.replace(usual(self), **fields))
    lines = cli("status").out.splitlines()[1:]
    return {line[2:13].strip(): line[13:] for line in lines}


def test_a_host_without_an_uplink_is_told_with_the_mtu_that_is_used(cli, monkeypatch):
    facts = shown(cli, monkeypatch, uplink="", mtu=0)
    assert facts["uplink"] == f"none (MTU {MTU_WITHOUT_UPLINK} is used)"


def test_what_a_daemon_does_not_know_is_not_shown_as_nothing(cli, monkeypatch):
    """It has started and the store could not be read: there may be thousands of networks."""
    facts = shown(cli, monkeypatch, state="hold", revision=0, uplink="", mtu=0, instance="000000")
    assert (facts["instance"], facts["objects"], facts["uplink"]) == ("unknown", "unknown", "unknown")
    assert facts["store"].endswith(", revision unknown")


def test_nothing_is_shown_as_nothing_by_a_daemon_that_knows(cli, monkeypatch):
    facts = shown(cli, monkeypatch, revision=0)
    assert facts["objects"].startswith("0 networks")
    assert facts["store"].endswith(", revision 0")


def test_what_a_daemon_that_holds_has_read_is_shown(cli, monkeypatch):
    facts = shown(cli, monkeypatch, state="hold", networks=3)
    assert facts["objects"].startswith("3 networks")
    assert facts["store"].endswith(", revision 7")


def test_events_are_lines_with_a_number(cli, api):
    cli("network", "create", "front")
    cli("network", "rm", "front")
    first, second = cli("events").out.splitlines()
    assert first == f"     1  22:13:20.000  network.created     front  id={0:032x}"
    assert "network.removed" in second
    assert cli("events", "--since", "1").out == second + "\n"
    lines = cli("events", "--json", "--since", "1").out.splitlines()
    assert [json.loads(line)["kind"] for line in lines] == ["network.removed"]


def test_names_in_events_cannot_move_the_cursor(cli, api):
    api.services.engine.events.emit("x", "\x1b[2J\u202e", why="\r\n")
    assert cli("events").out.endswith("x                   \\x1b[2J\\u202e  why=\\r\\n\n")


def test_gc_tells_what_it_kept_and_how_to_delete_it(cli):
    ran = cli("gc")
    assert ran.out == "! link slp9 kept: not in the store\n"
    assert ran.err == "hint: if the store was lost, restore it from a backup and restart the daemon\n"
    assert cli("gc", "--confirm").out == "- sandbox old\n"
    assert json.loads(cli("gc", "--json").out)["kept"] == ["link slp9"]


@pytest.mark.parametrize("findings", [[], ["host: missing: link sl-0"]])
def test_an_audit_that_finds_something_is_1(cli, monkeypatch, findings):
    monkeypatch.setattr(DoubleUpkeep, "findings", findings)
    ran = cli("audit")
    assert ran.code == (1 if findings else 0)
    if findings:
        assert ran.out == "! host: missing: link sl-0\n1 finding in 12 kernel objects\n"
    else:
        assert ran.out == "clean: 12 kernel objects match\n"
    assert cli("audit", "--json").code == ran.code


def test_a_repair_is_shown_with_its_time(cli, api, monkeypatch):
    view = msgspec.structs.replace(api.services.status(), repairs=3, last_repair_ms=12.34)
    monkeypatch.setattr(api.services, "status", lambda: view)
    assert "3 objects put right, the last time in 12.3 ms" in cli("status").out


def test_what_there_is_one_of_is_told_so(cli, api):
    cli("network", "create", "front")
    cli("sandbox", "create", "lab")
    assert "objects    1 network, 1 sandbox, 0 endpoints, 0 containers\n" in cli("status").out
    api.services.resyncer.audit = lambda: AuditView(clean=True, findings=[], objects=1)
    assert cli("audit").out == "clean: 1 kernel object matches\n"
    api.services.resyncer.audit = lambda: AuditView(clean=False, findings=["a"], objects=1)
    assert cli("audit").out == "! a\n1 finding in 1 kernel object\n"
