"""Images on the command line: what is asked of the daemon, in which order, and what is shown."""

import json

import pytest

from sealane.cli.context import UsageError
from sealane.cli.images import image_ref
from sealane.engine.errors import NotFoundError
from unit.api.double_images import ROOT


@pytest.fixture
def services(api):
    return api.services


def test_a_reference_has_an_absolute_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    assert str(image_ref("oci:build:v1", "x")) == f"oci:{tmp_path}/build:v1"
    assert str(image_ref("oci-archive:../a.tar", "x")) == f"oci-archive:{tmp_path.parent}/a.tar"
    assert str(image_ref("oci:~/build", "x")) == "oci:/home/me/build"


def test_one_that_cannot_be_is_refused_with_its_field():
    with pytest.raises(UsageError) as caught:
        image_ref("oci:", "--rootfs")
    assert caught.value.body["field"] == "--rootfs"
    assert "oci:PATH[:TAG]" in caught.value.body["hint"]


def test_load_says_how_far_it_is_and_prints_what_roots_are_named_by(cli, services):
    ran = cli("image", "load", "oci:/srv/web:v1")
    assert (ran.code, ran.out) == (0, f"{ROOT}\n")
    assert "reading oci:/srv/web:v1" in ran.err
    assert "unpacking" in ran.err
    assert services.images.asked == ["oci:/srv/web:v1"]


def test_none_is_removed_if_one_is_no_reference(cli):
    cli("image", "load", "oci:/srv/web:v1")
    ran = cli("image", "rm", "oci:/srv/web:v1", "oci:")
    assert (ran.code, ran.out, "field: IMAGE\n" in ran.err) == (2, "", True)


def test_what_a_load_fails_with_is_told(cli, services):
    ran = cli("image", "load", "oci:/srv/broken")
    assert (ran.code, "index.json" in ran.err) == (1, True)
    services.images.lacking = "umoci"
    ran = cli("image", "load", "oci:/srv/web")
    assert ran.code != 0
    assert "install skopeo and umoci" in ran.err
    assert cli("image", "load", "busybox").code == 2


def test_ls_and_prune(cli, services):
    cli("image", "load", "oci:/srv/web")
    shown = cli("image", "ls").out
    for part in ("oci:/srv/web", "ab" * 6, "/bin/web --serve", "80/tcp"):
        assert part in shown
    assert cli("image", "ls", "-q").out == f"{ROOT}\n"
    assert json.loads(cli("--json", "image", "ls").out)[0]["exposed"] == ["80/tcp"]
    assert cli("image", "prune").out == "oci:/srv/web\n"
    assert cli("image", "prune").out == ""


def test_rm_takes_several_and_makes_a_path_absolute(cli, services, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cli("image", "load", "oci:web:v1")
    cli("image", "load", "oci:/srv/db")
    ran = cli("image", "rm", "oci:web:v1", "oci:/srv/db")
    assert (ran.code, ran.out.splitlines()) == (0, ["oci:web:v1", "oci:/srv/db"])
    assert services.images.all == {}


def test_run_fetches_first_and_names_it_by_its_digest(cli, services):
    ran = cli("run", "-d", "--name", "web", "--rootfs", "oci:/srv/web")
    assert (ran.code, ran.out) == (0, "web\n")
    assert services.images.asked == ["oci:/srv/web"]
    spec = json.loads(bytes(services.workloads.requests["web"].spec))
    assert spec["rootfs"] == ROOT
    assert "command" not in spec
    assert "entrypoint" not in spec


def test_an_image_may_stand_before_the_command_as_dockers_does(cli, services):
    assert cli("run", "-d", "--name", "web", "-p", "8080:80", "oci:/srv/web", "serve", "-x").code == 0
    assert cli("run", "-d", "--name", "web2", "oci:/srv/web").code == 0
    first, second = (json.loads(bytes(services.workloads.requests[name].spec)) for name in ("web", "web2"))
    assert (first["rootfs"], first["command"]) == (ROOT, ["serve", "-x"])
    assert second["rootfs"] == ROOT
    assert "command" not in second


def test_what_looks_like_an_image_is_a_command_where_the_root_is_named(cli, services):
    assert cli("run", "-d", "--name", "web", "--rootfs", "/srv", "oci:/srv/web").code == 0
    spec = json.loads(bytes(services.workloads.requests["web"].spec))
    assert (spec["rootfs"], spec["command"]) == ("/srv", ["oci:/srv/web"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("serve", "-x"), {"command": ["serve", "-x"]}),
        (("--entrypoint", "/bin/sh", "--", "-c", "x"), {"entrypoint": ["/bin/sh"], "command": ["-c", "x"]}),
        (("--entrypoint", "/bin/sh"), {"entrypoint": ["/bin/sh"]}),
        (("--entrypoint", "", "/bin/x"), {"entrypoint": [], "command": ["/bin/x"]}),
    ],
)
@pytest.mark.parametrize("rootfs", ["oci:/srv/web", ROOT])
def test_run_leaves_to_the_image_what_is_not_said(cli, services, rootfs, words, said):
    assert cli("run", "-d", "--name", "web", "--rootfs", rootfs, *words).code == 0
    spec = json.loads(bytes(services.workloads.requests["web"].spec))
    assert {key: spec[key] for key in ("entrypoint", "command") if key in spec} == said


def test_an_entrypoint_without_an_image_is_the_beginning_of_the_command(cli, services):
    assert cli("run", "-d", "--name", "web", "--entrypoint", "/bin/echo", "x").code == 0
    spec = json.loads(bytes(services.workloads.requests["web"].spec))
    assert spec["command"] == ["/bin/echo", "x"]
    assert "entrypoint" not in spec


