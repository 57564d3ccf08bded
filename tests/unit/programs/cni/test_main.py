"""The executable as a process: what it prints, what it exits with, what it imports, and what becomes of leases."""

import json
import os
import subprocess
import sys

import pytest

import sealane

SOURCE = os.path.dirname(os.path.dirname(sealane.__file__))
IMPORTS = {"_socket", "posix", "sys"}
CONFIG = {"cniVersion": "1.1.0", "name": "pods", "type": "sealane"}
RESULT = {
    "interfaces": [{"name": "sle0"}, {"name": "eth0", "sandbox": "/run/netns/a"}],
    "ips": [{"address": "10.1.0.2/24", "interface": 1}],
    "routes": [],
    "dns": {},
}
PROGRAM = f"import sys; sys.path.insert(0, {SOURCE!r}); from sealane.programs.cni.main import main; sys.exit(main(sys.argv[1]))"

# Says what it was asked, one verb a line, and answers as its file says.
IPAM = """#!/bin/sh
echo "$CNI_COMMAND $CNI_CONTAINERID" >>"{log}"
cat >/dev/null
[ -e "{directory}/$CNI_COMMAND.json" ] && cat "{directory}/$CNI_COMMAND.json"
[ -e "{directory}/$CNI_COMMAND.once" ] && {{ cat "{directory}/$CNI_COMMAND.once"; rm "{directory}/$CNI_COMMAND.once"; exit 1; }}
[ ! -e "{directory}/$CNI_COMMAND.fails" ]
"""


@pytest.fixture
def plugin(tmp_path):
    """The executable, with an IPAM plugin `fake` beside it."""
    log = tmp_path / "log"
    fake = tmp_path / "fake"
    fake.write_text(IPAM.format(log=log, directory=tmp_path))
    fake.chmod(0o755)
    log.touch()

    def call(verb, config=CONFIG, program=(sys.executable, "-I", "-S", "-c", PROGRAM), **environ):
        given = {
            "CNI_COMMAND": verb,
            "CNI_PATH": str(tmp_path),
            "CNI_CONTAINERID": "c1",
            "CNI_IFNAME": "eth0",
            "CNI_NETNS": "/run/netns/a",
            "PATH": os.environ["PATH"],
            **environ,
        }
        stdin = config if isinstance(config, bytes) else json.dumps(config).encode()
        done = subprocess.run(
            [*program, str(tmp_path / "s.sock")],
            input=stdin,
            env={key: value for key, value in given.items() if value is not None},
            capture_output=True,
            timeout=100,
            check=False,
        )
        done.answer = json.loads(done.stdout) if done.stdout else None
        return done

    call.log = lambda: log.read_text().split("\n")[:-1]
    return call


def attached(request):
    return 200, {"result": RESULT if request["verb"] == "ADD" else None}


DELEGATED = {**CONFIG, "ipam": {"type": "fake", "subnet": "10.1.0.0/24"}}
LEASE = {"cniVersion": "1.1.0", "ips": [{"address": "10.1.0.2/24", "gateway": "10.1.0.1"}]}


