"""Each path of sealane.wire's table reaches its verb and answers its record."""

import json
import re

import pytest

import sealane.wire
from sealane.api.routes import Routes
from unit.api.doubles import DoubleServices
from unit.api.raw import Raw, ask, get, post


def test_every_path_of_the_documented_table_has_a_route():
    routes = Routes(DoubleServices())
    rows = re.findall(r"^\| (GET|POST|GET, DELETE) (/v1[^|]*?) \|", sealane.wire.__doc__, re.MULTILINE)
    assert len(rows) > 20
    for methods, paths in rows:
        first, *more = (path.strip() for path in paths.split(","))
        parent = first.rpartition("/")[0]
        for path in [first, *(p if p.startswith("/v1") else parent + p for p in more)]:
            for method in methods.split(", "):
                route, call = routes.find(method, path.replace("REF", "web"))
                assert call.ref == ("web" if "REF" in path else "")


def test_a_network_is_made_listed_shown_and_removed(api):
    request = {"name": "front", "subnets": [{"prefix": "10.1.0.0/24"}], "labels": {"a": "b"}}
    status, made = ask(api.path, post("/v1/networks", request))
    assert (status, made["name"], made["subnets"][0]["prefix"]) == (200, "front", "10.1.0.0/24")
    assert ask(api.path, get("/v1/networks")) == (200, [made])
    assert ask(api.path, get("/v1/networks/front")) == (200, made)
    assert ask(api.path, get("/v1/networks/front", "DELETE")) == (200, made)
    assert ask(api.path, get("/v1/networks"))[1] == []


def test_force_reaches_the_verb(api):
    ask(api.path, post("/v1/networks", {"name": "n"}))
    ask(api.path, post("/v1/attach", {"sandbox": "web", "network": "n"}))
    status, body = ask(api.path, get("/v1/networks/n", "DELETE"))
    assert (status, body["error"]["code"]) == (409, "in_use")
    assert ask(api.path, get("/v1/networks/n?force=1", "DELETE"))[0] == 200


def test_prune_is_no_network_by_that_name(api):
    ask(api.path, post("/v1/networks", {"name": "n"}))
    assert ask(api.path, get("/v1/networks/prune", "POST", "Content-Length: 0\r\n")) == (
        200,
        {"removed": ["n"]},
    )


def test_images_are_fetched_line_by_line_listed_and_pruned(api):
    with Raw(api.path) as raw:
        raw.send(post("/v1/images", {"reference": "oci:/srv/web"}))
        status, _, body = raw.answer("POST")
    lines = [json.loads(line) for line in body.splitlines()]
    assert status == 200
    assert [bool(line["rootfs"]) for line in lines] == [False, False, True]
    assert ask(api.path, get("/v1/images"))[1] == [lines[-1]]
    with Raw(api.path) as raw:
        raw.send(post("/v1/images", {"reference": "oci:/srv/db:v1"}))
        raw.answer("POST")
    gone = ask(api.path, get("/v1/images/oci%3A%2Fsrv%2Fdb%3Av1", "DELETE"))
    assert (gone[0], gone[1]["reference"]) == (200, "oci:/srv/db:v1")
    assert ask(api.path, get("/v1/images/prune", "POST", "Content-Length: 0\r\n")) == (
        200,
        {"removed": ["oci:/srv/web"]},
    )
    assert ask(api.path, post("/v1/images", {"ref": "x"}))[0] == 400


def test_sandboxes_come_and_go(api):
    status, made = ask(api.path, post("/v1/sandboxes", {"name": "vm", "netns": "/run/netns/vm"}))
    assert (status, made["netns"]) == (200, "/run/netns/vm")
    assert ask(api.path, get("/v1/sandboxes/vm"))[1] == made
    assert ask(api.path, get("/v1/sandboxes/vm?force=0", "DELETE"))[1] == made
    assert ask(api.path, get("/v1/sandboxes"))[1] == []


@pytest.mark.parametrize("ref", ["web/n", "web%2Fn", "web"])
def test_an_endpoint_goes_by_its_name_or_by_sandbox_and_network(api, ref):
    ask(api.path, post("/v1/networks", {"name": "n"}))
    _, made = ask(api.path, post("/v1/attach", {"sandbox": "web", "network": "n"}))
    assert ask(api.path, get(f"/v1/endpoints/{ref}")) == (200, made)


def test_endpoints_are_chosen_by_network_and_sandbox(api):
    for name in ("a", "b"):
        ask(api.path, post("/v1/networks", {"name": name}))
        ask(api.path, post("/v1/attach", {"sandbox": "web", "network": name}))
    names = [e["network"] for e in ask(api.path, get("/v1/endpoints?network=b&sandbox=web"))[1]]
    assert names == ["b"]


@pytest.mark.parametrize(
    ("path", "key"), [("version", "api"), ("status", "revision"), ("audit", "findings"), ("containers", None)]
)
def test_what_only_reads(api, path, key):
    status, body = ask(api.path, get(f"/v1/{path}"))
    assert status == 200
    assert key is None or key in body


def test_gc_deletes_only_on_confirmation(api):
    nothing = "Content-Length: 0\r\n"
    assert ask(api.path, get("/v1/gc", "POST", nothing))[1] == {"removed": [], "kept": ["link slp9"]}
    assert ask(api.path, get("/v1/gc?confirm=1", "POST", nothing))[1]["removed"] == ["sandbox old"]


