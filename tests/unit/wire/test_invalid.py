"""What is wrong with a document is told by its place and with a hint."""

import msgspec
import pytest

from sealane.containers.spec import ContainerSpec
from sealane.wire.invalid import wrong
from sealane.wire.requests import Manifest

SPEC = {"id": "a", "name": "a", "command": ["x"]}


def told(document, kind=Manifest, within=""):
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert(document, kind)
    return tuple(wrong(caught.value, kind, within=within))


@pytest.mark.parametrize(
    ("networks", "place", "hint"),
    [
        ([{"name": "a"}, {"name": "b", "subnet": "x"}], "networks[1].subnet", "write subnets if that is meant"),
        ([{"name": "a", "subnets": [{"prefx": ""}]}], "networks[0].subnets[0].prefx", "write prefix if that is meant"),
        ([{"name": "a", "subnets": [{"zzz": ""}]}], "networks[0].subnets[0].zzz", "known are gateway, ip_range, prefix, reserved"),
    ],
)  # fmt: skip
def test_an_unknown_key_comes_with_its_place_and_the_nearest(networks, place, hint):
    key = place.rpartition(".")[2]
    assert told({"networks": networks}) == (f"there is no field {key!r}", place, hint)


@pytest.mark.parametrize(
    ("spec", "field", "hint"),
    [
        ({"comand": ["x"]}, "spec.comand", "write command if that is meant"),
        ({"limits": {"memory": 1}}, "spec.limits.memory", "write memory_bytes if that is meant"),
        ({"health": {"retry": 1}}, "spec.health.retry", "write retries if that is meant"),
        (
            {"mounts": [{"type": "bind", "sorce": "x"}]},
            "spec.mounts[0].sorce",
            "write source if that is meant",
        ),
    ],
)
def test_a_spec_is_known_to_its_depth(spec, field, hint):
    assert told(SPEC | spec, ContainerSpec, within="spec")[1:] == (field, hint)


@pytest.mark.parametrize(
    ("document", "message", "field", "hint"),
    [
        ({"networks": [{}]}, "networks[0].name is missing", "networks[0].name", "add it"),
        ({"networks": {}}, "Expected `array`, got `object`", "networks", "write a list"),
        (
            {"networks": [{"name": 1}]},
            "Expected `str`, got `int`",
            "networks[0].name",
            "write a text, in quotes if it looks like a number",
        ),
        (
            {"networks": [{"name": "a", "ipv6": "x"}]},
            "Expected `bool`, got `str`",
            "networks[0].ipv6",
            "write true or false",
        ),
        (
            {"attachments": [{"sandbox": "a", "network": "b", "ingress": 1}]},
            "Expected `object | null`, got `int`",
            "attachments[0].ingress",
            "write keys and values, or leave it out",
        ),
        (
            {"attachments": [{"sandbox": "a", "network": "b", "publish": [{"port": 1, "proto": "tpc"}]}]},
            "Invalid enum value 'tpc'",
            "attachments[0].publish[0].proto",
            "one of sctp, tcp, udp",
        ),
        (
            {"containers": [{"name": "a", "spec": msgspec.Raw(b"{}"), "depends_on": {"b": "up"}}]},
            "Invalid enum value 'up'",
            "containers[0].depends_on[...]",
            "one of completed, healthy, started",
        ),
    ],
)
def test_a_wrong_value_comes_with_what_is_meant(document, message, field, hint):
    assert told(document) == (message, field, hint)


def test_a_document_that_is_none_at_all_has_no_place():
    assert told([]) == ("Expected `object`, got `array`", "", "write keys and values")
    assert told([], within="spec")[1] == "spec"
