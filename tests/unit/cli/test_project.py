"""`plan`, `apply`, `delete`, `up`, `down`: files in, requests out, progress for people."""

import io
import json
import os
import signal
import subprocess
import sys
import threading

import msgspec
import pytest

import sealane
from unit.api.doubles import until

SOURCE = os.path.dirname(os.path.dirname(sealane.__file__))
SHOP = """
services:
  web: {command: nginx, networks: [front], ports: ["8080:80"], volumes: ["./site:/site:ro"]}
  db: {command: postgres, networks: [front]}
networks: {front: {}}
"""
LAB = """
# A manifest: lists, as the API has them.
networks:
  - {name: lab, ipv6: true, labels: {n: "1", s: 'true'}}
attachments:
  - sandbox: /run/netns/lab
    network: lab
    publish: [{port: 80, host_first: 8080}]
"""


@pytest.fixture
def shop(tmp_path, monkeypatch):
    directory = tmp_path / "Shop"
    directory.mkdir()
    (directory / "compose.yaml").write_text(SHOP)
    monkeypatch.chdir(directory)
    for name in ("COMPOSE_PROJECT_NAME", "COMPOSE_FILE", "COMPOSE_PATH_SEPARATOR"):
        monkeypatch.delenv(name, raising=False)
    return directory


@pytest.fixture
def manifests(api):
    return api.services.project.manifests


def test_a_plan_is_shown_line_by_line_with_its_origin(cli, shop):
    ran = cli("plan", "-f", ".")
    assert ran.code == 0
    assert ran.out == (
        "host\n"
        "  + link sl-shop_front bridge  # network shop_front\n"
        "web\n"
        "  ~ address 10.0.0.2/24 eth0  # endpoint web\n"
        "1 to make, 1 to change, 0 to remove in the kernel; new: network shop_front\n"
    )
    ran = cli("plan", "--delete", "-f", "compose.yaml")
    assert ran.out.splitlines()[1:] == [
        "  - link sl-shop_front bridge  # network shop_front",
        "0 to make, 0 to change, 1 to remove in the kernel; gone: network shop_front",
    ]
    assert json.loads(cli("plan", "-f", ".", "--json").out)["lines"][0]["sign"] == "+"


def test_a_plan_of_nothing_says_so(cli, tmp_path):
    (tmp_path / "m.yaml").write_text("networks: []\n")
    assert cli("plan", "-f", str(tmp_path / "m.yaml")).out == "nothing to do\n"


def test_apply_and_delete_take_compose_files(cli, shop, manifests):
    assert cli("apply", "-f", "compose.yaml").out == (
        "+ network shop_front\n+ container shop-web-1\n+ container shop-db-1\n"
    )
    assert cli("apply", "-f", "compose.yaml").out == "= container shop-web-1\n= container shop-db-1\n"
    assert cli("delete", "-f", "compose.yaml").out == (
        "- container shop-web-1\n- container shop-db-1\n- network shop_front\n"
    )
    assert cli("delete", "-f", "compose.yaml").out == "nothing to do\n"
    assert {m.project for m in manifests} == {"shop"}


def test_apply_takes_manifests_in_yaml_and_json(cli, tmp_path, manifests):
    (tmp_path / "lab.yaml").write_text(LAB)
    assert cli("apply", "-f", str(tmp_path / "lab.yaml")).code == 0
    document = {
        "project": "p",
        "networks": [{"name": "lab", "ipv6": True, "labels": {"n": "1", "s": "true"}}],
    }
    (tmp_path / "lab.json").write_text(json.dumps(document))
    assert cli("apply", "--json", "-f", str(tmp_path / "lab.json")).code == 0
    first, second = manifests
    (lab,), (same,) = first.networks, second.networks
    assert (lab.ipv6, lab.labels) == (True, {"n": "1", "s": "true"})
    assert msgspec.structs.replace(lab, labels={**lab.labels, "sealane.project": "p"}) == same
    assert first.attachments[0].publish[0].host_first == 8080
    assert (first.project, second.project) == ("", "p")


@pytest.mark.parametrize("verb", ["up", "down", "plan", "apply", "delete"])
def test_a_second_file_is_refused_and_not_taken_for_the_first(cli, shop, manifests, verb):
    ran = cli(verb, "-f", "compose.yaml", "--file", "more.yaml")
    assert (ran.code, ran.out, manifests) == (2, "", [])
    assert ran.err == (
        "error: compose.yaml and more.yaml are two files\n"
        "field: --file\n"
        "hint: one file is the whole project: put the others' services into it\n"
    )


