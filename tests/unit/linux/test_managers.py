"""Files of those who look after firewall and links: which are read, and which one counts."""

import os

import pytest

from sealane.linux import managers


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Every path of the module, below a folder of the test's."""
    for name in ("_NFTABLES_FILES", "_WANTS", "_NETWORKD", "_NETWORK_MANAGER"):
        moved = tuple(f"{tmp_path}{path}" for path in getattr(managers, name))
        monkeypatch.setattr(managers, name, moved)
    for name in ("_UFW", "_NETWORKD_RUNS", "_NETWORK_MANAGER_RUNS"):
        monkeypatch.setattr(managers, name, f"{tmp_path}{getattr(managers, name)}")

    def write(path, text=""):
        os.makedirs(os.path.dirname(f"{tmp_path}{path}"), exist_ok=True)
        (tmp_path / path.removeprefix("/")).write_text(text, encoding="utf-8")

    return write


def test_a_host_with_nobody(root):
    assert managers.read_managers() == managers.Managers()


def test_ufw_counts_when_it_is_enabled(root):
    root("/etc/ufw/ufw.conf", "# ENABLED=yes\nENABLED=no\n")
    assert managers.read_managers().firewalls == ()
    root("/etc/ufw/ufw.conf", "  ENABLED=yes\n")
    assert managers.read_managers().firewalls == ("ufw",)


@pytest.mark.parametrize(
    ("text", "flushes"),
    [
        ("flush ruleset\n", True),
        ("  flush   ruleset ;\n", True),
        ("# flush ruleset\n", False),
        ("flush ruleset inet\n", False),
        ("table ip x\n", False),
        ("", False),
    ],
)
def test_a_file_of_rules_that_begins_with_everybodys_end(root, text, flushes):
    root("/etc/nftables.conf", text)
    assert managers.read_managers().flushes == ()
    root("/etc/systemd/system/multi-user.target.wants/nftables.service")
    assert bool(managers.read_managers().flushes) is flushes


def test_networkds_files_by_name_the_administrators_first(root):
    root("/etc/systemd/network/50-b.network", "mine")
    root("/usr/lib/systemd/network/50-b.network", "theirs")
    root("/usr/lib/systemd/network/10-a.network", "first")
    root("/usr/lib/systemd/network/10-a.link", "no network")
    assert managers.read_managers().networkd == ()
    root("/run/systemd/netif/state")
    assert [file.text for file in managers.read_managers().networkd] == ["first", "mine"]


def test_network_managers_files_in_the_order_in_which_they_count(root):
    root("/etc/NetworkManager/conf.d/10.conf", "last")
    root("/etc/NetworkManager/NetworkManager.conf", "second")
    root("/usr/lib/NetworkManager/conf.d/90.conf", "first")
    assert managers.read_managers().network_manager is None
    root("/run/NetworkManager/state")
    files = managers.read_managers().network_manager
    assert files is not None
    assert [file.text for file in files] == ["first", "second", "last"]
