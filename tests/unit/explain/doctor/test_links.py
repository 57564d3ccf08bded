"""Configurations of systemd-networkd and NetworkManager that match our links, and that do not."""

import msgspec
import pytest

from sealane.compile.names import network_link
from sealane.explain.doctor.evidence import ConfigFile, Managers
from unit.explain.doctor.cases import Patient


def networkd(*texts: str) -> list[str]:
    files = tuple(ConfigFile(f"/etc/systemd/network/{n:02}.network", text) for n, text in enumerate(texts))
    return [f.message for f in Patient().host(managers=Managers(networkd=files)).findings()]


def manager(*texts: str) -> list[str]:
    files = tuple(ConfigFile(f"/etc/NetworkManager/conf.d/{n}.conf", text) for n, text in enumerate(texts))
    return [f.message for f in Patient().host(managers=Managers(network_manager=files)).findings()]


@pytest.mark.parametrize(
    ("match", "taken"),
    [
        ("Name=*", 2),
        ("Name=eth* sl*", 2),
        ("Name=slb*", 1),
        ("Type=ether", 1),
        ("Type=bridge", 1),
        ("Kind=veth", 1),
        ("Driver=veth bridge", 2),
        ("Name=!eth*", 2),
        ("Name=!sle* slb*", 0),
        ("Name=*\nType=bridge", 1),
        ("", 2),
        ("Name=eth*", 0),
        ("Type=wlan", 0),
        ("Name=*\nMACAddress=02:00:00:00:00:01", 0),
        ("Name=*\nName=\nName=eth0", 0),
        ("#Name=eth0\n;Type=wlan\nName=*", 2),
    ],
)
def test_networkd(match, taken) -> None:
    assert len(networkd(f"[Match]\n{match}\n[Network]\nDHCP=yes\n")) == taken


def test_a_file_without_a_match_section_matches_nothing() -> None:
    assert networkd("[Network]\nDHCP=yes\n") == []


def test_the_first_file_decides() -> None:
    spared, taking = "[Match]\nName=sl*\n[Link]\nUnmanaged=yes\n", "[Match]\nName=*\n"
    assert networkd(spared, taking) == []
    assert len(networkd(taking, spared)) == 2
    assert "/00.network matches" in networkd(taking, spared)[0]


@pytest.mark.parametrize(
    ("texts", "left"),
    [
        ([], "sle… and slb…"),
        (["[main]\nunmanaged-devices=*\n"], "sle… and slb…"),
        (["[keyfile]\nunmanaged-devices=interface-name:sle*\n"], " slb… alone"),
        (["[keyfile]\nunmanaged-devices=interface-name:sle*,interface-name:slb*\n"], ""),
        (["[keyfile]\nunmanaged-devices=interface-name:=sl*\n"], "sle… and slb…"),
        (["[keyfile]\nunmanaged-devices=type:veth;type:bridge\n"], ""),
        (["[keyfile]\nunmanaged-devices=*\n"], ""),
        (
            ["[keyfile]\nunmanaged-devices=interface-name:sl*\n", "[keyfile]\nunmanaged-devices=type:wifi\n"],
            "sle… and slb…",
        ),
        (
            [
                "[keyfile]\nunmanaged-devices=interface-name:sle*\n",
                "[keyfile]\nunmanaged-devices+=type:bridge\n",
            ],
            "",
        ),
    ],
)
def test_network_manager(texts, left) -> None:
    found = manager(*texts)
    assert len(found) == bool(left)
    assert all(left in message for message in found)


@pytest.mark.parametrize(("driver", "told"), [("bridge", [("back", "error")]), ("routed", [])])
def test_a_bridge_that_does_not_know_its_own_mac(driver, told) -> None:
    patient = Patient(back={"driver": driver})
    name = network_link(patient.town.back)
    links = [
        msgspec.structs.replace(link, is_deaf=link.name == name, mac="02:00:00:00:00:07")
        for link in patient.evidence.host.links
    ]
    assert patient.host(links=tuple(links)).told("bridge-deaf") == told
    hint = f"bridge fdb add 02:00:00:00:00:07 dev {name} self permanent"
    assert {f.hint for f in patient.findings("bridge-deaf")} == ({hint} if told else set())