def test_nothing_is_imported_but_c_modules():
    found = subprocess.run(
        [
            sys.executable,
            "-I",
            "-S",
            "-c",
            f"import sys; before = set(sys.modules); {PROGRAM.partition('; ')[2].rpartition(';')[0]}; print(*(set(sys.modules) - before))",
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert {name for name in found if not name.startswith("sealane")} <= IMPORTS


@pytest.mark.parametrize("command", [None, ""])
def test_without_a_command_it_says_what_it_is(plugin, command):
    """The reference library makes no difference between none and an empty one (pkg/skel, pluginMain)."""
    done = plugin(command)
    assert (done.returncode, done.stdout) == (0, b"")
    assert b"1.1.0" in done.stderr


@pytest.mark.parametrize("stdin", [b"", b"garbage", b'{"cniVersion": "0.4.0"}'])
def test_version_is_told_whatever_is_on_the_input(plugin, stdin):
    done = plugin("VERSION", stdin, CNI_NETNS="dummy", CNI_IFNAME="dummy", CNI_PATH="dummy")
    assert done.returncode == 0
    assert done.answer["supportedVersions"][0] == "0.1.0"
    assert done.answer["supportedVersions"][-1] == "1.1.0"
    assert done.answer["cniVersion"] == ("0.4.0" if b"0.4.0" in stdin else "1.1.0")


def test_add_prints_the_result_in_the_version_asked_for_and_asks_once(plugin, daemon):
    asked = daemon(attached)
    done = plugin("ADD", {**CONFIG, "cniVersion": "0.4.0"})
    assert done.returncode == 0
    assert done.answer["ips"] == [{"version": "4", "address": "10.1.0.2/24", "interface": 1}]
    assert len(asked.asked) == 1


@pytest.mark.parametrize("verb", ["DEL", "CHECK", "GC", "STATUS"])
def test_the_others_print_nothing(plugin, daemon, verb):
    daemon(attached)
    done = plugin(verb, {**CONFIG, "cni.dev/valid-attachments": []})
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_an_error_goes_to_the_output_as_json_of_the_version_asked_for(plugin, daemon):
    daemon(
        lambda _: (
            409,
            {"error": {"code": "conflict", "message": "taken", "field": "publish[0]", "hint": "other"}},
        )
    )
    done = plugin("ADD", {**CONFIG, "cniVersion": "0.4.0"})
    assert done.returncode == 1
    assert done.answer == {"cniVersion": "0.4.0", "code": 100, "msg": "publish[0]: taken", "details": "other"}


@pytest.mark.parametrize(
    ("verb", "code"), [("ADD", 11), ("DEL", 11), ("CHECK", 11), ("GC", 11), ("STATUS", 50)]
)
def test_without_a_daemon_each_verb_says_so_at_once(plugin, verb, code):
    done = plugin(verb)
    assert (done.returncode, done.answer["code"]) == (1, code)
    assert "no sealane daemon at" in done.answer["msg"]
    assert "sealane daemon" in done.answer["details"]


@pytest.mark.parametrize("code", ["unavailable", "full", "invalid"])
def test_status_is_50_for_whatever_would_fail_an_add(plugin, daemon, code):
    daemon(lambda _: (503, {"error": {"code": code, "message": "no"}}))
    assert plugin("STATUS").answer["code"] == 50


def test_a_daemon_that_hangs_up_is_tried_again_later(plugin, daemon):
    daemon(lambda _: None)
    assert plugin("ADD").answer["code"] == 11


def test_the_socket_of_the_environment_goes_before(plugin, daemon, tmp_path):
    assert str(tmp_path / "other") in plugin("ADD", SEALANE_SOCKET=str(tmp_path / "other")).answer["msg"]


def test_after_another_plugin_its_result_stays(plugin, daemon):
    daemon(attached)
    before = {"cniVersion": "1.1.0", "interfaces": [{"name": "lo", "sandbox": "/run/netns/a"}]}
    done = plugin("ADD", {**CONFIG, "prevResult": before})
    assert [i["name"] for i in done.answer["interfaces"]] == ["lo", "sle0", "eth0"]
    assert done.answer["ips"][0]["interface"] == 2


def nobody(_):
    raise AssertionError("it was handed over")


class TestHandedOver:
    """What nearly every call is."""

    def test_it_comes_as_the_runtime_made_it(self, plugin, daemon):
        came = []

        def handed(call):
            came.append(call)
            return 200, RESULT

        daemon(nobody, handed)
        assert plugin("ADD", CNI_ARGS="IP=10.1.0.2").answer == RESULT
        environ, _, stdin = came[0].partition(b"\0\0")
        assert set(environ.split(b"\0")) >= {b"CNI_COMMAND=ADD", b"CNI_ARGS=IP=10.1.0.2", b"CNI_IFNAME=eth0"}
        assert not any(entry.startswith(b"PATH=") for entry in environ.split(b"\0"))
        assert json.loads(stdin) == CONFIG
        assert len(came) == 1

    def test_nothing_is_printed_where_there_is_no_result(self, plugin, daemon):
        daemon(nobody, lambda _: (200, None))
        done = plugin("DEL")
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")

    @pytest.mark.parametrize("verb", ["CHECK", "GC", "STATUS", "VERSION"])
    def test_add_and_del_alone_are(self, plugin, daemon, verb):
        daemon(attached, nobody)
        assert plugin(verb, {**CONFIG, "cni.dev/valid-attachments": []}).returncode == 0

    def test_what_does_not_go_well_is_done_again_here(self, plugin, daemon):
        asked = daemon(attached, lambda _: (400, {"error": {"code": "invalid", "message": "no"}}))
        assert plugin("ADD").answer["ips"] == RESULT["ips"]
        assert [request["verb"] for request in asked.asked] == ["ADD"]

    @pytest.mark.parametrize("verb", ["ADD", "STATUS"])
    def test_an_input_that_cannot_be_read_is_told_in_json(self, plugin, daemon, verb):
        daemon(attached, lambda _: (200, RESULT))
        closed = ("sh", "-c", 'exec "$@" <&-', "sh", sys.executable, "-I", "-S", "-c", PROGRAM)
        done = plugin(verb, program=closed)
        assert (done.returncode, done.answer["code"], done.stderr) == (1, 103, b"")
        assert "Bad file descriptor" in done.answer["msg"]

    @pytest.mark.parametrize("verb", ["ADD", "DEL"])
    def test_what_may_have_been_done_is_not(self, plugin, daemon, verb):
        asked = daemon(attached, lambda _: None)
        done = plugin(verb)
        assert (done.returncode, done.answer["code"]) == (1, 11)
        assert "lost" in done.answer["msg"] or "hung up" in done.answer["msg"]
        assert asked.asked == []

    def test_the_ipam_plugin_is_run_and_the_daemon_told(self, plugin, daemon, tmp_path):
        came = []

        def handed(call):
            came.append(call)
            return 200, "fake" if len(came) == 1 else RESULT

        daemon(nobody, handed)
        (tmp_path / "ADD.json").write_text(json.dumps(LEASE))
        assert plugin("ADD", DELEGATED).answer == RESULT
        assert plugin.log() == ["ADD c1"]
        assert came[1] == came[0] + b"\0" + json.dumps(LEASE).encode()

    def test_it_gives_its_lease_back_last(self, plugin, daemon):
        came = []
        daemon(nobody, lambda call: came.append(plugin.log()) or (200, "fake"))
        assert plugin("DEL", DELEGATED).returncode == 0
        assert came == [[]]
        assert plugin.log() == ["DEL c1"]

    @pytest.mark.parametrize("verb", ["ADD", "DEL"])
    def test_one_that_fails_is_asked_again_and_its_error_told(self, plugin, daemon, tmp_path, verb):
        daemon(lambda _: (200, {"result": None}), lambda _: (200, "fake"))
        (tmp_path / f"{verb}.json").write_text(json.dumps({"code": 123, "msg": "no address left"}))
        (tmp_path / f"{verb}.fails").touch()
        done = plugin(verb, DELEGATED)
        assert (done.answer["code"], done.answer["msg"]) == (123, "IPAM plugin fake: no address left")

    def test_one_that_is_not_there_is_named(self, plugin, daemon):
        daemon(lambda _: (200, {"result": None}), lambda _: (200, "nobody"))
        done = plugin("DEL", {**CONFIG, "ipam": {"type": "nobody"}})
        assert done.answer["code"] == 7
        assert "nobody" in done.answer["msg"]

    def test_a_lease_is_kept_if_the_daemon_may_have_attached(self, plugin, daemon, tmp_path):
        daemon(nobody, lambda call: None if call.endswith(b"}") and b"10.1.0.2" in call else (200, "fake"))
        (tmp_path / "ADD.json").write_text(json.dumps(LEASE))
        assert plugin("ADD", DELEGATED).answer["code"] == 11
        assert plugin.log() == ["ADD c1"]

    def test_a_lease_is_given_back_if_the_daemon_refuses(self, plugin, daemon, tmp_path):
        refusal = (409, {"error": {"code": "conflict", "message": "no"}})
        daemon(lambda _: refusal, lambda call: refusal if b"10.1.0.2" in call else (200, "fake"))
        (tmp_path / "ADD.json").write_text(json.dumps(LEASE))
        assert plugin("ADD", DELEGATED).answer["code"] == 100
        assert plugin.log()[-1] == "DEL c1"
        assert plugin.log().count("ADD c1") == plugin.log().count("DEL c1") + 1, "the second was the same"


class TestIpamOfSomebodyElse:
    def test_its_addresses_go_to_the_daemon(self, plugin, daemon, tmp_path):
        asked = daemon(attached)
        (tmp_path / "ADD.json").write_text(json.dumps(LEASE))
        assert plugin("ADD", DELEGATED).returncode == 0
        assert asked.asked[0]["leased"]["ips"][0]["address"] == "10.1.0.2/24"
        assert "ipam" not in asked.asked[0]["config"]
        assert plugin.log() == ["ADD c1"]

    def test_a_lease_is_given_back_if_the_daemon_refuses(self, plugin, daemon, tmp_path):
        daemon(lambda _: (409, {"error": {"code": "conflict", "message": "no"}}))
        (tmp_path / "ADD.json").write_text(json.dumps(LEASE))
        assert plugin("ADD", DELEGATED).answer["code"] == 100
        assert plugin.log() == ["ADD c1", "DEL c1"]

    def test_and_kept_if_the_daemon_may_have_attached(self, plugin, daemon, tmp_path):
        daemon(lambda _: None)
        (tmp_path / "ADD.json").write_text(json.dumps(LEASE))
        assert plugin("ADD", DELEGATED).answer["code"] == 11
        assert plugin.log() == ["ADD c1"]

    def test_without_a_daemon_nothing_stays_leased(self, plugin, tmp_path):
        (tmp_path / "ADD.json").write_text(json.dumps(LEASE))
        assert plugin("ADD", DELEGATED).answer["code"] == 11
        assert plugin.log() == ["ADD c1", "DEL c1"]

    def test_a_retry_is_answered_by_what_is_attached(self, plugin, daemon, tmp_path):
        """host-local refuses an address to an attachment that has one."""
        asked = daemon(attached)
        (tmp_path / "ADD.once").write_text(json.dumps({"code": 100, "msg": "duplicate allocation"}))
        done = plugin("ADD", DELEGATED)
        assert done.answer["ips"][0]["address"] == "10.1.0.2/24"
        assert asked.asked[0]["only_present"]
        assert plugin.log() == ["ADD c1"]

    def test_a_lease_of_a_dead_call_is_taken_anew(self, plugin, daemon, tmp_path):
        asked = daemon(lambda r: (200, {"result": None if r.get("only_present") else RESULT}))
        (tmp_path / "ADD.once").write_text(json.dumps({"code": 100, "msg": "duplicate allocation"}))
        second = tmp_path / "fake"
        second.write_text(
            second.read_text() + f"[ \"$CNI_COMMAND\" = ADD ] && printf %s '{json.dumps(LEASE)}'\n"
        )
        assert plugin("ADD", DELEGATED).returncode == 0
        assert plugin.log() == ["ADD c1", "DEL c1", "ADD c1"]
        assert len(asked.asked) == 2

    def test_its_error_is_told_with_its_code_and_it_is_asked_to_clean_up(self, plugin, daemon, tmp_path):
        daemon(lambda _: (200, {"result": None}))
        (tmp_path / "ADD.json").write_text(
            json.dumps({"code": 123, "msg": "no address left", "details": "d"})
        )
        (tmp_path / "ADD.fails").touch()
        done = plugin("ADD", DELEGATED)
        assert (done.answer["code"], done.answer["msg"]) == (123, "IPAM plugin fake: no address left")
        assert plugin.log() == ["ADD c1", "DEL c1", "ADD c1", "DEL c1"]

    def test_del_frees_the_lease_last(self, plugin, daemon):
        daemon(attached)
        assert plugin("DEL", DELEGATED).returncode == 0
        assert plugin.log() == ["DEL c1"]

    def test_an_address_in_use_stays_leased(self, plugin):
        assert plugin("DEL", DELEGATED).answer["code"] == 11
        assert plugin.log() == []

    def test_an_error_of_its_del_and_check_is_returned(self, plugin, daemon, tmp_path):
        daemon(attached)
        for verb in ("DEL", "CHECK"):
            (tmp_path / f"{verb}.fails").touch()
            done = plugin(verb, DELEGATED)
            assert (done.answer["code"], done.returncode) == (5, 1)

    @pytest.mark.parametrize("verb", ["GC", "STATUS"])
    def test_gc_and_status_are_passed_on(self, plugin, daemon, tmp_path, verb):
        daemon(attached)
        config = {**DELEGATED, "cni.dev/valid-attachments": []}
        assert plugin(verb, config).returncode == 0
        assert plugin.log() == [f"{verb} c1"]
        (tmp_path / f"{verb}.fails").touch()
        (tmp_path / f"{verb}.json").write_text(json.dumps({"code": 51, "msg": "broken"}))
        assert plugin(verb, config).answer["code"] == 51
        (tmp_path / f"{verb}.json").write_text(json.dumps({"code": 4, "msg": f"unknown CNI_COMMAND: {verb}"}))
        assert plugin(verb, config).returncode == 0, "a plugin of before 1.1.0"

    def test_gc_goes_on_past_a_failure_and_tells_all(self, plugin, daemon, tmp_path):
        daemon(lambda _: (500, {"error": {"code": "kernel", "message": "first"}}))
        (tmp_path / "GC.fails").touch()
        (tmp_path / "GC.json").write_text(json.dumps({"code": 7, "msg": "second"}))
        done = plugin("GC", DELEGATED)
        assert done.answer["code"] == 102
        assert "first" in done.answer["msg"]
        assert "second" in done.answer["msg"]

    def test_one_that_is_not_there_is_named(self, plugin, daemon):
        daemon(lambda _: (200, {"result": None}))
        done = plugin("ADD", {**CONFIG, "ipam": {"type": "nobody"}})
        assert done.answer["code"] == 7
        assert "nobody" in done.answer["msg"]

    def test_a_long_configuration_reaches_it_whole(self, plugin, daemon, tmp_path):
        daemon(attached)
        (tmp_path / "ADD.json").write_text(json.dumps(LEASE))
        long = {**DELEGATED, "ipam": {**DELEGATED["ipam"], "x": "y" * 500_000}}
        assert plugin("ADD", long).returncode == 0