@pytest.mark.parametrize(
    ("path", "request_", "field"),
    [
        ("networks", {"name": "n"}, "labels"),
        ("sandboxes", {"name": "n"}, "labels"),
        ("attach", {"sandbox": "web", "network": "n"}, "labels"),
        ("plan", {"networks": [{"name": "n"}, {"name": "m"}]}, "networks[1].labels"),
        ("apply", {"attachments": [{"sandbox": "web", "network": "n"}]}, "attachments[0].labels"),
        ("delete", {"networks": [{"name": "n"}]}, "networks[0].labels"),
        ("containers", {"name": "web", "spec": {"command": ["x"]}}, "labels"),
    ],
)
@pytest.mark.parametrize("label", ["sealane.podman.network", "sealane.project", "sealane.container"])
def test_a_label_by_which_sealane_knows_its_own_is_refused(api, path, request_, field, label):
    forged = {label: "x"}
    labelled = [request_] if path not in {"plan", "apply", "delete"} else next(iter(request_.values()))
    labelled[-1]["labels"] = forged
    status, body = ask(api.path, post(f"/v1/{path}", request_))
    assert (status, body["error"]["field"]) == (400, field)
    assert label in body["error"]["message"]
    assert ask(api.path, get("/v1/networks")) == (200, [])


def test_manifests_are_planned_applied_and_deleted(api):
    manifest = {"project": "shop", "networks": [{"name": "shop_front"}]}
    plan = ask(api.path, post("/v1/plan", manifest))[1]
    assert [(line["sign"], line["origin"]) for line in plan["lines"]][0] == ("+", "network shop_front")
    assert ask(api.path, post("/v1/plan?delete=1", manifest))[1]["remove"] == ["network shop_front"]
    assert ask(api.path, post("/v1/apply", manifest))[1]["created"] == ["network shop_front"]
    assert ask(api.path, post("/v1/delete", manifest))[1]["removed"] == ["network shop_front"]


def test_a_container_lives_and_dies(api):
    request = {"name": "web", "spec": {"command": ["sleep", "9"]}, "attachments": [{"network": "n"}]}
    assert ask(api.path, post("/v1/containers", request))[1]["status"] == "running"
    assert bytes(api.services.workloads.requests["web"].spec) == b'{"command": ["sleep", "9"]}'
    nothing = "Content-Length: 0\r\n"
    assert ask(api.path, get("/v1/containers/web"))[1]["name"] == "web"
    assert ask(api.path, get("/v1/containers/web", "DELETE"))[0] == 409
    assert ask(api.path, get("/v1/containers/web/stop?timeout=0", "POST", nothing))[1]["exit_code"] == 137
    assert ask(api.path, get("/v1/containers/web/wait", "POST", nothing))[1]["exit_code"] == 137
    assert ask(api.path, get("/v1/containers/web/kill?signal=9", "POST", nothing))[1]["exit_code"] == 137
    assert api.services.workloads.signals == [("web", 9)]
    assert ask(api.path, get("/v1/containers"))[1] == []
    assert len(ask(api.path, get("/v1/containers?all=1"))[1]) == 1
    assert ask(api.path, get("/v1/containers/web?force=1", "DELETE"))[0] == 200


def test_a_signal_that_does_not_exist_is_refused(api):
    status, body = ask(api.path, get("/v1/containers/web/kill?signal=65", "POST", "Content-Length: 0\r\n"))
    assert (status, body["error"]["field"]) == (400, "signal")


@pytest.mark.parametrize(
    ("target", "field"),
    [
        ("/v1/networks?x=1", "query"),
        ("/v1/networks/n?force=maybe", "force"),
        ("/v1/events?since=-1", "since"),
        ("/v1/events?since=%D9%A1", "since"),
        ("/v1/events?since=1&since=2", "since"),
        ("/v1/events?since=1234567890123456789", "since"),
        ("/v1/containers/web/logs?since=nan", "since"),
        ("/v1/containers/web/logs?tail=1.5", "tail"),
        ("/v1/networks/%ff", "path"),
    ],
)
def test_a_parameter_that_is_wrong_is_named(api, target, field):
    method = "DELETE" if "force" in target else "GET"
    status, body = ask(api.path, get(target, method))
    assert (status, body["error"]["code"], body["error"]["field"]) == (400, "invalid", field)


@pytest.mark.parametrize(
    "target", ["/", "/v1", "/v1/", "/v2/networks", "/v1/networks/a/b/c/d", "//v1/networks", "/v1/nets", "*"]
)
def test_a_path_that_is_not_there_is_not_found(api, target):
    status, body = ask(api.path, get(target))
    assert (status, body["error"]["code"]) == (404, "not_found")


def test_a_wrong_method_says_which_are_right(api):
    with Raw(api.path) as raw:
        raw.send(get("/v1/networks", "PUT"))
        status, headers, _ = raw.answer()
    assert (status, headers["allow"]) == (405, "GET, POST")


def test_logs_are_lines(api):
    ask(api.path, post("/v1/containers", {"name": "web", "spec": {}}))
    with Raw(api.path) as raw:
        raw.send(get("/v1/containers/web/logs?tail=2"))
        status, headers, body = raw.answer()
    assert (status, headers["content-type"]) == (200, "application/x-ndjson")
    assert [json.loads(line)["text"] for line in body.splitlines()] == ["line 1", "line 2"]


def test_an_exec_takes_bytes_and_ends_with_the_exit_code(api):
    ask(api.path, post("/v1/containers", {"name": "web", "spec": {}}))
    request = {"command": ["cat"], "stdin": "aGk=", "env": {"CODE": "3"}}
    with Raw(api.path) as raw:
        raw.send(post("/v1/containers/web/exec", request))
        lines = [json.loads(line) for line in raw.answer("POST")[2].splitlines()]
    assert lines[0]["data"] == "b3V0Omhp"
    assert (lines[-1]["stream"], lines[-1]["exit_code"]) == ("exit", 3)
