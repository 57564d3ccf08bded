"""`--filter` of `ps` and `network ls`, and `ps --last`."""

import json

import msgspec
import pytest


@pytest.fixture
def town(cli, api):
    """web and worker run, job has ended, sick runs and is not well."""
    for name, network, *labels in (
        ("web", "front", "tier=web", "team=a"),
        ("worker", "back", "tier=work", "team=a"),
        ("job", "back", "tier=work", "team=b"),
        ("sick", "front"),
    ):
        flags = [word for label in labels for word in ("--label", label)]
        assert cli("run", "-d", "--name", name, "--network", network, *flags, "x").code == 0
    workloads = api.services.workloads

    def change():
        for number, (name, view) in enumerate(workloads.all.items()):
            workloads.all[name] = msgspec.structs.replace(
                view, started_at=view.started_at + number, health="unhealthy" if name == "sick" else ""
            )
        workloads.finish("job", 0)

    api.call(change)
    for name, driver, label in (
        ("front", "bridge", "a=1"),
        ("back", "routed", "a=2"),
        ("far", "routed", "b"),
    ):
        assert cli("network", "create", "-d", driver, "--label", label, name).code == 0


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ((), "sick web worker"),
        (("--filter", "name=w"), "web worker"),
        (("-f", "name=^web$", "-f", "name=k$"), "sick web"),
        (("-a", "-f", "name=o"), "job worker"),
        (("-f", "status=exited"), "job"),
        (("-f", "status=exited", "-f", "status=running"), "job sick web worker"),
        (("-f", "network=back"), "worker"),
        (("-a", "-f", "network=back", "-f", "network=front"), "job sick web worker"),
        (("-f", "label=team"), "web worker"),
        (("-f", "label=team=a", "-f", "label=tier=web"), "web"),
        (("-f", "label=team=a", "-f", "label=team=b"), ""),
        (("-f", "label=tier=we"), ""),
        (("-f", "health=unhealthy"), "sick"),
        (("-f", "health=none"), "web worker"),
        (("-f", "health=none", "-f", "network=back", "-f", "name=w"), "worker"),
        (("-l",), "sick"),
        (("-n", "2"), "sick job"),
        (("--last", "9"), "sick job worker web"),
        (("-n", "1", "-f", "network=back"), "job"),
        (("-l", "-f", "name=we"), "web"),
    ],
)
def test_ps_lists_what_is_asked_for(cli, town, words, names):
    assert cli("ps", "-q", *words).out.split() == names.split()
    assert [view["name"] for view in json.loads(cli("ps", "--json", *words).out)] == names.split()


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (("--filter", "name=f"), "far front"),
        (("-f", "driver=routed"), "back far"),
        (("-f", "driver=routed", "-f", "driver=bridge"), "back far front"),
        (("-f", "label=a"), "back front"),
        (("-f", "label=a=2", "-f", "driver=routed"), "back"),
    ],
)
def test_network_ls_lists_what_is_asked_for(cli, town, words, names):
    assert cli("network", "ls", "-q", *words).out.split() == names.split()


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("ps", "-f", "ancestor=x"), "there is no filter 'ancestor': the keys are name, status, health, network, label"),
        (("ps", "-f", "web"), "there is no filter 'web': the keys are name, status, health, network, label"),
        (("ps", "-f", "name="), "'name=' has no value: write name=…"),
        (("ps", "-f", "status=paused"), "there is no status 'paused': write one of created, running, restarting, exited, dead"),
        (("ps", "-f", "health=fine"), "there is no health 'fine': write one of starting, healthy, unhealthy, none"),
        (("network", "ls", "-f", "scope=local"), "there is no filter 'scope': the keys are name, driver, label"),
        (("network", "ls", "-f", "driver=overlay"), "there is no driver 'overlay': write one of bridge, routed, host, none"),
    ],
)  # fmt: skip
def test_a_filter_that_is_none_says_which_there_are(cli, words, what):
    ran = cli(*words)
    assert (ran.code, f"error: {what}\nfield: --filter\n" in ran.err) == (2, True)


def test_a_name_that_is_no_pattern_is_refused(cli):
    ran = cli("ps", "-f", "name=web[")
    assert (ran.code, "error: 'web[' is no regular expression: " in ran.err) == (2, True)


def test_the_last_and_the_latest_are_one_question(cli):
    assert cli("ps", "-l", "-n", "2").code == 2
