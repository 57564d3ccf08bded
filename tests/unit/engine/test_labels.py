"""What sealane knows its own by, nobody else can give."""

import msgspec
import pytest

from sealane.engine.errors import InvalidError
from sealane.engine.labels import OWNED_BY, PROJECT, SERVICE, belonging, check_labels
from sealane.integrations.cni import config as cni
from sealane.integrations.netavark import config as podman
from sealane.integrations.oci import annotations as oci
from sealane.wire.requests import AttachRequest, ContainerRequest, Manifest, NetworkRequest

DOORS = [cni.CONTAINER, cni.IFNAME, cni.CGROUP, podman.CONTAINER, podman.NETWORK, oci.CONTAINER, oci.PID]


@pytest.mark.parametrize("label", [*DOORS, OWNED_BY, PROJECT, SERVICE, "sealane."])
def test_sealanes_own_are_refused_by_name(label):
    with pytest.raises(InvalidError) as caught:
        check_labels({"tier": "web", label: "1"})
    assert (caught.value.field, caught.value.hint) == ("labels", "choose another name")
    assert label in caught.value.message


@pytest.mark.parametrize("label", ["tier", "sealane", "sealanes.project", "podman.x", ""])
def test_others_are_anybodys(label):
    check_labels({label: "x"})


def manifest(project="shop", *, network=(), container=(), attachment=()):
    spec = msgspec.Raw(b'{"command":["x"]}')
    return Manifest(
        project=project,
        networks=[NetworkRequest(name="front", labels=dict(network))],
        containers=[ContainerRequest(name="web", spec=spec, labels=dict(container))],
        attachments=[AttachRequest(sandbox="lab", network="front", labels=dict(attachment))],
    )


def test_what_a_project_makes_is_the_projects_whether_it_says_so_or_not():
    mine = {PROJECT: "shop"}
    for given in ({}, mine, {"tier": "web"}, {"tier": "web", **mine}):
        found = belonging(manifest(network=given, container=given))
        assert found.networks[0].labels == found.containers[0].labels == {**given, **mine}
        assert belonging(found) == found


def test_a_service_of_the_project_is_its_to_name():
    assert belonging(manifest(container={SERVICE: "web"})).containers[0].labels == {
        SERVICE: "web",
        PROJECT: "shop",
    }


def test_without_a_project_nothing_is_anybodys():
    assert belonging(manifest("")) == manifest("")


@pytest.mark.parametrize("kind", ["network", "container", "attachment"])
@pytest.mark.parametrize(
    ("project", "labels"),
    [
        ("shop", {PROJECT: "other"}),
        ("shop", {OWNED_BY: "1"}),
        ("shop", {cni.CONTAINER: "1"}),
        ("", {PROJECT: "shop"}),
        ("", {SERVICE: "web"}),
    ],
)
def test_what_is_not_its_to_give_is_refused_in_its_place(kind, project, labels):
    with pytest.raises(InvalidError) as caught:
        belonging(manifest(project, **{kind: labels}))
    assert caught.value.field == f"{kind}s[0].labels"


def test_an_endpoint_is_no_projects():
    with pytest.raises(InvalidError):
        belonging(manifest(attachment={PROJECT: "shop"}))
