"""What the daemon refuses of a compose project, told in the file's words."""

import msgspec
import pytest

from sealane.cli.composefields import NETWORK_KEYS, SERVICE_KEYS, as_written
from sealane.cli.load import load_manifest
from sealane.containers.spec import ContainerSpec
from sealane.engine.errors import ConflictError
from sealane.wire.requests import AttachRequest, ContainerRequest, NetworkRequest

FILE = """\
services:
  db:
    scale: 2
    command: postgres
    networks: [back]
  web:
    command: [nginx]
    mem_limit: 64m
    networks:
      front:
        ipv4_address: 10.1.0.9
      back:
    ports:
      - "8080-8081:80"
      - 9090:90
  my.web:
    command: [x]
    deploy: {resources: {limits: {memory: 4m}}}
    tmpfs: [/run]
    dns_search: [a.example]
    networks: [front.tier]
networks:
  front:
    ipam:
      config:
        - subnet: 10.1.0.0/24
  back:
    name: inner
  front.tier:
    driver_opts: {mtu: "1"}
"""


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.delenv("COMPOSE_PROJECT_NAME", raising=False)
    (tmp_path / "compose.yaml").write_text(FILE)
    return str(tmp_path)


def told(path, field, **more):
    manifest, _ = load_manifest(path, "shop")
    body = as_written({"code": "conflict", "field": field, "message": "m", **more}, manifest, path)
    return body["field"]


@pytest.mark.parametrize(
    ("field", "written"),
    [
        ("containers[1].spec.command", "line 4: services.db.command"),
        ("containers[2].publish[1].host_first", "line 15: services.web.ports[1]"),
        ("containers[2].publish", "line 13: services.web.ports"),
        ("containers[2].addresses[0]", "line 9: services.web.networks"),
        ("containers[2].spec.limits.memory_bytes", "line 8: services.web.mem_limit"),
        ("containers[2].spec.user", "line 6: services.web.user"),
        ("containers[2]", "line 6: services.web"),
        ("networks[0].subnets[0].prefix", "line 26: networks.front.ipam.config[0]"),
        ("networks[0].options.mtu", "line 23: networks.front.driver_opts"),
        ("networks[1].driver", "line 27: networks.back.driver"),
        ("networks[2].options.mtu", "line 30: networks['front.tier'].driver_opts"),
        ("containers[3].spec.command", "line 17: services['my.web'].command"),
        (
            "containers[3].spec.limits.memory_bytes",
            "line 18: services['my.web'].deploy.resources.limits.memory",
        ),
        ("containers[3].spec.mounts[0].target", "line 19: services['my.web'].tmpfs"),
        ("containers[3].spec.dns.search", "line 20: services['my.web'].dns_search"),
    ],
)
def test_a_field_of_a_request_is_a_key_of_the_file(path, field, written):
    assert told(path, field) == written


@pytest.mark.parametrize(
    "field", ["", "project", "containers[9].name", "attachments[0].network", "containers[x]"]
)
def test_what_the_file_does_not_say_stays_as_it_is(path, field):
    assert told(path, field) == field


def test_of_stdin_no_line_is_known(path):
    manifest, _ = load_manifest(path, "shop")
    body = as_written({"field": "containers[2].publish[0]"}, manifest, "-")
    assert body["field"] == "services.web.ports[0]"


def test_a_manifest_is_told_in_its_own_words(tmp_path):
    (tmp_path / "m.yaml").write_text("containers: [{name: a, spec: {command: [x]}}]\nnetworks: [{name: n}]\n")
    for field in ("containers[0].spec.command", "networks[0].driver"):
        assert told(str(tmp_path / "m.yaml"), field) == field


def test_every_field_that_is_translated_is_one():
    """A renamed field would be told untranslated, and nobody would notice."""
    plain = {*ContainerRequest.__struct_fields__, *AttachRequest.__struct_fields__}
    for field in SERVICE_KEYS:
        first, _, rest = field.partition(".")
        kind = ContainerSpec
        assert first in plain or first == "spec", field
        for step in rest.split(".") if rest else []:
            types = msgspec.inspect.type_info(kind)
            fields = {f.encode_name: f.type for f in types.fields}
            assert step in fields, field
            below = fields[step]
            below = next((t for t in getattr(below, "types", [below]) if hasattr(t, "cls")), None)
            kind = below.cls if below else None
    assert set(NETWORK_KEYS) <= set(NetworkRequest.__struct_fields__)


def test_up_and_apply_tell_it(cli, api, path, monkeypatch):
    async def refuse(_manifest):
        raise ConflictError(
            "host port 8080 is held by nginx (pid 7)", field="containers[2].publish[0]", hint="c"
        )

    monkeypatch.setattr(api.services.project, "apply", refuse)
    for verb in (("up", "-d"), ("apply",)):
        ran = cli(*verb, "-f", path)
        assert ran.code == 1
        assert "field: line 14: services.web.ports[0]" in " ".join(ran.err.split())
