"""Results of each version, both ways."""

import pytest

from sealane.programs.cni.errors import CniError
from sealane.programs.cni.result import from_version, merged, to_version
from sealane.programs.cni.spec import VERSIONS

RESULT = {
    "interfaces": [
        {"name": "sle0", "mac": "02:00:00:00:00:01", "mtu": 1400},
        {"name": "eth0", "mac": "02:00:00:00:00:02", "mtu": 1400, "sandbox": "/run/netns/a"},
    ],
    "ips": [
        {"address": "10.1.0.2/24", "gateway": "10.1.0.1", "interface": 1},
        {"address": "fd00::2/64", "gateway": "fd00::1", "interface": 1},
    ],
    "routes": [{"dst": "0.0.0.0/0", "gw": "10.1.0.1", "mtu": 1300}, {"dst": "::/0", "gw": "fd00::1"}],
    "dns": {"nameservers": ["10.1.0.1"]},
}


def test_1_1_0_has_all_of_it():
    assert to_version(RESULT, "1.1.0") == {"cniVersion": "1.1.0", **RESULT}


def test_1_0_0_knows_no_mtu():
    shown = to_version(RESULT, "1.0.0")
    assert shown["interfaces"][1] == {"name": "eth0", "mac": "02:00:00:00:00:02", "sandbox": "/run/netns/a"}
    assert shown["routes"][0] == {"dst": "0.0.0.0/0", "gw": "10.1.0.1"}
    assert "version" not in shown["ips"][0]


@pytest.mark.parametrize("version", ["0.3.0", "0.3.1", "0.4.0"])
def test_0_3_and_0_4_say_the_family(version):
    shown = to_version(RESULT, version)
    assert [ip["version"] for ip in shown["ips"]] == ["4", "6"]
    assert "mtu" not in shown["interfaces"][0]


@pytest.mark.parametrize("version", ["0.1.0", "0.2.0"])
def test_0_1_and_0_2_have_one_address_a_family(version):
    assert to_version(RESULT, version) == {
        "cniVersion": version,
        "ip4": {
            "ip": "10.1.0.2/24",
            "gateway": "10.1.0.1",
            "routes": [{"dst": "0.0.0.0/0", "gw": "10.1.0.1"}],
        },
        "ip6": {"ip": "fd00::2/64", "gateway": "fd00::1", "routes": [{"dst": "::/0", "gw": "fd00::1"}]},
        "dns": {"nameservers": ["10.1.0.1"]},
    }
    two = {"ips": [{"address": "10.1.0.2/24"}, {"address": "10.1.0.3/24"}]}
    with pytest.raises(CniError, match="one IPv4 address"):
        to_version(two, version)


@pytest.mark.parametrize("version", VERSIONS)
def test_there_and_back_loses_only_what_the_version_cannot_say(version):
    shown = to_version(RESULT, version)
    assert to_version(from_version(shown), version) == shown


@pytest.mark.parametrize("version", VERSIONS)
def test_an_empty_dns_is_left_out(version):
    assert "dns" not in to_version({**RESULT, "dns": {}}, version)
    assert "dns" not in to_version({**RESULT, "dns": {"nameservers": []}}, version)


@pytest.mark.parametrize(
    "result",
    [
        [],
        {"cniVersion": "7"},
        {"cniVersion": "1.0.0", "ips": {"a": 1}},
        {"cniVersion": "1.0.0", "ips": ["x"]},
        {"cniVersion": "1.0.0", "ips": [{}]},
        {"cniVersion": "0.2.0", "ip4": {}},
    ],
)
def test_a_result_that_is_none_is_refused(result):
    with pytest.raises(CniError):
        from_version(result)


def test_what_is_there_before_in_a_chain_stays_and_ours_follows_with_its_indexes():
    before = from_version(
        {"cniVersion": "1.0.0", "interfaces": [{"name": "lo"}], "ips": [], "dns": {"domain": "x"}}
    )
    result = merged(before, {**RESULT, "dns": {}})
    assert [i["name"] for i in result["interfaces"]] == ["lo", "sle0", "eth0"]
    assert [ip["interface"] for ip in result["ips"]] == [2, 2]
    assert result["dns"] == {"domain": "x"}