def test_compose_file_of_the_environment_is_the_file_unless_a_flag_names_one(
    cli, shop, manifests, monkeypatch
):
    (shop / "other.yaml").write_text("services: {solo: {command: x, networks: []}}")
    monkeypatch.setenv("COMPOSE_FILE", "other.yaml")
    assert cli("up", "-d").code == 0
    assert [each.name for each in manifests[-1].containers] == ["shop-solo-1"]
    assert cli("down").code == 0
    assert [each.name for each in manifests[-1].containers] == ["shop-solo-1"]
    assert cli("up", "-d", "-f", "compose.yaml").code == 0
    assert [each.name for each in manifests[-1].containers] == ["shop-web-1", "shop-db-1"]


def test_several_files_of_the_environment_are_refused(cli, shop, manifests, monkeypatch):
    monkeypatch.setenv("COMPOSE_FILE", "a.yaml:b.yaml")
    ran = cli("up", "-d")
    assert (ran.code, manifests) == (2, [])
    assert "error: a.yaml:b.yaml are several files\nfield: COMPOSE_FILE\nhint: one file is" in ran.err
    monkeypatch.setenv("COMPOSE_PATH_SEPARATOR", ";")
    assert "cannot be read" in cli("up", "-d").err
    monkeypatch.setenv("COMPOSE_FILE", "")
    assert cli("up", "-d").code == 0


@pytest.mark.parametrize("text", [SHOP, LAB])
def test_a_dash_is_stdin(cli, manifests, monkeypatch, shop, text):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    assert cli("apply", "-f", "-").code == 0
    assert manifests[0].project == ("shop" if text is SHOP else "")


@pytest.mark.parametrize(
    ("text", "field", "words"),
    [
        ("networks: [{name: a, drivr: b}]", "networks[0].drivr", "hint: write driver if that is meant"),
        ("networks: [{name: a}, {name: b, subnet: x}]", "networks[1].subnet", "hint: write subnets if"),
        ("{project: a, netwrks: [{name: a}]}", "netwrks", "hint: write networks if that is meant"),
        ("{networks: [{name: a}], attachment: []}", "attachment", "hint: write attachments if that is meant"),
        ("networks: [{name: [a]}]", "networks[0].name", "str"),
        ("networks: [{name: 1}]", "networks[0].name", "hint: write a text, in quotes"),
        ("networks: [{}]", "networks[0].name", "hint: add it"),
        (
            "attachments: [{sandbox: a, network: b, gateway_priority: high}]",
            "attachments[0].gateway_priority",
            "int",
        ),
        ("networks: [", "--file", "line 1"),
        ("networks: [*x]", "--file", "anchor"),
        ("a: !!python/object/apply:os.system [id]", "--file", "tag"),
    ],
)
def test_a_manifest_that_is_wrong_is_2_and_names_the_place(cli, tmp_path, manifests, text, field, words):
    (tmp_path / "m.yaml").write_text(text)
    ran = cli("apply", "-f", str(tmp_path / "m.yaml"))
    assert (ran.code, manifests) == (2, [])
    assert f"field: {field}\n" in ran.err
    assert words in ran.err
    assert "sealane.wire" not in ran.err


def test_all_problems_of_a_compose_file_are_listed_with_their_lines(cli, tmp_path, manifests):
    (tmp_path / "compose.yaml").write_text(
        "services:\n  a: {comand: x}\n  b: {command: y, privileged: true}\n"
    )
    for words in (("up", "-d"), ("apply",), ("plan",), ("down",)):
        ran = cli(*words, "-f", str(tmp_path / "compose.yaml"))
        assert (ran.code, manifests) == (2, [])
        assert ran.err.startswith(f"error: {tmp_path}/compose.yaml: ")
        assert "  line 2: services.a" in ran.err
        assert "  line 3: services.b" in ran.err
    ran = cli("up", "-d", "--json", "-f", str(tmp_path / "compose.yaml"))
    assert len(json.loads(ran.err)["problems"]) >= 2


@pytest.mark.parametrize("path", ["/nonexistent/compose.yaml", "/dev/null"])
def test_a_file_that_cannot_be_read_is_2(cli, path):
    assert cli("apply", "-f", path).code == 2
    assert cli("up", "-f", path).code == 2


def test_what_compose_can_say_and_we_cannot_is_2_with_its_place(cli, tmp_path):
    (tmp_path / "compose.yaml").write_text("services: {a: {command: x, tmpfs: '/x:ro'}}")
    ran = cli("up", "-d", "-f", str(tmp_path))
    assert (ran.code, "field: services.a.tmpfs\n" in ran.err) == (2, True)


def test_up_makes_everything_and_shows_it(cli, shop, manifests):
    ran = cli("up", "-d")
    assert ran.code == 0, ran.err
    lines = ran.out.splitlines()
    assert {line.split("  ")[0] for line in lines[:3]} == {
        " + network shop_front",
        " + container shop-web-1",
        " + container shop-db-1",
    }
    assert lines[3].split() == ["NAME", "STATUS", "ADDRESSES", "PORTS", "COMMAND"]
    assert [line.split()[0] for line in lines[4:]] == ["shop-db-1", "shop-web-1"]
    assert (shop / "site").is_dir()
    assert manifests[0].project == "shop"


