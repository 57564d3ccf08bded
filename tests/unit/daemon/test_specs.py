"""Which containers get a user namespace of their own."""

import json

import msgspec
import pytest

from sealane.containers.spec import Dns
from sealane.daemon.specs import runtime_spec, wants_userns
from sealane.engine.errors import InvalidError
from sealane.model.endpoint import NetnsRef
from sealane.wire.requests import Attachment, ContainerRequest


def request(*, userns="", mode="", rootfs=None):
    spec = {"command": ["x"]} | ({} if rootfs is None else {"rootfs": rootfs})
    attachments = [] if mode else [Attachment(network="front")]
    return ContainerRequest(
        name="web", spec=msgspec.Raw(json.dumps(spec).encode()), attachments=attachments, network_mode=mode, userns=userns
    )  # fmt: skip


def can(_):
    return ""


def cannot(_):
    return "because"


@pytest.mark.parametrize(
    ("userns", "mode", "missing", "desired"),
    [
        ("", "", can, True),
        ("private", "", can, True),
        ("", "none", can, True),
        ("private", "none", can, True),
        ("host", "", can, False),
        ("", "", cannot, False),
        ("host", "", cannot, False),
        ("", "host", can, False),
        ("host", "host", can, False),
        ("", "container:db", can, False),
        ("host", "container:db", can, False),
    ],
)
def test_it_is_the_default_where_the_network_is_its_own(userns, mode, missing, desired):
    assert wants_userns(request(userns=userns, mode=mode), missing) is desired


@pytest.mark.parametrize("mode", ["host", "container:db"])
def test_a_network_that_is_anothers_belongs_to_anothers_user_namespace(mode):
    with pytest.raises(InvalidError, match="belongs to another user namespace") as refused:
        wants_userns(request(userns="private", mode=mode), can)
    assert refused.value.field == "userns"


def test_who_insists_is_told_why_it_cannot_be():
    with pytest.raises(InvalidError, match="there is no user namespace to be had: because"):
        wants_userns(request(userns="private"), cannot)


@pytest.mark.parametrize(("rootfs", "asked"), [(None, "host"), ("/srv/web", "/srv/web")])
def test_it_depends_on_the_root(rootfs, asked):
    seen = []
    wants_userns(request(rootfs=rootfs), lambda root: seen.append(root) or "")
    assert seen == [asked]


@pytest.mark.parametrize(("owner", "userns"), [("", None), ("/run/n.user", "/run/n.user")])
def test_a_container_lives_in_the_user_namespace_that_owns_its_network(owner, userns):
    ref = NetnsRef(path="/run/n", inode=1, userns=owner)
    spec = runtime_spec(request(), "c" * 32, None, netns=ref, dns=Dns(), hosts=())
    assert (spec.netns, spec.userns) == ("/run/n", userns)


def test_on_the_hosts_network_it_lives_in_the_hosts():
    spec = runtime_spec(request(mode="host"), "c" * 32, None, netns=None, dns=Dns(), hosts=())
    assert (spec.netns, spec.userns) == (None, None)


@pytest.mark.parametrize("field", ["netns", "userns"])
def test_nobody_says_by_path_where_it_lives(field):
    desired = msgspec.structs.replace(
        request(), spec=msgspec.Raw(json.dumps({"command": ["x"], field: "/proc/1/ns/user"}).encode())
    )
    with pytest.raises(InvalidError, match=f"`{field}` is filled in by the daemon"):
        runtime_spec(desired, "c" * 32, None, netns=None, dns=Dns(), hosts=())
