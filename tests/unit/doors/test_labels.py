"""What a door knows its own by, nobody else can give."""

import pytest

from sealane.doors.cni import config as cni
from sealane.doors.labels import RESERVED, check_labels
from sealane.doors.netavark import config as podman
from sealane.doors.oci import annotations as oci
from sealane.engine.errors import InvalidError

OWN = [cni.CONTAINER, cni.IFNAME, cni.CGROUP, podman.CONTAINER, podman.NETWORK, oci.CONTAINER, oci.PID]


@pytest.mark.parametrize("label", OWN)
def test_each_doors_own_are_refused_by_name(label):
    with pytest.raises(InvalidError) as caught:
        check_labels({"tier": "web", label: "1"}, "labels")
    assert (caught.value.field, caught.value.cure) == ("labels", "choose another name")
    assert label in caught.value.message


def test_no_door_is_forgotten():
    assert {label.rpartition(".")[0] + "." for label in OWN} == set(RESERVED)


@pytest.mark.parametrize(
    "label", ["tier", "sealane.project", "sealane.service", "sealane.podmans", "podman.x", ""]
)
def test_others_are_anybodys(label):
    check_labels({label: "x"})