def test_up_again_tells_what_was_there(cli, shop):
    cli("up", "-d")
    lines = cli("up", "-d").out.splitlines()
    assert lines[:2] == [" = container shop-web-1  unchanged", " = container shop-db-1  unchanged"]


def test_up_and_down_as_json_are_one_document(cli, shop):
    document = json.loads(cli("up", "-d", "--json").out)
    assert document["apply"]["created"][0] == "network shop_front"
    assert [c["name"] for c in document["containers"]] == ["shop-db-1", "shop-web-1"]
    assert "network shop_front" in json.loads(cli("down", "--json").out)["removed"]


def test_the_project_can_be_named(cli, shop, manifests):
    cli("up", "-d", "-p", "other")
    assert manifests[0].project == "other"
    assert manifests[0].networks[0].name == "other_front"


def test_down_removes_what_up_made_and_says_so(cli, shop, api):
    cli("up", "-d")
    ran = cli("down")
    assert ran.code == 0
    assert {line.split("  ")[0] for line in ran.out.splitlines()} == {
        " - container shop-web-1",
        " - container shop-db-1",
        " - network shop_front",
    }
    assert (api.services.workloads.all, api.services.engine.nets) == ({}, {})
    assert cli("down").out == "nothing to remove\n"


def test_down_by_name_needs_no_file(cli, manifests, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli("down", "-p", "gone").code == 0
    assert (manifests[0].project, manifests[0].containers) == ("gone", [])
    assert cli("down").code == 2


def test_warnings_of_the_file_go_to_stderr(cli, tmp_path):
    (tmp_path / "compose.yaml").write_text("version: '3'\nservices: {a: {command: x}}")
    ran = cli("up", "-d", "--json", "-f", str(tmp_path))
    assert ran.err.startswith("warning: line 1: version: ")
    json.loads(ran.out)


def test_a_folder_that_cannot_be_made_stops_before_the_daemon_is_asked(cli, tmp_path, manifests):
    (tmp_path / "compose.yaml").write_text("services: {a: {command: x, volumes: ['./compose.yaml/x:/x']}}")
    ran = cli("up", "-d", "-f", str(tmp_path))
    assert (ran.code, manifests) == (2, [])
    assert "field: volumes\n" in ran.err


def test_an_apply_that_fails_is_1_and_progress_ends(cli, shop, api):
    async def slow():
        raise RuntimeError("boom")

    api.services.project.slow = slow
    ran = cli("up", "-d")
    assert (ran.code, ran.out) == (1, "")
    until(lambda: not [c for c in api.server._connections if c.task])


def test_progress_comes_while_the_verb_is_at_work(api, shop):
    gate = threading.Event()

    async def slow():
        import asyncio

        api.services.engine.events.emit("network.created", "shop_front")
        api.services.engine.events.emit("network.created", "of_somebody_else")
        await asyncio.to_thread(gate.wait, 10)

    api.services.project.slow = slow
    command = [sys.executable, "-m", "sealane", "--socket", api.path, "up", "-d"]
    process = subprocess.Popen(command, env={"PYTHONPATH": SOURCE}, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == " + network shop_front  created\n"
    gate.set()
    rest, _ = process.communicate(timeout=100)
    assert "of_somebody_else" not in rest
    assert process.returncode == 0


def _attached(api):
    command = [sys.executable, "-m", "sealane", "--socket", api.path, "up"]
    process = subprocess.Popen(
        command, env={"PYTHONPATH": SOURCE}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    seen = []
    while sum("line 2" in line for line in seen) < 2:
        seen.append(process.stdout.readline())
        assert seen[-1], process.stderr.read()
    return process, seen


def test_up_in_the_foreground_follows_all_output_until_all_have_ended(api, shop):
    process, seen = _attached(api)
    assert "web-1 | line 0\n" in seen
    assert "db-1  | line 0\n" in seen
    for name, code in (("shop-web-1", 0), ("shop-db-1", 7)):
        api.call(api.services.workloads.finish, name, code)
    rest, notes = process.communicate(timeout=100)
    assert (process.returncode, rest.count("bye")) == (0, 2)
    assert sorted(notes.splitlines()) == ["shop-db-1 exited with code 7", "shop-web-1 exited with code 0"]


def test_ctrl_c_stops_the_containers(api, shop):
    process, _ = _attached(api)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=100)
    assert process.returncode == 130
    assert err == "stopping; Ctrl-C again leaves them running\n"
    assert {c.status for c in api.services.workloads.all.values()} == {"exited"}


def test_a_file_that_is_no_yaml_names_its_line_and_no_empty_place(cli, tmp_path):
    (tmp_path / "compose.yaml").write_text("services:\n  a: [\n")
    err = cli("up", "-d", "-f", str(tmp_path / "compose.yaml")).err
    assert "  line 3: not YAML: " in err
    assert ": : " not in err