@pytest.mark.parametrize(
    ("words", "begins"),
    [
        (("--rootfs", "oci:/srv/web.d"), "web-"),
        (("--rootfs", "oci-archive:/srv/shop.tar:1"), "shop-"),
        (("--rootfs", ROOT), "container-"),
        (("--entrypoint", "/bin/echo"), "echo-"),
    ],
)
def test_a_name_is_made_of_what_is_known(cli, words, begins):
    assert cli("run", "-d", *words).out.startswith(begins)


def test_without_an_image_a_command_is_needed(cli):
    assert cli("run", "-d").code == 125


def test_an_image_that_fails_is_125_as_with_docker_and_makes_nothing(cli, services):
    ran = cli("run", "--rootfs", "oci:/srv/broken")
    assert (ran.code, "index.json" in ran.err) == (125, True)
    assert services.workloads.requests == {}


COMPOSE = """name: shop
services:
  web: {image: 'oci:./web:v1'}
  api: {image: 'oci:./web:v1', command: [serve]}
  job: {image: 'oci-archive:./job.tar', entrypoint: [], command: [/bin/job], stop_signal: SIGINT}
  old: {image: host, entrypoint: [/bin/echo], command: [x]}
"""


@pytest.mark.parametrize("verb", [("up", "-d"), ("apply",)])
def test_a_project_fetches_each_of_its_images_once(cli, services, tmp_path, verb):
    (tmp_path / "compose.yaml").write_text(COMPOSE)
    assert cli(*verb, "-f", str(tmp_path / "compose.yaml")).code == 0
    assert services.images.asked == [f"oci:{tmp_path}/web:v1", f"oci-archive:{tmp_path}/job.tar"]
    (manifest,) = services.project.manifests
    specs = {each.name: json.loads(bytes(each.spec)) for each in manifest.containers}
    assert specs["shop-web-1"]["rootfs"] == ROOT
    assert not {"command", "entrypoint", "stop_signal"} & set(specs["shop-web-1"])
    assert specs["shop-api-1"]["command"] == ["serve"]
    job = specs["shop-job-1"]
    assert (job["entrypoint"], job["command"], job["stop_signal"]) == ([], ["/bin/job"], "2")
    assert (specs["shop-old-1"]["rootfs"], specs["shop-old-1"]["command"]) == ("host", ["/bin/echo", "x"])


@pytest.mark.parametrize("verb", [("plan", "--delete"), ("delete",), ("down",)])
def test_what_goes_needs_no_images(cli, services, tmp_path, verb):
    """Nor what they are read by: what they were made of may be gone."""
    services.images.lacking = "skopeo"
    (tmp_path / "compose.yaml").write_text(COMPOSE)
    assert cli(*verb, "-f", str(tmp_path / "compose.yaml")).code == 0


@pytest.mark.parametrize("verb", [("plan",), ("delete",), ("down",)])
def test_what_starts_nothing_fetches_nothing(cli, services, tmp_path, verb):
    (tmp_path / "compose.yaml").write_text(COMPOSE)
    assert cli(*verb, "-f", str(tmp_path / "compose.yaml")).code == 0
    assert services.images.asked == []


@pytest.mark.parametrize(("is_there", "rootfs"), [(False, "oci:{}/web:v1"), (True, ROOT)])
def test_a_plan_names_images_that_are_there_as_up_would(cli, services, tmp_path, is_there, rootfs):
    if is_there:
        cli("image", "load", f"oci:{tmp_path}/web:v1")
    (tmp_path / "compose.yaml").write_text(COMPOSE)
    cli("plan", "-f", str(tmp_path / "compose.yaml"))
    planned = services.project.planned
    specs = {each.name: json.loads(bytes(each.spec)) for each in planned.containers}
    assert specs["shop-web-1"]["rootfs"] == rootfs.format(tmp_path)


def test_a_manifest_names_images_too(cli, services, tmp_path):
    document = {"containers": [{"name": "web", "spec": {"rootfs": "oci:/srv/web", "command": ["x"]}}]}
    (tmp_path / "m.json").write_text(json.dumps(document))
    assert cli("apply", "-f", str(tmp_path / "m.json")).code == 0
    (manifest,) = services.project.manifests
    assert json.loads(bytes(manifest.containers[0].spec)) == {"rootfs": ROOT, "command": ["x"]}


HINT = "hint: there are no registries here: an image is oci:PATH[:TAG] or oci-archive:FILE[:TAG]"


@pytest.mark.parametrize("flags", [(), ("-d",), ("-i",)])
def test_a_name_of_a_registrys_image_is_told_that_there_is_none(cli, api, monkeypatch, flags):
    async def refuse(request, **_):
        raise NotFoundError("the runtime refused: alpine: not found", field="spec.command", hint="look")

    monkeypatch.setattr(api.services.workloads, "create", refuse)
    ran = cli("run", *flags, "--network", "none", "alpine", "echo", "hi")
    assert (ran.code, HINT in ran.err) == (127, True)
    ran = cli("run", *flags, "--network", "none", "--rootfs", "/", "alpine", "echo", "hi")
    assert (ran.code, HINT in ran.err, "hint: look" in ran.err) == (127, False, True)
    ran = cli("run", *flags, "--network", "none", "--rootfs", "/", "oci:./img:bb", "id")
    assert (
        ran.code,
        "hint: an image is a root as --rootfs names one: leave out --rootfs, or oci:" in ran.err,
    ) == (127, True)
